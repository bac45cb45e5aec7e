"""The package as others get it: a wheel, installed into an environment that has never seen this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import streamproxy
from tests.system.parts import PROJECT, TWISTD, Proxy, curl, new_folder, run

# Building may first fetch the tools to build with.
BUILD = 300


class WheelTests(SynchronousTestCase):
    def pip(self, *arguments: str | Path) -> None:
        """Run pip; its environment is kept, for it may say where packages come from. Not where ours is, though."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # Compiling takes half a minute, and what comes of it is tested whole by `make test-compiled`.
        environment["STREAMPROXY_PURE"] = "1"
        ended = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            timeout=BUILD,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, (ended.stdout + ended.stderr).decode())

    def build(self) -> Path:
        """A wheel, built from a copy of what the package is made of."""
        source, wheels = new_folder(self), new_folder(self)
        left_out = shutil.ignore_patterns("__pycache__", "dropin.cache")
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md"):
            shutil.copy(PROJECT / name, source)
        for name in ("streamproxy", "twisted", "docs/man"):
            shutil.copytree(PROJECT / name, source / name, ignore=left_out)
        self.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, source)
        (wheel,) = wheels.glob("streamproxy-*.whl")
        return wheel

    def make_environment(self, folder: Path) -> Path:
        """A new environment's Python; it borrows our dependencies."""
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        # What a .pth file names is searched behind the environment's own, and its .pth files are not read: so the
        # link to this folder that an editable install is has no effect there.
        borrowed = {str(distribution(name).locate_file("")) for name in ("twisted", "pyyaml", "pydantic")}
        (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        return folder / "bin" / "python"

    def install(self, wheel: Path) -> Path:
        """The Python of an environment that has the wheel."""
        folder = new_folder(self)
        python = self.make_environment(folder)
        self.pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
        return python

    def test_an_installed_wheel_finds_its_plugin_and_serves(self) -> None:
        python = self.install(self.build())
        root = Path("/")
        for module in ("streamproxy.service", "twisted.plugins.streamproxy_plugin"):
            ran = run(self, python, "-c", f"import {module} as it; print(it.__file__)", folder=root)
            self.assertEqual((ran.status, ran.err), (0, ""))
            where = Path(ran.out.decode().strip())
            self.assertTrue(where.is_relative_to(python.parents[1]), f"{module} came from {where}")

        ran = run(self, python, TWISTD, "--help", folder=root)
        self.assertEqual(ran.status, 0, ran.err)
        self.assertRegex(ran.out, rb"(?m)^ +streamproxy +\S")

        config = new_folder(self) / "rules.yaml"
        config.write_text("rules: [{match: {host: hello.example}, respond: {text: hello}}]\n")
        ran = run(self, python, TWISTD, "streamproxy", "-c", config, "--check", folder=root)
        self.assertEqual(ran, (0, f"{config}: in order\n".encode(), ""))

        pages = python.parents[1] / "share/man"
        self.assertEqual(
            sorted(str(path.relative_to(pages)) for path in pages.rglob("*.*")),
            ["man1/streamproxy.1", "man5/streamproxy.yaml.5"],
        )
        # The words about keys are there, too.
        ran = run(self, python, "-m", "streamproxy.command", "schema", folder=root)
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertIn(b"Where clients come in", ran.out)

        proxy = Proxy(self, config.read_text(), twistd=(python, TWISTD))
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")

    def test_a_clean_environment_has_no_plugin_without_the_wheel(self) -> None:
        # Else the test above would show nothing.
        python = self.make_environment(new_folder(self))
        ran = run(self, python, TWISTD, "--help", folder=Path("/"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn(b"twistd", ran.out)
        self.assertNotIn(b"streamproxy", ran.out)


if not Path(streamproxy.__file__).resolve().is_relative_to(PROJECT / "streamproxy"):
    # The tests themselves run in an environment that has a wheel, so one that borrows from it would have it as well.
    del WheelTests
