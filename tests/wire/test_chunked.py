"""Chunks: read strictly, marks kept, and written again."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.chunked import (
    LONGEST_LINE,
    MOST_EXTENSIONS,
    ChunksKept,
    ChunksMade,
    Plain,
    last_chunk,
)
from streamproxy.wire.headers import Headers
from streamproxy.wire.http1 import MOST_EVENTS, HeadLimits, RequestReader
from streamproxy.wire.message import CHUNK_END, END, BodyEvent, Chunk, End
from tests.wire.reading import (
    LIMITS,
    body_of,
    bytewise,
    joined,
    post,
    property_of,
    read,
    read_until_error,
    refused_alike,
    requests,
    splits,
)

HEAD = post(b"Transfer-Encoding: chunked")
SIZE = "a chunk's size is malformed"
LINE = "a chunk's size or extension is malformed, or its line end is not CRLF"
LONG = "a chunk's size line is too long"
DATA = "a chunk is longer than its size, or its line end is not CRLF"
EXTENSIONS = "too many chunk extensions"


def body(wire: bytes, *, limits: HeadLimits = LIMITS) -> list[BodyEvent]:
    """The events of a chunked body."""
    return read(RequestReader(limits), HEAD, wire)[1:]  # type: ignore[return-value]


class GoodChunksTests(SynchronousTestCase):
    def test_the_marks_of_chunks_stand_around_their_bytes(self) -> None:
        self.assertEqual(
            body(b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
            [Chunk(5), b"hello", CHUNK_END, Chunk(1), b"!", CHUNK_END, END],
        )

    def test_the_last_chunk_alone_is_an_empty_body(self) -> None:
        self.assertEqual(body(b"0\r\n\r\n"), [END])

    def test_sizes_are_hexadecimal(self) -> None:
        for text, size in ((b"a", 10), (b"A", 10), (b"0f", 15), (b"00000000000001F", 31), (b"10", 16)):
            wire = text + b"\r\n" + b"x" * size + b"\r\n0\r\n\r\n"
            self.assertEqual(body(wire), [Chunk(size), b"x" * size, CHUNK_END, END], text)

    def test_the_last_chunk_may_have_many_zeros(self) -> None:
        self.assertEqual(body(b"0" * 15 + b"\r\n\r\n"), [END])

    def test_the_largest_size_is_one_of_fifteen_digits(self) -> None:
        events = body(b"f" * 15 + b"\r\nabc")
        self.assertEqual(events, [Chunk(16**15 - 1), b"abc"])

    def test_bytes_that_look_like_lines_are_data(self) -> None:
        data = b"\r\n0\r\n\r\n5\r\n"
        self.assertEqual(body(b"a\r\n" + data + b"\r\n0\r\n\r\n"), [Chunk(10), data, CHUNK_END, END])

    def test_extensions_are_read_and_dropped(self) -> None:
        for extension in (
            b";a",
            b";a=b",
            b";a;b=c;d",
            b' ; a = "b c" ; d',
            b"\t;\ta\t=\tb",
            b';a=""',
            b';a="\\"\\\\\\x"',
            b';a="; 0"',
            b';a="\xff\t"',
            b";!#$%&'*+-.^_`|~=1",
            b";" + b"a" * (LONGEST_LINE - 4),
        ):
            wire = b"1" + extension + b"\r\nx\r\n0" + extension + b"\r\n\r\n"
            self.assertEqual(body(wire), [Chunk(1), b"x", CHUNK_END, END], extension)

    def test_a_part_of_a_chunk_is_given_before_the_rest_comes(self) -> None:
        reader = requests()
        reader.feed(HEAD)
        self.assertEqual(reader.feed(b"5\r\nhe"), [Chunk(5), b"he"])
        self.assertEqual(reader.feed(b"l"), [b"l"])
        self.assertEqual(reader.feed(b"lo"), [b"lo"])
        self.assertEqual(reader.feed(b"\r"), [])
        self.assertEqual(reader.feed(b"\n"), [CHUNK_END])

    def test_trailers_come_with_the_end(self) -> None:
        self.assertEqual(
            body(b"0\r\nX-Sum: 1\r\nx-sum: \t2 \r\n\r\n"), [End(Headers([(b"X-Sum", b"1"), (b"x-sum", b"2")]))]
        )

    def test_what_routes_is_left_out_of_trailers(self) -> None:
        events = body(b"0\r\nAuthorization: 5\r\nA: 1\r\nCONNECTION: x\r\nHost: b\r\n\r\n")
        self.assertEqual(events, [End(Headers([(b"A", b"1")]))])

    def test_every_split_gives_the_same(self) -> None:
        wire = HEAD + b'5;a="b"\r\nhello\r\n00A ;c\r\n\r\n0\r\n\r\n!!!\r\n0\r\nX: 1\r\nY:\r\n\r\n'
        whole = read(requests(), wire)
        self.assertIsInstance(whole[-1], End)
        for first, second in splits(wire):
            self.assertEqual(read(requests(), first, second), whole, first)
        self.assertEqual(read(requests(), *bytewise(wire)), whole)


class BadChunksTests(SynchronousTestCase):
    def test_each_is_refused(self) -> None:
        table = {
            # Sizes.
            b"0x5\r\nhello\r\n": SIZE,
            b"x5\r\n": SIZE,
            b"+5\r\nhello\r\n": SIZE,
            b"-5\r\nhello\r\n": SIZE,
            b"-0\r\n\r\n": SIZE,
            b"_5\r\n": SIZE,
            b"1_0\r\n": SIZE,
            b" 5\r\nhello\r\n": SIZE,
            b"\t5\r\nhello\r\n": SIZE,
            b"\r\n5\r\nhello\r\n": SIZE,
            b"\r\n": SIZE,
            b";a\r\n": SIZE,
            b"g\r\n": SIZE,
            b"5h\r\n": SIZE,
            b"5.\r\n": SIZE,
            b"5,5\r\n": SIZE,
            b'"5"\r\n': SIZE,
            b"\xb2\r\n": SIZE,
            b"\0\r\n": SIZE,
            b"5\0\r\n": SIZE,
            b"5\x0b\r\n": SIZE,
            b"0" * 16 + b"\r\n\r\n": SIZE,
            b"1" * 17 + b"\r\n": SIZE,
            b"fffffffffffffffe\r\n": SIZE,
            b"10000000000000005\r\nhello\r\n": SIZE,
            b"5\r\r\n": SIZE,
            b"5\rhello": SIZE,
            b"5 \r\nhello\r\n": LINE,
            b"5\t\r\nhello\r\n": LINE,
            b"5 5\r\nhello\r\n": LINE,
            b"0 \r\n\r\n": LINE,
            # Line ends.
            b"\n": SIZE,
            b"5\nhello\r\n": LINE,
            b"0\n\n": LINE,
            b"5;a\nhello\r\n": LINE,
            b"5;a\r\r\nhello\r\n": LINE,
            b"5;a\rb\r\nhello\r\n": LINE,
            # Extensions.
            b"5;\r\nhello\r\n": LINE,
            b"5;;a\r\nhello\r\n": LINE,
            b"5;a;\r\nhello\r\n": LINE,
            b"5;a=\r\nhello\r\n": LINE,
            b"5;=b\r\nhello\r\n": LINE,
            b"5;a b\r\nhello\r\n": LINE,
            b"5;a \r\nhello\r\n": LINE,
            b'5;a="\r\nhello\r\n': LINE,
            b'5;a="b"c\r\nhello\r\n': LINE,
            b'5;a="\n"\r\nhello\r\n': LINE,
            b'5;a="\r"\r\nhello\r\n': LINE,
            b'5;a="\r\n"\r\nhello\r\n': LINE,
            b'5;a="\\\r\n"\r\nhello\r\n': LINE,
            b'5;a="\0"\r\nhello\r\n': LINE,
            b'5;a="\\\0"\r\nhello\r\n': LINE,
            b'5;a="\x7f"\r\nhello\r\n': LINE,
            b"5;\xff\r\nhello\r\n": LINE,
            b"5;a=b,c\r\nhello\r\n": LINE,
            b"5;a\0\r\nhello\r\n": LINE,
            # Data that doesn't end where its size says.
            b"5\r\nhello!\r\n": DATA,
            b"5\r\nhello\n0\r\n": DATA,
            b"5\r\nhello\r0\r\n": DATA,
            b"5\r\nhello0\r\n\r\n": DATA,
            b"5\r\nhello \r\n": DATA,
            b"5\r\nhell\r\n0\r\n\r\n": DATA,
            b"5\r\nhello\r\r\n": DATA,
            # Trailers.
            b"0\r\nX: 1\n\r\n": "a line that ends with a bare LF",
            b"0\r\n\n": "a line that ends with a bare LF",
            b"0\r\nX: 1\r\n Y: 2\r\n\r\n": "a folded field line",
            b"0\r\n X: 1\r\n\r\n": "white space before the first field",
            b"0\r\nX : 1\r\n\r\n": "white space between a field's name and its colon",
            b"0\r\nX: \0\r\n\r\n": "a control character in the value of a field",
            b"0\r\nX: 1\rY: 2\r\n\r\n": "a bare CR in a field",
            b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n": "a field line without a colon",
            b"0\r\n\r\r\n\r\n": "a bare CR in a field",
            b"0\r\nA: 1\r\nContent-Length: 5\r\n\r\n": "a framing field in the trailers",
            b"0\r\ntransfer-ENCODING: chunked\r\n\r\n": "a framing field in the trailers",
        }
        for wire, reason in table.items():
            self.assertEqual(refused_alike(RequestReader, HEAD + wire), (400, reason), wire)

    def test_a_size_that_cannot_become_right_is_not_waited_for(self) -> None:
        for beginning in (b"x", b"0x", b"+", b"-", b" ", b"\r", b";", b"1" * 16, b"5\0", b"5\r\r"):
            reader = requests()
            reader.feed(HEAD)
            self.assertIn(refused_alike(RequestReader, HEAD + beginning), [(400, SIZE)], beginning)

    def test_what_was_given_before_the_error_is_right_and_nothing_comes_after(self) -> None:
        wire = HEAD + b"5\r\nhello\r\n3\r\nabcd\r\n0\r\n\r\n"
        for pieces in (bytewise(wire), [wire[: len(HEAD) + 10], wire[len(HEAD) + 10 :]]):
            reader = requests()
            events, error = read_until_error(reader, *pieces)
            self.assertIsNotNone(error)
            expected = [Chunk(5), b"hello", CHUNK_END, Chunk(3), b"abc"]
            self.assertEqual(events[1:], expected[: len(events) - 1])
            self.assertIn(b"hello", events)
            self.assertEqual(reader.feed(b"\r\n0\r\n\r\n"), [])
            self.assertEqual(reader.waiting, 0)

    def test_a_line_may_be_as_long_as_the_limit_and_not_one_longer(self) -> None:
        good = b"1;" + b"a" * (LONGEST_LINE - 4) + b"\r\n"
        self.assertEqual(len(good), LONGEST_LINE)
        self.assertIsNone(refused_alike(RequestReader, HEAD + good))
        self.assertEqual(refused_alike(RequestReader, HEAD + b"1;a" + good[2:]), (400, LONG))

    def test_a_line_without_an_end_is_refused_at_the_limit(self) -> None:
        for unit in (b";", b"a", b" ", b";a", b';a="'):
            line = (b"5;" + unit * LONGEST_LINE)[:LONGEST_LINE]
            reader = requests()
            reader.feed(HEAD + line[:-1])
            self.assertEqual(reader.waiting, LONGEST_LINE - 1)
            self.assertEqual(refused_alike(RequestReader, HEAD + line), (400, LONG), unit)

    def test_extensions_that_outweigh_their_data_are_refused_in_the_end(self) -> None:
        chunk = b"1;" + b"a" * 1000 + b"\r\nx\r\n"
        fits = MOST_EXTENSIONS // 1000
        self.assertIsNone(refused_alike(RequestReader, HEAD + chunk * fits))
        self.assertEqual(refused_alike(RequestReader, HEAD + chunk * (fits + 1)), (400, EXTENSIONS))

    def test_extensions_lighter_than_their_data_go_on_for_ever(self) -> None:
        chunk = b"64;" + b"a" * 99 + b"\r\n" + b"x" * 100 + b"\r\n"
        reader = requests()
        reader.feed(HEAD)
        for _ in range(2 * MOST_EXTENSIONS // 100):
            self.assertEqual(len(reader.feed(chunk)), 3)


class TrailerLimitTests(SynchronousTestCase):
    limits = HeadLimits(head=1000, fields=3, trailers=40)

    def refusal(self, wire: bytes) -> tuple[int, str] | None:
        results = []
        for pieces in ([HEAD + wire], bytewise(HEAD + wire)):
            error = read_until_error(RequestReader(self.limits), *pieces)[1]
            results.append(None if error is None else (error.status, error.reason))
        self.assertEqual(results[0], results[1])
        return results[0]

    def test_a_section_of_exactly_the_limit_is_read_and_not_one_byte_more(self) -> None:
        section = b"X: " + b"1" * 33 + b"\r\n\r\n"
        self.assertEqual(len(section), 40)
        self.assertIsNone(self.refusal(b"0\r\n" + section))
        self.assertEqual(self.refusal(b"0\r\nX" + section), (431, "trailers are too large"))

    def test_an_endless_section_is_refused_past_the_limit(self) -> None:
        self.assertIsNone(self.refusal(b"0\r\n" + b"X" * 40))
        self.assertEqual(self.refusal(b"0\r\n" + b"X" * 41), (431, "trailers are too large"))

    def test_trailers_are_counted_like_fields(self) -> None:
        self.assertIsNone(self.refusal(b"0\r\n" + b"X:\r\n" * 3 + b"\r\n"))
        self.assertEqual(self.refusal(b"0\r\n" + b"X:\r\n" * 4 + b"\r\n"), (431, "too many fields"))

    def test_what_stands_behind_the_trailers_is_not_counted(self) -> None:
        self.assertIsNone(self.refusal(b"0\r\nX: 1\r\n\r\n" + post() * 3))
        self.assertIsNone(self.refusal(b"0\r\n\r\n" + post() * 3))


class TinyChunksTests(SynchronousTestCase):
    def test_one_feed_gives_a_bounded_number_of_events_and_says_that_there_is_more(self) -> None:
        reader = requests()
        wire = HEAD + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
        events = reader.feed(wire)
        given = 0
        while reader.more:
            self.assertLessEqual(len(events), 2 * MOST_EVENTS)
            self.assertGreaterEqual(len(events), MOST_EVENTS)
            self.assertEqual(reader.consumed + reader.waiting, len(wire))
            given += len(events)
            events = reader.feed(b"")
        given += len(events)
        self.assertEqual(given, 1 + 3 * 5000 + 1)
        self.assertEqual((events[-1], reader.ended, reader.waiting), (END, True, 0))

    def test_feeding_more_before_it_is_all_read_loses_nothing(self) -> None:
        reader = requests()
        events = reader.feed(HEAD + b"1\r\nx\r\n" * 1000)
        events += reader.feed(b"1\r\ny\r\n" * 1000)
        events += reader.feed(b"0\r\n\r\n")
        while reader.more:
            events += reader.feed(b"")
        self.assertEqual(body_of(events), b"x" * 1000 + b"y" * 1000)
        self.assertEqual(events[-1], END)


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
TRAILERS = st.lists(
    st.tuples(st.sampled_from([b"X", b"x-Sum", b"ETag"]), st.sampled_from([b"", b"1", b"a b"])), max_size=3
)


class WritingTests(SynchronousTestCase):
    @property_of(400)
    @given(CHUNKS, TRAILERS, st.data())
    def test_chunks_kept_come_out_as_they_went_in_at_any_split(
        self, chunks: list[bytes], trailers: list[tuple[bytes, bytes]], data: st.DataObject
    ) -> None:
        wire = b"".join([b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks])
        wire += last_chunk(Headers(trailers))
        cut = data.draw(st.integers(0, len(wire)))
        reader, writer = requests(), ChunksKept()
        reader.feed(HEAD)
        out = [writer.encode(reader.feed(piece)) for piece in (wire[:cut], wire[cut:])]  # type: ignore[arg-type]
        self.assertEqual(b"".join(out), wire)

    @property_of(400)
    @given(CHUNKS, TRAILERS, st.integers(6, 60))
    def test_chunks_made_are_within_the_size_asked_and_carry_the_same(
        self, chunks: list[bytes], trailers: list[tuple[bytes, bytes]], most: int
    ) -> None:
        end = End(Headers(trailers))
        writer = ChunksMade(most)
        events: list[BodyEvent] = []
        for chunk in chunks:
            wire = writer.encode([Chunk(len(chunk)), chunk, CHUNK_END])
            events += body(wire)
            pieces = [len(b"%x\r\n\r\n" % event.size) + event.size for event in body(wire) if type(event) is Chunk]
            self.assertEqual(sum(pieces), len(wire))
            self.assertLessEqual(max(pieces), most)
        events += body(writer.encode([end]))
        self.assertEqual(body_of(events), b"".join(chunks))
        self.assertEqual(events[-1], end)

    def test_chunks_made_fill_the_size_asked(self) -> None:
        wire = ChunksMade(4096).encode([b"x" * 100_000])
        sizes = [event.size for event in body(wire) if type(event) is Chunk]
        self.assertEqual(set(sizes[:-1]), {4096 - len(b"1000\r\n\r\n")})

    def test_an_empty_piece_makes_no_chunk(self) -> None:
        for writer in (ChunksMade(100), ChunksKept(), Plain()):
            self.assertEqual(writer.encode([b"", b""]), b"")

    def test_a_chunk_in_parts_stays_one_chunk(self) -> None:
        writer = ChunksKept()
        out = [writer.encode([Chunk(3), b"a"]), writer.encode([b"b"]), writer.encode([b"c", CHUNK_END, END])]
        self.assertEqual(out, [b"3\r\na", b"b", b"c\r\n0\r\n\r\n"])

    def test_plain_writes_the_bytes_and_nothing_else(self) -> None:
        events: list[BodyEvent] = [Chunk(2), b"ab", CHUNK_END, b"\r\n", End(Headers([(b"X", b"1")]))]
        self.assertEqual(Plain().encode(events), b"ab\r\n")

    def test_the_last_chunk_has_the_trailers(self) -> None:
        self.assertEqual(last_chunk(Headers()), b"0\r\n\r\n")
        self.assertEqual(last_chunk(Headers([(b"X", b"1"), (b"Y", b"")])), b"0\r\nX: 1\r\nY: \r\n\r\n")

    def test_sizes_are_written_in_hexadecimal(self) -> None:
        wire = ChunksKept().encode([Chunk(255), b"x" * 255, CHUNK_END])
        self.assertTrue(re.match(rb"ff\r\n", wire))
        self.assertEqual(joined(body(wire))[0], Chunk(255))
