"""Stream functions that are written as one loop over all of a body's chunks.

A plain generator runs in a greenlet: `next(chunks)` inside it, wherever that is, goes back to the filter until the next
piece is there. (A generator by itself could suspend only where it yields.) An async generator runs as a coroutine.

Both are begun with the first piece, or the end, and run only as far as is asked for. When they return, the body ends
there in order: what else comes in goes nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any, cast

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from streamproxy.filters.chain import Pause, Piece
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.loop import ScriptLoop
from streamproxy.scripts.pieces import END, Giver


class _Wants:
    """Given by a greenlet that has read all there is."""


_WANTS = _Wants()


class Chunks:
    """The body, for a generator: an iterator of bytes. It can be read by that generator alone."""

    __slots__ = ("_reader", "ended", "given_up", "pending")

    def __init__(self) -> None:
        self.pending: bytes | None = None
        self.ended = False
        self.given_up = False
        # Not the greenlet itself, which has this on its stack: such a cycle would never be collected.
        self._reader: Callable[[], Any] = lambda: None

    def read_by(self, reader: greenlet) -> None:
        self._reader = weakref.ref(reader)

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        while self.pending is None:
            if self.given_up:
                raise GeneratorExit
            if self.ended:
                raise StopIteration
            if self._reader() is not getcurrent():
                raise RuntimeError("chunks can be read only by the stream function that they were given to")
            _give(_WANTS)
        chunk, self.pending = self.pending, None
        return chunk


def _give(item: object) -> None:
    """In a greenlet: go back to who asked, with an item. Keeps nothing on the stack that would keep the greenlet."""
    parent: Any = cast(Any, getcurrent()).parent
    parent.switch(item)


def _run(function: Callable[..., object], chunks: Chunks) -> object:
    """What the greenlet does: give the generator's items to who asks for them, one each time."""
    generator = function(chunks)
    assert isinstance(generator, Generator)
    try:
        for item in generator:
            if not chunks.given_up:
                _give(item)
            if chunks.given_up:
                generator.close()
                break
    except GeneratorExit:
        if not chunks.given_up:
            raise
    return END


class OverChunks(Giver):
    """A filter made of a generator function over chunks."""

    __slots__ = ("_chunks", "_greenlet")

    def __init__(self, function: Callable[..., object], name: str, calls: Calls) -> None:
        super().__init__(name, calls)
        self._chunks = Chunks()
        self._greenlet: greenlet | None = greenlet(functools.partial(_run, function, self._chunks))
        self._chunks.read_by(self._greenlet)

    def feed(self, data: bytes) -> Iterator[Piece]:
        if self._over or not data:
            return
        self._chunks.pending = data
        self._empty = 0
        yield from self._steps()

    def finish(self) -> Iterator[Piece]:
        self._chunks.ended = True
        yield from self._steps()

    def _steps(self) -> Iterator[Piece]:
        running = self._greenlet
        while not self._over and running is not None:
            # Whoever asks is whom it comes back to.
            running.parent = getcurrent()
            try:
                item = self._inside(self._name, running.switch)
            except ScriptError:
                self._end()
                raise
            if running.dead:
                self._end()
            elif item is _WANTS:
                return
            elif not self._over:
                try:
                    piece = self._piece(item)
                except ScriptError:
                    with contextlib.suppress(ScriptError):
                        self._give_up("")
                    raise
                if piece:
                    yield piece

    def _end(self) -> None:
        self._over = True
        self._greenlet = None
        self._chunks.pending = None

    def _give_up(self, why: str) -> None:
        running, self._greenlet = self._greenlet, None
        self._chunks.pending = None
        self._chunks.given_up = True
        if running is not None and running:
            # It began: GeneratorExit is raised where it stands, so that its `finally` is run.
            running.parent = getcurrent()
            self._calls.run(self._name, running.switch)


class AsyncChunks:
    """The body, for an async generator."""

    __slots__ = ("_loop", "_tell", "ended", "pending", "wanted")

    def __init__(self, loop: ScriptLoop, tell: Callable[[], None]) -> None:
        self._loop = loop
        self._tell = tell
        self.pending: bytes | None = None
        self.ended = False
        # What is waited on for the next chunk, if that is waited for.
        self.wanted: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncChunks:
        return self

    async def __anext__(self) -> bytes:
        if self.wanted is not None:
            raise RuntimeError("another coroutine waits for the next chunk already")
        while self.pending is None:
            if self.ended:
                raise StopAsyncIteration
            self.wanted = self._loop.loop.create_future()
            self._tell()
            try:
                await self.wanted
            finally:
                self.wanted = None
        chunk, self.pending = self.pending, None
        return chunk


class OverAsyncChunks(Giver):
    """A filter made of an async generator function over chunks."""

    __slots__ = ("_chunks", "_function", "_given", "_item", "_loop", "_pause", "_taken", "_task")

    def __init__(self, function: Callable[..., object], name: str, calls: Calls, loop: ScriptLoop) -> None:
        super().__init__(name, calls)
        self._function = function
        self._loop = loop
        self._chunks = AsyncChunks(loop, self._tell)
        self._given = False
        self._item: object = None
        # What the generator waits on until the item that it gave is asked for.
        self._taken: asyncio.Future[None] | None = None
        # Over when the coroutine has ended; and what the filter waits for meanwhile.
        self._task: Pause | None = None
        self._pause: Pause | None = None

    def feed(self, data: bytes) -> Iterator[Piece]:
        if self._over or not data:
            return
        self._chunks.pending = data
        self._empty = 0
        yield from self._steps()

    def finish(self) -> Iterator[Piece]:
        self._chunks.ended = True
        yield from self._steps()

    def _steps(self) -> Iterator[Piece]:
        if self._over:
            return
        chunks = self._chunks
        if self._task is None:
            self._task = self._loop.start(self._drive(), self._name)
        elif chunks.wanted is not None:
            self._wake(chunks.wanted)
        while not self._over:
            if self._given:
                self._given = False
                item, self._item = self._item, None
                try:
                    piece = self._piece(item)
                except ScriptError:
                    self._give_up("")
                    raise
                if piece:
                    yield piece
                if self._taken is not None and not self._over:
                    self._wake(self._taken)
            elif self._task.over:
                self._over = True
                self._task.result()
            elif chunks.wanted is not None and not chunks.wanted.done():
                return
            else:
                pause = self._pause = Pause(f"{self._name} awaits")
                self._task.then(self._tell)
                yield pause

    def _wake(self, waiting: asyncio.Future[None]) -> None:
        if not waiting.done():
            waiting.set_result(None)
        self._loop.advance()

    def _tell(self) -> None:
        """There is something for the filter to look at."""
        pause, self._pause = self._pause, None
        if pause is not None:
            self._loop.settle(pause)

    async def _drive(self) -> None:
        generator = self._function(self._chunks)
        assert isinstance(generator, AsyncGenerator)
        try:
            async for item in generator:
                self._item = item
                self._given = True
                self._taken = self._loop.loop.create_future()
                self._tell()
                await self._taken
                self._taken = None
        finally:
            await generator.aclose()

    def _give_up(self, why: str) -> None:
        self._chunks.pending = None
        if self._task is not None:
            self._loop.cancel(self._task)
            self._loop.advance()
