"""How figures grow: requests a second with the number of clients, the size of bodies, and the number of rules."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bench.bodies import rounds as body_of
from bench.case_rate import LENGTH, run_load, tell_rounds, wrk
from bench.compare import in_turns, tell
from bench.connection import Connection, check
from bench.figures import Report
from bench.micro_rules import rules_data
from bench.parts import HERE, PROXY_CORE, Part, Parts, program
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, STRAIGHT, STREAMED, start_proxies

MIB = 1 << 20
CLIENTS = (1, 8, 32, 128, 512)
SIZES = {"0": 0, "1k": 1 << 10, "16k": 16 << 10, "256k": 256 << 10, "4m": 4 << 20, "64m": 64 << 20}
RULES = (1, 100, 1_000, 10_000)
# In turns, so that neither hosts alone nor paths alone tell that none matches.
SHAPES = ("hosts", "wildcard hosts", "one host's paths", "any host's path prefixes")
ROUNDS, SECONDS = 3, 3
# What the most rules may cost: the least that is left of the rate with one.
LEFT = 0.8
# Clients for bodies, and for ones that are `LARGE`: more of these are only more memory for who holds them whole.
MANY, FEW, LARGE = 8, 2, 16 << 20
CLIENTS_FOR_RULES = 32


def clients(parts: Parts, report: Report) -> None:
    """Small requests on kept connections, by more and more clients."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    proxies = {STRAIGHT: parts.nginx(cores=[PROXY_CORE])}
    proxies |= start_proxies(parts, report, (OURS, PLAIN, SQUID, HAPROXY), nginx)
    times, seconds = report.rounds_of(ROUNDS), report.seconds_of(SECONDS)
    warm_up(report, {name: partial(wrk, part, nginx.url("/small"), 32, 1) for name, part in proxies.items()})
    ours: dict[int, float] = {}
    for number in CLIENTS:
        # Each of many has to be answered.
        lasts = seconds if number < 512 else max(seconds, SECONDS)
        report.say(f"{number} clients, {times} rounds of {lasts} s each way")
        ways = {name: partial(wrk, part, nginx.url("/small"), number, lasts) for name, part in proxies.items()}
        seen = in_turns(report, times, ways)
        tell_rounds(report, f"{number} clients, kept", seen, "req/s", {})
        ours[number] = statistics.median(each.rate for each in seen[OURS])
    for number in CLIENTS[1:]:
        report.figure(f"streamproxy's rate at {number} clients, to that at 1", ours[number] / ours[1], "x")


class Sized(NamedTuple):
    """What came in a round: whole answers a second, and MB of wire a second."""

    rate: float
    megabytes: float
    busy: float


def sizes(parts: Parts, report: Report) -> None:
    """Bodies of more and more bytes, from nginx."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    for name, size in SIZES.items():
        add_file(nginx, name, size)
    names = (STRAIGHT, OURS, PLAIN, STREAMED, SQUID, HAPROXY)
    proxies = start_proxies(parts, report, names, nginx)
    times, seconds = report.rounds_of(ROUNDS), report.seconds_of(SECONDS)
    for name, size in SIZES.items():
        number = MANY if size < LARGE else FEW
        # A proxy that holds bodies whole has to come to the end of one.
        lasts = seconds if size < LARGE else max(seconds, SECONDS)
        report.say(f"bodies of {name}, {number} clients, {times} rounds of {lasts} s each way")
        for part in proxies.values():
            check_body(part, nginx.url(f"/{name}"), size)
        ways = {each: partial(load_of, part, nginx.url(f"/{name}"), size, number) for each, part in proxies.items()}
        tell_sized(
            report, name, size, in_turns(report, times, {each: partial(way, lasts) for each, way in ways.items()})
        )


def tell_sized(report: Report, name: str, size: int, seen: dict[str, list[Sized]]) -> None:
    """Compare the rates of small bodies; of large ones, of which few come whole, the bytes."""
    rates = {way: [one.rate for one in found] for way, found in seen.items()}
    megabytes = {way: [one.megabytes for one in found] for way, found in seen.items()}
    figures, unit = (rates, "req/s") if size < MIB else (megabytes, "MB/s")
    by_core = {way: [a / b.busy for a, b in zip(figures[way], found, strict=True)] for way, found in seen.items()}
    tell(report, f"bodies of {name}", figures, unit, by_core=by_core)
    others, unit = (megabytes, "MB/s") if size < MIB else (rates, "req/s")
    for way, values in others.items():
        report.figure(
            f"bodies of {name}, in {unit}: {way}", statistics.median(values), unit, spread=(min(values), max(values))
        )


def add_file(nginx: Part, name: str, size: int) -> None:
    """Have `nginx`, the only one of the case, serve a generated body of `size` bytes at /`name`."""
    (served,) = nginx.log.parent.parent.glob("served-*/root")
    with (served / name).open("wb") as file:
        for part in body_of(size):
            file.write(part)


def check_body(part: Part, url: str, size: int) -> None:
    """Its length and SHA-256, once: the load looks at status and length alone."""
    connection = Connection.to(part.port)
    connection.ask("GET", url)
    head = connection.answer()
    check(head.status == 200, f"{part.name}: {head.line}")
    found = connection.read_body(head)
    wanted = hashlib.sha256()
    for data in body_of(size):
        wanted.update(data)
    check(found == (size, wanted.hexdigest()), f"{part.name}: another body at {url}")
    connection.close()


def load_of(part: Part, url: str, size: int, clients: int, seconds: int) -> Sized:
    """One round: each answer was 200, and as long as its framing says; all of them together have the right length."""
    probe = Connection.to(part.port)
    probe.ask("GET", url)
    head = probe.answer()
    probe.close()
    each = head.size + size
    command = [program("wrk", "wrk"), "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s"]
    command += ["-s", str(HERE / "absolute.lua"), part.url("/"), "--", url]
    found, told = run_load(part, command, seconds)
    # Those that were under way at the end are in the bytes alone. A head may differ by a byte (squid's Age field).
    least, most = told["requests"] * (each - 8), (told["requests"] + clients + 1) * (each + 8)
    check(least <= told["bytes"] <= most, f"{part.name}: {told['bytes']} bytes in {told['requests']} answers")
    return Sized(found.rate, told["bytes"] / told["seconds"] / 1e6, found.busy)


def rules(parts: Parts, report: Report) -> None:
    """streamproxy alone, with more and more rules: one for each number, all at the same time, in turns."""
    program("wrk", "wrk")
    nginx = parts.nginx()
    proxies: dict[str, Part] = {}
    for number in RULES:
        for one_matches in (False, True):
            words = f"{counted(number)}, {'the last matches' if one_matches else 'none matches'}"
            report.progress(f"starting with {words}")
            text = yaml_rules(number, one_matches)
            began = time.monotonic()
            proxies[words] = part = parts.streamproxy(rules=text)
            took = time.monotonic() - began
            check_rules(part, nginx.url("/small"), one_matches)
            if not one_matches:
                report.figure(f"{counted(number)}: start until it listens", took, "s")
                report.figure(f"{counted(number)}: resident memory", part.memory() / MIB, "MiB")
    times, seconds = report.rounds_of(ROUNDS), report.seconds_of(SECONDS)
    url = nginx.url("/small")
    warm_up(report, {words: partial(wrk, part, url, CLIENTS_FOR_RULES, 1) for words, part in proxies.items()})
    report.say(f"{CLIENTS_FOR_RULES} clients, {times} rounds of {seconds} s with each number of rules")
    ways = {words: partial(wrk, part, url, CLIENTS_FOR_RULES, seconds) for words, part in proxies.items()}
    seen = in_turns(report, times, ways)
    report.keep("rules", "req/s", {words: [one.rate for one in found] for words, found in seen.items()})
    for words, found in seen.items():
        rates = [one.rate for one in found]
        report.figure(words, statistics.median(rates), "req/s", spread=(min(rates), max(rates)))
    for ending in ("none matches", "the last matches"):
        few = [one.by_core for one in seen[f"{counted(RULES[0])}, {ending}"]]
        for number in RULES[1:]:
            many = [one.by_core for one in seen[f"{counted(number)}, {ending}"]]
            left = [after / before for after, before in zip(many, few, strict=True)]
            report.figure(
                f"{counted(number)}, {ending}: rate for each second on its core, to that with {RULES[0]}",
                statistics.median(left),
                "x",
                at_least=LEFT if number == RULES[-1] else None,
                spread=(min(left), max(left)),
            )


def counted(number: int) -> str:
    return f"{number:,} rule{'s' if number > 1 else ''}"


def yaml_rules(number: int, one_matches: bool) -> str:
    """Lines of a configuration with so many rules, one each; JSON is YAML."""
    data = rules_data(SHAPES, number, one_matches, "127.0.0.1", "/small")
    return "rules:\n" + "".join(f"- {json.dumps(each)}\n" for each in data)


def check_rules(part: Part, url: str, one_matches: bool) -> None:
    """Whether the rule that matches does so, where there is one."""
    connection = Connection.to(part.port)
    connection.ask("GET", url)
    head = connection.answer()
    body = b"".join(connection.body(head))
    check(head.status == 200 and body == b"x" * LENGTH, f"{part.name}: {head.line}")
    check(("x-matched" in head.fields) == one_matches, f"{part.name}: another rule applies: {head.fields}")
    connection.close()


def warm_up(report: Report, ways: dict[str, Callable[[], object]]) -> None:
    """Each way once."""
    for name, way in ways.items():
        report.progress(f"warming up: {name}")
        way()


CASES: dict[str, Callable[[Parts, Report], None]] = {
    "growth-clients": clients,
    "growth-size": sizes,
    "growth-rules": rules,
}
