"""How much one core carries: small requests a second, and bytes a second, beside mitmdump on the same core."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import zlib
from typing import NamedTuple

from bench.bodies import checksum
from bench.connection import Connection, check, get
from bench.figures import Report
from bench.parts import HERE, OTHER_CORES, Part, Parts, program

LENGTH = 600
# Connections at one time, rounds, and seconds of each.
LOADS = ((32, 5, 4), (1, 3, 3), (256, 3, 3))
TIMES = 8
BULK = 1 << 30
BULK_ROUNDS = 3
OURS, DEFAULT, QUIET = "streamproxy", "mitmdump", "mitmdump -q"


class Round(NamedTuple):
    """What wrk saw in one round, and the share of its core that the proxy used."""

    rate: float
    p50: float
    p99: float
    busy: float


def wrk(proxy: Part, url: str, connections: int, seconds: int) -> Round:
    """One round; every answer was 200 and of the right length."""
    probe = Connection.to(proxy.port)
    probe.ask("GET", url)
    head = probe.answer()
    check(head.status == 200 and len(b"".join(probe.body(head))) == LENGTH, f"{proxy.name}: {head.line}")
    probe.close()
    cores = ",".join(map(str, OTHER_CORES))
    command = ["taskset", "-c", cores, program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout"]
    command += ["30s", "-s", str(HERE / "absolute.lua"), proxy.url("/"), "--", url]
    busy, began = proxy.processor_seconds(), time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    busy = (proxy.processor_seconds() - busy) / (time.monotonic() - began)
    check(ran.returncode == 0, f"wrk: {ran.stderr or ran.stdout}")
    told = json.loads(ran.stdout.splitlines()[-1])
    check(told["wrong"] == 0, f"{proxy.name}: {told['wrong']} wrong answers")
    # wrk counts what it read when it stops: answers that were under way are in the bytes alone.
    each = told["bytes"] / told["requests"]
    most = (head.size + LENGTH) * (1 + (connections + 1) / told["requests"])
    check(head.size + LENGTH - 1 <= each <= most + 1, f"{proxy.name}: {each} bytes an answer")
    return Round(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"], busy)


def rate(parts: Parts, report: Report) -> None:
    """Small requests on kept connections, the proxies in turns."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    url = nginx.url("/small")
    proxies = {OURS: parts.streamproxy(), DEFAULT: parts.mitmdump(), QUIET: parts.mitmdump("-q")}
    for proxy in proxies.values():
        wrk(proxy, url, 32, 1)
    for connections, rounds, seconds in LOADS:
        report.say(f"{connections} connections: {rounds} rounds of {seconds} s for each proxy")
        seen: dict[str, list[Round]] = {name: [] for name in proxies}
        for _ in range(rounds):
            for name, proxy in proxies.items():
                seen[name].append(wrk(proxy, url, connections, seconds))
        words = f"{connections} connections"
        for name, each in seen.items():
            report.figure(f"{words}: {name}", statistics.median(one.rate for one in each), "req/s")
            report.figure(f"{words}: {name}, p99", statistics.median(one.p99 for one in each), "ms")
            report.figure(f"{words}: {name}, of its core", statistics.median(one.busy for one in each) * 100, "%")
        for name in (DEFAULT, QUIET):
            # Rounds that lie side by side are compared with each other, and the median of that is the figure.
            pairs = list(zip(seen[OURS], seen[name], strict=True))
            times = [ours.rate / theirs.rate for ours, theirs in pairs]
            goal = TIMES if connections == LOADS[0][0] else None
            report.figure(f"{words}: streamproxy to {name}", statistics.median(times), "x", at_least=goal)
            report.figure(f"{words}: streamproxy to {name}, the worst round", min(times), "x")
            # The same for each second that it had its core, which other programs on the machine change less.
            times = [ours.rate / ours.busy / (theirs.rate / theirs.busy) for ours, theirs in pairs]
            report.figure(f"{words}: streamproxy to {name}, for each second on its core", statistics.median(times), "x")


def bulk(parts: Parts, report: Report) -> None:
    """One large body, streamed; informative."""
    origin = parts.origin()
    proxies = {
        OURS: parts.streamproxy(),
        "mitmdump stream_large_bodies=1": parts.mitmdump("--set", "stream_large_bodies=1"),
    }
    wanted = checksum(BULK)
    seen: dict[str, list[float]] = {name: [] for name in ("no proxy", *proxies)}
    for number in range(BULK_ROUNDS):
        report.say(f"1 GiB by each proxy, round {number + 1} of {BULK_ROUNDS}")
        for name, port in (("no proxy", origin.port), *((name, proxy.port) for name, proxy in proxies.items())):
            connection = Connection.to(port)
            get(connection, origin.url("/small"), LENGTH)
            began = time.monotonic()
            connection.ask("GET", origin.url(f"/send?size={BULK}"))
            head = connection.answer()
            check(head.status == 200, f"{name}: {head.line}")
            found, length = 0, 0
            for data in connection.body(head):
                found = zlib.crc32(data, found)
                length += len(data)
            took = time.monotonic() - began
            check(length == BULK and found == wanted, f"{name}: the body isn't the one that was sent")
            connection.close()
            seen[name].append(BULK / took / 1e6)
    for name, rates in seen.items():
        report.figure(f"1 GiB: {name}", statistics.median(rates), "MB/s")
    ours, theirs = (statistics.median(seen[name]) for name in proxies)
    report.figure("1 GiB: streamproxy to mitmdump", ours / theirs, "x")
