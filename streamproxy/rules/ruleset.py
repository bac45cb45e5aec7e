"""What the rules say about each message, as a pure function of its head.

All rules that match apply, in the order of the file. Their edits and replacements add up; of what there can be
only one of (an answer, a redirect, the word on streaming) the first rule that says it decides. Rules are held
against the request as the client sent it, never against what another rule made of it. Carrying out a verdict
is the wiring's work.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from streamproxy.rules import schema
from streamproxy.rules.asked import Asked, AskedOfAny
from streamproxy.rules.match import host_forms
from streamproxy.rules.paths import within
from streamproxy.rules.rule import TEXT, Part, Rule
from streamproxy.rules.values import Redirect
from streamproxy.rules.verdict import (
    Answer,
    HeaderEdits,
    Replacement,
    RequestVerdict,
    ResponseVerdict,
    Way,
)
from streamproxy.rules.way import ANSWERED_HERE, NO_BODY_TO_MOVE, Streaming, body_way, shown_token
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import Framing, Kind, Origin, RequestHead, ResponseHead, Target

_PARTS = b"multipart/byteranges"


class Wanted:
    """What the rules that apply to one message want of it, gathered in their order."""

    __slots__ = ("edits", "names", "replacements", "says")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.edits: list[HeaderEdits] = []
        self.replacements: list[Replacement] = []
        self.says: tuple[bool, str] | None = None

    def take(self, part: Part, has_body: bool, may_replace: bool) -> bool:
        """Add what one rule's `part` wants; whether that was anything. Of words on streaming the first counts."""
        does_something: bool = part.changes_fields
        if part.changes_fields:
            self.edits.append(part.edits)
        if part.replacements and may_replace:
            self.replacements += part.replacements
            does_something = True
        if part.says and self.says is None and has_body:
            self.says = part.says
            does_something = True
        return does_something


class RuleSet:
    """All rules, in the order of the file, and the settings of how bodies go."""

    def __init__(self, rules: Iterable[schema.Rule], streaming: Streaming) -> None:
        self.rules = tuple(Rule(rule.name or f"rules[{index}]", rule) for index, rule in enumerate(rules))
        self.streaming = streaming
        self._by_host: dict[str, list[int]] = {}
        self._others: list[int] = []
        for index, rule in enumerate(self.rules):
            exact = rule.hosts.exact if rule.hosts else None
            if exact is None:
                self._others.append(index)
            for host in exact or ():
                self._by_host.setdefault(host, []).append(index)
        # Which rules' hosts match depends on the host alone, so it's found once for it, not at each request.
        self._rules_for = functools.lru_cache(maxsize=1024)(self._find_rules_for)
        self._rules_for_any = functools.lru_cache(maxsize=1024)(self._find_rules_for_any)
        self._deciding_at = functools.lru_cache(maxsize=1024)(self._find_deciding_at)

    def _find_rules_for(self, host: str, port: int) -> tuple[Rule, ...]:
        indexes = {index for form in host_forms(host) for index in self._by_host.get(form, ())}
        for index in self._others:
            hosts = self.rules[index].hosts
            if not hosts or hosts.match(host, port):
                indexes.add(index)
        return tuple(self.rules[index] for index in sorted(indexes))

    def _find_rules_for_any(self, origins: tuple[Origin, ...]) -> tuple[Rule, ...]:
        found = {rule for origin in origins for rule in self._rules_for(origin.host, origin.port)}
        return tuple(rule for rule in self.rules if rule in found)

    def on_request(self, head: RequestHead, target: Target, aliases: tuple[Origin, ...] = ()) -> RequestVerdict:
        """What the rules say about a request's head. `target` is what the client asked for.

        `aliases` are for a request within a tunnel: whom else its origin goes by, as the CONNECT or the Host field
        name it. Conditions on host and URL hold if they do for any of them, as the origin may answer for all.
        """
        matched: list[Rule] = []
        applied: list[Rule] = []
        rules = self.rules
        if rules:
            _, host, port = target.origin
            rules = self._rules_for_any((target.origin, *aliases)) if aliases else self._rules_for(host, port)
        if rules:
            asked = AskedOfAny(target, aliases) if aliases else Asked(target)
            method = head.method.decode("latin-1").upper()
            for rule in rules:
                if not rule.holds_for(method, asked):
                    continue
                if rule.heads_match(head.headers):
                    applied.append(rule)
                if not rule.response.is_idle and rule.may_match_response(head.headers):
                    matched.append(rule)
            if applied:
                return self._applied(head, asked, applied, tuple(matched))
        way = self._way(head, None)
        return RequestVerdict((), tuple(matched), target, False, None, (), (), way, _wants_plain(matched))

    def _applied(
        self, head: RequestHead, asked: Asked, applied: list[Rule], matched: tuple[Rule, ...]
    ) -> RequestVerdict:
        """The verdict where rules match on the request's head."""
        target = asked.target
        redirected = False
        wanted = Wanted()
        has_body = _has_body(head.framing)
        for rule in applied:
            if rule.answer and not redirected:
                answer = rule.answer
                if rule.folder:
                    tail = rule.path_tail(asked)
                    tail = asked.path if tail is None else tail
                    answer = answer._replace(tail=tail.lstrip("/"))
                return _answered(rule.name, matched, asked.target, answer)
            redirects = rule.redirect is not None and not redirected
            if rule.redirect is not None and redirects:
                target = _redirected(rule, rule.redirect, asked)
                redirected = True
            if wanted.take(rule.request, has_body, has_body) or redirects:
                wanted.names.append(rule.name)
        if wanted.replacements:
            unreadable = _unreadable_request(head, wanted.replacements[0].rule)
            if unreadable:
                return _answered(wanted.replacements[0].rule, matched, asked.target, unreadable)
        way = self._way(head, wanted.says)
        return RequestVerdict(
            tuple(wanted.names),
            matched,
            target,
            redirected,
            None,
            tuple(wanted.edits),
            tuple(wanted.replacements),
            way,
            _wants_plain(matched),
        )

    def _way(self, head: RequestHead | ResponseHead, says: tuple[bool, str] | None) -> Way:
        if head.framing.kind is Kind.NONE:
            return NO_BODY_TO_MOVE
        return body_way(head.framing, head.headers.lines(b"content-type"), says, self.streaming)

    def on_connect(self, head: RequestHead, origin: Origin, opaque: bool) -> tuple[str, Answer] | None:
        """The name and answer of the rule that refuses a CONNECT to `origin`, of which host and port count; or None.

        A `block` rule does so if it holds for everything there: it has no conditions on path (`*` and `/*` aside),
        header or content_type; none on method, or one that CONNECT meets; and of its URL patterns, if it has any,
        one covers the whole origin, as `https://host/*` does. (Of a `regex` that can't be told.) A rule that is
        written for CONNECT, by its method, may look at the CONNECT's header fields. `respond` and `redirect_to`
        are for the requests within: the 2xx of a CONNECT is no answer, but the tunnel's beginning.

        Rules count in their order. One that blocks, answers or redirects some of what may be asked for within the
        tunnel ends the search, as it might have decided first; what is blocked behind it is blocked within. Where
        nobody will look into the tunnel (`opaque`), such a rule can't be carried out, and the search goes on.
        """
        for rule, may_block in self._deciding_at(origin.host, origin.port):
            if may_block and rule.answer is not None and rule.connect_matches(head.headers):
                return rule.name, rule.answer
            if not opaque and not rule.is_for_connect_alone:
                return None
        return None

    def _find_deciding_at(self, host: str, port: int) -> tuple[tuple[Rule, bool], ...]:
        """The rules that may decide what becomes of requests to an origin, and whether each may block all of them."""
        origin = Origin("https", host, port)
        return tuple(
            (rule, rule.may_block_all_of(origin))
            for rule in self._rules_for(host, port)
            if rule.decides and rule.may_speak_of(origin)
        )

    def has_rules_for(self, host: str, port: int) -> bool:
        """Whether a rule may apply to some request to a host, http or https."""
        origin = Origin("https", host, port)
        return any(rule.may_speak_of(origin) and not rule.is_for_connect_alone for rule in self._rules_for(host, port))

    def on_response(self, verdict: RequestVerdict, request: RequestHead, head: ResponseHead) -> ResponseVerdict:
        """What the rules say about a response's final head; `request` is the head as the client sent it."""
        if not verdict.matched:
            return ResponseVerdict((), (), (), self._way(head, None))
        wanted = Wanted()
        has_body = _has_body(head.framing)
        # The answer to HEAD, and a 304: what its fields say of a body must hold for the one that GET would give.
        stands_for_one = head.framing.kind is Kind.NONE
        for rule in verdict.matched:
            if rule.heads_match(request.headers, head.headers):
                if wanted.take(rule.response, has_body, has_body or stands_for_one):
                    wanted.names.append(rule.name)
        replacements = tuple(wanted.replacements)
        refused = _unreadable_response(head, replacements[0].rule) if replacements and has_body else None
        way = self._way(head, wanted.says)
        return ResponseVerdict(tuple(wanted.names), tuple(wanted.edits), replacements, way, refused)


def _answered(name: str, matched: tuple[Rule, ...], target: Target, answer: Answer) -> RequestVerdict:
    """The verdict on a request that goes nowhere: nothing but the rule that answers it has a say."""
    return RequestVerdict((name,), matched, target, False, answer, (), (), ANSWERED_HERE, False)


def _has_body(framing: Framing) -> bool:
    return framing.kind is not Kind.NONE and framing.length != 0


def _wants_plain(matched: Iterable[Rule]) -> bool:
    return any(rule.response.replacements for rule in matched)


def _redirected(rule: Rule, redirect: Redirect, asked: Asked) -> Target:
    if asked.path == "*":  # of the server as a whole: there is no path to put anything behind
        return Target(redirect.origin, "*")
    path = redirect.path
    if path.endswith("/"):
        tail = rule.url_tail(asked)
        if tail is None:
            tail = rule.path_tail(asked)
        path += within(asked.path.removeprefix("/") if tail is None else tail)
    return Target(redirect.origin, path + (redirect.query or asked.query))


def _coding(headers: Headers) -> str | None:
    """The content coding that keeps a rule from reading a body."""
    for token in headers.tokens(b"content-encoding"):
        if token != b"identity":
            return shown_token(token)
    return None


def _unreadable_request(head: RequestHead, rule: str) -> Answer | None:
    coding = _coding(head.headers)
    if coding is not None:
        text = f"Rule {rule!r} can't read Content-Encoding {coding}.\n"
        return Answer(415, (TEXT, (b"Accept-Encoding", b"identity")), text.encode(), refusal=True)
    if b"content-range" in head.headers:
        text = f"Rule {rule!r} can't read a part of a body (Content-Range).\n"
        return Answer(415, (TEXT,), text.encode(), refusal=True)
    return None


def _unreadable_response(head: ResponseHead, rule: str) -> str | None:
    coding = _coding(head.headers)
    if coding is not None:
        return f"rule {rule!r} can't read Content-Encoding {coding}"
    if head.status == 206:
        return f"rule {rule!r} can't read a part of a body (206)"
    for value in head.headers.lines(b"content-type"):
        if value.partition(b";")[0].strip().lower() == _PARTS:
            return f"rule {rule!r} can't read a part of a body (multipart/byteranges)"
    return None
