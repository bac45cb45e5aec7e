"""Where no connection is made to: what `access.origins` denies, by any name and in any form, and the proxy itself."""

from __future__ import annotations

import contextlib
import socket

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import permission
from streamproxy.proxy.dial import Dial
from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.lookups import Lookups
from streamproxy.proxy.permission import Denied, OwnAddresses, Permission
from streamproxy.proxy.pool import Pool
from streamproxy.proxy.proxy import Proxy
from streamproxy.tls.contexts import ClientFacing
from tests.conversation import VIA, FakeJournal, settings_of
from tests.fakes import BoundedTransport
from tests.proxy.test_dial import Resolver
from tests.proxy.test_opening import ESTABLISHED, connect_to
from tests.secure import SecurePeer, SecureStage, client_context, proxy_authority

NEIGHBOURS = "access: {origins: {deny: [127.0.0.0/8, '::1', 10.0.0.0/8, '*.internal']}}"
# How 127.0.0.1 may be written, and what of that a resolver makes.
LOOPBACKS = ("127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "0177.0.0.1", "2130706433", "0", "0.0.0.0")


def permission_of(text: str, *own: tuple[str, int]) -> Permission:
    """What settings of YAML `text` permit to a proxy that listens at `own`."""
    return Permission(settings_of(text).access.origins, own_addresses(*own))


def own_addresses(*own: tuple[str, int]) -> OwnAddresses:
    addresses = OwnAddresses()
    addresses.replace((IPv6Address if ":" in host else IPv4Address)("TCP", host, port) for host, port in own)
    return addresses


class DialTests(SynchronousTestCase):
    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.resolver = self.reactor.nameResolver = Resolver()
        self.lookups = Lookups(self.reactor, 2)
        self.permission = permission_of(NEIGHBOURS)

    def dial(self, host: str):
        factory = Factory.forProtocol(Protocol)
        self.outcome = Dial(self.reactor, self.lookups, host, 80, factory, 10, self.permission).start()
        return self.outcome

    @property
    def tried(self):
        return [attempt[0] for attempt in self.reactor.tcpClients]

    def assert_denied(self, why: str, status: int = 403) -> None:
        denied = self.failureResultOf(self.outcome, Denied).value
        self.assertEqual((denied.why, denied.status, self.tried), (why, status, []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_name_that_leads_there_is_not_followed(self):
        for address, range_ in (("10.1.2.3", "10.0.0.0/8"), ("::1", "::1"), ("::ffff:10.1.2.3", "10.0.0.0/8")):
            self.dial("a.example")
            self.resolver.answer(address)
            self.assert_denied(f"a.example is refused by access.origins.deny: {range_}")

    def test_of_several_addresses_those_are_left_out(self):
        self.dial("a.example")
        self.resolver.answer("10.1.2.3", "192.0.2.1", "127.0.0.1", "192.0.2.2")
        for number in range(2):
            factory = self.reactor.tcpClients[number][2]
            factory.clientConnectionFailed(self.reactor.connectors[number], Failure(error.ConnectionRefusedError()))
        self.assertEqual(self.tried, ["192.0.2.1", "192.0.2.2"])
        self.failureResultOf(self.outcome, error.ConnectionRefusedError)

    def test_it_is_asked_at_each_dial_for_names_change_where_they_lead(self):
        self.dial("a.example")
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.tried, ["192.0.2.1"])
        self.dial("a.example")
        self.resolver.answer("127.0.0.1")
        self.failureResultOf(self.outcome, Denied)

    def test_an_address_in_any_form_is_denied_without_a_lookup(self):
        for host in (*LOOPBACKS, "127.0.0.1.", "::1", "::", "::ffff:127.0.0.1", "::ffff:0:0"):
            self.dial(host)
            self.failureResultOf(self.outcome, Denied)
        self.assertEqual((self.tried, self.resolver.asked), ([], []))

    def test_so_is_a_name_that_is_denied_as_such(self):
        self.dial("db.internal")
        self.assert_denied("db.internal is refused by access.origins.deny: *.internal")
        self.assertEqual(self.resolver.asked, [])

    def test_what_is_not_denied_is_dialled(self):
        for host in ("192.0.2.1", "2001:db8::1"):
            self.dial(host)
            self.assertEqual(self.tried[-1], host)

    def test_a_name_without_an_address_is_no_denial(self):
        self.dial("a.example")
        self.resolver.answer()
        self.failureResultOf(self.outcome, error.DNSLookupError)

    def test_nothing_but_what_is_allowed_is_dialled(self):
        self.permission = permission_of("access: {origins: {allow: [a.example, 192.0.2.0/24], deny: 10.0.0.0/8}}")
        for name, address, dialled in (
            ("a.example", "198.51.100.1", True),
            ("a.example", "10.1.2.3", False),
            ("b.example", "192.0.2.1", True),
            ("b.example", "198.51.100.1", False),
        ):
            before = len(self.tried)
            self.dial(name)
            self.resolver.answer(address)
            self.assertEqual(len(self.tried) > before, dialled, (name, address))
            if not dialled:
                self.failureResultOf(self.outcome, Denied)

    def test_the_proxy_itself_is_a_loop(self):
        self.permission = permission_of("", ("127.0.0.1", 80), ("192.0.2.9", 80))
        for name, addresses in (("a.example", ["127.0.0.1"]), ("b.example", ["0.0.0.0", "192.0.2.9"])):
            self.dial(name)
            self.resolver.answer(*addresses)
            self.assert_denied(f"a loop: {name} is this proxy itself", 508)
        for host in (*LOOPBACKS, "192.0.2.9"):
            self.dial(host)
            self.assert_denied(f"a loop: {host} is this proxy itself", 508)
        self.dial("127.0.0.2")
        self.assertEqual(self.tried, ["127.0.0.2"])


class OwnAddressesTests(SynchronousTestCase):
    def test_the_address_and_the_port_count(self):
        own = own_addresses(("127.0.0.1", 8080), ("127.0.0.1", 8081), ("::1", 8082))
        for address, port in (("127.0.0.1", 8080), ("127.0.0.1", 8081), ("::1", 8082), ("::ffff:127.0.0.1", 8080)):
            self.assertTrue(own.has(address, port), (address, port))
        for address, port in (("127.0.0.1", 8082), ("127.0.0.1", 80), ("127.0.0.2", 8080), ("::1", 8080)):
            self.assertFalse(own.has(address, port), (address, port))

    def test_all_zeros_reach_the_loopback(self):
        own = own_addresses(("127.0.0.1", 8080), ("::1", 8082))
        self.assertTrue(own.has("0.0.0.0", 8080) and own.has("::", 8082) and own.has("::ffff:0.0.0.0", 8080))
        self.assertFalse(own.has("::", 8080))

    def test_one_that_listens_everywhere_is_at_every_address_of_this_machine(self):
        own = own_addresses(("0.0.0.0", 8080), ("::", 8082))
        for address in ("127.0.0.1", "127.9.9.9", "0.0.0.0", "::ffff:127.0.0.1"):
            self.assertTrue(own.has(address, 8080), address)
            self.assertTrue(own.has(address, 8082), address)
        self.assertTrue(own.has("::1", 8082))
        self.assertFalse(own.has("::1", 8080))
        for address in ("192.0.2.77", "8.8.8.8", "2001:db8::1"):
            self.assertFalse(own.has(address, 8080) or own.has(address, 8082), address)

    def test_every_address_that_this_machine_has_is_found(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with contextlib.suppress(OSError):
                sock.connect(("192.0.2.77", 9))
            here = sock.getsockname()[0]
        self.assertTrue(own_addresses(("0.0.0.0", 8080)).has(here, 8080))

    def test_where_it_listens_everywhere_but_not_at_that_port_nobody_is_asked(self):
        self.patch(permission, "_is_this_machines", lambda address: self.fail("asked"))
        self.assertFalse(own_addresses(("0.0.0.0", 8080)).has("192.0.2.1", 80))

    def test_those_of_before_are_forgotten_and_those_without_a_port_do_not_count(self):
        own = own_addresses(("127.0.0.1", 8080))
        own.replace([IPv4Address("TCP", "127.0.0.1", 9090), UNIXAddress(b"/run/x")])
        self.assertEqual((own.has("127.0.0.1", 8080), own.has("127.0.0.1", 9090)), (False, True))


class ExchangeTests(SynchronousTestCase):
    def begin(self, text: str = NEIGHBOURS) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = self.reactor.nameResolver = Resolver()
        settings = settings_of(text)
        self.journal = FakeJournal()
        self.pool = Pool(self.reactor, settings)
        self.proxy = Proxy(settings, self.pool, self.journal, self.reactor, VIA)
        self.client = BoundedTransport().connect(DownstreamFactory(self.proxy).buildProtocol(None))

    def setUp(self):
        self.begin()

    @property
    def tried(self):
        return [attempt[:2] for attempt in self.reactor.tcpClients]

    def heard(self) -> bytes:
        for _ in range(3):
            self.reactor.advance(0)
            self.client.take()
        return bytes(self.client.heard)

    def ask(self, url: str, method: str = "GET", rest: str = "\r\n") -> None:
        self.client.say(f"{method} {url} HTTP/1.1\r\nHost: x\r\n{rest}".encode())

    def assert_refused(self, status: int, why: str) -> None:
        heard = self.heard()
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), heard)
        self.assertTrue(heard.endswith(why.encode() + b"\n"), heard)
        flow = self.journal.flows[-1]
        self.assertEqual((flow.outcome, flow.status, flow.error), ("refused", status, why))
        self.assertEqual(self.tried, [])

    def test_a_request_is_refused_with_the_key_that_refused_it(self):
        self.ask("http://db.internal:8080/")
        self.assert_refused(403, "db.internal:8080 is refused by access.origins.deny: *.internal")
        self.assertEqual(self.resolver.asked, [])

    def test_so_is_one_to_a_name_that_leads_there(self):
        self.ask("http://a.example/")
        self.resolver.answer("127.0.0.1")
        self.assert_refused(403, "a.example is refused by access.origins.deny: 127.0.0.0/8")

    def test_the_connection_is_kept_for_the_next(self):
        self.ask("http://db.internal/")
        self.ask("http://192.0.2.1/")
        self.heard()
        self.assertEqual(self.tried, [("192.0.2.1", 80)])

    def test_a_body_that_is_held_is_not_waited_for(self):
        self.begin(f"{NEIGHBOURS}\nhold: always")
        self.ask("http://db.internal/", "POST", "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        self.assert_refused(403, "db.internal is refused by access.origins.deny: *.internal")

    def test_where_a_rule_leads_to_counts_as_well(self):
        self.begin(f'{NEIGHBOURS}\nrules: [{{match: {{host: a.example}}, redirect_to: "http://127.0.0.1:81/"}}]')
        self.ask("http://a.example/")
        self.assert_refused(403, "127.0.0.1:81 is refused by access.origins.deny: 127.0.0.0/8")

    def test_what_a_rule_answers_needs_no_origin(self):
        self.begin(f"{NEIGHBOURS}\nrules: [{{match: {{host: db.internal}}, respond: {{text: hello}}}}]")
        self.ask("http://db.internal/")
        self.assertTrue(self.heard().endswith(b"\r\n\r\nhello"))

    def test_metadata_of_a_cloud_is_out_of_reach_by_itself(self):
        self.begin("")
        self.ask("http://169.254.169.254/latest/meta-data/")
        self.assert_refused(403, "169.254.169.254 is refused by access.origins.deny: 169.254.0.0/16")

    def test_a_tunnel_is_refused_before_it_is_established_where_that_is_known(self):
        for host in ("db.internal", "127.1", "[::1]"):
            self.begin()
            # Else it would be answered, and its client's first bytes waited for.
            self.proxy.tls = ClientFacing(proxy_authority(), "1.2")
            self.client.say(connect_to(f"{host}:443"))
            heard = self.heard()
            self.assertTrue(heard.startswith(b"HTTP/1.1 403 "), heard)
            self.assertEqual((self.resolver.asked, self.tried), ([], []))

    def test_and_otherwise_when_its_origin_is_dialled(self):
        self.begin(f"{NEIGHBOURS}\ntls: {{intercept: false}}")
        self.client.say(connect_to("a.example:443"))
        self.resolver.answer("10.1.2.3")
        self.assert_refused(403, "a.example:443 is refused by access.origins.deny: 10.0.0.0/8")
        self.assertNotIn(ESTABLISHED, self.heard())

    def test_the_proxy_itself_and_what_else_it_listens_on_is_no_origin(self):
        self.begin("")
        self.pool.own.replace([IPv4Address("TCP", "127.0.0.1", 8080), IPv4Address("TCP", "127.0.0.1", 8081)])
        self.ask("http://127.0.0.1:8081/reload", "POST", "Content-Length: 0\r\n\r\n")
        self.assert_refused(508, "a loop: 127.0.0.1:8081 is this proxy itself")
        self.client.say(connect_to("127.0.0.1:8080"))
        self.assertIn(b"HTTP/1.1 508 ", self.heard())

    def test_its_own_page_stays(self):
        self.begin("access: {origins: {allow: [a.example]}}")
        self.ask("http://streamproxy.test/")
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 200 "))
        self.begin("access: {origins: {allow: [a.example]}}")
        self.proxy.tls = ClientFacing(proxy_authority(), "1.2")
        self.client.say(connect_to("streamproxy.test:443"))
        self.assertEqual(self.heard(), ESTABLISHED)

    def test_new_settings_hold_for_what_is_dialled_then(self):
        self.pool.obey(settings_of("access: {origins: {deny: 192.0.2.0/24}}"), self.pool._tls)
        self.ask("http://192.0.2.1/")
        self.assert_refused(403, "192.0.2.1 is refused by access.origins.deny: 192.0.2.0/24")


class OtherNamesTests(SynchronousTestCase):
    """A tunnel to something else in which a denied origin is spoken to."""

    def setUp(self):
        self.stage = SecureStage("access: {origins: {deny: [secret.example]}}")

    def test_tls_for_it_is_refused(self):
        for target in ("203.0.113.9:443", "good.example:443"):
            client = self.stage.client()
            client.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            self.stage.turn()
            self.assertTrue(client.take().startswith(b"HTTP/1.1 200 "))
            peer = SecurePeer(client, client_context(proxy_authority().pem), "secret.example")
            self.stage.run(peer)
            self.assertFalse(peer.shaken)
            self.assertEqual(self.stage.pool.made, [])
            flow = self.stage.journal.flows[-1]
            why = "secret.example:443 is refused by access.origins.deny: secret.example"
            self.assertEqual((flow.outcome, flow.error), ("refused", why))

    def test_plain_requests_for_it_are_refused(self):
        client = self.stage.connect("203.0.113.9:80")
        client.say(b"GET / HTTP/1.1\r\nHost: secret.example\r\n\r\n")
        self.stage.turn()
        self.assertTrue(client.take().startswith(b"HTTP/1.1 403 "))
        self.assertEqual(self.stage.pool.made, [])
