"""The worked examples of WebSockets, run: rules for messages, streams, a script that watches and one that changes.

Each is run as it stands in conf/; the tests check what its comments promise.
"""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.system.examples import Example, ExampleClient
from tests.system.parts import Origin, each_request, response
from tests.system.websocket_peers import Closed, Pair, Server, WebSocketCase

KEY = "sk-test0123456789abcdefABCDEF"


class ExampleCase(WebSocketCase):
    name = ""
    overrides: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.server = Server(self)
        self.proxy = Example(self, self.name, self.server, *self.overrides)

    async def visit(self, host: str, path: str = "/", compress: bool = False) -> Pair:
        """A WebSocket to a host of the example, and who serves it."""
        client = await self.connect(self.server, path, "absolute", compress, host=host)
        return Pair(client, await self.server.next(), host, False)

    async def wait_for_line(self, *words: str) -> None:
        """Wait for a line on the log that has all of `words`."""
        what = f"a line with {words}"
        await deferToThread(
            self.proxy.wait_for, lambda lines: any(all(word in line for word in words) for line in lines), what
        )


class RulesTests(ExampleCase):
    name = "websocket-rules"

    async def test_messages_are_changed_dropped_and_answered(self) -> None:
        for compress in (False, True):
            pair = await self.visit("chat.example", "/socket?room=1", compress)
            client, server = pair.client, pair.server
            client.send(f"my key is {KEY}, keep it")
            await self.expect(pair, server, "my key is sk-***, keep it")
            server.send('{"type":"typing"}')
            server.send(b'{"type":"typing"}')
            server.send(f"{KEY}")
            await self.expect(pair, client, b'{"type":"typing"}', KEY)
            client.send('{"type":"ping"}')
            await self.expect(pair, client, '{"type":"pong"}')
            client.send("afterwards")
            await self.expect(pair, server, "afterwards")
            await self.close(pair)
            line = await self.line()
            self.assertEqual(line["rules"], ["quiet chat", "ours"])
            said = line["websocket"]
            self.assertEqual((said["client"]["messages"], said["client"]["dropped"]), (3, 1))
            self.assertEqual((said["origin"]["messages"], said["origin"]["dropped"]), (3, 1))
            self.assertEqual(said["origin"]["injected"], 1)

    async def test_replacements_of_bodies_hold_for_messages_too(self) -> None:
        pair = await self.visit("llm.example", "/v1/realtime")
        pair.client.send(b"sk-test-0123456789 at internal.example")
        await self.expect(pair, pair.server, b"sk-*** at internal.example")
        pair.server.send("sk-test-0123456789 at internal.example")
        await self.expect(pair, pair.client, "sk-test-0123456789 at ***.example")

    async def test_one_that_streams_goes_as_it_is(self) -> None:
        pair = await self.visit("video.example")
        pair.server.send(b"x" * 100_000, fragment=10_000)
        await self.expect(pair, pair.client, b"x" * 100_000)
        await self.close(pair)
        self.assertEqual((await self.line())["websocket"]["mode"], "streamed")


class StreamTests(ExampleCase):
    name = "websocket-stream"

    async def test_only_the_watched_chat_is_changed(self) -> None:
        for host, got, mode in (("chat.example", "d*** it", "messages"), ("other.example", "darn it", "streamed")):
            pair = await self.visit(host)
            pair.client.send("darn it")
            await self.expect(pair, pair.server, got)
            pair.server.send("Old Product")
            await self.expect(pair, pair.client, "Old Product")
            await self.close(pair)
            self.assertEqual((await self.line())["websocket"]["mode"], mode)

    async def test_bodies_are_changed_all_the_same(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"Old Product")))
        client = ExampleClient(self, Example(self, self.name, origin))
        client.ask_for(b"GET", "http://shop.example/")
        self.assertEqual(client.read_body(client.read_head()), b"New Product")


class WatchTests(ExampleCase):
    name = "websocket-watch"

    async def test_what_both_sides_say_is_on_the_log_whether_it_streams_or_not(self) -> None:
        for host in ("chat.example", "other.example"):
            for compress in (False, True):
                pair = await self.visit(host, "/x", compress)
                await self.wait_for_line(f"http://{host}/x: a WebSocket")
                word = f"hello {compress}"
                pair.client.send(word * 100)
                pair.server.send(b"\xff\x00")
                await self.expect(pair, pair.server, word * 100)
                await self.expect(pair, pair.client, b"\xff\x00")
                size = len(word) * 100
                await self.wait_for_line(f"http://{host}/x: client says (text, {size} bytes): b'{word}{word}")
                await self.wait_for_line(f"http://{host}/x: origin says (binary, 2 bytes): b'\\xff\\x00'")
                pair.client.sendClose(4000 + compress, "done")
                await self.expect(pair, pair.server, Closed(True, 4000 + compress, "done"))
                await self.wait_for_line(f"http://{host}/x: closed, {4000 + compress} done")


class ChangeTests(ExampleCase):
    name = "websocket-script"
    overrides = ("script_options.greet_every=1",)

    async def test_messages_are_changed_and_dropped_and_the_sender_is_told(self) -> None:
        self.proxy = Example(self, self.name, self.server)
        for compress in (False, True):
            pair = await self.visit("chat.example", compress=compress)
            for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
                sender.send("Hello there, Hello")
                await self.expect(pair, receiver, "HELLO there, Hello")
                sender.send("a secret")
                await self.expect(pair, sender, "that was secret, and went nowhere")
                sender.send(b"\xffsecret")
                await self.expect(pair, receiver, b"\xffsecret")

    async def test_the_client_is_greeted_from_time_to_time(self) -> None:
        pair = await self.visit("chat.example")
        greetings = [f"greeting {number} from the proxy" for number in (1, 2)]
        await self.expect(pair, pair.client, *greetings)
        await self.close(pair)
        counted = (await self.line())["websocket"]["origin"]
        self.assertEqual((counted["messages"], counted["injected"]), (0, 2))

    async def test_one_that_streams_is_left_alone(self) -> None:
        pair = await self.visit("video.example")
        pair.client.send("Hello, a secret")
        await self.expect(pair, pair.server, "Hello, a secret")
