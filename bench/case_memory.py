"""What a proxy has resident with 200 clients that don't read what they asked for, and after very many exchanges."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from bench.bodies import STAMPED
from bench.case_rate import LENGTH, wrk
from bench.case_stall import KIB, MIB
from bench.connection import READ, Connection, check
from bench.figures import Ratio, Report
from bench.parts import Part, Parts, program
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, STREAMED, start_proxies
from bench.secure import through

STALLED = 200
LARGE = 1 << 30
# What each client reads before it stops, and what some of them read on, later.
READ_FIRST, READ_ON, READ_ON_BY = 64 << 10, 8 << 20, 10
WARM = 16 << 20
# A proxy that has this much is stopped: it would have the machine's, and all that others run there.
MOST_MEMORY = 6 << 30
# Memory is still when it changes by less than this in that many seconds; how long that may take.
STILL, STILL_SECONDS, MOST_SECONDS = 1 << 20, 2.0, 90.0
# What ours may have for each stalled client, in KiB.
GOAL = 256

CONNECTIONS = 32
FIRST, EXCHANGES, FEWER = 1_000, 100_000, 10_000


class Guard(threading.Thread):
    """Ends a proxy that has more than `MOST_MEMORY`, while it is entered; `ended_at` is how much that was then."""

    def __init__(self, proxy: Part) -> None:
        super().__init__(daemon=True)
        self._proxy = proxy
        self._done = threading.Event()
        self.ended_at = 0

    def run(self) -> None:
        while not self._done.wait(0.05):
            # It may have gone, or be a process that has nothing any more.
            with contextlib.suppress(OSError, AssertionError):
                found = self._proxy.memory()
                if found > MOST_MEMORY:
                    self.ended_at = found
                    # It may be too busy to end when it is asked to.
                    os.kill(self._proxy.pid, signal.SIGKILL)
                    return

    def __enter__(self) -> Guard:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


@lru_cache
def beginning() -> bytes:
    """The first bytes of the large body: as many as anybody reads, and a read more."""
    found = bytearray(WARM + READ)
    for number, at in enumerate(range(0, len(found), STAMPED * 4)):
        struct.pack_into(">Q", found, at, number)
    return bytes(found)


class Reader:
    """A client that asks for the large body and reads as much of it as it is told to."""

    def __init__(self, connection: Connection, url: str) -> None:
        self.connection = connection
        connection.ask("GET", url)
        head = connection.answer()
        check(head.status == 200, f"{url}: {head.line}")
        check(head.fields.get("content-length") == str(LARGE), f"{url}: another length")
        self._body = connection.body(head)
        self.length = 0

    def read(self, size: int) -> None:
        """Read until `size` bytes in all are there, or somewhat more."""
        while self.length < size:
            data = next(self._body, b"")
            wanted = beginning()[self.length : self.length + len(data)]
            check(bool(data) and data == wanted, "the body isn't the one that was sent")
            self.length += len(data)


def until_still(proxy: Part, guard: Guard) -> float:
    """Wait until its memory is still, or it has been ended; how many seconds that took."""
    began, since, last = time.monotonic(), time.monotonic(), proxy.memory()
    while time.monotonic() - since < STILL_SECONDS and not guard.ended_at:
        check(time.monotonic() - began < MOST_SECONDS, f"{proxy.name}: its memory isn't still after {MOST_SECONDS:g} s")
        time.sleep(0.1)
        with contextlib.suppress(OSError, AssertionError):
            if abs(proxy.memory() - last) > STILL:
                since, last = time.monotonic(), proxy.memory()
    return time.monotonic() - began


def stall_all(report: Report, name: str, proxy: Part, connect: Callable[[], Connection], url: str) -> float | None:
    """Let all the clients stand still; KiB resident for each of them, or None where the proxy had to be ended."""
    for _ in range(3):
        warm = Reader(connect(), url)
        warm.read(WARM)
        warm.connection.close()
    time.sleep(1)
    before, readers = proxy.memory(), []
    began = time.monotonic()
    with Guard(proxy) as guard:
        try:
            for _ in range(STALLED):
                readers.append(Reader(connect(), url))
                readers[-1].read(READ_FIRST)
            took = until_still(proxy, guard)
        except Exception:
            # It is no wonder that connections break then.
            if not guard.ended_at:
                raise
        if guard.ended_at:
            words = f"{name}: ended when it had {guard.ended_at / MIB:,.0f} MiB, {len(readers)} clients being there"
            report.say(f"{words}, after {time.monotonic() - began:.1f} s")
            return None
        proxy.check_running()
        after = proxy.memory()
        for reader in readers[:: STALLED // READ_ON_BY]:
            reader.read(READ_ON)
    for reader in readers:
        reader.connection.close()
    time.sleep(2)
    report.figure(f"{name}: seconds until its memory was still", took - STILL_SECONDS, "s")
    report.figure(f"{name}: growth that is left when they have gone", (proxy.memory() - before) / MIB, "MiB")
    return (after - before) / STALLED / KIB


def stalled_by(parts: Parts, report: Report, secure: bool) -> None:
    """The stalled clients of each proxy in turn. One that holds bodies whole would read them all: it takes no part."""
    nginx = parts.nginx()
    url = nginx.secure_url("/large") if secure else nginx.url("/large")
    seen: dict[str, float] = {}
    report.say(
        f"{STALLED} clients ask for 1 GiB each and read {READ_FIRST // KIB} KiB; without {PLAIN}, which holds it all"
    )
    for wanted in (OURS, STREAMED, SQUID, HAPROXY):
        for name, proxy in start_proxies(parts, report, [wanted], nginx, secure=secure).items():
            report.progress(name)
            connect = partial(through, proxy, nginx) if secure else partial(Connection.to, proxy.port)
            found = stall_all(report, name, proxy, connect, url)
            proxy.stop()
            if found is not None:
                seen[name] = found
    tell_once(report, "resident memory for each stalled client", seen, "KiB", GOAL)


def tell_once(report: Report, words: str, seen: Mapping[str, float], unit: str, goal: float | None = None) -> None:
    """Report what was measured once for each proxy, ours with its `goal` (the most), and how many times the others."""
    report.keep(words, unit, {name: [value] for name, value in seen.items()})
    for name, value in seen.items():
        report.figure(f"{words}: {name}", value, unit, at_most=goal if name == OURS else None)
    for name, value in seen.items():
        if name != OURS and OURS in seen and value > 0:
            ours = seen[OURS]
            report.ratio(Ratio(report.case, words, name, ours / value, ours / value, None, False, None, None))


def stalled(parts: Parts, report: Report) -> None:
    """In plain HTTP."""
    stalled_by(parts, report, False)


def tls_stalled(parts: Parts, report: Report) -> None:
    """Intercepted."""
    stalled_by(parts, report, True)


def first_exchanges(proxy: Part, url: str, number: int) -> None:
    """About `number` small exchanges, on as many connections at a time as the others come on."""
    connections = [Connection.to(proxy.port) for _ in range(CONNECTIONS)]
    for _ in range(-(-number // CONNECTIONS)):
        for connection in connections:
            connection.ask("GET", url)
        for connection in connections:
            head = connection.answer()
            body = b"".join(connection.body(head))
            check(head.status == 200 and body == b"x" * LENGTH, f"{proxy.name}: {head.line}")
    for connection in connections:
        connection.close()


def after_many(parts: Parts, report: Report) -> None:
    """Small exchanges on kept connections; what has grown since the first thousand."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    url = nginx.url("/small")
    seen: dict[str, float] = {}
    for wanted in (OURS, PLAIN, SQUID, HAPROXY):
        for name, proxy in start_proxies(parts, report, [wanted], nginx).items():
            number = FEWER if name == PLAIN or report.quick else EXCHANGES
            first_exchanges(proxy, url, FIRST)
            time.sleep(1)
            before, files = proxy.memory(), proxy.open_files()
            made, seconds = 0, 1
            while made < number:
                report.progress(f"{name}: {made:,} of {number:,}")
                rate = wrk(proxy, url, CONNECTIONS, seconds).rate
                made += int(rate * seconds)
                seconds = max(1, min(10, round((number - made) / rate)))
            time.sleep(1)
            grown = (proxy.memory() - before) / KIB
            seen[name] = grown * 1000 / made
            report.figure(f"{name}: resident memory after the first {FIRST:,}", before / MIB, "MiB")
            report.figure(f"{name}: exchanges since then", made, "")
            report.figure(f"{name}: growth since then", grown, "KiB")
            most = files if name == OURS else None
            report.figure(f"{name}: open files (before: {files})", proxy.open_files(), "", at_most=most)
            proxy.stop()
    # Nothing is compared: what doesn't grow can't be a part of anything.
    report.keep("growth for each 1,000 exchanges", "KiB", {name: [value] for name, value in seen.items()})
    for name, value in seen.items():
        report.figure(f"growth for each 1,000 exchanges: {name}", value, "KiB")


CASES: dict[str, Callable[[Parts, Report], None]] = {
    "stalled": stalled,
    "tls-stalled": tls_stalled,
    "after-100000": after_many,
}
