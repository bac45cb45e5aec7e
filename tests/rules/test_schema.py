"""What may be written under each key, and what is said of what may not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.explain import dotted, read_configuration, shown
from streamproxy.rules.trust import NO_CERTIFICATE, VERIFIED
from streamproxy.rules.yaml import YamlError, compose
from streamproxy.wire.message import Origin
from tests.rules.reading import errors, read


class DefaultTests(SynchronousTestCase):
    def test_an_empty_configuration_has_the_defaults_of_the_documentation(self) -> None:
        found = read("")
        self.assertEqual([each.endpoint for each in found.listen], ["tcp:8080:interface=127.0.0.1"])
        self.assertEqual((found.stream_large_bodies, found.hold, found.write_size), (None, "needed", 4096))
        limits, timeouts = found.limits, found.timeouts
        self.assertEqual((limits.head, limits.fields, limits.trailers), (65536, 200, 16384))
        self.assertEqual((limits.held_body, limits.body, limits.connections), (8 << 20, None, 10000))
        self.assertEqual((limits.websocket_message, limits.capture, limits.memory), (16 << 20, 65536, 256 << 20))
        self.assertEqual((timeouts.connect, timeouts.handshake, timeouts.head), (10, 10, 30))
        self.assertEqual((timeouts.idle, timeouts.keepalive, timeouts.tunnel, timeouts.drain), (300, 75, 3600, 30))
        self.assertIsNone(found.state_dir)
        tls = found.tls
        self.assertEqual((tls.intercept, tls.passthrough.members, tls.only.members), (True, (), ()))
        self.assertEqual((tls.verify_upstream, tls.client_certificate), (VERIFIED, NO_CERTIFICATE))
        self.assertEqual((tls.trusted_ca, tls.minimum_version, tls.authority), ((), "1.2", None))
        self.assertEqual(
            [pattern.text for pattern in found.stream_content_types.patterns],
            ["text/event-stream", "application/x-ndjson", "application/grpc*", "multipart/x-mixed-replace"],
        )

    def test_null_is_the_same_as_left_out(self) -> None:
        keys = "listen admin state_dir stream_large_bodies hold write_size tls limits timeouts access scripts rules"
        self.assertEqual(read("\n".join(f"{key}:" for key in keys.split())), read(""))
        self.assertEqual(read("limits: {head: , body: null}\ntls: {only: }"), read(""))

    def test_an_unbuilt_key_may_have_its_default_written_out(self) -> None:
        text = """
            rules: [{block: 403}]
            listen: [{endpoint: "tcp:1", mode: forward, to: null}]
        """
        self.assertEqual(len(read(text).rules), 1)


class SizeTests(SynchronousTestCase):
    def test_sizes_have_units_in_either_case_and_fractions(self) -> None:
        table: list[tuple[str, int]] = [
            ("0", 0),
            ("100", 100),
            ("'100'", 100),
            ("1b", 1),
            ("64k", 65536),
            ("64K", 65536),
            ("1.5m", 1536 << 10),
            ("0.5k", 512),
            ("1g", 1 << 30),
            ("0.001k", 1),
            ("2T", 2 << 40),
            ("10.0", 10),
        ]
        for text, size in table:
            self.assertEqual(read(f"stream_large_bodies: {text}").stream_large_bodies, size, text)

    def test_what_is_no_size_is_told(self) -> None:
        numbers = ("-1", ".inf", ".nan", "1e9k", "9" * 30, "99999999t", "\u0661k", "0x10k")
        for text in (*numbers, "1kb", "k", "1 k", ".5k", "1.k", "true", "[1]", "{}"):
            (line,) = errors(f"stream_large_bodies: {text}")
            self.assertIn("stream_large_bodies: expected a size, such as 64k, got ", line)


_LISTENER = "an endpoint such as tcp:8080:interface=127.0.0.1"
_PORT = f"{_LISTENER}, with a port from 0 to 65535"
_UNBUILT = "is known, but isn't built yet; leave it out"
ERRORS: list[tuple[str, list[str]]] = [
    ("3", ["1:1: expected a mapping, got 3"]),
    ("[]", ["1:1: expected a mapping, got an empty list"]),
    ("wirte_size: 1", ["1:1: unknown key 'wirte_size'; did you mean 'write_size'?"]),
    ("stream-large-bodies: 1", ["1:1: unknown key 'stream-large-bodies'; did you mean 'stream_large_bodies'?"]),
    ("zzz: 1", ["1:1: unknown key 'zzz'"]),
    ("idle: 1", ["1:1: unknown key 'idle'; it belongs under 'timeouts'"]),
    ("limits: {drain: 1}", ["1:10: limits: unknown key 'drain'; it belongs under 'timeouts'"]),
    ("limits: {rules: []}", ["1:10: limits: unknown key 'rules'; it belongs at the top"]),
    ("listen: 8080", [f"1:9: listen: expected {_LISTENER}, got 8080"]),
    ("listen: ''", [f"1:9: listen: expected {_LISTENER}, got ''"]),
    ("listen: []", ["1:9: listen: expected at least one, got an empty list"]),
    ("listen: [tcp:1, tcp]", [f"1:17: listen[1]: expected {_LISTENER}, got 'tcp'"]),
    ("listen: tcp:65536", [f"1:9: listen: expected {_PORT}, got 'tcp:65536'"]),
    ("listen: tcp:interface=x", [f"1:9: listen: expected {_PORT}, got 'tcp:interface=x'"]),
    ("listen: tcp:http", [f"1:9: listen: expected {_PORT}, got 'tcp:http'"]),
    ("listen: {mode: forward}", ["1:9: listen: needs the key 'endpoint'"]),
    ("listen: [{endpoint: a}]", [f"1:21: listen[0].endpoint: expected {_LISTENER}, got 'a'"]),
    ("listen: [{endpoint: 'tcp:1', mode: socks5}]", [f"1:30: listen[0].mode: 'mode' {_UNBUILT}"]),
    (
        "listen: [{endpoint: 'tcp:1', mode: x}]",
        [
            "1:36: listen[0].mode: expected forward, reverse, upstream, socks5 or transparent, got 'x'",
        ],
    ),
    ("state_dir: ''", ["1:12: state_dir: expected text of one line, got ''"]),
    ("state_dir: [x]", ["1:12: state_dir: expected text, got a list"]),
    ("stream_websockets: on", ["1:20: stream_websockets: expected true or false, got 'on'"]),
    (
        "access: {allow: [x]}",
        ["1:18: access.allow[0]: expected an address such as 192.0.2.7, or a range such as 10.0.0.0/8, got 'x'"],
    ),
    ("access: {htpasswd: /no}", ["1:20: access.htpasswd: /no: can't be read: No such file or directory"]),
    ("hold: never", ["1:7: hold: expected needed or always, got 'never'"]),
    ("write_size: 4097", ["1:13: write_size: expected a size from 16 to 4k, such as 4k, got 4097"]),
    ("write_size: 15", ["1:13: write_size: expected a size from 16 to 4k, such as 4k, got 15"]),
    (
        "stream_content_types: [a/b, 3, {}]",
        ["1:32: stream_content_types[2]: expected a pattern or {regex: text}, got an empty mapping"],
    ),
    ("limits: []", ["1:9: limits: expected a mapping, got an empty list"]),
    ("limits: {head: 1}", ["1:16: limits.head: expected a size from 256 to 16m, such as 64k, got 1"]),
    ("limits: {fields: 0}", ["1:18: limits.fields: expected a whole number from 1 to 100000, got 0"]),
    (
        "limits: {connections: 1.5}",
        ["1:23: limits.connections: expected a whole number from 1 to 10000000, got 1.5"],
    ),
    ("timeouts: {idle: 0}", ["1:18: timeouts.idle: expected a number of seconds above 0, got 0"]),
    ("timeouts: {idle: .inf}", ["1:18: timeouts.idle: expected a number of seconds above 0, got inf"]),
    ("timeouts: {idle: .nan}", ["1:18: timeouts.idle: expected a number of seconds above 0, got nan"]),
    ("timeouts: {idle: true}", ["1:18: timeouts.idle: expected a number of seconds above 0, got true"]),
    ("timeouts: {handshake: 0}", ["1:23: timeouts.handshake: expected a number of seconds above 0, got 0"]),
    ("timeouts: {tunnel: -1}", ["1:20: timeouts.tunnel: expected a number of seconds above 0, got -1"]),
    ("timeouts: {idle: 5s}", ["1:18: timeouts.idle: expected a number of seconds above 0, got '5s'"]),
    ("rules: {}", ["1:8: rules: expected a list, got an empty mapping"]),
    ("rules: [block]", ["1:9: rules[0]: expected a mapping, got 'block'"]),
    ("rules: [null]", ["1:9: rules[0]: expected a mapping, got null"]),
]


class ErrorTests(SynchronousTestCase):
    def test_every_key_says_what_it_expects(self) -> None:
        for text, lines in ERRORS:
            self.assertEqual(errors(text), lines, text)

    def test_all_errors_of_a_file_are_told(self) -> None:
        text = "hold: x\nlimits: {head: x, heads: 1}\nrules:\n  - {block: 1, respond: {status: 100}}\n  - {}\n"
        self.assertEqual(
            [line.partition(": ")[0] for line in errors(text)], ["1:7", "2:16", "2:19", "4:13", "4:25", "4:34", "5:5"]
        )

    def test_a_long_or_odd_value_is_quoted_short_on_one_line(self) -> None:
        for text in (f"hold: {'x' * 5000}", 'hold: "a\\nb\\u2028\\e[31m"', f"{'k' * 900}: 1", f"hold: {'9' * 39}"):
            for line in errors(text):
                self.assertTrue(line.isprintable() and len(line) < 200, line)

    def test_the_place_of_what_is_missing_is_the_mapping_it_is_missing_in(self) -> None:
        self.assertEqual(
            errors("rules:\n  - request:\n      replace:\n        - find: x\n"),
            ["4:11: rules[0].request.replace[0]: needs the key 'with'"],
        )


class ReadTests(SynchronousTestCase):
    def test_a_whole_number_is_text_as_it_was_written_where_text_is_meant(self) -> None:
        text = "rules: [{name: 007, request: {headers: {set: {A: 010}}, replace: {find: 01, with: 2}}}]"
        (found,) = read(text).rules
        self.assertEqual((found.name, found.request.headers.set), ("007", {"A": b"010"}))
        self.assertEqual((found.request.replace[0].find, found.request.replace[0].put), (b"01", b"2"))

    def test_a_value_is_latin_1_where_it_can_be_and_else_utf_8(self) -> None:
        (found,) = read("rules: [{request: {headers: {set: {A: ü, B: ž, C: ' x\\t', D: ''}}}}]").rules
        self.assertEqual(found.request.headers.set, {"A": b"\xfc", "B": "ž".encode(), "C": b"x\\t", "D": b""})

    def test_host_can_be_set(self) -> None:
        for value in ("a.example", "'a.example:80'", "'[::1]:80'", "10.0.0.1"):
            self.assertEqual(len(read(f"rules: [{{request: {{headers: {{set: {{Host: {value}}}}}}}}}]").rules), 1)

    def test_a_redirect_is_taken_apart(self) -> None:
        (found,) = read("rules: [{redirect_to: 'HTTP://New.Example:8080/ü/?q'}]").rules
        self.assertEqual(found.redirect_to, (Origin("http", "new.example", 8080), "/%C3%BC/", "?q"))
        (found,) = read("rules: [{redirect_to: 'http://[::1]'}]").rules
        self.assertEqual(found.redirect_to, (Origin("http", "::1", 80), "/", ""))
        (found,) = read("rules: [{redirect_to: 'https://a.example/x'}]").rules
        self.assertEqual(found.redirect_to, (Origin("https", "a.example", 443), "/x", ""))
        (found,) = read("rules: [{redirect_to: 'HTTPS://a.example:80/'}]").rules
        self.assertEqual(found.redirect_to, (Origin("https", "a.example", 80), "/", ""))

    def test_endpoints_of_every_kind_pass(self) -> None:
        others = ("unix:/run/x.sock", "systemd:domain=INET:index=0", "haproxy:tcp:80")
        for endpoint in ("tcp:0", "tcp:port=80", "tcp6:80:interface=\\:\\:1", *others):
            self.assertEqual(read(f"listen: '{endpoint}'").listen[0].endpoint, endpoint)

    def test_an_endpoint_of_no_known_kind_is_an_error(self) -> None:
        self.assertRaises(AssertionError, read, "listen: 'tpc:80'")

    def test_several_listeners_in_both_forms(self) -> None:
        found = read("listen: [tcp:1, {endpoint: 'tcp:2'}]")
        self.assertEqual([each.endpoint for each in found.listen], ["tcp:1", "tcp:2"])

    def test_no_streamed_types_at_all_may_be_wanted(self) -> None:
        self.assertFalse(read("stream_content_types: []").stream_content_types)

    def test_block_true_is_403(self) -> None:
        self.assertEqual([each.block for each in read("rules: [{block: true}, {block: 451}]").rules], [403, 451])


class WordsTests(SynchronousTestCase):
    def test_a_path_is_shown_as_users_write_it(self) -> None:
        self.assertEqual(dotted(("rules", 3, "match", "host")), "rules[3].match.host")
        self.assertEqual(dotted(("a", "b c", 0)), "a['b c'][0]")

    def test_values_are_shown_short(self) -> None:
        table: list[tuple[Any, str]] = [
            (None, "null"),
            (True, "true"),
            ([], "an empty list"),
            ({1: 2}, "a mapping"),
            (1.5, "1.5"),
        ]
        table.append(("a\nb", "'a\\nb'"))
        for value, words in table:
            self.assertEqual(shown(value), words)


WORDS = """
    listen endpoint rules name match host path url header request response headers set add remove replace find
    with block respond status text redirect_to websocket messages from type regex drop limits head timeouts idle tls
    hold stream Host A
    intercept passthrough only verify_upstream trusted_ca minimum_version client_certificate authority certificate key
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.sampled_from(["1", "x", "true", "", "'*'", "64k", "403", "'http://h/'", ".nan", "-1", "'/*'", '"\\n"'])
TREES: st.SearchStrategy[str] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
        | st.dictionaries(KEYS, inner, max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=12,
)


class AnyTreeTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(st.dictionaries(KEYS, TREES, max_size=4))
    def test_any_tree_is_read_or_told_line_by_line(self, pairs: dict[str, str]) -> None:
        text = "\n".join(f"{key}: {value}" for key, value in pairs.items())
        try:
            document = compose(text, "f")
        except YamlError:
            return
        configuration, problems = read_configuration(document)
        self.assertEqual(configuration is None, bool(problems))
        for problem in problems:
            self.assertGreaterEqual(problem.place.line, 1)
            self.assertTrue(problem.text.isprintable(), problem.text)
