"""Small chunks, far apart, arrive as they were sent: what the proxy adds to each."""

from __future__ import annotations

import itertools
import select
import statistics
import time

from bench.connection import Connection, check, get
from bench.figures import Report, percentile
from bench.parts import Parts

COUNT, GAP = 200, 0.05
# 32 bytes, as a chunk on the wire.
ON_WIRE = len(b"20\r\n") + 32 + len(b"\r\n")
END = b"0\r\n\r\n"


class Listener:
    """Reads a dribbled response and keeps when each chunk was sent and came, in seconds."""

    def __init__(self, port: int, url: str) -> None:
        self.connection = Connection.to(port)
        self.connection.ask("GET", url)
        head = self.connection.answer()
        check(head.status == 200, head.line)
        self.sent: list[float] = []
        self.came: list[float] = []
        # Reads that gave one chunk and nothing else.
        self.alone = 0
        self.ended = False
        self._waiting = b""

    def fileno(self) -> int:
        return self.connection.sock.fileno()

    def read(self) -> None:
        data = self.connection.sock.recv(65536)
        now = time.monotonic_ns() / 1e9
        check(bool(data), "the response was cut short")
        self.alone += len(data) == ON_WIRE and not self._waiting
        self._waiting += data
        while len(self._waiting) >= ON_WIRE:
            chunk, self._waiting = self._waiting[:ON_WIRE], self._waiting[ON_WIRE:]
            check(chunk[:4] == b"20\r\n" and chunk[-2:] == b"\r\n", f"a chunk was cut: {chunk!r}")
            self.sent.append(int(chunk[4:-2]) / 1e9)
            self.came.append(now)
        self.ended = self._waiting == END

    @property
    def delays(self) -> list[float]:
        """From each chunk's sending to its arrival, in milliseconds."""
        return [(came - sent) * 1000 for sent, came in zip(self.sent, self.came, strict=True)]

    @property
    def shifts(self) -> list[float]:
        """By how much the time between two arrivals differs from that between their sendings, in milliseconds."""
        delays = self.delays
        return [abs(after - before) for before, after in itertools.pairwise(delays)]


def dribble(parts: Parts, report: Report) -> None:
    """One response straight from the origin and one by the proxy, their chunks taking turns."""
    origin, proxy = parts.origin(), parts.streamproxy()
    get(Connection.to(proxy.port), origin.url("/small"), 600)
    report.say(f"{COUNT} chunks of 32 bytes, {GAP * 1000:g} ms apart, straight and by the proxy in turns")
    url = origin.url(f"/dribble?count={COUNT}&gap={GAP}")
    straight = Listener(origin.port, url)
    time.sleep(GAP / 2)
    proxied = Listener(proxy.port, url)
    running = [straight, proxied]
    while running:
        ready, _, _ = select.select(running, [], [], 10)
        check(bool(ready), "nothing came for 10 seconds")
        for each in ready:
            each.read()
        running = [each for each in running if not each.ended]
    for name, each in (("straight", straight), ("by the proxy", proxied)):
        check(len(each.came) == COUNT, f"{name}: {len(each.came)} chunks")
        for share, words in ((0.5, "p50"), (0.99, "p99"), (1, "max")):
            report.figure(f"delay {name}, {words}", percentile(each.delays, share), "ms")
    added = [percentile(proxied.delays, share) - percentile(straight.delays, share) for share in (0.5, 0.99)]
    report.figure("added by the proxy, p50", added[0], "ms", below=1)
    report.figure("added by the proxy, p99", added[1], "ms", below=5)
    between = [after - before for before, after in itertools.pairwise(proxied.came)]
    report.figure("between two arrivals by the proxy, median", statistics.median(between) * 1000, "ms")
    report.figure("between arrivals, off what it was when sent: p99", percentile(proxied.shifts, 0.99), "ms", below=5)
    report.figure("between arrivals, off what it was when sent: max", max(proxied.shifts), "ms")
    report.figure("chunks that came alone, by the proxy", proxied.alone, f"of {COUNT}", at_least=COUNT - 1)
