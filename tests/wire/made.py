"""Strategies for messages: good ones, and good ones that were damaged."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.wire.reading import request

METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH", b"M-SEARCH"])
TARGETS = st.sampled_from([b"/", b"*", b"/a?b=c&d", b"http://a.b/", b"http://a.b:81/%20", b"/" + b"x" * 50])
NAMES = st.sampled_from([b"X", b"Accept", b"x-y", b"Cookie", b"VIA", b"Set-Cookie", b"A1", b"Content-Type"])
VALUES = st.sampled_from([b"", b"a", b"a, b", b"x=y; z", b'"q"', b"\xe9t\xe9", b"1\t2", b":", b"0" * 60])
SPACES = st.sampled_from([b"", b" ", b"\t", b" \t "])
EXTENSIONS = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;c"', b" ; a = b"])
BODIES = st.binary(max_size=30) | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])


@st.composite
def field_line(draw: st.DrawFn, names: st.SearchStrategy[bytes] = NAMES) -> bytes:
    return draw(names) + b":" + draw(SPACES) + draw(VALUES) + draw(SPACES)


@st.composite
def chunked_body(draw: st.DrawFn) -> bytes:
    out = b""
    for chunk in draw(st.lists(BODIES.filter(len), max_size=4)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(chunk)
        out += size + draw(EXTENSIONS) + b"\r\n" + chunk + b"\r\n"
    out += draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n"
    for line in draw(st.lists(field_line(st.sampled_from([b"X-Sum", b"ETag", b"A"])), max_size=2)):
        out += line + b"\r\n"
    return out + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, lines: list[bytes], kinds: str = "none length chunked") -> bytes:
    """`lines` with a framing field somewhere behind the first, and the body to it."""
    kind = draw(st.sampled_from(kinds.split()))
    body = b""
    at = draw(st.integers(1, len(lines)))
    if kind == "length":
        body = draw(BODIES)
        name = draw(st.sampled_from([b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH:\t"]))
        lines = [*lines[:at], name + draw(st.sampled_from([b"%d", b"0%d", b"%d "])) % len(body), *lines[at:]]
    elif kind == "chunked":
        body = draw(chunked_body())
        field = st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:  Chunked "])
        lines = [*lines[:at], draw(field), *lines[at:]]
    elif kind == "close":
        body = draw(BODIES)
    return request(*lines, body=body)


@st.composite
def good_request(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    line = draw(METHODS) + b" " + draw(TARGETS) + b" HTTP/" + version
    fields = draw(st.lists(field_line(), max_size=4))
    if version == b"1.1" or draw(st.booleans()):
        fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from([b"Host: a.b", b"HOST:a.b:81"])))
    return draw(framed([line, *fields], "none length" if version == b"1.0" else "none length chunked"))


STATUSES = st.sampled_from([b"200 OK", b"404 Not Found", b"204 x", b"304 y", b"500 ", b"206", b"307 a b"])
INTERIM = st.sampled_from(
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"]
)


@st.composite
def good_response(draw: st.DrawFn) -> bytes:
    """A response to a GET request, until close perhaps, with interim ones before it perhaps."""
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(STATUSES)
    line = b"HTTP/" + version + b" " + status
    fields = draw(st.lists(field_line(), max_size=4))
    if status[:3] in (b"204", b"304"):
        kinds = "none"
    else:
        kinds = "length close" if version == b"1.0" else "length chunked close"
    return b"".join(draw(st.lists(INTERIM, max_size=2))) + draw(framed([line, *fields], kinds))


# What damages a message most: the bytes and lines that grammar turns on.
_LINES = [b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"]
_LINES += [b"Host: c", b"X: y", b"Connection: close", b"Upgrade: a", b"Expect: 100-continue", b" x", b"GET / HTTP/1.1"]
_WORDS = [b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"chunked", b"HTTP/1.0", b"CONNECT", b"PRI", b"\tchunked", b"chunked\t"]
_BYTES = [bytes([code]) for code in b'\r\n \t\0:,;05x+-_\x0b\x0c\x7f\x80\xff"\\19e=']
_SHARDS = st.sampled_from([*_BYTES, *_WORDS, *[line + b"\r\n" for line in _LINES]])


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message of `messages` after a few edits of bytes and lines."""
    data = draw(messages)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["insert", "insert line", "replace", "delete", "repeat", "swap", "cut"])):
            case "insert":
                data = data[:at] + draw(_SHARDS) + data[at:]
            case "insert line":
                at = data.find(b"\n", at) + 1
                data = data[:at] + draw(_SHARDS) + data[at:]
            case "replace":
                data = data[:at] + draw(_SHARDS | st.binary(min_size=1, max_size=1)) + data[at + 1 :]
            case "delete":
                data = data[:at] + data[at + draw(st.integers(1, 3)) :]
            case "repeat":
                line = data[data.rfind(b"\n", 0, at) + 1 : data.find(b"\n", at) + 1]
                data = data[:at] + line + data[at:]
            case "swap":
                lines = data.split(b"\r\n")
                first, second = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
                lines[first], lines[second] = lines[second], lines[first]
                data = b"\r\n".join(lines)
            case "cut":
                data = data[:at]
    return data
