"""How the bodies of these tests are cut, and carried through a filter."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from streamproxy.filters.chain import Filter, Piece


def pieces(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`body` in the pieces between `cuts`; none of them is empty."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]
    return [body[start:end] for start, end in pairwise(places) if start < end]


def singly(body: bytes) -> list[bytes]:
    """`body` byte by byte."""
    return pieces(body, range(len(body)))


def run_through(stage: Filter, parts: Iterable[bytes]) -> bytes:
    """All that comes of the parts; a Pause is settled with None."""
    out: list[Piece] = []
    for part in parts:
        out += stage.feed(part)
    out += stage.finish()
    return b"".join(piece for piece in out if isinstance(piece, bytes))
