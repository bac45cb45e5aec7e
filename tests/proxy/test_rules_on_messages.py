"""What rules match, and what they do to heads, seen from either side; on held and on streamed messages."""

from twisted.trial.unittest import SynchronousTestCase

from tests.conversation import (
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ConversationTestCase,
    client,
    client_hears,
    origin,
    origin_hears,
    settings_of,
)
from tests.passage import carry, cut, read_request, read_response

# Every rule is played on messages that stream, and on ones that are held for either reason.
WAYS = {
    "streamed": "rules:\n",
    "hold: always": "hold: always\nrules:\n",
    "stream: false": "rules:\n  - {request: {stream: false}, response: {stream: false}}\n",
}
HELD = ("hold: always", "stream: false")
GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
GOT = b"GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
POST = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"
POSTED = b"POST /x HTTP/1.1\r\nHost: a.example\r\n"


class EitherWayTestCase(ConversationTestCase):
    def play_either_way(self, rule: str, *steps, ways=tuple(WAYS), **more) -> None:
        """Play under `rule`, one line of YAML, in each of `ways`."""
        for way in ways:
            self.play(*steps, rules=f"{WAYS[way]}  - {rule}\n", **more)


class MatchTests(SynchronousTestCase):
    """Each key of `match`, by a rule that marks both messages: on one exchange it holds, on the other not."""

    def marks(self, match: str, request: bytes, response: bytes) -> tuple[bool, bool]:
        """Whether request and response are marked; the same in every way and cut."""
        seen = set()
        for way in WAYS.values():
            mark = "{headers: {set: {X-Mark: m}}}"
            settings = settings_of(f"{way}  - {{match: {match}, request: {mark}, response: {mark}}}\n")
            for size in (None, 9):
                passed = carry(settings, cut(request, size), cut(response, size))
                sent, answered = read_request(passed.origin_heard), read_response(passed.client_heard)
                seen.add((bool(sent.values(b"x-mark")), bool(answered.values(b"x-mark"))))
        (marked,) = seen
        return marked

    def check(self, match: str, holds: bytes, fails: bytes, response: bytes = OK) -> None:
        self.assertEqual(self.marks(match, holds, response), (True, True), holds)
        self.assertEqual(self.marks(match, fails, response), (False, False), fails)

    def request(
        self, method=b"POST", url=b"http://a.example/v1/x?q=1", fields=b"Content-Type: text/plain\r\n"
    ) -> bytes:
        host = url.split(b"/")[2]
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: 2\r\n\r\nhi" % (method, url, host, fields)

    def test_host(self):
        other = self.request(url=b"http://b.example/v1/x")
        for match in (
            "{host: a.example}",
            "{host: ['a.*', nowhere]}",
            "{host: {regex: '^a[.]'}}",
            "{host: 'A.example'}",
        ):
            self.check(match, self.request(), other)

    def test_host_is_that_of_the_target_and_not_of_the_host_field(self):
        said = b"POST http://a.example/ HTTP/1.1\r\nHost: b.example\r\nContent-Length: 2\r\n\r\nhi"
        turned = b"POST http://b.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi"
        self.check("{host: a.example}", said, turned)

    def test_host_with_port(self):
        self.check("{host: 'a.example:81'}", self.request(url=b"http://a.example:81/"), self.request())

    def test_path(self):
        for match in ("{path: '/v1/*'}", "{path: '/v?/x'}", "{path: {regex: '^/v[0-9]/'}}"):
            self.check(match, self.request(), self.request(url=b"http://a.example/w1/y/v1/"))

    def test_path_however_it_is_written(self):
        for written in (b"/%76%31/x", b"/y/../v1/x", b"//v1/x", b"/v1/%78"):
            self.check(
                "{path: '/v1/x'}",
                self.request(url=b"http://a.example" + written),
                self.request(method=b"PUT", url=b"http://a.example/v1/xy"),
            )

    def test_url(self):
        self.check("{url: 'http://a.example/*q=1'}", self.request(), self.request(url=b"http://a.example/v1/x?q=2"))

    def test_method(self):
        self.check("{method: [POST, PUT]}", self.request(b"PUT"), self.request(b"PATCH"))

    def test_header(self):
        self.check(
            "{header: {X-Kind: 'a*', X-Not: false}}",
            self.request(fields=b"x-kind: b\r\nX-KIND: ab\r\n"),
            self.request(fields=b"x-kind: ab\r\nx-not: 1\r\n"),
        )

    def test_header_of_the_response_alone(self):
        answer = b"HTTP/1.1 200 OK\r\nX-Kind: theirs\r\nContent-Length: 2\r\n\r\nok"
        self.assertEqual(self.marks("{header: {X-Kind: theirs}}", self.request(), answer), (False, True))

    def test_content_type(self):
        self.check(
            "{content_type: 'application/json*'}",
            self.request(fields=b"Content-Type: Application/JSON; charset=utf-8\r\n"),
            self.request(),
        )

    def test_content_type_of_the_response_alone(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok"
        self.assertEqual(self.marks("{content_type: text/html}", self.request(), answer), (False, True))

    def test_all_that_is_given_must_hold(self):
        match = "{host: a.example, path: '/v1/*', method: POST, header: {X: true}, content_type: 'text/*'}"
        fields = b"Content-Type: text/plain\r\nX: 1\r\n"
        self.check(match, self.request(fields=fields), self.request(b"PUT", fields=fields))
        self.check(match, self.request(fields=fields), self.request(fields=b"X: 1\r\n"))


class HeaderEditTests(EitherWayTestCase):
    def test_of_a_request(self):
        self.play_either_way(
            "request: {headers: {remove: Cookie, set: {X-New: n, accept: '*/*', Host: b.example}, add: {X-B: [2, 3]}}}",
            client(POST + b"Cookie: a=b\r\nAccept: text/html\r\nX-B: 1\r\ncookie: c\r\nContent-Length: 2\r\n\r\nhi"),
            origin_hears(
                b"POST /x HTTP/1.1\r\nHost: b.example\r\nAccept: */*\r\nX-B: 1\r\nContent-Length: 2\r\nX-New: n\r\n"
                b"X-B: 2\r\nX-B: 3\r\nVia: 1.1 proxy\r\n\r\nhi"
            ),
        )

    def test_of_a_response(self):
        self.play_either_way(
            "response: {headers: {remove: [Set-Cookie, Server], set: {x-frame: DENY}, add: {Vary: Origin}}}",
            client(GET),
            origin(
                b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-Frame: A\r\nVary: Accept\r\nset-cookie: b\r\nx-frame: B\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nX-T: t\r\n\r\n"
            ),
            client_hears(
                b"HTTP/1.1 200 OK\r\nX-Frame: DENY\r\nVary: Accept\r\nTransfer-Encoding: chunked\r\nVary: Origin\r\n"
                b"Via: 1.1 proxy\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nX-T: t\r\n\r\n"
            ),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_of_a_response_until_close_and_of_one_without_a_body(self):
        rule = "response: {headers: {set: {X: y}}}"
        self.play_either_way(
            rule,
            client(GET),
            origin(b"HTTP/1.1 200 OK\r\n\r\nall"),
            ORIGIN_ENDS,
            client_hears(b"HTTP/1.1 200 OK\r\nX: y\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nall"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )
        self.play_either_way(
            rule,
            client(GET),
            origin(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
            client_hears(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nX: y\r\nVia: 1.1 proxy\r\n\r\n'),
            client(GET),
            origin(b"HTTP/1.1 204 No Content\r\n\r\n"),
            client_hears(b"HTTP/1.1 204 No Content\r\nX: y\r\nVia: 1.1 proxy\r\n\r\n"),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_not_of_interim_responses(self):
        self.play_either_way(
            "response: {headers: {set: {X: y}}}",
            client(GET),
            origin(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK),
            client_hears(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 proxy\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\nVia: 1.1 proxy\r\n\r\nok"
            ),
        )

    def test_rules_are_held_against_what_the_client_sent_not_against_other_rules_edits(self):
        flows = self.play(
            client(GET),
            origin_hears(b"GET /x HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(OK),
            rules="rules:\n  - {name: one, request: {headers: {set: {X-A: '1'}}}}\n"
            "  - {name: two, match: {header: {X-A: true}}, block: true}\n",
        )
        self.assertEqual(flows[0].rules, ["one"])
