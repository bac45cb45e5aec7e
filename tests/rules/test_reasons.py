"""The reasons that are told for a rule agree with what is decided."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.access import Origins
from streamproxy.rules.interception import Destinations, destination
from streamproxy.rules.reasons import conditions, origin_by_name
from streamproxy.rules.ruleset import RuleSet
from streamproxy.rules.way import Streaming
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNKED, UNTIL_CLOSE, Origin, RequestHead, ResponseHead, Target
from tests.rules.reading import read

MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "host": st.sampled_from(['["*.a"]', "[b.a, c]", "[{regex: ^b}]", "['b.a:80']"]),
        "path": st.sampled_from(["/x*", "/x/*", "{regex: y$}"]),
        "method": st.sampled_from(["GET", "[POST, P*]"]),
        "url": st.sampled_from(["http://b.a/*", "'*x'", "{regex: '//c'}"]),
        "header": st.sampled_from(["{A: '1*'}", "{A: true}", "{A: false, B: '2'}"]),
        "content_type": st.sampled_from(["text/*", "a/b"]),
    },
)
FIELDS = [(b"A", b"1"), (b"a", b"2"), (b"B", b"2"), (b"Content-Type", b"a/b"), (b"Content-Type", b"text/x")]
HEADERS = st.lists(
    st.sampled_from(FIELDS),
    max_size=3,
).map(Headers)


class ConditionTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(MATCHES, min_size=1, max_size=3),
        st.sampled_from([b"GET", b"post", b"PUT"]),
        st.sampled_from(["b.a", "c", "x.a"]),
        st.sampled_from([80, 81]),
        st.sampled_from(["/", "/x", "/%78/y", "/z?x"]),
        st.booleans(),
        HEADERS,
        HEADERS,
    )
    def test_all_hold_where_and_only_where_the_rule_applies(
        self, matches, method, host, port, path, other, sent, answered
    ):
        rules = ", ".join(
            f"{{name: '{number}', match: {{{', '.join(f'{key}: {value}' for key, value in match.items())}}},"
            f" request: {{headers: {{set: {{X: y}}}}}}, response: {{headers: {{set: {{X: y}}}}}}}}"
            for number, match in enumerate(matches)
        )
        rule_set = RuleSet(read(f"rules: [{rules}]").rules, Streaming(read("").stream_content_types))
        target = Target(Origin("http", host, port), path)
        aliases = (Origin("http", "c", port),) if other else ()
        head = RequestHead(method, path.encode(), (1, 1), sent, CHUNKED)
        verdict = rule_set.on_request(head, target, aliases)
        response = ResponseHead((1, 1), 200, b"", answered, UNTIL_CLOSE)
        said = rule_set.on_response(verdict, head, response)
        for rule in rule_set.rules:
            alone = all(each.holds for each in conditions(rule, method, target, aliases, sent))
            self.assertEqual(alone, rule.name in verdict.rules)
            both = all(each.holds for each in conditions(rule, method, target, aliases, sent, answered))
            self.assertEqual(both, rule.name in said.rules)


LISTS = ((), ("*.a",), ("10.0.0.0/8",), ("*.a", "10.0.0.0/8"))


class OriginTests(SynchronousTestCase):
    def test_what_is_final_by_name_is_what_every_address_gets(self):
        lists = [Destinations(map(destination, each)) for each in LISTS]
        for allow in lists:
            for deny in lists:
                origins = Origins(allow, deny)
                for host in ("x.a", "b", "10.1.1.1", "192.0.2.1"):
                    found = origin_by_name(origins, host, 80)
                    addresses = [host] if host[0].isdigit() else ["10.0.0.1", "192.0.2.1"]
                    refusals = {origins.refusal(host, 80, each) for each in addresses}
                    if found.final:
                        self.assertEqual({each is None for each in refusals}, {found.refusal is None}, (origins, host))
                    else:
                        self.assertIn(None, {found.refusal})
