"""Cuts the text of a regex into its signs, one after the other; refuses those that can't be had in a stream.

What they come to together is read in `regex_syntax`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

# Kinds of signs.
BYTES = "bytes"  # what takes one byte, or those of one character
AGAIN = "again"  # what a group took
ASSERTION = "assertion"
OPEN = "open"
CLOSE = "close"
BAR = "bar"
COUNT = "count"
SPACE = "space"  # what means nothing

_FLAGS = re.compile(r"\(\?([A-Za-z]+)\)")
_SCOPED = re.compile(r"\(\?([ims]*)(?:-([ims]+))?:")
_NAMED = re.compile(r"\(\?P?<([A-Za-z_]\w*)>")
_AGAIN = re.compile(r"\(\?P=(\w+)\)|\\g<(\w+)>|\\([1-9][0-9]?)")
_BYTE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|0[0-7]{0,2}|[1-3][0-7]{2})")
_COUNT = re.compile(r"\{(?:([0-9]+)(,([0-9]*))?|,([0-9]+))\}")
_FUZZY = re.compile(r"\{[\d\s<=+,eids]*[eids][\d\s<=+,eids]*(?::[^}]*)?\}")
_POSIX_SET = re.compile(r"\[:\^?[a-z]+:\]")
_AROUND = {"(?>": "group", "(?=": "ahead", "(?!": "ahead", "(?<=": "behind", "(?<!": "behind"}


class Sign(NamedTuple):
    """One sign: as it is to be written for the `regex` package, and what it says."""

    kind: str
    text: str
    size: int = 0  # bytes that it takes
    name: str = ""  # of a group; of what opens: group, ahead or behind
    captures: bool = False
    low: int = 0  # of a count
    high: int | None = None
    fold: bool | None = None  # whether the cases of letters are one inside it


def flags_in_front(text: str) -> tuple[str, int]:
    """The flags that a regex begins with, and where they end."""
    found = _FLAGS.match(text)
    if found is None:
        return "", 0
    for flag in found[1]:
        if flag not in "imsx":
            _refuse(f"the flag (?{flag})")
    return found[1], found.end()


def signs(text: str, place: int, verbose: bool) -> Iterator[Sign]:
    """The signs from a place on. Raises ValueError."""
    while place < len(text):
        letter = text[place]
        if verbose and letter in " \t\n\r\f\v":
            sign, length = Sign(SPACE, ""), 1
        elif verbose and letter == "#":
            sign, length = Sign(SPACE, ""), (text + "\n").index("\n", place) - place
        elif letter == "\\":
            sign, length = _escape(text, place)
        elif letter == "[":
            sign, length = _set(text, place)
        elif letter == "(":
            sign, length = _open(text, place)
        elif letter in "*+?{":
            sign, length = _count(text, place)
        elif letter == ")":
            sign, length = Sign(CLOSE, ")"), 1
        elif letter == "|":
            sign, length = Sign(BAR, "|"), 1
        elif letter in "^$":
            sign, length = Sign(ASSERTION, letter), 1
        elif letter == ".":
            sign, length = Sign(BYTES, ".", 1), 1
        else:
            sign, length = Sign(BYTES, letter, len(letter.encode())), 1
        yield sign
        place += length


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"{what} can't be used in a body that streams")


def _several(letter: str) -> NoReturn:
    raise ValueError(f"[...] is a set of bytes, and {letter!r} is several: write (?:...|...)")


def _escape(text: str, place: int) -> tuple[Sign, int]:
    letter = text[place + 1 : place + 2]
    if not letter:
        raise ValueError("there is nothing behind the last backslash")
    if found := _BYTE.match(text, place):
        return Sign(BYTES, found[0], 1), len(found[0])
    if found := _AGAIN.match(text, place):
        return Sign(AGAIN, f"(?P={found[2]})" if found[2] else found[0], name=found[2] or found[3]), len(found[0])
    if letter in "bBmMAZ":
        return Sign(ASSERTION, "\\" + letter), 2
    if not letter.isascii():
        return Sign(BYTES, letter, len(letter.encode())), 2
    if letter.isalnum() and letter not in "afnrtvdDsSwW":
        _refuse("\\" + letter)
    return Sign(BYTES, "\\" + letter, 1), 2


def _set(text: str, start: int) -> tuple[Sign, int]:
    """A set of bytes, to its closing bracket."""
    place = start + 1
    out = "["
    if text[place : place + 1] == "^":
        out += "^"
        place += 1
    first = place
    while (letter := text[place : place + 1]) != "]" or place == first:
        step = letter
        if not letter:
            raise ValueError("missing ]")
        if letter == "\\":
            found = _BYTE.match(text, place)
            step = found[0] if found else text[place : place + 2]
            if len(step) < 2 or (
                not found and step[1].isascii() and step[1].isalnum() and step[1] not in "afnrtvbdDsSwW"
            ):
                _refuse(f"{step} in [...]")
        elif letter == "[":
            found = _POSIX_SET.match(text, place)
            step = found[0] if found else "["
        if not step.isascii():
            _several(step[-1])
        # A bracket that means itself is written so that no version of the package reads anything else.
        out += "\\" + step if step in ("[", "]") else step
        place += len(step)
    return Sign(BYTES, out + "]", 1), place + 1 - start


def _count(text: str, place: int) -> tuple[Sign, int]:
    low, size = 0, 1
    high: int | None = None
    letter = text[place]
    if letter == "{":
        if _FUZZY.match(text, place):
            _refuse("fuzzy matching {...} (a brace itself is written \\{)")
        found = _COUNT.match(text, place)
        if found is None:
            return Sign(BYTES, "\\{", 1), 1
        size = len(found[0])
        low = int(found[1] or 0)
        limit = found[4] or found[3] or ("" if found[2] else found[1])
        high = int(limit) if limit else None
        if high is not None and high < low:
            raise ValueError(f"{found[0]}: the least is more than the most")
    elif letter == "+":
        low = 1
    elif letter == "?":
        high = 1
    if text[place + size : place + size + 1] in ("?", "+"):
        size += 1
    return Sign(COUNT, text[place : place + size], low=low, high=high), size


def _open(text: str, place: int) -> tuple[Sign, int]:
    if text.startswith("(?#", place):
        end = text.find(")", place)
        if end < 0:
            raise ValueError("missing )")
        return Sign(SPACE, ""), end + 1 - place
    if text.startswith("(*", place):
        _refuse("(*")
    if not text.startswith("(?", place):
        return Sign(OPEN, "(", name="group", captures=True), 1
    if found := _AGAIN.match(text, place):
        return Sign(AGAIN, found[0], name=found[1]), len(found[0])
    if found := _NAMED.match(text, place):
        # The name is told by the text.
        return Sign(OPEN, found[0], name="group", captures=True), len(found[0])
    if found := _SCOPED.match(text, place):
        fold = True if "i" in found[1] else False if "i" in (found[2] or "") else None
        return Sign(OPEN, found[0], name="group", fold=fold), len(found[0])
    for opening, kind in _AROUND.items():
        if text.startswith(opening, place):
            return Sign(OPEN, opening, name=kind), len(opening)
    if _FLAGS.match(text, place):
        raise ValueError("flags for the whole stand at its very beginning; for a part: (?i:...)")
    _refuse(text[place : place + 3])


def plain_byte(sign: Sign) -> bytes:
    """The bytes of a sign that stands for no others; none for any other sign."""
    text = sign.text
    if len(text) == 1:
        return b"" if text == "." else text.encode()
    if len(text) == 2 and text[0] == "\\" and not text[1].isalnum():
        return text[1].encode()
    return b""
