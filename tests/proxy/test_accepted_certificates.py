"""Origins that prove who they are, or needn't: what is accepted, and that it is accepted of nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.proxy.test_faults import answer
from tests.proxy.test_refused_certificates import (
    TLS_1_2,
    TLS_1_3,
    WAYS,
    OriginTestCase,
    below,
    between,
    named,
    netloc,
    rsa_key,
)
from tests.secure import DAY, Issued, SecurePeer, SecureStage, issue, issued_for, origin_ca, server_context

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
ADDRESS = x509.DNSName("192.0.2.1")
A = x509.DNSName("a.example")


class Row(NamedTuple):
    """What the origin `host` shows, with who is trusted if that isn't the origins' authority."""

    what: str
    make: Callable[[], Issued | tuple[Issued, Issued]]
    host: str = "a.example"


def by_origin_ca(*names: str, **how) -> Callable[[], Issued]:
    return lambda: issue(*names, by=origin_ca(), **how)


def trusting_its_issuer(sent: bool) -> tuple[Issued, Issued]:
    ca = between()
    return issue("a.example", by=ca, above=(ca,) if sent else ()), ca


def trusting_itself(issued: Issued) -> tuple[Issued, Issued]:
    return issued, issued


def constrained() -> Issued:
    return below(between(extensions=(x509.NameConstraints([x509.DNSName("example")], None),)))


def address_as_both() -> Issued:
    by_name = x509.SubjectAlternativeName([ADDRESS])
    by_both = x509.SubjectAlternativeName([*by_name, *_names_of(issue("192.0.2.1"))])
    return issue("192.0.2.1", by=origin_ca(), extensions=(by_both,))


def _names_of(issued: Issued) -> x509.SubjectAlternativeName:
    return issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


ACCEPTED = (
    Row("its own name", by_origin_ca("a.example")),
    Row("its own name among others", by_origin_ca("b.example", "a.example")),
    Row("its own name in capitals", by_origin_ca("A.Example")),
    Row("another common name", by_origin_ca("a.example", common_name="b.example")),
    Row("a wildcard for one label", by_origin_ca("*.a.example"), "x.a.example"),
    Row("a wildcard for an A-label", by_origin_ca("*.a.example"), "xn--bcher-kva.a.example"),
    Row("an A-label", by_origin_ca("xn--bcher-kva.example"), "xn--bcher-kva.example"),
    Row("a wildcard below an A-label", by_origin_ca("*.xn--bcher-kva.example"), "x.xn--bcher-kva.example"),
    Row("a name with an underscore", by_origin_ca("a_b.example"), "a_b.example"),
    Row("a name of one label", by_origin_ca("localhost"), "localhost"),
    Row("its name without the final dot", by_origin_ca("a.example"), "a.example."),
    Row("an address", by_origin_ca("192.0.2.1"), "192.0.2.1"),
    Row("an address of six", by_origin_ca("2001:db8::1"), "2001:db8::1"),
    Row("an address that stands there as a name, too", address_as_both, "192.0.2.1"),
    Row("its name beside an address that stands there as a name", lambda: named(ADDRESS, A)),
    Row("its name beside a wildcard for nobody", lambda: named(x509.DNSName("*.local"), A)),
    Row("its name beside a URN", lambda: named(x509.UniformResourceIdentifier("urn:uuid:1:2"), A)),
    Row("an intermediate that is sent", lambda: below(between())),
    Row("an intermediate that may sign this name", constrained),
    Row("an intermediate alone that is trusted", lambda: trusting_its_issuer(True)),
    Row("an intermediate alone that is trusted and not sent", lambda: trusting_its_issuer(False)),
    Row("a self-signed certificate that is trusted", lambda: trusting_itself(issue("a.example"))),
    Row("a leaf alone that is trusted", lambda: trusting_itself(below(between()))),
    Row("an RSA key of 2048 bits", by_origin_ca("a.example", key=rsa_key(2048))),
    Row("an RSA key of 3072 bits", by_origin_ca("a.example", key=rsa_key(3072))),
    Row("a key on P-384", by_origin_ca("a.example", key=ec.generate_private_key(ec.SECP384R1()))),
    Row("a key on P-521", by_origin_ca("a.example", key=ec.generate_private_key(ec.SECP521R1()))),
    Row("an Ed25519 key", by_origin_ca("a.example", key=ed25519.Ed25519PrivateKey.generate())),
    Row("a certificate for ten years", by_origin_ca("a.example", until=3650 * DAY)),
)


class AcceptedTests(OriginTestCase):
    pass


def _accepted(row: Row) -> Callable[[AcceptedTests], None]:
    def test(self: AcceptedTests) -> None:
        made = row.make()
        issued, trusted = made if isinstance(made, tuple) else (made, origin_ca())
        context = server_context(issued)
        for version in (TLS_1_2, TLS_1_3):
            context.minimum_version = context.maximum_version = version
            for way in WAYS:
                stage = self.stage_trusting(trusted)
                client = self.ask(stage, way, row.host)
                origin = SecurePeer(stage.origin, context, server=True)
                stage.run(client, origin)
                self.assertEqual(
                    bytes(origin.heard),
                    f"POST /x HTTP/1.1\r\nHost: {netloc(row.host)}\r\nContent-Length: 8\r\nVia: 1.1 proxy\r\n\r\n"
                    "secret=1".encode(),
                )
                origin.say(OK)
                stage.run(client, origin)
                self.assertEqual(bytes(client.heard), HEARD_OK)
                self.assertEqual(stage.journal.flows[-1].outcome, "forwarded")

    return test


for _row in ACCEPTED:
    _name = "".join(char if char.isalnum() else "_" for char in _row.what.replace("'", ""))
    setattr(AcceptedTests, f"test_{_name}_is_accepted", _accepted(_row))


class NotVerifiedTests(OriginTestCase):
    """`verify_upstream: {a.example: false}`."""

    def setUp(self):
        self.stage = self.stage_trusting(origin_ca(), rules="tls: {verify_upstream: {a.example: false}}")

    def meet(self, host: str, issued: Issued, way: str) -> tuple[object, SecurePeer]:
        """A client that has asked, and the origin that shows `issued` for `host`."""
        client = self.ask(self.stage, way, host)
        origin = SecurePeer(self.stage.origin, server_context(issued), server=True)
        self.stage.run(client, origin)
        return client, origin

    def test_whatever_it_shows_is_accepted_of_the_host_that_is_named(self):
        wrong = (
            issue("a.example"),
            issue("b.example", by=origin_ca()),
            issue("a.example", by=origin_ca(), since=-9 * DAY, until=-DAY),
        )
        for issued in wrong:
            for way in WAYS:
                client, origin = self.meet("a.example", issued, way)
                self.assertTrue(origin.heard.endswith(b"\r\n\r\nsecret=1"))
                origin.say(OK)
                origin.say_goodbye()
                self.stage.run(client, origin)
                self.assertEqual(bytes(client.heard), HEARD_OK)

    def test_it_is_not_accepted_of_any_other(self):
        for host in ("b.example", "x.a.example"):
            for way in WAYS:
                client, origin = self.meet(host, issue(host), way)
                words = f"the certificate of {host} isn't trusted: it is self-signed"
                self.assertEqual(bytes(client.heard), answer("502 Bad Gateway", words))
                self.assertEqual(self.stage.journal.flows[-1].outcome, "refused")
                self.assert_told_nothing(self.stage.origin, origin)

    def test_it_counts_for_the_origin_that_the_client_means_not_for_what_is_dialled(self):
        # A tunnel to the host that needn't prove anything, in which another is asked for.
        raw = self.stage.connect("a.example:443")
        client = self.client_of("b.example", raw)
        client.say(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
        origin = SecurePeer(self.stage.origin, server_context(issue("b.example")), server=True)
        self.stage.run(client, origin)
        self.assertEqual(self.stage.pool.dialled[-1], ("a.example", 443))
        self.assertIn(b"502 Bad Gateway: the certificate of b.example isn't trusted: it is self-signed", client.heard)
        self.assert_told_nothing(self.stage.origin, origin)

    def client_of(self, name: str, transport) -> SecurePeer:
        return self.stage.secure_client(f"{name}:443", below=transport)


class AnewTests(OriginTestCase):
    """What was refused isn't refused for ever, nor what was accepted accepted."""

    def ask_again(self, stage: SecureStage, client, issued: Issued) -> SecurePeer:
        client.heard.clear()
        client.say(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        stage.turn()
        origin = SecurePeer(stage.origin, server_context(issued), server=True)
        stage.run(client, origin)
        return origin

    def test_an_origin_that_mends_its_certificate_is_accepted_on_the_same_connection_of_the_client(self):
        stage = self.stage_trusting(origin_ca())
        client = stage.secure_client()
        self.ask_again(stage, client, issue("a.example"))
        self.assertTrue(client.heard.startswith(b"HTTP/1.1 502 "))
        origin = self.ask_again(stage, client, issued_for("a.example"))
        origin.say(OK)
        stage.run(client, origin)
        self.assertEqual(bytes(client.heard), HEARD_OK)

    def test_an_origin_that_was_accepted_is_judged_anew_at_its_next_handshake(self):
        stage = self.stage_trusting(origin_ca())
        client = stage.secure_client()
        origin = self.ask_again(stage, client, issued_for("a.example"))
        origin.say(OK)
        origin.say_goodbye()
        stage.run(client, origin)
        self.assertEqual(bytes(client.heard), HEARD_OK)
        origin = self.ask_again(stage, client, issue("a.example"))
        self.assertTrue(client.heard.startswith(b"HTTP/1.1 502 "))
        self.assert_told_nothing(stage.origin, origin)
