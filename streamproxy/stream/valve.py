"""A source's pause switch.

Whoever can't take more closes the valve with a reason of its own and opens it with the same. The first reason in
pauses the source and the last one out resumes it, so nobody can resume what somebody else still needs paused. Reasons
are counted when they come and when they go: there are few of them, whatever the traffic.
"""

from __future__ import annotations

from typing import Protocol

from streamproxy.counts import PASSING


class Pausable(Protocol):
    """What a valve shuts: a transport, or anything else that produces."""

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


class Valve:
    """The pause switch of one source, with the named reasons for which it is shut."""

    __slots__ = ("_ended", "_source", "reasons")

    def __init__(self, source: Pausable) -> None:
        self._source = source
        self._ended = False
        self.reasons: set[str] = set()

    def close(self, reason: str) -> None:
        """Keep the source paused until `open` is called with the same reason."""
        if not self._ended and reason not in self.reasons:
            paused = PASSING.paused
            paused[reason] = paused.get(reason, 0) + 1
        if not self.reasons and not self._ended:
            self._source.pauseProducing()
        self.reasons.add(reason)

    def open(self, reason: str) -> None:
        """Take `reason` back; resumes the source if it was the last one. No harm where it wasn't given."""
        if reason in self.reasons:
            self.reasons.remove(reason)
            if not self._ended:
                self._taken_back(reason)
                if not self.reasons:
                    self._source.resumeProducing()

    def _taken_back(self, reason: str) -> None:
        resumed = PASSING.resumed
        resumed[reason] = resumed.get(reason, 0) + 1

    def end(self) -> None:
        """The source is dry: leave it alone from now on.

        A transport whose peer has half-closed would read that end again each time it was resumed.
        """
        if not self._ended:
            self._ended = True
            for reason in self.reasons:
                self._taken_back(reason)

    @property
    def closed(self) -> bool:
        return bool(self.reasons)

    def __repr__(self) -> str:
        if self._ended:
            return "<Valve ended>"
        return f"<Valve closed: {', '.join(sorted(self.reasons))}>" if self.reasons else "<Valve open>"
