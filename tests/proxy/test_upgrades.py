"""Upgrades: the handshake on both sides at every split, what else an origin may answer, and other protocols."""

from __future__ import annotations

from streamproxy.wire.websocket import BINARY, PING, TEXT
from tests.conversation import (
    CLIENT_ENDS,
    CLIENT_SEES_CLOSE,
    CLIENT_STAYS,
    ORIGIN_ENDS,
    ORIGIN_LET_GO,
    ORIGIN_SEES_CLOSE,
    client,
    client_hears,
    origin,
    origin_connected,
    origin_hears,
    settings_of,
)
from tests.fakes import TCP, TLS
from tests.proxy.test_opening import ESTABLISHED, OpeningTestCase
from tests.proxy.websocket_talk import (
    ACCEPT,
    KEY,
    MODES,
    STREAMING,
    SocketConversationTestCase,
    SocketTestCase,
    accept_of,
    asked,
    asking,
    deflating,
    down,
    down_close,
    granted,
    granting,
    head_of,
    up,
    up_close,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
GOT = b"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"
CHAT_AND_END = (
    origin(down(TEXT, b"hello")),
    client_hears(down(TEXT, b"hello")),
    client(up(BINARY, b"hi") + up_close(1000)),
    origin_hears(up(BINARY, b"hi") + up_close(1000)),
    origin(down_close(1000)),
    client_hears(down_close(1000)),
    ORIGIN_ENDS,
    CLIENT_SEES_CLOSE,
    CLIENT_ENDS,
    ORIGIN_LET_GO,
)


def refusal(why: bytes, status: bytes = b"502 Bad Gateway", *fields: bytes) -> bytes:
    """The proxy's own answer."""
    body = status + b": " + why + b"\n"
    date = b"Date: Thu, 01 Jan 1970 00:00:00 GMT"
    kind = b"Content-Type: text/plain; charset=utf-8"
    end = b"Content-Length: %d" % len(body)
    return head_of(b"HTTP/1.1 " + status, date, kind, b"X-Content-Type-Options: nosniff", *fields, end) + body


class HandshakeTests:
    """Over each manner of transport."""

    def test_an_upgrade_by_absolute_form_is_granted(self):
        for url in (b"http://a.example/chat", b"ws://a.example/chat"):
            for rules in MODES:
                flows = self.play(
                    client(asking(url=url)),
                    origin_hears(asked()),
                    origin(granting()),
                    client_hears(granted()),
                    *CHAT_AND_END,
                    rules=rules,
                    outcome="switched",
                    splits=url.startswith(b"ws"),
                )
                self.assertEqual((flows[0].status, flows[0].error), (101, ""))
                self.assertEqual(flows[0].websocket.streamed, bool(rules))

    def test_what_stands_behind_either_head_goes_on(self):
        whole, part = up(TEXT, b"early") + up(PING, b"1"), up(TEXT, b"ea", final=False)
        for rules in MODES:
            for early, goes in ((whole, whole), (part, part if rules else b"")):
                self.play(
                    client(asking() + early),
                    origin_hears(asked()),
                    origin(granting() + down(TEXT, b"at once")),
                    client_hears(granted() + down(TEXT, b"at once")),
                    origin_hears(goes),
                    rules=rules,
                )

    def test_what_the_client_says_meanwhile_waits(self):
        for rules in MODES:
            self.play(
                client(asking()),
                origin_hears(asked()),
                client(up(TEXT, b"early")),
                origin_hears(b""),
                origin(granting()),
                client_hears(granted()),
                origin_hears(up(TEXT, b"early")),
                rules=rules,
            )

    def test_interim_responses_may_stand_before_it(self):
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"
        self.play(
            client(asking()),
            origin_hears(asked()),
            origin(hints + b"\r\n" + granting()),
            client_hears(hints + b"Via: 1.1 proxy\r\n\r\n" + granted()),
            *CHAT_AND_END[:4],
        )

    def test_other_fields_go_on_both_ways(self):
        self.play(
            client(asking(b"Origin: http://page.example", b"Cookie: a=b", b"Proxy-Authorization: x", b"X-A: b")),
            origin_hears(asked(b"Origin: http://page.example", b"Cookie: a=b", b"X-A: b")),
            origin(granting(b"Set-Cookie: c=d", b"Server: x", b"Keep-Alive: 5")),
            client_hears(granted(b"Set-Cookie: c=d", b"Server: x")),
        )

    def test_a_subprotocol_is_asked_for_and_chosen(self):
        for offers, chosen in (((b"a, b",), b"b"), ((b"a", b"b"), b"a")):
            fields = [b"Sec-WebSocket-Protocol: " + offer for offer in offers]
            answer = b"Sec-WebSocket-Protocol: " + chosen
            for rules in MODES:
                self.play(
                    client(asking(*fields)),
                    origin_hears(asked(*fields)),
                    origin(granting(answer)),
                    client_hears(granted(answer)),
                    rules=rules,
                )

    def test_it_may_come_behind_another_exchange_on_the_same_connections(self):
        flows = self.play(
            client(GET),
            origin_hears(GOT),
            origin(OK),
            client_hears(HEARD_OK),
            client(asking()),
            origin_connected(1),
            origin_hears(asked()),
            origin(granting()),
            client_hears(granted()),
            *CHAT_AND_END,
        )
        self.assertEqual([flow.outcome for flow in flows], ["forwarded", "switched"])

    def test_a_request_for_one_may_be_sent_ahead(self):
        flows = self.play(
            client(GET + asking() + up(TEXT, b"early")),
            origin_hears(GOT),
            origin(OK),
            client_hears(HEARD_OK),
            origin_hears(asked()),
            origin(granting()),
            client_hears(granted()),
            origin_hears(up(TEXT, b"early")),
            *CHAT_AND_END,
        )
        self.assertEqual([flow.outcome for flow in flows], ["forwarded", "switched"])


class RefusedTests:
    def test_a_101_that_does_not_answer_the_handshake_is_a_502(self):
        for answer, why in (
            (
                granting(accept=accept_of(KEY[::-1])),
                b"Sec-WebSocket-Accept doesn't answer the Sec-WebSocket-Key",
            ),
            (granting(b"Sec-WebSocket-Protocol: c"), b"Sec-WebSocket-Protocol wasn't asked for"),
            (granting(deflating()), b"Sec-WebSocket-Extensions names one that wasn't offered"),
            (granting(b"Sec-WebSocket-Extensions: x-other"), b"Sec-WebSocket-Extensions names one that wasn't offered"),
        ):
            for rules in MODES:
                self.play(
                    client(asking(b"Sec-WebSocket-Protocol: a, b")),
                    origin(answer),
                    client_hears(refusal(b"the origin's " + why)),
                    ORIGIN_LET_GO,
                    CLIENT_STAYS,
                    rules=rules,
                    outcome="malformed",
                    splits=not rules,
                )

    def test_one_without_its_fields_is_too(self):
        head = b"HTTP/1.1 101 Switching Protocols"
        accept = b"Sec-WebSocket-Accept: " + ACCEPT
        for answer, why in (
            (granting().replace(accept + b"\r\n", b""), b"the origin's 101 has no Sec-WebSocket-Accept"),
            (head_of(head, b"Upgrade: websocket", accept), b"the origin's 101 has no Connection: Upgrade"),
            (head_of(head, b"Connection: Upgrade", accept), b"the origin's 101 doesn't upgrade to WebSocket"),
            (
                head_of(head, b"Connection: Upgrade", b"Upgrade: h2c", accept),
                b"the origin's 101 doesn't upgrade to WebSocket",
            ),
            (granting(b"Sec-WebSocket-Accept: " + ACCEPT), b"the origin's 101 has several Sec-WebSocket-Accept"),
        ):
            self.play(client(asking()), origin(answer), client_hears(refusal(why)), ORIGIN_LET_GO, outcome="malformed")

    def test_an_extension_may_be_answered_that_was_taken_out_and_is_a_502_then(self):
        # It was offered by the client, but nobody here can read messages through it.
        self.play(
            client(asking(b"Sec-WebSocket-Extensions: x-other")),
            origin_hears(asked()),
            origin(granting(b"Sec-WebSocket-Extensions: x-other")),
            client_hears(refusal(b"the origin's Sec-WebSocket-Extensions names one that wasn't offered")),
            outcome="malformed",
        )

    def test_one_that_nobody_asked_for_is_a_502(self):
        for request in (GET, asking().replace(b"Connection: Upgrade\r\n", b"")):
            self.play(
                client(request),
                origin(granting()),
                client_hears(refusal(b"the origin switched protocols unasked")),
                ORIGIN_LET_GO,
                outcome="malformed",
            )

    def test_a_handshake_that_is_none_goes_nowhere(self):
        for wrong, why in (
            (asking(key=b"short"), b"Sec-WebSocket-Key isn't 16 bytes in base64"),
            (asking(b"Sec-WebSocket-Key: " + KEY), b"several Sec-WebSocket-Keys"),
            (asking().replace(b"GET", b"PUT"), b"the method of a WebSocket handshake isn't GET"),
            (asking(b"Sec-WebSocket-Protocol: a, a"), b"Sec-WebSocket-Protocol names a protocol twice"),
            (asking(b"Sec-WebSocket-Extensions: a;;"), b"Sec-WebSocket-Extensions is malformed"),
            (asking().replace(b"Sec-WebSocket-Version: 13\r\n", b""), b"no Sec-WebSocket-Version"),
        ):
            self.play(
                client(wrong),
                origin_connected(0),
                client_hears(refusal(why, b"400 Bad Request")),
                CLIENT_STAYS,
                outcome="malformed",
            )

    def test_another_version_is_told_which_one_is_spoken(self):
        fields = (b"Sec-WebSocket-Version: 13", b"Upgrade: websocket")
        self.play(
            client(asking().replace(b"Version: 13", b"Version: 8")),
            origin_connected(0),
            client_hears(refusal(b"Sec-WebSocket-Version isn't 13", b"426 Upgrade Required", *fields)),
            client(asking()),
            origin_hears(asked()),
        )


class OtherAnswerTests:
    def test_an_origin_may_answer_instead_and_the_connection_goes_on(self):
        for status in (b"200 OK", b"403 Forbidden", b"404 Not Found", b"302 Found", b"426 Upgrade Required"):
            answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"
            heard = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nno"
            flows = self.play(
                client(asking()),
                origin_hears(asked()),
                origin(answer),
                client_hears(heard),
                client(GET),
                origin_connected(1),
                origin_hears(GOT),
                origin(OK),
                client_hears(HEARD_OK),
                CLIENT_STAYS,
                outcome="forwarded",
                splits=status == b"403 Forbidden",
            )
            self.assertIsNone(flows[0].websocket)

    def test_a_101_cut_short_is_no_answer(self):
        self.play(
            client(asking()),
            origin(granting()[:-2]),
            ORIGIN_ENDS,
            client_hears(refusal(b"the origin closed the connection inside its response")),
            outcome="origin-gone",
        )

    def test_http_1_0_can_not_ask_for_one(self):
        # Nor is the field of any use to the origin.
        self.play(
            client(asking().replace(b"HTTP/1.1", b"HTTP/1.0")),
            origin_hears(
                head_of(
                    b"GET /chat HTTP/1.1",
                    b"Host: a.example",
                    b"Sec-WebSocket-Version: 13",
                    b"Sec-WebSocket-Key: " + KEY,
                    b"Via: 1.0 proxy",
                )
            ),
            origin(OK),
            client_hears(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nok"),
            outcome="forwarded",
        )

    def test_a_request_with_a_body_asks_for_none(self):
        sent = asking(b"Content-Length: 2").replace(b"GET", b"POST").replace(b"websocket", b"other")
        heard = head_of(
            b"POST /chat HTTP/1.1",
            b"Host: a.example",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + KEY,
            b"Content-Length: 2",
            b"Via: 1.1 proxy",
        )
        self.play(client(sent + b"hi"), origin_hears(heard + b"hi"), origin(OK), client_hears(HEARD_OK))


class TcpHandshakeTests(HandshakeTests, SocketConversationTestCase):
    manner = TCP


class TlsHandshakeTests(HandshakeTests, SocketConversationTestCase):
    manner = TLS


class TcpRefusedTests(RefusedTests, SocketConversationTestCase):
    manner = TCP


class TlsRefusedTests(RefusedTests, SocketConversationTestCase):
    manner = TLS
    every_split = False


class TcpOtherAnswerTests(OtherAnswerTests, SocketConversationTestCase):
    manner = TCP


class TlsOtherAnswerTests(OtherAnswerTests, SocketConversationTestCase):
    manner = TLS
    every_split = False


class RuleTests(SocketConversationTestCase):
    def test_rules_edit_both_heads(self):
        rules = """rules:
          - request: {headers: {set: {Origin: "http://b.example"}, remove: [Cookie]}}
            response: {headers: {set: {X-Seen: "yes"}, remove: [Server]}}"""
        for mode in MODES:
            self.play(
                client(asking(b"Origin: http://a.example", b"Cookie: a=b")),
                origin_hears(asked(b"Origin: http://b.example")),
                origin(granting(b"Server: x")),
                client_hears(granted(b"X-Seen: yes")),
                *CHAT_AND_END,
                rules=mode + rules,
                outcome="switched",
            )

    def test_what_a_rule_asks_for_is_what_the_answer_is_held_against(self):
        for name, offered in ((b"Sec-WebSocket-Protocol", b"b"), (b"Sec-WebSocket-Key", b"A" * 22 + b"==")):
            rule = f"rules: [{{request: {{headers: {{set: {{{name.decode()}: '{offered.decode()}'}}}}}}}}]"
            is_key = name.endswith(b"Key")
            answer = granting(accept=accept_of(offered)) if is_key else granting(b"Sec-WebSocket-Protocol: b")
            heard = granted() if is_key else granted(b"Sec-WebSocket-Protocol: b")
            fields = () if is_key else (b"Sec-WebSocket-Protocol: b",)
            self.play(
                client(asking()),
                origin_hears(asked(*fields, key=offered if is_key else KEY)),
                origin(answer),
                client_hears(heard),
                rules=rule,
            )

    def test_one_may_be_blocked_or_answered_here(self):
        for action, outcome, status in (
            ("block: 403", "refused", 403),
            ("respond: {status: 404, text: no}", "answered", 404),
        ):
            (flow,) = self.play(
                client(asking()),
                origin_connected(0),
                CLIENT_STAYS,
                rules=f"rules: [{{match: {{url: 'ws://a.example/*'}}, {action}}}]",
                outcome=outcome,
            )
            self.assertEqual(flow.status, status)

    def test_one_may_be_sent_elsewhere(self):
        self.play(
            client(asking(url=b"http://old.example/chat?q", host=b"old.example")),
            origin_hears(asked(path=b"/chat?q", host=b"new.example:81")),
            origin(granting()),
            client_hears(granted()),
            *CHAT_AND_END,
            rules="rules: [{match: {host: old.example}, redirect_to: 'ws://new.example:81'}]",
            outcome="switched",
        )

    def test_a_rule_that_can_not_be_kept_on_a_stream_is_refused_aloud(self):
        words = b"rule 'keys' can't change the messages of a WebSocket that streams (stream_websockets)"
        rule = "rules: [{name: keys, match: {%s}, response: {replace: {find: a, with: b}}}]"
        self.play(
            client(asking()),
            origin_connected(0),
            client_hears(refusal(words)),
            rules=STREAMING + rule % "host: a.example",
            outcome="refused",
        )
        # A rule that is for the response's head is known of only when that has come.
        self.play(
            client(asking()),
            origin(granting(b"X-A: b")),
            client_hears(refusal(words)),
            ORIGIN_LET_GO,
            rules=STREAMING + rule % "header: {X-A: b}",
            outcome="failed",
        )


H2C = head_of(
    b"GET http://a.example/ HTTP/1.1",
    b"Host: a.example",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
)


class OtherProtocolTests(SocketConversationTestCase):
    def asking(self, *protocols: bytes) -> bytes:
        fields = (b"Connection: Upgrade", b"Upgrade: " + b", ".join(protocols))
        return head_of(b"GET http://a.example/ HTTP/1.1", b"Host: a.example", *fields)

    def asked(self, *protocols: bytes) -> bytes:
        fields = (b"Connection: Upgrade", b"Upgrade: " + b", ".join(protocols), b"Via: 1.1 proxy")
        return head_of(b"GET / HTTP/1.1", b"Host: a.example", *fields)

    def granting(self, protocol: bytes) -> bytes:
        return head_of(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: " + protocol)

    def granted(self, protocol: bytes) -> bytes:
        return self.granting(protocol)[:-2] + b"Via: 1.1 proxy\r\n\r\n"

    def test_another_protocol_is_a_raw_tunnel(self):
        flows = self.play(
            client(self.asking(b"irc/6.9", b"x-other") + b"early \x00\xff"),
            origin_hears(self.asked(b"irc/6.9", b"x-other")),
            origin(self.granting(b"x-other") + b"\x16\x03at once"),
            client_hears(self.granted(b"x-other") + b"\x16\x03at once"),
            origin_hears(b"early \x00\xff"),
            client(b"GET / HTTP/1.1\r\n\r\n"),
            origin_hears(b"GET / HTTP/1.1\r\n\r\n"),
            CLIENT_ENDS,
            ORIGIN_SEES_CLOSE,
            CLIENT_STAYS,
            origin(b"more"),
            client_hears(b"more"),
            ORIGIN_ENDS,
            CLIENT_SEES_CLOSE,
            outcome="switched",
        )
        self.assertIsNone(flows[0].websocket)
        self.assertEqual((flows[0].status, flows[0].request.size, flows[0].response.size), (101, 26, 13))

    def test_its_ends_go_on_either_way(self):
        self.play(
            client(self.asking(b"x-other")),
            origin(self.granting(b"x-other") + b"last"),
            ORIGIN_ENDS,
            client_hears(self.granted(b"x-other") + b"last"),
            CLIENT_SEES_CLOSE,
            client(b"more"),
            origin_hears(self.asked(b"x-other") + b"more"),
            CLIENT_ENDS,
            ORIGIN_SEES_CLOSE,
            outcome="switched",
        )

    def test_one_that_was_not_asked_for_is_a_502(self):
        self.play(
            client(self.asking(b"irc/6.9")),
            origin(self.granting(b"irc/7")),
            client_hears(refusal(b"the origin's 101 upgrades to a protocol that wasn't asked for")),
            ORIGIN_LET_GO,
            outcome="malformed",
        )

    def test_http_2_is_a_tunnel_where_no_rule_would_be_got_past_by_it(self):
        self.play(
            client(H2C),
            origin(self.granting(b"h2c") + b"\0\0\0\x04"),
            client_hears(self.granted(b"h2c") + b"\0\0\0\x04"),
            client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        )

    def test_where_a_rule_would_be_it_does_not_go_on(self):
        for rules in (
            "rules: [{match: {host: a.example, path: /no}, block: 403}]",
            "rules: [{match: {host: b.example}, block: 403}]",
            "rules: [{request: {replace: {find: a, with: b}}}]",
        ):
            self.play(
                client(H2C),
                origin_hears(GOT),
                origin(OK),
                client_hears(HEARD_OK),
                rules=rules,
                outcome="forwarded",
            )

    def test_a_websocket_among_others_is_not_asked_for(self):
        for protocols in ((b"websocket", b"x-other"), (b"x-other", b"WebSocket")):
            self.play(client(self.asking(*protocols)), origin_hears(GOT), origin(OK), client_hears(HEARD_OK))


class ExtensionTests(SocketConversationTestCase):
    """What of Sec-WebSocket-Extensions goes on, and what comes back."""

    def check(self, offers: tuple[bytes, ...], heard: tuple[bytes, ...], answer: bytes, told: bytes, rules: str = ""):
        self.play(
            client(asking(*(b"Sec-WebSocket-Extensions: " + offer for offer in offers))),
            origin_hears(asked(*(b"Sec-WebSocket-Extensions: " + each for each in heard))),
            origin(granting(*([b"Sec-WebSocket-Extensions: " + answer] if answer else []))),
            client_hears(granted(*([b"Sec-WebSocket-Extensions: " + told] if told else []))),
            *CHAT_AND_END,
            rules=rules,
            outcome="switched",
        )

    def test_where_it_streams_they_are_client_s_and_origin_s_own(self):
        offer = b"x-a; b=1, permessage-deflate; client_max_window_bits, permessage-deflate;   server_max_window_bits=10"
        for answer in (b"", b"x-a; b=2", b"permessage-deflate; server_max_window_bits=10", b"x-a, permessage-deflate"):
            self.check((offer, b"x-c"), (offer, b"x-c"), answer, answer, STREAMING)

    def test_where_messages_are_read_each_side_has_its_own_compression(self):
        deflate, window = b"permessage-deflate", b"permessage-deflate; client_max_window_bits"
        for offers, heard, answer, told in (
            ((deflate,), (deflate,), deflate, deflate),
            ((deflate,), (deflate,), b"", b""),
            ((b"x-a, " + deflate, b"x-b"), (deflate,), deflate, deflate),
            ((window,), (window,), b"permessage-deflate; client_max_window_bits=9", deflate),
            (
                (b"permessage-deflate; server_no_context_takeover; server_max_window_bits=10",),
                (deflate,),
                b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                b"permessage-deflate; server_no_context_takeover; server_max_window_bits=10",
            ),
        ):
            self.check(offers, heard, answer, told)

    def test_an_offer_that_can_not_be_met_is_not_made(self):
        for offer in (b"x-a", b"permessage-deflate; server_max_window_bits=8", b"permessage-deflate; other=1"):
            self.check((offer,), (), b"", b"")

    def test_an_answer_that_may_not_stand_there_is_a_502(self):
        for answer, why in (
            (b"client_max_window_bits=10", b"has a client_max_window_bits that wasn't offered"),
            (b"server_max_window_bits=16", b"has parameters that may not stand there"),
        ):
            self.play(
                client(asking(deflating())),
                origin(granting(deflating(answer))),
                client_hears(refusal(b"the origin's permessage-deflate " + why)),
                outcome="malformed",
            )


class CountTests(SocketTestCase):
    """The counters of the log's line, byte by byte of the wire."""

    def test_they_are_exact(self):
        for manner in (TCP, TLS):
            for mode in MODES:
                for ahead in (b"", GET):
                    self.manner = manner
                    self.begin(settings_of(mode))
                    early, at_once = up(TEXT, b"early"), down(TEXT, b"at once")
                    self.client.say(ahead)
                    if ahead:
                        self.origin.say(OK)
                    self.client.say(asking() + early)
                    self.settle()
                    self.origin.say(granting() + at_once)
                    self.settle()
                    self.client.say(up(BINARY, b"x" * 70_000) + up_close(1000))
                    self.origin.say(down(BINARY, b"y" * 66_000))
                    self.origin.say(down_close(1000))
                    self.end_both()
                    flow = self.stage.journal.flows[-1]
                    self.assertEqual(flow.outcome, "switched")
                    client_in = len(asking() + early + up(BINARY, b"x" * 70_000) + up_close(1000))
                    origin_in = len(granting() + at_once + down(BINARY, b"y" * 66_000) + down_close(1000))
                    self.assertEqual((flow.client_in, flow.origin_in), (client_in, origin_in), (manner, mode, ahead))
                    more = len(GET) and len(ahead) and (len(GOT), len(HEARD_OK))
                    sent, told = more or (0, 0)
                    self.assertEqual(flow.origin_out, len(self.origin.heard) - sent)
                    self.assertEqual(flow.client_out, len(self.client.heard) - told)
                    self.assertEqual(len(self.stage.journal.flows), 2 if ahead else 1)

    def test_how_long_it_took_is_told(self):
        self.open()
        self.wait(7)
        self.client.say(up_close(1000))
        self.origin.say(down_close(1000))
        self.end_both()
        self.assertEqual((self.flow.duration, self.flow.first_byte), (7, 0))

    def test_nothing_is_left_to_wait_for(self):
        self.open()
        self.client.say(up_close(1000))
        self.origin.say(down_close(1000))
        self.end_both()
        self.stage.journal.flush()
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])
        self.assertEqual(self.stage.proxy.connections, set())

    def test_it_is_not_known_to_the_pool_any_more(self):
        self.open()
        other = self.stage.client()
        other.say(GET)
        self.assertEqual(len(self.stage.pool.made), 2)


class TunnelTests(OpeningTestCase):
    """In a client's CONNECT, plain and inside TLS."""

    def test_one_is_opened_in_a_tunnel(self):
        for mode in MODES:
            request = asking(url=b"/chat", host=b"a.example:80")
            for at in (0, *range(1, len(request), 7)):
                self.begin(mode)
                self.open("a.example:80")
                self.client.say(*filter(None, (request[:at], request[at:])))
                self.assertEqual(self.origin_heard(), asked(host=b"a.example:80"))
                self.origin.say(granting() + down(TEXT, b"x"))
                self.assertEqual(self.heard(), granted() + down(TEXT, b"x"))
                self.client.say(up(TEXT, b"y"))
                self.assertEqual(self.origin_heard(), up(TEXT, b"y"))
                self.assertEqual(self.dialled, [("a.example", 80)])

    def test_one_is_opened_inside_tls(self):
        for mode in MODES:
            self.begin(mode)
            self.open("a.example:443")
            peer = self.secure()
            peer.say(asking(url=b"/chat"))
            self.stage.run(peer)
            origin = self.stage.secure_origin()
            self.stage.run(peer, origin)
            self.assertEqual(origin.take(), asked())
            origin.say(granting() + down(TEXT, b"x"))
            self.stage.run(peer, origin)
            self.assertEqual(peer.take(), granted() + down(TEXT, b"x"))
            peer.say(up(TEXT, b"y") + up_close(1000))
            self.stage.run(peer, origin)
            self.assertEqual(origin.take(), up(TEXT, b"y") + up_close(1000))
            origin.say(down_close(1000))
            self.stage.run(peer, origin)
            self.assertEqual(peer.take(), down_close(1000))
            origin.say_goodbye()
            self.stage.run(peer, origin)
            self.assertTrue(peer.ended)
            peer.say_goodbye()
            self.stage.run(peer, origin)
            self.assertTrue(origin.ended)
            flows = [(flow.url, flow.outcome, flow.error) for flow in self.stage.journal.flows if flow.method == "GET"]
            self.assertEqual(flows, [("https://a.example/chat", "switched", "")])
            websocket = self.stage.journal.flows[-1].websocket
            self.assertEqual((websocket.close_code, websocket.closed_by_client), (1000, True))

    def test_it_is_told_that_the_tunnel_is_there_first(self):
        self.client.say(b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n" + asking(url=b"/chat"))
        self.assertEqual(self.heard(), ESTABLISHED)
        self.assertEqual(self.origin_heard(), asked())
