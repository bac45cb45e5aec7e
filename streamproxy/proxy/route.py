"""Which way leads to an origin: what is dialled, and who must answer there."""

from __future__ import annotations

import functools
from typing import NamedTuple

from streamproxy.wire.message import Origin


class Route(NamedTuple):
    """The way to `origin`: `host`, on the origin's port, is what is dialled.

    The two differ only in a tunnel whose client asks, by the server name in its TLS, for another host than by its
    CONNECT. A connection serves nobody who came another way.
    """

    origin: Origin
    host: str


@functools.lru_cache(maxsize=1024)
def direct(origin: Origin) -> Route:
    """The way to an origin by its own name."""
    return Route(origin, origin.host)
