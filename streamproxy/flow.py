"""The record of an exchange: plain data that the log, and whoever looks on, may read.

The machinery that moves an exchange is in `proxy/exchange.py`; nothing here acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(slots=True)
class BodyRecord:
    """How one body went (`how`: none, streamed, held, let go) and why; bytes of content that came in."""

    how: str = "none"
    why: str = ""
    size: int = 0

    def goes(self, way: Way) -> None:
        """It goes as the rules decided."""
        self.how = way.how.value
        self.why = way.why

    def went(self, size: int, let_go: bool) -> None:
        """It has gone: so many bytes of content came in, and it was let go, or not, while it was held."""
        self.size = size
        if let_go:
            self.how = "let go"


@dataclass(slots=True)
class Flow:
    """One exchange.

    Times are in seconds: `started` since the epoch, `first_byte` (of the response, to the client) and `duration`
    since `started`, None as long as there is none. The four counters are bytes of wire on either side, heads
    and framing included. `status` is the final response's as the client saw it, None where it saw none. `error`
    says in words what went wrong.
    """

    id: str
    started: float
    client: str
    method: str = "-"
    url: str = "-"
    status: int | None = None
    rules: list[str] = field(default_factory=list)
    request: BodyRecord = field(default_factory=BodyRecord)
    response: BodyRecord = field(default_factory=BodyRecord)
    client_in: int = 0
    client_out: int = 0
    origin_out: int = 0
    origin_in: int = 0
    first_byte: float | None = None
    duration: float | None = None
    outcome: str = ""
    error: str = ""
