"""How much of bodies and messages the process holds at a time, in all (`limits.memory`).

Whoever holds bytes takes them from the one `Memory` of the proxy and gives them back. What is about to be held and
can't be is refused; what has come already, and only waits to go on, is counted all the same, for each such place has a
bound of its own. The objects around the bytes aren't counted.
"""

from __future__ import annotations

from typing import Final

OUT_OF_MEMORY: Final = "the proxy holds as much as limits.memory lets it"


class Memory:
    """So many bytes may be held (`limit`), and so many are (`held`); `refused` is how often more were wanted.

    One may be a share of a `whole`: what it holds is held of that as well.
    """

    __slots__ = ("_shares", "_users", "_whole", "held", "limit", "refused")

    def __init__(self, limit: int, whole: Memory | None = None) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0
        self._whole = whole
        # Those who have a share, and how many of them use it.
        self._shares: dict[str, Memory] = {}
        self._users: dict[str, int] = {}

    def share(self, owner: str) -> Memory:
        """The share of `owner`, half of all, for one more use of it, until `leave`."""
        found = self._shares.get(owner)
        if found is None:
            found = self._shares[owner] = Memory(self.limit // 2, self)
        self._users[owner] = self._users.get(owner, 0) + 1
        return found

    def set_limit(self, limit: int) -> None:
        """So much may be held from now on, and half of it by each who has a share."""
        self.limit = limit
        for share in self._shares.values():
            share.set_limit(limit // 2)

    def leave(self, owner: str) -> None:
        """A use of a share is over."""
        self._users[owner] -= 1
        if not self._users[owner]:
            # Who holds something of it still gives that back.
            del self._users[owner], self._shares[owner]

    def refuse(self) -> None:
        """Something wasn't held."""
        self.refused += 1
        if self._whole is not None:
            self._whole.refuse()

    def take(self, size: int) -> bool:
        """Hold `size` bytes more; False where there is no room for them, and nothing is taken."""
        if self.held + size > self.limit:
            self.refuse()
            return False
        if self._whole is not None and not self._whole.take(size):
            return False
        self.held += size
        return True

    def add(self, size: int) -> None:
        """So many bytes (less, if negative) are held, whether there is room for them or not."""
        self.held += size
        if self._whole is not None:
            self._whole.add(size)

    def give_back(self, size: int) -> None:
        """So many bytes are held no longer."""
        self.add(-size)

    @property
    def is_scarce(self) -> bool:
        """Whether half of it is in use: who may hold more or less should hold less."""
        return 2 * self.held > self.limit

    @property
    def is_full(self) -> bool:
        """Whether nothing new should begin that would hold more."""
        return self.held >= self.limit or (self._whole is not None and self._whole.is_full)

    @property
    def is_passed(self) -> bool:
        """Whether more is held than may be."""
        return self.held > self.limit or (self._whole is not None and self._whole.is_passed)


class OutOfMemory(Exception):
    """More would have to be held than may be."""
