"""Frames: read alike however they are cut, written so that they can be read, and refused with the right code."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto.frame_protocol import FrameDecoder, ParseFailed

from streamproxy.wire.websocket import (
    ANY_RSV,
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_CODE,
    NOT_UTF8,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    FrameError,
    FramePart,
    FrameReader,
    close_payload,
    frame,
    frame_head,
    masked,
    may_be_sent,
    read_close,
)
from tests.filters.cutting import pieces
from tests.wire.reading import bytewise, property_of, splits

MASK = b"\x01\x82\x03\xf4"
LENGTHS = (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 1023, 1024, 1025, 65535, 65536, 65537)
# (opcode, RSV bits, whether it is final, mask, payload)
Told = tuple[int, int, bool, bytes, bytes]


def frames_in(reader: FrameReader, parts: Iterable[bytes]) -> list[Told]:
    """The frames that `parts` have, and what there is of the last one; each part of a frame is checked."""
    told: list[Told] = []
    payload, begun = b"", False
    for part in parts:
        for each in reader.feed(part):
            head = each.head
            assert each.at == len(payload), "where a part stands"
            payload += each.payload
            assert len(each.data) == len(each.payload)
            if begun:
                told.pop()
            told.append((head.opcode, head.reserved, head.final, head.mask, payload))
            begun = not each.last
            if each.last:
                assert len(payload) == head.length, "the last part ends the frame"
                payload = b""
            else:
                assert head.opcode < CLOSE, "a control frame comes as one part"
                assert len(payload) < head.length
    return told


def error_of(reader: FrameReader) -> tuple[int, str] | None:
    return None if reader.error is None else (reader.error.code, reader.error.reason)


def read(data: bytes, from_client: bool, reserved: int = 0, parts: Iterable[bytes] | None = None):
    """The frames of `data` in `parts`, what is wrong with it, and the reader's state."""
    reader = FrameReader(from_client, reserved)
    told = frames_in(reader, [data] if parts is None else parts)
    return told, error_of(reader), reader.between, reader.in_message


class RoundTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        for length, mask in product(LENGTHS, (b"", MASK, b"\0\0\0\0", b"\xff" * 4)):
            payload = bytes(range(251)) * (length // 251 + 1)
            payload = payload[:length]
            for opcode, final, reserved in ((BINARY, True, 0), (TEXT, False, RSV1), (BINARY, False, 7)):
                data = frame(opcode, payload, mask, final, reserved)
                told, error, between, in_message = read(data, bool(mask), ANY_RSV)
                self.assertTrue(told == [(opcode, reserved, final, mask, payload)], (length, mask, opcode))
                self.assertEqual((error, between, in_message), (None, True, not final))

    def test_a_length_takes_as_few_bytes_as_can_be(self) -> None:
        for length, size in ((0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (1 << 62, 10)):
            self.assertEqual(len(frame_head(BINARY, length)), size)
            self.assertEqual(len(frame_head(BINARY, length, MASK)), size + 4)

    def test_a_head_is_written_as_the_rfc_draws_it(self) -> None:
        # RFC 6455 section 5.7.
        for made, written in (
            (frame(TEXT, b"Hello"), "810548656c6c6f"),
            (frame(TEXT, b"Hello", bytes.fromhex("37fa213d")), "818537fa213d7f9f4d5158"),
            (frame(TEXT, b"Hel", final=False), "010348656c"),
            (frame(CONTINUATION, b"lo"), "80026c6f"),
            (frame(PING, b"Hello"), "890548656c6c6f"),
            (frame_head(BINARY, 256), "827e0100"),
            (frame_head(BINARY, 65536), "827f0000000000010000"),
            (frame_head(TEXT, 7, reserved=RSV1), "c107"),
        ):
            self.assertEqual(made.hex(), written)

    def test_a_frame_may_be_as_long_as_can_be_said(self) -> None:
        most = (1 << 63) - 1
        reader = FrameReader(False)
        (part,) = reader.feed(frame_head(BINARY, most) + b"x")
        self.assertEqual((part.head.length, part.data, part.last, reader.error), (most, b"x", False, None))

    def test_nothing_of_a_large_frame_is_kept(self) -> None:
        reader = FrameReader(True)
        data = frame(BINARY, bytes(1000), MASK)
        given_ = [part.data for piece in (data[:300], data[300:700], data[700:]) for part in reader.feed(piece)]
        self.assertEqual([len(part) for part in given_], [292, 400, 308])

    def test_a_part_of_one_read_is_that_read(self) -> None:
        # It isn't copied.
        reader = FrameReader(False)
        list(reader.feed(frame_head(BINARY, 1 << 30)))
        data = bytes(60000)
        (part,) = reader.feed(data)
        self.assertIs(part.data, data)


@st.composite
def streams(draw) -> tuple[list[Told], bool]:
    """Messages in fragments with control frames between them, all right, of one side."""
    from_client = draw(st.booleans())
    masks = st.binary(min_size=4, max_size=4) if from_client else st.just(b"")
    told: list[Told] = []

    def controls() -> None:
        for opcode in draw(st.lists(st.sampled_from([PING, PONG, CLOSE]), max_size=2)):
            told.append((opcode, 0, True, draw(masks), draw(st.binary(max_size=125))))

    for opcode in draw(st.lists(st.sampled_from([TEXT, BINARY]), max_size=3)):
        controls()
        sizes = draw(st.lists(st.sampled_from([0, 1, 5, 125, 126, 200, 1030]), min_size=1, max_size=4))
        for number, size in enumerate(sizes):
            if number:
                controls()
            first, last = not number, number == len(sizes) - 1
            reserved = draw(st.sampled_from([0, RSV1])) if first else 0
            payload = draw(st.binary(min_size=4, max_size=4)) * (size // 4 + 1)
            told.append((opcode if first else CONTINUATION, reserved, last, draw(masks), payload[:size]))
    return told, from_client


def written(told: Iterable[Told]) -> bytes:
    return b"".join(frame(opcode, payload, mask, final, bits) for opcode, bits, final, mask, payload in told)


class CutTests(SynchronousTestCase):
    @given(streams(), st.lists(st.integers(0, 3000), max_size=8))
    @property_of(150)
    def test_any_cut_gives_the_same(self, stream: tuple[list[Told], bool], cuts: list[int]) -> None:
        told, from_client = stream
        wire = written(told)
        self.assertTrue(read(wire, from_client, RSV1)[:2] == (told, None))
        for parts in (pieces(wire, cuts), bytewise(wire)):
            self.assertTrue(read(wire, from_client, RSV1, parts)[:2] == (told, None), parts)

    def test_each_place_of_every_kind_of_head(self) -> None:
        told = [
            (TEXT, 0, False, MASK, b"abc"),
            (PING, 0, True, MASK, b"x" * 125),
            (CONTINUATION, 0, False, MASK, b""),
            (CONTINUATION, 0, True, MASK, b"d" * 130),
            (BINARY, 0, True, MASK, b""),
            (CLOSE, 0, True, MASK, b"\x03\xe8"),
        ]
        wire = written(told)
        for parts in splits(wire):
            self.assertEqual(read(wire, True, 0, parts)[:2], (told, None), len(parts[0]))
        wire = frame(BINARY, b"y" * 65536) + frame(PONG, b"")
        for at in (*range(1, 14), 65535, *range(65540, len(wire))):
            self.assertEqual(read(wire, False, 0, (wire[:at], wire[at:]))[1:], (None, True, False), at)

    @given(streams(), st.lists(st.integers(0, 3000), max_size=8))
    @property_of(150)
    def test_how_far_it_has_read_is_told_at_any_cut(self, stream: tuple[list[Told], bool], cuts: list[int]) -> None:
        told, from_client = stream
        wire = written(told)
        ends = list(accumulate(len(written([each])) for each in told))
        for parts in ([wire], pieces(wire, cuts), bytewise(wire)):
            reader = FrameReader(from_client, RSV1)
            found = [reader.position for part in parts for each in reader.feed(part) if each.last]
            self.assertEqual(found, ends, parts)

    def test_where_it_stands_is_told(self) -> None:
        wire = frame(TEXT, b"ab", MASK, final=False) + frame(PING, b"p", MASK) + frame(CONTINUATION, b"c", MASK)
        reader = FrameReader(True)
        state = []
        for byte in bytewise(wire):
            list(reader.feed(byte))
            state.append((reader.between, reader.in_message))
        # The head of the first frame tells that there is a message, from where its mask ends.
        first = [(False, False)] * 5 + [(False, True)] * 2 + [(True, True)]
        self.assertEqual(state, [*first, *[(False, True)] * 6, (True, True), *[(False, True)] * 6, (True, False)])

    @given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4), st.integers(0, 3000))
    @property_of(150)
    def test_a_mask_goes_on_where_it_stopped(self, payload: bytes, mask: bytes, at: int) -> None:
        expected = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.assertEqual(masked(payload, mask), expected)
        at = min(at, len(payload))
        self.assertEqual(masked(payload[:at], mask) + masked(payload[at:], mask, at), expected)
        self.assertEqual(masked(masked(payload, mask, at), mask, at), payload)


# What is refused, said by an origin, by the RSV bits that mean something: the bytes, and the words.
ERRORS = [
    *[(bytes([0x80 | opcode, 0]), 0, f"a frame with the reserved opcode {opcode}") for opcode in (3, 4, 5, 6, 7)],
    *[(bytes([0x80 | opcode, 0]), 0, f"a frame with the reserved opcode {opcode}") for opcode in range(11, 16)],
    *[
        (bytes([first, 0]), reserved, "a frame with a reserved bit that no extension uses")
        for first, reserved in (
            (0xC1, 0),
            (0xA2, 0),
            (0x91, 0),
            (0xF1, 0),
            (0xA1, RSV1),
            (0x91, RSV1),
            (0xC9, RSV1),
            (0xC8, 0),
            (0xE1, RSV1),
        )
    ],
    *[(bytes([opcode, 0]), 0, "a control frame in fragments") for opcode in (CLOSE, PING, PONG)],
    (b"\x80\x00", 0, "a continuation of no message"),
    (b"\x00\x00", 0, "a continuation of no message"),
    (b"\x81\x00\x80\x00", 0, "a continuation of no message"),
    (b"\x01\x00\x81\x00", 0, "a new message inside another one"),
    (b"\x01\x00\x02\x00", 0, "a new message inside another one"),
    (b"\x01\x00\x00\x00\x82\x00", 0, "a new message inside another one"),
    (b"\x41\x00\xc0\x00", RSV1, "a frame with a reserved bit that no extension uses"),
    (b"\x81\x80", 0, "an origin's frame with a mask"),
    (b"\x89\x80", 0, "an origin's frame with a mask"),
    *[(bytes([0x88 | low, 126]), 0, "a control frame of more than 125 bytes") for low in (0, 1, 2)],
    (b"\x89\x7f", 0, "a control frame of more than 125 bytes"),
    (b"\x82\x7e\x00\x00", 0, "a frame's length in more bytes than it needs"),
    (b"\x82\x7e\x00\x7d", 0, "a frame's length in more bytes than it needs"),
    (b"\x82\x7f" + bytes(6) + b"\xff\xff", 0, "a frame's length in more bytes than it needs"),
    (b"\x82\x7f\x80" + bytes(7), 0, "a frame's length that is no length"),
    (b"\x82\x7f" + b"\xff" * 8, 0, "a frame's length that is no length"),
]


class ErrorTests(SynchronousTestCase):
    def test_each_error_has_its_words_at_each_cut(self) -> None:
        before = frame(PING, b"before")
        for wrong, reserved, words in ERRORS:
            for rest in (b"", b"\x82\x01x"):
                wire = before + wrong + rest
                for parts in ([wire], *splits(wire), bytewise(wire)):
                    told, error, *_ = read(wire, False, reserved, parts)
                    self.assertEqual(error, (PROTOCOL_ERROR, words), (wrong, parts))
                    self.assertEqual(told[0][0], PING, "what was right before it")

    def test_it_is_told_with_the_byte_that_makes_it_wrong(self) -> None:
        for wrong, reserved, words in ERRORS:
            # The first byte of the frame tells most of it; the rest is in its length.
            in_length = any(word in words for word in ("length", "mask", "125"))
            told_by = len(wrong) if in_length else len(wrong) - 1
            reader = FrameReader(False, reserved)
            for number, byte in enumerate(bytewise(wrong), 1):
                list(reader.feed(byte))
                self.assertEqual(reader.error is not None, number >= told_by, (wrong, number))

    def test_a_client_must_mask(self) -> None:
        for wrong in (b"\x82\x00", b"\x81\x05", b"\x88\x02", b"\x82\x7e", b"\x82\x7f"):
            for parts in ([wrong], bytewise(wrong)):
                _told, error, *_ = read(wrong, True, 0, parts)
                self.assertEqual(error, (PROTOCOL_ERROR, "a frame without a mask"), wrong)

    def test_nothing_is_read_behind_an_error(self) -> None:
        reader = FrameReader(False)
        self.assertEqual(list(reader.feed(b"\x83\x00" + frame(TEXT, b"x"))), [])
        for data in (b"", frame(TEXT, b"y"), b"\xff" * 100):
            self.assertEqual(list(reader.feed(data)), [])
        self.assertEqual(error_of(reader), (PROTOCOL_ERROR, "a frame with the reserved opcode 3"))

    def test_bits_that_an_extension_uses_are_told(self) -> None:
        for first, reserved in ((0xC1, RSV1), (0xF2, ANY_RSV), (0xA1, ANY_RSV), (0xF9, ANY_RSV)):
            told, error, *_ = read(bytes([first, 0]), False, reserved)
            self.assertEqual((told[0][:2], error), ((first & 15, first >> 4 & 7), None))


class Oracle:
    """What wsproto's decoder makes of the same bytes, with the order of fragments looked at beside it."""

    def __init__(self, from_client: bool) -> None:
        self._decoder = FrameDecoder(client=not from_client)

    def read(self, data: bytes) -> tuple[list[tuple[int, bool, bytes]], bool]:
        """Opcode, final and payload of each whole frame, and whether it stopped for an error."""
        decoder = self._decoder
        decoder.receive_bytes(data)
        told: list[tuple[int, bool, bytes]] = []
        opcode, payload, in_message = -1, b"", False
        while True:
            try:
                found = decoder.process_buffer()
            except ParseFailed:
                return told, True
            if found is None:
                return told, False
            if opcode < 0:
                opcode = int(found.opcode)
                if opcode < CLOSE:
                    if (opcode == CONTINUATION) is not in_message:
                        return told, True
                    in_message = not found.message_finished
            payload += bytes(found.payload)
            if found.frame_finished:
                told.append((opcode, found.message_finished, payload))
                opcode, payload = -1, b""


@st.composite
def any_frames(draw) -> tuple[bytes, bool]:
    """Frames of one side of which any may be wrong, each of them whole."""
    from_client = draw(st.booleans())
    wire = b""
    for _ in range(draw(st.integers(1, 6))):
        right = draw(st.sampled_from([0x82, 0x89, 0x8A, 0x02, 0x00, 0x80, 0x81, 0x88]))
        first = draw(st.one_of(st.just(right), st.just(right), st.integers(0, 255)))
        length = draw(st.sampled_from([0, 1, 7, 125, 126, 300]))
        width = draw(st.sampled_from([0, 0, 0, 0, 0, 2, 8]))
        mask = draw(st.sampled_from([from_client] * 8 + [not from_client]))
        bit = 128 if mask else 0
        if width == 8:
            head = bytes([first, bit | 127]) + length.to_bytes(8, "big")
        elif width == 2 or length > 125:
            head = bytes([first, bit | 126]) + length.to_bytes(2, "big")
        else:
            head = bytes([first, bit | length])
        wire += head + (MASK if mask else b"") + draw(st.binary(min_size=1, max_size=1)) * length
    return wire, from_client


class OracleTests(SynchronousTestCase):
    @given(any_frames())
    @property_of(500)
    def test_it_agrees_with_wsproto(self, made: tuple[bytes, bool]) -> None:
        wire, from_client = made
        told, error, *_ = read(wire, from_client)
        expected, wrong = Oracle(from_client).read(wire)
        whole = [(opcode, final, payload) for opcode, _bits, final, _mask, payload in told]
        self.assertTrue(whole == expected, (whole, expected, error))
        self.assertEqual(error is not None, wrong, error)


class CloseTests(SynchronousTestCase):
    def test_codes_that_can_be_sent(self) -> None:
        fine = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]
        self.assertEqual([code for code in range(65536) if may_be_sent(code)], fine)

    def test_a_code_and_a_reason_are_read(self) -> None:
        for code, reason in ((1000, ""), (1001, "away"), (4999, "grün"), (3000, "x" * 123), (1011, "\0")):
            self.assertEqual(read_close(code.to_bytes(2, "big") + reason.encode()), (code, reason))
            self.assertEqual(close_payload(code, reason), code.to_bytes(2, "big") + reason.encode())
        self.assertEqual(read_close(b""), (NO_CODE, ""))
        self.assertEqual(close_payload(NO_CODE, ""), b"")

    def test_what_is_wrong_with_one_is_told(self) -> None:
        for payload, code in (
            (b"\x03", PROTOCOL_ERROR),
            (b"\x03\xed", PROTOCOL_ERROR),
            (b"\x03\xee", PROTOCOL_ERROR),
            (b"\x03\xf7", PROTOCOL_ERROR),
            (b"\0\0", PROTOCOL_ERROR),
            (b"\x03\xe7", PROTOCOL_ERROR),
            (b"\x07\xd0", PROTOCOL_ERROR),
            (b"\x13\x88", PROTOCOL_ERROR),
            (b"\xff\xff", PROTOCOL_ERROR),
            (b"\x03\xe8\xff", NOT_UTF8),
            (b"\x03\xe8\xc3", NOT_UTF8),
            (b"\x03\xe8\xed\xa0\x80", NOT_UTF8),
            (b"\x03\xed\xff", PROTOCOL_ERROR),
        ):
            with self.assertRaises(FrameError, msg=repr(payload)) as caught:
                read_close(payload)
            self.assertEqual(caught.exception.code, code, payload)

    @given(st.text(max_size=200))
    @property_of(200)
    def test_a_reason_that_is_too_long_ends_with_a_character(self, reason: str) -> None:
        payload = close_payload(1000, reason)
        self.assertLessEqual(len(payload), 125)
        code, kept = read_close(payload)
        self.assertEqual(code, 1000)
        whole = reason.encode("utf-8", "replace").decode()
        self.assertTrue(whole.startswith(kept))
        if len(kept) < len(whole):
            self.assertGreater(len((kept + whole[len(kept)]).encode()), 123)

    def test_a_reason_that_is_no_text_does_no_harm(self) -> None:
        self.assertEqual(read_close(close_payload(1000, "a\ud800b")), (1000, "a?b"))


class CostTests(SynchronousTestCase):
    def test_parts_are_made_as_they_are_taken(self) -> None:
        reader = FrameReader(False)
        given_ = reader.feed(frame(PING, b"x") * 10000)
        first = next(given_)
        self.assertIsInstance(first, FramePart)
        self.assertEqual(len(list(given_)), 9999)
