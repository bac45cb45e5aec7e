"""What a rule does to the bytes of a WebSocket, whatever they mean: it records them, and makes them go wrong."""

from __future__ import annotations

from collections.abc import Iterator

from streamproxy.filters.chain import Piece
from streamproxy.filters.frame_fault import FrameFault
from streamproxy.filters.tap import Tap


class Alongside:
    """One direction: `received` and `sent` record its bytes of wire as they come and go, `fault` strikes them."""

    __slots__ = ("_fault", "_received", "_sent")

    def __init__(self, received: Tap | None, sent: Tap | None, fault: FrameFault | None) -> None:
        self._received = received
        self._sent = sent
        self._fault = fault

    def came(self, data: bytes) -> None:
        """These bytes were read."""
        if self._received is not None:
            self._received.take(data)

    def goes(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """What is written of `pieces`; raises Struck where a fault ends the connection."""
        for piece in pieces:
            if self._fault is None or not isinstance(piece, bytes) or not piece:
                yield self._recorded(piece)
            else:
                for struck in self._fault.strike(piece):
                    yield self._recorded(struck)

    def _recorded(self, piece: Piece) -> Piece:
        if self._sent is not None and isinstance(piece, bytes):
            self._sent.take(piece)
        return piece

    def end(self) -> None:
        """The connection ended well."""
        for tap in (self._received, self._sent):
            if tap is not None:
                tap.end()
