"""The filters of one body in one direction, in order.

A filter takes bytes and gives bytes, synchronously; it knows nothing of pressure, of pieces or of who reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol


class Filter(Protocol):
    """One stage of a body's way. It may keep bytes back, within a limit of its own, until it has more.

    `growth` is how many bytes one byte that is fed can become at the most, those kept back aside.
    """

    growth: float

    def feed(self, data: bytes) -> bytes:
        """Take the body's next bytes; give what can be sent on now, which may be nothing yet."""

    def finish(self) -> bytes:
        """The body has ended: give what was kept back. Called once, and `feed` never again."""


class Chain:
    """Filters one behind the other; itself a filter."""

    __slots__ = ("_filters", "growth")

    def __init__(self, filters: Iterable[Filter] = ()) -> None:
        self._filters = tuple(filters)
        self.growth = math.prod(stage.growth for stage in self._filters)

    def __bool__(self) -> bool:
        """Whether there is any filter: an empty chain changes nothing."""
        return bool(self._filters)

    def __repr__(self) -> str:
        return f"Chain({list(self._filters)!r})"

    def feed(self, data: bytes) -> bytes:
        for stage in self._filters:
            if not data:
                break
            data = stage.feed(data)
        return data

    def finish(self) -> bytes:
        data = b""
        for stage in self._filters:
            data = (stage.feed(data) if data else b"") + stage.finish()
        return data
