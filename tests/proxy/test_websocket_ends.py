"""How WebSockets end: closed by either side, lost, broken, or by who goes on though it is over."""

from __future__ import annotations

from streamproxy.proxy.websocket import CLOSING
from streamproxy.wire.websocket import BINARY, CLOSE, CONTINUATION, PING, RSV1, TEXT, close_payload, frame_head
from tests.fakes import TCP, TLS
from tests.filters.cutting import singly
from tests.proxy.websocket_talk import (
    MODES,
    Heard,
    SocketTestCase,
    close,
    deflating,
    frames_of,
    ping,
    said_by,
    text,
)

SMALL = "limits: {websocket_message: 100b}\n"
BOTH = (True, False)
WHO = {True: "client", False: "origin"}


class EndTestCase(SocketTestCase):
    """Both directions are tested alike: by who is the first, the client (True) or the origin."""

    def say(self, from_client: bool, *frames: bytes) -> None:
        self.peer(from_client).say(*frames)
        self.settle()

    def say_close(self, from_client: bool, code: int = 1000, reason: str = "") -> None:
        self.say(from_client, said_by(from_client, CLOSE, close_payload(code, reason)))

    def end(self, from_client: bool) -> None:
        """It ends its side, if that isn't over."""
        if not self.peer(from_client).disconnected:
            self.peer(from_client).end()
        self.settle()

    def told(self, to_client: bool) -> list[Heard]:
        """What the client, or the origin, has been told since the last time."""
        return self.frames_from(not to_client)

    def seconds_to_end(self) -> float:
        """How long it takes until it is over, if nobody says anything more."""
        seconds = 0.0
        while not self.stage.journal.flows:
            self.wait(0.5, 0.5)
            seconds += 0.5
            self.assertLess(seconds, 400)
        return seconds


class CloseTests:
    def test_code_and_reason_pass_both_ways(self):
        for mode in MODES:
            for first in BOTH:
                for code, reason in ((1000, ""), (1001, "bye"), (1011, "x" * 123), (3000, "grün"), (4999, "")):
                    self.open(mode)
                    self.say_close(first, code, reason)
                    self.assertEqual(self.told(not first), [close(code, reason)])
                    self.assertEqual(self.told(first), [])
                    self.say_close(not first, 1000, "too")
                    self.assertEqual(self.told(first), [close(1000, "too")])
                    self.end(False)
                    self.assertTrue(self.has_ended(self.client))
                    self.end(True)
                    self.assertTrue(self.has_ended(self.origin))
                    self.check_ended()
                    self.assertEqual(self.closed, (code, reason, first))

    def test_one_without_a_code_passes_as_one(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                for from_client in (first, not first):
                    self.say(from_client, said_by(from_client, CLOSE))
                    self.assertEqual(self.told(not from_client), [Heard(CLOSE, b"")])
                self.end_both()
                self.check_ended()
                self.assertEqual(self.closed, (1005, "", first))

    def test_what_the_other_side_says_before_it_answers_passes(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                self.say_close(first)
                self.say(not first, said_by(not first, TEXT, b"last") + said_by(not first, PING, b"1"))
                self.assertEqual(self.told(first), [text(b"last"), ping(b"1")])
                self.say_close(not first)
                self.assertEqual(self.told(first), [close(1000)])
                self.end_both()
                self.check_ended()

    def test_what_stands_before_it_in_one_read_passes_whatever_stands_behind_it(self):
        for first in BOTH:
            for behind in (b"", said_by(first, PING, b"x"), said_by(first, TEXT, b"no") * 3, b"\xff", b"\x83\x00"):
                self.open()
                before = said_by(first, TEXT, b"a") + said_by(first, PING, b"b")
                self.say(first, before + said_by(first, CLOSE, close_payload(1000, "c")) + behind)
                self.assertEqual(self.told(not first), [text(b"a"), ping(b"b"), close(1000, "c")])
                self.say(first, behind)
                self.assertEqual(self.told(not first), [])
                self.say_close(not first)
                self.end_both()
                self.check_ended()
                self.assertEqual(self.closed, (1000, "c", first))

    def test_both_may_close_at_once(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                for from_client in (first, not first):
                    self.peer(from_client).say(said_by(from_client, CLOSE, close_payload(4000 + from_client, "")))
                self.assertEqual(self.told(True), [close(4000)])
                self.assertEqual(self.told(False), [close(4001)])
                self.end_both()
                self.check_ended()
                self.assertEqual(self.closed, (4000 + first, "", first))

    def test_connections_that_do_not_end_then_are_ended(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                self.say_close(first)
                self.wait(100)
                self.assertEqual(self.stage.journal.flows, [])
                self.say_close(not first)
                self.assertLessEqual(self.seconds_to_end(), CLOSING + 1)
                self.wait(CLOSING + 1)
                self.assertTrue(self.client.disconnected and self.origin.disconnected)
                self.assertEqual((self.flow.outcome, self.closed), ("switched", (1000, "", first)))
                self.stage.journal.flush()
                self.assertEqual(self.stage.clock.getDelayedCalls(), [])

    def test_one_that_goes_on_talking_is_not_waited_for_longer(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                self.say_close(first)
                self.say_close(not first)
                # It doesn't matter who talks, nor what.
                for second in range(30):
                    self.say(first, said_by(first, PING, b"") if second % 2 else b"\0" * 1000)
                    self.wait(1)
                self.assertEqual(len(self.stage.journal.flows), 1, (mode, first))

    def test_the_answer_may_take_as_long_as_silence_may(self):
        for mode in MODES:
            self.open(mode + "timeouts: {tunnel: 100}")
            self.say_close(True)
            self.wait(99)
            self.assertEqual(self.stage.journal.flows, [])
            self.wait(2)
            self.assertEqual((self.flow.outcome, self.closed), ("timed-out", (1000, "", True)))


class LostTests:
    def test_an_end_without_a_close_is_a_lost_connection_for_both(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                self.say(first, said_by(first, TEXT, b"last"))
                self.end(first)
                self.assertEqual(self.told(not first), [text(b"last")])
                self.assertTrue(self.has_ended(self.peer(not first)))
                self.end(not first)
                self.check_ended(error="the connection ended without a close frame")
                self.assertEqual(self.closed, (1006, "", first), (mode, WHO[first]))

    def test_a_break_is_one_too(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode)
                self.say(first, said_by(first, TEXT, b"last"))
                self.assertEqual(self.told(not first), [text(b"last")])
                self.peer(first).reset()
                self.assertEqual(self.told(not first), [])
                self.assertTrue(self.peer(not first).aborted)
                self.check_ended(error=f"the {WHO[first]}'s connection broke")
                self.assertEqual(self.closed, (1006, "", first), (mode, WHO[first]))

    def test_a_message_that_was_not_whole_is_never_said(self):
        for first in BOTH:
            for part in (
                said_by(first, TEXT, b"part", final=False),
                said_by(first, TEXT, b"part")[:-1],
                said_by(first, TEXT, b"part")[:1],
            ):
                self.open()
                self.say(first, said_by(first, TEXT, b"whole") + part)
                self.end(first)
                self.assertEqual(self.told(not first), [text(b"whole")])
                self.end(not first)
                self.assertEqual(self.closed, (1006, "", first))
                self.assertEqual([message.content for message in self.data.messages], [b"whole"])

    def test_a_close_frame_that_was_not_answered_is_how_it_closed(self):
        for mode in MODES:
            for first in BOTH:
                for reset in (False, True):
                    self.open(mode)
                    self.say_close(first, 1001, "gone")
                    peer = self.peer(not first)
                    peer.reset() if reset else self.end(not first)
                    self.end(first)
                    self.assertEqual(self.told(first), [])
                    self.assertEqual((self.flow.outcome, self.closed), ("switched", (1001, "gone", first)))
                    self.assertEqual(bool(self.flow.error), reset)

    def test_silence_ends_it(self):
        for mode in MODES:
            self.open(mode + "timeouts: {tunnel: 100}")
            self.wait(60)
            self.say(True, said_by(True, PING, b""))
            self.wait(99)
            self.assertEqual(self.stage.journal.flows, [])
            self.wait(2)
            self.assertTrue(self.client.aborted and self.origin.aborted)
            self.check_ended("timed-out", "nothing moved in the tunnel")
            # Neither side did it.
            self.assertEqual(self.closed, (1006, "", None))

    def test_one_that_does_not_read_is_given_up(self):
        for mode in MODES:
            for first in BOTH:
                self.open(mode + "timeouts: {idle: 50}")
                while self.peer(first).reading:
                    self.peer(first).say(said_by(first, BINARY, bytes(60000)))
                self.stage.clock.advance(49)
                self.assertEqual(self.stage.journal.flows, [])
                self.stage.clock.advance(2)
                self.assertEqual(self.flow.outcome, "timed-out")
                self.assertTrue(self.client.aborted and self.origin.aborted)


def broken(first: bool) -> list[tuple[bytes, int, str]]:
    """What breaks a connection when it is said by the client (`first`), or the origin; with code and words."""

    def by(*args, **more):
        return said_by(first, *args, **more)

    too_large = "a message larger than limits.websocket_message"
    fragments = by(BINARY, b"", final=False) + by(CONTINUATION, b"", final=False) * 1024
    mask = b"MASK" if first else b""
    return [
        (by(3), 1002, "a frame with the reserved opcode 3"),
        (by(TEXT, b"x", reserved=RSV1), 1002, "a frame with a reserved bit that no extension uses"),
        (by(CONTINUATION, b"x"), 1002, "a continuation of no message"),
        (by(TEXT, b"x", final=False) + by(TEXT, b"y"), 1002, "a new message inside another one"),
        (by(PING, b"x", final=False), 1002, "a control frame in fragments"),
        (
            said_by(not first, TEXT, b"x"),
            1002,
            "an origin's frame with a mask" if not first else "a frame without a mask",
        ),
        (by(CLOSE, b"x"), 1002, "a close frame of one byte"),
        (by(CLOSE, close_payload(1006, "")), 1002, "a close frame with the code 1006, which can't be sent"),
        (by(CLOSE, b"\x03\xe8\xff"), 1007, "a close frame whose reason isn't UTF-8"),
        (by(TEXT, b"\xff"), 1007, "a text that isn't UTF-8"),
        (by(TEXT, b"\xc3", final=False) + by(CONTINUATION, b"("), 1007, "a text that isn't UTF-8"),
        (by(BINARY, bytes(101)), 1009, too_large),
        (by(TEXT, bytes(60), final=False) + by(CONTINUATION, bytes(41)), 1009, too_large),
        (frame_head(BINARY, 1 << 40, mask) + bytes(101), 1009, too_large),
        (fragments, 1009, "a message in too many frames"),
    ]


class BrokenTests:
    def test_who_breaks_it_is_told_why_and_the_other_side_that_it_is_over(self):
        for first in BOTH:
            for wrong, code, why in broken(first):
                for parts in ([wrong], singly(wrong)):
                    if len(parts) > 500:
                        continue
                    self.open(SMALL)
                    self.say(first, said_by(first, TEXT, b"right"), *parts)
                    self.assertEqual(
                        self.told(not first), [text(b"right"), close(1001, f"the other side is closed: {why}")]
                    )
                    self.assertEqual(self.told(first), [])
                    self.say_close(not first, 1001)
                    self.assertEqual(self.told(first), [close(code, why)])
                    self.assertEqual(self.told(not first), [])
                    self.end_both()
                    self.check_ended("malformed", f"the {WHO[first]} broke the WebSocket protocol: {why}")
                    self.assertEqual(self.closed, (code, why, None))

    def test_it_is_told_behind_all_that_the_other_side_had_to_say(self):
        for first in BOTH:
            self.open(SMALL)
            self.say(first, said_by(first, BINARY, bytes(101)))
            self.say(not first, said_by(not first, TEXT, b"still", final=False))
            self.say(not first, said_by(not first, PING, b"1") + said_by(not first, CONTINUATION, b" here"))
            self.assertEqual(
                self.told(first), [ping(b"1"), Heard(TEXT, b"still", False), Heard(CONTINUATION, b" here")]
            )
            self.say(not first, said_by(not first, TEXT, b"more") + said_by(not first, CLOSE, b""))
            self.assertEqual(
                [each[:2] for each in self.told(first)],
                [
                    (TEXT, b"more"),
                    (CLOSE, close_payload(1009, "a message larger than limits.websocket_message")),
                ],
            )

    def test_it_is_told_when_the_other_side_ends_without_an_answer(self):
        for first in BOTH:
            self.open(SMALL)
            self.say(first, said_by(first, 3))
            self.end(not first)
            self.assertEqual(self.told(first), [close(1002, "a frame with the reserved opcode 3")])
            self.assertTrue(self.has_ended(self.peer(first)))
            self.end(first)
            why = "a frame with the reserved opcode 3"
            self.check_ended("malformed", f"the {WHO[first]} broke the WebSocket protocol: {why}")

    def test_it_is_told_in_time_when_the_other_side_says_nothing(self):
        for first in BOTH:
            for chatter in (False, True):
                self.open(SMALL)
                self.say(first, said_by(first, 3))
                self.told(not first)
                heard = []
                second = 0
                while not heard and second < 30:
                    second += 1
                    if chatter:
                        self.say(first, b"\0" * 100)
                        self.say(not first, said_by(not first, PING, b""))
                    self.wait(1)
                    heard += [each for each in self.told(first) if each.opcode == CLOSE]

                self.assertEqual(heard, [close(1002, "a frame with the reserved opcode 3")], chatter)
                self.assertLessEqual(second, CLOSING + 1)
                self.assertLessEqual(self.seconds_to_end(), 2 * CLOSING + 1)
                self.assertEqual(self.flow.outcome, "malformed")
                self.wait(CLOSING + 1)
                self.assertTrue(self.client.disconnected and self.origin.disconnected)

    def test_nothing_behind_it_is_kept(self):
        for first in BOTH:
            for answered in (False, True):
                self.open(SMALL)
                relay = self.relay
                pump = relay._to_origin if first else relay._to_client
                self.say(first, said_by(first, 3))
                if answered:
                    self.say_close(not first)
                for _ in range(100):
                    self.say(first, bytes(60000))
                self.assertLessEqual(len(pump._queue), 1)
                self.assertEqual([each for each in self.told(not first) if each.opcode != CLOSE], [])

    def test_nothing_is_kept_for_one_that_does_not_read_its_end(self):
        for first in BOTH:
            self.open(SMALL)
            self.say(first, said_by(first, 3))
            peer = self.peer(first)
            while self.peer(not first).reading:
                self.peer(not first).say(said_by(not first, PING, b"x" * 100) * 500)
            self.peer(not first).take()
            peer.say(b"\0" * 1000)
            self.assertLessEqual(len(peer.buffer), 70_000)
            pump = self.relay._to_client if first else self.relay._to_origin
            self.assertLessEqual(len(pump._queue), 4)

    def test_both_may_break_it(self):
        for first in BOTH:
            self.open(SMALL)
            self.say(first, said_by(first, 3))
            self.say(not first, said_by(not first, 4))
            self.assertEqual(self.told(first), [close(1002, "a frame with the reserved opcode 3")])
            told = self.told(not first)
            self.assertEqual([each.payload[:2] for each in told], [b"\x03\xe9"])
            self.end_both()
            self.assertEqual((self.flow.outcome, self.closed[0]), ("malformed", 1002))

    def test_one_that_should_have_answered_a_close_is_not_told_again(self):
        for first in BOTH:
            self.open(SMALL)
            self.say_close(not first, 1000)
            self.say(first, said_by(first, 3))
            self.assertEqual(self.told(first), [close(1000)])
            self.assertTrue(self.has_ended(self.peer(not first)) and self.has_ended(self.peer(first)))
            self.end_both()
            self.assertEqual((self.flow.outcome, self.closed), ("malformed", (1000, "", not first)))

    def test_a_slow_reader_gets_its_close(self):
        for first in BOTH:
            self.open()
            said = [said_by(not first, BINARY, bytes([number]) * 60000) for number in range(4)]
            for data in said:
                self.peer(not first).say(data)
            peer = self.peer(first)
            peer.say(said_by(first, 3))
            self.peer(not first).say(said_by(not first, CLOSE, close_payload(1001, "")))
            peer.heard.clear()
            for _ in range(12):
                peer.take(30_000)
                self.stage.clock.advance(4)
                self.peer(not first).take()
                self.stage.turn()
            heard = frames_of(bytes(peer.heard), not first)
            self.assertEqual([each.payload for each in heard[:-1]], [bytes([number]) * 60000 for number in range(4)])
            self.assertEqual(heard[-1], close(1002, "a frame with the reserved opcode 3"))

    def test_a_message_that_stands_still_ends_it_whatever_pings_come(self):
        for first in BOTH:
            self.open("timeouts: {idle: 100}")
            self.say(first, said_by(first, TEXT, b"begun", final=False))
            for _ in range(9):
                self.wait(10, 10)
                self.say(first, said_by(first, PING))
            self.assertEqual(self.stage.journal.flows, [])
            self.wait(20, 10)
            who = "client" if first else "origin"
            self.assertEqual((self.flow.outcome, self.flow.error), ("timed-out", f"the {who}'s message stood still"))

    def test_compressed_garbage_is_a_break_too(self):
        for first in BOTH:
            self.open(offers=(deflating(),), agrees=(deflating(),))
            self.say(first, said_by(first, TEXT, b"\xff" * 10, reserved=RSV1))
            (told,) = self.told(not first)
            self.assertEqual((told.opcode, told.payload[:2]), (CLOSE, b"\x03\xe9"))
            self.say_close(not first)
            (told,) = self.told(first)
            self.assertEqual((told.opcode, told.payload[:2]), (CLOSE, b"\x03\xea"))


class TcpCloseTests(CloseTests, EndTestCase):
    manner = TCP


class TlsCloseTests(CloseTests, EndTestCase):
    manner = TLS


class TcpLostTests(LostTests, EndTestCase):
    manner = TCP


class TlsLostTests(LostTests, EndTestCase):
    manner = TLS


class TcpBrokenTests(BrokenTests, EndTestCase):
    manner = TCP


class TlsBrokenTests(BrokenTests, EndTestCase):
    manner = TLS
