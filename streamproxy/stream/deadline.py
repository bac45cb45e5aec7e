"""One deadline for each connection, moved as what is waited for changes.

Moving a deadline later is what happens all the time and costs an assignment: the delayed call that was set earlier
fires, sees that it isn't time yet, and sets itself anew.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """Calls one function when its time is up. `clock` is an IReactorTime; times are in seconds."""

    __slots__ = ("_at", "_call", "_clock", "_expired", "_fires_at")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._fires_at = 0.0
        self._at = 0.0
        self._expired: Callable[[], None] | None = None

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` in `seconds` from now, instead of what was set before."""
        self._at = self._clock.seconds() + seconds
        self._expired = expired
        if self._call is None:
            self._arm()
        elif self._fires_at > self._at:
            # Not by resetting the call: to move one to an earlier time, Twisted looks for it among all there are.
            self._call.cancel()
            self._arm()

    def clear(self) -> None:
        """Nothing is waited for. The delayed call may stay, empty-handed, for the next `set`."""
        self._expired = None

    def cancel(self) -> None:
        """For good: the connection is gone."""
        self._expired = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _arm(self) -> None:
        self._fires_at = self._at
        self._call = self._clock.callLater(max(0.0, self._at - self._clock.seconds()), self._fire)

    def _fire(self) -> None:
        self._call = None
        if self._expired is None:
            return
        if self._clock.seconds() < self._at:
            self._arm()
            return
        expired, self._expired = self._expired, None
        expired()
