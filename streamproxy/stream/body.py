"""The one path of a body: chain, spool where it is held, writer, pump.

A held body takes the same path as a streamed one and only waits on it: when it is whole, or let go, what was kept
goes on through the writer as if it had just come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from streamproxy.filters.chain import Chain
from streamproxy.filters.replace import Replace
from streamproxy.rules.verdict import How, Replacement, Way
from streamproxy.stream.pump import Pump
from streamproxy.stream.spool import Spool
from streamproxy.wire.chunked import BodyWriter
from streamproxy.wire.message import BodyEvent, End

# Told the body's final length where it is known because the body was held whole, else None; gives the bytes of the
# head and the writer of the body behind it.
BeginMessage = Callable[[int | None], tuple[bytes, BodyWriter]]


class BodyPath:
    """Takes the events of one body from its reader, up to its `End`, and puts the message into `pump`.

    `begin` is called once, when the head goes on: at the first `feed`, or when a held body is whole or let go.
    `feed` raises `SpoolFull` for a held body past `way.limit`, and whatever a filter raises.
    """

    __slots__ = ("_begin", "_chain", "_pump", "_spool", "_way", "_writer", "let_go", "received", "whole")

    def __init__(self, pump: Pump, way: Way, chain: Chain | None, begin: BeginMessage) -> None:
        self._pump = pump
        self._way = way
        self._chain = chain
        self._begin = begin
        self._spool = Spool(way.limit) if way.how is How.HELD else None
        self._writer: BodyWriter | None = None
        # Bytes of content that came in.
        self.received = 0
        # A held body has outgrown what it is held for, and streams.
        self.let_go = False
        # The bytes of the whole message, where it went out in one go, so that it could be sent again.
        self.whole: bytes | None = None

    @property
    def begun(self) -> bool:
        """Whether the head has gone into the pump."""
        return self._writer is not None

    def feed(self, events: list[BodyEvent]) -> None:
        """Send `events` on."""
        for event in events:
            if type(event) is bytes:
                self.received += len(event)
        ended = bool(events) and type(events[-1]) is End
        if self._chain is not None:
            events = _filtered(events, self._chain)
        if self._spool is not None:
            self._hold(events, self._spool, ended)
        elif self._writer is None:
            self._start(None, events, ended)
        elif ended:
            self._pump.finish(self._writer.encode(events))
        else:
            self._pump.write(self._writer.encode(events))

    def _hold(self, events: list[BodyEvent], spool: Spool, ended: bool) -> None:
        """Keep `events`; all that was kept goes on if the body has ended, or is let go."""
        for event in events:
            spool.add(event)
        if ended or (self._way.let_go is not None and self.received > self._way.let_go):
            self.let_go = not ended
            self._spool = None
            self._start(len(spool) if ended else None, spool.events(), ended)

    def _start(self, length: int | None, events: Iterable[BodyEvent], whole: bool) -> None:
        head, self._writer = self._begin(length)
        message = head + self._writer.encode(events)
        if whole:
            self.whole = message
            self._pump.finish(message)
        else:
            self._pump.write(message)


def replacing(replacements: Sequence[Replacement]) -> Chain | None:
    """The filters for what the rules want replaced in one body; None where that is nothing."""
    if not replacements:
        return None
    return Chain([Replace([(item.find, item.put) for item in replacements])])


def _filtered(events: list[BodyEvent], chain: Chain) -> list[BodyEvent]:
    """`events` with their bytes through `chain`. The marks of chunks go: the bytes between them have changed."""
    out: list[BodyEvent] = []
    for event in events:
        if type(event) is bytes:
            data = chain.feed(event)
            if data:
                out.append(data)
        elif type(event) is End:
            data = chain.finish()
            if data:
                out.append(data)
            out.append(event)
    return out
