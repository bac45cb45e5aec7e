"""An exchange as scripts see it: a request, its response, and what went wrong.

It is data. What a script does to it is looked at by the proxy when the script's hook is over, and not before.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from streamproxy.filters.websocket import WebSocketData
from streamproxy.scripts.connection import Client, Server
from streamproxy.scripts.exceptions import ControlException
from streamproxy.scripts.request import Request
from streamproxy.scripts.response import Response

KILLED = "Connection killed."


class Error:
    """What ended a flow early, in words, and when (seconds since the epoch)."""

    __slots__ = ("msg", "timestamp")

    KILLED_MESSAGE = KILLED

    def __init__(self, msg: str, timestamp: float | None = None) -> None:
        self.msg = msg
        self.timestamp = time.time() if timestamp is None else timestamp

    def __str__(self) -> str:
        return self.msg

    def __repr__(self) -> str:
        return f"Error({self.msg!r})"


class HTTPFlow:
    """A request and its response, and the connections that they went by.

    `live`: whether it is still going on. `killed`: whether a script gave it up. `metadata` is the scripts' own.
    `websocket`: its messages, where it became a WebSocket.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_id",
        "_request",
        "_response",
        "client_conn",
        "comment",
        "error",
        "intercepted",
        "is_replay",
        "killed",
        "live",
        "marked",
        "metadata",
        "on_kill",
        "server_conn",
        "timestamp_created",
        "websocket",
    )

    type = "http"

    def __init__(
        self,
        client_conn: Client,
        server_conn: Server,
        live: bool = False,
        created: float | None = None,
        id: str | None = None,
    ) -> None:
        self.client_conn = client_conn
        self.server_conn = server_conn
        self.live = live
        self.timestamp_created = time.time() if created is None else created
        self._request: Request | None = None
        self._response: Response | None = None
        self.error: Error | None = None
        self.killed = False
        # Called when it is killed: given by who has it in hand for longer than a hook lasts.
        self.on_kill: Callable[[], None] | None = None
        self.metadata: dict[str, Any] = {}
        self.marked = ""
        self.comment = ""
        self.is_replay: str | None = None
        self.websocket: WebSocketData | None = None
        self.intercepted = False
        self._id = id

    @property
    def id(self) -> str:
        """A name for this flow that no other has."""
        if self._id is None:
            self._id = str(uuid.uuid4())
        return self._id

    @property
    def request(self) -> Request:
        """The request."""
        assert self._request is not None
        return self._request

    @request.setter
    def request(self, request: Request) -> None:
        if not isinstance(request, Request):
            raise TypeError(f"a flow's request must be a Request, not {type(request).__name__}")
        self._request = request

    @property
    def response(self) -> Response | None:
        """The response; None until there is one. A script that sets one answers the request itself."""
        return self._response

    @response.setter
    def response(self, response: Response | None) -> None:
        if response is not None and not isinstance(response, Response):
            raise TypeError(f"a flow's response must be a Response, not {type(response).__name__}")
        self._response = response

    @property
    def timestamp_start(self) -> float:
        """When its request began, in seconds since the epoch."""
        return self.request.timestamp_start

    @property
    def killable(self) -> bool:
        """Whether it can be given up: it is going on, and wasn't given up before."""
        return self.live and not self.killed

    def kill(self) -> None:
        """Give the flow up: what hasn't gone yet doesn't go. Raises ControlException where it isn't `killable`."""
        if not self.killable:
            raise ControlException("the flow is over, or was killed before")
        self.killed = True
        self.live = False
        self.error = Error(KILLED)
        if self.on_kill is not None:
            self.on_kill()

    def modified(self) -> bool:
        """Whether a script changed the request or the response, their heads or their bodies."""
        request, response = self.request, self.response
        if request.content_changed or (response is not None and response.content_changed):
            return True
        try:
            return request.edited or (response is not None and response.edited)
        except ValueError:
            # What can't be sent didn't come so.
            return True

    def intercept(self) -> NoReturn:
        """Not offered: nobody sits at this proxy to let a flow go on."""
        raise NotImplementedError("flows can't be intercepted by hand here: let the hook be async, and await")

    def resume(self) -> NoReturn:
        """Not offered; see `intercept`."""
        raise NotImplementedError("flows can't be intercepted by hand here, so there is nothing to resume")

    def copy(self) -> HTTPFlow:
        """A flow of its own with copies of the request and the response; it isn't live."""
        made = HTTPFlow(self.client_conn, self.server_conn)
        made.request = self.request.copy()
        made.response = None if self.response is None else self.response.copy()
        made.websocket = None if self.websocket is None else self.websocket.copy()
        made.error = self.error
        made.metadata = dict(self.metadata)
        made.marked, made.comment, made.is_replay = self.marked, self.comment, self.is_replay
        made.__dict__.update(self.__dict__)
        return made

    def __repr__(self) -> str:
        parts = [f"request = {self._request!r}"]
        if self.response is not None:
            parts.append(f"response = {self.response!r}")
        if self.error is not None:
            parts.append(f"error = {self.error!r}")
        parts += [f"client_conn = {self.client_conn!r}", f"server_conn = {self.server_conn!r}"]
        return "\n  ".join(["<HTTPFlow", *parts]) + ">"
