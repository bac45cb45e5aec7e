"""How tunnels end: in order, one direction at a time or both; broken; and after nothing moved for too long."""

from __future__ import annotations

from tests.fakes import LIMIT, TCP, TLS
from tests.proxy.test_opening import ESTABLISHED, connect_to
from tests.proxy.test_tunnel import READ, TunnelTestCase


class EndTests(TunnelTestCase):
    """Ends over TCP, of one direction each."""

    def test_an_end_on_one_side_is_one_on_the_other_and_no_more(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            source.say(b"last")
            source.end()
            self.stage.settle(self.client)
            self.assertTrue(reader.heard.endswith(b"last"))
            self.assertTrue(reader.write_closed)
            self.assertFalse(source.write_closed or source.disconnected or reader.disconnected)
            self.assertEqual(self.stage.journal.flows, [])
            for _ in range(3):
                reader.say(b"more")
                self.stage.settle(self.client)
                self.assertTrue(source.heard.endswith(b"more"))
            reader.end()
            self.stage.settle(self.client)
            self.assertEqual((self.flow.outcome, self.flow.error), ("tunnelled", ""))
            self.assertFalse(source.aborted or reader.aborted)
            self.assert_nothing_left(0.2)

    def test_it_comes_behind_what_was_said_before_it(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            reader.heard.clear()
            sent = self.fill(source)
            source.end()
            while reader.buffer:
                self.assertFalse(reader.write_closed)
                reader.take(10_000)
            reader.take()
            self.assertEqual((len(reader.heard), reader.write_closed), (sent, True))

    def test_both_may_end_at_once(self):
        for manner in ("one then the other", "the other then one"):
            self.setUp()
            self.client.say(b"from the client")
            self.origin.say(b"from the origin")
            for peer in self.sides()[manner != "one then the other"]:
                peer.end()
            self.stage.settle(self.client)
            self.assertTrue(self.client.heard.endswith(b"from the origin"))
            self.assertTrue(self.origin.heard.endswith(b"from the client"))
            self.assertEqual(self.flow.outcome, "tunnelled")
            self.assert_nothing_left(0.2)

    def test_what_was_relayed_is_counted(self):
        self.client.say(b"x" * 10_000)
        self.origin.say(b"y" * 20_000)
        self.stage.settle(self.client)
        self.stage.clock.advance(5)
        self.client.end()
        self.origin.end()
        self.assert_nothing_left()
        flow = self.flow
        self.assertEqual((flow.request.size, flow.response.size), (10_000, 20_000))
        self.assertEqual(flow.client_in, len(connect_to("a.example:22")) + 10_000)
        self.assertEqual(flow.client_out, len(ESTABLISHED) + 20_000)
        self.assertEqual((flow.origin_out, flow.origin_in), (10_000, 20_000))
        self.assertEqual((flow.first_byte, flow.duration, flow.status), (0, 5, 200))


class SecureEndTests(TunnelTestCase):
    """Where the client is inside TLS there is no half-close."""

    manner = TLS

    def test_an_origin_that_ends_ends_it_behind_what_it_said(self):
        self.client.heard.clear()
        sent = self.fill(self.origin)
        self.origin.end()
        self.assertFalse(self.client.disconnected)
        self.stage.settle(self.client)
        self.assertEqual(len(self.client.heard), sent)
        self.assertTrue(self.client.disconnected and self.origin.disconnected)
        self.assertFalse(self.client.aborted or self.origin.aborted)
        self.assertEqual(self.flow.outcome, "tunnelled")
        self.assert_nothing_left(0.2)

    def test_an_origin_that_ends_still_hears_what_the_client_had_said(self):
        sent = self.fill(self.client)
        self.origin.end()
        self.assertTrue(self.client.disconnecting)
        while self.origin.take(10_000):
            pass
        self.assertEqual(len(self.origin.heard), sent)
        self.assertTrue(self.origin.disconnected)
        self.assertFalse(self.origin.aborted)
        self.assertEqual(self.flow.outcome, "tunnelled")
        self.stage.settle(self.client)
        self.assert_nothing_left(0.2)

    def test_a_client_that_says_goodbye_ends_it_behind_what_it_said(self):
        sent = 0
        while len(self.origin.buffer) <= LIMIT:
            self.client.say(bytes(10_000))
            sent += 10_000
        self.origin.take()
        self.client.say(b"last")
        self.client.end()
        self.stage.settle(self.client)
        self.assertEqual(len(self.origin.heard), sent + 4)
        self.assertTrue(self.origin.disconnected)
        self.assertFalse(self.origin.aborted)
        self.assertEqual(self.flow.outcome, "tunnelled")
        self.assert_nothing_left(0.2)


class BreakTests:
    def test_a_reset_is_passed_on_as_one(self):
        for number, outcome, why in (
            (0, "client-gone", "the client's connection broke"),
            (1, "origin-gone", "the origin's connection broke"),
        ):
            for filled in (False, True):
                self.setUp()
                source, reader = self.sides()[number]
                if filled:
                    self.fill(source)
                source.reset()
                self.assertTrue(reader.aborted)
                self.assertEqual((self.flow.outcome, self.flow.error), (outcome, why))
                self.assert_nothing_left(0.2)


class TcpBreakTests(BreakTests, TunnelTestCase):
    manner = TCP

    def test_a_reset_behind_an_end_is_passed_on_too(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            source.say(b"x")
            source.end()
            self.stage.settle(self.client)
            source.reset()
            self.assertTrue(reader.aborted)
            self.assertEqual(self.flow.outcome, "origin-gone" if number else "client-gone")
            self.assert_nothing_left(0.2)


class TlsBreakTests(BreakTests, TunnelTestCase):
    manner = TLS


class DeadlineTests:
    def assert_broken(self) -> None:
        self.assertTrue(self.client.aborted and self.origin.aborted)
        self.assertEqual((self.flow.outcome, self.flow.error), ("timed-out", "nothing moved in the tunnel"))
        self.assert_nothing_left(0.2)

    def test_a_side_that_does_not_read_has_so_long_as_anything_may_stand_still(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            self.stage.clock.advance(1000)
            self.fill(source)
            for _ in range(29):
                # That the other direction moves changes nothing.
                self.stage.clock.advance(10)
                reader.say(b"x")
                source.take()
            self.assertFalse(reader.disconnected)
            self.stage.clock.advance(10)
            self.assert_broken()

    def test_one_that_reads_slowly_is_given_time(self):
        self.fill(self.origin)
        for _ in range(20):
            self.stage.clock.advance(200)
            self.client.take()
            self.fill(self.origin)
        self.assertFalse(self.client.disconnected)
        self.stage.clock.pump([100] * 4)
        self.assert_broken()

    def test_silence_may_be_long(self):
        self.stage.settle(self.client)
        for source, _ in self.sides():
            self.wait(3500, 50)
            source.say(b"x")
        self.wait(3599, 50)
        self.assertFalse(self.client.disconnected)
        self.wait(2)
        self.assert_broken()

    def test_silence_may_be_shorter_than_the_wait_for_a_reader(self):
        self.times = "timeouts: {idle: 300, tunnel: 60}"
        self.setUp()
        self.wait(59)
        self.assertFalse(self.client.disconnected)
        self.wait(2)
        self.assert_broken()


class TcpDeadlineTests(DeadlineTests, TunnelTestCase):
    manner = TCP

    def test_a_half_closed_one_may_stand_still_no_longer_than_an_exchange(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            source.end()
            for _ in range(3):
                self.wait(250)
                reader.say(b"x")
            self.wait(299)
            self.assertFalse(self.client.disconnected)
            self.wait(2)
            self.assert_broken()

    def test_one_that_reads_the_last_bytes_late_has_them(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            reader.heard.clear()
            source.say(bytes(60_000))
            reader.end()
            source.take()
            source.end()
            self.assertEqual(self.flow.outcome, "tunnelled")
            self.stage.clock.pump([50] * 5)
            self.assertEqual((reader.aborted, len(reader.take())), (False, 60_000), number)
            self.assert_nothing_left(0.2)

    def test_one_that_never_reads_them_is_let_go(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            source.say(bytes(60_000))
            reader.end()
            source.take()
            source.end()
            self.stage.clock.advance(301)
            self.assertTrue(reader.aborted)
            self.assert_nothing_left(0.2)


class TlsDeadlineTests(DeadlineTests, TunnelTestCase):
    manner = TLS

    def test_a_client_that_never_reads_the_last_bytes_is_let_go(self):
        self.origin.say(bytes(60_000))
        self.origin.end()
        self.assertEqual(self.flow.outcome, "tunnelled")
        self.stage.clock.advance(299)
        self.assertFalse(self.client.disconnected)
        self.stage.clock.advance(2)
        self.assertTrue(self.client.aborted)
        self.assert_nothing_left(0.2)

    def test_an_origin_that_does_not_read_what_a_client_that_left_had_said_is_let_go(self):
        self.client.say(bytes(READ), bytes(READ // 2))
        # The goodbye was in the last read, whatever is paused by now.
        self.client.reading = True
        self.client.end()
        self.assertFalse(self.origin.disconnected)
        self.stage.clock.pump([100] * 4)
        self.assertTrue(self.origin.disconnected)
        self.assertEqual(self.flow.outcome, "timed-out")
        self.assert_nothing_left(0.2)
