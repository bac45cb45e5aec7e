"""Bodies that are held: what is asked of the client meanwhile, what is too large, and what is let go."""

import h11
from twisted.trial.unittest import SynchronousTestCase

from tests.conversation import (
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ORIGIN_LET_GO,
    ConversationTestCase,
    Step,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
    settings_of,
)
from tests.passage import carry, cut, read_request, read_response
from tests.proxy.test_rules_on_messages import GET, GOT, HEARD_OK, OK, POST, POSTED

HOLD = "hold: always\nlimits: {held_body: 8}\n"
RULED = "limits: {held_body: 8}\nrules:\n  - {request: {stream: false}, response: {stream: false}}\n"
LET_GO = "hold: always\nstream_large_bodies: 8\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEARD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n"


def refused(start: bytes, why: bytes, close: bool) -> Step:
    text = b"%b: %b\n" % (start, why)
    return client_hears(
        b"HTTP/1.1 %b\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"X-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n%b\r\n%b"
        % (start, len(text), b"Connection: close\r\n" if close else b"", text)
    )


TOO_LARGE = refused(b"413 Request Entity Too Large", b"the request's body is too large", True)
TOO_LARGE_TO_HOLD = refused(b"413 Request Entity Too Large", b"the request's body is too large to be held", True)


class HeldRequestTests(ConversationTestCase):
    def test_the_origin_hears_nothing_until_it_is_whole(self):
        for rules in (HOLD, RULED):
            flows = self.play(
                client(POST + b"Content-Length: 8\r\n\r\n1234567"),
                origin_connected(0),
                client(b"8"),
                origin_hears(POSTED + b"Content-Length: 8\r\nVia: 1.1 proxy\r\n\r\n12345678"),
                origin(OK),
                rules=rules,
                outcome="forwarded",
            )
            self.assertEqual((flows[0].request.how, flows[0].request.size), ("held", 8))

    def test_chunks_and_trailers_are_held_as_they_came(self):
        chunks = b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\nX-T: t\r\n\r\n"
        for rules in (HOLD, RULED):
            self.play(
                client(POST + CHUNKED + b"\r\n" + chunks[:-1]),
                origin_connected(0),
                client(chunks[-1:]),
                origin_hears(POSTED + CHUNKED + b"Via: 1.1 proxy\r\n\r\n" + chunks),
                origin(OK),
                client_hears(HEARD_OK),
                CLIENT_STAYS,
                rules=rules,
                outcome="forwarded",
            )

    def test_the_client_that_waits_to_be_asked_is_asked_by_the_proxy(self):
        for rules in (HOLD, RULED, LET_GO):
            self.play(
                client(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
                client_hears(b"HTTP/1.1 100 Continue\r\n\r\n"),
                origin_connected(0),
                client(b"hello"),
                origin_hears(POSTED + b"Content-Length: 5\r\nVia: 1.1 proxy\r\n\r\nhello"),
                origin(OK),
                client_hears(HEARD_OK),
                CLIENT_STAYS,
                rules=rules,
                outcome="forwarded",
            )

    def test_the_client_that_waits_and_is_let_go_is_asked_once(self):
        self.play(
            client(POST + b"Expect: 100-continue\r\n" + CHUNKED + b"\r\n"),
            client_hears(b"HTTP/1.1 100 Continue\r\n\r\n"),
            origin_connected(0),
            client(b"9\r\n123456789\r\n"),
            origin_hears(POSTED + CHUNKED + b"Via: 1.1 proxy\r\n\r\n9\r\n123456789\r\n"),
            client(b"0\r\n\r\n"),
            origin_hears(b"0\r\n\r\n"),
            origin(OK),
            client_hears(HEARD_OK),
            CLIENT_STAYS,
            rules=LET_GO,
            outcome="forwarded",
        )

    def test_what_is_too_large_by_its_head_is_not_even_asked_for(self):
        for expect in (b"", b"Expect: 100-continue\r\n"):
            for rules in (HOLD, RULED):
                self.play(
                    client(POST + expect + b"Content-Length: 9\r\n\r\n"),
                    TOO_LARGE,
                    origin_connected(0),
                    CLIENT_SEES_CLOSE,
                    rules=rules,
                    outcome="refused",
                )

    def test_what_grows_too_large_never_reaches_the_origin(self):
        for rules in (HOLD, RULED):
            self.play(
                client(POST + CHUNKED + b"\r\n8\r\n12345678\r\n1\r\n"),
                client_hears(b""),
                client(b"9"),
                TOO_LARGE_TO_HOLD,
                origin_connected(0),
                CLIENT_SEES_CLOSE,
                rules=rules,
                outcome="refused",
            )

    def test_what_a_rule_makes_too_large_is_refused_too(self):
        rules = HOLD + "rules:\n  - {request: {replace: {find: x, with: '12345'}}}\n"
        self.play(
            client(POST + b"Content-Length: 8\r\n\r\nxx"),
            TOO_LARGE_TO_HOLD,
            origin_connected(0),
            rules=rules,
            outcome="refused",
        )

    def test_a_length_beyond_stream_large_bodies_is_not_held(self):
        flows = self.play(
            client(POST + b"Content-Length: 9\r\n\r\n"),
            origin_hears(POSTED + b"Content-Length: 9\r\nVia: 1.1 proxy\r\n\r\n"),
            client(b"1"),
            origin_hears(b"1"),
            client(b"23456789"),
            origin_hears(b"23456789"),
            origin(OK),
            rules=LET_GO,
            outcome="forwarded",
        )
        self.assertEqual(flows[0].request.how, "streamed")

    def test_one_of_unknown_length_is_let_go_head_and_what_was_held_and_the_rest(self):
        flows = self.play(
            client(POST + CHUNKED + b"\r\n4\r\n1234\r\n6\r\n5678"),
            origin_connected(0),
            client(b"9"),
            origin_hears(POSTED + CHUNKED + b"Via: 1.1 proxy\r\n\r\n4\r\n1234\r\n6\r\n56789"),
            client(b"0"),
            origin_hears(b"0"),
            client(b"\r\n1\r\n!\r\n0\r\n\r\n"),
            origin_hears(b"\r\n1\r\n!\r\n0\r\n\r\n"),
            origin(OK),
            client_hears(HEARD_OK),
            CLIENT_STAYS,
            rules=LET_GO,
            outcome="forwarded",
        )
        self.assertEqual((flows[0].request.how, flows[0].request.size), ("let go", 11))

    def test_a_rules_stream_false_is_never_let_go(self):
        self.play(
            client(POST + CHUNKED + b"\r\n5\r\n12345\r\n"),
            origin_connected(0),
            client(b"0\r\n\r\n"),
            origin_hears(POSTED + CHUNKED + b"Via: 1.1 proxy\r\n\r\n5\r\n12345\r\n0\r\n\r\n"),
            origin(OK),
            rules="stream_large_bodies: 2\nrules:\n  - {request: {stream: false}}\n",
            outcome="forwarded",
        )


class HeldResponseTests(ConversationTestCase):
    def test_the_client_hears_nothing_until_it_is_whole(self):
        for rules in (HOLD, RULED):
            flows = self.play(
                client(GET),
                origin(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n1234567"),
                client_hears(b""),
                origin(b"8"),
                client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nVia: 1.1 proxy\r\n\r\n12345678"),
                CLIENT_STAYS,
                rules=rules,
                outcome="forwarded",
            )
            self.assertEqual((flows[0].response.how, flows[0].response.size), ("held", 8))

    def test_one_until_close_is_held_until_then(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\n\r\nall"),
            client_hears(b""),
            ORIGIN_ENDS,
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nall"),
            CLIENT_SEES_CLOSE,
            rules=HOLD,
            outcome="forwarded",
        )

    def test_interim_responses_do_not_wait_for_it(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
            client_hears(b"HTTP/1.1 103 Early Hints\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"ok"),
            client_hears(HEARD_OK),
            rules=HOLD,
        )

    def test_what_is_too_large_by_its_head_becomes_a_502(self):
        for rules in (HOLD, RULED):
            self.play(
                client(GET),
                origin(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
                refused(b"502 Bad Gateway", b"the response's body is too large", False),
                ORIGIN_LET_GO,
                CLIENT_STAYS,
                rules=rules,
                outcome="refused",
            )

    def test_what_grows_too_large_becomes_a_502(self):
        for rules in (HOLD, RULED):
            for head in (b"HTTP/1.1 200 OK\r\n\r\n12345678", OK_CHUNKED + b"8\r\n12345678\r\n1\r\n"):
                self.play(
                    client(GET),
                    origin(head),
                    client_hears(b""),
                    origin(b"9"),
                    refused(b"502 Bad Gateway", b"the response's body is too large to be held", False),
                    ORIGIN_LET_GO,
                    CLIENT_STAYS,
                    rules=rules,
                    outcome="refused",
                )

    def test_one_of_unknown_length_is_let_go(self):
        flows = self.play(
            client(GET),
            origin(OK_CHUNKED + b"8\r\n12345678\r\n"),
            client_hears(b""),
            origin(b"1\r\n9\r\n"),
            client_hears(HEARD_CHUNKED + b"8\r\n12345678\r\n1\r\n9\r\n"),
            origin(b"1\r\n0"),
            client_hears(b"1\r\n0"),
            origin(b"\r\n0\r\n\r\n"),
            client_hears(b"\r\n0\r\n\r\n"),
            CLIENT_STAYS,
            rules=LET_GO,
            outcome="forwarded",
        )
        self.assertEqual((flows[0].response.how, flows[0].response.size), ("let go", 10))

    def test_one_that_is_cut_while_it_is_held_becomes_a_502(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123"),
            client_hears(b""),
            ORIGIN_ENDS,
            CLIENT_STAYS,
            client(b""),
            rules=HOLD,
            outcome="origin-gone",
        )


class CutTests(SynchronousTestCase):
    """However a body comes in, it goes the same way."""

    def outcomes(self, text: str, size: int, framing: str, message: str) -> set[tuple]:
        body = b"x" * size
        field, wire = b"", body
        if framing == "chunked":
            field, wire = CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        settings = settings_of(text)
        seen = set()
        for by in (None, 50, 7, 1):
            if message == "request":
                passed = carry(settings, cut(POST + field + b"\r\n" + wire, by), [OK])
                sent = read_request(passed.origin_heard).body if passed.origins else None
                status = read_response(passed.client_heard, passed.closed).start
                seen.add((status, sent == body, passed.flow.outcome, passed.origins))
            else:
                passed = carry(
                    settings, [GET], cut(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n" + wire, by), origin_ends=not field
                )
                answer = read_response(passed.client_heard, passed.closed)
                seen.add((answer.start, answer.body == body, passed.flow.outcome, passed.reset))
        return seen

    def test_a_body_that_may_be_let_go_before_it_is_too_large_is_let_go_in_one_read_too(self):
        for held in (20, 21, 30):
            text = f"hold: always\nstream_large_bodies: 20\nlimits: {{held_body: {held}}}\n"
            for size in (20, 21, 29, 30, 31, 100, 200):
                where = (held, size)
                self.assertEqual(self.outcomes(text, size, "chunked", "request"), {(200, True, "forwarded", 1)}, where)
                for framing in ("chunked", "until close"):
                    self.assertEqual(
                        self.outcomes(text, size, framing, "response"), {(200, True, "forwarded", False)}, where
                    )

    def test_held_body_below_stream_large_bodies_is_the_limit_in_any_cut(self):
        text = "hold: always\nstream_large_bodies: 40\nlimits: {held_body: 30}\n"
        for size, passes in ((30, True), (31, False), (41, False), (100, False)):
            self.assertEqual(
                self.outcomes(text, size, "chunked", "request"),
                {(200, True, "forwarded", 1) if passes else (413, False, "refused", 0)},
                size,
            )
            self.assertEqual(
                self.outcomes(text, size, "chunked", "response"),
                {(200, True, "forwarded", False) if passes else (502, False, "refused", False)},
                size,
            )


class BodyLimitTests(ConversationTestCase):
    """`limits.body`, past which no body goes in any way."""

    LIMIT = "limits: {body: 8}\n"

    def test_a_body_of_the_limit_goes_through(self):
        self.play(
            client(POST + CHUNKED + b"\r\n8\r\n12345678\r\n0\r\n\r\n"),
            origin_hears(POSTED + CHUNKED + b"Via: 1.1 proxy\r\n\r\n8\r\n12345678\r\n0\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n12345678"),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nVia: 1.1 proxy\r\n\r\n12345678"),
            rules=self.LIMIT,
            outcome="forwarded",
        )

    def test_a_larger_length_is_refused_by_its_head(self):
        self.play(
            client(POST + b"Content-Length: 9\r\n\r\n"),
            TOO_LARGE,
            origin_connected(0),
            rules=self.LIMIT,
            outcome="refused",
        )
        self.play(
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            refused(b"502 Bad Gateway", b"the response's body is too large", False),
            CLIENT_STAYS,
            rules=self.LIMIT,
            outcome="refused",
        )

    def test_a_request_that_grows_past_it_never_looks_whole_to_the_origin(self):
        settings = settings_of(self.LIMIT)
        for wire in (b"9\r\n123456789\r\n0\r\n\r\n", b"8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n"):
            for by in (None, 1):
                passed = carry(settings, cut(POST + CHUNKED + b"\r\n" + wire, by))
                self.assertNotIn(b"0\r\n\r\n", passed.origin_heard, by)
                self.assertEqual(read_response(passed.client_heard, passed.closed).start, 413, by)
                self.assertEqual(passed.flow.outcome, "refused", by)

    def test_a_response_that_grows_past_it_is_a_502_or_looks_cut_and_never_both(self):
        whole = b"9\r\n123456789\r\n0\r\n\r\n"
        for head, body, ends in (
            (OK_CHUNKED, whole, False),
            (OK_CHUNKED, whole + b"9\r\n123456789\r\n0\r\n\r\n", False),
            (OK_CHUNKED, b"8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"123456789", True),
        ):
            for pieces in ([head + body], [head, body], cut(head + body, 1)):
                passed = carry(settings_of(self.LIMIT), [GET], pieces, origin_ends=ends)
                where = (pieces, passed)
                self.assertEqual(passed.flow.outcome, "refused", where)
                if passed.client_heard.startswith(b"HTTP/1.1 502"):
                    self.assertEqual(read_response(passed.client_heard, passed.closed).start, 502, where)
                    continue
                self.assertTrue(passed.client_heard.startswith(b"HTTP/1.1 200 OK\r\n"), where)
                self.assertEqual(passed.client_heard.count(b"HTTP/1.1 "), 1, where)
                if not ends:
                    self.assertTrue(passed.closed or passed.reset, where)
                    self.assertRaises(h11.RemoteProtocolError, read_response, passed.client_heard, True)
                else:
                    self.assertTrue(passed.reset, where)
