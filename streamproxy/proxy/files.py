"""Files that a rule answers with: found below the rule's folder and nowhere else."""

from __future__ import annotations

import mimetypes
import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

INDEX = "index.html"


class NotServed(Exception):
    """There is nothing to serve: `status` 403 or 404, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def open_served(root: Path, tail: str | None) -> tuple[BinaryIO, int, str]:
    """Open `root`, or the file that `tail` (a percent-encoded URL path) names below it.

    Returns the file, its size in bytes and its media type. Raises `NotServed`: for a path that would lead out of
    `root`, by its words or by a symbolic link, and for what isn't a readable regular file.
    """
    path = root
    if tail is not None and _is_folder(root):
        names = [os.fsdecode(unquote_to_bytes(name)) for name in tail.split("/") if name]
        for name in names:
            if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
                raise NotServed(403, "the path leads out of the folder")
        path = root.joinpath(*names)
        try:
            real = path.resolve()
            if real.is_dir():
                real = (real / INDEX).resolve()
        except (OSError, RuntimeError):
            raise NotServed(404, "there is no such file") from None
        if not real.is_relative_to(root.resolve()):
            raise NotServed(403, "the path leads out of the folder")
        path = real
    try:
        # Without O_NONBLOCK opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise NotServed(403, "the file may not be read") from None
    except (OSError, ValueError):
        raise NotServed(404, "there is no such file") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotServed(404, "there is no such file")
    kind, coding = mimetypes.guess_type(path.name)
    if coding is not None or kind is None:
        kind = "application/octet-stream"
    elif kind.startswith("text/"):
        kind += "; charset=utf-8"
    return os.fdopen(descriptor, "rb"), status.st_size, kind


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # It can't even be looked at. Opening it will say why.
        return False
