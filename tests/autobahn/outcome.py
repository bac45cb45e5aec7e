"""What came out of runs: the testsuite's reports read, and each case compared with how it went without the proxy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.autobahn.runs import AGENT

# What the testsuite says of a case and of its close, the best first; a case that it has nothing of is the worst.
MISSING = "MISSING"
BEHAVIORS = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"]
BEHAVIORS += ["FAILED", MISSING]
RANK = {behavior: rank for rank, behavior in enumerate(BEHAVIORS)}
COUNTED = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"]


class Result(NamedTuple):
    """How a case went: what came back, and how the connection was closed."""

    behavior: str
    close: str

    def __str__(self) -> str:
        return self.behavior if self.close == self.behavior else f"{self.behavior} (close {self.close})"


class Worse(NamedTuple):
    """A case that went worse through the proxy."""

    case: str
    without: Result
    through: Result

    def __str__(self) -> str:
        return f"{self.case}: {self.through}; without the proxy {self.without}"


NOTHING = Result(MISSING, MISSING)


def read_report(folder: Path) -> dict[str, Result]:
    """The result of each case, in the order of the cases; nothing, where the testsuite didn't come to its end."""
    index = folder / "index.json"
    if not index.exists():
        return {}
    cases = json.loads(index.read_text()).get(AGENT, {})
    ordered = sorted(cases, key=lambda case: [int(number) for number in case.split(".")])
    return {case: Result(cases[case]["behavior"], cases[case]["behaviorClose"]) for case in ordered}


def compare(without: dict[str, Result], through: dict[str, Result]) -> list[Worse]:
    """The cases that went worse."""
    worse = []
    for case, before in without.items():
        after = through.get(case, NOTHING)
        if RANK[after.behavior] > RANK[before.behavior] or RANK[after.close] > RANK[before.close]:
            worse.append(Worse(case, before, after))
    return worse


def count(results: dict[str, Result]) -> list[int]:
    """How many cases there are: in all, of each that is counted by itself, and of all others (that failed)."""
    behaviors = Counter(result.behavior for result in results.values())
    counted = [behaviors[name] for name in COUNTED]
    return [len(results), *counted, len(results) - sum(counted)]
