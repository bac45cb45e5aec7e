"""Scripts from files: what is found in them, what is said of those that can't be loaded, and what stays of them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts import ctx
from streamproxy.scripts.calls import Calls
from streamproxy.scripts.loading import HOOKS, ScriptLoadError, Scripts, load_scripts
from streamproxy.scripts.loop import ScriptLoop


class LoadingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.patch(sys, "dont_write_bytecode", False)
        self.modules, self.path = set(sys.modules), list(sys.path)
        self.addCleanup(ctx.options.restore, ctx.options.begin({}))

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(dedent(text))
        return name

    def load(self, *paths: str, **options: object) -> Scripts:
        scripts = load_scripts(paths, options, str(self.folder))
        self.addCleanup(scripts.forget)
        return scripts

    def fails(self, *paths: str, **options: object) -> ScriptLoadError:
        error = self.assertRaises(ScriptLoadError, load_scripts, paths, options, str(self.folder))
        self.assertNothingStays()
        assert isinstance(error, ScriptLoadError)
        return error

    def assertNothingStays(self) -> None:
        new = {name: sys.modules[name] for name in set(sys.modules) - self.modules}
        stays = [name for name, module in new.items() if str(self.folder) in (getattr(module, "__file__", None) or "")]
        self.assertEqual(stays, [])
        self.assertEqual(sys.path, self.path)
        self.assertFalse(sys.dont_write_bytecode)


class HookTests(LoadingTestCase):
    def test_functions_and_methods_of_addons_and_theirs_are_found_in_order(self) -> None:
        first = self.write(
            "first.py",
            """
            def request(flow): return "module"
            class Inner:
                def request(self, flow): return "inner"
            class Outer:
                addons = [Inner()]
                def request(self, flow): return "outer"
                async def response(self, flow): ...
            addons = [Outer(), Inner()]
            """,
        )
        second = self.write("second.py", "def request(flow): return 'second'")
        hooks = self.load(first, second).hooks
        self.assertEqual(
            [(hook.name, hook.function(None)) for hook in hooks["request"]],
            [
                ("first.py:request", "module"),
                ("first.py:Outer.request", "outer"),
                ("first.py:Inner.request", "inner"),
                ("first.py:Inner.request", "inner"),
                ("second.py:request", "second"),
            ],
        )
        self.assertEqual([hook.name for hook in hooks["response"]], ["first.py:Outer.response"])
        self.assertEqual(set(hooks), set(HOOKS))
        self.assertEqual(hooks["error"], ())

    def test_addons_that_hold_each_other_are_found_once(self) -> None:
        path = self.write(
            "x.py",
            """
            class Addon:
                def request(self, flow): ...
            one, two = Addon(), Addon()
            one.addons, two.addons = [two], [one]
            addons = [one]
            """,
        )
        self.assertEqual(len(self.load(path).hooks["request"]), 2)

    def test_hooks_of_life_are_called_when_their_time_comes(self) -> None:
        path = self.write(
            "x.py",
            """
            import asyncio
            from streamproxy.scripts import ctx
            seen = []
            def load(loader): loader.add_option("size", int, 4, "How large."); seen.append("load")
            def configure(updated): seen.append((sorted(updated), ctx.options.size))
            async def running():
                seen.append("running")
                await asyncio.sleep(1)
                seen.append("slept")
            def done(): seen.append("done")
            """,
        )
        clock = Clock()
        calls = Calls(clock)
        loop = ScriptLoop(clock, calls)
        scripts = self.load(path, size=7, sise=8)
        seen, _name = scripts.find("x:seen.append")
        seen = seen.__self__  # type: ignore[attr-defined]
        self.assertEqual(seen, ["load", (["size"], 7)])
        self.assertEqual(scripts.warnings, ["scripts: no script has an option sise"])
        scripts.running(calls, loop)
        clock.advance(1)
        scripts.done(calls, loop)
        self.assertEqual(seen[2:], ["running", "slept", "done"])
        loop.stop()
        self.assertNothingStays()

    def test_names_that_are_almost_hooks_are_warned_of(self) -> None:
        path = self.write(
            "x.py",
            """
            from textwrap import indent as reqest
            def respones(flow): ...
            def helper(flow): ...
            def requests(): ...
            class Addon:
                def reqeust(self, flow): ...
            addons = [Addon(), Addon]
            """,
        )
        warnings = self.load(path).warnings
        self.assertEqual(len(warnings), 3, warnings)
        self.assertIn("x.py:3: respones is no hook; did you mean response?", warnings)
        self.assertIn("x.py:7: reqeust is no hook; did you mean request?", warnings)
        self.assertIn("x.py: addons has the class Addon; did you mean Addon()?", warnings)


class ErrorTests(LoadingTestCase):
    def test_the_place_is_told(self) -> None:
        self.write("broken.py", "x = (")
        table = [
            ("def f(:", 1, "SyntaxError"),
            ("x = 1\n\ny = x.z\n", 3, "AttributeError"),
            ("import sys\nsys.exit(3)", 2, "SystemExit"),
            ("import no_such_module_anywhere", 1, "no_such_module_anywhere"),
            ("from mitmproxy import http", 1, "from streamproxy.scripts import http"),
            ("def load(loader):\n    loader.add_command('a', None)", 2, "commands"),
            ("def configure(updated):\n    raise ValueError('no')", 2, "no"),
            ("async def load(loader): ...", None, "async"),
            ("import json\njson.loads('{')", 2, "JSONDecodeError"),
            ("addons = 5", None, "expected a list"),
        ]
        for text, line, words in table:
            error = self.fails(self.write("x.py", text))
            self.assertEqual((error.path, error.line), ("x.py", line), text)
            self.assertIn(words, error.words)
            self.assertTrue(str(error).startswith("x.py:"))
        self.assertIn("no such file", str(self.fails("missing.py")))
        self.assertIn("broken.py", str(self.fails(self.write("x.py", "import broken"))))

    def test_what_was_begun_is_ended_and_options_are_as_they_were(self) -> None:
        ctx.options.begin({"size": 1})
        good = self.write(
            "good.py",
            f"""
            from pathlib import Path
            def load(loader): loader.add_option("size", int, 4, "How large.")
            def done(): Path({str(self.folder / "done")!r}).touch()
            """,
        )
        self.fails(good, self.write("bad.py", "1 / 0"))
        self.assertTrue((self.folder / "done").exists())
        self.assertNotIn("size", ctx.options)


class ModuleTests(LoadingTestCase):
    def test_siblings_are_shared_and_fresh_after_a_reload(self) -> None:
        self.write("sibling.py", "value = 1\nseen = []")
        paths = [
            self.write(name, f"import sibling\nsibling.seen.append({name!r})\ndef request(flow): return sibling")
            for name in ("one.py", "two.py")
        ]
        first = [hook.function(None) for hook in self.load(*paths).hooks["request"]]
        self.assertIs(first[0], first[1])
        self.assertEqual(first[0].seen, paths)  # type: ignore[attr-defined]
        self.assertNotIn("sibling", sys.modules)
        self.assertFalse((self.folder / "__pycache__").exists())
        # Of the same length, and within the same second.
        self.write("sibling.py", "value = 2\nseen = []")
        second = self.load(*paths).hooks["request"][0].function(None)
        self.assertEqual((first[0].value, second.value), (1, 2))  # type: ignore[attr-defined]

    def test_a_script_is_fresh_after_a_reload_and_the_old_one_goes_on(self) -> None:
        path = self.write("x.py", "def request(flow): return 1")
        old = self.load(path).hooks["request"][0]
        self.write("x.py", "def request(flow): return 2")
        self.assertEqual((old.function(None), self.load(path).hooks["request"][0].function(None)), (1, 2))
        self.assertFalse((self.folder / "__pycache__").exists())

    def test_a_scripts_module_isnt_importable_by_its_name_and_knows_itself(self) -> None:
        path = self.write(
            "x.py",
            """
            from __future__ import annotations
            from dataclasses import dataclass
            from typing import ClassVar
            @dataclass
            class Seen:
                count: ClassVar[int] = 0
            """,
        )
        self.load(path)
        self.assertNotIn("x", sys.modules)

    def test_packages_that_were_there_are_not_forgotten(self) -> None:
        (self.folder / "package").mkdir()
        self.write("package/__init__.py", "")
        self.write("package/inner.py", "")
        self.load(self.write("x.py", "import package.inner, wsgiref.headers"))
        self.assertIn("wsgiref.headers", sys.modules)
        self.assertNotIn("package", sys.modules)
        self.assertNotIn("package.inner", sys.modules)


class FindTests(LoadingTestCase):
    def test_functions_are_found_by_script_path_file_and_module(self) -> None:
        listed = self.write(
            "listed.py", "class Shout:\n    def feed(self, chunk): return chunk\n    def one(self): ..."
        )
        self.write("beside.py", "def on_event(event): return 'beside'")
        scripts = self.load(listed)
        self.assertEqual(scripts.find("listed:Shout")[1], "listed.py:Shout")
        self.assertEqual(scripts.find("listed:Shout.one")[1], "listed.py:Shout.one")
        function, name = scripts.find("beside:on_event")
        self.assertEqual((function(None), name), ("beside", "beside.py:on_event"))  # type: ignore[operator]
        self.assertIs(scripts.find("beside.py:on_event")[0], function)
        self.assertIs(scripts.find(f"{self.folder}/beside.py:on_event")[0], function)
        self.assertEqual(scripts.find("os.path:join"), (os.path.join, "os.path:join"))

    def test_what_isnt_there_is_told_with_what_may_be_meant(self) -> None:
        listed = self.write("listed.py", "def on_event(event): ...\nsize = 5")
        self.write("broken.py", "1 / 0")
        scripts = self.load(listed)
        table = [
            ("listed", "expected module:function"),
            ("listed:", "expected module:function"),
            ("listed:on_evnt", "there is no on_evnt in it; did you mean on_event?"),
            ("listed:size", "expected a function or a class"),
            ("lsited:on_event", "no such script or module; did you mean listed?"),
            ("no.such.module:f", "no such script or module"),
            ("missing.py:f", "no such script or module"),
            ("broken:f", "ZeroDivisionError"),
        ]
        for name, words in table:
            self.assertIn(words, str(self.assertRaises(ScriptLoadError, scripts.find, name)))

    def test_two_scripts_of_one_name_must_be_told_apart(self) -> None:
        (self.folder / "sub").mkdir()
        paths = [self.write("x.py", "def f(): ..."), self.write("sub/x.py", "def f(): ...")]
        scripts = self.load(*paths)
        self.assertIn("write the path", str(self.assertRaises(ScriptLoadError, scripts.find, "x:f")))
        self.assertEqual(scripts.find("sub/x.py:f")[1], "sub/x.py:f")
