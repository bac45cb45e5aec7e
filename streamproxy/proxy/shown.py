"""What scripts are shown of a message's body, what is taken back of it, and what becomes of rules' work beside them.

Who decides when is `scripted`.
"""

from __future__ import annotations

from streamproxy.proxy.heads import HOP_BY_HOP
from streamproxy.proxy.stages import codings_of
from streamproxy.rules.verdict import BodyWork, HeaderEdits, How, Way
from streamproxy.scripts import http
from streamproxy.stream.body import BodyPath
from streamproxy.wire.headers import NO_HEADERS, Headers

# What says how a message is framed, sent on, read or let in (RFC 9110 section 6.5.1).
NOT_IN_TRAILERS = HOP_BY_HOP | frozenset(
    b"content-length host content-encoding content-type content-range trailer authorization cookie set-cookie "
    b"cache-control max-forwards expect range".split()
)


def for_the_connection(edits: tuple[HeaderEdits, ...]) -> tuple[HeaderEdits, ...]:
    """What of rules' edits is for the next connection alone: what came of such fields doesn't go on, this does."""
    made = []
    for edit in edits:
        fields = [tuple([field for field in each if field[0].lower() in HOP_BY_HOP]) for each in (edit.set, edit.add)]
        made.append(HeaderEdits((), fields[0], fields[1]))
    return tuple(made)


def unchanging(work: BodyWork) -> BodyWork:
    """What is done to a body that a script made: it goes on as it is."""
    return work._replace(replacements=(), functions=(), hold_time=None, changes=False)


def show_no_body(message: http.Message, now: float) -> None:
    """Show a script that there is no body; unless it has made one already."""
    if message.raw_content is None:
        message.give(b"")
    message.timestamp_end = now


def show_body(message: http.Message, path: BodyPath, now: float) -> None:
    """Show a script the body that is held."""
    message.give(path.held.content)
    if path.held.trailers:
        message.trailers = http.Headers.of(path.held.trailers)
    message.timestamp_end = now


def has_gone_by(message: http.Message, way: Way, path: BodyPath, now: float) -> bool:
    """All of a body has come: whether it streamed, which is told to the script."""
    if message.timestamp_end is None:
        message.timestamp_end = now
    if way.how is not How.STREAMED and not path.let_go:
        return False
    message.give(None)
    message.streamed = True
    return True


def take_body(message: http.Message, path: BodyPath) -> bool:
    """Let the body go on as a script has left it; whether that changed it."""
    if message.content_changed:
        path.held.replace(message.raw_content or b"")
    trailers = NO_HEADERS if message.trailers is None else message.trailers.to_wire()
    for name in trailers.names:
        if name in NOT_IN_TRAILERS:
            raise ValueError(f"{name.decode('latin-1')} can't be a trailer: it is needed before the body")
    if trailers != path.held.trailers:
        path.held.trailers = trailers
    return message.content_changed


def check_coding(before: list[bytes], headers: Headers, message: http.Message, work: BodyWork) -> None:
    """Raise ValueError where a script says that a body which a rule has read, and it left alone, is coded otherwise."""
    if work.changes and not message.content_changed and codings_of(headers) != before:
        raise ValueError("its Content-Encoding was changed, and its body wasn't, which a rule has read as it came")
