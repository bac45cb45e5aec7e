"""Calls a user's Python, and sees that a call which fails, or takes long, or never ends, harms its own flow only.

What a call costs without trouble is two looks at a clock and three attributes. The trouble is seen by a thread, the
watchdog, which sleeps while nothing is called. A call that is past its budget is logged with the place where it was
met; one that is past the most it may take is interrupted: the watchdog sends SIGALRM to the main thread, whose handler
raises `ScriptHung` in the frame that runs. So both `while True: pass` and `time.sleep(1000)` come to an end.

What can't be interrupted is C that neither returns nor looks for signals (a runaway `re` pattern, a pure C loop), and a
call in another thread than the main one. It isn't a sandbox: whoever writes a script is trusted, and errs.
"""

from __future__ import annotations

import _thread
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from time import perf_counter
from types import FrameType, TracebackType
from typing import TypeVar, TypeVarTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from streamproxy.filters.chain import FilterError

BUDGET = 0.05
MOST = 2.0
# The same thing is logged once in so many seconds.
QUIET = 10.0
MOST_KEPT = 1000
# A call that is over its time, but can't be interrupted just there, is tried again after so many seconds.
RETRY = 0.01
# So often it isn't interrupted in code of ours that it called, whose state it could leave half changed.
MOST_SPARED = 50
# Without a call for so many rounds the watchdog goes to sleep.
IDLE_ROUNDS = 20
LONGEST_WORDS = 300
# Exceptions that have causes that have causes: so many are shown.
MOST_CAUSES = 5

_HERE = (lambda: None).__code__.co_filename
_OURS = tuple(os.path.dirname(file) + os.sep for file in (os.path.dirname(_HERE), str(sys.modules["twisted"].__file__)))
_FREE = (signal.SIG_DFL, signal.SIG_IGN)
log = Logger()

Taken = TypeVarTuple("Taken")
Given = TypeVar("Given")


class ScriptError(FilterError):
    """A user's function failed: `name` says which one, `why` how."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")
        self.name = name
        self.why = why


class ScriptHung(BaseException):
    """Raised inside a call that doesn't end. No Exception, so that a script's `except Exception` lets it pass.

    A script that catches it all the same, and goes on, gets the next one as soon as it has dropped this one, which is
    behind its `except`. (A function of C: as long as one of Python's own ran, it would itself be what is interrupted.)
    """

    __del__ = functools.partial(_thread.interrupt_main, signal.SIGALRM)


class Calls:
    """All calls of users' functions. There is one for the process, for there is one SIGALRM.

    `budget` and `most` are in seconds, and may be changed at any time: a call that takes longer than `budget` is
    logged, one that takes longer than `most` is interrupted. `clock` tells when something was logged last.
    """

    __slots__ = (
        "_began",
        "_clock",
        "_handler",
        "_interrupts",
        "_logged",
        "_main",
        "_name",
        "_old_signal",
        "_parked",
        "_raised_at",
        "_spared",
        "_stopping",
        "_thread",
        "_wake",
        "budget",
        "failures",
        "most",
    )

    def __init__(self, clock: IReactorTime, budget: float = BUDGET, most: float = MOST) -> None:
        self.budget = budget
        self.most = most
        self._clock = clock
        # The call that runs, and since when (0: none does). `_began` also tells one call from another.
        self._name = ""
        self._began = 0.0
        self._logged: dict[str, float] = {}
        # Calls that failed.
        self.failures = 0
        self._main = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._parked = False
        self._stopping = False
        self._interrupts = False
        self._old_signal: object = None
        # What is called for SIGALRM: the very object, which a method isn't twice.
        self._handler: Callable[[int, FrameType | None], None] = self._interrupt
        # When a call was interrupted last, and how often the one that is over its time was spared.
        self._raised_at = 0.0
        self._spared = 0

    def run(self, name: str, function: Callable[[*Taken], Given], *args: *Taken) -> Given:
        """Call `function`; what it raises is logged, with its traceback, and comes out as a `ScriptError`."""
        try:
            return self.watch(name, function, *args)
        except ScriptError:
            raise
        except BaseException as error:
            # Once the reactor runs, a real interrupt from the keyboard is its own to see.
            if isinstance(error, KeyboardInterrupt) and self._thread is None:
                raise
            failure = self.failed(name, error)
        # Raised out here it doesn't keep the user's frames, with all that is in them, as its context.
        try:
            raise failure
        finally:
            del failure

    def watch(self, name: str, function: Callable[[*Taken], Given], *args: *Taken) -> Given:
        """Call `function` under its budget; what it raises, which may be `ScriptHung`, comes out as it is."""
        outer_name, outer_began = self._name, self._began
        began = perf_counter()
        self._name = name
        self._began = began
        if self._parked:
            self._wake.set()
        try:
            return function(*args)
        finally:
            # First of all, and with no call before it, in which a signal could come: from here on it isn't interrupted.
            own_began, self._began = self._began, 0.0
            now = perf_counter()
            took = now - own_began
            # A call in which this one was made isn't charged for it.
            self._began = outer_began + now - began if outer_began else 0.0
            self._name = outer_name
            if not outer_began and self._interrupts and signal.getsignal(signal.SIGALRM) is not self._handler:
                self._take_signal_back(name)
            if took > self.budget:
                self._took_long(name, took)

    def failed(self, name: str, error: BaseException) -> ScriptError:
        """Log what a call of `name` raised; give the error to raise for it."""
        self.failures += 1
        frames = _frames_of_user(error.__traceback__)
        where = _place(frames)
        if isinstance(error, ScriptHung):
            why = f"didn't end, and was interrupted after {self.most:g} s{where}"
        else:
            try:
                # What an exception says of itself is a user's code as well.
                text = self.watch(name, _one_line, error)
            except BaseException:
                text = ""
            why = f"raised {type(error).__name__}{': ' if text else ''}{text}{where}"
        if self._worth_logging(f"{name} {why}"):
            log.error("{name} {why}\n{frames}", name=name, why=why, frames=_words(error, frames))
        return ScriptError(name, why)

    def start(self) -> None:
        """Start to watch. Call it in the main thread, and after a daemon has forked: threads don't survive that.

        In another thread, or where SIGALRM is somebody else's, calls that don't end are logged, not interrupted.
        """
        if self._thread is not None:
            return
        self._main = threading.get_ident()
        self._interrupts = False
        if threading.current_thread() is not threading.main_thread():
            log.warn("scripts that don't end can't be interrupted: they aren't run in the main thread")
        elif signal.getsignal(signal.SIGALRM) not in _FREE:
            log.warn("scripts that don't end can't be interrupted: SIGALRM is in use")
        else:
            self._handler = self._interrupt
            self._old_signal = signal.signal(signal.SIGALRM, self._handler)
            self._interrupts = True
        self._stopping = False
        self._wake.clear()
        self._thread = threading.Thread(target=self._watch_over, name="script watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop to watch; SIGALRM is again what it was. Call it in the thread in which it was started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._wake.set()
        thread.join()
        if self._interrupts and signal.getsignal(signal.SIGALRM) is self._handler:
            # Ignored first: that drops one which is on its way, and whose default would be to end the process.
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, self._old_signal)  # type: ignore[arg-type]
        self._interrupts = False

    # What the watchdog does, in its own thread.

    def _watch_over(self) -> None:
        noted = 0.0
        idle = 0
        wait = self.budget
        while True:
            self._wake.wait(wait)
            if self._stopping:
                return
            began = self._began
            wait = self.budget
            if not began:
                idle += 1
                if idle >= IDLE_ROUNDS:
                    self._sleep_until_called()
                    idle = 0
                continue
            idle = 0
            ran = perf_counter() - began
            if ran < self.budget:
                wait = self.budget - ran + 0.001
                continue
            if began != noted:
                noted = began
                self._spared = 0
                try:
                    self._note_where(began)
                except Exception as error:
                    # It looks at what runs in another thread meanwhile. Whatever that is, the watch goes on.
                    log.warn("a call's place can't be told: {error!r}", error=error)
            if ran < self.most:
                wait = min(self.budget, self.most - ran)
            elif self._interrupts:
                # One that was interrupted has as long again to clean up behind itself.
                wait = self._raised_at + self.most - perf_counter() if self._raised_at > began else 0.0
                if wait <= 0.0 and signal.getsignal(signal.SIGALRM) is not self._handler:
                    # It would end the process, or do what the script wants.
                    if self._worth_logging("SIGALRM is gone"):
                        log.error("{name} took SIGALRM, and can't be interrupted", name=self._name)
                    wait = self.budget
                elif wait <= 0.0:
                    # Whether there is still something to interrupt is decided by `_interrupt`, in the main thread.
                    signal.pthread_kill(self._main, signal.SIGALRM)
                    wait = RETRY

    def _sleep_until_called(self) -> None:
        self._wake.clear()
        self._parked = True
        # Again: one that began before `_parked` could be seen wouldn't wake it.
        if not self._began and not self._stopping:
            self._wake.wait()
        self._parked = False
        if not self._stopping:
            self._wake.clear()

    def _note_where(self, began: float) -> None:
        """Log where the call that `began` then is, for it is past its budget."""
        name = self._name
        frame = sys._current_frames().get(self._main)
        if frame is None or not self._worth_logging(f"{name} is at"):
            return
        lines: list[tuple[FrameType, int]] = []
        while frame is not None and len(lines) < 50:
            if frame.f_code.co_filename.startswith(_OURS):
                if lines:
                    break
            else:
                lines.append((frame, frame.f_lineno))
            frame = frame.f_back
        if self._began == began and lines:
            took = 1000 * (perf_counter() - began)
            stack = traceback.StackSummary.extract(reversed(lines))
            log.warn("{name} runs for {took:.0f} ms now\n{stack}", name=name, took=took, stack="".join(stack.format()))

    # What happens in the main thread.

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        """Raise `ScriptHung` in the call that runs, if it is over its time."""
        now = perf_counter()
        if not self._began or now - self._began < self.most or frame is None:
            return
        # Where it is in `watch` itself, what was called is C.
        code = frame.f_code
        if code is not _WATCH and code.co_filename.startswith(_OURS) and self._spared < MOST_SPARED:
            self._spared += 1
            self._raised_at = 0.0
            return
        self._spared = 0
        self._raised_at = now
        raise ScriptHung

    def _take_signal_back(self, name: str) -> None:
        """A script has taken SIGALRM for itself, without which none could be interrupted."""
        signal.signal(signal.SIGALRM, self._handler)
        log.warn("{name} took SIGALRM, which ends scripts that hang; it was taken back", name=name)

    def _took_long(self, name: str, took: float) -> None:
        if self._worth_logging(f"{name} took"):
            log.warn(
                "{name} took {took:.0f} ms, budget {budget:.0f} ms",
                name=name,
                took=1000 * took,
                budget=1000 * self.budget,
            )

    def _worth_logging(self, what: str) -> bool:
        """Whether `what` wasn't logged a short while ago."""
        now = self._clock.seconds()
        if now - self._logged.get(what, -QUIET) < QUIET:
            return False
        if len(self._logged) >= MOST_KEPT:
            self._logged.clear()
        self._logged[what] = now
        return True


_WATCH = Calls.watch.__code__


def _frames_of_user(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    """The frames of a traceback with their lines, outermost first, without those by which we called the user."""
    frames = []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    first = 0
    while first < len(frames) and frames[first][0].f_code.co_filename.startswith(_OURS):
        first += 1
    # That which raises ScriptHung.
    while len(frames) > first and frames[-1][0].f_code.co_filename == _HERE:
        frames.pop()
    return frames[first:]


def _place(frames: list[tuple[FrameType, int]]) -> str:
    """Where the user's own file was left: " (line 12)"."""
    if not frames:
        return ""
    file = frames[0][0].f_code.co_filename
    return f" (line {[line for frame, line in frames if frame.f_code.co_filename == file][-1]})"


def _one_line(error: BaseException) -> str:
    """What an exception says, as one line of printable characters."""
    text = str(error)[:LONGEST_WORDS]
    return text if text.isprintable() else repr(text)


def _words(error: BaseException, frames: list[tuple[FrameType, int]]) -> str:
    """The traceback, and those of what caused the exception."""
    parts = []
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        assert cause is not None
        parts.append("".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip("\n"))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if cause is None:
            break
        parts.append(f"because of {type(cause).__name__}:")
        frames = _frames_of_user(cause.__traceback__)
    return "\n".join(parts)
