"""What the system tests of HTTPS need beside `parts`: origins with certificates, and clients that speak TLS themselves.

Certificates are made here, by `tests.secure`: `origin_ca` is the authority of the origins, which a proxy trusts that is
started with `trusting`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.secure import Issued, client_context, issue, origin_ca, server_context
from tests.system.parts import Client, Nginx, Origin, Proxy, Script, Wire, new_folder


def certificate_for_us(**options) -> Issued:
    """A certificate from the origins' authority for where all origins are here."""
    return issue("127.0.0.1", "localhost", by=options.pop("by", origin_ca()), **options)


def file_of(case: SynchronousTestCase, content: bytes, name: str = "file.pem") -> Path:
    """A file that goes when the test ends."""
    path = new_folder(case) / name
    path.write_bytes(content)
    return path


def origin_ca_file(case: SynchronousTestCase) -> Path:
    """The certificate of the origins' authority."""
    return file_of(case, origin_ca().certificate_pem, "origin-ca.pem")


def trusting(case: SynchronousTestCase) -> str:
    """What to set for a proxy to trust the origins' authority."""
    return f"tls.trusted_ca=[{origin_ca_file(case)}]"


def secure_nginx(case: SynchronousTestCase, more: str = "") -> Nginx:
    """nginx with TLS, by the names of 127.0.0.1 and localhost."""
    return Nginx(case, certificate_for_us().pem, more)


class SecureOrigin(Origin):
    """An origin that speaks TLS, with `issued` as its certificate; each connection is played by `script`.

    A script that returns ends its connection in order, with close_notify.
    """

    def __init__(self, case: SynchronousTestCase, script: Script, issued: Issued | None = None) -> None:
        context = server_context(issued or certificate_for_us(), "http/1.1")

        def play(wire: Wire) -> None:
            wire.start_tls(context, server=True)
            script(wire)
            if isinstance(wire.sock, ssl.SSLSocket) and wire.sock.fileno() >= 0:
                wire.say_goodbye()

        super().__init__(case, play)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"


class Tunnel(Client):
    """A connection to the proxy on which a CONNECT to `target` has been answered: nothing has been said in it yet."""

    def __init__(self, case: SynchronousTestCase, proxy: Proxy, target: str) -> None:
        super().__init__(case, proxy)
        # TLS puts another one in the place of the socket.
        case.addCleanup(lambda: self.sock.close())
        self.name = target.rpartition(":")[0]
        self.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = self.read_head()
        case.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)

    def shake(self, ca: Path, name: str | None = None) -> None:
        """Speak TLS from now on, with somebody who proves to be `name` (else the target) to one that trusts `ca`."""
        self.start_tls(client_context(ca.read_bytes(), "http/1.1"), name=name or self.name)

    def ask_for(self, path: str = "/", *fields: bytes) -> None:
        """Send a GET request to who is at the other end."""
        lines = [b"GET %b HTTP/1.1" % path.encode(), b"Host: " + self.name.encode(), *fields]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n")


def curl_trusting(ca: Path) -> list[str]:
    """curl's arguments to trust what is in a file, and nothing else."""
    # --capath would else add the system's.
    return ["--cacert", str(ca), "--capath", "/dev/null"]
