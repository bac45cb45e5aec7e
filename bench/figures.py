"""What was measured: printed as it comes, one line a figure, and kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One result. `goal` and `met` are None where the figure only informs; `spread` is the least and the most."""

    case: str
    name: str
    result: float
    unit: str
    goal: str | None
    met: bool | None
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Ratio:
    """What streamproxy did by what `other` did, in the median of the rounds; in the worst of them, and in the best.

    `by_core` is the same for each second that the two were on their core, where that was measured. `goal` is the
    least that the ratio may be, or the most where less is better.
    """

    case: str
    words: str
    other: str
    ratio: float
    worst: float
    by_core: float | None
    more_is_better: bool
    goal: float | None
    met: bool | None
    best: float | None = None

    @property
    def goal_words(self) -> str:
        if self.goal is None:
            return ""
        return f"{'>=' if self.more_is_better else '<='} {self.goal:g}"


@dataclass(frozen=True)
class Rounds:
    """What each way gave in each round, as it was measured."""

    case: str
    words: str
    unit: str
    seen: dict[str, list[float]]


class Report:
    """Prints figures and what is going on. `rounds` and `quick` are what was asked for instead of a case's own."""

    def __init__(self, rounds: int | None = None, quick: bool = False) -> None:
        self.case = ""
        self.figures: list[Figure] = []
        self.ratios: list[Ratio] = []
        self.rounds: list[Rounds] = []
        self.failures: list[str] = []
        self.missing: dict[str, str] = {}
        self.not_measured: list[str] = []
        self.quick = quick
        self._rounds = rounds
        self._started = time.monotonic()
        # How long the line is that the next may be written over.
        self._unfinished = 0

    def rounds_of(self, number: int) -> int:
        """How many rounds to make where a case would make `number`."""
        return self._rounds or (1 if self.quick else number)

    def seconds_of(self, seconds: int) -> int:
        """How long a round lasts that would last `seconds`."""
        return 1 if self.quick else seconds

    def say(self, words: str) -> None:
        """Tell what is being done."""
        self.progress("")
        print(f"{time.monotonic() - self._started:7.1f}s  {self.case}: {words}", flush=True)

    def progress(self, words: str) -> None:
        """Tell how far it is, on a line that the next one takes the place of; only where somebody may be looking."""
        if not sys.stdout.isatty():
            return
        line = f"{time.monotonic() - self._started:7.1f}s  {self.case}: {words}" if words else ""
        print(f"\r{line:{self._unfinished}}\r{line}", end="", flush=True)
        self._unfinished = len(line)

    def figure(
        self,
        name: str,
        result: float,
        unit: str,
        *,
        below: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        spread: tuple[float, float] | None = None,
    ) -> None:
        """A result, and how it does against its goal where it has one."""
        goal, met = None, None
        if below is not None:
            goal, met = f"< {below:g}", result < below
        elif at_most is not None:
            goal, met = f"<= {at_most:g}", result <= at_most
        elif at_least is not None:
            goal, met = f">= {at_least:g}", result >= at_least
        self.figures.append(Figure(self.case, name, round(result, 4), unit, goal, met, spread))
        verdict = "" if met is None else f"goal {goal:9s} {'met' if met else 'MISSED'}"
        if spread is not None and spread[0] != spread[1]:
            verdict = f"{f'{number(spread[0])} to {number(spread[1])}':22s} {verdict}"
        self.progress("")
        print(f"{self.case:20s} {name:66s} {number(result):>10s} {unit:8s} {verdict}".rstrip(), flush=True)

    def keep(self, words: str, unit: str, seen: Mapping[str, Sequence[float]]) -> None:
        """Keep what each way gave in each round."""
        self.rounds.append(Rounds(self.case, words, unit, {name: list(values) for name, values in seen.items()}))

    def ratio(self, ratio: Ratio) -> None:
        """A comparison of streamproxy with another."""
        goal = {"at_least" if ratio.more_is_better else "at_most": ratio.goal}
        words = f"{ratio.words}: streamproxy to {ratio.other}"
        self.ratios.append(ratio)
        least, most = sorted((ratio.worst, ratio.ratio if ratio.best is None else ratio.best))
        self.figure(words, ratio.ratio, "x", spread=(least, most), **goal)
        if ratio.by_core is not None:
            self.figure(f"{words}, by core seconds", ratio.by_core, "x")

    def is_missing(self, name: str, words: str) -> None:
        """A program that isn't installed; `words` tell what brings it."""
        self.missing[name] = words
        self.say(f"without {name}: {words}")

    def unmeasured(self, words: str) -> None:
        """A goal that couldn't be measured, for somebody else's part is missing."""
        self.not_measured.append(f"{self.case}: {words}")

    def failed(self, words: str) -> None:
        """A case that couldn't be measured, or whose answers were wrong."""
        self.failures.append(f"{self.case}: {words}")
        self.progress("")
        print(f"{self.case:20s} FAILED: {words}", flush=True)

    @property
    def missed(self) -> list[Figure]:
        return [each for each in self.figures if each.met is False]

    def summary(self) -> None:
        """Say again what was missed, behind all the rest."""
        met = sum(each.met is True for each in self.figures)
        print(
            f"\n{met} goals met, {len(self.missed)} missed, {len(self.not_measured)} not measured, "
            f"{len(self.failures)} cases failed"
        )
        for each in self.missed:
            print(f"missed: {each.case}: {each.name}: {number(each.result)} {each.unit}, goal {each.goal}")
        for words in self.not_measured:
            print(f"not measured: {words}")
        for name, words in self.missing.items():
            print(f"not here: {name}: {words}")
        for words in self.failures:
            print(f"failed: {words}")

    def told(self) -> dict[str, Any]:
        """All of it, as it is kept."""
        return {
            "figures": [vars(each) for each in self.figures],
            "ratios": [vars(each) for each in self.ratios],
            "rounds": [vars(each) for each in self.rounds],
            "not measured": self.not_measured,
            "not here": self.missing,
            "failures": self.failures,
        }


def number(value: float) -> str:
    """A number with as many digits as it is worth."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of `values` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
