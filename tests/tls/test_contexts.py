"""The contexts of both sides: what is offered, shown, required, resumed and logged."""

from __future__ import annotations

import os
import ssl
import stat
import time
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.tls import contexts
from streamproxy.tls.authority import Authority
from streamproxy.tls.contexts import ClientFacing, Judgement, KeyLog, OriginFacing, TlsError
from tests.secure import DAY, Issued, client_context, issue, issued_for, origin_ca, proxy_authority, server_context

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = (TLS_1_2, TLS_1_3)


class Met:
    """A handshake of `ours` with a peer of Python's; `ours` receives a byte from it if it comes about."""

    def __init__(self, ours: SSL.Connection, context: ssl.SSLContext, **how) -> None:
        self.ours = ours
        self.error: Exception | None = None
        self._to_peer, self._from_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = context.wrap_bio(self._to_peer, self._from_peer, **how)
        self.done = self._shake()
        if self.done:
            self.peer.write(b"x")
            self._carry()
            assert self.ours.recv(1) == b"x"
            self.ours.send(b"y")
            self._carry()
            assert self.peer.read(1) == b"y"

    def end(self) -> None:
        """End as one does: OpenSSL resumes no session of a connection that ended otherwise."""
        self.ours.shutdown()

    def _shake(self) -> bool:
        left: list[object] = [self.ours.do_handshake, self.peer.do_handshake]
        for _ in range(20):
            for shake in list(left):
                try:
                    shake()
                    left.remove(shake)
                except (SSL.WantReadError, ssl.SSLWantReadError):
                    pass
                except (SSL.Error, ssl.SSLError) as error:
                    self.error = error
                self._carry()
            if not left:
                return True
            if self.error is not None:
                return False
        return False

    def _carry(self) -> None:
        """What each has to say reaches the other."""
        try:
            while True:
                self._to_peer.write(self.ours.bio_read(65536))
        except SSL.WantReadError:
            pass
        data = self._from_peer.read()
        if data:
            self.ours.bio_write(data)


class Origin:
    """A server, with one context of Python's for all who come."""

    def __init__(self, issued: Issued, version: ssl.TLSVersion | None = None, *protocols: str) -> None:
        self.context = server_context(issued, *protocols)
        self.asked: list[str | None] = []
        self.context.sni_callback = lambda connection, name, context: self.asked.append(name)
        if version is not None:
            self.context.minimum_version = self.context.maximum_version = version

    def met_by(self, facing: OriginFacing, host: str = "a.example", port: int = 443) -> Met:
        """A handshake, after which the session is kept, as after an exchange; or forgotten, if it failed."""
        connection, self.judgement = facing.connection(host, port)
        met = Met(connection, self.context, server_side=True)
        if met.done:
            facing.remember(port, connection, self.judgement)
            met.end()
        else:
            facing.forget(host, port)
        return met


class OriginFacingTestCase(SynchronousTestCase):
    def facing(self, **how) -> OriginFacing:
        """What trusts the authority of the origins, beside what is given."""
        path = Path(self.mktemp())
        path.write_bytes(origin_ca().certificate_pem)
        facing = OriginFacing(trusted_ca=[str(path)], **how)
        facing.prepare()
        return facing


class SessionTests(OriginFacingTestCase):
    """The server's side says which handshakes were short ones."""

    def reused(self, facing: OriginFacing, origin: Origin, *places: tuple[str, int]) -> list[bool]:
        return [origin.met_by(facing, *place).peer.session_reused for place in places]

    def test_a_session_is_resumed_by_the_next_connection_to_the_same_origin(self):
        for version in BOTH:
            origin = Origin(issued_for("a.example"), version)
            place = ("a.example", 443)
            self.assertEqual(self.reused(self.facing(), origin, place, place, place), [False, True, True])

    def test_a_session_proves_nothing_after_one_of_the_certificates_has_ended(self):
        ca = issue(is_ca=True, by=origin_ca(), until=2 * DAY, common_name="an authority between")
        for issued, ends in ((issue("a.example", by=origin_ca(), until=3 * DAY), 3), (None, 2)):
            issued = issued or issue("a.example", by=ca, until=3 * DAY, above=(ca,))
            for version in BOTH:
                days = [0.0]
                facing = self.facing(now=lambda days=days: time.time() + days[0] * 86_400)
                origin = Origin(issued, version)
                seen = []
                # Resumed sessions bring new ones, which prove no more than the first.
                for days[0] in (0, ends - 0.2, ends - 0.1, ends + 0.1):
                    seen += self.reused(facing, origin, ("a.example", 443))
                self.assertEqual(seen, [False, True, True, False], (ends, version))

    def test_of_an_unverified_origin_too(self):
        for version in BOTH:
            origin = Origin(issue("wrong.example"), version)
            place = ("a.example", 443)
            facing = self.facing(verifies=lambda host, port: False)
            self.assertEqual(self.reused(facing, origin, place, place), [False, True])

    def test_a_session_is_no_other_hosts_and_no_other_ports(self):
        for version in BOTH:
            origin = Origin(issue("a.example", "b.example", by=origin_ca()), version)
            places = (("a.example", 443), ("b.example", 443), ("a.example", 444), ("a.example", 443))
            self.assertEqual(self.reused(self.facing(), origin, *places), [False, False, False, True])

    def test_a_session_of_when_nothing_was_verified_is_not_resumed_when_it_is(self):
        for version in BOTH:
            verified: list[bool] = []
            facing = self.facing(verifies=lambda host, port, verified=verified: bool(verified))
            origin = Origin(issue("a.example"), version)
            self.assertTrue(origin.met_by(facing).done)
            verified.append(True)
            met = origin.met_by(facing)
            self.assertFalse(met.done)
            self.assertEqual(origin.judgement.problem, "the certificate of a.example isn't trusted: it is self-signed")

    def test_a_session_is_not_kept_before_it_is_known_to_be_any_good(self):
        facing, origin = self.facing(), Origin(issued_for("a.example"))
        connection, _ = facing.connection("a.example", 443)
        self.assertTrue(Met(connection, origin.context, server_side=True).done)
        self.assertFalse(origin.met_by(facing).peer.session_reused)

    def test_a_session_is_forgotten_when_a_handshake_fails(self):
        for version in BOTH:
            facing, good = self.facing(), Origin(issued_for("a.example"), version)
            good.met_by(facing)
            self.assertFalse(Origin(issue("a.example"), version).met_by(facing).done)
            self.assertEqual(self.reused(facing, good, ("a.example", 443)), [False])

    def test_a_server_that_does_not_know_the_session_any_more_is_judged_anew(self):
        for version in BOTH:
            facing = self.facing()
            Origin(issued_for("a.example"), version).met_by(facing)
            other = Origin(issue("b.example", by=origin_ca()), version)
            self.assertFalse(other.met_by(facing).done)
            self.assertIn("has the wrong name", other.judgement.problem)

    def test_so_many_are_kept_and_the_longest_unused_goes(self):
        self.patch(contexts, "MOST_SESSIONS", 2)
        facing, origin = self.facing(), Origin(issue("*.a.example", by=origin_ca()))
        x, y, z = (("x.a.example", 443), ("y.a.example", 443), ("z.a.example", 443))
        self.assertEqual(self.reused(facing, origin, x, y, x, z), [False, False, True, False])
        self.assertEqual(self.reused(facing, origin, x), [True])
        self.assertEqual(self.reused(facing, origin, y), [False])
        self.assertEqual(len(facing._sessions), 2)


class OfferTests(OriginFacingTestCase):
    def test_http_1_1_is_offered(self):
        for protocols, chosen in ((("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1"), (("h2",), None)):
            origin = Origin(issued_for("a.example"), None, *protocols)
            self.assertEqual(origin.met_by(self.facing()).peer.selected_alpn_protocol(), chosen)

    def test_the_server_is_named_but_for_an_address_and_without_a_final_dot(self):
        names = ("a.example", "a.example.", "A.Example", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1")
        origin = Origin(issue(*names[:1], *names[3:], by=origin_ca()))
        facing = self.facing()
        for name in names:
            self.assertTrue(origin.met_by(facing, name).done, name)
        self.assertEqual(origin.asked, ["a.example", "a.example", "A.Example", "xn--bcher-kva.example", None, None])

    def test_both_versions_are_spoken_and_the_least_may_be_set(self):
        for least, spoken in (("1.2", [True, True]), ("1.3", [False, True])):
            facing = self.facing(minimum_version=least)
            self.assertEqual([Origin(issued_for("a.example"), each).met_by(facing).done for each in BOTH], spoken)

    def test_a_client_certificate_is_shown_to_those_only_for_whom_it_is(self):
        ours = issue("the proxy", by=origin_ca(), purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
        path = Path(self.mktemp())
        path.write_bytes(ours.pem)
        chosen = {("a.example", 443): str(path)}
        facing = self.facing(certificate_for=lambda host, port: chosen.get((host, port)), certificates=[str(path)])
        for version in BOTH:
            origin = Origin(issue("a.example", "b.example", by=origin_ca()), version)
            origin.context.verify_mode = ssl.CERT_OPTIONAL
            origin.context.load_verify_locations(cadata=origin_ca().certificate_pem.decode())
            for _ in range(2):
                for place in (("a.example", 443), ("b.example", 443), ("a.example", 444)):
                    met = origin.met_by(facing, *place)
                    self.assertTrue(met.done, met.error)
                    shown = met.peer.getpeercert(True)
                    expected = x509.load_der_x509_certificate(shown) if shown else None
                    self.assertEqual(expected, ours.certificate if place in chosen else None)

    def test_a_client_certificate_is_not_shown_to_who_does_not_ask(self):
        ours = issue("the proxy", by=origin_ca(), purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
        path = Path(self.mktemp())
        path.write_bytes(ours.pem)
        facing = self.facing(certificate_for=lambda host, port: str(path))
        self.assertIsNone(Origin(issued_for("a.example")).met_by(facing).peer.getpeercert(True))

    def test_contexts_are_made_once(self):
        facing = self.facing()
        first, second = (facing.connection(name, 443)[0].get_context() for name in ("a.example", "b.example"))
        self.assertIs(first, second)

    def test_an_origin_that_is_not_verified_is_not_judged(self):
        connection, judgement = self.facing(verifies=lambda host, port: False).connection("a.example", 443)
        self.assertEqual(connection.get_context().get_verify_mode(), SSL.VERIFY_NONE)
        self.assertTrue(Met(connection, server_context(issue("b.example")), server_side=True).done)
        self.assertIsInstance(judgement, Judgement)


class FileTests(SynchronousTestCase):
    def assert_refused(self, words: str, **how) -> None:
        with self.assertRaises(TlsError) as raised:
            OriginFacing(**how).prepare()
        self.assertEqual(str(raised.exception), words)

    def file(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_a_file_that_cannot_be_read(self):
        missing, folder = self.mktemp(), self.mktemp()
        os.mkdir(folder)
        for path, why in ((missing, "No such file or directory"), (folder, "Is a directory")):
            self.assert_refused(f"{path}: can't be read: {why}", trusted_ca=[path])
            self.assert_refused(f"{path}: can't be read: {why}", certificates=[path])

    def test_trust_that_is_no_certificate(self):
        path = self.file(b"nothing\n")
        self.assert_refused(f"{path}: no certificates: no certificate or crl found", trusted_ca=[path])
        key_only = self.file(issue("x").pem.partition(b"-----BEGIN CERT")[0])
        self.assert_refused(f"{key_only}: no certificates: no certificate or crl found", trusted_ca=[key_only])

    def test_one_bad_file_among_good_ones_is_told(self):
        good, bad = self.file(origin_ca().certificate_pem), self.file(b"")
        self.assert_refused(f"{bad}: no certificates: no certificate or crl found", trusted_ca=[good, bad, good])

    def test_a_client_certificate_without_its_key(self):
        path = self.file(issue("x").certificate_pem)
        with self.assertRaises(TlsError) as raised:
            OriginFacing(certificates=[path]).prepare()
        self.assertTrue(str(raised.exception).startswith(f"{path}: no certificate with its key: "))

    def test_a_client_certificate_with_the_key_of_another(self):
        one, other = issue("x"), issue("y")
        path = self.file(other.pem.partition(b"-----BEGIN CERT")[0] + one.certificate_pem)
        self.assert_refused(f"{path}: no certificate with its key: key values mismatch", certificates=[path])

    def test_a_file_is_read_at_the_start_and_no_more(self):
        ca, own = self.file(origin_ca().certificate_pem), self.file(issue("x").pem)
        facing = OriginFacing(
            trusted_ca=[ca],
            certificates=[own],
            certificate_for=lambda host, port: own,
            verifies=lambda host, port: port == 443,
        )
        facing.prepare()
        os.unlink(ca)
        os.unlink(own)
        for port in (443, 444):
            self.assertTrue(Origin(issued_for("a.example")).met_by(facing, "a.example", port).done)


class KeyLogTests(OriginFacingTestCase):
    def test_the_secrets_of_both_sides_are_written_for_the_owner_only(self):
        path = Path(self.mktemp())
        keylog = KeyLog(str(path))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        for version, label in ((TLS_1_2, b"CLIENT_RANDOM "), (TLS_1_3, b"CLIENT_TRAFFIC_SECRET_0 ")):
            before = path.read_bytes()
            Origin(issued_for("a.example"), version).met_by(self.facing(keylog=keylog))
            context = client_context(proxy_authority().pem)
            context.minimum_version = context.maximum_version = version
            facing = ClientFacing(proxy_authority(), keylog=keylog)
            self.assertTrue(Met(facing.connection("a.example"), context, server_hostname="a.example").done)
            lines = path.read_bytes().removeprefix(before).splitlines()
            self.assertEqual(len([line for line in lines if line.startswith(label)]), 2)
            self.assertTrue(all(line.count(b" ") == 2 for line in lines))

    def test_what_is_there_already_is_kept(self):
        path = Path(self.mktemp())
        path.write_bytes(b"earlier\n")
        Origin(issued_for("a.example")).met_by(self.facing(keylog=KeyLog(str(path))))
        self.assertTrue(path.read_bytes().startswith(b"earlier\n"))
        self.assertGreater(path.stat().st_size, 100)

    def test_without_it_nothing_is_written(self):
        path = Path(self.mktemp())
        self.patch(os, "environ", {**os.environ, "SSLKEYLOGFILE": str(path)})
        self.assertTrue(Origin(issued_for("a.example")).met_by(self.facing()).done)
        self.assertEqual(path.exists() and path.stat().st_size, False)

    def test_a_file_that_cannot_be_written_is_told(self):
        path = self.mktemp() + "/keys"
        with self.assertRaises(TlsError) as raised:
            KeyLog(path)
        self.assertEqual(str(raised.exception), f"SSLKEYLOGFILE: {path} can't be written: No such file or directory")

    def test_a_full_disk_is_no_reason_to_refuse_a_handshake(self):
        keylog = KeyLog("/dev/full")
        self.assertTrue(Origin(issued_for("a.example")).met_by(self.facing(keylog=keylog)).done)


class ClientFacingTests(SynchronousTestCase):
    def meet(self, facing: ClientFacing, name: str = "a.example", context: ssl.SSLContext | None = None, **how) -> Met:
        return Met(
            facing.connection(name), context or client_context(proxy_authority().pem), server_hostname=name, **how
        )

    def test_the_context_of_a_name_is_made_once_while_it_is_one_of_the_last(self):
        self.patch(contexts, "MOST_CONTEXTS", 2)
        facing = ClientFacing(proxy_authority())
        first, second = (facing.connection(name).get_context() for name in ("a.example", "192.0.2.1"))
        self.assertIs(facing.connection("A.EXAMPLE").get_context(), first)
        facing.connection("c.example")
        self.assertIs(facing.connection("a.example").get_context(), first)
        self.assertIsNot(facing.connection("192.0.2.1").get_context(), second)

    def test_a_leaf_that_is_made_anew_is_shown(self):
        now = [time.time()]
        ca = issue(is_ca=True, until=400 * DAY)
        facing = ClientFacing(Authority(ca.certificate, ca.key, now=lambda: now[0]))
        first = facing.connection("a.example").get_context()
        now[0] += 150 * 86_400
        self.assertIsNot(facing.connection("a.example").get_context(), first)

    def test_a_client_that_verifies_all_is_content(self):
        facing = ClientFacing(proxy_authority())
        for name in ("a.example", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example"):
            met = self.meet(facing, name)
            self.assertTrue(met.done, met.error)

    def test_what_stands_between_the_leaf_and_what_is_trusted_is_sent(self):
        root = issue(is_ca=True, common_name="a root")
        ca = issue(is_ca=True, by=root, common_name="an authority below it")
        facing = ClientFacing(Authority(ca.certificate, ca.key, (root.certificate,)))
        met = self.meet(facing, context=client_context(root.certificate_pem))
        self.assertTrue(met.done, met.error)

    def test_http_1_1_is_chosen_whatever_else_is_offered(self):
        facing = ClientFacing(proxy_authority())
        for offered, chosen in (
            ((), None),
            (("http/1.1",), "http/1.1"),
            (("h2", "http/1.1"), "http/1.1"),
            (("h2",), None),
        ):
            context = client_context(proxy_authority().pem, *offered)
            self.assertEqual(self.meet(facing, context=context).peer.selected_alpn_protocol(), chosen)

    def test_sessions_are_resumed_by_tickets_and_nothing_is_kept_for_them(self):
        for version in BOTH:
            facing = ClientFacing(proxy_authority())
            context = client_context(proxy_authority().pem)
            context.minimum_version = context.maximum_version = version
            first = self.meet(facing, context=context)
            second = self.meet(facing, context=context, session=first.peer.session)
            self.assertEqual((first.peer.session_reused, second.peer.session_reused), (False, True))
            self.assertTrue(first.peer.session.has_ticket)
            self.assertEqual(facing.connection("a.example").get_context().get_session_cache_mode(), SSL.SESS_CACHE_OFF)

    def test_the_least_version_may_be_set(self):
        for least, spoken in (("1.2", [True, True]), ("1.3", [False, True])):
            done = []
            for version in BOTH:
                context = client_context(proxy_authority().pem)
                context.minimum_version = context.maximum_version = version
                done.append(self.meet(ClientFacing(proxy_authority(), least), context=context).done)
            self.assertEqual(done, spoken)

    def test_nothing_older_is_spoken_on_either_side(self):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = client_context(proxy_authority().pem)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            self.assertFalse(self.meet(ClientFacing(proxy_authority()), context=context).done)
            origin = Origin(issued_for("a.example"))
            origin.context.set_ciphers("ALL:@SECLEVEL=0")
            origin.context.minimum_version = origin.context.maximum_version = version
            self.assertFalse(origin.met_by(OriginFacing(verifies=lambda host, port: False)).done)
