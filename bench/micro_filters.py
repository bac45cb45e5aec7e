"""Micro-benchmarks of filters: replacing, codings undone and put back, and events handed to a function.

Each is fed as the proxy feeds it, and everything that it gives is taken. A body that goes on has one filter for all
calls; where it has to end, each call makes one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from bench.case_filters import KEY_REGEX, make_text
from bench.connection import check
from bench.event_origin import SIZE, Coder, write_event
from bench.event_origin import Event as SentEvent
from bench.micro_bodies import READ, TEXT, WORDS
from streamproxy.filters.chain import Filter
from streamproxy.filters.coding import Bounds, Decoded, Encoded, decode_whole, encode_whole
from streamproxy.filters.events import Event, Events
from streamproxy.filters.finders import Pattern
from streamproxy.filters.patterns import compile_regex
from streamproxy.filters.replace import Replace, literal, regex

CODINGS = (b"gzip", b"deflate", b"br", b"zstd")
BOUNDS = Bounds(1000, 1 << 20, 1 << 40)
LARGE = 1 << 20
MANY = 300
# None of them is in the text, but what they begin with is.
FINDS = [b"%b-absent-%d" % (word, number) for number, word in enumerate(WORDS[-MANY:])]
MOST_EVENT = 1 << 20
EVENTS = 1000


def fed(stage: Filter, data: bytes) -> bytes:
    """All that a filter gives for the data."""
    return b"".join([piece for piece in stage.feed(data) if isinstance(piece, bytes)])


def ended(stage: Filter) -> bytes:
    """All that a filter gives at the end."""
    return b"".join([piece for piece in stage.finish() if isinstance(piece, bytes)])


def replace(finds: list[bytes], places: int) -> Callable[[], object]:
    """64 KiB of text in which the first of `finds` stands at so many places."""
    data = TEXT
    if places:
        step = READ // places
        data = b"".join(finds[0] + TEXT[at + len(finds[0]) : at + step] for at in range(0, READ, step))
    # So that nothing is kept back for the next time.
    data = data[:-1] + b"\n"
    check(len(data) == READ and data.count(finds[0]) == places, "the text isn't what it should be")
    wanted = data.replace(finds[0], b"put")
    return replaced([literal(find, b"put") for find in finds], data, wanted)


def absent(with_literal: bool, with_regex: bool) -> Callable[[], object]:
    """64 KiB of what a model streams, in which there is much like what is looked for, and nothing of it."""
    patterns: list[Pattern] = []
    if with_literal:
        patterns.append(literal(b"internal.example", b"put"))
    if with_regex:
        patterns.append(regex(compile_regex(KEY_REGEX), "put"))
    data = make_text(READ)
    return replaced(patterns, data, data)


def replaced(patterns: list[Pattern], data: bytes, wanted: bytes) -> Callable[[], object]:
    """Feed the same data again and again to one filter, which makes `wanted` of it each time."""
    filter_ = Replace(patterns)

    def feed() -> bytes:
        return fed(filter_, data)

    check(feed() == wanted and not filter_.held and feed() == wanted, "another text came out")
    return feed


def decode_large(coding: bytes) -> Callable[[], object]:
    """Undo the coding of 1 MiB of text, which comes in reads of 64 KiB."""
    text = make_text(LARGE)
    coded = encode_whole([coding], text)
    reads = [coded[at : at + READ] for at in range(0, len(coded), READ)]

    def decode() -> int:
        decoded = Decoded([coding], BOUNDS)
        size = 0
        for data in reads:
            for piece in decoded.feed(data):
                size += len(piece)  # type: ignore[arg-type]
        decoded.finish()
        return size

    check(decode_whole([coding], coded, BOUNDS) == text and decode() == LARGE, "another text came out")
    return decode


def decode_events(coding: bytes) -> Callable[[], object]:
    """Undo the coding of a stream of events, each of which was flushed."""
    coded = Encoded([coding])
    events = [write_event(SentEvent(number, number << 40, number)) for number in range(EVENTS)]
    reads = [fed(coded, event) for event in events]

    def decode() -> bytes:
        decoded = Decoded([coding], BOUNDS)
        for data in reads:
            last = fed(decoded, data)
        return last

    check(decode() == events[-1], "another event came out")
    return decode


def encode(coding: bytes, size: int) -> Callable[[], object]:
    """Apply the coding to a body that goes on, so many bytes of text at a time, each flushed."""
    text = make_text(LARGE)
    parts = [text[at : at + size] for at in range(0, LARGE, size)]
    coded = Encoded([coding])
    check(decode_whole([coding], encode_whole([coding], text), BOUNDS) == text, "another text came out")
    decoded = Decoded([coding], BOUNDS)
    for part in parts[:3]:
        check(fed(decoded, fed(coded, part)) == part, "what was flushed can't be decoded")
    following = itertools.cycle(parts[3:] + parts[:3])

    def feed() -> bytes:
        return fed(coded, next(following))

    return feed


def upper(event: Event) -> None:
    """Change it."""
    event.data = event.data.upper()


def look(event: Event) -> None:
    """Look into it, and leave it alone."""
    if event.data == "[DONE]":
        raise ValueError("there is no such event")


def leave(event: Event) -> None:
    """Leave it alone."""


def in_large(sent: bytes) -> bytes:
    """What `upper` makes of events."""
    return sent.upper().replace(b"ID: ", b"id: ").replace(b"DATA: ", b"data: ")


def events(ask: Callable[[Event], None], changed: bool, number: int) -> Callable[[], object]:
    """So many events in one read, of a stream that goes on."""
    sent = b"".join([write_event(SentEvent(each, each << 40, each)) for each in range(number)])
    wanted = in_large(sent) if changed else sent
    filter_ = Events(ask, MOST_EVENT)

    def feed() -> bytes:
        return fed(filter_, sent)

    check(len(sent) == number * SIZE and feed() == wanted and feed() == wanted, "other events came out")
    return feed


def through(coding: str) -> Callable[[], object]:
    """One event of a coded stream: decoded, changed, and coded anew. The stream begins again after so many."""
    coder = Coder(coding)
    sent = [write_event(SentEvent(each, each << 40, each)) for each in range(EVENTS)]
    # Chunks of which the framing is taken off again.
    reads = [coder.event(event).partition(b"\r\n")[2][:-2] for event in sent]
    at = EVENTS
    stages: list[Filter] = []

    def next_event() -> bytes:
        nonlocal at, stages
        if at == EVENTS:
            decoded = Decoded([coding.encode()], BOUNDS)
            stages, at = [decoded, Events(upper, MOST_EVENT), Encoded([coding.encode()], decoded)], 0
        data = reads[at]
        at += 1
        for stage in stages:
            data = fed(stage, data)
        return data

    decoded = Decoded([coding.encode()], BOUNDS)
    for event in sent[:3]:
        check(fed(decoded, next_event()) == in_large(event), "another event came out")
    at = EVENTS
    return next_event


def _codings() -> list[tuple[str, Callable[[], Callable[[], object]]]]:
    found: list[tuple[str, Callable[[], Callable[[], object]]]] = []
    for coding in CODINGS:
        name = coding.decode()
        found += [
            (f"decode {name}: 1 MiB of text, reads of 64 KiB", partial(decode_large, coding)),
            (f"decode {name}: {EVENTS} events, each flushed", partial(decode_events, coding)),
            (f"encode {name}: 64 KiB of text, flushed", partial(encode, coding, READ)),
            (f"encode {name}: {SIZE} bytes of text, flushed", partial(encode, coding, SIZE)),
        ]
        if coding != b"deflate":
            found.append((f"events in {name}: decoded, changed, coded anew", partial(through, name)))
    return found


PIECES: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
    ("replace: 64 KiB, 1 find that isn't there", partial(replace, FINDS[:1], 0)),
    ("replace: 64 KiB, 10 finds that aren't there", partial(replace, FINDS[:10], 0)),
    ("replace: 64 KiB, 300 finds that aren't there", partial(replace, FINDS, 0)),
    ("replace: 64 KiB, 10 finds, one of them 64 times", partial(replace, FINDS[:10], 64)),
    ("replace: 64 KiB of events, a literal that isn't there", partial(absent, True, False)),
    ("replace: 64 KiB of events, a regex that isn't there", partial(absent, False, True)),
    ("replace: 64 KiB of events, a literal and a regex that aren't there", partial(absent, True, True)),
    *_codings(),
    (f"events: one of {SIZE} bytes, left alone unread", partial(events, leave, False, 1)),
    (f"events: one of {SIZE} bytes, read", partial(events, look, False, 1)),
    (f"events: one of {SIZE} bytes, changed", partial(events, upper, True, 1)),
    ("events: 400 in one read, left alone unread", partial(events, leave, False, 400)),
    ("events: 400 in one read, changed", partial(events, upper, True, 400)),
)
