"""A body of 2 GiB each way, the receiver standing still in its middle: what that costs the proxy, and when it stops
the sender."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.bodies import Pattern, digest, writes
from bench.connection import Connection, check, get
from bench.figures import Report
from bench.parts import Memory, Part, Parts, until
from bench.queues import InFlight, in_flight

SIZE = 2 << 30
WARM = 64 << 20
STALL = 4.0
KIB, MIB = 1 << 10, 1 << 20
EVEN = Pattern()


def ports(connection: Connection) -> tuple[int, int]:
    return connection.sock.getsockname()[1], connection.sock.getpeername()[1]


class Asker:
    """Asks the origin how far an exchange is, past the proxy."""

    def __init__(self, origin: Part, name: str) -> None:
        self.port = origin.port
        self._connection = Connection.to(origin.port)
        self._url = origin.url(f"/state?name={name}")

    def __call__(self) -> dict[str, int] | None:
        told: dict[str, int] | None = json.loads(get(self._connection, self._url))
        return told


def upload(connection: Connection, url: str, size: int, pattern: Pattern = EVEN, chunked: bool = False) -> None:
    """Send a generated body of `size` bytes, and check what the origin says that it got."""
    connection.ask("POST", url, "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}")
    for data in writes(size, pattern, chunked):
        connection.send(data)
    head = connection.answer()
    check(head.status == 200, f"{url}: {head.line}")
    got = json.loads(b"".join(connection.body(head)))
    check(got == {"length": size, "sha256": digest(size)}, f"{url}: the origin got {got}")


def download(connection: Connection, url: str, size: int) -> None:
    """Read a generated body of `size` bytes, and check it."""
    connection.ask("GET", url)
    head = connection.answer()
    check(head.status == 200, f"{url}: {head.line}")
    got = connection.read_body(head)
    check(got.length == size, f"{url}: {got.length} bytes instead of {size}")
    check(got.sha256 == digest(size), f"{url}: another hash")


class Way(NamedTuple):
    """How the clients of a case come to its origin."""

    origin: Part
    proxy: Part
    connect: Callable[[], Connection]
    url: Callable[[str], str]
    # The origin's port that the proxy connects to.
    port: int
    # How much the proxy may grow, in MiB.
    growth: float
    # Whether what is in the kernel's queues is the body and nothing else.
    bare: bool


def plain(parts: Parts) -> Way:
    origin, proxy = parts.origin(), parts.streamproxy()
    return Way(origin, proxy, lambda: Connection.to(proxy.port), origin.url, origin.port, 1, True)


def warm_up(way: Way) -> None:
    """Let the proxy do once all that it will do, so that what it keeps for itself is there."""
    for _ in range(3):
        connection = way.connect()
        for _ in range(100):
            get(connection, way.url("/small"), 600)
        download(connection, way.url(f"/send?size={WARM}"), WARM)
        upload(connection, way.url("/take"), WARM)
        connection.close()
    time.sleep(1)


class Standstill:
    """Looks where the bytes are while the receiver stands still."""

    def __init__(self) -> None:
        self.seen: list[InFlight] = []
        self.sent: list[int] = []

    def look(self, sent: int, received: int, sender: tuple[int, int], receiver: tuple[int, int]) -> None:
        self.sent.append(sent)
        self.seen.append(in_flight(sent, received, sender, receiver))

    def tell(self, report: Report, bare: bool) -> None:
        """Report what lay in the proxy once the sender had stopped, which it must have."""
        still = self.seen[len(self.seen) // 2 :]
        check(len(set(self.sent[len(self.sent) // 2 :])) == 1, "the sender wasn't stopped")
        if bare:
            # Over TLS the queues hold more bytes than they do of the body, and TLS itself holds some.
            most = max(each.in_proxy for each in still)
            report.figure("in flight in the proxy's own memory", most / KIB, "KiB", below=1024)
        report.figure("between sender and receiver, the kernel's buffers with it", still[-1].in_all / MIB, "MiB")


def stall_down(parts: Parts, report: Report) -> None:
    """The origin sends, the client stands still."""
    down(plain(parts), report)


def stall_up(parts: Parts, report: Report) -> None:
    """The client sends, the origin stands still."""
    up(plain(parts), report)


def down(way: Way, report: Report) -> None:
    """Download by `way`, standing still in the middle."""
    report.say("warming up")
    warm_up(way)
    ask_state = Asker(way.origin, "down")
    report.say(f"2 GiB, and {STALL:g} s of standing still at 1 GiB")
    standstill, found, length = Standstill(), hashlib.sha256(), 0
    started = time.monotonic()
    with Memory(way.proxy) as memory:
        connection = way.connect()
        connection.ask("GET", way.url(f"/send?size={SIZE}&name=down"))
        head = connection.answer()
        before = connection.taken
        check(head.status == 200, head.line)
        for data in connection.body(head):
            length += len(data)
            found.update(data)
            if length >= SIZE // 2 and not standstill.seen:
                end = time.monotonic() + STALL
                while time.monotonic() < end:
                    time.sleep(0.1)
                    state = ask_state()
                    assert state is not None
                    sender = way.port, state["peer"]
                    standstill.look(state["sent"], connection.received - before, sender, ports(connection))
    tell(report, way, memory, standstill, started)
    check(length == SIZE and found.hexdigest() == digest(SIZE), "the body isn't the one that was sent")


def up(way: Way, report: Report) -> None:
    """Upload by `way`, the origin standing still in the middle."""
    report.say("warming up")
    warm_up(way)
    ask_state = Asker(way.origin, "up")
    report.say(f"2 GiB, and {STALL:g} s of standing still at 1 GiB")
    standstill, wrong = Standstill(), []
    started = time.monotonic()
    with Memory(way.proxy) as memory:
        connection = way.connect()
        url = way.url(f"/take?stall_at={SIZE // 2}&stall={STALL}&name=up")

        def send() -> None:
            try:
                upload(connection, url, SIZE)
            except Exception as error:
                wrong.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: bool((ask_state() or {}).get("stalled")) or not sender.is_alive(), "the origin stands still", 120)
        while sender.is_alive() and (state := ask_state()) and state["stalled"]:
            sent = connection.sent - connection.asked
            standstill.look(sent, state["received"], ports(connection), (way.port, state["peer"]))
            time.sleep(0.1)
        sender.join()
    if wrong:
        raise wrong[0]
    tell(report, way, memory, standstill, started)


def tell(report: Report, way: Way, memory: Memory, standstill: Standstill, started: float) -> None:
    rate = SIZE / MIB / (time.monotonic() - started - STALL)
    report.figure("growth of resident memory, at its most", memory.growth / MIB, "MiB", below=way.growth)
    standstill.tell(report, way.bare)
    report.figure("resident memory before", memory.before / MIB, "MiB")
    report.figure("rate while it flowed (both ends in Python, hashing)", rate, "MiB/s")
