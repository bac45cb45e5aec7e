"""The page at streamproxy.test: what it shows, what it hands out, and what it never does."""

import base64
import hashlib
import html
import re
import time
from html.parser import HTMLParser

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.answers import prepare
from streamproxy.proxy.trust_page import HOST, TrustPage
from streamproxy.tls.authority import Authority
from streamproxy.tls.minting import make_root, new_key

FILES = ("/streamproxy-ca.crt", "/streamproxy-ca.pem", "/streamproxy-ca.p12")
PLACES = ("Debian, Ubuntu", "Fedora", "Arch", "macOS", "Windows", "iPhone", "Android", "Firefox", "Chrome", "Chromium")
PROGRAMS = ("curl", "requests", "httpx", "Node", "keytool", "git", "Docker")


class Reader(HTMLParser):
    """What a page is made of."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.unbalanced: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data) -> None:
        self.text += data


def authority_named(name: str) -> Authority:
    key = new_key()
    root = make_root(key, time.time())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


class TrustPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        key = new_key()
        self.authority = Authority(make_root(key, time.time()), key)
        self.page = TrustPage(self.authority)

    def fields(self, path: str, page: TrustPage | None = None, method: bytes = b"GET") -> dict[bytes, bytes]:
        answer = (page or self.page).answer(path, method)
        names = [name.lower() for name, _ in answer.headers]
        self.assertEqual(len(names), len(set(names)), names)
        return dict(answer.headers)

    def test_its_name_is_one_that_no_dns_has(self):
        self.assertEqual(HOST, "streamproxy.test")

    def test_it_shows_what_to_compare(self):
        answer = self.page.answer("/", b"GET")
        self.assertEqual(answer.status, 200)
        text = Reader(answer.body).text
        certificate = self.authority.certificate
        for words in (
            certificate.subject.rfc4514_string(),
            f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
            self.authority.fingerprint,
            self.authority.fingerprint_sha1,
            "only on machines that are your own",
        ):
            self.assertIn(words, text)

    def test_its_commands_have_the_proxys_url_as_each_client_reached_it(self):
        for proxy in ("http://[fd00::1]:8080", "http://127.0.0.1:3128", "http://[fd00::1]:8080"):
            text = Reader(self.page.answer("/", b"GET", proxy).body).text
            self.assertIn(f"curl -x {proxy} ", text)

    def test_it_tells_how_for_each_system_and_program_and_how_to_undo_it(self):
        page = self.page.answer("/", b"GET", "http://10.0.0.1:3128").body.decode()
        text = Reader(page.encode()).text
        for words in (*PLACES, *PROGRAMS, "curl -x http://10.0.0.1:3128 "):
            self.assertIn(words, text)
        for name in (
            "debian",
            "fedora",
            "arch",
            "macos",
            "windows",
            "ios",
            "android",
            "firefox",
            "chrome",
            "java",
            "git",
        ):
            (section,) = re.findall(rf'<details id="{name}">.*?</details>', page, re.DOTALL)
            self.assertRegex(section, "[Tt]o remove it", name)

    def test_its_shell_commands_have_their_dollars_and_nothing_is_left_to_fill_in(self):
        text = Reader(self.page.answer("/", b"GET").body).text
        self.assertIn('eval "$(streamproxy env)"', text)
        self.assertEqual(set(re.findall(r"\$\w+", text)), {"$HOME", "$PWD"})

    def test_it_is_well_formed_and_needs_nothing_from_elsewhere(self):
        for page in (self.page, TrustPage(None)):
            read = Reader(page.answer("/", b"GET").body)
            self.assertEqual((read.open, read.unbalanced), ([], []))
            self.assertEqual(read.tags & {"script", "img", "link", "iframe", "form", "object"}, set())
            links = {value for name, value in read.attributes if name in ("href", "src", "action", "style")}
            self.assertEqual(links, set(FILES) if page is self.page else set())
            self.assertIn(("name", "viewport"), read.attributes)

    def test_whatever_it_links_to_is_there(self):
        for name, value in Reader(self.page.answer("/", b"GET").body).attributes:
            if name == "href":
                self.assertEqual(self.page.answer(value, b"GET").status, 200, value)

    def test_the_files_are_the_certificate(self):
        crt, pem, p12 = (self.page.answer(path, b"GET").body for path in FILES)
        self.assertEqual(x509.load_der_x509_certificate(crt), self.authority.certificate)
        self.assertEqual(x509.load_pem_x509_certificate(pem), self.authority.certificate)
        (entry,) = pkcs12.load_pkcs12(p12, None).additional_certs
        self.assertEqual(entry.certificate, self.authority.certificate)

    def test_a_phone_or_a_browser_offers_to_install_the_crt_and_keeps_the_others(self):
        found = {path: self.fields(path) for path in FILES}
        self.assertEqual(
            {path: (each[b"Content-Type"], each[b"Content-Disposition"]) for path, each in found.items()},
            {
                FILES[0]: (b"application/x-x509-ca-cert", b'inline; filename="streamproxy-ca.crt"'),
                FILES[1]: (b"application/x-pem-file", b'attachment; filename="streamproxy-ca.pem"'),
                FILES[2]: (b"application/x-pkcs12", b'attachment; filename="streamproxy-ca.p12"'),
            },
        )

    def test_nothing_that_it_serves_has_a_key(self):
        secrets = [
            key.private_numbers().private_value.to_bytes(32, "big")
            for key in (self.authority.leaf_key, self.authority._key)
        ]
        for path in ("/", *FILES, "/ca-key.pem", "/streamproxy-ca-key.pem", "/../ca-key.pem"):
            body = self.page.answer(path, b"GET").body
            for secret in secrets:
                self.assertNotIn(secret, body)
                self.assertNotIn(base64.b64encode(secret), body)
            self.assertNotIn(b"PRIVATE", body)
        self.assertIsNone(pkcs12.load_pkcs12(self.page.answer(FILES[2], b"GET").body, None).key)

    def test_a_query_changes_nothing(self):
        self.assertEqual(self.page.answer("/?utm=1", b"GET"), self.page.answer("/", b"GET"))
        self.assertEqual(self.page.answer(FILES[0] + "?", b"GET").body, self.authority.der)

    def test_head_is_answered_like_get(self):
        for path in ("/", *FILES):
            answer = self.page.answer(path, b"HEAD")
            self.assertEqual(answer, self.page.answer(path, b"GET"))
            self.assertEqual(prepare(answer, b"HEAD", False, 0.0).body, b"")

    def test_other_paths_are_refused_in_words(self):
        for path in ("", "//", "/favicon.ico", "/streamproxy-ca.key", "/streamproxy-ca.crt/", "/%2e%2e/", "*"):
            answer = self.page.answer(path, b"GET")
            self.assertEqual(answer.status, 404, path)
            self.assertTrue(answer.body.startswith(b"404 Not Found: "))

    def test_other_methods_are_refused_in_words(self):
        for path in ("/", *FILES):
            for method in (b"POST", b"PUT", b"DELETE", b"get", b"OPTIONS"):
                self.assertEqual(self.page.answer(path, method).status, 405)
                self.assertEqual(self.fields(path, method=method)[b"Allow"], b"GET, HEAD")
        self.assertEqual(self.page.answer("/nowhere", b"POST").status, 404)

    def test_nothing_is_kept_or_guessed(self):
        for page in (self.page, TrustPage(None)):
            for path, method in (*((path, b"GET") for path in ("/", "/nowhere", *FILES)), ("/", b"POST")):
                fields = self.fields(path, page, method)
                self.assertEqual(fields[b"Cache-Control"], b"no-store")
                self.assertEqual(fields[b"X-Content-Type-Options"], b"nosniff")

    def test_its_policy_allows_its_own_style_and_nothing_else(self):
        for page in (self.page, TrustPage(None)):
            policy = self.fields("/", page)[b"Content-Security-Policy"].decode()
            (style,) = re.findall(rb"<style>(.*?)</style>", page.answer("/", b"GET").body, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
            rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
            self.assertEqual(rules.pop("style-src"), f"'sha256-{digest}'")
            self.assertEqual(set(rules.values()), {"'none'"})
            self.assertTrue({"default-src", "base-uri", "form-action", "frame-ancestors"} <= set(rules))

    def test_what_a_certificate_says_is_shown_and_not_obeyed(self):
        evil = "<script>alert(1)</script>&amp;\"'$proxy"
        page = TrustPage(authority_named(evil)).answer("/", b"GET").body
        self.assertNotIn(b"<script", page)
        shown = html.unescape(page.decode())
        self.assertIn(authority_named(evil).anchor.subject.rfc4514_string(), shown)

    def test_where_nothing_is_intercepted_it_says_so_and_has_no_files(self):
        page = TrustPage(None)
        answer = page.answer("/", b"GET")
        self.assertEqual(answer.status, 200)
        self.assertIn("HTTPS is not intercepted here", Reader(answer.body).text)
        self.assertEqual([page.answer(path, b"GET").status for path in FILES], [404] * 3)
        self.assertEqual(page.answer("/", b"POST").status, 405)
