"""What scripts reach the proxy by: its options, its log, and its end. `from streamproxy.scripts import ctx`.

There is one of each for the process. The proxy gives them what they work on; before that they have no options, and
`shutdown` raises.
"""

from __future__ import annotations

import logging
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streamproxy.filters.websocket import WebSocketData
from streamproxy.scripts.exceptions import OptionsError


class Option(NamedTuple):
    """What a script declared: `typespec` is a type, or one that may be None, or Sequence[str]."""

    name: str
    typespec: Any
    default: Any
    help: str
    choices: Sequence[str] | None


class _Snapshot(NamedTuple):
    """Options as they were, to be put back."""

    given: Mapping[str, Any]
    declared: dict[str, Option]
    values: dict[str, Any]


def _fits(value: object, typespec: Any) -> bool:
    """Whether a value is of the type that an option has."""
    if typespec is Any:
        return True
    origin, members = typing.get_origin(typespec), typing.get_args(typespec)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in members)
    if typespec in (None, type(None)):
        return value is None
    if origin is not None and issubclass(origin, Iterable):
        member = members[0] if members else Any
        return isinstance(value, (list, tuple)) and all(_fits(each, member) for each in value)
    if typespec is float and type(value) is int:
        return True
    if typespec is int and isinstance(value, bool):
        return False
    return isinstance(value, origin or typespec)


def _words(typespec: Any) -> str:
    return str(typespec.__name__) if isinstance(typespec, type) else str(typespec).replace("typing.", "")


class Options:
    """The options that scripts declared, as attributes; one that none declared is an AttributeError."""

    def __init__(self) -> None:
        self.__dict__.update(_given={}, _declared={}, _values={}, on_change=None)

    _given: Mapping[str, Any]
    _declared: dict[str, Option]
    _values: dict[str, Any]
    # Called with the names of options that a script changed.
    on_change: Callable[[set[str]], None] | None

    def begin(self, given: Mapping[str, Any]) -> object:
        """Forget all that was declared; scripts are going to be loaded, and `given` are the values that the user gave.

        What comes back puts all of it back by `restore`, where they couldn't be loaded.
        """
        before = _Snapshot(self._given, self._declared, self._values)
        self.__dict__.update(_given=dict(given), _declared={}, _values={})
        return before

    def restore(self, before: object) -> None:
        """Go back to what was there at a `begin`."""
        assert isinstance(before, _Snapshot)
        self.__dict__.update(_given=before.given, _declared=before.declared, _values=before.values)

    def declare(self, option: Option) -> None:
        """Make an option known; its value is the one that the user gave, else its default.

        Raises OptionsError for a value that it can't have, and where the same name is declared in another way.
        """
        known = self._declared.get(option.name)
        if known is not None and known != option:
            raise OptionsError(f"the option {option.name} is declared twice, and not in the same way")
        if not option.name.isidentifier() or option.name.startswith("_") or hasattr(type(self), option.name):
            raise OptionsError(f"{option.name!r} can't be the name of an option")
        self._declared[option.name] = option
        if known is None:
            self._values[option.name] = self._checked(option, self._given.get(option.name, option.default))

    def _checked(self, option: Option, value: Any) -> Any:
        if not _fits(value, option.typespec) and value is not option.default:
            raise OptionsError(f"the option {option.name} must be {_words(option.typespec)}, not {value!r}")
        if option.choices is not None and value is not option.default and value not in option.choices:
            raise OptionsError(f"the option {option.name} must be one of {', '.join(option.choices)}, not {value!r}")
        return value

    @property
    def declared(self) -> dict[str, Option]:
        """The options by name."""
        return dict(self._declared)

    @property
    def unknown(self) -> list[str]:
        """The names of values that the user gave and no script declared."""
        return [name for name in self._given if name not in self._declared]

    def update(self, **values: Any) -> None:
        """Set options; raises KeyError for names that none declared, OptionsError for values that they can't have."""
        unknown = [name for name in values if name not in self._declared]
        if unknown:
            raise KeyError(f"no script declared the options {', '.join(unknown)}")
        checked = {name: self._checked(self._declared[name], value) for name, value in values.items()}
        changed = {name for name, value in checked.items() if value != self._values[name]}
        self._values.update(checked)
        if changed and self.on_change is not None:
            self.on_change(changed)

    def keys(self) -> set[str]:
        """The names of all options."""
        return set(self._declared)

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no script declared an option {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "on_change":
            self.__dict__[name] = value
        elif name in self._declared:
            self.update(**{name: value})
        else:
            raise AttributeError(f"no script declared an option {name}")


class Log:
    """The log, by its levels. `logging` itself does as well."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("streamproxy.scripts")

    def __call__(self, text: object, level: str = "info") -> None:
        write = {"warn": self.warn, "error": self.error, "debug": self.debug}.get(level, self.info)
        write(text)

    def debug(self, text: object) -> None:
        """Say what only who looks for it wants to know."""
        self._logger.debug("%s", text)

    def info(self, text: object) -> None:
        """Say what happens."""
        self._logger.info("%s", text)

    def alert(self, text: object) -> None:
        """Say what happens; the same as `info`."""
        self._logger.info("%s", text)

    def warn(self, text: object) -> None:
        """Say what may be wrong."""
        self._logger.warning("%s", text)

    warning = warn

    def error(self, text: object) -> None:
        """Say what is wrong."""
        self._logger.error("%s", text)


class Commands:
    """There is one command, `inject.websocket`, for nobody sits at this proxy."""

    def call(self, name: str, *args: Any, **named: Any) -> None:
        """Give a command; see `inject_websocket`. Raises NotImplementedError for any other."""
        if name != "inject.websocket":
            raise NotImplementedError(f"there are no commands here but inject.websocket, so {name} can't be called")
        self.inject_websocket(*args, **named)

    def inject_websocket(self, flow: Any, to_client: bool, message: bytes | str, is_text: bool = True) -> None:
        """Send a message by a flow's WebSocket, as text unless `is_text` says otherwise.

        Raises ValueError where the flow isn't one, and else what `WebSocketData.inject` does.
        """
        websocket = flow.websocket
        if not isinstance(websocket, WebSocketData):
            raise ValueError("nothing can be injected into a flow that is no WebSocket")
        websocket.inject(to_client, message, is_text)


class Master:
    """The proxy itself."""

    def __init__(self, options: Options, log: Log) -> None:
        self.options = options
        self.log = log
        self.commands = Commands()
        # No addon of another proxy is here.
        self.addons: tuple[object, ...] = ()
        # Ends the proxy in order; given by it.
        self.on_shutdown: Callable[[], object] | None = None

    def shutdown(self) -> None:
        """End the proxy, in order."""
        if self.on_shutdown is None:
            raise RuntimeError("no proxy runs that could be shut down")
        self.on_shutdown()


options = Options()
log = Log()
master = Master(options, log)
