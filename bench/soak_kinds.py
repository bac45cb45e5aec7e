"""What the clients of the soak do that ends well, and how often each kind of exchange comes.

A kind is a coroutine that is given a client; it raises `WrongAnswer` where what comes isn't what has to come.
"""

from __future__ import annotations

import gzip
import zlib
from random import Random

from bench.bodies import checksum
from bench.certificates import NAME
from bench.connection import check
from bench.soak_client import BODY, MIB, Client, Kind, small_is_right, tunnel, upgraded, was_taken
from bench.soak_origin import EVENT, TEXT
from bench.soak_stream import Cut, Stream, connect
from bench.soak_wrong import WRONG
from bench.websocket_frames import CLOSE, NORMAL, asked, head_of
from bench.websocket_frames import TEXT as TEXT_FRAME

SECRET = b"sk-0123456789abcdefghijklmn"


async def small(client: Client) -> None:
    small_is_right(*await client.ask(client.head("GET", "/small")))


async def small_and_close(client: Client) -> None:
    stream = await connect(client.ports.proxy)
    await stream.send(client.head("GET", "/small", "Connection: close"))
    head = await stream.head()
    small_is_right(head, await stream.body(head))
    check(await stream.rest() == b"", "there is more behind the answer")
    stream.close()


async def pipelined(client: Client) -> None:
    stream = await client.stream()
    number = client.pick.randint(2, 8)
    await stream.send(b"".join([client.head("GET", f"/small/{n}") for n in range(number)]))
    for _ in range(number):
        head = await stream.head()
        small_is_right(head, await stream.body(head))


async def half_closed(client: Client) -> None:
    stream = await connect(client.ports.proxy)
    await stream.send(client.head("GET", "/small"))
    stream.half_close()
    head = await stream.head()
    small_is_right(head, await stream.body(head))
    stream.close()


async def bodiless(client: Client) -> None:
    stream = await client.stream()
    status = client.pick.choice((204, 304))
    await stream.send(client.head("GET", f"/nothing?status={status}"))
    check((await stream.head()).status == status, "another status")
    await stream.send(client.head("HEAD", "/small"))
    check((await stream.head()).fields.get("content-length") == "600", "another length for HEAD")


def uploads(data: bytes, chunked: bool, pick: Random) -> tuple[str, list[bytes]]:
    """The field for a body, and its wire in parts."""
    if not chunked:
        return f"Content-Length: {len(data)}", [data[at : at + 65536] for at in range(0, len(data), 65536)]
    parts, at = [], 0
    while at < len(data):
        size = pick.randint(1, 65536)
        part = data[at : at + size]
        parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        at += size
    return "Transfer-Encoding: chunked", [*parts, b"0\r\n\r\n"]


async def post(client: Client, size: int, path: str = "/take", *more: str) -> None:
    at = client.pick.randrange(0, MIB - size + 1)
    data = BODY[at : at + size]
    field, parts = uploads(data, client.pick.random() < 0.4, client.pick)
    stream = await client.stream()
    await stream.send(client.head("POST", path, field, *more))
    if more:
        check((await stream.head()).status == 100, "no 100")
    for part in parts:
        await stream.send(part)
    head = await stream.head()
    was_taken(head, await stream.body(head), data)


async def small_post(client: Client) -> None:
    await post(client, client.pick.randint(0, 3000))


async def expecting(client: Client) -> None:
    await post(client, client.pick.randint(1, 3000), "/take", "Expect: 100-continue")


async def large_post(client: Client) -> None:
    await post(client, MIB)


async def held_post(client: Client) -> None:
    await post(client, client.pick.randint(0, 200_000), "/take/held")


async def large_get(client: Client) -> None:
    framing = client.pick.choice(("length", "chunked", "close"))
    path = client.pick.choice(("/down", "/down/held", "/down/captured"))
    head, body = await client.ask(client.head("GET", f"{path}?size={MIB}&framing={framing}"))
    check(head.status == 200 and len(body) == MIB, f"{head.line}, {len(body)} bytes instead of {MIB}")
    check(zlib.crc32(body) == checksum(MIB), "another body came")


async def answered(client: Client) -> None:
    head, body = await client.ask(client.head("GET", "/", host="answered.example"))
    check(head.status == 200 and body == b"answered by a rule", f"{head.line} {body!r}")


async def blocked(client: Client) -> None:
    head, _ = await client.ask(client.head("GET", "/", host="blocked.example"))
    check(head.status == 403, head.line)


async def moved(client: Client) -> None:
    small_is_right(*await client.ask(client.head("GET", "/small", host="moved.example")))


async def replaced(client: Client) -> None:
    head, body = await client.ask(client.head("GET", "/text/replaced"))
    check(head.status == 200 and b"internal" not in body and b"key sk-***" in body, "what was to be replaced wasn't")
    check(body.count(b"\n") == TEXT.count(b"\n"), "lines are missing")


async def replaced_in_gzip(client: Client) -> None:
    head, body = await client.ask(client.head("GET", "/text/replaced?gzip", "Accept-Encoding: gzip"))
    check(head.status == 200 and head.fields.get("content-encoding") == "gzip", f"{head.line}: not coded")
    body = gzip.decompress(body)
    check(b"internal" not in body and b"key sk-***" in body, "what was to be replaced wasn't")


async def generated(client: Client) -> None:
    """Through a script's generator, which the rules that are without scripts don't have."""
    head, body = await client.ask(client.head("GET", "/text/generated"))
    check(head.status == 200 and body in (TEXT, TEXT.swapcase()), f"{head.line}: another text")
    client.count("by a generator" if body != TEXT else "without the generator")


async def hooked(client: Client) -> None:
    """A request that a script's hook sees whole, and changes."""
    data = b"a body for a hook " * client.pick.randint(1, 500)
    stream = await client.stream()
    await stream.send(client.head("POST", "/take/hooked", f"Content-Length: {len(data)}") + data)
    head = await stream.head()
    body = await stream.body(head)
    changed = data.replace(b"hook", b"HOOK")
    found = [each for each in (data, changed) if body == b"%d %08x" % (len(each), zlib.crc32(each))]
    check(head.status == 200 and bool(found), f"{head.line}: another body came to the origin")
    client.count("by a hook" if found[0] is changed else "without the hook")


async def stream_of_events(client: Client) -> None:
    count = client.pick.randint(5, 40)
    path = client.pick.choice(("/events", "/events/asked"))
    head, body = await client.ask(client.head("GET", f"{path}?count={count}&gap=0.05"))
    wanted = b"".join([EVENT % (number, number) for number in range(count)])
    check(head.status == 200 and body == wanted, f"{head.line}: other events")


async def paced(client: Client) -> None:
    small_is_right(*await client.ask(client.head("GET", "/small/paced")))


async def faulty(client: Client) -> None:
    """By a rule every second is reset."""
    stream = await connect(client.ports.proxy)
    await stream.send(client.head("GET", "/down/faulty?size=65536&framing=length"))
    try:
        head = await stream.head()
        check(len(await stream.body(head)) == 65536, "another length")
    except Cut:
        client.count("broken by a rule")
    stream.close()


# HTTPS, tunnels and WebSockets.


async def few_small(client: Client, stream: Stream, netloc: str) -> None:
    for number in range(client.pick.randint(1, 6)):
        await stream.send(f"GET /small/{number} HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode())
        client.exchanges += 1
        head = await stream.head()
        small_is_right(head, await stream.body(head))


async def intercepted(client: Client) -> None:
    """New handshakes, and every second time a resumed one."""
    netloc = f"{NAME}:{client.ports.tls}"
    stream = await tunnel(client, netloc)
    session, client.session = client.session, None
    await stream.secure(client.context, NAME, session)
    client.count("resumed" if stream.resumed else "handshakes")
    await few_small(client, stream, netloc)
    if session is None:
        client.session = stream.session
    if client.pick.random() < 0.8:
        stream.say_goodbye()
    stream.close()


async def passed_on(client: Client) -> None:
    """A tunnel that isn't looked into, with TLS in it or without."""
    secure = client.pick.random() < 0.5
    netloc = f"127.0.0.1:{client.ports.passed if secure else client.ports.plain}"
    stream = await tunnel(client, netloc)
    if secure:
        await stream.secure(client.straight, NAME)
    await few_small(client, stream, netloc)
    stream.close()


async def websocket(client: Client) -> None:
    """Messages that come back; in one of the two ways a rule changes some."""
    read = client.pick.random() < 0.5
    stream = await upgraded(client, "/socket/chat" if read else "/socket/frames")
    for number in range(client.pick.randint(1, 30)):
        said = b"message %d with %b in it" % (number, SECRET)
        await stream.send(asked(TEXT_FRAME, said))
        wanted = said.replace(SECRET, b"sk-***") if read else said
        frame = head_of(TEXT_FRAME, len(wanted)) + wanted
        check(await stream.read(len(frame)) == frame, "another message came back")
    way = client.pick.random()
    if way < 0.7:
        await stream.send(asked(CLOSE, NORMAL))
        check(await stream.read(4) == head_of(CLOSE, 2) + NORMAL, "another close frame")
    elif way < 0.85:
        stream.reset()
    stream.close()


# How often each comes, of a thousand of all kinds.
KINDS: dict[Kind, float] = {
    small: 560,
    small_and_close: 60,
    pipelined: 10,
    half_closed: 10,
    bodiless: 20,
    small_post: 100,
    expecting: 5,
    large_post: 3,
    held_post: 10,
    large_get: 6,
    answered: 50,
    blocked: 10,
    moved: 10,
    replaced: 30,
    replaced_in_gzip: 15,
    generated: 15,
    hooked: 15,
    stream_of_events: 3,
    paced: 5,
    faulty: 3,
    intercepted: 12,
    passed_on: 5,
    websocket: 4,
    **WRONG,
}
