"""The one path of a body: taps, chain, spool where it is held, fault, writer, pump.

A held body takes the same path as a streamed one and only waits on it: when it is whole, or let go, what was kept
goes on through the writer as if it had just come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from streamproxy.filters.chain import Chain, Pause
from streamproxy.filters.tap import Seeing, show
from streamproxy.rules.verdict import How, RequestVerdict, ResponseVerdict
from streamproxy.stream.pump import Pump
from streamproxy.stream.spool import Spool, SpoolFull
from streamproxy.wire.chunked import BodyWriter, ChunksMade
from streamproxy.wire.framing import unvouched
from streamproxy.wire.message import BodyEvent, End, Framing, Kind

# What of a held body is made into bytes at once.
BATCH_BYTES = 65536
BATCH_EVENTS = 512
# From so many bytes on a chunk is written in parts.
LARGE = 16384
NOTHING: frozenset[bytes] = frozenset()
Verdict = RequestVerdict | ResponseVerdict

# Told the body's final length where it is known because the body was held whole, else None; gives the bytes of the
# head and the writer of the body behind it.
BeginMessage = Callable[[int | None], tuple[bytes, BodyWriter]]
# Some events of a body, or that there are none before something is over.
Batch = list[BodyEvent] | Pause


class BodyTooLarge(Exception):
    """The body is larger than a limit; in words, to stand behind "the body"."""


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
        "_most",
        "_pausing",
        "_plain",
        "_pump",
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
        self._spool = Spool(way.limit) if way.how is How.HELD else None
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
        self._spool = None
        self.keep_back()
        if self._chain is not None:
            self._chain.abort(why)

    def _staged(self, events: list[BodyEvent]) -> Iterator[Batch]:
        """`events` as they go on, seen by the taps and changed by the chain."""
        stages, chain = self._stages, self._chain
        assert stages is not None
        if stages.received is not None:
            show(events, stages.received)
        return iter((events,)) if chain is None else _filtered(events, chain)

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
        self._pump.pour(_encoded(batches, writer, sent) if fault is None else fault.strike(batches, writer))

    def _let_go_of_held_bytes(self, pieces: Iterator[bytes | Pause]) -> None:
        """What a filter kept back for too long goes on."""
        if self._dead or self._writer is None:
            return
        self._pour(_as_batches(pieces), self._writer)

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
                self._batches[0] = _after(self._pausing, self._batches[0])
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
        self._spool = None
        head, writer = self._begin(length)
        self._writer = writer
        if whole and (self._stages is None or self._stages.fault is None):
            self.whole = partial(_message, head, spool, writer)
        if self._plain:
            self._pump.pour(_message(head, spool, writer))
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


def _message(head: bytes, spool: Spool, writer: BodyWriter) -> Iterator[bytes]:
    """The bytes of a message whose body was held. No function within another: compiled, that would keep the body."""
    yield head
    for events in batched(spool.events()):
        yield writer.encode(events)


def _encoded(batches: Iterator[Batch], writer: BodyWriter, sent: Seeing | None) -> Iterator[bytes | Pause]:
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


def _after(pause: Pause, batches: Iterator[Batch]) -> Iterator[Batch]:
    yield pause
    yield from batches


def _as_batches(pieces: Iterable[bytes | Pause]) -> Iterator[Batch]:
    for piece in pieces:
        if type(piece) is not bytes:
            assert isinstance(piece, Pause)
            yield piece
        else:
            # Nothing came of much: a turn may end here.
            nothing: list[BodyEvent] = []
            yield [piece] if piece else nothing


def _filtered(events: list[BodyEvent], filters: Chain) -> Iterator[Batch]:
    """`events` with their bytes through `filters`: each bit of what goes in as what comes out of it.

    The marks of chunks go, for the bytes between them have changed; and so do trailers that vouch for the old ones.
    """
    for event in events:
        if type(event) is bytes:
            yield from _as_batches(filters.feed(event))
        elif type(event) is End:
            end = End(unvouched(event.trailers))
            # The last of the bytes and the body's end go together.
            last: list[BodyEvent] = []
            for batch in _as_batches(filters.finish()):
                if last or not batch:
                    yield last
                    last = []
                if isinstance(batch, Pause):
                    yield batch
                else:
                    last = batch
            yield [*last, end]
