"""A secret that is taken out of a body passes none of the filters that may stand around: not for a moment, nor in part.

Here are the filters alone. At each piece that is taken of what they give, all that has been given is looked at.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE, Chain, Filter, FilterError
from streamproxy.filters.coding import Bounds, Decoded, Encoded
from streamproxy.filters.events import Events
from streamproxy.filters.finders import Pattern
from streamproxy.filters.lines import Lines
from streamproxy.filters.patterns import compile_regex
from streamproxy.filters.replace import Overrun, Replace, literal, regex

SECRET = b"SK-SK0123"
PUT = b"(gone)"
WIDE = Bounds(1 << 30, 1 << 30, 1 << 40)
HOLD_BACK = 24

_BEGINNING = rb"(?:" + b"|".join(re.escape(SECRET[:size]) for size in range(len(SECRET) - 1, 0, -1)) + rb")\Z"
# What is found; what one pass would find; what may become it, where a text ends.
Kind = tuple[list[Pattern], re.Pattern[bytes], re.Pattern[bytes]]
KINDS: dict[str, Kind] = {
    "literal": ([literal(SECRET, PUT)], re.compile(re.escape(SECRET)), re.compile(_BEGINNING)),
    "one of many literals": (
        [*[literal(b"QQ-%d" % number, b"x") for number in range(70)], literal(SECRET, PUT)],
        re.compile(re.escape(SECRET)),
        re.compile(_BEGINNING),
    ),
    "regex": (
        [regex(compile_regex("SK-(?:SK)?[0-9]{4}"), "(gone)")],
        re.compile(rb"SK-(?:SK)?[0-9]{4}"),
        re.compile(rb"(?:S|SK|SK-|SK-S|SK-(?:SK)?[0-9]{0,3})\Z"),
    ),
    "regex without an end": (
        [regex(compile_regex("SK-[A-Z0-9]+;"), "(gone)", 1 << 20)],
        re.compile(rb"SK-[A-Z0-9]+;"),
        re.compile(rb"(?:S|SK|SK-[A-Z0-9]*)\Z"),
    ),
}
TEXT = b"is SK-SK-SK0123; SK-SKSK-0123;" + SECRET + b";SK-" + SECRET + b"; so"
CODED = (b"gzip", b"deflate", b"br", b"zstd")
PARTS = st.lists(
    st.sampled_from([b"S", b"SK", b"SK-", b"-", b"0123", b"01", b"23", b"SK-SK", b"K-SK0123;", b";", b" ", SECRET])
    | st.binary(max_size=3).map(lambda data: data.replace(b"Q", b"q")),
    max_size=14,
)


def decided(kind: Kind, text: bytes) -> bytes:
    """What may have passed of a body that has come so far."""
    _, whole, beginning = kind
    found = beginning.search(text)
    return whole.sub(PUT, text if found is None else text[: found.start()])


def read(coding: bytes, body: bytes) -> bytes:
    """As much as can be read by now of what one of the encoders made."""
    if not body:
        return b""
    if coding == b"br":
        text: bytes = brotli.Decompressor().process(body)
        return text
    if coding == b"zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return zlib.decompressobj(31 if coding == b"gzip" else 15).decompress(body)


def coded(coding: bytes, parts: Sequence[bytes]) -> list[bytes]:
    """Parts of a text, each flushed, or a member or frame by itself where the coding has these."""
    if coding == b"gzip":
        return [gzip.compress(part) for part in parts]
    if coding == b"zstd":
        return [zstandard.compress(part) for part in parts]
    if coding == b"br":
        coder = brotli.Compressor(quality=2)
        return [*[coder.process(part) + coder.flush() for part in parts], coder.finish()]
    deflate = zlib.compressobj(1)
    return [*[deflate.compress(part) + deflate.flush(zlib.Z_FULL_FLUSH) for part in parts], deflate.flush()]


def in_singles(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def cuts(text: bytes) -> Iterator[list[bytes]]:
    """A text in one part, in single bytes, and in two at every place."""
    yield [text]
    yield in_singles(text)
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]


class Passing(SynchronousTestCase):
    def pieces(self, given: Iterable[object], so_far: bytearray, most: bytes) -> None:
        """Take what was given piece by piece: never more than the beginning of `most` has passed."""
        for piece in given:
            assert isinstance(piece, bytes)
            so_far += piece
            self.assertTrue(most.startswith(so_far), (bytes(so_far)[-60:], most[-60:]))


class ReplaceTests(Passing):
    def watch(self, kind: Kind, parts: Iterable[bytes]) -> None:
        """Exactly what is decided has passed, after each part."""
        stage, text, passed = Replace(kind[0]), b"", bytearray()
        for part in parts:
            text += part
            due = decided(kind, text)
            self.pieces(stage.feed(part), passed, due)
            self.assertEqual(bytes(passed), due)
        due = kind[1].sub(PUT, text)
        self.pieces(stage.finish(), passed, due)
        self.assertEqual(bytes(passed), due)

    def test_at_every_offset(self) -> None:
        for kind in KINDS.values():
            for parts in cuts(TEXT):
                self.watch(kind, parts)
            for one in range(1, len(TEXT)):
                for two in range(one + 1, min(one + 12, len(TEXT))):
                    self.watch(kind, [TEXT[:one], TEXT[one:two], TEXT[two:]])

    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from(list(KINDS)), PARTS)
    def test_whatever_comes_in_whatever_parts(self, name: str, parts: list[bytes]) -> None:
        self.watch(KINDS[name], parts)

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(list(KINDS)), PARTS)
    def test_whatever_comes_byte_by_byte(self, name: str, parts: list[bytes]) -> None:
        self.watch(KINDS[name], in_singles(b"".join(parts)))

    def test_around_the_bits_in_which_much_is_made(self) -> None:
        # Matches all over, so that what is made is given in bits, of which each ends inside or beside a match.
        for name in ("literal", "one of many literals", "regex"):
            kind = KINDS[name]
            for offset in range(len(SECRET) + 3):
                text = b"." * offset + (SECRET + b" ") * (3 * PIECE // len(PUT))
                self.watch(kind, [text[:PIECE], text[PIECE : 2 * PIECE], text[2 * PIECE :]])

    def test_what_is_given_up_gives_no_more(self) -> None:
        for kind in KINDS.values():
            for size in range(1, len(SECRET)):
                stage = Replace(kind[0])
                self.assertEqual(b"".join(stage.feed(b"is " + SECRET[:size])), b"is ")
                stage.abort("gone")
                self.assertEqual(b"".join(stage.finish()), b"")
                self.assertFalse(stage.held)
                self.assertEqual(stage.release(), b"")


class OverrunTests(Passing):
    TEXT = b"is SK-" + b"A0" * 20 + b"; so"

    def stage(self, release: bool) -> Replace:
        return Replace([regex(compile_regex("SK-[A-Z0-9]+;"), "(gone)", HOLD_BACK, release, "hush")])

    def test_nothing_of_what_may_be_too_long_passes(self) -> None:
        for parts in cuts(self.TEXT):
            stage, passed = self.stage(False), bytearray()
            with self.assertRaises(Overrun) as raised:
                for part in parts:
                    self.pieces(stage.feed(part), passed, b"is ")
                list(stage.finish())
            self.assertEqual(bytes(passed), b"is ")
            self.assertNotIn("SK", str(raised.exception))

    def test_it_is_given_up_at_the_byte_that_is_too_many(self) -> None:
        stage, passed = self.stage(False), b""
        with self.assertRaises(Overrun):
            for number, byte in enumerate(in_singles(self.TEXT)):  # noqa: B007
                passed += b"".join(stage.feed(byte))
        self.assertEqual((number, passed), (3 + HOLD_BACK, b"is "))

    def test_what_is_released_leaves_at_that_byte_and_not_before(self) -> None:
        for parts in cuts(self.TEXT):
            stage, passed, came = self.stage(True), bytearray(), b""
            for part in parts:
                came += part
                limit = 3 + HOLD_BACK
                self.pieces(stage.feed(part), passed, came if len(came) > limit else b"is ")
            self.pieces(stage.finish(), passed, self.TEXT)
            self.assertEqual(bytes(passed), self.TEXT)


class ChainTests(Passing):
    """Codings around it, events and records behind it."""

    def watch(self, kind: Kind, coding: bytes, reads: Iterable[tuple[bytes, bytes]]) -> None:
        """Each read brings some bytes, and with them so much of the text."""
        decoder = Decoded([coding], WIDE)
        chain = Chain([decoder, Replace(kind[0]), Encoded([coding], decoder)])
        text, passed = b"", b""
        for body, part in reads:
            text += part
            for piece in chain.feed(body):
                assert isinstance(piece, bytes)
                passed += piece
                self.assertTrue(decided(kind, text).startswith(read(coding, passed)))
            self.assertEqual(read(coding, passed), decided(kind, text))
        passed += b"".join(piece for piece in chain.finish() if isinstance(piece, bytes))
        self.assertEqual(read(coding, passed), kind[1].sub(PUT, text))

    def test_members_frames_and_flushes_at_every_offset(self) -> None:
        for kind in KINDS.values():
            for coding in CODED:
                for parts in cuts(TEXT):
                    bodies = coded(coding, parts)
                    self.watch(kind, coding, zip(bodies, [*parts, b""], strict=False))
                    self.watch(kind, coding, [(b"".join(bodies), TEXT)])

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(list(KINDS)), st.sampled_from(CODED), PARTS)
    def test_whatever_comes_coded(self, name: str, coding: bytes, parts: list[bytes]) -> None:
        self.watch(KINDS[name], coding, zip(coded(coding, parts), [*parts, b""], strict=False))

    def test_a_coding_that_is_cut_gives_what_was_before_the_secret_and_no_more(self) -> None:
        for kind in KINDS.values():
            for coding in CODED:
                for size in range(1, len(SECRET)):
                    bodies = coded(coding, [b"is " + SECRET[:size]])
                    # Without the last block, or without its end.
                    body = bodies[0] if len(bodies) > 1 else bodies[0][:-9]
                    chain, passed = Chain([Decoded([coding], WIDE), Replace(kind[0])]), bytearray()
                    self.pieces(chain.feed(body), passed, b"is ")
                    with self.assertRaises(FilterError):
                        self.pieces(chain.finish(), passed, b"is ")
                    self.assertTrue(coding == b"zstd" or passed)

    def behind(self, stage: Filter, kind: Kind, parts: list[bytes], shown: list[bytes]) -> None:
        """What the function behind is shown never has more in it than what is decided."""
        chain, text, passed = Chain([Replace(kind[0]), stage]), b"", bytearray()
        shown.clear()
        for part in parts:
            text += part
            self.pieces(chain.feed(part), passed, decided(kind, text))
            self.assertFalse([each for each in shown if each not in decided(kind, text)])
        self.pieces(chain.finish(), passed, kind[1].sub(PUT, text))
        self.assertEqual(bytes(passed), kind[1].sub(PUT, text))
        self.assertIn(PUT, b"".join(shown))

    def test_events_at_every_offset(self) -> None:
        text = b"data: SK-\n\ndata: " + SECRET + b";\n\ndata: SK-SK\n\ndata: 0123\n\n: " + SECRET + b";\n\ndata: x\n\n"
        shown: list[bytes] = []
        for kind in KINDS.values():
            for parts in cuts(text):
                self.behind(Events(lambda event: shown.append(event.data.encode()), 1 << 20), kind, parts, shown)

    def test_records_at_every_offset(self) -> None:
        text = b'{"a": "SK-"}\n{"a": "' + SECRET + b';"}\n{"a": "SK-SK"}\n{"a": "0123"}\n'
        shown: list[bytes] = []
        for kind in KINDS.values():
            for parts in cuts(text):
                self.behind(Lines(lambda record: shown.append(record.text.encode()), 1 << 20), kind, parts, shown)
