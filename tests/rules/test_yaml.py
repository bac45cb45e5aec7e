"""A YAML text as plain data with places."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.yaml import MOST_REPEATED, Place, Whole, YamlError, compose, decoded


def data(text: str) -> Any:
    return compose(text, "f.yaml").data


def problems(text: str) -> list[str]:
    try:
        compose(text, "f.yaml")
    except YamlError as error:
        return [f"{problem.place}: {problem.text}" for problem in error.problems]
    return []


class PlainScalarTests(SynchronousTestCase):
    def test_only_yaml_1_2_core_words_are_more_than_text(self) -> None:
        table: list[tuple[str, object]] = [
            ("22:22", "22:22"),
            ("on", "on"),
            ("yes", "yes"),
            ("No", "No"),
            ("2024-01-02", "2024-01-02"),
            ("1_000", "1_000"),
            ("0b11", "0b11"),
            ("true", True),
            ("True", True),
            ("FALSE", False),
            ("tRUE", "tRUE"),
            ("null", None),
            ("~", None),
            ("", None),
            ("nULL", "nULL"),
            ("12", 12),
            ("-12", -12),
            ("+12", 12),
            ("007", 7),
            ("0o17", 15),
            ("0x1F", 31),
            ("1.5", 1.5),
            ("-.5e3", -500.0),
            ("1e3", 1000.0),
            (".", "."),
            ("1.2.3", "1.2.3"),
            ("64k", "64k"),
            ("=", "="),
        ]
        for text, value in table:
            read = data(f"a: {text}")["a"]
            self.assertEqual((text, read, type(read) is bool), (text, value, type(value) is bool))

    def test_infinity_and_what_is_no_number_are_read(self) -> None:
        self.assertEqual(data("[.inf, -.Inf, +.INF]"), [float("inf"), float("-inf"), float("inf")])
        (number,) = data("[.nan]")
        self.assertNotEqual(number, number)

    def test_quoted_scalars_and_blocks_are_always_text(self) -> None:
        self.assertEqual(data("['1', \"true\", '', 'null']"), ["1", "true", "", "null"])
        self.assertEqual(data("a: |\n  12\n"), {"a": "12\n"})

    def test_a_key_is_always_text(self) -> None:
        self.assertEqual(data("on: 1\n2: 1\nnull: 1\ntrue: 1"), {"on": 1, "2": 1, "null": 1, "true": 1})

    def test_a_whole_number_remembers_how_it_was_written(self) -> None:
        number = data("007")
        self.assertIsInstance(number, Whole)
        self.assertEqual((number, number.written), (7, "007"))

    def test_a_number_too_long_to_be_meant_is_text(self) -> None:
        self.assertEqual(data("9" * 5000), "9" * 5000)


class PlaceTests(SynchronousTestCase):
    def test_every_value_and_key_has_its_place_counted_from_one(self) -> None:
        document = compose("a:\n  - b: 1\n    cc: [x, y]\n", "f.yaml")
        self.assertEqual(document.places[("a", 0, "cc", 1)], Place("f.yaml", 3, 13))
        self.assertEqual(document.places[("a", 0)], Place("f.yaml", 2, 5))
        self.assertEqual(document.key_places[("a", 0, "cc")], Place("f.yaml", 3, 5))

    def test_a_column_counts_characters_not_bytes(self) -> None:
        document = compose("{é: ü, b: 1}", "f.yaml")
        self.assertEqual(str(document.places[("b",)]), "f.yaml:1:11")

    def test_an_aliased_value_has_the_place_where_it_is_written(self) -> None:
        document = compose("a: &x {b: 1}\nc: *x\n", "f.yaml")
        self.assertEqual(document.data, {"a": {"b": 1}, "c": {"b": 1}})
        self.assertEqual(document.places[("c", "b")], Place("f.yaml", 1, 11))

    def test_what_an_alias_repeats_is_a_copy(self) -> None:
        read = data("a: &x [1]\nb: *x\n")
        read["a"].append(2)
        self.assertEqual(read["b"], [1])


class MergeTests(SynchronousTestCase):
    def test_merged_keys_give_way_to_the_mapping_s_own_and_to_earlier_ones(self) -> None:
        read = data("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {c: 3, <<: [*x, *y]}")
        self.assertEqual(read["z"], {"a": 1, "b": 1, "c": 3})

    def test_a_quoted_merge_key_is_a_key(self) -> None:
        self.assertEqual(data("'<<': 1"), {"<<": 1})

    def test_merging_what_is_no_mapping_is_an_error(self) -> None:
        self.assertEqual(problems("<<: 1"), ["f.yaml:1:5: expected << to stand before a mapping"])


class RefusalTests(SynchronousTestCase):
    def test_two_equal_keys_are_an_error_with_both_places_and_all_are_told(self) -> None:
        self.assertEqual(
            problems("a: 1\nb: {c: 1, c: 2}\n'a': 3\n"),
            [
                "f.yaml:2:11: key 'c' stands here a second time; first at f.yaml:2:5",
                "f.yaml:3:1: key 'a' stands here a second time; first at f.yaml:1:1",
            ],
        )

    def test_each_of_these_is_refused_at_its_place(self) -> None:
        table = [
            ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document begins here; expected only one"),
            ("a: !!python/object:os.system x", "f.yaml:1:4: tag 'tag:yaml.org,2002:python/object:os.system'"),
            ("a: !secret x", "f.yaml:1:4: tag '!secret' isn't allowed"),
            ("a: ! x", "f.yaml:1:4: tag '!' isn't allowed"),
            ("a: &x [*x]", "f.yaml:1:4: an alias stands inside what it stands for"),
            ("a: &x {<<: *x}", "f.yaml:1:4: a << within what << merges isn't allowed"),
            ("[a, b]: 1", "f.yaml:1:1: expected a key of plain text"),
            ("host: *.example.com", "f.yaml:1:7: quote a value that begins with *"),
            ("host: *example", "f.yaml:1:7: quote a value that begins with *"),
            ("path: %2f", "f.yaml:1:7: quote a value that begins with %"),
            ("a: b: c", "f.yaml:1:5: mapping values are not allowed"),
            ("a: [1\nb: 2", "f.yaml:2:2: "),
            ("a: 'x", "f.yaml:1:6: "),
            ("a: x\n\tb: 1", "f.yaml:2:1: "),
            ("a: \x01", "f.yaml:1:4: control character U+0001 isn't allowed here"),
            ("a:\r\n  \x00", "f.yaml:2:3: control character U+0000"),
            ("a: \udcff", "f.yaml:1:4: control character U+DCFF"),
        ]
        for text, begins in table:
            (line, *more) = problems(text)
            self.assertEqual((line[: len(begins)], more), (begins, []), text)
            self.assertNotIn("\n", line)

    def test_a_mistaken_quote_is_told_with_where_it_began(self) -> None:
        (line,) = problems("a: 1\nb: [x,\ny: 1\n")
        self.assertIn("from line 2", line)

    def test_deep_nesting_is_refused_before_anything_recurses(self) -> None:
        for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "x"):
            (line,) = problems(text)
            self.assertIn("nested more than 50 deep", line)

    def test_aliases_of_aliases_are_bounded(self) -> None:
        text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in range(1, 10):
            text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
        (line,) = problems(text)
        self.assertIn(f"aliases repeat more than {MOST_REPEATED} values", line)

    def test_a_long_list_without_aliases_has_no_such_bound(self) -> None:
        self.assertEqual(len(data("[" + "1," * (MOST_REPEATED + 10) + "]")), MOST_REPEATED + 10)


class DecodingTests(SynchronousTestCase):
    def test_bytes_that_are_no_utf_8_are_an_error_at_their_place(self) -> None:
        with self.assertRaises(YamlError) as caught:
            decoded("a: 1\nb: ü".encode() + b"\xff", "f.yaml")
        self.assertEqual(str(caught.exception), "f.yaml:2:5: byte 0xff isn't UTF-8")

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        self.assertEqual(compose(decoded(b"\xef\xbb\xbfa: 1", "f"), "f").data, {"a": 1})

    def test_utf_16_is_refused(self) -> None:
        with self.assertRaises(YamlError):
            decoded("a: 1".encode("utf-16"), "f")

    def test_an_empty_document_is_nothing(self) -> None:
        for text in ("", "\n", "# only words\n", "---\n", "--- null\n"):
            self.assertIsNone(data(text))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t<1~", max_size=40).map(str.encode))
    def test_any_bytes_give_data_or_lines_with_places(self, raw: bytes) -> None:
        try:
            compose(decoded(raw, "f.yaml"), "f.yaml")
        except YamlError as error:
            self.assertTrue(error.problems)
            for problem in error.problems:
                self.assertGreaterEqual(min(problem.place.line, problem.place.column), 1)
                self.assertTrue(f"{problem.text}".isprintable(), problem.text)
