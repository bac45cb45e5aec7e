"""Reads a configuration's data by its schema, and says what is wrong with it: one line an error, all of them.

The errors that need more than one key to be seen (an action too many, a name used twice) are found here, in
the data as it was written, so that they are told together with those that the schema finds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError

from streamproxy.rules.schema import Configuration, Section
from streamproxy.rules.values import host_value
from streamproxy.rules.yaml import Document, Path, Place, Problem, Whole

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ANSWERS = ("block", "respond", "redirect_to")
_CHANGES = ("request", "response", "websocket")
_TO_MESSAGES = ("with", "drop", "respond")
_FIELDS = ("set", "add")
_BODILESS = (204, 205, 304)


def read_configuration(document: Document) -> tuple[Configuration | None, list[Problem]]:
    """The configuration, or None and what is wrong with the data."""
    data = {} if document.data is None else document.data
    configuration = None
    found: list[tuple[Path, str, bool]] = []
    try:
        configuration = Configuration.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            found.append(_in_words(dict(detail), document))
    if isinstance(data, dict):
        found += [(path, words, False) for path, words in _contradictions(data, document)]
    problems = [_problem(document, *each) for each in dict.fromkeys(found)]
    return (None if problems else configuration), problems


def shown(value: Any) -> str:
    """A value as an error quotes it: short, and on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return f"{'a' if value else 'an empty'} {'mapping' if isinstance(value, dict) else 'list'}"
    if isinstance(value, int | float):
        digits = value.written if isinstance(value, Whole) else str(value)
        return digits if len(digits) <= 60 else digits[:57] + "..."
    written = str(value)
    return repr(written if len(written) <= 60 else written[:57] + "...")


def dotted(path: Path) -> str:
    """A path as users write it: rules[3].match.host."""
    words = ""
    for part in path:
        if isinstance(part, int):
            words += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            words += f".{part}" if words else part
        else:
            words += f"[{shown(part)}]"
    return words


def suggestion(word: str, known: list[str], likeness: float) -> str:
    """`; did you mean ...?` where one of the known words is near."""
    near = difflib.get_close_matches(word[:60].lower().replace("-", "_"), known, 1, likeness)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown_key(path: Path) -> str:
    """What to say of a key that there is none of, by the path that leads to it."""
    *above, key = path
    level = tuple(part for part in above if isinstance(part, str))
    known = _KEYS.get(level, [])
    hint = suggestion(str(key), known, 0.8)
    if not hint:
        levels = [each for each in _KEYS if key in _KEYS[each]]
        inside = [each[len(level) :] for each in levels if each[: len(level)] == level]
        if inside:
            hint = f"; it belongs under {dotted(min(inside, key=len))!r}"
        elif () in levels:
            hint = "; it belongs at the top"
        elif levels:
            hint = f"; it belongs under {dotted(min(levels, key=len))!r}"
        else:
            hint = suggestion(str(key), known, 0.6)
    return f"unknown key {shown(key)}{hint}"


def known_keys(level: tuple[str, ...]) -> list[str] | None:
    """The keys of the section at a level (a path without its indexes); None where there is no section."""
    return _KEYS.get(level)


Level = tuple[str, ...]


def _keys_by_level(section: type[Section], level: Level) -> Iterator[tuple[Level, list[str]]]:
    yield level, [field.alias or name for name, field in section.model_fields.items()]
    for name, field in section.model_fields.items():
        for inner in _sections(field.annotation):
            yield from _keys_by_level(inner, (*level, field.alias or name))


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


_KEYS = dict(_keys_by_level(Configuration, ()))


def _in_words(detail: dict[str, Any], document: Document) -> tuple[Path, str, bool]:
    """(path, words, whether the place is the key's) of one error of pydantic's."""
    kind = detail["type"]
    told = detail.get("ctx", {})
    path: Path = detail["loc"] + tuple(told.get("below", ()))
    at_key = bool(path) and path[-1] == "[key]"
    if at_key:
        path = path[:-1]
    value = _value_at(document.data, path, detail.get("input")) if not at_key else path[-1]
    got = f", got {shown(value)}"
    if kind == "expected":
        return path, f"expected {told['what']}{got}", at_key
    if kind == "refused":
        return path, str(told["why"]), at_key
    if kind == "unbuilt":
        return path, f"{_last_key(path)!r} is known, but isn't built yet; leave it out", True
    if kind == "extra_forbidden":
        return path, unknown_key(path), True
    if kind == "missing":
        return path[:-1], f"needs the key {path[-1]!r}", False
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return path, f"expected a mapping{got}", False
    if kind in ("tuple_type", "list_type"):
        return path, f"expected a list{got}", False
    return path, f"{detail['msg']}{got}", False


def _last_key(path: Path) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _value_at(data: Any, path: Path, default: Any) -> Any:
    for part in path:
        if isinstance(data, str):  # the only one of what might be a list of texts
            return default
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return default
    return data


def _problem(document: Document, path: Path, words: str, at_key: bool) -> Problem:
    """The problem at the nearest place that is known; an unknown key isn't part of the path shown."""
    place = document.key_places.get(path) if at_key else None
    shown_path = path
    if words.startswith("unknown key") or (place and _is_a_name(path)):
        shown_path = path[:-1]
    while path and path not in document.places and place is None:
        path = path[:-1]
        shown_path = path
    place = place or document.places.get(path) or Place("", 0, 0)
    where = dotted(shown_path)
    return Problem(place, words if not where or place.path == shown_path else f"{where}: {words}")


def _is_a_name(path: Path) -> bool:
    """Whether the last key of a path is the user's own: a header's name, or a pattern of hosts."""
    return path[-2:-1] in (("set",), ("add",), ("headers",), ("header",), ("verify_upstream",), ("client_certificate",))


def _contradictions(data: dict[str, Any], document: Document) -> Iterator[tuple[Path, str]]:
    listeners = data.get("listen")
    for index, listener in enumerate(listeners if isinstance(listeners, list) else []):
        if isinstance(listener, dict) and listener.get("to") is not None:
            if listener.get("mode") in (None, "forward"):
                yield ("listen", index, "to"), "'to' has no meaning in mode forward"
    tls = data.get("tls")
    if isinstance(tls, dict) and tls.get("intercept") is False and tls.get("only"):
        yield ("tls", "only"), "nothing is intercepted where intercept is false, so 'only' has no meaning"
    rules = data.get("rules")
    names: dict[str, Path] = {}
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        if isinstance(rule, dict):
            yield from _rule_contradictions(rule, ("rules", index))
            path: Path = ("rules", index)
            name = rule.get("name")
            if name is None:
                name = f"rules[{index}]"
            else:
                path += ("name",)
            name = name.written if isinstance(name, Whole) else name
            if isinstance(name, str):
                if name in names:
                    first = _problem(document, names[name], "", False).place
                    yield path, f"the name {shown(name)} is used twice; first at {first}"
                names.setdefault(name, path)


def _rule_contradictions(rule: dict[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    said = [key for key in _ANSWERS if rule.get(key) is not None]
    if len(said) > 1:
        yield (*path, said[1]), f"a rule can't both {' and '.join(said)}"
    if not said and not any(_says_something(rule.get(key)) for key in _CHANGES):
        unknown = [key for key in rule if key not in (_KEYS[("rules",)])]
        if not unknown:
            yield path, "does nothing; give it request, response, websocket, block, respond or redirect_to"
    for key in _CHANGES:
        changes = rule.get(key)
        if _says_something(changes) and said[:1] in (["block"], ["respond"]):
            yield (*path, key), f"a rule that says {said[0]} doesn't forward, so it has no {key} to change"
        if not isinstance(changes, dict):
            continue
        if key == "websocket":
            yield from _websocket_contradictions(rule, changes, (*path, key))
        else:
            yield from _change_contradictions(changes, (*path, key))
    respond = rule.get("respond")
    if isinstance(respond, dict):
        yield from _respond_contradictions(respond, (*path, "respond"))
        yield from _twice(respond.get("headers"), (*path, "respond", "headers"))


def _respond_contradictions(respond: dict[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    has_text, has_file = respond.get("text") is not None, respond.get("file") is not None
    if has_text and has_file:
        yield (*path, "file"), "an answer can't have both text and file"
    if respond.get("status") in _BODILESS and (respond.get("text") or has_file):
        yield (*path, "text" if has_text else "file"), f"an answer of status {respond['status']} has no body"


def _change_contradictions(changes: dict[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    headers = changes.get("headers")
    if isinstance(headers, dict):
        for key in _FIELDS:
            yield from _twice(headers.get(key), (*path, "headers", key))
        new = headers.get("set")
        for name, value in new.items() if isinstance(new, dict) else ():
            if name.lower() == "host" and isinstance(value, str) and not host_value(value.encode()):
                where = (*path, "headers", "set", name)
                yield where, f"expected a host such as example.com:8080, got {shown(value)}"
    replace = changes.get("replace")
    many = isinstance(replace, list)
    for index, each in enumerate(replace if isinstance(replace, list) else [replace]):
        where = (*path, "replace", index) if many else (*path, "replace")
        if isinstance(each, dict):
            if "find" in each and "regex" in each:
                yield where, "find and regex exclude each other"
            elif each.get("find") is None and each.get("regex") is None:
                yield where, "needs the key 'find'"


def _websocket_contradictions(rule: dict[str, Any], changes: dict[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    messages = changes.get("messages")
    if changes.get("stream") is True:
        words = "messages of a WebSocket that streams can't be changed"
        if _says_something(messages):
            yield (*path, "messages"), words
        for key in ("request", "response"):
            side = rule.get(key)
            if isinstance(side, dict) and _says_something(side.get("replace")):
                yield (*path, "stream"), f"{words}, which {key}.replace is to do"
    for index, each in enumerate(messages if isinstance(messages, list) else [messages]):
        where = (*path, "messages", index) if isinstance(messages, list) else (*path, "messages")
        if isinstance(each, dict):
            yield from _message_contradictions(each, where)


def _message_contradictions(message: dict[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    said = [key for key in _TO_MESSAGES if message.get(key) is not None]
    if len(said) > 1:
        yield (*path, said[1]), f"a message can't be given both {' and '.join(said)}"
    elif not said and all(key in _KEYS[("rules", "websocket", "messages")] for key in message):
        yield path, "does nothing; give it with, drop or respond"
    sought = [key for key in ("find", "regex") if message.get(key) is not None]
    if len(sought) > 1:
        yield path, "find and regex exclude each other"
    elif not sought and said == ["with"]:
        yield path, "needs the key 'find'"


def _twice(fields: Any, path: Path) -> Iterator[tuple[Path, str]]:
    seen: dict[str, str] = {}
    for name in fields if isinstance(fields, dict) else ():
        first = seen.setdefault(name.lower(), name)
        if first != name:
            yield (*path, name), f"{name} is the same field as {first}"


def _says_something(value: Any) -> bool:
    """Whether there is anything in a section but empty sections and nulls."""
    if isinstance(value, dict):
        return any(_says_something(inner) or (key in _FIELDS and inner) for key, inner in value.items())
    return value is not None and value != []
