"""Whether an exchange has stood still for too long, and through whom.

Every pause has a deadline: an exchange in which nothing moves is over after `timeouts.idle`, and so is one in which
something moves but a message can't be written on for that long.
"""

from __future__ import annotations

import enum

from streamproxy.proxy.faults import Request, Response
from streamproxy.stream.pump import Pump


class Culprit(enum.Enum):
    """Who is waited for."""

    CLIENT_READS = "the client stopped reading"
    CLIENT_SENDS = "the client stopped sending"
    ORIGIN = "the origin stopped"
    FUNCTION = "a function"


class Upload:
    """How fast a client sends, looked at now and then. It began at the time `now`, with `received` bytes here."""

    def __init__(self, now: float, received: int) -> None:
        self._since = now
        self._received = received
        self._blocks = 0

    def is_slower(self, least: int, seconds: float, now: float, received: int, pump: Pump | None) -> bool:
        """Whether less than `least` bytes a second have come since this was looked at last, `seconds` ago or more.

        Where `pump` kept the client from sending meanwhile, nobody knows how fast it could.
        """
        past = now - self._since
        if past < seconds:
            return False
        blocks = 0 if pump is None else pump.blocks
        slower = blocks == self._blocks and received - self._received < least * past
        self._since, self._received = now, received
        # One that is in its way now is one more in the time to come.
        self._blocks = blocks if pump is None or pump.blocked_since is None else -1
        return slower


def still_since(progress: float, *pumps: Pump | None) -> float:
    """Since when (in seconds of the clock) something has stood still; `progress` is when anything last came in."""
    blocked = [pump.blocked_since for pump in pumps if pump is not None and pump.blocked_since is not None]
    # A blocked pump says when it last moved something on.
    return min([max([progress, *blocked]), *blocked])


def culprit(request: Request, response: Response, to_origin: Pump | None, to_client: Pump | None) -> Culprit:
    """Who keeps an exchange from moving, whose messages have come so far."""
    for pump in (to_client, to_origin):
        if pump is not None and pump.waits_for is not None:
            return Culprit.FUNCTION
    if to_client is not None and to_client.blocked_since is not None:
        return Culprit.CLIENT_READS
    if request is Request.RECEIVED or response is Response.SENDING:
        return Culprit.ORIGIN
    if to_origin is None or to_origin.blocked_since is not None:
        return Culprit.ORIGIN
    return Culprit.CLIENT_SENDS
