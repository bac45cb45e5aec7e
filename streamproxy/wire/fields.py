"""Field lines read (RFC 9112 section 5): a section of them, of a head or of trailers, to `Headers`.

Each line stands by itself: nothing is folded, and what isn't a field line to the last byte is refused.
"""

from __future__ import annotations

import re

from streamproxy.wire.headers import Headers
from streamproxy.wire.message import WireError

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE = TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n"
_FIELD = re.compile(_LINE)
_SECTION = re.compile(rb"(?:" + _LINE + rb")*+\r\n")
# Starting with the byte looked for, not with the look behind it, makes the search ten times as fast.
BARE_LF = re.compile(rb"\n(?<!\r\n)")
_BARE_CR = re.compile(rb"\r(?!\n)")


def read_fields(section: bytes, start: int, most: int) -> Headers:
    """The field lines of `section` from `start` to its end, which is an empty line; `most` of them at the most."""
    if _SECTION.fullmatch(section, start) is None:
        raise WireError(_what_is_wrong(section, start))
    if section.count(b"\n", start) > most + 1:
        raise WireError("too many fields", 431)
    fields = []
    for line in section[start:-4].split(b"\r\n") if len(section) - start > 2 else ():
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    return Headers(fields)


def _what_is_wrong(section: bytes, start: int) -> str:
    """Words for what `read_fields` couldn't read."""
    block = section[start:-2]
    if BARE_LF.search(block):
        return "a line that ends with a bare LF"
    if _BARE_CR.search(block):
        return "a bare CR in a field"
    for number, line in enumerate(block.split(b"\r\n")[:-1]):
        if line[:1] in (b" ", b"\t"):
            return "a folded field line" if number else "white space before the first field"
        if _FIELD.fullmatch(line + b"\r\n"):
            continue
        name, colon, _value = line.partition(b":")
        if not colon:
            return "a field line without a colon"
        if name != name.rstrip(b" \t"):
            return "white space between a field's name and its colon"
        if not re.fullmatch(TOKEN, name):
            return "a field name with a character that may not stand there"
        return "a control character in the value of a field"
    return "the fields are malformed"
