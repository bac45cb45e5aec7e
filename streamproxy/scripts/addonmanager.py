"""What a script's `load` hook is given: `from streamproxy.scripts.addonmanager import Loader`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from streamproxy.scripts import ctx


class Loader:
    """Takes what scripts declare while they are loaded."""

    def __init__(self, master: ctx.Master | None = None) -> None:
        self.master = ctx.master if master is None else master

    def add_option(
        self, name: str, typespec: Any, default: Any, help: str, choices: Sequence[str] | None = None
    ) -> None:
        """Declare an option of `ctx.options`: bool, int, float, str, one of these or None, or Sequence[str].

        Raises OptionsError where the user gave it a value that it can't have.
        """
        self.master.options.declare(ctx.Option(name, typespec, default, help, choices))

    def add_command(self, path: str, func: Callable[..., Any]) -> NoReturn:
        """Not offered: nobody sits at this proxy to give commands."""
        raise NotImplementedError(f"there are no commands here, so {path} can't be added")
