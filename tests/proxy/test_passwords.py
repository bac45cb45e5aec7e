"""Whether passwords are right: in threads, some at a time, and what came of it kept for a while within limits."""

from __future__ import annotations

import functools

import bcrypt
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import passwords
from streamproxy.proxy.passwords import Credentials, Passwords, is_right


@functools.cache
def hashed(password: bytes) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(4))


class FakeThreads:
    """Holds passwords against hashes when it is told to; `asked` are those of all time."""

    def __init__(self) -> None:
        self.running: list[tuple] = []
        self.asked: list[tuple[bytes, bytes]] = []

    def run(self, password, kept, told) -> None:
        self.asked.append((password, kept))
        self.running.append((password, kept, told))

    def finish(self, number: int = 0) -> None:
        password, kept, told = self.running.pop(number)
        told(is_right(password, kept))

    def finish_all(self) -> None:
        while self.running:
            self.finish()


class PasswordsTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.threads = FakeThreads()
        self.users = {"ann": hashed(b"secret"), "bob": hashed(b"x" * 72)}
        self.passwords = Passwords(self.users, self.clock, self.threads)
        self.told: list[bool] = []

    def ask(self, user: str = "ann", password: bytes = b"secret", address: str = "192.0.2.1", told=None):
        return self.passwords.check(Credentials(user, password), address, told or self.told.append)

    def known(self, user: str = "ann", password: bytes = b"secret"):
        return self.passwords.known(Credentials(user, password))

    def test_it_is_told_whether_a_password_is_right(self):
        for user, password, right in (("ann", b"secret", True), ("ann", b"Secret", False), ("ann", b"", False)):
            self.ask(user, password)
            self.threads.finish()
            self.assertEqual(self.told.pop(), right, password)

    def test_nothing_is_told_in_the_same_turn(self):
        self.ask()
        self.assertEqual(self.told, [])

    def test_a_name_that_nobody_has_is_held_against_somebodys_hash_and_is_wrong_even_so(self):
        self.ask("eve", b"secret")
        self.ask("eve", b"other")
        (_, one), (_, another) = self.threads.asked
        self.assertIn(one, self.users.values())
        self.assertEqual(one, another, "the time would tell that there is no such name")
        only_ann = Passwords({"ann": hashed(b"secret")}, self.clock, self.threads)
        self.threads.finish_all()
        self.told.clear()
        only_ann.check(Credentials("eve", b"secret"), "", self.told.append)
        self.threads.finish()
        self.assertEqual((self.told, only_ann.known(Credentials("eve", b"secret"))), ([False], False))

    def test_what_is_past_72_bytes_of_a_password_does_not_count_as_htpasswd_has_it(self):
        for password, right in (
            (b"x" * 72, True),
            (b"x" * 73, True),
            (b"x" * 72 + b"y" * 900, True),
            (b"x" * 71, False),
        ):
            self.ask("bob", password)
            self.threads.finish()
            self.assertEqual(self.told.pop(), right, len(password))

    def test_a_hash_that_the_library_does_not_take_is_nobodys(self):
        self.assertFalse(is_right(b"secret", b"$2b$04$" + b"x" * 53))
        self.assertFalse(is_right(b"secret", b""))

    def test_an_outcome_of_either_kind_is_known_for_a_while(self):
        self.assertIsNone(self.known())
        self.ask()
        self.ask(password=b"wrong")
        self.threads.finish_all()
        self.assertEqual((self.known(), self.known(password=b"wrong")), (True, False))
        self.clock.advance(passwords.KEPT_WRONG)
        self.assertEqual((self.known(), self.known(password=b"wrong")), (True, None))
        self.clock.advance(passwords.KEPT_RIGHT)
        self.assertIsNone(self.known())

    def test_a_right_one_that_is_used_all_the_time_need_not_be_checked_again(self):
        self.ask()
        self.threads.finish_all()
        for _ in range(10):
            self.clock.advance(passwords.KEPT_RIGHT - 1)
            self.assertTrue(self.known())
        self.clock.advance(passwords.KEPT_RIGHT)
        self.assertIsNone(self.known())

    def test_neither_names_nor_passwords_are_kept(self):
        self.ask("ann", b"secret")
        self.ask("carol", b"hush-hush")
        self.threads.finish_all()
        kept = repr((self.passwords._right, self.passwords._wrong, self.passwords._checks, self.passwords._queue))
        for text in ("secret", "hush", "carol", "ann"):
            self.assertNotIn(text, kept)

    def test_the_same_outcome_looks_different_in_another_process(self):
        other = Passwords(self.users, self.clock, self.threads)
        for each in (self.passwords, other):
            each.check(Credentials("ann", b"secret"), "", self.told.append)
        self.threads.finish_all()
        self.assertNotEqual(set(self.passwords._right), set(other._right))

    def test_wrong_ones_do_not_drive_out_right_ones_and_are_bounded(self):
        self.patch(passwords, "MOST_WRONG", 10)
        self.ask()
        self.threads.finish()
        for number in range(50):
            self.ask(password=b"%d" % number)
            self.threads.finish()
        self.assertTrue(self.known())
        self.assertEqual(len(self.passwords._wrong), 10)
        self.assertEqual((self.known(password=b"0"), self.known(password=b"49")), (None, False))

    def test_right_ones_are_bounded(self):
        self.patch(passwords, "MOST_RIGHT", 2)
        users = {f"user{number}": hashed(b"secret") for number in range(4)}
        many = Passwords(users, self.clock, self.threads)
        for user in users:
            many.check(Credentials(user, b"secret"), "", self.told.append)
            self.threads.finish()
        self.assertEqual([many.known(Credentials(user, b"secret")) for user in users], [None, None, True, True])

    def test_the_same_is_checked_once_for_all_who_wait_for_it(self):
        for _ in range(5):
            self.ask()
        self.threads.finish()
        self.assertEqual((self.told, self.threads.asked), ([True] * 5, [(b"secret", self.users["ann"])]))

    def test_two_are_checked_at_a_time_and_the_next_when_one_is_through(self):
        for number in range(4):
            self.ask(password=b"%d" % number)
        self.assertEqual([asked[0] for asked in self.threads.asked], [b"0", b"1"])
        self.threads.finish(1)
        self.assertEqual([asked[0] for asked in self.threads.asked], [b"0", b"1", b"2"])

    def test_no_more_than_so_many_wait(self):
        for number in range(passwords.THREADS + passwords.MOST_WAITING):
            self.assertIsNotNone(self.ask(password=b"%d" % number, address=f"192.0.2.{number % 8}"))
        self.assertIsNone(self.ask(password=b"one more", address="198.51.100.1"))
        self.assertIsNotNone(self.ask(password=b"0", address="198.51.100.1"), "that one is checked already")
        self.threads.finish_all()
        self.assertIsNotNone(self.ask(password=b"one more", address="198.51.100.1"))

    def test_one_address_does_not_take_all_the_places(self):
        taken = 0
        while self.ask(password=b"%d" % taken, address="192.0.2.66") is not None:
            taken += 1
        self.assertEqual(taken, passwords.THREADS + passwords.MOST_OF_ONE)
        self.assertIsNotNone(self.ask())

    def test_who_is_gone_is_not_told_and_one_that_nobody_waits_for_is_not_checked(self):
        forget = [self.ask(password=b"%d" % number) for number in range(10)]
        for each in forget[1:]:
            each()
        self.threads.finish_all()
        self.assertEqual(self.told, [False])
        self.assertEqual([asked[0] for asked in self.threads.asked], [b"0", b"1"])
        self.assertEqual((self.passwords._checks, len(self.passwords._queue)), ({}, 0))
        forget[1]()

    def test_one_that_is_asked_for_again_after_that_is_checked(self):
        for number in range(3):
            self.ask(password=b"%d" % number)()
        self.ask(password=b"2")
        self.threads.finish_all()
        self.assertEqual(self.told, [False])


class ThreadsTests(SynchronousTestCase):
    def test_the_threads_are_real_where_there_is_a_reactor(self):
        class Reactor:
            def __init__(self):
                self.called = []

            def callFromThread(self, function, *arguments):
                self.called.append((function, arguments))

        reactor = Reactor()
        threads = passwords.PasswordThreads(reactor)
        told: list[bool] = []
        for password in (b"secret", b"wrong"):
            threads.run(password, hashed(b"secret"), told.append)
        threads._threads.shutdown()
        for function, arguments in reactor.called:
            function(*arguments)
        self.assertEqual(sorted(told), [False, True])
