"""Ten thousand clients that keep their connections and do nothing: how soon they are in, and what each costs."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time

from bench.case_stall import KIB, MIB
from bench.connection import Connection, WrongAnswer, check, get
from bench.figures import Report
from bench.parts import CannotMeasure, Part, Parts, until, want_files

CLIENTS = 10_000
# How many are on their way in at one time.
AT_ONCE = 256
# Addresses to come from, so that ports don't run short.
SOURCES = 5
# How long they may take to be in, in seconds, before that is taken for never.
MOST_SECONDS = 20
LENGTH = 600


class Client:
    """A connection on its way in: connecting, then (where it asks) waiting for its response."""

    def __init__(self, number: int, port: int, request: bytes) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.bind((f"127.0.0.{1 + number % SOURCES}", 0))
        self.request = request
        self.answer = b""
        found = self.sock.connect_ex(("127.0.0.1", port))
        check(found in (0, errno.EINPROGRESS), f"can't connect: {errno.errorcode.get(found, found)}")

    def connected(self) -> bool:
        """It is connected; whether that is all."""
        found = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        check(not found, f"can't connect: {errno.errorcode.get(found, found)}")
        if self.request:
            self.sock.send(self.request)
        return not self.request

    def read(self) -> bool:
        """Whether its response is there."""
        data = self.sock.recv(65536)
        check(bool(data), "a connection was closed")
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found or len(body) < LENGTH:
            return False
        check(head.startswith(b"HTTP/1.1 200 ") and body == b"x" * LENGTH, f"a wrong answer: {head!r}")
        return True


def open_all(number: int, port: int, request: bytes) -> list[socket.socket]:
    """Open `number` connections, `AT_ONCE` at a time; each has its response, where there is a `request`."""
    clients, on_the_way = [], 0
    with selectors.DefaultSelector() as selector:
        while len(clients) < number or on_the_way:
            while len(clients) < number and on_the_way < AT_ONCE:
                client = Client(len(clients), port, request)
                clients.append(client)
                selector.register(client.sock, selectors.EVENT_WRITE, client)
                on_the_way += 1
            ready = selector.select(30)
            check(bool(ready), "nothing happened for 30 seconds")
            for key, events in ready:
                client = key.data
                if events & selectors.EVENT_WRITE:
                    done = client.connected()
                    if not done:
                        selector.modify(client.sock, selectors.EVENT_READ, client)
                else:
                    done = client.read()
                if done:
                    selector.unregister(client.sock)
                    on_the_way -= 1
    return [client.sock for client in clients]


def idle(parts: Parts, report: Report) -> None:
    """Once with clients that have asked for something, and once with ones that haven't."""
    nginx = parts.nginx()
    number = min(CLIENTS, want_files(65536) - 1500)
    if number < CLIENTS:
        report.say(f"only {number} clients, for no more files may be open (ulimit -Hn)")
    url = nginx.url("/small")
    request = f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{nginx.port}\r\n\r\n".encode()
    # The limit is on all connections, and we come with one of our own.
    for words, asked in (("one request each", request), ("none yet", b"")):
        proxy = parts.streamproxy(f"limits.connections={number + 100}")
        report.say(f"{number} clients, {words}")
        one(report, proxy, url, words, asked, number)
        proxy.stop()


def one(report: Report, proxy: Part, url: str, words: str, request: bytes, number: int) -> None:
    innocent = Connection.to(proxy.port)
    for _ in range(200):
        get(innocent, url, LENGTH)
    time.sleep(0.5)
    before, files = proxy.memory(), proxy.open_files()
    started = time.monotonic()
    opened = open_all(number, proxy.port, request)
    # A connection is there for its client when the kernel says so, and for the proxy when it has accepted it.
    with contextlib.suppress(CannotMeasure):
        until(lambda: proxy.open_files() >= files + number, "all are in", MOST_SECONDS)
    took = time.monotonic() - started
    report.figure(f"{words}: are in", min(number, proxy.open_files() - files), "", at_least=number)
    report.figure(f"{words}: seconds until they were", took, "s", below=10)
    time.sleep(1)
    after = proxy.memory()
    report.figure(f"{words}: resident memory each", (after - before) / number / KIB, "KiB", below=10)
    waits = []
    for sock in opened[:: max(1, number // 200)]:
        connection = Connection(sock)
        try:
            waits.append(wait(connection, url))
        except OSError as error:
            raise WrongAnswer(f"an idle connection was lost: {error}") from None
    report.figure(f"{words}: the longest that one of 200 of them waits for a response", max(waits), "ms")
    for sock in opened:
        sock.close()
    report.figure(
        f"{words}: how long another client waits while all of them leave", wait(innocent, url), "ms", below=1000
    )
    until(lambda: proxy.open_files() < files + 600, "the proxy has let go of them all")
    opened = open_all(number, proxy.port, request)
    time.sleep(1)
    report.figure(f"{words}: growth when as many come again", (proxy.memory() - after) / MIB, "MiB")
    for sock in opened:
        sock.close()


def wait(connection: Connection, url: str) -> float:
    """How long a small request takes, in milliseconds."""
    began = time.monotonic()
    get(connection, url, LENGTH)
    return (time.monotonic() - began) * 1000
