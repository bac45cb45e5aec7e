"""Clients that may come from where they come from, and others (access.allow)."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.counts import NOT_ALLOWED
from streamproxy.proxy.downstream import DownstreamFactory
from tests.conversation import Stage, settings_of
from tests.fakes import BoundedTransport
from tests.proxy.test_faults import GET, OK, answer
from tests.secure import SecureStage


class FromAddress(BoundedTransport):
    """A client from `peer`."""

    def __init__(self, peer) -> None:
        super().__init__()
        self.peer = peer

    def getPeer(self):
        return self.peer

    def getHost(self):
        return self.peer if isinstance(self.peer, UNIXAddress) else super().getHost()


class AddressTests(SynchronousTestCase):
    WHY = "clients from this address may not use this proxy (access.allow)"

    def begin(self, text: str = "access: {allow: [10.0.0.0/8]}") -> None:
        self.stage = Stage(settings_of(text))

    def setUp(self):
        self.begin()

    def client(self, host: str = "192.0.2.1") -> FromAddress:
        return FromAddress(IPv4Address("TCP", host, 40000)).connect(self.stage.factory.buildProtocol(None))

    def test_one_that_is_not_listed_is_told_so_before_it_says_anything(self):
        client = self.client()
        self.stage.settle(client)
        self.assertEqual(bytes(client.heard), answer("403 Forbidden", self.WHY, close=True))
        (flow,) = self.stage.journal.flows
        self.assertEqual((flow.client, flow.outcome, flow.status), ("192.0.2.1:40000", "refused", 403))
        self.assertEqual(self.stage.proxy.counts.turned_away[NOT_ALLOWED], 1)

    def test_nothing_that_it_says_is_looked_at(self):
        client = self.client()
        client.say(GET)
        self.stage.settle(client)
        self.assertEqual((self.stage.pool.dialled, len(self.stage.journal.flows)), ([], 1))
        self.stage.clock.advance(10)
        self.stage.settle(client)
        self.assertTrue(client.disconnected)
        self.assertEqual((self.stage.proxy.connections, self.stage.clock.getDelayedCalls()), (set(), []))

    def test_one_that_is_listed_is_served(self):
        client = self.client("10.1.2.3")
        client.say(GET)
        self.assertEqual(self.stage.pool.dialled, [("a.example", 80)])

    def test_one_without_an_address_came_by_a_socket_whose_permissions_decide(self):
        client = FromAddress(UNIXAddress(None)).connect(self.stage.factory.buildProtocol(None))
        client.say(GET)
        self.assertEqual(self.stage.pool.dialled, [("a.example", 80)])

    def test_those_who_are_not_listed_take_no_more_than_half_of_the_room(self):
        self.begin("{access: {allow: [10.0.0.0/8]}, limits: {connections: 10}}")
        clients = [self.client() for _ in range(20)]
        self.assertEqual([client.aborted for client in clients], [False] * 5 + [True] * 15)
        self.assertEqual(len(self.stage.journal.flows), 20)
        listed = self.client("10.1.2.3")
        listed.say(GET)
        self.assertEqual(self.stage.pool.dialled, [("a.example", 80)])

    def test_behind_a_balancer_it_is_the_clients_own_address_that_counts(self):
        for told, served in ((b"192.0.2.1", False), (b"10.1.2.3", True)):
            self.begin()
            factory = HAProxyWrappingFactory(DownstreamFactory(self.stage.proxy))
            client = FromAddress(IPv4Address("TCP", "10.0.0.1", 40000)).connect(factory.buildProtocol(None))
            self.assertEqual(self.stage.journal.flows, [])
            client.say(b"PROXY TCP4 %b 10.0.0.2 51000 8080\r\n" % told, GET)
            self.stage.settle(client)
            self.assertEqual(bool(self.stage.pool.dialled), served)
            self.assertEqual(client.heard.startswith(b"HTTP/1.1 403 "), not served)
            if not served:
                self.assertEqual(self.stage.journal.flows[0].client, "192.0.2.1:51000")

    def test_what_a_balancer_says_that_is_no_address_of_the_internet_admits_nobody(self):
        unix = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x31" + (216).to_bytes(2) + b"/a".ljust(108, b"\0") * 2
        for told in (unix, b"PROXY TCP4 notanip 10.0.0.2 51000 8080\r\n"):
            self.begin()
            factory = HAProxyWrappingFactory(DownstreamFactory(self.stage.proxy))
            client = FromAddress(IPv4Address("TCP", "10.0.0.1", 40000)).connect(factory.buildProtocol(None))
            client.say(told, GET)
            self.stage.settle(client)
            self.assertEqual(self.stage.pool.dialled, [])
            self.assertTrue(client.heard.startswith(b"HTTP/1.1 403 "), told)

    def test_one_that_has_yet_to_be_introduced_is_judged_by_the_new_settings_then(self):
        factory = HAProxyWrappingFactory(DownstreamFactory(self.stage.proxy))
        client = FromAddress(IPv4Address("TCP", "10.0.0.1", 40000)).connect(factory.buildProtocol(None))
        self.stage.proxy.obey(settings_of("access: {allow: [192.0.2.0/24]}"), None)
        client.say(b"PROXY TCP4 192.0.2.1 10.0.0.2 51000 8080\r\n", GET)
        self.stage.origin.say(OK)
        self.stage.settle(client)
        self.assertNotIn(b"Connection: close", bytes(client.heard))
        self.assertTrue(client.heard.startswith(b"HTTP/1.1 200 "))

    def test_inside_of_tls_it_is_the_same(self):
        for ends_first in (True, False):
            stage = SecureStage("access: {allow: 127.0.0.0/8}")
            client = stage.secure_client()
            client.say(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
            stage.run(client)
            origin = stage.secure_origin()
            stage.run(client, origin)
            if ends_first:
                origin.say(OK)
                stage.run(client, origin)
            stage.proxy.obey(settings_of("access: {allow: 192.0.2.0/24}"), stage.proxy.tls)
            if not ends_first:
                origin.say(OK)
            stage.run(client, origin)
            self.assertIn(b"\r\n\r\nok", bytes(client.heard))
            self.assertEqual(stage.proxy.under_way, 0)

    def test_who_is_not_admitted_by_new_settings_ends_with_what_is_under_way(self):
        idle, busy, other = self.client("10.0.0.1"), self.client("10.0.0.1"), self.client("10.0.0.2")
        idle.say(GET)
        self.stage.origin.say(OK)
        for client in (busy, other):
            client.say(GET)
        self.stage.proxy.obey(settings_of("access: {allow: [10.0.0.2]}"), None)
        for made in self.stage.pool.made:
            made.say(OK)
        for client in (idle, busy, other):
            self.stage.settle(client)
        self.assertEqual(
            [client.disconnected or client.write_closed for client in (idle, busy, other)], [True, True, False]
        )
        self.assertIn(b"Connection: close\r\n", bytes(busy.heard))
        self.assertTrue(busy.heard.endswith(b"\r\n\r\nok"))


class ShareTests(SynchronousTestCase):
    """One machine beyond this one can't take all memory from the others."""

    HEAD = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n"

    def hold(self, host: str, size: int) -> FromAddress:
        client = FromAddress(IPv4Address("TCP", host, 40000)).connect(self.stage.factory.buildProtocol(None))
        client.say(self.HEAD + bytes(size))
        self.stage.settle(client)
        return client

    def setUp(self) -> None:
        self.stage = Stage(settings_of("hold: always"))
        self.memory = self.stage.proxy.memory
        self.memory.limit = 100_000

    def end(self, *clients: FromAddress) -> None:
        for client in clients:
            client.reset()
        self.assertEqual((self.memory.held, self.memory._shares), (0, {}))

    def test_it_holds_half_and_another_still_has_room(self) -> None:
        one, more, other = (
            self.hold("192.0.2.1", 40_000),
            self.hold("192.0.2.1", 20_000),
            self.hold("192.0.2.2", 40_000),
        )
        self.assertEqual([b" 503 " in client.heard for client in (one, more, other)], [False, True, False])
        self.end(one, more, other)

    def test_addresses_of_one_network_of_ipv6_are_one_machine(self) -> None:
        one, more, other = (self.hold(host, 40_000) for host in ("2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1"))
        self.assertEqual([b" 503 " in client.heard for client in (one, more, other)], [False, True, False])
        self.end(one, more, other)

    def test_this_machine_has_all(self) -> None:
        client = self.hold("127.0.0.1", 80_000)
        self.assertEqual(bytes(client.heard), b"")
        self.end(client)
