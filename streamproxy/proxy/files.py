"""Files that a rule answers with: found below the rule's folder and nowhere else."""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

INDEX = "index.html"
# Of the path that a client asks for: each name in it is looked up on the disk.
LONGEST_TAIL = 4096
MOST_NAMES = 255
# ENXIO and ENODEV: a socket, or a device that isn't there. The others say it themselves.
_MISSING = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV))


class NotServed(Exception):
    """There is nothing to serve: `status` 403, 404 or, where it might go another time, 503; and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def open_served(root: Path, tail: str | None) -> tuple[BinaryIO, int, str]:
    """Open `root`, or the file that `tail` (a percent-encoded URL path) names below it.

    Returns the file, its size in bytes and its media type. Raises `NotServed`: for a path that would lead out of
    `root`, by its words or by a symbolic link, and for what isn't a readable regular file.
    """
    names = _names(tail) if tail is not None else None
    try:
        path = root if names is None or not root.is_dir() else _below(root, names)
        # Without O_NONBLOCK opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _no_such_file()
        except BaseException:
            os.close(descriptor)
            raise
    except PermissionError:
        raise NotServed(403, "the file may not be read") from None
    except OSError as error:
        if error.errno in _MISSING:
            raise _no_such_file() from None
        raise NotServed(503, "the file can't be opened at the moment") from None
    except (ValueError, RuntimeError):
        # RuntimeError: `resolve` was led in a circle by symbolic links.
        raise _no_such_file() from None
    kind, coding = mimetypes.guess_type(path.name)
    if coding is not None or kind is None:
        kind = "application/octet-stream"
    elif kind.startswith("text/"):
        kind += "; charset=utf-8"
    return os.fdopen(descriptor, "rb"), status.st_size, kind


def _names(tail: str) -> list[str]:
    """The names that `tail` is made of; nothing on the disk is looked at."""
    if len(tail) > LONGEST_TAIL:
        raise _no_such_file()
    names = [os.fsdecode(unquote_to_bytes(name)) for name in tail.split("/") if name]
    if len(names) > MOST_NAMES:
        raise _no_such_file()
    return names


def _below(root: Path, names: list[str]) -> Path:
    """The real path of what `names` lead to, or of its index."""
    for name in names:
        if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise NotServed(403, "the path leads out of the folder")
    real = root.joinpath(*names).resolve()
    if real.is_dir():
        real = (real / INDEX).resolve()
    if not real.is_relative_to(root.resolve()):
        raise NotServed(403, "the path leads out of the folder")
    return real


def _no_such_file() -> NotServed:
    return NotServed(404, "there is no such file")
