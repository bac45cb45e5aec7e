"""Makes of what rules and scripts want done to a body the stages that do it, in their order.

What came in is recorded as it came. Content codings are undone; replacements are one pass, whatever rules they come
from; then come functions, in the order of the rules, and a script's own. The codings are put back, and what goes out is
recorded as it goes. What each stage does is told in `filters`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.filters.chain import Chain, Filter, Pause, Piece
from streamproxy.filters.coding import Bounds, Decoded, Encoded, readable
from streamproxy.filters.events import Events
from streamproxy.filters.fault import EventFault, Fault
from streamproxy.filters.finders import Pattern
from streamproxy.filters.frame_fault import FrameFault
from streamproxy.filters.lines import Lines
from streamproxy.filters.patterns import compile_regex
from streamproxy.filters.replace import Replace, literal, regex
from streamproxy.filters.tap import Tap
from streamproxy.flow import Flow
from streamproxy.proxy.alongside import Alongside
from streamproxy.proxy.captures import Captures
from streamproxy.rules import verdict
from streamproxy.rules.verdict import NO_WORK, BodyWork, How, Replacement, UserFunction, Way
from streamproxy.scripts.forms import asker, stream_filter
from streamproxy.stream.body import Stages
from streamproxy.wire.headers import Headers

if TYPE_CHECKING:
    from streamproxy.scripts.calls import Calls
    from streamproxy.scripts.http import HTTPFlow
    from streamproxy.scripts.loop import ScriptLoop
    from streamproxy.settings import Settings

# What a coding may make of the first bytes before its ratio counts.
LEAST_DECODED = 4 << 20
# More bytes than any body has.
NEVER = 1 << 62


class StageFactory:
    """Makes the stages of bodies by one reading of the settings.

    `calls` and `loop` run the functions of users.
    """

    def __init__(
        self, settings: Settings, clock: IReactorTime, captures: Captures, calls: Calls, loop: ScriptLoop
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._captures = captures
        self._calls = calls
        self._loop = loop
        limits = settings.limits
        self._bounds = Bounds(limits.decoded_ratio, LEAST_DECODED, limits.decoded_body)
        self._draws: dict[verdict.Fault, Draw] = {}

    def make(
        self,
        work: BodyWork,
        came: Headers,
        goes: Headers,
        flow: Flow,
        message: str,
        script_flow: HTTPFlow | None,
        own: tuple[object, str] | None,
        way: Way,
    ) -> Stages | None:
        """The stages of one body of `flow`; None where nothing is done to it.

        `came` are the fields of its head as it came, which tell how the body is coded, whatever rules and scripts have
        made of them; `goes` those that it goes on with, which tell how it is to be coded.
        `message` is "request" or "response", `way` how the body goes, `own` a script's stream function for this very
        body, and its name.
        """
        if work is NO_WORK and own is None:
            return None
        stages = Stages()
        fault = work.fault if work.fault is not None and self._strikes(work.fault) else None
        if fault is not None:
            why = f"the {fault.action} of rule {fault.rule!r}"
            stages.fault = struck = Fault(fault.after, fault.unit, fault.action, why)
        if work.changes or own is not None:
            codings = codings_of(came)
            decoded = Decoded(codings, self._bounds) if codings else None
            filters: list[Filter] = [] if decoded is None else [decoded]
            if work.replacements:
                patterns = patterns_of(work.replacements, self._settings.timeouts.regex)
                replace = Replace(patterns, time.monotonic)
                filters.append(replace)
            first_behind = len(filters)
            filters += [self._function(function, script_flow) for function in work.functions]
            if own is not None:
                filters.append(stream_filter(own[0], own[1], self._calls, self._loop, script_flow))
            if fault is not None and fault.unit == "events" and codings:
                # Its events can be told here, and only here.
                stages.fault = struck = Fault(NEVER, "bytes", fault.action, why)
                filters.append(EventFault(fault.after, fault.action, why, struck))
            wanted = codings_of(goes)
            if readable(wanted) is not None:
                wanted = codings
            if wanted:
                # Nobody waits for the pieces of a body that is held to its end.
                filters.append(Encoded(wanted, decoded, way.how is not How.HELD or way.let_go is not None))
            stages.chain = Chain(filters)
            if work.hold_time is not None and work.replacements:
                stages.hold = Hold(self._clock, stages.chain, replace, first_behind, work.hold_time)
        if work.capture is not None:
            limit = self._settings.limits.capture if work.capture.limit is None else work.capture.limit
            stages.received, stages.sent = self._captures.taps(limit, work.capture.in_files, flow, message)
            if fault is not None:
                struck.sent = stages.sent
        return stages

    def alongside(self, work: BodyWork, flow: Flow, message: str) -> Alongside | None:
        """What is done to the bytes of a WebSocket of `flow`, in the direction of `message`; None for nothing."""
        fault: FrameFault | None = None
        received: Tap | None = None
        sent: Tap | None = None
        asked = work.fault
        if asked is not None and self._strikes(asked):
            why = f"the {asked.action} of rule {asked.rule!r}"
            fault = FrameFault(asked.after, asked.unit, asked.action, why, message == "request")
        if work.capture is not None:
            limit = self._settings.limits.capture if work.capture.limit is None else work.capture.limit
            received, sent = self._captures.taps(limit, work.capture.in_files, flow, message)
        return None if fault is None and received is None else Alongside(received, sent, fault)

    def _function(self, function: UserFunction, flow: HTTPFlow | None) -> Filter:
        found, name = self._settings.functions[function.name]
        if function.kind == "transform":
            return stream_filter(found, name, self._calls, self._loop, flow)
        ask = asker(found, name, self._calls, self._loop, flow)
        kind = Events if function.kind == "events" else Lines
        return kind(ask, self._settings.limits.event)

    def _strikes(self, fault: verdict.Fault) -> bool:
        draw = self._draws.get(fault)
        if draw is None:
            draw = self._draws[fault] = Draw(fault)
        return draw.strikes()


class Draw:
    """Decides which of the bodies that a fault is meant for it strikes; the same ones for the same seed."""

    def __init__(self, fault: verdict.Fault) -> None:
        self._every = fault.every
        self._probability = fault.probability
        self._random = random.Random(fault.seed)
        self._seen = 0

    def strikes(self) -> bool:
        """Whether it strikes the next one."""
        self._seen += 1
        return self._seen % self._every == 0 and self._random.random() < self._probability


class Hold:
    """Lets go of what a replacement keeps back, when that has been kept for `seconds`."""

    def __init__(self, clock: IReactorTime, chain: Chain, replace: Replace, behind: int, seconds: float) -> None:
        self._clock = clock
        self._chain = chain
        self._replace = replace
        self._behind = behind
        self._seconds = seconds
        self._later: IDelayedCall | None = None
        # How much had been decided when the clock was set.
        self._decided = -1

    def watch(self, release: Callable[[Iterator[bytes | Pause]], None]) -> None:
        """Some of the body has gone through the chain; `release` is given what is let go."""
        if not self._replace.held:
            self.stop()
        elif self._later is None or self._replace.decided != self._decided:
            self.stop()
            self._decided = self._replace.decided
            self._later = self._clock.callLater(self._seconds, self._let_go, release)

    def stop(self) -> None:
        """Nothing is to be let go any more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _let_go(self, release: Callable[[Iterator[bytes | Pause]], None]) -> None:
        self._later = None
        release(self._released(self._decided))

    def _released(self, decided: int) -> Iterator[Piece]:
        # What was kept when the time was set may have been decided since, by what stood before this in the queue.
        data = self._replace.release() if self._replace.decided == decided else b""
        if data:
            yield from self._chain.through(self._behind, data)


def codings_of(headers: Headers) -> list[bytes]:
    """The content codings of a body, in the order in which they were applied."""
    return [token for token in headers.tokens(b"content-encoding") if token != b"identity"]


@lru_cache(maxsize=1024)
def patterns_of(replacements: tuple[Replacement, ...], seconds: float) -> tuple[Pattern, ...]:
    """What is searched for, made ready once for all bodies."""
    made: list[Pattern] = []
    for each in replacements:
        if each.regex is None:
            made.append(literal(each.find, each.put, each.hold_back, each.release, each.rule))
        else:
            compiled = compile_regex(each.regex)
            made.append(regex(compiled, each.put.decode(), each.hold_back, each.release, each.rule, seconds))
    return tuple(made)
