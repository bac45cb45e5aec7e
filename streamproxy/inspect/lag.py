"""How late the reactor is: whatever keeps it from its next turn, a script's loop or a slow disk, keeps everybody."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.counts import Counts

# How often it is looked at, in seconds.
INTERVAL = 1.0


class Lag:
    """Asks `clock` to be called at a time, again and again, and counts in `counts` by how much that is late."""

    def __init__(self, clock: IReactorTime, counts: Counts) -> None:
        self._clock = clock
        self._counts = counts
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._call is None:
            self._ask()

    def stop(self) -> None:
        """Look no more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _ask(self) -> None:
        self._due = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._called)

    def _called(self) -> None:
        # A clock that was set back isn't early.
        self._counts.late(max(0.0, self._clock.seconds() - self._due))
        self._ask()
