"""slowhttptest, in all its modes, by the thousand: what others notice of it, and what it leaves behind."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bench.case_stall import MIB
from bench.connection import Connection, get
from bench.figures import Report, percentile
from bench.parts import Part, Parts, program, until

# The most that another may wait, in milliseconds.
WORST = 2000
CONNECTIONS, CONNECTIONS_QUICK = 5000, 400
SECONDS, SECONDS_QUICK = 15, 4
LENGTH = 600
# The daemon's, shorter than a case, so that it is seen to end what is slow.
DEADLINES = ("timeouts.head=8", "timeouts.idle=8", "timeouts.keepalive=8")
MODES = {
    "heads that never end": ("-H", "-i", "2", "-x", "24"),
    "bodies that never end": ("-B", "-i", "2", "-s", "8192", "-x", "10"),
    "very many ranges": ("-R", "-a", "10", "-b", "3000"),
    "answers read slowly": ("-X", "-w", "1", "-y", "64", "-n", "1", "-z", "32", "-k", "3"),
}


def slow_clients(parts: Parts, report: Report) -> None:
    """One mode after the other, and a client that asks for 600 bytes again and again meanwhile."""
    tool = program("slowhttptest", "slowhttptest")
    # Others ask another origin, so that what they wait for is the proxy.
    nginx, other = parts.nginx(), parts.nginx()
    number = CONNECTIONS_QUICK if report.quick else CONNECTIONS
    seconds = SECONDS_QUICK if report.quick else SECONDS
    proxy = parts.streamproxy(*DEADLINES, f"limits.connections={number + 200}")
    small = other.url("/small")
    until_then = time.monotonic() + 2
    tell(report, "beside nobody", ask_while(proxy, small, lambda: time.monotonic() < until_then).waits)
    for words, mode in MODES.items():
        report.progress(words)
        files, memory = proxy.open_files(), proxy.memory()
        command = [*mode, "-c", str(number), "-r", str(number // 2), "-l", str(seconds), "-p", "3"]
        attack = parts.start("slowhttptest", tool, *command, "-u", nginx.url("/held"), "-d", f"127.0.0.1:{proxy.port}")
        seen = ask_while(proxy, small, attack.is_running)
        tell(report, words, seen.waits)
        report.figure(f"{words}: connections at the most", seen.most_files - files, "")
        report.figure(f"{words}: growth of memory at the most", (seen.most_memory - memory) / MIB, "MiB")
        until(partial(has_let_go, proxy, files), f"{words}: all of them are gone", 60)
        report.figure(f"{words}: growth of memory afterwards", (proxy.memory() - memory) / MIB, "MiB")


def has_let_go(proxy: Part, files: int) -> bool:
    return proxy.open_files() <= files + 4


@dataclass
class Seen:
    """What others had to wait, in milliseconds, and what the proxy had meanwhile."""

    waits: list[float] = field(default_factory=list)
    most_files: int = 0
    most_memory: int = 0


def ask_while(proxy: Part, url: str, goes_on: Callable[[], bool]) -> Seen:
    """Ask for `url` again and again as long as something `goes_on`: on a connection that is kept, and on new ones."""
    seen = Seen()
    kept = Connection.to(proxy.port)
    while goes_on():
        for connection in (kept, Connection.to(proxy.port)):
            began = time.monotonic()
            get(connection, url, LENGTH)
            seen.waits.append((time.monotonic() - began) * 1000)
        connection.close()
        seen.most_files = max(seen.most_files, proxy.open_files())
        seen.most_memory = max(seen.most_memory, proxy.memory())
        time.sleep(0.005)
    kept.close()
    return seen


def tell(report: Report, words: str, waits: list[float]) -> None:
    """What others had to wait."""
    report.figure(f"{words}: requests of others, all served", len(waits), "")
    report.figure(f"{words}: another waits, median", statistics.median(waits), "ms")
    report.figure(f"{words}: another waits, p99", percentile(waits, 0.99), "ms")
    report.figure(f"{words}: another waits, at its most", max(waits), "ms", below=WORST)
