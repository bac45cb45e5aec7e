"""HTTP/1.1 and 1.0 messages (RFC 9112): readers that turn bytes into events, and heads turned into bytes.

A reader is fed whatever a read brought and gives events: a head, then the body's events up to `End`. It stops
there, whatever else it was fed, until `next_message` is called: how much is read ahead is for the one who feeds it
to decide (`waiting` tells that bytes are left). It also stops after about `MOST_EVENTS` of one call, so that a body
cut very fine can't keep a turn to itself.

What breaks the grammar raises `WireError`, once. What the same feed had brought before it is dropped with it, and
nothing is given after it: the reader is over. There is no leniency: lines end with CRLF, names are tokens, values
have no control bytes, and nothing is folded.

The time that reading takes grows with the number of bytes and no faster, whatever they are. So patterns have
possessive quantifiers and start at the start of a line, and bytes that wait for the rest aren't copied for each
piece that comes.

Upgrades past HTTP/1.1 and meanings of fields other than framing aren't known here.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from streamproxy.wire.chunked import ChunkedReader
from streamproxy.wire.fields import BARE_LF, TOKEN, read_fields
from streamproxy.wire.framing import check_tabs, request_framing, response_framing
from streamproxy.wire.message import (
    CHUNKED,
    END,
    NO_BODY,
    End,
    Event,
    Framing,
    Kind,
    RequestHead,
    ResponseHead,
    Switched,
    WireError,
)

# What a reader is reading.
_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKS: Final = 2
_TRAILERS: Final = 3
_UNTIL_CLOSE: Final = 4

# Events of one feed. A 64 KiB read has a handful, unless it's made of chunks of a few bytes.
MOST_EVENTS = 512
MOST_EMPTY_LINES = 4
# RFC 9112 section 3 asks for 8000 at the least.
LONGEST_TARGET = 16384

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t \x21-\x7e\x80-\xff]*+))?+\r\n")
# What the first bytes of a request can be, as long as its line isn't whole.
_EARLY = 32
_REQUEST_BEGINS = re.compile(TOKEN + rb"(?: (?:[\x21-\x7e]++(?: [HTP/0-9.]*+\r?+)?+)?+)?+")

# What is left out of a trailer section, for it would say how a message is routed or read after the fact
# (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset(
    b"connection host trailer te upgrade keep-alive proxy-connection"
    b" proxy-authorization authorization content-encoding content-type content-range expect max-forwards".split()
)


class HeadLimits(NamedTuple):
    """What a message's head and trailers may come to: `head` and `trailers` in bytes, `fields` in lines."""

    head: int = 65536
    fields: int = 200
    trailers: int = 16384


class _MessageReader:
    """What requests and responses have in common: the buffer, the body and its trailers."""

    # The status of every error, where it isn't the error's own.
    _blamed: int | None = None
    _not_http: str

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        # What waits from `_position` on; a bytearray while it grows, in a section or between messages.
        self._buffer: bytes | bytearray = b""
        self._position = 0
        # Bytes of an unfinished section that were searched for its end, and whether its first line is whole.
        self._scanned = 0
        self._line_seen = False
        self._left = 0
        self._chunks: ChunkedReader | None = None
        # What is being read now.
        self._state = _HEAD
        self._between = True
        self._stopped = False
        # No message can come any more: an error was raised, or the connection is no longer HTTP/1.
        self._over = False
        # Empty lines before the message to come.
        self._empty_lines = 0
        # The bytes of all that was given, over all messages.
        self.consumed = 0
        # The last feed stopped for its many events: feed again, with nothing, in a turn to come.
        self.more = False
        # `End` was given, so that nothing more is until `next_message`.
        self.ended = False

    @property
    def waiting(self) -> int:
        """How many fed bytes haven't been given as events."""
        return len(self._buffer) - self._position

    @property
    def between(self) -> bool:
        """Whether no byte of the message to come has been seen."""
        return self._between and not self._stopped

    def feed(self, data: bytes) -> list[Event]:
        """Take `data` (which may be empty, to go on with what waits) and give the events it completes."""
        if self._position == len(self._buffer):
            self._buffer = data
            self._position = 0
        elif data:
            self._add(data)
        events: list[Event] = []
        if self._stopped:
            if self._over:
                self._buffer = b""
            return events
        began = self._position
        try:
            while not self._stopped and len(events) < MOST_EVENTS and self._read(events):
                pass
        except WireError as error:
            self._end_for_good()
            if self._blamed is not None:
                error.status = self._blamed
            raise
        position = self._position
        self.consumed += position - began
        if position == len(self._buffer):
            # An idle connection holds no bytes.
            self._buffer = b""
            self._position = 0
            self.more = False
        else:
            self.more = len(events) >= MOST_EVENTS and not self._stopped
        return events

    def _add(self, data: bytes) -> None:
        """Put `data` behind what waits."""
        if not isinstance(self._buffer, bytearray):
            waiting = self._buffer[self._position :]
            self._position = 0
            if not (self._scanned or self._stopped):
                self._buffer = waiting + data
                return
            self._buffer = bytearray(waiting)
        self._buffer += data

    def next_message(self) -> None:
        """Make ready for the next message, after `End` was given."""
        assert self._stopped or self._between, "the message under way has not ended"
        if self._over:
            return
        self.ended = False
        self._stopped = False
        self._between = True
        self._scanned = 0
        self._empty_lines = 0
        self._state = _HEAD

    def take_waiting(self) -> bytes:
        """The bytes that wait, for another layer to read: this reader is over."""
        rest = bytes(self._buffer[self._position :])
        self.consumed += len(rest)
        self._end_for_good()
        return rest

    def _end_for_good(self) -> None:
        self._over = True
        self._stopped = True
        self.more = False
        self._buffer = b""
        self._position = 0

    def _first_line(self, buffer: bytes | bytearray, start: int) -> re.Match[bytes]:
        raise AssertionError("given by the subclasses")

    def _may_begin(self, first: bytes) -> bool:
        raise AssertionError("given by the subclasses")

    def _read_head(self, events: list[Event]) -> bool:
        raise AssertionError("given by the subclasses")

    def _read(self, events: list[Event]) -> bool:
        # Not by a bound method that is kept: a reader that refers to itself would outlive its connection.
        state = self._state
        if state == _HEAD:
            return self._read_head(events)
        if state == _LENGTH:
            return self._read_length(events)
        if state == _CHUNKS:
            return self._read_chunks(events)
        if state == _TRAILERS:
            return self._read_trailers(events)
        return self._read_until_close(events)

    # Each _read_... method takes what it can from the buffer, and returns whether another can go on at once.

    def _take_section(self, limit: int, too_long: str) -> bytes | None:
        """The bytes up to the empty line and with it, once they are all there."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n\r\n", max(start, start + self._scanned - 3))
        if end < 0:
            size = len(buffer) - start
            if BARE_LF.search(buffer, start + self._scanned):
                raise WireError("a line that ends with a bare LF")
            if size > limit:
                raise WireError(too_long, 431)
            self._scanned = size
            return None
        if end + 4 - start > limit:
            raise WireError(too_long, 431)
        self._scanned = 0
        self._line_seen = False
        self._position = end + 4
        if isinstance(buffer, bytearray):
            buffer = self._buffer = bytes(buffer)
        return buffer[start : end + 4]

    def _look_early(self, before: int) -> None:
        """Refuse a first line that can't become right without waiting for the head's end, which may never come.

        `before`: how much of the head had been looked at before.
        """
        if self._line_seen:
            return
        buffer, start = self._buffer, self._position
        if buffer.find(b"\n", start + before) >= 0:
            self._line_seen = True
            self._first_line(buffer, start)
        elif before < _EARLY and not self._may_begin(bytes(buffer[start : start + _EARLY])):
            raise WireError(self._not_http)

    def _begin_body(self, framing: Framing, events: list[Event]) -> bool:
        kind = framing.kind
        if kind is Kind.NONE or framing.length == 0:
            return self._finish(events, END)
        if kind is Kind.LENGTH:
            self._left = framing.length or 0
            self._state = _LENGTH
        elif kind is Kind.CHUNKED:
            self._chunks = ChunkedReader()
            self._state = _CHUNKS
        else:
            self._state = _UNTIL_CLOSE
        return self._position < len(self._buffer)

    def _finish(self, events: list[Event], end: End) -> bool:
        events.append(end)
        self._stopped = True
        self.ended = True
        return False

    def _read_length(self, events: list[Event]) -> bool:
        buffer, position = self._buffer, self._position
        if not position and len(buffer) <= self._left:
            data = bytes(buffer)
        else:
            data = bytes(buffer[position : position + self._left])
        if data:
            self._position = position + len(data)
            self._left -= len(data)
            events.append(data)
        if self._left:
            return False
        return self._finish(events, END)

    def _read_chunks(self, events: list[Event]) -> bool:
        chunks = self._chunks
        assert chunks is not None
        self._position = chunks.read(bytes(self._buffer), self._position, events, MOST_EVENTS)  # type: ignore[arg-type]
        if chunks.trailers_next:
            self._state = _TRAILERS
            return True
        return False

    def _read_trailers(self, events: list[Event]) -> bool:
        if self._buffer.startswith(b"\r\n", self._position):
            self._position += 2
            return self._finish(events, END)
        section = self._take_section(self._limits.trailers, "trailers are too large")
        if section is None:
            return False
        trailers = read_fields(section, 0, self._limits.fields)
        if b"content-length" in trailers or b"transfer-encoding" in trailers:
            raise WireError("a framing field in the trailers")
        return self._finish(events, End(trailers.without(_NOT_IN_TRAILERS)))

    def _read_until_close(self, events: list[Event]) -> bool:
        data = bytes(self._buffer[self._position :])
        if data:
            self._position = len(self._buffer)
            events.append(data)
        return False


class RequestReader(_MessageReader):
    """Reads what a client sends."""

    _not_http = "this is not an HTTP request"

    def _read_head(self, events: list[Event]) -> bool:
        if not self._scanned and self._buffer.startswith(b"\r", self._position):
            # An empty line before a request is ignored (RFC 9112 section 2.2).
            if self.waiting == 1:
                return False
            self._empty_lines += 1
            if self._buffer.startswith(b"\r\n", self._position) and self._empty_lines <= MOST_EMPTY_LINES:
                self._position += 2
                return True
            raise WireError(self._not_http)
        if self._position == len(self._buffer):
            return False
        self._between = False
        limit = self._limits.head
        before = self._scanned
        try:
            section = self._take_section(limit, "the head is too large")
        except WireError as error:
            if error.status == 431 and self._buffer.find(b"\r\n", self._position, self._position + limit) < 0:
                raise WireError("the request line is too long", 414) from None
            raise
        if section is None:
            self._look_early(before)
            return False
        line = self._first_line(section, 0)
        method, target, _major, minor = line.groups()
        version = (1, 0) if minor == b"0" else (1, 1)
        headers = read_fields(section, line.end(), self._limits.fields)
        hosts = headers.count(b"host")
        if hosts > 1:
            raise WireError("several Host fields")
        if not hosts and version == (1, 1):
            raise WireError("no Host field in an HTTP/1.1 request")
        framing = request_framing(version, headers)
        if method == b"CONNECT" and framing is not NO_BODY:
            # The bytes behind it are either a body or the tunnel's first (RFC 9110 section 9.3.6).
            raise WireError("a CONNECT request with a body")
        if framing is CHUNKED and b"\t" in section:
            check_tabs(section)
        events.append(RequestHead(method, target, version, headers, framing))
        return self._begin_body(framing, events)

    def _first_line(self, buffer: bytes | bytearray, start: int) -> re.Match[bytes]:
        line = _REQUEST_LINE.match(buffer, start)
        if line is None:
            raise WireError("the request line is malformed")
        if line[3] != b"1":
            raise WireError("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
        if len(line[2]) > LONGEST_TARGET:
            raise WireError("the request target is too long", 414)
        return line

    def _may_begin(self, first: bytes) -> bool:
        return _REQUEST_BEGINS.fullmatch(first) is not None


class ResponseReader(_MessageReader):
    """Reads what an origin sends in answer to the requests told with `expect`."""

    _blamed: int | None = 502
    _not_http = "the origin's answer is not HTTP/1"

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(limits)
        self._method = b"GET"

    def expect(self, method: bytes) -> None:
        """A response to a `method` request comes next."""
        self._method = method
        self.next_message()

    def eof(self) -> list[Event]:
        """The origin has ended its side: the events that this completes.

        Raises `WireError` when it ended inside a message.
        """
        events: list[Event] = []
        while self.more:
            events += self.feed(b"")
        if self._stopped:
            return events
        if self._state == _UNTIL_CLOSE:
            self._finish(events, END)
            return events
        between = self._between
        self._end_for_good()
        if between:
            raise WireError("the origin closed the connection without a response", 502)
        raise WireError("the origin closed the connection inside its response", 502)

    def _read_head(self, events: list[Event]) -> bool:
        if self._position == len(self._buffer):
            return False
        self._between = False
        before = self._scanned
        section = self._take_section(self._limits.head, "the head is too large")
        if section is None:
            self._look_early(before)
            return False
        line = self._first_line(section, 0)
        _major, minor, code, reason = line.groups()
        version = (1, 0) if minor == b"0" else (1, 1)
        status = int(code)
        headers = read_fields(section, line.end(), self._limits.fields)
        framing = response_framing(self._method, status, version, headers)
        if framing is CHUNKED and b"\t" in section:
            check_tabs(section)
        events.append(ResponseHead(version, status, reason or b"", headers, framing))
        if status == 101:
            rest = bytes(self._buffer[self._position :])
            self._position = len(self._buffer)
            self._stopped = self._over = True
            events.append(Switched(rest))
            return False
        if status < 200:
            self._between = True
            return True
        return self._begin_body(framing, events)

    def _first_line(self, buffer: bytes | bytearray, start: int) -> re.Match[bytes]:
        line = _STATUS_LINE.match(buffer, start)
        if line is None:
            if buffer.startswith(b"HTTP/", start):
                raise WireError("the status line is malformed")
            raise WireError(self._not_http)
        if line[1] != b"1":
            raise WireError("the origin speaks another version of HTTP")
        return line

    def _may_begin(self, first: bytes) -> bool:
        return b"HTTP/".startswith(first[:5])
