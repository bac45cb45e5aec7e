"""Whether a user's password is right: bcrypt in threads, and what came of it kept for a while.

bcrypt is made to be slow (1 to 4000 milliseconds, as the file says), so it never runs in the reactor's turn, and what
is kept answers for the next requests. Nothing here knows of connections, or where credentials stand: see `admission`.

What is kept is found by a keyed hash of the credentials, whose key nobody else has; the credentials themselves are
forgotten. An unknown user costs as much as a known one, so that the time doesn't tell which names there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import bcrypt
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from streamproxy.scripts.threads import DaemonThreads

# Passwords that are looked at at one time.
THREADS = 2
# Those that may wait for that, and how many of them for clients from one address.
MOST_WAITING = 64
MOST_OF_ONE = 16
# How long an outcome is kept, in seconds, and how many of a kind are. Those of wrong passwords, of which there may be
# any number, have a place of their own.
KEPT_RIGHT, MOST_RIGHT = 600.0, 4096
KEPT_WRONG, MOST_WRONG = 60.0, 1024
# All that bcrypt ever looks at, in bytes. htpasswd cuts longer passwords here, and so do servers that read its files;
# the library refuses them.
LONGEST = 72
# How much less than the reactor's the threads' share of the processor counts (nice(2)).
NICENESS = 10

Told = Callable[[bool], None]


class Credentials(NamedTuple):
    """A user's name, and the password that somebody has for it."""

    user: str
    password: bytes


class PasswordThreads:
    """Where passwords are held against their hashes. `reactor` is told of the outcome in its own thread."""

    def __init__(self, reactor: IReactorFromThreads | None) -> None:
        self._reactor = reactor
        self._threads = DaemonThreads(THREADS)

    def run(self, password: bytes, kept: bytes, told: Told) -> None:
        """Tell whether `password` is the one that `kept` was made of."""

        def ended(future: Future[bool]) -> None:
            assert self._reactor is not None
            self._reactor.callFromThread(told, future.exception() is None and future.result())

        self._threads.submit(is_right, password, kept).add_done_callback(ended)


def is_right(password: bytes, kept: bytes) -> bool:
    """Whether `password` is the one that the bcrypt hash `kept` was made of; takes long."""
    # In Linux each thread has a niceness of its own. A flood of wrong passwords may take what nobody else needs.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    try:
        return bcrypt.checkpw(password[:LONGEST], kept)
    except ValueError:
        return False


class _Check:
    """Credentials that are looked at, and who waits for that."""

    def __init__(self, credentials: Credentials, key: bytes, address: str) -> None:
        self.credentials = credentials
        self.key = key
        self.address = address
        self.waiting: list[Told] = []


class Passwords:
    """The passwords of `users`, as bcrypt hashes by name; `threads` hold others against them."""

    def __init__(self, users: Mapping[str, bytes], clock: IReactorTime, threads: PasswordThreads) -> None:
        self.users = users
        self._clock = clock
        self._threads = threads
        self._secret = secrets.token_bytes(32)
        self._hashes = tuple(users.values())
        # When each outcome was known, the eldest first.
        self._right: dict[bytes, float] = {}
        self._wrong: dict[bytes, float] = {}
        self._checks: dict[bytes, _Check] = {}
        self._queue: deque[_Check] = deque()
        self._running = 0

    def known(self, credentials: Credentials) -> bool | None:
        """Whether they are right, if that was found out before; else None."""
        key = self._key(credentials)
        now = self._clock.seconds()
        since = self._right.get(key)
        if since is not None and now - since < KEPT_RIGHT:
            # Who keeps asking needn't wait in line again, whoever else does.
            del self._right[key]
            self._right[key] = now
            return True
        since = self._wrong.get(key)
        if since is not None and now - since < KEPT_WRONG:
            return False
        return None

    def check(self, credentials: Credentials, address: str, told: Told) -> Callable[[], None] | None:
        """Find out whether they are right and tell it, never at once; `address` is whose client asks.

        Returns what forgets that; or None, and tells nothing, where too many wait.
        """
        key = self._key(credentials)
        check = self._checks.get(key)
        if check is None:
            same = sum(each.address == address for each in self._queue)
            if len(self._queue) >= MOST_WAITING or same >= MOST_OF_ONE:
                return None
            check = self._checks[key] = _Check(credentials, key, address)
            self._queue.append(check)
        check.waiting.append(told)
        self._begin()
        return partial(self._forget, check, told)

    def _forget(self, check: _Check, told: Told) -> None:
        if told in check.waiting:
            check.waiting.remove(told)
            if not check.waiting and check in self._queue:
                self._queue.remove(check)
                del self._checks[check.key]

    def _key(self, credentials: Credentials) -> bytes:
        # The name has no colon in it.
        return self._digest(credentials.user.encode() + b":" + credentials.password)

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()

    def _begin(self) -> None:
        while self._queue and self._running < THREADS:
            check = self._queue.popleft()
            self._running += 1
            user, password = check.credentials
            kept = self.users.get(user)
            is_known = kept is not None
            if kept is None:
                # Any one's will do, but for a name always the same one's: some cost more than others.
                number = int.from_bytes(self._digest(user.encode())[:8], "big")
                kept = self._hashes[number % len(self._hashes)]
            self._run(check, password, kept, is_known)

    def _run(self, check: _Check, password: bytes, kept: bytes, is_known: bool) -> None:
        self._threads.run(password, kept, lambda right: self._ended(check, right and is_known))

    def _ended(self, check: _Check, right: bool) -> None:
        self._running -= 1
        del self._checks[check.key]
        kept, most = (self._right, MOST_RIGHT) if right else (self._wrong, MOST_WRONG)
        kept.pop(check.key, None)
        while len(kept) >= most:
            del kept[next(iter(kept))]
        kept[check.key] = self._clock.seconds()
        self._begin()
        while check.waiting:
            check.waiting.pop(0)(right)
