"""A request costs no more where there are many rules. Counted, not timed."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.match import Pattern
from streamproxy.rules.rule import Rule
from streamproxy.rules.ruleset import RuleSet
from streamproxy.wire.message import CHUNKED, NO_BODY, Origin, Target
from tests.rules.asking import request, response, rule_set

EDIT = {"headers": {"set": {"A": "b"}}}
MANY = 400
SHAPES: dict[str, list[dict[str, Any]]] = {
    "hosts": [{"host": f"h{n}.example"} for n in range(MANY)],
    "hosts with a port": [{"host": f"h{n}.example:80"} for n in range(MANY)],
    "subdomains": [{"host": f"*.h{n}.example"} for n in range(MANY)],
    "hosts by their beginning": [{"host": f"h{n}.*", "path": "/*"} for n in range(MANY)],
    "paths of a host": [{"host": "h.example", "path": f"/v1/{n}"} for n in range(MANY)],
    "prefixes of subdomains": [{"host": "*.example", "path": f"/v1/{n}/*"} for n in range(MANY)],
    "prefixes": [{"path": f"/v1/{n}/*"} for n in range(MANY)],
    "nested prefixes": [{"path": f"/v1/{n // 40}/{n}/*"} for n in range(MANY)],
    "prefixes of another length each": [{"path": "/" + "v" * n + "-*"} for n in range(MANY)],
    "endings": [{"path": f"*.t{n}"} for n in range(MANY)],
    "a star inside": [{"path": f"/v1/*/items/{n}"} for n in range(MANY)],
    "a segment between stars": [{"path": f"/v1/*/{n}/*"} for n in range(MANY)],
    "urls": [{"url": f"http://h{n}.example/v1/*"} for n in range(MANY)],
    "urls of one host": [{"url": f"http://h.example/v1/{n}/*"} for n in range(MANY)],
    "urls of any scheme": [{"url": f"*://h{n}.example/*"} for n in range(MANY)],
    "the same paths of many hosts": [{"host": f"h{n % 40}.example", "path": f"/v1/{n // 40}/*"} for n in range(MANY)],
    "hosts with one in common": [{"host": ["h.example", f"h{n}.example"], "path": f"/v1/{n}"} for n in range(MANY)],
    "hosts by regex": [{"host": {"regex": f"^h{n}\\."}, "path": f"/v1/{n}"} for n in range(MANY)],
    "lists": [{"path": [f"/v1/{n}", f"/v2/{n}/*", f"*.t{n}"]} for n in range(MANY)],
    "a path for each url": [{"path": f"/v1/{n}/*", "url": "http://*"} for n in range(MANY)],
}


class Counted:
    """How often rules and patterns are tried."""

    def __init__(self) -> None:
        self.tries = 0

    def counting(self, holder: type, name: str) -> Any:
        original = getattr(holder, name)

        def call(*arguments: Any) -> Any:
            self.tries += 1
            return original(*arguments)

        return mock.patch.object(holder, name, call)


class CostTests(SynchronousTestCase):
    """How many patterns are tried, not how long that takes."""

    # Each of the three rules that may be found together with one, its conditions and the forms of what was asked for.
    MOST = 20

    def tries(self, set_: RuleSet, path: str, host: str, aliases: tuple[Origin, ...] = ()) -> int:
        counted = Counted()
        with counted.counting(Pattern, "matches"), counted.counting(Rule, "holds_for"):
            set_.on_request(request(), Target(Origin("http", host, 80), path), aliases)
        return counted.tries

    def test_what_is_tried_does_not_grow_with_the_rules(self) -> None:
        for shape, matches in SHAPES.items():
            set_ = rule_set([{"match": match, "request": EDIT} for match in matches])
            for host in ("h.example", "h7.example", "x.h7.example", "other.test"):
                for path in ("/v1/7", "/v1/7/x", "/v1/0/7/x", "/a.t7", "/v1/a/items/7", "/vvv-x", "/other?a", "*"):
                    self.assertLessEqual(self.tries(set_, path, host), self.MOST, (shape, host, path))
            alias = Origin("http", "x.h8.example", 80)
            self.assertLessEqual(self.tries(set_, "/v1/7", "h7.example", (alias,)), 2 * self.MOST, shape)

    def test_each_of_them_is_found(self) -> None:
        asked = {
            "hosts": ("h7.example", "/"),
            "subdomains": ("x.h7.example", "/"),
            "paths of a host": ("h.example", "/v1/7"),
            "prefixes": ("h.example", "/v1/7/x"),
            "endings": ("h.example", "/a.t7"),
            "a star inside": ("h.example", "/v1/x/items/7"),
            "a segment between stars": ("h.example", "/v1/x/7/y"),
            "urls": ("h7.example", "/v1/x"),
            "urls of any scheme": ("h7.example", "/"),
            "hosts by regex": ("h7.example", "/v1/7"),
            "hosts with one in common": ("h7.example", "/v1/7"),
        }
        for shape, (host, path) in asked.items():
            set_ = rule_set([{"match": match, "request": EDIT} for match in SHAPES[shape]])
            self.assertGreater(self.tries(set_, path, host), 0, "what is tried isn't counted")
            verdict = set_.on_request(request(), Target(Origin("http", host, 80), path))
            self.assertEqual(verdict.rules, ("rules[7]",), shape)

    def test_rules_of_crowded_hosts_that_share_their_path_are_no_burden_to_others(self) -> None:
        set_ = rule_set(
            [{"match": {"host": ["h.example", f"h{n}.example"], "path": "/*"}, "block": 403} for n in range(200)]
        )
        self.assertLessEqual(self.tries(set_, "/", "other.test"), self.MOST)

    def test_nor_does_what_is_asked_about_a_tunnel(self) -> None:
        for shape, matches in SHAPES.items():
            if shape in ("hosts by regex", "hosts with one in common"):
                continue  # What tells them apart is the path, and a tunnel has none.
            for action in ({"block": 403}, {"request": EDIT}):
                set_ = rule_set([{"match": match, **action} for match in matches])
                for host in ("h7.example", "x.h7.example", "other.test"):
                    counted = Counted()
                    with (
                        counted.counting(Pattern, "matches"),
                        counted.counting(Rule, "may_speak_of"),
                        counted.counting(Rule, "may_block_all_of"),
                    ):
                        for opaque in (False, True):
                            set_.on_connect(request("CONNECT"), Origin("https", host, 443), opaque)
                        set_.has_rules_for(host, 443)
                    self.assertLessEqual(counted.tries, 3 * self.MOST, (shape, action, host))

    def test_what_is_kept_for_hosts_is_bounded_in_bytes(self) -> None:
        rules = [{"match": {"host": {"regex": f"{n}|x"}}, "block": 403} for n in range(100)]
        set_ = rule_set([*rules, {"match": {"host": "a.test"}, "block": 403}])
        for number in range(3000):
            host = f"x{number}.example"
            set_.on_request(request(framing=NO_BODY), Target(Origin("http", host, 80), "/"))
            set_.on_connect(request("CONNECT"), Origin("https", host, 443), False)
        for kept in (set_._groups.found, set_._refusing.found):
            held = sum(300 + len(key[0]) + 8 * len(value) for key, value in kept.items())
            self.assertLessEqual(held, 256 << 10)
            self.assertGreater(len(kept), 0)

    def test_types_are_remembered_within_a_limit(self) -> None:
        set_ = rule_set([{"match": {"content_type": "text/*"}, "response": EDIT}])
        types = set_.rules[0].content_types
        for number in range(200):
            fields = {"Content-Type": f"text/{number}" + "x" * number}
            head = request("POST", fields, CHUNKED)
            verdict = set_.on_request(head, Target(Origin("http", "h", 80), "/"))
            self.assertEqual(set_.on_response(verdict, head, response()).rules, ("rules[0]",))
        self.assertLessEqual(sum(map(len, types._types or ())), 32 * 128)
