"""Every wait has its deadline, and nothing is left behind when a connection is gone."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.upstream import LAST_WORDS
from tests.conversation import Stage, settings_of
from tests.proxy.test_faults import GET, GOT, HALF, HEARD_HALF, HEARD_OK, OK, UPLOAD, answer

TIMES = "timeouts: {connect: 10, head: 30, idle: 300, keepalive: 75}"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class DeadlineTests(SynchronousTestCase):
    def setUp(self):
        self.stage = Stage(settings_of(TIMES))
        self.client = self.stage.client()

    def outcomes(self):
        return [flow.outcome for flow in self.stage.journal.flows]

    def wait(self, seconds, step=1.0):
        """Let time pass, with both peers reading."""
        while seconds > 0:
            self.stage.clock.advance(min(step, seconds))
            self.stage.settle(self.client)
            seconds -= step

    def assert_nothing_left(self):
        for made in [self.client, *self.stage.pool.made]:
            made.reset()
        self.stage.proxy.journal.flush()
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])
        self.assertEqual(self.stage.proxy.connections, set())

    def test_a_client_that_says_nothing_is_closed_after_keepalive(self):
        self.wait(74)
        self.assertFalse(self.client.disconnected)
        self.wait(2)
        self.assertTrue(self.client.disconnected)
        self.assertEqual((bytes(self.client.heard), self.outcomes()), (b"", []))
        self.assert_nothing_left()

    def test_a_client_that_says_nothing_more_is_closed_after_keepalive(self):
        self.client.say(GET)
        self.stage.origin.say(OK)
        self.wait(74)
        self.assertFalse(self.client.disconnected)
        self.wait(2)
        self.assertTrue(self.client.disconnected)

    def test_a_head_that_comes_too_slowly_is_answered_408_however_it_dribbles(self):
        for number in range(29):
            self.client.say(GET[number : number + 1])
            self.wait(1)
        self.assertEqual(bytes(self.client.heard), b"")
        self.wait(2)
        self.assertEqual(
            bytes(self.client.heard),
            answer("408 Request Timeout", "the request's head took too long", close=True, at=30),
        )
        self.assertEqual(self.outcomes(), ["timed-out"])
        self.wait(20)
        self.assertTrue(self.client.disconnected)
        self.assert_nothing_left()

    def test_an_origin_that_does_not_answer_is_504_after_idle(self):
        self.client.say(GET)
        self.wait(299)
        self.assertEqual(bytes(self.client.heard), b"")
        self.wait(2)
        self.assertEqual(bytes(self.client.heard), answer("504 Gateway Timeout", "the origin stopped", at=300))
        self.assertTrue(self.stage.origin.disconnected)
        self.assertEqual(self.outcomes(), ["timed-out"])
        self.assert_nothing_left()

    def test_a_client_that_stops_inside_its_upload_is_408_after_idle(self):
        self.client.say(UPLOAD)
        self.wait(301)
        self.assertEqual(
            bytes(self.client.heard), answer("408 Request Timeout", "the client stopped sending", close=True, at=300)
        )
        self.assertTrue(self.stage.origin.disconnected)
        self.assertEqual(self.outcomes(), ["timed-out"])

    def test_an_origin_that_stops_inside_its_response_is_cut_after_idle(self):
        self.client.say(GET)
        self.stage.origin.say(HALF)
        self.wait(301)
        self.assertEqual(bytes(self.client.heard), HEARD_HALF)
        self.assertTrue(self.client.disconnected)
        self.assertEqual(self.outcomes(), ["timed-out"])
        self.assert_nothing_left()

    def test_a_stream_that_says_something_now_and_then_lives_on(self):
        self.client.say(GET)
        self.stage.origin.say(ENDLESS)
        for _ in range(5):
            self.wait(250, 50)
            self.stage.origin.say(b"1\r\nx\r\n")
        self.wait(1)
        self.assertFalse(self.client.disconnected)
        self.assertTrue(self.client.heard.endswith(b"1\r\nx\r\n"))

    def test_a_client_that_stops_reading_is_reset_after_idle(self):
        self.client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        while self.stage.origin.reading:
            self.stage.origin.say(bytes(65536))
        self.stage.clock.advance(299)
        self.assertFalse(self.client.disconnected)
        self.stage.clock.advance(2)
        self.assertTrue(self.client.aborted)
        self.assertTrue(self.stage.origin.disconnected)
        self.assertEqual([(flow.outcome, flow.error) for flow in self.stage.journal.flows],
                         [("timed-out", "the client stopped reading")])  # fmt: skip
        self.assert_nothing_left()

    def test_a_client_that_reads_slowly_but_reads_lives_on(self):
        self.client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(10):
            self.stage.clock.advance(200)
            self.client.take(70000)
            if self.stage.origin.reading:
                self.stage.origin.say(bytes(65536))
        self.assertFalse(self.client.disconnected)

    def test_a_pause_has_its_deadline_even_if_the_other_direction_moves(self):
        self.client.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9000000\r\n\r\n")
        self.stage.origin.say(ENDLESS)
        while self.client.reading:
            self.client.say(bytes(65536))
        for _ in range(31):
            self.stage.clock.advance(10)
            self.stage.origin.say(b"1\r\nx\r\n")
            self.client.take()
        self.client.take()
        self.assertTrue(self.client.disconnected)
        self.assertEqual(self.outcomes(), ["timed-out"])

    def test_an_origin_that_stops_reading_is_504_after_idle(self):
        self.client.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9000000\r\n\r\n")
        while self.client.reading:
            self.client.say(bytes(65536))
        self.stage.clock.advance(301)
        self.client.take()
        self.assertEqual(
            bytes(self.client.heard), answer("504 Gateway Timeout", "the origin stopped", close=True, at=301)
        )
        self.stage.clock.advance(11)
        self.assertTrue(self.stage.origin.disconnected)

    def test_a_client_that_does_not_read_its_last_words_is_reset(self):
        self.client.say(b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        self.stage.origin.say(OK)
        self.stage.clock.advance(299)
        self.assertFalse(self.client.disconnected)
        self.stage.clock.advance(2)
        self.assertTrue(self.client.aborted)
        self.assert_nothing_left()

    def test_what_is_refused_behind_an_answer_that_is_not_read_ends_too(self):
        # The words can't be written: what waits for that must have a deadline of its own.
        for rest, outcome in ((b"t", "timed-out"), (b"tp:\r\n\r\n", "malformed")):
            self.stage = Stage(settings_of(TIMES))
            self.client = self.stage.client()
            self.client.say(GET)
            self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536))
            self.client.say(b"GET ht")
            self.client.say(rest)
            for _ in range(70):
                self.stage.clock.advance(10)
            self.assertTrue(self.client.disconnected)
            self.assertEqual(self.outcomes(), ["forwarded", outcome])
            self.assert_nothing_left()

    def test_a_held_body_that_is_read_steadily_lives_on_as_a_streamed_one_does(self):
        self.stage = Stage(settings_of(TIMES + "\nhold: always"))
        self.client = self.stage.client()
        self.client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n")
        for _ in range(100):
            self.stage.origin.say(bytes(40000))
        for _ in range(80):
            self.stage.clock.advance(100)
            self.client.take(70000)
        while self.client.take():
            pass
        self.assertEqual(len(self.client.heard.partition(b"\r\n\r\n")[2]), 4000000)
        self.assertEqual(self.outcomes(), ["forwarded"])

    def test_an_answered_client_that_goes_on_sending_is_read_for_a_while_and_then_closed(self):
        self.stage = Stage(settings_of(TIMES + "\nrules: [{match: {host: a.example}, block: true}]"))
        self.client = self.stage.client()
        self.client.say(UPLOAD)
        self.stage.settle(self.client)
        self.assertIn(b"403", self.client.heard)
        self.assertTrue(self.client.write_closed)
        for _ in range(10):
            if not self.client.disconnected:
                self.client.say(bytes(60000))
        self.assertFalse(self.client.disconnected)
        self.wait(3)
        self.assertTrue(self.client.disconnected)
        self.assert_nothing_left()

    def test_an_answered_client_that_sends_without_end_is_not_read_and_has_time_to_read_the_answer(self):
        self.stage = Stage(settings_of(TIMES + "\nrules: [{match: {host: a.example}, block: true}]"))
        self.client = self.stage.client()
        self.client.say(UPLOAD)
        self.stage.settle(self.client)
        for _ in range(20):
            if not self.client.disconnected:
                self.client.say(bytes(65536))
        self.assertTrue(self.client.write_closed)
        self.assertEqual((self.client.disconnected, self.client.reading, len(self.client.inbox)), (False, False, 3))
        self.wait(2 + LAST_WORDS + 1)
        self.assertTrue(self.client.disconnected)
        self.assert_nothing_left()

    def test_an_idle_origin_connection_is_closed_after_keepalive(self):
        self.client.say(GET)
        self.stage.origin.say(OK)
        self.stage.settle(self.client)
        self.assertEqual(len(self.stage.pool), 1)
        self.wait(76)
        self.assertEqual(len(self.stage.pool), 0)
        self.assertTrue(self.stage.origin.disconnected)
        self.assert_nothing_left()

    def test_a_thousand_exchanges_leave_no_delayed_calls(self):
        for _ in range(1000):
            self.client.say(GET)
            self.stage.origin.say(OK)
            self.stage.settle(self.client)
        self.assertEqual(bytes(self.client.heard), HEARD_OK * 1000)
        self.assertEqual(bytes(self.stage.origin.heard), GOT * 1000)
        self.assertLessEqual(len(self.stage.clock.getDelayedCalls()), 3)
        self.assert_nothing_left()
