"""Which modules are compiled: those that setup.py names, where streamproxy isn't run from this folder."""

import importlib
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import streamproxy

PROJECT = Path(__file__).resolve().parent.parent
NAMED = re.search(r'COMPILED = """([^"]*)"""', (PROJECT / "setup.py").read_text())


class CompiledTests(SynchronousTestCase):
    def test_what_setup_names_is_compiled_where_it_is_installed_and_only_there(self) -> None:
        assert NAMED is not None
        installed = not Path(streamproxy.__file__).resolve().is_relative_to(PROJECT / "streamproxy")
        names = NAMED[1].split()
        self.assertIn("wire/http1", names)
        for name in names:
            module = importlib.import_module("streamproxy." + name.replace("/", "."))
            self.assertEqual(module.__file__.endswith(".so"), installed, name)
