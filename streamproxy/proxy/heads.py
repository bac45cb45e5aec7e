"""Heads as they go on: what a proxy takes out, puts in and frames anew (RFC 9110 section 7.6, RFC 9112 section 6).

Pure functions from a head that was read to the bytes of the head that is written and the writer of the body
behind it. What no rule touches keeps its order and case.
"""

from __future__ import annotations

import http
from collections.abc import Sequence

from streamproxy.rules.verdict import HeaderEdits
from streamproxy.wire.chunked import BodyWriter, ChunksKept, ChunksMade, Plain
from streamproxy.wire.framing import unvouched
from streamproxy.wire.headers import Field, Headers
from streamproxy.wire.http1 import request_head_bytes, response_head_bytes
from streamproxy.wire.message import Framing, Kind, RequestHead, ResponseHead, Target

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
_CHUNKED_VALUE = b"chunked"


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


def edited(fields: Sequence[Field], edits: Sequence[HeaderEdits]) -> tuple[Field, ...]:
    """`fields` after the rules' `edits`."""
    headers = Headers(fields)
    for edit in edits:
        headers = headers.without(edit.remove)
        for name, value in edit.set:
            headers = headers.replacing(name, value)
        headers = headers.adding(*edit.add)
    return headers.fields


def _framed(
    headers: Headers, framing: Framing, *, changed: bool, length: int | None, chunks: bool, size: int
) -> tuple[list[Field], Kind, BodyWriter]:
    """The end-to-end fields with their framing worked out anew, and how the body is framed now.

    `changed`: a filter reads the body. `length`: what it came to, if it was held whole. `chunks`: the other side
    understands the chunked coding. `size`: the largest piece of wire to make.
    """
    kind = framing.kind
    writer: BodyWriter = _PLAIN
    if kind is Kind.CHUNKED:
        if not chunks:
            kind = Kind.CLOSE
        else:
            writer = ChunksMade(size) if changed else _CHUNKS_KEPT
    elif kind is Kind.LENGTH and changed and length is None:
        kind = Kind.CHUNKED if chunks else Kind.CLOSE
        writer = ChunksMade(size) if chunks else _PLAIN
    dropped = _dropped(headers)
    if not changed and kind is framing.kind and headers.count(b"content-length") < 2:
        if kind is Kind.CHUNKED:
            dropped -= {b"transfer-encoding"}
        return headers.less(dropped), kind, writer
    fields: list[Field] = []
    length_told = False
    for field in unvouched(headers) if changed else headers:
        name = field[0].lower()
        if name in dropped:
            if name == b"transfer-encoding" and kind is Kind.CHUNKED:
                fields.append((field[0], _CHUNKED_VALUE))
        elif name == b"content-length":
            # Several lines of one value were read as one, and go on as one.
            if length_told:
                continue
            length_told = True
            if kind is Kind.LENGTH:
                fields.append((field[0], b"%d" % length) if changed and length is not None else field)
            elif kind is Kind.CHUNKED:
                fields.append((b"Transfer-Encoding", _CHUNKED_VALUE))
            elif kind is Kind.NONE and not changed:
                fields.append(field)
        else:
            fields.append(field)
    return fields, kind, writer


def forward_request(
    head: RequestHead,
    target: Target,
    *,
    host: bytes,
    edits: Sequence[HeaderEdits],
    changed: bool,
    plain_answer_wanted: bool,
    continued: bool,
    length: int | None,
    via: bytes,
    size: int,
) -> tuple[bytes, BodyWriter]:
    """The head of a request as the origin gets it, and the writer of its body.

    `host` is the Host field's value: always that of the target, whatever the client wrote (RFC 9112 section
    3.2.2). `continued`: the proxy has answered the client's Expect, so that it doesn't go on.
    """
    fields, _kind, writer = _framed(head.headers, head.framing, changed=changed, length=length, chunks=True, size=size)
    if continued:
        fields = [field for field in fields if field[0].lower() != b"expect"]
    if b"max-forwards" in head.headers and head.method in (b"OPTIONS", b"TRACE"):
        fields = [_one_less(field) if field[0].lower() == b"max-forwards" else field for field in fields]
    came = head.headers.get(b"host")
    if came == host:
        pass
    elif came is not None:
        fields = [(field[0], host) if field[0].lower() == b"host" else field for field in fields]
    else:
        fields.insert(0, (b"Host", host))
    if plain_answer_wanted:
        # A rule will read the response's body: ask for all of it, and uncoded.
        fields = [field for field in fields if field[0].lower() not in (b"range", b"if-range", b"accept-encoding")]
        fields.append((b"Accept-Encoding", b"identity"))
    if edits:
        fields = list(edited(fields, edits))
    if b"te" in head.headers and b"trailers" in head.headers.tokens(b"te"):
        fields += [(b"TE", b"trailers"), (b"Connection", b"TE")]
    fields.append((b"Via", b"%d.%d %b" % (*head.version, via)))
    return request_head_bytes(head.method, target.path.encode("ascii"), tuple(fields)), writer


def _one_less(field: Field) -> Field:
    return (field[0], b"%d" % (int(field[1]) - 1)) if field[1].isdigit() and len(field[1]) < 10 else field


def forward_response(
    head: ResponseHead,
    *,
    edits: Sequence[HeaderEdits],
    changed: bool,
    length: int | None,
    client_version: tuple[int, int],
    close: bool,
    via: bytes,
    size: int,
) -> tuple[bytes, Kind, BodyWriter]:
    """The head of a final response as the client gets it, how its body is framed, and its writer.

    `close`: the connection to the client ends with this response, which is said in the head.
    """
    headers = head.headers
    if head.status == 204:
        # It would say that a body follows, to a reader that doesn't know that none can.
        headers = headers.without((b"content-length",))
    fields, kind, writer = _framed(
        headers, head.framing, changed=changed, length=length, chunks=client_version >= (1, 1), size=size
    )
    if edits:
        fields = list(edited(fields, edits))
    fields.append((b"Via", b"%d.%d %b" % (*head.version, via)))
    if close or kind is Kind.CLOSE:
        fields.append((b"Connection", b"close"))
    return response_head_bytes(head.status, head.reason, tuple(fields)), kind, writer


def forward_interim(head: ResponseHead, via: bytes) -> bytes:
    """An interim (1xx) response as the client gets it."""
    dropped = _dropped(head.headers) | {b"content-length"}
    fields = head.headers.less(dropped)
    fields.append((b"Via", b"%d.%d %b" % (*head.version, via)))
    return response_head_bytes(head.status, head.reason, tuple(fields))


def wants_close(version: tuple[int, int], headers: Headers) -> bool:
    """Whether the connection ends after a message with this head (RFC 9112 section 9.3)."""
    if version < (1, 1):
        return b"keep-alive" not in headers.tokens(b"connection")
    return b"connection" in headers and b"close" in headers.tokens(b"connection")
