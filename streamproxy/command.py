"""The console script `streamproxy`: what a user types around the proxy, which itself is run by twistd (see `service`).

    streamproxy check rules.yaml          whether a configuration is in order
    streamproxy explain GET URL           what rules and settings would make of a request, and why
    streamproxy schema                    a JSON Schema of the configuration, for editors
    streamproxy ca show                   who the CA is
    streamproxy ca export -o ca.pem       its certificate, to be installed (never its key)
    eval "$(streamproxy env)"             a shell whose programs use the proxy and trust the CA

What each does is told in `commands`. An error is one line on stderr, and exit status 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from streamproxy import __version__
from streamproxy.commands import check, explain, schema, trust
from streamproxy.commands.arguments import Arguments, CommandError, configured
from streamproxy.settings import ConfigurationError
from streamproxy.tls.authority import AuthorityError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv's, if none is given); the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        status: int | None = chosen.run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has had enough. Python would say so once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CommandError, AuthorityError, ConfigurationError) as error:
        print(*(f"streamproxy: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"streamproxy: {error.strerror or error}", file=sys.stderr)
        return 1
    return status or 0


def parser() -> Arguments:
    """What understands the command line."""
    made = Arguments(prog="streamproxy", description="Check, explain and trust streamproxy. twistd runs it.")
    made.add_argument("--version", action="version", version=f"streamproxy {__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for each in (check, explain, schema, trust):
        each.add(commands, configured())
    return made


if __name__ == "__main__":
    sys.exit(main())
