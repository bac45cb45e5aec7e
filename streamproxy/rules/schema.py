"""The keys of a configuration, as models: what may be written, what is read of it, what it is left out for.

Single values are read in `values` and `tls_values`; an error is put into words in `explain`. A key marked
`Unbuilt` is part of the interface with nothing behind it yet; to build it, take the mark away. Here nothing is
decided about a message: see `ruleset`.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainValidator, model_validator

from streamproxy.rules import access_values, tls_values, values
from streamproxy.rules.access import Access as AccessPolicy
from streamproxy.rules.access import Clients, Origins
from streamproxy.rules.endpoint import Endpoint
from streamproxy.rules.interception import Destinations
from streamproxy.rules.match import Patterns, type_pattern
from streamproxy.rules.rule_schema import Changes as Changes
from streamproxy.rules.rule_schema import MessageChange as MessageChange
from streamproxy.rules.rule_schema import Rule as Rule
from streamproxy.rules.section import Lines, OneOrMany
from streamproxy.rules.section import Section as Section
from streamproxy.rules.trust import NO_CERTIFICATE, VERIFIED
from streamproxy.rules.values import Boolean, Line, Seconds, Size, Unbuilt, count, one_of, size

STREAMED_TYPES = (
    "text/event-stream",
    "application/x-ndjson",
    "application/grpc*",
    "multipart/x-mixed-replace",
)
ENDPOINT = "tcp:8080:interface=127.0.0.1"
ADMIN_ENDPOINT = "tcp:8081:interface=127.0.0.1"
MODES = ("forward", "reverse", "upstream", "socks5", "transparent")


def as_listener(value: Any) -> Any:
    """A listener may be written as its endpoint alone."""
    return value if isinstance(value, dict) else {"endpoint": value}


class Listener(Section):
    endpoint: Endpoint
    """Where to listen: a Twisted endpoint string such as tcp:8080:interface=127.0.0.1, or systemd:name=NAME for the
    sockets that systemd gives by that name."""
    mode: Annotated[str, PlainValidator(one_of(*MODES)), Unbuilt("forward")] = "forward"
    """What is spoken there; only forward is built."""
    to: Annotated[Line | None, Unbuilt()] = None
    """The origin behind a reverse proxy; isn't built yet."""


class Authority(Section):
    """A CA of the user's own. `key` None: it stands in the certificate's file, too."""

    certificate: tls_values.CertificateFile
    """The PEM file with the CA's certificate, and those that vouch for it."""
    key: tls_values.KeyFile | None = None
    """The PEM file with its private key, without a passphrase; left out: the certificate's file has it."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.key is None:
            tls_values.key(self.certificate, "certificate")
        return self


class Tls(Section):
    intercept: Boolean = True
    """Whether what comes through CONNECT is read; false: it is passed on unread."""
    passthrough: tls_values.DestinationList = Destinations()
    """What is never intercepted: hosts such as *.bank.example or host.example:8443, and ranges such as 10.0.0.0/8."""
    only: tls_values.DestinationList = Destinations()
    """If anything is listed here, nothing else is intercepted; written as in passthrough."""
    verify_upstream: tls_values.Verification = VERIFIED
    """Whether origins must prove who they are: true, or hosts for which it is false."""
    trusted_ca: Annotated[tuple[tls_values.CertificateFile, ...], OneOrMany] = ()
    """PEM files of CAs to trust, beside the system's."""
    minimum_version: tls_values.MinimumVersion = "1.2"
    """The least version of TLS that is spoken, with clients and origins."""
    client_certificate: tls_values.ClientCertificates = NO_CERTIFICATE
    """A PEM file (certificate and key) for origins that ask for one; or hosts, each with its file."""
    authority: Authority | None = None
    """A CA of your own, in place of the one that the proxy makes."""


class Limits(Section):
    head: Annotated[int, PlainValidator(size(256, 16 << 20))] = 64 << 10
    """A message's first line and its header fields; past it 431, or 502 for an origin's."""
    fields: Annotated[int, PlainValidator(count(1, 100_000))] = 200
    """How many header fields a message may have."""
    trailers: Annotated[int, PlainValidator(size(0, 16 << 20))] = 16 << 10
    """The fields behind a chunked body."""
    held_body: Size = 8 << 20
    """A body that is held whole; past it 413 (a request) or 502 (a response)."""
    body: Size | None = None
    """Any body; null: no limit."""
    websocket_message: Size = 16 << 20
    """A message that is put together; past it the WebSocket is closed (1009)."""
    capture: Size = 64 << 10
    """What is captured of a body, where the rule doesn't say."""
    captures: Size = 64 << 20
    """What is captured of all bodies under way, in memory."""
    capture_files: Size = 1 << 30
    """What is captured of all bodies since the start, in files."""
    decoded_body: Size = 16 << 30
    """What a compressed body that a rule reads may come to."""
    decoded_ratio: Annotated[int, PlainValidator(count(1, 1_000_000))] = 250
    """How many times its size a compressed body may come to, from 4m on."""
    event: Annotated[int, PlainValidator(size(1))] = 1 << 20
    """A server-sent event, or a line, that a function is asked about."""
    memory: Annotated[int, PlainValidator(size(1 << 20))] = 256 << 20
    """All that is held at a time, of all exchanges together."""
    upload_rate: Size = 16
    """A request's body that nothing answers yet has to come at so many bytes a second."""
    connections: Annotated[int, PlainValidator(count(1, 10_000_000))] = 10_000
    """Connections from clients, at one time."""


class Timeouts(Section):
    connect: Seconds = 10.0
    """Seconds until the origin takes the connection, its name's look-up included."""
    handshake: Seconds = 10.0
    """Seconds until TLS is agreed upon, with a client or an origin."""
    head: Seconds = 30.0
    """Seconds until a head is there, once it has begun."""
    idle: Seconds = 300.0
    """Seconds in an exchange in which nothing moves."""
    keepalive: Seconds = 75.0
    """Seconds between two exchanges of one connection."""
    tunnel: Seconds = 3600.0
    """Seconds in a tunnel in which nothing moves."""
    regex: Seconds = 0.25
    """Seconds that a regex may take for 64k of a body, beside a quarter of all time."""
    script: Seconds = 2.0
    """Seconds for one call of a script, which is interrupted then."""
    script_budget: Seconds = 0.05
    """Seconds past which a call of a script is told on the log."""
    drain: Seconds = 30.0
    """Seconds that what is under way has when the proxy is to stop."""


class AccessOrigins(Section):
    allow: tls_values.DestinationList = Origins().allow
    """If anything is listed here, connections go nowhere else: hosts and ranges, as in tls.passthrough."""
    deny: tls_values.DestinationList = Origins().deny
    """Where no connection goes, by name or by the address that a name resolves to."""


class Access(Section):
    allow: access_values.ClientList = Clients()
    """The addresses, or ranges such as 10.0.0.0/8, that clients may come from; none: any."""
    htpasswd: access_values.HtpasswdFile | None = None
    """A file of users and their passwords, as htpasswd -B writes it; who isn't in it is answered 407."""
    origins: AccessOrigins = AccessOrigins()
    """Where clients may be led to."""

    def as_data(self) -> AccessPolicy:
        """What it comes to."""
        return AccessPolicy(self.allow, self.htpasswd, Origins(self.origins.allow, self.origins.deny))


class Admin(Section):
    """The listener for operators. `token_file` None: only who is on this machine may use it."""

    endpoint: Endpoint = ADMIN_ENDPOINT
    """Where to listen, as under listen."""
    token_file: access_values.TokenFile | None = None
    """A file with the secret that each request must bring (Authorization: Bearer); left out: only who is on this
    machine is served."""
    hosts: Lines = ()
    """Names by which the listener is called, beside addresses and localhost."""


def as_admin(value: Any) -> Any:
    """So may this one; false: there is none."""
    if value is False:
        return None
    return value if isinstance(value, dict) else {"endpoint": value}


class Log(Section):
    """`format`: text, JSON lines, or text with a JSON line for each exchange; `file` None: where twistd says."""

    format: Annotated[str, PlainValidator(one_of("mixed", "text", "json"))] = "mixed"
    """mixed: text, and a line of JSON for each exchange; text: lines for people; json: every line is a JSON object."""
    file: access_values.AbsolutePath | None = None
    """The file to append to, opened anew when it was renamed and on SIGUSR1; - is standard output; null: where twistd
    says. Options of twistd's own win."""


class Configuration(Section):
    """Everything that a configuration may say."""

    listen: Annotated[
        tuple[Annotated[Listener, BeforeValidator(as_listener)], ...], BeforeValidator(values.at_least_one)
    ] = (Listener(endpoint=ENDPOINT),)
    """Where clients come in: Twisted endpoint strings, one or several."""
    admin: Annotated[Admin | None, BeforeValidator(as_admin)] = Admin()
    """The listener for operators; false: there is none."""
    log: Log = Log()
    """How the log is written; changed by a restart."""
    state_dir: Line | None = None
    """The folder of the CA and of captures; null: $STATE_DIRECTORY, or else ~/.streamproxy."""
    stream_large_bodies: Size | None = None
    """A body larger than this is never held, unless a rule says so; null: there is no such size."""
    stream_websockets: Boolean = False
    """Whether frames of WebSockets go on as they come, and can't be changed."""
    stream_content_types: values.StreamedTypes = Patterns(type_pattern(kind) for kind in STREAMED_TYPES)
    """Bodies of these types are never held, unless a rule says so."""
    hold: Annotated[str, PlainValidator(one_of("needed", "always"))] = "needed"
    """needed: a body is held whole only where something wants it whole; always: every body that nothing makes stream.
    """
    write_size: Annotated[int, PlainValidator(size(16, 4096))] = 4096
    """The largest piece that is written, never an amount that is waited for."""
    tls: Tls = Tls()
    """What is read of TLS, and who is trusted."""
    limits: Limits = Limits()
    """How much of anything there may be."""
    timeouts: Timeouts = Timeouts()
    """How long anything may take."""
    access: Access = Access()
    """Who may use the proxy, and where it may lead them. To listen beyond loopback, allow or htpasswd must be given."""
    scripts: Lines = ()
    """Scripts in Python, by their files, from the configuration's folder or the working directory."""
    script_options: values.ScriptOptions = {}
    """What these scripts declare as options, by name."""
    rules: tuple[Rule, ...] = ()
    """Every rule that matches applies, in this order. Of answers and redirects the first decides."""
