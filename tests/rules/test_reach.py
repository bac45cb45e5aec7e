"""How much of an origin an URL pattern covers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.asked import Asked
from streamproxy.rules.match import Patterns, regex, url_pattern
from streamproxy.rules.reach import Reach, reach_of
from streamproxy.wire.message import Origin, Target

HOST = Origin("https", "h.example", 443)


def reach(text: str, origin: Origin = HOST) -> Reach:
    return reach_of(Patterns([url_pattern(text)]), origin)


class ReachTests(SynchronousTestCase):
    def test_a_pattern_covers_all_some_or_nothing_of_an_origin(self) -> None:
        table = [
            ("https://h.example/*", Reach.ALL),
            ("https://h.example/**", Reach.ALL),
            ("https://h.example*", Reach.ALL),
            ("https://H.Example:443/*", Reach.ALL),
            ("*://h.example/*", Reach.ALL),
            ("http*://h.example/*", Reach.ALL),
            ("https://*.example/*", Reach.ALL),
            ("https://?.example/*", Reach.ALL),
            ("*", Reach.ALL),
            ("*/*", Reach.ALL),
            ("*h.example/*", Reach.ALL),
            ("https://*", Reach.ALL),
            ("https://h.example/", Reach.SOME),
            ("https://h.example", Reach.SOME),
            ("https://h.example/?*", Reach.SOME),
            ("https://h.example/a*", Reach.SOME),
            ("https://h.example/*a", Reach.SOME),
            ("*token=*", Reach.SOME),
            ("*.css", Reach.SOME),
            ("https://*/x/*", Reach.SOME),
            ("http://h.example/*", Reach.NONE),
            ("https://other.example/*", Reach.NONE),
            ("https://h.example:8443/*", Reach.NONE),
            ("https://h.example.evil/*", Reach.NONE),
            ("https://xh.example/*", Reach.NONE),
            ("ftp://*", Reach.NONE),
        ]
        for text, expected in table:
            self.assertIs(reach(text), expected, text)

    def test_ports_and_forms_of_a_host_are_seen_through(self) -> None:
        table = [
            ("https://h.example:8443/*", Origin("https", "h.example", 8443), Reach.ALL),
            ("https://h.example/*", Origin("https", "h.example", 8443), Reach.NONE),
            ("https://h.example*", Origin("https", "h.example", 8443), Reach.ALL),
            ("https://h.example/*", Origin("https", "h.example.", 443), Reach.ALL),
            ("https://127.0.0.1/*", Origin("https", "127.1", 443), Reach.ALL),
            ("https://[::1]/*", Origin("https", "0:0::1", 443), Reach.ALL),
        ]
        for text, origin, expected in table:
            self.assertIs(reach(text, origin), expected, (text, origin))

    def test_of_several_the_widest_counts_and_of_none_there_is_no_reach(self) -> None:
        both = Patterns([url_pattern("https://h.example/a"), url_pattern("https://h.example/*")])
        self.assertIs(reach_of(both, HOST), Reach.ALL)
        self.assertIs(reach_of(Patterns(()), HOST), Reach.NONE)

    def test_of_a_regular_expression_nothing_is_told(self) -> None:
        for source in ("", "^https://h", "^ftp"):
            self.assertIs(reach_of(Patterns([regex(source)]), HOST), Reach.SOME)

    @given(
        st.text(alphabet="ab/*?:", max_size=8).map(lambda end: f"*{end}")
        | st.text(alphabet="ab/*?:", max_size=8).map(lambda end: f"https://a{end}"),
        st.text(alphabet="ab/", max_size=6),
    )
    def test_no_url_gives_it_the_lie(self, text: str, path: str) -> None:
        origin = Origin("https", "ab", 443)
        found = reach(text, origin)
        matches = Patterns([url_pattern(text)]).find(Asked(Target(origin, f"/{path}")).urls[:1]) is not None
        if found is Reach.ALL:
            self.assertTrue(matches)
        if found is Reach.NONE:
            self.assertFalse(matches)
