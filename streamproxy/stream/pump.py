"""Moves the bytes of one message from a source to a sink, in pieces.

What flow control is here, in whole:

- The source is a transport that is read; `valve` is its pause switch. The sink is a transport that is written; it
  tells when it is full. Between them everything is synchronous, so the pump's queue is the only place where a
  body can wait, and the pump is the only one that pauses its source for it.
- The source calls `write` with whatever one read became. The pump writes it on in pieces of at most `size` bytes,
  in the same turn (in larger ones to TLS, which makes records of its own of what it gets). A piece may fill the
  sink: then the rest stays in the queue and the valve closes.
- A closed valve doesn't stop bytes that have already been read (over TLS a whole read is decrypted, whatever is
  paused): they are taken, and queued. So the queue holds at most about what one read brings.
- The sink drains: the queue goes first, and only when it is empty and the sink still has room does the valve open.
- A pump may have no sink yet (the connection upstream is still being made). That is the same as a full one.
- What a filter makes isn't made before there is room for it: `pour` queues an iterator, and the pump takes from it
  as the sink drains. So a filter that makes much of little holds the little, not the much. Where the iterator gives a
  `Pause`, nothing goes on before that is over: to the source that is the same as a full sink.
- An iterator may take long, and give little. So it isn't taken from for longer than a turn may last, and then in the
  next one: that is a pause as well.
- Once `finish` was called no more can come, so nothing needs pausing: the valve is opened and given up, and when
  the queue is empty `flushed` is called. The last bytes are then the transport's.

`write()` on a transport may call back into the pump before it returns, and so may resuming a source: `_running`
keeps the two from nesting.

Ways not taken: registering the pump itself as the transport's producer (a connection carries many messages, and
its fullness outlives each of them), a coroutine for each piece (it costs more than the piece), and a queue with a
limit of its own (it would be a second place that pauses).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from streamproxy.counts import PASSING
from streamproxy.filters.chain import Pause
from streamproxy.memory import Memory
from streamproxy.stream.sink import MOST_GATHERED, Sink
from streamproxy.stream.valve import Valve

# For how long (in seconds) iterators are taken from in one turn of the reactor, before others get theirs.
TURN: Final = 0.02
# The reason by which a pump's valve is shut.
SINK_FULL = "sink full"


class Pump:
    """Writes to a sink in pieces of at most `size` bytes, and keeps `valve` closed while it can't.

    `seconds` is a clock's reading in seconds. `flushed` is called once, after `finish`, when the last byte has been
    handed to the sink. `broken` is called, in the handling of the exception, when an iterator that was poured raises;
    the rest of the queue is gone then.
    """

    __slots__ = (
        "_abandoned",
        "_at",
        "_counted",
        "_finishing",
        "_pause",
        "_queue",
        "_running",
        "_seconds",
        "_sink",
        "_size",
        "_valve",
        "_waits_since",
        "blocked_since",
        "blocks",
        "broken",
        "flushed",
        "later",
        "memory",
    )

    def __init__(
        self, valve: Valve | None, size: int, seconds: Callable[[], float], flushed: Callable[[], None] | None = None
    ) -> None:
        self._valve = valve
        self._size = size
        self._seconds = seconds
        self.flushed = flushed
        self.broken: Callable[[], None] | None = None
        # Calls a function in the next turn of the reactor; without it turns have no end.
        self.later: Callable[[Callable[[], None]], None] | None = None
        # Where what waits here, and in the transport below, is counted; and how much of it is.
        self.memory: Memory | None = None
        self._counted = 0
        self._sink: Sink | None = None
        self._queue: deque[bytes | Iterator[bytes | Pause]] = deque()
        # What is waited for, and has nothing to do with the sink.
        self._pause: Pause | None = None
        self._at = 0
        self._running = False
        self._finishing = False
        self._abandoned = False
        # When it last could not write on, or made its last progress since; None while nothing is in its way.
        self.blocked_since: float | None = None
        # How often something was in its way.
        self.blocks = 0
        # Since when something has waited, whatever has gone on since.
        self._waits_since: float | None = None

    @property
    def queued(self) -> int:
        """How many bytes wait for the sink; what is still to be poured isn't any yet."""
        return sum(len(data) for data in self._queue if type(data) is bytes) - self._at

    def attach(self, sink: Sink) -> None:
        """Write to `sink` from now on."""
        self._sink = sink
        sink.pump = self
        if self._queue or self._finishing or self.blocked_since is not None:
            self._run()

    def write(self, data: bytes) -> None:
        """Send `data` on, now or when the sink has room. Always takes it."""
        if data and not self._abandoned:
            self._queue.append(data)
            self._run()

    def pour(self, pieces: Iterator[bytes | Pause]) -> None:
        """Send on what `pieces` gives, taking each when the sink has room for it."""
        if not self._abandoned:
            self._queue.append(pieces)
            self._run()

    def begin_turn(self) -> float:
        """When iterators begin to be taken from."""
        return 0.0 if self.later is None else self._seconds()

    def turn_is_over(self, began: float) -> Pause | None:
        """Where that has been for long enough: a pause until the next turn."""
        if self.later is None or self._seconds() - began <= TURN:
            return None
        pause = Pause("the next turn")
        self.later(pause.settle)
        return pause

    def wait_for(self, pause: Pause) -> None:
        """Whoever makes what will be written waits for `pause`, until `waited`: keep the source waiting, too."""
        self._pause = pause
        self._blocked()
        if self._valve is not None:
            self._valve.close(SINK_FULL)

    def waited(self, pause: Pause | None = None) -> None:
        """`pause`, or whatever is waited for, is over or of no importance any more."""
        if self._pause is None or (pause is not None and self._pause is not pause):
            return
        self._pause = None
        if self._queue or self._finishing or self._sink is not None:
            self._run()
        else:
            # What waited is held, and more of it may come: nothing has been written that would need a sink.
            self.blocked_since = self._waits_since = None
            if self._valve is not None:
                self._valve.open(SINK_FULL)

    @property
    def waits_for(self) -> str | None:
        """In words, what it waits for, if that isn't its sink."""
        return None if self._pause is None else self._pause.why

    def _go_on(self) -> None:
        if self._pause is not None and self._pause.over:
            self.waited()

    def finish(self, data: bytes = b"") -> None:
        """Send `data` on; there is no more to come behind it."""
        self._finishing = True
        self.give_up_valve()
        if data and not self._abandoned:
            self._queue.append(data)
        self._run()

    def abandon(self) -> None:
        """Forget what is queued and what may still come, leave valve and sink alone. `flushed` won't be called."""
        # A source that is resumed by that may bring more before this returns.
        self._abandoned = True
        self.flushed = self.broken = None
        self._finishing = True
        self._queue.clear()
        self._pause = None
        self._at = 0
        self.blocked_since = self._waits_since = None
        self._count(0)
        self.give_up_valve()
        self._let_go_of_sink()

    def _break(self) -> None:
        """Forget what is queued, and tell; what a slow sink has already goes on."""
        broken, sink = self.broken, self._sink
        slow = sink if sink is not None and sink.pending else None
        self._sink = None if slow is not None else sink
        self.abandon()
        self._sink = slow
        if broken is not None:
            broken()

    def give_up_waiting(self) -> None:
        """What waits for something other than the sink won't come any more, nor what stands behind it."""
        if self._pause is not None:
            self._pause = None
            self._queue.clear()
            self._at = 0

    def sink_has_room(self) -> None:
        """Called by the sink when it was full and isn't any longer."""
        self._run()

    def sink_moved(self) -> None:
        """Called by a sink that keeps bytes for a time, when some of them have gone."""
        if self.blocked_since is not None:
            self.blocked_since = self._seconds()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        corked = self._sink
        if corked is not None:
            corked.cork()
        try:
            moved = self._move()
        except BaseException:
            # A user's function may raise anything.
            if corked is not None:
                # What it gave before goes first: whoever is told may end the connection.
                corked.uncork()
                corked = None
            self._running = False
            self._break()
            return
        finally:
            if corked is not None:
                corked.uncork()
            self._running = False
        sink, queue = self._sink, self._queue
        ended = self._finishing and not queue and self._pause is None
        if ended and (sink is None or not sink.pending):
            self._has_gone_on(moved)
            self._let_go_of_sink()
            flushed, self.flushed = self.flushed, None
            if flushed is not None:
                flushed()
        elif ended or queue or sink is None or sink.full or self._pause is not None:
            if self.blocked_since is None or moved:
                self._blocked()
            self._count(self.queued + (0 if sink is None else sink.kept))
            if self._valve is not None:
                self._valve.close(SINK_FULL)
        elif self.blocked_since is not None:
            self._has_gone_on(moved)
            if self._valve is not None:
                self._valve.open(SINK_FULL)
        elif moved:
            PASSING.at_once += 1

    def _blocked(self) -> None:
        """Something is in its way now, or still is after some progress."""
        self.blocked_since = now = self._seconds()
        if self._waits_since is None:
            self._waits_since = now
            self.blocks += 1

    def _has_gone_on(self, moved: bool) -> None:
        """Nothing waits any more: count for how long it did."""
        since = self._waits_since
        self.blocked_since = self._waits_since = None
        self._count(0)
        if since is not None:
            PASSING.waited.observe(self._seconds() - since)
        elif moved:
            PASSING.at_once += 1

    def _count(self, size: int) -> None:
        """So many bytes wait."""
        if self.memory is not None and size != self._counted:
            self.memory.add(size - self._counted)
            self._counted = size

    def _move(self) -> bool:
        """Write until there is no more, or no more room; whether anything was written."""
        sink, queue, size = self._sink, self._queue, self._size
        if sink is not None and sink.gathers:
            size = MOST_GATHERED
        moved = False
        turn = self.begin_turn()
        while queue and sink is not None and not sink.full and self._pause is None:
            data = queue[0]
            if type(data) is not bytes:
                if (over := self.turn_is_over(turn)) is not None:
                    self._wait(over)
                    break
                piece = next(data, None)  # type: ignore[arg-type]
                if not queue:
                    # `abandon` was called by the iterator.
                    break
                if piece is None:
                    queue.popleft()
                elif type(piece) is not bytes:
                    self._wait(piece)  # type: ignore[arg-type]
                elif piece:
                    queue.appendleft(piece)
                continue
            moved = True
            at, length = self._at, len(data)
            if length <= size and not at:
                sink.write(data)
                at = length
            else:
                whole = memoryview(data) if sink.takes_views else data
                while at < length and not sink.full:
                    sink.write(whole[at : at + size])
                    at += size
            if not queue:
                # `abandon` was called by a write.
                break
            if at >= length:
                queue.popleft()
                at = 0
            self._at = at
        return moved

    def _wait(self, pause: Pause) -> None:
        if not pause.over:
            self._pause = pause
            pause.then(self._go_on)

    def take_valve(self, valve: Valve) -> None:
        """What is written from now on comes from the source of `valve`."""
        self.give_up_valve()
        self._valve = valve
        if self.blocked_since is not None:
            valve.close(SINK_FULL)

    def give_up_valve(self) -> None:
        """The source is no longer this pump's: open its valve, and leave it alone."""
        valve, self._valve = self._valve, None
        if valve is not None:
            valve.open(SINK_FULL)

    def _let_go_of_sink(self) -> None:
        if self._sink is not None and self._sink.pump is self:
            self._sink.let_go()
        self._sink = None
