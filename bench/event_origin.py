"""The origin of the event streams, a process of its own: `python -m bench.event_origin` prints its port.

- GET /small                              600 bytes
- GET /events?number=&of=&gap=&count=     server-sent events in chunks, one each `gap` nanoseconds, `count` in all
  &coding=                                as gzip, br or zstd

Each event is `SIZE` bytes in one chunk, written at once, and has in it its number, the time at which it was sent and
how late that was (both in nanoseconds, by the machine's monotonic clock). Coded it is as much as can be decoded when
it is there, and the time is that before its coding. The head leaves at once and alone, event 0
after `FIRST`, and the others on a beat of `gap` that all streams share: `number` of `of` streams shifts a stream on it,
so that the events of all of them are spread evenly in time. It is one thread and epoll.
"""

from __future__ import annotations

import gc
import heapq
import random
import select
import socket
import time
import zlib
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
import zstandard

SIZE = 160
_FORM = b"id: %010d\ndata: %020d %012d %s\n\n"
_pick = random.Random(5)
# In small letters: what changes events makes these large. There are several, so that a coding has something to do.
_FILLERS = [
    bytes(_pick.choices(b"etaoin shrdlu cmfwyp", k=SIZE - len(_FORM % (0, 0, 0, b"")))).replace(b" ", b"_")
    for _ in range(64)
]
_CHANGED = [filler.upper() for filler in _FILLERS]
END = b"0\r\n\r\n"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n" + b"x" * 600
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
)
# From the head to event 0, in nanoseconds: the head has to go on before it.
FIRST = 5_000_000


class Event(NamedTuple):
    """What is in an event: its number, when it was sent and how late that was, in nanoseconds."""

    number: int
    sent: int
    late: int


def write_event(event: Event) -> bytes:
    """The event, in `SIZE` bytes."""
    return _FORM % (*event, _FILLERS[event.number % len(_FILLERS)])


def read_event(data: bytes, changed: bool) -> Event | None:
    """What is in the `SIZE` bytes of an event, its letters being large where it was `changed`; None: it isn't one."""
    number, sent, late = data[4:14], data[21:41], data[42:54]
    if not (number.isdigit() and sent.isdigit() and late.isdigit()):
        return None
    found = Event(int(number), int(sent), int(late))
    fillers = _CHANGED if changed else _FILLERS
    return found if data == _FORM % (*found, fillers[found.number % len(fillers)]) else None


class Coder:
    """Codes a stream, each event so that it can be decoded when it is there. A coding of "" changes nothing."""

    def __init__(self, coding: str) -> None:
        self.field = b"Content-Encoding: %b\r\n" % coding.encode() if coding else b""
        self._coding = coding
        self._take: Any = bytes
        self._flush: Any = bytes
        self._end: Any = bytes
        if coding == "gzip":
            gzip = zlib.compressobj(wbits=31)
            self._take, self._flush, self._end = gzip.compress, partial(gzip.flush, zlib.Z_SYNC_FLUSH), gzip.flush
        elif coding == "br":
            br = brotli.Compressor(quality=5)
            self._take, self._flush, self._end = br.process, br.flush, br.finish
        elif coding == "zstd":
            zstd = zstandard.ZstdCompressor().compressobj()
            flush = partial(zstd.flush, zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            self._take, self._flush, self._end = zstd.compress, flush, zstd.flush
        elif coding:
            raise ValueError(coding)

    def event(self, data: bytes) -> bytes:
        """An event, as a chunk."""
        return self._chunk(self._take(data) + self._flush())

    def end(self) -> bytes:
        """The end of the coding, if it has one, and of the body."""
        data = self._end()
        return self._chunk(data) + END if data else END

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)


class Peer:
    """A connection, and the stream on it where there is one."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.asked = b""
        # Of the stream: its next event and how many there are; the nanoseconds between two, and its place on the beat.
        self.next = self.count = 0
        self.gap = self.shift = 0
        self.coder = Coder("")

    def write(self, data: bytes) -> bool:
        """Whether all of it was taken: who lets so little pile up is cut off."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def begin(self, target: str, now: int) -> int:
        """Begin the stream that is asked for; when its first event is due."""
        asked = dict(parse_qsl(urlsplit(target).query))
        self.coder = Coder(asked.pop("coding", ""))
        wanted = {key: int(value) for key, value in asked.items()}
        self.next, self.count, self.gap = 0, wanted["count"], wanted["gap"]
        self.shift = wanted["number"] * self.gap // wanted["of"]
        return now + FIRST

    def after(self, due: int) -> int:
        """When the event behind the one that was due then is due."""
        return due + self.gap - (due - self.shift) % self.gap


class EventOrigin:
    """All connections, and which event is due when."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self.listener.fileno(), select.EPOLLIN)
        self._peers: dict[int, Peer] = {}
        self._due: list[tuple[int, int]] = []

    def run(self) -> None:
        while True:
            timeout = None if not self._due else max(0, self._due[0][0] - time.monotonic_ns()) / 1e9
            # epoll itself counts in milliseconds, in which several events are due.
            if select.select([self._poll], [], [], timeout)[0]:
                for file, _events in self._poll.poll(0):
                    self._read(file)
            self._send_due()

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= (now := time.monotonic_ns()):
            due, file = self._due[0]
            peer = self._peers.get(file)
            if peer is None or peer.next == peer.count:
                heapq.heappop(self._due)
                continue
            data = peer.coder.event(write_event(Event(peer.next, now, now - due)))
            peer.next += 1
            if peer.next == peer.count:
                data += peer.coder.end()
            heapq.heapreplace(self._due, (peer.after(due), file))
            if not peer.write(data):
                self._drop(file)

    def _read(self, file: int) -> None:
        if file == self.listener.fileno():
            sock, _ = self.listener.accept()
            self._peers[sock.fileno()] = Peer(sock)
            self._poll.register(sock.fileno(), select.EPOLLIN)
            return
        peer = self._peers[file]
        try:
            data = peer.sock.recv(65536)
        except OSError:
            data = b""
        peer.asked += data
        if not data or (b"\r\n\r\n" in peer.asked and not self._answer(file, peer)):
            self._drop(file)

    def _answer(self, file: int, peer: Peer) -> bool:
        target = peer.asked.split(b" ", 2)[1].decode()
        peer.asked = b""
        if urlsplit(target).path != "/events":
            return peer.write(SMALL)
        due = peer.begin(target, time.monotonic_ns())
        heapq.heappush(self._due, (due, file))
        return peer.write(HEAD + peer.coder.field + b"\r\n")

    def _drop(self, file: int) -> None:
        # What is due for it must not go to the next connection with its number.
        self._due = [each for each in self._due if each[1] != file]
        heapq.heapify(self._due)
        self._peers.pop(file).sock.close()


def main() -> None:
    origin = EventOrigin()
    print("plain", origin.listener.getsockname()[1], flush=True)
    gc.freeze()
    gc.disable()
    origin.run()


if __name__ == "__main__":
    main()
