"""Which messages a rule applies to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.verdict import HeaderEdits, How, Replacement
from streamproxy.wire.message import (
    NO_BODY,
    Framing,
    Kind,
    Origin,
    RequestHead,
    Target,
)
from tests.rules.asking import ask, both, request, response, rules


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

    def test_a_request_of_the_server_as_a_whole_doesn_t_get_past_a_block_by_path(self) -> None:
        for pattern in ("{path: '/*'}", "{path: /}", "{path: '*'}", "{url: 'http://h.example/*'}"):
            set_ = rules(f"  - {{match: {pattern}, block: 403}}")
            verdict = set_.on_request(request("OPTIONS"), Target(Origin("http", "h.example", 80), "*"))
            self.assertIsNotNone(verdict.answer, pattern)


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

    def test_a_readable_answer_is_wanted_where_a_rule_may_read_it(self) -> None:
        replace = "response: {replace: [{find: a, with: b}]}"
        self.assertTrue(ask(rules(f"  - {{{replace}}}")).readable_answer_wanted)
        self.assertTrue(ask(rules(f"  - {{match: {{content_type: a/b}}, {replace}}}")).readable_answer_wanted)
        self.assertFalse(ask(rules(f"  - {{match: {{path: /x}}, {replace}}}")).readable_answer_wanted)
        self.assertFalse(ask(rules("  - {response: {stream: true}}")).readable_answer_wanted)

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
            self.assertIsNone(verdict.refused)
            # With no body at all it may stand for one (HEAD, 304), and its fields are those of the changed one.
            self.assertEqual(bool(verdict.work.replacements), framing.kind is Kind.NONE)
        self.assertIsNone(both(rules("  - {response: {stream: true}}"), answer=response(206, coded)).refused)

    def test_a_word_on_streaming_and_edits_are_for_the_response(self) -> None:
        set_ = rules("  - {name: x, response: {stream: false, headers: {remove: Server}, replace: {find: a, with: b}}}")
        verdict = both(set_)
        self.assertEqual((verdict.way.how, verdict.way.why), (How.HELD, "rule x"))
        self.assertEqual(verdict.edits, (HeaderEdits(remove=(b"server",)),))
        self.assertEqual(verdict.work.replacements, (Replacement(b"a", b"b", "x"),))
