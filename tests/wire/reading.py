"""What the tests of the readers share: reading to the end, joining, splitting, and the settings of properties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import HealthCheck, settings

from streamproxy.wire.http1 import HeadLimits, RequestReader, ResponseReader
from streamproxy.wire.message import End, Event, WireError

LIMITS = HeadLimits()


def property_of(examples: int) -> settings:
    """Settings of a property: the same examples at each run, however slow the machine is."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def request(*lines: bytes, body: bytes = b"") -> bytes:
    """A request of head `lines`."""
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """A POST request with `lines` behind its Host field."""
    return request(b"POST /a HTTP/1.1", b"Host: example.com", *lines, body=body)


def answer(*lines: bytes, body: bytes = b"") -> bytes:
    """A 200 response with `lines` for fields."""
    return request(b"HTTP/1.1 200 OK", *lines, body=body)


def requests(limits: HeadLimits = LIMITS) -> RequestReader:
    return RequestReader(limits)


def responses(method: bytes = b"GET", limits: HeadLimits = LIMITS) -> ResponseReader:
    reader = ResponseReader(limits)
    reader.expect(method)
    return reader


def joined(events: Iterable[Event]) -> list[Event]:
    """`events` with adjacent data made one."""
    out: list[Event] = []
    for event in events:
        if type(event) is bytes and out and type(out[-1]) is bytes:
            out[-1] += event
        else:
            out.append(event)
    return out


def read(reader: RequestReader | ResponseReader, *pieces: bytes) -> list[Event]:
    """The events of `pieces`, one message after another, as one who feeds a reader goes on."""
    events: list[Event] = []
    for piece in pieces:
        events += _drained(reader, piece)
    return joined(events)


def _drained(reader: RequestReader | ResponseReader, piece: bytes) -> Iterator[Event]:
    yield from reader.feed(piece)
    while reader.more or (reader.ended and reader.waiting):
        if reader.ended:
            reader.next_message()
        yield from reader.feed(b"")


def read_until_error(reader: RequestReader | ResponseReader, *pieces: bytes) -> tuple[list[Event], WireError | None]:
    """The events of `pieces` up to an error, and the error."""
    events: list[Event] = []
    try:
        for piece in pieces:
            for event in _drained(reader, piece):
                events.append(event)
    except WireError as error:
        return joined(events), error
    return joined(events), None


def refusal(reader: RequestReader | ResponseReader, data: bytes) -> tuple[int, str] | None:
    """The status and reason with which `data`, read whole, is refused; None where it isn't."""
    error = read_until_error(reader, data)[1]
    return None if error is None else (error.status, error.reason)


def refused_alike(make: type[RequestReader] | type[ResponseReader], data: bytes) -> tuple[int, str] | None:
    """How `data` is refused, whole and byte by byte, which must come to the same; None where it isn't."""
    whole = refusal(make(LIMITS), data)
    error = read_until_error(make(LIMITS), *bytewise(data))[1]
    apart = None if error is None else (error.status, error.reason)
    if (whole and whole[0]) != (apart and apart[0]):
        raise AssertionError(f"whole {whole}, byte by byte {apart}: {data[:200]!r}")
    return whole


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def splits(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`data` in two, at every place."""
    for at in range(1, len(data)):
        yield data[:at], data[at:]


def body_of(events: Iterable[Event]) -> bytes:
    return b"".join([event for event in events if type(event) is bytes])


def ends(events: Iterable[Event]) -> list[End]:
    return [event for event in events if type(event) is End]
