"""Header fields as they stood on the wire: order, case and repetition kept.

This isn't a multidict to edit: `Headers` is frozen, and an edit makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Field = tuple[bytes, bytes]


class Headers:
    """Header fields in order; looked up by lower-case name (RFC 9110 section 5).

    `fields` are (name, value) pairs of bytes, the name in the case in which it came, the value without
    the white space around it.
    """

    __slots__ = ("_index", "fields")

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        index: dict[bytes, bytes | list[bytes]] = {name.lower(): value for name, value in self.fields}
        if len(index) != len(self.fields):
            index = _with_repeated(self.fields)
        self._index = index

    def get(self, name: bytes) -> bytes | None:
        """The value of the field `name` (lower case), its lines joined by ", "; None where there is none."""
        value = self._index.get(name)
        if type(value) is list:
            return b", ".join(value)
        return value  # type: ignore[return-value]

    def lines(self, name: bytes) -> list[bytes]:
        """The values of each line of the field `name` (lower case), in order."""
        value = self._index.get(name)
        if value is None:
            return []
        return list(value) if type(value) is list else [value]  # type: ignore[list-item]

    def count(self, name: bytes) -> int:
        """How many lines the field `name` (lower case) has."""
        value = self._index.get(name)
        return 0 if value is None else len(value) if isinstance(value, list) else 1

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a comma-separated field (RFC 9110 section 5.6.1): lower case, no empty ones."""
        value = self.get(name)
        if value is None:
            return []
        return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]

    def less(self, names: frozenset[bytes]) -> list[Field]:
        """The fields but those in `names` (lower case)."""
        index, fields = self._index, self.fields
        if names.isdisjoint(index):
            return list(fields)
        if len(index) == len(fields):
            # None is repeated, so the names stand in the index in the same order.
            return [field for name, field in zip(index, fields, strict=True) if name not in names]
        return [field for field in fields if field[0].lower() not in names]

    def without(self, names: Iterable[bytes]) -> Headers:
        """A copy less the fields in `names` (lower case); itself when it has none of them."""
        gone = {name for name in names if name in self._index}
        if not gone:
            return self
        return Headers(field for field in self.fields if field[0].lower() not in gone)

    def replacing(self, name: bytes, value: bytes) -> Headers:
        """A copy in which `name` stands once with `value`: in its first line's place, or at the end."""
        lower = name.lower()
        fields: list[Field] = []
        placed = False
        for field in self.fields:
            if field[0].lower() != lower:
                fields.append(field)
            elif not placed:
                fields.append((field[0], value))
                placed = True
        if not placed:
            fields.append((name, value))
        return Headers(fields)

    def adding(self, *fields: Field) -> Headers:
        """A copy with `fields` behind the others."""
        return Headers(self.fields + fields)

    def __contains__(self, name: bytes) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Headers({list(self.fields)!r})"


def _with_repeated(fields: tuple[Field, ...]) -> dict[bytes, bytes | list[bytes]]:
    """The values by lower-case name, where a name stands more than once."""
    index: dict[bytes, bytes | list[bytes]] = {}
    for name, value in fields:
        name = name.lower()
        seen = index.get(name)
        if seen is None:
            index[name] = value
        elif isinstance(seen, list):
            seen.append(value)
        else:
            index[name] = [seen, value]
    return index


def field_lines(fields: Iterable[Field]) -> bytes:
    """Fields as lines of the wire."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


NO_HEADERS = Headers()
