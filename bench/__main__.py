"""Measures streamproxy, and beside it what people would use instead: `python -m bench [--mitmdump PROGRAM]
[--rounds N] [--quick] [CASE ...]`; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from bench import (
    case_bulk,
    case_events,
    case_filters,
    case_growth,
    case_memory,
    case_rate,
    case_secure,
    case_start,
    case_websocket,
)
from bench.case_dribble import dribble
from bench.case_hash import hashes
from bench.case_idle import idle
from bench.case_slow import slow_clients
from bench.case_stall import stall_down, stall_up
from bench.case_streams import neighbours, streams
from bench.connection import WrongAnswer
from bench.figures import Report
from bench.parts import CORES, HERE, CannotMeasure, Parts, want_files
from bench.picture import table, write_results
from bench.programs import machine, versions

Case = Callable[[Parts, Report], None]
# What is measured beside others. It runs where no case is named.
COMPARED: dict[str, Case] = {
    **case_rate.CASES,
    **case_secure.COMPARED,
    **case_bulk.CASES,
    **case_filters.COMPARED,
    **case_events.CASES,
    **case_websocket.CASES,
    "idle": idle,
    **case_memory.CASES,
    **case_start.CASES,
    **case_growth.CASES,
}
# What streamproxy alone has to reach.
ALONE: dict[str, Case] = {
    "stall-down": stall_down,
    "stall-up": stall_up,
    "hash": hashes,
    "dribble": dribble,
    "streams": streams,
    "neighbours": neighbours,
    "slow-clients": slow_clients,
    **case_secure.ALONE,
    **case_filters.ALONE,
    **case_events.CODED,
    **case_websocket.ALONE,
}
CASES = COMPARED | ALONE
# No case may take longer, in seconds.
MOST = 1200


class TooLong(Exception):
    """A case that isn't over in time."""


def out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise TooLong(f"not over after {MOST} seconds")


def end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit("ended")


def chosen(words: list[str]) -> list[str]:
    """The cases that `words` name: one by its name, several by what their names begin with, or `all`."""
    names: dict[str, None] = {}
    for word in words:
        found = list(CASES) if word == "all" else [word] if word in CASES else []
        found = found or [name for name in CASES if name.startswith(f"{word}-")]
        if not found:
            raise KeyError(word)
        names |= dict.fromkeys(found)
    return list(names or COMPARED)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--mitmdump", default=os.environ.get("MITMDUMP"), help="which mitmdump (or MITMDUMP)")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds, instead of each case's own number")
    parser.add_argument("--quick", action="store_true", help="one short round of each: to see that it runs")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all, or of {', '.join(CASES)}")
    told = parser.parse_args()
    try:
        names = chosen(told.cases)
    except KeyError as error:
        parser.error(f"no case {error.args[0]}; there are all, {', '.join(CASES)}")
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, out_of_time)
    want_files(65536)
    report = Report(told.rounds, told.quick)
    facts = {"started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "load before": load(), **machine()}
    print(f"{facts['started']}  {len(CORES)} cores, load {facts['load before']}", flush=True)
    for name in names:
        report.case = name
        run(CASES[name], report, told.mitmdump)
    facts |= {"load after": load()}
    if report.ratios:
        print(f"\n{table(report.ratios)}", flush=True)
    report.summary()
    written = write_results(HERE / "results", report, facts, versions(told.mitmdump))
    print(f"load {load()}; kept in {', '.join(str(path.relative_to(HERE.parent)) for path in written)}")
    return 1 if report.missed or report.failures else 0


def run(case: Case, report: Report, mitmdump: str | None) -> None:
    """Run one case, for `MOST` seconds at the most."""
    signal.alarm(MOST)
    try:
        with Parts(mitmdump) as parts:
            case(parts, report)
    except (CannotMeasure, WrongAnswer, TooLong, OSError) as error:
        report.failed(f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)


def load() -> str:
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
