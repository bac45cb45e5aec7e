"""Large reads are for who fills them."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.memory import Memory
from streamproxy.stream.read_size import FULL_READS, LARGE_READ, READ, SMALL_READ, ReadSize


class FakeTransport:
    bufferSize = READ


class ReadSizeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = FakeTransport()
        self.read_size = ReadSize(self.transport)

    def saw(self, *sizes: int) -> int:
        for size in sizes:
            self.read_size.saw(size)
        return self.transport.bufferSize

    def test_it_stays_as_it_is_for_what_does_not_fill_it(self) -> None:
        self.assertEqual(self.saw(*[READ - 1] * 100), READ)
        self.assertEqual(self.saw(*([READ] * (FULL_READS - 1) + [1]) * 10), READ)

    def test_it_grows_with_the_last_of_so_many_full_reads_in_a_row(self) -> None:
        self.assertEqual(self.saw(*[READ] * (FULL_READS - 1)), READ)
        self.assertEqual(self.saw(READ), LARGE_READ)
        self.assertEqual(self.saw(LARGE_READ, READ, LARGE_READ - 1), LARGE_READ)

    def test_it_shrinks_with_the_first_that_is_not_full(self) -> None:
        self.saw(*[READ] * FULL_READS)
        self.assertEqual(self.saw(READ - 1), READ)
        self.assertEqual(self.saw(*[READ] * (FULL_READS - 1)), READ)
        self.assertEqual(self.saw(READ), LARGE_READ)

    def test_what_has_no_such_size_is_left_alone(self) -> None:
        read_size = ReadSize(object())
        for _ in range(FULL_READS + 1):
            read_size.saw(READ)
        read_size.saw(1)

    def test_it_is_small_while_memory_is_scarce_and_as_before_when_it_is_not(self) -> None:
        memory = Memory(1000)
        self.read_size = ReadSize(self.transport, memory=memory)
        memory.add(501)
        self.assertEqual(self.saw(10), SMALL_READ)
        self.assertEqual(self.saw(*[SMALL_READ] * 20), SMALL_READ)
        memory.give_back(1)
        self.assertEqual(self.saw(SMALL_READ), READ)
        self.assertEqual(self.saw(*[READ] * FULL_READS), LARGE_READ)
        memory.add(1)
        self.assertEqual(self.saw(LARGE_READ), SMALL_READ)
