"""A JSON Schema (draft 2020-12) of the configuration, made of the models in `schema`, for editors and manual pages.

It knows the form of each value, and nothing of what more than one key is needed to see, or a file. So what it accepts
may still be refused when it is read; what it refuses always is, but for whole numbers where a text of some form is
meant. Each reader of a value has its form in `_FORMS`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, PlainValidator
from pydantic.fields import FieldInfo

from streamproxy.rules import access_values, endpoint, match, rule_schema, schema, section, tls_values, values
from streamproxy.rules.access import Clients
from streamproxy.rules.interception import Destinations
from streamproxy.rules.match import Patterns
from streamproxy.rules.section import Section
from streamproxy.rules.trust import HostChoices

Form = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_FRACTION = r"(?:\.[0-9]{1,15})?"
# What is no more than 2**60 bytes.
_SIZE = "|".join(rf"[0-9]{{1,{digits}}}{_FRACTION}[{unit}]" for digits, unit in ((12, "mM"), (9, "gG"), (6, "tT")))
_SIZE = rf"^(?:[0-9]{{1,15}}{_FRACTION}[bBkK]?|{_SIZE})$"
_LARGEST_NUMBER = 10**15 - 1
_LINE = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
_TOKEN = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
_VALUE = r"^[^\u0000-\u0008\u000a-\u001f\u007f]*$"


def _any_case(words: Iterator[str]) -> str:
    spelt = ("".join(f"[{char.upper()}{char}]" if char.isalpha() else char for char in word) for word in words)
    return f"^(?:{'|'.join(spelt)})$"


_UNTOUCHED = [*values.FRAMING_FIELDS, *values.CONNECTION_FIELDS, "expect"]
_SETTABLE = {"type": "string", "pattern": _TOKEN, "not": {"pattern": _any_case(iter(sorted(_UNTOUCHED)))}}
_EDITABLE = {"type": "string", "pattern": _TOKEN, "not": {"pattern": _any_case(iter(sorted([*_UNTOUCHED, "host"])))}}
_TEXT = {"type": ["string", "integer"]}
_A_LINE = {"type": ["string", "integer"], "pattern": _LINE}
_A_FILE = {"type": "string", "pattern": _LINE}
_AN_ENDPOINT = {"type": "string", "pattern": r"^(?:tcp|tcp6|unix|systemd|haproxy):.[^\u0000-\u001f\u007f-\u009f]*$"}


def _size(least: int, most: int) -> Form:
    number: Form = {"type": "number", "minimum": least, "maximum": min(most, _LARGEST_NUMBER)}
    return {"anyOf": [number, {"type": "string", "pattern": _SIZE}]}


def _count(least: int, most: int) -> Form:
    return {"type": "integer", "minimum": least, "maximum": most}


def _one_or_many(form: Form, least: int = 0) -> Form:
    many: Form = {"type": "array", "items": form}
    if least:
        many["minItems"] = least
    return {"anyOf": [form, many]}


def _patterns(beginning: str = "", least: int = 1) -> Form:
    regex: Form = {"type": "object", "properties": {"regex": {"type": "string"}}, "required": ["regex"]}
    regex["additionalProperties"] = False
    text: Form = {"type": ["string", "integer"], "minLength": 1}
    if beginning:
        text = {"type": "string", "pattern": beginning}
    return _one_or_many({"anyOf": [text, regex]}, least)


def _read_patterns(read: Callable[[str], match.Pattern], _flags: int) -> Form:
    return _patterns(_BEGINNINGS.get(read, ""))


_BEGINNINGS: dict[Callable[[str], match.Pattern], str] = {
    match.path_pattern: "^[/*?]",
    match.method_pattern: r"^[A-Za-z0-9!#$%&'*+.^_`|~?-]+$",
}
_NUMBERED = [{"type": "object", "properties": {unit: _count(0, 1 << 40)}, "required": [unit]} for unit in (
    "chunks", "events")]  # fmt: skip
_OPTION = {"type": ["string", "boolean", "number", "array"], "items": {"type": "string"}}
_HEADER_TEST: Form = {"anyOf": [{"type": "boolean"}, _patterns()]}

# What each reader of a single value reads; of those that are made by another, that one with its arguments.
_FORMS: dict[Callable[..., Any], Form | Callable[..., Form]] = {
    values.read_size: _size,
    values.read_count: _count,
    values.read_word: lambda words: {"enum": list(words)},
    values.read_patterns: _read_patterns,
    values.boolean: {"type": "boolean"},
    values.true: {"enum": [True]},
    values.seconds: {"type": "number", "exclusiveMinimum": 0, "maximum": 10**9},
    values.probability: {"type": "number", "minimum": 0, "maximum": 1},
    values.text: _TEXT,
    values.line: _A_LINE,
    values.header_name: {"type": "string", "pattern": _TOKEN},
    values.settable_name: _SETTABLE,
    values.editable_name: _EDITABLE,
    values.header_value: {"type": ["string", "integer"], "pattern": _VALUE},
    values.header_test: _HEADER_TEST,
    values.replaced: {"type": ["string", "integer"], "minLength": 1, "maxLength": values.LONGEST_FIND},
    values.replaced_regex: {"type": ["string", "integer"], "minLength": 1, "maxLength": values.LONGEST_FIND},
    values.put: {"type": ["string", "integer"], "maxLength": values.LONGEST_PUT},
    values.function_name: {"type": "string", "pattern": r"^.+:[^\W\d]\w*$"},
    values.after: {"anyOf": [_size(0, 1 << 60), *({**each, "additionalProperties": False} for each in _NUMBERED)]},
    values.script_options: {
        "type": "object",
        "propertyNames": {"pattern": r"^[^\W\d]\w*$"},
        "additionalProperties": _OPTION,
    },
    values.block_status: {"anyOf": [_count(400, 599), {"const": True}]},
    values.answer_status: _count(200, 599),
    values.served_path: _A_FILE,
    values.redirect: {"type": "string", "pattern": r"^(?:[Hh][Tt][Tt][Pp]|[Ww][Ss])[Ss]?://[^/?#\s\\]+[^#\s\\]*$"},
    values.streamed_types: _patterns(least=0),
    values.host_patterns: _patterns(),
    endpoint.endpoint: _AN_ENDPOINT,
    access_values.clients: _one_or_many({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$"}),
    access_values.htpasswd: _A_FILE,
    access_values.token: _A_FILE,
    access_values.absolute_path: _A_FILE,
    tls_values.destinations: _patterns(least=0),
    tls_values.verification: {
        "anyOf": [{"const": True}, {"type": "object", "additionalProperties": {"type": "boolean"}}]
    },
    tls_values.client_certificates: {"anyOf": [_A_FILE, {"type": "object", "additionalProperties": _A_FILE}]},
    tls_values.certificate: _A_FILE,
    tls_values.key: _A_FILE,
    tls_values.minimum_version: {"enum": [*tls_values.VERSIONS, *map(float, tls_values.VERSIONS)]},
}
# What may stand for a list, or for a section.
_SHORTER: dict[Callable[..., Any], Callable[[Form], Form]] = {
    values.one_or_many: lambda form: _one_or_many(form["items"]),
    values.at_least_one: lambda form: _one_or_many(form["items"], 1),
    schema.as_listener: lambda form: {"anyOf": [_AN_ENDPOINT, form]},
    schema.as_admin: lambda form: {"anyOf": [_AN_ENDPOINT, form, {"const": False}]},
    rule_schema.as_capture: lambda form: {"anyOf": [{"type": "boolean"}, form]},
}


def json_schema() -> Form:
    """The schema of a whole configuration, as plain data fit for JSON."""
    made = _section_form(schema.Configuration)
    return {
        "$schema": DRAFT,
        "title": "streamproxy.yaml",
        "description": "The configuration of streamproxy.",
        **made,
        "type": ["object", "null"],
        "$defs": {each.__name__: _section_form(each) for each in sections()},
    }


def sections() -> list[type[Section]]:
    """The sections below the configuration itself, each once, in the order in which they are met."""
    found: dict[type[Section], None] = {}

    def look(model: type[Section]) -> None:
        for field in model.model_fields.values():
            for inner in _sections_in(field.annotation):
                if inner not in found:
                    found[inner] = None
                    look(inner)

    look(schema.Configuration)
    return list(found)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)


def _section_form(model: type[Section]) -> Form:
    described = descriptions(model)
    keys: Form = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        form = _form(field.annotation, field.metadata)
        if not field.is_required() and key not in model.never_null:
            form = _or_null(form)
        form["description"] = described[name]
        default = written_default(field)
        if default is not None or field.default is None:
            form["default"] = default
        keys[key] = form
    made: Form = {"type": "object", "properties": keys, "additionalProperties": False}
    needed = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
    if needed:
        made["required"] = needed
    return made


def _or_null(form: Form) -> Form:
    if "enum" in form:
        return {**form, "enum": [*form["enum"], None]}
    if "type" in form and "not" not in form:
        kinds = form["type"] if isinstance(form["type"], list) else [form["type"]]
        return {**form, "type": [*kinds, "null"]} if "null" not in kinds else form
    either = form["anyOf"] if set(form) == {"anyOf"} else [form]
    return {"anyOf": [*either, {"type": "null"}]}


def _form(annotation: Any, metadata: list[Any]) -> Form:
    """The form of what an annotation, with what it is annotated by, stands for; null aside."""
    for index, each in enumerate(metadata):
        if isinstance(each, values.Unbuilt):
            return {"const": each.default} if each.default is not None else {"type": "null"}
        if isinstance(each, BeforeValidator):
            return _SHORTER[each.func](_form(annotation, metadata[:index] + metadata[index + 1 :]))
        if isinstance(each, PlainValidator):
            if any(isinstance(other, values.Unbuilt) for other in metadata):
                continue
            return _read_by(each.func)
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _form(parts[0], list(annotation.__metadata__))
    if kind in (Union, types.UnionType):
        (part,) = (part for part in parts if part is not type(None))
        return _form(part, [])
    if kind is tuple:
        return {"type": "array", "items": _form(parts[0], [])}
    if kind is dict:
        return {"type": "object", "propertyNames": _form(parts[0], []), "additionalProperties": _form(parts[1], [])}
    return {"$ref": f"#/$defs/{annotation.__name__}"}


def _read_by(reader: Any) -> Form:
    if isinstance(reader, functools.partial):
        form = _FORMS[reader.func]
        assert callable(form)
        return form(*reader.args)
    found = _FORMS[reader]
    assert isinstance(found, dict)
    return dict(found)


def written_default(field: FieldInfo) -> Any:
    """The default of a key as a user would write it; None where there is none, or it is a section."""
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    readers = [getattr(each, "func", each) for each in _readers(field.annotation, field.metadata)]
    if values.true in readers:
        return None  # It is said, or left out.
    if isinstance(default, int) and values.read_size in readers:
        return values.size_text(default)
    return _written(default)


def _readers(annotation: Any, metadata: Any) -> Iterator[Any]:
    yield from (each.func for each in metadata if isinstance(each, PlainValidator))
    for part in get_args(annotation):
        yield from _readers(part, getattr(part, "__metadata__", ()))


def _written(value: Any) -> Any:
    if isinstance(value, schema.Listener | schema.Admin):
        return value.endpoint
    if isinstance(value, section.Section | dict):
        return None
    if isinstance(value, Patterns):
        return [pattern.text for pattern in value.patterns]
    if isinstance(value, Destinations):
        return [member.text for member in value.members]
    if isinstance(value, Clients):
        return [each.text for each in value.ranges]
    if isinstance(value, match.HostPatterns):
        return []
    if isinstance(value, HostChoices):
        return value.default
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, tuple):
        return value[0] if value[1:] == ("bytes",) else [_written(each) for each in value]
    return value


def descriptions(model: type[Section]) -> dict[str, str]:
    """What stands under each key of a model in its source, by the name of the attribute."""
    return _described(model.__module__)[model.__name__]


@functools.cache
def _described(module: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for statement in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(statement, ast.ClassDef):
            keys = found.setdefault(statement.name, {})
            for key, below in zip(statement.body, statement.body[1:], strict=False):
                if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(below, ast.Expr):
                    keys[key.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found
