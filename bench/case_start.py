"""How soon a proxy answers that has just been started, and what it has resident then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.case_stall import MIB
from bench.compare import in_turns, tell
from bench.connection import Connection, get
from bench.figures import Report
from bench.parts import Part, Parts
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, start_proxies

ROUNDS = 5
LENGTH = 600


class Started(NamedTuple):
    """Milliseconds until the first answer, and bytes resident after it."""

    took: float
    memory: int


def age(part: Part) -> float:
    """How long its process has been there, in seconds; the kernel keeps when it began in hundredths."""
    fields = Path(f"/proc/{part.pid}/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def start_once(parts: Parts, report: Report, name: str, nginx: Part) -> Started:
    """Start a proxy, make one request by it, and stop it."""
    (proxy,) = start_proxies(parts, report, [name], nginx).values()
    connection = Connection.to(proxy.port)
    get(connection, nginx.url("/small"), LENGTH)
    found = Started(age(proxy) * 1000, proxy.memory())
    connection.close()
    proxy.stop()
    return found


def start(parts: Parts, report: Report) -> None:
    """Each proxy started anew in each round, in an empty folder; once before, so that its files are in memory."""
    nginx = parts.nginx()
    ways: dict[str, Callable[[], Started]] = {}
    for name in (OURS, PLAIN, SQUID, HAPROXY):
        for proxy in start_proxies(parts, report, [name], nginx).values():
            proxy.stop()
            ways[name] = partial(start_once, parts, report, name, nginx)
    rounds = report.rounds_of(ROUNDS)
    report.say(f"from its start to the first answer, {rounds} rounds")
    seen = in_turns(report, rounds, ways)
    took = {name: [each.took for each in found] for name, found in seen.items()}
    tell(report, "from start to first answer", took, "ms", more_is_better=False)
    memory = {name: [each.memory / MIB for each in found] for name, found in seen.items()}
    tell(report, "resident memory after the first answer", memory, "MiB", more_is_better=False)


CASES: dict[str, Callable[[Parts, Report], None]] = {"start": start}
