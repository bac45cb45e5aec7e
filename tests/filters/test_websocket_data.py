"""What is kept of a WebSocket's messages: the window, its bounds, the counters, and what can't be changed any more."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.tap import Budget
from streamproxy.filters.websocket import MOST_MESSAGES, Counted, Opcode, WebSocketData, WebSocketMessage
from tests.wire.reading import property_of

PLENTY = 1 << 30


def text(content: bytes = b"hello", from_client: bool = True) -> WebSocketMessage:
    return WebSocketMessage(Opcode.TEXT, from_client, content, 1000.5)


def binary(content: bytes = b"hello", from_client: bool = True) -> WebSocketMessage:
    return WebSocketMessage(Opcode.BINARY, from_client, content, 1000.5)


def contents(data: WebSocketData) -> list[bytes]:
    return [message.content for message in data.messages]


def counts(counted: Counted) -> tuple[int, ...]:
    return counted.messages, counted.bytes, counted.dropped, counted.injected


# (what is done, with which WebSocket, with a message of which size or in which place)
STEPS = st.lists(
    st.tuples(st.sampled_from(["show", "keep", "keep", "keep new", "forget"]), st.booleans(), st.integers(0, 40)),
    max_size=60,
)


class MessageTests(SynchronousTestCase):
    def test_it_is_text_or_binary_and_nothing_else(self) -> None:
        for type, is_text in ((1, True), (2, False), (Opcode.TEXT, True), (Opcode.BINARY, False)):
            message = WebSocketMessage(type, True, b"")
            self.assertEqual((message.type, message.is_text), (Opcode(type), is_text))
            self.assertIs(message.type, Opcode(type))
        for type in (0, 3, 8):
            with self.assertRaises(ValueError):
                WebSocketMessage(type, True, b"")

    def test_its_parts_are_told(self) -> None:
        message = WebSocketMessage(2, False, b"abc", 7.5, True, True)
        self.assertEqual((message.from_client, message.content, message.timestamp), (False, b"abc", 7.5))
        self.assertEqual((message.dropped, message.injected, message.size), (True, True, 3))
        self.assertEqual((message.cut, message.streamed, message.changed), (False, False, False))
        plain = WebSocketMessage(2, True, b"")
        self.assertEqual((plain.timestamp, plain.dropped, plain.injected), (None, False, False))

    def test_other_bytes_change_it_and_the_same_bytes_do_not(self) -> None:
        message = binary(b"abc")
        message.content = b"ab" + b"c"
        self.assertFalse(message.changed)
        message.content = b"ABCD"
        self.assertEqual((message.content, message.changed, message.size), (b"ABCD", True, 3))
        message.content = b"ABCD"
        self.assertTrue(message.changed)

    def test_content_is_bytes_and_text_is_a_str(self) -> None:
        message = text()
        for wrong in ("abc", bytearray(b"abc"), memoryview(b"abc"), None, 5):
            with self.assertRaises(TypeError):
                message.content = wrong  # type: ignore[assignment]
        for wrong in (b"abc", None, 5):
            with self.assertRaises(TypeError):
                message.text = wrong  # type: ignore[assignment]
        self.assertEqual((message.content, message.changed), (b"hello", False))

    def test_text_is_utf_8(self) -> None:
        message = text("grün".encode())
        self.assertEqual(message.text, "grün")
        message.text = "weiß"
        self.assertEqual((message.content, message.changed), ("weiß".encode(), True))
        message.content = b"\xff"
        with self.assertRaises(UnicodeDecodeError):
            _ = message.text
        with self.assertRaises(UnicodeEncodeError):
            message.text = "\ud800"

    def test_text_that_is_cut_ends_before_a_character_that_is_not_whole(self) -> None:
        whole = "aü€😀"
        for size in range(len(whole.encode()) + 1):
            data = WebSocketData(size, Budget(PLENTY))
            message = text(whole.encode())
            data.keep(message)
            self.assertEqual(message.text, whole.encode()[:size].decode(errors="ignore"))
        broken = text(b"a\xc3")
        with self.assertRaises(UnicodeDecodeError):
            _ = broken.text

    def test_binary_has_no_text(self) -> None:
        message = binary()
        with self.assertRaises(AttributeError):
            _ = message.text
        with self.assertRaises(AttributeError):
            message.text = "x"
        self.assertEqual(message.content, b"hello")
        self.assertFalse(hasattr(message, "text"))

    def test_it_is_dropped_in_three_ways(self) -> None:
        first, second, third = text(), text(), text()
        first.drop()
        second.kill()
        third.dropped = True
        self.assertEqual((first.dropped, second.dropped, third.dropped), (True, True, True))
        third.dropped = False
        self.assertFalse(third.dropped)

    def test_what_streamed_or_has_gone_by_can_not_be_changed(self) -> None:
        streamed, gone = text(), text()
        streamed.streamed = True
        WebSocketData(PLENTY, Budget(PLENTY)).keep(gone)
        for message, words in ((streamed, "streams"), (gone, "gone by")):
            for change in (message.drop, message.kill, lambda m=message: setattr(m, "dropped", True)):
                with self.assertRaisesRegex(ValueError, words):
                    change()
            with self.assertRaisesRegex(ValueError, words):
                message.content = b"other"
            with self.assertRaisesRegex(ValueError, words):
                message.text = "other"
            self.assertEqual((message.content, message.dropped, message.changed), (b"hello", False, False))

    def test_its_repr_is_short_whatever_it_holds(self) -> None:
        self.assertEqual(repr(text()), "<WebSocketMessage from the client, text, 5 bytes: b'hello'>")
        message = binary(b"\x00" * 100_000, from_client=False)
        self.assertTrue(repr(message).startswith("<WebSocketMessage from the origin, binary, 100000 bytes: b'\\x00"))
        self.assertTrue(repr(message).endswith("'...>"))
        self.assertLess(len(repr(message)), 300)

    def test_a_copy_is_its_own(self) -> None:
        message = text()
        message.content = b"other words"
        message.cut = True
        copy = message.copy()
        for name in ("type", "from_client", "content", "timestamp", "dropped", "injected", "size", "cut", "changed"):
            self.assertEqual(getattr(copy, name), getattr(message, name), name)
        copy.content = b"x"
        copy.drop()
        self.assertEqual((message.content, message.dropped), (b"other words", False))


class WindowTests(SynchronousTestCase):
    @property_of(400)
    @given(STEPS, st.integers(0, 60), st.integers(0, 150))
    def test_whatever_goes_through_the_windows_stay_within_limit_and_budget(
        self, steps: list[tuple[str, bool, int]], limit: int, left: int
    ) -> None:
        budget = Budget(left)
        sides = {False: WebSocketData(limit, budget), True: WebSocketData(limit, budget)}
        shown: dict[bool, list[WebSocketMessage]] = {False: [], True: []}
        gone: dict[bool, list[tuple[WebSocketMessage, bytes]]] = {False: [], True: []}
        for number, (what, side, size) in enumerate(steps):
            data = sides[side]
            if what == "show":
                message = text(bytes([number]) * size, from_client=size % 2 == 0)
                shown[side].append(message)
                data.show(message)
                self.assertIs(data.messages[-1], message)
                self.assertEqual(message.content, bytes([number]) * size)
            elif what == "forget":
                if data.messages:
                    message = data.messages[size % len(data.messages)]
                    data.forget(message)
                    self.assertNotIn(message, data.messages)
                    shown[side] = [other for other in shown[side] if other is not message]
                    gone[side] = [entry for entry in gone[side] if entry[0] is not message]
            else:
                if what == "keep new" or not shown[side]:
                    message = text(bytes([number]) * size)
                else:
                    message = shown[side].pop(size % len(shown[side]))
                content = message.content
                mine = sum(len(kept.content) for kept, _ in gone[side] if kept in data.messages)
                room = min(len(content), limit, budget.left + mine)
                data.keep(message)
                gone[side].append((message, content))
                self.assertEqual(message.content, content[:room], "the newest has all that there is")
            held = 0
            for one, data in sides.items():
                kept = data.messages[: len(data.messages) - len(shown[one])]
                self.assertEqual(data.messages[len(kept) :], shown[one], "those that are looked at come last")
                newest = gone[one][len(gone[one]) - len(kept) :]
                self.assertEqual(kept, [message for message, _ in newest], "the newest of those that have gone by")
                for message, content in newest:
                    self.assertTrue(content.startswith(message.content))
                    self.assertEqual((message.cut, message.size), (message.content != content, len(content)))
                total = sum(len(message.content) for message in kept)
                self.assertLessEqual(total, limit)
                held += total
            self.assertEqual(budget.left, left - held)
            self.assertGreaterEqual(budget.left, 0)
        before = [contents(sides[False]), contents(sides[True])]
        for _ in range(2):
            sides[False].release()
            sides[True].release()
            self.assertEqual(budget.left, left)
        self.assertEqual([contents(sides[False]), contents(sides[True])], before)
        for data in sides.values():
            for message in data.messages:
                data.forget(message)
        self.assertEqual(budget.left, left)

    @property_of(200)
    @given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 60))
    def test_where_there_is_budget_the_window_is_as_many_of_the_newest_as_the_limit_holds(
        self, sizes: list[int], limit: int
    ) -> None:
        data = WebSocketData(limit, Budget(PLENTY))
        for number, size in enumerate(sizes):
            data.keep(binary(bytes([number]) * size))
        expected: list[bytes] = []
        room = limit
        for number, size in reversed(list(enumerate(sizes))):
            if min(size, limit) > room:
                break
            room -= min(size, limit)
            expected.insert(0, bytes([number]) * min(size, limit))
        self.assertEqual(contents(data), expected)

    def test_it_has_so_many_messages_and_no_more_however_small_they_are(self) -> None:
        for content in (b"", b"x"):
            data = WebSocketData(PLENTY, Budget(PLENTY))
            for _ in range(MOST_MESSAGES + 5):
                data.keep(text(content))
            self.assertEqual(len(data.messages), MOST_MESSAGES)
            oldest = data.messages[0]
            looked_at = text()
            data.show(looked_at)
            self.assertEqual(len(data.messages), MOST_MESSAGES)
            self.assertNotIn(oldest, data.messages)
            data.keep(looked_at)
            self.assertEqual(len(data.messages), MOST_MESSAGES)
            self.assertEqual(data.from_client.messages, MOST_MESSAGES + 6)

    def test_a_message_that_is_looked_at_is_whole_and_nobodys_budget_pays_for_it(self) -> None:
        budget = Budget(10)
        data = WebSocketData(4, budget)
        message = text(b"x" * 1000)
        data.show(message)
        self.assertEqual((len(message.content), message.cut, budget.left), (1000, False, 10))
        message.content = b"y" * 2000
        data.keep(message)
        self.assertEqual((message.content, message.cut, message.size, budget.left), (b"yyyy", True, 1000, 6))

    def test_a_large_message_does_not_stay_in_memory_by_its_beginning(self) -> None:
        data = WebSocketData(1000, Budget(PLENTY))
        tracemalloc.start()
        try:
            message = binary(bytes(8 << 20))
            data.show(message)
            self.assertGreater(tracemalloc.get_traced_memory()[0], 8 << 20)
            data.keep(message)
            self.assertLess(tracemalloc.get_traced_memory()[0], 1 << 16)
        finally:
            tracemalloc.stop()

    def test_where_the_budget_is_others_a_message_is_kept_without_content(self) -> None:
        budget = Budget(5)
        first, second = WebSocketData(10, budget), WebSocketData(10, budget)
        first.keep(text(b"12345"))
        second.keep(text(b"abc"))
        self.assertEqual((contents(first), contents(second)), ([b"12345"], [b""]))
        self.assertTrue(second.messages[0].cut)
        first.keep(text(b"67"))
        self.assertEqual(contents(first), [b"67"], "its own are forgotten for it")
        second.keep(text(b"defg"))
        self.assertEqual((contents(second), budget.left), ([b"", b"def"], 0))

    def test_a_message_is_kept_and_counted_once(self) -> None:
        budget = Budget(100)
        data = WebSocketData(50, budget)
        message = text()
        data.keep(message)
        data.keep(message)
        self.assertEqual((data.messages, budget.left, counts(data.from_client)), ([message], 95, (1, 5, 0, 0)))

    def test_forgetting_takes_out_what_is_there_and_leaves_the_counts(self) -> None:
        budget = Budget(100)
        data = WebSocketData(50, budget)
        shown, kept, other = text(), text(), text()
        data.show(shown)
        data.keep(kept)
        for message in (shown, kept, other):
            data.forget(message)
        self.assertEqual((data.messages, budget.left, counts(data.from_client)), ([], 100, (1, 5, 0, 0)))

    def test_the_list_is_the_callers_own(self) -> None:
        data = WebSocketData(50, Budget(100))
        data.keep(text())
        data.messages.clear()
        self.assertEqual(len(data.messages), 1)

    def test_setting_the_list_forgets_what_is_not_in_it_and_adds_nothing(self) -> None:
        budget = Budget(100)
        data = WebSocketData(50, budget)
        first, second, shown = text(b"1"), text(b"2"), text(b"3")
        data.keep(first)
        data.keep(second)
        data.show(shown)
        data.messages = [text(), shown, second]
        self.assertEqual((data.messages, budget.left), ([second, shown], 99))
        data.messages = []
        self.assertEqual((data.messages, budget.left), ([], 100))

    def test_when_it_is_over_what_it_has_can_be_read_and_costs_nothing(self) -> None:
        budget = Budget(100)
        data = WebSocketData(50, budget)
        data.keep(text(b"early"))
        data.release()
        data.keep(text(b"late"))
        self.assertEqual((contents(data), budget.left), ([b"early", b""], 100))
        self.assertEqual(counts(data.from_client), (2, 9, 0, 0))


class CountTests(SynchronousTestCase):
    def test_each_side_is_counted_by_itself(self) -> None:
        data = WebSocketData(0, Budget(0))
        dropped = text(b"123")
        dropped.drop()
        for message in (text(b"1"), dropped, text(b"12345", from_client=False)):
            data.keep(message)
        self.assertEqual((counts(data.from_client), counts(data.from_origin)), ((2, 4, 1, 0), (1, 5, 0, 0)))

    def test_a_message_that_is_looked_at_is_not_counted_until_it_has_gone_by(self) -> None:
        data = WebSocketData(0, Budget(0))
        message = text(b"123")
        data.show(message)
        self.assertEqual(counts(data.from_client), (0, 0, 0, 0))
        data.keep(message)
        self.assertEqual(counts(data.from_client), (1, 3, 0, 0))

    def test_what_a_script_made_is_not_what_a_side_sent(self) -> None:
        data = WebSocketData(0, Budget(0))
        for dropped in (False, True):
            data.keep(WebSocketMessage(1, False, b"made", dropped=dropped, injected=True))
        self.assertEqual((counts(data.from_client), counts(data.from_origin)), ((0, 0, 0, 0), (0, 0, 1, 2)))

    def test_a_changed_message_counts_as_it_came(self) -> None:
        data = WebSocketData(0, Budget(0))
        message = text(b"hello")
        message.content = b"hello to all of you"
        data.keep(message)
        self.assertEqual(counts(data.from_client), (1, 5, 0, 0))

    def test_one_that_streamed_counts_all_that_went_by(self) -> None:
        data = WebSocketData(10, Budget(10))
        message = binary(b"begin")
        message.streamed, message.cut, message.size = True, True, 1 << 30
        data.keep(message)
        self.assertEqual((counts(data.from_client), contents(data)), ((1, 1 << 30, 0, 0), [b"begin"]))
        self.assertTrue(message.cut)


class InjectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = WebSocketData(100, Budget(100))
        self.made: list[WebSocketMessage] = []
        self.data.injector = self.made.append

    def test_a_str_goes_as_text_and_bytes_as_binary_unless_said_otherwise(self) -> None:
        for content, is_text, type in (
            ("grün", None, Opcode.TEXT),
            ("grün", True, Opcode.TEXT),
            ("grün", False, Opcode.BINARY),
            ("grün".encode(), None, Opcode.BINARY),
            ("grün".encode(), True, Opcode.TEXT),
            ("grün".encode(), False, Opcode.BINARY),
        ):
            for to_client in (True, False):
                self.data.inject(to_client, content, is_text)
                message = self.made.pop()
                self.assertEqual((message.type, message.content), (type, "grün".encode()))
                self.assertEqual((message.from_client, message.injected), (not to_client, True))
        self.assertEqual(self.data.messages, [], "who sends it shows and keeps it")

    def test_what_is_no_text_is_not_sent_as_text(self) -> None:
        for content in (b"\xff", b"a\xc3", "\ud800"):
            with self.assertRaises(ValueError):
                self.data.inject(True, content, True)
        self.data.inject(True, b"\xff", False)
        for wrong in (bytearray(b"x"), 5, None):
            with self.assertRaises(TypeError):
                self.data.inject(True, wrong)  # type: ignore[arg-type]
        self.assertEqual(len(self.made), 1)

    def test_nothing_is_injected_where_nothing_can_be_sent(self) -> None:
        self.data.streamed = True
        with self.assertRaisesRegex(ValueError, "streams"):
            self.data.inject(True, "x")
        self.data.streamed = False
        self.data._end = 5.0
        with self.assertRaisesRegex(ValueError, "over"):
            self.data.inject(True, "x")
        self.data._end = None
        self.data.injector = None
        with self.assertRaisesRegex(ValueError, "over"):
            self.data.inject(True, "x")
        self.assertEqual(self.made, [])


class CopyTests(SynchronousTestCase):
    def test_a_copy_has_all_that_is_known_and_nothing_that_lives(self) -> None:
        budget = Budget(100)
        data = WebSocketData(50, budget)
        data.injector = lambda message: None
        kept, shown = text(b"kept"), text(b"shown")
        data.keep(kept)
        data.show(shown)
        data.from_origin.pings = 3
        data.closed(1000, "bye", True)
        copy = data.copy()
        self.assertEqual((contents(copy), repr(copy)), ([b"kept", b"shown"], "<WebSocketData (2 messages)>"))
        self.assertEqual((copy.closed_by_client, copy.close_code, copy.close_reason), (True, 1000, "bye"))
        self.assertEqual((copy.from_client.messages, copy.from_origin.pings), (1, 3))
        self.assertIs(copy.injector, None)
        copy.messages[1].content = b"other"
        with self.assertRaisesRegex(ValueError, "gone by"):
            copy.messages[0].content = b"other"
        copy.from_client.messages = 9
        self.assertEqual((shown.content, data.from_client.messages), (b"shown", 1))
        copy.messages = []
        copy.release()
        self.assertEqual((len(data.messages), budget.left), (2, 96))
