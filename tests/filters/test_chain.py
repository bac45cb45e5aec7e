"""Filters one behind the other, and what they give in place of bytes."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Chain, Filter, Pause, Piece
from streamproxy.filters.replace import Replace, literal
from tests.wire.reading import property_of


class Reluctant:
    """Keeps the last byte back, and puts a full stop at the end."""

    def __init__(self) -> None:
        self.kept = b""
        self.fed: list[bytes] = []
        self.aborted: list[str] = []

    def feed(self, data: bytes) -> Iterator[Piece]:
        self.fed.append(data)
        data = self.kept + data
        self.kept = data[-1:]
        yield data[:-1]

    def finish(self) -> Iterator[Piece]:
        yield self.kept
        yield b"."

    def abort(self, why: str) -> None:
        self.aborted.append(why)


class Bytewise:
    """Gives each byte by itself, and tells when it does."""

    def __init__(self, told: list[bytes]) -> None:
        self.told = told

    def feed(self, data: bytes) -> Iterator[Piece]:
        for at in range(len(data)):
            self.told.append(data[at : at + 1])
            yield data[at : at + 1]

    def finish(self) -> Iterator[Piece]:
        yield from self.feed(b"!?")

    def abort(self, why: str) -> None:
        pass


class Waiting(Bytewise):
    """Waits before each of its pieces."""

    def __init__(self) -> None:
        super().__init__([])

    def feed(self, data: bytes) -> Iterator[Piece]:
        for piece in super().feed(data):
            yield Pause("a function")
            yield piece


def replace(find: bytes, put: bytes) -> Replace:
    return Replace([literal(find, put)])


def run(chain: Filter, *pieces: bytes) -> bytes:
    """What comes out for a whole body; it must not wait."""
    out: list[Piece] = []
    for piece in pieces:
        out += chain.feed(piece)
    out += chain.finish()
    return b"".join(out)  # type: ignore[arg-type]


class ChainTests(SynchronousTestCase):
    def test_an_empty_chain_changes_nothing(self) -> None:
        chain = Chain()
        self.assertFalse(chain)
        self.assertEqual((list(chain.feed(b"ab")), list(chain.finish())), ([b"ab"], []))

    def test_the_filters_work_in_their_order(self) -> None:
        chain = Chain([replace(b"a", b"b"), replace(b"b", b"c")])
        self.assertTrue(chain)
        self.assertEqual(run(chain, b"ab"), b"cc")

    def test_what_a_filter_gives_at_the_end_goes_through_those_behind_it(self) -> None:
        chain = Chain([Reluctant(), replace(b".", b"!"), Reluctant()])
        self.assertEqual(b"".join(chain.feed(b"abc")), b"a")
        self.assertEqual(b"".join(chain.finish()), b"bc!.")

    def test_a_filter_is_not_fed_nothing(self) -> None:
        for filters in (1, 2, 3):
            last = Reluctant()
            chain = Chain([*(Reluctant() for _ in range(filters)), last])
            list(chain.feed(b"a"))
            self.assertEqual(last.fed, [])

    def test_nor_at_the_end(self) -> None:
        last = Reluctant()
        self.assertEqual(b"".join(Chain([Reluctant(), last]).finish()), b"..")
        self.assertEqual(last.fed, [b"."])

    def test_each_piece_goes_all_the_way_before_the_next_is_made(self) -> None:
        for chain_of_one in (True, False):
            told: list[bytes] = []
            filters = [Bytewise(told)] if chain_of_one else [Bytewise(told), replace(b"x", b"y"), Bytewise([])]
            made = iter(Chain(filters).feed(b"abc"))
            self.assertEqual(told, [])
            self.assertEqual((next(made), told), (b"a", [b"a"]))
            self.assertEqual((next(made), told), (b"b", [b"a", b"b"]))

    def test_the_end_is_made_piece_by_piece_too(self) -> None:
        told: list[bytes] = []
        made = Chain([Bytewise(told), Bytewise([])]).finish()
        self.assertEqual((next(made), told), (b"!", [b"!"]))

    def test_a_filter_ends_when_those_before_it_have(self) -> None:
        first, last = Reluctant(), Reluctant()
        chain = Chain([first, last])
        list(chain.feed(b"ab"))
        self.assertEqual(last.fed, [b"a"])
        self.assertEqual(b"".join(chain.finish()), b"ab..")
        self.assertEqual(last.fed, [b"a", b"b", b"."])

    def test_all_hear_of_it_when_the_body_is_given_up(self) -> None:
        filters = [Reluctant(), Reluctant()]
        Chain([filters[0], Chain(filters[1:])]).abort("client-gone")
        self.assertEqual([each.aborted for each in filters], [["client-gone"]] * 2)

    @property_of(60)
    @given(st.lists(st.binary(max_size=4), max_size=8))
    def test_a_chain_in_a_chain_is_the_same_as_one(self, pieces: list[bytes]) -> None:
        def parts() -> list[Replace]:
            return [replace(b"\0\0", b"\0"), replace(b"\0", b"\1\1")]

        pieces = [piece for piece in pieces if piece]
        self.assertEqual(run(Chain(parts()), *pieces), run(Chain([Chain(parts()[:1]), Chain(parts()[1:])]), *pieces))

    @property_of(60)
    @given(st.lists(st.binary(min_size=1, max_size=6), max_size=6))
    def test_any_cut_comes_out_as_the_whole_does(self, pieces: list[bytes]) -> None:
        def chain() -> Chain:
            return Chain([Reluctant(), replace(b"\0\0", b"."), Bytewise([]), replace(b"..", b"")])

        whole = b"".join(pieces)
        self.assertEqual(run(chain(), *pieces), run(chain(), *([whole] if whole else [])))


class PausesInChainsTests(SynchronousTestCase):
    def test_they_pass_the_filters_behind_in_their_place(self) -> None:
        for before, behind in ((0, 0), (0, 1), (1, 0), (2, 2)):
            others = [replace(b"x", b"y") for _ in range(before + behind)]
            chain = Chain([*others[:before], Waiting(), *others[before:]])
            for made in (chain.feed(b"ab"), chain.finish()):
                kinds = [type(piece) for piece in made]
                self.assertEqual(kinds, [Pause, bytes, Pause, bytes], (before, behind))

    def test_nothing_behind_one_is_made_before_it_is_asked_for(self) -> None:
        first = Waiting()
        made = iter(Chain([first, Bytewise([])]).feed(b"ab"))
        self.assertEqual((type(next(made)), first.told), (Pause, [b"a"]))
        self.assertEqual((next(made), first.told), (b"a", [b"a"]))


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pause = Pause("a function")
        self.told: list[str] = []

    def tell(self) -> None:
        self.told.append("over")

    def test_who_waits_is_told_when_it_is_over(self) -> None:
        self.pause.then(self.tell)
        self.assertEqual((self.told, self.pause.over), ([], False))
        self.pause.settle(3)
        self.assertEqual((self.told, self.pause.over, self.pause.result()), (["over"], True, 3))

    def test_who_comes_late_is_told_at_once(self) -> None:
        self.pause.settle()
        self.pause.then(self.tell)
        self.assertEqual(self.told, ["over"])

    def test_it_is_over_already_when_that_is_told(self) -> None:
        self.pause.then(lambda: self.told.append(str(self.pause.result())))
        self.pause.settle("yes")
        self.assertEqual(self.told, ["yes"])

    def test_it_is_settled_once(self) -> None:
        self.pause.then(self.tell)
        self.pause.settle(1)
        self.pause.settle(2)
        self.pause.fail(ValueError())
        self.assertEqual((self.told, self.pause.result(), self.pause.error), (["over"], 1, None))

    def test_what_it_failed_with_is_raised_to_each_who_asks(self) -> None:
        self.pause.then(self.tell)
        self.pause.fail(ValueError("no"))
        self.pause.settle(1)
        self.assertEqual((self.told, self.pause.over), (["over"], True))
        for _ in range(2):
            self.assertRaises(ValueError, self.pause.result)

    def test_of_several_who_wait_the_last_is_told(self) -> None:
        self.pause.then(lambda: self.told.append("first"))
        self.pause.then(self.tell)
        self.pause.settle()
        self.assertEqual(self.told, ["over"])

    def test_it_says_for_what_it_is(self) -> None:
        self.assertEqual(repr(self.pause), "<Pause: a function>")
        self.pause.settle()
        self.assertEqual(repr(self.pause), "<Pause: a function, over>")
