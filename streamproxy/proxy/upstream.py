"""A connection to an origin: what it reads goes to the exchange that is using it, and nowhere else.

Which connection an exchange gets, and what becomes of it afterwards, is the pool's (`pool.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streamproxy.counts import PASSING, UNCOUNTED
from streamproxy.flow import MALFORMED
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.stream.deadline import Deadline
from streamproxy.stream.read_size import ReadSize
from streamproxy.stream.sink import Sink
from streamproxy.stream.transport import IStreamTransport
from streamproxy.stream.valve import Valve
from streamproxy.tls.reasons import why_origin_broke_off
from streamproxy.wire.http1 import HeadLimits, ResponseReader
from streamproxy.wire.message import Switched, WireError

if TYPE_CHECKING:
    from streamproxy.proxy.exchange import Exchange
    from streamproxy.proxy.pool import Pool
    from streamproxy.proxy.route import Route

# How long what is already written may take to leave once a connection is given up, in seconds.
LAST_WORDS = 10
# The reason for which a valve is shut while others get their turn.
TURN = "turn"


@implementer(IHalfCloseableProtocol)
class UpstreamConnection(Protocol):
    """One HTTP/1 connection by `route`, in use by one exchange at a time or idle in `pool`."""

    transport: IStreamTransport
    valve: Valve
    sink: Sink
    _read_size: ReadSize

    def __init__(self, route: Route, pool: Pool, clock: IReactorTime, limits: HeadLimits) -> None:
        self.route = route
        # By which of the pool's settings it was made.
        self.era = 0
        self.reader = ResponseReader(limits)
        self.deadline = Deadline(clock)
        # False once it can't carry another exchange.
        self.reusable = True
        # It has carried an exchange before.
        self.used = False
        # Called when it has for the first time.
        self.remember: Callable[[], None] | None = None
        # The origin has said something in the exchange that is under way.
        self.heard = False
        self._pool = pool
        self._clock = clock
        self._exchange: Exchange | None = None
        self._eof_waits = False
        self._turn_is_due = False
        self._counted = 0
        # Where that is counted: with whom the exchange is for.
        self._memory = pool.memory
        self._lost = False
        # What it is the connection of, when it isn't HTTP any more.
        self._tunnel_end: TunnelEnd | None = None
        # How many bytes of that were in the read that had the 101.
        self.read_behind = 0

    def connectionMade(self) -> None:
        self._pool.open.add(self)
        self.transport.setTcpNoDelay(True)
        self.valve = Valve(self.transport)
        # Over TLS it is what that reads and writes that is counted.
        traffic = UNCOUNTED if ISSLTransport.providedBy(self.transport) else PASSING.origins
        self.sink = Sink(self.transport, traffic)
        self._read_size = ReadSize(self.transport, traffic, self._pool.memory)

    @property
    def peername(self) -> tuple[str, int] | None:
        """The origin's address and port."""
        peer = self.transport.getPeer()
        return (peer.host, peer.port) if isinstance(peer, IPv4Address | IPv6Address) else None

    @property
    def is_busy(self) -> bool:
        """Whether it is in use, or has something to send yet."""
        return self._exchange is not None or self.sink.full

    @property
    def unfinished(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    def begin(self, exchange: Exchange, method: bytes) -> None:
        """`exchange` sends a `method` request on this connection now, and gets all that comes back."""
        self._exchange = exchange
        self._count(0)
        self._memory = exchange.memory
        self.heard = False
        self.reader.expect(method)
        self.deadline.clear()

    def end(self) -> None:
        """The exchange needs it no more: back to the pool, or closed where another couldn't trust it."""
        self._exchange = None
        self._count(0)
        self._memory = self._pool.memory
        self.used = True
        if self._lost:
            return
        if self.remember is not None:
            self.remember()
            self.remember = None
        # Whatever stands behind a response that has ended was never asked for. Over TLS an end that is about to come
        # may be known already.
        ending = getattr(self.transport, "peer_ended", False)
        if self.reusable and self.reader.ended and not self.reader.waiting and not ending:
            self._pool.give(self)
            self.valve.open(TURN)
        else:
            self.close()

    def close(self) -> None:
        """Send what is written, then close; without waiting for it for ever."""
        self._exchange = None
        self.reusable = False
        if not self._lost:
            self.sink.release()
            self.deadline.set(LAST_WORDS, self.abort)
            self.transport.loseConnection()

    def expire(self) -> None:
        """It has been idle for long enough."""
        self._pool.forget(self)
        self.close()

    def abort(self) -> None:
        """Close at once, with a reset."""
        self._exchange = None
        self.reusable = False
        if not self._lost:
            self.sink.release()
            self.transport.abortConnection()

    def hand_over(self) -> TunnelEnd:
        """The exchange is over, and what it switched to takes the connection: what was read waits there."""
        assert self._tunnel_end is not None
        self._exchange = None
        if self.remember is not None:
            self.remember()
            self.remember = None
        return self._tunnel_end

    def _switch(self, rest: bytes) -> None:
        """It isn't HTTP any more; `rest` was read behind that."""
        self.reusable = False
        self.read_behind = len(rest)
        # It is counted as this one's.
        self._tunnel_end = end = TunnelEnd(self._clock, set(), self._pool.memory)
        end.take_over(self.transport, self.valve, self.sink, self._read_size)
        if rest:
            end.dataReceived(rest)

    def dataReceived(self, data: bytes) -> None:
        if self._tunnel_end is not None:
            self._tunnel_end.dataReceived(data)
            return
        if self._exchange is None:
            if self.reusable:
                # Nothing was asked: it would be taken for the answer to the next request.
                self._pool.forget(self)
                self.abort()
            return
        self.heard = self.heard or bool(data)
        self._read_size.saw(len(data))
        try:
            events = self.reader.feed(data)
        except WireError as error:
            self._exchange.fail(MALFORMED, error.reason)
            return
        if self.reader.more:
            self.valve.close(TURN)
            if not self._turn_is_due:
                self._turn_is_due = True
                self._clock.callLater(0, self._go_on)
        elif self.reader.ended and self.reader.waiting:
            self.reusable = False
            self.valve.close("beyond the response")
        if self.reader.waiting or self._counted:
            self._count(self.reader.waiting)
        if events:
            if type(events[-1]) is Switched:
                self._switch(events[-1].rest)
            self._exchange.origin_events(events)

    def _count(self, waiting: int) -> None:
        """Count what waits here to be read: part of a head, or what nobody asked for. Each has a bound of its own."""
        self._memory.add(waiting - self._counted)
        self._counted = waiting

    def _go_on(self) -> None:
        """Read on in what was left for the sake of other connections."""
        self._turn_is_due = False
        if self._exchange is None:
            return
        self.dataReceived(b"")
        if not self.reader.more:
            self.valve.open(TURN)
            if self._eof_waits:
                self._eof()

    def readConnectionLost(self) -> None:
        self.reusable = False
        if self._tunnel_end is not None:
            self._tunnel_end.readConnectionLost()
            return
        self.valve.end()
        if self._exchange is None:
            self._pool.forget(self)
            self.close()
        elif self.reader.more:
            self._eof_waits = True
        else:
            self._eof()

    def _eof(self) -> None:
        """The origin has ended its side, in order, and all that it said has been read."""
        exchange = self._exchange
        if exchange is None:
            return
        try:
            events = self.reader.eof()
        except WireError as error:
            exchange.origin_gone(error.reason)
            return
        if events:
            exchange.origin_events(events)
        if self._lost:
            self._gone()

    def _gone(self, why: str | None = None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            where = "without a response" if self.reader.between else "inside its response"
            exchange.origin_gone(why or f"the origin closed the connection {where}")

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self._lost = True
        self._pool.open.discard(self)
        self._count(0)
        self.reusable = False
        self.valve.end()
        self.sink.release()
        self.deadline.cancel()
        self.remember = None
        self._pool.forget(self)
        if self._tunnel_end is not None:
            self._exchange = None
            self._tunnel_end.connectionLost(reason)
            return
        if not reason.check(ConnectionDone):
            self._gone(why_origin_broke_off(reason, self.route.origin.host))
        elif self.reader.more:
            # Over TLS an end in order comes in this way, and may come while there is more to read.
            self._eof_waits = True
        else:
            self._eof()
