"""The proxy's own responses, and what is decided about them from a request's head."""

from pathlib import Path

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import answers
from streamproxy.proxy.answers import expects_continue, explain, prepare, to_last_hop, why_not_connected
from streamproxy.proxy.route import direct
from streamproxy.rules.verdict import Answer
from streamproxy.tls.reasons import HandshakeFailed
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import NO_BODY, Origin, RequestHead

DATE = b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


def head(method: bytes = b"GET", *fields: tuple[bytes, bytes], version=(1, 1)) -> RequestHead:
    return RequestHead(method, b"http://a.example/x", version, Headers(fields), NO_BODY)


class PrepareTests(SynchronousTestCase):
    def prepare(self, answer: Answer, method: bytes = b"GET", close: bool = False):
        return prepare(answer, method, close, 1.5)

    def test_a_body(self):
        prepared = self.prepare(Answer(200, ((b"X", b"1"),), b"hello"))
        self.assertEqual(prepared.head, b"HTTP/1.1 200 OK\r\n" + DATE + b"X: 1\r\nContent-Length: 5\r\n\r\n")
        self.assertEqual((prepared.status, prepared.body, prepared.file), (200, b"hello", None))

    def test_the_last_on_a_connection_says_so(self):
        self.assertTrue(
            self.prepare(Answer(200), close=True).head.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        )

    def test_head_has_the_length_and_not_the_body(self):
        prepared = self.prepare(Answer(200, (), b"hello"), b"HEAD")
        self.assertIn(b"Content-Length: 5\r\n", prepared.head)
        self.assertEqual(prepared.body, b"")

    def test_204_and_304_have_neither(self):
        for status in (204, 304):
            prepared = self.prepare(Answer(status, (), b"hello"))
            self.assertNotIn(b"Content-Length", prepared.head)
            self.assertEqual(prepared.body, b"")

    def test_a_file_is_left_to_be_read(self):
        path = Path(self.mktemp() + ".html")
        path.write_bytes(b"hello")
        prepared = self.prepare(Answer(200, ((b"X", b"1"),), file=path))
        with prepared.file as file:
            self.assertEqual(file.read(), b"hello")
        self.assertEqual((prepared.length, prepared.body), (5, b""))
        self.assertEqual(
            prepared.head,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
            + DATE
            + b"X: 1\r\nContent-Length: 5\r\n\r\n",
        )

    def test_a_rules_own_content_type_and_status_go_with_its_file(self):
        path = Path(self.mktemp())
        path.write_bytes(b"hello")
        prepared = self.prepare(Answer(404, ((b"content-type", b"a/b"),), file=path))
        prepared.file.close()
        self.assertEqual(
            prepared.head, b"HTTP/1.1 404 Not Found\r\n" + DATE + b"content-type: a/b\r\nContent-Length: 5\r\n\r\n"
        )

    def test_a_file_that_is_not_sent_is_closed(self):
        path = Path(self.mktemp())
        path.write_bytes(b"hello")
        opened = []
        real = answers.open_served

        def open_served(root, tail):
            found = real(root, tail)
            opened.append(found[0])
            return found

        self.patch(answers, "open_served", open_served)
        for method, status in ((b"HEAD", 200), (b"GET", 304)):
            self.assertIsNone(self.prepare(Answer(status, file=path), method).file)
        self.assertEqual([file.closed for file in opened], [True, True])

    def test_a_file_that_is_not_there_is_explained(self):
        prepared = self.prepare(Answer(200, ((b"X", b"1"),), file=Path(self.mktemp())))
        self.assertEqual((prepared.status, prepared.body), (404, b"404 Not Found: there is no such file\n"))
        self.assertNotIn(b"X: 1", prepared.head)

    def test_a_file_is_not_posted_to(self):
        prepared = self.prepare(Answer(200, file=Path("/")), b"POST")
        self.assertEqual(prepared.status, 405)
        self.assertIn(b"Allow: GET, HEAD\r\n", prepared.head)

    def test_an_explanation_is_plain_text_that_no_browser_takes_for_anything_else(self):
        prepared = self.prepare(explain(502, "<script>"))
        self.assertEqual(prepared.body, b"502 Bad Gateway: <script>\n")
        self.assertIn(b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n", prepared.head)


class LastHopTests(SynchronousTestCase):
    NONE_LEFT = (b"Max-Forwards", b"0")

    def test_options(self):
        answer = to_last_hop(head(b"OPTIONS", self.NONE_LEFT))
        self.assertEqual((answer.status, answer.headers[0][0], answer.body), (200, b"Allow", b""))

    def test_trace_shows_the_request_but_no_secrets(self):
        secrets = [(name, b"hush") for name in (b"Authorization", b"cookie", b"Proxy-Authorization")]
        answer = to_last_hop(head(b"TRACE", (b"X", b"1"), *secrets, self.NONE_LEFT))
        self.assertEqual(answer.headers[0], (b"Content-Type", b"message/http"))
        self.assertEqual(answer.body, b"TRACE http://a.example/x HTTP/1.1\r\nX: 1\r\nMax-Forwards: 0\r\n\r\n")

    def test_nothing_left_however_it_is_written(self):
        for values in ([b"0"], [b"00"], [b"0", b"0"], [b"3", b"0"]):
            fields = [(b"Max-Forwards", value) for value in values]
            self.assertIsNotNone(to_last_hop(head(b"OPTIONS", *fields)), values)

    def test_others_go_on(self):
        for value in (b"1", b"10", b"", b"x", b"-0"):
            self.assertIsNone(to_last_hop(head(b"OPTIONS", (b"Max-Forwards", value))), value)
        self.assertIsNone(to_last_hop(head(b"OPTIONS")))
        self.assertIsNone(to_last_hop(head(b"GET", self.NONE_LEFT)))


class ExpectTests(SynchronousTestCase):
    def test_who_waits_to_be_asked(self):
        for value, version, waits in (
            (b"100-continue", (1, 1), True),
            (b"100-Continue", (1, 1), True),
            (b"100-continue", (1, 0), False),
            (b"100-continue, other", (1, 1), False),
            (b"other", (1, 1), False),
        ):
            self.assertIs(expects_continue(head(b"POST", (b"Expect", value), version=version)), waits, value)
        self.assertFalse(expects_continue(head(b"POST")))


class NotConnectedTests(SynchronousTestCase):
    def test_status_and_words(self):
        route = direct(Origin("http", "a.example", 81))
        for raised, outcome, status, words in (
            (error.DNSLookupError("x"), "origin-gone", 502, "no address was found for a.example"),
            (ValueError("invalid hostname"), "origin-gone", 502, "no address was found for a.example"),
            (error.ConnectionRefusedError(), "origin-gone", 502, "a.example:81 refused the connection"),
            (error.TimeoutError(), "timed-out", 504, "connecting to a.example:81 took too long"),
            (error.TCPTimedOutError(), "timed-out", 504, "connecting to a.example:81 took too long"),
            (error.NoRouteError(), "origin-gone", 502, "there is no route to a.example:81"),
            (error.ConnectError(), "origin-gone", 502, "could not connect to a.example:81"),
            (CancelledError(), "origin-gone", 502, "could not connect to a.example:81"),
            (HandshakeFailed("words"), "origin-gone", 502, "words"),
            (HandshakeFailed("words", status=504), "timed-out", 504, "words"),
            (HandshakeFailed("words", untrusted=True), "refused", 502, "words"),
            (RuntimeError("/secret"), "origin-gone", 502, "could not connect to a.example:81"),
        ):
            self.assertEqual(why_not_connected(Failure(raised), route), (outcome, status, words), raised)
