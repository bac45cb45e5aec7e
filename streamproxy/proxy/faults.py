"""How far an exchange has come, and what a fault means for its client at each place.

The table is the whole of the policy; `Exchange.fail` carries it out.
"""

from __future__ import annotations

import enum


class Request(enum.Enum):
    """The request, as the proxy has it from the client."""

    RECEIVING = "its last byte hasn't come yet"
    RECEIVED = "all of it has come"


class Response(enum.Enum):
    """The response, as the proxy has it from the origin."""

    AWAITED = "its head hasn't gone on to the client"
    SENDING = "its head has, and its last byte hasn't come yet"
    RECEIVED = "all of it has come"


class Action(enum.Enum):
    """What a fault means for the client."""

    ANSWER = "it gets a response that says what went wrong"
    CUT = "its response ends before its end, visibly"
    CLOSE = "it gets the rest of its response, then its connection ends: its request can't be taken further"
    NOTHING = "it gets the rest of its response"


ON_FAULT = {
    (Request.RECEIVING, Response.AWAITED): Action.ANSWER,
    (Request.RECEIVED, Response.AWAITED): Action.ANSWER,
    (Request.RECEIVING, Response.SENDING): Action.CUT,
    (Request.RECEIVED, Response.SENDING): Action.CUT,
    (Request.RECEIVING, Response.RECEIVED): Action.CLOSE,
    (Request.RECEIVED, Response.RECEIVED): Action.NOTHING,
}
