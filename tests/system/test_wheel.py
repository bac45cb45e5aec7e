"""The package as others get it: a wheel, installed into an environment that has never seen this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import PROJECT, TWISTD, Proxy, clean_environment, curl, new_folder, run

# Building may first fetch the tools to build with.
BUILD = 300


class WheelTests(SynchronousTestCase):
    def pip(self, *arguments: str | Path) -> None:
        """Run pip; its environment is kept, for it may say where packages come from. Not where ours is, though."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
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
        for name in ("setup.cfg", "pyproject.toml", "README.md"):
            shutil.copy(PROJECT / name, source)
        for name in ("streamproxy", "twisted"):
            shutil.copytree(PROJECT / name, source / name, ignore=left_out)
        self.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, source)
        (wheel,) = wheels.glob("streamproxy-*.whl")
        return wheel

    def install(self, wheel: Path) -> Path:
        """A new environment's Python, with the wheel installed; it borrows our dependencies, but not our package."""
        folder = new_folder(self)
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin" / "python"
        self.pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
        (packages,) = folder.glob("lib/python*/site-packages")
        # What a .pth file names is searched behind the environment's own, and its .pth files are not read: so the
        # link to this folder that an editable install is has no effect there.
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
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

        proxy = Proxy(self, config.read_text(), twistd=(python, TWISTD))
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")

    def test_a_clean_environment_has_no_plugin_without_the_wheel(self) -> None:
        # Else the test above would show nothing.
        folder = new_folder(self)
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        ended = subprocess.run(
            [folder / "bin" / "python", TWISTD, "--help"],
            capture_output=True,
            cwd="/",
            env=clean_environment(folder),
            timeout=60,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertNotIn(b"streamproxy", ended.stdout)
