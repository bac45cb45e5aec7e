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
    """Literal bytes to find in a body, and what stands there instead; `rule` names who wants it."""

    find: bytes
    put: bytes
    rule: str


class Answer(NamedTuple):
    """A response of the proxy's own.

    `file`: a file or a folder to serve from; for a folder, `tail` (a URL path, still percent-encoded, without
    a leading slash) names the file within it.
    `refusal`: True for a block, which is logged as refused, not as answered.
    """

    status: int
    headers: tuple[Field, ...] = ()
    body: bytes = b""
    file: Path | None = None
    tail: str | None = None
    refusal: bool = False


class RequestVerdict(NamedTuple):
    """What the rules say about a request's head.

    `rules` are the names of the rules that applied. `matched` are the rules that may have a say on the
    response. `target` is where the request really goes: another than the client's after a redirect_to (`redirected`).
    `answer` is set where the request isn't forwarded at all.
    `plain_answer_wanted`: a rule will read the response's body, so the request must not ask for a part of it
    or for a content coding.
    """

    rules: tuple[str, ...]
    matched: tuple[Rule, ...]
    target: Target
    redirected: bool
    answer: Answer | None
    edits: tuple[HeaderEdits, ...]
    replacements: tuple[Replacement, ...]
    way: Way
    plain_answer_wanted: bool


class ResponseVerdict(NamedTuple):
    """What the rules say about a response's head; the same words as in `RequestVerdict`.

    `refused`: in words, why a rule that applies can't be carried out on this response (which becomes a 502).
    """

    rules: tuple[str, ...]
    edits: tuple[HeaderEdits, ...]
    replacements: tuple[Replacement, ...]
    way: Way
    refused: str | None = None
