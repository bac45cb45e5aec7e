"""Connections to origins: made, kept while idle, and handed out again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectBindError, ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from streamproxy.counts import OTHER, Counts
from streamproxy.memory import Memory
from streamproxy.proxy.dial import Dial
from streamproxy.proxy.lookups import Lookups
from streamproxy.proxy.permission import Denied, OwnAddresses, Permission
from streamproxy.proxy.route import Route
from streamproxy.proxy.secure import OriginHandshake
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.settings import Settings
from streamproxy.tls.contexts import OriginFacing
from streamproxy.wire.http1 import HeadLimits

# Idle connections kept for one origin, and for all of them together.
MOST_FOR_ONE = 256
MOST = 1024
# Names looked up at a time that somebody waits for.
LOOKUPS = 64
# The words by which it is counted why a connection couldn't be made.
WHY_NOT = (
    (DNSLookupError, "name"),
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timed-out"),
    (Denied, "denied"),
)


def _always(_transport: Any) -> bool:
    return True


class _Making(Factory):
    """Makes a protocol for each attempt to connect."""

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()


class Pool:
    """Gives out connections by the route to their origin.

    `reactor` is what connects (and the clock); `settings` has the times; `tls` is for https origins; `counts` is where
    what is done is counted.
    """

    def __init__(
        self, reactor: Any, settings: Settings, tls: OriginFacing | None = None, counts: Counts | None = None
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._tls = OriginFacing() if tls is None else tls
        self.counts = Counts() if counts is None else counts
        self.lookups = Lookups(reactor, LOOKUPS, self.counts)
        # Where the proxy itself listens, and what may be connected to.
        self.own = OwnAddresses()
        self.permission = Permission(settings.access.origins, self.own)
        self._limits = HeadLimits(settings.limits.head, settings.limits.fields, settings.limits.trailers)
        self._idle: dict[Route, list[UpstreamConnection]] = {}
        # All idle ones, the longest idle first.
        self._by_age: dict[UpstreamConnection, None] = {}
        # Asked about the transport of each connection that is made, whether there are file descriptors for it.
        self.has_room_for: Callable[[Any], bool] = _always
        # Where what waits to be read from origins is counted.
        self.memory = Memory(settings.limits.memory)
        # How often the settings have changed. A connection that was made before isn't kept.
        self._era = 0
        # All that are open.
        self.open: set[UpstreamConnection | TunnelEnd] = set()

    def obey(self, settings: Settings, tls: OriginFacing) -> None:
        """Connect by `settings` and `tls` from now on. What is idle proved itself to the ones before: it goes."""
        self._settings, self._tls = settings, tls
        self.permission = Permission(settings.access.origins, self.own)
        self._limits = HeadLimits(settings.limits.head, settings.limits.fields, settings.limits.trailers)
        self.close()
        self._era += 1

    def new_connection(self, route: Route, era: int, handshake: OriginHandshake | None = None) -> UpstreamConnection:
        """A protocol for a connection that goes by `route`, inside the TLS of `handshake` if there is any.

        It was asked for in `era`.
        """
        connection = UpstreamConnection(route, self, self._reactor, self._limits)
        connection.era = era
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
        self.counts.reused += 1
        return connection

    def connect(self, route: Route) -> Deferred[UpstreamConnection]:
        """A new connection; fails as `Dial` does, or with `HandshakeFailed`."""
        era = self._era
        if route.origin.scheme == "http":
            return self.dial(route.host, route.origin.port, lambda: self.new_connection(route, era))  # type: ignore[return-value]
        handshakes: dict[Protocol, OriginHandshake] = {}

        def make() -> Protocol:
            inside = partial(self.new_connection, route, era)
            handshake = OriginHandshake(self._tls, route, inside, self._reactor, self.counts)
            handshakes[handshake.protocol] = handshake
            return handshake.protocol

        dialled = self.dial(route.host, route.origin.port, make)
        seconds = self._settings.timeouts.handshake
        return dialled.addCallback(lambda protocol: handshakes[protocol].outcome(seconds))  # type: ignore[return-value]

    def dial(self, host: str, port: int, make: Callable[[], Protocol], known: Sequence[str] = ()) -> Deferred[Protocol]:
        """What `make` gives, connected to `host` and `port`; at one of `known`, if it has been looked up."""
        timeout = self._settings.timeouts.connect
        dial = Dial(self._reactor, self.lookups, host, port, _Making(make), timeout, self.permission, known)
        return dial.start().addCallbacks(self._made, self._not_made)  # type: ignore[arg-type, return-value]

    def _made(self, protocol: IProtocol) -> IProtocol:
        transport: Any = getattr(protocol, "transport", None)
        if not self.has_room_for(transport):
            # The last descriptors are for operators.
            transport.abortConnection()
            raise ConnectBindError(errno.EMFILE)
        self.counts.connected += 1
        return protocol

    def _not_made(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError):
            why = next((word for error, word in WHY_NOT if failure.check(error)), OTHER)
            self.counts.connecting_failed[why] += 1
        return failure

    def tunnel(self, host: str, port: int, known: Sequence[str] = ()) -> Deferred[Protocol]:
        """A connection for a tunnel, as `dial`."""
        return self.dial(host, port, lambda: TunnelEnd(self._reactor, self.open, self.memory), known)

    def give(self, connection: UpstreamConnection) -> None:
        """Keep `connection`, which is in order, for the next who asks."""
        waiting = self._idle.get(connection.route, [])
        if len(waiting) >= MOST_FOR_ONE or connection.era != self._era:
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

    @property
    def ending(self) -> int:
        """How many are open that have something to do, or to send yet."""
        return sum([each.is_busy for each in self.open])

    def abort(self) -> None:
        """End all that are open, whatever they have to say."""
        for connection in list(self.open):
            connection.abort()

    def __len__(self) -> int:
        return len(self._by_age)
