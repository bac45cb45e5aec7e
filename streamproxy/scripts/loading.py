"""Loads the files of scripts, and finds in them what rules and the proxy call: hooks, and functions by their names.

Each file is a module of its own, under a name that nobody imports. While the files are loaded their folders are where
modules are looked for first, so `import sibling` works, and all scripts that import it get the same one. Afterwards it
is forgotten, and the next load reads it again; so a sibling is to be imported at the top of a file, not when a hook
runs.
What comes from elsewhere, installed packages, is Python's own business and isn't read again.

Loading runs the user's code, without a budget.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import NamedTuple

from twisted.logger import Logger

from streamproxy.scripts import ctx
from streamproxy.scripts.addonmanager import Loader
from streamproxy.scripts.calls import Calls, ScriptHung
from streamproxy.scripts.loop import ScriptLoop

FLOW_HOOKS = (
    "requestheaders",
    "request",
    "responseheaders",
    "response",
    "error",
    "websocket_start",
    "websocket_message",
    "websocket_end",
)
HOOKS = (*FLOW_HOOKS, "load", "configure", "running", "done")
log = Logger()
_numbers = iter(range(1, sys.maxsize))


class ScriptLoadError(Exception):
    """A script can't be loaded, or what is named isn't in it. `line` is None where there is none to tell."""

    def __init__(self, path: str, line: int | None, words: str) -> None:
        super().__init__(f"{path}:{line}: {words}" if line else f"{path}: {words}")
        self.path = path
        self.line = line
        self.words = words


class Hook(NamedTuple):
    """A function of a script; `name` is the one for errors and the log: `conf/x.py:Class.request`."""

    name: str
    function: Callable[..., object]


class Scripts:
    """Scripts that were loaded. `hooks` has, for each of `HOOKS`, those that there are, in order; `warnings` are for
    people: what looks like a mistake and may be none."""

    def __init__(self, folder: str) -> None:
        self.hooks: dict[str, tuple[Hook, ...]] = dict.fromkeys(HOOKS, ())
        self.warnings: list[str] = []
        self._folder = folder
        # The options of the scripts before these.
        self.options_before: object = None
        self._modules: dict[str, ModuleType] = {}
        self._loaded: list[str] = []

    def find(self, name: str) -> tuple[object, str]:
        """What `module:function` means, and its name in errors. Raises `ScriptLoadError`.

        The module is the name of a listed script without its folder and `.py`; a path that ends in `.py`; the name of a
        file beside the configuration or in the working directory; or a module that can be imported. The function may
        have dots: `module:Class.method`.
        """
        module_name, colon, dotted = name.partition(":")
        if not colon or not module_name or not dotted:
            raise ScriptLoadError(name, None, "expected module:function")
        path, module = self._module(module_name)
        found: object = module
        for part in dotted.split("."):
            names = vars(found) if isinstance(found, ModuleType) else dir(found)
            try:
                found = getattr(found, part)
            except AttributeError:
                near = difflib.get_close_matches(part, [each for each in names if not each.startswith("__")], 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ScriptLoadError(path, None, f"there is no {dotted} in it{hint}") from None
        if not callable(found) and not callable(getattr(found, "feed", None)):
            kind = type(found).__name__
            raise ScriptLoadError(path, None, f"{dotted} is of the type {kind}: expected a function or a class")
        return found, f"{path}:{dotted}"

    def name_of(self, function: object) -> str:
        """The name, in errors, of a function or class that a script has; of an object, that of its class."""
        module = getattr(function, "__module__", None)
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        for path, loaded in self._modules.items():
            if loaded.__name__ == module:
                return f"{path}:{name}"
        return f"{module}:{name}"

    def running(self, calls: Calls, loop: ScriptLoop) -> None:
        """The proxy runs now: call these hooks. What goes wrong is logged."""
        self._call_all("running", calls, loop)

    def done(self, calls: Calls | None = None, loop: ScriptLoop | None = None) -> None:
        """They were replaced, or the proxy ends: call these hooks, forget the modules. What goes wrong is logged."""
        self._call_all("done", calls, loop)
        self.forget()

    def discard(self, calls: Calls | None = None, loop: ScriptLoop | None = None) -> None:
        """They won't be obeyed, for something else is wrong: those before them go on, by their own options."""
        self.done(calls, loop)
        before, self.options_before = self.options_before, None
        if before is not None:
            ctx.options.restore(before)

    def forget(self) -> None:
        """Take the modules from among Python's own."""
        for name in self._loaded:
            sys.modules.pop(name, None)

    def load(self, path: str) -> ModuleType:
        """Load one file and give its module. Its folder must be where modules are looked for."""
        place = self._place(path)
        if place is None:
            raise ScriptLoadError(path, None, "there is no such file")
        name = f"_streamproxy_script_{next(_numbers)}_{os.path.basename(place).removesuffix('.py')}"
        spec = importlib.util.spec_from_file_location(name, place, loader=_FromSource(name, place))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look their own module up.
        sys.modules[name] = module
        self._loaded.append(name)
        try:
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _load_error(path, place, error) from None
        self._modules[path] = module
        return module

    def collect(self, path: str, module: ModuleType) -> dict[str, list[Hook]]:
        """The hooks of a module, and of the objects in its `addons`."""
        hooks: dict[str, list[Hook]] = {}
        for prefix, addon in self._addons(path, module):
            for name in HOOKS:
                function = getattr(addon, name, None)
                # A class that a module has, or imports, under a hook's name isn't meant as one.
                if callable(function) and not isinstance(function, type):
                    hooks.setdefault(name, []).append(Hook(f"{path}:{prefix}{name}", function))
            self._look_for_misspelt(path, addon)
        return hooks

    def _addons(self, path: str, module: ModuleType) -> Iterator[tuple[str, object]]:
        """The module, then the objects in its `addons` and in theirs, each before its own."""
        seen = {id(module)}
        waiting: list[tuple[str, object]] = [("", module)]
        while waiting:
            prefix, addon = waiting.pop()
            yield prefix, addon
            inner = getattr(addon, "addons", ())
            if not isinstance(inner, (list, tuple)):
                raise ScriptLoadError(path, None, f"addons is of the type {type(inner).__name__}: expected a list")
            for each in reversed(inner):
                if id(each) in seen:
                    continue
                seen.add(id(each))
                kind = each if isinstance(each, type) else type(each)
                if kind is each:
                    self.warnings.append(
                        f"{path}: addons has the class {kind.__name__}; did you mean {kind.__name__}()?"
                    )
                waiting.append((f"{getattr(each, '__name__', kind.__name__)}.", each))

    def _look_for_misspelt(self, path: str, addon: object) -> None:
        """Warn of functions whose names are almost those of hooks."""
        module = isinstance(addon, ModuleType)
        members = vars(addon) if isinstance(addon, ModuleType) else vars(type(addon))
        for name, function in members.items():
            if not inspect.isfunction(function) or name in HOOKS or name.startswith("_"):
                continue
            if module and function.__module__ != addon.__name__:  # type: ignore[attr-defined]
                continue
            near = difflib.get_close_matches(name, HOOKS, 1, 0.8)
            takes = function.__code__.co_argcount - (0 if module else 1)
            if near and takes == 1:
                line = function.__code__.co_firstlineno
                self.warnings.append(f"{path}:{line}: {name} is no hook; did you mean {near[0]}?")

    def _module(self, name: str) -> tuple[str, ModuleType]:
        """The module that is meant by `name`, and what to call it."""
        listed = [path for path in self._modules if _stem(path) == name or path == name]
        if len(listed) > 1:
            raise ScriptLoadError(name, None, f"it could be {' or '.join(listed)}: write the path")
        if listed:
            return listed[0], self._modules[listed[0]]
        path = name if name.endswith(".py") else f"{name}.py"
        place = self._place(path)
        for other, module in self._modules.items():
            if place is not None and self._place(other) == place:
                return other, module
        if place is not None:
            with _Looking([place]):
                return path, self.load(path)
        if path != name:
            try:
                return name, importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if not isinstance(error, ModuleNotFoundError) or error.name != name.partition(".")[0]:
                    raise _load_error(name, "", error) from None
        near = difflib.get_close_matches(name, [_stem(path) for path in self._modules], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ScriptLoadError(name, None, f"there is no such script or module{hint}")

    def _place(self, path: str) -> str | None:
        """The file that a path means: from the configuration's folder, else from the working directory."""
        for place in (os.path.join(self._folder, path), path):
            if os.path.isfile(place):
                return os.path.abspath(place)
        return None

    def _call_all(self, name: str, calls: Calls | None, loop: ScriptLoop | None) -> None:
        for hook in self.hooks[name]:
            try:
                if calls is None or loop is None:
                    result = hook.function()
                else:
                    result = calls.run(hook.name, loop.inside, hook.function)
                if inspect.isawaitable(result):
                    if loop is not None:
                        loop.start(result, hook.name)
                    elif inspect.iscoroutine(result):
                        result.close()
            except Exception as error:
                log.warn("{name} failed: {error}", name=hook.name, error=error)


def load_scripts(paths: Sequence[str], options: Mapping[str, object], folder: str = "") -> Scripts:
    """Load the files of `paths`, in order, from `folder` (the configuration's) or the working directory.

    `options` are the values that the user gave to options of scripts. Calls their `load` and `configure` hooks. Raises
    `ScriptLoadError` with the place for the first that fails; nothing of them stays then, and the options are as they
    were.
    """
    scripts = Scripts(folder)
    scripts.options_before = ctx.options.begin(options)
    hooks: dict[str, list[Hook]] = {name: [] for name in HOOKS}
    begun: list[Hook] = []
    try:
        with _Looking([place for path in paths if (place := scripts._place(path)) is not None]):
            for path in paths:
                found = scripts.collect(path, scripts.load(path))
                for name, more in found.items():
                    hooks[name] += more
                for hook in found.get("load", ()):
                    _call(scripts, path, hook, Loader())
                begun += found.get("done", ())
            for hook in hooks["configure"]:
                _call(scripts, hook.name.rpartition(":")[0], hook, ctx.options.keys())
    except BaseException:
        scripts.hooks["done"] = tuple(begun)
        scripts.discard()
        raise
    scripts.hooks = {name: tuple(each) for name, each in hooks.items()}
    scripts.warnings += [f"scripts: no script has an option {name}" for name in ctx.options.unknown]
    return scripts


def _call(scripts: Scripts, path: str, hook: Hook, argument: object) -> None:
    """Call a hook while loading; it may fail, but not wait."""
    try:
        result = hook.function(argument)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{hook.name} can't be async")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _load_error(path, scripts._place(path) or "", error) from None


def _stem(path: str) -> str:
    return os.path.basename(path).removesuffix(".py")


def _load_error(path: str, place: str, error: BaseException) -> ScriptLoadError:
    """The place and the words for what a user's file raised when it was loaded."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == place:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        if error.filename != place:
            path = error.filename
        return ScriptLoadError(path, error.lineno, f"{type(error).__name__}: {error.msg}")
    if isinstance(error, ScriptHung):
        return ScriptLoadError(path, line, "it doesn't come to its end while it is loaded, and was interrupted")
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "mitmproxy":
        words += "; write `from streamproxy.scripts import http, ctx`"
    return ScriptLoadError(path, line, words)


class _FromSource(SourceFileLoader):
    """Reads the file each time: compiled files of before may be of the same second, and look fresh."""

    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self.get_data(self.path), self.path)


class _Looking:
    """While it lasts, modules are looked for in the folders of some files first. Then those are forgotten."""

    def __init__(self, places: Sequence[str]) -> None:
        self._folders = list(dict.fromkeys(os.path.dirname(place) for place in places))

    def __enter__(self) -> None:
        self._modules = set(sys.modules)
        self._wrote_bytecode = sys.dont_write_bytecode
        sys.dont_write_bytecode = True
        sys.path[:0] = self._folders
        importlib.invalidate_caches()

    def __exit__(self, *_error: object) -> None:
        sys.dont_write_bytecode = self._wrote_bytecode
        for folder in self._folders:
            if folder in sys.path:
                sys.path.remove(folder)
        new = set(sys.modules) - self._modules
        # Packages that were installed below such a folder aren't meant, nor what belongs to one that was there before.
        siblings = {name for name in new if "." not in name and self._is_sibling(name)}
        for name in new:
            if name.partition(".")[0] in siblings:
                del sys.modules[name]

    def _is_sibling(self, name: str) -> bool:
        module = sys.modules[name]
        places = {getattr(module, "__file__", None), *getattr(module, "__path__", ())}
        beside = [os.path.join(folder, name) for folder in self._folders]
        return any(not places.isdisjoint((path, f"{path}.py", os.path.join(path, "__init__.py"))) for path in beside)
