"""Calls the hooks of scripts for one WebSocket: `websocket_start`, `websocket_message`, `websocket_end`.

Who waits for them, and what for, is the relay's matter (`websocket.py`, `sides.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from streamproxy.filters.chain import FilterError
from streamproxy.filters.websocket import WebSocketData, WebSocketMessage, looking_at
from streamproxy.scripts.hooks import HookRun

if TYPE_CHECKING:
    from streamproxy.scripts.calls import Calls
    from streamproxy.scripts.http import HTTPFlow
    from streamproxy.scripts.loading import Hook
    from streamproxy.scripts.loop import ScriptLoop


class Killed(FilterError):
    """A script wants no more of it."""


class SocketHooks:
    """The `hooks` of scripts, by name, for the WebSocket of the flow that they have `seen`.

    A hook for its end may take `patience` seconds.
    """

    def __init__(
        self,
        hooks: Mapping[str, Sequence[Hook]],
        seen: HTTPFlow,
        calls: Calls,
        loop: ScriptLoop,
        clock: IReactorTime,
        patience: float,
    ) -> None:
        self._hooks = hooks
        self._seen = seen
        self._calls = calls
        self._loop = loop
        self._clock = clock
        self._patience = patience
        # Those that are waited for.
        self._runs: set[HookRun] = set()
        self.wants_messages = bool(hooks["websocket_message"])

    def begin(self, data: WebSocketData, killed: Callable[[], None]) -> HookRun:
        """There is a WebSocket, shown as `data`; `killed` is called when a script kills its flow, whenever that is."""
        self._seen.websocket = data
        self._seen.on_kill = killed
        return self._start("websocket_start")

    def message(self, message: WebSocketMessage) -> HookRun:
        """There is a message, which the data shows."""
        with looking_at(message):
            return self._start("websocket_message")

    def _start(self, name: str) -> HookRun:
        run = HookRun(self._hooks[name], self._seen, self._calls, self._loop)
        if not run.start().over:
            self._runs.add(run)
        return run

    def check(self, run: HookRun) -> None:
        """`run` is over: raises what it failed with, and Killed."""
        self._runs.discard(run)
        if run.pause.error is not None:
            raise run.pause.error
        if self._seen.killed:
            raise Killed("killed by a script")

    def end(self) -> None:
        """The WebSocket is over."""
        runs, self._runs = self._runs, set()
        for run in runs:
            run.cancel()
        self._seen.live = False
        self._seen.on_kill = None
        last = HookRun(self._hooks["websocket_end"], self._seen, self._calls, self._loop, killed=True)
        last.start()
        last.leave(self._clock, self._patience)
