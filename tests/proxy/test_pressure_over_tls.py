"""A slow reader slows its own sender over TLS too, in bounded memory; and every wait has its deadline."""

from __future__ import annotations

import functools
import itertools

from tests.fakes import LIMIT, BoundedTransport
from tests.proxy.test_faults import answer
from tests.proxy.test_laws_over_tls import (
    FROM_SECURE_CLIENT,
    GOT,
    HEARD_OK,
    OK,
    TO_SECURE_ORIGIN,
    WAYS,
    LawTestCase,
    Talk,
    Way,
)
from tests.secure import SecurePeer

READ = 65536
PIECE = 4096
# A pump's pieces are encrypted together when they come to so much.
GATHERED = 65536
# What one read of the source brings, or the record of one that sends little by little.
SIZES = (1000, 4096, 16384, 30000, READ)
# What the records of a body take, for each byte of it, where they are as small as a piece.
ON_THE_WIRE = 1.02
LONG = b"Content-Length: 100000000\r\n\r\n"
DOWNLOAD = b"HTTP/1.1 200 OK\r\n" + LONG
TIMES = "timeouts: {connect: 10, handshake: 7, head: 30, idle: 300, keepalive: 75}"


def bound(layers: int) -> int:
    """How many bytes of one body may be in the proxy, on their way to a transport with so many layers of TLS on it.

    As over TCP: the transport's buffer up to its limit, and what one read became, in the pump's queue. What passes the
    limit is a piece, or with TLS, of however many layers, as much as is encrypted together, with the last piece of it.
    """
    return LIMIT + (GATHERED + PIECE if layers else PIECE) + READ


def layers_of(way: Way) -> int:
    return way.client + way.nested


class PressureTests(LawTestCase):
    def fill(
        self,
        talk: Talk,
        source: SecurePeer | BoundedTransport,
        raw: BoundedTransport,
        turns: bool = True,
        size: int = READ,
    ) -> int:
        """Let `source`, whose transport is `raw`, send until it is paused; how much that was."""
        sent = 0
        while raw.reading:
            source.say(bytes(size))
            sent += size
            if turns:
                talk.stage.turn()
            self.assertLess(sent, 1 << 21, "never paused")
        talk.stage.turn()
        return sent

    def start(self, way: Way) -> Talk:
        """A download that the client has just begun to read."""
        talk = Talk(way)
        talk.ask()
        talk.origin.say(DOWNLOAD)
        talk.settle()
        return talk

    def test_a_client_that_does_not_read_stops_its_origin(self):
        for way, turns, size in itertools.product(WAYS, (True, False), SIZES):
            talk = self.start(way)
            sent = self.fill(talk, talk.origin, talk.stage.origin, turns, size)
            self.assertLessEqual(sent, bound(layers_of(way)), (way.name, turns, size))
            self.assertLessEqual(len(talk.raw.buffer), ON_THE_WIRE * (bound(layers_of(way)) - READ))

    def test_an_origin_that_does_not_read_stops_its_client(self):
        for way, turns, size in itertools.product(WAYS, (True, False), SIZES):
            talk = Talk(way)
            talk.ask(b"POST", LONG)
            sent = self.fill(talk, talk.client, talk.raw, turns, size)
            self.assertLessEqual(sent, bound(way.origin), (way.name, turns, size))
            self.assertLessEqual(len(talk.stage.origin.buffer), ON_THE_WIRE * (bound(way.origin) - READ))

    def test_an_origin_that_is_not_connected_yet_stops_its_client(self):
        for way in WAYS:
            talk = Talk(way)
            talk.stage.pool.waits = True
            talk.ask(b"POST", LONG)
            self.assertLessEqual(self.fill(talk, talk.client, talk.raw, True), 2 * READ)

    def test_an_origin_whose_handshake_is_not_done_stops_its_client_and_hears_all_of_it_then(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way)
            talk.client.say(b"POST " + way.base + b"/x HTTP/1.1\r\nHost: a.example\r\n" + LONG)
            talk.stage.turn()
            sent = self.fill(talk, talk.client, talk.raw, True)
            self.assertLessEqual(sent, 2 * READ)
            for _ in range(100):
                talk.settle()
            self.assertEqual(len(talk.origin.heard.partition(b"\r\n\r\n")[2]), sent)
            self.assertTrue(talk.raw.reading)

    def test_a_stalled_download_does_not_stop_the_upload_beside_it(self):
        for way in WAYS:
            talk = Talk(way)
            talk.ask(b"POST", LONG)
            talk.origin.say(DOWNLOAD)
            talk.stage.turn()
            self.fill(talk, talk.origin, talk.stage.origin, True)
            self.assertTrue(talk.raw.reading)
            talk.client.say(b"x" * 1000)
            talk.stage.run(talk.origin)
            self.assertTrue(talk.origin.heard.endswith(b"x" * 1000), way.name)

    def test_a_stalled_client_does_not_stop_another(self):
        for way in WAYS:
            talk = self.start(way)
            self.fill(talk, talk.origin, talk.stage.origin, True)
            _, other = talk.new_client()
            other.say(b"GET " + way.base + b"/x HTTP/1.1\r\nHost: a.example\r\n\r\n")
            talk.stage.run(other)
            talk.meet()
            talk.stage.run(other, talk.origin)
            talk.origin.say(OK)
            talk.stage.run(other, talk.origin)
            self.assertEqual(bytes(other.heard), HEARD_OK, way.name)

    def test_a_client_that_reads_on_gets_every_byte_in_order(self):
        for way in WAYS:
            talk = self.start(way)
            sent = bytearray()
            for round_ in range(40):
                while talk.stage.origin.reading and len(sent) < 3_000_000:
                    piece = bytes([round_, len(sent) & 255]) * 15000
                    talk.origin.say(piece)
                    sent += piece
                    talk.stage.turn()
                talk.client.step() if isinstance(talk.client, SecurePeer) else talk.client.take(100_000)
            talk.settle()
            body = bytes(talk.client.heard).partition(b"\r\n\r\n")[2]
            self.assertTrue(body == bytes(sent), (way.name, len(body), len(sent)))
            self.assertGreater(len(sent), 1_000_000)

    def test_the_origin_waits_until_the_client_has_read_what_there_is(self):
        for way in FROM_SECURE_CLIENT:
            talk = self.start(way)
            sent = self.fill(talk, talk.origin, talk.stage.origin, size=30000)
            # It reads a little of the records.
            (talk.below or talk.client)._in.write(talk.raw.take(1000))
            talk.stage.turn()
            self.assertFalse(talk.stage.origin.reading, way.name)
            talk.settle()
            self.assertTrue(talk.stage.origin.reading, way.name)
            self.assertEqual(len(talk.client.heard.partition(b"\r\n\r\n")[2]), sent)


class TimedTestCase(LawTestCase):
    def wait(self, talk: Talk, seconds: float, step: float = 1.0) -> None:
        """Let time pass, with everybody reading."""
        while seconds > 0:
            talk.stage.clock.advance(min(step, seconds))
            talk.settle()
            seconds -= step

    def assert_nothing_left(self, talk: Talk) -> None:
        for made in [talk.raw, *talk.stage.pool.made]:
            made.reset()
        talk.stage.journal.flush()
        self.assertEqual(talk.stage.clock.getDelayedCalls(), [])
        self.assertEqual(talk.stage.proxy.connections, set())


class DeadlineTests(TimedTestCase):
    def test_a_client_that_says_nothing_more_is_closed_after_keepalive(self):
        for way in FROM_SECURE_CLIENT:
            for asked in (False, True):
                talk = Talk(way, TIMES)
                if asked:
                    talk.ask()
                    talk.origin.say(OK)
                    talk.settle()
                self.wait(talk, 74)
                self.assertEqual(talk.client_sees(), "nothing")
                self.wait(talk, 2)
                self.assertEqual(talk.client_sees(), "an end", way.name)
                talk.goodbye(talk.client, talk.raw)
                self.assert_nothing_left(talk)

    def test_a_client_that_is_told_goodbye_and_stays_is_reset_in_the_end(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way, TIMES)
            self.wait(talk, 76)
            self.assertFalse(talk.raw.disconnected)
            self.wait(talk, 301, 10)
            self.assertTrue(talk.raw.disconnected, way.name)
            self.assert_nothing_left(talk)

    def test_a_head_that_comes_too_slowly_is_answered_408(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way, TIMES)
            for byte in b"GET /" + b"x" * 24:
                talk.client.say(bytes([byte]))
                self.wait(talk, 1)
            self.assertEqual(bytes(talk.client.heard), b"")
            self.wait(talk, 2)
            self.assertTrue(talk.client.heard.startswith(b"HTTP/1.1 408 "), way.name)
            self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["timed-out"]))

    def test_an_origin_that_does_not_answer_is_504_after_idle(self):
        for way in WAYS:
            talk = Talk(way, TIMES)
            talk.ask()
            began = talk.stage.clock.seconds()
            self.wait(talk, 299, 13)
            self.assertEqual(bytes(talk.client.heard), b"")
            self.wait(talk, 2)
            expected = answer("504 Gateway Timeout", "the origin stopped", at=began + 300)
            self.assertEqual(bytes(talk.client.heard), expected, way.name)
            self.assertTrue(talk.stage.origin.disconnected)
            self.assert_nothing_left(talk)

    def test_an_origin_that_stops_inside_its_body_is_cut_after_idle(self):
        for way in WAYS:
            for said, sees in (
                (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", "an end"),
                (b"HTTP/1.1 200 OK\r\n\r\nabc", "a reset"),
            ):
                talk = Talk(way, TIMES)
                talk.ask()
                talk.origin.say(said)
                self.wait(talk, 301, 7)
                self.assertTrue(talk.client.heard.endswith(b"\r\n\r\nabc"))
                self.assertEqual((talk.client_sees(), talk.outcomes), (sees, ["timed-out"]), way.name)
                self.assert_nothing_left(talk)

    def test_a_client_that_stops_reading_is_reset_after_idle(self):
        for way in WAYS:
            talk = Talk(way, TIMES)
            talk.ask()
            talk.origin.say(DOWNLOAD)
            while talk.stage.origin.reading:
                talk.origin.say(bytes(READ))
                talk.stage.turn()
            talk.stage.clock.advance(299)
            self.assertFalse(talk.raw.disconnected)
            talk.stage.clock.advance(2)
            self.assertTrue(talk.raw.aborted, way.name)
            self.assertTrue(talk.stage.origin.disconnected)
            self.assertEqual(
                [(flow.outcome, flow.error) for flow in talk.stage.journal.flows],
                [("timed-out", "the client stopped reading")],
            )
            self.assert_nothing_left(talk)

    def test_a_client_that_does_not_read_its_last_words_is_reset(self):
        for way in WAYS:
            talk = Talk(way, TIMES)
            talk.ask(rest=b"Connection: close\r\n\r\n")
            talk.origin.say(OK)
            talk.stage.turn()
            talk.stage.clock.advance(299)
            self.assertFalse(talk.raw.disconnected)
            talk.stage.clock.advance(2)
            self.assertTrue(talk.raw.aborted, way.name)
            self.assert_nothing_left(talk)

    def test_an_idle_connection_to_an_origin_ends_in_order_after_keepalive(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way, TIMES)
            talk.ask()
            talk.origin.say(OK)
            talk.settle()
            self.wait(talk, 76)
            self.assertEqual(len(talk.stage.pool), 0)
            self.assertTrue(talk.origin.ended, way.name)
            # It doesn't answer that, so it is reset.
            self.wait(talk, 11)
            self.assertTrue(talk.stage.origin.disconnected)
            self.assert_nothing_left(talk)

    def test_many_exchanges_leave_no_delayed_calls(self):
        for way in WAYS:
            talk = Talk(way, TIMES)
            for _ in range(50):
                talk.ask()
                talk.origin.say(OK)
                talk.settle()
            self.assertEqual(bytes(talk.client.heard), HEARD_OK * 50)
            self.assertEqual(bytes(talk.origin.heard), GOT * 50)
            self.assertLessEqual(len(talk.stage.clock.getDelayedCalls()), 4, way.name)
            self.assert_nothing_left(talk)


class LastWordsTests(TimedTestCase):
    """A client that is answered and closed while it still has something to say. Over TLS there is no half-close."""

    def test_what_was_sent_ahead_does_not_keep_a_connection_that_both_have_ended(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way, TIMES)
            ahead = b"GET " + way.base + b"/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
            talk.ask(rest=b"Connection: close\r\n\r\n" + ahead)
            talk.origin.say(OK)
            talk.settle()
            self.assertEqual(talk.client_sees(), "an end")
            talk.goodbye(talk.client, talk.raw)
            self.assertTrue(talk.raw.disconnected, way.name)

    def test_a_client_that_was_refused_and_sends_on_without_end_is_cut_off(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way, TIMES + "\nrules: [{match: {path: /x}, block: 403}]")
            talk.ask(b"POST", LONG)
            self.assertTrue(talk.client.heard.startswith(b"HTTP/1.1 403 "))
            # Twisted tells of an abort in the next turn.
            talk.raw.abortConnection = functools.partial(talk.stage.clock.callLater, 0, talk.raw.abortConnection)
            sent = 0
            while not talk.raw.disconnected and sent < 4 << 20:
                talk.client.tls.write(bytes(READ))
                talk.client.flush()
                talk.stage.turn()
                sent += READ
            self.assertLess(sent, 4 << 20, way.name)

    def test_a_client_that_was_refused_and_sends_on_slowly_is_cut_off_soon(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way, TIMES + "\nrules: [{match: {path: /x}, block: 403}]")
            talk.ask(b"POST", LONG)
            for _ in range(20):
                if not talk.raw.disconnected:
                    talk.client.tls.write(b"x")
                    talk.client.flush()
                self.wait(talk, 1)
            self.assertTrue(talk.raw.disconnected, way.name)
