"""What a rule does to a WebSocket's bytes, whatever they mean: faults, and captures."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Pause
from streamproxy.filters.fault import Struck
from streamproxy.filters.frame_fault import FrameFault
from streamproxy.wire.websocket import BINARY, CONTINUATION, PING, TEXT
from tests.filters.cutting import pieces, singly
from tests.proxy.websocket_talk import SocketTestCase, down, down_close, up, up_close

# A text in two frames with a ping between them, and two small ones: four frames of messages, and three messages.
SAID = [
    down(TEXT, b"one ", False),
    down(PING, b"p"),
    down(CONTINUATION, b"two"),
    down(BINARY, b"b" * 300),
    down(TEXT, b"last"),
]
WHOLE = b"".join(SAID)
# Three messages that are a frame each.
ROW = [down(TEXT, b"one"), down(BINARY, b"b" * 300), down(TEXT, b"last")]
WHY = "the fault of rule 'r'"


def struck(after: int, unit: str, action: str, parts: list[bytes]) -> tuple[bytes, str]:
    """What goes on of the parts, and how that ended."""
    fault = FrameFault(after, unit, action, WHY, False)
    out = b""
    try:
        for part in parts:
            for piece in fault.strike(part):
                if isinstance(piece, Pause):
                    return out, piece.why
                out += piece
    except Struck as error:
        return out, "reset" if error.reset else "cut"
    return out, ""


class FrameFaultTests(SynchronousTestCase):
    def cuts(self) -> list[list[bytes]]:
        return [[WHOLE], singly(WHOLE), *[pieces(WHOLE, [at]) for at in range(1, len(WHOLE), 7)]]

    def test_it_strikes_at_one_place_however_the_bytes_are_cut(self) -> None:
        ends = [len(b"".join(SAID[: number + 1])) for number in range(len(SAID))]
        cases = [(number + 1, "chunks", end) for number, end in enumerate(ends[:-1])]
        cases += [(1, "events", ends[2]), (2, "events", ends[3]), (0, "events", 0)]
        cases += [(5, "bytes", 5), (100, "bytes", 100), (0, "bytes", 0)]
        for after, unit, place in cases:
            for parts in self.cuts():
                for action in ("cut", "reset"):
                    self.assertEqual(struck(after, unit, action, parts), (WHOLE[:place], action), (after, unit))
                self.assertEqual(struck(after, unit, "stall", parts), (WHOLE[:place], WHY), (after, unit))

    def test_a_corrupt_one_garbles_the_head_of_the_next_frame_and_nothing_else(self) -> None:
        for after, unit, place in ((1, "chunks", 6), (1, "events", 14), (7, "bytes", 9), (0, "bytes", 0)):
            garbled = WHOLE[:place] + bytes((WHOLE[place] ^ 0x30,)) + WHOLE[place + 1 :]
            for parts in self.cuts():
                self.assertEqual(struck(after, unit, "corrupt", parts), (garbled, ""), (after, unit))

    def test_one_that_says_less_is_not_struck(self) -> None:
        for after, unit in ((6, "chunks"), (4, "events"), (len(WHOLE) + 1, "bytes")):
            for action in ("cut", "reset", "stall", "corrupt"):
                self.assertEqual(struck(after, unit, action, [WHOLE]), (WHOLE, ""))


class RuleTests(SocketTestCase):
    """Of rules, in both modes."""

    def each_mode(self, part: str):
        for streams in ("true", "false"):
            self.open(f"stream_websockets: {streams}\nrules: [{{name: r, {part}}}]")
            yield streams

    def test_a_cut_is_a_lost_connection_behind_what_came_before(self) -> None:
        for _ in self.each_mode("response: {fault: {after: {events: 1}, action: cut}}"):
            self.origin.say(b"".join(ROW))
            self.assertEqual(self.heard(), ROW[0])
            self.assertTrue(self.has_ended(self.client) and self.has_ended(self.origin))
            self.end_both()
            self.assertEqual(self.closed[0], 1006)
            self.check_ended("failed", "the cut of rule 'r'")

    def test_a_reset_is_one(self) -> None:
        for _ in self.each_mode("request: {fault: {after: {events: 1}, action: reset}}"):
            self.client.say(up(TEXT, b"a") + up(TEXT, b"b"))
            # A reset may take with it what was on its way; nothing comes behind it.
            self.assertNotIn(up(TEXT, b"b"), self.origin_heard())
            self.assertTrue(self.client.aborted and self.origin.aborted)
            self.check_ended("failed", "the reset of rule 'r'")

    def test_a_corrupt_frame_arrives_as_that(self) -> None:
        for _ in self.each_mode("response: {fault: {after: {events: 1}, action: corrupt}}"):
            self.origin.say(b"".join(ROW))
            garbled = bytes((ROW[1][0] ^ 0x30,)) + ROW[1][1:]
            self.assertEqual(self.heard(), ROW[0] + garbled + ROW[2])

    def test_one_that_stalls_says_no_more_and_the_other_goes_on(self) -> None:
        for _ in self.each_mode("response: {fault: {after: {events: 1}, action: stall}}"):
            self.origin.say(b"".join(ROW))
            self.assertEqual(self.heard(), ROW[0])
            self.client.say(up(TEXT, b"still"))
            self.assertEqual(self.origin_heard(), up(TEXT, b"still"))
            self.wait(301, 10)
            self.assertEqual(self.flow.outcome, "timed-out")

    def test_what_is_captured_are_its_bytes_of_wire_each_way(self) -> None:
        for streams in self.each_mode("request: {capture: {limit: 8}}, response: {capture: true}"):
            asked = up(TEXT, b"question") + up_close(1000)
            answered = b"".join(ROW) + down_close(1000)
            self.client.say(asked)
            self.origin.say(answered)
            self.end_both()
            self.check_ended()
            for record, said, kept in ((self.flow.request, asked, 8), (self.flow.response, answered, len(answered))):
                assert record.recorded is not None
                for side in record.recorded:
                    self.assertEqual((side.size, side.kept), (len(said), kept), streams)
                    self.assertEqual(side.sha256, hashlib.sha256(said).hexdigest())
                    self.assertEqual(side.cut, kept < len(said))
                    self.assertEqual(side.content, said[:kept])
