"""The programs that take part: started on free ports of 127.0.0.1, pinned to cores, and stopped by their ids."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from bench.bodies import write_sparse
from bench.certificates import NAME, Certificates, make_certificates
from bench.connection import WAIT
from bench.programs import HERE as HERE
from bench.programs import PATH, find_program, mitmdump_program
from bench.programs import CannotMeasure as CannotMeasure
from bench.programs import NotInstalled as NotInstalled
from bench.programs import program as program

CORES = sorted(os.sched_getaffinity(0))
# The proxy that is measured has a core of its own; all else shares the others.
PROXY_CORE = CORES[-1]
OTHER_CORES = CORES[:-1] or CORES
# Something to be found and replaced.
MARKED = b"a body with a mark-to-replace in it\n"
NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        root {folder}/root;
    }}
}}
"""


def want_files(number: int) -> int:
    """Let this process and those it starts have `number` files open, or as many as they may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def free_port() -> int:
    """A port that nobody listens on, just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def pinned() -> list[str]:
    """What stands before a command, so that it keeps to the cores that the proxies don't have; where that can be."""
    found = find_program("taskset")
    return [] if found is None else [found, "-c", ",".join(map(str, OTHER_CORES))]


def until(true: Callable[[], bool], what: str, seconds: float = WAIT) -> None:
    """Wait until something is true that nobody can tell us of."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise CannotMeasure(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.02)


class Part:
    """A running program, with what it prints in a file.

    It listens on `port` of 127.0.0.1; an origin speaks TLS on its `secure_port`, and so does a proxy that knows no
    CONNECT but takes its client for one of the origin's. `authority` is the PEM file of who vouches for the
    certificates that it shows.
    """

    def __init__(
        self, name: str, command: Sequence[str | Path], folder: Path, cores: Sequence[int], ours: bool = False
    ) -> None:
        self.name = name
        self.port = 0
        self.secure_port = 0
        self.authority = Path()
        self.log = folder / "log"
        if (pin := find_program("taskset")) is not None:
            command = [pin, "-c", ",".join(map(str, cores)), *command]
        environment = {"PATH": PATH, "HOME": str(folder), "LANG": "C.UTF-8"}
        if ours:
            # It is a module of this package.
            environment["PYTHONPATH"] = str(HERE.parent)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        # taskset becomes the program, so this is its id.
        self.pid = self._process.pid

    def printed(self, pattern: str) -> str:
        """What the group of `pattern` stands for in what it prints, once that is there."""
        found = None

        def seen() -> bool:
            nonlocal found
            found = re.search(pattern, self.log.read_text(errors="replace"), re.MULTILINE)
            self.check_running()
            return found is not None

        until(seen, f"{self.name} says that it listens")
        assert found is not None
        return found[1]

    def listens(self) -> None:
        """Wait until connections are taken on `port`."""

        def taken() -> bool:
            self.check_running()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        until(taken, f"{self.name} listens")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def check_running(self) -> None:
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise CannotMeasure(f"{self.name} ended with {self._process.returncode}:\n{tail}")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def secure_url(self, path: str) -> str:
        return f"https://{NAME}:{self.secure_port}{path}"

    def memory(self, field: str = "VmRSS") -> int:
        """A field of its status, in bytes: what it has resident, or (VmHWM) the most it ever had."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+([0-9]+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10

    def forget_most_memory(self) -> bool:
        """Let VmHWM begin anew; whether that could be done."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
            return True
        return False

    def processor_seconds(self) -> float:
        """How long it has run on a core so far, with the processes that it started (nginx's worker)."""
        ticks = 0
        for each in (self.pid, *Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> None:
        """Ask it to end, then see to it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)


class Memory(threading.Thread):
    """Watches what `part` has resident while it is entered; `most` is in bytes."""

    def __init__(self, part: Part) -> None:
        super().__init__(daemon=True)
        self._part = part
        self._done = threading.Event()
        self.before = part.memory()
        self.most = self.before
        self._marked = False

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, self._part.memory())

    def __enter__(self) -> Memory:
        self.before = self.most = self._part.memory()
        self._marked = self._part.forget_most_memory()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        # The kernel's own high-water mark has what lies between two samples.
        if self._marked:
            self.most = max(self.most, self._part.memory("VmHWM"))

    @property
    def growth(self) -> int:
        return self.most - self.before


class Parts:
    """Starts programs for a case and stops them when it is left."""

    def __init__(self, mitmdump: str | None) -> None:
        self._mitmdump = mitmdump
        self._stack = contextlib.ExitStack()
        self._folder = Path()

    def __enter__(self) -> Parts:
        self._folder = Path(tempfile.mkdtemp(prefix="streamproxy-bench-"))
        # A program that gives up root's rights has to come to a folder that was given to it.
        self._folder.chmod(0o711)
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        os.sched_setaffinity(0, OTHER_CORES)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def new_folder(self, name: str) -> Path:
        """A folder that goes when the case does, for this user alone."""
        return Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{name.replace(' ', '-')}-"))

    def start(self, name: str, *command: str | Path, cores: Sequence[int] = OTHER_CORES, ours: bool = False) -> Part:
        """Start a program."""
        part = Part(name, command, self.new_folder(name), cores, ours)
        self._stack.callback(part.stop)
        return part

    def start_module(self, name: str, *arguments: str) -> Part:
        """Start a module of this package as a program."""
        return self.start(name, sys.executable, "-m", f"bench.{name}", *arguments, ours=True)

    @cached_property
    def certificates(self) -> Certificates:
        """The authority that origins are vouched for by, and what they show."""
        return make_certificates(self.new_folder("certificates"))

    def origin(self) -> Part:
        """The origin of `origin.py`."""
        return self._with_ports(self.start_module("origin", str(self.certificates.origin)))

    def _with_ports(self, part: Part) -> Part:
        """An origin of ours, once it has told its ports."""
        part.port = int(part.printed(r"^plain ([0-9]+)$"))
        part.secure_port = int(part.printed(r"^tls ([0-9]+)$"))
        part.authority = self.certificates.authority
        return part

    def sink(self) -> Part:
        """The origin of `sink.py`, which takes bodies."""
        return self._with_ports(self.start_module("sink", str(self.certificates.origin)))

    def nginx(self, cores: Sequence[int] = OTHER_CORES) -> Part:
        """nginx with one worker, and files: 600 bytes at /small, 4 MiB at /held, 1 GiB at /large, `MARKED` at /marked.

        What is large takes little room.
        """
        found = program("nginx", "nginx-light")
        folder = self.new_folder("served")
        (folder / "root").mkdir()
        (folder / "root" / "small").write_bytes(b"x" * 600)
        (folder / "root" / "marked").write_bytes(MARKED)
        write_sparse(folder / "root" / "held", 4 << 20)
        write_sparse(folder / "root" / "large", 1 << 30)
        port, secure_port = free_port(), free_port()
        # Started by root, its worker would else be nobody, who can't read what is ours.
        user = "user root;" if os.geteuid() == 0 else ""
        wanted = {"user": user, "folder": folder, "port": port, "secure_port": secure_port}
        (folder / "nginx.conf").write_text(NGINX.format(**wanted, certificate=self.certificates.origin))
        part = self.start("nginx", found, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", cores=cores)
        part.port, part.secure_port, part.authority = port, secure_port, self.certificates.authority
        part.listens()
        return part

    def streamproxy(self, *overrides: str, listen: str = "tcp:0:interface=127.0.0.1", rules: str = "") -> Part:
        """`twistd -n streamproxy` as a user would start it, but for its port, on a core of its own.

        `overrides` are given to --set, `rules` are lines of YAML for its configuration.
        """
        config = self.new_folder("rules") / "rules.yaml"
        config.write_text(f'listen: ["{listen}"]\n{rules}')
        twistd = Path(sysconfig.get_path("scripts"), "twistd")
        if not twistd.exists():
            raise CannotMeasure(f"{twistd} isn't there (make install)")
        state = config.parent / "state"
        wanted = ("admin=false", f"state_dir={state}", f"tls.trusted_ca=[{self.certificates.authority}]", *overrides)
        sets = [word for override in wanted for word in ("--set", override)]
        command: list[str | Path] = [sys.executable, twistd, "-n", "--pidfile=", "streamproxy", "-c", config, *sets]
        part = self.start("streamproxy", *command, cores=[PROXY_CORE])
        part.port = int(part.printed(r"listening on 127\.0\.0\.1:([0-9]+)"))
        part.authority = state / "ca.pem"
        return part

    def mitmdump(self, *options: str) -> Part:
        """mitmdump with `options`, on the same core as streamproxy."""
        home = self.new_folder("mitmproxy")
        port = free_port()
        place = ["--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", f"confdir={home}"]
        place += ["--set", f"ssl_verify_upstream_trusted_ca={self.certificates.authority}"]
        part = self.start("mitmdump", mitmdump_program(self._mitmdump), *place, *options, cores=[PROXY_CORE])
        part.port = port
        part.authority = home / "mitmproxy-ca-cert.pem"
        part.listens()
        return part
