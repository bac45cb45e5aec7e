"""What a coded body may come to: bombs end, memory stays flat, and a body cut fine isn't passed on as such."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Iterable

import brotli
import zstandard
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE, Piece
from streamproxy.filters.coding import CODINGS, Bomb, Bounds, CodingError, Decoded, Encoded, decode_whole, encode_whole

MANY = 48 << 20
WIDE = Bounds(ratio=1 << 30, least=1 << 30, size=1 << 40)
BOMBS = {
    b"gzip": gzip.compress(bytes(MANY)),
    b"x-gzip": gzip.compress(bytes(MANY)),
    b"deflate": zlib.compress(bytes(MANY)),
    b"br": brotli.compress(bytes(MANY), quality=4),
    b"zstd": zstandard.compress(bytes(MANY), 1),
}


def sizes(pieces: Iterable[Piece]) -> list[int]:
    return [len(piece) for piece in pieces if isinstance(piece, bytes)]


def br_decoded(body: bytes) -> bytes:
    decoder = brotli.Decompressor()
    text = part = decoder.process(body)
    # It may keep some, even without a limit.
    while part:
        part = decoder.process(b"")
        text += part
    return bytes(text)


def zstd_blocks(kind: int, size: int, content: bytes, number: int) -> bytes:
    """A frame of these blocks, without an end; its window is 8 MiB."""
    return b"\x28\xb5\x2f\xfd\x00\x68" + (struct.pack("<I", size << 3 | kind << 1)[:3] + content) * number


class BoundTests(SynchronousTestCase):
    def decoded_before(self, codings: list[bytes], body: bytes, bounds: Bounds) -> tuple[int, str]:
        stage = Decoded(codings, bounds)
        size = 0
        try:
            for piece in stage.feed(body):
                assert isinstance(piece, bytes)
                size += len(piece)
            stage.finish()
        except Bomb as error:
            return size, str(error)
        return size, ""

    def test_a_body_may_decode_to_its_size_and_to_no_byte_more(self) -> None:
        for coding in CODINGS:
            for size in (1000, 70000, 400000):
                body = encode_whole([coding], bytes(size))
                self.assertEqual(self.decoded_before([coding], body, Bounds(1 << 30, 0, size)), (size, ""))
                before, error = self.decoded_before([coding], body, Bounds(1 << 30, 0, size - 1))
                self.assertEqual(error, f"the body decodes to more than {size - 1} bytes")
                self.assertLess(before, size)

    def test_a_body_may_decode_to_so_many_times_its_size_once_it_is_past_the_least(self) -> None:
        for coding in CODINGS:
            body = encode_whole([coding], bytes(300000))
            self.assertGreater(300000, 20 * len(body))
            self.assertEqual(self.decoded_before([coding], body, Bounds(20, 300000, 1 << 30)), (300000, ""))
            before, error = self.decoded_before([coding], body, Bounds(20, 299999, 1 << 30))
            self.assertEqual(error, "the body decodes to more than 20 times its size")
            self.assertLess(before, 300000)
            self.assertEqual(self.decoded_before([coding], body, Bounds(300000, 0, 1 << 30)), (300000, ""))

    def test_a_bomb_ends_soon(self) -> None:
        for coding, body in BOMBS.items():
            before, error = self.decoded_before([coding], body, Bounds(100, 1 << 20, 8 << 20))
            self.assertTrue(error)
            self.assertLessEqual(before, 8 << 20)
            with self.assertRaises(Bomb):
                decode_whole([coding], body, Bounds(100, 1 << 20, 8 << 20))

    def test_what_codings_in_between_make_counts_as_well(self) -> None:
        # The text is small; the gzip in between isn't.
        inner = gzip.compress(b"text") + bytes(4 << 20)
        for coding in (b"gzip", b"br", b"zstd"):
            body = encode_whole([coding], inner)
            self.assertEqual(decode_whole([b"gzip", coding], body, WIDE), b"text")
            with self.assertRaises(Bomb):
                decode_whole([b"gzip", coding], body, Bounds(100, 1 << 20, 1 << 30))
            with self.assertRaises(Bomb):
                decode_whole([b"gzip", coding], body, Bounds(1 << 30, 0, 4 << 20))

    def test_codings_in_a_row_do_not_multiply_the_ratio(self) -> None:
        body = encode_whole([b"gzip", b"gzip"], bytes(4 << 20))
        with self.assertRaises(Bomb):
            decode_whole([b"gzip", b"gzip"], body, Bounds(1200, 1 << 20, 1 << 30))


class MemoryTests(SynchronousTestCase):
    def peak(self, codings: list[bytes], body: bytes, most: int) -> None:
        """Feed it all as one read; the memory that it takes is bounded, and so are the pieces."""
        stage = Decoded(codings, WIDE)
        given = 0
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for piece in stage.feed(body):
                assert isinstance(piece, bytes)
                self.assertLessEqual(len(piece), PIECE)
                given += len(piece)
                if given > 12 << 20:
                    break
            peak = tracemalloc.get_traced_memory()[1] - before
        except CodingError:
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        self.assertLess(peak, most)

    def test_memory_is_flat_whatever_is_decoded(self) -> None:
        for coding, body in BOMBS.items():
            self.peak([coding], body, 640 << 10)

    def test_memory_is_flat_in_a_row_of_codings(self) -> None:
        for coding in (b"gzip", b"br", b"zstd"):
            self.peak([b"gzip", coding], encode_whole([coding], BOMBS[b"gzip"]), 1 << 20)

    def test_the_smallest_blocks_of_zstd_make_no_more_at_a_time_than_others(self) -> None:
        self.peak([b"zstd"], zstd_blocks(1, 131072, b"a", 4000), 640 << 10)
        stage = Decoded([b"zstd"], WIDE)
        self.assertEqual(sum(sizes(stage.feed(zstd_blocks(1, 131072, b"a", 100)))), 100 * 131072)

    def test_a_block_that_lies_about_its_size_is_an_error(self) -> None:
        for kind, content in ((1, b"a"), (0, b"a" * 200000)):
            with self.assertRaises(CodingError):
                list(Decoded([b"zstd"], WIDE).feed(zstd_blocks(kind, 200000, content, 1)))

    def test_nothing_is_decoded_before_it_is_taken(self) -> None:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = [Decoded([coding], WIDE).feed(body) for coding, body in BOMBS.items()]
            self.assertLess(tracemalloc.get_traced_memory()[0] - before, 20000)
        finally:
            tracemalloc.stop()
        for pieces in kept:
            self.assertGreater(sizes([next(iter(pieces))])[0], 1000)

    def test_what_is_given_up_is_freed(self) -> None:
        # zlib's memory is Python's, and is seen here.
        for kind, most in ((Encoded, 200_000), (Decoded, 30_000)):
            tracemalloc.start()
            try:
                stages = [Encoded([b"gzip"]) if kind is Encoded else Decoded([b"gzip"], WIDE) for _ in range(10)]
                for stage in stages:
                    list(stage.feed(BOMBS[b"gzip"][:100]))
                held = tracemalloc.get_traced_memory()[0]
                for stage in stages:
                    stage.abort("gone")
                self.assertGreater(held - tracemalloc.get_traced_memory()[0], most * len(stages))
            finally:
                tracemalloc.stop()

    def test_a_stream_without_bytes_costs_nothing(self) -> None:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = [(Decoded([b"gzip", b"deflate"], WIDE), Encoded([b"gzip", b"deflate"])) for _ in range(100)]
            self.assertLess((tracemalloc.get_traced_memory()[0] - before) / len(kept), 1000)
        finally:
            tracemalloc.stop()


class RestTests(SynchronousTestCase):
    def test_nothing_stays_in_a_decoder_that_has_used_its_input(self) -> None:
        # A byte of input is much output: some ends are where what a decoder gives at a time has just been filled.
        runs = b"".join(bytes([number]) * 997 for number in range(250))
        for coding, body, read in (
            (b"gzip", BOMBS[b"gzip"], lambda part: zlib.decompressobj(31).decompress(part)),
            (b"deflate", BOMBS[b"deflate"], lambda part: zlib.decompressobj().decompress(part)),
            (b"br", brotli.compress(runs, quality=3), br_decoded),
        ):
            for end in range(10, 300):
                part = body[:end]
                self.assertEqual(sum(sizes(Decoded([coding], WIDE).feed(part))), len(read(part)), end)


class FineTests(SynchronousTestCase):
    def test_what_is_cut_fine_inside_its_coding_is_put_together(self) -> None:
        member = gzip.compress(b"x")
        table = [
            (b"gzip", member * 5000, 5000),
            (b"gzip", gzip.compress(b"") * 5000, 0),
            (b"zstd", zstandard.compress(b"x") * 5000, 5000),
            (b"zstd", zstd_blocks(0, 1, b"a", 20000), 20000),
            (b"zstd", zstd_blocks(1, 1, b"a", 20000), 20000),
            (b"zstd", zstd_blocks(0, 0, b"", 20000), 0),
        ]
        for coding, body, size in table:
            pieces = sizes(Decoded([coding], WIDE).feed(body))
            self.assertEqual(sum(pieces), size)
            self.assertLessEqual(len([each for each in pieces if each]), 6)

    def test_what_decodes_to_nothing_is_bounded_too(self) -> None:
        # Each frame costs something, though nothing comes of it, and another coding makes much of little.
        frames = gzip.compress(zstandard.compress(b"") * 100_000)
        with self.assertRaises(Bomb):
            for piece in Decoded([b"zstd", b"gzip"], Bounds(250, 1 << 20, 1 << 30)).feed(frames):
                self.assertEqual(piece, b"")

    def test_what_was_put_together_is_given_before_an_error(self) -> None:
        for coding, body in (
            (b"gzip", gzip.compress(b"x") * 50 + gzip.compress(b"x")[:10] + b"\xff" * 30),
            (b"zstd", zstandard.compress(b"x") * 50 + b"garbage"),
            (b"zstd", zstd_blocks(0, 1, b"x", 50) + b"\xff" * 30),
        ):
            given = b""
            with self.assertRaises(CodingError):
                for piece in Decoded([coding], WIDE).feed(body):
                    assert isinstance(piece, bytes)
                    given += piece
            self.assertEqual(given, b"x" * 50)

    def test_a_large_piece_is_coded_in_parts_and_flushed_once(self) -> None:
        text = bytes(range(256)) * 4096
        for coding in CODINGS:
            stage = Encoded([coding])
            body = b"".join(piece for piece in stage.feed(text) if isinstance(piece, bytes))
            self.assertEqual(sum(sizes(Decoded([coding], WIDE).feed(body))), len(text))
