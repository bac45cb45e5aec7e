"""Content codings that aren't what they should be: ends that are missing, wrong or followed by more.

What is an error and what isn't follows browsers; the docstring of coding.py has what they do.
"""

from __future__ import annotations

import gzip
import struct
import zlib

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.coding import CODINGS
from tests.filters.test_coding import CUTS, WHOLE, bare, cut, decoded, zstd

TEXT = b"".join(b"line %d of the text\n" % number for number in range(400))
SPLITS: list[list[int]] = [[], [1], [10, 1, 7], [500, 30]]
SKIPPED = struct.pack("<II", 0x184D2A53, 5) + b"12345"


class EndTests(SynchronousTestCase):
    def check(self, coding: bytes, body: bytes, text: bytes, error: str = "") -> None:
        for sizes in SPLITS:
            self.assertEqual(decoded([coding], cut(body, sizes)), (text, error), (coding, body[:40], sizes))

    def fails(self, coding: bytes, body: bytes, words: str, least: bytes = b"") -> None:
        """It fails in these words, however it is cut, behind nothing but the text's beginning, with `least` of it."""
        for sizes in SPLITS:
            before, error = decoded([coding], cut(body, sizes))
            self.assertIn(words, error)
            self.assertTrue(TEXT.startswith(before))
            self.assertTrue(before.startswith(least))

    def test_every_member_of_gzip_is_read(self) -> None:
        body = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two ") + gzip.compress(b"three")
        self.check(b"gzip", body, b"one two three")

    def test_zeros_between_and_behind_members_are_nothing(self) -> None:
        body = gzip.compress(b"one ") + bytes(9) + gzip.compress(b"two") + bytes(600)
        self.check(b"gzip", body, b"one two")

    def test_what_stands_behind_gzip_and_deflate_is_left_out(self) -> None:
        for behind in (b"x", b"<html>", b"\x1f", b"\x1f\x8b\x07garbage", b"garbage " * 300, bytes(3) + b"\n"):
            if behind != b"\x1f":
                self.check(b"gzip", gzip.compress(TEXT) + behind, TEXT)
            self.check(b"deflate", zlib.compress(TEXT) + behind, TEXT)
            self.check(b"deflate", bare(TEXT) + behind, TEXT)

    def test_a_member_behind_what_is_left_out_is_left_out(self) -> None:
        self.check(b"gzip", gzip.compress(TEXT) + b"\nx" + gzip.compress(b"more"), TEXT)

    def test_what_stands_behind_br_and_zstd_is_an_error(self) -> None:
        self.fails(b"br", brotli.compress(TEXT) + b"x", "isn't the br")
        self.fails(b"zstd", zstd(TEXT) + b"garbage", "isn't the zstd", TEXT)
        self.fails(b"zstd", zstandard.compress(TEXT) + bytes(20), "isn't the zstd", TEXT)

    def test_every_frame_of_zstd_is_read_and_those_to_be_skipped_are(self) -> None:
        self.check(
            b"zstd", SKIPPED + zstd(b"one ") + SKIPPED + zstd(b"") + zstandard.compress(b"two") + SKIPPED, b"one two"
        )
        self.check(b"zstd", SKIPPED, b"")

    def test_a_checksum_that_is_not_there_is_not_missed(self) -> None:
        for missing in range(1, 9):
            self.check(b"gzip", gzip.compress(TEXT)[:-missing], TEXT)
        for missing in range(1, 5):
            self.check(b"deflate", zlib.compress(TEXT)[:-missing], TEXT)
            self.check(b"zstd", zstd(TEXT)[:-missing], TEXT)

    def test_a_wrong_checksum_is_an_error_but_for_gzip(self) -> None:
        self.check(b"gzip", gzip.compress(TEXT)[:-8] + b"12345678", TEXT)
        self.check(b"deflate", zlib.compress(TEXT)[:-4] + b"1234", TEXT, "the body's deflate has a wrong checksum")
        self.fails(b"zstd", zstd(TEXT)[:-4] + b"1234", "isn't the zstd", TEXT)

    def test_a_body_that_is_cut_short_fails_at_its_end_when_all_that_it_held_was_given(self) -> None:
        for coding, body, behind in (
            (b"gzip", gzip.compress(TEXT), 8),
            (b"deflate", zlib.compress(TEXT), 4),
            (b"deflate", bare(TEXT), 0),
            (b"br", brotli.compress(TEXT, quality=4), 0),
            (b"zstd", zstd(TEXT), 4),
        ):
            size = len(body) - behind
            for end in {*range(1, size, 97), 1, 2, 5, size - 1}:
                for sizes in ([], [1]):
                    before, error = decoded([coding], cut(body[:end], sizes))
                    self.assertEqual(error, f"the body ends in the middle of its {coding.decode()}")
                    self.assertTrue(TEXT.startswith(before) and (end < 1000 or coding == b"zstd" or before))

    def test_what_was_flushed_has_been_given_when_the_body_ends_without_its_end(self) -> None:
        coder = zlib.compressobj(6, zlib.DEFLATED, 31)
        body = coder.compress(TEXT) + coder.flush(zlib.Z_SYNC_FLUSH)
        self.check(b"gzip", body, TEXT, "the body ends in the middle of its gzip")

    def test_a_later_member_or_frame_cut_short_is_cut_short(self) -> None:
        for end in (1, 2, 3, 9, 10, 15):
            body = gzip.compress(b"one") + gzip.compress(b"second")[:end]
            self.assertIn("ends in the middle", decoded([b"gzip"], [body])[1])
        for end in (1, 3, 4, 8, 12):
            self.check(b"zstd", zstd(TEXT) + SKIPPED[:end], TEXT, "the body ends in the middle of its zstd")

    def test_plain_text_is_no_coding(self) -> None:
        for coding in CODINGS:
            name = coding.decode().removeprefix("x-")
            self.fails(coding, b"<!doctype html><p>plain text, whatever it says that it is", f"isn't the {name}")
            self.assertIn(name, decoded([coding], [b"{}"])[1])

    def test_a_coding_that_is_another_is_an_error(self) -> None:
        for coding, other in ((b"gzip", zlib.compress(TEXT)), (b"gzip", bare(TEXT)), (b"deflate", gzip.compress(TEXT))):
            self.assertEqual(
                decoded([coding], [other]), (b"", f"the body isn't the {coding.decode()} that Content-Encoding says")
            )

    def test_every_field_of_a_gzip_header_is_passed_over(self) -> None:
        stream = gzip.compress(TEXT)[10:]
        extra, name, comment, checksum = struct.pack("<H", 300) + b"e\0" * 150, b"name\0", b"a comment\0", b"zz"
        for flags in range(256):
            head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
            head += extra if flags & 4 else b""
            head += name if flags & 8 else b""
            head += comment if flags & 16 else b""
            head += checksum if flags & 2 else b""
            if flags < 32 or not flags & 31:
                self.check(b"gzip", head + stream + head + stream, TEXT * 2)
            self.assertIn("ends in the middle", decoded([b"gzip"], [head])[1])

    def test_a_gzip_header_may_have_no_extra_bytes_and_no_name(self) -> None:
        head = b"\x1f\x8b\x08\x0c" + bytes(6) + b"\0\0" + b"\0"
        self.check(b"gzip", head + gzip.compress(TEXT)[10:], TEXT)

    def test_deflate_with_a_stored_block_first_is_told_from_its_header(self) -> None:
        for level in range(10):
            for bits in range(9, 16):
                for form in (bits, -bits):
                    coder = zlib.compressobj(level, zlib.DEFLATED, form)
                    body = coder.compress(TEXT) + coder.flush()
                    self.assertEqual(decoded([b"deflate"], [body]), (TEXT, ""))
                    self.assertEqual(decoded([b"deflate"], cut(body, [1])), (TEXT, ""))

    def test_a_header_of_deflate_that_nobody_reads_is_none(self) -> None:
        # A window of 64 KiB, a dictionary, a header's checksum that is wrong.
        for head in (b"\x88\x1c", b"\x78\x20", b"\x78\x9d"):
            self.fails(b"deflate", head + bare(TEXT), "isn't the deflate")

    def test_a_window_of_zstd_larger_than_browsers_have_is_an_error(self) -> None:
        for bits, error in ((23, ""), (24, "the body's zstd has a window of more than 8 MiB")):
            parameters = zstandard.ZstdCompressionParameters(window_log=bits, compression_level=3)
            coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
            body = coder.compress(TEXT) + coder.flush()
            self.check(b"zstd", body, b"" if error else TEXT, error)
        # A frame in one segment has a window as large as what it says to hold.
        for size, error in (((8 << 20) + 1, "window of more"), (8 << 20, "middle")):
            head = b"\x28\xb5\x2f\xfd" + bytes([0b10100000]) + struct.pack("<I", size)
            self.assertIn(error, decoded([b"zstd"], [head])[1])

    def test_a_dictionary_of_zstd_is_an_error(self) -> None:
        parts = [b"some text %d " % number * 20 for number in range(200)]
        words = zstandard.train_dictionary(2000, parts)
        self.fails(b"zstd", zstandard.ZstdCompressor(dict_data=words).compress(TEXT), "isn't the zstd")


BROKEN = st.tuples(
    st.sampled_from(CODINGS),
    st.integers(0, 3),
    st.sampled_from([b"", b"a", TEXT[:50], TEXT, bytes(100000)]),
    st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 255))
        | st.tuples(st.just(-1), st.integers(0, 60))
        | st.tuples(st.just(-2), st.binary(max_size=12)),
        max_size=3,
    ),
)


def broken(coding: bytes, way: int, text: bytes, faults: list[tuple[int, int | bytes]]) -> bytes:
    """A coded body with bytes replaced at places, cut off, or put behind."""
    body = bytearray(WHOLE[coding][way % len(WHOLE[coding])](text))
    for place, what in faults:
        if isinstance(what, bytes):
            body += what
        elif place < 0:
            del body[len(body) - min(what, len(body)) :]
        elif body:
            body[place % len(body)] = what
    return bytes(body)


class BrokenTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(BROKEN, CUTS)
    def test_every_split_fails_where_the_whole_does_and_gives_no_other_bytes(
        self, fault: tuple[bytes, int, bytes, list[tuple[int, int | bytes]]], sizes: list[int]
    ) -> None:
        coding, body = fault[0], broken(*fault)
        whole, failed = decoded([coding], [body])
        parts, failed_too = decoded([coding], cut(body, sizes))
        self.assertEqual(bool(failed_too), bool(failed))
        if failed:
            self.assertTrue(parts.startswith(whole) or whole.startswith(parts))
        else:
            self.assertEqual(parts, whole)

    @settings(max_examples=300, deadline=None)
    @given(BROKEN)
    def test_what_the_library_reads_is_read_and_the_same(
        self, fault: tuple[bytes, int, bytes, list[tuple[int, int | bytes]]]
    ) -> None:
        coding, body = fault[0], broken(*fault)
        try:
            if coding == b"zstd":
                text = (
                    zstandard.ZstdDecompressor(max_window_size=8 << 20)
                    .decompressobj(read_across_frames=True)
                    .decompress(body)
                )
            elif coding == b"br":
                text = brotli.decompress(body)
            elif coding == b"deflate":
                text = zlib.decompress(body)
            else:
                text = gzip.decompress(body)
        except (zstandard.ZstdError, brotli.error, zlib.error, OSError, EOFError):
            return
        before, error = decoded([coding], [body])
        self.assertEqual(before, text)
        # This one of the library's doesn't tell where the input ends.
        self.assertIn(error, ("", "the body ends in the middle of its zstd") if coding == b"zstd" else ("",))
