"""WebSocket frames (RFC 6455 section 5): bytes to parts of frames, frames to bytes, masks and close codes.

A reader is strict: what the RFC calls an error is one, with the close code that it asks for. Nothing here knows of
messages, of extensions (but for the bits that they may use), of text, or of what is said to whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from autobahn.websocket import xormasker

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

# The bit that permessage-deflate uses (RFC 7692 section 6), and all three.
RSV1: Final = 4
ANY_RSV: Final = 7

# Close codes (RFC 6455 section 7.4.1).
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
LOST: Final = 1006
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

MOST_CONTROL: Final = 125
# A close frame's reason: what of a control frame is left behind the code, in bytes.
MOST_REASON: Final = 123
_KNOWN: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
# It isn't annotated, and stands in another module of autobahn's where that has it in C.
_masker: Final[Any] = xormasker.create_xor_masker  # type: ignore[attr-defined]
# From so many bytes on autobahn's masker is faster than one number xored with another.
_LARGE: Final = 1024


class FrameError(Exception):
    """What breaks the protocol, or a limit: the close code that says so, and words for people."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


# These two are made for each frame; a NamedTuple takes ten times as long to make, compiled.


class FrameHead:
    """A frame's head: `reserved` are its RSV bits as a number, `mask` its key (b"" for none), `length` in bytes."""

    __slots__ = ("final", "length", "mask", "opcode", "reserved")

    def __init__(self, opcode: int, final: bool, reserved: int, mask: bytes, length: int) -> None:
        self.opcode = opcode
        self.final = final
        self.reserved = reserved
        self.mask = mask
        self.length = length


class FramePart:
    """Some of a frame's payload, as it came (masked), and whether it is the first and the last of it.

    `at` is how many bytes of the payload stand before it. A control frame comes as one part.
    """

    __slots__ = ("at", "data", "head", "last")

    def __init__(self, head: FrameHead, data: bytes, at: int, last: bool) -> None:
        self.head = head
        self.data = data
        self.at = at
        self.last = last

    @property
    def payload(self) -> bytes:
        """What the data is without its mask."""
        return masked(self.data, self.head.mask, self.at) if self.head.mask else self.data


class FrameReader:
    """Reads what one side sends. `from_client`: its frames must be masked, else they mustn't be.

    `reserved` are the RSV bits that an extension gave a meaning. What breaks the protocol is put in `error`, behind
    all that was right before it; nothing is read after that.
    """

    __slots__ = ("_buffer", "_from_client", "_head", "_in_message", "_left", "_read", "_reserved", "error", "position")

    def __init__(self, from_client: bool, reserved: int = 0) -> None:
        self._from_client = from_client
        self._reserved = reserved
        # The beginning of a head, or of a control frame.
        self._buffer = b""
        # The frame that is being read, and how many bytes of it are to come.
        self._head: FrameHead | None = None
        self._left = 0
        # Fragments of a message have come, and its last one hasn't.
        self._in_message = False
        # How many bytes of wire were fed, and up to the end of the part that was given last.
        self._read = 0
        self.position = 0
        self.error: FrameError | None = None

    @property
    def between(self) -> bool:
        """Whether the bytes read so far end with a whole frame."""
        return self._head is None and not self._buffer

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._in_message or self._head is not None

    def feed(self, data: bytes) -> Iterator[FramePart]:
        """The parts of frames in `data`. To be taken to the end before it is called again."""
        if self.error is not None:
            return
        before = self._read - len(self._buffer)
        self._read += len(data)
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at, size = 0, len(data)
        while True:
            head = self._head
            if head is None:
                if at >= size:
                    return
                try:
                    found = self._read_head(data, at)
                except FrameError as error:
                    self.error = error
                    return
                if found is None:
                    self._buffer = data[at:]
                    return
                head, behind = found
                if head.opcode >= CLOSE:
                    end = behind + head.length
                    if end > size:
                        self._buffer = data[at:]
                        return
                    at = end
                    self.position = before + end
                    yield FramePart(head, data[behind:end], 0, True)
                    continue
                at = behind
                self._head = head
                self._left = head.length
                self._in_message = not head.final
            left = self._left
            end = min(size, at + left)
            if end == at and left:
                return
            piece = data if not at and end == size else data[at:end]
            left -= end - at
            at = end
            self._left = left
            if not left:
                self._head = None
            self.position = before + end
            yield FramePart(head, piece, head.length - left - len(piece), not left)

    def _read_head(self, data: bytes, at: int) -> tuple[FrameHead, int] | None:
        """The frame head at `at`, and where its payload begins; None while it isn't whole."""
        size = len(data) - at
        first = data[at]
        opcode, final, reserved = first & 15, first >= 128, first >> 4 & 7
        if opcode not in _KNOWN:
            raise FrameError(PROTOCOL_ERROR, f"a frame with the reserved opcode {opcode}")
        # permessage-deflate marks the first frame of a message, and no other (RFC 7692 section 6.1).
        if reserved & ~self._reserved or (reserved and self._reserved == RSV1 and opcode not in (TEXT, BINARY)):
            raise FrameError(PROTOCOL_ERROR, "a frame with a reserved bit that no extension uses")
        if opcode >= CLOSE:
            if not final:
                raise FrameError(PROTOCOL_ERROR, "a control frame in fragments")
        elif opcode == CONTINUATION:
            if not self._in_message:
                raise FrameError(PROTOCOL_ERROR, "a continuation of no message")
        elif self._in_message:
            raise FrameError(PROTOCOL_ERROR, "a new message inside another one")
        if size < 2:
            return None
        second = data[at + 1]
        if (second >= 128) is not self._from_client:
            raise FrameError(
                PROTOCOL_ERROR, "a frame without a mask" if self._from_client else "an origin's frame with a mask"
            )
        length = second & 127
        if length > MOST_CONTROL and opcode >= CLOSE:
            raise FrameError(PROTOCOL_ERROR, "a control frame of more than 125 bytes")
        behind = at + 2
        if length > MOST_CONTROL:
            wide = 2 if length == 126 else 8
            if size < 2 + wide:
                return None
            behind += wide
            length = int.from_bytes(data[at + 2 : behind], "big")
            if length < (126 if wide == 2 else 65536):
                raise FrameError(PROTOCOL_ERROR, "a frame's length in more bytes than it needs")
            if length >> 63:
                raise FrameError(PROTOCOL_ERROR, "a frame's length that is no length")
        mask = b""
        if self._from_client:
            if len(data) < behind + 4:
                return None
            mask = data[behind : behind + 4]
            behind += 4
        return FrameHead(opcode, final, reserved, mask, length), behind


def frame_head(opcode: int, length: int, mask: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    """The bytes of a frame's head: its length in as few bytes as can be."""
    first = opcode | reserved << 4 | (128 if final else 0)
    bit = 128 if mask else 0
    if length <= MOST_CONTROL:
        return bytes((first, bit | length)) + mask
    if length < 65536:
        return bytes((first, bit | 126)) + length.to_bytes(2, "big") + mask
    return bytes((first, bit | 127)) + length.to_bytes(8, "big") + mask


def frame(opcode: int, payload: bytes, mask: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    """A whole frame with `payload`, which is masked here."""
    head = frame_head(opcode, len(payload), mask, final, reserved)
    return head + (masked(payload, mask) if mask else payload)


def masked(data: bytes, mask: bytes, at: int = 0) -> bytes:
    """`data` with its mask put on, or taken off (RFC 6455 section 5.3); `at` bytes of the payload stand before it."""
    turn = at & 3
    if turn:
        mask = mask[turn:] + mask[:turn]
    size = len(data)
    if size >= _LARGE:
        made: bytes = _masker(mask, size).process(data)
        return made
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def read_close(payload: bytes) -> tuple[int, str]:
    """The code and reason of a close frame; `NO_CODE` for one without. Raises FrameError (RFC 6455 section 5.5.1)."""
    if not payload:
        return NO_CODE, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame of one byte")
    code = payload[0] << 8 | payload[1]
    if not may_be_sent(code):
        raise FrameError(PROTOCOL_ERROR, f"a close frame with the code {code}, which can't be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(NOT_UTF8, "a close frame whose reason isn't UTF-8") from None


def may_be_sent(code: int) -> bool:
    """Whether a close frame may have this code (RFC 6455 section 7.4, and what IANA has registered since)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int, reason: str) -> bytes:
    """A close frame's payload, with as much of the reason as there is room for."""
    if code == NO_CODE:
        return b""
    text = reason.encode("utf-8", "replace")[:MOST_REASON].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode()
