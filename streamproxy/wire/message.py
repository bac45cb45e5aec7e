"""The frozen parts of an HTTP message, and the events that a reader gives.

Data only: how they are read is told in `http1` and `chunked`, how a body's end is known in `framing`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from streamproxy.wire.headers import NO_HEADERS, Headers


class WireError(Exception):
    """Bytes that break the grammar, or a limit.

    `status` is what a client is told (400, 413, 414, 431, 501, 505); for an origin's fault it is always 502.
    `reason` is for people, and quotes nothing of the message but names of fields.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Kind(enum.Enum):
    """How the end of a body is known (RFC 9112 section 6)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Framing(NamedTuple):
    """A body's framing; `length` in bytes where `kind` is LENGTH, else None (0 where there is no body)."""

    kind: Kind
    length: int | None = None


NO_BODY = Framing(Kind.NONE, 0)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.CLOSE)

Version = tuple[int, int]


class Origin(NamedTuple):
    """Where a request goes: `scheme` "http" or "https", `host` in lower case (IPv6 without brackets)."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """host[:port] as a URL has it: the scheme's own port left out, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


class Target(NamedTuple):
    """A request target taken apart: the origin, and path with query in origin-form ("/a?b", or "*")."""

    origin: Origin
    path: str

    @property
    def url(self) -> str:
        """The whole URL in its absolute form."""
        path = "" if self.path == "*" else self.path
        return f"{self.origin.scheme}://{self.origin.netloc}{path}"


class RequestHead(NamedTuple):
    """A request's head: `method` and `target` as they came, the HTTP version, fields, and body framing."""

    method: bytes
    target: bytes
    version: Version
    headers: Headers
    framing: Framing


class ResponseHead(NamedTuple):
    """A response's head: interim (1xx) and final ones alike."""

    version: Version
    status: int
    reason: bytes
    headers: Headers
    framing: Framing


class Chunk(NamedTuple):
    """A chunk of `size` bytes begins (RFC 9112 section 7.1)."""

    size: int


class End(NamedTuple):
    """The body ended as its framing promised. `trailers` only after chunks."""

    trailers: Headers = NO_HEADERS


class ChunkEnd(NamedTuple):
    """The chunk's last byte has been given."""


class Switched(NamedTuple):
    """After a 101: the connection is no longer HTTP/1.1; `rest` are the bytes behind the head."""

    rest: bytes


CHUNK_END = ChunkEnd()
END = End()

# What a body consists of: its bytes as `bytes`, and the marks between them.
BodyEvent = bytes | Chunk | ChunkEnd | End
Event = RequestHead | ResponseHead | BodyEvent | Switched
