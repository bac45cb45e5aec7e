"""What scripts reach the proxy by: options, the log, its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts import ctx
from streamproxy.scripts.addonmanager import Loader
from streamproxy.scripts.exceptions import OptionsError


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.options = ctx.Options()
        self.options.begin({"number": 7, "name": "x", "unheard": 1})
        self.loader = Loader(ctx.Master(self.options, ctx.log))

    def test_an_option_has_the_value_that_the_user_gave_or_its_default(self) -> None:
        self.loader.add_option("number", int, 3, "a number")
        self.loader.add_option("other", str, "none", "a text")
        self.assertEqual((self.options.number, self.options.other), (7, "none"))
        self.assertEqual(self.options.keys(), {"number", "other"})
        self.assertIn("other", self.options)

    def test_what_no_script_declared_is_no_option(self) -> None:
        with self.assertRaises(AttributeError):
            self.options.number  # noqa: B018
        with self.assertRaises(AttributeError):
            self.options.number = 3
        with self.assertRaises(KeyError):
            self.options.update(number=3)
        self.assertEqual(self.options.unknown, ["number", "name", "unheard"])

    def test_values_are_of_the_type_that_was_declared(self) -> None:
        for typespec, good, bad in (
            (int, [0, -3], ["3", True, 1.5, None]),
            (bool, [True], [1, "yes", None]),
            (float, [1.5, 2], ["1"]),
            (str, [""], [b"", None]),
            (Optional[int], [None, 3], ["3"]),  # noqa: UP045
            (int | None, [None, 3], ["3"]),
            (Sequence[str], [["a"], (), []], ["a", [1], None]),
            (list[str], [["a"]], [[1]]),
            (Any, [None, 1, "x"], []),
        ):
            for value in good:
                self.options.begin({"option": value})
                self.loader.add_option("option", typespec, object(), "")
                self.assertEqual(self.options.option, value)
            for value in bad:
                self.options.begin({"option": value})
                with self.assertRaises(OptionsError, msg=f"{typespec} {value!r}"):
                    self.loader.add_option("option", typespec, object(), "")

    def test_a_value_is_one_of_the_choices(self) -> None:
        self.loader.add_option("name", str, "x", "", choices=["x", "y"])
        with self.assertRaises(OptionsError):
            self.options.update(name="z")
        self.options.name = "y"
        self.assertEqual(self.options.name, "y")

    def test_an_option_is_declared_twice_only_in_the_same_way(self) -> None:
        self.loader.add_option("number", int, 3, "a number")
        self.loader.add_option("number", int, 3, "a number")
        with self.assertRaises(OptionsError):
            self.loader.add_option("number", int, 4, "a number")
        for name in ("update", "_given", "a b"):
            with self.assertRaises(OptionsError, msg=name):
                self.loader.add_option(name, int, 4, "")

    def test_a_change_is_told_with_the_names_of_what_changed(self) -> None:
        self.loader.add_option("number", int, 3, "")
        self.loader.add_option("name", str, "", "")
        told: list[set[str]] = []
        self.options.on_change = told.append
        self.options.update(number=8, name="x")
        self.options.number = 8
        self.assertEqual(told, [{"number"}])

    def test_options_of_scripts_that_did_not_load_are_forgotten(self) -> None:
        self.loader.add_option("number", int, 3, "")
        before = self.options.begin({"number": 9, "new": 1})
        self.loader.add_option("new", int, 0, "")
        self.assertNotIn("number", self.options)
        self.options.restore(before)
        self.assertEqual((self.options.number, self.options.keys()), (7, {"number"}))

    def test_commands_are_refused_in_words(self) -> None:
        for call in (
            lambda: self.loader.add_command("a.b", print),
            lambda: self.loader.master.commands.call("view.flows.add", []),
        ):
            with self.assertRaises(NotImplementedError) as caught:
                call()
            self.assertIn("no commands", str(caught.exception))


class LogTests(SynchronousTestCase):
    def test_what_is_logged_goes_to_logging_by_its_level(self) -> None:
        with self.assertLogs("streamproxy.scripts", logging.DEBUG) as logs:
            ctx.log.debug("a%s")
            ctx.log.info(7)
            ctx.log.alert("b")
            ctx.log.warn("c")
            ctx.log.error("d")
            ctx.log("e")
            ctx.log("f", "warn")
        self.assertEqual(
            [(record.levelname, record.getMessage()) for record in logs.records],
            [
                ("DEBUG", "a%s"),
                ("INFO", "7"),
                ("INFO", "b"),
                ("WARNING", "c"),
                ("ERROR", "d"),
                ("INFO", "e"),
                ("WARNING", "f"),
            ],
        )


class MasterTests(SynchronousTestCase):
    def test_shutdown_calls_what_the_proxy_gave(self) -> None:
        master = ctx.Master(ctx.Options(), ctx.log)
        with self.assertRaises(RuntimeError):
            master.shutdown()
        calls: list[int] = []
        master.on_shutdown = lambda: calls.append(1)
        master.shutdown()
        self.assertEqual(calls, [1])

    def test_no_other_addons_are_here(self) -> None:
        self.assertNotIn("view", ctx.master.addons)
