"""Heads as they go on: what a proxy takes out, puts in and frames anew (RFC 9110 section 7.6, RFC 9112 section 6).

Pure functions from a head that was read to the bytes of the head that is written and the writer of the body
behind it. What no rule touches keeps its order and case.
"""

from __future__ import annotations

import http
from collections.abc import Sequence

from streamproxy.filters.coding import acceptable
from streamproxy.rules.verdict import HeaderEdits
from streamproxy.wire.chunked import BodyWriter, ChunksKept, ChunksMade, Plain
from streamproxy.wire.framing import unvouched
from streamproxy.wire.headers import Headers, field_of, request_head_bytes, response_head_bytes
from streamproxy.wire.message import Framing, Kind, RequestHead, ResponseHead, Target, Version

# Fields that belong to one connection only (RFC 9110 section 7.6.1). Trailer isn't among them: trailers go on.
HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authorization",
        b"proxy-authentication-info",
    ]
)
# What Connection may name and still can't have taken out: without it the message would mean another thing.
_NEVER_HOP_BY_HOP = frozenset(
    b"host content-length transfer-encoding content-type content-encoding content-range "
    b"expect cache-control date via".split()
)
_NAMES_NOTHING = frozenset([b"keep-alive", b"close"])

_PLAIN = Plain()
_CHUNKS_KEPT = ChunksKept()
# A chunk for each read: it leaves in smaller pieces, and is at hand when it begins.
_CHUNKS_MADE = ChunksMade(1 << 18)


def reason_phrase(status: int) -> bytes:
    """The standard's words for a status code; empty for one it doesn't know."""
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _dropped(headers: Headers) -> frozenset[bytes]:
    """The fields of `headers` (lower case) that don't go on."""
    connection = headers.get(b"connection")
    if connection is None or connection.lower() in _NAMES_NOTHING:
        return HOP_BY_HOP
    return HOP_BY_HOP.union(headers.tokens(b"connection")) - _NEVER_HOP_BY_HOP | {b"transfer-encoding"}


def edited(headers: Headers, edits: Sequence[HeaderEdits]) -> Headers:
    """The fields after the rules' `edits`."""
    for edit in edits:
        headers = headers.without(edit.remove)
        for name, value in edit.set:
            headers = headers.replacing(name, value)
        headers = headers.adding(*edit.add)
    return headers


def reframed(headers: Headers, came: Headers, framing: Framing) -> Headers:
    """`headers` with what frames the body as it was in `came`, whatever a script made of it.

    Where nothing did there, and `framing` has a length, that is said.
    """
    names = (b"content-length", b"transfer-encoding")
    if all(headers.lines(name) == came.lines(name) for name in names):
        framed = headers
    else:
        framed = headers.without(names).adding(*[field for field in came.fields if field[0].lower() in names])
    if framing.kind is Kind.LENGTH and b"content-length" not in framed:
        framed = framed.adding((b"Content-Length", b"%d" % (framing.length or 0)))
    return framed


def _is(line: bytes, name: bytes) -> bool:
    """Whether a line is one of the field `name` (lower case)."""
    return line[: len(name) + 1].lower() == name + b":"


def _framed(
    headers: Headers, framing: Framing, *, changed: bool, length: int | None, chunks: bool
) -> tuple[list[bytes], Kind, BodyWriter]:
    """The lines of the end-to-end fields with their framing worked out anew, and how the body is framed now.

    `changed`: a filter reads the body. `length`: what it came to, if it was held whole. `chunks`: the other side
    understands the chunked coding.
    """
    kind = framing.kind
    writer: BodyWriter = _PLAIN
    if kind is Kind.CHUNKED:
        if not chunks:
            kind = Kind.CLOSE
        else:
            writer = _CHUNKS_MADE if changed else _CHUNKS_KEPT
    elif kind is Kind.LENGTH and changed and length is None:
        kind = Kind.CHUNKED if chunks else Kind.CLOSE
        writer = _CHUNKS_MADE if chunks else _PLAIN
    dropped = _dropped(headers)
    if not changed and kind is framing.kind and headers.count(b"content-length") < 2:
        if kind is Kind.CHUNKED:
            dropped -= {b"transfer-encoding"}
        return headers.less(dropped), kind, writer
    if changed:
        headers = unvouched(headers)
    lines: list[bytes] = []
    length_told = False
    for name, line in zip(headers.names, headers.written, strict=True):
        if name in dropped:
            if name == b"transfer-encoding" and kind is Kind.CHUNKED:
                lines.append(b"%b: chunked" % field_of(line)[0])
        elif name == b"content-length":
            # Several lines of one value were read as one, and go on as one.
            if length_told:
                continue
            length_told = True
            if kind is Kind.LENGTH:
                lines.append(b"%b: %d" % (field_of(line)[0], length) if changed and length is not None else line)
            elif kind is Kind.CHUNKED:
                lines.append(b"Transfer-Encoding: chunked")
            elif kind is Kind.NONE and not changed:
                lines.append(line)
        else:
            lines.append(line)
    return lines, kind, writer


def _via(version: Version, via: bytes) -> bytes:
    return (b"Via: 1.1 " if version == (1, 1) else b"Via: 1.0 ") + via


def forward_request(
    head: RequestHead,
    target: Target,
    *,
    host: bytes,
    edits: Sequence[HeaderEdits],
    changed: bool,
    readable: bool,
    whole: bool,
    continued: bool,
    length: int | None,
    via: bytes,
    upgrade: bytes | None = None,
) -> tuple[bytes, BodyWriter]:
    """The head of a request as the origin gets it, and the writer of its body.

    `host` is the Host field's value: always that of the target, whatever the client wrote (RFC 9112 section
    3.2.2). `readable`: the response will be read here, so only codings are accepted that can be; `whole`: and
    no part of it will do. `continued`: the proxy has answered the client's Expect, so that it doesn't go on.
    """
    headers = head.headers
    lines, _kind, writer = _framed(headers, head.framing, changed=changed, length=length, chunks=True)
    if continued:
        lines = [line for line in lines if not _is(line, b"expect")]
    if b"max-forwards" in headers and head.method in (b"OPTIONS", b"TRACE"):
        lines = [_one_less(line) if _is(line, b"max-forwards") else line for line in lines]
    came = headers.get(b"host")
    if came == host:
        pass
    elif came is not None:
        lines = [b"%b: %b" % (field_of(line)[0], host) if _is(line, b"host") else line for line in lines]
    else:
        lines.insert(0, b"Host: " + host)
    if whole:
        lines = [line for line in lines if not _is(line, b"range") and not _is(line, b"if-range")]
    if readable and (whole or b"accept-encoding" in headers):
        lines = [line for line in lines if not _is(line, b"accept-encoding")]
        lines.append(b"Accept-Encoding: " + acceptable(headers.get(b"accept-encoding")))
    if edits:
        lines = edited(Headers([field_of(line) for line in lines]), edits).written
    if b"te" in headers and b"trailers" in headers.tokens(b"te"):
        lines += [b"TE: trailers", b"Connection: TE"]
    if upgrade is not None:
        lines += [b"Connection: Upgrade", b"Upgrade: " + upgrade]
    lines.append(_via(head.version, via))
    return request_head_bytes(head.method, target.path.encode("ascii"), lines), writer


def _one_less(line: bytes) -> bytes:
    name, value = field_of(line)
    return b"%b: %d" % (name, int(value) - 1) if value.isdigit() and len(value) < 10 else line


def forward_response(
    head: ResponseHead,
    *,
    edits: Sequence[HeaderEdits],
    changed: bool,
    length: int | None,
    client_version: tuple[int, int],
    close: bool,
    via: bytes,
) -> tuple[bytes, Kind, BodyWriter]:
    """The head of a final response as the client gets it, how its body is framed, and its writer.

    `close`: the connection to the client ends with this response, which is said in the head.
    """
    headers = head.headers
    if head.status == 204:
        # It would say that a body follows, to a reader that doesn't know that none can.
        headers = headers.without((b"content-length",))
    lines, kind, writer = _framed(
        headers, head.framing, changed=changed, length=length, chunks=client_version >= (1, 1)
    )
    if edits:
        lines = edited(Headers([field_of(line) for line in lines]), edits).written
    lines.append(_via(head.version, via))
    if close or kind is Kind.CLOSE:
        lines.append(b"Connection: close")
    return response_head_bytes(head.status, head.reason, lines), kind, writer


def forward_interim(head: ResponseHead, via: bytes) -> bytes:
    """An interim (1xx) response as the client gets it."""
    dropped = _dropped(head.headers) | {b"content-length"}
    lines = head.headers.less(dropped)
    lines.append(_via(head.version, via))
    return response_head_bytes(head.status, head.reason, lines)


def forward_switch(head: ResponseHead, headers: Headers, via: bytes) -> bytes:
    """A 101 as the client gets it: `headers` are its end-to-end fields, what it switches to is said in `head`."""
    lines = headers.less(_dropped(headers) | {b"content-length"})
    lines += [
        b"Connection: Upgrade",
        b"Upgrade: " + b", ".join(head.headers.lines(b"upgrade")),
        _via(head.version, via),
    ]
    return response_head_bytes(head.status, head.reason, lines)


def wants_close(version: tuple[int, int], headers: Headers) -> bool:
    """Whether the connection ends after a message with this head (RFC 9112 section 9.3)."""
    if version < (1, 1):
        return b"keep-alive" not in headers.tokens(b"connection")
    return b"connection" in headers and b"close" in headers.tokens(b"connection")
