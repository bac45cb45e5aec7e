"""What the proxy holds of all bodies and messages together has a limit, is counted, and is given back."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.tap import Budget
from streamproxy.memory import Memory
from streamproxy.wire.websocket import INTERNAL_ERROR, TEXT
from tests.conversation import Stage, settings_of
from tests.fakes import BoundedTransport
from tests.proxy.test_faults import GET, HEARD_OK, OK
from tests.proxy.websocket_talk import asking, frames_of, granted, granting, up

KIB = 1 << 10
UPLOAD = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n"
SHORT = b"the proxy holds as much as limits.memory lets it"


class MemoryTestCase(SynchronousTestCase):
    def open(self, rules: str = "", limit: int = 64 * KIB) -> BoundedTransport:
        """A client of a proxy that may hold `limit` bytes."""
        self.stage = Stage(settings_of(rules))
        self.memory = self.stage.proxy.memory
        self.memory.limit = limit
        self.client = self.stage.client()
        return self.client

    def settle(self) -> None:
        self.stage.settle(self.client)

    def assert_all_given_back(self) -> None:
        for made in [self.client, *self.stage.pool.made]:
            made.reset()
        self.settle()
        self.assertEqual(self.memory.held, 0)

    def assert_refused(self) -> None:
        self.settle()
        self.assertIn(b"HTTP/1.1 503 ", self.client.heard)
        self.assertIn(SHORT, self.client.heard)
        self.assertEqual(self.stage.journal.flows[-1].outcome, "refused")
        self.assertGreaterEqual(self.memory.refused, 1)
        self.assert_all_given_back()


class HeldBodyTests(MemoryTestCase):
    def test_a_request_that_would_not_fit_is_refused_and_its_origin_hears_nothing(self) -> None:
        client = self.open("hold: always")
        client.say(UPLOAD % (100 * KIB) + bytes(60 * KIB))
        # With the head.
        self.assertEqual(self.memory.held // KIB, 60)
        client.say(bytes(5 * KIB))
        self.assertEqual(self.stage.pool.dialled, [])
        self.assert_refused()

    def test_a_response_that_would_not_fit_is_refused(self) -> None:
        client = self.open("hold: always")
        client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 102400\r\n\r\n" + bytes(60 * KIB))
        self.stage.origin.say(bytes(5 * KIB))
        self.assert_refused()

    def test_many_together_may_hold_no_more_than_one(self) -> None:
        first = self.open("hold: always")
        first.say(UPLOAD % (100 * KIB) + bytes(40 * KIB))
        second = self.stage.client()
        second.say(UPLOAD % (100 * KIB) + bytes(40 * KIB))
        self.stage.settle(second)
        self.assertIn(SHORT, second.heard)
        self.assertEqual(first.heard, b"")
        second.reset()
        self.assert_all_given_back()

    def test_it_counts_until_it_has_gone(self) -> None:
        client = self.open("hold: always")
        client.say(UPLOAD % (10 * KIB) + bytes(10 * KIB))
        self.assertGreaterEqual(self.memory.held, 10 * KIB)
        self.settle()
        self.stage.origin.say(OK)
        self.settle()
        self.assertEqual(bytes(client.heard), HEARD_OK)
        self.assertEqual(self.memory.held, 0)

    def test_one_that_is_let_go_counts_no_longer_when_what_was_kept_has_gone(self) -> None:
        client = self.open("hold: always\nstream_large_bodies: 8k")
        client.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.say(b"1000\r\n" + bytes(4 * KIB) + b"\r\n")
        self.assertGreaterEqual(self.memory.held, 4 * KIB)
        client.say(b"3000\r\n" + bytes(12 * KIB) + b"\r\n")
        self.settle()
        self.assertLess(self.memory.held, KIB)

    def test_its_chunks_count_as_well(self) -> None:
        client = self.open("hold: always", 4 * KIB)
        client.say(b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.say(b"1\r\na\r\n" * 500)
        self.assert_refused()


class StreamTests(MemoryTestCase):
    def test_what_waits_for_a_slow_reader_counts_until_it_is_read(self) -> None:
        client = self.open(limit=1 << 30)
        client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(200_000))
        self.assertGreaterEqual(self.memory.held, 190_000)
        self.assertLess(self.memory.held, 300_000)
        self.settle()
        self.assertLess(self.memory.held, KIB)

    def test_one_that_goes_away_leaves_nothing(self) -> None:
        client = self.open(limit=1 << 30)
        client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(200_000))
        self.assert_all_given_back()

    def test_with_no_memory_left_new_requests_are_refused_and_those_under_way_go_on(self) -> None:
        first = self.open(limit=100 * KIB)
        first.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000))
        for request in (GET, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"):
            second = self.stage.client()
            second.say(request)
            self.stage.turn()
            self.assertIn(SHORT, bytes(second.take()))
            second.reset()
        self.settle()
        self.assertTrue(bytes(first.heard).endswith(bytes(200_000)))
        third = self.stage.client()
        third.say(GET)
        self.stage.origin.say(OK)
        self.stage.settle(third)
        self.assertEqual(bytes(third.heard), HEARD_OK)
        third.reset()
        self.assert_all_given_back()

    def test_a_slow_network_that_a_rule_makes_counts(self) -> None:
        client = self.open("rules: [{response: {pace: {rate: 1k}}}]", 1 << 30)
        client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000))
        self.assertGreaterEqual(self.memory.held, 90_000)
        self.assert_all_given_back()


class HeadTests(MemoryTestCase):
    def test_heads_that_never_end_are_refused_when_there_are_too_many(self) -> None:
        self.open(limit=30 * KIB)
        clients = [self.client, self.stage.client(), self.stage.client()]
        for client in clients:
            client.say(b"GET http://a.example/ HTTP/1.1\r\nX: " + b"x" * 15000)
        heard = [bytes(client.take()) for client in clients]
        self.assertEqual([SHORT in each for each in heard], [False, False, True])
        for client in clients:
            client.reset()
        self.assert_all_given_back()

    def test_heads_count_as_long_as_their_exchange_lasts(self) -> None:
        client = self.open(limit=1 << 30)
        client.say(b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nX: " + b"x" * 15000 + b"\r\n\r\n")
        request = self.memory.held
        self.assertGreaterEqual(request, 45000)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * 15000 + b"\r\n\r\no")
        self.settle()
        self.assertGreaterEqual(self.memory.held - request, 45000)
        self.stage.origin.say(b"k")
        self.settle()
        self.assertEqual(self.memory.held, 0)

    def test_what_is_said_before_a_tunnel_is_decided_counts(self) -> None:
        client = self.open()
        self.stage.pool.waits = True
        client.say(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n" + bytes(8000))
        self.assertGreaterEqual(self.memory.held, 8000)
        self.assert_all_given_back()

    def test_the_head_of_a_response_counts(self) -> None:
        client = self.open()
        client.say(GET)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 15000)
        self.assertGreaterEqual(self.memory.held, 15000)
        self.assert_all_given_back()


class FilterTests(MemoryTestCase):
    RULES = "rules: [{request: {replace: [{regex: 'a[^z]*z', with: c}], hold_back: 64k}}]"

    def test_what_a_replacement_keeps_back_counts(self) -> None:
        client = self.open(self.RULES, 1 << 30)
        client.say(UPLOAD % 50_000 + b"a" * 20_000)
        client.say(b"a" * 10_000)
        # As far as it was kept when this read came.
        self.assertGreaterEqual(self.memory.held, 20_000)
        client.say(b"z" * 20_000)
        self.settle()
        self.stage.origin.say(OK)
        self.settle()
        self.assertEqual(bytes(client.heard), HEARD_OK)
        self.assertEqual(self.memory.held, 0)

    def test_it_is_refused_where_it_would_not_fit(self) -> None:
        client = self.open(self.RULES, 8 * KIB)
        client.say(UPLOAD % 50_000 + b"a" * 20_000)
        client.say(b"a" * 10_000)
        self.assert_refused()


class CaptureTests(SynchronousTestCase):
    def test_captures_take_of_it_and_are_cut_where_there_is_none(self) -> None:
        memory = Memory(100)
        budget = Budget(80, memory)
        self.assertEqual(budget.take(60), 60)
        self.assertEqual(memory.held, 60)
        self.assertTrue(memory.take(30))
        self.assertEqual(budget.take(15), 0)
        budget.give_back(60)
        self.assertEqual((memory.held, budget.left), (30, 80))


class WebSocketTests(MemoryTestCase):
    def open_socket(self, limit: int) -> None:
        self.open(limit=limit)
        self.client.say(asking())
        self.settle()
        self.stage.origin.say(granting())
        self.settle()
        self.assertEqual(bytes(self.client.heard), granted())

    def test_a_message_that_would_not_fit_closes_both_sides(self) -> None:
        self.open_socket(16 * KIB)
        self.client.say(up(TEXT, b"x" * 10_000, False))
        self.assertEqual(self.memory.held, 10_000)
        self.client.say(up(0, b"x" * 10_000, False))
        self.settle()
        (closed,) = frames_of(bytes(self.client.heard)[len(granted()) :], False)
        self.assertEqual(closed.payload[:2], INTERNAL_ERROR.to_bytes(2))
        self.assert_all_given_back()

    def test_a_message_that_has_gone_counts_no_longer(self) -> None:
        self.open_socket(16 * KIB)
        self.client.say(up(TEXT, b"x" * 10_000, False))
        self.client.say(up(0, b"x", True))
        self.settle()
        self.assertEqual(self.memory.held, self.stage.proxy.settings.limits.captures - self.stage.proxy.recording.left)
        self.assert_all_given_back()
