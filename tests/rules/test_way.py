"""How a body goes, decided from its head."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.match import Patterns, type_pattern
from streamproxy.rules.verdict import How, Way
from streamproxy.rules.way import Streaming, body_way
from streamproxy.wire.message import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind

TYPES = Patterns(map(type_pattern, ("text/event-stream", "application/grpc*")))
PLAIN = Streaming(TYPES, None, False, 1000)
SIZED = Streaming(TYPES, 100, False, 1000)
ALWAYS = Streaming(TYPES, 100, True, 1000)
UNSIZED = Streaming(TYPES, None, True, 1000)
EVENTS = [b"text/event-stream; charset=utf-8"]
HTML = [b"text/html"]


def known(length: int) -> Framing:
    return Framing(Kind.LENGTH, length)


class WayTests(SynchronousTestCase):
    def test_there_is_no_way_where_there_is_no_body(self) -> None:
        for framing in (NO_BODY, known(0)):
            way = body_way(framing, EVENTS, (False, "rule r"), ALWAYS)
            self.assertEqual(way, Way(How.NONE, "no body"))

    def test_a_rule_that_says_stream_decides_over_all_else(self) -> None:
        for framing in (known(1), known(10**9), CHUNKED, UNTIL_CLOSE):
            way = body_way(framing, HTML, (True, "rule r"), ALWAYS, "a script")
            self.assertEqual(way, Way(How.STREAMED, "rule r"))

    def test_a_rule_that_says_no_holds_whatever_the_type_and_is_never_let_go(self) -> None:
        for framing in (known(1000), CHUNKED, UNTIL_CLOSE):
            way = body_way(framing, EVENTS, (False, "rule r"), SIZED)
            self.assertEqual(way, Way(How.HELD, "rule r", None, 1000, False))

    def test_what_is_known_to_be_past_the_limit_is_refused_at_once(self) -> None:
        way = body_way(known(1001), HTML, (False, "rule r"), PLAIN)
        self.assertEqual(way, Way(How.HELD, "rule r", None, 1000, True))

    def test_a_streamed_type_streams_though_all_is_held(self) -> None:
        for value in (*EVENTS, b"Text/Event-Stream", b"application/grpc+proto"):
            way = body_way(known(5), [value], None, ALWAYS)
            self.assertIs(way.how, How.STREAMED)
        self.assertEqual(body_way(CHUNKED, EVENTS, None, ALWAYS).why, "type text/event-stream")

    def test_a_hostile_type_can_t_break_a_line_of_the_log(self) -> None:
        way = body_way(CHUNKED, [b"application/grpc\x1b[31m\xff" + b"x" * 500], None, ALWAYS)
        self.assertTrue(way.why.isprintable() and way.why.isascii() and len(way.why) < 100)

    def test_a_known_length_above_the_size_streams_and_at_it_does_not(self) -> None:
        large = body_way(known(101), HTML, None, ALWAYS)
        self.assertEqual(large, Way(How.STREAMED, "larger than stream_large_bodies"))
        self.assertEqual(body_way(known(100), HTML, None, ALWAYS), Way(How.HELD, "hold: always", None, 1000))

    def test_held_of_unknown_length_it_is_let_go_past_the_size(self) -> None:
        for framing in (CHUNKED, UNTIL_CLOSE):
            self.assertEqual(body_way(framing, HTML, None, ALWAYS), Way(How.HELD, "hold: always", 100, 1000))
            self.assertEqual(body_way(framing, HTML, None, UNSIZED), Way(How.HELD, "hold: always", None, 1000))

    def test_held_for_want_of_a_size_it_has_the_limit_of_a_held_body(self) -> None:
        self.assertTrue(body_way(known(1001), HTML, None, UNSIZED).refused)

    def test_what_nothing_wants_whole_streams(self) -> None:
        for framing in (known(1), known(10**9), CHUNKED, UNTIL_CLOSE):
            self.assertEqual(body_way(framing, [], None, PLAIN), Way(How.STREAMED, "nothing wants it whole"))

    def test_what_something_wants_whole_is_held_in_its_name(self) -> None:
        way = body_way(known(5), HTML, None, PLAIN, "hook response")
        self.assertEqual(way, Way(How.HELD, "hook response", None, 1000))

    def test_a_size_of_zero_streams_every_known_body(self) -> None:
        self.assertIs(body_way(known(1), HTML, None, Streaming(TYPES, 0, True, 1000)).how, How.STREAMED)
