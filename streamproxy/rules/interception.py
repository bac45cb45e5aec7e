"""Which TLS is intercepted: by the host that was asked for, its addresses, and the server name of the ClientHello.

Pure policy. Who resolves a name, reads a ClientHello or opens a tunnel isn't known here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from streamproxy.rules.match import HostPattern, Pattern, PatternError, host_forms, host_pattern, wildcard

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RANGE = re.compile(r"([0-9a-f:.]+)/[0-9]{1,3}", re.ASCII)
_LIKE_AN_ADDRESS = re.compile(r"(?=.*[0-9])[0-9.*?]+|.*:.*", re.ASCII)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class Decision(NamedTuple):
    """Whether a tunnel's TLS is intercepted, and `why` in words for the log.

    `final`: no server name could change it, so that the client's first bytes needn't be looked at for its sake.
    """

    intercept: bool
    why: str
    final: bool


class Range(NamedTuple):
    """Addresses, on the ports that `port` matches (None: on any); `text` is what the user wrote."""

    text: str
    network: Network
    port: Pattern | None = None

    def holds(self, address: Address, port: int) -> bool:
        return address in self.network and (self.port is None or self.port.match(str(port)) is not None)


class Name(NamedTuple):
    """A pattern of a host's name; `text` is what the user wrote."""

    text: str
    pattern: HostPattern


class Destinations:
    """Where connections go: patterns of names, and ranges of addresses. Any of them will do."""

    def __init__(self, members: Iterable[Name | Range] = ()) -> None:
        self.members = tuple(members)
        self.names = tuple(member for member in self.members if isinstance(member, Name))
        self.ranges = tuple(member for member in self.members if isinstance(member, Range))
        self._exact = {name.pattern.exact: name.text for name in self.names if name.pattern.exact is not None}
        self._others = tuple(name for name in self.names if name.pattern.exact is None)
        # A list may be long, and the same hosts come again and again.
        self.name = functools.lru_cache(maxsize=1024)(self._find_name)

    def __bool__(self) -> bool:
        return bool(self.members)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Destinations) and self.members == other.members

    def __hash__(self) -> int:
        return hash(self.members)

    def __repr__(self) -> str:
        return f"Destinations({[member.text for member in self.members]!r})"

    def _find_name(self, host: str, port: int | None) -> str | None:
        """The pattern that matches a host, as it was written; with port None, one that does so on any port."""
        for form in host_forms(host):
            if form in self._exact:
                return self._exact[form]
        for text, pattern in self._others:
            if port is None and pattern.has_port:
                continue
            if pattern.matches(host, port or 0):
                return text
        return None

    def range(self, addresses: Iterable[Address], port: int) -> str | None:
        """The range that has one of the addresses in it, as it was written."""
        for address in addresses:
            for each in self.ranges:
                if each.holds(address, port):
                    return each.text
        return None


class Interception(NamedTuple):
    """What is intercepted: what `only` lists, or everything where that is empty; never what `passthrough` lists."""

    intercept: bool = True
    passthrough: Destinations = Destinations()
    only: Destinations = Destinations()

    def needs_addresses(self, host: str) -> bool:
        """Whether `decide` needs what `host` resolves to: a range could decide, and no pattern of names does."""
        if not self.intercept or not (self.passthrough.ranges or self.only.ranges) or is_address(host):
            return False
        host = host.lower()
        if self.passthrough.name(host, None):
            return False
        return bool(self.passthrough.ranges) or not self.only.name(host, None)

    def decide(self, host: str, port: int, server_name: str | None, addresses: Iterable[str] = ()) -> Decision:
        """Decide about a tunnel to `host` and `port`, as CONNECT has them.

        `server_name` is the ClientHello's; None: it has none, or isn't known yet. `addresses` are what the host
        resolves to, in text; one that is an address itself, however it is written, needs none.
        """
        if not self.intercept:
            return Decision(False, "tls.intercept: false", True)
        host = host.lower()
        known = server_name is not None
        server_name = (server_name or "").lower()
        found: list[Address] = []
        if self.passthrough.ranges or self.only.ranges:
            found = [address for text in (host, *addresses) for address in _addresses(text)]
        passes = _listed(self.passthrough, host, port, server_name, found)
        if passes:
            return Decision(False, f"tls.passthrough: {passes}", True)
        final = known or not self.passthrough.names
        if not self.only:
            return Decision(True, "tls.intercept: true", final)
        wanted = _listed(self.only, host, port, server_name, found)
        if wanted:
            return Decision(True, f"tls.only: {wanted}", final)
        return Decision(False, "tls.only: not listed", known or not self.only.names)


def _listed(where: Destinations, host: str, port: int, server_name: str, addresses: Iterable[Address]) -> str | None:
    return (
        where.name(host, port)
        or where.range(addresses, port)
        or (where.name(server_name, port) if server_name else None)
    )


def is_address(host: str) -> bool:
    """Whether a host is an address, in any form that a resolver takes for one."""
    return next(_addresses(host), None) is not None


def _addresses(host: str) -> Iterator[Address]:
    """The addresses that a host stands for by itself; an IPv4 address in IPv6's clothes is both."""
    for form in host_forms(host):
        try:
            yield ipaddress.ip_address(form)
        except ValueError:
            continue


def destination(text: str) -> Name | Range:
    """Read one member of a list of destinations. Raises PatternError."""
    lower = text.lower()
    if "/" in lower:
        return Range(text, _network(lower))
    pattern = host_pattern(lower)
    name, port = lower, ""
    if name.startswith("["):
        name, _, port = name[1:].partition("]")
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    name, port = name.rstrip("."), port.removeprefix(":")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # It would be held against hosts that are addresses themselves, and against no name's addresses.
        if _LIKE_AN_ADDRESS.fullmatch(name):
            raise PatternError("an address such as 192.0.2.7, or a range such as 10.0.0.0/8") from None
        return Name(text, pattern)
    return Range(text, _plain(ipaddress.ip_network(address)), wildcard(port) if port else None)


def _network(text: str) -> Network:
    parts = _RANGE.fullmatch(text)
    try:
        if not parts:
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise PatternError("a host such as *.bank.example, or a range such as 10.0.0.0/8") from None
    if network.network_address != ipaddress.ip_address(parts[1]):
        raise PatternError(f"a range such as {network}")
    return _plain(network)


def _plain(network: Network) -> Network:
    """A range of IPv4 addresses that was written as one of IPv6 ones is the former."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
