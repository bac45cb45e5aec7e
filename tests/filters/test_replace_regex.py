"""Regexes replaced in a stream, with literals among them: as one pass over the whole would, however it is cut."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import regex as regex_package
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.chain import FilterError
from streamproxy.filters.finders import Pattern
from streamproxy.filters.patterns import compile_regex
from streamproxy.filters.replace import Overrun, Replace, literal, regex

ATOMS = ["a", "b", "a", "b", "c", ".", "[ab]", "[^a]", "[^b\\n]", "\\w", "\\n", "ab", "ba", "(?:é)", "\\x61"]
BEHIND = ["a", "b", "ab", "a|bb", "\\n", "[ab]a", "\\ba", "^a", "a\\b", "(?:ab){2}", "a{1,3}", "a$"]
ASSERTIONS = ["^", "$", "\\b", "\\B", "\\Z", "\\A", "\\m", "\\M"]
COUNTS = ["*", "+", "?", "{2}", "{1,2}", "{2,}", "{0,2}", "{,2}"]
OPENINGS = ["(", "(", "(?:", "(?:", "(?>", "(?=", "(?!", "(?i:A", "(?s:.", "(?m:^"]
FLAGS = ["", "", "", "", "(?i)", "(?m)", "(?s)", "(?im)", "(?ms)"]
LETTERS = ["ab", "ab", "abc", "ab\n", "aab\n", "abAB é\n"]


class Maker:
    """Makes regexes and bodies by chance, of few letters, so that matches are frequent."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def atom(self, depth: int) -> str:
        pick = self.chance.choice
        what = self.chance.random()
        if depth and what < 0.45:
            return pick(OPENINGS) + self.alternatives(depth - 1) + ")"
        if what < 0.5:
            return pick(["(?<=", "(?<!"]) + pick(BEHIND) + ")"
        if what < 0.58:
            return pick(ASSERTIONS)
        return "\\1" if what < 0.61 else pick(ATOMS)

    def repeated(self, atom: str) -> str:
        if atom in ASSERTIONS or atom.startswith(("(?=", "(?!", "(?<")) or self.chance.random() < 0.55:
            return atom
        return atom + self.chance.choice(COUNTS) + self.chance.choice(["", "", "", "?", "?", "+"])

    def alternatives(self, depth: int) -> str:
        pick = self.chance.choice
        return "|".join(
            [
                "".join([self.repeated(self.atom(depth)) for _ in range(pick([1, 1, 2, 2, 3, 4]))])
                for _ in range(pick([1, 1, 1, 2, 3]))
            ]
        )

    def text(self) -> str:
        """A regex that isn't refused."""
        while True:
            text = self.chance.choice(FLAGS) + self.alternatives(self.chance.choice([0, 1, 2, 2]))
            try:
                compile_regex(text)
            except ValueError:
                continue
            return text

    def body(self) -> bytes:
        letters = self.chance.choice(LETTERS).encode()
        return bytes(self.chance.choices(letters, k=self.chance.randint(0, self.chance.choice([4, 8, 14]))))

    def split(self, body: bytes) -> list[bytes]:
        if self.chance.random() < 0.3:
            return [body[index : index + 1] for index in range(len(body))]
        cuts = sorted(self.chance.choices(range(len(body) + 1), k=self.chance.randint(1, 5)))
        return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


Put = Callable[[Any], bytes]


def in_one_pass(patterns: list[tuple[Any, Put]], body: bytes) -> bytes:
    """What is asked for, in its plainest form: `patterns` are compiled by the package, as they were written."""
    out, done = b"", 0
    while True:
        found = [
            (match.start(), order, match)
            for order, (find, _) in enumerate(patterns)
            if (match := find.search(body, done))
        ]
        if not found:
            return out + body[done:]
        start, order, match = min(found, key=lambda each: each[:2])
        out += body[done:start] + patterns[order][1](match)
        done = match.end()


def outcome(patterns: list[Pattern], pieces: Iterable[bytes]) -> tuple[bytes, str]:
    """What comes out, and the words of an overrun."""
    stage = Replace(patterns)
    out = []
    try:
        for piece in pieces:
            for made in stage.feed(piece):
                out.append(made)
        for made in stage.finish():
            out.append(made)
    except Overrun as error:
        return b"".join(out), str(error)
    return b"".join(out), ""


class EverySplitTests(SynchronousTestCase):
    def patterns(self, maker: Maker) -> tuple[list[Callable[[int, bool], Pattern]], list[tuple[Any, Put]]]:
        """Some patterns: how each is made, with its `hold_back` and `release`, and what the plain pass searches."""
        made: list[Callable[[int, bool], Pattern]] = []
        plain: list[tuple[Any, Put]] = []
        for order in range(maker.chance.choice([1, 1, 1, 2, 3])):
            if maker.chance.random() < 0.25:
                find = bytes(maker.chance.choices(b"ab", k=maker.chance.randint(1, 4)))
                made.append(
                    lambda hold, release, find=find, order=order: literal(  # type: ignore[misc]
                        find, b"<%d>" % order, max(hold, len(find)), release, "r"
                    )
                )
                plain.append(
                    (regex_package.compile(regex_package.escape(find)), lambda _, order=order: b"<%d>" % order)
                )  # type: ignore[misc]
                continue
            text = maker.text()
            compiled = compile_regex(text)
            group = compiled.syntax.groups > 0 and maker.chance.random() < 0.4
            put = f"<{order}\\1>" if group else f"<{order}>"
            made.append(
                lambda hold, release, compiled=compiled, put=put: regex(compiled, put, hold, release, "r", 60)  # type: ignore[misc]
            )
            plain.append(
                (
                    regex_package.compile(text.encode(), regex_package.V0),
                    lambda match, order=order, group=group: b"<%d%s>" % (order, (match[1] or b"") if group else b""),  # type: ignore[misc]
                )
            )
        return made, plain

    @settings(max_examples=900, deadline=None)
    @given(st.integers(0, 1 << 60))
    def test_every_split_gives_what_one_pass_over_the_whole_gives(self, seed: int) -> None:
        maker = Maker(random.Random(seed))
        made, plain = self.patterns(maker)
        stages = [make(4096, False) for make in made]
        for _ in range(8):
            body = maker.body()
            self.assertEqual(outcome(stages, maker.split(body)), (in_one_pass(plain, body), ""))

    @settings(max_examples=600, deadline=None)
    @given(st.integers(0, 1 << 60))
    def test_an_overrun_comes_at_one_place_however_the_body_is_cut(self, seed: int) -> None:
        maker = Maker(random.Random(seed))
        made, _ = self.patterns(maker)
        hold, release = maker.chance.randint(1, 6), maker.chance.random() < 0.5
        stages = [make(hold, release) for make in made]
        for _ in range(8):
            body = maker.body()
            whole = outcome(stages, [body])
            self.assertEqual(outcome(stages, maker.split(body)), whole)
            self.assertEqual(outcome(stages, [body[index : index + 1] for index in range(len(body))]), whole)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 1 << 60))
    def test_no_more_is_held_than_may_be(self, seed: int) -> None:
        maker = Maker(random.Random(seed))
        made, _ = self.patterns(maker)
        hold = maker.chance.randint(1, 6)
        patterns = [make(hold, True) for make in made]
        stage = Replace(patterns)
        most = max(pattern.hold_back for pattern in patterns)
        for _ in range(12):
            for piece in maker.split(maker.body()):
                list(stage.feed(piece))
                self.assertLessEqual(len(stage.held), most)


class RegexTests(SynchronousTestCase):
    def outputs(self, find: str, *pieces: bytes, put: str = "*", hold_back: int = 4096) -> list[bytes]:
        """What each piece makes, and the end."""
        stage = Replace([regex(compile_regex(find), put, hold_back)])
        return [*[b"".join(stage.feed(piece)) for piece in pieces], b"".join(stage.finish())]

    def test_what_may_still_become_a_match_waits_and_nothing_else(self) -> None:
        table: list[tuple[str, list[bytes], list[bytes]]] = [
            ("sk-[a-z]{3}", [b"a s", b"k", b"-ab", b"c", b"d"], [b"a ", b"", b"", b"*", b"d", b""]),
            ("sk-[a-z]{3,}", [b"sk-abc", b"d", b" ", b"x"], [b"", b"", b"* ", b"x", b""]),
            ("a[^z]*z|b", [b"a..b", b"..", b"z"], [b"", b"", b"*", b""]),
            ("a[^z]*z|b", [b"a..b", b".."], [b"", b"", b"a..*.."]),
            ("(?:ab)+", [b"xab", b"ab", b"c"], [b"x", b"", b"*c", b""]),
            ("foo\\b", [b"foo", b"d foo", b"."], [b"", b"food ", b"*.", b""]),
            ("foo$", [b"foo", b"\n", b"foo"], [b"", b"", b"foo\n", b"*"]),
            ("(?m)foo$", [b"foo", b"\nb"], [b"", b"*\nb", b""]),
            ("^foo", [b"fo", b"ofoo"], [b"", b"*foo", b""]),
            ("(?m)^foo", [b"x\n", b"foo", b"foo\nfoo"], [b"x\n", b"*", b"foo\n*", b""]),
            ("\\bfoo", [b"x", b"foo ", b"foo"], [b"x", b"foo ", b"*", b""]),
            ("(?<=key=)\\d", [b"key=", b"1", b"2"], [b"key=", b"*", b"2", b""]),
            ("a(?!b)", [b"a", b"b", b"a", b"c"], [b"", b"ab", b"", b"*c", b""]),
            ("é+", ["xé".encode()[:2], "é".encode()[1:], b"y"], [b"x", b"", b"*y", b""]),
            ("(?i)Secret", [b"sEC", b"RETs"], [b"", b"*", b"s"]),
        ]
        for find, pieces, made in table:
            self.assertEqual(self.outputs(find, *pieces), made, find)

    def test_groups_stand_in_what_is_put(self) -> None:
        find, body = r"(?P<key>\w+)=(\w+)(!)?", [b"x a=", b"1", b" "]
        self.assertEqual(b"".join(self.outputs(find, *body, put=r"\2=\g<key>\3\g<0>\\\n")), b"x 1=aa=1\\\n ")

    def test_the_pattern_listed_first_wins_where_two_begin(self) -> None:
        patterns: list[Pattern] = [literal(b"abcd", b"1"), regex(compile_regex("ab+"), "2"), literal(b"ab", b"3")]
        for body, result in ((b"abcd", b"1"), (b"abbx", b"2x"), (b"abce", b"2ce"), (b"ab", b"2")):
            for pieces in ([body], [body[index : index + 1] for index in range(len(body))]):
                self.assertEqual(outcome(patterns, pieces), (result, ""))

    def test_an_overrun_says_whose_it_is_and_what_came_before_it_leaves(self) -> None:
        patterns: list[Pattern] = [regex(compile_regex("x[^z]*z"), "*", 10, False, "no x"), literal(b"a", b"b")]
        for body in (b"aax" + b"a" * 20, b"aax" + b"a" * 20 + b"z"):
            for size in (1, 5, 100):
                pieces = [body[start : start + size] for start in range(0, len(body), size)]
                out, why = outcome(patterns, pieces)
                self.assertEqual(why, "rule 'no x': more than 10 bytes might be the beginning of a match")
                self.assertEqual(out, b"bb")

    def test_an_overrun_that_is_released_goes_on_behind_what_was_held(self) -> None:
        patterns: list[Pattern] = [regex(compile_regex("x[^z]*z"), "*", 4, True), literal(b"a", b"b")]
        for size in (1, 3, 100):
            body = b"axaaaaaaxaz"
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            self.assertEqual(outcome(patterns, pieces), (b"bxaaaabb*", ""))

    def test_a_secret_never_leaves_wherever_the_body_is_cut(self) -> None:
        secret = b"sk-" + b"Ab3" * 8
        body = b"x" * 30 + secret + b" " + b"sk-short " + secret
        patterns = [regex(compile_regex("sk-[A-Za-z0-9]{20,40}"), "sk-***")]
        for first in range(len(body)):
            for second in range(first, len(body), 7):
                out, _ = outcome(list(patterns), [body[:first], body[first:second], body[second:]])
                self.assertEqual(out, b"x" * 30 + b"sk-*** sk-short sk-***")

    def test_let_go_the_search_begins_behind_it_and_still_looks_back(self) -> None:
        stage = Replace([regex(compile_regex(r"\bsecret"), "***")])
        self.assertEqual(b"".join(stage.feed(b"a sec")), b"a ")
        self.assertEqual(stage.release(), b"sec")
        self.assertEqual(b"".join(stage.feed(b"secret secret")), b"secret ***")

    def test_a_regex_that_takes_too_long_ends_the_body_in_words(self) -> None:
        stage = Replace([regex(compile_regex("(?:a|b|ab)*c(?:a|b|ab)*d"), "*", rule="slow", seconds=0.05)])
        began = time.perf_counter()
        with self.assertRaises(FilterError) as caught:
            for _ in range(200):
                list(stage.feed(b"ab" * 16 + b"c" + b"ab" * 16))
        self.assertEqual(str(caught.exception), "rule 'slow': its regex took too long")
        self.assertLess(time.perf_counter() - began, 5)

    def test_with_a_clock_many_searches_together_may_take_no_longer_than_one(self) -> None:
        now = [0.0]

        def clock() -> float:
            now[0] += 0.004
            return now[0]

        patterns = [regex(compile_regex(r"(?i)bearer\s+\S+"), "*", seconds=1)]
        stage = Replace(patterns, clock=clock)
        for _ in range(50):
            self.assertEqual(b"".join(stage.feed(b"Bearer x ")), b"* ")
        with self.assertRaises(FilterError):
            list(stage.feed(b"Bearer x " * 1000))
        self.assertEqual(outcome(patterns, [b"Bearer x " * 1000]), (b"* " * 1000, ""))

    def test_with_a_clock_a_body_cut_fine_gives_it_no_more_time(self) -> None:
        now = [0.0]

        def clock() -> float:
            now[0] += 0.001
            return now[0]

        stage = Replace([regex(compile_regex(r"(?i)bearer\s+\S+"), "*", seconds=0.25)], clock=clock)
        with self.assertRaises(FilterError):
            for _ in range(400):
                list(stage.feed(b"B"))
        # Time that passes in between counts for it.
        stage = Replace([regex(compile_regex(r"(?i)bearer\s+\S+"), "*", seconds=0.25)], clock=clock)
        for _ in range(400):
            list(stage.feed(b"B"))
            now[0] += 0.1


class SpeedTests(SynchronousTestCase):
    """Bounds an order of magnitude above what is seen: they catch a wrong power, not a slow machine."""

    def seconds(self, find: str, pieces: Iterable[bytes], hold_back: int = 4096) -> float:
        stage = Replace([regex(compile_regex(find), "*", hold_back, True, seconds=10)])
        began = time.perf_counter()
        for piece in pieces:
            for _ in stage.feed(piece):
                pass
        return time.perf_counter() - began

    def test_without_matches_it_runs_at_the_speed_of_memory(self) -> None:
        piece = (b"The quick brown fox jumps over the lazy dog. " * 1500)[:65536]
        for find in ("sk-[A-Za-z0-9]{20,40}", "sk-[A-Za-z0-9]{20,}", r"(?i)secret: \w+"):
            self.assertLess(self.seconds(find, [piece] * 64), 1.0, find)  # 4 MiB

    def test_single_bytes_cost_no_more_than_what_is_held(self) -> None:
        for find in ("x[^z]*z", "sk-[a-z]{20,}", "[a-z]+@[a-z]+", "(?:x|y)[^z]*z"):
            self.assertLess(self.seconds(find, [b"x"] * 10_000), 3.0, find)
            self.assertLess(self.seconds(find, [b"s", b"k", b"-"] * 3_000), 3.0, find)
