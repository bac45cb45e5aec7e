"""What the rules say about a message's head."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.explain import read_configuration
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.verdict import HeaderEdits, How, Replacement, RequestVerdict, ResponseVerdict
from streamproxy.rules.way import Streaming
from streamproxy.rules.yaml import compose
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import (
    CHUNKED,
    NO_BODY,
    Framing,
    Kind,
    Origin,
    RequestHead,
    ResponseHead,
    Target,
)


def rules(text: str, **streaming: Any) -> RuleSet:
    configuration, problems = read_configuration(compose("rules:\n" + text, "f.yaml"))
    if configuration is None:
        raise AssertionError(problems)
    types = configuration.stream_content_types
    return RuleSet(configuration.rules, Streaming(types=types, **streaming))


def headers(fields: dict[str, str] | None) -> Headers:
    return Headers((name.encode(), value.encode("latin-1")) for name, value in (fields or {}).items())


def request(
    method: str = "GET", fields: dict[str, str] | None = None, framing: Framing | None = None
) -> RequestHead:
    framing = framing or (CHUNKED if method == "POST" else NO_BODY)
    return RequestHead(method.encode(), b"/", (1, 1), headers(fields), framing)


def response(
    status: int = 200, fields: dict[str, str] | None = None, framing: Framing = CHUNKED
) -> ResponseHead:
    return ResponseHead((1, 1), status, b"OK", headers(fields), framing)


def target(url: str) -> Target:
    netloc, slash, path = url.removeprefix("http://").partition("/")
    host, _, port = netloc.partition(":")
    return Target(Origin("http", host, int(port or 80)), slash + path)


def ask(
    set_: RuleSet, url: str = "http://h.example/", head: RequestHead | None = None
) -> RequestVerdict:
    return set_.on_request(head or request(), target(url))


def both(
    set_: RuleSet, head: RequestHead | None = None, answer: ResponseHead | None = None
) -> ResponseVerdict:
    head = head or request()
    verdict = set_.on_request(head, target("http://h.example/"))
    return set_.on_response(verdict, head, answer or response())


class NoRuleTests(SynchronousTestCase):
    def test_without_rules_everything_goes_on_as_it_is(self) -> None:
        verdict = ask(rules("  []"), "http://h.example/a?b", request("POST"))
        self.assertEqual(verdict.target, target("http://h.example/a?b"))
        self.assertEqual(verdict[:2], ((), ()))
        self.assertEqual((verdict.answer, verdict.edits, verdict.replacements), (None, (), ()))
        self.assertFalse(verdict.redirected or verdict.plain_answer_wanted)
        self.assertIs(verdict.way.how, How.STREAMED)

    def test_a_response_that_no_rule_speaks_of_still_has_its_way(self) -> None:
        verdict = both(rules("  []", hold_always=True))
        self.assertEqual(verdict[:3], ((), (), ()))
        self.assertEqual((verdict.way.how, verdict.refused), (How.HELD, None))

    def test_a_rule_for_another_host_says_nothing(self) -> None:
        set_ = rules("  - {match: {host: other.example}, block: 403}")
        self.assertIsNone(ask(set_).answer)


class AnswerTests(SynchronousTestCase):
    def test_a_block_is_a_refusal_in_words(self) -> None:
        verdict = ask(rules("  - {name: no ads, match: {host: h.example}, block: true}"))
        assert verdict.answer is not None
        self.assertEqual((verdict.answer.status, verdict.answer.refusal), (403, True))
        self.assertEqual(verdict.answer.body, b"Blocked by rule 'no ads'.\n")
        self.assertEqual(verdict.rules, ("no ads",))

    def test_an_answer_is_given_as_it_is_written(self) -> None:
        set_ = rules("  - respond: {status: 404, headers: {X-A: [a, b]}, text: grüß}")
        answer = ask(set_).answer
        assert answer is not None
        self.assertEqual((answer.status, answer.body, answer.refusal), (404, "grüß".encode(), False))
        self.assertEqual(
            answer.headers,
            ((b"X-A", b"a"), (b"X-A", b"b"), (b"Content-Type", b"text/plain; charset=utf-8")),
        )

    def test_a_content_type_of_its_own_is_kept(self) -> None:
        answer = ask(rules("  - respond: {headers: {content-type: a/b}, text: x}")).answer
        assert answer is not None
        self.assertEqual(answer.headers, ((b"content-type", b"a/b"),))

    def test_an_answer_without_text_has_no_type(self) -> None:
        answer = ask(rules("  - respond: {status: 204}")).answer
        assert answer is not None
        self.assertEqual((answer.headers, answer.body), ((), b""))

    def test_the_first_rule_that_decides_a_request_s_fate_decides_alone(self) -> None:
        set_ = rules(
            "  - {name: edits, request: {headers: {set: {A: b}}, stream: false}}\n"
            "  - {name: first, respond: {text: one}}\n"
            "  - {name: second, block: 403}\n"
        )
        verdict = ask(set_, head=request("POST", {"Content-Length": "5"}, Framing(Kind.LENGTH, 1 << 40)))
        assert verdict.answer is not None
        self.assertEqual(verdict.answer.body, b"one")
        self.assertEqual((verdict.rules, verdict.edits), (("first",), ()))
        self.assertFalse(verdict.way.refused)

    def test_a_redirect_before_a_block_decides_and_after_it_does_not(self) -> None:
        block = "  - {block: 403}\n"
        redirect = "  - {redirect_to: 'http://new.example/'}\n"
        self.assertTrue(ask(rules(redirect + block)).redirected)
        self.assertIsNone(ask(rules(redirect + block)).answer)
        self.assertIsNotNone(ask(rules(block + redirect)).answer)
        self.assertFalse(ask(rules(block + redirect)).redirected)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, self.folder)

    def tail(self, match: str, url: str) -> str | None:
        answer = ask(rules(f"  - {{match: {match}, respond: {{file: {self.folder}}}}}"), url).answer
        assert answer is not None and answer.file is not None
        self.assertEqual(str(answer.file), self.folder)
        return answer.tail

    def test_the_tail_is_what_the_last_star_stood_for_undecoded(self) -> None:
        table = [
            ("{path: '/static/*'}", "http://h.example/static/a%20b/c?q", "a%20b/c"),
            ("{path: '/static/*'}", "http://h.example/static/", ""),
            ("{path: '/static/*'}", "http://h.example/static//a", "a"),
            ("{path: '/static/*'}", "http://h.example/static/../x", "../x"),
            ("{path: '/static/*'}", "http://h.example/%73tatic/a%2Fb", "a%2Fb"),
            ("{path: '/st(a)/*'}", "http://h.example/st%28a%29/a%3Fb%20", "a%3Fb%20"),
            ("{path: ['/x', '/y/*']}", "http://h.example/y/z", "z"),
            ("{path: '*.css'}", "http://h.example/a/b.css?x", "a/b.css"),
            ("{path: {regex: '^/s'}}", "http://h.example/s/x", "s/x"),
            ("{host: h.example}", "http://h.example/a/b", "a/b"),
            ("{}", "http://h.example/", ""),
        ]
        for match, url, tail in table:
            self.assertEqual(self.tail(match, url), tail, (match, url))

    def test_a_regular_file_has_no_tail(self) -> None:
        answer = ask(rules(f"  - {{match: {{path: '/*'}}, respond: {{file: {__file__}}}}}"), "http://h/x").answer
        assert answer is not None
        self.assertEqual((str(answer.file), answer.tail), (__file__, None))


class RedirectTests(SynchronousTestCase):
    def test_where_a_request_goes(self) -> None:
        old = "url: 'http://old.example/*'"
        table = [
            (old, "http://new.example/", "http://old.example/a/b?q", "http://new.example/a/b?q"),
            (old, "http://new.example", "http://old.example/a/b?q", "http://new.example/a/b?q"),
            (old, "http://new.example/", "http://old.example/", "http://new.example/"),
            (old, "http://new.example:81/p/", "http://old.example/a?q", "http://new.example:81/p/a?q"),
            ("path: '/api/*'", "http://new/v2/", "http://h/api/x?q", "http://new/v2/x?q"),
            ("path: '/api/*'", "http://new/v2/", "http://h/%61pi/x%20y", "http://new/v2/x%20y"),
            ("path: '*.php'", "http://new/v2/", "http://h/a/b.php", "http://new/v2/a/b.php"),
            ("host: h", "http://new/v2/", "http://h/a/b?q", "http://new/v2/a/b?q"),
            ("host: h", "http://new/v2", "http://h/a/b?q", "http://new/v2?q"),
            ("host: h", "http://new/v2?own", "http://h/a/b?q", "http://new/v2?own"),
            ("host: h", "http://new/v2/?own", "http://h/a/b?q", "http://new/v2/a/b?own"),
            ("host: h", "http://new/", "http://h/a?", "http://new/a?"),
            ("host: h", "http://new/ü/", "http://h/a", "http://new/%C3%BC/a"),
            ("url: 'http://h/x?id=*'", "http://new/", "http://h/x?id=5", "http://new/x?id=5"),
            ("url: 'http://h/*?id=*'", "http://new/", "http://h/x?id=5", "http://new/x?id=5"),
            ("url: 'http://h*'", "http://new/", "http://h:81/x?q", "http://new/x?q"),
            ("path: '/api/*'", "http://new/v2/", "http://h/api/../../x", "http://new/v2/x"),
            ("path: '/api/*'", "http://new/v2/", "http://h/api/%2e%2e/%2E./x?../q", "http://new/v2/x?../q"),
            ("url: 'http://h/api/*'", "http://new/v2/", "http://h/api/../secret", "http://new/v2/secret"),
            ("host: h", "http://new/v2/", "http://h/../x", "http://new/v2/x"),
        ]
        for match, to, url, goes in table:
            verdict = ask(rules(f"  - {{match: {{{match}}}, redirect_to: '{to}'}}"), url)
            self.assertTrue(verdict.redirected)
            self.assertEqual(verdict.target, target(goes), (match, to, url))

    def test_a_request_for_the_whole_server_stays_one(self) -> None:
        set_ = rules("  - {redirect_to: 'http://new/v2/'}")
        verdict = set_.on_request(request("OPTIONS"), Target(Origin("http", "h", 80), "*"))
        self.assertEqual(verdict.target, Target(Origin("http", "new", 80), "*"))

    def test_the_first_redirect_decides_and_later_rules_match_what_was_asked_for(self) -> None:
        set_ = rules(
            "  - {name: a, match: {host: h.example}, redirect_to: 'http://new.example/'}\n"
            "  - {name: b, match: {host: h.example}, redirect_to: 'http://newer.example/'}\n"
            "  - {name: c, match: {host: new.example}, request: {headers: {set: {A: b}}}}\n"
            "  - {name: d, match: {host: h.example}, request: {headers: {set: {C: d}}}}\n"
        )
        verdict = ask(set_)
        self.assertEqual(verdict.target.origin.host, "new.example")
        self.assertEqual(verdict.rules, ("a", "d"))
        self.assertEqual([edit.set for edit in verdict.edits], [((b"C", b"d"),)])


class EditTests(SynchronousTestCase):
    def test_edits_and_replacements_add_up_in_the_order_of_the_file(self) -> None:
        set_ = rules(
            "  - {name: z, match: {host: '*'}, request: {headers: {remove: [Cookie, X-Y], add: {A: [1, 2]}}}}\n"
            "  - {name: y, match: {host: h.example}, request: {replace: [{find: a, with: b}]}}\n"
            "  - {name: x, request: {headers: {set: {Host: v}}, replace: {find: c, with: ''}}}\n"
        )
        verdict = ask(set_, head=request("POST"))
        self.assertEqual(verdict.rules, ("z", "y", "x"))
        self.assertEqual(
            verdict.edits,
            (
                HeaderEdits(remove=(b"cookie", b"x-y"), add=((b"A", b"1"), (b"A", b"2"))),
                HeaderEdits(set=((b"Host", b"v"),)),
            ),
        )
        self.assertEqual(verdict.replacements, (Replacement(b"a", b"b", "y"), Replacement(b"c", b"", "x")))

    def test_a_request_without_a_body_has_nothing_to_replace(self) -> None:
        set_ = rules("  - {request: {replace: [{find: a, with: b}], stream: true}}")
        for framing in (NO_BODY, Framing(Kind.LENGTH, 0)):
            verdict = ask(set_, head=request("POST", framing=framing))
            self.assertEqual((verdict.rules, verdict.replacements, verdict.way.how), ((), (), How.NONE))

    def test_the_first_word_on_streaming_decides(self) -> None:
        set_ = rules(
            "  - {name: a, match: {path: /x}, request: {stream: true}}\n"
            "  - {name: b, request: {stream: false}}\n"
            "  - {name: c, request: {stream: true}}\n",
            held_body=10,
        )
        self.assertEqual(ask(set_, "http://h/x", request("POST")).way.why, "rule a")
        verdict = ask(set_, "http://h/y", request("POST", framing=Framing(Kind.LENGTH, 11)))
        self.assertEqual((verdict.way.why, verdict.way.refused, verdict.rules), ("rule b", True, ("b",)))

    def test_a_rule_without_a_name_is_called_by_its_place(self) -> None:
        set_ = rules("  - {match: {host: x}, block: 403}\n  - {request: {headers: {set: {A: b}}}}")
        self.assertEqual(ask(set_).rules, ("rules[1]",))

    def test_a_request_that_a_rule_can_t_read_is_answered_with_415(self) -> None:
        set_ = rules("  - {name: r, request: {replace: [{find: a, with: b}]}}")
        table = [
            ({"Content-Encoding": "gzip"}, b"Rule 'r' can't read Content-Encoding gzip.\n"),
            ({"Content-Encoding": "identity, Br"}, b"Rule 'r' can't read Content-Encoding br.\n"),
            ({"Content-Range": "bytes 0-1/5"}, b"Rule 'r' can't read a part of a body (Content-Range).\n"),
        ]
        for fields, body in table:
            verdict = ask(set_, head=request("POST", fields))
            assert verdict.answer is not None
            self.assertEqual((verdict.answer.status, verdict.answer.refusal), (415, True))
            self.assertEqual((verdict.answer.body, verdict.rules), (body, ("r",)))

    def test_a_request_that_a_rule_can_read_goes_on(self) -> None:
        set_ = rules("  - {name: r, request: {replace: [{find: a, with: b}]}}")
        for fields in ({}, {"Content-Encoding": "identity"}, {"Content-Encoding": ""}):
            self.assertIsNone(ask(set_, head=request("POST", fields)).answer)
        self.assertIsNone(ask(set_, head=request("GET", {"Content-Encoding": "gzip"})).answer)

    def test_a_redirected_request_that_can_t_be_read_goes_nowhere(self) -> None:
        set_ = rules("  - {redirect_to: 'http://new/', request: {replace: [{find: a, with: b}]}}")
        verdict = ask(set_, head=request("POST", {"Content-Encoding": "gzip"}))
        self.assertEqual((verdict.redirected, verdict.target.origin.host), (False, "h.example"))


class MatchTests(SynchronousTestCase):
    def blocked(self, match: str, url: str = "http://h.example/", head: RequestHead | None = None) -> bool:
        return ask(rules(f"  - {{match: {match}, block: 403}}"), url, head).answer is not None

    def test_all_that_is_given_must_hold(self) -> None:
        match = "{host: h.example, path: '/a*', method: [POST, put], header: {X: y}, content_type: 'a/*'}"
        fields = {"X": "y", "Content-Type": "A/b; c"}
        self.assertTrue(self.blocked(match, "http://h.example/ab", request("POST", fields)))
        self.assertTrue(self.blocked(match, "http://h.example/ab", request("put", fields)))
        self.assertFalse(self.blocked(match, "http://i.example/ab", request("POST", fields)))
        self.assertFalse(self.blocked(match, "http://h.example/b", request("POST", fields)))
        self.assertFalse(self.blocked(match, "http://h.example/ab", request("GET", fields)))
        self.assertFalse(self.blocked(match, "http://h.example/ab", request("POST", fields | {"X": "z"})))
        self.assertFalse(self.blocked(match, "http://h.example/ab", request("POST", {"X": "y"})))

    def test_a_rule_without_a_match_matches_everything(self) -> None:
        self.assertIsNotNone(ask(rules("  - {block: 403}")).answer)
        self.assertTrue(self.blocked("{}"))

    def test_hosts_are_found_whatever_their_spelling_and_their_list(self) -> None:
        match = "{host: [a.example, h.example, '*.x.example', 'p.example:81', '127.0.0.1']}"
        for host in ("a.example", "h.example.", "q.x.example", "p.example:81", "127.1", "2130706433"):
            self.assertTrue(self.blocked(match, f"http://{host}/"), host)
        for host in ("b.example", "x.example", "p.example", "a.example.b", "127.0.0.2"):
            self.assertFalse(self.blocked(match, f"http://{host}/"), host)

    def test_rules_found_by_host_keep_the_order_of_the_file(self) -> None:
        set_ = rules(
            "".join(
                f"  - {{name: r{index}, match: {{host: {host}}}, request: {{headers: {{set: {{A: b}}}}}}}}\n"
                for index, host in enumerate(["'*'", "h.example", "other", "'h.*'", "[h.example, b]", "b"])
            )
        )
        for _ in range(2):  # the second time from what was kept
            self.assertEqual(ask(set_).rules, ("r0", "r1", "r3", "r4"))
            self.assertEqual(ask(set_, "http://b/").rules, ("r0", "r4", "r5"))

    def test_a_header_that_must_be_absent_or_present(self) -> None:
        self.assertTrue(self.blocked("{header: {X: false}}"))
        self.assertFalse(self.blocked("{header: {X: false}}", head=request(fields={"x": ""})))
        self.assertTrue(self.blocked("{header: {X: true}}", head=request(fields={"x": ""})))
        self.assertFalse(self.blocked("{header: {X: true}}"))

    def test_no_way_of_writing_a_path_gets_past_a_block(self) -> None:
        for path in ("/%61dmin/x", "/y/../admin/x", "//admin/x", "/y/%2e%2e/admin/", "/admin%2fx", "/admin;a/x"):
            self.assertTrue(self.blocked("{path: '/admin/*'}", f"http://h.example{path}?q"), path)
            self.assertTrue(self.blocked("{url: 'http://h.example/admin/*'}", f"http://h.example{path}"), path)


class ResponseTests(SynchronousTestCase):
    def test_only_rules_with_something_to_say_on_the_response_wait_for_it(self) -> None:
        set_ = rules(
            "  - {name: a, request: {headers: {set: {A: b}}}}\n"
            "  - {name: b, response: {headers: {set: {A: b}}}}\n"
            "  - {name: c, match: {path: /other}, response: {headers: {set: {A: b}}}}\n"
            "  - {name: d, request: {headers: {set: {C: d}}}, response: {headers: {set: {C: d}}}}\n"
        )
        verdict = ask(set_)
        self.assertEqual(verdict.rules, ("a", "d"))
        self.assertEqual([rule.name for rule in verdict.matched], ["b", "d"])
        self.assertEqual(set_.on_response(verdict, request(), response()).rules, ("b", "d"))

    def test_a_type_may_be_the_request_s_or_the_response_s(self) -> None:
        set_ = rules("  - {match: {content_type: 'a/b'}, response: {headers: {set: {A: b}}}}")
        self.assertEqual(both(set_).rules, ())
        self.assertEqual(both(set_, answer=response(fields={"Content-Type": "a/b"})).rules, ("rules[0]",))
        self.assertEqual(both(set_, head=request("POST", {"Content-Type": "a/b"})).rules, ("rules[0]",))

    def test_each_condition_may_hold_in_another_head(self) -> None:
        set_ = rules("  - {match: {content_type: a/b, header: {X: y}}, response: {headers: {set: {A: b}}}}")
        verdict = both(set_, request(fields={"X": "y"}), response(fields={"Content-Type": "a/b"}))
        self.assertEqual(verdict.rules, ("rules[0]",))

    def test_a_field_that_must_be_absent_must_be_so_in_both_heads(self) -> None:
        set_ = rules("  - {match: {header: {X: false}}, response: {headers: {set: {A: b}}}}")
        self.assertEqual(both(set_).rules, ("rules[0]",))
        self.assertEqual(both(set_, answer=response(fields={"X": "1"})).rules, ())
        self.assertEqual(both(set_, head=request(fields={"X": "1"})).rules, ())
        self.assertEqual(ask(set_, head=request(fields={"X": "1"})).matched, ())

    def test_what_a_rule_does_to_a_request_looks_at_the_request_alone(self) -> None:
        set_ = rules("  - {match: {content_type: a/b}, request: {headers: {set: {A: b}}}}")
        self.assertEqual(ask(set_).edits, ())
        self.assertEqual(ask(set_).matched, ())

    def test_a_plain_answer_is_wanted_where_a_rule_may_read_it(self) -> None:
        replace = "response: {replace: [{find: a, with: b}]}"
        self.assertTrue(ask(rules(f"  - {{{replace}}}")).plain_answer_wanted)
        self.assertTrue(ask(rules(f"  - {{match: {{content_type: a/b}}, {replace}}}")).plain_answer_wanted)
        self.assertFalse(ask(rules(f"  - {{match: {{path: /x}}, {replace}}}")).plain_answer_wanted)
        self.assertFalse(ask(rules("  - {response: {stream: true}}")).plain_answer_wanted)

    def test_a_response_that_a_rule_can_t_read_is_refused_in_words(self) -> None:
        set_ = rules("  - {name: x, response: {replace: [{find: a, with: b}]}}")
        parts = {"Content-Type": "Multipart/ByteRanges; boundary=x"}
        table = [
            (response(fields={"Content-Encoding": "gzip"}), "rule 'x' can't read Content-Encoding gzip"),
            (response(fields={"Content-Encoding": "a\x1b" * 99}), None),
            (response(206), "rule 'x' can't read a part of a body (206)"),
            (response(fields=parts), "rule 'x' can't read a part of a body (multipart/byteranges)"),
        ]
        for head, words in table:
            refused = both(set_, answer=head).refused
            assert refused is not None
            self.assertTrue(refused.isprintable() and len(refused) < 120)
            if words:
                self.assertEqual(refused, words)

    def test_a_response_without_a_body_or_without_replacements_is_never_refused(self) -> None:
        set_ = rules("  - {name: x, response: {replace: [{find: a, with: b}]}}")
        coded = {"Content-Encoding": "gzip"}
        for framing in (NO_BODY, Framing(Kind.LENGTH, 0)):
            verdict = both(set_, answer=response(206, coded, framing))
            self.assertEqual((verdict.refused, verdict.replacements), (None, ()))
        self.assertIsNone(both(rules("  - {response: {stream: true}}"), answer=response(206, coded)).refused)

    def test_a_word_on_streaming_and_edits_are_for_the_response(self) -> None:
        set_ = rules(
            "  - {name: x, response: {stream: false, headers: {remove: Server}, replace: {find: a, with: b}}}"
        )
        verdict = both(set_)
        self.assertEqual((verdict.way.how, verdict.way.why), (How.HELD, "rule x"))
        self.assertEqual(verdict.edits, (HeaderEdits(remove=(b"server",)),))
        self.assertEqual(verdict.replacements, (Replacement(b"a", b"b", "x"),))
