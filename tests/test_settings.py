"""The configuration as it is loaded: a file, then the command line over it."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.verdict import How
from streamproxy.settings import ConfigurationError, Settings, load
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNKED, NO_BODY, Origin, RequestHead, Target

ROOT = Path(__file__).resolve().parent.parent


class ConfiguredCase(SynchronousTestCase):
    """Files to load, and what is said of them."""

    def written(self, text: str | bytes) -> str:
        path = self.mktemp()
        Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def lines(self, path: str, *overrides: str) -> list[str]:
        with self.assertRaises(ConfigurationError) as caught:
            load(path, overrides)
        return [line.replace(path, "f.yaml") for line in caught.exception.lines]


class LoadTests(ConfiguredCase):
    def test_an_empty_file_is_all_defaults(self) -> None:
        found = load(self.written(""))
        default = Settings()
        self.assertEqual(found.listen, ("tcp:8080:interface=127.0.0.1",))
        self.assertEqual((found.limits, found.timeouts), (default.limits, default.timeouts))
        self.assertEqual((found.write_size, found.stream_large_bodies), (4096, None))
        self.assertEqual((found.tls, found.state_dir), (default.tls, None))

    def test_what_is_written_is_what_is_meant(self) -> None:
        found = load(
            self.written(
                "access: {allow: 10.0.0.0/8}\nlisten: [tcp:1, {endpoint: 'tcp:2'}]\n"
                "write_size: 1k\nstream_large_bodies: 1m\nhold: always\n"
                "limits: {head: 32k, fields: 9, trailers: 1k, held_body: 2m, body: 1g, connections: 7}\n"
                "timeouts: {connect: 1, head: 2, idle: 3.5, keepalive: 4, handshake: 5, tunnel: 6}\n"
                "state_dir: ./state\n"
            )
        )
        self.assertEqual(found.listen, ("tcp:1", "tcp:2"))
        self.assertEqual((found.write_size, found.stream_large_bodies), (1024, 1 << 20))
        limits, timeouts = found.limits, found.timeouts
        self.assertEqual((limits.head, limits.fields, limits.trailers), (32768, 9, 1024))
        self.assertEqual((limits.held_body, limits.body, limits.connections), (2 << 20, 1 << 30, 7))
        self.assertEqual((timeouts.connect, timeouts.head, timeouts.idle, timeouts.keepalive), (1, 2, 3.5, 4))
        self.assertEqual((timeouts.handshake, timeouts.tunnel, found.state_dir), (5, 6, "./state"))
        head = RequestHead(b"POST", b"/", (1, 1), Headers(), CHUNKED)
        way = found.rules.on_request(head, Target(Origin("http", "h", 80), "/")).way
        self.assertEqual((way.how, way.let_go, way.limit), (How.HELD, 1 << 20, 2 << 20))

    def test_a_file_that_can_t_be_read_is_one_clean_line(self) -> None:
        self.assertEqual(self.lines("conf/none.yaml"), ["f.yaml: can't be read: No such file or directory"])
        self.assertEqual(self.lines("."), ["f.yaml: can't be read: Is a directory"])
        self.assertEqual(self.lines("/dev/zero"), ["f.yaml: can't be read: is larger than 16m"])
        self.assertEqual(self.lines("a\0b"), ["f.yaml: can't be read: embedded null byte"])

    def test_what_is_no_yaml_is_one_clean_line(self) -> None:
        table: list[tuple[str | bytes, str]] = [
            (b"a: \xff", "f.yaml:1:4: byte 0xff isn't UTF-8"),
            ("a: \x01", "f.yaml:1:4: control character U+0001 isn't allowed here"),
            ("a: [", "f.yaml:2:1: did not find expected node content"),
        ]
        for text, begins in table:
            (line,) = self.lines(self.written(text), "hold=never")
            self.assertTrue(line.startswith(begins) or "expected the node content" in line, line)

    def test_errors_come_in_the_order_of_the_file_and_then_of_the_command_line(self) -> None:
        path = self.written("rules:\n  - {block: 1}\nhold: x\nlimits: {zzz: 1, head: x}\n")
        self.assertEqual(
            self.lines(path, "timeouts.idle=abc", "listen=[]", "limits.zz=1"),
            [
                "f.yaml:2:13: rules[0].block: expected a status from 400 to 599, or true, got 1",
                "f.yaml:3:7: hold: expected needed or always, got 'x'",
                "f.yaml:4:10: limits: unknown key 'zzz'",
                "f.yaml:4:24: limits.head: expected a size from 256 to 16m, such as 64k, got 'x'",
                "--set timeouts.idle=abc: expected a number of seconds above 0, got 'abc'",
                "--set listen=[]: expected at least one, got an empty list",
                "--set limits.zz=1: limits: unknown key 'zz'",
            ],
        )

    def test_relative_files_are_taken_from_the_working_directory(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        found = load(self.written(f"rules: [{{respond: {{file: ./{folder}}}}}]"))
        answer = found.rules.rules[0].answer
        assert answer is not None
        self.assertEqual(answer.file, Path.cwd() / folder)


class OverrideTests(ConfiguredCase):
    def test_each_key_can_be_set(self) -> None:
        path = self.written("limits: {head: 1k}\nlisten: [tcp:1, tcp:2]\naccess: {allow: 10.0.0.0/8}\n")
        found = load(
            path,
            [
                "stream_large_bodies=3m",
                "limits.head=32k",
                "limits.fields=5",
                "timeouts.idle=1.5",
                "listen.1=tcp:9:backlog=5",
            ],
        )
        self.assertEqual((found.stream_large_bodies, found.limits.head, found.limits.fields), (3 << 20, 32768, 5))
        self.assertEqual((found.timeouts.idle, found.listen), (1.5, ("tcp:1", "tcp:9:backlog=5")))

    def test_the_last_of_two_wins(self) -> None:
        self.assertEqual(load(self.written(""), ["write_size=1k", "write_size=2k"]).write_size, 2048)

    def test_a_value_may_be_a_list_or_a_mapping(self) -> None:
        found = load(
            self.written("access: {allow: 10.0.0.0/8}"),
            ["listen=[tcp:1, tcp:2]", "limits={head: 2k}", "rules=[{block: 403}]"],
        )
        self.assertEqual((len(found.listen), found.limits.head, len(found.rules.rules)), (2, 2048, 1))

    def test_rules_are_reached_by_their_index_and_one_more_can_be_put_behind(self) -> None:
        path = self.written("rules: [{match: {host: h}, block: 403}]")
        found = load(path, ["rules.0.block=451", "rules.1.block=404", "rules.1.match.host='*.x'"])
        self.assertEqual([rule.answer.status for rule in found.rules.rules if rule.answer], [451, 404])
        found = load(self.written(""), ["rules.0.request.headers.set.X-A=b"])
        self.assertEqual(len(found.rules.rules), 1)

    def test_an_empty_value_is_null(self) -> None:
        self.assertIsNone(load(self.written("stream_large_bodies: 1m"), ["stream_large_bodies="]).stream_large_bodies)

    def test_what_an_override_took_the_place_of_is_no_error_any_more(self) -> None:
        path = self.written("limits: {head: bad}\nrules: [{block: 1}]\n")
        self.assertEqual(load(path, ["limits.head=1k", "rules=[]"]).limits.head, 1024)

    def test_an_error_in_an_override_is_not_placed_where_the_file_had_another_value(self) -> None:
        path = self.written("listen: [{endpoint: 'tcp:1'}]")
        (line,) = self.lines(path, "listen=[tcp]")
        self.assertTrue(line.startswith("--set listen=[tcp]: listen[0]: expected an endpoint"), line)

    def test_each_mistake_is_told_in_the_words_of_the_command_line(self) -> None:
        table = [
            ("limits.head=abc", "expected a size from 256 to 16m, such as 64k, got 'abc'"),
            ("limts.head=1k", "unknown key 'limts'; did you mean 'limits'?"),
            ("limits.haed=1k", "limits: unknown key 'haed'; did you mean 'head'?"),
            ("limits={haed: 1k}", "unknown key 'haed'; did you mean 'head'?"),
            ("limits", "expected KEY=VALUE"),
            ("=3", "expected KEY=VALUE"),
            ("hold.x=3", "hold is 'always', so nothing can be set inside it"),
            ("rules.4.block=403", "there is no rules[4]; it has 1 entries"),
            ("rules.x.block=403", "there is no rules[x]; it has 1 entries"),
            ("rules.-1.block=403", "there is no rules[-1]; it has 1 entries"),
            ("rules.0.match.host=*.x", "quote a value that begins with * ("),
            ("rules.0.match.host=[", "did not find expected node content"),
            ("rules=[{block: 1}]", "rules[0].block: expected a status from 400 to 599, or true, got 1"),
            (
                "listen=[{endpoint: 'tcp:1', mode: socks5}]",
                "listen[0].mode: 'mode' is known, but isn't built yet; leave it out",
            ),
            ("write_size=\n", None),
            ("hold=\x1b[31m", "control character U+001B isn't allowed here"),
            ("rules.0.redirect_to=http://x/", "a rule can't both block and redirect_to"),
        ]
        path = self.written("hold: always\nrules: [{block: 403}]\n")
        for override, words in table:
            if words is None:
                self.assertEqual(load(path, [override]).write_size, 4096)
                continue
            (line,) = self.lines(path, override)
            self.assertTrue(line.startswith("--set "), line)
            self.assertTrue(line.isprintable(), line)
            if override.isprintable():
                self.assertTrue(line.startswith(f"--set {override}: {words}"), line)
            else:
                self.assertIn(words, line)


class TlsTests(ConfiguredCase):
    """How `tls` comes to the rest of the program; what may be written in it is told in rules/test_tls_keys."""

    def pem(self, *kinds: str) -> str:
        return os.path.abspath(
            self.written("".join(f"-----BEGIN {kind}-----\n-----END {kind}-----\n" for kind in kinds))
        )

    def test_without_a_configuration_everything_is_intercepted_and_verified(self) -> None:
        for tls in (Settings().tls, load(self.written("")).tls):
            self.assertTrue(tls.interception.decide("a.example", 443, None).intercept)
            self.assertTrue(tls.verifies("a.example", 443))
            self.assertIsNone(tls.client_certificate_for("a.example", 443))
            self.assertEqual((tls.unverified, tls.client_certificates, tls.trusted_ca), ((), (), ()))
            self.assertEqual((tls.authority_certificate, tls.authority_key, tls.minimum_version), (None, None, "1.2"))

    def test_what_is_written_is_what_is_meant(self) -> None:
        certificate, key, both = (
            self.pem("CERTIFICATE"),
            self.pem("PRIVATE KEY"),
            self.pem("CERTIFICATE", "PRIVATE KEY"),
        )
        tls = load(
            self.written(
                "tls:\n  passthrough: '*.bank.example'\n  only: [10.0.0.0/8, {regex: dev}]\n"
                "  verify_upstream: {a.dev.example: true, '*.dev.example': false, '::1': false}\n"
                f"  trusted_ca: [{certificate}, {both}]\n  minimum_version: 1.3\n"
                f"  client_certificate: {{'m.example:8443': {both}, '*.m.example': {both}}}\n"
                f"  authority: {{certificate: {certificate}, key: {key}}}\n"
            )
        ).tls
        self.assertFalse(tls.interception.decide("a.bank.example", 443, None).intercept)
        self.assertTrue(tls.interception.decide("DEV.example", 443, None).intercept)
        self.assertTrue(tls.interception.decide("a.example", 443, None, ["10.0.0.1"]).intercept)
        self.assertFalse(tls.interception.decide("a.example", 443, "b.example", ["11.0.0.1"]).intercept)
        self.assertEqual([tls.verifies(f"{host}.dev.example", 443) for host in "ab"], [True, False])
        self.assertEqual((tls.verifies("::1", 443), tls.unverified), (False, ("*.dev.example", "::1")))
        self.assertEqual((tls.trusted_ca, tls.minimum_version), ((certificate, both), "1.3"))
        self.assertEqual(tls.client_certificate_for("m.example", 8443), both)
        self.assertIsNone(tls.client_certificate_for("m.example", 443))
        self.assertEqual(tls.client_certificates, (both,))
        self.assertEqual((tls.authority_certificate, tls.authority_key), (certificate, key))

    def test_a_key_that_is_left_out_is_in_the_certificate_s_file(self) -> None:
        both = self.pem("CERTIFICATE", "EC PRIVATE KEY")
        tls = load(self.written(f"tls: {{authority: {{certificate: {both}}}, client_certificate: {both}}}")).tls
        self.assertEqual((tls.authority_certificate, tls.authority_key), (both, both))
        self.assertEqual((tls.client_certificate_for("any.example", 1), tls.client_certificates), (both, (both,)))

    def test_relative_files_are_taken_from_the_working_directory(self) -> None:
        path = os.path.relpath(self.pem("CERTIFICATE", "PRIVATE KEY"))
        tls = load(self.written(f"tls: {{trusted_ca: {path}, client_certificate: {{a: {path}}}}}")).tls
        self.assertEqual(tls.trusted_ca, (os.path.abspath(path),))
        self.assertEqual(tls.client_certificates, (os.path.abspath(path),))

    def test_each_key_can_be_set_on_the_command_line(self) -> None:
        path = self.written("tls: {passthrough: [a.example, b.example]}")
        tls = load(
            path,
            [
                "tls.passthrough.1=10.0.0.0/8",
                "tls.verify_upstream={dev.example: false}",
                "tls.minimum_version=1.3",
                f"tls.authority.certificate={self.pem('CERTIFICATE', 'PRIVATE KEY')}",
                f"tls.trusted_ca={self.pem('CERTIFICATE')}",
            ],
        ).tls
        self.assertEqual([each.text for each in tls.interception.passthrough.members], ["a.example", "10.0.0.0/8"])
        self.assertEqual((tls.unverified, tls.verifies("dev.example", 443)), (("dev.example",), False))
        self.assertEqual((tls.minimum_version, len(tls.trusted_ca)), ("1.3", 1))
        self.assertIsNotNone(tls.authority_certificate)
        self.assertFalse(load(path, ["tls.intercept=false"]).tls.interception.intercept)
        tls = load(path, ['tls.passthrough=["*.bank.example"]', "tls.only=x.example"]).tls
        self.assertEqual([each.text for each in tls.interception.passthrough.members], ["*.bank.example"])
        self.assertEqual([each.text for each in tls.interception.only.members], ["x.example"])
        found = load(path, ["state_dir=/x", "timeouts.handshake=1.5", "timeouts.tunnel=60"])
        self.assertEqual((found.state_dir, found.timeouts.handshake, found.timeouts.tunnel), ("/x", 1.5, 60))

    def test_each_mistake_on_the_command_line_is_told_in_its_words(self) -> None:
        named = "verification can be turned off for named hosts only: verify_upstream: {dev.example: false}"
        meaningless = "nothing is intercepted where intercept is false, so 'only' has no meaning"
        table = [
            ("tls.verify_upstream=false", named),
            ("tls.verify_upstream={'*': false}", f"tls.verify_upstream['*']: {named}"),
            ("tls.verify_upstream={a/b: false}", "expected a host such as *.example.com, got 'a/b'"),
            ("tls.passthrough=10.0.0.1/8", "expected a range such as 10.0.0.0/8, got '10.0.0.1/8'"),
            ("tls.passthrough=[a, 10.*]", "expected an address such as 192.0.2.7, or a range such as 10.0.0.0/8, got"),
            ("tls.minimum_version=1.1", "TLS 1.2 is the least"),
            ("tls.trusted_ca=none.pem", f"{os.path.abspath('none.pem')} can't be read: No such file or directory"),
            ("tls.intercpt=false", "tls: unknown key 'intercpt'; did you mean 'intercept'?"),
            ("tls.verify_upstream.dev=1", "tls.verify_upstream is true, so nothing can be set inside it"),
            ("tls.only=a", meaningless),
        ]
        path = self.written("tls: {intercept: false, verify_upstream: true}")
        for override, words in table:
            (line,) = self.lines(path, override)
            self.assertTrue(line.startswith(f"--set {override}: "), line)
            self.assertIn(words, line)


class WorkedExampleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(ROOT)

    def test_every_example_loads(self) -> None:
        examples = sorted(ROOT.glob("conf/*.yaml"))
        self.assertGreaterEqual(len(examples), 5)
        for path in examples:
            self.assertTrue(load(str(path)).rules.rules, path)

    def test_the_file_to_start_on_listens_on_this_machine_alone_and_touches_no_ordinary_traffic(self) -> None:
        found = load("conf/rules.yaml")
        self.assertEqual(found.listen, ("tcp:8080:interface=127.0.0.1",))
        head = RequestHead(b"GET", b"/", (1, 1), Headers([(b"Host", b"www.wikipedia.org")]), NO_BODY)
        verdict = found.rules.on_request(head, Target(Origin("http", "www.wikipedia.org", 80), "/"))
        self.assertEqual((verdict.rules, verdict.matched, verdict.answer), ((), (), None))

    def test_the_file_to_start_on_says_what_holds_without_it(self) -> None:
        found, default = load("conf/rules.yaml"), Settings()
        self.assertEqual((found.limits, found.timeouts), (default.limits, default.timeouts))
        self.assertEqual((found.tls, found.state_dir), (default.tls, default.state_dir))
        self.assertEqual(found.write_size, default.write_size)
        self.assertEqual(found.rules.streaming, default.rules.streaming)
