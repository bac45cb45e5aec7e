"""TLS on a connection: Twisted's TLS over any transport, and what must happen when its handshake ends.

TLS is always stacked on a transport that is there already, a socket or another TLS connection. What is spoken inside
is another protocol's, which hears nothing before the handshake is done: nothing is written to a peer, and no transport
paused, before it is known who the peer is. Deadlines and the log are for who starts a handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

# Makes the protocol that is spoken inside, when the handshake is done; it is given what was agreed on by ALPN.
MakeInner = Callable[[bytes | None], Protocol]


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """What stands inside a TLS connection until its handshake is done; then what `make_inner` gives takes its place.

    `done` is called when that has its transport; `failed` where it comes to nothing. One of the two is, once.
    """

    transport: Any

    def __init__(self, make_inner: MakeInner, done: Callable[[], None], failed: Callable[[Failure], None]) -> None:
        self._make_inner = make_inner
        self._done = done
        self._failed = failed

    def handshakeCompleted(self) -> None:
        tls = self.transport
        inner = self._make_inner(tls.negotiatedProtocol)
        tls.wrappedProtocol = inner
        inner.makeConnection(tls)
        self._done()

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self._failed(reason)


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class _Given:
    """Gives Twisted the OpenSSL connection that was made for it."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self._connection

    clientConnectionForTLS = serverConnectionForTLS


class _Once(Factory):
    """Gives Twisted the one protocol that is spoken inside."""

    noisy = False

    def __init__(self, inner: Protocol) -> None:
        self._inner = inner

    def buildProtocol(self, addr: object) -> Protocol:
        return self._inner


def over_tls(
    connection: SSL.Connection, is_client: bool, handshake: Handshake, clock: IReactorTime
) -> TLSMemoryBIOProtocol:
    """The protocol that speaks TLS as `connection` does; the handshake begins when it is given a transport."""
    factory = TLSMemoryBIOFactory(_Given(connection), is_client, _Once(handshake), clock)
    protocol = factory.buildProtocol(None)
    assert protocol is not None
    return protocol
