"""Where connections may be made to: by `access.origins`, and never to the proxy itself.

It is asked about each address that is about to be dialled, and before that about what was asked for, so that nobody
looks up a name which is denied as such. What the lists mean is told in `rules/access.py`; dialling is in `dial.py`.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from streamproxy.rules.access import Origins, plain_address, reached
from streamproxy.rules.match import host_forms
from streamproxy.wire.message import Origin


class Denied(Exception):
    """A connection that isn't made: the `status` that a client is told, and `why` in words."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class OwnAddresses:
    """Where the proxy itself can be reached: the addresses of its listeners, and of the admin listener."""

    def __init__(self) -> None:
        self._by_port: dict[int, set[ipaddress.IPv4Address | ipaddress.IPv6Address]] = {}

    def replace(self, addresses: Iterable[IAddress]) -> None:
        """These they are from now on, as listening ports' `getHost` tells; those without a port don't count."""
        by_port: dict[int, set[ipaddress.IPv4Address | ipaddress.IPv6Address]] = {}
        for address in addresses:
            if isinstance(address, IPv4Address | IPv6Address):
                by_port.setdefault(address.port, set()).add(plain_address(address.host))
        self._by_port = by_port

    def has(self, address: str, port: int) -> bool:
        """Whether who connects to `address`, in text, and `port` comes to the proxy."""
        listening = self._by_port.get(port)
        if listening is None:
            return False
        found = reached(address)
        if not listening.isdisjoint(found):
            return True
        # One that listens on all addresses of IPv6 has those of IPv4, too.
        everywhere = {each.version for each in listening if each.is_unspecified}
        if 6 in everywhere:
            everywhere.add(4)
        return any(each.version in everywhere and _is_this_machines(each) for each in found)


def _is_this_machines(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the kernel delivers to itself what is sent to `address`: it would send it from that address then.

    To bind a socket to it would tell nothing where any address may be bound to (ip_nonlocal_bind).
    """
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            # Nothing is sent by that, to whatever port.
            asking.connect((str(address), 9))
            return plain_address(asking.getsockname()[0]) == address
    except OSError:
        return False


class Permission:
    """What may be dialled by `origins`, for a proxy that is reached at `own`."""

    def __init__(self, origins: Origins, own: OwnAddresses) -> None:
        self._origins = origins
        self._own = own
        # The same few addresses come again and again.
        self._refusal = functools.lru_cache(maxsize=1024)(origins.refusal)

    def denied_at_once(self, host: str, port: int) -> Denied | None:
        """What is known to be denied of what a client asks for, without a look-up; None: nothing yet."""
        why = self._origins.refusal_by_name(host, port)
        if why is not None:
            return _refused(host, port, why)
        for form in host_forms(host):
            try:
                if self._own.has(form, port):
                    return _loop(host, port)
            except ValueError:
                continue
        return None

    def denied_name(self, host: str, port: int) -> Denied | None:
        """Whether `host`, which a client says it speaks to in what leads elsewhere, is denied by its name."""
        why = self._origins.deny.name(host, port)
        return None if why is None else _refused(host, port, f"access.origins.deny: {why}")

    def denied_alias(self, origins: Iterable[Origin]) -> str | None:
        """Why one of the other names by which a request's origin is called is denied."""
        for origin in origins:
            denied = self.denied_name(origin.host, origin.port)
            if denied is not None:
                return denied.why
        return None

    def denied(self, host: str, port: int, address: str) -> Denied | None:
        """Why no connection to `address` and `port` is made for who asked for `host`; None: it may be made."""
        why = self._refusal(host, port, address)
        if why is not None:
            return _refused(host, port, why)
        return _loop(host, port) if self._own.has(address, port) else None


def _refused(host: str, port: int, why: str) -> Denied:
    return Denied(403, f"{Origin('', host, port).netloc} is refused by {why}")


def _loop(host: str, port: int) -> Denied:
    return Denied(508, f"a loop: {Origin('', host, port).netloc} is this proxy itself")
