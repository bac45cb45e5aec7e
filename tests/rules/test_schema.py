"""What may be written under each key, and what is said of what may not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.explain import dotted, read_configuration, shown
from streamproxy.rules.schema import Configuration
from streamproxy.rules.yaml import YamlError, compose
from streamproxy.wire.message import Origin


def read(text: str) -> Configuration:
    configuration, problems = read_configuration(compose(text, "f.yaml"))
    if configuration is None:
        raise AssertionError(problems)
    return configuration


def errors(text: str) -> list[str]:
    _, problems = read_configuration(compose(text, "f"))
    problems.sort(key=lambda problem: problem.place[1:3])
    return [f"{problem.place.line}:{problem.place.column}: {problem.text}" for problem in problems]


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
        self.assertEqual((timeouts.idle, timeouts.keepalive, timeouts.drain), (300, 75, 30))
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
            admin: tcp:8081:interface=127.0.0.1
            state_dir: null
            stream_websockets: false
            tls: {intercept: true, passthrough: [], only: [], verify_upstream: true, trusted_ca: []}
            limits: {websocket_message: 16m, capture: 64k, memory: 256m}
            timeouts: {handshake: 10, drain: 30.0}
            access: {allow: [], htpasswd: null}
            scripts: []
            rules: [{block: 403, response: {events: null, pace: null}}]
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


class ErrorTests(SynchronousTestCase):
    def test_every_key_says_what_it_expects(self) -> None:
        listener = "an endpoint such as tcp:8080:interface=127.0.0.1"
        port = f"{listener}, with a port from 0 to 65535"
        unbuilt = "is known, but isn't built yet; leave it out"
        table: list[tuple[str, list[str]]] = [
            ("3", ["1:1: expected a mapping, got 3"]),
            ("[]", ["1:1: expected a mapping, got a list"]),
            ("wirte_size: 1", ["1:1: unknown key 'wirte_size'; did you mean 'write_size'?"]),
            ("stream-large-bodies: 1", ["1:1: unknown key 'stream-large-bodies'; did you mean 'stream_large_bodies'?"]),
            ("zzz: 1", ["1:1: unknown key 'zzz'"]),
            ("idle: 1", ["1:1: unknown key 'idle'; it belongs under 'timeouts'"]),
            ("limits: {drain: 1}", ["1:10: limits: unknown key 'drain'; it belongs under 'timeouts'"]),
            ("limits: {rules: []}", ["1:10: limits: unknown key 'rules'; it belongs at the top"]),
            ("listen: 8080", [f"1:9: listen: expected {listener}, got 8080"]),
            ("listen: ''", [f"1:9: listen: expected {listener}, got ''"]),
            ("listen: []", ["1:9: listen: expected at least one, got a list"]),
            ("listen: [tcp:1, tcp]", [f"1:17: listen[1]: expected {listener}, got 'tcp'"]),
            ("listen: tcp:65536", [f"1:9: listen: expected {port}, got 'tcp:65536'"]),
            ("listen: tcp:interface=x", [f"1:9: listen: expected {port}, got 'tcp:interface=x'"]),
            ("listen: tcp:http", [f"1:9: listen: expected {port}, got 'tcp:http'"]),
            ("listen: {mode: forward}", ["1:9: listen: needs the key 'endpoint'"]),
            ("listen: [{endpoint: a}]", [f"1:21: listen[0].endpoint: expected {listener}, got 'a'"]),
            ("listen: [{endpoint: 'tcp:1', mode: socks5}]", [f"1:30: listen[0].mode: 'mode' {unbuilt}"]),
            (
                "listen: [{endpoint: 'tcp:1', mode: x}]",
                [
                    "1:36: listen[0].mode: expected forward, reverse, upstream, socks5 or transparent, got 'x'",
                ],
            ),
            ("admin: tcp:1", [f"1:1: admin: 'admin' {unbuilt}"]),
            ("state_dir: /x", [f"1:1: state_dir: 'state_dir' {unbuilt}"]),
            ("stream_websockets: true", [f"1:1: stream_websockets: 'stream_websockets' {unbuilt}"]),
            ("stream_websockets: on", ["1:20: stream_websockets: expected true or false, got 'on'"]),
            ("tls: {intercept: false}", [f"1:7: tls.intercept: 'intercept' {unbuilt}"]),
            ("tls: {only: '*.x'}", [f"1:7: tls.only: 'only' {unbuilt}"]),
            ("limits: {memory: 1m}", [f"1:10: limits.memory: 'memory' {unbuilt}"]),
            ("timeouts: {drain: 3}", [f"1:12: timeouts.drain: 'drain' {unbuilt}"]),
            ("access: {allow: [x]}", [f"1:10: access.allow: 'allow' {unbuilt}"]),
            ("access: {htpasswd: x}", [f"1:10: access.htpasswd: 'htpasswd' {unbuilt}"]),
            ("scripts: [x.py]", [f"1:1: scripts: 'scripts' {unbuilt}"]),
            ("hold: never", ["1:7: hold: expected needed or always, got 'never'"]),
            ("write_size: 4097", ["1:13: write_size: expected a size from 16 to 4k, such as 4k, got 4097"]),
            ("write_size: 15", ["1:13: write_size: expected a size from 16 to 4k, such as 4k, got 15"]),
            (
                "stream_content_types: [a/b, 3, {}]",
                ["1:32: stream_content_types[2]: expected a pattern or {regex: text}, got a mapping"],
            ),
            ("limits: []", ["1:9: limits: expected a mapping, got a list"]),
            ("limits: {head: 1}", ["1:16: limits.head: expected a size from 256 to 16m, such as 64k, got 1"]),
            ("limits: {fields: 0}", ["1:18: limits.fields: expected a whole number from 1 to 100000, got 0"]),
            (
                "limits: {connections: 1.5}",
                ["1:24: limits.connections: expected a whole number from 1 to 10000000, got 1.5"],
            ),
            ("timeouts: {idle: 0}", ["1:18: timeouts.idle: expected a number of seconds above 0, got 0"]),
            ("timeouts: {idle: .inf}", ["1:18: timeouts.idle: expected a number of seconds above 0, got inf"]),
            ("timeouts: {idle: .nan}", ["1:18: timeouts.idle: expected a number of seconds above 0, got nan"]),
            ("timeouts: {idle: true}", ["1:18: timeouts.idle: expected a number of seconds above 0, got true"]),
            ("timeouts: {idle: 5s}", ["1:18: timeouts.idle: expected a number of seconds above 0, got '5s'"]),
            ("rules: {}", ["1:8: rules: expected a list, got a mapping"]),
            ("rules: [block]", ["1:9: rules[0]: expected a mapping, got 'block'"]),
            ("rules: [null]", ["1:9: rules[0]: expected a mapping, got null"]),
        ]
        for text, lines in table:
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
        self.assertEqual(errors("rules:\n  - request:\n      replace:\n        - find: x\n"),
                         ["4:11: rules[0].request.replace[0]: needs the key 'with'"])


class RuleErrorTests(SynchronousTestCase):
    """Each text has a ^ where the error is."""

    def check(self, table: list[tuple[str, str]], around: str = "%s") -> None:
        for marked, words in table:
            text = f"rules: [{{{around % marked}}}]"
            column = text.index("^") + 1
            self.assertEqual(errors(text.replace("^", "")), [f"1:{column}: rules[0]{words}"], marked)

    def test_what_a_rule_does(self) -> None:
        nothing = ": does nothing; give it request, response, block, respond or redirect_to"
        self.assertEqual(errors("rules: [{}]"), ["1:9: rules[0]" + nothing])
        self.assertEqual(errors("rules: [{request: {}, response: {headers: {set: {}}}}]"), ["1:9: rules[0]" + nothing])
        block = "expected a status from 400 to 599, or true, got"
        status = "expected a status from 200 to 599, got"
        forward = "a rule that says block doesn't forward, so it has no request to change"
        length = "a rule can't touch Content-Length: it says where the message ends, which the proxy works out"
        self.check(
            [
                ("block: ^399", f".block: {block} 399"),
                ("block: ^600", f".block: {block} 600"),
                ("block: ^false", f".block: {block} false"),
                ("block: ^'403'", f".block: {block} '403'"),
                ("block: 403, redirect_to: ^'http://x'", ".redirect_to: a rule can't both block and redirect_to"),
                ("block: 403, request: ^{stream: true}", f".request: {forward}"),
                ("^blok: 403", ": unknown key 'blok'; did you mean 'block'?"),
                ("block: 403, ^host: x", ": unknown key 'host'; it belongs under 'match'"),
                ("block: 403, ^headers: {}", ": unknown key 'headers'; it belongs under 'request'"),
                ("block: 403, name: ^''", ".name: expected text of one line, got ''"),
                ('block: 403, name: ^"a\\nb"', ".name: expected text of one line, got 'a\\nb'"),
                ("respond: {status: ^199}", f".respond.status: {status} 199"),
                ("respond: {status: ^600}", f".respond.status: {status} 600"),
                ("respond: {status: ^ok}", f".respond.status: {status} 'ok'"),
                ("respond: {status: 204, text: ^x}", ".respond.text: an answer of status 204 has no body"),
                ("respond: {text: ^[x]}", ".respond.text: expected text, got a list"),
                ("respond: {text: ^true}", ".respond.text: expected text (in quotes), got true"),
                ("respond: {text: x, file: ^/}", ".respond.file: an answer can't have both text and file"),
                (
                    "respond: {file: ^/none/x}",
                    ".respond.file: /none/x can't be served: No such file or directory",
                ),
                (
                    "respond: {file: ^/dev/null}",
                    ".respond.file: /dev/null can't be served: it is neither a file nor a folder",
                ),
                ("respond: {headers: {^Content-Length: 1}}", f".respond.headers: {length}"),
                ("request: {stream: ^needed}", ".request.stream: expected true or false, got 'needed'"),
            ]
        )

    def test_what_isn_t_built_yet(self) -> None:
        for key, value in (
            ("events", "m:f"),
            ("lines", "m:f"),
            ("transform", "m:F"),
            ("pace", "{rate: 64k}"),
            ("fault", "{after: 1k, action: reset}"),
            ("capture", "true"),
        ):
            words = f"{key}: '{key}' is known, but isn't built yet; leave it out"
            self.check([(f"request: {{^{key}: {value}}}", f".request.{words}")])
            self.check([(f"response: {{^{key}: {value}}}", f".response.{words}")])
        replace = "request: {replace: [{^regex: a, with: b}]}"
        self.check([(replace, ".request.replace[0].regex: 'regex' is known, but isn't built yet; leave it out")])
        https = ".redirect_to: redirect_to an https URL is known, but isn't built yet; leave it out"
        self.check([("redirect_to: ^'https://x/'", https)])

    def test_header_rules(self) -> None:
        framing = "it says where the message ends, which the proxy works out"
        hop = "it belongs to one connection, not to the message"
        host = "Host can only be set: a request has it once, no more and no less"
        one_line = "expected a header value of one line, without control characters, got"
        table = [
            ("set: {^'a b': x}", "set: expected a header name, got 'a b'"),
            ("set: {^'': x}", "set: expected a header name, got ''"),
            ("set: {A: ^true}", "set.A: expected a header value in quotes, got true"),
            ("set: {A: ^1.10}", "set.A: expected a header value in quotes, got 1.1"),
            ("set: {A: ^}", "set.A: expected a header value in quotes, got null"),
            ("set: {A: ^[a]}", "set.A: expected a header value, got a list"),
            ('set: {A: ^"a\\r\\nB: c"}', f"set.A: {one_line} 'a\\r\\nB: c'"),
            ('set: {A: ^"a\\0"}', f"set.A: {one_line} 'a\\x00'"),
            ('set: {A: ^"\\x7f"}', f"set.A: {one_line} '\\x7f'"),
            ("add: {A: [b, ^true]}", "add.A[1]: expected a header value in quotes, got true"),
            ("set: {A: a, a: ^b}", "set.a: a is the same field as A"),
            ("set: {^content-length: 5}", f"set: a rule can't touch content-length: {framing}"),
            ("set: {^Transfer-Encoding: x}", f"set: a rule can't touch Transfer-Encoding: {framing}"),
            ("add: {^Trailer: x}", f"add: a rule can't touch Trailer: {framing}"),
            ("add: {^Connection: x}", f"add: a rule can't touch Connection: {hop}"),
            ("remove: [A, ^TE]", f"remove[1]: a rule can't touch TE: {hop}"),
            ("remove: ^upgrade", f"remove: a rule can't touch upgrade: {hop}"),
            ("remove: ^Keep-Alive", f"remove: a rule can't touch Keep-Alive: {hop}"),
            ("add: {^Proxy-Connection: x}", f"add: a rule can't touch Proxy-Connection: {hop}"),
            ("add: {^Host: x}", f"add: {host}"),
            ("remove: ^Host", f"remove: {host}"),
            ("set: {Host: ^'a/b'}", "set.Host: expected a host such as example.com:8080, got 'a/b'"),
        ]
        for side in ("request", "response"):
            self.check([(text, f".{side}.headers.{words}") for text, words in table], f"{side}: {{headers: {{%s}}}}")
        self.check([("^delete: A", ".request.headers: unknown key 'delete'")], "request: {headers: {%s}}")

    def test_match(self) -> None:
        port = "expected a host such as *.example.com, or with a port as example.com:8080, got"
        unterminated = "unterminated subpattern at position 0"
        self.check(
            [
                ("match: ^, ", ".match: expected a mapping, got null"),
                ("match: {^hots: x}, ", ".match: unknown key 'hots'; did you mean 'host'?"),
                ("match: {host: ^}, ", ".match.host: expected a pattern, got null"),
                ("match: {host: ^[]}, ", ".match.host: expected a pattern, got a list"),
                ("match: {host: ^''}, ", ".match.host: expected a pattern, got ''"),
                ("match: {host: [a, ^true]}, ", ".match.host[1]: expected a pattern, got true"),
                ("match: {host: ^'http://x'}, ", f".match.host: {port} 'http://x'"),
                ("match: {path: ^x}, ", ".match.path: expected a path that begins with / or *, got 'x'"),
                (
                    "match: {path: {regex: ^'('}}, ",
                    f".match.path.regex: expected a regular expression (missing ), {unterminated}), got '('",
                ),
                (
                    "match: {path: ^{regexp: x}}, ",
                    ".match.path: expected a pattern or {regex: text}, got a mapping",
                ),
                (
                    "match: {path: [/a, {regex: ^'['}]}, ",
                    ".match.path[1].regex: expected a regular expression "
                    "(unterminated character set at position 0), got '['",
                ),
                ("match: {method: ^'P T'}, ", ".match.method: expected a method such as POST, got 'P T'"),
                ("match: {url: ^/x}, ", ".match.url: expected an URL such as http://example.com/*, got '/x'"),
                ("match: {header: ^[X]}, ", ".match.header: expected a mapping, got a list"),
                ("match: {header: ^}, ", ".match.header: expected a mapping, got null"),
                ("match: {header: {X: ^}}, ", ".match.header.X: expected a pattern, got null"),
                ("match: {header: {^'X Y': a}}, ", ".match.header: expected a header name, got 'X Y'"),
            ],
            "%sblock: 403",
        )

    def test_replace(self) -> None:
        find = ".request.replace[0].find: expected text"
        put = ".request.replace[0].with: expected text"
        self.check(
            [
                ("{find: ^'', with: x}", f"{find} of 1 to 4096 bytes, got ''"),
                (f"{{find: ^{'é' * 2049}, with: x}}", f"{find} of 1 to 4096 bytes, got '{'é' * 57}...'"),
                ("{find: ^true, with: x}", f"{find} (in quotes), got true"),
                (f"{{find: x, with: ^{'x' * 65537}}}", f"{put} of 65536 bytes at the most, got '{'x' * 57}...'"),
                ("^{find: x}", ".request.replace[0]: needs the key 'with'"),
                ("^{find: x, with: }", ".request.replace[0]: needs the key 'with'"),
                ("^{with: x}", ".request.replace[0]: needs the key 'find'"),
                ("^x", ".request.replace[0]: expected a mapping, got 'x'"),
            ],
            "request: {replace: [%s]}",
        )
        lines = errors("rules: [{request: {replace: [{find: a, regex: b, with: c}]}}]")
        self.assertIn("1:30: rules[0].request.replace[0]: find and regex exclude each other", lines)

    def test_redirects(self) -> None:
        for to in (
            *("/x", "new.example", "//x/", "http://", "http:///x", "http://u@h/", "http://h/#f", "ftp://h/", ""),
            *("http://h:0/", "http://h:65536/", "http://h:x/", "http://h /", "http://bücher.example/"),
            *("http://[::1/", "http://h\\x/"),
        ):
            words = f".redirect_to: expected an absolute URL such as http://new.example/, got {to!r}"
            self.check([(f"redirect_to: ^'{to}'", words)])

    def test_two_rules_can_t_have_one_name(self) -> None:
        self.assertEqual(
            errors("rules:\n  - {name: a, block: 403}\n  - {block: 403}\n  - {block: 404, name: a}\n"),
            ["4:24: rules[2].name: the name 'a' is used twice; first at f:2:12"],
        )
        (line,) = errors("rules: [{name: 'rules[1]', block: 403}, {block: 403}]")
        self.assertIn("the name 'rules[1]' is used twice", line)


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

    def test_endpoints_of_every_kind_pass(self) -> None:
        others = ("unix:/run/x.sock", "systemd:domain=INET:index=0", "fd:3")
        for endpoint in ("tcp:0", "tcp:port=80", "tcp6:80:interface=\\:\\:1", *others):
            self.assertEqual(read(f"listen: '{endpoint}'").listen[0].endpoint, endpoint)

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
        table: list[tuple[Any, str]] = [(None, "null"), (True, "true"), ([], "a list"), (1.5, "1.5")]
        table.append(("a\nb", "'a\\nb'"))
        for value, words in table:
            self.assertEqual(shown(value), words)


WORDS = """
    listen endpoint rules name match host path url header request response headers set add remove replace find
    with block respond status text redirect_to limits head timeouts idle tls hold stream Host A
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.sampled_from(["1", "x", "true", "", "'*'", "64k", "403", "'http://h/'", ".nan", "-1", "'/*'", '"\\n"'])
TREES: st.SearchStrategy[str] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    | st.dictionaries(KEYS, inner, max_size=4).map(
        lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
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
