"""A picture of stacks: each frame as wide as it was seen often, upon the one that called it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, ROW, TOP, LETTER = 1600, 17, 40, 6.6
# What is narrower is left out, in pixels.
LEAST = 0.5
OURS, TWISTED, OTHER, NATIVE = "#f4a259", "#8cb9e8", "#d9d9d9", "#a8d5a2"


class Frame:
    """A function where it was called: how often it was seen there, and what it called."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.calls: dict[str, Frame] = {}


def flames(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """An SVG of `stacks`, the outermost frame first in each, with how often each was seen.

    Frames say their whole name and share where the pointer rests on them.
    """
    root = Frame(title)
    depth = 0
    for frames, count in stacks.items():
        at = root
        at.count += count
        depth = max(depth, len(frames))
        for name in frames:
            at = at.calls.setdefault(name, Frame(name))
            at.count += count
    height = TOP + (depth + 2) * ROW
    boxes: list[str] = []
    _draw(root, 0.0, height - ROW, WIDTH / root.count, root.count, boxes)
    legend = f"{title}: streamproxy orange, Twisted blue, other Python grey, C green"
    style = 'font-family="monospace" font-size="11"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {style}>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<text x="8" y="20" font-size="15">{escape(legend)}</text>\n'
        f"{''.join(boxes)}</svg>\n"
    )


def _draw(frame: Frame, left: float, top: float, scale: float, whole: int, boxes: list[str]) -> None:
    width = frame.count * scale
    if width < LEAST:
        return
    words = frame.name
    fits = int(width / LETTER)
    shown = words if len(words) <= fits else words[: fits - 1] + "…" if fits > 3 else ""
    label = f'<text x="{left + 2:.1f}" y="{top + 12:.1f}">{escape(shown)}</text>' if shown else ""
    boxes.append(
        f'<g><title>{escape(words)}: {frame.count / whole:.2%}</title><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{width:.1f}" height="{ROW - 1}" fill="{_colour(words)}" stroke="white"/>{label}</g>\n'
    )
    for call in sorted(frame.calls.values(), key=lambda each: each.name):
        _draw(call, left, top - ROW, scale, whole, boxes)
        left += call.count * scale


def _colour(name: str) -> str:
    if ".py" not in name:
        return NATIVE if "(" in name and name[0] != "<" else OTHER
    return OURS if "(streamproxy/" in name else TWISTED if "(twisted/" in name else OTHER
