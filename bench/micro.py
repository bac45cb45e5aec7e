"""Micro-benchmarks of the hot path, by pyperf: `python -m bench.micro [--only WORD] [pyperf's options]`.

Each piece is used through its public interface, as the proxy uses it, and what it gives is checked before it is
measured. pyperf runs each in processes of their own, several times. `--fast` is rougher and sooner; `--only rules`
measures those whose names have that word in them. The results go to `-o FILE`, or else into bench/results, where
`python -m pyperf compare_to OLD.json NEW.json` compares two runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import pyperf  # type: ignore[import-untyped, import-not-found, unused-ignore]

from bench import micro_bodies, micro_exchange, micro_filters, micro_heads, micro_rules, micro_websocket
from bench.parts import HERE

PIECES = (
    *micro_heads.PIECES,
    *micro_rules.PIECES,
    *micro_bodies.PIECES,
    *micro_filters.PIECES,
    *micro_exchange.PIECES,
    *micro_websocket.PIECES,
)
# How many processes each piece is measured in; pyperf's own number is for differences finer than are looked for here.
PROCESSES = 6

_prepared: dict[str, Callable[[], object]] = {}


def measured(loops: int, name: str, prepare: Callable[[], Callable[[], object]]) -> float:
    """How long so many calls of what `prepare` gives take, in seconds. It is prepared once."""
    if name not in _prepared:
        _prepared[name] = prepare()
    piece = _prepared[name]
    repeated = range(loops)
    began = time.perf_counter()
    for _ in repeated:
        piece()
    return time.perf_counter() - began


def pass_on(command: list[str], told: argparse.Namespace) -> None:
    """Tell the processes that measure what they count the pieces by."""
    if told.only:
        command += ["--only", told.only]


def main() -> None:
    runner = pyperf.Runner(processes=PROCESSES, program_args=("-m", "bench.micro"), add_cmdline_args=pass_on)
    runner.argparser.add_argument("--only", metavar="WORD", default="", help="only the pieces with WORD in their names")
    runner.argparser.description = "Micro-benchmarks of the hot path, by pyperf."
    told = runner.parse_args()
    chosen = [piece for piece in PIECES if told.only in piece[0]]
    if not chosen:
        runner.argparser.error(f"no piece has {told.only!r} in its name")
    kept = None
    if not (told.worker or told.output or told.append or told.compare_to):
        (HERE / "results").mkdir(exist_ok=True)
        kept = HERE / "results" / time.strftime("%Y%m%d-%H%M%S-micro.json", time.gmtime())
        told.output = str(kept)
    # Each result says how far its values lie apart: that needn't be said in seven lines more.
    told.quiet = not told.verbose
    for name, prepare in chosen:
        runner.bench_time_func(name, measured, name, prepare)
    if kept is not None:
        print(f"kept in {kept.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
