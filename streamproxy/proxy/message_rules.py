"""Does to a whole WebSocket message what rules say: replace, drop, answer; in the order of the rules.

A regex has its time for each message, and all of them together a quarter of all time beside that, so that a row of
messages can't take the proxy to itself. Who is answered, and how messages go on, isn't known here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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
        self._since = time.monotonic()
        self._spent = 0.0
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

    def apply(self, opcode: int, content: bytes) -> Done:
        """What becomes of a message; raises FilterError where a rule can't be carried out."""
        began = time.monotonic()
        try:
            return self._apply(opcode, content)
        finally:
            now = time.monotonic()
            self._spent += now - began
            if self._spent > self._seconds + SHARE * (now - self._since):
                raise FilterError(f"rule {self._steps[0].rules[0].rule!r} took too long on messages")

    def _apply(self, opcode: int, content: bytes) -> Done:
        is_text = opcode == TEXT
        for rules, replacements in self._steps:
            rule = rules[0]
            if rule.text is not None and rule.text is not is_text:
                continue
            if replacements:
                content = self._replaced(replacements, content)
            elif self._is_found(rule, content):
                return Done(content, True, rule.put if rule.action == "respond" else None)
        return Done(content)

    def _is_found(self, rule: MessageRule, content: bytes) -> bool:
        if rule.regex is None:
            return rule.find in content
        try:
            return _compiled(rule.regex).pattern.search(content, timeout=self._seconds) is not None
        except TimeoutError:
            raise FilterError(f"the regex of rule {rule.rule!r} took too long on a message") from None

    def _replaced(self, replacements: tuple[Replacement, ...], content: bytes) -> bytes:
        replace = Replace(patterns_of(replacements, self._seconds), time.monotonic)
        pieces: list[bytes] = []
        size = 0
        for given in (replace.feed(content), replace.finish()):
            for piece in given:
                pieces.append(piece)
                size += len(piece)
                if size > self._most:
                    raise FilterError(
                        f"rule {replacements[0].rule!r} made a message larger than limits.websocket_message"
                    )
        return b"".join(pieces)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CompiledRegex:
    """A regex, made ready once."""
    return compile_regex(text)
