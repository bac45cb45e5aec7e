"""One deadline for each connection."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.deadline = Deadline(self.clock)
        self.fired = []

    def expire(self):
        self.fired.append(self.clock.seconds())

    def test_it_fires_once_when_its_time_is_up(self):
        self.deadline.set(5, self.expire)
        self.clock.pump([4.9, 0.1, 60])
        self.assertEqual(self.fired, [5])

    def test_moved_later_it_fires_at_the_later_time(self):
        self.deadline.set(5, self.expire)
        self.clock.advance(3)
        self.deadline.set(5, self.expire)
        self.clock.pump([2, 2, 1])
        self.assertEqual(self.fired, [8])

    def test_moved_earlier_it_fires_at_the_earlier_time(self):
        self.deadline.set(60, self.expire)
        self.deadline.set(1, self.expire)
        self.clock.advance(1)
        self.assertEqual(self.fired, [1])

    def test_set_again_a_thousand_times_it_costs_one_delayed_call(self):
        for _ in range(1000):
            self.deadline.set(5, self.expire)
            self.clock.advance(0.001)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_cleared_it_does_not_fire_and_can_be_set_again(self):
        self.deadline.set(5, self.expire)
        self.deadline.clear()
        self.clock.advance(10)
        self.assertEqual(self.fired, [])
        self.deadline.set(5, self.expire)
        self.clock.advance(5)
        self.assertEqual(self.fired, [15])

    def test_cancelled_it_leaves_nothing_behind(self):
        self.deadline.set(5, self.expire)
        self.deadline.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_can_be_set_from_what_it_calls(self):
        self.deadline.set(5, lambda: self.deadline.set(5, self.expire))
        self.clock.pump([5, 5])
        self.assertEqual(self.fired, [10])
