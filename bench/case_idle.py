"""Ten thousand clients that keep their connections and do nothing: how soon they are in, and what each costs
streamproxy and the others."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Iterator
from functools import partial

from bench.case_memory import tell_once
from bench.case_stall import KIB, MIB
from bench.connection import Connection, WrongAnswer, check, get
from bench.figures import Report
from bench.parts import CannotMeasure, Part, Parts, until, want_files
from bench.proxies import HAPROXY, OURS, SQUID, STREAMED, start_proxies

CLIENTS = 10_000
# How many are on their way in at one time.
AT_ONCE = 256
# Addresses to come from, so that ports don't run short.
SOURCES = 5
# How long they may take to be in, in seconds, before that is taken for never.
MOST_SECONDS = 20
LENGTH = 600
# mitmdump's queue of connections that it hasn't accepted: what comes beyond it waits seconds to come again.
MITMDUMP_QUEUE = 100
# How many files that it had before, towards the origin, another proxy may have let go of meanwhile.
FEWER_FILES = 5
# What ours may have for each, in KiB.
GOAL = 8
# And what it may have in all, in MiB.
WHOLE_GOAL = 300


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
    clients: list[Client] = []
    on_the_way = 0
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
    """Once with clients that have asked for something, and once with ones that haven't; each proxy by itself."""
    nginx = parts.nginx()
    files = want_files(65536)
    number = 1_000 if report.quick else min(CLIENTS, files - 1500)
    if number < CLIENTS:
        report.say(f"only {number} clients, as it was asked for, or for no more files may be open (ulimit -Hn)")
    url = nginx.url("/small")
    request = f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{nginx.port}\r\n\r\n".encode()
    for words, asked in (("one request each", request), ("none yet", b"")):
        seen: dict[str, float] = {}
        for name in (OURS, STREAMED, SQUID, HAPROXY):
            most = most_clients(name, bool(asked), files)
            if most < number:
                report.say(f"{name}: {most} clients only, for each can have a connection to the origin as well")
            # The limit is on all connections, and we come with one of our own.
            overrides = [f"limits.connections={number + 100}"]
            for proxy in start_proxies(parts, report, [name], nginx, overrides=overrides).values():
                report.progress(f"{name}, {words}")
                try:
                    found = one(report, proxy, url, words, asked, min(number, most))
                except (WrongAnswer, OSError) as error:
                    if name == OURS:
                        raise
                    report.say(f"{name}, {words}: not measured, for it failed: {error}")
                    proxy.check_running()
                else:
                    seen[name] = found
                proxy.stop()
        tell_once(report, f"{words}: resident memory for each client", seen, "KiB", GOAL)


def most_clients(name: str, asked: bool, files: int) -> int:
    """How many clients a proxy can have, of those that have `asked` for something, with so many open `files`."""
    if name == HAPROXY:
        # What `proxies.py` allows it.
        return files // 2 - 200
    if name == STREAMED and asked:
        # It has a connection to the origin for each, which nginx has no more for than this.
        return min(files // 2 - 200, 3000)
    return files


def batches(number: int, name: str) -> Iterator[int]:
    """How many clients to let in at a time, `number` in all."""
    most = MITMDUMP_QUEUE if name == STREAMED else number
    for left in range(number, 0, -most):
        yield min(left, most)


def has_files(proxy: Part, number: int) -> bool:
    return proxy.open_files() >= number


def one(report: Report, proxy: Part, url: str, words: str, request: bytes, number: int) -> float:
    """Let `number` clients in, and see what becomes of them; KiB resident for each. Goals are for ours alone."""
    ours = proxy.name == OURS
    words = f"{words}: {proxy.name}"
    innocent = Connection.to(proxy.port)
    for _ in range(200):
        get(innocent, url, LENGTH)
    time.sleep(0.5)
    before, files = proxy.memory(), proxy.open_files()
    started = time.monotonic()
    opened: list[socket.socket] = []
    try:
        for size in batches(number, proxy.name):
            opened += open_all(size, proxy.port, request)
            # A connection is there for its client when the kernel says so, and for the proxy when it has accepted it.
            wanted = files + len(opened) - (0 if ours else FEWER_FILES)
            with contextlib.suppress(CannotMeasure):
                until(partial(has_files, proxy, wanted), "all are in", MOST_SECONDS)
        took = time.monotonic() - started
        came = min(number, proxy.open_files() - files)
        check(ours or came >= number - FEWER_FILES, f"{came} of {number} clients are in")
        report.figure(f"{words}: are in", came, "", at_least=number if ours else None)
        report.figure(f"{words}: seconds until they were", took, "s", below=10 if ours else None)
        time.sleep(1)
        after = proxy.memory()
        waits = []
        for sock in opened[:: max(1, number // 200)]:
            try:
                waits.append(wait(Connection(sock), url))
            except OSError as error:
                raise WrongAnswer(f"an idle connection was lost: {error}") from None
        if ours:
            report.figure(f"{words}: resident memory, all of it", after / MIB, "MiB", below=WHOLE_GOAL)
        report.figure(f"{words}: the longest that one of 200 waits for a response", max(waits), "ms")
    finally:
        for sock in opened:
            sock.close()
    leaving = wait(innocent, url)
    report.figure(f"{words}: how long another waits while all leave", leaving, "ms", below=1000 if ours else None)
    if ours:
        until(lambda: proxy.open_files() < files + 600, "the proxy has let go of them all")
        opened = open_all(number, proxy.port, request)
        time.sleep(1)
        report.figure(f"{words}: growth when as many come again", (proxy.memory() - after) / MIB, "MiB")
        for sock in opened:
            sock.close()
    return (after - before) / number / KIB


def wait(connection: Connection, url: str) -> float:
    """How long a small request takes, in milliseconds."""
    began = time.monotonic()
    get(connection, url, LENGTH)
    return (time.monotonic() - began) * 1000
