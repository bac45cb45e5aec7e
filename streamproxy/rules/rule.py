"""One rule, made ready to be held against heads: what it matches, and what it does.

How rules add up is told in `ruleset`.
"""

from __future__ import annotations

import re

from streamproxy.rules import schema
from streamproxy.rules.asked import Asked
from streamproxy.rules.match import content_type_holds, header_holds
from streamproxy.rules.paths import fit_for_url
from streamproxy.rules.reach import Reach, reach_of
from streamproxy.rules.values import Redirect
from streamproxy.rules.verdict import Answer, HeaderEdits, Replacement
from streamproxy.wire.headers import Field, Headers
from streamproxy.wire.message import Origin

TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_ANY_PATH = re.compile(r"/?\*+")
# What only a pattern of all methods matches.
_NO_METHOD = "A-METHOD-OF-NO-MEANING"


class Part:
    """What one rule does to one of the two messages."""

    __slots__ = ("changes_fields", "edits", "is_idle", "replacements", "says")

    def __init__(self, name: str, changes: schema.Changes) -> None:
        headers = changes.headers
        self.edits = HeaderEdits(
            remove=tuple(field.lower().encode() for field in headers.remove),
            set=tuple((field.encode(), value) for field, value in headers.set.items()),
            add=tuple((field.encode(), value) for field, values in headers.add.items() for value in values),
        )
        self.changes_fields = self.edits != HeaderEdits()
        self.replacements = tuple(
            Replacement(each.find, each.put, name) for each in changes.replace if each.find is not None
        )
        self.says = None if changes.stream is None else (changes.stream, f"rule {name}")
        self.is_idle = not (self.changes_fields or self.replacements or self.says)


class Rule:
    """One rule, made ready to be held against heads."""

    __slots__ = (
        "_content_types",
        "_headers",
        "_methods",
        "_paths",
        "_urls",
        "answer",
        "folder",
        "hosts",
        "name",
        "redirect",
        "request",
        "response",
    )

    def __init__(self, name: str, rule: schema.Rule) -> None:
        self.name = name
        match = rule.match
        self.hosts = match.host
        self._methods = match.method
        self._paths = match.path
        self._urls = match.url
        self._headers = tuple((field.lower().encode(), test) for field, test in match.header.items())
        self._content_types = match.content_type
        self.request = Part(name, rule.request)
        self.response = Part(name, rule.response)
        self.redirect: Redirect | None = rule.redirect_to
        self.answer = _answer(name, rule)
        self.folder = self.answer is not None and self.answer.file is not None and self.answer.file.is_dir()

    def __repr__(self) -> str:
        return f"<Rule {self.name!r}>"

    def holds_for(self, method: str, asked: Asked) -> bool:
        """Whether method, path and URL match; the host is known to."""
        return (
            (not self._methods or self._methods.matches(method))
            and (not self._paths or self._paths.find(asked.paths) is not None)
            and (not self._urls or self._urls.find(asked.urls) is not None)
        )

    def heads_match(self, *heads: Headers) -> bool:
        """Whether header and content_type match: the request's head alone, or either of both messages'."""
        if self._content_types and not content_type_holds(self._content_types, *heads):
            return False
        return all(header_holds(name, test, *heads) for name, test in self._headers)

    def may_match_response(self, request: Headers) -> bool:
        """Whether a response may make `heads_match`; only a field that must be absent can rule that out."""
        return not any(test is False and name in request for name, test in self._headers)

    def path_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the path pattern stood for."""
        found = self._paths.find(asked.paths) if self._paths else None
        if found is None or found.tail is None:
            return None
        tail = found.text[found.tail :]
        return tail if found.form == 0 else fit_for_url(tail)

    def url_tail(self, asked: Asked) -> str | None:
        """What the trailing `*` of the URL pattern stood for, as far as that lies in the URL's path."""
        found = self._urls.find(asked.urls) if self._urls else None
        if found is None or found.tail is None:
            return None
        query_begins = asked.query_begins(found.form)
        path_begins = found.text.find("/", found.text.find("://") + 3)
        if not path_begins < found.tail <= query_begins:
            return None
        tail = found.text[found.tail : query_begins]
        return tail if asked.is_as_it_came(found.form) else fit_for_url(tail)

    @property
    def decides(self) -> bool:
        """Whether it says where a request goes, or that it doesn't go at all."""
        return self.answer is not None or self.redirect is not None

    @property
    def is_for_connect_alone(self) -> bool:
        """Whether no request can match that isn't a CONNECT."""
        methods = self._methods.patterns
        return bool(methods) and all(method.is_wildcard and method.text == "CONNECT" for method in methods)

    def may_speak_of(self, origin: Origin) -> bool:
        """Whether its URL patterns can match a request to an origin, http or https; the host is known to match."""
        return not self._urls or any(
            reach_of(self._urls, origin._replace(scheme=scheme)) for scheme in ("http", "https")
        )

    def may_block_all_of(self, origin: Origin) -> bool:
        """Whether it blocks CONNECT to an origin, and all that can be asked for there, its headers aside.

        The host is known to match.
        """
        if self.answer is None or not self.answer.refusal or (self._methods and not self._methods.matches("CONNECT")):
            return False
        paths = self._paths.patterns
        if paths and not any(path.is_wildcard and _ANY_PATH.fullmatch(path.text) for path in paths):
            return False
        if not self._urls:
            return True
        # Port 80 is http's. Anything else in a tunnel is taken for https.
        schemes = ("http", "https") if origin.port == 80 else ("https",)
        return any(reach_of(self._urls, origin._replace(scheme=scheme)) is Reach.ALL for scheme in schemes)

    def connect_matches(self, headers: Headers) -> bool:
        """Whether header and content_type let it speak of a CONNECT, whose fields are none of a request's within.

        Where there are such conditions, they are held against the CONNECT only if the rule is written for it, too:
        if it has a method condition that CONNECT meets, and not just any method.
        """
        if not self._headers and not self._content_types:
            return True
        return bool(self._methods) and not self._methods.matches(_NO_METHOD) and self.heads_match(headers)


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
