"""A sink as slow as a weak network, between a pump and a transport, in the manners of TCP and of TLS."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.pace import CATCH_UP, LEAST_ON_ITS_WAY, MOST_ON_ITS_WAY, MOST_PIECES, TICK, PacedSink
from streamproxy.stream.pump import Pump
from streamproxy.stream.sink import Sink
from streamproxy.stream.valve import Valve
from tests.fakes import LIMIT, TCP, TLS, BoundedTransport

SIZE = 4096
READ = 65536
# As finely as a reactor's timers go.
STEP = 0.001


class Into(Protocol):
    """Puts what it reads into a pump."""

    pump: Pump

    def dataReceived(self, data: bytes) -> None:
        self.pump.write(data)


class Line:
    """A source and a sink, with a pump and a weak network between them."""

    def __init__(self, manner: str, rate: int | None = None, delay: float = 0.0) -> None:
        self.clock = Clock()
        reader = Into()
        self.source = BoundedTransport(manner).connect(reader)
        self.drain = BoundedTransport(manner).connect(Protocol())
        self.valve = Valve(self.source)
        self.real = Sink(self.drain)
        self.sink = PacedSink(self.real, rate, delay, self.clock)
        # How much had been written to the real sink each time the pump said that all had been.
        self.flushed: list[int] = []
        self.pump = reader.pump = Pump(self.valve, SIZE, self.clock.seconds, lambda: self.flushed.append(self.passed))
        self.pump.attach(self.sink)

    @property
    def passed(self) -> int:
        """How many bytes were written to the real sink."""
        return sum(self.drain.writes)

    @property
    def held(self) -> int:
        return self.sink.sent - self.passed

    def wait(self, seconds: float, step: float = STEP) -> None:
        """Let time pass, with a peer that reads all there is."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.drain.take()

    def wait_for_all(self, most: float = 1e6) -> None:
        """Let time pass, each timer at its time, until there are none."""
        self.drain.take()
        while calls := self.clock.getDelayedCalls():
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))
            self.drain.take()
            assert self.clock.seconds() < most


class PaceTests:
    """What holds for either manner."""

    manner = ""

    def test_without_rate_and_delay_all_passes_at_once(self) -> None:
        line = Line(self.manner)
        line.source.say(b"abc")
        self.assertEqual((bytes(line.drain.buffer), line.sink.pending, line.source.pauses), (b"abc", False, 0))

    def test_the_rate_holds_at_any_time_within_a_tick(self) -> None:
        for rate in (10_000, 65_536, 1_000_000):
            line = Line(self.manner, rate)
            for _ in range(100):
                while line.source.reading:
                    line.source.say(bytes(READ))
                line.wait(0.02)
                due = rate * line.clock.seconds()
                self.assertLessEqual(line.passed, due + rate * TICK + 1)
                self.assertGreaterEqual(line.passed, due - rate * TICK)

    def test_a_body_takes_its_size_by_the_rate(self) -> None:
        line = Line(self.manner, 50_000)
        line.pump.write(bytes(100_000))
        line.pump.finish()
        line.wait_for_all()
        self.near(line.clock.seconds(), 2, 2 * TICK)
        self.assertEqual(line.flushed, [100_000])

    def test_timers_that_are_late_are_made_up_for_and_no_more_than_a_little(self) -> None:
        rate = 100_000
        line = Line(self.manner, rate)
        line.pump.write(bytes(200_000))
        before = line.passed
        line.wait(5, step=5)
        self.assertLessEqual(line.passed - before, rate * (CATCH_UP + TICK) + 1)
        line.wait(0.5, step=CATCH_UP / 2)
        # Nothing is lost to timers that are as late as that.
        self.near(line.passed - before, rate * (CATCH_UP + 0.5), 2 * rate * TICK)

    def test_what_comes_after_a_silence_is_no_burst(self) -> None:
        rate = 100_000
        line = Line(self.manner, rate)
        line.pump.write(b"x")
        line.wait(60, step=1)
        line.pump.write(bytes(READ))
        self.assertLessEqual(line.passed, rate * TICK + 1)

    def test_each_byte_comes_so_much_later(self) -> None:
        line = Line(self.manner, None, 0.25)
        for piece in (b"a", b"b", b"c"):
            line.pump.write(piece)
            line.clock.advance(0.0625)
        self.assertEqual(line.passed, 0)
        line.clock.advance(0.0624)
        self.assertEqual(bytes(line.drain.buffer), b"")
        line.clock.advance(0.0001)
        self.assertEqual(bytes(line.drain.buffer), b"a")
        line.clock.advance(0.0625)
        self.assertEqual(bytes(line.drain.buffer), b"ab")
        line.clock.advance(0.0624)
        self.assertEqual(bytes(line.drain.buffer), b"ab")
        line.clock.advance(0.0001)
        self.assertEqual((bytes(line.drain.buffer), line.sink.pending), (b"abc", False))

    def test_a_delay_does_not_slow_what_flows(self) -> None:
        rate, delay = 100_000, 0.5
        line = Line(self.manner, rate, delay)
        for _ in range(40):
            while line.source.reading:
                line.source.say(bytes(READ))
            line.wait(0.05)
            due = max(0.0, rate * (line.clock.seconds() - delay))
            self.assertLessEqual(line.passed, due + rate * TICK + 1)
            self.assertGreaterEqual(line.passed, due - rate * TICK)

    def test_bytes_are_kept_in_their_order(self) -> None:
        line = Line(self.manner, 30_000, 0.1)
        body = bytes(range(256)) * 400
        for at in range(0, len(body), 777):
            line.pump.write(body[at : at + 777])
            line.wait(0.002)
        line.pump.finish()
        line.wait_for_all()
        self.assertEqual(bytes(line.drain.heard), body)

    def test_its_room_is_what_such_a_network_has_on_its_way_within_bounds(self) -> None:
        for rate, delay, room in (
            (1, 0.0, LEAST_ON_ITS_WAY),
            (1_000_000, 0.08, 200_000),
            (1 << 30, 0.0, MOST_ON_ITS_WAY),
            (None, 0.5, MOST_ON_ITS_WAY),
        ):
            line = Line(self.manner, rate, delay)
            line.pump.write(bytes(3 * MOST_ON_ITS_WAY))
            self.assertTrue(line.sink.full)
            self.assertGreaterEqual(line.held, room - SIZE)
            self.assertLess(line.held, room + SIZE)

    def test_pieces_of_a_byte_are_bounded_too(self) -> None:
        line = Line(self.manner, 10, 60)
        line.pump.pour(iter([b"x"] * (2 * MOST_PIECES)))
        self.assertEqual((line.held, line.sink.full, line.valve.closed), (MOST_PIECES, True, True))
        line.wait_for_all()
        self.assertEqual((line.passed, line.sink.full, line.valve.closed), (2 * MOST_PIECES, False, False))
        self.near(line.clock.seconds(), 60 + 2 * MOST_PIECES / 10, 1)

    def test_a_piece_larger_than_the_room_is_taken_whole(self) -> None:
        line = Line(self.manner, 100_000)
        line.sink.write(b"x" * 10 * LEAST_ON_ITS_WAY)
        self.assertTrue(line.sink.full)
        line.wait_for_all()
        self.assertEqual((line.passed, line.sink.full), (10 * LEAST_ON_ITS_WAY, False))
        self.assertLessEqual(max(line.drain.writes), 100_000 * TICK)

    def test_a_byte_a_second(self) -> None:
        line = Line(self.manner, 1)
        line.pump.write(b"abc")
        for heard in (b"a", b"ab", b"abc"):
            self.assertEqual(bytes(line.drain.buffer), heard)
            line.clock.advance(0.99)
            self.assertEqual(bytes(line.drain.buffer), heard)
            line.clock.advance(0.01)
        self.assertEqual(self.timers(line), 0)

    def test_a_gibibyte_a_second(self) -> None:
        line = Line(self.manner, 1 << 30)
        line.pump.write(bytes(8 << 20))
        line.pump.finish()
        line.wait_for_all()
        self.assertEqual(line.flushed, [8 << 20])
        self.near(line.clock.seconds(), 8 / 1024, TICK)

    def test_a_full_real_sink_stops_it_and_is_not_written_to(self) -> None:
        line = Line(self.manner, 1_000_000)
        line.pump.write(bytes(200_000))
        for _ in range(1000):
            line.clock.advance(STEP)
        self.assertTrue(line.real.full)
        self.assertLessEqual(len(line.drain.buffer), LIMIT + 1_000_000 * TICK)
        self.assertEqual(self.timers(line), 0, "it waits for room, not for time")
        before = line.passed
        line.drain.take()
        self.assertLessEqual(line.passed - before, 1_000_000 * (CATCH_UP + TICK) + 1)
        line.wait_for_all()
        self.assertEqual(len(line.drain.heard), 200_000)

    def test_one_that_was_full_before_is_waited_for(self) -> None:
        line = Line(self.manner)
        line.real.write(bytes(LIMIT + 1))
        line.pump.write(b"abc")
        line.pump.finish()
        self.assertEqual((line.passed, line.flushed), (LIMIT + 1, []))
        line.drain.take()
        self.assertTrue(line.drain.heard.endswith(b"\0abc"))
        self.assertEqual(line.flushed, [LIMIT + 4])

    def test_it_shuts_the_source_and_lets_it_go_on(self) -> None:
        line = Line(self.manner, 50_000)
        line.source.say(bytes(READ))
        self.assertTrue(line.valve.closed)
        self.assertFalse(line.source.reading)
        line.wait(2)
        self.assertFalse(line.valve.closed)
        self.assertTrue(line.source.reading)
        self.assertEqual(line.passed, READ)

    def test_the_source_goes_on_before_the_line_is_empty(self) -> None:
        line = Line(self.manner, 50_000)
        line.pump.write(bytes(LEAST_ON_ITS_WAY + 2 * SIZE))
        while line.valve.closed:
            self.assertLess(line.clock.seconds(), 1)
            line.wait(STEP)
        self.assertGreater(line.held, LEAST_ON_ITS_WAY - SIZE)

    def test_flushed_is_told_when_the_real_sink_has_the_last_byte(self) -> None:
        for rate, delay in ((50_000, 0.0), (None, 0.3), (50_000, 0.3)):
            line = Line(self.manner, rate, delay)
            line.pump.write(bytes(20_000))
            line.pump.finish(b"the end")
            self.assertEqual(line.flushed, [])
            line.wait(2)
            self.assertEqual(line.flushed, [20_007])
            self.assertEqual((self.timers(line), line.real.pump, line.pump.blocked_since), (0, None, None))

    def test_what_has_all_passed_is_flushed_at_once(self) -> None:
        line = Line(self.manner, 50_000)
        line.pump.write(b"abc")
        line.pump.finish()
        self.assertEqual(line.flushed, [3])

    def test_abandoned_it_forgets_what_waits_and_its_timer(self) -> None:
        line = Line(self.manner, 50_000, 0.3)
        line.pump.write(bytes(30_000))
        line.wait(0.4)
        before = line.passed
        line.pump.abandon()
        self.assertEqual((self.timers(line), line.real.pump, line.sink.pending), (0, None, False))
        line.wait(2)
        self.assertEqual((line.passed, line.flushed), (before, []))

    def test_abandoned_in_a_write_it_writes_no_more(self) -> None:
        line = Line(self.manner, None, 0.1)
        for piece in (b"a", b"b", b"c"):
            line.pump.write(piece)
        write = line.drain.write

        def lose(data: bytes) -> None:
            write(data)
            line.pump.abandon()

        self.patch(line.drain, "write", lose)  # type: ignore[attr-defined]
        line.wait(1)
        self.assertEqual((bytes(line.drain.heard), self.timers(line), line.sink.pending), (b"a", 0, False))

    def test_the_next_message_has_the_real_sink_to_itself(self) -> None:
        line = Line(self.manner, 50_000)
        line.pump.write(bytes(20_000))
        line.pump.finish()
        line.wait_for_all()
        after = Pump(None, SIZE, line.clock.seconds)
        after.attach(line.real)
        after.write(bytes(LIMIT) + b"the next")
        line.drain.take()
        self.assertTrue(line.drain.heard.endswith(b"the next"))

    def test_it_may_come_between_when_the_pump_is_writing_already(self) -> None:
        line = Line(self.manner)
        line.pump.attach(line.real)
        line.pump.write(b"head")
        line.pump.attach(PacedSink(line.real, 1000, 0.0, line.clock))
        line.pump.write(b"x" * 100)
        line.pump.finish()
        self.assertEqual(bytes(line.drain.buffer), b"head" + b"x" * 20)
        line.wait(1)
        self.assertEqual((bytes(line.drain.heard), line.flushed), (b"head" + b"x" * 100, [104]))

    def test_a_pump_whose_bytes_go_does_not_stand_still(self) -> None:
        line = Line(self.manner, 1000)
        line.pump.write(bytes(READ))
        for number in range(20):
            if number == 10:
                line.pump.finish()
            line.wait(1)
            blocked = line.pump.blocked_since
            assert blocked is not None
            self.assertLess(line.clock.seconds() - blocked, 2 * TICK)

    def test_one_whose_real_sink_is_full_does(self) -> None:
        line = Line(self.manner, 1_000_000)
        line.pump.write(bytes(4 * READ))
        for _ in range(1000):
            line.clock.advance(STEP)
        blocked = line.pump.blocked_since
        assert blocked is not None
        self.assertGreater(line.clock.seconds() - blocked, 0.5)

    def near(self, value: float, expected: float, by: float) -> None:
        self.assertLessEqual(abs(value - expected), by, value)

    @staticmethod
    def timers(line: Line) -> int:
        return len(line.clock.getDelayedCalls())


class TcpPaceTests(PaceTests, SynchronousTestCase):
    manner = TCP


class TlsPaceTests(PaceTests, SynchronousTestCase):
    manner = TLS


class PacePropertyTests(SynchronousTestCase):
    @settings(max_examples=80, derandomize=True, deadline=None, database=None)
    @given(
        st.sampled_from([TCP, TLS]),
        st.sampled_from([None, 1000, 50_000, 3_000_000, 1 << 30]),
        st.sampled_from([0.0, 0.05, 1.0]),
        st.lists(
            st.tuples(st.just("read"), st.integers(1, 90_000))
            | st.tuples(st.just("wait"), st.floats(0.0001, 2))
            | st.tuples(st.just("take"), st.integers(1, 90_000)),
            max_size=25,
        ),
    )
    def test_any_order_of_reads_waits_and_drains_gives_the_same_bytes_in_bounded_memory(
        self, manner: str, rate: int | None, delay: float, story: list[tuple[str, float]]
    ) -> None:
        line = Line(manner, rate, delay)
        sent = bytearray()
        for number, (step, much) in enumerate(story):
            before = line.passed
            if step == "wait":
                line.clock.advance(much)
            elif step == "take":
                line.drain.take(int(much))
            elif line.source.reading:
                piece = bytes([number]) * int(much)
                line.source.say(piece)
                sent += piece
            if rate is not None:
                self.assertLessEqual(line.passed - before, rate * (CATCH_UP + 2 * TICK) + 1)
            self.assertLess(line.held, MOST_ON_ITS_WAY + SIZE)
            self.assertEqual(line.passed + line.held + line.pump.queued, len(sent))
            self.assertEqual(line.sink.pending, line.held > 0)
            self.assertEqual(line.valve.closed, bool(line.pump.queued or line.sink.full))
            self.assertLessEqual(len(line.clock.getDelayedCalls()), 1)
        line.pump.finish()
        line.wait_for_all()
        self.assertEqual(line.drain.heard, sent)
        self.assertEqual(line.flushed, [len(sent)])
        self.assertEqual((line.clock.getDelayedCalls(), line.real.pump), ([], None))
