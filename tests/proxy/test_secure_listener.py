"""A client that speaks TLS to the proxy's own port, as to a proxy with an https:// URL."""

from __future__ import annotations

from cryptography import x509

from tests.proxy.test_faults import OK
from tests.proxy.test_opening import ESTABLISHED, HEARD_OK, OpeningTestCase, connect_to, say_hello
from tests.secure import SecurePeer, client_context, proxy_authority

ASK = b"GET http://b.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n"
ASKED = b"GET /x HTTP/1.1\r\nHost: b.example\r\nVia: 1.1 proxy\r\n\r\n"


class SecureListenerTestCase(OpeningTestCase):
    def shaken(self, name: str = "proxy.example", *protocols: str) -> SecurePeer:
        """TLS with the proxy itself, under that name."""
        peer = self.secure(name, None, *protocols)
        self.assertEqual(self.stage.journal.flows, [], "a handshake that came about has no line")
        return peer

    def leave(self, *peers: SecurePeer) -> None:
        """They say goodbye, the innermost first."""
        for peer in peers:
            peer.say_goodbye()
            self.stage.run(peer)


class SecureListenerTests(SecureListenerTestCase):
    def test_it_is_a_proxy_as_on_any_connection(self):
        peer = self.shaken()
        for _ in range(2):
            peer.say(ASK)
            self.stage.run(peer)
            self.assertEqual(self.origin_heard(), ASKED)
            self.origin.say(OK)
            self.stage.run(peer, self.origin)
            self.assertEqual(peer.take(), HEARD_OK)
        self.assertEqual(self.dialled, [("b.example", 80)])
        self.leave(peer)
        self.assert_nothing_left()
        flows = [(flow.url, flow.outcome, flow.client_in, flow.client_out) for flow in self.stage.journal.flows]
        self.assertEqual(flows, [("http://b.example/x", "forwarded", len(ASK), len(HEARD_OK))] * 2)

    def test_it_goes_by_the_name_that_it_is_called_by_or_else_by_its_address(self):
        for name in ("proxy.example", "127.0.0.1"):
            self.begin()
            peer = self.shaken(name)
            certificate = x509.load_der_x509_certificate(peer.tls.getpeercert(True))
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            self.assertEqual([str(each.value) for each in names], [name])

    def test_only_a_whole_url_is_asked_for(self):
        peer = self.shaken()
        peer.say(b"GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.stage.run(peer)
        self.assertTrue(peer.heard.startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.outcomes, [("GET", "malformed")])

    def test_rules_hold(self):
        self.begin("rules: [{match: {host: b.example}, block: 403}]")
        peer = self.shaken()
        peer.say(ASK)
        self.stage.run(peer)
        self.assertTrue(peer.heard.startswith(b"HTTP/1.1 403 "))

    def test_what_is_to_be_let_through_or_left_alone_is_not_about_the_proxy_itself(self):
        for rules in ("tls: {intercept: false}", "tls: {passthrough: [proxy.example]}", "tls: {only: [b.example]}"):
            self.begin(rules)
            self.shaken()

    def test_a_hello_may_come_in_any_pieces(self):
        hello = len(say_hello("proxy.example"))
        for cuts in ([], *([at] for at in range(1, hello)), list(range(1, hello))):
            self.client = self.stage.client()
            peer = SecurePeer(Cut(self.client, cuts), client_context(proxy_authority().pem), "proxy.example")
            self.stage.run(peer)
            self.assertTrue(peer.shaken, (cuts, peer.error))
            self.client.reset()
        self.assertEqual(self.stage.journal.flows, [])

    def test_a_proxy_without_an_authority_says_that_it_speaks_no_tls(self):
        self.stage.proxy.tls = None
        self.client.say(say_hello())
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.outcomes, [("-", "malformed")])
        self.assert_nothing_left(13)

    def test_tls_is_for_the_first_bytes_only(self):
        self.client.say(ASK)
        self.heard()
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK)
        self.client.say(say_hello())
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 400 "))

    def test_tls_in_tls_without_a_connect_is_no_request(self):
        peer = self.shaken()
        peer.say(say_hello())
        self.stage.run(peer)
        self.assertTrue(peer.heard.startswith(b"HTTP/1.1 400 "))

    def test_too_many_connections_are_told_so_in_plain_words(self):
        self.begin("limits: {connections: 1}")
        second = self.stage.client()
        self.assertTrue(second.take().startswith(b"HTTP/1.1 503 "))


class Cut:
    """Sends what a peer says first in the pieces that `cuts` make of it."""

    def __init__(self, transport, cuts: list[int]) -> None:
        self._transport = transport
        self._cuts = cuts
        self.take = transport.take

    def say(self, data: bytes) -> None:
        cuts, self._cuts = self._cuts, []
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self._transport.say(data[start:end])


class ConnectTests(SecureListenerTestCase):
    def connected(self, target: str = "b.example:443") -> SecurePeer:
        """A client with a tunnel in its TLS with the proxy."""
        peer = self.shaken()
        peer.say(connect_to(target))
        self.stage.run(peer)
        self.assertEqual(peer.take(), ESTABLISHED)
        return peer

    def test_tls_in_tls_is_intercepted(self):
        outer = self.connected()
        inner = self.secure("b.example", outer, "http/1.1")
        inner.say(b"GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.stage.run(inner)
        origin = self.stage.secure_origin("b.example")
        self.stage.run(origin, inner)
        self.assertEqual(bytes(origin.heard), ASKED)
        body = bytes(range(256)) * 1000
        origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 256000\r\n\r\n" + body)
        self.stage.run(origin, inner)
        self.assertTrue(inner.heard.endswith(b"\r\n\r\n" + body))
        self.leave(inner, outer)
        self.stage.run(origin)
        self.assert_nothing_left()
        flows = [(flow.method, flow.url, flow.outcome) for flow in self.stage.journal.flows]
        self.assertEqual(flows, [("CONNECT", "b.example:443", "switched"), ("GET", "https://b.example/x", "forwarded")])

    def test_http_in_the_tunnel_is_read(self):
        peer = self.connected("b.example:80")
        peer.say(b"GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.stage.run(peer)
        self.assertEqual(self.origin_heard(), ASKED)

    def test_other_bytes_are_relayed(self):
        peer = self.connected("b.example:22")
        peer.say(b"SSH-2.0-x\r\n")
        self.stage.run(peer)
        self.assertEqual(self.origin_heard(), b"SSH-2.0-x\r\n")
        self.origin.say(b"SSH-2.0-y\r\n")
        self.stage.run(peer)
        self.assertEqual(peer.take(), b"SSH-2.0-y\r\n")
        self.leave(peer)
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("CONNECT", "tunnelled")])

    def test_an_origin_that_speaks_first_is_heard(self):
        peer = self.connected("mail.example:25")
        self.fall_silent_with(peer)
        self.origin.say(b"220 hi\r\n")
        self.stage.run(peer)
        self.assertEqual(peer.take(), b"220 hi\r\n")

    def fall_silent_with(self, peer: SecurePeer) -> None:
        self.stage.clock.advance(0.3)
        self.stage.run(peer)

    def test_a_client_that_leaves_at_any_stage_leaves_nothing(self):
        for ends in ("goodbye", "end", "reset"):
            for silent in (False, True):
                self.begin()
                peer = self.connected("mail.example:25")
                if silent:
                    self.fall_silent_with(peer)
                if ends == "goodbye":
                    self.leave(peer)
                else:
                    getattr(self.client, ends)()
                    self.stage.settle(self.client)
                self.assertEqual(self.outcomes, [("CONNECT", "client-gone")], (ends, silent))
                self.assert_nothing_left(0.2)

    def test_a_refused_connect_is_read_and_then_it_ends(self):
        self.begin("rules: [{match: {host: b.example}, block: 403}]")
        peer = self.shaken()
        peer.say(connect_to("b.example:443"))
        self.stage.run(peer)
        self.assertTrue(peer.heard.startswith(b"HTTP/1.1 403 "))
        self.assertTrue(peer.ended)
        self.leave(peer)
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("CONNECT", "refused")])

    def test_a_block_of_the_server_name_is_an_alert_in_the_tls(self):
        self.begin("rules: [{match: {host: c.example}, block: 403}]")
        outer = self.connected()
        inner = SecurePeer(outer, client_context(proxy_authority().pem), "c.example")
        self.stage.run(inner)
        self.assertIn("ACCESS_DENIED", str(inner.error))
        self.leave(outer)
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("CONNECT", "refused")])


class FailingTests(SecureListenerTestCase):
    WORDS = "the client's TLS handshake for 127.0.0.1 failed: "

    def test_garbage_that_begins_as_tls_has_one_line_and_ends(self):
        for garbage in (
            b"\x16garbage",
            b"\x16\x03\x01\x00\x05hello",
            b"\x16\x03\x01\xff\xff" + bytes(65535),
            b"\x16" * 1000,
            b"\x16\r\n\r\n",
        ):
            for bytewise in (False, True):
                self.begin()
                for at in range(0, len(garbage), 1 if bytewise else len(garbage)):
                    self.client.say(garbage[at : at + (1 if bytewise else len(garbage))])
                self.stage.settle(self.client)
                self.assertTrue(self.client.disconnected, (garbage[:10], bytewise))
                self.assertEqual((self.flow.outcome, self.flow.method), ("failed", "-"), (garbage[:10], bytewise))
                self.assertTrue(self.flow.error.startswith(self.WORDS), self.flow.error)
                self.assert_nothing_left(0.2)
                self.assertNotIn(b"HTTP/1.1", self.client.heard)

    def test_a_hello_that_never_comes_whole_has_so_long_as_a_handshake(self):
        hello = say_hello("proxy.example")
        self.begin("timeouts: {handshake: 7, head: 30}")
        self.client.say(hello[:1])
        for number in range(1, 7):
            self.wait(1)
            self.client.say(hello[number : number + 1])
        self.assertFalse(self.client.disconnected)
        self.wait(1)
        self.assertTrue(self.client.disconnected)
        self.assert_nothing_left(0.2)

    def test_that_has_a_line_on_the_log(self):
        for said in (say_hello()[:50], b"\x16", b"\x16\x03\x01\x00\x00"):
            self.begin()
            self.client.say(said)
            self.wait(10)
            self.assertTrue(self.client.disconnected, said)
            self.assertEqual((self.flow.outcome, self.flow.error), ("timed-out", self.WORDS + "it took too long"))
            self.assertEqual((self.flow.client_in, self.flow.duration), (len(said), 10))
            self.assert_nothing_left(0.2)

    def test_a_handshake_that_stops_half_way_is_ended_then_too(self):
        self.client.say(say_hello("proxy.example"))
        self.stage.settle(self.client)
        self.wait(10)
        self.assertTrue(self.client.aborted)
        self.assertEqual(self.flow.outcome, "timed-out")
        self.assertEqual(self.flow.error, "the client's TLS handshake for proxy.example failed: it took too long")
        self.assert_nothing_left(0.2)

    def test_one_whose_client_never_says_a_word_inside_is_idle(self):
        self.begin("timeouts: {handshake: 7, keepalive: 20, idle: 30}")
        peer = self.shaken()
        self.stage.clock.advance(19)
        self.stage.run(peer)
        self.assertFalse(peer.ended)
        self.stage.clock.advance(1)
        self.stage.run(peer)
        self.assertTrue(peer.ended)
        # A client that doesn't answer the goodbye is waited for no longer than for anything.
        self.assert_nothing_left(31)
        self.assertEqual(self.stage.journal.flows, [])

    def test_a_client_that_leaves_in_its_hello_leaves_a_line_and_nothing_else(self):
        for ends, why in (
            ("end", "it ended its side inside its ClientHello"),
            ("reset", "it left inside its ClientHello"),
        ):
            for size in (1, 3, 50):
                self.begin()
                self.client.say(say_hello()[:size])
                getattr(self.client, ends)()
                self.stage.settle(self.client)
                self.assertTrue(self.client.disconnected, (ends, size))
                self.assertEqual((self.flow.outcome, self.flow.error), ("client-gone", self.WORDS + why))
                self.assert_nothing_left(0.2)
