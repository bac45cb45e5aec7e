"""SIGTERM with each kind of connection there is: what ends in its time isn't harmed, what doesn't is cut visibly."""

from __future__ import annotations

import signal
import socket
import ssl

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.proxy.test_opening import say_hello
from tests.system.parts import TWISTD, Client, Origin, Proxy, Wire, new_folder, read_request, response, until
from tests.system.secure import SecureOrigin, Tunnel, trusting
from tests.system.websocket_peers import MESSAGES, STREAMS, Closed, Pair, WebSocketCase

EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)
STOPPED = "the proxy was stopped"
RULES = """
scripts: [script.py]
rules:
  - {match: {path: /held}, response: {stream: false}}
"""
# A hook that waits until the test has made a file.
SCRIPT = """
import asyncio, pathlib

async def requestheaders(flow):
    if flow.request.path == "/waits":
        pathlib.Path("waits").touch()
        while not pathlib.Path("go-on").exists():
            await asyncio.sleep(0.05)

def done():
    print("the script is done")
"""


class KindsCase(SynchronousTestCase):
    def start(self, *overrides: str, **options: object) -> None:
        self.folder = new_folder(self)
        (self.folder / "script.py").write_text(SCRIPT)
        self.origin = Origin(self)
        self.proxy = Proxy(
            self,
            RULES,
            trusting(self),
            f"tls.passthrough=[{self.origin.netloc}]",
            *overrides,
            folder=self.folder,
            **options,
        )

    def ask(self, path: str) -> tuple[Client, Wire]:
        """A request that the origin has got."""
        client = Client(self, self.proxy)
        client.get(self.origin, path)
        return client, self.accept()

    def accept(self) -> Wire:
        wire = self.origin.accept()
        wire.read_head()
        return wire

    def half(self, path: str) -> tuple[Client, Wire]:
        """The same, with half of the response sent."""
        client, wire = self.ask(path)
        # No other request comes on this connection, so that each has one of its own.
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfirst")
        return client, wire

    def events(self) -> tuple[Client, Wire]:
        """A stream of events of which the first has come."""
        client, wire = self.ask("/events")
        wire.send(EVENTS, b"9\r\ndata: 1\n\n\r\n")
        client.read_until(b"data: 1\n\n\r\n")
        return client, wire

    def begin(self) -> None:
        """One of each kind, all of them in the middle of something."""
        self.events_ = self.events()
        self.held = self.half("/held")
        self.upload = Client(self, self.proxy)
        self.upload.ask(b"POST", self.origin, "/upload", b"Content-Length: 10", body=b"hello")
        self.upload_wire = self.accept()
        self.upload_wire.expect(b"hello")
        self.tunnel = Tunnel(self, self.proxy, self.origin.netloc)
        self.tunnel_wire = self.origin.accept()
        self.tunnel.send(b"ping")
        self.tunnel_wire.expect(b"ping")
        self.waiting = self.wait_in_hook()
        self.half_head = Client(self, self.proxy)
        self.half_head.send(b"GET http://hello")
        # A client that is in its handshake, and one that has begun to say hello.
        self.shaking = Tunnel(self, self.proxy, "b.example:443")
        hello = say_hello("b.example")
        self.shaking.send(hello)
        self.assertEqual(self.shaking.read(1), b"\x16")
        self.saying_hello = Tunnel(self, self.proxy, "c.example:443")
        self.saying_hello.send(hello[:20])

    def wait_in_hook(self) -> Client:
        """A request whose hook waits for a file "go-on"."""
        client = Client(self, self.proxy)
        client.get(self.origin, "/waits")
        until((self.folder / "waits").exists, "that the hook waits")
        return client

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it, and wait until the proxy has begun to stop."""
        self.proxy.process.send_signal(number)
        self.proxy.wait_for(lambda lines: any("stopping: " in line for line in lines), "that it stops")

    def lines(self) -> dict[str, dict]:
        """The lines on the log, by what was asked for; each has exactly one."""
        lines = {line["url"].removeprefix(f"http://{self.origin.netloc}"): line for line in self.proxy.journal()}
        self.assertEqual(len(lines), len(self.proxy.journal()), self.proxy.output)
        return lines

    def outcomes(self) -> dict[str, str]:
        return {url: line["outcome"] for url, line in self.lines().items()}

    def assert_script_was_done_last(self) -> None:
        done = [at for at, line in enumerate(self.proxy.lines) if line.endswith("the script is done")]
        last = max(at for at, line in enumerate(self.proxy.lines) if '"outcome": ' in line)
        self.assertEqual(len(done), 1)
        self.assertGreater(done[0], last, self.proxy.output)


class InTimeTests(KindsCase):
    def test_what_ends_within_its_time_ends_well(self) -> None:
        self.start("timeouts.drain=25", "admin=tcp:0:interface=127.0.0.1")
        self.begin()
        self.signal()
        # Whoever asks is told, and asking to read the configuration does no harm.
        self.assertEqual(self.ask_admin(b"GET /readyz"), (b"503", b"the proxy is stopping\n"))
        self.assertEqual(self.ask_admin(b"GET /healthz")[0], b"200")
        self.proxy.process.send_signal(signal.SIGHUP)

        client, wire = self.events_
        wire.send(b"9\r\ndata: 2\n\n\r\n", b"0\r\n\r\n")
        client.expect(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        client.expect_end()
        client, wire = self.held
        wire.send(b"again")
        head = client.read_head()
        self.assertIn(b"\r\nconnection: close\r\n", head.lower())
        self.assertEqual(client.read_body(head), b"firstagain")
        client.expect_end()
        self.upload.send(b"again")
        self.upload_wire.expect(b"again")
        self.upload_wire.send(response(b"thanks", b"Connection: close"))
        self.assertEqual(self.upload.read_body(self.upload.read_head()), b"thanks")
        self.tunnel_wire.send(b"pong")
        self.tunnel.expect(b"pong")
        self.tunnel.half_close()
        self.tunnel_wire.expect_end()
        self.tunnel_wire.close()
        self.tunnel.expect_end()
        (self.folder / "go-on").touch()
        wire = self.accept()
        wire.send(response(b"waited"))
        self.assertEqual(self.waiting.read_body(self.waiting.read_head()), b"waited")
        self.half_head.send(b".example:1/rest HTTP/1.1\r\nHost: hello.example:1\r\n\r\n")
        self.assertTrue(self.half_head.read_head().startswith(b"HTTP/1.1 502 "))
        for client in (self.shaking, self.saying_hello):
            client.close()
        self.assertEqual(self.proxy.wait(), 0)
        told = self.outcomes()
        self.assertEqual(
            told,
            {
                "/events": "forwarded",
                "/held": "forwarded",
                "/upload": "forwarded",
                "/waits": "forwarded",
                self.origin.netloc: "tunnelled",
                "http://hello.example:1/rest": "origin-gone",
                "b.example:443": "client-gone",
                "c.example:443": "client-gone",
            },
        )
        self.assert_script_was_done_last()

    def ask_admin(self, what: bytes) -> tuple[bytes, bytes]:
        """The status and the body that the admin listener answers."""
        line = next(line for line in self.proxy.lines if "admin: listening on" in line)
        with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2]))) as connected:
            wire = Wire(connected)
            wire.send(what + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head = wire.read_head()
            return head.split()[1], wire.read_body(head)


class CutTests(KindsCase):
    def test_what_does_not_end_is_cut_where_it_shows(self) -> None:
        self.start("timeouts.drain=1")
        self.begin()
        # CONTROL-C does the same.
        self.signal(signal.SIGINT)
        self.assert_cut()
        self.assertEqual(self.proxy.wait(), 0)
        lines = self.lines()
        self.assertEqual(
            set(lines),
            {"/events", "/held", "/upload", "/waits", self.origin.netloc, "b.example:443", "c.example:443", "-"},
        )
        for url, line in lines.items():
            self.assertEqual(line["outcome"], "failed", url)
            self.assertIn(STOPPED, line["error"], url)
        self.assert_script_was_done_last()

    def assert_cut(self) -> None:
        client, wire = self.events_
        # No last chunk.
        self.assertEqual(self.rest(client), b"")
        self.assert_gone(wire)
        for client in (self.held[0], self.upload, self.waiting, self.half_head):
            head = client.read_head()
            self.assertTrue(head.startswith(b"HTTP/1.1 503 "), head)
            self.assertIn(STOPPED.encode(), client.read_body(head))
        for wire in (self.held[1], self.upload_wire, self.tunnel_wire):
            self.assert_gone(wire)
        self.tunnel.expect_reset()
        for client in (self.shaking, self.saying_hello):
            self.rest(client)

    def rest(self, wire: Wire) -> bytes:
        try:
            return wire.read_to_end()
        except ConnectionResetError:
            return b""

    def assert_gone(self, wire: Wire) -> None:
        self.assertEqual(self.rest(wire), b"")


class TlsTests(KindsCase):
    def test_in_tls_what_is_idle_ends_at_once_and_what_is_not_later(self) -> None:
        self.start("timeouts.drain=25")
        wires: list[Wire] = []

        def play(wire: Wire) -> None:
            while (asked := read_request(wire)) is not None:
                if b"/slow" in asked.line:
                    wires.append(wire)
                    return wait(wire)
                wire.send(response(b"served"))

        def wait(wire: Wire) -> None:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            self.proxy.wait_for(lambda lines: any("stopping: " in line for line in lines), "that it stops")
            idle.expect_end()
            # It stays as it is: many clients look at a connection only when they need it again.
            wire.send(b"again")

        origin = SecureOrigin(self, play)
        idle, busy = (Tunnel(self, self.proxy, origin.netloc) for _ in range(2))
        for client in (idle, busy):
            client.shake(self.proxy.ca)
        idle.ask_for()
        self.assertEqual(idle.read_body(idle.read_head()), b"served")
        busy.ask_for("/slow")
        head = busy.read_head()
        busy.expect(b"first")
        self.signal()
        busy.expect(b"again")
        # Over TLS an end without a goodbye would be an error here.
        self.assertIsInstance(busy.sock, ssl.SSLSocket)
        busy.expect_end()
        self.assertIn(b"200 OK", head)
        self.assertEqual(self.proxy.wait(), 0)
        self.assertNotIn("connections are cut", self.proxy.output)


class OtherReactorTests(KindsCase):
    def test_on_asyncio_it_is_the_same(self) -> None:
        self.start("timeouts.drain=25", twistd=(TWISTD, "--reactor", "asyncio"))
        client, wire = self.half("/half")
        waiting = self.wait_in_hook()
        self.signal()
        wire.send(b"again")
        self.assertEqual(client.read_body(client.read_head()), b"firstagain")
        (self.folder / "go-on").touch()
        self.accept().send(response(b"waited"))
        self.assertEqual(waiting.read_body(waiting.read_head()), b"waited")
        self.assertEqual(self.proxy.wait(), 0)
        self.assertEqual(self.outcomes(), {"/half": "forwarded", "/waits": "forwarded"})


class SignalTests(KindsCase):
    def test_a_signal_right_behind_the_start_is_obeyed(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Proxy() comes back when the line of its listener is there, which is before the reactor runs.
            proxy = Proxy(self)
            proxy.process.send_signal(number)
            if number == signal.SIGHUP:
                proxy.wait_for(lambda lines: any("reloaded: 0 rules" in line for line in lines), "a reload")
                proxy.process.send_signal(signal.SIGTERM)
            # While Twisted's reactor begins it takes the signal for its own, and ends by it, in order.
            self.assertIn(proxy.wait(), (0, -signal.SIGTERM))
            self.assertIn("Server Shut Down.", proxy.output)

    def test_one_during_a_reload_is_obeyed_behind_it(self) -> None:
        self.start()
        (self.folder / "script.py").write_text("print('loading')\nimport time\ntime.sleep(1)\n" + SCRIPT)
        self.proxy.process.send_signal(signal.SIGHUP)
        self.proxy.wait_for(lambda lines: any(line.endswith("loading") for line in lines), "a reload")
        self.proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.proxy.wait(), 0)
        self.assertIn("reloaded: 1 rules", self.proxy.output)

    def test_two_at_once_cut_at_once(self) -> None:
        self.start("timeouts.drain=60")
        client, _ = self.ask("/never")
        self.proxy.process.send_signal(signal.SIGTERM)
        self.proxy.process.send_signal(signal.SIGINT)
        self.assertEqual(self.proxy.wait(), 0)
        self.assertEqual(self.outcomes(), {"/never": "failed"})
        client.close()


class WebSocketTests(WebSocketCase):
    async def test_both_sides_are_told_that_the_proxy_goes_away(self) -> None:
        self.start((), "timeouts.drain=25")
        pairs: list[Pair] = []
        async for pair in self.pairs():
            pair.client.send("said")
            await self.expect(pair, pair.server, "said")
            pairs.append(pair)
        self.proxy.process.send_signal(signal.SIGTERM)
        for pair in pairs:
            for peer in (pair.client, pair.server):
                await self.expect(pair, peer, Closed(True, 1001, "the proxy is stopping"))
        self.assertEqual(await deferToThread(self.proxy.wait), 0)
        for _ in pairs:
            line = await self.line()
            self.assertEqual(line["outcome"], "switched")
            self.assertEqual(
                line["websocket"]["close"], {"code": 1001, "reason": "the proxy is stopping", "by": "proxy"}
            )

    async def test_one_whose_peers_do_not_answer_is_not_waited_for_longer_than_others(self) -> None:
        self.start((), "timeouts.drain=1")
        async for pair in self.pairs(ways=("connect",), paths=(MESSAGES, STREAMS)):
            for peer in (pair.client, pair.server):
                peer.transport.pauseProducing()
        self.proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(await deferToThread(self.proxy.wait), 0)
        for _ in range(2):
            self.assertEqual((await self.line())["websocket"]["close"]["code"], 1001)
