"""How much one core carries: small requests a second, and bytes a second, beside mitmdump on the same core."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from bench.bodies import checksum
from bench.connection import Connection, check, get
from bench.figures import Report
from bench.parts import HERE, OTHER_CORES, Part, Parts, program

LENGTH = 600
# Connections at one time, rounds, and seconds of each.
LOADS = ((32, 5, 4), (1, 3, 3), (256, 3, 3))
TIMES = 8
BULK = 1 << 30
BULK_ROUNDS = 5
STRAIGHT = "no proxy"
OURS, DEFAULT, QUIET = "streamproxy", "mitmdump", "mitmdump -q"
# How mitmdump is told not to hold bodies.
STREAMED = ("--set", "stream_large_bodies=1")
Measured = TypeVar("Measured")


class Round(NamedTuple):
    """What wrk saw in one round, and the share of its core that the proxy used."""

    rate: float
    p50: float
    p99: float
    busy: float


class Fetched(NamedTuple):
    """How fast one large body came, and how many seconds the proxy was on its core for it."""

    rate: float
    busy: float


def run_load(proxy: Part, command: list[str], seconds: int) -> tuple[Round, dict[str, float]]:
    """Run the program that makes the load, beside `proxy` for as long; what came of it, and all that it told."""
    command = ["taskset", "-c", ",".join(map(str, OTHER_CORES)), *command]
    busy, began = proxy.processor_seconds(), time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, cwd=HERE.parent)
    busy = (proxy.processor_seconds() - busy) / (time.monotonic() - began)
    check(ran.returncode == 0, f"{proxy.name}: {ran.stderr or ran.stdout}")
    told = json.loads(ran.stdout.splitlines()[-1])
    check(told["wrong"] == 0, f"{proxy.name}: {told['wrong']} wrong answers")
    check(told["requests"] > 0, f"{proxy.name}: no answer in {seconds} s")
    return Round(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"], busy), told


def wrk(proxy: Part, url: str, connections: int, seconds: int) -> Round:
    """One round; every answer was 200 and of the right length."""
    probe = Connection.to(proxy.port)
    probe.ask("GET", url)
    head = probe.answer()
    check(head.status == 200 and len(b"".join(probe.body(head))) == LENGTH, f"{proxy.name}: {head.line}")
    probe.close()
    command = [program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout"]
    command += ["30s", "-s", str(HERE / "absolute.lua"), proxy.url("/"), "--", url]
    found, told = run_load(proxy, command, seconds)
    # wrk counts what it read when it stops: answers that were under way are in the bytes alone.
    each = told["bytes"] / told["requests"]
    most = (head.size + LENGTH) * (1 + (connections + 1) / told["requests"])
    check(head.size + LENGTH - 1 <= each <= most + 1, f"{proxy.name}: {each} bytes an answer")
    return found


def in_turns(rounds: int, ways: Mapping[str, Callable[[], Measured]]) -> dict[str, list[Measured]]:
    """Measure each way once a round."""
    seen: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            seen[name].append(measure())
    return seen


def tell_rounds(report: Report, words: str, seen: Mapping[str, list[Round]], unit: str = "req/s") -> None:
    """The medians of each way."""
    for name, each in seen.items():
        report.figure(f"{words}: {name}", statistics.median(one.rate for one in each), unit)
        report.figure(f"{words}: {name}, p99", statistics.median(one.p99 for one in each), "ms")
        report.figure(f"{words}: {name}, of its core", statistics.median(one.busy for one in each) * 100, "%")


def compare(report: Report, words: str, pairs: Sequence[tuple[float, float]], goal: float | None) -> None:
    """Rounds that lie side by side are compared with each other, and the median of that is the figure."""
    times = [ours / theirs for ours, theirs in pairs]
    report.figure(words, statistics.median(times), "x", at_least=goal)
    report.figure(f"{words}, the worst round", min(times), "x")


def compare_rounds(report: Report, words: str, ours: list[Round], theirs: list[Round], goal: float | None) -> None:
    """By rate, and by what was done in each second on the core, which other programs change less."""
    pairs = list(zip(ours, theirs, strict=True))
    compare(report, words, [(one.rate, other.rate) for one, other in pairs], goal)
    times = [one.rate / one.busy / (other.rate / other.busy) for one, other in pairs]
    report.figure(f"{words}, for each second on its core", statistics.median(times), "x")


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
        ways = {name: partial(wrk, proxy, url, connections, seconds) for name, proxy in proxies.items()}
        seen = in_turns(rounds, ways)
        words = f"{connections} connections"
        tell_rounds(report, words, seen)
        goal = TIMES if connections == LOADS[0][0] else None
        for name in (DEFAULT, QUIET):
            compare_rounds(report, f"{words}: streamproxy to {name}", seen[OURS], seen[name], goal)


def bulk(parts: Parts, report: Report) -> None:
    """One large body, streamed; informative."""
    origin = parts.origin()
    proxies = {STRAIGHT: origin, OURS: parts.streamproxy(), DEFAULT: parts.mitmdump(*STREAMED)}
    bulk_by(report, origin.url, proxies, lambda part: Connection.to(part.port))


def bulk_by(
    report: Report,
    url: Callable[[str], str],
    parts: Mapping[str, Part],
    connect: Callable[[Part], Connection],
) -> None:
    """One large body by each of `parts` in turns, to which `connect` connects; `url` is the origin's."""
    wanted = checksum(BULK)

    def fetch(name: str, part: Part) -> Fetched:
        connection = connect(part)
        get(connection, url("/small"), LENGTH)
        busy, began = part.processor_seconds(), time.monotonic()
        connection.ask("GET", url(f"/send?size={BULK}"))
        head = connection.answer()
        check(head.status == 200, f"{name}: {head.line}")
        found, length = 0, 0
        for data in connection.body(head):
            found = zlib.crc32(data, found)
            length += len(data)
        took = time.monotonic() - began
        busy = part.processor_seconds() - busy
        check(length == BULK and found == wanted, f"{name}: the body isn't the one that was sent")
        connection.close()
        return Fetched(BULK / took / 1e6, busy)

    compare_bulk(report, parts, fetch, None)


def compare_bulk(
    report: Report, parts: Mapping[str, Part], fetch: Callable[[str, Part], Fetched], goal: float | None
) -> None:
    """What `fetch` gives for each of `parts`, in turns."""
    report.say(f"1 GiB by each way, {BULK_ROUNDS} rounds")
    seen = in_turns(BULK_ROUNDS, {name: partial(fetch, name, part) for name, part in parts.items()})
    for name, each in seen.items():
        report.figure(f"1 GiB: {name}", statistics.median(one.rate for one in each), "MB/s")
        if name != STRAIGHT:
            report.figure(f"1 GiB: {name}, seconds on its core", statistics.median(one.busy for one in each), "s")
    words = f"1 GiB: {OURS} to {DEFAULT}"
    pairs = list(zip(seen[OURS], seen[DEFAULT], strict=True))
    compare(report, words, [(ours.rate, theirs.rate) for ours, theirs in pairs], goal)
    report.figure(f"{words}, for each second on its core", statistics.median(b.busy / a.busy for a, b in pairs), "x")
