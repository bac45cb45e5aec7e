"""asyncio's event loop on Twisted's reactor, whatever that is, for scripts.

It has no select of its own: it lives on an IReactorTime. So `asyncio.sleep`, events, locks, queues, tasks, `wait_for`,
`gather`, `timeout` and `to_thread` work, and Twisted's Deferreds can be awaited beside them. asyncio's own sockets and
processes don't work: they need Twisted's asyncio reactor, whose loop is taken then instead of this one.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import Any, TypeVar, TypeVarTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from streamproxy.scripts.calls import Calls
from streamproxy.scripts.threads import DaemonThreads

# What one callback makes ready runs in the same turn of the reactor, up to so many times.
MOST_ROUNDS = 8
# The reactor has no word for "never": longer waits are made of several.
LONGEST_WAIT = 86400.0
# asyncio's own, which need sockets, pipes or signals, and a loop that is run by hand.
_NETWORK = (
    "add_reader remove_reader add_writer remove_writer add_signal_handler remove_signal_handler getaddrinfo "
    "getnameinfo create_connection create_server create_unix_connection create_unix_server create_datagram_endpoint "
    "start_tls connect_accepted_socket connect_read_pipe connect_write_pipe subprocess_exec subprocess_shell sendfile "
    "sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile "
    "sock_sendto"
)
_BY_HAND = "run_forever run_until_complete stop close"
# Whose coroutine it is that runs; what it starts inherits it.
NAME: ContextVar[str] = ContextVar("the script's function", default="a script")
log = Logger()

Taken = TypeVarTuple("Taken")
Given = TypeVar("Given")


class ReactorLoop(asyncio.AbstractEventLoop):
    """asyncio's event loop, as far as it needs no select, on an IReactorTime."""

    def __init__(self, clock: IReactorTime, calls: Calls, from_threads: IReactorFromThreads | None = None) -> None:
        self._clock = clock
        self._calls = calls
        self._from_threads = from_threads
        self._ready: deque[asyncio.Handle] = deque()
        self._outside: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._turn: IDelayedCall | None = None
        self._timers: set[_Timer] = set()
        self._running = False
        self._closed = False
        self._executor: Executor | None = None
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()

    # What asyncio asks of a loop.

    def time(self) -> float:
        return float(self._clock.seconds())

    def call_soon(
        self, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_open()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        if not self._running:
            self._set_turn()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_open()
        if self._from_threads is None:
            raise NotImplementedError("threads can't be used here")
        handle = asyncio.Handle(callback, args, self, context)
        self._from_threads.callFromThread(self._from_thread, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Taken], object], *args: *Taken, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_open()
        timer = _Timer(when, callback, args, self, context)
        self._set_timer(timer)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **_options: object
    ) -> asyncio.Task[Any]:
        self._check_open()
        if isinstance(coro, Coroutine) and not isinstance(coro, Watched):
            coro = Watched(coro, NAME.get(), self._calls, self)
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Taken], Given], *args: *Taken
    ) -> asyncio.Future[Given]:
        self._check_open()
        if executor is None:
            if self._from_threads is None:
                raise NotImplementedError("threads can't be used here")
            if self._executor is None:
                self._executor = DaemonThreads()
            executor = self._executor
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)

    def set_default_executor(self, executor: Executor) -> None:  # type: ignore[override]
        self._executor = executor

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self._calls.failed(NAME.get(), error)
        else:
            log.warn("{name}: {message}", name=NAME.get(), message=context.get("message"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_exception_handler(self) -> None:
        return None

    def set_exception_handler(self, handler: object) -> None:
        """Not kept: the loop is everybody's."""

    def get_task_factory(self) -> None:
        return None

    def set_task_factory(self, factory: object) -> None:
        """Not kept: the loop is everybody's."""

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """There is no such mode."""

    async def shutdown_asyncgens(self) -> None:
        for generator in list(self._generators):
            await generator.aclose()

    async def shutdown_default_executor(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, _Timer)
        self._timers.discard(handle)
        # One whose making was interrupted has none.
        call = getattr(handle, "call", None)
        if call is not None and call.active():
            call.cancel()

    # What its owner asks of it.

    def start_at_once(self, watched: Watched, where: Context) -> asyncio.Task[object]:
        """A task whose first step has been made, unless that can't be: no task's step can be inside another's."""
        was_running, self._running = self._running, True
        try:
            task = self.create_task(watched, context=where)
            if asyncio.current_task(self) is None:
                # The task has just asked for its first step: that is the last in the queue.
                self._enter([self._ready.pop()])
        finally:
            self._running = was_running
        if not was_running:
            self._go_outside()
            if self._ready:
                self._set_turn()
        return task

    def call_outside(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` when no script runs: soon, and in no script's name."""
        self._outside.append((function, args))
        if not self._running:
            self._set_turn()

    def advance(self) -> None:
        """Run what is ready, and what that makes ready; the rest comes in the reactor's next turn."""
        if self._running:
            return
        for _ in range(MOST_ROUNDS):
            if not self._ready:
                break
            ready, self._ready = self._ready, deque()
            self._enter(ready)
        self._go_outside()
        if self._ready or self._outside:
            self._set_turn()

    def shut(self) -> None:
        """The end: what waits is dropped."""
        self._closed = True
        self._ready.clear()
        self._outside.clear()
        for timer in list(self._timers):
            timer.cancel()
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _enter(self, handles: deque[asyncio.Handle] | list[asyncio.Handle]) -> None:
        """Run callbacks, with this as asyncio's running loop."""
        was_running, self._running = self._running, True
        before, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._generators.add, self._generator_dropped)
        try:
            for handle in handles:
                if not handle.cancelled():
                    try:
                        # What a callback raises goes to `call_exception_handler`.
                        self._calls.watch(handle._context.get(NAME, "a script"), handle._run)  # type: ignore[attr-defined]
                    except BaseException as error:
                        # One that asyncio lets pass; a task that raised it has it as its outcome as well.
                        self.call_exception_handler({"exception": error})
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(before)
            self._running = was_running

    def _go_outside(self) -> None:
        while self._outside and not self._running:
            function, args = self._outside.popleft()
            try:
                function(*args)
            except Exception:
                log.failure("what waited for a script failed")

    def _set_turn(self) -> None:
        if self._turn is None and not self._closed:
            self._turn = self._clock.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self.advance()

    def _set_timer(self, timer: _Timer) -> None:
        delay = min(max(0.0, timer.when() - self.time()), LONGEST_WAIT)
        self._timers.add(timer)
        timer.call = self._clock.callLater(delay, self._timer_fired, timer)

    def _timer_fired(self, timer: _Timer) -> None:
        self._timers.discard(timer)
        if timer.when() - self.time() > 1.0:
            self._set_timer(timer)
        else:
            self._ready.append(timer)
            self.advance()

    def _from_thread(self, handle: asyncio.Handle) -> None:
        if not self._closed:
            self._ready.append(handle)
            self.advance()

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator that wasn't finished is garbage: let it clean up."""
        self._generators.discard(generator)
        if not self._closed:
            self.create_task(generator.aclose())

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the loop of scripts has ended")


def _refuse(name: str, why: str) -> None:
    def refused(self: ReactorLoop, *_args: object, **_named: object) -> None:
        raise NotImplementedError(f"{name}: {why}")

    setattr(ReactorLoop, name, refused)


for _name in _NETWORK.split():
    _refuse(_name, "run twistd with --reactor asyncio for asyncio's own network")
for _name in _BY_HAND.split():
    _refuse(_name, "the loop of scripts is run by Twisted's reactor")


class _Timer(asyncio.TimerHandle):
    __slots__ = ("call",)

    call: IDelayedCall | None

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine each of whose steps is watched, and that may await Deferreds in a task of asyncio's."""

    __slots__ = ("_calls", "_coroutine", "_loop", "_name")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], name: str, calls: Calls, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._coroutine = coroutine
        self._name = name
        self._calls = calls
        self._loop = loop

    def send(self, value: Any) -> Any:
        return self._waited_for(self._calls.watch(self._name, self._coroutine.send, value))

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        return self._waited_for(self._calls.watch(self._name, self._coroutine.throw, error))

    def close(self) -> None:
        self._calls.watch(self._name, self._coroutine.close)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def _waited_for(self, what: Any) -> Any:
        """What a task can wait for: for a Deferred a future that is done when it has fired."""
        if not isinstance(what, Deferred):
            return what
        future = self._loop.create_future()

        def fired(result: object) -> object:
            # The result stays with the Deferred, which is asked for it when the coroutine goes on.
            if not future.done():
                future.set_result(None)
            return result

        def done(_future: object) -> None:
            if future.cancelled():
                # Nobody is left to hear of it.
                what.addErrback(lambda failure: failure.trap(CancelledError))
                what.cancel()

        what.addBoth(fired)
        future.add_done_callback(done)
        # By this a task knows that a future was awaited and not merely given.
        future._asyncio_future_blocking = True
        return future
