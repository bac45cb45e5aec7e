"""When a service manager is told what: at the start, around a reload, at the end, and again and again."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon.supervision import STATUS, Supervision


class SupervisionTests(SynchronousTestCase):
    def begin(self, **environ: str) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        address = str(Path(folder.name, "notify"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.clock = Clock()
        self.status = "idle"
        self.supervision = Supervision({"NOTIFY_SOCKET": address, **environ}, self.clock, lambda: self.status)

    def heard(self) -> list[str]:
        """What was said since the last time, without the time of a reload."""
        messages = []
        while True:
            try:
                lines = self.socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return messages
            messages.append("\n".join(line for line in lines if not line.startswith("MONOTONIC_USEC=")))

    def wait(self, seconds: float) -> list[str]:
        """What is said while `seconds` go by."""
        heard = []
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)
            heard += self.heard()
        return heard

    def test_nothing_is_said_before_it_is_ready(self):
        self.begin(WATCHDOG_USEC="2000000")
        self.assertEqual(self.wait(10), [])
        self.supervision.ready()
        self.assertEqual(self.heard(), ["READY=1\nSTATUS=idle", "WATCHDOG=1"])

    def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(self):
        self.begin(WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid()))
        self.supervision.ready()
        self.heard()
        self.assertEqual(self.wait(10), ["WATCHDOG=1"] * 10)

    def test_one_that_is_patient_is_fed_as_often_as_the_status_is_told(self):
        self.begin(WATCHDOG_USEC="600000000")
        self.supervision.ready()
        self.heard()
        self.assertEqual(self.wait(5 * STATUS), ["WATCHDOG=1"] * 5)

    def test_the_status_is_told_when_it_is_another(self):
        self.begin()
        self.supervision.ready()
        self.heard()
        self.status = "busy"
        self.assertEqual(
            [message for message in self.wait(3 * STATUS) if message != "WATCHDOG=1"],
            ["STATUS=busy"],
        )

    def test_around_a_reload_it_says_that_it_begins_and_how_it_ended(self):
        self.begin()
        self.supervision.ready()
        self.heard()
        self.supervision.reloading()
        self.supervision.reloaded(False)
        self.assertEqual(self.heard(), ["RELOADING=1", "READY=1\nSTATUS=the last reload failed, see the log; idle"])
        self.supervision.reloading()
        self.supervision.reloaded(True)
        self.assertEqual(self.heard(), ["RELOADING=1", "READY=1\nSTATUS=idle"])

    def test_that_a_reload_failed_stands_there_until_one_works(self):
        self.begin()
        self.supervision.ready()
        self.supervision.reloaded(False)
        self.heard()
        self.status = "busy"
        self.assertIn("STATUS=the last reload failed, see the log; busy", self.wait(STATUS + 1))

    def test_while_it_stops_the_watchdog_is_fed(self):
        self.begin(WATCHDOG_USEC="2000000")
        self.supervision.ready()
        self.heard()
        self.supervision.stopping()
        self.assertEqual(self.heard(), ["STOPPING=1\nSTATUS=stopping; idle"])
        self.assertEqual(self.wait(3), ["WATCHDOG=1"] * 3)

    def test_behind_the_end_there_is_nothing(self):
        self.begin(WATCHDOG_USEC="2000000")
        self.supervision.ready()
        self.supervision.stop()
        self.supervision.stop()
        self.heard()
        self.assertEqual(self.wait(10), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_service_manager_no_timer_runs(self):
        clock = Clock()
        supervision = Supervision({"WATCHDOG_USEC": "2000000"}, clock, lambda: "idle")
        supervision.ready()
        supervision.reloading()
        supervision.reloaded(True)
        supervision.stopping()
        supervision.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
