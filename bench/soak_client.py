"""A client of the soak: the connection that it keeps, what it counts, and what kinds of exchanges share."""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

from bench.bodies import rounds
from bench.connection import check
from bench.soak_origin import SMALL
from bench.soak_stream import Head, Stream, connect
from bench.websocket_frames import accept

MIB = 1 << 20
BODY = b"".join([bytes(part) for part in rounds(MIB)])
# Behind it the daemon may be about to end the connection, and a request would cross with that; in seconds.
MOST_IDLE = 2.0
# What a client says who asks for a WebSocket: always the same.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Ports(NamedTuple):
    """Where everything is. What goes to `passed` isn't intercepted; nobody listens on `refusing`."""

    proxy: int
    plain: int
    tls: int
    passed: int
    refusing: int


class Client:
    """One of those who use the proxy, with the connection that it keeps, if it has one. `counts` is by outcome."""

    def __init__(self, ports: Ports, context: ssl.SSLContext, trusting: ssl.SSLContext, pick: Random) -> None:
        self.ports = ports
        # Trusts the proxy's authority; and that of the origin.
        self.context = context
        self.straight = trusting
        self.pick = pick
        self.kept: Stream | None = None
        self._used = 0.0
        self.session: ssl.SSLSession | None = None
        self.counts: dict[str, int] = {}
        self.exchanges = 0

    def count(self, outcome: str) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    async def stream(self) -> Stream:
        """The connection that is kept, or a new one."""
        now = time.monotonic()
        idle, self._used = now - self._used, now
        if self.kept is not None and not self.kept.ended and not self.kept.buffer and idle < MOST_IDLE:
            return self.kept
        self.forget()
        self.kept = await connect(self.ports.proxy)
        return self.kept

    def forget(self) -> None:
        """Don't use this connection again."""
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    def head(self, method: str, path: str, *fields: str, port: int | None = None, host: str = "") -> bytes:
        """A request's head, as a proxy's client writes it."""
        netloc = host or f"127.0.0.1:{port or self.ports.plain}"
        lines = [f"{method} http://{netloc}{path} HTTP/1.1", f"Host: {netloc}", *fields, "", ""]
        self.exchanges += 1
        return "\r\n".join(lines).encode()

    async def ask(self, request: bytes) -> tuple[Head, bytes]:
        """Ask on the connection that is kept, and read the answer."""
        stream = await self.stream()
        await stream.send(request)
        head = await stream.head()
        body = await stream.body(head)
        if "close" in head.fields.get("connection", "") or "content-length" not in head.fields:
            if head.fields.get("transfer-encoding") != "chunked":
                self.forget()
        return head, body


Kind = Callable[[Client], Awaitable[None]]


def small_is_right(head: Head, body: bytes) -> None:
    check(head.status == 200 and body == SMALL, f"{head.line}, {len(body)} bytes instead of 600")


def was_taken(head: Head, body: bytes, sent: bytes) -> None:
    wanted = b"%d %08x" % (len(sent), zlib.crc32(sent))
    check(head.status == 200 and body == wanted, f"{head.line}, {body[:80]!r}: another body came to the origin")


async def tunnel(client: Client, netloc: str) -> Stream:
    stream = await connect(client.ports.proxy)
    await stream.send(f"CONNECT {netloc} HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode())
    head = await stream.head()
    check(head.status == 200, f"CONNECT: {head.line}")
    return stream


async def upgraded(client: Client, path: str) -> Stream:
    stream = await connect(client.ports.proxy)
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    await stream.send(client.head("GET", path, *fields))
    head = await stream.head()
    check(head.status == 101 and head.fields.get("sec-websocket-accept") == accept(KEY), head.line)
    return stream
