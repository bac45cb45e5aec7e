"""Bodies as scripts see them: as sent, without their codings, as text, as JSON."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts.http import Headers, Response
from tests.scripts.making import response_of
from tests.wire.reading import property_of

GZIP = (b"Content-Encoding", b"gzip")


def typed(content_type: str, body: bytes | None) -> Response:
    return response_of([(b"Content-Type", content_type.encode())] if content_type else [], body=body)


class ContentTests(SynchronousTestCase):
    def test_a_body_that_was_given_is_not_changed(self) -> None:
        response = response_of(body=b"abc")
        self.assertEqual((response.content, response.raw_content, response.text), (b"abc", b"abc", "abc"))
        self.assertFalse(response.content_changed)

    def test_a_body_that_is_not_here_is_none(self) -> None:
        response = response_of([GZIP], body=None)
        self.assertIsNone(response.content)
        self.assertIsNone(response.text)
        with self.assertRaises(TypeError):
            response.json()

    def test_codings_are_undone_and_put_back(self) -> None:
        response = response_of([GZIP], body=gzip.compress(b"abc"))
        self.assertEqual(response.content, b"abc")
        response.content = b"abcd"
        self.assertTrue(response.content_changed)
        self.assertEqual(gzip.decompress(response.raw_content or b""), b"abcd")
        self.assertEqual(response.headers["content-encoding"], "gzip")

    def test_several_codings_are_undone_from_the_last(self) -> None:
        raw = gzip.compress(zlib.compress(b"abc"))
        for fields in ([(b"Content-Encoding", b"deflate, GZIP")], [(b"Content-Encoding", b"deflate"), GZIP]):
            self.assertEqual(response_of(fields, body=raw).content, b"abc")

    def test_an_empty_body_is_one_in_any_coding(self) -> None:
        self.assertEqual(response_of([GZIP], body=b"").content, b"")

    def test_a_body_that_is_not_what_its_coding_says_raises_unless_it_may_not(self) -> None:
        for fields, body in (([GZIP], b"no gzip"), ([(b"Content-Encoding", b"unheard-of")], b"abc")):
            response = response_of(fields, body=body)
            with self.assertRaises(ValueError):
                response.content  # noqa: B018
            with self.assertRaises(ValueError):
                response.text  # noqa: B018
            self.assertEqual(response.get_content(strict=False), body)
            self.assertEqual(response.get_text(strict=False), body.decode())

    def test_a_bomb_is_not_undone(self) -> None:
        response = response_of([GZIP], body=gzip.compress(b"0" * (80 << 20), 1))
        with self.assertRaises(ValueError):
            response.content  # noqa: B018

    def test_a_body_is_decoded_anew_when_it_changes(self) -> None:
        response = response_of([GZIP], body=gzip.compress(b"abc"))
        self.assertEqual(response.content, b"abc")
        self.assertIs(response.content, response.content)
        response.raw_content = gzip.compress(b"d")
        self.assertEqual(response.content, b"d")
        del response.headers["content-encoding"]
        self.assertEqual(response.content, gzip.compress(b"d"))
        response.give(b"e")
        self.assertEqual(response.content, b"e")
        self.assertFalse(response.content_changed)

    def test_a_coding_that_cannot_be_written_goes(self) -> None:
        response = response_of([(b"Content-Encoding", b"unheard-of")], body=b"x")
        response.content = b"abc"
        self.assertEqual(response.raw_content, b"abc")
        self.assertNotIn("content-encoding", response.headers)

    def test_a_length_is_put_right_where_there_is_one(self) -> None:
        response = response_of([(b"Content-Length", b"1")], body=b"x")
        response.content = b"abc"
        self.assertEqual(response.headers["content-length"], "3")
        response = response_of()
        response.content = b"abc"
        self.assertNotIn("content-length", response.headers)

    def test_text_is_no_content(self) -> None:
        response = response_of()
        for name in ("content", "raw_content"):
            with self.assertRaises(TypeError):
                setattr(response, name, "abc")
        with self.assertRaises(TypeError):
            response.text = b"abc"  # type: ignore[assignment]
        self.assertFalse(response.content_changed)

    def test_decode_and_encode_change_the_coding(self) -> None:
        response = response_of([GZIP], body=gzip.compress(b"abc"))
        response.decode()
        self.assertEqual((response.raw_content, response.headers.fields), (b"abc", ()))
        response.encode("deflate")
        self.assertEqual((response.content, response.headers["content-encoding"]), (b"abc", "deflate"))
        with self.assertRaises(ValueError):
            response_of(body=b"abc").encode("unheard-of")

    def test_json_is_read(self) -> None:
        response = response_of([GZIP], body=gzip.compress('{"a": "é"}'.encode()))
        self.assertEqual(response.json(), {"a": "é"})
        with self.assertRaises(ValueError):
            response_of(body=b"{").json()


class TextTests(SynchronousTestCase):
    def test_a_declared_charset_counts(self) -> None:
        for content_type, body in (
            ("text/plain; charset=latin-1", b"\xe9"),
            ('text/html; Charset="UTF-16"', "é".encode("utf-16")),
            ("text/html", b'<META http-equiv=x content="text/html; charset=windows-1252">\xe9'),
            ("text/html", b"<meta charset='utf-8'>\xc3\xa9"),
            ("application/xml", b'<?xml version="1.0" encoding="iso-8859-1"?>\xe9'),
            ("text/css", b'@charset "latin-1";\xe9'),
            ("text/plain; charset=gb2312", "é".encode("gb18030")),
        ):
            self.assertEqual((typed(content_type, body).text or "")[-1], "é", content_type)

    def test_undeclared_text_is_utf_8_if_it_can_be_and_else_latin_1(self) -> None:
        for content_type in ("", "text/plain", "application/json", "text/html; x=y"):
            self.assertEqual(typed(content_type, b"\xc3\xa9").text, "é")
            self.assertEqual(typed(content_type, b"\xe9").text, "é")

    def test_text_that_is_not_what_it_is_declared_to_be_raises_unless_it_may_not(self) -> None:
        for charset in ("utf-8", "ascii", "unheard-of", "zlib", "idna", "unicode_escape", "undefined"):
            response = typed(f"text/plain; charset={charset}", b"\xe9")
            with self.assertRaises(ValueError, msg=charset):
                response.text  # noqa: B018
            self.assertEqual(response.get_text(strict=False), "\udce9")

    def test_text_is_written_in_the_charset_that_is_declared(self) -> None:
        response = typed("text/plain; charset=latin-1", b"")
        response.text = "é"
        self.assertEqual(
            (response.raw_content, response.headers["content-type"]), (b"\xe9", "text/plain; charset=latin-1")
        )

    def test_what_the_charset_cannot_express_becomes_utf_8_and_is_declared(self) -> None:
        for content_type, told in (
            ("text/plain; charset=latin-1; x=y", "text/plain; x=y; charset=utf-8"),
            ("text/plain; charset=unheard-of", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
            ("text/html", "text/html; charset=utf-8"),
        ):
            response = typed(content_type, b"")
            response.text = "\u20ac"
            self.assertEqual((response.raw_content, response.headers["content-type"]), (b"\xe2\x82\xac", told))
            self.assertEqual(response.text, "\u20ac")

    def test_ascii_and_json_need_no_charset(self) -> None:
        for content_type, text in (("text/html", "abc"), ("application/json", '"é"')):
            response = typed(content_type, b"")
            response.text = text
            self.assertEqual((response.text, response.headers["content-type"]), (text, content_type))

    def test_a_name_that_is_no_charset_is_not_remembered(self) -> None:
        # Python keeps each name that it was asked for, and names come from strangers.
        from encodings import _cache  # type: ignore[attr-defined]

        typed("text/plain; charset=made-up-7f3a", b"x").get_text(strict=False)
        self.assertNotIn("made_up_7f3a", _cache)
        self.assertNotIn("made-up-7f3a", _cache)

    @property_of(200)
    @given(
        st.sampled_from(
            [
                "",
                "text/plain",
                "text/html; charset=utf-8",
                "text/xml; charset=latin-1",
                "application/json",
                "a/b;charset=x",
            ]
        ),
        st.binary(max_size=8) | st.text(max_size=6).map(str.encode),
    )
    def test_text_that_is_set_as_it_was_read_gives_the_same_bytes(self, content_type: str, body: bytes) -> None:
        response = typed(content_type, body)
        text = response.get_text(strict=False)
        response.text = text
        self.assertEqual(response.raw_content, body)

    @property_of(200)
    @given(
        st.sampled_from(["", "text/plain", "text/html; charset=utf-16", "text/xml; charset=latin-1", "a/b;charset=x"]),
        st.binary(max_size=8),
        st.text(max_size=6),
    )
    def test_text_is_read_as_it_was_set(self, content_type: str, before: bytes, text: str) -> None:
        response = typed(content_type, before)
        response.text = text
        self.assertEqual(response.text, text.removeprefix("\ufeff") if "utf-16" in content_type else text)


class MessagePartsTests(SynchronousTestCase):
    def test_trailers_are_headers_or_none(self) -> None:
        response = response_of()
        self.assertIsNone(response.trailers)
        response.trailers = [(b"x", b"1")]  # type: ignore[assignment]
        self.assertEqual(response.trailers, Headers([(b"x", b"1")]))
        response.trailers = None
        self.assertIsNone(response.trailers)

    def test_headers_may_be_assigned(self) -> None:
        response = response_of([(b"a", b"1")])
        response.headers = {"b": "2"}  # type: ignore[assignment]
        self.assertEqual(response.to_head().headers.fields, ((b"b", b"2"),))

    def test_stream_reads_as_what_will_happen_until_a_script_says_something(self) -> None:
        response = response_of()
        self.assertEqual((response.stream, response.asked_stream), (False, None))
        response.streams = True
        self.assertEqual((response.stream, response.asked_stream), (True, None))
        response.stream = False
        self.assertEqual((response.stream, response.asked_stream), (False, False))
        response.stream = bytes.upper
        self.assertEqual(response.asked_stream(b"a"), b"A")

    def test_what_is_no_stream_function_is_refused(self) -> None:
        for wrong in (1, "yes", b"", None):
            with self.assertRaises(TypeError):
                response_of().stream = wrong

    def test_a_copy_is_changed_by_itself(self) -> None:
        response = response_of([(b"a", b"1")], body=b"x")
        response.trailers = [(b"t", b"1")]  # type: ignore[assignment]
        response.mine = [1]  # type: ignore[attr-defined]
        copy = response.copy()
        copy.headers["a"], copy.content, copy.status_code = "2", b"y", 404
        assert copy.trailers is not None
        assert response.trailers is not None
        copy.trailers["t"] = "2"
        self.assertEqual((response.headers["a"], response.content, response.status_code), ("1", b"x", 200))
        self.assertEqual(response.trailers["t"], "1")
        self.assertEqual(copy.mine, [1])  # type: ignore[attr-defined]
        self.assertIsNot(type(copy), Headers)
