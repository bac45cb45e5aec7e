"""Compares: each way is measured once a round, so that what else goes on hits all alike, and rounds are set side by
side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bench.figures import Ratio, Report
from bench.proxies import OURS, STRAIGHT

Measured = TypeVar("Measured")


def in_turns(report: Report, rounds: int, ways: Mapping[str, Callable[[], Measured]]) -> dict[str, list[Measured]]:
    """Measure each way once a round, and tell how far that is. Each round begins with another way."""
    seen: dict[str, list[Measured]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            report.progress(f"round {turn + 1} of {rounds}: {name}")
            seen[name].append(ways[name]())
    report.progress("")
    return seen


def tell(
    report: Report,
    words: str,
    seen: Mapping[str, Sequence[float]],
    unit: str,
    *,
    more_is_better: bool = True,
    goals: Mapping[str, float] | None = None,
    by_core: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Report what each way gave in its rounds, and streamproxy beside each other.

    For each way: the median, the least and the most, in `unit`. For each other proxy: the median of the rounds' own
    ratios, streamproxy's by the other's, and the worst round. `goals` are by the other's name: the least that the
    ratio may be, or the most where less is better. `by_core` is what was done for each second that a proxy was on
    its core, which other programs change less.
    """
    goals = goals or {}
    report.keep(words, unit, seen)
    for name, values in seen.items():
        report.figure(f"{words}: {name}", statistics.median(values), unit, spread=(min(values), max(values)))
    for name in (OURS, *goals):
        if name not in seen:
            report.unmeasured(f"{words}: {name} took no part")
    for name, values in seen.items():
        if name in (OURS, STRAIGHT) or OURS not in seen:
            continue
        if min(values) <= 0:
            # What is added to nothing can come out as less than nothing.
            told = f"{words}: {name} has {min(values):g} {unit} in a round, which nothing compares with"
            if name in goals:
                report.unmeasured(told)
            else:
                report.say(told)
            continue
        each = [ours / theirs for ours, theirs in zip(seen[OURS], values, strict=True)]
        found, goal = statistics.median(each), goals.get(name)
        core = None
        if by_core is not None:
            core = statistics.median(a / b for a, b in zip(by_core[OURS], by_core[name], strict=True))
        met = None if goal is None else found >= goal if more_is_better else found <= goal
        worst, best = (min(each), max(each)) if more_is_better else (max(each), min(each))
        report.ratio(Ratio(report.case, words, name, found, worst, core, more_is_better, goal, met, best))
