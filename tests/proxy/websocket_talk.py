"""WebSockets between fake peers: their handshakes and frames, and a stage on which one is open.

Frames are made and read by `wire.websocket`, which `tests/wire/test_websocket.py` holds against wsproto.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

import tests.conversation
from streamproxy.filters.websocket import WebSocketData
from streamproxy.flow import Flow
from streamproxy.proxy.websocket import WebSocketRelay
from streamproxy.settings import Settings
from streamproxy.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, close_payload, frame
from tests.conversation import ConversationTestCase, Stage, settings_of
from tests.fakes import TCP, TLS, BoundedTransport
from tests.proxy.scripting import StageTestCase, scripted

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x11\x22\x33\x84"
STREAMING = "stream_websockets: true\n"
MODES = ("", STREAMING)
EVERYWHERE = "*.example"


def accept_of(key: bytes) -> bytes:
    """What answers a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


ACCEPT = accept_of(KEY)


def head_of(first: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([first, *fields, b"", b""])


def asking(
    *fields: bytes, url: bytes = b"http://a.example/chat", host: bytes = b"a.example", key: bytes = KEY
) -> bytes:
    """A client's request for a WebSocket, with more `fields`."""
    return head_of(
        b"GET " + url + b" HTTP/1.1",
        b"Host: " + host,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
        *fields,
    )


def asked(*fields: bytes, path: bytes = b"/chat", host: bytes = b"a.example", key: bytes = KEY) -> bytes:
    """The same as the origin hears it."""
    return head_of(
        b"GET " + path + b" HTTP/1.1",
        b"Host: " + host,
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
        *fields,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Via: 1.1 proxy",
    )


def granting(*fields: bytes, accept: bytes = ACCEPT) -> bytes:
    """An origin's 101, with more `fields`."""
    return head_of(
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
        *fields,
    )


def granted(*fields: bytes, accept: bytes = ACCEPT) -> bytes:
    """The same as the client hears it."""
    return head_of(
        b"HTTP/1.1 101 Switching Protocols",
        b"Sec-WebSocket-Accept: " + accept,
        *fields,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Via: 1.1 proxy",
    )


def deflating(*parameters: bytes) -> bytes:
    """The field that offers permessage-deflate, or agrees on it."""
    return b"Sec-WebSocket-Extensions: " + b"; ".join([b"permessage-deflate", *parameters])


def up(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0, mask: bytes = MASK) -> bytes:
    """A frame of a client's."""
    return frame(opcode, payload, mask, final, reserved)


def down(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    """A frame of an origin's."""
    return frame(opcode, payload, b"", final, reserved)


def said_by(from_client: bool, opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    return up(opcode, payload, final, reserved) if from_client else down(opcode, payload, final, reserved)


def up_close(code: int, reason: str = "") -> bytes:
    return up(CLOSE, close_payload(code, reason))


def down_close(code: int, reason: str = "") -> bytes:
    return down(CLOSE, close_payload(code, reason))


class Heard(NamedTuple):
    """A frame as its reader takes it, unmasked."""

    opcode: int
    payload: bytes
    final: bool = True
    reserved: int = 0


def frames_of(data: bytes, from_client: bool) -> list[Heard]:
    """The frames that `data` is, all of them whole; raises what is wrong with them."""
    reader = FrameReader(from_client, 7)
    heard: list[Heard] = []
    payload = b""
    for part in reader.feed(data):
        payload += part.payload
        if part.last:
            heard.append(Heard(part.head.opcode, payload, part.head.final, part.head.reserved))
            payload = b""
    if reader.error is not None:
        raise reader.error
    if not reader.between:
        raise ValueError(f"a frame isn't whole, behind {heard}")
    return heard


def text(payload: bytes) -> Heard:
    return Heard(TEXT, payload)


def binary(payload: bytes) -> Heard:
    return Heard(BINARY, payload)


def ping(payload: bytes) -> Heard:
    return Heard(PING, payload)


def pong(payload: bytes) -> Heard:
    return Heard(PONG, payload)


def close(code: int, reason: str = "") -> Heard:
    return Heard(CLOSE, close_payload(code, reason))


class PeerTransport(BoundedTransport):
    """One that takes a half-close over TLS as the proxy's TLS does: it ends both directions."""

    def loseWriteConnection(self) -> None:
        if self.manner == TLS:
            self.loseConnection()
        else:
            super().loseWriteConnection()


class SocketConversationTestCase(ConversationTestCase):
    """Conversations over transports of `manner`."""

    manner = TCP

    def setUp(self) -> None:
        self.patch(tests.conversation, "Stage", lambda settings: Stage(settings, self.manner))
        self.patch(tests.conversation, "BoundedTransport", PeerTransport)


class SocketTestCase(StageTestCase):
    """`open` opens a WebSocket: from then on `client` and `origin` are its peers, and what they heard is forgotten."""

    manner = TCP

    def setUp(self) -> None:
        super().setUp()
        self.patch(tests.conversation, "BoundedTransport", PeerTransport)

    def begin(self, settings: Settings) -> None:
        self.stage = self.kept(Stage(settings, self.manner))
        self.client = self.stage.client()
        self._told: dict[BoundedTransport, int] = {}

    def open(
        self,
        text: str = "",
        *,
        offers: tuple[bytes, ...] = (),
        agrees: tuple[bytes, ...] = (),
        **hooks: object,
    ) -> None:
        """By the settings of YAML `text`, and a script with `hooks`; client and origin say these fields."""
        self.begin(scripted(text, **hooks) if hooks else settings_of(text))
        self.client.say(asking(*offers))
        self.settle()
        self.origin.say(granting(*agrees))
        self.settle()
        heard = self.heard()
        self.assertTrue(heard.startswith(b"HTTP/1.1 101 "), heard)
        self.granted, _, rest = heard.partition(b"\r\n\r\n")
        # What was said at once belongs to the WebSocket.
        self._told[self.client] -= len(rest)
        self.origin_heard()

    @property
    def origin(self) -> BoundedTransport:
        return self.stage.origin

    def settle(self) -> None:
        self.stage.settle(self.client)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass; everybody reads."""
        while seconds > 0:
            self.stage.clock.advance(min(step, seconds))
            self.settle()
            seconds -= step

    def heard(self) -> bytes:
        """What the client has heard since the last time, when everybody has read."""
        return self._news(self.client)

    def origin_heard(self) -> bytes:
        return self._news(self.origin)

    def _news(self, peer: BoundedTransport) -> bytes:
        self.settle()
        at = self._told.get(peer, 0)
        self._told[peer] = len(peer.heard)
        return bytes(peer.heard[at:])

    def client_frames(self) -> list[Heard]:
        """The frames that the client has heard since the last time."""
        return frames_of(self.heard(), False)

    def origin_frames(self) -> list[Heard]:
        return frames_of(self.origin_heard(), True)

    def peer(self, from_client: bool) -> BoundedTransport:
        """Who speaks."""
        return self.client if from_client else self.origin

    def frames_from(self, from_client: bool) -> list[Heard]:
        """What has been heard of the client, or of the origin, since the last time."""
        return self.origin_frames() if from_client else self.client_frames()

    @property
    def relay(self) -> WebSocketRelay:
        (connection,) = self.stage.proxy.connections
        layer = connection._layer
        assert isinstance(layer, WebSocketRelay)
        return layer

    @property
    def flow(self) -> Flow:
        """That of the WebSocket, which is over."""
        (only,) = self.stage.journal.flows
        return only

    @property
    def data(self) -> WebSocketData:
        """What is recorded of it, over or not."""
        if self.stage.journal.flows:
            data = self.flow.websocket
            assert data is not None
            return data
        return self.relay.data

    @property
    def closed(self) -> tuple[int | None, str | None, bool | None]:
        """How it closed: code, reason, and whether the client said so."""
        return self.data.close_code, self.data.close_reason, self.data.closed_by_client

    def has_ended(self, peer: BoundedTransport) -> bool:
        """Whether `peer` has been told, in order, that there is no more to come."""
        return peer.write_closed or (peer.disconnected and not peer.aborted)

    def end_both(self) -> None:
        """Both peers end their connections, when all is said."""
        for peer in (self.client, self.origin):
            self.settle()
            if not peer.disconnected:
                peer.end()
        self.settle()
