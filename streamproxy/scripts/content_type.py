"""What Content-Type says of a body's text, and the text read and written by it (RFC 9110 section 8.3).

Where no charset is declared, text is taken as what its bytes are: UTF-8 if they are that, else Latin-1.
"""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

# A parameter: RFC 9110 section 5.6.6.
_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))')
_ESCAPED = re.compile(r"\\(.)")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w:.-]{1,40})", re.I)
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w:.-]{1,40})")
_CSS = re.compile(rb'@charset "([\w:.-]{1,40})";')
# The standards have readers look at about so much (HTML section 13.2.3.2).
_LOOKED_AT = 1024
# Codecs of Python that are no charsets; some of them are slow on long texts.
_NO_CHARSETS = frozenset(["idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"])
# Only these are looked up: Python remembers for ever each name that it was ever asked for.
_KNOWN = frozenset([*aliases, *aliases.values(), "koi8_u", "utf_8_sig"])
# What these names stand for on the web (Encoding Standard section 4.2).
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}


def parameter(content_type: str, name: str) -> str | None:
    """The value of a parameter (its name in lower case), without quotes; None where there is none."""
    for key, quoted, plain in _PARAMETER.findall(content_type):
        if key.lower() == name:
            return _ESCAPED.sub(r"\1", quoted) if quoted else plain
    return None


def with_parameter(content_type: str, name: str, value: str) -> str:
    """The content type with that parameter in place of any that it had; `value` is a token."""
    kept = _PARAMETER.sub(lambda found: "" if found[1].lower() == name else found[0], content_type)
    return f"{kept.rstrip('; ')}; {name}={value}"


def _codec(charset: str) -> str | None:
    """Python's name for a charset; None for one that it doesn't know."""
    plain = re.sub(r"[- ]", "_", charset.strip().lower())
    if plain not in _KNOWN:
        return None
    try:
        name = codecs.lookup(plain).name
    except LookupError:
        return None
    return None if name in _NO_CHARSETS else _WIDER.get(name, name)


def declared(content_type: str, content: bytes) -> str | None:
    """The charset that the content type declares, or else the content itself as its type lets it; None if neither."""
    charset = parameter(content_type, "charset")
    if charset:
        return charset
    kind = content_type.lower()
    beginning = content[:_LOOKED_AT]
    found = None
    if "html" in kind:
        found = _META.search(beginning)
    if found is None and ("xml" in kind or "html" in kind):
        found = _XML.match(beginning)
    elif "css" in kind:
        found = _CSS.match(beginning)
    return None if found is None else found[1].decode("ascii", "replace")


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_text(content: bytes, content_type: str) -> str:
    """The content as text; raises ValueError where it isn't in the charset that is declared for it."""
    charset = declared(content_type, content)
    if charset is None:
        return content.decode("utf-8" if _is_utf_8(content) else "latin-1")
    codec = _codec(charset)
    if codec is None:
        raise ValueError(f"the body is declared to be {charset!r}, which is no known charset")
    try:
        return content.decode(codec)
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"the body isn't the {charset} that it is declared to be") from error


def write_text(text: str, content_type: str, before: bytes) -> tuple[bytes, str | None]:
    """The bytes of `text`, and the Content-Type that has to be told with them; None where it can stay.

    It is written in the charset that is declared, or else that of the content `before`. What can't be written so
    becomes UTF-8, and is declared.
    """
    charset = declared(content_type, before)
    codec = None if charset is None else _codec(charset)
    if charset is None and not before.isascii():
        codec = "utf-8" if _is_utf_8(before) else "latin-1"
    elif charset is None and (text.isascii() or "json" in content_type.lower()):
        codec = "utf-8"
    if codec is not None:
        try:
            return text.encode(codec, "surrogateescape" if codec == "utf-8" else "strict"), None
        except (UnicodeError, LookupError):
            pass
    return text.encode("utf-8", "surrogateescape"), with_parameter(content_type or "text/plain", "charset", "utf-8")
