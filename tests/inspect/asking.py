"""Requests to an admin listener that has no socket, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from streamproxy import settings
from streamproxy.inspect.admin import AdminSite, admin_site

HERE = IPv4Address("TCP", "127.0.0.1", 50000)
HOST = "Host: 127.0.0.1:8081"


class Transport(StringTransport):
    """Loses its connection as soon as it may."""

    def __init__(self, peer: IAddress) -> None:
        super().__init__(peerAddress=peer)
        self.aborted = False
        self.protocol = None

    def abortConnection(self) -> None:
        self.aborted = self.disconnected = True

    def loseConnection(self) -> None:
        self.disconnecting = True


class Answered(NamedTuple):
    """A response: its status, its fields by their names in lower case, and its body."""

    status: int
    fields: dict[str, str]
    body: bytes


def answered(data: bytes, method: str = "GET") -> Answered:
    """The one response that `data` is."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(fields) == len(lines), f"a field twice: {lines}"
    assert method == "HEAD" or "content-length" not in fields or int(fields["content-length"]) == len(body), data
    return Answered(int(first.split()[1]), fields, body)


class AdminCase(SynchronousTestCase):
    """A listener that is set up as `admin` says; `problems` is what a reload finds, `why_not` why it isn't ready."""

    admin = settings.Admin()

    def setUp(self) -> None:
        self.clock = Clock()
        self.problems: list[str] = []
        self.reloads = 0
        self.why_not = ""
        self.site: AdminSite = admin_site(
            self.admin, self.clock, lambda: b"a_metric 1\n", self.reload, lambda: self.why_not
        )
        self.site.doStart()
        self.addCleanup(self.site.doStop)

    def reload(self) -> list[str]:
        self.reloads += 1
        return self.problems

    def connect(self, peer: IAddress = HERE) -> tuple[object, Transport]:
        """A connection, from both sides."""
        channel, transport = self.site.buildProtocol(peer), Transport(peer)
        channel.makeConnection(transport)
        return channel, transport

    def ask(
        self,
        path: str = "/",
        *fields: str,
        method: str = "GET",
        host: str = HOST,
        peer: IAddress = HERE,
        body: bytes = b"",
    ) -> Answered:
        """What a request on a connection of its own is answered."""
        channel, transport = self.connect(peer)
        lines = [f"{method} {path} HTTP/1.1", *([host] if host else []), *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        channel.dataReceived("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1") + body)
        return answered(transport.value(), method)


def ip4(host: str) -> IAddress:
    return IPv4Address("TCP", host, 50000)


def ip6(host: str) -> IAddress:
    return IPv6Address("TCP", host, 50000)


UNIX = UNIXAddress(None)
