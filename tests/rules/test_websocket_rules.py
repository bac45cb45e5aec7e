"""What rules say about WebSockets: how they go, and what is done to their messages."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.match import url_pattern
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.verdict import MessageRule, MessageWork, RequestVerdict, ResponseVerdict
from streamproxy.settings import ConfigurationError, Settings, load
from streamproxy.wire.message import NO_BODY, Origin, ResponseHead
from tests.rules.asking import ask, request, response, rule_set, rules, target
from tests.rules.reading import errors, read

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}
REPLACE = {"replace": [{"find": "a", "with": "b"}]}


def handshake(**fields: str) -> Any:
    return request("GET", {**UPGRADE, **fields})


def switched(fields: dict[str, str] | None = None) -> ResponseHead:
    return response(101, {**UPGRADE, **(fields or {})}, NO_BODY)


def conversation(set_: RuleSet, fields: dict[str, str], answer: ResponseHead) -> tuple[RequestVerdict, ResponseVerdict]:
    head = handshake(**fields)
    verdict = set_.on_request(head, target("http://h.example/"))
    return verdict, set_.on_response(verdict, head, answer)


class ReadTests(SynchronousTestCase):
    def test_what_is_done_to_messages_is_read_in_its_order(self) -> None:
        verdict = ask(
            rules(
                "  - name: r\n"
                "    websocket:\n"
                "      messages:\n"
                '        - {from: client, find: "sk-", drop: true}\n'
                '        - {from: origin, type: text, regex: "ad:.*", with: "***"}\n'
                '        - {from: client, type: binary, find: "ping-app", respond: "pong-app"}\n'
                "        - {respond: ''}\n"
                "        - {find: ü, with: ''}\n"
            ),
            head=handshake(),
        )
        expected = (
            MessageRule("r", "drop", True, None, b"sk-", None, b""),
            MessageRule("r", "replace", False, True, b"", "ad:.*", b"***"),
            MessageRule("r", "respond", True, False, b"ping-app", None, b"pong-app"),
            MessageRule("r", "respond", None, None, b"", None, b""),
            MessageRule("r", "replace", None, None, "ü".encode(), None, b""),
        )
        self.assertEqual(verdict.websocket, MessageWork(False, "default", expected))
        self.assertEqual(verdict.rules, ("r",))

    def test_one_message_rule_needs_no_list(self) -> None:
        (rule,) = read("rules: [{websocket: {messages: {drop: true}}}]").rules
        self.assertEqual([each.drop for each in rule.websocket.messages], [True])

    def test_the_settings_are_read_and_have_their_defaults(self) -> None:
        found = read("stream_websockets: true\nlimits: {websocket_message: 2k}")
        self.assertEqual((found.stream_websockets, found.limits.websocket_message), (True, 2048))
        self.assertEqual((read("").stream_websockets, read("").limits.websocket_message), (False, 16 << 20))

    def test_null_is_the_same_as_left_out(self) -> None:
        text = "rules: [{websocket: {stream: , messages: {from: , type: , find: , regex: , with: , drop: true}}}]"
        self.assertEqual(read(text), read("rules: [{websocket: {messages: {drop: true}}}]"))


class ErrorTests(SynchronousTestCase):
    """Each text has a ^ where the error is."""

    def check(self, around: str, where: str, table: list[tuple[str, str]]) -> None:
        for marked, words in table:
            text = f"rules: [{{{around % marked}}}]"
            column = text.index("^") + 1
            self.assertEqual(errors(text.replace("^", "")), [f"1:{column}: rules[0]{where}{words}"], marked)

    def test_each_message_rule_does_one_thing(self) -> None:
        one = "expected true, got"
        text = "expected text of"
        table = [
            ("^{find: x}", ": does nothing; give it with, drop or respond"),
            ("^{}", ": does nothing; give it with, drop or respond"),
            ("{find: x, drop: ^false}", f".drop: {one} false"),
            ("{find: x, drop: ^'true'}", f".drop: {one} 'true'"),
            ("{find: x, with: y, drop: ^true}", ".drop: a message can't be given both with and drop"),
            ("{drop: true, respond: ^y}", ".respond: a message can't be given both drop and respond"),
            ("{find: x, with: y, respond: ^z}", ".respond: a message can't be given both with and respond"),
            ("^{with: x}", ": needs the key 'find'"),
            ("^{find: x, regex: y, drop: true}", ": find and regex exclude each other"),
            ("{from: ^server, drop: true}", ".from: expected client or origin, got 'server'"),
            ("{type: ^ping, drop: true}", ".type: expected text or binary, got 'ping'"),
            ("{find: ^'', drop: true}", f".find: {text} 1 to 4096 bytes, got ''"),
            ("{find: x, with: ^[y]}", ".with: expected text, got a list"),
            (f"{{respond: ^{'x' * 65537}}}", f".respond: {text} 65536 bytes at the most, got '{'x' * 57}...'"),
            ("{^form: client, drop: true}", ": unknown key 'form'; did you mean 'from'?"),
            ("{^fault: {}}", ": unknown key 'fault'; it belongs under 'rules.request'"),
            ("^drop", ": expected a mapping, got 'drop'"),
        ]
        self.check("websocket: {messages: [%s]}", ".websocket.messages[0]", table)

    def test_one_that_is_no_list_is_told_by_its_own_place(self) -> None:
        table = [
            ("^{with: x}", ": needs the key 'find'"),
            ("^{find: x}", ": does nothing; give it with, drop or respond"),
        ]
        self.check("websocket: {messages: %s}", ".websocket.messages", table)

    def test_messages_of_a_websocket_that_streams_can_t_be_changed(self) -> None:
        words = "messages of a WebSocket that streams can't be changed"
        self.check(
            "%s",
            ".websocket",
            [
                ("websocket: {stream: true, messages: ^[{drop: true}]}", f".messages: {words}"),
                (
                    "request: {replace: {find: a, with: b}}, websocket: {stream: ^true}",
                    f".stream: {words}, which request.replace is to do",
                ),
                (
                    "websocket: {stream: ^true}, response: {replace: {find: a, with: b}}",
                    f".stream: {words}, which response.replace is to do",
                ),
            ],
        )
        for fine in ("stream: true", "stream: true, messages: []", "stream: false, messages: {drop: true}"):
            self.assertEqual(errors(f"rules: [{{websocket: {{{fine}}}}}]"), [])

    def test_the_section_s_own_keys(self) -> None:
        self.check(
            "%s",
            "",
            [
                ("websocket: {stream: ^yes}", ".websocket.stream: expected true or false, got 'yes'"),
                ("websocket: {^mesages: [x]}", ".websocket: unknown key 'mesages'; did you mean 'messages'?"),
                ("websocket: ^true", ".websocket: expected a mapping, got true"),
                ("^websockets: {stream: true}", ": unknown key 'websockets'; did you mean 'websocket'?"),
                (
                    "block: 403, websocket: ^{stream: true}",
                    ".websocket: a rule that says block doesn't forward, so it has no websocket to change",
                ),
            ],
        )
        (line,) = errors("rules: [{websocket: {}}]")
        self.assertIn("does nothing; give it request, response, websocket, block", line)


class LoadTests(SynchronousTestCase):
    def load(self, text: str, *overrides: str) -> Settings:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            try:
                return load(file.name, overrides)
            except ConfigurationError as error:
                self.lines = [line.removeprefix(str(Path(file.name))) for line in error.lines]
                raise

    def test_the_settings_reach_who_needs_them(self) -> None:
        found = self.load("limits: {websocket_message: 1k}", "stream_websockets=true")
        self.assertEqual((found.limits.websocket_message, found.rules.streaming.websockets), (1024, True))
        self.assertEqual(
            (Settings().limits.websocket_message, Settings().rules.streaming.websockets), (16 << 20, False)
        )

    def test_regexes_and_templates_are_checked_as_those_of_bodies_are(self) -> None:
        table = [
            ("[{regex: ^'a(', drop: true}]", "[0].regex: missing )"),
            ("{regex: ^'a(', respond: x}", ".regex: missing )"),
            ("[{drop: true, find: x}, {regex: ^'a*', drop: true}]", "[1].regex: "),
            ("[{regex: 'a', with: ^'\\1'}]", "[0].with: there is no group 1: the regex has 0"),
        ]
        for messages, words in table:
            text = f"rules: [{{websocket: {{messages: {messages}}}}}]"
            with self.assertRaises(ConfigurationError):
                self.load(text.replace("^", ""))
            (line,) = self.lines
            self.assertTrue(
                line.startswith(f":1:{text.index('^') + 1}: rules[0].websocket.messages{words}"), (messages, line)
            )

    def test_what_is_answered_is_no_template(self) -> None:
        found = self.load("rules: [{websocket: {messages: {regex: 'a(.)', respond: '\\1\\q'}}}]")
        work = ask(found.rules, head=handshake()).websocket
        assert work is not None
        self.assertEqual(work.rules[0].put, b"\\1\\q")


class RequestTests(SynchronousTestCase):
    def test_only_a_request_for_a_websocket_has_something_done_to_messages(self) -> None:
        set_ = rule_set([{"websocket": {"messages": [{"drop": True}]}}, {"request": REPLACE}])
        others = ("h2c", "websockets", "h2c, websocket", "")
        asking = [{"Connection": "Upgrade", "Upgrade": value} for value in others]
        for fields in ({}, {"Upgrade": "websocket"}, {"Connection": "Upgrade"}, *asking):
            verdict = ask(set_, head=request("GET", fields))
            self.assertEqual((verdict.websocket, verdict.rules, verdict.matched), (None, (), ()), fields)
        for value in ("websocket", "WebSocket"):
            verdict = ask(set_, head=request("GET", {"Connection": "Upgrade", "Upgrade": value}))
            assert verdict.websocket is not None
            self.assertEqual(len(verdict.websocket.rules), 2)

    def test_without_rules_the_setting_decides(self) -> None:
        for text in ("  []", "  - {match: {host: other.example}, block: 403}", "  - {request: {stream: true}}"):
            self.assertEqual(ask(rules(text), head=handshake()).websocket, MessageWork(False, "default"))
            found = ask(rules(text, websockets=True), head=handshake()).websocket
            self.assertEqual(found, MessageWork(True, "stream_websockets"))

    def test_the_first_word_on_streaming_decides(self) -> None:
        set_ = rules(
            "  - {name: a, match: {path: /x}, websocket: {stream: true}}\n"
            "  - {name: b, websocket: {stream: false}}\n"
            "  - {name: c, websocket: {stream: true}}\n",
            websockets=True,
        )
        verdict = ask(set_, "http://h/x", handshake())
        self.assertEqual((verdict.websocket, verdict.rules), (MessageWork(True, "rule a"), ("a",)))
        verdict = ask(set_, "http://h/y", handshake())
        self.assertEqual((verdict.websocket, verdict.rules), (MessageWork(False, "rule b"), ("b",)))

    def test_replacements_in_bodies_are_done_to_messages_of_their_direction(self) -> None:
        set_ = rules(
            "  - {name: a, response: {replace: {regex: x+, with: y}}, request: {replace: {find: c, with: d}}}\n"
            "  - {name: b, websocket: {messages: {drop: true}}}\n"
        )
        verdict = ask(set_, head=handshake())
        assert verdict.websocket is not None
        self.assertEqual(
            verdict.websocket.rules,
            (
                MessageRule("a", "replace", True, None, b"c", None, b"d", 0),
                MessageRule("a", "replace", False, None, b"", "x+", b"y", 0),
                MessageRule("b", "drop", None, None, b"", None, b"", 1),
            ),
        )
        self.assertEqual((verdict.rules, verdict.work.replacements), (("a", "b"), ()))

    def test_a_rule_s_message_rules_come_before_its_replacements(self) -> None:
        set_ = rule_set([{"request": REPLACE, "websocket": {"messages": {"drop": True}}, "response": REPLACE}])
        work = ask(set_, head=handshake()).websocket
        assert work is not None
        self.assertEqual([each.action for each in work.rules], ["drop", "replace", "replace"])

    def test_a_request_that_goes_nowhere_gets_no_websocket(self) -> None:
        set_ = rule_set([{"websocket": {"messages": {"drop": True}}}, {"block": 403}])
        verdict = ask(set_, head=handshake())
        self.assertEqual((verdict.websocket, verdict.rules), (None, ("rules[1]",)))

    def test_what_can_t_be_done_to_a_stream_is_told_in_words(self) -> None:
        change: dict[str, Any] = {"name": "keys", "request": REPLACE}
        words = "rule 'keys' can't change the messages of a WebSocket that streams (rule quick)"
        for given_, unreadable in (
            ([change], None),
            ([{"name": "quick", "websocket": {"stream": True}}], None),
            ([change, {"name": "quick", "websocket": {"stream": True}}], words),
        ):
            work = ask(rule_set(given_), head=handshake()).websocket
            assert work is not None
            self.assertEqual(work.unreadable, unreadable)


class ResponseTests(SynchronousTestCase):
    def test_what_was_said_on_the_request_isn_t_said_again(self) -> None:
        set_ = rule_set([{"request": REPLACE, "response": REPLACE, "websocket": {"messages": {"drop": True}}}])
        verdict, said = conversation(set_, {}, switched())
        assert verdict.websocket is not None
        self.assertEqual(len(verdict.websocket.rules), 3)
        self.assertEqual((said.websocket, said.rules, said.work.replacements, said.refused), ((), (), (), None))

    def test_conditions_that_the_101_meets_add_what_waited_for_them(self) -> None:
        match = {"header": {"Sec-WebSocket-Protocol": "mqtt"}}
        change = {"request": REPLACE, "response": REPLACE, "websocket": {"messages": {"drop": True}}}
        set_ = rule_set([{"match": match, **change}, {"websocket": {"messages": {"respond": "x"}}}])
        verdict, said = conversation(set_, {}, switched({"Sec-WebSocket-Protocol": "mqtt"}))
        assert verdict.websocket is not None
        self.assertEqual([each.action for each in verdict.websocket.rules], ["respond"])
        # What is replaced in requests is told by the request's head alone, as it is for bodies.
        self.assertEqual(
            [(each.action, each.from_client) for each in said.websocket], [("drop", None), ("replace", False)]
        )
        self.assertEqual(said.rules, ("rules[0]",))
        joined = verdict.websocket.adding(said.websocket)
        self.assertEqual([each.action for each in joined.rules], ["drop", "replace", "respond"])

        _, said = conversation(set_, {}, switched({"Sec-WebSocket-Protocol": "wamp"}))
        self.assertEqual((said.websocket, said.rules), ((), ()))
        verdict, said = conversation(set_, {"Sec-WebSocket-Protocol": "mqtt"}, switched())
        assert verdict.websocket is not None
        self.assertEqual((len(verdict.websocket.rules), said.websocket), (4, ()))

    def test_a_field_that_must_be_absent_keeps_replacements_of_responses_waiting(self) -> None:
        match = {"header": {"X-Raw": False}}
        set_ = rule_set([{"match": match, "request": REPLACE, "response": REPLACE}])
        verdict, said = conversation(set_, {}, switched())
        assert verdict.websocket is not None
        self.assertEqual([each.from_client for each in verdict.websocket.rules], [True])
        self.assertEqual([each.from_client for each in said.websocket], [False])
        _, said = conversation(set_, {}, switched({"X-Raw": "1"}))
        self.assertEqual(said.websocket, ())
        verdict, said = conversation(set_, {"X-Raw": "1"}, switched())
        self.assertEqual((verdict.websocket, said.websocket), (MessageWork(False, "default"), ()))

    def test_an_answer_that_is_no_101_adds_nothing_and_is_changed_as_any(self) -> None:
        set_ = rule_set([{"match": {"header": {"Server": "x"}}, "response": REPLACE}])
        _, said = conversation(set_, {}, response(200, {"Server": "x"}))
        self.assertEqual((said.websocket, len(said.work.replacements)), ((), 1))

    def test_a_late_change_to_a_stream_is_refused(self) -> None:
        late = {"name": "late", "match": {"header": {"Server": "x"}}, "response": REPLACE}
        set_ = rule_set([{"name": "quick", "websocket": {"stream": True}}, late])
        _, said = conversation(set_, {}, switched({"Server": "x"}))
        self.assertEqual(said.refused, "rule 'late' can't change the messages of a WebSocket that streams (rule quick)")
        _, said = conversation(set_, {}, switched())
        self.assertIsNone(said.refused)

    def test_a_late_word_on_streaming_is_refused_unless_it_changes_nothing(self) -> None:
        words = "rule 'late' can't decide how a WebSocket goes: only the response's head tells that the rule applies"
        late: dict[str, Any] = {"name": "late", "match": {"header": {"Server": "x"}}}
        first = {"name": "first", "websocket": {"stream": False}}
        for streams, before, refused in (
            (True, [], words),
            (False, [], None),
            (True, [first], None),
        ):
            set_ = rule_set([*before, {**late, "websocket": {"stream": streams}}])
            verdict, said = conversation(set_, {}, switched({"Server": "x"}))
            self.assertEqual((said.refused, said.rules), (refused, ()), (streams, before))
            assert verdict.websocket is not None
            self.assertFalse(verdict.websocket.streams)
        # Written before it, its word would have been the first.
        set_ = rule_set([{**late, "websocket": {"stream": True}}, first])
        self.assertEqual(conversation(set_, {}, switched({"Server": "x"}))[1].refused, words)


TESTS = st.sampled_from([{}, {"A": True}, {"A": False}, {"B": True}, {"B": False}, {"A": True, "B": False}])
RULES = st.lists(
    st.fixed_dictionaries(
        {"match": st.builds(lambda header: {"header": header}, TESTS)},
        optional={
            "request": st.just(REPLACE),
            "response": st.just(REPLACE),
            "websocket": st.just({"messages": [{"drop": True}]}),
        },
    ),
    min_size=1,
    max_size=5,
)
FIELDS = st.dictionaries(st.sampled_from(["A", "B"]), st.just("x"))


class SumTests(SynchronousTestCase):
    """What both verdicts say together, held against the rules one by one."""

    @settings(max_examples=300, deadline=None)
    @given(RULES, FIELDS, FIELDS)
    def test_each_rule_that_holds_is_said_once_in_its_place_and_named(
        self, given_: list[dict[str, Any]], sent: dict[str, str], answered: dict[str, str]
    ) -> None:
        verdict, said = conversation(rule_set(given_), sent, switched(answered))
        expected = []
        for place, rule in enumerate(given_):
            tests = rule["match"]["header"].items()
            on_request = all((name in sent) is wanted for name, wanted in tests)
            on_both = all((name in sent or name in answered) is wanted for name, wanted in tests)
            expected += [(place, "drop", None)] * ("websocket" in rule and (on_request or on_both))
            expected += [(place, "replace", True)] * ("request" in rule and on_request)
            expected += [(place, "replace", False)] * ("response" in rule and on_both)
        assert verdict.websocket is not None
        found = verdict.websocket.adding(said.websocket).rules
        self.assertEqual([(each.place, each.action, each.from_client) for each in found], expected)
        for named, by in ((verdict.rules, verdict.websocket.rules), (said.rules, said.websocket)):
            self.assertEqual(named, tuple(dict.fromkeys(each.rule for each in by)))


class UrlTests(SynchronousTestCase):
    def test_a_websocket_s_url_means_the_request_s(self) -> None:
        table = {
            "ws://h.example/*": "http://h.example/*",
            "WSS://H.example:443": "https://h.example/",
            "ws://h:80/a": "http://h/a",
            "ws*://h/*": "http*://h/*",
            "*://h/*": "*://h/*",
        }
        for written, text in table.items():
            self.assertEqual(url_pattern(written).text, text)
        set_ = rules("  - {match: {url: 'wss://h.example/*'}, block: 403}")
        self.assertIsNotNone(ask(set_, "https://h.example/x", handshake()).answer)
        self.assertIsNone(ask(set_, "http://h.example/x", handshake()).answer)

    def test_a_redirect_to_one_is_a_redirect_to_its_origin(self) -> None:
        for url, origin in (("ws://New", Origin("http", "new", 80)), ("WSS://new/", Origin("https", "new", 443))):
            (rule,) = read(f"rules: [{{redirect_to: '{url}'}}]").rules
            assert rule.redirect_to is not None
            self.assertEqual(rule.redirect_to.origin, origin)
