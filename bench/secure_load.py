"""Small requests over TLS: `python -m bench.secure_load MANNER PORT ORIGIN CONNECTIONS SECONDS`.

wrk, which makes the load elsewhere, has no CONNECT. `kept` makes requests one after the other on connections that are
kept; `new` makes one on each, with a TCP connection, a CONNECT and a whole TLS handshake of its own (no session is
resumed), and ends it by a close_notify. PORT is the proxy's, and ORIGIN the port of the origin that CONNECT asks for; 0
for none, where PORT is the origin's own.

It is one thread and epoll, and each connection a generator that gives what it waits for. It counts from when each
connection has had its first answer on. Every answer's status, length and content are checked; the certificate isn't
(who runs this has checked it, and for all ways alike), but the signatures of the handshake are. What it counted comes
last, as one line of JSON with the same keys as `absolute.lua`'s.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator

from bench.certificates import NAME
from bench.connection import WrongAnswer, check
from bench.figures import percentile
from bench.secure import PROTOCOLS, connect_head

BODY = b"x" * 600
READ = 65536
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
# How long nothing at all may happen, in seconds.
MOST_SILENCE = 30


class Load:
    """What is asked of whom, and what has been answered."""

    def __init__(self, kept: bool, port: int, origin: int, connections: int) -> None:
        self.kept = kept
        self.port = port
        self.connect = connect_head(origin) if origin else b""
        self.request = f"GET /small HTTP/1.1\r\nHost: {NAME}:{origin or port}\r\nAccept: */*\r\n\r\n".encode()
        self.tls = tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        tls.set_alpn_protocols(PROTOCOLS)
        self.took: list[float] = []
        self.size = 0
        self.connections = connections
        # The connections that have had no answer yet, by their numbers.
        self.waiting = set(range(connections))
        self.began = 0.0

    def answered(self, number: int, began: float, size: int) -> None:
        """Connection `number` has its answer, of `size` bytes, to what it began then."""
        now = time.monotonic()
        if not self.waiting:
            self.took.append(now - began)
            self.size += size
        else:
            self.waiting.discard(number)
            if not self.waiting:
                self.began = now

    def run(self, seconds: float) -> None:
        poll = select.epoll()
        clients: dict[int, Client] = {}

        def add(number: int) -> None:
            client = Client(self, number)
            clients[client.sock.fileno()] = client
            poll.register(client.sock.fileno(), client.wants)

        for number in range(self.connections):
            add(number)
        while not self.began or time.monotonic() < self.began + seconds:
            ready = poll.poll(MOST_SILENCE)
            check(bool(ready), f"nothing happened for {MOST_SILENCE} seconds")
            for file, _events in ready:
                client = clients[file]
                wants = client.go_on()
                if wants is None:
                    # Its file is closed, so the kernel has forgotten it.
                    add(client.number)
                elif wants != client.wants:
                    client.wants = wants
                    poll.modify(file, wants)

    def tell(self, seconds: float) -> None:
        took = [each * 1000 for each in self.took]
        told = {"requests": len(took), "seconds": seconds, "bytes": self.size, "wrong": 0}
        print(json.dumps(told | {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99)}))


class Client:
    """One connection, on its way from step to step. `wants` is what it waits for."""

    def __init__(self, load: Load, number: int) -> None:
        self.number = number
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._steps = self._run(load)
        self.wants = next(self._steps)

    def go_on(self) -> int | None:
        """What it waits for next; None when it has been closed."""
        return next(self._steps, None)

    def _run(self, load: Load) -> Iterator[int]:
        sock, began = self.sock, time.monotonic()
        found = sock.connect_ex(("127.0.0.1", load.port))
        check(found in (0, errno.EINPROGRESS), f"can't connect: {errno.errorcode.get(found, found)}")
        yield WRITABLE
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        check(not found, f"can't connect: {errno.errorcode.get(found, found)}")
        if load.connect:
            yield from self._connect(load.connect)
        secure = load.tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=NAME)
        self.sock = secure
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield READABLE
        check(not secure.session_reused, "a session was resumed")
        while True:
            check(secure.send(load.request) == len(load.request), "a request can't be sent")
            answer = b""
            while True:
                yield READABLE
                try:
                    # Each read gives one record at the most, and leaves the next to the kernel.
                    data = secure.recv(READ)
                except ssl.SSLWantReadError:
                    continue
                check(bool(data), "a connection was closed")
                answer = answer + data if answer else data
                end = answer.find(b"\r\n\r\n")
                if end >= 0 and len(answer) - end - 4 >= len(BODY):
                    break
            check(answer.startswith(b"HTTP/1.1 200 ") and answer[end + 4 :] == BODY, f"a wrong answer: {answer!r}")
            load.answered(self.number, began, len(answer))
            if not load.kept:
                break
            began = time.monotonic()
        with contextlib.suppress(OSError):
            # The peer's own close_notify isn't waited for.
            secure.unwrap()
        secure.close()

    def _connect(self, head: bytes) -> Iterator[int]:
        sock = self.sock
        check(sock.send(head) == len(head), "a CONNECT can't be sent")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            yield READABLE
            data = sock.recv(READ)
            check(bool(data), f"a CONNECT was answered by an end, behind {answer!r}")
            answer += data
            check(answer.count(b"\r\n\r\n") < 2 and len(answer) < READ, f"more than an answer to CONNECT: {answer!r}")
        check(answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), f"a CONNECT was answered by {answer!r}")


def main() -> None:
    manner, port, origin, connections, seconds = sys.argv[1:]
    load = Load(manner == "kept", int(port), int(origin), int(connections))
    try:
        load.run(float(seconds))
        check(bool(load.took), f"no answer in {seconds} s")
    except (WrongAnswer, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    load.tell(time.monotonic() - load.began)


if __name__ == "__main__":
    main()
