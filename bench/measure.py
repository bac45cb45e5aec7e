"""Measure streamproxy: `python -m bench.measure [--mitmdump PROGRAM] [CASE ...]`; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from bench.case_dribble import dribble
from bench.case_hash import hashes
from bench.case_idle import idle
from bench.case_rate import bulk, rate
from bench.case_secure import (
    tls_bulk,
    tls_new,
    tls_rate,
    tls_stall_down,
    tls_stall_up,
    tls_twice_stall_down,
    tls_twice_stall_up,
)
from bench.case_stall import stall_down, stall_up
from bench.case_streams import neighbours, streams
from bench.connection import WrongAnswer
from bench.figures import Report
from bench.parts import CORES, HERE, CannotMeasure, Parts, want_files

CASES: dict[str, Callable[[Parts, Report], None]] = {
    "stall-down": stall_down,
    "stall-up": stall_up,
    "hash": hashes,
    "dribble": dribble,
    "idle": idle,
    "streams": streams,
    "neighbours": neighbours,
    "rate": rate,
    "bulk": bulk,
    "tls-new": tls_new,
    "tls-rate": tls_rate,
    "tls-bulk": tls_bulk,
    "tls-stall-down": tls_stall_down,
    "tls-stall-up": tls_stall_up,
    "tls-twice-stall-down": tls_twice_stall_down,
    "tls-twice-stall-up": tls_twice_stall_up,
}
# No case may take longer, in seconds.
MOST = 240


class TooLong(Exception):
    """A case that isn't over in time."""


def out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise TooLong(f"not over after {MOST} seconds")


def end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit("ended")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.measure", description=__doc__)
    parser.add_argument("--mitmdump", default=os.environ.get("MITMDUMP"), help="which mitmdump (or MITMDUMP)")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all if none is given")
    told = parser.parse_args()
    for name in told.cases:
        if name not in CASES:
            parser.error(f"no case {name}; there are {', '.join(CASES)}")
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, out_of_time)
    want_files(65536)
    report = Report()
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {len(CORES)} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    for name in told.cases or CASES:
        report.case = name
        signal.alarm(MOST)
        try:
            with Parts(told.mitmdump) as parts:
                CASES[name](parts, report)
        except (CannotMeasure, WrongAnswer, TooLong, OSError) as error:
            report.failed(f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
    report.summary()
    print(f"load {os.getloadavg()[0]:.2f}; kept in {report.write(HERE / 'results').relative_to(HERE.parent)}")
    return 1 if report.missed or report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
