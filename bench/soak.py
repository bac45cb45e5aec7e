"""A day of a busy small proxy in an hour or less: `python -m bench.soak [--minutes N] [--exchanges N]
[--connections N]`; see README.md beside this file.

The daemon that is installed beside this, compiled, with a core of its own, gets all kinds of exchanges, good and bad,
and a SIGHUP now and then. It is looked at from outside and from inside, under load and at rest. The exit status is 1 if
anything grows that shouldn't, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import time
from typing import Any

from bench.figures import number
from bench.parts import HERE, CannotMeasure, Parts, until, want_files
from bench.programs import machine
from bench.soak_daemon import DEADLINE, METRICS, Daemon
from bench.soak_figures import Allowed, Grown, grown, table, write

MIB = 1 << 20
# 50 exchanges a second, all day.
A_DAY = 50 * 86_400
MINUTES, CONNECTIONS = 90.0, 96
# The load comes in stints. Between two of them all clients are gone, and what is left is looked at.
STINTS, LONGEST_STINT = 12, 180.0
REST = DEADLINE + 4.0
RELOAD_EACH = 60.0
SAMPLE_EACH = 2.0
# How much of the exchanges is taken for warming up.
WARM = 0.25
LARGEST_LOG = 64 * MIB

# What may come of noise. At rest, as of what is really in use:
AT_REST = {
    "resident": Allowed("MiB", 4.0, 0.04),
    "unique": Allowed("MiB", 4.0, 0.04),
    "files": Allowed("", 2),
    "threads": Allowed("", 1),
    "timers": Allowed("", 3),
    "objects": Allowed("", 1000, 0.01),
    "blocks": Allowed("", 3000, 0.01),
}
# And under load, which is never twice the same.
UNDER_LOAD = {
    "resident": Allowed("MiB", 8.0, 0.08),
    "files": Allowed("", 25, 0.2),
    "threads": Allowed("", 4),
    "timers": Allowed("", 25, 0.2),
    "objects": Allowed("", 5000, 0.1),
    "blocks": Allowed("", 10_000, 0.1),
}


class Soak:
    """One run of it: stints of load, each with a rest behind it, and what was seen."""

    def __init__(self, parts: Parts, minutes: float, exchanges: int, connections: int) -> None:
        self._parts = parts
        self._end = time.monotonic() + minutes * 60
        self._wanted = exchanges
        self._connections = connections
        self.stint = min(LONGEST_STINT, max(15.0, minutes * 60 / STINTS - REST))
        origin = parts.start_module("soak_origin", str(parts.certificates.origin))
        self._ports = [int(origin.printed(rf"^{name} ([0-9]+)$")) for name in ("plain", "tls", "passed")]
        # Bound, and never listened on: who connects is refused.
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))
        self.daemon = Daemon(parts, self._ports[0], self._ports[2])
        self.exchanges = 0
        self.stints: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.failed = 0
        # What was still held, or counted as under way, when nobody was there.
        self.left: list[str] = []
        self.loaded: list[dict[str, float]] = []
        self.rested: list[dict[str, Any]] = []
        self.reloaded: list[float] = []
        self.began = time.time()

    def run(self) -> None:
        """Stint after stint, until there were enough exchanges or the time is over."""
        while self.exchanges < self._wanted and time.monotonic() + self.stint + REST < self._end:
            self._load(len(self.stints))
            self._rest()
            self._say()
        self.daemon.stop()

    def _sample(self) -> dict[str, Any]:
        return {
            "time": time.time() - self.began,
            **self.daemon.inside(),
            **self.daemon.outside(),
            **self.daemon.metrics(),
        }

    def _load(self, seed: int) -> None:
        """One stint: clients that do everything, a process of their own."""
        daemon = self.daemon
        words: list[object] = [daemon.part.port, *self._ports, self._refusing.getsockname()[1]]
        words += [daemon.part.authority, self._parts.certificates.authority, self._connections, self.stint, seed]
        load = self._parts.start_module("soak_load", *map(str, words))
        sampled = reloaded = time.monotonic()
        while load.is_running():
            time.sleep(0.1)
            now = time.monotonic()
            if now - sampled >= SAMPLE_EACH:
                sampled = now
                self.loaded.append(self._sample())
            if now - reloaded >= min(RELOAD_EACH, self.stint / 3):
                reloaded = now
                self.reloaded.append(time.time() - self.began)
                daemon.reload()
            if daemon.log.stat().st_size > LARGEST_LOG or (not daemon.rotations and now - reloaded > self.stint / 6):
                daemon.rotate()
        tally = json.loads(load.log.read_text().splitlines()[-1])
        self.stints.append(tally)
        self.exchanges += tally["exchanges"]
        self.failed += tally["failed"]
        self.failures += tally["failures"]

    def _rest(self) -> None:
        """Nobody is there: what is left is what is in use, or lost."""
        self.daemon.rest(True)
        time.sleep(REST)
        until(lambda: bool(self.daemon.inside().get("resting")), "what it looks like from inside, at rest")
        last = self._sample()
        self.rested.append({**last, "exchanges": self.exchanges})
        self.left += [f"{last[name]:g} {name} at {last['time']:.0f} s" for name in METRICS.values() if last[name]]
        self.daemon.rest(False)

    def _say(self) -> None:
        last, tally = self.rested[-1], self.stints[-1]
        figures = ", ".join(f"{name} {number(last[name])}" for name in ("resident", "files", "timers", "objects"))
        rate = tally["exchanges"] / self.stint
        failed = f", {tally['failed']} FAILED" if tally["failed"] else ""
        print(
            f"{last['time']:7.0f}s  {self.exchanges:,} exchanges ({rate:,.0f}/s{failed}); at rest: {figures}",
            flush=True,
        )

    def verdict(self) -> list[Grown]:
        """How each figure has grown once warm, at rest and under load."""
        warm = self.warm
        found = []
        for where, points, allowed in (("at rest", self.rested, AT_REST), ("under load", self.loaded, UNDER_LOAD)):
            measured = [each for each in points if each["time"] >= warm]
            for name, most in allowed.items():
                series = [(each["time"], each[name]) for each in measured if name in each]
                if len(series) >= 3:
                    found.append(grown(f"{name}, {where}", *zip(*series, strict=True), most))
        return found

    @property
    def warm(self) -> float:
        """When it is warm, in seconds since it began: at the first rest behind `WARM` of the exchanges."""
        return next(each["time"] for each in self.rested if each["exchanges"] >= WARM * self.exchanges)


def main() -> int:
    """Soak, tell, keep; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"at the most ({MINUTES:g})")
    parser.add_argument("--exchanges", type=int, default=A_DAY, help=f"that are enough ({A_DAY:,}: a day, 50 a second)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"clients at a time ({CONNECTIONS})")
    wanted = parser.parse_args()
    want_files(65536)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = {"started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), **machine()}
    with Parts(None) as parts:
        try:
            soak = Soak(parts, wanted.minutes, wanted.exchanges, wanted.connections)
            words = f"stints of {soak.stint:.0f} s, {wanted.connections} clients at a time"
            print(
                f"{facts['started']}: {words}, {wanted.exchanges:,} exchanges or {wanted.minutes:g} minutes", flush=True
            )
            soak.run()
        except CannotMeasure as error:
            print(f"FAILED: {error}")
            return 1
    return tell(soak, facts)


def tell(soak: Soak, facts: dict[str, Any]) -> int:
    """Print what came of it, and keep it; the exit status."""
    found = soak.verdict()
    daemon = soak.daemon
    facts |= {
        "seconds": round(time.time() - soak.began),
        "exchanges": soak.exchanges,
        "on the log": daemon.lines,
        "reloads": daemon.reloads,
        "logs": daemon.rotations + 1,
        "core": round(soak.rested[-1]["core"]),
        "failed": soak.failed,
        "complaints": len(daemon.complaints),
        "left at rest": ", ".join(soak.left) or "nothing",
    }
    print(f"\n{table(found)}\n\n" + "\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    for words in (*soak.failures[:20], *daemon.complaints[:20]):
        print(f"  {words}")
    samples = {"loaded": soak.loaded, "rested": soak.rested, "stints": soak.stints, "reloaded": soak.reloaded}
    kept = write(HERE / "results", facts, found, samples, soak.warm)
    print(f"kept in {', '.join(str(path.relative_to(HERE.parent)) for path in kept)}")
    if len(found) < len(AT_REST) + len(UNDER_LOAD):
        print("too short to tell what grows")
        return 1
    good = all(each.met for each in found) and not (soak.failed or soak.left or daemon.complaints)
    print("steady" if good else "NOT steady")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
