"""What clients are shown and what origins are dealt with by, read from files: whole, and kept where it is the same."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.daemon.identity import check_identity, identity
from streamproxy.settings import ConfigurationError, Settings
from tests.conversation import settings_of
from tests.secure import Issued, issue
from tests.system.parts import new_folder


class IdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.state = self.folder / "state"

    def settings(self, text: str = "") -> Settings:
        return settings_of(text, f"state_dir={self.state}")

    def with_authority(self, ca: Issued, more: str = "") -> Settings:
        """Settings with an authority that stands in a file."""
        path = self.folder / "ca.pem"
        path.write_bytes(ca.pem)
        return self.settings(f"tls: {{authority: {{certificate: {path}}}{more}}}")

    def test_the_first_use_makes_an_authority(self):
        made = identity(self.settings(), None)
        assert made.clients is not None
        self.assertEqual(Path(self.state, "ca.pem").read_bytes(), made.clients.authority.pem)

    def test_the_same_authority_keeps_the_certificates_that_it_made(self):
        for settings in (self.settings(), self.with_authority(issue(is_ca=True, common_name="ours"))):
            first = identity(settings, None)
            again = identity(settings, None, first)
            self.assertIs(again.clients, first.clients)
            self.assertIsNot(again.origins, first.origins)

    def test_another_authority_or_version_makes_others(self):
        first = identity(self.with_authority(issue(is_ca=True, common_name="ours")), None)
        ca = issue(is_ca=True, common_name="another")
        second = identity(self.with_authority(ca), None, first)
        third = identity(self.with_authority(ca, ', minimum_version: "1.3"'), None, second)
        self.assertEqual(len({id(each.clients) for each in (first, second, third)}), 3)

    def test_where_nothing_is_intercepted_there_is_none_and_none_is_made(self):
        first = identity(self.settings("tls: {intercept: false}"), None)
        self.assertIsNone(first.clients)
        self.assertFalse(self.state.exists())
        self.assertIsNotNone(identity(self.settings(), None, first).clients)

    def test_a_file_that_broke_is_told_and_nothing_is_used(self):
        settings = self.with_authority(issue(is_ca=True, common_name="ours"))
        before = identity(settings, None)
        (self.folder / "ca.pem").write_bytes(issue("not.a.ca.example").pem)
        error = self.assertRaises(ConfigurationError, identity, settings, None, before)
        self.assertEqual(len(error.lines), 1)
        self.assertTrue(error.lines[0].startswith("tls: "), error.lines)

    def test_a_check_makes_no_authority(self):
        check_identity(self.settings())
        self.assertFalse(self.state.exists())

    def test_a_check_finds_what_a_start_would(self):
        settings = self.with_authority(issue(is_ca=True, common_name="ours"))
        check_identity(settings)
        (self.folder / "ca.pem").write_bytes(issue("not.a.ca.example").pem)
        self.assertRaises(ConfigurationError, check_identity, settings)
