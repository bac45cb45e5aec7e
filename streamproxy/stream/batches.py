"""A body's events a few at a time, on their way through filters and into bytes.

Everything here is made when it is asked for. When that is, and where it goes, is told in `body`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamproxy.filters.chain import Chain, Pause
from streamproxy.filters.tap import Seeing, show
from streamproxy.stream.spool import Spool
from streamproxy.wire.chunked import BodyWriter, ChunksMade
from streamproxy.wire.framing import unvouched
from streamproxy.wire.message import BodyEvent, End

# What of a held body is made into bytes at once.
BATCH_BYTES = 65536
BATCH_EVENTS = 512
# From so many bytes on a chunk is written in parts.
LARGE = 16384
# Some events of a body, or that there are none before something is over.
Batch = list[BodyEvent] | Pause


def batched(events: Iterable[BodyEvent]) -> Iterator[list[BodyEvent]]:
    """`events` a few at a time: about as many as one read would have brought."""
    batch: list[BodyEvent] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event) if type(event) is bytes else 0
        if size >= BATCH_BYTES or len(batch) >= BATCH_EVENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def message_bytes(head: bytes, spool: Spool, writer: BodyWriter) -> Iterator[bytes]:
    """The bytes of a message whose body was held. No function within another: compiled, that would keep the body."""
    yield head
    for events in batched(spool.events()):
        yield writer.encode(events)


def encoded(batches: Iterator[Batch], writer: BodyWriter, sent: Seeing | None) -> Iterator[bytes | Pause]:
    """The bytes of each of `batches`, made when they are asked for, and seen by `sent`."""
    for events in batches:
        if isinstance(events, Pause):
            yield events
        else:
            if sent is not None:
                show(events, sent)
            first = events[0] if len(events) == 1 else None
            if type(first) is bytes and len(first) >= LARGE and isinstance(writer, ChunksMade):
                # One chunk, without a copy of it.
                begins, ends = writer.around(len(first))
                yield begins
                yield first
                yield ends
            else:
                yield writer.encode(events)


def after(pause: Pause, batches: Iterator[Batch]) -> Iterator[Batch]:
    yield pause
    yield from batches


def as_batches(pieces: Iterable[bytes | Pause]) -> Iterator[Batch]:
    for piece in pieces:
        if type(piece) is not bytes:
            assert isinstance(piece, Pause)
            yield piece
        else:
            # Nothing came of much: a turn may end here.
            nothing: list[BodyEvent] = []
            yield [piece] if piece else nothing


def filtered(events: list[BodyEvent], filters: Chain) -> Iterator[Batch]:
    """`events` with their bytes through `filters`: each bit of what goes in as what comes out of it.

    The marks of chunks go, for the bytes between them have changed; and so do trailers that vouch for the old ones.
    """
    for event in events:
        if type(event) is bytes:
            yield from as_batches(filters.feed(event))
        elif type(event) is End:
            end = End(unvouched(event.trailers))
            # The last of the bytes and the body's end go together.
            last: list[BodyEvent] = []
            for batch in as_batches(filters.finish()):
                if last or not batch:
                    yield last
                    last = []
                if isinstance(batch, Pause):
                    yield batch
                else:
                    last = batch
            yield [*last, end]
