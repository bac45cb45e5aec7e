"""An exchange that asks scripts: it calls their hooks, waits for those that are asynchronous, and ends where one fails.

What is asked, and what is made of the answers, is told in `scripted`; how hooks are called in `scripts.hooks`.

A hook that fails ends its exchange: what it should have done hasn't been done, so nothing goes on without it. One that
an exchange waits for is cancelled when that is over; one that it doesn't wait for (its message has gone by) may come to
its end, in as much time as anything may stand still.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from streamproxy.filters.chain import FilterError, Pause
from streamproxy.flow import ANSWERED, FAILED, FORWARDED, SWITCHED
from streamproxy.proxy.exchange import Exchange
from streamproxy.proxy.socket_hooks import SocketHooks
from streamproxy.scripts import http
from streamproxy.scripts.hooks import HookRun
from streamproxy.stream.valve import Valve
from streamproxy.wire.message import RequestHead

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer

log = Logger()


class AskingExchange(Exchange):
    """The exchange that begins with `head`, where there are scripts."""

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer, head: RequestHead) -> None:
        super().__init__(connection, layer, head)
        self._hooks = self._settings.scripts.hooks
        self._seen: http.HTTPFlow | None = None
        # The hooks that a message waits for, with the valve that is shut meanwhile, and the reason that it is shut for.
        self._waiting: dict[HookRun, tuple[Valve | None, str]] = {}
        # Those that none waits for.
        self._late: list[HookRun] = []

    def _ask(self, hook: str, then: Callable[[], None], valve: Valve | None = None) -> Pause | None:
        """Call the scripts' `hook`s, then `then`, unless they failed or the flow is dead.

        Gives a pause if that is later, for as long as which `valve` is shut.
        """
        hooks = self._hooks[hook]
        if not hooks:
            self._go_on_with(then)
            return None
        run = self._run_of(hook)
        asked = run.start()
        if asked.over:
            self._asked(asked, then)
            return None
        answered = Pause(asked.why)
        # A reason of its own, for where one hook is done with the next may be waited for at once.
        reason = f"the hook {hook}"
        self._waiting[run] = (valve, reason)
        if valve is not None:
            valve.close(reason)
        asked.then(partial(self._answered, run, answered, then))
        return answered

    def _answered(self, run: HookRun, answered: Pause, then: Callable[[], None]) -> None:
        """The hooks of `run`, which a message waited for, are through."""
        valve, reason = self._waiting.pop(run, (None, ""))
        self._progress = self._seconds()
        self._asked(run.pause, then)
        if valve is not None:
            valve.open(reason)
        answered.settle()

    def _tell(self, hook: str) -> None:
        """Call the scripts' `hook`s for a message that has gone by: nothing waits for them."""
        if not self._hooks[hook]:
            return
        run = self._run_of(hook)
        told = run.start()
        if told.over:
            self._asked(told, _nothing)
            return
        self._late.append(run)
        told.then(partial(self._told, run))

    def _told(self, run: HookRun) -> None:
        self._late.remove(run)
        self._asked(run.pause, _nothing)

    def _run_of(self, hook: str) -> HookRun:
        seen = self._seen
        assert seen is not None
        return HookRun(self._hooks[hook], seen, self._proxy.calls, self._proxy.script_loop)

    def _asked(self, asked: Pause, then: Callable[[], None]) -> None:
        if self._over or self._deaf:
            return
        assert self._seen is not None
        if asked.error is not None:
            self._hook_failed(asked.error)
        elif self._seen.killed:
            self._kill()
        else:
            self._go_on_with(then)

    def _go_on_with(self, then: Callable[[], None]) -> None:
        """Do what follows on a hook; what a script left behind may be nonsense."""
        try:
            then()
        except Exception as error:
            self._hook_failed(error)

    def _hook_failed(self, error: BaseException) -> None:
        if isinstance(error, FilterError):
            why = str(error)
        elif isinstance(error, ValueError):
            why = f"a script made a message that can't be sent: {error}"
        else:
            log.failure("exchange {id}: after a script", id=self.flow.id)
            why = "an error inside the proxy"
        self.fail(FAILED, why)

    def _kill(self) -> None:
        """A script wants no more of it: its connection ends, without a word."""
        self.flow.outcome, self.flow.error = FAILED, "killed by a script"
        self._over_and_out(ending=self._connection.abort)

    def _socket_hooks(self) -> SocketHooks | None:
        seen, proxy = self._seen, self._proxy
        assert seen is not None
        for run in self._late:
            run.leave(proxy.clock, self._settings.timeouts.idle)
        patience = self._settings.timeouts.idle
        return SocketHooks(self._hooks, seen, proxy.calls, proxy.script_loop, proxy.clock, patience)

    @property
    def _is_ruled(self) -> bool:
        return super()._is_ruled or any(self._hooks.values())

    @property
    def _waits_for(self) -> str | None:
        first = next(iter(self._waiting), None)
        return super()._waits_for if first is None else first.pause.why

    def _drop_link(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for run, (valve, reason) in waiting.items():
            run.cancel()
            if valve is not None:
                valve.open(reason)
        super()._drop_link()

    def _ended(self) -> None:
        patience = self._settings.timeouts.idle
        for run in self._late:
            run.leave(self._proxy.clock, patience)
        seen, flow = self._seen, self.flow
        if seen is None:
            return
        seen.live = False
        if flow.outcome in (FORWARDED, ANSWERED, SWITCHED) or not self._hooks["error"]:
            return
        if seen.error is None:
            seen.error = http.Error(flow.error or flow.outcome, self._seconds())
        error_hooks = HookRun(self._hooks["error"], seen, self._proxy.calls, self._proxy.script_loop, killed=True)
        error_hooks.start()
        error_hooks.leave(self._proxy.clock, patience)


def _nothing() -> None:
    pass
