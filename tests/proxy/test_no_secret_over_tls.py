"""A secret that TLS cuts: by a record, by a read in the middle of one, or by the size of the largest."""

from __future__ import annotations

from collections.abc import Iterable

from tests.proxy.test_no_secret_leaves import (
    BODY,
    FRAMINGS,
    MESSAGES,
    PATTERNS,
    REQUEST,
    SECRET,
    Pattern,
    SecretTestCase,
    Step,
    body_in,
    in_chunks,
    in_one_chunk,
    in_singles,
    in_two,
    rules,
    with_length,
)
from tests.proxy.test_rules_on_messages import HELD, WAYS
from tests.secure import SecurePeer, SecureStage

NAMES = ("literal", "regex without an end", "regex that looks around")
LARGEST_RECORD = 16384


class SecurePassage:
    """A client and an origin that speak TLS through the proxy: one exchange after another on the same connections."""

    def __init__(self, configuration: str) -> None:
        self.stage = SecureStage(configuration)
        self.client = self.stage.secure_client()
        self.origin: SecurePeer | None = None

    def settle(self) -> None:
        peers = [self.client] if self.origin is None else [self.client, self.origin]
        self.stage.run(*peers)
        if self.origin is None and self.stage.pool.made:
            self.origin = self.stage.secure_origin()
            self.stage.run(self.client, self.origin)

    def heard(self, message: str) -> bytes:
        """The body that has come to the other side by now."""
        reader = self.origin if message == REQUEST else self.client
        return b"" if reader is None else body_in(bytes(reader.heard))

    def begin(self, message: str) -> SecurePeer:
        """Send the head's first line; gives who sends the rest."""
        self.client.heard.clear()
        if self.origin is not None:
            self.origin.heard.clear()
        if message == REQUEST:
            self.client.say(b"POST /x HTTP/1.1\r\nHost: a.example\r\n")
            self.settle()
            return self.client
        self.client.say(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.settle()
        assert self.origin is not None
        self.origin.say(b"HTTP/1.1 200 OK\r\n")
        return self.origin

    def end(self, message: str) -> None:
        """Answer what is still to be answered."""
        if message == REQUEST:
            assert self.origin is not None
            self.origin.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.settle()


class RecordTests(SecretTestCase):
    def watch_records(
        self, passage: SecurePassage, message: str, pattern: Pattern, steps: Iterable[Step], held: bool
    ) -> None:
        """Each step is a record and a read."""
        source = passage.begin(message)
        text = b""
        for step in steps:
            if step.wire:
                source.say(step.wire)
                passage.settle()
            text += step.content
            due = pattern.settled(text) if step.ends else b"" if held else pattern.decided(text)
            self.assertEqual(passage.heard(message), due, (message, pattern.rule[:60], step))
        passage.end(message)

    def watch_once(self, passage: SecurePassage, message: str, pattern: Pattern, steps: list[Step]) -> None:
        """Each step is a record, and all come in one read; and then byte by byte, seen whenever a record is whole."""
        whole = b"".join(step.content for step in steps)
        source = passage.begin(message)
        for step in steps:
            source.tls.write(step.wire)
        source.flush()
        passage.settle()
        self.assertEqual(passage.heard(message), pattern.settled(whole))
        passage.end(message)
        source = passage.begin(message)
        text = b""
        for step in steps:
            source.tls.write(step.wire)
            for byte in in_singles(source._out.read()):
                self.assertEqual(passage.heard(message), pattern.decided(text))
                source._transport.say(byte)
                passage.settle()
            text += step.content
        self.assertEqual(passage.heard(message), pattern.settled(whole))
        passage.end(message)

    def test_a_record_that_ends_inside_the_secret(self) -> None:
        body = b" it is SK-01, SSK-" + BODY + b" " + SECRET + b"."
        for name in NAMES:
            for way in WAYS:
                passage = SecurePassage(rules(PATTERNS[name], way))
                for message in MESSAGES:
                    for framing in FRAMINGS[message][:3]:
                        for parts in (*list(in_two(body))[::2], in_singles(body)):
                            self.watch_records(passage, message, PATTERNS[name], framing(parts), way in HELD)

    def test_several_records_in_a_read_and_several_reads_in_a_record(self) -> None:
        body = b"is " + SECRET + b"."
        for name in NAMES:
            passage = SecurePassage(rules(PATTERNS[name]))
            for message in MESSAGES:
                for at in range(2, len(body) - 1, 3):
                    for framing in (with_length, in_chunks):
                        self.watch_once(passage, message, PATTERNS[name], list(framing([body[:at], body[at:]])))

    def test_the_end_of_the_largest_record(self) -> None:
        for name in ("literal", "regex without an end"):
            passage = SecurePassage(rules(PATTERNS[name]))
            for message in MESSAGES:
                for before in range(LARGEST_RECORD - len(SECRET) - 1, LARGEST_RECORD + 2):
                    body = b"." * before + SECRET + b"." * 3000
                    self.watch_records(passage, message, PATTERNS[name], in_one_chunk([body]), False)

    def test_a_side_that_is_lost_or_says_goodbye_inside_the_secret(self) -> None:
        for name in NAMES:
            for way in WAYS:
                for message in MESSAGES:
                    for size in range(1, len(SECRET), 3):
                        for polite in (True, False):
                            passage = SecurePassage(rules(PATTERNS[name], way))
                            source = passage.begin(message)
                            for step in list(in_chunks([b"it is ", SECRET[:size], b"rest"]))[:3]:
                                source.say(step.wire)
                                passage.settle()
                            if polite:
                                source.say_goodbye()
                            else:
                                source._transport.reset()
                            for _ in range(3):
                                passage.settle()
                                passage.stage.clock.advance(1)
                            heard = b"" if passage.origin is None else bytes(passage.origin.heard)
                            heard = heard if message == REQUEST else bytes(passage.client.heard)
                            self.assertNotIn(b"SK", heard)
                            if way not in HELD:
                                self.assertEqual(body_in(heard), b"it is ", (name, message, size, polite))
