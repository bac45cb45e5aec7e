"""How much is read from a socket at a time: more while a large body fills its reads.

A third of the reads is a fifth less work for each byte. But what is read may have to wait, so a connection that doesn't
need it reads no more than Twisted's transports do.
"""

from __future__ import annotations

from typing import Final

from streamproxy.counts import UNCOUNTED, Traffic
from streamproxy.stream.transport import IStreamTransport

# What Twisted reads at a time, and what is read while that is too little, in bytes.
READ: Final = 65536
LARGE_READ: Final = 196608
# So many reads in a row must have been full.
FULL_READS: Final = 8


class ReadSize:
    """The read size of one transport; of one that has none, as TLS, nothing is changed. What is read is counted in
    `traffic`."""

    __slots__ = ("_full", "_traffic", "_transport")

    def __init__(self, transport: IStreamTransport, traffic: Traffic = UNCOUNTED) -> None:
        self._traffic = traffic
        self._transport = transport if getattr(transport, "bufferSize", None) == READ else None
        # Full reads in a row.
        self._full = 0

    def saw(self, size: int) -> None:
        """A read has brought so many bytes."""
        self._traffic.received += size
        if size < READ:
            if self._full >= FULL_READS and self._transport is not None:
                self._transport.bufferSize = READ  # type: ignore[attr-defined]
            self._full = 0
        else:
            self._full += 1
            if self._full == FULL_READS and self._transport is not None:
                self._transport.bufferSize = LARGE_READ  # type: ignore[attr-defined]
