"""Who may use the proxy, and where it may lead them: by addresses, by name and password, and by destination.

Pure policy. Who asks, how a password is held against what is kept of it, and what a name resolves to isn't known here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamproxy.rules.interception import Address, Destinations, Range, destination
from streamproxy.rules.match import host_forms

# Where machines in a cloud are told their own secrets, and what else only speaks to its neighbours.
DENIED_ORIGINS = (
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
)
# A connection to an address of all zeros reaches this machine.
_ZEROS = {ipaddress.ip_address("0.0.0.0"): "127.0.0.1", ipaddress.ip_address("::"): "::1"}
# IPv6 addresses with an IPv4 one in them that they lead to, and how far from the right it stands, in bits:
# IPv4-compatible ones (RFC 4291 section 2.5.5.1), NAT64 (RFC 6052 section 2.1), 6to4 (RFC 3056 section 2).
_WITH_IPV4_INSIDE = (
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)


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
        found = reached(address)
        denied = self.deny.name(host, port) or self.deny.range(_led_to(found), port)
        if denied is not None:
            return f"access.origins.deny: {denied}"
        if self.allow and self.allow.name(host, port) is None and self.allow.range(found, port) is None:
            return "access.origins.allow: not listed"
        return None

    def refusal_by_name(self, host: str, port: int) -> str | None:
        """The same, as far as it is known before anybody has looked the name up."""
        for form in host_forms(host):
            try:
                refused = self.refusal(host, port, form)
            except ValueError:
                continue
            if refused is not None:
                return refused
        denied = self.deny.name(host, port)
        if denied is not None:
            return f"access.origins.deny: {denied}"
        if self.allow and not self.allow.ranges and self.allow.name(host, port) is None:
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


def reached(text: str) -> tuple[Address, ...]:
    """What a connection to an address reaches: itself, and what all zeros stand for. Raises ValueError."""
    address = plain_address(text)
    zeros = _ZEROS.get(address)
    return (address,) if zeros is None else (address, ipaddress.ip_address(zeros))


def _led_to(addresses: Iterable[Address]) -> list[Address]:
    """The addresses, and those that they may lead to on the way."""
    found: list[Address] = []
    for address in addresses:
        found.append(address)
        if isinstance(address, ipaddress.IPv6Address) and not (address.is_loopback or address.is_unspecified):
            found += [
                ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)
                for network, shift in _WITH_IPV4_INSIDE
                if address in network
            ]
    return found
