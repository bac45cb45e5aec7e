"""The pump between two transports, in the manners of TCP and of TLS."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.pump import SINK_FULL, Pump
from streamproxy.stream.sink import Sink
from streamproxy.stream.valve import Valve
from tests.fakes import LIMIT, TCP, TLS, BoundedTransport

SIZE = 4096
READ = 65536


class Into(Protocol):
    """Puts what it reads into a pump."""

    pump = None

    def dataReceived(self, data):
        self.pump.write(data)


class Line:
    """A source and a sink with a pump between them."""

    def __init__(self, manner, attached=True):
        self.clock = Clock()
        reader = Into()
        self.source = BoundedTransport(manner).connect(reader)
        self.drain = BoundedTransport(manner).connect(Protocol())
        self.valve = Valve(self.source)
        self.sink = Sink(self.drain)
        self.flushed = 0
        self.pump = reader.pump = Pump(self.valve, SIZE, self.clock.seconds, self._flushed)
        if attached:
            self.pump.attach(self.sink)

    def _flushed(self):
        self.flushed += 1


class PumpTests:
    """What holds for either manner."""

    manner = ""

    def test_a_byte_that_arrives_alone_leaves_in_the_same_call(self):
        line = Line(self.manner)
        line.source.say(b"x")
        self.assertEqual(bytes(line.drain.buffer), b"x")
        self.assertEqual(line.source.pauses, 0)

    def test_no_write_is_larger_than_the_piece(self):
        line = Line(self.manner)
        line.source.say(bytes(10000))
        self.assertEqual(line.drain.writes, [4096, 4096, 1808])

    def test_a_full_sink_closes_the_valve_and_keeps_the_rest(self):
        line = Line(self.manner)
        line.source.say(bytes(READ), bytes(READ))
        self.assertEqual(repr(line.valve), f"<Valve closed: {SINK_FULL}>")
        self.assertLessEqual(len(line.drain.buffer), LIMIT + SIZE)
        self.assertEqual(line.pump.queued + len(line.drain.buffer), 2 * READ)

    def test_what_arrives_while_the_valve_is_closed_is_kept_in_order(self):
        line = Line(self.manner)
        pieces = [bytes([number]) * 30000 for number in range(8)]
        line.source.say(*pieces)
        self.assertTrue(line.valve.closed)
        while line.drain.take():
            pass
        self.assertEqual(bytes(line.drain.heard), b"".join(pieces))
        self.assertFalse(line.valve.closed)
        self.assertTrue(line.source.reading)

    def test_the_valve_stays_closed_until_the_queue_is_empty_and_the_sink_has_room(self):
        line = Line(self.manner)
        line.pump.write(bytes(4 * READ))
        for _ in range(2):
            line.drain.take(READ + SIZE)
            self.assertTrue(line.valve.closed, line.pump.queued)
        line.drain.take()
        self.assertFalse(line.valve.closed)

    def test_a_stalled_sink_stops_a_source_that_would_send_for_ever(self):
        line = Line(self.manner)
        sent = 0
        while not line.valve.closed:
            line.source.say(bytes(READ))
            sent += READ
            self.assertLess(sent, 1 << 20)
        self.assertLessEqual(len(line.drain.buffer) + line.pump.queued, LIMIT + READ)

    def test_without_a_sink_everything_waits_and_the_source_is_paused(self):
        line = Line(self.manner, attached=False)
        line.source.say(b"early")
        self.assertTrue(line.valve.closed)
        line.pump.attach(line.sink)
        self.assertEqual(bytes(line.drain.buffer), b"early")
        self.assertFalse(line.valve.closed)

    def test_flushed_is_called_once_the_last_byte_is_the_transports(self):
        line = Line(self.manner)
        line.pump.write(bytes(READ + SIZE + 1))
        line.pump.finish()
        self.assertEqual(line.flushed, 0)
        line.drain.take()
        self.assertEqual((line.flushed, len(line.drain.heard)), (1, READ + SIZE + 1))

    def test_flushed_is_called_at_once_where_nothing_waits(self):
        line = Line(self.manner)
        line.pump.write(b"all")
        line.pump.finish()
        self.assertEqual(line.flushed, 1)

    def test_a_finished_pump_lets_its_source_go_on(self):
        line = Line(self.manner)
        line.source.say(bytes(READ), bytes(READ))
        line.pump.finish()
        self.assertFalse(line.valve.closed)

    def test_an_abandoned_pump_forgets_and_frees_both_ends(self):
        line = Line(self.manner)
        line.pump.write(bytes(3 * READ))
        line.pump.abandon()
        self.assertEqual((line.pump.queued, line.valve.closed, line.sink.pump), (0, False, None))
        line.drain.take()
        self.assertEqual(line.flushed, 0)

    def test_an_abandoned_pump_is_not_woken_by_the_sink(self):
        line = Line(self.manner)
        line.pump.write(bytes(3 * READ))
        before = sum(line.drain.writes)
        line.pump.abandon()
        line.drain.take()
        self.assertEqual(sum(line.drain.writes), before)

    def test_it_tells_since_when_it_stands_still(self):
        line = Line(self.manner)
        self.assertIsNone(line.pump.blocked_since)
        line.clock.advance(5)
        line.pump.write(bytes(3 * READ))
        self.assertEqual(line.pump.blocked_since, 5)
        line.clock.advance(5)
        line.drain.take(READ + SIZE)
        self.assertEqual(line.pump.blocked_since, 10)
        line.drain.take()
        self.assertIsNone(line.pump.blocked_since)

    def test_a_sink_that_is_still_full_from_the_message_before_is_respected(self):
        line = Line(self.manner)
        line.pump.write(bytes(READ + SIZE))
        line.pump.finish()
        self.assertTrue(line.sink.full)
        second = Pump(None, SIZE, line.clock.seconds)
        second.attach(line.sink)
        second.write(b"next")
        self.assertEqual(second.queued, 4)
        line.drain.take()
        self.assertTrue(line.drain.heard.endswith(b"next"))

    def test_a_sink_that_is_released_can_close(self):
        line = Line(self.manner)
        line.pump.write(bytes(3 * READ))
        line.pump.abandon()
        line.sink.release()
        line.drain.loseConnection()
        line.drain.take()
        self.assertTrue(line.drain.disconnected)


class TcpPumpTests(PumpTests, SynchronousTestCase):
    manner = TCP


class TlsPumpTests(PumpTests, SynchronousTestCase):
    manner = TLS

    def test_what_was_decrypted_with_a_read_is_taken_after_the_pause(self):
        line = Line(TLS)
        line.source.say(bytes(READ), bytes(READ), b"last")
        self.assertEqual(line.pump.queued + len(line.drain.buffer), 2 * READ + 4)


class PumpPropertyTests(SynchronousTestCase):
    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(
        st.sampled_from([TCP, TLS]),
        st.lists(st.one_of(st.integers(0, 90000), st.just(None), st.integers(-70000, -1)), max_size=30),
    )
    def test_any_order_of_reads_and_drains_gives_the_same_bytes_in_bounded_memory(self, manner, story):
        line = Line(manner)
        sent = bytearray()
        for number, step in enumerate(story):
            if step is None:
                line.drain.take()
            elif step < 0:
                line.drain.take(-step)
            elif line.source.reading:
                piece = bytes([number]) * step
                if piece:
                    line.source.say(piece)
                    sent += piece
            self.assertLessEqual(len(line.drain.buffer) + line.pump.queued, LIMIT + 90000)
            self.assertEqual(line.valve.closed, bool(line.pump.queued or line.sink.full))
        line.pump.finish()
        while line.drain.take():
            pass
        self.assertEqual(line.drain.heard, sent)
        self.assertEqual(line.flushed, 1)
        self.assertLessEqual(max(line.drain.writes, default=0), SIZE)


class PourTests(SynchronousTestCase):
    """Bytes that are made when there is room for them."""

    def test_nothing_is_made_before_there_is_room(self):
        line = Line(TCP)
        made = []

        def pieces():
            for number in range(100):
                made.append(number)
                yield bytes(10000)

        line.pump.pour(pieces())
        self.assertLess(len(made), 10)
        self.assertTrue(line.valve.closed)
        while line.drain.take():
            pass
        self.assertEqual((len(made), len(line.drain.heard)), (100, 1_000_000))
        self.assertFalse(line.valve.closed)
        self.assertLessEqual(max(line.drain.writes), SIZE)

    def test_what_is_written_behind_it_comes_behind_it(self):
        line = Line(TCP)
        line.pump.pour(iter([b"a" * 70000, b"", b"b"]))
        line.pump.write(b"c")
        line.pump.pour(iter([b"d"]))
        line.pump.finish(b"e")
        while line.drain.take():
            pass
        self.assertEqual(bytes(line.drain.heard), b"a" * 70000 + b"bcde")
        self.assertEqual(line.flushed, 1)

    def test_one_that_breaks_is_told_behind_what_it_gave_and_ends_the_pump(self):
        for before in (b"good", b"g" * 200000):
            line = Line(TCP)
            broken = []
            line.pump.broken = lambda broken=broken: broken.append(1)

            def pieces(before=before):
                yield before
                raise RuntimeError

            line.pump.pour(pieces())
            line.pump.write(b"behind")
            while line.drain.take():
                pass
            self.assertEqual((bytes(line.drain.heard), broken, line.flushed), (before, [1], 0))
            self.assertFalse(line.valve.closed)
