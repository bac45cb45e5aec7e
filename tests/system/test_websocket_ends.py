"""How WebSockets end with the proxy between autobahn's client and server: by whom, with which code, and on the log."""

from __future__ import annotations

from tests.system.websocket_peers import MESSAGES, STREAMS, Closed, Pair, Peer, WebSocketCase

KEYS = ("code", "reason", "by")


class EndCase(WebSocketCase):
    async def asked(self, number: int) -> dict:
        """The line of the `number`th WebSocket that is over, on the log."""
        lines = [line for line in await self.recorded(self.lines(number)) if line["method"] == "GET"]
        return lines[number - 1]

    def lines(self, number: int) -> int:
        """How many lines there are when `number` WebSockets are over: one by an absolute target has one, else two."""
        return number

    async def assert_line(self, pair: Pair, outcome: str, *close: object) -> None:
        """The last line on the log says how `pair` went, and how it closed."""
        url = f":{pair.server.transport.getHost().port}{STREAMS if pair.streams else MESSAGES}"
        self.over += 1 if pair.what.startswith("absolute") else 2
        line = [each for each in await self.recorded(self.over) if each["url"].endswith(url)][-1]
        said = line["websocket"]["close"]
        self.assertEqual((line["outcome"], said), (outcome, dict(zip(KEYS, close, strict=True))), pair.what)
        self.line = line

    over = 0


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
            await self.assert_line(pair, "client-gone", 1006, "", "client")

    async def test_a_server_that_is_lost(self) -> None:
        async for pair in self.pairs():
            pair.server.lose()
            await self.assert_lost(pair, pair.client)
            await self.assert_line(pair, "origin-gone", 1006, "", "origin")

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
        got = await peer.next()
        self.assertIsInstance(got, Closed, pair.what)
        self.assertEqual(got[:2], (False, 1006), f"{pair.what}: {got}")


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
        for peer, code in ((other, 1001), (sender, 1009)):
            got = await peer.next()
            self.assertIsInstance(got, Closed, pair.what)
            self.assertEqual(got[:2], (True, code), f"{pair.what}: {got}")
        self.over += 1 if pair.what.startswith("absolute") else 2
        line = [each for each in await self.recorded(self.over) if each["method"] == "GET"][-1]
        self.assertEqual((line["outcome"], line["websocket"]["close"]["code"]), ("malformed", 1009))
        self.assertEqual(line["websocket"]["close"]["by"], "proxy")


class BrokenTests(EndCase):
    """What isn't as the standard says."""

    def setUp(self) -> None:
        self.start()

    async def assert_closed(self, pair: Pair, sender: Peer, other: Peer, code: int) -> None:
        for peer, wanted in ((other, 1001), (sender, code)):
            got = await peer.next()
            self.assertIsInstance(got, Closed, pair.what)
            self.assertEqual(got[:2], (True, wanted), f"{pair.what}: {got}")

    async def test_a_text_that_is_not_utf_8_is_answered_1007_where_messages_are_read(self) -> None:
        for compress in (False, True):
            async for pair in self.pairs(paths=[MESSAGES], compress=compress):
                pair.client.send_text_that_is_none(b"so far \xff")
                await self.assert_closed(pair, pair.client, pair.server, 1007)
                await self.assert_line(pair, "malformed", 1007, self.reason(pair), "proxy")

    async def test_a_reserved_frame_from_the_server_is_answered_1002_where_messages_are_read(self) -> None:
        async for pair in self.pairs(paths=[MESSAGES]):
            pair.server.sendFrame(opcode=3, payload=b"?")
            await self.assert_closed(pair, pair.server, pair.client, 1002)

    async def test_where_it_streams_it_is_for_the_other_side_to_say_so(self) -> None:
        async for pair in self.pairs(paths=[STREAMS]):
            pair.client.send_text_that_is_none(b"so far \xff")
            got = await pair.client.next()
            self.assertIsInstance(got, Closed, pair.what)
            self.assertEqual(got[:2], (True, 1007), f"{pair.what}: {got}")

    def reason(self, pair: Pair) -> str:
        """What the proxy gave as the reason."""
        return pair.client.remoteCloseReason


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
                got = await peer.next()
                self.assertIsInstance(got, Closed, pair.what)
                self.assertEqual(got[:2], (True, 1011), f"{pair.what}: {got}")
            why = "rule 'grows' made a message larger than limits.websocket_message"
            await self.assert_line(pair, "failed", 1011, why, "proxy")
            self.assertEqual(self.line["error"], why)
