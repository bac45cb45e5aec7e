"""How the proxy's work ends: what is under way gets its time, and then the rest is cut.

Whose listeners are closed, and what else stops with them, is the service's. What each connection does about it is told
in its layer (`proxy/`).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streamproxy.proxy.proxy import Proxy

# How often it is looked what is still under way, in seconds.
LOOK = 0.05
# How long the last words to those who are cut may take, in seconds.
LAST_WORDS = 1.0
STOPPED = "the proxy was stopped"
log = Logger()


class Drain:
    """The end of `proxy`, whose exchanges have `seconds` to end by themselves."""

    def __init__(self, proxy: Proxy, clock: IReactorTime, seconds: float) -> None:
        self._proxy = proxy
        self._clock = clock
        self._until = clock.seconds() + seconds
        self._seconds = seconds
        self._done: Deferred[None] = Deferred()
        self._call: IDelayedCall | None = None
        self._is_cut = self._is_aborted = False

    def start(self) -> Deferred[None]:
        """Begin; fires when nothing is left."""
        self._proxy.drain()
        number = self._proxy.under_way
        if number:
            log.info(
                "stopping: {number} connections have {seconds:g} seconds; another signal cuts them",
                number=number,
                seconds=self._seconds,
            )
        self._look()
        return self._done

    def cut(self) -> None:
        """Don't wait any longer."""
        if not self._done.called and not self._is_aborted:
            self._cut()
            self._abort()

    def _look(self) -> None:
        self._call = None
        if self._proxy.under_way == 0:
            self._end()
            return
        if self._clock.seconds() >= self._until:
            if not self._is_cut:
                self._cut()
                self._until = self._clock.seconds() + LAST_WORDS
            elif not self._is_aborted:
                self._abort()
            else:
                log.warn("stopping: {number} connections didn't end", number=self._proxy.under_way)
                self._end()
                return
        self._call = self._clock.callLater(LOOK, self._look)

    def _cut(self) -> None:
        if not self._is_cut:
            self._is_cut = True
            if self._proxy.under_way:
                log.warn("stopping: {number} connections are cut", number=self._proxy.under_way)
            self._proxy.cut(STOPPED)

    def _abort(self) -> None:
        self._is_aborted = True
        self._proxy.abort()
        # Connections are told of their end in the next turn.
        self._until = self._clock.seconds() + LAST_WORDS

    def _end(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._done.callback(None)
