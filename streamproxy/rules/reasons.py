"""Why a rule applies or doesn't, and what is known of a destination by its name alone, told condition by condition.

For people who ask (`streamproxy explain`). What happens is decided in `ruleset` and `access`; the conditions here are
the same objects, held against the same forms of a request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from streamproxy.rules.access import Origins
from streamproxy.rules.asked import Asked, AskedOfAny
from streamproxy.rules.interception import is_address
from streamproxy.rules.match import Pattern, Patterns, content_type_holds, header_holds, host_forms
from streamproxy.rules.rule import Rule
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import Origin, Target


class Condition(NamedTuple):
    """One condition of a rule: its key, what was written, what it was held against, and whether it holds."""

    key: str
    wanted: tuple[str, ...]
    found: str
    holds: bool


def conditions(
    rule: Rule, method: bytes, target: Target, aliases: tuple[Origin, ...], *heads: Headers
) -> Iterator[Condition]:
    """Each condition that `rule` has, held against a request for `target`, as `RuleSet.on_request` is given it.

    `heads` are the fields of the request, and behind them those of its response where it is asked about that.
    """
    origins = (target.origin, *aliases)
    asked = AskedOfAny(target, aliases) if aliases else Asked(target)
    hosts = rule.hosts
    if hosts:
        written = tuple(map(_written, (*hosts.names, *hosts.with_port)))
        found = " or ".join(f"{each.host}:{each.port}" for each in origins)
        yield Condition("match.host", written, found, any(hosts.match(each.host, each.port) for each in origins))
    if rule.methods:
        name = method.decode("latin-1").upper()
        yield Condition("match.method", _all_written(rule.methods), name, rule.methods.matches(name))
    if rule.paths:
        yield Condition("match.path", _all_written(rule.paths), asked.path, rule.paths.match_any(asked.paths))
    if rule.urls:
        yield Condition("match.url", _all_written(rule.urls), target.url, rule.urls.match_any(asked.urls))
    for field, test in rule.headers:
        wanted = _all_written(test) if isinstance(test, Patterns) else ("present" if test else "absent",)
        holds = header_holds(field, test, *heads)
        yield Condition(f"match.header.{field.decode()}", wanted, _lines(field, heads), holds)
    if rule.content_types:
        found = _lines(b"content-type", heads)
        holds = content_type_holds(rule.content_types, *heads)
        yield Condition("match.content_type", _all_written(rule.content_types), found, holds)


def _all_written(patterns: Patterns) -> tuple[str, ...]:
    return tuple(map(_written, patterns.patterns))


def _written(pattern: Pattern) -> str:
    return pattern.text if pattern.is_wildcard else f"{{regex: {pattern.text}}}"


def _lines(field: bytes, heads: tuple[Headers, ...]) -> str:
    values = [value.decode("latin-1") for headers in heads for value in headers.lines(field)]
    return " or ".join(values) if values else "absent"


class ByName(NamedTuple):
    """What `access.origins` says of a destination by its name: `refusal`, or None; `final`: no address changes that."""

    refusal: str | None
    final: bool


def origin_by_name(origins: Origins, host: str, port: int) -> ByName:
    """What can be told before a name is resolved; `host` in lower case, IPv6 without brackets."""
    if is_address(host):
        for form in reversed(host_forms(host)):
            try:
                ipaddress.ip_address(form)
            except ValueError:
                continue
            return ByName(origins.refusal(host, port, form), True)
    denied = origins.deny.name(host, port)
    if denied is not None:
        return ByName(f"access.origins.deny: {denied}", True)
    listed = not origins.allow or origins.allow.name(host, port) is not None
    if not listed and not origins.allow.ranges:
        return ByName("access.origins.allow: not listed", True)
    return ByName(None, listed and not origins.deny.ranges)
