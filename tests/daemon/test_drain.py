"""How long what is under way has when the proxy stops, and what happens behind that."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon.drain import LAST_WORDS, LOOK, STOPPED, Drain


class FakeProxy:
    """Has `under_way` connections, of which a drain, a cut and an abort leave as many as are given for each."""

    def __init__(self, under_way: int, drained: int, cut: int, aborted: int) -> None:
        self.under_way = under_way
        self.left = {"drain": drained, "cut": cut, "abort": aborted}
        self.did: list[str] = []

    def _do(self, what: str) -> None:
        self.did.append(what)
        self.under_way = min(self.under_way, self.left[what])

    def drain(self) -> None:
        self._do("drain")

    def cut(self, why: str) -> None:
        assert why == STOPPED
        self._do("cut")

    def abort(self) -> None:
        self._do("abort")


class DrainTests(SynchronousTestCase):
    def begin(self, under_way: int, drained: int = 9, cut: int = 9, aborted: int = 0, seconds: float = 30.0) -> None:
        self.clock = Clock()
        self.proxy = FakeProxy(under_way, drained, cut, aborted)
        self.drain = Drain(self.proxy, self.clock, seconds)  # type: ignore[arg-type]
        self.over: list[float] = []
        self.drain.start().addCallback(lambda _: self.over.append(self.clock.seconds()))

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK)):
            self.clock.advance(LOOK)

    def assert_over(self, at: float, *did: str) -> None:
        """It ended at about that time, having done these, and nothing is left."""
        self.assertEqual(len(self.over), 1)
        self.assertTrue(at <= self.over[0] <= at + 2 * LOOK + 1e-6, self.over)
        self.assertEqual(self.proxy.did, list(did))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_nothing_under_way_it_is_over_at_once(self):
        self.begin(0)
        self.assert_over(0, "drain")
        self.begin(9, drained=0)
        self.assert_over(0, "drain")

    def test_it_is_over_as_soon_as_nothing_is_left(self):
        self.begin(3)
        self.wait(10)
        self.assertEqual(self.over, [])
        self.proxy.under_way = 0
        self.wait(1)
        self.assert_over(10, "drain")

    def test_what_is_left_behind_its_time_is_cut(self):
        self.begin(3, cut=0)
        self.wait(29)
        self.assertEqual(self.proxy.did, ["drain"])
        self.wait(2)
        self.assert_over(30, "drain", "cut")

    def test_what_does_not_end_when_it_is_cut_is_aborted_soon(self):
        self.begin(3)
        self.wait(40)
        self.assert_over(30 + LAST_WORDS, "drain", "cut", "abort")

    def test_what_does_not_even_end_then_is_left(self):
        self.begin(3, aborted=1)
        self.wait(40)
        self.assert_over(30 + 2 * LAST_WORDS, "drain", "cut", "abort")

    def test_without_any_time_it_is_cut_at_once(self):
        self.begin(3, cut=0, seconds=0)
        self.wait(1)
        self.assert_over(0, "drain", "cut")

    def test_who_is_in_a_hurry_need_not_wait(self):
        self.begin(3)
        self.wait(5)
        self.drain.cut()
        self.assertEqual(self.proxy.did, ["drain", "cut", "abort"])
        self.wait(1)
        self.assert_over(5, "drain", "cut", "abort")

    def test_nor_who_is_in_a_hurry_twice_or_too_late(self):
        self.begin(3, aborted=3)
        self.drain.cut()
        self.drain.cut()
        self.wait(LAST_WORDS + 1)
        self.drain.cut()
        self.assert_over(LAST_WORDS, "drain", "cut", "abort")

    def test_nor_behind_the_cut(self):
        self.begin(3, seconds=1)
        self.wait(1.2)
        self.assertEqual(self.proxy.did, ["drain", "cut"])
        self.drain.cut()
        self.wait(1)
        self.assert_over(1.2, "drain", "cut", "abort")
