"""How much the process holds in all, and the shares of it."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.memory import Memory


class MemoryTests(SynchronousTestCase):
    def test_what_fits_is_taken_and_what_does_not_is_refused_and_counted(self) -> None:
        memory = Memory(10)
        self.assertEqual([memory.take(6), memory.take(5), memory.take(4)], [True, False, True])
        self.assertEqual((memory.held, memory.refused, memory.is_full, memory.is_passed), (10, 1, True, False))
        memory.give_back(10)
        self.assertEqual((memory.held, memory.is_full), (0, False))

    def test_what_has_come_already_is_counted_beyond_the_limit(self) -> None:
        memory = Memory(10)
        memory.add(12)
        self.assertTrue(memory.is_full and memory.is_passed)
        self.assertFalse(memory.take(0))

    def test_it_is_scarce_when_more_than_half_is_in_use(self) -> None:
        memory = Memory(10)
        memory.add(5)
        self.assertFalse(memory.is_scarce)
        memory.add(1)
        self.assertTrue(memory.is_scarce)


class ShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = Memory(100)

    def test_nobody_holds_more_than_half_and_others_have_the_rest(self) -> None:
        one, other = self.memory.share("one"), self.memory.share("other")
        self.assertTrue(one.take(50))
        self.assertFalse(one.take(1))
        self.assertTrue(one.is_full)
        self.assertFalse(other.is_full)
        self.assertTrue(other.take(40))
        self.assertFalse(other.take(11))
        self.assertEqual((self.memory.held, self.memory.refused), (90, 2))

    def test_what_was_refused_by_the_whole_is_not_held_in_the_share(self) -> None:
        one = self.memory.share("one")
        self.memory.add(90)
        self.assertFalse(one.take(20))
        self.assertEqual((one.held, self.memory.held), (0, 90))

    def test_it_is_the_same_for_all_who_use_it_and_forgotten_with_the_last(self) -> None:
        one = self.memory.share("one")
        self.assertIs(self.memory.share("one"), one)
        self.memory.leave("one")
        self.assertIs(self.memory.share("one"), one)
        self.memory.leave("one")
        self.memory.leave("one")
        self.assertIsNot(self.memory.share("one"), one)

    def test_what_is_given_back_later_is_given_back_to_the_whole(self) -> None:
        one = self.memory.share("one")
        one.add(30)
        self.memory.leave("one")
        one.give_back(30)
        self.assertEqual((one.held, self.memory.held), (0, 0))

    def test_a_whole_that_is_full_leaves_no_share_any_room(self) -> None:
        one = self.memory.share("one")
        self.memory.add(101)
        self.assertTrue(one.is_full and one.is_passed)
