"""What goes through, and how it looks on the other side."""

from tests.conversation import (
    CLIENT_ENDS,
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ORIGIN_SEES_CLOSE,
    ConversationTestCase,
    Stage,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
)

GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
GOT = b"GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
POST = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"
POSTED = b"POST /x HTTP/1.1\r\nHost: a.example\r\n"


class HeadTests(ConversationTestCase):
    def test_a_request_in_absolute_form_goes_on_in_origin_form(self):
        self.play(client(GET), origin_hears(GOT), origin(OK), client_hears(HEARD_OK), CLIENT_STAYS, outcome="forwarded")

    def test_fields_keep_their_order_and_case(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.1\r\nX-b: 1\r\nhOST: a.example\r\nx-A: 2\r\nX-B:3\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\nX-b: 1\r\nhOST: a.example\r\nx-A: 2\r\nX-B: 3\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"HTTP/1.1 299 Odd Words\r\nsET-cookie: a\r\nX: 1\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
            client_hears(
                b"HTTP/1.1 299 Odd Words\r\nsET-cookie: a\r\nX: 1\r\nSet-Cookie: b\r\nContent-Length: 0\r\n"
                b"Via: 1.1 proxy\r\n\r\n"
            ),
        )

    def test_hop_by_hop_fields_stay_behind_and_those_that_connection_names_too(self):
        self.play(
            client(
                b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: keep-alive\r\n"
                b"Connection: keep-alive, X-Mine\r\nKeep-Alive: 5\r\nX-Mine: 1\r\nProxy-Authorization: Basic eA==\r\n"
                b"Upgrade: h2c\r\nX-Theirs: 2\r\n\r\n"
            ),
            origin_hears(b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Theirs: 2\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(
                b"HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
                b"Content-Length: 0\r\n\r\n"
            ),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_connection_cannot_name_away_what_the_message_means(self):
        self.play(
            client(
                b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: host, content-length\r\n"
                b"Content-Length: 2\r\n\r\nhi"
            ),
            origin_hears(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nhi"),
        )

    def test_the_target_wins_over_the_host_field(self):
        self.play(
            client(b"GET http://a.example:81/ HTTP/1.1\r\nHost: b.example\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\nHost: a.example:81\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_a_request_without_host_gets_one(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.0\r\nX: 1\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: 1\r\nVia: 1.0 proxy\r\n\r\n"),
        )

    def test_te_trailers_goes_on_for_trailers_do(self):
        self.play(
            client(
                b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n"
            ),
            origin_hears(
                b"GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: TE\r\nVia: 1.1 proxy\r\n\r\n"
            ),
        )

    def test_options_about_a_whole_server_asks_it_with_an_asterisk(self):
        self.play(
            client(b"OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            origin_hears(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_connection_cannot_name_expect_away_and_leave_the_client_waiting(self):
        self.play(
            client(POST + b"Expect: 100-continue\r\nConnection: expect\r\nContent-Length: 2\r\n\r\n"),
            origin_hears(POSTED + b"Expect: 100-continue\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_what_a_rule_removes_stays_away_from_the_trailers_too(self):
        chunks = b"1\r\na\r\n0\r\nX-Late: 1\r\nX-Other: 2\r\n\r\n"
        self.play(
            client(POST + b"Transfer-Encoding: chunked\r\nX-Late: 0\r\n\r\n" + chunks),
            origin_hears(
                POSTED + b"Transfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n1\r\na\r\n0\r\nX-Other: 2\r\n\r\n"
            ),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks),
            client_hears(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n"
                b"1\r\na\r\n0\r\nX-Other: 2\r\n\r\n"
            ),
            rules="rules: [{request: {headers: {remove: [x-late]}}, response: {headers: {remove: [X-Late]}}}]",
        )

    def test_a_rule_that_blocks_blocks_what_would_end_here_too(self):
        for method in (b"TRACE", b"OPTIONS"):
            flows = self.play(
                client(method + b" http://a.example/ HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n"),
                origin_connected(0),
                rules="rules: [{block: 403}]",
                outcome="refused",
                splits=False,
            )
            self.assertEqual([flow.status for flow in flows], [403])

    def test_max_forwards_counts_down(self):
        self.play(
            client(b"OPTIONS http://a.example/ HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 3\r\n\r\n"),
            origin_hears(b"OPTIONS / HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 2\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_another_proxys_via_is_kept_and_ours_comes_behind_it(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 other (x)\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 other (x)\r\nVia: 1.1 proxy\r\n\r\n"),
        )


class BodyTests(ConversationTestCase):
    def test_a_body_with_a_length(self):
        self.play(
            client(POST + b"Content-Length: 5\r\n\r\nhello"),
            origin_hears(POSTED + b"Content-Length: 5\r\nVia: 1.1 proxy\r\n\r\nhello"),
            origin(OK),
            client_hears(HEARD_OK),
            outcome="forwarded",
        )

    def test_a_chunked_body_keeps_its_chunks_and_trailers_both_ways(self):
        chunks = b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n"
        self.play(
            client(POST + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunks),
            origin_hears(POSTED + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nVia: 1.1 proxy\r\n\r\n" + chunks),
            origin(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks),
            client_hears(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n" + chunks),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_chunk_extensions_stay_on_their_connection(self):
        self.play(
            client(GET),
            origin_hears(GOT),
            origin(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c="d"\r\nhi\r\n0;x\r\n\r\n'),
            client_hears(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            ),
        )

    def test_a_body_that_ends_with_the_connection(self):
        self.play(
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 200 OK\r\n\r\nall there is"),
            ORIGIN_ENDS,
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nall there is"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )

    def test_head_204_and_304_have_no_body_whatever_their_fields_say(self):
        self.play(
            client(b"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            origin_hears(b"HEAD / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nVia: 1.1 proxy\r\n\r\n"),
            client(GET),
            origin_hears(GOT),
            origin(b'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "a"\r\n\r\n'),
            client_hears(b'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "a"\r\nVia: 1.1 proxy\r\n\r\n'),
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n"),
            client_hears(b"HTTP/1.1 204 No Content\r\nX: 1\r\nVia: 1.1 proxy\r\n\r\n"),
            origin_connected(1),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_a_204_does_not_announce_a_body(self):
        self.play(
            client(GET),
            origin_hears(GOT),
            origin(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
            client_hears(b"HTTP/1.1 204 No Content\r\nVia: 1.1 proxy\r\n\r\n"),
        )

    def test_an_http_1_0_client_gets_a_chunked_body_until_close(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.0\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.0 proxy\r\n\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
            client_hears(b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nabcde"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )

    def test_interim_responses_go_on_as_they_come(self):
        self.play(
            client(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            origin_hears(POSTED + b"Expect: 100-continue\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"HTTP/1.1 100 Continue\r\n\r\n"),
            client_hears(b"HTTP/1.1 100 Continue\r\nVia: 1.1 proxy\r\n\r\n"),
            client(b"hi"),
            origin_hears(b"hi"),
            origin(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK),
            client_hears(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 proxy\r\n\r\n" + HEARD_OK),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_an_http_1_0_client_is_spared_interim_responses(self):
        self.play(
            client(b"GET http://a.example/ HTTP/1.0\r\n\r\n"),
            origin(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nok"),
        )

    def test_both_directions_flow_at_once(self):
        self.play(
            client(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"),
            origin_hears(POSTED + b"Transfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n2\r\nhi\r\n"),
            origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"),
            client_hears(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n2\r\nhi\r\n"),
            client(b"2\r\nho\r\n"),
            origin_hears(b"2\r\nho\r\n"),
            origin(b"2\r\nho\r\n"),
            client_hears(b"2\r\nho\r\n"),
            client(b"0\r\n\r\n"),
            origin_hears(b"0\r\n\r\n"),
            origin(b"0\r\n\r\n"),
            client_hears(b"0\r\n\r\n"),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_an_early_answer_goes_on_at_once_and_so_does_the_upload(self):
        self.play(
            client(POST + b"Content-Length: 6\r\n\r\nabc"),
            origin_hears(POSTED + b"Content-Length: 6\r\nVia: 1.1 proxy\r\n\r\nabc"),
            origin(OK),
            client_hears(HEARD_OK),
            client(b"def"),
            origin_hears(b"def"),
            client(GET),
            origin_hears(GOT),
            origin_connected(1),
            origin(OK),
            client_hears(HEARD_OK),
            outcome="forwarded",
        )

    def test_an_expected_continue_that_never_comes_ends_the_connection_with_the_answer(self):
        self.play(
            client(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            origin_hears(POSTED + b"Expect: 100-continue\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\n"),
            origin(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
            client_hears(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\n"),
            CLIENT_SEES_CLOSE,
            ORIGIN_SEES_CLOSE,
            outcome="forwarded",
        )


class ConnectionTests(ConversationTestCase):
    def test_requests_of_one_client_share_a_connection_to_the_origin(self):
        self.play(
            client(GET),
            origin(OK),
            client_hears(HEARD_OK),
            client(GET),
            origin_hears(GOT + GOT),
            origin(OK),
            client_hears(HEARD_OK),
            origin_connected(1),
        )

    def test_pipelined_requests_are_answered_in_order_one_at_a_time(self):
        self.play(
            client(GET + GET + GET),
            origin_hears(GOT),
            origin(OK),
            client_hears(HEARD_OK),
            origin_hears(GOT),
            origin(OK),
            origin_hears(GOT),
            origin(OK),
            client_hears(HEARD_OK + HEARD_OK),
            CLIENT_STAYS,
            outcome="forwarded",
        )

    def test_a_client_that_says_close_is_answered_and_closed(self):
        self.play(
            client(b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"),
            origin_hears(GOT),
            origin(OK),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nok"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )

    def test_a_client_that_half_closes_still_gets_its_response(self):
        self.play(
            client(GET),
            CLIENT_ENDS,
            origin_hears(GOT),
            origin(OK),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nok"),
            CLIENT_SEES_CLOSE,
            outcome="forwarded",
        )

    def test_an_origin_that_says_close_is_not_asked_again(self):
        said = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        self.play(
            client(GET),
            origin(said),
            client_hears(HEARD_OK),
            ORIGIN_SEES_CLOSE,
            client(GET),
            origin_connected(2),
            origin_hears(GOT),
            origin(said),
            client_hears(HEARD_OK),
        )

    def test_an_empty_line_before_a_request_is_ignored(self):
        self.play(client(b"\r\n" + GET), origin_hears(GOT))

    def test_an_idle_client_that_ends_is_closed(self):
        self.play(client(GET), origin(OK), CLIENT_ENDS, client_hears(HEARD_OK), CLIENT_SEES_CLOSE, outcome="forwarded")

    def test_a_client_that_half_closes_behind_several_requests_gets_every_response(self):
        stage = Stage()
        one = stage.client()
        one.say(GET + GET + GET)
        one.end()
        for _ in range(3):
            stage.origin.say(OK)
            stage.settle(one)
        close = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nok"
        self.assertEqual(bytes(one.heard), HEARD_OK + HEARD_OK + close)
        self.assertTrue(one.disconnected)

    def test_what_is_sent_behind_a_last_request_does_not_reset_its_answer(self):
        stage = Stage()
        one = stage.client()
        one.say(b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n" + GET)
        stage.origin.say(OK)
        stage.settle(one)
        self.assertTrue(one.write_closed)
        self.assertFalse(one.disconnected)
        one.end()
        stage.settle(one)
        self.assertTrue(one.disconnected)
        self.assertEqual(len(stage.journal.flows), 1)
