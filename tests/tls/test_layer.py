"""TLS on a transport, by itself: what is inside hears nothing before the handshake is done, and of its end once."""

from __future__ import annotations

import contextlib
import ssl

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.tls import layer
from streamproxy.tls.contexts import ClientFacing, OriginFacing
from streamproxy.tls.layer import Tls
from tests.fakes import BoundedTransport
from tests.secure import SecurePeer, client_context, issued_for, origin_ca, proxy_authority, server_context

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Inside(Protocol):
    """Keeps what it is told, in order."""

    unfinished = False

    def __init__(self, said: list[object], greeting: bytes = b"") -> None:
        self.said = said
        self.greeting = greeting

    def connectionMade(self) -> None:
        self.said.append("made")
        if self.greeting:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.said.append(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.said.append(reason.type)


class Producer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class LayerTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.said: list[object] = []
        self.agreed: list[bytes | None] = []

    def inside(self, agreed: bytes | None, greeting: bytes = b"") -> Protocol:
        self.agreed.append(agreed)
        return Inside(self.said, greeting)

    def tls(self, connection: SSL.Connection, greeting: bytes = b"", is_client: bool = False) -> Tls:
        return Tls(
            connection,
            lambda agreed: self.inside(agreed, greeting),
            lambda: self.said.append("done"),
            lambda failure: self.said.append(("failed", failure.type)),
            is_client,
        )

    def serve(self, greeting: bytes = b"") -> BoundedTransport:
        connection = ClientFacing(proxy_authority()).connection("a.example")
        return BoundedTransport().connect(self.tls(connection, greeting))

    def call(self, greeting: bytes = b"") -> BoundedTransport:
        connection, _ = OriginFacing(verifies=lambda host, port: False).connection("a.example", 443)
        return BoundedTransport().connect(self.tls(connection, greeting, is_client=True))

    def run_with(self, peer: SecurePeer) -> None:
        moved = True
        while moved:
            self.clock.advance(0)
            moved = peer.step()

    def client(self, transport: BoundedTransport, *protocols: str, version: ssl.TLSVersion = TLS_1_3) -> SecurePeer:
        context = client_context(proxy_authority().pem, *protocols)
        context.minimum_version = context.maximum_version = version
        return SecurePeer(transport, context, "a.example")

    def server(self, transport: BoundedTransport, *protocols: str, version: ssl.TLSVersion = TLS_1_3) -> SecurePeer:
        context = server_context(issued_for("a.example"), *protocols)
        context.minimum_version = context.maximum_version = version
        return SecurePeer(transport, context, server=True)

    def test_what_is_inside_is_made_when_the_handshake_is_done_and_then_gets_what_is_said(self):
        for begin, peer_of in ((self.serve, self.client), (self.call, self.server)):
            self.said.clear()
            transport = begin()
            peer = peer_of(transport)
            self.assertEqual(self.said, [])
            self.run_with(peer)
            self.assertEqual(self.said, ["made", "done"])
            peer.say(b"hello")
            self.assertEqual(self.said, ["made", "done", b"hello"])

    def test_it_is_told_what_was_agreed_on(self):
        for offered, agreed in (((), None), (("http/1.1",), b"http/1.1"), (("h2",), None)):
            self.run_with(self.client(self.serve(), *offered))
            self.run_with(self.server(self.call(), *offered))
            self.assertEqual(self.agreed[-2:], [agreed, agreed], offered)

    def test_what_comes_with_the_end_of_the_handshake_is_not_lost(self):
        transport = self.serve()
        peer = self.client(transport)
        peer.step()
        self.clock.advance(0)
        peer._in.write(transport.take())
        peer.tls.do_handshake()
        peer.tls.write(b"at once")
        # The client's Finished and its first words in one read.
        peer.flush()
        self.assertEqual(self.said, ["made", "done", b"at once"])

    def test_what_is_written_at_once_goes_out(self):
        for begin, peer_of in ((self.serve, self.client), (self.call, self.server)):
            peer = peer_of(begin(b"welcome"))
            self.run_with(peer)
            self.assertEqual(bytes(peer.heard), b"welcome")

    def test_a_handshake_that_fails_is_told_once_with_openssls_error_and_nothing_is_made(self):
        transport = self.serve()
        peer = SecurePeer(transport, client_context(origin_ca().certificate_pem), "a.example")
        self.run_with(peer)
        transport.reset()
        self.assertEqual(self.said, [("failed", SSL.Error)])
        self.assertEqual(self.agreed, [])

    def test_a_connection_that_ends_in_the_handshake_is_told_once(self):
        for end in (BoundedTransport.end, BoundedTransport.reset):
            for begin in (self.serve, self.call):
                self.said.clear()
                transport = begin()
                transport.take()
                end(transport)
                transport.take()
                self.assertEqual(self.said, [("failed", ConnectionLost)])

    def test_an_end_that_is_said_is_told_from_one_that_is_not(self):
        for begin, peer_of in ((self.serve, self.client), (self.call, self.server)):
            for version in (TLS_1_2, TLS_1_3):
                for ends, told in (("goodbye", ConnectionDone), ("end", ConnectionLost), ("reset", ConnectionLost)):
                    self.said.clear()
                    transport = begin()
                    peer = peer_of(transport, version=version)
                    self.run_with(peer)
                    self.assertEqual(peer.tls.version(), version.name.replace("v1_", "v1."))
                    peer.say(b"last")
                    if ends == "goodbye":
                        peer.say_goodbye()
                        self.run_with(peer)
                    elif ends == "end":
                        transport.end()
                    else:
                        transport.reset()
                    self.assertEqual(self.said, ["made", "done", b"last", told], (ends, version))

    def shaken(self, begin, peer_of) -> tuple[BoundedTransport, SecurePeer]:
        transport = begin()
        peer = peer_of(transport)
        self.run_with(peer)
        return transport, peer

    def test_a_goodbye_is_answered_with_one_only_where_nothing_is_unfinished(self):
        for unfinished in (False, True):
            self.patch(Inside, "unfinished", unfinished)
            transport, peer = self.shaken(self.serve, self.client)
            transport.protocol.write(b"some of it")
            peer.tls.write(b"last")
            with contextlib.suppress(ssl.SSLError):
                peer.tls.unwrap()
            peer.flush()
            peer.step()
            self.assertEqual((bytes(peer.heard), peer.ended), (b"some of it", not unfinished))
            transport.take()
            self.assertTrue(transport.disconnected and not transport.aborted)
            self.assertEqual(self.said[-2:], [b"last", ConnectionDone])

    def test_an_origin_that_says_goodbye_amid_an_exchange_is_sent_no_more(self):
        self.patch(Inside, "unfinished", True)
        transport, peer = self.shaken(self.call, self.server)
        transport.protocol.write(b"unread")
        peer.say_goodbye()
        self.assertTrue(transport.aborted)
        self.assertEqual(self.said, ["made", "done", ConnectionDone])

    def test_a_goodbye_counts_though_a_reset_comes_behind_it(self):
        transport, peer = self.shaken(self.call, self.server)
        peer.say_goodbye()
        transport.reset()
        self.assertEqual(self.said, ["made", "done", ConnectionDone])

    def test_an_end_takes_its_producer_from_the_transport_and_stops_it(self):
        transport, peer = self.shaken(self.serve, self.client)
        producer = Producer()
        transport.protocol.registerProducer(producer, True)
        transport.protocol.write(bytes(100_000))
        self.assertEqual(producer.told, ["pause"])
        peer.say_goodbye()
        # Twisted would never close a transport whose producer it has paused.
        self.assertIsNone(transport.producer)
        self.assertGreater(producer.told.count("pause"), 1)
        self.assertEqual(set(producer.told), {"pause"})

    def test_wire_without_end_with_nothing_said_in_it_is_cut_off(self):
        self.patch(layer, "MOST_QUIET", 1000)
        transport, peer = self.shaken(self.serve, self.client)
        for _ in range(5):
            peer.say(bytes(900))
        transport.say(b"\x17\x03\x03\x3f\xff")
        for _ in range(9):
            transport.say(bytes(100))
        self.assertFalse(transport.disconnected)
        transport.say(bytes(100))
        transport.say(bytes(100))
        self.assertTrue(transport.aborted)

    def test_a_damaged_record_ends_it_with_openssls_error(self):
        transport = self.serve()
        peer = self.client(transport)
        self.run_with(peer)
        transport.say(b"\x17\x03\x03\x00\x20" + bytes(32))
        transport.take()
        self.assertEqual(self.said, ["made", "done", SSL.Error])
        self.assertTrue(transport.disconnected)

    def test_tls_stands_on_tls(self):
        facing = ClientFacing(proxy_authority())
        within: list[object] = []
        inner = Tls(
            facing.connection("a.example"),
            lambda agreed: Inside(within, b"welcome"),
            lambda: within.append("done"),
            within.append,
        )
        outer_tls = Tls(facing.connection("a.example"), lambda agreed: inner, lambda: None, self.fail)
        outer = self.client(BoundedTransport().connect(outer_tls))
        self.run_with(outer)
        peer = SecurePeer(outer, client_context(proxy_authority().pem), "a.example")
        self.run_with(peer)
        peer.say(b"hello")
        self.assertEqual(within, ["made", "done", b"hello"])
        self.assertEqual(bytes(peer.heard), b"welcome")
        peer.say_goodbye()
        self.run_with(peer)
        # It is told when the TLS below has ended, too.
        outer.say_goodbye()
        self.run_with(peer)
        self.assertEqual(within, ["made", "done", b"hello", ConnectionDone])

    def test_no_call_is_left_behind(self):
        transport = self.serve(b"welcome")
        self.run_with(self.client(transport))
        transport.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])
