"""A body that ends, or is cut, inside a secret: what was held back leaves with an end in order, and never otherwise."""

from __future__ import annotations

import h11

from streamproxy.proxy.downstream import LINGER_SECONDS
from tests.conversation import settings_of
from tests.fakes import TCP, TLS
from tests.passage import read_request, read_response
from tests.proxy.test_no_secret_leaves import (
    FRAMINGS,
    MESSAGES,
    PATTERNS,
    REQUEST,
    RESPONSE,
    SECRET,
    SecretTestCase,
    Step,
    Watched,
    in_chunks,
    in_one_chunk,
    in_singles,
    rules,
    until_close,
    with_length,
)
from tests.proxy.test_rules_on_messages import GET, HELD, POST, WAYS

BEFORE = b"it is "
IDLE = 300


class EndTests(SecretTestCase):
    def test_the_beginning_of_a_secret_leaves_with_the_end_of_the_body_and_not_before(self) -> None:
        for pattern in PATTERNS.values():
            for way in WAYS:
                settings = settings_of(rules(pattern, way))
                for message in MESSAGES:
                    for size in range(1, len(SECRET) + 1):
                        for framing in FRAMINGS[message]:
                            for parts in ([BEFORE + SECRET[:size]], in_singles(BEFORE + SECRET[:size])):
                                self.watch(settings, message, pattern, framing(parts), way in HELD)

    def test_the_end_is_there_only_when_all_of_its_bytes_are(self) -> None:
        ending = b"\r\n0\r\nX-Sum: 0123456789\r\n\r\n"
        for pattern in PATTERNS.values():
            settings = settings_of(rules(pattern))
            for message in MESSAGES:
                for size in range(1, len(SECRET)):
                    body = BEFORE + SECRET[:size]
                    last = [Step(ending[at : at + 1]) for at in range(len(ending) - 1)]
                    steps = [*list(in_one_chunk([body]))[:-1], *last, Step(ending[-1:], ends=True)]
                    self.watch(settings, message, pattern, steps)

    def test_the_ends_of_two_bodies_are_no_secret_and_hold_nothing_back(self) -> None:
        pattern = PATTERNS["literal"]
        for way in WAYS:
            watched = Watched(settings_of(rules(pattern, way)), RESPONSE)
            for part in (SECRET[:5], SECRET[5:]):
                watched.client.heard.clear()
                watched.begin(b"Content-Length: %d\r\n\r\n%b" % (len(part), part))
                self.assertEqual(read_response(watched.wire).body, part)
                watched.client.say(GET)
                watched.settle()


class CutTests(SecretTestCase):
    """Nothing that was held back comes behind a cut, at once or later."""

    def cut_short(self, watched: Watched, steps: list[Step], size: int) -> None:
        """Say a part of the steps: all before the secret, and `size` bytes of that."""
        watched.begin()
        for step in steps[: 1 + len(BEFORE) + size]:
            watched.take(step)

    def nothing_more_comes(self, watched: Watched, way: str, where: object) -> None:
        """The reader has what stood before the secret, or no body at all; and so it stays."""
        seen = b"" if way in HELD else BEFORE
        for seconds in (0, 1, LINGER_SECONDS, IDLE, IDLE):
            watched.stage.clock.advance(seconds)
            watched.settle()
            if watched.message == REQUEST or way not in HELD:
                self.assertEqual(watched.body, seen, where)
            else:
                self.assertNotIn(b"SK", watched.wire, where)
        if watched.message == REQUEST and watched.wire:
            self.assertRaises(h11.RemoteProtocolError, read_request, watched.wire)
        self.assertNotEqual([flow.outcome for flow in watched.stage.journal.flows], ["forwarded"], where)

    def cut_each(self, message: str, cut, framings=(with_length, in_one_chunk, in_chunks)) -> None:
        for name in ("literal", "regex without an end"):
            for way in WAYS:
                settings = settings_of(rules(PATTERNS[name], way, keys=f"timeouts: {{idle: {IDLE}}}\n"))
                for manner in (TCP, TLS):
                    for framing in framings:
                        steps = list(framing(in_singles(BEFORE + SECRET + b".")))
                        for size in range(1, len(SECRET)):
                            watched = Watched(settings, message, manner)
                            self.cut_short(watched, steps, size)
                            cut(watched)
                            self.nothing_more_comes(watched, way, (name, way, manner, framing, size))

    def test_an_origin_that_is_lost_inside_the_secret(self) -> None:
        self.cut_each(RESPONSE, lambda watched: watched.source.reset(), (*FRAMINGS[RESPONSE][:3], until_close))

    def test_an_origin_that_ends_inside_the_secret_and_said_there_was_more(self) -> None:
        self.cut_each(RESPONSE, lambda watched: watched.source.end())

    def test_an_origin_that_falls_silent_inside_the_secret(self) -> None:
        self.cut_each(RESPONSE, lambda watched: None)

    def test_a_client_that_is_lost_inside_the_secret(self) -> None:
        self.cut_each(REQUEST, lambda watched: watched.source.reset())

    def test_a_client_that_ends_inside_the_secret(self) -> None:
        self.cut_each(REQUEST, lambda watched: watched.source.end())

    def test_a_client_that_falls_silent_inside_the_secret(self) -> None:
        self.cut_each(REQUEST, lambda watched: None)

    def test_bytes_that_break_the_framing_inside_the_secret(self) -> None:
        def broken(watched: Watched) -> None:
            watched.say(b"\r\nno size\r\n")

        self.cut_each(RESPONSE, broken, (in_chunks,))
        self.cut_each(REQUEST, broken, (in_chunks,))

    def test_an_origin_that_answers_and_leaves_before_the_secret_is_over(self) -> None:
        def answer(watched: Watched) -> None:
            if watched.stage.pool.made:
                watched.stage.origin.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
                watched.stage.origin.end()
                watched.settle()
            watched.client.reset()

        for name in ("literal", "regex without an end"):
            for way in WAYS:
                watched = Watched(settings_of(rules(PATTERNS[name], way)), REQUEST)
                self.cut_short(watched, list(in_chunks(in_singles(BEFORE + SECRET))), 5)
                answer(watched)
                watched.settle()
                self.assertEqual(watched.body, b"" if way in HELD else BEFORE)

    def test_what_is_held_for_a_time_is_not_let_go_behind_a_cut(self) -> None:
        # Its time is over while what came before the cut is still on its way.
        for name in ("literal", "regex without an end"):
            for manner in (TCP, TLS):
                paced = rules(PATTERNS[name], more=", hold_time: 2, pace: {delay: 5}")
                watched = Watched(settings_of(paced), RESPONSE, manner)
                watched.begin(b"Content-Length: 99\r\n\r\n" + BEFORE + SECRET[:7])
                watched.stage.clock.advance(1)
                watched.source.reset()
                for _ in range(20):
                    watched.stage.clock.advance(0.5)
                    watched.settle()
                self.assertEqual(watched.body, BEFORE, (name, manner))
                self.assertTrue(watched.client.disconnected)


class SentAgainTests(SecretTestCase):
    def test_a_request_that_may_be_sent_again_is_clean_each_time(self) -> None:
        body = BEFORE + SECRET + b"."
        put = POST.replace(b"POST", b"PUT") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for pattern in PATTERNS.values():
            for way in WAYS:
                watched = Watched(settings_of(rules(pattern, way)), REQUEST)
                stage, client = watched.stage, watched.client
                client.say(GET)
                stage.settle(client)
                stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                stage.settle(client)
                client.say(put)
                stage.settle(client)
                (first,) = stage.pool.made
                first.reset()
                stage.settle(client)
                # Whether it is, or is given up: no connection has heard of the secret.
                for made in stage.pool.made:
                    self.assertNotIn(b"SK", made.heard)
                if stage.origin is not first:
                    self.assertEqual(read_request(bytes(stage.origin.heard)).body, BEFORE + b"(gone).")
                else:
                    self.assertIn(b"(gone)", first.heard)
                    self.assertEqual([flow.outcome for flow in stage.journal.flows][1:], ["origin-gone"])
