"""Who speaks first in a tunnel, and clients that say nothing or go away: each CONNECT has its one line on the log."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError

from tests.fakes import TLS
from tests.proxy.test_faults import OK
from tests.proxy.test_opening import ESTABLISHED, GET, GOT, HEARD_OK, OpeningTestCase, connect_to, say_hello

GREETING = b"220 mail.example ESMTP\r\n"
SPOKE_FIRST = "the origin spoke first"
NOT_USED = "the client left before its tunnel was in use"


class SilentClientTests(OpeningTestCase):
    def test_the_origin_is_dialled_when_the_client_has_said_nothing_for_long_enough(self):
        self.open("mail.example:25")
        self.wait(0.29, 0.01)
        self.assertEqual(self.dialled, [])
        self.wait(0.02, 0.01)
        self.assertEqual(self.dialled, [("mail.example", 25)])

    def test_a_greeting_is_relayed_and_so_is_what_follows(self):
        self.open("mail.example:25")
        self.fall_silent()
        self.origin.say(GREETING)
        self.assertEqual(self.heard(), GREETING)
        self.client.say(b"GET / HTTP/1.1\r\n")
        self.assertEqual(self.origin_heard(), b"GET / HTTP/1.1\r\n")
        self.origin.say(b"500 what?\r\n")
        self.assertEqual(self.heard(), b"500 what?\r\n")
        self.client.end()
        self.origin.end()
        self.assert_nothing_left()
        flow = self.flow
        self.assertEqual((flow.outcome, flow.request.why, flow.error), ("tunnelled", SPOKE_FIRST, ""))
        self.assertEqual(flow.client_in, len(connect_to("mail.example:25")) + 16)
        self.assertEqual(flow.client_out, len(ESTABLISHED + GREETING) + 11)
        self.assertEqual((flow.origin_out, flow.origin_in), (16, len(GREETING) + 11))
        self.assertEqual((flow.request.size, flow.response.size), (16, len(GREETING) + 11))

    def test_a_greeting_that_is_there_when_the_connection_is(self):
        self.stage.pool.waits = True
        self.open("mail.example:25")
        self.fall_silent()
        self.stage.pool.let_connect()
        self.origin.say(GREETING[:4], GREETING[4:])
        self.assertEqual(self.heard(), GREETING)

    def test_a_client_that_speaks_while_it_is_dialled_is_looked_at(self):
        for said in (GET, say_hello(), b"SSH-2.0-x\r\n"):
            self.begin()
            self.stage.pool.waits = True
            self.open()
            self.fall_silent()
            ((dialling, _),) = self.stage.pool.waiting
            self.assertFalse(dialling.called)
            self.client.say(said)
            self.assertTrue(dialling.called, said)
            self.stage.pool.let_connect()
            self.assertEqual(len(self.stage.pool.made), said[:4] != say_hello()[:4], said)
        self.begin()
        self.stage.pool.waits = True
        self.open()
        self.fall_silent()
        self.client.say(GET[:2])
        self.stage.pool.waits = False
        self.client.say(GET[2:])
        self.assertEqual(self.origin_heard(), GOT)
        self.assertEqual(len(self.stage.pool.made), 1)

    def test_a_client_that_speaks_when_it_is_connected_is_looked_at(self):
        self.open()
        self.fall_silent()
        silent = self.origin
        self.client.say(GET)
        self.assertEqual(self.origin_heard(), GOT)
        self.assertTrue(silent.aborted)
        self.assertEqual(silent.heard, b"")
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK)
        self.client.end()
        self.assert_nothing_left()

    def test_tls_then_is_intercepted(self):
        self.open()
        self.fall_silent()
        self.secure()
        self.assertTrue(self.origin.aborted)
        self.assertEqual((self.origin.heard, self.flow.outcome), (b"", "switched"))

    def test_other_bytes_then_go_to_the_connection_that_is_there(self):
        self.open("a.example:22")
        self.fall_silent()
        self.client.say(b"SSH-2.0-x\r\n")
        self.assertEqual((self.origin_heard(), len(self.stage.pool.made)), (b"SSH-2.0-x\r\n", 1))

    def test_a_dial_that_fails_ends_nothing(self):
        for failure in (ConnectionRefusedError(), DNSLookupError(), TimeoutError()):
            self.begin("rules: [{match: {url: 'https://a.example/x'}, respond: {text: here}}]")
            self.stage.pool.refuses = failure
            self.open()
            self.wait(5)
            self.assertEqual(self.dialled, [("a.example", 443)])
            self.assertFalse(self.client.disconnected)
            peer = self.secure()
            peer.say(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
            self.stage.run(peer)
            self.assertTrue(peer.heard.endswith(b"here"))
            self.assertEqual(self.outcomes, [("CONNECT", "switched"), ("GET", "answered")])

    def test_other_bytes_behind_a_dial_that_failed_have_it_tried_again(self):
        self.stage.pool.refuses = ConnectionRefusedError()
        self.open("a.example:22")
        self.wait(1)
        self.stage.pool.refuses = None
        self.client.say(b"SSH-2.0-x\r\n")
        self.assertEqual(self.origin_heard(), b"SSH-2.0-x\r\n")

    def test_a_client_that_says_nothing_to_nobody_is_given_up_as_one_that_says_no_head(self):
        self.begin("timeouts: {head: 7}")
        self.stage.pool.refuses = ConnectionRefusedError()
        self.open()
        self.wait(6.5, 0.1)
        self.assertFalse(self.client.disconnected)
        self.wait(1)
        self.assertTrue(self.client.disconnected)
        flow = self.flow
        self.assertEqual((flow.outcome, flow.error), ("origin-gone", "a.example refused the connection"))
        self.assertEqual(flow.status, 200)
        self.assert_nothing_left(0.2)

    def test_a_hello_that_has_begun_has_as_long_as_a_handshake(self):
        self.begin("timeouts: {head: 30, handshake: 7}")
        self.open()
        for byte in say_hello()[:6]:
            self.client.say(bytes([byte]))
            self.wait(1)
        self.assertFalse(self.client.disconnected)
        self.wait(2)
        self.assertTrue(self.client.disconnected)
        self.assertEqual(self.flow.outcome, "timed-out")
        self.assert_nothing_left(0.2)

    def test_two_that_say_nothing_are_given_up_after_idle(self):
        self.begin("timeouts: {idle: 100, head: 5}")
        self.open()
        self.wait(100)
        self.assertFalse(self.client.disconnected)
        self.wait(1)
        self.assertTrue(self.client.disconnected)
        self.assertTrue(self.origin.disconnected)
        self.assertEqual((self.flow.outcome, self.flow.error), ("timed-out", "nothing was said in the tunnel"))
        self.assert_nothing_left(0.2)

    def test_one_that_begins_late_has_as_long_for_its_first_bytes_as_any(self):
        for refuses in (None, ConnectionRefusedError()):
            self.begin("timeouts: {idle: 30, head: 30, handshake: 30}")
            self.stage.pool.refuses = refuses
            self.open()
            self.wait(29)
            hello = say_hello()
            self.client.say(hello[:9])
            self.wait(29)
            self.client.say(hello[9:])
            self.assertEqual(self.heard()[:1], b"\x16")

    def test_an_origin_that_ends_without_a_word_ends_the_tunnel_so(self):
        self.open("a.example:25")
        self.fall_silent()
        self.origin.end()
        self.stage.settle(self.client)
        self.assertTrue(self.has_ended(self.client))
        self.client.end()
        self.assert_nothing_left()
        self.assertEqual(self.flow.outcome, "tunnelled")

    def test_an_origin_that_breaks_off_without_a_word_breaks_the_tunnel(self):
        self.open("a.example:25")
        self.fall_silent()
        self.origin.reset()
        self.assertTrue(self.client.aborted)
        self.assertEqual(self.flow.outcome, "origin-gone")
        self.assert_nothing_left(0.2)

    def test_an_origin_that_greets_at_length_waits_until_it_is_known_what_the_tunnel_is(self):
        self.stage.pool.waits = True
        self.open("a.example:25")
        self.fall_silent()
        self.stage.pool.let_connect()
        sent = 0
        while self.origin.reading and sent < 1 << 20:
            self.origin.say(bytes(65536))
            sent += 65536
        self.assertLessEqual(sent, 3 * 65536)

    def test_the_page_of_the_proxy_is_nowhere_to_be_dialled(self):
        self.open("streamproxy.test:443")
        self.wait(5)
        self.assertEqual((self.dialled, self.resolver.asked), ([], []))


class SecureSilentClientTests(SilentClientTests):
    """The same in a tunnel that is itself inside TLS."""

    manner = TLS


class HalfClosedClientTests(OpeningTestCase):
    """Over TCP a client may end its side and still hear the other."""

    def test_one_that_says_nothing_hears_what_the_origin_has_to_say(self):
        for stage in ("at once", "behind its connect", "when it is connected"):
            self.begin()
            self.client.say(connect_to("a.example:13"))
            if stage != "at once":
                self.assertEqual(self.heard(), ESTABLISHED)
            if stage == "when it is connected":
                self.fall_silent()
            self.client.end()
            self.stage.settle(self.client)
            self.assertTrue(self.origin.write_closed, stage)
            self.origin.say(b"12:00\r\n")
            self.origin.end()
            self.assertTrue(self.heard().endswith(b"12:00\r\n"))
            self.assertEqual(len(self.stage.pool.made), 1)
            self.assert_nothing_left()
            self.assertEqual((self.flow.outcome, self.flow.request.size, self.flow.response.size), ("tunnelled", 0, 7))

    def test_one_that_ends_while_it_is_dialled(self):
        self.stage.pool.waits = True
        self.open("a.example:13")
        self.fall_silent()
        self.client.end()
        self.stage.settle(self.client)
        self.stage.pool.let_connect()
        self.assertEqual(len(self.stage.pool.made), 1)
        self.stage.settle(self.client)
        self.assertTrue(self.origin.write_closed)
        self.origin.say(b"12:00\r\n")
        self.origin.end()
        self.assertEqual(self.heard(), b"12:00\r\n")
        self.assert_nothing_left()

    def test_one_to_whom_the_origin_can_t_be_reached_is_let_go(self):
        self.stage.pool.refuses = ConnectionRefusedError()
        self.open("a.example:13")
        self.client.end()
        self.assert_nothing_left()
        self.assertEqual((self.flow.outcome, self.flow.error), ("origin-gone", "a.example:13 refused the connection"))

    def test_a_client_that_ends_behind_its_request_gets_the_answer(self):
        for together in (True, False):
            self.begin()
            if together:
                self.client.say(connect_to() + GET)
            else:
                self.open()
                self.client.say(GET)
            self.client.end()
            self.heard()
            self.origin.say(OK)
            self.assertEqual(self.heard(), HEARD_OK.replace(b"proxy", b"proxy\r\nConnection: close"))
            self.assert_nothing_left()
            self.assertEqual(self.outcomes, [("CONNECT", "switched"), ("GET", "forwarded")])

    def test_one_that_ended_behind_requests_sent_ahead_has_its_tunnel(self):
        self.client.say(b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n" + connect_to("a.example:13"))
        self.client.end()
        self.stage.settle(self.client)
        self.origin.say(OK)
        self.stage.settle(self.client)
        self.assertEqual(self.dialled, [("b.example", 80), ("a.example", 13)])
        self.origin.say(b"12:00\r\n")
        self.origin.end()
        self.assertTrue(self.heard().endswith(ESTABLISHED + b"12:00\r\n"))
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("GET", "forwarded"), ("CONNECT", "tunnelled")])


class LeavingClientTests(OpeningTestCase):
    """A client goes away at every stage."""

    def at(self, stage: str) -> None:
        """A client that has come as far as `stage`."""
        opaque = "tls: {passthrough: [a.example]}"
        self.said = 0
        if stage == "while the name is looked up":
            self.begin("tls: {passthrough: [10.0.0.0/8]}")
            self.resolver.waits = True
            self.client.say(connect_to())
        elif stage == "while an opaque target is dialled":
            self.begin(opaque)
            self.stage.pool.waits = True
            self.client.say(connect_to())
        elif stage == "before the 200 is read":
            self.begin()
            self.client.say(connect_to())
        else:
            self.begin()
            self.stage.pool.waits = stage.endswith("is dialled")
            self.open()
            if stage == "inside the hello":
                self.client.say(say_hello()[:100])
                self.said = 100
            elif stage in ("while the silent one's origin is dialled", "when it is connected"):
                self.fall_silent()
            elif stage == "while the other's origin is dialled":
                self.client.say(b"SSH-2.0-x\r\n")
                self.said = 11

    STAGES = [
        "while the name is looked up",
        "while an opaque target is dialled",
        "before the 200 is read",
        "before a word",
        "inside the hello",
        "while the silent one's origin is dialled",
        "when it is connected",
        "while the other's origin is dialled",
    ]

    def test_one_that_resets_leaves_a_line_and_nothing_else(self):
        for stage in self.STAGES:
            self.at(stage)
            self.client.reset()
            self.stage.turn()
            self.stage.pool.let_connect()
            self.resolver.answer()
            self.assertEqual((self.flow.outcome, self.flow.error), ("client-gone", NOT_USED), stage)
            self.assertEqual(self.flow.client_in, len(connect_to()) + self.said, stage)
            self.assert_nothing_left(0.2)
            self.assertEqual(len(self.stage.journal.flows), 1, stage)

    def test_one_that_ends_and_never_speaks_again_leaves_nothing_either(self):
        for stage in self.STAGES:
            self.at(stage)
            self.client.end()
            self.stage.settle(self.client)
            self.resolver.answer()
            self.stage.settle(self.client)
            self.stage.pool.let_connect()
            self.stage.settle(self.client)
            for made in self.stage.pool.made:
                if not made.disconnected:
                    made.end()
            self.stage.settle(self.client)
            expected = "client-gone" if stage == "inside the hello" else "tunnelled"
            self.assertEqual(self.flow.outcome, expected, stage)
            self.assert_nothing_left()
            self.assertEqual(len(self.stage.journal.flows), 1, stage)
