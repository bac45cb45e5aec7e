"""Server-sent events handed to a function: read as the standard says, and the same however the body is cut."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE, FilterError, Pause
from streamproxy.filters.events import Event, Events
from tests.filters.cutting import pieces, run_through, singly

BOM = b"\xef\xbb\xbf"
TOKENS = [b"data", b"data:", b"data: ", b"id: ", b"event:", b"retry:", b":", b" ", b"x", b"7", b"\0", b"\n", b"\n\n"]
TOKENS += [b"\r", b"\r\n", b"\r\n\r\n", b"\r\r", b"\xef", b"\xbb", b"\xff", b"\xc3\xa9", BOM]
BODIES = st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=8)


def run(ask: Callable[[Event], object], parts: Iterable[bytes], most: int = 1 << 20) -> bytes:
    return run_through(Events(ask, most), parts)


def leave(event: Event) -> None:
    """A function that changes nothing."""


def said(body: bytes, cuts: Iterable[int] = ()) -> list[tuple[str, str, str | None, int | None]]:
    """What the function was asked about."""
    asked: list[tuple[str, str, str | None, int | None]] = []

    def ask(event: Event) -> None:
        asked.append((event.data, event.event, event.id, event.retry))

    run(ask, pieces(body, cuts))
    return asked


def by_the_standard(body: bytes) -> list[tuple[str, str, str | None, int | None]]:
    """The events of a body, line by line over decoded text; the last block counts without its blank line."""
    text = body.decode("utf-8", "replace")
    if body.startswith(BOM):
        text = text[1:]
    events: list[tuple[str, str, str | None, int | None]] = []
    data, kind, last_id, retry = "", "", None, None
    for line in [*re.split("\r\n|\n|\r", text), ""]:
        if not line:
            if data:
                events.append((data[:-1], kind, last_id, retry))
            data, kind, last_id, retry = "", "", None, None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            kind = value
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and re.fullmatch("[0-9]{1,18}", value):
            retry = int(value)
    return events


class Mixed:
    """A function that answers each event in another way, and remembers what it was asked."""

    def __init__(self, first: int) -> None:
        self.number = first
        self.asked: list[bytes] = []

    def __call__(self, event: Event) -> object:
        self.asked.append(event.raw)
        self.number += 1
        answers: list[Callable[[], object]] = [
            lambda: None,
            lambda: [Event("before"), event],
            lambda: False,
            lambda: [event, "after", event],
            lambda: setattr(event, "data", event.data + "\nmore"),
            lambda: (one for one in (event, b":raw\n\n")),
            lambda: setattr(event, "id", "new"),
            lambda: setattr(event, "data", event.data),
            lambda: "in its\nplace",
        ]
        return answers[self.number % len(answers)]()


class CutsTests(SynchronousTestCase):
    @settings(max_examples=800, deadline=None)
    @given(BODIES | st.binary(max_size=60), CUTS)
    @example(b"\xef\xbb", [1])
    @example(b"data: x\r\n\r\n", [10])
    def test_a_function_that_changes_nothing_changes_no_byte(self, body: bytes, cuts: list[int]) -> None:
        self.assertEqual(run(leave, pieces(body, cuts)), body)
        self.assertEqual(run(lambda event: [event], singly(body)), body)

    @settings(max_examples=800, deadline=None)
    @given(BODIES, CUTS, st.integers(0, 8))
    def test_every_split_gives_the_same_calls_and_the_same_bytes(self, body: bytes, cuts: list[int], way: int) -> None:
        whole, cut, single = Mixed(way), Mixed(way), Mixed(way)
        wanted = run(whole, pieces(body, []))
        self.assertEqual(run(cut, pieces(body, cuts)), wanted)
        self.assertEqual(run(single, singly(body)), wanted)
        self.assertEqual((cut.asked, single.asked), (whole.asked, whole.asked))

    @settings(max_examples=800, deadline=None)
    @given(BODIES, CUTS)
    def test_what_is_asked_is_what_the_standard_dispatches(self, body: bytes, cuts: list[int]) -> None:
        self.assertEqual(said(body, cuts), by_the_standard(body))

    @settings(max_examples=400, deadline=None)
    @given(BODIES, CUTS, st.integers(1, 30))
    def test_what_is_too_large_is_so_however_it_is_cut(self, body: bytes, cuts: list[int], most: int) -> None:
        def outcome(parts: list[bytes]) -> tuple[bytes, str]:
            stage = Events(leave, most)
            out = b""
            try:
                for part in parts:
                    for piece in stage.feed(part):
                        assert isinstance(piece, bytes)
                        out += piece
            except FilterError as error:
                return out, str(error)
            return out, ""

        self.assertEqual(outcome(pieces(body, cuts)), outcome(singly(body)))
        self.assertEqual(outcome(pieces(body, [])), outcome(singly(body)))

    @settings(max_examples=500, deadline=None)
    @given(BODIES, st.integers(0, 8))
    def test_what_is_written_reads_as_what_was_meant(self, body: bytes, way: int) -> None:
        meant: list[tuple[str, str, str | None, int | None]] = []

        def ask(event: Event) -> object:
            if way & 1:
                event.data = " a\r\n\nb" + event.data
            if way & 2:
                event.id = None if event.id else "9"
            if way & 4:
                event.event, event.retry = "note", 5
            meant.append((event.data, event.event, event.id, event.retry))
            fresh = Event(event.data, event.event, event.id, event.retry)
            meant.append(meant[-1])
            return [event, fresh]

        # (An event's type may have a NUL when it comes, but none may be made with it.)
        self.assertEqual(said(run(ask, [body.replace(b"\0", b"")])), meant)


class ReadingTests(SynchronousTestCase):
    def test_fields_are_read_as_the_standard_has_it(self) -> None:
        table = [
            (b"data: x\n\n", ("x", "", None, None)),
            (b"data:x\r\r", ("x", "", None, None)),
            (b"data:  x \r\n\r\n", (" x ", "", None, None)),
            (b"data\n\n", ("", "", None, None)),
            (b"data\ndata\n\n", ("\n", "", None, None)),
            (b"data: a\n: remark\ndata: b\rdata:c\r\n\n", ("a\nb\nc", "", None, None)),
            (b"event: e\nid: 1\nretry: 007\ndata: x\n\n", ("x", "e", "1", 7)),
            (b"id\ndata: x\nevent\n\n", ("x", "", "", None)),
            (b"id: 1\nid: 2\0\nretry: 5s\nretry: \nretry: -1\ndata: x\n\n", ("x", "", "1", None)),
            (b"retry: " + b"9" * 5000 + b"\ndata: x\n\n", ("x", "", None, None)),
            (b"Data: no\ndatas: no\n data: no\ndata: x\n\n", ("x", "", None, None)),
            (b"data: a\xff\xe2\x82\n\n", ("a\ufffd\ufffd", "", None, None)),
            (BOM + b"data: x\n\n", ("x", "", None, None)),
        ]
        for body, wanted in table:
            self.assertEqual(said(body), [wanted], body)

    def test_blocks_without_data_are_nobody_s_question(self) -> None:
        for body in (
            b": ping\n\n",
            b"id: 5\n\n",
            b"event: x\r\rretry: 1\r\r",
            b"x\n\n\n\n",
            BOM + BOM + b"data: x\n\n",
        ):
            self.assertEqual(said(body), [], body)

    def test_raw_is_the_event_as_it_came(self) -> None:
        for raw in (b"data: x\n\n", b"data: x\r\r", b"data: \xff\r\n\r\n", b"id: 1\n: remark\ndata\n\n"):
            for parts in ([raw], singly(raw)):
                seen: list[bytes] = []
                run(lambda event, seen=seen: seen.append(event.raw), [BOM + b": ping\n\n", *parts])  # type: ignore[misc]
                self.assertEqual(seen, [raw])

    def test_data_is_read_as_json(self) -> None:
        seen: list[object] = []
        run(lambda event: seen.append(event.json()), [b'data: {"a":\ndata: [1]}\n\n'])
        self.assertEqual(seen, [{"a": [1]}])
        for text in ("[DONE]", "", "[" * 100_000):
            self.assertRaises(ValueError, Event(text).json)


class PassingTests(SynchronousTestCase):
    def test_what_is_decided_leaves_at_once(self) -> None:
        table: list[tuple[list[bytes], list[bytes]]] = [
            # Comments, byte by byte, and blank lines.
            ([b":", b" p", b"ing\n", b"\n", b"\r", b"\n"], [b":", b" p", b"ing\n", b"\n", b"\r", b"\n"]),
            # A CR doesn't wait for its LF; one that comes passes.
            ([b"data: x\r\n", b"\r", b"\n", b"data: y"], [b"", b"data: x\r\n\r", b"\n", b""]),
            ([b"data: x\r", b"\r", b"data: y\r\r"], [b"", b"data: x\r\r", b"data: y\r\r"]),
            # A comment inside of an event belongs to it, one behind it doesn't.
            (
                [b"data: x\n: in\n", b"\n: out\n", b"id: 1\n", b"\n"],
                [b"", b"data: x\n: in\n\n: out\n", b"", b"id: 1\n\n"],
            ),
            ([b"\xef", b"\xbb", b"\xbf", b"data", b"\n\n"], [b"", b"", BOM, b"", b"data\n\n"]),
            ([b"\n\ndata: x", b"\n\n"], [b"\n\n", b"data: x\n\n"]),
        ]
        for parts, wanted in table:
            stage = Events(leave, 100)
            self.assertEqual([b"".join(stage.feed(part)) for part in parts], wanted)  # type: ignore[arg-type]

    def test_the_last_event_is_asked_about_though_it_isn_t_ended_and_keeps_its_end(self) -> None:
        for end in (b"", b"\n", b"\r", b"\r\n"):
            self.assertEqual(said(b"data: x" + end), [("x", "", None, None)])
            self.assertEqual(run(leave, [b"data: x" + end]), b"data: x" + end)
            self.assertEqual(run(lambda event: setattr(event, "data", "y"), [b"data: x" + end]), b"data: y" + end)
        self.assertEqual(run(lambda event: False, [BOM + b"data: x"]), BOM)
        self.assertEqual(said(b"id: x"), [])

    def test_what_is_put_behind_an_event_that_isn_t_ended_stays_an_event_of_its_own(self) -> None:
        for body in (
            b"data: x",
            b"data: x\n",
            b"data: x\r",
            b"data: x\r\n",
            b"data: a\ndata: x\r",
            b"data: a\rdata: x\n",
        ):
            made = run(lambda event: [event, "y", event], [body])
            first = said(body)[0]
            self.assertEqual(said(made), [first, ("y", "", None, None), first], body)
            self.assertTrue(made.endswith(body))
            self.assertEqual(run(lambda event: [event, b"", b""], [body]), body)

    def test_small_pieces_leave_as_one_and_many_are_not_gathered(self) -> None:
        stage = Events(leave, 100)
        self.assertEqual(list(stage.feed(b"data: x\n\n: ping\n\ndata: y\n\n")), [b"data: x\n\n: ping\n\ndata: y\n\n"])
        sizes = [len(piece) for piece in stage.feed(b"data: x\n\n" * 40_000) if isinstance(piece, bytes)]
        self.assertLess(max(sizes), PIECE + 100)
        self.assertEqual(sum(sizes), 360_000)


class AnswerTests(SynchronousTestCase):
    body = b": ping\n\nid: 1\ndata: x\n\n"

    def answered(self, answer: Callable[[Event], object], body: bytes = body) -> bytes:
        whole = run(answer, [body])
        self.assertEqual(run(answer, singly(body)), whole)
        return whole

    def test_an_answer_stands_in_the_place_of_the_event(self) -> None:
        def around(event: Event) -> Iterator[object]:
            yield "before"
            yield event
            yield b": after\n\n"

        table: list[tuple[Callable[[Event], object], bytes]] = [
            (lambda event: None, b"id: 1\ndata: x\n\n"),
            (lambda event: event, b"id: 1\ndata: x\n\n"),
            (lambda event: False, b""),
            (lambda event: [], b""),
            (lambda event: iter(()), b""),
            (lambda event: "a\nb", b"data: a\ndata: b\n\n"),
            (lambda event: "", b"data: \n\n"),
            (lambda event: b"raw", b"raw"),
            (lambda event: Event("y", event="e", id="", retry=3), b"event: e\nid: \nretry: 3\ndata: y\n\n"),
            (around, b"data: before\n\nid: 1\ndata: x\n\n: after\n\n"),
            (lambda event: (event, event), b"id: 1\ndata: x\n\nid: 1\ndata: x\n\n"),
        ]
        for answer, wanted in table:
            self.assertEqual(self.answered(answer), b": ping\n\n" + wanted)

    def test_others_take_the_line_end_of_the_event(self) -> None:
        self.assertEqual(
            self.answered(lambda event: ["a", event, Event("b")], b"data: x\r\n\r\n"),
            b"data: a\r\n\r\ndata: x\r\n\r\ndata: b\r\n\r\n",
        )
        self.assertEqual(self.answered(lambda event: [event, "b"], b"data: x\r\r"), b"data: x\r\rdata: b\r\r")

    def test_the_lf_behind_a_cr_goes_the_way_of_its_event(self) -> None:
        body = b"data: x\r\n\r\ndata: y\r\n\r\n"
        self.assertEqual(self.answered(lambda event: None if event.data == "y" else False, body), b"data: y\r\n\r\n")
        self.assertEqual(self.answered(lambda event: None if event.data == "x" else [], body), b"data: x\r\n\r\n")
        self.assertEqual(self.answered(lambda event: "z", body), b"data: z\r\n\r\n" * 2)
        self.assertEqual(self.answered(lambda event: [event, b""], body), body)
        # That of a blank line further on isn't it.
        self.assertEqual(self.answered(lambda event: False, b"data: x\r\r\r\n"), b"\r\n")

    def test_events_kept_may_go_later(self) -> None:
        kept: list[Event] = []

        def in_pairs(event: Event) -> object:
            kept.append(event)
            if len(kept) < 2:
                return False
            pair = list(reversed(kept))
            kept.clear()
            return pair

        body = b"data: 1\r\n\r\ndata: 2\r\n\r\ndata: 3\r\n\r\ndata: 4\r\n\r\n"
        self.assertEqual(re.findall(rb"\d", self.answered(in_pairs, body)), [b"2", b"1", b"4", b"3"])

    def test_an_event_from_the_end_of_another_body_is_ended(self) -> None:
        kept: list[Event] = []
        run(lambda event: kept.append(event), [b"data: last"])
        self.assertEqual(self.answered(lambda event: [kept[0], event]), b": ping\n\ndata: last\n\nid: 1\ndata: x\n\n")

    def test_anything_else_is_refused_in_words(self) -> None:
        answers: list[tuple[object, str]] = [
            (1, "an events function returned int"),
            (True, "an events function returned bool"),
            ({"data": "x"}, "an events function returned dict"),
            ([None], "an events function gave NoneType"),
            (["x", 2.0], "an events function gave float"),
        ]
        for answer, words in answers:
            error = self.assertRaises(FilterError, self.answered, lambda event, answer=answer: answer)
            self.assertEqual(str(error), words)

    def test_an_exception_comes_behind_what_was_decided_before_it(self) -> None:
        def ask(event: Event) -> Iterator[object]:
            yield "a"
            raise KeyError("b")

        stage = Events(ask, 100)
        given = iter(stage.feed(b": ping\n\ndata: x\n\n"))
        self.assertEqual(next(given), b": ping\n\ndata: a\n\n")
        self.assertRaises(KeyError, next, given)

    def test_a_generator_is_asked_as_pieces_are_taken(self) -> None:
        asked: list[int] = []

        def ask(event: Event) -> Iterator[str]:
            for number in range(1_000_000):
                asked.append(number)
                yield "x" * 1000

        given = iter(Events(ask, 100).feed(b"data: x\n\n"))
        self.assertEqual(asked, [])
        next(given)
        self.assertLess(len(asked), 100)
        next(given)
        self.assertLess(len(asked), 200)

    def test_a_pause_stands_for_what_it_comes_to(self) -> None:
        for result, wanted in ((None, b"data: x\n\n"), (False, b""), ("y", b"data: y\n\n"), (["a"], b"data: a\n\n")):
            first, second = Pause("one"), Pause("two")
            pauses = iter([first])
            given = iter(Events(lambda event, pauses=pauses: next(pauses, "z"), 100).feed(b"data: x\n\ndata: w\n\n"))
            self.assertIs(next(given), first)
            first.settle(second)
            self.assertIs(next(given), second)
            second.settle(result)
            self.assertEqual(list(given), [wanted + b"data: z\n\n"])

    def test_what_was_decided_doesn_t_wait_for_a_pause(self) -> None:
        pause = Pause("a function")
        given = iter(Events(lambda event: pause if event.data == "x" else None, 100).feed(b"data: a\n\ndata: x\n\n"))
        self.assertEqual(next(given), b"data: a\n\n")
        self.assertIs(next(given), pause)
        pause.fail(KeyError("gone"))
        self.assertRaises(KeyError, next, given)

    def test_a_pause_among_others_may_come_to_nothing(self) -> None:
        pauses = [Pause("one"), Pause("two")]
        given = iter(Events(lambda event: [event, *pauses, "end"], 100).feed(b"data: x\n\n"))
        self.assertEqual((next(given), next(given)), (b"data: x\n\n", pauses[0]))
        pauses[0].settle("y")
        self.assertEqual((next(given), next(given)), (b"data: y\n\n", pauses[1]))
        pauses[1].settle(None)
        self.assertEqual(list(given), [b"data: end\n\n"])


class ChangingTests(SynchronousTestCase):
    def changed(self, body: bytes, **values: object) -> bytes:
        def ask(event: Event) -> None:
            for name, value in values.items():
                setattr(event, name, value)

        whole = run(ask, [body])
        self.assertEqual(run(ask, singly(body)), whole)
        return whole

    def test_only_the_lines_of_what_was_set_are_written_anew(self) -> None:
        body = b": remark\nx: y\n: inside\nid:1\ndata:a\nretry:9\ndata:\xff\nevent:e\n\n"
        table: list[tuple[dict[str, object], bytes]] = [
            (
                {"data": "n\r\nm\ro"},
                body.replace(b"data:a\n", b"data: n\ndata: m\ndata: o\n").replace(b"data:\xff\n", b""),
            ),
            ({"id": "2"}, body.replace(b"id:1", b"id: 2")),
            ({"id": None}, body.replace(b"id:1\n", b"")),
            ({"event": ""}, body.replace(b"event:e\n", b"")),
            ({"event": "é"}, body.replace(b"event:e", "event: é".encode())),
            ({"retry": 0, "id": ""}, body.replace(b"id:1", b"id: ").replace(b"retry:9", b"retry: 0")),
            ({"data": "a\n\ufffd", "id": "1", "event": "e", "retry": 9}, body),
        ]
        for values, wanted in table:
            self.assertEqual(self.changed(body, **values), wanted)

    def test_fields_that_were_not_there_come_first(self) -> None:
        self.assertEqual(
            self.changed(b"x\ndata:a\n\n", id="1", event="e", retry=2), b"event: e\nid: 1\nretry: 2\nx\ndata:a\n\n"
        )

    def test_the_line_end_is_kept(self) -> None:
        for end in (b"\n", b"\r", b"\r\n"):
            body = end.join([b"id: 1", b"data: x", b"", b""])
            self.assertEqual(self.changed(body, data="y\nz"), end.join([b"id: 1", b"data: y", b"data: z", b"", b""]))

    def test_an_id_with_nul_that_browsers_ignore_is_replaced(self) -> None:
        self.assertEqual(self.changed(b"id: \0\ndata: x\n\n", id="1"), b"id: 1\ndata: x\n\n")

    def test_bytes_of_an_event_are_what_goes_on(self) -> None:
        event = Event("a\nb", id="7")
        self.assertEqual((bytes(event), event.raw, event.changed), (b"id: 7\ndata: a\ndata: b\n\n", b"", True))
        seen: list[tuple[bytes, bool, bytes]] = []
        run(lambda event: seen.append((bytes(event), event.changed, event.raw)), [b"data: x\r\n\r\n"])
        self.assertEqual(seen, [(b"data: x\r\n\r\n", False, b"data: x\r\n\r\n")])

    def test_what_can_t_be_written_is_refused_when_it_is_set(self) -> None:
        event = Event("x", id="1")
        bad: list[tuple[str, object, type[Exception]]] = [
            ("id", "a\nb", ValueError),
            ("id", "a\rb", ValueError),
            ("id", "\0", ValueError),
            ("id", 5, TypeError),
            ("event", "a\n", ValueError),
            ("event", "\0", ValueError),
            ("event", None, TypeError),
            ("data", "\ud800", ValueError),
            ("data", b"x", TypeError),
            ("retry", -1, ValueError),
            ("retry", 10**18, ValueError),
            ("retry", "5", TypeError),
            ("retry", True, TypeError),
        ]
        for name, value, error in bad:
            self.assertRaises(error, setattr, event, name, value)
            if name != "data":
                self.assertRaises(error, lambda name=name, value=value: Event("x", **{name: value}))
        self.assertRaises(TypeError, Event, None)
        self.assertEqual(bytes(event), b"id: 1\ndata: x\n\n")
        self.assertEqual(repr(event), "Event('x', event='', id='1', retry=None)")


class BoundTests(SynchronousTestCase):
    def test_an_event_of_the_largest_size_goes_and_one_byte_more_does_not(self) -> None:
        body = b"data: 678\n\n"
        self.assertEqual(run(leave, [BOM + body * 2], len(body)), BOM + body * 2)
        error = self.assertRaises(FilterError, run, leave, [body], len(body) - 1)
        self.assertEqual(str(error), "an event is larger than 10 bytes")

    def test_comments_and_blank_lines_are_of_any_size(self) -> None:
        body = b":" + b"x" * 100 + b"\n" * 100
        self.assertEqual(run(leave, [body], 10), body)
        self.assertEqual(run(leave, singly(body), 10), body)

    def test_what_came_before_leaves_before_the_body_is_given_up(self) -> None:
        given = iter(Events(leave, 10).feed(b"data: x\n\n" + b"data: too large\n\n"))
        self.assertEqual(next(given), b"data: x\n\n")
        self.assertRaises(FilterError, next, given)

    def test_a_body_that_was_given_up_holds_nothing(self) -> None:
        stage = Events(leave, 100)
        list(stage.feed(b"data: x"))
        stage.abort("gone")
        stage.abort("gone")
        self.assertEqual(stage._held, b"")


class SpeedTests(SynchronousTestCase):
    """Bounds an order of magnitude above what is seen: they catch a wrong power, not a slow machine."""

    def seconds(self, body: bytes, step: int, ask: Callable[[Event], object] = leave) -> float:
        parts = [body[index : index + step] for index in range(0, len(body), step)]
        began = time.perf_counter()
        run(ask, parts, len(body))
        return time.perf_counter() - began

    def test_a_large_event_in_tiny_pieces_takes_linear_time(self) -> None:
        self.assertLess(self.seconds(b"data: " + b"x" * 262_144 + b"\n\n", 1), 4.0)
        self.assertLess(self.seconds(b"data: " + b"x" * 1_048_576 + b"\n\n", 16), 2.0)

    def test_an_event_of_many_lines_takes_linear_time(self) -> None:
        for end in (b"\n", b"\r", b"\r\n"):
            body = (b"data: x" + end) * 100_000 + end
            self.assertLess(self.seconds(body, 65536), 2.0)
        self.assertLess(self.seconds(body, 16), 4.0)
        self.assertLess(self.seconds(body, 65536, lambda event: setattr(event, "data", event.data + "y")), 4.0)

    def test_many_tiny_events_take_linear_time(self) -> None:
        self.assertLess(self.seconds(b"data\n\n" * 50_000, 300_000), 4.0)
        self.assertLess(self.seconds(b"\r\n" * 150_000, 300_000), 4.0)
