"""`streamproxy check`: whether configurations are in order, by all that `twistd streamproxy --check` looks at."""

from __future__ import annotations

import argparse
import sys

from streamproxy.commands.arguments import Arguments, CommandError, add_set


def add(commands: argparse._SubParsersAction[Arguments], configured: Arguments) -> None:
    """Put this command among the others."""
    check = commands.add_parser("check", help="read configurations, and tell all that is wrong with them")
    check.add_argument("files", nargs="*", metavar="FILE", help="a configuration; several may be named")
    check.add_argument("-c", "--config", action="append", default=[], metavar="FILE", help="the same")
    add_set(check)
    check.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Check all files; the exit status, which is 1 if anything is wrong with any of them."""
    # All that proxies is needed for no other command, and `env` may be in a shell's start.
    from streamproxy.service import CannotStart, Options

    files = [*chosen.config, *chosen.files]
    if not files:
        raise CommandError("no configuration: expected a FILE")
    status = 0
    for file in files:
        options = Options()
        options["config"], options.overrides = file, chosen.set
        try:
            options.checked()
        except CannotStart as error:
            print(error.message, file=sys.stderr)
            status = 1
        else:
            print(f"{file}: in order")
    return status
