"""The forms of a stream function, as filters: whatever a user writes to change a body piece by piece.

A generator function over chunks and an async one are in `over_chunks`. Here are those that are called for each piece,
and what tells one form from another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from streamproxy.filters.chain import Filter, Pause, Piece
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.loop import ScriptLoop
from streamproxy.scripts.over_chunks import OverAsyncChunks, OverChunks
from streamproxy.scripts.pieces import END, MOST_EMPTY, Pieces

# What an async generator that answers for one event or line may give.
MOST_ITEMS = 10_000


def stream_filter(function: object, name: str, calls: Calls, loop: ScriptLoop, flow: object = None) -> Filter:
    """The filter for one body that `function` describes; `name` is what it is called in errors and on the log.

    It may be

    - a generator function over chunks (an iterator of bytes). When it returns, the body ends there: the rest of what
      comes goes nowhere. One whose parameter is annotated `bytes` is taken for the third form.
    - an async generator function over an async iterator of chunks.
    - a function of bytes, plain or async, called for each piece and with b"" at the end.
    - a class with `feed(chunk)` and, where it needs them, `finish()` and `abort(reason)`. It is called for each body,
      with `flow` if it takes that; an object is taken as it is. Its methods may be async.

    What they give are bytes (also bytearray or memoryview), None for nothing yet, or, from the last two forms, an
    iterable of these, which is taken from as there is room. Raises `ScriptError` if `function` is none of them.
    """
    if isinstance(function, type):
        if not callable(getattr(function, "feed", None)):
            raise ScriptError(name, "is a class without feed(chunk)")
        return _Fed(functools.partial(_made, function, flow), name, calls, loop)
    if callable(getattr(function, "feed", None)):
        return _Fed(lambda: function, name, calls, loop)
    if not callable(function):
        raise ScriptError(
            name, f"is {_kind(function)}: expected a function over chunks or of bytes, or a class with feed"
        )
    called = _called(function)
    if inspect.isasyncgenfunction(called):
        return OverAsyncChunks(function, name, calls, loop)
    if inspect.isgeneratorfunction(called) and not _takes_bytes(function):
        return OverChunks(function, name, calls)
    return _Called(function, name, calls, loop)


def asker(function: object, name: str, calls: Calls, loop: ScriptLoop, flow: object = None) -> Asker:
    """What asks `function` about one event or line at a time. Raises `ScriptError` if it can't be called."""
    if not callable(function):
        raise ScriptError(name, f"is {_kind(function)}: expected a function")
    return Asker(function, name, calls, loop, flow)


class Asker:
    """Asks a user's function about an item, and about the flow if it takes two.

    Gives what the function gives; for a coroutine a `Pause`, whose result is what that returned; and for an async
    generator one whose result is the list of what it gave, at most 10,000. Raises `ScriptError`.
    """

    __slots__ = ("_calls", "_flow", "_function", "_loop", "_name", "_pause", "_takes_flow")

    def __init__(
        self, function: Callable[..., object], name: str, calls: Calls, loop: ScriptLoop, flow: object
    ) -> None:
        self._function = function
        self._name = name
        self._calls = calls
        self._loop = loop
        self._flow = flow
        self._takes_flow = _takes_flow(function, 1)
        self._pause: Pause | None = None

    def __call__(self, item: object) -> object:
        if self._takes_flow:
            result = self._calls.run(self._name, self._function, item, self._flow)
        else:
            result = self._calls.run(self._name, self._function, item)
        if type(result) in (bytes, str, list, dict):
            return result
        if isinstance(result, AsyncIterator):
            result = _all_of(result)
        if isinstance(result, Awaitable):
            self._pause = self._loop.start(result, self._name)
            return self._pause
        if isinstance(result, Iterator):
            return self._steps(result)
        return result

    def cancel(self) -> None:
        """The body was given up: so is the answer that is waited for."""
        if self._pause is not None:
            self._loop.cancel(self._pause)

    def _steps(self, iterator: Iterator[object]) -> Iterator[object]:
        empty = 0
        while (item := self._calls.run(self._name, next, iterator, END)) is not END:
            # Each step is a call of its own, so that a watch over calls sees no end of them.
            empty = empty + 1 if type(item) in (bytes, str) and not item else 0
            if empty > MOST_EMPTY:
                raise ScriptError(self._name, f"gave nothing {MOST_EMPTY:,} times in a row")
            yield item


class _Called(Pieces):
    """A function of bytes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object], name: str, calls: Calls, loop: ScriptLoop) -> None:
        super().__init__(name, calls, loop)
        self._function = function

    def feed(self, data: bytes) -> Iterator[Piece]:
        return self._asked(self._name, self._function, data) if data else iter(())

    def finish(self) -> Iterator[Piece]:
        yield from self._asked(self._name, self._function, b"")
        self._over = True


class _Fed(Pieces):
    """An object with `feed`, made when the body begins."""

    __slots__ = ("_abort", "_feed", "_finish", "_make", "_object")

    def __init__(self, make: Callable[[], object], name: str, calls: Calls, loop: ScriptLoop) -> None:
        super().__init__(name, calls, loop)
        self._make = make
        self._object: Any = None
        self._feed: Any = None
        self._finish: Any = None
        self._abort: Any = None

    def feed(self, data: bytes) -> Iterator[Piece]:
        if data and self._begin():
            yield from self._asked(f"{self._name}.feed", self._feed, data)

    def finish(self) -> Iterator[Piece]:
        if self._begin():
            if self._finish is not None:
                yield from self._asked(f"{self._name}.finish", self._finish)
            self._over = True

    def _begin(self) -> bool:
        """Make the object, if there is none yet; whether there is anything to do."""
        if self._object is None and not self._over:
            try:
                made: Any = self._inside(self._name, self._make)
                # Looking them up may be code of the user's as well.
                self._feed, self._finish, self._abort = self._inside(self._name, _methods, made)
                self._object = made
            except ScriptError:
                self._over = True
                raise
        return not self._over

    def _give_up(self, why: str) -> None:
        super()._give_up(why)
        if self._abort is not None:
            self._calls.run(f"{self._name}.abort", self._abort, why)


def _methods(thing: Any) -> tuple[Any, Any, Any]:
    return thing.feed, getattr(thing, "finish", None), getattr(thing, "abort", None)


def _made(made: Callable[..., object], flow: object) -> object:
    return made(flow) if _takes_flow(made, 0) else made()


async def _all_of(items: AsyncIterator[object]) -> list[object]:
    given: list[object] = []
    async for item in items:
        if len(given) == MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS} items were given for one")
        given.append(item)
    return given


def _called(function: Callable[..., object]) -> Callable[..., object]:
    """What is really called, of which inspect can tell what it is."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(function, "__call__", function)  # noqa: B004


def _takes_bytes(function: Callable[..., object]) -> bool:
    """Whether the first parameter is annotated as bytes: one piece, not all of them."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    return bool(parameters) and parameters[0].annotation in (bytes, "bytes")


def _takes_flow(function: Callable[..., object], before: int) -> bool:
    """Whether a function takes the flow behind `before` other arguments: it needs that many, or names it."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(positional) <= before:
        return False
    parameter = positional[before]
    return parameter.default is parameter.empty or parameter.name == "flow"


def _kind(thing: object) -> str:
    return "None" if thing is None else f"of the type {type(thing).__name__}"
