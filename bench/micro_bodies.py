"""Micro-benchmarks of bodies: the pump, and chunks."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from bench.connection import check
from bench.micro_heads import LIMITS
from streamproxy.stream.pump import Pump
from streamproxy.stream.sink import Sink
from streamproxy.stream.valve import Valve
from streamproxy.wire.chunked import ChunksKept, ChunksMade
from streamproxy.wire.http1 import ResponseReader
from streamproxy.wire.message import Event

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from streamproxy.stream.transport import IStreamTransport

READ = 65536
PIECE = 4096
_pick = random.Random(1)
WORDS = [bytes(_pick.choices(b"etaoinshrdlu", k=length)) for length in range(2, 10) for _ in range(50)]
TEXT = b" ".join(_pick.choices(WORDS, k=READ))[:READ]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Source:
    """What is paused; it counts how often."""

    def __init__(self) -> None:
        self.pauses = 0
        self.resumes = 0

    def pauseProducing(self) -> None:
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.resumes += 1


class Handle(socket.socket):
    """The socket of a `Drain`, for who sends on it past the transport: it takes what there is room for."""

    def __init__(self, drain: Drain) -> None:
        super().__init__()
        self._drain = drain

    def send(self, data: bytes, *_: int) -> int:  # type: ignore[override]
        drain = self._drain
        size = len(data)
        if drain.waiting + size > drain.limit:
            size = int(max(0, drain.limit - drain.waiting))
            data = data[:size]
        drain.take(data)
        return size

    def sendmsg(self, buffers: Iterable[ReadableBuffer], *_: object) -> int:  # type: ignore[override]
        return self.send(b"".join(buffers))


class Drain:
    """A transport that keeps nothing, but counts; it is full above `limit` bytes, until `drain` is called.

    `kept`: where what is written goes as well, while it is looked at.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.waiting = 0
        self.written = 0
        self.kept: list[bytes] | None = None
        self.producer: Sink | None = None
        self._handle = Handle(self)

    def getHandle(self) -> Handle:
        return self._handle

    def take(self, data: bytes) -> None:
        """Count."""
        self.written += len(data)
        self.waiting += len(data)
        if self.kept is not None:
            self.kept.append(data)

    def registerProducer(self, producer: Sink, streaming: bool) -> None:
        self.producer = producer

    def write(self, data: bytes) -> None:
        self.take(data)
        if self.waiting > self.limit and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def drain(self) -> None:
        self.waiting = 0
        if self.producer is not None:
            self.producer.resumeProducing()


def pump(limit: float, pauses: int) -> Callable[[], object]:
    """64 KiB, the sink being full above `limit` bytes: so many times, and once after them it drains as well."""
    source, transport = Source(), Drain(limit)
    moving = Pump(Valve(source), PIECE, time.monotonic)
    moving.attach(Sink(cast("IStreamTransport", transport)))

    def move() -> None:
        moving.write(TEXT)
        for _ in range(pauses):
            transport.drain()
        transport.waiting = 0

    transport.kept = []
    for count in (1, 2):
        move()
        check(b"".join(transport.kept) == TEXT * count, "what was written isn't what the pump was given")
        check(source.pauses == source.resumes == pauses * count, f"paused {source.pauses} times in {count}")
    transport.kept = None
    return move


def chunks(size: int) -> bytes:
    """The text in chunks of `size` bytes; the last chunk is still to come."""
    return b"".join(b"%x\r\n%b\r\n" % (size, TEXT[at : at + size]) for at in range(0, READ, size))


def read_chunks(size: int) -> Callable[[], object]:
    """Read 64 KiB in chunks of `size` bytes, of a body that doesn't end."""
    data = chunks(size)
    reader = ResponseReader(LIMITS)
    reader.expect(b"GET")
    reader.feed(HEAD)

    def read() -> list[Event]:
        events = reader.feed(data)
        while reader.more:
            events += reader.feed(b"")
        return events

    for _ in range(2):
        found = b"".join(event for event in read() if type(event) is bytes)
        check(found == TEXT and not reader.waiting, "another body was read")
    return read


def write_chunks(size: int) -> Callable[[], object]:
    """Write 64 KiB as they came in chunks of `size` bytes."""
    reader = ResponseReader(LIMITS)
    reader.expect(b"GET")
    reader.feed(HEAD)
    events = reader.feed(chunks(size))
    writer = ChunksKept()

    def write() -> bytes:
        return writer.encode(events)  # type: ignore[arg-type]

    check(write() == chunks(size), "other chunks were written")
    return write


def make_chunks() -> Callable[[], object]:
    """Write 64 KiB in chunks of our own."""
    writer = ChunksMade(PIECE)

    def write() -> bytes:
        return writer.encode([TEXT])

    reader = ResponseReader(LIMITS)
    reader.expect(b"GET")
    reader.feed(HEAD)
    found = b"".join(event for event in reader.feed(write()) if type(event) is bytes)
    check(found == TEXT, "another body was written")
    return write


PIECES: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
    ("pump: 64 KiB, the sink never full", lambda: pump(float("inf"), 0)),
    ("pump: 64 KiB, the sink full once", lambda: pump(READ // 2, 1)),
    ("read chunks: 64 KiB in chunks of 4096", lambda: read_chunks(4096)),
    ("read chunks: 64 KiB in chunks of 64", lambda: read_chunks(64)),
    ("write chunks: 64 KiB in chunks of 4096 as they came", lambda: write_chunks(4096)),
    ("write chunks: 64 KiB in chunks of our own", make_chunks),
)
