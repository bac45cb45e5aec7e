"""TLS on a transport that is a socket: what it sends leaves at once, but never before what waits, nor without end."""

from __future__ import annotations

import socket
import ssl

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.sink import Sink
from streamproxy.tls.contexts import ClientFacing
from streamproxy.tls.layer import Tls
from tests.fakes import SocketTransport
from tests.secure import client_context, proxy_authority


class SocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        for each in (ours, self.peer):
            each.setblocking(False)
            self.addCleanup(each.close)
        self.transport = SocketTransport(ours)
        self.sink = Sink(self.transport)
        self.came, self.leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(proxy_authority().pem)
        self.client = context.wrap_bio(self.came, self.leaves, server_hostname="a.example")
        self.inner = Protocol()
        self.failures: list[Failure] = []
        connection = ClientFacing(proxy_authority()).connection("a.example")
        self.tls = Tls(connection, lambda _: self.inner, lambda: None, self.failures.append, sink=self.sink)

    def hello(self) -> None:
        """The client's hello arrives."""
        with self.assertRaises(ssl.SSLWantReadError):
            self.client.do_handshake()
        self.tls.makeConnection(self.transport)
        self.tls.dataReceived(self.leaves.read())

    def shake_hands(self) -> Sink:
        """Up to its end; gives the sink of what is inside."""
        self.hello()
        self.came.write(self.peer.recv(1 << 20))
        self.client.do_handshake()
        self.tls.dataReceived(self.leaves.read())
        return Sink(self.inner.transport)

    def fill(self, sink: Sink) -> int:
        """Write until there is no room; how much that was."""
        written = 0
        while not sink.full:
            sink.write(b"x" * 65536)
            written += 65536
        return written

    def test_its_first_words_come_behind_what_was_said_before_it(self) -> None:
        before = self.fill(self.sink)
        heard = len(self.peer.recv(1 << 20))
        self.hello()
        rest = self.transport.send_all(self.peer)
        plain, hello = rest[: before - heard], rest[before - heard :]
        self.assertEqual(plain, b"x" * (before - heard))
        self.assertEqual(hello[:1], b"\x16")

    def test_its_fullness_is_that_of_the_transport(self) -> None:
        inside = self.shake_hands()
        self.fill(inside)
        self.assertLess(len(self.transport.kept), 200_000)
        self.transport.send_all(self.peer)
        self.assertFalse(inside.full)

    def test_a_peer_that_ends_its_side_below_is_not_written_to_without_end(self) -> None:
        inside = self.shake_hands()
        self.fill(inside)
        self.tls.transport_ended()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        kept = len(self.transport.kept)
        for _ in range(10):
            inside.write(b"x" * 65536)
        self.assertEqual(len(self.transport.kept), kept)
        self.assertTrue(inside.full)

    def test_one_that_ends_in_the_handshake_is_told_of(self) -> None:
        self.hello()
        self.tls.transport_ended()
        self.assertTrue(self.transport.disconnecting)
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.failures), 1)
