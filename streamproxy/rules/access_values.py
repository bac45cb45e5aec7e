"""The single values that `access`, `admin` and `log` are written in: clients, passwords, listeners, files.

As in `values`, each reader takes what stood in the YAML and gives what the program uses, or raises an error that says
what was expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from streamproxy.rules.access import Clients
from streamproxy.rules.interception import Range, destination
from streamproxy.rules.match import PatternError
from streamproxy.rules.values import expected, line, one_or_many, refused

_LARGEST_FILE = 16 << 20
# The work that a hash asks for is 2 to the power of its cost (4 to 31): at 17 it would be 10 seconds for each password.
# Of the salt's last character only two bits count, and the library takes no other.
_BCRYPT = re.compile(rb"\$2[aby]\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_TOKEN = re.compile(r"[!-~]{16,4096}")


def clients(value: Any) -> Clients:
    """Addresses and ranges of addresses."""
    ranges = []
    for index, member in enumerate(one_or_many(value)):
        try:
            read = destination(member) if isinstance(member, str) and member else None
        except PatternError:
            read = None
        if not isinstance(read, Range) or read.port is not None:
            below = (index,) if isinstance(value, list) else ()
            raise expected("an address such as 192.0.2.7, or a range such as 10.0.0.0/8", *below)
        ranges.append(read)
    return Clients(ranges)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise refused(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _LARGEST_FILE:
        raise refused(f"{path}: can't be read: is larger than {_LARGEST_FILE >> 20}m")
    return content


def htpasswd(value: Any) -> Mapping[str, bytes]:
    """The users of a password file, as `htpasswd -B` writes it, with what it has of their passwords.

    Names are in UTF-8, without control characters, which no client could send (RFC 7617 section 2).
    """
    path = line(value)
    users: dict[str, bytes] = {}
    for number, row in enumerate(_content(path).splitlines(), 1):
        row = row.strip()
        if not row or row.startswith(b"#"):
            continue
        user, colon, kept = row.partition(b":")
        if not colon or not user:
            raise refused(f"{path}:{number}: expected NAME:HASH")
        if not _BCRYPT.fullmatch(kept):
            raise refused(f"{path}:{number}: expected a bcrypt hash of cost 4 to 16, as htpasswd -B makes it")
        try:
            name = user.decode()
        except UnicodeDecodeError:
            raise refused(f"{path}:{number}: expected a name in UTF-8") from None
        if _CONTROL.search(name):
            raise refused(f"{path}:{number}: expected a name without control characters")
        if name in users:
            raise refused(f"{path}:{number}: there is a user of that name already")
        users[name] = kept
    if not users:
        raise refused(f"{path}: has no user in it")
    return users


def token(value: Any) -> str:
    """The secret in a file of its own, such as `head -c 24 /dev/urandom | base64` makes one."""
    path = line(value)
    try:
        text = _content(path).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not _TOKEN.fullmatch(text):
        raise refused(f"{path}: expected a token of 16 characters or more, without white space")
    return text


def absolute_path(value: Any) -> str:
    """A path, made absolute; - is standard output."""
    path = line(value)
    return path if path == "-" else os.path.abspath(path)


ClientList = Annotated[Clients, PlainValidator(clients)]
HtpasswdFile = Annotated[Mapping[str, bytes], PlainValidator(htpasswd)]
TokenFile = Annotated[str, PlainValidator(token)]
AbsolutePath = Annotated[str, PlainValidator(absolute_path)]
