"""Every key of `limits`, passed in a real daemon: what its client sees, and that others go on being served.

`WHERE` says which test shows it, here or in the module that is about what it limits.
"""

from __future__ import annotations

import gzip
import importlib

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules import schema
from tests.system.parts import (
    Asked,
    Client,
    Origin,
    Proxy,
    Wire,
    chunk,
    chunked,
    each_request,
    new_folder,
    response,
)

WHERE = {
    "head": "tests.system.test_limits.HeadTests",
    "fields": "tests.system.test_limits.HeadTests",
    "trailers": "tests.system.test_limits.TrailerTests",
    "held_body": "tests.system.test_rules.HeldTests",
    "body": "tests.system.test_limits.BodyTests",
    "websocket_message": "tests.system.test_websocket_ends.LimitTests",
    "capture": "tests.system.test_limits.CaptureTests",
    "captures": "tests.system.test_limits.CaptureTests",
    "capture_files": "tests.system.test_examples_network.CapturedUploadsTests",
    "decoded_body": "tests.system.test_limits.DecodedTests",
    "decoded_ratio": "tests.system.test_limits.DecodedTests",
    "event": "tests.system.test_limits.EventTests",
    "memory": "tests.system.test_limits_of_memory.MemoryTests",
    "upload_rate": "tests.system.test_limits_of_memory.UploadRateTests",
    "connections": "tests.system.test_hostile.ManyTests",
}


class TableTests(SynchronousTestCase):
    def test_every_key_has_its_tests(self) -> None:
        self.assertEqual(sorted(WHERE), sorted(schema.Limits.model_fields))
        for where in WHERE.values():
            module, _, name = where.rpartition(".")
            self.assertTrue(hasattr(importlib.import_module(module), name), where)


class LimitCase(SynchronousTestCase):
    def start(self, *overrides: str, rules: str = "") -> None:
        self.proxy = Proxy(self, rules, *overrides)
        self.origin = Origin(self, self.serve)

    def serve(self, wire: Wire) -> None:
        each_request(self.answer)(wire)

    def answer(self, asked: Asked) -> bytes:
        """What the origin says; each test has its own."""
        return response(asked.body or b"served")

    def asked(self, request: bytes) -> Client:
        """A client that has sent `request`, with the origin's name put in it."""
        client = Client(self, self.proxy)
        client.send(request.replace(b"ORIGIN", self.origin.netloc.encode()))
        return client

    def assert_answered(self, request: bytes, status: int, words: str = "") -> None:
        """The answer has this status, and words in it."""
        client = self.asked(request)
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), (request[:200], head))
        if words:
            self.assertIn(words, client.read_body(head).decode())

    def assert_cut(self, request: bytes) -> None:
        """The answer's body begins, and is cut short."""
        client = self.asked(request)
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        try:
            client.read_body(head)
        except (AssertionError, ConnectionResetError, ValueError):
            return
        self.fail("it looks whole")

    def assert_another_is_served(self) -> None:
        self.assert_answered(GET % b"/other", 200, "served")

    def assert_logged(self, outcome: str, error: str) -> None:
        """The newest exchange but one has this on its line; the newest is `assert_another_is_served`'s."""
        self.assert_another_is_served()
        self.proxy.wait_for(lambda lines: any("/other" in line for line in lines), "the line of another")
        line = [each for each in self.proxy.journal() if not each["url"].endswith("/other")][-1]
        self.assertEqual(line["outcome"], outcome, line)
        self.assertRegex(line.get("error", ""), error)


GET = b"GET http://ORIGIN%b HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"
POST = b"POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n%b\r\n"


class HeadTests(LimitCase):
    def padded(self, size: int) -> bytes:
        """A request whose head is of this size."""
        head = (GET % b"/")[:-2].replace(b"ORIGIN", self.origin.netloc.encode()) + b"X: "
        return head + b"y" * (size - len(head) - 4) + b"\r\n\r\n"

    def test_a_request_may_have_a_head_of_limits_head_and_no_more(self) -> None:
        self.start("limits.head=1k")
        self.assert_answered(self.padded(1024), 200)
        self.assert_answered(self.padded(1025), 431)
        self.assert_logged("malformed", "head")

    def test_a_response_with_a_larger_head_is_a_502(self) -> None:
        self.start("limits.head=1k")
        self.assert_answered(GET % b"/large", 502, "head")
        self.assert_another_is_served()

    def test_a_request_may_have_limits_fields_fields_and_no_more(self) -> None:
        self.start("limits.fields=5")
        fields = b"Host: ORIGIN\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5))
        for count, status in ((4, 200), (5, 431)):
            lines = fields.splitlines(keepends=True)[: count + 1]
            self.assert_answered(b"GET http://ORIGIN/ HTTP/1.1\r\n" + b"".join(lines) + b"\r\n", status)
        self.assert_another_is_served()

    def test_a_response_with_more_fields_is_a_502(self) -> None:
        self.start("limits.fields=5")
        self.assert_answered(GET % b"/many", 502, "fields")
        self.assert_another_is_served()

    def answer(self, asked: Asked) -> bytes:
        if b"/large" in asked.line:
            return response(b"", b"X: " + b"y" * 1024)
        if b"/many" in asked.line:
            return response(b"", *[b"X-%d: y" % number for number in range(5)])
        return response(b"served")


class TrailerTests(LimitCase):
    TRAILERS = b"X: " + b"y" * 300 + b"\r\n"

    def test_a_request_with_larger_trailers_is_refused(self) -> None:
        self.start("limits.trailers=256")
        body = chunk(b"hello") + b"0\r\n"
        request = POST % b"Transfer-Encoding: chunked\r\n" + body
        self.assert_answered(request + self.TRAILERS[:200] + b"\r\n\r\n", 200)
        self.assert_answered(request + self.TRAILERS + b"\r\n", 431)
        self.assert_another_is_served()

    def test_a_response_with_larger_trailers_is_a_502_or_cut_where_its_head_has_gone(self) -> None:
        self.start("limits.trailers=256")
        self.assert_answered(GET % b"/trailers", 502, "trailers")
        origin, client = Origin(self), Client(self, self.proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        whole = self.answer(Asked(b"/trailers", b"", b""))
        wire.send(whole[: -len(self.TRAILERS) - 2])
        client.read_head()
        client.expect(chunk(b"hello"))
        wire.send(self.TRAILERS + b"\r\n")
        client.expect_end()
        self.assert_another_is_served()

    def answer(self, asked: Asked) -> bytes:
        return chunked(b"hello", trailers=self.TRAILERS) if b"/trailers" in asked.line else response(b"served")


class BodyTests(LimitCase):
    def test_a_request_whose_length_is_past_it_is_a_413_and_never_reaches_the_origin(self) -> None:
        self.start("limits.body=10k")
        self.assert_answered(POST % b"Content-Length: 10240\r\n" + bytes(10240), 200)
        heard = sum(len(wire.heads) for wire in self.origin.wires)
        self.assert_answered(POST % b"Content-Length: 10241\r\n", 413, "too large")
        self.assertEqual(sum(len(wire.heads) for wire in self.origin.wires), heard)
        self.assert_another_is_served()

    def test_one_that_turns_out_to_be_larger_is_a_413(self) -> None:
        self.start("limits.body=10k")
        self.assert_answered(POST % b"Transfer-Encoding: chunked\r\n" + chunk(bytes(10241)), 413, "too large")
        self.assert_another_is_served()

    def test_a_response_past_it_is_a_502_or_cut_where_its_head_has_gone(self) -> None:
        self.start("limits.body=10k")
        self.assert_answered(GET % b"/length", 502, "too large")
        origin, client = Origin(self), Client(self, self.proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(bytes(10240)))
        client.read_head()
        client.expect(chunk(bytes(10240)))
        wire.send(chunk(b"x") + b"0\r\n\r\n")
        client.expect_end()
        self.assert_another_is_served()

    def answer(self, asked: Asked) -> bytes:
        return response(bytes(10241) if b"/length" in asked.line else b"served")


class CaptureTests(LimitCase):
    RULES = "rules: [{match: {method: POST}, request: {capture: true}}]"

    def kept(self, size: int) -> tuple[int, bool]:
        """Post `size` bytes; how many of them are recorded as they came, and whether that was cut."""
        body = bytes(range(256)) * (size // 256)
        self.assert_answered(POST % b"Content-Length: %d\r\n" % size + body, 200)
        received = self.proxy.recorded(1)[-1]["request"]["received"]
        self.assertEqual(received["size"], size)
        return received["kept"], received["cut"]

    def test_so_much_is_recorded_of_a_body_and_all_of_it_goes_on(self) -> None:
        for size, kept in ((1024, (1024, False)), (4096, (1024, True))):
            self.start("limits.capture=1k", rules=self.RULES)
            self.assertEqual(self.kept(size), kept)

    def test_so_much_is_recorded_of_all_bodies_under_way(self) -> None:
        self.start("limits.captures=2k", "limits.capture=1m", rules=self.RULES)
        kept, cut = self.kept(4096)
        self.assertLessEqual(kept, 2048)
        self.assertTrue(cut)
        # Which others may have when that is over.
        self.assert_answered(POST % b"Content-Length: 256\r\n" + bytes(256), 200)
        received = self.proxy.recorded(2)[-1]["request"]["received"]
        self.assertEqual((received["kept"], received["cut"]), (256, False))


class DecodedTests(LimitCase):
    """Bodies that decode to more than they may, where a rule reads them."""

    RULES = "rules: [{match: {path: /*}, response: {replace: [{find: foo, with: bar}]}}]"
    ZEROS = bytes(8 << 20)

    def test_one_that_decodes_to_more_than_decoded_body_is_cut(self) -> None:
        self.start("limits.decoded_body=1m", rules=self.RULES)
        self.assert_cut(GET % b"/coded")
        self.assert_logged("refused", "decodes to more than 1048576 bytes")

    def test_one_that_grows_by_more_than_decoded_ratio_is_cut(self) -> None:
        self.start("limits.decoded_ratio=20", rules=self.RULES)
        self.assert_cut(GET % b"/coded")
        self.assert_logged("refused", "decodes to more than 20 times its size")

    def test_within_them_it_goes_on(self) -> None:
        self.start("limits.decoded_ratio=2000", "limits.decoded_body=8m", rules=self.RULES)
        client = self.asked(GET % b"/coded")
        self.assertEqual(gzip.decompress(client.read_body(client.read_head())), self.ZEROS)

    def answer(self, asked: Asked) -> bytes:
        if b"/coded" in asked.line:
            return response(gzip.compress(self.ZEROS), b"Content-Encoding: gzip")
        return response(b"served")


class EventTests(LimitCase):
    def test_an_event_and_a_line_that_are_larger_end_their_streams(self) -> None:
        folder = new_folder(self)
        (folder / "ask.py").write_text("def same(each):\n    return each\n")
        for kind, mime, what in (("events", "text/event-stream", "event"), ("lines", "application/x-ndjson", "record")):
            self.mime = mime.encode()
            same = f"{folder}/ask.py:same"
            self.start("limits.event=1k", rules=f"rules: [{{match: {{path: /*}}, response: {{{kind}: '{same}'}}}}]")
            self.assert_answered(GET % b"/small", 200)
            self.assert_cut(GET % b"/large")
            self.assert_logged("failed", f"{what} is larger than 1024 bytes")

    def answer(self, asked: Asked) -> bytes:
        if b"/other" in asked.line:
            return response(b"served")
        size = 2000 if b"/large" in asked.line else 500
        return chunked(
            b'data: "small"\n\n', b'data: "' + b"x" * size + b'"\n\n', fields=[b"Content-Type: " + self.mime]
        )
