"""WebSocket messages put together from frames, and made into frames again (RFC 6455 section 5.4, RFC 7692).

A reader holds the message that is coming, within a limit, and gives it when it is whole; control frames, which may
stand between its frames, it gives at once. What is done to a message isn't known here, nor who is at the other end.

A message remembers how it was cut into frames, and by which masks, in twelve bytes a frame: unchanged it goes on as
it came. (Compressed it can't be the same bytes, for each side has a compressor of its own.)
"""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Callable, Iterator
from typing import Any, Final

from autobahn.websocket import utf8validator

from streamproxy.filters.message_deflate import Deflate, Inflate, MessageCodingError, TooLarge
from streamproxy.wire.websocket import (
    CLOSE,
    CONTINUATION,
    NOT_UTF8,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    TOO_BIG,
    FrameError,
    FrameHead,
    FramePart,
    FrameReader,
    frame,
    frame_head,
    masked,
)

_validator: Final[Any] = utf8validator.Utf8Validator
# Frames of a message cost memory as well, however little is in them: so many may be, or one for each 16 bytes.
LEAST_FRAMES: Final = 1024
BYTES_FOR_A_FRAME: Final = 16
# A large message is written in parts of about so many bytes.
PART: Final = 65536
# Frames of one read, before others get their turn; and how many bytes of content count for one.
MOST_IN_A_ROW: Final = 256
BYTES_OF_A_ROW: Final = 256
# A frame's head, about.
FRAME_COST: Final = 14
NO_TEXT: Final = "a text that isn't UTF-8"
TOO_LARGE: Final = "a message larger than limits.websocket_message"


class Message:
    """A whole message: `opcode` (TEXT or BINARY), its `content`, and whether it came `compressed`.

    `sizes` are the bytes of content in each of its frames, None where it had but one, and `keys` their masks.
    """

    __slots__ = ("compressed", "content", "keys", "opcode", "sizes")

    def __init__(
        self, opcode: int, content: bytes, keys: bytes = b"", sizes: array[int] | None = None, compressed: bool = False
    ) -> None:
        self.opcode = opcode
        self.content = content
        self.keys = keys
        self.sizes = sizes
        self.compressed = compressed


class Control:
    """A control frame: `opcode` (CLOSE, PING or PONG), its payload, and the mask that it came with."""

    __slots__ = ("key", "opcode", "payload")

    def __init__(self, opcode: int, payload: bytes, key: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        self.key = key


class MessageReader:
    """Reads the messages of one side, each of `most` bytes at the most; `inflate` if they may be compressed.

    What breaks the protocol, or the limit, is put in `error`; nothing is read after that.
    """

    __slots__ = (
        "_compressed",
        "_content",
        "_decoder",
        "_frames",
        "_inflate",
        "_keys",
        "_most",
        "_opcode",
        "_sizes",
        "error",
    )

    def __init__(self, from_client: bool, most: int, inflate: Inflate | None = None) -> None:
        self._frames = FrameReader(from_client, 0 if inflate is None else RSV1)
        self._most = most
        self._inflate = inflate
        self.error: FrameError | None = None
        # The message that is coming; no opcode means none.
        self._opcode = 0
        self._compressed = False
        self._content = bytearray()
        self._keys = bytearray()
        self._sizes: array[int] | None = None
        self._decoder: Any = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._frames.in_message

    @property
    def held(self) -> int:
        """How many bytes of content are held."""
        return len(self._content)

    def feed(self, data: bytes) -> Iterator[Message | Control | None]:
        """What is whole with `data`. None means nothing, but that a turn may end here.

        To be taken to its end before it is called again.
        """
        if self.error is not None:
            return
        row = 0
        for part in self._frames.feed(data):
            head = part.head
            row += 1 + len(part.data) // BYTES_OF_A_ROW
            if row >= MOST_IN_A_ROW:
                row = 0
                yield None
            if head.opcode >= CLOSE:
                yield Control(head.opcode, part.payload, head.mask)
                continue
            try:
                if not self._opcode and head.final and part.last and not head.reserved:
                    yield self._small(part)
                    continue
                self._begin_part(part)
                if not self._compressed:
                    if not part.at and len(self._content) + head.length > self._most:
                        # It needn't have come to be known.
                        raise FrameError(TOO_BIG, TOO_LARGE)
                    self._add(part.payload)
                else:
                    for piece in self._inflated(part):
                        self._add(piece)
                        row += len(piece) // BYTES_OF_A_ROW
                        if row >= MOST_IN_A_ROW:
                            row = 0
                            yield None
                if part.last and head.final:
                    yield self._whole()
            except FrameError as error:
                self._break(error)
                return
            except TooLarge:
                self._break(FrameError(TOO_BIG, TOO_LARGE))
                return
            except MessageCodingError as broken:
                self._break(FrameError(PROTOCOL_ERROR, f"a message whose compressed data is broken: {broken}"))
                return
        if self._frames.error is not None:
            self._break(self._frames.error)

    def _break(self, error: FrameError) -> None:
        self.error = error
        self._forget()

    def _forget(self) -> None:
        self._opcode = 0
        self._content = bytearray()
        self._keys = bytearray()
        self._sizes = None
        self._decoder = None

    def _begin_part(self, part: FramePart) -> None:
        """A part of a frame comes, which is the first of the message, or of a frame, or none of both."""
        head = part.head
        if not self._opcode:
            self._begin(head)
        if part.at:
            return
        sizes = self._sizes
        if sizes is not None:
            if len(sizes) >= max(LEAST_FRAMES, self._most // BYTES_FOR_A_FRAME):
                raise FrameError(TOO_BIG, "a message in too many frames")
            sizes.append(0)
        self._keys += head.mask

    def _whole(self) -> Message:
        """The message has come."""
        if self._decoder is not None:
            self._check_text(b"", True)
        message = Message(self._opcode, bytes(self._content), bytes(self._keys), self._sizes, self._compressed)
        self._forget()
        return message

    def _small(self, part: FramePart) -> Message:
        """The message in a frame that came as one part."""
        head, content = part.head, part.payload
        if len(content) > self._most:
            raise FrameError(TOO_BIG, TOO_LARGE)
        if head.opcode == TEXT:
            try:
                content.decode()
            except UnicodeDecodeError:
                raise FrameError(NOT_UTF8, NO_TEXT) from None
        return Message(head.opcode, content, head.mask)

    def _begin(self, head: FrameHead) -> None:
        """The first frame of a message begins."""
        self._opcode = head.opcode
        self._compressed = bool(head.reserved)
        if self._compressed:
            assert self._inflate is not None
            self._inflate.begin()
        if head.opcode == TEXT:
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        if not head.final:
            self._sizes = array("Q")

    def _add(self, data: bytes) -> None:
        if len(self._content) + len(data) > self._most:
            raise FrameError(TOO_BIG, TOO_LARGE)
        if self._decoder is not None:
            self._check_text(data, False)
        self._content += data
        if self._sizes is not None:
            self._sizes[-1] += len(data)

    def _inflated(self, part: FramePart) -> Iterator[bytes]:
        """What a part of a frame is, inflated, and at its end what the message's own end brings out."""
        assert self._inflate is not None
        yield from self._inflate.feed(part.payload, self._most)
        if part.last and part.head.final:
            yield from self._inflate.end()

    def _check_text(self, data: bytes, ends: bool) -> None:
        """Raises where the text can't become UTF-8 any more, at the very byte."""
        decoder = self._decoder
        try:
            decoder.decode(data, ends)
        except UnicodeDecodeError:
            raise FrameError(NOT_UTF8, NO_TEXT) from None
        # Python's decoder waits for the rest of a character; whether that can still be one, autobahn tells.
        begun = decoder.getstate()[0]
        if len(begun) > 1 and not _validator().validate(begun)[0]:
            raise FrameError(NOT_UTF8, NO_TEXT)


def _cut(content: bytes, sizes: array[int]) -> Iterator[bytes]:
    """The fragments of a message."""
    at = 0
    for size in sizes:
        yield content[at : at + size]
        at += size


class MessageWriter:
    """Makes the frames of messages for one side. `new_key` gives a mask where its frames must have one.

    `deflate` compresses what came compressed; without it nothing is.
    """

    __slots__ = ("_deflate", "_new_key")

    def __init__(self, new_key: Callable[[], bytes] | None, deflate: Deflate | None = None) -> None:
        self._new_key = new_key
        self._deflate = deflate

    def control(self, opcode: int, payload: bytes, key: bytes = b"") -> bytes:
        """A control frame; with the mask `key`, if it came with one and has to have one."""
        return frame(opcode, payload, self._key(key))

    def small(self, message: Message) -> bytes | None:
        """The frame of a message as it came, if it is a small one; None otherwise."""
        if message.sizes is not None or message.compressed or len(message.content) > PART:
            return None
        return frame(message.opcode, message.content, self._key(message.keys))

    def message(self, message: Message) -> Iterator[bytes]:
        """The frames of a message as it came, cut as it was. A piece may be empty: a turn may end there."""
        key, sizes = self._key(message.keys), message.sizes
        compressed = message.compressed and self._deflate is not None
        if sizes is None:
            if compressed:
                if len(message.content) > PART:
                    return self._compressed_frames(message, array("Q", (len(message.content),)))
                assert self._deflate is not None
                return self._frame(message.opcode, self._deflate.compress([message.content])[0], key, True, RSV1)
            return self._frame(message.opcode, message.content, key, True, 0)
        return self._compressed_frames(message, sizes) if compressed else self._frames(message, sizes)

    def new(self, opcode: int, content: bytes, compressed: bool = False) -> Iterator[bytes]:
        """A message with `content` in one frame."""
        return self.message(Message(opcode, content, compressed=compressed))

    def _key(self, key: bytes) -> bytes:
        if self._new_key is None:
            return b""
        return key[:4] or self._new_key()

    def _frame(self, opcode: int, payload: bytes, key: bytes, final: bool, reserved: int) -> Iterator[bytes]:
        head = frame_head(opcode, len(payload), key, final, reserved)
        if len(payload) <= PART:
            yield head + masked(payload, key) if key else head + payload
            return
        yield head
        for at in range(0, len(payload), PART):
            part = payload[at : at + PART]
            yield masked(part, key, at) if key else part

    def _frames(self, message: Message, sizes: array[int]) -> Iterator[bytes]:
        content, last, at = message.content, len(sizes) - 1, 0
        small: list[bytes] = []
        waiting = 0
        for number, size in enumerate(sizes):
            opcode = CONTINUATION if number else message.opcode
            payload = content[at : at + size]
            at += size
            key = self._key(message.keys[4 * number : 4 * number + 4])
            if size <= PART:
                small.append(frame(opcode, payload, key, number == last))
                waiting += size + FRAME_COST
                if waiting >= PART or number == last:
                    yield b"".join(small)
                    small = []
                    waiting = 0
                continue
            if small:
                yield b"".join(small)
                small = []
                waiting = 0
            yield from self._frame(opcode, payload, key, number == last, 0)

    def _compressed_frames(self, message: Message, sizes: array[int]) -> Iterator[bytes]:
        """Fragments are kept where they were in the content, though what each comes to is another number of bytes."""
        assert self._deflate is not None
        last, number = len(sizes) - 1, 0
        for payload in self._deflate.gradually(_cut(message.content, sizes), last + 1):
            if payload is None:
                yield b""
                continue
            key = self._key(message.keys[4 * number : 4 * number + 4])
            opcode = CONTINUATION if number else message.opcode
            yield from self._frame(opcode, payload, key, number == last, 0 if number else RSV1)
            number += 1
