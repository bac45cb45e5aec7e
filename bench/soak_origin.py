"""The origin of the soak, a process of its own: `python -m bench.soak_origin CERTIFICATE` prints its ports.

What it does is in the path that is asked for, and much of it is wrong on purpose: it ends in the middle, by FIN or by
RST, hangs, or says what is no HTTP. One port is plain, two speak TLS: the last is for what isn't intercepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import sys
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl

from bench.bodies import STAMPED, Pattern, writes
from bench.connection import WrongAnswer
from bench.parts import want_files
from bench.soak_stream import Head, Stream
from bench.websocket_frames import CLOSE, accept, echoed

SMALL = b"x" * 600
TEXT = b"".join(
    b"line %d of a page at http://internal.example/%d, with the key sk-%032d\n" % (n, n, n) for n in range(40)
)
GZIPPED = gzip.compress(TEXT, 6)
EVENT = b'id: %d\ndata: {"number": %d}\n\n'
# Bodies that are asked for again and again, made once.
_made: dict[tuple[int, bool], list[bytes]] = {}

Asked = dict[str, str]
Answer = Callable[[Stream, Head, bytes, Asked], Awaitable[bool]]


def plain(body: bytes, *fields: bytes) -> bytes:
    """A response with a length."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields, b"", body])


def begun(*fields: bytes) -> bytes:
    """The head of a chunked response."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *fields, b"", b""])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


SMALL_ANSWER = plain(SMALL)
TEXT_ANSWER = begun(b"Content-Type: text/plain") + b"".join(
    chunk(TEXT[at : at + 700]) for at in range(0, len(TEXT), 700)
)
TEXT_ANSWER += b"0\r\n\r\n"
GZIP_ANSWER = plain(GZIPPED, b"Content-Type: text/plain", b"Content-Encoding: gzip")


async def small(stream: Stream, _head: Head, _body: bytes, _asked: Asked) -> bool:
    stream.write(SMALL_ANSWER)
    return True


async def text(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    stream.write(GZIP_ANSWER if "gzip" in asked else TEXT_ANSWER)
    return True


async def take(stream: Stream, _head: Head, body: bytes, _asked: Asked) -> bool:
    stream.write(plain(b"%d %08x" % (len(body), zlib.crc32(body))))
    return True


async def nothing(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    stream.write(b'HTTP/1.1 %b Nothing\r\nETag: "1"\r\n\r\n' % asked["status"].encode())
    return True


async def down(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    """A body of `size` bytes in the `framing` that is wanted; at `cut` bytes it ends, by `how`."""
    size, framing = int(asked["size"]), asked["framing"]
    if framing == "chunked":
        stream.write(begun(b"Content-Type: application/octet-stream"))
    elif framing == "length":
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    else:
        stream.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    key = (size, framing == "chunked")
    if key not in _made:
        _made[key] = [bytes(each) for each in writes(size, Pattern(STAMPED // 4, STAMPED // 4), key[1])]
    left = int(asked.get("cut", 1 << 60))
    for each in _made[key]:
        await stream.send(each[:left])
        left -= len(each)
        if left <= 0:
            return end(stream, asked["how"])
        if stream.ended:
            return False
    return framing != "close"


def end(stream: Stream, how: str) -> bool:
    if how == "rst":
        stream.reset()
    return False


async def head_cut(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    """End inside of the response's head, or before it."""
    stream.write(b"HTTP/1.1 200 OK\r\nContent-Le"[: int(asked["cut"])])
    return end(stream, asked["how"])


async def hang(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    """Say nothing, or a part of the body and then nothing, until the other side has had enough."""
    if "begun" in asked:
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
    await stream.rest()
    return False


async def wrong(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    """What is no response."""
    answers = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked, chunked\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\0" * 200,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    )
    stream.write(answers[int(asked["number"]) % len(answers)])
    return False


async def events(stream: Stream, _head: Head, _body: bytes, asked: Asked) -> bool:
    """Server-sent events, `gap` seconds apart."""
    stream.write(begun(b"Content-Type: text/event-stream"))
    for number in range(int(asked["count"])):
        await stream.send(chunk(EVENT % (number, number)))
        await asyncio.sleep(float(asked["gap"]))
        if stream.ended:
            return False
    stream.write(b"0\r\n\r\n")
    return True


async def socket(stream: Stream, head: Head, _body: bytes, asked: Asked) -> bool:
    """A WebSocket that gives back what it gets; behind so many bytes (`cut`) it ends."""
    key = accept(head.fields["sec-websocket-key"])
    fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
    stream.write(f"HTTP/1.1 101 Switching Protocols\r\n{fields}".encode())
    left = int(asked.get("cut", 1 << 60))
    while await stream.more() or stream.buffer:
        closes = stream.buffer[0] == CLOSE
        data, used = echoed(bytes(stream.buffer))
        if not used:
            continue
        stream.take(used)
        left -= used
        if left <= 0:
            return end(stream, asked["how"])
        await stream.send(data)
        if closes:
            return False
    return False


ANSWERS: dict[str, Answer] = {
    "small": small,
    "text": text,
    "take": take,
    "nothing": nothing,
    "down": down,
    "head-cut": head_cut,
    "hang": hang,
    "wrong": wrong,
    "events": events,
    "socket": socket,
}


async def serve(stream: Stream) -> None:
    """Answer the requests of one connection. The first word of a path says how, whatever stands behind it."""
    with contextlib.suppress(WrongAnswer, OSError):
        while stream.buffer or await stream.more():
            head = await stream.head()
            method, target, _version = head.line.split()
            path, _, query = target.partition("?")
            if head.fields.get("expect") == "100-continue":
                stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await stream.body(head, is_request=True)
            if method == "HEAD":
                stream.write(SMALL_ANSWER[: -len(SMALL)])
                continue
            answer = ANSWERS[path.split("/")[1]]
            if not await answer(stream, head, body, dict(parse_qsl(query, keep_blank_values=True))):
                break
    stream.close()


class Served(Stream):
    """A connection that is answered by a task of its own."""

    tasks: set[asyncio.Task[None]]

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self.tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = self._loop.create_task(serve(self))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def main() -> None:
    want_files(65536)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1])
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    for name, context in (("plain", None), ("tls", tls), ("passed", tls)):
        server = await loop.create_server(partial(Served, tasks), "127.0.0.1", 0, ssl=context, backlog=4096)
        print(name, server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
