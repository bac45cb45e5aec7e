"""Two byte streams relayed blind, between a client and an origin: after a CONNECT, or an upgrade.

Nothing is read of what passes (what is read of a WebSocket is told in `websocket.py`). Each direction has a pump, so
that each is paused by itself. An end in order on one side is an end in order on the other, behind what was said before
it; a connection that breaks breaks the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from streamproxy.flow import CLIENT_GONE, FAILED, ORIGIN_GONE, TIMED_OUT, TUNNELLED, Flow
from streamproxy.proxy.tunnel_end import UNDECIDED, TunnelEnd
from streamproxy.stream.deadline import Deadline
from streamproxy.stream.pump import Pump
from streamproxy.stream.sink import Sink

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol


class Tunnel:
    """Relays between `connection`, whose layer this is, and `end`, from `start` on.

    `over` is called when it has ended, with its flow's outcome set. `to_origin` and `to_client` are where it writes to,
    where that isn't the two connections' own sinks.
    """

    def __init__(
        self,
        connection: DownstreamProtocol,
        end: TunnelEnd,
        flow: Flow,
        over: Callable[[], None],
        to_origin: Sink | None = None,
        to_client: Sink | None = None,
    ) -> None:
        # The outcome of one that ends in order.
        self.in_order = TUNNELLED
        self._connection = connection
        self._end = end
        self._flow = flow
        self._report = over
        settings = connection.proxy.settings
        self._timeouts = settings.timeouts
        self._seconds = seconds = connection.proxy.clock.seconds
        self._progress = seconds()
        self._over = False
        self._client_ended = self._origin_ended = False
        self._to_origin_done = self._to_client_done = False
        self._to_origin = Pump(connection.valve, settings.write_size, seconds, self._origin_has_all)
        self._to_client = Pump(end.valve, settings.write_size, seconds, self._client_has_all)
        self._to_origin.memory = self._to_client.memory = connection.memory
        self._to_origin.attach(end.sink if to_origin is None else to_origin)
        self._to_client.attach(connection.sink if to_client is None else to_client)
        self._sent_before = end.sink.sent
        self._deadline = Deadline(connection.proxy.clock)

    def start(self, said: bytes) -> None:
        """Relay; `said` is what the client has said already."""
        connection, end = self._connection, self._end
        connection.deadline.clear()
        connection.switch(self)
        self._deadline.set(min(self._timeouts.idle, self._timeouts.tunnel), self._look)
        if said:
            self.data_received(said)
        if connection.half_closed:
            self.read_ended()
        if self._over:
            return
        end.owner = self
        said, end.said = end.said, b""
        if said:
            self.origin_said(said)
        end.valve.open(UNDECIDED)
        if end.ended:
            self.origin_ended()
        if end.lost:
            self.origin_lost()

    @property
    def unfinished(self) -> bool:
        return not self._to_client_done

    def drain(self) -> None:
        """It goes on as long as it may: nobody knows what it is in the middle of."""

    def cut(self, why: str) -> None:
        if not self._over:
            self._break(FAILED, why)

    def _moved(self) -> None:
        """A side has said something."""
        self._progress = self._seconds()

    # What the client does

    def data_received(self, data: bytes) -> None:
        if not self._over and not self._client_ended:
            self._moved()
            self._flow.request.size += len(data)
            self._relay_to_origin(data)

    def _relay_to_origin(self, data: bytes) -> None:
        self._to_origin.write(data)

    def read_ended(self) -> None:
        if not self._over and not self._client_ended:
            self._client_ended = True
            self._progress = self._seconds()
            self._to_origin.finish()

    def connection_lost(self, reason: Failure) -> None:
        if self._over:
            return
        if self._connection.is_secure and reason.check(ConnectionDone):
            # Over TLS this is how an end in order comes, and it is the end of both directions.
            self._client_left()
        else:
            self._break(CLIENT_GONE, "the client's connection broke")

    def _client_left(self) -> None:
        """The client's connection is over, in order: what it said before that goes on."""
        self._to_client.abandon()
        self._to_client_done = True
        self.read_ended()
        self._settle()

    # What the origin does

    def origin_said(self, data: bytes) -> None:
        if not self._over and not self._to_client_done:
            self._moved()
            if self._flow.first_byte is None:
                self._flow.first_byte = self._seconds() - self._flow.started
            self._flow.response.size += len(data)
            self._relay_to_client(data)

    def _relay_to_client(self, data: bytes) -> None:
        self._to_client.write(data)

    def origin_ended(self) -> None:
        if not self._over and not self._origin_ended:
            self._origin_ended = True
            self._progress = self._seconds()
            self._to_client.finish()

    def origin_lost(self) -> None:
        if self._over:
            return
        if self._end.ended_both:
            self._origin_left()
        else:
            self._break(ORIGIN_GONE, "the origin's connection broke")

    def _origin_left(self) -> None:
        """The origin's connection is over, in order: what it said before that goes on."""
        self._to_origin.abandon()
        self._to_origin_done = True
        self.origin_ended()
        self._settle()

    # Ends

    def _origin_has_all(self) -> None:
        self._to_origin_done = True
        self._end.half_close()
        self._settle()

    def _client_has_all(self) -> None:
        self._to_client_done = True
        connection = self._connection
        if connection.is_secure:
            # There is no half-close over TLS. What the client has said by now still goes to the origin.
            connection.close()
            self.read_ended()
        elif not connection.lost:
            connection.half_close()
        self._settle()

    def _settle(self) -> None:
        if self._to_origin_done and self._to_client_done and not self._over:
            self._finish(self.in_order)
            self._connection.close()
            self._end.close(self._timeouts.idle)

    def _break(self, outcome: str, why: str) -> None:
        self._finish(outcome, why)
        self._connection.abort()
        self._end.abort()

    def _finish(self, outcome: str, why: str = "") -> None:
        self._over = True
        self._deadline.cancel()
        self._to_origin.abandon()
        self._to_client.abandon()
        flow = self._flow
        flow.outcome, flow.error = outcome, why
        # This and that refer to each other; without it, what is over is freed at once.
        self._end.forget_owner()
        # Beside what went before it was a tunnel.
        flow.origin_out += self._end.sink.sent - self._sent_before
        flow.origin_in += flow.response.size
        self._report()

    def _look(self) -> None:
        """See whether something has stood still for too long: a side that doesn't read, or both that say nothing."""
        timeouts = self._timeouts
        due = self._progress + self._most_silence
        for pump in (self._to_origin, self._to_client):
            if pump.blocked_since is not None:
                due = min(due, pump.blocked_since + timeouts.idle)
        left = due - self._seconds()
        if left > 0:
            # A side may stop reading at any time from now on.
            self._deadline.set(min(left, timeouts.idle), self._look)
        else:
            self._too_silent()

    @property
    def _most_silence(self) -> float:
        """For how long nothing may be said, in seconds."""
        timeouts = self._timeouts
        half = self._client_ended or self._origin_ended
        return min(timeouts.idle, timeouts.tunnel) if half else timeouts.tunnel

    def _too_silent(self) -> None:
        self._break(TIMED_OUT, "nothing moved in the tunnel")
