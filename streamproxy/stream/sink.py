"""The writing end of one transport, for as long as the connection lives.

It is the transport's one producer: it turns the transport's pauses into `full`, and wakes the pump that is writing
when there is room again. It keeps no bytes. What isn't written while it is full stays with the pump.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from streamproxy.stream.transport import IStreamTransport

if TYPE_CHECKING:
    from streamproxy.stream.pump import Pump


def _nothing() -> None:
    pass


@implementer(IPushProducer)
class Sink:
    """Counts what is written to `transport` (`sent`, in bytes) and knows whether it is `full`."""

    def __init__(self, transport: IStreamTransport) -> None:
        self._transport = transport
        self._registered = True
        self.full = False
        self.sent = 0
        self.pump: Pump | None = None
        # TLS fills its records with what is written between these two, so that smaller pieces would only be cut to be
        # joined again. TCP gathers by itself.
        self.gathers = hasattr(transport, "cork")
        self.cork: Callable[[], None] = getattr(transport, "cork", _nothing)
        self.uncork: Callable[[], None] = getattr(transport, "uncork", _nothing)
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Hand `data` to the transport, which may call `pauseProducing` before this returns."""
        self.sent += len(data)
        self._transport.write(data)

    def pauseProducing(self) -> None:
        # TCP says it again for each write over its limit.
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        if self.pump is not None:
            self.pump.sink_has_room()

    def stopProducing(self) -> None:
        # The connection is gone. Its protocol hears of that by connectionLost.
        self.full = True

    def release(self) -> None:
        """Give the transport up. Without this a `loseConnection` would wait for its producer for ever."""
        self.pump = None
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
