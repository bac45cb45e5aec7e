"""What the rules say of a CONNECT, and of the requests in the tunnel that it opens."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.verdict import RequestVerdict
from streamproxy.wire.message import Origin
from tests.rules.asking import request, rules, target

EDIT = "request: {headers: {set: {A: b}}}"


def connect(
    set_: RuleSet, host: str = "h.example", port: int = 443, opaque: bool = False, fields: dict[str, str] | None = None
) -> str | None:
    """The name of the rule that refuses a CONNECT."""
    said = set_.on_connect(request("CONNECT", fields), Origin("https", host, port), opaque)
    if said is None:
        return None
    name, answer = said
    assert answer.refusal
    return name


class ConnectTests(SynchronousTestCase):
    def refused(self, match: str, opaque: bool = False, port: int = 443, fields: dict[str, str] | None = None) -> bool:
        return connect(rules(f"  - {{match: {match}, block: 403}}"), "h.example", port, opaque, fields) is not None

    def test_a_block_of_everything_there_refuses_connect_looked_into_or_not(self) -> None:
        for match in (
            "{}",
            "{host: h.example}",
            "{host: '*.example'}",
            "{host: 'h.example:443'}",
            "{host: {regex: '^h'}}",
            "{url: 'https://h.example/*'}",
            "{url: '*://h.example*'}",
            "{url: ['http://other/', 'https://*']}",
            "{path: '*'}",
            "{path: ['/x', '/*']}",
            "{method: CONNECT}",
            "{method: [GET, connect]}",
            "{method: '*'}",
            "{host: h.example, method: 'C*', url: 'https://h.example/*', path: '/*'}",
        ):
            for opaque in (False, True):
                self.assertTrue(self.refused(match, opaque), (match, opaque))

    def test_a_block_of_some_of_it_does_not(self) -> None:
        for match in (
            "{host: other.example}",
            "{host: 'h.example:80'}",
            "{path: /x}",
            "{path: '/x*'}",
            "{path: {regex: '.*'}}",
            "{method: GET}",
            "{method: [GET, POST]}",
            "{header: {X: y}}",
            "{header: {X: false}}",
            "{content_type: '*'}",
            "{url: 'http://h.example/*'}",
            "{url: 'https://h.example/'}",
            "{url: 'https://h.example/x*'}",
            "{url: 'https://h.example:8443/*'}",
            "{url: {regex: '^https://h'}}",
        ):
            for opaque in (False, True):
                self.assertFalse(self.refused(match, opaque, fields={"X": "y", "Content-Type": "a/b"}), (match, opaque))

    def test_a_tunnel_to_port_80_is_taken_for_http_as_well(self) -> None:
        self.assertTrue(self.refused("{url: 'http://h.example/*'}", port=80))
        self.assertTrue(self.refused("{url: 'https://h.example:80/*'}", port=80))
        self.assertFalse(self.refused("{url: 'http://*'}", port=443))

    def test_the_answer_is_the_rule_s(self) -> None:
        set_ = rules("  - {name: no ads, match: {host: h.example}, block: 451}")
        said = set_.on_connect(request("CONNECT"), Origin("https", "h.example", 443), False)
        assert said is not None
        name, answer = said
        self.assertEqual((name, answer.status, answer.body), ("no ads", 451, b"Blocked by rule 'no ads'.\n"))

    def test_a_rule_that_is_written_for_connect_may_look_at_its_fields(self) -> None:
        for match in ("{method: CONNECT, header: {X: y}}", "{method: [POST, CONNECT], header: {X: y}}"):
            for opaque in (False, True):
                self.assertTrue(self.refused(match, opaque, fields={"x": "y"}), match)
                self.assertFalse(self.refused(match, opaque, fields={"x": "z"}), match)
        self.assertFalse(self.refused("{method: '*', header: {X: y}}", fields={"x": "y"}))

    def test_a_rule_for_connect_alone_that_does_not_hold_ends_nothing(self) -> None:
        set_ = rules("  - {match: {method: CONNECT, header: {X: y}}, block: 403}\n  - {name: all, block: 403}")
        self.assertEqual(connect(set_), "all")

    def test_what_answers_or_redirects_within_never_answers_a_connect(self) -> None:
        for what in ("respond: {text: x}", "redirect_to: 'https://new.example/'", EDIT):
            for opaque in (False, True):
                self.assertIsNone(connect(rules(f"  - {{{what}}}"), opaque=opaque), what)

    def test_a_rule_before_that_might_decide_within_leaves_it_to_the_requests_if_there_will_be_any(self) -> None:
        for before in (
            "match: {path: /ok}, respond: {text: x}",
            "match: {path: /old}, redirect_to: 'http://new/'",
            "match: {path: /x}, block: 404",
            "match: {url: 'https://h.example/x'}, block: 404",
            "match: {url: 'http://h.example:443/x'}, block: 404",
            "match: {url: {regex: x}}, block: 404",
            "match: {header: {X: y}}, block: 404",
        ):
            set_ = rules(f"  - {{{before}}}\n  - {{name: all, block: 403}}")
            self.assertIsNone(connect(set_), before)
            self.assertEqual(connect(set_, opaque=True), "all", before)

    def test_a_rule_before_that_can_decide_nothing_within_is_passed_over(self) -> None:
        for before in (
            EDIT,
            "match: {host: other.example}, respond: {text: x}",
            "match: {url: 'http://other.example/*'}, redirect_to: 'http://new/'",
            "match: {url: 'https://h.example:8443/*'}, respond: {text: x}",
            "match: {method: CONNECT}, respond: {text: x}",
        ):
            set_ = rules(f"  - {{{before}}}\n  - {{name: all, block: 403}}")
            self.assertEqual(connect(set_), "all", before)

    def test_the_first_of_two_blocks_refuses(self) -> None:
        set_ = rules("  - {name: one, match: {host: h.example}, block: 403}\n  - {name: two, block: 404}")
        self.assertEqual((connect(set_), connect(set_, "other.example")), ("one", "two"))

    def test_what_blocks_at_connect_blocks_each_request_within(self) -> None:
        for match in ("{}", "{host: h.example}", "{url: 'https://h.example/*'}", "{path: '/*'}", "{path: '*'}"):
            set_ = rules(f"  - {{match: {match}, block: 403}}")
            self.assertIsNotNone(connect(set_))
            for path in ("/", "/a/b?c", "//x", "/%2e"):
                self.assertIsNotNone(set_.on_request(request(), target(f"https://h.example{path}")).answer, match)


class HasRulesTests(SynchronousTestCase):
    def test_it_tells_whether_a_rule_may_apply_to_some_request_there(self) -> None:
        table = [
            ("{host: h.example}", True),
            ("{host: 'h.example:443'}", True),
            ("{}", True),
            ("{path: /x}", True),
            ("{url: 'https://h.example/x'}", True),
            ("{url: 'http://h.example:443/x'}", True),
            ("{url: '*secret*'}", True),
            ("{url: {regex: x}}", True),
            ("{host: other.example}", False),
            ("{host: 'h.example:8443'}", False),
            ("{url: 'https://other.example/*'}", False),
            ("{url: 'http://h.example/x'}", False),
            ("{method: CONNECT}", False),
        ]
        for match, has in table:
            for what in ("block: 403", EDIT, "response: {stream: true}"):
                set_ = rules(f"  - {{match: {match}, {what}}}")
                self.assertEqual(set_.has_rules_for("h.example", 443), has, (match, what))
        self.assertFalse(rules("  []").has_rules_for("h.example", 443))


class AliasTests(SynchronousTestCase):
    """A tunnel to to.example, in which a request's Host says as.example."""

    def ask(self, text: str, path: str = "/a") -> RequestVerdict:
        return rules(text).on_request(
            request(), target(f"https://to.example{path}"), (Origin("https", "as.example", 443),)
        )

    def test_a_condition_on_host_or_url_holds_if_it_does_for_either(self) -> None:
        table = [
            ("{host: to.example}", True),
            ("{host: as.example}", True),
            ("{host: '*.example'}", True),
            ("{host: other.example}", False),
            ("{host: 'as.example:443'}", True),
            ("{host: 'as.example:80'}", False),
            ("{url: 'https://to.example/*'}", True),
            ("{url: 'https://as.example/*'}", True),
            ("{url: 'https://as.example/b'}", False),
            ("{url: 'http://as.example/*'}", False),
            ("{url: {regex: '//as'}}", True),
            ("{host: to.example, url: 'https://as.example/a'}", True),
            ("{}", True),
        ]
        for match, holds in table:
            verdict = self.ask(f"  - {{match: {match}, block: 403}}")
            self.assertEqual(verdict.answer is not None, holds, match)

    def test_without_an_alias_only_the_target_counts(self) -> None:
        set_ = rules("  - {match: {host: as.example}, block: 403}\n  - {match: {url: '*as.example*'}, block: 403}")
        self.assertIsNone(set_.on_request(request(), target("https://to.example/a")).answer)

    def test_rules_of_both_keep_the_order_of_the_file_and_apply_once(self) -> None:
        hosts = ["as.example", "to.example", "'*'", "other", "[to.example, as.example]", "as.example"]
        text = "".join(f"  - {{name: r{n}, match: {{host: {host}}}, {EDIT}}}\n" for n, host in enumerate(hosts))
        for _ in range(2):  # the second time from what was kept
            self.assertEqual(self.ask(text).rules, ("r0", "r1", "r2", "r4", "r5"))

    def test_a_request_goes_where_its_tunnel_does(self) -> None:
        verdict = self.ask(f"  - {{match: {{host: as.example}}, {EDIT}}}", "/a?b")
        self.assertEqual((verdict.target, verdict.redirected), (target("https://to.example/a?b"), False))

    def test_what_a_star_stood_for_is_that_of_the_form_that_matched(self) -> None:
        table = [
            ("url: 'https://as.example/*'", "/a/b?q", "https://new/p/a/b?q"),
            ("url: 'https://to.example/*'", "/a/b?q", "https://new/p/a/b?q"),
            ("url: 'https://as.example/a/*'", "/a/b?q", "https://new/p/b?q"),
            ("url: 'https://as.example/a/*'", "/%61/b|c?q", "https://new/p/b%7Cc?q"),
            ("url: 'https://as.example/a/*'", "/a/b|c?q", "https://new/p/b|c?q"),
            ("url: 'https://*.example/a/*'", "/a/b?%71", "https://new/p/b?%71"),
            ("host: as.example", "/a/b?q", "https://new/p/a/b?q"),
        ]
        for match, path, goes in table:
            verdict = self.ask(f"  - {{match: {{{match}}}, redirect_to: 'https://new/p/'}}", path)
            self.assertEqual((verdict.target, verdict.redirected), (target(goes), True), (match, path))

    def test_a_folder_is_served_by_the_path_whichever_matched(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        answer = self.ask(
            f"  - {{match: {{host: as.example, path: '/s/*'}}, respond: {{file: {folder}}}}}", "/s/x"
        ).answer
        assert answer is not None
        self.assertEqual(answer.tail, "x")


class HttpsTests(SynchronousTestCase):
    def test_an_url_pattern_matches_https_with_its_port_left_out_or_written(self) -> None:
        for pattern in ("https://h.example/*", "https://h.example:443/*", "*://h.example/*"):
            set_ = rules(f"  - {{match: {{url: '{pattern}'}}, block: 403}}")
            self.assertIsNotNone(set_.on_request(request(), target("https://h.example/x")).answer, pattern)
            self.assertIsNone(set_.on_request(request(), target("https://h.example:8443/x")).answer, pattern)

    def test_a_host_with_a_port_tells_https_from_http(self) -> None:
        set_ = rules("  - {match: {host: 'h.example:443'}, block: 403}")
        self.assertIsNotNone(set_.on_request(request(), target("https://h.example/")).answer)
        self.assertIsNone(set_.on_request(request(), target("http://h.example/")).answer)

    def test_a_redirect_crosses_over_both_ways(self) -> None:
        table = [
            ("http://h.example/*", "https://new.example/", "http://h.example/a?b", "https://new.example/a?b"),
            ("https://h.example/*", "http://new.example:81/", "https://h.example/a", "http://new.example:81/a"),
            ("https://h.example/*", "https://new.example:8443/", "https://h.example/a", "https://new.example:8443/a"),
        ]
        for match, to, url, goes in table:
            set_ = rules(f"  - {{match: {{url: '{match}'}}, redirect_to: '{to}'}}")
            self.assertEqual(set_.on_request(request(), target(url)).target, target(goes))
