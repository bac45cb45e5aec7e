"""TLS on a connection: between a transport that is there already and what is spoken inside.

The transport is a socket's, or another of these (TLS in TLS). What is spoken inside is another protocol's, which hears
nothing before the handshake is done: nothing is written to a peer before it is known who that is. Deadlines and the log
are for who starts a handshake.

This is what Twisted's `TLSMemoryBIOProtocol` does, made anew for a relay. All that one read decrypts to goes in as one
piece, not one for each record. What is written while it is corked becomes whole records, in the same turn of the
reactor, where Twisted gathers until the next. An abort is never announced by a close_notify. In return this has no
producers of its own, for nothing here has to wait: renegotiation is off, so that writing never waits for reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streamproxy.counts import PASSING, UNCOUNTED
from streamproxy.stream.sink import Sink

# What a record holds at the most (RFC 8446 section 5.1), and what its header, its end and its padding may take beside.
LONGEST_RECORD = 16384
ROUND_A_RECORD = 64
# What is written while it is corked is sent when it comes to so much.
MOST_HELD = 65536
# What OpenSSL is given at a time, to encrypt or to decrypt, in bytes: it keeps the room that it once took for it.
MOST_AT_ONCE = 2 * LONGEST_RECORD

# Wire that may come with nothing said in it. A peer needs none but for a few tickets and new keys; each of these costs
# more than a whole record of what is said.
MOST_QUIET = 65536
# What TLS says of its own accord on a connection, beside what is written. They are answers to new keys, of 27 bytes
# each, and who asks for so many of them without end would fill our memory. They are sent with what is written, or
# after so many reads.
MOST_ANSWERED = 131072
ANSWERED_AFTER = 16

# Makes the protocol that is spoken inside, when the handshake is done; it is given what was agreed on by ALPN.
MakeInner = Callable[[bytes | None], Protocol]


def _no_inner(_protocol: bytes | None) -> Protocol:
    raise AssertionError("there is one handshake")


def _nothing(*_: object) -> None:
    pass


@implementer(ISSLTransport, IPushProducer, IConsumer)
class Tls(Protocol):
    """Speaks TLS as `connection` does, from when it is given a transport; a transport itself to what is inside.

    `make_inner` gives what is inside, and `done` is called when that has its transport; `failed` where the handshake
    comes to nothing. One of the two is called, once. `is_client`: the peer is a server. `sink` is the transport's if it
    has one already: what was written to that may still wait, and comes first. Where what is inside says that it is
    `unfinished`, a peer's goodbye isn't answered with one. After that `connectionLost` goes inside: with
    ConnectionDone where the peer had said that it ends (close_notify, RFC 8446 section 6.1), else with what broke.
    """

    transport: Any
    _sink: Sink

    def __init__(
        self,
        connection: SSL.Connection,
        make_inner: MakeInner,
        done: Callable[[], None],
        failed: Callable[[Failure], None],
        is_client: bool = False,
        sink: Sink | None = None,
    ) -> None:
        self._connection = connection
        self._given_sink = sink
        self._is_client = is_client
        self._make_inner = make_inner
        self._done = done
        self._failed = failed
        self._inner: Protocol | None = None
        # What ended it, where that wasn't the transport.
        self._reason: Failure | None = None
        # The peer has said that it ends; known before its last words go inside.
        self.peer_ended = False
        self._lost = False
        self._paused = False
        self._producer: IPushProducer | None = None
        self._producer_paused = False
        # Bytes of wire since something was said.
        self._quiet = 0
        self._reads = self._answered = 0
        # Nothing can be said or heard any more.
        self._over = False
        self._corked = False
        self._held: list[bytes] = []
        self._held_size = 0
        self.disconnecting = False

    # Towards the transport

    def connectionMade(self) -> None:
        # Whoever gave a sink counts by itself, and so does what this is inside of.
        counted = self._given_sink is None and not ISSLTransport.providedBy(self.transport)
        self._traffic = PASSING.origins if counted and self._is_client else UNCOUNTED
        self._sink = Sink(self.transport, self._traffic) if self._given_sink is None else self._given_sink
        self._given_sink = None
        self._sink.pump = self
        self._shake_hands()

    def _shake_hands(self) -> None:
        connection = self._connection
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._send_records(LONGEST_RECORD)
            return
        except SSL.Error:
            self._break()
            return
        self._send_records(LONGEST_RECORD)
        self._inner = inner = self._make_inner(connection.get_alpn_proto_negotiated() or None)
        inner.makeConnection(self)
        done = self._done
        self._forget_who_started()
        done()

    def _forget_who_started(self) -> None:
        """They refer to this; without that, what is over is freed at once."""
        self._make_inner, self._done, self._failed = _no_inner, _nothing, _nothing

    def dataReceived(self, data: bytes) -> None:
        self._traffic.received += len(data)
        if self._over:
            return
        rest = b""
        if len(data) > MOST_AT_ONCE and self._inner is not None:
            data, rest = data[:MOST_AT_ONCE], data[MOST_AT_ONCE:]
        self._connection.bio_write(data)
        if self._inner is None:
            self._shake_hands()
            if self._inner is None:
                return
        size = len(data) + len(rest)
        self._quiet += size
        if self._quiet > MOST_QUIET + size:
            # It sends new keys for ever, or whatever else it is: that takes our time, and our answers our memory.
            self.abortConnection()
            return
        self._read(rest)

    def _read(self, rest: bytes) -> None:
        """Give what can be decrypted, `rest` of the wire with it, to what is inside, in one piece, and then the end if
        that has come."""
        connection, pieces = self._connection, []
        failure: Failure | None = None
        try:
            while not self._over:
                try:
                    pieces.append(connection.recv(LONGEST_RECORD))
                except SSL.WantReadError:
                    if not rest:
                        break
                    connection.bio_write(rest[:MOST_AT_ONCE])
                    rest = rest[MOST_AT_ONCE:]
        except SSL.ZeroReturnError:
            self.peer_ended = True
        except SSL.Error:
            failure = Failure()
        if pieces:
            self._quiet = 0
            assert self._inner is not None
            self._inner.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._reads += 1
        if not pieces or self._reads % ANSWERED_AFTER == 0:
            self._answer()
        if self._over:
            return
        if failure is not None:
            self._break(failure)
        elif self.peer_ended:
            self._answer_goodbye()

    def _answer(self) -> None:
        """Send what TLS itself has to say to what was read."""
        before = self._sink.sent
        self._send_records(LONGEST_RECORD)
        self._answered += self._sink.sent - before
        if self._answered > MOST_ANSWERED and not self._over:
            self.abortConnection()

    def _break(self, failure: Failure | None = None) -> None:
        """OpenSSL can't go on, for the reason `failure`, else the exception that is being handled."""
        self._reason = failure or Failure()
        # The alert that says why.
        self._send_records(LONGEST_RECORD)
        self._end()

    def _answer_goodbye(self) -> None:
        """The peer has said that it ends; so does this, for there is no half-close."""
        if not getattr(self._inner, "unfinished", False):
            self._say_goodbye()
            self._end()
        elif self._is_client:
            # A server that has said all it will: there is no use in what was still to be sent to it.
            self.abortConnection()
        else:
            # A goodbye would say that what it has got is the whole.
            self._end()

    def _end(self) -> None:
        """Send what is written; then the transport is of no use any more."""
        self._over = self.disconnecting = True
        self._let_read()
        producer, self._producer = self._producer, None
        # Twisted doesn't close a transport that has a producer.
        self._sink.release()
        if producer is not None:
            producer.pauseProducing()
        self.transport.loseConnection()

    def transport_ended(self) -> None:
        """The peer has ended its side of what is below, in order or not: there is no half of a TLS connection."""
        if not self._over:
            self._end()

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self._lost = self._over = self.disconnecting = True
        self._held = []
        self._sink.release()
        if self._reason is not None:
            reason = self._reason
        elif self.peer_ended:
            reason = Failure(ConnectionDone())
        elif reason.check(ConnectionDone):
            reason = Failure(ConnectionLost("the connection ended without a close_notify"))
        inner, self._inner = self._inner, None
        failed = self._failed
        self._forget_who_started()
        if inner is not None:
            inner.connectionLost(reason)
        else:
            failed(reason)

    def _send_records(self, size: int) -> None:
        """Send the records that OpenSSL has made, of about so many bytes."""
        size += ROUND_A_RECORD * (size // LONGEST_RECORD + 1)
        try:
            while True:
                records = self._connection.bio_read(size)
                self._sink.write(records)
                if len(records) < size:
                    break
        except SSL.WantReadError:
            pass
        self._note_fullness()

    def _note_fullness(self) -> None:
        """What is written here is written there at once, so its fullness is ours."""
        if self._sink.full and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def sink_moved(self) -> None:
        pass

    def sink_has_room(self) -> None:
        """All that was written has left."""
        if self._producer_paused:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _say_goodbye(self) -> bool:
        """Send a close_notify; whether the peer has sent one, too."""
        try:
            both = self._connection.shutdown()
        except SSL.Error:
            both = False
        self._send_records(LONGEST_RECORD)
        return both

    # Towards what is inside: ITransport

    def write(self, data: bytes) -> None:
        if self.disconnecting:
            return
        if not self._corked:
            self._encrypt(data)
            return
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size >= MOST_HELD:
            self._send_held()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def cork(self) -> None:
        """Gather what is written from now on, until `uncork`, so that it fills its records."""
        self._corked = True
        self._sink.cork()

    def uncork(self) -> None:
        """Send what has been gathered."""
        self._corked = False
        if self._held:
            self._send_held()
        self._sink.uncork()
        self._note_fullness()

    def _send_held(self) -> None:
        held, self._held = self._held, []
        self._held_size = 0
        if not self._over:
            self._encrypt(held[0] if len(held) == 1 else b"".join(held))

    def _encrypt(self, data: bytes) -> None:
        connection, size = self._connection, len(data)
        if size <= LONGEST_RECORD:
            try:
                connection.send(data)
            except SSL.Error:
                self._break()
                return
            self._send_records(size)
            return
        whole = memoryview(data)
        try:
            for at in range(0, size, MOST_AT_ONCE):
                part = whole[at : at + MOST_AT_ONCE]
                left = part
                while left:
                    # One record for each call.
                    left = left[connection.send(left) :]
                self._send_records(len(part))
        except SSL.Error:
            self._break()

    def loseConnection(self) -> None:
        """Say that this ends, behind what is written, and wait until the peer has said so or has gone."""
        if self.disconnecting:
            return
        if self._inner is None:
            self.abortConnection()
            return
        self.uncork()
        self.disconnecting = True
        self._let_read()
        if self._say_goodbye():
            self._end()

    def loseWriteConnection(self) -> None:
        """There is no half-close over TLS (before version 1.3, and few know it of that)."""
        self.loseConnection()

    def abortConnection(self) -> None:
        """End it with a reset, without a close_notify: what was sent can't be taken for a whole."""
        if not self._lost:
            self._over = self.disconnecting = True
            self._sink.release()
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self.transport.resumeProducing()

    def _let_read(self) -> None:
        """While it is paused a transport doesn't find out that it has ended, nor the peer's goodbye."""
        if self._paused:
            self.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # type: ignore[override]
        if self._over:
            producer.stopProducing()
        else:
            self._producer = producer
            self._producer_paused = False

    def unregisterProducer(self) -> None:
        self._producer = None

    def getPeerCertificate(self) -> Any:
        return self._connection.get_peer_certificate()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> bool:
        return self.transport.getTcpNoDelay()  # type: ignore[no-any-return]

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self.transport.getTcpKeepAlive()  # type: ignore[no-any-return]
