"""Where a request wants to go, or why it can't (RFC 9112 section 3.2, RFC 9110 section 7.6.3)."""

from __future__ import annotations

from typing import NamedTuple

from streamproxy.proxy.route import Route
from streamproxy.wire.message import Origin, RequestHead, Target, WireError
from streamproxy.wire.target import parse_absolute, parse_authority, parse_origin_form


class Destination(NamedTuple):
    """A request's target, the value of the Host field that goes with it, and whom else its origin goes by."""

    target: Target
    host: bytes
    aliases: tuple[Origin, ...] = ()


def is_loop(head: RequestHead, via: bytes) -> bool:
    """Whether this request has been through this proxy, whose name in Via fields is `via`, before."""
    return b"via" in head.headers and any(member.split()[1:2] == [via] for member in head.headers.tokens(b"via"))


def decide_target(head: RequestHead, via: bytes, inside: Route | None = None) -> Destination:
    """Where a request to the proxy goes, or one in a tunnel that leads by the route `inside`.

    An absolute target wins over a Host that says something else (RFC 9112 section 3.2.2). Without one, in a tunnel,
    Host goes on as it came. Raises `WireError`: what is malformed (400), isn't for the tunnel's origin (421), not
    spoken (501), or has been through this proxy before (508).
    """
    in_origin_form = inside is not None and head.target[:1] in (b"/", b"*")
    if in_origin_form:
        assert inside is not None
        target = parse_origin_form(head.target, head.method, inside.origin)
    else:
        target = parse_absolute(head.target, head.method)
        if inside is not None and target.origin != inside.origin:
            raise WireError(f"this tunnel leads to {inside.origin.netloc}, and to no other origin", 421)
    if is_loop(head, via):
        raise WireError("a loop: this request has been through this proxy before", 508)
    aliases: tuple[Origin, ...] = ()
    if inside is not None and inside.host != inside.origin.host:
        aliases = (inside.origin._replace(host=inside.host),)
    netloc = target.origin.netloc.encode("ascii")
    host = head.headers.get(b"host")
    if host is None or host == netloc:
        return Destination(target, netloc, aliases)
    try:
        named = parse_authority(host.decode("ascii"), target.origin.scheme)
    except (WireError, UnicodeDecodeError):
        if host:
            raise WireError("the Host field is malformed") from None
        return Destination(target, netloc, aliases)
    if named == target.origin:
        return Destination(target, host, aliases)
    return Destination(target, host, (*aliases, named)) if in_origin_form else Destination(target, netloc, aliases)
