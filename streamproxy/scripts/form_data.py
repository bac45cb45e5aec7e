"""Queries and forms, which are lists of pairs, read and written (URL Standard section 5, RFC 7578).

A pair that was there is written as it stood, however it was spelled, so that a change of one changes no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote_plus, unquote_plus

TextPairs = tuple[tuple[str, str], ...]
BytesPairs = tuple[tuple[bytes, bytes], ...]

_PART_NAME = re.compile(rb'^content-disposition:[^\r\n]*?[;\s]name=(?:"([^"\r\n]*+)"|([^\s;"]*+))', re.I | re.M)


def _read_pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return unquote_plus(name, errors="surrogateescape"), unquote_plus(value, errors="surrogateescape")


def _quoted(value: object) -> str:
    """A name or value as it is written; numbers are taken as their text."""
    given = value if isinstance(value, (str, bytes)) else str(value)
    if isinstance(given, bytes):
        return quote_plus(given)
    return quote_plus(given, errors="surrogateescape")


def read_urlencoded(text: str) -> TextPairs:
    """The pairs of a query or an urlencoded form. One without "=" has an empty value; what isn't UTF-8 comes back."""
    return tuple([_read_pair(part) for part in text.split("&") if part])


def write_urlencoded(pairs: Iterable[tuple[object, object]], before: str) -> str:
    """`pairs` as text; those that `before` has as they are spelled there."""
    known: dict[tuple[object, object], str] = {}
    for part in before.split("&"):
        if part:
            known.setdefault(_read_pair(part), part)
    return "&".join([known.get(pair) or f"{_quoted(pair[0])}={_quoted(pair[1])}" for pair in pairs])


def _parts(content: bytes, boundary: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The (name, value, whole part) of each part that has a name."""
    parts = []
    # The first delimiter may stand at the very beginning, and what is before it means nothing.
    for section in (b"\r\n" + content).split(b"\r\n--" + boundary)[1:]:
        if section.startswith(b"--"):
            break
        part = section.lstrip(b" \t").removeprefix(b"\r\n")
        head, blank, value = part.partition(b"\r\n\r\n")
        found = _PART_NAME.search(head)
        if blank and found is not None:
            parts.append((found[1] if found[1] is not None else found[2], value, part))
    return parts


def read_multipart(content: bytes, boundary: bytes) -> BytesPairs:
    """The (name, value) pairs of a multipart form; parts without a name are left out."""
    return tuple([(name, value) for name, value, _ in _parts(content, boundary)])


def _as_form_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"a form's names and values must be bytes or str, not {type(value).__name__}")


def write_multipart(pairs: Iterable[tuple[object, object]], boundary: bytes, before: bytes) -> bytes:
    """`pairs` as a multipart form; parts that `before` has keep their fields, such as a file's name and type.

    Raises ValueError where a value has the boundary in it.
    """
    known: dict[tuple[bytes, bytes], bytes] = {}
    for name, value, part in _parts(before, boundary):
        known.setdefault((name, value), part)
    made: list[bytes] = []
    for given_name, given_value in pairs:
        name, value = _as_form_bytes(given_name), _as_form_bytes(given_value)
        if b"\r\n--" + boundary in b"\r\n" + value:
            raise ValueError("a value of the form has the form's boundary in it")
        whole = known.get((name, value))
        if whole is None:
            # The URL Standard's way to write names that would end early.
            name = name.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
            whole = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (name, value)
        made.append(b"--%b\r\n%b\r\n" % (boundary, whole))
    return b"".join([*made, b"--%b--\r\n" % boundary])
