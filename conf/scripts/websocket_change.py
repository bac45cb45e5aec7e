"""Changes what WebSockets say, drops some of it, and says something itself: listed under `scripts:`.

`websocket_message` is called for each message before it goes on, for those that a script injects as well. Content is
bytes; a text message's is also there as `text`.
"""

import asyncio
import re

from streamproxy.scripts import ctx


def load(loader):
    loader.add_option("greet_every", int, 60, "seconds between two greetings")


def websocket_start(flow):
    if not flow.websocket.streamed:
        flow.metadata["greeting"] = asyncio.create_task(greet(flow))


async def greet(flow):
    """Say hello to the client from time to time."""
    number = 0
    while True:
        await asyncio.sleep(ctx.options.greet_every)
        number += 1
        try:
            flow.websocket.inject(True, f"greeting {number} from the proxy")
        except ValueError:  # it is closing
            return


def websocket_message(flow):
    message = flow.websocket.messages[-1]
    if message.injected or message.streamed:
        return
    message.content = re.sub(rb"^Hello", b"HELLO", message.content)
    if message.is_text and "secret" in message.text:
        message.drop()
        # The sender is told, and nobody else.
        flow.websocket.inject(message.from_client, "that was secret, and went nowhere")


def websocket_end(flow):
    if "greeting" in flow.metadata:
        flow.metadata.pop("greeting").cancel()
