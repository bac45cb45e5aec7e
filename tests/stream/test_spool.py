"""A body held whole."""

import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.spool import Spool, SpoolFull
from streamproxy.wire.chunked import ChunksKept
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNK_END, END, Chunk, End


def kept(spool):
    return list(spool.events())


class SpoolTests(SynchronousTestCase):
    def test_it_gives_back_bytes_joined_and_the_end(self):
        spool = Spool(100)
        for event in (b"ab", b"c", END):
            spool.add(event)
        self.assertEqual(kept(spool), [b"abc", END])
        self.assertEqual(len(spool), 3)

    def test_an_empty_body_is_its_end(self):
        spool = Spool(100)
        spool.add(END)
        self.assertEqual(kept(spool), [END])

    def test_it_gives_back_the_chunks_that_came(self):
        spool = Spool(100)
        end = End(Headers([(b"X", b"1")]))
        for event in (Chunk(2), b"a", b"b", CHUNK_END, Chunk(1), b"c", CHUNK_END, end):
            spool.add(event)
        self.assertEqual(kept(spool), [Chunk(2), b"ab", CHUNK_END, Chunk(1), b"c", CHUNK_END, end])

    def test_a_chunk_that_is_still_open_is_not_ended(self):
        spool = Spool(100)
        for event in (Chunk(2), b"ab", CHUNK_END, Chunk(9), b"c"):
            spool.add(event)
        self.assertEqual(kept(spool), [Chunk(2), b"ab", CHUNK_END, Chunk(9), b"c"])

    def test_a_chunk_whose_bytes_are_there_but_not_its_end_is_not_ended(self):
        spool = Spool(100)
        for event in (Chunk(2), b"ab"):
            spool.add(event)
        self.assertEqual(kept(spool), [Chunk(2), b"ab"])

    def test_a_chunk_of_which_no_byte_has_come_is_begun(self):
        spool = Spool(100)
        spool.add(Chunk(2))
        self.assertEqual(kept(spool), [Chunk(2)])

    def test_it_holds_its_limit_and_not_a_byte_more(self):
        spool = Spool(10)
        spool.add(bytes(10))
        self.assertRaises(SpoolFull, spool.add, b"x")
        self.assertEqual(len(spool), 10)

    def test_a_body_cut_very_fine_is_bounded_by_its_marks(self):
        spool = Spool(80000)
        with self.assertRaises(SpoolFull):
            for _ in range(80000):
                spool.add(Chunk(1))
                spool.add(b"x")
                spool.add(CHUNK_END)
        self.assertLess(sys.getsizeof(spool._content) + sys.getsizeof(spool._sizes), 2.5 * 80000)

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(0, 40), st.booleans())
    def test_stopped_anywhere_and_gone_on_with_it_writes_what_would_have_gone_on_at_once(self, chunks, at, split):
        events = []
        for data in chunks:
            events.append(Chunk(len(data)))
            if split and len(data) > 1:
                events += [data[:1], data[1:]]
            else:
                events.append(data)
            events.append(CHUNK_END)
        events.append(END)
        spool = Spool(1000)
        for event in events[:at]:
            spool.add(event)
        writer = ChunksKept()
        self.assertEqual(writer.encode(spool.events()) + writer.encode(events[at:]), writer.encode(events))


class ChangedSpoolTests(SynchronousTestCase):
    """What a body is when somebody has changed it while it was held."""

    def spool(self, *events):
        spool = Spool(100)
        for event in events:
            spool.add(event)
        return spool

    def test_its_content_is_all_its_bytes(self):
        spool = self.spool(Chunk(2), b"a", b"b", CHUNK_END, Chunk(1), b"c", CHUNK_END, END)
        self.assertEqual((spool.content, type(spool.content)), (b"abc", bytes))
        self.assertEqual(Spool(100).content, b"")

    def test_bytes_that_come_later_do_not_change_a_content_that_was_taken(self):
        spool = self.spool(b"ab")
        content = spool.content
        spool.add(b"c")
        self.assertEqual((content, spool.content), (b"ab", b"abc"))

    def test_another_content_goes_in_its_place(self):
        spool = self.spool(b"abc", END)
        spool.replace(b"longer than before")
        self.assertEqual((kept(spool), len(spool)), ([b"longer than before", END], 18))

    def test_another_content_is_one_chunk_where_there_were_any(self):
        end = End(Headers([(b"X", b"1")]))
        spool = self.spool(Chunk(1), b"a", CHUNK_END, Chunk(1), b"b", CHUNK_END, end)
        spool.replace(b"xyz")
        self.assertEqual(kept(spool), [Chunk(3), b"xyz", CHUNK_END, end])

    def test_no_content_is_no_chunk(self):
        spool = self.spool(Chunk(1), b"a", CHUNK_END, END)
        spool.replace(b"")
        self.assertEqual((kept(spool), len(spool)), ([END], 0))

    def test_another_content_may_be_larger_than_what_is_held(self):
        spool = self.spool(Chunk(1), b"a", CHUNK_END, END)
        spool.replace(bytes(1000))
        self.assertEqual(ChunksKept().encode(spool.events()), b"3e8\r\n" + bytes(1000) + b"\r\n0\r\n\r\n")

    def test_the_last_of_several_counts(self):
        spool = self.spool(Chunk(1), b"a", CHUNK_END, END)
        for content in (b"one", b"", b"last"):
            spool.replace(content)
        self.assertEqual(b"".join(event for event in kept(spool) if type(event) is bytes), b"last")

    def test_its_trailers_are_those_of_its_end(self):
        trailers = Headers([(b"X", b"1")])
        self.assertEqual(list(self.spool(b"a", End(trailers)).trailers), list(trailers))
        self.assertEqual(len(self.spool(b"a").trailers), 0)

    def test_other_trailers_stand_behind_the_same_content(self):
        spool = self.spool(Chunk(1), b"a", CHUNK_END, END)
        trailers = Headers([(b"X", b"1")])
        spool.trailers = trailers
        self.assertEqual(kept(spool), [Chunk(1), b"a", CHUNK_END, End(trailers)])

    @settings(derandomize=True, deadline=None, database=None)
    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.binary(max_size=40), st.booleans())
    def test_what_is_written_of_it_says_what_was_put_in(self, chunks, content, in_chunks):
        spool = Spool(1000)
        for data in chunks:
            for event in (Chunk(len(data)), data, CHUNK_END) if in_chunks else (data,):
                spool.add(event)
        spool.add(END)
        self.assertEqual(spool.content, b"".join(chunks))
        spool.replace(content)
        self.assertEqual((spool.content, len(spool)), (content, len(content)))
        written = kept(spool)
        self.assertEqual(b"".join(event for event in written if type(event) is bytes), content)
        marks = [event.size for event in written if type(event) is Chunk]
        self.assertEqual(
            marks if in_chunks and chunks else [], [len(content)] if in_chunks and chunks and content else []
        )
