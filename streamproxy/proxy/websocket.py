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
from twisted.python.failure import Failure

from streamproxy.filters.chain import FilterError, Pause, Piece
from streamproxy.filters.fault import Struck
from streamproxy.filters.websocket import WebSocketData, WebSocketMessage
from streamproxy.flow import CLIENT_GONE, FAILED, MALFORMED, ORIGIN_GONE, SWITCHED, TIMED_OUT, Flow
from streamproxy.memory import OUT_OF_MEMORY
from streamproxy.proxy.alongside import Alongside
from streamproxy.proxy.sides import NO_SIDE, MessageSide, Plan, Side, StreamSide
from streamproxy.proxy.socket_hooks import Killed, SocketHooks
from streamproxy.proxy.tunnel import Tunnel
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.stream.sink import Sink
from streamproxy.wire.websocket import GOING_AWAY, INTERNAL_ERROR, LOST, FrameError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.scripts.hooks import HookRun

# For how long (in seconds) a connection may go on when both sides have said that they close, or one was told to.
CLOSING = 10.0
# An injected message that waits counts for so many bytes more than it has.
FRAME = 1024
log = Logger()


class WebSocketRelay(Tunnel):
    """Relays a WebSocket as `plan` says."""

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
        self.in_order = SWITCHED
        self._plan = plan
        self.data: WebSocketData = plan.data
        self.hooks = plan.hooks
        flow.websocket = self.data
        self.data.injector = self._inject
        for pump in (self._to_origin, self._to_client):
            pump.later = connection.proxy.later
            pump.broken = self._broke
        self.memory = connection.memory
        make = StreamSide if plan.streams else MessageSide
        self._from_client: Side = make(self, plan, True, self._to_origin)
        self._from_origin: Side = make(self, plan, False, self._to_client)
        # Who is to be told to close, by which code and why, when the other side has answered.
        self._blamed: tuple[Side, int, str] | None = None
        self._outcome_of_end = SWITCHED
        # Nothing more is written; and how much was, when that was looked at last.
        self._is_ending = False
        self._written = 0
        # What was injected, and hasn't been taken yet, by whether it is as if from the client.
        self._injected = {True: 0, False: 0}
        # Whether the client ended its side before the origin did.
        self._first: bool | None = None

    def start(self, said: bytes) -> None:
        hooks = self.hooks
        later = self._connection.proxy.later
        run = None if hooks is None else hooks.begin(self.data, partial(later, self._killed))
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
                # It was, before that set a deadline of its own.
                self._end_soon()

    def _begun(self, hooks: SocketHooks, run: HookRun, waits: tuple[Pause, ...]) -> None:
        """The hooks for a new WebSocket are through."""
        try:
            hooks.check(run)
        except Exception as error:
            self.failed(error)
        for wait in waits:
            wait.settle()

    def _killed(self) -> None:
        """A script has killed the flow."""
        if not self._over:
            self._break(FAILED, "killed by a script")

    # Bytes

    def _relay_to_origin(self, data: bytes) -> None:
        self._relay(self._from_client, self._plan.alongside_client, data)

    def _relay_to_client(self, data: bytes) -> None:
        self._relay(self._from_origin, self._plan.alongside_origin, data)

    def _relay(self, side: Side, alongside: Alongside | None, data: bytes) -> None:
        if alongside is not None:
            alongside.came(data)
        # Nothing is kept of what can't go on any more.
        if side.over or self._is_ending or (side.closed and (not self._plan.streams or self._have_closed)):
            return
        self.pour(side, side.pieces(data))

    def _moved(self) -> None:
        # One that goes on talking isn't waited for any longer than one that is silent.
        if not self._is_closing:
            super()._moved()

    def pour(self, side: Side, pieces: Iterator[Piece]) -> None:
        """Write what `side` gives to where that leads."""
        if self._over or self._is_finished(side):
            return
        alongside = self._plan.alongside_client if side.from_client else self._plan.alongside_origin
        side.pump.pour(pieces if alongside is None else self._struck(alongside.goes(pieces)))

    def _is_finished(self, side: Side) -> bool:
        """Whether nothing more can be written to where `side` leads: its source has ended, in order."""
        return self._is_ending or (self._client_ended if side.from_client else self._origin_ended)

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
        """Send what a script made, as if it had come from the other side. Raises ValueError where that can't be."""
        side = self._from_client if message.from_client else self._from_origin
        size = len(message.content)
        if self._over or side.closed or side.over or self._is_finished(side):
            raise ValueError("nothing can be injected into a WebSocket that is closing")
        if size > self._plan.most:
            raise ValueError("a message larger than limits.websocket_message can't be injected")
        waiting = self._injected[side.from_client]
        if waiting and waiting + size > self._plan.most:
            raise ValueError("so much was injected that waits to be read that nothing more can be")
        message.timestamp = self._seconds()
        if not self.memory.take(size + FRAME):
            raise ValueError(f"nothing can be injected: {OUT_OF_MEMORY}")
        self._injected[side.from_client] += size + FRAME
        self.pour(side, self._injecting(side, message, size + FRAME))

    def _injecting(self, side: Side, message: WebSocketMessage, size: int) -> Iterator[Piece]:
        if self.hooks is not None and self.hooks.wants_messages:
            # Not at once: it will be shown to a hook, and this is called from one, which may be another WebSocket's.
            turn = Pause("the next turn")
            self._connection.proxy.later(turn.settle)
            yield turn
        if self._over:
            return
        self._injected[side.from_client] -= size
        self.memory.give_back(size)
        yield from side.injected(message)

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
        if not (self._over or back.closed or back.over or self._is_finished(back)):
            valve = self._connection.valve if side.from_client else self._end.valve
            back.add_answer(opcode, content, valve)

    def said_close(self, side: Side, code: int, reason: str) -> None:
        """A close frame came on `side`, and goes on."""
        side.closed = True
        if self._over:
            return
        self.data.closed(code, reason, side.from_client)
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
            # It goes on: whom it is for will say what that means.
            return
        side.over = True
        self._outcome_of_end = MALFORMED
        if self._blamed is not None:
            # The other one did before.
            self._tell_blamed()
            self.end_both()
            return
        self.data.closed(error.code, error.reason, None)
        self._blamed = side, error.code, error.reason
        if self.opposite(side).closed:
            # It should have answered a close.
            self.end_both()
        else:
            self.pour(side, side.closing(GOING_AWAY, f"the other side is closed: {error.reason}"))
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
        # It would keep who called the hook, with all that is in there.
        error.__traceback__ = None
        self._flow.error = why
        self._outcome_of_end = FAILED
        for side in (self._from_client, self._from_origin):
            side.over = True
            self.pour(side, side.closing(INTERNAL_ERROR, "a rule failed"))
        self.data.closed(INTERNAL_ERROR, why, None)
        self.end_both()

    # Ends

    def drain(self) -> None:
        """Both sides are told that the proxy goes away."""
        if self._over or self._is_closing:
            return
        # Behind what was read before, which still goes.
        for side in (self._from_client, self._from_origin):
            self.pour(side, side.closing(GOING_AWAY, "the proxy is stopping"))
        self.data.closed(GOING_AWAY, "the proxy is stopping", None)
        self.end_both()

    def _broke(self) -> None:
        """A pump has met an exception that nobody knew of."""
        log.failure("exchange {id}: a WebSocket", id=self._flow.id)
        self._break(FAILED, "an error inside the proxy")

    def _end_soon(self) -> None:
        """There is nothing more to come but the ends of the connections."""
        if self._over:
            return
        self._progress = self._seconds()
        self._written = self._connection.sink.sent + self._end.sink.sent
        self._deadline.set(CLOSING, self._look)

    def end_both(self) -> None:
        """Nothing more goes to either side."""
        if self._over:
            return
        self._is_ending = True
        self._end_soon()
        self._to_origin.finish()
        self._to_client.finish()

    @property
    def _is_blocked(self) -> bool:
        """Whether something waits for a reader."""
        return self._to_client.blocked_since is not None or self._to_origin.blocked_since is not None

    @property
    def _have_closed(self) -> bool:
        """Whether close frames have gone both ways."""
        return self._from_client.closed and self._from_origin.closed

    @property
    def _is_closing(self) -> bool:
        return self._have_closed or self._is_ending or self._blamed is not None

    @property
    def _most_silence(self) -> float:
        return min(CLOSING, super()._most_silence) if self._is_closing else super()._most_silence

    def _look(self) -> None:
        now, written = self._seconds(), self._connection.sink.sent + self._end.sink.sent
        if not self._is_closing:
            if written != self._written:
                self._written = written
                if self._is_blocked:
                    # Much may wait of what was read long ago, for a slow reader.
                    self._progress = now
            for side in (self._from_client, self._from_origin):
                if side.stands_since is not None and now - side.stands_since >= self._timeouts.idle:
                    self._break(TIMED_OUT, f"the {'client' if side.from_client else 'origin'}'s message stood still")
                    return
        super()._look()

    def _too_silent(self) -> None:
        if not self._is_closing:
            super()._too_silent()
        elif self._is_blocked and self._connection.sink.sent + self._end.sink.sent != self._written:
            # A slow reader gets what there is for it.
            self._end_soon()
        elif self._blamed is not None and not self._is_ending:
            self._tell_blamed()
            self.end_both()
        elif not self._is_blocked:
            self._close_both()
        else:
            self._break(TIMED_OUT, "nothing moved in a WebSocket that was closing")

    def _tell_blamed(self) -> None:
        """The other side won't answer any more: say to who broke the protocol that this is the end."""
        if self._blamed is not None:
            side, code, reason = self._blamed
            other = self.opposite(side)
            self.pour(other, other.closing(code, reason))

    def read_ended(self) -> None:
        if self._first is None and not self._over:
            self._first = True
        blamed = self._blamed
        if blamed is not None and not blamed[0].from_client:
            self._tell_blamed()
            self._to_client.finish()
        super().read_ended()
        self._settle()

    def origin_ended(self) -> None:
        if self._first is None and not self._over:
            self._first = False
        blamed = self._blamed
        if blamed is not None and blamed[0].from_client:
            self._tell_blamed()
        super().origin_ended()
        self._settle()

    def connection_lost(self, reason: Failure) -> None:
        if self._have_closed and not self._over:
            # Everything has been said.
            self._client_left()
        else:
            super().connection_lost(reason)

    def origin_lost(self) -> None:
        if self._have_closed and not self._over:
            self._origin_left()
        else:
            super().origin_lost()

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
            if outcome == SWITCHED:
                why = why or "the connection ended without a close frame"
            else:
                self._first = {CLIENT_GONE: True, ORIGIN_GONE: False}.get(outcome)
            data.closed(LOST, "", self._first)
        if outcome in (CLIENT_GONE, ORIGIN_GONE, SWITCHED):
            outcome = self._outcome_of_end
        data.over(self._seconds())
        hooks, self.hooks = self.hooks, None
        if outcome == SWITCHED and data.close_code != LOST:
            for alongside in (self._plan.alongside_client, self._plan.alongside_origin):
                if alongside is not None:
                    alongside.end()
        super()._finish(outcome, flow.error or why)
        if hooks is not None:
            hooks.end()
        self._blamed = None
        # These and this refer to each other; without that, what is over is freed at once.
        for side in (self._from_client, self._from_origin):
            side.over = True
            side.release()
        self.memory.give_back(sum(self._injected.values()))
        self._injected = {True: 0, False: 0}
        self._from_client = self._from_origin = NO_SIDE
