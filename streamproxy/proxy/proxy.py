"""What all connections of one proxy share, and what is said to all of them: new settings, and that there is an end.

A connection by itself is `downstream`. What listens, and for how long, is told in the daemon's room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from streamproxy.flow import Flow
from streamproxy.memory import Memory
from streamproxy.proxy.admission import meet_again
from streamproxy.proxy.captures import Captures
from streamproxy.proxy.exchange import Exchange
from streamproxy.proxy.passwords import Passwords, PasswordThreads
from streamproxy.proxy.scripted import ScriptedExchange
from streamproxy.proxy.stages import StageFactory
from streamproxy.proxy.trust_page import TrustPage
from streamproxy.scripts.calls import Calls
from streamproxy.scripts.loop import ScriptLoop
from streamproxy.stream.transport import IStreamTransport
from streamproxy.tls.authority import state_folder

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.pool import Pool
    from streamproxy.scripts.loading import Scripts
    from streamproxy.settings import Settings
    from streamproxy.tls.contexts import ClientFacing

# For how long (in seconds) scripts may be loaded while the proxy runs, and does nothing else.
MOST_LOADING = 10.0


def _nothing(_transport: IStreamTransport) -> None:
    pass


class Records(Protocol):
    """Where finished flows go."""

    def record(self, flow: Flow) -> None: ...


class Proxy:
    """What all connections of one proxy share.

    `via` is its name in Via fields, by which it knows itself. `tls` is what it shows to clients, None where it can't
    intercept anything. `loop` is asyncio's, if the reactor runs on it.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        journal: Records,
        clock: IReactorTime,
        via: bytes,
        tls: ClientFacing | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self.pool = pool
        self.counts = pool.counts
        self.journal = journal
        self.clock = clock
        self.via = via
        self.tls = tls
        self.trust_page = TrustPage(None if tls is None else tls.authority)
        # Who may use it by name and password; None where nobody is asked.
        self.passwords: Passwords | None = None
        self._password_threads = PasswordThreads(IReactorFromThreads(clock, None))
        self.connections: set[DownstreamProtocol] = set()
        self.exchanges = 0
        # Told of the transport of each connection that is accepted.
        self.accepted: Callable[[IStreamTransport], None] = _nothing
        # It is to stop: nothing new begins.
        self.draining = False
        timeouts, limits = settings.timeouts, settings.limits
        # What is held of all bodies and messages.
        self.memory = pool.memory = Memory(limits.memory)
        self.calls = Calls(clock, timeouts.script_budget, timeouts.script)
        self.script_loop = ScriptLoop(clock, self.calls, IReactorFromThreads(clock, None), loop)
        state_dir = settings.state_dir
        self._captures = Captures(
            limits.captures,
            limits.capture_files,
            lambda: state_folder(state_dir) / "captures",
            via.decode("ascii"),
            self.memory,
        )
        # What may be recorded in memory.
        self.recording = self._captures.memory
        self.obey(settings, tls)

    def obey(self, settings: Settings, tls: ClientFacing | None) -> None:
        """Proxy by `settings` from now on; what is under way goes on by those that it began with.

        `tls` is what clients are shown.
        """
        self.settings = settings
        self.memory.set_limit(settings.limits.memory)
        if tls is not self.tls:
            self.tls = tls
            self.trust_page = TrustPage(None if tls is None else tls.authority)
        self.calls.budget, self.calls.most = settings.timeouts.script_budget, settings.timeouts.script
        self.stages = StageFactory(settings, self.clock, self._captures, self.calls, self.script_loop)
        scripted = any(settings.scripts.hooks.values()) or settings.functions
        self.exchange: type[Exchange] = ScriptedExchange if scripted else Exchange
        users = settings.access.users
        if users is None:
            self.passwords = None
        elif self.passwords is None or self.passwords.users != users:
            # What was found out by another file doesn't count.
            self.passwords = Passwords(users, self.clock, self._password_threads)
        for connection in list(self.connections):
            meet_again(connection)

    def later(self, function: Callable[[], None]) -> None:
        """Call `function` in the next turn of the reactor."""
        self.clock.callLater(0, function)

    @property
    def under_way(self) -> int:
        """How many clients' connections have something to do; where none has, how many to origins have yet to end."""
        return sum([not each.has_said_goodbye for each in self.connections]) or self.pool.ending

    def drain(self) -> None:
        """Begin nothing new, and let end what is under way."""
        self.draining = True
        self.pool.close()
        for connection in list(self.connections):
            connection.drain()

    def cut(self, why: str) -> None:
        """End what is still under way, for the reason `why`."""
        for connection in list(self.connections):
            connection.cut(why)

    def abort(self) -> None:
        """End what is left, whatever it has to say."""
        for connection in list(self.connections):
            connection.abort()
        self.pool.abort()

    def start_scripts(self) -> None:
        """Begin with scripts, and watch over what they do, from the thread that they will run in."""
        self.calls.start()
        self.settings.scripts.running(self.calls, self.script_loop)

    def load_watched(self, load: Callable[[], Settings]) -> Settings:
        """What `load` gives; scripts that don't end while they are loaded are interrupted after some seconds."""
        calls, most, budget = self.calls, self.calls.most, self.calls.budget
        calls.most = max(most, MOST_LOADING)
        # That it takes its time is nothing that a script did.
        calls.budget = calls.most
        try:
            return calls.watch("the configuration", load)
        finally:
            calls.most, calls.budget = most, budget

    def swap_scripts(self, old: Scripts, new: Scripts) -> None:
        """Other scripts have taken the place of the old ones."""
        old.done(self.calls, self.script_loop)
        new.running(self.calls, self.script_loop)

    def stop_scripts(self) -> None:
        """There is an end of them."""
        self.settings.scripts.done(self.calls, self.script_loop)
        self.script_loop.stop()
        self.calls.stop()

    def new_flow(self, client: str, method: str = "-", url: str = "-") -> Flow:
        """The record of an exchange that begins now."""
        self.exchanges += 1
        return Flow(f"{self.exchanges:x}", self.clock.seconds(), client, method, url)
