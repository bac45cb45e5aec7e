"""What goes wrong on purpose in the soak: origins and clients that end in the middle, hang, are slow, or speak no HTTP.

What is cut has to look cut.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib

from bench.bodies import checksum
from bench.certificates import NAME
from bench.connection import WrongAnswer, check
from bench.soak_client import BODY, MIB, Client, Kind, tunnel, upgraded, was_taken
from bench.soak_stream import Cut, Head, Stream, connect
from bench.websocket_frames import TEXT, asked

# Longer than the daemon's own deadline, which has to be what ends it.
MOST_WAIT = 15.0


async def unreachable(client: Client) -> None:
    head, _ = await client.ask(client.head("GET", "/", port=client.ports.refusing))
    check(head.status == 502, head.line)


async def hanging(client: Client) -> None:
    part = client.pick.random() < 0.5
    stream = await connect(client.ports.proxy)
    await stream.send(client.head("GET", "/hang?begun" if part else "/hang"))
    head = await asyncio.wait_for(stream.head(), MOST_WAIT)
    check(head.status == (200 if part else 504), head.line)
    if part:
        await cut_off(stream, head)
    stream.close()


async def cut_off(stream: Stream, head: Head) -> None:
    """The body behind `head` has to be cut short."""
    try:
        await stream.body(head)
    except Cut:
        return
    raise WrongAnswer("a body that was cut looks whole")


async def origin_ends_in_its_head(client: Client) -> None:
    how = client.pick.choice(("fin", "rst"))
    head, _ = await client.ask(client.head("GET", f"/head-cut?cut={client.pick.randint(0, 20)}&how={how}"))
    check(head.status == 502, head.line)


async def origin_ends_in_its_body(client: Client) -> None:
    how, cut = client.pick.choice(("fin", "rst")), client.pick.randint(0, 100_000)
    framing = client.pick.choice(("length", "chunked"))
    stream = await connect(client.ports.proxy)
    await stream.send(client.head("GET", f"/down?size=200000&framing={framing}&cut={cut}&how={how}"))
    try:
        head = await stream.head()
    except Cut:
        stream.close()
        return
    if head.status == 200:
        await cut_off(stream, head)
    else:
        # The reset came before the head was read.
        check(head.status == 502, head.line)
    stream.close()


async def origin_says_nonsense(client: Client) -> None:
    head, _ = await client.ask(client.head("GET", f"/wrong?number={client.pick.randint(0, 9)}"))
    check(head.status == 502, head.line)


MALFORMED = (
    b"\0" * 50 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n",
    b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: " + b"y" * 100_000,
)


async def malformed(client: Client) -> None:
    stream = await connect(client.ports.proxy)
    await stream.send(client.pick.choice(MALFORMED))
    client.exchanges += 1
    head = await stream.head()
    check(head.status in (400, 431), head.line)
    await stream.rest()
    stream.close()


def leave(client: Client, stream: Stream) -> None:
    """End the connection in one of the ways in which clients do."""
    if client.pick.random() < 0.5:
        stream.reset()
    else:
        stream.close()


async def leaves_in_its_head(client: Client) -> None:
    stream = await connect(client.ports.proxy)
    head = client.head("GET", "/small")
    await stream.send(head[: client.pick.randint(0, len(head) - 1)])
    leave(client, stream)


async def leaves_in_its_body(client: Client) -> None:
    stream = await connect(client.ports.proxy)
    path = client.pick.choice(("/take", "/take/held", "/take/hooked"))
    await stream.send(client.head("POST", path, "Content-Length: 300000"))
    await stream.send(BODY[: client.pick.randint(0, 299_999)])
    await asyncio.sleep(client.pick.random() * 0.02)
    leave(client, stream)


async def leaves_in_the_response(client: Client) -> None:
    stream = await connect(client.ports.proxy, client.pick.choice((None, 4096)))
    path = client.pick.choice(("/down", "/down/captured", "/down/held", "/events/asked"))
    query = f"size={MIB}&framing={client.pick.choice(('length', 'chunked', 'close'))}&count=100&gap=0.02"
    await stream.send(client.head("GET", f"{path}?{query}"))
    if client.pick.random() < 0.8:
        await stream.more()
        await asyncio.sleep(client.pick.random() * 0.05)
    leave(client, stream)


async def leaves_in_the_handshake(client: Client) -> None:
    stream = await tunnel(client, f"{NAME}:{client.ports.tls}")
    await stream.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[: client.pick.randint(0, 9)])
    leave(client, stream)


async def reads_slowly(client: Client) -> None:
    """Little at a time: the proxy has to wait for it, and its origin for the proxy."""
    stream = await connect(client.ports.proxy, 8192)
    await stream.send(client.head("GET", f"/down?size={MIB}&framing=length"))
    head = await stream.head()
    left, found = MIB, 0
    for _ in range(8):
        data = stream.take(min(left, len(stream.buffer)))
        found, left = zlib.crc32(data, found), left - len(data)
        stream.transport.pause_reading()
        await asyncio.sleep(0.2)
        stream.transport.resume_reading()
        await stream.more()
    found = zlib.crc32(await stream.read(left), found)
    check(head.status == 200 and found == checksum(MIB), "another body came")
    stream.close()


async def sends_slowly(client: Client) -> None:
    stream = await client.stream()
    data = BODY[:2000]
    await stream.send(client.head("POST", "/take", f"Content-Length: {len(data)}"))
    for at in range(0, len(data), 200):
        await stream.send(data[at : at + 200])
        await asyncio.sleep(0.1)
    head = await stream.head()
    was_taken(head, await stream.body(head), data)


async def refused_handshake(client: Client) -> None:
    """A client that doesn't trust the proxy's authority."""
    stream = await tunnel(client, f"{NAME}:{client.ports.tls}")
    try:
        await stream.secure(client.straight, NAME)
    except (ssl.SSLError, Cut):
        client.count("handshakes that failed")
    else:
        raise WrongAnswer("somebody else's certificate was trusted")
    stream.close()


async def websocket_cut(client: Client) -> None:
    """The origin's connection ends in the middle."""
    stream = await upgraded(client, f"/socket/chat?cut=100&how={client.pick.choice(('fin', 'rst'))}")
    for number in range(20):
        await stream.send(asked(TEXT, b"message %d" % number))
    await stream.rest()
    stream.close()


# How often each comes, of a thousand of all kinds.
WRONG: dict[Kind, float] = {
    refused_handshake: 1,
    websocket_cut: 1,
    unreachable: 5,
    hanging: 0.7,
    origin_ends_in_its_head: 5,
    origin_ends_in_its_body: 5,
    origin_says_nonsense: 3,
    malformed: 6,
    leaves_in_its_head: 4,
    leaves_in_its_body: 4,
    leaves_in_the_response: 4,
    leaves_in_the_handshake: 1,
    reads_slowly: 0.7,
    sends_slowly: 0.7,
}
