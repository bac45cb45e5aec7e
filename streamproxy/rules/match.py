"""Patterns, and how they are held against hosts, fields and types.

A wildcard pattern stands for the whole of a text: `*` for any run of characters, `?` for one. It is matched
in time linear in the text. `{regex: ...}` is searched for, by Python's `re`, and how long that takes is up to
who wrote it. Which texts of a request a pattern is tried on is told in `asked` and `paths`. Which rules there
are, and what they do, isn't known here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from streamproxy.rules.paths import escaped_text
from streamproxy.wire.headers import Headers

_STARS = re.compile(r"\*+")
_WILD = re.compile(r"[*?]")
_HOST_PATTERN = re.compile(r"[a-z0-9_.*?-]+", re.ASCII)
_PORT_PATTERN = re.compile(r"[0-9*?]+", re.ASCII)
_METHOD_PATTERN = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~?-]+", re.ASCII)
_URL_PATTERN = re.compile(r"([a-zA-Z0-9+.*?-]+)://([^/]*)(/.*)?", re.DOTALL)
_MAYBE_IPV4 = re.compile(r"[0-9][0-9a-fx.]*", re.ASCII)


# How many types, and of how many bytes each, a condition remembers whether it matches.
MOST_TYPES_KEPT = 32
LONGEST_TYPE_KEPT = 128


class PatternError(ValueError):
    """A pattern that can't mean anything; its text says what was expected instead."""


class Pattern:
    """One pattern: a wildcard, or else a regular expression.

    `is_exact`: it has no `*` and no `?`, and so matches its own text alone. `tail`: group 1 of its match is what its
    trailing `*` stands for. A wildcard is compiled when it is first run, for of many rules few ever are.
    """

    __slots__ = ("_flags", "_regex", "is_exact", "is_wildcard", "tail", "text")

    def __init__(self, text: str, regex: re.Pattern[str] | None = None) -> None:
        self.text = text
        self._regex = regex
        self._flags = regex.flags if regex is not None else 0
        self.is_wildcard = regex is None
        self.tail = regex is None and text.endswith("*")
        self.is_exact = regex is None and "*" not in text and "?" not in text

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pattern)
            and self.text == other.text
            and self.is_wildcard == other.is_wildcard
            and self._flags == other._flags
        )

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})" if self.is_wildcard else f"Pattern({{regex: {self.text!r}}})"

    def match(self, text: str) -> re.Match[str] | None:
        regex = self._regex
        if regex is None:
            regex = self._regex = re.compile(_source(self.text), re.DOTALL)
        return regex.fullmatch(text) if self.is_wildcard else regex.search(text)

    @property
    def runs(self) -> list[str]:
        """What stands before, between and behind the stars and question marks of a wildcard."""
        return _WILD.split(self.text)

    def matches(self, text: str) -> bool:
        if self.is_exact:
            return text == self.text
        return self.match(text) is not None


class Found(NamedTuple):
    """That a pattern matched: which of the texts (the form), and where in it the pattern's tail begins."""

    form: int
    text: str
    tail: int | None


class Patterns:
    """Patterns of which any will do."""

    __slots__ = ("_types", "patterns")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._types: dict[bytes, bool] | None = None

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"Patterns({[pattern.text for pattern in self.patterns]!r})"

    def matches(self, text: str) -> bool:
        return any(pattern.matches(text) for pattern in self.patterns)

    def match_any(self, texts: Iterable[str]) -> bool:
        """Whether a pattern matches one of the texts."""
        for text in texts:
            for pattern in self.patterns:
                if pattern.matches(text):
                    return True
        return False

    def find(self, texts: Iterable[str]) -> Found | None:
        """The first of the texts that a pattern matches."""
        for index, text in enumerate(texts):
            for pattern in self.patterns:
                match = pattern.match(text)
                if match:
                    return Found(index, text, match.start(1) if pattern.tail else None)
        return None

    def match_value(self, value: bytes) -> bool:
        """Match a field's value, read as Latin-1 and, where it is that, as UTF-8."""
        text = value.decode("latin-1")
        if self.matches(text):
            return True
        if value.isascii():
            return False
        try:
            return self.matches(value.decode("utf-8"))
        except UnicodeDecodeError:
            return False

    def match_content_type(self, value: bytes) -> bool:
        """Match a Content-Type, whole or without its parameters. The patterns are `type_pattern`s."""
        # The same few types come again and again.
        types = self._types
        if types is None:
            types = self._types = {}
        found = types.get(value)
        if found is None:
            found = self._match_content_type(value)
            if len(value) <= LONGEST_TYPE_KEPT:
                if len(types) == MOST_TYPES_KEPT:
                    types.clear()
                types[value] = found
        return found

    def _match_content_type(self, value: bytes) -> bool:
        text = value.decode("latin-1").lower()
        if self.matches(text):
            return True
        kind, semicolon, _ = text.partition(";")
        return bool(semicolon) and self.matches(kind.rstrip(" \t"))


class HostPatterns:
    """Patterns of hosts, and of hosts with a port. `exact`: the hosts, where nothing but hosts is listed."""

    __slots__ = ("exact", "names", "with_port")

    def __init__(self, patterns: Iterable[HostPattern]) -> None:
        patterns = tuple(patterns)
        self.names = tuple(host.pattern for host in patterns if not host.has_port)
        self.with_port = tuple(host.pattern for host in patterns if host.has_port)
        exact = [host.exact for host in patterns if host.exact is not None]
        self.exact = frozenset(exact) if len(exact) == len(patterns) else None

    def __bool__(self) -> bool:
        return bool(self.names or self.with_port)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostPatterns) and (self.names, self.with_port) == (other.names, other.with_port)

    def __hash__(self) -> int:
        return hash((self.names, self.with_port))

    def match(self, host: str, port: int) -> bool:
        forms = host_forms(host)
        if any(pattern.matches(form) for pattern in self.names for form in forms):
            return True
        if not self.with_port:
            return False
        texts = with_port(forms, port)
        return any(pattern.matches(text) for pattern in self.with_port for text in texts)


class HostPattern(NamedTuple):
    """One pattern of a host, or of host:port."""

    pattern: Pattern
    has_port: bool = False
    exact: str | None = None

    def matches(self, host: str, port: int) -> bool:
        """Whether this one matches; where there are many, `HostPatterns` is for them."""
        forms = host_forms(host)
        texts = with_port(forms, port) if self.has_port else forms
        return any(self.pattern.matches(text) for text in texts)


def with_port(forms: Iterable[str], port: int) -> tuple[str, ...]:
    """Each form of a host with a port behind it."""
    return tuple([f"[{form}]:{port}" if ":" in form else f"{form}:{port}" for form in forms])


@functools.lru_cache(maxsize=1024)
def host_forms(host: str) -> tuple[str, ...]:
    """The forms of a host (lower case) that reach the same place: no last dot; addresses as usual."""
    host = host.rstrip(".") or host
    forms = [host]
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            return (host,)
        forms.append(address.compressed)
        if address.ipv4_mapped:
            forms.append(str(address.ipv4_mapped))
    elif _MAYBE_IPV4.fullmatch(host):
        try:  # a resolver takes 127.1 and 0x7f000001 for 127.0.0.1; so does this, and asks nobody
            forms.append(socket.inet_ntoa(socket.inet_aton(host)))
        except OSError:
            return (host,)
    return tuple(dict.fromkeys(forms))


def header_holds(name: bytes, test: Patterns | bool, *heads: Headers) -> bool:
    """Whether one of the heads has a line that matches; for False, whether none has the field."""
    if test is True:
        return any(name in headers for headers in heads)
    if test is False:
        return not any(name in headers for headers in heads)
    return any(test.match_value(value) for headers in heads for value in headers.lines(name))


def content_type_holds(types: Patterns, *heads: Headers) -> bool:
    """Whether one of the heads has a Content-Type that matches."""
    values = (value for headers in heads for value in headers.lines(b"content-type"))
    return any(types.match_content_type(value) for value in values)


def wildcard(text: str) -> Pattern:
    """A wildcard pattern."""
    return Pattern(text)


def _source(text: str) -> str:
    """A wildcard pattern as a regular expression.

    Each run between two stars is an atomic group, found at its first place and never looked for again: giving
    way couldn't help, as a later star takes what is left. So no pattern makes matching worse than linear.
    """
    first, *others = [".".join(map(re.escape, part.split("?"))) for part in _STARS.split(text)]
    source = first
    if others:
        *middle, last = others
        source += "".join(f"(?>.*?{part})" for part in middle)
        source += f".*{last}" if last else "(.*)"
    return source


def regex(text: str, flags: int = 0) -> Pattern:
    """Compile a pattern for Python's `re`."""
    try:
        return Pattern(text, re.compile(text, flags))
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"a regular expression ({error})") from None


def value_pattern(text: str) -> Pattern:
    """A pattern of a field's value, in which case counts."""
    return wildcard(text)


def type_pattern(text: str) -> Pattern:
    """A pattern of a Content-Type, in which case doesn't count."""
    return wildcard(text.lower())


def method_pattern(text: str) -> Pattern:
    """A pattern of a method, in which case doesn't count."""
    text = text.upper()
    if not _METHOD_PATTERN.fullmatch(text):
        raise PatternError("a method such as POST")
    return wildcard(text)


def path_pattern(text: str) -> Pattern:
    """A pattern of a path without its query; what is written unescaped is escaped as in an URL."""
    if not text.startswith(("/", "*", "?")):
        raise PatternError("a path that begins with / or *")
    return wildcard(escaped_text(text))


def url_pattern(text: str) -> Pattern:
    """A pattern of a whole URL: scheme and host in any case, the scheme's own port left out; ws is http, wss https."""
    text = escaped_text(text)
    parts = _URL_PATTERN.fullmatch(text)
    if parts:
        if "%" in parts[2]:
            raise PatternError("a host in ASCII")
        scheme, host, path = parts[1].lower(), parts[2].lower(), parts[3]
        if scheme.startswith("ws"):  # ws, wss, and ws* for both
            scheme = f"http{scheme[2:]}"
        default = {"http": ":80", "https": ":443"}.get(scheme)
        if default:
            host = host.removesuffix(default)
        host = host if host.endswith("*") else host.rstrip(".")
        text = f"{scheme}://{host}{path if path is not None else '' if host.endswith('*') else '/'}"
    elif not text.startswith(("*", "?")):
        raise PatternError("an URL such as http://example.com/*")
    return wildcard(text)


def host_pattern(text: str) -> HostPattern:
    """A pattern of a host, or of `host:port`; an IPv6 address with a port stands in brackets."""
    text = text.lower()
    if not text.isascii():
        try:
            hint = f" (perhaps {text.encode('idna').decode()!r})"
        except UnicodeError:
            hint = ""
        raise PatternError(f"a host in ASCII{hint}")
    name, port = text, None
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and port[0] != ":"):
            raise PatternError("a host such as [::1] or [::1]:8080")
        port = port[1:] if port else None
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    if port is not None and not _PORT_PATTERN.fullmatch(port):
        raise PatternError("a host such as *.example.com, or with a port as example.com:8080")
    is_ipv6 = ":" in name
    if is_ipv6:
        name = _normal_ipv6(name)
    else:
        name = name if name.endswith("*") else name.rstrip(".")
        if not _HOST_PATTERN.fullmatch(name):
            raise PatternError("a host such as *.example.com")
    if port is not None:
        return HostPattern(wildcard(f"[{name}]:{port}" if is_ipv6 else f"{name}:{port}"), has_port=True)
    return HostPattern(wildcard(name), exact=None if "*" in name or "?" in name else name)


def _normal_ipv6(name: str) -> str:
    if "*" in name or "?" in name:
        if re.fullmatch(r"[0-9a-f:.*?]+", name):
            return name
    else:
        try:
            return ipaddress.IPv6Address(name).compressed
        except ValueError:
            pass
    raise PatternError("an IPv6 address such as ::1")
