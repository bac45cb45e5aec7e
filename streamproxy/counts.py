"""What the process counts: plain numbers, which the hot path can afford. Nothing here is shown to anybody.

An exchange costs some ten microseconds, and a counter of a metrics library takes one or more of them, with its lock and
its labels. So what passes is counted in attributes, lists and dicts with keys that are known beforehand; who asks for
metrics gets them made of these (`inspect/metrics.py`).

There is one thread. Counters only grow; what is large at one time and small at another is asked for when it is
wanted (`Levels`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Upper bounds of what is counted in histograms, in seconds.
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (*SHORT[1:], 30.0, 60.0, 300.0, 1800.0)
VERY_LONG = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0)

# The words that counters are told apart by. They are few, and none of them is a client's or an origin's to choose.
OUTCOMES = (
    "forwarded",
    "answered",
    "refused",
    "tunnelled",
    "switched",
    "client-gone",
    "origin-gone",
    "timed-out",
    "malformed",
    "failed",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
# How a handshake ends, and why no connection to an origin is made.
DONE: Final = "ok"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed-out"
HANDSHAKES = (DONE, FAILED, TIMED_OUT)
CONNECTING = ("name", "refused", "timed-out", "denied", "other")
# Why a client's connection is refused.
TOO_MANY: Final = "limit"
NOT_ALLOWED: Final = "access"
TURNED_AWAY = (TOO_MANY, NOT_ALLOWED)
OTHER: Final = "other"


class Histogram:
    """How often a value was up to each of the ascending `bounds`, or above; and what all of them come to."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        # One more than there are bounds, for what is above the last.
        self.buckets: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        # Compiled, this is a tenth of a bisection, as most values are among the first bounds.
        bounds = self.bounds
        index = 0
        while index < len(bounds) and value > bounds[index]:
            index += 1
        self.buckets[index] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.buckets)


class Traffic:
    """Bytes read from and written to the sockets of one side."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received: int = 0
        self.sent: int = 0


class Passing:
    """What is counted where bytes pass: traffic, pauses, and how long what was read stood in the proxy.

    Pauses are counted by the valves' reasons: those that began, and those that are over.
    """

    __slots__ = ("at_once", "clients", "origins", "paused", "resumed", "waited")

    def __init__(self) -> None:
        self.clients = Traffic()
        self.origins = Traffic()
        # Those of every proxy are there from the beginning; a reason of another kind when it first comes.
        self.paused: dict[str, int] = {"sink full": 0, "turn": 0, "next request": 0}
        self.resumed: dict[str, int] = {}
        # What went on in the turn in which it came.
        self.at_once: int = 0
        self.waited = Histogram(LONG)


# The process has one, and not each proxy in it: a reference in every valve, pump and sink would cost ten thousand idle
# connections a megabyte, and every constructor between them and the proxy a parameter.
PASSING: Final = Passing()
# Where what isn't to be counted is.
UNCOUNTED: Final = Traffic()


class Counts:
    """What one proxy counts, beside what passes."""

    __slots__ = (
        "_place_of",
        "accepted",
        "connected",
        "connecting_failed",
        "durations",
        "exchanges",
        "first_bytes",
        "handshake_durations",
        "handshakes",
        "lag",
        "last_lag",
        "lookups",
        "messages",
        "reload_worked",
        "reloaded_at",
        "reloads",
        "requests",
        "reused",
        "started",
        "tunnel_durations",
        "turned_away",
        "websocket_durations",
    )

    def __init__(self, started: float = 0.0) -> None:
        # Seconds since the epoch.
        self.started = started
        # By outcome, and by the class of the status: 0 where the client saw none.
        self.exchanges: dict[str, list[int]] = {outcome: [0] * len(STATUSES) for outcome in OUTCOMES}
        # In the order of `METHODS`; the last is for any other.
        self.requests: list[int] = [0] * (len(METHODS) + 1)
        self._place_of: dict[str, int] = {method: place for place, method in enumerate(METHODS)}
        self.durations = Histogram(LONG)
        self.tunnel_durations = Histogram(VERY_LONG)
        self.websocket_durations = Histogram(VERY_LONG)
        self.first_bytes = Histogram(LONG)
        # Messages of WebSockets that are over, from clients and from origins.
        self.messages: list[int] = [0, 0]
        # Of clients' connections.
        self.accepted: int = 0
        self.turned_away: dict[str, int] = dict.fromkeys(TURNED_AWAY, 0)
        # Of connections to origins.
        self.connected: int = 0
        self.reused: int = 0
        self.connecting_failed: dict[str, int] = dict.fromkeys(CONNECTING, 0)
        # By whether the origin is the other side, then by result.
        self.handshakes: list[dict[str, int]] = [dict.fromkeys(HANDSHAKES, 0) for _ in range(2)]
        self.handshake_durations: list[Histogram] = [Histogram(SHORT), Histogram(SHORT)]
        # Names looked up: without an address, and with some.
        self.lookups: list[int] = [0, 0]
        # Of the configuration: failed, and worked.
        self.reloads: list[int] = [0, 0]
        self.reload_worked: bool = True
        self.reloaded_at: float = started
        # By how much the reactor was late, in seconds.
        self.lag = Histogram(SHORT)
        self.last_lag: float = 0.0

    def exchange(
        self,
        outcome: str,
        status: int | None,
        method: str,
        duration: float | None,
        first_byte: float | None,
    ) -> None:
        """An exchange that is over, in whatever way; times in seconds."""
        counted = self.exchanges.get(outcome)
        if counted is not None:
            number = 0 if status is None else status // 100
            counted[number if 0 <= number <= 5 else 0] += 1
        # - is what came before there was a request.
        if method != "-":
            place = self._place_of.get(method)
            self.requests[-1 if place is None else place] += 1
        if first_byte is not None:
            self.first_bytes.observe(first_byte)
        if duration is not None:
            if method == "CONNECT" or outcome == "tunnelled" or outcome == "switched":
                self.tunnel_durations.observe(duration)
            else:
                self.durations.observe(duration)

    def websocket(self, from_client: int, from_origin: int, duration: float | None) -> None:
        """A WebSocket that is over, with so many messages of either side, beside the exchange that it was."""
        self.messages[0] += from_client
        self.messages[1] += from_origin
        if duration is not None:
            self.websocket_durations.observe(duration)

    def handshake(self, with_origin: bool, result: str, seconds: float) -> None:
        """A TLS handshake that is over after so many seconds, with one of the words of `HANDSHAKES`."""
        side = 1 if with_origin else 0
        self.handshakes[side][result] += 1
        self.handshake_durations[side].observe(seconds)

    def lookup(self, found: bool) -> None:
        """A name was looked up, and has addresses or none."""
        self.lookups[1 if found else 0] += 1

    def reload(self, worked: bool, now: float) -> None:
        """The configuration was read again at `now` (seconds since the epoch); it is obeyed if that worked."""
        self.reloads[1 if worked else 0] += 1
        self.reload_worked = worked
        if worked:
            self.reloaded_at = now

    def late(self, seconds: float) -> None:
        """The reactor was late by so much."""
        self.last_lag = seconds
        self.lag.observe(seconds)


class Levels(NamedTuple):
    """How things stand at one moment. Bytes and numbers of things; `authority_ends` in seconds since the epoch, None
    where there is no CA."""

    clients: int = 0
    exchanges: int = 0
    tunnels: int = 0
    websockets: int = 0
    idle_origins: int = 0
    lookups: int = 0
    accept_pauses: int = 0
    accept_paused: bool = False
    held: int = 0
    held_limit: int = 0
    holds_refused: int = 0
    certificates: int = 0
    leaves: int = 0
    authority_ends: float | None = None
    rules: int = 0
    scripts_failed: int = 0
