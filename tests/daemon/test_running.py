"""A reload as the service does it, whatever comes of it; what a real process shows of it is in tests/system."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon.running import ProxyService
from streamproxy.settings import ConfigurationError, Settings
from tests.conversation import settings_of
from tests.system.parts import new_folder


class Reactor(Clock):
    """Of a process that has nothing but time."""


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = new_folder(self)
        address = str(Path(folder, "notify"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.read: Settings | Exception = self.settings()
        environ = {"NOTIFY_SOCKET": address}
        self.service = ProxyService(self.settings(), Reactor(), self.lost, self.read_again, environ)
        # No port is opened here.
        self.patch(self.service, "_listen", lambda settings: None)

    def settings(self, text: str = "") -> Settings:
        return settings_of(f"tls: {{intercept: false}}\nadmin: false\n{text}")

    def lost(self, lines: str) -> None:
        raise AssertionError(lines)

    def read_again(self) -> Settings:
        if isinstance(self.read, Exception):
            raise self.read
        return self.read

    def statuses(self) -> list[str]:
        """What the service manager is told behind each reload."""
        found = []
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return found
            if message.startswith("READY=1\n"):
                found.append(message.partition("STATUS=")[2])

    @property
    def is_well(self) -> bool:
        """What the metrics say of the last reload."""
        return bool(self.service._counts.reload_worked)

    def test_what_worked_is_told(self):
        self.read = self.settings("limits: {memory: 5m}")
        self.assertEqual(self.service.reload(), [])
        self.assertEqual(self.service._proxy.memory.limit, 5 << 20)
        self.assertTrue(self.is_well)
        self.assertNotIn("failed", self.statuses()[0])

    def test_what_is_wrong_is_given_line_by_line(self):
        self.read = ConfigurationError(["rules.yaml:1:1: one", "rules.yaml:2:1: two"])
        self.assertEqual(self.service.reload(), ["rules.yaml:1:1: one", "rules.yaml:2:1: two"])
        self.assertFalse(self.is_well)
        self.assertIn("the last reload failed", self.statuses()[0])

    def test_whatever_goes_wrong_inside_is_told_as_well(self):
        def fail(*arguments: object) -> None:
            raise RuntimeError("inside")

        self.patch(self.service._pool, "obey", fail)
        self.assertEqual(self.service.reload(), ["an error inside the proxy"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(self.is_well)
        self.assertIn("the last reload failed", self.statuses()[0])

    def test_there_is_none_while_it_stops(self):
        self.service.running = True
        self.successResultOf(self.service.stopService())
        self.statuses()
        self.assertEqual(self.service.reload(), ["the proxy is stopping"])
        self.assertEqual(self.statuses(), [])

    def test_what_changes_by_a_restart_stays(self) -> None:
        self.read = self.settings("state_dir: /elsewhere\nlog: {format: json}\nlimits: {head: 1k}")
        self.assertEqual(self.service.reload(), [])
        settings = self.service._settings
        self.assertEqual((settings.state_dir, settings.log.form, settings.limits.head), (None, "mixed", 1024))
