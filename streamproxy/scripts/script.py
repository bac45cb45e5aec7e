"""For hooks that block: `from streamproxy.scripts.script import concurrent`."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any


def concurrent(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A decorator: the hook is called in a thread. Its own exchange waits for it, and no other.

    It can't be interrupted there, so one that hangs keeps its exchange and its thread. Raises TypeError for what has no
    need of it: `async` functions don't block.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is async: it needs no thread, and waits by itself")

    @functools.wraps(function)
    async def in_thread(*args: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *args, **named)

    return in_thread
