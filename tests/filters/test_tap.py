"""What is recorded of bodies that go by."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.tap import Budget, Captured, InMemory, Tap
from tests.wire.reading import bytewise, property_of

PLENTY = 1 << 30


class Disk:
    """A store in a file, on a disk that has room for so many bytes."""

    path = "/somewhere"

    def __init__(self, room: int) -> None:
        self.room = room
        self.refused = 0
        self.closed = 0

    def write(self, data: bytes) -> None:
        if len(data) > self.room:
            self.refused += 1
            raise OSError(28, "No space left on device")
        self.room -= len(data)

    def content(self) -> None:
        return None

    def close(self) -> None:
        self.closed += 1


def in_memory(limit: int, budget: Budget) -> Tap:
    return Tap(limit, budget, InMemory())


class TapTests(SynchronousTestCase):
    @property_of(200)
    @given(
        st.lists(st.binary(max_size=9), max_size=12),
        st.integers(0, 60),
        st.integers(0, 60),
        st.booleans(),
    )
    def test_however_a_body_is_cut_its_beginning_is_kept_and_all_of_it_counted(
        self, pieces: list[bytes], limit: int, left: int, whole: bool
    ) -> None:
        budget = Budget(left)
        tap = in_memory(limit, budget)
        for piece in pieces:
            tap.take(piece)
        if whole:
            tap.end()
        recorded = tap.close()
        body = b"".join(pieces)
        kept = body[: min(limit, left)]
        self.assertEqual((recorded.content, recorded.kept), (kept, len(kept)))
        self.assertEqual((recorded.size, recorded.sha256), (len(body), hashlib.sha256(body).hexdigest()))
        self.assertEqual(recorded.cut, not whole or len(kept) < len(body))
        self.assertEqual(budget.left, left - len(kept))
        tap.release()
        self.assertEqual(budget.left, left)

    def test_a_body_that_is_just_as_large_as_the_limit_is_whole(self) -> None:
        for pieces in ([b"abcd"], bytewise(b"abcd")):
            tap = in_memory(4, Budget(4))
            for piece in pieces:
                tap.take(piece)
            tap.end()
            self.assertFalse(tap.recorded().cut)
            tap.take(b"e")
            self.assertTrue(tap.recorded().cut)
            self.assertEqual(tap.recorded().content, b"abcd")

    def test_a_body_that_did_not_end_well_is_cut(self) -> None:
        tap = in_memory(PLENTY, Budget(PLENTY))
        tap.take(b"abc")
        self.assertTrue(tap.close().cut)

    def test_an_empty_body_is_recorded_as_such(self) -> None:
        tap = in_memory(PLENTY, Budget(PLENTY))
        tap.end()
        recorded = tap.close()
        self.assertEqual((recorded.size, recorded.kept, recorded.cut, recorded.content), (0, 0, False, b""))
        self.assertEqual(recorded.sha256, hashlib.sha256(b"").hexdigest())

    def test_a_limit_of_none_records_no_byte_but_the_size(self) -> None:
        budget = Budget(10)
        tap = in_memory(0, budget)
        tap.take(b"abc")
        tap.end()
        recorded = tap.close()
        self.assertEqual((recorded.size, recorded.kept, recorded.cut, recorded.content), (3, 0, True, b""))
        self.assertEqual(budget.left, 10)

    def test_behind_a_gap_nothing_is_kept_though_there_is_room_again(self) -> None:
        budget = Budget(2)
        tap = in_memory(PLENTY, budget)
        tap.take(b"abc")
        budget.give_back(100)
        tap.take(b"def")
        self.assertEqual((tap.recorded().content, budget.left), (b"ab", 100))

    def test_bodies_share_a_budget(self) -> None:
        budget = Budget(5)
        first, second = in_memory(PLENTY, budget), in_memory(PLENTY, budget)
        first.take(b"abc")
        second.take(b"defg")
        self.assertEqual((first.recorded().content, second.recorded().content, budget.left), (b"abc", b"de", 0))
        first.release()
        self.assertEqual(budget.left, 3)

    def test_the_budget_gets_back_once_what_was_kept(self) -> None:
        budget = Budget(10)
        tap = in_memory(4, budget)
        tap.take(b"abcdef")
        tap.close()
        for _ in range(3):
            tap.release()
        self.assertEqual(budget.left, 10)

    def test_nothing_is_kept_behind_the_close(self) -> None:
        for body in (b"", b"ab"):
            budget = Budget(10)
            tap = in_memory(8, budget)
            if body:
                tap.take(body)
            tap.close()
            tap.release()
            tap.take(b"late")
            self.assertEqual(budget.left, 10)

    def test_what_is_recorded_so_far_can_be_seen_while_it_goes_on(self) -> None:
        tap = in_memory(PLENTY, Budget(PLENTY))
        tap.take(b"ab")
        first = tap.recorded()
        tap.take(b"cd")
        self.assertEqual((first.content, first.size, tap.recorded().content), (b"ab", 2, b"abcd"))


class FileTests(SynchronousTestCase):
    def test_a_full_disk_ends_the_record_and_not_the_body(self) -> None:
        disk, budget = Disk(5), Budget(100)
        tap = Tap(50, budget, disk)
        for piece in (b"abc", b"def", b"g", b"h"):
            tap.take(piece)
        tap.end()
        recorded = tap.close()
        self.assertEqual((recorded.size, recorded.kept, recorded.cut), (8, 3, True))
        self.assertEqual(recorded.sha256, hashlib.sha256(b"abcdefgh").hexdigest())
        self.assertEqual((disk.refused, disk.closed), (1, 1), "it isn't tried again")
        self.assertEqual(budget.left, 97)

    def test_a_file_that_can_not_be_made_takes_nothing_of_the_budget(self) -> None:
        disk, budget = Disk(0), Budget(100)
        tap = Tap(50, budget, disk)
        tap.take(b"abc")
        tap.take(b"def")
        self.assertEqual((disk.refused, budget.left, tap.recorded().kept), (1, 100, 0))

    def test_what_is_in_files_is_not_given_back(self) -> None:
        budget = Budget(100)
        tap = Tap(50, budget, Disk(50))
        tap.take(b"abc")
        recorded = tap.close()
        tap.release()
        self.assertEqual((budget.left, recorded.path, recorded.content), (97, "/somewhere", None))


class CapturedTests(SynchronousTestCase):
    def test_closing_it_says_what_was_recorded_and_frees_its_memory(self) -> None:
        budget = Budget(100)
        received, sent = in_memory(50, budget), in_memory(50, budget)
        captured = Captured(received, sent)
        received.take(b"abc")
        received.end()
        sent.take(b"ABCD")
        self.assertEqual((captured.received.content, captured.sent.content, budget.left), (b"abc", b"ABCD", 93))
        came, went = captured.close()
        self.assertEqual((came.content, came.cut, went.content, went.cut), (b"abc", False, b"ABCD", True))
        self.assertEqual(budget.left, 100)
