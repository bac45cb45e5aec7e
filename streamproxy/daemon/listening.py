"""The listeners: opened all or none, compared with what a configuration wants, and closed.

What a listener's connections are given to is a factory of who asks for it. Sockets that systemd handed over stay open
here as long as the process lives, so that a listener which was closed can be had again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from socket import AF_UNIX
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from streamproxy.daemon.systemd import InheritedSocket
from streamproxy.rules.access import plain_address
from streamproxy.rules.endpoint import inherited_name
from streamproxy.settings import Settings

# Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
BACKLOG = 4096
# An endpoint string, and its number among equal ones: two of tcp:0 are two ports.
Place = tuple[str, int]


class CannotListen(Exception):
    """A listener can't be had, and why, in words."""


class Listeners:
    """The open listeners, by what they were opened for. `reactor` opens them; `inherited` are systemd's, by name."""

    def __init__(self, reactor: Any, inherited: Mapping[str, list[InheritedSocket]]) -> None:
        self._reactor = reactor
        self._inherited = inherited
        self._open: dict[Place, list[IListeningPort]] = {}

    @property
    def ports(self) -> list[IListeningPort]:
        """All that listen."""
        return [port for ports in self._open.values() for port in ports]

    def ports_of(self, place: Place) -> list[IListeningPort]:
        """Those of one endpoint."""
        return self._open.get(place, [])

    def prepare(self, wanted: Mapping[Place, Factory]) -> dict[Place, list[IListeningPort]]:
        """Open what of `wanted`, places with their factories, isn't open yet.

        Gives what was opened, to be kept by `keep` or closed by `drop`. Raises `CannotListen`, having opened nothing.
        """
        names = [name for place in wanted if (name := inherited_name(place[0])) is not None]
        for name in names:
            if names.count(name) > 1:
                raise CannotListen(f"listen: systemd's socket {name} is asked for twice")
        opened: dict[Place, list[IListeningPort]] = {}
        for place, factory in wanted.items():
            if place in self._open:
                continue
            try:
                opened[place] = self._listen(place[0], factory)
            except CannotListen:
                self.drop(opened)
                raise
        return opened

    def keep(
        self, opened: Mapping[Place, list[IListeningPort]], wanted: Mapping[Place, Factory]
    ) -> list[IListeningPort]:
        """Keep what was opened, and close what isn't wanted any more; gives what was closed."""
        self._open.update(opened)
        closed = [port for old in set(self._open) - set(wanted) for port in self._open.pop(old)]
        for port in closed:
            port.stopListening()
        return closed

    def drop(self, opened: Mapping[Place, list[IListeningPort]]) -> None:
        """Close what was opened."""
        for ports in opened.values():
            for port in ports:
                port.stopListening()

    def close(self, place: Place) -> list[Deferred[Any]]:
        """Close those of one endpoint; fires for each when it is closed."""
        closing = [port.stopListening() for port in self._open.pop(place, [])]
        return [each for each in closing if each is not None]

    def _listen(self, description: str, factory: Factory) -> list[IListeningPort]:
        name = inherited_name(description)
        if name is not None:
            return self._adopt(name, factory)
        try:
            endpoint = serverFromString(self._reactor, with_backlog(description))
        except Exception as error:
            # Each kind of endpoint has errors of its own: an IndexError is systemd's way to say it gave no socket.
            raise CannotListen(f"listen: {description} can't be had: {error}") from None
        outcome: list[IListeningPort | Failure] = []
        endpoint.listen(factory).addBoth(outcome.append)
        if not outcome:
            raise CannotListen(f"listen: {description!r} is not an endpoint that opens at once")
        if isinstance(outcome[0], Failure):
            failure = outcome[0].value
            why = failure.socketError if isinstance(failure, CannotListenError) else failure
            words = str(getattr(why, "strerror", None) or why)
            if getattr(why, "errno", None) == errno.EADDRINUSE and self._open:
                words += " (if it's by a listener that this is to replace, that takes a restart)"
            # The reason first: of a daemon's error twistd shows a hundred bytes.
            raise CannotListen(f"{words}: {description}")
        return [outcome[0]]

    def _adopt(self, name: str, factory: Factory) -> list[IListeningPort]:
        sockets = self._inherited.get(name, [])
        if not sockets:
            given = ", ".join(self._inherited) or "none"
            raise CannotListen(f"listen: systemd gave no socket by the name {name}; those that it gave: {given}")
        if any(each.family == AF_UNIX for each in sockets):
            # Twisted would open it to all users, and remove it at the end.
            raise CannotListen(f"listen: systemd's socket {name} is a unix socket, and only TCP ones are taken")
        return [self._reactor.adoptStreamPort(each.descriptor, each.family, factory) for each in sockets]


def places(descriptions: Iterable[str]) -> list[Place]:
    """Where to listen, for each of these endpoint strings."""
    seen: dict[str, int] = {}
    found = []
    for description in descriptions:
        number = seen[description] = seen.get(description, -1) + 1
        found.append((description, number))
    return found


def with_backlog(description: str) -> str:
    """The endpoint with room for `BACKLOG` connections that wait to be accepted, where it doesn't say how many.

    Twisted's fifty are soon full when clients come by the thousand, and who finds no room tries again after a second.
    """
    if description.startswith(("tcp:", "tcp6:")) and ":backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    return description


def missing_access(settings: Settings, is_admin: bool) -> str | None:
    """What would have to be set for a listener that others than this machine's users come by; None: nothing."""
    if is_admin:
        return None if settings.admin is None or settings.admin.token is not None else "expected admin.token_file"
    return None if settings.access.is_limited else "expected access.allow or access.htpasswd"


def is_beyond_loopback(port: IListeningPort) -> bool:
    """Whether others than this machine come by where `port` listens, by the address that it is bound to."""
    host = getattr(port.getHost(), "host", None)
    if host is None:
        # A unix socket's permissions say who may.
        return False
    return not plain_address(host).is_loopback


def words(port: IListeningPort) -> str:
    """Where it listens, for people."""
    address = port.getHost()
    host = getattr(address, "host", "")
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{getattr(address, 'port', address)}"
