"""Replaces literal bytes in a body as it streams.

However the body is cut, what comes out is what one pass over the whole of it would give: the leftmost find is
replaced first, where two begin at one place the one listed first wins, and what was put in isn't searched
again. That is `re.sub` over an alternation of the finds. It isn't a search for patterns.

Bytes are kept back only while they can't be decided: from the first place at which what has come so far is the
beginning of a find, and the find would be the one to take. So less than the longest find is ever kept.

Each find is looked for by `bytes.find`, once over each byte, and its next place is remembered: the searches go
at the speed of memory, and those that wait far ahead cost nothing until they are reached.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

_NOWHERE = (-1, -1)


class Replace:
    """A filter that puts one text for another; `pairs` are (find, put), in order of precedence."""

    __slots__ = ("_absent", "_finds", "_found", "_held", "_puts", "_starts", "growth")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = list(pairs)
        if not all(find for find, _ in pairs):
            raise ValueError("there is nothing to find in an empty text")
        self._finds = [find for find, _ in pairs]
        self._puts = [put for _, put in pairs]
        self._starts = [find[:1] for find in self._finds]
        # How many bytes one byte can become at the most, on the average of a find.
        self.growth = max([1.0, *(len(put) / len(find) for find, put in pairs)])
        self._held = b""
        # Where in what is held each find stands next: a heap of (place, order), and the orders that aren't there.
        self._found: list[tuple[int, int]] = []
        self._absent = list(range(len(pairs)))

    @property
    def held(self) -> bytes:
        """What is kept back, since more bytes could make a find of it."""
        return self._held

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give what is decided."""
        if not data:
            return b""
        known = len(self._held)
        if known:
            data = self._held + data
        self._search(data, known)
        return self._decide(data, False)

    def finish(self) -> bytes:
        """The end: nothing can follow that makes a find of what is held."""
        return self._decide(self._held, True) if self._held else b""

    def _search(self, data: bytes, known: int) -> None:
        """Look for the finds that weren't there before; they can't end within the `known` bytes."""
        absent = []
        for order in self._absent:
            find = self._finds[order]
            place = data.find(find, max(0, known - len(find) + 1))
            if place < 0:
                absent.append(order)
            else:
                heapq.heappush(self._found, (place, order))
        self._absent = absent

    def _decide(self, data: bytes, ended: bool) -> bytes:
        """Replace what can be decided and keep back the rest."""
        found = self._found
        size = len(data)
        done = 0
        parts: list[bytes] = []
        open_place, open_order = _NOWHERE if ended else self._first_open(data, 0)
        while True:
            while found and found[0][0] < done:
                self._search_again(data, done)
            if open_place >= 0 and open_place < done:
                open_place, open_order = self._first_open(data, done)
            if open_place >= 0 and (not found or (open_place, open_order) < found[0]):
                keep = open_place
                break
            if not found:
                keep = size
                break
            place, order = found[0]
            if place > done:
                parts.append(data[done:place])
            parts.append(self._puts[order])
            done = place + len(self._finds[order])
        self._held = data[keep:]
        if keep and found:
            # A place before `keep` is out of date, and stays so: it is searched again when it comes up.
            self._found = [(place - keep, order) for place, order in found]
        if not done:
            return data if keep == size else data[:keep]
        if keep > done:
            parts.append(data[done:keep])
        return b"".join(parts)

    def _search_again(self, data: bytes, start: int) -> None:
        """Move the find on top of the heap to its next place from `start` on."""
        order = self._found[0][1]
        place = data.find(self._finds[order], start)
        if place < 0:
            heapq.heappop(self._found)
            self._absent.append(order)
        else:
            heapq.heapreplace(self._found, (place, order))

    def _first_open(self, data: bytes, start: int) -> tuple[int, int]:
        """The first (place, order) at which the end of the data is the beginning of a find, and not all of it."""
        size = len(data)
        best, best_order = size, -1
        for order, find in enumerate(self._finds):
            place = max(start, size - len(find) + 1)
            while True:
                place = data.find(self._starts[order], place, best)
                if place < 0:
                    break
                if find.startswith(data[place:]):
                    best, best_order = place, order
                    break
                place += 1
        return (best, best_order) if best_order >= 0 else _NOWHERE
