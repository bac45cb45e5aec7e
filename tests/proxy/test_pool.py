"""Connections to origins: which idle one is handed out, how many are kept and for how long."""

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import pool as pool_module
from streamproxy.proxy.pool import Pool
from streamproxy.proxy.route import Route, direct
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.settings import Settings
from streamproxy.wire.message import Origin
from tests.conversation import Stage, settings_of
from tests.fakes import BoundedTransport

A = direct(Origin("http", "192.0.2.1", 80))
B = direct(Origin("http", "192.0.2.2", 80))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class PoolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.settings = Settings()
        self.pool = Pool(self.reactor, self.settings)
        self.made: list[BoundedTransport] = []

    def connection(self, route: Route = A) -> UpstreamConnection:
        connection = self.pool.new_connection(route, 0)
        self.made.append(BoundedTransport().connect(connection))
        return connection

    def idle(self, route: Route = A) -> UpstreamConnection:
        connection = self.connection(route)
        self.pool.give(connection)
        return connection

    def closed(self) -> list[bool]:
        for made in self.made:
            made.take()
        return [made.disconnected for made in self.made]


class HandingOutTests(PoolTestCase):
    def test_the_one_last_used_comes_first(self):
        first, second, third = self.idle(), self.idle(), self.idle()
        self.assertEqual([self.pool.take(A) for _ in range(4)], [third, second, first, None])

    def test_each_origin_and_each_way_to_it_has_its_own(self):
        a = self.idle(A)
        origin = A.origin
        others = (origin._replace(port=81), origin._replace(scheme="https"), origin._replace(host="192.0.2.10"))
        for other in (B, *map(direct, others), Route(origin, "192.0.2.10")):
            self.assertIsNone(self.pool.take(other))
        self.assertIs(self.pool.take(A), a)

    def test_one_is_handed_out_once(self):
        self.idle()
        self.assertIsNotNone(self.pool.take(A))
        self.assertIsNone(self.pool.take(A))
        self.assertEqual(len(self.pool), 0)

    def test_one_that_ends_while_it_is_idle_is_not_handed_out_and_is_closed(self):
        for leave in (BoundedTransport.end, BoundedTransport.reset):
            first, second = self.idle(), self.idle()
            leave(second.transport)
            self.assertIs(self.pool.take(A), first)
            self.assertIsNone(self.pool.take(A))
            second.transport.take()
            self.assertTrue(second.transport.disconnected)

    def test_one_that_speaks_unasked_is_not_handed_out_and_is_reset(self):
        connection = self.idle()
        connection.transport.say(OK)
        self.assertTrue(connection.transport.aborted)
        self.assertIsNone(self.pool.take(A))
        self.assertEqual(len(self.pool), 0)

    def test_what_was_forgotten_may_be_forgotten_again(self):
        first, second = self.idle(), self.idle()
        for _ in range(2):
            self.pool.forget(first)
        self.assertEqual((len(self.pool), self.pool.take(A)), (1, second))


class LimitTests(PoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(pool_module, "MOST_FOR_ONE", 2)
        self.patch(pool_module, "MOST", 3)

    def test_one_too_many_for_one_origin_is_closed(self):
        first, second, _third = self.idle(), self.idle(), self.idle()
        self.assertEqual(self.closed(), [False, False, True])
        self.assertEqual([self.pool.take(A), self.pool.take(A)], [second, first])

    def test_one_too_many_in_all_makes_the_longest_idle_leave(self):
        _a1, a2, b1 = self.idle(A), self.idle(A), self.idle(B)
        b2 = self.idle(B)
        self.assertEqual(self.closed(), [True, False, False, False])
        self.assertEqual(len(self.pool), 3)
        self.assertEqual([self.pool.take(A), self.pool.take(B), self.pool.take(B)], [a2, b2, b1])
        self.assertIsNone(self.pool.take(A))

    def test_the_longest_idle_is_the_one_given_back_the_longest_ago(self):
        a, b = self.idle(A), self.idle(B)
        self.assertIs(self.pool.take(A), a)
        self.pool.give(a)
        self.idle(A)
        self.idle(B)
        self.assertEqual(self.closed(), [False, True, False, False])
        self.assertNotEqual(self.pool.take(B), b)

    def test_the_longest_idle_may_be_the_only_one_of_the_same_origin(self):
        self.patch(pool_module, "MOST", 1)
        self.idle(A)
        second = self.idle(A)
        self.assertEqual((len(self.pool), self.closed()), (1, [True, False]))
        self.assertIs(self.pool.take(A), second)
        self.assertIsNone(self.pool.take(A))


class TimeTests(PoolTestCase):
    def test_one_is_kept_for_the_keepalive_time_and_no_longer(self):
        first = self.idle()
        self.reactor.advance(self.settings.timeouts.keepalive / 2)
        second = self.idle()
        self.reactor.advance(self.settings.timeouts.keepalive / 2)
        self.assertEqual(self.closed(), [True, False])
        self.assertFalse(first.reusable)
        self.reactor.advance(self.settings.timeouts.keepalive / 2)
        self.assertEqual(self.closed(), [True, True])
        self.assertFalse(second.reusable)
        self.assertIsNone(self.pool.take(A))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_was_used_meanwhile_is_kept_anew(self):
        self.idle()
        self.reactor.advance(self.settings.timeouts.keepalive - 1)
        self.pool.give(self.pool.take(A))
        self.reactor.advance(self.settings.timeouts.keepalive - 1)
        self.assertEqual(self.closed(), [False])
        self.reactor.advance(1)
        self.assertEqual(self.closed(), [True])

    def test_one_that_does_not_close_in_time_is_reset(self):
        connection = self.connection()
        # Something still waits to be sent, and its reader is gone.
        connection.transport.write(b"rest")
        self.pool.give(connection)
        self.pool.close()
        self.assertFalse(connection.transport.disconnected)
        self.reactor.advance(10)
        self.assertTrue(connection.transport.aborted)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closing_closes_all_and_leaves_no_delayed_call(self):
        for route in (A, A, B):
            self.idle(route)
        self.pool.close()
        self.assertEqual(self.closed(), [True] * 3)
        self.assertEqual(len(self.pool), 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nothing_is_left_behind_after_a_real_exchange_either(self):
        stage = Stage(settings_of())
        client = stage.client()
        client.say(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        stage.settle(client)
        stage.origin.say(OK)
        stage.settle(client)
        self.assertEqual(len(stage.pool), 1)
        stage.pool.close()
        client.end()
        stage.settle(client)
        self.assertTrue(stage.origin.disconnected and client.disconnected)
        self.assertEqual((len(stage.pool), stage.clock.getDelayedCalls()), (0, []))


class ConnectingTests(PoolTestCase):
    def test_what_was_connected_is_the_callers_and_not_idle(self):
        connecting = self.pool.connect(A)
        self.reactor.advance(0)
        factory = self.reactor.tcpClients[0][2]
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(BoundedTransport())
        connection = self.successResultOf(connecting)
        self.assertIsInstance(connection, UpstreamConnection)
        self.assertEqual((connection.route, len(self.pool)), (A, 0))
        self.assertEqual(self.reactor.tcpClients[0][3], self.settings.timeouts.connect)
