"""HTTPS through CONNECT, intercepted: connections, requests and bytes a second, beside mitmdump on the same core; and
what a stalled reader costs where there is TLS on both sides of the proxy."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from bench.case_rate import (
    BULK as LARGE,
)
from bench.case_rate import (
    DEFAULT,
    LENGTH,
    OURS,
    STRAIGHT,
    STREAMED,
    Fetched,
    Round,
    compare_bulk,
    compare_rounds,
    in_turns,
    run_load,
    tell_rounds,
)
from bench.case_stall import Way, down, up
from bench.connection import check, get
from bench.figures import Report
from bench.parts import OTHER_CORES, PROXY_CORE, Part, Parts, program
from bench.secure import SecureConnection, straight, through

CONNECTIONS = 32
ROUNDS, SECONDS = 5, 4
# What is to be reached, as times what mitmdump does.
NEW, KEPT, BULK = 4, 8, 1.3
# How much the proxy may grow where there is TLS on both sides, in MiB.
GROWTH = 2


def look(connection: SecureConnection, report: Report, name: str, url: str) -> None:
    """One request on a connection whose certificate was verified; says what was agreed on."""
    get(connection, url, LENGTH)
    version, cipher = connection.sock.version(), connection.sock.cipher()[0]  # type: ignore[attr-defined]
    report.say(f"{name}: {version}, {cipher}")
    connection.close()


def load(parts: Parts, report: Report, manner: str, unit: str, goal: float) -> None:
    """Small requests in the manner of `secure_load`, the ways in turns."""
    nginx = parts.nginx()
    # With the proxy's core it is what a proxy would be that does nothing but its clients' TLS: what the load can reach.
    alone = parts.nginx(cores=[PROXY_CORE])
    proxies = {OURS: parts.streamproxy(), DEFAULT: parts.mitmdump(*STREAMED)}
    look(straight(alone), report, STRAIGHT, alone.secure_url("/small"))
    for name, proxy in proxies.items():
        look(through(proxy, nginx), report, name, nginx.secure_url("/small"))

    def measure(part: Part, port: int, origin: int, seconds: int) -> Round:
        asked = (manner, port, origin, CONNECTIONS, seconds)
        return run_load(part, [sys.executable, "-m", "bench.secure_load", *map(str, asked)], seconds)[0]

    ways = {STRAIGHT: partial(measure, alone, alone.secure_port, 0)}
    ways |= {name: partial(measure, proxy, proxy.port, nginx.secure_port) for name, proxy in proxies.items()}
    for way in ways.values():
        way(1)
    report.say(f"{ROUNDS} rounds of {SECONDS} s each way")
    seen = in_turns(ROUNDS, {name: partial(way, SECONDS) for name, way in ways.items()})
    words = f"{CONNECTIONS} connections"
    tell_rounds(report, words, seen, unit)
    compare_rounds(report, f"{words}: streamproxy to {DEFAULT}", seen[OURS], seen[DEFAULT], goal)


def tls_new(parts: Parts, report: Report) -> None:
    """A connection, a CONNECT, a handshake and an end for each request."""
    load(parts, report, "new", "conn/s", NEW)


def tls_rate(parts: Parts, report: Report) -> None:
    """Small requests on kept connections."""
    load(parts, report, "kept", "req/s", KEPT)


def tls_bulk(parts: Parts, report: Report) -> None:
    """One large body, streamed, from nginx to curl: what their core does for it is little beside what a proxy does."""
    curl = program("curl", "curl")
    nginx = parts.nginx()
    url = nginx.secure_url("/large")
    proxies = {STRAIGHT: nginx, OURS: parts.streamproxy(), DEFAULT: parts.mitmdump(*STREAMED)}
    for name in (OURS, DEFAULT):
        look(through(proxies[name], nginx), report, name, nginx.secure_url("/small"))

    def fetch(name: str, part: Part) -> Fetched:
        way = [] if part is nginx else ["--proxy", f"http://127.0.0.1:{part.port}"]
        asked = [curl, "-q", "-sS", "--noproxy", "", *way, "--cacert", part.authority, "--max-time", "120", url]
        told = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"]
        busy, began = part.processor_seconds(), time.monotonic()
        ran = subprocess.run(
            ["taskset", "-c", ",".join(map(str, OTHER_CORES)), *asked, *told], capture_output=True, check=False
        )
        took = time.monotonic() - began
        busy = part.processor_seconds() - busy
        check(ran.stdout == b"200 %d" % LARGE, f"{name}: {ran.stdout!r} {ran.stderr!r}")
        return Fetched(LARGE / took / 1e6, busy)

    compare_bulk(report, proxies, fetch, BULK)


def secured(parts: Parts, twice: bool = False) -> Way:
    """TLS on both sides; `twice`: the tunnel is in a TLS connection to the proxy itself."""
    origin, proxy = parts.origin(), parts.streamproxy()
    connect = partial(through, proxy, origin, twice)
    return Way(origin, proxy, connect, origin.secure_url, origin.secure_port, GROWTH, False)


def tls_stall_down(parts: Parts, report: Report) -> None:
    """The origin sends, the client stands still."""
    down(secured(parts), report)


def tls_stall_up(parts: Parts, report: Report) -> None:
    """The client sends, the origin stands still."""
    up(secured(parts), report)


def tls_twice_stall_down(parts: Parts, report: Report) -> None:
    """The same inside TLS to the proxy."""
    down(secured(parts, True), report)


def tls_twice_stall_up(parts: Parts, report: Report) -> None:
    up(secured(parts, True), report)
