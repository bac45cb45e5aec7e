"""What a request's Upgrade asks for, what of it goes to the origin and back, and what takes over when it is granted.

A WebSocket's handshake is checked on both sides. Whether its messages will be read decides which extensions go on:
where nothing reads them, what client and origin agree on is theirs; else permessage-deflate is settled with each of
them apart, and others are taken out. Any other protocol becomes a tunnel, but those that speak HTTP once more: where
rules or scripts have a say that would be a way around them, and such an Upgrade doesn't go on (RFC 9110 section 7.8
lets an origin, and so a proxy, ignore it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamproxy.filters import message_deflate
from streamproxy.filters.message_deflate import NAME, Deflated
from streamproxy.flow import SWITCHED, Flow
from streamproxy.proxy.sides import Plan
from streamproxy.proxy.tunnel import Tunnel
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.proxy.websocket import WebSocketRelay
from streamproxy.rules.verdict import HeaderEdits, MessageWork
from streamproxy.stream.sink import Sink
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import RequestHead, ResponseHead
from streamproxy.wire.upgrade import (
    Agreed,
    Handshake,
    accept_for,
    check_answer,
    check_switch,
    is_websocket,
    read_handshake,
    upgrade_asked,
)

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol

_EXTENSIONS = b"sec-websocket-extensions"
_WEBSOCKET = b"websocket"
# What is HTTP as well, or has it inside.
_SPEAKS_HTTP = frozenset((b"h2c", b"h2", b"http", b"tls"))


class Upgrade:
    """What one request asks its connection to become. `asked` is the value of Upgrade as it goes on.

    For a WebSocket `handshake` is its own, and `work` how its messages go.
    """

    __slots__ = ("_agreed", "_offered", "agreed", "asked", "handshake", "with_client", "with_origin", "work")

    def __init__(self, asked: bytes, handshake: Handshake | None = None, work: MessageWork | None = None) -> None:
        self.asked = asked
        self.handshake = handshake
        self.work = work
        # What was offered to the origin where messages are read, and what was agreed on.
        self._offered: bytes | None = None
        self._agreed: Agreed | None = None
        # How messages are compressed between client and origin, where nothing reads them; else with either side.
        self.agreed: Deflated | None = None
        self.with_client: Deflated | None = None
        self.with_origin: Deflated | None = None

    @property
    def streams(self) -> bool:
        """Whether nothing reads messages."""
        return self.work is None or self.work.streams

    def request_edits(self) -> tuple[HeaderEdits, ...]:
        """What is made of the request's fields, behind whatever rules make of them."""
        if self.streams or self.handshake is None:
            return ()
        self._offered = message_deflate.offer(self.handshake.extensions)
        if self._offered is None:
            return (HeaderEdits((_EXTENSIONS,)),)
        return (HeaderEdits((_EXTENSIONS,), ((b"Sec-WebSocket-Extensions", self._offered),)),)

    def check(self, head: ResponseHead) -> None:
        """Raises WireError (502) where a 101 doesn't answer what was asked."""
        if self.handshake is None:
            check_switch(self.asked, head)
            return
        if self.streams:
            self._agreed = agreed = check_answer(self.handshake, head)
            asked = b", ".join([each.written for each in self.handshake.extensions])
            deflated = message_deflate.agreed_with_origin(agreed.extensions, asked)
            if len(agreed.extensions) == 1:
                self.agreed = deflated
            return
        offered = [each for each in self.handshake.extensions if each.name == NAME and self._offered is not None]
        agreed = check_answer(self.handshake._replace(extensions=tuple(offered)), head)
        if self._offered is not None:
            self.with_origin = message_deflate.agreed_with_origin(agreed.extensions, self._offered)

    def response_fields(self, headers: Headers, key: bytes | None) -> Headers:
        """The 101's fields as they go on to a client that sent `key`; those that belong to the connection aside."""
        if self.handshake is None:
            return headers
        if key is not None:
            headers = headers.replacing(b"Sec-WebSocket-Accept", accept_for(key))
        headers = headers.without((_EXTENSIONS,))
        value = b""
        if self.streams:
            # Whatever a rule has made of it: both sides must know the same.
            value = b", ".join([each.written for each in self._agreed.extensions]) if self._agreed is not None else b""
        elif self.with_origin is not None:
            answered = message_deflate.answer(self.handshake.extensions)
            if answered is not None:
                value, self.with_client = answered
        return headers.adding((b"Sec-WebSocket-Extensions", value)) if value else headers

    @property
    def extended(self) -> bool:
        """Whether client and origin agreed on any extension between them."""
        return self.streams and self._agreed is not None and bool(self._agreed.extensions)


def upgrade_of(came: RequestHead, sent: RequestHead, work: MessageWork | None, ruled: bool) -> Upgrade | None:
    """What a request asks for that goes on: `came` is its head as it came, `sent` as it goes on.

    `ruled`: rules or scripts have a say on what may be asked of this origin. Raises WireError: 400, or 426, for a
    handshake that is none.
    """
    asked = upgrade_asked(came)
    if asked is None:
        return None
    wants_websocket = is_websocket(asked)
    if wants_websocket:
        read_handshake(came)
    asked = upgrade_asked(sent)
    if asked is None or is_websocket(asked) is not wants_websocket:
        return None
    if wants_websocket:
        return Upgrade(asked, read_handshake(sent), work)
    protocols = _protocols(asked)
    # The origin isn't to choose a WebSocket from a list: it is read, and the rest isn't.
    if _WEBSOCKET in protocols or (ruled and not _SPEAKS_HTTP.isdisjoint(protocols)):
        return None
    return Upgrade(asked)


def _protocols(asked: bytes) -> list[bytes]:
    """The names in the value of an Upgrade field, in lower case, without versions."""
    return [member.partition(b"/")[0].strip() for member in asked.lower().split(b",")]


class Switched:
    """What an exchange has become: takes both connections, and puts the flow on the log when that is over.

    `end` is the origin's; `sent_before` and `taken_before` are the client's bytes of wire, out and in, up to the flow.
    """

    def __init__(
        self, connection: DownstreamProtocol, end: TunnelEnd, flow: Flow, sent_before: int, taken_before: int
    ) -> None:
        self._connection = connection
        self._end = end
        self._flow = flow
        self._sent_before = sent_before
        self._taken_before = taken_before

    def start(self, plan: Plan | None, said: bytes, to_origin: Sink | None, to_client: Sink | None) -> None:
        """Relay: messages or frames by `plan`, or blind; `said` is what the client has said already."""
        connection, end, flow = self._connection, self._end, self._flow
        if plan is None:
            relay = Tunnel(connection, end, flow, self._over, to_origin, to_client)
            relay.in_order = SWITCHED
        else:
            relay = WebSocketRelay(connection, end, flow, self._over, plan, to_origin, to_client)
        relay.start(said)

    def _over(self) -> None:
        flow, connection = self._flow, self._connection
        proxy = connection.proxy
        flow.client_in = connection.received - self._taken_before
        flow.client_out = connection.sink.sent - self._sent_before
        flow.request.end_capture()
        flow.response.end_capture()
        flow.duration = proxy.clock.seconds() - flow.started
        proxy.journal.record(flow)
