"""Who may use the proxy, and where it may lead them: by addresses, by name and password, and by destination.

Pure policy. Who asks, how a password is held against what is kept of it, and what a name resolves to isn't known here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamproxy.rules.interception import Address, Destinations, Range, destination

# Where machines in a cloud are told their own secrets, and what else only speaks to its neighbours.
DENIED_ORIGINS = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254")


class Clients:
    """The addresses that clients may come from; none at all stands for any."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.ranges = tuple(ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clients) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __repr__(self) -> str:
        return f"Clients({[each.text for each in self.ranges]!r})"

    def admit(self, address: str) -> bool:
        """Whether a client from `address`, in text, may use the proxy."""
        return not self.ranges or any(each.holds(plain_address(address), 0) for each in self.ranges)


class Origins(NamedTuple):
    """Where connections may go: to what `allow` lists, or anywhere where that is empty; never to what `deny` lists."""

    allow: Destinations = Destinations()
    deny: Destinations = Destinations(map(destination, DENIED_ORIGINS))

    def refusal(self, host: str, port: int, address: str) -> str | None:
        """Why no connection may be made to `address` and `port` for who asked for `host`; None: it may.

        `host` is in lower case, IPv6 without brackets, and may be an address itself.
        """
        found = (plain_address(address),)
        denied = self.deny.name(host, port) or self.deny.range(found, port)
        if denied is not None:
            return f"access.origins.deny: {denied}"
        if self.allow and self.allow.name(host, port) is None and self.allow.range(found, port) is None:
            return "access.origins.allow: not listed"
        return None


class Access(NamedTuple):
    """Who may use the proxy. `users`: what is kept of the passwords of each (bcrypt), None where nobody is asked."""

    allow: Clients = Clients()
    users: Mapping[str, bytes] | None = None
    origins: Origins = Origins()

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit on who may use it, so that it may listen where others come by."""
        return bool(self.allow) or self.users is not None


def plain_address(text: str) -> Address:
    """An address of a socket: without the zone (RFC 4007), and an IPv4 one in IPv6's clothes as what it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
