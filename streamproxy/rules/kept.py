"""What was found once and is the same each time, within a limit of bytes."""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

# What an entry takes beside what it is told to: the places in a dict, a key and its parts, and the value itself.
ENTRY = 300


class Kept(Generic[Key, Value]):
    """Values by keys. When they pass `limit` (bytes), all are forgotten: what is used is soon found again."""

    __slots__ = ("_left", "_limit", "found")

    def __init__(self, limit: int) -> None:
        self.found: dict[Key, Value] = {}
        self._limit = self._left = limit

    def keep(self, key: Key, value: Value, size: int) -> None:
        """Keep a value; `size` in bytes is what grows of it. One that is larger than the limit isn't kept."""
        size += ENTRY
        if size > self._limit:
            return
        if size > self._left:
            self.found.clear()
            self._left = self._limit
        self.found[key] = value
        self._left -= size
