"""The authority: its leaves, as clients judge them, and its files, whatever state they are in."""

import contextlib
import datetime
import os
import shutil
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from streamproxy.tls import authority as module
from streamproxy.tls.authority import (
    Authority,
    AuthorityError,
    authority_for,
    load_authority,
    open_authority,
    replace_file,
    state_folder,
)
from streamproxy.tls.minting import LEAF_LIFE, make_root, new_key

DAY = datetime.timedelta(days=1)
NOW = time.time()
LONG_NAME = "a-label-of-twenty-ch." * 4 + "example"


def made(now=time.time) -> Authority:
    key = new_key()
    return Authority(make_root(key, now()), key, now=now)


def own_ca(
    key=None,
    by: tuple[x509.Certificate, object] | None = None,
    name: str = "own",
    since: datetime.timedelta = -DAY,
    until: datetime.timedelta = 400 * DAY,
    ca: bool | None = True,
    pathlen: int | None = None,
    key_cert_sign: bool | None = True,
    purpose=None,
    ski: bool = True,
):
    """A CA certificate of a user's own, and its key; None leaves an extension out."""
    key = key or new_key()
    now = datetime.datetime.fromtimestamp(int(NOW), datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (by[0].subject, by[1]) if by else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, pathlen), critical=True)
    if key_cert_sign is not None:
        usage = x509.KeyUsage(True, False, False, False, False, key_cert_sign, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if ski:
        identifier = x509.SubjectKeyIdentifier(b"an identifier of its own")
        builder = builder.add_extension(identifier, critical=False)
    if by:
        identifier = x509.AuthorityKeyIdentifier(b"an identifier of its own", None, None)
        builder = builder.add_extension(identifier, critical=False)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, digest), key


def pem_of(*things, password: bytes | None = None) -> bytes:
    """Certificates and keys in one PEM file."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return b"".join(
        each.public_bytes(Encoding.PEM)
        if isinstance(each, x509.Certificate)
        else each.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        for each in things
    )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class FolderTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def refused(self, *words: str, call, **arguments) -> str:
        """The line with which a call is refused, which has all these words in it."""
        error = self.assertRaises(AuthorityError, call, **arguments)
        for word in words:
            self.assertIn(word, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)


class HandshakeTests(FolderTestCase):
    """A client of Python's own, as strict as it can be made, meets a server that has a leaf."""

    def handshake(self, authority: Authority, name: str, connect_to: str | None = None, trusted: bytes = b"") -> dict:
        leaf = authority.leaf(name)
        chain = self.write("leaf.pem", pem_of(authority.leaf_key, leaf.certificate, *authority.chain))
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(chain)
        client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_side.verify_flags |= ssl.VERIFY_X509_STRICT
        client_side.load_verify_locations(cadata=(trusted or authority.pem).decode())
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_side.wrap_bio(up, down, server_side=True)
        client = client_side.wrap_bio(down, up, server_hostname=connect_to or name)
        for end in (client, server, client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        return client.getpeercert()

    def test_a_leaf_is_taken(self):
        authority = made()
        for name in ("www.example", "127.0.0.1", "2001:db8::1", LONG_NAME, "under_score.example", "localhost"):
            self.assertTrue(self.handshake(authority, name), name)

    def test_a_name_with_other_letters_is_taken_by_its_a_label(self):
        self.assertTrue(self.handshake(made(), "bücher.example", "xn--bcher-kva.example"))

    def test_a_leaf_is_not_taken_for_another_name(self):
        authority = made()
        for name, other in (("www.example", "example"), ("127.0.0.1", "127.0.0.2"), ("::1", "::2")):
            self.assertRaises(ssl.SSLCertVerificationError, self.handshake, authority, name, other)

    def test_a_leaf_is_not_taken_from_an_authority_that_is_not_trusted(self):
        self.assertRaises(ssl.SSLCertVerificationError, self.handshake, made(), "a.example", trusted=made().pem)

    def test_authorities_of_the_users_own_are_taken(self):
        keys = [
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP384R1()),
            ec.generate_private_key(ec.SECP521R1()),
        ]
        for key in keys:
            authority = load_authority(self.write("own.pem", pem_of(*own_ca(key))), None)
            self.assertTrue(self.handshake(authority, "a.example"), key)

    def test_who_trusts_the_root_takes_a_leaf_of_an_intermediate(self):
        root = own_ca(name="root", pathlen=1)
        middle = own_ca(name="middle", by=root, pathlen=0)
        for above, anchor in (([root[0]], root[0]), ([], middle[0])):
            path = self.write("chain.pem", pem_of(middle[1], middle[0], *above))
            authority = load_authority(path, None)
            self.assertEqual(authority.chain, (middle[0],))
            self.assertEqual((authority.anchor, authority.pem), (anchor, pem_of(anchor)))
            aki = authority.leaf("a.example").certificate.extensions
            identifier = aki.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
            self.assertEqual(identifier, b"an identifier of its own")
            self.assertTrue(self.handshake(authority, "a.example", trusted=pem_of(root[0])))


class LeafTests(SynchronousTestCase):
    def extension(self, certificate: x509.Certificate, kind):
        return certificate.extensions.get_extension_for_class(kind)

    def names(self, name: str) -> list:
        value = self.extension(made().leaf(name).certificate, x509.SubjectAlternativeName).value
        return [str(each.value) for each in value]

    def test_what_stands_in_it(self):
        authority = made()
        leaf = authority.leaf("www.example")
        certificate = leaf.certificate
        self.assertEqual(leaf.name, "www.example")
        self.assertEqual(certificate.subject.rfc4514_string(), "CN=www.example")
        self.assertEqual(certificate.issuer, authority.certificate.subject)
        self.assertEqual(certificate.public_key(), authority.leaf_key.public_key())
        self.assertIsInstance(certificate.signature_hash_algorithm, hashes.SHA256)
        critical = {each.oid: each.critical for each in certificate.extensions}
        self.assertEqual(
            critical,
            {
                ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
                ExtensionOID.BASIC_CONSTRAINTS: True,
                ExtensionOID.KEY_USAGE: True,
                ExtensionOID.EXTENDED_KEY_USAGE: False,
                ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
                ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
            },
        )
        self.assertFalse(self.extension(certificate, x509.BasicConstraints).value.ca)
        usage = self.extension(certificate, x509.KeyUsage).value
        self.assertEqual((usage.digital_signature, usage.key_cert_sign), (True, False))
        purposes = list(self.extension(certificate, x509.ExtendedKeyUsage).value)
        self.assertEqual(purposes, [ExtendedKeyUsageOID.SERVER_AUTH])
        certificate.verify_directly_issued_by(authority.certificate)
        self.assertEqual(
            self.extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier,
            self.extension(authority.certificate, x509.SubjectKeyIdentifier).value.digest,
        )

    def test_the_issuers_key_is_named_by_its_digest_where_the_issuer_does_not_name_it(self):
        certificate, key = own_ca(ski=False)
        found = self.extension(Authority(certificate, key).leaf("a.example").certificate, x509.AuthorityKeyIdentifier)
        digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
        self.assertEqual(found.value.key_identifier, digest)

    def test_service_identity_takes_it_for_its_name(self):
        authority = made()
        verify_certificate_hostname(authority.leaf("www.example").certificate, "www.example")
        verify_certificate_hostname(authority.leaf("bücher.example").certificate, "bücher.example")
        verify_certificate_ip_address(authority.leaf("[::1]").certificate, "::1")

    def test_names_in_their_normal_form(self):
        for given, normal in (
            ("WWW.Example", "www.example"),
            ("www.example.", "www.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("bücher。example", "xn--bcher-kva.example"),
            ("☃.example", "xn--n3h.example"),
            ("Faß.example", "xn--fa-hia.example"),
            ("under_score.example", "under_score.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]", "fe80::1"),
            ("127.1", "127.1"),
        ):
            self.assertEqual(self.names(given), [normal], given)

    def test_addresses_are_named_as_addresses(self):
        for name, kind in (("127.0.0.1", x509.IPAddress), ("[::1]", x509.IPAddress), ("127.1", x509.DNSName)):
            value = self.extension(made().leaf(name).certificate, x509.SubjectAlternativeName).value
            self.assertEqual([type(each) for each in value], [kind])

    def test_what_is_no_name_is_refused(self):
        authority = made()
        for name in ("", ".", "a..b", ".a", "*", "*.example", "a b", "a\0b", "a/b", "a:b", "x" * 64, "a." * 127 + "ab"):
            error = self.assertRaises(AuthorityError, authority.leaf, name)
            self.assertIn("is not the name of a host", str(error))
        for name in ("ü" * 300, "\ud800", "a\u2028b"):
            error = self.assertRaises(AuthorityError, authority.leaf, name)
            self.assertTrue(str(error).isprintable(), name)
            self.assertLess(len(str(error)), 600)

    def test_a_name_that_is_too_long_for_a_subject_stands_in_the_critical_alternative_names_alone(self):
        for length, in_subject in ((64, True), (65, False)):
            name = "a" * 31 + "." + "b" * (length - 32)
            certificate = made().leaf(name).certificate
            self.assertEqual(certificate.subject.rfc4514_string(), f"CN={name}" if in_subject else "")
            self.assertEqual(self.extension(certificate, x509.SubjectAlternativeName).critical, not in_subject)
            self.assertEqual(self.names(name), [name])

    def test_it_is_valid_from_a_day_back_for_199_days_in_all(self):
        certificate = made(lambda: NOW).leaf("a.example").certificate
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        self.assertEqual(begins.timestamp(), int(NOW) - 86_400)
        # Both seconds count.
        self.assertEqual(ends - begins + datetime.timedelta(seconds=1), LEAF_LIFE)
        self.assertEqual(LEAF_LIFE, 199 * DAY)

    def test_it_never_outlives_its_authority_nor_begins_before_it(self):
        certificate, key = own_ca(since=-datetime.timedelta(minutes=5), until=10 * DAY)
        leaf = Authority(certificate, key, now=lambda: NOW).leaf("a.example")
        self.assertEqual(leaf.certificate.not_valid_before_utc, certificate.not_valid_before_utc)
        self.assertEqual(leaf.certificate.not_valid_after_utc, certificate.not_valid_after_utc)
        self.assertTrue(NOW < leaf.renew_at < NOW + 10 * 86_400)

    def test_it_is_kept_by_name_however_that_is_written(self):
        authority = made()
        leaf = authority.leaf("www.example")
        self.assertIs(authority.leaf("WWW.example."), leaf)
        self.assertIsNot(authority.leaf("example"), leaf)

    def test_no_serial_is_given_twice(self):
        authority = made()
        serials = {authority.leaf(f"{index}.example").certificate.serial_number for index in range(50)}
        self.assertEqual(len(serials), 50)

    def test_it_is_renewed_while_it_still_has_a_good_while_to_go(self):
        clock = [NOW]
        authority = made(lambda: clock[0])
        leaf = authority.leaf("a.example")
        clock[0] = leaf.renew_at - 1
        self.assertIs(authority.leaf("a.example"), leaf)
        clock[0] = leaf.renew_at
        self.assertGreater(leaf.certificate.not_valid_after_utc.timestamp() - clock[0], 30 * 86_400)
        renewed = authority.leaf("a.example")
        self.assertIsNot(renewed, leaf)
        self.assertGreater(renewed.renew_at, clock[0])
        self.assertIs(authority.leaf("a.example"), renewed)

    def test_an_authority_that_has_expired_gives_none(self):
        clock = [NOW]
        authority = made(lambda: clock[0])
        clock[0] = authority.certificate.not_valid_after_utc.timestamp() - 1
        self.assertGreater(authority.leaf("a.example").renew_at, clock[0])
        clock[0] += 1
        self.assertIn("expired", str(self.assertRaises(AuthorityError, authority.leaf, "a.example")))

    def test_only_so_many_are_kept_and_the_one_not_used_longest_goes(self):
        self.patch(module, "LEAVES", 3)
        authority = made()
        first = [authority.leaf(f"{index}.example") for index in range(3)]
        authority.leaf("0.example")
        authority.leaf("3.example")
        self.assertIs(authority.leaf("0.example"), first[0])
        self.assertIs(authority.leaf("2.example"), first[2])
        self.assertIsNot(authority.leaf("1.example"), first[1])


class FormTests(FolderTestCase):
    def test_the_roots_own_certificate(self):
        certificate = made(lambda: NOW).certificate
        self.assertRegex(certificate.subject.rfc4514_string(), r"^O=streamproxy,CN=streamproxy CA [0-9a-f]{8}$")
        self.assertEqual(certificate.subject, certificate.issuer)
        certificate.verify_directly_issued_by(certificate)
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        self.assertTrue(3650 * DAY <= lasts <= 3660 * DAY, lasts)
        self.assertEqual(certificate.not_valid_before_utc.timestamp(), int(NOW) - 86_400)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertEqual((constraints.critical, constraints.value), (True, x509.BasicConstraints(True, 0)))
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertEqual(
            (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature),
            (True, True, True, False),
        )
        self.assertEqual(made().chain, ())

    def test_no_two_roots_have_one_name_or_serial(self):
        one, other = made().certificate, made().certificate
        self.assertNotEqual(one.subject, other.subject)
        self.assertNotEqual(one.serial_number, other.serial_number)

    def test_the_leaves_key_is_not_the_authoritys(self):
        authority = made()
        self.assertNotEqual(authority.leaf_key.public_key(), authority.certificate.public_key())

    def test_all_forms_are_of_one_certificate(self):
        authority = made()
        (in_p12,) = pkcs12.load_pkcs12(authority.p12, None).additional_certs
        found = (x509.load_pem_x509_certificate(authority.pem), x509.load_der_x509_certificate(authority.der))
        self.assertEqual([*found, in_p12.certificate], [authority.certificate] * 3)

    def test_no_form_has_a_key(self):
        authority = made()
        self.assertIsNone(pkcs12.load_pkcs12(authority.p12, None).key)
        for form in (authority.pem, authority.der, authority.p12, authority.bundle(None)):
            self.assertNotIn(b"PRIVATE", form)
            for key in (authority.leaf_key, authority._key):
                secret = key.private_numbers().private_value.to_bytes(32, "big")
                self.assertNotIn(secret, form)

    def test_fingerprints(self):
        authority = made()
        for fingerprint, kind in (
            (authority.fingerprint, hashes.SHA256()),
            (authority.fingerprint_sha1, hashes.SHA1()),
        ):
            self.assertEqual(bytes.fromhex(fingerprint.replace(":", " ")), authority.certificate.fingerprint(kind))
            self.assertRegex(fingerprint, r"^[0-9A-F]{2}(:[0-9A-F]{2})+$")

    def test_a_bundle_has_each_certificate_once_and_nothing_else(self):
        authority, other = made(), made()
        dirty = b"# Some\r\n" + pem_of(new_key()) + other.pem.rstrip() + b"\n\n" + authority.pem
        bundle = authority.bundle(dirty)
        self.assertEqual(x509.load_pem_x509_certificates(bundle), [authority.certificate, other.certificate])
        self.assertNotIn(b"PRIVATE", bundle)
        self.assertEqual(authority.bundle(None), authority.pem)

    def openssl(self, *arguments: str, stdin: bytes) -> str:
        program = shutil.which("openssl")
        if program is None:
            raise SkipTest("there is no openssl here")
        ended = subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=30, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return (ended.stdout + ended.stderr).decode()

    def test_openssl_reads_the_pkcs12(self):
        out = self.openssl("pkcs12", "-info", "-nokeys", "-passin", "pass:", stdin=made().p12)
        self.assertIn("-----BEGIN CERTIFICATE-----", out)

    def test_openssl_verifies_a_leaf_strictly(self):
        authority = made()
        trusted = self.write("ca.pem", authority.pem)
        leaf = authority.leaf(LONG_NAME).certificate.public_bytes(Encoding.PEM)
        arguments = ("-x509_strict", "-purpose", "sslserver", "-verify_hostname", LONG_NAME)
        out = self.openssl("verify", "-CAfile", str(trusted), *arguments, stdin=leaf)
        self.assertIn("OK", out)

    def test_keytool_sees_a_trusted_entry(self):
        program = shutil.which("keytool")
        if program is None:
            raise SkipTest("there is no keytool here")
        authority = made()
        path = self.write("ca.p12", authority.p12)
        ended = subprocess.run(
            [program, "-J-Duser.language=en", "-list", "-keystore", path, "-storepass", ""],
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertIn(b"trustedCertEntry", ended.stdout + ended.stderr)
        self.assertIn(authority.fingerprint.encode(), ended.stdout)


class KeptFilesTests(FolderTestCase):
    def open(self, now=time.time) -> Authority:
        return open_authority(self.folder, now)

    def listing(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def test_the_first_start_makes_it_and_the_next_finds_it(self):
        self.folder /= "below/and further"
        first, second = self.open(), self.open()
        self.assertEqual(first.certificate, second.certificate)
        self.assertEqual(second.warnings, [])
        self.assertEqual(sorted(self.listing()), ["ca-key.pem", "ca.pem"])
        self.assertEqual(second.path, self.folder / "ca.pem")
        second.leaf("a.example").certificate.verify_directly_issued_by(first.certificate)

    def test_modes_whatever_the_umask(self):
        for umask in (0o000, 0o022, 0o077, 0o777):
            folder = self.folder / f"{umask:o}" / "state"
            folder.parent.mkdir(parents=True)
            before = os.umask(umask)
            try:
                open_authority(folder)
            finally:
                os.umask(before)
            modes = [mode_of(path) for path in (folder, folder / "ca-key.pem", folder / "ca.pem")]
            self.assertEqual(modes, [0o700, 0o600, 0o644], f"{umask:o}")

    def test_a_folder_that_is_there_keeps_its_mode_and_the_key_is_private_all_the_same(self):
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        authority = self.open()
        self.assertEqual((mode_of(self.folder), mode_of(self.folder / "ca-key.pem")), (0o755, 0o600))
        self.assertEqual(authority.warnings, [])

    def test_a_folder_that_others_may_write_in_is_warned_of(self):
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o775)
        (warning,) = self.open().warnings
        self.assertIn(f"chmod go-w {self.folder}", warning)

    def test_a_key_that_others_may_read_is_warned_of(self):
        self.open()
        for mode in (0o640, 0o604):
            (self.folder / "ca-key.pem").chmod(mode)
            (warning,) = self.open().warnings
            self.assertIn(f"chmod 600 {self.folder}/ca-key.pem", warning)

    def test_an_authority_that_ends_soon_is_warned_of(self):
        ends = self.open().certificate.not_valid_after_utc.timestamp()
        self.assertEqual(self.open(lambda: ends - 31 * 86_400).warnings, [])
        (warning,) = self.open(lambda: ends - 20.5 * 86_400).warnings
        self.assertIn("ends in 20 days", warning)

    def test_a_key_without_a_certificate_gets_one(self):
        # What a crash between the two leaves behind.
        self.open()
        key = (self.folder / "ca-key.pem").read_bytes()
        (self.folder / "ca.pem").unlink()
        authority = self.open()
        self.assertEqual((self.folder / "ca-key.pem").read_bytes(), key)
        self.assertEqual(authority.certificate.public_key(), load_pem_private_key(key, None).public_key())
        self.assertEqual(self.open().certificate, authority.certificate)

    def test_a_crash_at_any_step_leaves_something_to_start_from(self):
        # Each call that changes the folder fails once, in turn, and the start after that is a good one.
        calls = ("tempfile.mkstemp", "os.fchmod", "os.fsync", "os.link", "os.unlink")
        for call in calls:
            for nth in range(4):
                self.folder = Path(self.mktemp()).absolute()
                owner, name = call.split(".")
                real = getattr(getattr(module, owner), name)
                count = [0]

                def failing(*arguments, real=real, count=count, nth=nth, **named):
                    count[0] += 1
                    if count[0] == nth + 1:
                        raise OSError(28, "No space left on device")
                    return real(*arguments, **named)

                with mock.patch.object(getattr(module, owner), name, failing):
                    try:
                        self.open()
                    except AuthorityError as error:
                        self.assertIn("No space left on device", str(error))
                    else:
                        self.assertLessEqual(count[0], nth, call)
                authority = self.open()
                self.assertEqual(mode_of(self.folder / "ca-key.pem"), 0o600)
                self.assertEqual(authority.certificate, self.open().certificate)

    def test_a_certificate_without_a_key_is_refused_and_left(self):
        self.open()
        (self.folder / "ca-key.pem").unlink()
        before = self.listing()
        self.refused("ca-key.pem: is missing", "put the key back", call=self.open)
        self.assertEqual(self.listing(), before)

    def test_damaged_files_are_refused_in_words_and_left(self):
        self.open()
        good = self.listing()
        other_certificate, other_key = (pem_of(each) for each in own_ca())
        for name, content, words in (
            ("ca.pem", b"", "is empty"),
            ("ca.pem", b"junk", "expected a certificate in PEM"),
            ("ca.pem", good["ca.pem"][:100], "expected a certificate in PEM"),
            ("ca.pem", good["ca.pem"].replace(b"MII", b"AAA", 1), "damaged"),
            ("ca.pem", other_certificate, "ca-key.pem: is not the key of the certificate"),
            ("ca-key.pem", b"", "is empty"),
            ("ca-key.pem", b"\0\xff", "expected a private key in PEM"),
            ("ca-key.pem", good["ca-key.pem"][:60], "damaged"),
            ("ca-key.pem", other_key, "is not the key of the certificate"),
        ):
            for each, whole in good.items():
                self.write(each, whole)
            self.write(name, content)
            before = self.listing()
            self.refused(f"{self.folder}/{name}" if "not the key" not in words else "", words, call=self.open)
            self.assertEqual(self.listing(), before, (name, words))

    def test_a_damaged_key_alone_is_no_reason_to_make_another(self):
        self.write("ca-key.pem", b"")
        self.refused("ca-key.pem: is empty", call=self.open)
        self.assertEqual(self.listing(), {"ca-key.pem": b""})

    def test_what_can_not_be_read_is_refused(self):
        self.open()
        for name in ("ca.pem", "ca-key.pem"):
            path = self.folder / name
            path.rename(path.with_suffix(".away"))
            path.mkdir()
            self.refused(f"{path}: can't be read: Is a directory", call=self.open)
            path.rmdir()
            path.with_suffix(".away").rename(path)

    def test_what_may_not_be_read_is_refused(self):
        # Root may read everything, so it has to be played.
        self.open()
        real = Path.open

        def deny(path, *arguments):
            if path.name == "ca-key.pem":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments)

        with mock.patch.object(Path, "open", deny):
            self.refused(f"{self.folder}/ca-key.pem: can't be read: Permission denied", call=self.open)

    def test_a_link_to_nowhere_is_not_written_through(self):
        self.folder.mkdir(parents=True)
        (self.folder / "ca-key.pem").symlink_to(self.folder / "secrets that aren't mounted yet")
        self.refused("ca-key.pem: can't be read", call=self.open)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["ca-key.pem"])

    def test_a_folder_that_can_not_be_made_is_refused(self):
        file = self.write("file", b"")
        for folder, why in ((file, "File exists"), (file / "below", "File exists"), (Path("/proc/x"), "")):
            self.folder = folder
            self.refused(f"{folder}: can't be made: {why}", "state_dir", call=self.open)

    def test_an_authority_of_another_time_is_refused(self):
        self.open(lambda: NOW)
        self.refused("ca.pem: expired on", call=self.open, now=lambda: NOW + 4000 * 86_400)
        self.refused("ca.pem: is not valid before", "clock", call=self.open, now=lambda: NOW - 2 * 86_400)

    def test_processes_that_start_at_once_agree(self):
        go = self.folder.parent / f"{self.folder.name}.go"
        code = (
            "import os, pathlib, sys, time\n"
            "from streamproxy.tls.authority import open_authority\n"
            "print('ready', flush=True)\n"
            "while not os.path.exists(sys.argv[2]): time.sleep(.0005)\n"
            "print(open_authority(pathlib.Path(sys.argv[1])).fingerprint)\n"
        )
        root = str(Path(module.__file__).parents[2])
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, self.folder, go],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": root},
            )
            for _ in range(6)
        ]
        try:
            for process in processes:
                self.assertEqual(process.stdout.readline(), "ready\n")
            go.touch()
            outcomes = [process.communicate(timeout=30) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        self.assertEqual(set(outcomes), {(self.open().fingerprint + "\n", "")})
        self.assertEqual(sorted(self.listing()), ["ca-key.pem", "ca.pem"])

    def test_who_comes_second_takes_what_the_first_wrote(self):
        # At each of the two moments between a look and the writing, another process is there first.
        real = os.link
        for late in ("ca-key.pem", "ca.pem"):
            self.folder = Path(self.mktemp()).absolute()
            others = []

            def link(temporary, path, late=late, others=others):
                if Path(path).name == late and not others:
                    others.append(None)
                    others.append(self.open().fingerprint)
                real(temporary, path)

            with mock.patch.object(os, "link", link):
                ours = self.open().fingerprint
            self.assertEqual(others, [None, ours], late)
            self.assertEqual(sorted(self.listing()), ["ca-key.pem", "ca.pem"])

    def test_who_looks_while_another_process_writes_finds_no_certificate_without_its_key(self):
        others = []
        real = Path.open

        def open_slowly(path, *arguments):
            try:
                return real(path, *arguments)
            finally:
                if not others:
                    others.append(None)
                    others.append(self.open().fingerprint)

        with mock.patch.object(Path, "open", open_slowly):
            ours = self.open().fingerprint
        self.assertEqual(others, [None, ours])

    def test_a_file_is_replaced_whole_or_not_at_all(self):
        path = self.write("bundle", b"before")
        with mock.patch.object(os, "replace", side_effect=OSError(28, "No space left on device")):
            self.refused("bundle: can't be written: No space", call=lambda: replace_file(path, b"after"))
        self.assertEqual(self.listing(), {"bundle": b"before"})
        replace_file(path, b"after")
        self.assertEqual(self.listing(), {"bundle": b"after"})
        self.assertEqual(mode_of(path), 0o644)


class OwnAuthorityTests(FolderTestCase):
    def load(self, content: bytes, key: bytes | None = None) -> Authority:
        path = self.write("own.pem", content)
        return load_authority(path, None if key is None else self.write("own-key.pem", key), lambda: NOW)

    def test_in_one_file_or_in_two(self):
        certificate, key = own_ca()
        for content, apart in (
            (pem_of(certificate, key), None),
            (pem_of(key, certificate), None),
            (pem_of(certificate), pem_of(key)),
            (
                b"Bag Attributes\r\n" + pem_of(certificate),
                b"-----BEGIN EC PARAMETERS-----\n" + PARAMETERS + pem_of(key),
            ),
        ):
            authority = self.load(content, apart)
            self.assertEqual((authority.certificate, authority.chain, authority.warnings), (certificate, (), []))
            authority.leaf("a.example").certificate.verify_directly_issued_by(certificate)

    def test_a_key_that_others_may_read_is_warned_of(self):
        certificate, key = own_ca()
        path = self.write("own.pem", pem_of(certificate, key), 0o644)
        self.assertIn("chmod 600", load_authority(path, None).warnings[0])
        self.assertEqual(load_authority(path, self.write("own-key.pem", pem_of(key))).warnings, [])

    def test_those_that_are_no_use_are_refused(self):
        small = rsa.generate_private_key(65537, 1024)
        strange = ec.generate_private_key(ec.SECP256K1())
        for words, arguments in (
            ("is not a CA's certificate", {"ca": False}),
            ("is not a CA's certificate", {"ca": None}),
            ("keyUsage has no keyCertSign", {"key_cert_sign": False}),
            ("extendedKeyUsage has no serverAuth", {"purpose": ExtendedKeyUsageOID.CLIENT_AUTH}),
            ("expired on", {"since": -9 * DAY, "until": -DAY}),
            ("is not valid before", {"since": DAY}),
            ("RSA key has 1024 bits", {"key": small}),
            ("key is on secp256k1", {"key": strange}),
            ("neither RSA nor on a NIST curve", {"key": ed25519.Ed25519PrivateKey.generate()}),
        ):
            self.refused("own.pem: ", words, call=lambda made=arguments: self.load(pem_of(*own_ca(**made))))

    def test_those_that_say_less_are_taken(self):
        for arguments in ({"key_cert_sign": None}, {"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, {"pathlen": 0}):
            self.load(pem_of(*own_ca(**arguments)))

    def test_keys_that_can_not_be_used(self):
        certificate, key = own_ca()
        traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x"))
        for content, words in (
            (pem_of(key, password=b"x"), "own-key.pem: the key is encrypted; expected one without a password"),
            (traditional, "own-key.pem: the key is encrypted"),
            (pem_of(new_key()), "own-key.pem: is not the key of the certificate in"),
            (pem_of(certificate), "own-key.pem: expected a private key in PEM"),
            (b" \n", "own-key.pem: is empty"),
        ):
            self.refused(words, call=lambda given=content: self.load(pem_of(certificate), given))
        self.refused("own.pem: expected a private key in PEM", call=lambda: self.load(pem_of(certificate)))
        self.refused("own.pem: the key is encrypted", call=lambda: self.load(pem_of(certificate, key, password=b"x")))

    def test_certificates_that_can_not_be_read(self):
        certificate, key = own_ca()
        der = certificate.public_bytes(Encoding.DER)
        self.refused("own.pem: expected a certificate in PEM", "-inform DER", call=lambda: self.load(der, pem_of(key)))
        self.refused("own.pem: is empty", call=lambda: self.load(b"", pem_of(key)))
        self.refused(
            "nowhere.pem: can't be read: No such file",
            call=lambda: load_authority(self.folder / "nowhere.pem", None),
        )
        self.refused("/dev/zero: can't be read: is larger than", call=lambda: load_authority(Path("/dev/zero"), None))

    def test_a_chain_goes_from_the_authority_upwards(self):
        root = own_ca(name="root")
        middle = own_ca(name="middle", by=root)
        low = own_ca(name="low", by=middle)
        authority = self.load(pem_of(low[0], middle[0], root[0], low[1]))
        self.assertEqual(authority.chain, (low[0], middle[0]))
        self.assertEqual(authority.anchor, root[0])
        for order, words in (
            ((low[0], root[0], middle[0], low[1]), "certificate 1 isn't signed by certificate 2"),
            ((low[0], middle[0], own_ca()[0], low[1]), "certificate 2 isn't signed by certificate 3"),
            ((root[0], middle[0], low[0], low[1]), "certificate 1 isn't signed by certificate 2"),
        ):
            self.refused("own.pem: ", words, call=lambda given=order: self.load(pem_of(*given)))

    def test_what_stands_above_must_be_of_use_as_well(self):
        for words, arguments in (
            ("certificate 2: allows 0 CAs below it", {"pathlen": 0}),
            ("certificate 2: expired on", {"since": -9 * DAY, "until": -DAY}),
            ("certificate 2: is not a CA's certificate", {"ca": False}),
        ):
            root = own_ca(name="root", **arguments)
            low = own_ca(name="low", by=root)
            self.refused(words, call=lambda given=(low[0], root[0], low[1]): self.load(pem_of(*given)))


# The name of P-256, which OpenSSL puts in front of a key.
PARAMETERS = b"BggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


class ChoiceTests(FolderTestCase):
    def test_the_state_folder(self):
        for configured, environ, folder in (
            ("/srv/state", {"STATE_DIRECTORY": "/var/lib/x", "HOME": "/home/a"}, "/srv/state"),
            ("~/state", {"STATE_DIRECTORY": "/var/lib/x", "HOME": "/home/a"}, "/home/a/state"),
            ("~", {"HOME": "/home/a"}, "/home/a"),
            ("state", {}, str(Path.cwd() / "state")),
            (None, {"STATE_DIRECTORY": "/var/lib/x", "HOME": "/home/a"}, "/var/lib/x"),
            (None, {"STATE_DIRECTORY": "/var/lib/x:/var/lib/y"}, "/var/lib/x"),
            (None, {"STATE_DIRECTORY": "", "HOME": "/home/a"}, "/home/a/.streamproxy"),
            ("", {"HOME": "/home/a"}, "/home/a/.streamproxy"),
        ):
            self.assertEqual(state_folder(configured, environ), Path(folder))

    def test_a_home_that_is_not_in_the_environment_is_looked_up(self):
        entry = mock.Mock(pw_dir="/home/of the user")
        with mock.patch.object(module.pwd, "getpwuid", return_value=entry):
            for environ in ({}, {"HOME": ""}):
                self.assertEqual(state_folder(None, environ), Path("/home/of the user/.streamproxy"))

    def test_there_must_be_a_home(self):
        with mock.patch.object(module.pwd, "getpwuid", side_effect=KeyError):
            self.refused("state_dir", call=state_folder, configured=None, environ={})
            self.refused("state_dir", call=state_folder, configured="~/x", environ={"HOME": "relative"})

    def test_the_users_own_goes_before_the_state_folders(self):
        environ = {"HOME": str(self.folder)}
        certificate, key = own_ca()
        path, key_path = str(self.write("own.pem", pem_of(certificate))), str(self.write("key.pem", pem_of(key)))
        self.assertEqual(authority_for(None, path, key_path, environ).certificate, certificate)
        self.assertFalse((self.folder / ".streamproxy").exists())
        kept = authority_for(None, None, None, environ)
        self.assertEqual(kept.path, self.folder / ".streamproxy/ca.pem")
        self.assertEqual(authority_for(str(self.folder / "else"), None, None, {}).path, self.folder / "else/ca.pem")

    def test_a_key_without_a_certificate_is_refused(self):
        self.refused("a key without a certificate", call=lambda: authority_for(None, None, "key.pem", {"HOME": "/"}))
