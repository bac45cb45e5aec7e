"""Heads that say one thing or another of a body with a secret in it: of its coding, or what it is a part of.

Whatever they say, the secret doesn't arrive: not for who takes the bytes as they come, nor for who believes the head.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard

from tests.conversation import settings_of
from tests.proxy.test_no_secret_coded import decoded
from tests.proxy.test_no_secret_leaves import (
    MESSAGES,
    PATTERNS,
    PUT,
    REQUEST,
    RESPONSE,
    SECRET,
    SecretTestCase,
    Watched,
    body_in,
    rules,
)
from tests.proxy.test_rules_on_messages import GET, POST, WAYS


def as_read(wire: bytes) -> bytes:
    """The body of a message as a reader has it who believes its head; as it is, where nobody can read it."""
    head, body = wire.partition(b"\r\n\r\n")[0].lower(), body_in(wire)
    for coding in re.findall(rb"\r\ncontent-encoding: (.*)", head)[::-1]:
        for each in coding.strip().split(b",")[::-1]:
            if each.strip() in (b"gzip", b"x-gzip", b"deflate", b"br", b"zstd"):
                body = decoded(each.strip(), body)
    return body


class HeadTests(SecretTestCase):
    ZIPPED = gzip.compress(b"it is " + SECRET)

    def carried(
        self, message: str, way: str, fields: bytes, body: bytes, more: str = "", start: bytes = b""
    ) -> Watched:
        watched = Watched(settings_of(rules(PATTERNS["literal"], way) + more), message)
        start = start or (POST if message == REQUEST else b"HTTP/1.1 200 OK\r\n")
        watched.say(start + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return watched

    def is_read(self, fields: bytes, body: bytes, text: Callable[[bytes], bytes]) -> None:
        for way in WAYS:
            for message in MESSAGES:
                watched = self.carried(message, way, fields, body)
                self.assertEqual(text(watched.body), b"it is " + PUT, (fields, way, message))

    def is_refused(self, fields: bytes, body: bytes, start: bytes = b"", messages: tuple[str, ...] = MESSAGES) -> None:
        """Nothing of the body arrives, and the message it is in is given up aloud."""
        for way in WAYS:
            for message in messages:
                watched = self.carried(message, way, fields, body, start=start)
                where = (fields, way, message)
                flow = watched.stage.journal.flows[0]
                self.assertNotEqual(flow.outcome, "forwarded", where)
                self.assertNotIn(body[:8], watched.wire, where)
                self.assertNotIn(SECRET, watched.wire, where)

    def test_one_coding_however_it_is_written(self) -> None:
        for fields in (
            b"Content-Encoding: gzip\r\n",
            b"content-encoding: GZip\r\n",
            b"CONTENT-ENCODING:\t x-gzip \t\r\n",
            b"Content-Encoding: , gzip ,,\r\n",
            b"Content-Encoding: identity, gzip\r\n",
            b"Content-Encoding: gzip, Identity\r\n",
            b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
            b"Content-Encoding: gzip\r\nX: y\r\ncontent-encoding:\r\n",
            b"Connection: content-encoding\r\nContent-Encoding: gzip\r\n",
        ):
            self.is_read(fields, self.ZIPPED, gzip.decompress)

    def test_several_codings_in_several_lines(self) -> None:
        fields = b"Content-Encoding: gzip\r\nX: y\r\nContent-Encoding: br\r\n"
        self.is_read(fields, brotli.compress(self.ZIPPED), lambda body: gzip.decompress(brotli.decompress(body)))

    def test_a_coding_that_is_none(self) -> None:
        for fields in (b"", b"Content-Encoding: identity\r\n", b"Content-Encoding:\r\n", b"Content-Encoding: ,\r\n"):
            self.is_read(fields, b"it is " + SECRET, lambda body: body)

    def test_a_coding_that_nobody_knows_is_refused(self) -> None:
        for value in (
            b"compress",
            b"dcb",
            b"gzip, dcz",
            b"gzip;q=1",
            b'"gzip"',
            b"gzip gzip",
            b"aws-chunked",
            b"gzip\x0b",
            b"\xa0gzip",
            b", ".join([b"gzip"] * 6),
        ):
            for body in (self.ZIPPED, b"it is " + SECRET):
                self.is_refused(b"Content-Encoding: %b\r\n" % value, body)

    def test_a_body_that_is_not_what_its_head_says_is_refused(self) -> None:
        text = b"it is " + SECRET
        bodies = {
            b"gzip": [text, zlib.compress(text), brotli.compress(text), SECRET],
            b"deflate": [text, self.ZIPPED, zstandard.compress(text)],
            b"br": [text, self.ZIPPED, zstandard.compress(text)],
            b"zstd": [text, self.ZIPPED, brotli.compress(text)],
            b"gzip, br": [self.ZIPPED, brotli.compress(text), gzip.compress(brotli.compress(text))],
        }
        for coding, wrong in bodies.items():
            for body in wrong:
                self.is_refused(b"Content-Encoding: %b\r\n" % coding, body)

    def test_a_transfer_coding_other_than_chunked_is_refused(self) -> None:
        for value in (b"gzip", b"gzip, chunked", b"x-gzip,chunked", b"chunked, gzip", b"identity"):
            for message in MESSAGES:
                watched = Watched(settings_of(rules(PATTERNS["literal"])), message)
                watched.begin(b"Transfer-Encoding: %b\r\n\r\n" % value + self.ZIPPED)
                self.assertNotIn(self.ZIPPED[:8], watched.wire)
                self.assertNotEqual(watched.stage.journal.flows[0].outcome, "forwarded")

    def test_a_part_of_a_body_is_refused(self) -> None:
        part = b"Content-Range: bytes 0-8/99\r\n"
        self.is_refused(part, b"it is " + SECRET, b"HTTP/1.1 206 Partial Content\r\n", (RESPONSE,))
        self.is_refused(b"", b"it is " + SECRET, b"HTTP/1.1 206 Partial Content\r\n", (RESPONSE,))
        self.is_refused(part, b"it is " + SECRET, b"", (REQUEST,))
        for value in (b"multipart/byteranges; boundary=x", b"Multipart/ByteRanges;boundary=x", b"multipart/byteranges"):
            self.is_refused(b"Content-Type: %b\r\n" % value, SECRET, b"HTTP/1.1 200 OK\r\n", (RESPONSE,))

    def test_no_part_of_a_body_is_asked_for_nor_a_coding_that_cannot_be_read(self) -> None:
        for way in WAYS:
            asks = (
                GET[:-2] + b"Range: bytes=8-\r\nIf-Range: x\r\nAccept-Encoding: dcz, *\r\naccept-encoding: zstd\r\n\r\n"
            )
            watched = Watched(settings_of(rules(PATTERNS["literal"], way)), RESPONSE, asks=asks)
            asked = bytes(watched.stage.origin.heard).lower()
            self.assertNotIn(b"range", asked)
            self.assertEqual(re.findall(rb"accept-encoding: (.*)\r\n", asked), [b"zstd"])

    def test_an_answer_to_head_has_no_body_to_hide_it_in(self) -> None:
        for way in WAYS:
            asks = GET.replace(b"GET", b"HEAD")
            watched = Watched(settings_of(rules(PATTERNS["literal"], way)), RESPONSE, asks=asks)
            watched.begin(b"Content-Encoding: gzip\r\nContent-Length: 19\r\n\r\nit is " + SECRET)
            self.assertEqual(watched.body, b"")

    def edited(self, edits: str, fields: bytes, body: bytes) -> Iterator[Watched]:
        more = f"  - {{request: {{headers: {edits}}}, response: {{headers: {edits}}}}}\n"
        for way in WAYS:
            for message in MESSAGES:
                yield self.carried(message, way, fields, body, more)

    def test_a_coding_that_another_rule_takes_out_of_the_head_is_read_all_the_same(self) -> None:
        coded = b"Content-Encoding: gzip\r\n"
        for edits in (
            "{remove: Content-Encoding}",
            "{set: {Content-Encoding: identity}}",
            "{set: {content-encoding: br}}",
        ):
            for watched in self.edited(edits, coded, self.ZIPPED):
                self.assertEqual(as_read(watched.wire), b"it is " + PUT, (edits, watched.message))

    def test_a_coding_that_another_rule_puts_into_the_head_hides_nothing(self) -> None:
        # The body is gzip, and its sender doesn't say so: its reader mustn't be told to undo what wasn't undone here.
        for edits in ("{set: {Content-Encoding: gzip}}", "{add: {Content-Encoding: gzip}}"):
            for watched in self.edited(edits, b"", self.ZIPPED):
                self.assertNotEqual(watched.wire, b"")
                self.assertNotIn(SECRET, as_read(watched.wire), (edits, watched.message))
