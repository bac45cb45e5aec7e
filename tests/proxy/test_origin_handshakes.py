"""TLS handshakes with origins that come to nothing for another reason than their certificates."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

from tests.proxy.test_faults import answer
from tests.proxy.test_refused_certificates import TLS_1_2, TLS_1_3, WAYS, OriginTestCase, rsa_key, weak_context
from tests.secure import SecurePeer, issue, issued_for, origin_ca, server_context

REFUSES = (
    "a.example refused the TLS handshake: it asks for a client certificate (tls.client_certificate), or has no cipher"
    " in common with the proxy"
)
GONE = "a.example closed the connection in the TLS handshake"


class OriginHandshakeTests(OriginTestCase):
    def assert_fails(self, context: ssl.SSLContext, words: str, outcome: str = "origin-gone", rules: str = "") -> None:
        """A handshake with an origin that has `context` fails with these words."""
        for way in WAYS:
            stage = self.stage_trusting(origin_ca(), rules=rules)
            client = self.ask(stage, way)
            origin = SecurePeer(stage.origin, context, server=True)
            stage.run(client, origin)
            self.assert_refused(stage, client, origin, words, outcome=outcome)

    def assert_fails_after(self, act, words: str) -> None:
        """A handshake fails with these words once `act` has been done with the transport of the origin."""
        for way in WAYS:
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, way)
            stage.run(client, stage.origin)
            self.assertEqual(stage.origin.heard[0], 22)
            act(stage.origin)
            stage.run(client, stage.origin)
            self.assert_refused(stage, client, None, words, outcome="origin-gone")

    def test_a_version_that_is_too_old(self):
        context = weak_context(issued_for("a.example"))
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.assert_fails(context, "a.example speaks only versions of TLS that are too old", "refused")

    def test_a_version_that_is_too_old_of_one_that_does_not_ask_which_is_spoken(self):
        hello = b"\x02" + (2 + 32 + 1 + 2 + 1).to_bytes(3) + b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x2f" + b"\x00"
        for way in WAYS:
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, way)
            stage.origin.say(b"\x16\x03\x02" + len(hello).to_bytes(2) + hello)
            stage.run(client, stage.origin)
            words = "a.example speaks only versions of TLS that are too old"
            self.assert_refused(stage, client, None, words, outcome="refused")

    def test_a_version_below_the_least_that_is_set(self):
        context = server_context(issued_for("a.example"))
        context.maximum_version = TLS_1_2
        words = "a.example speaks only versions of TLS that are too old"
        self.assert_fails(context, words, "refused", 'tls: {minimum_version: "1.3"}')

    def test_no_cipher_in_common(self):
        context = weak_context(issued_for("a.example"))
        context.maximum_version = TLS_1_2
        context.set_ciphers("NULL:@SECLEVEL=0")
        self.assert_fails(context, REFUSES)

    def test_a_key_exchange_that_is_too_weak(self):
        # The group of 1024 bits of RFC 2409 section 6.2.
        prime = (
            "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3"
            "CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5"
            "AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF"
        )
        # DHParameter in DER (PKCS #3), in PEM.
        group = bytes.fromhex(f"30818702818100{prime}020102")
        path = self.mktemp()
        Path(path).write_bytes(
            b"-----BEGIN DH PARAMETERS-----\n" + base64.encodebytes(group) + b"-----END DH PARAMETERS-----\n"
        )
        context = weak_context(issue("a.example", by=origin_ca(), key=rsa_key(2048)))
        context.maximum_version = TLS_1_2
        context.load_dh_params(path)
        context.set_ciphers("DHE:@SECLEVEL=0")
        self.assert_fails(context, "the TLS of a.example is too weak: dh key too small", "refused")

    def test_a_server_name_that_is_not_known_there(self):
        context = server_context(issued_for("a.example"))
        context.sni_callback = lambda connection, name, context: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        self.assert_fails(context, "a.example refused the TLS handshake: it doesn't know itself by that name")

    def test_a_client_certificate_that_is_asked_for_and_is_not_there(self):
        context = server_context(issued_for("a.example"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = TLS_1_2
        self.assert_fails(context, REFUSES)

    def test_a_client_certificate_that_is_asked_for_by_tls_1_3_and_is_not_there(self):
        # There the client is done before it hears what the server thinks of that.
        context = server_context(issued_for("a.example"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = TLS_1_3
        for way in WAYS:
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, way)
            origin = SecurePeer(stage.origin, context, server=True)
            stage.run(client, origin)
            words = "a.example asks for a client certificate (tls.client_certificate)"
            self.assertEqual(bytes(client.heard), answer("502 Bad Gateway", words))
            self.assertEqual(stage.journal.flows[-1].outcome, "origin-gone")
            self.assertEqual(stage.journal.flows[-1].error, words)
            self.assertEqual(bytes(origin.heard), b"")

    def test_one_that_speaks_http(self):
        self.assert_fails_after(
            lambda origin: origin.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            "a.example doesn't speak TLS there",
        )

    def test_one_that_speaks_something_else(self):
        for said in (b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ESMTP\r\n", bytes(64), b"\xff" * 64, b"\n" * 5):
            self.assert_fails_after(lambda origin, said=said: origin.say(said), "a.example doesn't speak TLS there")

    def test_one_that_ends_in_the_handshake(self):
        self.assert_fails_after(lambda origin: origin.end(), GONE)

    def test_one_that_is_lost_in_the_handshake(self):
        self.assert_fails_after(lambda origin: origin.reset(), GONE)

    def test_one_that_ends_inside_what_it_says_in_the_handshake(self):
        for way in WAYS:
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, way)
            held = HeldBack(stage.origin)
            origin = SecurePeer(held, server_context(issued_for("a.example")), server=True)
            origin.step()
            stage.origin.say(bytes(held.said[:200]))
            stage.run(client)
            self.assertEqual(bytes(client.heard), b"")
            stage.origin.end()
            stage.run(client, stage.origin)
            self.assert_refused(stage, client, origin, GONE, outcome="origin-gone")

    def test_one_that_says_nothing_is_504_after_its_time(self):
        for way in WAYS:
            stage = self.stage_trusting(origin_ca(), rules="timeouts: {handshake: 7}")
            client = self.ask(stage, way)
            stage.run(client, stage.origin)
            stage.clock.advance(6.9)
            stage.run(client, stage.origin)
            self.assertEqual(bytes(client.heard), b"")
            stage.clock.advance(0.2)
            stage.run(client, stage.origin)
            words = "the TLS handshake with a.example took too long"
            self.assert_refused(stage, client, None, words, "504 Gateway Timeout", "timed-out")
            self.assertTrue(stage.origin.aborted)

    def test_the_client_that_leaves_in_the_handshake_takes_the_connection_with_it(self):
        for way in WAYS:
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, way)
            stage.run(client, stage.origin)
            transport = client if not isinstance(client, SecurePeer) else client._transport
            transport.reset()
            self.assertTrue(stage.origin.aborted)
            self.assertEqual(stage.journal.flows[-1].outcome, "client-gone")
            stage.journal.flush()
            self.assertEqual(stage.clock.getDelayedCalls(), [])


class HeldBack:
    """Keeps what a peer says."""

    def __init__(self, transport) -> None:
        self.take = transport.take
        self.said = bytearray()

    def say(self, data: bytes) -> None:
        self.said += data
