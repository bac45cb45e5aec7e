"""The log that everything goes to: where it is written and in which form, through rotations and full disks.

What is said by Twisted, by us and by scripts comes as events, and is put into words here. The lines of exchanges are
many, are made by `journal`, and are only written here. A log that can't be written stops nothing: what doesn't fit is
dropped, and told when there is room again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Protocol

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LoggingFile,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from streamproxy.journal import printable, timestamp
from streamproxy.settings import LogSettings

ROTATE_LENGTH = 100_000_000
MOST_ROTATED_FILES = 100
# A log file that is made: for its owner, and for the group of those who read logs.
MODE = 0o640
# Seconds: how often it is seen whether the path still leads to the file, and that lost lines are told.
LOOK = 1.0
TELL = 60.0
# Of what is printed while scripts are loaded, so many writes are shown if that fails.
MOST_OVERHEARD = 1000
log = Logger()


class CannotOpenLog(SystemExit):
    """A clear line, and exit status 1."""


class TextFile(Protocol):
    """What lines are written to."""

    def write(self, text: str) -> object: ...

    def flush(self) -> object: ...


class Appended:
    """Standard output ("-"), or a file by its path, that whole lines are appended to. Raises OSError where it can't be.

    The file is opened anew by `reopen`, and when at a write (once in `LOOK` seconds) its path has come to lead
    elsewhere, as after somebody renamed it. `clock` gives seconds.

    One descriptor is used for as long as it lives: the new file takes its number, in one step.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = None if path == "-" else path
        self._clock = clock
        if self._path is None:
            sys.stdout.flush()
            self._descriptor = sys.stdout.fileno()
        else:
            self._descriptor = _opened(path)
        self._looked = clock()
        self._told = -TELL
        self._lost = 0
        self._why = ""
        # The last line was cut.
        self._is_cut = False
        self._is_writing = False
        self._reopening_is_due = False
        self._was_told_of_failure = False

    def write(self, text: str) -> None:
        """Append lines. What can't be written is counted."""
        now = self._clock()
        if self._path is not None and now - self._looked >= LOOK:
            self._looked = now
            if not self._is_at_its_path():
                self.reopen()
        self._is_writing = True
        try:
            self._append(text.encode("utf-8", "backslashreplace"))
        finally:
            self._is_writing = False
        if self._reopening_is_due:
            self.reopen()
        if self._lost and not self._why and now - self._told >= TELL:
            self._told = now
            lost, self._lost = self._lost, 0
            log.warn("{lost} lines of the log were lost: it couldn't be written", lost=lost)

    def _append(self, data: bytes) -> None:
        cut = b"\n" if self._is_cut else b""
        # What comes now is no part of the line that was cut.
        data = cut + data
        view = memoryview(data)
        at = 0
        self._why = ""
        try:
            while at < len(data):
                at += os.write(self._descriptor, view[at:])
        except OSError as error:
            self._why = error.strerror or str(error)
            self._lost += data.count(b"\n", max(at, len(cut)))
            if at:
                self._is_cut = data[at - 1] != 0x0A
        else:
            self._is_cut = False

    def flush(self) -> None:
        """Nothing waits here."""

    def _is_at_its_path(self) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def reopen(self, *_signal: object) -> None:
        """Open the file at the path and go on there; if that can't be, stay with the old one, and say so once.

        A signal handler, too: it may come in the middle of a write, which then ends first.
        """
        if self._path is None:
            return
        self._reopening_is_due = self._is_writing
        if self._is_writing:
            return
        self._looked = self._clock()
        try:
            new = _opened(self._path)
        except OSError as error:
            if not self._was_told_of_failure:
                self._was_told_of_failure = True
                words = "{path} can't be reopened, so what was open is written on: {why}"
                log.error(words, path=self._path, why=error.strerror)
            return
        self._was_told_of_failure = False
        if not os.path.samestat(os.fstat(new), os.fstat(self._descriptor)):
            self._is_cut = False
        os.dup2(new, self._descriptor, inheritable=False)
        os.close(new)

    def close(self) -> None:
        """Close the file; standard output is left open."""
        if self._path is not None:
            os.close(self._descriptor)


def _opened(path: str) -> int:
    # Without waiting: a FIFO's reader may be slow, or not have come yet.
    flags = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_WRONLY | flags, MODE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    # A FIFO without a reader. It keeps what fits into it for the one to come.
    return os.open(path, os.O_RDWR | flags, MODE)


def as_mixed(event: LogEvent) -> str | None:
    """An event as Twisted writes it, without what a terminal would obey."""
    text = formatEventAsClassicLogText(event)
    return text and printable(text, "\n\t")


def as_text(event: LogEvent) -> str | None:
    """An event for people, with the same time in front as the lines of exchanges have."""
    text = formatEventAsClassicLogText(event, lambda when: timestamp(when or 0.0))
    return text and printable(text, "\n\t")


def as_json(event: LogEvent) -> str | None:
    """An event as a JSON object on one line, with its line end; None for one that says nothing."""
    text = eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
    failure = event.get("log_failure")
    if not text and failure is None:
        return None
    level = event.get("log_level") or LogLevel.info
    told = {
        "time": timestamp(event.get("log_time") or 0.0),
        "level": level.name,
        "from": str(event.get("log_namespace") or event.get("log_system") or "-"),
        "text": text,
    }
    if failure is not None:
        try:
            told["traceback"] = failure.getTraceback()
        except Exception as error:
            told["traceback"] = f"(none can be had: {error!r})"
    return json.dumps(told) + "\n"


FORMS = {"mixed": as_mixed, "text": as_text, "json": as_json}


@implementer(ILogObserver)
class LogObserver:
    """Writes events to `file` in a form of `FORMS`, and the journal's lines as they are.

    An observer of our own so that the journal's lines, which are many, go past the formatting of events. `file` may be
    Twisted's LogFile, which `rotate` closes and begins anew.
    """

    def __init__(self, file: TextFile, form: str = "mixed") -> None:
        self.file = file
        self._worded = FORMS[form]
        self._rotation_is_due = False

    def __call__(self, event: LogEvent) -> None:
        text = self._worded(event)
        if text:
            self.write(text)

    def rotate(self, *_signal: object) -> None:
        """Rotate the file before the next line. A signal handler: it may come in the middle of a write."""
        self._rotation_is_due = True

    def write(self, text: str) -> None:
        """Append `text`, which is whole lines."""
        with contextlib.suppress(OSError, ValueError):
            if self._rotation_is_due:
                self._rotation_is_due = False
                self.file.rotate()  # type: ignore[attr-defined]
            self.file.write(text)
            self.file.flush()


class TwistdLog:
    """Opens the log, in twistd's place.

    twistd takes the maker of its log as a dotted name, not as an object. So this is a module's one instance, told
    beforehand where to log: `path` is what twistd's --logfile says, which wins over `settings.path` ("" where it says
    nothing), and `foreground` whether it stays there.

    By default a daemon logs to twistd.log, like any of twistd's. That file, or --logfile's, is rotated when it has
    100,000,000 bytes. The 100 last of the old ones are kept, each renamed at a rotation. A file of the configuration's
    is rotated by others, and opened anew.
    """

    def __init__(self) -> None:
        self.path = ""
        self.foreground = True
        self.settings = LogSettings()
        self.observer: LogObserver | None = None

    def use(self, twistd: MutableMapping[str, Any], settings: LogSettings) -> None:
        """Have twistd log by this, as its options and `settings` say; unless it was told of another log."""
        if twistd.get("logger") or twistd.get("syslog"):
            return
        self.path = twistd.get("logfile") or ""
        self.foreground = bool(twistd.get("nodaemon"))
        self.settings = settings
        twistd["logger"] = f"{__name__}.twistd_log"

    def __call__(self) -> LogObserver:
        path = self.path or self.settings.path or ("-" if self.foreground else "twistd.log")
        if path == "-" and not self.foreground:
            raise CannotOpenLog("streamproxy: a daemon can't log to standard output")
        try:
            if path == "-" or (not self.path and self.settings.path is not None):
                appended = Appended(path)
                self.observer = LogObserver(appended, self.settings.form)
                on_signal: Callable[..., None] = appended.reopen
            else:
                file = LogFile.fromFullPath(path, ROTATE_LENGTH, maxRotatedFiles=MOST_ROTATED_FILES)
                self.observer = LogObserver(file, self.settings.form)
                on_signal = self.observer.rotate
        except OSError as error:
            raise CannotOpenLog(f"streamproxy: the log can't be opened: {path}: {error.strerror or error}") from None
        # Unless somebody else takes it. Left alone it would end the process, wherever that logs to.
        if not signal.getsignal(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, on_signal)
        return self.observer

    def reopen(self) -> None:
        """Open the configuration's file anew, where the log goes there."""
        if self.observer is not None and isinstance(self.observer.file, Appended):
            self.observer.file.reopen()

    def write(self, text: str) -> None:
        """Append whole lines, past the formatting of events; through Twisted's logger where the log isn't ours."""
        if self.observer is not None:
            self.observer.write(text)
        else:
            for line in text.splitlines():
                log.info("{line}", line=line)


twistd_log = TwistdLog()


class ScriptLog(logging.Handler):
    """Puts what scripts say by Python's own logging on the log."""

    def emit(self, record: logging.LogRecord) -> None:
        words = {logging.DEBUG: log.debug, logging.INFO: log.info, logging.WARNING: log.warn}
        say = words.get(record.levelno, log.error if record.levelno > logging.WARNING else log.info)
        say("{name}: {text}", name=record.name, text=self.format(record))


class _Overheard(io.TextIOBase):
    """Stands for standard output or error: what is written is an event, and kept."""

    def __init__(self, name: str, level: object, kept: deque[str]) -> None:
        self._log = LoggingFile(Logger(name), level)
        self._kept = kept
        self._is_in_line = False

    def write(self, text: str) -> int:
        self._log.write(text)
        self._kept.append(text)
        self._is_in_line = not text.endswith("\n") if text else self._is_in_line
        return len(text)

    def end(self) -> None:
        """Nothing more comes: what has no line end is a line."""
        if self._is_in_line:
            self._log.write("\n")


@contextlib.contextmanager
def overheard() -> Iterator[None]:
    """Have what is printed or warned of in here on the log, which keeps it until it begins.

    Where that raises, it may never begin: then it is printed after all, on standard error.
    """
    kept: deque[str] = deque(maxlen=MOST_OVERHEARD)
    out, err = (_Overheard(*each, kept) for each in (("stdout", LogLevel.info), ("stderr", LogLevel.error)))
    shown = warnings.showwarning
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.showwarning = _warn
            yield
        out.end()
        err.end()
    except BaseException:
        sys.stderr.write("".join(kept))
        raise
    finally:
        warnings.showwarning = shown


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """A warning of Python's, as Twisted words it."""
    words = "{filename}:{lineno}: {category}: {warning}"
    log.warn(words, filename=filename, lineno=lineno, category=category.__qualname__, warning=message)
