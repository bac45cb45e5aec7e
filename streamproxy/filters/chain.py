"""The filters of one body in one direction, in order.

A filter takes bytes and gives bytes; it knows nothing of pressure, of transports or of who reads. What it gives is an
iterable, and whoever takes from it does so as there is room: so a filter that makes much of little holds the little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

# Filters that make much of little make pieces of about this size, each when it is asked for.
PIECE = 65536


class FilterError(Exception):
    """A body can't be taken further: a filter says in words why."""


class Pause:
    """Given by a filter in place of bytes: there is no more until this is over. `why` is for people.

    It is settled once, with a value or with an exception, which `result` gives or raises to who asked for it.
    """

    __slots__ = ("_go_on", "_result", "error", "over", "why")

    def __init__(self, why: str) -> None:
        self.why = why
        self.over = False
        self._result: object = None
        self.error: BaseException | None = None
        self._go_on: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Pause: {self.why}{', over' if self.over else ''}>"

    def then(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when this is over; at once, if it is already. Of several calls the last one counts."""
        if self.over:
            go_on()
        else:
            self._go_on = go_on

    def settle(self, result: object = None) -> None:
        """It is over, and came to `result`. Does nothing the second time."""
        self._end(result, None)

    def fail(self, error: BaseException) -> None:
        """It is over, and came to an exception."""
        self._end(None, error)

    def result(self) -> object:
        """What it was settled with; raises what it failed with."""
        if self.error is not None:
            raise self.error
        return self._result

    def _end(self, result: object, error: BaseException | None) -> None:
        if self.over:
            return
        self.over = True
        self._result, self.error = result, error
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on()


Piece = bytes | Pause


class Filter(Protocol):
    """One stage of a body's way. It may keep bytes back, within a limit of its own, until it has more.

    What `feed` and `finish` give is taken to its end before either is called again, unless the body is given up;
    it may be taken later than the call. A piece may be empty: it means nothing, but that a turn may end here, and is
    given where much is done for little.
    """

    def feed(self, data: bytes) -> Iterable[Piece]:
        """Take the body's next bytes (some); give what can be sent on now, which may be nothing yet."""

    def finish(self) -> Iterable[Piece]:
        """The body has ended: give what was kept back. Called once, and `feed` never again."""

    def abort(self, why: str) -> None:
        """The body was given up, and nothing more will be asked for. May come at any time, also after the end."""


class Chain:
    """Filters one behind the other; itself a filter."""

    __slots__ = ("_filters", "_keeping", "_last")

    def __init__(self, filters: Iterable[Filter] = ()) -> None:
        self._filters = tuple(filters)
        self._last = len(self._filters) - 1
        # Those that tell how much they keep back; what the others do has a small bound of its own.
        self._keeping: list[Any] = [stage for stage in self._filters if hasattr(stage, "kept_back")]

    def __bool__(self) -> bool:
        """Whether there is any filter: an empty chain changes nothing."""
        return bool(self._filters)

    @property
    def kept_back(self) -> int:
        """How many bytes are kept back."""
        kept = 0
        for stage in self._keeping:
            kept += stage.kept_back
        return kept

    def __repr__(self) -> str:
        return f"Chain({list(self._filters)!r})"

    def feed(self, data: bytes) -> Iterable[Piece]:
        if self._last == 0:
            return self._filters[0].feed(data)
        return self.through(0, data)

    def through(self, first: int, data: bytes) -> Iterator[Piece]:
        """What the filters from the one numbered `first` on make of `data`."""
        if first > self._last:
            yield data
            return
        for piece in self._filters[first].feed(data):
            if first < self._last and type(piece) is bytes and piece:
                yield from self.through(first + 1, piece)
            else:
                yield piece

    def finish(self) -> Iterator[Piece]:
        for number, stage in enumerate(self._filters):
            for piece in stage.finish():
                if type(piece) is bytes and piece:
                    yield from self.through(number + 1, piece)
                else:
                    yield piece

    def abort(self, why: str) -> None:
        for stage in self._filters:
            stage.abort(why)
