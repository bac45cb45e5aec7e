"""How one body goes: streamed, or held whole within a limit, decided when its head is.

A pure function of what the head says. It moves nothing: the pump and the spool obey the `Way`.
"""

from __future__ import annotations

from typing import NamedTuple

from streamproxy.rules.match import Patterns
from streamproxy.rules.verdict import How, Way
from streamproxy.wire.message import Framing, Kind

NO_BODY_TO_MOVE = Way(How.NONE, "no body")
ANSWERED_HERE = Way(How.NONE, "answered here")
_NOTHING_WANTS_IT = Way(How.STREAMED, "nothing wants it whole")
_LARGE = Way(How.STREAMED, "larger than stream_large_bodies")


class Streaming(NamedTuple):
    """The settings that say how bodies go; sizes in bytes.

    `large` is stream_large_bodies: None where no body is streamed for its size alone. `hold_always`: every
    body is held that nothing makes stream. `held_body` is the limit of a held body, `body` of any (None: none).
    `request_hook`, `response_hook`: which script wants such bodies whole, if one does. `websockets`:
    stream_websockets.
    """

    types: Patterns
    large: int | None = None
    hold_always: bool = False
    held_body: int = 8 << 20
    body: int | None = None
    request_hook: str | None = None
    response_hook: str | None = None
    websockets: bool = False


def body_way(
    framing: Framing,
    content_types: list[bytes],
    says: tuple[bool, str] | None,
    streaming: Streaming,
    wanted_whole: str | None = None,
) -> Way:
    """Decide how a body goes.

    `content_types` are the lines of its Content-Type. `says` is the word of a rule on streaming, and whose it
    is. `wanted_whole`: who wants the body in one piece, if anything does.
    """
    kind, length = framing
    if kind is Kind.NONE or length == 0:
        return NO_BODY_TO_MOVE
    way = _way(length, content_types, says, streaming, wanted_whole)
    if streaming.body is not None and length is not None and length > streaming.body:
        return way._replace(refused=True)
    return way


def _way(
    length: int | None,
    content_types: list[bytes],
    says: tuple[bool, str] | None,
    streaming: Streaming,
    wanted_whole: str | None,
) -> Way:
    if says is not None:
        streams, who = says
        return Way(How.STREAMED, who) if streams else _held(who, length, None, streaming.held_body)
    if content_types and streaming.types:
        for value in content_types:
            if streaming.types.match_content_type(value):
                return Way(How.STREAMED, f"type {_shown(value)}")
    large = streaming.large
    if large is not None and length is not None and length > large:
        return _LARGE
    if wanted_whole is None:
        if not streaming.hold_always:
            return _NOTHING_WANTS_IT
        wanted_whole = "hold: always"
    return _held(wanted_whole, length, large if length is None else None, streaming.held_body)


def _held(why: str, length: int | None, let_go: int | None, limit: int) -> Way:
    return Way(How.HELD, why, let_go, limit, length is not None and length > limit)


def _shown(content_type: bytes) -> str:
    """A media type fit for a log line: what stands before its parameters, nothing unprintable."""
    return shown_token(content_type.partition(b";")[0])


def shown_token(raw: bytes) -> str:
    """A peer's bytes fit for a line of words."""
    text = raw.strip().decode("latin-1")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:60])
