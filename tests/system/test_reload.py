"""SIGHUP: rules and scripts are read again; what runs keeps what it began with, and what is wrong changes nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    TWISTD,
    Client,
    Origin,
    Proxy,
    Wire,
    chunk,
    curl,
    new_folder,
    response,
    run,
    until,
)

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def respond(text: str) -> str:
    return f"rules: [{{match: {{host: hello.example}}, respond: {{text: {text}}}}}]\n"


class ReloadCase(SynchronousTestCase):
    def start(self, rules: str, **files: str) -> None:
        self.folder = new_folder(self)
        self.write(**files)
        self.proxy = Proxy(self, rules, folder=self.folder)

    def write(self, **files: str) -> None:
        """Write `NAME.py` for each."""
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)

    def reload(self, rules: str | None = None, outcome: str = "] reloaded: ") -> None:
        """Write the rules anew, tell the proxy, and wait until its log has what came of it once more."""
        if rules is not None:
            (self.folder / "rules.yaml").write_text(rules)
        before = self.proxy.output.count(outcome)
        os.kill(self.proxy.pid, signal.SIGHUP)
        self.proxy.wait_for(lambda lines: "\n".join(lines).count(outcome) > before, outcome)

    def refuse(self, rules: str | None = None) -> None:
        """`reload`, for what can't be read."""
        self.reload(rules, "not reloaded, the old configuration stays:")

    def hello(self) -> bytes:
        return curl(self, self.proxy, "http://hello.example/").out

    def stream(self, origin: Origin) -> tuple[Client, Wire]:
        """A stream of events that is under way: its client, and the origin's side of it."""
        client = Client(self, self.proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(EVENTS)
        client.read_head()
        return client, wire

    def assert_passes(self, stream: tuple[Client, Wire], sent: bytes, got: bytes) -> None:
        client, wire = stream
        wire.send(chunk(sent))
        client.expect(chunk(got))


class RulesTests(ReloadCase):
    def test_new_rules_hold_from_then_on(self) -> None:
        self.start(respond("first"))
        self.assertEqual(self.hello(), b"first")
        self.reload(respond("second"))
        self.assertEqual(self.hello(), b"second")

    def test_a_connection_that_is_open_meets_them_at_its_next_request(self) -> None:
        self.start(respond("first"))
        client = Client(self, self.proxy)
        for text in (b"first", b"second"):
            client.send(b"GET http://hello.example/ HTTP/1.1\r\nHost: hello.example\r\n\r\n")
            self.assertEqual(client.read_body(client.read_head()), text)
            self.reload(respond("second"))

    def test_a_stream_that_runs_keeps_what_it_began_with(self) -> None:
        rules = "rules: [{{match: {{host: 127.0.0.1}}, response: {{replace: [{{find: foo, with: {}}}]}}}}]"
        self.start(rules.format("one"))
        origin = Origin(self)
        old = self.stream(origin)
        self.assert_passes(old, b"a foo", b"a one")
        self.reload(rules.format("two"))
        new = self.stream(origin)
        for _ in range(2):
            self.assert_passes(new, b"a foo", b"a two")
            self.assert_passes(old, b"a foo", b"a one")

    def test_what_is_wrong_leaves_the_old_rules_and_is_told_with_its_place(self) -> None:
        self.start(respond("first"))
        for rules, words in (
            ("rules: [\n", r"rules\.yaml:2:1: "),
            ("hold: sometimes\n", r"rules\.yaml:1:7: hold: expected needed or always, got 'sometimes'"),
            ("rules:\n  - match: {hots: a}\n", r"rules\.yaml:2:13: rules\[0\]\.match: unknown key 'hots'"),
        ):
            self.refuse(rules)
            self.assertRegex(self.proxy.output, rf"(?m)^\s*\S*{words}")
            self.assertEqual(self.hello(), b"first")
        (self.folder / "rules.yaml").unlink()
        self.refuse()
        self.assertEqual(self.hello(), b"first")
        self.reload(respond("second"))
        self.assertEqual(self.hello(), b"second")

    def test_many_signals_at_once_do_no_harm(self) -> None:
        self.start(respond("first"))
        (self.folder / "rules.yaml").write_text(respond("last"))
        for _ in range(30):
            os.kill(self.proxy.pid, signal.SIGHUP)
        self.reload()
        self.assertEqual(self.hello(), b"last")

    def test_what_needs_a_restart_is_told(self) -> None:
        self.start(respond("first"))
        self.reload("state_dir: /elsewhere\n" + respond("second"), "state_dir and log stay as they were")
        self.assertEqual(self.hello(), b"second")


class ScriptsTests(ReloadCase):
    def answer(self, text: str) -> str:
        """A script that answers each request with a text, which is an expression."""
        return (
            "from streamproxy.scripts import http\n"
            "from words import *\n"
            "def request(flow):\n"
            f"    flow.response = http.Response.make(200, {text})\n"
        )

    def test_scripts_and_what_they_import_are_read_again(self) -> None:
        self.start("scripts: [script.py]", script=self.answer("'first ' + WORD"), words="WORD = 'one'\n")
        self.assertEqual(self.hello(), b"first one")
        self.write(script=self.answer("'second ' + WORD"))
        self.reload()
        self.assertEqual(self.hello(), b"second one")
        self.write(words="WORD = 'two'\n")
        self.reload()
        self.assertEqual(self.hello(), b"second two")

    def test_a_script_that_does_not_import_leaves_the_old_one(self) -> None:
        self.start("scripts: [script.py]", script=self.answer("'first'"), words="")
        self.assertEqual(self.hello(), b"first")
        for broken, words in (
            ("def request(flow:\n", "script.py:1: SyntaxError: "),
            ("import logging\nimport no_such_module\n", "script.py:2: ModuleNotFoundError: "),
            ("1 / 0\n", "script.py:1: ZeroDivisionError: "),
        ):
            self.write(script=broken)
            self.refuse()
            self.assertRegex(self.proxy.output, rf"rules\.yaml:1:10: scripts: {words}")
            self.assertEqual(self.hello(), b"first")
        (self.folder / "script.py").unlink()
        self.refuse()
        self.assertEqual(self.hello(), b"first")
        self.write(script=self.answer("'second'"))
        self.reload()
        self.assertEqual(self.hello(), b"second")

    def test_the_old_are_told_that_they_are_done_and_the_new_that_they_run(self) -> None:
        script = "def running():\n    print('{0} runs')\ndef done():\n    print('{0} is done')\n"
        self.start("scripts: [script.py]", script=script.format("first"))
        self.write(script=script.format("second"))
        self.reload()
        self.proxy.stop()
        told = [line.rpartition("] ")[2] for line in self.proxy.lines if line.endswith((" runs", " is done"))]
        self.assertEqual(told, ["first runs", "first is done", "second runs", "second is done"])

    def test_a_stream_that_runs_keeps_the_functions_it_began_with(self) -> None:
        script = (
            "def modify(chunks):\n"
            "    for chunk in chunks:\n"
            "        yield chunk.replace(b'foo', b'{0}')\n"
            "def responseheaders(flow):\n"
            "    flow.response.stream = modify\n"
            "def on_event(event):\n"
            "    event.data += '{0}'\n"
        )
        rules = "scripts: [script.py]\nrules: [{match: {host: 127.0.0.1}, response: {events: 'script:on_event'}}]"
        self.start(rules, script=script.format("one"))
        origin = Origin(self)
        old = self.stream(origin)
        self.assert_passes(old, b"data: foo\n\n", b"data: oneone\n\n")
        self.write(script=script.format("two"))
        self.reload()
        new = self.stream(origin)
        for _ in range(2):
            self.assert_passes(new, b"data: foo\n\n", b"data: twotwo\n\n")
            self.assert_passes(old, b"data: foo\n\n", b"data: oneone\n\n")

    def test_an_exchange_that_runs_keeps_its_hooks(self) -> None:
        script = "def response(flow):\n    flow.response.content += b' {0}'\n"
        self.start("scripts: [script.py]", script=script.format("one"))
        origin = Origin(self)
        client = Client(self, self.proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo")
        self.write(script=script.format("two"))
        self.reload()
        wire.send(b"dy")
        self.assertEqual(client.read_body(client.read_head()), b"body one")
        client.get(origin)
        # On another connection: one from before has proved nothing to the new settings.
        wire = origin.accept()
        wire.read_head()
        wire.send(response(b"body"))
        self.assertEqual(client.read_body(client.read_head()), b"body two")


class DaemonTests(SynchronousTestCase):
    """twistd without -n, told of everything by relative paths."""

    def test_a_daemon_reads_again_what_it_was_told_by_relative_paths(self) -> None:
        folder = new_folder(self)
        (folder / "conf" / "scripts").mkdir(parents=True)
        (folder / "static").mkdir()
        (folder / "static" / "page").write_text("a page")
        rules, script = folder / "conf" / "rules.yaml", folder / "conf" / "scripts" / "script.py"
        rules.write_text(
            "scripts: [scripts/script.py]\n"
            "admin: false\n"
            "rules: [{match: {host: files.example, path: '/*'}, respond: {file: ./static}}]\n"
        )
        hook = (
            "from streamproxy.scripts import http\n"
            "def requestheaders(flow):\n"
            "    if flow.request.host == 'hello.example':\n"
            "        flow.response = http.Response.make(200, '{0}')\n"
        )
        script.write_text(hook.format("first"))
        ran = run(
            self,
            TWISTD,
            "--pidfile=pid",
            "--logfile=log",
            "streamproxy",
            "-c",
            "conf/rules.yaml",
            "--set",
            "listen=tcp:0:interface=127.0.0.1",
            folder=folder,
        )
        self.assertEqual(ran, (0, b"", ""))
        log = folder / "log"
        until(lambda: (folder / "pid").exists() and "listening on" in log.read_text(), "the daemon's listener")
        pid = int((folder / "pid").read_text())
        self.addCleanup(self.end, pid)
        line = next(line for line in log.read_text().splitlines() if "listening on" in line)
        url = f"http://127.0.0.1:{line.rpartition(':')[2]}"
        self.assertEqual(self.ask(url, "http://hello.example/"), b"first")
        self.assertEqual(self.ask(url, "http://files.example/page"), b"a page")

        script.write_text(hook.format("second"))
        os.kill(pid, signal.SIGHUP)
        until(lambda: "reloaded: 1 rules" in log.read_text(), "what it reads again")
        self.assertEqual(self.ask(url, "http://hello.example/"), b"second")
        self.assertEqual(self.ask(url, "http://files.example/page"), b"a page")

        script.write_text("def request(flow:\n")
        os.kill(pid, signal.SIGHUP)
        until(lambda: "script.py:1: SyntaxError" in log.read_text(), "why it can't read it again")
        self.assertEqual(self.ask(url, "http://hello.example/"), b"second")
        self.assertNotIn("Traceback", log.read_text())

    def ask(self, proxy: str, url: str) -> bytes:
        return run(self, "curl", "-q", "-sS", "--max-time", "30", "--proxy", proxy, url).out

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        status = Path(f"/proc/{pid}/status")
        until(lambda: not status.exists() or "State:\tZ" in status.read_text(), "the daemon's end")
