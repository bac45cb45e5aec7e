"""Clients and origins that mean ill, and more of them than is nice."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Client, Origin, Proxy, Wire, chunk, each_request, response, want_open_files


class MalformedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxy = Proxy(self)
        self.origin = Origin(self, each_request(lambda asked: response(b"smuggled? " + asked.line)))

    def heard(self, *sent: bytes) -> bytes:
        """What a client that sends this hears, to the end."""
        client = Client(self, self.proxy)
        client.send(*sent)
        return client.read_to_end()

    def assert_refused(self, status: int, *sent: bytes) -> None:
        """One answer, of this status, and the end."""
        heard = self.heard(*[part.replace(b"ORIGIN", self.origin.netloc.encode()) for part in sent])
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), (sent, heard))
        self.assertEqual(heard.count(b"HTTP/1.1 "), 1, (sent, heard))

    def test_what_is_no_request(self) -> None:
        for sent in (
            b"\x00" * 100 + b"\r\n\r\n",
            b"hello\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"GET / HTTP/1.1\r\nHost: ORIGIN\r\nConnection: close\r\n\r\n",
            b"GET http://ORIGIN/\r\n\r\n",
            b"GET http://ORIGIN/ HTTP/1.1\nHost: ORIGIN\n\n",
            b"GET  http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n\r\n",
            b"GET http://ORIGIN/\x7f HTTP/1.1\r\nHost: ORIGIN\r\n\r\n",
        ):
            self.assert_refused(400, sent)
        self.assertEqual(self.origin.wires, [])

    def test_bodies_that_could_be_read_in_two_ways(self) -> None:
        smuggled = b"GET http://ORIGIN/smuggled HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"
        for fields in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5, 6",
            b"Content-Length: +5",
            b"Content-Length: 0x5",
            b"Content-Length: 5 5",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999999999",
            b"Content-Length : 5",
            b"Content-Length:\r\n 5",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: \x0bchunked",
            b"X: 1\nTransfer-Encoding: chunked",
            b"X: 1\rTransfer-Encoding: chunked",
            b"X: \x00",
            b"Host: other.example",
        ):
            head = b"POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n" + fields + b"\r\n\r\n"
            self.assert_refused(400, head + b"0\r\n\r\n" + smuggled)
        self.assertEqual(self.origin.wires, [])

    def test_a_coding_that_is_not_known(self) -> None:
        for coding in (b"xchunked", b"gzip, chunked", b"identity", b'"chunked"'):
            self.assert_refused(
                501,
                b"POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\nTransfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n",
            )
        self.assertEqual(self.origin.wires, [])

    def test_chunks_that_are_malformed(self) -> None:
        head = b"POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\nTransfer-Encoding: chunked\r\n\r\n"
        for body in (
            b"5\nhello\n0\n\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloo\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"ffffffffffffffffff\r\nhello\r\n",
            b"5;\x00\r\nhello\r\n0\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"\r\nhello",
        ):
            self.assert_refused(400, head + body)
        self.assertEqual(self.origin.wires, [])

    def test_a_chunk_that_is_malformed_later_on_ends_the_upload_unfinished(self) -> None:
        origin = Origin(self)
        client = Client(self, self.proxy)
        client.ask(b"POST", origin, "/", b"Transfer-Encoding: chunked", body=chunk(b"hello"))
        wire = origin.accept()
        wire.read_head()
        wire.expect(chunk(b"hello"))
        client.send(b"oops\r\n0\r\n\r\n")
        self.assertTrue(client.read_to_end().startswith(b"HTTP/1.1 400 "))
        wire.expect_end()

    def test_a_head_that_is_too_large(self) -> None:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(201))
        self.assert_refused(431, b"GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\nX: ", b"y" * (128 << 10))
        self.assert_refused(431, b"GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n" + many + b"\r\n")
        self.assert_refused(414, b"GET http://ORIGIN/" + b"y" * (128 << 10))
        self.assertEqual(self.origin.wires, [])

    def test_a_request_to_the_proxy_itself_goes_nowhere(self) -> None:
        netloc = b"127.0.0.1:%d" % self.proxy.port
        heard = self.heard(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (netloc, netloc))
        self.assertTrue(heard.startswith(b"HTTP/1.1 508 "), heard)
        (line,) = self.proxy.recorded(1)
        self.assertEqual((line["status"], line["outcome"]), (508, "refused"))

    def test_a_request_that_has_been_here_is_a_loop(self) -> None:
        client = Client(self, self.proxy)
        client.get(self.origin, "/first")
        client.read_body(client.read_head())
        seen = self.origin.wires[0].heads[0]
        via = next(line for line in seen.split(b"\r\n") if line.startswith(b"Via: "))
        client.get(self.origin, "/again", b"Via: 1.0 somebody, 1.1 else (else)", via)
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 508 "))
        self.assertEqual(len(self.origin.wires[0].heads), 1)

    def test_a_request_behind_a_malformed_one_is_never_read(self) -> None:
        good = b"GET http://ORIGIN/%b HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"
        sent = (good % b"one" + b"oops\r\n\r\n" + good % b"two").replace(b"ORIGIN", self.origin.netloc.encode())
        heard = self.heard(sent)
        self.assertEqual(heard.count(b"smuggled? GET /one HTTP/1.1"), 1, heard)
        self.assertEqual(heard.count(b"HTTP/1.1 400 "), 1, heard)
        self.assertNotIn(b"/two", heard)
        self.assertEqual([head.split()[1] for wire in self.origin.wires for head in wire.heads], [b"/one"])


class MalformedResponseTests(SynchronousTestCase):
    def test_responses_that_could_be_read_in_two_ways_are_not_forwarded(self) -> None:
        proxy = Proxy(self)
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"hello\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * (128 << 10) + b"\r\n\r\n",
        ):
            origin = Origin(self, each_request(lambda asked, answer=answer: answer))
            client = Client(self, proxy)
            client.get(origin, "/", b"Connection: close")
            heard = client.read_to_end()
            self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), (answer[:200], heard))
            self.assertEqual(heard.count(b"HTTP/1.1 "), 1)
            self.assertNotIn(b"hello", heard)

    def test_what_stands_behind_a_response_answers_nobody(self) -> None:
        proxy = Proxy(self)
        forged = response(b"forged")
        origin = Origin(self, each_request(lambda asked: response(b"true") + forged))
        for _ in range(5):
            client = Client(self, proxy)
            for _ in range(2):
                client.get(origin)
                self.assertEqual(client.read_body(client.read_head()), b"true")

    def test_a_malformed_chunk_ends_the_response_visibly(self) -> None:
        proxy = Proxy(self)
        origin = Origin(self)
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"good"))
        client.read_head()
        client.expect(chunk(b"good"))
        wire.send(b"bad\n")
        client.expect_end()


class SlowTests(SynchronousTestCase):
    def test_half_a_head_and_then_nothing(self) -> None:
        proxy = Proxy(self, "", "timeouts.head=1")
        client = Client(self, proxy)
        client.send(b"GET http://a.example/ HTTP/1.1\r\nHos")
        self.assertTrue(client.read_to_end().startswith(b"HTTP/1.1 408 "))
        (line,) = proxy.recorded(1)
        self.assertEqual((line["status"], line["outcome"]), (408, "timed-out"))

    def test_a_head_that_dribbles_without_end(self) -> None:
        proxy = Proxy(self, "", "timeouts.head=1")
        client = Client(self, proxy)
        client.send(b"GET http://a.example/ HTTP/1.1\r\n")
        stop = threading.Event()

        def dribble() -> None:
            try:
                while not stop.wait(0.1):
                    client.send(b"X: y\r\n")
            except OSError:
                pass

        dribbling = threading.Thread(target=dribble, daemon=True)
        dribbling.start()
        self.addCleanup(dribbling.join, 20)
        self.addCleanup(stop.set)
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 408 "))

    def test_a_client_that_never_asks(self) -> None:
        proxy = Proxy(self, "", "timeouts.keepalive=1")
        client = Client(self, proxy)
        client.expect_end()

    def test_a_body_in_which_nothing_moves(self) -> None:
        proxy = Proxy(self, "", "timeouts.idle=1")
        origin = Origin(self)
        client = Client(self, proxy)
        client.ask(b"POST", origin, "/", b"Content-Length: 5", body=b"he")
        wire = origin.accept()
        wire.read_head()
        wire.expect(b"he")
        self.assertTrue(client.read_to_end().startswith(b"HTTP/1.1 408 "))
        wire.expect_end()

    def test_an_origin_that_never_answers(self) -> None:
        proxy = Proxy(self, "", "timeouts.idle=1")
        origin = Origin(self)
        client = Client(self, proxy)
        client.get(origin)
        origin.accept().read_head()
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 504 "))

    def test_an_origin_that_stops_inside_its_response(self) -> None:
        proxy = Proxy(self, "", "timeouts.idle=1")
        origin = Origin(self)
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        self.assertTrue(client.read_head().startswith(b"HTTP/1.1 200 "))
        self.assertEqual(client.read_to_end(), b"hello")
        (line,) = proxy.recorded(1)
        self.assertEqual(line["outcome"], "timed-out")


class ManyTests(SynchronousTestCase):
    def test_two_hundred_streams_are_all_fed(self) -> None:
        want_open_files(self, 2048)
        proxy, origin = Proxy(self), Origin(self)
        streams: list[tuple[Client, Wire]] = []
        for number in range(200):
            client = Client(self, proxy)
            client.get(origin, f"/{number}")
            wire = origin.accept()
            self.assertTrue(wire.read_head().startswith(b"GET /%d " % number))
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.read_head()
            streams.append((client, wire))
        # One that takes and sends all it can is among them.
        greedy = Client(self, proxy)
        greedy.get(origin)
        flood = origin.accept()
        flood.read_head()
        flood.send(b"HTTP/1.1 200 OK\r\n\r\n")
        greedy.read_head()
        stop = threading.Event()
        taken = [0]

        def pour() -> None:
            try:
                while not stop.is_set():
                    flood.send(bytes(65536))
            except OSError:
                pass

        def drink() -> None:
            try:
                while data := greedy.sock.recv(65536):
                    taken[0] += len(data)
            except OSError:
                pass

        threads = [threading.Thread(target=each, daemon=True) for each in (pour, drink)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(20):
                for number, (_, wire) in enumerate(streams):
                    wire.send(chunk(b"%d of %d" % (turn, number)))
                before = taken[0]
                # No stream gets its next piece before each has got this one.
                for number, (client, _) in enumerate(streams):
                    client.expect(chunk(b"%d of %d" % (turn, number)))
            self.assertGreater(before, 0)
        finally:
            stop.set()
            greedy.reset()
            flood.close()
            for thread in threads:
                thread.join(20)
        for client, wire in streams:
            wire.send(b"0\r\n\r\n")
            client.expect(b"0\r\n\r\n")

    def test_a_thousand_idle_clients_keep_nobody_waiting(self) -> None:
        want_open_files(self, 4096)
        proxy = Proxy(self)
        origin = Origin(self, each_request(lambda asked: response(asked.line)))
        clients = [Client(self, proxy) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.get(origin, f"/{number}")
            self.assertEqual(client.read_body(client.read_head()), b"GET /%d HTTP/1.1" % number)
        last = Client(self, proxy)
        last.get(origin, "/last")
        self.assertEqual(last.read_body(last.read_head()), b"GET /last HTTP/1.1")
        for client in (clients[0], clients[999]):
            client.get(origin, "/again")
            self.assertEqual(client.read_body(client.read_head()), b"GET /again HTTP/1.1")

    def test_a_client_too_many_is_told_so(self) -> None:
        proxy = Proxy(self, "", "limits.connections=2")
        origin = Origin(self, each_request(lambda asked: response(b"x")))
        clients = [Client(self, proxy) for _ in range(2)]
        for client in clients:
            client.get(origin)
            client.read_body(client.read_head())
        self.assertTrue(Client(self, proxy).read_to_end().startswith(b"HTTP/1.1 503 "))
        clients[0].get(origin)
        self.assertTrue(clients[0].read_head().startswith(b"HTTP/1.1 200 "))
