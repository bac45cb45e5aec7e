"""Header fields: order, case and repetition kept; looked up without case."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.fields import read_fields
from streamproxy.wire.headers import NO_HEADERS, Headers, field_lines
from streamproxy.wire.message import WireError

FIELDS = Headers(
    [(b"Host", b"a"), (b"X-One", b"1"), (b"ACCEPT", b"b"), (b"x-one", b"2"), (b"Via", b""), (b"X-ONE", b"3")]
)


class HeadersTests(SynchronousTestCase):
    def test_order_case_and_repetition_are_kept(self) -> None:
        names = [name for name, _ in FIELDS]
        self.assertEqual(names, [b"Host", b"X-One", b"ACCEPT", b"x-one", b"Via", b"X-ONE"])
        self.assertEqual(len(FIELDS), 6)

    def test_a_field_is_found_by_its_lower_case_name_whatever_its_case(self) -> None:
        self.assertEqual(FIELDS.get(b"accept"), b"b")
        self.assertIn(b"host", FIELDS)

    def test_a_field_is_not_found_by_another_case(self) -> None:
        self.assertIsNone(FIELDS.get(b"Host"))
        self.assertNotIn(b"ACCEPT", FIELDS)

    def test_the_lines_of_a_field_are_joined_in_order(self) -> None:
        self.assertEqual(FIELDS.get(b"x-one"), b"1, 2, 3")
        self.assertEqual(FIELDS.lines(b"x-one"), [b"1", b"2", b"3"])

    def test_an_empty_field_is_there(self) -> None:
        self.assertEqual(FIELDS.get(b"via"), b"")
        self.assertEqual(FIELDS.lines(b"via"), [b""])
        self.assertIn(b"via", FIELDS)

    def test_two_empty_lines_of_a_field_are_two(self) -> None:
        headers = Headers([(b"A", b""), (b"a", b"")])
        self.assertEqual(headers.lines(b"a"), [b"", b""])
        self.assertEqual(headers.count(b"a"), 2)

    def test_a_missing_field_has_no_lines(self) -> None:
        self.assertIsNone(FIELDS.get(b"cookie"))
        self.assertEqual(FIELDS.lines(b"cookie"), [])
        self.assertEqual(FIELDS.tokens(b"cookie"), [])

    def test_lines_are_counted(self) -> None:
        self.assertEqual([FIELDS.count(name) for name in (b"x-one", b"host", b"via", b"cookie")], [3, 1, 1, 0])

    def test_changing_the_list_of_lines_changes_no_headers(self) -> None:
        FIELDS.lines(b"x-one").append(b"4")
        FIELDS.lines(b"host").append(b"b")
        self.assertEqual(FIELDS.count(b"x-one"), 3)
        self.assertEqual(FIELDS.lines(b"host"), [b"a"])

    def test_tokens_are_lower_case_and_none_is_empty(self) -> None:
        headers = Headers([(b"Connection", b"Close, ,\tUpgrade ,"), (b"connection", b",TE")])
        self.assertEqual(headers.tokens(b"connection"), [b"close", b"upgrade", b"te"])

    def test_without_takes_out_every_line_of_a_name(self) -> None:
        left = FIELDS.without([b"x-one", b"via", b"cookie"])
        self.assertEqual(left.fields, ((b"Host", b"a"), (b"ACCEPT", b"b")))
        self.assertNotIn(b"x-one", left)

    def test_without_what_is_not_there_makes_no_copy(self) -> None:
        self.assertIs(FIELDS.without([b"cookie"]), FIELDS)

    def test_replacing_puts_one_line_in_the_place_of_the_first(self) -> None:
        changed = FIELDS.replacing(b"X-one", b"9")
        self.assertEqual(changed.fields, ((b"Host", b"a"), (b"X-One", b"9"), (b"ACCEPT", b"b"), (b"Via", b"")))

    def test_replacing_what_is_not_there_puts_it_at_the_end(self) -> None:
        self.assertEqual(FIELDS.replacing(b"New", b"v").fields, (*FIELDS.fields, (b"New", b"v")))

    def test_adding_puts_fields_at_the_end_and_replaces_none(self) -> None:
        more = FIELDS.adding((b"host", b"b"), (b"Z", b"z"))
        self.assertEqual(more.fields, (*FIELDS.fields, (b"host", b"b"), (b"Z", b"z")))
        self.assertEqual(more.lines(b"host"), [b"a", b"b"])

    def test_an_edit_leaves_the_original_as_it_was(self) -> None:
        before = FIELDS.fields
        FIELDS.replacing(b"host", b"c")
        FIELDS.adding((b"a", b"b"))
        FIELDS.without([b"host"])
        self.assertEqual(FIELDS.fields, before)
        self.assertEqual(FIELDS.get(b"host"), b"a")

    def test_headers_are_equal_by_their_fields_in_order_and_case(self) -> None:
        same = Headers(list(FIELDS))
        self.assertEqual(same, FIELDS)
        self.assertEqual(hash(same), hash(FIELDS))
        self.assertNotEqual(Headers([(b"a", b"1"), (b"b", b"2")]), Headers([(b"b", b"2"), (b"a", b"1")]))
        self.assertNotEqual(Headers([(b"a", b"1")]), Headers([(b"A", b"1")]))
        self.assertNotEqual(NO_HEADERS, ())

    def test_repr_shows_the_fields(self) -> None:
        self.assertEqual(repr(Headers([(b"a", b"1")])), "Headers([(b'a', b'1')])")

    def test_fields_are_written_one_a_line(self) -> None:
        self.assertEqual(field_lines(Headers(FIELDS.fields[:2])), b"Host: a\r\nX-One: 1\r\n")
        self.assertEqual(field_lines(NO_HEADERS), b"")


class ReadFieldsTests(SynchronousTestCase):
    def test_white_space_around_a_value_is_not_part_of_it(self) -> None:
        headers = read_fields(b"a: \t1 \t\r\nb:2\r\nc:\r\nd:   \r\n\r\n", 0, 9)
        self.assertEqual(headers.fields, ((b"a", b"1"), (b"b", b"2"), (b"c", b""), (b"d", b"")))

    def test_white_space_and_colons_within_a_value_are_kept(self) -> None:
        self.assertEqual(read_fields(b"a: 1 \t 2: \xff3\r\n\r\n", 0, 9).get(b"a"), b"1 \t 2: \xff3")

    def test_every_token_character_may_stand_in_a_name(self) -> None:
        name = b"!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"
        self.assertEqual(read_fields(name + b": v\r\n\r\n", 0, 9).fields, ((name, b"v"),))

    def test_no_other_character_may(self) -> None:
        token = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        for code in set(range(256)) - token - set(b":"):
            with self.assertRaises(WireError, msg=hex(code)):
                read_fields(b"a%cb: v\r\n\r\n" % code, 0, 9)

    def test_of_the_control_bytes_only_a_tab_may_stand_in_a_value(self) -> None:
        for code in [*range(32), 127]:
            line = b"a: 1%c2\r\n\r\n" % code
            if code == 9:
                self.assertEqual(read_fields(line, 0, 9).get(b"a"), b"1\t2")
            else:
                with self.assertRaises(WireError, msg=hex(code)):
                    read_fields(line, 0, 9)

    def test_every_other_byte_may(self) -> None:
        value = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
        self.assertEqual(read_fields(b"a: " + value + b"\r\n\r\n", 0, 9).get(b"a"), value)

    def test_what_stands_before_the_start_is_not_read(self) -> None:
        self.assertEqual(read_fields(b"GET: x\r\na: 1\r\n\r\n", 8, 9).fields, ((b"a", b"1"),))

    def test_the_empty_line_alone_is_no_fields(self) -> None:
        self.assertEqual(read_fields(b"\r\n", 0, 9), NO_HEADERS)

    def test_as_many_fields_as_allowed_are_read_and_not_one_more(self) -> None:
        self.assertEqual(len(read_fields(b"a:\r\n" * 9 + b"\r\n", 0, 9)), 9)
        with self.assertRaises(WireError) as caught:
            read_fields(b"a:\r\n" * 10 + b"\r\n", 0, 9)
        self.assertEqual(caught.exception.status, 431)

    def test_the_reason_names_what_is_wrong_wherever_it_stands(self) -> None:
        table = {
            b" a: 1": "a folded field line",
            b"\ta": "a folded field line",
            b"a": "a field line without a colon",
            b"a : 1": "white space between a field's name and its colon",
            b"a\t: 1": "white space between a field's name and its colon",
            b": 1": "a field name with a character that may not stand there",
            b"a b: 1": "a field name with a character that may not stand there",
            b"\xe9: 1": "a field name with a character that may not stand there",
            b"a: \0": "a control character in the value of a field",
            b"a: \x0b1": "a control character in the value of a field",
            b"a: 1\x7f": "a control character in the value of a field",
            b"a: 1\nb: 2": "a line that ends with a bare LF",
            b"a: 1\rb: 2": "a bare CR in a field",
            b"a: 1\r": "a bare CR in a field",
        }
        for line, reason in table.items():
            for before, after in ((b"x: 1\r\n", b""), (b"x: 1\r\ny: 2\r\n", b"z: 3\r\n")):
                with self.assertRaises(WireError) as caught:
                    read_fields(before + line + b"\r\n" + after + b"\r\n", 0, 9)
                self.assertEqual((caught.exception.reason, caught.exception.status), (reason, 400), line)

    def test_white_space_before_the_first_field_has_its_own_words(self) -> None:
        with self.assertRaises(WireError) as caught:
            read_fields(b" a: 1\r\n\r\n", 0, 9)
        self.assertEqual(caught.exception.reason, "white space before the first field")
