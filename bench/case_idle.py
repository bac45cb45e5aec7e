"""Ten thousand clients that keep their connections and do nothing: how soon they are in, and what each costs."""

from __future__ import annotations

import errno
import selectors
import socket
import time

from bench.case_stall import KIB, MIB
from bench.connection import Connection, WrongAnswer, check, get
from bench.figures import Report
from bench.parts import Part, Parts, until, want_files

CLIENTS = 10_000
# How many are on their way in at one time.
AT_ONCE = 256
# Addresses to come from, so that ports don't run short.
SOURCES = 5
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
    extra = Connection.to(proxy.port)
    for _ in range(200):
        get(extra, url, LENGTH)
    time.sleep(0.5)
    before, files = proxy.memory(), proxy.open_files()
    started = time.monotonic()
    opened = open_all(number, proxy.port, request)
    until(lambda: proxy.open_files() >= files + number, "the proxy has taken them all")
    took = time.monotonic() - started
    time.sleep(1)
    after = proxy.memory()
    report.figure(f"{words}: seconds to open {number}", took, "s", below=10)
    report.figure(f"{words}: resident memory each", (after - before) / number / KIB, "KiB", below=10)
    waits = []
    for sock in opened[:: max(1, number // 200)]:
        connection = Connection(sock)
        began = time.monotonic()
        try:
            get(connection, url, LENGTH)
        except OSError as error:
            raise WrongAnswer(f"an idle connection was lost: {error}") from None
        waits.append(time.monotonic() - began)
    report.figure(f"{words}: the longest that one of 200 of them waits for its next", max(waits) * 1000, "ms")
    for sock in opened:
        sock.close()
    until(lambda: proxy.open_files() < files + 600, "the proxy has let go of them all")
    time.sleep(1)
    report.figure(f"{words}: resident memory still held when they are gone", (proxy.memory() - before) / MIB, "MiB")
