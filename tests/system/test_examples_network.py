"""The worked examples of networks and records, run: a slow host, broken downloads, stalled streams, kept uploads.

Each is run as it stands in conf/; the tests check what its comments promise. What is slow takes at least as long as its
rate says; nothing here is too slow for a busy machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.examples import Example, ExampleClient
from tests.system.parts import Asked, Origin, Wire, chunk, curl, each_request, new_folder, read_request, response

RECEIVE_ERROR = 56
EVENT = b"data: event\n\n"


class SlowHostTests(SynchronousTestCase):
    DELAY = 0.15

    def setUp(self) -> None:
        self.body = random.Random(5).randbytes(64 << 10)
        self.seen: list[Asked] = []

        def answer(asked: Asked) -> bytes:
            self.seen.append(asked)
            return response(b"thanks" if asked.body else self.body)

        self.proxy = Example(self, "slow-host", Origin(self, each_request(answer)))
        self.client = ExampleClient(self, self.proxy)

    def ask(self, method: bytes, host: str, body: bytes = b"") -> tuple[bytes, float]:
        """What is answered, and how many seconds it took."""
        begun = time.monotonic()
        fields = [b"Content-Length: %d" % len(body)] if body else []
        self.client.ask_for(method, f"http://{host}/", *fields, body=body)
        answered = self.client.read_body(self.client.read_head())
        return answered, time.monotonic() - begun

    def test_a_download_takes_as_long_as_its_rate_says(self) -> None:
        body, took = self.ask(b"GET", "slow.example")
        self.assertEqual(body, self.body)
        # The last 20 ms worth of it needn't be waited for.
        self.assertGreater(took, self.DELAY + 64 / 64 - 0.1)
        self.assertEqual(self.proxy.recorded(1)[0]["rules"][0], "weak network")

    def test_an_upload_takes_as_long_as_its_rate_says(self) -> None:
        sent = self.body[: 24 << 10]
        answered, took = self.ask(b"POST", "slow.example", sent)
        self.assertEqual((answered, self.seen[0].body), (b"thanks", sent))
        self.assertGreater(took, 2 * self.DELAY + 24 / 32 - 0.1)

    def test_no_other_host_is_slow(self) -> None:
        body, _ = self.ask(b"GET", "other.example")
        self.assertEqual(body, self.body)
        self.assertEqual(self.proxy.recorded(1)[0]["rules"], ["ours"])

    def test_a_slow_download_is_no_reason_for_others_to_wait(self) -> None:
        self.client.ask_for(b"GET", "http://slow.example/")
        other = ExampleClient(self, self.proxy)
        other.ask_for(b"GET", "http://other.example/")
        self.assertEqual(other.read_body(other.read_head()), self.body)
        self.assertEqual(self.client.read_body(self.client.read_head()), self.body)
        urls = [line["url"] for line in self.proxy.recorded(2)]
        self.assertEqual(urls, ["http://other.example/", "http://slow.example/"])


class BrokenDownloadsTests(SynchronousTestCase):
    def test_every_tenth_download_is_reset_and_the_others_are_whole(self) -> None:
        body = random.Random(9).randbytes(300 << 10)
        proxy = Example(self, "break-downloads", Origin(self, each_request(lambda asked: response(body))))
        client = ExampleClient(self, proxy)
        for number in range(1, 21):
            url = f"http://files.example/downloads/{number}"
            if number % 10:
                client.ask_for(b"GET", url)
                self.assertEqual(client.read_body(client.read_head()), body, number)
            else:
                ran = curl(self, proxy, url)
                self.assertEqual(ran.status, RECEIVE_ERROR, (number, ran.err))
                self.assertIn("reset", ran.err.lower())
                # A reset may take with it what the client hadn't read.
                self.assertLessEqual(len(ran.out), 100 << 10)
                self.assertTrue(body.startswith(ran.out))
            # What is no download doesn't count.
            client.ask_for(b"GET", "http://files.example/other")
            self.assertEqual(client.read_body(client.read_head()), body)
        lines = [line for line in proxy.recorded(40) if "/downloads/" in line["url"]]
        broken = [line for line in lines if line["outcome"] == "failed"]
        self.assertEqual([line["url"][-2:] for line in broken], ["10", "20"])
        for line in broken:
            self.assertIn("every tenth breaks", line["error"])

    def stalled(self, streams: int) -> list[int]:
        """Which of so many streams of five events stall."""

        def answer(wire: Wire) -> None:
            while read_request(wire) is not None:
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                wire.send(*[chunk(EVENT)] * 5, b"0\r\n\r\n")

        proxy = Example(self, "break-downloads", Origin(self, answer), "timeouts.idle=1")
        clients = []
        for _ in range(streams):
            client = ExampleClient(self, proxy)
            client.ask_for(b"GET", "http://api.example/stream")
            # With its head it has been decided what becomes of this stream, before the next one.
            client.read_head()
            clients.append(client)
        stalled = []
        for number, client in enumerate(clients):
            # It strikes right behind the event: the end of its chunk isn't there either.
            client.expect(chunk(EVENT) * 2 + chunk(EVENT)[:-2])
            rest = b""
            with contextlib.suppress(ConnectionResetError):
                rest = client.read(2 * len(chunk(EVENT)) + 7)
            self.assertIn(rest, (b"", b"\r\n" + chunk(EVENT) * 2 + b"0\r\n\r\n"))
            if not rest:
                stalled.append(number)
        return stalled

    def test_the_same_streams_stall_behind_their_third_event_in_each_run(self) -> None:
        stalled = self.stalled(20)
        self.assertTrue(0 < len(stalled) < 12, stalled)
        self.assertEqual(self.stalled(20), stalled)


class CapturedUploadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen: list[Asked] = []

        def answer(asked: Asked) -> bytes:
            self.seen.append(asked)
            return response(b"thanks")

        self.origin = Origin(self, each_request(answer))
        self.body = b"an apple, " * 30_000

    def upload(self, *overrides: str, arguments: tuple[str, ...] = ()) -> tuple[Example, dict]:
        """Upload the body; the proxy, and what the line on the log says of the request."""
        proxy = Example(self, "capture-uploads", self.origin, *overrides)
        path = new_folder(self) / "body"
        path.write_bytes(self.body)
        ran = curl(self, proxy, "-H", "Expect:", "-T", path, *arguments, "http://files.example/upload")
        self.assertEqual((ran.status, ran.out), (0, b"thanks"), ran.err)
        (line,) = proxy.recorded(1)
        return proxy, line["request"]

    def assert_recorded(self, recorded: dict, body: bytes, kept: int | None = None) -> None:
        """What the log says of a body is so, and its file has the first `kept` bytes of it."""
        kept = len(body) if kept is None else kept
        self.assertEqual(recorded["size"], len(body))
        self.assertEqual(recorded["sha256"], hashlib.sha256(body).hexdigest())
        self.assertEqual(recorded["kept"], kept)
        self.assertIs(recorded["cut"], kept < len(body))
        self.assertEqual(Path(recorded["file"]).read_bytes(), body[:kept])
        # Only its owner may read it.
        self.assertEqual(os.stat(recorded["file"]).st_mode & 0o077, 0)

    def test_an_upload_is_kept_as_it_came_and_as_it_went(self) -> None:
        for arguments in ((), ("-H", "Transfer-Encoding: chunked")):
            # A rule that changes what comes, so that the two aren't the same.
            ours = "rules.0.request.replace=[{find: apple, with: orange}]"
            proxy, request = self.upload(ours, arguments=arguments)
            self.assert_recorded(request["received"], self.body)
            self.assert_recorded(request["sent"], self.body.replace(b"apple", b"orange"))
            self.assertEqual(self.seen.pop().body, self.body.replace(b"apple", b"orange"))
            folder = proxy.folder / ".streamproxy" / "captures"
            self.assertEqual(len(list(folder.iterdir())), 2)
            self.assertEqual(Path(request["sent"]["file"]).parent, folder)

    def test_what_is_beyond_the_limit_is_counted_and_hashed_but_not_kept(self) -> None:
        _, request = self.upload("rules.0.request.capture.limit=100k")
        for side in ("received", "sent"):
            self.assert_recorded(request[side], self.body, 100 << 10)
        self.assertEqual(self.seen.pop().body, self.body)

    def test_all_files_together_have_a_limit(self) -> None:
        _, request = self.upload("limits.capture_files=64k")
        kept = request["received"]["kept"] + request["sent"]["kept"]
        self.assertEqual(kept, 64 << 10)
        self.assertTrue(request["received"]["cut"] and request["sent"]["cut"])
        self.assertEqual(self.seen.pop().body, self.body)

    def test_what_is_no_upload_is_not_kept(self) -> None:
        proxy = Example(self, "capture-uploads", self.origin)
        self.assertEqual(curl(self, proxy, "http://files.example/").out, b"thanks")
        self.assertNotIn("received", proxy.recorded(1)[0]["request"])
        self.assertFalse((proxy.folder / ".streamproxy" / "captures").exists())
