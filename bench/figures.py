"""What was measured: printed as it comes, one line a figure, and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One result. `goal` and `met` are None where the figure only informs."""

    case: str
    name: str
    result: float
    unit: str
    goal: str | None
    met: bool | None


class Report:
    """Prints figures and what is going on."""

    def __init__(self) -> None:
        self.case = ""
        self.figures: list[Figure] = []
        self.failures: list[str] = []
        self._started = time.monotonic()

    def say(self, words: str) -> None:
        """Tell what is being done."""
        print(f"{time.monotonic() - self._started:7.1f}s  {self.case}: {words}", flush=True)

    def figure(
        self, name: str, result: float, unit: str, *, below: float | None = None, at_least: float | None = None
    ) -> None:
        """A result, and how it does against its goal where it has one."""
        goal, met = None, None
        if below is not None:
            goal, met = f"< {below:g}", result < below
        elif at_least is not None:
            goal, met = f">= {at_least:g}", result >= at_least
        self.figures.append(Figure(self.case, name, round(result, 4), unit, goal, met))
        verdict = "" if met is None else f"goal {goal:9s} {'met' if met else 'MISSED'}"
        print(f"{self.case:20s} {name:66s} {_number(result):>10s} {unit:8s} {verdict}".rstrip(), flush=True)

    def failed(self, words: str) -> None:
        """A case that couldn't be measured, or whose answers were wrong."""
        self.failures.append(f"{self.case}: {words}")
        print(f"{self.case:20s} FAILED: {words}", flush=True)

    @property
    def missed(self) -> list[Figure]:
        return [each for each in self.figures if each.met is False]

    def summary(self) -> None:
        """Say again what was missed, behind all the rest."""
        met = sum(each.met is True for each in self.figures)
        print(f"\n{met} goals met, {len(self.missed)} missed, {len(self.failures)} cases failed")
        for each in self.missed:
            print(f"missed: {each.case}: {each.name}: {_number(each.result)} {each.unit}, goal {each.goal}")
        for words in self.failures:
            print(f"failed: {words}")

    def write(self, folder: Path) -> Path:
        """Keep all of it in a file of `folder`, named after the time."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
        told = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "figures": [asdict(each) for each in self.figures],
            "failures": self.failures,
        }
        path.write_text(json.dumps(told, indent=1) + "\n")
        return path


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of `values` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
