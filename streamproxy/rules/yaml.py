"""A YAML text as plain data, with the place in its file of every value and key.

This isn't `yaml.safe_load`, which lets the second of two equal keys win and makes 1342 of `22:22` and True of
`on`. Here a plain scalar is a null, a boolean, a number (YAML 1.2's core schema) or else text; what is quoted
is text; a key is always text. Tags, a second document and recursion are errors. What the data means is
told in `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]

DEEPEST = 50
# Aliases may repeat this many nodes in all; without a limit ten short lines can stand for 10**9 values.
MOST_REPEATED = 100_000

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}", re.ASCII)
_EXPONENT = r"[eE][-+]?[0-9]+"
_FLOAT = re.compile(rf"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:{_EXPONENT})?|[0-9]+{_EXPONENT})", re.ASCII)
_ODD_FLOAT = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
# What YAML calls printable, and no more; a surrogate comes here from a command line that isn't UTF-8.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Place(NamedTuple):
    """Where something stands: line and column count from 1.

    What came from a command line has no line (0), `column` for its order, and names its own `path`.
    """

    file: str
    line: int
    column: int
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(NamedTuple):
    """One thing that is wrong, at a place, in one line of words."""

    place: Place
    text: str


class YamlError(Exception):
    """A text that can't be read as one YAML document of plain data; all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.place}: {problem.text}" for problem in problems))
        self.problems = problems


class Whole(int):
    """A whole number that remembers how it was written, for where text was meant (`007`)."""

    written: str

    def __new__(cls, written: str) -> Whole:
        sign, digits = (-1, written[1:]) if written[0] == "-" else (1, written.removeprefix("+"))
        if digits[:2] in ("0o", "0x"):
            value = int(digits[2:], 8 if digits[1] == "o" else 16)
        else:
            value = int(digits)
        made = super().__new__(cls, sign * value)
        made.written = written
        return made


class Document(NamedTuple):
    """The data of one YAML text; the places of its values, and of the keys that lead to them, by path."""

    data: Any
    places: dict[Path, Place]
    key_places: dict[Path, Place]


def decoded(raw: bytes, file: str) -> str:
    """The text of a file's bytes."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        text = f"byte 0x{raw[error.start]:02x} isn't UTF-8"
        raise YamlError([Problem(_place_of(before, len(before), file), text)]) from None


def compose(text: str, file: str) -> Document:
    """Read one YAML document; an empty one is None. Raises YamlError."""
    odd = _UNPRINTABLE.search(text)
    if odd:
        place = _place_of(text, odd.start(), file)
        raise YamlError([Problem(place, f"control character U+{ord(odd[0]):04X} isn't allowed here")])
    problems: list[Problem] = []
    try:
        _look_over(text, file, problems)
        if problems:
            raise YamlError(problems)
        node = yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        raise YamlError([_syntax_problem(error, text, file)]) from None
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise YamlError([Problem(Place(file, 1, 1), f"can't be read as YAML: {words}")]) from None
    walk = _Walk(file)
    if node is None:
        return Document(None, {(): Place(file, 1, 1)}, {})
    data = walk.value(node, ())
    if walk.problems:
        raise YamlError(walk.problems)
    return Document(data, walk.places, walk.key_places)


def _place_of(text: str, position: int, file: str) -> Place:
    before = text[:position].replace("\r\n", "\n").replace("\r", "\n")
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _mark_place(mark: Any, file: str) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


def _look_over(source: str, file: str, problems: list[Problem]) -> None:
    """Find what composing would hide (tags), do badly (depth: it recurses) or say unclearly (documents)."""
    depth = documents = 0
    for event in yaml.parse(source, Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                place = _mark_place(event.start_mark, file)
                problems.append(Problem(place, "a second document begins here; expected only one"))
                return
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                place = _mark_place(event.start_mark, file)
                problems.append(Problem(place, f"is nested more than {DEEPEST} deep"))
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None:
            place = _mark_place(event.start_mark, file)
            text = f"tag {_short(tag)} isn't allowed; quote a value that begins with !"
            problems.append(Problem(place, text))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    start = error.context_mark or mark
    words = " ".join(str(error.problem or error.context or "can't be read as YAML").split())
    if mark is None or start is None:
        return Problem(Place(file, 1, 1), words)
    lines = text.splitlines()
    line = lines[start.line] if start.line < len(lines) else ""
    first = line[start.column : start.column + 1]
    if first and first in "*&@`%":
        # By far the commonest cause: a wildcard written without quotes.
        return Problem(_mark_place(start, file), f"quote a value that begins with {first} ({words})")
    if error.context and error.context_mark is not None and start.line != mark.line:
        words += f" ({' '.join(error.context.split())} from line {start.line + 1})"
    return Problem(_mark_place(mark, file), words)


class _Walk:
    """Makes data of nodes, keeping where each came from."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}
        self.key_places: dict[Path, Place] = {}
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._repeated = 0

    def value(self, node: Any, path: Path) -> Any:
        place = self.places[path] = _mark_place(node.start_mark, self.file)
        if not self._may_enter(node, place):
            return None
        if isinstance(node, yaml.ScalarNode):
            return resolved(node.value) if not node.style else node.value
        self._open.add(id(node))
        made: Any
        if isinstance(node, yaml.SequenceNode):
            made = [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            made = self._mapping(node, path)
        self._open.discard(id(node))
        return made

    def _may_enter(self, node: Any, place: Place) -> bool:
        if id(node) in self._open:
            self.problems.append(Problem(place, "an alias stands inside what it stands for"))
            return False
        if id(node) in self._seen:
            self._repeated += 1
            if self._repeated == MOST_REPEATED:
                text = f"aliases repeat more than {MOST_REPEATED} values"
                self.problems.append(Problem(place, text))
            return self._repeated < MOST_REPEATED
        self._seen.add(id(node))
        return True

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merges: list[Any] = []
        for key, value in node.value:
            place = _mark_place(key.start_mark, self.file)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place, "expected a key of plain text"))
            elif key.value == "<<" and not key.style:
                merges.append(value)
            elif key.value in made:
                first = self.key_places[(*path, key.value)]
                text = f"key {_short(key.value)} stands here a second time; first at {first}"
                self.problems.append(Problem(place, text))
            else:
                self.key_places[(*path, key.value)] = place
                made[key.value] = self.value(value, (*path, key.value))
        for merge in merges:
            for key, value in self._merged(merge):
                if key.value not in made:  # the mapping's own keys win, then those merged first
                    self.key_places[(*path, key.value)] = _mark_place(key.start_mark, self.file)
                    made[key.value] = self.value(value, (*path, key.value))
        return made

    def _merged(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The pairs of the mapping, or the mappings of the list, behind a merge key `<<`."""
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            place = _mark_place(part.start_mark, self.file)
            if not isinstance(part, yaml.MappingNode):
                self.problems.append(Problem(place, "expected << to stand before a mapping"))
                continue
            for key, value in part.value:
                if not isinstance(key, yaml.ScalarNode):
                    self.problems.append(Problem(place, "expected a key of plain text"))
                elif key.value == "<<" and not key.style:
                    self.problems.append(Problem(place, "a << within what << merges isn't allowed"))
                else:
                    yield key, value


def resolved(text: str) -> Any:
    """What a plain scalar stands for."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _WHOLE.fullmatch(text):
        return Whole(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    odd = _ODD_FLOAT.fullmatch(text)
    if odd:
        return float(f"{odd[1] or ''}inf") if odd[1] is not None else float("nan")
    return text
