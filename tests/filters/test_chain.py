"""Filters one behind the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Chain
from streamproxy.filters.replace import Replace


class Reluctant:
    """A filter that keeps the last byte back."""

    growth = 1.0

    def __init__(self) -> None:
        self.kept = b""
        self.fed: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self.fed.append(data)
        data = self.kept + data
        self.kept = data[-1:]
        return data[:-1]

    def finish(self) -> bytes:
        return self.kept + b"."


class ChainTests(SynchronousTestCase):
    def test_an_empty_chain_changes_nothing(self) -> None:
        chain = Chain()
        self.assertFalse(chain)
        self.assertEqual((chain.feed(b"ab"), chain.finish()), (b"ab", b""))

    def test_the_filters_work_in_their_order(self) -> None:
        chain = Chain([Replace([(b"a", b"b")]), Replace([(b"b", b"c")])])
        self.assertTrue(chain)
        self.assertEqual(chain.feed(b"ab") + chain.finish(), b"cc")

    def test_what_a_filter_gives_at_the_end_goes_through_those_behind_it(self) -> None:
        chain = Chain([Reluctant(), Replace([(b".", b"!")]), Reluctant()])
        self.assertEqual(chain.feed(b"abc"), b"a")
        self.assertEqual(chain.finish(), b"bc!.")

    def test_a_filter_isn_t_fed_nothing(self) -> None:
        last = Reluctant()
        chain = Chain([Reluctant(), last])
        chain.feed(b"a")
        self.assertEqual(last.fed, [])

    @given(st.lists(st.binary(max_size=4), max_size=8))
    def test_a_chain_in_a_chain_is_the_same_as_one(self, pieces: list[bytes]) -> None:
        def run(chain: Chain) -> bytes:
            return b"".join(map(chain.feed, pieces)) + chain.finish()

        def parts() -> list[Replace]:
            return [Replace([(b"\0\0", b"\0")]), Replace([(b"\0", b"\1\1")])]

        self.assertEqual(run(Chain(parts())), run(Chain([Chain(parts()[:1]), Chain(parts()[1:])])))
