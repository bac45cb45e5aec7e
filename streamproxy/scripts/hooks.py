"""Calls the hooks of scripts for one flow, one behind the other, and waits for those that are asynchronous.

What hooks there are is found by `loading`; what they get is in `http`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.filters.chain import Pause
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.loop import ScriptLoop

if TYPE_CHECKING:
    from streamproxy.scripts.http import HTTPFlow
    from streamproxy.scripts.loading import Hook


class HookRun:
    """Calls `hooks` with `flow`, in their order. `pause` is over when all have been, or fails with the first that does.

    A flow that is killed isn't shown to the rest, unless `killed`: these are for flows that may be, too. `pause.why`
    names the hook that is waited for.
    """

    def __init__(
        self, hooks: Sequence[Hook], flow: HTTPFlow, calls: Calls, loop: ScriptLoop, killed: bool = False
    ) -> None:
        self._hooks = hooks
        self._killed = killed
        self._flow = flow
        self._calls = calls
        self._loop = loop
        self._next = 0
        self._awaited: Pause | None = None
        self._patience: IDelayedCall | None = None
        self.pause = Pause("a script's hook")

    def start(self) -> Pause:
        """Call those that can be called at once."""
        self._go_on()
        return self.pause

    def cancel(self) -> None:
        """Nobody waits for it any more: what it awaits is cancelled, and no other hook is called."""
        self._hooks = ()
        self.pause.then(_nothing)
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            # It may not obey.
            awaited.then(_nothing)
            self._loop.cancel(awaited)

    def leave(self, clock: IReactorTime, seconds: float) -> None:
        """Nobody waits for it any more, but it may come to its end, if that takes no more than so many seconds."""
        if not self.pause.over:
            self._patience = clock.callLater(seconds, self.cancel)
            self.pause.then(self._came_to_its_end)

    def _came_to_its_end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _go_on(self) -> None:
        try:
            while self._next < len(self._hooks) and (self._killed or not self._flow.killed):
                hook = self._hooks[self._next]
                self._next += 1
                # A plain function may make tasks too: `asyncio.create_task`.
                result = self._calls.run(hook.name, self._loop.inside, hook.function, self._flow)
                if result is None:
                    continue
                if inspect.isawaitable(result):
                    self.pause.why = f"the hook {hook.name}"
                    awaited = self._loop.start(result, hook.name)
                    if not awaited.over:
                        self._awaited = awaited
                        awaited.then(self._resume)
                        return
                    awaited.result()
                elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                    # Nothing of it has run.
                    raise ScriptError(hook.name, "has a yield in it: a hook is a plain function, or an async one")
        except Exception as error:
            # Its traceback, which is on the log, would keep whoever called this, and all that they have.
            error.__traceback__ = None
            self.pause.fail(error)
            return
        self.pause.settle()

    def _resume(self) -> None:
        awaited, self._awaited = self._awaited, None
        assert awaited is not None
        if awaited.error is not None:
            self.pause.fail(awaited.error)
        else:
            self._go_on()


def _nothing() -> None:
    pass
