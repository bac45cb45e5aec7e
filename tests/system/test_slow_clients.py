"""slowhttptest against the proxy: clients that send or read as slowly as they can, by the hundred. Others are served
all the while, and afterwards nothing of it is left.

How long the others waited is printed and not asserted. `make bench CASE=slow-clients` does it with more, for longer.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    Asked,
    Client,
    Nginx,
    Origin,
    Program,
    Proxy,
    Wire,
    each_request,
    needed,
    new_folder,
    response,
    until,
    want_open_files,
)

SLOW = 400
SECONDS = 5
MODES = {
    # Heads that never end.
    "-H": ("-i", "1", "-x", "24"),
    # Bodies that are promised and come in bits.
    "-B": ("-i", "1", "-s", "8192", "-x", "10"),
    # A range header with very many ranges.
    "-R": ("-a", "10", "-b", "3000"),
    # Answers that are read very slowly, asked for several times a connection.
    "-X": ("-w", "1", "-y", "64", "-n", "1", "-z", "32", "-k", "3"),
}


class SlowClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        needed("slowhttptest", "slowhttptest")
        want_open_files(self, 6 * SLOW)
        self.proxy = Proxy(self, "", "timeouts.head=4", "timeouts.idle=4", "timeouts.keepalive=4")
        self.origin = Origin(self, self.serve)
        self.waits: list[float] = []
        self.failure = ""
        self.assert_served()
        self.files = self.open_files()

    def serve(self, wire: Wire) -> None:
        # A slow client's body ends before its end.
        with contextlib.suppress(AssertionError):
            each_request(self.answer)(wire)

    def answer(self, asked: Asked) -> bytes:
        if asked.line.startswith(b"HEAD "):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 262144\r\n\r\n"
        return response(b"served")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.proxy.pid}/fd"))

    def assert_served(self) -> None:
        client = Client(self, self.proxy)
        client.get(self.origin, "/other", b"Connection: close")
        self.assertEqual(client.read_body(client.read_head()), b"served")
        client.close()

    def attack(self, mode: str, url: str) -> Program:
        """slowhttptest, until its time is over: the proxy is its HTTP proxy, and `url` what it asks for."""
        command = [needed("slowhttptest", "slowhttptest"), mode, "-c", str(SLOW), "-r", str(SLOW), "-l", str(SECONDS)]
        command += [*MODES[mode], "-p", "3", "-u", url, "-d", f"127.0.0.1:{self.proxy.port}"]
        return Program(self, command, new_folder(self))

    def check(self, mode: str, url: str | None = None) -> None:
        """Others are served while it goes on, on connections that they keep and on new ones."""
        attack = self.attack(mode, url or self.origin.url("/slow"))
        kept = Client(self, self.proxy)
        most_files = 0
        while attack.process.poll() is None:
            began = time.monotonic()
            self.assert_served()
            kept.get(self.origin, "/kept")
            self.assertEqual(kept.read_body(kept.read_head()), b"served")
            self.waits.append((time.monotonic() - began) / 2)
            most_files = max(most_files, self.open_files())
            time.sleep(0.02)
        self.assertEqual(attack.wait(), 0, attack.output)
        kept.close()
        # Ranges are asked for and answered at once; all others stay.
        asked = sum("/slow" in line for line in self.proxy.lines)
        self.assertGreater(asked if mode == "-R" else most_files, SLOW // 2, f"nobody was slow:\n{attack.output}")
        until(lambda: self.open_files() <= self.files + 2, "that all of them are gone")
        self.assert_served()
        median, worst = statistics.median(self.waits) * 1000, max(self.waits) * 1000
        print(f"slowhttptest {mode}: {len(self.waits)} others, median {median:.1f} ms, worst {worst:.0f} ms")

    def test_heads_that_never_end(self) -> None:
        self.check("-H")

    def test_bodies_that_never_end(self) -> None:
        self.check("-B")

    def test_heads_with_very_many_ranges(self) -> None:
        self.check("-R")

    def test_answers_that_are_read_as_slowly_as_can_be(self) -> None:
        # An origin of threads in this process would be slower than those clients.
        nginx = Nginx(self)
        (nginx.root / "slow").write_bytes(bytes(256 << 10))
        self.check("-X", nginx.url("/slow"))
