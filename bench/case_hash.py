"""The same bytes arrive, however they were written: length, chunks of any size, until close; both ways."""

from __future__ import annotations

import time
from typing import NamedTuple

from bench.bodies import Pattern, digest
from bench.case_stall import MIB, download, upload
from bench.connection import Connection
from bench.figures import Report
from bench.parts import Parts

LARGE = 1 << 30
# So many chunks that each counts.
TINY_SIZE = 32 << 20
EVEN, RANDOM, CHUNKS = Pattern(), Pattern(1, 100_000), Pattern(1, 70_000)
TINY = Pattern(1, 64, 65536)


class Manner(NamedTuple):
    """One way to write a body."""

    words: str
    framing: str
    pattern: Pattern
    size: int


DOWN = (
    Manner("length, writes of 64 KiB", "length", EVEN, LARGE),
    Manner("length, writes of 1 to 100000 bytes", "length", RANDOM, LARGE),
    Manner("chunks of 1 to 70000 bytes", "chunked", CHUNKS, LARGE),
    Manner("chunks of 1 to 64 bytes", "chunked", TINY, TINY_SIZE),
    Manner("until close, writes of 1 to 100000 bytes", "close", RANDOM, LARGE),
)
UP = (
    Manner("length, writes of 1 to 100000 bytes", "length", RANDOM, LARGE),
    Manner("chunks of 1 to 70000 bytes", "chunked", CHUNKS, LARGE),
    Manner("chunks of 1 to 64 bytes", "chunked", TINY, TINY_SIZE),
)


def hashes(parts: Parts, report: Report) -> None:
    """Each manner once; a wrong hash fails the case."""
    origin, proxy = parts.origin(), parts.streamproxy()
    for size in (LARGE, TINY_SIZE):
        digest(size)
    right = 0
    for way, manners in (("down", DOWN), ("up", UP)):
        for manner in manners:
            report.say(f"{way}: {manner.size / MIB:g} MiB, {manner.words}")
            connection = Connection.to(proxy.port)
            started = time.monotonic()
            if way == "down":
                shape = "&".join(f"{key}={value}" for key, value in manner.pattern._asdict().items())
                url = origin.url(f"/send?size={manner.size}&framing={manner.framing}&{shape}")
                download(connection, url, manner.size)
            else:
                upload(connection, origin.url("/take"), manner.size, manner.pattern, manner.framing == "chunked")
            right += 1
            rate = manner.size / MIB / (time.monotonic() - started)
            report.figure(f"{way}: same hash; {manner.words}", rate, "MiB/s")
            connection.close()
    report.figure("manners of writing with the same hash", right, "", at_least=len(DOWN) + len(UP))
