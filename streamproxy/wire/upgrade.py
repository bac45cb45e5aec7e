"""The handshakes that end HTTP/1.1 on a connection: any Upgrade (RFC 9110 section 7.8), and WebSocket's (RFC 6455).

Grammar of heads only: what comes after the 101 isn't read here, and what an extension's parameters mean isn't known.

A WebSocket handshake is read strictly, since both ends must see the same one. Decided beside the RFC's own words:

- `websocket` in any case, and nothing beside it: neither end may choose another protocol from a list.
- A key is 24 characters of base64, of which the last may have padding bits that aren't zero, as clients that make it up
  send; it is never decoded. Of Sec-WebSocket-Key, -Version and -Accept a second line is an error, even the same again.
- Sec-WebSocket-Protocol and -Extensions may stand on several lines in a request, as in RFC 6455 sections 11.3.2 and
  11.3.4; empty members of a list, and a field that is empty, mean nothing (RFC 9110 section 5.6.1.2). Some servers
  answer with an empty Sec-WebSocket-Protocol where they chose none.
- White space may stand around "," ";" and "=", as RFC 6455's grammar inherits from RFC 2616 section 2.1.
- Origin isn't looked at: that is for the origin to judge.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NamedTuple

from streamproxy.wire.fields import TOKEN
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import NO_BODY, RequestHead, ResponseHead, WireError

# RFC 6455 section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_TOKEN = re.compile(TOKEN)
_SPACE: Final = rb"[ \t]*+"
_NAME = re.compile(_SPACE + rb"(" + TOKEN + rb")" + _SPACE)
# The content of a quoted string must be a token once it is unquoted, so what may stand in one are a token's characters.
_VALUE = re.compile(
    rb"=" + _SPACE + rb"(?:(" + TOKEN + rb')|"((?:' + TOKEN + rb"|\\[!#$%&'*+\-.^_`|~0-9A-Za-z])++)" + rb'")' + _SPACE
)
_COMMA: Final = 44
_SEMICOLON: Final = 59
_EQUALS: Final = 61


class Extension(NamedTuple):
    """A member of Sec-WebSocket-Extensions, offered or agreed on.

    `name` and the parameters' names are in lower case, their values unquoted, None where there is none. `written` is
    the member as it came, without the white space around it.
    """

    name: bytes
    parameters: tuple[tuple[bytes, bytes | None], ...]
    written: bytes


class Handshake(NamedTuple):
    """What a WebSocket request asks for: `key` as it came, subprotocols and extensions in order of preference."""

    key: bytes
    protocols: tuple[bytes, ...]
    extensions: tuple[Extension, ...]


class Agreed(NamedTuple):
    """What a WebSocket response chose: a subprotocol, if any, and extensions in the order in which they apply."""

    protocol: bytes | None
    extensions: tuple[Extension, ...]


def upgrade_asked(head: RequestHead) -> bytes | None:
    """The value of Upgrade as it came, if the request asks for one that can be granted; None otherwise.

    It can in HTTP/1.1 only, where Connection names it, and in a request without a body: what switches after a body
    isn't known here.
    """
    if b"upgrade" not in head.headers or head.version != (1, 1) or head.framing != NO_BODY:
        return None
    if b"upgrade" not in head.headers.tokens(b"connection") or not head.headers.tokens(b"upgrade"):
        return None
    return head.headers.get(b"upgrade")


def is_websocket(upgrade: bytes) -> bool:
    """Whether the value of an Upgrade field names WebSocket, and nothing else."""
    return _members(upgrade.lower()) == [b"websocket"]


def read_handshake(head: RequestHead) -> Handshake:
    """What a request asks for whose Upgrade is WebSocket (RFC 6455 section 4.2.1).

    Raises WireError with 400, or 426 for another version than 13, which is to be answered with Sec-WebSocket-Version.
    """
    headers = head.headers
    if _hides_handshake(headers):
        raise WireError("Connection names a field of the WebSocket handshake")
    if head.method != b"GET":
        raise WireError("the method of a WebSocket handshake isn't GET")
    versions = headers.lines(b"sec-websocket-version")
    if len(versions) != 1:
        raise WireError("several Sec-WebSocket-Versions" if versions else "no Sec-WebSocket-Version")
    if versions[0] != _VERSION:
        raise WireError("Sec-WebSocket-Version isn't 13", 426)
    keys = headers.lines(b"sec-websocket-key")
    if len(keys) != 1:
        raise WireError("several Sec-WebSocket-Keys" if keys else "no Sec-WebSocket-Key")
    if not _KEY.fullmatch(keys[0]):
        raise WireError("Sec-WebSocket-Key isn't 16 bytes in base64")
    protocols = _protocols(headers)
    if len(set(protocols)) != len(protocols):
        raise WireError("Sec-WebSocket-Protocol names a protocol twice")
    return Handshake(keys[0], tuple(protocols), read_extensions(headers))


def _hides_handshake(headers: Headers) -> bool:
    """Whether Connection names a field of the handshake, which wouldn't go on then."""
    return any(name.startswith(b"sec-websocket-") for name in headers.tokens(b"connection"))


def accept_for(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def check_answer(asked: Handshake, head: ResponseHead) -> Agreed:
    """What a 101 to `asked`, as it was sent to the origin, chose (RFC 6455 section 4.1).

    Raises WireError with 502 for what a client would have to fail the connection for. The parameters of an extension
    aren't checked, nor whether one stands there twice.
    """
    headers = head.headers
    if head.version < (1, 1):
        raise WireError("the origin's 101 is in HTTP/1.0", 502)
    if b"upgrade" not in headers.tokens(b"connection"):
        raise WireError("the origin's 101 has no Connection: Upgrade", 502)
    if _hides_handshake(headers):
        raise WireError("the Connection of the origin's 101 names a field of the WebSocket handshake", 502)
    if headers.tokens(b"upgrade") != [b"websocket"]:
        raise WireError("the origin's 101 doesn't upgrade to WebSocket", 502)
    accepts = headers.lines(b"sec-websocket-accept")
    if len(accepts) != 1:
        raise WireError(f"the origin's 101 has {'several' if accepts else 'no'} Sec-WebSocket-Accept", 502)
    if accepts[0] != accept_for(asked.key):
        raise WireError("the origin's Sec-WebSocket-Accept doesn't answer the Sec-WebSocket-Key", 502)
    try:
        protocols = _protocols(headers)
        extensions = read_extensions(headers)
    except WireError as error:
        raise WireError(f"the origin's {error.reason}", 502) from None
    if len(protocols) > 1:
        raise WireError("the origin's Sec-WebSocket-Protocol names several protocols", 502)
    if protocols and protocols[0] not in asked.protocols:
        raise WireError("the origin's Sec-WebSocket-Protocol wasn't asked for", 502)
    offered = {extension.name for extension in asked.extensions}
    for extension in extensions:
        if extension.name not in offered:
            raise WireError("the origin's Sec-WebSocket-Extensions names one that wasn't offered", 502)
    return Agreed(protocols[0] if protocols else None, extensions)


def check_switch(asked: bytes, head: ResponseHead) -> None:
    """Check a 101 to a request whose Upgrade was `asked`, whatever that names (RFC 9110 section 7.8).

    Each protocol that it switches to must have been asked for: by name, and by version where both give one, all in any
    case. Raises WireError with 502.
    """
    headers = head.headers
    if head.version < (1, 1):
        raise WireError("the origin's 101 is in HTTP/1.0", 502)
    if b"upgrade" not in headers.tokens(b"connection"):
        raise WireError("the origin's 101 has no Connection: Upgrade", 502)
    chosen = headers.tokens(b"upgrade")
    if not chosen:
        raise WireError("the origin's 101 has no Upgrade", 502)
    wanted = set(_members(asked.lower()))
    # Names that were asked for in any version, and in some version.
    any_version = {protocol for protocol in wanted if b"/" not in protocol}
    some_version = {protocol.partition(b"/")[0] for protocol in wanted}
    for protocol in chosen:
        name, slash, _version = protocol.partition(b"/")
        if protocol not in wanted and name not in (any_version if slash else some_version):
            raise WireError("the origin's 101 upgrades to a protocol that wasn't asked for", 502)


def read_extensions(headers: Headers) -> tuple[Extension, ...]:
    """Sec-WebSocket-Extensions of either message, all its lines in order (RFC 6455 section 9.1).

    Raises WireError where it isn't a list of names with parameters.
    """
    extensions: list[Extension] = []
    for line in headers.lines(b"sec-websocket-extensions"):
        _read_extension_line(line, extensions)
    return tuple(extensions)


def _read_extension_line(line: bytes, extensions: list[Extension]) -> None:
    """Put the members of one line behind `extensions`."""
    at = 0
    while at < len(line):
        if line[at] in b", \t":
            at += 1
            continue
        start = at
        found = _NAME.match(line, at)
        if found is None:
            raise _malformed()
        name: bytes = found.group(1).lower()
        at = found.end()
        parameters: list[tuple[bytes, bytes | None]] = []
        while at < len(line) and line[at] == _SEMICOLON:
            found = _NAME.match(line, at + 1)
            if found is None:
                raise _malformed()
            parameter: bytes = found.group(1).lower()
            value: bytes | None = None
            at = found.end()
            if at < len(line) and line[at] == _EQUALS:
                found = _VALUE.match(line, at)
                if found is None:
                    raise _malformed()
                quoted: bytes | None = found.group(2)
                value = found.group(1) if quoted is None else quoted.replace(b"\\", b"")
                at = found.end()
            parameters.append((parameter, value))
        if at < len(line) and line[at] != _COMMA:
            raise _malformed()
        extensions.append(Extension(name, tuple(parameters), line[start:at].rstrip(b" \t")))


def _malformed() -> WireError:
    return WireError("Sec-WebSocket-Extensions is malformed")


def _protocols(headers: Headers) -> list[bytes]:
    """The members of Sec-WebSocket-Protocol. Raises WireError where one isn't a token."""
    protocols: list[bytes] = []
    for line in headers.lines(b"sec-websocket-protocol"):
        protocols += _members(line)
    for protocol in protocols:
        if not _TOKEN.fullmatch(protocol):
            raise WireError("Sec-WebSocket-Protocol is malformed")
    return protocols


def _members(value: bytes) -> list[bytes]:
    """The members of a comma-separated list (RFC 9110 section 5.6.1) in which no quoted string may stand."""
    return [member for part in value.split(b",") if (member := part.strip(b" \t"))]
