"""The two ways in which one direction of a WebSocket goes: its frames as they come, or message by message.

A side gives what is to be written for what was read, as an iterator, and tells its relay (`websocket.py`) what was
said. What frames and messages are is told in `wire` and `filters`; what rules do to them in `message_rules`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from streamproxy.filters.chain import FilterError, Piece
from streamproxy.filters.message_deflate import Deflate, Deflated, Inflate, MessageCodingError, TooLarge
from streamproxy.filters.messages import MOST_IN_A_ROW, Control, Message, MessageReader, MessageWriter
from streamproxy.filters.websocket import Counted, WebSocketData, WebSocketMessage
from streamproxy.memory import OUT_OF_MEMORY
from streamproxy.proxy.alongside import Alongside
from streamproxy.proxy.message_rules import MessageRules
from streamproxy.rules.verdict import MessageRule
from streamproxy.stream.pump import Pump
from streamproxy.stream.valve import Valve
from streamproxy.wire.websocket import (
    ANY_RSV,
    CLOSE,
    PING,
    RSV1,
    TEXT,
    FrameError,
    FramePart,
    FrameReader,
    close_payload,
    frame,
    read_close,
)

if TYPE_CHECKING:
    from streamproxy.proxy.socket_hooks import SocketHooks
    from streamproxy.proxy.websocket import WebSocketRelay

MASK_SIZE: Final = 4
# Where messages stream, to inflate them for hooks may come to so many bytes, or to so many times what they were.
LEAST_INFLATED: Final = 4 << 20
MOST_TIMES: Final = 250
ANY_SIZE: Final = 1 << 62
# The reason by which a valve is shut while answers to what came by it wait.
ANSWERS: Final = "answers"


class Plan(NamedTuple):
    """How a WebSocket goes: whether it `streams`, what is recorded of it, and who looks at its messages.

    Where it streams, `extended` tells whether an extension may use reserved bits, and `agreed` how messages are
    compressed, if that is known and the only one. Where messages are read, each has
    `most` bytes at the most, and either side's connection compresses as it agreed on (`with_client`, `with_origin`); a
    regex has `regex_seconds`. `capture`: how many bytes of a message are recorded. `alongside_...`: what is done to the
    bytes that come from there.
    """

    streams: bool
    data: WebSocketData
    hooks: SocketHooks | None
    rules: tuple[MessageRule, ...]
    most: int
    capture: int
    regex_seconds: float
    extended: bool = False
    agreed: Deflated | None = None
    with_client: Deflated | None = None
    with_origin: Deflated | None = None
    alongside_client: Alongside | None = None
    alongside_origin: Alongside | None = None


class Side:
    """One direction, which leads to `pump`. By itself it has nothing to say: as what stands where a relay is over.

    `closed`: a close frame has gone that way; `over`: nothing that is read goes on any more. `stands_since`: since when
    (in seconds) a message that has begun hasn't moved, None where there is none.
    """

    def __init__(self, from_client: bool, pump: Pump) -> None:
        self.from_client = from_client
        self.pump = pump
        self.closed = self.over = False
        self.stands_since: float | None = None

    def pieces(self, data: bytes) -> Iterator[Piece]:
        """What is to be written for what was read."""
        return iter(())

    def injected(self, message: WebSocketMessage) -> Iterator[Piece]:
        """What is to be written for a message of a script's own."""
        return iter(())

    def add_answer(self, opcode: int, content: bytes, valve: Valve) -> None:
        """Write a message of a rule's own; `valve` is of who caused it, and is shut as long as that waits."""

    def closing(self, code: int, reason: str) -> Iterator[Piece]:
        """A close frame of the proxy's own, where one can stand."""
        return iter(())

    def release(self) -> None:
        """Nothing is held here any more."""


NO_SIDE: Final = Side(False, Pump(None, 1, float))
NO_SIDE.closed = NO_SIDE.over = True


class StreamSide(Side):
    """Frames go on as they come; beside that they are read, for the record and for hooks that look on."""

    def __init__(self, relay: WebSocketRelay, plan: Plan, from_client: bool, pump: Pump) -> None:
        super().__init__(from_client, pump)
        self._relay = relay
        self._data = plan.data
        self._counted = plan.data.from_client if from_client else plan.data.from_origin
        self._frames = FrameReader(from_client, ANY_RSV if plan.extended else 0)
        self._capture = plan.capture
        # To show hooks what was compressed: nobody else needs it.
        self._inflate: Inflate | None = None
        agreed = plan.agreed
        if agreed is not None and plan.hooks is not None and plan.hooks.wants_messages:
            self._inflate = Inflate(agreed.client if from_client else agreed.server)
        # Bytes that went into that, and that came out of it.
        self._deflated = self._inflated = 0
        # The message that goes by: what it is of, its bytes so far, and the first of them.
        self._opcode = 0
        self._compressed = False
        self._size = 0
        self._kept = bytearray()
        self._is_cut = self._is_lost = False
        # It can't be read any further.
        self._is_unread = False

    def pieces(self, data: bytes) -> Iterator[Piece]:
        if self.over:
            return
        yield data
        if self.closed or self._is_unread:
            return
        row = 0
        for part in self._frames.feed(data):
            row += 1
            if row >= MOST_IN_A_ROW:
                row = 0
                yield b""
            if part.head.opcode >= CLOSE:
                if not self._control(part):
                    return
            else:
                yield from self._message(part)
        error = self._frames.error
        if error is not None:
            self._is_unread = True
            self._relay.broke_protocol(self, error)

    def _control(self, part: FramePart) -> bool:
        """A control frame has gone by; whether more may come."""
        if part.head.opcode != CLOSE:
            _count_control(self._counted, part.head.opcode)
            return True
        try:
            code, reason = read_close(part.payload)
        except FrameError as error:
            self._is_unread = True
            self._relay.broke_protocol(self, error)
            return False
        self._relay.said_close(self, code, reason)
        return False

    def _message(self, part: FramePart) -> Iterator[Piece]:
        """Some of a message has gone by."""
        if not self._opcode:
            self._opcode = part.head.opcode
            self._compressed = bool(part.head.reserved & RSV1)
            if self._compressed and self._inflate is not None:
                self._inflate.begin()
        if self._compressed and self._inflate is not None:
            yield from self._keep_inflated(part, self._inflate)
        else:
            self._size += len(part.data)
            room = self._capture - len(self._kept)
            if room > 0:
                self._keep(FramePart(part.head, part.data[:room], part.at, False).payload)
        if not (part.last and part.head.final):
            return
        kept = b"" if self._is_lost else bytes(self._kept)
        message = WebSocketMessage(self._opcode, self.from_client, kept, self._relay.now())
        message.size = self._size
        message.cut = len(kept) < self._size
        message.compressed = self._compressed and self._inflate is None
        message.streamed = True
        self._opcode = self._size = 0
        self._is_lost = False
        self.release()
        hooks = self._relay.hooks
        if hooks is not None and hooks.wants_messages and not self.over:
            self._data.show(message)
            run = hooks.message(message)
            if not run.pause.over:
                # The message has gone; the next read waits.
                yield run.pause
            try:
                hooks.check(run)
            except Exception as error:
                self._relay.failed(error)
        self._data.keep(message)

    def _keep(self, data: bytes) -> None:
        """Record more of the message, if it may be held."""
        if self.over or self._is_cut or not self._relay.memory.take(len(data)):
            # Behind a gap nothing is recorded.
            self._is_cut = True
        else:
            self._kept += data

    def release(self) -> None:
        self._relay.memory.give_back(len(self._kept))
        self._kept = bytearray()
        self._is_cut = False

    def _keep_inflated(self, part: FramePart, inflate: Inflate) -> Iterator[Piece]:
        """Keep what there is room for of some of a compressed message; all of it is inflated, for what is to come."""
        self._deflated += len(part.data)
        try:
            for piece in inflate.feed(part.payload, ANY_SIZE):
                self._size += len(piece)
                self._inflated += len(piece)
                if self._inflated > LEAST_INFLATED and self._inflated > MOST_TIMES * self._deflated:
                    raise TooLarge("it would take more than its share of time")
                room = self._capture - len(self._kept)
                if room > 0:
                    self._keep(piece[:room])
                yield b""
            if part.last and part.head.final:
                inflate.end()
        except (MessageCodingError, TooLarge):
            # It goes on as it is. What was compressed isn't shown any more, and of this message nothing is.
            self._inflate = None
            self._is_lost = True

    def closing(self, code: int, reason: str) -> Iterator[Piece]:
        if not self.closed and not self._is_unread and self._frames.between:
            self.closed = True
            yield frame(CLOSE, close_payload(code, reason), os.urandom(MASK_SIZE) if self.from_client else b"")
        # Within a frame it would be taken for a part of that: the end of the connection has to tell.


class MessageSide(Side):
    """Messages are put together, shown to rules and hooks, and made into frames again."""

    def __init__(self, relay: WebSocketRelay, plan: Plan, from_client: bool, pump: Pump) -> None:
        super().__init__(from_client, pump)
        self._relay = relay
        self._data = plan.data
        self._counted = plan.data.from_client if from_client else plan.data.from_origin
        self._most = plan.most
        comes, goes = plan.with_client, plan.with_origin
        if not from_client:
            comes, goes = goes, comes
        inflate = None if comes is None else Inflate(comes.client if from_client else comes.server)
        deflate = None if goes is None else Deflate(goes.client if from_client else goes.server)
        self._reader = MessageReader(from_client, plan.most, inflate)
        self._writer = MessageWriter(partial(os.urandom, MASK_SIZE) if from_client else None, deflate)
        rules = [rule for rule in plan.rules if rule.from_client is None or rule.from_client is from_client]
        # How much of a message was here when that was looked at last.
        self._held = 0
        # What rules answer, until it is written.
        self._answers: deque[tuple[int, bytes]] = deque()
        self._rules = MessageRules(rules, plan.most, plan.regex_seconds) if rules else None

    def pieces(self, data: bytes) -> Iterator[Piece]:
        if self.closed or self.over:
            return
        hooks = self._relay.hooks
        looks = self._rules is not None or (hooks is not None and hooks.wants_messages)
        try:
            for event in self._reader.feed(data):
                if self.closed or self.over:
                    break
                if event is None:
                    yield b""
                elif isinstance(event, Control):
                    yield from self._control(event)
                elif looks:
                    yield from self._message(event)
                else:
                    shown = WebSocketMessage(event.opcode, self.from_client, event.content, self._relay.now())
                    self._data.keep(shown)
                    written = self._writer.small(event)
                    if written is not None:
                        yield written
                    else:
                        yield from self._writer.message(event)
        except Exception as error:
            self._relay.failed(error)
            return
        if self.over:
            return
        reader = self._reader
        if not reader.in_message:
            self.stands_since = None
        elif self.stands_since is None or reader.held != self._held:
            self.stands_since = self._relay.now()
        more, self._held = reader.held - self._held, reader.held
        memory = self._relay.memory
        if more > 0 and not memory.take(more):
            self._held -= more
            self._relay.failed(FilterError(OUT_OF_MEMORY))
            return
        if more < 0:
            memory.give_back(-more)
        broken = reader.error
        if broken is not None and not self.closed and not self.over:
            self._relay.broke_protocol(self, broken)

    def _control(self, control: Control) -> Iterator[Piece]:
        if control.opcode != CLOSE:
            _count_control(self._counted, control.opcode)
            yield self._writer.control(control.opcode, control.payload, control.key)
            return
        try:
            code, reason = read_close(control.payload)
        except FrameError as error:
            self._relay.broke_protocol(self, error)
            return
        asked = self._relay.answer_to_blamed(self)
        if asked is not None:
            # It answers what was said here.
            yield from self.closing(*asked)
            self._relay.end_both()
            return
        yield self._writer.control(CLOSE, control.payload, control.key)
        self._relay.said_close(self, code, reason)

    def _message(self, message: Message) -> Iterator[Piece]:
        """A message has come that rules or hooks look at."""
        shown = WebSocketMessage(message.opcode, self.from_client, message.content, self._relay.now())
        if self._rules is not None:
            done = yield from self._rules.apply(message.opcode, message.content)
            shown.content = done.content
            shown.dropped = done.dropped
            if done.answer is not None:
                self._relay.answer(self, message.opcode, done.answer)
        whole = yield from self._shown(shown)
        if shown.dropped:
            # What took its time may end the turn, though nothing comes of it.
            yield b""
            return
        if whole != message.content or shown.type != message.opcode:
            yield from self._changed(shown, whole, message.compressed)
        else:
            yield from self._writer.message(message)

    def _shown(self, shown: WebSocketMessage) -> Generator[Piece, None, bytes]:
        """A message is shown to hooks, and recorded; gives all of its content, as the hooks left it."""
        hooks = self._relay.hooks
        whole = shown.content
        if hooks is not None and hooks.wants_messages and not shown.dropped:
            self._data.show(shown)
            run = hooks.message(shown)
            if not run.pause.over:
                yield run.pause
            hooks.check(run)
            whole = shown.content
        self._data.keep(shown)
        return whole

    def _changed(self, shown: WebSocketMessage, content: bytes, compressed: bool) -> Iterator[Piece]:
        """The frame of a message that isn't what came."""
        if len(content) > self._most:
            raise FilterError("a script made a message larger than limits.websocket_message")
        if shown.type == TEXT:
            try:
                content.decode()
            except UnicodeDecodeError:
                raise FilterError("a text that was changed isn't UTF-8 any more") from None
        yield from self._writer.new(int(shown.type), content, compressed)

    def injected(self, message: WebSocketMessage) -> Iterator[Piece]:
        if self.closed or self.over:
            return
        try:
            whole = yield from self._shown(message)
            if not message.dropped and not self.closed and not self.over:
                yield from self._changed(message, whole, False)
        except Exception as error:
            self._relay.failed(error)

    def release(self) -> None:
        self._relay.memory.give_back(self._held)
        self._held = 0

    def add_answer(self, opcode: int, content: bytes, valve: Valve) -> None:
        self._answers.append((opcode, content))
        if len(self._answers) == 1:
            valve.close(ANSWERS)
            self._relay.pour(self, self._answered(valve))

    def _answered(self, valve: Valve) -> Iterator[Piece]:
        """The frames of all answers that wait."""
        answers = self._answers
        while answers and not (self.closed or self.over):
            opcode, content = answers[0]
            message = WebSocketMessage(opcode, self.from_client, content, self._relay.now(), injected=True)
            self._data.keep(message)
            yield from self._writer.new(opcode, content)
            answers.popleft()
        answers.clear()
        valve.open(ANSWERS)

    def closing(self, code: int, reason: str) -> Iterator[Piece]:
        if not self.closed:
            self.closed = True
            yield self._writer.control(CLOSE, close_payload(code, reason))


def _count_control(counted: Counted, opcode: int) -> None:
    if opcode == PING:
        counted.pings += 1
    else:
        counted.pongs += 1
