"""What the proxy is told: a configuration file and the command line, read, checked once and frozen.

Nothing here opens a port. An endpoint string is handed on as text to who listens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streamproxy.filters.coding import CODINGS
from streamproxy.filters.patterns import check_template, compile_regex
from streamproxy.rules import schema
from streamproxy.rules.access import Access
from streamproxy.rules.endpoint import beyond_loopback
from streamproxy.rules.explain import dotted, read_configuration
from streamproxy.rules.interception import Interception
from streamproxy.rules.override import override
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.trust import NO_CERTIFICATE, VERIFIED, HostChoices
from streamproxy.rules.way import Streaming
from streamproxy.rules.yaml import Document, Path, Place, Problem, YamlError, compose, decoded
from streamproxy.scripts.loading import ScriptLoadError, Scripts, load_scripts

READABLE = frozenset(CODINGS)
NO_SCRIPTS = Scripts("")
# More than anybody writes, and little enough that a mistaken path (/dev/zero) ends in words.
LARGEST_FILE = 16 << 20


class ConfigurationError(Exception):
    """What is wrong with the configuration: one line an error."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, and counts; `body` is None where there is no limit.

    `capture` is what is recorded of a body, `captures` and `capture_files` of all, in memory and in files.
    `decoded_body` and `decoded_ratio` bound what a body's content codings may make of it, `event` one event or record,
    `websocket_message` one message that is put together. `memory` is for all that is held at a time. A request's body
    that nothing answers yet has to come at `upload_rate` bytes a second.
    """

    head: int = 64 << 10
    fields: int = 200
    trailers: int = 16 << 10
    held_body: int = 8 << 20
    body: int | None = None
    websocket_message: int = 16 << 20
    connections: int = 10_000
    capture: int = 64 << 10
    captures: int = 64 << 20
    capture_files: int = 1 << 30
    decoded_body: int = 16 << 30
    decoded_ratio: int = 250
    event: int = 1 << 20
    memory: int = 256 << 20
    upload_rate: int = 16


@dataclass(frozen=True)
class Timeouts:
    """Times in seconds.

    `regex` is for one search of one regex, `script` for one call of a user's function; `script_budget` is what such a
    call may take without a word about it. `drain` is for what is under way when the proxy is to stop.
    """

    connect: float = 10.0
    handshake: float = 10.0
    head: float = 30.0
    idle: float = 300.0
    keepalive: float = 75.0
    tunnel: float = 3600.0
    regex: float = 0.25
    script: float = 2.0
    script_budget: float = 0.05
    drain: float = 30.0


@dataclass(frozen=True)
class Admin:
    """The listener for operators: where it is, the secret that it asks for (None: nobody but who is on this machine
    may use it), and names that it is called by beside addresses and localhost."""

    endpoint: str = schema.ADMIN_ENDPOINT
    token: str | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogSettings:
    """How the log is written: `form` is mixed (text, and a JSON line for each exchange), text or json. `path` is
    absolute, - for standard output, None for what twistd says."""

    form: str = "mixed"
    path: str | None = None


@dataclass(frozen=True)
class TlsSettings:
    """What is intercepted, who is trusted, and what is shown to whom.

    `trusted_ca` are PEM files beside the system's trust; `authority_certificate` is one with the CA of the user's own
    (None: the proxy makes one), and `authority_key` that with its key, which may be the same. All paths are absolute.
    `minimum_version` is "1.2" or "1.3".
    """

    interception: Interception = field(default_factory=Interception)
    verification: HostChoices[bool] = VERIFIED
    client_certificate: HostChoices[str | None] = NO_CERTIFICATE
    trusted_ca: tuple[str, ...] = ()
    minimum_version: str = "1.2"
    authority_certificate: str | None = None
    authority_key: str | None = None

    def verifies(self, host: str, port: int) -> bool:
        """Whether an origin must prove who it is; `host` in lower case, IPv6 without brackets."""
        return self.verification.choose(host, port)

    def client_certificate_for(self, host: str, port: int) -> str | None:
        """The PEM file (certificate and key) that an origin is shown if it asks for one."""
        return self.client_certificate.choose(host, port)

    @property
    def unverified(self) -> tuple[str, ...]:
        """The patterns of the hosts whose certificates aren't verified, as the user wrote them."""
        return self.verification.patterns_of(False)

    @property
    def client_certificates(self) -> tuple[str, ...]:
        """The PEM files that `client_certificate_for` may give, each once."""
        return tuple(path for path in self.client_certificate.values if path is not None)


def _no_rules() -> RuleSet:
    return RuleSet((), _streaming(schema.Configuration(), NO_SCRIPTS))


@dataclass(frozen=True)
class Settings:
    """Everything that the proxy is told; by itself, what holds without a configuration.

    `state_dir` is as it was written; None where the place is left to the proxy. `functions` are those that rules name,
    by what they are called there, each with its full name. `admin` is None where there is no such listener.
    """

    listen: tuple[str, ...] = (schema.ENDPOINT,)
    admin: Admin | None = field(default_factory=Admin)
    access: Access = field(default_factory=Access)
    log: LogSettings = field(default_factory=LogSettings)
    write_size: int = 4096
    stream_large_bodies: int | None = None
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    rules: RuleSet = field(default_factory=_no_rules)
    tls: TlsSettings = field(default_factory=TlsSettings)
    state_dir: str | None = None
    scripts: Scripts = NO_SCRIPTS
    functions: Mapping[str, tuple[object, str]] = field(default_factory=dict)


def load(path: str, overrides: Sequence[str] = ()) -> Settings:
    """Read the configuration at `path`, then each `KEY=VALUE` over it. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError([f"{path}: can't be read: {reason}"]) from None
    if len(raw) > LARGEST_FILE:
        raise ConfigurationError([f"{path}: can't be read: is larger than {LARGEST_FILE >> 20}m"])
    problems: list[Problem] = []
    document = Document({}, {(): Place(path, 1, 1)}, {})
    try:
        document = compose(decoded(raw, path), path)
    except YamlError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(_in_order(problems))
    if document.data is None:
        document = document._replace(data={})
    for index, text in enumerate(overrides):
        problem = override(document, text, index) if isinstance(document.data, dict) else None
        if problem:
            problems.append(problem)
    configuration, found = read_configuration(document)
    problems += found
    if problems or configuration is None:
        raise ConfigurationError(_in_order(problems))
    problems += _regex_problems(configuration, document) + _pace_problems(configuration, document)
    problems += _access_problems(configuration, document)
    scripts, functions, wrong = _load_scripts(configuration, document, os.path.dirname(path))
    problems += wrong
    if problems:
        scripts.discard()
        raise ConfigurationError(_in_order(problems))
    return _settings(configuration, scripts, functions)


def _each_part(configuration: schema.Configuration) -> Iterator[tuple[Path, schema.Changes]]:
    for number, rule in enumerate(configuration.rules):
        for name, changes in (("request", rule.request), ("response", rule.response)):
            if changes.model_fields_set:
                yield ("rules", number, name), changes


def _regex_problems(configuration: schema.Configuration, document: Document) -> list[Problem]:
    """What is wrong with the regexes that bodies and messages are searched for."""
    problems = []
    for path, index, regex, put in _each_regex(configuration):
        found, key = None, "regex"
        try:
            compiled = compile_regex(regex)
            key = "with"
            if put is not None:
                check_template(compiled, put.decode())
        except ValueError as error:
            found = str(error)
        if found is not None:
            # A list of one may have been written without being one.
            below: Path = (*path, index, key)
            if below not in document.places:
                below = (*path, key)
            problems.append(_problem(document, below, f"{dotted(below)}: {found}"))
    return problems


def _each_regex(configuration: schema.Configuration) -> Iterator[tuple[Path, int, str, bytes | None]]:
    """The regexes that bodies and messages are searched for: the list that each stands in, where in it, what it is, and
    the template of what is put in its place, if anything is."""
    for path, changes in _each_part(configuration):
        for index, each in enumerate(changes.replace):
            if each.regex is not None:
                yield (*path, "replace"), index, each.regex, each.put
    for number, rule in enumerate(configuration.rules):
        for index, message in enumerate(rule.websocket.messages):
            if message.regex is not None:
                yield ("rules", number, "websocket", "messages"), index, message.regex, message.put


def _pace_problems(configuration: schema.Configuration, document: Document) -> list[Problem]:
    """Delays by which every exchange would be given up for standing still."""
    idle = configuration.timeouts.idle
    return [
        _problem(
            document, (*path, "pace", "delay"), f"{dotted(path)}.pace.delay: expected less than timeouts.idle, {idle}"
        )
        for path, changes in _each_part(configuration)
        if changes.pace is not None and (changes.pace.delay or 0) >= idle
    ]


def _access_problems(configuration: schema.Configuration, document: Document) -> list[Problem]:
    """Listeners that others than this machine's users come by, where nothing says who may use them."""
    found: list[tuple[Path, str, str]] = []
    if not configuration.access.as_data().is_limited:
        listen = [each.endpoint for each in configuration.listen]
        found += [(("listen",), "access.allow or access.htpasswd", each) for each in beyond_loopback(listen)]
    admin = configuration.admin
    if admin is not None and admin.token_file is None:
        found += [(("admin",), "admin.token_file", each) for each in beyond_loopback([admin.endpoint])]
    return [
        _problem(document, path, f"{path[0]}: expected {key}, for {each} listens beyond loopback")
        for path, key, each in found
    ]


def _problem(document: Document, path: Path, text: str) -> Problem:
    while path not in document.places:
        path = path[:-1]
    return Problem(document.places[path], text)


Functions = dict[str, tuple[object, str]]


def _load_scripts(
    configuration: schema.Configuration, document: Document, folder: str
) -> tuple[Scripts, Functions, list[Problem]]:
    """The scripts, and the functions that rules name; what is wrong with any of them."""
    names = [
        ((*path, kind), getattr(changes, kind))
        for path, changes in _each_part(configuration)
        for kind in ("events", "lines", "transform")
    ]
    names = [(path, name) for path, name in names if name is not None]
    if not configuration.scripts and not names:
        return NO_SCRIPTS, {}, []
    functions: Functions = {}
    problems: list[Problem] = []
    try:
        scripts = load_scripts(configuration.scripts, configuration.script_options, folder)
    except ScriptLoadError as error:
        return NO_SCRIPTS, {}, [_problem(document, ("scripts",), f"scripts: {error}")]
    for path, name in names:
        try:
            functions[name] = scripts.find(name)
        except ScriptLoadError as error:
            problems.append(_problem(document, path, f"{dotted(path)}: {error}"))
    return scripts, functions, problems


def _settings(configuration: schema.Configuration, scripts: Scripts, functions: Functions) -> Settings:
    limits, timeouts = configuration.limits, configuration.timeouts
    return Settings(
        listen=tuple(listener.endpoint for listener in configuration.listen),
        admin=_admin(configuration.admin),
        access=configuration.access.as_data(),
        log=LogSettings(configuration.log.format, configuration.log.file),
        write_size=configuration.write_size,
        stream_large_bodies=configuration.stream_large_bodies,
        limits=Limits(
            head=limits.head,
            fields=limits.fields,
            trailers=limits.trailers,
            held_body=limits.held_body,
            body=limits.body,
            websocket_message=limits.websocket_message,
            connections=limits.connections,
            capture=limits.capture,
            captures=limits.captures,
            capture_files=limits.capture_files,
            decoded_body=limits.decoded_body,
            decoded_ratio=limits.decoded_ratio,
            event=limits.event,
            memory=limits.memory,
            upload_rate=limits.upload_rate,
        ),
        timeouts=Timeouts(
            connect=timeouts.connect,
            handshake=timeouts.handshake,
            head=timeouts.head,
            idle=timeouts.idle,
            keepalive=timeouts.keepalive,
            tunnel=timeouts.tunnel,
            regex=timeouts.regex,
            script=timeouts.script,
            script_budget=timeouts.script_budget,
            drain=timeouts.drain,
        ),
        rules=RuleSet(configuration.rules, _streaming(configuration, scripts), READABLE),
        tls=_tls(configuration.tls),
        state_dir=configuration.state_dir,
        scripts=scripts,
        functions=functions,
    )


def _admin(admin: schema.Admin | None) -> Admin | None:
    return None if admin is None else Admin(admin.endpoint, admin.token_file, admin.hosts)


def _tls(tls: schema.Tls) -> TlsSettings:
    authority = tls.authority
    return TlsSettings(
        interception=Interception(tls.intercept, tls.passthrough, tls.only),
        verification=tls.verify_upstream,
        client_certificate=tls.client_certificate,
        trusted_ca=tls.trusted_ca,
        minimum_version=tls.minimum_version,
        authority_certificate=authority.certificate if authority else None,
        authority_key=(authority.key or authority.certificate) if authority else None,
    )


def _streaming(configuration: schema.Configuration, scripts: Scripts) -> Streaming:
    request, response = scripts.hooks["request"], scripts.hooks["response"]
    return Streaming(
        types=configuration.stream_content_types,
        large=configuration.stream_large_bodies,
        hold_always=configuration.hold == "always",
        held_body=configuration.limits.held_body,
        body=configuration.limits.body,
        request_hook=f"script {request[0].name}" if request else None,
        response_hook=f"script {response[0].name}" if response else None,
        websockets=configuration.stream_websockets,
    )


def _in_order(problems: list[Problem]) -> list[str]:
    """One line each, in the order of the file, then of the command line."""
    places = sorted(problems, key=lambda each: (each.place.line == 0, each.place.line, each.place.column))
    lines = (f"{problem.place}: {problem.text}" for problem in places)
    return list(dict.fromkeys(" ".join(line.splitlines()) for line in lines))
