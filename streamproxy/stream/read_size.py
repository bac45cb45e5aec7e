"""How much is read from a socket at a time: more while a large body fills its reads, less while memory is scarce.

A third of the reads is a fifth less work for each byte. But what is read may have to wait, so a connection that doesn't
need it reads no more than Twisted's transports do; and when half of what may be held is, none reads more than a quarter
of that, so that many slow readers find room in the other half.
"""

from __future__ import annotations

from typing import Final

from streamproxy.counts import UNCOUNTED, Traffic
from streamproxy.memory import Memory
from streamproxy.stream.transport import IStreamTransport

# What Twisted reads at a time, what is read while that is too little, and while memory is scarce, in bytes.
READ: Final = 65536
LARGE_READ: Final = 196608
SMALL_READ: Final = 16384
# So many reads in a row must have been full.
FULL_READS: Final = 8


class ReadSize:
    """The read size of one transport; of one that has none, as TLS, nothing is changed. What is read is counted in
    `traffic`. `memory` is where what waits will be counted."""

    __slots__ = ("_full", "_memory", "_size", "_traffic", "_transport")

    def __init__(self, transport: IStreamTransport, traffic: Traffic = UNCOUNTED, memory: Memory | None = None) -> None:
        self._traffic = traffic
        self._transport = transport if getattr(transport, "bufferSize", None) == READ else None
        self._memory = memory
        self._size = READ
        # Full reads in a row.
        self._full = 0

    def saw(self, size: int) -> None:
        """A read has brought so many bytes."""
        self._traffic.received += size
        if self._memory is not None and self._memory.is_scarce:
            self._full, wanted = 0, SMALL_READ
        elif size < READ:
            self._full, wanted = 0, READ
        else:
            self._full += 1
            wanted = READ if self._full < FULL_READS else LARGE_READ
        if wanted != self._size:
            self._size = wanted
            if self._transport is not None:
                self._transport.bufferSize = wanted  # type: ignore[attr-defined]
