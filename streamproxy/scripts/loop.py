"""Runs the coroutines of scripts, and tells the proxy when they have ended.

A coroutine is begun at once, and what becomes ready runs as soon as it can: one that has nothing to wait for costs no
turn of the reactor. Who waits for one waits for its `Pause`, and goes on when no script runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from streamproxy.filters.chain import Pause
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.reactor_loop import NAME, ReactorLoop, Watched

Taken = TypeVarTuple("Taken")
Given = TypeVar("Given")


class ScriptLoop:
    """Starts coroutines, on a loop of its own on `clock`, or on `loop`: that of Twisted's asyncio reactor.

    `calls` watches each of their steps. `from_threads` is the reactor, if threads may be used.
    """

    def __init__(
        self,
        clock: IReactorTime,
        calls: Calls,
        from_threads: IReactorFromThreads | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._calls = calls
        self._own: ReactorLoop | None = None
        if loop is None:
            # Its methods for sockets are there, but refuse, and aren't written out.
            loop = self._own = ReactorLoop(clock, calls, from_threads)  # type: ignore[abstract]
        self.loop = loop
        self._tasks: dict[Pause, asyncio.Task[object]] = {}

    def start(self, awaitable: Awaitable[object], name: str) -> Pause:
        """Run `awaitable` to its end; `name` is the function's that gave it. What comes back is over when that is, and
        has its result, or fails with a `ScriptError`.

        The first step is made before this returns, except on the asyncio reactor's loop and inside another coroutine.
        """
        pause = Pause(f"{name} awaits")
        coroutine = awaitable if isinstance(awaitable, Coroutine) else _await(awaitable)
        if self.loop.is_closed():
            coroutine.close()
            pause.fail(ScriptError(name, "can't be waited for: the proxy ends"))
            return pause
        where = copy_context()
        where.run(NAME.set, name)
        watched = Watched(coroutine, name, self._calls, self.loop)
        if self._own is not None:
            task = self._own.start_at_once(watched, where)
        else:
            task = self.loop.create_task(watched, context=where)
        if task.done():
            self._ended(pause, name, task)
        else:
            self._tasks[pause] = task
            # Not in a script's name: what goes on then is the proxy.
            task.add_done_callback(lambda task: self._later(self._ended, pause, name, task))
        return pause

    def cancel(self, pause: Pause) -> None:
        """Nobody waits for this any more: asyncio's CancelledError is raised where the coroutine waits."""
        task = self._tasks.get(pause)
        if task is not None:
            task.cancel()

    def settle(self, pause: Pause) -> None:
        """End `pause` as soon as no script runs: who waits for it shall not go on inside one."""
        self._later(pause.settle)

    def advance(self) -> None:
        """Run now what is ready to, unless the loop isn't ours, or a script is just running."""
        if self._own is not None:
            self._own.advance()

    def inside(self, function: Callable[[*Taken], Given], *args: *Taken) -> Given:
        """Call a plain function with the loop as asyncio's running one: it may call `asyncio.create_task`."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            return function(*args)
        finally:
            asyncio._set_running_loop(before)

    def stop(self) -> None:
        """Cancel what still runs and let it clean up, as far as that needs no waiting. Nothing can be started then."""
        for task in list(self._tasks.values()):
            task.cancel()
        if self._own is not None:
            self._own.advance()
            self._own.shut()

    def _later(self, function: Callable[[*Taken], object], *args: *Taken) -> None:
        if self._own is not None:
            self._own.call_outside(function, *args)
        else:
            self.loop.call_soon(function, *args)

    def _ended(self, pause: Pause, name: str, task: asyncio.Task[object]) -> None:
        self._tasks.pop(pause, None)
        if task.cancelled():
            pause.fail(ScriptError(name, "was cancelled"))
            return
        error = task.exception()
        if error is None:
            pause.settle(task.result())
        else:
            pause.fail(error if isinstance(error, ScriptError) else self._calls.failed(name, error))


async def _await(awaitable: Awaitable[object]) -> object:
    return await awaitable
