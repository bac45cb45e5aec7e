"""The authority that a daemon makes at its first start: its files, who gets to see them, what the log says of it."""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from twisted.trial.unittest import SynchronousTestCase

from tests.secure import issue
from tests.system.parts import TWISTD, Proxy, Ran, curl, new_folder, run
from tests.system.secure import Tunnel, curl_trusting, file_of

RULES = "rules: [{match: {host: hello.example}, respond: {text: hello}}]"
URL = "https://hello.example/"
PAGE = "http://streamproxy.test"
KEY_FILE = "ca-key.pem"
AT_ONCE = 4


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def logged_fingerprint(proxy: Proxy) -> str:
    """The fingerprint that the log tells, once it does."""
    said = re.compile(r"the CA's fingerprint is ([0-9A-F:]+) \(SHA-256\), and http://streamproxy\.test/ ")
    proxy.wait_for(lambda lines: any(map(said.search, lines)), "the authority's fingerprint")
    return next(found[1] for found in map(said.search, proxy.lines) if found)


def fingerprint_of(path: Path) -> str:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


class AuthorityCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.ca, self.key = self.state / "ca.pem", self.state / KEY_FILE

    def start(self, *overrides: str, **options) -> Proxy:
        return Proxy(self, RULES, f"state_dir={self.state}", *overrides, **options)

    def assert_trusted(self, proxy: Proxy, ca: Path) -> None:
        """A client that trusts what is in `ca` is served over TLS."""
        ran = curl(self, proxy, *curl_trusting(ca), URL)
        self.assertEqual((ran.status, ran.out), (0, b"hello"), ran.err)


class FirstStartTests(AuthorityCase):
    def test_the_key_is_its_owners_alone_whatever_the_umask(self) -> None:
        self.start(umask=0)
        self.assertEqual([path.name for path in sorted(self.state.iterdir())], [KEY_FILE, "ca.pem"])
        self.assertEqual((mode_of(self.state), mode_of(self.key), mode_of(self.ca)), (0o700, 0o600, 0o644))

    def test_the_log_tells_the_fingerprint_of_what_was_written(self) -> None:
        self.assertEqual(logged_fingerprint(self.start()), fingerprint_of(self.ca))

    def test_the_next_start_keeps_it(self) -> None:
        proxy = self.start()
        before = self.ca.read_bytes(), self.key.read_bytes()
        proxy.stop()
        proxy = self.start()
        self.assertEqual((self.ca.read_bytes(), self.key.read_bytes()), before)
        self.assert_trusted(proxy, file_of(self, before[0]))

    def test_daemons_that_start_at_once_agree_on_one(self) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            proxies = list(pool.map(lambda _: self.start(), range(AT_ONCE)))
        self.assertEqual({logged_fingerprint(proxy) for proxy in proxies}, {fingerprint_of(self.ca)})
        for proxy in proxies:
            self.assert_trusted(proxy, self.ca)
        # Nothing of the others' is left.
        self.assertEqual(sorted(path.name for path in self.state.iterdir()), [KEY_FILE, "ca.pem"])

    def test_a_leaf_is_made_by_it_and_lasts_no_longer_than_browsers_take(self) -> None:
        proxy = self.start()
        tunnel = Tunnel(self, proxy, "hello.example:443")
        tunnel.shake(self.ca)
        leaf = x509.load_der_x509_certificate(tunnel.sock.getpeercert(True))
        self.assertLessEqual((leaf.not_valid_after_utc - leaf.not_valid_before_utc).days, 199)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["hello.example"])
        # Whoever gets hold of the leaf's key hasn't got the authority's.
        self.assertNotEqual(leaf.public_key(), x509.load_pem_x509_certificate(self.ca.read_bytes()).public_key())


class OwnAuthorityTests(AuthorityCase):
    def test_a_users_own_authority_is_used_and_none_is_made(self) -> None:
        own = issue(is_ca=True, common_name="our own authority")
        path = file_of(self, own.pem, "own.pem")
        path.chmod(0o600)
        proxy = self.start(f"tls.authority.certificate={path}")
        self.assert_trusted(proxy, file_of(self, own.certificate_pem))
        self.assertEqual(logged_fingerprint(proxy), own.certificate.fingerprint(hashes.SHA256()).hex(":").upper())
        self.assertFalse(self.state.exists())


class SecrecyTests(AuthorityCase):
    """The certificate is given to whoever asks, its key to nobody."""

    def forms_of_the_key(self) -> Iterator[bytes]:
        """What any file that has the key must hold: its number, as bytes or in some writing."""
        pem = self.key.read_bytes()
        key = load_pem_private_key(pem, None)
        number = key.private_numbers().private_value.to_bytes(32, "big")
        yield from (number, number.hex().encode(), base64.b64encode(number))
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            written = key.private_bytes(Encoding.PEM, form, NoEncryption())
            # Past what all keys have in common.
            yield written.splitlines()[2]
        yield b"PRIVATE KEY-----"

    def test_no_address_of_the_page_gives_the_key(self) -> None:
        proxy = self.start()
        forms = list(self.forms_of_the_key())
        self.assertTrue(all(form in b"".join(self.forms_of_the_key()) for form in forms))
        names = ("ca.crt", "ca.pem", "ca.p12", "ca.der", "ca.key", "ca-key.pem")
        paths = ["/", *(f"/streamproxy-{name}" for name in names), *(f"/{name}" for name in names)]
        paths += [
            f"/../{KEY_FILE}",
            f"/%2e%2e/{KEY_FILE}",
            f"/.streamproxy/{KEY_FILE}",
            f"/{self.key}",
            f"/?f={self.key}",
        ]
        served = 0
        for path in paths:
            ran = curl(self, proxy, "--path-as-is", "-w", "%{http_code}", f"{PAGE}{path}")
            self.assertEqual(ran.status, 0, ran.err)
            served += ran.out[-3:] == b"200"
            for form in forms:
                self.assertNotIn(form, ran.out, path)
        # The page itself (with a query too), and the three files that it names.
        self.assertEqual(served, 5)
        self.assertFalse([form for form in forms if form.decode("latin-1") in proxy.output])

    def test_the_certificate_is_given_out_as_it_is(self) -> None:
        proxy = self.start()
        ca = x509.load_pem_x509_certificate(self.ca.read_bytes())
        pem = curl(self, proxy, f"{PAGE}/streamproxy-ca.pem").out
        der = curl(self, proxy, f"{PAGE}/streamproxy-ca.crt").out
        self.assertEqual((x509.load_pem_x509_certificate(pem), x509.load_der_x509_certificate(der)), (ca, ca))
        self.assert_trusted(proxy, file_of(self, pem))

    def test_the_page_is_reached_over_tls_as_well(self) -> None:
        proxy = self.start()
        ran = curl(self, proxy, *curl_trusting(self.ca), f"{PAGE.replace('http:', 'https:')}/streamproxy-ca.pem")
        self.assertEqual((ran.status, ran.out), (0, self.ca.read_bytes()), ran.err)

    def test_the_page_names_the_proxy_where_it_listens(self) -> None:
        proxy = self.start()
        page = curl(self, proxy, f"{PAGE}/").out.decode()
        self.assertIn(f"curl -x {proxy.url} ", page)


class WarningTests(AuthorityCase):
    def test_hosts_that_are_not_verified_are_told_at_the_start(self) -> None:
        proxy = self.start("tls.verify_upstream={dev.example: false, '*.test.example': false}")
        for pattern in ("dev.example", "*.test.example"):
            words = f"tls.verify_upstream: the certificates of {pattern} are NOT verified"
            proxy.wait_for(lambda lines, words=words: any(words in line for line in lines), words)

    def test_a_key_that_others_may_read_is_told_at_the_start(self) -> None:
        self.start().stop()
        self.key.chmod(0o644)
        proxy = self.start()
        words = f"{self.key}: others than its owner may use this key: chmod 600 {self.key}"
        proxy.wait_for(lambda lines: any(words in line for line in lines), words)

    def test_where_all_is_well_there_is_no_warning(self) -> None:
        proxy = self.start()
        logged_fingerprint(proxy)
        self.assertNotIn("#warn", proxy.output)


class NoAuthorityTests(AuthorityCase):
    def twistd(self, *arguments: str | Path) -> Ran:
        config = self.state.parent / "rules.yaml"
        config.write_text("listen: tcp:0:interface=127.0.0.1\nadmin: false\n")
        return run(self, TWISTD, "-n", "--pidfile=", "streamproxy", "-c", config, *arguments, folder=config.parent)

    def assert_one_line(self, ran: Ran, line: str) -> None:
        """It ends with status 1, and all that it prints is this line."""
        self.assertEqual((ran.status, ran.out.decode() + ran.err), (1, f"{line}\n"))

    def test_a_check_makes_none(self) -> None:
        ran = self.twistd("--check", "--set", f"state_dir={self.state}")
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertEqual([path.name for path in self.state.parent.iterdir()], ["rules.yaml"])

    def test_a_folder_that_cannot_be_made_is_a_line(self) -> None:
        # Even root can make no folder below a file.
        file = file_of(self, b"")
        ran = self.twistd("--set", f"state_dir={file}/deep/state")
        self.assert_one_line(
            ran, f"streamproxy: tls: {file}/deep/state: can't be made: Not a directory; state_dir can name another"
        )

    def test_a_folder_that_cannot_be_written_to_is_a_line(self) -> None:
        # Nobody makes files there.
        ran = self.twistd("--set", "state_dir=/proc/self")
        self.assertEqual(ran.status, 1)
        self.assertRegex(
            ran.out.decode() + ran.err, r"\Astreamproxy: tls: /proc/self/[^\n]*: can't be made: [^\n]+\n\Z"
        )

    def test_half_an_authority_is_a_line_and_stays_as_it_is(self) -> None:
        self.start().stop()
        self.key.unlink()
        before = self.ca.read_bytes()
        ran = self.twistd("--set", f"state_dir={self.state}")
        self.assertEqual(ran.status, 1)
        self.assertRegex(
            ran.out.decode() + ran.err, rf"\Astreamproxy: tls: {re.escape(str(self.key))}: is missing, [^\n]+\n\Z"
        )
        self.assertEqual(self.ca.read_bytes(), before)

    def test_a_daemon_says_it_too(self) -> None:
        file = file_of(self, b"")
        config = self.state.parent / "rules.yaml"
        config.write_text("listen: tcp:0:interface=127.0.0.1\nadmin: false\n")
        folder, pidfile, log = config.parent, config.parent / "pid", config.parent / "log"
        arguments = [f"--pidfile={pidfile}", f"--logfile={log}", "streamproxy", "-c", config]
        ran = run(self, TWISTD, *arguments, "--set", f"state_dir={file}/deep/state", folder=folder)
        self.assertEqual(ran.status, 1)
        self.assertIn(f"{file}/deep/state: can't be made: Not a directory", ran.out.decode() + ran.err)
        self.assertNotIn("Traceback", ran.out.decode() + ran.err)
        self.assertFalse(pidfile.exists())
