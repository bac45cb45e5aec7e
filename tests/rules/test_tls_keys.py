"""What may be written under `tls`, and what is said of what may not."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import errors, read


def block(kind: str) -> str:
    return f"-----BEGIN {kind}-----\nMA==\n-----END {kind}-----\n"


CERTIFICATE, KEY = block("CERTIFICATE"), block("PRIVATE KEY")


class TlsErrorTests(SynchronousTestCase):
    """Each text has a ^ where the error is."""

    def check(self, table: list[tuple[str, str]]) -> None:
        for marked, words in table:
            text = f"tls: {{{marked}}}"
            column = text.index("^") + 1
            self.assertEqual(errors(text.replace("^", "")), [f"1:{column}: tls{words}"], marked)

    def test_keys(self) -> None:
        self.check(
            [
                ("^intercpt: true", ": unknown key 'intercpt'; did you mean 'intercept'?"),
                ("intercept: ^'no'", ".intercept: expected true or false, got 'no'"),
                ("^certificate: x", ": unknown key 'certificate'; it belongs under 'authority'"),
                (
                    "intercept: false, only: ^[a.example]",
                    ".only: nothing is intercepted where intercept is false, so 'only' has no meaning",
                ),
            ]
        )
        self.assertEqual(errors("passthrough: x"), ["1:1: unknown key 'passthrough'; it belongs under 'tls'"])

    def test_intercept_false_stands_with_lists_that_say_nothing(self) -> None:
        for text in ("only: []", "only: ", "passthrough: [a.example]"):
            self.assertFalse(read(f"tls: {{intercept: false, {text}}}").tls.intercept)

    def test_destinations(self) -> None:
        range_ = "expected a host such as *.bank.example, or a range such as 10.0.0.0/8, got"
        address = "expected an address such as 192.0.2.7, or a range such as 10.0.0.0/8, got"
        for key in ("passthrough", "only"):
            self.check(
                [
                    (f"{key}: ^3.5", f".{key}: expected a pattern, got 3.5"),
                    (f"{key}: ^''", f".{key}: expected a pattern, got ''"),
                    (f"{key}: [a, ^true]", f".{key}[1]: expected a pattern, got true"),
                    (f"{key}: [^http://a/]", f".{key}[0]: {range_} 'http://a/'"),
                    (f"{key}: [a, ^10.0.0.0/33]", f".{key}[1]: {range_} '10.0.0.0/33'"),
                    (f"{key}: ^10.0.0.1/8", f".{key}: expected a range such as 10.0.0.0/8, got '10.0.0.1/8'"),
                    (f"{key}: ^'10.*'", f".{key}: {address} '10.*'"),
                    (f"{key}: ^10", f".{key}: {address} 10"),
                    (
                        f"{key}: [{{regex: ^'('}}]",
                        f".{key}[0].regex: expected a regular expression (missing ), "
                        "unterminated subpattern at position 0), got '('",
                    ),
                ]
            )

    def test_a_regular_expression_is_shown_as_one(self) -> None:
        found = read("tls: {passthrough: {regex: '^a'}}").tls.passthrough
        self.assertEqual(found.name("A.example", 443), "{regex: ^a}")
        self.assertIsNone(found.name("b.a.example", 443))

    def test_verification_is_turned_off_for_named_hosts_only(self) -> None:
        named = "verification can be turned off for named hosts only: verify_upstream: {dev.example: false}"
        self.check([("verify_upstream: ^false", f".verify_upstream: {named}")])
        for pattern in (
            "*",
            "**",
            "*.*",
            "?*",
            "*.",
            "*:443",
            "*:*",
            "*.*:8443",
            "[*]:443",
            "[*:*]:443",
            "*:*:*",
            "?.*",
        ):
            self.check([(f"verify_upstream: {{'{pattern}': ^false}}", f".verify_upstream['{pattern}']: {named}")])
            self.assertTrue(read(f"tls: {{verify_upstream: {{'{pattern}': true}}}}").tls.verify_upstream.choices)

    def test_an_address_is_a_named_host(self) -> None:
        for pattern in ("'::1'", "'::'", "'[::1]:443'", "127.0.0.1", "'10.*'", "'*.x'"):
            self.assertEqual(
                len(read(f"tls: {{verify_upstream: {{{pattern}: false}}}}").tls.verify_upstream.choices), 1
            )

    def test_choices_by_host(self) -> None:
        for key, value in (("verify_upstream", "true"), ("client_certificate", self.file(CERTIFICATE + KEY))):
            self.check(
                [
                    (f"{key}: {{^a/b: {value}}}", f".{key}: expected a host such as *.example.com, got 'a/b'"),
                    (f"{key}: {{^'': {value}}}", f".{key}: expected a host such as *.example.com, got ''"),
                    (
                        f"{key}: {{^10.0.0.0/8: {value}}}",
                        f".{key}: expected a host such as *.example.com, got '10.0.0.0/8'",
                    ),
                    (
                        f"{key}: {{'*': {value}, a: ^{value}}}",
                        f".{key}.a: is never reached: '*' before it matches every host",
                    ),
                ]
            )
        self.check(
            [
                ("verify_upstream: {a: true, b: ^1}", ".verify_upstream.b: expected true or false, got 1"),
                ("verify_upstream: {a: ^}", ".verify_upstream.a: expected true or false, got null"),
                (
                    "verify_upstream: ^[a]",
                    ".verify_upstream: expected true, or hosts with true or false such as {dev.example: false}, "
                    "got a list",
                ),
                ("client_certificate: {a: ^}", ".client_certificate.a: expected a PEM file, got null"),
            ]
        )

    def test_choices_keep_the_order_of_the_file(self) -> None:
        found = read("tls: {verify_upstream: {b: false, '*.x': true, a.x: false}}").tls.verify_upstream
        self.assertEqual([choice.text for choice in found.choices], ["b", "*.x", "a.x"])

    def test_the_least_version_is_1_2(self) -> None:
        for text, version in (("1.2", "1.2"), ("'1.2'", "1.2"), ("1.3", "1.3"), ("'1.3'", "1.3")):
            self.assertEqual(read(f"tls: {{minimum_version: {text}}}").tls.minimum_version, version)
        for text in ("1.0", "'1.0'", "1.1", "'1.1'", "1", "'1'"):
            self.check([(f"minimum_version: ^{text}", ".minimum_version: TLS 1.2 is the least")])
        for text, shown in (
            ("1.4", "1.4"),
            ("TLSv1.2", "'TLSv1.2'"),
            ("true", "true"),
            ("[1.2]", "a list"),
            ("2", "2"),
        ):
            self.check([(f"minimum_version: ^{text}", f'.minimum_version: expected "1.2" or "1.3", got {shown}')])

    def file(self, text: str) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        return str(path)

    def test_pem_files(self) -> None:
        text, certificate, both = self.file("text"), self.file(CERTIFICATE), self.file("text\n" + KEY + CERTIFICATE)
        key = self.file(KEY)
        locked = self.file(CERTIFICATE + block("ENCRYPTED PRIVATE KEY"))
        old = self.file(CERTIFICATE + "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")
        indented = self.file(" " + CERTIFICATE)
        folder = os.path.dirname(text)
        large = self.file("x" * ((16 << 20) + 1))
        no_certificate = "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        no_key = "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        encrypted = "holds a private key that is encrypted; it must be there without a passphrase"
        for before, where, after in (
            ("trusted_ca: ^", "trusted_ca", ""),
            ("trusted_ca: [^", "trusted_ca[0]", "]"),
            ("client_certificate: ^", "client_certificate", ""),
            ("client_certificate: {a: ^", "client_certificate.a", "}"),
            ("authority: {certificate: ^", "authority.certificate", "}"),
            (f"authority: {{certificate: {certificate}, key: ^", "authority.key", "}"),
        ):
            what = no_key if where.endswith("key") else no_certificate
            for value, words in (
                ("3", "expected a PEM file, got 3"),
                ("''", "expected a PEM file, got ''"),
                ('"a\\0b"', "expected a PEM file, got 'a\\x00b'"),
                ("/none/x.pem", "/none/x.pem can't be read: No such file or directory"),
                ("none.pem", f"{os.path.abspath('none.pem')} can't be read: No such file or directory"),
                (folder, f"{folder} can't be read: it isn't a file"),
                ("/dev/zero", "/dev/zero can't be read: it isn't a file"),
                (text, f"{text} {what}"),
                (large, f"{large} is larger than 16m"),
            ):
                self.check([(f"{before}{value}{after}", f".{where}: {words}")])
            if not where.startswith("trusted_ca"):
                self.check([(f"{before}{locked}{after}", f".{where}: {locked} {encrypted}")])
                self.check([(f"{before}{old}{after}", f".{where}: {old} {encrypted}")])
                self.check([(f"{before}{certificate}{after}", f".{where}: {certificate} {no_key}")])
            if what is no_certificate:
                self.check([(f"{before}{key}{after}", f".{where}: {key} {no_certificate}")])
                self.check([(f"{before}{indented}{after}", f".{where}: {indented} {no_certificate}")])
            self.assertIsNotNone(read(f"tls: {{{before.replace('^', '')}{both}{after}}}"))

    def test_pem_files_of_every_kind_pass(self) -> None:
        for kind in ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"):
            self.assertEqual(len(read(f"tls: {{trusted_ca: {self.file(block(kind))}}}").tls.trusted_ca), 1)
        for kind in ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"):
            path = self.file(f"Bag Attributes\r\n{block(kind)}{CERTIFICATE}".replace("\n", "\r\n"))
            self.assertEqual(read(f"tls: {{client_certificate: {path}}}").tls.client_certificate.default, path)

    def test_an_authority_has_a_certificate_and_a_key(self) -> None:
        key = self.file(KEY)
        self.check(
            [
                ("authority: ^{}", ".authority: needs the key 'certificate'"),
                (f"authority: ^{{key: {key}}}", ".authority: needs the key 'certificate'"),
                ("authority: ^ca.pem", ".authority: expected a mapping, got 'ca.pem'"),
            ]
        )
        found = read(f"tls: {{authority: {{certificate: {self.file(CERTIFICATE)}, key: {key}}}}}").tls.authority
        assert found is not None
        self.assertEqual(found.key, key)
