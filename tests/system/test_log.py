"""The log: one line for each exchange, with all that one wants to know and nothing that nobody may."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    TWISTD,
    Client,
    Origin,
    Program,
    Proxy,
    chunked,
    clean_environment,
    curl,
    each_request,
    new_folder,
    response,
    run,
    until,
)

KEYS = {
    "time", "id", "client", "method", "url", "status", "outcome", "rules", "request", "response", "bytes",
    "first_byte_ms", "duration_ms",
}  # fmt: skip


class LineTests(SynchronousTestCase):
    def test_an_exchange_is_one_line_with_all_its_fields(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"twelve bytes")))
        proxy = Proxy(self, "rules: [{name: marked, match: {method: POST}, request: {headers: {set: {X-A: b}}}}]")
        self.assertEqual(curl(self, proxy, "-d", "five!", origin.url("/a?b=c")).out, b"twelve bytes")
        (line,) = proxy.recorded(1)
        self.assertEqual(set(line), KEYS)
        self.assertRegex(
            line["time"], r"\A2[0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\.[0-9]{3}Z\Z"
        )
        self.assertRegex(line["client"], r"\A127\.0\.0\.1:[0-9]+\Z")
        self.assertEqual(line["method"], "POST")
        self.assertEqual(line["url"], origin.url("/a?b=c"))
        self.assertEqual(line["status"], 200)
        self.assertEqual(line["outcome"], "forwarded")
        self.assertEqual(line["rules"], ["marked"])
        self.assertEqual(line["request"]["how"], "streamed")
        self.assertTrue(line["request"]["why"])
        self.assertEqual((line["request"]["size"], line["response"]["size"]), (5, 12))
        self.assertEqual(line["bytes"]["origin_in"], len(response(b"twelve bytes")))
        self.assertEqual(line["bytes"]["origin_out"], len(origin.wires[0].heads[0]) + 5)
        self.assertGreater(line["bytes"]["client_in"], 5)
        self.assertGreater(line["bytes"]["client_out"], line["bytes"]["origin_in"])
        self.assertLessEqual(0, line["first_byte_ms"])
        self.assertLessEqual(line["first_byte_ms"], line["duration_ms"])

    def test_each_exchange_has_its_own_line_and_name(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"x")))
        proxy = Proxy(self, "rules: [{match: {host: hello.example}, respond: {text: hi}}]")
        urls = [origin.url("/1"), "http://hello.example/2", origin.url("/3"), "http://127.0.0.1:1/4"]
        curl(self, proxy, *urls)
        proxy.recorded(4)
        proxy.stop()
        lines = proxy.journal()
        self.assertEqual([line["url"] for line in lines], urls)
        self.assertEqual(len({line["id"] for line in lines}), 4)
        outcomes = [line["outcome"] for line in lines]
        self.assertEqual(outcomes, ["forwarded", "answered", "forwarded", "origin-gone"])
        self.assertIn("refused the connection", lines[3]["error"])

    def test_a_line_is_whole_and_by_itself_whatever_was_asked_for(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"x")))
        proxy = Proxy(self)
        paths = ['/"},{"outcome":"forged"', "/%0a%0d", "/{line}%s", "/'" + "x" * 2000]
        for path in paths:
            client = Client(self, proxy)
            client.get(origin, path)
            client.read_head()
        proxy.recorded(len(paths))
        proxy.stop()
        self.assertEqual([line["url"] for line in proxy.journal()], [origin.url(path) for path in paths])
        for line in proxy.lines:
            if '"outcome"' in line:
                json.loads(line)

    def test_how_bodies_went_is_told(self) -> None:
        origin = Origin(self, each_request(lambda asked: chunked(b"x" * 5_000_000)))
        proxy = Proxy(
            self,
            "rules: [{name: held one, match: {path: /held}, response: {stream: false}},"
            " {name: streamed one, match: {path: /streamed}, response: {stream: true}}]",
            "hold=always",
            "stream_large_bodies=10k",
        )
        curl(self, proxy, *[origin.url(path) for path in ("/held", "/streamed", "/let-go")])
        lines = proxy.recorded(3)
        self.assertEqual([line["response"]["how"] for line in lines], ["held", "streamed", "let go"])
        self.assertEqual([line["response"]["size"] for line in lines], [5_000_000] * 3)
        self.assertIn("held one", lines[0]["response"]["why"])
        self.assertIn("streamed one", lines[1]["response"]["why"])
        self.assertTrue(all(line["request"]["how"] == "none" for line in lines))

    def test_what_was_no_request_has_a_line_too(self) -> None:
        proxy = Proxy(self)
        client = Client(self, proxy)
        client.send(b"no request\r\n\r\n")
        client.read_to_end()
        (line,) = proxy.recorded(1)
        self.assertEqual((line["status"], line["outcome"], line["method"]), (400, "malformed", "-"))
        self.assertTrue(line["error"])


class SecretTests(SynchronousTestCase):
    """No secret stands anywhere in what twistd prints, whether all goes well or not."""

    SECRET = "sesame-7f3a"
    FIELDS = (
        "Authorization: Bearer {}",
        "Proxy-Authorization: Basic {}",
        "Cookie: session={}",
        "X-Api-Key: {}",
        "X-Anything: {}",
    )
    QUERY = "/p?access_token={0}&q=kept&API_KEY={0}&password={0}&sig={0}&x-amz-signature={0}&client_secret={0}&key={0}"

    def setUp(self) -> None:
        self.proxy = Proxy(self, "rules: [{match: {host: hello.example}, respond: {text: hi}}]")
        self.fields = [word for field in self.FIELDS for word in ("-H", field.format(self.SECRET))]

    def assert_silent(self, exchanges: int) -> None:
        self.proxy.recorded(exchanges)
        self.proxy.stop()
        self.assertEqual(len(self.proxy.journal()), exchanges)
        self.assertNotIn(self.SECRET, self.proxy.output)
        # It's no secret that something was asked for.
        self.assertIn("/p?", self.proxy.output)

    def test_of_fields_and_queries(self) -> None:
        set_cookie = f"Set-Cookie: session={self.SECRET}".encode()
        origin = Origin(self, each_request(lambda asked: response(b"x", set_cookie)))
        path = self.QUERY.format(self.SECRET)
        ran = curl(self, self.proxy, *self.fields, "-i", origin.url(path))
        self.assertIn(self.SECRET.encode(), ran.out)
        self.assertIn(self.SECRET.encode(), origin.wires[0].heads[0])
        curl(self, self.proxy, *self.fields, f"http://hello.example{path}")
        curl(self, self.proxy, *self.fields, f"http://127.0.0.1:1{path}")
        self.assert_silent(3)
        self.assertEqual(len(re.findall(r"q=kept", self.proxy.output)), 3)

    def test_of_a_url_with_a_name_and_a_password(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"x")))
        client = Client(self, self.proxy)
        client.send(
            f"GET http://me:{self.SECRET}@{origin.netloc}/p? HTTP/1.1\r\nHost: {origin.netloc}\r\n\r\n".encode()
        )
        client.read_head()
        self.assert_silent(1)

    def test_of_requests_that_are_malformed(self) -> None:
        path = self.QUERY.format(self.SECRET)
        bad = (
            f"GET http://x.example{path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            f"GET {path} HTTP/1.1\r\nHost: x.example\r\n\r\n",
            f"GET http://x.example{path} HTTP/1.1\r\nAuthorization : {self.SECRET}\r\nHost: x.example\r\n\r\n",
            f"CONNECT {path} HTTP/1.1\r\nHost: x.example\r\n\r\n",
            f"POST http://x.example{path} HTTP/1.1\r\nCookie: {self.SECRET}\r\nContent-Length: x\r\n\r\n",
        )
        for request in bad:
            client = Client(self, self.proxy)
            client.send(request.encode())
            self.assertRegex(client.read_head(), rb"\AHTTP/1\.1 [45]")
        curl(self, self.proxy, f"http://hello.example{path}")
        self.assert_silent(len(bad) + 1)

    def test_of_a_response_that_is_malformed(self) -> None:
        answer = f"HTTP/1.1 200 OK\r\nSet-Cookie : {self.SECRET}\r\n\r\n".encode()
        origin = Origin(self, each_request(lambda asked: answer))
        curl(self, self.proxy, *self.fields, origin.url(self.QUERY.format(self.SECRET)))
        (line,) = self.proxy.recorded(1)
        self.assertEqual((line["outcome"], line["status"]), ("malformed", 502))
        self.assert_silent(1)


class FormTests(SynchronousTestCase):
    SCRIPT = (
        "import logging, warnings\n"
        "print('printed on loading')\n"
        "warnings.warn('warned on loading')\n"
        "logging.getLogger('mine').warning('logged on loading')\n"
        "def request(flow):\n    print('printed')\n    warnings.warn('warned')\n    1 / 0\n"
    )

    def test_in_json_every_line_is_an_object_from_the_first_to_the_last(self) -> None:
        folder = new_folder(self)
        (folder / "s.py").write_text(self.SCRIPT)
        rules = "scripts: [s.py]\nlog: {format: json}\nrules: [{match: {host: a.example}, respond: {text: hi}}]\n"
        proxy = Proxy(self, rules, folder=folder)
        curl(self, proxy, "http://a.example/", "http://127.0.0.1:1/")
        proxy.recorded(2)
        proxy.stop()
        found = [json.loads(line) for line in proxy.lines]
        exchanges = [each for each in found if "outcome" in each]
        self.assertEqual([set(each) for each in exchanges], [KEYS, KEYS | {"error"}])
        said = [each for each in found if "outcome" not in each]
        for each in said:
            self.assertLessEqual({"time", "level", "from", "text"}, set(each))
        text = "\n".join(each["text"] for each in said)
        for words in (
            *("printed on loading", "warned on loading", "logged on loading", "printed", "warned", "ZeroDivisionError"),
            *("starting up", "listening on", "Main loop terminated", "Server Shut Down"),
        ):
            self.assertIn(words, text)
        self.assertIn(("stdout", "printed on loading"), [(each["from"], each["text"]) for each in said])

    def test_in_json_what_keeps_it_from_starting_is_no_other_line_on_standard_output(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            folder = new_folder(self)
            (folder / "c.yaml").write_text(f"listen: tcp:{taken.getsockname()[1]}:interface=127.0.0.1\nadmin: false\n")
            more = ("--set", "log.format=json")
            ran = run(self, TWISTD, "-n", "--pidfile=", "streamproxy", "-c", "c.yaml", *more, folder=folder)
        self.assertEqual(ran.status, 1)
        self.assertIn("Address already in use", ran.out.decode() + ran.err)
        for line in ran.out.splitlines():
            json.loads(line)

    def test_as_text_an_exchange_is_a_line_that_can_not_be_forged(self) -> None:
        proxy = Proxy(self, "rules: [{name: hi, match: {host: a.example}, respond: {text: hi}}]", "log.format=text")
        curl(self, proxy, "http://a.example/?%0aforged&token=x")
        proxy.wait_for(lambda lines: any("http://a.example" in line for line in lines), "the line")
        proxy.stop()
        (line,) = [line for line in proxy.lines if "http://a.example" in line]
        self.assertRegex(
            line.rstrip("\n"),
            r"\A[0-9TZ:.-]{24} 127\.0\.0\.1:[0-9]+ GET http://a\.example/\?%0aforged&token=\*\*\* 200 answered"
            r" [0-9.]+ms request=none/0 response=held/2 rules=\[hi\]\Z",
        )


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.path = self.folder / "the.log"

    def ask(self, proxy: Proxy, path: str) -> None:
        curl(self, proxy, f"http://a.example{path}")

    def wait_for(self, path: Path, words: str) -> None:
        until(lambda: path.exists() and words in path.read_text(), f"{words} in {path}")

    def proxy(self, *overrides: str) -> Proxy:
        """One that logs to the file; its port is read there."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        rules = "rules: [{match: {host: a.example}, respond: {text: hi}}]"
        listen = f"listen=tcp:{port}:interface=127.0.0.1"
        made = FileLogged(self, rules, self.folder, listen, f"log.file={self.path}", "admin=false", *overrides)
        self.wait_for(self.path, "listening on")
        made.port, made.url = port, f"http://127.0.0.1:{port}"
        return made

    def test_it_is_followed_through_rotations_by_name_and_by_signal(self) -> None:
        proxy = self.proxy()
        self.ask(proxy, "/1")
        self.wait_for(self.path, "/1")
        first, second = self.path.with_suffix(".1"), self.path.with_suffix(".2")
        self.path.rename(first)
        os.kill(proxy.pid, signal.SIGUSR1)
        until(self.path.exists, "the new file")
        self.ask(proxy, "/2")
        self.wait_for(self.path, "/2")
        self.path.rename(second)
        time.sleep(1.1)
        self.ask(proxy, "/3")
        self.wait_for(self.path, "/3")
        # Copied and emptied.
        os.truncate(self.path, 0)
        self.ask(proxy, "/4")
        self.wait_for(self.path, "/4")
        self.assertNotIn("/3", self.path.read_text())
        self.assertNotIn("\0", self.path.read_text())
        self.assertEqual(proxy.output, "")

    def test_a_file_that_can_not_be_opened_keeps_it_from_starting_with_a_clear_line(self) -> None:
        config = self.folder / "c.yaml"
        config.write_text("listen: tcp:0:interface=127.0.0.1\nadmin: false\nlog: {file: /nowhere/the.log}\n")
        for arguments in (["-n", "--pidfile="], [f"--pidfile={self.folder}/pid"]):
            ran = run(self, TWISTD, *arguments, "streamproxy", "-c", config, folder=self.folder)
            words = "streamproxy: the log can't be opened: /nowhere/the.log: No such file or directory\n"
            self.assertEqual((ran.status, ran.out, ran.err), (1, b"", words))

    def test_a_full_disk_stops_nothing(self) -> None:
        if not os.path.exists("/dev/full"):
            raise SkipTest("needs /dev/full")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        listen = f"listen=tcp:{port}:interface=127.0.0.1"
        rules = "rules: [{match: {host: a.example}, respond: {text: hi}}]"
        made = FileLogged(self, rules, self.folder, listen, "log.file=/dev/full", "admin=false")
        made.port, made.url = port, f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        until(answers, "the listener")
        for _ in range(3):
            self.assertEqual(curl(self, made, "http://a.example/").out, b"hi")
            time.sleep(0.15)
        self.assertIn(made.stop(), (0, -signal.SIGTERM))

    def test_twistds_own_option_wins(self) -> None:
        other = self.folder / "twistds.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = self.folder / "c.yaml"
        config.write_text(
            f"listen: tcp:{port}:interface=127.0.0.1\nadmin: false\nlog: {{file: {self.path}, format: json}}\n"
        )
        command = [TWISTD, "-n", "--pidfile=", f"--logfile={other}", "streamproxy", "-c", config]
        program = Program(self, command, self.folder, env=clean_environment(self.folder))
        self.wait_for(other, "listening on")
        program.stop()
        self.assertFalse(self.path.exists())
        for line in other.read_text().splitlines():
            json.loads(line)


class FileLogged(Program):
    """A proxy whose log goes to a file."""

    def __init__(self, case: SynchronousTestCase, rules: str, folder: Path, *overrides: str) -> None:
        config = folder / "rules.yaml"
        config.write_text(rules)
        sets = [word for override in overrides for word in ("--set", override)]
        command = [TWISTD, "-n", "--pidfile=", "streamproxy", "-c", config, *sets]
        super().__init__(case, command, folder, env=clean_environment(folder))
