"""The proxy is to stop: what each connection does about it, by what is under way there, and how far it may go on.

How what is left is cut is told in `test_stopping_cut.py`, and when in `tests/daemon/test_drain.py`.
"""

from __future__ import annotations

from streamproxy.proxy.opening import FRESH
from tests.conversation import settings_of
from tests.fakes import LIMIT, TLS
from tests.proxy.test_faults import (
    GET,
    GOT,
    HALF,
    HEARD_HALF,
    HEARD_OK,
    OK,
    UPLOAD,
    UPLOADED,
)
from tests.proxy.test_opening import ESTABLISHED, OpeningTestCase, connect_to, say_hello
from tests.proxy.test_opening import GET as INSIDE

LAST_OK = HEARD_OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
CONTINUED = b"def"


class StoppingTestCase(OpeningTestCase):
    """One client of a proxy that is to stop."""

    def drain(self) -> None:
        self.stage.proxy.drain()
        self.stage.settle(self.client)

    def ask(self, request: bytes = GET, answered: bytes = b"") -> None:
        """The client asks, and the origin answers so much of it."""
        self.client.say(request)
        self.stage.settle(self.client)
        if answered:
            self.origin.say(answered)
            self.stage.settle(self.client)

    def assert_over(self, *outcomes: str) -> None:
        """The client's connection has ended in order, and these are the lines on the log."""
        self.stage.settle(self.client)
        self.assertTrue(self.client.disconnected and not self.client.aborted)
        self.assertEqual([flow.outcome for flow in self.stage.journal.flows], list(outcomes))
        self.assertEqual(self.stage.proxy.under_way, 0)

    def assert_lasts(self, seconds: float = 20.0) -> None:
        self.wait(seconds)
        self.assertFalse(self.client.disconnected)
        self.assertGreater(self.stage.proxy.under_way, 0)


class IdleTests(StoppingTestCase):
    def test_a_client_that_was_served_is_let_go_at_once(self):
        self.ask(GET, OK)
        self.heard()
        self.drain()
        self.assertEqual(self.heard(), b"")
        self.assert_over("forwarded")

    def test_one_that_has_just_come_may_still_ask(self):
        self.drain()
        self.wait(FRESH / 2, 0.1)
        self.ask(GET, OK)
        self.assertEqual(self.heard(), LAST_OK)
        self.assert_over("forwarded")

    def test_one_that_has_just_come_is_not_waited_for_longer(self):
        self.drain()
        self.wait(FRESH + 0.2, 0.1)
        self.assert_over()

    def test_one_that_comes_meanwhile_has_no_more_time(self):
        self.drain()
        self.client.reset()
        self.client = self.stage.client()
        self.wait(FRESH + 0.2, 0.1)
        self.assert_over()

    def test_idle_connections_to_origins_are_closed(self):
        self.ask(GET, OK)
        self.assertEqual(len(self.stage.pool), 1)
        self.drain()
        self.assertEqual(len(self.stage.pool), 0)
        self.assertTrue(self.origin.disconnected)


class ExchangeTests(StoppingTestCase):
    def test_a_head_that_has_begun_may_be_ended(self):
        self.client.say(GET[:20])
        self.drain()
        self.wait(20)
        self.ask(GET[20:], OK)
        self.assertEqual((self.origin_heard(), self.heard()), (GOT, LAST_OK))
        self.assert_over("forwarded")

    def test_a_head_that_does_not_end_has_its_deadline(self):
        self.client.say(GET[:20])
        self.drain()
        self.wait(31)
        self.assertIn(b"408 Request Timeout", self.heard())
        # It is read for a while yet, so that it comes to read that.
        self.client.end()
        self.assert_over("timed-out")

    def test_who_waits_for_an_answer_gets_it_and_is_told_that_it_is_the_last(self):
        self.ask(GET)
        self.drain()
        self.assert_lasts()
        self.origin.say(OK)
        self.assertEqual(self.heard(), LAST_OK)
        self.assert_over("forwarded")

    def test_a_response_that_has_begun_comes_to_its_end(self):
        self.ask(GET, HALF)
        self.drain()
        self.assert_lasts()
        self.origin.say(CONTINUED)
        self.assertEqual(self.heard(), HEARD_HALF + CONTINUED)
        self.assert_over("forwarded")

    def test_an_upload_goes_on(self):
        self.ask(UPLOAD)
        self.drain()
        self.assert_lasts()
        self.client.say(CONTINUED)
        self.assertEqual(self.origin_heard(), UPLOADED + CONTINUED)
        self.origin.say(OK)
        self.assertEqual(self.heard(), LAST_OK)
        self.assert_over("forwarded")

    def test_of_requests_that_were_sent_ahead_only_the_one_under_way_is_served(self):
        self.ask(GET + GET)
        self.drain()
        self.origin.say(OK)
        self.assertEqual((self.heard(), self.origin_heard()), (LAST_OK, GOT))
        self.wait(3)
        self.assert_over("forwarded")

    def test_an_answer_of_the_proxys_own_is_the_last_as_well(self):
        self.begin("rules: [{match: {host: a.example}, block: 403}]")
        self.drain()
        self.client.say(GET)
        self.assertIn(b"\r\nConnection: close\r\n", self.heard())
        self.assert_over("refused")

    def test_who_does_not_read_is_waited_for(self):
        self.ask(GET)
        self.drain()
        self.origin.say(OK)
        self.stage.turn()
        self.assertGreater(self.stage.proxy.under_way, 0)
        self.client.take()
        self.assert_over("forwarded")

    def test_an_origin_that_has_yet_to_take_an_upload_is_waited_for(self):
        self.ask(UPLOAD, OK)
        self.drain()
        self.client.say(CONTINUED)
        self.stage.turn()
        self.heard()
        self.client.take()
        self.assertEqual(self.origin_heard(), UPLOADED + CONTINUED)
        self.assert_over("forwarded")


class ExchangeOverTlsTests(ExchangeTests):
    manner = TLS


class TunnelTests(StoppingTestCase):
    rules = "tls: {passthrough: [blind.example]}"

    def tunnel(self) -> None:
        self.client.say(connect_to("blind.example:443"))
        self.assertEqual(self.heard(), ESTABLISHED)

    def test_a_tunnel_goes_on(self):
        self.tunnel()
        self.drain()
        self.assert_lasts()
        self.client.say(b"ping")
        self.origin.say(b"pong")
        self.assertEqual((self.origin_heard(), self.heard()), (b"ping", b"pong"))
        self.client.end()
        self.origin.end()
        self.assert_over("tunnelled")

    def test_one_that_is_being_made_is_made(self):
        self.stage.pool.waits = True
        self.client.say(connect_to("blind.example:443"))
        self.drain()
        self.stage.pool.let_connect()
        self.assertEqual(self.heard(), ESTABLISHED)
        self.client.say(b"ping")
        self.assertEqual(self.origin_heard(), b"ping")

    def test_a_name_that_is_being_looked_up_is(self):
        self.begin("tls: {passthrough: [192.0.2.0/24]}", {"a.example": ["192.0.2.7"]})
        self.resolver.waits = True
        self.client.say(connect_to())
        self.drain()
        self.resolver.answer()
        self.assertEqual(self.heard(), ESTABLISHED)
        self.assert_lasts()

    def test_one_in_which_nobody_has_said_anything_is_not_waited_for(self):
        for silence in (0.0, 0.4, None):
            self.begin(self.rules)
            if silence is None:
                # It comes when the proxy is about to stop.
                self.drain()
                self.open()
            else:
                self.open()
                # The client alone may have been waited for, or the origin as well.
                self.wait(silence, 0.1)
                self.drain()
            self.wait(FRESH + 0.2, 0.1)
            self.assert_over("timed-out")

    def test_one_whose_client_has_begun_to_speak_goes_on(self):
        self.open()
        self.drain()
        self.wait(FRESH / 2, 0.1)
        self.client.say(INSIDE)
        self.origin.say(OK)
        self.assertEqual(self.heard(), LAST_OK)
        self.assert_over("switched", "forwarded")


class SecureTests(StoppingTestCase):
    def test_a_handshake_is_ended_and_a_request_served(self):
        self.open()
        hello = say_hello()
        self.client.say(hello[:50])
        self.drain()
        self.wait(5)
        self.client.say(hello[50:])
        self.stage.settle(self.client)
        self.assertEqual(bytes(self.client.heard[len(ESTABLISHED) :][:1]), b"\x16")

    def test_one_that_was_served_is_let_go_in_order(self):
        self.open()
        peer = self.secure()
        peer.say(INSIDE)
        self.stage.run(peer)
        origin = self.stage.secure_origin()
        self.stage.run(peer, origin)
        origin.say(OK)
        self.stage.run(peer, origin)
        self.assertEqual(bytes(peer.heard), HEARD_OK)
        self.stage.proxy.drain()
        self.stage.run(peer, origin)
        self.assertTrue(peer.ended and origin.ended)
        # Neither of the two need answer.
        self.assertEqual(self.stage.proxy.under_way, 0)
        peer.say_goodbye()
        origin.say_goodbye()
        self.assert_over("switched", "forwarded")

    def test_who_has_yet_to_read_the_last_of_it_is_waited_for(self):
        self.open()
        peer = self.secure()
        peer.say(INSIDE)
        self.stage.run(peer)
        origin = self.stage.secure_origin()
        self.stage.run(peer, origin)
        self.stage.proxy.drain()
        origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        # The client doesn't read.
        for _ in range(5):
            origin.step()
            self.stage.turn()
        self.assertGreater(len(self.client.buffer), LIMIT)
        self.assertEqual(self.stage.proxy.under_way, 1)
        self.stage.run(peer)
        self.assertTrue(peer.heard.endswith(bytes(100_000)) and peer.ended)
        self.assertEqual(self.stage.proxy.under_way, 0)

    def test_one_whose_handshake_is_just_done_may_still_ask(self):
        self.open()
        peer = self.secure()
        self.stage.proxy.drain()
        peer.say(INSIDE)
        self.stage.run(peer)
        origin = self.stage.secure_origin()
        self.stage.run(peer, origin)
        origin.say(OK)
        self.stage.run(peer, origin)
        self.assertEqual((bytes(peer.heard), peer.ended), (LAST_OK, True))
        peer.say_goodbye()
        self.assert_over("switched", "forwarded")

    def test_one_that_asks_for_nothing_is_not_waited_for_longer(self):
        self.open()
        peer = self.secure()
        self.stage.proxy.drain()
        self.stage.clock.advance(FRESH + 0.1)
        self.stage.run(peer)
        self.assertTrue(peer.ended)
        self.assertEqual(self.stage.proxy.under_way, 0)
        peer.say_goodbye()
        self.assert_over("switched")


class SettingsTests(StoppingTestCase):
    def test_a_configuration_that_is_read_meanwhile_brings_nobody_back(self):
        self.drain()
        self.stage.proxy.obey(settings_of(), self.stage.proxy.tls)
        self.ask(GET, OK)
        self.assertEqual(self.heard(), LAST_OK)
        self.assert_over("forwarded")
