"""What all commands share: how arguments and a configuration are read, and how errors and warnings are told."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from streamproxy.settings import Settings, load


class CommandError(Exception):
    """What can't be done, in lines for the user."""


class Arguments(argparse.ArgumentParser):
    """Answers what it doesn't understand with one line and exit status 1, like every other error here."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}\n")


def configured() -> Arguments:
    """The options of all commands that look at one configuration."""
    made = Arguments(add_help=False)
    made.add_argument("-c", "--config", metavar="FILE", help="the configuration that the proxy runs with")
    add_set(made)
    return made


def add_set(parser: Arguments) -> None:
    """Let keys be set from the command line."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="set a key, whatever the file says"
    )


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The settings that the proxy would have. Raises ConfigurationError."""
    # An empty file stands for no file, so that --set is heard there too.
    return load(chosen.config or os.devnull, chosen.set)


def warn(text: str) -> None:
    """Tell of something beside the output."""
    print(f"streamproxy: warning: {text}", file=sys.stderr)
