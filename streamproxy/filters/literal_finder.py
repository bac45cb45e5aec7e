"""Looks for one literal, in bytes that may go on.

StringZilla looks for it some ten times as fast as `bytes.find`: hundreds of literals cost less than reading the body.
"""

from __future__ import annotations

from stringzilla import find  # type: ignore[import-not-found,import-untyped]

from streamproxy.filters.finders import FOUND, NOTHING, OPEN, Finder, Literal


class LiteralFinder(Finder):
    """Looks for one literal. It is never over: less than the literal is held."""

    __slots__ = ("_find", "_first", "_size")

    def __init__(self, order: int, pattern: Literal) -> None:
        super().__init__(order, pattern.hold_back, pattern.release, pattern.rule)
        self._find = pattern.find
        self._first = pattern.find[:1]
        self._size = len(pattern.find)
        self.put = pattern.put

    def look(self, data: bytes, start: int, ended: bool) -> None:
        place: int = find(data, self._find, start)
        if place >= 0:
            self._is(FOUND, place, place + self._size)
            return
        size = len(data)
        if not ended:
            place = max(start, size - self._size + 1)
            while (place := data.find(self._first, place)) >= 0:
                if self._find.startswith(data[place:]):
                    self._is(OPEN, place)
                    return
                place += 1
        self._is(NOTHING, size)
