"""The writing end of one transport, for as long as the connection lives.

It is the transport's one producer, knows whether the transport is `full`, and wakes the pump that is writing when there
is room again.

What is written to a socket on which nothing waits is sent at once, in the same turn of the reactor: Twisted would keep
it until the next, and tell the kernel twice what it waits for. What the kernel doesn't take is the transport's, which
makes the sink full until the last of it has left. To hear of that the sink is a pull producer, which Twisted asks for
more when it has nothing left to send; on a transport that is no socket (TLS, or a test's) it is a push producer.

Between `cork` and `uncork` what is written is gathered, so that pieces cost neither a system call nor a record of TLS
each: a socket takes them as they are, in one `sendmsg`. Beside that it keeps no bytes. What isn't written while it is
full stays with the pump.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from streamproxy.counts import UNCOUNTED, Traffic
from streamproxy.stream.transport import IStreamTransport

# What is gathered is sent when it comes to so many bytes, or to so many pieces: the kernel takes 1024 at a time.
MOST_GATHERED = 65536
MOST_PIECES = 512
# What is sent from one `cork` to its `uncork`, in bytes, before others have their turn.
MOST_IN_A_TURN = 262144


class Writer(Protocol):
    """Who writes to a sink, and is told when there is room again."""

    def sink_has_room(self) -> None: ...
    def sink_moved(self) -> None: ...


def _nothing() -> None:
    pass


class Sink:
    """Counts what is written to `transport` (`sent`, in bytes; and in `traffic`), whose producer it is; knows whether
    it is `full`."""

    def __init__(self, transport: IStreamTransport, traffic: Traffic = UNCOUNTED) -> None:
        self._transport = transport
        self._traffic = traffic
        self._registered = True
        self.full = False
        # Bytes that wait in the transport; where it doesn't tell, as many as there may be.
        self.kept = 0
        self.sent = 0
        self.pump: Writer | None = None
        # Something that was written here is neither the transport's yet nor gone: never so of a connection's own sink.
        self.pending = False
        self._corked = False
        self._gathered: list[bytes | memoryview] = []
        self._gathered_size = 0
        # What was sent since it was corked.
        self._run = 0
        # TLS fills its records with what is written between these two, so that smaller pieces would only be cut to be
        # joined again.
        self.gathers = hasattr(transport, "cork")
        self._cork_transport: Callable[[], None] = getattr(transport, "cork", _nothing)
        self._uncork_transport: Callable[[], None] = getattr(transport, "uncork", _nothing)
        found = _socket_of(transport)
        # How to send on the transport's own socket without waiting, where it has one: a piece, or several.
        self._send: Callable[[bytes | memoryview], int] | None = None if found is None else found.send
        self._send_all: Callable[[list[bytes | memoryview]], int] | None = None if found is None else found.sendmsg
        # Pieces needn't be copied for it: it takes views of what they are cut from.
        self.takes_views = found is not None
        transport.registerProducer(self, found is None)  # type: ignore[arg-type]

    def write(self, data: bytes | memoryview) -> None:
        """Hand `data` on; it may be full when this returns."""
        size = len(data)
        self.sent += size
        self._traffic.sent += size
        if self._send is None:
            self._transport.write(data)  # type: ignore[arg-type]
        elif not self._corked:
            self._send_on([data])
        else:
            self._gathered.append(data)
            self._gathered_size += size
            if self._gathered_size >= MOST_GATHERED or len(self._gathered) >= MOST_PIECES:
                self._send_gathered()

    def cork(self) -> None:
        """Gather what is written from now on, as far as it isn't much, until `uncork`."""
        if self._send is None:
            self._cork_transport()
        else:
            self._corked = True

    def uncork(self) -> None:
        """Send what has been gathered."""
        if self._send is None:
            self._uncork_transport()
        else:
            if self._gathered:
                self._send_gathered()
            self._corked = False
            self._run = 0

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._gathered_size = 0
        self._send_on(gathered)

    def _send_on(self, pieces: list[bytes | memoryview]) -> None:
        """Send what the kernel takes; the rest is the transport's, and so is any error: it will find the same."""
        send, send_all = self._send, self._send_all
        size, sent = sum([len(piece) for piece in pieces]), 0
        # A kernel that always takes more would keep the turn: the transport sends what comes then in another.
        may_send = self._registered and not self.full and self._run < MOST_IN_A_TURN
        if send is not None and send_all is not None and may_send:
            if self._corked:
                self._run += size
            try:
                sent = send(pieces[0]) if len(pieces) == 1 else send_all(pieces)
            except OSError:
                sent = 0
        if sent < size:
            self.full = True
            self.kept += size - sent
            self._transport.write(b"".join(pieces)[sent:])

    def pauseProducing(self) -> None:
        # TCP says it again for each write over its limit.
        self.full = True
        if self._send is None:
            self.kept = MOST_GATHERED

    def resumeProducing(self) -> None:
        self.full = False
        self.kept = 0
        if self.pump is not None:
            self.pump.sink_has_room()

    def stopProducing(self) -> None:
        # The connection is gone. Its protocol hears of that by connectionLost.
        self.full = True

    def let_go(self) -> None:
        """The pump is done with it."""
        self.pump = None

    def release(self) -> None:
        """Give the transport up. Without this a `loseConnection` would wait for its producer for ever."""
        self.pump = None
        if self._registered:
            if self._gathered:
                self._send_gathered()
            self._registered = False
            self._transport.unregisterProducer()


def _socket_of(transport: IStreamTransport) -> socket.socket | None:
    """The socket below a transport, if that is all there is below it."""
    handle = getattr(transport, "getHandle", None)
    found = None if handle is None else handle()
    return found if isinstance(found, socket.socket) else None
