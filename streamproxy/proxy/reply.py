"""A response of the proxy's own on its way to the client: bytes that are at hand, or a file."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from streamproxy.flow import BodyRecord
from streamproxy.proxy.answers import Prepared
from streamproxy.stream.pump import Pump
from streamproxy.stream.source import FileSource
from streamproxy.stream.valve import Valve


class OwnReply:
    """Sends `prepared` into `pump`. `ended` is told when all of it is there, and whether it was the whole.

    `moved` is called for each piece of a file. `record` is how the body went.
    """

    def __init__(
        self,
        prepared: Prepared,
        pump: Pump,
        clock: IReactorTime,
        moved: Callable[[], None],
        ended: Callable[[bool], None],
    ) -> None:
        self._prepared = prepared
        self._pump = pump
        self._moved = moved
        self._ended = ended
        self._source: FileSource | None = None
        self.record = BodyRecord("held", "the proxy's own", len(prepared.body))
        if prepared.file is not None:
            self.record = BodyRecord("streamed", "a file")
            self._source = FileSource(prepared.file, prepared.length, clock, self._data, ended)

    def start(self) -> None:
        """Begin, in this turn."""
        if self._source is None:
            self._pump.write(self._prepared.head + self._prepared.body)
            self._ended(True)
        else:
            self._pump.take_valve(Valve(self._source))
            self._pump.write(self._prepared.head)
            self._source.start()

    def stop(self) -> None:
        """Nobody wants the rest."""
        if self._source is not None:
            self._source.stop()

    def _data(self, data: bytes) -> None:
        self._moved()
        self.record.size += len(data)
        self._pump.write(data)
