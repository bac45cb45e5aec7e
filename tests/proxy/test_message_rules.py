"""Rules on WebSocket messages: replaced, dropped, answered; each in its direction, of its type, and in their order."""

from __future__ import annotations

import re
import time
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import FilterError
from streamproxy.proxy.message_rules import SHARE, Done, MessageRules
from streamproxy.rules.verdict import MessageRule
from streamproxy.wire.websocket import BINARY, CLOSE, CONTINUATION, PING, RSV1, TEXT
from tests.fakes import TCP, TLS
from tests.filters.cutting import singly
from tests.proxy.websocket_talk import (
    READ,
    Heard,
    SocketTestCase,
    binary,
    close,
    deflating,
    down,
    down_close,
    frames_of,
    ping,
    said_by,
    text,
    up,
    up_close,
)
from tests.wire.reading import property_of

MOST = 1 << 20
REGEXES = ["a", "a+", "ab*", "(?:ab)+", "a|bc", "b{2,3}", "a[bc]?", "b[^a]"]


def rule(action: str, find: bytes = b"", put: bytes = b"", regex: str | None = None, of_text: bool | None = None):
    return MessageRule("r", action, None, of_text, find, regex, put)


def rules_of(*rules: MessageRule, most: int = MOST, seconds: float = 1.0) -> MessageRules:
    return MessageRules(rules, most, seconds)


def applied(rules: MessageRules, opcode: int, content: bytes) -> Done:
    """What becomes of a message, in however many turns."""
    made = rules.apply(opcode, content)
    while True:
        try:
            assert next(made) == b"", "a place where a turn may end"
        except StopIteration as ended:
            return ended.value


class ApplyTests(SynchronousTestCase):
    def test_without_anything_found_nothing_is_done(self) -> None:
        rules = rules_of(
            rule("replace", b"x", b"y"), rule("drop", b"x"), rule("respond", b"x", b"z"), rule("drop", regex="x+")
        )
        for opcode in (TEXT, BINARY):
            for content in (b"", b"abc", bytes(100_000)):
                self.assertEqual(applied(rules, opcode, content), Done(content))

    def test_what_is_found_is_replaced_everywhere(self) -> None:
        rules = rules_of(rule("replace", b"ab", b"<>"), rule("replace", put=rb"[\1]", regex="c(d*)"))
        self.assertEqual(applied(rules, TEXT, b"abab cdd c"), Done(b"<><> [dd] []"))
        self.assertEqual(applied(rules, BINARY, b"ab"), Done(b"<>"))

    def test_a_message_is_dropped_or_answered(self) -> None:
        for one, done in (
            (rule("drop", b"b"), Done(b"abc", True)),
            (rule("drop"), Done(b"abc", True)),
            (rule("drop", regex="^a.c$"), Done(b"abc", True)),
            (rule("respond", b"b", b"no"), Done(b"abc", True, b"no")),
            (rule("respond", put=b""), Done(b"abc", True, b"")),
            (rule("respond", regex="b", put=rb"\1"), Done(b"abc", True, rb"\1")),
        ):
            self.assertEqual(applied(rules_of(one), TEXT, b"abc"), done)

    def test_each_is_for_its_type(self) -> None:
        for action, put in (("replace", b"y"), ("drop", b""), ("respond", b"z")):
            for of_text in (True, False, None):
                rules = rules_of(rule(action, b"x", put, of_text=of_text))
                for opcode in (TEXT, BINARY):
                    concerned = of_text is None or of_text is (opcode == TEXT)
                    self.assertEqual(applied(rules, opcode, b"x") != Done(b"x"), concerned)

    def test_they_are_done_in_their_order(self) -> None:
        replace, drop = rule("replace", b"a", b"b"), rule("drop", b"b")
        self.assertEqual(applied(rules_of(replace, drop), TEXT, b"a"), Done(b"b", True))
        self.assertEqual(applied(rules_of(drop, replace), TEXT, b"a"), Done(b"b"))
        self.assertEqual(applied(rules_of(rule("respond", b"a", b"1"), drop), TEXT, b"ab"), Done(b"ab", True, b"1"))
        self.assertEqual(applied(rules_of(drop, rule("respond", b"a", b"1")), TEXT, b"ab"), Done(b"ab", True))

    def test_replacements_that_stand_together_are_one_pass(self) -> None:
        # As in bodies: what one puts there isn't found by the next.
        swap = (rule("replace", b"a", b"b"), rule("replace", b"b", b"a"))
        self.assertEqual(applied(rules_of(*swap), TEXT, b"abba"), Done(b"baab"))
        self.assertEqual(applied(rules_of(swap[0], rule("drop", b"never"), swap[1]), TEXT, b"abba"), Done(b"aaaa"))
        apart = (swap[0]._replace(text=True), swap[1])
        self.assertEqual(applied(rules_of(*apart), TEXT, b"abba"), Done(b"aaaa"))
        self.assertEqual(applied(rules_of(*apart), BINARY, b"abba"), Done(b"aaaa"))

    @given(st.binary(max_size=60), st.binary(min_size=1, max_size=3), st.binary(max_size=4))
    @property_of(200)
    def test_a_literal_is_replaced_as_bytes_replace_does(self, content: bytes, find: bytes, put: bytes) -> None:
        done = applied(rules_of(rule("replace", find, put)), BINARY, content)
        self.assertEqual(done.content, content.replace(find, put))

    @given(st.text("abc", max_size=30), st.sampled_from(REGEXES))
    @property_of(300)
    def test_a_regex_is_replaced_as_re_does(self, content: str, regex: str) -> None:
        done = applied(rules_of(rule("replace", put=b"<>", regex=regex)), BINARY, content.encode())
        self.assertEqual(done.content, re.sub(regex.encode(), b"<>", content.encode()))

    def test_a_match_may_be_as_long_as_the_message(self) -> None:
        rules = rules_of(rule("replace", put=b"-", regex="(?s)<.*>"))
        self.assertEqual(applied(rules, BINARY, b"a<" + bytes(500_000) + b">b"), Done(b"a-b"))

    def test_a_message_may_come_to_the_limit_and_no_further(self) -> None:
        rules = rules_of(rule("replace", b"a", b"b" * 50), most=100)
        self.assertEqual(applied(rules, TEXT, b"aa").content, b"b" * 100)
        with self.assertRaises(FilterError) as caught:
            applied(rules, TEXT, b"aac")
        self.assertEqual(str(caught.exception), "rule 'r' made a message larger than limits.websocket_message")

    def test_what_would_come_to_very_much_is_stopped_on_the_way(self) -> None:
        rules = rules_of(rule("replace", b"a", b"b" * 60_000), most=1 << 20)
        began = time.monotonic()
        with self.assertRaises(FilterError):
            applied(rules, TEXT, b"a" * (1 << 20))
        self.assertLess(time.monotonic() - began, 2)

    def test_a_regex_has_its_time(self) -> None:
        for action in ("drop", "respond", "replace"):
            rules = rules_of(rule(action, regex="(?:x|xx)+[yz]", put=b""), seconds=0.1)
            began = time.monotonic()
            with self.assertRaises(FilterError) as caught:
                applied(rules, TEXT, b"x" * 60)
            self.assertIn("rule 'r'", str(caught.exception))
            self.assertLess(time.monotonic() - began, 3)

    def test_many_slow_messages_have_no_more_than_a_share_of_all_time(self) -> None:
        rules = rules_of(rule("drop", regex="(?:x|xx)+[yz]"), seconds=0.2)
        content = b"x" * 17
        began, count = time.monotonic(), 0
        with self.assertRaises(FilterError) as caught:
            while time.monotonic() - began < 5:
                applied(rules, TEXT, content)
                count += 1
        self.assertGreater(count, 1)
        self.assertIn("took too long on messages", str(caught.exception))
        self.assertLess(time.monotonic() - began, 10 * 0.2 / (1 - SHARE))


class RelayTests:
    """The same in a WebSocket, over each manner of transport."""

    def said(self, rules: str, from_client: bool, *frames: bytes) -> list[Heard]:
        """What the other side hears."""
        self.open(f"rules: [{rules}]")
        for data in frames:
            self.peer(from_client).say(*singly(data) if len(data) < 100 else [data])
        return self.frames_from(from_client)

    def messages(self, *rules: str) -> str:
        return "{name: r, websocket: {messages: [" + ", ".join(rules) + "]}}"

    def test_each_direction_has_its_own(self):
        rules = self.messages("{from: client, find: a, with: b}", "{from: origin, find: a, with: c}")
        for from_client, put in ((True, b"b"), (False, b"c")):
            for opcode in (TEXT, BINARY):
                heard = self.said(rules, from_client, said_by(from_client, opcode, b"xax"))
                self.assertEqual(heard, [Heard(opcode, b"x" + put + b"x")])

    def test_what_bodies_have_replaced_is_replaced_in_messages(self):
        rules = "{request: {replace: {find: a, with: b}}}, {response: {replace: {regex: 'a+', with: c}}}"
        self.assertEqual(self.said(rules, True, up(TEXT, b"aa")), [text(b"bb")])
        self.assertEqual(self.said(rules, False, down(TEXT, b"aa")), [text(b"c")])

    def test_rules_that_the_101_decides_hold_too(self):
        rules = "rules: [{match: {header: {X-A: b}}, response: {replace: {find: a, with: c}}}]"
        for agrees, heard in (((b"X-A: b",), b"cc"), ((), b"aa")):
            self.open(rules, agrees=agrees)
            self.origin.say(down(TEXT, b"aa"))
            self.assertEqual(self.client_frames(), [text(heard)])

    def test_a_message_is_found_in_across_its_fragments_and_is_one_frame_then(self):
        for from_client in (True, False):
            frames = [
                said_by(from_client, TEXT, b"se", final=False),
                said_by(from_client, PING, b"p"),
                said_by(from_client, CONTINUATION, b"", final=False),
                said_by(from_client, CONTINUATION, b"cret"),
            ]
            heard = self.said(self.messages("{find: secret, with: '***'}"), from_client, b"".join(frames))
            self.assertEqual(heard, [ping(b"p"), text(b"***")])
            self.assertEqual([message.content for message in self.data.messages], [b"***"])

    def test_one_that_is_not_changed_keeps_its_fragments(self):
        for from_client in (True, False):
            frames = said_by(from_client, TEXT, b"a", final=False) + said_by(from_client, CONTINUATION, b"b")
            self.open(f"rules: [{self.messages('{find: secret, with: x}')}]")
            self.peer(from_client).say(frames)
            self.assertEqual(self.origin_heard() if from_client else self.heard(), frames)

    def test_a_large_one_that_is_changed_is_one_frame(self):
        heard = self.said(self.messages("{find: a, with: bb}"), True, up(BINARY, b"a" * 100_000))
        self.assertEqual(heard, [binary(b"b" * 200_000)])

    def test_one_that_is_dropped_is_counted_and_nothing_is_heard_of_it(self):
        rules = self.messages("{from: client, find: drop, drop: true}")
        said = up(TEXT, b"a") + up(TEXT, b"drop me") + up(PING, b"p") + up(BINARY, b"b")
        self.assertEqual(self.said(rules, True, said), [text(b"a"), ping(b"p"), binary(b"b")])
        self.assertEqual((self.data.from_client.messages, self.data.from_client.dropped), (3, 1))
        self.assertEqual([each.dropped for each in self.data.messages], [False, True, False])
        self.origin.say(down(TEXT, b"drop me"))
        self.assertEqual(self.client_frames(), [text(b"drop me")])

    def test_one_that_is_answered_does_not_go_on(self):
        for from_client in (True, False):
            rules = self.messages("{find: ping-app, respond: pong-app}")
            heard = self.said(rules, from_client, said_by(from_client, BINARY, b"ping-app") * 2)
            self.assertEqual(heard, [])
            self.assertEqual(self.frames_from(not from_client), [binary(b"pong-app")] * 2)
            counted = (self.data.from_origin, self.data.from_client)
            sent, answered = reversed(counted) if from_client else counted
            self.assertEqual((sent.messages, sent.dropped, answered.messages, answered.injected), (2, 2, 0, 2))
            flags = [(each.from_client, each.injected, each.dropped) for each in self.data.messages]
            self.assertEqual(sorted(flags), sorted([(from_client, False, True), (not from_client, True, False)] * 2))

    def test_an_answer_does_not_stand_inside_a_message(self):
        # The origin's own is held until it is whole, so both can be read.
        self.open(f"rules: [{self.messages('{from: client, respond: no}')}]")
        self.origin.say(down(TEXT, b"be", final=False))
        self.client.say(up(TEXT, b"x"))
        self.origin.say(down(CONTINUATION, b"gun"))
        self.assertEqual(self.client_frames(), [text(b"no"), Heard(TEXT, b"be", False), Heard(CONTINUATION, b"gun")])

    def test_answers_come_in_order_with_what_the_origin_says(self):
        self.open(f"rules: [{self.messages('{from: client, find: q, respond: a}')}]")
        for number in range(10):
            self.client.say(up(TEXT, b"q"))
            self.origin.say(down(TEXT, b"%d" % number))
        self.assertEqual(
            [each.payload for each in self.client_frames()], b"a 0 a 1 a 2 a 3 a 4 a 5 a 6 a 7 a 8 a 9".split()
        )

    def test_one_that_does_not_read_its_answers_is_not_read(self):
        for from_client in (True, False):
            self.open(f"rules: [{self.messages('{find: q, respond: ' + 'a' * 1000 + '}')}]")
            peer, sent = self.peer(from_client), 0
            while peer.reading:
                peer.say(said_by(from_client, TEXT, b"q") * 100)
                self.stage.turn()
                sent += 100
                self.assertLess(sent, 100_000)
            while not peer.reading:
                self.assertTrue(peer.take(20_000))
                self.stage.turn()
            self.settle()
            heard = frames_of(self.heard() if from_client else self.origin_heard(), not from_client)
            self.assertEqual(heard, [text(b"a" * 1000)] * sent)

    def test_answers_to_many_small_ones_of_one_read_are_bounded_by_that_read(self):
        self.open(f"rules: [{self.messages('{find: q, respond: ' + 'a' * 60000 + '}')}]")
        self.client.say((up(TEXT, b"q") * (READ // 7))[: READ // 7 * 7])
        self.assertFalse(self.client.reading)
        self.assertLessEqual(self.relay._to_client.queued, 200_000)

    def test_a_rule_that_fails_ends_both_with_1011(self):
        for from_client in (True, False):
            for rules, why in (
                ("{find: a, with: bbbbbbbbbbb}", "rule 'r' made a message larger than limits.websocket_message"),
                ("{regex: '.', with: '-'}", None),
                ("{regex: '(.)', with: '\\1-'}", "a text that was changed isn't UTF-8 any more"),
            ):
                self.open(f"limits: {{websocket_message: 100b}}\nrules: [{self.messages(rules)}]")
                content = b"a" * 10 if "find" in rules else "ü".encode()
                said = said_by(from_client, TEXT, b"") + said_by(from_client, TEXT, content)
                self.peer(from_client).say(said + said_by(from_client, TEXT, b"never"))
                if why is None:
                    self.assertEqual([each.opcode for each in self.frames_from(from_client)], [TEXT] * 3)
                    continue
                self.assertEqual(self.frames_from(from_client), [text(b""), close(1011, "a rule failed")])
                self.assertEqual(self.frames_from(not from_client), [close(1011, "a rule failed")])
                self.end_both()
                self.check_ended("failed", why)
                self.assertEqual(self.closed, (1011, why, None))

    def test_one_that_takes_too_long_does_too(self):
        self.open("timeouts: {regex: 0.1}\nrules: [" + self.messages("{regex: '(?:x|xx)+[yz]', drop: true}") + "]")
        self.client.say(up(TEXT, b"x" * 60))
        self.assertEqual(self.origin_frames(), [close(1011, "a rule failed")])
        self.end_both()
        self.assertEqual(self.flow.outcome, "failed")
        self.assertRegex(self.flow.error, "regex(es)? of rule 'r' took too long on")

    def test_a_message_that_streams_past_the_limit_is_still_too_large(self):
        self.open("limits: {websocket_message: 100b}\nrules: [" + self.messages("{find: a, with: ''}") + "]")
        self.client.say(up(TEXT, b"a" * 101))
        self.origin.say(down_close(1001))
        (told,) = self.client_frames()
        self.assertEqual((told.opcode, told.payload[:2]), (CLOSE, (1009).to_bytes(2, "big")))

    def test_what_came_compressed_goes_on_compressed(self):
        for agrees in (True, False):
            self.open(
                "rules: [{response: {replace: {find: a, with: b}}}]",
                offers=(deflating(),),
                agrees=(deflating(),) if agrees else (),
            )
            coder = zlib.compressobj(wbits=-15)
            data = coder.compress(b"a" * 500) + coder.flush(zlib.Z_SYNC_FLUSH)
            self.origin.say(down(TEXT, data[:-4], reserved=RSV1) if agrees else down(TEXT, b"a" * 500))
            (heard,) = self.client_frames()
            payload = heard.payload
            if agrees:
                payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
            self.assertEqual((heard.reserved, payload), (RSV1 if agrees else 0, b"b" * 500))

    def test_controls_are_no_messages(self):
        rules = self.messages("{drop: true}")
        heard = self.said(rules, True, up(PING, b"a") + up(TEXT, b"a") + up_close(1000))
        self.assertEqual(heard, [ping(b"a"), close(1000)])


class TcpRelayTests(RelayTests, SocketTestCase):
    manner = TCP


class TlsRelayTests(RelayTests, SocketTestCase):
    manner = TLS
