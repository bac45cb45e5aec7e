"""Filter expressions: which flows a script means, in a line. `from streamproxy.scripts import flowfilter`.

The language is mitmproxy's, as far as it speaks of HTTP and WebSockets: `~u regex` and the like, `!`, `&`, `|` and
parentheses. Two expressions side by side must both hold, and a regex by itself is looked for in the URL. Regexes are
Python's, know no case, and may stand in quotes. What isn't offered is refused, not ignored.

`~b`, `~bq` and `~bs` look into a WebSocket's messages, too: into those that its window has, as far as it has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]

_TOKEN = re.compile(r"""\s*+(?:([()])|("(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')|([^\s()'"]++))""", re.S)
_ASSET = re.compile(r"text/javascript|application/(?:x-)?javascript|text/css|image/|font/|application/font")
# How deep parentheses and `!` may go.
_DEEPEST = 50


def _host(flow: Any) -> tuple[str, str]:
    return flow.request.host, flow.request.pretty_host


def _type(message: Any) -> str:
    return "" if message is None else str(message.headers.get("content-type", ""))


def _fields(message: Any) -> bytes:
    return b"" if message is None else bytes(message.headers)


def _body(message: Any) -> bytes:
    return b"" if message is None else message.get_content(strict=False) or b""


def _messages(flow: Any, from_client: bool) -> tuple[bytes, ...]:
    """What one side sent by a WebSocket, as far as its window has it."""
    if flow.websocket is None:
        return ()
    return tuple([message.content for message in flow.websocket.messages if message.from_client == from_client])


# What each operator tests: those by themselves, and the texts in which a regex is looked for.
_PLAIN: dict[str, Test] = {
    "~all": lambda flow: True,
    "~http": lambda flow: flow.type == "http",
    "~websocket": lambda flow: flow.websocket is not None,
    "~q": lambda flow: flow.response is None,
    "~s": lambda flow: flow.response is not None,
    "~e": lambda flow: flow.error is not None,
    "~a": lambda flow: flow.response is not None and _ASSET.match(_type(flow.response).lower()) is not None,
}
_TEXTS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "~u": lambda flow: (flow.request.pretty_url,),
    "~d": _host,
    "~m": lambda flow: (flow.request.method,),
    "~t": lambda flow: (_type(flow.request), _type(flow.response)),
    "~tq": lambda flow: (_type(flow.request),),
    "~ts": lambda flow: (_type(flow.response),),
}
_BYTES: dict[str, Callable[[Any], tuple[bytes, ...]]] = {
    "~h": lambda flow: (_fields(flow.request), _fields(flow.response)),
    "~hq": lambda flow: (_fields(flow.request),),
    "~hs": lambda flow: (_fields(flow.response),),
    "~b": lambda flow: (_body(flow.request), _body(flow.response), *_messages(flow, True), *_messages(flow, False)),
    "~bq": lambda flow: (_body(flow.request), *_messages(flow, True)),
    "~bs": lambda flow: (_body(flow.response), *_messages(flow, False)),
}


class TFilter:
    """A filter that was parsed: called with a flow, it tells whether that is meant. `pattern` is its text."""

    __slots__ = ("_test", "pattern")

    def __init__(self, pattern: str, test: Test) -> None:
        self.pattern = pattern
        self._test = test

    def __call__(self, flow: Any) -> bool:
        return self._test(flow)

    def __repr__(self) -> str:
        return f"TFilter({self.pattern!r})"


def parse(text: str) -> TFilter:
    """The filter that an expression means; raises ValueError in words for one that can't be read."""
    if not text.strip():
        raise ValueError("the filter expression is empty")
    return TFilter(text, _Parser(text).parse())


def match(filter: TFilter | str | None, flow: Any) -> bool:
    """Whether a filter, or its text, means the flow; None means every flow."""
    if filter is None:
        return True
    return (parse(filter) if isinstance(filter, str) else filter)(flow)


class _Parser:
    """Reads an expression from its beginning: alternatives of rows of terms."""

    def __init__(self, text: str) -> None:
        self._text = text
        # (text, whether it stood in quotes)
        self._tokens: list[tuple[str, bool]] = []
        self._next = 0
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._error("a quote that isn't closed")
            mark, quoted, word = found.groups()
            if quoted is not None:
                self._tokens.append((re.sub(r"\\(.)", _unescaped, quoted[1:-1], flags=re.S), True))
            else:
                self._tokens.append((mark or word, False))
            place = found.end()

    def parse(self) -> Test:
        test = self._either(0)
        if self._next < len(self._tokens):
            raise self._error("a closing parenthesis too many")
        return test

    def _error(self, what: str) -> ValueError:
        return ValueError(f"the filter expression {self._text!r} can't be read: {what}")

    def _look(self) -> str | None:
        """The next token, if it isn't in quotes; None at the end."""
        if self._next == len(self._tokens):
            return None
        text, quoted = self._tokens[self._next]
        return "" if quoted else text

    def _either(self, depth: int) -> Test:
        tests = [self._all(depth)]
        while self._look() == "|":
            self._next += 1
            tests.append(self._all(depth))
        return tests[0] if len(tests) == 1 else lambda flow: any(test(flow) for test in tests)

    def _all(self, depth: int) -> Test:
        tests = [self._term(depth)]
        while self._look() not in (None, "|", ")"):
            if self._look() == "&":
                self._next += 1
            tests.append(self._term(depth))
        return tests[0] if len(tests) == 1 else lambda flow: all(test(flow) for test in tests)

    def _term(self, depth: int) -> Test:
        if depth > _DEEPEST:
            raise self._error("it goes too deep")
        word = self._look()
        if word is None or word in (")", "&", "|"):
            raise self._error("something is missing" + (f" before {word}" if word else " at its end"))
        if word.startswith("!"):
            # It may stand before what it denies without a space.
            if word == "!":
                self._next += 1
            else:
                self._tokens[self._next] = (word[1:], False)
            denied = self._term(depth + 1)
            return lambda flow: not denied(flow)
        self._next += 1
        if word == "(":
            test = self._either(depth + 1)
            if self._look() != ")":
                raise self._error("a parenthesis that isn't closed")
            self._next += 1
            return test
        if word in _PLAIN:
            return _PLAIN[word]
        if word == "~c":
            return self._status()
        if word in _TEXTS:
            return self._found_in(_TEXTS[word], self._argument(word))
        if word in _BYTES:
            return self._found_in_bytes(_BYTES[word], self._argument(word))
        if word.startswith("~"):
            raise self._error(f"{word} isn't offered")
        return self._found_in(_TEXTS["~u"], self._tokens[self._next - 1][0])

    def _argument(self, operator: str) -> str:
        if self._look() in (None, "(", ")"):
            raise self._error(f"{operator} needs a regex behind it")
        self._next += 1
        return self._tokens[self._next - 1][0]

    def _status(self) -> Test:
        told = self._argument("~c")
        if not re.fullmatch("[0-9]{3}", told):
            raise self._error(f"~c needs a status code behind it, not {told!r}")
        return lambda flow: flow.response is not None and flow.response.status_code == int(told)

    def _found_in(self, texts: Callable[[Any], tuple[str, ...]], regex: str) -> Test:
        try:
            search = re.compile(regex, re.IGNORECASE).search
        except re.error as error:
            raise self._error(f"{regex!r} is no regex: {error}") from None
        return lambda flow: any(search(text) is not None for text in texts(flow))

    def _found_in_bytes(self, texts: Callable[[Any], tuple[bytes, ...]], regex: str) -> Test:
        try:
            search = re.compile(regex.encode(), re.IGNORECASE | re.DOTALL | re.MULTILINE).search
        except re.error as error:
            raise self._error(f"{regex!r} is no regex: {error}") from None
        return lambda flow: any(search(text) is not None for text in texts(flow))


def _unescaped(found: re.Match[str]) -> str:
    """What a backslash in quotes stands for: a quote or itself before one, else it stays, for the regex."""
    return found[1] if found[1] in "\"'\\" else found[0]
