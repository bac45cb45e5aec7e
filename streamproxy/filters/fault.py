"""Makes one body go wrong on purpose, behind so many of its bytes, chunks or events.

It sees the events of a body as they go to the writer of the wire, for a fault in the framing is one of the wire.
Whether a body is to be struck at all is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from streamproxy.filters.chain import FilterError, Pause
from streamproxy.filters.tap import Seeing, show
from streamproxy.wire.chunked import BodyWriter, ChunksKept
from streamproxy.wire.message import BodyEvent, Chunk, ChunkEnd, End

_LINE_END = re.compile(rb"\r\n|\n|\r")
# A data field, by the beginning of its line; a byte order mark may stand before the first line of all.
_DATA = re.compile(rb"data(?::|\Z)")
_FIRST_DATA = re.compile(rb"(?:\xef\xbb\xbf)?data(?::|\Z)")
# So much of a line is enough for both.
_LINE_HEAD: Final = 8
_CR: Final = 13
# What turns a hexadecimal digit into something else.
_FLIP: Final = 0x40


class Struck(FilterError):
    """The body ends here, by a rule's fault: by a reset, or as if its sender had gone."""

    def __init__(self, why: str, reset: bool) -> None:
        super().__init__(why)
        self.reset = reset


class EventCount:
    """Finds where server-sent events end, however the bytes are cut: at a blank line, if a line before it has data.

    The LF of a CR is part of the event. So where the bytes end with that CR, the end is `due`, and found in the next.
    """

    __slots__ = ("_after_cr", "_data", "_line", "_with_data", "due")

    def __init__(self) -> None:
        self._after_cr = False
        self._data = _FIRST_DATA
        # What has come on the line, as far as it is of interest; one of the lines since the last blank one has data.
        self._line = b""
        self._with_data = False
        self.due = False

    def ends(self, data: bytes) -> Iterator[int]:
        """The places behind the events that end in `data` (some bytes); 0 for one that was due and has no LF."""
        at = 1 if self._after_cr and data.startswith(b"\n") else 0
        if self.due:
            self.due = False
            yield at
        for found in _LINE_END.finditer(data, at):
            self._line += data[at : min(found.start(), at + _LINE_HEAD - len(self._line))]
            at = found.end()
            if self._line:
                self._with_data = self._with_data or self._data.match(self._line) is not None
                self._line = b""
            elif self._with_data:
                self._with_data = False
                if at == len(data) and data[-1] == _CR:
                    self.due = True
                else:
                    yield at
            self._data = _DATA
        self._line += data[at : at + _LINE_HEAD - len(self._line)]
        self._after_cr = data.endswith(b"\r")


class Fault:
    """Strikes behind `after` of `unit` ("bytes", "chunks", "events"); `action` is "stall", "cut", "reset" or "corrupt".

    Bytes are those of the content as it goes on; chunks those of the wire that it came on; without chunks, what is
    written at once is one. `why` names the rule, in words. A body that has fewer isn't struck.
    """

    __slots__ = (
        "_action",
        "_after",
        "_corrupted",
        "_count",
        "_events",
        "_has_chunks",
        "_struck",
        "_unit",
        "_why",
        "sent",
    )

    def __init__(self, after: int, unit: str, action: str, why: str) -> None:
        self._after = after
        self._unit = unit
        self._action = action
        self._why = why
        self._count = 0
        self._events = EventCount()
        # A body with chunks begins with one, though not each read of it does.
        self._has_chunks = False
        self._struck = False
        self._corrupted = False
        self.sent: Seeing | None = None

    def strike_now(self) -> None:
        """Whatever was counted, it strikes at what comes next."""
        self._struck = True

    def strike(self, batches: Iterator[list[BodyEvent] | Pause], writer: BodyWriter) -> Iterator[bytes | Pause]:
        """What `writer` makes of `batches`, until it goes wrong: then raises `Struck`, or never goes on.

        May be called again, with the batches behind those.
        """
        for events in batches:
            if isinstance(events, Pause):
                yield events
                continue
            behind: list[BodyEvent] = events
            if not self._struck:
                before, behind = self._split(events)
                if before:
                    yield self._written(writer, before)
                if not self._struck:
                    continue
            if self._action == "stall":
                yield Pause(self._why)
                return
            if self._action != "corrupt":
                raise Struck(self._why, self._action == "reset")
            yield self._written(writer, behind) if self._corrupted else self._corrupt(behind, writer)

    def _written(self, writer: BodyWriter, events: list[BodyEvent]) -> bytes:
        if self.sent is not None:
            show(events, self.sent)
        return writer.encode(events)

    def _corrupt(self, events: list[BodyEvent], writer: BodyWriter) -> bytes:
        """What `writer` makes of `events`, with one byte garbled: of the framing, or of the content if it has none."""
        sound = 0
        if isinstance(writer, ChunksKept):
            # The rest of a chunk's bytes: garbled they would be a chunk all the same.
            while sound < len(events) and type(events[sound]) is bytes:
                sound += 1
        data = self._written(writer, events[sound:])
        if data:
            self._corrupted = True
            data = bytes([data[0] ^ _FLIP]) + data[1:]
        return self._written(writer, events[:sound]) + data

    def _split(self, events: list[BodyEvent]) -> tuple[list[BodyEvent], list[BodyEvent]]:
        """What of `events` comes before the fault, and what behind it."""
        if self._after == 0:
            self._struck = True
            return [], events
        for number, event in enumerate(events):
            if type(event) is bytes:
                at = self._place(event)
                if at >= 0:
                    self._struck = True
                    before: list[BodyEvent] = [event[:at]] if at else []
                    behind: list[BodyEvent] = [event[at:]] if at < len(event) else []
                    return [*events[:number], *before], [*behind, *events[number + 1 :]]
            elif type(event) is Chunk:
                self._has_chunks = True
            elif type(event) is ChunkEnd:
                if self._unit == "chunks" and self._is_last():
                    return events[: number + 1], events[number + 1 :]
            elif type(event) is End and self._events.due and self._is_last():
                return events[:number], events[number:]
        return events, []

    def _is_last(self) -> bool:
        """Count one more; whether it strikes behind that."""
        self._count += 1
        self._struck = self._count >= self._after
        return self._struck

    def _place(self, data: bytes) -> int:
        """Where in `data` it strikes; -1 if nowhere."""
        if self._unit == "bytes":
            before, self._count = self._count, self._count + len(data)
            return self._after - before if self._count >= self._after else -1
        if self._unit == "events":
            for end in self._events.ends(data):
                if self._is_last():
                    return end
        elif not self._has_chunks and self._is_last():
            return len(data)
        return -1


class EventFault:
    """A filter that makes the content behind its first `after` events go wrong, as `Fault` does; for coded bodies.

    To be put where the content is decoded. A corrupt one is left to `wire`, a `Fault`, which garbles what comes next.
    """

    __slots__ = ("_action", "_after", "_count", "_events", "_stalled", "_why", "_wire")

    def __init__(self, after: int, action: str, why: str, wire: Fault) -> None:
        self._after = after
        self._action = action
        self._why = why
        self._wire = wire
        self._count = 0
        self._events = EventCount()
        self._stalled = False

    def feed(self, data: bytes) -> Iterator[bytes | Pause]:
        at = 0
        if self._count < self._after:
            for end in self._events.ends(data):
                self._count += 1
                at = end
                if self._count >= self._after:
                    break
            else:
                yield data
                return
            yield data[:at]
            yield from self._strike()
        elif self._after == 0 and not self._stalled:
            self._after = -1
            yield from self._strike()
        if not self._stalled and at < len(data):
            yield data[at:]

    def _strike(self) -> Iterator[Pause]:
        if self._action == "corrupt":
            self._wire.strike_now()
            return
        self._stalled = True
        if self._action != "stall":
            raise Struck(self._why, self._action == "reset")
        yield Pause(self._why)

    def finish(self) -> Iterator[bytes | Pause]:
        if self._events.due and self._count + 1 == self._after:
            yield from self._strike()

    def abort(self, why: str) -> None:
        pass
