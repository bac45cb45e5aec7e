"""Encoders of the content codings: gzip, deflate, br and zstd, with what was decided of their levels.

An encoder keeps bytes until it is flushed. It knows nothing of several codings in a row; coding.py does.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Protocol

import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
import zstandard

# Chosen by source text in pieces of 64 KiB and by events of a hundred bytes, each flushed. The next level of gzip or br
# takes a third to a half of the speed for 1 or 2 % of the size. What a stream keeps counts for more: zstd's own tables
# for this level are four times as large as these, and its window 16 times, for 2 % again.
_ZLIB_LEVEL: Final = 4
_BROTLI_QUALITY: Final = 3
_BROTLI_WINDOW: Final = 17
_ZSTD_LEVEL: Final = 3
_ZSTD_WINDOW: Final = 17
_ZSTD_TABLES: Final = 14
# To zlib: a window of 32 KiB and what RFC 1950 puts around the stream; or, with 16 more, RFC 1952.
_DEFLATE: Final = 15
_GZIP: Final = 31


class Encoder(Protocol):
    """Applies one coding."""

    def code(self, data: bytes) -> bytes:
        """Take the next bytes; give what there is of their coding, which may be nothing yet."""

    def flush(self) -> bytes:
        """The rest of what all that was taken needs to be decoded."""

    def end(self) -> bytes:
        """The rest, and the end."""


class _Zlib:
    """gzip and deflate."""

    __slots__ = ("_coder",)

    def __init__(self, form: int) -> None:
        self._coder: Any = zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, form)

    def code(self, data: bytes) -> bytes:
        coded: bytes = self._coder.compress(data)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._coder.flush(zlib.Z_SYNC_FLUSH)
        return coded

    def end(self) -> bytes:
        coded: bytes = self._coder.flush(zlib.Z_FINISH)
        return coded


class _Brotli:
    """br."""

    __slots__ = ("_coder",)

    def __init__(self) -> None:
        self._coder: Any = brotli.Compressor(quality=_BROTLI_QUALITY, lgwin=_BROTLI_WINDOW)

    def code(self, data: bytes) -> bytes:
        coded: bytes = self._coder.process(data)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._coder.flush()
        return coded

    def end(self) -> bytes:
        coded: bytes = self._coder.finish()
        return coded


class _Zstd:
    """zstd."""

    __slots__ = ("_coder",)

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL, window_log=_ZSTD_WINDOW, hash_log=_ZSTD_TABLES, chain_log=_ZSTD_TABLES
        )
        self._coder: Any = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def code(self, data: bytes) -> bytes:
        coded: bytes = self._coder.compress(data)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._coder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return coded

    def end(self) -> bytes:
        coded: bytes = self._coder.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
        return coded


def encoder_of(coding: bytes) -> Encoder:
    """One for a coding that coding.py knows."""
    if coding == b"br":
        return _Brotli()
    if coding == b"zstd":
        return _Zstd()
    return _Zlib(_DEFLATE if coding == b"deflate" else _GZIP)
