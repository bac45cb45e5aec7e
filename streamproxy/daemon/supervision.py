"""Tells systemd, while the process lives, how it goes: ready, reloading, stopping, and that it isn't stuck.

What is said to whom, in bytes, is told in `systemd`. The watchdog is fed by the reactor's own clock, so that a reactor
which is blocked is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.daemon.systemd import Notifier, watchdog_seconds

# How often the status is told anew, in seconds, where no watchdog asks for more.
STATUS = 10.0
# It has other things to do as well.
LEAST = 0.05


class Supervision:
    """Reports to who started the process with `environ`. `status` gives what it does, in words."""

    def __init__(self, environ: Mapping[str, str], clock: IReactorTime, status: Callable[[], str]) -> None:
        self._notifier = Notifier(environ)
        self._clock = clock
        self._status = status
        self._warning = ""
        self._told = ""
        watchdog = watchdog_seconds(environ)
        # Half of what would be too late, as sd_watchdog_enabled(3) advises.
        self._pause = STATUS if watchdog is None else max(LEAST, min(STATUS, watchdog / 2))
        self._call: IDelayedCall | None = None

    def ready(self) -> None:
        """It listens, and does its work."""
        if self._notifier.is_heard:
            self._notifier.ready(self._in_words())
            self._beat()

    def reloading(self) -> None:
        """It reads its configuration again."""
        self._notifier.reloading()

    def reloaded(self, worked: bool) -> None:
        """It has read it; or couldn't, and goes on as before."""
        self._warning = "" if worked else "the last reload failed, see the log; "
        self._notifier.ready(self._in_words())

    def stopping(self) -> None:
        """It begins to stop."""
        self._warning = "stopping; "
        self._notifier.stopping(self._in_words())

    def stop(self) -> None:
        """There is no more to tell."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _in_words(self) -> str:
        self._told = self._warning + self._status()
        return self._told

    def _beat(self) -> None:
        self._notifier.alive()
        told = self._told
        if self._in_words() != told:
            self._notifier.status(self._told)
        self._call = self._clock.callLater(self._pause, self._beat)
