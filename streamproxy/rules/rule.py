"""One rule, made ready to be held against heads: what it matches, and what it does.

How rules add up is told in `ruleset`.
"""

from __future__ import annotations

import re

from streamproxy.rules import schema
from streamproxy.rules.asked import Asked
from streamproxy.rules.match import content_type_holds, header_holds
from streamproxy.rules.paths import fit_for_url
from streamproxy.rules.reach import Reach, may_cover_all, reach_of
from streamproxy.rules.values import Redirect
from streamproxy.rules.verdict import (
    NO_WORK,
    Answer,
    BodyWork,
    Capture,
    HeaderEdits,
    MessageRule,
    Pace,
    Replacement,
    UserFunction,
)
from streamproxy.wire.headers import Field, Headers
from streamproxy.wire.message import Origin

TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_ANY_PATH = re.compile(r"/?\*+")
# What only a pattern of all methods matches.
_NO_METHOD = "A-METHOD-OF-NO-MEANING"


class Part:
    """What one rule does to one of the two messages."""

    __slots__ = ("changes_fields", "edits", "is_idle", "says", "work")

    def __init__(self, name: str, changes: schema.Changes) -> None:
        headers = changes.headers
        self.edits = HeaderEdits(
            remove=tuple(field.lower().encode() for field in headers.remove),
            set=tuple((field.encode(), value) for field, value in headers.set.items()),
            add=tuple((field.encode(), value) for field, values in headers.add.items() for value in values),
        )
        self.changes_fields = self.edits != HeaderEdits()
        self.work = _work(name, changes)
        self.says = None if changes.stream is None else (changes.stream, f"rule {name}")
        self.is_idle = not (self.changes_fields or self.work is not NO_WORK or self.says)


def _work(name: str, changes: schema.Changes) -> BodyWork:
    release = changes.on_overrun == "release"
    work = BodyWork(
        replacements=tuple(
            Replacement(each.find or b"", each.put, name, each.regex, changes.hold_back, release)
            for each in changes.replace
        ),
        functions=tuple(
            UserFunction(kind, function, name)
            for kind in ("events", "lines", "transform")
            if (function := getattr(changes, kind)) is not None
        ),
        pace=None if changes.pace is None else Pace(changes.pace.rate, changes.pace.delay or 0.0),
        fault=None if changes.fault is None else changes.fault.as_data(name),
        capture=None if changes.capture is None else Capture(changes.capture.limit, changes.capture.to == "files"),
    )
    changes_body = bool(work.replacements or work.functions)
    work = work._replace(changes=changes_body, hold_time=changes.hold_time if work.replacements else None)
    return NO_WORK if work == NO_WORK else work


# Most rules do nothing to one of the two, and share this.
_NOTHING = Part("", schema.Changes())


class WebSocketPart:
    """What one rule does to WebSockets: its word on streaming, and what it does to messages.

    `messages` is what its section for WebSockets says of them. `sent` and `received` are what it replaces in requests
    and in responses, which is done to messages as well: from the client, and from the origin.
    """

    __slots__ = ("is_idle", "messages", "received", "says", "sent")

    def __init__(self, name: str, rule: schema.Rule, place: int) -> None:
        websocket = rule.websocket
        self.says = None if websocket.stream is None else (websocket.stream, f"rule {name}")
        self.messages = tuple(_message_rule(name, each, place) for each in websocket.messages)
        self.sent = _done_to_bodies(name, rule.request, True, place)
        self.received = _done_to_bodies(name, rule.response, False, place)
        self.is_idle = not (self.says or self.messages or self.sent or self.received)


def _message_rule(name: str, change: schema.MessageChange, place: int) -> MessageRule:
    return MessageRule(
        rule=name,
        action="drop" if change.drop else "replace" if change.respond is None else "respond",
        from_client=None if change.sender is None else change.sender == "client",
        text=None if change.type is None else change.type == "text",
        find=change.find or b"",
        regex=change.regex,
        put=(change.put if change.respond is None else change.respond) or b"",
        place=place,
    )


def _done_to_bodies(name: str, changes: schema.Changes, from_client: bool, place: int) -> tuple[MessageRule, ...]:
    """What is done to bodies is done to messages as well; but a function can't be, which will be told."""
    made = [
        MessageRule(name, "replace", from_client, None, each.find or b"", each.regex, each.put, place)
        for each in changes.replace
    ]
    if changes.events or changes.lines or changes.transform:
        made.append(MessageRule(name, "function", from_client, None, b"", None, b"", place))
    return tuple(made)


_NO_WEBSOCKET = WebSocketPart("", schema.Rule(), 0)


def _part(name: str, changes: schema.Changes) -> Part:
    return Part(name, changes) if changes.model_fields_set else _NOTHING


def _websocket_part(name: str, rule: schema.Rule, place: int) -> WebSocketPart:
    speaks = rule.websocket.model_fields_set or any(
        part.replace or part.events or part.lines or part.transform for part in (rule.request, rule.response)
    )
    return WebSocketPart(name, rule, place) if speaks else _NO_WEBSOCKET


class Rule:
    """One rule, made ready to be held against heads."""

    __slots__ = (
        "answer",
        "content_types",
        "decides",
        "folder",
        "headers",
        "hosts",
        "is_for_connect_alone",
        "may_refuse",
        "methods",
        "name",
        "paths",
        "redirect",
        "request",
        "response",
        "urls",
        "websocket",
    )

    def __init__(self, name: str, rule: schema.Rule, place: int = 0) -> None:
        self.name = name
        match = rule.match
        self.hosts = match.host
        self.methods = match.method
        self.paths = match.path
        self.urls = match.url
        self.headers = tuple((field.lower().encode(), test) for field, test in match.header.items())
        self.content_types = match.content_type
        self.request = _part(name, rule.request)
        self.response = _part(name, rule.response)
        self.websocket = _websocket_part(name, rule, place)
        self.redirect: Redirect | None = rule.redirect_to
        self.answer = _answer(name, rule)
        self.folder = self.answer is not None and self.answer.file is not None and self.answer.file.is_dir()
        # Whether it says where a request goes, or that it doesn't go at all.
        self.decides = self.answer is not None or self.redirect is not None
        # Whether no request can match that isn't a CONNECT.
        methods = self.methods.patterns
        self.is_for_connect_alone = bool(methods) and all(
            method.is_wildcard and method.text == "CONNECT" for method in methods
        )
        # Whether there could be an origin to which it refuses CONNECT.
        self.may_refuse = self._may_refuse()

    def __repr__(self) -> str:
        return f"<Rule {self.name!r}>"

    def holds_for(self, method: str, asked: Asked) -> bool:
        """Whether method, path and URL match; the host is known to."""
        return (
            (not self.methods.patterns or self.methods.matches(method))
            and (not self.paths.patterns or self.paths.match_any(asked.paths))
            and (not self.urls.patterns or self.urls.match_any(asked.urls))
        )

    def heads_match(self, *heads: Headers) -> bool:
        """Whether header and content_type match: the request's head alone, or either of both messages'."""
        if self.content_types and not content_type_holds(self.content_types, *heads):
            return False
        return all(header_holds(name, test, *heads) for name, test in self.headers)

    def may_match_response(self, request: Headers) -> bool:
        """Whether a response may make `heads_match`; only a field that must be absent can rule that out."""
        return not any(test is False and name in request for name, test in self.headers)

    @property
    def holds_on(self) -> bool:
        """Whether it holds for both heads together if it does for the request's: no field must be absent."""
        return not any(test is False for _, test in self.headers)

    def path_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the path pattern stood for."""
        found = self.paths.find(asked.paths) if self.paths else None
        if found is None or found.tail is None:
            return None
        tail = found.text[found.tail :]
        return tail if found.form == 0 else fit_for_url(tail)

    def url_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the URL pattern stood for, as far as that lies in the URL's path."""
        found = self.urls.find(asked.urls) if self.urls else None
        if found is None or found.tail is None:
            return None
        query_begins = asked.query_begins(found.form)
        path_begins = found.text.find("/", found.text.find("://") + 3)
        if not path_begins < found.tail <= query_begins:
            return None
        tail = found.text[found.tail : query_begins]
        return tail if asked.is_as_it_came(found.form) else fit_for_url(tail)

    @property
    def has_head_conditions(self) -> bool:
        """Whether header or content_type is given."""
        return bool(self.headers or self.content_types)

    def _may_refuse(self) -> bool:
        if self.answer is None or not self.answer.refusal or (self.methods and not self.methods.matches("CONNECT")):
            return False
        paths = self.paths.patterns
        if paths and not any(path.is_wildcard and _ANY_PATH.fullmatch(path.text) for path in paths):
            return False
        return not self.urls or any(map(may_cover_all, self.urls.patterns))

    def may_speak_of(self, origin: Origin) -> bool:
        """Whether its URL patterns can match a request to an origin, http or https; the host is known to match."""
        return not self.urls or any(reach_of(self.urls, origin._replace(scheme=scheme)) for scheme in ("http", "https"))

    def may_block_all_of(self, origin: Origin) -> bool:
        """Whether it blocks CONNECT to an origin, and all that can be asked for there, its headers aside.

        The host is known to match.
        """
        if not self.may_refuse:
            return False
        if not self.urls:
            return True
        # Port 80 is http's. Anything else in a tunnel is taken for https.
        schemes = ("http", "https") if origin.port == 80 else ("https",)
        return any(reach_of(self.urls, origin._replace(scheme=scheme)) is Reach.ALL for scheme in schemes)

    def connect_matches(self, headers: Headers) -> bool:
        """Whether header and content_type let it speak of a CONNECT, whose fields are none of a request's within.

        Where there are such conditions, they are held against the CONNECT only if the rule is written for it, too:
        if it has a method condition that CONNECT meets, and not just any method.
        """
        if not self.has_head_conditions:
            return True
        return bool(self.methods) and not self.methods.matches(_NO_METHOD) and self.heads_match(headers)


def _answer(name: str, rule: schema.Rule) -> Answer | None:
    if rule.block is not None:
        text = f"Blocked by rule {name!r}.\n"
        return Answer(rule.block, (TEXT,), text.encode(), refusal=True)
    respond = rule.respond
    if respond is None:
        return None
    fields: list[Field] = [(field.encode(), value) for field, values in respond.headers.items() for value in values]
    if respond.file is not None:
        return Answer(respond.status, tuple(fields), file=respond.file)
    if not respond.text:
        return Answer(respond.status, tuple(fields))
    if not any(field.lower() == b"content-type" for field, _ in fields):
        fields.append(TEXT)
    return Answer(respond.status, tuple(fields), respond.text.encode())
