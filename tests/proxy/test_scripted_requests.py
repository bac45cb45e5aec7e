"""What scripts do to requests: where they go, what they say, what they carry; and what can't be sent."""

import gzip

from tests.passage import read_request
from tests.proxy.scripting import CHUNKED, GET, POST, ScriptTestCase, plainly

BODY = b"Content-Length: 5\r\n\r\nhello"
CHUNKS = CHUNKED + b"Trailer: X-T\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: t\r\n\r\n"


class HeadTests(ScriptTestCase):
    """Each is done in the first hook, and in the second, which comes to the same."""

    def sent(self, hook, request: bytes = GET, **more):
        first = None
        for name in ("requestheaders", "request"):
            sent, answer = self.exchanged(request, **{name: hook}, **more)
            self.assertEqual(answer.start, 200)
            first = first or sent
            self.assertEqual(sent, first, name)
        return first

    def test_method_and_path(self):
        def hook(flow):
            flow.request.method = "PUT"
            flow.request.path = "/other?q=1"

        for request in (GET, POST + BODY, POST + CHUNKS):
            passed = self.passed(request, requestheaders=hook)
            self.assertTrue(passed.origin_heard.startswith(b"PUT /other?q=1 HTTP/1.1\r\nHost: a.example\r\n"))
            passed = self.passed(request, request=hook)
            self.assertTrue(passed.origin_heard.startswith(b"PUT /other?q=1 HTTP/1.1\r\nHost: a.example\r\n"))

    def test_fields_are_edited_removed_and_added_in_their_places(self):
        def hook(flow):
            headers = flow.request.headers
            headers["x-a"] = "new"
            del headers["x-b"]
            headers.add("X-C", "3")

        request = GET[:-2] + b"X-A: 1\r\nX-B: 2\r\nX-C: 2\r\n\r\n"
        self.assertEqual(
            self.sent(hook, request).fields,
            [
                (b"host", b"a.example"),
                (b"x-a", b"new"),
                (b"x-c", b"2"),
                (b"x-c", b"3"),
                (b"via", b"1.1 proxy"),
            ],
        )

    def test_what_no_script_touches_arrives_as_it_left(self):
        def hook(flow):
            list(flow.request.headers.items())
            flow.request.text  # noqa: B018

        request = POST + b"x-LOWER: a\r\nX-lower:  b\r\n" + CHUNKS
        for settings in ({"request": hook}, {"requestheaders": hook}):
            passed = self.passed(request, ways=(plainly,), cuts=(None,), **settings)
            self.assertEqual(
                passed.origin_heard,
                b"POST /x HTTP/1.1\r\nHost: a.example\r\nx-LOWER: a\r\nX-lower: b\r\nTransfer-Encoding: chunked\r\n"
                b"Trailer: X-T\r\nVia: 1.1 proxy\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: t\r\n\r\n",
            )

    def test_another_origin_is_dialled_and_the_host_field_follows(self):
        def hook(flow):
            flow.request.host = "b.example"
            flow.request.port = 8000

        for name in ("requestheaders", "request"):
            for where, passed in self.each(GET, **{name: hook}):
                self.assertEqual(read_request(passed.origin_heard).values(b"host"), [b"b.example:8000"], where)
        self.assertEqual(passed.flow.url, "http://b.example:8000/x")

    def test_a_host_field_of_its_own_goes_on_to_another_origin(self):
        def hook(flow):
            flow.request.host = "b.example"
            flow.request.headers["host"] = "a.example"

        self.assertEqual(self.sent(hook).values(b"host"), [b"a.example"])

    def test_a_host_field_that_is_taken_out_is_that_of_the_origin(self):
        def hook(flow):
            flow.request.host = "b.example"
            del flow.request.headers["host"]

        self.assertEqual(self.sent(hook).values(b"host"), [b"b.example"])

    def test_an_url(self):
        def hook(flow):
            flow.request.url = "http://b.example/y"

        self.assertEqual(self.sent(hook).values(b"host"), [b"b.example"])

    def test_framing_fields_count_for_nothing(self):
        def less(flow):
            flow.request.headers["Content-Length"] = "0"

        def more(flow):
            flow.request.headers["Content-Length"] = "500"

        def gone(flow):
            flow.request.headers.pop("content-length", None)
            flow.request.headers.pop("transfer-encoding", None)

        def both(flow):
            flow.request.headers["Content-Length"] = "1"
            flow.request.headers["Transfer-Encoding"] = "chunked"

        def odd(flow):
            flow.request.headers["Transfer-Encoding"] = "gzip, chunked"
            flow.request.headers["Connection"] = "x-made, keep-alive"
            flow.request.headers["Upgrade"] = "websocket"

        for hook in (less, more, gone, both, odd):
            for text in ("", "stream_large_bodies: 1\n"):
                for request, framed in ((POST + BODY, b"content-length"), (POST + CHUNKS, b"transfer-encoding")):
                    sent = self.sent_body(hook, request, text)
                    self.assertEqual(sent.body, b"hello", (hook, text))
                    fields = [name for name, _ in sent.fields if name in (b"content-length", b"transfer-encoding")]
                    self.assertEqual(fields, [framed], (hook, text))
                    self.assertEqual(sent.values(b"connection") + sent.values(b"upgrade"), [])
            sent = self.sent_body(hook, GET, "")
            self.assertEqual([name for name, _ in sent.fields], [b"host", b"via"], hook)

    def sent_body(self, hook, request: bytes, text: str):
        first = None
        for name in ("requestheaders", "request"):
            if name == "request" and text:
                continue
            sent, _ = self.exchanged(request, text=text, cuts=(None, 7), **{name: hook})
            first = first or sent
        return first

    def test_a_whole_request_in_its_place(self):
        from streamproxy.scripts import http

        def hook(flow):
            flow.request = http.Request.make("PUT", "http://b.example/y", b"other", {"X-Made": "1"})

        for request in (GET, POST + BODY, POST + CHUNKS):
            sent, _ = self.exchanged(request, request=hook)
            self.assertEqual((sent.start, sent.body), (b"PUT", b"other"))
            self.assertEqual((sent.values(b"host"), sent.values(b"x-made")), ([b"b.example"], [b"1"]))


class BodyTests(ScriptTestCase):
    def test_a_held_body_longer_shorter_and_none(self):
        for content in (b"something longer", b"s", b""):

            def hook(flow, content=content):
                flow.request.content = content

            for request in (POST + BODY, POST + CHUNKS):
                sent, _ = self.exchanged(request, request=hook)
                self.assertEqual(sent.body, content)

    def test_content_for_a_request_without_any(self):
        def hook(flow):
            self.assertEqual(flow.request.content, b"")
            flow.request.content = b"made up"

        nothing = (
            POST + b"Content-Length: 0\r\n\r\n",
            POST + b"\r\n",
            POST + CHUNKED + b"\r\n0\r\n\r\n",
            GET,
        )
        for request in nothing:
            sent, _ = self.exchanged(request, request=hook)
            self.assertEqual(sent.body, b"made up", request)

    def test_content_given_in_the_first_hook_to_a_request_without_any(self):
        def hook(flow):
            flow.request.content = b"made up"

        sent, _ = self.exchanged(GET, requestheaders=hook)
        self.assertEqual(sent.body, b"made up")

    def test_what_vouched_for_the_old_bytes_goes(self):
        def hook(flow):
            flow.request.content = b"other"

        for rest in (BODY, b"Content-Length: 0\r\n\r\n"):
            request = POST + b"Content-MD5: x\r\nDigest: y\r\nX-Stays: z\r\n" + rest
            sent, _ = self.exchanged(request, request=hook)
            self.assertEqual(sent.body, b"other")
            self.assertEqual(
                [name for name, _ in sent.fields if name in (b"content-md5", b"digest", b"x-stays")], [b"x-stays"]
            )

    def test_text_of_a_coded_body(self):
        coded = gzip.compress(b"what was said", mtime=0)

        def hook(flow):
            self.assertEqual(flow.request.text, "what was said")
            flow.request.text = "what is said"

        request = POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded) + coded
        sent, _ = self.exchanged(request, request=hook)
        self.assertEqual(gzip.decompress(sent.body), b"what is said")

    def test_trailers_are_seen_changed_and_made(self):
        def change(flow):
            self.assertEqual(flow.request.trailers["x-t"], "t")
            flow.request.trailers["x-t"] = "other"

        def make(flow):
            flow.request.trailers = {"X-Made": "m"}

        sent, _ = self.exchanged(POST + CHUNKS, request=change)
        self.assertEqual((sent.body, sent.trailers), (b"hello", [(b"x-t", b"other")]))
        sent, _ = self.exchanged(POST + BODY, request=make)
        self.assertEqual((sent.body, sent.trailers), (b"hello", [(b"x-made", b"m")]))

    def test_expect_that_is_taken_out_is_answered_here(self):
        def hook(flow):
            del flow.request.headers["expect"]

        for text in ("", "hold: always\n"):
            expecting = POST + b"Expect: 100-continue\r\n" + BODY
            passed = self.passed(expecting, text=text, requestheaders=hook, cuts=(1,), ways=(plainly,))
            self.assertEqual(passed.client_heard.count(b"100 Continue"), 1)
            self.assertEqual(read_request(passed.origin_heard).values(b"expect"), [])


class LimitTests(ScriptTestCase):
    TEXT = "stream_large_bodies: null\nlimits: {held_body: 4, body: 8}\n"

    def test_a_script_may_stream_what_is_too_large_to_be_held(self):
        def hook(flow):
            flow.request.stream = True

        sent, _ = self.exchanged(POST + BODY, text=self.TEXT, requestheaders=hook, request=lambda flow: None)
        self.assertEqual(sent.body, b"hello")

    def test_and_may_not_hold_it(self):
        def hook(flow):
            flow.request.stream = False

        for request in (POST + BODY, POST + CHUNKS):
            for passed in self.refused("body is too large", request, text=self.TEXT, requestheaders=hook, status=413):
                self.assertEqual((passed.origins, passed.flow.outcome), (0, "refused"))
        for passed in self.refused("body is too large", POST + BODY, text=self.TEXT, request=hook, status=413):
            self.assertEqual(passed.origins, 0)

    def test_and_may_not_stream_what_is_too_large_in_any_way(self):
        def hook(flow):
            flow.request.stream = True

        request = POST + b"Content-Length: 9\r\n\r\n123456789"
        for passed in self.refused("body is too large", request, text=self.TEXT, requestheaders=hook, status=413):
            self.assertEqual(passed.origins, 0)


class NonsenseTests(ScriptTestCase):
    """It ends that flow in words; the connection stays where the request had all come."""

    def check(self, why: str, edit) -> None:
        def hook(flow):
            edit(flow.request)

        for request in (GET, POST + BODY):
            for name in ("requestheaders", "request"):
                for passed in self.refused(why, request, cuts=(None, 5), **{name: hook}):
                    self.assertEqual((passed.origins, passed.flow.outcome), (0, "failed"))
                    if name == "request" or request is GET:
                        self.assertFalse(passed.closed or passed.reset)

    def test_methods(self):
        self.check("can't be a method", lambda request: setattr(request, "method", "G ET"))
        self.check("can't be a method", lambda request: setattr(request, "method", "GET / HTTP/1.1\r\nX: y\r\n\r\n"))
        self.check("method can't become HEAD", lambda request: setattr(request, "method", "HEAD"))
        self.check("method can't become CONNECT", lambda request: setattr(request, "method", "CONNECT"))
        self.check("TypeError", lambda request: setattr(request, "method", None))

    def test_paths_and_hosts(self):
        for path in ("", "no slash", "/a b", "/a\r\nX: y", "/\u00e9", "/#"):
            self.check("the path", lambda request, path=path: setattr(request, "path", path))
        self.check("TypeError", lambda request: setattr(request, "path", None))
        for host in ("a b", "a/b", "a@b", "", "[::1"):
            self.check("the request can't go to", lambda request, host=host: setattr(request, "host", host))
        self.check("control character", lambda request: setattr(request, "host", "x\r\ny"))
        self.check("the request can't go to", lambda request: setattr(request, "port", 70000))
        self.check("scheme", lambda request: setattr(request, "scheme", "ftp"))

    def test_fields(self):
        self.check("control character", lambda request: request.headers.add("X", "a\r\nb: c"))
        self.check("name of a header field", lambda request: request.headers.add("X: a\r\nb", "c"))
        self.check("TypeError", lambda request: request.headers.add("X", None))
        self.check("HTTP version", lambda request: setattr(request, "http_version", "HTTP/2.0"))

    def test_bodies(self):
        def hook(flow):
            flow.request.raw_content = "text"

        self.refused("a body must be bytes, not str", POST + BODY, request=hook)

    def test_streams_that_are_none(self):
        def hook(flow):
            flow.request.stream = 5

        self.refused("stream must be", POST + BODY, requestheaders=hook)
