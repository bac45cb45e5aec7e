"""The table of what a fault means, cell by cell: each kind of fault at each place that an exchange can be in."""

import itertools
from email.utils import formatdate

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.faults import ON_FAULT, Action, Request, Response
from tests.conversation import (
    CLIENT_RESETS,
    CLIENT_SEES_CLOSE,
    CLIENT_SEES_RESET,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ORIGIN_LET_GO,
    ORIGIN_RESETS,
    ORIGIN_SEES_CLOSE,
    ConversationTestCase,
    Stage,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
    settings_of,
)

GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
GOT = b"GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
UPLOAD = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabc"
UPLOADED = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\nVia: 1.1 proxy\r\n\r\nabc"
CHUNKED_UPLOAD = (
    b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
)
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
HEARD_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nVia: 1.1 proxy\r\n\r\nabc"


def answer(status: str, why: str, close: bool = False, at: float = 0) -> bytes:
    """A response of the proxy's own, as the client hears it `at` seconds after the clock's beginning."""
    body = f"{status}: {why}\n".encode()
    return (
        f"HTTP/1.1 {status}\r\nDate: {formatdate(at, usegmt=True)}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n"
        + ("Connection: close\r\n" if close else "")
        + "\r\n"
    ).encode() + body


class TableTests(SynchronousTestCase):
    def test_every_place_has_its_action(self):
        self.assertEqual(set(ON_FAULT), set(itertools.product(Request, Response)))

    def test_a_client_is_answered_only_before_it_has_a_head_and_cut_only_before_it_has_all(self):
        for (_request, response), action in ON_FAULT.items():
            self.assertEqual(action is Action.ANSWER, response is Response.AWAITED)
            self.assertEqual(action is Action.CUT, response is Response.SENDING)


class OriginGoneTests(ConversationTestCase):
    """The origin's connection is lost; the six cells."""

    def test_receiving_awaited(self):
        for gone, why in (
            (ORIGIN_ENDS, "the origin closed the connection without a response"),
            (ORIGIN_RESETS, "the origin closed the connection without a response"),
        ):
            self.play(
                client(UPLOAD),
                origin_hears(UPLOADED),
                gone,
                client_hears(answer("502 Bad Gateway", why, close=True)),
                CLIENT_SEES_CLOSE,
                outcome="origin-gone",
            )

    def test_received_awaited(self):
        for gone in (ORIGIN_ENDS, ORIGIN_RESETS):
            self.play(
                client(GET),
                gone,
                client_hears(answer("502 Bad Gateway", "the origin closed the connection without a response")),
                CLIENT_STAYS,
                outcome="origin-gone",
            )

    def test_received_awaited_with_half_a_head(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nX:"),
            ORIGIN_ENDS,
            client_hears(answer("502 Bad Gateway", "the origin closed the connection inside its response")),
            CLIENT_STAYS,
            outcome="origin-gone",
        )

    def test_receiving_sending(self):
        for gone in (ORIGIN_ENDS, ORIGIN_RESETS):
            self.play(
                client(UPLOAD), origin(HALF), gone, client_hears(HEARD_HALF), CLIENT_SEES_CLOSE, outcome="origin-gone"
            )

    def test_received_sending_with_a_length(self):
        for gone in (ORIGIN_ENDS, ORIGIN_RESETS):
            self.play(
                client(GET), origin(HALF), gone, client_hears(HEARD_HALF), CLIENT_SEES_CLOSE, outcome="origin-gone"
            )

    def test_received_sending_chunked_has_no_last_chunk(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            ORIGIN_ENDS,
            client_hears(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n3\r\nabc\r\n"),
            CLIENT_SEES_CLOSE,
            outcome="origin-gone",
        )

    def test_received_sending_until_close_is_a_reset_for_an_end_would_look_whole(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\n\r\nabc"),
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nabc"),
            ORIGIN_RESETS,
            CLIENT_SEES_RESET,
            outcome="origin-gone",
        )

    def test_received_sending_to_an_http_1_0_client_is_a_reset_too(self):
        self.play(
            client(b"GET http://a.example/x HTTP/1.0\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nabc"),
            ORIGIN_ENDS,
            CLIENT_SEES_RESET,
            outcome="origin-gone",
        )

    def test_receiving_received(self):
        self.play(
            client(UPLOAD),
            origin(OK),
            client_hears(HEARD_OK),
            ORIGIN_RESETS,
            CLIENT_SEES_CLOSE,
            client(b"def"),
            outcome="forwarded",
        )

    def test_received_received(self):
        self.play(client(GET), origin(OK), ORIGIN_RESETS, client_hears(HEARD_OK), CLIENT_STAYS, outcome="forwarded")


class ClientGoneTests(ConversationTestCase):
    """The client's connection is lost; the origin's is closed in every cell, and pooled in the last."""

    def test_receiving_awaited(self):
        self.play(client(UPLOAD), origin_hears(UPLOADED), CLIENT_RESETS, ORIGIN_SEES_CLOSE, outcome="client-gone")

    def test_received_awaited(self):
        flows = self.play(client(GET), CLIENT_RESETS, ORIGIN_LET_GO, outcome="client-gone")
        self.assertEqual(flows[-1].status, None)

    def test_receiving_sending(self):
        self.play(client(UPLOAD), origin(HALF), CLIENT_RESETS, ORIGIN_SEES_CLOSE, outcome="client-gone")

    def test_received_sending(self):
        self.play(client(GET), origin(HALF), CLIENT_RESETS, ORIGIN_LET_GO, outcome="client-gone")

    def test_receiving_received(self):
        self.play(client(UPLOAD), origin(OK), CLIENT_RESETS, ORIGIN_SEES_CLOSE, outcome="client-gone")

    def test_received_received(self):
        stage = Stage()
        first = stage.client()
        first.say(GET)
        stage.origin.say(OK)
        stage.settle(first)
        first.reset()
        self.assertFalse(stage.origin.disconnected)
        second = stage.client()
        second.say(GET)
        self.assertEqual(len(stage.pool.made), 1)

    def test_the_origin_is_let_go_in_the_turn_in_which_the_client_goes(self):
        for request in (GET, UPLOAD):
            stage = Stage()
            one = stage.client()
            one.say(request)
            one.reset()
            self.assertTrue(stage.origin.disconnecting or stage.origin.aborted)

    def test_a_connection_that_is_still_being_made_is_given_up(self):
        stage = Stage()
        stage.pool.waits = True
        one = stage.client()
        one.say(GET)
        one.reset()
        ((deferred, _origin),) = stage.pool.waiting
        self.assertTrue(deferred.called)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["client-gone"])

    def test_a_client_that_half_closes_inside_its_body_cannot_be_forwarded(self):
        stage = Stage()
        one = stage.client()
        one.say(UPLOAD)
        one.end()
        stage.settle(one)
        self.assertEqual(
            bytes(one.heard),
            answer("400 Bad Request", "the client ended its side inside its request", close=True),
        )
        self.assertTrue(one.disconnected and stage.origin.disconnected)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["client-gone"])


class MalformedTests(ConversationTestCase):
    """Either side breaks the grammar; the cells."""

    BAD_CHUNK = "a chunk's size is malformed"

    def test_a_bad_request_body_while_awaited(self):
        stage = Stage()
        one = stage.client()
        one.say(CHUNKED_UPLOAD)
        stage.settle(one)
        before = len(stage.origin.heard)
        one.say(b"x\r\n")
        stage.settle(one)
        self.assertEqual(bytes(one.heard), answer("400 Bad Request", self.BAD_CHUNK, close=True))
        self.assertEqual(len(stage.origin.heard), before)
        self.assertTrue(stage.origin.disconnected)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["malformed"])

    def test_what_had_come_by_then_is_recorded(self):
        stage = Stage()
        one = stage.client()
        one.say(CHUNKED_UPLOAD)
        stage.origin.say(OK)
        one.say(b"2\r\nde\r\n0\r\n\r\n")
        stage.settle(one)
        (flow,) = stage.journal.flows
        self.assertEqual((flow.outcome, flow.request.size, flow.response.size), ("forwarded", 5, 2))

    def test_a_bad_request_body_while_sending(self):
        stage = Stage()
        one = stage.client()
        one.say(CHUNKED_UPLOAD)
        stage.origin.say(HALF)
        one.say(b"x\r\n")
        stage.settle(one)
        self.assertEqual(bytes(one.heard), HEARD_HALF)
        self.assertTrue(one.disconnected)
        self.assertTrue(stage.origin.disconnected)
        self.assertFalse(stage.origin.heard.endswith(b"0\r\n\r\n"))

    def test_a_bad_request_body_when_all_was_answered(self):
        stage = Stage()
        one = stage.client()
        one.say(CHUNKED_UPLOAD)
        stage.origin.say(OK)
        one.say(b"x\r\n")
        stage.settle(one)
        self.assertEqual(bytes(one.heard), HEARD_OK)
        self.assertTrue(one.write_closed)
        self.assertTrue(stage.origin.disconnected)

    def test_a_bad_response_head(self):
        for bad, why in (
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
                "several Content-Lengths that differ",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
                "both Content-Length and Transfer-Encoding",
            ),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "a folded field line"),
            (b"SSH-2.0-x\r\n\r\n", "the origin's answer is not HTTP/1"),
        ):
            for request, closes in ((GET, False), (UPLOAD, True)):
                self.play(
                    client(request),
                    origin(bad),
                    client_hears(answer("502 Bad Gateway", why, close=closes)),
                    CLIENT_SEES_CLOSE if closes else CLIENT_STAYS,
                    outcome="malformed",
                    splits=False,
                )

    def test_a_bad_response_body_is_cut_behind_what_was_good(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        stage.origin.say(b"0x1\r\nx\r\n")
        stage.settle(one)
        self.assertEqual(
            bytes(one.heard),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n3\r\nabc\r\n",
        )
        self.assertTrue(one.disconnected)
        self.assertTrue(stage.origin.disconnected)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["malformed"])

    def test_an_unasked_switch_of_protocols(self):
        self.play(
            client(GET),
            origin(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello"),
            client_hears(answer("502 Bad Gateway", "the origin switched protocols unasked")),
            ORIGIN_LET_GO,
            outcome="malformed",
            splits=False,
        )

    def test_a_response_that_nobody_asked_for_is_not_the_next_ones_answer(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(OK + OK)
        stage.settle(one)
        self.assertEqual(bytes(one.heard), HEARD_OK)
        self.assertTrue(stage.origin.disconnected)
        one.say(GET)
        self.assertEqual(len(stage.pool.made), 2)

    def test_an_idle_origin_that_speaks_is_dropped(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(OK)
        stage.settle(one)
        stage.origin.say(OK)
        self.assertTrue(stage.origin.disconnected)
        self.assertEqual(len(stage.pool), 0)


class HeadFaultTests(ConversationTestCase):
    """What never becomes a request."""

    def test_it_is_answered_and_the_connection_closed(self):
        for said, status, why, outcome in (
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 Bad Request", "several Host fields", "malformed"),
            (b"\x16\x03\x01\x02\x00\x01", "400 Bad Request", "this is not an HTTP request", "malformed"),
            (
                b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "400 Bad Request",
                "both Content-Length and Transfer-Encoding",
                "malformed",
            ),
            (
                b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "501 Not Implemented",
                "an unknown transfer coding",
                "malformed",
            ),
        ):
            stage = Stage()
            one = stage.client()
            one.say(said)
            stage.settle(one)
            self.assertEqual(bytes(one.heard), answer(status, why, close=True))
            self.assertTrue(one.write_closed or one.disconnected)
            self.assertEqual(stage.pool.made, [])
            self.assertEqual([flow.outcome for flow in stage.journal.flows], [outcome])
            self.assertEqual([flow.client_in for flow in stage.journal.flows], [len(said)])

    def test_a_target_that_is_no_url_is_answered_and_the_connection_stays(self):
        self.play(
            client(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            client_hears(
                answer(
                    "400 Bad Request",
                    "this is a proxy: the request target must be a whole URL, such as http://example.com/",
                )
            ),
            origin_connected(0),
            CLIENT_STAYS,
            outcome="malformed",
        )

    def test_what_is_not_spoken_is_refused_not_called_malformed(self):
        self.play(
            client(b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            client_hears(answer("501 Not Implemented", "the target's scheme is not http or https")),
            origin_connected(0),
            outcome="refused",
        )

    def test_a_loop_is_refused(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 other, 1.1 proxy\r\n\r\n"),
            client_hears(answer("508 Loop Detected", "a loop: this request has been through this proxy before")),
            origin_connected(0),
            outcome="refused",
        )

    def test_a_client_that_ends_inside_a_head_is_told(self):
        stage = Stage()
        one = stage.client()
        one.say(b"GET http://a")
        one.end()
        stage.settle(one)
        self.assertEqual(
            bytes(one.heard), answer("400 Bad Request", "the client ended its side inside a request", close=True)
        )
        self.assertTrue(one.disconnected)

    def test_more_connections_than_allowed_are_told_and_closed(self):
        stage = Stage(settings_of("limits: {connections: 1}"))
        first, second = stage.client(), stage.client()
        stage.settle(second)
        self.assertEqual(bytes(second.heard), answer("503 Service Unavailable", "too many connections", close=True))
        first.reset()
        second.reset()
        third = stage.client()
        third.say(GET)
        stage.settle(third)
        self.assertEqual(bytes(stage.origin.heard), GOT)
