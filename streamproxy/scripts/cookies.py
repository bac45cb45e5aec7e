"""Cookies read from header fields and written back (RFC 6265 sections 4 and 5).

One that was there is written as it stood, however it was spelled, so that a change of one changes no other.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from streamproxy.scripts.multidict import MultiDict, pairs_of

CookieText = str | None

_COOKIE = re.compile(r'\s*+([^=;]*+)(?:=\s*+("(?:[^"\\]|\\.)*+"(?=\s*+(?:;|$))|[^;]*+))?[^;]*+(?:;|$)')
_ESCAPED = re.compile(r"\\(.)")
# RFC 6265 section 4.1.1: what stands in a value without quotes.
_PLAIN_VALUE = re.compile(r"[!\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_NOT_IN_NAMES = re.compile(r"[=;\s\x00-\x1f\x7f]")
_NOT_IN_ATTRIBUTES = re.compile(r"[;\x00-\x1f\x7f]")


class CookieAttrs(MultiDict[str, CookieText]):
    """A cookie's attributes, looked up without case; None is the value of one that has none. The last one counts."""

    __slots__ = ()

    def _fold(self, name: str) -> Hashable:
        return name.lower()

    def _joined(self, values: list[CookieText]) -> CookieText:
        return values[-1]


ResponseCookie = tuple[str, tuple[str, CookieAttrs]]


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _ESCAPED.sub(r"\1", value[1:-1])
    return value


def _written(name: object, value: object) -> str:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError("a cookie's name and value must be str")
    if not name or _NOT_IN_NAMES.search(name):
        raise ValueError(f"{name!r} can't be the name of a cookie")
    if not _PLAIN_VALUE.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{escaped}"'
    return f"{name}={value}"


def _spelled(text: str) -> list[tuple[tuple[str, str], str]]:
    """The (name, value) pairs of a Cookie field with the text of each."""
    found = []
    for match in _COOKIE.finditer(text):
        name, value = match[1].strip(), _unquoted(match[2] or "")
        if name or value:
            found.append(((name, value), match[0].rstrip(";").strip()))
    return found


def read_cookies(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs of a request's Cookie field, given its lines."""
    return tuple([pair for line in lines for pair, _ in _spelled(line)])


def write_cookies(pairs: Iterable[tuple[Any, Any]], before: Sequence[str]) -> str:
    """The value of a Cookie field; raises ValueError for what can't be a cookie's name."""
    known = {pair: text for line in before for pair, text in _spelled(line)}
    return "; ".join([known.get(pair) or _written(*pair) for pair in pairs])


def _read_set_cookie(line: str) -> ResponseCookie:
    first, *rest = line.split(";")
    name, _, value = first.partition("=")
    attributes: list[tuple[str, CookieText]] = []
    for part in rest:
        key, equals, told = part.partition("=")
        if key.strip() or equals:
            attributes.append((key.strip(), _unquoted(told) if equals else None))
    return name.strip(), (_unquoted(value), CookieAttrs(attributes))


def read_set_cookies(lines: Sequence[str]) -> tuple[ResponseCookie, ...]:
    """The (name, (value, attributes)) pairs of a response's Set-Cookie fields: a cookie a line."""
    return tuple([_read_set_cookie(line) for line in lines])


def _write_set_cookie(name: str, value: str, attributes: Iterable[tuple[str, CookieText]]) -> str:
    parts = [_written(name, value)]
    for key, told in attributes:
        part = key if told is None else f"{key}={told}"
        if _NOT_IN_ATTRIBUTES.search(part):
            raise ValueError(f"{part!r} can't be an attribute of a cookie")
        parts.append(part)
    return "; ".join(parts)


def write_set_cookies(cookies: Iterable[tuple[Any, Any]], before: Sequence[str]) -> list[str]:
    """The values of Set-Cookie fields. `cookies` are (name, (value, attributes)), the attributes pairs or a mapping."""
    known: dict[Hashable, str] = {}
    for line in before:
        name, (value, attributes) = _read_set_cookie(line)
        known.setdefault((name, value, attributes.fields), line)
    made = []
    for name, told in cookies:
        if not isinstance(told, (tuple, list)) or len(told) != 2:
            raise TypeError("a response's cookie is a value and its attributes: cookies[name] = (value, attributes)")
        pairs = pairs_of(told[1])
        made.append(known.get((name, told[0], pairs)) or _write_set_cookie(name, told[0], pairs))
    return made
