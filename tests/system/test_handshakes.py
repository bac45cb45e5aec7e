"""TLS handshakes that are slow, hostile or many, on both sides of the proxy."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.secure import client_context
from tests.system.parts import WAIT, Client, Origin, Proxy, Wire, each_request, response, settled, until
from tests.system.secure import SecureOrigin, Tunnel, trusting

TARGET = "shop.example:443"
RULES = "rules: [{match: {host: '*.example'}, respond: {text: here}}]"
ALERT = b"\x15"
# How many clients there are at once.
MANY = 200


class HandByHand:
    """A TLS client whose records the test sends itself, over `wire`."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, name: str) -> None:
        self._wire = wire
        self._in, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self.out, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.hello = self.out.read()

    def send_bytewise(self, data: bytes) -> None:
        for at in range(len(data)):
            self._wire.send(data[at : at + 1])
            # Each by itself: what is sent at once arrives at once.
            self._wire.wait_until_acknowledged()

    def finish(self) -> None:
        """Do the rest of the handshake, bytewise too."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._read()
        self.send_bytewise(self.out.read())

    def _read(self) -> None:
        data = self._wire.sock.recv(65536)
        if not data:
            raise AssertionError("the connection ended")
        self._in.write(data)

    def ask(self, request: bytes) -> bytes:
        """Send a request; what is read of its answer until the connection ends."""
        self._tls.write(request)
        self.send_bytewise(self.out.read())
        got = b""
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._read()
                continue
            except ssl.SSLZeroReturnError:
                return got
            if not data:
                return got
            got += data


def rest_of(wire: Wire) -> bytes:
    """What comes to the end, whether that is in order or not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := wire.sock.recv(65536):
            got += data
    return got


def stall(wire: Wire) -> None:
    """Read, and say nothing."""
    wire.read_to_end()


class SlowClientTests(SynchronousTestCase):
    def start(self, *overrides: str) -> tuple[Proxy, Tunnel]:
        # Whatever else may end a connection ends it later than a test allows.
        proxy = Proxy(self, RULES, "timeouts.head=8", *overrides)
        return proxy, Tunnel(self, proxy, TARGET)

    def hello(self, proxy: Proxy, wire: Wire) -> HandByHand:
        return HandByHand(wire, client_context(proxy.ca.read_bytes(), "http/1.1"), "shop.example")

    def assert_ended_in_time(self, proxy: Proxy, wire: Wire, began: float) -> None:
        """The proxy ends the connection, in a time that is nearer to half a second than to the default."""
        rest_of(wire)
        self.assertLess(time.monotonic() - began, 5)
        (line,) = proxy.recorded(1)
        self.assertEqual((line["outcome"], line["method"]), ("timed-out", "CONNECT"))
        self.assertTrue(line["client"].startswith("127.0.0.1:"), line)
        self.assertEqual(line["url"], TARGET)
        self.assertIn("too long", line["error"])

    def test_a_handshake_that_comes_byte_by_byte(self) -> None:
        proxy, tunnel = self.start()
        client = self.hello(proxy, tunnel)
        client.send_bytewise(client.hello)
        client.finish()
        got = client.ask(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"), got)
        self.assertTrue(got.endswith(b"\r\n\r\nhere"), got)

    def test_one_that_stops_inside_its_hello_is_ended(self) -> None:
        proxy, tunnel = self.start("timeouts.handshake=0.5")
        began = time.monotonic()
        tunnel.send(self.hello(proxy, tunnel).hello[:100])
        self.assert_ended_in_time(proxy, tunnel, began)

    def test_one_that_stops_after_its_hello_is_ended(self) -> None:
        proxy, tunnel = self.start("timeouts.handshake=0.5")
        began = time.monotonic()
        tunnel.send(self.hello(proxy, tunnel).hello)
        self.assert_ended_in_time(proxy, tunnel, began)

    def test_one_that_never_stops_being_slow_is_ended(self) -> None:
        proxy, tunnel = self.start("timeouts.handshake=0.5")
        hello = self.hello(proxy, tunnel).hello
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for at in range(60):
                tunnel.send(hello[at : at + 1])
                time.sleep(0.05)
        self.assert_ended_in_time(proxy, tunnel, began)

    def test_one_that_speaks_tls_to_the_proxy_itself_and_stops_is_ended_and_has_a_line(self) -> None:
        proxy = Proxy(self, RULES, "timeouts.handshake=0.5")
        wire = Client(self, proxy)
        began = time.monotonic()
        wire.send(self.hello(proxy, wire).hello[:100])
        rest_of(wire)
        self.assertLess(time.monotonic() - began, 5)
        (line,) = proxy.recorded(1)
        self.assertEqual(line["outcome"], "timed-out")

    def test_one_that_leaves_in_the_midst_has_a_line(self) -> None:
        proxy, tunnel = self.start()
        tunnel.send(self.hello(proxy, tunnel).hello)
        self.assertEqual(tunnel.read(1), b"\x16")
        tunnel.close()
        (line,) = proxy.recorded(1)
        self.assertEqual(line["outcome"], "client-gone")
        self.assertIn("shop.example", line["error"])
        self.assertIn("perhaps it does not trust the proxy's CA", line["error"])


class GarbageTests(SynchronousTestCase):
    """What begins like TLS and is none: ended by an alert, with a line on the log."""

    def setUp(self) -> None:
        self.proxy = Proxy(self, RULES, "timeouts.handshake=0.5")
        self.number = 0

    def heard(self, sent: bytes) -> tuple[bytes, dict]:
        wire = Tunnel(self, self.proxy, TARGET)
        wire.send(sent)
        heard = rest_of(wire)
        self.number += 1
        return heard, self.proxy.recorded(self.number)[-1]

    def test_records_that_hold_no_hello(self) -> None:
        for sent in (
            b"\x16\x03\x01\x00\x05hello",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
            b"\x16\x03\x03\x00\x2a\x01\x00\x00\x26" + b"\xff" * 38,
            b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        ):
            heard, line = self.heard(sent)
            self.assertEqual(heard[:1], ALERT, (sent[:20], heard))
            self.assertEqual((line["outcome"], line["method"]), ("failed", "CONNECT"), (sent[:20], line))
            self.assertIn("the client's TLS handshake for shop.example failed: what it sent ", line["error"])

    def test_the_proxy_itself_answers_them_in_the_same_way(self) -> None:
        wire = Client(self, self.proxy)
        wire.send(b"\x16\x03\x01\x00\x05hello")
        self.assertEqual(rest_of(wire)[:1], ALERT)
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "failed")
        self.assertIn("what it sent ", line["error"])

    def test_versions_that_are_too_old_are_told_so(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        heard, line = self.heard(HandByHand(Client(self, self.proxy), context, "shop.example").hello)
        self.assertEqual(heard[:1], ALERT)
        self.assertIn("it speaks none of the TLS versions that are spoken here", line["error"])

    def test_the_proxy_serves_others_meanwhile_and_afterwards(self) -> None:
        for _ in range(20):
            Tunnel(self, self.proxy, TARGET).send(b"\x16\x03\x01\x00\x05he")
        tunnel = Tunnel(self, self.proxy, TARGET)
        tunnel.shake(self.proxy.ca)
        tunnel.ask_for()
        self.assertEqual(tunnel.read_body(tunnel.read_head()), b"here")
        lines = self.proxy.recorded(22)
        self.assertEqual([line["outcome"] for line in lines].count("timed-out"), 20, lines)


class ManyClientsTests(SynchronousTestCase):
    def test_two_hundred_handshakes_at_once_each_for_another_name(self) -> None:
        proxy = Proxy(self, RULES)
        # All tunnels are open before any of them begins.
        tunnels = [Tunnel(self, proxy, f"shop-{number}.example:443") for number in range(MANY)]

        def visit(tunnel: Tunnel) -> bytes:
            tunnel.shake(proxy.ca)
            tunnel.ask_for()
            return tunnel.read_body(tunnel.read_head())

        with ThreadPoolExecutor(MANY) as pool:
            self.assertEqual(list(pool.map(visit, tunnels)), [b"here"] * MANY)
        lines = proxy.recorded(2 * MANY)
        self.assertEqual({line["outcome"] for line in lines}, {"switched", "answered"})

    def test_two_hundred_handshakes_that_are_broken_off_leave_nothing_behind(self) -> None:
        proxy = Proxy(self, RULES)

        def open_files() -> int:
            return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))

        def break_off() -> None:
            wire = Tunnel(self, proxy, TARGET)
            wire.send(b"\x16\x03\x01\x02\x00\x01")
            wire.reset()

        break_off()
        proxy.recorded(1)
        # By now it has all that it needs for itself.
        files = settled(open_files, 0.2)
        for _ in range(MANY):
            break_off()
        lines = proxy.recorded(MANY + 1)
        self.assertEqual({line["outcome"] for line in lines}, {"client-gone"})
        until(lambda: open_files() == files, "the end of its connections")


class OriginHandshakeTests(SynchronousTestCase):
    def ask(self, proxy: Proxy, origin: Origin) -> tuple[bytes, bytes]:
        """The head and the body of the answer to a request for `origin`, over TLS."""
        tunnel = Tunnel(self, proxy, origin.netloc)
        tunnel.shake(proxy.ca)
        tunnel.ask_for()
        head = tunnel.read_head()
        return head, tunnel.read_body(head)

    def test_an_origin_that_stalls_in_its_handshake_is_a_504(self) -> None:
        let_go = threading.Event()

        def script(wire: Wire) -> None:
            try:
                stall(wire)
            finally:
                let_go.set()

        origin = Origin(self, script)
        proxy = Proxy(self, "", "timeouts.handshake=0.5")
        began = time.monotonic()
        head, body = self.ask(proxy, origin)
        self.assertLess(time.monotonic() - began, 5)
        self.assertTrue(head.startswith(b"HTTP/1.1 504 "), head)
        self.assertEqual(body, b"504 Gateway Timeout: the TLS handshake with 127.0.0.1 took too long\n")
        self.assertEqual(proxy.recorded(2)[1]["outcome"], "timed-out")
        self.assertTrue(let_go.wait(WAIT), "its connection was kept")

    def test_an_origin_that_ends_in_its_handshake_is_a_502(self) -> None:
        def script(wire: Wire) -> None:
            wire.read(1)

        origin = Origin(self, script)
        head, body = self.ask(Proxy(self), origin)
        self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
        self.assertEqual(body, b"502 Bad Gateway: 127.0.0.1 closed the connection in the TLS handshake\n")

    def test_an_origin_that_answers_a_handshake_with_garbage_is_a_502(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(b"SSH-2.0-x\r\n" * 9)
            stall(wire)

        origin = Origin(self, script)
        head, body = self.ask(Proxy(self), origin)
        self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
        self.assertEqual(body, b"502 Bad Gateway: 127.0.0.1 doesn't speak TLS there\n")

    def test_one_that_stalls_keeps_nobody_else_waiting(self) -> None:
        stalled = Origin(self, stall)
        origin = SecureOrigin(self, each_request(lambda asked: response(b"there")))
        proxy = Proxy(self, "", trusting(self))
        waiting = Tunnel(self, proxy, stalled.netloc)
        waiting.shake(proxy.ca)
        waiting.ask_for()
        until(lambda: bool(stalled.wires), "the stalled origin's connection")
        self.assertEqual(self.ask(proxy, origin)[1], b"there")
