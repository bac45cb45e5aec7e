"""Bodies that dribble: each piece is through before the next is sent.

The test plays client and origin itself, in turns: a piece that the proxy kept until there was more would never
come, and the test would fail after a while.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Client, Origin, Proxy, Wire, chunk, until

PIECES = [(b"piece %d" % number).ljust(31, b".") + b"\n" for number in range(40)]


class StreamingCase(SynchronousTestCase):
    rules = ""

    def setUp(self) -> None:
        self.proxy = Proxy(self, self.rules)
        self.origin = Origin(self)
        self.client = Client(self, self.proxy)

    def begin_response(self, *fields: bytes) -> Wire:
        """Ask, and have the origin answer with a head of `fields`; the head is through when this returns."""
        self.client.get(self.origin)
        wire = self.origin.accept()
        wire.read_head()
        wire.send(b"\r\n".join([b"HTTP/1.1 200 OK", *fields]) + b"\r\n\r\n")
        head = self.client.read_head()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        return wire

    def begin_request(self, *fields: bytes) -> Wire:
        """Begin to ask, with a head of `fields`; it's through when this returns."""
        self.client.ask(b"POST", self.origin, "/", *fields)
        wire = self.origin.accept()
        self.assertTrue(wire.read_head().startswith(b"POST / HTTP/1.1\r\n"))
        return wire


class ResponseTests(StreamingCase):
    def test_a_head_goes_on_before_its_body(self) -> None:
        self.begin_response(b"Content-Length: 5")

    def test_each_chunk_goes_on_before_the_next_comes(self) -> None:
        wire = self.begin_response(b"Transfer-Encoding: chunked")
        for piece in PIECES:
            wire.send(chunk(piece))
            self.client.expect(chunk(piece))
        wire.send(b"0\r\n\r\n")
        self.client.expect(b"0\r\n\r\n")

    def test_a_chunk_goes_on_before_it_is_whole(self) -> None:
        wire = self.begin_response(b"Transfer-Encoding: chunked")
        wire.send(b"20\r\n")
        self.client.expect(b"20\r\n")
        for byte in PIECES[0]:
            wire.send(bytes([byte]))
            self.client.expect(bytes([byte]))
        wire.send(b"\r\n0\r\n\r\n")
        self.client.expect(b"\r\n0\r\n\r\n")

    def test_pieces_of_known_length_go_on_as_they_come(self) -> None:
        wire = self.begin_response(b"Content-Length: %d" % sum(map(len, PIECES)))
        for piece in PIECES:
            wire.send(piece)
            self.client.expect(piece)

    def test_pieces_until_close_go_on_as_they_come(self) -> None:
        wire = self.begin_response()
        for piece in PIECES:
            wire.send(piece)
            self.client.expect(piece)
        wire.close()
        self.client.expect_end()

    def test_a_body_until_close_that_breaks_off_does_not_end_in_order(self) -> None:
        wire = self.begin_response()
        wire.send(b"begun")
        self.client.expect(b"begun")
        wire.reset()
        self.client.expect_reset()

    def test_each_event_goes_on_before_the_next_comes(self) -> None:
        wire = self.begin_response(b"Content-Type: text/event-stream", b"Cache-Control: no-store")
        for number in range(20):
            event = b'id: %d\nevent: tick\ndata: {"n": %d}\n\n' % (number, number)
            wire.send(event)
            self.client.expect(event)

    def test_a_stream_of_events_ends_when_its_client_does(self) -> None:
        wire = self.begin_response(b"Content-Type: text/event-stream")
        wire.send(b"data: one\n\n")
        self.client.expect(b"data: one\n\n")
        self.client.close()

        # A client that is gone looks like one that has ended its own side only, until it's written to.
        def ended() -> bool:
            try:
                wire.send(b"data: another\n\n")
            except OSError:
                return True
            return False

        until(ended, "the end of the origin's connection")
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "client-gone")

    def test_a_stream_that_is_cut_because_the_proxy_ends_has_its_line_on_the_log(self) -> None:
        wire = self.begin_response(b"Content-Type: text/event-stream")
        wire.send(b"data: one\n\n")
        self.client.expect(b"data: one\n\n")
        self.proxy.stop()
        (line,) = self.proxy.journal()
        self.assertEqual(line["status"], 200)
        self.assertEqual((line["outcome"], line["error"]), ("failed", "the proxy was stopped"))


class RequestTests(StreamingCase):
    def answer(self, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertTrue(self.client.read_head().startswith(b"HTTP/1.1 204 "))

    def test_a_head_goes_on_before_its_body(self) -> None:
        self.begin_request(b"Content-Length: 5")

    def test_each_chunk_goes_on_before_the_next_comes(self) -> None:
        wire = self.begin_request(b"Transfer-Encoding: chunked")
        for piece in PIECES:
            self.client.send(chunk(piece))
            wire.expect(chunk(piece))
        self.client.send(b"0\r\n\r\n")
        wire.expect(b"0\r\n\r\n")
        self.answer(wire)

    def test_pieces_of_known_length_go_on_as_they_come(self) -> None:
        wire = self.begin_request(b"Content-Length: %d" % sum(map(len, PIECES)))
        for piece in PIECES:
            self.client.send(piece)
            wire.expect(piece)
        self.answer(wire)

    def test_both_directions_dribble_at_once(self) -> None:
        wire = self.begin_request(b"Transfer-Encoding: chunked")
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.client.read_head()
        for piece in PIECES:
            self.client.send(chunk(piece))
            wire.expect(chunk(piece))
            wire.send(chunk(piece.upper()))
            self.client.expect(chunk(piece.upper()))
        self.client.send(b"0\r\n\r\n")
        wire.expect(b"0\r\n\r\n")
        wire.send(b"0\r\n\r\n")
        self.client.expect(b"0\r\n\r\n")


class ReplacedStreamTests(StreamingCase):
    """A rule that reads a body doesn't hold back what it can't be about."""

    rules = """
        rules:
          - match: {host: 127.0.0.1}
            request: {replace: [{find: secret, with: "******"}]}
            response: {replace: [{find: secret, with: "******"}]}
    """

    def test_pieces_that_a_rule_reads_go_on_as_they_come(self) -> None:
        wire = self.begin_response(b"Transfer-Encoding: chunked")
        for piece in PIECES:
            wire.send(chunk(piece))
            self.client.expect(chunk(piece))

    def test_no_more_is_kept_than_may_be_the_beginning_of_a_find(self) -> None:
        wire = self.begin_response(b"Transfer-Encoding: chunked")
        wire.send(chunk(b"a sec"))
        self.client.expect(chunk(b"a "))
        wire.send(chunk(b"ond secre"))
        self.client.expect(chunk(b"second "))
        wire.send(chunk(b"t."))
        self.client.expect(chunk(b"******."))
        wire.send(chunk(b"sec"), b"0\r\n\r\n")
        self.client.expect(chunk(b"sec") + b"0\r\n\r\n")

    def test_an_upload_that_a_rule_reads_goes_on_as_it_comes(self) -> None:
        wire = self.begin_request(b"Transfer-Encoding: chunked")
        for piece in PIECES:
            self.client.send(chunk(piece))
            wire.expect(chunk(piece))


class LetGoTests(StreamingCase):
    """A held body of unknown length that outgrows stream_large_bodies goes on as it comes from then on."""

    rules = "{hold: always, stream_large_bodies: 1k}"

    def test_a_body_that_is_let_go_goes_on_as_it_comes(self) -> None:
        self.client.get(self.origin)
        wire = self.origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in PIECES[:32]:
            wire.send(chunk(piece))
        wire.send(chunk(PIECES[32]))
        self.client.read_head()
        self.client.expect(b"".join(map(chunk, PIECES[:33])))
        for piece in PIECES[33:]:
            wire.send(chunk(piece))
            self.client.expect(chunk(piece))
        wire.send(b"0\r\n\r\n")
        self.client.expect(b"0\r\n\r\n")
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["response"]["how"], "let go")

    def test_a_held_body_comes_whole_with_its_head(self) -> None:
        self.client.get(self.origin)
        wire = self.origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        # Another exchange of another client is through before anything of this one is.
        other = Client(self, self.proxy)
        other.get(self.origin, "/other")
        second = self.origin.accept()
        second.read_head()
        second.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        other.read_head()
        self.client.sock.setblocking(False)
        self.assertRaises(BlockingIOError, self.client.sock.recv, 1)
        self.client.sock.settimeout(60)
        wire.send(b"def")
        head = self.client.read_head()
        self.assertEqual(self.client.read_body(head), b"abcdef")


class HalfClosedTests(StreamingCase):
    def test_a_client_that_ends_its_side_gets_its_response(self) -> None:
        self.client.get(self.origin)
        self.client.half_close()
        wire = self.origin.accept()
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        self.client.read_until(b"abc")
        wire.send(b"def")
        self.client.expect(b"def")
        self.client.expect_end()

    def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        for number in range(10):
            self.client.get(self.origin, f"/{number}")
        wire = self.origin.accept()
        for number in range(10):
            self.assertTrue(wire.read_head().startswith(b"GET /%d HTTP/1.1\r\n" % number))
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            self.assertEqual(self.client.read_body(self.client.read_head()), b"%d" % number)
