"""Connecting to a host: its name looked up, its addresses tried (RFC 8305, simply).

Not Twisted's HostnameEndpoint: that refuses names with an underscore, which resolve and are what containers are called,
and begins the next attempt only when its delay is over, though the one before has failed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from streamproxy.proxy.lookups import Address, Lookups
from streamproxy.proxy.permission import Denied, Permission

# How long one address may take before the next is tried beside it, in seconds (RFC 8305 section 5).
NEXT_ATTEMPT = 0.25


class Dial:
    """One connection to `host`:`port`, in `timeout` seconds with everything.

    `reactor` is what connects (IReactorTCP) and has the time; `lookups` know names. `permission` is asked about the
    host and each of its addresses. `known` are the addresses where they have been looked up already.
    """

    def __init__(
        self,
        reactor: Any,
        lookups: Lookups,
        host: str,
        port: int,
        factory: Factory,
        timeout: float,
        permission: Permission | None = None,
        known: Sequence[str] = (),
    ) -> None:
        self._reactor = reactor
        self._lookups = lookups
        self._host = host
        self._port = port
        self._factory = factory
        self._timeout = timeout
        self._permission = permission
        self._known = known
        self._addresses: list[str] = []
        self._attempts: list[Deferred[IProtocol]] = []
        self._last_failure = Failure(error.DNSLookupError(f"no address for {host}"))
        self._forget_lookup: Callable[[], None] | None = None
        self._next_call: IDelayedCall | None = None
        self._timeout_call: IDelayedCall | None = None
        self._outcome: Deferred[IProtocol] | None = None

    def start(self) -> Deferred[IProtocol]:
        """Connect. The Deferred gives the protocol, or fails with the last attempt's failure; it can be cancelled.

        It fails with `Denied` where nothing may be tried.
        """
        outcome: Deferred[IProtocol] = Deferred(self._cancelled)
        self._outcome = outcome
        self._timeout_call = self._reactor.callLater(self._timeout, self._timed_out)
        denied = None if self._permission is None else self._permission.denied_at_once(self._host, self._port)
        if denied is not None:
            self._last_failure = Failure(denied)
            self._try_next()
        elif self._known:
            self._addresses = self._permitted(list(self._known))
            self._try_next()
        elif isIPAddress(self._host) or isIPv6Address(self._host):
            self._addresses = self._permitted([self._host])
            self._try_next()
        elif _may_be_looked_up(self._host):
            self._forget_lookup = self._lookups.ask(self._host, self._looked_up)
        else:
            self._try_next()
        return outcome

    def _cancelled(self, _outcome: Deferred[IProtocol]) -> None:
        self._end()

    def _looked_up(self, found: list[Address]) -> None:
        self._forget_lookup = None
        self._addresses = self._permitted(_by_turns(found))
        self._try_next()

    def _permitted(self, addresses: list[str]) -> list[str]:
        """Those that may be tried. If that is none of them, the outcome is why the first may not."""
        if self._permission is None:
            return addresses
        permitted: list[str] = []
        denials: list[Denied] = []
        for address in addresses:
            denied = self._permission.denied(self._host, self._port, address)
            if denied is None:
                permitted.append(address)
            else:
                denials.append(denied)
        if denials and not permitted:
            self._last_failure = Failure(denials[0])
        return permitted

    def _try_next(self) -> None:
        """Begin the next attempt; the last one's failure is the outcome where there is none left."""
        if self._next_call is not None and self._next_call.active():
            self._next_call.cancel()
        self._next_call = None
        if self._addresses:
            address = self._addresses.pop(0)
            endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            attempt = endpoint(self._reactor, address, self._port, timeout=self._timeout).connect(self._factory)
            self._attempts.append(attempt)
            if self._addresses:
                self._next_call = self._reactor.callLater(NEXT_ATTEMPT, self._try_next)
            attempt.addCallbacks(self._connected, self._failed, (attempt,), {}, (attempt,), {})
        elif not self._attempts:
            outcome = self._end()
            if outcome is not None:
                outcome.errback(self._last_failure)

    def _connected(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._attempts.remove(attempt)
        outcome = self._end()
        if outcome is not None:
            outcome.callback(protocol)

    def _failed(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        if attempt in self._attempts:
            self._attempts.remove(attempt)
        if self._outcome is not None:
            self._last_failure = failure
            self._try_next()

    def _timed_out(self) -> None:
        outcome = self._end()
        if outcome is not None:
            outcome.errback(Failure(error.TimeoutError()))

    def _end(self) -> Deferred[IProtocol] | None:
        """Stop everything that is under way; the Deferred whose outcome is still owed."""
        outcome, self._outcome = self._outcome, None
        for call in (self._next_call, self._timeout_call):
            if call is not None and call.active():
                call.cancel()
        if self._forget_lookup is not None:
            self._forget_lookup()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()
        return outcome


def _may_be_looked_up(name: str) -> bool:
    """Whether a resolver can be asked; it would never answer for a name with a label that is empty or too long."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _by_turns(addresses: Iterable[Address]) -> list[str]:
    """The addresses in the resolver's order, but the two families by turns, so that a dead one costs one attempt."""
    families: dict[bool, list[str]] = {}
    for address in addresses:
        families.setdefault(isinstance(address, IPv6Address), []).append(address.host)
    ordered: list[str] = []
    while families:
        for family in list(families):
            ordered.append(families[family].pop(0))
            if not families[family]:
                del families[family]
    return ordered
