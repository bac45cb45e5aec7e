"""Literal texts replaced in a stream: as one pass over the whole would."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE
from streamproxy.filters.replace import Replace, literal

Pairs = list[tuple[bytes, bytes]]

MANY = 64
# None of them is in the bodies below.
FILLERS: Pairs = [(b"filler %d" % number, b"?") for number in range(MANY)]


def small(letters: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(letters), min_size=least, max_size=most).map(bytes)


PAIRS = st.sampled_from([b"a", b"ab", b"abc"]).flatmap(
    lambda letters: st.lists(st.tuples(small(letters, 1, 6), small(letters + b"x", 0, 3)), min_size=1, max_size=4)
)
PIECES = st.lists(small(b"abc", 0, 7), max_size=12) | st.lists(small(b"ab", 0, 7), max_size=12)


def in_one_pass(pairs: Pairs, body: bytes) -> bytes:
    puts = dict(reversed(pairs))  # of two equal finds the first wins
    return re.sub(b"|".join(re.escape(find) for find, _ in pairs), lambda found: puts[found[0]], body)


def replacing(pairs: Pairs) -> Replace:
    return Replace([literal(find, put) for find, put in pairs])


def feed(stage: Replace, piece: bytes) -> bytes:
    return b"".join(stage.feed(piece))


def streamed(pairs: Pairs, pieces: Iterable[bytes]) -> bytes:
    stage = replacing(pairs)
    return b"".join([feed(stage, piece) for piece in pieces]) + b"".join(stage.finish())


def singles(body: bytes) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))]


class ReplaceTests(SynchronousTestCase):
    @settings(max_examples=600, deadline=None)
    @given(PAIRS, PIECES)
    def test_every_split_gives_what_one_pass_over_the_whole_gives(self, pairs: Pairs, pieces: list[bytes]) -> None:
        self.assertEqual(streamed(pairs, pieces), in_one_pass(pairs, b"".join(pieces)))

    @settings(max_examples=300, deadline=None)
    @given(PAIRS, PIECES)
    def test_byte_by_byte_gives_the_same(self, pairs: Pairs, pieces: list[bytes]) -> None:
        body = b"".join(pieces)
        self.assertEqual(streamed(pairs, singles(body)), in_one_pass(pairs, body))

    @settings(max_examples=300, deadline=None)
    @given(PAIRS, PIECES, st.integers(0, MANY))
    def test_many_literals_give_the_same(self, pairs: Pairs, pieces: list[bytes], at: int) -> None:
        body = b"".join(pieces)
        many = FILLERS[:at] + pairs + FILLERS[at:]
        self.assertEqual(streamed(many, pieces), in_one_pass(pairs, body))
        self.assertEqual(streamed(many, singles(body)), in_one_pass(pairs, body))

    @settings(max_examples=600, deadline=None)
    @given(PAIRS, PIECES, st.booleans())
    def test_what_is_held_is_never_decided_yet(self, pairs: Pairs, pieces: list[bytes], many: bool) -> None:
        """Each held tail has an end that makes its first byte begin a find, and one that doesn't make it that."""
        stage = replacing(FILLERS + pairs if many else pairs)
        sent = body = b""
        for piece in pieces:
            sent += feed(stage, piece)
            body += piece
            held = stage.held
            self.assertLess(len(held), max(len(find) for find, _ in pairs))
            if not held:
                # Nothing is left out either: what comes next begins anew.
                self.assertEqual(sent, in_one_pass(pairs, body))
                continue
            before = body[: len(body) - len(held)]
            could_be = [find for find, _ in pairs if find.startswith(held) and find != held]
            self.assertTrue(could_be, "no find begins with what is held")
            fresh = [(find, b"<%d>" % order) for order, (find, _) in enumerate(pairs)]
            marked = in_one_pass(fresh, before)
            ends = {in_one_pass(fresh, body + find[len(held) :])[len(marked) :] for find in could_be}
            ends.add(in_one_pass(fresh, body)[len(marked) :])
            firsts = {end[:3] if end.startswith(b"<") else end[:1] for end in ends}
            self.assertGreater(len(firsts), 1, "what is held was decided already")

    def test_the_leftmost_wins_then_the_first_listed(self) -> None:
        table: list[tuple[Pairs, bytes, bytes]] = [
            ([(b"ab", b"1"), (b"bc", b"2")], b"abc", b"1c"),
            ([(b"bc", b"2"), (b"ab", b"1")], b"abc", b"1c"),
            ([(b"a", b"1"), (b"ab", b"2")], b"ab", b"1b"),
            ([(b"ab", b"2"), (b"a", b"1")], b"aab", b"12"),
            ([(b"aa", b"a")], b"aaaaa", b"aaa"),
            ([(b"a", b"aa")], b"aa", b"aaaa"),
            ([(b"a", b""), (b"a", b"x")], b"ba", b"b"),
            ([(b"x", b"")], b"", b""),
            ([(b"\0\xff", b"\n")], b"\0\0\xff", b"\0\n"),
            ([(b"a.c", b"1")], b"abca.c", b"abc1"),
        ]
        for pairs, body, result in table:
            self.assertEqual(streamed(pairs, [body]), result)
            self.assertEqual(streamed(pairs + FILLERS, [body]), result)

    def test_what_can_t_begin_a_find_leaves_at_once(self) -> None:
        stage = replacing([(b"secret", b"***")])
        self.assertEqual(
            [feed(stage, piece) for piece in (b"x", b"the s", b"e", b"a", b"sec", b"ret", b"!")],
            [b"x", b"the ", b"", b"sea", b"", b"***", b"!"],
        )

    def test_a_find_that_a_later_one_can_t_displace_leaves_at_once(self) -> None:
        self.assertEqual(feed(replacing([(b"a", b"1"), (b"ab", b"2")]), b"a"), b"1")
        self.assertEqual(feed(replacing([(b"ab", b"2"), (b"a", b"1")]), b"a"), b"")

    def test_what_no_find_touches_is_the_very_same_bytes(self) -> None:
        data = b"nothing to see here"
        [out] = replacing([(b"foo", b"bar")]).feed(data)
        self.assertIs(out, data)

    def test_an_empty_find_is_refused(self) -> None:
        self.assertRaises(ValueError, literal, b"", b"x")

    def test_a_find_longer_than_what_may_be_held_is_refused(self) -> None:
        self.assertRaises(ValueError, literal, b"x" * 10, b"", hold_back=8)
        self.assertEqual(literal(b"x" * 9, b"", hold_back=8).find, b"x" * 9)

    def test_nothing_to_replace_changes_nothing(self) -> None:
        self.assertEqual(streamed([], [b"ab", b"c"]), b"abc")

    def test_much_made_of_little_comes_in_pieces(self) -> None:
        stage = replacing([(b"a", b"x" * 1000)])
        pieces = list(stage.feed(b"a" * 1000))
        self.assertEqual(sum(map(len, pieces)), 1_000_000)
        self.assertLess(max(map(len, pieces)), PIECE + 1001)

    def test_much_made_of_little_is_made_as_it_is_taken(self) -> None:
        stage = replacing([(b"a", b"x" * 1000)])
        taken = iter(stage.feed(b"a" * 100_000))
        began = time.perf_counter()
        next(taken)  # type: ignore[call-overload]
        self.assertLess(time.perf_counter() - began, 0.05)


class ReleaseTests(SynchronousTestCase):
    def test_what_is_held_can_be_let_go(self) -> None:
        stage = replacing([(b"secret", b"***")])
        self.assertEqual(feed(stage, b"the sec"), b"the ")
        self.assertEqual(stage.held, b"sec")
        self.assertEqual(stage.release(), b"sec")
        self.assertEqual(stage.held, b"")
        self.assertEqual(feed(stage, b"ret secret"), b"ret ***")
        self.assertEqual(stage.release(), b"")

    def test_nothing_is_let_go_before_what_came_first_was_taken(self) -> None:
        stage = replacing([(b"secret", b"***")])
        made = stage.feed(b"a secret sec")
        self.assertEqual((stage.held, stage.release()), (b"", b""))
        self.assertEqual(b"".join(made), b"a *** ")
        self.assertEqual(stage.release(), b"sec")

    def test_a_body_given_up_holds_nothing(self) -> None:
        stage = replacing([(b"secret", b"***")])
        list(stage.feed(b"sec"))
        stage.abort("gone")
        self.assertEqual(stage.held, b"")


class SpeedTests(SynchronousTestCase):
    """Bounds an order of magnitude above what is seen: they catch a wrong power, not a slow machine."""

    def seconds(self, pairs: Pairs, pieces: list[bytes]) -> float:
        stage = replacing(pairs)
        began = time.perf_counter()
        for piece in pieces:
            for _ in stage.feed(piece):
                pass
        return time.perf_counter() - began

    def test_without_finds_it_runs_at_the_speed_of_memory(self) -> None:
        piece = (b"The quick brown fox jumps over the lazy dog. " * 1500)[:65536]
        self.assertLess(self.seconds([(b"secret-key", b"***")], [piece] * 256), 1.0)  # 16 MiB

    def test_long_finds_that_almost_match_are_no_trouble(self) -> None:
        long = b"a" * 4095 + b"b"
        for pairs in ([(long, b"")], [(b"a" * 2000 + b"b" + b"a" * 2000, b""), (b"aab", b"c")]):
            self.assertLess(self.seconds(pairs, [b"a" * 65536] * 16), 2.0)
            self.assertLess(self.seconds(pairs, [b"a"] * 20_000), 2.0)
            self.assertLess(self.seconds(pairs, ([b"a"] * 3999 + [b"c"]) * 5), 2.0)
            self.assertLess(self.seconds(pairs, [b"a" * 65535 + b"c"] * 16), 2.0)

    def test_many_finds_that_almost_match_are_no_trouble(self) -> None:
        pairs = [(b"a" * 20 + b"%d" % number, b"") for number in range(100)]
        self.assertLess(self.seconds(pairs, [b"a" * 65536] * 4), 10.0)
        self.assertLess(self.seconds(pairs, [b"a"] * 5_000), 10.0)
