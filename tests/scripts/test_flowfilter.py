"""Filter expressions: what they mean, and what is refused."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts import flowfilter
from streamproxy.scripts.http import Error
from tests.scripts.making import HOST, flow_of, request_of, response_of
from tests.wire.reading import property_of

ASKED = flow_of(
    request_of("/path?q=1", [HOST, (b"Content-Type", b"application/json"), (b"X-Asked", b"yes")], body=b"ask me\nnow")
)
ANSWERED = flow_of(
    request_of("/path?q=1", [(b"Host", b"Named.example")], method=b"POST"),
    response_of(
        [(b"Content-Type", b"text/css"), (b"X-Told", b"no"), (b"Content-Encoding", b"gzip")],
        body=gzip.compress(b"tell you"),
        status=404,
    ),
)


class MeaningTests(SynchronousTestCase):
    def check(self, expression: str, asked: bool, answered: bool) -> None:
        found = flowfilter.parse(expression)
        self.assertEqual((found(ASKED), found(ANSWERED)), (asked, answered), expression)
        self.assertEqual(found.pattern, expression)

    def test_operators_by_themselves(self) -> None:
        for expression, asked, answered in (
            ("~all", True, True),
            ("~http", True, True),
            ("~q", True, False),
            ("~s", False, True),
            ("~e", False, False),
            ("~a", False, True),
        ):
            self.check(expression, asked, answered)

    def test_operators_with_a_regex(self) -> None:
        for expression, asked, answered in (
            ("~u PATH", True, True),
            ("~u ^http://example.com/path", True, False),
            ("~u named.example", False, True),
            ("~d named", False, True),
            ("~d example.com", True, True),
            ("~m post", False, True),
            ("~c 404", False, True),
            ("~c 200", False, False),
            ("~h x-asked:.yes", True, False),
            ("~h '^x-told: no'", False, True),
            ("~hq x-told", False, False),
            ("~hs x-told", False, True),
            ("~t json", True, False),
            ("~t css", False, True),
            ("~tq json", True, False),
            ("~ts json", False, False),
            ("~b tell", False, True),
            ("~b ask", True, False),
            ("~b me.now", True, False),
            ("~b ^now", True, False),
            ("~bq tell", False, False),
            ("~bs tell", False, True),
            ("named", False, True),
            ("'q=1$'", True, True),
        ):
            self.check(expression, asked, answered)

    def test_they_are_joined(self) -> None:
        for expression, asked, answered in (
            ("!~q", False, True),
            ("! ~q", False, True),
            ("!!~q", True, False),
            ("~q & ~m GET", True, False),
            ("~q ~m POST", False, False),
            ("~q | ~c 404", True, True),
            ("~q | ~s & ~c 200", True, False),
            ("(~q | ~s) & ~c 404", False, True),
            ("!(~q | ~c 404)", False, False),
            ("!named", True, False),
            ("~u named|nowhere", False, True),
            ("~u a&b", False, False),
            ('~u "named\\"|\\.example/"', False, True),
        ):
            self.check(expression, asked, answered)

    def test_an_error_is_found(self) -> None:
        flow = flow_of()
        flow.error = Error("gone")
        self.assertTrue(flowfilter.match("~e", flow))

    def test_a_body_that_is_not_here_or_cannot_be_decoded_is_no_error(self) -> None:
        for body in (None, b"no gzip"):
            flow = flow_of(response=response_of([(b"Content-Encoding", b"gzip")], body=body))
            self.assertEqual(flowfilter.match("~bs gzip", flow), body is not None)

    def test_no_filter_means_every_flow(self) -> None:
        self.assertTrue(flowfilter.match(None, ASKED))
        self.assertTrue(flowfilter.match(flowfilter.parse("~q"), ASKED))


class RefusedTests(SynchronousTestCase):
    def test_what_cannot_be_read_is_refused_in_words(self) -> None:
        for expression, words in (
            ("", "empty"),
            ("  ", "empty"),
            ("~zz", "~zz isn't offered"),
            ("~tcp", "~tcp isn't offered"),
            ("~b", "~b needs a regex"),
            ("~b (a)", "~b needs a regex"),
            ("~c x", "~c needs a status code"),
            ("~c", "~c needs a regex"),
            ("(a", "isn't closed"),
            ("a)", "too many"),
            ("a &", "something is missing"),
            ("| a", "something is missing before |"),
            ("!", "something is missing"),
            ("()", "something is missing"),
            ("~u [", "is no regex"),
            ("~b [", "is no regex"),
            ("'a", "a quote that isn't closed"),
            ("(" * 100 + "a" + ")" * 100, "too deep"),
            ("!" * 100 + "a", "too deep"),
        ):
            with self.assertRaises(ValueError, msg=expression) as caught:
                flowfilter.parse(expression)
            self.assertIn(words, str(caught.exception))

    @property_of(300)
    @given(st.text("~qsuc !&|()'\"\\a4* ", max_size=16))
    def test_any_text_is_a_filter_or_a_value_error(self, text: str) -> None:
        try:
            found = flowfilter.parse(text)
        except ValueError:
            return
        self.assertIn(found(ANSWERED), (True, False))
