"""The console script: what it writes, for whom, and how it refuses."""

import io
import os
import re
import shlex
import ssl
import subprocess
import sys
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from twisted.trial.unittest import SynchronousTestCase

from streamproxy import __version__
from streamproxy.command import main
from streamproxy.commands import trust
from streamproxy.commands.trust import java_options, proxy_url, system_bundle
from streamproxy.tls.authority import Authority, open_authority
from streamproxy.tls.minting import make_root, new_key

ROOT = Path(__file__).parents[1]


def another_ca() -> bytes:
    key = new_key()
    return make_root(key, 1.7e9).public_bytes(Encoding.PEM)


class Written(io.TextIOWrapper):
    """A stand-in for stdout or stderr, which may be a terminal."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def bytes(self) -> bytes:
        return self.buffer.getvalue()


# What is said where there was no CA before.
MADE = re.compile(r"\Astreamproxy: warning: there was no CA yet, so one was made: [^\n]*/ca\.pem\n")


class CommandTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.state = self.folder / "the state"
        self.system = self.write("system.pem", another_ca())
        environ = {"HOME": str(self.folder), "SSL_CERT_FILE": str(self.system), "PATH": os.environ["PATH"]}
        patched = mock.patch.dict(os.environ, environ, clear=True)
        patched.start()
        self.addCleanup(patched.stop)

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run_it(self, *arguments: str | Path, terminal: bool = False) -> tuple[int, bytes, str]:
        """The exit status, and what came on stdout and stderr."""
        out, err = Written(terminal), Written()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            try:
                status = main([str(each) for each in arguments])
            except SystemExit as exit:
                status = exit.code
        return status, out.bytes, MADE.sub("", err.bytes.decode())

    def with_state(self, *arguments: str | Path, terminal: bool = False) -> bytes:
        """What comes on stdout with this test's state folder, where all goes well."""
        status, out, err = self.run_it(*arguments, "--set", f"state_dir={self.state}", terminal=terminal)
        self.assertEqual((status, err), (0, ""))
        return out

    def refused(self, *arguments: str | Path, words: str, terminal: bool = False) -> None:
        status, out, err = self.run_it(*arguments, terminal=terminal)
        self.assertEqual((status, out), (1, b""))
        self.assertRegex(err, rf"^streamproxy[ \w]*: [^\n]*{re.escape(words)}[^\n]*\n$")


class AuthorityTests(CommandTestCase):
    def test_a_ca_that_is_made_is_told(self):
        shown = []
        for _ in range(2):
            err = Written()
            with mock.patch.object(sys, "stdout", Written()), mock.patch.object(sys, "stderr", err):
                main(["ca", "show", "--set", f"state_dir={self.state}"])
            shown.append(err.bytes.decode())
        self.assertRegex(shown[0], MADE)
        self.assertIn(str(self.state), shown[0])
        self.assertEqual(shown[1], "")

    def test_export_gives_the_certificate_in_each_form(self):
        pem = self.with_state("ca", "export")
        authority = open_authority(self.state)
        self.assertEqual(pem, authority.pem)
        self.assertEqual(self.with_state("ca", "export", "--format", "pem", terminal=True), authority.pem)
        self.assertEqual(self.with_state("ca", "export", "--format", "der"), authority.der)
        (entry,) = pkcs12.load_pkcs12(self.with_state("ca", "export", "--format=p12", "-o", "-"), None).additional_certs
        self.assertEqual(entry.certificate, authority.certificate)

    def test_export_writes_a_file(self):
        path = self.folder / "exported"
        for form in ("pem", "der", "p12"):
            self.assertEqual(self.with_state("ca", "export", "--format", form, "-o", path, terminal=True), b"")
            authority, written = open_authority(self.state), path.read_bytes()
            if form == "p12":
                # No two are the same: there is salt in it.
                (entry,) = pkcs12.load_pkcs12(written, None).additional_certs
                self.assertEqual(entry.certificate, authority.certificate)
            else:
                self.assertEqual(written, getattr(authority, form))

    def test_what_is_binary_does_not_go_to_a_terminal(self):
        for form in ("der", "p12"):
            self.refused("ca", "export", "--format", form, words=f"{form} is binary", terminal=True)

    def test_export_never_overwrites_what_the_authority_is_kept_in(self):
        self.with_state("ca", "show")
        before = {path: path.read_bytes() for path in self.state.iterdir()}
        arguments = ("ca", "export", "--set", f"state_dir={self.state}", "-o")
        for name in ("ca-key.pem", "ca.pem"):
            self.refused(*arguments, self.state / name, words=f"{name}: is where the CA itself is kept")
            self.refused(*arguments, self.state / "../the state" / name, words="is where the CA itself is kept")
        self.assertEqual({path: path.read_bytes() for path in self.state.iterdir()}, before)

    def test_a_file_that_can_not_be_written(self):
        self.refused("ca", "export", "-o", self.folder, words=f"{self.folder}: can't be written: Is a directory")

    def test_show(self):
        out = self.with_state("ca", "show").decode()
        authority = open_authority(self.state)
        for words in (
            authority.certificate.subject.rfc4514_string(),
            f"{authority.certificate.not_valid_before_utc:%Y-%m-%d} to ",
            f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}\n",
            f" {authority.fingerprint}\n",
            f" {authority.fingerprint_sha1}\n",
            f" {self.state}/ca.pem\n",
        ):
            self.assertIn(words, out)

    def test_without_a_configuration_it_is_the_one_at_home(self):
        status, out, _ = self.run_it("ca", "export")
        self.assertEqual((status, out), (0, (self.folder / ".streamproxy/ca.pem").read_bytes()))

    def test_the_configuration_says_where_it_is(self):
        config = self.write("rules.yaml", f"state_dir: {self.state}\n")
        self.assertEqual(self.run_it("ca", "export", "-c", config)[1], open_authority(self.state).pem)

    def own_authority(self) -> Authority:
        """A CA of the user's own, which the configuration own.yaml names."""
        own = open_authority(self.folder / "own")
        files = f"{{certificate: {own.path}, key: {own.path.with_name('ca-key.pem')}}}"
        self.write("own.yaml", f"state_dir: {self.state}\ntls: {{authority: {files}}}\n")
        return own

    def test_a_ca_of_the_users_own(self):
        own = self.own_authority()
        status, out, err = self.run_it("ca", "export", "-c", self.folder / "own.yaml")
        self.assertEqual((status, out, err), (0, own.pem, ""))
        self.assertFalse(self.state.exists())

    def test_for_programs_that_add_it_a_ca_of_the_users_own_is_not_given_as_the_file_that_may_hold_its_key(self):
        self.own_authority()
        status, out, err = self.run_it("env", "-c", self.folder / "own.yaml")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(f"export NODE_EXTRA_CA_CERTS='{self.state}/ca-bundle.pem'\n", out.decode())

    def test_warnings_are_told_beside_the_output(self):
        self.with_state("ca", "show")
        (self.state / "ca-key.pem").chmod(0o644)
        status, out, err = self.run_it("ca", "export", "--set", f"state_dir={self.state}")
        self.assertEqual((status, out), (0, (self.state / "ca.pem").read_bytes()))
        self.assertRegex(err, r"^streamproxy: warning: [^\n]*chmod 600[^\n]*\n$")


class RefusalTests(CommandTestCase):
    def test_a_line_and_exit_status_1(self):
        (self.folder / ".streamproxy").mkdir()
        (self.folder / ".streamproxy/ca-key.pem").write_bytes(b"junk")
        config = self.write("bad.yaml", "no_such_key: 1\n")
        for arguments, words in (
            (("ca", "show"), "ca-key.pem: expected a private key in PEM"),
            (("env",), "ca-key.pem: expected a private key in PEM"),
            (("ca", "show", "-c", config), "bad.yaml:1:1: unknown key 'no_such_key'"),
            (("ca", "show", "-c", "/nowhere"), "/nowhere: can't be read: No such file"),
            (("env", "--set", "nonsense"), "--set nonsense: expected KEY=VALUE"),
            (("env", "--set", "listen=unix:/run/x"), "none of the listeners is a tcp endpoint"),
            ((), "COMMAND"),
            (("ca",), "COMMAND"),
            (("nonsense",), "nonsense"),
            (("ca", "export", "--format", "key"), "key"),
            (("ca", "show", "more"), "more"),
        ):
            self.refused(*arguments, words=words)

    def test_all_errors_of_a_configuration_are_told(self):
        config = self.write("bad.yaml", "a1: 1\nb2: 2\n")
        status, _, err = self.run_it("env", "-c", config)
        self.assertEqual((status, err.count("unknown key"), err.count("streamproxy: ")), (1, 2, 2))

    def test_who_stops_reading_gets_no_traceback(self):
        code = "import sys; from streamproxy.command import main; sys.exit(main())"
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            ended = subprocess.run(
                [sys.executable, "-c", code, "ca", "export"],
                stdout=closed,
                stderr=subprocess.PIPE,
                timeout=30,
                check=False,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.assertEqual((ended.returncode, MADE.sub("", ended.stderr.decode())), (1, ""))

    def test_version(self):
        self.assertEqual(self.run_it("--version"), (0, f"streamproxy {__version__}\n".encode(), ""))


class EnvironmentTests(CommandTestCase):
    def variables(self, *arguments: str) -> dict[str, str]:
        """What a shell has after `eval "$(streamproxy env)"`, beside what it had before."""
        script = self.with_state("env", *arguments).decode()
        before = dict(os.environ)
        ended = subprocess.run(
            ["sh", "-euc", 'eval "$1"; exec env -0', "sh", script], capture_output=True, timeout=30, check=True
        )
        after = dict(pair.split("=", 1) for pair in ended.stdout.decode().split("\0") if pair)
        return {name: after[name] for name in after if after[name] != before.get(name) and name not in ("PWD", "_")}

    def test_what_a_shell_then_has(self):
        found = self.variables()
        bundle = str(self.state / "ca-bundle.pem")
        self.assertEqual(
            {name: value for name, value in found.items() if name != "JAVA_TOOL_OPTIONS"},
            {
                **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:8080"),
                **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"), bundle),
                **dict.fromkeys(("AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"), bundle),
                **dict.fromkeys(("NODE_EXTRA_CA_CERTS", "DENO_CERT"), str(self.state / "ca.pem")),
                "NODE_USE_ENV_PROXY": "1",
            },
        )
        self.assertIn(f'-Djavax.net.ssl.trustStore="{self.state}/ca-bundle.p12"', found["JAVA_TOOL_OPTIONS"])

    def test_a_path_means_to_the_shell_what_it_is(self):
        self.state = self.folder / 'it\'s $HOME; `echo` \\ "x"'
        found = self.variables()
        self.assertEqual(found["SSL_CERT_FILE"], str(self.state / "ca-bundle.pem"))
        # No way to write this one for Java.
        self.assertNotIn("JAVA_TOOL_OPTIONS", found)

    def test_the_first_listener_is_the_proxy(self):
        self.assertEqual(
            self.variables("--set", "listen=tcp:9090:interface=127.0.0.1")["http_proxy"], "http://127.0.0.1:9090"
        )

    def test_the_bundle_trusts_the_system_as_well_and_stays_so_when_it_is_made_again(self):
        first = self.variables()
        bundle = self.state / "ca-bundle.pem"
        expected = [open_authority(self.state).certificate, x509.load_pem_x509_certificate(self.system.read_bytes())]
        self.assertEqual(x509.load_pem_x509_certificates(bundle.read_bytes()), expected)
        self.assertEqual(bundle.stat().st_mode & 0o777, 0o644)
        found = pkcs12.load_pkcs12((self.state / "ca-bundle.p12").read_bytes(), None).additional_certs
        self.assertEqual([each.certificate for each in found], expected)

        # A second time, in a shell that has the variables of the first: the system's bundle is found elsewhere.
        self.patch(trust, "SYSTEM_BUNDLES", (str(self.system),))
        paths = ssl.get_default_verify_paths()._replace(openssl_cafile="/nowhere")
        self.patch(ssl, "get_default_verify_paths", lambda: paths)
        os.environ.update(first)
        self.assertEqual(self.variables(), {})
        self.assertEqual(x509.load_pem_x509_certificates(bundle.read_bytes()), expected)

    def test_a_client_that_trusts_the_bundle_trusts_a_leaf(self):
        self.variables()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(self.state / "ca-bundle.pem")
        self.assertIn(open_authority(self.state).der, client.get_ca_certs(binary_form=True))

    def test_where_the_system_has_no_bundle_only_the_ca_is_trusted_and_that_is_said(self):
        self.patch(trust, "system_bundle", lambda environ: None)
        status, _, err = self.run_it("env", "--set", f"state_dir={self.state}")
        self.assertEqual(status, 0)
        self.assertRegex(err, r"^streamproxy: warning: no certificates of this system's were found[^\n]*\n$")
        found = x509.load_pem_x509_certificates((self.state / "ca-bundle.pem").read_bytes())
        self.assertEqual(found, [open_authority(self.state).certificate])

    def test_what_a_system_bundle_has_that_can_not_be_read_is_left_out_for_java(self):
        self.system.write_bytes(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + self.system.read_bytes()
        )
        self.variables()
        found = pkcs12.load_pkcs12((self.state / "ca-bundle.p12").read_bytes(), None).additional_certs
        self.assertEqual(len(found), 2)


class SystemBundleTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(trust, "SYSTEM_BUNDLES", ("/nowhere", str(self.write("known.pem", another_ca()))))
        paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(self.folder / "default.pem"))
        self.patch(ssl, "get_default_verify_paths", lambda: paths)

    def found(self, named: str | None = None) -> str | None:
        """Which file is taken for the system's, when SSL_CERT_FILE names `named`."""
        content = system_bundle({} if named is None else {"SSL_CERT_FILE": named})
        return next((path.name for path in self.folder.glob("*.pem") if path.read_bytes() == content), None)

    def test_what_the_user_named_then_opensslls_then_those_that_are_known(self):
        self.assertEqual(self.found(), "known.pem")
        self.write("default.pem", another_ca())
        self.assertEqual(self.found(), "default.pem")
        self.assertEqual(self.found(str(self.system)), "system.pem")

    def test_what_is_no_bundle_or_one_of_ours_is_passed_over(self):
        ours = self.write("ours.pem", trust.OURS + another_ca())
        for named in (ours, self.write("empty.pem", b""), self.folder, self.folder / "nowhere.pem", ""):
            self.assertEqual(self.found(str(named)), "known.pem", named)

    def test_there_may_be_none(self):
        self.patch(trust, "SYSTEM_BUNDLES", ())
        self.assertIsNone(system_bundle({}))


class UrlTests(SynchronousTestCase):
    def test_the_url_of_a_listener(self):
        for listen, url in (
            (("tcp:8080:interface=127.0.0.1",), "http://127.0.0.1:8080"),
            (("tcp:8080",), "http://127.0.0.1:8080"),
            (("tcp:port=8080:interface=",), "http://127.0.0.1:8080"),
            (("tcp:8080:interface=0.0.0.0:backlog=9",), "http://127.0.0.1:8080"),
            (("tcp:8080:10.0.0.1",), "http://10.0.0.1:8080"),
            ((r"tcp:8080:interface=\:\:1",), "http://[::1]:8080"),
            ((r"tcp:interface=\:\::port=8080",), "http://[::1]:8080"),
            (("tcp6:8080",), "http://[::1]:8080"),
            ((r"tcp6:8080:interface=2001\:db8\:\:1",), "http://[2001:db8::1]:8080"),
            (("unix:/run/x", "systemd:domain=INET:index=0", "tcp:0", "tcp:8080"), "http://127.0.0.1:8080"),
            (("unix:/run/tcp",), None),
            (("tcp:0",), None),
            (("tcp:x",), None),
            ((), None),
        ):
            self.assertEqual(proxy_url(listen), url, listen)


class JavaTests(SynchronousTestCase):
    TAIL = (
        "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080"
        " -Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12"
    )

    def test_what_was_there_stays_and_what_we_put_there_is_put_anew(self):
        for path, written in (("/a/b.p12", "/a/b.p12"), ("/a b", '"/a b"'), ("/a'b", '"/a\'b"'), ('/a"b', "'/a\"b'")):
            for before in ("", "-Xmx1g", '-Dx="a b"  -Dy=1', "-Djavax.net.ssl.trustStorePassword=x"):
                kept = " ".join(before.split("  ")) + " " if before else ""
                once = java_options("http://127.0.0.1:8080", Path(path), before)
                self.assertEqual(once, kept + self.TAIL.format(written))
                self.assertEqual(java_options("http://127.0.0.1:8080", Path(path), once), once)

    def test_a_host_in_brackets(self):
        self.assertIn("-Dhttp.proxyHost=::1 -Dhttp.proxyPort=80 ", java_options("http://[::1]:80", Path("/a"), ""))

    def test_there_may_be_no_way_to_write_a_path(self):
        self.assertIsNone(java_options("http://127.0.0.1:8080", Path("/a'\"b"), "-Xmx1g"))


class ShellTests(SynchronousTestCase):
    def test_every_value_is_quoted(self):
        odd = Path("/a $b;'c")
        for line in trust.exports("http://127.0.0.1:8080", odd, odd, odd, {}):
            name, _, value = line.removeprefix("export ").partition("=")
            self.assertTrue(name.isidentifier(), line)
            self.assertEqual(len(shlex.split(value)), 1, line)
