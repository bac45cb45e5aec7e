"""A client's TLS: straight to an origin, through a proxy by CONNECT, and inside another TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.certificates import NAME
from bench.connection import READ, WAIT, Connection, Head, check
from bench.parts import Part

# What all clients, and the proxies towards the origin, offer inside TLS.
PROTOCOLS = ["http/1.1"]


def trusting(authority: Path) -> ssl.SSLContext:
    """What a client does that trusts `authority` and nobody else."""
    tls = ssl.create_default_context(cafile=str(authority))
    tls.set_alpn_protocols(PROTOCOLS)
    return tls


def connect_head(port: int) -> bytes:
    """The CONNECT for a port of an origin."""
    return f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode()


class SecureConnection(Connection):
    """A connection over TLS to an origin, or to what takes itself for one: requests are in origin form.

    `sent` and `received` count what is inside TLS.
    """

    def target(self, url: str) -> str:
        return "/" + url.split("/", 3)[3]

    def count(self, head: Head) -> int:
        """How long the body behind `head` is. Its records are read and not decrypted: that takes as long as a proxy.

        Each has a header of 5 bytes, its type and an authentication tag besides what it holds (RFC 8446 section 5.2).
        Who sends is trusted not to pad: what there is has to be as long as the head says, to the byte.
        """
        sock = self.sock
        assert isinstance(sock, ssl.SSLSocket)
        check(sock.version() == "TLSv1.3", f"{sock.version()} has records of another form")
        length = int(head.fields["content-length"])
        left = length - len(self._take())
        # OpenSSL reads record by record, so all that it hasn't given is still in the socket.
        check(sock.pending() == 0, "a record is half read")
        block = bytearray(READ)
        # Where the next header begins, and how much of the block is filled.
        at = filled = 0
        with socket.socket(fileno=os.dup(sock.fileno())) as wire:
            wire.settimeout(WAIT)
            while True:
                while at + 5 <= filled:
                    kind, size = block[at], int.from_bytes(block[at + 3 : at + 5], "big")
                    check(kind == 23 and size > 17, f"a record of type {kind} and {size} bytes inside a body")
                    left -= size - 17
                    at += 5 + size
                if left <= 0 and at <= filled:
                    break
                kept = max(0, filled - at)
                block[:kept] = block[at:filled]
                at -= filled - kept
                count = wire.recv_into(memoryview(block)[kept:])
                check(count > 0, "the connection ended inside a body")
                filled = kept + count
        check(left == 0, f"the records hold {length - left} bytes instead of {length}")
        return length


class Inner:
    """TLS inside of `sock`, which is TLS itself: as much of a socket as `Connection` needs.

    The standard library's own TLS socket wants a socket of the kernel's below it.
    """

    def __init__(self, sock: ssl.SSLSocket, tls: ssl.SSLContext) -> None:
        self._sock = sock
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._came, self._leaves, server_hostname=NAME)
        self._through(self._tls.do_handshake)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _through(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(READ)
                check(bool(data), "the outer TLS ended before the inner one")
                self._came.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._leaves.pending:
            self._sock.sendall(self._leaves.read())

    def send(self, data: bytes | memoryview) -> int:
        return self._through(lambda: self._tls.write(data))  # type: ignore[no-any-return, arg-type]

    def recv(self, size: int) -> bytes:
        return self._through(lambda: self._tls.read(size))  # type: ignore[no-any-return]


def straight(origin: Part) -> SecureConnection:
    """A connection to the TLS port of `origin` itself."""
    sock = socket.create_connection(("127.0.0.1", origin.secure_port), WAIT)
    return SecureConnection(trusting(origin.authority).wrap_socket(sock, server_hostname=NAME))


def through(proxy: Part, origin: Part, to_proxy: bool = False) -> SecureConnection:
    """A connection to the TLS port of `origin` that `proxy` intercepts.

    That it does is checked: only its own authority is trusted. `to_proxy`: TLS is spoken with the proxy as well, as
    with an https:// proxy. A proxy that takes its clients for the origin's own is asked without a CONNECT.
    """
    if proxy.secure_port:
        return straight(proxy)
    tls = trusting(proxy.authority)
    sock = socket.create_connection(("127.0.0.1", proxy.port), WAIT)
    outer = Connection(tls.wrap_socket(sock, server_hostname=NAME) if to_proxy else sock)
    outer.send(connect_head(origin.secure_port))
    head = outer.answer()
    check(head.status == 200, f"{proxy.name}: {head.line}")
    check(outer.taken == outer.received, f"{proxy.name}: says more than that the tunnel is there")
    sock = outer.sock
    if isinstance(sock, ssl.SSLSocket):
        return SecureConnection(Inner(sock, tls))  # type: ignore[arg-type]
    return SecureConnection(tls.wrap_socket(sock, server_hostname=NAME))
