"""What happens while a hook waits: who goes away, how long it may take, and who is to blame."""

import asyncio
import contextlib
import gc

from twisted.internet.defer import Deferred

from streamproxy.proxy.scripted import ScriptedExchange
from tests.conversation import Stage
from tests.fakes import TCP, TLS
from tests.passage import read_response
from tests.proxy.scripting import CHUNKED, GET, LENGTH, NAMES, OK, OK_HEAD, UPLOAD, WaitTestCase, scripted


class GoneTests(WaitTestCase):
    def test_the_client_goes_away(self):
        for manner in (TCP, TLS):
            for name in NAMES:
                self.begin(name, manner=manner)
                self.client.reset()
                self.settle()
                self.assertEqual(self.flow.outcome, "client-gone", name)
                self.assertEqual((self.ended, self.errors), (["cancelled"], ["client-gone"]), name)
                if self.stage.pool.made and name != "response":
                    self.assertTrue(self.stage.origin.disconnected, name)

    def test_the_end_of_a_client_that_has_sent_all_is_noticed(self):
        for name in NAMES:
            self.begin(name)
            self.assertTrue(self.client.reading, name)

    def test_the_client_half_closes_and_gets_its_response(self):
        for name in NAMES:
            self.begin(name, manner=TCP)
            self.client.end()
            self.settle()
            self.go_on()
            if name.startswith("request"):
                self.stage.origin.say(LENGTH)
                self.settle()
            self.assertEqual(read_response(bytes(self.client.heard), True).body, b"world", name)
            self.assertEqual(self.flow.outcome, "forwarded")

    def test_the_origin_goes_away_before_its_body(self):
        for manner in (TCP, TLS):
            self.begin("responseheaders", manner=manner, response=LENGTH[:-5])
            self.stage.origin.reset()
            self.settle()
            self.assertEqual(read_response(bytes(self.client.heard)).start, 502)
            self.assertEqual((self.flow.outcome, self.ended), ("origin-gone", ["cancelled"]))

    def test_the_origin_goes_away_behind_its_body(self):
        for manner in (TCP, TLS):
            for name in ("responseheaders", "response"):
                for response in (LENGTH, OK_HEAD + b"Content-Length: 0\r\n\r\n", OK_HEAD + CHUNKED + b"\r\n0\r\n\r\n"):
                    for how in ("reset", "end"):
                        self.begin(name, manner=manner, response=response)
                        getattr(self.stage.origin, how)()
                        self.settle()
                        self.assertEqual(bytes(self.client.heard), b"")
                        self.go_on()
                        self.assertEqual(read_response(bytes(self.client.heard)).start, 200, (manner, name, response))
                        self.assertEqual(self.flow.outcome, "forwarded")


class DeadlineTests(WaitTestCase):
    TEXT = "timeouts: {idle: 5}\n"

    def test_a_hook_that_takes_too_long_is_named(self):
        for manner in (TCP, TLS):
            for name in NAMES:
                for request in (GET, UPLOAD):
                    self.begin(name, text=self.TEXT, manner=manner, request=request)
                    self.pass_time(6)
                    answer = read_response(bytes(self.client.heard))
                    why = f"the hook script.py:{name} took too long"
                    self.assertEqual((answer.start, self.flow.error), (504, why), (manner, name))
                    self.assertIn(why.encode(), answer.body)
                    self.assertEqual((self.flow.outcome, self.ended, self.errors), ("timed-out", ["cancelled"], [why]))

    def test_the_client_may_ask_again_then(self):
        for manner in (TCP, TLS):
            for name in NAMES:
                self.begin(name, text=self.TEXT, manner=manner)
                self.pass_time(6)
                self.assertFalse(self.client.disconnected or self.client.write_closed, name)
                before = len(self.client.heard)
                self.once = Deferred()
                self.once.callback(None)
                self.client.say(GET)
                self.settle()
                self.stage.origin.say(OK)
                self.settle()
                self.assertEqual(read_response(bytes(self.client.heard[before:])).body, b"ok", (manner, name))

    def test_each_of_several_hooks_is_named(self):
        async def first(flow):
            await asyncio.sleep(1)

        async def second(flow):
            await asyncio.sleep(100)

        addon = type("Addon", (), {"request": staticmethod(second)})()
        stage = self.kept(Stage(scripted(self.TEXT, request=first, addons=[addon])))
        client = stage.client()
        client.say(GET)
        for _ in range(10):
            stage.clock.advance(1)
            stage.settle(client)
        (flow,) = stage.journal.flows
        self.assertEqual(flow.error, "the hook script.py:Addon.request took too long")

    def test_a_hook_that_no_message_waits_for_is_not_to_blame(self):
        self.begin("request", text=self.TEXT + "stream_large_bodies: 1\n", response=LENGTH[:-5])
        self.pass_time(6)
        self.assertEqual(self.flow.error, "the origin stopped")

    def test_and_may_end_by_itself_for_as_long_as_anything_may_stand_still(self):
        for late in (False, True):
            self.begin("response", text=self.TEXT + "stream_large_bodies: 1\n")
            self.assertEqual(read_response(bytes(self.client.heard)).body, b"world")
            self.assertEqual((self.flow.outcome, self.ended), ("forwarded", []))
            self.pass_time(6 if late else 4)
            if not late:
                self.go_on()
            self.assertEqual(self.ended, ["cancelled"] if late else ["went on"])
            self.assertEqual(self.stage.proxy.script_loop._tasks, {})

    def test_a_hook_that_will_not_be_cancelled_keeps_nobody(self):
        async def hook(flow):
            for _ in range(2):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1000)

        for name in NAMES:
            stage = self.kept(Stage(scripted(self.TEXT, **{name: hook})))
            client = stage.client()
            client.say(UPLOAD)
            stage.settle(client)
            if stage.pool.made:
                stage.origin.say(LENGTH)
            for _ in range(8):
                stage.clock.advance(1)
                stage.settle(client)
            self.assertEqual(read_response(bytes(client.heard)).start, 504, name)
            waits = [task for task in asyncio.all_tasks(stage.proxy.script_loop.loop) if not task.done()]
            self.assertEqual(len(waits), 1)
            gc.collect()
            found = [each for each in gc.get_objects() if type(each) is ScriptedExchange]
            self.assertEqual([each for each in found if each._connection.proxy is stage.proxy], [], name)
