"""What systemd is given: units that it takes, and word of how the daemon is. No systemd need be running."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    PROJECT,
    TWISTD,
    Client,
    Origin,
    Program,
    Proxy,
    Wire,
    clean_environment,
    curl,
    each_request,
    needed,
    new_folder,
    response,
    run,
    until,
)
from tests.system.supervised import GET_HELLO, HELLO, NotifySocket, free_port, shimmed

UNITS = ("streamproxy.service", "streamproxy.socket", "streamproxy-admin.socket")
# How often the watchdog is fed is half of this, in microseconds.
WATCHDOG = "200000"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.analyze = needed("systemd-analyze", "systemd")
        self.folder = new_folder(self)
        for unit in UNITS:
            text = (PROJECT / "conf" / unit).read_text()
            # It is looked for, and isn't there before it is installed.
            (self.folder / unit).write_text(text.replace("/opt/streamproxy/bin/twistd", str(TWISTD)))

    def test_systemd_finds_nothing_wrong_with_them(self) -> None:
        ran = run(self, self.analyze, "verify", "--man=no", *(self.folder / unit for unit in UNITS))
        self.assertEqual(ran, (0, b"", ""))

    def test_the_service_is_hardened(self) -> None:
        ran = run(self, self.analyze, "security", "--offline=true", "--no-pager", self.folder / UNITS[0])
        found = re.search(r"Overall exposure level for streamproxy\.service: ([0-9.]+)", ran.out.decode())
        assert found is not None, ran
        self.assertLessEqual(float(found[1]), 2.0)

    def test_the_sockets_have_the_names_by_which_the_service_listens(self) -> None:
        texts = {unit: (PROJECT / "conf" / unit).read_text() for unit in UNITS}
        for unit, option in ((UNITS[1], "listen"), (UNITS[2], "admin")):
            name = re.search(r"(?m)^FileDescriptorName=(.+)$", texts[unit])
            assert name is not None
            self.assertIn(f"--set {option}=systemd:name={name[1]}", texts[UNITS[0]])


class NotifyTests(SynchronousTestCase):
    def test_it_tells_of_its_beginning_its_reloads_and_its_end(self) -> None:
        notify, folder = NotifySocket(self), new_folder(self)
        proxy = Proxy(self, HELLO, folder=folder, twistd=shimmed(), environment={"NOTIFY_SOCKET": notify.name})
        ready = notify.wait_for("READY")
        self.assertEqual(ready["READY"], "1")
        self.assertRegex(ready["STATUS"], "^0 connections")

        def reload(rules: str, number: int) -> str:
            """Read `rules` again; the status when that is over."""
            (folder / "rules.yaml").write_text(rules)
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            proxy.process.send_signal(signal.SIGHUP)
            status = notify.wait_for("READY", number + 1)["STATUS"]
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            # By the clock that systemd has noted the signal's time by.
            self.assertTrue(before <= int(notify.wait_for("RELOADING", number)["MONOTONIC_USEC"]) <= after)
            return status

        self.assertNotIn("failed", reload(HELLO, 1))
        self.assertIn("the last reload failed", reload("rules: [\n", 2))
        self.assertNotIn("failed", reload(HELLO, 3))
        self.assertEqual(proxy.stop(), 0)
        self.assertEqual(notify.words(), ["READY", *("RELOADING", "READY") * 3, "STOPPING"])

    def test_it_is_ready_only_when_it_listens(self) -> None:
        # Whoever connects as soon as it says so is served, however long it took to begin.
        notify, folder = NotifySocket(self, abstract=True), new_folder(self)
        (folder / "slow.py").write_text("import time\ntime.sleep(1)\n")
        (folder / "rules.yaml").write_text("scripts: [slow.py]\nadmin: false\n" + HELLO)
        port = free_port()
        command = [TWISTD, "-n", "--pidfile=", "streamproxy", "-c", "rules.yaml"]
        command += ["--set", f"listen=tcp:{port}:interface=127.0.0.1"]
        daemon = Program(self, command, folder, env={**clean_environment(folder), "NOTIFY_SOCKET": notify.name})
        notify.wait_for("READY")
        with socket.create_connection(("127.0.0.1", port)) as sock:
            wire = Wire(sock)
            wire.send(GET_HELLO)
            self.assertEqual(wire.read_body(wire.read_head()), b"hello")
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(notify.words(), ["READY", "STOPPING"])

    def test_nobody_needs_to_listen(self) -> None:
        gone = {"NOTIFY_SOCKET": str(new_folder(self) / "gone"), "WATCHDOG_USEC": WATCHDOG}
        proxy = Proxy(self, HELLO, twistd=shimmed(), environment=gone)
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")
        self.assertEqual(proxy.stop(), 0)


class WatchdogTests(SynchronousTestCase):
    def start(self, **files: str) -> None:
        self.folder = new_folder(self)
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)
        self.notify = NotifySocket(self)
        environment = {"NOTIFY_SOCKET": self.notify.name, "WATCHDOG_USEC": WATCHDOG}
        rules = HELLO + f"scripts: [{', '.join(f'{name}.py' for name in files)}]\n"
        overrides = ("timeouts.script=60", "timeouts.drain=20")
        self.proxy = Proxy(self, rules, *overrides, folder=self.folder, twistd=shimmed(), environment=environment)
        self.notify.wait_for("READY")

    def beats(self) -> int:
        return len(self.notify.named("WATCHDOG"))

    def test_it_is_not_fed_while_the_reactor_is_blocked(self) -> None:
        # Opening a FIFO waits, in the kernel, for who opens its other end.
        self.start(blocking="def request(flow):\n    open('blocked', 'w').close()\n    open('fifo').close()\n")
        os.mkfifo(self.folder / "fifo")
        origin = Origin(self, each_request(lambda asked: response(b"served")))
        client = Client(self, self.proxy)
        client.get(origin)
        until((self.folder / "blocked").exists, "that the hook blocks")
        before = self.beats()
        time.sleep(1)
        self.assertLessEqual(self.beats() - before, 1)
        fifo = os.open(self.folder / "fifo", os.O_WRONLY)
        os.close(fifo)
        self.assertEqual(client.read_body(client.read_head()), b"served")
        self.notify.wait_for("WATCHDOG", self.beats() + 2)

    def test_it_is_fed_again_and_again_up_to_the_end(self) -> None:
        self.start()
        self.notify.wait_for("WATCHDOG", 10)
        self.assertEqual({message["WATCHDOG"] for message in self.notify.named("WATCHDOG")}, {"1"})
        origin = Origin(self)
        client = Client(self, self.proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        self.proxy.process.send_signal(signal.SIGTERM)
        self.notify.wait_for("STOPPING")
        before = self.beats()
        self.notify.wait_for("WATCHDOG", before + 3)
        wire.send(response(b"served"))
        self.assertEqual(client.read_body(client.read_head()), b"served")
        self.assertEqual(self.proxy.wait(), 0)

    def test_it_is_not_fed_for_another_process(self) -> None:
        notify = NotifySocket(self)
        environment = {"NOTIFY_SOCKET": notify.name, "WATCHDOG_USEC": WATCHDOG, "WATCHDOG_PID": str(os.getpid())}
        proxy = Proxy(self, HELLO, environment=environment)
        notify.wait_for("READY")
        time.sleep(1)
        self.assertEqual(proxy.stop(), 0)
        self.assertLessEqual(len(notify.named("WATCHDOG")), 1)
