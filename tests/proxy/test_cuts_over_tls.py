"""Ends over TLS: a body that was cut looks cut to the other side, and only one that ended well ends well.

A peer may end by close_notify and then its connection (in order), end its connection without that, or be reset.
"""

from __future__ import annotations

import functools

from tests.fakes import BoundedTransport
from tests.proxy.test_faults import answer
from tests.proxy.test_laws_over_tls import (
    CHUNKS,
    CLIENT_SIDE,
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

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nall there is"
HEARD_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\nall there is"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
HEARD_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nVia: 1.1 proxy\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
HEARD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 proxy\r\n\r\n3\r\nabc\r\n"
NO_RESPONSE = "the origin closed the connection without a response"
INSIDE = "the origin closed the connection inside its response"
ENDS = ("in order", "without a word", "by a reset")


def end(talk: Talk, who: SecurePeer | BoundedTransport, raw: BoundedTransport, how: str) -> None:
    if how == "in order" and isinstance(who, SecurePeer):
        who.say_goodbye()
    if how == "by a reset":
        raw.reset()
    else:
        raw.end()
    talk.settle()


class OriginEndsTests(LawTestCase):
    def talk(self, way: Way, said: bytes, how: str, rules: str = "", asked: tuple = ()) -> Talk:
        """The client has asked, and the origin has said something, and ended."""
        talk = Talk(way, rules)
        talk.ask(*asked)
        talk.origin.say(said)
        talk.settle()
        end(talk, talk.origin, talk.stage.origin, how)
        return talk

    def test_a_body_until_close_that_ends_in_order_is_whole(self):
        for way in WAYS:
            talk = self.talk(way, UNTIL_CLOSE, "in order")
            self.assertEqual(bytes(talk.client.heard), HEARD_UNTIL_CLOSE, way.name)
            self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["forwarded"]))

    def test_a_body_until_close_that_ends_otherwise_is_cut_and_the_client_can_tell(self):
        for way in WAYS:
            for how in ("without a word", "by a reset"):
                if way is CLIENT_SIDE and how == "without a word":
                    # Over TCP that is an end in order.
                    continue
                talk = self.talk(way, UNTIL_CLOSE, how)
                self.assertEqual(bytes(talk.client.heard), HEARD_UNTIL_CLOSE, way.name)
                self.assertEqual((talk.client_sees(), talk.outcomes), ("a reset", ["origin-gone"]), (way.name, how))

    def test_chunks_for_an_http_1_0_client_that_are_cut_are_no_whole_body_either(self):
        for way in WAYS:
            for how in ENDS:
                talk = Talk(way)
                talk.client.say(b"GET " + way.base + b"/x HTTP/1.0\r\nHost: a.example\r\n\r\n")
                talk.settle()
                talk.origin.say(CHUNKED)
                talk.settle()
                end(talk, talk.origin, talk.stage.origin, how)
                self.assertTrue(talk.client.heard.endswith(b"Connection: close\r\n\r\nabc"))
                self.assertEqual((talk.client_sees(), talk.outcomes), ("a reset", ["origin-gone"]), (way.name, how))

    def test_a_body_whose_length_has_come_is_whole_however_the_connection_ends(self):
        for way in WAYS:
            for how in ENDS:
                talk = self.talk(way, OK, how)
                self.assertEqual(bytes(talk.client.heard), HEARD_OK)
                self.assertEqual((talk.client_sees(), talk.outcomes), ("nothing", ["forwarded"]), (way.name, how))

    def test_chunks_whose_last_has_come_are_whole_however_the_connection_ends(self):
        for way in WAYS:
            for how in ENDS:
                talk = self.talk(way, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, how)
                self.assertTrue(talk.client.heard.endswith(b"\r\n\r\n" + CHUNKS))
                self.assertEqual((talk.client_sees(), talk.outcomes), ("nothing", ["forwarded"]), (way.name, how))

    def test_a_length_that_has_not_come_is_cut_however_politely_the_connection_ends(self):
        for way in WAYS:
            for how in ENDS:
                talk = self.talk(way, HALF, how)
                self.assertEqual(bytes(talk.client.heard), HEARD_HALF)
                # The body is short: an end behind it can't be taken for its own.
                self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["origin-gone"]), (way.name, how))

    def test_chunks_without_the_last_are_cut_however_politely_the_connection_ends(self):
        for way in WAYS:
            for how in ENDS:
                talk = self.talk(way, CHUNKED, how)
                self.assertEqual(bytes(talk.client.heard), HEARD_CHUNKED)
                self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["origin-gone"]), (way.name, how))

    def test_an_end_instead_of_an_answer_or_inside_its_head_is_502(self):
        for way in WAYS:
            for how in ENDS:
                for said, why in ((b"", NO_RESPONSE), (b"HTTP/1.1 200 OK\r\nX:", INSIDE)):
                    talk = self.talk(way, said, how)
                    self.assertEqual(bytes(talk.client.heard), answer("502 Bad Gateway", why), (way.name, how))
                    self.assertEqual((talk.client_sees(), talk.outcomes), ("nothing", ["origin-gone"]))

    def test_an_end_inside_an_upload_is_502_and_ends_the_clients_connection(self):
        for way in WAYS:
            for how in ENDS:
                talk = self.talk(way, b"", how, asked=(b"POST", b"Content-Length: 6\r\n\r\nabc"))
                self.assertTrue(talk.origin.heard.endswith(b"\r\n\r\nabc"))
                expected = answer("502 Bad Gateway", NO_RESPONSE, close=True)
                self.assertEqual(bytes(talk.client.heard), expected, (way.name, how))
                self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["origin-gone"]))

    def test_one_that_is_cut_while_it_is_held_becomes_a_502(self):
        for way in TO_SECURE_ORIGIN:
            for how in ("without a word", "by a reset"):
                talk = self.talk(way, UNTIL_CLOSE, how, rules="hold: always")
                self.assertTrue(talk.client.heard.startswith(b"HTTP/1.1 502 "), (way.name, how))
                self.assertNotIn(b"all there is", talk.client.heard)
                self.assertEqual(talk.outcomes, ["origin-gone"])

    def test_one_until_close_that_is_held_is_whole_when_it_ends_in_order(self):
        for way in TO_SECURE_ORIGIN:
            talk = self.talk(way, UNTIL_CLOSE, "in order", rules="hold: always")
            self.assertTrue(talk.client.heard.endswith(b"\r\n\r\nall there is"), way.name)
            self.assertEqual(talk.outcomes, ["forwarded"])

    def test_a_record_that_is_cut_does_not_count(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(UNTIL_CLOSE)
            talk.settle()
            talk.origin.tls.write(b" that will never arrive")
            talk.stage.origin.say(talk.origin._out.read()[:-1])
            talk.stage.origin.end()
            talk.settle()
            self.assertEqual(bytes(talk.client.heard), HEARD_UNTIL_CLOSE, way.name)
            self.assertEqual((talk.client_sees(), talk.outcomes), ("a reset", ["origin-gone"]))

    def test_a_record_that_is_damaged_cuts_the_body_and_the_log_says_why(self):
        for way in TO_SECURE_ORIGIN:
            for said, sees in ((UNTIL_CLOSE, "a reset"), (HALF, "an end")):
                talk = Talk(way)
                talk.ask()
                talk.origin.say(said)
                talk.settle()
                talk.stage.origin.say(b"\x17\x03\x03\x00\x20" + bytes(32))
                talk.settle()
                self.assertEqual((talk.client_sees(), talk.outcomes), (sees, ["origin-gone"]), way.name)
                words = "the TLS with a.example broke off: decryption failed or bad record mac"
                self.assertEqual(talk.stage.journal.flows[0].error, words)

    def test_what_an_origin_says_behind_its_goodbye_does_not_count(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(UNTIL_CLOSE)
            talk.origin.say_goodbye()
            talk.stage.origin.say(b"\x17\x03\x03\x00\x20" + bytes(32))
            talk.stage.origin.end()
            talk.settle()
            self.assertEqual(bytes(talk.client.heard), HEARD_UNTIL_CLOSE, way.name)
            self.assertEqual((talk.client_sees(), talk.outcomes), ("an end", ["forwarded"]))

    def test_an_idle_origin_that_speaks_is_dropped_and_not_heard(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(OK)
            talk.settle()
            made = talk.stage.origin
            # Twisted tells of an abort in the next turn.
            made.abortConnection = functools.partial(talk.stage.clock.callLater, 0, made.abortConnection)
            talk.origin.say(OK)
            talk.settle()
            self.assertTrue(made.aborted, way.name)
            self.assertEqual((len(talk.stage.pool), bytes(talk.client.heard)), (0, HEARD_OK))


class ClientEndsTests(LawTestCase):
    """Over TLS there are no half-closed connections: a client that ends takes its answer with it."""

    def test_inside_its_upload(self):
        for way in FROM_SECURE_CLIENT:
            for how in ENDS:
                for rest in (b"Content-Length: 6\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
                    talk = Talk(way)
                    talk.ask(b"POST", rest)
                    heard = bytes(talk.origin.heard)
                    end(talk, talk.client, talk.raw, how)
                    self.assertEqual(bytes(talk.origin.heard), heard, "more than the client said")
                    self.assertTrue(self.origin_has_been_left(talk), (way.name, how))
                    self.assertEqual(talk.outcomes, ["client-gone"])
                    self.assert_gone(talk)

    def test_before_its_answer(self):
        for way in FROM_SECURE_CLIENT:
            for how in ENDS:
                talk = Talk(way)
                talk.ask()
                end(talk, talk.client, talk.raw, how)
                self.assertTrue(talk.stage.origin.disconnected, (way.name, how))
                self.assertEqual(talk.outcomes, ["client-gone"])
                self.assert_gone(talk)

    def test_inside_its_answer(self):
        for way in FROM_SECURE_CLIENT:
            for how in ENDS:
                for said in (HALF, CHUNKED, UNTIL_CLOSE):
                    talk = Talk(way)
                    talk.ask()
                    talk.origin.say(said)
                    talk.settle()
                    end(talk, talk.client, talk.raw, how)
                    self.assertTrue(talk.stage.origin.disconnected, (way.name, how))
                    self.assertEqual(talk.outcomes, ["client-gone"])
                    self.assert_gone(talk)

    def test_before_there_is_a_connection_to_the_origin(self):
        for way in FROM_SECURE_CLIENT:
            for how in ENDS:
                talk = Talk(way)
                talk.stage.pool.waits = True
                talk.ask()
                end(talk, talk.client, talk.raw, how)
                self.assertTrue(talk.stage.pool.waiting[0][0].called, (way.name, how))
                self.assertEqual(talk.outcomes, ["client-gone"])
                self.assert_gone(talk)

    def test_behind_its_answer_leaves_the_origins_connection_to_others(self):
        for way in FROM_SECURE_CLIENT:
            for how in ENDS:
                talk = Talk(way)
                talk.ask()
                talk.origin.say(OK)
                talk.settle()
                end(talk, talk.client, talk.raw, how)
                self.assertEqual((len(talk.stage.pool), talk.outcomes), (1, ["forwarded"]), (way.name, how))
                self.assertTrue(talk.raw.disconnected)
                self.assertEqual(talk.stage.proxy.connections, set())
                _, other = talk.new_client()
                talk.ask(client=other)
                self.assertEqual(bytes(talk.origin.heard), GOT + GOT)

    def test_with_a_damaged_record(self):
        for way in FROM_SECURE_CLIENT:
            talk = Talk(way)
            talk.ask(b"POST", b"Content-Length: 6\r\n\r\nabc")
            talk.raw.say(b"\x17\x03\x03\x00\x20" + bytes(32))
            talk.settle()
            self.assertTrue(talk.origin.heard.endswith(b"\r\n\r\nabc"))
            self.assertEqual(talk.outcomes, ["client-gone"], way.name)
            self.assert_gone(talk)

    def origin_has_been_left(self, talk: Talk) -> bool:
        return talk.origin.ended if isinstance(talk.origin, SecurePeer) else talk.stage.origin.disconnected

    def assert_gone(self, talk: Talk) -> None:
        """Nothing of the two connections is left."""
        self.assertTrue(talk.raw.disconnected)
        self.assertEqual(len(talk.stage.pool), 0)
        self.assertEqual(talk.stage.proxy.connections, set())
        for made in talk.stage.pool.made:
            made.end()
            made.take()
        talk.stage.journal.flush()
        self.assertEqual(talk.stage.clock.getDelayedCalls(), [])
