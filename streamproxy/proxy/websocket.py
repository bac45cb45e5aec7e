"""A WebSocket relayed between a client and an origin, frame by frame or message by message.

Where it streams, bytes go on as they came and when they came, and are read beside that, for the record. Where messages
are read they are held whole, in `sides`, and written anew. Either way what one read brings is an iterator that is given
to the pump of its direction, which takes from it as there is room: so each direction waits for its own reader and for
its own hooks, and for nothing else.

How it ends: a close frame goes on, and so does its answer; the connections end as their owners end them. One that is
lost without a close frame is lost to the other side as well, and has 1006 in the record. The proxy says a close of its
own only where it must: to who broke the protocol or sent a message that is too large (1002, 1007, 1009), behind all
that the other side still had to say, which is told 1001 meanwhile; and to both where a rule or a script failed (1011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from streamproxy.filters.chain import FilterError, Pause, Piece
from streamproxy.filters.fault import Struck
from streamproxy.filters.websocket import WebSocketData, WebSocketMessage
from streamproxy.flow import CLIENT_GONE, FAILED, MALFORMED, ORIGIN_GONE, SWITCHED, TIMED_OUT, Flow
from streamproxy.proxy.alongside import Alongside
from streamproxy.proxy.sides import NO_SIDE, MessageSide, Plan, Side, StreamSide
from streamproxy.proxy.socket_hooks import Killed, SocketHooks
from streamproxy.proxy.tunnel import Tunnel, TunnelEnd
from streamproxy.stream.sink import Sink
from streamproxy.wire.websocket import GOING_AWAY, INTERNAL_ERROR, LOST, FrameError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.scripts.hooks import HookRun

# For how long (in seconds) a connection may go on when both sides have said that they close, or one was told to.
CLOSING = 10.0
log = Logger()


class WebSocketRelay(Tunnel):
    """Relays a WebSocket as `plan` says."""

    in_order = SWITCHED

    def __init__(
        self,
        connection: DownstreamProtocol,
        end: TunnelEnd,
        flow: Flow,
        over: Callable[[], None],
        plan: Plan,
        to_origin: Sink | None = None,
        to_client: Sink | None = None,
    ) -> None:
        super().__init__(connection, end, flow, over, to_origin, to_client)
        self._plan = plan
        self.data: WebSocketData = plan.data
        self.hooks = plan.hooks
        flow.websocket = self.data
        self.data.injector = self._inject
        for pump in (self._to_origin, self._to_client):
            pump.later = connection.proxy.later
            pump.broken = self._broke
        make = StreamSide if plan.streams else MessageSide
        self._from_client: Side = make(self, plan, True, self._to_origin)
        self._from_origin: Side = make(self, plan, False, self._to_client)
        # Who is to be told to close, by which code and why, when the other side has answered.
        self._blamed: tuple[Side, int, str] | None = None
        self._outcome_of_end = SWITCHED
        # Nothing more is written; and how much was, when that was looked at last.
        self._is_ending = False
        self._written = 0
        # Whether the client ended its side before the origin did.
        self._first: bool | None = None

    def start(self, said: bytes) -> None:
        hooks = self.hooks
        run = None if hooks is None else hooks.begin(self.data)
        if hooks is not None and run is not None:
            if run.pause.over:
                self._begun(hooks, run, ())
            else:
                # Nothing goes either way before.
                waits = (Pause(run.pause.why), Pause(run.pause.why))
                self._to_origin.pour(iter(waits[:1]))
                self._to_client.pour(iter(waits[1:]))
                run.pause.then(partial(self._begun, hooks, run, waits))
        if not self._over:
            super().start(said)
            if self._is_closing:
                self._end_soon()

    def _begun(self, hooks: SocketHooks, run: HookRun, waits: tuple[Pause, ...]) -> None:
        """The hooks for a new WebSocket are through."""
        try:
            hooks.check(run)
        except Exception as error:
            self.failed(error)
        for wait in waits:
            wait.settle()

    # Bytes

    def _relay_to_origin(self, data: bytes) -> None:
        self._relay(self._from_client, self._plan.alongside_client, data)

    def _relay_to_client(self, data: bytes) -> None:
        self._relay(self._from_origin, self._plan.alongside_origin, data)

    def _relay(self, side: Side, alongside: Alongside | None, data: bytes) -> None:
        if alongside is not None:
            alongside.came(data)
        # Nothing is kept of what can't go on any more.
        if not (side.over or self._is_ending or (side.closed and not self._plan.streams)):
            self.pour(side, side.pieces(data))

    def _moved(self) -> None:
        # One that goes on talking isn't waited for any longer than one that is silent.
        if not self._is_closing:
            super()._moved()

    def pour(self, side: Side, pieces: Iterator[Piece]) -> None:
        """Write what `side` gives to where that leads."""
        if self._over:
            return
        alongside = self._plan.alongside_client if side.from_client else self._plan.alongside_origin
        side.pump.pour(pieces if alongside is None else self._struck(alongside.goes(pieces)))

    def _struck(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """What goes on of `pieces`, until a rule's fault ends the connection."""
        try:
            yield from pieces
        except Struck as struck:
            self._flow.error = str(struck)
            self._outcome_of_end = FAILED
            if struck.reset:
                self._break(FAILED, str(struck))
            else:
                self._from_client.over = self._from_origin.over = True
                self.end_both()

    def _inject(self, message: WebSocketMessage) -> None:
        """Send what a script made, as if it had come from the other side."""
        side = self._from_client if message.from_client else self._from_origin
        if self._over or side.closed or side.over:
            raise ValueError("nothing can be injected into a WebSocket that is closing")
        message.timestamp = self._seconds()
        self.pour(side, side.injected(message))

    # What sides tell

    def now(self) -> float:
        """The time of a message, in seconds since the epoch."""
        return self._seconds()

    def opposite(self, side: Side) -> Side:
        """The other direction: what goes to whom `side` comes from."""
        return self._from_origin if side is self._from_client else self._from_client

    def answer(self, side: Side, opcode: int, content: bytes) -> None:
        """Answer who sends by `side`. As long as that isn't taken, nothing more is read of what it sends."""
        back = self.opposite(side)
        if not (self._over or back.closed or back.over):
            valve = self._connection.valve if side.from_client else self._end.valve
            back.add_answer(opcode, content, valve)

    def said_close(self, side: Side, code: int, reason: str) -> None:
        """A close frame came on `side`, and goes on."""
        side.closed = True
        if self._over:
            return
        if self.data.close_code is None:
            self.data.close_code, self.data.close_reason = code, reason
            self.data.closed_by_client = side.from_client
        if self.opposite(side).closed:
            self._end_soon()

    def answer_to_blamed(self, side: Side) -> tuple[int, str] | None:
        """What goes in the place of a close frame that came on `side`, where that was asked for here."""
        blamed = self._blamed
        if blamed is None or blamed[0] is side:
            return None
        return blamed[1], blamed[2]

    def broke_protocol(self, side: Side, error: FrameError) -> None:
        """What came on `side` can't be read any further."""
        if self._over:
            return
        who = "client" if side.from_client else "origin"
        self._flow.error = f"the {who} broke the WebSocket protocol: {error.reason}"
        if self._plan.streams:
            # Nothing reads any further, but it goes on: whom it is for will say what that means.
            side.closed = True
            return
        side.over = True
        self._outcome_of_end = MALFORMED
        if self._blamed is not None:
            # The other one did before.
            self._tell_blamed()
            self.end_both()
            return
        if self.data.close_code is None:
            self.data.close_code, self.data.close_reason = error.code, error.reason
            self.data.closed_by_client = None
        self._blamed = side, error.code, error.reason
        if self.opposite(side).closed:
            # It should have answered a close.
            self.end_both()
        else:
            side.pump.pour(side.closing(GOING_AWAY, f"the other side is closed: {error.reason}"))
            self._end_soon()

    def failed(self, error: BaseException) -> None:
        """A rule or a script failed on a message: nothing goes on."""
        if self._over:
            return
        if isinstance(error, Killed):
            self._break(FAILED, str(error))
            return
        if not isinstance(error, FilterError):
            log.failure("exchange {id}: a message", id=self._flow.id)
        why = str(error) if isinstance(error, FilterError) else "an error inside the proxy"
        self._flow.error = why
        self._outcome_of_end = FAILED
        for side in (self._from_client, self._from_origin):
            side.over = True
            side.pump.pour(side.closing(INTERNAL_ERROR, "a rule failed"))
        if self.data.close_code is None:
            self.data.close_code, self.data.close_reason = INTERNAL_ERROR, why
        self.end_both()

    # Ends

    def _broke(self) -> None:
        """A pump has met an exception that nobody knew of."""
        log.failure("exchange {id}: a WebSocket", id=self._flow.id)
        self._break(FAILED, "an error inside the proxy")

    def _end_soon(self) -> None:
        """There is nothing more to come but the ends of the connections."""
        self._progress = self._seconds()
        self._deadline.set(CLOSING, self._look)

    def end_both(self) -> None:
        """Nothing more goes to either side."""
        self._is_ending = True
        self._end_soon()
        self._to_origin.finish()
        self._to_client.finish()

    @property
    def _is_closing(self) -> bool:
        closed = self._from_client.closed and self._from_origin.closed
        return closed or self._is_ending or self._blamed is not None

    @property
    def _most_silence(self) -> float:
        return min(CLOSING, super()._most_silence) if self._is_closing else super()._most_silence

    def _too_silent(self) -> None:
        written = self._connection.sink.sent + self._end.sink.sent
        if not self._is_closing:
            super()._too_silent()
        elif written != self._written:
            # A slow reader gets what there is for it, as long as it reads.
            self._written = written
            self._end_soon()
        elif self._blamed is not None and not self._is_ending:
            self._tell_blamed()
            self.end_both()
        elif self._to_client_done and self._to_origin_done:
            self._close_both()
        else:
            self._break(TIMED_OUT, "nothing moved in a WebSocket that was closing")

    def _tell_blamed(self) -> None:
        """The other side won't answer any more: say to who broke the protocol that this is the end."""
        if self._blamed is not None:
            side, code, reason = self._blamed
            other = self.opposite(side)
            other.over = True
            other.pump.pour(other.closing(code, reason))

    def read_ended(self) -> None:
        if self._first is None and not self._over:
            self._first = True
        if self._blamed is not None and self._blamed[0] is self._from_origin:
            self._tell_blamed()
            self._to_client.finish()
        super().read_ended()

    def origin_ended(self) -> None:
        if self._first is None and not self._over:
            self._first = False
        if self._blamed is not None and self._blamed[0] is self._from_client:
            self._tell_blamed()
        super().origin_ended()

    def _settle(self) -> None:
        """Both sides have all that goes to them."""
        if self._over or not (self._to_origin_done and self._to_client_done):
            return
        # What was said last could be lost to a reset, if a side that is still sending weren't read to its end.
        if self._client_ended and self._origin_ended:
            self._close_both()

    def _close_both(self) -> None:
        self._finish(SWITCHED)
        self._connection.close(CLOSING)
        self._end.close(CLOSING)

    def _finish(self, outcome: str, why: str = "") -> None:
        flow, data = self._flow, self.data
        if data.close_code is None:
            data.close_code, data.close_reason = LOST, ""
            if outcome == SWITCHED:
                data.closed_by_client = self._first
                why = why or "the connection ended without a close frame"
            elif outcome in (CLIENT_GONE, ORIGIN_GONE):
                data.closed_by_client = outcome == CLIENT_GONE
        if outcome in (CLIENT_GONE, ORIGIN_GONE, SWITCHED):
            outcome = self._outcome_of_end
        data.timestamp_end = self._seconds()
        data.injector = None
        hooks, self.hooks = self.hooks, None
        if outcome == SWITCHED and data.close_code != LOST:
            for alongside in (self._plan.alongside_client, self._plan.alongside_origin):
                if alongside is not None:
                    alongside.end()
        super()._finish(outcome, flow.error or why)
        if hooks is not None:
            hooks.end()
        data.release()
        # These and this refer to each other; without that, what is over is freed at once.
        self._from_client = self._from_origin = NO_SIDE
