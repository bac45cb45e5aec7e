"""The texts of a request that patterns of paths and URLs are held against.

What a path may look like is told in `paths`, what a host may look like in `match`.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamproxy.rules.match import host_forms
from streamproxy.rules.paths import path_forms, query_forms
from streamproxy.wire.message import Origin, Target


class Asked:
    """What was asked for, in all the forms that patterns are tried on; they are made when needed."""

    __slots__ = ("_paths", "_urls", "path", "query", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        path, mark, query = target.path.partition("?")
        self.path = path
        self.query = mark + query
        self._paths: tuple[str, ...] | None = None
        self._urls: list[str] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        if self._paths is None:
            # "*" is the server as a whole, so "/*" means it, too.
            self._paths = ("*", "/", "") if self.path == "*" else path_forms(self.path)
        return self._paths

    @property
    def urls(self) -> list[str]:
        if self._urls is None:
            self._urls = self._urls_at(self.target.origin)
        return self._urls

    def _urls_at(self, origin: Origin) -> list[str]:
        scheme, host, port = origin
        paths = ("", "/") if self.path == "*" else self.paths  # "http://h/*" means it, too
        queries = query_forms(self.query)
        urls: list[str] = []
        for form in host_forms(host):
            start = f"{scheme}://{Origin(scheme, form, port).netloc}"
            for path in paths:
                for query in queries:
                    urls.append(f"{start}{path}{query}")
        return urls

    def query_begins(self, index: int) -> int:
        """Where the query begins (or the text ends) in the URL form with this index."""
        queries = query_forms(self.query)
        return len(self.urls[index]) - len(queries[index % len(queries)])

    def is_as_it_came(self, index: int) -> bool:
        """Whether path and query in the URL form with this index are the client's own: each host's first are."""
        paths = 2 if self.path == "*" else len(self.paths)
        return index % (paths * len(query_forms(self.query))) == 0


class AskedOfAny(Asked):
    """What was asked for of one of several origins, and no telling of which."""

    __slots__ = ("_aliases",)

    def __init__(self, target: Target, aliases: Iterable[Origin]) -> None:
        super().__init__(target)
        self._aliases = aliases

    @property
    def urls(self) -> list[str]:
        if self._urls is None:
            self._urls = self._urls_at(self.target.origin)
            for alias in self._aliases:
                self._urls += self._urls_at(alias)
        return self._urls
