"""Upgrades by raw sockets: the handshake as each side sees it, frames byte for byte, tunnels, pressure and memory."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import WAIT, Client, Origin, Proxy, Wire, response, settled
from tests.system.secure import SecureOrigin, Tunnel, trusting

KEY = base64.b64encode(bytes(range(16)))
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
ASKED = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY]
SWITCHED = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
ANSWER = b"\r\n".join([*SWITCHED, b"Sec-WebSocket-Accept: " + ACCEPT]) + b"\r\n\r\n"
MASK = b"\x11\x22\x33\x44"
STREAMS = "stream_websockets=true"
MODES = (STREAMS, "stream_websockets=false")
MIB = 1 << 20
LARGE = 64 * MIB
MOST_GROWTH = 4 * MIB


def masked(payload: bytes) -> bytes:
    return bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


def frame(first: int, payload: bytes, mask: bool = False) -> bytes:
    """A frame of up to 125 bytes; `first` is its first byte."""
    if mask:
        return bytes([first, 0x80 | len(payload)]) + MASK + masked(payload)
    return bytes([first, len(payload)]) + payload


class WireCase(SynchronousTestCase):
    def switch(self, proxy: Proxy, *fields: bytes, origin: Origin | None = None) -> tuple[Client, Wire]:
        """A client and its origin, between whom a WebSocket is agreed on. Each one's `heads` are what it got."""
        origin = origin or Origin(self)
        client = Client(self, proxy)
        client.get(origin, "/socket?q=1", *ASKED, *fields)
        wire = origin.accept()
        wire.read_head()
        wire.send(ANSWER)
        client.read_head()
        return client, wire


class HandshakeTests(WireCase):
    def test_an_absolute_target_is_asked_for_as_its_origin_wants_it(self) -> None:
        for mode in MODES:
            client, wire = self.switch(Proxy(self, "", mode), b"Sec-WebSocket-Extensions: x-own; a=1")
            (asked,), (answered,) = wire.heads, client.heads
            lines = asked.split(b"\r\n")
            self.assertEqual(lines[0], b"GET /socket?q=1 HTTP/1.1")
            for field in ASKED:
                self.assertIn(field, lines)
            # What nobody here could read isn't offered where messages are read.
            self.assertEqual(b"Sec-WebSocket-Extensions: x-own; a=1" in lines, mode == STREAMS)
            lines = answered.split(b"\r\n")
            self.assertEqual(lines[0], SWITCHED[0])
            for field in (*SWITCHED[1:], b"Sec-WebSocket-Accept: " + ACCEPT):
                self.assertIn(field, lines)

    def test_an_origin_that_answers_another_key_is_a_502(self) -> None:
        proxy, origin = Proxy(self), Origin(self)
        client = Client(self, proxy)
        client.get(origin, "/", *ASKED)
        wire = origin.accept()
        wire.read_head()
        wire.send(ANSWER.replace(ACCEPT, b"A" * 27 + b"="))
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 502 "))

    def test_an_origin_that_has_no_websocket_says_so_itself(self) -> None:
        proxy, origin = Proxy(self), Origin(self)
        client = Client(self, proxy)
        client.get(origin, "/", *ASKED)
        wire = origin.accept()
        wire.read_head()
        wire.send(response(b"no such thing", status=b"404 Not Found"))
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 404 "))
        self.assertEqual(client.read_body(head), b"no such thing")
        # And both connections are there for more.
        client.get(origin, "/again")
        wire.read_head()
        wire.send(response(b"again"))
        self.assertEqual(client.read_body(client.read_head()), b"again")

    def test_rules_see_the_upgrade_before_the_origin_does(self) -> None:
        proxy = Proxy(self, "rules: [{name: none of it, match: {header: {Upgrade: websocket}}, block: 403}]")
        client, origin = Client(self, proxy), Origin(self)
        client.get(origin, "/", *ASKED)
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 403 "))
        self.assertEqual(origin.wires, [])


class RefusedTests(WireCase):
    """A rule that changes messages, and a WebSocket that streams: one of them has to give way, and aloud."""

    REPLACE = "name: no foo, request: {replace: [{find: foo, with: bar}]}"

    def assert_refused(self, rule: str, *overrides: str) -> None:
        proxy, origin = Proxy(self, f"rules: [{{{rule}}}]", *overrides), Origin(self)
        client = Client(self, proxy)
        client.get(origin, "/", *ASKED)
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
        words = client.read_body(head)
        self.assertIn(b"no foo", words)
        self.assertIn(b"stream_websockets", words)
        self.assertEqual(origin.wires, [])

    def test_a_replace_without_conditions_is_a_502_where_websockets_stream(self) -> None:
        self.assert_refused(self.REPLACE, STREAMS)

    def test_one_that_is_exempt_for_its_websockets_is_carried_out(self) -> None:
        proxy = Proxy(self, f"rules: [{{{self.REPLACE}, websocket: {{stream: false}}}}]", STREAMS)
        client, wire = self.switch(proxy)
        client.send(frame(0x81, b"foo", mask=True))
        head = wire.read(2)
        self.assertEqual(head, b"\x81\x83")
        mask = wire.read(4)
        self.assertEqual(bytes(a ^ b for a, b in zip(wire.read(3), mask, strict=False)), b"bar")

    def test_one_that_is_for_requests_without_upgrade_leaves_them_alone(self) -> None:
        proxy = Proxy(self, f"rules: [{{match: {{header: {{Upgrade: false}}}}, {self.REPLACE}}}]", STREAMS)
        client, wire = self.switch(proxy)
        client.send(frame(0x81, b"foo", mask=True))
        wire.expect(frame(0x81, b"foo", mask=True))


class StreamedTests(WireCase):
    def test_frames_go_on_byte_for_byte(self) -> None:
        client, wire = self.switch(Proxy(self, "", STREAMS))
        said = [
            frame(0x01, b"fragm", mask=True),
            frame(0x89, b"ping between", mask=True),
            frame(0x00, b"", mask=True),
            frame(0x80, b"ents", mask=True),
            frame(0x82, b"\xff" * 125, mask=True),
        ]
        client.send(b"".join(said))
        wire.expect(b"".join(said))
        said = [frame(0x02, b"from "), frame(0x8A, b"pong"), frame(0x80, b"origin")]
        wire.send(*said)
        client.expect(b"".join(said))

    def test_each_byte_of_a_frame_goes_on_before_the_next_one_is_there(self) -> None:
        client, wire = self.switch(Proxy(self, "", STREAMS))
        for sender, receiver, said in (
            (client, wire, frame(0x81, b"hello", mask=True)),
            (wire, client, frame(0x81, b"hello")),
        ):
            for at in range(len(said)):
                sender.send(said[at : at + 1])
                receiver.expect(said[at : at + 1])

    def test_the_beginning_of_a_frame_that_never_ends_is_there(self) -> None:
        client, wire = self.switch(Proxy(self, "", STREAMS))
        wire.send(b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"x" * 10000)
        self.assertEqual(client.read(10010)[10:], b"x" * 10000)
        wire.send(b"y")
        client.expect(b"y")

    def test_what_an_origin_says_with_its_101_is_there(self) -> None:
        for mode in MODES:
            proxy, origin = Proxy(self, "", mode), Origin(self)
            client = Client(self, proxy)
            client.get(origin, "/", *ASKED)
            wire = origin.accept()
            wire.read_head()
            wire.send(ANSWER + frame(0x81, b"welcome"))
            client.read_head()
            client.expect(frame(0x81, b"welcome"))


class MemoryTests(WireCase):
    """64 MiB in one message leave the proxy as small as it was."""

    def send_large(self, sender: Wire, receiver: Wire, mask: bool) -> int:
        """Send a message of one frame; how many bytes more the proxy has resident meanwhile, at the most."""
        before = self.proxy.resident()
        block = os.urandom(65536)
        head = bytes([0x82, 0xFF if mask else 0x7F]) + LARGE.to_bytes(8, "big") + (MASK if mask else b"")

        def send() -> None:
            sender.send(head)
            for _ in range(LARGE // len(block)):
                sender.send(block)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        receiver.expect(head)
        most = 0
        for number in range(LARGE // len(block)):
            if receiver.read(len(block)) != block:
                self.fail(f"the block at {number} isn't what was sent")
            if number % 64 == 0:
                most = max(most, self.proxy.resident())
        thread.join(WAIT)
        return max(most, self.proxy.resident()) - before

    def assert_small(self, client: Wire, wire: Wire) -> None:
        # What it needs at all it has after the first ones.
        for sender, receiver, mask in ((client, wire, True), (wire, client, False)):
            said = frame(0x82, b"x" * 100, mask)
            for _ in range(20):
                sender.send(said)
                receiver.expect(said)
            self.assertLess(self.send_large(sender, receiver, mask), MOST_GROWTH)
        client.send(frame(0x88, b"\x03\xe8", mask=True))
        wire.expect(frame(0x88, b"\x03\xe8", mask=True))
        wire.send(frame(0x88, b"\x03\xe8"))
        client.expect(frame(0x88, b"\x03\xe8"))
        wire.close()
        client.close()
        self.proxy.wait_for(lambda lines: any('"websocket": ' in line for line in lines), "the WebSocket's line")
        (line,) = [each for each in self.proxy.journal() if "websocket" in each]
        for side in ("client", "origin"):
            counted = line["websocket"][side]
            self.assertEqual((counted["messages"], counted["bytes"]), (21, LARGE + 2000))

    def test_over_tcp(self) -> None:
        self.proxy = Proxy(self, "", STREAMS)
        self.assert_small(*self.switch(self.proxy))

    def test_over_tls(self) -> None:
        self.proxy = Proxy(self, "", STREAMS, trusting(self))
        switched, over = threading.Event(), threading.Event()

        def play(wire: Wire) -> None:
            wire.read_head()
            wire.send(ANSWER)
            self.wire = wire
            switched.set()
            over.wait(WAIT)

        origin = SecureOrigin(self, play)
        self.addCleanup(over.set)
        tunnel = Tunnel(self, self.proxy, origin.netloc)
        tunnel.shake(self.proxy.ca)
        tunnel.ask_for("/", *ASKED)
        tunnel.read_head()
        self.assertTrue(switched.wait(WAIT))
        self.assert_small(tunnel, self.wire)

    def test_a_side_that_does_not_read_stops_the_other_one_only(self) -> None:
        self.proxy = proxy = Proxy(self, "", STREAMS)
        client, wire = self.switch(proxy, origin=Origin(self, buffer=65536))
        said = frame(0x82, b"z" * 100)
        for _ in range(20):
            wire.send(said)
            client.expect(said)
        before = proxy.resident()
        sent = 0

        def send() -> None:
            nonlocal sent
            head = b"\x82\xff" + LARGE.to_bytes(8, "big") + MASK
            client.sock.sendall(head)
            try:
                while sent < LARGE:
                    sent += client.sock.send(bytes(65536))
            except OSError:
                # The test is over.
                pass

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        self.addCleanup(thread.join, WAIT)
        self.addCleanup(client.sock.shutdown, socket.SHUT_RDWR)
        under_way = settled(lambda: sent)
        self.assertLess(under_way, LARGE // 2)
        self.assertLess(proxy.resident() - before, MOST_GROWTH)
        for _ in range(20):
            wire.send(said)
            client.expect(said)


class OtherUpgradeTests(SynchronousTestCase):
    """What upgrades to anything else is a tunnel, and nothing in it is read."""

    def test_bytes_go_both_ways_as_they_are_until_both_have_ended(self) -> None:
        for mode in MODES:
            # A rule for bodies and messages isn't one for tunnels.
            proxy, origin = Proxy(self, "rules: [{response: {replace: [{find: foo, with: bar}]}}]", mode), Origin(self)
            client = Client(self, proxy)
            client.get(origin, "/", b"Upgrade: chat/2", b"Connection: Upgrade")
            wire = origin.accept()
            self.assertIn(b"\r\nUpgrade: chat/2\r\n", wire.read_head())
            wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat/2\r\nConnection: Upgrade\r\n\r\nfoo\x81")
            self.assertTrue(client.read_head().startswith(b"HTTP/1.1 101 "))
            client.expect(b"foo\x81")
            for said in (b"\x00\xff", b"GET / HTTP/1.1\r\n\r\n", frame(0x83, b"no frame of ours", mask=True)):
                client.send(said)
                wire.expect(said)
                wire.send(said[::-1])
                client.expect(said[::-1])
            client.half_close()
            wire.expect_end()
            wire.send(b"the last word")
            wire.close()
            client.expect(b"the last word")
            client.expect_end()
            client.close()
            (line,) = proxy.recorded(1)
            self.assertEqual((line["status"], line["outcome"]), (101, "switched"))
            self.assertNotIn("websocket", line)
            self.assertNotIn("error", line)

    def test_an_origin_that_switches_to_what_was_not_asked_for_is_a_502(self) -> None:
        proxy, origin = Proxy(self), Origin(self)
        client = Client(self, proxy)
        client.get(origin, "/", b"Upgrade: chat/2", b"Connection: Upgrade")
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 502 "))
