"""Newline-delimited JSON handed to a function: the same however it is cut, and untouched where nothing is changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE, FilterError, Pause
from streamproxy.filters.lines import Lines, Record
from tests.filters.cutting import pieces, run_through, singly

BOM = b"\xef\xbb\xbf"
TOKENS = [b"{}", b'{"a":1}', b'{"a": 1.0}', b"[", b"]", b"7", b" ", b"\t", b"\n", b"\n", b"\r\n", b"\r", b"x", b"\xff"]
TOKENS += [b'"\xc3\xa9"', b"\xef", b"\xbb", BOM]
BODIES = st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 100), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def run(ask: Callable[[Record], object], parts: Iterable[bytes], most: int = 1 << 20) -> bytes:
    return run_through(Lines(ask, most), parts)


def leave(record: Record) -> None:
    """A function that changes nothing."""


def look(record: Record) -> None:
    """A function that looks at everything and changes nothing."""
    try:
        record.value = record.value
    except ValueError:
        assert record.text


def put(record: Record) -> None:
    """A function that changes a value in its place."""
    value = record.value
    assert isinstance(value, dict)
    value["new"] = "é"


class Mixed:
    """A function that answers each record in another way, and remembers what it was asked."""

    def __init__(self, first: int) -> None:
        self.number = first
        self.asked: list[tuple[bytes, str]] = []

    def __call__(self, record: Record) -> object:
        self.asked.append((record.raw, record.text))
        self.number += 1
        answers: list[Callable[[], object]] = [
            lambda: None,
            lambda: [{"before": 1}, record],
            lambda: False,
            lambda: [record, b"after", record],
            lambda: setattr(record, "value", [2]),
            lambda: (one for one in (record, Record(None))),
            lambda: {"in": "its place"},
        ]
        return answers[self.number % len(answers)]()


class CutsTests(SynchronousTestCase):
    @settings(max_examples=600, deadline=None)
    @given(BODIES | st.binary(max_size=60), CUTS)
    @example(b"\xef\xbb", [1])
    def test_a_function_that_changes_nothing_changes_no_byte(self, body: bytes, cuts: list[int]) -> None:
        self.assertEqual(run(leave, pieces(body, cuts)), body)
        self.assertEqual(run(look, singly(body)), body)
        self.assertEqual(run(lambda record: [record], singly(body)), body)

    @settings(max_examples=600, deadline=None)
    @given(BODIES, CUTS, st.integers(0, 6))
    def test_every_split_gives_the_same_calls_and_the_same_bytes(self, body: bytes, cuts: list[int], way: int) -> None:
        whole, cut, single = Mixed(way), Mixed(way), Mixed(way)
        wanted = run(whole, pieces(body, []))
        self.assertEqual(run(cut, pieces(body, cuts)), wanted)
        self.assertEqual(run(single, singly(body)), wanted)
        self.assertEqual((cut.asked, single.asked), (whole.asked, whole.asked))

    @settings(max_examples=600, deadline=None)
    @given(BODIES, CUTS)
    def test_each_line_with_anything_in_it_is_asked_about(self, body: bytes, cuts: list[int]) -> None:
        asked: list[bytes] = []
        run(lambda record: asked.append(record.raw), pieces(body, cuts))
        lines = body.removeprefix(BOM).split(b"\n")
        whole = [line.lstrip(b" \t\r") + b"\n" for line in lines[:-1]] + [lines[-1].lstrip(b" \t\r")]
        self.assertEqual(asked, [line for line in whole if line.strip()])

    @settings(max_examples=300, deadline=None)
    @given(BODIES, CUTS, st.integers(1, 15))
    def test_what_is_too_large_is_so_however_it_is_cut(self, body: bytes, cuts: list[int], most: int) -> None:
        def outcome(parts: list[bytes]) -> tuple[list[bytes], str]:
            asked: list[bytes] = []
            try:
                run(lambda record: asked.append(record.raw), parts, most)
            except FilterError as error:
                return asked, str(error)
            return asked, ""

        self.assertEqual(outcome(pieces(body, cuts)), outcome(singly(body)))
        self.assertEqual(outcome(pieces(body, [])), outcome(singly(body)))

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(VALUES, VALUES), max_size=4), st.sampled_from([b"\n", b"\r\n"]))
    def test_what_is_set_is_what_is_read(self, values: list[tuple[object, object]], end: bytes) -> None:
        body = b"".join(json.dumps(old).encode() + end for old, _ in values)
        left = iter(values)
        seen: list[object] = []

        def ask(record: Record) -> None:
            old, new = next(left)
            seen.append(record.value)
            self.assertEqual(record.value, old)
            record.value = new

        made = run(ask, singly(body))
        self.assertEqual([json.loads(line) for line in made.split(end)[:-1]], [new for _, new in values])
        self.assertEqual(seen, [old for old, _ in values])


class PassingTests(SynchronousTestCase):
    def test_what_is_decided_leaves_at_once(self) -> None:
        table: list[tuple[list[bytes], list[bytes]]] = [
            # Blanks keep connections alive: they wait for nothing.
            ([b" ", b"\n", b"\r", b"\n", b" {", b"}\r", b"\n"], [b" ", b"\n", b"\r", b"\n", b" ", b"", b"{}\r\n"]),
            ([b"{}\n{", b"}", b"\n\n[]"], [b"{}\n", b"", b"{}\n\n"]),
            ([b"\xef", b"\xbb", b"\xbf", b"{}\n"], [b"", b"", BOM, b"{}\n"]),
        ]
        for parts, wanted in table:
            stage = Lines(leave, 100)
            self.assertEqual([b"".join(stage.feed(part)) for part in parts], wanted)  # type: ignore[arg-type]

    def test_the_last_line_is_asked_about_without_an_end_and_keeps_it_so(self) -> None:
        self.assertEqual(run(put, [b'{"a":1}']), '{"a":1,"new":"é"}'.encode())
        self.assertEqual(run(lambda record: False, [b"{}\n{}"]), b"")
        self.assertEqual(run(lambda record: {"b": 2}, [b"{}"]), b'{"b":2}\n')

    def test_what_is_put_behind_a_line_without_an_end_stays_a_line_of_its_own(self) -> None:
        self.assertEqual(run(lambda record: [record, {"b": 2}], [b"{}"]), b'{}\n{"b":2}\n')
        self.assertEqual(run(lambda record: [record, record], [b"[]\r\n{}"]), b"[]\r\n[]\r\n{}\r\n{}")

    def test_small_pieces_leave_as_one_and_many_are_not_gathered(self) -> None:
        stage = Lines(leave, 100)
        self.assertEqual(list(stage.feed(b"{}\n\n[]\n")), [b"{}\n\n[]\n"])
        sizes = [len(piece) for piece in stage.feed(b'{"a":1}\n' * 40_000) if isinstance(piece, bytes)]
        self.assertLess(max(sizes), PIECE + 100)
        self.assertEqual(sum(sizes), 320_000)


class AnswerTests(SynchronousTestCase):
    def answered(self, answer: Callable[[Record], object], body: bytes = b'{"a": 1}\r\n') -> bytes:
        whole = run(answer, [body])
        self.assertEqual(run(answer, singly(body)), whole)
        return whole

    def test_an_answer_stands_in_the_place_of_the_record(self) -> None:
        def around(record: Record) -> Iterator[object]:
            yield {"before": 0}
            yield record
            yield Record([1, 2])

        table: list[tuple[Callable[[Record], object], bytes]] = [
            (lambda record: None, b'{"a": 1}\r\n'),
            (lambda record: record, b'{"a": 1}\r\n'),
            (lambda record: False, b""),
            (lambda record: [], b""),
            (lambda record: {}, b"{}\r\n"),
            (lambda record: Record("x"), b'"x"\r\n'),
            (lambda record: b"not JSON", b"not JSON\r\n"),
            (lambda record: b"[1, 2]\n", b"[1, 2]\n"),
            (lambda record: b"", b""),
            (around, b'{"before":0}\r\n{"a": 1}\r\n[1,2]\r\n'),
        ]
        for answer, wanted in table:
            self.assertEqual(self.answered(answer), wanted)

    def test_records_kept_may_go_later(self) -> None:
        kept: list[Record] = []

        def at_the_end(record: Record) -> object:
            kept.append(record)
            return kept[::-1] if record.text == "3" else False

        self.assertEqual(run(at_the_end, [b"1\n2\r\n3"]), b"3\r\n2\r\n1\n")
        self.assertEqual(self.answered(lambda record: [kept[-1], record], b"4\n"), b"3\n4\n")

    def test_anything_else_is_refused_in_words(self) -> None:
        answers: list[tuple[object, str]] = [
            (1, "a lines function returned int"),
            (True, "a lines function returned bool"),
            ("{}", "a lines function returned str"),
            ([None], "a lines function gave NoneType"),
            ([[1]], "a lines function gave list"),
        ]
        for answer, words in answers:
            error = self.assertRaises(FilterError, self.answered, lambda record, answer=answer: answer)
            self.assertEqual(str(error), words)

    def test_a_pause_stands_for_what_it_comes_to(self) -> None:
        pause = Pause("a function")
        given = iter(Lines(lambda record: pause if record.text == "2" else None, 100).feed(b"1\n2\n3\n"))
        self.assertEqual(next(given), b"1\n")
        self.assertIs(next(given), pause)
        pause.settle([{"a": 1}])
        self.assertEqual(list(given), [b'{"a":1}\n3\n'])

    def test_an_exception_comes_behind_what_was_decided_before_it(self) -> None:
        given = iter(Lines(lambda record: record.value and None, 100).feed(b"1\nx\n"))
        self.assertEqual(next(given), b"1\n")
        self.assertRaises(ValueError, next, given)


class ValueTests(SynchronousTestCase):
    def test_a_value_that_is_not_changed_is_not_written_anew(self) -> None:
        table = [
            b'{"a": 1.0, "b": 1e2, "a": 100000000000000000000000, "\\u00e9": "\\u00e9"}  \n',
            b'{"x":1e999}\n',
            b'"\\ud800"\n',
            b"-0\n",
            b"[NaN]\n",
            b"{'a': 1}\n",
            b'"\xff"\n',
            b"[" * 100_000 + b"\n",
        ]
        for body in table:
            self.assertEqual(run(look, [body]), body)

    def test_a_change_in_place_counts(self) -> None:
        self.assertEqual(run(put, [b'{"a": 1.0}\r\n']), '{"a":1.0,"new":"é"}\r\n'.encode())

    def test_a_change_that_equals_in_python_but_not_in_json_counts(self) -> None:
        for old, new in ((1, True), (1, 1.0), (0, False)):
            made = run(lambda record, new=new: setattr(record, "value", [new]), [b"[%d]\n" % old])  # type: ignore[misc]
            self.assertEqual(made, json.dumps([new]).encode() + b"\n")

    def test_what_is_no_json_has_no_value_and_can_be_given_one(self) -> None:
        for line in (b"x", b"[NaN]", b"[Infinity]", b'"\xff"', b"{'a': 1}", b"[" * 100_000, b"9" * 5000):
            seen: list[str] = []

            def ask(record: Record, seen: list[str] = seen) -> None:
                self.assertRaises(ValueError, getattr, record, "value")
                self.assertRaises(ValueError, getattr, record, "value")
                self.assertFalse(record.changed)
                seen.append(record.text)
                record.value = 5

            self.assertEqual(run(ask, [line + b"\n"]), b"5\n")
            self.assertEqual(seen, [line.decode("utf-8", "replace")])

    def test_half_of_a_surrogate_pair_is_written_as_an_escape(self) -> None:
        self.assertEqual(run(lambda record: {"é": record.value}, [b'"\\ud800"\n']), b'{"\\u00e9":"\\ud800"}\n')

    def test_what_can_t_be_written_is_refused_in_words(self) -> None:
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (float("nan"), float("inf"), {1, 2}, object(), deep):
            error = self.assertRaises(FilterError, run, lambda record, value=value: Record(value), [b"{}\n"])
            self.assertIn("a record can't be written as JSON: ", str(error))
            change = lambda record, value=value: setattr(record, "value", value)  # noqa: E731
            self.assertRaises(FilterError, run, change, [b"{}\n"])

    def test_a_record_of_one_s_own(self) -> None:
        record = Record({"a": [1]})
        self.assertEqual((record.raw, record.text, record.changed), (b"", "", True))
        self.assertEqual((record.value, bytes(record)), ({"a": [1]}, b'{"a":[1]}\n'))
        self.assertEqual(repr(record), "Record({'a': [1]})")
        self.assertEqual(bytes(Record()), b"null\n")


class BoundTests(SynchronousTestCase):
    def test_a_record_of_the_largest_size_goes_and_one_byte_more_does_not(self) -> None:
        body = b'  {"a":1}\r\n'
        self.assertEqual(run(leave, [BOM + body * 2], 9), BOM + body * 2)
        error = self.assertRaises(FilterError, run, leave, [body], 8)
        self.assertEqual(str(error), "a record is larger than 8 bytes")

    def test_blanks_are_of_any_size(self) -> None:
        self.assertEqual(run(leave, [b" " * 50] * 10 + [b"\n" * 50], 10), b" " * 500 + b"\n" * 50)

    def test_a_body_that_was_given_up_holds_nothing(self) -> None:
        stage = Lines(leave, 100)
        list(stage.feed(b"{"))
        stage.abort("gone")
        self.assertEqual(list(stage.finish()), [])


class SpeedTests(SynchronousTestCase):
    """Bounds an order of magnitude above what is seen: they catch a wrong power, not a slow machine."""

    def seconds(self, body: bytes, step: int) -> float:
        parts = [body[index : index + step] for index in range(0, len(body), step)]
        began = time.perf_counter()
        run(leave, parts, len(body))
        return time.perf_counter() - began

    def test_a_large_record_in_tiny_pieces_takes_linear_time(self) -> None:
        self.assertLess(self.seconds(b'"' + b"x" * 262_144 + b'"\n', 1), 4.0)
        self.assertLess(self.seconds(b'"' + b"x" * 1_048_576 + b'"\n', 16), 2.0)
        self.assertLess(self.seconds(b" " * 262_144, 1), 4.0)

    def test_many_tiny_records_take_linear_time(self) -> None:
        self.assertLess(self.seconds(b"1\n" * 100_000, 200_000), 4.0)
        self.assertLess(self.seconds(b"\r\n" * 100_000, 200_000), 2.0)
