"""Origins that don't prove who they are: refused in words, and not told a byte of what the client asked for.

Each is asked for in two ways, inside an intercepted tunnel and by an absolute https URL, and in both versions of TLS.
"""

from __future__ import annotations

import functools
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.tls.contexts import OriginFacing
from tests.conversation import settings_of
from tests.fakes import BoundedTransport
from tests.proxy.test_faults import answer
from tests.secure import DAY, Issued, SecurePeer, SecureStage, issue, origin_ca

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
TUNNEL, ABSOLUTE = "in a tunnel", "by an absolute URL"
WAYS = (TUNNEL, ABSOLUTE)
# TLS records of alerts and of application data (RFC 8446 section 5.1), and the size of one of the latter that has no
# more in it than an alert.
ALERT, APPLICATION_DATA, ENCRYPTED_ALERT = 21, 23, 2 + 1 + 16


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@functools.cache
def rsa_ca() -> Issued:
    """An authority with an RSA key; it is trusted like `origin_ca`."""
    return issue(is_ca=True, common_name="an RSA authority", key=rsa_key(2048))


def between(**how) -> Issued:
    """An authority below the one that is trusted."""
    return issue(is_ca=True, by=origin_ca(), common_name="the authority between", **how)


def below(ca: Issued, *names: str, **how) -> Issued:
    """A certificate that `ca` has issued, with that of `ca` sent behind it."""
    return issue(*(names or ("a.example",)), by=ca, above=(ca, *ca.above), **how)


def named(*names: x509.GeneralName) -> Issued:
    return issue("a.example", by=origin_ca(), extensions=(x509.SubjectAlternativeName(names),))


def with_sha1(issued: Issued, above: tuple[Issued, ...] = ()) -> Issued:
    """`issued` by `rsa_ca`, signed anew with SHA-1.

    `cryptography` doesn't sign certificates so any more. The algorithm's name is changed by hand (RFC 8017 appendix
    A.2.4: the two have one length), and so is the signature, which stands last.
    """
    sha256, sha1 = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))
    old = issued.certificate.tbs_certificate_bytes
    new = old.replace(sha256, sha1)
    signature = rsa_ca().key.sign(new, padding.PKCS1v15(), hashes.SHA1())
    whole = issued.certificate.public_bytes(Encoding.DER).replace(old, new)
    whole = whole[: -len(signature)].replace(sha256, sha1) + signature
    return Issued(x509.load_der_x509_certificate(whole), issued.key, above)


def unknown_ca() -> Issued:
    return issue(is_ca=True, common_name="nobody's authority")


def unsent() -> Issued:
    return issue("a.example", by=between())


def by_a_leaf() -> Issued:
    return below(issue("b.example", by=origin_ca(), common_name="only a leaf"))


def sha1_between() -> Issued:
    ca = issue(is_ca=True, by=rsa_ca(), common_name="the authority between")
    return below(with_sha1(ca))


def constrained(*permitted: str, excluded: tuple[str, ...] = ()) -> Issued:
    constraints = x509.NameConstraints(
        [x509.DNSName(name) for name in permitted] or None, [x509.DNSName(name) for name in excluded] or None
    )
    return below(between(extensions=(constraints,)))


def too_long() -> Issued:
    first = between(extensions=(x509.BasicConstraints(ca=True, path_length=0),))
    return below(below_ca(first))


def below_ca(ca: Issued, **how) -> Issued:
    return issue(is_ca=True, by=ca, above=(ca,), common_name="one authority more", **how)


def tampered() -> Issued:
    issued = issue("a.example", by=rsa_ca())
    whole = bytearray(issued.certificate.public_bytes(Encoding.DER))
    whole[-1] ^= 1
    return Issued(x509.load_der_x509_certificate(bytes(whole)), issued.key)


class Row(NamedTuple):
    """What an origin shows, and the words for it; {since} and {until} in them are the certificate's days."""

    what: str
    make: Callable[[], Issued]
    words: str
    host: str = "a.example"


UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
MADE_FOR = "the certificate of {host} has the wrong name: it is made for "
NOT_TRUSTED = "the certificate of {host} isn't trusted: "
TOO_WEAK = "the certificate of {host} is too weak: "
UNKNOWN = " is unknown here (or the origin didn't send what stands between)"

REFUSED = (
    Row(
        "expired",
        lambda: issue("a.example", by=origin_ca(), since=-9 * DAY, until=-DAY),
        "the certificate of {host} has expired (on {until})",
    ),
    Row(
        "not yet valid",
        lambda: issue("a.example", by=origin_ca(), since=DAY),
        "the certificate of {host} is not yet valid (before {since})",
    ),
    Row("another's name", lambda: issue("b.example", "c.example", by=origin_ca()), MADE_FOR + "b.example, c.example"),
    Row("a name below its own", lambda: issue("x.a.example", by=origin_ca()), MADE_FOR + "x.a.example"),
    Row("a name above its own", lambda: issue("example", by=origin_ca()), MADE_FOR + "example"),
    Row(
        "its name as common name only",
        lambda: issue(common_name="a.example", by=origin_ca()),
        MADE_FOR + "no name at all",
    ),
    Row(
        "its name as common name beside another",
        lambda: issue("b.example", common_name="a.example", by=origin_ca()),
        MADE_FOR + "b.example",
    ),
    Row(
        "a wildcard over two labels",
        lambda: issue("*.a.example", by=origin_ca()),
        MADE_FOR + "*.a.example",
        "x.y.a.example",
    ),
    Row("a wildcard for the domain itself", lambda: issue("*.a.example", by=origin_ca()), MADE_FOR + "*.a.example"),
    Row("a wildcard over a top-level domain", lambda: issue("*.example", by=origin_ca()), MADE_FOR + "*.example"),
    Row("a wildcard over all", lambda: issue("*", by=origin_ca()), MADE_FOR + "*"),
    Row(
        "a wildcard that isn't first",
        lambda: issue("x.*.example", by=origin_ca()),
        MADE_FOR + "x.*.example",
        "x.a.example",
    ),
    Row(
        "a wildcard in a label",
        lambda: issue("x*.a.example", by=origin_ca()),
        MADE_FOR + "x*.a.example",
        "xy.a.example",
    ),
    Row(
        "a name with a NUL behind it",
        lambda: named(x509.DNSName("a.example\0.b.example")),
        MADE_FOR + "a.example?.b.example",
    ),
    Row("an address as a host's name", lambda: named(x509.DNSName("192.0.2.1")), MADE_FOR + "192.0.2.1", "192.0.2.1"),
    Row(
        "an address as common name",
        lambda: issue("a.example", common_name="192.0.2.1", by=origin_ca()),
        MADE_FOR + "a.example",
        "192.0.2.1",
    ),
    Row("another address", lambda: issue("192.0.2.2", by=origin_ca()), MADE_FOR + "192.0.2.2", "192.0.2.1"),
    Row(
        "another address of six", lambda: issue("2001:db8::2", by=origin_ca()), MADE_FOR + "2001:db8::2", "2001:db8::1"
    ),
    Row("a name for an address", lambda: issue("a.example", by=origin_ca()), MADE_FOR + "a.example", "192.0.2.1"),
    Row("an address for a name", lambda: issue("192.0.2.1", by=origin_ca()), MADE_FOR + "192.0.2.1"),
    Row(
        "a mail address and a URL",
        lambda: named(x509.RFC822Name("a.example"), x509.UniformResourceIdentifier("https://a.example")),
        MADE_FOR + "a.example, https://a.example",
    ),
    Row("self-signed", lambda: issue("a.example"), NOT_TRUSTED + "it is self-signed"),
    Row(
        "a chain to its own root",
        lambda: below(unknown_ca()),
        NOT_TRUSTED + "its chain ends at \"nobody's authority\", which isn't trusted here",
    ),
    Row(
        "an unknown issuer",
        lambda: issue("a.example", by=unknown_ca()),
        NOT_TRUSTED + 'its issuer, "nobody\'s authority",' + UNKNOWN,
    ),
    Row(
        "an issuer of the trusted one's name",
        lambda: issue("a.example", by=issue(is_ca=True, common_name="the origins' authority")),
        NOT_TRUSTED + 'its issuer, "the origins\' authority",' + UNKNOWN,
    ),
    Row("no intermediate", unsent, NOT_TRUSTED + "its issuer, 'the authority between'," + UNKNOWN),
    Row("issued by a leaf", by_a_leaf, NOT_TRUSTED + "it is signed by one that is no authority"),
    Row(
        "issued by one that may not sign",
        lambda: below(between(may_sign=False)),
        NOT_TRUSTED + "it is signed by one that is no authority",
    ),
    Row("with a wrong signature", tampered, NOT_TRUSTED + "its signature is wrong"),
    Row(
        "with a critical extension that nobody knows",
        lambda: issue("a.example", by=origin_ca(), extensions=(UNKNOWN_EXTENSION,)),
        NOT_TRUSTED + "it has a critical extension that isn't understood",
    ),
    Row(
        "made for clients",
        lambda: issue("a.example", by=origin_ca(), purpose=ExtendedKeyUsageOID.CLIENT_AUTH),
        NOT_TRUSTED + "it isn't made for servers",
    ),
    Row(
        "an intermediate that has expired",
        lambda: below(between(since=-9 * DAY, until=-DAY)),
        "the certificate of {host} isn't trusted: an authority's certificate above it has expired (on {above_until})",
    ),
    Row(
        "an intermediate that isn't valid yet",
        lambda: below(between(since=DAY)),
        "the certificate of {host} isn't trusted: an authority's certificate above it is not yet valid"
        " (before {above_since})",
    ),
    Row("a longer path than allowed", too_long, NOT_TRUSTED + "its chain is longer than an authority in it allows"),
    Row(
        "outside the names permitted",
        lambda: constrained("b.example"),
        NOT_TRUSTED + "an authority above it may not sign this name",
    ),
    Row(
        "inside the names excluded",
        lambda: constrained(excluded=("example",)),
        NOT_TRUSTED + "an authority above it may not sign this name",
    ),
    Row(
        "an RSA key of 1024 bits",
        lambda: issue("a.example", by=origin_ca(), key=rsa_key(1024)),
        TOO_WEAK + "its key is too small",
    ),
    Row(
        "an authority with an RSA key of 1024 bits",
        lambda: below(between(key=rsa_key(1024))),
        TOO_WEAK + "the key of an authority above it is too small",
    ),
    Row(
        "signed with SHA-1",
        lambda: with_sha1(issue("a.example", by=rsa_ca(), key=rsa_key(2048))),
        TOO_WEAK + "it is signed with an algorithm that is no longer safe",
    ),
    Row(
        "an authority signed with SHA-1",
        sha1_between,
        TOO_WEAK + "it is signed with an algorithm that is no longer safe",
    ),
)


def netloc(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def weak_context(issued: Issued) -> ssl.SSLContext:
    """The context of a server that has no scruples."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(issued.pem)
        context.load_cert_chain(path)
    return context


def records(data: bytes) -> list[tuple[int, int]]:
    """The kind and the size of each TLS record."""
    found = []
    while data:
        size = int.from_bytes(data[3:5])
        found.append((data[0], size))
        data = data[5 + size :]
    return found


class OriginTestCase(SynchronousTestCase):
    def stage_trusting(self, *trusted: Issued, rules: str = "") -> SecureStage:
        """A proxy that trusts just these beside the system's roots."""
        settings = settings_of(rules)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, f"{number}.pem") for number in range(len(trusted))]
            for path, each in zip(paths, trusted, strict=True):
                path.write_bytes(each.certificate_pem)
            tls = OriginFacing(
                verifies=settings.tls.verifies,
                trusted_ca=[str(path) for path in paths],
                minimum_version=settings.tls.minimum_version,
            )
            tls.prepare()
        return SecureStage(settings, tls=tls)

    def ask(self, stage: SecureStage, way: str, host: str = "a.example") -> SecurePeer | BoundedTransport:
        """A client that has asked for something of `host`."""
        name = netloc(host)
        target = "/x" if way == TUNNEL else f"https://{name}/x"
        if way == TUNNEL:
            # A client verifies, and sends as server name, what stands before a final dot (RFC 6066 section 3).
            below = stage.connect(f"{name}:443")
            client = stage.secure_client(f"{name.removesuffix('.')}:443", below=below)
        else:
            client = stage.client()
        client.say(f"POST {target} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 8\r\n\r\nsecret=1".encode())
        stage.turn()
        return client

    def assert_refused(self, stage, client, origin, words, status="502 Bad Gateway", outcome="refused"):
        self.assertEqual(bytes(client.heard), answer(status, words, at=stage.clock.seconds()))
        flow = stage.journal.flows[-1]
        self.assertEqual((flow.outcome, flow.error, flow.status), (outcome, words, int(status[:3])))
        self.assert_told_nothing(stage.origin, origin)
        self.assertTrue(stage.origin.disconnected)
        self.assertEqual(len(stage.pool), 0)
        self.assertEqual(len(stage.pool.made), 1)

    def assert_told_nothing(self, transport: BoundedTransport, origin: SecurePeer | None) -> None:
        """No byte of what is said inside TLS has come: neither read, nor in a record that could hold it."""
        if origin is not None:
            self.assertEqual(bytes(origin.heard), b"")
        for kind, size in records(bytes(transport.heard)):
            if kind == APPLICATION_DATA:
                self.assertEqual(size, ENCRYPTED_ALERT)


class RefusedTests(OriginTestCase):
    def test_a_host_that_no_certificate_can_be_made_for_is_refused(self):
        # A tunnel to it can't be intercepted, so there is one way only.
        for host in ("a!b.example", "a.example..", "0", "a..example"):
            stage = self.stage_trusting(origin_ca())
            client = self.ask(stage, ABSOLUTE, host)
            origin = SecurePeer(stage.origin, weak_context(issue("a.example", by=origin_ca())), server=True)
            stage.run(client, origin)
            self.assert_refused(stage, client, origin, MADE_FOR.format(host=host) + "a.example")


def _refused(row: Row) -> Callable[[RefusedTests], None]:
    def test(self: RefusedTests) -> None:
        issued = row.make()
        days = {
            f"{prefix}{end}": f"{getattr(each.certificate, f'not_valid_{word}_utc'):%Y-%m-%d}"
            for prefix, each in (("", issued), ("above_", (*issued.above, issued)[0]))
            for end, word in (("since", "before"), ("until", "after"))
        }
        context = weak_context(issued)
        for version in (TLS_1_2, TLS_1_3):
            context.minimum_version = context.maximum_version = version
            for way in WAYS:
                stage = self.stage_trusting(origin_ca(), rsa_ca())
                client = self.ask(stage, way, row.host)
                origin = SecurePeer(stage.origin, context, server=True)
                stage.run(client, origin)
                self.assertFalse(origin.shaken)
                self.assert_refused(stage, client, origin, row.words.format(host=row.host, **days))

    return test


for _row in REFUSED:
    _name = "".join(char if char.isalnum() else "_" for char in _row.what.replace("'", ""))
    setattr(RefusedTests, f"test_{_name}_is_refused", _refused(_row))
