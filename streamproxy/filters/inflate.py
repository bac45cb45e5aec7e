"""Decoders of the content codings gzip (RFC 1952) and deflate (RFC 1950), which are both RFC 1951 inside.

What stands around that is read here and not by zlib, which would report a wrong checksum in place of the data before
it, and doesn't tell a stream that has come whole from one that has, but for its checksum.

What is read and what is an error follows browsers; coding.py has the list.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from streamproxy.filters.chain import PIECE
from streamproxy.filters.decoders import CodingError, cut_short, malformed

# What zlib hasn't used when its output is full, or at its end, is copied each time.
_PART: Final = 8192
# To zlib: RFC 1951 with a window of 32 KiB and nothing around it.
_BARE: Final = -15

# Where in a member of gzip, or in deflate.
_HEADER: Final = 0
_STREAM: Final = 1
_BEHIND: Final = 2
_IGNORED: Final = 3


class _Inflate:
    """The stream inside."""

    __slots__ = ("_coder", "_head", "_rest", "_state", "begun", "name")

    def __init__(self, name: str) -> None:
        self.begun = 0
        self.name = name
        self._coder: Any = None
        self._state = _HEADER
        # The beginning of a header, or of a checksum, that isn't whole yet.
        self._head = b""
        # What stood behind the stream's end, in the part that it ended in.
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _PART):
            part = data[start : start + _PART]
            while part:
                if self._state == _STREAM:
                    yield from self._inflate(part)
                    part = self._rest
                else:
                    part = self._around(part)

    def finish(self) -> None:
        """A stream that is there without what belongs behind it is whole."""
        if self._state == _STREAM or (self._state == _HEADER and self._head):
            raise cut_short(self.name)

    def _around(self, data: bytes) -> bytes:
        """Read on in what stands around streams; give what of the data is behind what was read."""
        raise NotImplementedError

    def _account(self, piece: bytes) -> None:
        """Told of all that is decoded."""

    def _begin(self) -> None:
        self.begun += 1
        self._state = _STREAM
        self._head = b""
        self._coder = zlib.decompressobj(_BARE)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        coder = self._coder
        self._rest = b""
        while True:
            try:
                piece: bytes = coder.decompress(data, PIECE)
            except zlib.error:
                raise malformed(self.name) from None
            if piece:
                self._account(piece)
                yield piece
            if coder.eof:
                self._state = _BEHIND
                self._rest = coder.unused_data
                self._coder = None
                return
            data = coder.unconsumed_tail
            # A full piece may leave some in zlib, though that has used all that it was given.
            if not data and len(piece) < PIECE:
                return


class Deflate(_Inflate):
    """deflate, or what some origins call so: the stream without its header and checksum."""

    __slots__ = ("_checksum", "_wrapped")

    def __init__(self) -> None:
        super().__init__("deflate")
        self._wrapped = False
        self._checksum = 1

    def _account(self, piece: bytes) -> None:
        if self._wrapped:
            self._checksum = zlib.adler32(piece, self._checksum)

    def _around(self, data: bytes) -> bytes:
        if self._state == _HEADER:
            missing = 2 - len(self._head)
            head = self._head + data[:missing]
            if len(head) < 2:
                self._head = head
                return b""
            # No coder begins a bare stream as the header does: with a stored block whose padding isn't zero.
            self._wrapped = head[0] & 0x8F == 8 and not head[1] & 32 and int.from_bytes(head, "big") % 31 == 0
            self._begin()
            return data[missing:] if self._wrapped else head + data[missing:]
        if self._wrapped and len(self._head) < 4:
            self._head += data[: 4 - len(self._head)]
            if len(self._head) == 4 and int.from_bytes(self._head, "big") != self._checksum:
                raise CodingError("the body's deflate has a wrong checksum")
        return b""


_MEMBER: Final = b"\x1f\x8b\x08"
_FIXED_SIZE: Final = 10
_TRAILER_SIZE: Final = 8
# Flags of a header: which fields follow its first ten bytes, in the order in which they do.
_EXTRA: Final = 4
_NAME: Final = 8
_COMMENT: Final = 16
_HEADER_CHECKSUM: Final = 2


class Gzip(_Inflate):
    """gzip: members one behind the other, of which only the streams inside are checked."""

    __slots__ = ("_fields", "_later", "_skip")

    def __init__(self) -> None:
        super().__init__("gzip")
        # Whether a member has been read.
        self._later = False
        # The flags of the fields that are still to come; -1 before the first ten bytes of a header.
        self._fields = -1
        # How many bytes of what isn't looked at are still to come.
        self._skip = 0

    def _around(self, data: bytes) -> bytes:
        if self._state == _BEHIND:
            self._state = _HEADER
            self._later = True
            self._fields = -1
            self._skip = _TRAILER_SIZE
        if self._state == _IGNORED:
            return b""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            return data[skipped:]
        if self._fields < 0:
            return self._fixed(data)
        if self._fields & _EXTRA:
            # Its size is put behind the first ten bytes, which stay until the stream begins.
            missing = _FIXED_SIZE + 2 - len(self._head)
            self._head += data[:missing]
            if len(self._head) == _FIXED_SIZE + 2:
                self._skip = int.from_bytes(self._head[_FIXED_SIZE:], "little")
                self._fields ^= _EXTRA
            return data[missing:]
        for text in (_NAME, _COMMENT):
            if self._fields & text:
                end = data.find(b"\0")
                if end < 0:
                    return b""
                self._fields ^= text
                return data[end + 1 :]
        if self._fields & _HEADER_CHECKSUM:
            self._fields ^= _HEADER_CHECKSUM
            self._skip = 2
        else:
            self._begin()
        return data

    def _fixed(self, data: bytes) -> bytes:
        """The first ten bytes of a header. Behind a member there may be zeros before it, or anything instead."""
        if self._later and not self._head:
            data = data.lstrip(b"\0")
        missing = _FIXED_SIZE - len(self._head)
        self._head += data[:missing]
        if self._head[:3] != _MEMBER[: len(self._head)]:
            if not self._later:
                raise malformed(self.name)
            self._state = _IGNORED
            return b""
        if len(self._head) == _FIXED_SIZE:
            self._fields = self._head[3] & (_EXTRA | _NAME | _COMMENT | _HEADER_CHECKSUM)
        return data[missing:]
