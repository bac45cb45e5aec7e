"""What is chosen by an origin's host: whether its certificate is verified, which certificate of ours it may see.

Pure policy: how a certificate is verified or loaded isn't known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from streamproxy.rules.match import HostPattern

T = TypeVar("T")


class Choice(NamedTuple, Generic[T]):
    """What holds for the hosts that a pattern matches; `text` is the pattern as it was written."""

    text: str
    pattern: HostPattern
    value: T


@dataclass(frozen=True)
class HostChoices(Generic[T]):
    """Choices by host, of which the first that matches decides, and what holds where none does."""

    default: T
    choices: tuple[Choice[T], ...] = ()

    def choose(self, host: str, port: int) -> T:
        """What holds for an origin; `host` is a name or an address, IPv6 without brackets."""
        host = host.lower()
        for choice in self.choices:
            if choice.pattern.matches(host, port):
                return choice.value
        return self.default

    def patterns_of(self, value: T) -> tuple[str, ...]:
        """The patterns, as they were written, of the hosts for which `value` was chosen."""
        return tuple(choice.text for choice in self.choices if choice.value == value)

    @property
    def values(self) -> tuple[T, ...]:
        """All that may be chosen, each once."""
        return tuple(dict.fromkeys((*(choice.value for choice in self.choices), self.default)))


VERIFIED: HostChoices[bool] = HostChoices(True)
NO_CERTIFICATE: HostChoices[str | None] = HostChoices(None)
