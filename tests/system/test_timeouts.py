"""Every key of `timeouts`, passed in a real daemon: what its client sees, and that others go on being served.

`WHERE` says which test shows it, here or in the module that is about what it is for.
"""

from __future__ import annotations

import importlib
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules import schema
from tests.system.parts import Client, Origin, Proxy, chunked, each_request, new_folder, response

WHERE = {
    "connect": "tests.system.test_timeouts.ConnectTests",
    "handshake": "tests.system.test_handshakes.SlowClientTests",
    "head": "tests.system.test_hostile.SlowTests",
    "idle": "tests.system.test_hostile.SlowTests",
    "keepalive": "tests.system.test_timeouts.KeepaliveTests",
    "tunnel": "tests.system.test_timeouts.TunnelTests",
    "regex": "tests.system.test_timeouts.RegexTests",
    "script": "tests.system.test_scripts.HangingTests",
    "script_budget": "tests.system.test_timeouts.ScriptBudgetTests",
    "drain": "tests.system.test_stop.StopTests",
}


class TableTests(SynchronousTestCase):
    def test_every_key_has_its_tests(self) -> None:
        self.assertEqual(sorted(WHERE), sorted(schema.Timeouts.model_fields))
        for where in WHERE.values():
            module, _, name = where.rpartition(".")
            self.assertTrue(hasattr(importlib.import_module(module), name), where)


def served(case: SynchronousTestCase) -> Origin:
    return Origin(case, each_request(lambda asked: response(b"served")))


def assert_served(case: SynchronousTestCase, proxy: Proxy, origin: Origin) -> None:
    """A client with a connection of its own gets an answer."""
    client = Client(case, proxy)
    client.get(origin)
    case.assertEqual(client.read_body(client.read_head()), b"served")


class ConnectTests(SynchronousTestCase):
    def test_an_origin_that_never_takes_the_connection_is_a_504(self) -> None:
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # What its queue has no room for is dropped by the kernel, and the other side tries again and again.
        for _ in range(4):
            filling = socket.socket()
            self.addCleanup(filling.close)
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        proxy, origin = Proxy(self, "", "timeouts.connect=0.5"), served(self)
        netloc = b"127.0.0.1:%d" % listener.getsockname()[1]
        client = Client(self, proxy)
        client.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (netloc, netloc))
        assert_served(self, proxy, origin)
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 504 "), head)
        assert_served(self, proxy, origin)
        line = next(each for each in proxy.recorded(3) if each["status"] == 504)
        self.assertEqual(line["outcome"], "timed-out")
        self.assertGreaterEqual(line["duration_ms"], 500)


class KeepaliveTests(SynchronousTestCase):
    def test_a_client_that_asks_no_more_is_let_go_and_so_is_its_origin(self) -> None:
        proxy, origin = Proxy(self, "", "timeouts.keepalive=0.5"), Origin(self)
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(response(b"served"))
        self.assertEqual(client.read_body(client.read_head()), b"served")
        began = time.monotonic()
        client.expect_end()
        wire.expect_end()
        self.assertGreater(time.monotonic() - began, 0.2)

    def test_one_that_asks_again_in_time_keeps_its_connection(self) -> None:
        proxy, origin = Proxy(self, "", "timeouts.keepalive=2"), served(self)
        client = Client(self, proxy)
        for _ in range(3):
            client.get(origin)
            self.assertEqual(client.read_body(client.read_head()), b"served")
            time.sleep(0.8)


class TunnelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxy = Proxy(self, "", "timeouts.tunnel=1", "timeouts.idle=60", "tls.intercept=false")
        self.origin = Origin(self)
        self.client = Client(self, self.proxy)
        netloc = self.origin.netloc.encode()
        self.client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (netloc, netloc), b"\0hello")
        self.wire = self.origin.accept()
        self.assertTrue(self.client.read_head().startswith(b"HTTP/1.1 200 "))
        self.wire.expect(b"\0hello")

    def test_one_in_which_nobody_says_anything_is_ended(self) -> None:
        for side in (self.client, self.wire):
            side.expect_reset()
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "timed-out")

    def test_one_in_which_either_side_says_something_now_and_then_goes_on(self) -> None:
        for number in range(5):
            time.sleep(0.5)
            sender, reader = (self.client, self.wire) if number % 2 else (self.wire, self.client)
            sender.send(b"still here")
            reader.expect(b"still here")


class RegexTests(SynchronousTestCase):
    def test_one_that_takes_too_long_ends_its_exchange_and_keeps_others_waiting_no_longer(self) -> None:
        rule = "{name: slow, match: {path: /slow}, response: {replace: [{regex: '(a+)+b', with: x}], hold_back: 64k}}"
        proxy = Proxy(self, f"rules: [{rule}]", "timeouts.regex=0.1")
        body = b"a" * 5000
        origin = Origin(
            self, each_request(lambda asked: chunked(body) if b"/slow" in asked.line else response(b"served"))
        )
        client = Client(self, proxy)
        client.get(origin, "/slow")
        began = time.monotonic()
        assert_served(self, proxy, origin)
        self.assertLess(time.monotonic() - began, 10)
        client.read_to_end()
        line = next(each for each in proxy.recorded(2) if each["url"].endswith("/slow"))
        self.assertEqual(line["outcome"], "failed")
        self.assertIn("rule 'slow': its regex took too long", line["error"])


class ScriptBudgetTests(SynchronousTestCase):
    def test_a_call_that_takes_longer_is_told_on_the_log_and_goes_on(self) -> None:
        script = new_folder(self) / "script.py"
        script.write_text(
            "import time\ndef requestheaders(flow):\n    if flow.request.path == '/slow':\n        time.sleep(0.3)\n"
        )
        proxy, origin = Proxy(self, f"scripts: [{script}]", "timeouts.script_budget=0.2"), served(self)
        assert_served(self, proxy, origin)
        self.assertNotIn("requestheaders", proxy.output)
        client = Client(self, proxy)
        client.get(origin, "/slow")
        self.assertEqual(client.read_body(client.read_head()), b"served")
        proxy.wait_for(lambda lines: any("requestheaders" in line for line in lines), "a word about the call")
        line = next(line for line in proxy.lines if "requestheaders" in line)
        self.assertRegex(line, r"script\.py:requestheaders runs for 2[0-9][0-9] ms now")
