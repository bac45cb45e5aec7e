"""Conversations: client says, origin hears, origin says, client hears.

A conversation is written down once and replayed whole, with each saying split in two at every place, and byte by
byte. What is heard must be the same each time.

    self.play(
        client(b"GET http://a.example/ HTTP/1.1\\r\\nHost: a.example\\r\\n\\r\\n"),
        origin_hears(b"GET / HTTP/1.1\\r\\nHost: a.example\\r\\nVia: 1.1 proxy\\r\\n\\r\\n"),
        ...
    )
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.flow import Flow
from streamproxy.journal import Journal
from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.pool import Pool
from streamproxy.proxy.proxy import Proxy
from streamproxy.settings import Settings, load
from streamproxy.tls.contexts import OriginFacing
from tests.fakes import TCP, BoundedTransport

VIA = b"proxy"


def settings_of(text: str = "", *overrides: str) -> Settings:
    """Settings read from YAML `text`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(text)
        return load(str(path), overrides)


class FakePool(Pool):
    """A pool that dials `BoundedTransport`s, kept in `made`, the newest last; TLS to origins is real.

    `dialled` are the hosts and ports. `refuses` is what dialling fails with; with `waits` it comes to nothing before
    `let_connect`.
    """

    def __init__(self, clock: Clock, settings: Settings, manner: str = TCP, tls: OriginFacing | None = None) -> None:
        super().__init__(clock, settings, tls)
        self.manner = manner
        self.made: list[BoundedTransport] = []
        self.dialled: list[tuple[str, int]] = []
        self.refuses: Exception | None = None
        self.waits = False
        self.waiting: list[tuple[Deferred, object]] = []

    def dial(self, host, port, make, known=()):
        self.dialled.append((host, port))
        if self.waits:
            waiting: Deferred = Deferred()
            self.waiting.append((waiting, make))
            return waiting
        return fail(self.refuses) if self.refuses is not None else succeed(self._connected(make))

    def _connected(self, make):
        protocol = make()
        self.made.append(BoundedTransport(self.manner).connect(protocol))
        return protocol

    def let_connect(self) -> None:
        """Carry out the dialling that was made to wait, but for what has been cancelled."""
        waiting, self.waiting = self.waiting, []
        for deferred, make in waiting:
            if not deferred.called:
                deferred.callback(self._connected(make))


class FakeJournal:
    """Keeps the flows themselves, beside what a journal writes of them."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self._journal = Journal(self.written.append, Clock())
        self.flush = self._journal.flush
        self.flows: list[Flow] = []

    def record(self, flow: Flow) -> None:
        self._journal.record(flow)
        self.flows.append(flow)


class Stage:
    """A proxy between fake transports."""

    def __init__(self, settings: Settings | None = None, manner: str = TCP) -> None:
        self.clock = Clock()
        self.settings = settings_of() if settings is None else settings
        self.pool = FakePool(self.clock, self.settings, manner)
        self.journal = FakeJournal()
        self.proxy = Proxy(self.settings, self.pool, self.journal, self.clock, VIA)
        self.factory = DownstreamFactory(self.proxy)
        self.manner = manner

    def client(self) -> BoundedTransport:
        """A client that has connected."""
        return BoundedTransport(self.manner).connect(self.factory.buildProtocol(None))

    @property
    def origin(self) -> BoundedTransport:
        """The origin's end of the newest connection."""
        return self.pool.made[-1]

    def turn(self) -> None:
        """What is due at once happens."""
        for _ in range(50):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
            self.clock.advance(0)

    def settle(self, client: BoundedTransport) -> None:
        """Both peers read what there is, until nothing moves."""
        for _ in range(50):
            self.turn()
            moved = bool(client.take())
            for made in self.pool.made:
                moved = bool(made.take()) or moved
            if not moved and not self.clock_is_due():
                return

    def clock_is_due(self) -> bool:
        return any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls())


class Step(NamedTuple):
    who: str
    does: str
    what: bytes = b""


def client(what: bytes) -> Step:
    return Step("client", "says", what)


def origin(what: bytes) -> Step:
    return Step("origin", "says", what)


def client_hears(what: bytes) -> Step:
    return Step("client", "hears", what)


def origin_hears(what: bytes) -> Step:
    return Step("origin", "hears", what)


def origin_connected(times: int) -> Step:
    """So many connections to origins have been made by now."""
    return Step("origin", "connected", b"%d" % times)


CLIENT_ENDS = Step("client", "ends")
CLIENT_RESETS = Step("client", "resets")
ORIGIN_ENDS = Step("origin", "ends")
ORIGIN_RESETS = Step("origin", "resets")
CLIENT_SEES_CLOSE = Step("client", "sees close")
CLIENT_SEES_RESET = Step("client", "sees reset")
CLIENT_STAYS = Step("client", "stays")
ORIGIN_SEES_CLOSE = Step("origin", "sees close")
ORIGIN_LET_GO = Step("origin", "let go")  # closed or reset

REFUSED = ConnectionRefusedError()


class ConversationTestCase(SynchronousTestCase):
    """`play` a conversation in every cut."""

    def play(self, *steps: Step, rules: str = "", outcome: str | None = None, splits: bool = True) -> list[Flow]:
        """Play `steps` under the settings and rules of YAML `rules`; the flows of the last replay.

        `outcome`: that of every exchange, if it is to be checked.
        """
        settings = settings_of(rules)
        flows = self._replay(settings, steps, outcome, "whole", {})
        if splits:
            for number, step in enumerate(steps):
                if step.does == "says":
                    for at in range(1, len(step.what)):
                        self._replay(settings, steps, outcome, f"step {number} split at {at}", {number: [at]})
            every = {number: list(range(1, len(step.what))) for number, step in enumerate(steps) if step.does == "says"}
            flows = self._replay(settings, steps, outcome, "byte by byte", every)
        return flows

    def _replay(self, settings, steps, outcome, cut, cuts) -> list[Flow]:
        stage = Stage(settings)
        transport = stage.client()
        heard = {"client": 0, "origin": 0}
        connections = 0
        for number, step in enumerate(steps):
            where = f"{cut}, step {number} ({step.who} {step.does})"
            if step.who == "client":
                peer = transport
            elif step.does != "connected":
                self.assertTrue(stage.pool.made, f"{where}: nothing has connected to an origin")
                peer = stage.origin
                if len(stage.pool.made) > connections:
                    connections = len(stage.pool.made)
                    heard["origin"] = 0
            if step.does == "says":
                places = [0, *cuts.get(number, []), len(step.what)]
                for start, stop in itertools.pairwise(places):
                    peer.say(step.what[start:stop])
                    stage.settle(transport)
            elif step.does == "hears":
                stage.settle(transport)
                new = bytes(peer.heard[heard[step.who] :])
                self.assertEqual(new, step.what, where)
                heard[step.who] = len(peer.heard)
            elif step.does == "connected":
                self.assertEqual(len(stage.pool.made), int(step.what), where)
            elif step.does == "ends":
                peer.end()
            elif step.does == "resets":
                peer.reset()
            elif step.does == "sees close":
                stage.settle(transport)
                self.assertTrue(peer.write_closed or (peer.disconnected and not peer.aborted), where)
            elif step.does == "let go":
                stage.settle(transport)
                self.assertTrue(peer.disconnected, where)
            elif step.does == "sees reset":
                stage.settle(transport)
                self.assertTrue(peer.aborted, where)
            elif step.does == "stays":
                stage.settle(transport)
                self.assertFalse(peer.disconnected or peer.write_closed, where)
            stage.settle(transport)
        if outcome is not None:
            self.assertEqual(
                [flow.outcome for flow in stage.journal.flows] or ["none"],
                [outcome] * max(1, len(stage.journal.flows)),
                cut,
            )
        flows = list(stage.journal.flows)
        for made in [transport, *stage.pool.made]:
            self.assertLessEqual(max(made.writes, default=0), settings.write_size, cut)
            made.reset()
        stage.settle(transport)
        self.assertEqual(stage.proxy.memory.held, 0, f"{cut}: held when everybody has gone")
        return flows
