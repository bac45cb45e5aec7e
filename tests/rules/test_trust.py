"""What is chosen by an origin's host."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.match import host_pattern
from streamproxy.rules.trust import NO_CERTIFICATE, VERIFIED, Choice, HostChoices


def choices(default: str, **chosen: str) -> HostChoices[str]:
    return HostChoices(default, tuple(Choice(text, host_pattern(text), value) for text, value in chosen.items()))


class HostChoicesTests(SynchronousTestCase):
    def test_the_first_that_matches_decides_and_else_the_default(self) -> None:
        found = choices(
            "none", **{"a.dev.example": "one", "*.dev.example": "two", "b.example:8443": "three", "::1": "v6"}
        )
        table = [
            ("a.dev.example", 443, "one"),
            ("A.Dev.Example.", 443, "one"),
            ("b.dev.example", 443, "two"),
            ("dev.example", 443, "none"),
            ("b.example", 8443, "three"),
            ("b.example", 443, "none"),
            ("0:0::1", 443, "v6"),
        ]
        for host, port, value in table:
            self.assertEqual(found.choose(host, port), value, (host, port))

    def test_the_order_is_that_of_the_file(self) -> None:
        self.assertEqual(choices("-", **{"*.x": "one", "a.x": "two"}).choose("a.x", 1), "one")
        self.assertEqual(choices("-", **{"a.x": "two", "*.x": "one"}).choose("a.x", 1), "two")

    def test_it_tells_who_has_a_value_and_which_values_there_are(self) -> None:
        found = choices("no", **{"a": "yes", "b": "no", "*.C": "yes"})
        self.assertEqual(found.patterns_of("yes"), ("a", "*.C"))
        self.assertEqual(found.values, ("yes", "no"))

    def test_without_choices_all_are_verified_and_none_is_shown_a_certificate(self) -> None:
        self.assertIs(VERIFIED.choose("a.example", 443), True)
        self.assertIsNone(NO_CERTIFICATE.choose("a.example", 443))
