"""How WebSockets end with the proxy between autobahn's client and server: by whom, with which code, and on the log."""

from __future__ import annotations

from tests.system.websocket_peers import MESSAGES, STREAMS, Closed, Pair, Peer, WebSocketCase

KEYS = ("code", "reason", "by")


class EndCase(WebSocketCase):
    async def assert_line(self, pair: Pair, outcome: str, *close: object, error: str | None = None) -> None:
        """The line of `pair` on the log says how it went, and how it closed."""
        line = await self.line()
        told = (line["outcome"], line["websocket"]["close"], line.get("error"))
        self.assertEqual(told, (outcome, dict(zip(KEYS, close, strict=True)), error), pair.what)

    async def expect_end(self, pair: Pair, peer: Peer, clean: bool, code: int) -> str | None:
        """The next that `peer` sees is the end, in this way; gives the reason."""
        got = await peer.next()
        assert isinstance(got, Closed), f"{pair.what}: {got!r:.300}\n{self.proxy.output}"
        self.assertEqual(got[:2], (clean, code), f"{pair.what}: {got}\n{self.proxy.output}")
        return got.reason


class CloseTests(EndCase):
    def setUp(self) -> None:
        self.start()

    async def assert_closes(self, begins: str, code: int | None, reason: str | None, recorded: int) -> None:
        async for pair in self.pairs():
            first: Peer = getattr(pair, begins)
            other: Peer = pair.server if first is pair.client else pair.client
            first.sendClose(code, reason)
            await self.expect(pair, other, Closed(True, code, reason))
            await self.expect(pair, first, Closed(True, code, reason))
            by = "client" if begins == "client" else "origin"
            await self.assert_line(pair, "switched", recorded, reason or "", by)

    async def test_a_client_closes_with_a_code_and_a_reason(self) -> None:
        await self.assert_closes("client", 4001, "größer als alle 🙂", 4001)

    async def test_a_server_closes_with_a_code_and_a_reason(self) -> None:
        await self.assert_closes("server", 3999, "genug", 3999)

    async def test_a_client_closes_in_order(self) -> None:
        await self.assert_closes("client", 1000, None, 1000)

    async def test_a_server_closes_in_order(self) -> None:
        await self.assert_closes("server", 1000, None, 1000)

    async def test_what_was_said_before_a_close_arrives_before_it(self) -> None:
        async for pair in self.pairs(compress=True):
            for number in range(50):
                pair.server.send(f"{number} " * 5000)
            pair.server.sendClose(1000)
            await self.expect(pair, pair.client, *[f"{number} " * 5000 for number in range(50)])
            await self.expect(pair, pair.client, Closed(True, 1000, None))


class LostTests(EndCase):
    """A connection that is lost without a close frame is lost to the other side, too."""

    def setUp(self) -> None:
        self.start()

    async def test_a_client_that_is_lost(self) -> None:
        async for pair in self.pairs():
            pair.client.send("still here")
            await self.expect(pair, pair.server, "still here")
            pair.client.lose()
            await self.assert_lost(pair, pair.server)
            await self.assert_line(pair, "switched", 1006, "", "client", error="the client's connection broke")

    async def test_a_server_that_is_lost(self) -> None:
        async for pair in self.pairs():
            pair.server.lose()
            await self.assert_lost(pair, pair.client)
            await self.assert_line(pair, "switched", 1006, "", "origin", error="the origin's connection broke")

    async def test_a_client_that_is_lost_inside_a_message(self) -> None:
        async for pair in self.pairs():
            pair.client.beginMessage(isBinary=True)
            pair.client.sendMessageFrame(b"one")
            pair.client.beginMessageFrame(1000)
            pair.client.sendMessageFrameData(b"half of the second")
            pair.client.sendPing(b"")
            pair.client.lose()
            await self.assert_lost(pair, pair.server)

    async def assert_lost(self, pair: Pair, peer: Peer) -> None:
        await self.expect_end(pair, peer, False, 1006)


class LimitTests(EndCase):
    """Messages that are larger than they may be where they are put together; where they stream, any size goes."""

    def setUp(self) -> None:
        self.start((), "limits.websocket_message=64k")

    async def test_the_largest_message_goes_on(self) -> None:
        for compress in (False, True):
            async for pair in self.pairs(compress=compress):
                pair.client.send(b"x" * 65536, fragment=30000)
                await self.expect(pair, pair.server, b"x" * 65536)

    async def test_a_larger_one_from_the_client_is_answered_1009(self) -> None:
        for options in ({}, {"fragment": 30000}):
            for compress in (False, True):
                async for pair in self.pairs(paths=[MESSAGES], compress=compress):
                    pair.client.send("before")
                    pair.client.send(b"x" * 65537, **options)
                    await self.assert_told(pair, pair.client, pair.server)

    async def test_a_larger_one_from_the_server_is_answered_1009(self) -> None:
        for options in ({}, {"fragment": 30000}):
            for compress in (False, True):
                async for pair in self.pairs(paths=[MESSAGES], compress=compress):
                    pair.server.send("before")
                    pair.server.send("x" * 65537, **options)
                    await self.assert_told(pair, pair.server, pair.client)

    async def test_where_it_streams_there_is_no_limit(self) -> None:
        async for pair in self.pairs(paths=[STREAMS]):
            pair.client.send("x" * 1_000_000)
            await self.expect(pair, pair.server, "x" * 1_000_000)

    async def assert_told(self, pair: Pair, sender: Peer, other: Peer) -> None:
        await self.expect(pair, other, "before")
        await self.expect_end(pair, other, True, 1001)
        reason = await self.expect_end(pair, sender, True, 1009)
        who = "client" if sender is pair.client else "origin"
        error = f"the {who} broke the WebSocket protocol: {reason}"
        await self.assert_line(pair, "malformed", 1009, reason, "proxy", error=error)


class BrokenTests(EndCase):
    """What isn't as the standard says."""

    def setUp(self) -> None:
        self.start()

    async def assert_closed(self, pair: Pair, sender: Peer, other: Peer, code: int) -> None:
        await self.expect_end(pair, other, True, 1001)
        reason = await self.expect_end(pair, sender, True, code)
        who = "client" if sender is pair.client else "origin"
        error = f"the {who} broke the WebSocket protocol: {reason}"
        await self.assert_line(pair, "malformed", code, reason, "proxy", error=error)

    async def test_a_text_that_is_not_utf_8_is_answered_1007_where_messages_are_read(self) -> None:
        for compress in (False, True):
            async for pair in self.pairs(paths=[MESSAGES], compress=compress):
                pair.client.send_text_that_is_none(b"so far \xff")
                await self.assert_closed(pair, pair.client, pair.server, 1007)

    async def test_a_reserved_frame_from_the_server_is_answered_1002_where_messages_are_read(self) -> None:
        async for pair in self.pairs(paths=[MESSAGES]):
            pair.server.sendFrame(opcode=3, payload=b"?")
            await self.assert_closed(pair, pair.server, pair.client, 1002)

    async def test_where_it_streams_it_is_for_the_other_side_to_say_so(self) -> None:
        async for pair in self.pairs(paths=[STREAMS]):
            pair.client.send_text_that_is_none(b"so far \xff")
            await self.expect_end(pair, pair.client, True, 1007)
            await self.assert_line(pair, "switched", 1007, pair.client.remoteCloseReason, "origin")


class FailedTests(EndCase):
    """A rule that can't be carried out on a message ends the WebSocket, for both sides."""

    async def test_a_replacement_that_makes_a_message_too_large_is_1011(self) -> None:
        self.start(
            ["{name: grows, websocket: {messages: [{find: ha, with: 'hahahahahahahahahahaha'}]}}"],
            "limits.websocket_message=64k",
        )
        async for pair in self.pairs(paths=[MESSAGES]):
            pair.client.send("ha" * 10)
            await self.expect(pair, pair.server, "ha" * 110)
            pair.client.send("ha" * 10000)
            for peer in (pair.client, pair.server):
                await self.expect_end(pair, peer, True, 1011)
            why = "rule 'grows' made a message larger than limits.websocket_message"
            await self.assert_line(pair, "failed", 1011, why, "proxy", error=why)
