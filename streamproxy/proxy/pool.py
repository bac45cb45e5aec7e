"""Connections to origins: made, kept while idle, and handed out again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from streamproxy.proxy.dial import Dial
from streamproxy.proxy.lookups import Lookups
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.settings import Settings
from streamproxy.wire.http1 import HeadLimits
from streamproxy.wire.message import Origin

# Idle connections kept for one origin, and for all of them together.
MOST_FOR_ONE = 256
MOST = 1024
# Names looked up at a time; the service has a thread for each.
LOOKUPS = 64


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin

    def buildProtocol(self, addr: IAddress | None) -> UpstreamConnection:
        return self._pool.new_connection(self._origin)


class Pool:
    """Gives out connections by origin. `reactor` is what connects (and the clock); `settings` has the times."""

    def __init__(self, reactor: object, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._lookups = Lookups(reactor, LOOKUPS)
        self._limits = HeadLimits(settings.limits.head, settings.limits.fields, settings.limits.trailers)
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        # All idle ones, the longest idle first.
        self._by_age: dict[UpstreamConnection, None] = {}

    def new_connection(self, origin: Origin) -> UpstreamConnection:
        """A protocol for a connection to `origin`."""
        return UpstreamConnection(origin, self, self._reactor, self._limits)  # type: ignore[arg-type]

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """An idle connection to `origin`, the one last used; None where a new one must be made."""
        waiting = self._idle.get(origin)
        if not waiting:
            return None
        connection = waiting.pop()
        del self._by_age[connection]
        if not waiting:
            del self._idle[origin]
        return connection

    def connect(self, origin: Origin) -> Deferred[UpstreamConnection]:
        """A new connection to `origin`; fails as `Dial` does."""
        factory = _ConnectionFactory(self, origin)
        timeout = self._settings.timeouts.connect
        dial = Dial(self._reactor, self._lookups, origin.host, origin.port, factory, timeout)
        return dial.start()  # type: ignore[return-value]

    def give(self, connection: UpstreamConnection) -> None:
        """Keep `connection`, which is in order, for the next who asks."""
        waiting = self._idle.setdefault(connection.origin, [])
        if len(waiting) >= MOST_FOR_ONE:
            connection.close()
            return
        if len(self._by_age) >= MOST:
            eldest = next(iter(self._by_age))
            self.forget(eldest)
            eldest.close()
        waiting.append(connection)
        self._idle[connection.origin] = waiting
        self._by_age[connection] = None
        connection.deadline.set(self._settings.timeouts.keepalive, lambda: self._expire(connection))

    def forget(self, connection: UpstreamConnection) -> None:
        """`connection` is closed or about to be: don't hand it out. No harm if it isn't here."""
        if connection in self._by_age:
            del self._by_age[connection]
            waiting = self._idle[connection.origin]
            waiting.remove(connection)
            if not waiting:
                del self._idle[connection.origin]

    def close(self) -> None:
        """Close all that is idle."""
        for connection in list(self._by_age):
            self._expire(connection)

    def _expire(self, connection: UpstreamConnection) -> None:
        self.forget(connection)
        connection.close()

    def __len__(self) -> int:
        return len(self._by_age)
