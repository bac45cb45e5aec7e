"""The words for what is wrong: with a certificate, and with a handshake of either side."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.tls.reasons import (
    is_address,
    why_client_failed,
    why_origin_broke_off,
    why_origin_failed,
    why_untrusted,
    wrong_name,
)
from tests.secure import issue


def failed(*reasons: str) -> Failure:
    """A failure with these errors in OpenSSL's queue, the first being what happened."""
    return Failure(SSL.Error([("SSL routines", "", reason) for reason in reasons]))


ENDS = (Failure(ConnectionDone()), Failure(ConnectionLost()), Failure(SSL.Error([])), Failure(SSL.Error()))


class ClientTests(SynchronousTestCase):
    def test_the_alerts_of_a_client_that_does_not_like_the_certificate(self):
        for reason, why in (
            ("tlsv1 alert unknown ca", "it does not trust the proxy's CA (alert: unknown ca)"),
            (
                "ssl/tls alert certificate unknown",
                "it most likely does not trust the proxy's CA, or pins another certificate"
                " (alert: certificate unknown)",
            ),
            (
                "sslv3 alert bad certificate",
                "it most likely does not trust the proxy's CA, or pins another certificate (alert: bad certificate)",
            ),
            (
                "ssl/tls alert certificate expired",
                "it takes the certificate for expired: are its clock and the proxy's right?"
                " (alert: certificate expired)",
            ),
            (
                "ssl/tls alert unsupported certificate",
                "it does not take this kind of certificate (alert: unsupported certificate)",
            ),
            ("tlsv1 alert access denied", "it refused the certificate (alert: access denied)"),
            (
                "ssl/tls alert certificate revoked",
                "it takes the certificate for revoked (alert: certificate revoked)",
            ),
        ):
            self.assertEqual(why_client_failed(failed(reason)), (why, False))

    def test_what_a_client_and_the_proxy_have_not_in_common(self):
        for reason in ("unsupported protocol", "version too low", "tlsv1 alert protocol version"):
            words = f"it speaks none of the TLS versions that are spoken here ({reason})"
            self.assertEqual(why_client_failed(failed(reason)), (words, False))
        for reason in ("no shared cipher", "no suitable key share", "ssl/tls alert handshake failure"):
            words = f"it has no cipher or key exchange in common with the proxy ({reason})"
            self.assertEqual(why_client_failed(failed(reason)), (words, False))

    def test_what_is_not_tls_and_what_is_broken(self):
        for reason in ("wrong version number", "http request", "packet length too long"):
            self.assertEqual(why_client_failed(failed(reason)), (f"what it sent is not TLS ({reason})", False))
        for reason in ("length mismatch", "bad record type"):
            words = f"what it sent can't be understood ({reason})"
            self.assertEqual(why_client_failed(failed(reason)), (words, False))

    def test_the_first_of_several_errors_is_what_happened(self):
        words, _ = why_client_failed(failed("bad record type", "record layer failure"))
        self.assertEqual(words, "what it sent can't be understood (bad record type)")

    def test_a_client_that_just_leaves(self):
        words = "it closed the connection when it got the certificate: perhaps it does not trust the proxy's CA"
        for end in ENDS:
            self.assertEqual(why_client_failed(end), (words, True))


class OriginTests(SynchronousTestCase):
    def assert_words(self, reason: str, words: str, untrusted: bool = False) -> None:
        why = why_origin_failed(failed(reason), "a.example")
        self.assertEqual((why.why, why.untrusted, why.status), (words, untrusted, 502))
        self.assertEqual(str(why), words)

    def test_old_versions_and_weak_keys_are_not_trusted(self):
        for reason in ("unsupported protocol", "tlsv1 alert protocol version", "version too low"):
            self.assert_words(reason, "a.example speaks only versions of TLS that are too old", True)
        self.assert_words("dh key too small", "the TLS of a.example is too weak: dh key too small", True)

    def test_what_is_no_tls(self):
        for reason in ("wrong version number", "http request", "packet length too long"):
            self.assert_words(reason, "a.example doesn't speak TLS there")

    def test_alerts(self):
        self.assert_words(
            "ssl/tls alert handshake failure",
            "a.example refused the TLS handshake: it asks for a client certificate (tls.client_certificate), or has no"
            " cipher in common with the proxy",
        )
        self.assert_words(
            "tlsv1 unrecognized name", "a.example refused the TLS handshake: it doesn't know itself by that name"
        )
        self.assert_words(
            "tlsv1 alert internal error", "a.example refused the TLS handshake: tlsv1 alert internal error"
        )

    def test_anything_else_keeps_openssls_own_words(self):
        self.assert_words("bad extension", "the TLS handshake with a.example failed: bad extension")

    def test_an_origin_that_just_leaves(self):
        for end in ENDS:
            why = why_origin_failed(end, "a.example")
            self.assertEqual(why.why, "a.example closed the connection in the TLS handshake")
            self.assertFalse(why.untrusted)

    def test_behind_the_handshake_tls_is_told_from_an_end(self):
        for reason, words in (
            ("tlsv13 alert certificate required", "a.example asks for a client certificate (tls.client_certificate)"),
            ("tlsv1 alert unknown ca", "the TLS with a.example broke off: tlsv1 alert unknown ca"),
        ):
            self.assertEqual(why_origin_broke_off(failed(reason), "a.example"), words)
        for end in ENDS:
            self.assertIsNone(why_origin_broke_off(end, "a.example"))


class CertificateTests(SynchronousTestCase):
    def test_a_code_that_nobody_has_words_for_is_told_as_it_is(self):
        words = "the certificate of a.example isn't trusted: OpenSSL says error 999"
        self.assertEqual(why_untrusted(999, 0, issue("a.example").certificate, "a.example"), words)

    def test_names_are_shown_as_they_are_five_at_the_most(self):
        certificate = issue(*(f"{name}.example" for name in "abcdefg")).certificate
        self.assertEqual(
            wrong_name(certificate, "x.example"),
            "the certificate of x.example has the wrong name: it is made for a.example, b.example, c.example,"
            " d.example, e.example",
        )

    def test_what_a_certificate_says_cannot_write_lines_or_pages_into_the_log(self):
        name = "evil\r\n\x1b[31mexample" + "x" * 5000
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name[:60])])
        certificate = issue("a.example", common_name=name[:60]).certificate
        for words in (
            why_untrusted(19, 1, certificate, "a.example"),
            why_untrusted(20, 0, certificate, "a.example"),
            wrong_name(
                issue("a", extensions=(x509.SubjectAlternativeName([x509.DNSName(name)]),)).certificate, "a.example"
            ),
            wrong_name(
                issue(
                    "a", extensions=(x509.SubjectAlternativeName([x509.DirectoryName(issuer), x509.DNSName("b")]),)
                ).certificate,
                "a.example",
            ),
        ):
            self.assertTrue(words.isprintable(), words)
            self.assertLess(len(words), 400)

    def test_a_certificate_without_any_name(self):
        certificate = issue(common_name="x").certificate
        words = "the certificate of a.example has the wrong name: it is made for no name at all"
        self.assertEqual(wrong_name(certificate, "a.example"), words)

    def test_what_is_an_address(self):
        for host, expected in (
            ("192.0.2.1", True),
            ("2001:db8::1", True),
            ("::1", True),
            ("a.example", False),
            ("192.0.2", False),
            ("[::1]", False),
            ("", False),
        ):
            self.assertEqual(is_address(host), expected, host)
