"""The proxy is to stop: how WebSockets and hooks that wait end, and how what doesn't end by itself is cut."""

from __future__ import annotations

from streamproxy.proxy.websocket import CLOSING
from tests.proxy.scripting import WaitTestCase
from tests.proxy.test_faults import (
    CHUNKED_UPLOAD,
    GET,
    HALF,
    UPLOAD,
    answer,
)
from tests.proxy.test_opening import GET as INSIDE
from tests.proxy.test_opening import connect_to, say_hello
from tests.proxy.test_stopping import StoppingTestCase
from tests.proxy.websocket_talk import MODES, STREAMING, SocketTestCase, binary, close, down, text, up
from tests.wire.test_websocket import BINARY, TEXT

STOPPED = "the proxy was stopped"


class WebSocketTests(SocketTestCase):
    def test_both_sides_are_told_that_the_proxy_goes_away(self):
        for mode in MODES:
            self.open(mode)
            self.client.say(up(TEXT, b"said"))
            self.settle()
            self.stage.proxy.drain()
            self.assertEqual(self.client_frames(), [close(1001, "the proxy is stopping")])
            self.assertEqual(self.origin_frames(), [text(b"said"), close(1001, "the proxy is stopping")])
            self.end_both()
            self.assertEqual(self.closed, (1001, "the proxy is stopping", None))
            self.check_ended()

    def test_peers_that_do_not_answer_have_ten_seconds(self):
        for mode in MODES:
            self.open(mode)
            self.stage.proxy.drain()
            self.wait(CLOSING + 1)
            self.assertEqual(self.closed, (1001, "the proxy is stopping", None))
            self.check_ended()

    def test_what_was_read_before_goes_to_a_slow_reader_in_front_of_it(self):
        said = [bytes([number]) * 30_000 for number in range(6)]
        for mode in MODES:
            self.open(mode)
            # The origin doesn't read meanwhile: the first of these fill its transport.
            self.client.say(b"".join(up(BINARY, each) for each in said))
            self.stage.proxy.drain()
            self.settle()
            expected = [*map(binary, said), close(1001, "the proxy is stopping")]
            self.assertEqual(self.origin_frames(), expected)

    def test_nothing_that_comes_behind_it_goes_on(self):
        for mode in MODES:
            self.open(mode)
            self.stage.proxy.drain()
            self.client.say(up(TEXT, b"late"))
            self.assertEqual(self.origin_frames(), [close(1001, "the proxy is stopping")])

    def test_no_close_frame_is_put_into_a_frame_that_is_under_way(self):
        self.open(STREAMING)
        frame = down(TEXT, bytes(100))
        self.origin.say(frame[:50])
        self.settle()
        self.stage.proxy.drain()
        self.assertEqual(self.heard(), frame[:50])
        self.assertTrue(self.has_ended(self.client))
        self.assertEqual(self.origin_frames(), [close(1001, "the proxy is stopping")])

    def test_one_that_is_closing_anyway_is_left_alone(self):
        for mode in MODES:
            self.open(mode)
            self.client.say(up(8, b"\x03\xe8"))
            self.assertEqual(self.origin_frames(), [close(1000)])
            self.stage.proxy.drain()
            self.origin.say(down(8, b"\x03\xe8"))
            self.end_both()
            self.assertEqual(self.closed[0], 1000)
            self.check_ended()

    def test_one_that_is_cut_has_its_line(self):
        for mode in MODES:
            self.open(mode)
            self.stage.proxy.cut(STOPPED)
            self.check_ended("failed", STOPPED)


class HookTests(WaitTestCase):
    """A hook that waits keeps its exchange under way, and is cancelled when that is cut."""

    names = ("requestheaders", "request", "responseheaders", "response")

    def test_it_is_waited_for(self):
        for name in self.names:
            self.begin(name)
            self.stage.proxy.drain()
            self.pass_time(10)
            self.go_on()
            if len(self.stage.pool.made) and not self.stage.journal.flows:
                self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld")
                self.settle()
            self.assertIn(b"\r\nConnection: close\r\n", bytes(self.client.heard), name)
            self.assertTrue(bytes(self.client.heard).endswith(b"world"), name)
            self.assertEqual((self.flow.outcome, self.ended), ("forwarded", ["went on"]), name)

    def test_it_is_cancelled_when_its_exchange_is_cut(self):
        for name in self.names:
            self.begin(name)
            self.stage.proxy.drain()
            self.stage.proxy.cut(STOPPED)
            self.pass_time(3)
            self.assertEqual((self.flow.outcome, self.flow.error), ("failed", STOPPED), name)
            self.assertEqual(self.ended, ["cancelled"], name)
            self.assertIn(b"503 Service Unavailable", bytes(self.client.heard), name)


class CutTests(StoppingTestCase):
    """What is still there behind `timeouts.drain`."""

    def cut(self) -> None:
        self.stage.proxy.cut(STOPPED)
        self.stage.settle(self.client)

    def assert_cut(self, heard: bytes, *outcomes: str, aborted: bool = False) -> None:
        """The client hears this and the end; the last line on the log says who ended it."""
        self.drain()
        self.heard()
        self.cut()
        self.assertEqual(self.heard(), heard)
        if not self.client.disconnected:
            # So that it comes to read that, it is read for a while.
            self.client.end()
            self.stage.settle(self.client)
        self.assertEqual((self.client.disconnected, self.client.aborted), (True, aborted))
        flows = self.stage.journal.flows
        self.assertEqual([flow.outcome for flow in flows], list(outcomes) or ["failed"])
        if not outcomes or outcomes[-1] == "failed":
            self.assertIn(STOPPED, flows[-1].error)
        self.stage.proxy.abort()
        self.assert_nothing_left(0)
        # It is ended already.
        self.stage.proxy.cut(STOPPED)
        self.assertEqual(len(self.stage.journal.flows), len(flows))

    def stopped(self) -> bytes:
        return answer("503 Service Unavailable", STOPPED, close=True, at=self.stage.clock.seconds())

    def test_who_says_nothing(self):
        self.stage.proxy.drain()
        self.cut()
        self.assert_over()

    def test_who_is_inside_a_head_is_told(self):
        self.client.say(GET[:20])
        self.assert_cut(self.stopped())

    def test_who_waits_for_an_answer_is_told(self):
        self.ask(GET)
        self.assert_cut(self.stopped())

    def test_who_waits_for_a_connection_is_told(self):
        self.stage.pool.waits = True
        self.ask(GET)
        self.assert_cut(self.stopped())

    def test_who_uploads_is_told(self):
        for upload in (UPLOAD, CHUNKED_UPLOAD):
            self.begin()
            self.ask(upload)
            self.assert_cut(self.stopped())

    def test_a_response_is_cut_where_it_shows(self):
        self.ask(GET, HALF)
        self.assert_cut(b"")
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        self.begin()
        self.ask(GET, chunked)
        self.assert_cut(b"")
        # Where an end in order would be the body's, it isn't in order.
        self.begin()
        self.ask(GET, b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.stage.proxy.cut(STOPPED)
        self.assertTrue(self.client.aborted)

    def test_a_held_response_is_not_shown_in_part(self):
        self.begin("rules: [{match: {host: a.example}, response: {stream: false}}]")
        self.ask(GET, HALF)
        self.assert_cut(self.stopped())

    def test_a_tunnel_breaks(self):
        self.begin("tls: {passthrough: [blind.example]}")
        self.client.say(connect_to("blind.example:443"))
        self.assert_cut(b"", aborted=True)
        self.assertTrue(self.origin.aborted)

    def test_a_connect_that_waits_for_its_tunnel(self):
        self.begin("tls: {passthrough: [blind.example]}")
        self.stage.pool.waits = True
        self.client.say(connect_to("blind.example:443"))
        self.drain()
        self.cut()
        self.assertEqual([flow.error for flow in self.stage.journal.flows], [STOPPED])
        self.assertTrue(self.client.disconnected)

    def test_a_tunnel_in_which_nobody_has_said_anything(self):
        self.open()
        self.assert_cut(b"")

    def test_a_client_inside_its_hello_or_its_handshake(self):
        for number in (20, 10_000):
            self.begin()
            self.open()
            self.client.say(say_hello()[:number])
            self.drain()
            self.cut()
            (flow,) = self.stage.journal.flows
            self.assertEqual(flow.outcome, "failed")
            self.assertIn(STOPPED, flow.error)
            self.assertTrue(self.client.disconnected)

    def test_a_client_that_began_to_speak_tls_to_the_proxy_itself(self):
        self.client.say(say_hello()[:20])
        self.assert_cut(b"")

    def test_an_exchange_in_tls(self):
        self.open()
        peer = self.secure()
        peer.say(INSIDE)
        self.stage.run(peer)
        origin = self.stage.secure_origin()
        self.stage.run(peer, origin)
        self.stage.proxy.drain()
        self.stage.proxy.cut(STOPPED)
        self.stage.run(peer, origin)
        self.assertEqual((bytes(peer.heard), peer.ended), (self.stopped(), True))
        peer.say_goodbye()
        self.assert_over("switched", "failed")

    def test_what_is_cut_and_read_by_nobody_is_aborted(self):
        self.ask(GET, HALF)
        self.stage.proxy.drain()
        self.stage.proxy.cut(STOPPED)
        self.stage.turn()
        self.assertFalse(self.client.disconnected)
        self.stage.proxy.abort()
        self.assertTrue(self.client.aborted)
        self.assertEqual(self.stage.proxy.under_way, 0)
        self.assertEqual([flow.outcome for flow in self.stage.journal.flows], ["failed"])
