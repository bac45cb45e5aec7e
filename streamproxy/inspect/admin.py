"""The admin listener: whether the proxy is well, its metrics, and a word to reload. It speaks HTTP by twisted.web.

Who is served is told in `guard`. What is held for a client has a limit: its head, its body, how long a request may take
to come, and how many connections there are.
"""

# Much of twisted.web is not annotated.
# mypy: allow-untyped-calls

from __future__ import annotations

import html
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from streamproxy import __version__, settings
from streamproxy.inspect.guard import READING, Asked, Refusal, refusal
from streamproxy.inspect.metrics import CONTENT_TYPE

# How long a request may take to come as a whole, and with it the silence before it, in seconds.
PATIENCE = 30
LONGEST_BODY = 64 << 10
MOST_FIELDS = 100
MOST_CONNECTIONS = 64
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
# Of every response. None of them may be kept, framed, or read by another site's page.
FIELDS = (
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
# What twisted.web has no words for.
PHRASES = {421: b"Misdirected Request", 422: b"Unprocessable Content"}
log = Logger()


class Answer:
    """What a page answers: a status, a text, and what it is."""

    def __init__(self, text: str | bytes, status: int = 200, content_type: str = TEXT) -> None:
        self.body = text.encode() if isinstance(text, str) else text
        self.status = status
        self.content_type = content_type


class Page(Resource):
    """A resource without others below it, which takes some methods and answers at once."""

    isLeaf = True

    def __init__(self, answer: Callable[[], Answer], methods: frozenset[bytes] = READING) -> None:
        super().__init__()
        self._answer = answer
        self._methods = methods

    def render(self, request: Request) -> bytes:
        if request.postpath:
            return sent(request, NOT_FOUND)
        if request.method not in self._methods:
            request.setHeader(b"Allow", b", ".join(sorted(self._methods)))
            return sent(request, Answer("not with this method\n", 405))
        return sent(request, self._answer())


NOT_FOUND = Answer("there is nothing here\n", 404)


def sent(request: Request, answer: Answer) -> bytes:
    """Put the head of `answer` on `request`; gives the body."""
    request.setResponseCode(answer.status, PHRASES.get(answer.status))
    request.setHeader(b"Content-Type", answer.content_type.encode())
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    return answer.body


class _Root(Resource):
    """Answers in its own words where there is no page."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return Page(lambda: NOT_FOUND, frozenset((request.method,)))


class AdminRequest(Request):
    """A request that is looked at by the guard before anything is made of it, and whose body has a limit."""

    _length = 0
    _over = False

    def gotLength(self, length: int | None) -> None:
        # In memory, whatever the length: it is small, or nothing.
        self.content = BytesIO()
        if length is not None and length > LONGEST_BODY:
            self._too_large()

    def handleContentChunk(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > LONGEST_BODY:
            self._too_large()
        else:
            super().handleContentChunk(data)

    def _too_large(self) -> None:
        if not self._over:
            self._over = True
            self.requestHeaders.removeHeader(b"expect")
            self.channel.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.channel.loseConnection()

    def process(self) -> None:
        if self._over:
            return
        found = refusal(cast(Any, self.channel).site.admin, self._asked())
        if found is None:
            super().process()
        else:
            self._refuse(found)

    def _asked(self) -> Asked:
        fields = {name.lower(): values for name, values in self.requestHeaders.getAllRawHeaders()}
        peer = self.getClientAddress()
        address = None if isinstance(peer, UNIXAddress) else getattr(peer, "host", "")
        return Asked(self.method, self.path, address, fields)

    def render(self, resrc: Resource) -> None:
        """As twisted.web does, but without a word on the log for a HEAD."""
        body = resrc.render(self)
        if body is not NOT_DONE_YET:
            self.write(body)
            self.finish()

    def _refuse(self, found: Refusal) -> None:
        if found.status == 401:
            self.setHeader(b"WWW-Authenticate", b'Bearer realm="streamproxy"')
        self.write(sent(self, Answer(f"{found.why}\n", found.status)))
        self.finish()

    def write(self, data: bytes) -> None:
        if not self.startedWriting:
            # It needn't be known which version of what this is.
            self.responseHeaders.removeHeader(b"server")
            for name, value in FIELDS:
                self.responseHeaders.setRawHeaders(name, [value])
        super().write(data)

    def processingFailed(self, reason: Failure) -> Failure:
        """A page raised: that is ours to know."""
        log.failure("the admin listener: {path}", failure=reason, path=self.path)
        if self.startedWriting:
            self.channel.loseConnection()
        else:
            self.write(sent(self, Answer("an error inside the proxy: its log says more\n", 500)))
            self.finish()
        return reason


class AdminChannel(HTTPChannel):
    """A connection: twisted.web's, but a request that trickles in isn't waited for any longer than one that doesn't."""

    maxHeaders = MOST_FIELDS
    site: AdminSite
    transport: Any
    _ending: IDelayedCall | None = None

    def connectionMade(self) -> None:
        channels = self.site.channels
        if len(channels) >= MOST_CONNECTIONS:
            # Whoever holds them all keeps nobody out.
            eldest = next(iter(channels))
            # At once, for it is told of its end in another turn.
            del channels[eldest]
            eldest.transport.abortConnection()
        channels[self] = None
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self.site.channels.pop(self, None)
        super().connectionLost(reason)

    def resetTimeout(self) -> None:
        """What comes is no reason to wait longer: the time is set anew behind each response."""

    def timeoutConnection(self) -> None:
        """Send what is written, if the client takes it; nobody needs a word on the log for it."""
        self._ending = self.callLater(self.abortTimeout, self.transport.abortConnection)
        self.loseConnection()


class AdminSite(Site):
    """The factory of the listener's connections. `admin` may be put in the place of the one before at any time."""

    noisy = False
    protocol = AdminChannel  # type: ignore[assignment]

    def __init__(self, admin: settings.Admin, root: Resource, clock: IReactorTime) -> None:
        super().__init__(
            root,
            requestFactory=AdminRequest,
            parsePOSTFormSubmission=False,
            timeout=PATIENCE,
            reactor=clock,
        )
        self.admin = admin
        # The open connections, the eldest first.
        self.channels: dict[AdminChannel, None] = {}

    def abort_all(self) -> None:
        """End all connections: they are to a listener that there isn't any more."""
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def startFactory(self) -> None:
        """Keep no log of requests, nor the clock for it."""

    def stopFactory(self) -> None:
        """There is nothing to close."""

    def log(self, request: Any) -> None:
        """Requests here have no line on the log."""


def admin_site(
    admin: settings.Admin,
    clock: IReactorTime,
    metrics: Callable[[], bytes],
    reload: Callable[[], list[str]],
    why_not_ready: Callable[[], str],
) -> AdminSite:
    """The admin listener, as `admin` says.

    `metrics` gives them in Prometheus' text format. `reload` reads the configuration again: it gives what is wrong with
    that, a line an error, and none where it is obeyed now. `why_not_ready` says in words why nobody should be sent
    to the proxy now, and nothing where it is ready.
    """
    root = _Root()
    pages = {
        b"": Page(_index),
        b"healthz": Page(lambda: Answer("in order\n")),
        b"readyz": Page(lambda: _readiness(why_not_ready())),
        b"metrics": Page(lambda: Answer(metrics(), 200, CONTENT_TYPE)),
        b"reload": Page(lambda: _reloaded(reload), frozenset((b"POST",))),
    }
    for path, page in pages.items():
        root.putChild(path, page)
    return AdminSite(admin, root, clock)


def _index() -> Answer:
    links = "".join(f'<li><a href="{path}">{path}</a>' for path in ("healthz", "readyz", "metrics"))
    name = html.escape(f"streamproxy {__version__}")
    return Answer(
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n'
        f"<h1>{name}</h1>\n<ul>{links}<li>POST reload</ul>\n",
        200,
        HTML,
    )


def _readiness(why_not: str) -> Answer:
    return Answer(f"{why_not}\n", 503) if why_not else Answer("ready\n")


def _reloaded(reload: Callable[[], list[str]]) -> Answer:
    try:
        wrong = reload()
    except Exception:
        log.failure("POST /reload")
        return Answer("not reloaded: an error inside the proxy: its log says more\n", 500)
    if wrong:
        return Answer("not reloaded, the old configuration stays:\n" + "".join(f"{line}\n" for line in wrong), 422)
    return Answer("reloaded\n")
