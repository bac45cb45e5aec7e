"""What rules want done to one message, gathered as data: edits of its fields, and work on its body.

Nothing here touches a body: stages are made of this by `proxy/stages.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamproxy.rules.verdict import NO_WORK, BodyWork, Capture, Fault, HeaderEdits, Pace, Replacement, UserFunction

if TYPE_CHECKING:
    from streamproxy.rules.rule import Part


class Wanted:
    """What the rules that apply to one message want of it, gathered in their order."""

    __slots__ = ("_capture", "_fault", "_functions", "_hold_time", "_pace", "_replacements", "edits", "names", "says")

    def __init__(self) -> None:
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
        if has_body:
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
