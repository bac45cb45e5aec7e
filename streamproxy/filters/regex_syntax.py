"""Reads a regex, to know what a search in a stream must know about it before anything is searched.

What is read: how many bytes a match takes at the least, how many an attempt may look at ahead and behind, and with what
every match begins. From it come two texts for the `regex` package: the pattern itself, and the same pattern for a
*probe*, which looks for one more byte wherever the package doesn't notice by itself that it came to the end of what is
there (`patterns` says what for).

It isn't a parser that knows what a pattern means: whether the syntax is right, the package says when it compiles.
"""

from __future__ import annotations

from typing import NamedTuple

from streamproxy.filters.regex_tokens import (
    AGAIN,
    ASSERTION,
    BAR,
    BYTES,
    CLOSE,
    COUNT,
    OPEN,
    SPACE,
    Sign,
    flags_in_front,
    plain_byte,
    signs,
)

# How far back a lookbehind may look: of what has been sent on, this much is remembered.
LOOK_BACK = 255

# "Is there another byte?": true wherever there is one, and an end that the package notices where there isn't.
_MORE = b"(?=(?s:.))"
# The same, also behind a newline: `$` is true in front of one that is the last byte.
_MORE_THAN_NEWLINE = rb"(?=\n?(?s:.))"
_MORE_FOR = {"^": b"", "\\A": b"", "$": _MORE_THAN_NEWLINE, "\\Z": _MORE_THAN_NEWLINE}

# In how many ways an attempt can go is counted so far; what has no bound is counted as this.
MANY_WAYS = 1_000_000
_NO_BOUND = 4096


class Head(NamedTuple):
    """What every match of a pattern begins with: a regex, the same for its probe; the rest as in `Syntax`."""

    pattern: bytes
    probe: bytes
    reach: int
    ways: int


class Syntax(NamedTuple):
    """What was read. Lengths are in bytes, and None is no bound."""

    pattern: bytes
    probe: bytes
    flags: str
    low: int  # a match takes this many at the least
    reach: int | None  # an attempt looks at this many at the most, from where it begins
    look_back: int  # and at this many before that
    ways: int  # in so many ways an attempt can go at the most, or `MANY_WAYS`
    head: Head | None  # where `reach` is None, if there is any
    names: dict[str, int]
    groups: int
    begins: bytes  # the very bytes that every match begins with, as far as that is plain


class _Level:
    """A group that isn't closed yet, or the whole; `low` and `high` are of the alternative being read."""

    __slots__ = ("best_high", "best_low", "fold", "high", "kind", "low", "number", "place", "touches", "ways")

    def __init__(self, kind: str, place: int, number: int, fold: bool) -> None:
        self.kind = kind
        self.place = place  # in the lists of texts
        self.number = number
        self.fold = fold  # as it was before it
        self.ways = 0  # alternatives that are read
        self.low = 0
        self.high: int | None = 0
        self.best_low = 0
        self.best_high: int | None = 0
        self.touches = False

    def end_alternative(self) -> None:
        self.best_low = min(self.best_low, self.low) if self.ways else self.low
        if self.best_high is not None:
            self.best_high = None if self.high is None else max(self.best_high, self.high)
        self.ways += 1
        self.low, self.high = 0, 0


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class _Reader:
    """Reads one text from its beginning to its end, once."""

    def __init__(self, text: str) -> None:
        self.flags, place = flags_in_front(text)
        self.text, self.place = text, place
        self.signs = signs(text, place, "x" in self.flags)
        self.looks_back = any(sign in text for sign in ("^", "(?<", "\\A"))
        self.fold = "i" in self.flags
        # Both texts, in the same parts.
        self.pattern: list[bytes] = []
        self.probe: list[bytes] = []
        self.levels = [_Level("whole", 0, 0, False)]
        self.behind = 0  # lookbehinds that are open
        self.look_back = 0
        self.ways = 1
        self.names: dict[str, int] = {}
        self.groups = 0
        self.widths: dict[int, tuple[int, int | None]] = {}  # of the groups that are closed
        # What may be repeated next: where it begins (-1: nothing), its lengths, and whether it is a group.
        self.atom = -1
        self.atom_low = 0
        self.atom_high: int | None = 0
        self.atom_group = False
        # The heads of the alternatives, and of the one that is read, if it has come to its end.
        self.heads: list[Head] = []
        self.head: Head | None = None
        self.alternative = 0  # where that begins

    def read(self) -> Syntax:
        for sign in self.signs:
            if sign.kind == BYTES:
                self._bytes(sign)
            elif sign.kind == COUNT:
                self._count(sign)
            elif sign.kind == OPEN:
                self._open(sign)
            elif sign.kind == CLOSE:
                self._close()
            elif sign.kind == BAR:
                self._end_alternative()
                self._give(b"|")
            elif sign.kind == ASSERTION:
                self._assertion(sign.text)
            elif sign.kind == AGAIN:
                self._again(sign)
            else:
                assert sign.kind == SPACE
        if len(self.levels) > 1:
            raise ValueError("missing )")
        self._end_alternative()
        whole = self.levels[0]
        reach = whole.best_high
        return Syntax(
            b"".join(self.pattern),
            b"".join(self.probe),
            self.flags.replace("x", ""),
            whole.best_low,
            reach,
            self.look_back,
            min(self.ways * whole.ways, MANY_WAYS),
            self._whole_head() if reach is None else None,
            self.names,
            self.groups,
            b"" if self.fold else self._plain_beginning(),
        )

    def _plain_beginning(self) -> bytes:
        """The plain bytes at the beginning, behind assertions; none where there are alternatives."""
        begins: list[bytes] = []
        depth = 0
        ended = False
        for sign in signs(self.text, self.place, "x" in self.flags):
            if sign.kind == OPEN:
                depth += 1
                ended = True
            elif sign.kind == CLOSE:
                depth -= 1
            elif sign.kind == BAR and not depth:
                return b""
            elif sign.kind == COUNT and not ended:
                # What it repeats may not be there at all.
                if not sign.low:
                    begins.pop()
                ended = True
            elif sign.kind == BYTES and not ended:
                plain = plain_byte(sign)
                ended = not plain
                begins.append(plain)
            elif sign.kind not in (SPACE, ASSERTION):
                ended = True
        return b"".join(begins)

    def _whole_head(self) -> Head | None:
        if not all(head.pattern for head in self.heads):
            return None
        return Head(
            b"|".join([head.pattern for head in self.heads]),
            b"|".join([head.probe for head in self.heads]),
            max([head.reach for head in self.heads]),
            sum([head.ways for head in self.heads]),
        )

    def _give(self, pattern: bytes, probe: bytes | None = None) -> None:
        """Goes into both texts; what can be repeated says so afterwards."""
        self.pattern.append(pattern)
        self.probe.append(pattern if probe is None else probe)
        self.atom = -1

    def _add(self, place: int, low: int, high: int | None, group: bool = False) -> None:
        """What begins at a place of the texts and can be repeated takes so many bytes."""
        level = self.levels[-1]
        if high is None:
            self._end_head(place, level.high)
        level.low += low
        level.high = _sum(level.high, high)
        self.atom, self.atom_low, self.atom_high, self.atom_group = place, low, high, group

    def _end_head(self, place: int, reach: int | None, repeated: bytes = b"") -> None:
        """The head ends before a place, or with what is there so many times."""
        if len(self.levels) > 1 or self.head is not None or reach is None:
            return
        end = len(self.pattern) if repeated else place
        start = self.alternative
        self.head = Head(
            b"".join(self.pattern[start:end]) + repeated,
            b"".join(self.probe[start:end]) + repeated,
            reach,
            MANY_WAYS if repeated and self.atom_group else self.ways,
        )

    def _bytes(self, sign: Sign) -> None:
        text = sign.text.encode()
        if sign.size > 1:
            if self.fold:
                raise ValueError(f"(?i) knows the two cases of ASCII letters, and not of {sign.text!r}")
            # What repeats it is meant for all of its bytes.
            self._give(b"(?:")
            self._give(text)
            self._give(b")")
            self._add(len(self.pattern) - 3, sign.size, sign.size, True)
        else:
            self._give(text)
            self._add(len(self.pattern) - 1, 1, 1)

    def _again(self, sign: Sign) -> None:
        if self.behind:
            raise ValueError(f"{sign.text} inside a lookbehind can't be used in a body that streams")
        number = int(sign.name) if sign.name.isdigit() else self.names.get(sign.name, -1)
        # In a group of its own, lest a digit behind it be read as part of it.
        self._give(b"(?:")
        self._give(sign.text.encode())
        self._give(b")")
        low, high = self.widths.get(number, (0, None))
        self._add(len(self.pattern) - 3, low, high, True)

    def _assertion(self, text: str) -> None:
        """What takes nothing, and looks at the byte in front, and most at those behind."""
        self.look_back = max(self.look_back, 1)
        level = self.levels[-1]
        more = _MORE_FOR.get(text, _MORE)
        if self.behind:
            level.touches = True
            level.high = _sum(level.high, 1)
            more = b""
        elif more:
            level.high = _sum(level.high, 2)
        self._give(text.encode(), more + text.encode())

    def _open(self, sign: Sign) -> None:
        number = 0
        if sign.captures:
            self.groups += 1
            number = self.groups
            name = sign.text[1:].strip("?P<>")
            if name in self.names:
                raise ValueError(f"two groups have the name {name!r}")
            if name:
                self.names[name] = number
        if sign.name == "behind":
            self.behind += 1
        elif sign.name == "ahead" and self.behind:
            raise ValueError("a lookahead inside a lookbehind can't be used in a body that streams")
        self.levels.append(_Level(sign.name, len(self.pattern), number, self.fold))
        if sign.fold is not None:
            self.fold = sign.fold
        self._give(sign.text.encode())

    def _end_alternative(self) -> None:
        level = self.levels[-1]
        if len(self.levels) == 1:
            self._end_head(len(self.pattern), level.high)
            self.heads.append(self.head or Head(b"", b"", 0, 0))
            self.head = None
            self.alternative = len(self.pattern) + 1
        level.end_alternative()

    def _close(self) -> None:
        if len(self.levels) == 1:
            raise ValueError("there is a ) too many")
        self._end_alternative()
        level = self.levels.pop()
        self.fold = level.fold
        self._multiply_ways(level.ways)
        around = self.levels[-1]
        high = level.best_high
        self._give(b")")
        if level.kind == "group":
            around.touches = around.touches or level.touches
            if level.number:
                self.widths[level.number] = (level.best_low, high)
            self._add(level.place, level.best_low, high, True)
        elif level.kind == "ahead":
            if high is None:
                self._end_head(level.place, around.high)
            around.high = _sum(around.high, high)
        else:
            self._close_behind(level, around)

    def _close_behind(self, level: _Level, around: _Level) -> None:
        high = level.best_high
        if high is None or high > LOOK_BACK:
            raise ValueError(f"a lookbehind can look back {LOOK_BACK} bytes in a body that streams, and no further")
        self.look_back = max(self.look_back, high + 1)
        self.behind -= 1
        if self.behind:
            around.touches = around.touches or level.touches
            around.high = _sum(around.high, high)
        elif level.touches:
            # Inside it everything is read backwards, where the end isn't noticed: it is asked for before.
            self.probe[level.place] = _MORE_THAN_NEWLINE + self.probe[level.place]
            around.high = _sum(around.high, 2)

    def _count(self, sign: Sign) -> None:
        place, low, high = self.atom, sign.low, sign.high
        if place < 0:
            raise ValueError(f"there is nothing to repeat before {sign.text}")
        if high is None and not self.atom_low:
            # Attempts at these may go round in circles at the end of what is there.
            raise ValueError(f"what {sign.text} repeats without end could match nothing at all")
        lazy = len(sign.text) > 1 and sign.text[-1] == "?"
        more = 0
        if self.atom_group and not self.behind:
            # The package doesn't notice that a group which could come again would begin at the end.
            more = 1
            self.probe[place] += _MORE
        elif self.looks_back and lazy and not self.behind:
            # Nor that what is to come as seldom as possible must come again, if what follows only looks back.
            more = 1
            self.probe[place] = b"(?:" + _MORE + self.probe[place]
            self._give(b"", b")")
        level = self.levels[-1]
        level.low += self.atom_low * (low - 1)
        if self.atom_high is not None and level.high is not None:
            one = self.atom_high + more
            level.high -= self.atom_high
            if high is not None:
                level.high += high * one
            else:
                self._end_head(place, level.high + low * one, b"{%d}" % low if low else b"")
                level.high = None
        if high is None or (high > 1 and self.ways > 1 and self.atom_group):
            self._multiply_ways(MANY_WAYS if self.atom_group else _NO_BOUND)
        else:
            self._multiply_ways(high - low + 1)
        self._give(sign.text.encode())

    def _multiply_ways(self, number: int) -> None:
        self.ways = min(self.ways * number, MANY_WAYS)


def read(text: str) -> Syntax:
    """What there is to know about a regex, as it was written. Raises ValueError for what can't be had in a stream."""
    syntax = _Reader(text).read()
    if not syntax.low:
        raise ValueError("it could match nothing at all, which would be everywhere")
    return syntax
