"""What happens when the process runs out of file descriptors: nobody new is accepted until there are some again.

A system gives the lowest number that is free. So the number of a connection's socket tells how many are in use, and
nothing need be counted.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

# Which part of all descriptors is kept for connections to origins and files; and how many at the least.
KEPT_PART = 8
LEAST_KEPT = 64
# How many of these are for operators alone.
LAST = 16
# How many more than it was told Twisted may accept in one go.
MORE = 20
# How often it is looked whether there are some again, in seconds.
AGAIN = 0.1
log = Logger()


class Descriptors:
    """Watches the numbers of descriptors.

    `free_some` is called when they run short: whoever has some that aren't needed gives them back.
    """

    def __init__(self, clock: IReactorTime, free_some: Callable[[], None]) -> None:
        self._clock = clock
        self._free_some = free_some
        # What accepts: Twisted's ports.
        self._ports: list[Any] = []
        self._most = self._enough = self._last = 1 << 60
        self._batch = 100
        # How often accepting was paused, and whether it is.
        self.pauses = 0
        self.paused = False
        self.look_at_limit()

    def look_at_limit(self) -> None:
        """How many there may be has been set."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft != resource.RLIM_INFINITY:
            kept = min(max(LEAST_KEPT, soft // KEPT_PART), soft // 3)
            # Accepting goes on when half as many again are free, so that it doesn't begin and end with each client.
            self._most, self._enough = max(soft - kept, 1), max(soft - kept - kept // 2, 1)
            self._last = max(soft - min(LAST, kept // 4), 1)
            # A batch goes on to its end, however few are left.
            self._batch = max(1, min(100, kept // 2 - MORE))

    def watch(self, ports: list[Any]) -> None:
        """These are what accepts."""
        self._ports = ports
        for port in ports:
            if self.paused:
                port.stopReading()
            self._bound(port)

    def _bound(self, port: Any) -> None:
        # Twisted begins with 100, and takes more each time when that was all used.
        if getattr(port, "numberAccepts", 0) > self._batch:
            port.numberAccepts = self._batch

    def took(self, transport: Any) -> None:
        """A connection was accepted: `transport` is its, and has a `fileno`."""
        for port in self._ports:
            self._bound(port)
        if not self.paused and transport.fileno() >= self._most:
            self._pause()

    def has_room_for(self, transport: Any) -> bool:
        """Whether a connection that was made may be kept: the last descriptors are for operators, files and the log."""
        if transport.fileno() < self._last:
            return True
        self._free_some()
        return False

    def _pause(self) -> None:
        self.paused = True
        self.pauses += 1
        for port in self._ports:
            port.stopReading()
        log.warn("file descriptors run short: no new connections for now (limits.connections, LimitNOFILE=)")
        self._free_some()
        self._clock.callLater(AGAIN, self._look)

    def _look(self) -> None:
        if _lowest_free() >= self._enough:
            self._clock.callLater(AGAIN, self._look)
            return
        self.paused = False
        log.info("there are file descriptors again: new connections are accepted")
        for port in self._ports:
            port.startReading()


def raise_limit(connections: int) -> None:
    """Let the process have as many files open as `connections` clients and their origins may need, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256 if hard == resource.RLIM_INFINITY else min(2 * connections + 256, hard)
    if wanted < connections:
        log.warn("{files} open files are allowed: too few for {clients} clients", files=wanted, clients=connections)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except OSError as error:
            # A service manager may not let it.
            log.warn("{files} open files aren't allowed: {why}", files=wanted, why=error.strerror)


def _lowest_free() -> int:
    """The number that a new descriptor gets."""
    try:
        number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 1 << 60
    os.close(number)
    return number
