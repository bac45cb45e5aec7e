"""An explanation as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Told = dict[str, Any]


def lines(told: Told, with_all: bool) -> Iterator[str]:
    """The lines of what `explanation.explain` gave; `with_all`: also of rules that don't apply."""
    yield f"{told['method']} {told['url']}"
    tunnel = told.get("tunnel")
    if tunnel is not None:
        yield f"  tunnel to {tunnel['origin']}: {tunnel['outcome']} ({tunnel['why']})"
        if tunnel["addresses_may_change_that"]:
            yield "    what its name resolves to may change that"
    yield f"  {told['outcome']}: {_because(told)}"
    if "goes_to" in told:
        verified = {True: "", False: ", whose certificate is NOT verified", None: ""}[told["verified"]]
        yield f"  to {told['goes_to']}{verified}"
    access = told.get("access") or (tunnel or {}).get("access")
    if access is not None:
        yield f"  access.origins: {_access(access)}"
    for name, value in told.get("fields", ()):
        yield f"  {name}: {value}"
    if told.get("scripts"):
        yield f"  scripts have a say: {', '.join(told['scripts'])}"
    yield from _rules(told.get("rules", []), with_all)
    if "websocket" in told:
        yield from _websocket(told["websocket"])
    elif told.get("upgrade"):
        yield f"upgrade to {told['upgrade']}: passed on unread"
    if "request" in told:
        yield "request"
        yield from _message(told["request"])
    response = told.get("response")
    if response is not None:
        assumed = ", which is assumed" if response["assumed"] else ""
        yield f"response {response['status']} {response['content_type'] or 'without a type'}{assumed}"
        if "refused" in response:
            yield f"  502: {response['refused']}"
        yield from _message(response)


def _because(told: Told) -> str:
    why: str = told["why"]
    if "status" in told:
        why = f"{told['status']}, {why}"
    if "file" in told:
        why += f", from {told['file']}" + (f", {told['within']!r} in it" if "within" in told else "")
    elif "body" in told:
        why += f", {len(told['body'].encode())} bytes"
    return why


def _access(access: Told) -> str:
    if access["refusal"] is not None:
        return f"{access['host']} is refused ({access['refusal']})"
    more = "; what it resolves to is looked at as well" if access["addresses_may_change_that"] else ""
    return f"nothing against {access['host']}{more}"


def _rules(rules: list[Told], with_all: bool) -> Iterator[str]:
    applied = sum(rule["request"] or rule["response"] for rule in rules)
    yield f"rules: {applied} of {len(rules)} apply"
    for number, rule in enumerate(rules, 1):
        applies = " and ".join(side for side in ("request", "response") if rule[side])
        note = rule.get("note", "")
        if not applies and not note and not with_all:
            continue
        yield f"  {number}. {rule['name']}: {f'applies to the {applies}' if applies else note or 'does not apply'}"
        if applies and note:
            yield f"     {note}"
        yield from _conditions(rule["conditions"], "")
        later = rule.get("conditions_on_response")
        if later is not None and later != rule["conditions"]:
            yield from _conditions([each for each in later if each not in rule["conditions"]], "with the response, ")


def _conditions(conditions: list[Told], when: str) -> Iterator[str]:
    for each in conditions:
        verb = "holds" if each["holds"] else "does NOT hold"
        yield f"     {when}{each['key']} {verb}: {each['found']} for {', '.join(each['wanted'])}"


def _message(message: Told) -> Iterator[str]:
    for edit in message["edits"]:
        value = f": {edit['value']}" if "value" in edit else ""
        yield f"  {edit['edit']} {edit['name']}{value}"
    body = message["body"]
    if body["framing"] == "none":
        yield f"  body: none ({body['why']})"
        return
    length = "of unknown length" if body["length"] is None else f"{body['length']} bytes"
    yield f"  body: {body['how']} ({body['why']}), {length}"
    if body["refused"]:
        yield "    refused: it is larger than it may be"
    if "limit" in body:
        yield f"    refused past {body['limit']} bytes"
        if body["streams_past"] is not None:
            yield f"    let go, to stream, past {body['streams_past']} bytes"
    if body.get("largest") is not None:
        yield f"    refused past {body['largest']} bytes (limits.body)"
    for stage in body["stages"]:
        told = ", ".join(f"{key} {_shown(value)}" for key, value in stage.items() if key != "stage")
        yield f"    {stage['stage']}: {told}"


def _websocket(websocket: Told) -> Iterator[str]:
    yield f"websocket: {websocket['mode']} ({websocket['why']})"
    for each in websocket["messages"]:
        told = ", ".join(f"{key} {_shown(value)}" for key, value in each.items() if key != "action")
        yield f"    {each['action']}: {told}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{inner} {key}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return repr(value) if isinstance(value, str) else "any" if value is None else str(value)
