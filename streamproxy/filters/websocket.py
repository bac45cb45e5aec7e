"""What is recorded of a WebSocket: a window of its newest messages, counters for all of them, and how it closed.

Plain data, with the names of mitmproxy's API, for scripts and for the log. What reads frames, puts messages together
and writes them is elsewhere; nothing here acts, and nothing grows with the life of a connection.
"""

from __future__ import annotations

import codecs
import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from streamproxy.filters.tap import Budget

# The most messages that a window has.
MOST_MESSAGES = 100
# The most bytes of a message that its repr shows.
_SHOWN_IN_REPR = 40


class Opcode(enum.IntEnum):
    """What a message is of (RFC 6455 section 11.8)."""

    TEXT = 1
    BINARY = 2


# To look one up takes a tenth of calling the enum.
_OPCODES = {1: Opcode.TEXT, 2: Opcode.BINARY}
# The message that the hook which runs is about: while one waits, the other direction may show another.
_looked_at: ContextVar[WebSocketMessage | None] = ContextVar("looked_at", default=None)


class WebSocketMessage:
    """One message, put together of its frames, uncompressed.

    `from_client`: which way it goes. `timestamp`: seconds since the epoch, None as long as nobody said. `injected`: a
    script made it. `size`: bytes of its content as it came, all of them; `cut`: `content` is only their beginning.
    `streamed`: it had gone by before it was seen, and can't be changed; `compressed`: its content is as it went by,
    compressed. `changed`: a script set other bytes.
    """

    __slots__ = (
        "_changed",
        "_charged",
        "_content",
        "_dropped",
        "_gone",
        "_type",
        "compressed",
        "cut",
        "from_client",
        "injected",
        "size",
        "streamed",
        "timestamp",
    )

    def __init__(
        self,
        type: int,
        from_client: bool,
        content: bytes,
        timestamp: float | None = None,
        dropped: bool = False,
        injected: bool = False,
    ) -> None:
        """`type` is 1 (text) or 2 (binary); ValueError for any other."""
        found = _OPCODES.get(type)
        self._type: Opcode = Opcode(type) if found is None else found
        self.from_client = from_client
        self._content = content
        self.timestamp = timestamp
        self._dropped = dropped
        self.injected = injected
        self.size = len(content)
        self.cut = False
        self.compressed = False
        self.streamed = False
        self._changed = False
        # It has left the one who looked at it, and takes so many bytes of a budget.
        self._gone = False
        self._charged = 0

    def __repr__(self) -> str:
        side = "client" if self.from_client else "origin"
        shown = repr(self._content[:_SHOWN_IN_REPR]) + ("..." if len(self._content) > _SHOWN_IN_REPR else "")
        return f"<WebSocketMessage from the {side}, {self.type.name.lower()}, {self.size} bytes: {shown}>"

    @property
    def content(self) -> bytes:
        """Its bytes. Setting it raises TypeError for anything but bytes, ValueError where it is too late for that."""
        return self._content

    @content.setter
    def content(self, content: bytes) -> None:
        if not isinstance(content, bytes):
            raise TypeError(f"a message's content must be bytes, not {content.__class__.__name__}")
        self._check_can_change()
        if content != self._content:
            self._content = content
            self._changed = True

    @property
    def changed(self) -> bool:
        """Whether it isn't what came any more."""
        return self._changed

    @property
    def type(self) -> Opcode:
        """1 for text, 2 for binary. Setting it raises ValueError for anything else, and where it is too late."""
        return self._type

    @type.setter
    def type(self, type: Opcode) -> None:
        self._check_can_change()
        self._type = Opcode(type)

    @property
    def is_text(self) -> bool:
        """Whether it is text, and not binary."""
        return self.type == Opcode.TEXT

    @property
    def text(self) -> str:
        """A text message's content as text; AttributeError for a binary one.

        Where it is `cut`, a character that isn't whole is left out. UnicodeDecodeError if it isn't UTF-8, as one that
        streamed, or what a script set, may be.
        """
        self._check_is_text()
        return codecs.utf_8_decode(self._content, "strict", not self.cut)[0]

    @text.setter
    def text(self, text: str) -> None:
        self._check_is_text()
        if not isinstance(text, str):
            raise TypeError(f"a message's text must be a str, not {text.__class__.__name__}")
        self.content = text.encode()

    @property
    def dropped(self) -> bool:
        """Whether it doesn't go on. Setting it raises ValueError where it is too late for that."""
        return self._dropped

    @dropped.setter
    def dropped(self, dropped: bool) -> None:
        self._check_can_change()
        self._dropped = dropped

    def drop(self) -> None:
        """Don't let it go on. Raises ValueError where it is too late for that."""
        self.dropped = True

    def kill(self) -> None:
        """The same as `drop`, by its older name."""
        self.dropped = True

    def copy(self) -> WebSocketMessage:
        """One of its own with the same content."""
        made = WebSocketMessage(
            self.type, self.from_client, self._content, self.timestamp, self._dropped, self.injected
        )
        made.size, made.cut, made.streamed, made._changed = self.size, self.cut, self.streamed, self._changed
        made._gone, made.compressed = self._gone, self.compressed
        return made

    def _check_is_text(self) -> None:
        if self.type != Opcode.TEXT:
            raise AttributeError("a binary message has no text: its content is bytes")

    def _check_can_change(self) -> None:
        if self.streamed:
            raise ValueError("messages of a WebSocket that streams can't be changed")
        if self._gone:
            raise ValueError("a message that has gone by can't be changed")


@contextmanager
def looking_at(message: WebSocketMessage) -> Iterator[None]:
    """What is started within is about `message`."""
    token = _looked_at.set(message)
    try:
        yield
    finally:
        _looked_at.reset(token)


class Counted:
    """How much one side sent, for the life of a connection.

    `messages` and `bytes` are of messages that came from it, uncompressed, and of these so many were `dropped`.
    `injected` are those that scripts made to go the same way, which aren't among them (but may be dropped as well).
    """

    __slots__ = ("bytes", "dropped", "injected", "messages", "pings", "pongs")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.pings = 0
        self.pongs = 0
        self.dropped = 0
        self.injected = 0

    def __repr__(self) -> str:
        return f"<Counted {self.messages} messages, {self.bytes} bytes>"

    def add(self, message: WebSocketMessage) -> None:
        """Count a message that has come, or was made."""
        if message.injected:
            self.injected += 1
        else:
            self.messages += 1
            self.bytes += message.size
        if message.dropped:
            self.dropped += 1

    def copy(self) -> Counted:
        """The same counts, which stay as they are."""
        made = Counted()
        made.messages, made.bytes, made.pings, made.pongs = self.messages, self.bytes, self.pings, self.pongs
        made.dropped, made.injected = self.dropped, self.injected
        return made


class WebSocketData:
    """A WebSocket as scripts and the log see it.

    `from_client` and `from_origin` count what each side sent. `closed_by_client`: True, False for the origin, None for
    neither (it goes on, or the proxy ended it); `close_code` and `close_reason` are those of the first close frame,
    1006 for a connection that was lost without one. `timestamp_end`: when it was over, in seconds since the epoch.
    `streamed`: frames go on as they come, and nothing can be changed. `injector` takes what `inject` makes.

    The window keeps `limit` bytes of content at the most, as far as `budget` has them. `release` gives them back.
    """

    __slots__ = (
        "_budget",
        "_by_client",
        "_code",
        "_end",
        "_from_client",
        "_from_origin",
        "_held",
        "_kept",
        "_limit",
        "_reason",
        "_shown",
        "injector",
        "streamed",
    )

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit = limit
        self._budget = budget
        # Those that have gone by, oldest first, and the bytes of their contents; those that are being looked at.
        self._kept: list[WebSocketMessage] = []
        self._held = 0
        self._shown: list[WebSocketMessage] = []
        self._from_client = Counted()
        self._from_origin = Counted()
        self._by_client: bool | None = None
        self._code: int | None = None
        self._reason: str | None = None
        self._end: float | None = None
        self.streamed = False
        self.injector: Callable[[WebSocketMessage], None] | None = None

    def __repr__(self) -> str:
        return f"<WebSocketData ({len(self._kept) + len(self._shown)} messages)>"

    @property
    def from_client(self) -> Counted:
        """What the client sent."""
        return self._from_client

    @property
    def from_origin(self) -> Counted:
        """What the origin sent."""
        return self._from_origin

    @property
    def closed_by_client(self) -> bool | None:
        """Who closed it: the client, the origin (False), or neither of them."""
        return self._by_client

    @property
    def close_code(self) -> int | None:
        """The code of the first close frame."""
        return self._code

    @property
    def close_reason(self) -> str | None:
        """The reason in the first close frame."""
        return self._reason

    @property
    def timestamp_end(self) -> float | None:
        """When it was over, in seconds since the epoch."""
        return self._end

    def closed(self, code: int, reason: str, by_client: bool | None) -> None:
        """It closes. Only the first word on that counts."""
        if self._code is None:
            self._code, self._reason, self._by_client = code, reason, by_client

    def over(self, now: float) -> None:
        """It is over, and what the window holds is the budget's again (`release`)."""
        self._end = now
        self.injector = None
        self.release()

    @property
    def messages(self) -> list[WebSocketMessage]:
        """The newest messages, the one that is being looked at last: in a hook, the one that it is about.

        The list is the caller's own.

        Setting it forgets all that aren't in what it is set to, and adds nothing.
        """
        shown = self._shown
        if len(shown) > 1:
            about = _looked_at.get()
            if about is not None and about in shown:
                shown = [message for message in shown if message is not about]
                shown.append(about)
        return self._kept + shown

    @messages.setter
    def messages(self, messages: list[WebSocketMessage]) -> None:
        wanted = {id(message) for message in messages}
        for message in self._kept + self._shown:
            if id(message) not in wanted:
                self.forget(message)

    def show(self, message: WebSocketMessage) -> None:
        """A message is looked at: the last of the window, whole, whatever its size. Its bytes are whose it is."""
        if self._kept and len(self._kept) + len(self._shown) >= MOST_MESSAGES:
            self._forget_oldest()
        self._shown.append(message)

    def keep(self, message: WebSocketMessage) -> None:
        """A message has gone by, or was dropped: count it and keep it, cut to what there is room for.

        The oldest ones are forgotten to make room. Who still needs its whole content takes it before. Does nothing the
        second time.
        """
        if message._gone:
            return
        message._gone = True
        (self.from_client if message.from_client else self.from_origin).add(message)
        if message in self._shown:
            self._shown.remove(message)
        content = message._content
        wanted = min(len(content), self._limit)
        while self._kept and (self._held + wanted > self._limit or len(self._kept) + len(self._shown) >= MOST_MESSAGES):
            self._forget_oldest()
        granted = self._budget.take(wanted)
        while granted < wanted and self._held:
            self._forget_oldest()
            granted += self._budget.take(wanted - granted)
        if granted < len(content):
            # A slice of bytes is a copy, so that what is left of a large message doesn't hold all of it.
            message._content = content[:granted]
            message.cut = True
        message._charged = granted
        self._held += granted
        self._kept.append(message)

    def forget(self, message: WebSocketMessage) -> None:
        """Take a message out of the window; what was counted stays. Does nothing if it isn't there."""
        if message in self._shown:
            self._shown.remove(message)
        elif message in self._kept:
            self._kept.remove(message)
            self._give_back(message)

    def release(self) -> None:
        """The WebSocket is over: the budget gets back what the window holds. That stays readable; more isn't kept."""
        self._limit = 0
        for message in self._kept:
            self._give_back(message)

    def inject(self, to_client: bool, content: bytes | str, is_text: bool | None = None) -> None:
        """Send a message of one's own, to the client or to the origin.

        Unless `is_text` says, a str goes as text and bytes as binary. Raises TypeError for any other content, and
        ValueError where text isn't UTF-8, and where no message can be sent: the WebSocket is over, or streams.
        """
        if isinstance(content, str):
            data = content.encode()
        elif isinstance(content, bytes):
            data = content
        else:
            raise TypeError(f"a message's content must be bytes or a str, not {content.__class__.__name__}")
        text = isinstance(content, str) if is_text is None else is_text
        if text and not isinstance(content, str):
            data.decode()
        if self.streamed:
            raise ValueError("nothing can be injected into a WebSocket that streams")
        injector = self.injector
        if injector is None or self.timestamp_end is not None:
            raise ValueError("nothing can be injected into a WebSocket that is over, or hasn't begun")
        injector(WebSocketMessage(Opcode.TEXT if text else Opcode.BINARY, not to_client, data, injected=True))

    def copy(self) -> WebSocketData:
        """What is known of it now, with messages of its own. Nothing can be injected by it, and it keeps no more."""
        made = WebSocketData(0, Budget(0))
        made._kept = [message.copy() for message in self._kept + self._shown]
        made._from_client, made._from_origin = self._from_client.copy(), self._from_origin.copy()
        made._by_client, made._end = self._by_client, self._end
        made._code, made._reason = self._code, self._reason
        made.streamed = self.streamed
        return made

    def _forget_oldest(self) -> None:
        """Forget the oldest of those that have gone by."""
        message = self._kept[0]
        # There are so few that this costs less than a deque does.
        del self._kept[0]
        self._give_back(message)

    def _give_back(self, message: WebSocketMessage) -> None:
        self._held -= message._charged
        self._budget.give_back(message._charged)
        message._charged = 0
