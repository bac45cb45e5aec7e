"""autobahn's client and server with the proxy between them: what one says is what the other hears, by each way."""

from __future__ import annotations

import random

from tests.system.websocket_peers import MESSAGES, STREAMS, WebSocketCase

LARGE = 4 << 20
# What compresses well, and what doesn't at all.
WORDS = "never odd or even; " * (LARGE // 19)
NOISE = random.Random(6).randbytes(LARGE)


class PeersTests(WebSocketCase):
    def setUp(self) -> None:
        self.start()

    async def test_texts_and_binary_messages_arrive_as_they_were_sent(self) -> None:
        async for pair in self.pairs():
            for message in ("", "hello", "größer 🙂", b"", b"\x00\xff" * 70000, "x" * 126, b"y" * 65536):
                pair.client.send(message)
                await self.expect(pair, pair.server, message)
                pair.server.send(message)
                await self.expect(pair, pair.client, message)
            await self.close(pair)

    async def test_many_small_messages_arrive_in_their_order_both_ways_at_once(self) -> None:
        texts = [f"message {number}" for number in range(500)]
        async for pair in self.pairs(compress=True):
            for text in texts:
                pair.client.send(text)
                pair.server.send(text.upper())
            await self.expect(pair, pair.server, *texts)
            await self.expect(pair, pair.client, *[text.upper() for text in texts])

    async def test_messages_in_fragments_arrive_in_the_same_ones(self) -> None:
        message = "0123456789" * 1000
        async for pair in self.pairs():
            for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
                sender.send(message, fragment=3000)
                await self.expect(pair, receiver, message)
                self.assertEqual(receiver.frames, [3000, 3000, 3000, 1000], pair.what)

    async def test_messages_of_4_mib_arrive_whole_compressed_or_not(self) -> None:
        for compress in (False, True):
            async for pair in self.pairs(compress=compress):
                self.assertEqual((pair.client.compresses, pair.server.compresses), (compress, compress), pair.what)
                for message in (WORDS, NOISE):
                    pair.client.send(message)
                    await self.expect(pair, pair.server, message)
                    pair.server.send(message, fragment=100_000)
                    await self.expect(pair, pair.client, message)
                await self.close(pair)

    async def test_compressed_and_plain_messages_may_take_turns(self) -> None:
        async for pair in self.pairs(compress=True):
            for number in range(20):
                text = f"the same words again and again, {number} times"
                pair.client.send(text, compress=number % 3 > 0)
                await self.expect(pair, pair.server, text)
                pair.server.send(text.encode(), compress=number % 2 > 0)
                await self.expect(pair, pair.client, text.encode())
            # What was sent before shortens what comes after it, on both ways: the contexts last.
            self.assertLess(pair.client.frames[-1], 20, pair.what)
            self.assertLess(pair.server.frames[-1], 20, pair.what)

    async def test_compression_is_agreed_on_only_if_the_client_offers_it(self) -> None:
        async for pair in self.pairs(compress=False):
            self.assertEqual((pair.client.compresses, pair.server.compresses), (False, False), pair.what)

    async def test_pings_go_through_and_their_pongs_come_back(self) -> None:
        async for pair in self.pairs():
            for payload in (b"", b"are you there?", b"\xff" * 125):
                pair.client.sendPing(payload)
                await self.expect(pair, pair.server, ("ping", payload))
                await self.expect(pair, pair.client, ("pong", payload))
                pair.server.sendPing(payload)
                await self.expect(pair, pair.client, ("ping", payload))
                await self.expect(pair, pair.server, ("pong", payload))

    async def test_a_pong_that_nobody_asked_for_goes_through(self) -> None:
        async for pair in self.pairs():
            pair.server.sendPong(b"unasked")
            await self.expect(pair, pair.client, ("pong", b"unasked"))

    async def test_a_ping_passes_between_the_frames_of_a_message(self) -> None:
        async for pair in self.pairs():
            for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
                sender.beginMessage(isBinary=True)
                sender.sendMessageFrame(b"one ")
                sender.sendPing(b"inside")
                # It is there, and answered, before the message has ended.
                await self.expect(pair, receiver, ("ping", b"inside"))
                await self.expect(pair, sender, ("pong", b"inside"))
                sender.sendMessageFrame(b"two")
                sender.endMessage()
                await self.expect(pair, receiver, b"one two")

    async def test_the_subprotocol_is_the_one_that_the_server_chose(self) -> None:
        async for pair in self.pairs(protocols=("chat.v1", "chat.v2")):
            chosen = (pair.client.websocket_protocol_in_use, pair.server.websocket_protocol_in_use)
            self.assertEqual(chosen, ("chat.v2", "chat.v2"), pair.what)

    async def test_the_log_tells_how_much_each_side_sent_and_who_closed(self) -> None:
        async for pair in self.pairs(compress=True):
            pair.client.send("größer")
            pair.client.send(b"123")
            await self.expect(pair, pair.server, "größer", b"123")
            pair.server.sendPing()
            await self.expect(pair, pair.client, ("ping", b""))
            await self.expect(pair, pair.server, ("pong", b""))
            pair.server.send("x" * 1000)
            await self.expect(pair, pair.client, "x" * 1000)
            await self.close(pair)
            line = await self.line()
            said = line["websocket"]
            self.assertEqual((line["status"], line["outcome"]), (101, "switched"), pair.what)
            self.assertEqual(said["mode"], "streamed" if pair.streams else "messages")
            self.assertEqual(said["client"]["messages"], 2)
            self.assertEqual((said["origin"]["messages"], said["origin"]["pings"], said["client"]["pongs"]), (1, 1, 1))
            # What streams is counted as it passes: compressed.
            if not pair.streams:
                self.assertEqual((said["client"]["bytes"], said["origin"]["bytes"]), (11, 1000), pair.what)
            self.assertEqual(said["close"], {"code": 1000, "reason": "", "by": "client"})
            self.assertEqual(line["rules"], ["streams"] if pair.streams else [])
            self.assertTrue(line["url"].endswith(STREAMS if pair.streams else MESSAGES))
