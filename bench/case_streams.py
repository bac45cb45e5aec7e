"""Many clients at one time: 200 that stream, none of them starved, and one with a hostile neighbour."""

from __future__ import annotations

import hashlib
import selectors
import statistics
import time

from bench.bodies import digest
from bench.case_stall import MIB
from bench.connection import Connection, check, get
from bench.figures import Report, percentile
from bench.hostile import KINDS
from bench.parts import PROXY_CORE, Part, Parts

STREAMS = 200
SIZE = 16 << 20
READ = 64 << 10
# Of an innocent client beside a hostile one: how long it is watched, in seconds.
WATCHED = 4.0
# How much longer than beside nobody it may wait at p99, in milliseconds: a few turns of a busy reactor.
MORE = 20


class Stream:
    """A client that reads one body."""

    def __init__(self, port: int, url: str) -> None:
        self.connection = Connection.to(port)
        self.connection.ask("GET", url)
        self.found = hashlib.sha256()
        self.head = b""
        self.length = 0
        self.ended_at: float | None = None

    def read(self, now: float) -> bool:
        """Whether its body is there."""
        data = self.connection.sock.recv(READ)
        check(bool(data), f"a body was cut short after {self.length} bytes")
        if not self.length:
            self.head += data
            head, found, data = self.head.partition(b"\r\n\r\n")
            check(head.startswith(b"HTTP/1.1 200 "), f"a wrong answer: {head[:100]!r}")
            if not found:
                return False
        self.length += len(data)
        self.found.update(data)
        if self.length < SIZE:
            return False
        check(self.length == SIZE and self.found.hexdigest() == digest(SIZE), "a body isn't the one that was sent")
        self.ended_at = now
        return True


def all_at_once(port: int, url: str) -> tuple[list[float], list[list[int]]]:
    """How long each of the streams took, and how far each was, noted every 20 ms."""
    streams = [Stream(port, url) for _ in range(STREAMS)]
    started = time.monotonic()
    noted: list[list[int]] = []
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.connection.sock, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(10)
            check(bool(ready), "nothing came for 10 seconds")
            for key, _ in ready:
                now = time.monotonic()
                if key.data.read(now):
                    selector.unregister(key.fileobj)
                if now - started > 0.02 * len(noted):
                    noted.append([each.length for each in streams])
    for stream in streams:
        stream.connection.close()
    return [(stream.ended_at or 0) - started for stream in streams], noted


def streams(parts: Parts, report: Report) -> None:
    """All ask at the same time, straight (for comparison) and by the proxy."""
    origin, proxy = parts.origin(), parts.streamproxy()
    digest(SIZE)
    for words, port in (("straight", origin.port), ("by the proxy", proxy.port)):
        report.say(f"{STREAMS} clients, {SIZE / MIB:g} MiB each, {words}")
        took, noted = all_at_once(port, origin.url(f"/send?size={SIZE}"))
        ours = words == "by the proxy"
        report.figure(f"{words}: clients that got their body", len(took), "", at_least=STREAMS)
        report.figure(f"{words}: the last is through after", max(took), "s")
        report.figure(f"{words}: the first to the median", min(took) / statistics.median(took), "x")
        slowest = max(took) / statistics.median(took)
        report.figure(f"{words}: the last to the median", slowest, "x", below=2 if ours else None)
        half = noted[len(noted) // 2]
        share = min(half) / statistics.median(half)
        report.figure(f"{words}: the least at half time, to the median", share, "x")
        report.figure(f"{words}: rate of all together", STREAMS * SIZE / MIB / max(took), "MiB/s")


def latencies(port: int, url: str) -> list[float]:
    """How long each of a client's small requests took, one after the other, in milliseconds."""
    connection = Connection.to(port)
    took = []
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        before = time.monotonic()
        get(connection, url, 600)
        took.append((time.monotonic() - before) * 1000)
        # As a client would; and so each begins at another point of what the proxy is doing.
        time.sleep(0.001)
    connection.close()
    return took


def neighbours(parts: Parts, report: Report) -> None:
    """An innocent client alone, then beside each kind of hostile one."""
    origin, nginx = parts.origin(), parts.nginx()
    alone = 0.0
    for kind in ("nobody", *KINDS):
        proxy: Part = parts.streamproxy()
        report.say(f"small requests beside {kind}")
        hostile = None
        if kind != "nobody":
            hostile = parts.start_module("hostile", kind, str(proxy.port), str(origin.port))
            hostile.printed("^(begun)$")
            time.sleep(0.5)
        busy, began = proxy.processor_seconds(), time.monotonic()
        took = latencies(proxy.port, nginx.url("/small"))
        busy = (proxy.processor_seconds() - busy) / (time.monotonic() - began)
        if hostile is not None:
            hostile.check_running()
            hostile.stop()
        p99 = percentile(took, 0.99)
        alone = alone or p99
        goal = None if kind == "nobody" else round(alone + MORE, 1)
        report.figure(f"beside {kind}: p50", percentile(took, 0.5), "ms")
        report.figure(f"beside {kind}: p99", p99, "ms", below=goal)
        report.figure(f"beside {kind}: max", max(took), "ms")
        report.figure(f"beside {kind}: core {PROXY_CORE}, the proxy's, busy with it", busy * 100, "%")
        proxy.stop()
