"""What a service manager does for a daemon, done by a test: a notify socket, sockets that are handed over, a shim."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import TWISTD, WAIT, Program, clean_environment, new_folder

HELLO = "rules: [{match: {host: hello.example}, respond: {text: hello}}]\n"
GET_HELLO = b"GET http://hello.example/ HTTP/1.1\r\nHost: hello.example\r\n\r\n"
# Becomes another program in the same process, which finds its own id in the variables; the descriptors that it is told
# of are put where those that are handed over begin.
SHIM = """
import os, sys
numbers, command = sys.argv[1], sys.argv[2:]
for at, number in enumerate(filter(None, numbers.split(",")), 3):
    os.dup2(int(number), at)
os.environ["WATCHDOG_PID"] = os.environ["LISTEN_PID"] = str(os.getpid())
if not numbers:
    del os.environ["LISTEN_PID"]
os.execv(command[0], command)
"""


def shimmed(sockets: Sequence[socket.socket] = ()) -> tuple[str | Path, ...]:
    """What to start twistd by, so that it has `sockets` from descriptor 3 on, and variables that are meant for it."""
    return (sys.executable, "-c", SHIM, ",".join(str(each.fileno()) for each in sockets), TWISTD)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listening_socket(case: SynchronousTestCase, kind: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A socket that listens, with a number far from those that are handed over."""
    if kind == socket.AF_UNIX:
        first = socket.socket(kind)
        first.bind(str(new_folder(case) / "socket"))
    else:
        first = socket.socket(kind)
        first.bind(("127.0.0.1", 0))
    first.listen(1024)
    moved = socket.socket(fileno=fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 50))
    first.close()
    case.addCleanup(moved.close)
    return moved


class Daemon(Program):
    """`twistd -n streamproxy -c FILE`, told of everything by `config` (YAML): a reload may change all of it.

    `port` is where it listened first.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        config: str,
        folder: Path | None = None,
        twistd: Sequence[str | Path] = (TWISTD,),
        environment: Mapping[str, str] = {},
        **options: object,
    ) -> None:
        self.folder = folder or new_folder(case)
        self.write(config)
        command = [*twistd, "-n", "--pidfile=", "streamproxy", "-c", self.folder / "rules.yaml"]
        case.addCleanup(self._check_output, case)
        super().__init__(case, command, self.folder, env={**clean_environment(self.folder), **environment}, **options)
        self.port = self.listened("(?<!admin: )listening on")
        self.url = f"http://127.0.0.1:{self.port}"

    def _check_output(self, case: SynchronousTestCase) -> None:
        for word in ("Traceback", "Unhandled"):
            case.assertNotIn(word, self.output)

    def write(self, config: str) -> None:
        """Write its configuration."""
        (self.folder / "rules.yaml").write_text(config)

    def listened(self, words: str) -> int:
        """The port on the newest line that tells of a listener in these words."""
        self.wait_for(lambda lines: re.search(rf"{words} 127\.0\.0\.1:[0-9]", "\n".join(lines)) is not None, words)
        return int(re.findall(rf"{words} 127\.0\.0\.1:([0-9]+)", self.output)[-1])

    def count(self, words: str) -> int:
        """How often its log has these words."""
        return self.output.count(words)

    def reload(self, config: str | None = None, outcome: str = "reloaded: ") -> None:
        """Write `config`, have it read, and wait until the log has what came of it once more."""
        if config is not None:
            self.write(config)
        before = self.count(outcome)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda lines: "\n".join(lines).count(outcome) > before, outcome)

    def refuse(self, config: str | None = None) -> None:
        """`reload`, for what can't be read."""
        self.reload(config, "not reloaded, the old configuration stays:")

    def journal(self) -> list[dict]:
        """The lines of the exchanges so far."""
        return [json.loads(line[line.index("{") :]) for line in list(self.lines) if '"outcome": ' in line]


class NotifySocket:
    """Hears what a daemon says of itself; `said` has each message, with the time (by time.monotonic) it came at."""

    def __init__(self, case: SynchronousTestCase, abstract: bool = False) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if abstract:
            self.name = f"@streamproxy-{uuid.uuid4().hex}"
            self._socket.bind("\0" + self.name[1:])
        else:
            self.name = str(new_folder(case) / "notify")
            self._socket.bind(self.name)
        self.said: list[tuple[float, dict[str, str]]] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()
        case.addCleanup(self._stop)

    def _hear(self) -> None:
        while data := self._socket.recv(65536):
            message = dict(line.split("=", 1) for line in data.decode().split("\n"))
            with self._news:
                self.said.append((time.monotonic(), message))
                self._news.notify_all()

    def _stop(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", "\0" + self.name[1:] if self.name[0] == "@" else self.name)
        self._thread.join(WAIT)
        self._socket.close()

    def named(self, name: str) -> list[dict[str, str]]:
        """The messages so far that say `name`."""
        return [message for _, message in self.said if name in message]

    def wait_for(self, name: str, number: int = 1) -> dict[str, str]:
        """The `number`th message that says `name`, once it is there."""
        with self._news:
            self._news.wait_for(lambda: len(self.named(name)) >= number, WAIT)
            found = self.named(name)
        if len(found) < number:
            raise AssertionError(f"{name}: not said {number} times in {self.said}")
        return found[number - 1]

    def words(self) -> list[str]:
        """What was said so far of beginnings and ends, in order."""
        told = ("READY", "RELOADING", "STOPPING")
        return [name for _, message in self.said for name in told if name in message]
