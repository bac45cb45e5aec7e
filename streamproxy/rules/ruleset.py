"""What the rules say about each message, as a pure function of its head.

All rules that match apply, in the order of the file. Their edits and replacements add up; of what there can be
only one of (an answer, a redirect, the word on streaming) the first rule that says it decides. Rules are held
against the request as the client sent it, never against what another rule made of it. Carrying out a verdict
is the wiring's work.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from streamproxy.rules import schema
from streamproxy.rules.asked import Asked, AskedOfAny
from streamproxy.rules.index import Group, HostIndex, OriginIndex
from streamproxy.rules.kept import Kept
from streamproxy.rules.paths import within
from streamproxy.rules.reach import beginnings
from streamproxy.rules.rule import TEXT, Rule
from streamproxy.rules.values import Redirect
from streamproxy.rules.verdict import NO_WORK, Answer, MessageWork, RequestVerdict, ResponseVerdict, Way
from streamproxy.rules.wanted import Wanted, WantedOfWebSocket, late_for_websocket
from streamproxy.rules.way import ANSWERED_HERE, NO_BODY_TO_MOVE, Streaming, body_way, shown_token
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import Framing, Kind, Origin, RequestHead, ResponseHead, Target
from streamproxy.wire.upgrade import is_websocket, upgrade_asked

_PARTS = b"multipart/byteranges"
# In a row: what curl and urllib3 undo at the most.
MOST_CODINGS = 5
# How many bytes, about, what was found for hosts may take.
MOST_KEPT = 256 << 10


class RuleSet:
    """All rules, in the order of the file, and the settings of how bodies go.

    `codings` are the names of the content codings that can be undone for a rule which reads a body.
    """

    def __init__(
        self, rules: Iterable[schema.Rule], streaming: Streaming, codings: frozenset[bytes] = frozenset()
    ) -> None:
        self._codings = codings
        self.rules = tuple(Rule(rule.name or f"rules[{index}]", rule, index) for index, rule in enumerate(rules))
        self.streaming = streaming
        self._websocket = (
            MessageWork(True, "stream_websockets") if streaming.websockets else MessageWork(False, "default")
        )
        self._index = HostIndex(self.rules)
        # The groups of a host, and the rules that may refuse a CONNECT to it, are the same each time.
        self._groups: Kept[tuple[str, int], tuple[Group, ...]] = Kept(MOST_KEPT)
        self._found_groups = self._groups.found
        self._divided = self._index.divides
        self._refusing: Kept[tuple[str, int, bool], tuple[Rule, ...]] = Kept(MOST_KEPT)

    def _groups_at(self, host: str, port: int) -> tuple[Group, ...]:
        if not self._divided:
            return self._index.everywhere
        groups = self._found_groups.get((host, port))
        if groups is None:
            groups = self._index.find(host, port)
            self._groups.keep((host, port), groups, len(host) + 8 * len(groups))
        return groups

    def _groups_at_any(self, origins: Iterable[Origin]) -> tuple[Group, ...]:
        return tuple(dict.fromkeys(group for each in origins for group in self._groups_at(each.host, each.port)))

    def on_request(self, head: RequestHead, target: Target, aliases: tuple[Origin, ...] = ()) -> RequestVerdict:
        """What the rules say about a request's head. `target` is what the client asked for.

        `aliases` are for a request within a tunnel: whom else its origin goes by, as the CONNECT or the Host field
        name it. Conditions on host and URL hold if they do for any of them, as the origin may answer for all.
        """
        matched: list[Rule] = []
        applied: list[Rule] = []
        groups: tuple[Group, ...] = ()
        websocket = b"upgrade" in head.headers and _asks_for_websocket(head)
        if self.rules:
            _, host, port = target.origin
            groups = self._groups_at_any((target.origin, *aliases)) if aliases else self._groups_at(host, port)
        if groups:
            asked = AskedOfAny(target, aliases) if aliases else Asked(target)
            method = head.method.decode("latin-1").upper()
            numbers: Sequence[int]
            if len(groups) == 1:
                numbers = groups[0].requests.find(asked)
            else:
                numbers = sorted({number for group in groups for number in group.requests.find(asked)})
            unsure = self._index.unsure
            for number in numbers:
                rule = self.rules[number]
                if not rule.holds_for(method, asked):
                    continue
                if number in unsure and not any(
                    rule.hosts.match(each.host, each.port) for each in (target.origin, *aliases)
                ):
                    continue
                if rule.heads_match(head.headers):
                    applied.append(rule)
                speaks_later = not rule.response.is_idle or (websocket and not rule.websocket.is_idle)
                if speaks_later and rule.may_match_response(head.headers):
                    matched.append(rule)
            if applied:
                wanted = WantedOfWebSocket() if websocket else None
                return self._applied(head, asked, applied, tuple(matched), wanted)
        way = self._way(head, None, self.streaming.request_hook)
        readable = _wants_readable(matched)
        work = self._websocket if websocket else None
        return RequestVerdict((), tuple(matched), target, False, None, (), NO_WORK, way, readable, work)

    def _applied(
        self,
        head: RequestHead,
        asked: Asked,
        applied: list[Rule],
        matched: tuple[Rule, ...],
        of_websocket: WantedOfWebSocket | None = None,
    ) -> RequestVerdict:
        """The verdict where rules match on the request's head; `of_websocket` where that asks for a WebSocket."""
        target = asked.target
        redirected = False
        wanted = Wanted(of_websocket is not None)
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
            does_something = wanted.take(rule.request, has_body, has_body) or redirects
            if of_websocket is not None and of_websocket.take(rule):
                does_something = True
            if does_something:
                wanted.names.append(rule.name)
        work = wanted.work(b"content-encoding" in head.headers)
        if work.changes:
            unreadable = _unreadable_request(head, work.reader, self._codings)
            if unreadable:
                return _answered(work.reader, matched, asked.target, unreadable)
        way = self._way(head, wanted.says, self.streaming.request_hook)
        return RequestVerdict(
            tuple(wanted.names),
            matched,
            target,
            redirected,
            None,
            tuple(wanted.edits),
            work,
            way,
            _wants_readable(matched),
            None if of_websocket is None else of_websocket.work(self._websocket),
        )

    def _way(self, head: RequestHead | ResponseHead, says: tuple[bool, str] | None, wanted_whole: str | None) -> Way:
        if head.framing.kind is Kind.NONE:
            return NO_BODY_TO_MOVE
        return body_way(head.framing, head.headers.lines(b"content-type"), says, self.streaming, wanted_whole)

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
        if not self.rules:
            return None
        key = (origin.host, origin.port, opaque)
        refusing = self._refusing.found.get(key)
        if refusing is None:
            refusing = tuple(self._find_refusing(*key))
            self._refusing.keep(key, refusing, len(origin.host) + 8 * len(refusing))
        for rule in refusing:
            if rule.answer is not None and rule.connect_matches(head.headers):
                return rule.name, rule.answer
        return None

    def _find_refusing(self, host: str, port: int, opaque: bool) -> Iterator[Rule]:
        """The rules that refuse a CONNECT to an origin if its fields let them, up to the one that ends the search."""
        origin = Origin("https", host, port)
        groups = self._groups_at(host, port)
        for rule in self._speaking_of(origin, [group.refusing if opaque else group.deciding for group in groups]):
            if not rule.decides:
                continue
            if rule.may_block_all_of(origin):
                yield rule
                if not rule.has_head_conditions:
                    return
            if not opaque and not rule.is_for_connect_alone:
                return

    def _speaking_of(self, origin: Origin, indexes: Iterable[OriginIndex]) -> Iterator[Rule]:
        """The rules that may match a request to an origin, http or https, in their order; no more than are taken."""
        urls = [url for scheme in ("http", "https") for url in beginnings(origin._replace(scheme=scheme))]
        unsure = self._index.unsure
        last = -1
        for number in heapq.merge(*[numbers for index in indexes for numbers in index.find(urls)]):
            rule = self.rules[number]
            if number == last or (number in unsure and not rule.hosts.match(origin.host, origin.port)):
                continue
            last = number
            if rule.may_speak_of(origin):
                yield rule

    def has_rules_for(self, host: str, port: int) -> bool:
        """Whether a rule may apply to some request to a host, http or https."""
        indexes = [group.speaking for group in self._groups_at(host, port)]
        return any(not rule.is_for_connect_alone for rule in self._speaking_of(Origin("https", host, port), indexes))

    def on_response(self, verdict: RequestVerdict, request: RequestHead, head: ResponseHead) -> ResponseVerdict:
        """What the rules say about a response's final head; `request` is the head as the client sent it."""
        if not verdict.matched:
            return ResponseVerdict((), (), NO_WORK, self._way(head, None, self.streaming.response_hook))
        websocket = verdict.websocket if head.status == 101 else None
        wanted = Wanted(websocket is not None)
        has_body = _has_body(head.framing)
        # The answer to HEAD, and a 304: what its fields say of a body must hold for the one that GET would give.
        stands_for_one = head.framing.kind is Kind.NONE and websocket is None
        for rule in verdict.matched:
            if rule.heads_match(request.headers, head.headers):
                if wanted.take(rule.response, has_body, has_body or stands_for_one):
                    wanted.names.append(rule.name)
        work = wanted.work(b"content-encoding" in head.headers)
        refused = _unreadable_response(head, work.reader, self._codings) if work.changes and has_body else None
        way = self._way(head, wanted.says, self.streaming.response_hook)
        if websocket is None:
            return ResponseVerdict(tuple(wanted.names), tuple(wanted.edits), work, way, refused)
        late = late_for_websocket(verdict.matched, websocket, request.headers, head.headers)
        names = dict.fromkeys([*wanted.names, *[each.rule for each in late.rules]])
        return ResponseVerdict(tuple(names), tuple(wanted.edits), work, way, late.refused, late.rules)


def _answered(name: str, matched: tuple[Rule, ...], target: Target, answer: Answer) -> RequestVerdict:
    """The verdict on a request that goes nowhere: nothing but the rule that answers it has a say."""
    return RequestVerdict((name,), matched, target, False, answer, (), NO_WORK, ANSWERED_HERE, False)


def _asks_for_websocket(head: RequestHead) -> bool:
    upgrade = upgrade_asked(head)
    return upgrade is not None and is_websocket(upgrade)


def _has_body(framing: Framing) -> bool:
    return framing.kind is not Kind.NONE and framing.length != 0


def _wants_readable(matched: Iterable[Rule]) -> bool:
    return any(rule.response.work.changes for rule in matched)


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


def _unreadable_coding(headers: Headers, codings: frozenset[bytes]) -> str | None:
    """The content coding that keeps a rule from reading a body."""
    known = 0
    for token in headers.tokens(b"content-encoding"):
        if token != b"identity":
            known += 1
            if token not in codings or known > MOST_CODINGS:
                return shown_token(token)
    return None


def _unreadable_request(head: RequestHead, rule: str, codings: frozenset[bytes]) -> Answer | None:
    coding = _unreadable_coding(head.headers, codings)
    if coding is not None:
        text = f"Rule {rule!r} can't read Content-Encoding {coding}.\n"
        accepted = b", ".join(sorted(codings)) or b"identity"
        return Answer(415, (TEXT, (b"Accept-Encoding", accepted)), text.encode(), refusal=True)
    if b"content-range" in head.headers:
        text = f"Rule {rule!r} can't read a part of a body (Content-Range).\n"
        return Answer(415, (TEXT,), text.encode(), refusal=True)
    return None


def _unreadable_response(head: ResponseHead, rule: str, codings: frozenset[bytes]) -> str | None:
    coding = _unreadable_coding(head.headers, codings)
    if coding is not None:
        return f"rule {rule!r} can't read Content-Encoding {coding}"
    if head.status == 206:
        return f"rule {rule!r} can't read a part of a body (206)"
    for value in head.headers.lines(b"content-type"):
        if value.partition(b";")[0].strip().lower() == _PARTS:
            return f"rule {rule!r} can't read a part of a body (multipart/byteranges)"
    return None
