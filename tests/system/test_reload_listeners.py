"""SIGHUP: listeners, who may use them, and the times and limits of all; what can't be had changes nothing."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Origin, Wire, chunk, each_request, new_folder, response, until
from tests.system.supervised import GET_HELLO, HELLO, Daemon, free_port, listening_socket

LISTEN = "tcp:{0}:interface=127.0.0.1"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class ListenersCase(SynchronousTestCase):
    def config(self, *ports: int, admin: str = "false", more: str = HELLO) -> str:
        listen = "".join(f"  - {LISTEN.format(port)}\n" for port in ports)
        return f"listen:\n{listen}admin: {admin}\n{more}"

    def start(self, **options: str) -> None:
        """A daemon with one listener."""
        self.folder = new_folder(self)
        self.port = free_port()
        self.daemon = Daemon(self, self.config(self.port, **options), self.folder)

    def connect(self, port: int | None = None) -> Wire:
        sock = socket.create_connection(("127.0.0.1", self.port if port is None else port), 30)
        self.addCleanup(sock.close)
        return Wire(sock)

    def ask(self, wire: Wire, request: bytes = GET_HELLO) -> bytes:
        """The body of the answer."""
        wire.send(request)
        return wire.read_body(wire.read_head())

    def status(self, wire: Wire, request: bytes = GET_HELLO) -> bytes:
        """The status of the answer."""
        wire.send(request)
        head = wire.read_head()
        wire.read_body(head)
        return head.split()[1]

    def refuses(self, port: int) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) != 0

    def get(self, origin: Origin, path: str = "/") -> bytes:
        return f"GET {origin.url(path)} HTTP/1.1\r\nHost: {origin.netloc}\r\n\r\n".encode()


class ListenersTests(ListenersCase):
    def inodes(self) -> set[str]:
        """The sockets that the daemon listens on, as the kernel knows them."""
        lines = [line.split() for line in Path(f"/proc/{self.daemon.pid}/net/tcp").read_text().splitlines()[1:]]
        listening = {line[9] for line in lines if line[3] == "0A"}
        folder = f"/proc/{self.daemon.pid}/fd"
        links = []
        for name in os.listdir(folder):
            try:
                links.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                # It was open when they were listed.
                continue
        return {link[8:-1] for link in links if link.startswith("socket:[") and link[8:-1] in listening}

    def test_one_more_and_one_less_while_the_others_are_not_touched(self) -> None:
        self.start()
        origin = Origin(self)
        (first,) = self.inodes()
        old = self.connect()
        self.assertEqual(self.ask(old), b"hello")
        stream = self.connect()
        stream.send(self.get(origin))
        wire = origin.accept()
        wire.read_head()
        wire.send(EVENTS)
        stream.read_head()

        more = free_port()
        self.daemon.reload(self.config(self.port, more))
        self.assertEqual(self.ask(self.connect(more)), b"hello")
        self.assertIn(first, self.inodes())
        self.assertEqual(len(self.inodes()), 2)
        self.daemon.reload(self.config(more))
        until(lambda: self.refuses(self.port), "that the first doesn't listen any more")
        self.assertEqual(self.daemon.count(f"no longer listening on 127.0.0.1:{self.port}"), 1)
        # What was made by it goes on.
        self.assertEqual(self.ask(old), b"hello")
        wire.send(chunk(b"data: 1\n\n"))
        stream.expect(chunk(b"data: 1\n\n"))
        stream.reset()
        self.daemon.reload(self.config(self.port, more))
        self.assertEqual(self.ask(self.connect()), b"hello")
        self.assertEqual(self.daemon.stop(), 0)

    def test_who_waits_to_be_accepted_is_served_behind_a_reload(self) -> None:
        # Reading this file again takes a second, in which nobody is accepted.
        self.folder = new_folder(self)
        (self.folder / "slow.py").write_text("import time, pathlib\npathlib.Path('loads').touch()\ntime.sleep(1)\n")
        self.port = free_port()
        self.daemon = Daemon(self, self.config(self.port, more=HELLO + "scripts: [slow.py]\n"), self.folder)
        (self.folder / "loads").unlink()
        served: list[bytes] = []

        def ask() -> None:
            until((self.folder / "loads").exists, "that it is read again")
            served.append(self.ask(self.connect()))

        thread = threading.Thread(target=ask)
        thread.start()
        self.daemon.reload()
        thread.join(30)
        self.assertEqual(served, [b"hello"])

    def test_what_cannot_be_had_leaves_all_as_it_was(self) -> None:
        self.start(admin=LISTEN.format(0))
        admin = self.daemon.listened("admin: listening on")
        first = self.inodes()
        taken = listening_socket(self)
        other = free_port()
        wrong = self.config(other, taken.getsockname()[1], admin=LISTEN.format(0), more=HELLO.replace("hello}", "bye}"))
        self.daemon.refuse(wrong)
        self.assertIn("Address already in use", self.daemon.output)
        # What was opened is closed in the next turn.
        until(lambda: self.inodes() == first, "the sockets of before")
        self.assertTrue(self.refuses(other))
        self.assertEqual(self.ask(self.connect()), b"hello")
        metrics = self.ask(self.connect(admin), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").decode()
        self.assertIn('\nstreamproxy_reloads_total{result="failed"} 1.0\n', metrics)
        self.assertIn("\nstreamproxy_reload_last_worked 0.0\n", metrics)
        # One that others come by needs to be told who they may be.
        self.daemon.refuse(self.config(self.port, more=HELLO).replace("listen:\n", f"listen:\n  - tcp:{other}\n"))
        self.assertTrue(self.refuses(other))
        taken.close()
        self.daemon.reload(wrong)
        self.assertEqual(self.ask(self.connect(other)), b"bye")

    def test_a_script_that_loops_or_raises_while_it_is_loaded_changes_nothing(self) -> None:
        self.start()
        more = HELLO.replace("hello}", "bye}") + "scripts: [script.py]\ntimeouts: {script: 1}\n"
        for script, words in (
            ("1 / 0\n", "ZeroDivisionError"),
            ("raise SystemExit(3)\n", "SystemExit"),
            ("while True: pass\n", "script.py:1"),
        ):
            (self.folder / "script.py").write_text(script)
            self.daemon.refuse(self.config(self.port, free_port(), more=more))
            self.assertIn(words, self.daemon.output)
            self.assertEqual(self.ask(self.connect()), b"hello")
        self.assertEqual(len(self.inodes()), 1)


class AdminTests(ListenersCase):
    READY = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"

    def test_it_comes_goes_and_changes_its_token(self) -> None:
        self.start()
        admin = free_port()
        self.daemon.reload(self.config(self.port, admin=LISTEN.format(admin)))
        old = self.connect(admin)
        self.assertEqual(self.status(old, self.READY + b"\r\n"), b"200")
        (self.folder / "token").write_text("one-of-sixteen-characters\n")
        guarded = f"{{endpoint: '{LISTEN.format(admin)}', token_file: token}}"
        for token in (b"one-of-sixteen-characters", b"another-one-of-them-is-this"):
            (self.folder / "token").write_bytes(token + b"\n")
            self.daemon.reload(self.config(self.port, admin=guarded))
            # The connection that was open before as well.
            for wire in (old, self.connect(admin)):
                self.assertEqual(self.status(wire, self.READY + b"\r\n"), b"401")
                given = b"Authorization: Bearer " + token + b"\r\n\r\n"
                self.assertEqual(self.status(wire, self.READY + given), b"200")
        self.daemon.reload(self.config(self.port))
        until(lambda: self.refuses(admin), "that nobody listens for operators")
        self.assertEqual(self.ask(self.connect()), b"hello")

    def test_it_can_be_asked_to_read_again(self) -> None:
        self.start(admin=LISTEN.format(0))
        admin = self.connect(self.daemon.listened("admin: listening on"))
        post = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        self.daemon.write(self.config(self.port, admin=LISTEN.format(0), more="hold: sometimes\n"))
        self.assertIn(b"expected needed or always", self.ask(admin, post))
        self.daemon.write(self.config(self.port, admin=LISTEN.format(0), more=HELLO.replace("hello}", "bye}")))
        self.assertEqual(self.status(admin, post), b"200")
        self.assertEqual(self.ask(self.connect()), b"bye")


class LimitsTests(ListenersCase):
    def test_times_limits_and_access_hold_from_then_on(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"served")))
        self.start()
        old = self.connect()
        self.assertEqual(self.ask(old, self.get(origin)), b"served")

        def obey(text: str) -> None:
            self.daemon.reload(self.config(self.port, more=HELLO + text))

        obey("access: {origins: {deny: [127.0.0.0/8]}}\n")
        # By a connection to it that is idle neither.
        for wire in (old, self.connect()):
            self.assertEqual(self.status(wire, self.get(origin)), b"403")
        obey("limits: {head: 300}\n")
        long = b"X-Long: " + b"x" * 400 + b"\r\n\r\n"
        self.assertEqual(self.status(self.connect(), self.get(origin)[:-2] + long), b"431")
        self.assertEqual(self.status(self.connect(), self.get(origin)), b"200")
        obey("timeouts: {head: 0.3}\n")
        wire = self.connect()
        self.assertEqual(self.status(wire, GET_HELLO[:20]), b"408")
        (self.folder / "users").write_text("ann:$2y$04$IB5zgyGCHO8jJ1C8Zh0gLuxZ8C5rSvO3YFQJ0mYd4b6X8xkqVq9Fu\n")
        kept = self.connect()
        self.assertEqual(self.ask(kept), b"hello")
        obey("access: {htpasswd: users}\n")
        for wire in (kept, self.connect()):
            self.assertEqual(self.status(wire), b"407")
        waiting = self.connect()
        obey("access: {allow: [192.0.2.0/24]}\n")
        # Who isn't admitted any more may only end what was under way.
        self.assertEqual(self.rest(waiting), b"")
        self.assertEqual(self.status(self.connect(), b""), b"403")

    def rest(self, wire: Wire) -> bytes:
        try:
            return wire.read_to_end()
        except ConnectionResetError:
            return b""


class LoadTests(ListenersCase):
    def test_reloads_harm_nobody_who_asks_meanwhile(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(asked.line)))
        self.start()
        is_over = threading.Event()
        broken: list[str] = []
        served = [0]

        def ask(again: bool) -> None:
            try:
                while not is_over.is_set():
                    wire = self.connect()
                    for _ in range(20 if again else 1):
                        if self.ask(wire, self.get(origin)) != b"GET / HTTP/1.1":
                            raise AssertionError("another answer")
                        served[0] += 1
                    wire.close()
            except (OSError, AssertionError) as error:
                broken.append(repr(error))

        threads = [threading.Thread(target=ask, args=(again,), daemon=True) for again in (True, False) * 3]
        for thread in threads:
            thread.start()
        other = free_port()
        for number in range(10):
            before = served[0]
            self.daemon.reload(self.config(self.port, *([other] if number % 2 else [])))
            until(lambda before=before: served[0] > before + 20, "some answers")
        is_over.set()
        for thread in threads:
            thread.join(30)
        self.assertEqual(broken, [])
