"""Accepting pauses when file descriptors run short, and goes on when there are some again."""

from __future__ import annotations

import resource

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon import descriptors
from streamproxy.daemon.descriptors import AGAIN, LEAST_KEPT, Descriptors, raise_limit

LIMIT = 1024
KEPT = LIMIT // 8


class FakePort:
    def __init__(self) -> None:
        self.accepts = True
        self.numberAccepts = 100

    def stopReading(self) -> None:
        self.accepts = False

    def startReading(self) -> None:
        self.accepts = True


class FakeTransport:
    """That of a connection whose socket has this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class LimitCase(SynchronousTestCase):
    limits = (LIMIT, LIMIT)

    def setUp(self) -> None:
        self.set_to: list[tuple[int, int]] = []
        self.patch(resource, "getrlimit", lambda which: self.limits)
        self.patch(resource, "setrlimit", lambda which, limits: self.set_to.append(limits))


class PauseTests(LimitCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.freed = 0
        # The lowest number that is free.
        self.lowest = 10
        self.patch(descriptors, "_lowest_free", lambda: self.lowest)
        self.descriptors = Descriptors(self.clock, self.free_some)
        self.ports = [FakePort(), FakePort()]
        self.descriptors.watch(self.ports)

    def free_some(self) -> None:
        self.freed += 1

    def take(self, number: int) -> None:
        self.lowest = number + 1
        self.descriptors.took(FakeTransport(number))

    def accepting(self) -> list[bool]:
        return [port.accepts for port in self.ports]

    def test_origins_get_all_but_the_last_which_are_for_operators(self) -> None:
        room = [self.descriptors.has_room_for(FakeTransport(number)) for number in (LIMIT - 17, LIMIT - 16, LIMIT - 1)]
        self.assertEqual((room, self.freed), ([True, False, False], 2))

    def test_up_to_an_eighth_of_them_are_left_for_origins_and_files(self):
        self.take(LIMIT - KEPT - 1)
        self.assertEqual(self.accepting(), [True, True])
        self.take(LIMIT - KEPT)
        self.assertEqual(self.accepting(), [False, False])
        self.assertEqual((self.descriptors.paused, self.descriptors.pauses, self.freed), (True, 1, 1))

    def test_of_few_more_are_kept(self):
        self.limits = (256, 256)
        self.descriptors.look_at_limit()
        self.take(256 - LEAST_KEPT - 1)
        self.assertEqual(self.accepting(), [True, True])
        self.take(256 - LEAST_KEPT)
        self.assertEqual(self.accepting(), [False, False])

    def test_however_few_there_are_clients_are_accepted(self):
        self.limits = (64, 64)
        self.descriptors.look_at_limit()
        self.take(30)
        self.assertEqual(self.accepting(), [True, True])
        self.take(60)
        self.assertEqual(self.accepting(), [False, False])
        # What a daemon has open that does nothing.
        self.lowest = 20
        self.clock.advance(AGAIN)
        self.assertEqual(self.accepting(), [True, True])

    def test_a_batch_that_twisted_accepts_in_one_go_fits_into_what_is_kept(self):
        for limit in (64, 128, 256, LIMIT, 1 << 20):
            self.limits = (limit, limit)
            self.descriptors.look_at_limit()
            for port in self.ports:
                # As it comes to be when each batch is full.
                port.numberAccepts = 120
            self.take(10)
            most = min(max(LEAST_KEPT, limit // 8), limit // 3)
            for port in self.ports:
                self.assertTrue(1 <= port.numberAccepts < most, (limit, port.numberAccepts))

    def test_it_is_told_once(self):
        for number in range(LIMIT - KEPT, LIMIT):
            self.take(number)
        self.assertEqual((self.descriptors.pauses, self.freed, len(self.clock.getDelayedCalls())), (1, 1, 1))

    def test_accepting_goes_on_when_half_as_many_again_are_free(self):
        self.take(LIMIT - KEPT)
        self.lowest = LIMIT - KEPT - KEPT // 2
        for _ in range(50):
            self.clock.advance(AGAIN)
        self.assertEqual(self.accepting(), [False, False])
        self.lowest -= 1
        self.clock.advance(AGAIN)
        self.assertEqual((self.accepting(), self.descriptors.paused), ([True, True], False))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.take(LIMIT - KEPT)
        self.assertEqual((self.accepting(), self.descriptors.pauses), ([False, False], 2))

    def test_a_listener_that_is_new_waits_as_well(self):
        self.take(LIMIT - KEPT)
        self.ports.append(FakePort())
        self.descriptors.watch(self.ports)
        self.assertEqual(self.accepting(), [False] * 3)
        self.lowest = 10
        self.clock.advance(AGAIN)
        self.assertEqual(self.accepting(), [True] * 3)

    def test_one_that_is_closed_is_left_alone(self):
        self.take(LIMIT - KEPT)
        self.descriptors.watch(self.ports[:1])
        self.lowest = 10
        self.clock.advance(AGAIN)
        self.assertEqual(self.accepting(), [True, False])

    def test_where_there_is_no_limit_there_is_no_pause(self):
        self.limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        unlimited = Descriptors(self.clock, self.free_some)
        unlimited.watch(self.ports)
        unlimited.took(FakeTransport(1 << 30))
        self.assertEqual(self.accepting(), [True, True])


class RaiseTests(LimitCase):
    def test_the_limit_is_raised_to_what_clients_and_their_origins_need(self):
        self.limits = (1024, 1 << 20)
        raise_limit(10_000)
        self.assertEqual(self.set_to, [(20_256, 1 << 20)])

    def test_no_further_than_it_may_be(self):
        self.limits = (1024, 4096)
        raise_limit(10_000)
        self.assertEqual(self.set_to, [(4096, 4096)])

    def test_it_is_never_lowered(self):
        self.limits = (1 << 20, 1 << 20)
        raise_limit(10_000)
        self.limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        raise_limit(10_000)
        self.assertEqual(self.set_to, [])

    def test_without_any_limit_above_it_is_raised_all_the_same(self):
        self.limits = (1024, resource.RLIM_INFINITY)
        raise_limit(100)
        self.assertEqual(self.set_to, [])
        raise_limit(10_000)
        self.assertEqual(self.set_to, [(20_256, resource.RLIM_INFINITY)])

    def test_where_it_may_not_be_raised_it_stays(self):
        def refuse(which: int, limits: tuple[int, int]) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(resource, "setrlimit", refuse)
        self.limits = (1024, 4096)
        raise_limit(10_000)
