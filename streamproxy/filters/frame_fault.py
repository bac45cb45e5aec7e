"""Makes one direction of a WebSocket go wrong on purpose, behind so many of its bytes, frames or messages.

It sees the frames as they are written. What comes of a connection that is cut is its owner's matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamproxy.filters.chain import Pause
from streamproxy.filters.fault import Struck
from streamproxy.wire.websocket import ANY_RSV, CLOSE, FrameReader

# Reserved bits that no extension in use has given a meaning.
_FLIP: Final = 0x30


class FrameFault:
    """Strikes behind `after` of `unit`: "bytes" of wire, "chunks", which are frames, or "events", which are messages.

    `action` is "stall", "cut", "reset" or "corrupt", which garbles the head of the next frame. `why` names the rule.
    """

    __slots__ = ("_action", "_after", "_count", "_frames", "_is_due", "_is_over", "_seen", "_unit", "_why")

    def __init__(self, after: int, unit: str, action: str, why: str, from_client: bool) -> None:
        self._after = after
        self._unit = unit
        self._action = action
        self._why = why
        self._frames = FrameReader(from_client, ANY_RSV)
        self._count = 0
        # Bytes that have gone by.
        self._seen = 0
        self._is_due = after == 0
        self._is_over = False

    def strike(self, data: bytes) -> Iterator[bytes | Pause]:
        """What goes on of `data` (some bytes); raises Struck where the connection is to end, and pauses for ever."""
        if self._is_over:
            yield data
            return
        at = self._place(data)
        self._seen += len(data)
        if at < 0:
            yield data
            return
        if at:
            yield data[:at]
        rest = data[at:]
        self._is_due = True
        if self._action == "corrupt":
            if rest:
                self._is_over = True
                yield bytes((rest[0] ^ _FLIP,)) + rest[1:]
        elif self._action == "stall":
            yield Pause(self._why)
        else:
            raise Struck(self._why, self._action == "reset")

    def _place(self, data: bytes) -> int:
        """Where in `data` it strikes; -1 if nowhere."""
        if self._is_due:
            return 0
        if self._unit == "bytes" and self._action != "corrupt":
            at = self._after - self._seen
            return at if at <= len(data) else -1
        for part in self._frames.feed(data):
            if not part.last:
                continue
            end = self._frames.position - self._seen
            if self._unit == "bytes":
                self._count = self._frames.position
            elif self._unit == "chunks" or (part.head.final and part.head.opcode < CLOSE):
                self._count += 1
            if self._count >= self._after:
                return end
        return -1
