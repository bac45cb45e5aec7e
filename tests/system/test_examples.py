"""The worked examples that change bodies, run: keys redacted, events rewritten, tokens counted, a script.

Each is run as it stands in conf/; the tests check what its comments promise.
"""

from __future__ import annotations

import gzip
import json
import re
import ssl
import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard
from twisted.trial.unittest import SynchronousTestCase

from tests.secure import client_context
from tests.system.examples import EXAMPLES, Example, ExampleClient
from tests.system.parts import PROJECT, Asked, Origin, Wire, chunk, chunked, each_request, response
from tests.system.secure import SecureOrigin, trusting

KEY = b"sk-test" + b"0123456789abcdefABCDEF" * 4
EVENTS = (b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked")

# Codes a piece so that it can be read at once; and what ends it all.
Coder = tuple[Callable[[bytes], bytes], Callable[[], bytes]]


def _gzip_coder() -> Coder:
    coder = zlib.compressobj(wbits=31)
    return lambda piece: coder.compress(piece) + coder.flush(zlib.Z_SYNC_FLUSH), lambda: coder.flush()


def _brotli_coder() -> Coder:
    coder = brotli.Compressor()
    return lambda piece: coder.process(piece) + coder.flush(), lambda: coder.finish()


def _zstd_coder() -> Coder:
    coder = zstandard.ZstdCompressor().compressobj()
    block, frame = zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
    return lambda piece: coder.compress(piece) + coder.flush(block), lambda: coder.flush(frame)


CODERS: dict[bytes, Callable[[], Coder]] = {
    b"": lambda: (lambda piece: piece, lambda: b""),
    b"gzip": _gzip_coder,
    b"br": _brotli_coder,
    b"zstd": _zstd_coder,
}
DECODERS: dict[bytes, Callable[[], Callable[[bytes], bytes]]] = {
    b"": lambda: lambda data: data,
    b"gzip": lambda: zlib.decompressobj(wbits=31).decompress,
    b"br": lambda: brotli.Decompressor().process,
    b"zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}


def cuts(body: bytes, around: bytes) -> Iterator[list[bytes]]:
    """`body` cut in two everywhere in `around` and at its ends, and into single bytes there."""
    begin = body.index(around)
    for at in range(begin, begin + len(around) + 1, 7):
        yield [body[:at], body[at:]]
    end = begin + len(around)
    yield [body[:begin], *(body[at : at + 1] for at in range(begin, end)), body[end:]]


def delta(content: str, finish: str | None = None) -> bytes:
    """An event of a model's streamed answer."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


class ShownTests(SynchronousTestCase):
    def test_what_the_readme_shows_of_them_is_what_they_are(self) -> None:
        shown = re.findall(r"```(?:yml|python)\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
        files = [EXAMPLES / "redact-api-keys.yaml", EXAMPLES / "websocket-rules.yaml"]
        files.append(EXAMPLES / "scripts" / "stream_modify.py")
        self.assertEqual(len(shown), len(files))
        for part, path in zip(shown, files, strict=True):
            self.assertIn(part, path.read_text())


class RedactedKeysTests(SynchronousTestCase):
    URL = "http://llm.example/v1/chat"
    BODY = b'data: {"text": "ask-me, your key: ' + KEY + b' (ask internal.example)"}\n\ndata: [DONE]\n\n'
    WANTED = b'data: {"text": "ask-me, your key: sk-*** (ask ***.example)"}\n\ndata: [DONE]\n\n'

    def start(self, answer: Callable[[Asked], bytes]) -> None:
        self.seen: list[Asked] = []

        def remember(asked: Asked) -> bytes:
            self.seen.append(asked)
            return answer(asked)

        self.proxy = Example(self, "redact-api-keys", Origin(self, each_request(remember)))
        self.client = ExampleClient(self, self.proxy)

    def coded(self, coding: bytes, pieces: list[bytes]) -> bytes:
        """The answer in a coding, a chunk for each piece."""
        code, end = CODERS[coding]()
        fields = (b"Content-Type: text/event-stream", *([b"Content-Encoding: " + coding] if coding else []))
        return chunked(*filter(None, [*map(code, pieces), end()]), fields=fields)

    def test_no_key_is_in_an_answer_however_it_is_coded_and_cut(self) -> None:
        answers: list[bytes] = []
        self.start(lambda asked: answers.pop())
        for coding in CODERS:
            for pieces in cuts(self.BODY, KEY):
                answers.append(self.coded(coding, pieces))
                self.client.ask_for(b"POST", self.URL, b"Accept-Encoding: gzip, br, zstd", b"Content-Length: 0")
                got = self.client.read_body(self.client.read_head())
                self.assertEqual(DECODERS[coding]()(got), self.WANTED, (coding, pieces))

    def test_no_key_is_in_an_answer_over_tls_on_both_sides(self) -> None:
        def answer(wire: Wire) -> None:
            wire.read_head()
            code, end = CODERS[b"gzip"]()
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + b"\r\n".join(EVENTS) + b"\r\n\r\n")
            # A TLS record for each byte.
            for at in range(len(self.BODY)):
                wire.send(chunk(code(self.BODY[at : at + 1])))
            wire.send(chunk(end()), b"0\r\n\r\n")

        origin = SecureOrigin(self, answer)
        proxy = Example(self, "redact-api-keys", origin, trusting(self))
        client = ExampleClient(self, proxy)
        self.addCleanup(lambda: client.sock.close())
        client.send(b"CONNECT llm.example:443 HTTP/1.1\r\nHost: llm.example:443\r\n\r\n")
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 200 "))
        client.start_tls(client_context(proxy.ca.read_bytes(), "http/1.1"), name="llm.example")
        self.assertIsInstance(client.sock, ssl.SSLSocket)
        client.send(
            b"POST /v1/chat HTTP/1.1\r\nHost: llm.example\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
        )
        got = client.read_body(client.read_head())
        self.assertEqual(gzip.decompress(got), self.WANTED)

    def test_no_key_reaches_the_origin_however_it_is_cut(self) -> None:
        self.start(lambda asked: response(b"ok"))
        amazon = b"AKIA" + b"ABCDEFGHIJ234567"
        body = b'{"prompt": "use ' + KEY + b" and " + amazon + b', not sk-short"}'
        wanted = b'{"prompt": "use sk-*** and AKIA***, not sk-short"}'
        for around in (KEY, amazon):
            for pieces in cuts(body, around):
                self.client.ask_for(b"POST", self.URL, b"Transfer-Encoding: chunked")
                for piece in filter(None, pieces):
                    self.client.send(chunk(piece))
                self.client.send(b"0\r\n\r\n")
                self.assertEqual(self.client.read_body(self.client.read_head()), b"ok")
                self.assertEqual(self.seen.pop().body, wanted)
        self.client.ask_for(b"POST", self.URL, b"Content-Length: %d" % len(body), body=body)
        self.client.read_body(self.client.read_head())
        self.assertEqual(self.seen.pop().body, wanted)

    def test_what_is_no_key_does_not_wait(self) -> None:
        origin = Origin(self)
        client = ExampleClient(self, Example(self, "redact-api-keys", origin))
        client.ask_for(b"POST", self.URL, b"Content-Length: 0")
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(EVENTS) + b"\r\n\r\n")
        client.read_head()
        for word in ("task", " sk-short", " done. "):
            wire.send(chunk(delta(word)))
            self.assertIn(b"data: ", client.read_until(b"\n\n\r\n"))

    def test_a_key_that_is_told_in_parts_is_found(self) -> None:
        key = KEY.decode()
        parts = ["Your key: s", key[1], key[2:6], key[6:40], key[40], key[41:], " and ", "ask", " sk-x", "."]
        events = b"".join(map(delta, parts)) + delta("", "stop") + b"data: [DONE]\n\n"
        self.start(lambda asked: chunked(events, fields=EVENTS[:1]))
        self.client.ask_for(b"POST", self.URL, b"Content-Length: 0")
        got = self.client.read_body(self.client.read_head())
        said = [json.loads(line[6:]) for line in got.splitlines() if line.startswith(b"data: {")]
        text = "".join(each["choices"][0]["delta"]["content"] for each in said)
        self.assertEqual(text, "Your key: sk-*** and ask sk-x.")
        self.assertEqual(len(said), len(parts) + 1)
        self.assertTrue(got.endswith(b"data: [DONE]\n\n"))


class StreamCase(SynchronousTestCase):
    """An example, and an answer of events that goes on as long as the test says."""

    name = ""
    url = "http://shop.example/v1/feed"

    def setUp(self) -> None:
        self.origin = Origin(self)
        self.proxy = Example(self, self.name, self.origin)
        self.client = ExampleClient(self, self.proxy)
        self.client.ask_for(b"GET", self.url)
        self.wire = self.origin.accept()
        self.wire.read_head()
        self.wire.send(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(EVENTS) + b"\r\n\r\n")
        self.client.read_head()

    def say(self, *events: bytes) -> None:
        for event in events:
            self.wire.send(chunk(event))

    def end(self) -> None:
        self.wire.send(b"0\r\n\r\n")
        self.client.expect(b"0\r\n\r\n")


class RewrittenEventsTests(StreamCase):
    name = "rewrite-events"

    def test_each_event_is_changed_dropped_or_joined_by_others_before_the_next_comes(self) -> None:
        for price in range(5):
            plain = b"id: %d\r\ndata: as it came\r\n\r\n" % price
            self.say(plain)
            self.client.expect(chunk(plain))
            self.say(b'event: price\ndata: {"amount": %d}\n\n' % price)
            self.client.expect(chunk(b'event: price\ndata: {"amount": %d, "currency": "EUR"}\n\n' % price))
            # A dropped one would come before the comment.
            self.say(b"event: debug\ndata: secret\n\n", b": beat\n\n")
            self.client.expect(chunk(b": beat\n\n"))
        self.say(b"data: [DONE]\n\n")
        self.wire.send(b"0\r\n\r\n")
        events = b"".join(self.client.read_chunks())
        self.assertEqual(events, b"event: notice\ndata: seen by streamproxy\n\ndata: [DONE]\n\n")


class CountedTokensTests(StreamCase):
    name = "count-tokens"

    def test_the_tokens_are_counted_as_they_come_and_told_on_the_log(self) -> None:
        for event in (delta(""), delta("one"), delta(" two"), delta("three"), b"data: 5\n\n", b"data: text\n\n"):
            self.say(event)
            self.client.expect(chunk(event))
        self.say(b"data: [DONE]\n\n")
        self.client.expect(chunk(b"data: [DONE]\n\n"))
        self.proxy.wait_for(
            lambda lines: any(f"{self.url}: 3 tokens" in line for line in lines), "the number of tokens"
        )
        self.end()

    def test_what_the_stream_says_of_itself_wins(self) -> None:
        self.say(delta("one"), b'data: {"choices": [], "usage": {"completion_tokens": 42}}\n\n', b"data: [DONE]\n\n")
        self.client.read_until(b"[DONE]\n\n\r\n")
        self.proxy.wait_for(
            lambda lines: any(f"{self.url}: 42 tokens" in line for line in lines), "the number of tokens"
        )
        self.end()


class StreamModifyTests(StreamCase):
    name = "script"

    def test_each_piece_is_changed_as_it_comes_and_none_waits_that_is_decided(self) -> None:
        steps = [(b"data: foo\n\n", b"data: bar\n\n"), (b"data: fo", b"data: "), (b"o f", b"bar "), (b"g", b"fg")]
        for sent, got in steps:
            self.say(sent)
            self.client.expect(chunk(got))
        self.say(b"fo")
        self.wire.send(b"0\r\n\r\n")
        self.client.expect(chunk(b"fo") + b"0\r\n\r\n")

    def test_what_is_no_text_is_left_alone_but_where_a_rule_says_so(self) -> None:
        def answer(asked: Asked) -> bytes:
            kind = asked.line.split(b" ")[1].lstrip(b"/")
            return response(b"foo", b"Content-Type: " + kind)

        client = ExampleClient(self, Example(self, "script", Origin(self, each_request(answer))))
        for url, wanted in (
            ("http://host.example/image/png", b"foo"),
            ("http://host.example/text/plain", b"bar"),
            ("http://host.example/application/json", b"foo"),
            ("http://api.example/application/json", b"bar"),
        ):
            client.ask_for(b"GET", url)
            self.assertEqual(client.read_body(client.read_head()), wanted, url)
