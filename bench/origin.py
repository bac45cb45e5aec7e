"""The origin of the measurements, a process of its own: `python -m bench.origin CERTIFICATE` prints its ports.

One port is plain, the other speaks TLS with the certificate and key in that PEM file.

- GET  /send?size=&framing=length|chunked|close&least=&most=&gather=&name=   a generated body (`bodies.py`)
- POST /take?stall_at=&stall=&name=   reads a body, standing still once for `stall` seconds; says what it got
- GET  /state?name=                   how far the exchange of that name is
- GET  /small                         600 bytes
- GET  /dribble?count=&gap=           chunks of 32 bytes, each the time at which it was sent, `gap` seconds apart
- GET  /ones                          chunks of one byte without end
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import socket
import ssl
import time
from urllib.parse import parse_qsl, urlsplit

from bench.bodies import Pattern, writes
from bench.connection import Connection, Head
from bench.listening import run

SMALL = b"x" * 600
ONES = b"1\r\nx\r\n" * 10_000


class Progress:
    """How far one exchange is: bytes of its body that the kernel took from or gave to this process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.sent_before = connection.sent
        self.received_before = connection.taken
        self.stalled = False
        self.ended = False

    def state(self) -> dict[str, int]:
        return {
            "sent": self._connection.sent - self.sent_before,
            "received": self._connection.received - self.received_before,
            "peer": self._connection.sock.getpeername()[1],
            "stalled": self.stalled,
            "ended": self.ended,
        }


named: dict[str, Progress] = {}


def serve(sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Answer the requests of one connection until it ends."""
    with contextlib.suppress(OSError), contextlib.closing(sock):
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True)
        answer_all(Connection(sock))


def answer_all(connection: Connection) -> None:
    with contextlib.closing(connection):
        while (head := connection.read_head()) is not None:
            url = urlsplit(head.line.split()[1])
            wanted = dict(parse_qsl(url.query))
            if not ANSWERS[url.path](connection, head, wanted):
                return


def answer(connection: Connection, body: bytes) -> bool:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return True


def small(connection: Connection, _head: Head, _wanted: dict[str, str]) -> bool:
    return answer(connection, SMALL)


def state(connection: Connection, _head: Head, wanted: dict[str, str]) -> bool:
    progress = named.get(wanted["name"])
    return answer(connection, json.dumps(progress.state() if progress is not None else None).encode())


def begin(connection: Connection, framing: str, size: int = 0) -> None:
    field = {
        "length": b"Content-Length: %d\r\n" % size,
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "close": b"Connection: close\r\n",
    }[framing]
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n" + field + b"\r\n")


def send(connection: Connection, _head: Head, wanted: dict[str, str]) -> bool:
    size, framing = int(wanted["size"]), wanted.get("framing", "length")
    shape = Pattern(**{key: int(wanted[key]) for key in Pattern._fields if key in wanted})
    begin(connection, framing, size)
    named[wanted.get("name", "")] = progress = Progress(connection)
    for data in writes(size, shape, framing == "chunked"):
        connection.send(data)
    progress.ended = True
    return framing != "close"


def take(connection: Connection, head: Head, wanted: dict[str, str]) -> bool:
    named[wanted.get("name", "")] = progress = Progress(connection)
    stall_at, stall = int(wanted.get("stall_at", -1)), float(wanted.get("stall", 0))
    length, found = 0, hashlib.sha256()
    for data in connection.body(head, is_request=True):
        length += len(data)
        found.update(data)
        if 0 <= stall_at <= length:
            stall_at = -1
            progress.stalled = True
            time.sleep(stall)
            progress.stalled = False
    progress.ended = True
    return answer(connection, json.dumps({"length": length, "sha256": found.hexdigest()}).encode())


def dribble(connection: Connection, _head: Head, wanted: dict[str, str]) -> bool:
    count, gap = int(wanted["count"]), float(wanted["gap"])
    begin(connection, "chunked")
    start = time.monotonic() + gap
    for number in range(count):
        time.sleep(max(0.0, start + number * gap - time.monotonic()))
        connection.send(b"20\r\n%032d\r\n" % time.monotonic_ns())
    connection.send(b"0\r\n\r\n")
    return True


def ones(connection: Connection, _head: Head, _wanted: dict[str, str]) -> bool:
    begin(connection, "chunked")
    for _ in itertools.count():
        connection.send(ONES)
    return False


ANSWERS = {"/small": small, "/state": state, "/send": send, "/take": take, "/dribble": dribble, "/ones": ones}


if __name__ == "__main__":
    run(serve)
