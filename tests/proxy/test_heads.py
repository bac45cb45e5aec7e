"""Heads as they go on, one function at a time; the writer that goes with them."""

import http

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import heads
from streamproxy.rules.verdict import HeaderEdits
from streamproxy.wire.chunked import ChunksKept, ChunksMade, Plain
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind, RequestHead, ResponseHead
from streamproxy.wire.target import parse_absolute

FIVE = Framing(Kind.LENGTH, 5)


def fields_of(text: bytes) -> Headers:
    return Headers(tuple(line.split(b": ", 1)) for line in text.splitlines())


def request(
    fields: bytes = b"Host: a.example", framing: Framing = NO_BODY, method: bytes = b"GET", version=(1, 1), **more
):
    """The fields of a request that goes on, and the class of its writer."""
    target = b"http://a.example/x"
    head = RequestHead(method, target, version, fields_of(fields), framing)
    given = {
        "host": b"a.example",
        "edits": (),
        "changed": False,
        "readable": False,
        "whole": False,
        "continued": False,
        "length": None,
        "via": b"proxy",
    }
    data, writer = heads.forward_request(head, parse_absolute(target, method), **{**given, **more})
    start, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert start == method + b" /x HTTP/1.1"
    return lines, type(writer)


def response(fields: bytes = b"", framing: Framing = FIVE, status: int = 200, **more):
    """The fields of a response that goes on, how its body is framed, and the class of its writer."""
    head = ResponseHead((1, 1), status, b"Words", fields_of(fields), framing)
    given = {
        "edits": (),
        "changed": False,
        "length": None,
        "client_version": (1, 1),
        "close": False,
        "via": b"proxy",
    }
    data, kind, writer = heads.forward_response(head, **{**given, **more})
    start, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert start == b"HTTP/1.1 %d Words" % status
    return lines, kind, type(writer)


VIA = b"Via: 1.1 proxy"
CLOSE = b"Connection: close"


class FramingTests(SynchronousTestCase):
    """The table of what a body's framing becomes."""

    LENGTH = b"content-length: 5"
    CODED = b"transfer-encoding: chunked"
    MADE = b"Transfer-Encoding: chunked"

    def test_of_responses(self):
        for framing, field, changed, length, version, kind, writer, line in (
            (FIVE, self.LENGTH, False, None, (1, 1), Kind.LENGTH, Plain, self.LENGTH),
            (FIVE, self.LENGTH, False, None, (1, 0), Kind.LENGTH, Plain, self.LENGTH),
            (FIVE, self.LENGTH, True, None, (1, 1), Kind.CHUNKED, ChunksMade, self.MADE),
            (FIVE, self.LENGTH, True, None, (1, 0), Kind.CLOSE, Plain, None),
            (FIVE, self.LENGTH, True, 9, (1, 1), Kind.LENGTH, Plain, b"content-length: 9"),
            (FIVE, self.LENGTH, True, 0, (1, 0), Kind.LENGTH, Plain, b"content-length: 0"),
            (CHUNKED, self.CODED, False, None, (1, 1), Kind.CHUNKED, ChunksKept, self.CODED),
            (CHUNKED, self.CODED, True, None, (1, 1), Kind.CHUNKED, ChunksMade, self.CODED),
            (CHUNKED, self.CODED, True, 9, (1, 1), Kind.CHUNKED, ChunksMade, self.CODED),
            (CHUNKED, self.CODED, False, None, (1, 0), Kind.CLOSE, Plain, None),
            (CHUNKED, self.CODED, True, None, (1, 0), Kind.CLOSE, Plain, None),
            (UNTIL_CLOSE, b"X: 1", False, None, (1, 1), Kind.CLOSE, Plain, None),
            (UNTIL_CLOSE, b"X: 1", True, 9, (1, 1), Kind.CLOSE, Plain, None),
            (NO_BODY, self.LENGTH, False, None, (1, 1), Kind.NONE, Plain, self.LENGTH),
            (NO_BODY, self.LENGTH, True, None, (1, 1), Kind.NONE, Plain, None),
            (NO_BODY, self.CODED, False, None, (1, 1), Kind.NONE, Plain, None),
        ):
            lines, got_kind, got_writer = response(
                field, framing, changed=changed, length=length, client_version=version
            )
            where = (framing, changed, length, version)
            self.assertEqual((got_kind, got_writer), (kind, writer), where)
            told = [each for each in lines if each.lower().startswith((b"content-length", b"transfer-encoding"))]
            self.assertEqual(told, [] if line is None else [line], where)
            self.assertEqual(CLOSE in lines, kind is Kind.CLOSE, where)

    def test_of_requests(self):
        host = b"Host: a.example\n"
        for framing, field, changed, length, writer, line in (
            (FIVE, self.LENGTH, False, None, Plain, self.LENGTH),
            (FIVE, self.LENGTH, True, None, ChunksMade, self.MADE),
            (FIVE, self.LENGTH, True, 9, Plain, b"content-length: 9"),
            (CHUNKED, self.CODED, False, None, ChunksKept, self.CODED),
            (CHUNKED, self.CODED, True, None, ChunksMade, self.CODED),
        ):
            lines, got = request(host + field, framing, b"POST", changed=changed, length=length)
            self.assertEqual(got, writer)
            self.assertEqual(lines, [b"Host: a.example", line, VIA])

    def test_a_length_told_twice_is_told_once(self):
        self.assertEqual(
            response(b"Content-Length: 5\nX: 1\ncontent-length: 5")[0], [b"Content-Length: 5", b"X: 1", VIA]
        )
        self.assertEqual(
            response(b"Content-Length: 5\ncontent-length: 5", changed=True)[0], [b"Transfer-Encoding: chunked", VIA]
        )

    def test_a_204_announces_nothing(self):
        self.assertEqual(response(b"Content-Length: 5\nX: 1", NO_BODY, 204)[0], [b"X: 1", VIA])


class HopByHopTests(SynchronousTestCase):
    def test_they_stay_behind_in_both_directions(self):
        hop = (
            b"Connection: keep-alive\nKeep-Alive: 5\nProxy-Connection: x\nTE: gzip\nUpgrade: h2c\n"
            b"Proxy-Authorization: x\nProxy-Authentication-Info: x"
        )
        self.assertEqual(request(b"Host: a.example\n" + hop + b"\nX: 1")[0], [b"Host: a.example", b"X: 1", VIA])
        self.assertEqual(response(b"A: 1\n" + hop + b"\nContent-Length: 5")[0], [b"A: 1", b"Content-Length: 5", VIA])

    def test_what_connection_names_stays_behind_too(self):
        self.assertEqual(response(b"A: 1\nB: 2\nConnection: b,, Close\nC: 3\nb: 4\nConnection: C")[0], [b"A: 1", VIA])

    def test_what_a_message_means_cannot_be_named_away(self):
        kept = (
            b"Host: a.example\nContent-Length: 5\nContent-Type: a/b\nContent-Encoding: x\nContent-Range: bytes 0-4/9\n"
            b"Cache-Control: no-store\nDate: now"
        )
        names = b", ".join(line.split(b":")[0] for line in kept.splitlines())
        lines, _ = request(kept + b"\nConnection: " + names + b", transfer-encoding", FIVE, b"POST")
        self.assertEqual(lines, [*kept.splitlines(), VIA])

    def test_trailers_are_agreed_to_where_the_client_agrees(self):
        agreed = [b"TE: trailers", b"Connection: TE"]
        self.assertEqual(request(b"Host: a.example\nTE: trailers")[0], [b"Host: a.example", *agreed, VIA])
        self.assertEqual(request(b"Host: a.example\nTE: gzip\nte: Trailers")[0], [b"Host: a.example", *agreed, VIA])
        self.assertEqual(request(b"Host: a.example\nTE: gzip")[0], [b"Host: a.example", VIA])

    def test_trailer_goes_on_for_trailers_do(self):
        self.assertEqual(
            response(b"Trailer: X\nTransfer-Encoding: chunked", CHUNKED)[0],
            [b"Trailer: X", b"Transfer-Encoding: chunked", VIA],
        )


class RequestTests(SynchronousTestCase):
    def test_host_is_the_targets_where_it_stood_or_in_front(self):
        self.assertEqual(request(b"A: 1\nhost: b.example\nB: 2")[0], [b"A: 1", b"host: a.example", b"B: 2", VIA])
        self.assertEqual(request(b"A: 1", version=(1, 0))[0], [b"Host: a.example", b"A: 1", b"Via: 1.0 proxy"])

    def test_expect_goes_on_unless_the_proxy_has_answered_it(self):
        fields = b"Host: a.example\nExpect: 100-continue"
        self.assertIn(b"Expect: 100-continue", request(fields, FIVE, b"POST")[0])
        self.assertNotIn(b"Expect: 100-continue", request(fields, FIVE, b"POST", continued=True)[0])

    def test_max_forwards_counts_down_for_the_methods_that_have_it(self):
        fields = b"Host: a.example\nMax-Forwards: %b"
        for method, given, goes_on in (
            (b"OPTIONS", b"10", b"9"),
            (b"TRACE", b"1", b"0"),
            (b"GET", b"1", b"1"),
            (b"OPTIONS", b"some", b"some"),
            (b"OPTIONS", b"-1", b"-1"),
            (b"OPTIONS", b"9" * 5000, b"9" * 5000),
        ):
            self.assertEqual(request(fields % given, method=method)[0][1], b"Max-Forwards: " + goes_on)

    def test_an_answer_that_will_be_read_is_asked_for_whole_and_in_codings_that_can_be_undone(self):
        fields = (
            b"Host: a.example\nRange: bytes=1-\nX: 1\nIf-Range: a\nAccept-Encoding: gzip, dcz\naccept-encoding: br, *"
        )
        self.assertEqual(
            request(fields, readable=True, whole=True)[0],
            [b"Host: a.example", b"X: 1", b"Accept-Encoding: gzip, br", VIA],
        )
        self.assertEqual(
            request(b"Host: a.example", readable=True, whole=True)[0],
            [b"Host: a.example", b"Accept-Encoding: identity", VIA],
        )

    def test_an_answer_that_may_be_read_may_be_a_part(self):
        fields = b"Host: a.example\nRange: bytes=1-\nAccept-Encoding: dcz, zstd;q=0.5"
        self.assertEqual(
            request(fields, readable=True)[0],
            [b"Host: a.example", b"Range: bytes=1-", b"Accept-Encoding: zstd;q=0.5", VIA],
        )
        self.assertEqual(request(b"Host: a.example", readable=True)[0], [b"Host: a.example", VIA])

    def test_edits_come_last_but_for_what_is_the_connections(self):
        edits = [
            HeaderEdits(remove=(b"x", b"te", b"via"), set=((b"Host", b"new"), (b"Y", b"1")), add=((b"Z", b"2"),)),
            HeaderEdits(set=((b"y", b"3"),)),
        ]
        self.assertEqual(
            request(b"Host: b\nX: 1\nVia: 1.1 other\nTE: trailers", edits=edits)[0],
            [b"Host: new", b"Y: 3", b"Z: 2", b"TE: trailers", b"Connection: TE", VIA],
        )

    def test_what_vouches_for_changed_bytes_goes(self):
        fields = b"Host: a.example\nContent-MD5: x\nContent-Digest: x\nDigest: x\nRepr-Digest: x\nContent-Length: 5"
        self.assertEqual(
            request(fields, FIVE, b"PUT", changed=True, length=5)[0], [b"Host: a.example", b"Content-Length: 5", VIA]
        )
        self.assertEqual(request(fields, FIVE, b"PUT")[0], [*fields.splitlines(), VIA])


class ResponseTests(SynchronousTestCase):
    def test_etags_become_weak_where_the_bytes_change(self):
        self.assertEqual(response(b'ETag: "a"', UNTIL_CLOSE, changed=True)[0], [b'ETag: W/"a"', VIA, CLOSE])
        self.assertEqual(response(b'etag: W/"a"', UNTIL_CLOSE, changed=True)[0], [b'etag: W/"a"', VIA, CLOSE])
        self.assertEqual(response(b'ETag: "a"\nAccept-Ranges: bytes')[0], [b'ETag: "a"', b"Accept-Ranges: bytes", VIA])

    def test_close_is_said_where_the_connection_ends(self):
        self.assertEqual(response(b"Content-Length: 5", close=True)[0], [b"Content-Length: 5", VIA, CLOSE])

    def test_an_interim_response_keeps_its_fields_but_those_of_the_connection_and_of_a_body(self):
        head = ResponseHead(
            (1, 1), 103, b"Early Hints", fields_of(b"Link: </a>\nConnection: x\nX: 1\nContent-Length: 5"), NO_BODY
        )
        self.assertEqual(
            heads.forward_interim(head, b"proxy"), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 proxy\r\n\r\n"
        )


class CloseTests(SynchronousTestCase):
    def test_when_the_connection_ends_after_a_message(self):
        for version, fields, closes in (
            ((1, 1), b"", False),
            ((1, 1), b"Connection: keep-alive", False),
            ((1, 1), b"Connection: x, Close", True),
            ((1, 1), b"Connection: x\nconnection: CLOSE", True),
            ((1, 1), b"X: close", False),
            ((1, 0), b"", True),
            ((1, 0), b"Connection: Keep-Alive", False),
            ((1, 0), b"Connection: close", True),
        ):
            self.assertIs(heads.wants_close(version, fields_of(fields)), closes, (version, fields))


class ReasonTests(SynchronousTestCase):
    def test_the_standards_words_or_none(self):
        for status in http.HTTPStatus:
            self.assertEqual(heads.reason_phrase(status.value), status.phrase.encode())
        for status in (299, 599, 999):
            self.assertEqual(heads.reason_phrase(status), b"")
