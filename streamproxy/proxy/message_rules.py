"""Does to a whole WebSocket message what rules say: replace, drop, answer; in the order of the rules.

A regex has its time for each 64 KiB of messages, and all of them together a quarter of all time beside that, so that
a row of messages can't take the proxy to itself. A large message is worked on in parts, between which others have their
turns. Who is answered, and how messages go on, isn't known here.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import NamedTuple

from streamproxy.filters.chain import FilterError
from streamproxy.filters.patterns import CompiledRegex, compile_regex
from streamproxy.filters.replace import Replace
from streamproxy.proxy.stages import patterns_of
from streamproxy.rules.verdict import MessageRule, Replacement
from streamproxy.wire.websocket import TEXT

# What of all time the rules of one direction may take beside the time that a regex has.
SHARE = 0.25
# For so many bytes they have all of a regex's time (as in a body), and of so many they look at in one turn.
BYTES_FOR_TIME = 65536
PART = 16384


class Done(NamedTuple):
    """What has become of a message: its content, whether it goes on, and what its sender is answered, if anything."""

    content: bytes
    dropped: bool = False
    answer: bytes | None = None


class _Step(NamedTuple):
    """What is done at one time: all the replacements that stand together, or one drop or respond."""

    rules: tuple[MessageRule, ...]
    replacements: tuple[Replacement, ...] = ()


class MessageRules:
    """The `rules` for the messages of one direction; `most` bytes may a message come to, `seconds` has a regex."""

    def __init__(self, rules: Sequence[MessageRule], most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        # What regexes may still take, in seconds, and when that was reckoned.
        self._budget = seconds
        self._reckoned = time.monotonic()
        self._steps: list[_Step] = []
        together: list[MessageRule] = []
        for rule in rules:
            if rule.action == "replace" and (not together or together[0].text is rule.text):
                together.append(rule)
                continue
            self._add_replacements(together)
            together = []
            if rule.action == "replace":
                together.append(rule)
            else:
                self._steps.append(_Step((rule,)))
        self._add_replacements(together)

    def _add_replacements(self, rules: list[MessageRule]) -> None:
        if rules:
            made = [
                Replacement(each.find, each.put, each.rule, each.regex, max(self._most, len(each.find)))
                for each in rules
            ]
            self._steps.append(_Step(tuple(rules), tuple(made)))

    def apply(self, opcode: int, content: bytes) -> Generator[bytes, None, Done]:
        """What becomes of a message; empty pieces on the way, where a turn may end.

        Raises FilterError where a rule can't be carried out.
        """
        is_text = opcode == TEXT
        for step in self._steps:
            rule = step.rules[0]
            if rule.text is not None and rule.text is not is_text:
                continue
            if step.replacements:
                content = yield from self._replaced(step.replacements, content)
            elif self._is_found(rule, content):
                return Done(content, True, rule.put if rule.action == "respond" else None)
        return Done(content)

    def _is_found(self, rule: MessageRule, content: bytes) -> bool:
        if rule.regex is None:
            return rule.find in content
        began = time.monotonic()
        self._earn(len(content))
        try:
            return _compiled(rule.regex).pattern.search(content, timeout=self._seconds) is not None
        except TimeoutError:
            raise FilterError(f"the regex of rule {rule.rule!r} took too long on a message") from None
        finally:
            self._spend(time.monotonic() - began, rule.rule)

    def _earn(self, size: int) -> None:
        """Regexes are to look at so many bytes more: they have the time for them that a body's have."""
        self._budget = min(self._seconds, self._budget + self._seconds * size / BYTES_FOR_TIME)

    def _spend(self, seconds: float, rule: str) -> None:
        """A regex has taken so much time."""
        now = time.monotonic()
        self._budget = min(self._seconds, self._budget + SHARE * (now - self._reckoned)) - seconds
        self._reckoned = now
        if self._budget < 0:
            raise FilterError(f"the regexes of rule {rule!r} took too long on messages")

    def _replaced(self, replacements: tuple[Replacement, ...], content: bytes) -> Generator[bytes, None, bytes]:
        replace = Replace(patterns_of(replacements, self._seconds), time.monotonic)
        timed = [each.rule for each in replacements if each.regex is not None]
        pieces: list[bytes] = []
        size = 0
        for at in range(0, len(content) + PART, PART):
            # Behind the last part comes what was kept back.
            part = content[at : at + PART]
            self._earn(len(part))
            began = time.monotonic()
            given = replace.feed(part) if part else replace.finish()
            for piece in given:
                pieces.append(piece)
                size += len(piece)
                if size > self._most:
                    raise FilterError(
                        f"rule {replacements[0].rule!r} made a message larger than limits.websocket_message"
                    )
            if timed:
                self._spend(time.monotonic() - began, timed[0])
            yield b""
        return b"".join(pieces)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CompiledRegex:
    """A regex, made ready once."""
    return compile_regex(text)
