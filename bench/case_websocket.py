"""WebSocket: small messages a second beside mitmdump, how late they come, and what large ones and very many cost in
memory.

All go through a CONNECT. streamproxy is measured in both its modes: by messages, as it is by default, and with
`stream_websockets=true`. mitmdump has but the one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bench.bodies import STAMPED
from bench.case_rate import Round, run_load, tell_rounds
from bench.case_stall import KIB, MIB
from bench.certificates import NAME
from bench.compare import in_turns
from bench.connection import Connection, check
from bench.figures import Report
from bench.parts import PROXY_CORE, Memory, Part, Parts
from bench.proxies import OURS, PLAIN, STRAIGHT, start_proxies
from bench.secure import straight, through
from bench.websocket_frames import CLOSE, NORMAL, TEXT, asked, head_of, large, upgrade
from bench.websocket_origin import GO, RIGHT, read_exactly, read_large

STREAMING = f"{OURS}, streaming"
# mitmdump tells of each message on its standard output, unless it is told not to.
QUIET = f"{PLAIN} quiet"
GOAL = 4.0
STREAMS = ("stream_websockets=true",)
# Connections, messages on their way on each, rounds and the seconds of each.
ECHOES = {"1": (1, 1, 3, 3), "32": (32, 1, 5, 4), "flow": (1, 100, 3, 3)}
# Messages a second, connections, and the most that may be added at p99, in milliseconds.
BEAT, BEAT_CONNECTIONS, BEAT_MOST = 1000, 10, 2.0
BEAT_ROUNDS, BEAT_SECONDS = 3, 5
# One large message; what it and very many may cost, in MiB; and what is moved before anything counts.
LARGE, LARGE_QUICK, GROWTH = 1 << 30, 128 << 20, 2
WARM_LARGE, WARM_SMALL = 64 << 20, 20_000
MANY, MANY_QUICK = 1_000_000, 20_000
# Of mitmdump, which keeps them all.
MANY_KEPT = 30_000
ON_THEIR_WAY = 100


def start_origin(parts: Parts, *, on_proxy_core: bool = False) -> Part:
    """The origin of `websocket_origin.py`; where it stands in for a proxy, on the proxies' core."""
    module = ("-m", "bench.websocket_origin", str(parts.certificates.origin))
    cores = {"cores": [PROXY_CORE]} if on_proxy_core else {}
    part = parts.start("websocket_origin", sys.executable, *module, ours=True, **cores)
    part.port = int(part.printed(r"^plain ([0-9]+)$"))
    part.secure_port = int(part.printed(r"^tls ([0-9]+)$"))
    part.authority = parts.certificates.authority
    return part


def start_ways(parts: Parts, report: Report, origin: Part) -> dict[str, Part]:
    """streamproxy in both modes, and mitmdump in two."""
    found = start_proxies(parts, report, (OURS, PLAIN), origin)
    more = {
        STREAMING: start_proxies(parts, report, (OURS,), origin, overrides=STREAMS),
        QUIET: start_proxies(parts, report, (PLAIN,), origin, mitmdump=("-q",)),
    }
    for name, each in more.items():
        for part in each.values():
            part.name = name
            found[name] = part
    return found


def talk(
    proxy: Part, origin: Part | None, manner: str, connections: int, amount: int, *more: str, secure: bool = False
) -> tuple[Round, dict[str, Any]]:
    """One round of `websocket_load.py`: through `proxy`, or where there is no `origin`, with `proxy` itself."""
    asked_of = proxy if origin is None else origin
    target = asked_of.secure_port if secure else asked_of.port
    ports = (proxy.port, target) if origin is not None else (target, 0)
    command = [sys.executable, "-m", "bench.websocket_load", manner, *map(str, (*ports, connections, amount)), *more]
    if secure:
        command.append(str(proxy.authority))
    # What counts a number has as long as a case may have.
    return run_load(proxy, command, 1200 if manner.startswith("count") else amount)


def echo(connections: int, flight: int, rounds: int, seconds: int, secure: bool, parts: Parts, report: Report) -> None:
    """Small messages which come back, as many as go."""
    origin = start_origin(parts)
    ways = {STRAIGHT: start_origin(parts, on_proxy_core=True), **start_ways(parts, report, origin)}

    def way(name: str, seconds: int) -> Round:
        to = None if name == STRAIGHT else origin
        return talk(ways[name], to, f"flight-{flight}", connections, seconds, secure=secure)[0]

    rounds, seconds = report.rounds_of(rounds), report.seconds_of(seconds)
    report.say(f"{connections} connections, {flight} on their way on each: {rounds} rounds of {seconds} s each way")
    for name in ways:
        report.progress(f"warming up: {name}")
        way(name, 1)
    seen = in_turns(report, rounds, {name: partial(way, name, seconds) for name in ways})
    words = f"{connections} connection{'s' if connections > 1 else ''}, {flight} on their way"
    words += ", wss" if secure else ""
    others = [name for name in seen if name not in (OURS, STREAMING)]
    for mode, own in (("messages", OURS), ("streaming", STREAMING)):
        if own in seen:
            chosen = {STRAIGHT: seen[STRAIGHT], OURS: seen[own], **{name: seen[name] for name in others}}
            tell_rounds(report, f"{words}, {mode}", chosen, "echo/s", {PLAIN: GOAL})


class Late(NamedTuple):
    """How long messages took to come back, in milliseconds; and what the proxy used of its core."""

    p50: float
    p99: float
    most: float
    busy: float
    client_busy: float


def latency(parts: Parts, report: Report) -> None:
    """Messages at a beat that nobody finds hard: from sending one to its coming back, less the same without a proxy."""
    origin = start_origin(parts)
    # Not on the proxies' core: the way to it should differ in nothing but the proxy.
    ways = {STRAIGHT: origin, **start_ways(parts, report, origin)}

    def way(name: str, seconds: int) -> Late:
        to = None if name == STRAIGHT else origin
        found, told = talk(ways[name], to, f"beat-{BEAT}", BEAT_CONNECTIONS, seconds)
        return Late(found.p50, found.p99, told["max_ms"], found.busy, told["busy"])

    rounds, seconds = report.rounds_of(BEAT_ROUNDS), report.seconds_of(BEAT_SECONDS)
    report.say(f"{BEAT} messages a second on {BEAT_CONNECTIONS} connections: {rounds} rounds of {seconds} s each way")
    for name in ways:
        report.progress(f"warming up: {name}")
        way(name, 1)
    seen = in_turns(report, rounds, {name: partial(way, name, seconds) for name in ways})
    for share in ("p50", "p99", "most"):
        values = {name: [getattr(each, share) for each in found] for name, found in seen.items()}
        figures(report, f"there and back, {share}", values)
    for share, goal in (("p50", None), ("p99", BEAT_MOST)):
        for name, found in seen.items():
            if name == STRAIGHT:
                continue
            added = [
                getattr(one, share) - getattr(none, share) for one, none in zip(found, seen[STRAIGHT], strict=True)
            ]
            report.keep(f"added there and back, {share}", "ms", {name: added})
            report.figure(
                f"added there and back, {share}: {name}",
                statistics.median(added),
                "ms",
                below=goal if name in (OURS, STREAMING) else None,
                spread=(min(added), max(added)),
            )
    for name, found in seen.items():
        if name != STRAIGHT:
            report.figure(f"of its core: {name}", max(each.busy for each in found) * 100, "%")
    most = max(each.client_busy for found in seen.values() for each in found)
    report.figure("the client at its most, of a core", most * 100, "%")


def figures(report: Report, words: str, seen: Mapping[str, Sequence[float]]) -> None:
    """What each way gave, in milliseconds, with nothing compared."""
    report.keep(words, "ms", seen)
    for name, values in seen.items():
        report.figure(f"{words}: {name}", statistics.median(values), "ms", spread=(min(values), max(values)))


def move_large(connection: Connection, port: int, size: int, frame: int, up: bool) -> float:
    """Send one large message to the origin, or get one from it; how many seconds it took. All of it is compared."""
    path = f"{'take' if up else 'give'}?size={size}&frame={frame}"
    upgrade(connection, f"http://{NAME}:{port}/{path}")
    check(connection.taken == connection.received, "there is more than an answer to the upgrade")
    began = time.monotonic()
    if up:
        for part in large(size, frame, True):
            connection.send(part)
        read_exactly(connection, head_of(TEXT, len(RIGHT)) + RIGHT)
    else:
        connection.send(asked(TEXT, GO))
        read_large(connection, size, frame, False)
    took = time.monotonic() - began
    connection.send(asked(CLOSE, NORMAL))
    read_exactly(connection, head_of(CLOSE, len(NORMAL)) + NORMAL)
    connection.close()
    return took


def one_large(secure: bool, parts: Parts, report: Report) -> None:
    """One message of 1 GiB each way, in many frames and in one, streamed. mitmdump would put it together: not shown."""
    origin = start_origin(parts)
    proxy = start_proxies(parts, report, (OURS,), origin, overrides=STREAMS)[OURS]
    port = origin.secure_port if secure else origin.port
    size = LARGE_QUICK if report.quick else LARGE

    def connect(way: str) -> Connection:
        if way == STRAIGHT:
            return straight(origin) if secure else Connection.to(port)
        return through(proxy, origin) if secure else by_connect(proxy, port)

    for _ in range(3):
        for up in (True, False):
            for frame in (STAMPED, WARM_LARGE):
                move_large(connect(OURS), port, WARM_LARGE, frame, up)
    time.sleep(0.5)
    for up in (True, False):
        for frame in (STAMPED, size):
            words = f"{'up' if up else 'down'}, {'in one frame' if frame == size else f'frames of {frame // KIB} KiB'}"
            report.progress(words)
            none = move_large(connect(STRAIGHT), port, size, frame, up)
            with Memory(proxy) as memory:
                took = move_large(connect(OURS), port, size, frame, up)
            time.sleep(0.2)
            report.figure(f"{words}: {OURS}", size / took / 1e6, "MB/s")
            report.figure(f"{words}: {STRAIGHT}", size / none / 1e6, "MB/s")
            report.figure(f"{words}: growth at its most", memory.growth / MIB, "MiB", below=GROWTH)
            report.figure(f"{words}: growth after it", (proxy.memory() - memory.before) / MIB, "MiB", below=GROWTH)


def by_connect(proxy: Part, port: int) -> Connection:
    """A connection through the proxy to a plain port of this machine, by CONNECT."""
    connection = Connection.to(proxy.port)
    connection.send(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
    head = connection.answer()
    check(head.status == 200, f"{proxy.name}: {head.line}")
    return connection


def million(parts: Parts, report: Report) -> None:
    """Very many small messages on one connection, and as many that come back: what they leave in memory."""
    origin = start_origin(parts)
    kinds: list[tuple[str, str, Sequence[str], Sequence[str], int]] = [
        (OURS, "messages", (), (), MANY),
        (OURS, "streaming", STREAMS, (), MANY),
        (OURS, "messages, deflated", (), ("deflated",), MANY),
        (OURS, "streaming, deflated", STREAMS, ("deflated",), MANY),
        (PLAIN, "as it is", (), (), MANY_KEPT),
    ]
    for wanted, mode, overrides, more, number in kinds:
        number = min(number, MANY_QUICK) if report.quick else number
        for name, proxy in start_proxies(parts, report, (wanted,), origin, overrides=overrides).items():
            words = f"{name}, {mode}"
            report.progress(f"{words}: {number:,}")
            manner, ours = f"count-{ON_THEIR_WAY}", name == OURS
            for _ in range(3 if ours else 1):
                talk(proxy, origin, manner, 1, WARM_SMALL if ours else number // 10, *more)
            time.sleep(0.5)
            with Memory(proxy) as memory:
                found, told = talk(proxy, origin, manner, 1, number, *more)
            time.sleep(0.5)
            left = (proxy.memory() - memory.before) / MIB
            goal = GROWTH if ours else None
            report.figure(f"{words}: messages that went and came back", told["requests"], "")
            report.figure(f"{words}: growth at its most", memory.growth / MIB, "MiB", below=goal)
            report.figure(f"{words}: growth after it", left, "MiB", below=goal)
            report.figure(f"{words}: growth for each 1,000", memory.growth / KIB / told["requests"] * 1000, "KiB")
            report.figure(f"{words}: rate", found.rate, "echo/s")
            report.figure(f"{words}: of its core", found.busy * 100, "%")
            proxy.stop()


CASES: dict[str, Callable[[Parts, Report], None]] = {
    **{
        f"ws-echo-{name}" if name != "flow" else "ws-flow": partial(echo, *load, False) for name, load in ECHOES.items()
    },
    "wss-echo-32": partial(echo, *ECHOES["32"], True),
    "ws-latency": latency,
}
ALONE: dict[str, Callable[[Parts, Report], None]] = {
    "ws-large": partial(one_large, False),
    "wss-large": partial(one_large, True),
    "ws-million": million,
}
