"""A sink as slow as a weak network: so many bytes a second, each so many seconds late.

It stands between a pump and the sink of a connection, and is to the pump what a slow peer's connection is: it is full
when as much waits in it as would be on such a network's way. So the source is slowed by nothing but back pressure.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.memory import Memory
from streamproxy.stream.sink import Sink

# What may wait here, in bytes: what a network with this rate and delay has on its way, within these.
LEAST_ON_ITS_WAY: Final = 16384
MOST_ON_ITS_WAY: Final = 1 << 20
# In pieces, for a piece of one byte takes a hundred more to keep.
MOST_PIECES: Final = 4096
# How finely a rate is cut, in seconds; and how much of its time a line may make up for, if timers are late.
TICK: Final = 0.02
CATCH_UP: Final = 0.1


class PacedSink(Sink):
    """Writes to `sink` at `rate` bytes a second (None: at once), a byte `delay` seconds after it was written here.

    What waits here is counted in `memory`.
    """

    def __init__(
        self, sink: Sink, rate: int | None, delay: float, clock: IReactorTime, memory: Memory | None = None
    ) -> None:
        # It is no transport's producer, so it takes nothing from what a sink is but its form.
        self._below = sink
        self._memory = memory
        self._rate = rate
        self._delay = delay
        self._clock = clock
        self.full = False
        # What waits here is counted here.
        self.kept = 0
        self.sent = 0
        self.pump = None
        self.pending = False
        self.gathers = False
        self.takes_views = False
        self._room = MOST_ON_ITS_WAY
        if rate is not None:
            self._room = max(LEAST_ON_ITS_WAY, min(MOST_ON_ITS_WAY, int(2 * rate * (delay + TICK))))
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._held = 0
        # When the line is free for the next byte.
        self._free_at = 0.0
        self._later: IDelayedCall | None = None
        self._sending = False
        sink.pump = self

    def write(self, data: bytes | memoryview) -> None:
        """Hand `data` on when its time has come."""
        self.sent += len(data)
        self._waiting.append((self._clock.seconds() + self._delay, bytes(data)))
        self._hold(len(data))
        self.pending = True
        self.full = self._is_full()
        self._let_pass()

    def _hold(self, more: int) -> None:
        self._held += more
        if self._memory is not None:
            self._memory.add(more)

    def cork(self) -> None:
        pass

    def uncork(self) -> None:
        pass

    def let_go(self) -> None:
        """The pump is done with it; what waits is forgotten."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._waiting.clear()
        self._hold(-self._held)
        self.pump = None
        self.pending = False
        if self._below.pump is self:
            self._below.pump = None

    def sink_has_room(self) -> None:
        """The real sink was full and isn't any longer."""
        self._let_pass()

    def sink_moved(self) -> None:
        pass

    def _is_full(self) -> bool:
        return self._held >= self._room or len(self._waiting) >= MOST_PIECES

    def _let_pass(self) -> None:
        """Write on what is due, as far as the line and the real sink let it go."""
        if self._sending:
            return
        self._sending = True
        before = self._held
        try:
            while self._waiting and not self._below.full and self._later is None:
                due, data = self._waiting[0]
                now = self._clock.seconds()
                begins = max(due, self._free_at, now - CATCH_UP)
                if begins > now:
                    self._later = self._clock.callLater(begins - now, self._on_time)
                    break
                part = data
                if self._rate is not None:
                    part = data[: max(1, int(self._rate * TICK))]
                    self._free_at = begins + len(part) / self._rate
                if len(part) == len(data):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = (due, data[len(part) :])
                self._hold(-len(part))
                self._below.write(part)
        finally:
            self._sending = False
        self.pending = self._held > 0
        was_full, self.full = self.full, self._is_full()
        pump = self.pump
        if pump is not None and self._held < before:
            pump.sink_moved()
            if (was_full and not self.full) or not self.pending:
                pump.sink_has_room()

    def _on_time(self) -> None:
        self._later = None
        self._let_pass()
