"""Where captured bodies go: into the flow's record, or into files below the state directory.

Files are written as the bytes come, a read at a time, to the page cache; nothing reads them here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from twisted.logger import Logger

from streamproxy.filters.tap import Budget, Captured, InMemory, Tap
from streamproxy.flow import Flow
from streamproxy.memory import Memory

log = Logger()


class InFile:
    """A file of its own, made when the first byte comes; only its owner may read it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileIO | None = None

    @property
    def path(self) -> str | None:
        return self._path

    def write(self, data: bytes) -> None:
        try:
            if self._file is None:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                made = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file = os.fdopen(made, "wb", buffering=0)
            self._write_all(self._file, data)
        except OSError as error:
            log.warn("capture: {path} can't be written: {why}", path=self._path, why=error.strerror)
            raise

    @staticmethod
    def _write_all(file: FileIO, data: bytes) -> None:
        """Write all of `data`, or raise and leave nothing of it: a disk that gets full takes a part first."""
        begin, rest = file.tell(), memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(begin)
            raise

    def content(self) -> bytes | None:
        return None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Captures:
    """Gives each captured body its taps, within bounds for the process, in bytes.

    `memory` is for what flows that are under way keep (a part of `held`, if that is given), `files` for what was
    written to `folder` since the process began. `stamp` sets the names of its files apart from those of other runs.
    """

    def __init__(
        self, memory: int, files: int, folder: Callable[[], Path], stamp: str, held: Memory | None = None
    ) -> None:
        self.memory = Budget(memory, held)
        self._files = Budget(files)
        self._folder = folder
        self._stamp = stamp

    def taps(self, limit: int, in_files: bool, flow: Flow, message: str) -> tuple[Tap, Tap]:
        """The taps for one body of `flow`, of which `limit` bytes are kept: on what comes in and on what goes out.

        `message` is "request" or "response".
        """
        budget = self._files if in_files else self.memory
        received, sent = [
            Tap(limit, budget, InFile(self._path(f"{flow.id}-{message}-{side}")) if in_files else InMemory())
            for side in ("received", "sent")
        ]
        record = flow.request if message == "request" else flow.response
        record.captured = Captured(received, sent)
        return received, sent

    def _path(self, name: str) -> str:
        return str(self._folder() / f"{self._stamp}-{name}")
