"""What rules want done to one message, gathered as data: edits of its fields, and work on its body; and what they want
done to the messages of a WebSocket.

Nothing here touches a body: stages are made of this by `proxy/stages.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamproxy.rules.verdict import (
    NO_WORK,
    BodyWork,
    Capture,
    Fault,
    HeaderEdits,
    MessageRule,
    MessageWork,
    Pace,
    Replacement,
    UserFunction,
)
from streamproxy.wire.headers import Headers

if TYPE_CHECKING:
    from streamproxy.rules.rule import Part, Rule


class Wanted:
    """What the rules that apply to one message want of it, gathered in their order."""

    __slots__ = (
        "_capture",
        "_fault",
        "_flows",
        "_functions",
        "_hold_time",
        "_pace",
        "_replacements",
        "edits",
        "names",
        "says",
    )

    def __init__(self, flows: bool = False) -> None:
        # What follows isn't a body, but bytes all the same: a WebSocket.
        self._flows = flows
        self.names: list[str] = []
        self.edits: list[HeaderEdits] = []
        self.says: tuple[bool, str] | None = None
        self._replacements: list[Replacement] = []
        self._functions: list[UserFunction] = []
        self._hold_time: float | None = None
        self._pace: Pace | None = None
        self._fault: Fault | None = None
        self._capture: Capture | None = None

    def take(self, part: Part, has_body: bool, may_change: bool) -> bool:
        """Add what one rule's `part` wants; whether that was anything.

        Replacements and functions add up. Of all else the first word counts; of times to hold, the shortest.
        """
        does_something: bool = part.changes_fields
        if part.changes_fields:
            self.edits.append(part.edits)
        if part.says and self.says is None and has_body:
            self.says = part.says
            does_something = True
        work = part.work
        if work is NO_WORK:
            return does_something
        if work.changes and may_change:
            self._replacements += work.replacements
            self._functions += work.functions
            if work.hold_time is not None and (self._hold_time is None or work.hold_time < self._hold_time):
                self._hold_time = work.hold_time
            does_something = True
        if work.pace is not None and self._pace is None:
            self._pace = work.pace
            does_something = True
        if has_body or self._flows:
            if work.fault is not None and self._fault is None:
                self._fault = work.fault
                does_something = True
            if work.capture is not None and self._capture is None:
                self._capture = work.capture
                does_something = True
        return does_something

    def work(self, coded: bool) -> BodyWork:
        """What is to be done to the body; `coded`: it has a content coding, which is undone for who reads it."""
        if not (self._replacements or self._functions or self._pace or self._fault or self._capture):
            return NO_WORK
        return BodyWork(
            tuple(self._replacements),
            tuple(self._functions),
            self._hold_time,
            self._pace,
            self._fault,
            self._capture,
            bool(self._replacements or self._functions)
            or (coded and self._fault is not None and self._fault.unit == "events"),
        )


class WantedOfWebSocket:
    """What the rules that apply to a request for a WebSocket want of it, gathered in their order."""

    __slots__ = ("_rules", "_says")

    def __init__(self) -> None:
        self._rules: list[MessageRule] = []
        self._says: tuple[bool, str] | None = None

    def take(self, rule: Rule) -> bool:
        """Add what a rule wants; whether that was anything. The first word on streaming counts."""
        part = rule.websocket
        if part.is_idle:
            return False
        before = len(self._rules)
        self._rules += part.messages
        self._rules += part.sent
        if rule.holds_on:
            self._rules += part.received
        does_something: bool = len(self._rules) > before
        if part.says and self._says is None:
            self._says = part.says
            does_something = True
        return does_something

    def work(self, otherwise: MessageWork) -> MessageWork:
        """What that comes to; `otherwise`: how a WebSocket goes that no rule speaks of."""
        if self._says is not None:
            streams, why = self._says
            return MessageWork(streams, why, tuple(self._rules))
        return otherwise.adding(tuple(self._rules))


class LateForWebSocket(NamedTuple):
    """What a 101 adds to what the rules want of a WebSocket; `refused` is as in `ResponseVerdict`."""

    rules: tuple[MessageRule, ...]
    refused: str | None


def late_for_websocket(
    matched: tuple[Rule, ...], decided: MessageWork, request: Headers, response: Headers
) -> LateForWebSocket:
    """What the head of a 101 adds to `decided`, what was wanted on the request's head.

    That is what rules want that hold for both heads together and didn't for the request's, and all that was left to be
    seen: the replacements of a response, by rules that its head could still keep from holding.
    """
    rules: list[MessageRule] = []
    refused: str | None = None
    has_been_said = False
    for rule in matched:
        part = rule.websocket
        if part.is_idle:
            continue
        held: bool = rule.heads_match(request)
        has_been_said = has_been_said or (held and part.says is not None)
        if (held and rule.holds_on) or not rule.heads_match(request, response):
            continue
        if not held:
            rules += part.messages
            if part.says is not None and not has_been_said:
                has_been_said = True
                streams: bool = part.says[0]
                if streams is not decided.streams:
                    refused = (
                        f"rule {rule.name!r} can't decide how a WebSocket goes: only the response's head tells that "
                        f"the rule applies"
                    )
        rules += part.received
    added = tuple(rules)
    if refused is None and added:
        refused = decided.adding(added).unreadable
    return LateForWebSocket(added, refused)
