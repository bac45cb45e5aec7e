"""A slow reader slows its own sender and nobody else, in bounded memory; and nobody keeps a turn to himself."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.http1 import MOST_EVENTS
from tests.conversation import Stage, settings_of
from tests.fakes import LIMIT, TCP, TLS
from tests.proxy.test_faults import GET, GOT, HEARD_OK, OK

READ = 65536
# What one body may have in the proxy: one transport's buffer, and one read.
BOUND = LIMIT + 2 * READ
LONG = b"Content-Length: 100000000\r\n\r\n"
UPLOAD = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\n" + LONG
DOWNLOAD = b"HTTP/1.1 200 OK\r\n" + LONG


class PressureTests:
    manner = ""

    def setUp(self):
        self.stage = Stage(manner=self.manner)
        self.client = self.stage.client()

    def fill(self, source, piece=READ):
        """Let `source` send until it is paused; how much that was."""
        sent = 0
        while source.reading:
            source.say(bytes(piece))
            sent += piece
            self.assertLess(sent, 1 << 20, "never paused")
        return sent

    def test_a_client_that_does_not_read_stops_its_origin(self):
        self.client.say(GET)
        self.stage.origin.say(DOWNLOAD)
        self.assertLessEqual(self.fill(self.stage.origin), BOUND)

    def test_an_origin_that_does_not_read_stops_its_client(self):
        self.client.say(UPLOAD)
        self.assertLessEqual(self.fill(self.client), BOUND)

    def test_an_origin_that_is_not_connected_yet_stops_its_client(self):
        self.stage.pool.waits = True
        self.client.say(UPLOAD)
        self.assertLessEqual(self.fill(self.client), BOUND)

    def test_a_stalled_download_does_not_stop_the_upload_beside_it(self):
        self.client.say(UPLOAD)
        self.stage.origin.say(DOWNLOAD)
        self.fill(self.stage.origin)
        self.assertTrue(self.client.reading)
        self.client.say(b"x" * 1000)
        self.stage.origin.take()
        self.assertTrue(self.stage.origin.heard.endswith(b"x" * 1000))

    def test_a_stalled_client_does_not_stop_another(self):
        self.client.say(GET)
        self.stage.origin.say(DOWNLOAD)
        self.fill(self.stage.origin)
        other = self.stage.client()
        other.say(GET)
        self.stage.origin.say(OK)
        self.assertEqual(bytes(other.take()), HEARD_OK)

    def test_a_client_that_reads_on_gets_every_byte_in_order(self):
        self.client.say(GET)
        self.stage.origin.say(DOWNLOAD)
        sent = bytearray()
        for round_ in range(40):
            while self.stage.origin.reading and len(sent) < 4_000_000:
                piece = bytes([round_, len(sent) & 255]) * 15000
                self.stage.origin.say(piece)
                sent += piece
            self.client.take(100_000)
        while self.client.take():
            pass
        body = bytes(self.client.heard).partition(b"\r\n\r\n")[2]
        self.assertTrue(body == bytes(sent), (len(body), len(sent)))

    def test_an_answered_client_that_does_not_read_cannot_pile_up_answers(self):
        self.stage = Stage(settings_of("rules: [{match: {host: a.example}, respond: {text: 'hello'}}]"), self.manner)
        self.client = self.stage.client()
        for _ in range(2000):
            if not self.client.reading:
                break
            self.client.say(GET * 100)
            self.stage.turn()
        self.assertFalse(self.client.reading)
        self.assertLessEqual(len(self.client.buffer), LIMIT + 4096)

    def test_interim_responses_without_end_stop_where_the_client_does_not_read(self):
        self.client.say(GET)
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </" + b"a" * 1000 + b">\r\n\r\n"
        sent = 0
        while self.stage.origin.reading and sent < 1 << 20:
            self.stage.origin.say(interim * 60)
            sent += 60 * len(interim)
        self.assertLessEqual(sent, BOUND + 60 * len(interim))

    def test_a_rule_that_makes_much_of_little_makes_it_as_it_is_read(self):
        big = "b" * 60000
        rule = f"rules: [{{match: {{host: a.example}}, response: {{replace: [{{find: a, with: {big}}}]}}}}]"
        self.stage = Stage(settings_of(rule), self.manner)
        self.client = self.stage.client()
        self.client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1000)
        pump = self.client.protocol.sink.pump
        most = 0
        for _ in range(2000):
            most = max(most, pump.queued)
            if not self.client.take(100_000):
                break
        self.assertLessEqual(most, 64 * 61000)
        self.assertEqual(self.client.heard.count(b"b"), 60_000_000)

    def test_what_is_sent_behind_a_response_is_not_gathered(self):
        self.client.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nabc")
        self.stage.origin.say(OK)
        self.assertLessEqual(self.fill(self.stage.origin), 2 * READ)

    def test_requests_sent_ahead_are_not_gathered(self):
        self.client.say(GET)
        self.assertLessEqual(self.fill(self.client), 2 * READ)


class TcpPressureTests(PressureTests, SynchronousTestCase):
    manner = TCP


class TlsPressureTests(PressureTests, SynchronousTestCase):
    manner = TLS


class TurnTests(SynchronousTestCase):
    """A turn is shared."""

    def test_a_body_cut_very_fine_is_read_in_several_turns_and_arrives_whole(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        one.take()
        one.heard.clear()
        fine = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
        stage.origin.say(fine)
        self.assertLessEqual(len(one.take()), MOST_EVENTS * 6)
        self.assertFalse(stage.origin.reading)
        stage.settle(one)
        self.assertEqual(bytes(one.heard), fine)
        one.say(GET)
        stage.origin.say(OK)
        self.assertEqual(len(stage.pool.made), 1)

    def test_an_upload_cut_very_fine_is_read_in_several_turns_and_arrives_whole(self):
        stage = Stage()
        one = stage.client()
        fine = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
        one.say(
            b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n" + fine + GET
        )
        self.assertFalse(one.reading)
        stage.settle(one)
        self.assertTrue(stage.origin.heard.endswith(fine))
        stage.origin.say(OK)
        stage.settle(one)
        self.assertTrue(stage.origin.heard.endswith(GOT))

    def test_an_end_behind_a_body_cut_very_fine_is_not_taken_for_a_cut(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        stage.origin.end()
        stage.settle(one)
        self.assertTrue(one.heard.endswith(b"0\r\n\r\n"))
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["forwarded"])

    def test_a_half_close_behind_an_upload_cut_very_fine_is_not_taken_for_a_cut(self):
        stage = Stage()
        one = stage.client()
        one.say(
            b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\nx\r\n" * 5000
            + b"0\r\n\r\n"
        )
        one.end()
        stage.settle(one)
        stage.origin.say(OK)
        stage.settle(one)
        self.assertIn(b"200 OK", one.heard)
        self.assertTrue(one.disconnected)

    def test_a_held_body_cut_very_fine_goes_on_in_several_turns(self):
        stage = Stage(settings_of("hold: always"))
        one = stage.client()
        one.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
        fine = b"1\r\nx\r\n" * 10000
        for _ in range(10):
            one.say(fine)
            stage.turn()
        one.say(b"0\r\n\r\n")
        self.assertLessEqual(len(stage.origin.buffer), LIMIT + 4096)
        self.assertLessEqual(one.protocol._layer._exchange._request_pump.queued, 8192)
        stage.settle(one)
        self.assertTrue(stage.origin.heard.endswith(b"\r\n\r\n" + fine * 10 + b"0\r\n\r\n"))

    def test_many_requests_that_are_answered_at_once_share_the_turn_too(self):
        stage = Stage(settings_of("rules: [{match: {host: a.example}, respond: {text: 'hello'}}]"))
        one = stage.client()
        one.say(GET * 500)
        at_once = len(stage.journal.flows)
        self.assertLess(at_once, 20)
        self.assertFalse(one.reading)
        stage.settle(one)
        self.assertEqual(len(stage.journal.flows), 500)
        self.assertTrue(one.reading)

    def test_a_piece_that_arrives_leaves_in_the_same_turn(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertIn(b"200 OK", one.buffer)
        one.take()
        for piece in (b"5", b"\r\n", b"h", b"ello", b"\r\n"):
            stage.origin.say(piece)
        self.assertEqual(one.take(), b"5\r\nhello\r\n")
        for number in range(100):
            piece = b"20\r\n" + bytes([number]) * 32 + b"\r\n"
            stage.origin.say(piece)
            self.assertEqual(one.take(), piece)

    def test_a_chunk_does_not_wait_to_be_full(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nab")
        self.assertTrue(one.take().endswith(b"\r\n\r\nffff\r\nab"))

    def test_a_response_that_has_come_whole_frees_its_origin_while_the_client_still_reads(self):
        stage = Stage()
        one = stage.client()
        one.say(GET)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(60000))
        stage.origin.say(bytes(40000))
        self.assertEqual(len(stage.pool), 1)
        self.assertEqual(stage.journal.flows, [])
        while one.take():
            pass
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["forwarded"])
