"""The endpoint strings that say where to listen: what may be written, and what they tell by themselves.

They are Twisted's, with one form more: `systemd:name=NAME` is all sockets that systemd gave by that name, of whatever
kind. Nothing is opened here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import PlainValidator

from streamproxy.rules.match import host_forms
from streamproxy.rules.values import CONTROL, expected

_ENDPOINT = re.compile(r"([a-z][a-z0-9_]*):(?=.)", re.ASCII)
_PORT_ENDPOINTS = frozenset(("tcp", "tcp6"))
_ENDPOINT_KEYWORDS = frozenset(("port", "interface", "backlog"))
_ENDPOINTS = _PORT_ENDPOINTS | {"unix", "systemd", "haproxy"}
_SEPARATOR = re.compile(r"(?<!\\):")
_INHERITED = "systemd:name="
# What comes before the endpoint that it's about: clients are told of by a balancer in front.
_TOLD_OF = "haproxy:"


class Listening(NamedTuple):
    """Where a tcp endpoint listens: `interface` is empty for all of them, `port` 0 for one that the system chooses."""

    is_ipv6: bool
    interface: str
    port: int


def endpoint(value: Any) -> str:
    """A Twisted endpoint string, as far as its form goes; what it describes is found out on listening."""
    what = "an endpoint such as tcp:8080:interface=127.0.0.1"
    if not isinstance(value, str) or CONTROL.search(value):
        raise expected(what)
    kind = _ENDPOINT.match(value)
    if not kind or kind[1] not in _ENDPOINTS:
        raise expected(what)
    if kind[1] in _PORT_ENDPOINTS:
        arguments = _SEPARATOR.split(value)[1:]
        ports = [part.removeprefix("port=") for part in arguments if "=" not in part or part[:5] == "port="]
        if not ports or not re.fullmatch(r"[0-9]{1,5}", ports[0], re.ASCII) or int(ports[0]) > 65535:
            raise expected(f"{what}, with a port from 0 to 65535")
        # Keywords stand behind the others; what stands behind a keyword is the rest of a value with a colon in it.
        keywords = [part.partition("=")[0] for part in arguments if "=" in part]
        if not set(keywords) <= _ENDPOINT_KEYWORDS:
            raise expected(f"{what}, with no keywords but port, interface and backlog")
        if any("=" not in part for part in arguments[len(arguments) - len(keywords) :]):
            raise expected(f"{what}; a colon within a value is written \\:")
    return value


def listening(description: str) -> Listening | None:
    """Where the endpoint `description` listens, as far as it tells; None for one that isn't tcp."""
    kind, *rest = (re.sub(r"\\(.)", r"\1", part) for part in _SEPARATOR.split(description))
    if kind not in _PORT_ENDPOINTS:
        return None
    given = dict(part.split("=", 1) for part in rest if "=" in part)
    plain = [part for part in rest if "=" not in part]
    port = given.get("port", plain[0] if plain else "")
    interface = given.get("interface", plain[1] if len(plain) > 1 else "")
    return Listening(kind == "tcp6" or ":" in interface, interface, int(port)) if port.isdecimal() else None


def inherited_name(description: str) -> str | None:
    """The name of the sockets that systemd is to give; None where the endpoint is another."""
    return description.removeprefix(_INHERITED) if description.startswith(_INHERITED) else None


def beyond_loopback(descriptions: Iterable[str]) -> list[str]:
    """Those of the endpoints that listen where others than this machine come by, as far as their text tells.

    What it doesn't tell (names of interfaces, systemd's sockets) is known when they are bound, and isn't among them.
    """
    return [each for each in descriptions if _is_beyond_loopback(each)]


def _is_beyond_loopback(description: str) -> bool:
    while description.startswith(_TOLD_OF):
        description = description.removeprefix(_TOLD_OF)
    where = listening(description)
    if where is None:
        return False
    if not where.interface:
        return True
    # A resolver takes 127.1 for an address, too.
    for form in reversed(host_forms(where.interface)):
        try:
            return not ipaddress.ip_address(form.partition("%")[0]).is_loopback
        except ValueError:
            continue
    return False


Endpoint = Annotated[str, PlainValidator(endpoint)]
