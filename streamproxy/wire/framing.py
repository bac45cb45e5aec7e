"""How the end of a body is known: RFC 9112 section 6, read strictly.

Whatever two readers could read in two ways is an error here. This decides framing only; reading the body is
done in `http1` and `chunked`.
"""

from __future__ import annotations

import re

from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind, Version, WireError

# More digits than any body has; what lies above would overflow other readers' integers.
LONGEST_LENGTH = 18

# Fields that vouch for the very bytes of a body (RFC 9530, RFC 1864, RFC 9110 section 14.3).
_VOUCHERS = frozenset([b"content-md5", b"content-digest", b"repr-digest", b"digest", b"accept-ranges"])

_TAB_BY_CODING = re.compile(rb"^transfer-encoding:[^\t\r]*+\t", re.MULTILINE | re.IGNORECASE)


def unvouched(headers: Headers) -> Headers:
    """`headers`, or trailers, fit for a body that has been changed: nothing vouches for the old bytes.

    An ETag becomes a weak one (RFC 9110 section 8.8.1).
    """
    headers = headers.without(_VOUCHERS)
    tag = headers.get(b"etag")
    if tag is not None and not tag.startswith(b"W/"):
        headers = headers.replacing(b"ETag", b"W/" + tag)
    return headers


def content_length(headers: Headers) -> int | None:
    """The value of Content-Length in bytes, None without one.

    Raises `WireError` when it isn't digits alone, or when there are several that differ. Several lines of the
    same value can be read in one way only, and are taken as one (RFC 9112 section 6.3, item 5).
    """
    lines = headers.lines(b"content-length")
    if not lines:
        return None
    first = lines[0]
    if not first.isdigit() or len(first) > LONGEST_LENGTH:
        raise WireError("Content-Length is not a number of bytes")
    if len(lines) > 1 and any(line != first for line in lines):
        raise WireError("several Content-Lengths that differ")
    return int(first)


def is_chunked(headers: Headers, version: Version) -> bool:
    """Whether Transfer-Encoding says chunked, the one transfer coding that is known here.

    Raises `WireError` where it says anything else (501), stands beside Content-Length, or in an HTTP/1.0
    message (RFC 9112 section 6.1).
    """
    value = headers.get(b"transfer-encoding")
    if value is None:
        return False
    if version < (1, 1):
        raise WireError("Transfer-Encoding in an HTTP/1.0 message")
    if b"content-length" in headers:
        raise WireError("both Content-Length and Transfer-Encoding")
    if value.lower() == b"chunked":
        return True
    codings = headers.tokens(b"transfer-encoding")
    if codings.count(b"chunked") > 1 or (b"chunked" in codings and codings[-1] != b"chunked"):
        raise WireError("chunked is not the last transfer coding")
    if not codings or codings == [b"chunked"]:
        raise WireError("Transfer-Encoding is malformed")
    raise WireError("an unknown transfer coding", 501)


def request_framing(version: Version, headers: Headers) -> Framing:
    """A request's framing; it has no body unless its head says so (RFC 9112 section 6.3)."""
    if b"transfer-encoding" in headers and is_chunked(headers, version):
        return CHUNKED
    if b"content-length" not in headers:
        return NO_BODY
    length = content_length(headers)
    return Framing(Kind.LENGTH, length) if length else NO_BODY


def response_framing(method: bytes, status: int, version: Version, headers: Headers) -> Framing:
    """The framing of the response to a `method` request (RFC 9112 section 6.3, items 1 to 4 and 8).

    What says how a body is framed is checked even where no body can be.
    """
    chunked = is_chunked(headers, version)
    length = content_length(headers)
    if status < 200 or status in (204, 304) or method == b"HEAD" or (method == b"CONNECT" and status < 300):
        return NO_BODY
    if chunked:
        return CHUNKED
    if length is None:
        return UNTIL_CLOSE
    return Framing(Kind.LENGTH, length)


def check_tabs(section: bytes) -> None:
    """Refuse a transfer coding with a tab beside it.

    It may stand there (RFC 9110 section 5.5), but there are readers that see another coding then, and another body.
    """
    if _TAB_BY_CODING.search(section):
        raise WireError("a tab beside a transfer coding")
