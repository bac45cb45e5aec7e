"""The service that twistd runs: a proxy with its listeners, from its start, through reloads, to its end.

What the command line is, is told in `service`; how a part of this does its work, in the other modules of this room.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import secrets
import signal
import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from streamproxy.counts import Counts
from streamproxy.daemon.descriptors import Descriptors, raise_limit
from streamproxy.daemon.drain import Drain
from streamproxy.daemon.identity import identity, keylog
from streamproxy.daemon.levels import levels
from streamproxy.daemon.listening import (
    CannotListen,
    Listeners,
    Place,
    is_beyond_loopback,
    missing_access,
    places,
    words,
)
from streamproxy.daemon.names import SystemResolver
from streamproxy.daemon.supervision import Supervision
from streamproxy.daemon.systemd import inherited_sockets
from streamproxy.inspect.admin import AdminSite, admin_site
from streamproxy.inspect.lag import Lag
from streamproxy.inspect.metrics import Metrics
from streamproxy.inspect.tally import Tally
from streamproxy.journal import Journal, log_line, text_line
from streamproxy.logs import twistd_log
from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.lookups import TIMES
from streamproxy.proxy.pool import LOOKUPS, Pool
from streamproxy.proxy.proxy import MOST_LOADING, Proxy
from streamproxy.scripts import ctx
from streamproxy.scripts.calls import ScriptHung
from streamproxy.settings import Admin, ConfigurationError, Settings

# The number of the admin listener's place, beside those of others.
ADMIN = -1
# How long the process may take to end when all is done, in seconds.
LAST_RESORT = 3.0
log = Logger()


class CannotStart(SystemExit, Exception):
    """A clear line and exit status 1, in the foreground (as SystemExit) and for twistd's daemon alike."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __repr__(self) -> str:
        return self.message


class ProxyService(Service):
    """Listens as `settings` say, and proxies until it is stopped.

    `read_again` reads the configuration another time, on SIGHUP; it raises ConfigurationError. `environ` is what the
    process was started with.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        write_lines: Callable[[str], None],
        read_again: Callable[[], Settings] | None = None,
        environ: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._read_again = read_again
        self._reactor = reactor
        self._keylog = keylog()
        try:
            self._identity = identity(settings, self._keylog)
        except ConfigurationError as error:
            raise CannotStart(f"streamproxy: {error}") from None
        self._counts = Counts(reactor.seconds())
        self._pool = Pool(reactor, settings, self._identity.origins, self._counts)
        # A name of its own for each process, so that it knows a request that has been here before, and two
        # proxies in a row don't take each other for a loop.
        via = f"streamproxy-{secrets.token_hex(4)}".encode()
        self._journal = Journal(write_lines, reactor, text_line if settings.log.form == "text" else log_line)
        loop = asyncio.get_event_loop() if isinstance(reactor, AsyncioSelectorReactor) else None
        clients = self._identity.clients
        tally = Tally(self._counts, self._journal)
        self._proxy = Proxy(settings, self._pool, tally, reactor, via, clients, loop)
        self._clients = DownstreamFactory(self._proxy)
        self._admin = self._make_admin(settings.admin or Admin())
        self._lag = Lag(reactor, self._counts)
        self._listeners = Listeners(reactor, inherited_sockets(environ))
        self._descriptors = Descriptors(reactor, self._pool.close)
        self._proxy.accepted = self._descriptors.took
        self._pool.has_room_for = self._descriptors.has_room_for
        self._supervision = Supervision(environ, reactor, self._status)
        self._drain: Drain | None = None
        self._is_ready = False
        # Listeners that are being closed.
        self._closing: list[Deferred[Any]] = []
        self._reload_is_due = False
        # How often it was asked to stop.
        self._stops = 0

    # Listeners

    def _make_admin(self, admin: Admin) -> AdminSite:
        metrics = Metrics(self._counts, lambda: levels(self._proxy, self._descriptors))
        return admin_site(admin, self._reactor, metrics.recent_text, self.reload, self._why_not_ready)

    def _why_not_ready(self) -> str:
        if self._drain is not None:
            return "the proxy is stopping"
        return "" if self._is_ready else "the proxy is starting"

    def _wanted(self, settings: Settings) -> dict[Place, Factory]:
        """Where `settings` want to listen, with what the connections there are given to."""
        wanted: dict[Place, Factory] = dict.fromkeys(places(settings.listen), self._clients)
        if settings.admin is not None:
            wanted[settings.admin.endpoint, ADMIN] = self._admin  # type: ignore[assignment]
        return wanted

    def _listen(self, settings: Settings) -> None:
        """Open what `settings` want and isn't open yet, and close what they don't want; all of it or, raising
        `CannotListen`, nothing."""
        wanted = self._wanted(settings)
        opened = self._listeners.prepare(wanted)
        try:
            # Those that are open may have been limited until now.
            for place, factory in wanted.items():
                ports = opened.get(place) or self._listeners.ports_of(place)
                problem = missing_access(settings, factory is self._admin)
                if problem and any(map(is_beyond_loopback, ports)):
                    raise CannotListen(f"{problem}, for {place[0]} listens beyond loopback")
        except CannotListen:
            self._listeners.drop(opened)
            raise
        for port in self._listeners.keep(opened, wanted):
            log.info("no longer listening on {address}", address=words(port))
        for place, ports in opened.items():
            for port in ports:
                admin = "admin: " if wanted[place] is self._admin else ""
                log.info("{admin}listening on {address}", admin=admin, address=words(port))
        self._descriptors.watch([port for place in places(settings.listen) for port in self._listeners.ports_of(place)])
        self._pool.own.replace([port.getHost() for port in self._listeners.ports])

    def privilegedStartService(self) -> None:
        """Open all listeners, or none: raises `CannotStart` where one can't be had."""
        # Whoever sees that it listens may give a signal, which waits then until the reactor runs.
        self._obey_signals()
        try:
            self._listen(self._settings)
        except CannotListen as error:
            raise CannotStart(str(error)) from None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.installNameResolver(SystemResolver(self._reactor, TIMES * LOOKUPS))
        raise_limit(self._settings.limits.connections)
        self._descriptors.look_at_limit()
        # The connections that are cut when the process ends have their line on the log as well.
        self._reactor.addSystemEventTrigger("after", "shutdown", self._journal.flush)
        self._reactor.addSystemEventTrigger("after", "shutdown", _end_soon)
        ctx.master.on_shutdown = self._stop
        self._proxy.start_scripts()
        _log_warnings(self._settings)
        self._reactor.callWhenRunning(self._begin)
        # What is here now stays, so that no collection of garbage need look at it again.
        gc.freeze()
        self._log_trust()

    def _obey_signals(self) -> None:
        stop = partial(self._on_signal, self._stop)
        for number, name in ((signal.SIGTERM, "sigTerm"), (signal.SIGINT, "sigInt")):
            signal.signal(number, stop)
            # So that the reactor, when it begins, sets this too, and not its own.
            setattr(self._reactor, name, stop)
        if self._read_again is not None:
            # twistd leaves it alone; what it would do by itself is end the process.
            signal.signal(signal.SIGHUP, self._hang_up)

    def _begin(self) -> None:
        """The reactor runs."""
        # Again, for a reactor may have set its own, which would have the process end by the signal.
        self._obey_signals()
        self._is_ready = True
        self._lag.start()
        self._supervision.ready()

    def _on_signal(self, obey: Callable[[], object], number: int, frame: object) -> None:
        # A signal's function runs between any two lines.
        self._reactor.callFromThread(obey)

    def _hang_up(self, number: int, frame: object) -> None:
        # However often it was given, one reload behind it is enough.
        if not self._reload_is_due:
            self._reload_is_due = True
            self._reactor.callFromThread(self._reactor.callLater, 0, self._reload_as_told)

    def _reload_as_told(self) -> None:
        self._reload_is_due = False
        if not self._stops:
            self.reload()

    # Reload

    def reload(self) -> list[str]:
        """Read the configuration again, and obey it; what was wrong with it, line by line, if anything was.

        Rules, scripts, limits, timeouts, access, certificates and listeners are read and opened whole, and then swapped
        at once; listeners that didn't change aren't touched. Where anything is wrong all stays as it was. What is under
        way goes on by what it began with. `state_dir`, `log`, and what is kept for all exchanges together
        (limits.captures, limits.capture_files) change by a restart.
        """
        if self._read_again is None or self._drain is not None:
            return ["the proxy is stopping" if self._drain is not None else "there is nothing to read again"]
        self._supervision.reloading()
        twistd_log.reopen()
        problems = ["an error inside the proxy"]
        try:
            problems = self._read_and_swap(self._read_again)
        except Exception:
            log.failure("a reload")
        finally:
            if problems:
                log.error("not reloaded, the old configuration stays:\n{lines}", lines="\n".join(problems))
            else:
                log.info("reloaded: {rules} rules", rules=len(self._settings.rules.rules))
            self._counts.reload(not problems, self._reactor.seconds())
            self._supervision.reloaded(not problems)
        return problems

    def _read_and_swap(self, read_again: Callable[[], Settings]) -> list[str]:
        old, settings = self._settings, None
        try:
            read = self._proxy.load_watched(read_again)
            settings = dataclasses.replace(read, state_dir=old.state_dir, log=old.log)
            if read != settings:
                log.warn("state_dir and log stay as they were until a restart")
            found = identity(settings, self._keylog, self._identity)
            self._listen(settings)
        except BaseException as error:
            # A script may raise anything while it is loaded.
            if settings is not None:
                settings.scripts.discard(self._proxy.calls, self._proxy.script_loop)
            if isinstance(error, ConfigurationError):
                return error.lines
            if isinstance(error, ScriptHung):
                return [f"reading it took longer than {MOST_LOADING:g} seconds, in which nothing else is done"]
            return [str(error) if isinstance(error, CannotListen) else repr(error)]
        self._settings, self._identity = settings, found
        if settings.admin is None or old.admin is None or settings.admin.endpoint != old.admin.endpoint:
            self._admin.abort_all()
        if settings.admin is not None:
            self._admin.admin = settings.admin
        self._pool.obey(settings, found.origins)
        self._proxy.obey(settings, found.clients)
        raise_limit(settings.limits.connections)
        self._descriptors.look_at_limit()
        _log_warnings(settings)
        self._proxy.swap_scripts(old.scripts, settings.scripts)
        return []

    def _log_trust(self) -> None:
        """Say who must trust what."""
        if self._proxy.tls is not None:
            authority = self._proxy.tls.authority
            for warning in authority.warnings:
                log.warn("{warning}", warning=warning)
            log.info(
                "intercepting TLS; the CA's fingerprint is {fingerprint} (SHA-256),"
                " and http://streamproxy.test/ through the proxy tells how to trust it",
                fingerprint=authority.fingerprint,
            )

    # Stop

    def _status(self) -> str:
        """What it does, in words."""
        return f"{len(self._proxy.connections)} connections, {self._proxy.exchanges} exchanges since the start"

    def _stop(self) -> None:
        """Stop, when what is under way has ended; asked a second time, at once."""
        self._stops += 1
        if self._drain is not None:
            self._drain.cut()
        elif self._stops == 1:
            self._reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Accept nobody any more, let end what is under way within `timeouts.drain`, and cut the rest."""
        super().stopService()  # type: ignore[no-untyped-call]
        # That for operators goes on as long as anything does.
        self._descriptors.watch([])
        for place in places(self._settings.listen):
            self._closing += self._listeners.close(place)
        self._drain = Drain(self._proxy, self._reactor, self._settings.timeouts.drain)
        self._supervision.stopping()
        ended = self._drain.start()
        if self._stops > 1:
            # The second signal came before the first was obeyed.
            self._drain.cut()
        return ended.addCallback(self._stopped)

    def _stopped(self, _ended: None) -> Deferred[Any]:
        self._supervision.stop()
        self._lag.stop()
        if self._settings.admin is not None:
            self._closing += self._listeners.close((self._settings.admin.endpoint, ADMIN))
        # What there was is on the log before scripts hear that it is over.
        self._journal.flush()
        self._proxy.stop_scripts()
        self._journal.flush()
        return DeferredList(self._closing, consumeErrors=True)


def _end_soon() -> None:
    """All is done. A thread of a script's that goes on doesn't keep the process from ending."""
    last_resort = threading.Timer(LAST_RESORT, os._exit, (0,))
    last_resort.daemon = True
    last_resort.start()


def _log_warnings(settings: Settings) -> None:
    for warning in settings.scripts.warnings:
        log.warn("{warning}", warning=warning)
    for pattern in settings.tls.unverified:
        log.warn("tls.verify_upstream: the certificates of {pattern} are NOT verified", pattern=pattern)
