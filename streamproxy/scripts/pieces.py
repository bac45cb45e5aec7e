"""What all forms of a stream function share: what they give is made pieces of, and errors end them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import TypeVar, TypeVarTuple, final

from streamproxy.filters.chain import Pause, Piece
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.loop import ScriptLoop

# A function may give so many empty pieces, one behind the other: nobody else gets a turn meanwhile.
MOST_EMPTY = 10_000


@final
class End:
    """The end of an iterator, which no iterator gives."""


END = End()

Taken = TypeVarTuple("Taken")
Given = TypeVar("Given")


class Giver:
    """Turns what a user's function gives into pieces; `name` is the function's."""

    __slots__ = ("_busy", "_calls", "_empty", "_gave_up", "_name", "_over")

    def __init__(self, name: str, calls: Calls) -> None:
        self._name = name
        self._calls = calls
        # Whether nothing more comes of it: it has ended, failed, or been given up.
        self._over = False
        self._empty = 0
        # Whether the user's code runs just now, and why the body was given up meanwhile.
        self._busy = False
        self._gave_up: str | None = None

    def abort(self, why: str) -> None:
        """The body was given up. What the user does then may fail, which is logged; it makes no difference."""
        if self._over:
            return
        self._over = True
        if self._busy:
            self._gave_up = why
            return
        with contextlib.suppress(ScriptError):
            self._give_up(why)

    def _give_up(self, why: str) -> None:
        """Tell the user's code that the body was given up; it isn't running."""
        raise NotImplementedError

    def _inside(self, name: str, function: Callable[[*Taken], Given], *args: *Taken) -> Given:
        """Call the user's code. If the body is given up in that call, it is told so behind it."""
        self._busy = True
        try:
            return self._calls.run(name, function, *args)
        finally:
            self._busy = False
            why, self._gave_up = self._gave_up, None
            if why is not None:
                with contextlib.suppress(ScriptError):
                    self._give_up(why)

    def _piece(self, given: object) -> bytes:
        """What was given as bytes, b"" if that is nothing; `ScriptError` if it is anything else."""
        if type(given) is bytes:
            piece = given
        elif given is None:
            piece = b""
        elif isinstance(given, (bytes, bytearray, memoryview)):
            # By way of a memoryview, for a subclass may have ideas of its own about what its bytes are.
            piece = bytes(memoryview(given))
        else:
            self._over = True
            raise ScriptError(self._name, f"gave a value of the type {type(given).__name__}: expected bytes")
        if piece:
            self._empty = 0
        else:
            self._empty += 1
            if self._empty > MOST_EMPTY:
                self._over = True
                raise ScriptError(self._name, f"gave {MOST_EMPTY} empty pieces, one behind the other")
        return piece


class Pieces(Giver):
    """What a function gives that is called for each piece: bytes, an iterable of them, or something to await."""

    __slots__ = ("_iterator", "_loop", "_pause")

    def __init__(self, name: str, calls: Calls, loop: ScriptLoop) -> None:
        super().__init__(name, calls)
        self._loop = loop
        self._pause: Pause | None = None
        self._iterator: Iterator[object] | None = None

    def _give_up(self, why: str) -> None:
        if self._pause is not None:
            self._loop.cancel(self._pause)
        if isinstance(self._iterator, Generator):
            self._calls.run(self._name, self._iterator.close)

    def _asked(self, name: str, function: Callable[[*Taken], object], *args: *Taken) -> Iterator[Piece]:
        """Call the user's function, and give as pieces what it gives."""
        if self._over:
            return
        self._empty = 0
        try:
            given = self._inside(name, function, *args)
            if type(given) is bytes:
                if given and not self._over:
                    yield given
                return
            if isinstance(given, Awaitable):
                pause = self._pause = self._loop.start(given, name)
                if self._over:
                    self._loop.cancel(pause)
                    return
                if not pause.over:
                    yield pause
                self._pause = None
                if self._over:
                    return
                given = pause.result()
            if given is None or isinstance(given, (bytes, bytearray, memoryview)):
                piece = self._piece(given)
                if piece and not self._over:
                    yield piece
                return
            yield from self._all_of(name, given)
        except ScriptError:
            self._over = True
            raise

    def _all_of(self, name: str, given: object) -> Iterator[Piece]:
        """The pieces of an iterable, each when it is asked for."""
        if isinstance(given, AsyncIterator):
            raise ScriptError(name, "gave an async generator: write it over chunks, `async for chunk in chunks`")
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ScriptError(name, f"gave a value of the type {type(given).__name__}: expected bytes")
        iterator = self._iterator = self._inside(name, iter, given)
        while not self._over:
            item = self._inside(name, next, iterator, END)
            if item is END:
                break
            piece = self._piece(item)
            if piece and not self._over:
                yield piece
        self._iterator = None
