"""Replaces literals and what regexes match in a body as it streams, all in one pass.

However the body is cut, what comes out is what one pass over the whole of it would give: the leftmost match is
replaced first, where two begin at one place the pattern listed first wins, and what was put in isn't searched.

Bytes are kept back only while they can't be decided: from the first place at which what has come so far might be the
beginning of a match that would be the one to take. How many that may be is each pattern's `hold_back`; a match that
isn't decided within so many bytes is an overrun, and ends the body or, with `release`, is let go. For how long, is
for whoever has a clock: `release` lets go of what is kept back at this moment.

How the patterns are looked for is in `literal_finder` and `regex_finder`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence

from streamproxy.filters.chain import PIECE, FilterError
from streamproxy.filters.finders import FOUND, NOTHING, OPEN, Finder, Literal, Pattern, Regex
from streamproxy.filters.literal_finder import LiteralFinder
from streamproxy.filters.patterns import CompiledRegex, check_template
from streamproxy.filters.regex_finder import RegexFinder

HOLD_BACK = 4096
SECONDS = 0.25


class Overrun(FilterError):
    """More bytes than a pattern may hold back might be the beginning of a match."""


def literal(find: bytes, put: bytes, hold_back: int = HOLD_BACK, release: bool = False, rule: str = "") -> Literal:
    """Bytes to replace by others. Raises ValueError for none, and for more than can be found within `hold_back`."""
    if not find:
        raise ValueError("there is nothing to find in an empty text")
    if len(find) - 1 > hold_back:
        raise ValueError(f"to find {len(find)} bytes, {len(find) - 1} must be held back, and {hold_back} may be")
    return Literal(find, put, hold_back, release, rule)


def regex(
    find: CompiledRegex,
    put: str,
    hold_back: int = HOLD_BACK,
    release: bool = False,
    rule: str = "",
    seconds: float = SECONDS,
) -> Regex:
    """A regex (of `compile_regex`) to replace by a template (see `check_template`, whose ValueErrors it raises).

    `seconds` is how much time it may take, for a piece of a body or for a search (see `Replace`).
    """
    if hold_back < 1:
        raise ValueError("a regex must hold back one byte at least")
    return Regex(find, check_template(find, put), hold_back, release, rule, seconds)


class Replace:
    """A filter that puts one text for another; of patterns the first listed has precedence.

    `clock` gives seconds: with it a regex has its `seconds` for each 64 KiB of the body, beside a quarter of all
    time; without, for a search.
    """

    __slots__ = ("_before", "_buffer", "_done", "_finders", "_look_back", "_running")

    def __init__(
        self,
        patterns: Sequence[Pattern],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._finders: list[Finder] = []
        self._look_back = 0
        for order, pattern in enumerate(patterns):
            if isinstance(pattern, Literal):
                self._finders.append(LiteralFinder(order, pattern))
            else:
                self._finders.append(RegexFinder(order, pattern, clock))
                self._look_back = max(self._look_back, pattern.find.syntax.look_back)
        # Bytes that have been sent on, for patterns that look back; and from `_done` on, what is held.
        self._buffer = b""
        self._done = 0
        # How many bytes of the body stood before the buffer.
        self._before = 0
        self._running = False

    @property
    def decided(self) -> int:
        """How many bytes of the body have been decided: where in it stands what is held."""
        return self._before + self._done

    @property
    def kept_back(self) -> int:
        """How many bytes are kept back."""
        return len(self._buffer) - self._done

    @property
    def held(self) -> bytes:
        """What is kept back, since more bytes could make a match of it; b"" while output waits to be taken."""
        return b"" if self._running else self._buffer[self._done :]

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take the next bytes; give what is decided. Raises Overrun and FilterError, here or as it is taken."""
        if not data:
            return ()
        buffer = self._buffer + data if self._buffer else data
        quiet = True
        for finder in self._finders:
            finder.more(len(data))
            finder.restart()
            if finder.state == NOTHING or finder.state == OPEN:
                finder.look(buffer, finder.place, False)
            if finder.state != NOTHING:
                quiet = False
        if quiet:
            out = buffer[self._done :] if self._done else buffer
            self._keep(buffer, len(buffer))
            return (out,)
        self._buffer = buffer
        self._running = True
        return self._decide(False)

    def finish(self) -> Iterable[bytes]:
        """The end: nothing can follow that makes a match of what is held."""
        if self._done == len(self._buffer):
            return ()
        for finder in self._finders:
            finder.restart()
            if finder.state == OPEN:
                finder.look(self._buffer, finder.place, True)
        self._running = True
        return self._decide(True)

    def release(self) -> bytes:
        """Let go of what is kept back, as it is; what comes next is searched anew."""
        if self._running:
            return b""
        buffer = self._buffer
        out = buffer[self._done :]
        for finder in self._finders:
            finder.state = NOTHING
            finder.place = len(buffer)
        self._keep(buffer, len(buffer))
        return out

    def abort(self, why: str) -> None:
        self._buffer = b""
        self._done = 0

    def _keep(self, buffer: bytes, done: int) -> None:
        """All before `done` has been sent on."""
        cut = max(0, done - self._look_back)
        self._buffer = buffer[cut:]
        self._before += cut
        self._done = done - cut
        for finder in self._finders:
            finder.place -= cut
            finder.end -= cut

    def _decide(self, ended: bool) -> Iterator[bytes]:
        """Replace what can be decided, and keep back the rest."""
        buffer = self._buffer
        size = len(buffer)
        done = self._done
        # By place, then by order: what comes first is at the top.
        heap = [(f.place, f.order, number) for number, f in enumerate(self._finders) if f.state != NOTHING]
        heapq.heapify(heap)
        parts: list[bytes] = []
        made = 0
        while True:
            while heap and heap[0][0] < done:
                number = heap[0][2]
                finder = self._finders[number]
                finder.look(buffer, done, ended)
                if finder.state == NOTHING:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, (finder.place, finder.order, number))
            if not heap:
                keep = size
                break
            finder = self._finders[heap[0][2]]
            if finder.state == OPEN:
                keep = finder.place
                break
            if finder.state == FOUND:
                parts.append(buffer[done : finder.place])
                parts.append(finder.put)
                made += finder.place - done + len(finder.put)
                done = finder.end
            else:
                if not finder.release:
                    # What came before it is sent on first, as it would be if it had come by itself.
                    parts.append(buffer[done : finder.place])
                    yield b"".join(parts)
                    raise Overrun(
                        f"rule {finder.rule!r}: more than {finder.hold_back} bytes might be the beginning of a match"
                    )
                held = finder.place + finder.hold_back + 1
                parts.append(buffer[done:held])
                made += held - done
                done = held
            if made >= PIECE:
                yield b"".join(parts)
                parts = []
                made = 0
                for finder in self._finders:
                    finder.restart()
        if keep > done:
            parts.append(buffer[done:keep])
        self._keep(buffer, keep)
        self._running = False
        yield b"".join(parts)
