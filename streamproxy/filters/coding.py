"""Content codings undone before a body's other filters, and put back behind them (RFC 9110 section 8.4).

gzip (RFC 1952), deflate (RFC 1950, or RFC 1951 as it is), br (RFC 7932) and zstd (RFC 8878). Transfer codings,
dictionaries (dcb, dcz) and ranges aren't known here; nor is any field, but for the values that are handed in. The
decoders are in inflate.py and decoders.py, the encoders in encoders.py.

What goes on is what was decoded, coded anew: one member or frame, with nothing behind its end. So what one reader would
find in a body, and another wouldn't, doesn't get past the filters unread. What is read follows browsers. Seen of
Chromium 156, curl 7.88 and requests 2.34 (which has no zstd), and chosen:

- Several members of gzip: Chromium leaves out all but the first, curl reports an error behind it, requests reads them,
  as RFC 1952 section 2.2 says. They are read, also behind zeros. So are frames of zstd, as by Chromium and curl.
- Bytes behind the end: Chromium and requests leave them out of gzip and deflate, curl reports an error behind the data.
  They are left out. For br only Chromium does that, and for zstd nobody does. There they are an error; for br, because
  the library reports them in place of the data before them.
- A checksum that isn't there, or not all of it: all take the body for whole. So it is, for its last block has come.
- A wrong checksum of gzip, or reserved flags: an error for curl and requests, nothing to Chromium. They aren't looked
  at. A wrong checksum of deflate or zstd is an error for all.
- A body that ends before its last block does: Chromium and requests take it for whole, curl for gzip. It is an error,
  after all that it held has been given: a body cut short must look cut short.
- A zstd window of more than 8 MiB (RFC 9659): an error for Chromium. It is one.
- A body of no bytes is empty, for all, whatever coding it names. It stays as it is.

Memory is the same for any size of body. What is fed is decoded as it is asked for, 64 KiB at a time (128 KiB of zstd,
whose blocks come whole). A stream that is decoded and coded anew keeps, in KiB, after 300 events of a hundred bytes,
and after 3 MiB: gzip and deflate 224 and 302, br 388 and 896, zstd 285 and 956. What came coded with a larger window
than the encoders' 128 KiB needs that much to be decoded, once it has as many bytes: br may ask for 16 MiB, zstd for 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from streamproxy.filters.chain import PIECE, Piece
from streamproxy.filters.decoders import Brotli, CodingError, Decoder, Zstd
from streamproxy.filters.encoders import Encoder, encoder_of
from streamproxy.filters.inflate import Deflate, Gzip

CODINGS: Final = (b"gzip", b"x-gzip", b"deflate", b"br", b"zstd")
# In a row: what curl and urllib3 undo at the most. Each costs work and memory of its own.
MOST_CODINGS: Final = 5
# Small pieces that are put together: a byte by itself takes forty to keep.
_MOST_GATHERED: Final = 1024

# A member, frame or block counts as so many bytes, if it decodes to fewer: it costs as much.
_EACH_COSTS: Final = 64

_NEVER = re.compile(rb";[ \t]*+q[ \t]*+=[ \t]*+0(?:\.0*+)?+[ \t]*+(?:;|$)", re.IGNORECASE)


class Bomb(CodingError):
    """A body decodes to more than it may."""


class Bounds(NamedTuple):
    """What a body may decode to, in bytes: `size` in all, and past `least` no more than `ratio` times what was fed.

    Each coding of a row is held to them by itself, against what was fed to the first.
    """

    ratio: int
    least: int
    size: int


def readable(codings: Sequence[bytes]) -> bytes | None:
    """The first of a Content-Encoding's members, in lower case, that can't be undone; None if all can.

    Of more than MOST_CODINGS it is the first that is too many.
    """
    number = 0
    for coding in codings:
        if coding != b"identity":
            number += 1
            if coding not in CODINGS or number > MOST_CODINGS:
                return coding
    return None


def acceptable(value: bytes | None) -> bytes:
    """The value of an Accept-Encoding (RFC 9110 section 12.5.3; None: there is none) without what can't be undone.

    The other members stay as they are; where none of them asks for a coding it is `identity`. `*` goes, for it stands
    for what isn't known here.
    """
    kept = []
    wanted = False
    for member in (value or b"").split(b","):
        member = member.strip(b" \t")
        name = member.partition(b";")[0].rstrip(b" \t").lower()
        if name in CODINGS:
            wanted = wanted or _NEVER.search(member) is None
            kept.append(member)
        elif name == b"identity":
            kept.append(member)
    return b", ".join(kept) if wanted else b"identity"


class Decoded:
    """A filter that undoes `codings`, listed in the order in which they were applied.

    Raises CodingError where the body isn't what they say, behind what was decoded before (but for what came of the same
    few KiB of input), and Bomb where it decodes to more than `bounds`. ValueError: a coding that isn't readable.
    """

    __slots__ = ("_bounds", "_codings", "_decoded", "_decoders", "coded")

    def __init__(self, codings: Sequence[bytes], bounds: Bounds) -> None:
        self._codings = _known(codings)
        self._codings.reverse()
        self._bounds = bounds
        # Made when there is something to decode: many a body has no bytes.
        self._decoders: list[Decoder] = []
        self._decoded = [0] * len(self._codings)
        # How many bytes were fed.
        self.coded = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        if data:
            if not self.coded:
                self._decoders = [_decoder_of(coding) for coding in self._codings]
            self.coded += len(data)
            yield from self._through(0, data)

    def finish(self) -> Iterable[Piece]:
        """Gives nothing: everything is given as it is decoded."""
        for decoder in self._decoders:
            decoder.finish()
        return ()

    def abort(self, why: str) -> None:
        self._decoders = []

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        """What the decoders from the one with this number on make of the data."""
        if number == len(self._codings):
            yield data
            return
        decoder = self._decoders[number]
        begun = decoder.begun
        for piece in _gathered(decoder.feed(data)):
            self._count(number, len(piece))
            yield from self._through(number + 1, piece)
            # There may be much more of this that nothing comes of.
            yield b""
        if decoder.begun != begun:
            self._check(_EACH_COSTS * decoder.begun)

    def _count(self, number: int, size: int) -> None:
        decoded = self._decoded[number] + size
        self._decoded[number] = decoded
        self._check(decoded)

    def _check(self, decoded: int) -> None:
        ratio, least, most = self._bounds
        if decoded > most:
            raise Bomb(f"the body decodes to more than {most} bytes")
        if decoded > least and decoded > ratio * self.coded:
            raise Bomb(f"the body decodes to more than {ratio} times its size")


class Encoded:
    """A filter that applies `codings` in their order: what is fed can be decoded, all of it, from what was given.

    A body that nothing is fed of stays one of no bytes. With `decoded`, the filter that undid the codings, it does so
    only if that wasn't fed anything either: an empty text that came coded goes on coded. `flushed` False: nobody waits
    for what is fed before the end, and the codings do better without.
    """

    __slots__ = ("_codings", "_decoded", "_encoders", "_flushed")

    def __init__(self, codings: Sequence[bytes], decoded: Decoded | None = None, flushed: bool = True) -> None:
        self._flushed = flushed
        self._codings = _known(codings)
        self._decoded = decoded
        self._encoders: list[Encoder] = []

    def feed(self, data: bytes) -> Iterator[Piece]:
        size = len(data)
        if size and not self._encoders:
            self._encoders = [encoder_of(coding) for coding in self._codings]
        for start in range(0, size, PIECE):
            piece = data if size <= PIECE else data[start : start + PIECE]
            for encoder in self._encoders:
                coded = encoder.code(piece) if piece else b""
                piece = coded + encoder.flush() if self._flushed and start + PIECE >= size else coded
            if piece:
                yield piece

    def finish(self) -> Iterator[Piece]:
        if not self._encoders and self._decoded is not None and self._decoded.coded:
            self._encoders = [encoder_of(coding) for coding in self._codings]
        piece = b""
        for encoder in self._encoders:
            piece = (encoder.code(piece) if piece else b"") + encoder.end()
        if piece:
            yield piece

    def abort(self, why: str) -> None:
        self._encoders = []


def decode_whole(codings: Sequence[bytes], data: bytes, bounds: Bounds) -> bytes:
    """What a body at hand decodes to; raises as Decoded does."""
    decoded = Decoded(codings, bounds)
    pieces = list(decoded.feed(data))
    decoded.finish()
    return _joined(pieces)


def encode_whole(codings: Sequence[bytes], data: bytes) -> bytes:
    """A body at hand, coded; one of no bytes stays one."""
    encoded = Encoded(codings)
    return _joined([*encoded.feed(data), *encoded.finish()])


def _joined(pieces: list[Piece]) -> bytes:
    return b"".join([piece for piece in pieces if isinstance(piece, bytes)])


def _known(codings: Sequence[bytes]) -> list[bytes]:
    unknown = readable(codings)
    if unknown is not None:
        raise ValueError(f"{unknown!r} can't be undone")
    return [coding for coding in codings if coding != b"identity"]


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces put together: a body cut very fine inside its coding isn't for what comes behind."""
    kept: list[bytes] = []
    size = 0
    failure: CodingError | None = None
    try:
        for piece in pieces:
            if kept and (size + len(piece) > PIECE or len(kept) == _MOST_GATHERED):
                yield b"".join(kept)
                kept, size = [], 0
            kept.append(piece)
            size += len(piece)
    except CodingError as error:
        failure = error
    if kept:
        yield kept[0] if len(kept) == 1 else b"".join(kept)
    if failure is not None:
        raise failure


def _decoder_of(coding: bytes) -> Decoder:
    if coding == b"br":
        return Brotli()
    if coding == b"zstd":
        return Zstd()
    if coding == b"deflate":
        return Deflate()
    return Gzip()
