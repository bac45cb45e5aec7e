"""The single values that a configuration is written in: sizes, seconds, header fields, patterns, redirects.

Each reader here takes what stood in the YAML and gives what the program uses, or raises an error that says
what was expected. Which keys there are is told in `schema`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainValidator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from streamproxy.rules import match, paths
from streamproxy.rules.yaml import Whole
from streamproxy.wire.message import Origin
from streamproxy.wire.target import DEFAULT_PORTS, WEBSOCKET_SCHEMES

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([bkmgt]?)", re.ASCII | re.IGNORECASE)
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST_VALUE = re.compile(rb"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_REDIRECT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_REDIRECT_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)

T = TypeVar("T")

# What the message's framing and the connection own: a rule's word on them would be a lie or a way to smuggle.
FRAMING_FIELDS = frozenset(("content-length", "transfer-encoding", "trailer"))
CONNECTION_FIELDS = frozenset(("connection", "keep-alive", "proxy-connection", "te", "upgrade"))
LONGEST_FIND = 4096
LONGEST_PUT = 64 << 10


def expected(what: str, *below: str | int) -> PydanticCustomError:
    """The error `expected <what>, got ...`; `below` leads from the value to the part that is wrong."""
    return PydanticCustomError("expected", "{what}", {"what": what, "below": below})


def refused(why: str, *below: str | int) -> PydanticCustomError:
    """An error that says it all in its own words."""
    return PydanticCustomError("refused", "{why}", {"why": why, "below": below})


class Unbuilt:
    """Marks a key of the interface that has nothing behind it yet: it may only have its default."""

    def __init__(self, default: object = None) -> None:
        self.default = default

    def __get_pydantic_core_schema__(self, source: Any, inner: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, inner(source))

    def check(self, value: Any) -> Any:
        if value is not None and value != self.default:
            raise PydanticCustomError("unbuilt", "unbuilt")
        return value


def one_or_many(value: Any) -> Any:
    """A list may be written as its only member."""
    return value if isinstance(value, list) else [value]


def at_least_one(value: Any) -> Any:
    """`one_or_many`, but not none."""
    if value == []:
        raise expected("at least one")
    return one_or_many(value)


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return value.written if isinstance(value, Whole) else None


def text(value: Any) -> str:
    """Text of any kind; a whole number counts as it was written."""
    read = _as_text(value)
    if read is None:
        hint = "" if isinstance(value, dict | list) else " (in quotes)"
        raise expected(f"text{hint}")
    try:
        read.encode()
    except UnicodeEncodeError:
        raise expected("text of whole characters") from None
    return read


def line(value: Any) -> str:
    """Text of one line that has something in it."""
    read = text(value)
    if not read.strip() or CONTROL.search(read):
        raise expected("text of one line")
    return read


# What makes a reader gives a `partial`, so that `json_schema` can see what it reads.
def size(least: int = 0, most: int = 1 << 60) -> Callable[[Any], int]:
    """A reader of sizes in bytes."""
    return partial(read_size, least, most)


def read_size(least: int, most: int, value: Any) -> int:
    """A size in bytes, within bounds."""
    written = str(value) if isinstance(value, float) else _as_text(value)
    parts = _SIZE.fullmatch(written) if written is not None else None
    number = int(Fraction(parts[1]) * _SIZES[parts[2].lower()]) if parts else -1
    if not least <= number <= most:
        fit = "" if (least, most) == (0, 1 << 60) else f" of {size_text(least)} at the least"
        if most < 1 << 60:
            fit = f" from {size_text(least)} to {size_text(most)}"
        raise expected(f"a size{fit}, such as {size_text(max(least, min(64 << 10, most)))}")
    return number


def size_text(number: int) -> str:
    """A size as it is written."""
    for unit in ("g", "m", "k"):
        if number and number % _SIZES[unit] == 0:
            return f"{number // _SIZES[unit]}{unit}"
    return str(number)


def count(least: int, most: int) -> Callable[[Any], int]:
    """A reader of whole numbers."""
    return partial(read_count, least, most)


def read_count(least: int, most: int, value: Any) -> int:
    """A whole number, within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise expected(f"a whole number from {least} to {most}")
    return int(value)


def seconds(value: Any) -> float:
    """A time span above zero."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value > 0 and value <= 10**9 and math.isfinite(value):
            return float(value)
    raise expected("a number of seconds above 0")


def one_of(*words: str) -> Callable[[Any], str]:
    """A reader of a word from a list."""
    return partial(read_word, words)


def read_word(words: tuple[str, ...], value: Any) -> str:
    """One of `words`."""
    if not isinstance(value, str) or value not in words:
        raise expected(f"{', '.join(words[:-1])} or {words[-1]}")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false")
    return value


def header_name(value: Any) -> str:
    """The name of any field."""
    read = _as_text(value)
    if read is None or not _TOKEN.fullmatch(read):
        raise expected("a header name")
    return read


def settable_name(value: Any) -> str:
    """The name of a field that a rule may give a value."""
    read = header_name(value)
    if read.lower() in FRAMING_FIELDS:
        raise refused(f"a rule can't touch {read}: it says where the message ends, which the proxy works out")
    if read.lower() in CONNECTION_FIELDS:
        raise refused(f"a rule can't touch {read}: it belongs to one connection, not to the message")
    if read.lower() == "expect":
        raise refused(
            f"a rule can't touch {read}: the client waits for the 100 that it asks for, and the proxy sees to it"
        )
    return read


def editable_name(value: Any) -> str:
    """The name of a field that a rule may add to, remove, or answer with."""
    read = settable_name(value)
    if read.lower() == "host":
        raise refused("Host can only be set: a request has it once, no more and no less")
    return read


def header_value(value: Any) -> bytes:
    """The value of a field, in Latin-1 where that can be, else in UTF-8."""
    read = _as_text(value)
    if read is None:
        hint = "a header value" if isinstance(value, dict | list) else "a header value in quotes"
        raise expected(hint)
    read = read.strip(" \t")
    if any((char < " " and char != "\t") or char == "\x7f" for char in read):
        raise expected("a header value of one line, without control characters")
    try:
        return read.encode("latin-1")
    except UnicodeEncodeError:
        return text(read).encode()


def host_value(value: bytes) -> bool:
    """Whether a value will do for Host."""
    return _HOST_VALUE.fullmatch(value) is not None


def replaced(value: Any) -> bytes:
    """What a body is searched for."""
    read = text(value).encode()
    if not 1 <= len(read) <= LONGEST_FIND:
        raise expected(f"text of 1 to {LONGEST_FIND} bytes")
    return read


def replaced_regex(value: Any) -> str:
    """A regular expression that a body is searched for, as it is written; it is compiled when settings are made."""
    read = text(value)
    if not 1 <= len(read.encode()) <= LONGEST_FIND:
        raise expected(f"a regular expression of 1 to {LONGEST_FIND} bytes")
    return read


def put(value: Any) -> bytes:
    """What stands there instead."""
    read = text(value).encode()
    if len(read) > LONGEST_PUT:
        raise expected(f"text of {LONGEST_PUT} bytes at the most")
    return read


def function_name(value: Any) -> str:
    """The name of a user's function; whether there is one is found out when scripts are loaded."""
    read = line(value)
    module, colon, function = read.rpartition(":")
    if not colon or not module or not function.isidentifier():
        raise expected("the name of a function, such as mymodule:on_event")
    return read


def after(value: Any) -> tuple[int, str]:
    """How much of a body, and in what it is counted: bytes, chunks or events."""
    if not isinstance(value, dict):
        return size()(value), "bytes"
    if len(value) != 1 or not value.keys() <= {"chunks", "events"}:
        raise expected("a size such as 100k, {chunks: 3} or {events: 3}")
    ((unit, number),) = value.items()
    return count(0, 1 << 40)(number), str(unit)


def probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise expected("a number from 0 to 1")
    return float(value)


def script_options(value: Any) -> dict[str, Any]:
    """Options for scripts, by name: text, numbers, true or false, or a list of texts."""
    if not isinstance(value, dict):
        raise expected("options by their names")
    for name, each in value.items():
        fit = isinstance(each, str | bool | int | float) or (
            isinstance(each, list) and all(isinstance(member, str) for member in each)
        )
        if not name.isidentifier() or not fit:
            raise expected("an option: text, a number, true or false, or a list of texts", name)
    return {name: int(each) if isinstance(each, Whole) else each for name, each in value.items()}


def true(value: Any) -> bool:
    """What is either said or left out."""
    if value is not True:
        raise expected("true")
    return True


def block_status(value: Any) -> int:
    return 403 if value is True else count_status(value, 400, "a status from 400 to 599, or true")


def answer_status(value: Any) -> int:
    return count_status(value, 200, "a status from 200 to 599")


def count_status(value: Any, least: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 599:
        raise expected(what)
    return int(value)


def served_path(value: Any) -> Path:
    """A file or folder that is there, by its absolute path."""
    path = Path(os.path.abspath(line(value)))
    try:
        path.stat()
    except OSError as error:
        raise refused(f"{path} can't be served: {error.strerror}") from None
    if not path.is_file() and not path.is_dir():
        raise refused(f"{path} can't be served: it is neither a file nor a folder")
    return path


class Redirect(NamedTuple):
    """Where a rule sends requests: an origin, a path (a prefix, if it ends with a slash) and a query."""

    origin: Origin
    path: str
    query: str


def redirect(value: Any) -> Redirect:
    """An absolute URL, http or https; ws and wss mean these."""
    what = "an absolute URL such as http://new.example/"
    parts = _REDIRECT.fullmatch(value) if isinstance(value, str) else None
    if not parts or parts[5] or CONTROL.search(value) or " " in value or "\\" in value:
        raise expected(what)
    scheme, netloc, path, query, _ = parts.groups()
    scheme = scheme.lower()
    scheme = WEBSOCKET_SCHEMES.get(scheme, scheme)
    host = _REDIRECT_HOST.fullmatch(netloc)
    port = int(host[2]) if host and host[2] else DEFAULT_PORTS.get(scheme, 0)
    if scheme not in DEFAULT_PORTS or not host or not 1 <= port <= 65535:
        raise expected(what)
    origin = Origin(scheme, host[1].strip("[]").lower(), port)
    escaped = [paths.escaped_text(part or "") for part in (path or "/", query)]
    return Redirect(origin, *escaped)


def each_pattern(value: Any, read: Callable[[str], T], flags: re.RegexFlag) -> list[T | match.Pattern]:
    """Read one pattern or a list of them; `flags` are for regular expressions, which come as they are."""
    many = isinstance(value, list)
    if many and not value:
        raise expected("a pattern")
    read_all: list[T | match.Pattern] = []
    for index, source in enumerate(value if many else [value]):
        below = (index,) if many else ()
        try:
            if isinstance(source, dict):
                if list(source) != ["regex"] or not isinstance(source["regex"], str):
                    raise expected("a pattern or {regex: text}", *below)
                below = (*below, "regex")
                read_all.append(match.regex(source["regex"], flags))
            else:
                written = _as_text(source)
                if not written or CONTROL.search(written):
                    raise expected("a pattern", *below)
                text(written)
                read_all.append(read(written))
        except match.PatternError as error:
            raise expected(str(error), *below) from None
    return read_all


def patterns(read: Callable[[str], match.Pattern], flags: re.RegexFlag = re.NOFLAG) -> PlainValidator:
    """A reader of patterns of one kind."""
    return PlainValidator(partial(read_patterns, read, flags))


def read_patterns(read: Callable[[str], match.Pattern], flags: re.RegexFlag, value: Any) -> match.Patterns:
    """One pattern or several, each read by `read`."""
    return match.Patterns(each_pattern(value, read, flags))


def streamed_types(value: Any) -> match.Patterns:
    """Patterns of types, or none of them."""
    return match.Patterns(() if value == [] else each_pattern(value, match.type_pattern, re.IGNORECASE))


def host_patterns(value: Any) -> match.HostPatterns:
    """Patterns of hosts."""
    read = each_pattern(value, match.host_pattern, re.IGNORECASE)
    return match.HostPatterns(
        found if isinstance(found, match.HostPattern) else match.HostPattern(found) for found in read
    )


def header_test(value: Any) -> match.Patterns | bool:
    """What a field's lines are held against: patterns, or whether it is there at all."""
    if isinstance(value, bool):
        return value
    return match.Patterns(each_pattern(value, match.value_pattern, re.NOFLAG))


Line = Annotated[str, PlainValidator(line)]
Boolean = Annotated[bool, PlainValidator(boolean)]
Seconds = Annotated[float, PlainValidator(seconds)]
Size = Annotated[int, PlainValidator(size())]
AnswerText = Annotated[str | None, PlainValidator(text)]
FindText = Annotated[bytes | None, PlainValidator(replaced)]
RegexText = Annotated[str | None, PlainValidator(replaced_regex)]
FunctionName = Annotated[str | None, PlainValidator(function_name)]
Probability = Annotated[float, PlainValidator(probability)]
ScriptOptions = Annotated[dict[str, Any], PlainValidator(script_options)]
PutText = Annotated[bytes, PlainValidator(put)]
OptionalPutText = Annotated[bytes | None, PlainValidator(put)]
BlockStatus = Annotated[int | None, PlainValidator(block_status)]
AnswerStatus = Annotated[int, PlainValidator(answer_status)]
ServedPath = Annotated[Path | None, PlainValidator(served_path)]
RedirectTo = Annotated[Redirect | None, PlainValidator(redirect)]
HeaderValue = Annotated[bytes, PlainValidator(header_value)]
HeaderName = Annotated[str, PlainValidator(header_name)]
SettableName = Annotated[str, PlainValidator(settable_name)]
EditableName = Annotated[str, PlainValidator(editable_name)]
HeaderValues = Annotated[tuple[HeaderValue, ...], BeforeValidator(one_or_many)]
HeaderTest = Annotated[match.Patterns | bool, PlainValidator(header_test)]
HostPatterns = Annotated[match.HostPatterns, PlainValidator(host_patterns)]
MethodPatterns = Annotated[match.Patterns, patterns(match.method_pattern, re.IGNORECASE)]
PathPatterns = Annotated[match.Patterns, patterns(match.path_pattern)]
UrlPatterns = Annotated[match.Patterns, patterns(match.url_pattern)]
TypePatterns = Annotated[match.Patterns, patterns(match.type_pattern, re.IGNORECASE)]
StreamedTypes = Annotated[match.Patterns, PlainValidator(streamed_types)]
