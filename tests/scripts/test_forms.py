"""The forms of a stream function: each gives the same however the body is cut, suspends truly, and ends cleanly."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator

from greenlet import greenlet
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import Chain, Filter, FilterError, Pause
from streamproxy.scripts.calls import Calls, ScriptError
from streamproxy.scripts.forms import asker, stream_filter
from streamproxy.scripts.loop import ScriptLoop

PIECES = st.lists(st.binary(max_size=6), max_size=8)


def shout(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk.upper()
    yield b"!"


async def shout_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk.upper()
    yield b"!"


def shout_plain(chunk: bytes) -> bytes:
    return chunk.upper() or b"!"


def shout_by_letters(chunk: bytes) -> Iterable[bytes | None]:
    yield None
    for letter in chunk.upper():
        yield bytes([letter])
    if not chunk:
        yield b"!"


async def shout_plain_async(chunk: bytes) -> bytes | list[bytes]:
    await asyncio.sleep(0)
    return [chunk.upper(), b""] if chunk else b"!"


class Shout:
    def feed(self, chunk: bytes) -> memoryview:
        return memoryview(chunk.upper())

    def finish(self) -> bytearray:
        return bytearray(b"!")


class ShoutAsync:
    async def feed(self, chunk: bytes) -> bytes:
        await asyncio.sleep(0)
        return chunk.upper()

    def finish(self) -> Iterator[bytes]:
        yield b"!"


class Called:
    """Called as a function is, or as a generator function."""

    def __call__(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from shout(chunks)

    def plain(self, chunk: bytes) -> bytes:
        return shout_plain(chunk)

    def over(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from shout(chunks)


def with_option(option: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from shout(chunks)


FORMS = [
    shout,
    shout_async,
    shout_plain,
    shout_by_letters,
    shout_plain_async,
    Shout,
    Shout(),
    ShoutAsync,
    Called(),
    Called().plain,
    Called().over,
    functools.partial(with_option, "x"),
    lambda chunk: [shout_plain(chunk)],
]


class FormsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = Calls(self.clock, most=0.15)
        self.loop = ScriptLoop(self.clock, self.calls)
        self.addCleanup(self.loop.stop)

    def filter(self, function: object, flow: object = None) -> Filter:
        return stream_filter(function, "x.py:f", self.calls, self.loop, flow)

    def take(self, pieces: Iterable[bytes | Pause]) -> list[bytes]:
        """All pieces, time going on where the filter waits for it."""
        taken: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, Pause):
                for _ in range(100):
                    if not piece.over:
                        self.clock.advance(0.1)
                self.assertTrue(piece.over, f"{piece} never ends")
            else:
                self.assertIs(type(piece), bytes)
                self.assertTrue(piece)
                taken.append(piece)
        return taken

    def all_of(self, function: object, pieces: Iterable[bytes]) -> bytes:
        stage = self.filter(function)
        taken = [piece for data in pieces for piece in self.take(stage.feed(data))]
        return b"".join([*taken, *self.take(stage.finish())])

    def fails(self, function: object, *pieces: bytes) -> str:
        """What it says when it fails; what comes then makes no difference."""
        stage = self.filter(function)

        def go() -> None:
            for piece in pieces:
                self.take(stage.feed(piece))
            self.take(stage.finish())

        error = self.assertRaises(ScriptError, go)
        self.assertIsInstance(error, FilterError)
        self.assertEqual(self.take(stage.feed(b"more")), [])
        self.assertEqual(self.take(stage.finish()), [])
        stage.abort("failed")
        return str(error)


class EqualTests(FormsTestCase):
    @settings(max_examples=80, deadline=None)
    @given(PIECES)
    def test_every_form_gives_the_same_for_every_split(self, pieces: list[bytes]) -> None:
        for form in FORMS:
            self.assertEqual(self.all_of(form, pieces), b"".join(pieces).upper() + b"!", form)

    def test_a_body_without_bytes_has_its_end(self) -> None:
        for form in FORMS:
            self.assertEqual(self.all_of(form, []), b"!")

    def test_each_body_has_its_own(self) -> None:
        for form in FORMS:
            first, second = self.filter(form), self.filter(form)
            taken = [self.take(first.feed(b"a")), self.take(second.feed(b"b"))]
            taken += [self.take(first.feed(b"c")), self.take(first.finish()), self.take(second.finish())]
            self.assertEqual(taken, [[b"A"], [b"B"], [b"C"], [b"!"], [b"!"]])

    def test_what_comes_of_a_piece_comes_at_once(self) -> None:
        for form in FORMS:
            if form not in (shout_plain_async, ShoutAsync, shout_async):
                self.assertEqual(list(self.filter(form).feed(b"a")), [b"A"])

    def test_one_behind_the_other_they_are_a_chain(self) -> None:
        chain = Chain([self.filter(form) for form in FORMS])
        self.assertEqual(b"".join(self.take(chain.feed(b"a"))), b"A")
        self.assertEqual(b"".join(self.take(chain.finish())), b"!" * len(FORMS))


class GeneratorTests(FormsTestCase):
    def test_it_stands_still_between_pieces_and_between_what_it_gives(self) -> None:
        steps: list[object] = []

        def function(chunks: Iterator[bytes]) -> Iterator[bytes]:
            steps.append("begun")
            first, second = next(chunks), next(chunks)
            steps.append("read two")
            yield first
            steps.append("gave one")
            yield second
            steps.append("gave two")
            for chunk in chunks:
                steps.append(chunk)
            steps.append("end")
            yield b"end"

        stage = self.filter(function)
        self.assertEqual(steps, [])
        self.assertEqual(list(stage.feed(b"1")), [])
        self.assertEqual(steps, ["begun"])
        pieces = iter(stage.feed(b"2"))
        self.assertEqual(next(pieces), b"1")
        self.assertEqual(steps[1:], ["read two"])
        self.assertEqual(next(pieces), b"2")
        self.assertEqual(steps[2:], ["gave one"])
        self.assertEqual(list(pieces), [])
        self.assertEqual(list(stage.feed(b"3")), [])
        self.assertEqual(steps[3:], ["gave two", b"3"])
        self.assertEqual(list(stage.finish()), [b"end"])

    def test_chunks_may_be_read_wherever_it_calls(self) -> None:
        def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
            rest = b""
            for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            yield rest

        def function(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for pair in zip(*[lines(chunks)] * 2, strict=True):
                yield b"=".join(pair)

        self.assertEqual(self.all_of(function, [b"a\n", b"b", b"\nc", b"\nd"]), b"a=bc=d")

    def test_when_it_returns_early_the_rest_goes_nowhere_and_the_body_ends_well(self) -> None:
        def function(chunks: Iterator[bytes]) -> Iterator[bytes]:
            yield next(chunks)

        async def function_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk
                break

        for form in (function, function_async):
            self.assertEqual(self.all_of(form, [b"a", b"b", b"c"]), b"a")

    def test_an_endless_one_gives_as_much_as_is_asked_for(self) -> None:
        def function(chunks: Iterator[bytes]) -> Iterator[bytes]:
            while True:
                yield b"x"

        async def function_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            while True:
                yield b"x"

        for form in (function, function_async, lambda chunk: iter(lambda: b"x", None)):
            stage = self.filter(form)
            pieces = iter(stage.feed(b"a"))
            self.assertEqual([next(pieces) for _ in range(5)], [b"x"] * 5)
            stage.abort("enough")
            self.assertEqual(list(pieces), [])
            self.clock.advance(0)

    def test_chunks_are_for_nobody_else(self) -> None:
        kept: list[Iterator[bytes]] = []

        def function(chunks: Iterator[bytes]) -> Iterator[bytes]:
            kept.append(chunks)
            yield next(chunks)
            yield next(chunks)

        stage = self.filter(function)
        self.take(stage.feed(b"a"))
        self.assertRaises(RuntimeError, next, kept[0])
        self.assertEqual(self.take(stage.feed(b"b")), [b"b"])
        stage.abort("done")

    def test_one_that_is_annotated_to_take_bytes_is_called_for_each_piece(self) -> None:
        self.assertEqual(self.all_of(shout_by_letters, [b"ab", b"c"]), b"ABC!")

    def test_nothing_stays_alive_when_it_ended_failed_or_was_given_up(self) -> None:
        def failing(chunks: Iterator[bytes]) -> Iterator[bytes]:
            yield from chunks
            raise ValueError

        gc.collect()
        before = sum(isinstance(each, greenlet) for each in gc.get_objects())
        gone = []
        for ending in ("end", "failure", "abort", "forgotten"):
            stage = self.filter(failing if ending == "failure" else shout)
            gone.append(weakref.ref(stage._greenlet))  # type: ignore[attr-defined]
            self.take(stage.feed(b"a"))
            if ending == "failure":
                self.assertRaises(ScriptError, list, stage.finish())
            elif ending == "end":
                self.take(stage.finish())
            elif ending == "abort":
                stage.abort("given up")
            del stage
            if ending == "failure":
                gc.collect()  # what a test keeps of an exception
        self.assertEqual([each() for each in gone], [None] * 4)
        gc.collect()
        self.assertEqual(sum(isinstance(each, greenlet) for each in gc.get_objects()), before)


class WaitTests(FormsTestCase):
    def test_while_it_waits_the_filter_pauses(self) -> None:
        waited: list[Deferred[bytes]] = [Deferred(), Deferred(), Deferred()]
        waiting = iter(waited)

        async def over(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for _ in chunks:
                yield await next(waiting)

        async def each(chunk: bytes) -> bytes:
            return await next(waiting) if chunk else b""

        class Feeds:
            async def feed(self, chunk: bytes) -> bytes:
                return await next(waiting)

        for number, form in enumerate((over, each, Feeds)):
            stage = self.filter(form)
            pieces = iter(stage.feed(b"a"))
            pause = next(pieces)
            assert isinstance(pause, Pause)
            self.assertFalse(pause.over)
            self.assertIn("x.py:f", pause.why)
            told = []
            pause.then(lambda told=told: told.append(True))
            waited[number].callback(b"x")
            self.clock.advance(0)
            self.assertEqual(told, [True])
            self.assertEqual(list(pieces), [b"x"])
            self.assertEqual(list(stage.finish()), [])

    def test_an_async_generator_that_waits_for_nothing_gives_in_the_same_turn(self) -> None:
        async def function(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk
                yield chunk

        stage = self.filter(function)
        for _ in range(3):
            self.assertEqual(list(stage.feed(b"a")), [b"a", b"a"])
        self.assertEqual(list(stage.finish()), [])

    def test_given_up_while_it_waits_it_cleans_up(self) -> None:
        done: list[str] = []

        async def over(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            try:
                async for _ in chunks:
                    await asyncio.sleep(100)
                yield b"never"
            finally:
                done.append("over")

        async def each(chunk: bytes) -> bytes:
            try:
                await asyncio.sleep(100)
            finally:
                done.append("each")
            return b""

        for form in (over, each):
            stage = self.filter(form)
            pieces = iter(stage.feed(b"a"))
            next(pieces)
            stage.abort("given up")
            self.clock.advance(0)
        self.assertEqual(done, ["over", "each"])
        self.assertEqual(self.loop._tasks, {})


class AbortTests(FormsTestCase):
    def test_wherever_it_stands_it_cleans_up(self) -> None:
        done: list[str] = []

        def over(chunks: Iterator[bytes]) -> Iterator[bytes]:
            try:
                yield from chunks
            except GeneratorExit:
                done.append("over")
                raise

        async def over_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                done.append("async")

        def each(chunk: bytes) -> Iterator[bytes]:
            try:
                yield chunk
            finally:
                done.append("each")

        for form in (over, over_async, each):
            reading, giving, unused = self.filter(form), self.filter(form), self.filter(form)
            self.take(reading.feed(b"a"))
            pieces = iter(giving.feed(b"a"))
            self.assertEqual(next(pieces), b"a")
            before = len(done)
            for stage in (reading, giving, unused):
                stage.abort("given up")
                stage.abort("again")
                self.clock.advance(0)
            # Not merely when it is garbage. The last form has ended with the piece that was taken whole.
            self.assertEqual(len(done) - before, 1 if form is each else 2)
            self.assertEqual(list(pieces), [])
        self.assertEqual(done, ["over", "over", "async", "async", "each", "each"])

    def test_an_object_is_told_why_unless_it_has_ended(self) -> None:
        told: list[str] = []

        class Feeds:
            def feed(self, chunk: bytes) -> None: ...
            def finish(self) -> None: ...
            def abort(self, reason: str) -> None:
                told.append(reason)

        for ending in ("first", "second", "third"):
            stage = self.filter(Feeds)
            if ending != "first":
                self.take(stage.feed(b"a"))
            if ending == "third":
                self.take(stage.finish())
            stage.abort(ending)
        self.assertEqual(told, ["second"])

    def test_given_up_by_itself_it_ends_behind_the_call(self) -> None:
        done: list[str] = []

        class Feeds:
            def feed(self, chunk: bytes) -> bytes:
                stages[0].abort("by itself")
                done.append("fed")
                return chunk

            def abort(self, reason: str) -> None:
                done.append(reason)

        def over(chunks: Iterator[bytes]) -> Iterator[bytes]:
            try:
                next(chunks)
                stages[0].abort("by itself")
                yield b"never"
            finally:
                done.append("over")

        for form in (Feeds, over):
            stages = [self.filter(form)]
            self.assertEqual(self.take(stages[0].feed(b"a")), [])
        self.assertEqual(done, ["fed", "by itself", "over"])

    def test_what_fails_or_refuses_to_end_when_given_up_is_ended(self) -> None:
        def refuses(chunks: Iterator[bytes]) -> Iterator[bytes]:
            while True:
                try:
                    yield from chunks
                except GeneratorExit:
                    yield b"still here"

        def fails(chunks: Iterator[bytes]) -> Iterator[bytes]:
            try:
                yield from chunks
            finally:
                raise ValueError

        for form in (refuses, fails):
            stage = self.filter(form)
            gone = weakref.ref(stage._greenlet)  # type: ignore[attr-defined]
            self.take(stage.feed(b"a"))
            stage.abort("given up")
            self.assertIsNone(gone())


class ErrorTests(FormsTestCase):
    def test_what_it_raises_names_it(self) -> None:
        def over(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for _ in chunks:
                raise ValueError("no")
            yield b""

        async def over_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for _ in chunks:
                raise ValueError("no")
            yield b""

        def each(chunk: bytes) -> Iterator[bytes]:
            yield b"first"
            raise ValueError("no")

        async def each_async(chunk: bytes) -> None:
            raise ValueError("no")

        class Made:
            def __init__(self) -> None:
                raise ValueError("no")

            def feed(self, chunk: bytes) -> None: ...

        for form in (over, over_async, each, each_async, Made):
            self.assertIn("x.py:f raised ValueError: no (line", self.fails(form, b"a"))

    def test_nonsense_is_refused_in_words(self) -> None:
        def over(chunks: Iterator[bytes]) -> Iterator[object]:
            yield "text"

        async def over_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[object]:
            yield 5

        class Feeds:
            def feed(self, chunk: bytes) -> object:
                return {"a": 1}

        table = [
            (over, "str"),
            (over_async, "int"),
            (lambda chunk: "text", "str"),
            (lambda chunk: 5, "int"),
            (lambda chunk: ["text"], "str"),
            (Feeds, "str"),
            (lambda chunk: over_async(chunk), "async generator"),
        ]
        for form, kind in table:
            self.assertIn(kind, self.fails(form, b"a"))

    def test_what_is_no_stream_function_is_refused_at_once(self) -> None:
        class Nothing: ...

        for thing in (5, "modify", None, Nothing, Nothing()):
            self.assertRaises(ScriptError, self.filter, thing)

    def test_one_that_gives_only_empty_pieces_ends(self) -> None:
        def over(chunks: Iterator[bytes]) -> Iterator[bytes]:
            while True:
                yield b""

        for form in (over, lambda chunk: iter(lambda: b"", None)):
            self.assertIn("empty pieces", self.fails(form, b"a"))

    def test_one_that_hangs_ends(self) -> None:
        def over(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for _ in chunks:
                while True:
                    pass
            yield b""

        async def over_async(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                time.sleep(1000)
                yield chunk

        self.calls.start()
        self.addCleanup(self.calls.stop)
        for form in (over, over_async, lambda chunk: time.sleep(1000)):
            self.assertIn("didn't end", self.fails(form, b"a"))


class FlowTests(FormsTestCase):
    def test_a_class_gets_the_flow_if_it_takes_it(self) -> None:
        class Takes:
            def __init__(self, the_flow: str) -> None:
                self.flow = the_flow

            def feed(self, chunk: bytes) -> bytes:
                return self.flow.encode()

        class TakesOptions:
            def __init__(self, size: int = 4) -> None:
                self.size = size

            def feed(self, chunk: bytes) -> bytes:
                return b"%d" % self.size

        self.assertEqual(list(self.filter(Takes, "flow").feed(b"a")), [b"flow"])
        self.assertEqual(list(self.filter(TakesOptions, "flow").feed(b"a")), [b"4"])


class AskerTests(FormsTestCase):
    def ask(self, function: object, item: object = "item") -> object:
        return asker(function, "x.py:f", self.calls, self.loop, "flow")(item)

    def test_it_is_asked_with_the_item_and_with_the_flow_if_it_takes_two(self) -> None:
        self.assertEqual(self.ask(lambda item: item), "item")
        self.assertEqual(self.ask(lambda item, flow: (item, flow)), ("item", "flow"))
        self.assertEqual(self.ask(lambda item, flow=None: (item, flow)), ("item", "flow"))
        self.assertEqual(self.ask(lambda item, size=4: (item, size)), ("item", 4))

    def test_one_that_gives_nothing_for_ever_is_ended(self) -> None:
        def function(item: object) -> Iterator[bytes]:
            while True:
                yield b""

        answer = self.ask(function)
        assert isinstance(answer, Iterator)
        error = self.assertRaises(ScriptError, list, answer)
        self.assertIn("x.py:f gave nothing", str(error))

    def test_a_coroutine_is_a_pause_with_its_result(self) -> None:
        async def function(item: str) -> str:
            await asyncio.sleep(1)
            return item * 2

        pause = self.ask(function)
        assert isinstance(pause, Pause)
        self.assertFalse(pause.over)
        self.clock.advance(1)
        self.assertEqual(pause.result(), "itemitem")

    def test_an_async_generator_is_a_pause_with_a_list(self) -> None:
        async def function(item: str) -> AsyncIterator[str]:
            yield item
            yield "more"

        pause = self.ask(function)
        assert isinstance(pause, Pause)
        self.assertEqual(pause.result(), ["item", "more"])

    def test_each_step_of_a_generator_is_a_call_of_its_own(self) -> None:
        def function(item: str) -> Iterator[str]:
            yield item
            raise ValueError("no")

        items = self.ask(function)
        assert isinstance(items, Iterator)
        self.assertEqual(next(items), "item")
        self.assertIn("ValueError", str(self.assertRaises(ScriptError, next, items)))

    def test_what_is_asked_for_no_more_is_cancelled(self) -> None:
        done = []

        async def function(item: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                done.append(True)

        asks = asker(function, "x.py:f", self.calls, self.loop)
        asks("item")
        asks.cancel()
        self.clock.advance(0)
        self.assertEqual(done, [True])

    def test_what_it_raises_names_it_and_what_cant_be_called_is_refused(self) -> None:
        self.assertIn("x.py:f raised", str(self.assertRaises(ScriptError, self.ask, lambda item: 1 / 0)))
        self.assertRaises(ScriptError, self.ask, 5)
