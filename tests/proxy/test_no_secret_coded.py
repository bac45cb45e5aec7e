"""A secret in a coded body, cut by whatever its coding has to cut it, or hidden where only some readers look.

What arrives is decoded by the libraries themselves, as far as it has come.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import zstandard

from streamproxy.settings import Settings
from tests.conversation import settings_of
from tests.proxy.test_no_secret_leaves import (
    BODY,
    MESSAGES,
    PATTERNS,
    PUT,
    SECRET,
    Pattern,
    SecretTestCase,
    Watched,
    in_singles,
    rules,
)
from tests.proxy.test_rules_on_messages import HELD, WAYS

TEXT = b"it is SK-01 or SSK-0123456789 so"
# The secret in it begins here, and these places are around it.
PLACES = range(TEXT.index(SECRET) - 2, TEXT.index(SECRET) + len(SECRET) + 2)
NAMES = ("literal", "regex", "regex without an end")


def zlib_parts(form: int, flush: int, level: int = 6) -> Callable[[list[bytes]], list[bytes]]:
    """What codes parts one behind the other, each flushed so."""

    def code(parts: list[bytes]) -> list[bytes]:
        coder = zlib.compressobj(level, zlib.DEFLATED, form)
        coded = [coder.compress(part) + coder.flush(flush) for part in parts]
        return [*coded, coder.flush()]

    return code


def br_parts(parts: list[bytes]) -> list[bytes]:
    coder = brotli.Compressor(quality=4)
    return [*[coder.process(part) + coder.flush() for part in parts], coder.finish()]


def zstd_parts(parts: list[bytes]) -> list[bytes]:
    coder = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return [*[coder.compress(part) + coder.flush(block) for part in parts], coder.flush()]


def one_by_one(code: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda parts: [code(part) for part in parts]


# How parts of a text are coded: (the coding, what does it, and whether the parts can be told apart when they arrive).
WAYS_TO_CODE: dict[str, tuple[bytes, Callable[[list[bytes]], list[bytes]]]] = {
    "gzip, sync flush": (b"gzip", zlib_parts(31, zlib.Z_SYNC_FLUSH)),
    "gzip, full flush": (b"gzip", zlib_parts(31, zlib.Z_FULL_FLUSH)),
    "gzip, partial flush": (b"gzip", zlib_parts(31, zlib.Z_PARTIAL_FLUSH)),
    "gzip, blocks": (b"gzip", zlib_parts(31, zlib.Z_BLOCK)),
    "gzip, stored blocks": (b"x-gzip", zlib_parts(31, zlib.Z_FULL_FLUSH, 0)),
    "gzip, members": (b"gzip", one_by_one(gzip.compress)),
    "deflate": (b"deflate", zlib_parts(15, zlib.Z_SYNC_FLUSH)),
    "deflate without its header": (b"deflate", zlib_parts(-15, zlib.Z_SYNC_FLUSH)),
    "br": (b"br", br_parts),
    "zstd, blocks": (b"zstd", zstd_parts),
    "zstd, frames": (b"zstd", one_by_one(zstandard.ZstdCompressor(write_checksum=True).compress)),
}


def decoded(coding: bytes, body: bytes) -> bytes:
    """As much of a text as can be read of a coded body that has come so far; all its members or frames."""
    text = b""
    if coding == b"br":
        return brotli.Decompressor().process(body) if body else b""
    if coding == b"zstd":
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(body) if body else b""
    bare = coding == b"deflate" and body[:1] != b"\x78"
    while body:
        coder = zlib.decompressobj(-15 if bare else 15 if coding == b"deflate" else 31)
        text += coder.decompress(body)
        body = coder.unused_data
    return text


def decoded_row(codings: bytes, body: bytes) -> bytes:
    for coding in reversed(codings.split(b", ")):
        body = decoded(coding, body)
    return body


class CodedTestCase(SecretTestCase):
    def watch_coded(
        self, settings: Settings, message: str, pattern: Pattern, codings: bytes, reads: list[bytes], held: bool
    ) -> None:
        """Send `reads`, and see after each of them that what can be read of what arrived is what may be."""
        watched = Watched(settings, message)
        size = len(b"".join(reads))
        watched.begin(b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (codings, size))
        came = b""
        for read in reads:
            watched.say(read)
            came += read
            text = decoded_row(codings, came)
            due = pattern.settled(text) if len(came) == size else b"" if held else pattern.decided(text)
            self.assertEqual(decoded_row(codings, watched.body), due, (message, codings, len(came), pattern.rule[:60]))


class BoundaryTests(CodedTestCase):
    """The boundary of a flush, a block, a member or a frame at every offset around the secret."""

    def watch_each(self, *kinds: str) -> None:
        for kind in kinds:
            coding, code = WAYS_TO_CODE[kind]
            for name in NAMES:
                for way in WAYS:
                    settings = settings_of(rules(PATTERNS[name], way))
                    for message in MESSAGES:
                        for at in PLACES:
                            parts = code([TEXT[:at], TEXT[at:]])
                            for reads in (parts, [b"".join(parts)]):
                                self.watch_coded(settings, message, PATTERNS[name], coding, reads, way in HELD)
                        singles = code(in_singles(TEXT))
                        for reads in (singles, in_singles(b"".join(code([TEXT[:20], TEXT[20:]])))):
                            self.watch_coded(settings, message, PATTERNS[name], coding, reads, way in HELD)

    def test_flushes_and_blocks_of_gzip(self) -> None:
        self.watch_each("gzip, sync flush", "gzip, full flush", "gzip, partial flush", "gzip, blocks")

    def test_stored_blocks_and_members_of_gzip(self) -> None:
        self.watch_each("gzip, stored blocks", "gzip, members")

    def test_deflate_with_and_without_its_header(self) -> None:
        self.watch_each("deflate", "deflate without its header")

    def test_flushes_of_br(self) -> None:
        self.watch_each("br")

    def test_blocks_and_frames_of_zstd(self) -> None:
        self.watch_each("zstd, blocks", "zstd, frames")

    def test_every_offset_in_reads_of_what_was_coded_at_once(self) -> None:
        for coding, code in (WAYS_TO_CODE["gzip, sync flush"], WAYS_TO_CODE["br"], WAYS_TO_CODE["zstd, blocks"]):
            body = b"".join(code([BODY]))
            settings = settings_of(rules(PATTERNS["literal"]))
            for message in MESSAGES:
                for at in range(1, len(body)):
                    self.watch_coded(settings, message, PATTERNS["literal"], coding, [body[:at], body[at:]], False)

    def test_several_codings_in_a_row(self) -> None:
        gzip_parts, pattern = WAYS_TO_CODE["gzip, sync flush"][1], PATTERNS["regex"]
        for way in WAYS:
            settings = settings_of(rules(pattern, way))
            for message in MESSAGES:
                for at in PLACES:
                    reads = br_parts(gzip_parts([TEXT[:at], TEXT[at:]]))
                    self.watch_coded(settings, message, pattern, b"gzip, br", reads, way in HELD)
                    reads = gzip_parts(zstd_parts([TEXT[:at], TEXT[at:]]))
                    self.watch_coded(settings, message, pattern, b"zstd, gzip", reads, way in HELD)

    def test_a_coding_that_is_cut_inside_the_secret_gives_no_part_of_it(self) -> None:
        # The framing says that the body is whole; what is in it isn't.
        for coding, code in WAYS_TO_CODE.values():
            for way in WAYS:
                settings = settings_of(rules(PATTERNS["literal"], way))
                for message in MESSAGES:
                    for size in range(1, len(SECRET)):
                        body, *_ = code([b"it is " + SECRET[:size], SECRET[size:]])
                        if code([b""])[0] == code([b"", b""])[1]:  # each part has its end
                            body = body[:-9]
                        watched = Watched(settings, message)
                        watched.begin(b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)))
                        watched.say(body)
                        (flow,) = watched.stage.journal.flows
                        self.assertIn(flow.outcome, ("malformed", "origin-gone"))
                        if way not in HELD:
                            self.assertNotIn(b"S", decoded(coding, watched.body))
                        else:
                            self.assertNotIn(b"SK", watched.wire)


class HiddenTests(CodedTestCase):
    """Places in a coding that a reader of its text doesn't see, but another might."""

    def leaves(self, coding: bytes, body: bytes, due: bytes | None) -> None:
        """Whatever way it goes: the text `due` arrives, or nothing does; and the secret is nowhere on the wire."""
        for way in WAYS:
            settings = settings_of(rules(PATTERNS["literal"], way))
            for message in MESSAGES:
                for reads in ([body], in_singles(body)):
                    watched = Watched(settings, message)
                    watched.begin(b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)))
                    for read in reads:
                        watched.say(read)
                        self.assertNotIn(SECRET, watched.wire)
                    if due is not None:
                        self.assertEqual(decoded(coding, watched.body), due)
                        self.assertNotIn(SECRET, decoded(coding, watched.body))
                    else:
                        (flow,) = watched.stage.journal.flows
                        self.assertIn(flow.outcome, ("origin-gone", "malformed", "failed"))

    def test_fields_of_a_header(self) -> None:
        body = gzip.compress(b"text")[10:]
        head = b"\x1f\x8b\x08%b\0\0\0\0\0\xff"
        for flags, fields in (
            (b"\x04", b"\x0d\0" + SECRET),
            (b"\x08", SECRET + b"\0"),
            (b"\x10", SECRET + b"\0"),
            (b"\x1c", b"\x0d\0" + SECRET + SECRET + b"\0" + SECRET + b"\0"),
        ):
            self.leaves(b"gzip", head % flags + fields + body, b"text")

    def test_what_stands_behind_the_end(self) -> None:
        for coding, whole in ((b"gzip", gzip.compress(b"text")), (b"deflate", zlib.compress(b"text"))):
            self.leaves(coding, whole + SECRET, b"text")
        self.leaves(b"gzip", gzip.compress(b"text") + b"\0\0" + gzip.compress(SECRET), b"text" + PUT)
        self.leaves(b"br", brotli.compress(b"text") + SECRET, None)
        self.leaves(b"zstd", zstandard.compress(b"text") + SECRET, None)

    def test_a_frame_to_be_skipped(self) -> None:
        skipped = b"\x50\x2a\x4d\x18" + len(SECRET).to_bytes(4, "little") + SECRET
        self.leaves(b"zstd", skipped + zstandard.compress(b"text") + skipped, b"text")

    def test_an_empty_block_between_two_halves(self) -> None:
        for coding, code in WAYS_TO_CODE.values():
            self.leaves(coding, b"".join(code([SECRET[:6], b"", b"", SECRET[6:]])), PUT)
