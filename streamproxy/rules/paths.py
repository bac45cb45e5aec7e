"""The ways in which a path can be written and still be read as the same by some origin.

A rule that blocks `/admin/*` must hold for `/%61dmin/x`, `/x/../admin/x` and `//admin/x` too, or a client
only has to write oddly to get by. So a pattern is tried on each form given here, and one match is enough.
Nothing here changes what is sent: a path goes to the origin as it came.

The forms, each after the first only where it differs:

1. as it came;
2. normal after RFC 3986 section 6.2.2: escaped letters, digits and `-._~` decoded, hex digits in upper case,
   dot segments removed (so encoded dots are, too);
3. that with runs of slashes made one, after the dots are removed and before: origins differ;
4. with every escaped printable ASCII character decoded but `%2F` (a slash that is data) and `%25` (so that
   nothing is decoded twice);
5. as the loosest origins read it: `%2F` decoded as WSGI applications get it, `\\` a slash as on Windows, and
   each segment's `;parameters` left out as Java servers do.

Not seen through: escapes that an origin decodes twice, and letters that it takes for the same in either case.
"""

from __future__ import annotations

import re

_ODD_PATH = re.compile(r"[%;\\]|//|/\.|[^\x21-\x7e]")
_ODD_QUERY = re.compile(r"%|[^\x21-\x7e]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?|[^\x21-\x7e]")
_PRINTABLE_ESCAPE = re.compile(r"%(2[1-46-9A-F]|[3-6][0-9A-F]|7[0-9A-E])")
_SLASHES = re.compile(r"//+")
_PARAMETERS = re.compile(r";[^/]*")
_DOT_ESCAPE = re.compile(r"%2[eE]")
_UNFIT = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def path_forms(path: str) -> tuple[str, ...]:
    """The forms of a path without its query, the one that came first."""
    if not _ODD_PATH.search(path):
        return (path,)
    normal = normal_escapes(path)
    without_dots = remove_dot_segments(normal)
    decoded = _PRINTABLE_ESCAPE.sub(_decode_but_slash, normal)
    loose = _PARAMETERS.sub("", decoded.replace("%2F", "/").replace("\\", "/"))
    forms = (
        path,
        without_dots,
        _SLASHES.sub("/", without_dots),
        remove_dot_segments(_SLASHES.sub("/", normal)),
        remove_dot_segments(_SLASHES.sub("/", decoded)),
        remove_dot_segments(_SLASHES.sub("/", loose)),
    )
    return tuple(dict.fromkeys(forms))


def query_forms(query: str) -> tuple[str, ...]:
    """The forms of a query, with the `?` before it if there is one."""
    if not _ODD_QUERY.search(query):
        return (query,)
    normal = normal_escapes(query)
    return tuple(dict.fromkeys((query, normal, _PRINTABLE_ESCAPE.sub(_decode, normal))))


def normal_escapes(text: str) -> str:
    """Escapes as RFC 3986 has them: none where none is needed, one where one is, hex in upper case."""
    return _ESCAPE.sub(_normal_escape, text)


def escaped_text(text: str) -> str:
    """What a user wrote, as it stands in an URL: characters beyond ASCII as escaped UTF-8."""
    return normal_escapes(text.encode("utf-8").decode("latin-1"))


def remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, for a path that begins with a slash; another is given back as it is."""
    if "/." not in path or not path.startswith("/"):
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def within(tail: str) -> str:
    """A tail to put behind a prefix, its dot segments removed so that it can't climb out of the prefix."""
    segments = tail.split("/")
    plain = [_DOT_ESCAPE.sub(".", segment) if len(segment) <= 6 else segment for segment in segments]
    if "." not in plain and ".." not in plain:
        return tail
    dotted = (dots if dots in (".", "..") else segment for segment, dots in zip(segments, plain, strict=True))
    return remove_dot_segments("/" + "/".join(dotted))[1:]


def fit_for_url(tail: str) -> str:
    """A part of one of the forms as it may stand in a path: what decoding laid bare is escaped again."""
    return _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in _octets(found[0])), tail)


def _octets(char: str) -> bytes:
    """The bytes of a character of a request target, which is read byte for byte; else its UTF-8."""
    try:
        return char.encode("latin-1")
    except UnicodeEncodeError:
        return char.encode("utf-8", "surrogateescape")


def _normal_escape(found: re.Match[str]) -> str:
    digits = found[1]
    if digits is not None:
        char = chr(int(digits, 16))
        return char if char in _UNRESERVED else "%" + digits.upper()
    return "".join(f"%{byte:02X}" for byte in _octets(found[0]))


def _decode(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


def _decode_but_slash(found: re.Match[str]) -> str:
    return found[0] if found[1] == "2F" else chr(int(found[1], 16))
