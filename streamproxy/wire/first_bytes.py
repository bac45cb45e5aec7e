"""What is about to be spoken on a connection, told from the first bytes that its client sends.

This decides who is to read them and nothing else: a TLS handshake is for `client_hello`, an HTTP/1 request for `http1`,
and what is neither can only be passed on as it is. It's generous where `http1` is strict, and for the same reason:
what some server takes for a request, however oddly it is written, must not get past the rules as something else.
It's called a request here, and refused there in words.
"""

from __future__ import annotations

import enum
import re

from streamproxy.wire.fields import TOKEN
from streamproxy.wire.http1 import LONGEST_TARGET

# As much of a request line as is waited for.
LONGEST_LINE = LONGEST_TARGET + 1024
# Line ends and white space before a request line. There are servers that skip any number; nobody else sends so many.
MOST_BLANKS = 64

# RFC 9112 section 3 lets a server take tab, VT, FF and CR for a space; the others are white space where bytes were made
# text before they were split.
_SPACES = b"\t\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0"
_BLANKS = b"\n" + _SPACES
_METHOD = re.compile(TOKEN)
# A request is told by its first words, whatever follows, for HTTP/0.9 ended the line there: one of the methods that all
# servers know and a target that only HTTP has; a GET of anything.
_BEGINS = re.compile(
    rb"GET[" + _SPACES + rb"]++[^" + _BLANKS + rb"]"
    rb"|(?i:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH)[" + _SPACES + rb"]++(?:/|(?i:https?://))"
)
# Any other one by the version. It starts with the byte looked for, which makes the search several times as fast.
_VERSION = re.compile(rb"/(?i:(?<=[" + _SPACES + rb"]HTTP/))")
# The first line of HTTP/2's preface (RFC 9113 section 3.4).
_HTTP2 = b"PRI * HTTP/2.0\r\n"


class Speech(enum.Enum):
    """What a client speaks."""

    TLS = "a TLS handshake"
    HTTP = "an HTTP/1 request, well formed or not"
    OTHER = "neither TLS nor HTTP/1"
    UNSURE = "too few bytes to tell"


def first_bytes(data: bytes) -> Speech:
    """What a client that has just been told that its tunnel is open begins to say.

    `data` are all its bytes so far. Once the answer isn't UNSURE, more bytes don't change it; with `LONGEST_LINE` of
    them it never is. But a client may fall silent before that, so there has to be an end to the waiting too.
    """
    if not data:
        return Speech.UNSURE
    if data[0] == 0x16:
        # A handshake record, and the major version of them all (RFC 8446 section 5.1).
        return Speech.UNSURE if len(data) == 1 else Speech.TLS if data[1] == 3 else Speech.OTHER
    blanks = data[: MOST_BLANKS + 1]
    start = len(blanks) - len(blanks.lstrip(_BLANKS))
    if start > MOST_BLANKS:
        return Speech.HTTP
    return _request_or_other(data, start) if start < len(data) else Speech.UNSURE


def _request_or_other(data: bytes, start: int) -> Speech:
    """HTTP, OTHER or UNSURE; the first line begins at `start`."""
    size = min(len(data), LONGEST_LINE)
    method = _METHOD.match(data, start, size)
    if method is None:
        return Speech.OTHER
    at = method.end()
    if at == size:
        return Speech.UNSURE if size < LONGEST_LINE else Speech.OTHER
    if data[at] not in _SPACES:
        return Speech.OTHER
    if _BEGINS.match(data, start, size):
        return Speech.HTTP
    if data.startswith(_HTTP2):
        return Speech.OTHER
    if _HTTP2.startswith(data):
        return Speech.UNSURE
    end = data.find(b"\n", at, size)
    if not method[0].replace(b"-", b"").isalpha():
        # A NUL may stand in a target, for some servers. But in what Git says first, "0032git-upload-pack /a\0host=b\0",
        # no line ever ends; and there is no method with digits in it.
        nul = data.find(b"\0", at, size if end < 0 else end)
        end = nul if nul >= 0 else end
    if _VERSION.search(data, at, size if end < 0 else end):
        return Speech.HTTP
    if end >= 0:
        return Speech.OTHER
    return Speech.UNSURE if size < LONGEST_LINE else Speech.HTTP
