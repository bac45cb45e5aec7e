"""How much of an origin an URL pattern covers: nothing, some of its URLs, or all. No request is needed to tell.

A wildcard pattern is run over the beginning that all URLs of the origin share. If it fits no further than that, it
covers none of them; if only stars are left of it, it covers all, as nothing that follows can make a difference.
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
    prefixes = Asked(Target(origin, "/")).urls
    return max((_reach(pattern, prefix) for pattern in patterns.patterns for prefix in prefixes), default=Reach.NONE)


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
