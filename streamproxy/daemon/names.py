"""The system's resolver, asked in threads that don't keep the process from ending.

It blocks for as long as it likes, and Twisted waits for its own threads when the process stops. How many names are
looked up at a time, and who waits for them, is told in `proxy/lookups.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IResolutionReceiver,
)
from zope.interface import implementer

from streamproxy.scripts.threads import DaemonThreads

Found = list[IPv4Address | IPv6Address]


@implementer(IHostResolution)
class _Resolution:
    """One name that is being looked up; that can't be called back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class SystemResolver:
    """Looks names up by getaddrinfo(3), at most `most` at a time."""

    def __init__(self, reactor: IReactorFromThreads, most: int) -> None:
        self._reactor = reactor
        self._threads = DaemonThreads(most)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Tell the receiver the addresses of a name, of both families, for TCP; none where it has none."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def told(future: Future[Found]) -> None:
            self._reactor.callFromThread(_tell, resolutionReceiver, future)

        self._threads.submit(_addresses, hostName, portNumber).add_done_callback(told)
        return resolution


def _addresses(name: str, port: int) -> Found:
    try:
        answers: list[Any] = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found: Found = []
    for family, _, _, _, address in answers:
        if family == socket.AF_INET:
            found.append(IPv4Address("TCP", address[0], address[1]))
        elif family == socket.AF_INET6:
            found.append(IPv6Address("TCP", address[0], address[1]))
    return found


def _tell(receiver: IResolutionReceiver, future: Future[Found]) -> None:
    if not future.cancelled() and future.exception() is None:
        for address in future.result():
            receiver.addressResolved(address)
    receiver.resolutionComplete()
