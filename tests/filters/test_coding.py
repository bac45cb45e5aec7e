"""Content codings undone and put back: every split gives what the whole gives, and every piece leaves at once."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE, Chain
from streamproxy.filters.coding import (
    CODINGS,
    MOST_CODINGS,
    Bounds,
    CodingError,
    Decoded,
    Encoded,
    acceptable,
    decode_whole,
    encode_whole,
    readable,
)

WIDE = Bounds(ratio=1 << 30, least=1 << 30, size=1 << 40)


def bare(text: bytes) -> bytes:
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return coder.compress(text) + coder.flush()


def zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(text)


# Each coding with the library's own ways of applying it.
WHOLE: dict[bytes, list[Callable[[bytes], bytes]]] = {
    b"gzip": [gzip.compress, lambda text: gzip.compress(text[:7]) + gzip.compress(text[7:])],
    b"x-gzip": [lambda text: gzip.compress(text, 1)],
    b"deflate": [zlib.compress, bare],
    b"br": [lambda text: brotli.compress(text, quality=5), lambda text: brotli.compress(text, quality=1, lgwin=10)],
    b"zstd": [
        zstd,
        zstandard.compress,
        lambda text: zstandard.ZstdCompressor(write_content_size=False).compress(text),
        lambda text: zstandard.compress(text[:9]) + b"\x5f\x2a\x4d\x18\3\0\0\0xyz" + zstd(text[9:]),
    ],
}
READ: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.decompress,
    b"x-gzip": gzip.decompress,
    b"deflate": zlib.decompress,
    b"br": brotli.decompress,
    b"zstd": lambda coded: zstandard.ZstdDecompressor().decompressobj().decompress(coded),
}

ROWS = st.lists(st.sampled_from(CODINGS), min_size=1, max_size=3)
# Text that repeats, text that doesn't, and enough of it to fill a decoder's output.
TEXTS = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1]),
    st.tuples(st.integers(0, 255), st.integers(65000, 300000)).map(lambda pair: bytes([pair[0]]) * pair[1]),
)
CUTS = st.lists(st.integers(0, 2000), max_size=8)


def cut(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The body in pieces of these sizes, the last of which is repeated if it is one."""
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    if sizes == [1]:
        pieces += [body[at : at + 1] for at in range(len(body))]
        return pieces
    return [*pieces, body]


def decoded(codings: Sequence[bytes], pieces: Sequence[bytes]) -> tuple[bytes, str]:
    """What comes of the pieces, and in what words it fails if it does."""
    stage = Decoded(codings, WIDE)
    given = b""
    try:
        for piece in pieces:
            for part in stage.feed(piece):
                assert isinstance(part, bytes)
                given += part
        assert list(stage.finish()) == []
    except CodingError as error:
        return given, str(error)
    return given, ""


def coded(codings: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    stage = Encoded(codings)
    return b"".join(part for piece in pieces for part in stage.feed(piece)) + b"".join(stage.finish())


class RoundTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(ROWS, TEXTS, CUTS, CUTS)
    def test_what_is_coded_in_any_pieces_is_decoded_in_any_pieces(
        self, codings: list[bytes], text: bytes, before: list[int], between: list[int]
    ) -> None:
        body = coded(codings, cut(text, before))
        self.assertEqual(decoded(codings, cut(body, between)), (text, ""))

    @settings(max_examples=80, deadline=None)
    @given(ROWS, st.lists(st.binary(min_size=1, max_size=200), max_size=6))
    def test_a_piece_can_be_read_as_soon_as_it_was_fed(self, codings: list[bytes], pieces: list[bytes]) -> None:
        encoded, stage = Encoded(codings), Decoded(codings, WIDE)
        for piece in pieces:
            there = b"".join(encoded.feed(piece))
            self.assertEqual(b"".join(stage.feed(there)), piece)

    def test_so_can_one_that_just_fills_what_a_decoder_gives_at_a_time(self) -> None:
        for coding in CODINGS:
            for size in (*range(PIECE - 20, PIECE + 700, 13), 2 * PIECE + 1, 4 * PIECE):
                encoded, stage = Encoded([coding]), Decoded([coding], WIDE)
                there = b"".join(encoded.feed(bytes(size)))
                self.assertEqual(len(b"".join(stage.feed(there))), size)

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from(CODINGS), TEXTS, CUTS)
    def test_others_read_what_is_coded(self, coding: bytes, text: bytes, sizes: list[int]) -> None:
        body = coded([coding], cut(text, sizes))
        self.assertEqual(READ[coding](body) if text else body, text)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(CODINGS), TEXTS, CUTS, st.integers(0, 3))
    def test_what_others_coded_is_read(self, coding: bytes, text: bytes, sizes: list[int], way: int) -> None:
        ways = WHOLE[coding]
        body = ways[way % len(ways)](text)
        self.assertEqual(decoded([coding], cut(body, sizes)), (text, ""))
        self.assertEqual(decode_whole([coding], body, WIDE), text)

    def test_byte_by_byte_gives_the_same(self) -> None:
        text = b"".join(b"%d, " % number for number in range(900))
        for coding in CODINGS:
            for way in WHOLE[coding]:
                self.assertEqual(decoded([coding], cut(way(text), [1])), (text, ""))

    def test_a_text_across_the_ends_of_blocks_is_read(self) -> None:
        secret = b"sk-0123456789abcdef"
        for form in (31, 15, -15):
            for how in (zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_BLOCK):
                coder = zlib.compressobj(6, zlib.DEFLATED, form)
                for at in range(1, len(secret)):
                    one = coder.copy()
                    body = one.compress(b"x" * 40 + secret[:at]) + one.flush(how) + one.compress(secret[at:])
                    body += one.flush()
                    coding = b"gzip" if form == 31 else b"deflate"
                    self.assertEqual(decoded([coding], [body]), (b"x" * 40 + secret, ""))

    def test_codings_are_undone_from_the_last(self) -> None:
        body = brotli.compress(gzip.compress(b"text"))
        self.assertEqual(decode_whole([b"gzip", b"br"], body, WIDE), b"text")
        self.assertRaises(CodingError, decode_whole, [b"br", b"gzip"], body, WIDE)
        self.assertEqual(gzip.decompress(brotli.decompress(encode_whole([b"gzip", b"br"], b"text"))), b"text")

    def test_identity_is_nothing(self) -> None:
        self.assertEqual(decode_whole([b"identity"], b"text", WIDE), b"text")
        self.assertEqual(encode_whole([b"identity"], b"text"), b"text")
        self.assertEqual(decode_whole([b"identity", b"gzip"], gzip.compress(b"text"), WIDE), b"text")
        self.assertEqual(decode_whole([], b"text", WIDE), b"text")

    def test_deflate_is_put_back_with_its_header(self) -> None:
        self.assertEqual(
            zlib.decompress(encode_whole([b"deflate"], decode_whole([b"deflate"], bare(b"text"), WIDE))), b"text"
        )

    def test_in_a_chain_they_stand_around_the_others(self) -> None:
        stage = Decoded([b"gzip"], WIDE)
        chain = Chain([stage, Encoded([b"br"], stage)])
        body = b"".join(chain.feed(gzip.compress(b"text"))) + b"".join(chain.finish())
        self.assertEqual(brotli.decompress(body), b"text")

    def test_an_unknown_coding_is_refused(self) -> None:
        self.assertRaises(ValueError, Decoded, [b"gzip", b"compress"], WIDE)
        self.assertRaises(ValueError, Encoded, [b"gzip"] * (MOST_CODINGS + 1))


class EmptyTests(SynchronousTestCase):
    def test_a_body_of_no_bytes_stays_one(self) -> None:
        for coding in CODINGS:
            stage = Decoded([coding], WIDE)
            self.assertEqual(list(stage.finish()), [])
            for encoded in (Encoded([coding]), Encoded([coding], stage)):
                self.assertEqual(list(encoded.finish()), [])
            self.assertEqual(encode_whole([coding], b""), b"")
            self.assertEqual(decode_whole([coding], b"", WIDE), b"")

    def test_an_empty_text_that_came_coded_goes_on_coded(self) -> None:
        for coding in CODINGS:
            for codings in ([coding], [b"gzip", coding]):
                body = b""
                for each in codings:
                    body = WHOLE[each][0](body)
                stage = Decoded(codings, WIDE)
                self.assertEqual(b"".join(stage.feed(body)), b"")
                list(stage.finish())
                again = b"".join(Encoded(codings, stage).finish())
                self.assertNotEqual(again, b"")
                for each in reversed(codings):
                    again = READ[each](again)
                self.assertEqual(again, b"")

    def test_no_bytes_fed_are_nothing(self) -> None:
        stage = Decoded([b"gzip"], WIDE)
        self.assertEqual(list(stage.feed(b"")), [])
        self.assertEqual(stage.coded, 0)
        self.assertEqual(list(Encoded([b"gzip"]).feed(b"")), [])


class FieldTests(SynchronousTestCase):
    def test_the_first_that_cannot_be_read_is_named(self) -> None:
        self.assertIsNone(readable([]))
        self.assertIsNone(readable([*CODINGS, b"identity"]))
        self.assertEqual(readable([b"gzip", b"compress", b"dcb"]), b"compress")
        self.assertEqual(readable([b"GZIP"]), b"GZIP")

    def test_too_many_cannot_be_read(self) -> None:
        self.assertIsNone(readable([b"gzip"] * MOST_CODINGS + [b"identity"]))
        self.assertEqual(readable([b"gzip"] * MOST_CODINGS + [b"br"]), b"br")

    def test_what_cannot_be_read_is_asked_for_no_more(self) -> None:
        table: list[tuple[bytes | None, bytes]] = [
            (None, b"identity"),
            (b"", b"identity"),
            (b"gzip, deflate, br, zstd", b"gzip, deflate, br, zstd"),
            (b"gzip, deflate, br, zstd, dcb, dcz", b"gzip, deflate, br, zstd"),
            (b"GZip;q=0.5 ,\tbr ; Q=1.0,compress", b"GZip;q=0.5, br ; Q=1.0"),
            (b"*", b"identity"),
            (b"gzip, *;q=0", b"gzip"),
            (b"compress, dcb", b"identity"),
            (b"br;q=0.8, identity;q=0", b"br;q=0.8, identity;q=0"),
            (b"identity;q=0", b"identity"),
            (b"dcb, identity;q=0", b"identity"),
            (b"gzip;q=0", b"identity"),
            (b"gzip;q=0, identity;q=0", b"identity"),
            (b"gzip; q = 0.000, br", b"gzip; q = 0.000, br"),
            (b"gzip;q=0.001", b"gzip;q=0.001"),
            (b"gzip;q=0;x=1", b"identity"),
            (b",, gzip,,", b"gzip"),
            (b"gzipped, xgzip, br2", b"identity"),
        ]
        for value, kept in table:
            self.assertEqual(acceptable(value), kept, value)

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.sampled_from([b"gzip", b"br", b"*", b"identity", b";q=0", b";", b"q", b"=", b" ", b",", b"dcz"]))
    )
    def test_what_is_kept_can_be_read_and_is_kept_again(self, parts: list[bytes]) -> None:
        kept = acceptable(b"".join(parts))
        names = [member.partition(b";")[0].strip() for member in kept.split(b",")]
        self.assertLessEqual(set(names), {*CODINGS, b"identity"})
        self.assertEqual(acceptable(kept), kept)


class AbortTests(SynchronousTestCase):
    def test_a_body_may_be_given_up_at_any_time(self) -> None:
        for coding in CODINGS:
            body = WHOLE[coding][0](b"text" * 100)
            for fed in (b"", body[:10], body):
                stage, encoded = Decoded([coding], WIDE), Encoded([coding])
                list(stage.feed(fed))
                list(encoded.feed(fed))
                for each in (stage, encoded):
                    each.abort("gone")
                    each.abort("gone")
