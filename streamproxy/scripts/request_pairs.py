"""The parts of a request that are lists of pairs: query, cookies and forms, read and edited in place."""

from __future__ import annotations

import uuid
from typing import Any

from streamproxy.scripts.content_type import parameter, with_parameter
from streamproxy.scripts.cookies import read_cookies, write_cookies
from streamproxy.scripts.form_data import read_multipart, read_urlencoded, write_multipart, write_urlencoded
from streamproxy.scripts.message import Message
from streamproxy.scripts.multidict import MultiDictView, pairs_of

_FORM = "application/x-www-form-urlencoded"


class RequestPairs(Message):
    """A message with a path, and what stands in pairs in it, in its fields and in its body."""

    __slots__ = ("_path",)

    _path: str

    @property
    def query(self) -> MultiDictView[str, str]:
        """The query's pairs, to be read and edited in place."""
        return MultiDictView(lambda: self._path, self._read_query, self._write_query)

    @query.setter
    def query(self, pairs: Any) -> None:
        self._write_query(pairs_of(pairs))

    def _read_query(self) -> tuple[tuple[str, str], ...]:
        return read_urlencoded(self._path.partition("?")[2])

    def _write_query(self, pairs: tuple[tuple[Any, Any], ...]) -> None:
        path, _, before = self._path.partition("?")
        query = write_urlencoded(pairs, before)
        self._path = f"{path}?{query}" if query else path

    @property
    def cookies(self) -> MultiDictView[str, str]:
        """The cookies' names and values, to be read and edited in place."""
        return MultiDictView(lambda: self.headers.fields, self._read_cookies, self._write_cookies)

    @cookies.setter
    def cookies(self, pairs: Any) -> None:
        self._write_cookies(pairs_of(pairs))

    def _read_cookies(self) -> tuple[tuple[str, str], ...]:
        return read_cookies(self.headers.get_all("cookie"))

    def _write_cookies(self, pairs: tuple[tuple[Any, Any], ...]) -> None:
        self.headers["cookie"] = write_cookies(pairs, self.headers.get_all("cookie"))

    def _content_type(self) -> str:
        told: str = self.headers.get("content-type", "")
        return told

    @property
    def urlencoded_form(self) -> MultiDictView[str, str]:
        """The pairs of an urlencoded form, empty for another body. Setting them sets body and Content-Type."""
        return MultiDictView(self._body_source, self._read_form, self._write_form)

    @urlencoded_form.setter
    def urlencoded_form(self, pairs: Any) -> None:
        self._write_form(pairs_of(pairs))

    def _body_source(self) -> object:
        return (self._raw, self.headers.fields) if self._raw is None else self._raw

    def _form_text(self) -> str:
        if _FORM not in self._content_type().lower():
            return ""
        return (self.get_content(strict=False) or b"").decode("utf-8", "surrogateescape")

    def _read_form(self) -> tuple[tuple[str, str], ...]:
        return read_urlencoded(self._form_text())

    def _write_form(self, pairs: tuple[tuple[Any, Any], ...]) -> None:
        form = write_urlencoded(pairs, self._form_text()).encode("utf-8", "surrogateescape")
        if _FORM not in self._content_type().lower():
            self.headers["content-type"] = _FORM
        self.content = form

    @property
    def multipart_form(self) -> MultiDictView[bytes, bytes]:
        """The pairs of a multipart form, empty for another body. Setting them sets body and Content-Type."""
        return MultiDictView(self._body_source, self._read_multipart, self._write_multipart)

    @multipart_form.setter
    def multipart_form(self, pairs: Any) -> None:
        self._write_multipart(pairs_of(pairs))

    def _boundary(self) -> bytes:
        """The boundary that Content-Type tells; empty where it is no multipart form."""
        told = self._content_type()
        if "multipart/form-data" not in told.lower():
            return b""
        return (parameter(told, "boundary") or "").encode("utf-8", "surrogateescape")

    def _read_multipart(self) -> tuple[tuple[bytes, bytes], ...]:
        boundary = self._boundary()
        return read_multipart(self.get_content(strict=False) or b"", boundary) if boundary else ()

    def _write_multipart(self, pairs: tuple[tuple[Any, Any], ...]) -> None:
        boundary = self._boundary()
        before = (self.get_content(strict=False) or b"") if boundary else b""
        if not boundary:
            boundary = uuid.uuid4().hex.encode()
            self.headers["content-type"] = with_parameter("multipart/form-data", "boundary", boundary.decode())
        self.content = write_multipart(pairs, boundary, before)
