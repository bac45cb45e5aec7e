"""What the proxy would make of one request, and why, as data: everything is asked of the rules and settings themselves.

Nothing is opened, looked up or sent. What scripts do to a request is theirs to know: where they have a hook, that is
told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from streamproxy.proxy.answers import to_last_hop
from streamproxy.proxy.heads import edited
from streamproxy.proxy.stages import codings_of
from streamproxy.proxy.target import Destination
from streamproxy.proxy.trust_page import is_trust_page
from streamproxy.proxy.upgrading import upgrade_of
from streamproxy.rules.reasons import Condition, conditions, origin_by_name
from streamproxy.rules.rule import Rule
from streamproxy.rules.verdict import (
    Answer,
    BodyWork,
    HeaderEdits,
    How,
    MessageRule,
    MessageWork,
    Replacement,
    RequestVerdict,
    ResponseVerdict,
    Way,
)
from streamproxy.settings import Settings
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import Framing, Kind, Origin, RequestHead, ResponseHead, WireError

Told = dict[str, Any]


class Question(NamedTuple):
    """What is asked about: a request's head with where it goes, and the head of its response, which may be assumed."""

    request: RequestHead
    destination: Destination
    response: ResponseHead
    is_assumed: bool


def explain(settings: Settings, question: Question) -> Told:
    """What becomes of a request, in the words of README: plain dicts, lists, texts and numbers, fit for JSON."""
    target = question.destination.target
    origin = target.origin
    told: Told = {"method": question.request.method.decode("latin-1"), "url": target.url}
    is_own_page = is_trust_page(origin.host)
    if origin.scheme == "https":
        connect = explain_tunnel(settings, origin)
        told["tunnel"] = connect
        if connect["outcome"] == "refused" or (connect["outcome"] != "intercepted" and not is_own_page):
            return {**told, "outcome": connect["outcome"], "why": connect["why"]}
    if is_own_page:
        return {**told, "outcome": "answered", "why": "the proxy's own page about its CA"}
    verdict = settings.rules.on_request(question.request, target, question.destination.aliases)
    said = settings.rules.on_response(verdict, question.request, question.response) if verdict.answer is None else None
    told["scripts"] = sorted(name for name, hooks in settings.scripts.hooks.items() if hooks)
    told["rules"] = [_rule(rule, question, verdict, said) for rule in settings.rules.rules]
    told |= _outcome(settings, question, verdict)
    if told["outcome"] == "forwarded" and said is not None:
        told["response"] = _response(settings, question, verdict, said)
    return told


def explain_tunnel(settings: Settings, origin: Origin) -> Told:
    """What becomes of a CONNECT to `origin` whose client then asks for the same host by its TLS."""
    interception = settings.tls.interception
    decision = interception.decide(origin.host, origin.port, origin.host)
    authority = f"{origin.netloc.partition(']')[0] + ']' if ':' in origin.host else origin.host}:{origin.port}"
    head = RequestHead(
        b"CONNECT", authority.encode(), (1, 1), Headers([(b"Host", authority.encode())]), Framing(Kind.NONE, 0)
    )
    told: Told = {
        "origin": authority,
        "outcome": "intercepted" if decision.intercept else "tunnelled",
        "why": decision.why,
        "addresses_may_change_that": interception.needs_addresses(origin.host),
    }
    if not is_trust_page(origin.host):
        denied = _denied(told | {"access": _access(settings, origin)})
        if denied["outcome"] == "refused":
            return denied
    refused = settings.rules.on_connect(head, origin, opaque=not decision.intercept)
    if refused is not None:
        name, answer = refused
        told |= {"outcome": "refused", "why": f"rule {name} blocks all of it", "status": answer.status}
    return told


def _denied(told: Told) -> Told:
    """What was told, unless no connection may be made to where it goes."""
    refusal = told["access"]["refusal"]
    return told if refusal is None else {**told, "outcome": "refused", "status": 403, "why": refusal}


def _access(settings: Settings, origin: Origin) -> Told:
    refusal, final = origin_by_name(settings.access.origins, origin.host, origin.port)
    return {"host": origin.host, "refusal": refusal, "addresses_may_change_that": not final}


def _rule(rule: Rule, question: Question, verdict: RequestVerdict, said: ResponseVerdict | None) -> Told:
    """One rule: whether it applies to the request, and to the response, with its conditions on each."""
    request, (target, _, aliases) = question.request, question.destination
    on_request = list(conditions(rule, request.method, target, aliases, request.headers))
    told: Told = {"name": rule.name, "request": rule.name in verdict.rules, "response": False}
    holds = all(each.holds for each in on_request)
    told["conditions"] = [_condition(each) for each in on_request]
    if said is not None and rule in verdict.matched:
        told["response"] = rule.name in said.rules
        if rule.has_head_conditions:
            heads = (request.headers, question.response.headers)
            both = conditions(rule, request.method, target, aliases, *heads)
            told["conditions_on_response"] = [_condition(each) for each in both]
    if holds and not told["request"]:
        if verdict.answer is not None:
            told["note"] = f"would apply, but rule {verdict.rules[0]} answers"
        elif rule.decides:
            told["note"] = "would decide, but a rule before it redirects"
        elif not told["response"]:
            told["note"] = "matches, but has nothing to do here"
    return told


def _condition(condition: Condition) -> Told:
    key, wanted, found, holds = condition
    return {"key": key, "wanted": list(wanted), "found": found, "holds": holds}


def _outcome(settings: Settings, question: Question, verdict: RequestVerdict) -> Told:
    """What becomes of the request, once rules have spoken."""
    request = question.request
    if verdict.answer is not None:
        why = f"rule {verdict.rules[0]}"
        return {"outcome": "refused" if verdict.answer.refusal else "answered", "why": why} | _answer(verdict.answer)
    own = to_last_hop(request)
    if own is not None:
        return {"outcome": "answered", "why": "Max-Forwards: 0"} | _answer(own)
    if verdict.way.refused:
        return {"outcome": "refused", "status": 413, "why": "the request's body is too large"} | _forwarded(
            settings, question, verdict
        )
    told: Told = {"outcome": "forwarded", "why": "redirect_to" if verdict.redirected else "no rule answers"}
    if b"upgrade" in request.headers:
        sent = request._replace(headers=edited(request.headers, verdict.edits)) if verdict.edits else request
        try:
            upgrade = upgrade_of(request, sent, verdict.websocket, bool(settings.rules.rules))
        except WireError as error:
            return {"outcome": "malformed", "status": error.status, "why": error.reason}
        told["upgrade"] = None if upgrade is None else upgrade.asked.decode("latin-1")
        if upgrade is not None and verdict.websocket is not None:
            told["websocket"] = _websocket(verdict.websocket)
            if verdict.websocket.unreadable is not None:
                told |= {"outcome": "failed", "status": 502, "why": verdict.websocket.unreadable}
    told |= _forwarded(settings, question, verdict)
    return _denied(told) if told["outcome"] == "forwarded" else told


def _answer(answer: Answer) -> Told:
    told: Told = {"status": answer.status, "fields": _fields(answer.headers)}
    if answer.file is not None:
        told["file"] = str(answer.file)
        if answer.tail is not None:
            told["within"] = answer.tail
    else:
        told["body"] = _text(answer.body)
    return told


def _forwarded(settings: Settings, question: Question, verdict: RequestVerdict) -> Told:
    request = question.request
    return {
        "goes_to": verdict.target.url,
        "redirected": verdict.redirected,
        "verified": settings.tls.verifies(verdict.target.origin.host, verdict.target.origin.port)
        if verdict.target.origin.scheme == "https"
        else None,
        "access": _access(settings, verdict.target.origin),
        "request": {
            "edits": _edits(verdict.edits),
            "body": _body(settings, verdict.way, verdict.work, request.framing, request.headers),
        },
    }


def _response(settings: Settings, question: Question, verdict: RequestVerdict, said: ResponseVerdict) -> Told:
    head = question.response
    told: Told = {
        "assumed": question.is_assumed,
        "status": head.status,
        "content_type": _text(head.headers.get(b"content-type") or b"") or None,
        "edits": _edits(said.edits),
        "body": _body(settings, said.way, said.work, head.framing, head.headers),
    }
    if said.refused is not None:
        told["refused"] = said.refused
    if head.status == 101 and verdict.websocket is not None:
        told["websocket"] = _websocket(verdict.websocket.adding(said.websocket))
    return told


def _edits(edits: Iterable[HeaderEdits]) -> list[Told]:
    told: list[Told] = []
    for each in edits:
        told += [{"edit": "remove", "name": _text(name)} for name in each.remove]
        told += [{"edit": "set", "name": _text(name), "value": _text(value)} for name, value in each.set]
        told += [{"edit": "add", "name": _text(name), "value": _text(value)} for name, value in each.add]
    return told


def _fields(fields: Iterable[tuple[bytes, bytes]]) -> list[list[str]]:
    return [[_text(name), _text(value)] for name, value in fields]


def _body(settings: Settings, way: Way, work: BodyWork, framing: Framing, headers: Headers) -> Told:
    told: Told = {"how": way.how.value, "why": way.why, "framing": framing.kind.value, "length": framing.length}
    if way.how is How.HELD:
        told |= {"limit": way.limit, "streams_past": way.let_go}
    if settings.limits.body is not None:
        told["largest"] = settings.limits.body
    told["refused"] = way.refused
    told["stages"] = [] if framing.kind is Kind.NONE else list(_stages(settings, work, headers))
    return told


def _stages(settings: Settings, work: BodyWork, headers: Headers) -> Iterable[Told]:
    """What is done to a body, in the order in which it is done."""
    capture = work.capture
    if capture is not None:
        limit = settings.limits.capture if capture.limit is None else capture.limit
        yield {"stage": "capture", "limit": limit, "to": "files" if capture.in_files else "flow"}
    codings = [_text(coding) for coding in codings_of(headers)] if work.changes else []
    if codings:
        yield {"stage": "decode", "codings": codings[::-1]}
    for replacement in work.replacements:
        yield {"stage": "replace", "rule": replacement.rule} | _replacement(replacement, work)
    for function in work.functions:
        yield {"stage": function.kind, "rule": function.rule, "function": function.name}
    if codings:
        yield {"stage": "encode", "codings": codings}
    fault = work.fault
    if fault is not None:
        yield {
            "stage": "fault",
            "rule": fault.rule,
            "action": fault.action,
            "after": {fault.unit: fault.after},
            "every": fault.every,
            "probability": fault.probability,
        }
    if work.pace is not None:
        yield {"stage": "pace", "rate": work.pace.rate, "delay": work.pace.delay}


def _replacement(replacement: Replacement, work: BodyWork) -> Told:
    told: Told = {"find": _text(replacement.find)} if replacement.regex is None else {"regex": replacement.regex}
    told |= {"with": _text(replacement.put), "hold_back": replacement.hold_back}
    if work.hold_time is not None:
        told["hold_time"] = work.hold_time
    return told


def _websocket(work: MessageWork) -> Told:
    return {
        "mode": "streamed" if work.streams else "messages",
        "why": work.why,
        "messages": [_message(each) for each in work.rules],
    }


def _message(rule: MessageRule) -> Told:
    told: Told = {"rule": rule.rule, "action": rule.action}
    if rule.from_client is not None:
        told["from"] = "client" if rule.from_client else "origin"
    if rule.text is not None:
        told["type"] = "text" if rule.text else "binary"
    if rule.regex is not None:
        told["regex"] = rule.regex
    elif rule.find:
        told["find"] = _text(rule.find)
    if rule.action != "drop":
        told["with"] = _text(rule.put)
    return told


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
