"""What the rules say about one head, as data. Nothing here acts: wiring obeys a verdict."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamproxy.wire.headers import Field
from streamproxy.wire.message import Target

if TYPE_CHECKING:
    from streamproxy.rules.rule import Rule


class How(enum.Enum):
    """How a body goes (the word that the log uses)."""

    NONE = "none"
    STREAMED = "streamed"
    HELD = "held"


class Way(NamedTuple):
    """How one body goes and why.

    `let_go` (bytes, or None): a held body that grows past it streams from there on.
    `limit` (bytes): a held body that grows past it is refused (413 for a request, 502 for a response).
    `refused`: it is known from the head that the limit is passed.
    """

    how: How
    why: str
    let_go: int | None = None
    limit: int = 0
    refused: bool = False


class HeaderEdits(NamedTuple):
    """Edits of header fields, carried out in the order remove, set, add.

    `remove` has lower-case names. A `set` field takes the place of the first line of its name, or goes to the
    end.
    """

    remove: tuple[bytes, ...] = ()
    set: tuple[Field, ...] = ()
    add: tuple[Field, ...] = ()


class Replacement(NamedTuple):
    """What to find in a body, and what stands there instead; `rule` names who wants it.

    `find` is literal, unless there is a `regex`: then `put` is a template with its groups. What might be the beginning
    of a match is held back, `hold_back` bytes of it at the most; past that it is let go (`release`), or the body is
    given up.
    """

    find: bytes
    put: bytes
    rule: str
    regex: str | None = None
    hold_back: int = 4096
    release: bool = False


class UserFunction(NamedTuple):
    """A user's function for a body: `kind` is "events", "lines" or "transform", `name` as it was written."""

    kind: str
    name: str
    rule: str


class Pace(NamedTuple):
    """A weak network: at most `rate` bytes a second (None: any), each `delay` seconds late."""

    rate: int | None
    delay: float


class Fault(NamedTuple):
    """Something goes wrong with a body behind its first `after` bytes, chunks or events (`unit`).

    `action` is "stall", "cut", "reset" or "corrupt". It is done to every one, or to each `every`th, or with
    `probability`, drawn from `seed` (None: another each time).
    """

    after: int
    unit: str
    action: str
    rule: str
    probability: float = 1.0
    every: int = 1
    seed: int | None = None


class Capture(NamedTuple):
    """A body is recorded: `limit` bytes of it (None: limits.capture), in the flow, or in files."""

    limit: int | None
    in_files: bool


class BodyWork(NamedTuple):
    """What is to be done to one body; `changes` tells whether any of that may change its bytes.

    `hold_time` (seconds, or None): what is held back for a replacement is let go after it.
    """

    replacements: tuple[Replacement, ...] = ()
    functions: tuple[UserFunction, ...] = ()
    hold_time: float | None = None
    pace: Pace | None = None
    fault: Fault | None = None
    capture: Capture | None = None
    changes: bool = False

    @property
    def reader(self) -> str:
        """The rule that reads the body first."""
        if self.replacements:
            return self.replacements[0].rule
        if self.functions:
            return self.functions[0].rule
        return "" if self.fault is None else self.fault.rule


NO_WORK = BodyWork()


class MessageRule(NamedTuple):
    """What one rule does to messages of a WebSocket: `action` is "replace", "drop" or "respond".

    It may also be "function": the rule has one for bodies, and can't be carried out.

    It is for those from the client or the origin (`from_client`; None: both), text or binary (`text`; None: both), in
    which `find`, or the `regex` in its place, is found; without either, for each. `put` stands where that was found
    (for a regex a template, as in `Replacement`), or is what the message's sender is answered. `rule` is the rule's
    name, `place` its place in the file.
    """

    rule: str
    action: str
    from_client: bool | None
    text: bool | None
    find: bytes
    regex: str | None
    put: bytes
    place: int = 0


class MessageWork(NamedTuple):
    """How a WebSocket goes, and why; and what is to be done to its messages, in that order.

    `streams`: frames go on as they come, and can't be changed. `why` says who wants that: "stream_websockets",
    "rule NAME" or "default".
    """

    streams: bool
    why: str
    rules: tuple[MessageRule, ...] = ()

    @property
    def unreadable(self) -> str | None:
        """Why that can't be done, in words; None where it can."""
        for rule in self.rules:
            if rule.action == "function":
                return f"rule {rule.rule!r} has a function for bodies, which a WebSocket's messages are not"
        if not self.streams or not self.rules:
            return None
        return f"rule {self.rules[0].rule!r} can't change the messages of a WebSocket that streams ({self.why})"

    def adding(self, rules: tuple[MessageRule, ...]) -> MessageWork:
        """This, with what a `ResponseVerdict` adds, each in its place."""
        if not rules:
            return self
        return MessageWork(self.streams, self.why, tuple(sorted(self.rules + rules, key=_place)))


def _place(rule: MessageRule) -> int:
    return rule.place


class Answer(NamedTuple):
    """A response of the proxy's own.

    `file`: a file or a folder to serve from; for a folder, `tail` (a URL path, still percent-encoded, without
    a leading slash) names the file within it.
    `refusal`: True for a block, which is logged as refused, not as answered. `reason`: the status's words, if they are
    others than the standard's.
    """

    status: int
    headers: tuple[Field, ...] = ()
    body: bytes = b""
    file: Path | None = None
    tail: str | None = None
    refusal: bool = False
    reason: bytes = b""


class RequestVerdict(NamedTuple):
    """What the rules say about a request's head.

    `rules` are the names of the rules that applied. `matched` are the rules that may have a say on the
    response. `target` is where the request really goes: another than the client's after a redirect_to (`redirected`).
    `answer` is set where the request isn't forwarded at all.
    `readable_answer_wanted`: a rule will read the response's body, so the request must not ask for a part of it
    or for a content coding that can't be read. `websocket` is set where the request is to be forwarded and asks for a
    WebSocket: what holds if it gets one.
    """

    rules: tuple[str, ...]
    matched: tuple[Rule, ...]
    target: Target
    redirected: bool
    answer: Answer | None
    edits: tuple[HeaderEdits, ...]
    work: BodyWork
    way: Way
    readable_answer_wanted: bool
    websocket: MessageWork | None = None


class ResponseVerdict(NamedTuple):
    """What the rules say about a response's head; the same words as in `RequestVerdict`.

    `refused`: in words, why a rule that applies can't be carried out on this response (which becomes a 502).
    `websocket`: for a 101, what is to be done to messages beside that which the request's verdict says, by rules that
    this head has its say on.
    """

    rules: tuple[str, ...]
    edits: tuple[HeaderEdits, ...]
    work: BodyWork
    way: Way
    refused: str | None = None
    websocket: tuple[MessageRule, ...] = ()
