"""A file as the source of a body: read in pieces, for as long as its valve is open.

Reading a local file blocks for the length of one piece. It gives a piece a turn, so that a large file never keeps
the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PIECE = 65536


class FileSource:
    """Gives `length` bytes of `file` to `data`, then calls `ended` with whether they were all there."""

    def __init__(
        self,
        file: BinaryIO,
        length: int,
        clock: IReactorTime,
        data: Callable[[bytes], None],
        ended: Callable[[bool], None],
    ) -> None:
        self._file = file
        self._left = length
        self._clock = clock
        self._data = data
        self._ended = ended
        self._call: IDelayedCall | None = None
        self._paused = False
        self._stopped = False

    def start(self) -> None:
        """Begin to read, in this turn."""
        self._read()

    def stop(self) -> None:
        """Read no more, and close the file."""
        if not self._stopped:
            self._stopped = True
            self._file.close()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._soon()

    def _soon(self) -> None:
        if self._call is None and not self._stopped and not self._paused:
            self._call = self._clock.callLater(0, self._read)

    def _read(self) -> None:
        self._call = None
        if self._stopped or self._paused:
            return
        try:
            piece = self._file.read(min(PIECE, self._left))
        except OSError:
            piece = b""
        self._left -= len(piece)
        done = not self._left or not piece
        if done:
            self.stop()
        if piece:
            self._data(piece)
        if done:
            self._ended(not self._left)
        else:
            self._soon()
