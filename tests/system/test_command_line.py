"""What `twistd streamproxy` makes of its command line and its configuration, before it proxies anything."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import TWISTD, WAIT, Client, Origin, Proxy, Ran, curl, new_folder, response, run, until


def _gone(pid: int) -> bool:
    """Whether there is no such process, or only what is left of one that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class CommandLineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.config = self.folder / "rules.yaml"

    def twistd(self, *arguments: str | Path) -> Ran:
        return run(self, TWISTD, *arguments, folder=self.folder)

    def assert_errors(self, ran: Ran, *lines: str) -> None:
        """Exactly these lines are printed, as errors, and the exit status is 1."""
        self.assertEqual(ran.err.splitlines(), list(lines))
        self.assertEqual(ran.out, b"")
        self.assertEqual(ran.status, 1)


class HelpTests(CommandLineCase):
    def test_twistd_lists_streamproxy(self) -> None:
        ran = self.twistd("--help")
        self.assertEqual(ran.status, 0)
        self.assertRegex(ran.out, rb"(?m)^ +streamproxy +\S")

    def test_help_tells_of_each_option(self) -> None:
        ran = self.twistd("streamproxy", "--help")
        self.assertEqual(ran.status, 0)
        for option in (b"--config=", b"--set=", b"--check"):
            self.assertIn(option, ran.out)

    def test_an_unknown_option_is_an_error(self) -> None:
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "--confg", "x")
        self.assertEqual(ran.status, 1)
        self.assertIn(b"confg", ran.out)
        self.assertNotIn(b"Traceback", ran.out + ran.err.encode())

    def test_an_argument_too_many_is_an_error(self) -> None:
        self.config.write_text("")
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml", "more.yaml")
        self.assertEqual(ran.status, 1)
        self.assertIn(b"more.yaml", ran.out + ran.err.encode())


class BadConfigurationTests(CommandLineCase):
    """A line for each error, exit status 1, and nothing else; whether it was to start or only to check."""

    def assert_refused(self, *lines: str, arguments: tuple[str, ...] = ("-c", "rules.yaml")) -> None:
        self.assert_errors(self.twistd("-n", "--pidfile=", "streamproxy", *arguments), *lines)
        self.assert_errors(self.twistd("-n", "--pidfile=", "streamproxy", *arguments, "--check"), *lines)

    def test_no_configuration(self) -> None:
        self.assert_refused("streamproxy: no configuration: expected -c FILE", arguments=())

    def test_a_file_that_is_not_there(self) -> None:
        self.assert_refused("rules.yaml: can't be read: No such file or directory")

    def test_a_folder(self) -> None:
        self.assert_refused("/: can't be read: Is a directory", arguments=("-c", "/"))

    def test_text_that_is_not_yaml(self) -> None:
        self.config.write_text("listen: tcp:0\nrules: [\n  - {}\n")
        ran = self.twistd("streamproxy", "-c", "rules.yaml", "--check")
        self.assertEqual((ran.status, ran.out), (1, b""))
        self.assertRegex(ran.err, r"\Arules\.yaml:[34]:[0-9]+: [^\n]+\n\Z")

    def test_all_errors_are_told_each_at_its_place(self) -> None:
        self.config.write_text(
            "hold: sometimes\n"
            "limits:\n"
            "  hed: 32k\n"
            "rules:\n"
            "  - match: {host: a.example}\n"
            "    block: 200\n"
            "  - match: {hots: b.example}\n"
            "    block: 403\n"
        )
        self.assert_refused(
            "rules.yaml:1:7: hold: expected needed or always, got 'sometimes'",
            "rules.yaml:3:3: limits: unknown key 'hed'; did you mean 'head'?",
            "rules.yaml:6:12: rules[0].block: expected a status from 400 to 599, or true, got 200",
            "rules.yaml:7:13: rules[1].match: unknown key 'hots'; did you mean 'host'?",
        )

    def test_a_key_that_is_given_twice(self) -> None:
        self.config.write_text("hold: always\nhold: needed\n")
        ran = self.twistd("streamproxy", "-c", "rules.yaml", "--check")
        self.assertEqual((ran.status, ran.out), (1, b""))
        self.assertRegex(ran.err, r"\Arules\.yaml:2:1: [^\n]*hold[^\n]*\n\Z")

    def test_a_capability_that_is_not_built_yet(self) -> None:
        self.config.write_text("listen:\n  - {endpoint: 'unix:x', mode: socks5}\n")
        self.assert_refused("rules.yaml:2:26: listen[0].mode: 'mode' is known, but isn't built yet; leave it out")

    def test_a_capability_that_is_not_built_yet_may_stand_at_its_default(self) -> None:
        self.config.write_text("timeouts: {drain: 30}\nscripts: []\naccess: null\nstream_websockets: false\n")
        self.assertEqual(self.twistd("streamproxy", "-c", "rules.yaml", "--check"), (0, b"rules.yaml: in order\n", ""))

    def test_an_endpoint_of_no_known_kind(self) -> None:
        self.config.write_text("listen: tpc:8080\n")
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assertIn("tpc:8080", ran.out.decode() + ran.err)
        self.assertNotIn("Traceback", ran.out.decode() + ran.err)

    def test_an_endpoint_that_twisted_does_not_take_is_told_by_check_too(self) -> None:
        for endpoint in ("tcp6:18487:interface=::1", "tcp:18487:bogus=1", "ssl:18487:privateKey=x.pem"):
            self.config.write_text(f"listen: '{endpoint}'\n")
            for more in (["--check"], []):
                ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml", *more)
                self.assertEqual((ran.status, ran.out), (1, b""))
                self.assertIn("rules.yaml:1:9: listen: expected ", ran.err)
                self.assertIn(endpoint, ran.err)
                self.assertEqual(ran.err.count("\n"), 1, ran.err)

    def test_an_endpoint_that_only_twisted_knows_to_be_wrong_is_told_without_a_traceback(self) -> None:
        self.config.write_text("")
        for endpoint in ("unix:x.sock:bogus=1", "haproxy:tpc:80"):
            ran = self.twistd("streamproxy", "-c", self.config, "--set", f"listen={endpoint}", "--check")
            self.assertEqual((ran.status, ran.out, ran.err.count("\n")), (1, b"", 1), ran.err)
            self.assertIn("listen: expected a Twisted endpoint", ran.err)

    def test_a_socket_that_systemd_does_not_give_is_told_without_a_traceback(self) -> None:
        self.config.write_text("listen: systemd:domain=INET:index=0\nadmin: false\n")
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assertNotIn("Traceback", ran.out.decode() + ran.err)


class SetTests(CommandLineCase):
    def check(self, *overrides: str) -> Ran:
        sets = [word for override in overrides for word in ("--set", override)]
        return self.twistd("streamproxy", "-c", "rules.yaml", "--check", *sets)

    def test_keys_may_be_set_again_and_again(self) -> None:
        self.config.write_text("limits: {head: 64k}\nrules: [{match: {host: a.example}, block: 403}]\n")
        ran = self.check("limits.head=32k", "hold=always", "hold=needed", "timeouts.idle=1.5", "rules.0.block=451")
        self.assertEqual(ran, (0, b"rules.yaml: in order\n", ""))

    def test_what_is_wrong_with_each_is_told(self) -> None:
        self.config.write_text("")
        self.assert_errors(
            self.check(
                "limits.hed=32k",
                "hold=sometimes",
                "hold",
                "listen=[{endpoint: tcp:1, mode: socks5}]",
                "timeouts.idle.x=1",
            ),
            "--set limits.hed=32k: limits: unknown key 'hed'; did you mean 'head'?",
            "--set hold=sometimes: expected needed or always, got 'sometimes'",
            "--set hold: expected KEY=VALUE",
            "--set listen=[{endpoint: tcp:1, mode: socks5}]: listen[0].mode: 'mode' is known,"
            " but isn't built yet; leave it out",
            "--set timeouts.idle.x=1: timeouts.idle: expected a number of seconds above 0, got a mapping",
        )

    def test_the_command_line_wins_over_the_file(self) -> None:
        proxy = Proxy(
            self,
            "rules: [{match: {host: hello.example}, respond: {text: from the file}}]",
            "rules.0.respond.text=from the command line",
        )
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"from the command line")

    def test_the_last_of_two_wins(self) -> None:
        proxy = Proxy(
            self,
            "rules: [{match: {host: hello.example}, respond: {text: x}}]",
            "rules.0.respond.text=first",
            "rules.0.respond.text=last",
        )
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"last")


class ListeningTests(CommandLineCase):
    def setUp(self) -> None:
        super().setUp()
        self.taken = socket.socket()
        self.addCleanup(self.taken.close)
        self.taken.bind(("127.0.0.1", 0))
        self.taken.listen()
        self.endpoint = f"tcp:{self.taken.getsockname()[1]}:interface=127.0.0.1"
        self.words = f"Address already in use: {self.endpoint}"

    def assert_only_words(self, log: str) -> None:
        """The log has the words once, and no traceback."""
        self.assertEqual(log.count(self.words), 1, log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("Unhandled", log)

    def assert_daemon_gave_up(self, log: Path) -> None:
        """The daemon, which outlives the command that started it for a moment, logs the words and nothing worse."""
        until(lambda: self.words in log.read_text(), "the daemon's last words")
        self.assert_only_words(log.read_text())

    def test_a_port_in_use_is_told_in_a_line(self) -> None:
        self.config.write_text(f"listen: {self.endpoint}\nadmin: false\n")
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assert_only_words(ran.out.decode() + ran.err)

    def test_no_listener_stays_open_where_another_cannot_be(self) -> None:
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        self.config.write_text(f"admin: false\nlisten: ['tcp:{port}:interface=127.0.0.1', '{self.endpoint}']\n")
        ran = self.twistd("-n", "--pidfile=", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assert_only_words(ran.out.decode() + ran.err)
        self.assertNotIn("listening on", ran.out.decode())
        log = self.folder / "log"
        ran = self.twistd(f"--pidfile={self.folder}/pid", f"--logfile={log}", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assert_daemon_gave_up(log)
        until(lambda: not _is_open(port), "the end of the first listener")

    def test_a_port_in_use_stops_a_daemon_from_starting(self) -> None:
        self.config.write_text(f"listen: {self.endpoint}\nadmin: false\n")
        pidfile, log = self.folder / "pid", self.folder / "log"
        ran = self.twistd(f"--pidfile={pidfile}", f"--logfile={log}", "streamproxy", "-c", "rules.yaml")
        self.assertEqual(ran.status, 1)
        self.assertEqual(ran.out, b"")
        self.assertIn(self.words, ran.err)
        self.assertNotIn("Traceback", ran.err)
        self.assert_daemon_gave_up(log)
        self.assertFalse(pidfile.exists())

    def test_several_listeners_are_all_open(self) -> None:
        other = "tcp:0:interface=127.0.0.1"
        proxy = Proxy(self, "rules: [{match: {host: hello.example}, respond: {text: hello}}]", f"listen.1={other}")
        proxy.wait_for(lambda lines: sum("listening on" in line for line in lines) == 2, "two listeners")
        for line in proxy.lines:
            if "listening on" in line:
                proxy.port = int(line.rpartition(":")[2])
                client = Client(self, proxy)
                client.send(b"GET http://hello.example/ HTTP/1.1\r\nHost: hello.example\r\n\r\n")
                self.assertEqual(client.read_body(client.read_head()), b"hello")


class StoppingTests(CommandLineCase):
    def test_it_ends_when_it_is_told_to(self) -> None:
        proxy = Proxy(self)
        # Once it has served, it's known to have begun to wait for signals.
        self.assertEqual(curl(self, proxy, "http://127.0.0.1:1/").status, 0)
        # Twisted ends by the very signal, so that whoever started it knows.
        self.assertIn(proxy.stop(), (0, -signal.SIGTERM))
        self.assertIn("Main loop terminated", proxy.output)

    def test_it_ends_while_a_stream_is_under_way(self) -> None:
        origin = Origin(self)
        proxy = Proxy(self)
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        client.read_until(b"abc")
        self.assertIn(proxy.stop(), (0, -signal.SIGTERM))

    def test_a_daemon_starts_serves_and_stops(self) -> None:
        self.config.write_text("admin: false\n")
        pidfile, log = self.folder / "pid", self.folder / "log"
        ran = self.twistd(
            f"--pidfile={pidfile}",
            f"--logfile={log}",
            "streamproxy",
            "-c",
            "rules.yaml",
            "--set",
            "listen=tcp:0:interface=127.0.0.1",
        )
        pid = int(pidfile.read_text()) if pidfile.exists() else None
        if pid is not None:
            self.addCleanup(lambda: _gone(pid) or os.kill(pid, signal.SIGKILL))
        self.assertEqual(ran, (0, b"", ""))
        self.assertIsNotNone(pid)
        until(lambda: "listening on" in log.read_text(), "the daemon's listener")
        line = next(line for line in log.read_text().splitlines() if "listening on" in line)
        origin = Origin(self)
        client = socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2])), WAIT)
        self.addCleanup(client.close)
        client.sendall(f"GET {origin.url()} HTTP/1.1\r\nHost: {origin.netloc}\r\n\r\n".encode())
        wire = origin.accept()
        wire.read_head()
        wire.send(response(b"served"))
        got = b""
        while not got.endswith(b"served"):
            more = client.recv(4096)
            self.assertTrue(more, got)
            got += more
        os.kill(pid, signal.SIGTERM)
        until(lambda: _gone(pid), "the daemon's end")
        self.assertFalse(pidfile.exists())
        text = log.read_text()
        self.assertEqual(text.count('"outcome": "forwarded"'), 1, text)
        self.assertNotIn("Traceback", text)
