"""What the rules say about a message's head."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.verdict import NO_WORK, HeaderEdits, How, Replacement
from streamproxy.wire.message import (
    NO_BODY,
    Framing,
    Kind,
    Origin,
    Target,
)
from tests.rules.asking import ask, both, request, rules, target


class NoRuleTests(SynchronousTestCase):
    def test_without_rules_everything_goes_on_as_it_is(self) -> None:
        verdict = ask(rules("  []"), "http://h.example/a?b", request("POST"))
        self.assertEqual(verdict.target, target("http://h.example/a?b"))
        self.assertEqual(verdict[:2], ((), ()))
        self.assertEqual((verdict.answer, verdict.edits, verdict.work.replacements), (None, (), ()))
        self.assertFalse(verdict.redirected or verdict.readable_answer_wanted)
        self.assertIs(verdict.way.how, How.STREAMED)

    def test_a_response_that_no_rule_speaks_of_still_has_its_way(self) -> None:
        verdict = both(rules("  []", hold_always=True))
        self.assertEqual(verdict[:3], ((), (), NO_WORK))
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
        self.assertEqual(verdict.work.replacements, (Replacement(b"a", b"b", "y"), Replacement(b"c", b"", "x")))

    def test_a_request_without_a_body_has_nothing_to_replace(self) -> None:
        set_ = rules("  - {request: {replace: [{find: a, with: b}], stream: true}}")
        for framing in (NO_BODY, Framing(Kind.LENGTH, 0)):
            verdict = ask(set_, head=request("POST", framing=framing))
            self.assertEqual((verdict.rules, verdict.work.replacements, verdict.way.how), ((), (), How.NONE))

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
