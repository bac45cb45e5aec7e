"""A TLS client's first message read (RFC 8446 section 4.1.2): the name it asks for and the protocols it offers.

It's read while it is peeked at, before anything is decided, from bytes that go on as they came. So only the framing of
the message and two of its extensions are looked at; whether the rest makes sense is for whoever ends the TLS.
Where the client encrypts its ClientHello, this is the outer one, and the name is the one on the outside.

What two servers could read in two ways is an error, and so is what no server would take: an extension that stands
twice, lengths that don't add up, a message cut up by records of another type.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from streamproxy.wire.message import WireError

# Bytes of TLS records that a ClientHello may take. With keys for after quantum computers it takes about two thousand.
LARGEST = 65536
# They are gone through again for each read, so there may not be any number of them. Nobody needs more than a few; who
# sends them one byte each, and each by itself, costs a tenth of a second in all.
MOST_RECORDS = 512
LONGEST_NAME = 253

_HANDSHAKE = 22
_CLIENT_HELLO = b"\x01"
# SSL 3.0 and all of TLS call themselves 3.x.
_MAJOR = 3
_HEADER = struct.Struct(">BBxH")
_LONGEST_RECORD = 16384
# Version, random, no session, one cipher suite, one compression method, no extensions.
_SMALLEST = 2 + 32 + 1 + 4 + 2
_SERVER_NAME = b"\x00\x00"
_ALPN = b"\x00\x10"
_HOST_NAME = 0
_NAME = re.compile(rb"[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+")


class ClientHello(NamedTuple):
    """What a ClientHello says of where it wants to go.

    `server_name`: the host name, in lower case and without a last dot, or an IPv4 address that stands in its place;
    None where there is none, and where it isn't a host name, which `bad_name` tells. `alpn`: the protocols, in order.
    """

    server_name: str | None
    alpn: tuple[bytes, ...]
    bad_name: bool = False


def read_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello that `data`, all bytes of the client so far, begins with; None while it isn't whole.

    What stands behind it isn't looked at. Raises `WireError`, as early as it can be known, where it isn't one
    (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301 section 3.1) or takes more than `LARGEST`.
    """
    body = _body(data)
    return None if body is None else _hello(body)


def _body(data: bytes) -> bytes | None:
    """The message that `data` begins with, taken out of its records and without its header; None: not whole yet.

    No bytes are put together before all are there, so that it costs little to be asked for each that comes.
    """
    size = len(data)
    position = got = 0
    opening = b""
    need = _least(opening)
    starts: list[int] = []
    while (start := position + _HEADER.size) <= size:
        kind, major, length = _HEADER.unpack_from(data, position)
        if kind != _HANDSHAKE or major != _MAJOR or not 0 < length <= _LONGEST_RECORD:
            raise WireError(_what_is_wrong(data, position))
        starts.append(start)
        position = start + length
        if got < 5:
            opening += data[start : min(position, start + 5 - got)]
            need = _least(opening)
        if start + need - got > LARGEST or len(starts) > MOST_RECORDS:
            raise WireError("the ClientHello is too large")
        got += length
        if position > size:
            got -= position - size
        if got >= need:
            # The header in front of a record tells its length, as it did above.
            pieces = [data[at : at + int.from_bytes(data[at - 2 : at], "big")] for at in starts]
            return b"".join(pieces)[4:need]
    if wrong := _what_is_wrong(data, position):
        raise WireError(wrong)
    return None


def _what_is_wrong(data: bytes, position: int) -> str:
    """Words for a record header, whole or not, that can't stand at `position` (RFC 8446 section 5.1); "" if it can."""
    header = data[position : position + _HEADER.size]
    if header and (header[0] != _HANDSHAKE or header[1:2] not in (b"", bytes([_MAJOR]))):
        return "a ClientHello is cut short by something else" if position else "this is not a TLS handshake"
    if int.from_bytes(header[3:].ljust(2, b"\0"), "big") > _LONGEST_RECORD:
        return "a TLS record is too long"
    if header[3:] == b"\0\0":
        return "an empty TLS record in a handshake"
    return ""


def _least(opening: bytes) -> int:
    """How many bytes the message takes, its header of 4 included.

    `opening` are its first 5; from fewer, it takes that many at the least.
    """
    if opening[:1] not in (b"", _CLIENT_HELLO):
        raise WireError("a TLS handshake that doesn't begin with a ClientHello")
    size = int.from_bytes(opening[1:4].ljust(3, b"\0"), "big")
    if (len(opening) >= 4 and size < _SMALLEST) or opening[4:] not in (b"", bytes([_MAJOR])):
        raise _malformed()
    return 4 + size


def _hello(body: bytes) -> ClientHello:
    session, position = _vector(body, 2 + 32, 1)
    suites, position = _vector(body, position, 2)
    compressions, position = _vector(body, position, 1)
    if len(session) > 32 or not suites or len(suites) % 2 or not compressions:
        raise _malformed()
    if position == len(body):
        # Before TLS 1.3 there needn't be extensions (RFC 5246 section 7.4.1.2).
        return ClientHello(None, ())
    extensions = _extensions(_only_vector(body, position))
    alpn = tuple(_protocols(extensions[_ALPN])) if _ALPN in extensions else ()
    if _SERVER_NAME not in extensions:
        return ClientHello(None, alpn)
    name = _host_name(extensions[_SERVER_NAME])
    if name is None:
        return ClientHello(None, alpn)
    name = name.removesuffix(b".")
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        return ClientHello(None, alpn, bad_name=True)
    return ClientHello(name.decode("ascii").lower(), alpn)


def _extensions(block: bytes) -> dict[bytes, bytes]:
    """The extensions by their types, which are two bytes; each may stand once (RFC 8446 section 4.2)."""
    extensions: dict[bytes, bytes] = {}
    position = 0
    while position < len(block):
        kind = block[position : position + 2]
        content, position = _vector(block, position + 2, 2)
        if kind in extensions:
            raise WireError("an extension stands twice in the ClientHello")
        extensions[kind] = content
    return extensions


def _host_name(content: bytes) -> bytes | None:
    """The first host name of a server_name extension; None where all names are of other types."""
    names = _list(content)
    found = None
    position = 0
    while position < len(names):
        kind = names[position]
        name, position = _vector(names, position + 1, 2)
        if not name:
            raise _malformed()
        if kind == _HOST_NAME and found is None:
            found = name
    return found


def _protocols(content: bytes) -> list[bytes]:
    """The names in an application_layer_protocol_negotiation extension."""
    names = _list(content)
    protocols = []
    position = 0
    while position < len(names):
        name, position = _vector(names, position, 1)
        if not name:
            raise _malformed()
        protocols.append(name)
    return protocols


def _list(content: bytes) -> bytes:
    """The members of an extension that is a list and nothing else. There must be one."""
    members = _only_vector(content, 0)
    if not members:
        raise _malformed()
    return members


def _vector(data: bytes, position: int, width: int) -> tuple[bytes, int]:
    """The bytes behind a length of `width` bytes, and the position behind them (RFC 8446 section 3.4)."""
    start = position + width
    end = start + int.from_bytes(data[position:start], "big")
    # Also where the length itself isn't whole, for then `start` is beyond the end.
    if end > len(data):
        raise _malformed()
    return data[start:end], end


def _only_vector(data: bytes, position: int) -> bytes:
    """The bytes behind a length of 2 bytes, where they must reach to the end of `data`."""
    content, end = _vector(data, position, 2)
    if end != len(data):
        raise _malformed()
    return content


def _malformed() -> WireError:
    return WireError("the ClientHello is malformed")
