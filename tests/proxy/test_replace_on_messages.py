"""The replace rule beyond its bytes: what else of a message it changes, and what it refuses aloud."""

import gzip
import random

import h11
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.replace import Replace
from tests.conversation import (
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ORIGIN_LET_GO,
    Stage,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
    settings_of,
)
from tests.fakes import LIMIT, TCP, TLS, BoundedTransport
from tests.passage import carry, cut, read_request, read_response
from tests.proxy.test_rules_on_messages import GET, HELD, OK, POST, WAYS, EitherWayTestCase

RESPONSE = "{name: swap, response: {replace: {find: foo, with: longer}}}"
REQUEST = "{name: swap, request: {replace: {find: foo, with: longer}}}"
# A rule on the response's body asks for a whole and plain one.
GOT = b"GET /x HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: identity\r\nVia: 1.1 proxy\r\n\r\n"
STREAMED = ("streamed",)


class FramingTests(EitherWayTestCase):
    def test_a_streamed_response_with_a_length_becomes_chunked(self):
        self.play_either_way(
            RESPONSE,
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: 1\r\n\r\n"),
            client_hears(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: 1\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"a"),
            client_hears(b"1\r\na\r\n"),
            origin(b"f"),
            client_hears(b""),
            origin(b"o"),
            client_hears(b""),
            origin(b"o"),
            client_hears(b"6\r\nlonger\r\n"),
            origin(b"b"),
            client_hears(b"1\r\nb\r\n0\r\n\r\n"),
            CLIENT_STAYS,
            ways=STREAMED,
            outcome="forwarded",
        )

    def test_a_held_response_with_a_length_gets_its_new_length(self):
        self.play_either_way(
            RESPONSE,
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: 1\r\n\r\nafoo"),
            client_hears(b""),
            origin(b"b"),
            client_hears(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nX: 1\r\nVia: 1.1 proxy\r\n\r\nalongerb"),
            CLIENT_STAYS,
            ways=HELD,
            outcome="forwarded",
        )

    def test_for_an_http_1_0_client_a_streamed_length_ends_with_the_connection(self):
        self.play_either_way(
            RESPONSE,
            client(b"GET http://a.example/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafoob"),
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nalongerb"),
            CLIENT_SEES_CLOSE,
            ways=STREAMED,
            outcome="forwarded",
        )

    def test_for_an_http_1_0_client_a_held_length_is_told(self):
        self.play_either_way(
            RESPONSE,
            client(b"GET http://a.example/x HTTP/1.0\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafoob"),
            client_hears(
                b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nalongerb"
            ),
            CLIENT_SEES_CLOSE,
            ways=HELD,
            outcome="forwarded",
        )

    def test_a_find_that_never_ends_goes_out_with_the_body(self):
        self.play_either_way(
            RESPONSE,
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\n\r\n"),
            origin(b"fo"),
            ORIGIN_ENDS,
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nfo"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )

    def test_a_body_that_becomes_empty_is_an_empty_body(self):
        gone = "{response: {replace: {find: foo, with: ''}}, request: {replace: {find: foo, with: ''}}}"
        for way in WAYS:
            settings = settings_of(f"{WAYS[way]}  - {gone}\n")
            for field, body in (
                (b"Content-Length: 6", b"foofoo"),
                (b"Transfer-Encoding: chunked", b"3\r\nfoo\r\n0\r\n\r\n"),
            ):
                for size in (None, 1):
                    passed = carry(
                        settings,
                        cut(POST + field + b"\r\n\r\n" + body, size),
                        cut(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n" + body, size),
                    )
                    sent, answered = read_request(passed.origin_heard), read_response(passed.client_heard)
                    self.assertEqual((sent.body, answered.body), (b"", b""), way)
                    self.assertEqual(passed.flow.outcome, "forwarded")

    def test_empty_bodies_and_messages_without_one_go_on_as_they_are(self):
        both = "{response: {replace: {find: foo, with: x}}, request: {replace: {find: foo, with: x}}}"
        self.play_either_way(
            both,
            client(POST + b"Content-Length: 0\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n\r\n"),
            origin_hears(
                b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n"
                b"Accept-Encoding: identity\r\nVia: 1.1 proxy\r\n\r\n"
            ),
            origin(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 0\r\n\r\n'),
            client_hears(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 0\r\nVia: 1.1 proxy\r\n\r\n'),
            client(GET),
            origin(b"HTTP/1.1 204 No Content\r\n\r\n"),
            client_hears(b"HTTP/1.1 204 No Content\r\nVia: 1.1 proxy\r\n\r\n"),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_chunks_are_cut_anew_and_trailers_stay(self):
        self.play_either_way(
            RESPONSE,
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nfoo f\r\n"),
            origin(b"3\r\noof\r\n0\r\nX-T: t\r\n\r\n"),
            origin_connected(1),
            CLIENT_STAYS,
            outcome="forwarded",
        )
        settings = settings_of(f"rules:\n  - {RESPONSE}\n")
        response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfoo f\r\n3\r\noof\r\n0\r\nX-T: t\r\n\r\n"
        for size in (None, 1, 5):
            message = read_response(carry(settings, [GET], cut(response, size)).client_heard)
            self.assertEqual((message.body, message.trailers), (b"longer longerf", [(b"x-t", b"t")]))


class VouchingTests(EitherWayTestCase):
    """Fields that vouch for bytes which aren't those any more."""

    def test_a_weak_etag_stays_as_it_is(self):
        settings = settings_of(f"rules:\n  - {RESPONSE}\n")
        response = b'HTTP/1.1 200 OK\r\nETag: W/"a"\r\nContent-Length: 3\r\n\r\nfoo'
        message = read_response(carry(settings, [GET], [response]).client_heard)
        self.assertEqual(message.values(b"etag"), [b'W/"a"'])

    def test_trailers_that_vouch_for_the_old_bytes_go_too(self):
        for way, text in WAYS.items():
            settings = settings_of(f"{text}  - {RESPONSE}\n")
            response = (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Digest, ETag, X-T\r\n\r\n"
                b'3\r\nfoo\r\n0\r\nContent-Digest: sha-256=:AAAA:\r\nETag: "a"\r\nX-T: t\r\n\r\n'
            )
            message = read_response(carry(settings, [GET], [response]).client_heard)
            self.assertEqual(message.body, b"longer", way)
            self.assertEqual(message.values(b"trailer") and message.trailers[-1:], [(b"x-t", b"t")], way)
            self.assertNotIn(b"content-digest", dict(message.trailers), way)
            self.assertNotEqual(dict(message.trailers).get(b"etag"), b'"a"', way)

    def test_trailers_stay_where_no_filter_reads_the_body(self):
        response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Digest: sha-256=:AAAA:\r\n\r\n"
        message = read_response(carry(settings_of(), [GET], [response]).client_heard)
        self.assertEqual(message.trailers, [(b"content-digest", b"sha-256=:AAAA:")])

    def test_the_answer_to_head_does_not_vouch_for_bytes_that_get_would_not_give(self):
        # RFC 9110 section 8.6: a Content-Length in the answer to HEAD is the length that GET would have had.
        self.play_either_way(
            RESPONSE,
            client(b"HEAD http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            origin(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nAccept-Ranges: bytes\r\nContent-Length: 99\r\n\r\n'),
            client_hears(b'HTTP/1.1 200 OK\r\nETag: W/"a"\r\nVia: 1.1 proxy\r\n\r\n'),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_a_304_names_the_etag_that_the_200_had(self):
        # Else a cache finds no stored response that it may freshen (RFC 9111 section 4.3.4).
        self.play_either_way(
            RESPONSE,
            client(GET.replace(b"\r\n\r\n", b'\r\nIf-None-Match: W/"a"\r\n\r\n')),
            origin(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
            client_hears(b'HTTP/1.1 304 Not Modified\r\nETag: W/"a"\r\nVia: 1.1 proxy\r\n\r\n'),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_a_rules_own_etag_is_taken_at_its_word(self):
        settings = settings_of(
            "rules:\n  - response: {replace: {find: foo, with: x}, headers: {set: {ETag: '\"mine\"'}}}\n"
        )
        response = b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 3\r\n\r\nfoo'
        message = read_response(carry(settings, [GET], [response]).client_heard)
        self.assertEqual(message.values(b"etag"), [b'"mine"'])


class ReadabilityTests(EitherWayTestCase):
    """What a rule couldn't read isn't asked for; what comes all the same is refused aloud."""

    def test_ranges_and_codings_are_taken_out_of_the_request(self):
        self.play_either_way(
            RESPONSE,
            client(
                b'GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nRange: bytes=5-\r\nIf-Range: "a"\r\n'
                b"Accept-Encoding: gzip, dcz\r\naccept-encoding: br, *\r\nAccept: */*\r\n\r\n"
            ),
            origin_hears(
                b"GET /x HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n"
                b"Via: 1.1 proxy\r\n\r\n"
            ),
        )

    def test_they_stay_where_no_rule_reads_the_response(self):
        asked = b"Range: bytes=5-\r\nAccept-Encoding: gzip\r\n"
        for rule in (
            REQUEST,
            "{match: {path: /y}, response: {replace: {find: foo, with: x}}}",
            "{response: {stream: true}}",
        ):
            self.play_either_way(
                rule,
                client(GET[:-2] + asked + b"\r\n"),
                origin_hears(b"GET /x HTTP/1.1\r\nHost: a.example\r\n" + asked + b"Via: 1.1 proxy\r\n\r\n"),
            )

    def test_a_rule_that_the_response_decides_on_asks_for_a_plain_one_too(self):
        self.play_either_way(
            "{match: {content_type: text/html}, response: {replace: {find: foo, with: x}}}",
            client(GET[:-2] + b"Accept-Encoding: dcz\r\n\r\n"),
            origin_hears(GOT),
        )

    def refused_response(self, head: bytes, why: str) -> None:
        text = f"502 Bad Gateway: {why}\n".encode()
        for framing, body in (
            (b"Content-Length: 3\r\n", b"foo"),
            (b"Transfer-Encoding: chunked\r\n", b"3\r\nfoo\r\n0\r\n\r\n"),
        ):
            for way in WAYS.values():
                settings = settings_of(f"{way}  - {RESPONSE}\n")
                for size in (None, 1):
                    passed = carry(settings, [GET], cut(head + framing + b"\r\n" + body, size))
                    message = read_response(passed.client_heard)
                    self.assertEqual((message.start, message.body), (502, text))
                    self.assertEqual(passed.flow.outcome, "failed")
                    self.assertEqual(passed.flow.status, 502)
                    self.assertIn(why, passed.flow.error)

    def test_a_coded_response_is_refused_aloud(self):
        self.refused_response(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, dcz\r\n", "rule 'swap' can't read Content-Encoding dcz"
        )

    def test_a_part_of_a_response_is_refused_aloud(self):
        self.refused_response(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\n",
            "rule 'swap' can't read a part of a body (206)",
        )

    def test_a_coded_response_that_the_rule_does_not_read_goes_on(self):
        self.play_either_way(
            "{match: {content_type: text/html}, response: {replace: {find: foo, with: x}}}",
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nfoo"),
            client_hears(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\nVia: 1.1 proxy\r\n\r\nfoo"
            ),
            outcome="forwarded",
        )

    def test_identity_is_no_coding(self):
        passed = carry(
            settings_of(f"rules:\n  - {RESPONSE}\n"),
            [GET],
            [b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 3\r\n\r\nfoo"],
        )
        self.assertEqual(read_response(passed.client_heard).body, b"longer")

    def test_the_origin_that_sent_a_coded_response_is_let_go(self):
        self.play_either_way(
            RESPONSE,
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nContent-Encoding: dcz\r\nContent-Length: 30\r\n\r\nfoo"),
            ORIGIN_LET_GO,
            CLIENT_STAYS,
            outcome="failed",
        )

    def test_a_coded_request_is_refused_before_the_origin_hears_of_it(self):
        text = b"Rule 'swap' can't read Content-Encoding dcz.\n"
        self.play_either_way(
            REQUEST,
            client(POST + b"Content-Encoding: dcz\r\nContent-Length: 3\r\n\r\n"),
            client_hears(
                b"HTTP/1.1 415 Unsupported Media Type\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\nAccept-Encoding: br, deflate, gzip, x-gzip, zstd\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(text), text)
            ),
            origin_connected(0),
            CLIENT_SEES_CLOSE,
            outcome="refused",
        )

    def test_a_part_of_a_body_to_be_put_is_refused(self):
        settings = settings_of(f"rules:\n  - {REQUEST}\n")
        passed = carry(settings, [POST + b"Content-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nfoo"])
        self.assertEqual((read_response(passed.client_heard, passed.closed).start, passed.origins), (415, 0))


class TogetherTests(SynchronousTestCase):
    def test_replacements_of_several_rules_are_one_pass(self):
        settings = settings_of(
            "rules:\n  - {name: one, response: {replace: {find: a, with: b}}}\n"
            "  - {name: two, response: {replace: [{find: b, with: c}, {find: aa, with: x}]}}\n"
        )
        for size in (None, 1):
            passed = carry(settings, [GET], cut(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\naabba", size))
            self.assertEqual(read_response(passed.client_heard).body, b"bbccb")
            self.assertEqual(passed.flow.rules, ["one", "two"])

    def test_a_rule_that_has_nothing_to_read_is_not_said_to_have_applied(self):
        both = "request: {replace: {find: foo, with: x}}, response: {replace: {find: foo, with: x}}"
        settings = settings_of(f"rules:\n  - {{name: swap, {both}}}\n")
        passed = carry(settings, [GET], [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        self.assertEqual(passed.flow.rules, [])

    def test_both_messages_at_once(self):
        settings = settings_of(
            "rules:\n  - {request: {replace: {find: hi, with: ho}}, response: {replace: {find: ok, with: no}}}\n"
        )
        for size in (None, 1):
            passed = carry(settings, cut(POST + b"Content-Length: 2\r\n\r\nhi", size), cut(OK, size))
            self.assertEqual(read_request(passed.origin_heard).body, b"ho")
            self.assertEqual(read_response(passed.client_heard).body, b"no")


class PressureTests(SynchronousTestCase):
    """A little may become a lot: what is made of it waits for its reader like anything else."""

    SETTINGS = "rules:\n  - response: {replace: {find: x, with: '%s'}}\n"

    def stage(self, manner: str, put: str) -> tuple[Stage, BoundedTransport]:
        stage = Stage(settings_of(self.SETTINGS % put), manner)
        client = stage.client()
        client.say(GET)
        stage.settle(client)
        return stage, client

    def test_it_is_made_only_as_fast_as_the_client_reads(self):
        put = "long" * 100
        for manner in (TCP, TLS):
            stage, client = self.stage(manner, put)
            stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"x" * 16384)
            for _ in range(4):
                self.assertLess(client.protocol.sink.pump.queued + len(client.buffer), 4 * LIMIT)
                client.take(LIMIT)
                stage.turn()
            stage.origin.say(b"x" * 49152)
            for _ in range(3000):
                if not client.take(LIMIT) and not client.buffer:
                    break
                stage.turn()
            body = read_response(bytes(client.heard)).body
            self.assertEqual(len(body), 65536 * len(put))
            self.assertEqual(body.count(put.encode()), 65536)
            self.assertEqual([flow.outcome for flow in stage.journal.flows], ["forwarded"])

    def test_a_rule_that_fails_late_cuts_the_body_visibly(self):
        feed = Replace.feed

        def failing(self, data):
            for number, piece in enumerate(feed(self, data)):
                if number == 2:
                    raise ZeroDivisionError
                yield piece

        self.patch(Replace, "feed", failing)
        for manner in (TCP, TLS):
            # The client reads late, so that the origin is done with when the rule fails; or it reads at once.
            for late in (True, False):
                for framing in (b"Content-Length: 4096\r\n\r\n", b"\r\n"):
                    stage, client = self.stage(manner, "long" * 250)
                    stage.origin.say(b"HTTP/1.1 200 OK\r\n" + framing + b"x" * 4096)
                    if framing == b"\r\n":
                        stage.origin.end()
                    if not late:
                        stage.settle(client)
                    for _ in range(10):
                        stage.turn()
                    stage.settle(client)
                    where = (manner, late, framing)
                    self.assertTrue(client.disconnected, where)
                    self.assertEqual([flow.outcome for flow in stage.journal.flows], ["failed"], where)
                    if framing == b"\r\n":
                        self.assertTrue(client.aborted, where)
                    else:
                        self.assertRaises(h11.RemoteProtocolError, read_response, bytes(client.heard), True)
                    self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, where)

    def test_a_rule_that_fails_behind_a_cut_ends_it(self):
        # Behind a client that doesn't read, what came last is filtered only when all is over for the exchange.
        body = gzip.compress(random.Random(1).randbytes(300_000))[:150_000]
        for manner in (TCP, TLS):
            stage = Stage(settings_of("rules: [{response: {replace: {find: secret, with: x}}}]\n"), manner)
            client = stage.client()
            client.say(GET)
            stage.settle(client)
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n"
            stage.origin.say(head + body, b"\xff" * 20_000)
            stage.origin.reset()
            for _ in range(20):
                client.take()
                stage.turn()
            self.assertTrue(client.disconnected, manner)
            self.assertEqual([flow.outcome for flow in stage.journal.flows], ["origin-gone"], manner)
