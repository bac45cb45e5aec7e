"""The texts of a regex and of what replaces it: what is read from them, and what is refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.patterns import check_template, compile_regex


class RegexTextTests(SynchronousTestCase):
    def test_what_can_t_be_had_in_a_stream_is_refused_in_words(self) -> None:
        table = {
            "": "match nothing",
            "a?": "match nothing",
            "(?=a)": "match nothing",
            "a|b*": "match nothing",
            "\\b": "match nothing",
            "(a?)\\1": "match nothing",
            "(a?)*b": "* repeats without end",
            "(?:a|){2,}?b": "{2,}? repeats without end",
            "\\Ga": "\\G",
            "a\\Kb": "\\K",
            "a\\pLb": "\\p",
            "a\\X": "\\X",
            "a\\R": "\\R",
            "(?:a){e<=1}": "fuzzy",
            "a{1<=s<=2}": "fuzzy",
            "a{e}": "fuzzy",
            "(?e)a": "(?e)",
            "(?r)a": "(?r)",
            "(?V1)a": "(?V",
            "a(?i)b": "beginning",
            "a(?x:b)": "can't be used",
            "(?R)a": "can't be used",
            "(a)(?1)": "can't be used",
            "(a)(?(1)b|c)": "can't be used",
            "(?|a|b)": "can't be used",
            "(*SKIP)a": "can't be used",
            "(?<=a*)b": "look back 255",
            "(?<=a{256})b": "look back 255",
            "(?<=a(?=b))b": "lookahead inside",
            "(a)(?<=\\1)b": "inside a lookbehind",
            "[é]": "'é' is several",
            "[\\é]": "'é' is several",
            "[\\p]": "\\p",
            "(?i)é": "'é'",
            "(?i:é)": "'é'",
            "(a": "missing )",
            "a)": "too many",
            "[a": "missing ]",
            "[]": "missing ]",
            "a\\": "last backslash",
            "*a": "nothing to repeat",
            "a**": "nothing to repeat",
            "\\b*a": "nothing to repeat",
            "a{3,2}": "{3,2}",
            "[b-a]": "bad character range",
            "(?P<n>a)(?P<n>b)": "'n'",
            "(?P<n>a)(?P=m)": "unknown group",
            "(?#a": "missing )",
        }
        for text, words in table.items():
            with self.assertRaises(ValueError, msg=text) as caught:
                compile_regex(text)
            self.assertIn(words, str(caught.exception), text)

    def test_what_is_written_means_what_it_does_elsewhere(self) -> None:
        table: list[tuple[str, list[bytes], list[bytes]]] = [
            ("é+x", ["ééx".encode()], [b"\xc3\xa9\xa9x"]),
            ("[[a]b", [b"[b", b"ab"], [b"[ab"]),
            ("[]a]b", [b"]b", b"ab"], [b"]]b"]),
            ("[^]a]b", [b"xb"], [b"]b", b"ab"]),
            ("[[:digit:]x]", [b"1", b"x"], [b":", b"["]),
            ("{a}{", [b"{a}{"], [b"a{"]),
            ("\\x41\\101\\0\\n", [b"AA\0\n"], [b"AA0\n"]),
            ("(?x) a b +  # this\n | \\ c\\#", [b"abb", b" c#"], [b"a b", b"c#"]),
            ("(a)(b)\\2\\g<1>(?P=x)(?P<x>)c|(?P<y>d)(?P=y)", [b"dd"], [b"d"]),
            ("(?i:a)b", [b"Ab"], [b"aB"]),
            ("(?i)a(?-i:b)", [b"Ab"], [b"aB"]),
            ("(a)\\g<1>0", [b"aa0"], [b"aa"]),
            ("a(?#no)b", [b"ab"], [b"anob"]),
            ("a.", [b"a\xff"], [b"a\n"]),
        ]
        for text, yes, no in table:
            pattern = compile_regex(text).pattern
            for body in yes:
                self.assertTrue(pattern.fullmatch(body), (text, body))
            for body in no:
                self.assertFalse(pattern.fullmatch(body), (text, body))

    def test_how_far_an_attempt_looks_is_known(self) -> None:
        table = {
            "sk-[A-Za-z0-9]{20,40}": (43, 0),
            "a|bcd": (3, 0),
            "a(?=bc)": (3, 0),
            "a\\b": (3, 1),
            "(?<=ab)c": (1, 3),
            "(ab)\\1": (4, 0),
            "ab+": (None, 0),
            "a(?!b*c)": (None, 0),
            "é{2}": (6, 0),
        }
        for text, (reach, look_back) in table.items():
            syntax = compile_regex(text).syntax
            self.assertEqual(syntax.look_back, look_back, text)
            if reach is None:
                self.assertIs(syntax.reach, None, text)
            else:
                self.assertIsNot(syntax.reach, None, text)
                self.assertGreaterEqual(syntax.reach or 0, reach, text)
                self.assertLessEqual(syntax.reach or 0, reach + 2, text)

    def test_what_every_match_begins_with_is_known(self) -> None:
        table = {
            "sk-[a-z]+": b"sk-[a-z]{1}",
            'key="[^"]*"': b'key="',
            "(?:ab|c)x*y": b"(?:ab|c)",
            "ab*|c+d|e": b"a|c{1}|e",
            "a*b": None,
            "ab*|c*d": None,
            "abc": None,
        }
        for text, pattern in table.items():
            head = compile_regex(text).syntax.head
            self.assertEqual(head and head.pattern, pattern, text)

    def test_regexes_with_the_same_text_are_equal(self) -> None:
        self.assertEqual(compile_regex("ab+"), compile_regex("ab+"))
        self.assertEqual(len({compile_regex("ab+"), compile_regex("ab+"), compile_regex("a")}), 2)


class TemplateTests(SynchronousTestCase):
    def filled(self, find: str, body: bytes, put: str) -> bytes:
        compiled = compile_regex(find)
        return check_template(compiled, put).fill(compiled.pattern.search(body))

    def test_groups_and_escapes_are_filled_in(self) -> None:
        find = r"(?P<one>a)(b)?(c)"
        table = {
            "": b"",
            "x": b"x",
            r"\1-\2-\3": b"a--c",
            r"\g<one>\g<3>\g<0>": b"acac",
            r"\g<1>0": b"a0",
            r"\\1\n\t\x41\0\.é": "\\1\n\tA\0.é".encode(),
            r"\xff": b"\xff",
        }
        for put, result in table.items():
            self.assertEqual(self.filled(find, b"xac", put), result, put)

    def test_a_group_that_isn_t_there_is_refused(self) -> None:
        compiled = compile_regex("(?P<one>a)")
        for put, words in (
            (r"\2", "no group 2"),
            (r"\g<two>", "'two'"),
            (r"\10", "no group 10"),
            ("a\\", "\\\\"),
            (r"\q", "q"),
        ):
            with self.assertRaises(ValueError) as caught:
                check_template(compiled, put)
            self.assertIn(words, str(caught.exception))
