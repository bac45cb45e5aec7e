"""One run of the testsuite: the parts that it takes, started on free ports of 127.0.0.1 and stopped again.

A run faces the proxy with a nasty client, which tests autobahn's echo server behind it, or with a nasty server, to
which autobahn's echo client comes through it. Without a proxy it is the base line.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, cast

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import PROJECT, Program, Proxy, clean_environment
from tests.system.secure import certificate_for_us, origin_ca

# As long as the testsuite's longest case may take, and some more, in seconds.
STUCK = 600
# What the testsuite calls who it tested.
AGENT = "tested"
NONE, STREAM, MESSAGES = "none", "stream", "messages"
# What a WebSocket's line on the proxy's log has in it.
JOURNALLED = {STREAM: '"mode": "streamed"', MESSAGES: '"mode": "messages"'}
RULES = """\
stream_websockets: {streams}
tls:
  trusted_ca: ["{ca}"]
"""


class Setup(NamedTuple):
    """Who is nasty (`client` or `server`), what the proxy does (`none`: there is none), and `ws` or `wss`."""

    facing: str
    mode: str
    scheme: str

    @property
    def name(self) -> str:
        return "-".join(self)

    @property
    def baseline(self) -> Setup:
        return self._replace(mode=NONE)


class Run(NamedTuple):
    """How a run went.

    `seconds` is how long it took, `fault` what went wrong with its parts, in words, if anything did, and `relayed` how
    many WebSockets the proxy says to have relayed in the run's mode.
    """

    seconds: float
    fault: str
    relayed: int


class Parts(contextlib.ExitStack):
    """What is started in it is stopped when it is left. To the parts of the system tests it is a test case."""

    def addCleanup(self, function, *arguments, **named) -> None:
        self.callback(function, *arguments, **named)

    def assertNotIn(self, word: str, text: str) -> None:
        if word in text:
            raise AssertionError(f"the proxy's log has a {word!r} in it")


def carry_out(setup: Setup, cases: list[str], python2: Path, folder: Path) -> Run:
    """Go through `cases` (the testsuite's patterns) and leave its reports, and what its parts printed, in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    fault = ""
    try:
        with Parts() as parts:
            nasty = _nasty_client if setup.facing == "client" else _nasty_server
            nasty(_Stage(parts, setup, cases, python2, folder))
    except AssertionError as error:
        fault = str(error)
    for path in sorted(folder.glob("*.log")):
        if "Traceback" in path.read_text():
            fault = fault or f"there is a traceback in {path}"
    log = folder / "proxy.log"
    relayed = log.read_text().count(JOURNALLED[setup.mode]) if log.exists() else 0
    return Run(time.monotonic() - began, fault, relayed)


class _Stage:
    """Starts the parts of a run."""

    def __init__(self, parts: Parts, setup: Setup, cases: list[str], python2: Path, folder: Path) -> None:
        self.case = cast(SynchronousTestCase, parts)
        self.setup = setup
        self.cases = cases
        self.python2 = python2
        self.folder = folder
        # What the parts need beside what they are to leave behind.
        self.work = folder / "parts"
        self.work.mkdir()
        self.ca = self.work / "ca.pem"
        self.ca.write_bytes(origin_ca().certificate_pem)
        # With its key: the option of who speaks TLS as a server.
        self.pem = []
        if setup.scheme == "wss":
            path = self.work / "origin.pem"
            path.write_bytes(certificate_for_us().pem)
            self.pem = [str(path)]

    def proxy(self) -> Proxy | None:
        if self.setup.mode == NONE:
            return None
        rules = RULES.format(streams="true" if self.setup.mode == STREAM else "false", ca=self.ca)
        proxy = Proxy(self.case, rules, folder=self.work)
        self._log("proxy", proxy)
        return proxy

    def module(self, name: str, *arguments: object) -> Program:
        """A module of this package."""
        environment = {**clean_environment(self.work), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-u", "-m", f"tests.autobahn.{name}", *map(str, arguments)]
        program = Program(self.case, command, self.work, env=environment)
        self._log(name, program)
        return program

    def fuzzer(self, role: str, specification: dict, *arguments: str) -> Program:
        """The testsuite's nasty `role`."""
        path = self.work / "specification.json"
        common = {"outdir": str(self.folder), "cases": self.cases, "exclude-cases": []}
        path.write_text(json.dumps({**specification, **common}))
        script = Path(__file__).with_name("fuzzer.py")
        program = Program(self.case, [self.python2, "-u", script, role, path, *arguments], self.work)
        self._log("fuzzer", program)
        return program

    def _log(self, name: str, program: Program) -> None:
        # After it has ended: what is cleaned up last was registered first, and the program did that before.
        path = self.folder / f"{name}.log"
        end = program.end

        def write() -> None:
            end()
            path.write_text(program.output + "\n")

        self.case.addCleanup(write)


def _nasty_client(stage: _Stage) -> None:
    server_port = _port_of(stage.module("testee", "server", *stage.pem))
    proxy = stage.proxy()
    port = server_port if proxy is None else _port_of(stage.module("connect_shim", proxy.port, server_port))
    server = {"agent": AGENT, "url": f"{stage.setup.scheme}://127.0.0.1:{port}"}
    _wait_for_end(stage.fuzzer("client", {"servers": [server]}))


def _nasty_server(stage: _Stage) -> None:
    url = f"{stage.setup.scheme}://127.0.0.1"
    # The port is whatever is free; it says it.
    port = _port_of(stage.fuzzer("server", {"url": url + ":1"}, *stage.pem))
    proxy = stage.proxy()
    if stage.setup.scheme == "ws":
        ca = ""
    else:
        ca = str(stage.ca if proxy is None else proxy.ca)
    way = [] if proxy is None else [proxy.port]
    _wait_for_end(stage.module("testee", "client", f"{url}:{port}", AGENT, ca, *way))


def _port_of(program: Program) -> int:
    """The port that it says it listens on."""
    says = "listening on "

    def said(lines: list[str]) -> bool:
        return any(line.startswith(says) for line in lines)

    program.wait_for(said, "the line of a listener")
    return int(next(line for line in program.lines if line.startswith(says)).removeprefix(says))


def _wait_for_end(program: Program) -> None:
    """Wait until it has gone through its cases; as long as it takes, while it prints something now and then."""
    seen = -1
    while True:
        try:
            status = program.process.wait(STUCK)
        except subprocess.TimeoutExpired:
            if len(program.lines) == seen:
                raise AssertionError(f"stuck after {program.lines[-1]!r}") from None
            seen = len(program.lines)
            continue
        if status:
            raise AssertionError(f"ended with {status}: {program.output[-1000:]}")
        return
