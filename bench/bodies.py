"""Generated bodies: as long as is wanted, the same each time, and never stored (but for files that are mostly holes).

A body is noise with a running number stamped on each 64 KiB of it, so that a part which is lost, doubled or put in
another's place changes its hash.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

STAMPED = 64 << 10
ROUND = 4 << 20
_NOISE = random.Random(1).randbytes(ROUND)


class Pattern(NamedTuple):
    """How a body is written: pieces of `least` to `most` bytes, at random; `gather` bytes of them in one write."""

    least: int = STAMPED
    most: int = STAMPED
    gather: int = 0


def rounds(size: int) -> Iterator[memoryview]:
    """The body of `size` bytes, up to 4 MiB at a time. Each is good only until the next is asked for."""
    block = bytearray(_NOISE)
    number = 0
    while size:
        for at in range(0, ROUND, STAMPED):
            struct.pack_into(">Q", block, at, number)
            number += 1
        part = memoryview(block)[: min(size, ROUND)]
        yield part
        size -= len(part)


def pieces(size: int, pattern: Pattern) -> Iterator[memoryview]:
    """The body of `size` bytes, cut as `pattern` says; the last piece before each 4 MiB may be shorter."""
    least, most = pattern.least, pattern.most
    pick = random.Random(2).randint
    for part in rounds(size):
        at, length = 0, len(part)
        while at < length:
            step = least if least == most else pick(least, most)
            yield part[at : at + step]
            at += step


def writes(size: int, pattern: Pattern, chunked: bool) -> Iterator[bytes | memoryview]:
    """What to write for the body of `size` bytes, with the framing of chunks where it is `chunked`."""
    if not chunked:
        yield from pieces(size, pattern)
        return
    waiting: list[bytes | memoryview] = []
    gathered = 0
    for piece in pieces(size, pattern):
        waiting += (b"%x\r\n" % len(piece), piece, b"\r\n")
        gathered += len(piece)
        if gathered >= pattern.gather:
            yield b"".join(waiting)
            waiting.clear()
            gathered = 0
    waiting.append(b"0\r\n\r\n")
    yield b"".join(waiting)


@lru_cache
def digest(size: int) -> str:
    """The SHA-256 of the body of `size` bytes."""
    found = hashlib.sha256()
    for part in rounds(size):
        found.update(part)
    return found.hexdigest()


@lru_cache
def checksum(size: int) -> int:
    """The CRC-32 of the body of `size` bytes: for where a SHA-256 would take longer than what is measured."""
    found = 0
    for part in rounds(size):
        found = zlib.crc32(part, found)
    return found


def write_sparse(path: Path, size: int) -> None:
    """A file of `size` bytes that takes little room: zeros, with a running number on each 256 KiB of them."""
    with path.open("wb") as file:
        file.truncate(size)
        for number, at in enumerate(range(0, size - 8, STAMPED * 4)):
            file.seek(at)
            file.write(struct.pack(">Q", number))
