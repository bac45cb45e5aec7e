"""What the proxy counts of its connections, handshakes and lookups, as it goes."""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.counts import PASSING
from streamproxy.proxy.pool import Pool
from streamproxy.proxy.route import direct
from streamproxy.settings import Settings
from streamproxy.wire.message import Origin
from tests.conversation import Stage, settings_of
from tests.fakes import BoundedTransport
from tests.secure import SecurePeer, SecureStage, client_context, issue, issued_for, server_context

A = direct(Origin("http", "192.0.2.1", 80))
NAMED = direct(Origin("http", "a.example", 80))
REQUEST = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Resolver:
    """Answers at once with `hosts`."""

    def __init__(self) -> None:
        self.hosts: tuple[str, ...] = ()

    def resolveHostName(self, receiver, name, port=0):
        receiver.resolutionBegan(None)
        for host in self.hosts:
            receiver.addressResolved(IPv4Address("TCP", host, 0))
        receiver.resolutionComplete()


class PoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = self.reactor.nameResolver = Resolver()
        self.pool = Pool(self.reactor, Settings())
        self.counts = self.pool.counts

    def connect(self, route=A) -> Deferred:
        connecting = self.pool.connect(route)
        connecting.addErrback(lambda failure: None)
        return connecting

    def failed(self) -> dict[str, int]:
        return {why: number for why, number in self.counts.connecting_failed.items() if number}

    def test_a_connection_counts_when_it_is_made(self) -> None:
        connecting = self.connect()
        self.assertEqual(self.counts.connected, 0)
        self.reactor.tcpClients[0][2].buildProtocol(None).makeConnection(BoundedTransport())
        self.assertEqual((self.counts.connected, self.counts.reused, self.failed()), (1, 0, {}))
        self.pool.give(self.successResultOf(connecting))
        self.assertIsNotNone(self.pool.take(A))
        self.assertIsNone(self.pool.take(A))
        self.assertEqual((self.counts.connected, self.counts.reused), (1, 1))

    def test_one_that_is_refused_or_takes_too_long_counts_as_that(self) -> None:
        self.connect()
        factory, connector = self.reactor.tcpClients[0][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))
        self.assertEqual(self.failed(), {"refused": 1})
        self.connect()
        self.reactor.advance(100)
        self.assertEqual(self.failed(), {"refused": 1, "timed-out": 1})

    def test_one_of_another_kind_is_counted_as_other(self) -> None:
        self.connect()
        factory, connector = self.reactor.tcpClients[0][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(error.NoRouteError()))
        self.assertEqual(self.failed(), {"other": 1})

    def test_one_that_may_not_be_made_counts_as_denied(self) -> None:
        self.connect(direct(Origin("http", "169.254.169.254", 80)))
        self.assertEqual(self.failed(), {"denied": 1})

    def test_one_that_nobody_waits_for_any_more_is_no_failure(self) -> None:
        self.connect().cancel()
        self.assertEqual((self.counts.connected, self.failed()), (0, {}))

    def test_a_name_counts_as_looked_up_with_an_address_or_without(self) -> None:
        self.connect(NAMED)
        self.assertEqual((self.counts.lookups, self.failed()), ([1, 0], {"name": 1}))
        self.resolver.hosts = ("192.0.2.1", "192.0.2.2")
        self.connect(NAMED)
        self.assertEqual((self.counts.lookups, len(self.pool.lookups)), ([1, 1], 0))


class ClientTests(SynchronousTestCase):
    def test_connections_count_as_they_come_and_those_beyond_the_limit_as_refused(self) -> None:
        stage = Stage(settings_of("limits: {connections: 2}"))
        for _ in range(3):
            stage.client()
        counts = stage.proxy.counts
        self.assertEqual((counts.accepted, counts.turned_away["limit"]), (3, 1))

    def test_bytes_count_on_the_side_where_they_are(self) -> None:
        stage = Stage()
        clients, origins = PASSING.clients, PASSING.origins
        before = clients.received, clients.sent, origins.received, origins.sent
        client = stage.client()
        client.say(REQUEST)
        stage.settle(client)
        stage.origin.say(OK)
        stage.settle(client)
        after = clients.received, clients.sent, origins.received, origins.sent
        passed = [now - then for now, then in zip(after, before, strict=True)]
        self.assertEqual(passed, [len(REQUEST), len(client.heard), len(OK), len(stage.origin.heard)])


class HandshakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = SecureStage()
        self.counts = self.stage.proxy.counts

    def counted(self, with_origin: bool) -> dict[str, int]:
        return {result: number for result, number in self.counts.handshakes[with_origin].items() if number}

    def ask(self) -> SecurePeer:
        """A client that has asked for something by TLS."""
        client = self.stage.secure_client()
        client.say(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.stage.run(client)
        return client

    def test_those_that_come_about_count_on_either_side_and_bytes_of_wire_once(self) -> None:
        clients, origins = PASSING.clients, PASSING.origins
        before = clients.received, clients.sent, origins.received, origins.sent
        client = self.ask()
        self.assertEqual((self.counted(False), self.counted(True)), ({"ok": 1}, {}))
        origin = self.stage.secure_origin()
        self.stage.run(client, origin)
        self.assertEqual((self.counted(False), self.counted(True)), ({"ok": 1}, {"ok": 1}))
        self.assertEqual([each.count for each in self.counts.handshake_durations], [1, 1])
        origin.say(OK)
        self.stage.run(client, origin)
        self.assertTrue(client.heard.endswith(b"ok"))
        after = clients.received, clients.sent, origins.received, origins.sent
        passed = [now - then for now, then in zip(after, before, strict=True)]
        self.assertEqual(passed[1], len(client._transport.heard))
        self.assertEqual(passed[3], len(origin._transport.heard))
        # A ClientHello and a Finished are more than the few bytes inside.
        self.assertGreater(passed[0], 400)
        self.assertGreater(passed[2], 400)

    def test_a_client_that_does_not_trust_us_counts_as_failed(self) -> None:
        transport = self.stage.connect()
        client = SecurePeer(transport, client_context(issue(is_ca=True).certificate_pem), "a.example")
        self.stage.run(client)
        self.assertEqual((self.counted(False), self.counted(True)), ({"failed": 1}, {}))

    def test_a_client_that_takes_too_long_counts_as_that(self) -> None:
        client = SecurePeer(self.stage.connect(), client_context(self.stage.proxy.tls.authority.pem), "a.example")
        # Its ClientHello, and no more.
        client.step()
        self.stage.clock.advance(100)
        self.assertEqual((self.counted(False), self.counted(True)), ({"timed-out": 1}, {}))
        self.assertGreater(self.counts.handshake_durations[0].total, 5)

    def test_an_origin_that_is_not_who_it_should_be_counts_as_failed(self) -> None:
        client = self.ask()
        origin = SecurePeer(self.stage.origin, server_context(issued_for("b.example")), server=True)
        self.stage.run(client, origin)
        self.assertEqual(self.counted(True), {"failed": 1})

    def test_an_origin_that_takes_too_long_counts_once_as_that(self) -> None:
        self.ask()
        self.stage.clock.advance(100)
        self.stage.turn()
        self.assertEqual(self.counted(True), {"timed-out": 1})

    def test_certificates_count_when_they_are_made_and_not_when_they_are_used(self) -> None:
        authority = self.stage.proxy.tls.authority
        before = authority.minted
        for target in ("x1.example:443", "x1.example:443", "x2.example:443"):
            self.stage.secure_client(target)
        self.assertEqual(authority.minted - before, 2)
