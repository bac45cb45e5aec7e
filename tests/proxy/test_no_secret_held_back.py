"""What is held back for a secret is let go by the rule's own limits alone: bytes past `hold_back`, or `hold_time`."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conversation import settings_of
from tests.proxy.test_no_secret_leaves import (
    FRAMINGS,
    MESSAGES,
    PATTERNS,
    PUT,
    RESPONSE,
    SECRET,
    Pattern,
    SecretTestCase,
    Watched,
    in_chunks,
    in_one_chunk,
    in_singles,
    in_two,
    rules,
)
from tests.proxy.test_rules_on_messages import HELD, WAYS

BEFORE = b"it is "
HOLD_BACK = 16
WORD = "{regex: 'SK-[0-9]+;', with: (gone)}"
# More than is held back, before it can be known that it was one.
LONG = BEFORE + b"SK-" + b"0123456789" * 3 + b"; and on"


class OverrunTests(SecretTestCase):
    """A secret that may be longer than `hold_back`."""

    def limited(self, way: str, overrun: str = "abort") -> str:
        pattern = PATTERNS["literal"]._replace(rule=WORD)
        return rules(pattern, way, f", hold_back: {HOLD_BACK}b, on_overrun: {overrun}")

    def parted(self) -> list[list[bytes]]:
        return [[LONG], in_singles(LONG), *in_two(LONG)]

    def test_the_body_is_given_up_with_no_more_than_stood_before_it(self) -> None:
        for way in WAYS:
            limited = settings_of(self.limited(way))
            for message in MESSAGES:
                for framing in FRAMINGS[message]:
                    for parts in self.parted():
                        watched = Watched(limited, message)
                        watched.begin()
                        for step in framing(parts):
                            watched.take(step)
                            if way not in HELD:
                                self.assertEqual(watched.body, BEFORE[: len(watched.body)])
                            self.assertNotIn(b"SK", watched.wire)
                            self.assertNotIn(b"0123456789", watched.wire)
                        if way not in HELD and not watched.reader.aborted:  # what was on its way is lost then
                            self.assertEqual(watched.body, BEFORE)
                        (flow,) = watched.stage.journal.flows
                        self.assertEqual(flow.outcome, "failed")
                        self.assertIn("'hush'", flow.error)
                        self.assertNotIn("SK", flow.error)

    def test_nothing_that_follows_leaves_either(self) -> None:
        limited = settings_of(self.limited("streamed"))
        for message in MESSAGES:
            watched = Watched(limited, message)
            watched.begin(b"Transfer-Encoding: chunked\r\n\r\n")
            for step in list(in_chunks([LONG, b"more", SECRET]))[1:]:
                watched.take(step)
            watched.stage.clock.advance(1000)
            watched.settle()
            self.assertEqual(watched.body, BEFORE)

    def test_as_much_as_it_may_be_is_found(self) -> None:
        fits = BEFORE + b"SK-" + b"0" * (HOLD_BACK - 4) + b"; and on"
        for way in WAYS:
            for message in MESSAGES:
                for parts in (in_singles(fits), [fits], *in_two(fits)):
                    watched = Watched(settings_of(self.limited(way)), message)
                    watched.begin()
                    for step in in_one_chunk(parts):
                        watched.take(step)
                    self.assertEqual(watched.body, BEFORE + PUT + b" and on")

    def test_where_a_rule_says_release_so_much_is_let_go_and_the_rest_is_searched(self) -> None:
        # However it was cut: the bytes that may be held, and the one that was too many.
        text = LONG + b" SK-1; " + LONG
        due = text.replace(b"SK-1;", PUT)
        for way in WAYS:
            limited = settings_of(self.limited(way, "release"))
            for message in MESSAGES:
                for parts in (in_singles(text), [text], *in_two(text)):
                    watched = Watched(limited, message)
                    watched.begin()
                    so_far = b""
                    for step in in_one_chunk(parts):
                        watched.take(step)
                        so_far += step.content
                        if way not in HELD and not step.ends:
                            self.assertEqual(watched.body, self.released(so_far))
                    self.assertEqual(watched.body, due)

    def released(self, text: bytes) -> bytes:
        found = re.search(rb"(?:S|SK|SK-[0-9]{0,13})\Z", text)
        return (text if found is None else text[: found.start()]).replace(b"SK-1;", PUT)


class HoldTimeTests(SecretTestCase):
    """Time lets go only of what was held when it was over, and never before."""

    SECONDS = 2.0

    def waiting(self, message: str, pattern: Pattern, way: str = "streamed", keys: str = "") -> Watched:
        watched = Watched(settings_of(rules(pattern, way, f", hold_time: {self.SECONDS}", keys)), message)
        watched.begin(b"Transfer-Encoding: chunked\r\n\r\n")
        return watched

    def chunk(self, watched: Watched, data: bytes) -> None:
        watched.say(b"%x\r\n%b\r\n" % (len(data), data))

    def passes(self, watched: Watched, seconds: float) -> None:
        watched.stage.clock.advance(seconds)
        watched.settle()

    def test_a_beginning_is_let_go_when_its_time_is_over_and_not_before(self) -> None:
        for pattern in PATTERNS.values():
            for message in MESSAGES:
                for size in range(1, len(SECRET)):
                    watched = self.waiting(message, pattern)
                    self.chunk(watched, BEFORE + SECRET[:size])
                    for _ in range(19):
                        self.passes(watched, self.SECONDS / 20)
                        self.assertEqual(watched.body, BEFORE)
                    self.passes(watched, self.SECONDS / 20)
                    self.assertEqual(watched.body, BEFORE + SECRET[:size])

    def test_a_secret_that_is_whole_in_time_is_taken_out(self) -> None:
        for pattern in PATTERNS.values():
            for message in MESSAGES:
                for size in range(1, len(SECRET)):
                    watched = self.waiting(message, pattern)
                    self.chunk(watched, BEFORE + SECRET[:size])
                    self.passes(watched, self.SECONDS * 0.9)
                    self.chunk(watched, SECRET[size:] + b".")
                    self.passes(watched, self.SECONDS * 5)
                    self.assertEqual(watched.body, BEFORE + PUT + b".")

    def test_time_counts_from_the_first_byte_that_is_held(self) -> None:
        for name in ("literal", "regex", "one of many literals"):
            for message in MESSAGES:
                watched = self.waiting(message, PATTERNS[name])
                for byte in in_singles(BEFORE + SECRET[:8]):
                    self.chunk(watched, byte)
                    self.passes(watched, 0.0 if byte in BEFORE else self.SECONDS / 10)
                    self.assertEqual(watched.body, BEFORE[: len(watched.body)])
                self.passes(watched, self.SECONDS * 0.19)
                self.assertEqual(watched.body, BEFORE)
                self.passes(watched, self.SECONDS * 0.02)
                self.assertEqual(watched.body, BEFORE + SECRET[:8])

    def test_each_beginning_has_a_time_of_its_own(self) -> None:
        for name in ("literal", "regex", "one of many literals"):
            for message in MESSAGES:
                watched = self.waiting(message, PATTERNS[name])
                # Each of them shows that the one before it came to nothing.
                for number in range(1, 10):
                    self.chunk(watched, b"SK-")
                    self.passes(watched, self.SECONDS * 0.7)
                    self.assertEqual(watched.body, b"SK-" * (number - 1))
                self.chunk(watched, b"0123456789")
                self.assertEqual(watched.body, b"SK-" * 8 + PUT)

    def test_what_was_let_go_is_no_part_of_a_match_and_what_follows_is_searched(self) -> None:
        for name in ("literal", "regex", "one of many literals"):
            for message in MESSAGES:
                watched = self.waiting(message, PATTERNS[name])
                self.chunk(watched, BEFORE + SECRET[:5])
                self.passes(watched, self.SECONDS)
                self.chunk(watched, SECRET[5:] + SECRET)
                self.assertEqual(watched.body, BEFORE + SECRET + PUT)

    def test_a_body_that_is_held_is_not_touched_by_it(self) -> None:
        for way in HELD:
            for message in MESSAGES:
                watched = self.waiting(message, PATTERNS["literal"], way)
                for byte in in_singles(BEFORE + SECRET + b"."):
                    self.chunk(watched, byte)
                    self.passes(watched, self.SECONDS)
                watched.say(b"0\r\n\r\n")
                self.assertEqual(watched.body, BEFORE + PUT + b".")

    def test_a_body_that_was_let_go_inside_a_secret_has_it_from_then_on(self) -> None:
        for message in MESSAGES:
            pattern = PATTERNS["literal"]
            watched = self.waiting(message, pattern, "hold: always", f"stream_large_bodies: {len(BEFORE) + 3}b\n")
            self.chunk(watched, BEFORE + SECRET[:2])
            self.passes(watched, self.SECONDS * 3)
            self.assertEqual(watched.wire.partition(b"\r\n\r\n")[2], b"")
            self.chunk(watched, SECRET[2:6])
            self.passes(watched, self.SECONDS * 0.9)
            self.assertEqual(watched.body, BEFORE)
            self.chunk(watched, SECRET[6:])
            self.passes(watched, self.SECONDS * 3)
            self.assertEqual(watched.body, BEFORE + PUT)

    def test_a_reader_in_the_way_shortens_no_time(self) -> None:
        watched = Watched(settings_of(rules(PATTERNS["literal"], more=f", hold_time: {self.SECONDS}")), RESPONSE)
        watched.say(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        for _ in range(4):
            watched.source.say(b"." * 65536)
        watched.source.say(SECRET[:6])
        watched.stage.clock.advance(self.SECONDS * 4)
        watched.source.say(SECRET[6:])
        watched.settle()
        self.assertEqual(watched.body, b"." * 4 * 65536 + PUT)

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(MESSAGES),
        st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0, 1.9, 2.5])), min_size=1, max_size=9),
    )
    def test_only_a_silence_of_that_length_can_let_go(self, message: str, moves: list[tuple[int, float]]) -> None:
        pattern = PATTERNS["literal"]
        watched = self.waiting(message, pattern)
        text = BEFORE + SECRET + b" " + SECRET + b" and " + SECRET
        at, waited = 0, 0.0
        for size, seconds in moves:
            self.chunk(watched, text[at : at + size] or b".")
            at += size
            self.passes(watched, seconds)
            waited += seconds
            if waited < self.SECONDS:
                self.assertEqual(watched.body.rstrip(b"."), pattern.decided(text[:at]).rstrip(b"."))
