"""A pump whose bytes aren't there yet, for whoever makes them waits for something."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Pause
from streamproxy.stream.pump import SINK_FULL
from streamproxy.stream.valve import Valve
from tests.fakes import LIMIT, TCP, TLS
from tests.stream.test_pump import READ, SIZE, Line


class Made:
    """Gives bytes and pauses in turn, and tells how much of them was taken."""

    def __init__(self, *pieces: bytes | Pause) -> None:
        self._pieces = pieces
        self.taken = 0

    def __iter__(self) -> Iterator[bytes | Pause]:
        for piece in self._pieces:
            self.taken += 1
            yield piece
            if isinstance(piece, Pause):
                piece.result()


class PausedPumpTests:
    """What holds for either manner."""

    manner = ""

    def setUp(self) -> None:
        self.line = Line(self.manner)
        self.pump = self.line.pump
        self.pause = Pause("a function")

    @property
    def heard(self) -> bytes:
        self.line.drain.take()
        return bytes(self.line.drain.heard)

    def pour(self, *pieces: bytes | Pause) -> Made:
        made = Made(*pieces)
        self.pump.pour(iter(made))
        return made

    def test_nothing_behind_a_pause_goes_before_it_is_over(self) -> None:
        made = self.pour(b"a", self.pause, b"b")
        self.pump.write(b"c")
        self.assertEqual((self.heard, made.taken), (b"a", 2))
        self.pause.settle()
        self.assertEqual(self.heard, b"abc")

    def test_one_that_is_over_already_is_nothing(self) -> None:
        self.pause.settle()
        self.pour(b"a", self.pause, b"b")
        self.assertEqual((self.heard, self.line.source.pauses, self.pump.blocked_since), (b"ab", 0, None))

    def test_two_in_a_row_are_waited_for_one_by_one(self) -> None:
        second = Pause("another")
        self.pour(b"a", self.pause, second, b"b")
        self.assertEqual(self.pump.waits_for, "a function")
        self.pause.settle()
        self.assertEqual((self.heard, self.pump.waits_for), (b"a", "another"))
        second.settle()
        self.assertEqual((self.heard, self.pump.waits_for), (b"ab", None))

    def test_the_second_of_two_may_be_over_first(self) -> None:
        second = Pause("another")
        self.pour(b"a", self.pause, second, b"b")
        second.settle()
        self.assertEqual(self.heard, b"a")
        self.pause.settle()
        self.assertEqual(self.heard, b"ab")

    def test_a_pause_at_the_very_end_is_waited_for(self) -> None:
        self.pour(b"a", self.pause)
        self.pump.finish()
        self.assertEqual(self.line.flushed, 0)
        self.pause.settle()
        self.assertEqual(self.line.flushed, 1)

    def test_one_that_fails_breaks_the_pump_where_its_result_is_asked_for(self) -> None:
        broken: list[int] = []
        self.pump.broken = lambda: broken.append(1)
        made = self.pour(b"a", self.pause, b"b")
        self.pump.write(b"c")
        self.pause.fail(ValueError("no"))
        self.assertEqual((self.heard, made.taken, broken, self.line.flushed), (b"a", 2, [1], 0))
        self.assertFalse(self.line.valve.closed)

    def test_one_that_fails_and_of_which_nobody_asks_goes_on(self) -> None:
        self.pump.pour(iter([b"a", self.pause, b"b"]))
        self.pause.fail(ValueError("no"))
        self.assertEqual(self.heard, b"ab")

    def test_it_shuts_the_source_as_a_full_sink_does_and_lets_it_go_on(self) -> None:
        self.pour(b"a", self.pause, b"b")
        self.assertEqual(repr(self.line.valve), f"<Valve closed: {SINK_FULL}>")
        self.assertFalse(self.line.source.reading)
        self.pause.settle()
        self.assertFalse(self.line.valve.closed)
        self.assertTrue(self.line.source.reading)

    def test_a_source_that_would_send_for_ever_is_stopped_while_it_waits(self) -> None:
        self.pour(self.pause)
        for _ in range(20):
            if self.line.source.reading:
                self.line.source.say(bytes(READ))
        self.assertLessEqual(self.pump.queued, READ)

    def test_behind_the_pause_the_sink_may_be_full(self) -> None:
        self.pour(self.pause, bytes(2 * LIMIT))
        self.pause.settle()
        self.assertTrue(self.line.valve.closed)
        self.assertLessEqual(len(self.line.drain.buffer), LIMIT + SIZE)
        self.assertEqual(len(self.heard), 2 * LIMIT)
        self.assertFalse(self.line.valve.closed)

    def test_a_sink_that_drains_does_not_end_a_pause(self) -> None:
        made = self.pour(bytes(LIMIT + 1), self.pause, b"b")
        self.assertEqual((len(self.heard), made.taken), (LIMIT + 1, 2))
        self.assertTrue(self.line.valve.closed)
        self.pause.settle()
        self.assertTrue(self.heard.endswith(b"b"))

    def test_it_is_over_while_the_sink_is_full(self) -> None:
        self.line.sink.write(bytes(LIMIT + 1))
        made = self.pour(self.pause, b"b")
        self.pause.settle()
        self.assertEqual(made.taken, 0)
        self.assertEqual(self.heard, bytes(LIMIT + 1) + b"b")

    def test_it_tells_since_when_and_for_what_it_waits(self) -> None:
        self.line.clock.advance(5)
        self.pour(b"a", self.pause)
        self.line.clock.advance(5)
        self.assertEqual((self.pump.waits_for, self.pump.blocked_since), ("a function", 5))
        self.pause.settle()
        self.assertEqual((self.pump.waits_for, self.pump.blocked_since), (None, None))

    def test_what_ends_in_a_pause_is_flushed_only_behind_it(self) -> None:
        self.pour(b"a", self.pause, b"b")
        self.pump.finish(b"c")
        self.assertFalse(self.line.valve.closed)
        self.assertEqual((self.heard, self.line.flushed), (b"a", 0))
        self.pause.settle()
        self.assertEqual((self.heard, self.line.flushed), (b"abc", 1))

    def test_abandoned_it_hears_of_no_end_of_a_pause(self) -> None:
        for end in (self.pause.settle, lambda: self.pause.fail(ValueError("no"))):
            self.setUp()
            made = self.pour(b"a", self.pause, b"b")
            broken: list[int] = []
            self.pump.broken = lambda broken=broken: broken.append(1)
            self.pump.abandon()
            self.assertEqual((self.line.valve.closed, self.pump.waits_for), (False, None))
            end()
            self.assertEqual((self.heard, made.taken, broken, self.line.flushed), (b"a", 2, [], 0))

    def test_without_a_sink_nothing_is_asked_for(self) -> None:
        self.line = Line(self.manner, attached=False)
        self.pump = self.line.pump
        made = self.pour(self.pause, b"a")
        self.assertEqual((made.taken, self.pump.waits_for), (0, None))
        self.pump.attach(self.line.sink)
        self.assertEqual((made.taken, self.pump.waits_for), (1, "a function"))
        self.pause.settle()
        self.assertEqual(self.heard, b"a")

    def test_a_source_that_comes_later_is_kept_waiting_too(self) -> None:
        self.pour(self.pause)
        valve = Valve(self.line.source)
        self.pump.take_valve(valve)
        self.assertTrue(valve.closed)
        self.pause.settle()
        self.assertFalse(valve.closed)

    # Whoever makes the bytes waits, before there are any.

    def test_one_that_is_told_to_wait_keeps_the_source_and_what_is_written_waiting(self) -> None:
        self.line.clock.advance(3)
        self.pump.wait_for(self.pause)
        self.assertEqual((self.pump.waits_for, self.pump.blocked_since), ("a function", 3))
        self.assertTrue(self.line.valve.closed)
        self.pump.write(b"a")
        self.assertEqual(self.heard, b"")
        self.pump.waited()
        self.assertEqual((self.heard, self.pump.waits_for, self.pump.blocked_since), (b"a", None, None))
        self.assertFalse(self.line.valve.closed)

    def test_a_sink_that_drains_meanwhile_does_not_let_the_source_go_on(self) -> None:
        self.pump.write(bytes(LIMIT + 1))
        self.pump.wait_for(self.pause)
        self.line.drain.take()
        self.assertFalse(self.line.sink.full)
        self.assertTrue(self.line.valve.closed)
        self.pump.waited()
        self.assertFalse(self.line.valve.closed)

    def test_waiting_in_vain_is_no_harm(self) -> None:
        self.pump.waited()
        self.pump.write(b"a")
        self.assertEqual((self.heard, self.line.source.pauses), (b"a", 0))

    def test_what_waits_for_the_maker_is_not_over(self) -> None:
        self.pump.wait_for(self.pause)
        self.pump.finish()
        self.assertEqual(self.line.flushed, 0)
        self.pump.waited()
        self.assertEqual(self.line.flushed, 1)

    def test_abandoned_it_does_not_wait(self) -> None:
        self.pump.wait_for(self.pause)
        self.pump.abandon()
        self.assertEqual((self.pump.waits_for, self.line.valve.closed), (None, False))
        self.pump.waited()
        self.assertEqual(self.line.flushed, 0)

    def test_what_is_held_before_there_is_a_sink_keeps_its_source_waiting_no_longer_than_the_pause(self) -> None:
        line = Line(self.manner, attached=False)
        line.pump.wait_for(self.pause)
        self.assertTrue(line.valve.closed)
        line.pump.waited()
        self.assertEqual((line.valve.closed, line.pump.blocked_since), (False, None))
        # What is written waits for the sink, as ever.
        line.pump.write(b"a")
        self.assertTrue(line.valve.closed)
        line.pump.attach(line.sink)
        self.assertFalse(line.valve.closed)

    def test_what_brings_nothing_for_long_goes_on_in_another_turn(self) -> None:
        line, later = self.line, []
        self.pump.later = later.append

        def slowly() -> Iterator[bytes]:
            for _ in range(20):
                line.clock.advance(0.005)
                yield b""
            yield b"a"

        self.pump.pour(slowly())
        turns = 0
        while later:
            self.assertTrue(line.valve.closed)
            self.assertEqual(self.heard, b"")
            turns += 1
            later.pop()()
        self.assertEqual((self.heard, line.valve.closed), (b"a", False))
        self.assertTrue(3 <= turns <= 6, turns)

    # What is waited for won't come.

    def test_what_is_given_up_with_the_pause_never_comes_but_the_end_does(self) -> None:
        made = self.pour(b"a", self.pause, b"b")
        self.pump.write(b"c")
        self.pump.give_up_waiting()
        self.pump.finish()
        self.assertEqual((self.heard, made.taken, self.line.flushed), (b"a", 2, 1))
        self.pause.settle()
        self.assertEqual((self.heard, made.taken, self.line.flushed), (b"a", 2, 1))
        self.assertFalse(self.line.valve.closed)

    def test_what_waits_for_the_sink_alone_is_not_given_up(self) -> None:
        self.pump.write(bytes(2 * LIMIT))
        self.pump.give_up_waiting()
        self.pump.finish()
        self.assertEqual(len(self.heard), 2 * LIMIT)
        self.assertEqual(self.line.flushed, 1)

    def test_what_the_sink_has_already_is_not_given_up(self) -> None:
        self.pour(bytes(SIZE), self.pause)
        self.pump.give_up_waiting()
        self.pump.finish()
        self.assertEqual((len(self.line.drain.buffer), self.line.flushed), (SIZE, 1))


class TcpPausedPumpTests(PausedPumpTests, SynchronousTestCase):
    manner = TCP


class TlsPausedPumpTests(PausedPumpTests, SynchronousTestCase):
    manner = TLS


class PausedPumpPropertyTests(SynchronousTestCase):
    @settings(max_examples=80, derandomize=True, deadline=None, database=None)
    @given(
        st.sampled_from([TCP, TLS]),
        st.lists(
            st.lists(st.integers(0, 60_000) | st.just(None), max_size=4)
            | st.tuples(st.sampled_from(["settle", "take", "write"]), st.integers(1, 60_000)),
            max_size=25,
        ),
    )
    def test_any_order_of_pieces_pauses_and_drains_gives_the_same_bytes(self, manner: str, story: list) -> None:
        line = Line(manner)
        pauses: list[Pause] = []
        sent = bytearray()
        for number, step in enumerate(story):
            if isinstance(step, list):
                pieces: list[bytes | Pause] = []
                for size in step:
                    if size is None:
                        pauses.append(Pause(str(number)))
                        pieces.append(pauses[-1])
                    else:
                        pieces.append(bytes([number]) * size)
                        sent += pieces[-1]
                line.pump.pour(iter(pieces))
            elif step[0] == "write":
                sent += bytes([number]) * step[1]
                line.pump.write(bytes([number]) * step[1])
            elif step[0] == "take":
                line.drain.take(step[1])
            elif pauses:
                pauses.pop(step[1] % len(pauses)).settle()
            stands_still = line.pump.queued > 0 or line.sink.full or line.pump.waits_for is not None
            self.assertEqual(line.valve.closed, stands_still)
            self.assertEqual(line.pump.blocked_since is not None, stands_still)
        line.pump.finish()
        for pause in pauses:
            line.drain.take()
            pause.settle()
        while line.drain.take():
            pass
        self.assertEqual(line.drain.heard, sent)
        self.assertEqual(line.flushed, 1)
