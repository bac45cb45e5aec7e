"""Connections to origins that can't be made, and those that turn out to be gone when they are used again."""

from twisted.internet.error import DNSLookupError, NoRouteError, TCPTimedOutError

from tests.conversation import REFUSED, ConversationTestCase, Stage, settings_of
from tests.proxy.test_faults import GET, GOT, HEARD_OK, OK, UPLOAD, UPLOADED, answer


class ConnectingTests(ConversationTestCase):
    def test_a_connection_that_cannot_be_made_is_told_in_words(self):
        for error, status, why, outcome in (
            (REFUSED, "502 Bad Gateway", "a.example refused the connection", "origin-gone"),
            (DNSLookupError(), "502 Bad Gateway", "no address was found for a.example", "origin-gone"),
            (NoRouteError(), "502 Bad Gateway", "there is no route to a.example", "origin-gone"),
            (TCPTimedOutError(), "504 Gateway Timeout", "connecting to a.example took too long", "timed-out"),
        ):
            stage = Stage()
            stage.pool.refuses = error
            one = stage.client()
            one.say(GET)
            stage.settle(one)
            self.assertEqual(bytes(one.heard), answer(status, why))
            self.assertEqual([flow.outcome for flow in stage.journal.flows], [outcome])
            self.assertFalse(one.disconnected)

    def test_what_the_client_sends_meanwhile_waits_and_then_goes(self):
        stage = Stage()
        stage.pool.waits = True
        one = stage.client()
        one.say(UPLOAD)
        one.say(b"def")
        self.assertTrue(one.protocol.valve.closed)
        stage.pool.let_connect()
        stage.settle(one)
        self.assertEqual(bytes(stage.origin.heard), UPLOADED + b"def")


class RetryTests(ConversationTestCase):
    """A reused connection that turns out to be closed."""

    def used(self, settings=None):
        stage = Stage(settings)
        one = stage.client()
        one.say(GET)
        stage.origin.say(OK)
        stage.settle(one)
        one.heard.clear()
        return stage, one

    def test_an_idempotent_request_is_tried_once_more_on_a_new_connection(self):
        for gone in ("end", "reset"):
            stage, one = self.used()
            one.say(GET)
            getattr(stage.origin, gone)()
            self.assertEqual(len(stage.pool.made), 2)
            stage.origin.say(OK)
            stage.settle(one)
            self.assertEqual(bytes(one.heard), HEARD_OK)
            self.assertEqual(stage.journal.flows[-1].outcome, "forwarded")
            self.assertEqual(stage.journal.flows[-1].origin_out, 2 * len(GOT))

    def test_what_waited_for_the_first_origin_is_held_no_longer(self):
        stage, one = self.used()
        one.say(
            b"PUT http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 150000\r\n\r\n" + bytes(150_000)
        )
        stage.origin.reset()
        self.assertEqual(len(stage.pool.made), 2)
        stage.settle(one)
        stage.origin.say(OK)
        stage.settle(one)
        self.assertEqual(bytes(one.heard), HEARD_OK)
        self.assertEqual(stage.proxy.memory.held, 0)

    def test_not_a_third_time(self):
        stage, one = self.used()
        one.say(GET)
        stage.origin.reset()
        stage.origin.reset()
        stage.settle(one)
        self.assertEqual(len(stage.pool.made), 2)
        self.assertIn(b"502 Bad Gateway", one.heard)

    def test_not_on_a_new_connection(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.reset()
        self.assertEqual(len(stage.pool.made), 1)

    def test_not_when_the_origin_had_begun_to_answer(self):
        for begun in (b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n"):
            stage, one = self.used()
            one.say(GET)
            stage.origin.say(begun)
            stage.origin.reset()
            self.assertEqual(len(stage.pool.made), 1, begun)

    def test_not_a_request_that_does_something_each_time(self):
        stage, one = self.used()
        one.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n")
        stage.origin.reset()
        stage.settle(one)
        self.assertEqual(len(stage.pool.made), 1)
        self.assertIn(b"502 Bad Gateway", one.heard)

    def test_not_a_body_that_has_been_streamed_away(self):
        stage, one = self.used()
        one.say(b"PUT http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabc")
        one.say(b"def")
        stage.settle(one)
        stage.origin.reset()
        self.assertEqual(len(stage.pool.made), 1)

    def test_a_body_that_was_held_is_sent_again(self):
        stage, one = self.used(settings_of("hold: always"))
        one.say(b"PUT http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabc")
        one.say(b"def")
        stage.settle(one)
        stage.origin.reset()
        stage.settle(one)
        self.assertEqual(len(stage.pool.made), 2)
        self.assertTrue(stage.origin.heard.endswith(b"\r\n\r\nabcdef"))
