"""Transports without sockets, that buffer, pause and close as Twisted's do.

`BoundedTransport` has the manners of TCP and of TLS, as seen by running Twisted:

- over its limit TCP calls `pauseProducing` again at each write, TLS once;
- a producer is resumed when the buffer is empty;
- a paused TCP transport delivers nothing, a paused TLS transport the rest of what it has decrypted;
- `loseConnection` closes once the buffer is empty; over TLS never while a producer is registered, over TCP never
  while it is paused.
"""

from __future__ import annotations

import socket

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

TCP = "tcp"
TLS = "tls"
LIMIT = 65536


@implementer(ITCPTransport)
class BoundedTransport:
    """The transport of `protocol`, and the peer at its other end.

    For the protocol it is a transport. For a test it is the peer: `say` and `end` send, `take` reads, `heard` is
    what was read. `read_by_itself` makes the peer take everything at the end of each `say` and `take`.
    """

    def __init__(self, manner: str = TCP, limit: int = LIMIT) -> None:
        self.manner = manner
        if manner == TLS:
            directlyProvides(self, ISSLTransport)
        self.limit = limit
        self.protocol = None
        self.producer = None
        self.producer_paused = False
        self.buffer = bytearray()
        self.writes: list[int] = []
        self.heard = bytearray()
        self.reading = True
        self.inbox: list[bytes] = []
        self.in_end = False
        self.ended = False
        self.write_closed = False
        self.write_closing = False
        self.disconnecting = False
        self.disconnected = False
        self.aborted = False
        self.pauses = 0

    def connect(self, protocol) -> BoundedTransport:
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    # What the protocol sees

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        if self.disconnected or self.disconnecting or self.write_closed:
            return
        self.writes.append(len(data))
        self.buffer += data
        if self.producer is not None and len(self.buffer) > self.limit:
            again = self.producer_paused
            self.producer_paused = True
            if not again or self.manner == TCP:
                self.producer.pauseProducing()

    def writeSequence(self, pieces) -> None:
        for piece in pieces:
            self.write(piece)

    def registerProducer(self, producer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None, "a transport has one producer"
        if self.disconnected:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.producer_paused = False

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.reading = False

    def resumeProducing(self) -> None:
        assert not self.ended, "a transport whose peer has ended would report that again"
        if not self.disconnected and not self.disconnecting:
            self.reading = True
            self._deliver()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.reading = False

    def loseWriteConnection(self) -> None:
        assert self.manner == TCP, "there is no half-close over TLS"
        self.write_closing = True

    def abortConnection(self) -> None:
        if not self.disconnected:
            self.aborted = True
            self.buffer.clear()
            self._lose(ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    # What the peer does

    def say(self, *records: bytes) -> None:
        """The peer sends; each of `records` is delivered by itself, as one read (or decrypted record)."""
        self.inbox += records
        self._deliver()

    def end(self) -> None:
        """The peer half-closes."""
        self.in_end = True
        self._deliver()

    def reset(self) -> None:
        """The connection is lost."""
        if not self.disconnected:
            self._lose(ConnectionLost())

    def take(self, most: int | None = None) -> bytes:
        """The peer reads up to `most` bytes (None: all, with what comes as it drains); returns them."""
        before = len(self.heard)
        while True:
            data = bytes(self.buffer[:most])
            del self.buffer[: len(data)]
            self.heard += data
            if self.buffer or self.disconnected:
                break
            if self.producer is not None and self.producer_paused:
                self.producer_paused = False
                self.producer.resumeProducing()
                if self.buffer and most is None:
                    continue
                break
            if self.disconnecting:
                if self.manner == TCP or self.producer is None:
                    self._lose(ConnectionDone())
            elif self.write_closing:
                self.write_closed = True
            break
        return bytes(self.heard[before:])

    def _deliver(self) -> None:
        while self.inbox and not self.disconnected and not self.disconnecting:
            if not self.reading and self.manner == TCP:
                return
            self.protocol.dataReceived(self.inbox.pop(0))
        if self.in_end and not self.inbox and self.reading and not self.ended and not self.disconnected:
            self.ended = True
            if IHalfCloseableProtocol.providedBy(self.protocol) and self.manner == TCP:
                self.protocol.readConnectionLost()
            else:
                self._lose(ConnectionDone())

    def _lose(self, why: Exception) -> None:
        self.disconnected = True
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(why))


class SocketTransport:
    """A transport on a socket; `kept` is what it was given to send, which it does in `send_all`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.kept = bytearray()
        self.producer = None
        self.disconnecting = False

    def getHandle(self) -> socket.socket:
        return self.sock

    def write(self, data: bytes) -> None:
        self.kept += data

    def registerProducer(self, producer, streaming: bool) -> None:
        self.producer, self.streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self.disconnecting = True

    def send_all(self, peer: socket.socket) -> bytes:
        """What the peer hears when all that was kept is sent, too."""
        heard = bytearray()
        while True:
            try:
                heard += peer.recv(1 << 20)
            except BlockingIOError:
                break
        while self.kept:
            del self.kept[: self.sock.send(self.kept)]
            heard += peer.recv(1 << 20)
        if self.producer is not None:
            self.producer.resumeProducing()
        return bytes(heard)
