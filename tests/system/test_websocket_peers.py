"""autobahn's client and server with the proxy between them: what one says is what the other hears, by each way."""

from __future__ import annotations

import random

from tests.system.websocket_peers import MESSAGES, Closed, WebSocketCase

LARGE = 4 << 20


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
