"""Where a request to the proxy wants to go, or why it can't (RFC 9112 section 3.2, RFC 9110 section 7.6.3)."""

from __future__ import annotations

from streamproxy.wire.message import RequestHead, Target, WireError
from streamproxy.wire.target import parse_absolute, parse_authority


def decide_target(head: RequestHead, via: bytes) -> tuple[Target, bytes]:
    """The target of a request, and the value of the Host field that goes with it.

    The target wins over a Host that says something else (RFC 9112 section 3.2.2). Raises `WireError`: what is
    malformed (400), not spoken (501), or has been through this proxy before (508).
    """
    if head.method == b"CONNECT":
        raise WireError("CONNECT is not spoken here yet", 501)
    target = parse_absolute(head.target, head.method)
    netloc = target.origin.netloc.encode("ascii")
    host = head.headers.get(b"host")
    if host is not None and host != netloc:
        try:
            same = parse_authority(host.decode("ascii"), target.origin.scheme) == target.origin
        except (WireError, UnicodeDecodeError):
            if host:
                raise WireError("the Host field is malformed") from None
            same = False
        if not same:
            host = None
    if b"via" in head.headers and any(member.split()[1:2] == [via] for member in head.headers.tokens(b"via")):
        raise WireError("a loop: this request has been through this proxy before", 508)
    return target, netloc if host is None else host
