"""Scripts that have a say on WebSockets, in a real daemon, with autobahn's client and server as the peers."""

from __future__ import annotations

import time

from twisted.internet.threads import deferToThread

from tests.system.parts import new_folder
from tests.system.websocket_peers import MESSAGES, STREAMS, Closed, Pair, WebSocketCase


class ScriptCase(WebSocketCase):
    def start_script(self, script: str, *overrides: str) -> None:
        """A proxy with `script`."""
        folder = new_folder(self)
        (folder / "script.py").write_text(script)
        self.start((), *overrides, folder=folder, top="scripts: [script.py]\n")

    async def pair(self, path: str = MESSAGES, way: str = "absolute", compress: bool = False) -> Pair:
        async for pair in self.pairs([way], [path], compress=compress):
            return pair
        raise AssertionError("there is one")

    async def wait_for_lines(self, *lines: str) -> None:
        """Wait for lines on the log, each of which has one of `lines`."""
        for words in lines:
            await deferToThread(
                self.proxy.wait_for, lambda seen, words=words: any(words in line for line in seen), f"{words!r}"
            )

    async def expect_end(self, pair: Pair, clean: bool, code: int) -> None:
        """Both sides see the end next, in this way."""
        for peer in (pair.client, pair.server):
            got = await peer.next()
            assert isinstance(got, Closed), f"{got!r}\n{self.proxy.output}"
            self.assertEqual(got[:2], (clean, code), f"{got}\n{self.proxy.output}")


class ChangingTests(ScriptCase):
    async def test_a_hook_changes_and_drops_messages_and_answers_their_sender(self) -> None:
        # What mitmproxy's users write, but for where they import from.
        self.start_script(
            "import re\n"
            "from streamproxy.scripts import ctx, http\n"
            "def websocket_message(flow: http.HTTPFlow):\n"
            "    assert flow.websocket is not None\n"
            "    message = flow.websocket.messages[-1]\n"
            "    message.content = re.sub(rb'^Hi', b'Good morning', message.content)\n"
            "    if message.is_text and 'password' in message.text:\n"
            "        message.drop()\n"
            "        ctx.master.commands.call('inject.websocket', flow, message.from_client, b'not that')\n"
            "    if message.content == b'kill me':\n"
            "        message.kill()\n"
        )
        for compress in (False, True):
            async for pair in self.pairs(paths=[MESSAGES], compress=compress):
                for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
                    sender.send("Hi there, Hi", fragment=5)
                    await self.expect(pair, receiver, "Good morning there, Hi")
                    sender.send("my password is secret")
                    sender.send(b"kill me")
                    sender.send(b"\xff password")
                    await self.expect(pair, sender, "not that")
                    await self.expect(pair, receiver, b"\xff password")
                await self.close(pair)
                said = (await self.line())["websocket"]
                for side in ("client", "origin"):
                    counted = said[side]
                    self.assertEqual((counted["messages"], counted["dropped"], counted["injected"]), (4, 2, 1))

    async def test_a_task_injects_for_as_long_as_it_lasts(self) -> None:
        self.start_script(
            "import asyncio\n"
            "from streamproxy.scripts import ctx\n"
            "tasks = set()\n"
            "async def tell(flow):\n"
            "    number = 0\n"
            "    while flow.websocket.timestamp_end is None:\n"
            "        ctx.master.commands.call('inject.websocket', flow, True, b'tick %d' % number)\n"
            "        flow.websocket.inject(False, bytes([number]))\n"
            "        number += 1\n"
            "        await asyncio.sleep(0.3)\n"
            "    print('the task is done')\n"
            "def websocket_start(flow):\n"
            "    task = asyncio.create_task(tell(flow))\n"
            "    tasks.add(task)\n"
            "    task.add_done_callback(tasks.discard)\n"
        )
        async for pair in self.pairs(paths=[MESSAGES]):
            for number in range(3):
                await self.expect(pair, pair.client, f"tick {number}")
                await self.expect(pair, pair.server, bytes([number]))
            pair.client.send("between")
            await self.expect(pair, pair.server, "between")
            pair.client.lose()
            await self.line()
        await self.wait_for_lines("the task is done")

    async def test_a_task_that_is_given_a_flow_later_knows_that_it_is_over(self) -> None:
        self.start_script(
            "import asyncio\n"
            "kept = []\n"
            "async def websocket_end(flow):\n"
            "    try:\n"
            "        flow.websocket.inject(True, 'too late')\n"
            "    except ValueError as error:\n"
            "        print('refused:', error)\n"
        )
        pair = await self.pair()
        await self.close(pair)
        await self.wait_for_lines("refused: nothing can be injected")

    async def test_what_is_known_of_the_messages_is_there_at_the_end(self) -> None:
        self.start_script(
            "def websocket_start(flow):\n"
            "    print('start', flow.websocket.messages, flow.response.status_code)\n"
            "def websocket_end(flow):\n"
            "    said = flow.websocket\n"
            "    for each in said.messages:\n"
            "        print('said', each.from_client, each.type.name, each.size, each.content[:9], each.cut)\n"
            "    print('end', said.closed_by_client, said.close_code, said.close_reason, said.timestamp_end > 0)\n",
            "limits.capture=1k",
        )
        for path in (MESSAGES, STREAMS):
            pair = await self.pair(path)
            pair.client.send("one")
            await self.expect(pair, pair.server, "one")
            pair.server.send(b"two" * 1000)
            await self.expect(pair, pair.client, b"two" * 1000)
            pair.server.sendClose(4321, "seen")
            await self.expect(pair, pair.client, Closed(True, 4321, "seen"))
            await self.line()
        seen = [line.partition("script: ")[2] or line for line in self.proxy.lines]
        told = [line[line.index(word) :] for line in seen for word in ("start [", "said ", "end ") if word in line]
        # A window of 1 KiB has no room for both: the older goes.
        each = ["start [] 101", "said False BINARY 3000 b'twotwotwo' True", "end False 4321 seen True"]
        self.assertEqual(told, each * 2)


class WaitingTests(ScriptCase):
    async def test_a_hook_that_waits_keeps_its_own_direction_waiting(self) -> None:
        self.start_script(
            "import asyncio\n"
            "may_go = asyncio.Event()\n"
            "async def websocket_message(flow):\n"
            "    message = flow.websocket.messages[-1]\n"
            "    if message.from_client and message.text == 'wait':\n"
            "        await may_go.wait()\n"
            "        message.text = 'waited'\n"
            "    if message.text == 'go':\n"
            "        may_go.set()\n"
        )
        pair = await self.pair("/messages/", "wss")
        pair.client.send("wait")
        pair.client.send("behind it")
        pair.server.send("the other way")
        await self.expect(pair, pair.client, "the other way")
        other = await self.pair()
        other.client.send("another one")
        await self.expect(other, other.server, "another one")
        pair.server.send("go")
        await self.expect(pair, pair.server, "waited", "behind it")

    async def test_nothing_goes_before_the_hook_for_the_beginning_is_through(self) -> None:
        self.start_script("import asyncio\nasync def websocket_start(flow):\n    await asyncio.sleep(1)\n")
        for path in (MESSAGES, STREAMS):
            for begins in ("client", "server"):
                since = time.monotonic()
                pair = await self.pair(path)
                first, other = (pair.client, pair.server) if begins == "client" else (pair.server, pair.client)
                first.send("first")
                await self.expect(pair, other, "first")
                self.assertGreaterEqual(time.monotonic() - since, 1)


class FailingTests(ScriptCase):
    """A hook that fails ends its own WebSocket, by 1011 for both sides, and nobody else's."""

    async def assert_ends_alone(self, script: str, words: str, *overrides: str, path: str = MESSAGES) -> None:
        self.start_script(script, *overrides)
        other = await self.pair()
        pair = await self.pair(path)
        pair.client.send("fine")
        await self.expect(pair, pair.server, "fine")
        pair.client.send("fail")
        if path == STREAMS:
            await self.expect(pair, pair.server, "fail")
        await self.expect_end(pair, True, 1011)
        line = await self.line()
        self.assertEqual(line["outcome"], "failed")
        self.assertIn(words, line["error"])
        self.assertEqual((line["websocket"]["close"]["code"], line["websocket"]["close"]["by"]), (1011, "proxy"))
        other.client.send("still here")
        await self.expect(other, other.server, "still here")

    async def test_one_that_raises(self) -> None:
        await self.assert_ends_alone(
            "def websocket_message(flow):\n    if flow.websocket.messages[-1].text == 'fail':\n        1 / 0\n",
            "script.py:websocket_message raised ZeroDivisionError: division by zero (line 3)",
        )

    async def test_one_that_never_ends(self) -> None:
        await self.assert_ends_alone(
            "def websocket_message(flow):\n"
            "    if flow.websocket.messages[-1].text == 'fail':\n"
            "        while True: pass\n",
            "websocket_message didn't end, and was interrupted after 0.5 s (line 3)",
            "timeouts.script=0.5",
        )

    async def test_one_that_makes_a_text_what_is_none(self) -> None:
        await self.assert_ends_alone(
            "def websocket_message(flow):\n"
            "    message = flow.websocket.messages[-1]\n"
            "    if message.text == 'fail':\n"
            "        message.content = b'\\xff'\n",
            "a text that was changed isn't UTF-8 any more",
        )

    async def test_one_that_changes_what_streams(self) -> None:
        await self.assert_ends_alone(
            "def websocket_message(flow):\n"
            "    message = flow.websocket.messages[-1]\n"
            "    if message.text == 'fail':\n"
            "        message.content = b'changed'\n",
            "messages of a WebSocket that streams can't be changed",
            path=STREAMS,
        )

    async def test_one_that_kills_its_flow_ends_both_connections_without_a_word(self) -> None:
        self.start_script(
            "def websocket_message(flow):\n    if flow.websocket.messages[-1].text == 'fail':\n        flow.kill()\n"
        )
        for way in ("absolute", "wss"):
            pair = await self.pair(way=way)
            pair.client.send("fail")
            await self.expect_end(pair, False, 1006)
            line = await self.line()
            self.assertEqual((line["outcome"], line["error"]), ("failed", "killed by a script"))
