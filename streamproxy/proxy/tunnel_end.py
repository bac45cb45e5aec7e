"""The connection to an origin of which nothing is known but its bytes: of a tunnel, or of what an upgrade has become.

What becomes of the bytes is its owner's matter (`tunnel.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streamproxy.counts import PASSING
from streamproxy.memory import Memory
from streamproxy.stream.deadline import Deadline
from streamproxy.stream.read_size import ReadSize
from streamproxy.stream.sink import Sink
from streamproxy.stream.transport import IStreamTransport
from streamproxy.stream.valve import Valve

if TYPE_CHECKING:
    from streamproxy.proxy.tunnel import Tunnel

# The reason by which an origin isn't read while it isn't known what its tunnel is.
UNDECIDED = "undecided"


@implementer(IHalfCloseableProtocol)
class TunnelEnd(Protocol):
    """The connection to the origin of a tunnel.

    Until it has an `owner`, what it reads waits here (one read) and in its socket; `stirred` is called, once, when
    there is something. While it is open it is in the set `among`. What waits
    of what it reads is counted in `memory`.
    """

    transport: IStreamTransport
    valve: Valve
    sink: Sink
    _read_size: ReadSize

    def __init__(self, clock: IReactorTime, among: set[Any], memory: Memory) -> None:
        self.owner: Tunnel | None = None
        self.stirred: Callable[[], None] | None = None
        self.said = b""
        self.ended = self.ended_both = False
        self.lost = False
        self._deadline = Deadline(clock)
        self._is_over = False
        self._among = among
        self._memory = memory

    def connectionMade(self) -> None:
        self._among.add(self)
        self.transport.setTcpNoDelay(True)
        sink, read_size = Sink(self.transport, PASSING.origins), ReadSize(self.transport, PASSING.origins, self._memory)
        self.take_over(self.transport, Valve(self.transport), sink, read_size)

    def take_over(self, transport: IStreamTransport, valve: Valve, sink: Sink, read_size: ReadSize) -> None:
        """Be the end of a connection that another protocol has begun, and which hands on what it hears."""
        self.transport = transport
        self.valve = valve
        self.sink = sink
        self._read_size = read_size
        transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        self._read_size.saw(len(data))
        if self.owner is not None:
            self.owner.origin_said(data)
        elif not self._is_over:
            self.said += data
            self.valve.close(UNDECIDED)
            self._stir()

    def readConnectionLost(self) -> None:
        self.valve.end()
        self.ended = True
        if self.owner is not None:
            self.owner.origin_ended()
        else:
            self._stir()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self.lost = True
        self._among.discard(self)
        # Over TLS this is how an end in order comes, and it is the end of both directions.
        if ISSLTransport.providedBy(self.transport) and reason.check(ConnectionDone):
            self.ended = self.ended_both = True
        self.valve.end()
        self.sink.release()
        self._deadline.cancel()
        if self.owner is not None:
            self.owner.origin_lost()
        else:
            self._stir()

    @property
    def is_busy(self) -> bool:
        """Whether it is in use, or has something to send yet."""
        return self.owner is not None or self.sink.full

    def forget_owner(self) -> None:
        """The tunnel is over: what still comes is nobody's."""
        self.owner = self.stirred = None
        self._is_over = True

    def _stir(self) -> None:
        stirred, self.stirred = self.stirred, None
        if stirred is not None:
            stirred()

    def half_close(self) -> None:
        """There is no more to send."""
        if not self.lost:
            self.sink.release()
            self.transport.loseWriteConnection()

    def close(self, patience: float) -> None:
        """Send what is written, then close; with an origin that doesn't read it for `patience` seconds at the most."""
        if not self.lost:
            self.sink.release()
            self._deadline.set(patience, self.abort)
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once, with a reset."""
        if not self.lost:
            self.sink.release()
            self.transport.abortConnection()
