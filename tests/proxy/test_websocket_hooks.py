"""What scripts have a say in: a WebSocket's beginning, each of its messages, and its end; plainly and by coroutines."""

from __future__ import annotations

import asyncio
import gc

from twisted.internet.defer import Deferred

from streamproxy.proxy.exchange import Exchange
from streamproxy.proxy.scripted import ScriptedExchange
from streamproxy.proxy.sides import MessageSide, StreamSide
from streamproxy.proxy.socket_hooks import SocketHooks
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.proxy.websocket import CLOSING, WebSocketRelay
from streamproxy.scripts import http
from streamproxy.scripts.http_flow import HTTPFlow
from streamproxy.wire.websocket import BINARY, CONTINUATION, PING, RSV1, TEXT
from tests.fakes import TCP, TLS, BoundedTransport
from tests.filters.cutting import singly
from tests.proxy.scripting import HOOKS, asleep, plainly, scripted, settle
from tests.proxy.websocket_talk import (
    MODES,
    STREAMING,
    SocketTestCase,
    asked,
    asking,
    binary,
    close,
    deflating,
    down,
    down_close,
    frames_of,
    granted,
    granting,
    ping,
    said_by,
    text,
    up,
    up_close,
)


class HookTestCase(SocketTestCase):
    """Hooks may be plain or wait; everything that they wait for comes when all has been said."""

    def settle(self) -> None:
        settle(self.stage, self.client)

    def begin_with(self, text: str = "", way=plainly, **hooks) -> None:
        self.begin(scripted(text, way, **hooks))

    def open_with(self, text: str = "", way=plainly, offers=(), agrees=(), **hooks) -> None:
        """As `open`, with hooks that run in `way`."""
        self.begin_with(text, way, **hooks)
        self.client.say(asking(*offers))
        self.settle()
        self.origin.say(granting(*agrees))
        self.settle()
        heads = (self.client, b"HTTP/1.1 101 "), (self.origin, b"GET /chat ")
        for peer, start in heads:
            heard = bytes(peer.heard)
            self.assertTrue(heard.startswith(start), heard)
            # What was said at once belongs to the WebSocket.
            self._told[peer] = heard.index(b"\r\n\r\n") + 4

    def close_both(self) -> None:
        self.client.say(up_close(1000))
        self.settle()
        self.origin.say(down_close(1000))
        self.settle()
        self.end_both()


class MessageHookTests(HookTestCase):
    def test_a_message_may_be_changed(self):
        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            message.content = message.content.replace(b"a", b"<>" if message.from_client else b"")

        for way in HOOKS:
            for manner in (TCP, TLS):
                self.manner = manner
                self.open_with(way=way, websocket_message=websocket_message)
                parts = up(TEXT, b"ba", final=False), up(PING, b"p"), up(CONTINUATION, b"ab")
                self.client.say(b"".join(parts), up(BINARY, b"a"))
                self.origin.say(down(TEXT, b"aa"), down(TEXT, b"b"))
                self.assertEqual(self.origin_frames(), [ping(b"p"), text(b"b<><>b"), binary(b"<>")])
                self.assertEqual(self.client_frames(), [text(b""), text(b"b")])
                self.close_both()
                self.check_ended()
                contents = [message.content for message in self.data.messages if message.from_client]
                self.assertEqual(contents, [b"b<><>b", b"<>"])

    def test_text_may_be_changed_and_a_type_too(self):
        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            if message.is_text:
                message.text = message.text.upper()
                message.type = 2

        self.open_with(websocket_message=websocket_message)
        self.client.say(up(TEXT, "grün".encode()) + up(BINARY, b"x"))
        self.assertEqual(self.origin_frames(), [binary("GRÜN".encode()), binary(b"x")])

    def test_one_that_is_left_alone_goes_on_byte_by_byte(self):
        frames = up(TEXT, b"a", final=False) + up(CONTINUATION, b"b", mask=b"other"[:4])
        for way in HOOKS:
            self.open_with(way=way, websocket_message=lambda flow: flow.websocket.messages[-1].content)
            self.client.say(frames)
            self.assertEqual(self.origin_heard(), frames)

    def test_a_message_may_be_dropped(self):
        def websocket_message(flow):
            if b"no" in flow.websocket.messages[-1].content:
                flow.websocket.messages[-1].drop()

        for way in HOOKS:
            self.open_with(way=way, websocket_message=websocket_message)
            for from_client in (True, False):
                for word in (b"no", b"yes", b"no", b"so"):
                    self.peer(from_client).say(said_by(from_client, TEXT, word))
                self.assertEqual(self.frames_from(from_client), [text(b"yes"), text(b"so")])
            self.assertEqual((self.data.from_client.messages, self.data.from_client.dropped), (4, 2))

    def test_it_sees_what_rules_have_made_of_it_and_nothing_that_they_dropped(self):
        seen = []
        self.open_with(
            "rules: [{websocket: {messages: [{find: a, with: b}, {find: c, drop: true}, {find: d, respond: e}]}}]",
            websocket_message=lambda flow: seen.append(flow.websocket.messages[-1].content),
        )
        self.client.say(up(TEXT, b"aa") + up(TEXT, b"c") + up(TEXT, b"d"))
        self.assertEqual((self.origin_frames(), self.client_frames()), ([text(b"bb")], [text(b"e")]))
        self.assertEqual(seen, [b"bb"])

    def test_the_messages_before_it_are_there_to_be_looked_at(self):
        seen = []
        self.open_with(websocket_message=lambda flow: seen.append([each.content for each in flow.websocket.messages]))
        for number in range(150):
            self.client.say(up(TEXT, b"%d" % number))
        self.assertEqual(seen[:3], [[b"0"], [b"0", b"1"], [b"0", b"1", b"2"]])
        self.assertEqual(seen[-1], [b"%d" % number for number in range(50, 150)])

    def test_it_is_seen_whole_whatever_is_recorded_of_it(self):
        def websocket_message(flow):
            flow.websocket.messages[-1].content += b"!"

        for way in HOOKS:
            self.open_with("limits: {capture: 10b}", way=way, websocket_message=websocket_message)
            self.client.say(up(TEXT, b"x" * 1000))
            self.assertEqual(self.origin_frames(), [text(b"x" * 1000 + b"!")])
            self.assertEqual([(each.content, each.cut) for each in self.data.messages], [(b"x" * 10, True)])

    def test_what_came_compressed_is_shown_as_it_is(self):
        seen = []
        self.open_with(
            offers=(deflating(),),
            agrees=(deflating(),),
            websocket_message=lambda flow: seen.append(flow.websocket.messages[-1].content),
        )
        self.client.say(up(TEXT, bytes.fromhex("f248cdc9c90700"), reserved=RSV1))
        (heard,) = self.origin_frames()
        self.assertEqual((seen, heard.reserved), ([b"Hello"], RSV1))

    def test_one_that_has_gone_by_can_not_be_changed(self):
        errors = []

        def websocket_message(flow):
            for message in flow.websocket.messages[:-1]:
                for change in (message.drop, lambda message=message: setattr(message, "content", b"late")):
                    try:
                        change()
                    except ValueError as error:
                        errors.append(str(error))

        self.open_with(websocket_message=websocket_message)
        self.client.say(up(TEXT, b"a") + up(TEXT, b"b"))
        self.assertEqual(self.origin_frames(), [text(b"a"), text(b"b")])
        self.assertEqual(errors, ["a message that has gone by can't be changed"] * 2)


class WaitTests(SocketTestCase):
    def open_waiting(self, name: str, text: str = "", manner: str = TCP) -> None:
        """A hook waits for `self.once`, each time."""
        self.once: list[Deferred] = []
        self.ended: list[str] = []

        async def hook(flow):
            once: Deferred = Deferred()
            self.once.append(once)
            try:
                await once
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("went on")

        self.manner = manner
        self.open(text, **{name: hook})

    def go_on(self) -> None:
        self.once.pop(0).callback(None)
        self.settle()

    def test_messages_wait_in_order_and_the_other_direction_flows(self):
        for manner in (TCP, TLS):
            self.open_waiting("websocket_message", manner=manner)
            self.client.say(up(TEXT, b"1") + up(PING, b"p") + up(TEXT, b"2"), up(BINARY, b"3"))
            self.assertEqual(self.origin_frames(), [])
            for number in range(5):
                self.origin.say(down(PING, b"%d" % number))
                self.assertEqual(self.client_frames(), [ping(b"%d" % number)])
            self.go_on()
            self.assertEqual(self.origin_frames(), [text(b"1"), ping(b"p")])
            self.go_on()
            self.assertEqual(self.origin_frames(), [text(b"2")])
            self.go_on()
            self.assertEqual(self.origin_frames(), [binary(b"3")])

    def test_both_directions_may_wait_at_once(self):
        self.open_waiting("websocket_message")
        self.client.say(up(TEXT, b"up"))
        self.origin.say(down(TEXT, b"down"))
        self.assertEqual(len(self.once), 2)
        self.once.reverse()
        self.go_on()
        self.assertEqual((self.client_frames(), self.origin_frames()), ([text(b"down")], []))
        self.go_on()
        self.assertEqual((self.client_frames(), self.origin_frames()), ([], [text(b"up")]))

    def test_one_who_waits_is_not_read(self):
        for mode in MODES:
            self.open_waiting("websocket_message", mode)
            sent = 0
            while self.client.reading:
                self.client.say(up(TEXT, b"x" * 1000) * 30)
                self.origin.take()
                sent += 30
                self.assertLess(sent, 1000)
            self.assertTrue(self.origin.reading)
            while self.once:
                self.go_on()
            self.assertEqual(frames_of(self.origin_heard()[-1008:], True), [text(b"x" * 1000)])
            self.assertEqual(self.data.from_client.messages, sent)

    def test_a_close_waits_behind_them(self):
        self.open_waiting("websocket_message")
        self.client.say(up(TEXT, b"last") + up_close(1000))
        self.client.end()
        self.assertEqual(self.origin_frames(), [])
        self.assertFalse(self.has_ended(self.origin))
        self.go_on()
        self.assertEqual(self.origin_frames(), [text(b"last"), close(1000)])
        self.assertTrue(self.has_ended(self.origin))

    def test_one_that_nobody_waits_for_any_more_is_cancelled(self):
        for name in ("websocket_message", "websocket_start"):
            self.open_waiting(name)
            self.client.say(up(TEXT, b"x"))
            self.assertEqual(len(self.once), 1)
            self.origin.reset()
            self.settle()
            self.assertEqual(self.ended, ["cancelled"])
            self.check_ended(error="the origin's connection broke")

    def test_nothing_goes_either_way_before_it_has_begun(self):
        for mode in MODES:
            for manner in (TCP, TLS):
                self.open_waiting("websocket_start", mode, manner)
                self.client.say(up(TEXT, b"up"))
                self.origin.say(down(TEXT, b"down"))
                self.assertEqual((self.heard(), self.origin_heard()), (b"", b""))
                self.assertFalse(self.client.reading or self.origin.reading)
                self.go_on()
                self.assertEqual((self.client_frames(), self.origin_frames()), ([text(b"down")], [text(b"up")]))

    def test_one_that_waits_for_too_long_ends_it(self):
        self.open_waiting("websocket_message", "timeouts: {idle: 50}")
        self.client.say(up(TEXT, b"x"))
        self.wait(49)
        self.assertEqual(self.stage.journal.flows, [])
        self.wait(2)
        self.assertEqual((self.flow.outcome, self.ended), ("timed-out", ["cancelled"]))


class InjectTests(HookTestCase):
    def test_messages_of_a_script_s_own_go_both_ways(self):
        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            if not message.injected:
                flow.websocket.inject(True, b"to the client: " + message.content)
                flow.websocket.inject(False, "to the origin")

        for way in HOOKS:
            self.open_with(way=way, websocket_message=websocket_message)
            self.client.say(up(TEXT, b"x"))
            self.assertEqual(self.client_frames(), [binary(b"to the client: x")])
            self.assertEqual(self.origin_frames(), [text(b"x"), text(b"to the origin")])
            counted = self.data.from_client
            self.assertEqual((counted.messages, counted.injected), (1, 1))
            self.assertEqual(self.data.from_origin.injected, 1)
            injected = [(each.from_client, each.injected) for each in self.data.messages if each.injected]
            self.assertEqual(sorted(injected), [(False, True), (True, True)])

    def test_they_are_shown_too_and_may_be_dropped(self):
        seen = []

        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            seen.append((message.content, message.injected, message.from_client))
            if not message.injected:
                flow.websocket.inject(True, "no")
                flow.websocket.inject(True, "yes")
            elif message.content == b"no":
                message.drop()
            else:
                message.content = b"YES"

        self.open_with(websocket_message=websocket_message)
        self.client.say(up(TEXT, b"x"))
        self.assertEqual((self.client_frames(), self.origin_frames()), ([text(b"YES")], [text(b"x")]))
        self.assertEqual(seen, [(b"x", False, True), (b"no", True, False), (b"yes", True, False)])

    def test_they_may_be_the_first(self):
        def websocket_start(flow):
            flow.websocket.inject(True, "hello client")
            flow.websocket.inject(False, b"hello origin")

        for way in HOOKS:
            for manner in (TCP, TLS):
                self.manner = manner
                self.begin_with(way=way, websocket_start=websocket_start)
                self.client.say(asking() + up(TEXT, b"early"))
                self.settle()
                self.origin.say(granting() + down(TEXT, b"at once"))
                heard, origin_heard = self.heard(), self.origin_heard()
                self.assertEqual((heard[: len(granted())], origin_heard[: len(asked())]), (granted(), asked()))
                to_client = frames_of(heard.removeprefix(granted()), False)
                to_origin = frames_of(origin_heard.removeprefix(asked()), True)
                if way is not plainly:
                    # What had come before the hook went on is before it.
                    to_client.reverse()
                    to_origin.reverse()
                self.assertEqual(to_client, [text(b"hello client"), text(b"at once")])
                self.assertEqual(to_origin, [binary(b"hello origin"), text(b"early")])

    def test_they_may_come_from_a_task_at_any_time(self):
        def websocket_start(flow):
            async def tick():
                for number in range(3):
                    await asyncio.sleep(10)
                    flow.websocket.inject(True, f"{number}")

            flow.metadata["task"] = asyncio.get_running_loop().create_task(tick())

        self.begin_with(websocket_start=websocket_start)
        self.client.say(asking())
        self.stage.settle(self.client)
        self.origin.say(granting())
        self.stage.settle(self.client)
        self.client.heard.clear()
        self.origin.say(down(TEXT, b"be", final=False))
        for number in range(3):
            self.stage.clock.advance(10)
            self.stage.turn()
            self.assertEqual(frames_of(self.client.take(), False), [text(b"%d" % number)])
        self.origin.say(down(CONTINUATION, b"gun"))
        self.assertEqual(self.client.take(), down(TEXT, b"be", final=False) + down(CONTINUATION, b"gun"))

    def test_each_has_a_mask_of_its_own_where_it_must(self):
        def websocket_start(flow):
            for _ in range(50):
                flow.websocket.inject(False, b"x")

        self.open_with(websocket_start=websocket_start)
        heard = self.origin_heard()
        masks = {heard[at + 2 : at + 6] for at in range(0, len(heard), 7)}
        self.assertGreater(len(masks), 40)

    def test_none_can_be_said_where_it_closes_or_streams_or_is_over(self):
        flows = []
        for mode in MODES:
            self.open_with(mode, websocket_start=flows.append)
            websocket = flows.pop().websocket
            if mode:
                with self.assertRaises(ValueError):
                    websocket.inject(True, b"x")
                continue
            self.client.say(up_close(1000))
            websocket.inject(True, b"still")
            with self.assertRaises(ValueError):
                websocket.inject(False, b"x")
            self.origin.say(down_close(1000))
            for to_client in (True, False):
                with self.assertRaises(ValueError):
                    websocket.inject(to_client, b"x")
            self.end_both()
            with self.assertRaises(ValueError):
                websocket.inject(True, b"x")
            self.assertEqual(self.client_frames(), [binary(b"still"), close(1000)])

    def test_one_past_the_limit_is_none(self):
        flows = []
        self.open_with("limits: {websocket_message: 100b}", websocket_start=flows.append)
        with self.assertRaises(ValueError):
            flows[0].websocket.inject(True, bytes(101))
        flows[0].websocket.inject(True, bytes(100))
        self.assertEqual(self.client_frames(), [binary(bytes(100))])

    def test_no_more_can_wait_than_the_limit(self):
        for to_client in (True, False):
            flows = []
            self.open_with("limits: {websocket_message: 100k}", websocket_start=flows.append)
            peer, count = self.peer(to_client), 0
            with self.assertRaises(ValueError):
                while count < 1000:
                    flows[0].websocket.inject(to_client, bytes(10_000))
                    count += 1
            # What the transport has, and so much again.
            self.assertIn(count, range(10, 20))
            self.assertEqual(self.frames_from(not to_client), [binary(bytes(10_000))] * count)
            flows[0].websocket.inject(to_client, b"more")
            self.assertEqual(self.frames_from(not to_client), [binary(b"more")])
            self.assertFalse(peer.disconnected)

    def test_a_script_s_change_past_the_limit_ends_it(self):
        def websocket_message(flow):
            flow.websocket.messages[-1].content = bytes(101)

        self.open_with("limits: {websocket_message: 100b}", websocket_message=websocket_message)
        self.client.say(up(BINARY, b"x"))
        self.assertEqual(self.client_frames(), [close(1011, "a rule failed")])
        self.assertEqual(self.origin_frames(), [close(1011, "a rule failed")])
        self.end_both()
        self.check_ended("failed", "a script made a message larger than limits.websocket_message")


class FailTests(HookTestCase):
    def fails(self, name: str, mode: str, way) -> None:
        def hook(flow):
            raise KeyError("what")

        self.open_with(mode, way, **{name: hook})
        if name == "websocket_message":
            self.client.say(up(TEXT, b"1") + up(TEXT, b"2"))
            self.settle()
        self.flushLoggedErrors()

    def test_a_hook_that_fails_ends_both_sides_with_1011(self):
        for name in ("websocket_start", "websocket_message"):
            for way in HOOKS:
                for mode in MODES:
                    for manner in (TCP, TLS):
                        self.manner = manner
                        self.fails(name, mode, way)
                        expected = [close(1011, "a rule failed")]
                        before = [text(b"1")] if mode and name == "websocket_message" else []
                        heard = self.origin_frames()
                        if before and heard[1:2] == [text(b"2")]:
                            # It streamed in the same read.
                            heard.pop(1)
                        where = (name, way.__name__, mode, manner)
                        self.assertEqual(heard, before + expected, where)
                        self.assertEqual(self.client_frames(), expected, where)
                        self.end_both()
                        self.assertEqual(self.flow.outcome, "failed")
                        self.assertIn(name, self.flow.error)
                        self.assertIn("KeyError", self.flow.error)
                        self.assertEqual((self.closed[0], self.closed[2]), (1011, None))

    def test_connections_that_do_not_end_then_are_ended(self):
        for name in ("websocket_start", "websocket_message"):
            for mode in MODES:
                self.fails(name, mode, plainly)
                seconds = 0
                while not self.stage.journal.flows and seconds < 40:
                    seconds += 1
                    # Nor does it help to go on talking.
                    self.client.say(up(PING, b"x") * 10)
                    self.origin.say(down(PING, b"x") * 10)
                    self.wait(1)
                self.assertLessEqual(seconds, CLOSING + 1, (name, mode))
                self.assertEqual(self.flow.outcome, "failed")
                self.assertEqual(b"x" in self.client.heard[self._told[self.client] :], False)

    def test_a_text_that_becomes_none_does_too(self):
        def websocket_message(flow):
            flow.websocket.messages[-1].content = b"\xff"

        self.open_with(websocket_message=websocket_message)
        self.client.say(up(TEXT, b"x"))
        self.assertEqual(self.origin_frames(), [close(1011, "a rule failed")])
        self.end_both()
        self.check_ended("failed", "a text that was changed isn't UTF-8 any more")

    def test_a_flow_that_is_killed_ends_without_a_word(self):
        for name in ("websocket_start", "websocket_message"):
            for way in HOOKS:
                for mode in MODES:
                    self.begin_with(mode, way, **{name: HTTPFlow.kill})
                    self.client.say(asking())
                    self.settle()
                    self.origin.say(granting())
                    self.settle()
                    for peer in (self.client, self.origin):
                        self._told[peer] = len(peer.heard)
                    self.client.say(up(TEXT, b"x"))
                    self.settle()
                    self.assertTrue(self.client.aborted and self.origin.aborted)
                    self.assertEqual(self.client_frames(), [])
                    heard = self.origin_frames()
                    # What streamed may have gone before, if the reset hasn't overtaken it.
                    self.assertTrue(heard == [] or (mode and heard == [text(b"x")]), heard)
                    self.check_ended("failed", "killed by a script")
                    self.assertEqual(self.closed, (1006, "", None))

    def test_one_may_be_killed_at_any_time(self):
        for mode in MODES:
            for manner in (TCP, TLS):
                self.manner = manner
                flows = []
                self.open_with(mode, websocket_start=flows.append)
                self.client.say(up(TEXT, b"x"))
                self.assertEqual(self.origin_frames(), [text(b"x")])
                flows[0].kill()
                self.settle()
                self.assertTrue(self.client.aborted and self.origin.aborted)
                self.check_ended("failed", "killed by a script")
                self.assertEqual((self.heard(), self.closed), (b"", (1006, "", None)))

    def test_an_end_that_fails_changes_nothing(self):
        def websocket_end(flow):
            raise KeyError("what")

        for way in (plainly, asleep):
            self.open_with(way=way, websocket_end=websocket_end)
            self.close_both()
            self.flushLoggedErrors()
            self.check_ended()


class OrderTests(HookTestCase):
    def test_start_messages_and_end_are_seen_in_their_order(self):
        for way in HOOKS:
            for mode in MODES:
                seen = []

                def note(name, seen=seen):
                    def hook(flow):
                        data = flow.websocket
                        code = None if data is None else data.close_code
                        seen.append((name, flow.live, None if data is None else len(data.messages), code))

                    return hook

                names = ("requestheaders", "request", "responseheaders", "response")
                names += ("websocket_start", "websocket_message", "websocket_end", "error")
                self.open_with(mode, way, **{name: note(name) for name in names})
                self.client.say(up(TEXT, b"x"))
                self.settle()
                self.close_both()
                self.assertEqual(
                    seen,
                    [
                        *((name, True, None, None) for name in names[:4]),
                        ("websocket_start", True, 0, None),
                        ("websocket_message", True, 1, None),
                        ("websocket_end", False, 1, 1000),
                    ],
                )
                self.check_ended()

    def test_the_end_is_told_however_it_comes(self):
        for end, expected in (
            (lambda: self.client.reset(), (1006, True)),
            (lambda: self.origin.reset(), (1006, False)),
            (lambda: self.client.say(b"\x83\x80MASK"), (1002, None)),
        ):
            seen = []

            def websocket_end(flow, seen=seen):
                seen.append((flow.websocket.close_code, flow.websocket.closed_by_client))

            self.open_with(websocket_end=websocket_end)
            end()
            self.end_both()
            self.wait(3 * CLOSING)
            self.assertEqual(seen, [expected])

    def test_a_stream_is_seen_as_it_went_by(self):
        seen, errors = [], []

        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            seen.append((message.content, message.streamed, message.size))
            for change in (message.drop, lambda: setattr(message, "content", b"")):
                try:
                    change()
                except ValueError as error:
                    errors.append(str(error))

        for way in HOOKS:
            seen.clear()
            self.open_with(STREAMING + "limits: {capture: 3b}", way, websocket_message=websocket_message)
            said = up(TEXT, b"hel", final=False) + up(CONTINUATION, b"lo") + up(BINARY, b"x")
            self.client.say(said)
            self.assertEqual(self.origin_heard(), said)
            self.assertEqual(seen, [(b"hel", True, 5), (b"x", True, 1)])
            self.assertEqual(set(errors), {"messages of a WebSocket that streams can't be changed"})

    def test_a_compressed_stream_is_seen_as_what_it_says(self):
        seen = []

        def websocket_message(flow):
            message = flow.websocket.messages[-1]
            seen.append((message.content, message.compressed))

        self.open_with(STREAMING, offers=(deflating(),), agrees=(deflating(),), websocket_message=websocket_message)
        for payload in ("f248cdc9c90700", "f200110000"):
            said = down(TEXT, bytes.fromhex(payload), reserved=RSV1)
            self.origin.say(*(said[at : at + 1] for at in range(len(said))))
            self.assertEqual(self.heard(), said)
        self.assertEqual(seen, [(b"Hello", False)] * 2)


class HeadHookTests(HookTestCase):
    def test_the_heads_of_an_upgrade_are_theirs_to_change(self):
        def requestheaders(flow):
            flow.request.headers["Origin"] = "http://b.example"
            flow.request.headers["Sec-WebSocket-Protocol"] = "b"

        def responseheaders(flow):
            self.assertEqual(flow.response.status_code, 101)
            flow.response.headers["X-Seen"] = "yes"

        for way in HOOKS:
            for manner in (TCP, TLS):
                for where in (("requestheaders", "responseheaders"), ("request", "response")):
                    self.manner = manner
                    hooks = dict(zip(where, (requestheaders, responseheaders), strict=True))
                    self.begin_with(way=way, **hooks)
                    self.client.say(*singly(asking(b"Origin: http://a.example")))
                    self.stage.settle(self.client)
                    # What comes while they wait belongs to the WebSocket.
                    self.client.say(up(TEXT, b"early"))
                    fields = (b"Origin: http://b.example", b"Sec-WebSocket-Protocol: b")
                    self.settle()
                    self.assertEqual(self.origin_heard(), asked(*fields))
                    protocol = b"Sec-WebSocket-Protocol: b"
                    self.origin.say(granting(protocol))
                    self.origin.say(down(TEXT, b"at once"))
                    heard = self.heard()
                    self.assertEqual(heard, granted(protocol, b"X-Seen: yes") + down(TEXT, b"at once"))
                    self.assertEqual(self.origin_heard(), up(TEXT, b"early"))

    def test_one_may_be_answered_otherwise(self):
        def answer(flow):
            flow.response = http.Response.make(403, b"no")

        for name in ("requestheaders", "request", "responseheaders", "response"):
            for way in HOOKS:
                self.begin_with(way=way, **{name: answer})
                self.client.say(asking())
                self.settle()
                if name.startswith("response"):
                    self.origin.say(granting() + down(TEXT, b"never"))
                    self.settle()
                    self.assertTrue(self.origin.disconnected)
                else:
                    self.assertEqual(self.stage.pool.made, [])
                head, _, body = self.heard().partition(b"\r\n\r\n")
                self.assertEqual((head.split(b"\r\n")[0], body), (b"HTTP/1.1 403 Forbidden", b"no"))
                self.assertEqual((self.flow.outcome, self.flow.websocket), ("answered", None))

    def test_one_may_be_killed(self):
        for name in ("requestheaders", "request", "responseheaders", "response"):
            self.begin_with(**{name: HTTPFlow.kill})
            self.client.say(asking())
            self.settle()
            if self.stage.pool.made:
                self.origin.say(granting())
                self.settle()
                self.assertTrue(self.origin.disconnected)
            self.assertEqual((self.heard(), self.client.aborted), (b"", True))

    def test_a_script_may_take_the_upgrade_out(self):
        def requestheaders(flow):
            del flow.request.headers["Upgrade"]

        self.begin_with(requestheaders=requestheaders)
        self.client.say(asking())
        self.assertNotIn(b"Upgrade", self.origin_heard())
        self.origin.say(granting())
        self.assertIn(b"the origin switched protocols unasked", self.heard())

    def test_a_status_can_not_become_another(self):
        def responseheaders(flow):
            flow.response.status_code = 200

        self.begin_with(responseheaders=responseheaders)
        self.client.say(asking())
        self.settle()
        self.origin.say(granting())
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(self.flow.outcome, "failed")

    def test_http_2_does_not_go_past_a_script(self):
        self.begin_with(request=lambda flow: None)
        fields = b"Host: a.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        self.client.say(b"GET http://a.example/ HTTP/1.1\r\n" + fields)
        self.assertNotIn(b"Upgrade", self.origin_heard())


KINDS = (
    Exchange,
    HTTPFlow,
    MessageSide,
    ScriptedExchange,
    SocketHooks,
    StreamSide,
    TunnelEnd,
    UpstreamConnection,
    WebSocketRelay,
)


def living() -> dict[type, int]:
    """How many there are of each."""
    count = dict.fromkeys(KINDS, 0)
    for each in gc.get_objects():
        if type(each) in count:
            count[type(each)] += 1
    return count


class FreedTests(SocketTestCase):
    """What is over is freed at once: nothing of it refers to itself, and waits for the collector of garbage."""

    def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = living()

    def check_freed(self, where: object) -> None:
        self.assertEqual(self.stage.proxy.connections, set())
        self.stage.journal.flush()
        self.assertEqual(self.stage.clock.getDelayedCalls(), [], where)
        # Twisted's transports let go of their protocol when it is lost.
        peers: list[BoundedTransport] = [self.client, self.origin]
        for peer in peers:
            peer.protocol = None
        self.stage.pool.made.clear()
        self.stage.journal.flows.clear()
        del self.client
        self._told.clear()
        peers.clear()
        self.assertEqual(living(), self.before, where)

    def ends(self) -> dict[str, object]:
        def in_order() -> None:
            self.client.say(up_close(1000))
            self.origin.say(down_close(1000))

        return {
            "in order": in_order,
            "lost": lambda: self.client.reset(),
            "the origin lost": lambda: self.origin.reset(),
            "broken": lambda: self.client.say(b"\x83\x80MASK"),
            "inside a message": lambda: self.client.say(up(TEXT, b"part", final=False)),
            "inside a frame": lambda: self.origin.say(down(TEXT, b"part")[:3]),
        }

    def test_it_is_freed_however_it_ends(self) -> None:
        hooks = {"websocket_message": lambda flow: None, "websocket_end": lambda flow: None}
        for mode in MODES:
            for manner in (TCP, TLS):
                for with_hooks in ({}, hooks):
                    for name in self.ends():
                        self.manner = manner
                        self.open(mode, offers=(deflating(),), agrees=(deflating(),), **with_hooks)
                        self.client.say(up(TEXT, b"hello"))
                        self.origin.say(down(TEXT, b"hello"))
                        self.ends()[name]()  # type: ignore[operator]
                        self.end_both()
                        self.wait(4 * CLOSING, 5)
                        self.stage.proxy.script_loop.stop()
                        self.check_freed((mode, manner, bool(with_hooks), name))

    def test_it_is_freed_while_a_hook_waits(self) -> None:
        async def websocket_message(flow):
            await asyncio.sleep(1000)

        for mode in MODES:
            self.open(mode, websocket_message=websocket_message)
            self.client.say(up(TEXT, b"hello"))
            self.client.reset()
            self.settle()
            # The coroutine's own frame has it, as long as asyncio has that.
            self.before[HTTPFlow] = living()[HTTPFlow]
            self.check_freed(mode)
            gc.collect()
            self.before[HTTPFlow] = living()[HTTPFlow]


class OtherProtocolTests(HookTestCase):
    """Another protocol is a tunnel, of which hooks see no more than its beginning."""

    def test_it_is_over_for_scripts_when_it_begins(self):
        asked_hooks: list[str] = []
        flows: list[HTTPFlow] = []

        def response(flow):
            asked_hooks.append("response")
            flows.append(flow)

        def error(flow):
            asked_hooks.append("error")

        self.begin_with(response=response, error=error)
        fields = b"Host: a.example\r\nConnection: Upgrade\r\nUpgrade: irc\r\n\r\n"
        self.client.say(b"GET http://a.example/ HTTP/1.1\r\n" + fields)
        self.settle()
        self.origin.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: irc\r\n\r\nhello")
        self.assertTrue(self.heard().endswith(b"hello"))
        self.assertEqual((asked_hooks, flows[0].live, flows[0].killable), (["response"], False, False))
        self.end_both()
        self.assertEqual((self.flow.outcome, asked_hooks), ("switched", ["response"]))
