"""The JSON Schema: it is one, it takes what is in order, and it refuses what it can know to be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.explain import read_configuration
from streamproxy.rules.json_schema import descriptions, json_schema, sections
from streamproxy.rules.schema import Configuration
from streamproxy.rules.yaml import Document, Place, compose
from tests.rules.reading import errors
from tests.rules.test_schema import ERRORS

CONF = Path(__file__).resolve().parents[2] / "conf"
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

# Errors that only a reader finds: bounds of sizes that are written with a unit, ports, files.
BEYOND_IT = (
    "listen: tcp:65536",
    "listen: tcp:interface=x",
    "listen: tcp:http",
    "access: {htpasswd: /no}",
    # JSON has no such number.
    "timeouts: {idle: .nan}",
)


def takes(text: str) -> bool:
    return VALIDATOR.is_valid(compose(text, "f").data)


def data_of(value: Any) -> Document:
    return Document(value, {(): Place("f", 1, 1)}, {})


class SchemaTests(SynchronousTestCase):
    def test_it_is_a_schema_of_its_draft_and_fit_for_json(self) -> None:
        Draft202012Validator.check_schema(SCHEMA)
        self.assertEqual(json.loads(json.dumps(SCHEMA)), SCHEMA)
        self.assertEqual(SCHEMA["$schema"], "https://json-schema.org/draft/2020-12/schema")

    def test_every_example_is_taken(self) -> None:
        examples = sorted(CONF.glob("*.yaml"))
        self.assertGreater(len(examples), 10)
        for path in examples:
            found = [
                f"{path.name}: {error.json_path}: {error.message}"
                for error in VALIDATOR.iter_errors(compose(path.read_text(), path.name).data)
            ]
            self.assertEqual(found, [])

    def test_every_error_that_it_can_know_is_refused(self) -> None:
        for text, _ in ERRORS:
            self.assertEqual(takes(text), text in BEYOND_IT, text)

    def test_errors_within_rules_are_refused(self) -> None:
        for text in (
            "block: 200",
            "block: false",
            "match: {host: }",
            "match: {host: []}",
            "match: {host: {regexp: x}}",
            "match: {path: x}",
            "match: {header: {'A b': x}}",
            "match: {hots: x}",
            "request: {headers: {set: {Content-Length: '1'}}}",
            "request: {headers: {set: {EXPECT: '1'}}}",
            "request: {headers: {add: {Host: a}}}",
            "request: {headers: {remove: [tE]}}",
            "request: {headers: {set: {A: true}}}",
            'request: {headers: {set: {A: "a\\nb"}}}',
            "request: {replace: [{find: x}]}",
            "request: {replace: [{find: '', with: x}]}",
            "request: {stream: 'yes'}",
            "request: {on_overrun: stop}",
            "request: {events: nofunction}",
            "request: {fault: {after: {bytes: 1}}}",
            "request: {fault: {probability: 2}}",
            "request: {fault: {every: 0}}",
            "request: {pace: {rate: -1}}",
            "request: {capture: maybe}",
            "websocket: {messages: [{drop: false}]}",
            "websocket: {messages: [{from: server, drop: true}]}",
            "respond: {status: 100}",
            "redirect_to: /x",
            "redirect_to: ftp://a/",
        ):
            self.assertFalse(takes(f"rules: [{{{text}}}]"), text)
            self.assertTrue(errors(f"rules: [{{{text}}}]"), text)

    def test_a_list_may_be_written_as_its_only_member_and_null_is_left_out(self) -> None:
        for text in (
            "",
            "listen: tcp:1:interface=127.0.0.1",
            "admin: false",
            "admin: {endpoint: 'tcp:1', hosts: a}",
            "limits: {head: , body: null}",
            "limits:",
            "scripts: x.py",
            "tls: {passthrough: a.example, verify_upstream: {a.example: false}, minimum_version: 1.2}",
            "rules: [{match: {host: a, path: ['/x', {regex: y}]}, request: {replace: {find: 1, with: 2}, stream: }}]",
            "rules: [{request: {capture: true, fault: {after: {chunks: 3}}}, response: {headers: {remove: A}}}]",
            "rules: [{name: 007, block: true}]",
        ):
            self.assertTrue(takes(text), text)


class ReaderTests(SynchronousTestCase):
    """What it takes, the reader takes, as far as one value tells."""

    def test_every_word_that_it_offers_is_read(self) -> None:
        found = list(offered())
        self.assertGreater(len(found), 40)
        for path, value in found:
            data: Any = value
            for key in reversed(path):
                data = [data] if key == 0 else {**COMPANY.get(key, {}), key: data}
            self.assertTrue(VALIDATOR.is_valid(data), data)
            configuration, problems = read_configuration(data_of(data))
            self.assertEqual([each.text for each in problems], [], data)
            self.assertIsNotNone(configuration)

    @given(st.from_regex(r"\A[0-9]{1,16}(\.[0-9]{1,2})?[a-zA-Z]?\Z") | st.integers(-5, 1 << 62) | st.floats(-5, 1e19))
    def test_every_size_that_it_takes_is_read(self, size: object) -> None:
        data = {"stream_large_bodies": size}
        if VALIDATOR.is_valid(data) and "e" not in str(size):
            # A whole number comes from YAML as one that knows how it was written.
            text = f"stream_large_bodies: {size}" if isinstance(size, int) else f"stream_large_bodies: '{size}'"
            self.assertEqual(errors(text), [])

    @given(st.integers(-5, 10**10) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=3) | st.none())
    def test_every_time_that_it_takes_is_read_and_no_other(self, seconds: object) -> None:
        data = {"timeouts": {"idle": seconds}}
        self.assertEqual(VALIDATOR.is_valid(data), not read_configuration(data_of(data))[1])

    def test_every_default_is_what_may_be_written(self) -> None:
        for model in (Configuration, *sections()):
            form = SCHEMA if model is Configuration else SCHEMA["$defs"][model.__name__]
            for key, each in form["properties"].items():
                if "default" in each:
                    sub = Draft202012Validator({**each, "$defs": SCHEMA["$defs"]})
                    # What a condition is left out for isn't written.
                    if key not in model.never_null:
                        self.assertTrue(sub.is_valid(each["default"]), (model, key, each["default"]))

    def test_every_default_that_is_written_out_changes_nothing(self) -> None:
        plain = read_configuration(data_of({}))[0]
        for section in ("limits", "timeouts", "tls", "access", "log"):
            form = SCHEMA["$defs"][section.title()]["properties"]
            data = {section: {key: each["default"] for key, each in form.items() if "default" in each}}
            text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in data.items())
            self.assertEqual(read_configuration(compose(text, "f"))[0], plain, section)


class DescriptionTests(SynchronousTestCase):
    def test_every_key_is_described(self) -> None:
        for model in (Configuration, *sections()):
            found = descriptions(model)
            self.assertEqual(set(found), set(model.model_fields), model)
            for words in found.values():
                self.assertRegex(words, r"(?s)\A[A-Za-z$].*[.]\Z")


# What must stand beside a key for it to mean something.
COMPANY: dict[Any, dict[str, Any]] = {
    "mode": {"endpoint": "tcp:1:interface=127.0.0.1"},
    "from": {"drop": True},
    "type": {"drop": True},
    "match": {"block": 403},
}


def offered() -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each word, truth value or constant that the schema offers, with the way to it; below lists by their first."""

    def look(form: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
        if "$ref" in form:
            form = SCHEMA["$defs"][form["$ref"].rpartition("/")[2]]
        yield from ((path, value) for value in form.get("enum", ()) if value is not None)
        if form.get("const") is not None:
            yield path, form["const"]
        kinds = form.get("type")
        if path and (kinds == "boolean" or (isinstance(kinds, list) and set(kinds) == {"boolean", "null"})):
            yield from ((path, value) for value in (True, False))
        for inner in form.get("anyOf", ()):
            yield from look(inner, path)
        for key, inner in form.get("properties", {}).items():
            yield from look(inner, (*path, key))
        if "items" in form and "array" in kinds:
            yield from look(form["items"], (*path, 0))

    seen = set()
    for path, value in look(SCHEMA, ()):
        plain = tuple(part for part in path if part != 0)
        if (plain, repr(value)) not in seen:
            seen.add((plain, repr(value)))
            yield path, value
