"""Mappings in which a name may have several values, in order: queries, forms, cookies.

A `MultiDict` has pairs of its own; a `MultiDictView` reads them from a part of a message and writes them back there.
Header fields, which know no case, are in `headers`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")
Name = TypeVar("Name")
Value = TypeVar("Value")
Pairs = tuple[tuple[K, V], ...]


def with_values(
    fields: Iterable[tuple[Name, Value]], is_same: Callable[[Name], bool], name: Name, values: Sequence[Value]
) -> Pairs[Name, Value]:
    """`fields` in which those whose name `is_same` have `values`: each in the place and under the name of one that was
    there, those that are left over at the end under `name`."""
    made: list[tuple[Name, Value]] = []
    used = 0
    for field in fields:
        if not is_same(field[0]):
            made.append(field)
        elif used < len(values):
            made.append((field[0], values[used]))
            used += 1
    made.extend([(name, value) for value in values[used:]])
    return tuple(made)


class FieldMapping(MutableMapping[K, V], Generic[K, V]):
    """What such mappings have in common. As a mapping, each name is there once, where it first stands."""

    __slots__ = ("_index", "_indexed")

    def __init__(self) -> None:
        # The values by folded name, and the pairs that they were taken from.
        self._index: dict[Hashable, tuple[K, list[V]]] = {}
        self._indexed: object = None

    @abstractmethod
    def _pairs(self) -> Pairs[K, V]:
        """The pairs as they are told; the same object until something is changed."""

    def _fold(self, name: K) -> Hashable:
        """What is equal for names that are the same."""
        return cast(Hashable, name)

    def _joined(self, values: list[V]) -> V:
        """What the name of several values is told to have."""
        return values[0]

    def _values(self) -> dict[Hashable, tuple[K, list[V]]]:
        pairs = self._pairs()
        if pairs is not self._indexed:
            index: dict[Hashable, tuple[K, list[V]]] = {}
            for name, value in pairs:
                folded = self._fold(name)
                if folded in index:
                    index[folded][1].append(value)
                else:
                    index[folded] = (name, [value])
            self._index, self._indexed = index, pairs
        return self._index

    def get_all(self, name: K) -> list[V]:
        """All values of `name`, in order; an empty list where there is none."""
        found = self._values().get(self._fold(name))
        return [] if found is None else list(found[1])

    @abstractmethod
    def set_all(self, name: K, values: Iterable[V]) -> None:
        """Give `name` these values and no others, in the places of those that it had."""

    @abstractmethod
    def insert(self, index: int, name: K, value: V) -> None:
        """Put a pair in front of the one at `index`."""

    def add(self, name: K, value: V) -> None:
        """Put a pair at the end, whether or not the name has a value already."""
        self.insert(len(self._pairs()), name, value)

    def __getitem__(self, name: K) -> V:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return self._joined(values)

    def get(self, name: K, default: Any = None) -> Any:
        """The value of `name`, or `default`."""
        values = self.get_all(name)
        return self._joined(values) if values else default

    def __setitem__(self, name: K, value: V) -> None:
        self.set_all(name, [value])

    def __delitem__(self, name: K) -> None:
        if name not in self:
            raise KeyError(name)
        self.set_all(name, [])

    def __contains__(self, name: object) -> bool:
        return bool(self.get_all(cast(K, name)))

    def __iter__(self) -> Iterator[K]:
        return iter([name for name, _ in self._values().values()])

    def __len__(self) -> int:
        return len(self._values())

    def keys(self, multi: bool = False) -> Any:
        """The names; with `multi`, one for each pair."""
        return [name for name, _ in self.items(multi)]

    def values(self, multi: bool = False) -> Any:
        """The values; with `multi`, those of each pair."""
        return [value for _, value in self.items(multi)]

    def items(self, multi: bool = False) -> Any:
        """The names with their values; with `multi`, all pairs."""
        if multi:
            return list(self._pairs())
        return [(name, self._joined(values)) for name, values in self._values().values()]

    def clear(self) -> None:
        """Take all pairs out."""
        for name in self.keys():
            del self[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldMapping) and self._pairs() == other._pairs()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}{list(self._pairs())!r}"


class _Plain(FieldMapping[K, V]):
    """A mapping whose pairs are told as they are kept, in `fields`."""

    __slots__ = ()

    @property
    @abstractmethod
    def fields(self) -> Pairs[K, V]:
        """The pairs, in order."""

    @fields.setter
    @abstractmethod
    def fields(self, fields: Iterable[tuple[K, V]]) -> None: ...

    def _pairs(self) -> Pairs[K, V]:
        return self.fields

    def set_all(self, name: K, values: Iterable[V]) -> None:
        folded = self._fold(name)
        self.fields = with_values(self.fields, lambda other: self._fold(other) == folded, name, list(values))

    def insert(self, index: int, name: K, value: V) -> None:
        fields = list(self.fields)
        fields.insert(index, (name, value))
        self.fields = tuple(fields)

    def clear(self) -> None:
        self.fields = ()

    def copy(self) -> MultiDict[K, V]:
        """The pairs as they are now, in a mapping of their own."""
        return MultiDict(self.fields)


class MultiDict(_Plain[K, V]):
    """A mapping made of pairs."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[K, V]] = ()) -> None:
        super().__init__()
        self._fields: Pairs[K, V] = _as_pairs(fields)

    @property
    def fields(self) -> Pairs[K, V]:
        """The pairs, in order."""
        return self._fields

    @fields.setter
    def fields(self, fields: Iterable[tuple[K, V]]) -> None:
        self._fields = _as_pairs(fields)

    def copy(self) -> MultiDict[K, V]:
        return type(self)(self._fields)


class MultiDictView(_Plain[K, V]):
    """A mapping whose pairs stand in a part of a message.

    `source` gives what they are read from, the same object as long as it is the same; `read` reads it; `write` puts
    pairs in their place.
    """

    __slots__ = ("_fields", "_read", "_source", "_source_read", "_write")

    def __init__(
        self,
        source: Callable[[], object],
        read: Callable[[], Iterable[tuple[K, V]]],
        write: Callable[[Pairs[K, V]], None],
    ) -> None:
        super().__init__()
        self._source, self._read, self._write = source, read, write
        self._source_read: object = _NOTHING
        self._fields: Pairs[K, V] = ()

    @property
    def fields(self) -> Pairs[K, V]:
        """The pairs, in order."""
        source = self._source()
        if source is not self._source_read:
            self._fields, self._source_read = tuple(self._read()), source
        return self._fields

    @fields.setter
    def fields(self, fields: Iterable[tuple[K, V]]) -> None:
        self._write(_as_pairs(fields))


_NOTHING = object()


def _as_pairs(fields: Iterable[tuple[K, V]]) -> Pairs[K, V]:
    return tuple([(name, value) for name, value in fields])


def pairs_of(given: Any) -> Pairs[Any, Any]:
    """The pairs of what a script assigns to a view: another such mapping, a plain one, or pairs."""
    if isinstance(given, FieldMapping):
        return given._pairs()
    if isinstance(given, Mapping):
        return tuple(given.items())
    return _as_pairs(given)
