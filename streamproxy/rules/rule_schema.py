"""The keys of one rule, as models; those of everything else are in `schema`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from streamproxy.rules import values, verdict
from streamproxy.rules.match import HostPatterns, Patterns
from streamproxy.rules.section import OneOrMany, Section, left_out
from streamproxy.rules.values import Boolean, Line, Seconds, Size, count, one_of, size


class Match(Section):
    """What a rule applies to: all that is given must hold.

    Null isn't the same as left out here. A pattern that somebody forgot to write would match everything.
    """

    never_null = frozenset(("host", "path", "method", "url", "header", "content_type"))

    host: values.HostPatterns = HostPatterns(())
    """The host, such as *.ads.example, or with a port as ads.example:8443."""
    path: values.PathPatterns = Patterns(())
    """The path without its query, such as /v1/*; written oddly (%61, /./, //) it matches all the same."""
    method: values.MethodPatterns = Patterns(())
    """The method, in either case."""
    url: values.UrlPatterns = Patterns(())
    """The whole URL, such as http://old.example/*."""
    header: dict[values.HeaderName, values.HeaderTest] = {}
    """Header fields by name: patterns of a value; true: it is there, false: it isn't."""
    content_type: values.TypePatterns = Patterns(())
    """The Content-Type; for what a rule does to a response, of either message."""


class Edits(Section):
    set: dict[values.SettableName, values.HeaderValue] = {}
    """Fields that get this value, in place of what they had."""
    add: dict[values.EditableName, values.HeaderValues] = {}
    """Fields that are added, each with a value or several."""
    remove: Annotated[tuple[values.EditableName, ...], OneOrMany] = ()
    """Names of fields that are taken out, before any is set or added."""


class Replace(Section):
    find: values.FindText = None
    """The text to look for."""
    regex: values.RegexText = None
    """What to look for, as a regular expression of the regex package."""
    put: values.PutText = Field(alias="with")
    r"""What stands there instead; behind a regex, \1 and \g<name> are its groups."""


class Pace(Section):
    """A weak network; `rate` in bytes a second."""

    rate: Annotated[int | None, PlainValidator(size(1))] = None
    """Bytes a second at the most."""
    delay: Seconds | None = None
    """How many seconds late each byte is."""


class Fault(Section):
    after: Annotated[tuple[int, str], PlainValidator(values.after)] = (0, "bytes")
    """How much of a body goes before it: bytes, or {chunks: 3} or {events: 3}."""
    action: Annotated[str, PlainValidator(one_of("reset", "cut", "stall", "corrupt"))] = "reset"
    """reset and cut end the connection, stall lets nothing more go, corrupt spoils a byte."""
    probability: values.Probability = 1.0
    """How likely it is, from 0 to 1."""
    every: Annotated[int, PlainValidator(count(1, 1 << 40))] = 1
    """It is done to every body that it is meant for, or only to each Nth."""
    seed: Annotated[int | None, PlainValidator(count(0, 1 << 60))] = None
    """Makes the same draws each time."""

    def as_data(self, rule: str) -> verdict.Fault:
        """What it comes to; `rule` names who wants it."""
        after, unit = self.after
        return verdict.Fault(after, unit, self.action, rule, self.probability, self.every, self.seed)


def as_capture(value: Any) -> Any:
    """True is a capture as it is when nothing is said of it; false is none."""
    return {} if value is True else None if value is False else value


class Capture(Section):
    limit: Size | None = None
    """How much of a body is recorded; left out: limits.capture."""
    to: Annotated[str, PlainValidator(one_of("flow", "files"))] = "flow"
    """With the flow, in memory; or in files, in state_dir."""


class Changes(Section):
    """What a rule does to one of the two messages."""

    headers: Edits = left_out(Edits)
    """What is done to its header fields."""
    replace: Annotated[tuple[Replace, ...], OneOrMany] = ()
    """What is found in the body as it streams, compressed or not, and what stands there instead; all in one pass."""
    stream: Boolean | None = None
    """true: the body streams; false: it is held whole; left out: decided by its type, its size and what wants it
    whole."""
    hold_back: Annotated[int, PlainValidator(size(1, 64 << 20))] = 4096
    """What is kept back of a body, as the beginning of a match."""
    hold_time: Seconds | None = None
    """Seconds for which it is kept back; left out: until it is known whether it is a match."""
    on_overrun: Annotated[str, PlainValidator(one_of("abort", "release"))] = "abort"
    """Past hold_back, abort ends the body; release lets go what was kept as it is."""
    events: values.FunctionName = None
    """A function for each server-sent event, such as scripts/x.py:on_event."""
    lines: values.FunctionName = None
    """A function for each line, such as of NDJSON."""
    transform: values.FunctionName = None
    """A stream function for the body's bytes."""
    pace: Pace | None = None
    """A weak network: so many bytes a second, each so late."""
    fault: Fault | None = None
    """Something goes wrong with the body."""
    capture: Annotated[Capture | None, BeforeValidator(as_capture)] = None
    """The body is recorded as it came and as it went; true: with the flow."""

    @model_validator(mode="after")
    def _can_hold_what_it_finds(self) -> Self:
        for index, each in enumerate(self.replace):
            if each.find is not None and len(each.find) > self.hold_back:
                raise values.expected(
                    f"text no longer than hold_back, {self.hold_back} bytes", "replace", index, "find"
                )
        return self


class MessageChange(Section):
    """What is done to messages of a WebSocket: one of `put`, `drop` and `respond`, as `explain` sees to."""

    sender: Annotated[str | None, PlainValidator(one_of("client", "origin"))] = Field(default=None, alias="from")
    """Whose messages; left out: both sides'."""
    type: Annotated[str | None, PlainValidator(one_of("text", "binary"))] = None
    """Of which type; left out: both."""
    find: values.FindText = None
    """The text to look for in a message."""
    regex: values.RegexText = None
    """What to look for, as a regular expression of the regex package."""
    put: values.OptionalPutText = Field(default=None, alias="with")
    """What stands there instead."""
    drop: Annotated[bool, PlainValidator(values.true)] = False
    """The message doesn't go on."""
    respond: values.OptionalPutText = None
    """The proxy answers this; the message doesn't go on."""


class WebSocket(Section):
    """How WebSockets go."""

    stream: Boolean | None = None
    """true: frames go on as they come; false: messages are read; left out: stream_websockets decides."""
    messages: Annotated[tuple[MessageChange, ...], OneOrMany] = ()
    """What is done to messages, in this order."""


class Respond(Section):
    status: values.AnswerStatus = 200
    """The answer's status."""
    headers: dict[values.EditableName, values.HeaderValues] = {}
    """Its header fields."""
    text: values.AnswerText = None
    """Its body."""
    file: values.ServedPath = None
    """A file to answer with, or a folder to serve from, which must be there."""


class Rule(Section):
    never_null = frozenset(("match",))

    name: Line | None = None
    """The rule's name on the log; left out: rules[N]."""
    match: Match = left_out(Match)
    """What it applies to: all that is given must hold, and of a list any member; left out: everything. A pattern
    stands for the whole value: * is any run of characters, ? is one; {regex: ...} is searched for."""
    request: Changes = left_out(Changes)
    """What is done to a request."""
    response: Changes = left_out(Changes)
    """What is done to its response."""
    websocket: WebSocket = left_out(WebSocket)
    """What is done to a WebSocket."""
    block: values.BlockStatus = None
    """The request is answered with this status; true: 403."""
    respond: Respond | None = None
    """The request is answered by the proxy."""
    redirect_to: values.RedirectTo = None
    """The request goes to this URL instead; the client doesn't see it."""
