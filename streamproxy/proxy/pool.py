"""Connections to origins: made, kept while idle, and handed out again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from streamproxy.proxy.dial import Dial
from streamproxy.proxy.lookups import Lookups
from streamproxy.proxy.route import Route
from streamproxy.proxy.secure import OriginHandshake
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.settings import Settings
from streamproxy.tls.contexts import OriginFacing
from streamproxy.wire.http1 import HeadLimits

# Idle connections kept for one origin, and for all of them together.
MOST_FOR_ONE = 256
MOST = 1024
# Names looked up at a time; the service has a thread for each.
LOOKUPS = 64


class _Making(Factory):
    """Makes a protocol for each attempt to connect."""

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()


class Pool:
    """Gives out connections by the route to their origin.

    `reactor` is what connects (and the clock); `settings` has the times; `tls` is for https origins.
    """

    def __init__(self, reactor: Any, settings: Settings, tls: OriginFacing | None = None) -> None:
        self._reactor = reactor
        self._settings = settings
        self._tls = OriginFacing() if tls is None else tls
        self.lookups = Lookups(reactor, LOOKUPS)
        self._limits = HeadLimits(settings.limits.head, settings.limits.fields, settings.limits.trailers)
        self._idle: dict[Route, list[UpstreamConnection]] = {}
        # All idle ones, the longest idle first.
        self._by_age: dict[UpstreamConnection, None] = {}

    def new_connection(self, route: Route, handshake: OriginHandshake | None = None) -> UpstreamConnection:
        """A protocol for a connection that goes by `route`, inside the TLS of `handshake` if there is any."""
        connection = UpstreamConnection(route, self, self._reactor, self._limits)
        if handshake is not None:
            connection.remember = handshake.remember
        return connection

    def take(self, route: Route) -> UpstreamConnection | None:
        """An idle connection, the one last used; None where a new one must be made."""
        waiting = self._idle.get(route)
        if not waiting:
            return None
        connection = waiting.pop()
        del self._by_age[connection]
        if not waiting:
            del self._idle[route]
        return connection

    def connect(self, route: Route) -> Deferred[UpstreamConnection]:
        """A new connection; fails as `Dial` does, or with `HandshakeFailed`."""
        if route.origin.scheme == "http":
            return self.dial(route.host, route.origin.port, lambda: self.new_connection(route))  # type: ignore[return-value]
        handshakes: dict[Protocol, OriginHandshake] = {}

        def make() -> Protocol:
            handshake = OriginHandshake(self._tls, route, partial(self.new_connection, route), self._reactor)
            handshakes[handshake.protocol] = handshake
            return handshake.protocol

        dialled = self.dial(route.host, route.origin.port, make)
        seconds = self._settings.timeouts.handshake
        return dialled.addCallback(lambda protocol: handshakes[protocol].outcome(seconds))  # type: ignore[return-value]

    def dial(self, host: str, port: int, make: Callable[[], Protocol]) -> Deferred[Protocol]:
        """What `make` gives, connected to `host` and `port`."""
        timeout = self._settings.timeouts.connect
        return Dial(self._reactor, self.lookups, host, port, _Making(make), timeout).start()  # type: ignore[return-value]

    def give(self, connection: UpstreamConnection) -> None:
        """Keep `connection`, which is in order, for the next who asks."""
        waiting = self._idle.setdefault(connection.route, [])
        if len(waiting) >= MOST_FOR_ONE:
            connection.close()
            return
        if len(self._by_age) >= MOST:
            eldest = next(iter(self._by_age))
            eldest.expire()
        waiting.append(connection)
        self._idle[connection.route] = waiting
        self._by_age[connection] = None
        connection.deadline.set(self._settings.timeouts.keepalive, connection.expire)

    def forget(self, connection: UpstreamConnection) -> None:
        """`connection` is closed or about to be: don't hand it out. No harm if it isn't here."""
        if connection in self._by_age:
            del self._by_age[connection]
            waiting = self._idle[connection.route]
            waiting.remove(connection)
            if not waiting:
                del self._idle[connection.route]

    def close(self) -> None:
        """Close all that is idle."""
        for connection in list(self._by_age):
            connection.expire()

    def __len__(self) -> int:
        return len(self._by_age)
