"""A request as scripts see it, and may change it before it goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from streamproxy.filters.coding import acceptable
from streamproxy.scripts.headers import as_bytes, as_text
from streamproxy.scripts.message import Message
from streamproxy.scripts.request_pairs import RequestPairs
from streamproxy.wire.fields import TOKEN
from streamproxy.wire.message import NO_BODY, Origin, RequestHead, Target, WireError
from streamproxy.wire.target import DEFAULT_PORTS, parse_absolute, parse_authority, parse_origin_form

_METHOD = re.compile(TOKEN)
_VERSIONS = {(1, 1): "HTTP/1.1", (1, 0): "HTTP/1.0"}


def netloc(scheme: str, host: str, port: int) -> str:
    """host[:port] as an URL has it: the scheme's own port left out, IPv6 in brackets."""
    name = f"[{host}]" if ":" in host else host
    return name if DEFAULT_PORTS.get(scheme) == port else f"{name}:{port}"


class Request(RequestPairs):
    """A request. Its `host`, `port` and `scheme` say where it goes, whatever its Host field says."""

    __slots__ = ("_authority", "_head", "_host", "_method", "_port", "_scheme", "_target")

    @classmethod
    def of(cls, head: RequestHead, target: Target, started: float) -> Request:
        """The request with that head, to that target; `started` is when it began, in seconds since the epoch."""
        made = cls.__new__(cls)
        Message.__init__(made, head.headers, _VERSIONS.get(head.version, "HTTP/1.1"), started)
        made._head, made._target = head, target
        made._method = head.method
        made._scheme, made._host, made._port = target.origin
        made._path = target.path
        # None: not looked for yet.
        made._authority = None
        return made

    def __init__(self, method: str, url: str, headers: Any = ()) -> None:
        super().__init__(None, "HTTP/1.1", time.time())
        self._head: RequestHead | None = None
        self._target: Target | None = None
        self._method = as_bytes(method, "a method")
        self._scheme, self._host, self._port, self._path = _taken_apart(url)
        self._authority: str | None = ""
        self.headers = headers
        self.timestamp_end = self.timestamp_start

    @classmethod
    def make(cls, method: str, url: str, content: bytes | str = "", headers: Any = ()) -> Request:
        """A request that a script makes up. `headers` are `Headers`, a mapping, or pairs of bytes."""
        made = cls(method, url, headers)
        fill(made, content)
        return made

    def __repr__(self) -> str:
        where = f"{self._host}:{self._port}"
        if self.first_line_format == "authority":
            return f"Request({self.method} {where})"
        return f"Request({self.method} {where}{self._path})"

    def to_head(self) -> tuple[RequestHead, Target]:
        """The head to go on with, and where to; the very ones that came, where nothing was changed.

        The framing is that of the request that came. Raises ValueError in words for what can't be sent.
        """
        headers = self.wire_headers()
        head, origin = self._head, self._origin()
        if not _METHOD.fullmatch(self._method):
            raise ValueError(f"{as_text(self._method)!r} can't be a method")
        target = self._target
        if target is None or target.origin != origin or target.path != self._path:
            try:
                target = parse_origin_form(self._path.encode("ascii"), self._method, origin)
            except (WireError, UnicodeError):
                raise ValueError(
                    f"the path {self._path[:200]!r} must begin with a slash and have no spaces, fragments,"
                    " control characters or any that aren't ASCII; quote them by percent signs"
                ) from None
        version = self._wire_version()
        if head is not None and target is self._target and headers is head.headers and self._method == head.method:
            if version == head.version:
                return head, target
        framing = NO_BODY if head is None else head.framing
        return RequestHead(self._method, self._request_target(target), version, headers, framing), target

    @property
    def edited(self) -> bool:
        """Whether the head isn't the one that came; raises ValueError for one that can't be sent."""
        return self._head is None or self.to_head()[0] is not self._head

    def _origin(self) -> Origin:
        if self._scheme not in DEFAULT_PORTS:
            raise ValueError(f"the scheme must be http or https, not {self._scheme!r}")
        if self._target is not None and self._target.origin == (self._scheme, self._host, self._port):
            return self._target.origin
        try:
            return parse_authority(netloc(self._scheme, self._host, self._port), self._scheme)
        except WireError as error:
            raise ValueError(f"the request can't go to {self._host!r}, port {self._port}: {error.reason}") from None

    def _request_target(self, target: Target) -> bytes:
        """The target of the request line; absolute if it was."""
        if self._head is not None and target is self._target:
            return self._head.target
        return (target.url if self.first_line_format == "absolute" else target.path).encode("ascii")

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return as_text(self._method).upper()

    @method.setter
    def method(self, method: str | bytes) -> None:
        self._method = as_bytes(method, "a method")

    @property
    def scheme(self) -> str:
        """The scheme that the origin is spoken to by: "http" or "https"."""
        return self._scheme

    @scheme.setter
    def scheme(self, scheme: str | bytes) -> None:
        self._scheme = _text(scheme, "a scheme")

    @property
    def host(self) -> str:
        """The origin's name or address; IPv6 without brackets. Setting it sets the Host field, if there is one."""
        return self._host

    @host.setter
    def host(self, host: str | bytes) -> None:
        name = _text(host, "a host")
        self._host = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        self._tell_host()

    @property
    def port(self) -> int:
        """The origin's port. Setting it sets the Host field, if there is one."""
        return self._port

    @port.setter
    def port(self, port: int) -> None:
        if not isinstance(port, int) or isinstance(port, bool):
            raise ValueError(f"a port must be a number, not {port!r}")
        self._port = port
        self._tell_host()

    def _tell_host(self) -> None:
        told = netloc(self._scheme, self._host, self._port)
        if "host" in self.headers:
            self.headers["host"] = told
        if self.authority:
            self._authority = told

    @property
    def authority(self) -> str:
        """host[:port] of the request line, where it has one; else empty."""
        authority = self._authority
        if authority is None:
            asked = b"" if self._head is None else self._head.target
            authority = ""
            if self.method == "CONNECT":
                authority = as_text(asked)
            elif asked[:1] != b"/" and b"://" in asked:
                authority = as_text(asked.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0])
            self._authority = authority
        return authority

    @authority.setter
    def authority(self, authority: str | bytes) -> None:
        self._authority = _text(authority, "an authority")

    @property
    def first_line_format(self) -> str:
        """The form of the request's target: "authority" (of CONNECT), "absolute" or "relative"."""
        if self.method == "CONNECT":
            return "authority"
        return "absolute" if self.authority else "relative"

    @property
    def path(self) -> str:
        """The path with its query, as it stands in the request line; "*" of an OPTIONS without one."""
        return self._path

    @path.setter
    def path(self, path: str | bytes) -> None:
        self._path = _text(path, "a path")

    @property
    def url(self) -> str:
        """The whole URL. Setting it sets `scheme`, `host`, `port` and `path`; raises ValueError for none."""
        where = netloc(self._scheme, self._host, self._port)
        if self.first_line_format == "authority":
            return f"{self._host}:{self._port}"
        return f"{self._scheme}://{where}{self._shown_path()}"

    @url.setter
    def url(self, url: str | bytes) -> None:
        self._scheme, self._host, self._port, self._path = _taken_apart(url)
        self._tell_host()

    def _shown_path(self) -> str:
        return "" if self._path == "*" else self._path

    @property
    def host_header(self) -> str | None:
        """The Host field; None takes it out."""
        told: str | None = self.headers.get("host")
        return told

    @host_header.setter
    def host_header(self, host: str | bytes | None) -> None:
        if host is None:
            self.headers.pop("host", None)
        else:
            self.headers["Host"] = host  # type: ignore[assignment]

    def _pretty_origin(self) -> tuple[str, int | None]:
        """The host and port that the Host field tells; what isn't host:port is told as it is."""
        told = self.host_header or ""
        try:
            _, host, port = parse_authority(told, self._scheme if self._scheme in DEFAULT_PORTS else "http")
        except WireError:
            return told, None
        return host, port

    @property
    def pretty_host(self) -> str:
        """The host that the Host field tells, in lower case, else `host`: a name where only the address is known."""
        return self._pretty_origin()[0] or self._host

    @property
    def pretty_url(self) -> str:
        """The URL with the host and port that the Host field tells."""
        if self.first_line_format == "authority":
            return self.authority
        host, port = self._pretty_origin()
        if not host:
            return self.url
        where = host if port is None else netloc(self._scheme, host, port)
        return f"{self._scheme}://{where}{self._shown_path()}"

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the path between its slashes, unquoted, empty ones left out. Setting them keeps the query."""
        return tuple([unquote(part) for part in self._shown_path().partition("?")[0].split("/") if part])

    @path_components.setter
    def path_components(self, components: Sequence[str]) -> None:
        _, mark, query = self._path.partition("?")
        self._path = "/" + "/".join([quote(part, safe="") for part in components]) + mark + query

    def anticache(self) -> None:
        """Ask for the whole response, whatever the client has in its cache."""
        for name in ("if-modified-since", "if-none-match"):
            self.headers.pop(name, None)

    def anticomp(self) -> None:
        """Ask for a response without codings."""
        self.headers["accept-encoding"] = "identity"

    def constrain_encoding(self) -> None:
        """Ask for no codings but those that can be undone."""
        told = self.headers.get("accept-encoding")
        if told is not None:
            self.headers["accept-encoding"] = as_text(acceptable(as_bytes(told)))


def _text(value: str | bytes, what: str) -> str:
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, str):
        return value
    raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")


def _taken_apart(url: str | bytes) -> tuple[str, str, int, str]:
    """The scheme, host, port and path (with query) of an URL, its fragment left out; raises ValueError for none."""
    text = _text(url, "an URL").partition("#")[0]
    try:
        (scheme, host, port), path = parse_absolute(text.encode("ascii"))
    except UnicodeEncodeError:
        raise ValueError(f"the URL {text[:200]!r} must be ASCII: quote other characters") from None
    except WireError as error:
        raise ValueError(f"{text[:200]!r} is no URL of http or https: {error.reason}") from None
    return scheme, host, port, path


def fill(message: Message, content: bytes | str) -> None:
    """Give a message that a script makes its body, and the length of that."""
    if isinstance(content, str):
        message.text = content
    elif isinstance(content, bytes):
        message.content = content
    else:
        raise TypeError(f"content must be bytes or str, not {type(content).__name__}")
    message.headers["content-length"] = str(len(message.raw_content or b""))
