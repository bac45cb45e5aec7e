"""The TLS handshake with a client: which certificate it is shown, and what is said of a handshake that fails.

A handshake that fails has one line on the log (who, which name, the likely cause), and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import gc
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.downstream import DownstreamProtocol
from streamproxy.proxy.intercept import Interception
from streamproxy.tls.layer import Tls
from tests.fakes import BoundedTransport
from tests.proxy.test_refused_certificates import TLS_1_2, TLS_1_3
from tests.secure import SecurePeer, SecureStage, client_context, origin_ca, proxy_authority

CA = proxy_authority().pem
FAILED = "the client's TLS handshake for a.example failed: "
UNTRUSTED = "it does not trust the proxy's CA (alert: unknown ca)"
LEFT = "it closed the connection when it got the certificate: perhaps it does not trust the proxy's CA"
TUNNEL, LISTENER, INNER = "in a tunnel", "at the listener", "in TLS in a tunnel"


def shown_to(client: SecurePeer) -> x509.Certificate:
    return x509.load_der_x509_certificate(client.tls.getpeercert(True))


def names(certificate: x509.Certificate) -> list[object]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in extension.value]


def old_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of a client that trusts the proxy, and speaks no newer version than `version`."""
    context = client_context(CA)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    return context


class ShownTests(SynchronousTestCase):
    """Each of these clients verifies what it is shown, name and all."""

    def client(self, target: str, name: str | None = None, context: ssl.SSLContext | None = None) -> SecurePeer:
        stage = SecureStage()
        client = SecurePeer(stage.connect(target), context or client_context(CA), name)
        stage.run(client)
        self.assertTrue(client.shaken, client.error)
        return client

    def test_a_client_that_names_a_server_is_shown_a_certificate_for_that_name(self):
        client = self.client("a.example:443", "b.example")
        self.assertEqual(names(shown_to(client)), ["b.example"])

    def test_a_client_that_names_none_is_shown_one_for_the_target_of_its_connect(self):
        context = client_context(CA)
        context.check_hostname = False
        client = self.client("a.example:443", None, context)
        self.assertEqual(names(shown_to(client)), ["a.example"])

    def test_an_address_is_shown_as_an_address(self):
        for host, target in (("192.0.2.1", "192.0.2.1:443"), ("2001:db8::1", "[2001:db8::1]:443")):
            client = self.client(target, host)
            self.assertEqual([str(name) for name in names(shown_to(client))], [host])

    def test_a_name_in_another_script_is_shown_as_a_label(self):
        client = self.client("xn--bcher-kva.example:443", "bücher.example")
        self.assertEqual(names(shown_to(client)), ["xn--bcher-kva.example"])

    def test_each_client_is_shown_its_own_though_they_share_one_context(self):
        stage = SecureStage()
        clients = [
            SecurePeer(stage.connect(f"{name}:443"), client_context(CA), name) for name in ("a.example", "b.example")
        ]
        stage.run(*clients)
        self.assertEqual([names(shown_to(client)) for client in clients], [["a.example"], ["b.example"]])

    def test_the_same_name_is_shown_the_same_certificate(self):
        first, second = (shown_to(self.client("a.example:443", "a.example")) for _ in range(2))
        self.assertEqual(first.public_bytes(Encoding.DER), second.public_bytes(Encoding.DER))

    def test_http_1_1_is_agreed_on_where_it_is_offered_at_all(self):
        for offered in (("http/1.1",), ("h2", "http/1.1"), ("http/1.0", "http/1.1", "x")):
            client = self.client("a.example:443", "a.example", client_context(CA, *offered))
            self.assertEqual(client.tls.selected_alpn_protocol(), "http/1.1")
        self.assertIsNone(self.client("a.example:443", "a.example").tls.selected_alpn_protocol())

    def test_both_versions_are_spoken(self):
        for version, spoken in ((TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3")):
            client = self.client("a.example:443", "a.example", old_context(version))
            self.assertEqual(client.tls.version(), spoken)

    def test_a_handshake_comes_about_however_it_is_cut(self):
        for size in (1, 2, 5, 100):
            stage = SecureStage()
            transport = stage.connect()
            client = SecurePeer(Cut(transport, size), client_context(CA), "a.example")
            stage.run(client)
            self.assertTrue(client.shaken, (size, client.error))

    def test_a_client_may_speak_tls_to_the_proxy_itself(self):
        # What the fake transport says that it listens on.
        stage = SecureStage()
        client = SecurePeer(stage.client(), client_context(CA), "127.0.0.1")
        stage.run(client)
        self.assertEqual([str(name) for name in names(shown_to(client))], ["127.0.0.1"])
        self.assertEqual(stage.journal.flows, [])

    def test_a_session_is_resumed_by_another_connection(self):
        for version in (TLS_1_2, TLS_1_3):
            stage = SecureStage()
            context = old_context(version)
            first = SecurePeer(stage.connect(), context, "a.example")
            stage.run(first)
            second = SecurePeer(stage.connect(), context, "a.example", session=first.tls.session)
            stage.run(second)
            self.assertEqual((first.tls.session_reused, second.tls.session_reused), (False, True))

    def test_a_session_is_not_resumed_by_another_proxy(self):
        stage, other = SecureStage(), SecureStage()
        context = client_context(CA)
        first = SecurePeer(stage.connect(), context, "a.example")
        stage.run(first)
        second = SecurePeer(other.connect(), context, "a.example", session=first.tls.session)
        other.run(second)
        self.assertTrue(second.shaken)
        self.assertFalse(second.tls.session_reused)


class Cut:
    """Sends what a peer says in reads of `size` bytes."""

    def __init__(self, transport: BoundedTransport, size: int) -> None:
        self._transport = transport
        self._size = size
        self.take = transport.take

    def say(self, data: bytes) -> None:
        for at in range(0, len(data), self._size):
            self._transport.say(data[at : at + self._size])


class FailingTests(SynchronousTestCase):
    """Handshakes that fail: in a tunnel, with a client that takes the proxy for an https one, and in TLS in TLS."""

    rules = "timeouts: {handshake: 7}"

    def setUp(self):
        self.stage = SecureStage(self.rules)

    def ways(self):
        """The ways in which TLS begins: what it is, the transport to say it on, and that below it all."""
        for way in (TUNNEL, LISTENER, INNER):
            self.stage = SecureStage(self.rules)
            raw = self.stage.client() if way == LISTENER else self.stage.connect()
            if way != INNER:
                yield way, raw, raw
                continue
            outer = SecurePeer(raw, client_context(CA), "a.example")
            self.stage.run(outer)
            outer.say(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
            self.stage.run(outer)
            self.assertTrue(outer.take().startswith(b"HTTP/1.1 200 "))
            self.stage.journal.flows.clear()
            yield way, outer, raw

    def assert_failed(self, way: str, raw: BoundedTransport, why: str, outcome: str) -> None:
        """One line has been written, and there is nothing left."""
        flows = self.stage.journal.flows
        self.assertEqual([(flow.outcome, flow.error) for flow in flows], [(outcome, FAILED + why)], way)
        self.assertEqual(flows[0].client, "127.0.0.1:50000")
        if way != LISTENER:
            self.assertEqual((flows[0].method, flows[0].url), ("CONNECT", "a.example:443"))
        self.assertTrue(raw.disconnected, way)
        self.assertEqual(self.stage.pool.made, [], "an origin was connected to")
        self.assertEqual(self.stage.proxy.connections, set())
        self.stage.journal.flush()
        self.assertEqual(self.stage.clock.getDelayedCalls(), [], way)

    def assert_peer_fails(self, context: ssl.SSLContext, why: str, outcome: str = "failed") -> None:
        for way, below, raw in self.ways():
            client = SecurePeer(below, context, "a.example")
            self.run_with(client, below)
            self.assertIsNotNone(client.error)
            self.assert_failed(way, raw, why, outcome)

    def run_with(self, client: SecurePeer | None, below: SecurePeer | BoundedTransport) -> None:
        self.stage.run(below if client is None else client)
        if isinstance(below, SecurePeer):
            # The outer TLS ends by the goodbyes of both.
            below.say_goodbye()
            self.stage.run(below)

    def test_a_client_that_does_not_trust_the_authority(self):
        for version in (TLS_1_2, TLS_1_3):
            context = client_context(origin_ca().certificate_pem)
            context.minimum_version = context.maximum_version = version
            self.assert_peer_fails(context, UNTRUSTED)

    def test_a_client_that_takes_it_for_a_wrong_one_without_a_reason(self):
        # The alert bad_certificate (RFC 8446 section 6.2) as it is before anything is encrypted, instead of an answer.
        for way, below, raw in self.ways():
            client = SecurePeer(below, old_context(TLS_1_2), "a.example")
            client.step()
            below.say(bytes([21, 3, 3, 0, 2, 2, 42]))
            self.run_with(None, below)
            why = "it most likely does not trust the proxy's CA, or pins another certificate (alert: bad certificate)"
            self.assert_failed(way, raw, why, "failed")

    def test_a_client_that_leaves_when_it_has_seen_the_certificate(self):
        for leave in (BoundedTransport.end, BoundedTransport.reset):
            for way, below, raw in self.ways():
                client = SecurePeer(below, client_context(CA), "a.example")
                client.flush()
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.tls.do_handshake()
                client.flush()
                self.stage.turn()
                raw.take()
                leave(raw)
                raw.take()
                self.assert_failed(way, raw, LEFT, "client-gone")

    def test_garbage_behind_a_good_client_hello(self):
        for garbage, why in (
            (b"\x16\x03\x03\x00\x05\xff\xff\xff\xff\xff", "bad record type"),
            (b"\x17\x03\x03\x00\x20" + bytes(32), "decryption failed or bad record mac"),
        ):
            for way, below, raw in self.ways():
                client = SecurePeer(below, client_context(CA), "a.example")
                client.step()
                below.say(garbage)
                self.run_with(None, below)
                self.assert_failed(way, raw, f"what it sent can't be understood ({why})", "failed")

    def test_something_else_than_tls_behind_a_good_client_hello(self):
        for way, below, raw in self.ways():
            client = SecurePeer(below, client_context(CA), "a.example")
            client.step()
            below.say(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            self.run_with(None, below)
            self.assert_failed(way, raw, "what it sent can't be understood (bad record type)", "failed")

    def test_a_version_that_is_too_old(self):
        words = "it speaks none of the TLS versions that are spoken here (unsupported protocol)"
        self.assert_peer_fails(old_context(ssl.TLSVersion.TLSv1_1), words)

    def test_a_version_below_the_least_that_is_set(self):
        self.rules = 'tls: {minimum_version: "1.3"}'
        words = "it speaks none of the TLS versions that are spoken here (unsupported protocol)"
        self.assert_peer_fails(old_context(TLS_1_2), words)

    def test_no_cipher_in_common(self):
        context = old_context(TLS_1_2)
        # A key exchange for certificates with RSA keys, and our leaves have none.
        context.set_ciphers("AES128-SHA256")
        words = "it has no cipher or key exchange in common with the proxy (no shared cipher)"
        self.assert_peer_fails(context, words)

    def test_one_that_stops_in_the_handshake(self):
        for way, below, raw in self.ways():
            client = SecurePeer(below, client_context(CA), "a.example")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.flush()
            self.stage.turn()
            self.stage.clock.advance(6.9)
            self.assertEqual(self.stage.journal.flows, [])
            self.assertFalse(raw.disconnected)
            self.stage.clock.advance(0.2)
            self.stage.run(raw)
            self.assert_failed(way, raw, "it took too long", "timed-out")

    def test_one_that_goes_on_dribbling_gets_no_more_time(self):
        for way, below, raw in self.ways():
            client = SecurePeer(below, client_context(CA), "a.example")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.flush()
            # The beginning of a long record.
            below.say(b"\x16\x03\x03\x10\x00")
            for _ in range(8):
                self.stage.clock.advance(1)
                if not raw.disconnected:
                    below.say(b"\x00")
            self.stage.run(raw)
            self.assert_failed(way, raw, "it took too long", "timed-out")

    def test_one_that_says_more_than_it_may_before_it_is_done_is_not_listened_to(self):
        for way, below, raw in self.ways():
            client = SecurePeer(below, client_context(CA), "a.example")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.flush()
            below.say(b"GET / HTTP/1.1\r\n" * 20000)
            self.run_with(None, below)
            self.assertTrue(raw.disconnected, way)
            self.assertEqual([flow.outcome for flow in self.stage.journal.flows], ["failed"])

    def test_a_line_is_one_line_whatever_the_client_calls_itself(self):
        client = SecurePeer(self.stage.connect(), client_context(origin_ca().certificate_pem), "a.example")
        self.stage.run(client)
        self.stage.journal.flush()
        lines = self.stage.journal.written
        self.assertEqual(len(lines), 1)
        self.assertEqual(lines[0].count("\n"), 1)
        for part in ('"client": "127.0.0.1:50000"', '"a.example:443"', UNTRUSTED, '"outcome": "failed"'):
            self.assertIn(part, lines[0])


class LeakTests(SynchronousTestCase):
    """What has been TLS once is garbage when its connection is gone."""

    def assert_freed(self, play) -> None:
        before = {id(each) for each in self.living()}
        for _ in range(3):
            play()
        left = [each for each in self.living() if id(each) not in before]
        self.assertEqual(left, [])

    def living(self):
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, Tls | Interception | DownstreamProtocol)]

    def test_of_a_handshake_that_failed_nothing_is_left(self):
        stage = SecureStage()

        def play():
            client = SecurePeer(stage.connect(), client_context(origin_ca().certificate_pem), "a.example")
            stage.run(client)
            self.assertTrue(stage.journal.flows[-1].error)

        self.assert_freed(play)

    def test_of_one_that_was_left_nothing_is_left(self):
        stage = SecureStage()

        def play():
            raw = stage.connect()
            client = SecurePeer(raw, client_context(CA), "a.example")
            client.step()
            raw.reset()

        self.assert_freed(play)

    def test_of_one_that_took_too_long_nothing_is_left(self):
        stage = SecureStage("timeouts: {handshake: 1}")

        def play():
            raw = stage.connect()
            client = SecurePeer(raw, client_context(CA), "a.example")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.flush()
            stage.clock.advance(1.1)
            self.assertTrue(raw.disconnected)

        self.assert_freed(play)

    def test_of_an_exchange_over_tls_nothing_is_left(self):
        stage = SecureStage()

        def play():
            client = stage.secure_client()
            client.say(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            stage.turn()
            origin = stage.secure_origin()
            stage.run(client, origin)
            origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            stage.run(client, origin)
            origin.say_goodbye()
            client.say_goodbye()
            stage.run(client, origin)
            self.assertTrue(client.ended)
            self.assertTrue(client.heard.endswith(b"ok"))
            stage.pool.made.clear()

        self.assert_freed(play)

    def test_of_a_refused_origin_nothing_is_left(self):
        stage = SecureStage()

        def play():
            client = stage.client()
            client.say(b"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            stage.turn()
            origin = stage.secure_origin("b.example")
            stage.run(client, origin)
            self.assertIn(b" 502 ", client.heard)
            stage.pool.made.clear()

        self.assert_freed(play)
