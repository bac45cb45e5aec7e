"""WebSocket frames for the measurements (RFC 6455 section 5), made beforehand where that can be.

Deliberately small and not made of streamproxy's own parts: what both ends of a measured WebSocket share. Nothing here
is strict, for each end knows to the byte what it has to get.
"""

from __future__ import annotations

import base64
import hashlib
import random
import struct
import zlib
from collections.abc import Iterator

from bench.bodies import STAMPED
from bench.connection import Connection, check

TEXT, BINARY, CLOSE = 0x81, 0x82, 0x88
# The bit of a frame's first byte that marks a compressed message (RFC 7692 section 6).
COMPRESSED = 0x40
DEFLATE = "permessage-deflate"
# A close frame's payload: 1000, which is a normal one.
NORMAL = b"\x03\xe8"
# What the answer to a key ends with, before it is hashed (RFC 6455 section 4.2.2).
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FLUSHED = b"\0\0\xff\xff"
_pick = random.Random(7)

# Small messages are numbered, so that one that is lost, doubled or out of order is seen.
SMALL = 32
NUMBERS = 1024
_MESSAGES = [b"%08d " % number + bytes(_pick.choices(b"etaoinshrdlu", k=SMALL - 9)) for number in range(NUMBERS)]


def accept(key: str) -> str:
    """The answer to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


def upgrade(connection: Connection, url: str, extension: str = "") -> None:
    """Ask for a WebSocket at `url`, offering `extension`, and check what is answered."""
    key = base64.b64encode(_pick.randbytes(16)).decode()
    fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    if extension:
        fields.append(f"Sec-WebSocket-Extensions: {extension}")
    # In origin form, for it is asked inside of a CONNECT, or of the origin itself.
    scheme, _, host, path = url.split("/", 3)
    check(scheme in ("http:", "https:"), f"not a URL to ask for: {url}")
    lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", *fields]
    connection.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = connection.answer()
    check(head.status == 101, f"{url}: {head.line}")
    check(head.fields.get("sec-websocket-accept") == accept(key), f"{url}: the key isn't answered")
    found = head.fields.get("sec-websocket-extensions", "")
    check(found == extension, f"{url}: {found!r} was agreed on, not {extension!r}")


def masked(data: bytes, key: bytes) -> bytes:
    """A short payload with its mask put on, or taken off."""
    size = len(data)
    both = int.from_bytes(data, "little") ^ int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return both.to_bytes(size, "little")


def head_of(first: int, size: int, key: bytes = b"") -> bytes:
    """A frame's head."""
    bit = 128 if key else 0
    if size < 126:
        return bytes((first, bit | size)) + key
    if size < 65536:
        return struct.pack(">BBH", first, bit | 126, size) + key
    return struct.pack(">BBQ", first, bit | 127, size) + key


def asked(first: int, payload: bytes) -> bytes:
    """A client's frame."""
    key = _pick.randbytes(4)
    return head_of(first, len(payload), key) + masked(payload, key)


def echoed(data: bytes) -> tuple[bytes, int]:
    """What an origin gives back for the whole frames in `data`, each of up to 125 bytes, and how long those are.

    A frame goes back as it came, but for its mask: a compressed one too, which is right where both directions have
    the same window, for they then have the same history.
    """
    size = len(data)
    at, parts = 0, list[bytes]()
    while size - at >= 6:
        length = data[at + 1] - 128
        check(0 <= length < 126, f"a frame that begins with {data[at : at + 2]!r}")
        begin, end = at + 6, at + 6 + length
        if end > size:
            break
        parts += (data[at : at + 1], length.to_bytes(1, "big"), masked(data[begin:end], data[at + 2 : begin]))
        at = end
    return b"".join(parts), at


class Small:
    """One client's small messages, text: the frames that it sends, and what it gets for them."""

    _ASKED = b"".join([asked(TEXT, message) for message in _MESSAGES])
    _ANSWERED = b"".join([head_of(TEXT, SMALL) + message for message in _MESSAGES])
    _ASKED_SIZE, _ANSWERED_SIZE = SMALL + 6, SMALL + 2

    def __init__(self) -> None:
        # Numbers of the next that is sent, and bytes of the answers to all.
        self._next = 0
        self._came = 0

    def frames(self, count: int) -> bytes:
        """The next `count` frames."""
        begin = self._next % NUMBERS
        self._next += count
        data = self._ASKED[begin * self._ASKED_SIZE : (begin + count) * self._ASKED_SIZE]
        while len(data) < count * self._ASKED_SIZE:
            data += self._ASKED[: count * self._ASKED_SIZE - len(data)]
        return data

    def came(self, data: bytes) -> int:
        """How many messages are whole with `data`. Raises WrongAnswer where they aren't the ones that were sent."""
        before = self._came
        self._came += len(data)
        at, whole = before % len(self._ANSWERED), self._ANSWERED
        check(self._came <= self._next * self._ANSWERED_SIZE, "more came back than was sent")
        while data:
            wanted = whole[at : at + len(data)]
            check(data.startswith(wanted), f"another message came back: {data[:80]!r} instead of {wanted[:80]!r}")
            data = data[len(wanted) :]
            at = 0
        return self._came // self._ANSWERED_SIZE - before // self._ANSWERED_SIZE


class Deflated:
    """The same with messages of some 100 bytes, which are compressed with a history of what went before."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=-15)
        self._inflate = zlib.decompressobj(wbits=-15)
        self._next = 0
        self._wanted = 0
        self._rest = b""

    @staticmethod
    def _message(number: int) -> bytes:
        return b'{"number": %d, "kind": "update", "word": "%b", "of": "a feed with much that is alike in it"}' % (
            number,
            _MESSAGES[number * 7 % NUMBERS][9:],
        )

    def frames(self, count: int) -> bytes:
        """The next `count` frames."""
        made = []
        for number in range(self._next, self._next + count):
            data = self._deflate.compress(self._message(number)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            made.append(asked(TEXT | COMPRESSED, data.removesuffix(_FLUSHED)))
        self._next += count
        return b"".join(made)

    def came(self, data: bytes) -> int:
        """How many messages are whole with `data`."""
        data = self._rest + data
        at, count = 0, 0
        while len(data) - at >= 2 and len(data) - at >= 2 + data[at + 1]:
            check(data[at] == TEXT | COMPRESSED and data[at + 1] < 126, f"a frame begins with {data[at : at + 2]!r}")
            end = at + 2 + data[at + 1]
            found = self._inflate.decompress(data[at + 2 : end] + _FLUSHED)
            wanted = self._message(self._wanted)
            check(self._wanted < self._next and found == wanted, f"{found!r} came back instead of {wanted!r}")
            self._wanted += 1
            count += 1
            at = end
        self._rest = data[at:]
        return count


# A large message is generated like a body: noise, with a running number on each 64 KiB. With one mask for all of it,
# whose noise is masked once, it costs its sender nothing.
ROUND = 1 << 20
_KEY = b"\x5a\xc3\x96\x3f"
_NOISE = random.Random(1).randbytes(ROUND)


def large(size: int, frame: int, from_client: bool) -> Iterator[memoryview]:
    """The wire of a message of `size` bytes in frames of `frame`, binary, about 1 MiB at a time.

    `frame` is either `size`, or `STAMPED`; `size` is a multiple of `ROUND`. Each is good until the next is asked for.
    """
    assert frame in (size, STAMPED) and not size % ROUND
    key = _KEY if from_client else b""
    mask = int.from_bytes(key * 2, "big")
    noise = masked(_NOISE, key) if key else _NOISE
    heads = frame == STAMPED
    head = head_of(0, frame, key)
    if not heads:
        yield memoryview(bytes((BINARY,)) + head[1:])
    step = STAMPED + (len(head) if heads else 0)
    begins = range(step - STAMPED, step * (ROUND // STAMPED), step)
    block = bytearray(step * (ROUND // STAMPED))
    for number, at in enumerate(begins):
        block[at - len(head) * heads : at] = head * heads
        block[at : at + STAMPED] = noise[number * STAMPED : (number + 1) * STAMPED]
    number, last = 0, size // STAMPED - 1
    for _ in range(size // ROUND):
        for at in begins:
            struct.pack_into(">Q", block, at, number ^ mask)
            if heads:
                # Only the first frame says what the message is of, and only the last that it is its end.
                block[at - len(head)] = (BINARY & 127 if number == 0 else 0) | (128 if number == last else 0)
            number += 1
        yield memoryview(block)
