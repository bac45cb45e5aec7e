"""The Python 2.7 that the Autobahn|Testsuite needs: found on this machine, and what the testsuite needs put around it.

All that is made is under one folder; nothing is changed elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# The last virtualenv that makes environments of Python 2.7, and that itself runs on a new Python.
VIRTUALENV = "virtualenv==20.15.1"
# The masks and UTF-8 of the testsuite in C, without which a run takes twice as long. It is built here.
FASTER = "wsaccel==0.6.2"
# Without these modules there is neither pip nor wss.
PROBE = "import sys, ssl, zlib, ctypes; sys.exit(sys.version_info[:2] != (2, 7))"
MISSING = """\
The Autobahn|Testsuite needs a Python 2.7 with ssl and zlib, and there is none here:
{tried}
Say where one is, `make autobahn PYTHON2=/path/to/python2.7`, or have pyenv build one: `pyenv install 2.7.18`."""


class CannotMake(Exception):
    """The environment can't be made; why not, and what would help, in words."""


def make_environment(folder: Path) -> Path:
    """The python of an environment in `folder` that has the testsuite; it is made where it isn't there yet.

    Raises `CannotMake`.
    """
    wanted = f"{VIRTUALENV}\n{FASTER}\n{REQUIREMENTS.read_text()}"
    python = folder / "python2.7" / "bin" / "python"
    # Written last: half an environment is made anew.
    made = folder / "python2.7" / "installed"
    if made.exists() and made.read_text() == wanted:
        return python
    python2 = find_python2()
    tools = folder / "tools"
    for each in (tools, folder / "python2.7"):
        shutil.rmtree(each, ignore_errors=True)
    _run("a virtual environment", sys.executable, "-m", "venv", tools)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(VIRTUALENV, tools / "bin" / "python", *pip, VIRTUALENV)
    _run("an environment of Python 2.7", tools / "bin" / "virtualenv", "--quiet", "-p", python2, folder / "python2.7")
    pip.append("--no-python-version-warning")
    _run("the testsuite and what it needs", python, *pip, "-r", REQUIREMENTS)
    try:
        _run(FASTER, python, *pip, FASTER)
    except CannotMake as error:
        print(
            f"{error}\nThe testsuite does without it, slowly. It is built with gcc and Python 2.7's headers.",
            flush=True,
        )
    made.write_text(wanted)
    return python


def find_python2() -> str:
    """A Python 2.7 that runs: PYTHON2 if that is set, else one on the PATH, else one that pyenv built."""
    chosen = os.environ.get("PYTHON2")
    candidates = [chosen] if chosen else list(_candidates())
    tried = []
    for candidate in candidates:
        # What is on the PATH may be a shim of pyenv's that starts nothing.
        try:
            probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{candidate}: {error}")
            continue
        if probe.returncode == 0:
            return candidate
        said = probe.stderr.strip().splitlines() or ["is not Python 2.7"]
        tried.append(f"{candidate}: {said[-1 if said[0].startswith('Traceback') else 0]}")
    if not tried:
        tried.append("there is no python2.7 on the PATH and none in pyenv's folder")
    raise CannotMake(MISSING.format(tried="\n".join(f"  {line}" for line in tried)))


def _candidates() -> Iterator[str]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder, "python2.7")
        if folder and os.access(path, os.X_OK):
            yield str(path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # The newest first.
    found = pyenv.glob("versions/2.7*/bin/python2.7")
    for path in sorted(found, key=lambda path: [int(part) for part in path.parts[-3].split(".") if part.isdigit()])[
        ::-1
    ]:
        yield str(path)


def _run(what: str, *command: str | Path) -> None:
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        raise CannotMake(f"Could not make {what}:\n{ran.stdout.strip()}")
