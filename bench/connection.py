"""One end of an HTTP/1 connection on a blocking socket, which counts what it sends and reads.

Deliberately small and not made of streamproxy's own parts: it checks them.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

# How long anything may take, in seconds.
WAIT = 60.0
READ = 256 << 10


class WrongAnswer(Exception):
    """What arrived isn't what was sent."""


def check(true: bool, words: str) -> None:
    """Raise `WrongAnswer` with `words` unless `true`."""
    if not true:
        raise WrongAnswer(words)


class Head(NamedTuple):
    """A message's head: its first line, its fields by lower-case name, and its size on the wire."""

    line: str
    fields: dict[str, str]
    size: int

    @property
    def status(self) -> int:
        return int(self.line.split()[1])


class Received(NamedTuple):
    """A body that has been read to its end."""

    length: int
    sha256: str


class Connection:
    """`sent` and `received` count bytes of wire that the kernel took and gave, as they go."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.sent = 0
        self.received = 0
        # What had been sent when the last head that `ask` sent was.
        self.asked = 0
        self._buffer = b""

    @classmethod
    def to(cls, port: int) -> Connection:
        """A new connection to a port of this machine."""
        return cls(socket.create_connection(("127.0.0.1", port), WAIT))

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`, counting what the kernel has taken while more waits."""
        count = self.sock.send(data)
        self.sent += count
        if count < len(data):
            rest = memoryview(data)[count:]
            while rest:
                count = self.sock.send(rest)
                self.sent += count
                rest = rest[count:]

    def target(self, url: str) -> str:
        """How a request asks for `url`: in absolute form, as a proxy's client does."""
        return url

    def ask(self, method: str, url: str, *fields: str) -> None:
        """Send the head of a request for `url`."""
        host = url.split("/")[2]
        lines = [f"{method} {self.target(url)} HTTP/1.1", f"Host: {host}", *fields]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.asked = self.sent

    def _read(self) -> bytes:
        data = self.sock.recv(READ)
        self.received += len(data)
        return data

    @property
    def taken(self) -> int:
        """Bytes of wire that were read and used."""
        return self.received - len(self._buffer)

    def read_head(self) -> Head | None:
        """The next head; None where the connection ends in its place."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            data = self._read()
            if not data:
                check(not self._buffer, "the connection ended inside a head")
                return None
            self._buffer += data
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return Head(first, fields, end + 4)

    def answer(self) -> Head:
        """The head of the next response."""
        head = self.read_head()
        check(head is not None, "the connection ended instead of a response")
        assert head is not None
        return head

    def body(self, head: Head, is_request: bool = False) -> Iterator[bytes]:
        """The content of the body behind `head` as it comes; raises `WrongAnswer` where it is cut short."""
        if head.fields.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif (length := head.fields.get("content-length")) is not None:
            yield from self._length(int(length))
        elif not is_request:
            yield self._take()
            while data := self._read():
                yield data

    def _take(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    def _more(self) -> bytes:
        data = self._read()
        check(bool(data), "the connection ended inside a body")
        return data

    def _length(self, left: int) -> Iterator[bytes]:
        while left:
            data = self._take() or self._more()
            if len(data) > left:
                data, self._buffer = data[:left], data[left:]
            left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        data, at = self._take(), 0
        ready: list[bytes] = []
        while True:
            while (end := data.find(b"\r\n", at)) < 0:
                yield b"".join(ready)
                ready.clear()
                data, at = data[at:] + self._more(), 0
            left = int(data[at:end], 16)
            at = end + 2
            if not left:
                break
            while left > len(data) - at:
                ready.append(data[at:])
                left -= len(data) - at
                yield b"".join(ready)
                ready.clear()
                data, at = self._more(), 0
            ready.append(data[at : at + left])
            at += left
            while len(data) - at < 2:
                data, at = data[at:] + self._more(), 0
            check(data[at : at + 2] == b"\r\n", "a chunk isn't as long as it says")
            at += 2
        yield b"".join(ready)
        while len(data) - at < 2:
            data, at = data[at:] + self._more(), 0
        check(data[at : at + 2] == b"\r\n", "there are trailers that nobody sent")
        self._buffer = data[at + 2 :]

    def read_body(self, head: Head, is_request: bool = False) -> Received:
        """Read the body behind `head` to its end, and hash it."""
        length, found = 0, hashlib.sha256()
        for data in self.body(head, is_request):
            length += len(data)
            found.update(data)
        return Received(length, found.hexdigest())


def get(connection: Connection, url: str, length: int | None = None) -> bytes:
    """GET a small `url` on a connection that is kept; checks its status, and its `length` if that is given."""
    connection.ask("GET", url)
    head = connection.answer()
    body = b"".join(connection.body(head))
    check(head.status == 200, f"{url}: {head.line}")
    check(length is None or len(body) == length, f"{url}: {len(body)} bytes instead of {length}")
    return body
