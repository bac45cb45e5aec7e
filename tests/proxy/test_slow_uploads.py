"""A client that sends its body ever so slowly is answered 408; one that is kept waiting, or is answered, isn't."""

from twisted.trial.unittest import SynchronousTestCase

from tests.conversation import Stage, settings_of

HEAD = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n"


class SlowUploadTests(SynchronousTestCase):
    def open(self, text: str = "limits: {upload_rate: 16}\ntimeouts: {idle: 100}") -> None:
        self.stage = Stage(settings_of(text))
        self.client = self.stage.client()
        self.client.say(HEAD)
        self.stage.settle(self.client)

    def dribble(self, seconds: int, bytes_each: int, every: int = 10) -> None:
        """For so long `bytes_each` bytes come every `every` seconds."""
        for _ in range(0, seconds, every):
            if self.client.disconnected or self.client.write_closed:
                return
            self.client.say(bytes(bytes_each))
            self.stage.settle(self.client)
            self.stage.clock.advance(every)
            self.stage.settle(self.client)

    def test_it_is_told_408_and_the_origin_sees_the_end(self) -> None:
        self.open()
        self.dribble(220, 32)
        self.assertIn(b"408 Request Timeout: the client sent too slowly\n", self.client.heard)
        (flow,) = self.stage.journal.flows
        self.assertEqual((flow.outcome, flow.error), ("timed-out", "the client sent too slowly"))
        self.assertTrue(self.stage.origin.disconnected)

    def test_one_that_is_just_fast_enough_goes_on(self) -> None:
        self.open()
        self.dribble(600, 170)
        self.assertEqual(self.stage.journal.flows, [])

    def test_a_body_that_is_held_is_no_other(self) -> None:
        self.open("hold: always\ntimeouts: {idle: 100}")
        self.dribble(220, 32)
        self.assertIn(b"408 ", self.client.heard)

    def test_a_burst_does_not_last_for_ever(self) -> None:
        self.open()
        self.client.say(bytes(50_000))
        self.dribble(400, 32)
        self.assertIn(b"408 ", self.client.heard)

    def test_without_a_rate_anything_that_moves_goes_on(self) -> None:
        self.open("limits: {upload_rate: 0}\ntimeouts: {idle: 100}")
        self.dribble(1000, 1)
        self.assertEqual(self.stage.journal.flows, [])

    def test_what_is_answered_by_now_is_a_conversation(self) -> None:
        self.open()
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.dribble(600, 1)
        self.assertEqual(self.stage.journal.flows, [])

    def test_a_client_that_the_origin_kept_waiting_is_not_blamed(self) -> None:
        self.open()
        self.dribble(90, 200)
        # So much that its origin takes its time over it.
        self.client.say(bytes(150_000))
        self.stage.clock.advance(60)
        self.stage.settle(self.client)
        self.dribble(60, 1)
        self.assertEqual(self.stage.journal.flows, [])
        # From then on it's the client's own doing.
        self.dribble(330, 1)
        self.assertIn(b"408 ", self.client.heard)

    def test_one_that_waited_to_be_told_to_go_on_is_not_blamed(self) -> None:
        self.stage = Stage(settings_of("limits: {upload_rate: 1000}\ntimeouts: {idle: 100}"))
        self.client = self.stage.client()
        self.client.say(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        self.stage.clock.advance(95)
        self.stage.origin.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.dribble(50, 20_000)
        self.assertEqual(self.stage.journal.flows, [])
