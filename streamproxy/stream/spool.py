"""A body held whole, within a limit: its bytes, and where its chunks began.

It costs its bytes and eight more for each chunk, not an object for each: a body cut very fine is bounded too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from streamproxy.memory import Memory, OutOfMemory
from streamproxy.wire.headers import NO_HEADERS, Headers
from streamproxy.wire.message import CHUNK_END, BodyEvent, Chunk, ChunkEnd, End

# A body is given back a little at a time, for another whole of it would be as much memory again.
PART = 65536


class SpoolFull(Exception):
    """The body is larger than may be held."""


class Spool:
    """Takes the events of a body and gives them back. `limit` is in bytes, for the content and for its marks apart.

    What is kept is taken from `memory`, until `release`.
    """

    def __init__(self, limit: int, memory: Memory | None = None) -> None:
        self._limit = limit
        self._memory = memory
        self._taken = 0
        # Nobody will want what is in it a second time: when it has been given it is released.
        self.passes = False
        self._content = bytearray()
        self._sizes = array("Q")
        self._in_chunk = False
        self._end: End | None = None

    def __len__(self) -> int:
        return len(self._content)

    def add(self, event: BodyEvent) -> None:
        """Keep `event`; raises `SpoolFull` or `OutOfMemory` instead where a limit would be passed."""
        kind = type(event)
        if kind is bytes:
            if len(self._content) + len(event) > self._limit:  # type: ignore[arg-type]
                raise SpoolFull
            self._take(len(event))  # type: ignore[arg-type]
            self._content += event  # type: ignore[arg-type]
        elif kind is Chunk:
            # A mark may be refused only where the chunks are finer than the mark itself.
            if 8 * len(self._sizes) >= max(self._limit, 4096):
                raise SpoolFull
            self._take(8)
            self._sizes.append(event.size)  # type: ignore[union-attr]
            self._in_chunk = True
        elif kind is ChunkEnd:
            self._in_chunk = False
        else:
            self._end = event  # type: ignore[assignment]

    def _take(self, size: int) -> None:
        if self._memory is not None:
            if not self._memory.take(size):
                raise OutOfMemory
            self._taken += size

    def release(self) -> None:
        """What is kept counts no longer."""
        if self._memory is not None:
            self._memory.give_back(self._taken)
            self._memory, self._taken = None, 0

    @property
    def content(self) -> bytes:
        """The bytes that are kept."""
        return bytes(self._content)

    @property
    def trailers(self) -> Headers:
        """What came behind the content."""
        return NO_HEADERS if self._end is None else self._end.trailers

    @trailers.setter
    def trailers(self, trailers: Headers) -> None:
        self._end = End(trailers)

    def replace(self, content: bytes) -> None:
        """Keep `content` instead, in one chunk if there were any, whatever the limit."""
        if self._memory is not None:
            more = len(content) - len(self._content)
            self._memory.add(more)
            self._taken += more
        self._content = bytearray(content)
        if self._sizes:
            self._sizes = array("Q", [len(content)] if content else [])

    def events(self) -> Iterator[BodyEvent]:
        """What was kept: the same chunks, their bytes in parts of `PART`. A chunk that was still open isn't ended."""
        view = memoryview(self._content)
        if not self._sizes:
            yield from _parts(view)
        else:
            at = 0
            last = len(self._sizes) - 1
            for number, size in enumerate(self._sizes):
                yield Chunk(size)
                yield from _parts(view[at : at + size])
                at += size
                if number < last or not self._in_chunk:
                    yield CHUNK_END
        if self._end is not None:
            yield self._end
        if self.passes:
            self.release()


def _parts(view: memoryview) -> Iterator[bytes]:
    for at in range(0, len(view), PART):
        yield bytes(view[at : at + PART])
