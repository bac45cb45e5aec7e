"""An origin that takes bodies as fast as it can: `python -m bench.sink CERTIFICATE` prints its ports, as `origin` does.

- PUT /count   says how long the body was
- PUT /hash    says its SHA-256 as well
- GET /small   600 bytes

A plain body that is only counted is thrown away inside the kernel (MSG_TRUNC), so that its taker costs next to nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl

from bench.connection import Connection, Head, check
from bench.listening import run

SMALL = b"x" * 600
BLOCK = 1 << 20


class Taker(Connection):
    """A connection that bodies come by. `plain`: it isn't TLS."""

    def __init__(self, sock: socket.socket, plain: bool = True) -> None:
        super().__init__(sock)
        self._flags = socket.MSG_TRUNC if plain else 0

    def count(self, head: Head) -> int:
        """How long the body behind `head` is; it isn't kept."""
        length = head.fields.get("content-length")
        if length is None or "transfer-encoding" in head.fields:
            return sum(map(len, self.body(head, is_request=True)))
        left, block = int(length), bytearray(BLOCK)
        left -= len(self._take())
        while left > 0:
            count = self.sock.recv_into(block, min(BLOCK, left), self._flags)
            check(count > 0, "the connection ended inside a body")
            left -= count
        check(left == 0, "there is more than a body")
        return int(length)


def serve(sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Answer the requests of one connection until it ends."""
    with contextlib.suppress(OSError), contextlib.closing(sock):
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True)
        connection = Taker(sock, tls is None)
        while (head := connection.read_head()) is not None:
            answer = answered(connection, head)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def answered(connection: Taker, head: Head) -> bytes:
    """The body of the response to the request of that head."""
    path = head.line.split()[1].removeprefix("http://").partition("/")[2]
    if path == "small":
        return SMALL
    if path == "count":
        return json.dumps({"length": connection.count(head)}).encode()
    check(path == "hash", f"no such path: {head.line}")
    length, found = 0, hashlib.sha256()
    for data in connection.body(head, is_request=True):
        length += len(data)
        found.update(data)
    return json.dumps({"length": length, "sha256": found.hexdigest()}).encode()


if __name__ == "__main__":
    run(serve)
