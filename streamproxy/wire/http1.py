"""HTTP/1.1 and 1.0 messages (RFC 9112): readers that turn bytes into events, and heads turned into bytes.

A reader is fed whatever a read brought and gives events: a head, then the body's events up to `End`. It stops there,
whatever else it was fed, until `next_message` is called: how much is read ahead is for the one who feeds it to
decide (`waiting` tells that bytes are left). It also stops after `MOST_EVENTS` of one call, so that a body cut very
fine can't keep a turn to itself.

What breaks the grammar raises `WireError`, once; nothing of that message is given after it. There is no leniency:
lines end with CRLF, names are tokens, values have no control bytes, and nothing is folded.

Upgrades past HTTP/1.1 and meanings of fields other than framing aren't known here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from streamproxy.wire.chunked import ChunkedReader
from streamproxy.wire.framing import request_framing, response_framing
from streamproxy.wire.headers import Field, Headers
from streamproxy.wire.message import (
    END,
    End,
    Event,
    Framing,
    Kind,
    RequestHead,
    ResponseHead,
    Switched,
    WireError,
)

# Events of one feed. A 64 KiB read has a handful, unless it's made of chunks of a few bytes.
MOST_EVENTS = 512
MOST_EMPTY_LINES = 4

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t \x21-\x7e\x80-\xff]*+))?+\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_BARE_CR = re.compile(rb"\r(?!\n|\Z)")

# What a trailer section may not hold, for it would say how a message is framed or routed after the fact
# (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset(
    [b"content-length", b"transfer-encoding", b"connection", b"host", b"trailer", b"te", b"upgrade", b"keep-alive"]
    + [b"proxy-connection", b"proxy-authorization", b"authorization", b"content-encoding", b"content-type"]
    + [b"content-range", b"expect", b"max-forwards"]
)


class HeadLimits(NamedTuple):
    """What a message's head and trailers may come to: `head` and `trailers` in bytes, `fields` in lines."""

    head: int = 65536
    fields: int = 200
    trailers: int = 16384


class _MessageReader:
    """What requests and responses have in common: the buffer, the body and its trailers."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = b""
        self._position = 0
        self._scanned = 0
        self._left = 0
        self._chunks: ChunkedReader | None = None
        # The bound method for what is being read now; None between messages, and once an error was raised.
        self._reading = self._read_head
        self._between = True
        self._stopped = False
        # Empty lines before the message to come.
        self._empty_lines = 0
        # Bytes taken so far, over all messages.
        self.consumed = 0
        # The last feed stopped for its many events: feed again, with nothing, in a turn to come.
        self.more = False

    @property
    def waiting(self) -> int:
        """How many fed bytes haven't been given as events."""
        return len(self._buffer) - self._position

    @property
    def ended(self) -> bool:
        """Whether `End` was given, so that nothing more is until `next_message`."""
        return self._stopped

    @property
    def between(self) -> bool:
        """Whether no byte of the message to come has been seen."""
        return self._between and not self._stopped

    def feed(self, data: bytes) -> list[Event]:
        """Take `data` (which may be empty, to go on with what waits) and give the events it completes."""
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0
        events: list[Event] = []
        if self._stopped:
            return events
        try:
            while not self._stopped and len(events) < MOST_EVENTS and self._reading(events):
                pass
        except WireError:
            self._stopped = True
            raise
        finally:
            self.consumed += self._position
            self.more = len(events) >= MOST_EVENTS and not self._stopped and self.waiting > 0
        return events

    def next_message(self) -> None:
        """Make ready for the next message, after `End` was given."""
        self._stopped = False
        self._between = True
        self._scanned = 0
        self._empty_lines = 0
        self._reading = self._read_head

    def _read_head(self, events: list[Event]) -> bool:
        raise AssertionError("given by the subclasses")

    # Each _read_... method takes what it can from the buffer, and returns whether another can go on at once.

    def _take_section(self, limit: int, too_long: str) -> bytes | None:
        """The bytes up to the empty line and with it, once they are all there."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n\r\n", max(start, start + self._scanned - 3))
        if end < 0:
            size = len(buffer) - start
            scan_from = max(start, start + self._scanned - 1)
            if _BARE_LF.search(buffer, scan_from):
                raise WireError("a line that ends with a bare LF")
            if size > limit:
                raise WireError(too_long, 431)
            self._scanned = size
            return None
        self._scanned = 0
        if end + 4 - start > limit:
            raise WireError(too_long, 431)
        self._position = end + 4
        return buffer[start : end + 4]

    def _fields(self, section: bytes, start: int) -> Headers:
        """The field lines from `start` to the section's empty line."""
        found = _FIELD.findall(section, start)
        if len(found) > self._limits.fields:
            raise WireError("too many fields", 431)
        taken = 3 * len(found) + 2
        for name, value in found:
            taken += len(name) + len(value)
        if taken != len(section) - start:
            raise WireError(_what_is_wrong(section, start))
        return Headers([(name, value.strip(b" \t")) for name, value in found])

    def _begin_body(self, framing: Framing, events: list[Event]) -> bool:
        kind = framing.kind
        if kind is Kind.NONE or framing.length == 0:
            return self._finish(events, END)
        if kind is Kind.LENGTH:
            self._left = framing.length or 0
            self._reading = self._read_length
        elif kind is Kind.CHUNKED:
            self._chunks = ChunkedReader()
            self._reading = self._read_chunks
        else:
            self._reading = self._read_until_close
        return self._position < len(self._buffer)

    def _finish(self, events: list[Event], end: End) -> bool:
        events.append(end)
        self._stopped = True
        return False

    def _read_length(self, events: list[Event]) -> bool:
        buffer, position = self._buffer, self._position
        if not position and len(buffer) <= self._left:
            data = buffer
        else:
            data = buffer[position : position + self._left]
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
        self._position = chunks.read(self._buffer, self._position, events, MOST_EVENTS)  # type: ignore[arg-type]
        if chunks.trailers_next:
            self._reading = self._read_trailers
            self._scanned = 0
            return True
        return False

    def _read_trailers(self, events: list[Event]) -> bool:
        if self._buffer.startswith(b"\r\n", self._position):
            self._position += 2
            return self._finish(events, END)
        section = self._take_section(self._limits.trailers, "trailers are too large")
        if section is None:
            return False
        trailers = self._fields(section, 0)
        return self._finish(events, End(trailers.without(_NOT_IN_TRAILERS)))

    def _read_until_close(self, events: list[Event]) -> bool:
        data = self._buffer[self._position :]
        if data:
            self._position = len(self._buffer)
            events.append(data)
        return False


class RequestReader(_MessageReader):
    """Reads what a client sends."""

    def _read_head(self, events: list[Event]) -> bool:
        if not self._scanned and self._buffer.startswith(b"\r", self._position):
            # An empty line before a request is ignored (RFC 9112 section 2.2).
            if self.waiting == 1:
                return False
            self._empty_lines += 1
            if self._buffer.startswith(b"\r\n", self._position) and self._empty_lines <= MOST_EMPTY_LINES:
                self._position += 2
                return True
            raise WireError("this is not an HTTP request")
        if self._position == len(self._buffer):
            return False
        self._between = False
        limit = self._limits.head
        try:
            section = self._take_section(limit, "the head is too large")
        except WireError as error:
            if error.status == 431 and self._buffer.find(b"\r\n", self._position, self._position + limit) < 0:
                raise WireError("the request line is too long", 414) from None
            raise
        if section is None:
            self._reject_early()
            return False
        line = _REQUEST_LINE.match(section)
        if line is None:
            raise WireError("the request line is malformed")
        method, target, major, minor = line.groups()
        if major != b"1":
            raise WireError("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
        version = (1, 0) if minor == b"0" else (1, 1)
        headers = self._fields(section, line.end())
        hosts = headers.lines(b"host")
        if len(hosts) > 1:
            raise WireError("several Host fields")
        if not hosts and version == (1, 1):
            raise WireError("no Host field in an HTTP/1.1 request")
        head = RequestHead(method, target, version, headers, request_framing(version, headers))
        events.append(head)
        return self._begin_body(head.framing, events)

    def _reject_early(self) -> None:
        """Refuse what is certainly no request before its end is waited for, which may never come."""
        first = self._buffer[self._position : self._position + 32]
        word = first.split(b" ", 1)[0]
        if word and not re.fullmatch(_TOKEN + rb"\r?", word):
            raise WireError("this is not an HTTP request")


class ResponseReader(_MessageReader):
    """Reads what an origin sends in answer to the requests told with `expect`."""

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(limits)
        self._method = b"GET"
        self._until_close = False

    def expect(self, method: bytes) -> None:
        """A response to a `method` request comes next."""
        self._method = method
        self.next_message()

    def eof(self) -> list[Event]:
        """The origin has ended its side: the events that this completes.

        Raises `WireError` when it ended inside a message.
        """
        if self._stopped:
            return []
        # The bound method is made anew at each look-up, so compare by equality.
        if self._reading == self._read_until_close:
            self._stopped = True
            return [END]
        self._stopped = True
        if self._between:
            raise WireError("the origin closed the connection without a response", 502)
        raise WireError("the origin closed the connection inside its response", 502)

    def _read_head(self, events: list[Event]) -> bool:
        if self._position == len(self._buffer):
            return False
        self._between = False
        if not b"HTTP/".startswith(self._buffer[self._position : self._position + 5]):
            raise WireError("the origin's answer is not HTTP/1", 502)
        section = self._take_section(self._limits.head, "the head is too large")
        if section is None:
            return False
        line = _STATUS_LINE.match(section)
        if line is None:
            raise WireError("the status line is malformed")
        major, minor, code, reason = line.groups()
        if major != b"1":
            raise WireError("the origin speaks another version of HTTP")
        version = (1, 0) if minor == b"0" else (1, 1)
        status = int(code)
        headers = self._fields(section, line.end())
        framing = response_framing(self._method, status, version, headers)
        events.append(ResponseHead(version, status, reason or b"", headers, framing))
        if status == 101:
            self._stopped = True
            rest = self._buffer[self._position :]
            self._position = len(self._buffer)
            events.append(Switched(rest))
            return False
        if status < 200:
            self._between = True
            return True
        return self._begin_body(framing, events)


def _what_is_wrong(section: bytes, start: int) -> str:
    """Words for what `_fields` couldn't read."""
    block = section[start:-2]
    if _BARE_LF.search(block):
        return "a line that ends with a bare LF"
    if _BARE_CR.search(block):
        return "a bare CR in a field"
    for number, line in enumerate(block.split(b"\r\n")[:-1]):
        if line[:1] in (b" ", b"\t"):
            return "a folded field line" if number else "white space before the first field"
        if _FIELD.fullmatch(line + b"\r\n"):
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            return "a field line without a colon"
        if name != name.rstrip(b" \t"):
            return "white space between a field's name and its colon"
        if not re.fullmatch(_TOKEN, name):
            return "a field name with a character that may not stand there"
        return "a control character in the value of a field"
    return "the fields are malformed"


def request_head_bytes(method: bytes, target: bytes, fields: tuple[Field, ...]) -> bytes:
    """A request's head as HTTP/1.1 bytes."""
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join([b"%b: %b\r\n" % field for field in fields]))


def response_head_bytes(status: int, reason: bytes, fields: tuple[Field, ...]) -> bytes:
    """A response's head as HTTP/1.1 bytes."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join([b"%b: %b\r\n" % field for field in fields]))

