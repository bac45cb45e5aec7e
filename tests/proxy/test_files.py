"""Files that a rule answers with: which are found, which aren't, and how they are sent."""

import errno
import os
import socket
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.files import NotServed, open_served
from tests.conversation import Stage, settings_of
from tests.fakes import LIMIT, TCP, TLS
from tests.passage import carry, read_response

PIECE = 65536
TEXT = "text/plain; charset=utf-8"


class FolderTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        top = Path(self.mktemp()).absolute()
        self.root = top / "root"
        self.root.mkdir(parents=True)
        (top / "secret.txt").write_bytes(b"secret")
        (top / "root-twin").mkdir()
        (top / "root-twin" / "secret.txt").write_bytes(b"secret")
        (self.root / "a.txt").write_bytes(b"hello")
        (self.root / "folder").mkdir()
        (self.root / "with index").mkdir()
        (self.root / "with index" / "index.html").write_bytes(b"<p>index")
        self.top = top

    def read(self, tail: str | None, root: Path | None = None) -> tuple[bytes, int, str]:
        file, size, kind = open_served(self.root if root is None else root, tail)
        with file:
            return file.read(), size, kind

    def refused(self, tail: str | None, root: Path | None = None) -> int:
        error = self.assertRaises(NotServed, self.read, tail, root)
        self.assertNotIn(str(self.top), error.why)
        return error.status

    def descriptors(self) -> list[str]:
        """What this process has open below the folder."""
        links = []
        for number in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue
        return [link for link in links if link.startswith(str(self.top))]


class FindingTests(FolderTestCase):
    def test_a_file_below_the_folder(self):
        self.assertEqual(self.read("a.txt"), (b"hello", 5, TEXT))

    def test_a_name_is_percent_decoded_once(self):
        (self.root / "å b%41.txt").write_bytes(b"odd")
        self.assertEqual(self.read("%c3%A5%20b%2541.txt")[0], b"odd")
        self.assertEqual(self.refused("%c3%A5%20bA.txt"), 404)

    def test_a_name_that_is_not_utf_8(self):
        with open(os.path.join(os.fsencode(self.root), b"\xff.txt"), "wb") as file:
            file.write(b"latin")
        self.assertEqual(self.read("%ff.txt")[0], b"latin")

    def test_no_spelling_of_dots_slashes_and_nul_leads_out(self):
        for tail in (
            "../secret.txt",
            "folder/../../secret.txt",
            "%2e%2e/secret.txt",
            ".%2E/secret.txt",
            "..%2fsecret.txt",
            "%2e%2e%2fsecret.txt",
            "folder%2f..%2f..%2fsecret.txt",
            "..%5csecret.txt",
            "..\\secret.txt",
            "%2fetc%2fpasswd",
            "a.txt%00.html",
            "%00",
            "../root-twin/secret.txt",
            "..",
            "%2e%2e",
            ".",
        ):
            self.assertEqual(self.refused(tail), 403, tail)

    def test_what_only_looks_like_a_way_out_is_a_name_within(self):
        for tail in ("%252e%252e/secret.txt", "...", "..;/secret.txt", "//etc/passwd", "/etc/passwd", "~root", "C:"):
            self.assertEqual(self.refused(tail), 404, tail)
        (self.root / "..a").write_bytes(b"dots")
        self.assertEqual(self.read("..a")[0], b"dots")

    def test_slashes_too_many_do_no_harm(self):
        self.assertEqual(self.read("//a.txt")[0], b"hello")
        self.assertEqual(self.read("with%20index//")[0], b"<p>index")

    def test_a_symbolic_link_out_is_refused(self):
        (self.root / "out.txt").symlink_to(self.top / "secret.txt")
        (self.root / "relative.txt").symlink_to("../secret.txt")
        (self.root / "twin").symlink_to(self.top / "root-twin")
        (self.root / "chain").symlink_to("out.txt")
        for tail in ("out.txt", "relative.txt", "twin/secret.txt", "chain"):
            self.assertEqual(self.refused(tail), 403, tail)

    def test_an_index_that_links_out_is_refused(self):
        (self.root / "folder" / "index.html").symlink_to(self.top / "secret.txt")
        self.assertEqual(self.refused("folder"), 403)

    def test_a_symbolic_link_within_is_followed(self):
        (self.root / "in.html").symlink_to("with index/index.html")
        (self.root / "by-folder").symlink_to(self.root / "with index")
        self.assertEqual(self.read("in.html")[0], b"<p>index")
        self.assertEqual(self.read("by-folder")[0], b"<p>index")

    def test_the_folder_itself_may_be_a_symbolic_link(self):
        link = self.top / "link"
        link.symlink_to(self.root)
        self.assertEqual(self.read("a.txt", link)[0], b"hello")
        self.assertEqual(self.refused("../secret.txt", link), 403)

    def test_links_in_a_circle_and_links_to_nowhere_are_not_there(self):
        (self.root / "round").symlink_to("about")
        (self.root / "about").symlink_to("round")
        (self.root / "nowhere").symlink_to("missing")
        for tail in ("round", "nowhere"):
            self.assertEqual(self.refused(tail), 404, tail)

    def test_a_folder_shows_its_index_or_nothing(self):
        for tail in ("with%20index", "with%20index/"):
            self.assertEqual(self.read(tail), (b"<p>index", 8, "text/html; charset=utf-8"))
        for tail in ("folder", "folder/", ""):
            self.assertEqual(self.refused(tail), 404, tail)
        (self.root / "index.html").write_bytes(b"top")
        self.assertEqual(self.read("")[0], b"top")

    def test_what_is_missing_or_too_long_or_below_a_file_is_not_there(self):
        for tail in ("missing", "folder/missing", "a.txt/more", "x" * 5000, "x/" * 3000):
            self.assertEqual(self.refused(tail), 404, tail[:20])

    def test_a_pipe_a_socket_and_a_device_are_not_served_and_nobody_waits_for_them(self):
        os.mkfifo(self.root / "pipe")
        self.assertEqual(self.refused("pipe"), 404)
        self.assertEqual(self.refused(None, self.root / "pipe"), 404)
        self.assertEqual(self.refused(None, Path("/dev/null")), 404)
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        here = os.getcwd()
        os.chdir(self.root)  # a socket's path may be no longer than 107 bytes
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        self.assertEqual(self.refused("socket"), 404)
        self.assertEqual(self.refused(None, self.root), 404)

    def test_nothing_stays_open_for_what_is_not_served(self):
        os.mkfifo(self.root / "pipe")
        for tail in ("pipe", "folder", "missing"):
            self.refused(tail)
        self.assertEqual(self.descriptors(), [])

    def test_what_may_not_be_read_is_forbidden(self):
        if os.getuid() == 0:
            # The superuser may read anything; the error that others get is put in its place.
            def refuse(*_):
                raise PermissionError(13, "Permission denied")

            self.patch(os, "open", refuse)
        else:
            (self.root / "a.txt").chmod(0)
            self.addCleanup((self.root / "a.txt").chmod, stat.S_IRUSR)
        self.assertEqual(self.refused("a.txt"), 403)

    def test_a_root_that_may_not_be_looked_at_is_not_served(self):
        def refuse(_path):
            raise PermissionError(13, "Permission denied")

        self.patch(Path, "is_dir", refuse)
        self.assertEqual(self.refused("a.txt"), 403)

    def test_what_may_not_be_looked_into_is_forbidden(self):
        def refuse(_path):
            if _path == self.root:
                return True
            raise PermissionError(13, "Permission denied")

        self.patch(Path, "is_dir", refuse)
        self.assertEqual(self.refused("folder/a.txt"), 403)

    def test_what_only_can_t_be_opened_now_isn_t_said_to_be_missing(self):
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
            for where, name in ((os, "open"), (os, "fstat"), (Path, "is_dir")):

                def fail(*_, number=number):
                    raise OSError(number, os.strerror(number))

                patch = self.patch(where, name, fail)
                error = self.assertRaises(NotServed, open_served, self.root, "a.txt")
                patch.restore()
                self.assertEqual((error.status, error.why), (503, "the file can't be opened at the moment"), name)
        self.assertEqual(self.descriptors(), [])

    def test_a_long_path_is_refused_without_a_look_at_the_disk(self):
        deep = self.root.joinpath(*["d"] * 254)
        deep.mkdir(parents=True)
        (deep / "a.txt").write_bytes(b"deep")
        self.assertEqual(self.read("d/" * 254 + "a.txt")[0], b"deep")
        self.assertEqual(self.read("d/" * 254 + "/" * (4096 - 254 * 2 - 5) + "a.txt")[0], b"deep")

        def look(*_, **__):
            raise AssertionError("the disk is looked at")

        for name in ("stat", "lstat", "open"):
            self.patch(os, name, look)
        for tail in ("a/" * 32_000, "a/" * 255 + "a", "x" * 4097, "/" * 4097, "%2e%2e/" * 32_000):
            self.assertEqual(self.refused(tail), 404, tail[:20])

    def test_a_rule_for_one_file_serves_it_whatever_the_tail(self):
        self.assertEqual(self.read(None, self.root / "a.txt")[0], b"hello")


class KindTests(FolderTestCase):
    def kind(self, name: str) -> str:
        (self.root / name).write_bytes(b"")
        file, _, kind = open_served(self.root / name, None)
        file.close()
        return kind

    def test_kinds_by_ending(self):
        self.assertEqual(self.kind("a.html"), "text/html; charset=utf-8")
        self.assertEqual(self.kind("a.png"), "image/png")
        self.assertEqual(self.kind("a.unheard-of"), "application/octet-stream")
        self.assertEqual(self.kind("none"), "application/octet-stream")

    def test_a_compressed_file_is_not_said_to_be_what_is_in_it(self):
        self.assertEqual(self.kind("a.html.gz"), "application/octet-stream")


class AnsweringTestCase(FolderTestCase):
    def settings(self, path: Path | None = None):
        file = self.root if path is None else path
        return settings_of(f"rules:\n  - {{match: {{path: '/s/*'}}, respond: {{file: '{file}'}}}}\n")


class AnsweringTests(AnsweringTestCase):
    def asked(self, tail: str, method: bytes = b"GET"):
        request = (
            method + b" http://a.example/s/" + tail.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        )
        return carry(self.settings(), [request])

    def test_get(self):
        passed = self.asked("a.txt")
        message = read_response(passed.client_heard)
        self.assertEqual((message.start, message.body), (200, b"hello"))
        self.assertEqual(message.values(b"content-type"), [TEXT.encode()])
        self.assertEqual(
            (passed.flow.outcome, passed.flow.response.how, passed.flow.response.size), ("answered", "streamed", 5)
        )

    def test_head_says_the_same_and_leaves_no_file_open(self):
        passed = self.asked("a.txt", b"HEAD")
        message = read_response(passed.client_heard, method=b"HEAD")
        self.assertEqual((message.start, message.values(b"content-length"), message.body), (200, [b"5"], b""))
        self.assertEqual(self.descriptors(), [])

    def test_an_empty_file(self):
        (self.root / "empty.txt").write_bytes(b"")
        message = read_response(self.asked("empty.txt").client_heard)
        self.assertEqual((message.start, message.values(b"content-length")), (200, [b"0"]))

    def test_other_methods_are_told_which_there_are(self):
        for method in (b"POST", b"PUT", b"DELETE", b"get"):
            message = read_response(self.asked("a.txt", method).client_heard)
            self.assertEqual((message.start, message.values(b"allow")), (405, [b"GET, HEAD"]), method)

    def test_a_way_out_is_forbidden_however_the_client_writes_it(self):
        for tail in (
            "../secret.txt",
            "%2e%2e/secret.txt",
            "..%2fsecret.txt",
            "x/%2e%2e/%2e%2e/secret.txt",
            "..%5csecret.txt",
        ):
            passed = self.asked(tail)
            self.assertNotIn(b"secret", passed.client_heard.partition(b"\r\n\r\n")[2])
            if passed.flow.outcome == "answered":
                self.assertIn(read_response(passed.client_heard).start, (403, 404), tail)
            else:
                # The path isn't below /s/ at all, and goes to the origin like any other.
                self.assertEqual(passed.origins, 1, tail)

    def test_what_is_missing_is_told_in_words(self):
        message = read_response(self.asked("missing").client_heard)
        self.assertEqual((message.start, message.body), (404, b"404 Not Found: there is no such file\n"))

    def test_what_can_t_be_opened_now_is_told_in_words(self):
        opens = os.open

        def fail(path, *more, **named):
            if str(path).endswith("a.txt"):
                raise OSError(errno.EMFILE, "Too many open files")
            return opens(path, *more, **named)

        self.patch(os, "open", fail)
        message = read_response(self.asked("a.txt").client_heard)
        words = b"503 Service Unavailable: the file can't be opened at the moment\n"
        self.assertEqual((message.start, message.body), (503, words))


class SendingTests(AnsweringTestCase):
    """A large file, and a client that reads at its own pace."""

    SIZE = 50 * PIECE + 1

    def setUp(self) -> None:
        super().setUp()
        with open(self.root / "big.bin", "wb") as file:
            for number in range(51):
                file.write(bytes([number]) * PIECE)
            file.truncate(self.SIZE)

    def stage(self, manner: str = TCP):
        stage = Stage(self.settings(), manner)
        client = stage.client()
        client.say(b"GET http://a.example/s/big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        stage.turn()
        return stage, client

    def position(self) -> int:
        """How far the file has been read."""
        for number in os.listdir("/proc/self/fdinfo"):
            try:
                if os.readlink(f"/proc/self/fd/{number}") == str(self.root / "big.bin"):
                    return int(Path(f"/proc/self/fdinfo/{number}").read_text().split()[1])
            except OSError:
                continue
        self.fail("the file isn't open")

    def test_it_is_read_no_further_than_the_client_reads(self):
        for manner in (TCP, TLS):
            stage, client = self.stage(manner)
            for _ in range(20):
                stage.turn()
            at_rest = self.position()
            self.assertLessEqual(at_rest, LIMIT + 2 * PIECE)
            self.assertLessEqual(len(client.buffer), LIMIT + 4096)
            for _ in range(10):
                client.take(PIECE)
                stage.turn()
            self.assertLessEqual(self.position(), at_rest + 11 * PIECE)
            self.assertGreaterEqual(self.position(), at_rest + 4 * PIECE)
            client.reset()

    def test_it_arrives_whole_at_any_pace(self):
        for manner in (TCP, TLS):
            for most in (None, 10_000):
                stage, client = self.stage(manner)
                for _ in range(2000):
                    if not client.take(most) and not client.buffer:
                        break
                    stage.turn()
                body = bytes(client.heard).partition(b"\r\n\r\n")[2]
                self.assertEqual(body, (self.root / "big.bin").read_bytes())
                self.assertEqual([flow.outcome for flow in stage.journal.flows], ["answered"])
                self.assertEqual(self.descriptors(), [])
                self.assertFalse(client.disconnected)

    def test_other_clients_get_their_turn_between_its_pieces(self):
        stage, client = self.stage()
        client.take()
        stage.clock.advance(0)
        other = stage.client()
        other.say(b"GET http://a.example/s/a.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        stage.turn()
        self.assertTrue(other.take().endswith(b"hello"))
        self.assertLess(len(client.heard), self.SIZE)

    def test_a_file_that_shrinks_while_it_is_sent_looks_cut(self):
        stage, client = self.stage()
        os.truncate(self.root / "big.bin", 3 * PIECE)
        stage.settle(client)
        self.assertTrue(client.disconnected)
        self.assertLess(len(client.heard), 5 * PIECE)
        (flow,) = stage.journal.flows
        self.assertEqual((flow.outcome, flow.error), ("failed", "the file became shorter while it was sent"))
        self.assertEqual(self.descriptors(), [])

    def test_a_file_that_grows_while_it_is_sent_ends_where_it_was_said_to(self):
        stage, client = self.stage()
        with open(self.root / "big.bin", "ab") as file:
            file.write(b"more" * PIECE)
        stage.settle(client)
        self.assertEqual(len(bytes(client.heard).partition(b"\r\n\r\n")[2]), self.SIZE)
        self.assertFalse(client.disconnected)

    def test_a_client_that_goes_leaves_no_file_open(self):
        stage, client = self.stage()
        client.take()
        self.assertNotEqual(self.descriptors(), [])
        client.reset()
        stage.turn()
        self.assertEqual(self.descriptors(), [])
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["client-gone"])
        self.assertEqual([call for call in stage.clock.getDelayedCalls() if call.func != stage.journal.flush], [])

    def test_a_client_that_stops_reading_is_given_up_after_the_idle_time(self):
        stage, client = self.stage()
        stage.turn()
        for _ in range(4):
            stage.clock.advance(stage.settings.timeouts.idle / 2 + 1)
        self.assertTrue(client.aborted)
        self.assertEqual([flow.outcome for flow in stage.journal.flows], ["timed-out"])
        self.assertEqual(self.descriptors(), [])
