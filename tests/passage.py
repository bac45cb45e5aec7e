"""One exchange carried through the proxy, and read on the other side by a decoder that isn't ours (h11).

Where a conversation compares bytes, this compares meanings: which fields and which body arrived, and whether the
framing around them was right. So the same claim can be made of many framings, sizes and cuts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import h11

from streamproxy.flow import Flow
from streamproxy.settings import Settings
from tests.conversation import Stage
from tests.fakes import TCP

Fields = list[tuple[bytes, bytes]]


class Passed(NamedTuple):
    """What became of an exchange. `closed`: the client's connection ended in order; `reset`: it was cut."""

    origin_heard: bytes
    client_heard: bytes
    closed: bool
    reset: bool
    origins: int
    flows: list[Flow]

    @property
    def flow(self) -> Flow:
        (only,) = self.flows
        return only


class Message(NamedTuple):
    """A message as h11 read it. `start` is the method or the status."""

    start: bytes | int
    fields: Fields
    body: bytes
    trailers: Fields

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]


def cut(data: bytes, size: int | None) -> list[bytes]:
    """`data` in pieces of `size` bytes; in one piece for None."""
    if size is None:
        return [data]
    return [data[at : at + size] for at in range(0, len(data), size)]


def carry(
    settings: Settings,
    request: Iterable[bytes],
    response: Iterable[bytes] = (),
    *,
    origin_ends: bool = False,
    manner: str = TCP,
) -> Passed:
    """The client sends the pieces of `request`, the origin those of `response` (and its end, if `origin_ends`)."""
    stage = Stage(settings, manner)
    client = stage.client()
    for piece in request:
        client.say(piece)
        stage.settle(client)
    if stage.pool.made:
        for piece in response:
            stage.origin.say(piece)
            stage.settle(client)
        if origin_ends:
            stage.origin.end()
            stage.settle(client)
    heard = bytes(stage.origin.heard) if stage.pool.made else b""
    for made in [client, *stage.pool.made]:
        assert max(made.writes, default=0) <= settings.write_size
    return Passed(
        heard,
        bytes(client.heard),
        client.write_closed or (client.disconnected and not client.aborted),
        client.aborted,
        len(stage.pool.made),
        stage.journal.flows,
    )


def read_response(data: bytes, closed: bool = False, method: bytes = b"GET") -> Message:
    """`data` as a client reads the one response to `method`; raises `h11.RemoteProtocolError` for a broken one."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "a.example")]))
    peer.send(h11.EndOfMessage())
    return _read(peer, data, closed)


def read_request(data: bytes) -> Message:
    """`data` as an origin reads the one request in it."""
    return _read(h11.Connection(h11.SERVER), data, False)


def _read(peer: h11.Connection, data: bytes, closed: bool) -> Message:
    peer.receive_data(data)
    if closed:
        peer.receive_data(b"")
    start: bytes | int | None = None
    fields: Fields = []
    body = bytearray()
    while True:
        event = peer.next_event()
        if isinstance(event, h11.Request):
            start, fields = event.method, list(event.headers)
        elif isinstance(event, h11.Response):
            start, fields = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert start is not None
            rest, _ = peer.trailing_data
            if rest:
                raise h11.RemoteProtocolError(f"{len(rest)} bytes behind the message: {rest[:80]!r}")
            return Message(start, fields, bytes(body), list(event.headers))
        elif event is h11.NEED_DATA:
            raise h11.RemoteProtocolError("the message isn't whole")
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError(f"{event!r} inside the message")
