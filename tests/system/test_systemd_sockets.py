"""Sockets that systemd hands over by name, and keeps: a restart turns nobody away who connects. No systemd need run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    TWISTD,
    Origin,
    Program,
    Proxy,
    Wire,
    clean_environment,
    each_request,
    needed,
    new_folder,
    response,
    until,
)
from tests.system.supervised import GET_HELLO, HELLO, Daemon, free_port, listening_socket, shimmed

GET_READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class InheritedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clients = listening_socket(self)
        self.admin = listening_socket(self)

    def start(
        self, *overrides: str, names: str = "proxy:admin", sockets: tuple[socket.socket, ...] | None = None
    ) -> Proxy:
        """A daemon that is given `sockets`, else both of ours, by their `names`."""
        given = (self.clients, self.admin) if sockets is None else sockets
        environment = {"LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": names}
        listen = ("listen=systemd:name=proxy", "timeouts.drain=20", *overrides)
        numbers = [each.fileno() for each in given]
        return Proxy(self, HELLO, *listen, twistd=shimmed(given), environment=environment, pass_fds=numbers)

    def ask(self, sock: socket.socket, request: bytes) -> bytes:
        """The body of what somebody who listens at `sock` answers."""
        with socket.create_connection(sock.getsockname()) as connected:
            wire = Wire(connected)
            wire.send(request)
            return wire.read_body(wire.read_head())


class InheritedTests(InheritedCase):
    def test_both_are_served_by_their_names(self) -> None:
        proxy = self.start("admin=systemd:name=admin", names="admin:proxy", sockets=(self.admin, self.clients))
        self.assertEqual(proxy.port, self.clients.getsockname()[1])
        self.assertEqual(self.ask(self.clients, GET_HELLO), b"hello")
        self.assertEqual(self.ask(self.admin, GET_READY), b"ready\n")
        for number in (3, 4):
            # What it starts doesn't get them.
            flags = re.search(r"flags:\s+([0-7]+)", Path(f"/proc/{proxy.pid}/fdinfo/{number}").read_text())
            assert flags is not None
            self.assertTrue(int(flags[1], 8) & os.O_CLOEXEC)
        self.assertEqual(proxy.stop(), 0)

    def test_a_listener_that_a_reload_took_away_can_be_had_again(self) -> None:
        sockets = (self.clients, self.admin)
        without = HELLO + "listen: 'systemd:name=proxy'\nadmin: false\n"
        daemon = Daemon(
            self,
            without,
            twistd=shimmed(sockets),
            environment={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "proxy:admin"},
            pass_fds=[each.fileno() for each in sockets],
        )
        for _ in range(2):
            daemon.reload(without.replace("false", "'systemd:name=admin'"))
            self.assertEqual(self.ask(self.admin, GET_READY), b"ready\n")
            daemon.reload(without)
        self.assertEqual(daemon.count("no longer listening on"), 2)
        self.assertEqual(self.ask(self.clients, GET_HELLO), b"hello")

    def assert_refused(self, words: str, **options: object) -> None:
        sockets = options.pop("sockets", (self.clients, self.admin))
        assert isinstance(sockets, tuple)
        folder = new_folder(self)
        (folder / "rules.yaml").write_text("listen: 'systemd:name=proxy'\nadmin: false\n")
        command = [*shimmed(sockets), "-n", "--pidfile=", "streamproxy", "-c", folder / "rules.yaml"]
        ran = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            cwd=folder,
            timeout=60,
            check=False,
            pass_fds=[each.fileno() for each in sockets],
            env={**clean_environment(folder), **options},  # type: ignore[dict-item]
        )
        said = (ran.stdout + ran.stderr).decode()
        self.assertEqual(ran.returncode, 1, said)
        lines = [line for line in said.splitlines() if "listen" in line]
        self.assertEqual(len(lines), 1, said)
        self.assertIn(words, lines[0])
        self.assertNotIn("Traceback", said)

    def test_a_name_that_is_not_given_is_told_in_one_line(self) -> None:
        self.assert_refused(
            "listen: systemd gave no socket by the name proxy; those that it gave: clients, admin",
            LISTEN_FDS="2",
            LISTEN_FDNAMES="clients:admin",
        )
        self.assert_refused("those that it gave: none", sockets=())

    def test_a_unix_socket_is_refused(self) -> None:
        unix = listening_socket(self, socket.AF_UNIX)
        self.assert_refused("unix socket", sockets=(unix,), LISTEN_FDS="1", LISTEN_FDNAMES="proxy")

    def test_a_socket_that_does_not_listen_is_none(self) -> None:
        connected, _ = pair = socket.socketpair()
        for each in pair:
            self.addCleanup(each.close)
        self.assert_refused("those that it gave: none", sockets=(connected,), LISTEN_FDS="1", LISTEN_FDNAMES="proxy")

    def test_systemd_socket_activate_hands_over_two(self) -> None:
        program = needed("systemd-socket-activate", "systemd")
        folder = new_folder(self)
        (folder / "rules.yaml").write_text(HELLO + "listen: 'systemd:name=proxy'\nadmin: 'systemd:name=admin'\n")
        addresses = [free_port() for _ in range(2)]
        activated = Program(
            self,
            [
                program,
                *(f"--listen=127.0.0.1:{port}" for port in addresses),
                "--fdname=proxy:admin",
                *(TWISTD, "-n", "--pidfile=", "streamproxy", "-c", folder / "rules.yaml"),
            ],
            folder,
        )
        activated.wait_for(lambda lines: sum("Listening on" in line for line in lines) == 2, "both sockets")
        for port, request, body in (
            (addresses[0], GET_HELLO, b"hello"),
            (addresses[1], GET_READY, b"ready"),
        ):
            with socket.create_connection(("127.0.0.1", port)) as connected:
                wire = Wire(connected)
                wire.send(request)
                self.assertTrue(wire.read_body(wire.read_head()).startswith(body))
        self.assertEqual(activated.stop(), 0)


class RestartTests(InheritedCase):
    """What systemd holds open while the service is restarted: nobody who connects is turned away."""

    restarts = 3

    def setUp(self) -> None:
        super().setUp()
        self.origin = Origin(self, each_request(lambda asked: response(asked.line)))
        self.broken: list[str] = []
        self.served = {"new": 0, "kept": 0}
        self.is_over = threading.Event()

    def connect(self) -> Wire:
        return Wire(socket.create_connection(self.clients.getsockname(), 30))

    def ask_origin(self, wire: Wire, path: str) -> bytes:
        """Ask, and give the head of what is answered; raises where the answer isn't whole or isn't it."""
        wire.send(f"GET {self.origin.url(path)} HTTP/1.1\r\nHost: {self.origin.netloc}\r\n\r\n".encode())
        head = wire.read_head()
        body = wire.read_body(head)
        if body != f"GET {path} HTTP/1.1".encode():
            raise AssertionError(f"another answer: {head!r} {body!r}")
        return head

    def ask_anew(self) -> None:
        """A new connection for each request."""
        while not self.is_over.is_set():
            wire = self.connect()
            try:
                self.ask_origin(wire, "/new")
                self.served["new"] += 1
            except (OSError, AssertionError) as error:
                self.broken.append(repr(error))
            finally:
                wire.close()

    def ask_again(self) -> None:
        """As many requests on a connection as the proxy wants; who is told so asks no more on it."""
        while not self.is_over.is_set():
            wire = self.connect()
            first = True
            try:
                while not self.is_over.is_set():
                    head = self.ask_origin(wire, "/kept")
                    first = False
                    self.served["kept"] += 1
                    if b"\r\nconnection: close\r\n" in head.lower():
                        break
            except (OSError, AssertionError) as error:
                # A connection that was idle may end when its next request is on its way; no other does.
                if first or wire._buffer:
                    self.broken.append(repr(error))
            finally:
                wire.close()

    def test_nobody_who_connects_is_turned_away(self) -> None:
        proxy = self.start()
        threads = [threading.Thread(target=ask, daemon=True) for ask in (self.ask_anew, self.ask_again) * 3]
        for thread in threads:
            thread.start()
        for _ in range(self.restarts):
            served = dict(self.served)
            until(lambda served=served: all(self.served[kind] > served[kind] + 20 for kind in served), "some answers")
            self.assertEqual(proxy.stop(), 0)
            proxy = self.start()
        served = dict(self.served)
        until(lambda: all(self.served[kind] > served[kind] + 20 for kind in served), "some answers")
        self.is_over.set()
        for thread in threads:
            thread.join(60)
        self.assertEqual(self.broken, [])
