"""CONNECT for a client that can't say it: `python -m tests.autobahn.connect_shim PROXY_PORT TARGET_PORT`.

Each connection to the port that it prints becomes a tunnel through the proxy to the target's port, all on 127.0.0.1.
What passes is bytes to it, TLS too. Either side's end, or its loss, becomes the other's.
"""

from __future__ import annotations

import sys

from twisted.internet import error, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

HERE = "127.0.0.1"


class End(Protocol):
    """One connection of a tunnel; what comes from it goes to `other`, as fast as that takes it."""

    other: End | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def join(self, other: End) -> None:
        """Let what comes from here go to `other`."""
        self.other = other
        other.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        other, self.other = self.other, None
        if other is None:
            return
        other.transport.unregisterProducer()
        if reason.check(error.ConnectionDone):
            other.transport.loseConnection()
        else:
            other.transport.abortConnection()


class ToProxy(End):
    """The connection to the proxy, which isn't a tunnel before the proxy has said so."""

    def __init__(self, client: End, target: str) -> None:
        self.client = client
        self.target = target
        self.head = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(f"CONNECT {self.target} HTTP/1.1\r\nHost: {self.target}\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        if self.other is not None:
            super().dataReceived(data)
            return
        self.head += data
        head, end, rest = self.head.partition(b"\r\n\r\n")
        if not end:
            return
        status = head.split(b"\r\n", 1)[0]
        if status.split(b" ")[1:2] != [b"200"]:
            print("the proxy said", status.decode("latin-1"), flush=True)
            self.transport.loseConnection()
            return
        self.join(self.client)
        self.client.join(self)
        if rest:
            super().dataReceived(rest)
        self.client.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is None:
            self.client.transport.abortConnection()
        super().connectionLost(reason)


class FromClient(End):
    """A client's connection, which isn't read before there is a tunnel for it."""

    def __init__(self, proxy: TCP4ClientEndpoint, target: str) -> None:
        self.proxy = proxy
        self.target = target

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()
        connecting = self.proxy.connect(Factory.forProtocol(lambda: ToProxy(self, self.target)))
        connecting.addErrback(self.failed)

    def failed(self, reason: Failure) -> None:
        print("can't reach the proxy:", reason.getErrorMessage(), flush=True)
        self.transport.abortConnection()


def main(proxy_port: str, target_port: str) -> None:
    proxy = TCP4ClientEndpoint(reactor, HERE, int(proxy_port))
    target = f"{HERE}:{target_port}"
    port = reactor.listenTCP(0, Factory.forProtocol(lambda: FromClient(proxy, target)), interface=HERE)
    print("listening on", port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
