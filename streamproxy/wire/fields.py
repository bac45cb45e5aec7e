"""Field lines read (RFC 9112 section 5): a section of them, of a head or of trailers, to `Headers`.

Each line stands by itself: nothing is folded, and what isn't a field line to the last byte is refused.
"""

from __future__ import annotations

import re
from typing import Final

from streamproxy.wire.headers import NO_HEADERS, Field, Headers, Values, as_read, put
from streamproxy.wire.message import WireError

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TOKEN = re.compile(TOKEN)
_FIELD = re.compile(TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n")
# Starting with the byte looked for, not with the look behind it, makes the search ten times as fast.
BARE_LF = re.compile(rb"\n(?<!\r\n)")
_BARE_CR = re.compile(rb"\r(?!\n)")
# What may stand in a line beside tabs. With it taken away nothing but line ends may be left.
_IN_A_LINE = bytes([code for code in range(256) if code >= 32 and code != 127])
_SPACE: Final = 32
# Names that were seen, which are few, and the same in lower case. What a peer makes up may push others out; it can't
# make this grow.
_lower: dict[bytes, bytes] = {}
MOST_NAMES = 1024
LONGEST_NAME = 64


def read_fields(section: bytes, start: int, most: int) -> Headers:
    """The field lines of `section` from `start` to its end, which is an empty line; `most` of them at the most."""
    if len(section) - start == 2 and section.endswith(b"\r\n"):
        return NO_HEADERS
    if len(section) - start < 4:
        raise WireError(_what_is_wrong(section, start))
    block = section[start:-4]
    lines = block.split(b"\r\n")
    left, ends = block.translate(None, _IN_A_LINE), b"\r\n" * (len(lines) - 1)
    tabs = left != ends
    if (tabs and left.replace(b"\t", b"") != ends) or not section.endswith(b"\r\n\r\n"):
        raise WireError(_what_is_wrong(section, start))
    known = _lower
    names: list[bytes] = []
    index: dict[bytes, Values] = {}
    for at, line in enumerate(lines):
        name, _, value = line.partition(b": ")
        lower = known.get(name)
        if lower is None or tabs or not value or value[0] == _SPACE or value[-1] == _SPACE:
            field = _read_odd_line(line)
            if field is None:
                raise WireError(_what_is_wrong(section, start))
            name, value = field
            lower = name.lower()
            lines[at] = b"%b: %b" % (name, value)
        names.append(lower)
        if lower in index:
            put(index, lower, value)
        else:
            index[lower] = value
    if len(lines) > most:
        raise WireError("too many fields", 431)
    return as_read(names, lines, index)


def _read_odd_line(line: bytes) -> Field | None:
    """The name and value of a line that isn't just a well-known name and a value; None where it's no field line."""
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        return None
    if len(name) <= LONGEST_NAME and name not in _lower:
        if len(_lower) >= MOST_NAMES:
            _lower.clear()
        _lower[name] = name.lower()
    return name, value.strip(b" \t")


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
