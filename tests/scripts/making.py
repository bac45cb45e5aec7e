"""What the tests of messages share: flows, requests and responses as the proxy makes them."""

from __future__ import annotations

from collections.abc import Iterable

from streamproxy.scripts.connection import Client, Server
from streamproxy.scripts.http import HTTPFlow, Request, Response
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import NO_BODY, Origin, RequestHead, ResponseHead, Target

Lines = Iterable[tuple[bytes, bytes]]

HOST = (b"Host", b"example.com")
ORIGIN = Origin("http", "example.com", 80)


def request_of(
    path: str = "/a?b=1", fields: Lines = (HOST,), *, body: bytes | None = b"", method: bytes = b"GET", line: str = ""
) -> Request:
    """A request as it came, with `line` for its target where that isn't the path."""
    head = RequestHead(method, (line or path).encode(), (1, 1), Headers(fields), NO_BODY)
    request = Request.of(head, Target(ORIGIN, path), 1000.5)
    request.give(body)
    return request


def response_of(fields: Lines = (), *, body: bytes | None = b"", status: int = 200, reason: bytes = b"OK") -> Response:
    """A response as it came."""
    response = Response.of(ResponseHead((1, 1), status, reason, Headers(fields), NO_BODY), 1001.5)
    response.give(body)
    return response


def flow_of(request: Request | None = None, response: Response | None = None) -> HTTPFlow:
    """A flow that goes on."""
    client = Client(("192.0.2.1", 5555), ("192.0.2.9", 8080), timestamp_start=999.0)
    flow = HTTPFlow(client, Server(("example.com", 80)), live=True, created=1000.0)
    flow.request = request_of() if request is None else request
    flow.response = response
    return flow
