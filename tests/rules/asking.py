"""Heads to ask the rules about, and the asking, in few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamproxy.rules.explain import read_configuration
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.schema import Configuration
from streamproxy.rules.verdict import RequestVerdict, ResponseVerdict
from streamproxy.rules.way import Streaming
from streamproxy.rules.yaml import compose
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import (
    CHUNKED,
    NO_BODY,
    Framing,
    Origin,
    RequestHead,
    ResponseHead,
    Target,
)


def rules(text: str, **streaming: Any) -> RuleSet:
    configuration, problems = read_configuration(compose("rules:\n" + text, "f.yaml"))
    if configuration is None:
        raise AssertionError(problems)
    types = configuration.stream_content_types
    return RuleSet(configuration.rules, Streaming(types=types, **streaming))


def rule_set(given: Sequence[dict[str, Any]]) -> RuleSet:
    """The rules that a list of data stands for, without the way through YAML."""
    configuration = Configuration.model_validate({"rules": list(given)})
    return RuleSet(configuration.rules, Streaming(configuration.stream_content_types))


def headers(fields: dict[str, str] | None) -> Headers:
    return Headers((name.encode(), value.encode("latin-1")) for name, value in (fields or {}).items())


def request(method: str = "GET", fields: dict[str, str] | None = None, framing: Framing | None = None) -> RequestHead:
    framing = framing or (CHUNKED if method == "POST" else NO_BODY)
    return RequestHead(method.encode(), b"/", (1, 1), headers(fields), framing)


def response(status: int = 200, fields: dict[str, str] | None = None, framing: Framing = CHUNKED) -> ResponseHead:
    return ResponseHead((1, 1), status, b"OK", headers(fields), framing)


def target(url: str) -> Target:
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    host, _, port = netloc.partition(":")
    return Target(Origin(scheme, host, int(port or {"http": 80, "https": 443}[scheme])), slash + path)


def ask(set_: RuleSet, url: str = "http://h.example/", head: RequestHead | None = None) -> RequestVerdict:
    return set_.on_request(head or request(), target(url))


def both(set_: RuleSet, head: RequestHead | None = None, answer: ResponseHead | None = None) -> ResponseVerdict:
    head = head or request()
    verdict = set_.on_request(head, target("http://h.example/"))
    return set_.on_response(verdict, head, answer or response())
