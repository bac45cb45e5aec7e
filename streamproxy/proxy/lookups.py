"""Names looked up: one lookup for a name at a time, and never more at once than there are threads for them.

The system's resolver blocks, so it is asked in threads, and a lookup that has begun there can't be called back. One
that hasn't begun is forgotten here when nobody waits for it any more: clients that come, ask for a slow name
and go don't keep those behind them waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from streamproxy.counts import Counts

# So many times as many lookups may be under way as are waited for: those that nobody waits for any more hang.
TIMES = 8
Address = IPv4Address | IPv6Address
Told = Callable[[list[Address]], None]


@implementer(IResolutionReceiver)
class _Lookup:
    """One name's lookup: what has been found, and who waits for it."""

    def __init__(self, name: str, lookups: Lookups) -> None:
        self.name = name
        self.waiting: list[Told] = []
        self._lookups = lookups
        # It has been begun; and nobody waits for it any more, though it can't be called back.
        self.begun = self.is_stuck = False
        self._found: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._found.append(address)

    def resolutionComplete(self) -> None:
        self._lookups.ended(self, bool(self._found))
        for told in self.waiting:
            told(self._found)


class Lookups:
    """The lookups under way, `most` at a time. `reactor` is an IReactorPluggableNameResolver."""

    def __init__(self, reactor: Any, most: int, counts: Counts | None = None) -> None:
        self._reactor = reactor
        self._most = most
        self._counts = Counts() if counts is None else counts
        self._by_name: dict[str, _Lookup] = {}
        self._queue: deque[_Lookup] = deque()
        # Those that somebody waits for, and those that nobody does.
        self._running = self._stuck = 0
        self._most_threads = TIMES * most

    def ask(self, name: str, told: Told) -> Callable[[], None]:
        """Look `name` up and give `told` its addresses, none where there are none. Returns what forgets that."""
        lookup = self._by_name.get(name)
        if lookup is None:
            lookup = self._by_name[name] = _Lookup(name, self)
            self._queue.append(lookup)
        elif lookup.is_stuck:
            lookup.is_stuck = False
            self._stuck -= 1
            self._running += 1
        lookup.waiting.append(told)
        self._begin()

        def forget() -> None:
            if told in lookup.waiting:
                lookup.waiting.remove(told)
                if not lookup.waiting:
                    self._let_be(lookup)

        return forget

    def __len__(self) -> int:
        return len(self._by_name)

    def ended(self, lookup: _Lookup, found: bool) -> None:
        """`lookup` has its answer, `found` or not: the next may begin."""
        self._counts.lookup(found)
        if lookup.is_stuck:
            self._stuck -= 1
        else:
            self._running -= 1
        self._by_name.pop(lookup.name, None)
        self._begin()

    def _let_be(self, lookup: _Lookup) -> None:
        """Nobody waits for `lookup`: it doesn't keep others waiting either."""
        if lookup.begun:
            lookup.is_stuck = True
            self._running -= 1
            self._stuck += 1
            # Not at once: others that the same client asked for may be let be next.
            if self._queue:
                self._reactor.callLater(0, self._begin)
        else:
            self._queue.remove(lookup)
            del self._by_name[lookup.name]

    def _begin(self) -> None:
        while self._queue and self._running < self._most and self._running + self._stuck < self._most_threads:
            lookup = self._queue.popleft()
            lookup.begun = True
            self._running += 1
            self._reactor.nameResolver.resolveHostName(lookup, lookup.name)
