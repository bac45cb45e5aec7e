"""`make autobahn`: go through the testsuite's cases with and without the proxy, and say which of them it makes worse.

Its exit status is 1 if there are any, or if it can't be done. A run is (who is nasty) x (mode) x (scheme); all of them
are carried out that the options don't leave out, and the base lines that they are compared with.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.autobahn.environment import CannotMake, make_environment
from tests.autobahn.outcome import COUNTED, Result, compare, count, read_report
from tests.autobahn.runs import MESSAGES, NONE, STREAM, Setup, carry_out
from tests.system.parts import PROJECT

BUILD = PROJECT / "build" / "autobahn"
# Groups 12 and 13 (compression) are long: of each of their data and negotiations, a few small messages, larger ones and
# fragmented ones.
COMPRESSION = [*(f"12.{data}" for data in range(1, 6)), *(f"13.{offer}" for offer in range(1, 8))]
CASES = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
CASES += [f"{group}.{case}" for group in COMPRESSION for case in (1, 5, 11)]
FACING, MODES, SCHEMES = ["client", "server"], [STREAM, MESSAGES, NONE], ["ws", "wss"]
HEADINGS = ["cases", *COUNTED, "failed", "worse", "seconds"]


def main() -> int:
    options = read_options()
    # As CONTROL-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        python2 = make_environment(BUILD)
    except CannotMake as error:
        print(error, file=sys.stderr)
        return 1
    cases = options.cases.split(",") if options.cases else CASES
    bad: list[str] = []
    baselines: dict[Setup, dict[str, Result]] = {}
    print(f"{'run':<20}", *(f"{heading:>13}" for heading in HEADINGS), flush=True)
    for setup in chosen(options):
        folder = options.report / setup.name
        run = carry_out(setup, cases, python2, folder)
        results = read_report(folder)
        if setup.mode == NONE:
            baselines[setup] = results
        worse = compare(baselines[setup.baseline], results)
        row = [*count(results), "-" if setup.mode == NONE else len(worse), round(run.seconds)]
        print(f"{setup.name:<20}", *(f"{cell:>13}" for cell in row), flush=True)
        fault = run.fault
        if not results:
            fault = fault or "the testsuite left no report"
        elif setup.mode != NONE and run.relayed < len(results):
            fault = fault or f"only {run.relayed} WebSockets went through the proxy in this mode"
        if fault:
            bad.append(f"{setup.name}: {fault}")
        bad += [f"{setup.name} {each}" for each in worse]
    print(f"reports: {options.report}")
    print(*(bad or ["no case is worse than without the proxy"]), sep="\n")
    return 1 if bad else 0


def chosen(options: argparse.Namespace) -> list[Setup]:
    """The runs, each after its base line."""
    modes = [mode for mode in MODES if options.mode in (None, mode) and mode != NONE]
    return [
        Setup(facing, mode, scheme)
        for facing in FACING
        if options.facing in (None, facing)
        for scheme in SCHEMES
        if options.scheme in (None, scheme)
        for mode in (NONE, *modes)
    ]


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--facing", choices=FACING, help="who is nasty")
    parser.add_argument("--mode", choices=MODES, help="what the proxy does with frames; none: only the base line")
    parser.add_argument("--scheme", choices=SCHEMES)
    parser.add_argument("--cases", help="the testsuite's patterns, as in 1.*,2.3; else all but most of 12.* and 13.*")
    parser.add_argument("--report", type=Path, default=BUILD / "reports", metavar="DIR", help="where reports go")
    options = parser.parse_args()
    options.report = options.report.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
