"""curl (OpenSSL) by way of the proxy to origins that speak TLS: nginx, and some that nginx would never be."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import stat
import threading
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.secure import issue, origin_ca, server_context
from tests.system.parts import (
    WAIT,
    Asked,
    Nginx,
    Origin,
    Program,
    Proxy,
    Ran,
    Wire,
    chunked,
    curl,
    curl_command,
    each_request,
    new_folder,
    read_request,
    response,
    until,
)
from tests.system.secure import (
    SecureOrigin,
    Tunnel,
    certificate_for_us,
    curl_trusting,
    file_of,
    origin_ca_file,
    secure_nginx,
    trusting,
)
from tests.system.test_curl import hash_of, write_random

CONNECT_REFUSED = 56
NOT_TRUSTED = 60
BIG = 32 << 20
DAY = datetime.timedelta(days=1)


class SecureCase(SynchronousTestCase):
    """`proxy` trusts the authority of the origins."""

    def start(self, rules: str = "", *overrides: str, **options) -> Proxy:
        self.proxy = Proxy(self, rules, trusting(self), *overrides, **options)
        return self.proxy

    def curl(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        """Run curl, which trusts the proxy's authority and nobody else."""
        return curl(self, self.proxy, *curl_trusting(self.proxy.ca), *arguments, stdin=stdin)

    def lines(self, number: int) -> list[tuple[str, str, str]]:
        """Method, URL and outcome of the exchanges so far, once there are `number`."""
        return [(line["method"], line["url"], line["outcome"]) for line in self.proxy.recorded(number)]


class NginxTests(SecureCase):
    def setUp(self) -> None:
        self.nginx = secure_nginx(self, ' location = /name { return 200 "[$ssl_server_name]"; }')
        self.start()
        (self.nginx.root / "page.txt").write_text("a page of text\n")

    def test_get(self) -> None:
        ran = self.curl("-i", self.nginx.url("/page.txt"))
        self.assertEqual(ran.status, 0, ran.err)
        # The tunnel's own response first.
        _, head, body = ran.out.split(b"\r\n\r\n")
        self.assertEqual(body, b"a page of text\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\nServer: nginx"), head)
        self.assertRegex(head, rb"\r\nVia: 1\.1 streamproxy")
        self.assertEqual(
            self.lines(2),
            [
                ("CONNECT", self.nginx.netloc, "switched"),
                ("GET", self.nginx.url("/page.txt"), "forwarded"),
            ],
        )

    def test_the_certificate_that_is_shown_is_the_proxys_for_the_origins_name(self) -> None:
        ca = x509.load_pem_x509_certificate(self.proxy.ca.read_bytes())
        for host in ("127.0.0.1", "localhost"):
            ran = self.curl("-v", self.nginx.url("/page.txt", host))
            self.assertEqual((ran.status, ran.out), (0, b"a page of text\n"), ran.err)
            self.assertIn(f'subjectAltName: host "{host}" matched cert', ran.err)
            self.assertIn("SSL certificate verify ok", ran.err)
            issuer = re.search(r"(?m)^\*  issuer: (.*?)\r?$", ran.err)
            assert issuer is not None, ran.err
            (common_name,) = ca.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            self.assertIn(f"CN={common_name.value}", issuer[1])

    def test_the_origin_is_told_by_which_name_it_is_called(self) -> None:
        self.assertEqual(self.curl(self.nginx.url("/name", "localhost")).out, b"[localhost]")
        # Addresses are no names (RFC 6066 section 3).
        self.assertEqual(self.curl(self.nginx.url("/name")).out, b"[]")

    def test_http_1_1_is_what_is_agreed_on(self) -> None:
        ran = self.curl("-v", self.nginx.url("/page.txt"))
        self.assertRegex(ran.err, r"(?m)^\* ALPN: offers h2,http/1\.1\r?$")
        self.assertRegex(ran.err, r"(?m)^\* ALPN: server accepted http/1\.1\r?$")

    def test_each_version_of_tls_that_is_safe_is_spoken(self) -> None:
        for version, name in (("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")):
            ran = self.curl("-v", f"--tlsv{version}", "--tls-max", version, self.nginx.url("/page.txt"))
            self.assertEqual((ran.status, ran.out), (0, b"a page of text\n"), ran.err)
            self.assertIn(f"SSL connection using {name}", ran.err)

    def test_two_urls_go_over_one_connection(self) -> None:
        (self.nginx.root / "other.txt").write_text("another\n")
        urls = [self.nginx.url("/page.txt"), self.nginx.url("/other.txt")]
        ran = self.curl("-w", "%{stderr}%{num_connects} ", *urls)
        self.assertEqual(ran.out, b"a page of text\nanother\n")
        self.assertEqual(ran.err.split(), ["1", "0"])
        self.assertEqual([method for method, _, _ in self.lines(3)], ["CONNECT", "GET", "GET"])

    def test_uploads(self) -> None:
        body = new_folder(self) / "body"
        body.write_bytes(b"known" * 40_000)
        for name, arguments in (
            ("length", ["-T", body]),
            ("chunks", ["-T", body, "-H", "Transfer-Encoding: chunked"]),
            ("asked-for", ["-T", body, "-H", "Expect: 100-continue", "--expect100-timeout", "30"]),
        ):
            ran = self.curl("-w", "%{http_code}", *arguments, self.nginx.url(f"/put/{name}"))
            self.assertEqual((ran.status, ran.out), (0, b"201"), ran.err)
            self.assertEqual((self.nginx.root / "put" / name).read_bytes(), b"known" * 40_000)

    def test_large_bodies_arrive_as_they_were(self) -> None:
        digest = write_random(self.nginx.root / "large", BIG)
        got = new_folder(self) / "got"
        ran = self.curl("-o", got, self.nginx.url("/large"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(hash_of(got), digest)
        ran = self.curl("-w", "%{http_code}", "-T", got, self.nginx.url("/put/large"))
        self.assertEqual((ran.status, ran.out), (0, b"201"), ran.err)
        self.assertEqual(hash_of(self.nginx.root / "put" / "large"), digest)

    def test_without_the_authority_curl_says_so_and_the_log_too(self) -> None:
        nothing = origin_ca_file(self)
        ran = curl(self, self.proxy, *curl_trusting(nothing), self.nginx.url("/page.txt"))
        self.assertEqual((ran.status, ran.out), (NOT_TRUSTED, b""))
        self.assertIn("unable to get local issuer certificate", ran.err)
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "failed")
        self.assertEqual(
            line["error"],
            "the client's TLS handshake for 127.0.0.1 failed: it does not trust the proxy's CA (alert: unknown ca)",
        )
        self.assertTrue(line["client"].startswith("127.0.0.1:"), line)


class SecureProxyTests(SecureCase):
    """The proxy spoken to by TLS itself (`-x https://`)."""

    def setUp(self) -> None:
        self.start()

    def curl(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        ca = self.proxy.ca
        over_tls = [
            "-x",
            self.proxy.url.replace("http:", "https:"),
            "--proxy-cacert",
            ca,
            "--proxy-capath",
            "/dev/null",
        ]
        return super().curl(*over_tls, *arguments, stdin=stdin)

    def test_tls_in_tls(self) -> None:
        nginx = secure_nginx(self)
        digest = write_random(nginx.root / "large", BIG // 4)
        got = new_folder(self) / "got"
        ran = self.curl("-v", "-o", got, nginx.url("/large"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(hash_of(got), digest)
        # Once for the proxy, once for the origin.
        self.assertEqual(ran.err.count("SSL certificate verify ok"), 2, ran.err)
        ran = self.curl("-w", "%{http_code}", "-T", got, nginx.url("/put/large"))
        self.assertEqual((ran.status, ran.out), (0, b"201"), ran.err)
        self.assertEqual(hash_of(nginx.root / "put" / "large"), digest)
        outcomes = [(method, outcome) for method, _, outcome in self.lines(4)]
        self.assertEqual(
            outcomes,
            [("CONNECT", "switched"), ("GET", "forwarded"), ("CONNECT", "switched"), ("PUT", "forwarded")],
        )

    def test_plain_http_in_tls(self) -> None:
        nginx = Nginx(self)
        (nginx.root / "page.txt").write_text("plain\n")
        ran = self.curl(nginx.url("/page.txt"), nginx.url("/page.txt"), "-w", "%{stderr}%{num_connects} ")
        self.assertEqual((ran.status, ran.out, ran.err.split()), (0, b"plain\nplain\n", ["1", "0"]))
        self.assertEqual(self.lines(2), [("GET", nginx.url("/page.txt"), "forwarded")] * 2)

    def test_a_client_that_does_not_trust_the_proxy_has_a_line(self) -> None:
        url = self.proxy.url.replace("http:", "https:")
        ran = curl(self, self.proxy, "-x", url, "--proxy-cacert", origin_ca_file(self), "http://hello.example/")
        self.assertEqual((ran.status, ran.out), (NOT_TRUSTED, b""))
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "failed")
        self.assertIn("it does not trust the proxy's CA", line["error"])


class PlainTunnelTests(SecureCase):
    """CONNECT to what speaks plain HTTP (`--proxytunnel`)."""

    def test_http_in_a_tunnel_is_read_as_http(self) -> None:
        self.start("rules: [{name: shut, match: {path: /shut}, block: 451}]")
        nginx = Nginx(self)
        (nginx.root / "page.txt").write_text("plain\n")
        ran = self.curl("-p", nginx.url("/page.txt"), nginx.url("/shut"), "-w", "%{stderr}%{num_connects} ")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, b"plain\nBlocked by rule 'shut'.\n")
        self.assertEqual(ran.err.split(), ["1", "0"])
        self.assertEqual(
            self.lines(3),
            [
                ("CONNECT", nginx.netloc, "switched"),
                ("GET", nginx.url("/page.txt"), "forwarded"),
                ("GET", nginx.url("/shut"), "refused"),
            ],
        )


class OriginTests(SecureCase):
    """Origins that tell what they got, or end in ways of their own."""

    def test_a_post_comes_as_it_was_sent(self) -> None:
        seen: list[Asked] = []

        def answer(asked: Asked) -> bytes:
            seen.append(asked)
            return response(b"thanks")

        origin = SecureOrigin(self, each_request(answer))
        self.start()
        ran = self.curl("-d", "x=1&y=2", "-H", "X-oDD-Case: kept", origin.url("/form?q=%41"))
        self.assertEqual((ran.status, ran.out), (0, b"thanks"), ran.err)
        (asked,) = seen
        self.assertEqual(asked.line, b"POST /form?q=%41 HTTP/1.1")
        self.assertEqual(asked.body, b"x=1&y=2")
        self.assertIn(b"\r\nX-oDD-Case: kept\r\n", asked.head)
        self.assertIn(b"\r\nHost: " + origin.netloc.encode() + b"\r\n", asked.head)

    def test_chunks_stay_as_they_were(self) -> None:
        sent = chunked(b"one", b"and two", b"x" * 5000, trailers=b"X-Sum: 42\r\n")
        origin = SecureOrigin(self, each_request(lambda asked: sent))
        self.start()
        ran = self.curl("--raw", origin.url())
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, sent.partition(b"\r\n\r\n")[2])

    def test_the_origins_connection_is_used_again_for_another_client(self) -> None:
        origin = SecureOrigin(self, each_request(lambda asked: response(b"here")))
        self.start()
        for _ in range(3):
            self.assertEqual(self.curl(origin.url()).out, b"here")
        self.assertEqual(len(origin.wires), 1)

    def test_a_body_until_close_is_whole_only_if_tls_was_ended_in_order(self) -> None:
        def script(wire: Wire) -> None:
            asked = read_request(wire)
            assert asked is not None
            wire.send(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it" * 1000)
            if b"/cut" in asked.line:
                # The end of TCP without that of TLS.
                wire.close()

        origin = SecureOrigin(self, script)
        self.start()
        whole, cut = self.curl(origin.url("/whole")), self.curl(origin.url("/cut"))
        self.assertEqual((whole.status, whole.out), (0, b"all of it" * 1000), whole.err)
        self.assertNotEqual(cut.status, 0)
        self.assertEqual([outcome for _, _, outcome in self.lines(4)][1::2], ["forwarded", "origin-gone"])

    def test_plain_http_behind_an_https_url_is_told_in_words(self) -> None:
        nginx = Nginx(self)
        self.start()
        ran = self.curl(nginx.url().replace("http:", "https:"))
        self.assertEqual((ran.status, ran.out), (0, b"502 Bad Gateway: 127.0.0.1 doesn't speak TLS there\n"), ran.err)


class VerificationTests(SecureCase):
    """Origins that don't prove who they are."""

    def refused(self, issued) -> bytes:
        """What curl is told about an origin with this certificate, which must not hear a request."""
        asked: list[Asked] = []
        origin = SecureOrigin(self, each_request(lambda each: asked.append(each) or response(b"trusted")), issued)
        ran = self.curl("-w", "%{http_code}", origin.url("/secret"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out[-3:], b"502", ran.out)
        self.assertEqual((len(origin.wires), asked), (1, []))
        return ran.out[:-4]

    def test_they_are_told_in_words_and_hear_nothing(self) -> None:
        self.start()
        yesterday = f"{datetime.datetime.now(datetime.UTC) - DAY:%Y-%m-%d}"
        own = b"502 Bad Gateway: the certificate of 127.0.0.1 "
        other_ca = issue(is_ca=True, common_name="somebody else")
        self.assertEqual(
            self.refused(certificate_for_us(since=-3 * DAY, until=-DAY)),
            own + f"has expired (on {yesterday})".encode(),
        )
        self.assertTrue(self.refused(certificate_for_us(since=DAY)).startswith(own + b"is not yet valid (before "))
        self.assertEqual(
            self.refused(issue("other.example", by=origin_ca())),
            own + b"has the wrong name: it is made for other.example",
        )
        self.assertEqual(self.refused(issue("127.0.0.1")), own + b"isn't trusted: it is self-signed")
        self.assertTrue(
            self.refused(certificate_for_us(by=other_ca)).startswith(
                own + b"isn't trusted: its issuer, 'somebody else', is unknown here"
            )
        )
        lines = [line for line in self.proxy.recorded(10) if line["method"] == "GET"]
        self.assertEqual([(line["outcome"], line["status"]) for line in lines], [("refused", 502)] * 5)
        self.assertTrue(all("the certificate of 127.0.0.1" in line["error"] for line in lines), lines)

    def test_only_the_hosts_that_are_named_go_without(self) -> None:
        origin = SecureOrigin(
            self, each_request(lambda asked: response(b"unproven")), issue("127.0.0.1", "localhost", until=-DAY / 2)
        )
        self.start("", "tls.verify_upstream={localhost: false}")
        self.assertEqual(self.curl(origin.url("/", "localhost")).out, b"unproven")
        self.assertTrue(self.curl(origin.url()).out.startswith(b"502 "))
        self.assertIn("tls.verify_upstream: the certificates of localhost are NOT verified", self.proxy.output)


class PassthroughTests(SecureCase):
    """What is left alone is between the client and the origin."""

    def setUp(self) -> None:
        self.nginx = secure_nginx(self)
        (self.nginx.root / "page.txt").write_text("untouched\n")
        self.rules = "rules: [{match: {path: /page.txt}, response: {replace: [{find: untouched, with: touched}]}}]"

    def curl_with_the_origins_ca(self, *arguments: str) -> Ran:
        return curl(self, self.proxy, *curl_trusting(origin_ca_file(self)), *arguments)

    def assert_untouched(self, *arguments: str) -> None:
        """curl gets the origin's own certificate, and its own bytes; with the proxy's authority it gets nothing."""
        ran = self.curl_with_the_origins_ca("-v", *arguments)
        self.assertEqual((ran.status, ran.out), (0, b"untouched\n"), ran.err)
        self.assertRegex(ran.err, r"(?m)^\*  issuer: CN=the origins' authority\r?$")
        self.assertNotIn("Via:", ran.err)
        self.assertEqual(self.curl(*arguments).status, NOT_TRUSTED)
        untouched, refused = self.proxy.recorded(2)
        self.assertEqual((untouched["method"], untouched["outcome"]), ("CONNECT", "tunnelled"))
        # That one left: by a reset where it hadn't read all that the origin said.
        self.assertEqual(refused["method"], "CONNECT")
        self.assertIn(refused["outcome"], ("tunnelled", "client-gone"))

    def test_by_address(self) -> None:
        self.start(self.rules, "tls.passthrough=[127.0.0.0/8]")
        self.assert_untouched(self.nginx.url("/page.txt"))
        with self.assertRaises(ssl.SSLCertVerificationError):
            Tunnel(self, self.proxy, self.nginx.netloc).shake(self.proxy.ca)
        tunnel = Tunnel(self, self.proxy, self.nginx.netloc)
        tunnel.shake(origin_ca_file(self))
        assert isinstance(tunnel.sock, ssl.SSLSocket)
        shown = tunnel.sock.getpeercert(True)
        assert shown is not None
        # Byte for byte the one that nginx was given.
        self.assertIn(ssl.DER_cert_to_PEM_cert(shown), (self.nginx.root.parent / "nginx.pem").read_text())

    def test_by_what_a_name_resolves_to(self) -> None:
        self.start(self.rules, "tls.passthrough=[127.0.0.0/8]")
        self.assert_untouched(self.nginx.url("/page.txt", "localhost"))

    def test_by_name_and_nothing_else(self) -> None:
        self.start(self.rules, "tls.passthrough=[localhost]")
        self.assert_untouched(self.nginx.url("/page.txt", "localhost"))
        self.assertEqual(self.curl(self.nginx.url("/page.txt")).out, b"touched\n")

    def test_by_the_name_in_the_handshake(self) -> None:
        self.start(self.rules, "tls.passthrough=[localhost]")
        # CONNECT is to the address, and the ClientHello is for the name.
        url = self.nginx.url("/page.txt", "localhost")
        self.assert_untouched("--connect-to", f"localhost:{self.nginx.port}:{self.nginx.netloc}", url)

    def test_nothing_else_than_what_is_wanted(self) -> None:
        self.start(self.rules, "tls.only=[localhost]")
        self.assert_untouched(self.nginx.url("/page.txt"))
        self.assertEqual(self.curl(self.nginx.url("/page.txt", "localhost")).out, b"touched\n")

    def test_where_nothing_is_intercepted_there_is_no_authority(self) -> None:
        self.start(self.rules, "tls.intercept=false")
        ran = self.curl_with_the_origins_ca(self.nginx.url("/page.txt"))
        self.assertEqual((ran.status, ran.out), (0, b"untouched\n"), ran.err)
        self.assertFalse(self.proxy.ca.parent.exists())


class ClientCertificateTests(SecureCase):
    def test_an_origin_that_asks_for_one_is_shown_ours(self) -> None:
        clients_ca = issue(is_ca=True, common_name="the clients' authority")
        purpose = x509.ExtendedKeyUsageOID.CLIENT_AUTH
        ours = issue(by=clients_ca, common_name="the proxy that we know", purpose=purpose)
        known, certificate = file_of(self, clients_ca.certificate_pem), file_of(self, ours.pem, "client.pem")
        nginx = secure_nginx(
            self,
            f"ssl_client_certificate {known}; ssl_verify_client on;"
            ' location = /who { return 200 "$ssl_client_verify $ssl_client_s_dn"; }',
        )
        self.start("", f"tls.client_certificate={{localhost: {certificate}}}")
        ran = self.curl(nginx.url("/who", "localhost"))
        self.assertEqual((ran.status, ran.out), (0, b"SUCCESS CN=the proxy that we know"), ran.err)
        # Nobody else is shown it.
        ran = self.curl("-w", "%{http_code}", nginx.url("/who"))
        self.assertIn(b"No required SSL certificate was sent", ran.out)
        self.assertEqual(ran.out[-3:], b"400")

    def test_an_origin_that_insists_is_told_in_words(self) -> None:
        def script(wire: Wire) -> None:
            context = server_context(certificate_for_us(), "http/1.1")
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=origin_ca().certificate_pem.decode())
            try:
                wire.start_tls(context, server=True)
            except ssl.SSLError:
                # Closed at once it would be a reset, which may overtake the alert.
                wire.sock = socket.socket(fileno=wire.sock.detach())
                wire.half_close()
                wire.read_to_end()

        origin = Origin(self, script)
        self.start()
        ran = self.curl(origin.url().replace("http:", "https:"))
        self.assertEqual(
            (ran.status, ran.out),
            (0, b"502 Bad Gateway: 127.0.0.1 asks for a client certificate (tls.client_certificate)\n"),
            ran.err,
        )


class KeyLogTests(SecureCase):
    def test_the_secrets_of_both_sides_are_written(self) -> None:
        randoms: list[str] = []
        context = server_context(certificate_for_us(), "http/1.1")

        def script(wire: Wire) -> None:
            # In a ClientHello: the record's header, the message's, the version, then 32 random bytes.
            randoms.append(wire.sock.recv(43, socket.MSG_PEEK | socket.MSG_WAITALL)[11:].hex())
            wire.start_tls(context, server=True)
            read_request(wire)
            wire.send(response(b"here"))

        origin = Origin(self, script)
        folder = new_folder(self)
        keys, clients = folder / "keys", folder / "clients"
        self.start(environment={"SSLKEYLOGFILE": str(keys)})
        self.assertIn(f"SSLKEYLOGFILE: the secrets of all TLS connections are written to {keys}", self.proxy.output)
        tunnel = Tunnel(self, self.proxy, origin.netloc)
        tunnel_context = ssl.create_default_context(cafile=str(self.proxy.ca))
        tunnel_context.keylog_filename = str(clients)
        tunnel.start_tls(tunnel_context, name="127.0.0.1")
        tunnel.ask_for("/")
        self.assertEqual(tunnel.read_body(tunnel.read_head()), b"here")
        written = keys.read_text().splitlines()
        self.assertEqual(stat.S_IMODE(keys.stat().st_mode), 0o600)
        # The client's own secrets, as the client knows them.
        secrets = {line for line in clients.read_text().splitlines() if not line.startswith("#")}
        self.assertGreaterEqual(len(secrets), 4)
        self.assertEqual(secrets - set(written), set())
        (random,) = randoms
        self.assertGreaterEqual(sum(line.split()[1] == random for line in written), 4, written)


class RuleTests(SecureCase):
    """Rules mean for https:// what they mean for http://."""

    def test_a_host_that_is_blocked_is_refused_at_connect(self) -> None:
        self.start("rules: [{name: no ads, match: {host: ads.example}, block: 403}]")
        ran = self.curl("-v", "https://ads.example/banner")
        self.assertEqual(ran.status, CONNECT_REFUSED)
        self.assertRegex(ran.err, r"(?m)^< HTTP/1\.1 403 Forbidden\r?$")
        (line,) = self.proxy.recorded(1)
        self.assertEqual((line["method"], line["outcome"], line["rules"]), ("CONNECT", "refused", ["no ads"]))

    def test_a_path_that_is_blocked_is_refused_in_the_tunnel(self) -> None:
        asked: list[bytes] = []
        origin = SecureOrigin(self, each_request(lambda each: asked.append(each.line) or response(b"open")))
        self.start("rules: [{name: shut, match: {url: 'https://*/shut*'}, block: 451}]")
        ran = self.curl("-w", "%{http_code} ", origin.url("/shut/in"), origin.url("/open"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, b"Blocked by rule 'shut'.\n451 open200 ")
        self.assertEqual(asked, [b"GET /open HTTP/1.1"])

    def test_a_response_of_our_own_needs_no_origin(self) -> None:
        self.start("rules: [{match: {url: 'https://api.example/v1/*'}, respond: {text: mocked}}]")
        ran = self.curl("https://api.example/v1/models")
        self.assertEqual((ran.status, ran.out), (0, b"mocked"), ran.err)

    def test_a_request_is_sent_elsewhere_with_tls_or_without(self) -> None:
        nginx, secure = Nginx(self), secure_nginx(self)
        for each, text in ((nginx, "plain\n"), (secure, "secure\n")):
            (each.root / "page.txt").write_text(text)
        self.start(
            "rules:\n"
            f"  - {{match: {{host: plain.example}}, redirect_to: '{nginx.url()}'}}\n"
            f"  - {{match: {{host: secure.example}}, redirect_to: '{secure.url()}'}}\n"
        )
        for url, text in (
            ("https://plain.example/page.txt", b"plain\n"),
            ("https://secure.example/page.txt", b"secure\n"),
            ("http://secure.example/page.txt", b"secure\n"),
        ):
            ran = self.curl(url)
            self.assertEqual((ran.status, ran.out), (0, text), (url, ran.err))

    def test_fields_are_changed_both_ways(self) -> None:
        origin = SecureOrigin(self, each_request(lambda asked: response(asked.head, b"X-Secret: 1")))
        self.start(
            "rules: [{request: {headers: {remove: [Cookie], set: {X-Team: blue}}},"
            " response: {headers: {remove: [X-Secret]}}}]"
        )
        ran = self.curl("-i", "-H", "Cookie: a=b", origin.url())
        _, head, body = ran.out.split(b"\r\n\r\n", 2)
        self.assertNotIn(b"X-Secret", head)
        self.assertNotIn(b"Cookie", body)
        self.assertIn(b"\r\nX-Team: blue\r\n", body)

    def test_a_stream_is_changed_while_it_flows(self) -> None:
        got = new_folder(self) / "got"
        seen = threading.Event()

        def script(wire: Wire) -> None:
            read_request(wire)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"data: internal.exa")
            wire.send(b"mple 1\n\n")
            # The next event comes only when the first was seen at the other end.
            assert seen.wait(WAIT), "the first event never arrived"
            wire.send(b"data: internal.example 2\n\n")

        origin = SecureOrigin(self, script)
        self.start("rules: [{response: {replace: [{find: internal.example, with: public.example}]}}]")
        program = Program(
            self,
            curl_command(self.proxy, "-N", "-o", got, *curl_trusting(self.proxy.ca), origin.url()),
            got.parent,
        )
        first = b"data: public.example 1\n\n"
        until(lambda: got.exists() and got.read_bytes() == first, "the first event")
        seen.set()
        self.assertEqual(program.wait(), 0, program.output)
        self.assertEqual(got.read_bytes(), b"data: public.example 1\n\ndata: public.example 2\n\n")
