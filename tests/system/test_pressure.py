"""A side that doesn't read stops the side that sends, and nobody else."""

from __future__ import annotations

import hashlib
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import WAIT, Client, Origin, Proxy, Wire, response, settled

SIZE = 64 << 20
BLOCK = bytes(range(256)) * 256
# What the test gives each of its own sockets. The proxy's grow as the kernel likes, to several MiB.
BUFFER = 64 << 10
MOST_UNDER_WAY = 16 << 20
MOST_GROWTH = 4 << 20
LENGTH = b"Content-Length: %d" % SIZE
WHOLE = hashlib.sha256(BLOCK * (SIZE // len(BLOCK))).hexdigest()


class Sending:
    """Sends SIZE bytes in a thread, as fast as they are taken, and counts them."""

    def __init__(self, case: SynchronousTestCase, wire: Wire) -> None:
        self.sent = 0
        self._wire = wire
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        case.addCleanup(self._end)

    def _send(self) -> None:
        view = memoryview(BLOCK)
        try:
            while self.sent < SIZE:
                at = self.sent % len(BLOCK)
                self.sent += self._wire.sock.send(view[at:])
        except OSError:
            # The test is over: the count says how far it got.
            pass

    def _end(self) -> None:
        self._wire.close()
        self._thread.join(WAIT)

    def finish(self) -> None:
        self._thread.join(WAIT)


class PressureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxy = Proxy(self)
        self.origin = Origin(self, buffer=BUFFER)
        # What the proxy needs at all, it has from here on.
        for _ in range(3):
            self.assert_another_is_served()
        self.resident = self.proxy.resident()

    def assert_another_is_served(self) -> None:
        """A client with a connection of its own gets 1 MiB."""
        client = Client(self, self.proxy)
        client.get(self.origin, "/other", b"Connection: close")
        wire = self.origin.accept() if not self.idle else self.idle.pop()
        wire.read_head()
        body = BLOCK * 16
        sender = threading.Thread(target=wire.send, args=(response(body),))
        sender.start()
        self.assertEqual(client.read_body(client.read_head()), body)
        sender.join(WAIT)
        client.close()
        # It went back to the proxy's pool.
        self.idle.append(wire)

    def assert_stopped(self, sending: Sending) -> None:
        under_way = settled(lambda: sending.sent)
        self.assertGreater(under_way, 0)
        self.assertLess(under_way, MOST_UNDER_WAY)
        self.assertLess(self.proxy.resident() - self.resident, MOST_GROWTH)

    idle: list[Wire]

    def run(self, result: object) -> object:
        self.idle = []
        return super().run(result)

    def assert_hash(self, wire: Wire) -> None:
        digest = hashlib.sha256()
        left = SIZE
        while left:
            data = wire.read(min(left, 65536))
            self.assertTrue(data, f"ended {left} bytes early")
            digest.update(data)
            left -= len(data)
        self.assertEqual(digest.hexdigest(), WHOLE)

    def test_a_client_that_does_not_read_stops_its_origin(self) -> None:
        client = Client(self, self.proxy, buffer=BUFFER)
        self.idle.clear()
        client.get(self.origin)
        wire = self.origin.wires[0]
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n\r\n")
        client.read_head()
        sending = Sending(self, wire)
        self.assert_stopped(sending)
        self.assert_another_is_served()
        self.assertLess(sending.sent, MOST_UNDER_WAY)
        self.assert_hash(client)
        sending.finish()
        self.assertLess(self.proxy.resident() - self.resident, MOST_GROWTH)

    def test_an_origin_that_does_not_read_stops_its_client(self) -> None:
        client = Client(self, self.proxy, buffer=BUFFER)
        self.idle.clear()
        client.ask(b"POST", self.origin, "/", LENGTH)
        wire = self.origin.wires[0]
        wire.read_head()
        sending = Sending(self, client)
        self.assert_stopped(sending)
        self.assert_another_is_served()
        self.assertLess(sending.sent, MOST_UNDER_WAY)
        self.assert_hash(wire)
        sending.finish()
        wire.send(response(b"thanks"))
        self.assertEqual(client.read_body(client.read_head()), b"thanks")
        self.assertLess(self.proxy.resident() - self.resident, MOST_GROWTH)

    def test_a_client_that_goes_while_it_is_stopped_leaves_nothing_behind(self) -> None:
        client = Client(self, self.proxy, buffer=BUFFER)
        self.idle.clear()
        client.get(self.origin)
        wire = self.origin.wires[0]
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n\r\n")
        client.read_head()
        sending = Sending(self, wire)
        self.assert_stopped(sending)
        client.reset()
        line = self.proxy.recorded(4)[-1]
        self.assertEqual(line["outcome"], "client-gone")
        sending.finish()
        self.assertLess(sending.sent, SIZE)
        self.assert_another_is_served()


class MemoryTests(SynchronousTestCase):
    def test_memory_does_not_grow_with_what_passes(self) -> None:
        proxy = Proxy(self)
        origin = Origin(self)
        client = Client(self, proxy)
        resident: list[int] = []
        wire: Wire | None = None
        for _ in range(4):
            client.get(origin)
            wire = wire or origin.accept()
            wire.read_head()
            wire.send(b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n\r\n")
            client.read_head()
            sending = Sending(self, wire)
            left = SIZE
            while left:
                data = client.read(min(left, 1 << 20))
                self.assertTrue(data)
                left -= len(data)
            sending.finish()
            resident.append(proxy.resident())
        self.assertLess(resident[-1] - resident[0], 2 << 20, resident)
