"""Threads for what scripts run beside the reactor: `asyncio.to_thread`, `run_in_executor` and `concurrent` hooks.

They are daemons, other than those of concurrent.futures: one that hangs doesn't keep the process from ending. And they
aren't the reactor's own, which look up names: scripts can't take those from the proxy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any

MOST_THREADS = 16


class DaemonThreads(Executor):
    """Runs functions in at most `most` threads, which are made when they are needed. More of them wait in line."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # Threads that have nothing to do, less what is in line for them.
        self._idle = 0
        self._shut = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn` called in a thread; its future is cancelled if that ends first. RuntimeError after `shutdown`."""
        future: Future[Any] = Future()
        with self._lock:
            if self._shut:
                raise RuntimeError("the threads of scripts have ended")
            self._waiting.put((future, lambda: fn(*args, **kwargs)))
            self._idle -= 1
            if self._idle < 0 and len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=f"script {len(self._threads)}", daemon=True)
                self._threads.append(thread)
                self._idle += 1
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more, and drop what waits in line; with `wait`, come back when the threads have ended."""
        with self._lock:
            self._shut = True
            while not self._waiting.empty():
                work = self._waiting.get()
                if work is not None:
                    work[0].cancel()
            for _ in self._threads:
                self._waiting.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except StopIteration as error:
                    # A future can't have it, and would never end.
                    future.set_exception(RuntimeError(f"raised StopIteration: {error}"))
                except BaseException as error:
                    future.set_exception(error)
            del work, future, function
            with self._lock:
                self._idle += 1
