"""Law 2: a rule means the same at any size, in any framing, however its body goes and however it is cut.

One rule of each kind is put to every combination of framing, way and size around `stream_large_bodies`. What the
other side reads, by a decoder that isn't ours, must be what one `bytes.replace` over the whole body gives, in a
frame that is right.
"""

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.settings import Settings
from tests.conversation import settings_of
from tests.fakes import TCP, TLS
from tests.passage import Message, Passed, carry, cut, read_request, read_response

LARGE = 40
SIZES = (1, 7, 8, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE, 5 * LARGE)
CUTS = (None, 17, 1)
FIND = b"foo-bar"
# What may become of a find: less, the same, more, nothing at all.
PUTS = (b"x", b"bar-foo", b"<something longer>", b"")

# How bodies are made to go: what stands in the configuration, and what it says of messages in the rule.
WAYS = {
    "streams, for nothing wants it whole": ("", ""),
    "stream: true": ("hold: always\n", "stream: true, "),
    "stream: false": (f"stream_large_bodies: {LARGE}\n", "stream: false, "),
    "hold: always": ("hold: always\n", ""),
    "hold: always, and let go where large": (f"hold: always\nstream_large_bodies: {LARGE}\n", ""),
    "a type that streams": ("hold: always\nstream_content_types: [text/plain]\n", ""),
}
VOUCHERS = (
    b'ETag: "abc"\r\nContent-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\r\nContent-Digest: sha-256=:AAAA:\r\n'
    b"Accept-Ranges: bytes\r\nRepr-Digest: sha-256=:AAAA:\r\nDigest: md5=AAAA\r\n"
)
FRAMING_FIELDS = (b"content-length", b"transfer-encoding", b"connection")


def body_of(size: int) -> bytes:
    """`size` bytes in which finds begin at many places, over edges of all kinds."""
    return (b"foo-bar fo" + FIND + b"-foo-" + FIND + b"r\r\n0\r\n\r\n" + FIND * 3 + b"foo-ba" * 40)[:size]


def chunked(body: bytes, size: int) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut(body, size))
    return chunks + b"0\r\nX-Sum: 1\r\n\r\n"


def framed(framing: str, body: bytes) -> tuple[bytes, bytes]:
    """The framing field and the wire bytes of `body`."""
    if framing == "length":
        return b"Content-Length: %d\r\n" % len(body), body
    if framing == "until close":
        return b"", body
    return b"Transfer-Encoding: chunked\r\n", chunked(body, int(framing.split()[-1]))


def configurations(message: str, rule: str) -> Iterator[tuple[str, Settings]]:
    for name, (text, says) in WAYS.items():
        yield name, settings_of(f"{text}rules:\n  - {{name: the rule, {message}: {{{says}{rule}}}}}\n")


def end_to_end(message: Message) -> list[tuple[bytes, bytes]]:
    """The fields that don't depend on how the body went."""
    return [field for field in message.fields if field[0] not in FRAMING_FIELDS]


class ResponseTests(SynchronousTestCase):
    FRAMINGS = ("length", "chunked by 1", "chunked by 5", "chunked by 4096", "until close")

    def responses(self, settings: Settings, version: bytes, extra: bytes) -> Iterator[tuple[str, bytes, Passed]]:
        request = b"GET http://a.example/ HTTP/%b\r\nHost: a.example\r\n\r\n" % version
        for framing in self.FRAMINGS:
            for size in SIZES:
                field, wire = framed(framing, body_of(size))
                response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + field + extra + b"\r\n" + wire
                for by in CUTS:
                    passed = carry(
                        settings, [request], cut(response, by), origin_ends=framing == "until close", manner=TCP
                    )
                    yield f"{framing}, {size} bytes, cut by {by}", body_of(size), passed

    def check_response(self, where: str, passed: Passed, version: bytes) -> Message:
        self.assertFalse(passed.reset, where)
        message = read_response(passed.client_heard, passed.closed)
        self.assertEqual(message.start, 200, where)
        lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
        self.assertLessEqual(len(lengths) + len(codings), 1, where)
        if lengths:
            self.assertEqual(lengths, [b"%d" % len(message.body)], where)
        if version == b"1.0":
            self.assertEqual(codings, [], where)
        if not lengths and not codings:
            self.assertTrue(passed.closed, where)
        self.assertEqual(passed.flow.outcome, "forwarded", where)
        self.assertEqual(passed.flow.status, 200, where)
        return message

    def test_replace_gives_what_it_gives_on_the_whole(self):
        for put in PUTS:
            rule = f"replace: {{find: {FIND.decode()}, with: '{put.decode()}'}}"
            for way, settings in configurations("response", rule):
                for case, body, passed in self.responses(settings, b"1.1", b""):
                    where = f"{way}, {case}, put {put!r}"
                    message = self.check_response(where, passed, b"1.1")
                    self.assertEqual(message.body, body.replace(FIND, put), where)
                    self.assertEqual(passed.flow.rules, ["the rule"], where)
                    self.assertEqual(passed.flow.response.size, len(body), where)

    def test_replace_for_an_http_1_0_client(self):
        rule = f"replace: {{find: {FIND.decode()}, with: bar}}"
        for way, settings in configurations("response", rule):
            for case, body, passed in self.responses(settings, b"1.0", b""):
                where = f"{way}, {case}"
                message = self.check_response(where, passed, b"1.0")
                self.assertEqual(message.body, body.replace(FIND, b"bar"), where)
                self.assertTrue(passed.closed, where)

    def test_what_vouched_for_the_old_bytes_goes_whenever_a_filter_reads_them(self):
        rule = f"replace: {{find: {FIND.decode()}, with: bar}}"
        for way, settings in configurations("response", rule):
            for case, _body, passed in self.responses(settings, b"1.1", VOUCHERS):
                where = f"{way}, {case}"
                message = self.check_response(where, passed, b"1.1")
                self.assertEqual(
                    end_to_end(message),
                    [(b"content-type", b"text/plain"), (b"etag", b'W/"abc"'), (b"via", b"1.1 proxy")],
                    where,
                )

    def test_header_edits_leave_the_body_and_its_frame_alone(self):
        rule = "headers: {set: {X-Set: 's', ETag: new}, add: {X-Add: [a, b]}, remove: [Content-MD5, Digest]}"
        kept = [
            (b"content-type", b"text/plain"),
            (b"etag", b"new"),
            (b"content-digest", b"sha-256=:AAAA:"),
            (b"accept-ranges", b"bytes"),
            (b"repr-digest", b"sha-256=:AAAA:"),
            (b"x-set", b"s"),
            (b"x-add", b"a"),
            (b"x-add", b"b"),
            (b"via", b"1.1 proxy"),
        ]
        for way, settings in configurations("response", rule):
            for case, body, passed in self.responses(settings, b"1.1", VOUCHERS):
                where = f"{way}, {case}"
                message = self.check_response(where, passed, b"1.1")
                self.assertEqual(end_to_end(message), kept, where)
                self.assertEqual(message.body, body, where)
                if "chunked" in case:
                    self.assertEqual(message.trailers, [(b"x-sum", b"1")], where)
                    wire = framed(case.split(",")[0], body)[1]
                    self.assertTrue(passed.client_heard.endswith(b"\r\n\r\n" + wire), where)

    def test_bodies_go_the_way_they_are_told_to(self):
        # The table above would prove little if everything streamed.
        seen: dict[str, set[str]] = {}
        rule = f"replace: {{find: {FIND.decode()}, with: bar}}"
        for way, settings in configurations("response", rule):
            for _case, _body, passed in self.responses(settings, b"1.1", b""):
                seen.setdefault(way, set()).add(passed.flow.response.how)
        self.assertEqual(
            seen,
            {
                "streams, for nothing wants it whole": {"streamed"},
                "stream: true": {"streamed"},
                "stream: false": {"held"},
                "hold: always": {"held"},
                "hold: always, and let go where large": {"streamed", "held", "let go"},
                "a type that streams": {"streamed"},
            },
        )


class RequestTests(SynchronousTestCase):
    CASES = (("length", b"1.1"), ("chunked by 1", b"1.1"), ("chunked by 4096", b"1.1"), ("length", b"1.0"))
    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def requests(
        self, settings: Settings, expect: bytes = b"", manner: str = TLS
    ) -> Iterator[tuple[str, bytes, Passed]]:
        for framing, version in self.CASES:
            for size in SIZES:
                field, wire = framed(framing, body_of(size))
                head = b"POST http://a.example/up HTTP/%b\r\nHost: a.example\r\nContent-Type: text/plain\r\n" % version
                request = head + field + b"Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\r\n" + expect + b"\r\n" + wire
                for by in CUTS:
                    passed = carry(settings, cut(request, by), [self.ANSWER], manner=manner)
                    yield f"{framing}, HTTP/{version.decode()}, {size} bytes, cut by {by}", body_of(size), passed

    def check_request(self, where: str, passed: Passed) -> Message:
        message = read_request(passed.origin_heard)
        lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
        self.assertEqual(len(lengths) + len(codings), 1, where)
        if lengths:
            self.assertEqual(lengths, [b"%d" % len(message.body)], where)
        self.assertEqual(read_response(passed.client_heard).body, b"ok", where)
        self.assertEqual(passed.flow.outcome, "forwarded", where)
        return message

    def test_replace_gives_what_it_gives_on_the_whole(self):
        for put in PUTS:
            rule = f"replace: {{find: {FIND.decode()}, with: '{put.decode()}'}}"
            for way, settings in configurations("request", rule):
                for case, body, passed in self.requests(settings):
                    where = f"{way}, {case}, put {put!r}"
                    message = self.check_request(where, passed)
                    self.assertEqual(message.body, body.replace(FIND, put), where)
                    self.assertEqual(message.values(b"content-md5"), [], where)
                    self.assertEqual(passed.flow.rules, ["the rule"], where)
                    self.assertEqual(passed.flow.request.size, len(body), where)

    def test_header_edits_leave_the_body_and_its_frame_alone(self):
        rule = "headers: {set: {User-Agent: none, Content-Type: text/html}, add: {X-Add: a}, remove: Content-MD5}"
        for way, settings in configurations("request", rule):
            for case, body, passed in self.requests(settings):
                where = f"{way}, {case}"
                message = self.check_request(where, passed)
                self.assertEqual(
                    [field for field in end_to_end(message) if field[0] != b"via"],
                    [
                        (b"host", b"a.example"),
                        (b"content-type", b"text/html"),
                        (b"user-agent", b"none"),
                        (b"x-add", b"a"),
                    ],
                    where,
                )
                self.assertEqual(message.body, body, where)

    def test_redirect_to_takes_the_whole_body_along(self):
        for way, (text, says) in WAYS.items():
            settings = settings_of(
                f"{text}rules:\n  - redirect_to: http://new.example/x/\n    request: {{{says}headers: {{remove: X}}}}\n"
            )
            for case, body, passed in self.requests(settings):
                where = f"{way}, {case}"
                message = self.check_request(where, passed)
                self.assertEqual(message.body, body, where)
                self.assertEqual(message.values(b"host"), [b"new.example"], where)
                self.assertTrue(passed.origin_heard.startswith(b"POST /x/up HTTP/1.1\r\n"), where)

    def test_a_block_keeps_every_byte_of_the_body_from_the_origin(self):
        for expect in (b"", b"Expect: 100-continue\r\n"):
            for way, (text, says) in WAYS.items():
                settings = settings_of(
                    f"{text}rules:\n  - {{name: no, block: 418}}\n  - request: {{{says}headers: {{remove: X}}}}\n"
                )
                for case, _body, passed in self.requests(settings, expect, TCP):
                    where = f"{way}, {case}, {expect!r}"
                    self.assertEqual(passed.origins, 0, where)
                    message = read_response(passed.client_heard, passed.closed)
                    self.assertEqual((message.start, message.body), (418, b"Blocked by rule 'no'.\n"), where)
                    self.assertEqual((passed.flow.outcome, passed.flow.rules), ("refused", ["no"]), where)
