"""Connecting to a host by its name or its address."""

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.dial import NEXT_ATTEMPT, Dial
from streamproxy.proxy.lookups import TIMES, Lookups
from tests.fakes import BoundedTransport


class Resolution:
    """Twisted's, which can't be cancelled."""

    def cancel(self):
        raise NotImplementedError


class Resolver:
    """Answers when it is told to."""

    def __init__(self):
        self.asked = []
        self.receivers = []

    def resolveHostName(self, receiver, name, port=0):
        self.asked.append(name)
        self.receivers.append(receiver)
        receiver.resolutionBegan(Resolution())

    def answer(self, *hosts, number=-1):
        receiver = self.receivers.pop(number)
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


class DialTests(SynchronousTestCase):
    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.resolver = self.reactor.nameResolver = Resolver()
        self.lookups = Lookups(self.reactor, 2)

    def dial(self, host, timeout=10):
        self.outcome = Dial(self.reactor, self.lookups, host, 80, Factory.forProtocol(Protocol), timeout).start()
        return self.outcome

    @property
    def tried(self):
        return [attempt[0] for attempt in self.reactor.tcpClients]

    def refuse(self, number):
        factory = self.reactor.tcpClients[number][2]
        factory.clientConnectionFailed(self.reactor.connectors[number], Failure(error.ConnectionRefusedError()))

    def connect(self, number):
        protocol = self.reactor.tcpClients[number][2].buildProtocol(None)
        protocol.makeConnection(BoundedTransport())

    def assert_nothing_left(self):
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_an_address_is_not_looked_up(self):
        for host in ("192.0.2.1", "2001:db8::1"):
            self.dial(host)
            self.assertEqual((self.resolver.asked, self.tried[-1]), ([], host))

    def test_a_name_is_looked_up_even_one_with_an_underscore(self):
        for name in ("a.example", "my_app", "a_b.example"):
            self.dial(name)
            self.assertEqual(self.resolver.asked[-1], name)
            self.resolver.answer("192.0.2.1")
            self.assertEqual(self.tried[-1], "192.0.2.1")

    def test_what_was_connected_is_given_and_nothing_is_left(self):
        self.dial("a.example")
        self.resolver.answer("192.0.2.1", "192.0.2.2")
        self.connect(0)
        self.assertIsNotNone(self.successResultOf(self.outcome))
        self.assert_nothing_left()
        self.reactor.advance(1)
        self.assertEqual(self.tried, ["192.0.2.1"])

    def test_a_refusal_is_told_in_the_same_turn(self):
        self.dial("192.0.2.1")
        self.refuse(0)
        self.failureResultOf(self.outcome, error.ConnectionRefusedError)
        self.assert_nothing_left()

    def test_the_next_address_is_tried_as_soon_as_one_is_refused(self):
        self.dial("a.example")
        self.resolver.answer("192.0.2.1", "192.0.2.2")
        self.refuse(0)
        self.assertEqual(self.tried, ["192.0.2.1", "192.0.2.2"])
        self.connect(1)
        self.successResultOf(self.outcome)
        self.assert_nothing_left()

    def test_the_next_address_is_tried_beside_one_that_says_nothing(self):
        self.dial("a.example")
        self.resolver.answer("192.0.2.1", "192.0.2.2", "192.0.2.3")
        self.reactor.advance(NEXT_ATTEMPT)
        self.assertEqual(self.tried, ["192.0.2.1", "192.0.2.2"])
        self.connect(0)
        self.successResultOf(self.outcome)
        self.assertTrue(self.reactor.connectors[1].stoppedConnecting)
        self.assert_nothing_left()

    def test_the_families_take_turns(self):
        self.dial("a.example")
        self.resolver.answer("2001:db8::1", "2001:db8::2", "192.0.2.1")
        for number in range(3):
            self.refuse(number)
        self.assertEqual(self.tried, ["2001:db8::1", "192.0.2.1", "2001:db8::2"])
        self.failureResultOf(self.outcome, error.ConnectionRefusedError)

    def test_a_name_without_an_address_fails_as_that(self):
        self.dial("a.example")
        self.resolver.answer()
        self.failureResultOf(self.outcome, error.DNSLookupError)
        self.assert_nothing_left()

    def test_a_name_that_no_resolver_could_know_fails_at_once(self):
        for name in ("a..example", "x" * 64 + ".example"):
            self.dial(name)
            self.failureResultOf(self.outcome, error.DNSLookupError)
        self.assertEqual(self.resolver.asked, [])
        self.assert_nothing_left()

    def test_the_whole_has_its_time(self):
        self.dial("a.example")
        self.reactor.advance(6)
        self.resolver.answer("192.0.2.1")
        self.reactor.advance(5)
        self.failureResultOf(self.outcome, error.TimeoutError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assert_nothing_left()

    def test_a_resolver_that_never_answers_has_that_time_too(self):
        self.dial("a.example")
        self.reactor.advance(11)
        self.failureResultOf(self.outcome, error.TimeoutError)
        self.assert_nothing_left()
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.tried, [])

    def test_who_cancels_leaves_no_attempt_behind(self):
        self.dial("a.example")
        self.resolver.answer("192.0.2.1", "192.0.2.2")
        self.outcome.cancel()
        self.failureResultOf(self.outcome, CancelledError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assert_nothing_left()

    def test_who_cancels_while_the_name_is_looked_up_is_forgotten(self):
        self.dial("a.example")
        self.outcome.cancel()
        self.failureResultOf(self.outcome, CancelledError)
        self.assert_nothing_left()
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.tried, [])

    def test_a_name_is_looked_up_once_for_all_who_ask_for_it(self):
        for _ in range(5):
            self.dial("a.example")
        self.assertEqual(self.resolver.asked, ["a.example"])
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.tried, ["192.0.2.1"] * 5)
        self.dial("a.example")
        self.assertEqual(self.resolver.asked, ["a.example"] * 2)

    def test_no_more_are_looked_up_at_a_time_than_there_are_threads(self):
        for number in range(4):
            self.dial(f"{number}.example")
        self.assertEqual(self.resolver.asked, ["0.example", "1.example"])
        self.resolver.answer("192.0.2.1", number=0)
        self.assertEqual(self.resolver.asked[2:], ["2.example"])

    def test_a_lookup_that_nobody_waits_for_any_more_keeps_nobody_waiting(self):
        gone = [self.dial(f"{number}.example") for number in range(100)]
        self.dial("wanted.example")
        for outcome in gone:
            outcome.cancel()
            self.failureResultOf(outcome, CancelledError)
        # Though those that were begun have no answer.
        self.reactor.advance(0)
        self.assertEqual(self.resolver.asked, ["0.example", "1.example", "wanted.example"])
        self.resolver.answer("192.0.2.1", number=2)
        self.assertEqual(self.tried, ["192.0.2.1"])

    def test_one_that_is_asked_for_again_while_it_hangs_is_the_same(self):
        first = self.dial("a.example")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.dial("a.example")
        self.reactor.advance(0)
        self.assertEqual(self.resolver.asked, ["a.example"])
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.tried, ["192.0.2.1"])

    def test_what_was_looked_up_before_is_what_is_connected_to(self):
        factory = Factory.forProtocol(Protocol)
        Dial(self.reactor, self.lookups, "a.example", 80, factory, 10, None, ("192.0.2.7",)).start()
        self.assertEqual((self.resolver.asked, self.tried), ([], ["192.0.2.7"]))

    def test_there_is_an_end_of_those_that_hang(self):
        for number in range(100):
            dialled = self.dial(f"{number}.example")
            dialled.cancel()
            self.failureResultOf(dialled, CancelledError)
            self.reactor.advance(0)
        self.assertEqual(len(self.resolver.asked), TIMES * 2)
