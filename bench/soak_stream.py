"""One end of a connection for the soak, on asyncio: what its clients and its origin both are made of.

Deliberately small, and not made of streamproxy's own parts: it checks them. It isn't fast where the others of these
measurements are, and it can go wrong on purpose: reset, end in the middle, read slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import NamedTuple

from bench.connection import WrongAnswer, check

# How long anything may take that isn't slow on purpose, in seconds.
WAIT = 40.0
# What is written and not yet taken, before a sender waits.
MOST_WAITING = 64 << 10


class Cut(WrongAnswer):
    """The connection ended, or was reset, before all was there."""


class Head(NamedTuple):
    """A message's head: its first line, and its fields by lower-case name."""

    line: str
    fields: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.line.split()[1])


class Stream(asyncio.Protocol):
    """`buffer` is what came and wasn't read yet."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = False
        self.was_reset = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(MOST_WAITING)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._tls is None:
            self.buffer += data
        else:
            self._came.write(data)
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        # Over a plain socket our own side stays open.
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.was_reset = self.was_reset or error is not None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Reading.

    async def more(self) -> bool:
        """Wait until there is more in `buffer`; whether there is, for the other side may have ended."""
        before = len(self.buffer)
        while True:
            if self._tls is not None:
                self._decrypt()
            if len(self.buffer) > before:
                return True
            if self.ended:
                return False
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self, number: int) -> bytes:
        taken = bytes(self.buffer[:number])
        del self.buffer[:number]
        return taken

    async def read(self, number: int) -> bytes:
        """The next `number` bytes."""
        while len(self.buffer) < number:
            if not await self.more():
                raise Cut(f"the connection ended {number - len(self.buffer)} bytes early")
        return self.take(number)

    async def until(self, end: bytes) -> bytes:
        """All up to and with `end`."""
        at = 0
        while (found := self.buffer.find(end, at)) < 0:
            at = max(0, len(self.buffer) - len(end))
            if not await self.more():
                raise Cut(f"the connection ended before {end!r}: {bytes(self.buffer[:200])!r}")
        return self.take(found + len(end))

    async def rest(self) -> bytes:
        """All up to the other side's end."""
        while await self.more():
            pass
        return self.take(len(self.buffer))

    async def head(self) -> Head:
        first, *lines = (await self.until(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return Head(first, fields)

    async def body(self, head: Head, is_request: bool = False) -> bytes:
        """The content of the body behind `head`; raises `Cut` where it is cut short."""
        if (length := head.fields.get("content-length")) is not None:
            return await self.read(int(length))
        if head.fields.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(await self.until(b"\r\n"), 16):
                parts.append((await self.read(size + 2))[:-2])
            check(await self.until(b"\r\n") == b"\r\n", "there are trailers that nobody sent")
            return b"".join(parts)
        return b"" if is_request else await self.rest()

    # Writing, and ends.

    def write(self, data: bytes) -> None:
        """Send, without waiting; what can't be sent any more is dropped."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._leaves.read()
        if not self.transport.is_closing():
            self.transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send, and wait for room for more."""
        self.write(data)
        if self._room is not None:
            await self._room

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.transport.write_eof()

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """End it with a reset."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # TLS, as a client; a server's is asyncio's own.

    async def secure(self, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None) -> None:
        """Speak TLS from now on, with whom `name` stands for, resuming `session`."""
        check(not self.buffer, "there is something before the handshake")
        tls = context.wrap_bio(self._came, self._leaves, server_hostname=name, session=session)
        self._tls = tls
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if self.ended:
                    raise Cut("the connection ended in the handshake") from None
                self._waiter = self._loop.create_future()
                await self._waiter
                self._waiter = None
            else:
                self._flush()
                return

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection may resume."""
        return None if self._tls is None else self._tls.session

    @property
    def resumed(self) -> bool:
        return self._tls is not None and bool(self._tls.session_reused)

    def say_goodbye(self) -> None:
        """Send a close_notify."""
        assert self._tls is not None
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._leaves.pending and not self.transport.is_closing():
            self.transport.write(self._leaves.read())

    def _decrypt(self) -> None:
        assert self._tls is not None
        try:
            while data := self._tls.read(65536):
                self.buffer += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.ended = True
        self._flush()


async def connect(port: int, buffer: int | None = None) -> Stream:
    """A connection to a port of this machine; `buffer` is the size of the kernel's buffer for what comes."""
    sock = socket.socket()
    sock.setblocking(False)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, stream = await loop.create_connection(Stream, sock=sock)
    except BaseException:
        sock.close()
        raise
    return stream
