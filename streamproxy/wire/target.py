"""Request targets and Host values (RFC 9112 section 3.2, RFC 3986 section 3.2), read strictly."""

from __future__ import annotations

import functools
import ipaddress
import re

from streamproxy.wire.message import Origin, Target, WireError

# A name in percent-coding would be another name to a reader that decodes it, so it is none here.
_HOST = r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9\-._~!$&'()*+,;=]{1,253}))"
_AUTHORITY = re.compile(_HOST + r"(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+://[!\x22\x24-.0-\x3e\x40-\x7e]*+)([!\x22\x24-\x7e]*+)")
_ORIGIN_FORM = re.compile(rb"/[!\x22\x24-\x7e]*+")
DEFAULT_PORTS = {"http": 80, "https": 443}
# A WebSocket begins as a request (RFC 6455 section 3), and is one to everybody here.
WEBSOCKET_SCHEMES = {"ws": "http", "wss": "https"}


@functools.lru_cache(maxsize=1024)
def parse_authority(authority: str, scheme: str) -> Origin:
    """The origin that `authority` (host, or host:port) names under `scheme`; raises `WireError`."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        if "@" in authority:
            raise WireError("a target with a user name or password in it")
        raise WireError("the target's host is malformed")
    ipv6, name, port = found.groups()
    if ipv6:
        try:
            ipaddress.IPv6Address(ipv6)
        except ValueError:
            raise WireError("the target's IPv6 address is malformed") from None
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if not 0 < number < 65536:
        raise WireError("the target's port is out of range")
    return Origin(scheme, (ipv6 or name).lower(), number)


@functools.lru_cache(maxsize=1024)
def _parse_site(site: bytes) -> Origin:
    """The origin of what stands before an URL's path."""
    scheme, _, authority = site.decode("ascii").partition("://")
    scheme = scheme.lower()
    scheme = WEBSOCKET_SCHEMES.get(scheme, scheme)
    if scheme not in DEFAULT_PORTS:
        raise WireError("the target's scheme is not http or https", 501)
    return parse_authority(authority, scheme)


def parse_absolute(target: bytes, method: bytes = b"GET") -> Target:
    """Take apart an absolute-form target, as clients send to a proxy.

    The path keeps its bytes. The schemes ws and wss are read as http and https. Raises `WireError`: 400 for what is
    malformed or isn't absolute, 501 for a scheme that isn't spoken.
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        if target[:1] == b"/":
            raise WireError("this is a proxy: the request target must be a whole URL, such as http://example.com/")
        raise WireError("the request target is malformed")
    site, rest = found.groups()
    origin = _parse_site(site)
    path = rest.decode("ascii")
    if not path:
        # RFC 9112 section 3.2.4: OPTIONS without a path asks about the whole server.
        path = "*" if method == b"OPTIONS" else "/"
    elif path[0] == "?":
        path = "/" + path
    return Target(origin, path)


def parse_origin_form(target: bytes, method: bytes, origin: Origin) -> Target:
    """The target of a request to `origin` itself: a path, or `*` of OPTIONS (RFC 9112 sections 3.2.1 and 3.2.4).

    The path keeps its bytes. Raises `WireError`.
    """
    if _ORIGIN_FORM.fullmatch(target) or (target == b"*" and method == b"OPTIONS"):
        return Target(origin, target.decode("ascii"))
    raise WireError("the request target is malformed")
