"""autobahn's own client and server as peers of the system tests, in trial's reactor, with the proxy between them.

A connection is made in one of `WAYS`, and goes message by message or, for a path below /stream/, frame by frame.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.compress_deflate import PerMessageDeflateResponseAccept
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.ssl import (
    Certificate,
    DefaultOpenSSLContextFactory,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.system.parts import WAIT, Proxy
from tests.system.secure import certificate_for_us, file_of, trusting

HERE = "127.0.0.1"
# By an absolute target, as proxies are asked; by CONNECT; and over TLS that is intercepted.
WAYS = ("absolute", "connect", "wss")
STREAMS = "/stream/"
MESSAGES = "/messages/"
# One rule, without a list around it.
STREAM_RULE = f"{{name: streams, match: {{path: '{STREAMS}*'}}, websocket: {{stream: true}}}}"
# No impatience of autobahn's own; and it closes as the standard says, and gives back the code that it got.
_PATIENCE = {
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 0,
    "failByDrop": False,
    "echoCloseCodeReason": True,
}


class Closed(NamedTuple):
    """How a connection ended, in autobahn's words."""

    clean: bool
    code: int | None
    reason: str | None


# A text, some bytes, ("ping" or "pong", payload), or how it closed.
Event = str | bytes | tuple[str, bytes] | Closed


class Peer:
    """What autobahn's client and server have in common here: what they see can be waited for.

    `frames` are the sizes of all data frames that came. `lasts`: whether the connection isn't over.
    """

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[int] = []
        self.lasts = False
        self._over: Deferred[None] = Deferred()
        self._seen: DeferredQueue[Event] = DeferredQueue()

    def onOpen(self) -> None:
        self.lasts = True
        self.factory.opened.put(self)

    def onMessageFrameBegin(self, length: int) -> None:
        self.frames.append(length)
        super().onMessageFrameBegin(length)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._seen.put(payload if isBinary else payload.decode())

    def onPing(self, payload: bytes) -> None:
        self._seen.put(("ping", payload))
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self._seen.put(("pong", payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.lasts:
            self.factory.opened.put(None)
        self.lasts = False
        self._seen.put(Closed(wasClean, code, reason))
        self._over.callback(None)

    async def next(self) -> Event:
        """What comes next, or came and hasn't been asked for."""
        return await self._seen.get().addTimeout(WAIT, reactor)

    def send(self, message: str | bytes, fragment: int | None = None, compress: bool = True) -> None:
        """Send a message, as text if it is a str; in frames of `fragment` bytes, if that is given."""
        binary = isinstance(message, bytes)
        payload = message if isinstance(message, bytes) else message.encode()
        self.sendMessage(payload, binary, fragmentSize=fragment, doNotCompress=not compress)

    def send_text_that_is_none(self, payload: bytes) -> None:
        """Send a text message of any bytes."""
        self.sendMessage(payload, False)

    def lose(self) -> None:
        """End the connection without a word."""
        self.transport.abortConnection()

    def end(self) -> Deferred[None]:
        """See that the connection is gone."""
        if not self._over.called:
            self.transport.abortConnection()
        return self._over

    @property
    def compresses(self) -> bool:
        """Whether permessage-deflate was agreed on."""
        return self._perMessageCompress is not None


class ServerPeer(Peer, WebSocketServerProtocol):
    def onConnect(self, request: Any) -> str | None:
        """Choose the client's last subprotocol."""
        return request.protocols[-1] if request.protocols else None


class ClientPeer(Peer, WebSocketClientProtocol):
    pass


class Pair(NamedTuple):
    """A client and the server at the other end; `what` tells which way, for messages of tests that fail."""

    client: ClientPeer
    server: ServerPeer
    what: str
    streams: bool


def _accept_offer(offers: Sequence[object]) -> object:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


class Server:
    """A listener of autobahn's; `next` gives its connections. `secure`: it speaks TLS, as who all origins are here."""

    def __init__(self, case: TestCase, secure: bool = False) -> None:
        self._case = case
        factory = WebSocketServerFactory()
        factory.protocol = ServerPeer
        factory.setProtocolOptions(perMessageCompressionAccept=_accept_offer, **_PATIENCE)
        factory.opened = self._opened = DeferredQueue()
        if secure:
            pem = str(file_of(case, certificate_for_us().pem))
            contexts = DefaultOpenSSLContextFactory(pem, pem)
            port = reactor.listenSSL(0, factory, contexts, interface=HERE)
        else:
            port = reactor.listenTCP(0, factory, interface=HERE)
        self.port = port.getHost().port
        self.netloc = f"{HERE}:{self.port}"
        self.scheme = "wss" if secure else "ws"
        case.addCleanup(port.stopListening)

    def url(self, path: str = "/") -> str:
        """Where a request for `path` would go."""
        return f"{'https' if self.scheme == 'wss' else 'http'}://{self.netloc}{path}"

    async def next(self) -> ServerPeer:
        """The next connection on which a WebSocket was agreed on, the oldest first."""
        peer: ServerPeer = await self._opened.get().addTimeout(WAIT, reactor)
        self._case.addCleanup(peer.end)
        return peer


class WebSocketCase(TestCase):
    """A proxy with `rules`, which go before the one that makes paths below /stream/ stream; servers; connections."""

    timeout = 240.0

    def start(self, rules: Sequence[str] = (), *overrides: str, folder: Path | None = None, top: str = "") -> Proxy:
        """A proxy with `rules`, each a line of YAML; `top` goes above them."""
        lines = "".join(f"  - {rule}\n" for rule in [*rules, STREAM_RULE])
        self.proxy = Proxy(self, f"{top}rules:\n{lines}", trusting(self), *overrides, folder=folder)
        return self.proxy

    async def connect(
        self,
        server: Server,
        path: str = MESSAGES,
        way: str = "connect",
        compress: bool = False,
        protocols: Sequence[str] = (),
        host: str | None = None,
    ) -> ClientPeer:
        """A client with a WebSocket to `server`, or to `host`, by way of the proxy, which is asked in one of WAYS."""
        netloc = host or server.netloc
        proxy = None if way == "absolute" else {"host": HERE, "port": self.proxy.port}
        factory = WebSocketClientFactory(f"{server.scheme}://{netloc}{path}", protocols=list(protocols), proxy=proxy)
        if way == "absolute":
            factory.resource = f"http://{netloc}{path}"
        if server.scheme == "wss":
            authority = Certificate.loadPEM(self.proxy.ca.read_bytes())
            factory.contextFactory = optionsForClientTLS(HERE, trustRoot=trustRootFromCertificates([authority]))
        factory.protocol = ClientPeer
        offers = [PerMessageDeflateOffer()] if compress else []
        factory.setProtocolOptions(
            perMessageCompressionOffers=offers,
            perMessageCompressionAccept=PerMessageDeflateResponseAccept,
            serverConnectionDropTimeout=0,
            **_PATIENCE,
        )
        factory.opened = opened = DeferredQueue()
        reactor.connectTCP(HERE, self.proxy.port, factory)
        client: ClientPeer | None = await opened.get().addTimeout(WAIT, reactor)
        assert client is not None, f"no WebSocket to {server.netloc} by {way}\n{self.proxy.output}"
        self.addCleanup(client.end)
        return client

    async def pairs(
        self,
        ways: Sequence[str] = WAYS,
        paths: Sequence[str] = (MESSAGES, STREAMS),
        **options: Any,
    ) -> AsyncIterator[Pair]:
        """A client and a server by each of `ways` and `paths`, one after the other."""
        servers = {secure: Server(self, secure) for secure in {way == "wss" for way in ways}}
        for way in ways:
            server = servers[way == "wss"]
            for path in paths:
                client = await self.connect(server, path, way, **options)
                yield Pair(client, await server.next(), f"{way} {path}", path == STREAMS)

    async def expect(self, pair: Pair, peer: Peer, *events: Event) -> None:
        """What `peer` of `pair` sees next."""
        for event in events:
            got = await peer.next()
            if got != event:
                self.fail(f"{pair.what}: expected {str(event)[:300]}, got {str(got)[:300]}\n{self.proxy.output}")

    async def close(self, pair: Pair) -> None:
        """Close in order, from the client's side."""
        pair.client.sendClose(1000)
        await self.expect(pair, pair.server, Closed(True, 1000, None))
        await self.expect(pair, pair.client, Closed(True, 1000, None))

    async def line(self) -> dict:
        """The line on the log of the next WebSocket that is over."""
        self._lines += 1
        what = f"{self._lines} WebSockets on the log"
        proxy = self.proxy
        await deferToThread(proxy.wait_for, lambda lines: len(self._websockets(lines)) >= self._lines, what)
        line = self._websockets(proxy.lines)[self._lines - 1]
        told: dict = json.loads(line[line.index("{") :])
        return told

    _lines = 0

    def _websockets(self, lines: Sequence[str]) -> list[str]:
        return [line for line in lines if '"websocket": ' in line]
