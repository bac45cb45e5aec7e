"""Micro-benchmarks of deciding a verdict: what a request costs where there are many rules that don't match it.

`SHAPES` are the rules that there are many of; `case_growth` starts a proxy with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from bench.connection import check
from bench.micro_heads import BROWSER_REQUEST, request_read
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.schema import Configuration
from streamproxy.rules.way import Streaming
from streamproxy.wire.message import Target

HOST = "www.shop.example"
PATH = "/assets/styles/main.css"
NUMBERS = (1, 100, 10_000)
# More hosts than anybody would remember what was found for.
HOSTS = 4096


class Shape(NamedTuple):
    """Conditions of the rules that don't match, by number and the host that is asked for; and of one that does."""

    misses: Callable[[int, str], dict[str, str]]
    matches: Callable[[str, str], dict[str, str]]


SHAPES = {
    "hosts": Shape(lambda number, _: {"host": f"h{number}.example"}, lambda host, _: {"host": host}),
    "wildcard hosts": Shape(
        lambda number, _: {"host": f"*.h{number}.example"}, lambda host, _: {"host": "*" + host[1:]}
    ),
    "one host's paths": Shape(
        lambda number, host: {"host": host, "path": f"/v1/items/{number}"},
        lambda host, path: {"host": host, "path": path},
    ),
    "one host's path prefixes": Shape(
        lambda number, host: {"host": host, "path": f"/v1/items/{number}/*"},
        lambda host, path: {"host": host, "path": f"{path[:-1]}*"},
    ),
    "any host's path prefixes": Shape(
        lambda number, _: {"path": f"/v1/items/{number}/*"}, lambda _, path: {"path": f"{path[:-1]}*"}
    ),
    "paths with a star inside": Shape(
        lambda number, _: {"path": f"/v1/*/items/{number}"}, lambda _, path: {"path": f"{path[:2]}*{path[-2:]}"}
    ),
    "paths by their ends": Shape(lambda number, _: {"path": f"*.t{number}"}, lambda _, path: {"path": f"*{path[-3:]}"}),
    "url patterns": Shape(
        lambda number, _: {"url": f"http://h{number}.example/v1/{number}/*"},
        lambda host, path: {"url": f"http://{host}*{path[:-1]}*"},
    ),
}


def rules_data(
    shapes: Sequence[str], number: int, one_matches: bool = False, host: str = HOST, path: str = PATH
) -> list[dict[str, Any]]:
    """So many rules as they stand in a file, of `shapes` in turns, for one who asks for `path` at `host`.

    None of them matches; or the last one alone, which then adds X-Matched to both messages.
    """
    mixed = [SHAPES[shape] for shape in shapes]
    rules: list[dict[str, Any]] = []
    for each in range(number):
        rules.append({"match": mixed[each % len(mixed)].misses(each, host), "block": 403})
    if one_matches:
        added = {"headers": {"set": {"X-Matched": "yes"}}}
        rules[-1] = {"match": mixed[-1].matches(host, path), "request": added, "response": added}
    return rules


def rule_set(rules: list[dict[str, Any]]) -> RuleSet:
    """The rules as settings make them."""
    read = Configuration.model_validate({"rules": rules})
    return RuleSet(read.rules, Streaming(read.stream_content_types))


def ask(shape: str, number: int, one_matches: bool, other_hosts: bool) -> Callable[[], object]:
    """Ask about a request among so many rules; `other_hosts`: each time for a host that wasn't asked for lately."""
    rules = rule_set(rules_data([shape], number, one_matches) if number else [])
    head, target = request_read(BROWSER_REQUEST)
    check(target.origin.host == HOST and target.path.startswith(f"{PATH}?"), f"the request is for {target}")
    wanted = (f"rules[{number - 1}]",) if one_matches else ()
    found = rules.on_request(head, target).rules
    check(found == wanted, f"the rules that apply are {found}")
    if not other_hosts:
        return partial(rules.on_request, head, target)
    hosts = [f"www.shop{each}.example" for each in range(HOSTS)]
    targets = itertools.cycle([Target(target.origin._replace(host=host), target.path) for host in hosts])

    def ask_next() -> object:
        return rules.on_request(head, next(targets))

    check(rules.on_request(head, next(targets)).rules == (), "a rule applies to another host")
    return ask_next


def pieces() -> list[tuple[str, Callable[[], Callable[[], object]]]]:
    found: list[tuple[str, Callable[[], Callable[[], object]]]] = []
    found.append(("rules: none", partial(ask, "hosts", 0, False, False)))
    for shape in SHAPES:
        for number in NUMBERS:
            words = f"rules: {number:,} {shape}"
            found.append((f"{words}, none matches", partial(ask, shape, number, False, False)))
        found.append((f"{words}, the last matches", partial(ask, shape, number, True, False)))
    for shape in ("hosts", "wildcard hosts"):
        for number in NUMBERS:
            words = f"rules: {number:,} {shape}, another host each time"
            found.append((words, partial(ask, shape, number, False, True)))
    return found


PIECES = tuple(pieces())
