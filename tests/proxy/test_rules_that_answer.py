"""Block, respond and redirect_to: what decides a request's fate, decided on its head."""

from tests.conversation import (
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
    settings_of,
)
from tests.fakes import TLS
from tests.passage import carry, cut, read_response
from tests.proxy.test_rules_on_messages import GET, GOT, HEARD_OK, OK, POST, EitherWayTestCase

DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
FRAMINGS = (b"Content-Length: 10485760\r\n", b"Transfer-Encoding: chunked\r\n")
EXPECTS = (b"", b"Expect: 100-continue\r\n")


def own(start: bytes, fields: bytes, body: bytes, close: bool = False) -> bytes:
    """A response of the proxy's own."""
    end = b"Connection: close\r\n" if close else b""
    return b"HTTP/1.1 %b\r\n%b%bContent-Length: %d\r\n%b\r\n%b" % (start, DATE, fields, len(body), end, body)


class BlockTests(EitherWayTestCase):
    def test_a_request_without_a_body_is_answered_and_so_is_the_next(self):
        blocked = own(b"403 Forbidden", TEXT, b"Blocked by rule 'no ads'.\n")
        self.play_either_way(
            "{name: no ads, match: {host: a.example}, block: true}",
            client(GET),
            client_hears(blocked),
            client(GET),
            client_hears(blocked),
            origin_connected(0),
            CLIENT_STAYS,
            outcome="refused",
        )

    def test_the_answer_is_there_before_the_body_is(self):
        for framing in FRAMINGS:
            for expect in EXPECTS:
                self.play_either_way(
                    "{name: no ads, block: 451}",
                    client(POST + expect + framing + b"\r\n"),
                    client_hears(
                        own(b"451 Unavailable For Legal Reasons", TEXT, b"Blocked by rule 'no ads'.\n", close=True)
                    ),
                    origin_connected(0),
                    CLIENT_SEES_CLOSE,
                    outcome="refused",
                )

    def test_an_upload_of_10_mb_is_not_taken_and_not_one_byte_of_it_reaches_the_origin(self):
        settings = settings_of("rules:\n  - {name: no ads, block: 403}\n")
        for framing in (FRAMINGS[0] + b"\r\n", FRAMINGS[1] + b"\r\na00000\r\n"):
            passed = carry(settings, [POST + framing, *([bytes(65536)] * 160)])
            self.assertEqual(passed.origins, 0)
            self.assertEqual(read_response(passed.client_heard, True).start, 403)
            self.assertEqual(passed.flow.outcome, "refused")
            self.assertLess(passed.flow.client_in, 1024)

    def test_a_client_over_tls_gets_the_answer_and_an_end_in_order_while_it_still_sends(self):
        # There is no half-close over TLS: what TCP does here would end the connection without its last words.
        settings = settings_of("rules:\n  - {name: no ads, block: 403}\n")
        passed = carry(settings, [POST + FRAMINGS[0] + b"\r\n", bytes(65536)], manner=TLS)
        self.assertEqual(read_response(passed.client_heard, True).start, 403)
        self.assertFalse(passed.reset)
        self.assertEqual(passed.flow.outcome, "refused")

    def test_a_small_body_that_came_along_is_dropped_and_the_next_request_is_served(self):
        rule = "{name: no ads, match: {method: POST}, block: 403}"
        whole = POST + b"Content-Length: 2\r\n\r\nhi"
        settings = settings_of(f"rules:\n  - {rule}\n")
        passed = carry(settings, [whole + GET], [OK])
        self.assertEqual(passed.origin_heard, GOT)
        self.assertTrue(passed.client_heard.endswith(HEARD_OK))
        self.assertEqual([flow.outcome for flow in passed.flows], ["refused", "forwarded"])

    def test_a_blocked_head_gets_no_body(self):
        answer = own(b"403 Forbidden", TEXT, b"Blocked by rule 'no ads'.\n")
        head, blank, _ = answer.partition(b"\r\n\r\n")
        self.play_either_way(
            "{name: no ads, block: 403}",
            client(b"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            client_hears(head + blank),
            CLIENT_STAYS,
            outcome="refused",
        )

    def test_an_http_1_0_client_is_told_and_closed(self):
        self.play_either_way(
            "{name: no ads, block: 403}",
            client(b"GET http://a.example/ HTTP/1.0\r\n\r\n"),
            client_hears(own(b"403 Forbidden", TEXT, b"Blocked by rule 'no ads'.\n", close=True)),
            CLIENT_SEES_CLOSE,
            outcome="refused",
        )

    def test_of_several_answers_the_first_in_the_file_is_given(self):
        flows = self.play(
            client(GET),
            client_hears(own(b"200 OK", TEXT, b"hi")),
            rules="rules:\n  - {name: one, respond: {text: hi}}\n  - {name: two, block: 403}\n",
            outcome="answered",
        )
        self.assertEqual(flows[0].rules, ["one"])


class RespondTests(EitherWayTestCase):
    def test_status_headers_and_text(self):
        self.play_either_way(
            "{respond: {status: 404, headers: {X-A: [1, 2], Content-Type: text/html}, text: '<p>none'}}",
            client(GET),
            client_hears(own(b"404 Not Found", b"X-A: 1\r\nX-A: 2\r\nContent-Type: text/html\r\n", b"<p>none")),
            origin_connected(0),
            CLIENT_STAYS,
            outcome="answered",
        )

    def test_text_is_utf_8_and_its_length_is_in_bytes(self):
        self.play_either_way(
            "{respond: {text: 'één'}}",
            client(GET),
            client_hears(own(b"200 OK", TEXT, "één".encode())),
            outcome="answered",
        )

    def test_a_status_alone(self):
        self.play_either_way(
            "{respond: {status: 503}}", client(GET), client_hears(own(b"503 Service Unavailable", b"", b""))
        )

    def test_a_status_without_words(self):
        self.play_either_way("{respond: {status: 599}}", client(GET), client_hears(own(b"599 ", b"", b"")))

    def test_204_and_304_have_neither_body_nor_length(self):
        for status, words in ((204, b"204 No Content"), (304, b"304 Not Modified")):
            self.play_either_way(
                f"{{respond: {{status: {status}, headers: {{ETag: a}}}}}}",
                client(GET),
                client_hears(b"HTTP/1.1 " + words + b"\r\n" + DATE + b"ETag: a\r\n\r\n"),
                CLIENT_STAYS,
                outcome="answered",
            )

    def test_a_date_of_the_rules_own_is_the_only_one(self):
        self.play(
            client(GET),
            client_hears(b"HTTP/1.1 200 OK\r\ndate: never\r\nContent-Length: 0\r\n\r\n"),
            rules="rules:\n  - {respond: {headers: {date: never}}}\n",
        )

    def test_head_is_told_the_length_that_get_would_have(self):
        self.play_either_way(
            "{respond: {text: hello}}",
            client(b"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n" + GET),
            client_hears(own(b"200 OK", TEXT, b"hello")[:-5] + own(b"200 OK", TEXT, b"hello")),
            CLIENT_STAYS,
        )

    def test_an_upload_is_answered_before_its_body_and_reaches_no_origin(self):
        for framing in FRAMINGS:
            for expect in EXPECTS:
                self.play_either_way(
                    "{respond: {status: 201, text: got it}}",
                    client(POST + expect + framing + b"\r\n"),
                    client_hears(own(b"201 Created", TEXT, b"got it", close=True)),
                    origin_connected(0),
                    CLIENT_SEES_CLOSE,
                    outcome="answered",
                )

    def test_pipelined_requests_are_all_answered(self):
        settings = settings_of("rules:\n  - {respond: {text: hi}}\n")
        for size in (None, 1, 50):
            passed = carry(settings, cut(GET * 40, size))
            self.assertEqual(passed.client_heard, own(b"200 OK", TEXT, b"hi") * 40)
            self.assertEqual(len(passed.flows), 40)

    def test_a_file(self):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"from the file")
        self.play_either_way(
            f"{{respond: {{file: {path}, headers: {{X: 1, Content-Type: a/b}}}}}}",
            client(GET),
            client_hears(own(b"200 OK", b"X: 1\r\nContent-Type: a/b\r\n", b"from the file")),
            CLIENT_STAYS,
            outcome="answered",
        )


class RedirectTests(EitherWayTestCase):
    def test_the_request_goes_elsewhere_and_the_client_does_not_know(self):
        self.play_either_way(
            "{match: {url: 'http://a.example/*'}, redirect_to: 'http://new.example:81/base/'}",
            client(GET),
            origin_hears(b"GET /base/x HTTP/1.1\r\nHost: new.example:81\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(OK),
            client_hears(HEARD_OK),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_the_query_goes_along(self):
        self.play_either_way(
            "{redirect_to: 'http://new.example/'}",
            client(b"GET http://a.example/x?q=1&r HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            origin_hears(b"GET /x?q=1&r HTTP/1.1\r\nHost: new.example\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_to_one_place_whatever_was_asked_for(self):
        self.play_either_way(
            "{redirect_to: 'http://new.example/only?this'}",
            client(GET),
            origin_hears(b"GET /only?this HTTP/1.1\r\nHost: new.example\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_the_tail_cannot_climb_out_of_the_new_prefix(self):
        for tail in (b"../../secret", b"%2e%2e/%2E%2e/secret", b"a/../../../secret"):
            self.play_either_way(
                "{match: {path: '/*'}, redirect_to: 'http://new.example/base/'}",
                client(b"GET http://a.example/" + tail + b" HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                origin_hears(b"GET /base/secret HTTP/1.1\r\nHost: new.example\r\nVia: 1.1 proxy\r\n\r\n"),
            )

    def test_header_edits_apply_on_the_way_and_the_record_has_what_the_client_asked_for(self):
        flows = self.play(
            client(GET),
            origin_hears(b"GET /x HTTP/1.1\r\nHost: new.example\r\nX: y\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(OK),
            client_hears(HEARD_OK),
            rules="rules:\n  - {redirect_to: 'http://new.example/', request: {headers: {set: {X: y}}}}\n",
        )
        self.assertEqual(flows[0].url, "http://a.example/x")

    def test_a_connection_to_the_old_place_is_not_used_for_the_new_one(self):
        self.play(
            client(GET),
            origin(OK),
            client_hears(HEARD_OK),
            client(b"GET http://a.example/moved HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            origin_connected(2),
            origin_hears(b"GET /moved HTTP/1.1\r\nHost: new.example\r\nVia: 1.1 proxy\r\n\r\n"),
            rules="rules:\n  - {match: {path: /moved}, redirect_to: 'http://new.example/'}\n",
        )
