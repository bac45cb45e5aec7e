"""Newline-delimited JSON, handed to a function record by record as it passes.

A record is a line with anything but blanks in it; it ends with LF, or with CRLF, which it keeps. A last line without an
end is a record too. Blanks before a record, blank lines, and a byte order mark at the start pass by themselves as they
come: servers send them to keep a connection alive.

What the function leaves alone goes on byte for byte, JSON or not: numbers keep their form, and doubled keys stay.
Records in other forms, such as those that RFC 7464 sets off by a control character, aren't known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from streamproxy.filters.chain import FilterError
from streamproxy.filters.records import ASK, PASS, Part, RecordFilter

_BLANKS: Final = re.compile(rb"[ \t\r\n]*+")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} isn't JSON")


# NaN and Infinity aren't JSON. A number too large for a float is read as infinite: to be looked at, but not written.
_decode = json.JSONDecoder(parse_constant=_refuse).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_strictly = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_in_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Record:
    """One line. A record of your own is made by `Record(value)`.

    As long as `value` would be written as when it was read, the record goes on as it came. Otherwise it is written
    anew, without any blanks, with the line end that it had.
    """

    __slots__ = ("_end", "_known", "_raw", "_read_as", "_value")

    def __init__(self, value: object = None) -> None:
        # As it came, and the line end that was there; empty if it was made here.
        self._raw = b""
        self._end = b"\n"
        self._value = value
        # Whether `_value` counts; and what it would have been written as when it was read, if it was.
        self._known = True
        self._read_as: str | None = None

    def __repr__(self) -> str:
        text = self.text if self._raw else repr(self._value)
        return f"Record({text if len(text) <= 80 else text[:80] + '...'})"

    def __bytes__(self) -> bytes:
        """What goes on, as things are now. FilterError if its value can't be written as JSON."""
        return self.written(self._end) if self.changed else self._raw

    @property
    def raw(self) -> bytes:
        """The record as it came, from its first byte that isn't blank, with its line end; empty if it was made here."""
        return self._raw

    @property
    def text(self) -> str:
        """The record as it came, without its line end; bytes that aren't UTF-8 read as U+FFFD."""
        return self._raw[: len(self._raw) - len(self._end)].decode("utf-8", "replace")

    @property
    def value(self) -> Any:
        """The JSON value of the line; changes made inside it count. ValueError if the line isn't JSON in UTF-8."""
        self._read()
        return self._value

    @value.setter
    def value(self, value: object) -> None:
        try:
            self._read()
        except ValueError:
            self._known = True
        self._value = value

    @property
    def changed(self) -> bool:
        """Whether it is other than it came. FilterError if its value can't be written as JSON."""
        if not self._known:
            return False
        try:
            return _encode(self._value) != self._read_as
        except (TypeError, ValueError, RecursionError) as error:
            raise FilterError(f"a record can't be written as JSON: {error}") from error

    def written(self, end: bytes) -> bytes:
        """The value written as JSON, with `end` as its line end. FilterError if it can't be."""
        try:
            try:
                return _encode_strictly(self._value).encode() + end
            except UnicodeEncodeError:
                # Half of a surrogate pair, which JSON can only say by an escape.
                return _encode_in_ascii(self._value).encode() + end
        except (TypeError, ValueError, RecursionError) as error:
            raise FilterError(f"a record can't be written as JSON: {error}") from error

    def _came(self, raw: bytes, end: bytes) -> None:
        """It isn't made here but came so; its value is read when somebody asks."""
        self._raw = raw
        self._end = end
        self._known = False

    def _read(self) -> None:
        if self._known:
            return
        try:
            value: object = _decode(self._raw.decode())
            self._read_as = _encode(value)
        except RecursionError:
            raise ValueError("the record is nested too deeply") from None
        self._value = value
        self._known = True


class Lines(RecordFilter):
    """A filter that hands each record to `ask` and sends on what it answers; see `RecordFilter`.

    Other records may be answered as a `Record`, as a dict (the value of a new one) or as bytes: a line as it is, to
    which a line end is added if it has none. FilterError if a line comes to more than `most` bytes.
    """

    __slots__ = ("_end",)

    def __init__(self, ask: Callable[[Record], object], most: int) -> None:
        super().__init__(ask, most, "a lines")
        # The line end of the last record that had one.
        self._end = b"\n"

    def _cut(self, data: bytes) -> Iterator[Part]:
        size = len(data)
        at = mark = 0  # what is before `mark` has found its place
        while at < size:
            held = len(self._held)
            if not held:
                blanks = _BLANKS.match(data, at)
                assert blanks is not None
                at = blanks.end()
                if mark < at:
                    yield PASS, data[mark:at]
                    mark = at
                if at == size:
                    break
            end = data.find(b"\n", at) + 1
            if held + (end or size) - at > self._most:
                raise FilterError(f"a record is larger than {self._most} bytes")
            if not end:
                self._held += data[at:]
                break
            line = data[at:end]
            if held:
                self._held += line
                line = bytes(self._held)
                self._held = bytearray()
            yield ASK, line
            at = mark = end

    def _rest(self) -> Iterator[Part]:
        if self._held:
            line = bytes(self._held)
            self._held = bytearray()
            yield ASK, line

    def _record(self, raw: bytes) -> Record:
        end = b"\r\n" if raw.endswith(b"\r\n") else b"\n" if raw.endswith(b"\n") else b""
        if end:
            self._end = end
        record = Record()
        record._came(raw, end)
        return record

    def _own(self, record: object) -> bytes:
        assert isinstance(record, Record)
        self._after = b"" if record._end else self._end
        return bytes(record)

    def _other(self, item: object, record: object) -> bytes | None:
        if isinstance(item, Record):
            if not item._raw:
                return item.written(self._end)
            return bytes(item) if item._end else bytes(item) + self._end
        if isinstance(item, bytes):
            return item if not item or item.endswith(b"\n") else item + self._end
        if isinstance(item, dict):
            return Record(item).written(self._end)
        return None
