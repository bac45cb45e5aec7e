"""Calls of users' functions: what fails, takes long or never ends."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import time

from greenlet import getcurrent, greenlet
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import FilterError
from streamproxy.scripts.calls import IDLE_ROUNDS, QUIET, Calls, ScriptError, ScriptHung

MOST = 0.15


class CallsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = Calls(self.clock, budget=0.02, most=MOST)
        self.addCleanup(self.calls.stop)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self, words: str) -> list[str]:
        lines = [eventAsText(event, includeTimestamp=False, includeSystem=False) for event in self.events]
        return [line for line in lines if words in line]

    def fails(self, function: object, *args: object) -> str:
        return str(self.assertRaises(ScriptError, self.calls.run, "x.py:f", function, *args))


class ErrorTests(CallsTestCase):
    def test_what_the_function_returns_comes_back(self) -> None:
        self.assertEqual(self.calls.run("x.py:f", divmod, 7, 2), (3, 1))

    def test_what_it_raises_becomes_an_error_of_a_filter_that_names_it(self) -> None:
        def wrong() -> None:
            raise ValueError("no\nway")

        line = wrong.__code__.co_firstlineno + 1
        error = self.assertRaises(ScriptError, self.calls.run, "x.py:f", wrong)
        self.assertIsInstance(error, FilterError)
        self.assertEqual(str(error), rf"x.py:f raised ValueError: 'no\nway' (line {line})")
        self.assertEqual(error.name, "x.py:f")
        self.assertIsNone(error.__context__)

    def test_the_traceback_is_logged_once_in_a_while_with_its_causes_and_without_our_frames(self) -> None:
        def wrong() -> None:
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("no") from error

        for _ in range(3):
            self.fails(wrong)
        (text,) = self.logged("ValueError")
        self.assertIn("in wrong", text)
        self.assertIn("because of KeyError", text)
        self.assertNotIn("scripts/calls.py", text)
        self.clock.advance(QUIET)
        self.fails(wrong)
        self.assertEqual(len(self.logged("ValueError")), 2)

    def test_an_exit_or_a_stray_end_of_an_iterator_is_an_error_like_any_other(self) -> None:
        for kind in (SystemExit, StopIteration, GeneratorExit):

            def wrong(kind: type[BaseException] = kind) -> None:
                raise kind

            self.assertIn(kind.__name__, self.fails(wrong))

    def test_an_exception_that_fails_to_say_what_it_is_is_named_by_its_type(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def wrong() -> None:
            raise Odd

        self.assertIn("raised Odd (line", self.fails(wrong))

    def test_an_error_of_a_call_inside_a_call_stays_what_it_is(self) -> None:
        def inner() -> None:
            raise ValueError

        self.assertIn("y.py:inner", self.fails(self.calls.run, "y.py:inner", inner))


class TimeTests(CallsTestCase):
    def test_what_takes_longer_than_its_budget_is_logged_once_in_a_while(self) -> None:
        self.calls.run("x.py:f", int)
        self.assertEqual(self.logged("budget"), [])
        for _ in range(2):
            self.calls.run("x.py:f", time.sleep, 0.03)
        self.assertEqual(len(self.logged("ms, budget 20 ms")), 1)
        self.clock.advance(QUIET)
        self.calls.run("x.py:f", time.sleep, 0.03)
        self.assertEqual(len(self.logged("ms, budget 20 ms")), 2)

    def test_a_call_is_not_charged_for_another_that_was_made_in_it(self) -> None:
        self.calls.run("x.py:f", self.calls.run, "y.py:g", time.sleep, 0.03)
        self.assertEqual(len(self.logged("budget")), 1)
        self.assertEqual(len(self.logged("y.py:g took")), 1)

    def test_where_a_call_is_that_is_past_its_budget_is_logged_while_it_runs(self) -> None:
        self.calls.most = 10
        self.calls.start()
        seen: list[list[str]] = []

        def slow() -> None:
            end = time.perf_counter() + 5
            while not seen and time.perf_counter() < end:
                time.sleep(0.005)
                if self.logged("ms now"):
                    seen.append(self.logged("ms now"))

        self.calls.run("x.py:f", slow)
        self.assertIn("in slow", seen[0][0])
        self.assertNotIn("scripts/calls.py", seen[0][0])


class HangTests(CallsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.calls.start()

    def hangs(self, function: object) -> None:
        began = time.perf_counter()
        self.assertIn("didn't end", self.fails(function))
        took = time.perf_counter() - began
        self.assertGreaterEqual(took, MOST)
        self.assertLess(took, 5)
        # And nothing of it meets who is called next.
        self.assertEqual(self.calls.run("x.py:g", sum, range(100_000)), 4_999_950_000)

    def test_an_interrupt_from_the_keyboard_that_a_script_makes_up_is_its_own(self) -> None:
        def interrupts() -> None:
            raise KeyboardInterrupt

        self.assertIn("raised KeyboardInterrupt", self.fails(interrupts))

    def test_the_signal_is_taken_back_from_a_script(self) -> None:
        def alarm() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

        def loop() -> None:
            while True:
                pass

        self.calls.run("x.py:f", alarm)
        self.assertEqual(len(self.logged("x.py:f took SIGALRM")), 1)
        # With that it would end the process.
        self.hangs(loop)

    def test_an_endless_loop_ends(self) -> None:
        def loop() -> None:
            while True:
                pass

        self.hangs(loop)

    def test_a_long_sleep_ends(self) -> None:
        self.hangs(lambda: time.sleep(1000))
        self.hangs(functools.partial(time.sleep, 1000))

    def test_waiting_for_a_lock_ends(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        self.hangs(lock.acquire)

    def test_an_endless_loop_that_catches_exceptions_ends(self) -> None:
        def loop() -> None:
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(1000)

        self.hangs(loop)

    def test_an_endless_loop_that_catches_whatever_there_is_ends(self) -> None:
        caught = []

        def loop() -> None:
            while True:
                try:
                    try:
                        time.sleep(1000)
                    except BaseException:
                        caught.append(1)
                except BaseException:
                    caught.append(2)

        self.hangs(loop)
        self.assertIn(1, caught)

    def test_a_call_that_is_interrupted_cleans_up(self) -> None:
        done = []

        def loop() -> None:
            try:
                time.sleep(1000)
            finally:
                time.sleep(MOST / 3)
                done.append(True)

        self.hangs(loop)
        self.assertEqual(done, [True])

    def test_a_call_in_a_greenlet_ends(self) -> None:
        def loop() -> None:
            getcurrent().parent.switch()
            while True:
                pass

        running = greenlet(loop)
        self.calls.run("x.py:f", running.switch)
        self.hangs(running.switch)
        self.assertTrue(running.dead)

    def test_the_inner_of_two_calls_is_the_one_that_is_interrupted(self) -> None:
        def outer() -> str:
            return str(self.assertRaises(ScriptError, self.calls.run, "y.py:inner", time.sleep, 1000))

        self.assertIn("y.py:inner didn't end", self.calls.run("x.py:f", outer))

    def test_what_stays_below_is_left_alone(self) -> None:
        for _ in range(10):
            self.calls.run("x.py:f", time.sleep, MOST / 5)
        self.assertEqual(self.logged("didn't end"), [])


class WatchdogTests(CallsTestCase):
    def test_stopped_it_leaves_neither_a_thread_nor_a_signal_behind(self) -> None:
        threads = threading.active_count()
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, signal.SIG_DFL))
        self.calls.start()
        self.calls.start()
        self.assertEqual(threading.active_count(), threads + 1)
        self.assertNotEqual(signal.getsignal(signal.SIGALRM), signal.SIG_DFL)
        self.calls.stop()
        self.calls.stop()
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(signal.getsignal(signal.SIGALRM), signal.SIG_DFL)

    def test_it_sleeps_while_nothing_is_called_and_wakes_for_the_next(self) -> None:
        self.calls.start()
        end = time.perf_counter() + 5
        while not self.calls._parked and time.perf_counter() < end:
            time.sleep(0.02)
        self.assertTrue(self.calls._parked, f"not asleep after {IDLE_ROUNDS} rounds")
        self.assertRaises(ScriptError, self.calls.run, "x.py:f", time.sleep, 1000)

    def test_a_signal_that_is_in_use_is_left_alone_and_hangs_are_logged_only(self) -> None:
        def others(*_args: object) -> None: ...

        before = signal.signal(signal.SIGALRM, others)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.calls.start()
        self.assertEqual(len(self.logged("SIGALRM is in use")), 1)
        self.calls.run("x.py:f", time.sleep, 2 * MOST)
        self.assertEqual(len(self.logged("ms now")), 1)
        self.calls.stop()
        self.assertIs(signal.getsignal(signal.SIGALRM), others)

    def test_started_in_another_thread_it_interrupts_nothing(self) -> None:
        before = signal.getsignal(signal.SIGALRM)
        thread = threading.Thread(target=self.calls.start)
        thread.start()
        thread.join()
        self.assertEqual(len(self.logged("aren't run in the main thread")), 1)
        self.assertEqual(signal.getsignal(signal.SIGALRM), before)
        self.calls.run("x.py:f", time.sleep, 2 * MOST)

    def test_a_hang_dropped_when_nobody_watches_is_harmless(self) -> None:
        self.assertRaises(ScriptHung, self.calls.watch, "x.py:f", self.raise_hung)

    def raise_hung(self) -> None:
        raise ScriptHung

    def test_a_call_costs_little(self) -> None:
        self.calls.start()
        began = time.process_time()
        for _ in range(20_000):
            self.calls.run("x.py:f", int)
        self.assertLess(time.process_time() - began, 0.5)
