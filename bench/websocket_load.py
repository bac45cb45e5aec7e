"""The clients of small WebSocket messages:
`python -m bench.websocket_load MANNER PORT ORIGIN CONNECTIONS AMOUNT [deflated] [AUTHORITY]`.

PORT is the proxy's, and ORIGIN that of `websocket_origin.py`, which is come to by CONNECT; or PORT is the origin's own,
and ORIGIN 0. With the PEM file AUTHORITY, by TLS. All messages go to /echo, and come back, one thread and epoll doing
all; each of them is compared with what was sent.

- `flight-N`: each of CONNECTIONS has N messages on their way at any time, for AMOUNT seconds
- `count-N`: the same until AMOUNT messages are through in all
- `beat-N`: N messages a second, all connections in turns, for AMOUNT seconds. The first half second doesn't count.

What came of it is the last line, as JSON. Times are from a message's sending to its coming back; with many on their way
one at a time of each connection is timed.
"""

from __future__ import annotations

import gc
import json
import select
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from bench.certificates import NAME
from bench.connection import Connection, WrongAnswer, check
from bench.figures import percentile
from bench.secure import connect_head, trusting
from bench.websocket_frames import CLOSE, DEFLATE, NORMAL, Deflated, Small, asked, head_of, upgrade

READ = 65536
# How long nothing at all may happen, in seconds.
MOST_SILENCE = 30
WARM = 0.5


def connect(port: int, origin: int, authority: str) -> Connection:
    """A connection to the origin at `port`, or by the proxy there to `origin`; by TLS, if there is an authority."""
    connection = Connection.to(port)
    if origin:
        connection.send(connect_head(origin))
        head = connection.answer()
        check(head.status == 200, f"CONNECT was answered by {head.line}")
        check(connection.taken == connection.received, "there is more than an answer to CONNECT")
    if authority:
        connection.sock = trusting(Path(authority)).wrap_socket(connection.sock, server_hostname=NAME)
    return connection


class Client:
    """One connection. Times are in seconds."""

    def __init__(self, connection: Connection, port: int, deflated: bool) -> None:
        upgrade(connection, f"http://{NAME}:{port}/echo", DEFLATE if deflated else "")
        self.sock = connection.sock
        self._messages = Deflated() if deflated else Small()
        self.sent = self.came = 0
        self.took: list[float] = []
        # The messages that are timed: how many had to come back, and when the last of those was sent.
        self._timed: deque[tuple[int, float]] = deque()

    def send(self, count: int, timed: bool) -> None:
        """Send so many messages at once. `timed`: the time of the last of them counts."""
        data = self._messages.frames(count)
        self.sent += count
        if timed:
            self._timed.append((self.sent, time.monotonic()))
        check(self.sock.send(data) == len(data), "messages can't be sent")

    def read(self, now: float) -> int:
        """Read what is there, which came at `now`; how many messages it is."""
        try:
            data = self.sock.recv(READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return 0
        check(bool(data), f"a connection ended after {self.came} messages")
        count = self._messages.came(data)
        self.came += count
        while self._timed and self._timed[0][0] <= self.came:
            self.took.append(now - self._timed.popleft()[1])
        return count

    @property
    def is_timing(self) -> bool:
        return bool(self._timed)

    def close(self) -> None:
        """Say that it closes, and see that the other side does."""
        self.sock.settimeout(MOST_SILENCE)
        self.sock.sendall(asked(CLOSE, NORMAL))
        answer = b""
        while data := self.sock.recv(READ):
            answer += data
            if len(answer) >= len(NORMAL) + 2:
                break
        check(answer == head_of(CLOSE, len(NORMAL)) + NORMAL, f"a close frame is answered by {answer!r}")
        self.sock.close()


class Load:
    """All clients. `messages` and `seconds` are those that count."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self._poll = select.epoll()
        self._by_file = {client.sock.fileno(): client for client in clients}
        for client in clients:
            client.sock.setblocking(False)
            self._poll.register(client.sock.fileno(), select.EPOLLIN)
        self.messages = 0
        self.seconds = 0.0

    def _read(self, timeout: float, came: Callable[[Client, int], None]) -> None:
        """Read what comes within `timeout`, and tell `came` of it."""
        # epoll itself counts in milliseconds.
        select.select([self._poll], [], [], timeout)
        for file, _events in self._poll.poll(0):
            client = self._by_file[file]
            count = client.read(time.monotonic())
            if count:
                came(client, count)

    def flight(self, most: int, seconds: float, amount: int | None = None) -> None:
        """Keep `most` messages of each client on their way, for so long, or until so many are through."""
        began = time.monotonic()
        ends = began + seconds
        sent = most * len(self.clients)

        def came(client: Client, count: int) -> None:
            nonlocal sent
            self.messages += count
            if amount is not None:
                count = min(count, amount - sent)
            if count > 0:
                sent += count
                client.send(count, not client.is_timing)

        for client in self.clients:
            client.send(most, True)
        last = began
        while time.monotonic() < ends and (amount is None or self.messages < amount):
            before = self.messages
            self._read(1, came)
            now = time.monotonic()
            last = now if self.messages > before else last
            check(now - last < MOST_SILENCE, f"nothing came back for {MOST_SILENCE} seconds")
        self.seconds = time.monotonic() - began
        self._rest()

    def beat(self, each_second: int, seconds: float) -> None:
        """Send so many a second, evenly."""

        def came(_client: Client, _count: int) -> None:
            pass

        began, number = time.monotonic(), 0
        while (now := time.monotonic()) < began + WARM + seconds:
            due = began + number / each_second
            if now >= due:
                self.clients[number % len(self.clients)].send(1, now >= began + WARM)
                number += 1
            else:
                self._read(due - now, came)
        self._rest()
        self.seconds = seconds
        self.messages = sum(len(client.took) for client in self.clients)

    def _rest(self) -> None:
        """Read what is still on its way."""
        ends = time.monotonic() + MOST_SILENCE
        while any(client.came < client.sent for client in self.clients):
            check(time.monotonic() < ends, "messages didn't come back")
            self._read(1, lambda _client, _count: None)


def run(load: Load, manner: str, amount: int) -> None:
    """Do what `manner` says."""
    kind, _, number = manner.partition("-")
    if kind == "flight":
        load.flight(int(number), amount)
    elif kind == "count":
        load.flight(int(number), float("inf"), amount)
    else:
        load.beat(int(number), amount)


def main() -> None:
    manner, port, origin, connections, amount, *more = sys.argv[1:]
    deflated = "deflated" in more
    authority = "".join(word for word in more if word != "deflated")
    target = int(origin) or int(port)
    try:
        load = Load(
            [Client(connect(int(port), int(origin), authority), target, deflated) for _ in range(int(connections))]
        )
        gc.freeze()
        gc.disable()
        used, began = time.process_time(), time.monotonic()
        run(load, manner, int(amount))
        busy = (time.process_time() - used) / (time.monotonic() - began)
        for client in load.clients:
            client.close()
        took = [each * 1000 for client in load.clients for each in client.took]
        check(bool(took), "no message came back")
    except (WrongAnswer, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    told: dict[str, float] = {"requests": load.messages, "seconds": load.seconds, "wrong": 0, "busy": busy}
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    print(json.dumps(told | {words: percentile(took, share) for words, share in shares.items()}))


if __name__ == "__main__":
    main()
