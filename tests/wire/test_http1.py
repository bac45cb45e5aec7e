"""Requests: what is read, what is refused and with which status, and where a reader stops."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.headers import Headers, request_head_bytes, response_head_bytes
from streamproxy.wire.http1 import (
    LONGEST_TARGET,
    MOST_EMPTY_LINES,
    HeadLimits,
    RequestReader,
)
from streamproxy.wire.message import END, NO_BODY, Framing, Kind, RequestHead, WireError
from tests.wire.reading import (
    bytewise,
    post,
    read,
    read_until_error,
    refusal,
    refused_alike,
    request,
    requests,
    splits,
)

LINE = "the request line is malformed"
NOT_HTTP = "this is not an HTTP request"
VERSION = "only HTTP/1.1 and HTTP/1.0 are spoken here"
LF = "a line that ends with a bare LF"
HOST = (b"Host", b"a")
GET = request(b"GET http://a/ HTTP/1.1", b"Host: a")
GET_HEAD = RequestHead(b"GET", b"http://a/", (1, 1), Headers([HOST]), NO_BODY)


class GoodRequestsTests(SynchronousTestCase):
    def test_a_request_without_a_body_is_its_head_and_an_end(self) -> None:
        self.assertEqual(read(requests(), GET), [GET_HEAD, END])

    def test_a_body_of_a_length_ends_with_its_last_byte(self) -> None:
        head, *rest = read(requests(), post(b"Content-Length: 5", body=b"hello"))
        assert isinstance(head, RequestHead)
        self.assertEqual(head.framing, Framing(Kind.LENGTH, 5))
        self.assertEqual(rest, [b"hello", END])

    def test_the_head_is_given_before_the_body_comes(self) -> None:
        reader = requests()
        self.assertEqual(len(reader.feed(post(b"Content-Length: 5"))), 1)
        self.assertEqual(reader.feed(b"he"), [b"he"])
        self.assertFalse(reader.ended)
        self.assertEqual(reader.feed(b"llo"), [b"llo", END])
        self.assertTrue(reader.ended)

    def test_method_and_target_are_kept_as_they_came(self) -> None:
        for method in (b"GET", b"get", b"M-SEARCH", b"!#$%&'*+-.^_`|~9a", b"X" * 300):
            for target in (b"/", b"*", b"a:1", b"http://a/%20?b#c", b'/"<>\\^`{|}', b"x" * 5000):
                head = read(requests(), request(method + b" " + target + b" HTTP/1.1", b"Host: a"))[0]
                assert isinstance(head, RequestHead)
                self.assertEqual((head.method, head.target), (method, target))

    def test_versions_of_http_1_are_one_or_nought(self) -> None:
        for text, version in ((b"1.0", (1, 0)), (b"1.1", (1, 1)), (b"1.2", (1, 1)), (b"1.9", (1, 1))):
            head = read(requests(), request(b"GET / HTTP/" + text, b"Host: a"))[0]
            assert isinstance(head, RequestHead)
            self.assertEqual(head.version, version)

    def test_http_1_0_needs_no_host_and_no_fields(self) -> None:
        self.assertEqual(
            read(requests(), b"GET / HTTP/1.0\r\n\r\n"),
            [RequestHead(b"GET", b"/", (1, 0), Headers(), NO_BODY), END],
        )

    def test_an_empty_host_is_a_host(self) -> None:
        self.assertIsNone(refusal(requests(), request(b"GET / HTTP/1.1", b"Host:")))

    def test_some_empty_lines_before_a_request_are_passed_over(self) -> None:
        data = b"\r\n" * MOST_EMPTY_LINES + GET
        for pieces in ([data], bytewise(data), *splits(data)):
            reader = requests()
            self.assertEqual(read(reader, *pieces), [GET_HEAD, END])
            self.assertEqual(reader.consumed, len(data))

    def test_empty_lines_are_counted_for_each_request_anew(self) -> None:
        data = (b"\r\n" * MOST_EMPTY_LINES + GET) * 3
        self.assertEqual(read(requests(), data), [GET_HEAD, END] * 3)


class PipelineTests(SynchronousTestCase):
    def test_a_reader_stops_at_the_end_until_the_next_message_is_asked_for(self) -> None:
        reader = requests()
        self.assertEqual(reader.feed(GET + GET), [GET_HEAD, END])
        self.assertEqual(reader.feed(b""), [])
        self.assertEqual(reader.feed(GET), [])
        self.assertEqual(reader.waiting, 2 * len(GET))
        for left in (len(GET), 0):
            reader.next_message()
            self.assertEqual(reader.feed(b""), [GET_HEAD, END])
            self.assertEqual(reader.waiting, left)

    def test_what_comes_in_pieces_while_stopped_is_kept_in_order(self) -> None:
        body = post(b"Content-Length: 2", body=b"ab")
        reader = requests()
        reader.feed(GET)
        for piece in bytewise(body + GET):
            self.assertEqual(reader.feed(piece), [])
        reader.next_message()
        self.assertEqual(reader.feed(b"")[1:], [b"ab", END])
        reader.next_message()
        self.assertEqual(reader.feed(b""), [GET_HEAD, END])
        self.assertEqual((reader.waiting, reader.consumed), (0, len(body) + 2 * len(GET)))

    def test_requests_behind_one_another_are_told_apart_at_every_split(self) -> None:
        data = (
            GET
            + post(b"Content-Length: 3", body=b"\r\n\r")
            + post(b"Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\nX: y\r\n\r\n")
            + b"\r\n"
            + GET
            + b"GET / HTTP/1.0\r\n\r\n"
        )
        whole = read(requests(), data)
        self.assertEqual([type(event) for event in whole].count(RequestHead), 5)
        for first, second in splits(data):
            self.assertEqual(read(requests(), first, second), whole, first)
        self.assertEqual(read(requests(), *bytewise(data)), whole)

    def test_between_tells_whether_a_byte_of_the_message_was_seen(self) -> None:
        reader = requests()
        self.assertTrue(reader.between)
        reader.feed(b"\r\n")
        self.assertTrue(reader.between)
        reader.feed(GET[:1])
        self.assertFalse(reader.between)
        reader.feed(GET[1:])
        self.assertFalse(reader.between)
        reader.next_message()
        self.assertTrue(reader.between)

    def test_the_next_message_cannot_be_asked_for_inside_one(self) -> None:
        reader = requests()
        reader.feed(post(b"Content-Length: 5"))
        self.assertRaises(AssertionError, reader.next_message)

    def test_consumed_counts_the_bytes_of_what_was_given(self) -> None:
        data = post(b"Content-Length: 3", body=b"abc") + GET + post(b"Content-Length: 9", body=b"xy")
        reader = requests()
        for at, piece in enumerate(bytewise(data), 1):
            reader.feed(piece)
            self.assertEqual(reader.consumed + reader.waiting, at)
            if reader.ended:
                reader.next_message()
        self.assertEqual((reader.consumed, reader.waiting), (len(data), 0))

    def test_consumed_stops_before_what_was_refused(self) -> None:
        reader = requests()
        read_until_error(reader, GET + b"GET\r\n\r\n")
        self.assertEqual(reader.consumed, len(GET))

    def test_another_layer_can_take_what_waits(self) -> None:
        for pieces in ([GET + b"\x16\x03rest"], [GET, *bytewise(b"\x16\x03rest")]):
            reader = requests()
            for piece in pieces:
                reader.feed(piece)
            self.assertEqual(reader.take_waiting(), b"\x16\x03rest")
            self.assertEqual((reader.waiting, reader.consumed), (0, len(GET) + 6))
            reader.next_message()
            self.assertEqual(reader.feed(GET), [])


class BadRequestLineTests(SynchronousTestCase):
    def test_each_is_refused(self) -> None:
        table = {
            b"GET": (400, LINE),
            b"GET /": (400, LINE),
            b"GET / ": (400, LINE),
            b"GET HTTP/1.1": (400, LINE),
            b"GET  HTTP/1.1": (400, LINE),
            b"GET  / HTTP/1.1": (400, LINE),
            b"GET /  HTTP/1.1": (400, LINE),
            b"GET / HTTP/1.1 ": (400, LINE),
            b"GET / HTTP/1.1 x": (400, LINE),
            b"GET / a HTTP/1.1": (400, LINE),
            b"GET\t/\tHTTP/1.1": (400, LINE),
            b"GET /\tHTTP/1.1": (400, LINE),
            b"GET\x0b/ HTTP/1.1": (400, LINE),
            b" GET / HTTP/1.1": (400, LINE),
            b"\tGET / HTTP/1.1": (400, LINE),
            b"GE(T) / HTTP/1.1": (400, LINE),
            b"G\xc9T / HTTP/1.1": (400, LINE),
            b"GET: / HTTP/1.1": (400, LINE),
            b"GET /\0 HTTP/1.1": (400, LINE),
            b"GET /\x7f HTTP/1.1": (400, LINE),
            b"GET /\xe9 HTTP/1.1": (400, LINE),
            b"GET /\r HTTP/1.1": (400, LINE),
            b"GET /\x0b HTTP/1.1": (400, LINE),
            b"GET / http/1.1": (400, LINE),
            b"GET / HTTP/1": (400, LINE),
            b"GET / HTTP/11": (400, LINE),
            b"GET / HTTP/1.1.1": (400, LINE),
            b"GET / HTTP/1.10": (400, LINE),
            b"GET / HTTP/01.1": (400, LINE),
            b"GET / HTTP/1,1": (400, LINE),
            b"GET / HTTP/+1.1": (400, LINE),
            b"GET / HTTP /1.1": (400, LINE),
            b"GET / HTTP/\xb9.1": (400, LINE),
            b"GET / HTTPS/1.1": (400, LINE),
            b"GET / ICY/1.1": (400, LINE),
            b"GET / HTTP/1.1\r": (400, LINE),
            b"GET / HTTP/0.9": (505, VERSION),
            b"GET / HTTP/2.0": (505, VERSION),
            b"PRI * HTTP/2.0": (505, VERSION),
            b"GET / HTTP/9.9": (505, VERSION),
            b"GET / HTTP/1.1\nX: y": (400, LF),
            b"GET / \nHTTP/1.1": (400, LF),
        }
        for line, (status, reason) in table.items():
            data = request(line, b"Host: a")
            self.assertEqual(refused_alike(RequestReader, data), (status, LINE if reason == LF else reason), line)

    def test_what_is_no_request_is_refused_before_its_end_is_waited_for(self) -> None:
        hello = bytes.fromhex("16030100f8010000f40303") + bytes(range(100, 132))
        table = {
            "TLS": hello,
            "TLS, its first byte": hello[:1],
            "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
            "SSH with a comment": b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13\r\n",
            "SOCKS 5": b"\x05\x01\x00",
            "SOCKS 4": b"\x04\x01\x00\x50",
            "HTTP/0.9": b"GET /\r\n",
            "HTTP/2": b"PRI * HTTP/2.0\r\n",
            "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY, binary": b"\r\n\r\n\0\r\nQUIT\n",
            "a field": b"Host: a\r\n",
            "a colon": b"Host:",
            "white space": b" ",
            "a bare LF": b"\n",
            "a bare LF behind a line": b"GET / HTTP/1.1\n",
            "a bare CR": b"\rG",
            "a CR in the method": b"GET\r",
            "two spaces": b"GET  ",
            "another protocol": b"GET / ICY",
            "NUL": b"\0",
            "a response": b"HTTP/1.1 200 OK\r\n",
            "a WebSocket frame": b"\x81\x05hello",
        }
        for name, data in table.items():
            for pieces in ([data], bytewise(data)):
                error = read_until_error(requests(), *pieces)[1]
                self.assertIsNotNone(error, name)
                assert error is not None
                self.assertEqual(error.status, 505 if name == "HTTP/2" else 400, name)

    def test_the_beginning_of_a_good_request_is_waited_for(self) -> None:
        for line in (b"GET / HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"X" * 60 + b" http://a/ HTTP/1.1"):
            data = request(line, b"Host: a")
            for at in range(len(data)):
                self.assertEqual(requests().feed(data[:at]), [])


class BadFieldsTests(SynchronousTestCase):
    def test_bad_lines_are_refused_wherever_they_stand(self) -> None:
        for bad in (b" a: b", b"a : b", b"a", b": b", b"a: \0", b"a: b\nc: d", b"a: b\rc: d", b"\xff: a", b"a\0: b"):
            for lines in ([bad, b"Host: a"], [b"Host: a", bad], [b"Host: a", bad, b"X: y"]):
                got = refused_alike(RequestReader, request(b"GET / HTTP/1.1", *lines))
                self.assertEqual(None if got is None else got[0], 400, lines)

    def test_lines_that_end_with_lf_alone_are_refused_at_once(self) -> None:
        for data in (b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n", b"GET / HTTP/1.1\r\nHost: a\r\n\n"):
            self.assertEqual(refused_alike(RequestReader, data), (400, LF), data)

    def test_an_empty_line_of_lf_alone_ends_no_head(self) -> None:
        for end in (b"\n", b"\n\n", b"\n\r\n", b"\r\n\n", b"\r\r\n", b"\r\n\r"):
            data = b"GET / HTTP/1.1\r\nHost: a" + end
            events, _error = read_until_error(requests(), data)
            self.assertEqual(events, [], end)

    def test_hosts_are_one(self) -> None:
        line = b"GET http://a/ HTTP/1.1"
        self.assertEqual(
            refused_alike(RequestReader, request(line, b"X: y")), (400, "no Host field in an HTTP/1.1 request")
        )
        for second in (b"Host: a", b"HOST: b", b"host:"):
            for version in (b"1.1", b"1.0"):
                data = request(b"GET http://a/ HTTP/" + version, b"Host: a", second)
                self.assertEqual(refused_alike(RequestReader, data), (400, "several Host fields"), second)

    def test_too_many_empty_lines_are_refused(self) -> None:
        self.assertEqual(refused_alike(RequestReader, b"\r\n" * (MOST_EMPTY_LINES + 1) + GET), (400, NOT_HTTP))


class LimitsTests(SynchronousTestCase):
    limits = HeadLimits(head=100, fields=4, trailers=50)

    def refusal(self, data: bytes) -> tuple[int, str] | None:
        results = []
        for pieces in ([data], bytewise(data), *splits(data)):
            error = read_until_error(RequestReader(self.limits), *pieces)[1]
            results.append(None if error is None else (error.status, error.reason))
        self.assertEqual(len(set(results)), 1, results)
        return results[0]

    def test_a_head_of_exactly_the_limit_is_read_and_not_one_byte_more(self) -> None:
        for over, expected in ((0, None), (1, (431, "the head is too large"))):
            head = request(b"GET / HTTP/1.1", b"Host: a")
            head = request(b"GET / HTTP/1.1", b"Host: a", b"X: " + b"y" * (100 + over - len(head) - 5))
            self.assertEqual(len(head), 100 + over)
            self.assertEqual(self.refusal(head), expected)
            self.assertEqual(self.refusal(head + head), expected)

    def test_a_head_without_an_end_is_refused_past_the_limit(self) -> None:
        start = b"GET / HTTP/1.1\r\nX: "
        self.assertIsNone(self.refusal(start + b"y" * (100 - len(start))))
        self.assertEqual(self.refusal(start + b"y" * (101 - len(start))), (431, "the head is too large"))

    def test_a_request_line_past_the_limit_has_a_status_of_its_own(self) -> None:
        data = b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertEqual(self.refusal(data), (414, "the request line is too long"))
        self.assertEqual(self.refusal(data[:101]), (414, "the request line is too long"))
        self.assertIsNone(self.refusal(data[:100]))

    def test_a_target_has_a_limit_of_its_own(self) -> None:
        for size, expected in ((LONGEST_TARGET, None), (LONGEST_TARGET + 1, (414, "the request target is too long"))):
            line = b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\n"
            # It is refused before its head is whole.
            for data in (line + b"Host: a\r\n\r\n", line):
                for pieces in ([data], [data[:20000], data[20000:]], [data[:9000], data[9000:-3], data[-3:]]):
                    error = read_until_error(requests(), *pieces)[1]
                    self.assertEqual(None if error is None else (error.status, error.reason), expected)

    def test_empty_lines_before_a_head_are_not_counted(self) -> None:
        line = b"GET /" + b"a" * 70 + b" HTTP/1.1"
        self.assertIsNone(self.refusal(b"\r\n\r\n\r\n" + request(line, b"Host: a")))

    def test_fields_are_as_many_as_the_limit_and_not_one_more(self) -> None:
        lines = [b"GET / HTTP/1.1", b"Host: a", b"b:", b"b:", b"b:"]
        self.assertIsNone(self.refusal(request(*lines)))
        self.assertEqual(self.refusal(request(*lines, b"b:")), (431, "too many fields"))

    def test_a_body_is_not_counted(self) -> None:
        data = post(b"Content-Length: 500", body=b"x" * 500)
        self.assertIsNone(self.refusal(data))


class AfterAnErrorTests(SynchronousTestCase):
    def test_nothing_is_given_or_kept(self) -> None:
        reader = requests()
        self.assertRaises(WireError, reader.feed, GET[:-4] + b"\n" + GET)
        for _ in range(2):
            self.assertEqual(reader.feed(GET), [])
            self.assertEqual((reader.waiting, reader.more, reader.ended), (0, False, False))
            reader.next_message()

    def test_messages_before_the_bad_one_are_given(self) -> None:
        data = GET + post(b"Content-Length: 2", body=b"ab") + b"BAD\r\n\r\n" + GET
        for pieces in ([data], bytewise(data), *splits(data)):
            events, error = read_until_error(requests(), *pieces)
            self.assertEqual(len(events), 5)
            self.assertIsNotNone(error)


class HoldingTests(SynchronousTestCase):
    def test_a_reader_that_has_given_all_holds_no_bytes(self) -> None:
        for data in (GET, post(b"Content-Length: 60000", body=b"x" * 60000), post(b"Content-Length: 9", body=b"x")):
            reader = requests()
            reader.feed(data)
            self.assertEqual(reader._buffer, b"")


class WritingTests(SynchronousTestCase):
    def test_a_requests_head_is_written_as_it_is_read(self) -> None:
        head = read(requests(), request_head_bytes(b"GET", b"/x", [b"Host: a", b"A: "]))[0]
        self.assertEqual(head, RequestHead(b"GET", b"/x", (1, 1), Headers([HOST, (b"A", b"")]), NO_BODY))

    def test_a_responses_head_is_written_with_its_reason(self) -> None:
        self.assertEqual(
            response_head_bytes(404, b"Not Here", [b"Host: a"]), b"HTTP/1.1 404 Not Here\r\nHost: a\r\n\r\n"
        )
        self.assertEqual(response_head_bytes(200, b"", []), b"HTTP/1.1 200 \r\n\r\n")
