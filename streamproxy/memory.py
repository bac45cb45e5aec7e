"""How much of bodies and messages the process holds at a time, in all (`limits.memory`).

Whoever holds bytes takes them from the one `Memory` of the proxy and gives them back. What is about to be held and
can't be is refused; what has come already, and only waits to go on, is counted all the same, for each such place has a
bound of its own. The objects around the bytes aren't counted.
"""

from __future__ import annotations

from typing import Final

OUT_OF_MEMORY: Final = "the proxy holds as much as limits.memory lets it"


class Memory:
    """So many bytes may be held (`limit`), and so many are (`held`); `refused` is how often more were wanted."""

    __slots__ = ("held", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0

    def take(self, size: int) -> bool:
        """Hold `size` bytes more; False where there is no room for them, and nothing is taken."""
        if self.held + size > self.limit:
            self.refused += 1
            return False
        self.held += size
        return True

    def add(self, size: int) -> None:
        """So many bytes (less, if negative) are held, whether there is room for them or not."""
        self.held += size

    def give_back(self, size: int) -> None:
        """So many bytes are held no longer."""
        self.held -= size

    @property
    def is_scarce(self) -> bool:
        """Whether half of it is in use: who may hold more or less should hold less."""
        return 2 * self.held > self.limit

    @property
    def is_full(self) -> bool:
        """Whether nothing new should begin that would hold more."""
        return self.held >= self.limit


class OutOfMemory(Exception):
    """More would have to be held than may be."""
