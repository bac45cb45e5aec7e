"""What came of a run, for people: a table of ratios as text and as Markdown, and a picture of them; and all of it as
JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure, Ratio, Report, number
from bench.proxies import HAPROXY, PLAIN, SQUID, STREAMED, TERMINATES

COLUMNS = ("case", "what", "to", "ratio", "worst round", "by core seconds", "goal", "")
COLOURS = {PLAIN: "#1f6f8b", STREAMED: "#5fb3b3", SQUID: "#d98c3f", HAPROXY: "#7a4f9a", TERMINATES: "#b79acb"}
# What isn't among them.
OTHER_COLOUR = "#888888"
# The picture's axis ends there, in times.
LEAST, MOST = 0.02, 200


def _rows(ratios: Sequence[Ratio]) -> list[tuple[str, ...]]:
    return [
        (
            each.case,
            each.words + ("" if each.more_is_better else " (less is better)"),
            each.other,
            number(each.ratio),
            number(each.worst),
            "" if each.by_core is None else number(each.by_core),
            each.goal_words,
            "" if each.met is None else "met" if each.met else "MISSED",
        )
        for each in ratios
    ]


def table(ratios: Sequence[Ratio]) -> str:
    """The ratios in columns, for a screen: streamproxy's figure by the other's."""
    rows = [COLUMNS, *_rows(ratios)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def markdown(report: Report, facts: Mapping[str, Any], versions: Mapping[str, str], picture: str | None) -> str:
    """All that is worth reading, in Markdown."""
    told = [f"# Measured {facts['started']}"]
    told += ["\n".join(f"- {name}: {value}" for name, value in {**facts, **versions}.items())]
    if picture is not None:
        told += [f"![ratios]({picture})"]
    if report.ratios:
        told += ["## streamproxy to others", "Of what streamproxy did by what the other did, the median of the rounds."]
        told += [markdown_table(COLUMNS, _rows(report.ratios))]
    told += [
        "## All figures",
        markdown_table(("case", "figure", "result", "spread", "unit", "goal"), _all(report.figures)),
    ]
    for title, lines in (
        ("Not measured", report.not_measured),
        ("Not here", [f"{name}: {words}" for name, words in report.missing.items()]),
        ("Failed", report.failures),
    ):
        if lines:
            told += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(told) + "\n"


def _all(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    return [
        (
            each.case,
            each.name,
            number(each.result),
            "" if each.spread is None else f"{number(each.spread[0])} to {number(each.spread[1])}",
            each.unit,
            "" if each.goal is None else f"{each.goal}: {'met' if each.met else 'MISSED'}",
        )
        for each in figures
    ]


def times_better(ratio: Ratio, value: float) -> float:
    """`value`, a ratio of that kind, as how many times better streamproxy is; within the picture's axis."""
    if not ratio.more_is_better:
        value = 1 / value if value > 0 else MOST
    return min(max(value, LEAST), MOST)


def draw(ratios: Sequence[Ratio], title: str, files: Sequence[Path]) -> None:
    """A bar for each ratio on a logarithmic axis, in groups by case, with a mark where its goal is."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]
    from matplotlib.patches import Patch  # type: ignore[import-not-found, unused-ignore]

    groups: dict[str, list[Ratio]] = {}
    for each in ratios:
        groups.setdefault(f"{each.case}: {each.words}", []).append(each)
    bars = len(ratios) + len(groups)
    figure, axes = pyplot.subplots(figsize=(11, 1.8 + 0.19 * bars), layout="constrained")
    at, places = 0.0, []
    for members in groups.values():
        places.append(at + (len(members) - 1) / 2)
        for each in members:
            length = times_better(each, each.ratio)
            axes.barh(at, length - 1, left=1, height=0.82, color=COLOURS.get(each.other, OTHER_COLOUR))
            words = f" {number(length)} " + ("MISSED" if each.met is False else "")
            side = "left" if length >= 1 else "right"
            colour = "#c02020" if each.met is False else "black"
            beneath = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8}
            axes.text(length, at, words, va="center", ha=side, fontsize=6.5, color=colour, zorder=4, bbox=beneath)
            if each.goal is not None:
                goal = times_better(each, each.goal)
                axes.plot([goal, goal], [at - 0.5, at + 0.5], color="#c02020", linewidth=2, zorder=3)
            at += 1
        at += 1
    axes.set_xscale("log")
    axes.set_xlim(LEAST, MOST * 2)
    ticks = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    axes.set_yticks(places, list(groups), fontsize=7)
    axes.set_ylim(at - 0.5, -1)
    axes.set_xlabel("times better than the other (right of 1: streamproxy is ahead); red: the goal")
    axes.set_title(title, fontsize=10)
    others = list(dict.fromkeys(each.other for each in ratios))
    shown = [Patch(color=COLOURS.get(name, OTHER_COLOUR), label=f"to {name}") for name in others]
    figure.legend(handles=shown, fontsize=7, loc="outside lower center", ncols=6)
    for path in files:
        figure.savefig(path, dpi=130)
    pyplot.close(figure)


def write_results(folder: Path, report: Report, facts: Mapping[str, Any], versions: Mapping[str, str]) -> list[Path]:
    """Keep all of it in files of `folder`, named after the time; which they are."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    written = [stem.with_suffix(".json")]
    written[0].write_text(json.dumps({**facts, "versions": dict(versions), **report.told()}, indent=1) + "\n")
    pictures = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    drawn = False
    if report.ratios:
        try:
            draw(report.ratios, f"streamproxy beside others, {facts['started']}, {facts['processor']}", pictures)
            drawn = True
        except ImportError as error:
            print(f"no picture: {error} (pip install -e '.[bench]')")
    text = stem.with_suffix(".md")
    text.write_text(markdown(report, facts, versions, pictures[0].name if drawn else None))
    return [*written, text, *(pictures if drawn else [])]
