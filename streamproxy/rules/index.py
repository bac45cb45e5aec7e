"""Finds what may match without trying each: patterns by the text that they have outside of their wildcards.

A wildcard pattern can match no text but one that begins with what stands before its first `*` or `?`, its head; ends
with what stands behind its last, its tail; and has each of its words, runs of letters and digits between signs that are
written, too. So it is entered under one of these, whichever the fewest others share. One without any, such as `*abc*`,
and a regular expression, can only be tried. What is found here may match, and what isn't can't: whoever asks still
tries what is found.

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
from collections.abc import Iterable, Iterator, Sequence

from streamproxy.rules.asked import Asked
from streamproxy.rules.match import HostPatterns, Pattern, host_forms, wildcard, with_port
from streamproxy.rules.reach import may_cover_all, origin_part
from streamproxy.rules.rule import Rule

# So many rules are sooner tried than found.
FEW = 4
_WORD = re.compile(r"[A-Za-z0-9]+")
# What a pattern may be found by: its whole text, its head, its tail or a word.
_EXACT, _HEAD, _TAIL, _INSIDE = range(4)
Key = tuple[int, str]
_NO_HOSTS = HostPatterns(())


def keys_of(pattern: Pattern) -> list[Key]:
    """What a pattern may be found by, the best first; nothing for one that can only be tried."""
    if pattern.is_exact:
        return [(_EXACT, pattern.text)]
    if not pattern.is_wildcard:
        return []
    runs = pattern.runs
    head, tail = runs[0], runs[-1]
    keys = [(_HEAD, head), (_TAIL, tail)]
    if len(tail) > len(head):
        keys.reverse()
    keys += [(_INSIDE, word) for word in _words_of(runs)]
    return [key for key in keys if key[1]]


def _words_of(runs: Sequence[str]) -> Iterator[str]:
    """The words that are whole in every text that matches: no wildcard stands at either of their ends."""
    for place, run in enumerate(runs):
        for word in _WORD.finditer(run):
            begins = word.start() > 0 or place == 0
            ends = word.end() < len(run) or place == len(runs) - 1
            if begins and ends:
                yield word[0]


class Sharing:
    """How many of some lists of patterns could be found by the same key. Needed only while indexes are made."""

    def __init__(self, lists: Iterable[Sequence[Pattern]]) -> None:
        self._keys: dict[Pattern, list[Key]] = {}
        self._shared: Counter[Key | None] = Counter()
        for patterns in lists:
            shared: set[Key | None] = set()
            for pattern in patterns:
                keys = self._keys.get(pattern)
                if keys is None:
                    keys = self._keys[pattern] = keys_of(pattern)
                if keys:
                    shared.update(keys)
                else:
                    shared.add(None)
            self._shared.update(shared)

    def best_key(self, pattern: Pattern) -> Key | None:
        """The key of a pattern that the fewest share; None if it has none."""
        return min(self._keys[pattern], key=self._shared.__getitem__, default=None)

    def crowd(self, patterns: Sequence[Pattern]) -> int:
        """How many lists, this one among them, are found together with it at the most."""
        return max((self._shared[self.best_key(pattern)] for pattern in patterns), default=0)

    def finds(self, patterns: Sequence[Pattern]) -> bool:
        """Whether a list can be found: it isn't empty, and each of its patterns has a key."""
        return bool(patterns) and all(self._keys[pattern] for pattern in patterns)


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

    __slots__ = ("_exact", "_heads", "_tails", "_tried", "_words")

    def __init__(self, entries: Iterable[tuple[int, Sequence[Pattern]]], sharing: Sharing) -> None:
        entered: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        tried: list[int] = []
        for number, patterns in entries:
            keys = {sharing.best_key(pattern) for pattern in patterns}
            if None in keys:
                tried.append(number)
                continue
            for key in keys:
                if key is not None:
                    kind, text = key
                    entered[kind].setdefault(text[::-1] if kind == _TAIL else text, []).append(number)
        exact, heads, tails, words = entered
        self._exact = {text: tuple(numbers) for text, numbers in exact.items()}
        self._words = {word: tuple(numbers) for word, numbers in words.items()}
        self._heads = Heads(heads) if heads else None
        self._tails = Heads(tails) if tails else None
        self._tried = tuple(tried)

    def __bool__(self) -> bool:
        return bool(self._exact or self._heads or self._tails or self._words or self._tried)

    def find(self, texts: Iterable[str]) -> set[int]:
        """The numbers whose patterns may match one of the texts."""
        found = set(self._tried)
        for text in texts:
            if text in self._exact:
                found.update(self._exact[text])
            if self._heads is not None:
                self._heads.find(text, found)
            if self._tails is not None:
                self._tails.find(text[::-1], found)
            if self._words:
                for word in _WORD.findall(text):
                    if word in self._words:
                        found.update(self._words[word])
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
        by_path: list[tuple[int, Sequence[Pattern]]] = []
        by_url: list[tuple[int, Sequence[Pattern]]] = []
        tried: list[int] = []
        paths = Sharing(rules[number].paths.patterns for number in numbers)
        urls = Sharing(rules[number].urls.patterns for number in numbers)
        for number in numbers:
            rule_paths, rule_urls = rules[number].paths.patterns, rules[number].urls.patterns
            has_path, has_url = paths.finds(rule_paths), urls.finds(rule_urls)
            if has_path and not (has_url and urls.crowd(rule_urls) < paths.crowd(rule_paths)):
                by_path.append((number, rule_paths))
            elif has_url:
                by_url.append((number, rule_urls))
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
    """Which of some rules may speak of an origin, by its URLs; `all_of_it`: of all of it, if they have URL patterns."""

    __slots__ = ("_by_url", "_tried")

    def __init__(self, numbers: Sequence[int], rules: Sequence[Rule], all_of_it: bool = False) -> None:
        self._by_url: PatternIndex | None = None
        self._tried = tuple(numbers)
        if sum(bool(rules[number].urls) for number in numbers) <= FEW:
            return
        lists: list[Sequence[Pattern]] = []
        for number in numbers:
            patterns: Sequence[Pattern] = rules[number].urls.patterns
            if all_of_it:
                # What covers all of an origin matches what all its URLs begin with.
                patterns = [pattern for pattern in patterns if may_cover_all(pattern)]
            else:
                patterns = [wildcard(f"{origin_part(pattern)}*") for pattern in patterns]
            lists.append(patterns)
        sharing = Sharing(lists)
        entries = list(zip(numbers, lists, strict=True))
        self._by_url = PatternIndex((entry for entry in entries if sharing.finds(entry[1])), sharing)
        self._tried = tuple(number for number, patterns in entries if not sharing.finds(patterns))

    def find(self, beginnings: Iterable[str]) -> list[Sequence[int]]:
        """The numbers of the rules that may speak of an origin, in two lists; `beginnings` are what its URLs have."""
        return [self._tried] if self._by_url is None else [self._tried, sorted(self._by_url.find(beginnings))]


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
            deciding = [number for number in numbers if rules[number].decides]
            if len(deciding) < len(numbers):
                self.deciding = OriginIndex(deciding, rules)
            self.refusing = OriginIndex([number for number in deciding if rules[number].may_refuse], rules, True)


class HostIndex:
    """The groups of all rules, by host."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        by_hosts: dict[HostPatterns, list[int]] = {}
        for number, rule in enumerate(rules):
            by_hosts.setdefault(rule.hosts, []).append(number)
        everywhere = by_hosts.pop(_NO_HOSTS, [])
        names = Sharing(hosts.names for hosts in by_hosts)
        ports = Sharing(hosts.with_port for hosts in by_hosts)
        # Conditions that many others share a key with, so that a host may meet all of them, divide badly: a rule
        # whose paths or URLs hardly any other has is better found by them.
        crowded = [hosts for hosts in by_hosts if max(names.crowd(hosts.names), ports.crowd(hosts.with_port)) > FEW]
        unsure = _rare([number for hosts in crowded for number in by_hosts[hosts]], rules)
        # The rules whose hosts aren't known to match when they are found.
        self.unsure = frozenset(unsure)
        for hosts in crowded:
            by_hosts[hosts] = [number for number in by_hosts[hosts] if number not in self.unsure]
        by_hosts = {hosts: numbers for hosts, numbers in by_hosts.items() if numbers}
        everywhere = sorted(everywhere + unsure)
        self.everywhere = (Group(everywhere, rules),) if everywhere else ()
        self.divides = bool(by_hosts)
        self._hosts = list(by_hosts)
        self._groups = [Group(numbers, rules) for numbers in by_hosts.values()]
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


def _rare(numbers: Sequence[int], rules: Sequence[Rule]) -> list[int]:
    """The rules that few others are found with by their paths or their URLs."""
    paths = Sharing(rules[number].paths.patterns for number in numbers)
    urls = Sharing(rules[number].urls.patterns for number in numbers)

    def is_rare(rule: Rule) -> bool:
        return any(
            sharing.finds(patterns) and sharing.crowd(patterns) <= FEW
            for sharing, patterns in ((paths, rule.paths.patterns), (urls, rule.urls.patterns))
        )

    return [number for number in numbers if is_rare(rules[number])]
