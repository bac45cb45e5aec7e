"""SIGHUP: what is intercepted, by which authority, and which origins are trusted; what is under way goes on."""

from __future__ import annotations

import ssl
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.secure import Issued, issue, origin_ca
from tests.system.parts import Client, Wire, new_folder, read_request, response
from tests.system.secure import SecureOrigin, Tunnel, origin_ca_file
from tests.system.supervised import Daemon


class TlsReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.ours = self.folder / "ours.pem"
        self.first = issue(is_ca=True, common_name="the first authority")
        self.ours.write_bytes(self.first.pem)
        self.origins = origin_ca_file(self)
        self.connections = 0
        self.origin = SecureOrigin(self, self.play)
        self.daemon = Daemon(self, self.config(), self.folder)

    def play(self, wire: Wire) -> None:
        self.connections += 1
        while (asked := read_request(wire)) is not None:
            wire.send(response(asked.line))

    def config(self, more: str = "", trusts: Path | None = None) -> str:
        trusted = self.origins if trusts is None else trusts
        return (
            "listen: tcp:0:interface=127.0.0.1\nadmin: false\ntimeouts: {drain: 5}\n"
            f"tls: {{trusted_ca: [{trusted}], authority: {{certificate: {self.ours}}}{more}}}\n"
        )

    def shaken(self, ca: Issued) -> Tunnel:
        """A client that trusts nothing but `ca`, with its TLS done."""
        client = Tunnel(self, self.daemon, self.origin.netloc)
        client.shake(self.file(ca))
        return client

    def file(self, ca: Issued) -> Path:
        path = self.folder / f"{ca.certificate.serial_number}.pem"
        path.write_bytes(ca.certificate_pem)
        return path

    def ask(self, client: Client, path: str = "/") -> bytes:
        """The status of what it is answered."""
        assert isinstance(client, Tunnel)
        client.ask_for(path)
        head = client.read_head()
        client.read_body(head)
        return head.split()[1]

    def test_another_authority_is_shown_to_new_clients(self) -> None:
        old = self.shaken(self.first)
        self.assertEqual(self.ask(old), b"200")
        second = issue(is_ca=True, common_name="the second authority")
        self.ours.write_bytes(second.pem)
        self.daemon.reload()
        self.assertEqual(self.ask(self.shaken(second)), b"200")
        self.assertRaises(ssl.SSLCertVerificationError, self.shaken, self.first)
        # Who was here before goes on.
        self.assertEqual(self.ask(old), b"200")
        # One that isn't an authority, or is half a file, changes nothing.
        for wrong in (issue("not.a.ca.example").pem, second.pem[:-100], b""):
            self.ours.write_bytes(wrong)
            self.daemon.refuse()
            self.assertEqual(self.ask(self.shaken(second)), b"200")

    def test_an_origin_that_is_not_trusted_any_more_is_not_used_again(self) -> None:
        client = self.shaken(self.first)
        self.assertEqual(self.ask(client), b"200")
        self.assertEqual(self.ask(client), b"200")
        self.assertEqual(self.connections, 1)
        strangers = self.file(issue(is_ca=True, common_name="a stranger"))
        self.daemon.reload(self.config(trusts=strangers))
        # Though there was a connection to it that was verified, and idle; and though a session could be resumed.
        for asking in (client, self.shaken(self.first)):
            self.assertEqual(self.ask(asking), b"502")
        self.daemon.reload(self.config(", verify_upstream: {127.0.0.1: false}", trusts=strangers))
        self.assertEqual(self.ask(client), b"200")
        self.daemon.reload(self.config())
        self.assertEqual(self.ask(client), b"200")

    def test_what_is_passed_through_is_decided_for_new_tunnels(self) -> None:
        intercepted = self.shaken(self.first)
        for more in (f", passthrough: ['{self.origin.netloc}']", ", intercept: false", ", only: [elsewhere.example]"):
            self.daemon.reload(self.config(more))
            passed = self.shaken(origin_ca())
            self.assertEqual((self.ask(passed), self.ask(intercepted)), (b"200", b"200"), more)
            self.daemon.reload(self.config())
            self.assertEqual((self.ask(passed), self.ask(self.shaken(self.first))), (b"200", b"200"), more)
