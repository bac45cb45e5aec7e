"""What looks for a pattern of a `Replace` in the bytes that are there so far: what all of them have in common.

A finder remembers the next place that matters to it, so that each looks at each byte once: a match (`FOUND`), a place
from which the bytes may become one (`OPEN`), or one that stayed open for longer than it may (`OVER`). What comes first
among the finders, and what is done about it, is decided in `replace`.

Whether a place is `OVER` is asked of the bytes up to one more than `hold_back` behind it, whatever else has come: so
it doesn't depend on how the body was cut.
"""

from __future__ import annotations

from typing import NamedTuple

from streamproxy.filters.patterns import CompiledRegex, Template

NOTHING = 0
FOUND = 1
OPEN = 2
OVER = 3


class Literal(NamedTuple):
    """Bytes to find, and what to put there. `rule` is for people."""

    find: bytes
    put: bytes
    hold_back: int
    release: bool
    rule: str


class Regex(NamedTuple):
    """A regex to find, and what to put there; `seconds` are what it may take (see `Replace`)."""

    find: CompiledRegex
    put: Template
    hold_back: int
    release: bool
    rule: str
    seconds: float


Pattern = Literal | Regex


class Finder:
    """Looks for something. `place` is where it stands next, in the bytes it was last given; `state` is what is there.

    With `NOTHING` that is their end, or after it. `order` is of the pattern that is there, among all.
    """

    __slots__ = ("end", "hold_back", "order", "place", "put", "release", "rule", "state")

    def __init__(self, order: int, hold_back: int, release: bool, rule: str) -> None:
        self.order = order
        self.hold_back = hold_back
        self.release = release
        self.rule = rule
        self.state = NOTHING
        self.place = 0
        self.end = 0  # of what was found
        self.put = b""  # what goes there

    def look(self, data: bytes, start: int, ended: bool) -> None:
        """Find what comes next in the data, from `start` on. `ended`: nothing will follow."""
        raise NotImplementedError

    def restart(self) -> None:
        """What it found of the bytes that it was given may have moved, or there are more of them."""

    def more(self, size: int) -> None:
        """So many more bytes of the body have come."""

    def _is(self, state: int, place: int, end: int = 0) -> None:
        self.state = state
        self.place = place
        self.end = end
