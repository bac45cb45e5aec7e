"""Whether something grows: series of samples, their slopes, a verdict for each, a table and a picture."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.figures import number
from bench.picture import markdown_table

COLUMNS = ("figure", "unit", "warm", "at the end", "growth", "noise", "allowed", "")
# What the picture shows, each with its unit.
PANELS = {"resident": "MiB", "files": "", "threads": "", "timers": "", "objects": "", "blocks": ""}
# Slopes are told of pairs of so many points at the most.
MOST_POINTS = 400


class Allowed(NamedTuple):
    """What a figure may grow by over the measured part, which is noise: so much, or such a share of what it is."""

    unit: str
    flat: float
    share: float = 0.0


class Grown(NamedTuple):
    """How a figure has grown: its medians in the first and the last third of what is measured, the slope times the
    length, how far its points lie from that line (the median), and what is allowed."""

    name: str
    unit: str
    first: float
    last: float
    growth: float
    noise: float
    allowed: float

    @property
    def met(self) -> bool:
        return self.growth <= self.allowed

    def row(self) -> tuple[str, ...]:
        numbers = (self.first, self.last, self.growth, self.noise, self.allowed)
        return (self.name, self.unit, *map(number, numbers), "steady" if self.met else "GROWS")


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs of points, which outliers don't move."""
    step = max(1, len(xs) // MOST_POINTS)
    points = list(zip(xs, ys, strict=True))[::step]
    found = [(b[1] - a[1]) / (b[0] - a[0]) for at, a in enumerate(points) for b in points[at + 1 :] if b[0] != a[0]]
    return statistics.median(found) if found else 0.0


def grown(name: str, xs: Sequence[float], ys: Sequence[float], allowed: Allowed) -> Grown:
    """How the series `ys` over `xs` grows from its first point to its last."""
    found, middle = slope(xs, ys), statistics.median(ys)
    at = statistics.median(xs)
    noise = statistics.median(abs(y - middle - found * (x - at)) for x, y in zip(xs, ys, strict=True))
    third = max(1, len(ys) // 3)
    return Grown(
        name,
        allowed.unit,
        statistics.median(ys[:third]),
        statistics.median(ys[-third:]),
        found * (xs[-1] - xs[0]),
        noise,
        max(allowed.flat, allowed.share * abs(middle)),
    )


def table(found: Sequence[Grown]) -> str:
    """The figures in columns."""
    rows = [COLUMNS, *(each.row() for each in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            word.ljust(width) if at in (0, 1, 7) else word.rjust(width)
            for at, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def write(
    folder: Path, facts: Mapping[str, Any], found: Sequence[Grown], samples: Mapping[str, Any], warm: float
) -> list[Path]:
    """Keep all of it as JSON, the table as Markdown, and a picture; where they are."""
    folder.mkdir(exist_ok=True)
    name = f"soak-{time.strftime('%Y%m%d-%H%M%S')}"
    paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    grown_all = [{**each._asdict(), "met": each.met} for each in found]
    paths[0].write_text(json.dumps({"facts": dict(facts), "grown": grown_all, "warm": warm, **samples}, indent=1))
    lines = [f"- {key}: {value}" for key, value in facts.items()]
    rows = markdown_table(COLUMNS, [each.row() for each in found])
    paths[1].write_text("\n\n".join((f"# Soaked {facts['started']}", "\n".join(lines), rows)) + "\n")
    try:
        draw(facts, samples, warm, paths[2])
    except ImportError:
        # What is measured doesn't need a picture.
        print("no picture: matplotlib isn't installed")
        del paths[2]
    return paths


def draw(facts: Mapping[str, Any], samples: Mapping[str, Any], warm: float, path: Path) -> None:
    """A panel for each of `PANELS`, over minutes."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    shape = {"sharex": True, "figsize": (10, 1.6 * len(PANELS)), "layout": "constrained"}
    figure, every = pyplot.subplots(len(PANELS), 1, **shape)
    for axes, (name, unit) in zip(every, PANELS.items(), strict=True):
        for mark in samples["reloaded"]:
            axes.axvline(mark / 60, color="#dddddd", linewidth=0.5, zorder=0)
        axes.axvspan(0, warm / 60, color="#f3eee2", zorder=-1)
        for points, style, colour, words in (
            (samples["loaded"], "-", "#5fb3b3", "under load"),
            (samples["rested"], "o-", "#c0392b", "at rest"),
        ):
            found = [(each["time"] / 60, each[name]) for each in points if name in each]
            if found:
                axes.plot(*zip(*found, strict=True), style, color=colour, markersize=3, linewidth=0.8, label=words)
        axes.set_ylabel(f"{name}\n{unit}".strip(), fontsize=7)
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(axis="y", linewidth=0.3, alpha=0.5)
    every[0].legend(fontsize=7, loc="lower right", ncols=2)
    words = (
        f"{facts['exchanges']:,} exchanges in {facts['seconds'] / 60:.0f} minutes, {facts['reloads']} reloads (grey)"
    )
    every[0].set_title(f"{words}; shaded: warming up", fontsize=9)
    every[-1].set_xlabel("minutes", fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
