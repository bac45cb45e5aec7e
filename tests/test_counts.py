"""The plain numbers, and that valves, pumps and sinks count what they say they do."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.counts import METHODS, OUTCOMES, PASSING, Counts, Histogram, Traffic
from streamproxy.flow import (
    ANSWERED,
    CLIENT_GONE,
    FAILED,
    FORWARDED,
    MALFORMED,
    ORIGIN_GONE,
    REFUSED,
    SWITCHED,
    TIMED_OUT,
    TUNNELLED,
)
from streamproxy.stream.pump import Pump
from streamproxy.stream.read_size import ReadSize
from streamproxy.stream.sink import Sink
from streamproxy.stream.valve import Valve
from tests.fakes import BoundedTransport


class HistogramTests(SynchronousTestCase):
    def test_a_value_at_a_bound_is_up_to_it_and_one_above_is_not(self) -> None:
        histogram = Histogram((1.0, 2.0))
        for value in (0.0, 1.0, 1.5, 2.0, 2.1):
            histogram.observe(value)
        self.assertEqual(histogram.buckets, [2, 2, 1])
        self.assertEqual(histogram.count, 5)
        self.assertAlmostEqual(histogram.total, 6.6)


class ExchangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counts = Counts()

    def test_every_outcome_of_a_flow_is_known(self) -> None:
        words = {
            *(ANSWERED, CLIENT_GONE, FAILED, FORWARDED, MALFORMED),
            *(ORIGIN_GONE, REFUSED, SWITCHED, TIMED_OUT, TUNNELLED),
        }
        self.assertEqual(set(OUTCOMES), words)

    def test_it_is_counted_by_outcome_and_class_of_status(self) -> None:
        for status in (None, 101, 200, 206, 304, 404, 502):
            self.counts.exchange("forwarded", status, "GET", 0.1, 0.1)
        self.assertEqual(self.counts.exchanges["forwarded"], [1, 1, 2, 1, 1, 1])
        self.assertEqual(sum(map(sum, self.counts.exchanges.values())), 7)

    def test_a_status_or_an_outcome_of_no_known_kind_breaks_nothing(self) -> None:
        self.counts.exchange("forwarded", 999, "GET", 0.1, 0.1)
        self.counts.exchange("unheard-of", 200, "GET", 0.1, 0.1)
        self.assertEqual(self.counts.exchanges["forwarded"], [1, 0, 0, 0, 0, 0])
        self.assertEqual(set(self.counts.exchanges), set(OUTCOMES))

    def test_methods_that_clients_make_up_are_one(self) -> None:
        for method in ("GET", "BREW", "get", "X" * 1000, "-"):
            self.counts.exchange("forwarded", 200, method, 0.1, 0.1)
        self.assertEqual(self.counts.requests, [1] + [0] * (len(METHODS) - 1) + [3])

    def test_tunnels_have_durations_of_their_own(self) -> None:
        self.counts.exchange("forwarded", 200, "GET", 0.1, 0.1)
        self.counts.exchange("tunnelled", 200, "CONNECT", 100.0, 0.1)
        self.counts.exchange("switched", 101, "GET", 100.0, 0.1)
        self.assertEqual(self.counts.durations.count, 1)
        self.assertEqual(self.counts.tunnel_durations.count, 2)
        self.assertEqual(self.counts.first_bytes.count, 3)

    def test_what_never_had_a_first_byte_or_an_end_has_no_time(self) -> None:
        self.counts.exchange("client-gone", None, "GET", None, None)
        self.assertEqual((self.counts.durations.count, self.counts.first_bytes.count), (0, 0))


class ReloadTests(SynchronousTestCase):
    def test_one_that_failed_leaves_the_time_of_the_last_that_worked(self) -> None:
        counts = Counts(5.0)
        self.assertEqual((counts.reload_worked, counts.reloaded_at), (True, 5.0))
        counts.reload(True, 10.0)
        counts.reload(False, 20.0)
        self.assertEqual((counts.reloads, counts.reload_worked, counts.reloaded_at), ([1, 1], False, 10.0))
        counts.reload(True, 30.0)
        self.assertEqual((counts.reloads, counts.reload_worked, counts.reloaded_at), ([1, 2], True, 30.0))


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.valve = Valve(BoundedTransport())
        self.paused, self.resumed = self.counted()

    def counted(self) -> tuple[int, int]:
        return PASSING.paused.get("a test", 0), PASSING.resumed.get("a test", 0)

    def assert_counted(self, paused: int, resumed: int) -> None:
        self.assertEqual(self.counted(), (self.paused + paused, self.resumed + resumed))

    def test_a_cause_counts_when_it_comes_and_when_it_goes(self) -> None:
        self.valve.close("a test")
        self.assert_counted(1, 0)
        self.valve.open("a test")
        self.assert_counted(1, 1)

    def test_a_cause_given_twice_counts_once(self) -> None:
        self.valve.close("a test")
        self.valve.close("a test")
        self.valve.open("a test")
        self.valve.open("a test")
        self.assert_counted(1, 1)

    def test_a_connection_that_ends_ends_its_pauses(self) -> None:
        self.valve.close("a test")
        self.valve.end()
        self.assert_counted(1, 1)
        self.valve.end()
        self.valve.open("a test")
        self.valve.close("a test")
        self.assert_counted(1, 1)


class ResidenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = BoundedTransport(limit=100)
        self.transport.connect(_Nobody())
        self.sink = Sink(self.transport)
        self.pump = Pump(None, 50, self.clock.seconds)
        self.pump.attach(self.sink)
        self.at_once, self.waited, self.total = PASSING.at_once, PASSING.waited.count, PASSING.waited.total

    def assert_counted(self, at_once: int, waited: int, seconds: float) -> None:
        self.assertEqual(PASSING.at_once - self.at_once, at_once)
        self.assertEqual(PASSING.waited.count - self.waited, waited)
        self.assertAlmostEqual(PASSING.waited.total - self.total, seconds)

    def test_what_goes_on_in_its_turn_waits_for_no_time(self) -> None:
        self.pump.write(b"x" * 60)
        self.pump.write(b"x" * 30)
        self.assert_counted(2, 0, 0.0)

    def test_what_waits_is_counted_from_when_it_began_to_wait_whatever_moved_since(self) -> None:
        self.pump.write(b"x" * 400)
        self.clock.advance(3)
        # All that is there, and once what comes then.
        self.transport.take(1000)
        self.clock.advance(4)
        self.assert_counted(0, 0, 0.0)
        self.transport.take()
        self.assert_counted(0, 1, 7.0)

    def test_what_is_given_up_is_not_counted(self) -> None:
        self.pump.write(b"x" * 400)
        self.clock.advance(3)
        self.pump.abandon()
        self.transport.take()
        self.assert_counted(0, 0, 0.0)

    def test_an_end_with_nothing_to_write_is_no_piece(self) -> None:
        self.pump.write(b"x" * 10)
        self.pump.finish()
        self.assert_counted(1, 0, 0.0)


class TrafficTests(SynchronousTestCase):
    def test_what_is_read_and_written_is_counted(self) -> None:
        traffic = Traffic()
        transport = BoundedTransport()
        Sink(transport, traffic).write(b"x" * 30)
        ReadSize(transport, traffic).saw(12)
        self.assertEqual((traffic.received, traffic.sent), (12, 30))


class _Nobody:
    def makeConnection(self, transport: BoundedTransport) -> None:
        pass
