"""What is intercepted, by host, address and server name."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.interception import Decision, Destinations, Interception, destination, is_address
from streamproxy.rules.match import PatternError


def listed(*texts: str) -> Destinations:
    return Destinations(map(destination, texts))


def interception(passthrough: str = "", only: str = "", intercept: bool = True) -> Interception:
    return Interception(intercept, listed(*passthrough.split()), listed(*only.split()))


class DecisionTests(SynchronousTestCase):
    def test_everything_is_intercepted_where_nothing_else_is_said_and_no_name_changes_that(self) -> None:
        for server_name in (None, "a.example", "other.example"):
            found = Interception().decide("a.example", 443, server_name)
            self.assertEqual(found, Decision(True, "tls.intercept: true", True))

    def test_nothing_is_where_intercept_is_false_whatever_the_lists_say(self) -> None:
        for passthrough, only in itertools.product(("", "b.example"), ("", "a.example", "10.0.0.0/8")):
            policy = interception(passthrough, only, intercept=False)
            for host in ("a.example", "b.example", "10.1.1.1"):
                self.assertEqual(policy.decide(host, 443, None), Decision(False, "tls.intercept: false", True))
            self.assertFalse(policy.needs_addresses("a.example"))

    def test_passthrough_holds_for_host_address_or_server_name(self) -> None:
        bank, ten = "tls.passthrough: *.bank.example", "tls.passthrough: 10.0.0.0/8"
        yes = "tls.intercept: true"
        table: list[tuple[str, str | None, tuple[str, ...], Decision]] = [
            ("www.bank.example", None, (), Decision(False, bank, True)),
            ("WWW.Bank.Example.", None, (), Decision(False, bank, True)),
            ("www.bank.example", "other.example", (), Decision(False, bank, True)),
            ("a.example", None, (), Decision(True, yes, False)),
            ("a.example", "www.bank.example", (), Decision(False, bank, True)),
            ("a.example", "WWW.BANK.EXAMPLE", (), Decision(False, bank, True)),
            ("192.0.2.1", "www.bank.example", (), Decision(False, bank, True)),
            ("a.example", "a.example", (), Decision(True, yes, True)),
            ("a.example", None, ("192.0.2.1", "10.2.3.4"), Decision(False, ten, True)),
            ("a.example", None, ("192.0.2.1", "2001:db8::1"), Decision(True, yes, False)),
            ("a.example", None, ("::ffff:10.2.3.4",), Decision(False, ten, True)),
            ("10.9.9.9", None, (), Decision(False, ten, True)),
            ("::ffff:10.9.9.9", None, (), Decision(False, ten, True)),
            ("10.65535", None, (), Decision(False, ten, True)),
            ("0x0a000001", None, (), Decision(False, ten, True)),
            ("11.0.0.1", None, (), Decision(True, yes, False)),
            ("10.0.0.1.example", None, (), Decision(True, yes, False)),
            ("bank.example", None, (), Decision(True, yes, False)),
        ]
        policy = interception("*.bank.example 10.0.0.0/8")
        for host, server_name, addresses, decision in table:
            self.assertEqual(policy.decide(host, 443, server_name, addresses), decision, (host, server_name, addresses))

    def test_only_what_is_listed_is_intercepted_where_anything_is(self) -> None:
        no = "tls.only: not listed"
        dev, range_ = "tls.only: *.dev.example", "tls.only: fd00::/8"
        table: list[tuple[str, str | None, tuple[str, ...], Decision]] = [
            ("a.dev.example", None, (), Decision(True, dev, True)),
            ("a.dev.example", "b.example", (), Decision(True, dev, True)),
            ("b.example", "a.dev.example", (), Decision(True, dev, True)),
            ("b.example", None, (), Decision(False, no, False)),
            ("b.example", "b.example", (), Decision(False, no, True)),
            ("b.example", None, ("192.0.2.1", "fd00::7"), Decision(True, range_, True)),
            ("fd12::1", None, (), Decision(True, range_, True)),
            ("fd12:0::0:1", None, (), Decision(True, range_, True)),
        ]
        policy = interception("", "*.dev.example fd00::/8")
        for host, server_name, addresses, decision in table:
            self.assertEqual(policy.decide(host, 443, server_name, addresses), decision, (host, server_name, addresses))

    def test_passthrough_beats_only(self) -> None:
        policy = interception("secret.dev.example", "*.dev.example")
        self.assertFalse(policy.decide("secret.dev.example", 443, None).intercept)
        self.assertFalse(policy.decide("a.dev.example", 443, "secret.dev.example").intercept)
        self.assertEqual(policy.decide("a.dev.example", 443, None), Decision(True, "tls.only: *.dev.example", False))
        self.assertTrue(policy.decide("a.dev.example", 443, "a.dev.example").intercept)

    def test_a_server_name_is_never_waited_for_where_only_addresses_count(self) -> None:
        self.assertTrue(interception("10.0.0.0/8").decide("a.example", 443, None, ["192.0.2.1"]).final)
        self.assertTrue(interception("", "10.0.0.0/8").decide("a.example", 443, None, ["192.0.2.1"]).final)

    def test_a_port_narrows_a_name_or_an_address_down(self) -> None:
        policy = interception("a.example:8443 192.0.2.7:8443 [fd00::7]:8443 *.b.example:9*")
        table: list[tuple[str, int, str | None, tuple[str, ...], str | None]] = [
            ("a.example", 8443, None, (), "a.example:8443"),
            ("a.example", 443, None, (), None),
            ("c.example", 8443, "a.example", (), "a.example:8443"),
            ("c.example", 443, "a.example", (), None),
            ("192.0.2.7", 8443, None, (), "192.0.2.7:8443"),
            ("192.0.2.7", 443, None, (), None),
            ("c.example", 8443, None, ("192.0.2.7",), "192.0.2.7:8443"),
            ("c.example", 443, None, ("192.0.2.7",), None),
            ("c.example", 8443, None, ("fd00::7",), "[fd00::7]:8443"),
            ("x.b.example", 9443, None, (), "*.b.example:9*"),
            ("x.b.example", 443, None, (), None),
        ]
        for host, port, server_name, addresses, text in table:
            why = f"tls.passthrough: {text}" if text else "tls.intercept: true"
            found = policy.decide(host, port, server_name, addresses)
            self.assertEqual((found.why, found.intercept), (why, text is None), (host, port, addresses))

    def test_an_address_by_itself_counts_for_the_names_that_resolve_to_it(self) -> None:
        for text, address in (("192.0.2.7", "192.0.2.7"), ("FD00::7", "fd00:0::7"), ("[fd00::7]", "fd00::7")):
            policy = interception(text)
            self.assertFalse(policy.decide("a.example", 443, None, [address]).intercept, text)
            self.assertFalse(policy.decide(address, 443, None).intercept, text)
            self.assertTrue(policy.decide("a.example", 443, None, ["192.0.2.8", "fd00::8"]).intercept, text)

    def test_what_is_no_address_among_the_addresses_is_passed_over(self) -> None:
        policy = interception("10.0.0.0/8")
        self.assertFalse(policy.decide("a.example", 443, None, ["", "what", "fe80::1%eth0", "10.0.0.1"]).intercept)
        self.assertFalse(interception("fe80::/10").decide("a.example", 443, None, ["fe80::1%eth0"]).intercept)

    def test_it_decides_the_same_each_time(self) -> None:
        policy = interception("*.bank.example a.example", "10.0.0.0/8")
        for _ in range(3):
            self.assertFalse(policy.decide("a.example", 443, None, ["10.0.0.1"]).intercept)
            self.assertTrue(policy.decide("b.example", 443, None, ["10.0.0.1"]).intercept)
            self.assertFalse(policy.decide("b.example", 443, None, ["11.0.0.1"]).intercept)


LISTS = st.lists(st.sampled_from(["a.example", "*.b.example", "b.example:8443", "10.0.0.0/8", "fd00::/8"]), max_size=3)
HOSTS = st.sampled_from(["a.example", "x.b.example", "b.example", "c.example", "10.1.1.1", "fd00::1", "192.0.2.1"])
PORTS = st.sampled_from([443, 8443])
FOUND = st.lists(st.sampled_from(["10.1.1.1", "fd00::1", "192.0.2.1"]), max_size=2)


class FinalTests(SynchronousTestCase):
    @given(st.booleans(), LISTS, LISTS, HOSTS, PORTS, FOUND)
    def test_what_is_final_is_changed_by_no_server_name_and_what_is_not_has_names_to_wait_for(
        self, intercept: bool, passthrough: list[str], only: list[str], host: str, port: int, addresses: list[str]
    ) -> None:
        policy = Interception(intercept, listed(*passthrough), listed(*only))
        first = policy.decide(host, port, None, addresses)
        names = [each.text for each in (*policy.passthrough.names, *policy.only.names)]
        if not first.final:
            self.assertTrue(names)
            return
        for server_name in ("a.example", "x.b.example", "b.example", "c.example"):
            second = policy.decide(host, port, server_name, addresses)
            self.assertEqual(second.intercept, first.intercept)
            self.assertTrue(second.final)

    @given(st.booleans(), LISTS, LISTS, HOSTS, PORTS, FOUND)
    def test_addresses_change_nothing_where_none_are_needed(
        self, intercept: bool, passthrough: list[str], only: list[str], host: str, port: int, addresses: list[str]
    ) -> None:
        policy = Interception(intercept, listed(*passthrough), listed(*only))
        if is_address(host) or policy.needs_addresses(host):
            return
        with_, without = (policy.decide(host, port, None, found) for found in (addresses, []))
        self.assertEqual(with_.intercept, without.intercept)


class AddressesNeededTests(SynchronousTestCase):
    def test_a_lookup_is_wanted_only_where_a_range_could_decide_and_no_name_does(self) -> None:
        table = [
            ("", "", "a.example", False),
            ("*.bank.example", "", "a.example", False),
            ("10.0.0.0/8", "", "a.example", True),
            ("10.0.0.0/8", "", "10.0.0.1", False),
            ("10.0.0.0/8", "", "::1", False),
            ("10.0.0.0/8", "", "127.1", False),
            ("10.0.0.0/8 a.example", "", "A.example", False),
            ("10.0.0.0/8 a.example:443", "", "a.example", True),
            ("192.0.2.7", "", "a.example", True),
            ("", "10.0.0.0/8", "a.example", True),
            ("", "10.0.0.0/8 a.example", "a.example", False),
            ("", "10.0.0.0/8 a.example", "b.example", True),
            ("a.example", "10.0.0.0/8", "a.example", False),
            ("10.0.0.0/8", "a.example", "a.example", True),
            ("10.0.0.0/8", "a.example", "b.example", True),
        ]
        for passthrough, only, host, needs in table:
            self.assertEqual(interception(passthrough, only).needs_addresses(host), needs, (passthrough, only, host))

    def test_an_address_is_one_in_any_form_that_a_resolver_takes(self) -> None:
        for host in ("127.0.0.1", "127.1", "0x7f000001", "2130706433", "::1", "::ffff:1.2.3.4", "fe80::1%eth0"):
            self.assertTrue(is_address(host), host)
        for host in ("a.example", "1.example", "1.2.3.4.5", "localhost", ""):
            self.assertFalse(is_address(host), host)


class DestinationTests(SynchronousTestCase):
    def test_a_range_is_read_however_it_is_written(self) -> None:
        table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("FD00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7.", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("[::1]", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ]
        for text, network in table:
            (found,) = listed(text).ranges
            self.assertEqual((found.text, found.network), (text, ipaddress.ip_network(network)), text)

    def test_what_can_t_be_meant_is_told(self) -> None:
        range_ = "a host such as *.bank.example, or a range such as 10.0.0.0/8"
        address = "an address such as 192.0.2.7, or a range such as 10.0.0.0/8"
        table = [
            ("10.0.0.1/8", "a range such as 10.0.0.0/8"),
            ("fd00::1/8", "a range such as fd00::/8"),
            ("10.0.0.0/33", range_),
            ("10.0.0.0/", range_),
            ("10/8", range_),
            ("10.0.0.0/255.0.0.0", range_),
            ("http://a.example/", range_),
            ("a.example/8", range_),
            ("10.*", address),
            ("10.*:443", address),
            ("127.1", address),
            ("10", address),
            ("192.0.2.256", address),
            ("fd00::*", address),
            ("[fd00:*]:443", address),
            ("a b", "a host such as *.example.com"),
        ]
        for text, words in table:
            with self.assertRaises(PatternError, msg=text) as caught:
                destination(text)
            self.assertEqual(str(caught.exception), words, text)

    def test_names_that_only_begin_like_an_address_are_names(self) -> None:
        for text in ("10.example", "*", "*.*", "1.2.3.4.example", "?.example", "4*.example"):
            self.assertEqual([name.text for name in listed(text).names], [text])

    @given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
    def test_a_range_holds_what_the_standard_library_says(self, first: int, prefix: int, other: int) -> None:
        network = ipaddress.ip_network((first, prefix), strict=False)
        policy = interception(str(network))
        address = ipaddress.IPv4Address(other)
        self.assertEqual(policy.decide(str(address), 443, None).intercept, address not in network)
        self.assertEqual(policy.decide(f"::ffff:{address}", 443, None).intercept, address not in network)
        self.assertFalse(policy.decide("a.example", 443, None, [str(network[-1])]).intercept)

    @given(st.text(max_size=20))
    def test_any_text_is_read_or_refused_in_words(self, text: str) -> None:
        try:
            destination(text)
        except PatternError as error:
            self.assertTrue(str(error))
