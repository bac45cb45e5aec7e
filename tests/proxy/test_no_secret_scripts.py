"""A secret in events and records that functions change, and in bodies that scripts stream: they never see it."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from streamproxy.filters.events import Event
from streamproxy.filters.lines import Record
from tests.conversation import settings_of
from tests.proxy.test_no_secret_in_heads import as_read
from tests.proxy.test_no_secret_leaves import (
    FRAMINGS,
    MESSAGES,
    PATTERNS,
    PUT,
    REQUEST,
    RESPONSE,
    SECRET,
    Pattern,
    SecretTestCase,
    Watched,
    in_singles,
    in_two,
    rules,
)
from tests.proxy.test_rules_on_messages import POST, WAYS

HERE = __name__
NAMES = ("literal", "regex", "regex without an end", "regex that looks around")
EVENTS = (
    b"data: it is SSK-01\n\ndata: " + SECRET + b"\ndata: " + SECRET + b"!\n\ndata: SK-012\n\n:3456789\n\ndata: x\n\n"
)
LINES = b'{"a": "SSK-01"}\n{"a": "' + SECRET + b'", "b": "' + SECRET + b'."}\r\n{"a": "SK-"}\n{"a": "0123456789"}\n'
# What functions were shown.
seen: list[bytes] = []


def on_event(event: Event) -> object:
    """Changes every event, so that none goes on as it came."""
    seen.append(event.data.encode())
    return [Event(event.data, event="seen"), event]


def on_record(record: Record) -> None:
    seen.append(record.text.encode())
    record.value["seen"] = True


def over_chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        seen.append(chunk)
        yield b"<" + chunk + b">"


async def over_async_chunks(chunks):
    async for chunk in chunks:
        seen.append(chunk)
        yield b"<" + chunk + b">"


def of_bytes(data: bytes) -> bytes:
    seen.append(data)
    return b"<" + data + b">" if data else b""


class Fed:
    def __init__(self) -> None:
        self.kept = b""

    def feed(self, chunk: bytes) -> bytes:
        """Gives all but the last byte, and that when more comes."""
        seen[:] = [b"".join(seen) + chunk]
        given, self.kept = (self.kept + chunk)[:-1], (self.kept + chunk)[-1:]
        return given

    def finish(self) -> bytes:
        return self.kept


def joined(chunks: bytes) -> bytes:
    return chunks.replace(b"<", b"").replace(b">", b"")


class FunctionTests(SecretTestCase):
    def setUp(self) -> None:
        seen.clear()

    def watch_function(
        self, key: str, pattern: Pattern, body: bytes, whole: Callable[[bytes], bytes], ways: tuple[str, ...] = (*WAYS,)
    ) -> None:
        """Whatever arrives is the beginning of what `whole` makes of the body without its secrets, and the end all."""
        for way in ways:
            settings = settings_of(rules(pattern, way, f", {key}"))
            for message in MESSAGES:
                for framing in (FRAMINGS[message][0], FRAMINGS[message][2]):
                    for parts in (*in_two(body), in_singles(body), [body]):
                        watched = Watched(settings, message)
                        watched.begin()
                        text = b""
                        seen.clear()
                        for step in framing(parts):
                            watched.take(step)
                            text += step.content
                            shown = pattern.settled(text) if step.ends else pattern.decided(text)
                            self.assertTrue(whole(shown).startswith(joined(watched.body)), (way, step))
                            self.assertFalse(b"SK-" in b"".join(seen) and b"SK-" not in shown, (way, step))
                        self.assertEqual(joined(watched.body), whole(pattern.settled(body)))
                        self.assertIn(PUT, b"".join(seen))
                        self.assertNotIn(SECRET, b"".join(seen))

    def of_events(self, text: bytes) -> bytes:
        """What `on_event` makes of the events that are whole in a text (the last one too, if it is the end)."""
        made = b""
        for block in text.split(b"\n\n"):
            if block.startswith(b"data"):
                made += b"event: seen\n" + block + b"\n\n" + block + b"\n\n"
            elif block:
                made += block + b"\n\n"
        return made

    def of_lines(self, text: bytes) -> bytes:
        made = b""
        for line in text.splitlines(keepends=True):
            end = line[len(line.rstrip()) :]
            if end.endswith(b"\n"):
                value = {**json.loads(line), "seen": True}
                made += json.dumps(value, separators=(",", ":")).encode() + end
        return made

    def test_events_that_a_function_changes(self) -> None:
        for name in NAMES:
            self.watch_function(f"events: '{HERE}:on_event'", PATTERNS[name], EVENTS, self.of_events, ("streamed",))
        self.watch_function(f"events: '{HERE}:on_event'", PATTERNS["literal"], EVENTS, self.of_events)

    def test_records_that_a_function_changes(self) -> None:
        for name in NAMES:
            self.watch_function(f"lines: '{HERE}:on_record'", PATTERNS[name], LINES, self.of_lines, ("streamed",))
        self.watch_function(f"lines: '{HERE}:on_record'", PATTERNS["literal"], LINES, self.of_lines)

    def test_pieces_that_a_stream_function_changes(self) -> None:
        body = b"it is SK-01 or " + SECRET + b" so"
        for function in ("over_chunks", "of_bytes", "Fed"):
            for name in NAMES:
                self.watch_function(f"transform: '{HERE}:{function}'", PATTERNS[name], body, bytes)

    def test_pieces_that_an_asynchronous_stream_function_changes(self) -> None:
        body = b"it is " + SECRET + b" so"
        for name in ("literal", "regex without an end"):
            key = f"transform: '{HERE}:over_async_chunks'"
            self.watch_function(key, PATTERNS[name], body, bytes, ("streamed",))

    def test_a_body_that_is_cut_inside_the_secret_shows_a_function_no_part_of_it(self) -> None:
        for function in ("over_chunks", "of_bytes", "Fed"):
            settings = settings_of(rules(PATTERNS["literal"], more=f", transform: '{HERE}:{function}'"))
            for message in MESSAGES:
                for size in range(1, len(SECRET)):
                    watched = Watched(settings, message)
                    watched.begin(b"Content-Length: 99\r\n\r\nit is " + SECRET[:size])
                    watched.source.reset()
                    watched.settle()
                    self.assertNotIn(b"S", b"".join(seen))
                    self.assertTrue(b"it is ".startswith(joined(watched.body)))


class HookTests(SecretTestCase):
    """Scripts that change heads or bodies beside a rule that takes secrets out."""

    ZIPPED = gzip.compress(b"it is " + SECRET)

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.script = Path(folder.name, "script.py")

    def carried(self, hook: str, fields: bytes, body: bytes, more: str = "") -> Iterator[Watched]:
        """A message with `body` in each direction and way, where a script's `hook` has its say (`m`: the message)."""
        for message in MESSAGES:
            self.script.write_text(hook.replace("MESSAGE", message))
            for way in WAYS:
                text = rules(PATTERNS["literal"], way, keys=f"scripts: ['{self.script}']\n") + more
                watched = Watched(settings_of(text), message)
                start = POST if message == REQUEST else b"HTTP/1.1 200 OK\r\n"
                watched.say(start + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                yield watched

    def nothing_leaves(self, watched: Watched) -> None:
        """The secret isn't there for who takes the bytes as they are, who believes the head, or who tries gzip."""
        self.assertNotIn(SECRET, watched.wire)
        self.assertNotIn(SECRET, as_read(watched.wire), watched.message)
        with contextlib.suppress(OSError, EOFError):
            self.assertNotIn(SECRET, gzip.decompress(watched.body), watched.message)

    def test_a_hook_is_shown_a_held_body_without_it_and_what_it_makes_of_that_goes_on(self) -> None:
        hook = "def MESSAGE(flow):\n    if flow.MESSAGE.content is not None:\n        flow.MESSAGE.text += '!'\n"
        for watched in self.carried(hook, b"Content-Encoding: gzip\r\n", self.ZIPPED):
            self.assertEqual(gzip.decompress(watched.body).rstrip(b"!"), b"it is " + PUT)

    def test_a_stream_function_of_a_script_s_own_sees_none_of_it(self) -> None:
        hook = (
            "def twice(chunk):\n    return chunk + chunk\ndef MESSAGEheaders(flow):\n    flow.MESSAGE.stream = twice\n"
        )
        for fields, body in ((b"", b"it is " + SECRET), (b"Content-Encoding: gzip\r\n", self.ZIPPED)):
            for watched in self.carried(hook, fields, body):
                text = gzip.decompress(watched.body) if fields else watched.body
                self.assertEqual(text.count(PUT), 2)
                self.assertEqual(len(text), 2 * len(b"it is " + PUT))

    def test_a_hook_that_takes_the_coding_out_of_the_head_hides_nothing(self) -> None:
        for change in ("headers.pop('content-encoding')", "headers['content-encoding'] = 'identity'"):
            hook = f"def MESSAGEheaders(flow):\n    flow.MESSAGE.{change}\n"
            for watched in self.carried(hook, b"Content-Encoding: gzip\r\n", self.ZIPPED):
                self.nothing_leaves(watched)

    def test_a_hook_that_names_another_coding_hides_nothing(self) -> None:
        for coding in ("br", "dcz", "gzip"):
            hook = f"def MESSAGEheaders(flow):\n    flow.MESSAGE.headers['content-encoding'] = '{coding}'\n"
            for watched in self.carried(hook, b"Content-Encoding: gzip\r\n", self.ZIPPED):
                self.nothing_leaves(watched)
        for coding in ("br", "gzip"):
            hook = f"def MESSAGEheaders(flow):\n    flow.MESSAGE.headers['content-encoding'] = '{coding}'\n"
            for watched in self.carried(hook, b"", self.ZIPPED):
                self.nothing_leaves(watched)

    def test_a_hook_that_names_a_coding_when_the_body_is_there_hides_nothing(self) -> None:
        hook = "def MESSAGE(flow):\n    flow.MESSAGE.headers['content-encoding'] = 'gzip'\n"
        for watched in self.carried(hook, b"", self.ZIPPED):
            self.nothing_leaves(watched)

    def test_a_rule_that_takes_the_coding_out_of_the_head_hides_nothing_where_there_are_scripts(self) -> None:
        for edits in (
            "{remove: Content-Encoding}",
            "{set: {Content-Encoding: identity}}",
            "{set: {Content-Encoding: br}}",
        ):
            more = f"  - {{request: {{headers: {edits}}}, response: {{headers: {edits}}}}}\n"
            for watched in self.carried(
                "def error(flow):\n    pass\n", b"Content-Encoding: gzip\r\n", self.ZIPPED, more
            ):
                self.nothing_leaves(watched)

    def test_a_status_that_a_hook_changes_makes_no_whole_body_of_a_part(self) -> None:
        self.script.write_text("def responseheaders(flow):\n    flow.response.status_code = 200\n")
        for way in WAYS:
            text = rules(PATTERNS["literal"], way, keys=f"scripts: ['{self.script}']\n")
            watched = Watched(settings_of(text), RESPONSE)
            watched.say(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 19\r\n\r\nit is " + SECRET)
            self.assertTrue(watched.wire.startswith(b"HTTP/1.1 502 "))
            self.assertNotIn(b"SK", watched.wire)
