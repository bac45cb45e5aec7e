"""HTTPS through CONNECT, intercepted: connections and requests a second, beside others on the same core; and what a
stalled reader costs where there is TLS on both sides of the proxy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial

from bench.case_rate import LENGTH, LOADS, NAMES, Round, clients, measure, run_load
from bench.case_stall import Way, down, up
from bench.connection import get
from bench.figures import Report
from bench.parts import PROXY_CORE, Part, Parts
from bench.proxies import STRAIGHT, STREAMED, start_proxies
from bench.secure import SecureConnection, straight, through

# How much the proxy may grow where there is TLS on both sides, in MiB.
GROWTH = 2


def look(connection: SecureConnection, report: Report, name: str, url: str) -> None:
    """One request on a connection whose certificate was verified; says what was agreed on."""
    get(connection, url, LENGTH)
    version, cipher = connection.sock.version(), connection.sock.cipher()[0]  # type: ignore[attr-defined]
    report.say(f"{name}: {version}, {cipher}")
    connection.close()


def load(
    manner: str, connections: int, words: str, unit: str, goals: Mapping[str, float], parts: Parts, report: Report
) -> None:
    """Small requests in the manner of `secure_load`, the ways in turns."""
    nginx = parts.nginx()
    # With the proxy's core it is what a proxy would be that does nothing but its clients' TLS: what the load can reach.
    alone = parts.nginx(cores=[PROXY_CORE])
    look(straight(alone), report, STRAIGHT, alone.secure_url("/small"))
    proxies = start_proxies(parts, report, NAMES, nginx, secure=True)
    for name, proxy in proxies.items():
        look(through(proxy, nginx), report, name, nginx.secure_url("/small"))

    def way(part: Part, seconds: int) -> Round:
        # What speaks TLS itself is asked without a CONNECT.
        ports = (part.secure_port, 0) if part.secure_port else (part.port, nginx.secure_port)
        asked = (manner, *ports, connections, seconds)
        return run_load(part, [sys.executable, "-m", "bench.secure_load", *map(str, asked)], seconds)[0]

    ways = {name: partial(way, part) for name, part in {STRAIGHT: alone, **proxies}.items()}
    measure(report, f"{clients(connections)}, {words}", ways, unit, connections, goals)


def secured(parts: Parts, twice: bool) -> Way:
    """TLS on both sides; `twice`: the tunnel is in a TLS connection to the proxy itself."""
    origin, proxy = parts.origin(), parts.streamproxy()
    connect = partial(through, proxy, origin, twice)
    return Way(origin, proxy, connect, origin.secure_url, origin.secure_port, GROWTH, False)


def stall(move: Callable[[Way, Report], None], twice: bool, parts: Parts, report: Report) -> None:
    """A receiver stands still; `move` is the way that the body goes."""
    move(secured(parts, twice), report)


COMPARED: dict[str, Callable[[Parts, Report], None]] = {
    f"tls-rate-{connections}": partial(
        load, "kept", connections, "kept", "req/s", {STREAMED: 10.0} if connections == 32 else {}
    )
    for connections in LOADS
}
COMPARED["tls-new"] = partial(load, "new", 32, "new connections", "conn/s", {STREAMED: 5.0})
ALONE: dict[str, Callable[[Parts, Report], None]] = {
    "tls-stall-down": partial(stall, down, False),
    "tls-stall-up": partial(stall, up, False),
    "tls-twice-stall-down": partial(stall, down, True),
    "tls-twice-stall-up": partial(stall, up, True),
}
