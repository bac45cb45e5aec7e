"""What scripts do to responses: what they say and carry, what stands in their place; and what ends without one."""

import gzip

from streamproxy.scripts import http
from tests.passage import read_response
from tests.proxy.scripting import CHUNKED, GET, OK_HEAD, POST, ScriptTestCase, asleep, deferred, plainly

HEAD = b"HEAD http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
UPLOAD = POST + b"Content-Length: 5\r\n\r\nhello"
LENGTH = OK_HEAD + b"Content-Length: 5\r\n\r\nworld"
CHUNKS = OK_HEAD + CHUNKED + b"\r\n3\r\nwor\r\n2\r\nld\r\n0\r\nX-T: t\r\n\r\n"


class ChangedTests(ScriptTestCase):
    def test_status_reason_and_fields(self):
        def hook(flow):
            flow.response.status_code = 418
            flow.response.reason = "Tea"
            flow.response.headers["X-Set"] = "s"
            flow.response.headers.pop("x-gone", None)

        for response in (LENGTH, CHUNKS):
            response = response.replace(b"OK\r\n", b"OK\r\nX-Gone: g\r\n", 1)
            for name in ("responseheaders", "response"):
                passed = self.passed(GET, response, **{name: hook})
                self.assertTrue(passed.client_heard.startswith(b"HTTP/1.1 418 Tea\r\n"))
                message = read_response(passed.client_heard)
                self.assertEqual((message.values(b"x-set"), message.values(b"x-gone")), ([b"s"], []))
                self.assertEqual(message.body, b"world")
                self.assertEqual(passed.flow.status, 418)

    def test_what_no_script_touches_arrives_as_it_left(self):
        def hook(flow):
            flow.response.text  # noqa: B018
            dict(flow.response.headers)

        for name in ("responseheaders", "response"):
            passed = self.passed(GET, CHUNKS, ways=(plainly,), cuts=(None,), **{name: hook})
            self.assertEqual(
                passed.client_heard,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n"
                b"3\r\nwor\r\n2\r\nld\r\n0\r\nX-T: t\r\n\r\n",
            )

    def test_content_longer_shorter_and_none(self):
        for content in (b"something longer", b"s", b""):

            def hook(flow, content=content):
                flow.response.content = content

            for response, ends in ((LENGTH, False), (CHUNKS, False), (OK_HEAD + b"\r\nworld", True)):
                _, answer = self.exchanged(GET, response, ends=ends, response=hook)
                self.assertEqual(answer.body, content)

    def test_content_for_a_response_without_any(self):
        def hook(flow):
            self.assertEqual(flow.response.content, b"")
            flow.response.content = b"made up"

        for response in (
            OK_HEAD + b"Content-MD5: x\r\nContent-Length: 0\r\n\r\n",
            OK_HEAD + CHUNKED + b"\r\n0\r\n\r\n",
        ):
            _, answer = self.exchanged(GET, response, response=hook)
            self.assertEqual((answer.body, answer.values(b"content-md5")), (b"made up", []))

    def test_content_where_there_can_be_none_goes_nowhere(self):
        def hook(flow):
            flow.response.content = b"made up"

        for request, response in (
            (HEAD, LENGTH[:-5]),
            (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
            (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ):
            _, answer = self.exchanged(request, response, response=hook)
            self.assertEqual(answer.body, b"")

    def test_text_of_coded_bodies(self):
        coded = gzip.compress(b"what was said", mtime=0)

        def hook(flow):
            self.assertEqual(flow.response.text, "what was said")
            flow.response.text = "what is said"

        fields = b'ETag: "v"\r\nContent-Encoding: gzip\r\n'
        for response in (
            OK_HEAD + fields + b"Content-Length: %d\r\n\r\n" % len(coded) + coded,
            OK_HEAD + fields + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(coded), coded),
        ):
            _, answer = self.exchanged(GET, response, response=hook)
            self.assertEqual(gzip.decompress(answer.body), b"what is said")
            self.assertEqual(answer.values(b"etag"), [b'W/"v"'])

    def test_framing_fields_count_for_nothing(self):
        def edits(flow):
            headers = flow.response.headers
            headers["Content-Length"] = "1"
            headers["Transfer-Encoding"] = "chunked"
            headers["Connection"] = "close, x-made"
            headers["Upgrade"] = "x"

        def gone(flow):
            flow.response.headers.pop("content-length", None)
            flow.response.headers.pop("transfer-encoding", None)

        for text in ("", "stream_large_bodies: 1\n"):
            for hook in (edits, gone):
                for name in ("responseheaders", "response"):
                    if name == "response" and text:
                        continue
                    for response in (LENGTH, CHUNKS):
                        passed = self.passed(GET, response, text=text, cuts=(None, 7), **{name: hook})
                        answer = read_response(passed.client_heard)
                        self.assertEqual(answer.body, b"world")
                        self.assertEqual(answer.values(b"connection") + answer.values(b"upgrade"), [])
                        self.assertFalse(passed.closed or passed.reset)

    def test_trailers_are_seen_changed_and_made(self):
        def change(flow):
            self.assertEqual(flow.response.trailers["x-t"], "t")
            flow.response.trailers["x-t"] = "other"

        def make(flow):
            flow.response.trailers = {"X-Made": "m"}

        _, answer = self.exchanged(GET, CHUNKS, response=change)
        self.assertEqual(answer.trailers, [(b"x-t", b"other")])
        for response, ends in ((LENGTH, False), (OK_HEAD + b"\r\nworld", True)):
            _, answer = self.exchanged(GET, response, ends=ends, response=make)
            self.assertEqual((answer.body, answer.trailers), (b"world", [(b"x-made", b"m")]))
        old = b"GET http://a.example/x HTTP/1.0\r\n\r\n"
        _, answer = self.exchanged(old, LENGTH, response=make)
        self.assertEqual((answer.body, answer.trailers), (b"world", []))

    def test_an_http_1_0_client_gets_what_was_made_of_chunks(self):
        def hook(flow):
            flow.response.content = b"other"

        old = b"GET http://a.example/x HTTP/1.0\r\n\r\n"
        passed = self.passed(old, CHUNKS, response=hook)
        self.assertNotIn(b"Transfer-Encoding", passed.client_heard)
        self.assertTrue(passed.client_heard.endswith(b"\r\n\r\nother"))

    def test_a_script_may_stream_what_is_too_large_to_be_held_and_may_not_hold_it(self):
        text = "stream_large_bodies: null\nlimits: {held_body: 4}\n"

        def stream(flow):
            flow.response.stream = True

        def hold(flow):
            flow.response.stream = False

        _, answer = self.exchanged(GET, LENGTH, text=text, responseheaders=stream, response=lambda flow: None)
        self.assertEqual(answer.body, b"world")
        for response in (LENGTH, CHUNKS):
            for passed in self.refused("body is too large", GET, response, text=text, responseheaders=hold):
                self.assertEqual(passed.flow.outcome, "refused")


class AnswerTests(ScriptTestCase):
    """Responses of a script's own."""

    def test_before_the_origin_is_asked(self):
        def hook(flow):
            flow.response = http.Response.make(
                403,
                b"no",
                {"X-Made": "m", "Connection": "close", "Transfer-Encoding": "chunked", "Content-Length": "9"},
            )
            flow.response.reason = "Not Today"

        for request, name in (
            (GET, "requestheaders"),
            (GET, "request"),
            (UPLOAD, "requestheaders"),
            (UPLOAD, "request"),
        ):
            for where, passed in self.each(request, **{name: hook}):
                self.assertEqual((passed.origins, passed.flow.outcome, passed.flow.error), (0, "answered", ""), where)
                answer = read_response(passed.client_heard, passed.closed)
                self.assertEqual((answer.start, answer.body, answer.values(b"x-made")), (403, b"no", [b"m"]), where)
                self.assertEqual(answer.values(b"content-length"), [b"2"], where)
                self.assertTrue(passed.client_heard.startswith(b"HTTP/1.1 403 Not Today\r\n"))
                if name == "request" or request is GET:
                    self.assertFalse(passed.closed, where)

    def test_in_place_of_the_origins(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"made up")

        for response in (LENGTH, CHUNKS, OK_HEAD + b"Content-Length: 0\r\n\r\n"):
            for name in ("responseheaders", "response"):
                passed = self.passed(GET, response, **{name: hook})
                answer = read_response(passed.client_heard)
                self.assertEqual((answer.body, passed.flow.outcome, passed.closed), (b"made up", "answered", False))

    def test_in_place_of_one_that_has_gone_by_it_is_too_late(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"made up")

        _, answer = self.exchanged(GET, LENGTH, text="stream_large_bodies: 1\n", response=hook)
        self.assertEqual(answer.body, b"world")

    def test_to_head(self):
        def hook(flow):
            flow.response = http.Response.make(200, b"made up")

        for name in ("requestheaders", "request", "responseheaders", "response"):
            passed = self.passed(HEAD, LENGTH[:-5], **{name: hook})
            answer = read_response(passed.client_heard, method=b"HEAD")
            self.assertEqual((answer.body, answer.values(b"content-length")), (b"", [b"7"]))

    def test_the_hooks_of_responses_see_them_too(self):
        seen = []

        def answers(flow):
            flow.response = http.Response.make(200, b"made up")

        def responseheaders(flow):
            seen.append(("responseheaders", flow.response.content))
            flow.response.headers["X-Seen"] = "s"

        def response(flow):
            seen.append(("response", flow.response.content))
            flow.response.content += b"!"

        for name in ("requestheaders", "request"):
            for request in (GET, UPLOAD):
                for where, passed in self.each(
                    request, responseheaders=responseheaders, response=response, **{name: answers}
                ):
                    answer = read_response(passed.client_heard, passed.closed)
                    self.assertEqual((answer.body, answer.values(b"x-seen")), (b"made up!", [b"s"]), where)
                    self.assertEqual(seen, [("responseheaders", b"made up"), ("response", b"made up")], where)
                    self.assertEqual(passed.origins, 0)
                    seen.clear()

    def test_an_answer_may_have_another_in_its_place(self):
        def answers(flow):
            flow.response = http.Response.make(200, b"made up")

        def other(flow):
            flow.response = http.Response.make(201, b"other")

        for more in ({"requestheaders": answers}, {"responseheaders": answers}):
            for _, passed in self.each(UPLOAD, response=other, **more):
                answer = read_response(passed.client_heard, passed.closed)
                self.assertEqual((answer.start, answer.body), (201, b"other"))

    def test_the_upload_is_not_forwarded_when_the_head_is_answered(self):
        def hook(flow):
            flow.response = http.Response.make(413)

        for _, passed in self.each(UPLOAD, text="stream_large_bodies: 1\n", requestheaders=hook):
            self.assertEqual(passed.origins, 0)

    def test_status_codes_that_are_no_answer(self):
        for status, why in (
            (99, "status code"),
            (1000, "status code"),
            (100, "no status to answer"),
            (101, "no status"),
        ):

            def hook(flow, status=status):
                flow.response = http.Response.make(status)

            for name in ("requestheaders", "request", "responseheaders", "response"):
                self.refused(why, GET, LENGTH, cuts=(None, 7), **{name: hook})


class NonsenseTests(ScriptTestCase):
    def check(self, why: str, edit, response: bytes = LENGTH) -> None:
        def hook(flow):
            edit(flow.response)

        for name in ("responseheaders", "response"):
            for passed in self.refused(why, GET, response, cuts=(None, 7), **{name: hook}):
                self.assertEqual(passed.flow.outcome, "failed")
                self.assertFalse(passed.closed or passed.reset)

    def test_statuses(self):
        for status in (99, 1000, "200", None, 2.5):
            self.check(
                "the status code must be", lambda response, status=status: setattr(response, "status_code", status)
            )
        for status in (100, 101, 204, 304):
            self.check("status can't become", lambda response, status=status: setattr(response, "status_code", status))
        self.check(
            "status can't become",
            lambda response: setattr(response, "status_code", 200),
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
        )

    def test_reasons_and_fields(self):
        self.check("control character", lambda response: setattr(response, "reason", "a\r\nX: y"))
        self.check("control character", lambda response: response.headers.add("X", "a\r\nb: c"))
        self.check("raised", lambda response: setattr(response, "reason", None))
        self.check("HTTP version", lambda response: setattr(response, "http_version", "HTTP/3"))
        self.check("TypeError", lambda response: setattr(response, "headers", 5))
        self.check("a body must be bytes", lambda response: setattr(response, "raw_content", "text"))

    def test_flows(self):
        def hook(flow):
            flow.response = "a response"

        self.refused("must be a Response, not str", GET, LENGTH, responseheaders=hook)


class KillTests(ScriptTestCase):
    def test_in_any_hook_the_connection_ends_without_a_word(self):
        errors = []

        def hook(flow):
            flow.kill()

        def error(flow):
            errors.append((flow.error.msg, flow.live))

        for name in ("requestheaders", "request", "responseheaders", "response"):
            for request in (GET, UPLOAD):
                for where, passed in self.each(request, LENGTH, error=error, **{name: hook}):
                    self.assertEqual((passed.client_heard, passed.reset), (b"", True), (name, where))
                    self.assertEqual((passed.flow.outcome, passed.flow.error), ("failed", "killed by a script"))
                    self.assertEqual(passed.origins, 0 if name.startswith("request") else 1)
                    self.assertEqual(errors, [("Connection killed.", False)], (name, where))
                    errors.clear()

    def test_the_rest_of_the_hooks_do_not_see_it(self):
        def kills(flow):
            flow.kill()

        for way in (plainly, asleep, deferred):
            seen = []

            class Addon:
                def request(self, flow, seen=seen):
                    seen.append(flow)

            passed = self.passed(GET, request=kills, addons=[Addon()], ways=(way,))
            self.assertEqual((seen, passed.reset), ([], True))

    def test_of_a_body_that_has_gone_by_is_an_end_too(self):
        def hook(flow):
            flow.kill()

        for where, passed in self.each(GET, LENGTH, text="stream_large_bodies: 1\n", response=hook, ways=(plainly,)):
            self.assertEqual((passed.reset, passed.flow.error), (True, "killed by a script"), where)
        for where, passed in self.each(UPLOAD, LENGTH, text="stream_large_bodies: 1\n", request=hook):
            self.assertEqual((passed.reset, passed.flow.error), (True, "killed by a script"), where)
            self.assertEqual(passed.client_heard, b"")
