"""Queries, forms and cookies, edited in place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts.cookies import read_cookies, write_cookies
from streamproxy.scripts.form_data import read_multipart, read_urlencoded, write_multipart, write_urlencoded
from streamproxy.scripts.multidict import MultiDict
from tests.scripts.making import request_of, response_of
from tests.wire.reading import property_of

FORM = (b"Content-Type", b"application/x-www-form-urlencoded")
MULTIPART = (b"Content-Type", b'multipart/form-data; boundary="xx"')
UPLOAD = (
    b'--xx\r\nContent-Disposition: form-data; name="t"\r\n\r\nold\r\n'
    b'--xx\r\nContent-Disposition: form-data; filename="name=x"; name="f"\r\nContent-Type: a/b\r\n\r\n1\r\n\r\n2\r\n'
    b"--xx--\r\n"
)
TEXT = st.text("a=&;é\"'\\ +%\u20ac", max_size=6)


class MultiDictTests(SynchronousTestCase):
    def test_a_name_is_told_with_its_first_value(self) -> None:
        pairs = MultiDict([("a", "1"), ("b", "2"), ("a", "3")])
        self.assertEqual((pairs["a"], pairs.get_all("a"), dict(pairs)), ("1", ["1", "3"], {"a": "1", "b": "2"}))
        self.assertEqual(pairs.items(multi=True), [("a", "1"), ("b", "2"), ("a", "3")])

    def test_setting_takes_the_first_place_and_drops_the_others(self) -> None:
        pairs = MultiDict([("a", "1"), ("b", "2"), ("a", "3")])
        pairs["a"] = "4"
        self.assertEqual(pairs.fields, (("a", "4"), ("b", "2")))
        pairs.add("a", "5")
        del pairs["b"]
        self.assertEqual(pairs.copy(), MultiDict([("a", "4"), ("a", "5")]))
        self.assertNotIn("b", pairs)

    def test_names_know_case(self) -> None:
        self.assertIsNone(MultiDict([("a", "1")]).get("A"))


class QueryTests(SynchronousTestCase):
    def test_a_query_is_read_and_written_into_the_path(self) -> None:
        request = request_of("/p?a=1&b=x+y&a=2&c")
        self.assertEqual(request.query.items(multi=True), [("a", "1"), ("b", "x y"), ("a", "2"), ("c", "")])
        request.query["new"] = "é&"
        self.assertEqual(request.path, "/p?a=1&b=x+y&a=2&c&new=%C3%A9%26")
        request.query.clear()
        self.assertEqual(request.path, "/p")

    def test_pairs_that_stay_keep_their_spelling(self) -> None:
        request = request_of("/p?x=%7e&y&z=%20")
        request.query["z"] = "1"
        self.assertEqual(request.path, "/p?x=%7e&y&z=1")

    def test_bytes_that_are_no_utf_8_stay(self) -> None:
        request = request_of("/p?x=%ff")
        request.query["y"] = request.query["x"]
        self.assertEqual(request.path, "/p?x=%ff&y=%FF")

    def test_a_query_may_be_assigned(self) -> None:
        request = request_of()
        for given_query in ([("a", "1")], {"a": 1}, MultiDict([("a", "1")]), request_of("/?a=1").query):
            request.query = given_query  # type: ignore[assignment]
            self.assertEqual(request.path, "/a?a=1")

    def test_a_view_sees_what_is_changed_beside_it(self) -> None:
        request = request_of("/p?a=1")
        query = request.query
        self.assertEqual(query["a"], "1")
        request.path = "/p?a=2"
        self.assertEqual(query["a"], "2")

    def test_path_components_are_unquoted_and_quoted(self) -> None:
        request = request_of("/a%2Fb//c?d=/")
        self.assertEqual(request.path_components, ("a/b", "c"))
        request.path_components = ("x/y", "ü")
        self.assertEqual(request.path, "/x%2Fy/%C3%BC?d=/")


class FormTests(SynchronousTestCase):
    def test_an_urlencoded_form_is_read_and_written_into_the_body(self) -> None:
        request = request_of(fields=[FORM, (b"Content-Length", b"9")], body=b"a=%20&b=2")
        request.urlencoded_form["b"] = "3 4"
        self.assertEqual(request.raw_content, b"a=%20&b=3+4")
        self.assertEqual(request.headers["content-length"], "11")
        self.assertTrue(request.content_changed)

    def test_another_body_is_no_form_until_one_is_set(self) -> None:
        request = request_of(body=b"a=1")
        self.assertFalse(request.urlencoded_form)
        request.urlencoded_form = {"b": "2"}  # type: ignore[assignment]
        self.assertEqual((request.raw_content, request.headers["content-type"]), (b"b=2", FORM[1].decode()))

    def test_a_body_that_is_not_here_is_an_empty_form(self) -> None:
        request = request_of(fields=[FORM], body=None)
        self.assertEqual(request.urlencoded_form.fields, ())
        self.assertEqual(request.multipart_form.fields, ())

    def test_a_multipart_form_is_read(self) -> None:
        request = request_of(fields=[MULTIPART], body=UPLOAD)
        self.assertEqual(request.multipart_form.fields, ((b"t", b"old"), (b"f", b"1\r\n\r\n2")))

    def test_parts_that_stay_keep_their_fields(self) -> None:
        request = request_of(fields=[MULTIPART], body=UPLOAD)
        request.multipart_form[b"t"] = b"new"
        self.assertEqual(request.raw_content, UPLOAD.replace(b"old", b"new"))

    def test_a_multipart_form_is_made_with_a_boundary(self) -> None:
        request = request_of()
        request.multipart_form = [("a", "é"), (b'b"\r\n', b"\x00")]  # type: ignore[assignment]
        self.assertIn("multipart/form-data; boundary=", request.headers["content-type"])
        self.assertEqual(request.multipart_form.fields, ((b"a", "é".encode()), (b"b%22%0D%0A", b"\x00")))

    def test_a_value_with_the_boundary_in_it_is_refused(self) -> None:
        request = request_of(fields=[MULTIPART], body=UPLOAD)
        with self.assertRaises(ValueError):
            request.multipart_form[b"t"] = b"a\r\n--xx\r\nb"
        self.assertEqual(request.raw_content, UPLOAD)


class CookieTests(SynchronousTestCase):
    def test_cookies_of_a_request_are_read_and_written(self) -> None:
        request = request_of(fields=[(b"Cookie", b'a=1; b; c="x;y"'), (b"cookie", b"d=e=f")])
        self.assertEqual(request.cookies.fields, (("a", "1"), ("b", ""), ("c", "x;y"), ("d", "e=f")))
        request.cookies["b"] = "2 3"
        self.assertEqual(request.headers.fields, ((b"Cookie", b'a=1; b="2 3"; c="x;y"; d=e=f'),))
        del request.cookies["c"]
        self.assertEqual(list(request.cookies), ["a", "b", "d"])

    def test_what_can_be_no_cookie_is_refused(self) -> None:
        request = request_of()
        for name, value in (("", "1"), ("a=b", "1"), ("a;", "1"), ("a b", "1"), ("a", "\r\nb: c")):
            with self.assertRaises(ValueError, msg=name):
                request.cookies[name] = value
        with self.assertRaises(TypeError):
            request.cookies["a"] = 1  # type: ignore[assignment]
        self.assertNotIn("cookie", request.headers)

    def test_cookies_of_a_response_have_attributes_that_know_no_case(self) -> None:
        response = response_of([(b"Set-Cookie", b"a=1; Path=/; HttpOnly; Expires=Wed, 21 Oct 2015 07:28:00 GMT")])
        value, attributes = response.cookies["a"]
        self.assertEqual(value, "1")
        self.assertEqual((attributes["PATH"], attributes["expires"][:3]), ("/", "Wed"))  # type: ignore[index]
        self.assertIn("httponly", attributes)
        self.assertIsNone(attributes["httponly"])
        self.assertNotIn("secure", attributes)

    def test_a_cookie_that_is_set_leaves_the_other_lines_as_they_were(self) -> None:
        lines = [(b"Set-Cookie", b"a=1;;path=/ "), (b"X", b"y"), (b"set-cookie", b"b")]
        response = response_of(lines)
        response.cookies["c"] = ("2", [("Path", "/"), ("Secure", None)])  # type: ignore[assignment]
        self.assertEqual(response.headers.fields[:3], tuple(lines))
        self.assertEqual(response.headers.get_all("set-cookie")[2], "c=2; Path=/; Secure")
        response.cookies["a"] = ("x", {"Max-Age": "3"})  # type: ignore[assignment]
        self.assertEqual(response.headers.get_all("set-cookie"), ["a=x; Max-Age=3", "b", "c=2; Path=/; Secure"])
        del response.cookies["b"]
        self.assertEqual(list(response.cookies), ["a", "c"])

    def test_what_can_be_no_attribute_is_refused(self) -> None:
        response = response_of()
        for wrong in (("1", [("a;b", None)]), ("1", [("a", "b\r\n")])):
            with self.assertRaises(ValueError):
                response.cookies["a"] = wrong  # type: ignore[assignment]
        with self.assertRaises(TypeError):
            response.cookies["a"] = "1"  # type: ignore[assignment]
        self.assertEqual(response.headers.fields, ())


class PairsPropertyTests(SynchronousTestCase):
    @property_of(200)
    @given(st.lists(st.tuples(TEXT, TEXT), max_size=5), TEXT)
    def test_what_is_written_urlencoded_is_read_as_the_same(self, pairs: list[tuple[str, str]], before: str) -> None:
        self.assertEqual(read_urlencoded(write_urlencoded(pairs, before)), tuple(pairs))

    @property_of(200)
    @given(st.text("a=&%2+é", max_size=15))
    def test_an_urlencoded_text_that_is_not_changed_stays(self, text: str) -> None:
        kept = "&".join([part for part in text.split("&") if part])
        once = write_urlencoded(read_urlencoded(kept), kept)
        self.assertEqual(read_urlencoded(once), read_urlencoded(kept))
        if len(set(read_urlencoded(kept))) == len(read_urlencoded(kept)):
            self.assertEqual(once, kept)

    @property_of(200)
    @given(st.lists(st.tuples(st.text("ab é", min_size=1, max_size=4), st.text('a"\\; =,é', max_size=6)), max_size=4))
    def test_what_is_written_as_cookies_is_read_as_the_same(self, pairs: list[tuple[str, str]]) -> None:
        pairs = [(name.replace(" ", "_"), value) for name, value in pairs]
        self.assertEqual(read_cookies([write_cookies(pairs, [])]), tuple(pairs))

    @property_of(300)
    @given(st.text('ab=;" \\', max_size=20))
    def test_cookies_that_are_not_changed_are_read_as_the_same_again(self, line: str) -> None:
        cookies = read_cookies([line])
        self.assertEqual(read_cookies([write_cookies(cookies, [line])]), cookies)

    @property_of(200)
    @given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=12) | st.sampled_from([b"\r\n", b"--xx"]))))
    def test_what_is_written_multipart_is_read_as_the_same(self, pairs: list[tuple[bytes, bytes]]) -> None:
        kept = [(name.hex().encode(), value) for name, value in pairs if not value.startswith(b"--xx")]
        self.assertEqual(read_multipart(write_multipart(kept, b"xx", UPLOAD), b"xx"), tuple(kept))

    @property_of(200)
    @given(st.lists(st.sampled_from([b"--xx", b"\r\n", b"--", b"\r\n\r\n", b"name=a", b"content-disposition:;"])))
    def test_no_body_is_too_broken_to_be_read(self, parts: list[bytes]) -> None:
        body = b"".join(parts)
        pairs = read_multipart(body, b"xx")
        again = write_multipart(pairs, b"xx", body)
        self.assertEqual(read_multipart(again, b"xx"), pairs)


class CostTests(SynchronousTestCase):
    def test_reading_costs_no_more_than_what_is_read(self) -> None:
        # Each of these would take minutes if a part of it were searched again for each of its parts.
        read_cookies(['a="' * 200_000, ('a="' + '\\"' * 30) * 20_000, '; a = "x" y' * 60_000])
        read_multipart(b"\r\n--xx\r\ncontent-disposition: " * 50_000 + b" name" * 50_000, b"xx")
        names = "&".join([f"k{number}=1" for number in range(20_000)])
        self.assertEqual(len(dict(request_of("/?" + names).query)), 20_000)
