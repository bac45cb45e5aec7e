"""SIGHUP and SIGTERM in bad moments: reloads that fail late, scripts that don't end, names that aren't found."""

from __future__ import annotations

import signal
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import curl, new_folder
from tests.system.supervised import Daemon, NotifySocket, free_port, listening_socket

# Answers with what its option says.
SCRIPT = """
from streamproxy.scripts import ctx, http

def load(loader):
    loader.add_option("word", str, "{0}", "what is answered")

def requestheaders(flow):
    flow.response = http.Response.make(200, ctx.options.word)
"""
ENDLESS = "\ndef done():\n    while True:\n        pass\n"
HANGS = """
import socket, time
found = socket.getaddrinfo

def getaddrinfo(name, *arguments, **more):
    if name == "hangs.example":
        time.sleep(600)
    return found(name, *arguments, **more)

socket.getaddrinfo = getaddrinfo
"""


class TroubleCase(SynchronousTestCase):
    def start(self, script: str, more: str = "", **environment: str) -> None:
        self.folder = new_folder(self)
        self.write(script)
        self.port = free_port()
        self.daemon = Daemon(self, self.config(more=more), self.folder, environment=environment)

    def write(self, script: str) -> None:
        (self.folder / "script.py").write_text(script)

    def config(self, *ports: int, more: str = "") -> str:
        listen = ", ".join(f"'tcp:{port}:interface=127.0.0.1'" for port in (self.port, *ports))
        return f"listen: [{listen}]\nadmin: false\nscripts: [script.py]\n{more}"

    def answer(self, url: str = "http://hello.example/") -> bytes:
        return curl(self, self.daemon, url).out  # type: ignore[arg-type]


class FailedReloadTests(TroubleCase):
    def test_options_of_the_scripts_in_force_stay(self) -> None:
        self.start(SCRIPT.format("first"))
        taken = listening_socket(self)
        self.write(SCRIPT.format("second"))
        # It is read, and then the listener can't be had.
        self.daemon.refuse(self.config(taken.getsockname()[1]))
        self.assertEqual(self.answer(), b"first")
        self.write(SCRIPT.format("second") + "1 / 0\n")
        self.daemon.refuse(self.config())
        self.assertEqual(self.answer(), b"first")
        self.write(SCRIPT.format("second"))
        self.daemon.reload()
        self.assertEqual(self.answer(), b"second")

    def test_scripts_that_are_not_used_and_do_not_end_are_interrupted(self) -> None:
        notify = NotifySocket(self)
        self.start(SCRIPT.format("first"), "timeouts: {script: 0.5}\n", NOTIFY_SOCKET=notify.name)
        notify.wait_for("READY")
        taken = listening_socket(self)
        self.write(SCRIPT.format("second") + ENDLESS)
        self.daemon.refuse(self.config(taken.getsockname()[1], more="timeouts: {script: 0.5}\n"))
        self.assertIn("the last reload failed", notify.wait_for("READY", 2)["STATUS"])
        self.assertEqual(self.answer(), b"first")


class SignalTests(TroubleCase):
    def test_many_signals_are_few_reloads_and_none_keeps_it_from_stopping(self) -> None:
        self.start("import time\ntime.sleep(1)\n" + SCRIPT.format("first"))
        for _ in range(30):
            self.daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        self.daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0)
        self.assertTrue(1 <= self.daemon.count("reloaded: ") <= 3, self.daemon.output)


class LookUpTests(TroubleCase):
    def test_a_name_that_is_not_found_does_not_keep_the_process(self) -> None:
        self.start(HANGS, "timeouts: {connect: 0.5, drain: 5}\n")
        self.assertIn(b"504", self.answer("http://hangs.example/"))
        # Its thread hangs for ten minutes, which this waits for in vain.
        self.assertEqual(self.daemon.stop(), 0)
