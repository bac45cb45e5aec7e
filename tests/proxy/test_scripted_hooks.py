"""Which hooks are called in an exchange, in which order, and what they see."""

from tests.proxy.scripting import CHUNKED, GET, OK, OK_HEAD, POST, ScriptTestCase

NAMES = ("requestheaders", "request", "responseheaders", "response", "error")


class OrderTests(ScriptTestCase):
    def recorded(
        self, request: bytes = GET, response: bytes = OK, *, text: str = "", ends: bool = False, **edits
    ) -> list:
        """What each hook saw of the bodies: (hook, content, streamed), the same in each way, manner and cut."""
        seen: list = []

        def hook_of(name):
            def hook(flow):
                message = flow.request if name in ("requestheaders", "request") else flow.response
                if name == "error":
                    seen.append((name, flow.error.msg))
                else:
                    seen.append((name, message.content, message.streamed))
                if name in edits:
                    edits[name](flow)

            return hook

        first = None
        hooks = {name: hook_of(name) for name in NAMES}
        for where, passed in self.each(request, response, text=text, ends=ends, **hooks):
            self.assertEqual(len(passed.flows), 1, where)
            if first is None:
                first = list(seen)
            self.assertEqual(seen, first, where)
            seen.clear()
        assert first is not None
        return first

    def test_an_exchange_without_bodies(self):
        for response in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
            self.assertEqual(
                self.recorded(response=response),
                [
                    ("requestheaders", None, False),
                    ("request", b"", False),
                    ("responseheaders", None, False),
                    ("response", b"", False),
                ],
            )

    def test_head_and_304(self):
        head = b"HEAD http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
        for request, response in (
            (head, b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
            (head, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ):
            self.assertEqual(
                self.recorded(request, response)[2:], [("responseheaders", None, False), ("response", b"", False)]
            )

    def test_held_bodies_are_whole(self):
        for text in ("", "stream_large_bodies: 5\n"):
            self.assertEqual(
                self.recorded(
                    POST + b"Content-Length: 5\r\n\r\nhello", OK_HEAD + b"Content-Length: 5\r\n\r\nworld", text=text
                ),
                [
                    ("requestheaders", None, False),
                    ("request", b"hello", False),
                    ("responseheaders", None, False),
                    ("response", b"world", False),
                ],
            )

    def test_bodies_above_stream_large_bodies_are_told_of_when_they_have_gone_by(self):
        request = POST + b"Content-Length: 5\r\n\r\nhello"
        self.assertEqual(
            self.recorded(request, OK_HEAD + b"Content-Length: 5\r\n\r\nworld", text="stream_large_bodies: 4\n"),
            [
                ("requestheaders", None, False),
                ("request", None, True),
                ("responseheaders", None, False),
                ("response", None, True),
            ],
        )

    def test_chunked_bodies_below_it_are_held(self):
        self.assertEqual(
            self.recorded(
                POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n",
                OK_HEAD + CHUNKED + b"\r\n4\r\ndefg\r\n0\r\n\r\n",
                text="stream_large_bodies: 4\n",
            )[1::2],
            [("request", b"abc", False), ("response", b"defg", False)],
        )

    def test_chunked_bodies_that_grow_past_it_are_let_go(self):
        self.assertEqual(
            self.recorded(
                POST + CHUNKED + b"\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
                OK_HEAD + CHUNKED + b"\r\n5\r\ndefgh\r\n0\r\n\r\n",
                text="stream_large_bodies: 4\n",
            ),
            [
                ("requestheaders", None, False),
                ("request", None, True),
                ("responseheaders", None, False),
                ("response", None, True),
            ],
        )

    def test_a_body_until_close(self):
        self.assertEqual(
            self.recorded(response=OK_HEAD + b"\r\nto the end", ends=True)[3], ("response", b"to the end", False)
        )

    def test_streamed_types(self):
        response = OK_HEAD + b"Content-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: 1\n\n"
        self.assertEqual(self.recorded(response=response)[3], ("response", None, True))

    def test_a_scripts_word_goes_before_all_that(self):
        def stream(flow):
            (flow.response or flow.request).stream = True

        def hold(flow):
            (flow.response or flow.request).stream = False

        request = POST + b"Content-Length: 5\r\n\r\nhello"
        response = OK_HEAD + b"Content-Type: text/event-stream\r\nContent-Length: 5\r\n\r\nworld"
        self.assertEqual(
            self.recorded(request, response, requestheaders=stream, responseheaders=stream)[1::2],
            [("request", None, True), ("response", None, True)],
        )
        text = "stream_large_bodies: 1\n"
        self.assertEqual(
            self.recorded(request, response, text=text, requestheaders=hold, responseheaders=hold)[1::2],
            [("request", b"hello", False), ("response", b"world", False)],
        )
        chunks = b"\r\n5\r\nhello\r\n0\r\n\r\n"
        self.assertEqual(
            self.recorded(
                POST + CHUNKED + chunks,
                OK_HEAD + CHUNKED + chunks,
                text=text,
                requestheaders=hold,
                responseheaders=hold,
            )[1::2],
            [("request", b"hello", False), ("response", b"hello", False)],
        )

    def test_errors_are_told_in_words(self):
        self.assertEqual(
            self.recorded(response=OK_HEAD + b"Content-Length: 5\r\n\r\nwor", ends=True)[3:],
            [("error", "the origin closed the connection inside its response")],
        )

    def test_an_http_1_0_client(self):
        old = b"GET http://a.example/x HTTP/1.0\r\n\r\n"
        seen = self.recorded(old, OK_HEAD + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual([each[0] for each in seen], list(NAMES[:4]))
        self.assertEqual(seen[3][1], b"abc")
