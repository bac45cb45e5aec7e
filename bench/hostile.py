"""A client that behaves badly without end: `python -m bench.hostile KIND PROXY_PORT ORIGIN_PORT`.

It is a process of its own, and gives way to all others, so that what an innocent client waits for is the proxy.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable

from bench.connection import Connection, get
from bench.origin import ONES

# The longest head that the proxy takes is 64 KiB.
HEAD = 65_000


def ones_down(proxy: int, origin: str) -> None:
    """Reads a response of one-byte chunks that doesn't end."""
    connection = Connection.to(proxy)
    connection.ask("GET", f"{origin}/ones")
    while connection.sock.recv(1 << 20):
        pass


def ones_up(proxy: int, origin: str) -> None:
    """Sends a request of one-byte chunks that doesn't end."""
    connection = Connection.to(proxy)
    connection.ask("POST", f"{origin}/take", "Transfer-Encoding: chunked")
    for _ in itertools.count():
        connection.send(ONES)


def never_reads(proxy: int, origin: str) -> None:
    """Asks for large bodies and doesn't read them."""
    connections = [Connection.to(proxy) for _ in range(20)]
    for connection in connections:
        connection.ask("GET", f"{origin}/send?size={4 << 30}")
    time.sleep(3600)


def slow_heads(proxy: int, origin: str) -> None:
    """Sends heads of 64 KiB byte by byte, one behind the other."""
    connection = Connection.to(proxy)
    start = f"GET {origin}/small HTTP/1.1\r\nHost: {origin.split('/')[2]}\r\nX-Long: "
    head = (start + "x" * (HEAD - len(start) - 4) + "\r\n\r\n").encode()
    for _ in itertools.count():
        for at in range(len(head)):
            connection.sock.send(head[at : at + 1])
        b"".join(connection.body(connection.answer()))


def long_heads(proxy: int, origin: str) -> None:
    """Sends heads of 64 KiB, of as many fields as there may be, as fast as they are answered."""
    connection = Connection.to(proxy)
    fields = [f"X-Field-{number}: {'x' * 300}" for number in range(190)]
    for _ in itertools.count():
        connection.ask("GET", f"{origin}/small", *fields)
        b"".join(connection.body(connection.answer()))


def pipelines(proxy: int, origin: str) -> None:
    """Sends small requests as fast as they are taken, without waiting for an answer."""
    connection = Connection.to(proxy)
    get(connection, f"{origin}/small")

    def read() -> None:
        while connection.sock.recv(1 << 20):
            pass

    threading.Thread(target=read, daemon=True).start()
    request = f"GET {origin}/small HTTP/1.1\r\nHost: {origin.split('/')[2]}\r\n\r\n".encode() * 500
    for _ in itertools.count():
        connection.send(request)


KINDS: dict[str, Callable[[int, str], None]] = {
    "ones_down": ones_down,
    "ones_up": ones_up,
    "never_reads": never_reads,
    "slow_heads": slow_heads,
    "long_heads": long_heads,
    "pipelines": pipelines,
}


def main() -> None:
    kind, proxy, origin = sys.argv[1:]
    os.nice(19)
    print("begun", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        KINDS[kind](int(proxy), f"http://127.0.0.1:{origin}")
    sys.exit(f"{kind} is over")


if __name__ == "__main__":
    main()
