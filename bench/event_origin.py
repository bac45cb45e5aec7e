"""The origin of the event streams, a process of its own: `python -m bench.event_origin` prints its port.

- GET /small                              600 bytes
- GET /events?number=&of=&gap=&count=     server-sent events in chunks, one each `gap` nanoseconds, `count` in all

Each event is `SIZE` bytes in one chunk, written at once, and has in it its number, the time at which it was sent and
how late that was (both in nanoseconds, by the machine's monotonic clock). The head leaves at once and alone, event 0
after `FIRST`, and the others on a beat of `gap` that all streams share: `number` of `of` streams shifts a stream on it,
so that the events of all of them are spread evenly in time. It is one thread and epoll.
"""

from __future__ import annotations

import gc
import heapq
import select
import socket
import time
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

SIZE = 160
_FORM = b"id: %010d\ndata: %020d %012d %s\n\n"
_FILLER = b"x" * (SIZE - len(_FORM % (0, 0, 0, b"")))
CHUNK = b"%x\r\n" % SIZE + _FORM.replace(b"%s", _FILLER) + b"\r\n"
END = b"0\r\n\r\n"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n" + b"x" * 600
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
# From the head to event 0, in nanoseconds: the head has to go on before it.
FIRST = 5_000_000


class Event(NamedTuple):
    """What is in an event: its number, when it was sent and how late that was, in nanoseconds."""

    number: int
    sent: int
    late: int


def read_event(data: bytes) -> Event | None:
    """What is in the `SIZE` bytes of an event; None where they aren't one."""
    number, sent, late = data[4:14], data[21:41], data[42:54]
    if not (number.isdigit() and sent.isdigit() and late.isdigit()):
        return None
    found = Event(int(number), int(sent), int(late))
    return found if data == _FORM % (*found, _FILLER) else None


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

    def write(self, data: bytes) -> bool:
        """Whether all of it was taken: who lets so little pile up is cut off."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def begin(self, target: str, now: int) -> int:
        """Begin the stream that is asked for; when its first event is due."""
        wanted = {key: int(value) for key, value in parse_qsl(urlsplit(target).query)}
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
            data = CHUNK % (peer.next, now, now - due)
            peer.next += 1
            if peer.next == peer.count:
                data += END
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
        written = peer.write(HEAD)
        heapq.heappush(self._due, (peer.begin(target, time.monotonic_ns()), file))
        return written

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
