"""Micro-benchmarks of heads: reading them, writing them, and the log line that tells of an exchange."""

from __future__ import annotations

import json
from collections.abc import Callable

from bench.connection import check
from streamproxy.flow import FORWARDED, Flow
from streamproxy.journal import log_line
from streamproxy.proxy.heads import forward_request, forward_response
from streamproxy.rules.verdict import HeaderEdits
from streamproxy.wire.http1 import HeadLimits, RequestReader, ResponseReader
from streamproxy.wire.message import END, RequestHead, ResponseHead, Target
from streamproxy.wire.target import parse_absolute

# What wrk and curl send.
SMALL_REQUEST = (
    b"GET http://origin.example:8000/small HTTP/1.1\r\n"
    b"Host: origin.example:8000\r\n"
    b"User-Agent: wrk\r\n"
    b"Accept: */*\r\n"
    b"Proxy-Connection: Keep-Alive\r\n\r\n"
)
BROWSER_REQUEST = (
    b"GET http://www.shop.example/assets/styles/main.css?v=20240229 HTTP/1.1\r\n"
    b"Host: www.shop.example\r\n"
    b"Proxy-Connection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/css,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Pragma: no-cache\r\n"
    b"Cookie: basket=8f14e45fceea167a5a36dedd4bea2543; seen=1718000000; theme=dark; consent=yes\r\n"
    b"DNT: 1\r\n"
    b"Referer: http://www.shop.example/\r\n"
    b"Sec-Fetch-Dest: style\r\n"
    b"Sec-Fetch-Mode: no-cors\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b'If-None-Match: "5d41402abc4b2a76b9719d911017c592"\r\n\r\n'
)
BODY = b"x" * 600
# What nginx sends.
RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: nginx/1.22.1\r\n"
    b"Date: Thu, 29 Feb 2024 12:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 600\r\n"
    b"Last-Modified: Thu, 29 Feb 2024 11:00:00 GMT\r\n"
    b"Connection: keep-alive\r\n"
    b'ETag: "65e06f70-258"\r\n'
    b"Accept-Ranges: bytes\r\n\r\n"
)
LIMITS = HeadLimits()
VIA = b"proxy"
SIZE = 4096
EDITS = (HeaderEdits(remove=(b"cookie",), set=((b"X-Proxy", b"on"),), add=((b"X-Seen", b"1"),)),)


def request_read(data: bytes) -> tuple[RequestHead, Target]:
    """The head of a request without a body, and what it asks for."""
    events = RequestReader(LIMITS).feed(data)
    head = events[0]
    check(type(head) is RequestHead and events[1:] == [END], f"it was read as {events}")
    assert isinstance(head, RequestHead)
    return head, parse_absolute(head.target)


def response_read() -> ResponseHead:
    reader = ResponseReader(LIMITS)
    reader.expect(b"GET")
    head = reader.feed(RESPONSE)[0]
    assert isinstance(head, ResponseHead)
    return head


def read_request(data: bytes, fields: int) -> Callable[[], object]:
    """Read a request of so many fields on a connection that is kept."""
    head, _ = request_read(data)
    check(len(head.headers) == fields, f"{len(head.headers)} fields instead of {fields}")
    reader = RequestReader(LIMITS)

    def read() -> None:
        reader.feed(data)
        reader.next_message()

    for count in (1, 2):
        read()
        check(reader.consumed == count * len(data) and reader.between, "the request wasn't read to its end")
    return read


def read_response() -> Callable[[], object]:
    """Read a response of 600 bytes that comes in one read, on a connection that is kept."""
    data = RESPONSE + BODY
    reader = ResponseReader(LIMITS)

    def read() -> list[object]:
        reader.expect(b"GET")
        return reader.feed(data)  # type: ignore[return-value]

    for _ in range(2):
        head, *body = read()
        check(isinstance(head, ResponseHead) and head.status == 200, f"it was read as {head}")
        check(body == [BODY, END] and reader.ended, f"the body was read as {body}")
    return read


def write_request(data: bytes, edits: tuple[HeaderEdits, ...]) -> Callable[[], object]:
    """Make the head that goes to the origin."""
    head, target = request_read(data)
    host = target.origin.netloc.encode()

    def write() -> bytes:
        return forward_request(
            head,
            target,
            host=host,
            edits=edits,
            changed=False,
            readable=False,
            whole=False,
            continued=False,
            length=None,
            via=VIA,
        )[0]

    written = write()
    check(written.startswith(b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (target.path.encode(), host)), f"wrote {written!r}")
    check(written.endswith(b"\r\nVia: 1.1 proxy\r\n\r\n") and b"Proxy-Connection" not in written, f"wrote {written!r}")
    check((b"\r\nX-Proxy: on\r\n" in written and b"Cookie" not in written) == bool(edits), f"wrote {written!r}")
    return write


def write_response() -> Callable[[], object]:
    """Make the head that goes to the client."""
    head = response_read()

    def write() -> bytes:
        return forward_response(
            head, edits=(), changed=False, length=None, client_version=(1, 1), close=False, via=VIA
        )[0]

    wanted = RESPONSE.replace(b"Connection: keep-alive\r\n", b"").removesuffix(b"\r\n") + b"Via: 1.1 proxy\r\n\r\n"
    check(write() == wanted, f"wrote {write()!r}")
    return write


def log(url: str, shown: str) -> Callable[[], object]:
    """Make the line of an exchange with `url`, which is shown as `shown`."""
    flow = Flow("1f", 1709208000.123, "127.0.0.1:50000", "GET", url)
    flow.status = 200
    flow.client_in, flow.client_out, flow.origin_in, flow.origin_out = 150, 850, 840, 130
    flow.response.how, flow.response.size, flow.response.why = "streamed", 600, "nothing wants it whole"
    flow.first_byte, flow.duration, flow.outcome = 0.00123, 0.00145, FORWARDED

    def line() -> str:
        return log_line(flow)

    told = json.loads(line())
    found = [told[key] for key in ("url", "status", "outcome", "duration_ms")]
    check(found == [shown, 200, "forwarded", 1.45] and told["response"]["size"] == 600, f"the line is {line()}")
    return line


def plain_log() -> Callable[[], object]:
    """A line with nothing to hide."""
    url = "http://origin.example:8000/small"
    return log(url, url)


def secret_log() -> Callable[[], object]:
    """A line of an URL with a secret in its query."""
    url = "https://api.example/v1/items?page=3&access_token={}&sort=name&fields=a%2Cb"
    return log(url.format("0123456789abcdef"), url.format("***"))


PIECES: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
    ("read head: request, 4 fields", lambda: read_request(SMALL_REQUEST, 4)),
    ("read head: request, 15 fields", lambda: read_request(BROWSER_REQUEST, 15)),
    ("read head: response, 8 fields, and 600 bytes", read_response),
    ("write head: request, 4 fields", lambda: write_request(SMALL_REQUEST, ())),
    ("write head: request, 15 fields", lambda: write_request(BROWSER_REQUEST, ())),
    ("write head: request, 15 fields, 3 edits", lambda: write_request(BROWSER_REQUEST, EDITS)),
    ("write head: response, 8 fields", write_response),
    ("log line", plain_log),
    ("log line: a secret in the query", secret_log),
)
