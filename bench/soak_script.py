"""A script for the daemon that is soaked: hooks, a generator, and functions that its rules name."""


def requestheaders(flow):
    if not flow.request.path.startswith(("/take/hooked", "/take/held")):
        flow.request.stream = True


def request(flow):
    if flow.request.path.startswith("/take/hooked"):
        flow.request.content = flow.request.content.replace(b"hook", b"HOOK")


def swapped(chunks):
    for chunk in chunks:
        yield chunk.swapcase()


def responseheaders(flow):
    if flow.request.path.startswith("/text/generated"):
        flow.response.stream = swapped


async def websocket_message(flow):
    assert flow.websocket.messages[-1].content is not None


def on_event(event):
    return event
