"""Scripts in a real daemon: what they may do to their own flow, and what they can't do to others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import TWISTD, Client, Origin, Proxy, Ran, chunk, each_request, new_folder, response, run

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class ScriptCase(SynchronousTestCase):
    def start(self, script: str, *overrides: str, rules: str = "") -> Proxy:
        """A proxy with a `script`, which is script.py, and `rules`."""
        folder = new_folder(self)
        (folder / "script.py").write_text(script)
        self.proxy = Proxy(self, f"scripts: [script.py]\n{rules}", *overrides, folder=folder)
        self.origin = Origin(self, each_request(lambda asked: response(asked.line)))
        self.client = Client(self, self.proxy)
        return self.proxy

    def ask(self, path: str, client: Client | None = None) -> tuple[bytes, bytes]:
        """The status line and the body of what is answered."""
        client = client or self.client
        client.get(self.origin, path)
        head = client.read_head()
        return head.partition(b"\r\n")[0], client.read_body(head)

    def wait_for_line(self, *words: str) -> None:
        """Wait for a line on the log that has all of `words`."""
        self.proxy.wait_for(
            lambda lines: any(all(word in line for word in words) for line in lines), f"a line with {words}"
        )


class HangingTests(ScriptCase):
    """A script that doesn't end: another client's stream goes on before and after."""

    def assert_harms_only_itself(self, hook: str, body: str, line: int = 4) -> None:
        status = b"HTTP/1.1 502 Bad Gateway"
        script = f"import time\ndef {hook}(flow):\n    if flow.request.path == '/hang':\n        {body}\n"
        self.start(script, "timeouts.script=0.5")
        streaming, origin = Client(self, self.proxy), Origin(self)
        streaming.get(origin, "/stream")
        wire = origin.accept()
        wire.read_head()
        wire.send(EVENTS, chunk(b"data: before\n\n"))
        streaming.read_head()
        streaming.expect(chunk(b"data: before\n\n"))
        answered, words = self.ask("/hang")
        self.assertEqual(answered, status)
        self.assertIn(b"didn't end, and was interrupted after 0.5 s (line %d)" % line, words)
        wire.send(chunk(b"data: after\n\n"), b"0\r\n\r\n")
        streaming.expect(chunk(b"data: after\n\n") + b"0\r\n\r\n")
        # And once more, in a connection of its own.
        self.assertEqual(self.ask("/hang", Client(self, self.proxy))[0], status)
        self.assertEqual(self.ask("/", Client(self, self.proxy))[1], b"GET / HTTP/1.1")
        outcomes = sorted((each["url"].rpartition("/")[2], each["outcome"]) for each in self.proxy.recorded(4))
        self.assertEqual(outcomes, [("", "forwarded"), ("hang", "failed"), ("hang", "failed"), ("stream", "forwarded")])

    def test_a_hook_on_requests_that_never_ends(self) -> None:
        self.assert_harms_only_itself("requestheaders", "while True: pass")

    def test_a_hook_on_requests_that_sleeps(self) -> None:
        self.assert_harms_only_itself("request", "time.sleep(60)")

    def test_a_hook_on_responses_that_never_ends(self) -> None:
        self.assert_harms_only_itself("responseheaders", "while True: pass")

    def test_a_hook_that_passes_over_every_exception(self) -> None:
        body = """while True:
            try: time.sleep(60)
            except Exception: pass"""
        self.assert_harms_only_itself("responseheaders", body, line=5)


class FailingTests(ScriptCase):
    def test_a_hook_that_raises_ends_its_own_exchange_and_says_where(self) -> None:
        self.start("def request(flow):\n    if flow.request.path == '/bad':\n        flow.nonsense.x = 1\n")
        status, words = self.ask("/bad")
        self.assertEqual(status, b"HTTP/1.1 502 Bad Gateway")
        self.assertIn(b"script.py:request raised AttributeError", words)
        self.wait_for_line("script.py:request raised AttributeError", "(line 3)")
        self.assertEqual(self.origin.wires, [])
        self.assertEqual(self.ask("/good", Client(self, self.proxy))[1], b"GET /good HTTP/1.1")

    def test_a_stream_function_that_raises_cuts_its_body_visibly(self) -> None:
        self.start(
            "def modify(chunks):\n"
            "    for chunk in chunks:\n"
            "        yield chunk\n"
            "        if b'two' in chunk:\n"
            "            raise ValueError('enough')\n"
            "def responseheaders(flow):\n"
            "    flow.response.stream = modify\n"
        )
        origin = Origin(self)
        self.client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(EVENTS, chunk(b"one"))
        self.client.read_head()
        self.client.expect(chunk(b"one"))
        wire.send(chunk(b"two") + chunk(b"three"))
        rest = self.client.read_to_end()
        self.assertNotIn(b"three", rest)
        self.assertNotIn(b"0\r\n\r\n", rest)
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "failed")
        self.assertIn("script.py:modify raised ValueError: enough (line 5)", line["error"])

    def test_a_script_that_would_end_the_process_ends_its_own_exchange(self) -> None:
        self.start("import sys\ndef request(flow):\n    if flow.request.path == '/exit':\n        sys.exit(3)\n")
        self.assertEqual(self.ask("/exit")[0], b"HTTP/1.1 502 Bad Gateway")
        self.assertEqual(self.ask("/good", Client(self, self.proxy))[1], b"GET /good HTTP/1.1")

    def test_a_function_of_bytes_or_of_events_that_hangs_cuts_its_body(self) -> None:
        self.start(
            "import time\n"
            "def spin(chunks):\n"
            "    for chunk in chunks:\n"
            "        yield chunk\n"
            "        while True: pass\n"
            "def sleep(event):\n"
            "    if event.data == 'sleep':\n"
            "        time.sleep(60)\n",
            "timeouts.script=0.5",
            rules="rules:\n"
            "  - {match: {path: /spin}, response: {transform: 'script:spin'}}\n"
            "  - {match: {path: /sleep}, response: {events: 'script:sleep'}}\n",
        )
        origin = Origin(self)
        streams = []
        for path in ("/spin", "/sleep", "/plain"):
            client = Client(self, self.proxy)
            client.get(origin, path)
            wire = origin.accept()
            wire.read_head()
            wire.send(EVENTS)
            client.read_head()
            streams.append((client, wire))
        spun, slept, plain = streams
        for client, wire in (spun, slept):
            wire.send(chunk(b"data: sleep\n\n"), chunk(b"data: more\n\n"))
            self.assertNotIn(b"more", client.read_to_end())
            plain[1].send(chunk(b"data: goes on\n\n"))
            plain[0].expect(chunk(b"data: goes on\n\n"))
        errors = [line["error"] for line in self.proxy.recorded(2)]
        self.assertIn("spin didn't end, and was interrupted after 0.5 s (line 5)", errors[0])
        self.assertIn("sleep didn't end, and was interrupted after 0.5 s (line 8)", errors[1])


class WaitingTests(ScriptCase):
    """A hook that waits keeps its own exchange waiting."""

    def test_an_asynchronous_hook_waits_for_what_another_exchange_does(self) -> None:
        # Were anybody kept waiting by it, the second request could never let it go.
        self.start(
            "import asyncio\n"
            "may_go = asyncio.Event()\n"
            "async def request(flow):\n"
            "    if flow.request.path == '/go':\n"
            "        may_go.set()\n"
            "    if flow.request.path == '/wait':\n"
            "        await may_go.wait()\n"
        )
        self.client.get(self.origin, "/wait")
        other = Client(self, self.proxy)
        self.assertEqual(self.ask("/other", other)[1], b"GET /other HTTP/1.1")
        self.assertEqual(self.ask("/go", other)[1], b"GET /go HTTP/1.1")
        self.assertEqual(self.client.read_body(self.client.read_head()), b"GET /wait HTTP/1.1")

    def test_an_asynchronous_hook_sleeps_while_others_are_served(self) -> None:
        self.start(
            "import asyncio\n"
            "async def responseheaders(flow):\n"
            "    if flow.request.path == '/sleep':\n"
            "        await asyncio.sleep(1)\n"
        )
        self.client.get(self.origin, "/sleep")
        other = Client(self, self.proxy)
        for number in range(20):
            self.ask(f"/{number}", other)
        self.assertEqual(self.client.read_body(self.client.read_head()), b"GET /sleep HTTP/1.1")
        lines = self.proxy.recorded(21)
        (slept,) = [line for line in lines if line["url"].endswith("/sleep")]
        self.assertGreaterEqual(slept["duration_ms"], 1000)

    def test_an_asynchronous_hook_that_never_ends_has_as_long_as_an_exchange_in_which_nothing_moves(self) -> None:
        self.start(
            "import asyncio\nasync def request(flow):\n    await asyncio.Event().wait()\n",
            "timeouts.idle=0.5",
        )
        self.assertEqual(self.ask("/")[0], b"HTTP/1.1 504 Gateway Timeout")
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "timed-out")
        self.assertIn("script.py:request", line["error"])


class LogTests(ScriptCase):
    def test_what_a_script_prints_and_logs_is_on_the_log(self) -> None:
        self.start(
            "import logging\n"
            "from streamproxy.scripts import ctx\n"
            "def running():\n"
            "    print('printed when it began')\n"
            "def request(flow):\n"
            "    print('printed for', flow.request.path)\n"
            "    logging.info('logged for %s', flow.request.path)\n"
            "    logging.getLogger('mine').warning('warned of %s', flow.request.path)\n"
            "    ctx.log.info('told ' + flow.request.path)\n"
        )
        self.wait_for_line("printed when it began")
        self.ask("/x")
        for words in ("printed for /x", "logged for /x", "warned of /x", "told /x"):
            self.wait_for_line(words)
            self.assertEqual(self.proxy.output.count(words), 1)

    def test_what_looks_like_a_misspelt_hook_is_told(self) -> None:
        self.start("def reponse(flow): pass\n")
        self.wait_for_line("script.py:1: reponse is no hook; did you mean response?")


class CheckTests(SynchronousTestCase):
    def check(self, rules: str, **files: str) -> Ran:
        folder = new_folder(self)
        (folder / "rules.yaml").write_text(rules)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return run(self, TWISTD, "streamproxy", "-c", "rules.yaml", "--check", folder=folder)

    def assert_refused(self, ran: Ran, *lines: str) -> None:
        self.assertEqual((ran.status, ran.out), (1, b""))
        self.assertEqual(len(ran.err.splitlines()), len(lines), ran.err)
        for line, words in zip(ran.err.splitlines(), lines, strict=True):
            self.assertTrue(line.startswith(words), line)

    def test_a_script_that_is_no_python_is_told_with_its_place(self) -> None:
        ran = self.check("hold: needed\nscripts: [good.py, bad.py]\n", good="", bad="x = 1\ndef request(flow:\n")
        self.assert_refused(ran, "rules.yaml:2:10: scripts: bad.py:2: SyntaxError: ")

    def test_a_script_that_does_not_import_is_told_with_its_place(self) -> None:
        ran = self.check("scripts: [bad.py]\n", bad="import logging\nimport no_such_module\n")
        self.assert_refused(ran, "rules.yaml:1:10: scripts: bad.py:2: ModuleNotFoundError: ")
        ran = self.check("scripts: [none.py]\n")
        self.assert_refused(ran, "rules.yaml:1:10: scripts: none.py: there is no such file")

    def test_an_unknown_function_is_told_with_its_place(self) -> None:
        rules = "rules:\n  - match: {host: a.example}\n    response:\n      events: events.py:on_evnt\n"
        ran = self.check(rules, events="def on_event(event): pass\n")
        self.assert_refused(
            ran,
            "rules.yaml:4:15: rules[0].response.events: events.py: there is no on_evnt in it; did you mean on_event?",
        )

    def test_what_is_in_order_is_not_started(self) -> None:
        ran = self.check("scripts: [good.py]\n", good="def running(): print('it runs')\n")
        self.assertEqual(ran, (0, b"rules.yaml: in order\n", ""))
