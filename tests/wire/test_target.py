"""Targets and authorities: one reading, or none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.message import Origin, Target, WireError
from streamproxy.wire.target import parse_absolute, parse_authority
from tests.wire.reading import property_of


class AuthorityTests(SynchronousTestCase):
    def test_what_is_well_formed_is_read(self) -> None:
        table = {
            "example.com": ("example.com", 80),
            "EXAMPLE.com:8080": ("example.com", 8080),
            "example.com:": ("example.com", 80),
            "example.com:00080": ("example.com", 80),
            "example.com.": ("example.com.", 80),
            "a_b-c.d": ("a_b-c.d", 80),
            "127.0.0.1:1": ("127.0.0.1", 1),
            "h:65535": ("h", 65535),
            "[::1]": ("::1", 80),
            "[2001:DB8::A]:443": ("2001:db8::a", 443),
            "[::ffff:1.2.3.4]": ("::ffff:1.2.3.4", 80),
            "a" * 253: ("a" * 253, 80),
        }
        for text, (host, port) in table.items():
            self.assertEqual(parse_authority(text, "http"), Origin("http", host, port), text)

    def test_the_port_left_out_is_the_schemes(self) -> None:
        self.assertEqual(parse_authority("h", "https").port, 443)
        self.assertEqual(parse_authority("h:", "https").port, 443)

    def test_what_could_be_read_in_two_ways_is_refused(self) -> None:
        host = "the target's host is malformed"
        port = "the target's port is out of range"
        ipv6 = "the target's IPv6 address is malformed"
        user = "a target with a user name or password in it"
        table = {
            "": host,
            ":80": host,
            "a b": host,
            "a\tb": host,
            " a": host,
            "a\n": host,
            "a\0": host,
            "a/b": host,
            "a\\b": host,
            "a?b": host,
            "a#b": host,
            "a:b": host,
            "a:80:80": host,
            "a:+80": host,
            "a:-1": host,
            "a: 80": host,
            "a:80 ": host,
            "a:8_0": host,
            "a:123456": host,
            "a:٣": host,
            "é": host,
            "a%62": host,
            "a%00b": host,
            "a%": host,
            "a" * 254: host,
            "::1": host,
            "[::1": host,
            "::1]": host,
            "[::1]x": host,
            "[]": host,
            "[fe80::1%25eth0]": host,
            "[v1.a]": host,
            "a:0": port,
            "a:65536": port,
            "a:99999": port,
            "[1.2.3.4]": ipv6,
            "[::::]": ipv6,
            "[1:2]": ipv6,
            "[12345::]": ipv6,
            "[::1.2.3.256]": ipv6,
            "me@a": user,
            "me:secret@a:80": user,
            "a@b@c": user,
        }
        for text, reason in table.items():
            with self.assertRaises(WireError, msg=text) as caught:
                parse_authority(text, "http")
            self.assertEqual((caught.exception.reason, caught.exception.status), (reason, 400), text)

    def test_an_origin_written_as_a_netloc_is_read_back(self) -> None:
        for scheme in ("http", "https"):
            for text in ("a.b", "a.b:80", "a.b:443", "a.b:81", "[::1]", "[::1]:80", "[::1]:443", "[::1]:81"):
                origin = parse_authority(text, scheme)
                self.assertEqual(parse_authority(origin.netloc, scheme), origin)


class AbsoluteTests(SynchronousTestCase):
    def test_what_is_well_formed_is_taken_apart(self) -> None:
        origin = Origin("http", "h", 80)
        table = {
            b"http://h": Target(origin, "/"),
            b"http://h/": Target(origin, "/"),
            b"HTTP://H/A": Target(origin, "/A"),
            b"http://h?q": Target(origin, "/?q"),
            b"http://h/a?b?c/d": Target(origin, "/a?b?c/d"),
            b"http://h:81/a": Target(Origin("http", "h", 81), "/a"),
            b"https://h": Target(Origin("https", "h", 443), "/"),
            b"http://[::1]/": Target(Origin("http", "::1", 80), "/"),
            b"http://h/../%2e/%zz//x": Target(origin, "/../%2e/%zz//x"),
            b"http://h/@x:y": Target(origin, "/@x:y"),
            b'http://h/"<>\\^`{|}': Target(origin, '/"<>\\^`{|}'),
            b"http://h/http://i/": Target(origin, "/http://i/"),
        }
        for target, expected in table.items():
            self.assertEqual(parse_absolute(target), expected, target)

    def test_a_websocket_s_url_is_a_request_s(self) -> None:
        table = {
            b"ws://h/a?b": Target(Origin("http", "h", 80), "/a?b"),
            b"WS://h:443": Target(Origin("http", "h", 443), "/"),
            b"wss://H": Target(Origin("https", "h", 443), "/"),
            b"wss://h:80/ws://i": Target(Origin("https", "h", 80), "/ws://i"),
        }
        for target, expected in table.items():
            self.assertEqual(parse_absolute(target), expected, target)

    def test_options_without_a_path_asks_about_the_whole_server(self) -> None:
        self.assertEqual(parse_absolute(b"http://h", b"OPTIONS").path, "*")
        self.assertEqual(parse_absolute(b"http://h/", b"OPTIONS").path, "/")
        self.assertEqual(parse_absolute(b"http://h?q", b"OPTIONS").path, "/?q")

    def test_what_is_not_a_url_is_refused(self) -> None:
        malformed = (400, "the request target is malformed")
        host = (400, "the target's host is malformed")
        proxy = (400, "this is a proxy: the request target must be a whole URL, such as http://example.com/")
        scheme = (501, "the target's scheme is not http or https")
        table = {
            b"": malformed,
            b"*": malformed,
            b"h:80": malformed,
            b"http:/h": malformed,
            b"http:h": malformed,
            b"//h/": proxy,
            b"/": proxy,
            b"/http://h/": proxy,
            b"1http://h/": malformed,
            b"http://h/#f": malformed,
            b"http://h#f": malformed,
            b"http://h/ b": malformed,
            b"http://h/\r\nX: y": malformed,
            b"http://h/\0": malformed,
            b"http://h/\xc3\xa9": malformed,
            b"http://\xc3\xa9/": malformed,
            b"http://": host,
            b"http:///a": host,
            b"http://?q": host,
            b"http://:80/": host,
            b"http://h\\@i/": (400, "a target with a user name or password in it"),
            b"http://h\\i/": host,
            b"http://u@h/": (400, "a target with a user name or password in it"),
            b"http://h:0/": (400, "the target's port is out of range"),
            b"ftp://h/": scheme,
            b"wsss://h/": scheme,
            b"ws:/h": malformed,
            b"httpx://h/": scheme,
        }
        for target, (status, reason) in table.items():
            with self.assertRaises(WireError, msg=target) as caught:
                parse_absolute(target)
            self.assertEqual((caught.exception.status, caught.exception.reason), (status, reason), target)

    def test_a_url_is_made_of_what_was_taken_apart(self) -> None:
        table = {
            b"http://H:80/a?b": "http://h/a?b",
            b"https://h:80/": "https://h:80/",
            b"http://[::A]:81": "http://[::a]:81/",
        }
        for target, url in table.items():
            self.assertEqual(parse_absolute(target).url, url)
        self.assertEqual(parse_absolute(b"http://h", b"OPTIONS").url, "http://h")

    @property_of(600)
    @given(st.binary(max_size=30) | st.text("htp:/.@[]?#%a1\\ ", max_size=14).map(str.encode))
    def test_any_bytes_are_read_or_refused_and_what_is_read_is_read_again(self, rest: bytes) -> None:
        for target in (rest, b"http://" + rest, b"http://h/" + rest):
            try:
                first = parse_absolute(target)
            except WireError:
                continue
            self.assertEqual(parse_absolute(first.url.encode("ascii")), first)
            self.assertTrue(target.endswith(first.path.encode("ascii").lstrip(b"/")))
