"""How a body's end is known: every head that can be read in two ways is refused, whole or byte by byte."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.framing import content_length, is_chunked, request_framing, response_framing
from streamproxy.wire.headers import Headers
from streamproxy.wire.http1 import RequestReader, ResponseReader
from streamproxy.wire.message import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind, RequestHead
from tests.wire.reading import answer, post, read, refusal, refused_alike, request, requests, responses

LENGTH = "Content-Length is not a number of bytes"
DIFFER = "several Content-Lengths that differ"
BOTH = "both Content-Length and Transfer-Encoding"
OLD = "Transfer-Encoding in an HTTP/1.0 message"
NOT_LAST = "chunked is not the last transfer coding"
MALFORMED = "Transfer-Encoding is malformed"
UNKNOWN = "an unknown transfer coding"
TAB = "a tab beside a transfer coding"
CONTROL = "a control character in the value of a field"

# Lines of a head, and how it is refused; the same in a request and in a response.
TWO_WAYS: dict[tuple[bytes, ...], tuple[int, str]] = {
    # Two framings.
    (b"Content-Length: 5", b"Transfer-Encoding: chunked"): (400, BOTH),
    (b"Transfer-Encoding: chunked", b"Content-Length: 5"): (400, BOTH),
    (b"Content-Length: 0", b"Transfer-Encoding: chunked"): (400, BOTH),
    (b"Content-Length:", b"Transfer-Encoding: chunked"): (400, BOTH),
    (b"Content-Length: 5", b"Transfer-Encoding: identity"): (400, BOTH),
    (b"Content-Length: 5", b"Transfer-Encoding:"): (400, BOTH),
    (b"content-length: 5", b"TRANSFER-ENCODING: x"): (400, BOTH),
    # Two lengths.
    (b"Content-Length: 5", b"Content-Length: 6"): (400, DIFFER),
    (b"Content-Length: 5", b"CONTENT-LENGTH: 05"): (400, DIFFER),
    (b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 4"): (400, DIFFER),
    (b"Content-Length: 5", b"Content-Length:"): (400, DIFFER),
    (b"Content-Length: 5", b"Content-Length: x"): (400, DIFFER),
    (b"Content-Length:", b"Content-Length: 5"): (400, LENGTH),
    # Lengths that aren't digits alone.
    (b"Content-Length:",): (400, LENGTH),
    (b"Content-Length: 5, 5",): (400, LENGTH),
    (b"Content-Length: 5,5",): (400, LENGTH),
    (b"Content-Length: 5,",): (400, LENGTH),
    (b"Content-Length: 5, 6",): (400, LENGTH),
    (b"Content-Length: +5",): (400, LENGTH),
    (b"Content-Length: -5",): (400, LENGTH),
    (b"Content-Length: -0",): (400, LENGTH),
    (b"Content-Length: 0x5",): (400, LENGTH),
    (b"Content-Length: 5_0",): (400, LENGTH),
    (b"Content-Length: 5 0",): (400, LENGTH),
    (b"Content-Length: 5.0",): (400, LENGTH),
    (b"Content-Length: 5e1",): (400, LENGTH),
    (b"Content-Length: 5;",): (400, LENGTH),
    (b'Content-Length: "5"',): (400, LENGTH),
    (b"Content-Length: 5b",): (400, LENGTH),
    (b"Content-Length: abc",): (400, LENGTH),
    (b"Content-Length: \xb2",): (400, LENGTH),
    (b"Content-Length: \xd9\xa3",): (400, LENGTH),
    (b"Content-Length: \xa05",): (400, LENGTH),
    (b"Content-Length: " + b"9" * 19,): (400, LENGTH),
    (b"Content-Length: " + b"0" * 18 + b"5",): (400, LENGTH),
    (b"Content-Length: 18446744073709551621",): (400, LENGTH),
    (b"Content-Length: " + b"1" * 5000,): (400, LENGTH),
    (b"Content-Length: \x0b5",): (400, CONTROL),
    (b"Content-Length: 5\x0c",): (400, CONTROL),
    (b"Content-Length: 5\0",): (400, CONTROL),
    # Transfer codings.
    (b"Transfer-Encoding: chunked, chunked",): (400, NOT_LAST),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"): (400, NOT_LAST),
    (b"Transfer-Encoding: chunked, gzip",): (400, NOT_LAST),
    (b"Transfer-Encoding: chunked, identity",): (400, NOT_LAST),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"): (400, NOT_LAST),
    (b"Transfer-Encoding: gzip, chunked",): (501, UNKNOWN),
    (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"): (501, UNKNOWN),
    (b"Transfer-Encoding: identity, chunked",): (501, UNKNOWN),
    (b"Transfer-Encoding: gzip",): (501, UNKNOWN),
    (b"Transfer-Encoding: identity",): (501, UNKNOWN),
    (b"Transfer-Encoding: xchunked",): (501, UNKNOWN),
    (b"Transfer-Encoding: chunkedx",): (501, UNKNOWN),
    (b"Transfer-Encoding: chunked chunked",): (501, UNKNOWN),
    (b"Transfer-Encoding: chunked;q=1",): (501, UNKNOWN),
    (b'Transfer-Encoding: "chunked"',): (501, UNKNOWN),
    (b"Transfer-Encoding: 'chunked'",): (501, UNKNOWN),
    (b"Transfer-Encoding: chun\tked",): (501, UNKNOWN),
    (b"Transfer-Encoding: chunked\xa0",): (501, UNKNOWN),
    (b"Transfer-Encoding: \xffchunked",): (501, UNKNOWN),
    (b"Transfer-Encoding: chun\xe2\x84\xaaed",): (501, UNKNOWN),
    (b"Transfer-Encoding:",): (400, MALFORMED),
    (b"Transfer-Encoding: ,",): (400, MALFORMED),
    (b"Transfer-Encoding: ,chunked",): (400, MALFORMED),
    (b"Transfer-Encoding: chunked,",): (400, MALFORMED),
    (b"Transfer-Encoding: chunked , ,",): (400, MALFORMED),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding:"): (400, MALFORMED),
    (b"Transfer-Encoding: \x0bchunked",): (400, CONTROL),
    (b"Transfer-Encoding: chunked\x0b",): (400, CONTROL),
    (b"Transfer-Encoding: \x0cchunked",): (400, CONTROL),
    (b"Transfer-Encoding: chunked\0",): (400, CONTROL),
    (b"Transfer-Encoding:\tchunked",): (400, TAB),
    (b"transfer-encoding: chunked\t",): (400, TAB),
    (b"Transfer-Encoding: \t chunked \t ", b"X: y"): (400, TAB),
    # Lines that one reader takes for a framing field, and another doesn't.
    (b"Transfer-Encoding : chunked",): (400, "white space between a field's name and its colon"),
    (b"Transfer-Encoding\t: chunked",): (400, "white space between a field's name and its colon"),
    (b"Content-Length : 5",): (400, "white space between a field's name and its colon"),
    (b"\0Content-Length: 5",): (400, "a field name with a character that may not stand there"),
    (b"Content\xadLength: 5\xff: 5",): (400, "a field name with a character that may not stand there"),
    (b"X: y", b" Transfer-Encoding: chunked"): (400, "a folded field line"),
    (b"Transfer-Encoding:", b" chunked"): (400, "a folded field line"),
    (b"Content-Length: 5", b"\t0"): (400, "a folded field line"),
    (b"X: y\nContent-Length: 5",): (400, "a line that ends with a bare LF"),
    (b"X: y\n\nGET / HTTP/1.1",): (400, "a line that ends with a bare LF"),
    (b"X: y\rContent-Length: 5",): (400, "a bare CR in a field"),
    (b"X: y\r\rContent-Length: 5",): (400, "a bare CR in a field"),
    (b"Content-Length: 5\r",): (400, "a bare CR in a field"),
    (b"Content-Length 5",): (400, "a field line without a colon"),
}


class TwoWaysTests(SynchronousTestCase):
    def test_a_request_is_refused(self) -> None:
        for lines, expected in TWO_WAYS.items():
            data = post(*lines, body=b"5\r\nhello\r\n0\r\n\r\n")
            self.assertEqual(refused_alike(RequestReader, data), expected, lines)

    def test_a_response_is_refused_and_the_fault_is_the_origins(self) -> None:
        for lines, (_status, reason) in TWO_WAYS.items():
            data = answer(*lines, body=b"5\r\nhello\r\n0\r\n\r\n")
            self.assertEqual(refused_alike(ResponseReader, data), (502, reason), lines)

    def test_a_response_is_refused_even_where_no_body_can_be(self) -> None:
        for lines, (_status, reason) in TWO_WAYS.items():
            if reason == TAB:
                # Where no body can be, it makes no difference.
                continue
            for status in (b"100", b"103", b"204", b"304"):
                data = request(b"HTTP/1.1 " + status + b" x", *lines)
                self.assertEqual(refusal(responses(), data), (502, reason), (status, lines))
            self.assertEqual(refusal(responses(b"HEAD"), answer(*lines)), (502, reason), lines)
            self.assertEqual(refusal(responses(b"CONNECT"), answer(*lines)), (502, reason), lines)

    def test_transfer_encoding_is_refused_in_http_1_0(self) -> None:
        for lines in ((b"Transfer-Encoding: chunked",), (b"Transfer-Encoding: x", b"Content-Length: 1")):
            self.assertEqual(refused_alike(RequestReader, request(b"POST / HTTP/1.0", b"Host: a", *lines)), (400, OLD))
            self.assertEqual(refused_alike(ResponseReader, request(b"HTTP/1.0 200 OK", *lines)), (502, OLD))

    def test_a_connect_request_with_a_body_is_refused(self) -> None:
        line = b"CONNECT a:443 HTTP/1.1"
        for field in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
            data = request(line, b"Host: a:443", field, body=b"0\r\n\r\n")
            self.assertEqual(refused_alike(RequestReader, data), (400, "a CONNECT request with a body"), field)
        events = read(requests(), request(line, b"Host: a:443", b"Content-Length: 0"))
        self.assertEqual(len(events), 2)

    def test_of_a_refused_message_nothing_is_given(self) -> None:
        for lines in TWO_WAYS:
            reader = requests()
            try:
                reader.feed(post(*lines, body=b"hello"))
            except Exception:
                reader.next_message()
                self.assertEqual(reader.feed(post()), [], lines)
                self.assertEqual((reader.waiting, reader.more, reader.ended), (0, False, False), lines)
            else:
                self.fail(lines)


class RequestFramingTests(SynchronousTestCase):
    def framing(self, *lines: bytes) -> Framing:
        head = read(requests(), post(*lines))[0]
        assert isinstance(head, RequestHead)
        return head.framing

    def test_a_request_has_no_body_unless_its_head_says_so(self) -> None:
        self.assertEqual(self.framing(), NO_BODY)
        self.assertEqual(self.framing(b"Content-Type: a/b", b"Expect: 100-continue"), NO_BODY)

    def test_a_length_of_nothing_is_no_body(self) -> None:
        self.assertEqual(self.framing(b"Content-Length: 0"), NO_BODY)
        self.assertEqual(self.framing(b"Content-Length: 000"), NO_BODY)

    def test_a_length_is_decimal(self) -> None:
        for text, length in ((b"5", 5), (b"010", 10), (b"9" * 18, 10**18 - 1), (b"\t7 ", 7)):
            self.assertEqual(self.framing(b"Content-Length: " + text), Framing(Kind.LENGTH, length))

    def test_several_lengths_that_are_one_are_read_as_one(self) -> None:
        self.assertEqual(self.framing(b"Content-Length: 5", b"X: y", b"content-length: 5 "), Framing(Kind.LENGTH, 5))

    def test_chunked_is_chunked_in_any_case_and_with_spaces_around(self) -> None:
        for value in (b"chunked", b"Chunked", b"CHUNKED", b"   chunked  "):
            self.assertEqual(self.framing(b"Transfer-Encoding:" + value), CHUNKED)

    def test_tabs_in_other_fields_of_a_chunked_message_are_no_matter(self) -> None:
        lines = (b"A:\tb", b"Transfer-Encoding: chunked", b"X-Transfer-Encoding:\tc", b"D: transfer-encoding:\t")
        self.assertEqual(self.framing(*lines), CHUNKED)

    def test_framing_does_not_depend_on_the_method(self) -> None:
        for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"BREW"):
            events = read(requests(), request(method + b" / HTTP/1.1", b"Host: a", b"Content-Length: 2", body=b"ab"))
            self.assertEqual(events[1], b"ab", method)

    def test_a_name_that_is_only_like_a_framing_fields_frames_nothing(self) -> None:
        for line in (b"Content_Length: 5", b"Content-Lengt: 5", b"xTransfer-Encoding: chunked", b"TE: chunked"):
            self.assertEqual(self.framing(line), NO_BODY)


class ResponseFramingTests(SynchronousTestCase):
    def framing(self, method: bytes, status: int, *fields: tuple[bytes, bytes]) -> Framing:
        return response_framing(method, status, (1, 1), Headers(fields))

    def test_neither_length_nor_chunks_is_until_close(self) -> None:
        for version in ((1, 0), (1, 1)):
            self.assertEqual(response_framing(b"GET", 200, version, Headers()), UNTIL_CLOSE)

    def test_the_head_says_length_or_chunks(self) -> None:
        self.assertEqual(self.framing(b"GET", 200, (b"Content-Length", b"7")), Framing(Kind.LENGTH, 7))
        self.assertEqual(self.framing(b"GET", 200, (b"Content-Length", b"0")), Framing(Kind.LENGTH, 0))
        self.assertEqual(self.framing(b"GET", 500, (b"Transfer-Encoding", b"chunked")), CHUNKED)

    def test_some_responses_have_no_body_whatever_their_head_says(self) -> None:
        for field in ((b"Content-Length", b"7"), (b"Transfer-Encoding", b"chunked"), (b"X", b"y")):
            for method, status in (
                (b"GET", 100),
                (b"GET", 101),
                (b"GET", 199),
                (b"GET", 204),
                (b"GET", 304),
                (b"HEAD", 200),
                (b"HEAD", 404),
                (b"CONNECT", 200),
                (b"CONNECT", 299),
            ):
                self.assertEqual(self.framing(method, status, field), NO_BODY, (method, status, field))

    def test_others_that_are_near_have_one(self) -> None:
        for method, status in (
            (b"GET", 205),
            (b"GET", 206),
            (b"GET", 303),
            (b"GET", 305),
            (b"CONNECT", 300),
            (b"CONNECT", 407),
            (b"head", 200),
            (b"OPTIONS", 200),
        ):
            framing = self.framing(method, status, (b"Content-Length", b"7"))
            self.assertEqual(framing, Framing(Kind.LENGTH, 7), (method, status))


class PureFunctionsTests(SynchronousTestCase):
    def test_no_framing_field_is_none(self) -> None:
        self.assertIsNone(content_length(Headers()))
        self.assertFalse(is_chunked(Headers(), (1, 0)))
        self.assertEqual(request_framing((1, 0), Headers()), NO_BODY)

    def test_a_length_in_http_1_0_is_a_length(self) -> None:
        headers = Headers([(b"Content-Length", b"3")])
        self.assertEqual(request_framing((1, 0), headers), Framing(Kind.LENGTH, 3))
        self.assertEqual(response_framing(b"GET", 200, (1, 0), headers), Framing(Kind.LENGTH, 3))
