"""The one path of a body: chain, spool where it is held, writer, pump.

A held body takes the same path as a streamed one and only waits on it: when it is whole, or let go, what was kept
goes on through the writer as if it had just come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from streamproxy.filters.chain import Chain
from streamproxy.filters.replace import Replace
from streamproxy.rules.verdict import How, Replacement, RequestVerdict, ResponseVerdict
from streamproxy.stream.pump import Pump
from streamproxy.stream.spool import Spool, SpoolFull
from streamproxy.wire.chunked import BodyWriter
from streamproxy.wire.framing import unvouched
from streamproxy.wire.message import BodyEvent, End, Framing, Kind

# Bytes that a chain of filters is given at once: as many as make this many, but not fewer than that.
MADE_AT_ONCE = 65536
LEAST_BIT = 64
# What of a held body is made into bytes at once.
BATCH_BYTES = 65536
BATCH_EVENTS = 512
NOTHING: frozenset[bytes] = frozenset()
Verdict = RequestVerdict | ResponseVerdict

# Told the body's final length where it is known because the body was held whole, else None; gives the bytes of the
# head and the writer of the body behind it.
BeginMessage = Callable[[int | None], tuple[bytes, BodyWriter]]


class BodyTooLarge(Exception):
    """The body is larger than a limit; in words, to stand behind "the body"."""


class BodyPath:
    """Takes the events of one body from its reader, up to its `End`, and puts the message into `pump`.

    `said` is what the rules want of it, `framing` how it came.

    `begin` is called once, when the head goes on: at the first `feed`, or when a held body is whole or let go.
    `feed` raises `BodyTooLarge`, before anything of it goes on, for a body past `most` bytes (None: any size) and
    for a held one past `way.limit`; and whatever a filter raises.
    """

    __slots__ = (
        "_begin",
        "_chain",
        "_most",
        "_pump",
        "_removed",
        "_spool",
        "_way",
        "_writer",
        "let_go",
        "received",
        "whole",
    )

    def __init__(self, pump: Pump, said: Verdict, framing: Framing, most: int | None, begin: BeginMessage) -> None:
        self._pump = pump
        self._way = way = said.way
        self._chain = replacing(said.replacements) if framing.kind is not Kind.NONE else None
        self._most = most
        # What rules remove stays away from the trailers too, or a field that is sent late would get past them.
        self._removed = frozenset(name for edit in said.edits for name in edit.remove) if said.edits else NOTHING
        self._begin = begin
        self._spool = Spool(way.limit) if way.how is How.HELD else None
        self._writer: BodyWriter | None = None
        # Bytes of content that came in.
        self.received = 0
        # A held body has outgrown what it is held for, and streams.
        self.let_go = False
        # Gives the bytes of the whole message, where they are still at hand, so that it could be sent again.
        self.whole: Callable[[], Iterator[bytes]] | None = None

    @property
    def begun(self) -> bool:
        """Whether the head has gone into the pump."""
        return self._writer is not None

    def feed(self, events: list[BodyEvent]) -> None:
        """Send `events` on."""
        for event in events:
            if type(event) is bytes:
                self.received += len(event)
        if self._most is not None and self.received > self._most:
            raise BodyTooLarge("is too large")
        end = events[-1] if events else None
        ended = type(end) is End
        if self._removed and type(end) is End:
            events = [*events[:-1], End(end.trailers.without(self._removed))]
        if self._spool is not None:
            self._hold(events, self._spool, ended)
        elif self._chain is not None:
            self._stream_filtered(events, self._chain, ended)
        elif self._writer is None:
            self._start(events, ended)
        elif ended:
            self._pump.finish(self._writer.encode(events))
        else:
            self._pump.write(self._writer.encode(events))

    def _stream_filtered(self, events: list[BodyEvent], filters: Chain, ended: bool) -> None:
        """Send on what `filters` make of `events`, as there is room for it."""
        if self._writer is None:
            self._start([], False)
        assert self._writer is not None
        self._pump.pour(_encoded(_filtered(events, filters), self._writer))
        if ended:
            self._pump.finish()

    def _hold(self, events: list[BodyEvent], spool: Spool, ended: bool) -> None:
        """Keep `events`; all that was kept goes on if the body has ended, or is let go."""
        way, filters = self._way, self._chain
        # Where the limit lies below, it is what a body passes first, however it is cut.
        if way.let_go is not None and self.received > way.let_go <= way.limit:
            self.let_go = True
            self._spool = None
            self._release(spool, None, False)
            if filters is not None:
                self._stream_filtered(events, filters, ended)
            else:
                assert self._writer is not None
                self._pump.write(self._writer.encode(events))
                if ended:
                    self._pump.finish()
            return
        try:
            for kept in (events,) if filters is None else _filtered(events, filters):
                for event in kept:
                    spool.add(event)
        except SpoolFull:
            raise BodyTooLarge("is too large to be held") from None
        if ended:
            self._release(spool, len(spool), True)

    def _release(self, spool: Spool, length: int | None, whole: bool) -> None:
        """What was kept goes on, as there is room for it: to make bytes of all of it at once could take long."""
        self._spool = None
        head, writer = self._begin(length)
        self._writer = writer

        def message() -> Iterator[bytes]:
            yield head
            yield from _encoded(batched(spool.events()), writer)

        if whole:
            self.whole = message
        self._pump.pour(message())
        if whole:
            self._pump.finish()

    def _start(self, events: list[BodyEvent], whole: bool) -> None:
        head, self._writer = self._begin(None)
        message = head + self._writer.encode(events)
        if whole:
            self.whole = lambda: iter((message,))
            self._pump.finish(message)
        else:
            self._pump.write(message)


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


def replacing(replacements: Sequence[Replacement]) -> Chain | None:
    """The filters for what the rules want replaced in one body; None where that is nothing."""
    if not replacements:
        return None
    return Chain([Replace([(item.find, item.put) for item in replacements])])


def _encoded(batches: Iterable[list[BodyEvent]], writer: BodyWriter) -> Iterator[bytes]:
    """The bytes of each of `batches`, made when they are asked for."""
    for events in batches:
        yield writer.encode(events)


def _filtered(events: list[BodyEvent], filters: Chain) -> Iterator[list[BodyEvent]]:
    """`events` with their bytes through `filters`, bit by bit: each bit of what goes in as what comes out of it.

    The marks of chunks go, for the bytes between them have changed; and so do trailers that vouch for the old ones.
    """
    # What one bit becomes is made at once, so it is the smaller the more can become of it.
    bit = max(LEAST_BIT, int(MADE_AT_ONCE / filters.growth))
    for event in events:
        if type(event) is bytes:
            for at in range(0, len(event), bit):
                data = filters.feed(event[at : at + bit])
                if data:
                    yield [data]
        elif type(event) is End:
            data = filters.finish()
            yield [data, End(unvouched(event.trailers))] if data else [End(unvouched(event.trailers))]
