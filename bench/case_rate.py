"""How many small requests a second one core carries, plain: on kept connections, and on a new one for each."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bench.compare import in_turns, tell
from bench.connection import Connection, check
from bench.figures import Report
from bench.parts import HERE, PROXY_CORE, Part, Parts, pinned, program
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, STRAIGHT, STREAMED, start_proxies

LENGTH = 600
# Clients at one time: rounds, and seconds of each.
LOADS = {1: (3, 3), 32: (5, 4), 256: (3, 3)}
NAMES = (OURS, PLAIN, STREAMED, SQUID, HAPROXY)
GOALS = {PLAIN: 15.0, SQUID: 1.0}
# The kernel counts a process's seconds in steps of this.
TICK = 0.01


class Round(NamedTuple):
    """What the load saw in one round, and the share of its core that the proxy used."""

    rate: float
    p50: float
    p99: float
    busy: float

    @property
    def by_core(self) -> float:
        """Requests for each second on its core."""
        return self.rate / self.busy


def run_load(proxy: Part, command: list[str], seconds: int) -> tuple[Round, dict[str, float]]:
    """Run the program that makes the load, beside `proxy` for as long; what came of it, and all that it told."""
    command = [*pinned(), *command]
    busy, began = proxy.processor_seconds(), time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, cwd=HERE.parent)
    took = time.monotonic() - began
    busy = max(proxy.processor_seconds() - busy, TICK) / took
    check(ran.returncode == 0, f"{proxy.name}: {ran.stderr or ran.stdout}")
    told = json.loads(ran.stdout.splitlines()[-1])
    check(told["wrong"] == 0, f"{proxy.name}: {told['wrong']} wrong answers")
    check(told["requests"] > 0, f"{proxy.name}: no answer in {seconds} s")
    return Round(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"], busy), told


def wrk(proxy: Part, url: str, connections: int, seconds: int, close: bool = False) -> Round:
    """One round; every answer was 200 and of the right length. `close`: each request has its own connection."""
    probe = Connection.to(proxy.port)
    probe.ask("GET", url, *(["Connection: close"] if close else []))
    head = probe.answer()
    body = b"".join(probe.body(head))
    check(head.status == 200 and body == b"x" * LENGTH, f"{proxy.name}: {head.line}")
    probe.close()
    # A body that a rule reads comes in one chunk.
    size = LENGTH if "content-length" in head.fields else LENGTH + len(b"258\r\n\r\n0\r\n\r\n")
    command = [program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout"]
    command += ["30s", "-s", str(HERE / "absolute.lua"), proxy.url("/"), "--", url, *(["close"] if close else [])]
    found, told = run_load(proxy, command, seconds)
    # wrk counts what it read when it stops: answers that were under way are in the bytes alone.
    each = told["bytes"] / told["requests"]
    most = (head.size + size) * (1 + (connections + 1) / told["requests"])
    check(head.size + size - 1 <= each <= most + 1, f"{proxy.name}: {each} bytes an answer")
    return found


def tell_rounds(
    report: Report, words: str, seen: Mapping[str, Sequence[Round]], unit: str, goals: Mapping[str, float]
) -> None:
    """Report rates and compare them; how long answers took and how busy each proxy's core was informs."""
    rates = {name: [one.rate for one in each] for name, each in seen.items()}
    tell(
        report, words, rates, unit, goals=goals, by_core={n: [one.by_core for one in each] for n, each in seen.items()}
    )
    for name, each in seen.items():
        report.figure(f"{words}: {name}, p99", statistics.median(one.p99 for one in each), "ms")
        report.figure(f"{words}: {name}, of its core", statistics.median(one.busy for one in each) * 100, "%")


def measure(
    report: Report,
    words: str,
    ways: Mapping[str, Callable[[int], Round]],
    unit: str,
    connections: int,
    goals: Mapping[str, float],
) -> None:
    """Each of `ways`, which are given the seconds of a round, once to warm up, and then in turns."""
    rounds, seconds = LOADS[connections]
    rounds, seconds = report.rounds_of(rounds), report.seconds_of(seconds)
    report.say(f"{clients(connections)}, {rounds} rounds of {seconds} s each way")
    for name, way in ways.items():
        report.progress(f"warming up: {name}")
        way(1)
    seen = in_turns(report, rounds, {name: partial(way, seconds) for name, way in ways.items()})
    tell_rounds(report, words, seen, unit, goals)


def clients(number: int) -> str:
    """So many clients, in words."""
    return f"{number} client{'s' if number > 1 else ''}"


def small(
    connections: int,
    close: bool,
    goals: Mapping[str, float],
    parts: Parts,
    report: Report,
    *,
    names: Sequence[str] = NAMES,
    **told: Any,
) -> None:
    """Small requests in plain HTTP; `told` is what the proxies are told, as `start_proxies` takes it."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    # With the proxy's core, it is what a proxy would be that costs as little as can be: what the load can reach.
    proxies = {STRAIGHT: parts.nginx(cores=[PROXY_CORE])} | start_proxies(parts, report, names, nginx, **told)

    def way(proxy: Part, seconds: int) -> Round:
        return wrk(proxy, nginx.url("/small"), connections, seconds, close)

    words = f"{clients(connections)}, {'new connections' if close else 'kept'}"
    measure(report, words, {name: partial(way, proxy) for name, proxy in proxies.items()}, "req/s", connections, goals)


CASES: dict[str, Callable[[Parts, Report], None]] = {
    f"{'close' if close else 'rate'}-{connections}": partial(
        small, connections, close, GOALS if connections == 32 and not close else {}
    )
    for close in (False, True)
    for connections in LOADS
}
