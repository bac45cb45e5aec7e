"""Responses: interim and final, switched, cut short; every fault is the origin's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.headers import Headers
from streamproxy.wire.http1 import MOST_EVENTS, HeadLimits, ResponseReader
from streamproxy.wire.message import (
    CHUNK_END,
    CHUNKED,
    END,
    NO_BODY,
    UNTIL_CLOSE,
    Chunk,
    Event,
    Framing,
    Kind,
    ResponseHead,
    Switched,
    WireError,
)
from tests.wire.reading import (
    answer,
    bytewise,
    read,
    read_until_error,
    refusal,
    refused_alike,
    request,
    responses,
    splits,
)

CONTINUE = ResponseHead((1, 1), 100, b"Continue", Headers(), NO_BODY)
HINTS = ResponseHead((1, 1), 103, b"Early Hints", Headers([(b"Link", b"</a>")]), NO_BODY)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
NOT_HTTP = "the origin's answer is not HTTP/1"
INSIDE = "the origin closed the connection inside its response"
WITHOUT = "the origin closed the connection without a response"


def ok(framing: Framing, *fields: tuple[bytes, bytes]) -> ResponseHead:
    return ResponseHead((1, 1), 200, b"OK", Headers(fields), framing)


class GoodResponsesTests(SynchronousTestCase):
    def test_a_status_line_may_lack_a_reason_or_have_any(self) -> None:
        table = {
            b"HTTP/1.1 200 OK": (200, b"OK"),
            b"HTTP/1.1 200 ": (200, b""),
            b"HTTP/1.1 200": (200, b""),
            b"HTTP/1.1 404 Not  Here\t!": (404, b"Not  Here\t!"),
            b"HTTP/1.1 999 \xe9\xff": (999, b"\xe9\xff"),
            b"HTTP/1.1 600 200 OK": (600, b"200 OK"),
        }
        for line, (status, reason) in table.items():
            head = read(responses(), request(line, b"Content-Length: 0"))[0]
            assert isinstance(head, ResponseHead)
            self.assertEqual((head.status, head.reason), (status, reason), line)

    def test_versions_of_http_1_are_one_or_nought(self) -> None:
        for text, version in ((b"1.0", (1, 0)), (b"1.1", (1, 1)), (b"1.3", (1, 1))):
            head = read(responses(), b"HTTP/" + text + b" 204 x\r\n\r\n")[0]
            assert isinstance(head, ResponseHead)
            self.assertEqual(head.version, version)

    def test_interim_responses_come_before_the_final_one(self) -> None:
        data = INTERIM + answer(b"Content-Length: 2", body=b"ab")
        expected = [CONTINUE, HINTS, ok(Framing(Kind.LENGTH, 2), (b"Content-Length", b"2")), b"ab", END]
        for pieces in ([data], bytewise(data), *splits(data)):
            self.assertEqual(read(responses(), *pieces), expected)

    def test_between_interim_and_final_responses_no_byte_of_the_next_was_seen(self) -> None:
        reader = responses()
        reader.feed(INTERIM)
        self.assertEqual((reader.between, reader.ended), (True, False))
        reader.feed(b"H")
        self.assertFalse(reader.between)

    def test_a_flood_of_interim_responses_is_given_in_turns(self) -> None:
        reader = responses()
        given = len(reader.feed(b"HTTP/1.1 100\r\n\r\n" * 5000))
        while reader.more:
            events = len(reader.feed(b""))
            self.assertLessEqual(events, MOST_EVENTS)
            given += events
        self.assertEqual((given, reader.waiting), (5000, 0))

    def test_a_response_that_can_have_no_body_ends_with_its_head(self) -> None:
        for method, status in (
            (b"HEAD", b"200"),
            (b"HEAD", b"404"),
            (b"GET", b"204"),
            (b"GET", b"304"),
            (b"CONNECT", b"200"),
        ):
            for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"):
                reader = responses(method)
                events = reader.feed(request(b"HTTP/1.1 " + status + b" x", field, body=b"hello"))
                self.assertEqual(events[1:], [END], (method, status, field))
                self.assertEqual(reader.waiting, 5)

    def test_what_stands_behind_a_response_waits(self) -> None:
        reader = responses()
        reader.feed(answer(b"Content-Length: 1", body=b"a") + answer(b"Content-Length: 1", body=b"b"))
        self.assertTrue(reader.ended)
        reader.expect(b"GET")
        self.assertEqual(reader.feed(b"")[1:], [b"b", END])

    def test_each_response_is_read_for_the_method_it_answers(self) -> None:
        reader = ResponseReader(HeadLimits())
        for method, body in ((b"HEAD", []), (b"GET", [b"a"]), (b"HEAD", [])):
            reader.expect(method)
            data = answer(b"Content-Length: 1") + b"".join(body)
            self.assertEqual(reader.feed(data)[1:], [*body, END])

    def test_chunks_of_a_response_keep_their_marks(self) -> None:
        data = answer(b"Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n")
        head = ok(CHUNKED, (b"Transfer-Encoding", b"chunked"))
        for pieces in ([data], bytewise(data), *splits(data)):
            self.assertEqual(read(responses(), *pieces), [head, Chunk(1), b"a", CHUNK_END, END])


class SwitchedTests(SynchronousTestCase):
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

    def test_the_bytes_behind_the_head_come_with_it_and_are_no_messages(self) -> None:
        for rest in (b"", b"\x81\x05hello", answer(b"Content-Length: 0"), b"\r\n"):
            reader = responses()
            events = reader.feed(self.head + rest)
            self.assertEqual(events[1:], [Switched(rest)])
            self.assertEqual((reader.waiting, reader.consumed), (0, len(self.head + rest)))

    def test_the_reader_is_over_and_has_not_ended_well(self) -> None:
        reader = responses()
        reader.feed(self.head)
        self.assertFalse(reader.ended)
        self.assertEqual(reader.eof(), [])
        reader.expect(b"GET")
        self.assertEqual(reader.feed(answer(b"Content-Length: 0")), [])
        self.assertEqual(reader.waiting, 0)

    def test_it_may_come_after_interim_responses(self) -> None:
        events = read(responses(), INTERIM + self.head + b"rest")
        self.assertEqual((events[:2], events[-1]), ([CONTINUE, HINTS], Switched(b"rest")))


class EofTests(SynchronousTestCase):
    def test_it_ends_a_body_that_lasts_until_then(self) -> None:
        reader = responses()
        self.assertEqual(reader.feed(answer(b"X: y")), [ok(UNTIL_CLOSE, (b"X", b"y"))])
        for piece in (b"a", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
            self.assertEqual(reader.feed(piece), [piece])
        self.assertFalse(reader.ended)
        self.assertEqual(reader.eof(), [END])
        self.assertTrue(reader.ended)
        self.assertEqual(reader.eof(), [])

    def test_after_an_end_it_gives_nothing(self) -> None:
        reader = responses()
        reader.feed(answer(b"Content-Length: 0"))
        self.assertEqual(reader.eof(), [])
        self.assertTrue(reader.ended)

    def test_inside_a_response_it_is_an_error_wherever_it_comes(self) -> None:
        for data in (
            INTERIM + answer(b"Content-Length: 3", body=b"abc"),
            answer(b"Transfer-Encoding: chunked", body=b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"),
            answer(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        ):
            for at in range(1, len(data)):
                reader = responses()
                reader.feed(data[:at])
                between = data[:at] in (INTERIM, INTERIM[:25])
                with self.assertRaises(WireError) as caught:
                    reader.eof()
                reason = WITHOUT if between else INSIDE
                self.assertEqual((caught.exception.status, caught.exception.reason), (502, reason), data[:at])
                self.assertFalse(reader.ended)
                self.assertEqual(reader.eof(), [])

    def test_without_a_response_it_is_an_error_of_its_own(self) -> None:
        with self.assertRaises(WireError) as caught:
            responses().eof()
        self.assertEqual((caught.exception.status, caught.exception.reason), (502, WITHOUT))

    def test_what_waits_for_a_turn_is_given_with_it(self) -> None:
        for last, cut_short in ((b"0\r\n\r\n", False), (b"1\r\n", True)):
            reader = responses()
            events: list[Event] = reader.feed(answer(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 2000 + last))
            self.assertTrue(reader.more)
            if cut_short:
                self.assertRaises(WireError, reader.eof)
            else:
                events += reader.eof()
                self.assertEqual(len(events), 1 + 3 * 2000 + 1)
                self.assertTrue(reader.ended)

    def test_after_an_error_it_gives_nothing(self) -> None:
        reader = responses()
        self.assertRaises(WireError, reader.feed, b"garbage")
        self.assertEqual(reader.eof(), [])
        self.assertFalse(reader.ended)


class BadResponsesTests(SynchronousTestCase):
    def test_each_is_refused_as_the_origins_fault(self) -> None:
        line = "the status line is malformed"
        version = "the origin speaks another version of HTTP"
        table = {
            b"HTTP/1.1": line,
            b"HTTP/1.1 ": line,
            b"HTTP/1.1 20": line,
            b"HTTP/1.1 2000 OK": line,
            b"HTTP/1.1 20x OK": line,
            b"HTTP/1.1 +20 OK": line,
            b"HTTP/1.1 000 OK": line,
            b"HTTP/1.1 099 OK": line,
            b"HTTP/1.1  200 OK": line,
            b"HTTP/1.1\t200 OK": line,
            b"HTTP/1.1 200\tOK": line,
            b"HTTP/1.1 200OK": line,
            b"HTTP/1.1 200 O\0K": line,
            b"HTTP/1.1 200 O\x0bK": line,
            b"HTTP/1.1 200 OK\x7f": line,
            b"HTTP/1.1 200 OK\r": line,
            b"HTTP/1.1 200 O\rK": line,
            b"HTTP/1.1 \xb2\xb2\xb2 OK": line,
            b"HTTP/1 200 OK": line,
            b"HTTP/2 200": line,
            b"HTTP/1.10 200 OK": line,
            b"HTTP/11 200 OK": line,
            b"HTTP/ 1.1 200 OK": line,
            b"HTTP/2.0 200 OK": version,
            b"HTTP/0.9 200 OK": version,
            b"HTTP/3.1 200 OK": version,
            b"http/1.1 200 OK": NOT_HTTP,
            b" HTTP/1.1 200 OK": NOT_HTTP,
            b"\r\nHTTP/1.1 200 OK": NOT_HTTP,
            b"HTTQ/1.1 200 OK": NOT_HTTP,
            b"ICY 200 OK": NOT_HTTP,
            b"<html>hello</html>": NOT_HTTP,
            b"SSH-2.0-OpenSSH_9.6": NOT_HTTP,
            b"\x15\x03\x01\x00\x02\x02\x46": NOT_HTTP,
            b"GET / HTTP/1.1": NOT_HTTP,
        }
        for first, reason in table.items():
            data = request(first, b"Content-Length: 0")
            self.assertEqual(refused_alike(ResponseReader, data), (502, reason), first)

    def test_what_is_no_response_is_refused_before_its_end_is_waited_for(self) -> None:
        lines = (b"HTTP/1.1 200 OK\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2\r\n")
        for data in (b"S", b"HTTQ", b"\r", b"\n", b"<html>", *lines):
            for pieces in ([data], bytewise(data)):
                error = read_until_error(responses(), *pieces)[1]
                self.assertIsNotNone(error, data)

    def test_the_beginning_of_a_good_response_is_waited_for(self) -> None:
        data = answer(b"Content-Length: 0")
        for at in range(len(data)):
            self.assertEqual(responses().feed(data[:at]), [])

    def test_bad_lines_are_refused_wherever_they_stand(self) -> None:
        for bad in (b" a: b", b"a : b", b"a", b": b", b"a: \0", b"a: b\nc: d", b"a: b\rc: d", b"\xff: a"):
            for lines in ([bad, b"X: y"], [b"X: y", bad], [b"X: y", bad, b"Z: z"]):
                got = refused_alike(ResponseReader, answer(*lines))
                self.assertEqual(None if got is None else got[0], 502, lines)

    def test_limits_are_the_origins_fault_too(self) -> None:
        limits = HeadLimits(head=100, fields=3, trailers=20)
        table = {
            answer(b"X: " + b"y" * 200): "the head is too large",
            b"HTTP/1.1 200 " + b"x" * 200: "the head is too large",
            answer(b"a:", b"a:", b"a:", b"a:"): "too many fields",
            answer(b"Transfer-Encoding: chunked", body=b"0\r\nX: " + b"y" * 30): "trailers are too large",
        }
        for data, reason in table.items():
            self.assertEqual(refusal(responses(b"GET", limits), data), (502, reason))

    def test_interim_responses_before_a_bad_one_were_given(self) -> None:
        events, error = read_until_error(responses(), INTERIM, b"HTTP/9.9 200 OK\r\n\r\n")
        self.assertEqual(events, [CONTINUE, HINTS])
        self.assertIsNotNone(error)

    def test_after_an_error_nothing_is_given_or_kept(self) -> None:
        reader = responses()
        self.assertRaises(WireError, reader.feed, b"garbage")
        reader.expect(b"GET")
        self.assertEqual(reader.feed(answer(b"Content-Length: 0")), [])
        self.assertEqual((reader.waiting, reader.ended), (0, False))
