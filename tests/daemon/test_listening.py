"""Listeners: opened all or none, left alone where nothing changed, and what is said of those that can't be had."""

from __future__ import annotations

import errno
import socket

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon.listening import (
    BACKLOG,
    CannotListen,
    Listeners,
    is_beyond_loopback,
    missing_access,
    places,
    with_backlog,
    words,
)
from streamproxy.daemon.systemd import InheritedSocket
from tests.conversation import settings_of

ONE, TWO, THREE = (f"tcp:{port}:interface=127.0.0.1" for port in (8001, 8002, 8003))


class FakePort:
    def __init__(self, host: str = "127.0.0.1", port: int = 0, address: object = None) -> None:
        self.address = address or IPv4Address("TCP", host, port)
        self.is_open = True

    def getHost(self):
        return self.address

    def stopListening(self) -> None:
        assert self.is_open
        self.is_open = False


class Reactor(MemoryReactorClock):
    """Opens `FakePort`s, kept in `opened`; those of `taken` are in use."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[FakePort] = []
        self.taken: set[int] = set()
        self.backlogs: list[int] = []
        self.adopted: list[tuple[int, int]] = []

    def listenTCP(self, port, factory, backlog=50, interface=""):
        if port in self.taken:
            raise CannotListenError(interface, port, OSError(errno.EADDRINUSE, "Address already in use"))
        self.backlogs.append(backlog)
        self.opened.append(FakePort(interface, port))
        return self.opened[-1]

    def adoptStreamPort(self, descriptor, family, factory):
        self.adopted.append((descriptor, family))
        self.opened.append(FakePort())
        return self.opened[-1]

    @property
    def listening(self) -> list[int]:
        return [port.getHost().port for port in self.opened if port.is_open]


class ListenersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.factory = Factory()
        self.inherited: dict[str, list[InheritedSocket]] = {}
        self.listeners = Listeners(self.reactor, self.inherited)

    def want(self, *descriptions: str) -> list[int]:
        """Have these; the ports that were closed."""
        wanted = dict.fromkeys(places(descriptions), self.factory)
        opened = self.listeners.prepare(wanted)
        return [port.getHost().port for port in self.listeners.keep(opened, wanted)]

    def refused(self, *descriptions: str) -> str:
        """Why these can't be had."""
        error = self.assertRaises(CannotListen, self.want, *descriptions)
        return str(error)

    def test_what_is_wanted_is_opened(self):
        self.want(ONE, TWO)
        self.assertEqual(self.reactor.listening, [8001, 8002])
        self.assertEqual(self.listeners.ports, self.reactor.opened)

    def test_what_is_open_already_is_not_touched(self):
        self.want(ONE, TWO)
        first = list(self.reactor.opened)
        self.want(TWO, ONE)
        self.assertEqual(self.reactor.opened, first)

    def test_what_is_not_wanted_any_more_is_closed(self):
        self.want(ONE, TWO)
        self.assertEqual(self.want(TWO, THREE), [8001])
        self.assertEqual(self.reactor.listening, [8002, 8003])

    def test_equal_ones_are_as_many(self):
        self.want("tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1")
        self.assertEqual(len(self.reactor.opened), 2)
        self.want("tcp:0:interface=127.0.0.1")
        self.assertEqual(len(self.reactor.listening), 1)
        self.assertTrue(self.reactor.opened[0].is_open)

    def test_when_one_cannot_be_had_all_is_as_it_was(self):
        self.want(ONE)
        self.reactor.taken = {8003}
        self.assertIn("Address already in use", self.refused(TWO, THREE))
        self.assertEqual(self.reactor.listening, [8001])
        self.assertEqual(len(self.listeners.ports), 1)
        self.reactor.taken.clear()
        self.want(TWO, THREE)
        self.assertEqual(self.reactor.listening, [8002, 8003])

    def test_the_reason_names_the_endpoint(self):
        self.reactor.taken = {8001}
        why = self.refused(ONE)
        self.assertTrue(why.startswith("Address already in use: "), why)
        self.assertIn(ONE, why)
        self.assertIn("can't be had", self.refused("systemd:domain=INET:index=7"))

    def test_a_replacement_at_the_same_address_is_told_to_need_a_restart(self):
        self.want(ONE)
        self.reactor.taken = {8001}
        self.assertIn("that takes a restart", self.refused("tcp:8001:interface=127.0.0.2"))

    def test_one_place_can_be_closed(self):
        self.want(ONE, TWO)
        self.listeners.close((ONE, 0))
        self.listeners.close((ONE, 0))
        self.assertEqual(self.reactor.listening, [8002])
        self.assertEqual(self.listeners.ports_of((ONE, 0)), [])

    def test_all_of_systemds_sockets_by_a_name_are_taken(self):
        sockets = [InheritedSocket(3, socket.AF_INET), InheritedSocket(5, socket.AF_INET6)]
        self.inherited["proxy"] = sockets
        self.want("systemd:name=proxy")
        self.assertEqual(self.reactor.adopted, [tuple(each) for each in sockets])
        self.assertEqual(len(self.listeners.ports_of(("systemd:name=proxy", 0))), 2)

    def test_those_can_be_had_again(self):
        self.inherited["proxy"] = [InheritedSocket(3, socket.AF_INET)]
        for _ in range(2):
            self.want("systemd:name=proxy", ONE)
            self.want(ONE)
        self.assertEqual(self.reactor.adopted, [(3, socket.AF_INET)] * 2)

    def test_a_name_that_systemd_did_not_give_is_told_with_those_that_it_did(self):
        self.assertTrue(self.refused("systemd:name=proxy").endswith("gave: none"))
        self.inherited.update(one=[InheritedSocket(3, socket.AF_INET)], two=[InheritedSocket(4, socket.AF_INET)])
        why = self.refused("systemd:name=proxy")
        self.assertEqual(why, "listen: systemd gave no socket by the name proxy; those that it gave: one, two")

    def test_a_unix_socket_of_systemds_is_refused(self):
        self.inherited["proxy"] = [InheritedSocket(3, socket.AF_UNIX)]
        self.assertIn("unix socket", self.refused("systemd:name=proxy"))


class WordsTests(SynchronousTestCase):
    def test_many_may_wait_to_be_accepted_where_nothing_else_is_said(self):
        self.assertEqual(with_backlog(ONE), f"{ONE}:backlog={BACKLOG}")
        for given in (f"{ONE}:backlog=5", "unix:/run/socket", "systemd:name=proxy", "haproxy:tcp:80"):
            self.assertEqual(with_backlog(given), given)
        reactor = Reactor()
        listeners = Listeners(reactor, {})
        listeners.prepare(dict.fromkeys(places([ONE, f"{TWO}:backlog=5"]), Factory()))
        self.assertEqual(reactor.backlogs, [BACKLOG, 5])

    def test_where_it_listens_is_shown_as_one_would_write_it(self):
        self.assertEqual(words(FakePort("127.0.0.1", 8080)), "127.0.0.1:8080")
        self.assertEqual(words(FakePort(address=IPv6Address("TCP", "::1", 8080))), "[::1]:8080")
        self.assertIn("/run/socket", words(FakePort(address=UNIXAddress("/run/socket"))))

    def test_what_others_than_this_machine_reach_is_told_by_the_address(self):
        for host, beyond in (
            ("127.0.0.1", False),
            ("127.8.9.1", False),
            ("0.0.0.0", True),
            ("192.0.2.1", True),
            ("::1", False),
            ("::ffff:127.0.0.1", False),
            ("::", True),
            ("::ffff:192.0.2.1", True),
        ):
            kind = IPv6Address if ":" in host else IPv4Address
            self.assertEqual(is_beyond_loopback(FakePort(address=kind("TCP", host, 8080))), beyond, host)
        self.assertFalse(is_beyond_loopback(FakePort(address=UNIXAddress("/run/socket"))))

    def test_what_is_missing_there_is_told_by_its_keys(self):
        self.assertEqual(missing_access(settings_of(), False), "expected access.allow or access.htpasswd")
        self.assertEqual(missing_access(settings_of(), True), "expected admin.token_file")
        self.assertIsNone(missing_access(settings_of("access: {allow: 10.0.0.0/8}"), False))
        self.assertIsNone(missing_access(settings_of("admin: false"), True))
