"""The chunked transfer coding (RFC 9112 section 7.1), read and written.

The reader gives the chunks' marks beside their bytes, so that a body can go on chunk for chunk. Chunk
extensions are checked and dropped: they belong to one connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamproxy.wire.fields import TOKEN
from streamproxy.wire.headers import Headers, field_lines
from streamproxy.wire.message import CHUNK_END, BodyEvent, Chunk, End, WireError

# A chunk's size and extensions on one line. Real extensions are a few dozen bytes.
LONGEST_LINE = 1024
# Extension bytes beyond those of the data they came with, so that they can't outweigh it for ever.
MOST_EXTENSIONS = 65536

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
# Fifteen hex digits stay within 64 bits signed, whatever the next reader counts with.
_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"((?:[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+)*+)\r\n"
)
# A line that may become right, as far as its size goes.
_LINE_BEGINS = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t;]|\r?\n|\r?\Z)")


class ChunkedReader:
    """Reads the lines and bytes of a chunked body from a buffer that its owner keeps.

    `read(buffer, position, events, most)` appends events and returns the new position; it stops at the end of
    the buffer, at the last chunk (`trailers_next` is then true: the trailer section is the owner's to read), or
    after about `most` events.
    """

    __slots__ = ("_after_data", "_extensions", "_left", "trailers_next")

    def __init__(self) -> None:
        self._left = 0
        self._after_data = False
        self._extensions = 0
        self.trailers_next = False

    def read(self, buffer: bytes, position: int, events: list[BodyEvent], most: int) -> int:
        size = len(buffer)
        most += len(events)
        while position < size and len(events) < most:
            if self._left:
                data = buffer[position : position + self._left]
                position += len(data)
                self._left -= len(data)
                events.append(data)
                self._after_data = not self._left
                continue
            if self._after_data:
                if buffer.startswith(b"\r\n", position):
                    position += 2
                    self._after_data = False
                    events.append(CHUNK_END)
                    continue
                if buffer[position:] == b"\r":
                    return position
                raise WireError("a chunk is longer than its size, or its line end is not CRLF")
            end = buffer.find(b"\n", position, position + LONGEST_LINE)
            if end < 0:
                if size - position >= LONGEST_LINE:
                    raise WireError("a chunk's size line is too long")
                # An early look, so that what can't become right isn't waited for.
                if not _LINE_BEGINS.match(buffer, position):
                    raise WireError("a chunk's size is malformed")
                return position
            line = _LINE.fullmatch(buffer, position, end + 1)
            if line is None:
                if not _LINE_BEGINS.match(buffer, position):
                    raise WireError("a chunk's size is malformed")
                raise WireError("a chunk's size or extension is malformed, or its line end is not CRLF")
            position = end + 1
            digits, extensions = line.groups()
            left = self._left = int(digits, 16)
            if self._extensions or extensions:
                self._extensions = max(0, self._extensions + len(extensions) - left)
                if self._extensions > MOST_EXTENSIONS:
                    raise WireError("too many chunk extensions")
            if not left:
                self.trailers_next = True
                return position
            events.append(Chunk(left))
        return position


class ChunksKept:
    """Writes a body chunk for chunk as it came. A chunk that arrives in parts stays one chunk."""

    __slots__ = ()

    def encode(self, events: Iterable[BodyEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is bytes:
                out.append(event)
            elif type(event) is Chunk:
                out.append(b"%x\r\n" % event.size)
            elif type(event) is End:
                out.append(last_chunk(event.trailers))
            else:
                out.append(b"\r\n")
        return b"".join(out)


class ChunksMade:
    """Writes a body whose chunks are ours to cut: one for each piece of data, at most `most` bytes of wire long.

    The smallest chunk there is takes 6.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        self._most = max(1, most - len(b"%x\r\n\r\n" % most))

    def around(self, size: int) -> tuple[bytes, bytes]:
        """What stands before and behind `size` bytes that are one chunk, however large."""
        return b"%x\r\n" % size, b"\r\n"

    def encode(self, events: Iterable[BodyEvent]) -> bytes:
        out: list[bytes] = []
        most = self._most
        for event in events:
            if type(event) is bytes:
                for at in range(0, len(event), most):
                    piece = event[at : at + most]
                    out.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif type(event) is End:
                out.append(last_chunk(event.trailers))
        return b"".join(out)


class Plain:
    """Writes a body whose end its length or the connection's end tells: its bytes and nothing else."""

    __slots__ = ()

    def encode(self, events: Iterable[BodyEvent]) -> bytes:
        return b"".join([event for event in events if type(event) is bytes])


BodyWriter = ChunksKept | ChunksMade | Plain


def last_chunk(trailers: Headers) -> bytes:
    """The last chunk and the trailer section."""
    return b"0\r\n%b\r\n" % field_lines(trailers)
