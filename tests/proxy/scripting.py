"""Exchanges in which scripts have a say: hooks written in the test itself, run as a script's are, plainly or not.

`HOOKS` are the ways in which a hook may run: at once, or as a coroutine that waits for asyncio or for a Deferred,
before and behind what it does. What comes of an exchange is the same for each, for each manner of transport, and in
each cut.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.settings import Settings, load
from tests.conversation import Stage
from tests.fakes import TCP, TLS, BoundedTransport
from tests.passage import Message, Passed, cut, read_request, read_response

GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_HEAD = b"HTTP/1.1 200 OK\r\n"
UPLOAD = POST + b"Content-Length: 5\r\n\r\nhello"
LENGTH = OK_HEAD + b"Content-Length: 5\r\n\r\nworld"
NAMES = ("requestheaders", "request", "responseheaders", "response")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SCRIPT = "from tests.proxy import scripting\nglobals().update(scripting.current)\n"
# A wait of a hook's, in seconds; nothing of the proxy's own takes as little.
WAIT = 0.25

current: dict[str, object] = {}
waiting: list[Deferred] = []


def plainly(hook: Callable) -> Callable:
    return hook


def asleep(hook: Callable) -> Callable:
    async def waits(flow):
        await asyncio.sleep(WAIT)
        hook(flow)
        await asyncio.sleep(WAIT)

    return waits


def deferred(hook: Callable) -> Callable:
    async def waits(flow):
        for _ in range(2):
            once: Deferred = Deferred()
            waiting.append(once)
            await once
        hook(flow)

    return waits


HOOKS = (plainly, asleep, deferred)


def scripted(text: str = "", way: Callable = plainly, **hooks: object) -> Settings:
    """Settings of YAML `text` with a script whose functions are `hooks`, each of which runs in `way`."""
    current.clear()
    current.update({name: way(hook) if callable(hook) else hook for name, hook in hooks.items()})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "script.py").write_text(SCRIPT)
        path = Path(folder, "rules.yaml")
        path.write_text(f"scripts: [script.py]\n{text}")
        return load(str(path), ())


def settle(stage: Stage, client: BoundedTransport, *, hooks: bool = True) -> None:
    """Everything that can happen does; `hooks`: with what those wait for."""
    for _ in range(200):
        stage.settle(client)
        if not hooks:
            return
        if waiting:
            waiting.pop(0).callback(None)
        elif any(call.getTime() <= stage.clock.seconds() + WAIT for call in stage.clock.getDelayedCalls()):
            stage.clock.advance(WAIT)
        else:
            return


def carry(
    settings: Settings,
    request: Iterable[bytes],
    response: Iterable[bytes] = (),
    *,
    origin_ends: bool = False,
    manner: str = TCP,
    hooks: bool = True,
) -> Passed:
    """As in `tests.passage`, but time passes where a hook waits: for each piece, or only when all has been said."""
    stage = Stage(settings, manner)
    client = stage.client()
    for piece in request:
        client.say(piece)
        settle(stage, client, hooks=hooks)
    settle(stage, client)
    if stage.pool.made:
        for piece in response:
            stage.origin.say(piece)
            settle(stage, client, hooks=hooks)
        if origin_ends:
            stage.origin.end()
        settle(stage, client)
    heard = bytes(stage.origin.heard) if stage.pool.made else b""
    stage.proxy.script_loop.stop()
    for made in [client, *stage.pool.made]:
        assert max(made.writes, default=0) <= settings.write_size
    return Passed(
        heard,
        bytes(client.heard),
        client.write_closed or (client.disconnected and not client.aborted),
        client.aborted,
        len(stage.pool.made),
        stage.journal.flows,
    )


class StageTestCase(SynchronousTestCase):
    """Leaves no coroutine of a script behind."""

    def setUp(self) -> None:
        self.addCleanup(current.clear)
        self.addCleanup(waiting.clear)

    def kept(self, stage: Stage) -> Stage:
        """`stage`, whose scripts are stopped when the test is over."""
        self.addCleanup(stage.proxy.script_loop.stop)
        return stage


class WaitTestCase(StageTestCase):
    """`begin` an exchange that comes to a hook, which waits until `go_on`."""

    def begin(self, name: str, *, text: str = "", manner: str = TCP, request: bytes = UPLOAD, response: bytes = LENGTH):
        self.once: Deferred = Deferred()
        self.ended: list[str] = []
        self.errors: list[str] = []

        async def hook(flow):
            try:
                await self.once
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("went on")

        hooks = {name: hook, "error": lambda flow: self.errors.append(flow.error.msg)}
        self.stage = self.kept(Stage(scripted(text, **hooks), manner))
        self.client = self.stage.client()
        self.client.say(request)
        self.settle()
        if self.stage.pool.made:
            self.stage.origin.say(response)
            self.settle()

    def settle(self) -> None:
        self.stage.settle(self.client)

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.stage.clock.advance(1)
            self.settle()

    def go_on(self) -> None:
        self.once.callback(None)
        self.settle()

    @property
    def flow(self):
        (only,) = self.stage.journal.flows
        return only


class ScriptTestCase(StageTestCase):
    """`passed` carries an exchange in every way; its outcome is the same each time."""

    def each(
        self,
        request: bytes,
        response: bytes = OK,
        /,
        *,
        text: str = "",
        ends: bool = False,
        cuts: tuple[int | None, ...] = (None, 5, 1),
        ways: tuple[Callable, ...] = HOOKS,
        manners: tuple[str, ...] = (TCP, TLS),
        **hooks: Callable,
    ) -> Iterable[tuple[tuple, Passed]]:
        """What comes of it in each way, manner and cut, with where that was."""
        for way in ways:
            for manner in manners:
                for size in cuts:
                    for each_time in (True, False) if way is not plainly else (True,):
                        settings = scripted(text, way, **hooks)
                        passed = carry(
                            settings,
                            cut(request, size),
                            cut(response, size),
                            origin_ends=ends,
                            manner=manner,
                            hooks=each_time,
                        )
                        yield (way.__name__, manner, size, each_time), passed

    def passed(self, request: bytes = GET, response: bytes = OK, /, **more) -> Passed:
        """What comes of it, checked to be the same everywhere."""
        first = None
        for where, passed in self.each(request, response, **more):
            told = [(flow.outcome, flow.error, flow.status) for flow in passed.flows]
            seen = (read_or_raw(passed), told, passed.closed, passed.reset, passed.origins)
            if first is None:
                first = seen
            self.assertEqual(seen, first, where)
        return passed

    def exchanged(self, request: bytes = GET, response: bytes = OK, /, **more) -> tuple[Message, Message]:
        """The request as the origin reads it, the response as the client does."""
        passed = self.passed(request, response, **more)
        self.assertEqual([(flow.outcome, flow.error) for flow in passed.flows], [("forwarded", "")])
        return read_request(passed.origin_heard), read_response(
            passed.client_heard, passed.closed, request.split(b" ")[0]
        )

    def refused(
        self, why: str, request: bytes = GET, response: bytes = OK, /, *, status: int = 502, **more
    ) -> list[Passed]:
        """It is answered by `status`, with `why` in words in answer and log. (Whether the client stays depends on the
        cut: one that is still sending can't.)"""
        seen = []
        for where, passed in self.each(request, response, **more):
            self.assertIn(why, passed.flow.error, where)
            answer = read_response(passed.client_heard, passed.closed)
            self.assertEqual(answer.start, status, where)
            self.assertIn(why.encode(), answer.body, where)
            seen.append(passed)
        return seen


def read_or_raw(passed: Passed) -> tuple:
    """Both messages as they are read, for pieces of chunks may come in other sizes; raw where they can't be."""
    read = []
    for reader, data in ((read_request, passed.origin_heard), (read_response, passed.client_heard)):
        try:
            read.append(reader(data))
        except Exception:
            read.append(data)
    return tuple(read)
