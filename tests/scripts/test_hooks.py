"""How the hooks of one flow are called, one behind the other."""

from __future__ import annotations

import asyncio
import gc
import weakref

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Pause
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.hooks import HookRun
from streamproxy.scripts.loading import Hook
from streamproxy.scripts.loop import ScriptLoop
from tests.scripts.making import flow_of


class HookTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = Calls(self.clock)
        self.loop = ScriptLoop(self.clock, self.calls)
        self.addCleanup(self.loop.stop)
        self.flow = flow_of()
        self.said: list[object] = []

    def run_of(self, *functions, killed: bool = False) -> HookRun:
        hooks = [Hook(f"script.py:{function.__name__}", function) for function in functions]
        return HookRun(hooks, self.flow, self.calls, self.loop, killed)

    def start(self, *functions) -> Pause:
        return self.run_of(*functions).start()

    def first(self, flow) -> None:
        self.said.append("first")

    def second(self, flow) -> None:
        self.said.append("second")

    async def sleeper(self, flow) -> None:
        self.said.append("asleep")
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        self.said.append("awake")

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.clock.advance(0)

    def failed(self, pause: Pause) -> str:
        self.assertTrue(pause.over)
        return str(self.assertRaises(ScriptError, pause.result))


class OrderTests(HookTestCase):
    def test_plain_ones_are_over_at_once_in_their_order(self):
        pause = self.start(self.first, self.second)
        self.assertTrue(pause.over)
        self.assertIsNone(pause.error)
        self.assertEqual(self.said, ["first", "second"])

    def test_none_at_all_is_over_at_once(self):
        self.assertTrue(self.start().over)

    def test_each_gets_the_flow(self):
        def hook(flow):
            self.said.append(flow)

        self.start(hook)
        self.assertIs(self.said[0], self.flow)

    def test_one_that_waits_keeps_those_behind_it_waiting(self):
        pause = self.start(self.first, self.sleeper, self.second)
        self.assertEqual((pause.over, pause.why, self.said), (False, "the hook script.py:sleeper", ["first", "asleep"]))
        self.pass_time(1)
        self.assertTrue(pause.over)
        self.assertEqual(self.said, ["first", "asleep", "awake", "second"])

    def test_a_coroutine_with_nothing_to_wait_for_takes_no_turn(self):
        async def hook(flow):
            self.said.append("ran")

        self.assertTrue(self.start(hook, self.second).over)
        self.assertEqual(self.said, ["ran", "second"])

    def test_a_plain_one_may_give_a_deferred(self):
        once: Deferred = Deferred()
        pause = self.start(lambda flow: once, self.second)
        self.assertFalse(pause.over)
        once.callback(None)
        self.pass_time(0)
        self.assertTrue(pause.over)
        self.assertEqual(self.said, ["second"])
        self.assertTrue(self.start(lambda flow: succeed(None)).over)

    def test_the_one_that_is_waited_for_is_named(self):
        async def other(flow):
            await asyncio.sleep(5)

        pause = self.start(self.sleeper, other)
        self.pass_time(1)
        self.assertEqual(pause.why, "the hook script.py:other")

    def test_a_plain_one_may_make_tasks(self):
        async def task():
            await asyncio.sleep(1)
            self.said.append("task")

        tasks = []

        def hook(flow):
            tasks.append(asyncio.create_task(task()))

        self.assertTrue(self.start(hook).over)
        self.pass_time(0)
        self.pass_time(1)
        self.assertEqual(self.said, ["task"])

    def test_what_else_a_hook_gives_counts_for_nothing(self):
        for given in (True, "x", [1], b"y"):
            self.assertIsNone(self.start(lambda flow, given=given: given).error)


class FailureTests(HookTestCase):
    def test_one_that_raises_ends_the_run(self):
        def broken(flow):
            raise ValueError("no")

        words = self.failed(self.start(self.first, broken, self.second))
        self.assertTrue(words.startswith("script.py:broken raised ValueError: no (line "), words)
        self.assertEqual(self.said, ["first"])

    def test_one_that_raises_later_ends_the_run(self):
        async def broken(flow):
            await asyncio.sleep(1)
            raise ValueError("no")

        pause = self.start(broken, self.second)
        self.pass_time(1)
        self.assertTrue(self.failed(pause).startswith("script.py:broken raised ValueError: no"))
        self.assertEqual(self.said, [])

    def test_a_deferred_that_fails_ends_the_run(self):
        once: Deferred = Deferred()

        def hook(flow):
            return once

        pause = self.start(hook)
        once.errback(ValueError("no"))
        self.pass_time(0)
        self.assertIn("raised ValueError: no", self.failed(pause))

    def test_one_that_takes_no_flow_is_told_so(self):
        self.assertIn("raised TypeError", self.failed(self.start(lambda: None)))

    def test_one_with_a_yield_in_it_is_refused_for_nothing_of_it_would_run(self):
        def hook(flow):
            self.said.append("ran")
            yield

        async def later(flow):
            self.said.append("ran")
            yield

        for each in (hook, later):
            self.assertIn("has a yield in it", self.failed(self.start(each, self.second)))
        self.assertEqual(self.said, [])

    def test_what_failed_keeps_nobody(self):
        class Caller:
            pass

        def broken(flow):
            raise ValueError("no")

        def calls_it():
            caller = Caller()
            pause = self.start(broken)
            return weakref.ref(caller), pause

        gc.disable()
        self.addCleanup(gc.enable)
        caller, pause = calls_it()
        self.assertIsNotNone(pause.error)
        self.assertIsNone(caller())


class KilledTests(HookTestCase):
    def kills(self, flow) -> None:
        flow.kill()

    def test_the_rest_do_not_see_a_flow_that_is_killed(self):
        pause = self.start(self.first, self.kills, self.second)
        self.assertIsNone(pause.error)
        self.assertTrue(pause.over)
        self.assertEqual(self.said, ["first"])

    def test_nor_one_that_is_killed_while_a_hook_waits(self):
        pause = self.start(self.sleeper, self.second)
        self.flow.kill()
        self.pass_time(1)
        self.assertTrue(pause.over)
        self.assertEqual(self.said, ["asleep", "awake"])

    def test_unless_they_are_meant_for_such_too(self):
        self.flow.kill()
        self.run_of(self.first, self.second, killed=True).start()
        self.assertEqual(self.said, ["first", "second"])


class EndTests(HookTestCase):
    def test_one_that_is_cancelled_hears_of_it_and_the_rest_are_not_called(self):
        run = self.run_of(self.sleeper, self.second)
        told = []
        run.start().then(lambda: told.append(True))
        run.cancel()
        self.pass_time(5)
        self.assertEqual((self.said, told), (["asleep", "cancelled"], []))

    def test_one_that_will_not_be_cancelled_has_no_say_any_more(self):
        async def stubborn(flow):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                await asyncio.sleep(1)

        run = self.run_of(stubborn, self.second)
        told = []
        run.start().then(lambda: told.append(True))
        run.cancel()
        self.pass_time(0)
        self.pass_time(5)
        self.assertEqual((self.said, told), ([], []))

    def test_one_that_is_left_may_come_to_its_end(self):
        run = self.run_of(self.sleeper, self.second)
        run.start()
        run.leave(self.clock, 3)
        self.pass_time(1)
        self.assertEqual(self.said, ["asleep", "awake", "second"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_but_has_only_so_long(self):
        async def slow(flow):
            try:
                await asyncio.sleep(100)
            finally:
                self.said.append("ended")

        run = self.run_of(slow)
        run.start()
        run.leave(self.clock, 3)
        self.pass_time(2)
        self.assertEqual(self.said, [])
        self.pass_time(1)
        self.assertEqual(self.said, ["ended"])

    def test_one_that_is_over_is_left_without_more(self):
        run = self.run_of(self.first)
        run.start()
        run.leave(self.clock, 3)
        run.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
