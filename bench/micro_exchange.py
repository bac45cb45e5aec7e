"""Micro-benchmarks of whole exchanges: all that the proxy does for them, but for reactor, sockets and the log's file.

Client and origin are transports that only count. The clock stands still: nothing here waits for a time, and what is due
at once is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from bench.connection import check
from bench.micro_bodies import PIECE, READ, TEXT, Drain
from bench.micro_heads import BODY, BROWSER_REQUEST, RESPONSE, SMALL_REQUEST, VIA
from bench.micro_rules import rule_set, rules_data
from streamproxy.journal import Journal
from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.pool import Pool
from streamproxy.proxy.proxy import Proxy
from streamproxy.settings import Settings

LARGE = 1 << 20


class Peer(Drain):
    """A transport, as much of one as an exchange that goes well uses, whose peer has read whatever is written."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(float("inf"))
        self.protocol = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)


class PoolOfPeers(Pool):
    """Its connections lead to peers, kept in `made`."""

    def __init__(self, clock: Any, settings: Settings) -> None:
        super().__init__(clock, settings)
        self.made: list[Peer] = []

    def dial(self, host: str, port: int, make: Callable[[], Protocol], known: Sequence[str] = ()) -> Deferred[Protocol]:
        protocol = make()
        self.made.append(Peer(protocol))
        return succeed(protocol)


def exchange(settings: Settings, request: bytes, head: bytes, body: list[bytes]) -> Callable[[], object]:
    """The client sends `request`, in one read, and the origin `head` and `body`: the first two in one read.

    Both keep their connections.
    """
    clock: Any = Clock()
    lines = 0

    def count(text: str) -> None:
        nonlocal lines
        lines += text.count("\n")

    pool = PoolOfPeers(clock, settings)
    journal = Journal(count, clock)
    proxy = Proxy(settings, pool, journal, clock, VIA)
    protocol = DownstreamFactory(proxy).buildProtocol(None)
    client = Peer(protocol)
    first, *rest = body
    reads = [head + first, *rest]

    def run() -> None:
        protocol.dataReceived(request)
        origin = pool.made[0].protocol
        for data in reads:
            origin.dataReceived(data)
        if clock.calls[0].getTime() <= clock.seconds():
            clock.advance(0)

    client.kept = []
    run()
    origin = pool.made[0]
    sent, answered = origin.written, client.written
    came, _, found = b"".join(client.kept).partition(b"\r\n\r\n")
    check(came.startswith(b"HTTP/1.1 200 OK\r\n") and came.endswith(b"Via: 1.1 proxy"), f"the client got {came!r}")
    check(found == b"".join(body), "the client got another body")
    client.kept = None
    for again in (2, 3):
        run()
        check((origin.written, client.written) == (again * sent, again * answered), "the next exchange was another")
    journal.flush()
    check(lines == 3 and len(pool.made) == 1, f"{lines} lines, {len(pool.made)} connections to the origin")
    expected = lines

    def run_checked() -> None:
        nonlocal expected
        expected += 1
        run()
        if client.written != expected * answered or origin.written != expected * sent:
            raise AssertionError("an exchange went another way")

    return run_checked


def small(request: bytes, rules: int = 0) -> Callable[[], object]:
    """A small response, held against so many rules for other hosts."""
    settings = Settings(rules=rule_set(rules_data(["hosts"], rules)))
    return exchange(settings, request, RESPONSE, [BODY])


def large(head_field: bytes, body: list[bytes]) -> Callable[[], object]:
    """A response of 1 MiB, streamed."""
    return exchange(Settings(write_size=PIECE), SMALL_REQUEST, b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head_field, body)


PIECES: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
    ("exchange: 600 bytes", lambda: small(SMALL_REQUEST)),
    ("exchange: 600 bytes, 15 fields, 100 rules for other hosts", lambda: small(BROWSER_REQUEST, 100)),
    ("exchange: 1 MiB", lambda: large(b"Content-Length: %d" % LARGE, [TEXT] * (LARGE // READ))),
)
