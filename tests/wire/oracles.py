"""Other readers, h11 and llhttp (as httptools), asked to read one message that ours has read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import h11
import httptools

from streamproxy.wire.http1 import _NOT_IN_TRAILERS, RequestReader, ResponseReader
from streamproxy.wire.message import UNTIL_CLOSE, End, Event, RequestHead, ResponseHead, Switched, WireError
from tests.wire.reading import LIMITS

Fields = tuple[tuple[bytes, bytes], ...]


class Refused(Exception):
    """The oracle takes the message for a bad one."""


@dataclass
class Seen:
    """What a reader saw of one message.

    `wire`: its bytes, as far as they were given as events. `until_close`: only the connection's end ends it.
    """

    first: tuple[bytes, ...] = ()
    version: tuple[int, int] = (0, 0)
    fields: Fields = ()
    body: bytes = b""
    trailers: Fields = ()
    ended: bool = False
    wire: bytes = field(default=b"", compare=False)
    until_close: bool = field(default=False, compare=False)


def _lower(fields: list[tuple[bytes, bytes]]) -> Fields:
    return tuple((name.lower(), value) for name, value in fields)


def _trailers(fields: list[tuple[bytes, bytes]]) -> Fields:
    return tuple(pair for pair in _lower(fields) if pair[0] not in _NOT_IN_TRAILERS)


def _ours(events: list[Event], seen: list[Seen]) -> None:
    for event in events:
        if isinstance(event, RequestHead):
            first: tuple[bytes, ...] = (event.method, event.target)
        elif isinstance(event, ResponseHead):
            first = (b"%d" % event.status, event.reason)
        else:
            if type(event) is bytes:
                seen[-1].body += event
            elif isinstance(event, End):
                seen[-1].trailers = _lower(list(event.trailers))
                seen[-1].ended = True
            elif isinstance(event, Switched):
                seen[-1].ended = True
            continue
        message = Seen(first, event.version, _lower(list(event.headers)))
        message.until_close = event.framing is UNTIL_CLOSE
        message.ended = isinstance(event, ResponseHead) and event.status in (100, *range(102, 200))
        seen.append(message)


def ours(data: bytes, method: bytes | None = None) -> list[Seen]:
    """The messages that our reader sees in `data`, fed byte by byte, up to what it refuses.

    Requests without `method`, else responses to a `method` request; the last may be unfinished.
    """
    reader = RequestReader(LIMITS) if method is None else ResponseReader(LIMITS)
    if isinstance(reader, ResponseReader):
        reader.expect(method or b"")
    seen: list[Seen] = []
    began = 0
    try:
        for at in range(len(data)):
            known, before = len(seen), reader.consumed
            was_ended = bool(seen) and seen[-1].ended
            _ours(reader.feed(data[at : at + 1]), seen)
            if len(seen) > known:
                began = before
            if len(seen) > known or (seen and not was_ended):
                seen[-1].wire = data[began : reader.consumed]
            if reader.ended:
                if method is not None:
                    return seen
                reader.next_message()
            elif seen and seen[-1].first[:1] == (b"101",):
                return seen
        if isinstance(reader, ResponseReader):
            _ours(reader.eof(), seen)
    except WireError:
        pass
    return seen


class _Http:
    """llhttp's callbacks."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.url = self.status = b""
        self.head: list[tuple[bytes, bytes]] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.head_done = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, status: bytes) -> None:
        self.status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head, self.fields = self.fields, []
        self.head_done = True

    def on_body(self, data: bytes) -> None:
        self.seen.body += data

    def on_message_complete(self) -> None:
        self.seen.trailers = _trailers(self.fields)
        self.seen.ended = True


def llhttp(wire: bytes, *, response: bool) -> Seen:
    """What llhttp sees in the bytes of one message; raises `Refused`."""
    told = _Http()
    requests, responses = httptools.HttpRequestParser(told), httptools.HttpResponseParser(told)
    parser = responses if response else requests
    try:
        parser.feed_data(wire)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise Refused(str(error)) from None
    seen = told.seen
    if told.head_done:
        major, minor = parser.get_http_version().split(".")
        if response:
            seen.first = (b"%d" % responses.get_status_code(), told.status)
        else:
            seen.first = (requests.get_method(), told.url)
        seen.version = (int(major), int(minor))
        seen.fields = _lower(told.head)
    return seen


def by_h11(wire: bytes, method: bytes | None = None, *, closed: bool = False) -> Seen:
    """What h11 sees in the bytes of one message; raises `Refused`. `closed`: the peer has then ended."""
    try:
        if method is None:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 24)
        else:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
            fields = [("Host", "a"), ("Upgrade", "a"), ("Connection", "Upgrade")]
            connection.send(h11.Request(method=method, target="/", headers=fields))
            connection.send(h11.EndOfMessage())
        connection.receive_data(wire)
        if closed:
            connection.receive_data(b"")
        return _h11_events(connection)
    except h11.RemoteProtocolError as error:
        raise Refused(str(error)) from None


def _h11_events(connection: h11.Connection) -> Seen:
    seen = Seen()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            return seen
        if event is h11.PAUSED:
            # After a CONNECT that was granted.
            seen.ended = connection.their_state is h11.SWITCHED_PROTOCOL
            return seen
        if isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            if isinstance(event, h11.Request):
                seen.first = (bytes(event.method), bytes(event.target))
            else:
                seen.first = (b"%d" % event.status_code, bytes(event.reason))
            major, minor = bytes(event.http_version).split(b".")
            seen = replace(seen, version=(int(major), int(minor)), fields=_lower(list(event.headers)))
            if isinstance(event, h11.InformationalResponse):
                seen.ended = True
                return seen
        elif isinstance(event, h11.Data):
            seen.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            seen.trailers = _trailers(list(event.headers))
            seen.ended = True
            return seen
        else:
            return seen
