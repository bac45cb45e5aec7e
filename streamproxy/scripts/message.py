"""What requests and responses have in common for scripts: fields, body, trailers, times.

A body is here only as a whole: `raw_content` as it is sent, `content` without its codings, `text`. It is None while it
hasn't come, and for good where it streams; what a script makes of a stream is told by `stream`. How a message is framed
is the proxy's business: what a script writes into Content-Length or Transfer-Encoding counts for nothing.
"""

from __future__ import annotations

import json
from typing import Any, Final, Self

from streamproxy.filters.coding import Bounds, decode_whole, encode_whole
from streamproxy.filters.decoders import CodingError
from streamproxy.filters.tap import Captured
from streamproxy.scripts.content_type import read_text, write_text
from streamproxy.scripts.headers import Headers, as_text
from streamproxy.wire import headers as wire
from streamproxy.wire.message import Version

# What a body may come to when its codings are undone: times its size once it is larger than 4 MiB, and in all.
DECODED_BOUNDS: Final = Bounds(250, 4 << 20, 64 << 20)
# A body that decodes to no more than this is kept as it is decoded too, and not decoded each time that it's asked for.
MOST_KEPT_DECODED: Final = 4 << 20


class Message:
    """A request or a response."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_decoded",
        "_decoded_of",
        "_headers",
        "_raw",
        "_stream",
        "_trailers",
        "_version",
        "_wire",
        "captured",
        "content_changed",
        "streamed",
        "streams",
        "timestamp_end",
        "timestamp_start",
    )

    def __init__(self, headers: wire.Headers | None, version: str, started: float) -> None:
        self._wire = headers
        self._headers: Headers | None = None
        self._trailers: Headers | None = None
        self._version = version
        self._raw: bytes | None = None
        self._decoded: bytes | None = None
        self._decoded_of: tuple[bytes, tuple[bytes, ...]] | None = None
        self._stream: object = None
        # What happens with the body where no script says anything, as far as that is known.
        self.streams: bool = False
        # Whether the body went by without being held.
        self.streamed: bool = False
        # What a rule's `capture` has recorded of the body so far, as it came (`received`) and as it goes (`sent`): each
        # with `content`, `size`, `sha256`, `cut`. None where no rule captures it.
        self.captured: Captured | None = None
        # Whether a script put another body in place of the one that was given.
        self.content_changed: bool = False
        self.timestamp_start: float = started
        self.timestamp_end: float | None = None

    @property
    def headers(self) -> Headers:
        """The header fields; a mapping or pairs of bytes may be assigned as well."""
        headers = self._headers
        if headers is None:
            headers = self._headers = Headers() if self._wire is None else Headers.of(self._wire)
        return headers

    @headers.setter
    def headers(self, headers: Any) -> None:
        self._headers = Headers.made_of(headers)

    def wire_headers(self) -> wire.Headers:
        """The header fields as they are to be written."""
        if self._headers is None:
            return wire.NO_HEADERS if self._wire is None else self._wire
        return self._headers.to_wire()

    @property
    def trailers(self) -> Headers | None:
        """The trailer fields; None where there are none, or none yet."""
        return self._trailers

    @trailers.setter
    def trailers(self, trailers: Any) -> None:
        self._trailers = None if trailers is None else Headers.made_of(trailers)

    @property
    def stream(self) -> Any:
        """How the body goes: True, False (held whole), or a function that it streams through.

        Until a script says so, it reads as what is going to happen, as far as the head tells.
        """
        return self.streams if self._stream is None else self._stream

    @stream.setter
    def stream(self, stream: object) -> None:
        if not isinstance(stream, bool) and not callable(stream) and not hasattr(stream, "feed"):
            raise TypeError(f"stream must be True, False or a stream function, not {type(stream).__name__}")
        self._stream = stream

    @property
    def asked_stream(self) -> Any:
        """What a script said about `stream`; None where none did."""
        return self._stream

    @property
    def http_version(self) -> str:
        """The HTTP version, such as "HTTP/1.1"."""
        return self._version

    @http_version.setter
    def http_version(self, version: str | bytes) -> None:
        self._version = as_text(version) if isinstance(version, bytes) else version

    @property
    def is_http10(self) -> bool:
        """Whether the version is HTTP/1.0."""
        return self._version == "HTTP/1.0"

    @property
    def is_http11(self) -> bool:
        """Whether the version is HTTP/1.1."""
        return self._version == "HTTP/1.1"

    @property
    def is_http2(self) -> bool:
        """Whether the version is HTTP/2."""
        return self._version in ("HTTP/2", "HTTP/2.0")

    @property
    def is_http3(self) -> bool:
        """Whether the version is HTTP/3."""
        return self._version in ("HTTP/3", "HTTP/3.0")

    def give(self, raw: bytes | None) -> None:
        """The body as it came, from the proxy; no script has changed it."""
        self._raw = raw
        self._decoded = self._decoded_of = None
        self.content_changed = False

    @property
    def raw_content(self) -> bytes | None:
        """The body as it is sent, its codings not undone; None where it isn't here."""
        return self._raw

    @raw_content.setter
    def raw_content(self, raw: bytes | None) -> None:
        if raw is not None and not isinstance(raw, bytes):
            raise TypeError(f"a body must be bytes, not {type(raw).__name__}")
        self._raw = raw
        self.content_changed = True
        if raw is not None and "content-length" in self.headers and "transfer-encoding" not in self.headers:
            self.headers["content-length"] = str(len(raw))

    def _codings(self) -> tuple[bytes, ...]:
        """What Content-Encoding lists, in lower case."""
        told = ",".join(self.headers.get_all("content-encoding"))
        members = [member.strip().lower() for member in told.split(",")]
        return tuple(
            [member.encode("utf-8", "surrogateescape") for member in members if member not in ("", "identity")]
        )

    def get_content(self, strict: bool = True) -> bytes | None:
        """The body with its codings undone; None where it isn't here.

        Where it can't be decoded: raises ValueError, or unless `strict` gives it as it is.
        """
        raw = self._raw
        # An empty body is one in any coding.
        codings = self._codings() if raw else ()
        if raw is None or not codings:
            return raw
        if self._decoded_of is not None and self._decoded_of[0] is raw and self._decoded_of[1] == codings:
            return self._decoded
        try:
            decoded = decode_whole(codings, raw, DECODED_BOUNDS)
        except (CodingError, ValueError) as error:
            if strict:
                raise ValueError(str(error)) from error
            return raw
        if len(decoded) <= MOST_KEPT_DECODED:
            self._decoded, self._decoded_of = decoded, (raw, codings)
        return decoded

    def set_content(self, content: bytes | None) -> None:
        """Put another body in place: coded as Content-Encoding says, which goes where that can't be done."""
        if content is None:
            self.raw_content = None
            return
        if not isinstance(content, bytes):
            raise TypeError(f"content must be bytes, not {type(content).__name__}; text is set by .text")
        codings = self._codings()
        if codings:
            try:
                self.raw_content = encode_whole(codings, content)
                return
            except ValueError:
                # One that isn't known.
                del self.headers["content-encoding"]
        self.raw_content = content

    @property
    def content(self) -> bytes | None:
        """The body with its codings undone; see `get_content` and `set_content`."""
        return self.get_content()

    @content.setter
    def content(self, content: bytes | None) -> None:
        self.set_content(content)

    def get_text(self, strict: bool = True) -> str | None:
        """The body as text, by the charset of its Content-Type; None where it isn't here.

        Where it isn't that: raises ValueError, or unless `strict` gives UTF-8 with other bytes by surrogateescape.
        """
        content = self.get_content(strict)
        if content is None:
            return None
        try:
            return read_text(content, self.headers.get("content-type", ""))
        except ValueError:
            if strict:
                raise
            return content.decode("utf-8", "surrogateescape")

    def set_text(self, text: str | None) -> None:
        """Put a text in place of the body; what the charset can't express becomes UTF-8, and Content-Type says so."""
        if text is None:
            self.set_content(None)
            return
        if not isinstance(text, str):
            raise TypeError(f"text must be str, not {type(text).__name__}")
        before = self.get_content(strict=False) or b""
        content, content_type = write_text(text, self.headers.get("content-type", ""), before)
        if content_type is not None:
            self.headers["content-type"] = content_type
        self.set_content(content)

    @property
    def text(self) -> str | None:
        """The body as text; see `get_text` and `set_text`."""
        return self.get_text()

    @text.setter
    def text(self, text: str | None) -> None:
        self.set_text(text)

    def json(self, **kwargs: Any) -> Any:
        """The body read as JSON; raises ValueError where it is none, and TypeError where it isn't here."""
        content = self.get_content(strict=False)
        if content is None:
            raise TypeError("the body isn't here: it streams, or hasn't come yet")
        return json.loads(content, **kwargs)

    def decode(self, strict: bool = True) -> None:
        """Undo the body's codings, and take Content-Encoding out. Raises as `get_content` does."""
        content = self.get_content(strict)
        self.headers.pop("content-encoding", None)
        self.set_content(content)

    def encode(self, coding: str) -> None:
        """Code the body, which isn't yet, and put Content-Encoding in; raises ValueError for an unknown coding."""
        raw = self._raw
        self.headers["content-encoding"] = coding
        self.set_content(raw)
        if "content-encoding" not in self.headers:
            raise ValueError(f"{coding!r} is no content coding that can be written")

    def copy(self) -> Self:
        """Another message with the same parts, to be edited by itself."""
        made = type(self).__new__(type(self))
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                if name not in ("__dict__", "__weakref__"):
                    setattr(made, name, getattr(self, name))
        made.__dict__.update(self.__dict__)
        made._headers = self.headers.copy()
        made._trailers = None if self._trailers is None else self._trailers.copy()
        return made

    def _wire_version(self) -> Version:
        """The version as a head has it; raises ValueError for one that isn't spoken."""
        if self._version == "HTTP/1.1":
            return (1, 1)
        if self._version == "HTTP/1.0":
            return (1, 0)
        raise ValueError(f"the HTTP version must be HTTP/1.0 or HTTP/1.1, not {self._version!r}")
