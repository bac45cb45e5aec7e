"""Rules are found by an index, and it makes no difference but in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules import index
from streamproxy.rules.asked import Asked, AskedOfAny
from streamproxy.rules.index import Heads, PatternIndex, Sharing, keys_of
from streamproxy.rules.match import Pattern, path_pattern, regex, wildcard
from streamproxy.rules.rule import Rule
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.verdict import NO_WORK, Answer, RequestVerdict
from streamproxy.wire.message import Origin, RequestHead, Target
from tests.rules.asking import request, response, rule_set, target


class EveryRule:
    """The meaning of a rule set without its index: each rule is tried on each request."""

    def __init__(self, rules: RuleSet) -> None:
        self.set = rules

    def of(self, *origins: Origin) -> Iterator[Rule]:
        for rule in self.set.rules:
            if not rule.hosts or any(rule.hosts.match(origin.host, origin.port) for origin in origins):
                yield rule

    def on_request(self, head: RequestHead, target: Target, aliases: tuple[Origin, ...]) -> RequestVerdict:
        asked = AskedOfAny(target, aliases) if aliases else Asked(target)
        method = head.method.decode().upper()
        holding = [rule for rule in self.of(target.origin, *aliases) if rule.holds_for(method, asked)]
        applied = [rule for rule in holding if rule.heads_match(head.headers)]
        matched = tuple(rule for rule in holding if not rule.response.is_idle and rule.may_match_response(head.headers))
        if applied:
            return self.set._applied(head, asked, applied, matched)
        plain = any(rule.response.work.changes for rule in matched)
        return RequestVerdict((), matched, target, False, None, (), NO_WORK, self.set._way(head, None, None), plain)

    def on_connect(self, head: RequestHead, origin: Origin, opaque: bool) -> tuple[str, Answer] | None:
        for rule in self.of(origin):
            if not rule.decides or not rule.may_speak_of(origin):
                continue
            if rule.may_block_all_of(origin) and rule.answer is not None and rule.connect_matches(head.headers):
                return rule.name, rule.answer
            if not opaque and not rule.is_for_connect_alone:
                return None
        return None

    def has_rules_for(self, origin: Origin) -> bool:
        return any(rule.may_speak_of(origin) and not rule.is_for_connect_alone for rule in self.of(origin))


def joined(parts: Sequence[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(parts), max_size=most).map("".join)


def one_or_many(patterns: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return patterns | st.lists(patterns, min_size=1, max_size=3)


NAMES = ("a.example", "b.example", "x.a.example", "A.Example.", "127.0.0.1", "*.example", "*.a.example", "a.*", "*")
ODD_NAMES = ("?.example", "a*e", "*a*", "127.*", "b.example.*", "*.exampl?", "x.*.example")
WITH_PORT = ("a.example:80", "a.example:443", "*:8443", "*.example:*", "127.0.0.1:80", "[::1]:443", "[fe80:*]:80")
ADDRESSES = ("[::1]", "::1", "fe80::*", "0:0:0:0:0:0:0:1", "*::*")
HOST_REGEXES = ({"regex": "^a"}, {"regex": "E$"})
PATH_PARTS = ("/", "/a", "/b", "a", "b", "1", "/v1/", "*", "?", ".css", "~", "-", "%20", "ü", "/items/7")
PATH_PATTERNS = joined(PATH_PARTS, 5).map(lambda text: "/" + text) | joined(PATH_PARTS, 5).map(lambda text: "*" + text)
URL_PATTERNS = st.tuples(
    st.sampled_from(["http", "https", "HTTP", "*", "http*", "http?"]),
    st.sampled_from(["a.example", "A.Example.", "*.example", "a.example:80", "a.example:8443", "*", "127.0.0.1"]),
    st.sampled_from(["", "*", "/*", "/", "/**"]) | joined((*PATH_PARTS, "?a", "=b"), 4).map(lambda text: "/" + text),
).map(lambda parts: f"{parts[0]}://{parts[1]}{parts[2]}") | joined(
    ("/", "/a", "b", "1", "/v1/", "*", "?", "~", "example", "://", "=b"), 4
).map(lambda text: "*" + text)
HOSTS = one_or_many(st.sampled_from(NAMES + ODD_NAMES + WITH_PORT + ADDRESSES + HOST_REGEXES))
PATHS = one_or_many(PATH_PATTERNS | st.sampled_from([{"regex": "b$"}, {"regex": "^/a"}, "/*", "*"]))
URLS = one_or_many(URL_PATTERNS | st.just({"regex": "/a"}))
METHODS = st.sampled_from(["GET", "CONNECT", ["POST", "CONNECT"], "*", "G*", {"regex": "connect"}])
HEADERS = st.sampled_from([{"X": True}, {"X": False}, {"X": "y"}])
EDIT = {"headers": {"set": {"A": "b"}}}
ACTIONS = st.sampled_from(
    [
        {"block": 403},
        {"block": 451},
        {"respond": {"text": "x"}},
        {"redirect_to": "http://new.example/"},
        {"request": EDIT},
        {"response": EDIT},
        {"response": {"replace": [{"find": "a", "with": "b"}]}, "request": {"stream": False}},
    ]
)


@st.composite
def some_rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rules that have much in common, so that some are found together."""
    hosts = draw(st.lists(HOSTS, min_size=1, max_size=12))
    paths = draw(st.lists(PATHS, min_size=1, max_size=12))
    urls = draw(st.lists(URLS, min_size=1, max_size=12))
    conditions = {
        "host": st.sampled_from(hosts),
        "path": st.sampled_from(paths),
        "url": st.sampled_from(urls),
        "method": METHODS,
        "header": HEADERS,
    }
    # Of most rules something is left out.
    kinds = st.sets(st.sampled_from(["host", "host", "path", "path", "url", "url", "method", "header"]), max_size=3)
    rules: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 25))):
        match = {kind: draw(conditions[kind]) for kind in sorted(draw(kinds))}
        rules.append({"match": match, **draw(ACTIONS)})
    return rules


ASKED_NAMES = ("a.example", "a.example.", "b.example", "x.a.example", "b.example.test", "new.test", "example", "a")
ASKED_ADDRESSES = ("127.0.0.1", "127.1", "::1", "0:0::1", "::ffff:127.0.0.1", "fe80::1", "fe80::1%eth0")
ORIGINS = st.builds(
    Origin,
    st.sampled_from(["http", "https"]),
    st.sampled_from(ASKED_NAMES + ASKED_ADDRESSES),
    st.sampled_from([80, 443, 8443]),
)
ASKED_PARTS = ("/", "/a", "/b", "a", "b", "1", "/v1/", ".css", "%61", "%2e%2e/", "/../", "//", ";x", "%2F", "\\", "ü")
ASKED_PATHS = st.just("*") | st.builds(
    lambda path, query: f"/{path}{query}",
    joined((*ASKED_PARTS, "%C3%BC", "/./", "~", "%7e", "%20", "/items/7"), 6),
    st.sampled_from(["", "", "?a=b", "?%61=b", "?x=*", "?://a.example/"]),
)
TARGETS = st.builds(Target, ORIGINS, ASKED_PATHS)
FIELDS = st.sampled_from([None, {"X": "y"}, {"X": "z"}])


class SameTests(SynchronousTestCase):
    @settings(max_examples=250, deadline=None)
    @given(some_rules(), st.lists(TARGETS, min_size=1, max_size=4), st.lists(ORIGINS, max_size=2), FIELDS, st.data())
    def test_each_verdict_is_the_one_that_trying_every_rule_gives(
        self,
        rules: list[dict[str, Any]],
        targets: list[Target],
        aliases: list[Origin],
        fields: dict[str, str] | None,
        data: st.DataObject,
    ) -> None:
        with mock.patch.object(index, "FEW", data.draw(st.sampled_from([0, 1, index.FEW]))):
            indexed = rule_set(rules)
        every = EveryRule(indexed)
        head = request(data.draw(st.sampled_from(["GET", "POST", "get", "CONNECT"])), fields)
        for asked_for in targets * 2:  # the second time from what was kept
            for others in ((), tuple(aliases)):
                verdict = indexed.on_request(head, asked_for, others)
                expected = every.on_request(head, asked_for, others)
                self.assertEqual(verdict, expected)
                self.assertEqual(
                    indexed.on_response(verdict, head, response()), indexed.on_response(expected, head, response())
                )
            origin = asked_for.origin
            for opaque in (False, True):
                self.assertEqual(indexed.on_connect(head, origin, opaque), every.on_connect(head, origin, opaque))
            self.assertEqual(indexed.has_rules_for(origin.host, origin.port), every.has_rules_for(origin))

    @given(st.lists(PATH_PATTERNS, max_size=30), joined((*ASKED_PARTS, "*", "?"), 6))
    def test_a_pattern_that_matches_is_found(self, texts: list[str], text: str) -> None:
        patterns = [path_pattern(each) for each in texts]
        found = found_in(patterns, text)
        for number, pattern in enumerate(patterns):
            if pattern.matches(text):
                self.assertIn(number, found, (pattern, text))

    @given(st.lists(st.text(alphabet="ab", max_size=5)), st.text(alphabet="ab", max_size=6))
    def test_heads_are_just_those_that_a_text_begins_with(self, heads: list[str], text: str) -> None:
        entered: dict[str, list[int]] = {}
        for number, head in enumerate(heads):
            entered.setdefault(head, []).append(number)
        found: set[int] = set()
        Heads(entered).find(text, found)
        self.assertEqual(found, {number for number, head in enumerate(heads) if text.startswith(head)})


def found_in(patterns: Sequence[Pattern], text: str) -> set[int]:
    """The numbers of the patterns that may match a text."""
    lists = [(pattern,) for pattern in patterns]
    return PatternIndex(enumerate(lists), Sharing(lists)).find([text])


class KeyTests(SynchronousTestCase):
    def test_a_pattern_is_found_by_what_every_match_has(self) -> None:
        table = [
            ("/a/b", {"/a/b"}),
            ("/a/*", {"/a/", "a"}),
            ("/a*", {"/a"}),
            ("*.php", {".php", "php"}),
            ("*x.php", {"x.php", "php"}),
            ("/v1/*/items/7", {"/v1/", "/items/7", "v1", "items", "7"}),
            ("/a?c", {"/a", "c"}),
            ("*/admin/*", {"admin"}),
            ("*://h.example/*", {"h", "example"}),
            ("*secret*", set()),
            ("*a/b*", set()),
            ("*", set()),
            ("?*", set()),
        ]
        for text, keys in table:
            self.assertEqual({key for _, key in keys_of(wildcard(text))}, keys, text)
        self.assertEqual(keys_of(regex("^/a$")), [])

    def test_it_is_entered_where_the_fewest_others_are(self) -> None:
        texts = ["/v1/a/*", "/v1/*/x/1", "/v1/*/x/2", "/v1/*/y/3/*", "*/x/1"]
        patterns = [wildcard(text) for text in texts]
        self.assertEqual(found_in(patterns, "/v1/a/x/9"), {0})
        self.assertEqual(found_in(patterns, "/v1/b/x/2"), {2})
        self.assertEqual(found_in(patterns, "/v1/b/y/3/c"), {3})
        self.assertEqual(found_in(patterns, "/v2/b/x/1"), {1, 4})


class ManyRulesTests(SynchronousTestCase):
    """Rules enough that they are divided, and what each way of finding them must not forget."""

    def names(self, set_: RuleSet, url: str, *aliases: Origin) -> tuple[str, ...]:
        return set_.on_request(request(), target(url), aliases).rules

    def crowded(self, action: dict[str, Any], *more: dict[str, Any]) -> RuleSet:
        """Rules that are found by their path, for their hosts don't tell them apart; and more behind them."""
        matches = [{"host": ["h.example", f"h{n}.example"], "path": f"/{n}"} for n in range(100)]
        return rule_set([*({"match": match, **action} for match in matches), *more])

    def test_a_rule_that_is_found_by_its_path_still_holds_for_its_hosts_alone(self) -> None:
        set_ = self.crowded({"request": EDIT})
        for host, found in (("h", True), ("h7", True), ("h8", False), ("other", False)):
            names = self.names(set_, f"http://{host}.example/7")
            self.assertEqual(names, ("rules[7]",) if found else (), host)
        alias = Origin("http", "h7.example", 80)
        self.assertEqual(self.names(set_, "http://other.example/7", alias), ("rules[7]",))
        self.assertEqual(self.names(set_, "http://other.example/8", alias), ())

    def test_so_it_does_where_tunnels_are_decided(self) -> None:
        set_ = self.crowded({"block": 403})
        for host, has in (("h.example", True), ("h7.example", True), ("other.example", False)):
            self.assertEqual(set_.has_rules_for(host, 443), has, host)
        set_ = self.crowded({"respond": {"text": "x"}}, {"block": 403})
        for host, refused in (("h.example", False), ("h7.example", False), ("other.example", True)):
            said = set_.on_connect(request("CONNECT"), Origin("https", host, 443), False)
            self.assertEqual(said is not None, refused, host)
        matches = [{"host": ["h.example", f"h{n}.example"], "url": f"https://h{n}.example/*"} for n in range(100)]
        set_ = rule_set([{"match": match, "block": 403} for match in matches])
        for host, refused in (("h.example", False), ("h7.example", True), ("other.example", False)):
            for opaque in (False, True):
                said = set_.on_connect(request("CONNECT"), Origin("https", host, 443), opaque)
                self.assertEqual(said is not None, refused, (host, opaque))

    def test_rules_of_several_ways_of_finding_them_keep_the_order_of_the_file(self) -> None:
        ways: list[dict[str, Any]] = [
            {"host": ["h.example", "x.example"], "path": "/a"},
            {"path": "/a"},
            {"host": "h.example", "path": "*a"},
            {"url": "http://h.example/a"},
            {"host": "*.example", "url": "http://*.example/a"},
            {"host": "h.example:80"},
            {},
        ]
        matches = [ways[number % len(ways)] for number in range(300)]
        set_ = rule_set([{"match": match, "request": EDIT} for match in matches])
        every = tuple(f"rules[{number}]" for number in range(300))
        self.assertEqual(self.names(set_, "http://h.example/a"), every)
        # Rules found by path, of hosts that are found by it as well.
        matches = [
            {"path": "/a", "host": [f"h{n}.example", "h.example"]} if n % 50 == 0 else {"path": f"/{n}*"}
            for n in range(200)
        ]
        matches += [{"path": "/a*"}, {"path": "/a"}]
        set_ = rule_set([{"match": match, "request": EDIT} for match in matches])
        numbers = (0, 50, 100, 150, 200, 201)
        self.assertEqual(self.names(set_, "http://h.example/a"), tuple(f"rules[{n}]" for n in numbers))

    def test_what_is_kept_for_one_port_is_not_taken_for_another(self) -> None:
        set_ = rule_set([{"match": {"host": f"h{n}.example:8443"}, "block": 403} for n in range(10)])
        for port, blocked in ((80, False), (8443, True), (80, False)):
            answer = set_.on_request(request(), target(f"http://h7.example:{port}/")).answer
            said = set_.on_connect(request("CONNECT"), Origin("https", "h7.example", port), False)
            self.assertEqual((answer is not None, said is not None), (blocked, blocked), port)

    def test_a_tunnel_is_spoken_of_by_urls_that_go_further_than_its_origin(self) -> None:
        matches = [{"url": [f"https://h{n}.example/x", f"https://h{n}.example/x/*"]} for n in range(10)]
        set_ = rule_set([*({"match": match, "respond": {"text": "x"}} for match in matches), {"block": 403}])
        for host, refused in (("h7.example", False), ("other.example", True)):
            said = set_.on_connect(request("CONNECT"), Origin("https", host, 443), False)
            self.assertEqual(said is not None, refused, host)
        set_ = rule_set([{"match": match, "request": EDIT} for match in matches])
        self.assertEqual([set_.has_rules_for(f"{name}.example", 443) for name in ("h7", "other")], [True, False])

    def test_a_tunnel_is_refused_by_one_of_a_rule_s_urls(self) -> None:
        matches = [{"url": [f"https://h{n}.example/x", f"https://h{n}.example/*"]} for n in range(10)]
        set_ = rule_set([{"match": match, "block": 403} for match in matches])
        for opaque in (False, True):
            for host, refused in (("h7.example", True), ("other.example", False)):
                said = set_.on_connect(request("CONNECT"), Origin("https", host, 443), opaque)
                self.assertEqual(said is not None, refused, (host, opaque))
