"""How the origins made in Python listen: plain and by TLS, a thread for each connection."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable

# Serves one connection until it ends; by TLS where there is a context for it.
Serve = Callable[[socket.socket, ssl.SSLContext | None], None]


def run(serve: Serve) -> None:
    """Serve on two ports, and print them, as `plain PORT` and `tls PORT`; the certificate is the program's argument."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1])
    _listen("plain", serve, None)
    _listen("tls", serve, tls)


def _listen(name: str, serve: Serve, tls: ssl.SSLContext | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(name, listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            sock, _peer = listener.accept()
            threading.Thread(target=serve, args=(sock, tls), daemon=True).start()

    threading.Thread(target=accept).start()
