"""Header fields as scripts see them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts.http import Headers
from streamproxy.wire import headers as wire
from streamproxy.wire.fields import read_fields
from tests.wire.reading import property_of

CAME = wire.Headers([(b"Host", b"a"), (b"X-One", b"1"), (b"Accept", b"b"), (b"x-one", b"2"), (b"Via", b"")])
NAMES = st.sampled_from(["A", "a", "b", "B-b", "c"])
VALUES = st.sampled_from(["1", "2", "x, y", ""])
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def headers_of(pairs: list[tuple[str, str]]) -> Headers:
    return Headers([(name.encode(), value.encode()) for name, value in pairs])


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.headers = Headers.of(CAME)

    def test_a_field_is_found_whatever_its_case_and_by_bytes_too(self) -> None:
        self.assertEqual(self.headers["HOST"], "a")
        self.assertEqual(self.headers[b"host"], "a")  # type: ignore[index]
        self.assertIn("accept", self.headers)
        self.assertNotIn("cookie", self.headers)

    def test_the_lines_of_a_field_are_joined(self) -> None:
        self.assertEqual(self.headers["x-one"], "1, 2")
        self.assertEqual(self.headers.get_all("X-ONE"), ["1", "2"])

    def test_a_missing_field_raises_or_is_the_default(self) -> None:
        with self.assertRaises(KeyError):
            self.headers["cookie"]
        self.assertIsNone(self.headers.get("cookie"))
        self.assertEqual(self.headers.get("cookie", "none"), "none")
        self.assertEqual(self.headers.get_all("cookie"), [])

    def test_as_a_mapping_each_name_is_there_once_as_it_first_stood(self) -> None:
        self.assertEqual(list(self.headers), ["Host", "X-One", "Accept", "Via"])
        self.assertEqual(len(self.headers), 4)
        self.assertEqual(dict(self.headers)["X-One"], "1, 2")
        self.assertEqual(self.headers.items()[1], ("X-One", "1, 2"))

    def test_multi_gives_each_line(self) -> None:
        self.assertEqual(self.headers.keys(multi=True), ["Host", "X-One", "Accept", "x-one", "Via"])
        self.assertEqual(self.headers.values(multi=True), ["a", "1", "b", "2", ""])
        self.assertEqual(self.headers.items(multi=True)[3], ("x-one", "2"))

    def test_bytes_that_are_no_utf_8_come_back_as_they_were(self) -> None:
        headers = Headers.of(wire.Headers([(b"X", b"\xff\xc3\xa9")]))
        self.assertEqual(headers["x"], "\udcffé")
        headers["y"] = headers["x"]
        self.assertEqual(headers.fields[1], (b"y", b"\xff\xc3\xa9"))

    def test_they_are_shown_by_their_fields(self) -> None:
        self.assertEqual(repr(Headers([(b"A", b"1")])), "Headers[(b'A', b'1')]")
        self.assertEqual(bytes(Headers([(b"A", b"1"), (b"B", b"")])), b"A: 1\r\nB: \r\n")


class EditingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.headers = Headers.of(CAME)

    def test_what_is_only_read_goes_on_as_the_very_fields_that_came(self) -> None:
        self.headers.get("host")
        self.headers.pop("cookie", None)
        self.assertFalse(self.headers.changed)
        self.assertIs(self.headers.to_wire(), CAME)

    def test_setting_a_field_replaces_its_first_line_and_takes_out_the_others(self) -> None:
        self.headers["X-ONE"] = "3"
        self.assertEqual(self.headers.fields, ((b"Host", b"a"), (b"X-One", b"3"), (b"Accept", b"b"), (b"Via", b"")))
        self.assertTrue(self.headers.changed)
        self.assertEqual(self.headers.to_wire().get(b"x-one"), b"3")

    def test_a_new_field_goes_to_the_end(self) -> None:
        self.headers["New"] = "1"
        self.headers.add("x-one", b"3")
        self.assertEqual(self.headers.fields[-2:], ((b"New", b"1"), (b"x-one", b"3")))

    def test_what_is_set_back_is_no_change(self) -> None:
        self.headers["accept"] = "other"
        self.headers["accept"] = "b"
        self.assertFalse(self.headers.changed)
        self.assertIs(self.headers.to_wire(), CAME)

    def test_set_all_puts_each_value_in_a_place_that_was_there(self) -> None:
        self.headers.set_all("x-one", ["7", "8", "9"])
        self.assertEqual(self.headers.keys(multi=True), ["Host", "X-One", "Accept", "x-one", "Via", "x-one"])
        self.assertEqual(self.headers.get_all("x-one"), ["7", "8", "9"])
        with self.assertRaises(TypeError):
            self.headers.set_all("x-one", "789")

    def test_a_line_is_inserted_in_front_of_another(self) -> None:
        self.headers.insert(0, "First", "1")
        self.assertEqual(self.headers.fields[0], (b"First", b"1"))

    def test_fields_are_taken_out(self) -> None:
        del self.headers["x-one"]
        self.assertEqual(self.headers.pop("host"), "a")
        self.assertEqual(list(self.headers), ["Accept", "Via"])
        with self.assertRaises(KeyError):
            del self.headers["x-one"]
        self.headers.clear()
        self.assertEqual(self.headers.to_wire(), wire.NO_HEADERS)

    def test_update_takes_a_mapping_and_keywords(self) -> None:
        self.headers.update({"host": "b"}, via="c")
        self.assertEqual((self.headers["host"], self.headers["via"]), ("b", "c"))

    def test_a_copy_is_edited_by_itself(self) -> None:
        copy = self.headers.copy()
        self.assertEqual(copy, self.headers)
        copy["host"] = "b"
        self.assertEqual(self.headers["host"], "a")
        self.assertNotEqual(copy, self.headers)
        self.assertIs(self.headers.copy().to_wire(), CAME)


class MadeHeadersTests(SynchronousTestCase):
    def test_they_are_made_of_pairs_of_bytes_and_of_keywords(self) -> None:
        headers = Headers([(b"A", b"1")], content_type="text/html", X_y=b"2")
        self.assertEqual(headers.fields, ((b"A", b"1"), (b"content-type", b"text/html"), (b"X-y", b"2")))
        self.assertTrue(headers.changed)

    def test_text_is_no_pair_of_bytes(self) -> None:
        with self.assertRaises(TypeError):
            Headers([("A", "1")])  # type: ignore[list-item]

    def test_a_mapping_of_text_may_stand_for_them(self) -> None:
        self.assertEqual(Headers.made_of({"A": "1", b"B": b"2"}).fields, ((b"A", b"1"), (b"B", b"2")))
        with self.assertRaises(TypeError):
            Headers.made_of({"A": 1})

    def test_what_would_be_read_as_something_else_is_refused(self) -> None:
        headers = Headers()
        for name in ("", "a b", "a:", "a\r\nb", "é", "a\x00", " a"):
            with self.assertRaises(ValueError, msg=name):
                headers[name] = "1"
            with self.assertRaises(ValueError, msg=name):
                Headers([(name.encode(), b"1")])
        for value in ("a\r\nb: c", "a\n", "\r", "a\x00", "\x01", "\x7f"):
            for put in (headers.__setitem__, headers.add, lambda name, value: headers.insert(0, name, value)):
                with self.assertRaises(ValueError, msg=value):
                    put("a", value)
            with self.assertRaises(ValueError, msg=value):
                headers.set_all("a", [value])
            with self.assertRaises(ValueError, msg=value):
                headers.fields = ((b"a", value.encode()),)
        self.assertEqual(headers.fields, ())

    def test_space_around_a_value_does_not_go_on(self) -> None:
        headers = Headers()
        headers["a"] = "\t b c "
        self.assertEqual(headers.to_wire().fields, ((b"a", b"b c"),))


class HeadersPropertyTests(SynchronousTestCase):
    @property_of(200)
    @given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=12)), max_size=5))
    def test_whatever_can_be_set_is_read_on_the_wire_as_the_same_fields(self, pairs: list[tuple[str, str]]) -> None:
        headers = Headers()
        for name, value in pairs:
            try:
                headers.add(name, value)
            except ValueError:
                continue
        sent = headers.to_wire()
        self.assertEqual(read_fields(bytes(headers) + b"\r\n", 0, 100), sent)
        self.assertEqual(len(sent), len(headers.fields))

    @property_of(200)
    @given(PAIRS, NAMES, st.lists(VALUES, max_size=4))
    def test_setting_one_field_leaves_the_others_as_they_stood(
        self, pairs: list[tuple[str, str]], name: str, values: list[str]
    ) -> None:
        headers = headers_of(pairs)
        others = [pair for pair in headers.items(multi=True) if pair[0].lower() != name.lower()]
        headers.set_all(name, values)
        self.assertEqual(headers.get_all(name), values)
        self.assertEqual([pair for pair in headers.items(multi=True) if pair[0].lower() != name.lower()], others)

    @property_of(200)
    @given(PAIRS)
    def test_as_a_mapping_they_have_the_lines_joined_by_name(self, pairs: list[tuple[str, str]]) -> None:
        joined: dict[str, list[str]] = {}
        for name, value in pairs:
            joined.setdefault(name.lower(), []).append(value)
        headers = headers_of(pairs)
        self.assertEqual(
            {name.lower(): headers[name] for name in headers}, {n: ", ".join(v) for n, v in joined.items()}
        )
        self.assertEqual(len(headers), len(joined))
