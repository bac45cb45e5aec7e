"""Who the testsuite tests: autobahn's WebSocket, as a server or a client that sends back each message it gets.

    python -m tests.autobahn.testee server [PEM]
    python -m tests.autobahn.testee client URL AGENT [CA [PROXY_PORT]]

The server listens on a free port of 127.0.0.1, which it prints; by TLS where it is given a file with certificate and
key. The client asks the testsuite's server at URL how many cases there are, goes through them as AGENT, and has it
write its reports. It trusts the certificates in the file CA, if that isn't empty, and goes by CONNECT through a proxy,
if there is one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
    connectWS,
)
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.task import react

HERE = "127.0.0.1"


class EchoServer(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        # It is given messages behind a close frame as well, and can't send then.
        if self.state == self.STATE_OPEN:
            self.sendMessage(payload, isBinary)


class EchoClient(WebSocketClientProtocol):
    """Sends back what it gets, and remembers the last of it; its factory's `gone` is called with that at the end."""

    last = b""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.last = payload
        if self.factory.echoes and self.state == self.STATE_OPEN:
            self.sendMessage(payload, isBinary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.factory.gone.called:
            self.factory.gone.callback(self.last)


class ClientFactory(WebSocketClientFactory):
    protocol = EchoClient

    def __init__(self, url: str, echoes: bool, proxy_port: int | None) -> None:
        proxy = None if proxy_port is None else {"host": HERE, "port": proxy_port}
        super().__init__(url, proxy=proxy)
        self.echoes = echoes
        self.gone: Deferred[bytes] = Deferred()
        # The server writes its reports before it answers; the handshake may take long then.
        self.setProtocolOptions(
            failByDrop=False,
            openHandshakeTimeout=0,
            perMessageCompressionOffers=[PerMessageDeflateOffer()],
            perMessageCompressionAccept=accept_response,
        )

    def clientConnectionFailed(self, connector, reason) -> None:
        self.gone.errback(reason)


def accept_response(response):
    if isinstance(response, PerMessageDeflateResponse):
        return PerMessageDeflateResponseAccept(response)
    return None


def accept_offer(offers):
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


def serve(reactor, pem: str = "") -> Deferred[None]:
    """Serve until a signal comes."""
    factory = WebSocketServerFactory()
    factory.protocol = EchoServer
    # To close as the standard says; to drop the connection is autobahn's own habit.
    factory.setProtocolOptions(failByDrop=False, perMessageCompressionAccept=accept_offer)
    if pem:
        contexts = ssl.DefaultOpenSSLContextFactory(pem, pem)
        port = reactor.listenSSL(0, factory, contexts, interface=HERE)
    else:
        port = reactor.listenTCP(0, factory, interface=HERE)
    print("listening on", port.getHost().port, flush=True)
    return Deferred()


async def go_through(url: str, agent: str, ca: str = "", proxy_port: str = "") -> None:
    """Be tested."""
    contexts = None
    if ca:
        trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(Path(ca).read_bytes())])
        contexts = ssl.optionsForClientTLS(HERE, trustRoot=trusted)

    async def connect(path: str, echoes: bool = True) -> bytes:
        factory = ClientFactory(url + path, echoes, int(proxy_port) if proxy_port else None)
        connectWS(factory, contexts)
        return await factory.gone

    number = int(await connect("/getCaseCount", echoes=False))
    for case in range(1, number + 1):
        await connect(f"/runCase?case={case}&agent={agent}")
        print(case, flush=True)
    await connect(f"/updateReports?agent={agent}")


def main(role: str, *arguments: str) -> None:
    if role == "server":
        react(serve, arguments)
    else:
        react(lambda reactor: Deferred.fromCoroutine(go_through(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
