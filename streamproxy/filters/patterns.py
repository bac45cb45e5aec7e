"""What the texts of a rule's regex and of its replacement become, once, when the configuration is read.

A regex is searched in the bytes of the body: what is written is taken as UTF-8, `.` and sets are of single bytes, and
`(?i)`, `\\w` and `\\b` know ASCII only. Searching itself is `regex_finder`'s task.

How it is known what may not be decided yet: the `regex` package can say that an attempt to match ran into the end of
what is there (`partial=True`), but says so only where nothing matched anywhere. So each pattern P has a *probe*,
`(?=(?>P))(?!)`, which never matches: what it gives is the first place at which the search for P's first match came to
the end. A match that begins before that place is decided, whatever follows; everything from that place on is open.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import regex as regex_package  # type: ignore[import-untyped]

from streamproxy.filters.regex_syntax import Syntax, read

_REFERENCE = re.compile(r"\\(?:([1-9][0-9]?)|g<(\w+)>|x([0-9A-Fa-f]{2})|([abfnrtv0])|([^A-Za-z0-9]))", re.DOTALL)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}


class CompiledRegex:
    """A regex that can be searched in a stream. Compared and shown by its text."""

    __slots__ = ("head", "head_probe", "pattern", "probe", "syntax", "text")

    def __init__(self, text: str, syntax: Syntax) -> None:
        self.text = text
        self.syntax = syntax
        flags = syntax.flags
        head = syntax.head
        self.pattern: Any = _compile(b"(?:" + syntax.pattern + b")", flags)
        self.probe: Any = _probe(syntax.probe, flags)
        self.head: Any = None if head is None else _compile(head.pattern, flags)
        self.head_probe: Any = None if head is None else _probe(head.probe, flags)

    def __repr__(self) -> str:
        return f"CompiledRegex({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompiledRegex) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def _probe(data: bytes, flags: str) -> Any:
    return _compile(b"(?=(?>" + data + b"))(?!)", flags)


def _compile(data: bytes, flags: str) -> Any:
    front = f"(?{flags})".encode() if flags else b""
    return regex_package.compile(front + data, regex_package.V0 | regex_package.ASCII)


def compile_regex(text: str) -> CompiledRegex:
    """The regex of a rule, as it was written. Raises ValueError, with the reason in words.

    Refused are, beside what is no regex: one that could match nothing; `\\G`, `\\K`, fuzzy matching, matching in
    reverse, recursion, verbs and conditions, whose meaning depends on more than what has come; lookbehinds of more than
    `LOOK_BACK` bytes, and in them lookaheads and groups taken again; what is repeated without end and could match
    nothing; flags but i, m, s and x; `\\p`, and characters that are several bytes, in a set or with `(?i)`.
    """
    syntax = read(text)
    try:
        return CompiledRegex(text, syntax)
    except regex_package.error as error:
        raise ValueError(error.msg) from None
    except RecursionError:
        raise ValueError("its groups are nested too deep") from None


class Template(NamedTuple):
    """What is put in for a match of a regex: bytes, and numbers of groups (b"" for one that took no part)."""

    parts: tuple[bytes | int, ...]

    def fill(self, match: Any) -> bytes:
        """What it is for this match."""
        parts = self.parts
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join([part if isinstance(part, bytes) else match.group(part) or b"" for part in parts])


def check_template(compiled: CompiledRegex, put: str) -> Template:
    r"""Read the text that replaces a regex's matches: `\1`, `\g<1>` and `\g<name>` are its groups, `\g<0>` the match.

    Also `\n`, `\r`, `\t`, `\a`, `\b`, `\f`, `\v`, `\0`, `\xHH`, and a backslash before anything but a letter or a
    digit is that. Raises ValueError for a group that isn't there and for any other backslash.
    """
    parts: list[bytes | int] = []
    plain = b""
    place = 0
    while (at := put.find("\\", place)) >= 0:
        plain += put[place:at].encode()
        found = _REFERENCE.match(put, at)
        if found is None:
            raise ValueError(f"{put[at : at + 2]!r} means nothing here; a backslash itself is written \\\\")
        place = found.end()
        number, name, byte, control, itself = found.groups()
        if byte is not None:
            plain += bytes([int(byte, 16)])
        elif control is not None:
            plain += _CONTROLS[control].encode()
        elif itself is not None:
            plain += itself.encode()
        else:
            group = _group(compiled.syntax, number or name)
            if plain:
                parts.append(plain)
            parts.append(group)
            plain = b""
    plain += put[place:].encode()
    if plain or not parts:
        parts.append(plain)
    return Template(tuple(parts))


def _group(syntax: Syntax, name: str) -> int:
    if name.isdecimal() and name.isascii():
        number = int(name)
        if number > syntax.groups:
            raise ValueError(f"there is no group {number}: the regex has {syntax.groups}")
        return number
    if name not in syntax.names:
        raise ValueError(f"there is no group {name!r}")
    return syntax.names[name]
