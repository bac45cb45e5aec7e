"""Who may ask the admin listener for what: decided on a request's head alone, as plain data.

It has power over the proxy, and a web page that an operator looks at can send requests to it as well. So three things
are asked: that who connects is on this machine, or knows the token; that the request means this listener (a name
that somebody else lets point here is another's: DNS rebinding); and that no other site is behind one that changes
something.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from streamproxy.rules.access import plain_address
from streamproxy.settings import Admin

# Told to anybody who may connect: whether the proxy is well, and no more.
OPEN_PATHS = frozenset((b"/healthz", b"/readyz"))
READING = frozenset((b"GET", b"HEAD"))
# What whoever passes a request on leaves in it.
_PASSED_ON = (b"via", b"forwarded", b"x-forwarded-for")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


class Asked(NamedTuple):
    """A request. `address` is its sender's, None where that came by a unix socket; `fields` has all values of a field
    by its name in lower case."""

    method: bytes
    path: bytes
    address: str | None
    fields: dict[bytes, Sequence[bytes]]

    def first(self, name: bytes) -> bytes | None:
        """The value of a field, None where there is none, or where there are several."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else None


class Refusal(NamedTuple):
    """Why a request isn't served."""

    status: int
    why: str


def refusal(admin: Admin, asked: Asked) -> Refusal | None:
    """Why `asked` isn't served by a listener that is set up as `admin` says; None where it is."""
    if admin.token is None:
        if not _is_near(asked.address):
            return Refusal(403, "without admin.token_file only this machine is served")
        if any(name in asked.fields for name in _PASSED_ON):
            return Refusal(403, "this request was passed on: it may be anybody's, and there is no admin.token_file")
    host = (asked.first(b"host") or b"").decode("latin-1").lower()
    if not _is_ours(host, admin.hosts):
        return Refusal(421, "not a name of this listener: admin.hosts can list it")
    if admin.token is not None and asked.path not in OPEN_PATHS and not _knows(admin.token, asked):
        return Refusal(401, "expected Authorization: Bearer TOKEN")
    if asked.method not in READING:
        return _cross_site(asked, host)
    return None


def _is_near(address: str | None) -> bool:
    if address is None:
        return True
    try:
        return plain_address(address).is_loopback
    except ValueError:
        return False


def _is_ours(host: str, names: tuple[str, ...]) -> bool:
    """Whether `host`, a Host field in lower case, is one by which nobody else can have us called."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1]
    if name.startswith("["):
        return _is_address(name[1:-1])
    name = name.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or _is_among(name, names) or _is_address(name)


def _is_among(name: str, names: tuple[str, ...]) -> bool:
    return any(name == each.lower().removesuffix(".") for each in names)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _knows(token: str, asked: Asked) -> bool:
    said = _BEARER.fullmatch(asked.first(b"authorization") or b"")
    return said is not None and hmac.compare_digest(said[1], token.encode("ascii"))


def _cross_site(asked: Asked, host: str) -> Refusal | None:
    """Why a request that changes something isn't this listener's own page's, nor a program's."""
    for site in asked.fields.get(b"sec-fetch-site", ()):
        if site not in (b"same-origin", b"none"):
            return Refusal(403, "another site is behind this request")
    for origin in asked.fields.get(b"origin", ()):
        if origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
            return Refusal(403, "another site is behind this request")
    return None
