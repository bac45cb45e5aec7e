"""What is said to a service manager, byte for byte, and what is made of the variables that it gives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon import systemd
from streamproxy.daemon.systemd import LONGEST_STATUS, Notifier, inherited_sockets, watchdog_seconds

# Where a test's own descriptors are put that are "handed over".
FIRST = 200


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = str(Path(folder.name, "notify"))
        self.socket = self.bound(self.address)
        self.notifier = Notifier({"NOTIFY_SOCKET": self.address})

    def bound(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.setblocking(False)
        return sock

    def heard(self) -> str:
        return self.socket.recv(65536).decode()

    def test_each_message_is_these_lines(self):
        self.notifier.ready("3 connections")
        self.assertEqual(self.heard(), "READY=1\nSTATUS=3 connections")
        self.notifier.stopping("stopping")
        self.assertEqual(self.heard(), "STOPPING=1\nSTATUS=stopping")
        self.notifier.status("busy")
        self.assertEqual(self.heard(), "STATUS=busy")
        self.notifier.alive()
        self.assertEqual(self.heard(), "WATCHDOG=1")

    def test_a_reload_has_the_time_by_which_systemd_knows_it_for_its_own(self):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notifier.reloading()
        first, second = self.heard().split("\n")
        self.assertEqual(first, "RELOADING=1")
        name, _, value = second.partition("=")
        self.assertEqual(name, "MONOTONIC_USEC")
        self.assertTrue(before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def test_what_it_must_hear_is_told_when_there_is_room_again(self):
        full = 0
        while not self.notifier._unsent:
            self.notifier.alive()
            full += 1
            self.notifier.ready("3 connections")
        self.notifier.alive()
        self.notifier.stopping("stopping")
        heard = []
        for _ in range(2 * full):
            with contextlib.suppress(BlockingIOError):
                heard.append(self.heard())
        self.assertNotIn("STOPPING=1", "".join(heard))
        self.notifier.alive()
        self.assertEqual([self.heard(), self.heard()], ["STOPPING=1\nSTATUS=stopping", "WATCHDOG=1"])

    def test_a_status_is_one_short_line(self):
        self.notifier.status("two\nlines\tand\r\nREADY=1 " + "x" * 1000)
        said = self.heard()
        self.assertTrue(said.startswith("STATUS=two lines and READY=1 xxx"))
        self.assertEqual(said.count("\n"), 0)
        self.assertEqual(len(said), len("STATUS=") + LONGEST_STATUS)

    def test_a_name_that_begins_with_an_at_sign_is_in_the_abstract_namespace(self):
        name = f"streamproxy-test-{os.getpid()}"
        self.socket = self.bound(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).alive()
        self.assertEqual(self.heard(), "WATCHDOG=1")

    def test_without_anybody_to_tell_nothing_is_told(self):
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "relative"}):
            notifier = Notifier(environ)
            self.assertFalse(notifier.is_heard)
            notifier.ready("")
            notifier.alive()

    def test_who_does_not_listen_any_more_or_is_busy_is_no_reason_to_stop(self):
        for _ in range(1000):
            self.notifier.alive()
        self.socket.close()
        self.notifier.alive()
        os.unlink(self.address)
        self.notifier.stopping("")


class WatchdogTests(SynchronousTestCase):
    def test_it_is_told_in_microseconds(self):
        self.assertEqual(watchdog_seconds({"WATCHDOG_USEC": "30000000"}), 30.0)

    def test_it_is_for_the_process_that_is_named(self):
        ours, others = str(os.getpid()), str(os.getpid() + 1)
        self.assertEqual(watchdog_seconds({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": ours}), 2.0)
        self.assertIsNone(watchdog_seconds({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": others}))

    def test_without_it_and_where_it_is_nonsense_there_is_none(self):
        self.assertIsNone(watchdog_seconds({}))
        for value in ("", "0", "-1", "1.5", "soon", "1e6", "²"):
            self.assertIsNone(watchdog_seconds({"WATCHDOG_USEC": value}), value)


class InheritedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(systemd, "FIRST_DESCRIPTOR", FIRST)
        self.given = 0

    def give(self, kind: int = socket.AF_INET, type: int = socket.SOCK_STREAM, listens: bool = True) -> int:
        """Another descriptor that is handed over, next to the last."""
        with socket.socket(kind, type) as made:
            if kind == socket.AF_INET6:
                made.bind(("::1", 0))
            elif kind == socket.AF_INET:
                made.bind(("127.0.0.1", 0))
            else:
                made.bind(f"\0streamproxy-test-{os.getpid()}-{self.given}")
            if listens:
                made.listen()
            number = fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, FIRST + self.given)
        self.assertEqual(number, FIRST + self.given)
        os.set_inheritable(number, True)
        self.addCleanup(os.close, number)
        self.given += 1
        return number

    def found(self, names: str, **environ: str) -> dict[str, list[tuple[int, socket.AddressFamily]]]:
        return {name: [tuple(each) for each in them] for name, them in self.inherited(names, **environ).items()}

    def inherited(self, names: str, **environ: str):
        return inherited_sockets({"LISTEN_FDNAMES": names, **environ})

    def test_each_has_its_name_and_its_family(self):
        first, second, third = self.give(), self.give(socket.AF_INET6), self.give(socket.AF_UNIX)
        self.assertEqual(
            self.found("proxy:admin:other"),
            {
                "proxy": [(first, socket.AF_INET)],
                "admin": [(second, socket.AF_INET6)],
                "other": [(third, socket.AF_UNIX)],
            },
        )

    def test_several_may_have_one_name(self):
        first, second, third = (self.give() for _ in range(3))
        found = self.found("proxy:admin:proxy")
        self.assertEqual(found["proxy"], [(first, socket.AF_INET), (third, socket.AF_INET)])
        self.assertEqual(found["admin"], [(second, socket.AF_INET)])

    def test_what_this_process_starts_does_not_get_them_and_accepting_does_not_wait(self):
        number = self.give()
        os.set_blocking(number, True)
        self.found("proxy")
        self.assertFalse(os.get_inheritable(number))
        self.assertFalse(os.get_blocking(number))

    def test_what_is_no_stream_socket_that_listens_is_left_out(self):
        self.give(listens=False)
        self.give(type=socket.SOCK_DGRAM, listens=False)
        last = self.give()
        # Behind it there is nothing at all.
        self.assertEqual(self.found("one:two:three:four"), {"three": [(last, socket.AF_INET)]})

    def test_they_are_for_the_process_that_is_named(self):
        self.give()
        self.assertEqual(self.found("proxy", LISTEN_PID=str(os.getpid() + 1)), {})
        self.assertEqual(list(self.found("proxy", LISTEN_PID=str(os.getpid()))), ["proxy"])

    def test_the_variables_are_taken_away_whoever_they_were_for(self):
        for pid in (os.getpid(), os.getpid() + 1):
            environ = {"LISTEN_FDNAMES": "a", "LISTEN_PID": str(pid), "LISTEN_FDS": "1", "HOME": "/"}
            inherited_sockets(environ)
            self.assertEqual(environ, {"HOME": "/"})

    def test_without_names_there_are_none(self):
        self.assertEqual(inherited_sockets({"LISTEN_FDS": "1"}), {})
