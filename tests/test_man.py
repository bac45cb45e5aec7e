"""The manual pages: they are about all there is, and are read without a complaint."""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from streamproxy import __version__
from streamproxy.command import main, parser
from streamproxy.rules.json_schema import json_schema
from streamproxy.service import Options
from tests.test_command import CommandTestCase

FOLDER = Path(__file__).resolve().parent.parent / "docs/man"
PAGES = sorted(FOLDER.glob("*.[0-9]"))


def plain(path: Path) -> str:
    """A page's text without its markup."""
    text = re.sub(r'\\f[A-Z]|\\&|(?m:^\.[A-Z]+ )|"', "", path.read_text())
    return text.replace("\\-", "-")


class PageTests(SynchronousTestCase):
    def test_there_are_two_of_this_version(self):
        self.assertEqual([path.name for path in PAGES], ["streamproxy.1", "streamproxy.yaml.5"])
        for path in PAGES:
            self.assertIn(f'"streamproxy {__version__}"', path.read_text())

    def test_every_command_and_option_of_the_command_is_told(self):
        page = plain(FOLDER / "streamproxy.1")
        found = []

        def look(each: argparse.ArgumentParser, name: str) -> None:
            found.append(name)
            for action in each._actions:
                if isinstance(action, argparse._SubParsersAction):
                    for word, inner in action.choices.items():
                        look(inner, f"{name} {word}")
                else:
                    for option in action.option_strings:
                        self.assertIn(option, page, name)

        look(parser(), "streamproxy")
        self.assertGreater(len(found), 7)
        for name in found:
            self.assertIn(name, page)

    def test_every_option_of_twistd_streamproxy_is_told(self):
        page = plain(FOLDER / "streamproxy.1")
        words = [word for word in Options().longOpt if len(word) > 1]
        self.assertGreater(len(words), 3)
        for word in words:
            self.assertIn(f"--{word.rstrip('=')}", page)

    def test_every_key_of_the_configuration_is_told(self):
        page = plain(FOLDER / "streamproxy.yaml.5")
        schema = json_schema()
        keys = [key for form in (schema, *schema["$defs"].values()) for key in form["properties"]]
        self.assertGreater(len(keys), 100)
        for key in keys:
            self.assertRegex(page, rf"(?m)^{key} +\(")

    def test_the_page_of_keys_is_what_the_models_say(self):
        made = importlib.util.spec_from_file_location("keys", FOLDER / "keys.py")
        module = importlib.util.module_from_spec(made)
        made.loader.exec_module(module)
        self.assertEqual(module.page(), (FOLDER / "streamproxy.yaml.5").read_text(), "it is old: make man")

    def check(self, *command: str) -> None:
        if shutil.which(command[0]) is None:
            raise SkipTest(f"needs {command[0]}")
        for path in PAGES:
            ended = subprocess.run([*command, path], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((ended.returncode, ended.stderr), (0, ""), path.name)

    def test_man_has_no_complaint(self):
        self.check("man", "--warnings", "-l")

    def test_mandoc_has_no_complaint(self):
        if shutil.which("mandoc") is None:
            raise SkipTest("needs mandoc (apt-get install mandoc)")
        for path in PAGES:
            ended = subprocess.run(
                ["mandoc", "-T", "lint", path], capture_output=True, text=True, timeout=60, check=False
            )
            self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "", ""), path.name)


class SchemaCommandTests(CommandTestCase):
    def test_the_schema_is_printed(self):
        status, out, err = self.run_it("schema")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(json.loads(out), json_schema())

    def test_help_names_each_command(self):
        self.assertEqual(main.__module__, "streamproxy.command")
        status, out, _ = self.run_it("--help")
        self.assertEqual(status, 0)
        for word in (b"check", b"explain", b"schema", b"ca ", b"env"):
            self.assertIn(word, out)
