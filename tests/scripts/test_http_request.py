"""Requests as scripts see and change them: where they go, and what is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts.http import Request
from streamproxy.wire.headers import request_head_bytes
from streamproxy.wire.http1 import LONGEST_TARGET
from streamproxy.wire.message import Origin, RequestHead
from tests.scripts.making import HOST, ORIGIN, request_of
from tests.wire.reading import property_of, read, requests


class ReadingTests(SynchronousTestCase):
    def test_the_parts_of_the_target_are_told(self) -> None:
        request = request_of()
        self.assertEqual(
            (request.method, request.scheme, request.host, request.port, request.path, request.url),
            ("GET", "http", "example.com", 80, "/a?b=1", "http://example.com/a?b=1"),
        )
        self.assertEqual((request.http_version, request.is_http11, request.is_http2), ("HTTP/1.1", True, False))
        self.assertEqual(request.timestamp_start, 1000.5)
        self.assertIsNone(request.timestamp_end)

    def test_the_form_of_the_target_is_told(self) -> None:
        request = request_of()
        self.assertEqual((request.authority, request.first_line_format), ("", "relative"))
        request = request_of(line="http://example.com:80/a?b=1")
        self.assertEqual((request.authority, request.first_line_format), ("example.com:80", "absolute"))
        request = request_of(line="example.com:443", method=b"CONNECT")
        self.assertEqual((request.authority, request.first_line_format), ("example.com:443", "authority"))
        self.assertEqual(request.pretty_url, "example.com:443")

    def test_a_method_is_told_in_upper_case_and_goes_on_as_it_came(self) -> None:
        request = request_of(method=b"get")
        self.assertEqual(request.method, "GET")
        self.assertEqual(request.to_head()[0].method, b"get")

    def test_the_pretty_host_and_url_are_those_of_the_host_field(self) -> None:
        for told, host, url in (
            (b"Name.example", "name.example", "http://name.example/a?b=1"),
            (b"name.example:81", "name.example", "http://name.example:81/a?b=1"),
            (b"name.example:80", "name.example", "http://name.example/a?b=1"),
            (b"[::1]:81", "::1", "http://[::1]:81/a?b=1"),
            (b"", "example.com", "http://example.com/a?b=1"),
            (b"a b", "a b", "http://a b/a?b=1"),
        ):
            request = request_of(fields=[(b"Host", told)])
            self.assertEqual((request.pretty_host, request.pretty_url), (host, url), told)
        self.assertEqual(request_of(fields=[]).pretty_url, "http://example.com/a?b=1")

    def test_a_request_about_the_whole_server_has_no_path_in_its_url(self) -> None:
        request = request_of("*", method=b"OPTIONS")
        self.assertEqual((request.path, request.url, request.pretty_url), ("*", *["http://example.com"] * 2))
        self.assertEqual(request.path_components, ())

    def test_it_is_shown_in_a_line(self) -> None:
        self.assertEqual(repr(request_of()), "Request(GET example.com:80/a?b=1)")


class SendingTests(SynchronousTestCase):
    def test_what_was_only_read_goes_on_as_the_very_head_that_came(self) -> None:
        request = request_of(line="http://example.com/a?b=1")
        came = request._head
        request.headers.get("host")
        self.assertEqual(request.query["b"], "1")
        head, target = request.to_head()
        self.assertIs(head, came)
        self.assertIs(target, request._target)
        self.assertFalse(request.edited)

    def test_host_and_port_change_the_origin_and_the_host_field(self) -> None:
        request = request_of()
        request.host = "other.example"
        request.port = 8080
        head, target = request.to_head()
        self.assertEqual(target.origin, Origin("http", "other.example", 8080))
        self.assertEqual(head.headers.fields, ((b"Host", b"other.example:8080"),))
        self.assertTrue(request.edited)

    def test_no_host_field_is_put_in_by_them(self) -> None:
        request = request_of(fields=[])
        request.host = "other.example"
        self.assertEqual(request.headers.fields, ())

    def test_a_host_field_may_say_something_else(self) -> None:
        request = request_of()
        request.host = "192.0.2.7"
        request.host_header = "name.example"
        head, target = request.to_head()
        self.assertEqual((target.origin.host, head.headers.get(b"host")), ("192.0.2.7", b"name.example"))
        request.host_header = None
        self.assertNotIn("host", request.headers)

    def test_a_scheme_leaves_the_port(self) -> None:
        request = request_of()
        request.scheme = "https"
        self.assertEqual(request.to_head()[1].url, "https://example.com:80/a?b=1")

    def test_an_address_of_ipv6_stands_in_brackets(self) -> None:
        for given_host in ("::1", "[::1]"):
            request = request_of()
            request.host = given_host
            self.assertEqual((request.host, request.url), ("::1", "http://[::1]/a?b=1"))
            self.assertEqual(request.headers["host"], "[::1]")
            self.assertEqual(request.to_head()[1].origin.host, "::1")

    def test_an_url_sets_all_of_them(self) -> None:
        request = request_of()
        request.url = "HTTPS://Other.example:8443?q#fragment"
        self.assertEqual(
            (request.scheme, request.host, request.port, request.path), ("https", "other.example", 8443, "/?q")
        )
        self.assertEqual(request.headers["host"], "other.example:8443")

    def test_an_absolute_target_stays_absolute(self) -> None:
        request = request_of(line="http://example.com/a?b=1")
        request.host = "other.example"
        request.path = "/c"
        self.assertEqual(request.to_head()[0].target, b"http://other.example/c")
        self.assertEqual(request.authority, "other.example")

    def test_what_is_no_url_is_refused(self) -> None:
        request = request_of()
        for url in ("", "/x", "ftp://a/", "http://", "http://u:p@a/", "http://a/ b", "http://a:70000/", "http://ü/"):
            with self.assertRaises(ValueError, msg=url):
                request.url = url
        self.assertIs(request.to_head()[0], request._head)

    def test_nonsense_is_refused_in_words_when_it_is_to_be_sent(self) -> None:
        for name, value, words in (
            ("method", "", "can't be a method"),
            ("method", "GET /x HTTP/1.1\r\nA: b", "can't be a method"),
            ("path", "", "must begin with a slash"),
            ("path", "a", "must begin with a slash"),
            ("path", "*", "must begin with a slash"),
            ("path", "/a b", "must begin with a slash"),
            ("path", "/a\r\nb", "must begin with a slash"),
            ("path", "/a#b", "must begin with a slash"),
            ("path", "/é", "must begin with a slash"),
            ("scheme", "ftp", "http or https"),
            ("host", "", "can't go to"),
            ("host", "a/b", "can't go to"),
            ("host", "a@b", "can't go to"),
            ("host", "a b", "can't go to"),
            ("host", "a:b", "can't go to"),
            ("port", 0, "out of range"),
            ("port", 65536, "out of range"),
            ("port", -1, "can't go to"),
            ("http_version", "HTTP/3", "must be HTTP/1.0 or HTTP/1.1"),
        ):
            request = request_of()
            setattr(request, name, value)
            with self.assertRaises(ValueError, msg=f"{name} {value!r}") as caught:
                request.to_head()
            self.assertIn(words, str(caught.exception))

    def test_a_wrong_type_is_refused_at_once(self) -> None:
        request = request_of()
        with self.assertRaises(ValueError):
            request.port = "80"  # type: ignore[assignment]
        for name in ("method", "scheme", "host", "path", "authority"):
            with self.assertRaises(TypeError, msg=name):
                setattr(request, name, 7)

    def test_bytes_do_as_well_as_text(self) -> None:
        request = request_of()
        request.method, request.path, request.host = b"PUT", b"/b", b"c"  # type: ignore[assignment]
        head, target = request.to_head()
        self.assertEqual((head.method, target.url), (b"PUT", "http://c/b"))

    def test_an_older_version_is_told(self) -> None:
        request = request_of()
        request.http_version = "HTTP/1.0"
        self.assertTrue(request.is_http10)
        self.assertEqual(request.to_head()[0].version, (1, 0))


class MadeRequestsTests(SynchronousTestCase):
    def test_one_is_made_of_method_url_content_and_headers(self) -> None:
        request = Request.make("POST", "https://a.example/b", b"xyz", {"X": "1"})
        head, target = request.to_head()
        self.assertEqual((head.method, head.target, target.url), (b"POST", b"/b", "https://a.example/b"))
        self.assertEqual(head.headers.fields, ((b"X", b"1"), (b"content-length", b"3")))
        self.assertEqual(request.content, b"xyz")
        self.assertGreater(request.timestamp_start, 1_000_000_000)

    def test_text_is_taken_for_content(self) -> None:
        self.assertEqual(Request.make("POST", "http://a/", "é").text, "é")
        with self.assertRaises(TypeError):
            Request.make("POST", "http://a/", 3)  # type: ignore[arg-type]


class AskingTests(SynchronousTestCase):
    def test_anticache_asks_for_the_whole_response(self) -> None:
        request = request_of(fields=[(b"If-None-Match", b"x"), (b"if-modified-since", b"y"), HOST])
        request.anticache()
        self.assertEqual(request.headers.fields, (HOST,))

    def test_anticomp_asks_for_no_codings(self) -> None:
        request = request_of(fields=[(b"Accept-Encoding", b"gzip, br")])
        request.anticomp()
        self.assertEqual(request.headers.fields, ((b"Accept-Encoding", b"identity"),))

    def test_constrain_encoding_asks_for_what_can_be_undone(self) -> None:
        request = request_of(fields=[(b"Accept-Encoding", b"gzip, dcb, br")])
        request.constrain_encoding()
        self.assertEqual(request.headers["accept-encoding"], "gzip, br")
        request = request_of()
        request.constrain_encoding()
        self.assertNotIn("accept-encoding", request.headers)


class RequestPropertyTests(SynchronousTestCase):
    @property_of(300)
    @given(st.sampled_from(["method", "path", "host", "scheme", "url", "host_header"]), st.text(max_size=20))
    def test_whatever_is_set_is_refused_or_read_as_one_head_that_says_the_same(self, name: str, value: str) -> None:
        request = request_of()
        try:
            setattr(request, name, value)
            head, target = request.to_head()
        except ValueError:
            return
        got, *_rest = read(requests(), request_head_bytes(head.method, target.url.encode(), head.headers.written))
        assert isinstance(got, RequestHead)
        self.assertEqual((got.method, got.target), (head.method, target.url.encode()))
        self.assertEqual(got.headers, head.headers)

    @property_of(200)
    @given(st.text("/aé %?&=#+\r", max_size=12), st.text("a=&+%é /#", max_size=12))
    def test_what_the_views_write_can_be_sent(self, part: str, value: str) -> None:
        request = request_of()
        request.query["b"] = value
        request.query.add(part, value)
        request.path_components = [part, value]
        self.assertEqual(request.query.items(multi=True), [("b", value), (part, value)])
        self.assertEqual(request.path_components, tuple([each for each in (part, value) if each]))
        target = request.to_head()[1]
        self.assertEqual(target.origin, ORIGIN)
        self.assertLess(len(target.path), LONGEST_TARGET)
