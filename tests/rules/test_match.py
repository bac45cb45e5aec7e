"""Patterns, one kind after the other."""

from __future__ import annotations

import fnmatch
import re
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.asked import Asked
from streamproxy.rules.match import (
    HostPatterns,
    Pattern,
    PatternError,
    Patterns,
    content_type_holds,
    header_holds,
    host_forms,
    host_pattern,
    method_pattern,
    path_pattern,
    regex,
    type_pattern,
    url_pattern,
    value_pattern,
    wildcard,
)
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import Origin, Target


def asked(url: str) -> Asked:
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    host, _, port = netloc.partition(":")
    return Asked(Target(Origin(scheme, host, int(port or {"http": 80, "https": 443}[scheme])), slash + path))


def url_matches(pattern: str | Pattern, url: str) -> bool:
    compiled = url_pattern(pattern) if isinstance(pattern, str) else pattern
    return Patterns([compiled]).find(asked(url).urls) is not None


def path_matches(pattern: str, url: str) -> bool:
    return Patterns([path_pattern(pattern)]).find(asked(url).paths) is not None


def host_matches(pattern: str, host: str, port: int = 80) -> bool:
    return HostPatterns([host_pattern(pattern)]).match(host, port)


class WildcardTests(SynchronousTestCase):
    def test_a_pattern_stands_for_the_whole_text(self) -> None:
        table = [
            ("abc", "abc", True),
            ("abc", "abcd", False),
            ("abc", "xabc", False),
            ("abc", "abc\n", False),
            ("a*", "a", True),
            ("a*", "ab/c.d\ne", True),
            ("*c", "abc", True),
            ("*c", "abcd", False),
            ("a*a", "a", False),
            ("a*a", "aa", True),
            ("a*b*c", "a-b-b-c", True),
            ("a*b*c", "acb", False),
            ("a?c", "abc", True),
            ("a?c", "ac", False),
            ("?*?", "a", False),
            ("?*?", "ab", True),
            ("**", "", True),
            ("a.c", "abc", False),
            ("[ab]", "a", False),
            ("[ab]", "[ab]", True),
            ("*ab*ab", "abab", True),
            ("*ab*ab", "ab", False),
            ("*aab", "aaab", True),
        ]
        for pattern, text, does in table:
            self.assertEqual(wildcard(pattern).match(text) is not None, does, (pattern, text))

    @given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=12))
    def test_it_agrees_with_the_standard_library(self, pattern: str, text: str) -> None:
        self.assertEqual(wildcard(pattern).match(text) is not None, fnmatch.fnmatchcase(text, pattern))

    def test_the_group_is_what_the_trailing_star_stands_for(self) -> None:
        pattern = wildcard("/a/*/b/*")
        match = pattern.match("/a/x/b/y/b/z")
        assert match is not None
        self.assertTrue(pattern.tail)
        self.assertEqual(match[1], "y/b/z")
        self.assertFalse(wildcard("/a/*/b").tail)

    def test_no_pattern_makes_matching_slow(self) -> None:
        for pattern in ("a*a*a*a*a*a*a*a*b", "*a" * 30 + "*b", "*aaaaaaaa*b", "*?a*?a*?a*b", "a*" * 50 + "b"):
            compiled = wildcard(pattern)
            began = time.perf_counter()
            self.assertIsNone(compiled.match("a" * 60_000))
            self.assertLess(time.perf_counter() - began, 1.0, pattern)

    def test_a_bad_regular_expression_is_told(self) -> None:
        for source in ("(", "[", "*", "(?P<a>x)(?P<a>y)", "a{99999999999999}", "\\"):
            self.assertRaises(PatternError, regex, source)

    def test_a_regular_expression_is_searched_for(self) -> None:
        self.assertIsNotNone(regex("b+").match("abbc"))
        self.assertIsNone(regex("^b+").match("abbc"))


class HostTests(SynchronousTestCase):
    def test_hosts_match_in_any_case_and_with_a_last_dot(self) -> None:
        table = [
            ("ads.example", "ads.example", True),
            ("ADS.Example", "ads.example", True),
            ("ads.example.", "ads.example", True),
            ("ads.example", "ads.example.", True),
            ("ads.example", "xads.example", False),
            ("ads.example", "ads.example.evil", False),
            ("*.ads.example", "a.b.ads.example", True),
            ("*.ads.example", "ads.example", False),
            ("*.ads.example", "x.ads.example.", True),
            ("ads.*", "ads.example", True),
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.1", True),
            ("127.0.0.1", "0x7f000001", True),
            ("127.0.0.1", "2130706433", True),
            ("127.0.0.1", "0177.0.0.1", True),
            ("127.0.0.1", "::ffff:127.0.0.1", True),
            ("127.*", "127.1", True),
            ("::1", "::1", True),
            ("[::1]", "::1", True),
            ("0:0:0:0:0:0:0:1", "::1", True),
            ("::1", "0:0::0:1", True),
            ("::1", "::2", False),
            ("fe80::*", "fe80::1", True),
            ("[fe80:*]", "fe80::1", True),
        ]
        for pattern, host, does in table:
            self.assertEqual(host_matches(pattern, host), does, (pattern, host))

    def test_a_pattern_with_a_port_matches_host_and_port(self) -> None:
        table = [
            ("a.example:8080", "a.example", 8080, True),
            ("a.example:8080", "a.example", 80, False),
            ("a.example:80", "a.example", 80, True),
            ("a.example:80", "a.example.", 80, True),
            ("*:8*", "b.example", 8443, True),
            ("*:8*", "b.example", 443, False),
            ("[::1]:8080", "::1", 8080, True),
            ("[::1]:8080", "::1", 80, False),
            ("*80", "a.example", 80, False),
            ("127.0.0.1:*", "127.1", 5, True),
        ]
        for pattern, host, port, does in table:
            self.assertEqual(host_matches(pattern, host, port), does, (pattern, host, port))

    def test_what_can_t_be_a_host_is_refused(self) -> None:
        urls = ("http://a.example", "a.example/x", "a@b", "10.0.0.0/8")
        for pattern in (*urls, "a b", "a:b", "[::1", "[::1]x", "bücher.example", "x::y", "1::2::3"):
            self.assertRaises(PatternError, host_pattern, pattern)

    def test_a_host_beyond_ascii_is_told_how_to_write_it(self) -> None:
        with self.assertRaises(PatternError) as caught:
            host_pattern("bücher.example")
        self.assertIn("'xn--bcher-kva.example'", str(caught.exception))

    def test_only_a_list_of_plain_hosts_is_exact(self) -> None:
        def exact(*patterns: str) -> frozenset[str] | None:
            return HostPatterns(map(host_pattern, patterns)).exact

        self.assertEqual(exact("A.example", "b.example."), {"a.example", "b.example"})
        self.assertIsNone(exact("a.example", "*.b.example"))
        self.assertIsNone(exact("a.example:80"))

    def test_a_name_that_only_looks_like_an_address_is_left_alone(self) -> None:
        for host in ("1.2.3.4.5", "0xfg", "1.example", "999.1.1.1", "1..2", "fe80::zz"):
            self.assertEqual(host_forms(host), (host,))

    @given(st.text(max_size=30))
    def test_any_host_has_forms(self, host: str) -> None:
        self.assertTrue(host_forms(host))


class PathTests(SynchronousTestCase):
    def test_paths_match_without_their_query_and_with_case(self) -> None:
        table = [
            ("/v1/*", "http://h/v1/x", True),
            ("/v1/*", "http://h/v1/", True),
            ("/v1/*", "http://h/v1", False),
            ("/v1/*", "http://h/V1/x", False),
            ("/a", "http://h/a?b", True),
            ("*b", "http://h/a?b", False),
            ("*.php", "http://h/a/b.php?x=.html", True),
            ("/a b", "http://h/a%20b", True),
            ("/ü", "http://h/%C3%BC", True),
            ("/ü", "http://h/%c3%bc", True),
            ("/a%7eb", "http://h/a~b", True),
            ("/a~b", "http://h/a%7Eb", True),
            ("/f(x)", "http://h/f%28x%29", True),
            ("/f%28x%29", "http://h/f%28x%29", True),
            ("/100%", "http://h/100%25", True),
            ("/100%", "http://h/100%", True),
            ("/a%2Fb", "http://h/a%2fb", True),
            ("/a%2Fb", "http://h/a/b", False),
            ("/admin/*", "http://h/x/%2e%2e/admin/y", True),
            ("/admin/*", "http://h/public/..;/admin/y", True),
            ("/public/../x", "http://h/public/../x", True),
        ]
        for pattern, url, does in table:
            self.assertEqual(path_matches(pattern, url), does, (pattern, url))

    def test_a_path_that_could_never_match_is_refused(self) -> None:
        for pattern in ("admin", "http://h/a", "./a"):
            self.assertRaises(PatternError, path_pattern, pattern)


class UrlTests(SynchronousTestCase):
    def test_urls_match_whole(self) -> None:
        table = [
            ("http://h.example/*", "http://h.example/a?b", True),
            ("http://h.example/*", "https://h.example/a", False),
            ("HTTP://H.Example/*", "http://h.example/a", True),
            ("http://h.example/A", "http://h.example/a", False),
            ("http://h.example:80/*", "http://h.example/a", True),
            ("https://h.example:443/*", "https://h.example/a", True),
            ("http://h.example:8080/*", "http://h.example:8080/a", True),
            ("http://h.example/*", "http://h.example:8080/a", False),
            ("http://h.example", "http://h.example/", True),
            ("http://h.example*", "http://h.example:8080/x", True),
            ("*://h.example/*", "https://h.example/x", True),
            ("*token=*", "http://h/a?x&token=1", True),
            ("*token=*", "http://h/a?x&t%6Fken=1", True),
            ("*token=*", "http://h/a?x&token%3D1", True),
            ("http://h.example/a?b", "http://h.example/a?b", True),
            ("http://h.example/x", "http://h.example/y/../x", True),
            ("http://h.example/x", "http://h.example./x", True),
            ("http://127.0.0.1/*", "http://127.1/x", True),
            ("http://h.example/ü", "http://h.example/%C3%BC", True),
        ]
        for pattern, url, does in table:
            self.assertEqual(url_matches(pattern, url), does, (pattern, url))

    def test_a_regular_expression_sees_the_url_as_it_is_written(self) -> None:
        self.assertTrue(url_matches(regex(r"^http://h/a\?b$"), "http://h/a?b"))
        self.assertTrue(url_matches(regex(r"/admin\b"), "http://h/%61dmin"))

    def test_a_request_for_the_whole_server_is_one_for_its_url(self) -> None:
        self.assertEqual(Asked(Target(Origin("http", "h", 80), "*")).urls, ["http://h", "http://h/"])

    def test_the_asterisk_form_is_a_path_too(self) -> None:
        server = Asked(Target(Origin("http", "h", 80), "*"))
        for pattern, matches in (("/*", True), ("*", True), ("/", True), ("/?", False), ("/x*", False)):
            self.assertEqual(Patterns([path_pattern(pattern)]).find(server.paths) is not None, matches, pattern)
        for source, matches in ("^/", True), ("^$", True), (r"^\*$", True), ("x", False):
            self.assertEqual(Patterns([regex(source)]).find(server.paths) is not None, matches, source)

    def test_what_can_t_be_an_url_is_refused(self) -> None:
        for pattern in ("h.example/x", "/x", "http:/x", "http://bücher.example/"):
            self.assertRaises(PatternError, url_pattern, pattern)

    def test_the_query_begins_where_the_path_ends_even_in_decoded_forms(self) -> None:
        request = asked("http://h/a%3Fb?c")
        for index, url in enumerate(request.urls):
            self.assertIn(url[request.query_begins(index) :], ("?c",))


class FieldTests(SynchronousTestCase):
    def test_methods_match_in_any_case(self) -> None:
        pattern = method_pattern("post")
        self.assertIsNotNone(pattern.match("POST"))
        self.assertIsNone(pattern.match("POSTS"))
        self.assertRaises(PatternError, method_pattern, "PO ST")

    def test_any_line_of_a_field_will_do(self) -> None:
        head = Headers([(b"X-A", b"one"), (b"x-a", b"two")])
        self.assertTrue(header_holds(b"x-a", Patterns([value_pattern("two")]), head))
        self.assertTrue(header_holds(b"x-a", Patterns([value_pattern("t*")]), head))
        self.assertFalse(header_holds(b"x-a", Patterns([value_pattern("one, two")]), head))
        self.assertFalse(header_holds(b"x-a", Patterns([value_pattern("Two")]), head))
        self.assertFalse(header_holds(b"x-b", Patterns([value_pattern("*")]), head))

    def test_present_is_in_either_head_and_absent_in_neither(self) -> None:
        has, lacks = Headers([(b"X-A", b"")]), Headers()
        self.assertTrue(header_holds(b"x-a", True, lacks, has))
        self.assertFalse(header_holds(b"x-a", True, lacks))
        self.assertTrue(header_holds(b"x-a", False, lacks))
        self.assertFalse(header_holds(b"x-a", False, lacks, has))

    def test_a_value_is_read_as_latin_1_and_as_utf_8(self) -> None:
        pattern = Patterns([value_pattern("ü?")])
        for raw, does in ((b"\xfcx", True), ("üx".encode(), True), (b"\xfc\xfc", True), (b"\xc3x", False)):
            self.assertEqual(pattern.match_value(raw), does, raw)

    def test_a_content_type_matches_with_and_without_its_parameters_in_any_case(self) -> None:
        table = [
            ("application/json", b"application/json", True),
            ("application/json", b"Application/JSON; charset=utf-8", True),
            ("application/json", b"application/json ;charset=utf-8", True),
            ("application/json", b"application/json-seq", False),
            ("application/json*", b"application/json-seq", True),
            ("*UTF-8", b"text/html; charset=utf-8", True),
            ("text/html; charset=*", b"text/html; charset=x", True),
            ("text/*", b"image/png; x=text/html", False),
        ]
        for pattern, value, does in table:
            head = Headers([(b"Content-Type", value)])
            self.assertEqual(content_type_holds(Patterns([type_pattern(pattern)]), head), does, (pattern, value))

    def test_a_regular_expression_for_types_has_no_case_either(self) -> None:
        pattern = Patterns([regex("JSON$", re.IGNORECASE)])
        self.assertTrue(pattern.match_content_type(b"application/json; x"))
