"""`streamproxy explain METHOD URL`: what rules and settings would make of a request and its response, and why.

Heads are made of the arguments and read by the grammar that reads a client's and an origin's. Nothing is sent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from streamproxy.commands.arguments import Arguments, CommandError, settings_of
from streamproxy.commands.explanation_text import Told, lines
from streamproxy.journal import printable
from streamproxy.rules.values import size
from streamproxy.settings import Settings
from streamproxy.wire.http1 import HeadLimits, RequestReader, ResponseReader
from streamproxy.wire.message import RequestHead, ResponseHead, WireError
from streamproxy.wire.target import parse_absolute, parse_authority

HANDSHAKE = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
)
ASSUMED = "200 text/html chunked"
ASSUMED_OF_WEBSOCKET = "101"
# What isn't said of a response, or of a body: its length, which isn't known before its end.
CHUNKED = "chunked"
Fields = list[tuple[bytes, bytes]]


def add(commands: argparse._SubParsersAction[Arguments], configured: Arguments) -> None:
    """Put this command among the others."""
    made = commands.add_parser(
        "explain", parents=[configured], help="which rules would apply to a request, how its body would go, and why"
    )
    made.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a field of the request"
    )
    made.add_argument(
        "-d", "--length", metavar="SIZE", help="the size of the request's body, such as 10m, or chunked: not known"
    )
    made.add_argument("--type", metavar="TYPE", help="its Content-Type")
    made.add_argument(
        "--response",
        metavar="'STATUS [TYPE [SIZE]]'",
        help=f"the response that comes, such as '200 application/json 10m'; {ASSUMED!r}, if nothing is said",
    )
    made.add_argument(
        "--response-header", action="append", default=[], metavar="'NAME: VALUE'", help="a field of the response"
    )
    made.add_argument("--all", action="store_true", help="tell of the rules that don't apply, too, and why they don't")
    made.add_argument("--json", action="store_true", help="for programs: an object with all of it")
    made.add_argument("method", metavar="METHOD", help="such as GET; CONNECT with HOST:PORT for a tunnel by itself")
    made.add_argument("url", metavar="URL", help="the whole URL; ws and wss ask for a WebSocket")
    made.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print what would become of it."""
    with contextlib.redirect_stdout(sys.stderr):
        # What scripts print while they are loaded is no part of the answer.
        settings = settings_of(chosen)
    try:
        told = _told(settings, chosen)
    except WireError as error:
        raise CommandError(f"the proxy would answer {error.status}: {error.reason}") from None
    if chosen.json:
        print(json.dumps(told, indent=2))
        return
    for line in lines(told, chosen.all):
        print(printable(line))


def _told(settings: Settings, chosen: argparse.Namespace) -> Told:
    # All that proxies is needed for no other command, and `env` may be in a shell's start.
    from streamproxy.commands.explanation import Question, explain, explain_tunnel
    from streamproxy.proxy.route import Route
    from streamproxy.proxy.target import decide_target

    method = _bytes(chosen.method)
    if method == b"CONNECT":
        authority = parse_authority(chosen.url, "https")
        tunnel = explain_tunnel(settings, authority)
        return {"method": "CONNECT", "url": chosen.url, "tunnel": tunnel, **{k: tunnel[k] for k in ("outcome", "why")}}
    url = _bytes(chosen.url)
    target = parse_absolute(url, method)
    fields: Fields = [_field(each) for each in chosen.header]
    given = {name.lower() for name, _ in fields}
    if b"host" not in given:
        fields.insert(0, (b"Host", target.origin.netloc.encode()))
    wants_websocket = url[:2].lower() == b"ws"
    if wants_websocket:
        fields += [field for field in HANDSHAKE if field[0].lower() not in given]
    if chosen.type is not None:
        fields.append((b"Content-Type", _bytes(chosen.type)))
    if chosen.length is not None:
        fields.append(_length(chosen.length))
    secure = target.origin.scheme == "https"
    limits = settings.limits
    head_limits = HeadLimits(limits.head, limits.fields, limits.trailers)
    line = b"%s %s HTTP/1.1\r\n" % (method, target.path.encode() if secure else url)
    request = RequestReader(head_limits).feed(line + _lines(fields))[0]
    assert isinstance(request, RequestHead)
    destination = decide_target(request, b"", Route(target.origin, target.origin.host) if secure else None)
    response = _response(chosen, head_limits, method, wants_websocket)
    return explain(settings, Question(request, destination, response, chosen.response is None))


def _response(chosen: argparse.Namespace, limits: HeadLimits, method: bytes, websocket: bool) -> ResponseHead:
    written = chosen.response or (ASSUMED_OF_WEBSOCKET if websocket else ASSUMED)
    status, _, rest = written.strip().partition(" ")
    kind, _, length = rest.strip().partition(" ")
    fields: Fields = [_field(each) for each in chosen.response_header]
    if kind and kind != "-":
        fields.append((b"Content-Type", _bytes(kind)))
    bodiless = status in ("101", "204", "304")
    if length.strip() or not bodiless:
        fields.append(_length(length.strip() or CHUNKED))
    reader = ResponseReader(limits)
    reader.expect(method)
    try:
        events = reader.feed(b"HTTP/1.1 %s \r\n" % _bytes(status) + _lines(fields))
    except WireError as error:
        raise CommandError(f"--response {written!r}: {error.reason}") from None
    head = events[0] if events else None
    if not isinstance(head, ResponseHead) or (head.status < 200 and head.status != 101):
        raise CommandError(f"--response {written!r}: expected a final response, such as '200 text/html 10k'")
    return head


def _length(written: str) -> tuple[bytes, bytes]:
    if written == CHUNKED:
        return b"Transfer-Encoding", b"chunked"
    try:
        return b"Content-Length", b"%d" % size()(written)
    except ValueError:
        raise CommandError(f"{written!r}: expected a size, such as 64k, or chunked") from None


def _field(written: str) -> tuple[bytes, bytes]:
    name, colon, value = written.partition(":")
    if not colon:
        raise CommandError(f"{written!r}: expected a field such as 'X-Debug: 1'")
    return _bytes(name), _bytes(value.strip())


def _lines(fields: Fields) -> bytes:
    return b"".join([b"%s: %s\r\n" % field for field in fields]) + b"\r\n"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
