"""Records a body that goes by: its first bytes, how many there were, and their SHA-256.

It changes nothing and keeps nothing back. Where the bytes are kept, in memory or in a file, is a `Store`'s matter.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from streamproxy.memory import Memory
from streamproxy.wire.message import BodyEvent, End


class Budget:
    """How many bytes may be kept, in all, at a time."""

    __slots__ = ("_memory", "left")

    def __init__(self, size: int, memory: Memory | None = None) -> None:
        self.left = size
        # What all is taken from that is held at all, if it is in memory.
        self._memory = memory

    def take(self, size: int) -> int:
        """As many as there are of `size` bytes."""
        granted = min(size, self.left)
        if self._memory is not None and not self._memory.take(granted):
            return 0
        self.left -= granted
        return granted

    def give_back(self, size: int) -> None:
        self.left += size
        if self._memory is not None:
            self._memory.give_back(size)


class Store(Protocol):
    """Where a tap's bytes go. `path` is of the file, if it is one."""

    @property
    def path(self) -> str | None: ...
    def write(self, data: bytes) -> None:
        """Keep `data`; raises OSError where that can't be done."""

    def content(self) -> bytes | None:
        """What was kept, if it is at hand."""

    def close(self) -> None: ...


class InMemory:
    """Keeps bytes with the flow."""

    path: str | None = None

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, data: bytes) -> None:
        self._kept += data

    def content(self) -> bytes | None:
        return bytes(self._kept)

    def close(self) -> None:
        pass


class Seeing(Protocol):
    """Sees a body's bytes as they go by, and that it ended well."""

    def take(self, data: bytes) -> None: ...
    def end(self) -> None: ...


def show(events: list[BodyEvent], to: Seeing) -> None:
    """Show the bytes in `events`, and that there are no more, to who sees them go by."""
    for event in events:
        if type(event) is bytes:
            to.take(event)
        elif type(event) is End:
            to.end()


class Recorded:
    """A body as it went by: `size` and `sha256` (hexadecimal) are of all that did, `kept` bytes of it are recorded.

    `cut`: there was more than was kept, or it didn't end well. `content` is None if it is in the file `path`.
    """

    __slots__ = ("content", "cut", "kept", "path", "sha256", "size")

    def __init__(
        self, size: int, sha256: str, kept: int, cut: bool, content: bytes | None = None, path: str | None = None
    ) -> None:
        self.size = size
        self.sha256 = sha256
        self.kept = kept
        self.cut = cut
        self.content = content
        self.path = path

    def __repr__(self) -> str:
        return f"<Recorded {self.size} bytes, {self.kept} kept{', cut' if self.cut else ''}>"


class Tap:
    """Keeps the first `limit` bytes in `store`, as far as `budget` has them.

    The budget gets them back by `release`; what is in files stays there, and isn't given back.
    """

    __slots__ = ("_budget", "_digest", "_kept", "_limit", "_size", "_store", "_whole")

    def __init__(self, limit: int, budget: Budget, store: Store) -> None:
        self._limit = limit
        self._budget = budget
        self._store = store
        self._digest = hashlib.sha256()
        self._size = 0
        self._kept = 0
        self._whole = False

    def take(self, data: bytes) -> None:
        """These bytes have gone by."""
        self._digest.update(data)
        if self._kept == self._size and self._kept < self._limit:
            granted = self._budget.take(min(len(data), self._limit - self._kept))
            if granted:
                try:
                    self._store.write(data[:granted])
                except OSError:
                    # Behind this gap nothing more is kept.
                    self._budget.give_back(granted)
                else:
                    self._kept += granted
        self._size += len(data)

    def end(self) -> None:
        """The body has ended well."""
        self._whole = True

    def recorded(self) -> Recorded:
        """What has gone by so far."""
        cut = not self._whole or self._kept < self._size
        store = self._store
        return Recorded(self._size, self._digest.hexdigest(), self._kept, cut, store.content(), store.path)

    def close(self) -> Recorded:
        """Nothing more is kept."""
        self._limit = 0
        self._store.close()
        return self.recorded()

    def release(self) -> None:
        """What was kept in memory isn't needed any more."""
        if self._store.path is None:
            self._budget.give_back(self._kept)
            self._kept = 0


class Captured:
    """What is recorded of one body: as it came in, and as it went out."""

    __slots__ = ("_closed", "_received", "_sent")

    def __init__(self, received: Tap, sent: Tap) -> None:
        self._received = received
        self._sent = sent
        self._closed: tuple[Recorded, Recorded] | None = None

    @property
    def received(self) -> Recorded:
        return self._received.recorded() if self._closed is None else self._closed[0]

    @property
    def sent(self) -> Recorded:
        return self._sent.recorded() if self._closed is None else self._closed[1]

    def close(self) -> tuple[Recorded, Recorded]:
        """The body is over: what was recorded. Its memory is free for others then."""
        if self._closed is None:
            self._closed = self._received.close(), self._sent.close()
            self._received.release()
            self._sent.release()
        return self._closed
