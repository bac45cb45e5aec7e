"""Looks for one regex, in bytes that may go on.

Whether a place is over its `hold_back` is asked of so many bytes behind it. An attempt that came to the end of some
bytes comes to the end of fewer, too; so looking for open places at ends no more than `hold_back` apart finds all that
could be over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stringzilla import find  # type: ignore[import-not-found,import-untyped]

from streamproxy.filters.chain import PIECE, FilterError
from streamproxy.filters.finders import FOUND, NOTHING, OPEN, OVER, Finder, Regex
from streamproxy.filters.regex_syntax import MANY_WAYS

# A try at a head costs as much as searching so many bytes in a block.
_BYTES_FOR_TRY = 64
_MANY_TRIED = 8

# A clock costs more than most searches. What is over in so few steps at each place doesn't need one, nor does a try at
# one place that can go in so few ways; many tries do.
_FEW_STEPS = 5000
_FEW_FOR_TRY = 20_000
# What of all time a regex may take at the most, for ever.
_SHARE = 0.25


class RegexFinder(Finder):
    """Looks for one regex, in the way that its syntax allows.

    One that looks at no more than `hold_back` bytes is searched in all there is; only near the end can it be open.
    One without such a bound is tried where its head is; where there is none, or it is everywhere, blocks are searched.
    """

    __slots__ = (
        "_begins",
        "_block",
        "_budget",
        "_clock",
        "_head_steps",
        "_heads",
        "_last",
        "_near",
        "_open",
        "_regex",
        "_seconds",
        "_steps",
        "_template",
        "_until",
        "_ways",
    )

    def __init__(self, order: int, pattern: Regex, clock: Callable[[], float] | None) -> None:
        super().__init__(order, pattern.hold_back, pattern.release, pattern.rule)
        syntax = pattern.find.syntax
        self._regex = pattern.find
        self._begins = syntax.begins
        self._template = pattern.put
        self._ways = syntax.ways
        self._steps = syntax.ways * (MANY_WAYS if syntax.reach is None else syntax.reach)
        self._head_steps = 0 if syntax.head is None else syntax.head.ways * syntax.head.reach
        self._seconds = pattern.seconds
        self._clock = clock
        # How many seconds it may still take, when it last took any, and until when it may now.
        self._budget = pattern.seconds
        self._last = 0.0
        self._until = 0.0
        # How far before the end an attempt can come to it; -1 is anywhere. The same for the head.
        self._near = -1 if syntax.reach is None else syntax.reach - 1
        self._heads = -1 if syntax.head is None else syntax.head.reach - 1
        if self._near > self.hold_back:
            self._near = -1
        if self._heads > self.hold_back:
            self._heads = -1
        # Where the block being searched ends, and the first place in it, from where it was looked, that is open there.
        self._block = -1
        self._open = -1

    def restart(self) -> None:
        self._block = -1

    def more(self, size: int) -> None:
        self._budget = min(self._seconds, self._budget + self._seconds * size / PIECE)

    def look(self, data: bytes, start: int, ended: bool) -> None:
        try:
            if self._near >= 0:
                self._look_near(data, start, ended)
            elif self._heads >= 0 and self._block < 0:
                self._look_at_heads(data, start, ended)
            else:
                self._look_in_blocks(data, start, ended)
        except (TimeoutError, MemoryError):
            raise FilterError(f"rule {self.rule!r}: its regex took too long") from None
        self._took()

    def _left(self, steps: int) -> float | None:
        """The seconds that a search may take; None, for as long as it needs, if there are few steps to go."""
        if steps <= _FEW_STEPS:
            return None
        if self._clock is None:
            return self._seconds
        now = self._clock()
        if not self._until:
            # However fine a body is cut: a search that is begun anew for each byte has no more time for that.
            self._budget = min(self._seconds, self._budget + (now - self._last) * _SHARE)
            self._until = now + self._budget
        if now >= self._until:
            raise TimeoutError
        return self._until - now

    def _took(self) -> None:
        """Charge what a look has taken, if the clock was asked."""
        if self._until and self._clock is not None:
            self._last = self._clock()
            self._budget = self._until - self._last
            self._until = 0.0

    def _found(self, match: Any) -> None:
        self.put = self._template.fill(match)
        self._is(FOUND, match.start(), match.end())

    def _first_open(self, probe: Any, data: bytes, start: int, end: int) -> int:
        """The first place from `start` on that is open at `end`, which is `end` if there is none."""
        might = probe.search(data, start, end, partial=True, timeout=self._left(self._steps))
        return end if might is None else int(might.start())

    def _search(self, pattern: Any, data: bytes, start: int, steps: int) -> Any:
        """The first match from `start` on. Where every match begins with the same bytes, these are looked for."""
        at = start
        if self._begins:
            tried = 0
            while tried <= _MANY_TRIED or tried <= (at - start) // _BYTES_FOR_TRY:
                at = find(data, self._begins, at)
                if at < 0:
                    return None
                match = pattern.match(data, at, timeout=self._left(steps if tried < 16 else MANY_WAYS))
                if match is not None:
                    return match
                at += 1
                tried += 1
        return pattern.search(data, at, timeout=self._left(steps))

    def _look_near(self, data: bytes, start: int, ended: bool) -> None:
        size = len(data)
        match = self._search(self._regex.pattern, data, start, self._steps)
        if not ended:
            tail = max(start, size - self._near)
            if match is None or match.start() >= tail:
                place = self._first_open(self._regex.probe, data, tail, size)
                if place < size and (match is None or place <= match.start()):
                    self._is(OPEN, place)
                    return
        if match is None:
            self._is(NOTHING, size)
        else:
            self._found(match)

    def _look_at_heads(self, data: bytes, start: int, ended: bool) -> None:
        size = len(data)
        tail = size if ended else max(start, size - self._heads)
        place = start
        tried = 0
        while place < size:
            match = self._search(self._regex.head, data, place, self._head_steps)
            at: int = size if match is None else match.start()
            if at >= tail:
                at = min(at, self._first_open(self._regex.head_probe, data, max(tail, place), size))
            if at >= size:
                break
            if self._decided_at(data, at, ended):
                return
            place = at + 1
            tried += 1
            if not tried & 15:
                self._left(MANY_WAYS)
            if tried > _MANY_TRIED and tried > (place - start) // _BYTES_FOR_TRY:
                # The head tells too little here.
                self._look_in_blocks(data, place, ended)
                return
        self._is(NOTHING, size)

    def _look_in_blocks(self, data: bytes, start: int, ended: bool) -> None:
        size = len(data)
        place = start
        while place < size:
            if place >= self._block:
                self._block = min(place + self.hold_back, size)
                self._open = -1
            end = self._block
            match = self._regex.pattern.search(data, place, end, timeout=self._left(self._steps))
            if end < size or not ended:
                if self._open < place:
                    self._open = self._first_open(self._regex.probe, data, place, end)
                at = self._open
                if at < end and (match is None or at <= match.start()):
                    if self._decided_at(data, at, ended):
                        return
                    place = at + 1
                    continue
            if match is not None:
                self._found(match)
                return
            place = end
        self._is(NOTHING, size)

    def _decided_at(self, data: bytes, place: int, ended: bool) -> bool:
        """Try this one place. Whether there is something."""
        left = self._left(0 if self._ways <= _FEW_FOR_TRY else MANY_WAYS)
        size = len(data)
        limit = place + self.hold_back + 1
        end = min(limit, size)
        if limit <= size or not ended:
            if self._regex.probe.match(data, place, end, partial=True, timeout=left) is not None:
                self._is(OVER if limit <= size else OPEN, place)
                return True
        match = self._regex.pattern.match(data, place, end, timeout=left)
        if match is None:
            return False
        self._found(match)
        return True
