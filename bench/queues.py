"""What waits in the kernel's queues of TCP connections of this machine, by /proc/net/tcp."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Queues(NamedTuple):
    """Bytes in one socket: not acknowledged by its peer yet, and not read by its owner yet."""

    to_send: int
    to_read: int


def queues() -> dict[tuple[int, int], Queues]:
    """The queues of each socket on 127.0.0.1, by its own port and its peer's; all read at one time."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _number, local, remote, _state, waiting = line.split()[:5]
        to_send, to_read = waiting.split(":")
        ports = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        found[ports] = Queues(int(to_send, 16), int(to_read, 16))
    return found


class InFlight(NamedTuple):
    """Bytes of a body that have left its sender and haven't reached its receiver."""

    in_proxy: int
    in_all: int


def in_flight(sent: int, received: int, sender: tuple[int, int], receiver: tuple[int, int]) -> InFlight:
    """How much of a body is where.

    `sent` is what the sender's kernel has taken of it, `received` what the receiver's has given. `sender` and
    `receiver` are the ports of their sockets: own and peer's. The proxy has read what was sent less what waits in
    the two queues between the sender and it; it has written what was received and what waits in the two queues
    between it and the receiver. What is between these two is in the memory of the proxy. Exact only while nothing
    moves.
    """
    now = queues()
    read = sent - now[sender].to_send - now[sender[::-1]].to_read
    written = received + now[receiver].to_read + now[receiver[::-1]].to_send
    return InFlight(read - written, sent - received)
