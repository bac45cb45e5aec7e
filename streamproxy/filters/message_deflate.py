"""permessage-deflate (RFC 7692): what each side's connection agrees on, and its messages inflated and deflated.

autobahn says what the parameters mean. The bytes are zlib's work, called from here: autobahn's own inflating has no
bound that streams. Frames aren't known here; whoever reads them gives the payloads of messages that have RSV1 set.

How it is negotiated, on each side by itself:

- To the origin it is offered if the client offered it in a way that can be accepted, with client_max_window_bits if the
  client's offer has that. What the client asked of its server (server_no_context_takeover, server_max_window_bits) is
  asked of the proxy, which does so; the origin isn't asked, since its bytes end here.
- The client's first offer that can be accepted is, as it was made: with what it asks of the server; and, where it says
  how it is going to compress itself (client_no_context_takeover, client_max_window_bits with a value), with that, so
  that it can be relied on and less is held here for it.
- A window of 256 bytes (8), which autobahn doesn't know, isn't accepted of a client that asks for it. An origin may
  answer with it, for itself and for its client.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from autobahn.websocket.compress_deflate import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
)

from streamproxy.filters.chain import PIECE, FilterError
from streamproxy.wire.message import WireError
from streamproxy.wire.upgrade import Extension

NAME: Final = b"permessage-deflate"
_CLIENT_BITS: Final = b"client_max_window_bits"
_SERVER_BITS: Final = b"server_max_window_bits"
_CLIENT_ALONE: Final = b"client_no_context_takeover"
# RFC 7692 section 7.1.2: no leading zeros. int() would take more than that.
_BITS: Final = {b"8": 8, b"9": 9, b"10": 10, b"11": 11, b"12": 12, b"13": 13, b"14": 14, b"15": 15}
_LEAST_BITS: Final = 9
_MOST_BITS: Final = 15

# What each message ends with but for these bytes, which aren't sent (RFC 7692 section 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"
# What an empty message, or the last fragment behind others, is when it has no bytes (RFC 7692 section 7.2.3.6).
_EMPTY: Final = b"\x00"

# What zlib hasn't used when its output is full, or at the end of a stream, is copied each time.
_PART: Final = 8192

# A smaller window than was agreed on is always allowed. Of the 256 KiB that zlib takes for its largest, this leaves 64.
# It costs 6 % of the size for JSON of a hundred bytes, 10 % for source text in pieces of 64 KiB; and where each message
# stands alone, a small one takes 5 microseconds and not 30. The next level takes a quarter of the speed for 3 or 4 %.
_LEVEL: Final = 4
_WINDOW_BITS: Final = 13
_MEMORY_LEVEL: Final = 6


class TooLarge(FilterError):
    """A message inflates to more bytes than it may have."""


class MessageCodingError(FilterError):
    """A message marked as compressed isn't what RFC 7692 says of one."""


class Terms(NamedTuple):
    """What was agreed on of the one who compresses in one direction: the window, as a power of two, 8 to 15; and
    whether each message is compressed by itself."""

    window_bits: int = _MOST_BITS
    no_context_takeover: bool = False


class Deflated(NamedTuple):
    """What one connection agreed on: how its client compresses, and how its server does."""

    client: Terms
    server: Terms


def offer(extensions: Sequence[Extension]) -> bytes | None:
    """What to offer the origin, as a value of Sec-WebSocket-Extensions, where the client offered `extensions`.

    None where the client's offers can't be accepted, or there is none.
    """
    found = _acceptable(extensions)
    if found is None:
        return None
    return NAME + b"; " + _CLIENT_BITS if _CLIENT_BITS in dict(found.parameters) else NAME


def agreed_with_origin(extensions: Sequence[Extension], offered: bytes) -> Deflated | None:
    """What the origin's answer, `extensions`, comes to; `offered` is the value that it answers.

    None where it didn't choose permessage-deflate. Raises WireError with 502 for parameters that may not stand there.
    """
    chosen = [extension for extension in extensions if extension.name == NAME]
    if not chosen:
        return None
    if len(chosen) > 1:
        raise WireError("the origin's Sec-WebSocket-Extensions names permessage-deflate twice", 502)
    parameters = chosen[0].parameters
    try:
        # Checks names, values and repetitions; it raises Exception itself.
        response: Any = PerMessageDeflateResponse.parse(_for_autobahn(parameters))  # type: ignore[no-untyped-call]
    except Exception:
        raise WireError("the origin's permessage-deflate has parameters that may not stand there", 502) from None
    values = dict(parameters)
    if _CLIENT_BITS in values and _CLIENT_BITS not in offered:
        raise WireError("the origin's permessage-deflate has a client_max_window_bits that wasn't offered", 502)
    return Deflated(
        Terms(_bits(values.get(_CLIENT_BITS)), bool(response.client_no_context_takeover)),
        Terms(_bits(values.get(_SERVER_BITS)), bool(response.server_no_context_takeover)),
    )


def answer(extensions: Sequence[Extension]) -> tuple[bytes, Deflated] | None:
    """The value of Sec-WebSocket-Extensions that accepts the first of a client's offers that can be, and what that
    comes to; None where there is none."""
    found = _acceptable(extensions)
    if found is None:
        return None
    values = dict(found.parameters)
    asked: Any = PerMessageDeflateOffer.parse(_for_autobahn(found.parameters))  # type: ignore[no-untyped-call]
    bits = values.get(_CLIENT_BITS)
    accept: Any = PerMessageDeflateOfferAccept(  # type: ignore[no-untyped-call]
        asked,
        request_no_context_takeover=_CLIENT_ALONE in values,
        request_max_window_bits=_bits(bits) if bits is not None and _bits(bits) >= _LEAST_BITS else 0,
    )
    written: str = accept.get_extension_string()
    return written.encode(), Deflated(
        Terms(int(accept.request_max_window_bits) or _MOST_BITS, bool(accept.request_no_context_takeover)),
        Terms(_bits(values.get(_SERVER_BITS)), bool(asked.request_no_context_takeover)),
    )


def _acceptable(extensions: Sequence[Extension]) -> Extension | None:
    """The first offer of permessage-deflate that can be accepted (RFC 7692 section 7.1)."""
    for extension in extensions:
        if extension.name != NAME or (_SERVER_BITS, b"8") in extension.parameters:
            continue
        try:
            PerMessageDeflateOffer.parse(_for_autobahn(extension.parameters))  # type: ignore[no-untyped-call]
        except Exception:
            # A wrong offer is declined, like one that can't be fulfilled.
            continue
        return extension
    return None


def _for_autobahn(parameters: tuple[tuple[bytes, bytes | None], ...]) -> dict[str, list[str | bool]]:
    """Parameters as autobahn has them: a list of values for each name, True for none.

    Raises KeyError for a size of a window that isn't one.
    """
    values: dict[str, list[str | bool]] = {}
    for name, value in parameters:
        written: str | bool = True
        if value is not None:
            if name in (_CLIENT_BITS, _SERVER_BITS):
                # It doesn't know 8.
                written = str(max(_BITS[value], _LEAST_BITS))
            else:
                written = value.decode("ascii")
        values.setdefault(name.decode("ascii"), []).append(written)
    return values


def _bits(value: bytes | None) -> int:
    """A size of a window, which is the largest where there is none."""
    return _MOST_BITS if value is None else _BITS[value]


class Inflate:
    """Inflates messages of one direction, one after the other: `begin`, `feed` as often as there is something, `end`.

    It holds what zlib does: 7 KiB and the window, at most 32 KiB, from the first message on; with
    no_context_takeover, only within one. What `feed` gives is to be taken to its end before the next call. After an
    error it is of no more use.

    A block that says it is the last (RFC 7692 section 7.2.3.4) ends a stream, and another one begins behind it, which
    refers to nothing before it. Others that read such blocks at all do the same.
    """

    __slots__ = ("_alone", "_coder", "_fed", "_made", "_window")

    def __init__(self, terms: Terms) -> None:
        self._window: int = -terms.window_bits
        self._alone = terms.no_context_takeover
        self._coder: Any = None
        # Of the message: whether there was any byte of it, and how many it inflated to.
        self._fed = False
        self._made = 0

    def begin(self) -> None:
        """A message begins."""
        self._fed = False
        self._made = 0

    def feed(self, data: bytes, most: int) -> Iterator[bytes]:
        """Take the message's next bytes; give what they inflate to, in pieces of at most 64 KiB.

        An empty piece means nothing, and is given where much is done for little. Raises, as it is taken, TooLarge
        where the message has more than `most` bytes, and MessageCodingError.
        """
        for start in range(0, len(data), _PART):
            part = data[start : start + _PART]
            self._fed = True
            given = False
            while True:
                if self._coder is None:
                    self._coder = zlib.decompressobj(self._window)
                coder = self._coder
                try:
                    piece: bytes = coder.decompress(part, PIECE)
                except zlib.error:
                    raise _garbage() from None
                if piece:
                    self._made += len(piece)
                    if self._made > most:
                        raise TooLarge(f"a message inflates to more than {most} bytes")
                    given = True
                    yield piece
                if coder.eof:
                    part = coder.unused_data
                    self._coder = None
                    if not part:
                        break
                else:
                    part = coder.unconsumed_tail
                    # A full piece may leave some in zlib, though that has used all that it was given.
                    if not part and len(piece) < PIECE:
                        break
            if not given and len(data) > _PART:
                yield b""

    def end(self) -> Iterator[bytes]:
        """The message has ended: what is still to come of it, which is nothing. Raises MessageCodingError where it was
        seen to be cut short."""
        coder = self._coder
        # Of no bytes at all, which no message should be compressed to, these four wouldn't make a block. Nor are they
        # needed behind a block that said it is the last.
        if self._fed and coder is not None:
            try:
                piece: bytes = coder.decompress(_TAIL, 1)
            except zlib.error:
                raise _garbage() from None
            # They end a block. Where they mean bytes they aren't read as that, and the message is cut short.
            if piece:
                raise _garbage()
            if coder.eof:
                self._coder = None
        if self._alone:
            self._coder = None
        return iter(_NOTHING)


class Deflate:
    """Deflates messages of one direction, one after the other.

    It holds what zlib does, about 70 KiB, from the first message on; with no_context_takeover, only within one.
    """

    __slots__ = ("_alone", "_coder", "_window")

    def __init__(self, terms: Terms) -> None:
        # zlib refuses 8. But it refers back no further than its window less 262 bytes, so 9 stays within what 8 may.
        self._window: int = -min(max(terms.window_bits, _LEAST_BITS), _WINDOW_BITS)
        self._alone = terms.no_context_takeover
        self._coder: Any = None

    def compress(self, parts: Sequence[bytes]) -> list[bytes]:
        """A message's fragments, in order and all of them, to the payloads that they are compressed to.

        A fragment can be inflated when it has come, without those behind it.
        """
        return [payload for payload in self.gradually(parts, len(parts)) if payload is not None]

    def gradually(self, parts: Iterable[bytes], count: int) -> Iterator[bytes | None]:
        """The same for `count` fragments one by one; None where a turn may end. To be taken to its end."""
        last = count - 1
        for at, part in enumerate(parts):
            if not part:
                # zlib has nothing to flush a second time. At the end there must be a block to take the tail from.
                yield b"" if at < last else _EMPTY
                continue
            if self._coder is None:
                self._coder = zlib.compressobj(_LEVEL, zlib.DEFLATED, self._window, _MEMORY_LEVEL)
            coder = self._coder
            made: list[bytes] = []
            if len(part) <= PIECE:
                made.append(coder.compress(part))
            else:
                for start in range(0, len(part), PIECE):
                    made.append(coder.compress(part[start : start + PIECE]))
                    yield None
            made.append(coder.flush(zlib.Z_SYNC_FLUSH))
            payload = b"".join(made)
            yield payload if at < last else payload[: -len(_TAIL)]
        if self._alone:
            self._coder = None


def _garbage() -> MessageCodingError:
    return MessageCodingError("a message isn't the permessage-deflate that it is marked as")


_NOTHING: tuple[bytes, ...] = ()
