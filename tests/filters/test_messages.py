"""WebSocket messages: put together alike however their frames are cut, within limits, and written as they came."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from streamproxy.filters.message_deflate import Deflate, Inflate, Terms
from streamproxy.filters.messages import (
    BYTES_FOR_A_FRAME,
    LEAST_FRAMES,
    PART,
    TOO_LARGE,
    Control,
    Message,
    MessageReader,
    MessageWriter,
)
from streamproxy.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NOT_UTF8,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    TOO_BIG,
    frame,
    frame_head,
)
from tests.filters.cutting import pieces, singly
from tests.wire.reading import property_of, splits

MOST = 1 << 20
MASKS = [b"\x01\x82\x03\xf4", b"\0\0\0\0", b"\xff\xfe\xfd\xfc", b"abcd"]
TERMS = Terms()


def told(reader: MessageReader, parts: Iterable[bytes]) -> list[tuple[object, ...]]:
    """What is whole in `parts`."""
    out: list[tuple[object, ...]] = []
    for part in parts:
        for event in reader.feed(part):
            if isinstance(event, Message):
                sizes = None if event.sizes is None else tuple(event.sizes)
                out.append((event.opcode, event.content, event.keys, sizes, event.compressed))
            elif isinstance(event, Control):
                out.append((event.opcode, event.payload, event.key))
    return out


def error_of(reader: MessageReader) -> tuple[int, str] | None:
    return None if reader.error is None else (reader.error.code, reader.error.reason)


def fragments(opcode: int, parts: list[bytes], masks: list[bytes] | None = None, bits: int = 0) -> list[bytes]:
    """The frames of a message with these payloads."""
    keys = [b""] * len(parts) if masks is None else masks
    last = len(parts) - 1
    return [
        frame(CONTINUATION if at else opcode, part, key, at == last, 0 if at else bits)
        for at, (part, key) in enumerate(zip(parts, keys, strict=True))
    ]


def deflated(*messages: list[bytes]) -> list[list[bytes]]:
    """The payloads of messages in these fragments, one behind the other, by zlib itself."""
    coder = zlib.compressobj(wbits=-15)
    out = []
    for parts in messages:
        made = [coder.compress(part) + coder.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        made[-1] = made[-1].removesuffix(b"\0\0\xff\xff")
        out.append(made)
    return out


PARTS = st.sampled_from([b"", b"a", b"foo " * 40, bytes(70000)])
CHARACTERS = st.sampled_from(["a", "ü", "€", "😀", "\0", "\x7f", "߿", "ࠀ", "\ud7ff", "\ue000", "\U0010ffff"])


@st.composite
def conversations(draw) -> tuple[bytes, list[tuple[object, ...]], bool]:
    """What one side says, and what that is: messages in fragments, controls between them."""
    from_client = draw(st.booleans())
    keys = st.sampled_from(MASKS) if from_client else st.just(b"")
    wire, expected = b"", []

    def control() -> bytes:
        opcode, payload, key = draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)), draw(keys)
        expected.append((opcode, payload, key))
        return frame(opcode, payload, key)

    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            wire += control()
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        content = (
            "".join(draw(st.lists(CHARACTERS, max_size=60))).encode()
            if opcode == TEXT
            else draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 1, 20]))
        )
        cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
        parts = [content[start:end] for start, end in itertools.pairwise([0, *cuts, len(content)])]
        masks = [draw(keys) for _ in parts]
        for number, data in enumerate(fragments(opcode, parts, masks)):
            if number and draw(st.integers(0, 3)) == 0:
                wire += control()
            wire += data
        sizes = tuple(map(len, parts)) if cuts else None
        expected.append((opcode, content, b"".join(masks), sizes, False))
    return wire, expected, from_client


class CutTests(SynchronousTestCase):
    @given(conversations(), st.lists(st.integers(0, 2000), max_size=10))
    @property_of(150)
    def test_any_cut_gives_the_same_messages(self, made: tuple, cuts: list[int]) -> None:
        wire, expected, from_client = made
        for parts in ([wire], pieces(wire, cuts), singly(wire)):
            reader = MessageReader(from_client, MOST)
            self.assertEqual(told(reader, parts), expected)
            self.assertEqual((reader.error, reader.in_message, reader.held), (None, False, 0))

    @given(conversations())
    @property_of(150)
    def test_what_nobody_changed_goes_on_byte_by_byte_as_it_came(self, made: tuple) -> None:
        wire, _expected, from_client = made
        # Controls inside a message go before it.
        reader = MessageReader(from_client, MOST)
        writer = MessageWriter(self.fail if from_client else None)
        out, controls = b"", b""
        for event in reader.feed(wire):
            if isinstance(event, Message):
                out += b"".join(writer.message(event))
            elif isinstance(event, Control):
                controls += writer.control(event.opcode, event.payload, event.key)
        again = MessageReader(from_client, MOST)
        expected = sorted(told(MessageReader(from_client, MOST), [wire]), key=_is_message)
        self.assertEqual(told(again, [controls + out]), expected)
        if not controls:
            self.assertEqual(out, wire)

    def test_each_cut_of_a_text_in_fragments_that_part_characters(self) -> None:
        content = "aü€😀z".encode()
        frames = fragments(TEXT, [content[:2], content[2:5], content[5:8], b"", content[8:]], [*MASKS, MASKS[0]])
        wire = b"".join([*frames[:2], frame(PING, b"p", MASKS[1]), *frames[2:]])
        expected = [(PING, b"p", MASKS[1]), (TEXT, content, b"".join([*MASKS, MASKS[0]]), (2, 3, 3, 0, 3), False)]
        for parts in ([wire], *splits(wire), singly(wire)):
            reader = MessageReader(True, MOST)
            self.assertEqual((told(reader, parts), reader.error), (expected, None))

    @given(
        st.lists(
            st.lists(st.sampled_from([b"", b"a", b"foo " * 40, bytes(70000)]), min_size=1, max_size=4), max_size=4
        ),
        st.lists(st.integers(0, 1000), max_size=10),
    )
    @property_of(80)
    def test_compressed_ones_are_the_same_at_any_cut(self, messages: list[list[bytes]], cuts: list[int]) -> None:
        coded = deflated(*messages)
        wire = b"".join(data for parts in coded for data in fragments(BINARY, parts, bits=RSV1))
        for parts in ([wire], pieces(wire, cuts), singly(wire)):
            reader = MessageReader(False, MOST, Inflate(TERMS))
            found = told(reader, parts)
            self.assertIsNone(reader.error)
            self.assertEqual([each[1] for each in found], [b"".join(parts) for parts in messages])
            self.assertEqual([each[4] for each in found], [True] * len(messages))
            # How much of it each frame brought is what its own bytes inflate to.
            for each, parts_ in zip(found, messages, strict=True):
                sizes = None if len(parts_) == 1 else tuple(map(len, parts_))
                self.assertEqual(each[3], sizes)

    def test_controls_come_at_once_and_messages_when_they_are_whole(self) -> None:
        reader = MessageReader(False, MOST)
        first, second, last = fragments(TEXT, [b"a", b"b", b"c"])
        seen = []
        for data in (first, frame(PING, b"1"), second, frame(PONG, b"2"), last[:2], last[2:]):
            seen.append([each[:2] for each in told(reader, [data])])
        self.assertEqual(seen, [[], [(PING, b"1")], [], [(PONG, b"2")], [], [(TEXT, b"abc")]])
        self.assertFalse(reader.in_message)

    def test_nothing_behind_an_error_is_read(self) -> None:
        reader = MessageReader(False, MOST)
        wire = frame(TEXT, b"right") + frame(PING, b"") + b"\x83\x00" + frame(TEXT, b"never")
        self.assertEqual([each[:2] for each in told(reader, [wire])], [(TEXT, b"right"), (PING, b"")])
        self.assertEqual(error_of(reader), (PROTOCOL_ERROR, "a frame with the reserved opcode 3"))
        self.assertEqual(told(reader, [frame(TEXT, b"never")]), [])


def _is_message(event: tuple[object, ...]) -> bool:
    return len(event) > 3


class LimitTests(SynchronousTestCase):
    def check(self, most: int, frames: list[bytes], content: bytes | None, inflate: bool = False) -> None:
        """Read whole and in cuts it is one message with `content`, or too large."""
        wire = b"".join(frames)
        for parts in ([wire], pieces(wire, range(0, len(wire), 7)), singly(wire) if len(wire) < 5000 else [wire]):
            reader = MessageReader(False, most, Inflate(TERMS) if inflate else None)
            found = told(reader, parts)
            if content is None:
                self.assertEqual((found, error_of(reader)), ([], (TOO_BIG, TOO_LARGE)))
            else:
                self.assertEqual(([each[1] for each in found], reader.error), ([content], None))
            self.assertEqual(reader.held, 0)

    def test_a_message_may_be_as_large_as_the_limit_and_no_larger(self) -> None:
        for most in (0, 1, 125, 126, 1000):
            for size, fits in ((most, True), (most + 1, False)):
                content = b"x" * size
                for cut in ([], [0], [size // 2], [size], [size // 3, size // 2], [max(0, size - 1)]):
                    parts = [content[start:end] for start, end in itertools.pairwise([0, *cut, size])]
                    for opcode in (TEXT, BINARY):
                        self.check(most, fragments(opcode, parts), content if fits else None)

    def test_a_compressed_one_is_as_large_as_it_inflates_to(self) -> None:
        for most in (1, 1000, 65536, 200_000):
            for size, fits in ((most, True), (most + 1, False)):
                content = b"x" * size
                for parts in ([content], [content[: size // 2], content[size // 2 :]]):
                    (coded,) = deflated(parts)
                    self.check(most, fragments(BINARY, coded, bits=RSV1), content if fits else None, True)

    def test_a_bomb_is_stopped_at_the_limit(self) -> None:
        (coded,) = deflated([bytes(50_000_000)])
        self.assertLess(len(coded[0]), 60_000)
        reader = MessageReader(False, 100_000, Inflate(TERMS))
        most = 0
        for _ in reader.feed(frame(BINARY, coded[0], reserved=RSV1)):
            most = max(most, reader.held)
        self.assertEqual((error_of(reader), reader.held), ((TOO_BIG, TOO_LARGE), 0))
        self.assertLessEqual(most, 100_000)

    def test_one_that_says_it_is_larger_is_stopped_at_its_first_byte(self) -> None:
        reader = MessageReader(False, 1000)
        self.assertEqual(told(reader, [frame_head(BINARY, 1 << 40)]), [])
        self.assertIsNone(reader.error)
        told(reader, [b"x"])
        self.assertEqual((error_of(reader), reader.held), ((TOO_BIG, TOO_LARGE), 0))

    def test_the_limit_is_of_each_message(self) -> None:
        reader = MessageReader(False, 10)
        self.assertEqual(len(told(reader, [frame(TEXT, b"x" * 10)] * 50)), 50)
        self.assertIsNone(reader.error)

    def test_it_may_have_so_many_frames_and_no_more(self) -> None:
        for most, frames in (
            (0, LEAST_FRAMES),
            (BYTES_FOR_A_FRAME * LEAST_FRAMES, LEAST_FRAMES),
            (BYTES_FOR_A_FRAME * 2000, 2000),
        ):
            for count, fits in ((frames, True), (frames + 1, False)):
                wire = b"".join(fragments(BINARY, [b""] * count))
                for parts in ([wire], singly(wire)):
                    reader = MessageReader(False, most)
                    found = told(reader, parts)
                    self.assertEqual(len(found), int(fits))
                    error = None if fits else (TOO_BIG, "a message in too many frames")
                    self.assertEqual(error_of(reader), error)

    def test_a_turn_may_end_between_many_small_ones(self) -> None:
        reader = MessageReader(False, MOST)
        row = most = 0
        for event in reader.feed(frame(PING, b"") * 2000):
            row = 0 if event is None else row + 1
            most = max(most, row)
        self.assertLessEqual(most, 256)


# Texts that aren't UTF-8: the bytes up to where nothing can make it right again, and the byte that shows it.
WRONG = [
    (b"", b"\x80"),
    (b"", b"\xbf"),
    (b"", b"\xc0"),
    (b"", b"\xc1"),
    (b"", b"\xf5"),
    (b"", b"\xff"),
    (b"\xc3", b"("),
    (b"\xc3", b"\xc3"),
    (b"\xe0", b"\x9f"),
    (b"\xed", b"\xa0"),
    (b"\xe2\x82", b"("),
    (b"\xf0", b"\x8f"),
    (b"\xf4", b"\x90"),
    (b"\xf0\x9f\x98", b"\xc0"),
    (b"\xf0\x9f", b"a"),
    ("aü€😀".encode(), b"\xff"),
]


class TextTests(SynchronousTestCase):
    def reader(self, compressed: bool) -> MessageReader:
        return MessageReader(False, MOST, Inflate(TERMS) if compressed else None)

    def test_a_text_is_wrong_with_the_byte_that_makes_it_so(self) -> None:
        for right, wrong in WRONG:
            reader = MessageReader(False, MOST)
            # It says that much more is to come.
            told(reader, [frame_head(TEXT, 1000, final=False)])
            for byte in singly(right):
                told(reader, [byte])
                self.assertIsNone(reader.error, right)
            told(reader, [wrong])
            self.assertEqual(error_of(reader), (NOT_UTF8, "a text that isn't UTF-8"), (right, wrong))

    def test_a_text_is_wrong_with_the_fragment_that_makes_it_so(self) -> None:
        for right, wrong in WRONG:
            data = right + wrong
            for at in range(len(data) + 1):
                for compressed in (False, True):
                    reader = self.reader(compressed)
                    parts = [data[:at], data[at:], b"never"]
                    if compressed:
                        (parts,) = deflated(parts)
                    first, second, _third = fragments(TEXT, parts, bits=RSV1 if compressed else 0)
                    told(reader, [first])
                    if at < len(data):
                        self.assertIsNone(reader.error, (data, at))
                    told(reader, [second])
                    self.assertEqual(error_of(reader), (NOT_UTF8, "a text that isn't UTF-8"), (data, at))

    def test_a_text_that_ends_within_a_character_is_wrong(self) -> None:
        content = "aü€😀".encode()
        ends = {len("aü€😀"[:count].encode()) for count in range(5)}
        for size in range(len(content) + 1):
            for at in range(size + 1):
                for compressed in (False, True):
                    parts = [content[:at], content[at:size]]
                    if compressed:
                        (parts,) = deflated(parts)
                    for frames in (fragments(TEXT, parts, bits=RSV1 if compressed else 0), None):
                        if frames is None:
                            frames = fragments(TEXT, [b"".join(parts)], bits=RSV1 if compressed else 0)
                        for cut in ([b"".join(frames)], singly(b"".join(frames))):
                            reader = self.reader(compressed)
                            found = told(reader, cut)
                            if size in ends:
                                self.assertEqual([each[1] for each in found], [content[:size]])
                            else:
                                self.assertEqual((found, reader.error is None), ([], False), (size, at))

    def test_bytes_needn_t_be_text(self) -> None:
        for right, wrong in WRONG:
            reader = MessageReader(False, MOST)
            found = told(reader, fragments(BINARY, [right, wrong]))
            self.assertEqual([each[1] for each in found], [right + wrong])

    def test_the_next_text_begins_anew(self) -> None:
        reader = MessageReader(False, MOST)
        found = told(reader, [*fragments(TEXT, ["ü".encode(), b""]), *fragments(TEXT, [b"", "€".encode()])])
        self.assertEqual([each[1] for each in found], ["ü".encode(), "€".encode()])


class CodingTests(SynchronousTestCase):
    def test_what_is_marked_as_compressed_and_is_not_breaks_the_protocol(self) -> None:
        for payload in (b"\xff" * 10, b"hello", b"\x07"):
            for parts in ([payload], [payload[:1], payload[1:]]):
                reader = MessageReader(False, MOST, Inflate(TERMS))
                told(reader, fragments(BINARY, parts, bits=RSV1))
                assert reader.error is not None
                self.assertEqual(reader.error.code, PROTOCOL_ERROR)
                self.assertIn("compressed data is broken", reader.error.reason)

    def test_where_nothing_was_agreed_on_the_mark_is_wrong(self) -> None:
        reader = MessageReader(False, MOST)
        told(reader, [frame(TEXT, b"x", reserved=RSV1)])
        self.assertEqual(error_of(reader), (PROTOCOL_ERROR, "a frame with a reserved bit that no extension uses"))

    def test_one_that_isn_t_marked_may_stand_between_others(self) -> None:
        (one,), (three,) = deflated([b"one" * 100], [b"one" * 100])
        wire = [frame(BINARY, one, reserved=RSV1), frame(BINARY, b"two"), frame(BINARY, three, reserved=RSV1)]
        found = told(MessageReader(False, MOST, Inflate(TERMS)), wire)
        self.assertEqual(
            [(each[1], each[4]) for each in found], [(b"one" * 100, True), (b"two", False), (b"one" * 100, True)]
        )


class WriteTests(SynchronousTestCase):
    def rewritten(self, frames: list[bytes], to_origin: bool, deflate: bool) -> tuple[bytes, list[tuple[object, ...]]]:
        """What compressed frames of an origin's become, and how that reads."""
        reader = MessageReader(False, MOST, Inflate(TERMS))
        keys = iter([bytes([number]) * 4 for number in range(1, 100)])
        writer = MessageWriter((lambda: next(keys)) if to_origin else None, Deflate(TERMS) if deflate else None)
        out = b""
        for event in reader.feed(b"".join(frames)):
            assert event is None or isinstance(event, Message)
            if event is not None:
                out += b"".join(writer.message(event))
        return out, told(MessageReader(to_origin, MOST, Inflate(TERMS)), [out])

    def test_compressed_ones_keep_their_fragments_and_what_is_in_them(self) -> None:
        messages = [[b"foo bar " * 50], [b"a", b"", b"foo bar " * 50], [b"", b""], [b""], [bytes(100_000), b"x"]]
        frames = [data for parts in deflated(*messages) for data in fragments(TEXT, parts, bits=RSV1)]
        for to_origin in (False, True):
            for deflate in (False, True):
                _out, found = self.rewritten(frames, to_origin, deflate)
                self.assertEqual([each[1] for each in found], [b"".join(parts) for parts in messages])
                self.assertEqual([each[4] for each in found], [deflate] * len(messages))
                sizes = [None if len(parts) == 1 else tuple(map(len, parts)) for parts in messages]
                self.assertEqual([each[3] for each in found], sizes)

    def test_each_frame_of_a_client_s_has_a_mask_of_its_own(self) -> None:
        (parts,) = deflated([b"a", b"b", b"c"])
        _out, found = self.rewritten(fragments(BINARY, parts, bits=RSV1), True, False)
        masks = pieces(found[0][2], (4, 8))
        self.assertEqual((len(masks), len(set(masks))), (3, 3))

    def test_a_new_message_is_one_frame(self) -> None:
        for size in (0, 125, 126, PART, PART + 1, 3 * PART + 5):
            for mask in (b"", MASKS[0]):
                writer = MessageWriter((lambda mask=mask: mask) if mask else None)
                made = list(writer.new(BINARY, b"x" * size))
                self.assertTrue(b"".join(made) == frame(BINARY, b"x" * size, mask), (size, mask))
                self.assertLessEqual(max(map(len, made)), PART + 14)
                if size <= PART:
                    self.assertEqual(len(made), 1)

    def test_large_fragments_go_in_parts_and_small_ones_together(self) -> None:
        sizes = [1, 2, PART + 7, 3, 70_000, 0, *[10] * 10_000]
        for mask in (b"", MASKS[0]):
            frames = fragments(BINARY, [b"x" * size for size in sizes], [mask] * len(sizes))
            (event,) = [each for each in MessageReader(bool(mask), MOST).feed(b"".join(frames)) if each is not None]
            assert isinstance(event, Message)
            made = list(MessageWriter(self.fail if mask else None).message(event))
            self.assertTrue(b"".join(made) == b"".join(frames))
            self.assertLessEqual(max(map(len, made)), 2 * PART + 100)
            self.assertLess(len(made), 15)

    def test_a_control_frame_keeps_its_mask_where_it_has_one(self) -> None:
        to_origin, to_client = MessageWriter(lambda: b"new!"), MessageWriter(None)
        self.assertEqual(to_origin.control(PING, b"x", MASKS[0]), frame(PING, b"x", MASKS[0]))
        self.assertEqual(to_origin.control(CLOSE, b""), frame(CLOSE, b"", b"new!"))
        self.assertEqual(to_client.control(PONG, b"x", MASKS[0]), frame(PONG, b"x"))


TEXTS = st.lists(CHARACTERS, max_size=3).map(lambda characters: "".join(characters).encode())


@st.composite
def any_talk(draw) -> bytes:
    """An origin's frames, of which any may be wrong."""
    wire = b""
    for _ in range(draw(st.integers(1, 7))):
        first = draw(st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x80, 0x89, 0x88, 0x83, 0x09, 0xC1]))
        payload = draw(
            st.one_of(st.binary(max_size=3), st.lists(CHARACTERS, max_size=3).map(lambda c: "".join(c).encode()))
        )
        if first == 0x88:
            payload = draw(st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x03\xed", b"\x03\xe8\xff", b"\x03\xe8ok"]))
        if draw(st.booleans()):
            payload = payload[: draw(st.integers(0, len(payload)))]
        wire += bytes([first, len(payload)]) + payload
    return wire


class OracleTests(SynchronousTestCase):
    @given(any_talk())
    @property_of(500)
    def test_it_agrees_with_wsproto_on_messages_and_on_what_is_wrong(self, wire: bytes) -> None:
        peer = FrameProtocol(True, [])
        peer.receive_bytes(wire)
        expected: list[tuple[int, bytes]] = []
        code = None
        content = b""
        closed = False
        try:
            for each in peer.received_frames():
                if each.opcode in (Opcode.PING, Opcode.PONG):
                    expected.append((int(each.opcode), bytes(each.payload)))
                elif each.opcode is Opcode.CLOSE:
                    # It reads no further; what is in it is looked at elsewhere here.
                    closed = True
                else:
                    content += each.payload.encode() if isinstance(each.payload, str) else bytes(each.payload)
                    if each.message_finished:
                        expected.append((int(each.opcode), content))
                        content = b""
        except ParseFailed as error:
            code = int(error.code)
            closed = error.code is CloseReason.PROTOCOL_ERROR and "CLOSE" in str(error)
            closed = closed or "CLOSE reason" in str(error)
        reader = MessageReader(False, MOST)
        found = []
        for event in told(reader, [wire]):
            if event[0] == CLOSE:
                break
            found.append(event[:2])
        else:
            if not closed:
                self.assertEqual(None if reader.error is None else reader.error.code, code)
        self.assertEqual(found, expected)
