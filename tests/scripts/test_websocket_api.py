"""WebSockets as scripts see them: a flow's messages, the command that injects, and filter expressions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.tap import Budget
from streamproxy.scripts import ctx, flowfilter, http, websocket
from tests.scripts.making import flow_of, request_of, response_of

CLIENT, ORIGIN = True, False


def websocket_flow(*messages: tuple[bool, bytes], limit: int = 1000) -> http.HTTPFlow:
    """A flow that is a WebSocket by which these messages have gone: from the client or not, and what."""
    flow = flow_of(request_of(body=b"asked"), response_of(body=b"told", status=101))
    flow.websocket = websocket.WebSocketData(limit, Budget(1 << 30))
    for from_client, content in messages:
        flow.websocket.keep(websocket.WebSocketMessage(websocket.Opcode.BINARY, from_client, content))
    return flow


class FlowTests(SynchronousTestCase):
    def test_a_flow_is_no_websocket_until_it_becomes_one(self) -> None:
        self.assertIs(flow_of().websocket, None)
        flow = websocket_flow((CLIENT, b"a"))
        assert flow.websocket is not None
        self.assertEqual((flow.type, flow.websocket.messages[-1].content), ("http", b"a"))

    def test_a_copy_of_a_flow_has_no_live_websocket(self) -> None:
        self.assertIs(flow_of().copy().websocket, None)
        flow = websocket_flow((CLIENT, b"a"))
        made: list[websocket.WebSocketMessage] = []
        assert flow.websocket is not None
        flow.websocket.injector = made.append
        copy = flow.copy().websocket
        assert copy is not None
        self.assertEqual([message.content for message in copy.messages], [b"a"])
        self.assertIsNot(copy.messages[0], flow.websocket.messages[0])
        with self.assertRaises(ValueError):
            copy.inject(True, b"x")
        flow.websocket.inject(True, b"x")
        self.assertEqual(len(made), 1)


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flow = websocket_flow()
        self.made: list[websocket.WebSocketMessage] = []
        assert self.flow.websocket is not None
        self.flow.websocket.injector = self.made.append
        self.call = ctx.master.commands.call

    def test_a_message_is_injected_as_text_unless_said_otherwise(self) -> None:
        self.call("inject.websocket", self.flow, True, b"one")
        self.call("inject.websocket", self.flow, False, b"two", False)
        self.call("inject.websocket", self.flow, to_client=True, message=b"three", is_text=True)
        self.call("inject.websocket", self.flow, False, "four")
        self.assertEqual(
            [(message.content, message.from_client, message.is_text) for message in self.made],
            [(b"one", False, True), (b"two", True, False), (b"three", False, True), (b"four", True, True)],
        )
        self.assertTrue(all(message.injected for message in self.made))

    def test_what_can_not_be_sent_is_refused_in_words(self) -> None:
        for flow, message, words in (
            (flow_of(), b"x", "no WebSocket"),
            (self.flow, b"\xff", "utf-8"),
            (websocket_flow(), b"x", "over"),
        ):
            with self.assertRaises(ValueError) as caught:
                self.call("inject.websocket", flow, True, message)
            self.assertIn(words, str(caught.exception))
        self.assertEqual(self.made, [])

    def test_there_is_no_other_command(self) -> None:
        for name in ("inject.tcp", "view.flows.add", "inject_websocket", ""):
            with self.assertRaises(NotImplementedError) as caught:
                self.call(name, self.flow, True, b"x")
            self.assertIn("no commands here but inject.websocket", str(caught.exception))


class FilterTests(SynchronousTestCase):
    def test_websockets_are_told_from_other_flows(self) -> None:
        self.assertTrue(flowfilter.match("~websocket", websocket_flow()))
        self.assertFalse(flowfilter.match("~websocket", flow_of()))
        self.assertTrue(flowfilter.match("~http & ~websocket", websocket_flow()))
        self.assertTrue(flowfilter.match("!~websocket", flow_of()))

    def test_body_operators_look_into_the_messages_of_their_side(self) -> None:
        flow = websocket_flow((CLIENT, b"Hello\nyou"), (ORIGIN, b"Well, then"), (CLIENT, b"\xff\x00Bye"))
        for expression, found in (
            ("~b hello.you", True),
            ("~b 'well, then'", True),
            ("~b bye", True),
            ("~b nothing", False),
            ("~b asked", True),
            ("~b told", True),
            ("~bq bye", True),
            ("~bq well", False),
            ("~bq asked", True),
            ("~bs well", True),
            ("~bs hello", False),
            ("~bs told", True),
            ("~b youWell", False),
        ):
            self.assertEqual(flowfilter.match(expression, flow), found, expression)

    def test_only_what_the_window_has_is_looked_into(self) -> None:
        flow = websocket_flow((CLIENT, b"first"), (CLIENT, b"the end is cut"), limit=10)
        for expression, found in (("~b first", False), ("~b the.end", True), ("~b cut", False)):
            self.assertEqual(flowfilter.match(expression, flow), found, expression)
