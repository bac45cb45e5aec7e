"""Who may use the proxy and where it may lead them: what may be written under `access`, and what it means."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.access import Access, Clients, Origins
from streamproxy.rules.endpoint import beyond_loopback
from streamproxy.rules.interception import Destinations, destination
from tests.rules.reading import errors, read

HASH = "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"


def access(text: str) -> Access:
    return read(f"access: {{{text}}}").access.as_data()


def origins(text: str) -> Origins:
    return access(f"origins: {{{text}}}").origins


class ClientsTests(SynchronousTestCase):
    def test_without_a_list_anybody_may_come(self) -> None:
        for text in ("allow: []", "allow: ", ""):
            allow = access(text).allow
            self.assertFalse(allow)
            self.assertTrue(allow.admit("192.0.2.7") and allow.admit("2001:db8::7"))

    def test_with_one_only_those_who_are_listed(self) -> None:
        allow = access("allow: [192.0.2.7, 10.0.0.0/8, '2001:db8::/32']").allow
        for address in ("192.0.2.7", "10.255.0.1", "2001:db8:1::1"):
            self.assertTrue(allow.admit(address), address)
        for address in ("192.0.2.8", "11.0.0.1", "2001:db9::1", "127.0.0.1", "::1"):
            self.assertFalse(allow.admit(address), address)

    def test_an_ipv4_client_of_an_ipv6_listener_is_what_it_is(self) -> None:
        allow = access("allow: [10.0.0.0/8]").allow
        self.assertTrue(allow.admit("::ffff:10.0.0.1"))
        self.assertFalse(allow.admit("::ffff:11.0.0.1"))
        self.assertTrue(access("allow: ['::ffff:10.0.0.0/104']").allow.admit("10.0.0.1"))

    def test_the_zone_of_a_client_does_not_matter(self) -> None:
        self.assertTrue(access("allow: ['fe80::/10']").allow.admit("fe80::1%eth0"))

    def test_what_is_no_address_is_refused(self) -> None:
        words = "expected an address such as 192.0.2.7, or a range such as 10.0.0.0/8, got"
        for written in ("a.example", "10.0.0.0/33", "192.0.2.7:80", "'10.*'", "3.5", "''"):
            shown = written if written[0] in "'3" else f"'{written}'"
            self.assertEqual(errors(f"access: {{allow: [{written}]}}"), [f"1:18: access.allow[0]: {words} {shown}"])

    def test_a_limit_is_a_list_or_a_password_file(self) -> None:
        self.assertFalse(Access().is_limited)
        self.assertTrue(Access(Clients([destination("10.0.0.0/8")])).is_limited)  # type: ignore[list-item]
        self.assertTrue(Access(users={"ann": HASH.encode()}).is_limited)
        self.assertFalse(Access(origins=Origins(Destinations([destination("a.example")]))).is_limited)


class HtpasswdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def read(self, content: str | bytes) -> dict[str, bytes]:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        users = access(f"htpasswd: {self.path}").users
        assert users is not None
        return dict(users)

    def refused(self, content: str | bytes) -> str:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        (error,) = errors(f"access: {{htpasswd: {self.path}}}")
        return error.partition(f"{self.path}:")[2]

    def test_users_are_read_with_what_is_kept_of_their_passwords(self) -> None:
        found = self.read(f"# people\nann:{HASH}\n\n  bob:{HASH}  \r\nJörg Ö:{HASH}")
        self.assertEqual(found, dict.fromkeys(("ann", "bob", "Jörg Ö"), HASH.encode()))

    def test_each_form_that_tools_write_is_taken(self) -> None:
        for kind in ("2a", "2b", "2y"):
            self.read(f"ann:${kind}{HASH[3:]}")
        for cost in ("04", "10", "16"):
            self.read(f"ann:$2y${cost}{HASH[6:]}")

    def test_other_hashes_are_refused_with_their_line(self) -> None:
        words = ": expected a bcrypt hash of cost 4 to 16, as htpasswd -B makes it"
        for kept in (
            "$apr1$abcdefgh$0123456789012345678901",
            "{SHA}0123456789",
            "secret",
            "",
            HASH[:-1],
            HASH + "x",
            HASH.replace("2y", "2x"),
            HASH.replace("$05", "$03"),
            HASH.replace("$05", "$17"),
            # A salt that the library wouldn't take.
            HASH[:28] + "z" + HASH[29:],
        ):
            self.assertEqual(self.refused(f"ann:{HASH}\nbob:{kept}\n"), "2" + words, kept)

    def test_what_no_client_could_send_as_a_name_is_refused(self) -> None:
        self.assertEqual(self.refused(f"ann\n:{HASH}"), "1: expected NAME:HASH")
        self.assertEqual(self.refused(f":{HASH}"), "1: expected NAME:HASH")
        self.assertEqual(self.refused(b"J\xf6rg:" + HASH.encode()), "1: expected a name in UTF-8")
        self.assertEqual(self.refused(f"a\x07b:{HASH}"), "1: expected a name without control characters")

    def test_a_name_stands_once(self) -> None:
        self.assertEqual(self.refused(f"ann:{HASH}\nann:{HASH}"), "2: there is a user of that name already")

    def test_a_file_without_users_is_refused_since_nobody_could_come(self) -> None:
        for content in ("", "\n# nobody\n"):
            self.assertEqual(self.refused(content), " has no user in it")


class OriginsTests(SynchronousTestCase):
    def assert_refused(self, where: Origins, why: str, *asked: tuple[str, str]) -> None:
        for host, address in asked:
            self.assertEqual(where.refusal(host, 80, address), why, (host, address))

    def assert_allowed(self, where: Origins, *asked: tuple[str, str]) -> None:
        for host, address in asked:
            self.assertIsNone(where.refusal(host, 80, address), (host, address))

    def test_by_itself_neighbours_and_what_tells_secrets_is_denied_under_any_name(self) -> None:
        self.assertEqual(access(""), Access())
        for range_, address in (
            ("169.254.0.0/16", "169.254.169.254"),
            ("fe80::/10", "fe80::1%eth0"),
            ("fd00:ec2::254", "fd00:ec2::254"),
            ("fd20:ce::254", "fd20:ce::254"),
            ("100.100.100.200", "100.100.100.200"),
            ("168.63.129.16", "168.63.129.16"),
            ("192.0.0.192", "192.0.0.192"),
        ):
            self.assert_refused(Origins(), f"access.origins.deny: {range_}", ("a.example", address))
        self.assert_allowed(Origins(), ("a.example", "192.0.2.1"), ("localhost", "127.0.0.1"), ("::1", "::1"))

    def test_an_ipv4_address_is_found_in_every_ipv6_one_that_leads_to_it(self) -> None:
        for address in ("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254"):
            self.assert_refused(Origins(), "access.origins.deny: 169.254.0.0/16", ("a.example", address))
        self.assert_allowed(origins("deny: 0.0.0.0/8"), ("::1", "::1"))

    def test_all_zeros_are_this_machine(self) -> None:
        where = origins("deny: [127.0.0.0/8, '::1']")
        self.assert_refused(where, "access.origins.deny: 127.0.0.0/8", ("x", "0.0.0.0"), ("x", "::ffff:0.0.0.0"))
        self.assert_refused(where, "access.origins.deny: ::1", ("x", "::"))
        self.assert_allowed(origins("allow: 127.0.0.0/8"), ("x", "0.0.0.0"))

    def test_a_name_is_denied_wherever_it_leads(self) -> None:
        where = origins("deny: ['*.internal', 'db:5432']")
        why = "access.origins.deny: *.internal"
        self.assert_refused(where, why, ("a.internal", "192.0.2.1"), ("a.internal.", "192.0.2.1"))
        self.assert_allowed(where, ("internal.example", "192.0.2.1"), ("db", "192.0.2.1"))
        self.assertIsNotNone(where.refusal("db", 5432, "192.0.2.1"))

    def test_a_name_that_is_allowed_may_lead_anywhere_but_to_what_is_denied(self) -> None:
        where = origins("allow: ['*.example', 192.0.2.0/24], deny: 10.0.0.0/8")
        self.assert_allowed(where, ("a.example", "198.51.100.1"), ("other", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"))
        self.assert_refused(where, "access.origins.deny: 10.0.0.0/8", ("a.example", "10.0.0.1"))
        self.assert_refused(where, "access.origins.allow: not listed", ("other", "198.51.100.1"))

    def test_what_is_allowed_is_not_so_by_an_address_that_leads_there_another_way(self) -> None:
        where = origins("allow: 10.0.0.0/8")
        self.assert_allowed(where, ("x", "10.0.0.1"), ("x", "::ffff:10.0.0.1"))
        self.assert_refused(where, "access.origins.allow: not listed", ("x", "64:ff9b::a00:1"))

    def test_a_port_may_stand_behind(self) -> None:
        where = origins("allow: ['*:443', '192.0.2.1:80']")
        self.assertIsNone(where.refusal("a.example", 443, "198.51.100.1"))
        self.assertIsNone(where.refusal("a.example", 80, "192.0.2.1"))
        self.assertIsNotNone(where.refusal("a.example", 81, "192.0.2.1"))

    def test_what_is_denied_by_name_is_known_without_a_lookup(self) -> None:
        where = origins("deny: ['*.internal', 127.0.0.0/8]")
        self.assertEqual(where.refusal_by_name("a.internal", 80), "access.origins.deny: *.internal")
        self.assertIsNone(where.refusal_by_name("a.example", 80))

    def test_so_is_an_address_however_it_is_written(self) -> None:
        where = origins("deny: [127.0.0.0/8, '::1']")
        for host in (
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0",
            "0.0.0.0",
            "127.1.",
            "::ffff:7f00:1",
        ):
            self.assertEqual(where.refusal_by_name(host, 80), "access.origins.deny: 127.0.0.0/8", host)
        for host in ("::1", "0:0:0:0:0:0:0:1", "::"):
            self.assertEqual(where.refusal_by_name(host, 80), "access.origins.deny: ::1", host)

    def test_so_is_a_name_that_is_not_listed_where_only_names_are(self) -> None:
        only_names, with_range = origins("allow: a.example"), origins("allow: [a.example, 192.0.2.0/24]")
        self.assertEqual(only_names.refusal_by_name("b.example", 80), "access.origins.allow: not listed")
        self.assertIsNone(only_names.refusal_by_name("a.example", 80))
        self.assertIsNone(with_range.refusal_by_name("b.example", 80))
        self.assertIsNotNone(with_range.refusal_by_name("198.51.100.1", 80))

    def test_a_list_of_ones_own_takes_the_place_of_what_is_denied_by_itself(self) -> None:
        self.assert_allowed(origins("deny: []"), ("x", "169.254.169.254"))


class BeyondLoopbackTests(SynchronousTestCase):
    def test_what_others_come_by_at(self) -> None:
        for endpoint in (
            "tcp:8080",
            "tcp6:8080",
            "tcp:0",
            "tcp:8080:interface=0.0.0.0",
            "tcp:8080:interface=0",
            "tcp:8080:192.0.2.1",
            r"tcp:8080:interface=\:\:",
            r"tcp:8080:interface=fe80\:\:1%eth0",
            "haproxy:tcp:8080",
        ):
            self.assertEqual(beyond_loopback([endpoint]), [endpoint])

    def test_what_they_do_not_or_what_is_not_known_by_its_text(self) -> None:
        for endpoint in (
            "tcp:8080:interface=127.0.0.1",
            "tcp:8080:127.1",
            "tcp:8080:interface=127.0.0.53",
            r"tcp6:8080:interface=\:\:1",
            r"tcp:8080:interface=\:\:ffff\:127.0.0.1",
            "tcp:8080:interface=localhost",
            "tcp:8080:interface=a.example",
            "haproxy:tcp:8080:interface=127.0.0.1",
            "unix:/run/x",
            "systemd:name=proxy",
        ):
            self.assertEqual(beyond_loopback([endpoint]), [], endpoint)

    def test_only_those_are_told(self) -> None:
        self.assertEqual(beyond_loopback(("tcp:1:interface=127.0.0.1", "tcp:2", "tcp:3")), ["tcp:2", "tcp:3"])
