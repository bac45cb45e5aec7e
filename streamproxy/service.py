"""The front door: what `twistd streamproxy` reads from its command line, and the service that it runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
from collections.abc import Callable

from twisted.application.service import IService, MultiService, Service
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from streamproxy import __version__
from streamproxy.journal import Journal, ScriptLog, twistd_log
from streamproxy.proxy.downstream import DownstreamFactory, Proxy
from streamproxy.proxy.pool import LOOKUPS, Pool
from streamproxy.scripts import ctx
from streamproxy.settings import ConfigurationError, Settings, load
from streamproxy.tls.authority import AuthorityError, authority_for
from streamproxy.tls.contexts import ClientFacing, KeyLog, OriginFacing, TlsError

# Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
BACKLOG = 4096
log = Logger()


class CannotStart(SystemExit, Exception):
    """A clear line and exit status 1, in the foreground (as SystemExit) and for twistd's daemon alike."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __repr__(self) -> str:
        return self.message


class Options(usage.Options):
    """`twistd streamproxy -c FILE [--set KEY=VALUE ...] [--check]`."""

    longdesc = "A streaming, intercepting proxy for HTTP and HTTPS, ruled by YAML."
    optParameters = [["config", "c", None, "The YAML file with settings and rules."]]
    optFlags = [["check", None, "Read everything, print all errors, and exit: 0 if there are none, else 1."]]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.overrides: list[str] = []
        self.settings: Settings | None = None

    def opt_set(self, assignment: str) -> None:
        """Set a key, whatever the file says: KEY=VALUE, with dots between nested keys. May be repeated."""
        self.overrides.append(assignment)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"streamproxy {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]}: expected no such argument (the file goes behind -c)")

    def read(self) -> Settings:
        """Read the configuration; raises ConfigurationError."""
        # With many rules, half of the time would be spent on looking for garbage among what stays.
        gc.disable()
        try:
            # twistd may have left the folder that the paths in it are meant for (--rundir).
            with contextlib.chdir(self._folder):
                return load(self["config"], self.overrides)
        finally:
            gc.enable()

    def postOptions(self) -> None:
        if self["config"] is None:
            raise CannotStart("streamproxy: no configuration: expected -c FILE")
        self._folder = os.getcwd()
        _say_what_scripts_say()
        try:
            self.settings = self.read()
        except ConfigurationError as error:
            raise CannotStart("\n".join(error.lines)) from None
        problems = [problem for listen in self.settings.listen if (problem := _what_is_wrong_with(listen))]
        if problems:
            raise CannotStart("\n".join(f"{self['config']}: listen: {problem}" for problem in problems))
        try:
            _origin_facing(self.settings, None)
            if self.settings.tls.authority_certificate is not None:
                _client_facing(self.settings, None)
        except (AuthorityError, TlsError) as error:
            raise CannotStart(f"{self['config']}: tls: {error}") from None
        if self["check"]:
            print(f"{self['config']}: in order")
            raise SystemExit(0)
        twistd = self.parent
        if twistd is not None and not twistd.get("logger") and not twistd.get("syslog"):
            twistd_log.path = twistd.get("logfile") or ""
            twistd_log.foreground = bool(twistd.get("nodaemon"))
            twistd["logger"] = "streamproxy.journal.twistd_log"


class ProxyService(Service):
    """Listens as `settings` say, and proxies until it is stopped.

    `read_again` reads the configuration another time, on SIGHUP; it raises ConfigurationError.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: object,
        write_lines: Callable[[str], None],
        read_again: Callable[[], Settings] | None = None,
    ) -> None:
        self._settings = settings
        self._read_again = read_again
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        try:
            keylog = _keylog()
            clients = _client_facing(settings, keylog)
            self._pool = Pool(reactor, settings, _origin_facing(settings, keylog))
        except (AuthorityError, TlsError) as error:
            raise CannotStart(f"streamproxy: {error}") from None
        # A name of its own for each process, so that it knows a request that has been here before, and two
        # proxies in a row don't take each other for a loop.
        via = f"streamproxy-{secrets.token_hex(4)}".encode()
        self._journal = Journal(write_lines, reactor)  # type: ignore[arg-type]
        loop = asyncio.get_event_loop() if isinstance(reactor, AsyncioSelectorReactor) else None
        self._proxy = Proxy(settings, self._pool, self._journal, reactor, via, clients, loop)  # type: ignore[arg-type]

    def privilegedStartService(self) -> None:
        """Open all listeners, or none: raises `CannotStart` where one can't be had."""
        for description in self._settings.listen:
            try:
                endpoint = serverFromString(self._reactor, _with_backlog(description))
            except Exception as error:
                # Each kind of endpoint has errors of its own: an IndexError is systemd's way to say it gave no socket.
                self._refuse(f"listen: {description} can't be had: {error}")
            outcome: list[IListeningPort | Failure] = []
            endpoint.listen(DownstreamFactory(self._proxy)).addBoth(outcome.append)
            if not outcome:
                self._refuse(f"listen: {description!r} is not an endpoint that opens at once")
            if isinstance(outcome[0], Failure):
                failure = outcome[0].value
                why = failure.socketError if isinstance(failure, CannotListenError) else failure
                # The reason first: of a daemon's error twistd shows a hundred bytes.
                self._refuse(f"{getattr(why, 'strerror', None) or why}: {description}")
            else:
                self._ports.append(outcome[0])

    def _refuse(self, message: str) -> None:
        for port in self._ports:
            port.stopListening()
        raise CannotStart(message)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.suggestThreadPoolSize(LOOKUPS)  # type: ignore[attr-defined]
        _raise_file_limit(self._settings.limits.connections)
        # The connections that are cut when the process ends have their line on the log as well.
        self._reactor.addSystemEventTrigger("after", "shutdown", self._journal.flush)  # type: ignore[attr-defined]
        ctx.master.on_shutdown = self._reactor.stop  # type: ignore[attr-defined]
        self._proxy.start_scripts()
        _log_warnings(self._settings)
        if self._read_again is not None:
            # twistd leaves it alone; what it would do by itself is end the process.
            signal.signal(signal.SIGHUP, self._hang_up)
        # What is here now stays, so that no collection of garbage need look at it again.
        gc.freeze()
        for port in self._ports:
            log.info("listening on {address}", address=_words(port))
        self._log_trust()

    def _hang_up(self, number: int, frame: object) -> None:
        # A signal's function runs between any two lines.
        self._reactor.callFromThread(self.reload)  # type: ignore[attr-defined]

    def reload(self) -> bool:
        """Read rules, scripts, limits and timeouts again, and obey them; whether they could be read.

        What can't be read leaves the old ones in force. Listeners, `tls`, `state_dir` and what is kept for all
        exchanges together (limits.captures, limits.capture_files) change by a restart.
        """
        assert self._read_again is not None
        try:
            settings = self._proxy.load_watched(self._read_again)
        except ConfigurationError as error:
            log.error("not reloaded, the old configuration stays:\n{lines}", lines="\n".join(error.lines))
            return False
        except BaseException as error:
            # A script may raise anything while it is loaded.
            log.error("not reloaded, the old configuration stays: {error!r}", error=error)
            return False
        old, self._settings = self._settings, settings
        self._proxy.obey(settings)
        _log_warnings(settings)
        self._proxy.swap_scripts(old.scripts, settings.scripts)
        if (old.listen, old.tls, old.state_dir) != (settings.listen, settings.tls, settings.state_dir):
            log.warn("reloaded, but listen, tls and state_dir stay as they were until a restart")
        log.info("reloaded: {rules} rules", rules=len(settings.rules.rules))
        return True

    def _log_trust(self) -> None:
        """Say who must trust what, and who isn't verified."""
        if self._proxy.tls is not None:
            authority = self._proxy.tls.authority
            for warning in authority.warnings:
                log.warn("{warning}", warning=warning)
            log.info(
                "intercepting TLS; the CA's fingerprint is {fingerprint} (SHA-256),"
                " and http://streamproxy.test/ through the proxy tells how to trust it",
                fingerprint=authority.fingerprint,
            )
        for pattern in self._settings.tls.unverified:
            log.warn("tls.verify_upstream: the certificates of {pattern} are NOT verified", pattern=pattern)

    def stopService(self) -> Deferred[object] | None:
        """Stop listening and close what is idle. What is running is cut when the process ends."""
        super().stopService()  # type: ignore[no-untyped-call]
        for port in self._ports:
            port.stopListening()
        self._pool.close()
        self._proxy.stop_scripts()
        self._journal.flush()
        return None


def _say_what_scripts_say() -> None:
    """Have what is said by Python's own logging on twistd's log, also while scripts are loaded: Twisted keeps it."""
    if not any(isinstance(each, ScriptLog) for each in logging.getLogger().handlers):
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ScriptLog()])


def _log_warnings(settings: Settings) -> None:
    for warning in settings.scripts.warnings:
        log.warn("{warning}", warning=warning)


def _keylog() -> KeyLog | None:
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return None
    log.warn("SSLKEYLOGFILE: the secrets of all TLS connections are written to {path}", path=path)
    return KeyLog(path)


def _client_facing(settings: Settings, keylog: KeyLog | None) -> ClientFacing | None:
    """What clients are shown; None where nothing is intercepted, and so no authority needed."""
    tls = settings.tls
    if not tls.interception.intercept:
        return None
    authority = authority_for(settings.state_dir, tls.authority_certificate, tls.authority_key)
    return ClientFacing(authority, tls.minimum_version, keylog)


def _origin_facing(settings: Settings, keylog: KeyLog | None) -> OriginFacing:
    """What origins are dealt with by, its files read; raises `TlsError`."""
    tls = settings.tls
    facing = OriginFacing(
        verifies=tls.verifies,
        trusted_ca=tls.trusted_ca,
        certificate_for=tls.client_certificate_for,
        certificates=tls.client_certificates,
        minimum_version=tls.minimum_version,
        keylog=keylog,
    )
    facing.prepare()
    return facing


def _what_is_wrong_with(description: str) -> str | None:
    """What Twisted finds wrong with an endpoint, as far as that can be known before it listens."""
    if description.startswith("systemd:"):
        return None
    try:
        serverFromString(None, _with_backlog(description))
    except Exception as error:
        return f"expected a Twisted endpoint such as tcp:8080:interface=127.0.0.1, got {description}: {error}"
    return None


def _raise_file_limit(connections: int) -> None:
    """Let the process have as many files open as `connections` clients and their origins may need, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256 if hard == resource.RLIM_INFINITY else min(2 * connections + 256, hard)
    if wanted < connections:
        log.warn("{files} open files are allowed: too few for {clients} clients", files=wanted, clients=connections)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _with_backlog(description: str) -> str:
    """The endpoint with room for `BACKLOG` connections that wait to be accepted, where it doesn't say how many.

    Twisted's fifty are soon full when clients come by the thousand, and who finds no room tries again after a second.
    """
    if description.startswith(("tcp:", "tcp6:")) and ":backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    return description


def _words(port: IListeningPort) -> str:
    address = port.getHost()
    return f"{getattr(address, 'host', '')}:{getattr(address, 'port', address)}"


def makeService(options: Options) -> IService:
    """The service that twistd runs."""
    from twisted.internet import reactor

    assert options.settings is not None
    service = MultiService()
    proxy = ProxyService(options.settings, reactor, twistd_log.write, options.read)
    proxy.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service
