"""Server-sent events, handed to a function one by one as they pass (HTML Living Standard, sections 9.2.5 and 9.2.6).

An event is a block of lines up to a blank one, with at least one `data` field: what a browser would dispatch. Blocks
without data, comments and blank lines pass by themselves: comments and blank lines outside of a block as they come,
byte by byte; a block when its blank line shows that there is no data in it. A last block with data and without its
blank line, which browsers drop, is handed over as well, for other clients read it.

Lines end with LF, CR or CRLF. A CR doesn't wait for its LF: the block is over, and an LF that comes then goes the way
of its CR. So that a body's cuts make no difference, such an LF is never part of what is asked about, but looked at when
the function has answered.

What the function leaves alone goes on byte for byte, whatever bytes these are. This isn't a client: it keeps no last id
and waits for no retry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from streamproxy.filters.chain import FilterError
from streamproxy.filters.records import ASK, LATE_LF, PASS, Part, RecordFilter

_LF: Final = 10
_CR: Final = 13
_COLON: Final = 58
# Enough of a line to see whether it is a data field.
_DATA: Final = b"data"
_HEAD: Final = 5
# A retry of more digits is ignored: Python refuses to read very many, and these are thirty million years.
_MOST_DIGITS: Final = 18
_DIGITS: Final = frozenset(b"0123456789")


class Event:
    """One event: what its lines say, which may be set. An event of your own is made by `Event("text", event="note")`.

    As long as nothing is set to anything else than it was, the event goes on as it came. Otherwise the lines of what
    was set are written anew, and its other lines stay as they were; all have the line end that the event had.
    """

    __slots__ = ("_data", "_end", "_ends", "_event", "_id", "_raw", "_retry", "_unread", "_was")

    def __init__(self, data: str = "", event: str = "", id: str | None = None, retry: int | None = None) -> None:
        # As it came, but for an LF behind the CR of the blank line; empty for one that was made here.
        self._raw = b""
        self._end = b"\n"
        # How many line ends stand behind the last line: 2, but for the last of a body.
        self._ends = 2
        self._unread = False
        self._data = _data(data) if data != "" else ""
        self._event = _one_line("type", event) if event != "" else ""
        self._id = _one_line("id", id) if id is not None else None
        self._retry = _time(retry)
        # Data, event, id and retry as they came; None for an event that was made here.
        self._was: tuple[str, str, str | None, int | None] | None = None

    def __repr__(self) -> str:
        shown = self.data if len(self.data) <= 80 else self.data[:80] + "..."
        return f"Event({shown!r}, event={self.event!r}, id={self.id!r}, retry={self.retry!r})"

    def __bytes__(self) -> bytes:
        """What goes on, as things are now."""
        return self.written(self._end) if self.changed else self.raw

    @property
    def raw(self) -> bytes:
        """The event as it came, with its line ends and its blank line; empty if it was made here.

        If its blank line ended with CR, that has an LF behind it here if the other lines have.
        """
        if self._ends == 2 and self._end == b"\r\n" and self._raw.endswith(b"\r"):
            return self._raw + b"\n"
        return self._raw

    @property
    def data(self) -> str:
        """Its `data` lines, joined by LF. Bytes that aren't UTF-8 read as U+FFFD. Any line ends may be set."""
        self._read()
        return self._data

    @data.setter
    def data(self, value: str) -> None:
        self._read()
        self._data = _data(value)

    @property
    def event(self) -> str:
        """Its type; "" if it has none. ValueError when set to a text with a line end or NUL."""
        self._read()
        return self._event

    @event.setter
    def event(self, value: str) -> None:
        self._read()
        self._event = _one_line("type", value)

    @property
    def id(self) -> str | None:
        """The id it sets; None if it has no such field. ValueError when set to a text with a line end or NUL."""
        self._read()
        return self._id

    @id.setter
    def id(self, value: str | None) -> None:
        self._read()
        self._id = None if value is None else _one_line("id", value)

    @property
    def retry(self) -> int | None:
        """The time, in milliseconds, that it tells clients to wait before they connect again; None if it doesn't."""
        self._read()
        return self._retry

    @retry.setter
    def retry(self, value: int | None) -> None:
        self._read()
        self._retry = _time(value)

    @property
    def changed(self) -> bool:
        """Whether it is other than it came."""
        return not self._unread and (self._data, self._event, self._id, self._retry) != self._was

    def json(self) -> Any:
        """Its data, read as JSON. ValueError if it isn't."""
        try:
            return json.loads(self.data)
        except RecursionError:
            raise ValueError("the event's data is nested too deeply") from None

    def written(self, end: bytes) -> bytes:
        """The event written anew, with `end` as its line end: lines that nothing was changed of as they came."""
        was = self._was
        anew: dict[bytes, list[bytes]] = {}
        if was is None or self._event != was[1]:
            anew[b"event"] = [b"event: " + self._event.encode()] if self._event else []
        if was is None or self._id != was[2]:
            anew[b"id"] = [] if self._id is None else [b"id: " + self._id.encode()]
        if was is None or self._retry != was[3]:
            anew[b"retry"] = [] if self._retry is None else [b"retry: %d" % self._retry]
        if was is None or self._data != was[0]:
            # With a space always: a client that isn't quite right may look for it.
            anew[b"data"] = [b"data: " + line for line in self._data.encode().split(b"\n")]
        old = _lines(self._raw)
        there = {line.partition(b":")[0] for line in old}
        lines: list[bytes] = []
        for name in list(anew):
            if name not in there:
                lines += anew.pop(name)
        for line in old:
            name = line.partition(b":")[0]
            if name not in anew:
                lines.append(line)
            else:
                lines += anew[name]
                anew[name] = []
        return end.join(lines) + end * self._ends

    def _missing(self) -> bytes:
        """The line ends to put behind it if it wasn't ended and something follows."""
        # An LF behind the CR of its last line would be part of that one's end.
        end = b"\r" if self._end == b"\n" and self._raw.endswith(b"\r") else self._end
        return end * (2 - self._ends)

    def _came(self, raw: bytes, end: bytes, ends: int) -> None:
        """It isn't made here but came so; what it says is read when somebody asks."""
        self._raw = raw
        self._end = end
        self._ends = ends
        self._unread = True

    def _read(self) -> None:
        """Read what came, as a browser does, once."""
        if not self._unread:
            return
        self._unread = False
        data: list[bytes] = []
        for line in _lines(self._raw):
            name, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                data.append(value)
            elif name == b"event":
                self._event = value.decode("utf-8", "replace")
            elif name == b"id":
                if b"\0" not in value:
                    self._id = value.decode("utf-8", "replace")
            elif name == b"retry":
                if value and _DIGITS.issuperset(value) and len(value) <= _MOST_DIGITS:
                    self._retry = int(value)
        self._data = b"\n".join(data).decode("utf-8", "replace")
        self._was = (self._data, self._event, self._id, self._retry)


def _lines(raw: bytes) -> list[bytes]:
    """The lines of an event, without their ends and without the blank one."""
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw.rstrip(b"\n").split(b"\n") if raw else []


def _data(value: str) -> str:
    """A text that can be an event's data: with LF alone. TypeError, or ValueError if it has no UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"an event's data is a str, not {type(value).__name__}")
    value.encode()
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _one_line(what: str, value: str) -> str:
    """A text that can be the value of a field. TypeError or ValueError otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"an event's {what} is a str, not {type(value).__name__}")
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"an event's {what} has no line ends and no NUL: {value!r}")
    value.encode()
    return value


def _time(value: int | None) -> int | None:
    """A number of milliseconds, or none. TypeError or ValueError otherwise."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"an event's retry is an int, not {type(value).__name__}")
    if value < 0 or value >= 10**_MOST_DIGITS:
        raise ValueError(f"an event's retry is a number of milliseconds: {value}")
    return value


class Events(RecordFilter):
    """A filter that hands each event to `ask` and sends on what it answers; see `RecordFilter`.

    Other events may be answered as an `Event`, as a str (the data of a new one) or as bytes, which go as they are.
    FilterError if a block comes to more than `most` bytes.
    """

    __slots__ = (
        "_after_asking",
        "_after_cr",
        "_end",
        "_ends",
        "_in_block",
        "_in_comment",
        "_line_head",
        "_line_size",
        "_with_data",
    )

    def __init__(self, ask: Callable[[Event], object], most: int) -> None:
        super().__init__(ask, most, "an events")
        # Where in the grammar the bytes that have come end: in a block, in a comment outside of one, or between these.
        self._in_block = False
        self._in_comment = False
        # Behind a CR; and whether that was the end of a block that was asked about.
        self._after_cr = False
        self._after_asking = False
        # How many line ends stand behind the last line of the block that is asked about.
        self._ends = 2
        # Of the block that is held: whether it has data; of its last line: how long it is so far, and its first bytes.
        self._with_data = False
        self._line_size = 0
        self._line_head = b""
        # The line end of the last event.
        self._end = b"\n"

    def abort(self, why: str) -> None:
        super().abort(why)
        self._line_head = b""

    def _cut(self, data: bytes) -> Iterator[Part]:
        size = len(data)
        at = mark = 0  # what is before `mark` has found its place
        # The next of each from `at` on: kept, so that a body without CR isn't searched for one again with each line.
        next_lf = next_cr = -1
        while at < size:
            if self._after_cr:
                self._after_cr = False
                if data[at] == _LF:
                    at += 1
                    if self._after_asking:
                        self._after_asking = False
                        yield LATE_LF, b"\n"
                        mark = at
                    continue
                self._after_asking = False
            if not self._in_block and not self._in_comment:
                first = data[at]
                if first in (_LF, _CR):
                    at += 1
                    self._after_cr = first == _CR
                    continue
                if first == _COLON:
                    self._in_comment = True
                else:
                    if mark < at:
                        yield PASS, data[mark:at]
                    mark = at
                    self._in_block = True
            if next_lf < at:
                next_lf = data.find(b"\n", at)
                if next_lf < 0:
                    next_lf = size
            if next_cr < at:
                next_cr = data.find(b"\r", at)
                if next_cr < 0:
                    next_cr = size
            end = next_lf if next_lf < next_cr else next_cr
            if end == size:
                if self._in_block:
                    self._to_line(data, at, end)
                break
            self._after_cr = end == next_cr
            if self._in_comment:
                self._in_comment = False
            elif end > at or self._line_size:
                self._to_line(data, at, end)
                self._end_line()
            else:
                yield self._close(data[mark : end + 1])
                mark = end + 1
            at = end + 1
        if not self._in_block:
            if mark < size:
                yield PASS, data[mark:]
        else:
            self._hold(data[mark:])

    def _hold(self, more: bytes) -> None:
        """More of a block."""
        if len(self._held) + len(more) > self._most:
            raise FilterError(f"an event is larger than {self._most} bytes")
        self._held += more

    def _to_line(self, data: bytes, at: int, end: int) -> None:
        """More of a block's line."""
        if self._line_size < _HEAD:
            self._line_head += data[at : min(end, at + _HEAD - self._line_size)]
        self._line_size += end - at

    def _end_line(self) -> None:
        """A block's line is whole."""
        if self._line_head.startswith(_DATA) and (self._line_size == len(_DATA) or self._line_head[4] == _COLON):
            self._with_data = True
        self._line_size = 0
        self._line_head = b""

    def _close(self, last: bytes) -> Part:
        """A block is over: `last` ends with the CR or LF of its blank line."""
        if self._held or len(last) > self._most:
            self._hold(last)
            last = bytes(self._held)
            self._held = bytearray()
        kind = ASK if self._with_data else PASS
        self._after_asking = self._with_data and self._after_cr
        self._in_block = False
        self._with_data = False
        return kind, last

    def _rest(self) -> Iterator[Part]:
        if not self._in_block:
            return
        self._ends = 1
        if self._line_size:
            self._ends = 0
            self._end_line()
        yield self._close(b"")

    def _record(self, raw: bytes) -> Event:
        lf = raw.find(b"\n")
        if lf >= 0:
            self._end = b"\r\n" if raw[lf - 1] == _CR else b"\n"
        elif b"\r" in raw:
            self._end = b"\r"
        event = Event()
        event._came(raw, self._end, self._ends)
        return event

    def _own(self, record: object) -> bytes:
        assert isinstance(record, Event)
        self._after = record._missing()
        self._late_lf_passes = False
        if record.changed:
            return record.written(record._end)
        raw = record._raw
        if record._ends == 2 and raw.endswith(b"\r"):
            # Its LF, if it has one, comes behind it by itself; where something is put before that, it is put here.
            self._late_lf_passes = True
            self._after = b"\n" if record._end == b"\r\n" else b""
        return raw

    def _other(self, item: object, record: object) -> bytes | None:
        assert isinstance(record, Event)
        if isinstance(item, bytes):
            return item
        if isinstance(item, str):
            return Event(item).written(record._end)
        if isinstance(item, Event):
            return (
                item.written(record._end) if item._was is None and not item._unread else bytes(item) + item._missing()
            )
        return None
