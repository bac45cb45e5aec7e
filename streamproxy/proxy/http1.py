"""HTTP/1 towards the client: one exchange after another on a connection.

Requests are read as they come, but the next is begun only when the one before is done with: what a client sends
ahead waits in the reader, and then in the client, for the valve is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from streamproxy.flow import CLIENT_GONE, FAILED, MALFORMED, REFUSED, TIMED_OUT
from streamproxy.memory import OUT_OF_MEMORY
from streamproxy.proxy.admission import admit
from streamproxy.proxy.answers import explain
from streamproxy.proxy.ends import NOT_A_REQUEST
from streamproxy.proxy.exchange import Exchange
from streamproxy.proxy.intercept import SecureListener
from streamproxy.proxy.opening import FRESH, Opening
from streamproxy.rules.verdict import Answer
from streamproxy.wire.http1 import HeadLimits, RequestReader
from streamproxy.wire.message import BodyEvent, RequestHead, WireError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol

# The first byte of a TLS connection: a handshake record (RFC 8446 section 5.1).
TLS_BEGINS = b"\x16"
# Requests of one client that are answered within one turn, before others get theirs.
MOST_IN_A_TURN = 8


class Http1Layer:
    """Reads requests from `connection` and gives each to an `Exchange`; a CONNECT ends that (`opening.py`).

    `accounted`: the bytes of the connection that were another layer's.
    """

    def __init__(self, connection: DownstreamProtocol, accounted: int = 0) -> None:
        self._connection = connection
        self._proxy = connection.proxy
        limits = self._proxy.settings.limits
        self._timeouts = self._proxy.settings.timeouts
        self.reader = RequestReader(HeadLimits(limits.head, limits.fields, limits.trailers))
        self._exchange: Exchange | None = None
        # Bytes of wire that belong to exchanges which are over.
        self._accounted = accounted
        self._taking = False
        self._scheduled = False
        self._head_begun = False
        # Bytes that wait to be read as requests, as far as they were counted.
        self._counted = 0
        # A request has been answered.
        self._served = False
        # The connection is another layer's.
        self._replaced = False
        patience = FRESH if self._proxy.draining else self._timeouts.keepalive
        connection.deadline.set(patience, self._idle)

    def data_received(self, data: bytes) -> None:
        """Read on; called again with nothing when there was more than one turn's worth."""
        connection, reader = self._connection, self.reader
        self._taking = True
        for _ in range(MOST_IN_A_TURN):
            try:
                events = reader.feed(data)
            except WireError as error:
                self._taking = False
                if data[:1] == TLS_BEGINS and self._is_new_proxy_client(data):
                    SecureListener(connection, data)
                else:
                    self._malformed(error)
                return
            if events:
                body: list[BodyEvent] = events  # type: ignore[assignment]
                if self._exchange is not None:
                    self._exchange.request_events(body)
                else:
                    head = events[0]
                    assert type(head) is RequestHead
                    self._head_begun = False
                    passwords = self._proxy.passwords
                    # What comes inside a tunnel belongs to its CONNECT.
                    if passwords is None or connection.route is not None:
                        self.begin(head, body)
                    else:
                        admit(connection, self, passwords, head, body)
                    if self._replaced:
                        self._taking = False
                        return
            elif self._exchange is None and not self._head_begun and not reader.between:
                self._head_begun = True
                connection.deadline.set(self._timeouts.head, self._head_too_slow)
            # An exchange that was over at once leaves the way free for what the client sent ahead.
            if self._exchange is not None or connection.closing or not reader.waiting or reader.more or not events:
                break
            data = b""
        self._taking = False
        if connection.closing or connection.lost:
            return
        if (reader.waiting or self._counted) and not self._count(reader.waiting):
            return
        if reader.more or (self._exchange is None and events and reader.waiting):
            self._take_a_turn()
        elif reader.ended and reader.waiting and self._exchange is not None:
            connection.valve.close("next request")

    def _count(self, waiting: int) -> bool:
        """Count what waits here to be read as a request; whether it may."""
        memory = self._connection.memory
        more, self._counted = waiting - self._counted, waiting
        memory.add(more)
        if more <= 0 or not memory.is_passed or self._exchange is not None:
            return True
        memory.refuse()
        self._refuse(503, OUT_OF_MEMORY, REFUSED)
        return False

    def begin(self, head: RequestHead, events: list[BodyEvent], said: bytes = b"") -> None:
        """Begin with the request of `head`.

        `events` are its head as it came and what was read behind it; `said` are bytes that the reader hasn't seen.
        """
        memory = self._connection.memory
        if memory.is_full:
            memory.refuse()
            self.turn_away(head, events, explain(503, OUT_OF_MEMORY), REFUSED, OUT_OF_MEMORY)
        elif head.method == b"CONNECT":
            self._replaced = True
            self._forget_waiting()
            Opening(self._connection, head, self.reader.take_waiting() + said, self._accounted)
        else:
            self._exchange = self._proxy.exchange(self._connection, self, head)
            self._exchange.begin(events[1:])

    def turn_away(self, head: RequestHead, events: list[BodyEvent], answer: Answer, outcome: str, why: str) -> None:
        """Answer a request, as `begin` has it, that isn't to be looked at."""
        self._exchange = Exchange(self._connection, self, head)
        self._exchange.turn_away(events[1:], answer, outcome, why)

    def step_aside(self) -> None:
        """Another layer has the connection, up to `take_up`."""
        self._replaced = True

    def take_up(self, begin: Callable[[], None], said: bytes) -> None:
        """Have the connection again: `begin` with what waited, and go on with what was `said` meanwhile."""
        self._replaced = False
        self._taking = True
        begin()
        self._taking = False
        connection = self._connection
        if self._replaced or connection.closing or connection.lost:
            return
        self.data_received(said)
        if connection.half_closed and not (self._scheduled or self._replaced or connection.closing or connection.lost):
            self.read_ended()

    def _is_new_proxy_client(self, data: bytes) -> bool:
        """Whether these are the first bytes of a client that takes this for a proxy, and may be spoken to by TLS."""
        connection = self._connection
        first = self._exchange is None and connection.received == len(data)
        return first and connection.route is None and not connection.is_secure and self._proxy.tls is not None

    def _take_a_turn(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._connection.valve.close("turn")
            self._proxy.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        connection = self._connection
        if connection.lost or connection.closing:
            return
        if self._replaced:
            connection.valve.open("turn")
            return
        self.data_received(b"")
        if not self._scheduled and not connection.closing and not connection.lost:
            connection.valve.open("turn")
            if connection.half_closed and not self._replaced:
                self.read_ended()

    def exchange_over(self, keep: bool) -> None:
        """The exchange has been recorded. `keep`: its client may send another request."""
        self._exchange = None
        self._served = True
        self._accounted += self.unaccounted
        connection = self._connection
        if connection.lost or connection.closing:
            return
        if not keep:
            if self.reader.ended and not self.reader.waiting:
                connection.close()
            else:
                connection.linger()
            return
        self.reader.next_message()
        connection.deadline.set(self._timeouts.keepalive, self._idle)
        if not self._taking and self.reader.waiting:
            # Not at once, for this may be called from deep within the exchange that is over.
            self._take_a_turn()
            connection.valve.open("next request")

    def give_up(self) -> bytes:
        """What the exchange has switched to takes the connection, and these bytes that came behind the request."""
        self._exchange = None
        self._replaced = True
        self._forget_waiting()
        return self.reader.take_waiting()

    def gave_up(self) -> None:
        """The connection has been taken."""
        for reason in ("next request", "turn"):
            self._connection.valve.open(reason)

    @property
    def taken(self) -> int:
        """Bytes of wire on this connection that belong to what came before the exchange under way."""
        return self._accounted

    @property
    def unfinished(self) -> bool:
        return self._exchange is not None

    @property
    def last(self) -> bool:
        """No other request can come behind the one that is under way: the client has ended its side, or the proxy is to
        stop."""
        connection = self._connection
        return self._proxy.draining or connection.dismissed or (connection.half_closed and not self.reader.waiting)

    @property
    def unaccounted(self) -> int:
        """Bytes of wire read for the exchange that is under way."""
        return self._connection.received - self.reader.waiting - self._accounted

    def read_ended(self) -> None:
        """The client has ended its side. It still gets what it asked for."""
        if self._scheduled:
            # There is more to read first.
            return
        if self._exchange is None:
            if self.reader.between:
                self._connection.close()
            else:
                self._malformed(WireError("the client ended its side inside a request"))
        elif not self.reader.ended:
            self._exchange.fail(CLIENT_GONE, "the client ended its side inside its request", 400)

    def drain(self) -> None:
        """Only what has begun, or what a client is about to ask who has just come, is served."""
        connection = self._connection
        if self._exchange is not None or self._scheduled or not self.reader.between:
            return
        if self._served:
            connection.close()
        else:
            connection.deadline.set(FRESH, self._idle)

    def cut(self, why: str) -> None:
        """End the exchange that is under way, or the silence."""
        if self._exchange is not None:
            self._exchange.fail(FAILED, why, 503)
        elif self.reader.between:
            self._connection.close()
        else:
            self._refuse(503, why, FAILED)

    def connection_lost(self, reason: Failure) -> None:
        self._forget_waiting()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def _forget_waiting(self) -> None:
        self._connection.memory.give_back(self._counted)
        self._counted = 0

    def refuse_connection(self) -> None:
        """There are too many connections: say so, and close."""
        self._refuse(503, "too many connections", REFUSED)

    def refuse_client(self) -> None:
        """The client's address isn't one that may come: say so, and close."""
        self._refuse(403, "clients from this address may not use this proxy (access.allow)", REFUSED)

    def _malformed(self, error: WireError) -> None:
        if self._exchange is not None:
            self._exchange.fail(MALFORMED, error.reason, error.status)
        else:
            self._refuse(error.status, error.reason, MALFORMED)

    def _head_too_slow(self) -> None:
        self._refuse(408, "the request's head took too long", TIMED_OUT)

    def _refuse(self, status: int, why: str, outcome: str) -> None:
        """Answer what never became a request."""
        self._exchange = Exchange(self._connection, self, NOT_A_REQUEST)
        self._exchange.fail(outcome, why, status)

    def _idle(self) -> None:
        self._connection.close()
