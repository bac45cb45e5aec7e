"""The record of an exchange: plain data that the log, and whoever looks on, may read.

The machinery that moves an exchange is in `proxy/exchange.py`; nothing here acts.
"""

from __future__ import annotations

from streamproxy.filters.tap import Captured, Recorded
from streamproxy.filters.websocket import WebSocketData
from streamproxy.rules.verdict import Way

# The outcomes of an exchange, one word each (DESIGN section 7).
FORWARDED = "forwarded"
ANSWERED = "answered"
REFUSED = "refused"
TUNNELLED = "tunnelled"
SWITCHED = "switched"
CLIENT_GONE = "client-gone"
ORIGIN_GONE = "origin-gone"
TIMED_OUT = "timed-out"
MALFORMED = "malformed"
FAILED = "failed"


# Written out, and no dataclasses, for those are made anew for each exchange, and what dataclass makes stays uncompiled.


class BodyRecord:
    """How one body went (`how`: none, streamed, held, let go) and why; bytes of content that came in.

    `captured` is what is recorded of it while it goes; `recorded`, when it has gone, as it came in and as it went out.
    """

    __slots__ = ("captured", "how", "recorded", "size", "why")

    def __init__(self, how: str = "none", why: str = "", size: int = 0) -> None:
        self.how = how
        self.why = why
        self.size = size
        self.captured: Captured | None = None
        self.recorded: tuple[Recorded, Recorded] | None = None

    def goes(self, way: Way) -> None:
        """It goes as the rules decided."""
        self.how = way.how.value
        self.why = way.why

    def went(self, size: int, let_go: bool) -> None:
        """It has gone: so many bytes of content came in, and it was let go, or not, while it was held."""
        self.size = size
        if let_go:
            self.how = "let go"
        self.end_capture()

    def end_capture(self) -> None:
        """Nothing more is recorded."""
        captured, self.captured = self.captured, None
        if captured is not None:
            self.recorded = captured.close()


class Flow:
    """One exchange.

    Times are in seconds: `started` since the epoch, `first_byte` (of the response, to the client) and `duration`
    since `started`, None as long as there is none. The four counters are bytes of wire on either side, heads
    and framing included. `status` is the final response's as the client saw it, None where it saw none. `error`
    says in words what went wrong. `user` is who has proved to be the client, where that is asked. `websocket` is what
    was recorded of a WebSocket, where the exchange became one.
    """

    __slots__ = (
        "client",
        "client_in",
        "client_out",
        "duration",
        "error",
        "first_byte",
        "id",
        "method",
        "origin_in",
        "origin_out",
        "outcome",
        "request",
        "response",
        "rules",
        "started",
        "status",
        "url",
        "user",
        "websocket",
    )

    def __init__(self, id: str, started: float, client: str, method: str = "-", url: str = "-") -> None:
        self.id = id
        self.started = started
        self.client = client
        self.method = method
        self.url = url
        self.user: str | None = None
        self.status: int | None = None
        self.rules: list[str] = []
        self.request = BodyRecord()
        self.response = BodyRecord()
        self.websocket: WebSocketData | None = None
        self.client_in = 0
        self.client_out = 0
        self.origin_out = 0
        self.origin_in = 0
        self.first_byte: float | None = None
        self.duration: float | None = None
        self.outcome = ""
        self.error = ""
