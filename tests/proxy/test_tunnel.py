"""Two byte streams relayed blind: who stalls stops his own sender, and every byte arrives, over TCP and TLS."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.conversation import settings_of
from tests.fakes import LIMIT, TCP, TLS, BoundedTransport
from tests.proxy.test_opening import ESTABLISHED, OpeningTestCase, connect_to
from tests.secure import SecurePeer, SecureStage

READ = 65536
# What one direction may have in the proxy: a transport's buffer with the piece that filled it, and one read.
BOUND = LIMIT + 4096 + READ


def numbered(start: int, size: int) -> bytes:
    """`size` bytes of a stream, from `start` on, that can't be taken for others of it nearby."""
    first = start // 4
    data = b"".join(number.to_bytes(4, "big") for number in range(first, (start + size) // 4 + 1))
    return data[start - first * 4 :][:size]


class TunnelTestCase(OpeningTestCase):
    """A tunnel that is open."""

    times = "timeouts: {idle: 300, tunnel: 3600}"

    def setUp(self):
        self.begin(f"tls: {{intercept: false}}\n{self.times}")
        self.client.say(connect_to("a.example:22"))
        self.client.take(len(ESTABLISHED))

    def fill(self, source: BoundedTransport, piece: int = READ) -> int:
        """Let `source` send until it is paused; how much that was."""
        sent = 0
        while source.reading:
            source.say(bytes(piece))
            sent += piece
            self.assertLess(sent, 1 << 20, "never paused")
        return sent

    def sides(self) -> list[tuple[BoundedTransport, BoundedTransport]]:
        """Who sends, and who reads."""
        return [(self.client, self.origin), (self.origin, self.client)]


class PressureTests:
    def test_one_that_does_not_read_stops_the_other_in_bounded_memory(self):
        for number in (0, 1):
            for piece in (READ, READ - 1, 4096, 5000, 100):
                self.setUp()
                source, _ = self.sides()[number]
                self.assertLessEqual(self.fill(source, piece), BOUND, (number, piece))

    def test_it_stops_nobody_else(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            self.fill(source)
            self.assertTrue(reader.reading)
            source.take()
            source.heard.clear()
            for size in (1, 4096, 100_000):
                reader.say(b"x" * size)
                self.assertEqual(source.take(), b"x" * size)

    def test_both_may_be_stopped_at_once_and_go_on(self):
        self.fill(self.client)
        self.fill(self.origin)
        for source, reader in self.sides():
            self.assertFalse(source.reading)
            self.assertLessEqual(len(reader.buffer), LIMIT + 4096)
        self.stage.settle(self.client)
        self.assertTrue(self.client.reading and self.origin.reading)

    def test_a_reader_that_goes_on_gets_every_byte_in_order(self):
        for number in (0, 1):
            self.setUp()
            source, reader = self.sides()[number]
            reader.heard.clear()
            sent = 0
            while sent < 1_000_000:
                while source.reading and sent < 1_000_000:
                    source.say(numbered(sent, 15_001))
                    sent += 15_001
                reader.take(50_000)
            while reader.take():
                pass
            self.assertTrue(bytes(reader.heard) == numbered(0, sent), (len(reader.heard), sent))

    def test_a_piece_is_never_larger_than_it_may_be(self):
        for size in (16, 1000, 4096):
            stage = SecureStage(settings_of(f"write_size: {size}b\ntls: {{intercept: false}}"), self.manner)
            stage.pool.manner = TCP
            client = stage.client()
            client.say(connect_to())
            client.writes.clear()
            stage.origin.say(bytes(10_001))
            client.say(bytes(10_001))
            for writes in (client.writes, stage.origin.writes):
                self.assertEqual((sum(writes), max(writes)), (10_001, size))

    def test_a_byte_that_arrives_leaves_in_the_same_turn(self):
        for source, reader in self.sides():
            reader.take()
            for number in range(200):
                source.say(bytes([number]))
                self.assertEqual(reader.take(), bytes([number]))


class TcpPressureTests(PressureTests, TunnelTestCase):
    manner = TCP


class TlsPressureTests(PressureTests, TunnelTestCase):
    manner = TLS


SIDES = st.sampled_from(["client", "origin"])
SIZES = st.one_of(st.integers(1, 20), st.integers(1, 100_000))
STEPS = st.lists(
    st.one_of(st.tuples(SIDES, st.sampled_from(["say", "take"]), SIZES), st.tuples(SIDES, st.just("end"), SIZES)),
    max_size=40,
)


class AnyOrderTests(SynchronousTestCase):
    def relay(self, steps: list[tuple[str, str, int]], manner: str) -> None:
        stage = SecureStage(settings_of("tls: {intercept: false}"), manner)
        stage.pool.manner = TCP
        client = stage.client()
        client.say(connect_to())
        client.take(len(ESTABLISHED))
        client.heard.clear()
        peers = {"client": client, "origin": stage.origin}
        said = {"client": 0, "origin": 0}
        ended: list[str] = []
        # Whose end the proxy heard of first; one that is paused is heard of later.
        first: list[str] = []
        for who, does, size in [*steps, ("client", "end", 0), ("origin", "end", 0)]:
            peer = peers[who]
            if does == "take":
                peer.take(size)
            elif who not in ended and does == "say":
                peer.say(numbered(said[who], size))
                said[who] += size
            elif who not in ended:
                ended.append(who)
                peer.end()
            first = first or [each for each in peers if peers[each].ended]
        stage.settle(client)
        for who, other in (("client", "origin"), ("origin", "client")):
            heard, whole = bytes(peers[other].heard), numbered(0, said[who])
            # Over TLS the first end is that of both directions.
            if manner == TCP or first == [who]:
                self.assertTrue(heard == whole, (who, len(heard), len(whole)))
            else:
                self.assertTrue(whole.startswith(heard), (who, len(heard), len(whole)))
        self.assertTrue(client.disconnected and stage.origin.disconnected)
        self.assertFalse(client.aborted or stage.origin.aborted)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["tunnelled"])
        stage.journal.flush()
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    @given(STEPS)
    @settings(max_examples=150, deadline=None)
    def test_however_they_speak_read_and_end_over_tcp_each_hears_what_the_other_said(self, steps):
        self.relay(steps, TCP)

    @given(STEPS)
    @settings(max_examples=150, deadline=None)
    def test_over_tls_who_ends_first_has_been_heard(self, steps):
        self.relay(steps, TLS)


class RealTlsTests(OpeningTestCase):
    """A tunnel that nobody looks into, inside the intercepted TLS of another."""

    def setUp(self):
        self.begin("tls: {passthrough: [b.example]}")
        self.open("a.example:443")
        self.peer: SecurePeer = self.secure()
        self.peer.say(connect_to("b.example:443"))
        self.stage.run(self.peer)
        self.assertEqual(self.peer.take(), ESTABLISHED)
        self.stage.journal.flows.clear()

    def run_all(self) -> None:
        self.stage.run(self.peer, self.origin)

    def test_bytes_pass_both_ways(self):
        for size in (1, 5000, 70_000):
            self.peer.say(numbered(0, size))
            self.origin.say(numbered(7, size))
            self.run_all()
            self.assertTrue(self.peer.take() == numbered(7, size))
            self.assertTrue(self.origin.heard == numbered(0, size))
            self.origin.heard.clear()

    def test_an_origin_that_does_not_read_stops_the_client(self):
        sent = 0
        while self.client.reading:
            self.peer.say(bytes(16_000))
            sent += 16_000
            self.assertLess(sent, 1 << 20)
        self.assertLessEqual(sent, BOUND)
        self.run_all()
        self.assertEqual((len(self.origin.heard), self.client.reading), (sent, True))

    def test_a_client_that_does_not_read_stops_the_origin(self):
        sent = 0
        while self.origin.reading:
            self.origin.say(bytes(16_000))
            sent += 16_000
            self.assertLess(sent, 1 << 20)
        self.assertLessEqual(sent, BOUND)
        self.run_all()
        self.assertEqual((len(self.peer.heard), self.origin.reading), (sent, True))

    def test_an_origin_that_ends_says_goodbye_to_the_client(self):
        self.origin.say(b"last")
        self.origin.end()
        self.run_all()
        self.assertEqual((bytes(self.peer.heard), self.peer.ended), (b"last", True))
        self.peer.say_goodbye()
        self.assert_nothing_left()
        self.assertFalse(self.client.aborted)
        self.assertEqual(self.flow.outcome, "tunnelled")

    def test_a_client_that_says_goodbye_ends_the_origin_s_side(self):
        self.peer.say(b"last")
        self.peer.say_goodbye()
        self.run_all()
        self.assertEqual(bytes(self.origin.heard), b"last")
        self.assertTrue(self.origin.disconnected)
        self.assertFalse(self.origin.aborted)
        self.assertEqual(self.flow.outcome, "tunnelled")
        self.assert_nothing_left()

    def test_an_end_without_a_goodbye_is_a_break(self):
        for ends in (self.client.end, self.client.reset):
            self.setUp()
            ends = getattr(self.client, ends.__name__)
            self.peer.say(b"part")
            ends()
            self.stage.settle(self.client)
            self.assertTrue(self.origin.aborted)
            self.assertEqual(self.flow.outcome, "client-gone")
            self.assert_nothing_left(0.2)

    def test_an_origin_that_breaks_breaks_it_without_a_goodbye(self):
        self.origin.say(b"part")
        self.origin.reset()
        self.run_all()
        self.assertTrue(self.client.aborted)
        self.assertFalse(self.peer.ended)
        self.assertEqual(self.flow.outcome, "origin-gone")
        self.assert_nothing_left(0.2)
