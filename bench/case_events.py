"""Server-sent events: how soon a stream begins and how late each event comes, at 1, 50 and 500 streams; and how late
they come where each is decoded, changed by a function, and coded anew."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from bench.compare import in_turns, tell
from bench.connection import Connection, check, get
from bench.event_origin import SIZE
from bench.figures import Report
from bench.parts import HERE, Part, Parts, pinned
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, STRAIGHT, STREAMED, start_proxies

ROUNDS, SECONDS = 3, 5
# Streams, and events a second on each: as many in all with 50 streams as with 500.
STREAMS = {1: 50, 50: 50, 500: 5}
# What doesn't count before all streams run, in seconds; half of it in `event_load.py`, and the same for slow starters.
WARM = 1.0
# More of a core than this is too much for the origin and the client, which share theirs.
MOST_BUSY = 0.5
# The most that the delay which streamproxy adds may be of what the others add, at p99.
GOALS = {STREAMED: 0.25, SQUID: 1}
SHARES = {"delay": ("p50", "p99", "max"), "first_byte": ("p50", "p99"), "first_event": ("p50", "p99")}
WORDS = {"delay": "delay", "first_byte": "time to first byte", "first_event": "time to first event"}
# Of coded streams: their number, the events a second on each, and the most that may be added at p99, in milliseconds.
CODINGS = ("gzip", "br", "zstd")
CODED_STREAMS, CODED_EACH_SECOND, CODED_MOST = 50, 20, 5
CHANGES = """
def on_event(event):
    event.data = event.data.upper()
"""
# haproxy waits up to 200 ms for more to write at a time, unless it is told not to.
NO_DELAY = "option http-no-delay"


class Heard(NamedTuple):
    """What one round gave: milliseconds, each at p50, p99 and the most; and shares of a core."""

    delay: dict[str, float]
    first_byte: dict[str, float]
    first_event: dict[str, float]
    # How late the origin was, which the beat shows and no delay has in it.
    late: dict[str, float]
    client_busy: float
    origin_busy: float
    proxy_busy: float


def listen(report: Report, proxy: Part, origin: Part, streams: int, gap: float, seconds: float, *coded: str) -> Heard:
    """One round of `seconds` by `proxy`, with `streams` streams of an event each `gap` seconds.

    `coded` is a coding, and "changed" where the proxy changes the events.
    """
    # So that the small figures of the beginning are of streams that don't stand in each other's way.
    apart = min(0.01, 2 / streams)
    count = round((seconds + WARM + streams * apart) / gap)
    asked = (proxy.port, origin.port, streams, gap, count, apart, *coded)
    command = [*pinned(), sys.executable, "-m", "bench.event_load", *map(str, asked)]
    parts = [origin, proxy]
    busy, began = [each.processor_seconds() for each in parts], time.monotonic()
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
        cwd=HERE.parent,
    )
    took = time.monotonic() - began
    busy = [(each.processor_seconds() - before) / took for each, before in zip(parts, busy, strict=True)]
    check(ran.returncode == 0, f"{proxy.name}: {ran.stderr or ran.stdout}")
    told = json.loads(ran.stdout.splitlines()[-1])
    check(told["events"] == streams * count, f"{proxy.name}: {told['events']} events of {streams * count}")
    # Any event before the last stream's first, and any behind the first stream's last, was seen but doesn't count.
    wanted = told["seconds"] * streams / gap
    check(told["seconds"] > seconds * 0.8, f"{proxy.name}: all streams ran for {told['seconds']:.1f} s only")
    check(abs(told["counted"] - wanted) <= wanted / 50 + streams, f"{proxy.name}: {told['counted']} events count")
    kinds = {kind: told[kind] for kind in ("delay", "first_byte", "first_event", "late")}
    found = Heard(**kinds, client_busy=told["busy"], origin_busy=busy[0], proxy_busy=busy[1])
    if found.client_busy + found.origin_busy > MOST_BUSY:
        report.say(f"the origin and the client need {found.client_busy + found.origin_busy:.0%} of their core")
    return found


def events(streams: int, each_second: int, parts: Parts, report: Report) -> None:
    """`streams` event streams by each way in turns, `each_second` events a second on each."""
    origin = parts.start_module("event_origin")
    origin.port = int(origin.printed(r"^plain ([0-9]+)$"))
    proxies = start_proxies(parts, report, (STRAIGHT, OURS, STREAMED, SQUID, HAPROXY), origin, haproxy=NO_DELAY)
    seconds, gap = report.seconds_of(SECONDS), 1 / each_second
    rounds = report.rounds_of(ROUNDS)
    report.say(
        f"{streams} streams, {each_second} events of {SIZE} bytes a second on each: {rounds} rounds of {seconds} s"
    )
    ways = {name: partial(listen, report, proxy, origin, streams, gap, seconds) for name, proxy in proxies.items()}
    seen = in_turns(report, rounds, ways)
    for kind, shares in SHARES.items():
        # One stream has one beginning.
        for share in shares if streams > 1 or kind == "delay" else shares[:1]:
            values = {name: [getattr(each, kind)[share] for each in found] for name, found in seen.items()}
            figures(report, f"{WORDS[kind]}, {share}", values)
    for share in ("p50", "p99"):
        added = {
            name: [one.delay[share] - none.delay[share] for one, none in zip(found, seen[STRAIGHT], strict=True)]
            for name, found in seen.items()
            if name != STRAIGHT
        }
        goals = GOALS if share == "p99" and streams == 50 else None
        tell(report, f"delay added, {share}", added, "ms", more_is_better=False, goals=goals)
    tell_loads(report, seen)
    if streams == 1:
        held(parts, report, origin, each_second)


def coded_events(coding: str, parts: Parts, report: Report) -> None:
    """Event streams that come coded, each event of which a function changes; beside the same without a proxy."""
    origin = parts.start_module("event_origin")
    origin.port = int(origin.printed(r"^plain ([0-9]+)$"))
    script = parts.new_folder("script") / "changes.py"
    script.write_text(CHANGES)
    rules = f'rules: [{{name: changed, response: {{events: "{script}:on_event"}}}}]\n'
    proxies = start_proxies(parts, report, (STRAIGHT, OURS), origin, rules=rules)
    seconds, gap = report.seconds_of(SECONDS), 1 / CODED_EACH_SECOND
    rounds = report.rounds_of(ROUNDS)
    words = f"{CODED_STREAMS} streams as {coding}, {CODED_EACH_SECOND} events a second on each"
    report.say(f"{words}: {rounds} rounds of {seconds} s")
    ways = {
        name: partial(listen, report, proxy, origin, CODED_STREAMS, gap, seconds, coding, *changed)
        for (name, proxy), changed in zip(proxies.items(), ((), ("changed",)), strict=True)
    }
    seen = in_turns(report, rounds, ways)
    for share in SHARES["delay"]:
        values = {name: [each.delay[share] for each in found] for name, found in seen.items()}
        figures(report, f"delay until it is decoded, {share}", values)
        added = [ours - none for ours, none in zip(values[OURS], values[STRAIGHT], strict=True)]
        words, middle = f"delay added, {share}", statistics.median(added)
        goal = CODED_MOST if share == "p99" else None
        report.keep(words, "ms", {OURS: added})
        report.figure(f"{words}: {OURS}", middle, "ms", at_most=goal, spread=(min(added), max(added)))
    tell_loads(report, seen)


def tell_loads(report: Report, seen: dict[str, list[Heard]]) -> None:
    """How busy all were, and how late the origin was: no figure of a proxy, but what says whether the others hold."""
    for name, found in seen.items():
        if name != STRAIGHT:
            report.figure(f"of its core: {name}", max(each.proxy_busy for each in found) * 100, "%")
    all_of_them = [each for found in seen.values() for each in found]
    report.figure("the origin at its most, of a core", max(each.origin_busy for each in all_of_them) * 100, "%")
    report.figure("the client at its most, of a core", max(each.client_busy for each in all_of_them) * 100, "%")
    report.figure("the origin's lateness, p99, at its most", max(each.late["p99"] for each in all_of_them), "ms")


def held(parts: Parts, report: Report, origin: Part, each_second: int) -> None:
    """mitmdump as it is gives no event before the last was sent: shown on a stream of two seconds."""
    query = f"number=0&of=1&gap={round(1e9 / each_second)}&count={2 * each_second}"
    for name, proxy in start_proxies(parts, report, (OURS, PLAIN), origin).items():
        connection = Connection.to(proxy.port)
        get(connection, f"http://127.0.0.1:{origin.port}/small", 600)
        began = time.monotonic()
        connection.ask("GET", f"http://127.0.0.1:{origin.port}/events?{query}")
        head = connection.answer()
        check(head.status == 200, f"{name}: {head.line}")
        content, first = b"", 0.0
        for piece in connection.body(head):
            content += piece
            first = first or (time.monotonic() - began if len(content) >= SIZE else 0.0)
        check(len(content) == 2 * each_second * SIZE, f"{name}: {len(content)} bytes of events")
        report.figure(f"the first event of a stream of 2 s is there after: {name}", first * 1000, "ms")
        connection.close()


def figures(report: Report, words: str, seen: Mapping[str, Sequence[float]]) -> None:
    """What each way gave, in milliseconds, with nothing compared."""
    report.keep(words, "ms", seen)
    for name, values in seen.items():
        report.figure(f"{words}: {name}", statistics.median(values), "ms", spread=(min(values), max(values)))


CASES: dict[str, Callable[[Parts, Report], None]] = {
    f"events-{streams}": partial(events, streams, each_second) for streams, each_second in STREAMS.items()
}
CODED: dict[str, Callable[[Parts, Report], None]] = {
    f"coded-events-{coding}": partial(coded_events, coding) for coding in CODINGS
}
