"""What is kept while a hook waits, and what is left behind: bytes, connections, and the exchange itself."""

import asyncio
import gc
import weakref

from twisted.internet.defer import Deferred

from streamproxy.proxy.scripted import ScriptedExchange
from streamproxy.scripts import http
from streamproxy.scripts.hooks import HookRun
from tests.conversation import Stage
from tests.fakes import TCP, TLS
from tests.passage import read_request, read_response
from tests.proxy.scripting import (
    GET,
    LENGTH,
    NAMES,
    OK,
    OK_HEAD,
    POST,
    UPLOAD,
    StageTestCase,
    WaitTestCase,
    scripted,
)


class PressureTests(WaitTestCase):
    """More of a body comes while a hook decides how it goes."""

    def test_the_clients_valve_is_shut_and_opened_again(self):
        for manner in (TCP, TLS):
            head = POST + b"Content-Length: 400000\r\n\r\n"
            self.begin("requestheaders", manner=manner, request=head, text="stream_large_bodies: 1\n")
            for _ in range(4):
                self.client.say(b"x" * 65536)
            self.assertFalse(self.client.reading)
            (connection,) = self.stage.proxy.connections
            held = sum(len(event) for event in connection._layer._exchange._early_request)
            self.assertEqual(held, 0 if manner == TCP else 4 * 65536)
            self.go_on()
            self.assertTrue(self.client.reading)
            self.client.say(b"x" * (400000 - 4 * 65536))
            self.settle()
            self.assertEqual(len(read_request(bytes(self.stage.origin.heard)).body), 400000)

    def test_the_origins_valve_is_shut_and_opened_again(self):
        for manner in (TCP, TLS):
            head = OK_HEAD + b"Content-Length: 400000\r\n\r\n"
            self.begin("responseheaders", manner=manner, response=head, text="stream_large_bodies: 1\n")
            self.assertFalse(self.stage.origin.reading)
            self.stage.origin.say(b"x" * 65536)
            self.go_on()
            self.assertTrue(self.stage.origin.reading)
            self.stage.origin.say(b"x" * (400000 - 65536))
            self.settle()
            self.assertEqual(len(read_response(bytes(self.client.heard)).body), 400000)

    def test_nothing_of_an_upload_is_kept_when_its_head_was_answered(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"x" * 1000000)

        for manner in (TCP, TLS):
            stage = self.kept(Stage(scripted(requestheaders=hook), manner))
            client = stage.client()
            # It doesn't read the answer.
            client.say(POST + b"Content-Length: 100000000\r\n\r\n")
            (connection,) = stage.proxy.connections
            exchange = connection._layer._exchange
            for _ in range(20):
                client.say(b"y" * 65536)
                stage.turn()
            self.assertLess(sum(len(event) for event in exchange._early_request or []), 1)


class ReuseTests(WaitTestCase):
    def test_the_next_request_waits_for_the_hook_of_the_first(self):
        for manner in (TCP, TLS):
            for name in NAMES:
                self.begin(name, manner=manner, request=UPLOAD + GET.replace(b"/x", b"/second"))
                self.assertEqual(bytes(self.client.heard), b"", name)
                heard = bytes(self.stage.origin.heard) if self.stage.pool.made else b""
                self.assertNotIn(b"/second", heard)
                self.go_on()
                if name.startswith("request"):
                    self.stage.origin.say(LENGTH)
                    self.settle()
                self.assertIn(b"/second", bytes(self.stage.origin.heard), name)
                self.stage.origin.say(OK)
                self.settle()
                self.assertEqual([flow.outcome for flow in self.stage.journal.flows], ["forwarded"] * 2, name)
                self.assertEqual(len(self.stage.pool.made), 1, name)

    def test_a_held_response_that_waits_frees_the_origins_connection(self):
        """And it is read there: what it brings is the next exchange's."""
        for manner in (TCP, TLS):
            self.begin("response", manner=manner)
            other = self.stage.client()
            waits, self.once = self.once, Deferred()
            self.once.callback(None)
            other.say(GET)
            self.stage.settle(other)
            self.assertEqual(len(self.stage.pool.made), 1)
            self.stage.origin.say(OK)
            self.stage.settle(other)
            self.assertEqual(read_response(bytes(other.heard)).body, b"ok")
            waits.callback(None)
            self.settle()
            self.assertEqual(read_response(bytes(self.client.heard)).body, b"world")

    def test_an_idle_origin_that_ends_meanwhile_is_noticed(self):
        self.begin("response", manner=TCP)
        self.stage.origin.end()
        self.stage.settle(self.client)
        self.assertTrue(self.stage.origin.disconnected)

    def test_an_answer_in_place_of_a_whole_response_keeps_the_origins_connection(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"made up")

        for name in ("responseheaders", "response"):
            for manner in (TCP, TLS):
                stage = self.kept(Stage(scripted(**{name: hook}), manner))
                client = stage.client()
                for _ in range(2):
                    client.say(GET)
                    stage.settle(client)
                    stage.origin.say(LENGTH)
                    stage.settle(client)
                self.assertEqual(len(stage.pool.made), 1, name)
                self.assertEqual(bytes(client.heard).count(b"made up"), 2)

    def test_an_answer_in_place_of_the_beginning_of_one_lets_the_origin_go(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"made up")

        stage = self.kept(Stage(scripted(responseheaders=hook)))
        client = stage.client()
        client.say(GET)
        stage.settle(client)
        stage.origin.say(LENGTH[:-1])
        stage.settle(client)
        self.assertTrue(stage.origin.disconnected)
        self.assertEqual(read_response(bytes(client.heard)).body, b"made up")


class FreedTests(StageTestCase):
    """What is over is freed at once, without the collector of garbage."""

    def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before: list = []
        self.before = self.living()

    def living(self) -> list:
        found = [each for each in gc.get_objects() if type(each) in (ScriptedExchange, HookRun)]
        return [each for each in found if not any(each is other for other in self.before)]

    def check(self, *, text: str = "", lost: bool = False, ends: bool = False, **hooks) -> None:
        for request in (GET, UPLOAD):
            stage = self.kept(Stage(scripted(text, **hooks)))
            client = stage.client()
            client.say(request)
            said = False
            for _ in range(12):
                stage.settle(client)
                if lost and not client.disconnected:
                    client.reset()
                elif stage.pool.made and not said and not stage.origin.disconnected:
                    said = True
                    stage.origin.say(LENGTH[: -1 if ends else None])
                    if ends:
                        stage.origin.end()
                stage.clock.advance(0.25)
            self.assertEqual(len(stage.journal.flows), 1)
            self.assertEqual(self.living(), [], (request, hooks))
            del stage, client

    def test_after_hooks_that_run_at_once(self):
        self.check(**dict.fromkeys(NAMES, lambda flow: None))
        self.check(text="stream_large_bodies: 1\n", **dict.fromkeys(NAMES, lambda flow: None))

    def test_after_hooks_that_wait(self):
        async def hook(flow):
            await asyncio.sleep(0.25)

        self.check(**dict.fromkeys(NAMES, hook))
        self.check(text="stream_large_bodies: 1\n", **dict.fromkeys(NAMES, hook))

    def test_after_hooks_that_fail(self):
        def hook(flow):
            raise ValueError("no")

        async def waits(flow):
            await asyncio.sleep(0.25)
            raise ValueError("no")

        for name in NAMES:
            self.check(**{name: hook})
            self.check(**{name: waits})

    def test_after_answers_kills_and_ends(self):
        def answers(flow):
            flow.response = http.Response.make(200, b"made up")

        def kills(flow):
            flow.kill()

        async def waits(flow):
            await asyncio.sleep(1000)

        for name in NAMES:
            self.check(**{name: answers})
            self.check(**{name: kills})
        for name in NAMES[:2]:
            self.check(lost=True, **{name: waits})
        self.check(ends=True, **dict.fromkeys(NAMES, lambda flow: None))

    def test_the_flow_goes_with_its_exchange(self):
        flows = []
        self.check(response=lambda flow: flows.append(weakref.ref(flow)))
        self.assertEqual([each() for each in flows], [None, None])
