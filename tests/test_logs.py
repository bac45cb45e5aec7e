"""The log: its forms, its file through rotations and failures, and what is said before it begins."""

import contextlib
import glob
import io
import json
import logging
import os
import signal
import sys
import warnings

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.logs import Appended, CannotOpenLog, LogObserver, ScriptLog, TwistdLog, log, overheard
from streamproxy.settings import LogSettings


class LogCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = os.path.abspath(self.mktemp())
        self.events: list[dict] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        before = signal.getsignal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

    def said(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def appended(self, path: str | None = None) -> Appended:
        made = Appended(path or self.path, self.clock.seconds)
        self.addCleanup(made.close)
        return made

    def content(self, path: str | None = None) -> str:
        with open(path or self.path, encoding="utf-8") as file:
            return file.read()


class FormTests(SynchronousTestCase):
    def observed(self, form: str) -> tuple[Logger, io.StringIO]:
        file = io.StringIO()
        return Logger("here", observer=LogObserver(file, form)), file

    def test_the_journals_lines_go_past_the_formatting_and_the_rest_goes_through_it(self):
        for form in ("mixed", "text"):
            logger, file = self.observed(form)
            logger.info("{what} said", what="twisted")
            logger.observer.write('{"time": 1}\n')
            first, second = file.getvalue().splitlines()
            self.assertTrue(first.endswith("[here#info] twisted said"))
            self.assertEqual(second, '{"time": 1}')

    def test_json_is_an_object_a_line_whatever_is_said(self):
        logger, file = self.observed("json")
        said = ['two\nlines "quoted" é\u2028\x1b', "{not a field}", "", "\udc80"]
        for text in said:
            logger.warn("{text}", text=text)
        lines = file.getvalue().splitlines()
        found = [json.loads(line) for line in lines]
        self.assertEqual([each["text"] for each in found], [text for text in said if text])
        self.assertEqual({(each["level"], each["from"]) for each in found}, {("warn", "here")})
        self.assertTrue(file.getvalue().isascii())
        for each in found:
            self.assertEqual(set(each), {"time", "level", "from", "text"})
            self.assertRegex(each["time"], r"\A2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z\Z")

    def test_json_has_the_traceback_beside_the_text(self):
        logger, file = self.observed("json")
        try:
            raise ValueError("wrong\nthing")
        except ValueError:
            logger.failure("it failed", Failure())
        (line,) = file.getvalue().splitlines()
        found = json.loads(line)
        self.assertEqual((found["level"], found["text"]), ("critical", "it failed"))
        self.assertIn("ValueError: wrong\nthing", found["traceback"])

    def test_an_event_that_can_not_be_formatted_is_a_line_all_the_same(self):
        class Bad:
            def __repr__(self):
                raise RuntimeError

        for form in ("mixed", "text", "json"):
            logger, file = self.observed(form)
            logger.info("{bad!r}", bad=Bad())
            self.assertIn("ormat", file.getvalue())
            if form == "json":
                json.loads(file.getvalue())

    def test_no_event_speaks_to_a_terminal(self):
        for form in ("mixed", "text", "json"):
            logger, file = self.observed(form)
            logger.info("{text}", text="\x1b[2J\rforged\x9b\u202e")
            self.assertTrue(file.getvalue().rstrip("\n").isprintable(), form)

    def test_an_event_of_several_lines_does_not_look_like_several_events(self):
        logger, file = self.observed("text")
        logger.info("one\n2026-11-21T03:35:01.642Z [here#info] forged")
        self.assertEqual(file.getvalue().splitlines()[1][:1], "\t")

    def test_text_has_the_time_that_exchanges_have(self):
        logger, file = self.observed("text")
        logger.info("x")
        self.assertRegex(file.getvalue(), r"\A[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z \[here#info\] x\n\Z")

    def test_pythons_own_logging_is_heard_with_its_level(self):
        seen: list[dict] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        mine = logging.Logger("a.script")
        mine.addHandler(ScriptLog())
        mine.warning("careful %s", "now")
        mine.critical("bad")
        self.assertEqual(
            [(each["log_level"], formatEvent(each)) for each in seen],
            [(LogLevel.warn, "a.script: careful now"), (LogLevel.error, "a.script: bad")],
        )


class FileTests(LogCase):
    def test_lines_are_appended_at_once_to_what_is_there(self):
        with open(self.path, "w") as file:
            file.write("before\n")
        self.appended().write("é\n")
        self.assertEqual(self.content(), "before\né\n")

    def test_a_file_that_is_made_is_for_its_owner_and_group(self):
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.appended()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

    def test_a_file_that_was_renamed_is_followed_by_a_new_one_within_a_second(self):
        log = self.appended()
        log.write("1\n")
        os.rename(self.path, self.path + ".1")
        self.clock.advance(0.5)
        log.write("2\n")
        self.clock.advance(0.5)
        log.write("3\n")
        self.assertEqual((self.content(self.path + ".1"), self.content()), ("1\n2\n", "3\n"))

    def test_the_path_is_not_looked_at_for_each_write(self):
        log = self.appended()
        looked = []
        real = os.stat
        self.patch(os, "stat", lambda *each, **more: looked.append(each) or real(*each, **more))
        for _ in range(100):
            log.write("x\n")
        self.assertEqual(looked, [])

    def test_a_file_that_was_copied_and_emptied_goes_on_from_its_beginning(self):
        log = self.appended()
        log.write("long before\n")
        os.truncate(self.path, 0)
        log.write("after\n")
        self.assertEqual(self.content(), "after\n")

    def test_a_signal_opens_it_anew_without_waiting_for_a_line(self):
        log = TwistdLog()
        log.settings = LogSettings("mixed", self.path)
        observer = log()
        self.addCleanup(observer.file.close)
        log.write("1\n")
        os.rename(self.path, self.path + ".1")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(self.content(), "")
        log.write("2\n")
        self.assertEqual((self.content(self.path + ".1"), self.content()), ("1\n", "2\n"))

    def test_a_signal_in_the_middle_of_a_write_waits_for_its_end(self):
        log = self.appended()
        real = os.write

        def interrupted(descriptor, data):
            if self.path not in renamed:
                os.rename(self.path, self.path + ".1")
                renamed.append(self.path)
                log.reopen()
            return real(descriptor, data[:2])

        renamed: list[str] = []
        self.patch(os, "write", interrupted)
        log.write("12345\n")
        log.write("6\n")
        self.assertEqual((self.content(self.path + ".1"), self.content()), ("12345\n", "6\n"))

    def test_one_that_can_not_be_opened_anew_stays_open_and_that_is_said_once(self):
        log = self.appended()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        for _ in range(3):
            self.clock.advance(2)
            log.write("x\n")
        self.assertEqual(self.content(self.path + ".1"), "x\nx\nx\n")
        (said,) = self.said()
        self.assertIn("can't be reopened, so what was open is written on: Is a directory", said)
        os.rmdir(self.path)
        self.clock.advance(2)
        log.write("y\n")
        self.assertEqual(self.content(), "y\n")

    def test_it_keeps_one_descriptor(self):
        log = self.appended()
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(5):
            log.reopen()
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)


class FailureTests(LogCase):
    def test_a_full_disk_stops_nothing_and_what_was_lost_is_told_when_there_is_room(self):
        log = self.appended()
        room = [3]
        real = os.write

        def full(descriptor, data):
            if not room[0]:
                raise OSError(28, "No space left on device")
            taken = min(room[0], len(data))
            room[0] -= taken
            return real(descriptor, data[:taken])

        self.patch(os, "write", full)
        log.write("first\nsecond\n")
        log.write("third\n")
        self.assertEqual((self.content(), self.said()), ("fir", []))
        room[0] = 1000
        log.write("fourth\n")
        log.write("fifth\n")
        # The cut line is ended, so that no other is part of it.
        self.assertEqual(self.content(), "fir\nfourth\nfifth\n")
        self.assertEqual(self.said(), ["3 lines of the log were lost: it couldn't be written"])

    def test_a_new_file_does_not_begin_with_the_end_of_a_line_that_was_cut_in_the_old_one(self):
        log = self.appended()
        real = os.write
        self.patch(os, "write", lambda descriptor, data: real(descriptor if len(data) == 6 else -1, data[:3]))
        log.write("first\n")
        self.patch(os, "write", real)
        os.rename(self.path, self.path + ".1")
        log.reopen()
        log.write("second\n")
        self.assertEqual((self.content(self.path + ".1"), self.content()), ("fir", "second\n"))

    def test_lines_that_are_lost_again_and_again_are_told_once_a_minute(self):
        log = self.appended()
        fails = [False]
        real = os.write

        def sometimes(descriptor, data):
            if fails[0]:
                raise OSError(28, "No space left on device")
            return real(descriptor, data)

        self.patch(os, "write", sometimes)
        for _ in range(10):
            fails[0] = True
            log.write("lost\n")
            fails[0] = False
            log.write("kept\n")
        self.assertEqual(len(self.said()), 1)
        self.clock.advance(60)
        log.write("kept\n")
        self.assertEqual(self.said()[1:], ["9 lines of the log were lost: it couldn't be written"])

    def test_a_fifo_without_a_reader_is_written_to_when_there_is_one(self):
        os.mkfifo(self.path)
        log = self.appended()
        log.write("early\n")
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.assertEqual(os.read(reader, 100), b"early\n")

    def test_a_fifo_that_nobody_empties_never_waits(self):
        os.mkfifo(self.path)
        log = self.appended()
        for _ in range(300):
            log.write("x" * 999 + "\n")
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        got = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(reader, 1 << 20):
                got += more
        log.write("after\n")
        got += os.read(reader, 1 << 20)
        self.assertTrue(got.endswith(b"\nafter\n"), got[-20:])
        self.assertIn("lines of the log were lost", self.said()[0])

    def test_a_reader_that_is_gone_stops_nothing(self):
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as out:
            self.patch(sys, "stdout", out)
            log = self.appended("-")
            os.close(reader)
            log.write("x\n")
            log.reopen()
            log.write("y\n")

    def test_twisteds_file_that_can_not_be_written_stops_nothing(self):
        class Full(io.StringIO):
            def write(self, text):
                raise OSError(28, "No space left on device")

        LogObserver(Full()).write("line\n")
        closed = io.StringIO()
        closed.close()
        LogObserver(closed).write("line\n")


class TwistdLogTests(LogCase):
    def opened(self, path: str = "", foreground: bool = True, settings: LogSettings | None = None) -> TwistdLog:
        made = TwistdLog()
        made.path, made.foreground, made.settings = path, foreground, settings or LogSettings()
        self.addCleanup(made().file.close)
        return made

    def test_in_the_foreground_the_log_is_standard_output(self):
        for path, settings in (("", LogSettings()), ("-", LogSettings()), ("", LogSettings("mixed", "-"))):
            reader, writer = os.pipe()
            with os.fdopen(writer, "w") as out, os.fdopen(reader) as got:
                self.patch(sys, "stdout", out)
                self.opened(path, True, settings).write("line\n")
                self.assertEqual(got.readline(), "line\n")

    def test_a_signal_does_nothing_to_standard_output(self):
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as out, os.fdopen(reader) as got:
            self.patch(sys, "stdout", out)
            log = self.opened()
            os.kill(os.getpid(), signal.SIGUSR1)
            log.write("line\n")
            self.assertEqual(got.readline(), "line\n")

    def test_a_daemon_logs_to_its_file_and_appends(self):
        for _ in range(2):
            log = self.opened(self.path, False)
            log.write('{"é": 1}\n')
            Logger("here", observer=log.observer).info("said")
        lines = self.content().splitlines()
        self.assertEqual((len(lines), lines[0], lines[2]), (4, '{"é": 1}', '{"é": 1}'))

    def test_what_twistd_is_told_wins_over_the_configuration(self):
        self.opened(self.path, False, LogSettings("json", self.path + ".other")).write("line\n")
        self.assertEqual(self.content(), "line\n")
        self.assertFalse(os.path.exists(self.path + ".other"))

    def test_twisteds_file_has_the_form_that_the_configuration_says(self):
        log = self.opened(self.path, False, LogSettings("json", None))
        Logger("here", observer=log.observer).info("said")
        self.assertEqual(json.loads(self.content())["text"], "said")

    def test_twisteds_file_is_rotated_by_its_size_and_only_so_many_old_ones_are_kept(self):
        path = self.path
        for number in (*range(1, 103), 200):
            with open(f"{path}.{number}", "w") as file:
                file.write(str(number))
        log = self.opened(path)
        log.observer.file.size = 99_999_999
        log.write("one\n")
        self.assertFalse(log.observer.file.size < 100)
        log.write("two\n")
        numbers = sorted(int(name.rpartition(".")[2]) for name in glob.glob(path + ".*"))
        self.assertEqual(numbers, list(range(1, 101)))
        self.assertEqual(
            (self.content(), self.content(f"{path}.1"), self.content(f"{path}.100")), ("two\n", "one\n", "99")
        )

    def test_a_signal_rotates_twisteds_file(self):
        log = self.opened(self.path)
        log.write("one\n")
        os.kill(os.getpid(), signal.SIGUSR1)
        log.write("two\n")
        self.assertEqual((self.content(), self.content(f"{self.path}.1")), ("two\n", "one\n"))
        # That is what a reload asks for, and means the configuration's file alone.
        log.reopen()
        log.write("three\n")
        self.assertEqual(self.content(), "two\nthree\n")

    def test_a_signal_that_somebody_else_takes_is_left_to_them(self):
        taken = []
        signal.signal(signal.SIGUSR1, lambda *each: taken.append(each))
        self.opened(self.path)
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(len(taken), 1)

    def test_a_daemon_has_no_standard_output_to_log_to(self):
        for path, settings in (("-", LogSettings()), ("", LogSettings("mixed", "-"))):
            log = TwistdLog()
            log.path, log.foreground, log.settings = path, False, settings
            error = self.assertRaises(CannotOpenLog, log)
            self.assertIn("standard output", str(error))

    def test_a_log_that_can_not_be_opened_is_a_clear_line(self):
        for path, settings in (("/nowhere/x", LogSettings()), ("", LogSettings("mixed", "/nowhere/x"))):
            log = TwistdLog()
            log.path, log.settings = path, settings
            error = self.assertRaises(CannotOpenLog, log)
            self.assertRegex(str(error), r"\Astreamproxy: the log can't be opened: [^\n]*: [^\n]+\Z")

    def test_twistd_is_told_unless_it_was_told_of_another_log(self):
        for options in ({"logger": "x"}, {"syslog": True}):
            before = dict(options)
            TwistdLog().use(options, LogSettings())
            self.assertEqual(options, before)
        log, options = TwistdLog(), {"logfile": "a.log", "nodaemon": 0}
        log.use(options, LogSettings("json"))
        self.assertEqual(options["logger"], "streamproxy.logs.twistd_log")
        self.assertEqual((log.path, log.foreground, log.settings.form), ("a.log", False, "json"))

    def test_without_a_log_of_ours_each_line_is_an_event(self):
        TwistdLog().write('{"a": "{b}"}\n{"c": 1}\n')
        self.assertEqual(self.said(), ['{"a": "{b}"}', '{"c": 1}'])
        self.assertEqual({event["log_level"] for event in self.events}, {LogLevel.info})


class OverheardTests(LogCase):
    def test_what_is_printed_and_warned_of_is_said_on_the_log(self):
        before = warnings.showwarning
        with overheard():
            print("printed")
            print("in error", end="", file=sys.stderr)
            warnings.showwarning("old", DeprecationWarning, "x.py", 3)
        self.assertEqual(self.said(), ["printed", "x.py:3: DeprecationWarning: old", "in error"])
        self.assertEqual([event["log_namespace"] for event in self.events], ["stdout", log.namespace, "stderr"])
        self.assertIs(warnings.showwarning, before)

    def test_where_it_fails_it_is_printed_after_all(self):
        out = io.StringIO()
        self.patch(sys, "stderr", out)
        with self.assertRaises(ValueError), overheard():
            print("printed")
            raise ValueError
        self.assertEqual(out.getvalue(), "printed\n")
