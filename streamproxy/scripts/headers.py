"""Header fields as scripts see them: a mapping to read and edit, over the frozen fields that came on the wire.

Nothing is copied until something is edited, and what isn't edited goes on as the very fields that came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from streamproxy.scripts.multidict import FieldMapping, with_values
from streamproxy.wire import headers as wire
from streamproxy.wire.fields import TOKEN

Text = str | bytes
Fields = tuple[tuple[bytes, bytes], ...]

_NAME = re.compile(TOKEN)
# RFC 9110 section 5.5: a reader may take the control characters for the end of the field, or for another one.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def as_text(value: bytes) -> str:
    """Bytes of a head as text; what isn't UTF-8 comes back as it was."""
    return value.decode("utf-8", "surrogateescape")


def as_bytes(value: Text, what: str = "a header field") -> bytes:
    """Text of a head as bytes; raises TypeError for what is neither."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")


def _name_bytes(name: Text) -> bytes:
    """A field's name to be written; raises ValueError for what would be no name, or more than one."""
    made = as_bytes(name, "a header field's name")
    if not _NAME.fullmatch(made):
        raise ValueError(f"{name!r} can't be the name of a header field")
    return made


def _value_bytes(value: Text, name: Text) -> bytes:
    """A field's value to be written; raises ValueError for what would end it early."""
    made = as_bytes(value, "a header field's value")
    if _CONTROL.search(made):
        raise ValueError(f"the value of the header field {name!r} has a control character in it")
    return made


def _checked(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    made = []
    for name, value in fields:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("header fields are pairs of bytes")
        made.append((_name_bytes(name), _value_bytes(value, name)))
    return tuple(made)


class Headers(FieldMapping[str, str]):
    """Header fields, looked up without case; order, case and repetition are kept.

    Names and values are text (UTF-8, other bytes by surrogateescape); bytes are taken as well. `headers["x"]` joins the
    lines of a field by ", ". Made of pairs of bytes, and of keywords, in which an underscore stands for a hyphen.
    Raises ValueError for names and values that would be read as something else on the wire.
    """

    __slots__ = ("_fields", "_told", "_told_of", "_wire")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = (), **headers: Text) -> None:
        super().__init__()
        self._wire: wire.Headers | None = None
        # None: as they are on the wire.
        self._fields: Fields | None = _checked(fields)
        self._told: tuple[tuple[str, str], ...] = ()
        self._told_of: Fields | None = None
        for name, value in headers.items():
            self[name.replace("_", "-")] = value  # type: ignore[assignment]

    @classmethod
    def of(cls, headers: wire.Headers) -> Headers:
        """The fields that came on the wire."""
        made = cls.__new__(cls)
        made._index, made._indexed = {}, None
        made._wire, made._fields = headers, None
        made._told, made._told_of = (), None
        return made

    @classmethod
    def made_of(cls, given: Any) -> Headers:
        """Headers of what a script gives for them: itself, a mapping of text or bytes, or pairs of bytes."""
        if isinstance(given, Headers):
            return given
        if isinstance(given, Mapping):
            return cls([(as_bytes(name), as_bytes(value)) for name, value in given.items()])
        return cls(given)

    def to_wire(self) -> wire.Headers:
        """The fields to write: those that came, where nothing was edited."""
        if self._wire is not None and not self.changed:
            return self._wire
        return wire.Headers([(name, value.strip(b" \t")) for name, value in self.fields])

    @property
    def changed(self) -> bool:
        """Whether they differ from what came on the wire."""
        if self._fields is None:
            return False
        return self._wire is None or self._fields != self._wire.fields

    @property
    def fields(self) -> Fields:
        """The (name, value) pairs of bytes, in order."""
        if self._fields is not None:
            return self._fields
        assert self._wire is not None
        return self._wire.fields

    @fields.setter
    def fields(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields = _checked(fields)

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        fields = self.fields
        if fields is not self._told_of:
            self._told = tuple([(as_text(name), as_text(value)) for name, value in fields])
            self._told_of = fields
        return self._told

    def _fold(self, name: Text) -> bytes:
        return as_bytes(name).lower()

    def _joined(self, values: list[str]) -> str:
        return ", ".join(values)

    def get_all(self, name: Text) -> list[str]:
        """The values of each line of the field `name`, in order. For Set-Cookie, whose lines can't be joined."""
        folded = self._fold(name)
        if self._fields is None and self._wire is not None:
            return [as_text(value) for value in self._wire.lines(folded)]
        return [as_text(value) for other, value in self.fields if other.lower() == folded]

    def set_all(self, name: Text, values: Iterable[Text]) -> None:
        """Give the field `name` a line for each of `values`, in the places of those that it had."""
        if isinstance(values, (str, bytes)):
            raise TypeError("set_all takes a list of values")
        made = [_value_bytes(value, name) for value in values]
        folded = self._fold(name)
        self._fields = with_values(self.fields, lambda other: other.lower() == folded, _name_bytes(name), made)

    def insert(self, index: int, name: Text, value: Text) -> None:
        """Put a line in front of the one at `index`."""
        fields = list(self.fields)
        fields.insert(index, (_name_bytes(name), _value_bytes(value, name)))
        self._fields = tuple(fields)

    def add(self, name: Text, value: Text) -> None:
        """Put a line at the end, whether or not the field has one already."""
        self.insert(len(self.fields), name, value)

    def clear(self) -> None:
        """Take all fields out."""
        self._fields = ()

    def copy(self) -> Headers:
        """The same fields, to be edited by themselves."""
        made = Headers.of(self._wire) if self._wire is not None else Headers()
        made._fields = self._fields
        return made

    def __bytes__(self) -> bytes:
        return b"".join([b"%b: %b\r\n" % field for field in self.fields])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers{list(self.fields)!r}"
