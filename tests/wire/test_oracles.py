"""What our reader accepts, h11 and llhttp accept too, and see the same in it.

Each message is given to them as far as ours has read it, so this holds for what was given before an error as well.
Where they refuse more or say it otherwise, the difference is listed here with its reason; any other fails.
"""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.message import WireError
from streamproxy.wire.target import parse_absolute, parse_authority
from tests.wire.made import damaged, good_request, good_response
from tests.wire.oracles import Refused, Seen, by_h11, llhttp, ours
from tests.wire.reading import answer, post, property_of, request

# White space around a chunk extension's semicolon and equals sign is to be read (RFC 9112 section 7.1.1 and
# RFC 9110 section 5.6.3). It has one reading, and doesn't go on: extensions are dropped.
_BAD_WHITE_SPACE = re.compile(rb"\r\n0*[0-9A-Fa-f]*(?:[ \t]+;|;[^\r]*[ \t;=])")


def _refused_as_target(seen: Seen) -> bool:
    """Whether the target of a request is refused here, but later."""
    method, target = seen.first
    try:
        if method == b"CONNECT":
            parse_authority(target.decode("ascii"), "https")
        elif target != b"*" and not target.startswith(b"/"):
            parse_absolute(target)
    except WireError:
        return True
    return False


def llhttp_may_refuse(seen: Seen, why: str, *, is_request: bool) -> bool:
    """Whether llhttp is known to refuse, for the reason `why`, what has one reading."""
    if is_request and why in ("Invalid method encountered", "Expected space after method"):
        # It knows a list of methods; RFC 9110 section 9.1 lets a method be any token.
        return seen.first[0] not in (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH", b"CONNECT")
    if is_request and re.search("url|schema|Unexpected start char", why):
        # It takes targets apart as it goes. Ours are taken apart by `target`, once the head is whole.
        return _refused_as_target(seen)
    if why == "Invalid HTTP version":
        # It knows 0.9, 1.0, 1.1 and 2.0; a higher minor version is read as the highest known (RFC 9110 section 2.5).
        return seen.version == (1, 1) and re.search(rb"HTTP/1\.[2-9]", seen.wire) is not None
    if why == "Duplicate Content-Length":
        # Several of one value may be read as one (RFC 9112 section 6.3, item 5).
        return len({value for name, value in seen.fields if name == b"content-length"}) == 1
    if why.startswith("Invalid character in chunk "):
        return _BAD_WHITE_SPACE.search(seen.wire) is not None
    return False


def h11_may_refuse(seen: Seen, why: str) -> bool:
    """Whether h11 is known to refuse, for the reason `why`, what has one reading."""
    return why.startswith("illegal chunk header") and _BAD_WHITE_SPACE.search(seen.wire) is not None


def as_llhttp_says(seen: Seen) -> Seen:
    """`seen` less what llhttp can't tell or tells otherwise."""
    # It isn't told of the connection's end here.
    return replace(seen, ended=seen.ended and not seen.until_close)


def as_h11_says(seen: Seen) -> Seen:
    """`seen` as h11 tells it: a transfer coding in lower case, one Content-Length of several that are the same."""
    fields: list[tuple[bytes, bytes]] = []
    for name, value in seen.fields:
        if name == b"transfer-encoding":
            value = value.lower()
        if name != b"content-length" or (name, value) not in fields:
            fields.append((name, value))
    return replace(seen, fields=tuple(fields))


def version_of_11(seen: Seen) -> Seen:
    return replace(seen, version=min(seen.version, (1, 1)))


class OracleTestCase(SynchronousTestCase):
    def agree(self, data: bytes, method: bytes | None = None) -> int:
        """Check all messages of `data`; how many there were that ended."""
        messages = ours(data, method)
        for seen in messages:
            try:
                got = by_h11(seen.wire, method, closed=method is not None and seen.ended)
            except Refused as refused:
                self.assertTrue(h11_may_refuse(seen, str(refused)), f"h11: {refused}: {seen.wire!r}")
            else:
                self.assertEqual(version_of_11(got), as_h11_says(seen), seen.wire)
            if method in (b"HEAD", b"CONNECT"):
                # httptools can't tell llhttp which method a response answers.
                continue
            try:
                got = llhttp(seen.wire, response=method is not None)
            except Refused as refused:
                known = llhttp_may_refuse(seen, str(refused), is_request=method is None)
                self.assertTrue(known, f"llhttp: {refused}: {seen.wire!r}")
            else:
                self.assertEqual(version_of_11(got), as_llhttp_says(seen), seen.wire)
        return sum(seen.ended for seen in messages)


class GeneratedTests(OracleTestCase):
    @property_of(300)
    @given(st.lists(good_request(), min_size=1, max_size=3))
    def test_good_requests_are_seen_alike(self, messages: list[bytes]) -> None:
        self.assertEqual(self.agree(b"".join(messages)), len(messages))

    @property_of(300)
    @given(good_response(), st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT"]))
    def test_good_responses_are_seen_alike(self, message: bytes, method: bytes) -> None:
        self.assertGreaterEqual(self.agree(message, method), 1)

    @property_of(1500)
    @given(damaged(st.lists(good_request(), min_size=1, max_size=2).map(b"".join)))
    def test_damaged_requests_are_refused_or_seen_alike(self, data: bytes) -> None:
        self.agree(data)

    @property_of(1500)
    @given(damaged(good_response()), st.sampled_from([b"GET", b"GET", b"HEAD", b"CONNECT"]))
    def test_damaged_responses_are_refused_or_seen_alike(self, data: bytes, method: bytes) -> None:
        self.agree(data, method)


BYTES = b'\0\t\n\x0b\r !"+,-./059:;=AFGHPT_afhx\x7f\x80\xff'
CHUNKS = b'5;a="b"\r\nhello\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n'
A_REQUEST = post(b"A: b", b"Transfer-Encoding: chunked", body=CHUNKS)
A_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"A:b", b"Content-Length: 05", b"C: d", body=b"hello")


class EachByteTests(OracleTestCase):
    """Every byte of a message left out, and every telling byte put in its place and before it."""

    def each(self, message: bytes, method: bytes | None) -> None:
        for at in range(len(message)):
            before, after = message[:at], message[at + 1 :]
            self.agree(before + after, method)
            self.agree(before, method)
            for code in BYTES:
                self.agree(before + bytes([code]) + after, method)
                self.agree(before + bytes([code]) + message[at:], method)

    def test_a_chunked_request(self) -> None:
        self.each(A_REQUEST, None)

    def test_a_response_behind_an_interim_one(self) -> None:
        self.each(A_RESPONSE, b"GET")


class DifferencesTests(OracleTestCase):
    """Each difference that is permitted is real; one that no longer is should go from the list."""

    def refused_by_llhttp(self, data: bytes, why: str) -> None:
        self.assertEqual(self.agree(data), 1)
        with self.assertRaises(Refused) as caught:
            llhttp(data, response=False)
        self.assertEqual(str(caught.exception), why)

    def test_llhttp_knows_a_list_of_methods(self) -> None:
        self.refused_by_llhttp(request(b"BREW / HTTP/1.1", b"Host: a"), "Invalid method encountered")
        self.refused_by_llhttp(request(b"GETX / HTTP/1.1", b"Host: a"), "Expected space after method")

    def test_llhttp_takes_targets_apart(self) -> None:
        self.refused_by_llhttp(request(b"GET a\\b HTTP/1.1", b"Host: a"), "Unexpected char in url schema")

    def test_llhttp_knows_no_higher_minor_version(self) -> None:
        self.refused_by_llhttp(request(b"GET / HTTP/1.2", b"Host: a"), "Invalid HTTP version")

    def test_llhttp_refuses_a_length_that_is_told_twice(self) -> None:
        self.refused_by_llhttp(post(b"Content-Length: 1", b"Content-Length: 1", body=b"x"), "Duplicate Content-Length")

    def test_neither_reads_white_space_around_a_chunk_extension(self) -> None:
        for line in (b"1 ;a", b"1; a", b"1;a =b", b"1;a= b"):
            data = post(b"Transfer-Encoding: chunked", body=line + b"\r\nx\r\n0\r\n\r\n")
            self.assertEqual(self.agree(data), 1)
            self.assertRaises(Refused, llhttp, data, response=False)
        data = post(b"Transfer-Encoding: chunked", body=b"1 ;a\r\nx\r\n0\r\n\r\n")
        self.assertRaises(Refused, by_h11, data)

    def test_empty_lines_before_a_request_are_left_out_of_what_they_are_given(self) -> None:
        """They are passed over (RFC 9112 section 2.2), which h11 doesn't do."""
        data = b"\r\n" + post()
        self.assertEqual([seen.wire for seen in ours(data)], [post()])
        self.assertRaises(Refused, by_h11, data)


class StricterTests(SynchronousTestCase):
    """What an oracle lets pass, and ours doesn't: that ours is stricter is real."""

    def test_than_h11(self) -> None:
        for data in (
            post(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            post(b"Content-Length: 2, 2", body=b"ab"),
            b"POST / HTTP/1.1\nHost: a\n\n",
            post(b"A: b", b" c"),
            post(b"A: \x01"),
        ):
            self.assertTrue(by_h11(data).first, data)
            self.assertFalse(any(seen.ended for seen in ours(data)), data)

    def test_than_llhttp(self) -> None:
        for data in (
            request(b"GET / HTTP/1.1"),
            request(b"GET / HTTP/1.1", b"Host: a", b"Host: b"),
            request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
            request(b"POST / HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        ):
            self.assertTrue(llhttp(data, response=False).ended, data)
            self.assertEqual(ours(data), [], data)
