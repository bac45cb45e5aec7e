"""What is said of what can't be written in a rule."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import errors


class RuleErrorTests(SynchronousTestCase):
    """Each text has a ^ where the error is."""

    def check(self, table: list[tuple[str, str]], around: str = "%s") -> None:
        for marked, words in table:
            text = f"rules: [{{{around % marked}}}]"
            column = text.index("^") + 1
            self.assertEqual(errors(text.replace("^", "")), [f"1:{column}: rules[0]{words}"], marked)

    def test_what_a_rule_does(self) -> None:
        nothing = ": does nothing; give it request, response, websocket, block, respond or redirect_to"
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

    def test_work_on_bodies(self) -> None:
        function = "expected the name of a function, such as mymodule:on_event, got"
        after = "expected a size such as 100k, {chunks: 3} or {events: 3}, got"
        table = [
            ("events: ^f", f"events: {function} 'f'"),
            ("lines: ^'m:'", f"lines: {function} 'm:'"),
            ("transform: ^'m:f x'", f"transform: {function} 'm:f x'"),
            ("transform: ^[m:f]", "transform: expected text, got a list"),
            ("pace: {rate: ^0}", "pace.rate: expected a size of 1 at the least, such as 64k, got 0"),
            ("pace: {delay: ^0}", "pace.delay: expected a number of seconds above 0, got 0"),
            ("fault: {action: ^close}", "fault.action: expected reset, cut, stall or corrupt, got 'close'"),
            ("fault: {after: ^{bytes: 3}}", f"fault.after: {after} a mapping"),
            ("fault: {after: ^{chunks: 3, events: 3}}", f"fault.after: {after} a mapping"),
            ("fault: {after: ^x}", "fault.after: expected a size, such as 64k, got 'x'"),
            ("fault: {probability: ^2}", "fault.probability: expected a number from 0 to 1, got 2"),
            ("fault: {every: ^0}", "fault.every: expected a whole number from 1 to 1099511627776, got 0"),
            ("capture: {to: ^disk}", "capture.to: expected flow or files, got 'disk'"),
            ("hold_back: ^0", "hold_back: expected a size from 1 to 64m, such as 64k, got 0"),
            ("hold_time: ^0", "hold_time: expected a number of seconds above 0, got 0"),
            ("on_overrun: ^ignore", "on_overrun: expected abort or release, got 'ignore'"),
            (
                "replace: [{regex: ^'', with: b}]",
                "replace[0].regex: expected a regular expression of 1 to 4096 bytes, got ''",
            ),
            (
                "hold_back: 3, replace: [{find: ^abcd, with: b}]",
                "replace[0].find: expected text no longer than hold_back, 3 bytes, got 'abcd'",
            ),
        ]
        for side in ("request", "response"):
            self.check([(f"{side}: {{{text}}}", f".{side}.{words}") for text, words in table])

    def test_header_rules(self) -> None:
        framing = "it says where the message ends, which the proxy works out"
        hop = "it belongs to one connection, not to the message"
        host = "Host can only be set: a request has it once, no more and no less"
        expect = "the client waits for the 100 that it asks for, and the proxy sees to it"
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
            ("set: {^Expect: x}", f"set: a rule can't touch Expect: {expect}"),
            ("add: {^expect: x}", f"add: a rule can't touch expect: {expect}"),
            ("remove: [A, ^EXPECT]", f"remove[1]: a rule can't touch EXPECT: {expect}"),
            ("remove: ^Host", f"remove: {host}"),
            ("remove: ^'a b'", "remove: expected a header name, got 'a b'"),
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
                ("match: {host: ^[]}, ", ".match.host: expected a pattern, got an empty list"),
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
            *("http://[::1/", "http://h\\x/", "https://", "https://h:0/", "wsx://h/"),
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
