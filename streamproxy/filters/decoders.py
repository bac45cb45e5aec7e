"""Decoders of the content codings br (RFC 7932) and zstd (RFC 8878), and what all decoders have in common.

A decoder gives everything that its input decodes to at once, but never much of it at a time, however much that is. It
knows no limit on the whole, and no fields. gzip and deflate are in inflate.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
import zstandard

from streamproxy.filters.chain import PIECE, FilterError

# The largest window of zstd: RFC 9659 asks for no more, and browsers refuse more.
MOST_WINDOW: Final = 8 << 20


class CodingError(FilterError):
    """A body isn't what its Content-Encoding says."""


def malformed(name: str) -> CodingError:
    return CodingError(f"the body isn't the {name} that Content-Encoding says")


def cut_short(name: str) -> CodingError:
    return CodingError(f"the body ends in the middle of its {name}")


class Decoder(Protocol):
    """Undoes one coding. `begun` counts its members, frames and blocks, each of which costs something by itself."""

    begun: int

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes (some); give what they decode to, piece by piece. Raises CodingError."""

    def finish(self) -> None:
        """The input has ended. Raises CodingError if the coding hasn't."""


_LIMIT: Final = 16384
# What the library hasn't used when it reaches its limit is copied each time.
_PART: Final = 16384


class Brotli:
    """br. What stands behind its end is an error: the library reports it in place of what it had decoded.

    A piece has 32,752 bytes at the most: what the library makes of this limit, without putting parts together.
    """

    __slots__ = ("_coder", "begun")

    def __init__(self) -> None:
        self.begun = 0
        self._coder: Any = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _PART):
            piece = self._process(data[start : start + _PART])
            while piece:
                full = len(piece) >= _LIMIT
                yield piece
                if not full:
                    break
                # There may be more, whatever can_accept_more_data says: that tells of input only.
                piece = self._process(b"")

    def finish(self) -> None:
        if not self._coder.is_finished():
            raise cut_short("br")

    def _process(self, data: bytes) -> bytes:
        try:
            piece: bytes = self._coder.process(data, output_buffer_limit=_LIMIT)
        except brotli.error:
            raise malformed("br") from None
        return piece


# What of a frame comes next.
_FRAME: Final = 0
_BLOCK: Final = 1
_CHECKSUM: Final = 2

_MAGIC: Final = 0xFD2FB528
# Sixteen numbers that begin a frame to be skipped.
_SKIPPED: Final = 0x184D2A50
_MOST_BLOCK: Final = 131072
_RLE: Final = 1
_COMPRESSED: Final = 2


class Zstd:
    """zstd: frames one behind the other, some of which may be skippable.

    The library has no limit on what it gives at once, and four bytes can become 128 KiB. But a block can't become
    more. So the frames' headers are read here as well, to hand it no more blocks at once than make that.
    """

    __slots__ = ("_block", "_checked", "_coder", "_head", "_last", "_left", "_state", "_worst", "begun")

    def __init__(self) -> None:
        self.begun = 0
        # Held by its decompressobj, with all that it decodes with.
        self._coder: Any = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj(
            read_across_frames=True
        )
        self._state = _FRAME
        # The beginning of a header that isn't whole.
        self._head = b""
        # What is to come before the next header; whether it ends the frame; what it may decode to at the worst.
        self._left = 0
        self._last = False
        self._worst = 0
        # Of the frame: the most that one of its blocks may decode to, and whether it ends with a checksum.
        self._block = 0
        self._checked = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        start = at = 0
        made = self._worst if self._left else 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
            elif self._state == _CHECKSUM or self._last:
                # The last block by itself, so that a wrong checksum doesn't take its data along.
                yield from self._decode(data[start:at])
                start, made = at, 0
                self._end_frame()
            else:
                begun = at
                missing = self._header_size() - len(self._head)
                self._head += data[at : at + missing]
                at += missing
                if at > len(data) or len(self._head) < self._header_size():
                    continue
                wrong = self._read_header()
                if wrong is not None:
                    yield from self._decode(data[start:begun])
                    raise wrong
                made += self._worst
                if made > _MOST_BLOCK:
                    yield from self._decode(data[start:at])
                    start, made = at, self._worst
        yield from self._decode(data[start:])

    def finish(self) -> None:
        """A frame without its checksum, or a part of that, is whole."""
        ended = not self._left and not self._head and (self._state == _FRAME or self._last)
        if not ended and self._state != _CHECKSUM:
            raise cut_short("zstd")

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        try:
            decoded: bytes = self._coder.decompress(data)
        except zstandard.ZstdError:
            raise malformed("zstd") from None
        for start in range(0, len(decoded), PIECE):
            yield decoded[start : start + PIECE]

    def _header_size(self) -> int:
        """How much of a header must be there to read it, or to know how long it is."""
        if self._state == _BLOCK:
            return 3
        head = self._head
        if len(head) < 5:
            # A frame to be skipped has four bytes more, any other one at the least.
            return 5
        if not head.startswith(_MAGIC.to_bytes(4, "little")):
            return 8
        single = head[4] & 32
        size = (1 if single else 0, 2, 4, 8)[head[4] >> 6]
        return 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] & 3] + size

    def _read_header(self) -> CodingError | None:
        """A header is whole: what comes next. Gives what is wrong with it."""
        self.begun += 1
        head, self._head = self._head, b""
        self._worst = 0
        if self._state == _BLOCK:
            return self._read_block_header(int.from_bytes(head, "little"))
        magic = int.from_bytes(head[:4], "little")
        if magic & 0xFFFFFFF0 == _SKIPPED:
            self._left = int.from_bytes(head[4:], "little")
            return None
        if magic != _MAGIC:
            return malformed("zstd")
        window = _window(head)
        if window > MOST_WINDOW:
            return CodingError("the body's zstd has a window of more than 8 MiB")
        self._block = min(window, _MOST_BLOCK)
        self._checked = head[4] & 4 != 0
        self._state = _BLOCK
        return None

    def _read_block_header(self, header: int) -> CodingError | None:
        size = header >> 3
        kind = header >> 1 & 3
        if kind > _COMPRESSED:
            return malformed("zstd")
        self._last = header & 1 != 0
        self._left = 1 if kind == _RLE else size
        self._worst = self._block if kind == _COMPRESSED else min(size, self._block)
        return None

    def _end_frame(self) -> None:
        """Behind a frame's last block, or its checksum."""
        if self._last and self._checked:
            self._state = _CHECKSUM
            self._left = 4
        else:
            self._state = _FRAME
        self._last = False
        self._worst = 0


def _window(head: bytes) -> int:
    """The window that a frame's header asks for, in bytes (RFC 8878 section 3.1.1.1)."""
    if not head[4] & 32:
        least = 1 << 10 + (head[5] >> 3)
        return least + (least >> 3) * (head[5] & 7)
    # A frame in one segment: its content's size, which is the last field.
    kind = head[4] >> 6
    size = int.from_bytes(head[-(1 << kind) :], "little")
    return size + 256 if kind == 1 else size
