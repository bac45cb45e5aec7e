"""A response as scripts see it, and may change it or make one up."""

from __future__ import annotations

import re
import time
from http import HTTPStatus
from typing import Any

from streamproxy.scripts.cookies import CookieAttrs, read_set_cookies, write_set_cookies
from streamproxy.scripts.message import Message
from streamproxy.scripts.multidict import MultiDictView, pairs_of
from streamproxy.scripts.request import fill
from streamproxy.wire.message import NO_BODY, ResponseHead

_REASON = re.compile(rb"[\t \x21-\x7e\x80-\xff]*")
_VERSIONS = {(1, 1): "HTTP/1.1", (1, 0): "HTTP/1.0"}


class Response(Message):
    """A response."""

    __slots__ = ("_head", "_reason", "_status")

    @classmethod
    def of(cls, head: ResponseHead, now: float) -> Response:
        """The response with that head; `now` is when it began, in seconds since the epoch."""
        made = cls.__new__(cls)
        Message.__init__(made, head.headers, _VERSIONS.get(head.version, "HTTP/1.1"), now)
        made._head = head
        made._status, made._reason = head.status, head.reason
        return made

    def __init__(self, status_code: int, headers: Any = ()) -> None:
        super().__init__(None, "HTTP/1.1", time.time())
        self._head: ResponseHead | None = None
        if not isinstance(status_code, int):
            raise TypeError(f"a status code must be int, not {type(status_code).__name__}")
        self._status = status_code
        try:
            self._reason = HTTPStatus(status_code).phrase.encode()
        except ValueError:
            self._reason = b""
        self.headers = headers
        self.timestamp_end = self.timestamp_start

    @classmethod
    def make(cls, status_code: int = 200, content: bytes | str = b"", headers: Any = ()) -> Response:
        """A response that a script makes up. `headers` are `Headers`, a mapping, or pairs of bytes."""
        made = cls(status_code, headers)
        fill(made, content)
        return made

    def __repr__(self) -> str:
        kind = self.headers.get("content-type", "unknown content type")
        size = "no content" if self.raw_content is None else f"{len(self.raw_content)}b"
        return f"Response({self._status}, {kind}, {size})"

    def to_head(self) -> ResponseHead:
        """The head to go on with; the very one that came, where nothing was changed.

        The framing is that of the response that came. Raises ValueError in words for what can't be sent.
        """
        headers, version, head = self.wire_headers(), self._wire_version(), self._head
        status = self._status
        if type(status) is not int or not 100 <= status <= 999:
            raise ValueError(f"the status code must be a number from 100 to 999, not {status!r}")
        if not _REASON.fullmatch(self._reason):
            raise ValueError("the reason has a control character in it")
        if head is None:
            return ResponseHead(version, status, self._reason, headers, NO_BODY)
        if headers is head.headers and (version, status, self._reason) == (head.version, head.status, head.reason):
            return head
        return ResponseHead(version, status, self._reason, headers, head.framing)

    @property
    def edited(self) -> bool:
        """Whether the head isn't the one that came; raises ValueError for one that can't be sent."""
        return self._head is None or self.to_head() is not self._head

    @property
    def status_code(self) -> int:
        """The status code."""
        return self._status

    @status_code.setter
    def status_code(self, status_code: int) -> None:
        self._status = status_code

    @property
    def reason(self) -> str:
        """The words behind the status code. They stay where the code is changed."""
        return self._reason.decode("latin-1")

    @reason.setter
    def reason(self, reason: str | bytes) -> None:
        self._reason = reason if isinstance(reason, bytes) else reason.encode("latin-1", "replace")

    @property
    def cookies(self) -> MultiDictView[str, tuple[str, CookieAttrs]]:
        """The cookies that are set: name to (value, attributes), to be read, and edited by assigning."""
        return MultiDictView(lambda: self.headers.fields, self._read_cookies, self._write_cookies)

    @cookies.setter
    def cookies(self, pairs: Any) -> None:
        self._write_cookies(pairs_of(pairs))

    def _read_cookies(self) -> tuple[tuple[str, tuple[str, CookieAttrs]], ...]:
        return read_set_cookies(self.headers.get_all("set-cookie"))

    def _write_cookies(self, pairs: tuple[tuple[Any, Any], ...]) -> None:
        before = self.headers.get_all("set-cookie")
        self.headers.set_all("set-cookie", write_set_cookies(pairs, before))
