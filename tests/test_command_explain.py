"""`streamproxy explain`: that it tells what the proxy does, of requests, responses, tunnels and WebSockets."""

import json
import os
import socket

from tests.test_command import CommandTestCase

RULES = """
rules:
  - {name: no ads, match: {host: "*.ads.example"}, block: 403}
  - {name: mock, match: {host: mock.example}, respond: {headers: {X-A: b}, text: hello}}
  - {name: moved, match: {url: "http://old.example/*"}, redirect_to: "https://new.example/x/"}
  - name: api
    match: {host: api.example, path: "/v1/*", method: [POST, PUT], header: {X-Team: "blue*", X-Not: false}}
    request:
      headers: {remove: [Cookie], set: {X-Proxy: "on"}, add: {X-Seen: [a, b]}}
      replace: [{find: foo, with: bar}, {regex: "a+", with: b}]
      capture: {limit: 1k, to: files}
    response: {stream: false, pace: {rate: 64k, delay: 0.5}, fault: {after: {events: 3}, action: cut}}
  - {name: html, match: {content_type: "text/html*"}, response: {headers: {remove: [Server]}}}
"""


class ExplainCase(CommandTestCase):
    def explain(self, *arguments, config=RULES):
        """What is told as JSON."""
        path = self.write("rules.yaml", config)
        status, out, err = self.run_it("explain", "-c", path, "--json", *arguments)
        self.assertEqual((status, err), (0, ""), err)
        return json.loads(out)

    def text(self, *arguments, config=RULES):
        """What is told to people."""
        status, out, err = self.run_it("explain", "-c", self.write("rules.yaml", config), *arguments)
        self.assertEqual((status, err), (0, ""), err)
        return out.decode()

    def applied(self, told, side):
        return [rule["name"] for rule in told["rules"] if rule[side]]


class OutcomeTests(ExplainCase):
    def test_a_request_that_is_blocked(self):
        told = self.explain("GET", "http://x.ads.example/")
        self.assertEqual((told["outcome"], told["status"], told["why"]), ("refused", 403, "rule no ads"))
        self.assertNotIn("goes_to", told)
        self.assertNotIn("response", told)

    def test_a_request_that_is_answered(self):
        told = self.explain("GET", "http://mock.example/")
        self.assertEqual((told["outcome"], told["status"], told["body"]), ("answered", 200, "hello"))
        self.assertIn(["X-A", "b"], told["fields"])

    def test_a_request_that_is_redirected(self):
        told = self.explain("GET", "http://old.example/a?b")
        self.assertEqual((told["outcome"], told["redirected"]), ("forwarded", True))
        self.assertEqual(told["goes_to"], "https://new.example/x/a?b")
        self.assertTrue(told["verified"])

    def test_a_request_that_no_rule_is_for(self):
        told = self.explain("GET", "http://other.example/", "--response", "200 image/png 10")
        self.assertEqual((told["outcome"], told["goes_to"]), ("forwarded", "http://other.example/"))
        self.assertEqual((self.applied(told, "request"), self.applied(told, "response")), ([], []))

    def test_a_body_that_is_too_large(self):
        told = self.explain("-d", "2k", "POST", "http://x.example/", config="limits: {body: 1k}")
        self.assertEqual((told["outcome"], told["status"]), ("refused", 413))
        self.assertEqual(told["request"]["body"]["largest"], 1024)

    def test_the_proxys_own_page(self):
        told = self.explain("GET", "http://streamproxy.test/")
        self.assertEqual((told["outcome"], told["why"]), ("answered", "the proxy's own page about its CA"))

    def test_what_the_proxy_does_not_take_is_an_error(self):
        self.refused("explain", "GET", "/x", words="the proxy would answer 400: this is a proxy")
        self.refused("explain", "GET", "ftp://a.example/", words="the proxy would answer 501")
        self.refused("explain", "-H", "A b: c", "GET", "http://a.example/", words="the proxy would answer 400")
        self.refused("explain", "-H", "Host: b", "-H", "Host: c", "GET", "http://a/", words="400: several Host fields")
        self.refused("explain", "-H", "nonsense", "GET", "http://a/", words="expected a field such as")
        self.refused("explain", "-d", "x", "GET", "http://a/", words="expected a size, such as 64k, or chunked")
        self.refused("explain", "--response", "x", "GET", "http://a/", words="--response 'x': ")
        self.refused("explain", "--response", "100", "GET", "http://a/", words="expected a final response")


class RuleTests(ExplainCase):
    ASKED = ("-H", "X-Team: blue 1", "-d", "10k", "--type", "text/plain", "POST", "http://api.example/v1/x")

    def test_rules_that_apply_are_told_for_each_side_in_order(self):
        told = self.explain(*self.ASKED)
        self.assertEqual(self.applied(told, "request"), ["api"])
        (api,) = [each for each in told["rules"] if each["name"] == "api"]
        self.assertEqual([each["holds"] for each in api["conditions"]], [True] * 5)
        # What is assumed is an HTML page.
        self.assertEqual(self.applied(told, "response"), ["api", "html"])
        self.assertTrue(told["response"]["assumed"])

    def test_why_a_rule_does_not_apply(self):
        told = self.explain("GET", "http://api.example/v2/x?q")
        (rule,) = [each for each in told["rules"] if each["name"] == "api"]
        found = {each["key"]: (each["wanted"], each["found"], each["holds"]) for each in rule["conditions"]}
        self.assertEqual(
            found,
            {
                "match.host": (["api.example"], "api.example:80", True),
                "match.method": (["POST", "PUT"], "GET", False),
                "match.path": (["/v1/*"], "/v2/x", False),
                "match.header.x-team": (["blue*"], "absent", False),
                "match.header.x-not": (["absent"], "absent", True),
            },
        )

    def test_a_rule_that_comes_too_late_is_told(self):
        config = """
rules:
  - {name: first, redirect_to: "http://a.example/"}
  - {name: second, redirect_to: "http://b.example/"}
  - {name: third, match: {path: /x}, block: 403}
  - {name: fourth, block: 404}
"""
        told = self.explain("GET", "http://c.example/", config=config)
        late = "would decide, but a rule before it redirects"
        self.assertEqual([rule.get("note") for rule in told["rules"]], [None, late, None, late])
        config = "rules: [{name: zeroth, block: 403}, {name: first, block: 404}]"
        told = self.explain("GET", "http://c.example/", config=config)
        self.assertEqual([rule.get("note") for rule in told["rules"]], [None, "would apply, but rule zeroth answers"])

    def test_the_fields_are_edited_as_told(self):
        self.assertEqual(
            self.explain(*self.ASKED)["request"]["edits"],
            [
                {"edit": "remove", "name": "cookie"},
                {"edit": "set", "name": "X-Proxy", "value": "on"},
                {"edit": "add", "name": "X-Seen", "value": "a"},
                {"edit": "add", "name": "X-Seen", "value": "b"},
            ],
        )

    def test_the_stages_of_a_body_are_told_in_their_order(self):
        told = self.explain("-H", "Content-Encoding: gzip, br", *self.ASKED)
        body = told["request"]["body"]
        self.assertEqual((body["how"], body["why"], body["length"]), ("streamed", "nothing wants it whole", 10240))
        stages = [each["stage"] for each in body["stages"]]
        self.assertEqual(stages, ["capture", "decode", "replace", "replace", "encode"])
        self.assertEqual(body["stages"][0], {"stage": "capture", "limit": 1024, "to": "files"})
        self.assertEqual(body["stages"][1]["codings"], ["br", "gzip"])
        self.assertEqual(body["stages"][3]["regex"], "a+")
        self.assertEqual(body["stages"][4]["codings"], ["gzip", "br"])

    def test_how_a_response_goes_is_told(self):
        told = self.explain("--response", "200 text/event-stream chunked", *self.ASKED)["response"]
        body = told["body"]
        self.assertEqual((body["how"], body["why"], body["limit"]), ("held", "rule api", 8 << 20))
        self.assertEqual([each["stage"] for each in body["stages"]], ["fault", "pace"])
        self.assertEqual(body["stages"][0]["after"], {"events": 3})
        self.assertEqual(body["stages"][1], {"stage": "pace", "rate": 65536, "delay": 0.5})

    def test_the_size_of_a_response_counts(self):
        config = "stream_large_bodies: 1k\nhold: always\n"
        for size, how, why in (("1k", "held", "hold: always"), ("2k", "streamed", "larger than stream_large_bodies")):
            body = self.explain("--response", f"200 a/b {size}", "GET", "http://a/", config=config)["response"]["body"]
            self.assertEqual((body["how"], body["why"]), (how, why))
        body = self.explain("--response", "200 a/b chunked", "GET", "http://a/", config=config)["response"]["body"]
        self.assertEqual((body["how"], body["streams_past"]), ("held", 1024))

    def test_a_rule_that_cannot_be_carried_out_on_a_response_is_told(self):
        config = "rules: [{name: r, response: {replace: {find: a, with: b}}}]"
        coded = ("--response", "200 text/plain 10", "--response-header", "Content-Encoding: odd")
        told = self.explain(*coded, "GET", "http://a.example/", config=config)
        self.assertIn("odd", told["response"]["refused"])

    def test_scripts_that_have_a_say_are_told(self):
        self.write("s.py", "print('loading')\ndef response(flow): pass\n")
        path = self.write("c.yaml", "scripts: [s.py]\n")
        status, out, err = self.run_it("explain", "-c", path, "--json", "GET", "http://a.example/")
        self.assertEqual((status, err), (0, "loading\n"))
        told = json.loads(out)
        self.assertEqual(told["scripts"], ["response"])
        self.assertEqual(told["response"]["body"]["why"], "script s.py:response")


class TunnelTests(ExplainCase):
    def test_https_is_intercepted_and_rules_apply_within(self):
        told = self.explain("GET", "https://mock.example/")
        self.assertEqual((told["tunnel"]["outcome"], told["outcome"]), ("intercepted", "answered"))

    def test_what_is_passed_through_is_not_read(self):
        config = 'tls: {passthrough: ["*.bank.example", "10.0.0.0/8"]}\n' + RULES
        told = self.explain("GET", "https://www.bank.example/", config=config)
        self.assertEqual((told["outcome"], told["why"]), ("tunnelled", "tls.passthrough: *.bank.example"))
        self.assertNotIn("rules", told)
        self.assertFalse(told["tunnel"]["addresses_may_change_that"])
        told = self.explain("GET", "https://other.example/", config=config)
        self.assertEqual((told["outcome"], told["tunnel"]["addresses_may_change_that"]), ("forwarded", True))

    def test_a_tunnel_that_a_rule_blocks(self):
        told = self.explain("CONNECT", "x.ads.example:443")
        self.assertEqual((told["outcome"], told["why"]), ("refused", "rule no ads blocks all of it"))
        told = self.explain("GET", "https://x.ads.example/", config="tls: {intercept: false}\n" + RULES)
        self.assertEqual(told["outcome"], "refused")

    def test_a_rule_within_a_tunnel_that_nobody_reads_does_not_keep_another_from_blocking_it(self):
        config = "rules: [{match: {host: x, path: /a}, respond: {text: x}}, {name: all, match: {host: x}, block: 403}]"
        self.assertEqual(self.explain("CONNECT", "x:443", config=config)["outcome"], "intercepted")
        told = self.explain("CONNECT", "x:443", config="tls: {intercept: false}\n" + config)
        self.assertEqual((told["outcome"], told["why"]), ("refused", "rule all blocks all of it"))

    def test_an_address_of_ipv6(self):
        self.assertEqual(self.explain("GET", "https://[2001:db8::1]/")["tunnel"]["origin"], "[2001:db8::1]:443")
        self.assertEqual(self.explain("CONNECT", "[::1]:8443")["tunnel"]["origin"], "[::1]:8443")


class AccessTests(ExplainCase):
    def test_what_can_be_told_of_a_host_by_its_name(self):
        config = 'access: {origins: {allow: ["*.example", "192.0.2.0/24"], deny: [bad.example, "10.0.0.0/8"]}}'
        for url, refusal, open_to_change in (
            ("http://a.example/", None, True),
            ("http://bad.example/", "access.origins.deny: bad.example", False),
            ("http://10.1.2.3/", "access.origins.deny: 10.0.0.0/8", False),
            ("http://0xa010203/", "access.origins.deny: 10.0.0.0/8", False),
            ("http://192.0.2.9/", None, False),
            ("http://192.0.3.9/", "access.origins.allow: not listed", False),
            ("http://other.test/", None, True),
        ):
            told = self.explain("GET", url, config=config)
            found = told["access"]["refusal"], told["access"]["addresses_may_change_that"]
            self.assertEqual(found, (refusal, open_to_change), url)
            self.assertEqual(told["outcome"], "forwarded" if refusal is None else "refused", url)
        config = 'access: {origins: {allow: ["*.example"], deny: []}}'
        told = self.explain("GET", "http://other.test/", config=config)
        self.assertEqual(told["access"]["refusal"], "access.origins.allow: not listed")
        self.assertFalse(self.explain("GET", "http://a.example/", config=config)["access"]["addresses_may_change_that"])

    def test_over_https_a_denied_origin_is_refused_before_any_rule_has_a_say(self):
        config = "access: {origins: {deny: [bad.example]}}\nrules: [{respond: {text: hello}}]"
        told = self.explain("GET", "https://bad.example/", config=config)
        self.assertEqual((told["outcome"], told["tunnel"]["status"]), ("refused", 403))
        self.assertEqual(self.explain("GET", "http://bad.example/", config=config)["outcome"], "answered")

    def test_the_proxys_own_page_is_refused_over_https_where_a_rule_blocks_its_host(self):
        told = self.explain("GET", "https://streamproxy.test/", config="rules: [{block: 404}]")
        self.assertEqual((told["outcome"], told["tunnel"]["status"]), ("refused", 404))


class WebSocketTests(ExplainCase):
    CONFIG = """
rules:
  - name: chat
    match: {host: chat.example}
    websocket: {messages: [{from: client, type: text, find: a, with: b}, {from: origin, regex: "c+", drop: true}]}
"""

    def test_what_is_done_to_messages(self):
        told = self.explain("GET", "ws://chat.example/", config=self.CONFIG)
        self.assertEqual(told["url"], "http://chat.example/")
        self.assertEqual((told["websocket"]["mode"], told["websocket"]["why"]), ("messages", "default"))
        self.assertEqual(
            told["websocket"]["messages"],
            [
                {"rule": "chat", "action": "replace", "from": "client", "type": "text", "find": "a", "with": "b"},
                {"rule": "chat", "action": "drop", "from": "origin", "regex": "c+"},
            ],
        )
        self.assertEqual(told["response"]["status"], 101)

    def test_one_that_rules_can_not_be_carried_out_on(self):
        told = self.explain("GET", "wss://chat.example/", config="stream_websockets: true\n" + self.CONFIG)
        self.assertEqual((told["outcome"], told["status"]), ("failed", 502))
        self.assertIn("streams", told["why"])

    def test_a_handshake_that_a_rule_spoils(self):
        config = "rules: [{request: {headers: {set: {Sec-WebSocket-Version: '8'}}}}]"
        told = self.explain("GET", "ws://chat.example/", config=config)
        self.assertEqual((told["outcome"], told["status"]), ("malformed", 426))

    def test_a_handshake_that_is_none(self):
        told = self.explain("-H", "Sec-WebSocket-Version: 8", "GET", "ws://chat.example/", config=self.CONFIG)
        self.assertEqual((told["outcome"], told["status"]), ("malformed", 426))


class TextTests(ExplainCase):
    def test_it_tells_rules_that_apply_and_with_all_the_others(self):
        asked = RuleTests.ASKED
        text = self.text(*asked)
        self.assertIn("rules: 2 of 5 apply", text)
        self.assertIn("  4. api: applies to the request and response\n", text)
        self.assertIn("match.header.x-team holds: blue 1 for blue*", text)
        self.assertNotIn("no ads", text)
        text = self.text("--all", *asked)
        self.assertIn(
            "  1. no ads: does not apply\n     match.host does NOT hold: api.example:80 for *.ads.example", text
        )

    def test_each_kind_of_outcome_is_told(self):
        for arguments, words in (
            (("GET", "http://mock.example/"), "answered: 200, rule mock, 5 bytes"),
            (("GET", "http://x.ads.example/"), "refused: 403, rule no ads"),
            (("GET", "http://old.example/a"), "forwarded: redirect_to\n  to https://new.example/x/a"),
            (("CONNECT", "a.example:443"), "intercepted: tls.intercept: true"),
            (("GET", "http://169.254.169.254/"), "refused: 403, access.origins.deny: 169.254.0.0/16"),
            (("GET", "http://streamproxy.test/"), "answered: the proxy's own page"),
            (("GET", "ws://chat.example/"), "websocket: messages (default)"),
            (("-H", "Connection: upgrade", "-H", "Upgrade: x", "GET", "http://a.example/"), "upgrade to x"),
            (("-d", "chunked", "POST", "http://a.example/"), "body: streamed (nothing wants it whole), of unknown"),
        ):
            self.assertIn(words, self.text(*arguments), arguments)

    def test_nothing_in_it_speaks_to_a_terminal(self):
        text = self.text("-H", "X-Team: \u202e\u2028", "--all", "GET", "http://api.example/v1/")
        self.assertTrue(text.replace("\n", "").isprintable())

    def test_nothing_is_looked_up_opened_or_made(self):
        def never(*each, **more):
            raise AssertionError("a socket")

        self.patch(socket, "socket", never)
        self.patch(socket, "getaddrinfo", never)
        self.text("GET", "https://a.example/")
        self.assertEqual(sorted(os.listdir(self.folder)), ["rules.yaml", "system.pem"])
