"""Micro-benchmarks of WebSocket: frames read, messages read and written anew, and echoes through the whole relay."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.task import Clock

from bench.connection import check
from bench.micro_bodies import READ, TEXT
from bench.micro_exchange import Peer, PoolOfPeers
from bench.micro_heads import VIA
from bench.websocket_frames import BINARY, COMPRESSED, SMALL, Small, accept, asked, echoed
from bench.websocket_frames import TEXT as TEXT_FRAME
from streamproxy.filters.message_deflate import Deflate, Inflate, Terms
from streamproxy.filters.messages import Message, MessageReader, MessageWriter
from streamproxy.journal import Journal
from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.proxy import Proxy
from streamproxy.settings import load
from streamproxy.wire.websocket import FrameReader

MANY = 400
MOST = 16 << 20
KEY = "AAECAwQFBgcICQoLDA0ODw=="
REQUEST = (
    "GET http://127.0.0.1:8000/echo HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()
ALONE = Terms(no_context_takeover=True)


def large_frame() -> bytes:
    """A frame of 64 KiB from a client."""
    key = b"\x5a\xc3\x96\x3f"
    payload = bytes(byte ^ key[at & 3] for at, byte in enumerate(TEXT))
    return b"\x82\xff" + READ.to_bytes(8, "big") + key + payload


def deflated(size: int) -> bytes:
    """A client's message of `size` bytes that is compressed by itself."""
    coder = zlib.compressobj(wbits=-15)
    data = coder.compress(TEXT[:size]) + coder.flush(zlib.Z_SYNC_FLUSH)
    check(len(data) < 130, "too long for a small frame")
    return asked(BINARY | COMPRESSED, data.removesuffix(b"\0\0\xff\xff"))


def frames(data: bytes, count: int) -> Callable[[], object]:
    """Read frames, which come at once, by their parts."""
    reader = FrameReader(True)

    def read() -> int:
        found = 0
        for _part in reader.feed(data):
            found += 1
        return found

    check(read() == count and reader.between and reader.error is None, "other frames were read")
    return read


def messages(data: bytes, count: int, compressed: bool = False) -> Callable[[], object]:
    """Read a client's messages, which come at once, and write them for an origin."""
    reader = MessageReader(True, MOST, Inflate(ALONE) if compressed else None)
    writer = MessageWriter(partial(bytes, 4), Deflate(ALONE) if compressed else None)

    def made() -> Iterator[bytes]:
        for event in reader.feed(data):
            if isinstance(event, Message):
                pieces: Any = writer.message(event)
                for piece in pieces:
                    if piece:
                        yield piece

    def read() -> int:
        found = 0
        for piece in made():
            found += len(piece)
        return found

    written = b"".join(made())
    # Another compressor needn't find the same bytes.
    check(written == data or (compressed and read() == len(written)), "other messages were written")
    check(not reader.in_message and reader.error is None, "not all messages were read")
    return read


def echo(streams: bool, count: int) -> Callable[[], object]:
    """So many small messages in one read, through the whole relay there and back."""
    settings = load(os.devnull, ["stream_websockets=true"] if streams else [])
    clock: Any = Clock()
    pool = PoolOfPeers(clock, settings)
    proxy = Proxy(settings, pool, Journal(lambda _text: None, clock), clock, VIA)
    protocol = DownstreamFactory(proxy).buildProtocol(None)
    client = Peer(protocol)
    client.kept = []
    protocol.dataReceived(REQUEST)
    origin = pool.made[0]
    origin.protocol.dataReceived(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept(KEY).encode()
    )
    clock.advance(0)
    check(b"".join(client.kept).startswith(b"HTTP/1.1 101 "), f"it is answered by {client.kept!r}")
    there = Small().frames(count)
    back, _used = echoed(there)
    client.kept, origin.kept = [], []

    def run() -> None:
        protocol.dataReceived(there)
        pool.made[0].protocol.dataReceived(back)

    run()
    check((b"".join(origin.kept), b"".join(client.kept)) == (there, back), "other messages came")
    client.kept = origin.kept = None
    expected = client.written

    def run_checked() -> None:
        nonlocal expected
        expected += count * (SMALL + 2)
        run()
        if client.written != expected:
            raise AssertionError("a message went another way")

    return run_checked


_small = Small().frames(MANY)
_first = asked(TEXT_FRAME, random.Random(3).randbytes(SMALL).hex().encode()[:SMALL])
PIECES: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
    ("websocket frames: a small one, read", partial(frames, _first, 1)),
    (f"websocket frames: {MANY} small ones, read", partial(frames, _small, MANY)),
    ("websocket frames: one of 64 KiB, read", lambda: frames(large_frame(), 1)),
    ("websocket messages: a small one, read and written", partial(messages, _first, 1)),
    (f"websocket messages: {MANY} small ones, read and written", partial(messages, _small, MANY)),
    ("websocket messages: one of 64 KiB, read and written", lambda: messages(large_frame(), 1)),
    ("websocket messages: 100 bytes, inflated and deflated", lambda: messages(deflated(100), 1, True)),
    ("websocket echo: a small message", partial(echo, False, 1)),
    (f"websocket echo: {MANY} small messages", partial(echo, False, MANY)),
    ("websocket echo: a small message, streaming", partial(echo, True, 1)),
    (f"websocket echo: {MANY} small messages, streaming", partial(echo, True, MANY)),
)
