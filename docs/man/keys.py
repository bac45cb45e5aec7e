"""Writes streamproxy.yaml.5, the manual page of the configuration, from the JSON Schema: `make man`.

The words about keys stand in the models (streamproxy/rules/schema.py, rule_schema.py); what stands here is about all.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from streamproxy import __version__
from streamproxy.rules.json_schema import json_schema

DATE = "2026-11-21"
Form = dict[str, Any]

BEGINNING = r"""
.TH STREAMPROXY.YAML 5 {date} "streamproxy {version}" "File Formats"
.ad l
.SH NAME
streamproxy.yaml \- configuration of streamproxy
.SH DESCRIPTION
.BR streamproxy (1)
reads one YAML file, which is named by
.BR \-c .
Every key may be left out; null is the same, but in
.BR match .
A key can be set from the command line as well:
.B \-\-set limits.head=32k
or
.BR "\-\-set rules.0.block=451" .
.PP
A
.I size
is a number of bytes, or one with b, k, m, g or t behind it (1k is 1024 bytes).
.I Seconds
may have a fraction.
A list may be written as its only member.
Relative paths are taken from the working directory; those of scripts are
looked for beside the configuration first.
.PP
A
.I pattern
stands for the whole value: * is any run of characters, ? is one.
.BR "{{regex: ...}}" " is searched for."
A list of patterns means any of them.
.PP
The file is read again on SIGHUP.
What is wrong with it is told on the log, and the old one stays in force.
.SS Editors
.B streamproxy schema > streamproxy.schema.json
writes a JSON Schema (draft 2020\-12) of all this.
Editors that use yaml\-language\-server check and complete a file that begins
with the line
.PP
.in +4n
.EX
# yaml\-language\-server: $schema=./streamproxy.schema.json
.EE
.in
.SH KEYS
"""
END = r"""
.SH EXAMPLES
.EX
stream_large_bodies: 1m
limits: {held_body: 16m}
rules:
  \- {name: no ads, match: {host: "*.ads.example"}, block: 403}
  \- name: api
    match: {host: api.example, method: [POST, PUT]}
    request: {replace: [{regex: "sk\-[A\-Za\-z0\-9]{20,}", with: "sk\-***"}]}
    response: {headers: {remove: [Server]}}
.EE
.PP
.B streamproxy check FILE
tells all that is wrong with a file, and
.B streamproxy explain METHOD URL
which rules would apply to a request.
.SH SEE ALSO
.BR streamproxy (1)
"""


def page() -> str:
    """The whole page."""
    schema = json_schema()
    text = BEGINNING.format(date=DATE, version=__version__).lstrip() + "\n".join(_keys(schema)) + "\n" + END.lstrip()
    return "\n".join(line for line in text.splitlines() if line) + "\n"


def _keys(schema: Form) -> Iterator[str]:
    defs = schema["$defs"]
    ways: dict[str, list[str]] = {}

    def walk(form: Form, way: str) -> None:
        for key, each in form["properties"].items():
            for name, is_list in _sections_in(each):
                path = f"{way}{'.' if way else ''}{key}{'[]' if is_list else ''}"
                if path not in ways.setdefault(name, []):
                    ways[name].append(path)
                walk(defs[name], path)

    walk(schema, "")
    yield from _section(schema, "At the top")
    for name, paths in ways.items():
        shown = paths if len(paths) < 3 else [re.sub(r"^rules\[\]\.request", "rules[].request or .response", paths[0])]
        yield from _section(defs[name], " and ".join(shown))


def _sections_in(form: Form, is_list: bool = False) -> Iterator[tuple[str, bool]]:
    if "$ref" in form:
        yield form["$ref"].rpartition("/")[2], is_list
    found = dict(each for inner in form.get("anyOf", ()) for each in _sections_in(inner, is_list))
    if "items" in form:
        found |= dict(_sections_in(form["items"], True))
    yield from found.items()


def _section(form: Form, title: str) -> Iterator[str]:
    yield f".SS {_roff(title)}"
    for key, each in form["properties"].items():
        yield ".TP"
        kind = _kind(each)
        yield f".BR {_roff(key)}" + (f' " (\\fI{_roff(kind)}\\fR)"' if kind else "")
        yield from _wrapped(each["description"])
        default = each.get("default")
        if default not in (None, []):
            yield from _wrapped(f"Default: {_written(default)}.")


def _kind(form: Form) -> str:
    """What may be written there, in a few words."""
    if "$ref" in form:
        return "mapping"
    if "enum" in form:
        words = [_written(each) for each in form["enum"] if each is not None]
        words = list(dict.fromkeys(words))
        return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
    if "const" in form:
        return _written(form["const"])
    if "anyOf" in form:
        members = [each for each in form["anyOf"] if each.get("type") != "null"]
        if members[0].get("type") == "number" and "pattern" in members[1]:
            return "size" if len(members) == 2 else "size or mapping"
        if any("regex" in each.get("properties", ()) for each in members):
            return "pattern"
        kinds = dict.fromkeys(_kind(each) for each in members)
        if len(members) == 2 and members[1].get("type") == "array":
            return f"{_kind(members[0])}, or a list"
        return " or ".join(kind for kind in kinds if kind)
    kinds = form.get("type", "")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "number":
        return "seconds" if "exclusiveMinimum" in form else f"number from {form['minimum']} to {form['maximum']}"
    if kind == "integer":
        return f"whole number from {form['minimum']} to {form['maximum']}"
    if kind == "array":
        return "list"
    return {"boolean": "true or false", "string": "text", "object": "mapping", "null": "null"}.get(kind, "")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(_written, value)) if isinstance(value, list) else str(value)


def _wrapped(text: str) -> Iterator[str]:
    # A sentence begins on a line of its own.
    for sentence in re.split(r"(?<=[.])\s+(?=[A-Z])", text):
        for line in textwrap.wrap(sentence, 76, break_long_words=False, break_on_hyphens=False):
            yield _roff(line)


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    sys.stdout.write(page())
