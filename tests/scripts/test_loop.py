"""Coroutines of scripts on Twisted's clock: what they may await, when they run, how they end."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Pause
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.loop import ScriptLoop
from streamproxy.scripts.reactor_loop import MOST_ROUNDS
from streamproxy.scripts.script import concurrent


class FromThreads:
    """What threads hand to the reactor, which takes it when `take` is called."""

    def __init__(self) -> None:
        self.handed: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        self.handed.append((function, args))

    def take(self) -> None:
        end = time.monotonic() + 5
        while not self.handed:
            assert time.monotonic() < end, "no thread handed anything over"
            time.sleep(0.001)
        function, args = self.handed.pop(0)
        function(*args)


class LoopTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = Calls(self.clock, most=0.15)
        self.threads = FromThreads()
        self.loop = ScriptLoop(self.clock, self.calls, self.threads)  # type: ignore[arg-type]
        self.addCleanup(self.loop.stop)

    def start(self, coroutine: object) -> Pause:
        return self.loop.start(coroutine, "x.py:f")  # type: ignore[arg-type]


class AwaitTests(LoopTestCase):
    def test_one_that_has_nothing_to_wait_for_is_over_at_once(self) -> None:
        async def hook() -> int:
            return 7

        pause = self.start(hook())
        self.assertTrue(pause.over)
        self.assertEqual(pause.result(), 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_begins_at_once_and_sleeps_on_the_clock(self) -> None:
        steps = []

        async def hook() -> str:
            steps.append("begun")
            await asyncio.sleep(2)
            return "slept"

        pause = self.start(hook())
        self.assertEqual(steps, ["begun"])
        self.clock.advance(1.9)
        self.assertFalse(pause.over)
        self.clock.advance(0.1)
        self.assertEqual(pause.result(), "slept")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_deferred_is_awaited_and_gives_its_result_or_its_error(self) -> None:
        later: Deferred[str] = Deferred()
        failing: Deferred[str] = Deferred()

        async def hook() -> str:
            first = await succeed("now ")
            second = await later
            try:
                await failing
            except ValueError as error:
                return f"{first}{second}{error}"
            return "no error"

        pause = self.start(hook())
        later.callback("later ")
        self.clock.advance(0)
        failing.errback(ValueError("wrong"))
        self.clock.advance(0)
        self.assertEqual(pause.result(), "now later wrong")

    def test_what_a_plain_hook_returns_may_be_a_deferred_itself(self) -> None:
        pause = self.start(fail(ValueError("no")))
        self.assertIn("ValueError: no", str(self.assertRaises(ScriptError, pause.result)))

    def test_a_deferred_that_isnt_waited_for_any_more_is_cancelled(self) -> None:
        cancelled = []
        deferred: Deferred[None] = Deferred(cancelled.append)

        async def hook() -> None:
            await deferred

        pause = self.start(hook())
        self.loop.cancel(pause)
        self.clock.advance(0)
        self.assertEqual(cancelled, [deferred])
        self.assertIn("cancelled", str(self.assertRaises(ScriptError, pause.result)))

    def test_events_tasks_queues_timeouts_and_groups_of_asyncio_work(self) -> None:
        async def hook() -> list[object]:
            event, queue = asyncio.Event(), asyncio.Queue[int]()
            asyncio.get_running_loop().call_later(1, event.set)
            task = asyncio.create_task(self.later(3, "task"))
            await event.wait()
            await queue.put(4)
            got = await asyncio.gather(queue.get(), self.later(1, "gathered"))
            try:
                await asyncio.wait_for(asyncio.sleep(100), 1)
            except TimeoutError:
                got.append("timed out")
            try:
                async with asyncio.timeout(1):
                    await Deferred()
            except TimeoutError:
                got.append("again")
            async with asyncio.TaskGroup() as group:
                grouped = group.create_task(self.deferred(2, "group"))
            return [*got, await task, grouped.result()]

        pause = self.start(hook())
        for _ in range(20):
            self.clock.advance(0.5)
        self.assertEqual(pause.result(), [4, "gathered", "timed out", "again", "task", "group"])

    async def later(self, seconds: float, what: str) -> str:
        await asyncio.sleep(seconds)
        return what

    async def deferred(self, seconds: float, what: str) -> str:
        waiting: Deferred[str] = Deferred()
        self.clock.callLater(seconds, waiting.callback, what)
        return await waiting

    def test_a_blocking_function_runs_in_a_thread(self) -> None:
        @concurrent
        def hook(flow: object) -> object:
            time.sleep(0.01)
            return flow

        pause = self.start(hook("flow"))
        self.assertFalse(pause.over)
        self.threads.take()
        self.assertEqual(pause.result(), "flow")

    def test_what_a_thread_raises_comes_out_where_it_is_awaited(self) -> None:
        pause = self.start(concurrent(lambda: 1 / 0)())
        self.threads.take()
        self.assertIn("ZeroDivisionError", str(self.assertRaises(ScriptError, pause.result)))

    def test_what_is_async_needs_no_thread(self) -> None:
        self.assertRaises(TypeError, concurrent, self.later)

    def test_asyncios_own_network_is_refused_in_words(self) -> None:
        pause = self.start(asyncio.open_connection("127.0.0.1", 9))
        self.assertIn("--reactor asyncio", str(self.assertRaises(ScriptError, pause.result)))

    def test_plain_functions_may_create_tasks(self) -> None:
        done = []

        async def task() -> None:
            done.append(await self.later(1, "done"))

        self.calls.run("x.py:running", self.loop.inside, lambda: asyncio.create_task(task()))
        self.clock.advance(0)
        self.clock.advance(1)
        self.assertEqual(done, ["done"])
        self.assertRaises(RuntimeError, asyncio.get_running_loop)


class TurnTests(LoopTestCase):
    def test_what_is_told_that_it_is_over_runs_outside_of_any_script(self) -> None:
        seen: list[object] = []
        event = asyncio.Event()

        async def hook() -> None:
            await event.wait()

        pause = self.start(hook())
        pause.then(lambda: seen.append(asyncio._get_running_loop()))
        event.set()
        self.assertEqual(seen, [])
        self.clock.advance(0)
        self.assertEqual(seen, [None])

    def test_one_that_never_rests_leaves_turns_to_the_reactor(self) -> None:
        rounds = []

        async def restless() -> None:
            while True:
                rounds.append(1)
                await asyncio.sleep(0)

        pause = self.start(restless())
        for _ in range(3):
            before = len(rounds)
            self.loop.advance()
            self.assertLessEqual(len(rounds) - before, MOST_ROUNDS)
            self.assertGreater(len(rounds), before)
        self.loop.cancel(pause)
        self.clock.advance(0)
        self.assertTrue(pause.over)

    def test_one_that_is_started_inside_another_runs_after_its_step(self) -> None:
        order: list[object] = []

        async def inner() -> None:
            order.append("inner")

        async def outer() -> None:
            order.append(self.start(inner()).over)
            order.append("outer")

        self.start(outer())
        self.clock.advance(0)
        self.assertEqual(order, [False, "outer", "inner"])

    def test_who_waits_may_fail_without_harm_to_others(self) -> None:
        told = []
        event = asyncio.Event()
        pauses = [self.start(event.wait()) for _ in range(2)]
        pauses[0].then(lambda: 1 / 0)
        pauses[1].then(lambda: told.append(True))
        event.set()
        self.clock.advance(0)
        self.assertEqual(told, [True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EndTests(LoopTestCase):
    def test_an_exception_is_the_scripts_error(self) -> None:
        async def hook() -> None:
            await asyncio.sleep(1)
            raise ValueError("no")

        pause = self.start(hook())
        self.clock.advance(1)
        self.assertIn("x.py:f raised ValueError: no (line", str(self.assertRaises(ScriptError, pause.result)))

    def test_an_exit_ends_the_coroutine_and_not_the_proxy(self) -> None:
        async def hook() -> None:
            await asyncio.sleep(1)
            raise SystemExit(1)

        pause = self.start(hook())
        self.clock.advance(1)
        self.assertIn("SystemExit", str(self.assertRaises(ScriptError, pause.result)))

    def test_cancelled_it_cleans_up(self) -> None:
        done = []

        async def hook() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                done.append(True)

        pause = self.start(hook())
        self.loop.cancel(pause)
        self.clock.advance(0)
        self.assertFalse(pause.over)
        self.clock.advance(1)
        self.assertEqual(done, [True])
        self.assertTrue(pause.over)
        self.loop.cancel(pause)

    def test_stopped_it_cancels_everything_and_leaves_no_delayed_call(self) -> None:
        done = []

        async def hook() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                done.append(True)

        self.start(hook())
        self.loop.stop()
        self.assertEqual(done, [True])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("the proxy ends", str(self.assertRaises(ScriptError, self.start(hook()).result)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_kept_of_what_has_ended(self) -> None:
        self.start(self.sleeper())
        self.clock.advance(1)
        self.assertEqual(self.loop._tasks, {})
        gc.collect()
        self.assertEqual([each for each in gc.get_objects() if isinstance(each, asyncio.Task)], [])

    async def sleeper(self) -> None:
        await asyncio.sleep(1)

    def test_an_async_generator_that_was_left_in_the_middle_cleans_up(self) -> None:
        done = []

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                done.append(True)

        async def hook() -> None:
            async for _ in numbers():
                break

        hooks = sys.get_asyncgen_hooks()
        self.start(hook())
        self.assertEqual(sys.get_asyncgen_hooks(), hooks)
        gc.collect()
        self.clock.advance(0)
        self.assertEqual(done, [True])

    def test_a_step_that_hangs_ends(self) -> None:
        self.calls.start()
        self.addCleanup(self.calls.stop)

        async def hook() -> None:
            await asyncio.sleep(1)
            while True:
                pass

        pause = self.start(hook())
        self.clock.advance(1)
        self.assertIn("x.py:f didn't end", str(self.assertRaises(ScriptError, pause.result)))

    def test_a_task_of_a_script_that_hangs_ends(self) -> None:
        self.calls.start()
        self.addCleanup(self.calls.stop)

        async def hang() -> None:
            time.sleep(1000)

        async def hook() -> None:
            await asyncio.create_task(hang())

        pause = self.start(hook())
        self.clock.advance(0)
        self.assertIn("didn't end", str(self.assertRaises(ScriptError, pause.result)))


class AsyncioReactorTests(SynchronousTestCase):
    def test_the_loop_of_twisteds_asyncio_reactor_is_taken_where_there_is_one(self) -> None:
        theirs = asyncio.new_event_loop()
        self.addCleanup(theirs.close)
        loop = ScriptLoop(Clock(), Calls(Clock()), loop=theirs)
        deferred: Deferred[int] = Deferred()

        async def hook() -> int:
            await asyncio.sleep(0.001)
            return await deferred

        pause = loop.start(hook(), "x.py:f")
        pause.then(theirs.stop)
        theirs.call_later(0.01, deferred.callback, 5)
        theirs.run_forever()
        self.assertEqual(pause.result(), 5)
        loop.stop()
