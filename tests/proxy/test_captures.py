"""Captured bodies in files and in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import FileIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.flow import Flow
from streamproxy.proxy.captures import Captures, InFile


class OnSmallDisk(FileIO):
    """A file on a disk with room for 5 bytes: a write that doesn't fit takes what there is, and the next nothing."""

    def __init__(self, descriptor: int, mode: str, buffering: int) -> None:
        super().__init__(descriptor, mode)

    def write(self, data: memoryview) -> int:
        room = 5 - self.tell()
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


class InFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "captures"
        self.path = self.folder / "one"

    def test_nothing_is_made_before_the_first_byte(self) -> None:
        kept = InFile(str(self.path))
        kept.close()
        self.assertFalse(self.folder.exists())
        self.assertEqual(kept.path, str(self.path))

    def test_what_is_written_is_in_the_file_at_once(self) -> None:
        kept = InFile(str(self.path))
        for data, there in ((b"abc", b"abc"), (b"def", b"abcdef")):
            kept.write(data)
            self.assertEqual(self.path.read_bytes(), there)
        kept.close()
        self.assertIsNone(kept.content())

    def test_none_but_its_owner_may_read_it(self) -> None:
        kept = InFile(str(self.path))
        kept.write(b"abc")
        kept.close()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_no_file_is_overwritten_and_no_link_followed(self) -> None:
        self.folder.mkdir(parents=True)
        victim = self.folder / "victim"
        self.path.symlink_to(victim)
        self.assertRaises(FileExistsError, InFile(str(self.path)).write, b"abc")
        self.assertFalse(victim.exists())
        victim.write_bytes(b"old")
        self.assertRaises(FileExistsError, InFile(str(victim)).write, b"abc")
        self.assertEqual(victim.read_bytes(), b"old")

    def test_a_disk_that_gets_full_keeps_whole_writes_only(self) -> None:
        self.patch(os, "fdopen", OnSmallDisk)
        kept = InFile(str(self.path))
        self.addCleanup(kept.close)
        kept.write(b"abc")
        self.assertRaises(OSError, kept.write, b"defg")
        self.assertEqual(self.path.read_bytes(), b"abc")

    def test_closing_it_twice_is_no_harm(self) -> None:
        kept = InFile(str(self.path))
        kept.write(b"abc")
        kept.close()
        kept.close()


class CapturesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "captures"
        self.flow = Flow("f1", 0.0, "192.0.2.1")

    def captures(self, memory: int = 100, files: int = 100) -> Captures:
        return Captures(memory, files, lambda: self.folder, "run")

    def test_what_comes_in_and_what_goes_out_are_in_files_of_their_own(self) -> None:
        captures = self.captures()
        for message, record in (("request", self.flow.request), ("response", self.flow.response)):
            received, sent = captures.taps(50, True, self.flow, message)
            received.take(b"came")
            sent.take(b"went")
            received.end()
            sent.end()
            record.end_capture()
            came, went = record.recorded
            self.assertEqual((came.size, came.kept, came.cut, came.content), (4, 4, False, None))
            self.assertEqual(came.sha256, hashlib.sha256(b"came").hexdigest())
            self.assertEqual(came.path, str(self.folder / f"run-f1-{message}-received"))
            self.assertEqual(Path(came.path).read_bytes(), b"came")
            self.assertEqual(went.path, str(self.folder / f"run-f1-{message}-sent"))
            self.assertEqual(Path(went.path).read_bytes(), b"went")
        self.assertEqual(len(os.listdir(self.folder)), 4)

    def test_a_body_without_bytes_has_no_file(self) -> None:
        received, sent = self.captures().taps(50, True, self.flow, "request")
        received.end()
        sent.end()
        self.flow.request.end_capture()
        self.assertFalse(self.folder.exists())

    def test_files_are_bounded_for_all_and_that_is_not_given_back(self) -> None:
        captures = self.captures(files=10)
        for number, kept in enumerate((8, 2, 0)):
            flow = Flow(f"f{number}", 0.0, "192.0.2.1")
            received, _ = captures.taps(8, True, flow, "response")
            received.take(bytes(20))
            received.end()
            flow.response.end_capture()
            came, _ = flow.response.recorded
            self.assertEqual((came.size, came.kept, came.cut), (20, kept, True))
        self.assertEqual(sum(each.stat().st_size for each in self.folder.iterdir()), 10)

    def test_memory_is_bounded_for_all_that_are_under_way(self) -> None:
        captures = self.captures(memory=10)
        flows = [Flow(f"f{number}", 0.0, "192.0.2.1") for number in range(3)]
        for flow in flows:
            received, _ = captures.taps(8, False, flow, "request")
            received.take(bytes(20))
        self.assertEqual([flow.request.captured.received.kept for flow in flows], [8, 2, 0])
        flows[0].request.end_capture()
        flow = Flow("f4", 0.0, "192.0.2.1")
        received, _ = captures.taps(8, False, flow, "request")
        received.take(bytes(20))
        self.assertEqual(flow.request.captured.received.kept, 8)

    def test_what_is_kept_with_the_flow_is_there_while_it_goes_and_afterwards(self) -> None:
        received, sent = self.captures().taps(3, False, self.flow, "response")
        received.take(b"abcd")
        sent.take(b"AB")
        captured = self.flow.response.captured
        self.assertEqual((captured.received.content, captured.sent.content), (b"abc", b"AB"))
        self.flow.response.end_capture()
        came, went = self.flow.response.recorded
        self.assertEqual((came.content, came.path, went.content), (b"abc", None, b"AB"))
        self.assertIsNone(self.flow.response.captured)
        self.assertFalse(self.folder.exists())

    def test_the_end_of_a_capture_counts_once(self) -> None:
        captures = self.captures(memory=10)
        for _ in range(3):
            received, _ = captures.taps(10, False, self.flow, "request")
            received.take(bytes(10))
            self.assertEqual(self.flow.request.captured.received.kept, 10)
            for _ in range(2):
                self.flow.request.end_capture()

    def test_a_folder_that_can_not_be_made_cuts_the_record_and_says_why(self) -> None:
        self.folder.parent.mkdir(parents=True)
        self.folder.write_bytes(b"a file")
        received, _ = self.captures().taps(50, True, self.flow, "request")
        received.take(b"abc")
        received.take(b"def")
        received.end()
        self.flow.request.end_capture()
        came, _ = self.flow.request.recorded
        self.assertEqual((came.size, came.kept, came.cut), (6, 0, True))
        self.assertEqual(came.sha256, hashlib.sha256(b"abcdef").hexdigest())

    def test_a_full_disk_takes_back_what_was_granted(self) -> None:
        captures = self.captures(files=100)
        fdopen = os.fdopen
        self.patch(os, "fdopen", OnSmallDisk)
        received, _ = captures.taps(50, True, self.flow, "request")
        received.take(b"abc")
        received.take(b"defg")
        self.flow.request.end_capture()
        came, _ = self.flow.request.recorded
        self.assertEqual((came.size, came.kept, Path(came.path).read_bytes()), (7, 3, b"abc"))
        self.patch(os, "fdopen", fdopen)
        other = Flow("f2", 0.0, "192.0.2.1")
        received, _ = captures.taps(500, True, other, "request")
        received.take(bytes(500))
        self.assertEqual(other.request.captured.received.kept, 97)
        other.request.end_capture()
