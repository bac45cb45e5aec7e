"""Responses that the proxy makes itself: a rule's, an error's, and those of the last hop of Max-Forwards."""

from __future__ import annotations

import errno
from email.utils import formatdate
from typing import BinaryIO, NamedTuple

from twisted.internet import error
from twisted.python.failure import Failure

from streamproxy.flow import FAILED, ORIGIN_GONE, REFUSED, TIMED_OUT
from streamproxy.proxy.files import NotServed, open_served
from streamproxy.proxy.heads import reason_phrase
from streamproxy.proxy.permission import Denied
from streamproxy.proxy.route import Route
from streamproxy.rules.verdict import Answer
from streamproxy.tls.reasons import HandshakeFailed
from streamproxy.wire.headers import Field, Headers, request_head_bytes, response_head_bytes
from streamproxy.wire.message import Origin, RequestHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_NO_SNIFF = (b"X-Content-Type-Options", b"nosniff")
_ASK_FOR_PASSWORD = (b"Proxy-Authenticate", b'Basic realm="streamproxy", charset="UTF-8"')
# What TRACE must not show again (RFC 9110 section 9.3.8).
_NOT_TRACED = (b"authorization", b"cookie", b"proxy-authorization")


class Prepared(NamedTuple):
    """An answer ready for the wire: the bytes of its head, and its body as bytes or as a file of `length` bytes."""

    status: int
    head: bytes
    body: bytes
    file: BinaryIO | None = None
    length: int = 0


def explain(status: int, why: str) -> Answer:
    """An error response that says in words what went wrong."""
    text = f"{status} {reason_phrase(status).decode()}: {why}\n"
    return Answer(status, (_TEXT, _NO_SNIFF), text.encode())


def other_version(why: str) -> Answer:
    """The answer to a WebSocket of a version that isn't spoken (RFC 6455 section 4.4)."""
    answer = explain(426, why)
    fields = ((b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket"))
    return answer._replace(headers=answer.headers + fields)


def unauthorized(why: str) -> Answer:
    """The answer to a client that hasn't proved who it is (RFC 9110 section 11.7.1, RFC 7617 section 2)."""
    answer = explain(407, why)
    return answer._replace(headers=(*answer.headers, _ASK_FOR_PASSWORD))


def prepare(answer: Answer, method: bytes, close: bool, now: float) -> Prepared:
    """Make `answer` to a `method` request ready; `now` is in seconds since the epoch."""
    file: BinaryIO | None = None
    length = len(answer.body)
    kind: tuple[Field, ...] = ()
    path, tail = answer.file, answer.tail
    if path is not None:
        if method not in (b"GET", b"HEAD"):
            answer = Answer(405, (_TEXT, (b"Allow", b"GET, HEAD")), b"405 Method Not Allowed\n")
            length = len(answer.body)
        else:
            try:
                file, length, media = open_served(path, tail)
                kind = ((b"Content-Type", media.encode()),)
            except NotServed as not_served:
                answer = explain(not_served.status, not_served.why)
                length = len(answer.body)
    given = Headers(answer.headers)
    fields = [field for field in kind if field[0].lower() not in given]
    if b"date" not in given:
        fields.append((b"Date", formatdate(now, usegmt=True).encode()))
    fields += given.fields
    if answer.status not in (204, 304):
        fields.append((b"Content-Length", b"%d" % length))
    if close:
        fields.append((b"Connection", b"close"))
    head = response_head_bytes(answer.status, answer.reason or reason_phrase(answer.status), Headers(fields).written)
    body = answer.body
    if method == b"HEAD" or answer.status in (204, 304):
        body = b""
        if file is not None:
            file.close()
            file = None
    return Prepared(answer.status, head, body, file, length)


def to_last_hop(head: RequestHead) -> Answer | None:
    """The answer to a TRACE or OPTIONS that says it goes no further than here (RFC 9110 section 7.6.2)."""
    if not any(line.isdigit() and not line.strip(b"0") for line in head.headers.lines(b"max-forwards")):
        return None
    if head.method == b"OPTIONS":
        return Answer(200, ((b"Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH"),))
    if head.method == b"TRACE":
        seen = head.headers.without(_NOT_TRACED)
        return Answer(
            200,
            ((b"Content-Type", b"message/http"), _NO_SNIFF),
            request_head_bytes(head.method, head.target, seen.written),
        )
    return None


def expects_continue(head: RequestHead) -> bool:
    """Whether the client waits for a 100 before it sends the body (RFC 9110 section 10.1.1)."""
    return b"expect" in head.headers and head.version >= (1, 1) and head.headers.tokens(b"expect") == [b"100-continue"]


def why_not_connected(failure: Failure, route: Route) -> tuple[str, int, str]:
    """The outcome, the status and the words for a connection that could not be made."""
    host = route.host
    where = Origin(route.origin.scheme, host, route.origin.port).netloc
    failed = failure.value
    if isinstance(failed, HandshakeFailed):
        outcome = REFUSED if failed.untrusted else TIMED_OUT if failed.status == 504 else ORIGIN_GONE
        return outcome, failed.status, failed.why
    if isinstance(failed, Denied):
        return REFUSED, failed.status, failed.why
    if failure.check(error.DNSLookupError, ValueError):
        return ORIGIN_GONE, 502, f"no address was found for {host}"
    if failure.check(error.ConnectionRefusedError):
        return ORIGIN_GONE, 502, f"{where} refused the connection"
    if failure.check(error.TimeoutError, error.TCPTimedOutError):
        return TIMED_OUT, 504, f"connecting to {where} took too long"
    if failure.check(error.NoRouteError):
        return ORIGIN_GONE, 502, f"there is no route to {where}"
    if getattr(failed, "osError", None) in (errno.EMFILE, errno.ENFILE):
        return FAILED, 503, "the proxy has no file descriptors left"
    return ORIGIN_GONE, 502, f"could not connect to {where}"
