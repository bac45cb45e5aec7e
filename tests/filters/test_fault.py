"""Bodies that go wrong on purpose: at the same place, however they are cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import FilterError, Pause
from streamproxy.filters.fault import EventCount, Fault, Struck
from streamproxy.wire.chunked import BodyWriter, ChunksKept, ChunksMade, Plain
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNK_END, END, BodyEvent, Chunk, End
from tests.wire.reading import answer, body_of, bytewise, property_of, read_until_error, responses, splits

ACTIONS = ("stall", "cut", "reset", "corrupt")
WHY = "rule 'x' made it fail"
# Every kind of line end, heartbeats, events of several lines, and one that has no data.
EVENTS = (
    b": hi\n\ndata: a\r\n\r\ndata: b\rdata: c\r\rid: 1\n\ndata:d\n\n\n: hi\r\n\r\ndata\revent: x\r\rdata: end\r\n\r\n"
)
TOKENS = [b"\n", b"\r", b"\r\n", b"data: x", b"data", b"dat", b"a:", b"datax", b": c", b"id", b" ", b"\xef\xbb\xbf"]


def event_ends(body: bytes) -> list[int]:
    """Where events end in `body`, by reading it line by line."""
    found, with_data = [], False
    at = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)", body[at:]):
        at += len(line)
        text = line.rstrip(b"\r\n")
        if text:
            with_data = with_data or text.partition(b":")[0] == b"data"
        elif with_data:
            with_data = False
            found.append(at)
    return found


def counted(pieces: Iterable[bytes]) -> list[int]:
    """Where an `EventCount` finds the ends of events, in the whole of `pieces`."""
    count = EventCount()
    found, before = [], 0
    for piece in pieces:
        found += [before + end for end in count.ends(piece)]
        before += len(piece)
    return [*found, before] if count.due else found


class Run:
    """What becomes of a body: `wire` is what was written, `error` what was raised, `pause` what was waited for."""

    def __init__(self, fault: Fault, writer: BodyWriter, reads: Iterable[list[BodyEvent]]) -> None:
        self.wire = b""
        self.error: Struck | None = None
        self.pause: Pause | None = None
        try:
            for events in reads:
                # As a body is sent on: each read by itself.
                for piece in fault.strike(iter([events]), writer):
                    if isinstance(piece, Pause):
                        self.pause = piece
                        return
                    self.wire += piece
        except Struck as error:
            self.error = error

    @property
    def struck(self) -> str:
        if self.error is not None:
            return "reset" if self.error.reset else "cut"
        return "" if self.pause is None else "stall"


def heard(wire: bytes, writer: BodyWriter) -> tuple[bytes, bool]:
    """The content of a body's `wire`, and whether it is refused."""
    if isinstance(writer, Plain):
        return wire, False
    events, error = read_until_error(responses(), answer(b"Transfer-Encoding: chunked"), *bytewise(wire))
    return body_of(events), error is not None


def in_chunks(*chunks: bytes) -> list[BodyEvent]:
    events: list[BodyEvent] = []
    for data in chunks:
        events += [Chunk(len(data)), data, CHUNK_END]
    return [*events, End(Headers([(b"X", b"1")]))]


def in_reads(events: list[BodyEvent], cuts: Iterable[int]) -> list[list[BodyEvent]]:
    """`events` as reads would bring them: cut behind so many bytes of content, and at each mark there."""
    cuts, at = set(cuts), 0
    reads: list[list[BodyEvent]] = [[]]
    for event in events:
        if type(event) is bytes:
            for byte in bytewise(event):
                last = reads[-1]
                if last and type(last[-1]) is bytes:
                    last[-1] += byte
                else:
                    last.append(byte)
                at += 1
                if at in cuts:
                    reads.append([])
        else:
            reads[-1].append(event)
            if at in cuts:
                reads.append([])
    return [read for read in reads if read]


def every_cut(events: list[BodyEvent]) -> Iterator[list[list[BodyEvent]]]:
    """`events` in one read, in two at every place, and as finely as can be."""
    size = len(body_of(events))
    yield [events]
    for at in range(size + 1):
        yield in_reads(events, [at])
    yield in_reads(events, range(size + 1))


class EventCountTests(SynchronousTestCase):
    def test_the_lines_of_this_test_are_what_they_should_be(self) -> None:
        self.assertEqual(len(event_ends(EVENTS)), 5)
        self.assertEqual(event_ends(b"\xef\xbb\xbfdata: a\n\n"), [12])

    def test_any_two_parts_have_the_events_of_the_whole(self) -> None:
        for bom in (b"", b"\xef\xbb\xbf"):
            whole = event_ends(bom + EVENTS)
            self.assertEqual(counted([bom + EVENTS]), whole)
            self.assertEqual(counted(bytewise(bom + EVENTS)), whole)
            for pieces in splits(bom + EVENTS):
                self.assertEqual(counted(pieces), whole, pieces)

    @property_of(300)
    @given(
        st.lists(
            st.sampled_from(TOKENS),
            max_size=14,
        ).map(b"".join),
        st.lists(st.integers(1, 40), max_size=12),
    )
    def test_however_it_is_cut_it_has_the_events_that_its_lines_have(self, body: bytes, cuts: list[int]) -> None:
        places = [0, *sorted({cut for cut in cuts if cut < len(body)}), len(body)]
        pieces = [body[begin:end] for begin, end in pairwise(places) if begin < end]
        self.assertEqual(counted(pieces), event_ends(body))

    def test_an_event_is_counted_as_soon_as_its_last_byte_is_there(self) -> None:
        for event in (b"data: a\n\n", b"data: a\r\n\r\n"):
            self.assertEqual(list(EventCount().ends(event)), [len(event)])

    def test_heartbeats_are_no_events(self) -> None:
        self.assertEqual(counted([b": hi\n\n\n\nevent: ping\n\nid: 1\r\n\r\n"]), [])

    def test_only_the_first_line_may_begin_with_a_byte_order_mark(self) -> None:
        self.assertEqual(counted([b"\xef\xbb\xbfdata\n\n"]), [9])
        self.assertEqual(counted([b"\n\xef\xbb\xbfdata\n\n"]), [])

    def test_nothing_is_kept_of_a_long_line(self) -> None:
        count = EventCount()
        for _ in range(1000):
            self.assertEqual(list(count.ends(b"data" * 1000)), [])
        self.assertLess(len(count._line), 100)


class StrikeTests(SynchronousTestCase):
    """Each unit with each action and each writer, at every place where a body may be cut."""

    def check(self, unit: str, after: int, events: list[BodyEvent], writer: BodyWriter, before: int) -> None:
        """A fault `after` so many strikes behind `before` bytes of content, and the wire doesn't depend on the cuts."""
        content = body_of(events)
        for action in ACTIONS:
            wires = set()
            for reads in every_cut(events):
                run = Run(Fault(after, unit, action, WHY), writer, reads)
                got, refused = heard(run.wire, writer)
                wires.add(run.wire)
                if action != "corrupt":
                    self.assertEqual((run.struck, got, refused), (action, content[:before], False), (action, reads))
                elif isinstance(writer, Plain):
                    self.assertEqual((run.struck, len(got)), ("", len(content)))
                    garbled = [at for at, byte in enumerate(got) if byte != content[at]]
                    self.assertEqual(garbled, [before] if before < len(content) else [], reads)
                else:
                    self.assertEqual((run.struck, refused), ("", True), reads)
                    self.assertTrue(content.startswith(got), reads)
                    self.assertGreaterEqual(len(got), before)
            if not isinstance(writer, ChunksMade):
                self.assertEqual(len(wires), 1)

    def test_bytes(self) -> None:
        content = b"0123456789abc"
        for writer in (Plain(), ChunksMade(4096), ChunksMade(9)):
            for after in range(len(content) + 1):
                self.check("bytes", after, [content, END], writer, after)

    def test_bytes_in_chunks_that_are_kept(self) -> None:
        for after in range(11):
            self.check("bytes", after, in_chunks(b"0123", b"4", b"56789"), ChunksKept(), after)

    def test_chunks_that_are_kept(self) -> None:
        for after, before in enumerate((0, 4, 5, 10)):
            self.check("chunks", after, in_chunks(b"0123", b"4", b"56789"), ChunksKept(), before)

    def test_chunks_of_the_other_side_where_these_are_not_kept(self) -> None:
        for after, before in enumerate((0, 4, 5, 10)):
            self.check("chunks", after, in_chunks(b"0123", b"4", b"56789"), Plain(), before)

    def test_events(self) -> None:
        for after, before in enumerate([0, *event_ends(EVENTS)]):
            for writer in (Plain(), ChunksMade(4096)):
                self.check("events", after, [EVENTS, END], writer, before)

    def test_events_in_chunks_that_are_kept(self) -> None:
        events = in_chunks(EVENTS[:17], EVENTS[17:40], EVENTS[40:])
        for after, before in enumerate([0, *event_ends(EVENTS)]):
            self.check("events", after, events, ChunksKept(), before)

    def test_an_event_that_ends_with_the_body_and_a_cr(self) -> None:
        body = b"data: a\r\rdata: b\r\r"
        self.check("events", 2, [body, END], Plain(), len(body))

    def test_an_event_whose_last_lf_is_in_another_chunk(self) -> None:
        body = in_chunks(b"data: a\r\n\r", b"\n", b"data: b\r\n\r\n")
        self.check("events", 1, body, ChunksKept(), 11)

    def test_without_chunks_what_is_written_at_once_is_one(self) -> None:
        for reads in ([[b"ab", b"c", b"def", END]], [[b"ab"], [b"c"], [b"def"], [END]], [[b"ab", b"c"], [b"def", END]]):
            for after, before in enumerate((b"", b"ab", b"abc", b"abcdef")):
                run = Run(Fault(after, "chunks", "cut", WHY), Plain(), reads)
                self.assertEqual((run.struck, run.wire), ("cut", before))

    def test_a_body_that_has_fewer_goes_as_it_is(self) -> None:
        made = ((10, "bytes"), (3, "chunks"), (5, "events"))
        bodies = in_chunks(b"0123", b"56789"), in_chunks(b"0123", b"56789"), in_chunks(EVENTS[:20], EVENTS[20:-20])
        for (after, unit), events in zip(made, bodies, strict=True):
            for writer in (Plain(), ChunksKept()):
                for action in ACTIONS:
                    for reads in every_cut(events):
                        run = Run(Fault(after, unit, action, WHY), writer, reads)
                        self.assertEqual((run.struck, run.wire), ("", writer.encode(events)), (unit, action, reads))

    def test_behind_nothing_not_even_an_empty_body_ends(self) -> None:
        for unit in ("bytes", "chunks", "events"):
            for action in ("stall", "cut", "reset"):
                run = Run(Fault(0, unit, action, WHY), ChunksKept(), [[END]])
                self.assertEqual((run.struck, run.wire), (action, b""))
            run = Run(Fault(0, unit, "corrupt", WHY), ChunksKept(), [[END]])
            self.assertEqual(run.wire, b"p\r\n\r\n")

    def test_what_is_raised_says_why(self) -> None:
        run = Run(Fault(0, "bytes", "cut", WHY), Plain(), [[b"a", END]])
        self.assertIsInstance(run.error, FilterError)
        self.assertEqual(str(run.error), WHY)

    @property_of(200)
    @given(
        st.lists(st.binary(min_size=1, max_size=12) | st.sampled_from([b"data: x\r\n\r\n", b"data\n\n"]), max_size=8),
        st.sampled_from(["bytes", "chunks", "events"]),
        st.integers(0, 20),
        st.sampled_from(ACTIONS),
        st.sampled_from([Plain(), ChunksKept()]),
        st.lists(st.integers(0, 96), max_size=30),
    )
    def test_any_cut_of_a_body_in_chunks_gives_the_same_wire(
        self, chunks: list[bytes], unit: str, after: int, action: str, writer: BodyWriter, cuts: list[int]
    ) -> None:
        events = in_chunks(*chunks)
        whole = Run(Fault(after, unit, action, WHY), writer, [events])
        cut = Run(Fault(after, unit, action, WHY), writer, in_reads(events, cuts))
        self.assertEqual((cut.wire, cut.struck), (whole.wire, whole.struck))


class CorruptTests(SynchronousTestCase):
    def test_one_byte_is_another(self) -> None:
        events = in_chunks(b"0123", b"456789abcdef", b"x")
        sound = ChunksKept().encode(events)
        for after in range(17):
            for reads in every_cut(events):
                wire = Run(Fault(after, "bytes", "corrupt", WHY), ChunksKept(), reads).wire
                different = [at for at, byte in enumerate(wire) if byte != sound[at]]
                self.assertEqual((len(wire), len(different)), (len(sound), 1), (after, reads))

    def test_whatever_the_size_of_a_chunk_that_is_made_its_line_is_refused(self) -> None:
        for size in (1, 9, 10, 15, 16, 160, 0xABC, 0xF000):
            run = Run(Fault(0, "bytes", "corrupt", WHY), ChunksMade(1 << 20), [[bytes(size), END]])
            self.assertEqual(heard(run.wire, ChunksMade(1 << 20)), (b"", True), size)

    def test_in_a_chunk_it_is_the_next_mark_that_is_garbled_and_the_bytes_before_it_do_not_wait(self) -> None:
        fault = Fault(2, "bytes", "corrupt", WHY)
        written = [
            b"".join(piece for piece in fault.strike(iter([events]), ChunksKept()) if isinstance(piece, bytes))
            for events in ([Chunk(6), b"ab"], [b"cd"], [b"ef"], [CHUNK_END], [END])
        ]
        self.assertEqual(written, [b"6\r\nab", b"cd", b"ef", b"M\n", b"0\r\n\r\n"])


class StallTests(SynchronousTestCase):
    def test_it_waits_for_ever_and_says_for_what(self) -> None:
        fault = Fault(2, "bytes", "stall", WHY)
        pieces = list(fault.strike(iter([[b"abc"], [b"def", END]]), Plain()))
        self.assertEqual((pieces[0], len(pieces)), (b"ab", 2))
        pause = pieces[1]
        assert isinstance(pause, Pause)
        self.assertEqual((pause.over, pause.why), (False, WHY))

    def test_nothing_stands_behind_it(self) -> None:
        fault = Fault(2, "bytes", "stall", WHY)
        self.assertEqual(len(list(fault.strike(iter([[b"abc"]]), Plain()))), 2)
        for events in ([b"more"], [END]):
            later = list(fault.strike(iter([events]), Plain()))
            self.assertEqual([type(piece) for piece in later], [Pause])


class WaitingTests(SynchronousTestCase):
    def test_a_pause_goes_by_in_its_place(self) -> None:
        pause = Pause("a function")
        fault = Fault(3, "bytes", "cut", WHY)
        made = fault.strike(iter([[b"a"], pause, [b"bcd"]]), Plain())
        self.assertEqual([next(made), next(made), next(made)], [b"a", pause, b"bc"])
        self.assertRaises(Struck, next, made)

    def test_nothing_is_taken_before_it_is_asked_for_nor_behind_the_fault(self) -> None:
        taken: list[int] = []

        def batches() -> Iterator[list[BodyEvent]]:
            for number in range(9):
                taken.append(number)
                yield [b"ab"]

        made = Fault(4, "bytes", "cut", WHY).strike(batches(), Plain())
        self.assertEqual(taken, [])
        self.assertEqual((next(made), next(made)), (b"ab", b"ab"))
        self.assertRaises(Struck, next, made)
        self.assertEqual(taken, [0, 1])
