"""The keys of a configuration, as models: what may be written, what is read of it, what it is left out for.

Single values are read in `values` and `tls_values`; an error is put into words in `explain`. A key marked
`Unbuilt` is part of the interface with nothing behind it yet; to build it, take the mark away. Here nothing is
decided about a message: see `ruleset`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from streamproxy.rules import access_values, tls_values, values, verdict
from streamproxy.rules.access import Access as AccessPolicy
from streamproxy.rules.access import Clients, Origins
from streamproxy.rules.endpoint import Endpoint
from streamproxy.rules.interception import Destinations
from streamproxy.rules.match import HostPatterns, Patterns, type_pattern
from streamproxy.rules.trust import NO_CERTIFICATE, VERIFIED
from streamproxy.rules.values import Boolean, Line, Seconds, Size, Unbuilt, count, one_of, one_or_many, size

STREAMED_TYPES = (
    "text/event-stream",
    "application/x-ndjson",
    "application/grpc*",
    "multipart/x-mixed-replace",
)
ENDPOINT = "tcp:8080:interface=127.0.0.1"
ADMIN_ENDPOINT = "tcp:8081:interface=127.0.0.1"
MODES = ("forward", "reverse", "upstream", "socks5", "transparent")

OneOrMany = BeforeValidator(one_or_many)
Lines = Annotated[tuple[Line, ...], OneOrMany]


class Section(BaseModel):
    """A mapping of known keys. Null is the same as leaving a key out, but for those in `never_null`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    never_null: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {field.alias or name for name, field in cls.model_fields.items()} - cls.never_null
        return {key: value for key, value in given.items() if value is not None or key not in known}


SectionT = TypeVar("SectionT", bound=Section)


def _as_listener(value: Any) -> Any:
    return value if isinstance(value, dict) else {"endpoint": value}


class Listener(Section):
    endpoint: Endpoint
    mode: Annotated[str, PlainValidator(one_of(*MODES)), Unbuilt("forward")] = "forward"
    to: Annotated[Line | None, Unbuilt()] = None


class Authority(Section):
    """A CA of the user's own. `key` None: it stands in the certificate's file, too."""

    certificate: tls_values.CertificateFile
    key: tls_values.KeyFile | None = None

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.key is None:
            tls_values.key(self.certificate, "certificate")
        return self


class Tls(Section):
    intercept: Boolean = True
    passthrough: tls_values.DestinationList = Destinations()
    only: tls_values.DestinationList = Destinations()
    verify_upstream: tls_values.Verification = VERIFIED
    trusted_ca: Annotated[tuple[tls_values.CertificateFile, ...], OneOrMany] = ()
    minimum_version: tls_values.MinimumVersion = "1.2"
    client_certificate: tls_values.ClientCertificates = NO_CERTIFICATE
    authority: Authority | None = None


class Limits(Section):
    head: Annotated[int, PlainValidator(size(256, 16 << 20))] = 64 << 10
    fields: Annotated[int, PlainValidator(count(1, 100_000))] = 200
    trailers: Annotated[int, PlainValidator(size(0, 16 << 20))] = 16 << 10
    held_body: Size = 8 << 20
    body: Size | None = None
    websocket_message: Size = 16 << 20
    capture: Size = 64 << 10
    captures: Size = 64 << 20
    capture_files: Size = 1 << 30
    decoded_body: Size = 16 << 30
    decoded_ratio: Annotated[int, PlainValidator(count(1, 1_000_000))] = 250
    event: Annotated[int, PlainValidator(size(1))] = 1 << 20
    memory: Annotated[int, PlainValidator(size(1 << 20))] = 256 << 20
    upload_rate: Size = 16
    connections: Annotated[int, PlainValidator(count(1, 10_000_000))] = 10_000


class Timeouts(Section):
    connect: Seconds = 10.0
    handshake: Seconds = 10.0
    head: Seconds = 30.0
    idle: Seconds = 300.0
    keepalive: Seconds = 75.0
    tunnel: Seconds = 3600.0
    regex: Seconds = 0.25
    script: Seconds = 2.0
    script_budget: Seconds = 0.05
    drain: Seconds = 30.0


class AccessOrigins(Section):
    allow: tls_values.DestinationList = Origins().allow
    deny: tls_values.DestinationList = Origins().deny


class Access(Section):
    allow: access_values.ClientList = Clients()
    htpasswd: access_values.HtpasswdFile | None = None
    origins: AccessOrigins = AccessOrigins()

    def as_data(self) -> AccessPolicy:
        """What it comes to."""
        return AccessPolicy(self.allow, self.htpasswd, Origins(self.origins.allow, self.origins.deny))


class Admin(Section):
    """The listener for operators. `token_file` None: only who is on this machine may use it."""

    endpoint: Endpoint = ADMIN_ENDPOINT
    token_file: access_values.TokenFile | None = None
    hosts: Lines = ()


def _as_admin(value: Any) -> Any:
    if value is False:
        return None
    return value if isinstance(value, dict) else {"endpoint": value}


class Log(Section):
    """`format`: text, JSON lines, or text with a JSON line for each exchange; `file` None: where twistd says."""

    format: Annotated[str, PlainValidator(one_of("mixed", "text", "json"))] = "mixed"
    file: access_values.AbsolutePath | None = None


def left_out(section: type[SectionT]) -> SectionT:
    """The section as it is when it's left out, the same one each time: pydantic would copy a default that has a dict
    in it, for each rule, though nothing changes it."""
    made = section()
    return Field(default_factory=lambda: made)


class Match(Section):
    """What a rule applies to: all that is given must hold.

    Null isn't the same as left out here. A pattern that somebody forgot to write would match everything.
    """

    never_null = frozenset(("host", "path", "method", "url", "header", "content_type"))

    host: values.HostPatterns = HostPatterns(())
    path: values.PathPatterns = Patterns(())
    method: values.MethodPatterns = Patterns(())
    url: values.UrlPatterns = Patterns(())
    header: dict[values.HeaderName, values.HeaderTest] = {}
    content_type: values.TypePatterns = Patterns(())


class Edits(Section):
    set: dict[values.SettableName, values.HeaderValue] = {}
    add: dict[values.EditableName, values.HeaderValues] = {}
    remove: Annotated[tuple[values.EditableName, ...], OneOrMany] = ()


class Replace(Section):
    find: values.FindText = None
    regex: values.RegexText = None
    put: values.PutText = Field(alias="with")


class Pace(Section):
    """A weak network; `rate` in bytes a second."""

    rate: Annotated[int | None, PlainValidator(size(1))] = None
    delay: Seconds | None = None


class Fault(Section):
    after: Annotated[tuple[int, str], PlainValidator(values.after)] = (0, "bytes")
    action: Annotated[str, PlainValidator(one_of("reset", "cut", "stall", "corrupt"))] = "reset"
    probability: values.Probability = 1.0
    every: Annotated[int, PlainValidator(count(1, 1 << 40))] = 1
    seed: Annotated[int | None, PlainValidator(count(0, 1 << 60))] = None

    def as_data(self, rule: str) -> verdict.Fault:
        """What it comes to; `rule` names who wants it."""
        after, unit = self.after
        return verdict.Fault(after, unit, self.action, rule, self.probability, self.every, self.seed)


def _as_capture(value: Any) -> Any:
    return {} if value is True else None if value is False else value


class Capture(Section):
    limit: Size | None = None
    to: Annotated[str, PlainValidator(one_of("flow", "files"))] = "flow"


class Changes(Section):
    """What a rule does to one of the two messages."""

    headers: Edits = left_out(Edits)
    replace: Annotated[tuple[Replace, ...], OneOrMany] = ()
    stream: Boolean | None = None
    hold_back: Annotated[int, PlainValidator(size(1, 64 << 20))] = 4096
    hold_time: Seconds | None = None
    on_overrun: Annotated[str, PlainValidator(one_of("abort", "release"))] = "abort"
    events: values.FunctionName = None
    lines: values.FunctionName = None
    transform: values.FunctionName = None
    pace: Pace | None = None
    fault: Fault | None = None
    capture: Annotated[Capture | None, BeforeValidator(_as_capture)] = None

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
    type: Annotated[str | None, PlainValidator(one_of("text", "binary"))] = None
    find: values.FindText = None
    regex: values.RegexText = None
    put: values.OptionalPutText = Field(default=None, alias="with")
    drop: Annotated[bool, PlainValidator(values.true)] = False
    respond: values.OptionalPutText = None


class WebSocket(Section):
    """How WebSockets go."""

    stream: Boolean | None = None
    messages: Annotated[tuple[MessageChange, ...], OneOrMany] = ()


class Respond(Section):
    status: values.AnswerStatus = 200
    headers: dict[values.EditableName, values.HeaderValues] = {}
    text: values.AnswerText = None
    file: values.ServedPath = None


class Rule(Section):
    never_null = frozenset(("match",))

    name: Line | None = None
    match: Match = left_out(Match)
    request: Changes = left_out(Changes)
    response: Changes = left_out(Changes)
    websocket: WebSocket = left_out(WebSocket)
    block: values.BlockStatus = None
    respond: Respond | None = None
    redirect_to: values.RedirectTo = None


class Configuration(Section):
    """Everything that a configuration may say."""

    listen: Annotated[
        tuple[Annotated[Listener, BeforeValidator(_as_listener)], ...], BeforeValidator(values.at_least_one)
    ] = (Listener(endpoint=ENDPOINT),)
    admin: Annotated[Admin | None, BeforeValidator(_as_admin)] = Admin()
    log: Log = Log()
    state_dir: Line | None = None
    stream_large_bodies: Size | None = None
    stream_websockets: Boolean = False
    stream_content_types: values.StreamedTypes = Patterns(type_pattern(kind) for kind in STREAMED_TYPES)
    hold: Annotated[str, PlainValidator(one_of("needed", "always"))] = "needed"
    write_size: Annotated[int, PlainValidator(size(16, 4096))] = 4096
    tls: Tls = Tls()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    access: Access = Access()
    scripts: Lines = ()
    script_options: values.ScriptOptions = {}
    rules: tuple[Rule, ...] = ()
