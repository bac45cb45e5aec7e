"""The one path of a body: taps, chain, spool where it is held, fault, writer, pump.

A held body takes the same path as a streamed one and only waits on it: when it is whole, or let go, what was kept
goes on through the writer as if it had just come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from streamproxy.filters.chain import Chain, Pause
from streamproxy.filters.tap import Seeing, show
from streamproxy.memory import OUT_OF_MEMORY, OutOfMemory
from streamproxy.rules.verdict import How, RequestVerdict, ResponseVerdict
from streamproxy.stream.batches import Batch, after, as_batches, batched, encoded, filtered, message_bytes
from streamproxy.stream.pump import Pump
from streamproxy.stream.spool import Spool, SpoolFull
from streamproxy.wire.chunked import BodyWriter
from streamproxy.wire.message import BodyEvent, End, Framing, Kind

NOTHING: frozenset[bytes] = frozenset()
CANNOT_BE_HELD = f"can't be held: {OUT_OF_MEMORY}"
Verdict = RequestVerdict | ResponseVerdict

# Told the body's final length where it is known because the body was held whole, else None; gives the bytes of the
# head and the writer of the body behind it.
BeginMessage = Callable[[int | None], tuple[bytes, BodyWriter]]


class BodyTooLarge(Exception):
    """The body is larger than a limit; in words, to stand behind "the body"."""


class NoRoom(Exception):
    """What would have to be held of the body can't be, as so much else is; in words, to stand behind "the body"."""


class Striking(Protocol):
    """Makes a body go wrong on its way to the wire. `sent` sees what still goes."""

    sent: Seeing | None

    def strike(self, batches: Iterator[Batch], writer: BodyWriter) -> Iterator[bytes | Pause]:
        """What `writer` makes of `batches`, until something goes wrong with it."""


class Stages:
    """What is done to one body: taps on what came in and on what goes out, a chain of filters, a fault.

    `hold` lets go, after its time, of what a filter in the chain keeps back.
    """

    __slots__ = ("chain", "fault", "hold", "received", "sent")

    def __init__(
        self,
        chain: Chain | None = None,
        received: Seeing | None = None,
        sent: Seeing | None = None,
        fault: Striking | None = None,
        hold: HoldTime | None = None,
    ) -> None:
        self.chain = chain
        self.received = received
        self.sent = sent
        self.fault = fault
        self.hold = hold


class HoldTime(Protocol):
    """Watches what a chain keeps back, and lets go of it when that has been so for too long."""

    def watch(self, release: Callable[[Iterator[bytes | Pause]], None]) -> None:
        """Some of the body has gone through the chain; `release` is given what is let go."""

    def stop(self) -> None: ...


class BodyPath:
    """Takes the events of one body from its reader, up to its `End`, and puts the message into `pump`.

    `said` is what the rules want of it, `framing` how it came, `stages` what is done to it.

    `begin` is called once, when the head goes on: at the first `feed`, or when a held body is whole or let go.
    `feed` raises `BodyTooLarge`, before anything of it goes on, for a body past `most` bytes (None: any size) and
    for a held one past `way.limit`; and whatever a filter raises. `broken` is called in the handling of what is raised
    later than that.

    `when_whole`, if set, is called when a held body is whole, before it goes on; it may give a pause to wait for.
    """

    __slots__ = (
        "_batches",
        "_begin",
        "_chain",
        "_dead",
        "_ended",
        "_hold_time",
        "_kept",
        "_memory",
        "_most",
        "_pausing",
        "_plain",
        "_pump",
        "_released",
        "_removed",
        "_spool",
        "_stages",
        "_way",
        "_writer",
        "broken",
        "let_go",
        "received",
        "when_whole",
        "whole",
    )

    def __init__(
        self,
        pump: Pump,
        said: Verdict,
        framing: Framing,
        most: int | None,
        begin: BeginMessage,
        stages: Stages | None = None,
    ) -> None:
        self._pump = pump
        self._way = way = said.way
        self._stages = stages
        self._chain: Chain | None = None
        self._hold_time: HoldTime | None = None
        if stages is not None and framing.kind is not Kind.NONE:
            self._chain, self._hold_time = stages.chain, stages.hold
        # Nothing looks at it on its way: its events go to the writer as they come.
        self._plain = stages is None
        self._most = most
        # What rules remove stays away from the trailers too, or a field that is sent late would get past them.
        self._removed = frozenset(name for edit in said.edits for name in edit.remove) if said.edits else NOTHING
        self._begin = begin
        self._memory = memory = pump.memory
        self._spool = Spool(way.limit, memory) if way.how is How.HELD else None
        # What is in it goes on, and may have to go again.
        self._released: Spool | None = None
        # Bytes that filters keep back, as far as they were counted.
        self._kept = 0
        # A held body's batches that aren't in the spool yet, since a filter waits for something.
        self._batches: deque[Iterator[Batch]] = deque()
        # What the first of them waits for.
        self._pausing: Pause | None = None
        self._ended = False
        self._dead = False
        self._writer: BodyWriter | None = None
        # Bytes of content that came in.
        self.received = 0
        # A held body has outgrown what it is held for, and streams.
        self.let_go = False
        # Gives the bytes of the whole message, where they are still at hand, so that it could be sent again.
        self.whole: Callable[[], Iterator[bytes]] | None = None
        self.when_whole: Callable[[], Pause | None] | None = None
        self.broken: Callable[[], None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the head has gone into the pump."""
        return self._writer is not None

    @property
    def held(self) -> Spool:
        """The spool of a body that is whole and still held; `when_whole` may change what is in it."""
        assert self._spool is not None
        return self._spool

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
        if self._chain is not None:
            self._count_kept(self._chain)
        if self._spool is not None:
            self._hold(events, self._spool, ended)
        elif not self._plain:
            self._stream(self._staged(events), ended)
        elif self._writer is None:
            self._start(events, ended)
        elif ended:
            self._pump.finish(self._writer.encode(events))
        else:
            self._pump.write(self._writer.encode(events))

    def _count_kept(self, chain: Chain) -> None:
        """Count what filters have kept of what came before."""
        memory = self._memory
        if memory is None:
            return
        kept = chain.kept_back
        if kept > self._kept:
            if not memory.take(kept - self._kept):
                raise NoRoom(CANNOT_BE_HELD)
        else:
            memory.give_back(self._kept - kept)
        self._kept = kept

    def keep_back(self) -> None:
        """The message is going to be cut: what a filter keeps back now, it keeps for good."""
        if self._hold_time is not None:
            self._hold_time.stop()
            self._hold_time = None

    def abandon(self, why: str) -> None:
        """The message is over: well, or given up in the middle. Nothing more comes of it."""
        if self._dead:
            return
        self._dead = True
        self._batches.clear()
        for spool in (self._spool, self._released):
            if spool is not None:
                spool.release()
        self._spool = self._released = None
        if self._memory is not None:
            self._memory.give_back(self._kept)
            self._kept = 0
        self.keep_back()
        if self._chain is not None:
            self._chain.abort(why)

    def _staged(self, events: list[BodyEvent]) -> Iterator[Batch]:
        """`events` as they go on, seen by the taps and changed by the chain."""
        stages, chain = self._stages, self._chain
        assert stages is not None
        if stages.received is not None:
            show(events, stages.received)
        return iter((events,)) if chain is None else filtered(events, chain)

    def _stream(self, batches: Iterator[Batch], ended: bool) -> None:
        """Send `batches` on, each as there is room for it."""
        if self._writer is None:
            head, self._writer = self._begin(None)
            self._pump.write(head)
        if self._hold_time is not None and not ended:
            batches = self._watched(batches)
        self._pour(batches, self._writer)
        if ended:
            self.keep_back()
            self._pump.finish()

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        yield from batches
        if self._hold_time is not None:
            self._hold_time.watch(self._let_go_of_held_bytes)

    def _pour(self, batches: Iterator[Batch], writer: BodyWriter) -> None:
        fault, sent = (None, None) if self._stages is None else (self._stages.fault, self._stages.sent)
        self._pump.pour(encoded(batches, writer, sent) if fault is None else fault.strike(batches, writer))

    def _let_go_of_held_bytes(self, pieces: Iterator[bytes | Pause]) -> None:
        """What a filter kept back for too long goes on."""
        if self._dead or self._writer is None:
            return
        self._pour(as_batches(pieces), self._writer)

    def _hold(self, events: list[BodyEvent], spool: Spool, ended: bool) -> None:
        """Keep `events`; all that was kept goes on if the body has ended, or is let go."""
        way = self._way
        self._ended = self._ended or ended
        batches: Iterator[Batch] = iter((events,)) if self._plain else self._staged(events)
        # Where the limit lies below, it is what a body passes first, however it is cut.
        if way.let_go is not None and self.received > way.let_go <= way.limit:
            self.let_go = True
            self._pump.waited()
            self._release(spool, None, False)
            if self._pausing is not None and self._batches:
                self._batches[0] = after(self._pausing, self._batches[0])
            while self._batches:
                self._stream(self._batches.popleft(), False)
            self._stream(batches, ended)
            return
        self._batches.append(batches)
        if len(self._batches) == 1:
            self._gather()

    def _gather(self) -> None:
        """Put into the spool what can be; a filter that waits for something keeps the rest, and the source, waiting."""
        spool, waiting = self._spool, self._batches
        assert spool is not None
        turn = self._pump.begin_turn()
        try:
            while waiting:
                for kept in waiting[0]:
                    if not isinstance(kept, Pause):
                        for event in kept:
                            spool.add(event)
                        over = self._pump.turn_is_over(turn)
                        if over is not None:
                            self._wait_for(over)
                            return
                    elif not kept.over:
                        self._wait_for(kept)
                        return
                waiting.popleft()
        except SpoolFull:
            raise BodyTooLarge("is too large to be held") from None
        except OutOfMemory:
            raise NoRoom(CANNOT_BE_HELD) from None
        if self._ended:
            self._became_whole()

    def _wait_for(self, pause: Pause) -> None:
        # Its end is awaited here or, if the body is let go meanwhile, by the pump.
        self._pausing = pause
        self._pump.wait_for(pause)
        pause.then(self._gather_on)

    def _gather_on(self) -> None:
        if self._dead or self._spool is None:
            return
        pause, self._pausing = self._pausing, None
        try:
            self._gather()
        except BaseException:
            if self.broken is not None:
                self.broken()
        # At the end, for that may bring more.
        self._pump.waited(pause)

    def _became_whole(self) -> None:
        pause = None if self.when_whole is None else self.when_whole()
        if pause is None or pause.over:
            self._release_whole()
        else:
            # All has come, so that there is nothing to keep waiting: the source may be another message's by now.
            self._pump.give_up_valve()
            self._pump.wait_for(pause)
            pause.then(self._release_later)

    def _release_whole(self) -> None:
        spool = self._spool
        if not self._dead and spool is not None:
            self._release(spool, len(spool), True)

    def _release_later(self) -> None:
        self._pump.waited()
        try:
            self._release_whole()
        except BaseException:
            if self.broken is not None:
                self.broken()

    def _release(self, spool: Spool, length: int | None, whole: bool) -> None:
        """What was kept goes on, as there is room for it: to make bytes of all of it at once could take long."""
        self._spool, self._released = None, spool
        spool.passes = not whole
        head, writer = self._begin(length)
        self._writer = writer
        if whole and (self._stages is None or self._stages.fault is None):
            self.whole = partial(message_bytes, head, spool, writer)
        if self._plain:
            self._pump.pour(message_bytes(head, spool, writer))
        else:
            self._pump.write(head)
            self._pour(batched(spool.events()), writer)
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
