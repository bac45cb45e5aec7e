"""The front door: what `twistd streamproxy` reads from its command line.

The service that it runs is in `daemon/running.py`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os

from twisted.application.service import IService, MultiService
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from streamproxy import __version__
from streamproxy.daemon.identity import check_identity
from streamproxy.daemon.listening import with_backlog
from streamproxy.daemon.running import CannotStart as CannotStart
from streamproxy.daemon.running import ProxyService
from streamproxy.logs import ScriptLog, overheard, twistd_log
from streamproxy.settings import ConfigurationError, Settings, load


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
        _say_what_scripts_say()
        if self["check"]:
            self.checked()
            print(f"{self['config']}: in order")
            raise SystemExit(0)
        with overheard():
            self.settings = self.checked()
        if self.parent is not None:
            twistd_log.use(self.parent, self.settings.log)

    def checked(self) -> Settings:
        """Read the configuration and what it names; raises `CannotStart`, with a line for each error."""
        self._folder = os.getcwd()
        try:
            settings = self.read()
        except ConfigurationError as error:
            raise CannotStart("\n".join(error.lines)) from None
        problems = [f"listen: {problem}" for each in settings.listen if (problem := _what_is_wrong_with(each))]
        try:
            check_identity(settings)
        except ConfigurationError as error:
            problems += error.lines
        if problems:
            raise CannotStart("\n".join(f"{self['config']}: {problem}" for problem in problems))
        return settings


def _say_what_scripts_say() -> None:
    """Have what is said by Python's own logging on twistd's log, also while scripts are loaded: Twisted keeps it."""
    if not any(isinstance(each, ScriptLog) for each in logging.getLogger().handlers):
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ScriptLog()])


def _what_is_wrong_with(description: str) -> str | None:
    """What Twisted finds wrong with an endpoint, as far as that can be known before it listens."""
    if description.startswith("systemd:"):
        return None
    try:
        serverFromString(None, with_backlog(description))
    except Exception as error:
        return f"expected a Twisted endpoint such as tcp:8080:interface=127.0.0.1, got {description}: {error}"
    return None


def makeService(options: Options) -> IService:
    """The service that twistd runs."""
    from twisted.internet import reactor

    assert options.settings is not None
    service = MultiService()
    proxy = ProxyService(options.settings, reactor, twistd_log.write, options.read)
    proxy.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service
