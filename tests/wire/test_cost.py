"""No bytes make reading cost more than in proportion to how many they are. Counted, not timed.

Three things could: a pattern that tries the same bytes again from another start, a buffer that is copied for each
piece that comes, and a feed that gives without bound.
"""

from __future__ import annotations

import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from types import ModuleType
from typing import Any, SupportsIndex

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire import chunked, client_hello, fields, first_bytes, framing, headers, http1, target
from streamproxy.wire.http1 import MOST_EVENTS, HeadLimits, RequestReader, ResponseReader
from tests.wire.reading import LIMITS, bytewise, post, read_until_error, requests

MODULES = [chunked, client_hello, fields, first_bytes, framing, headers, http1, target]
# A repeat of no more than so many is no loop.
FEW = 253


def patterns(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:
    for name, value in vars(module).items():
        if isinstance(value, re.Pattern):
            yield f"{module.__name__}.{name}", value


def greedy_repeats(parsed: Any) -> Iterator[int]:
    """The upper bounds of the repeats that give back what they took."""
    for code, argument in parsed:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            yield argument[1]
        for part in argument if isinstance(argument, tuple | list) else [argument]:
            for inner in part if isinstance(part, list) else [part]:
                if isinstance(inner, parser.SubPattern):
                    yield from greedy_repeats(inner)


class PatternsTests(SynchronousTestCase):
    def test_a_repeat_without_a_bound_never_gives_back_what_it_took(self) -> None:
        seen = 0
        for module in MODULES:
            for name, pattern in patterns(module):
                seen += 1
                bounds = list(greedy_repeats(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)))
                self.assertLessEqual(max(bounds, default=0), FEW, name)
        self.assertGreater(seen, 8)

    def test_the_check_knows_a_bad_pattern(self) -> None:
        for bad in (r"a*b", r"(?:a|b)+", r"x(?:y(z*)){2}", r"(?>a*)?b*", r"a*?b"):
            self.assertGreater(max(greedy_repeats(parser.parse(bad))), FEW, bad)
        for good in (r"a*+b", r"(?:a|b)++", r"a{1,15}"):
            self.assertLessEqual(max(greedy_repeats(parser.parse(good)), default=0), FEW, good)

    def test_a_pattern_that_is_searched_for_starts_at_the_start_of_a_line_or_with_a_byte(self) -> None:
        """So that each byte is the first of an attempt that goes far at most once."""
        anchored = [framing._TAB_BY_CODING]
        for pattern in anchored:
            first = parser.parse(pattern.pattern, pattern.flags)[0]
            self.assertEqual(first, (codes.AT, codes.AT_BEGINNING), pattern)
            self.assertTrue(pattern.flags & re.MULTILINE)
        for pattern in (fields.BARE_LF, fields._BARE_CR):
            self.assertEqual(parser.parse(pattern.pattern)[0][0], codes.LITERAL)


class Counted(bytes):
    """Bytes that count how many of them are copied, and whatever is made of them."""

    copied = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        got = super().__getitem__(index)
        if isinstance(got, bytes):
            Counted.copied += len(got)
            return Counted(got)
        return got

    def __add__(self, other: Any) -> Counted:
        Counted.copied += len(self) + len(other)
        return Counted(bytes(self) + other)


class CopiesTests(SynchronousTestCase):
    def copied(self, data: bytes, reader: RequestReader | ResponseReader, size: int) -> int:
        """How many bytes are copied while `data` is read in pieces of `size`."""
        Counted.copied = 0
        read_until_error(reader, *[Counted(data[at : at + size]) for at in range(0, len(data), size)])
        return Counted.copied

    def test_requests_sent_ahead_are_not_copied_for_each_that_is_read(self) -> None:
        data = b"GET / HTTP/1.0\r\n\r\n" * 3000
        self.assertLessEqual(self.copied(data, requests(), len(data)), 3 * len(data))

    def test_chunks_of_a_byte_are_not_copied_for_each_turn(self) -> None:
        data = post(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 10_000)
        self.assertLessEqual(self.copied(data, requests(), len(data)), 3 * len(data))

    def test_interim_responses_are_not_copied_for_each_turn(self) -> None:
        data = b"HTTP/1.1 100\r\n\r\n" * 4000
        self.assertLessEqual(self.copied(data, ResponseReader(LIMITS), len(data)), 3 * len(data))

    def test_a_body_of_a_length_is_not_copied_at_all(self) -> None:
        reader = requests()
        reader.feed(post(b"Content-Length: 100000"))
        self.assertEqual(self.copied(b"x" * 50_000, reader, 1000), 0)

    def test_a_head_that_comes_byte_by_byte_grows_in_place(self) -> None:
        """A bytes object would be copied whole for each byte."""
        for data in (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 5000,
            b"GET /" + b"y" * 5000,
            post(b"Transfer-Encoding: chunked", body=b"0\r\nX: " + b"y" * 5000),
        ):
            reader = requests()
            buffers = set()
            for piece in bytewise(data):
                reader.feed(piece)
                buffers.add(type(reader._buffer) if len(reader._buffer) > 40 else bytearray)
            self.assertEqual(buffers, {bytearray})

    def test_what_comes_while_stopped_grows_in_place(self) -> None:
        reader = requests()
        reader.feed(post())
        reader.feed(b"x")
        reader.feed(b"x")
        growing = reader._buffer
        for piece in bytewise(b"y" * 100):
            reader.feed(piece)
            self.assertIs(reader._buffer, growing)


class SearchesTests(SynchronousTestCase):
    def test_the_end_of_a_head_is_searched_for_once_in_each_byte(self) -> None:
        """Whatever was searched isn't again: a piece is searched with no more than three bytes before it."""
        searched: list[int] = []

        class Searched(bytearray):
            def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
                searched.append(len(self) - start)
                return super().find(sub, start)

        reader = requests()
        reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        reader.feed(b"y")
        reader._buffer = Searched(reader._buffer)  # type: ignore[assignment]
        for piece in bytewise(b"y" * 1000):
            reader.feed(piece)
        self.assertEqual(len(searched), 1000)
        self.assertLessEqual(max(searched), 4)


# Near the most that one read brings, and larger: what is quadratic in it takes minutes, and shows.
LARGE = 1 << 20
HOST = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKS = post(b"Transfer-Encoding: chunked")


class LargeTests(SynchronousTestCase):
    """What was, or could be, read again and again from each of its bytes: a megabyte at once."""

    limits = HeadLimits(head=2 * LARGE, fields=200, trailers=2 * LARGE)

    def refusal(self, data: bytes) -> tuple[int, str] | None:
        error = read_until_error(RequestReader(self.limits), data)[1]
        return None if error is None else (error.status, error.reason)

    def test_each_is_read_or_refused(self) -> None:
        no_colon = (400, "a field line without a colon")
        control = (400, "a control character in the value of a field")
        many = (431, "too many fields")
        table = {
            HOST + b"a" * LARGE + b"\r\n\r\n": no_colon,
            HOST + b"a:" * (LARGE // 2) + b"\0\r\n\r\n": control,
            HOST + b"a\r\n" * LARGE + b"\r\n": (431, "the head is too large"),
            HOST + b"a\r\n" * (LARGE // 3) + b"\r\n": no_colon,
            HOST + b"a:\r\n" * (LARGE // 4) + b"\r\n": many,
            HOST + b"a:" + b" " * LARGE + b"\r\n\r\n": None,
            HOST + b"a:" + b" " * LARGE + b"b\r\n\r\n": None,
            HOST + b"a:" + b"\t " * (LARGE // 2) + b"\0\r\n\r\n": control,
            HOST + b"a:" + b"\r" * LARGE + b"\r\n\r\n": (400, "a bare CR in a field"),
            HOST + b" " * LARGE + b"\r\n\r\n": (400, "a folded field line"),
            HOST + b"Transfer-Encoding: " + b"," * LARGE + b"chunked\r\n\r\n": (400, "Transfer-Encoding is malformed"),
            HOST + b"Transfer-Encoding: " + b"a," * (LARGE // 2) + b"\r\n\r\n": (501, "an unknown transfer coding"),
            HOST + b"Transfer-Encoding: chunked\r\na:" + b"\t" * LARGE + b"\r\n\r\n": None,
            HOST + b"Content-Length: " + b"1" * LARGE + b"\r\n\r\n": (400, "Content-Length is not a number of bytes"),
            b"G" * LARGE + b" / HTTP/1.1\r\nHost: a\r\n\r\n": None,
            b"GET /" + b"a" * LARGE + b" HTTP/1.1\r\nHost: a\r\n\r\n": (414, "the request target is too long"),
            b"GET " * (LARGE // 4) + b"\r\n\r\n": (400, "the request line is malformed"),
            b"\r\n" * (LARGE // 2): (400, "this is not an HTTP request"),
            CHUNKS + b";" * LARGE: (400, "a chunk's size line is too long"),
            CHUNKS + b"5" + b";" * LARGE: (400, "a chunk's size line is too long"),
            CHUNKS + b"5" + b" " * LARGE + b"\r\n": (400, "a chunk's size line is too long"),
            CHUNKS + b'5;a="' + b"\\" * LARGE: (400, "a chunk's size line is too long"),
            CHUNKS + b"0\r\n" + b"a" * LARGE + b"\r\n\r\n": no_colon,
            CHUNKS + b"0\r\n" + b"a:\r\n" * (LARGE // 4) + b"\r\n": many,
        }
        for data, expected in table.items():
            self.assertEqual(self.refusal(data), expected, data[:60])

    def test_a_feed_gives_a_bounded_number_of_events(self) -> None:
        for reader, data in (
            (RequestReader(self.limits), CHUNKS + b"1\r\nx\r\n" * (LARGE // 6)),
            (ResponseReader(self.limits), b"HTTP/1.1 100\r\n\r\n" * (LARGE // 16)),
        ):
            events = reader.feed(data)
            while reader.more:
                self.assertLessEqual(len(events), 2 * MOST_EVENTS)
                events = reader.feed(b"")
            self.assertLessEqual(len(events), 2 * MOST_EVENTS)
            self.assertEqual(reader.waiting, 0)
