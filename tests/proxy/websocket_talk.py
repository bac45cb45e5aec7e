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
from tests.conversation import ConversationTestCase, Stage, Step, settings_of
from tests.fakes import LIMIT, TCP, TLS, BoundedTransport
from tests.proxy.scripting import StageTestCase, scripted

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x11\x22\x33\x84"
STREAMING = "stream_websockets: true\n"
MODES = ("", STREAMING)
READ = 65536
# What one direction may have in the proxy: a transport's buffer with the piece that filled it, and one read.
BOUND = LIMIT + 4096 + READ


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
    """Conversations over transports of `manner`; without `every_split`, whole."""

    manner = TCP
    every_split = True

    def play(self, *steps: Step, rules: str = "", outcome: str | None = None, splits: bool = True) -> list[Flow]:
        return super().play(*steps, rules=rules, outcome=outcome, splits=splits and self.every_split)

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

    def check_ended(self, outcome: str = "switched", error: str = "") -> None:
        """It is over, in this way, and nothing of it is left."""
        self.assertEqual((self.flow.outcome, self.flow.error), (outcome, error))
        self.stage.journal.flush()
        for peer in (self.client, self.origin):
            peer.take()
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])
        self.assertEqual(self.stage.proxy.connections, set())


class PressureTests:
    """Who doesn't read stops who sends to it, and nobody else, by the settings in `text`. For a `SocketTestCase`."""

    text = ""

    def fill(self, from_client: bool, piece: bytes) -> int:
        """Let one side say `piece` until it is paused; how much that was."""
        source, sent = self.peer(from_client), 0
        while source.reading:
            source.say(piece)
            sent += len(piece)
            self.assertLess(sent, 1 << 20, "never paused")
        return sent

    def pieces(self, from_client: bool) -> list[bytes]:
        """Some bytes of frames, of about one read."""
        one = said_by(from_client, BINARY, bytes(60000))
        return [one, said_by(from_client, TEXT, b"x" * 4000) * 16, said_by(from_client, PING, b"x" * 100) * 500]

    def test_one_that_does_not_read_stops_the_other_in_bounded_memory(self):
        for from_client in (True, False):
            for piece in self.pieces(from_client):
                self.open(self.text)
                self.assertLessEqual(self.fill(from_client, piece), BOUND + len(piece))
                pump = self.relay._to_origin if from_client else self.relay._to_client
                self.assertLessEqual(pump.queued, READ + 4096)
                self.assertLessEqual(len(self.peer(not from_client).buffer), LIMIT + 4096)

    def test_it_stops_nobody_else(self):
        for from_client in (True, False):
            self.open(self.text)
            self.fill(from_client, said_by(from_client, BINARY, bytes(60000)))
            reader, source = self.peer(not from_client), self.peer(from_client)
            self.assertTrue(reader.reading)
            source.heard.clear()
            for size in (1, 4096, 60000):
                data = said_by(not from_client, BINARY, b"y" * size)
                reader.say(data)
                self.assertEqual(source.take(), data)

    def test_both_may_be_stopped_at_once_and_go_on(self):
        self.open(self.text)
        for from_client in (True, False):
            self.fill(from_client, said_by(from_client, BINARY, bytes(60000)))
        self.assertFalse(self.client.reading or self.origin.reading)
        self.settle()
        self.assertTrue(self.client.reading and self.origin.reading)

    def test_a_reader_that_goes_on_gets_every_byte_in_order(self):
        for from_client in (True, False):
            self.open(self.text)
            source, reader = self.peer(from_client), self.peer(not from_client)
            reader.heard.clear()
            said = bytearray()
            for number in range(60):
                if source.reading:
                    data = said_by(from_client, BINARY, bytes([number]) * (1 + number * 1001))
                    said += data + said_by(from_client, PING, bytes([number]))
                    source.say(data, said_by(from_client, PING, bytes([number])))
                reader.take(20_000)
            while reader.take():
                pass
            self.assertTrue(reader.heard == said, (len(reader.heard), len(said)))

    def test_what_arrives_leaves_in_the_same_turn(self):
        self.open(self.text)
        for from_client in (True, False):
            source, reader = self.peer(from_client), self.peer(not from_client)
            for number in range(50):
                data = said_by(from_client, TEXT, b"%d" % number)
                source.say(data)
                self.assertEqual(reader.take(), data)
