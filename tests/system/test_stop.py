"""SIGTERM: nobody new is let in, what is under way has its time, the rest is cut; and the exit status is 0."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Client, Origin, Proxy, Wire, each_request, new_folder, response, until, want_open_files

DOWNLOADS = 200
SIZE = 64 << 10
STOPPING = "stopping: "


class StopCase(SynchronousTestCase):
    def start(self, *overrides: str) -> None:
        self.proxy = Proxy(self, "", *overrides)
        self.origin = Origin(self)

    def download(self, path: str = "/") -> tuple[Client, Wire]:
        """A download whose first half has come."""
        client = Client(self, self.proxy)
        client.get(self.origin, path)
        wire = self.origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE, bytes(SIZE // 2))
        client.read_head()
        self.assertEqual(client.read(SIZE // 2), bytes(SIZE // 2))
        return client, wire

    def terminate(self) -> None:
        """Send SIGTERM, and wait until the proxy has begun to stop."""
        before = self.proxy.output.count(STOPPING)
        self.proxy.process.send_signal(signal.SIGTERM)
        self.proxy.wait_for(lambda lines: "\n".join(lines).count(STOPPING) > before, "that it stops")

    def assert_refuses(self) -> None:
        """Nobody listens any more, or in a moment."""

        def refuses() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.proxy.port)) == errno.ECONNREFUSED

        until(refuses, "that nobody listens")


class UnixTests(SynchronousTestCase):
    def test_a_socket_and_its_lock_are_gone_with_the_process(self) -> None:
        folder = new_folder(self)
        path = folder / "socket"
        proxy = Proxy(self, "", f"listen=[tcp:0:interface=127.0.0.1, 'unix:{path}']")
        self.assertTrue(path.exists())
        self.assertEqual(proxy.stop(), 0)
        self.assertEqual(list(folder.iterdir()), [])


class StopTests(StopCase):
    def test_two_hundred_downloads_that_end_in_time_are_not_harmed(self) -> None:
        want_open_files(self, 4 * DOWNLOADS)
        self.start("timeouts.drain=25")
        downloads = [self.download(f"/{number}") for number in range(DOWNLOADS)]
        self.terminate()
        self.assert_refuses()
        half = DOWNLOADS // 2
        for at in (0, half):
            for _, wire in downloads[at : at + half]:
                wire.send(b"x" * (SIZE // 2))
            for client, _ in downloads[at : at + half]:
                self.assertEqual(client.read(SIZE // 2), b"x" * (SIZE // 2))
                client.expect_end()
            if at == 0:
                # The others hold it.
                self.assertIsNone(self.proxy.process.poll())
                self.assert_refuses()
        self.assertEqual(self.proxy.wait(), 0)
        outcomes = [line["outcome"] for line in self.proxy.journal()]
        self.assertEqual(outcomes, ["forwarded"] * DOWNLOADS)

    def test_what_is_not_over_behind_timeouts_drain_is_cut_visibly(self) -> None:
        self.start("timeouts.drain=1")
        client, _ = self.download()
        began = time.monotonic()
        self.terminate()
        self.assertLess(len(self.rest(client)), SIZE // 2)
        self.assertGreaterEqual(time.monotonic() - began, 0.9)
        self.assertEqual(self.proxy.wait(), 0)
        (line,) = self.proxy.journal()
        self.assertNotEqual(line["outcome"], "forwarded")

    def rest(self, client: Client) -> bytes:
        try:
            return client.read_to_end()
        except ConnectionResetError:
            return b""

    def test_another_signal_cuts_at_once(self) -> None:
        self.start("timeouts.drain=60")
        client, _ = self.download()
        self.terminate()
        began = time.monotonic()
        self.proxy.process.send_signal(signal.SIGTERM)
        self.assertLess(len(self.rest(client)), SIZE // 2)
        self.assertEqual(self.proxy.wait(), 0)
        self.assertLess(time.monotonic() - began, 30)

    def test_with_nothing_under_way_it_ends_at_once(self) -> None:
        self.start("timeouts.drain=60")
        origin = Origin(self, each_request(lambda asked: response(b"served")))
        idle, silent = Client(self, self.proxy), Client(self, self.proxy)
        idle.get(origin)
        self.assertEqual(idle.read_body(idle.read_head()), b"served")
        began = time.monotonic()
        self.proxy.process.send_signal(signal.SIGTERM)
        for client in (idle, silent):
            client.expect_end()
        self.assertEqual(self.proxy.wait(), 0)
        self.assertLess(time.monotonic() - began, 30)

    def test_an_upload_that_is_under_way_is_taken_to_its_end(self) -> None:
        self.start("timeouts.drain=25")
        client = Client(self, self.proxy)
        client.ask(b"POST", self.origin, "/", b"Content-Length: 10", body=b"hello")
        wire = self.origin.accept()
        wire.read_head()
        wire.expect(b"hello")
        self.terminate()
        client.send(b"again")
        wire.expect(b"again")
        wire.send(response(b"thanks"))
        self.assertEqual(client.read_body(client.read_head()), b"thanks")
        client.expect_end()
        self.assertEqual(self.proxy.wait(), 0)

    def test_a_client_that_is_told_so_asks_no_more_on_its_connection(self) -> None:
        self.start("timeouts.drain=25")
        client = Client(self, self.proxy)
        client.get(self.origin)
        wire = self.origin.accept()
        wire.read_head()
        self.terminate()
        wire.send(response(b"served"))
        head = client.read_head()
        self.assertIn(b"\r\nconnection: close\r\n", head.lower())
        self.assertEqual(client.read_body(head), b"served")
        client.expect_end()
        self.assertEqual(self.proxy.wait(), 0)


class LoadedStopTests(StopCase):
    def test_of_many_that_ask_again_and_again_none_gets_half_an_answer(self) -> None:
        self.start("timeouts.drain=25")
        body = bytes(range(256)) * 16
        origin = Origin(self, each_request(lambda asked: response(body)))
        broken: list[str] = []
        served = [0]
        lock = threading.Lock()

        def ask() -> None:
            client = Client(self, self.proxy)
            try:
                while True:
                    client.get(origin)
                    # An end instead of an answer is what a connection that was idle gets: its request is asked again.
                    if client.at_end():
                        return
                    if client.read_body(client.read_head()) != body:
                        raise AssertionError("another body")
                    with lock:
                        served[0] += 1
            except (BrokenPipeError, ConnectionResetError):
                # As above: the request crossed with the end.
                if client.sock.fileno() >= 0 and client._buffer:
                    broken.append("reset inside of an answer")
            except AssertionError as error:
                broken.append(str(error))

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(16)]
        for thread in threads:
            thread.start()
        until(lambda: served[0] > 200, "two hundred answers")
        self.proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.proxy.wait(), 0)
        for thread in threads:
            thread.join(30)
        self.assertEqual(broken, [])
