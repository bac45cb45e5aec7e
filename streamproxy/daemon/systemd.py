"""What systemd and a service of its tell each other: readiness, the watchdog, sockets that are handed over.

The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), which need no library. Without
systemd none of their variables is set, and nothing here does anything. When something is told is decided elsewhere.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

# The first of the descriptors that are handed over; the others follow it.
FIRST_DESCRIPTOR = 3
# What a status may come to, in characters: it is one line for people.
LONGEST_STATUS = 500


class Notifier:
    """Tells the service manager how it goes with this process; `environ` is that of the process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # One that begins with @ is in Linux' abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        # What couldn't be told: it is due before anything else.
        self._unsent = b""
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def _tell(self, **state: str) -> None:
        if self._socket is None:
            return
        lines = [f"{name}={' '.join(value.split())[:LONGEST_STATUS]}" for name, value in state.items()]
        data = "\n".join(lines).encode(errors="replace")
        if self._unsent and self._sent(self._unsent):
            self._unsent = b""
        # A service manager that is busy or gone is no reason to stop; but it must hear of these.
        is_due = not state.keys().isdisjoint(("READY", "RELOADING", "STOPPING"))
        if (self._unsent or not self._sent(data)) and is_due:
            self._unsent = data

    def _sent(self, data: bytes) -> bool:
        assert self._socket is not None
        try:
            return self._socket.sendto(data, self._address) > 0
        except OSError:
            return False

    def ready(self, status: str) -> None:
        """It does its work, for the first time or again."""
        self._tell(READY="1", STATUS=status)

    def reloading(self) -> None:
        """It reads its configuration again; `ready` tells that it has."""
        # By the same clock as CLOCK_MONOTONIC, in microseconds: systemd tells by it to which signal this belongs.
        self._tell(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, status: str) -> None:
        """It begins to stop."""
        self._tell(STOPPING="1", STATUS=status)

    def status(self, status: str) -> None:
        """What it does, in words."""
        self._tell(STATUS=status)

    def alive(self) -> None:
        """It isn't stuck."""
        self._tell(WATCHDOG="1")


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often the service manager wants to hear of this process at the least, in seconds; None: it doesn't."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    # More digits than a microsecond in a billion years would take are nothing that it says.
    if not re.fullmatch(r"[0-9]{1,18}", microseconds, re.ASCII) or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


class InheritedSocket(NamedTuple):
    """A socket that listens already: its descriptor, and its address family (AF_INET, AF_INET6 or AF_UNIX)."""

    descriptor: int
    family: socket.AddressFamily


def inherited_sockets(environ: MutableMapping[str, str]) -> dict[str, list[InheritedSocket]]:
    """The listening stream sockets that were handed over to this process, by their names.

    What tells of them is taken out of `environ`, for the processes that are started from here. Twisted, for its own
    endpoints, has taken LISTEN_PID and LISTEN_FDS out by now, if they were meant for this process: the names are left.
    """
    named, pid = environ.pop("LISTEN_FDNAMES", ""), environ.pop("LISTEN_PID", None)
    environ.pop("LISTEN_FDS", None)
    if not named or (pid is not None and pid != str(os.getpid())):
        return {}
    found: dict[str, list[InheritedSocket]] = {}
    for descriptor, name in enumerate(named.split(":"), FIRST_DESCRIPTOR):
        family = _listening_family(descriptor)
        if family is not None:
            # What this process starts must not keep it, and accepting must not wait.
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            found.setdefault(name, []).append(InheritedSocket(descriptor, family))
    return found


def _listening_family(descriptor: int) -> socket.AddressFamily | None:
    """The family of a stream socket that listens; None for anything else."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and found.type == socket.SOCK_STREAM:
                return socket.AddressFamily(found.family)
    except OSError:
        pass
    return None
