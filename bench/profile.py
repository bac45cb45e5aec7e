"""Where streamproxy's time goes in a case: `python -m bench.profile [options] CASE`; `--help` tells the options.

The case runs as it does otherwise, but with streamproxy alone, its rounds having `--seconds` each where it has such a
time. py-spy looks at the running proxy, `--rate` times a second or as often as it comes to it, from when it listens
until the case ends; what it waits doesn't count. The proxy stands still while it is looked at, so its rate is lower
than otherwise: by a third or so, and with `--native`, which tells C functions apart from who called them, to a small
part of it. py-spy has to be allowed to (as root, or with ptrace), and else cProfile does it, which makes calls seem
dearer than they are.

A table tells the share of each function, with and without what it calls, and of each module. It goes to bench/results
too, beside the stacks (one a line, with its count) and a picture of them.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.__main__ import CASES
from bench.connection import WrongAnswer
from bench.figures import Report
from bench.parts import HERE, OTHER_CORES, CannotMeasure, NotInstalled, Part, Parts, until, want_files
from bench.profile_flames import flames
from bench.programs import PATH
from bench.proxies import OURS

RATE = 200
LINES = 30
# Of a frame as py-spy has it: the function, and the file it stands in or the library.
_FRAME = re.compile(r"(.+) \(([^()]*?)(?::[0-9]+)?\)")
_WAITS = re.compile(r"wait \(threading\.py[^;]*(?:;[^;]*libc[^;]*|;[^;]*libpython[^;]*)*$")
Stacks = Counter[tuple[str, ...]]


class CannotAttach(CannotMeasure):
    """py-spy isn't here, or may not look at another process."""


class Quiet(Report):
    """Rounds as they were asked for, of which only what the load and we saw is told."""

    def __init__(self, rounds: int, seconds: int) -> None:
        super().__init__(rounds)
        self._seconds = seconds

    def seconds_of(self, seconds: int) -> int:
        return self._seconds

    def is_missing(self, name: str, words: str) -> None:
        pass

    def unmeasured(self, words: str) -> None:
        pass


class Alone(Parts):
    """Starts no proxy but streamproxy, and has it profiled: by `spy`, py-spy's command; where None, by cProfile."""

    def __init__(self, folder: Path, spy: list[str] | None) -> None:
        super().__init__(None)
        self._kept = folder
        self._spy = spy
        # What was profiled goes here, a file for each streamproxy that a case starts.
        self.written: list[Path] = []

    def start(self, name: str, *command: str | Path, cores: Sequence[int] = OTHER_CORES, ours: bool = False) -> Part:
        if name in ("squid", "haproxy"):
            raise NotInstalled("it isn't looked for here")
        if name == OURS and self._spy is None:
            at = command.index("-n")
            profiled = [f"--profile={self._next()}", "--profiler=cProfile", "--savestats"]
            command = (*command[:at], *profiled, *command[at:])
        return super().start(name, *command, cores=cores, ours=ours)

    def mitmdump(self, *options: str) -> Part:
        raise NotInstalled("it isn't looked for here")

    def streamproxy(self, *overrides: str, listen: str = "tcp:0:interface=127.0.0.1", rules: str = "") -> Part:
        part = super().streamproxy(*overrides, listen=listen, rules=rules)
        if self._spy is not None:
            self._stack.callback(self._look_at(part, self._spy).stop)
        return part

    def _look_at(self, part: Part, command: list[str]) -> Spy:
        return Spy([*command, "--pid", str(part.pid), "--output", str(self._next())], self.new_folder("spy") / "log")

    def _next(self) -> Path:
        self.written.append(self._kept / f"{len(self.written)}")
        return self.written[-1]


class Spy:
    """A running py-spy, which writes what it saw when it is stopped."""

    def __init__(self, command: list[str], log: Path) -> None:
        pin = ["taskset", "-c", ",".join(map(str, OTHER_CORES))] if shutil.which("taskset", path=PATH) else []
        with log.open("wb") as told:
            self._process = subprocess.Popen([*pin, *command], stdin=subprocess.DEVNULL, stdout=told, stderr=told)

        def attached() -> bool:
            if self._process.poll() is not None:
                raise CannotAttach(f"py-spy: {log.read_text(errors='replace').strip()}")
            return "Sampling process" in log.read_text(errors="replace")

        until(attached, "py-spy looks at the proxy")

    def stop(self) -> None:
        """Let it write what it has."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def find_spy(rate: int, native: bool) -> list[str]:
    """py-spy's command, but for whom it looks at and where that goes."""
    found = shutil.which("py-spy", path=f"{sysconfig.get_path('scripts')}:{PATH}")
    if found is None:
        raise CannotAttach("needs py-spy (pip install -e .[bench])")
    command = [found, "record", "--format", "raw", "--rate", str(rate), "--function"]
    return [*command, "--native"] if native else command


def run(case: str, report: Report, spy: list[str] | None, folder: Path) -> list[Path]:
    """Run the case; the files with what was seen."""
    parts = Alone(folder, spy)
    with parts:
        CASES[case](parts, report)
    return parts.written


def read_stacks(paths: Sequence[Path]) -> Stacks:
    """How often each stack was seen, the outermost frame first."""
    stacks: Stacks = Counter()
    for path in paths:
        for line in path.read_text().splitlines():
            frames, _, count = line.rpartition(" ")
            # Who only waits is taken for busy where py-spy has just woken it: threads of C alone, and idle ones.
            if ".py" in frames and not _WAITS.search(frames):
                stacks[tuple(frames.split(";"))] += int(count)
    if not stacks:
        raise CannotMeasure("no sample was taken")
    return stacks


def module(frame: str) -> str:
    """The module (or library) of a frame."""
    found = _FRAME.fullmatch(frame)
    if found is None:
        return frame
    return found[2].removesuffix(".py").removesuffix("/__init__").replace("/", ".") if "/" in found[2] else found[2]


class Share(NamedTuple):
    """How often something was seen: `own` on top of the stack, `total` anywhere in it."""

    name: str
    own: int
    total: int


def shares(stacks: Stacks, by_module: bool) -> list[Share]:
    """Of functions, or of modules; the largest on top of the stack first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for frames, count in stacks.items():
        names = [module(frame) for frame in frames] if by_module else frames
        own[names[-1]] += count
        for name in set(names):
            total[name] += count
    return sorted((Share(name, own[name], total[name]) for name in total), key=lambda share: (-share.own, -share.total))


def table(stacks: Stacks) -> str:
    """Functions by themselves, functions with what they call, and modules."""
    seen = stacks.total()
    by_function, by_module = shares(stacks, False), shares(stacks, True)
    by_total = sorted(by_function, key=lambda share: -share.total)
    lines = [f"{seen} samples while it was on its core, or (in doPoll, epoll_wait) had just been woken to be looked at"]
    for words, found in (
        ("functions, by themselves", by_function),
        ("functions, with what they call", by_total),
        ("modules", by_module),
    ):
        lines += ["", f"  self  total  {words}"]
        lines += [f"{each.own / seen:6.1%} {each.total / seen:6.1%}  {each.name}" for each in found[:LINES]]
    return "\n".join(lines) + "\n"


def table_of_calls(paths: Sequence[Path]) -> str:
    """What cProfile saw, as its own tables have it."""
    with open(os.devnull, "w") as nowhere:
        stats = pstats.Stats(*map(str, paths), stream=nowhere)
    lines: list[str] = []
    told = stats.get_stats_profile()
    for words, key in (("by themselves", "tottime"), ("with what they call", "cumtime")):
        found = sorted(told.func_profiles.items(), key=lambda each: -getattr(each[1], key))
        lines += ["", f"  self s  total s       calls  functions, {words}"]
        for name, each in found[:LINES]:
            place = f"{each.file_name}:{each.line_number}" if each.line_number else "built in"
            lines.append(f"{each.tottime:8.2f} {each.cumtime:8.2f} {each.ncalls:>11s}  {name} ({place})")
    return "\n".join(lines[1:]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=8, metavar="N", help="how long a round is, where it has a time")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    parser.add_argument("--rate", type=int, default=RATE, metavar="N", help="how often to look, each second")
    parser.add_argument("--native", action="store_true", help="C functions, too; it slows the proxy down to a crawl")
    parser.add_argument("case", metavar="CASE", help=", ".join(CASES))
    told = parser.parse_args()
    if told.case not in CASES:
        parser.error(f"no case {told.case}; there are {', '.join(CASES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    want_files(65536)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    name = time.strftime(f"%Y%m%d-%H%M%S-profile-{told.case}", time.gmtime())
    report = Quiet(told.rounds, told.seconds)
    report.case = told.case
    written = [results / f"{name}{ending}" for ending in (".txt", ".folded", ".svg")]
    with tempfile.TemporaryDirectory(prefix="streamproxy-profile-") as folder:
        try:
            try:
                stacks = read_stacks(run(told.case, report, find_spy(told.rate, told.native), Path(folder)))
            except CannotAttach as error:
                print(f"{error}\nby cProfile instead:", flush=True)
                text = table_of_calls(run(told.case, report, None, Path(folder)))
                written = written[:1]
            else:
                text = table(stacks)
                written[1].write_text("".join(f"{';'.join(frames)} {n}\n" for frames, n in sorted(stacks.items())))
                written[2].write_text(flames(stacks, f"streamproxy, {told.case}"))
        except (CannotMeasure, WrongAnswer, OSError) as error:
            report.failed(f"{type(error).__name__}: {error}")
            return 1
    written[0].write_text(text)
    print(f"\n{text}\nkept in {', '.join(str(path.relative_to(HERE.parent)) for path in written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
