"""`streamproxy schema`: the JSON Schema of the configuration, by which editors check and complete it."""

from __future__ import annotations

import argparse
import json

from streamproxy.commands.arguments import Arguments
from streamproxy.rules.json_schema import json_schema


def add(commands: argparse._SubParsersAction[Arguments], configured: Arguments) -> None:
    """Put this command among the others."""
    made = commands.add_parser("schema", help="a JSON Schema of the configuration, for editors")
    made.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the schema."""
    print(json.dumps(json_schema(), indent=2))
