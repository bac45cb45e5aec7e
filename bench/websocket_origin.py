"""The WebSocket origin of the measurements, a process of its own: `python -m bench.websocket_origin CERTIFICATE` prints
its ports, as `origin` does.

- /echo                     gives each small frame back, in the same turn
- /take?size=&frame=        reads one large message (`websocket_frames.large`), compares it byte for byte, and says so
- /give?size=&frame=        sends one, when it has been told to go on

Handshakes and large messages have a thread each; all that is echoed is one thread and epoll.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import ssl
import threading
from functools import partial
from urllib.parse import parse_qsl, urlsplit

from bench.connection import Connection, Head, WrongAnswer, check
from bench.listening import run
from bench.websocket_frames import CLOSE, DEFLATE, NORMAL, TEXT, accept, echoed, head_of, large

READ = 65536
GO, RIGHT = b"go on", b"the message is right"


class Echo:
    """Gives back what comes on all the connections that it was given."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, sock: socket.socket) -> None:
        """Serve a connection from here on."""
        sock.setblocking(False)
        file = sock.fileno()
        self._socks[file], self._rest[file] = sock, b""
        self._poll.register(file, select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for file, _events in self._poll.poll():
                try:
                    lives = self._read(file, self._socks[file])
                except (OSError, WrongAnswer):
                    lives = False
                if not lives:
                    self._socks.pop(file).close()

    def _read(self, file: int, sock: socket.socket) -> bool:
        try:
            data = sock.recv(READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        if not data:
            return False
        if self._rest[file]:
            data = self._rest[file] + data
        answer, used = echoed(data)
        self._rest[file] = data[used:]
        # Who lets so much pile up that it doesn't go at once is cut off.
        return sock.send(answer) == len(answer) if answer else True


def serve(echo: Echo, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """One connection."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError, WrongAnswer):
        stack.callback(lambda: sock.close())
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True)
        connection = Connection(sock)
        head = connection.read_head()
        if head is None:
            return
        url = urlsplit(head.line.split()[1])
        switch(connection, head)
        if url.path == "/echo":
            stack.pop_all()
            echo.add(sock)
            return
        wanted = {key: int(value) for key, value in parse_qsl(url.query)}
        if url.path == "/take":
            read_large(connection, wanted["size"], wanted["frame"], True)
            connection.send(head_of(TEXT, len(RIGHT)) + RIGHT)
        else:
            found, _used = echoed(sock.recv(READ))
            check(found == head_of(TEXT, len(GO)) + GO, f"{found!r} instead of a word to go on")
            for part in large(wanted["size"], wanted["frame"], False):
                connection.send(part)
        # Until the other side has said that it closes.
        while True:
            found, _used = echoed(sock.recv(READ))
            if not found or found[0] == CLOSE:
                break
        connection.send(head_of(CLOSE, len(NORMAL)) + NORMAL)


def switch(connection: Connection, head: Head) -> None:
    """Answer a handshake. Compression is agreed on as it is offered first, if it is offered without conditions."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept(head.fields['sec-websocket-key'])}")
    if (offered := head.fields.get("sec-websocket-extensions")) is not None:
        name, *conditions = offered.partition(",")[0].replace(" ", "").split(";")
        if name == DEFLATE and not set(conditions) - {"client_max_window_bits"}:
            lines.append(f"Sec-WebSocket-Extensions: {DEFLATE}")
    connection.send(("\r\n".join(lines) + "\r\n\r\n").encode())


def read_large(connection: Connection, size: int, frame: int, from_client: bool) -> None:
    """Read a large message, which must be the one that was sent, frame for frame; raises WrongAnswer if it isn't."""
    for part in large(size, frame, from_client):
        wanted, block = len(part), bytearray(len(part))
        view, filled = memoryview(block), 0
        while filled < wanted:
            count = connection.sock.recv_into(view[filled:])
            check(count > 0, "the connection ended inside a large message")
            filled += count
        # In this order it is compared as one block of memory.
        check(block == part, "a large message isn't the one that was sent")


def read_exactly(connection: Connection, wanted: bytes) -> None:
    """Read what has to come next, and nothing else."""
    found = b""
    while len(found) < len(wanted):
        data = connection.sock.recv(len(wanted) - len(found))
        check(bool(data), f"the connection ended behind {found!r} instead of {wanted!r}")
        found += data
    check(found == wanted, f"{found!r} came instead of {wanted!r}")


if __name__ == "__main__":
    gc.freeze()
    gc.disable()
    run(partial(serve, Echo()))
