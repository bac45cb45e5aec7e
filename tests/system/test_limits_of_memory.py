"""What the process may hold in all, and how slowly a body may come (`limits.memory`, `limits.upload_rate`), in a real
daemon. The other keys of `limits` are in `test_limits.py`."""

from __future__ import annotations

import contextlib
import threading
import time

from tests.system.parts import WAIT, Client, Wire
from tests.system.test_limits import POST, LimitCase


class MemoryTests(LimitCase):
    """Two bodies that are held, of which the second would be too much for the process."""

    RULES = "rules: [{match: {method: POST}, request: {stream: false}}]"
    SIZE = 700 << 10

    def hold(self) -> Client:
        """A client whose body is held but for its last byte."""
        client = self.asked(POST % b"Content-Length: %d\r\n" % self.SIZE)
        client.send(bytes(self.SIZE - 1))
        client.wait_until_acknowledged()
        return client

    def test_what_would_have_to_be_held_past_it_is_refused_and_what_is_held_goes_on(self) -> None:
        self.start("limits.memory=1m", rules=self.RULES)
        first = self.hold()
        second = self.hold()
        head = second.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 503 "), head)
        self.assertIn(b"limits.memory", second.read_body(head))
        self.assert_logged("refused", "limits.memory")
        first.send(b"x")
        head = first.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        self.assertEqual(first.read_body(head), bytes(self.SIZE - 1) + b"x")
        # There is room again.
        third = self.hold()
        third.send(b"x")
        self.assertTrue(third.read_head().startswith(b"HTTP/1.1 200 "))

    def test_what_is_held_for_one_that_leaves_is_given_back(self) -> None:
        self.start("limits.memory=1m", rules=self.RULES)
        for _ in range(20):
            self.hold().reset()
        self.proxy.recorded(20)
        last = self.hold()
        last.send(b"x")
        self.assertTrue(last.read_head().startswith(b"HTTP/1.1 200 "))

    def test_bodies_that_stream_pass_it_by(self) -> None:
        self.start("limits.memory=1m")
        body = bytes(range(256)) * 4096 * 4
        client = Client(self, self.proxy)
        thread = threading.Thread(
            target=client.send,
            args=((POST % b"Content-Length: %d\r\n" % len(body)).replace(b"ORIGIN", self.origin.netloc.encode()), body),
        )
        thread.start()
        head = client.read_head()
        self.assertEqual(client.read_body(head), body)
        thread.join(WAIT)


class UploadRateTests(LimitCase):
    def serve(self, wire: Wire) -> None:
        # A body that is given up ends before its end.
        with contextlib.suppress(AssertionError):
            super().serve(wire)

    def upload(self, size: int, pause: float) -> Client:
        """A client that sends a body of 100 bytes, so many at a time, with so many seconds between."""
        client = self.asked(POST % b"Content-Length: 100\r\n")
        # Once it was answered nobody takes the rest.
        with contextlib.suppress(OSError):
            for _ in range(0, 100, size):
                client.send(b"x" * size)
                time.sleep(pause)
        return client

    def test_a_body_that_comes_more_slowly_is_a_408_though_it_never_stands_still(self) -> None:
        self.start("limits.upload_rate=50", "timeouts.idle=1")
        client = self.upload(1, 0.1)
        head = client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 408 "), head)
        self.assert_logged("timed-out", "too slowly")

    def test_one_that_comes_as_fast_as_that_is_served(self) -> None:
        self.start("limits.upload_rate=10", "timeouts.idle=1")
        client = self.upload(5, 0.1)
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 200 "))
