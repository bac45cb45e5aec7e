"""Finds what may match without trying each: patterns by the text that they begin or end with.

A wildcard pattern can match no text but one that begins with what stands before its first `*` or `?`, its head, and
ends with what stands behind its last, its tail. So it is entered under one of the two, whichever fewer others share;
one without either, and a regular expression, can only be tried. What is found here may match, and what isn't can't:
whoever asks still tries what is found.

Of sorted heads, those that a text begins with lie on one way: from the last that isn't greater than the text to the
longest head that this one begins with, and so on. Tails are heads of the text read backwards.

Rules are divided twice. First by their conditions on the host: rules with the same ones share a group, and which
groups a host belongs to is found by patterns. Then, in a group, by path or URL, whichever fewer others share.
Numbers are the places of rules in the file, and lists of them are in that order.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

from streamproxy.rules.asked import Asked
from streamproxy.rules.match import HostPatterns, Pattern, host_forms, with_port
from streamproxy.rules.rule import Rule

# So many rules are sooner tried than found.
FEW = 4
_WILD = re.compile(r"[*?]")
_EXACT, _HEAD, _TAIL = range(3)

# What a pattern may be found by: its whole text, its head or its tail.
Key = tuple[int, str]


def keys_of(pattern: Pattern) -> list[Key]:
    """What a pattern may be found by, the longest first; nothing for one that can only be tried."""
    if pattern.is_exact:
        return [(_EXACT, pattern.text)]
    if not pattern.is_wildcard:
        return []
    runs = _WILD.split(pattern.text)
    head, tail = runs[0], runs[-1]
    keys = [(_HEAD, head), (_TAIL, tail)]
    if len(tail) > len(head):
        keys.reverse()
    return [key for key in keys if key[1]]


class Sharing:
    """How many of some lists of patterns are found by the same key."""

    def __init__(self, lists: Iterable[Sequence[Pattern]]) -> None:
        self._shared: Counter[Key] = Counter()
        for patterns in lists:
            self._shared.update({key for pattern in patterns for key in keys_of(pattern)})

    def best_key(self, pattern: Pattern) -> Key | None:
        """The key of a pattern that the fewest share."""
        return min(keys_of(pattern), key=self._shared.__getitem__, default=None)

    def crowd(self, patterns: Sequence[Pattern]) -> int | None:
        """With how many others, itself among them, a list is found at the most; None if it can't be found."""
        crowd = 0
        for pattern in patterns:
            key = self.best_key(pattern)
            if key is None:
                return None
            crowd = max(crowd, self._shared[key])
        return crowd or None


class Heads:
    """Numbers by the texts that others begin with."""

    __slots__ = ("_numbers", "_shorter", "_texts")

    def __init__(self, entered: dict[str, list[int]]) -> None:
        self._texts = sorted(entered)
        self._numbers = [tuple(entered[text]) for text in self._texts]
        # For each the place of the longest other that it begins with, or -1.
        self._shorter: list[int] = []
        way: list[int] = []
        for place, text in enumerate(self._texts):
            while way and not text.startswith(self._texts[way[-1]]):
                way.pop()
            self._shorter.append(way[-1] if way else -1)
            way.append(place)

    def find(self, text: str, found: set[int]) -> None:
        """Add the numbers of all heads that `text` begins with."""
        place = bisect_right(self._texts, text) - 1
        while place >= 0:
            if text.startswith(self._texts[place]):
                found.update(self._numbers[place])
            place = self._shorter[place]


class PatternIndex:
    """Numbers by lists of patterns of which any will do."""

    __slots__ = ("_exact", "_heads", "_tails", "_unkeyed")

    def __init__(self, entries: Iterable[tuple[int, Sequence[Pattern]]], sharing: Sharing) -> None:
        entered: tuple[dict[str, list[int]], ...] = ({}, {}, {})
        unkeyed: list[int] = []
        for number, patterns in entries:
            keys = {sharing.best_key(pattern) for pattern in patterns}
            if None in keys:
                unkeyed.append(number)
                continue
            for key in keys:
                if key is not None:
                    kind, text = key
                    entered[kind].setdefault(text[::-1] if kind == _TAIL else text, []).append(number)
        exact, heads, tails = entered
        self._exact = {text: tuple(numbers) for text, numbers in exact.items()}
        self._heads = Heads(heads) if heads else None
        self._tails = Heads(tails) if tails else None
        self._unkeyed = tuple(unkeyed)

    def __bool__(self) -> bool:
        return bool(self._exact or self._heads or self._tails or self._unkeyed)

    def find(self, texts: Iterable[str]) -> set[int]:
        """The numbers whose patterns may match one of the texts."""
        found = set(self._unkeyed)
        for text in texts:
            if text in self._exact:
                found.update(self._exact[text])
            if self._heads is not None:
                self._heads.find(text, found)
            if self._tails is not None:
                self._tails.find(text[::-1], found)
        return found


class RequestIndex:
    """Which of some rules may match a request, by its path or its URL."""

    __slots__ = ("_by_path", "_by_url", "_tried")

    def __init__(self, numbers: Sequence[int], rules: Sequence[Rule]) -> None:
        self._by_path: PatternIndex | None = None
        self._by_url: PatternIndex | None = None
        self._tried = tuple(numbers)
        if len(numbers) > FEW:
            self._divide(numbers, rules)

    def _divide(self, numbers: Sequence[int], rules: Sequence[Rule]) -> None:
        by_path, by_url, tried = [], [], []
        paths = Sharing(rules[number].paths.patterns for number in numbers)
        urls = Sharing(rules[number].urls.patterns for number in numbers)
        for number in numbers:
            rule = rules[number]
            path_crowd, url_crowd = paths.crowd(rule.paths.patterns), urls.crowd(rule.urls.patterns)
            if path_crowd is not None and (url_crowd is None or path_crowd <= url_crowd):
                by_path.append((number, rule.paths.patterns))
            elif url_crowd is not None:
                by_url.append((number, rule.urls.patterns))
            else:
                tried.append(number)
        self._by_path = PatternIndex(by_path, paths) if by_path else None
        self._by_url = PatternIndex(by_url, urls) if by_url else None
        self._tried = tuple(tried)

    def find(self, asked: Asked) -> Sequence[int]:
        """The numbers of the rules whose conditions on path and URL may hold."""
        found: set[int] | None = None
        if self._by_path is not None:
            found = self._by_path.find(asked.paths)
        if self._by_url is not None:
            more = self._by_url.find(asked.urls)
            found = found | more if found else more
        if not found:
            return self._tried
        found.update(self._tried)
        return sorted(found)


class OriginIndex:
    """Which of some rules may speak of requests to an origin, by the beginnings of their URL patterns."""

    __slots__ = ("_by_url", "_others")

    def __init__(self, numbers: Sequence[int], rules: Sequence[Rule]) -> None:
        self._by_url: Heads | None = None
        self._others = tuple(numbers)
        if sum(bool(rules[number].urls) for number in numbers) > FEW:
            entered: dict[str, list[int]] = {}
            others: list[int] = []
            for number in numbers:
                beginnings = {origin_part(pattern) for pattern in rules[number].urls.patterns} or {""}
                if "" in beginnings:
                    others.append(number)
                else:
                    for beginning in beginnings:
                        entered.setdefault(beginning, []).append(number)
            self._by_url = Heads(entered)
            self._others = tuple(others)

    def find(self, beginnings: Iterable[str]) -> list[Sequence[int]]:
        """The numbers of the rules that may match an URL with one of these beginnings (scheme, host and `/`)."""
        if self._by_url is None:
            return [self._others]
        found: set[int] = set()
        for beginning in beginnings:
            self._by_url.find(beginning, found)
        return [self._others, sorted(found)]


def origin_part(pattern: Pattern) -> str:
    """What all URLs that a pattern matches begin with, up to the slash behind the host; as far as that can be told."""
    if not pattern.is_wildcard:
        return ""
    head = _WILD.split(pattern.text, maxsplit=1)[0]
    slash = -1
    for _ in range(3):
        slash = head.find("/", slash + 1)
        if slash < 0:
            return head
    return head[: slash + 1]


class Group:
    """Rules that are found together by a host: all of one condition on the host, or those that have to be asked.

    `requests`: those that may match a request. `speaking`, `deciding`, `refusing`: all, those that may decide what
    becomes of one, and those that may refuse a CONNECT; of few rules no part is made.
    """

    __slots__ = ("deciding", "refusing", "requests", "speaking")

    def __init__(self, numbers: Sequence[int], rules: Sequence[Rule]) -> None:
        self.requests = RequestIndex(numbers, rules)
        self.speaking = self.deciding = self.refusing = OriginIndex(numbers, rules)
        if len(numbers) > FEW:
            self.deciding = self._part(numbers, [number for number in numbers if rules[number].decides], rules)
            self.refusing = self._part(numbers, [number for number in numbers if rules[number].may_refuse], rules)

    def _part(self, numbers: Sequence[int], part: Sequence[int], rules: Sequence[Rule]) -> OriginIndex:
        return self.speaking if len(part) == len(numbers) else OriginIndex(part, rules)


class HostIndex:
    """The groups of all rules, by host."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        by_hosts: dict[HostPatterns, list[int]] = {}
        for number, rule in enumerate(rules):
            by_hosts.setdefault(rule.hosts, []).append(number)
        # Conditions that many others share a key with, so that a host may meet all of them, divide badly: what has
        # a path or an URL is better found by that.
        everywhere = by_hosts.pop(NO_HOSTS, [])
        names = Sharing(hosts.names for hosts in by_hosts)
        ports = Sharing(hosts.with_port for hosts in by_hosts)
        asked_for: list[int] = []
        conditions: list[tuple[HostPatterns, list[int]]] = []
        for hosts, numbers in by_hosts.items():
            if _is_crowded(names, hosts.names) or _is_crowded(ports, hosts.with_port):
                asked_for += [number for number in numbers if _is_found(rules[number])]
                numbers = [number for number in numbers if not _is_found(rules[number])]
            if numbers:
                conditions.append((hosts, numbers))
        # The rules whose hosts aren't known to match when they are found.
        self.unsure = frozenset(asked_for)
        self._hosts = [hosts for hosts, _ in conditions]
        self._groups = [Group(numbers, rules) for _, numbers in conditions]
        everywhere = sorted(everywhere + asked_for)
        self.everywhere = (Group(everywhere, rules),) if everywhere else ()
        self.divides = bool(conditions)
        self._by_name = PatternIndex(((place, hosts.names) for place, hosts in enumerate(self._hosts)), names)
        self._by_port = PatternIndex(((place, hosts.with_port) for place, hosts in enumerate(self._hosts)), ports)

    def find(self, host: str, port: int) -> tuple[Group, ...]:
        """The groups of a host, whose conditions are held against it here."""
        forms = host_forms(host)
        places = self._by_name.find(forms)
        if self._by_port:
            places |= self._by_port.find(with_port(forms, port))
        groups = [self._groups[place] for place in places if self._hosts[place].match(host, port)]
        return (*self.everywhere, *groups)


NO_HOSTS = HostPatterns(())


def _is_crowded(sharing: Sharing, patterns: Sequence[Pattern]) -> bool:
    if not patterns:
        return False
    crowd = sharing.crowd(patterns)
    return crowd is None or crowd > FEW


def _is_found(rule: Rule) -> bool:
    """Whether a rule can be found by its paths or its URLs."""
    return any(
        bool(each.patterns) and all(keys_of(pattern) for pattern in each.patterns) for each in (rule.paths, rule.urls)
    )
