"""How much of an origin an URL pattern covers: nothing, some of its URLs, or all. No request is needed to tell.

A wildcard pattern is run over the beginning that all URLs of the origin share. If it fits no further than that, it
covers none of them; if only stars are left of it, it covers all, as nothing that follows can make a difference.
Some of that can be told of a pattern by itself, whatever the origin: it saves asking the others.
"""

from __future__ import annotations

import enum

from streamproxy.rules.asked import Asked
from streamproxy.rules.match import Pattern, Patterns
from streamproxy.wire.message import Origin, Target


class Reach(enum.IntEnum):
    """How much a pattern covers; what can't be told counts as some."""

    NONE = 0
    SOME = 1
    ALL = 2


def reach_of(patterns: Patterns, origin: Origin) -> Reach:
    """How much of `origin` the URL patterns cover. Each form of its host will do, as for a request."""
    prefixes = beginnings(origin)
    return max((_reach(pattern, prefix) for pattern in patterns.patterns for prefix in prefixes), default=Reach.NONE)


def beginnings(origin: Origin) -> list[str]:
    """What all URLs of an origin begin with: scheme, host and the slash behind it, in each form of the host."""
    return Asked(Target(origin, "/")).urls


def origin_part(pattern: Pattern) -> str:
    """What all URLs that a pattern matches begin with, up to the slash behind the host; as far as that is written.

    A pattern that covers something of an origin has one that the origin's `beginnings`, one of them, begin with.
    """
    if not pattern.is_wildcard:
        return ""
    head = pattern.runs[0]
    slash = -1
    for _ in range(3):
        slash = head.find("/", slash + 1)
        if slash < 0:
            return head
    return head[: slash + 1]


def may_cover_all(pattern: Pattern) -> bool:
    """Whether there could be an origin that a pattern covers all of: it ends with a star, and goes no further than
    the slash behind the host before."""
    if not pattern.is_wildcard or not pattern.text.endswith("*"):
        return False
    written = pattern.text.rstrip("*")
    slashes = written.count("/")
    return slashes < 3 or (slashes == 3 and written.endswith("/"))


def _reach(pattern: Pattern, prefix: str) -> Reach:
    if not pattern.is_wildcard:
        return Reach.SOME
    text = pattern.text
    # The places in the pattern that may be reached when so much of the prefix has been read.
    places = _past_stars(text, {0})
    for char in prefix:
        fits = (place for place in places if text[place : place + 1] in ("*", "?", char))
        places = _past_stars(text, {place if text[place] == "*" else place + 1 for place in fits})
        if not places:
            return Reach.NONE
    covers_all = any(text[place:] and not text[place:].strip("*") for place in places)
    return Reach.ALL if covers_all else Reach.SOME


def _past_stars(text: str, places: set[int]) -> set[int]:
    """The places themselves, and those that are reached by letting a star stand for nothing."""
    reached = set(places)
    for place in places:
        while text[place : place + 1] == "*":
            place += 1
            reached.add(place)
    return reached
