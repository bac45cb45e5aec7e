"""The two connections of a flow as scripts see them: records to read, which move no bytes."""

from __future__ import annotations

import uuid

Address = tuple[str, int]


class Connection:
    """What is known of a connection. Times are in seconds since the epoch, None where it hasn't come to that."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_id",
        "alpn",
        "error",
        "peername",
        "sni",
        "sockname",
        "timestamp_end",
        "timestamp_start",
        "timestamp_tls_setup",
        "tls_established",
        "tls_version",
    )

    def __init__(
        self,
        peername: Address | None = None,
        sockname: Address | None = None,
        *,
        timestamp_start: float | None = None,
        tls_established: bool = False,
        sni: str | None = None,
    ) -> None:
        # Where the other side is, and where this one.
        self.peername = peername
        self.sockname = sockname
        self.timestamp_start = timestamp_start
        self.timestamp_end: float | None = None
        self.timestamp_tls_setup: float | None = None
        self.tls_established = tls_established
        # The server name of the TLS handshake, its version and the protocol that it settled on.
        self.sni = sni
        self.tls_version: str | None = None
        self.alpn: bytes | None = None
        # Why it failed, in words.
        self.error: str | None = None
        self._id: str | None = None

    @property
    def id(self) -> str:
        """A name for this connection that no other has."""
        if self._id is None:
            self._id = str(uuid.uuid4())
        return self._id

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken on it."""
        return self.tls_established

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return self.timestamp_start is not None and self.timestamp_end is None

    def __repr__(self) -> str:
        where = "nowhere" if self.peername is None else f"{self.peername[0]}:{self.peername[1]}"
        return f"{type(self).__name__}({where}{', tls' if self.tls_established else ''})"


class Client(Connection):
    """The connection that the client made."""

    __slots__ = ()

    @property
    def address(self) -> Address | None:
        """The client's host and port; the same as `peername`."""
        return self.peername


class Server(Connection):
    """The connection to the origin. `address` is what was asked for, `peername` what was found at that."""

    __slots__ = ("address", "timestamp_tcp_setup", "via")

    def __init__(
        self,
        address: Address | None = None,
        peername: Address | None = None,
        sockname: Address | None = None,
        *,
        timestamp_start: float | None = None,
        tls_established: bool = False,
        sni: str | None = None,
    ) -> None:
        super().__init__(peername, sockname, timestamp_start=timestamp_start, tls_established=tls_established, sni=sni)
        self.address = address
        self.timestamp_tcp_setup: float | None = None
        # The parent proxy that it goes by.
        self.via: object = None

    @property
    def ip_address(self) -> Address | None:
        """The origin's address; the same as `peername`."""
        return self.peername

    def __repr__(self) -> str:
        where = "nowhere" if self.address is None else f"{self.address[0]}:{self.address[1]}"
        return f"Server({where}{', tls' if self.tls_established else ''})"
