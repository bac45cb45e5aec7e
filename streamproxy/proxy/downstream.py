"""A client's connection: its transport, and the layer that its bytes are given to.

What the bytes mean is the layer's (`http1.py`, `opening.py`, `tunnel.py`, `intercept.py`). This owns what holds for
any layer: pausing, closing in its three ways, and the count of connections. Inside TLS there is another of these, on
the TLS as its transport; the outer one then hands on bytes, and no more.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, Protocol

from twisted.internet import protocol
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    ISSLTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from streamproxy.counts import PASSING, TOO_MANY, UNCOUNTED
from streamproxy.flow import Flow
from streamproxy.memory import Memory
from streamproxy.proxy.admission import Introduction, meet
from streamproxy.proxy.http1 import Http1Layer
from streamproxy.proxy.trust_page import PROXY
from streamproxy.proxy.upstream import LAST_WORDS
from streamproxy.rules.access import plain_address
from streamproxy.scripts.connection import Client
from streamproxy.stream.deadline import Deadline
from streamproxy.stream.read_size import ReadSize
from streamproxy.stream.sink import Sink
from streamproxy.stream.transport import IStreamTransport
from streamproxy.stream.valve import Valve
from streamproxy.wire.message import Origin

if TYPE_CHECKING:
    from streamproxy.proxy.proxy import Proxy
    from streamproxy.proxy.route import Route

# A client that is still sending when it has been answered is read for so long, and no more than so much, so that it
# comes to read the answer: closing at once would reset the connection under it (RFC 9112 section 9.6).
LINGER_SECONDS = 2
LINGER_BYTES = 1 << 20


class Layer(Protocol):
    """What a downstream connection's bytes are given to. `unfinished`: it owes the client more than it has sent."""

    @property
    def unfinished(self) -> bool: ...
    def drain(self) -> None:
        """The proxy is to stop: begin nothing, and end when what is under way has ended."""

    def cut(self, why: str) -> None:
        """End now, and record what is under way as failed, for the reason `why`."""

    def data_received(self, data: bytes) -> None: ...
    def read_ended(self) -> None: ...
    def connection_lost(self, reason: Failure) -> None: ...


@implementer(IHalfCloseableProtocol)
class DownstreamProtocol(protocol.Protocol):
    """One client's connection. `client` is its address as the log shows it.

    `route` is the way to the one origin that can be spoken to on it, where it is inside a tunnel; None where the client
    knows that it speaks to a proxy. `outer` is the connection that this one's TLS is spoken on, if it is inside of one.
    """

    transport: IStreamTransport
    valve: Valve
    sink: Sink
    _read_size: ReadSize

    def __init__(self, proxy: Proxy, route: Route | None = None, outer: DownstreamProtocol | None = None) -> None:
        self.proxy = proxy
        self.route = route
        self.deadline = Deadline(proxy.clock)
        self.client: str = "-" if outer is None else outer.client
        # Who has proved to be its client, and how long (in seconds) that took for the exchange which begins next.
        self.user: str | None = None if outer is None else outer.user
        self.waited = 0.0
        # Bytes of wire that the client has sent.
        self.received = 0
        # The client has ended its side; it may still be reading.
        self.half_closed: bool = False
        self.closing = False
        self.lost = False
        self._outer = outer
        # Where what is held for it is counted: in a share of all, where it comes from another machine.
        self.memory: Memory = proxy.memory if outer is None else outer.memory
        # Whose that is: the machine's address, or its network's.
        self.owner: str | None = None
        self._is_dismissed = False
        self._discarded: int | None = None
        self._layer: Layer | None = None
        # What scripts see of it, the same for all its exchanges.
        self._seen: Client | None = None

    def connectionMade(self) -> None:
        self.valve = Valve(self.transport)
        is_inner = self._outer is not None
        traffic = UNCOUNTED if is_inner else PASSING.clients
        self.sink = Sink(self.transport, traffic)
        self._read_size = ReadSize(self.transport, traffic, self.proxy.memory)
        layer = self.speak_http()
        if is_inner:
            return
        self.transport.setTcpNoDelay(True)
        self.proxy.connections.add(self)
        self.proxy.accepted(self.transport)
        self.proxy.counts.accepted += 1
        if IProtocol.providedBy(self.transport):
            self._layer = Introduction(self, layer)
        else:
            meet(self, layer)
        if self.closing:
            return
        if len(self.proxy.connections) > self.proxy.settings.limits.connections:
            self.proxy.counts.turned_away[TOO_MANY] += 1
            layer.refuse_connection()

    def take_share(self, host: str) -> None:
        """It comes from `host`: no one machine beyond this one may hold more than half of what all may."""
        with contextlib.suppress(ValueError):
            address = plain_address(host)
            if not address.is_loopback and self.owner is None:
                # Who has an address of IPv6 has as many as he likes.
                owner = str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
                self.owner = owner
                self.memory = self.proxy.memory.share(owner)

    def dismiss(self, dismissed: bool) -> None:
        """Whether it isn't admitted any more: what is under way is the last."""
        self._is_dismissed = dismissed
        if dismissed:
            self.drain()

    @property
    def dismissed(self) -> bool:
        """Whether nothing new may begin on it."""
        return self._is_dismissed or (self._outer is not None and self._outer.dismissed)

    @property
    def is_secure(self) -> bool:
        """Whether this is inside TLS."""
        return ISSLTransport.providedBy(self.transport)

    def seen_by_scripts(self) -> Client:
        """This connection as scripts see it."""
        if self._seen is None:
            here, there = (_address(of()) for of in (self.transport.getHost, self.transport.getPeer))
            self._seen = Client(there, here, timestamp_start=self.proxy.clock.seconds(), tls_established=self.is_secure)
        return self._seen

    @property
    def reached_at(self) -> str:
        """The URL by which this client reached the proxy."""
        address = self.transport.getHost()
        if not isinstance(address, IPv4Address | IPv6Address):
            return PROXY
        return f"http://{Origin('http', address.host, address.port).netloc}"

    @property
    def unfinished(self) -> bool:
        """Whether an end now would come before the end of what the client gets."""
        return self._layer is not None and self._layer.unfinished

    def new_flow(self, method: str, url: str) -> Flow:
        """The record of an exchange of this client's that begins now, or began when its user was asked who it is."""
        flow = self.proxy.new_flow(self.client, method, url)
        flow.user = self.user
        flow.started -= self.waited
        self.waited = 0.0
        return flow

    @property
    def has_said_goodbye(self) -> bool:
        """Whether only the client's own goodbye is waited for, over TLS: all that there is for it has been sent."""
        inner: DownstreamProtocol | None = getattr(self._layer, "inner", None)
        if inner is None or self.sink.full:
            return False
        return (inner.closing and inner._discarded is None) or inner.has_said_goodbye

    @property
    def innermost_layer(self) -> Layer | None:
        """What its bytes mean: inside of its TLS, if there is any."""
        layer = self._layer
        inner = getattr(layer, "inner", None)
        return layer if inner is None else inner.innermost_layer

    def speak_http(self, accounted: int = 0) -> Http1Layer:
        """Read what comes from now on as HTTP/1; so many bytes of what has come were something else."""
        self._layer = layer = Http1Layer(self, accounted)
        return layer

    def inside_tls(self, route: Route | None) -> DownstreamProtocol:
        """What stands inside the TLS that is spoken on this connection, in a tunnel that `route` leads through."""
        return DownstreamProtocol(self.proxy, route, self)

    def switch(self, layer: Layer) -> None:
        """Give what comes from now on to `layer`."""
        self._layer = layer

    def drain(self) -> None:
        """The proxy is to stop: end when what is under way here has ended."""
        if self._layer is not None and not self.closing:
            self._layer.drain()

    def cut(self, why: str) -> None:
        """End, and record what is under way as failed, for the reason `why`."""
        if self._layer is not None and not self.closing:
            self._layer.cut(why)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._read_size.saw(len(data))
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES and self.is_secure:
                self.abort()
            elif self._discarded > LINGER_BYTES:
                # A reset would take the answer from it; as long as it isn't read it has time to read that.
                self.valve.close("lingering")
        elif self._layer is not None and not self.closing:
            self._layer.data_received(data)

    def readConnectionLost(self) -> None:
        self.half_closed = True
        self.valve.end()
        if self._discarded is not None:
            self.close()
        elif self._layer is not None and not self.closing:
            self._layer.read_ended()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self.lost = True
        self._outer = None
        self.proxy.connections.discard(self)
        self.valve.end()
        self.sink.release()
        self.deadline.cancel()
        layer, self._layer = self._layer, None
        if layer is not None:
            layer.connection_lost(reason)
        owner, self.owner = self.owner, None
        if owner is not None:
            self.proxy.memory.leave(owner)

    def close(self, patience: float | None = None) -> None:
        """Send what is written, then close; with a client that doesn't read it for `patience` seconds at the most.

        Left out it's as long as anything may stand still in an exchange: a client may pause behind its last byte too.
        """
        if not self.lost:
            self.closing = True
            self.sink.release()
            self.deadline.set(self.proxy.settings.timeouts.idle if patience is None else patience, self.abort)
            self.transport.loseConnection()

    def half_close(self) -> None:
        """There is no more to send; the client may go on. Not over TLS."""
        if not self.lost:
            self.sink.release()
            self.transport.loseWriteConnection()

    def linger(self) -> None:
        """Close, but let the client, who is still sending, read what was written first."""
        if self.lost or self.closing:
            return
        if self.half_closed:
            self.close()
            return
        self.closing = True
        self._discarded = 0
        self.sink.release()
        self.deadline.set(LINGER_SECONDS, self._close_soon)
        for reason in list(self.valve.reasons):
            self.valve.open(reason)
        if self.is_secure:
            # There is no half-close over TLS, but a goodbye, which the client answers when it has read that far.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _close_soon(self) -> None:
        self.close(LAST_WORDS)

    def abort(self) -> None:
        """Close at once, with a reset: what has been sent can't be taken for a whole."""
        if not self.lost:
            self.closing = True
            self.sink.release()
            self.transport.abortConnection()


def _address(address: IAddress) -> tuple[str, int] | None:
    return (address.host, address.port) if isinstance(address, IPv4Address | IPv6Address) else None


class DownstreamFactory(protocol.Factory):
    """Makes the protocols of one listener."""

    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> DownstreamProtocol:
        return DownstreamProtocol(self.proxy)
