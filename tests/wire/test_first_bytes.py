"""What a client begins to say: told early, the same in any reads, and generous to requests that are written oddly."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.first_bytes import LONGEST_LINE, MOST_BLANKS, Speech, first_bytes
from streamproxy.wire.http1 import MOST_EMPTY_LINES
from streamproxy.wire.message import RequestHead
from tests.wire.made import damaged, good_request
from tests.wire.reading import property_of, read_until_error, requests

TLS, HTTP, OTHER, UNSURE = Speech.TLS, Speech.HTTP, Speech.OTHER, Speech.UNSURE

SPACES = [b" ", b"\t", b"\x0b", b"\x0c", b"\r", b"  ", b" \t ", b"\xa0", b"\x85", b"\x1c"]
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"]


def told(data: bytes) -> tuple[Speech, int]:
    """What is told of `data` that comes byte by byte, and how many it took."""
    for size in range(len(data) + 1):
        speech = first_bytes(data[:size])
        if speech is not UNSURE:
            return speech, size
    return UNSURE, len(data)


class FirstBytesTestCase(SynchronousTestCase):
    def check(self, data: bytes, expected: Speech) -> None:
        """`data` is told as `expected`, whole and byte by byte."""
        self.assertIs(first_bytes(data), expected, data[:100])
        self.assertIs(told(data)[0], expected, data[:100])


class TlsTests(FirstBytesTestCase):
    def test_two_bytes_tell_a_handshake(self) -> None:
        self.assertEqual(told(b"\x16\3\1\2\0\1"), (TLS, 2))
        self.assertIs(first_bytes(b"\x16\3\1\2\0\1"), TLS)
        self.assertIs(first_bytes(b"\x16"), UNSURE)

    def test_another_version_or_another_record_is_something_else(self) -> None:
        for data in (
            b"\x16\2",
            b"\x16\4",
            b"\x16\x16\3",
            b"\x15\3\1",
            b"\x17\3\3",
            b"\x14\3\3",
            b"\x80\x2e\1\3\1",
            b"\r\n\x16\3",
        ):
            self.check(data, OTHER)


class RequestTests(FirstBytesTestCase):
    def test_nothing_tells_nothing(self) -> None:
        self.assertIs(first_bytes(b""), UNSURE)

    def test_a_request_is_told_by_its_first_words(self) -> None:
        self.assertEqual(told(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (HTTP, 5))
        self.assertEqual(told(b"POST /a HTTP/1.1\r\n"), (HTTP, 6))
        self.assertEqual(told(b"CONNECT a:443 HTTP/1.1\r\n"), (HTTP, len(b"CONNECT a:443 HTTP/")))
        self.assertEqual(told(b"PROPFIND /a HTTP/1.1\r\n"), (HTTP, len(b"PROPFIND /a HTTP/")))
        self.assertEqual(told(b"OPTIONS * HTTP/1.1\r\n"), (HTTP, len(b"OPTIONS * HTTP/")))

    def test_a_request_written_oddly_is_one(self) -> None:
        for space in SPACES:
            for end in (b"\r\n", b"\n", b"\r\r\n", b" \r\n", b""):
                self.check(space.join([b"PURGE", b"*", b"HTTP/1.1"]) + end, HTTP)
                self.check(space.join([b"GET", b"/", b"HTTP/1.1"]) + end, HTTP)
        for line in (
            b"get /a http/1.1\r\n",
            b"purge a Http/1.0\r\n",
            b"PURGE  HTTP/1.1\r\n",
            b"PURGE HTTP/1.1\r\n",
            b"PURGE a b c HTTP/1.1\r\n",
            b"PURGE a HTTP/1.1 b\r\n",
            b"PURGE a HTTP/1\r\n",
            b"PURGE a HTTP/3.7\r\n",
            b"PURGE a HTTP/\r\n",
            b"PURGE a\0b HTTP/1.1\r\n",
            b"BASELINE-CONTROL \0 HTTP/1.1\r\n",
            b"PURGE \xff\x80 HTTP/1.1\r\n",
            b"M-SEARCH * HTTP/1.1\r\n",
            b"!#$%&'*+.^_`|~09 * HTTP/1.1\r\n",
            b"PURGE " + b"x" * 16000 + b" HTTP/1.1\r\n",
        ):
            self.check(line, HTTP)

    def test_the_lines_of_the_oldest_http_are_requests(self) -> None:
        for method in METHODS:
            for target in (b"/", b"/a b", b"http://a/", b"HTTPS://a/"):
                for written in (method, method.lower()):
                    self.check(written + b" " + target + b"\r\n", HTTP)
        self.check(b"GET\t/\n", HTTP)
        self.check(b"GET a\r\n", HTTP)

    def test_what_only_looks_like_one_of_those_is_something_else(self) -> None:
        # Memcached, NATS, RTSP, a word that goes on.
        for line in (
            b"get a\r\n",
            b"CONNECT {}\r\n",
            b"OPTIONS * RTSP/1.0\r\n",
            b"OPTIONS rtsp://a/b RTSP/1.0\r\n",
            b"GETS /a\r\n",
            b"FORGET /a\r\n",
            b"PURGE /a\r\n",
            b"GET\r\n",
            b"GET \r\n",
            b"GET\n/ HTTP/1.1\r\n",
        ):
            self.check(line, OTHER)

    def test_a_version_counts_only_as_a_word_of_the_first_line(self) -> None:
        for line in (
            b"A xHTTP/1.1\r\n",
            b"A /HTTP/1.1\r\n",
            b"A b\r\nGET / HTTP/1.1\r\n",
            b"A b\nc HTTP/1.1\r\n",
            b"A HTTP 1.1\r\n",
        ):
            self.check(line, OTHER)

    def test_line_ends_and_white_space_before_a_request_are_passed_over(self) -> None:
        for blanks in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\n\n", b" ", b"\t\r\n ", b"\r", b"\r\n" * (MOST_BLANKS // 2)):
            self.check(blanks + b"GET / HTTP/1.1\r\n", HTTP)
            self.check(blanks + b"PURGE * HTTP/1.1\r\n", HTTP)
            self.check(blanks + b"A b\r\n", OTHER)
            self.check(blanks + b"\0", OTHER)
            self.check(blanks, UNSURE)

    def test_more_of_them_than_anybody_else_sends_are_a_request_to_be_refused(self) -> None:
        self.assertGreater(MOST_BLANKS, 2 * MOST_EMPTY_LINES)
        self.assertEqual(told(b"\n" * 1000), (HTTP, MOST_BLANKS + 1))
        self.check(b"\n" * MOST_BLANKS + b"\0", OTHER)
        self.check(b"\n" * (MOST_BLANKS + 1) + b"\0", HTTP)


class OtherTests(FirstBytesTestCase):
    def test_other_protocols_are_told_by_their_first_line_or_before(self) -> None:
        table = {
            b"SSH-2.0-OpenSSH_9.6 Ubuntu\r\n": 28,
            b"SSH-2.0-OpenSSH\r\n": 17,
            b"EHLO x\r\n": 8,
            b"PING\r\n": 6,
            b"PING\n": 5,
            b"*1\r\n$4\r\nPING\r\n": 4,
            b"CAP LS 302\r\nNICK a\r\n": 12,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n": 32,
            b"HTTP/1.1 200 OK\r\n": 5,
            b'{"a": 1}': 1,
            b"<?xml version='1.0'?>": 1,
            b"@RSYNCD: 31.0\n": 1,
            b"AMQP\0\0\x09\1": 5,
            b"\x13BitTorrent protocol": 1,
            b"\0\0\0\x08\4\xd2\x16\x2f": 1,
            b"\x10\x0e\0\4MQTT": 1,
            b"\5\1\0": 1,
            b"\x80": 1,
            b"\xff": 1,
            b"\r\n\r\n\0\r\nQUIT\n": 5,
        }
        for data, size in table.items():
            self.assertEqual(told(data), (OTHER, size), data)
            self.assertIs(first_bytes(data), OTHER, data)

    def test_git_is_told_though_its_line_never_ends(self) -> None:
        said = b"0032git-upload-pack /a.git\0host=example.com\0"
        self.assertEqual(told(said), (OTHER, said.index(b"\0") + 1))
        self.check(said + b" HTTP/1.1\r\n", OTHER)
        self.check(b"0032git /a\nb HTTP/1.1\0", OTHER)
        self.check(said.replace(b"\0", b" ") + b" HTTP/1.1\r\n", HTTP)

    def test_every_byte_that_no_request_begins_with_tells_at_once(self) -> None:
        token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
        blank = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0"
        for code in range(256):
            first = bytes([code])
            waits = code == 0x16 or code in blank or token.match(first) is not None
            self.assertIs(first_bytes(first), UNSURE if waits else OTHER, first)

    def test_the_preface_of_http_2_is_not_http_1(self) -> None:
        self.assertEqual(told(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), (OTHER, 16))
        self.check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", OTHER)

    def test_what_only_looks_like_that_preface_is_a_request(self) -> None:
        for line in (
            b"PRI * HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\n",
            b"PRI  * HTTP/2.0\r\n",
            b"pri * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0 \r\n",
        ):
            self.check(line, HTTP)
        self.check(b"\r\nPRI * HTTP/2.0\r\n", HTTP)


class WaitingTests(FirstBytesTestCase):
    def test_a_line_that_may_become_a_request_is_waited_for(self) -> None:
        for data in (
            b"G",
            b"GET",
            b"GET ",
            b"POST ",
            b"POST htt",
            b"PURGE",
            b"PURGE a",
            b"PURGE a HTTP",
            b"PING\r",
            b"SSH-2.0-a b",
        ):
            self.check(data, UNSURE)

    def test_a_line_longer_than_any_is_a_request_if_it_begins_as_one(self) -> None:
        for begins in (b"PURGE ", b"a\t", b"PURGE a "):
            data = begins + b"x" * LONGEST_LINE
            self.assertIs(first_bytes(data[: LONGEST_LINE - 1]), UNSURE)
            for size in (LONGEST_LINE, LONGEST_LINE + 1, len(data)):
                self.assertIs(first_bytes(data[:size]), HTTP)
            self.assertIs(first_bytes(data + b"\n"), HTTP)

    def test_a_word_longer_than_any_line_is_something_else(self) -> None:
        data = b"x" * LONGEST_LINE
        self.assertIs(first_bytes(data[:-1]), UNSURE)
        for more in (b"", b"x", b" a HTTP/1.1\r\n"):
            self.assertIs(first_bytes(data + more), OTHER)

    def test_a_line_that_ends_with_its_last_byte_is_judged_as_a_line(self) -> None:
        self.assertIs(first_bytes(b"PURGE ".ljust(LONGEST_LINE - 1, b"x") + b"\n"), OTHER)
        self.assertIs(first_bytes(b"PURGE ".ljust(LONGEST_LINE, b"x") + b"\n"), HTTP)

    def test_all_that_goes_on_being_unsure_is_shorter_than_a_line(self) -> None:
        for piece in (b" ", b"\n", b"x", b"a ", b"PRI * HTTP/2.0", b"a\0", b"\r"):
            data = b"a" + piece * LONGEST_LINE
            self.assertIsNot(first_bytes(data[:LONGEST_LINE]), UNSURE, piece)


SHARDS = [
    b"GET",
    b"get",
    b"PURGE",
    b"PRI",
    b"*",
    b"/",
    b"http://",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"HTTP/",
    b"HTTP/1.1",
    b"HTTP/2.0",
]
SHARDS += [b"\0", b"\x16", b"\3", b"x", b"0", b"-", b"\xa0", b"\xff", b":", b"PRI * HTTP/2.0\r\n", b"\n" * MOST_BLANKS]

# What the most lenient of readers would go by: three words on the first line that isn't empty.
LENIENT = re.compile(
    rb"\s*([^\s\0-\x1f\x7f-\xff\"(),/:;<=>?@[\\\]{}]+)[^\S\n]+(?:[^\n]*[^\S\n])?HTTP/[0-9]", re.IGNORECASE
)


class AnyBytesTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from(SHARDS), max_size=12).map(b"".join) | st.binary(max_size=40))
    @example(b"PRI * HTTP/2.0\r\n\r\n")
    @property_of(2000)
    def test_more_bytes_change_no_answer(self, data: bytes) -> None:
        speech, size = told(data)
        for more in range(size, len(data) + 1):
            self.assertIs(first_bytes(data[:more]), speech, data[:more])

    @given(good_request())
    @property_of(300)
    def test_every_good_request_is_one(self, data: bytes) -> None:
        self.assertIs(first_bytes(data), HTTP)
        self.assertIs(told(data)[0], HTTP)

    @given(damaged(good_request()))
    @property_of(1000)
    def test_whatever_the_strict_reader_takes_is_a_request(self, data: bytes) -> None:
        events, _ = read_until_error(requests(), data)
        if any(type(event) is RequestHead for event in events):
            self.assertIs(first_bytes(data), HTTP, data)

    @given(
        st.lists(st.sampled_from(SHARDS), max_size=12).map(b"".join)
        | st.lists(st.sampled_from([b"A", b" ", b"\t", b"b", b"HTTP/1", b"http/2", b"\n"]), max_size=9).map(b"".join)
    )
    @property_of(2000)
    def test_whatever_a_lenient_reader_would_take_is_a_request(self, data: bytes) -> None:
        found = LENIENT.match(data)
        if found is None or data.startswith(b"PRI * HTTP/2.0\r\n"):
            return
        # A word with digits and a NUL on its line is Git's.
        if b"\0" in found[0] and not found[1].replace(b"-", b"").isalpha():
            return
        self.assertIs(first_bytes(data), HTTP, data)
