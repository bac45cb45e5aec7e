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
from streamproxy.rules.match import Asked, content_type_holds, header_holds, host_forms
from streamproxy.rules.paths import fit_for_url, within
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
from streamproxy.wire.headers import Field, Headers
from streamproxy.wire.message import Framing, Kind, RequestHead, ResponseHead, Target

_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_PARTS = b"multipart/byteranges"


class Part:
    """What one rule does to one of the two messages."""

    __slots__ = ("changes_fields", "edits", "is_idle", "replacements", "says")

    def __init__(self, name: str, changes: schema.Changes) -> None:
        headers = changes.headers
        self.edits = HeaderEdits(
            remove=tuple(field.lower().encode() for field in headers.remove),
            set=tuple((field.encode(), value) for field, value in headers.set.items()),
            add=tuple((field.encode(), value) for field, values in headers.add.items() for value in values),
        )
        self.changes_fields = self.edits != HeaderEdits()
        self.replacements = tuple(
            Replacement(each.find, each.put, name) for each in changes.replace if each.find is not None
        )
        self.says = None if changes.stream is None else (changes.stream, f"rule {name}")
        self.is_idle = not (self.changes_fields or self.replacements or self.says)


class Rule:
    """One rule, made ready to be held against heads."""

    __slots__ = (
        "_content_types",
        "_headers",
        "_methods",
        "_paths",
        "_urls",
        "answer",
        "folder",
        "hosts",
        "name",
        "redirect",
        "request",
        "response",
    )

    def __init__(self, name: str, rule: schema.Rule) -> None:
        self.name = name
        match = rule.match
        self.hosts = match.host
        self._methods = match.method
        self._paths = match.path
        self._urls = match.url
        self._headers = tuple((field.lower().encode(), test) for field, test in match.header.items())
        self._content_types = match.content_type
        self.request = Part(name, rule.request)
        self.response = Part(name, rule.response)
        self.redirect: Redirect | None = rule.redirect_to
        self.answer = _answer(name, rule)
        self.folder = self.answer is not None and self.answer.file is not None and self.answer.file.is_dir()

    def __repr__(self) -> str:
        return f"<Rule {self.name!r}>"

    def holds_for(self, method: str, asked: Asked) -> bool:
        """Whether method, path and URL match; the host is known to."""
        return (
            (not self._methods or self._methods.matches(method))
            and (not self._paths or self._paths.find(asked.paths) is not None)
            and (not self._urls or self._urls.find(asked.urls) is not None)
        )

    def heads_match(self, *heads: Headers) -> bool:
        """Whether header and content_type match: the request's head alone, or either of both messages'."""
        if self._content_types and not content_type_holds(self._content_types, *heads):
            return False
        return all(header_holds(name, test, *heads) for name, test in self._headers)

    def may_match_response(self, request: Headers) -> bool:
        """Whether a response may make `heads_match`; only a field that must be absent can rule that out."""
        return not any(test is False and name in request for name, test in self._headers)

    def path_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the path pattern stood for."""
        found = self._paths.find(asked.paths) if self._paths else None
        if found is None or found.tail is None:
            return None
        tail = found.text[found.tail :]
        return tail if found.form == 0 else fit_for_url(tail)

    def url_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the URL pattern stood for, as far as that lies in the URL's path."""
        found = self._urls.find(asked.urls) if self._urls else None
        if found is None or found.tail is None:
            return None
        query_begins = asked.query_begins(found.form)
        path_begins = found.text.find("/", found.text.find("://") + 3)
        if not path_begins < found.tail <= query_begins:
            return None
        tail = found.text[found.tail : query_begins]
        return tail if found.form == 0 else fit_for_url(tail)


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

    def _find_rules_for(self, host: str, port: int) -> tuple[Rule, ...]:
        indexes = {index for form in host_forms(host) for index in self._by_host.get(form, ())}
        for index in self._others:
            hosts = self.rules[index].hosts
            if not hosts or hosts.match(host, port):
                indexes.add(index)
        return tuple(self.rules[index] for index in sorted(indexes))

    def on_request(self, head: RequestHead, target: Target) -> RequestVerdict:
        """What the rules say about a request's head. `target` is what the client asked for."""
        matched: list[Rule] = []
        applied: list[Rule] = []
        rules = self._rules_for(target.origin.host, target.origin.port)
        if rules:
            asked = Asked(target)
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


def _answer(name: str, rule: schema.Rule) -> Answer | None:
    if rule.block is not None:
        text = f"Blocked by rule {name!r}.\n"
        return Answer(rule.block, (_TEXT,), text.encode(), refusal=True)
    respond = rule.respond
    if respond is None:
        return None
    fields: list[Field] = [(field.encode(), value) for field, values in respond.headers.items() for value in values]
    if respond.file is not None:
        return Answer(respond.status, tuple(fields), file=respond.file)
    if not respond.text:
        return Answer(respond.status, tuple(fields))
    if not any(field.lower() == b"content-type" for field, _ in fields):
        fields.append(_TEXT)
    return Answer(respond.status, tuple(fields), respond.text.encode())


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
        return Answer(415, (_TEXT, (b"Accept-Encoding", b"identity")), text.encode(), refusal=True)
    if b"content-range" in head.headers:
        text = f"Rule {rule!r} can't read a part of a body (Content-Range).\n"
        return Answer(415, (_TEXT,), text.encode(), refusal=True)
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
