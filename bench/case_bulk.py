"""Large bodies, from nginx and to `sink`: how many bytes a second one core carries, beside others.

In each case every way moves 1 GiB in a round. A first pass, which isn't timed, checks each body's SHA-256; the timed
ones check status and length. Origin and client share a core, so both are to cost little, or they are what is measured:
the client of a timed download lets the kernel throw away what it counts, or doesn't decrypt it. All else is curl's.
"""

from __future__ import annotations

import hashlib
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.bodies import write_sparse
from bench.case_rate import TICK
from bench.case_secure import look
from bench.compare import in_turns, tell
from bench.connection import Connection, WrongAnswer, check
from bench.figures import Report
from bench.parts import Part, Parts, pinned, program
from bench.proxies import HAPROXY, OURS, PLAIN, SQUID, STRAIGHT, STREAMED, start_proxies
from bench.secure import SecureConnection, straight, through
from bench.sink import Taker

SIZE, HELD = 1 << 30, 4 << 20
ROUNDS = 5
# No transfer may take longer, in seconds.
MOST = 120
STREAMING = (STRAIGHT, OURS, STREAMED, SQUID, HAPROXY)
EDIT_RULE = 'rules: [{name: edited, response: {headers: {set: {X-Proxy: "on"}}}}]\n'


class Moved(NamedTuple):
    """How fast a body went, in MB/s, and how many seconds the proxy was on its core for it."""

    rate: float
    busy: float


@dataclass(frozen=True)
class Bulk:
    """What moves in a case, and by whom. `body` is what stands at `path` of the origin, `count` times in a round."""

    names: Sequence[str] = STREAMING
    goals: Mapping[str, float] | None = None
    up: bool = False
    secure: bool = False
    # By CONNECT, which nobody looks into. What is inside is plain, so that TLS isn't what is measured.
    tunnel: bool = False
    path: str = "/large"
    count: int = 1
    # The proxies may answer in chunks, which have to be read.
    in_chunks: bool = False
    # What the proxies are told, as `start_proxies` takes it.
    told: Mapping[str, Any] | None = None
    # What shows that they do it.
    look: Callable[[Part, Part], None] | None = None


class Ways:
    """How curl moves the bodies of a case by each way. `sha256` is of the body, where it isn't the sparse one."""

    def __init__(self, bulk: Bulk, parts: Parts, origin: Part, sha256: str = "") -> None:
        self._bulk = bulk
        self._origin = origin
        self._curl = [*pinned(), program("curl", "curl")]
        self._curl += ["-q", "-sS", "--noproxy", "", "--http1.1", "--max-time", str(MOST)]
        self._file = parts.new_folder("sent") / "large"
        write_sparse(self._file, SIZE)
        self._each = HELD if bulk.path == "/held" else SIZE
        self._sha256 = sha256 or self._hash()

    def _hash(self) -> str:
        """The SHA-256 of all that moves in a round."""
        found = hashlib.sha256()
        with self._file.open("rb") as file:
            for _ in range(self._bulk.count):
                # A held body has the bytes of the large one's beginning.
                file.seek(0)
                for _ in range(0, self._each, HELD):
                    found.update(file.read(HELD))
        return found.hexdigest()

    def _command(self, part: Part, path: str) -> list[str | Path]:
        """curl as it is called to move a body through `part`."""
        bulk, origin = self._bulk, self._origin
        command: list[str | Path] = [*self._curl]
        if part is not origin and not (bulk.secure and part.secure_port):
            command += ["--proxy", f"http://127.0.0.1:{part.port}", *(["--proxytunnel"] if bulk.tunnel else [])]
        if bulk.secure:
            command += ["--cacert", part.authority]
        if bulk.up:
            command += ["-T", self._file, "-H", "Expect:"]
        ends = part if bulk.secure and part.secure_port else origin
        url = ends.secure_url(path) if bulk.secure else origin.url(path)
        return [*command, url + (f"?[1-{bulk.count}]" if bulk.count > 1 else "")]

    def check_hash(self, part: Part) -> None:
        """Move the bodies once, and compare their SHA-256."""
        if self._bulk.up:
            ran = subprocess.run(self._command(part, "/hash"), capture_output=True, check=False)
            wanted = {"length": SIZE, "sha256": self._sha256}
            check(ran.stdout == json.dumps(wanted).encode(), f"{part.name}: {ran.stdout!r} {ran.stderr!r}")
            return
        found = hashlib.sha256()
        with _reading(self._command(part, self._bulk.path)) as blocks:
            for block in blocks:
                found.update(block)
        check(found.hexdigest() == self._sha256, f"{part.name}: another hash")

    def move(self, part: Part) -> Moved:
        """Move the bodies once."""
        bulk = self._bulk
        if bulk.up or bulk.tunnel or bulk.in_chunks:
            return self._move_by_curl(part)
        origin = self._origin
        taker: Taker | SecureConnection
        if bulk.secure:
            taker = straight(part) if part is origin else through(part, origin)
        else:
            taker = Taker(socket.create_connection(("127.0.0.1", part.port), MOST))
        url = (part if bulk.secure and part.secure_port else origin).secure_url if bulk.secure else origin.url
        busy, began = part.processor_seconds(), time.monotonic()
        for number in range(bulk.count):
            taker.ask("GET", url(f"{bulk.path}?{number}"))
            head = taker.answer()
            check(head.status == 200, f"{part.name}: {head.line}")
            length = taker.count(head)
            check(length == self._each, f"{part.name}: {length} bytes")
        took = time.monotonic() - began
        busy = max(part.processor_seconds() - busy, TICK)
        taker.close()
        return Moved(SIZE / took / 1e6, busy)

    def _move_by_curl(self, part: Part) -> Moved:
        """The time is curl's own: from its connecting on, without its start."""
        bulk = self._bulk
        asked = ["-w", "\n%{http_code} %{size_download} %{size_upload} %{time_total}\n"]
        asked += [] if bulk.up else ["-o", "/dev/null"]
        busy = part.processor_seconds()
        ran = subprocess.run(
            [*self._command(part, "/count" if bulk.up else bulk.path), *asked],
            capture_output=True,
            text=True,
            check=False,
        )
        busy = max(part.processor_seconds() - busy, TICK)
        lines = [line.split() for line in ran.stdout.splitlines() if line]
        told = f"{part.name}: {ran.stdout[:500]!r} {ran.stderr!r}"
        check(ran.returncode == 0, told)
        if bulk.up:
            check(json.loads(ran.stdout.splitlines()[0]) == {"length": SIZE}, told)
            lines = lines[1:]
        check(len(lines) == bulk.count, told)
        for status, down, up, _took in lines:
            check(status == "200" and int(up if bulk.up else down) == self._each, told)
        return Moved(SIZE / sum(float(line[3]) for line in lines) / 1e6, busy)


@contextmanager
def _reading(command: Sequence[str | Path]) -> Iterator[Iterator[bytes]]:
    """What `command` prints, in blocks; it has to end well."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        stdout, stderr = process.stdout, process.stderr
        assert stdout is not None and stderr is not None
        try:
            yield iter(lambda: stdout.read(1 << 20), b"")
            wrong = stderr.read()
            check(process.wait(MOST) == 0, f"{wrong!r}")
        finally:
            process.kill()


def moves(bulk: Bulk, parts: Parts, report: Report, origin: Part | None = None, sha256: str = "") -> None:
    """Measure one case. `origin`: another than the case would start, with the SHA-256 of its body."""
    program("curl", "curl")
    if origin is None:
        origin = parts.sink() if bulk.up else parts.nginx()
    proxies = start_proxies(parts, report, bulk.names, origin, secure=bulk.secure, **(bulk.told or {}))
    for name, part in proxies.items():
        if name == STRAIGHT:
            continue
        if bulk.tunnel:
            # Then it is the origin's certificate that a client sees.
            part.authority = origin.authority
        if bulk.secure or bulk.tunnel:
            look(through(part, origin), report, name, origin.secure_url("/small"))
        if bulk.look is not None:
            bulk.look(part, origin)
    ways = Ways(bulk, parts, origin, sha256)
    for name, part in list(proxies.items()):
        report.progress(f"checking the hash: {name}")
        try:
            ways.check_hash(part)
        except WrongAnswer as error:
            if name in (OURS, STRAIGHT):
                raise
            # What another gets wrong is said, and is no reason not to measure the rest.
            report.failed(str(error))
            del proxies[name]
    rounds = report.rounds_of(ROUNDS)
    report.say(f"the hashes are right; {rounds} rounds of 1 GiB each way")
    seen = in_turns(report, rounds, {name: partial(ways.move, part) for name, part in proxies.items()})
    words = f"{bulk.count} bodies of {HELD >> 20} MiB" if bulk.count > 1 else "1 GiB"
    tell_moved(report, words, seen, SIZE, bulk.goals)


def tell_moved(
    report: Report, words: str, seen: Mapping[str, Sequence[Moved]], size: int, goals: Mapping[str, float] | None
) -> None:
    """Report how fast `size` bytes went by each way, and what that cost on the proxy's core."""
    rates = {name: [one.rate for one in each] for name, each in seen.items()}
    # For each second on its core, in MB.
    by_core = {name: [size / 1e6 / one.busy for one in each] for name, each in seen.items()}
    tell(report, words, rates, "MB/s", goals=goals, by_core=by_core)
    for name, each in seen.items():
        if name != STRAIGHT:
            report.figure(f"{words}: {name}, seconds on its core", statistics.median(one.busy for one in each), "s")


def is_edited(part: Part, origin: Part) -> None:
    """The proxy sets a header field."""
    connection = Connection.to(part.port)
    connection.ask("GET", origin.url("/small"))
    head = connection.answer()
    check(head.status == 200 and head.fields.get("x-proxy") == "on", f"{part.name} doesn't edit: {head}")
    connection.close()


EDITED = {
    "rules": EDIT_RULE,
    "mitmdump": ("--modify-headers", "/~s/X-Proxy/on"),
    "squid": "reply_header_add X-Proxy on all",
    "haproxy": "http-response set-header X-Proxy on",
}
# squid 5 cuts an upload off when what it holds of it comes to its limit, 512 KiB, as it does where the origin is slower
# than the client (its bug 5405). So that it can take part it is let hold more; with much more it becomes slow.
TAKES = {"squid": "client_request_buffer_max_size 2 MB"}
HOLDS = {"overrides": ("hold=always", "limits.held_body=8m")}
BLIND = {"overrides": ("tls.intercept=false",), "mitmdump": ("--ignore-hosts", ".*")}
KINDS = {
    "bulk-down": Bulk(goals={STREAMED: 2, HAPROXY: 0.7}),
    "bulk-up": Bulk(up=True, told=TAKES),
    "bulk-tls-down": Bulk(secure=True, goals={STREAMED: 1.5}),
    "bulk-tls-up": Bulk(secure=True, up=True, told=TAKES),
    "bulk-tunnel": Bulk(names=(STRAIGHT, OURS, PLAIN, SQUID), tunnel=True, told=BLIND),
    "bulk-held": Bulk(names=(STRAIGHT, OURS, PLAIN), path="/held", count=SIZE // HELD, told=HOLDS),
    "bulk-edit": Bulk(told=EDITED, look=is_edited),
}
CASES: dict[str, Callable[[Parts, Report], None]] = {name: partial(moves, kind) for name, kind in KINDS.items()}
