"""From a CONNECT to what is spoken in its tunnel: the 200, the first bytes however they are cut, and who reads them."""

from __future__ import annotations

import itertools
import ssl

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.flow import Flow
from tests.fakes import TCP, BoundedTransport
from tests.proxy.test_faults import OK
from tests.secure import SecurePeer, SecureStage, client_context, proxy_authority

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
GOT = b"GET /x HTTP/1.1\r\nHost: a.example:443\r\nVia: 1.1 proxy\r\n\r\n"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
# All that may linger when an end has been decided on, and what is kept for others.
LINGERING = 400


def connect_to(target: str = "a.example:443", *fields: str, version: str = "1.1") -> bytes:
    """The head of a CONNECT."""
    return "\r\n".join([f"CONNECT {target} HTTP/{version}", f"Host: {target}", *fields, "", ""]).encode()


def say_hello(name: str | None = "a.example", *protocols: str) -> bytes:
    """A ClientHello, as Python's ssl makes it."""
    context = client_context(None, *protocols)
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake with nobody")


def alert_of(data: bytes) -> int | None:
    """The number of the one fatal alert that `data` is."""
    return data[6] if len(data) == 7 and data[:1] == b"\x15" and data[3:6] == b"\0\x02\x02" else None


class Resolver:
    """Looks up what is in `addresses` at once; with `waits`, when it is told to."""

    def __init__(self, addresses: dict[str, list[str]]) -> None:
        self.addresses = addresses
        self.waits = False
        self.asked: list[str] = []
        self.receivers: list[object] = []

    def resolveHostName(self, receiver, name, port=0):
        self.asked.append(name)
        self.receivers.append(receiver)
        if not self.waits:
            self.answer()

    def answer(self) -> None:
        for receiver in self.receivers:
            for address in self.addresses.get(receiver.name, ()):
                kind = IPv6Address if ":" in address else IPv4Address
                receiver.addressResolved(kind("TCP", address, 0))
            receiver.resolutionComplete()
        self.receivers.clear()


class OpeningTestCase(SynchronousTestCase):
    """A stage with one client, who has said nothing yet."""

    rules = ""
    manner = TCP

    def setUp(self) -> None:
        self.begin(self.rules)

    def begin(self, rules: str = "", addresses: dict[str, list[str]] | None = None) -> None:
        """A new stage."""
        self.stage = SecureStage(rules, self.manner)
        # Whatever its clients do, the proxy's connections to origins are TCP here.
        self.stage.pool.manner = TCP
        self._told: dict[BoundedTransport, int] = {}
        self.stage.clock.nameResolver = self.resolver = Resolver(addresses or {})
        self.client = self.stage.client()

    @property
    def origin(self) -> BoundedTransport:
        return self.stage.origin

    @property
    def dialled(self) -> list[tuple[str, int]]:
        return self.stage.pool.dialled

    @property
    def flow(self) -> Flow:
        (only,) = self.stage.journal.flows
        return only

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(flow.method, flow.outcome) for flow in self.stage.journal.flows]

    def open(self, target: str = "a.example:443", *fields: str) -> None:
        """The client says CONNECT, and reads the 200."""
        self.client.say(connect_to(target, *fields))
        self.assertEqual(self.heard(), ESTABLISHED)

    def heard(self) -> bytes:
        """What the client has heard since the last time, when everybody has read."""
        return self._news(self.client)

    def origin_heard(self) -> bytes:
        """The same of the newest origin."""
        return self._news(self.origin)

    def _news(self, peer: BoundedTransport) -> bytes:
        self.stage.settle(self.client)
        at = self._told.get(peer, 0)
        self._told[peer] = len(peer.heard)
        return bytes(peer.heard[at:])

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass; everybody reads."""
        while seconds > 0:
            self.stage.clock.advance(min(step, seconds))
            self.stage.settle(self.client)
            seconds -= step

    def has_ended(self, peer: BoundedTransport) -> bool:
        """Whether `peer` has been told, in order, that there is no more to come."""
        return peer.write_closed or (peer.disconnected and not peer.aborted)

    def fall_silent(self) -> None:
        """The client says nothing for so long that the origin may."""
        self.wait(0.3)

    def secure(self, name: str = "a.example", below=None, *protocols: str) -> SecurePeer:
        """TLS with the proxy, done, by a client that trusts it."""
        peer = SecurePeer(below or self.client, client_context(proxy_authority().pem, *protocols), name)
        self.stage.run(peer)
        self.assertTrue(peer.shaken, peer.error)
        return peer

    def assert_nothing_left(self, seconds: float = LINGERING) -> None:
        """When what may linger has had its time, there is no connection and no call any more."""
        self.wait(seconds, 10.0)
        self.stage.journal.flush()
        self.assertTrue(self.client.disconnected)
        self.assertEqual([made.disconnected for made in self.stage.pool.made], [True] * len(self.stage.pool.made))
        self.assertEqual(self.stage.proxy.connections, set())
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])


class EstablishedTests(OpeningTestCase):
    def test_the_answer_is_these_bytes_and_no_more(self):
        self.client.say(connect_to())
        self.assertEqual(self.heard(), ESTABLISHED)

    def test_it_comes_before_anything_is_dialled(self):
        self.client.say(connect_to())
        self.assertEqual((self.heard(), self.dialled), (ESTABLISHED, []))

    def test_a_client_of_1_0_gets_the_same(self):
        self.client.say(connect_to(version="1.0"))
        self.assertEqual(self.heard(), ESTABLISHED)
        self.client.say(GET)
        self.assertEqual(self.origin_heard(), GOT)

    def test_what_stands_in_its_other_fields_changes_nothing(self):
        self.open("a.example:443", "Proxy-Connection: keep-alive", "User-Agent: x", "Connection: close")

    def test_host_may_say_something_else(self):
        self.client.say(b"CONNECT a.example:80 HTTP/1.1\r\nHost: other.example\r\n\r\n" + GET)
        self.assertEqual(self.heard(), ESTABLISHED)
        self.assertEqual(self.dialled, [("a.example", 80)])

    def test_one_behind_other_requests_waits_for_its_turn(self):
        self.client.say(b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n" + connect_to() + GET)
        self.assertEqual((self.heard(), self.dialled), (b"", [("b.example", 80)]))
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK + ESTABLISHED)
        self.assertEqual(self.dialled, [("b.example", 80), ("a.example", 443)])
        self.assertEqual(self.origin_heard(), GOT)

    def test_one_behind_many_requests_that_are_answered_at_once(self):
        self.begin("rules: [{match: {host: b.example}, respond: {text: hi}}]")
        ask = b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"
        for many in (7, 8, 9, 16, 17, 50):
            self.client = self.stage.client()
            self.client.say(ask * many + connect_to() + GET)
            heard = self.heard()
            self.assertEqual(heard.count(b"hi"), many)
            self.assertTrue(heard.endswith(b"hi" + ESTABLISHED), heard[-200:])
            self.assertEqual(self.stage.pool.made[-1].heard, GOT)

    def test_its_size_on_the_log_is_its_own(self):
        ask = b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"
        self.client.say(ask + connect_to())
        self.stage.settle(self.client)
        self.origin.say(OK)
        self.stage.settle(self.client)
        self.client.say(GET)
        self.stage.settle(self.client)
        self.origin.say(OK)
        self.stage.settle(self.client)
        sizes = [(flow.client_in, flow.client_out) for flow in self.stage.journal.flows]
        answered = len(HEARD_OK)
        self.assertEqual(sizes, [(len(ask), answered), (len(connect_to()), len(ESTABLISHED)), (len(GET), answered)])


class HelloTests(OpeningTestCase):
    """A ClientHello means the same however it comes."""

    def outcome_of(self, cuts: list[int]) -> tuple:
        """What a client is shown that says CONNECT and a ClientHello cut at `cuts`, and what the log says of it."""
        self.client = client = self.stage.client()
        self.stage.journal.flows.clear()
        peer = SecurePeer(client, self.context, "b.example")
        with self.assertRaises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        said = connect_to() + peer._out.read()
        places = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
        for start, end in itertools.pairwise(places):
            client.say(said[start:end])
        heard = client.take()
        self.assertEqual(heard[: len(ESTABLISHED)], ESTABLISHED, cuts)
        peer._in.write(heard[len(ESTABLISHED) :])
        self.stage.run(peer)
        self.assertTrue(peer.shaken, (cuts, peer.error))
        certificate = peer.tls.getpeercert()
        names = [value for _, value in certificate["subjectAltName"]]
        flow = self.flow
        found = names, peer.tls.selected_alpn_protocol(), flow.outcome, flow.status, flow.url, self.dialled
        client.reset()
        return found

    def setUp(self):
        super().setUp()
        self.context = client_context(proxy_authority().pem, "h2", "http/1.1")
        self.expected = (["b.example"], "http/1.1", "switched", 200, "a.example:443", [])

    def test_split_at_every_place_of_both(self):
        # The hello's random bytes differ, its length doesn't.
        whole = len(connect_to()) + len(say_hello("b.example", "h2", "http/1.1"))
        for at in range(1, whole):
            self.assertEqual(self.outcome_of([at]), self.expected, at)

    def test_byte_by_byte(self):
        self.assertEqual(self.outcome_of(list(range(1, 5000))), self.expected)

    def test_in_one_read_with_its_connect(self):
        self.assertEqual(self.outcome_of([]), self.expected)

    def test_one_that_is_let_through_arrives_as_it_left_however_it_is_cut(self):
        self.begin("tls: {passthrough: [b.example]}")
        hello = say_hello("b.example")
        for cuts in ([], *([at] for at in range(1, len(hello))), list(range(1, len(hello)))):
            self.client = self.stage.client()
            self.client.say(connect_to())
            for start, end in zip([0, *cuts], [*cuts, len(hello)], strict=True):
                self.assertEqual(self.stage.pool.made, [], cuts)
                self.client.say(hello[start:end])
            self.stage.settle(self.client)
            self.assertTrue(self.origin.heard == hello, cuts)
            self.client.reset()
            self.stage.pool.made.clear()


class FirstBytesTests(OpeningTestCase):
    """What the first bytes are decides who reads them."""

    OTHER = [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x16\x02\x00",
        b"EHLO me\r\n",
        b"0032git-upload-pack /a\x00host=b\x00",
        b"\x80\x2e\x01\x03\x01",
    ]

    def test_what_is_neither_tls_nor_http_is_relayed(self):
        for said in self.OTHER:
            self.begin()
            self.open("a.example:22")
            self.client.say(said)
            self.stage.settle(self.client)
            self.assertEqual(self.dialled, [("a.example", 22)], said)
            self.assertEqual(bytes(self.origin.heard), said)
            self.origin.say(b"hello yourself")
            self.assertEqual(self.heard(), b"hello yourself")
            self.client.end()
            self.origin.end()
            self.stage.settle(self.client)
            self.assertEqual((self.flow.outcome, self.flow.request.how), ("tunnelled", "tunnelled"), said)
            self.assertEqual(self.flow.request.why, "neither TLS nor HTTP")

    def test_it_is_so_byte_by_byte_and_behind_the_connect(self):
        for said in self.OTHER:
            for together in (True, False):
                self.begin()
                if together:
                    self.client.say(connect_to("a.example:22") + said)
                else:
                    for byte in connect_to("a.example:22") + said:
                        self.client.say(bytes([byte]))
                self.assertEqual(self.heard(), ESTABLISHED)
                self.assertEqual(bytes(self.origin.heard), said)

    def test_too_few_to_tell_are_waited_for_and_then_given_up(self):
        for said in (b"\x16", b"SSH-2.0-x", b"\r\n", b"G", b"GET", say_hello()[:50]):
            self.begin("timeouts: {head: 5, handshake: 5}")
            self.open()
            self.client.say(said)
            self.wait(4)
            self.assertFalse(self.client.disconnected, said)
            self.wait(1)
            self.assertTrue(self.client.disconnected, said)
            self.assertEqual(
                (self.flow.outcome, self.flow.error), ("timed-out", "the client's first bytes took too long")
            )
            self.assertEqual(self.dialled, [])
            self.assert_nothing_left()

    def test_a_client_that_ends_before_it_can_be_told_is_relayed_as_it_is(self):
        for said in (b"\x16", b"SSH-2.0-x", b"\r\n"):
            self.begin()
            self.open()
            self.client.say(said)
            self.client.end()
            self.assertEqual(self.origin_heard(), said)
            self.assertTrue(self.origin.write_closed)
            self.origin.say(b"bye")
            self.origin.end()
            self.assertEqual(self.heard(), b"bye")
            self.assertEqual(self.flow.outcome, "tunnelled")
            self.assert_nothing_left()

    def test_what_begins_as_tls_and_is_none_is_told_of_in_words(self):
        for said in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff", say_hello()[:5] + b"\2" + say_hello()[6:]):
            self.begin()
            self.open()
            self.client.say(said)
            self.stage.settle(self.client)
            self.assertTrue(self.client.disconnected, said[:10])
            self.assertEqual((self.flow.outcome, self.dialled), ("failed", []))
            self.assertIn("the client's TLS handshake for a.example failed: what it sent ", self.flow.error)
            self.assert_nothing_left(0.2)

    def test_a_client_that_ends_inside_its_hello_is_gone(self):
        self.open()
        self.client.say(say_hello()[:-1])
        self.client.end()
        self.assert_nothing_left()
        self.assertEqual(self.flow.outcome, "client-gone")
        self.assertEqual(self.flow.error, "the client ended its side inside its ClientHello")
