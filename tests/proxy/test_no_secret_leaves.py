"""A secret that a rule takes out never leaves, wherever a read, a chunk or a piece cuts it: neither whole nor in part.

It is looked for on the other side at every moment, not only at the end: after each thing that one side says, exactly
what is decided by then has arrived of the body.

What ends, limits, codings, TLS and scripts add to this stands in the other `test_no_secret_*`, which use what is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import PIECE
from streamproxy.settings import Settings
from tests.conversation import Stage, settings_of
from tests.fakes import TCP, TLS, BoundedTransport
from tests.proxy.test_rules_on_messages import GET, HELD, POST, WAYS

SECRET = b"SK-0123456789"
PUT = b"(gone)"
# Beginnings that come to nothing, one of which overlaps the secret; and one secret right behind another.
BODY = b"it is SSK-01 or SK-SSK-0123456789 and SK-9876543210" + SECRET + b" so it was"
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)\r\n")
REQUEST, RESPONSE = "request", "response"
MESSAGES = (REQUEST, RESPONSE)


class Pattern(NamedTuple):
    """Something to find: as a rule says it; as one pass would; and what may become it, at the end of a text."""

    rule: str
    whole: re.Pattern[bytes]
    open: re.Pattern[bytes]

    def decided(self, text: bytes) -> bytes:
        """What may have left when a body has come so far."""
        found = self.open.search(text)
        return self.whole.sub(PUT, text if found is None else text[: found.start()])

    def settled(self, text: bytes) -> bytes:
        """What has left when this was the whole body."""
        return self.whole.sub(PUT, text)


def _beginnings(text: bytes) -> bytes:
    return b"|".join(re.escape(text[:size]) for size in range(len(text) - 1, 0, -1))


_OTHERS = ", ".join(f"{{find: QQ-{number}, with: x}}" for number in range(70))
PATTERNS = {
    "literal": Pattern(
        "{find: SK-0123456789, with: (gone)}",
        re.compile(re.escape(SECRET)),
        re.compile(rb"(?:" + _beginnings(SECRET) + rb")\Z"),
    ),
    "one of many literals": Pattern(
        f"{{find: SK-0123456789, with: (gone)}}, {_OTHERS}",
        re.compile(re.escape(SECRET)),
        re.compile(rb"(?:" + _beginnings(SECRET) + rb")\Z"),
    ),
    "regex": Pattern(
        "{regex: 'SK-[0-9]{10}', with: (gone)}",
        re.compile(rb"SK-[0-9]{10}"),
        re.compile(rb"(?:S|SK|SK-[0-9]{0,9})\Z"),
    ),
    "regex without an end": Pattern(
        "{regex: 'SK-[0-9]{4,}', with: (gone)}",
        re.compile(rb"SK-[0-9]{4,}"),
        re.compile(rb"(?:S|SK|SK-[0-9]*)\Z"),
    ),
    "regex that looks around": Pattern(
        "{regex: '\\bSK-[0-9]{10}(?![0-9])', with: (gone)}",
        re.compile(rb"\bSK-[0-9]{10}(?![0-9])"),
        re.compile(rb"\b(?:S|SK|SK-[0-9]{0,10})\Z"),
    ),
}


def rules(pattern: Pattern, way: str = "streamed", more: str = "", keys: str = "") -> str:
    """A configuration that takes out what `pattern` finds; `more` of the rule's part, and `keys` beside the rules."""
    part = f"{{replace: [{pattern.rule}]{more}}}"
    return f"{keys}{WAYS[way]}  - {{name: hush, request: {part}, response: {part}}}\n"


class Step(NamedTuple):
    """Bytes on the wire, what of the body is in them, and whether that is its end (`closes`: by the connection's)."""

    wire: bytes
    content: bytes = b""
    ends: bool = False
    closes: bool = False


def with_length(parts: list[bytes]) -> Iterator[Step]:
    yield Step(b"Content-Length: %d\r\n\r\n" % len(b"".join(parts)))
    for number, part in enumerate(parts, 1):
        yield Step(part, part, number == len(parts))


def in_one_chunk(parts: list[bytes]) -> Iterator[Step]:
    yield Step(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(b"".join(parts)))
    for part in parts:
        yield Step(part, part)
    yield Step(b"\r\n0\r\n\r\n", ends=True)


def in_chunks(parts: list[bytes]) -> Iterator[Step]:
    yield Step(b"Transfer-Encoding: chunked\r\n\r\n")
    for part in parts:
        yield Step(b"%x\r\n%b\r\n" % (len(part), part), part)
    yield Step(b"0\r\n\r\n", ends=True)


def until_close(parts: list[bytes]) -> Iterator[Step]:
    yield Step(b"\r\n")
    for part in parts:
        yield Step(part, part)
    yield Step(b"", ends=True, closes=True)


# How the parts of a body may come: as reads of one frame, or as chunks.
FRAMINGS = {
    REQUEST: (with_length, in_one_chunk, in_chunks),
    RESPONSE: (with_length, in_one_chunk, in_chunks, until_close),
}


def body_in(wire: bytes) -> bytes:
    """As much as has come of the body of the message at the front of `wire`, without the chunks around it."""
    head, _, rest = wire.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while (size := CHUNK_SIZE.match(rest)) is not None and int(size[1], 16):
        end = size.end() + int(size[1], 16)
        body += rest[size.end() : end]
        rest = rest[end + 2 :]
    return body


class Watched:
    """A message on its way through the proxy, and what the other side has seen of it by now."""

    def __init__(self, settings: Settings, message: str, manner: str = TCP, asks: bytes = GET) -> None:
        self.message = message
        self.stage = Stage(settings, manner)
        self.client = self.stage.client()
        if message == RESPONSE:
            self.client.say(asks)
            self.stage.settle(self.client)

    @property
    def source(self) -> BoundedTransport:
        """Who sends the message."""
        return self.client if self.message == REQUEST else self.stage.origin

    @property
    def reader(self) -> BoundedTransport | None:
        """Who gets it; None before there is anybody."""
        if self.message == RESPONSE:
            return self.client
        return self.stage.origin if self.stage.pool.made else None

    @property
    def wire(self) -> bytes:
        """All that the reader has seen."""
        return b"" if self.reader is None else bytes(self.reader.heard)

    @property
    def body(self) -> bytes:
        return body_in(self.wire)

    def begin(self, fields: bytes = b"") -> None:
        """Send the head, up to its last fields."""
        self.say((POST if self.message == REQUEST else b"HTTP/1.1 200 OK\r\n") + fields)

    def say(self, *reads: bytes) -> None:
        self.source.say(*reads)
        self.settle()

    def settle(self) -> None:
        self.stage.settle(self.client)

    def take(self, step: Step) -> None:
        """What a step says."""
        if step.wire:
            self.say(step.wire)
        if step.closes:
            self.source.end()
            self.settle()


class SecretTestCase(SynchronousTestCase):
    def watch(
        self,
        settings: Settings,
        message: str,
        pattern: Pattern,
        steps: Iterable[Step],
        held: bool = False,
        manner: str = TCP,
    ) -> None:
        """Take the steps; after each, what has arrived is what may have: nothing before the end, if `held`."""
        watched = Watched(settings, message, manner)
        watched.begin()
        text = b""
        for number, step in enumerate(steps):
            watched.take(step)
            text += step.content
            due = pattern.settled(text) if step.ends else b"" if held else pattern.decided(text)
            if watched.body != due:
                self.assertEqual(watched.body, due, (message, pattern.rule[:60], number, step, manner))
        self.assertNotIn(SECRET, watched.wire)


def in_two(text: bytes) -> Iterator[list[bytes]]:
    """`text` cut in two at every place."""
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]


def in_singles(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


class BoundaryTests(SecretTestCase):
    """Reads and chunks, each with its boundary at every offset around secrets and what is nearly one."""

    def watch_each(self, name: str, body: bytes = BODY) -> None:
        pattern = PATTERNS[name]
        for way in WAYS:
            settings = settings_of(rules(pattern, way))
            for message in MESSAGES:
                for framing in FRAMINGS[message]:
                    for parts in (*in_two(body), in_singles(body), [body]):
                        self.watch(settings, message, pattern, framing(parts), way in HELD)

    def test_a_literal_cut_by_reads_or_chunks(self) -> None:
        self.watch_each("literal")

    def test_one_of_many_literals_cut_by_reads_or_chunks(self) -> None:
        self.watch_each("one of many literals")

    def test_what_a_regex_matches_cut_by_reads_or_chunks(self) -> None:
        self.watch_each("regex")

    def test_what_a_regex_without_an_end_matches_cut_by_reads_or_chunks(self) -> None:
        self.watch_each("regex without an end")

    def test_what_a_regex_that_looks_around_matches_cut_by_reads_or_chunks(self) -> None:
        # Where a letter or a digit stands beside it, it is none.
        body = (
            b"it is SK-01 or SK-.SK-0123456789, aSK-9876543210 and SK-98765432101 SK-9876543210."
            + SECRET
            + b" so it was"
        )
        self.watch_each("regex that looks around", body)


class PieceTests(SecretTestCase):
    """What the proxy itself cuts: pieces to write, bits to work on, and a body that is let go."""

    def test_a_secret_across_the_pieces_that_are_written(self) -> None:
        for pattern in PATTERNS.values():
            for way in WAYS:
                settings = settings_of(rules(pattern, way, keys="write_size: 16b\n"))
                for message in MESSAGES:
                    for before in range(2, 19):
                        body = b"." * before + SECRET + b"." * 40
                        for framing in FRAMINGS[message]:
                            self.watch(settings, message, pattern, framing([body]), way in HELD)

    def test_a_secret_across_the_bits_that_a_filter_works_on(self) -> None:
        # A read of more than a bit, with matches all over: what is made of it leaves bit by bit.
        for pattern in PATTERNS.values():
            settings = settings_of(rules(pattern))
            for message in MESSAGES:
                for before in range(PIECE - len(SECRET) - 1, PIECE + 2, 3):
                    for filler in (b" " * before, (b". " + SECRET + b" ") * 4200):
                        body = (filler[: before - 2] + b"  " + SECRET + b"! ") + filler[:200]
                        self.watch(settings, message, pattern, with_length([body[:PIECE], body[PIECE:]]))

    def test_a_secret_across_the_place_where_a_held_body_is_let_go(self) -> None:
        size = 64
        for pattern in PATTERNS.values():
            settings = settings_of(rules(pattern, "hold: always", keys=f"stream_large_bodies: {size}b\n"))
            for message in MESSAGES:
                for before in range(size - len(SECRET) - 2, size + 2):
                    body = b"." * before + SECRET + b"." * 20
                    for parts in (
                        in_singles(body),
                        [body],
                        [body[:size], body[size:]],
                        [body[: size + 1], body[size + 1 :]],
                    ):
                        for framing in FRAMINGS[message][1:]:
                            self.watch_let_go(settings, message, pattern, framing(parts), size)

    def watch_let_go(
        self, settings: Settings, message: str, pattern: Pattern, steps: Iterable[Step], size: int
    ) -> None:
        watched = Watched(settings, message)
        watched.begin()
        text = b""
        for step in steps:
            watched.take(step)
            text += step.content
            streams = len(text) > size
            due = pattern.settled(text) if step.ends else pattern.decided(text) if streams else b""
            self.assertEqual(watched.body, due, (pattern.rule[:60], step))

    def test_a_reader_who_takes_little_sees_no_more(self) -> None:
        body = (SECRET + b" and SK-012 or ") * 9000
        for name in ("literal", "regex without an end"):
            pattern = PATTERNS[name]
            for manner in (TCP, TLS):
                watched = Watched(settings_of(rules(pattern)), RESPONSE, manner)
                watched.begin(b"Content-Length: %d\r\n\r\n" % len(body))
                for at in range(0, len(body), PIECE):
                    watched.source.say(body[at : at + PIECE])
                due = pattern.settled(body)
                while watched.client.take(5000) or watched.client.buffer:
                    watched.stage.turn()
                    self.assertTrue(due.startswith(watched.body))
                self.assertEqual(watched.body, due)
