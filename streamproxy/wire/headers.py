"""Header fields as they stood on the wire: order, case and repetition kept.

This isn't a multidict to edit: `Headers` is frozen, and an edit makes another one. Reading them is in `fields`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Field = tuple[bytes, bytes]
Values = bytes | list[bytes]


class Headers:
    """Header fields in order; looked up by lower-case name (RFC 9110 section 5).

    Made of (name, value) pairs of bytes, the name in the case in which it came, the value without the white space
    around it. `written` has them as they are written, as "Name: value" without a line end; `names` their names in lower
    case.
    """

    __slots__ = ("_fields", "_index", "names", "written")

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        pairs = tuple(fields)
        self._fields: tuple[Field, ...] | None = pairs
        self.names: list[bytes] = []
        self.written: list[bytes] = []
        # One value, or those of all lines of the name.
        self._index: dict[bytes, Values] = {}
        for name, value in pairs:
            lower = name.lower()
            self.names.append(lower)
            self.written.append(b"%b: %b" % (name, value))
            put(self._index, lower, value)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The (name, value) pairs."""
        fields = self._fields
        if fields is None:
            fields = self._fields = tuple([field_of(line) for line in self.written])
        return fields

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

    def less(self, names: frozenset[bytes]) -> list[bytes]:
        """The lines but those of the fields in `names` (lower case)."""
        lines = self.written
        if names.isdisjoint(self._index):
            return lines.copy()
        kept: list[bytes] = []
        for at, name in enumerate(self.names):
            if name not in names:
                kept.append(lines[at])
        return kept

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
        return len(self.written)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.written == other.written

    def __hash__(self) -> int:
        return hash(tuple(self.written))

    def __repr__(self) -> str:
        return f"Headers({list(self.fields)!r})"


def put(index: dict[bytes, Values], name: bytes, value: bytes) -> None:
    """Put a line's value behind those that `index` has for its (lower-case) name."""
    seen = index.get(name)
    if seen is None:
        index[name] = value
    elif isinstance(seen, list):
        seen.append(value)
    else:
        index[name] = [seen, value]


def as_read(names: list[bytes], lines: list[bytes], index: dict[bytes, Values]) -> Headers:
    """The headers whose parts are at hand, as a reader has them."""
    headers = Headers()
    headers._fields = None
    headers.names = names
    headers.written = lines
    headers._index = index
    return headers


def field_of(line: bytes) -> Field:
    """The name and value of a line of `Headers.written`."""
    name, _, value = line.partition(b": ")
    return name, value


def field_lines(headers: Headers) -> bytes:
    """Fields as lines of the wire."""
    return b"".join([b"%b\r\n" % line for line in headers.written])


def request_head_bytes(method: bytes, target: bytes, lines: list[bytes]) -> bytes:
    """A request's head as HTTP/1.1 bytes; `lines` are as in `Headers.written`."""
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *lines, b"", b""])


def response_head_bytes(status: int, reason: bytes, lines: list[bytes]) -> bytes:
    """A response's head as HTTP/1.1 bytes; `lines` are as in `Headers.written`."""
    return b"\r\n".join([b"HTTP/1.1 %d %b" % (status, reason), *lines, b"", b""])


NO_HEADERS = Headers()
