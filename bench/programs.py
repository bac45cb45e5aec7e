"""The programs that measurements need: where they are, what brings them, and which versions they are."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".env"
MITMPROXY = "mitmproxy==11.0.2"
PATH = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# What each says of itself, and where its version stands in that.
VERSIONS = {
    "nginx": ("-V", r"nginx/([0-9.]+)"),
    "squid": ("-v", r"Version ([0-9.]+)"),
    "haproxy": ("-vv", r"version ([0-9][^ ]*)"),
    "wrk": ("-v", r"wrk (\S+)"),
    "curl": ("--version", r"curl ([0-9.]+)"),
}
OPENSSL = r"(?:[Rr]unning on OpenSSL version : |(?:uses|with) )?OpenSSL[ /]([0-9]\.[0-9.]+[a-z]?)"


class CannotMeasure(Exception):
    """Something that is needed isn't here; in words, for whoever can get it."""


class NotInstalled(CannotMeasure):
    """A program isn't here; in words, what brings it."""


def find_program(name: str) -> str | None:
    """Where a program is, in the folders for administrators as well."""
    return shutil.which(name, path=PATH)


def program(name: str, package: str) -> str:
    """Where a program of a Debian package is."""
    found = find_program(name)
    if found is None:
        raise NotInstalled(f"needs {name} (apt-get install {package})")
    return found


def mitmdump_program(named: str | None) -> str:
    """The mitmdump to measure: the one that was named, or one in an environment of its own, made here."""
    if named:
        found = find_program(named)
        if found is None:
            raise CannotMeasure(f"{named} isn't a program")
        return found
    own = ENVIRONMENT / "bin" / "mitmdump"
    if not own.exists():
        print(f"          installing {MITMPROXY} into {ENVIRONMENT.relative_to(HERE.parent)}", flush=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
            subprocess.run([*pip, MITMPROXY], check=True)
        except (subprocess.CalledProcessError, OSError) as error:
            line = f"{' '.join(pip)} {MITMPROXY}"
            raise NotInstalled(f"can't install it ({line}; MITMDUMP=... names one): {error}") from None
    return str(own)


def _said(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        return str(error)
    return ran.stdout + ran.stderr


def _openssl(words: str) -> str:
    """The OpenSSL that a program says it runs on; where it tells what it was built with as well, that comes first."""
    found = re.findall(OPENSSL, words)
    return f", OpenSSL {found[-1]}" if found else ""


def versions(mitmdump: str | None) -> dict[str, str]:
    """The versions of all that takes part, with the OpenSSL that each runs on; of what is installed."""
    ours = "import OpenSSL.SSL, twisted; print(twisted.__version__, OpenSSL.SSL.SSLeay_version(0).decode())"
    words = _said(sys.executable, "-c", ours)
    clients = _said(sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)")
    told = {"Python": platform.python_version() + _openssl(clients), "Twisted": words.split()[0] + _openssl(words)}
    for name, (option, pattern) in VERSIONS.items():
        if (path := find_program(name)) is None:
            continue
        words = _said(path, option)
        found = re.search(pattern, words)
        told[name] = f"{found[1] if found else '?'}{_openssl(words)}"
    own = ENVIRONMENT / "bin" / "mitmdump"
    path = find_program(mitmdump) if mitmdump else str(own) if own.exists() else None
    if path is not None:
        words = _said(path, "--version")
        found = re.search(r"Mitmproxy: (\S+)", words)
        told["mitmproxy"] = f"{found[1] if found else '?'}{_openssl(words)}"
    return told


def machine() -> dict[str, str | int]:
    """What it is measured on."""
    information = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", information, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+([0-9]+) kB", Path("/proc/meminfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{int(memory[1]) / 1048576:.1f} GiB" if memory else "?",
        "system": f"{platform.system()} {platform.release()}",
    }
