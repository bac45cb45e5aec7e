"""The forms of a path that a pattern is tried on."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.rules.paths import (
    escaped_text,
    fit_for_url,
    normal_escapes,
    path_forms,
    query_forms,
    remove_dot_segments,
    within,
)

ODD = st.text(alphabet="/.%2eEfF5cC;a\\ \u00fc?", max_size=20).map("/".__add__)


class PathFormTests(SynchronousTestCase):
    def test_an_ordinary_path_has_one_form(self) -> None:
        for path in ("/", "/a/b.c", "/~x/a-b_c/", "/a:b@c,d=e+f!(g)", "*", ""):
            self.assertEqual(path_forms(path), (path,))

    def test_the_path_as_it_came_is_the_first_form(self) -> None:
        self.assertEqual(path_forms("/%61//b")[0], "/%61//b")

    def test_each_odd_way_to_write_admin_has_the_plain_one_among_its_forms(self) -> None:
        for path in (
            "/%61dmin/x",
            "/%61%64%6D%69%6E/x",
            "/./admin/x",
            "/y/../admin/x",
            "/y/%2e%2E/admin/x",
            "/y/.%2e/admin/x",
            "/../../admin/x",
            "//admin/x",
            "/admin//x",
            "///admin///x",
            "/y//..//admin/x",
            "/y/..//admin/x",
            "//y/../admin/x",
            "/admin%2Fx",
            "/admin%2fx",
            "/y%2f..%2fadmin/x",
            "/admin\\x",
            "/admin%5cx",
            "/admin;v=1/x",
            "/admin/x;v=1",
            "/y/..;/admin/x",
            "/admin%3Bv/x",
            "/admin/%78",
        ):
            self.assertIn("/admin/x", path_forms(path), path)

    def test_slashes_are_made_one_before_dots_and_after_them(self) -> None:
        self.assertIn("/x/admin", path_forms("/x//..//admin"))
        self.assertIn("/admin", path_forms("/x//..//admin"))
        self.assertIn("/adm%3Bin", path_forms("/x//../adm%3bin"))

    def test_nothing_is_decoded_twice(self) -> None:
        self.assertNotIn("/admin", path_forms("/%2561dmin"))

    def test_what_is_no_letter_stays_escaped(self) -> None:
        for form in path_forms("/%00%0a%20%7f%C3%bc%25"):
            self.assertTrue(form.isascii() and form.isprintable() and " " not in form, form)

    def test_a_percent_sign_that_escapes_nothing_is_one(self) -> None:
        self.assertEqual(path_forms("/100%")[1], "/100%25")
        self.assertIn("/100%25", path_forms("/100%25"))

    def test_bytes_beyond_ascii_have_their_escaped_form(self) -> None:
        raw = "/ü".encode().decode("latin-1")  # as a target is read: byte for byte
        self.assertIn("/%C3%BC", path_forms(raw))
        self.assertIn("/%C3%BC", path_forms("/%c3%bc"))

    @given(ODD)
    def test_normal_escapes_are_normal(self, path: str) -> None:
        once = normal_escapes(path)
        self.assertEqual(normal_escapes(once), once)
        self.assertTrue(once.isascii())

    @given(ODD)
    def test_no_form_but_the_first_has_dot_segments(self, path: str) -> None:
        for form in path_forms(path)[1:]:
            self.assertFalse({".", ".."} & set(form.split("/")), form)

    def test_a_long_hostile_path_is_no_trouble(self) -> None:
        for piece in ("/..", "%2e%2e/", "//", "/;", "%", "\\", "/a%2f..", "\xff"):
            self.assertGreater(len(path_forms("/" + piece * 20_000)), 1)


class DotSegmentTests(SynchronousTestCase):
    def test_the_examples_of_rfc_3986_and_their_kin(self) -> None:
        table = [
            ("/a/b/c/./../../g", "/a/g"),
            ("/../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/a..b/.c", "/a..b/.c"),
            ("/a//../b", "/a/b"),
            ("*", "*"),
            ("", ""),
        ]
        for path, plain in table:
            self.assertEqual(remove_dot_segments(path), plain)

    def test_a_tail_can_t_climb_out_of_its_prefix(self) -> None:
        table = [
            ("a/b", "a/b"),
            ("", ""),
            ("../secret", "secret"),
            ("a/../../../secret", "secret"),
            ("%2e%2e/secret", "secret"),
            (".%2E/secret", "secret"),
            ("a/./b/", "a/b/"),
            ("a%20b//c/%41", "a%20b//c/%41"),
            ("..", ""),
            ("...", "..."),
            ("/../x", "x"),
        ]
        for tail, safe in table:
            self.assertEqual(within(tail), safe, tail)

    @given(ODD)
    def test_no_tail_keeps_a_dot_segment(self, tail: str) -> None:
        segments = [re.sub("%2[eE]", ".", segment) for segment in within(tail).split("/")]
        self.assertFalse({".", ".."} & set(segments))


class EscapeTests(SynchronousTestCase):
    def test_what_a_user_wrote_is_escaped_as_utf_8(self) -> None:
        self.assertEqual(escaped_text("/ü b%7e%c3"), "/%C3%BC%20b~%C3")

    def test_a_decoded_tail_is_made_fit_again(self) -> None:
        self.assertEqual(fit_for_url('a?b#c"d%20e;f'), "a%3Fb%23c%22d%20e;f")

    def test_a_query_has_its_decoded_forms(self) -> None:
        self.assertEqual(query_forms("?a=b"), ("?a=b",))
        self.assertIn("?token=x", query_forms("?t%6fken%3dx"))
