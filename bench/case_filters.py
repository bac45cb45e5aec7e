"""What it costs to look into bodies of text, for what is to be replaced: plain, and coded.

The text is lines as a language model streams them: JSON in server-sent events. Now and then it has the beginning of
what is looked for, and never all of it, for a body in which nothing looks like it would flatter any search. It is
the same each time.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

from bench.case_bulk import ROUNDS, Bulk, Moved, moves, tell_moved
from bench.case_rate import TICK, small
from bench.case_stall import MIB
from bench.compare import in_turns
from bench.connection import Connection, check, get
from bench.figures import Report
from bench.parts import MARKED, NGINX, Memory, Part, Parts, free_port, program
from bench.proxies import OURS, PLAIN, STRAIGHT

SIZE, CODED_SIZE = 1 << 30, 256 << 20
# Text is made of sections, each with a number at its beginning, and repeats itself otherwise.
SECTION, ROUND = 64 << 10, 4 << 20
BLOCK = 1 << 20
WITHOUT = "streamproxy without rules"
# How much the proxy may grow, in MiB, and what of its rate must be left.
GROWTH, RATE = 2, 0.5
# The kernel throws away so much of a body unread; its end is looked at.
UNREAD = 0.9

# A few words are most of a text, and some begin like what is to be found.
_MANY = random.Random(4)
_OFTEN = "eeeeeetttttaaaaooooiiiinnnnsssshhhrrrrddlllccuummwwffggyyppbbvvkkxjqz"
_WORDS = ["".join(_MANY.choices(_OFTEN, k=_MANY.randint(1, 10))) for _ in range(2000)]
_WORDS[60:60] = ["ask", "risk", "task", "internal", "market", "inter", "mask", "desk"]
_HOW_OFTEN = [1 / rank for rank in range(10, 10 + len(_WORDS))]
_PUNCTUATION = ("", "", "", "", "", "", ",", ".", ".\\n\\n", ":", " (as above)", "\\u2014")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# What looks like something that is to be found, for a while. `{}` are letters and digits, too few of them.
_NEARLY = ("sk-{}", "sk-{}", "task-{}", "risk-free", "internal.{}", "internal.exam", "international", "mark-up")
_EVENT = (
    "id: %010d\nevent: message\n"
    'data: {"id":"msg-%s","object":"chat.completion.chunk","model":"large-2","choices":'
    '[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
)

KEY = b"sk-0123456789abcdefghijABCDEFGHIJ"
SECRETS = b"the key is " + KEY + b", and the host internal.example; sk-short isn't one\n"
REDACTED = SECRETS.replace(KEY, b"sk-***").replace(b"internal.example", b"***.example")
KEY_REGEX = "sk-[A-Za-z0-9]{20,40}"
ABSENT = (
    "rules: [{name: absent, response: {replace: "
    f'[{{regex: "{KEY_REGEX}", with: "sk-***"}}, {{find: internal.example, with: "***.example"}}]}}}}]\n'
)
ABSENT_LITERAL = 'rules: [{name: absent, response: {replace: [{find: internal.example, with: "***.example"}]}}]\n'
REPLACE_RULE = "rules: [{name: replaced, response: {replace: [{find: mark-to-replace, with: another-wording}]}}]\n"
# What goes in is as long as what it is for: mitmdump leaves the Content-Length as it was.
COVERED = "sk-" + "*" * 30
REPLACE_REGEX_RULE = (
    f'rules: [{{name: replaced, response: {{replace: [{{regex: "{KEY_REGEX}", with: "{COVERED}"}}]}}}}]\n'
)
# What mitmdump is given for a script: a stream function, as its own documentation shows one.
REPLACES = """
def replaced(data):
    return data.replace(b"mark-to-replace", b"another-wording")


def responseheaders(flow):
    flow.response.stream = replaced
"""
REPLACES_REGEX = f"""
import re

KEY = re.compile(rb"{KEY_REGEX}")


def replaced(data):
    return KEY.sub(b"{COVERED}", data)


def responseheaders(flow):
    flow.response.stream = replaced
"""


def _letters(pick: random.Random, least: int, most: int) -> str:
    return "".join(pick.choices(_LETTERS, k=pick.randint(least, most)))


def _content(pick: random.Random) -> str:
    """What an event says: words, and one time in ten something that looks like what is to be found."""
    chosen = pick.choices(_WORDS, _HOW_OFTEN, k=pick.randint(3, 40))
    words = [word + pick.choice(_PUNCTUATION) for word in chosen]
    if pick.random() < 0.1:
        nearly = pick.choice(_NEARLY)
        words.insert(pick.randint(0, len(words)), nearly.format(_letters(pick, 2, 19)))
    return " ".join(words)


def make_text(size: int) -> bytes:
    """Text of `size` bytes, in sections each of which begins with an event's id."""
    pick = random.Random(3)
    sections = []
    for number in range(-(-size // SECTION)):
        events, length = [], 0
        while length < SECTION:
            events.append(_EVENT % (number, _letters(pick, 24, 24), _content(pick)))
            length += len(events[-1])
        sections.append("".join(events)[: SECTION - 2] + "\n\n")
    return "".join(sections).encode()[:size]


@lru_cache
def _round() -> bytes:
    return make_text(ROUND)


def text_rounds(size: int) -> Iterator[bytearray]:
    """The text of `size` bytes (rounds of 4 MiB), one at a time. Each is good only until the next is asked for."""
    block = bytearray(_round())
    sections = ROUND // SECTION
    for number in range(size // ROUND):
        for each in range(sections):
            block[each * SECTION + 4 : each * SECTION + 14] = b"%010d" % (number * sections + each)
        yield block


class Served(NamedTuple):
    """An origin, and the SHA-256 of its text, which stands at `path`."""

    origin: Part
    path: str
    sha256: str


def serve_text(parts: Parts, coded: bool) -> Served:
    """nginx with the text, of 1 GiB, or `coded`: of 256 MiB, as gzip; and with `MARKED` and `SECRETS`."""
    folder, found = parts.new_folder("texts"), hashlib.sha256()
    root = folder / "root"
    root.mkdir()
    (root / "small").write_bytes(b"x" * 600)
    (root / "marked").write_bytes(MARKED)
    (root / "secrets").write_bytes(SECRETS)
    (root / "coded-secrets").write_bytes(_gzip(SECRETS))
    coder = zlib.compressobj(wbits=31)
    with (root / ("coded" if coded else "text")).open("wb") as file:
        for data in text_rounds(CODED_SIZE if coded else SIZE):
            found.update(data)
            file.write(coder.compress(data) if coded else data)
        file.write(coder.flush() if coded else b"")
        # Else the disk would be written to while it is measured.
        os.fdatasync(file.fileno())
    lines = NGINX.replace("root {folder}/root;", "root {folder}/root;\n{more}")
    ports = {"port": free_port(), "secure_port": free_port()}
    more = "location /coded { add_header Content-Encoding gzip; }"
    wanted = {"user": "user root;" if os.geteuid() == 0 else "", "certificate": parts.certificates.origin, **ports}
    (folder / "nginx.conf").write_text(lines.format(folder=folder, more=more, **wanted))
    command = (program("nginx", "nginx-light"), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf")
    part = parts.start("nginx", *command)
    part.port, part.secure_port, part.authority = ports["port"], ports["secure_port"], parts.certificates.authority
    part.listens()
    return Served(part, "/coded" if coded else "/text", found.hexdigest())


def _gzip(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=31)
    return coder.compress(data) + coder.flush()


class TextWays:
    """How the text of `served` is got by each way. `size` is its own, uncoded; `coded`: it comes as gzip."""

    def __init__(self, served: Served, size: int, coded: bool) -> None:
        self._url = served.origin.url(served.path)
        self._sha256 = served.sha256
        self._size = size
        self._coded = coded
        # How long the response is on the wire, head aside, by the way's name.
        self._wire: dict[str, int] = {}

    def _ask(self, part: Part) -> Connection:
        connection = Connection.to(part.port)
        connection.ask("GET", self._url, "Connection: close", *(["Accept-Encoding: gzip"] if self._coded else []))
        return connection

    def check_hash(self, part: Part) -> None:
        """Get it once, and compare the SHA-256 of the text."""
        connection = self._ask(part)
        head = connection.answer()
        check(head.status == 200, f"{part.name}: {head.line}")
        check(head.fields.get("content-encoding") == ("gzip" if self._coded else None), f"{part.name}: {head}")
        found, decoder = hashlib.sha256(), zlib.decompressobj(wbits=31)
        for data in connection.body(head):
            found.update(decoder.decompress(data) if self._coded else data)
        check(decoder.eof or not self._coded, f"{part.name}: the coding isn't ended")
        check(found.hexdigest() == self._sha256, f"{part.name}: another hash")
        self._wire[part.name] = connection.taken - head.size
        connection.close()

    def move(self, part: Part) -> Moved:
        """Get it once, and see that it has its end, and about the length that it had."""
        busy, began = part.processor_seconds(), time.monotonic()
        connection = self._ask(part)
        head = connection.answer()
        check(head.status == 200, f"{part.name}: {head.line}")
        wire, sock, block = self._wire[part.name], connection.sock, bytearray(BLOCK)
        # What was read with the head.
        length, end = connection.received - head.size, b""
        while length < UNREAD * wire:
            count = sock.recv_into(block, min(BLOCK, round(UNREAD * wire) - length), socket.MSG_TRUNC)
            check(count > 0, f"{part.name}: the connection ended inside a body")
            length += count
        while count := sock.recv_into(block):
            length += count
            end = (end + block[max(0, count - 5) : count])[-5:]
        took = time.monotonic() - began
        busy = max(part.processor_seconds() - busy, TICK)
        connection.close()
        # How a filter's chunks, and its coding's blocks, are cut differs with the reads.
        if (wanted := head.fields.get("content-length")) is not None:
            check(length == int(wanted), f"{part.name}: {length} bytes instead of {wanted}")
        else:
            check(end == b"0\r\n\r\n" and abs(length - wire) < wire / 20, f"{part.name}: {length} bytes, {end!r}")
        return Moved(self._size / took / 1e6, busy)


def compare(
    report: Report, ways: TextWays, proxies: dict[str, Part], size: int, words: str, goals: dict[str, float]
) -> None:
    """Streamproxy with its rules and without, in turns."""
    rounds = report.rounds_of(ROUNDS)
    report.say(f"the hashes are right; {rounds} rounds of {words} each way")
    seen = in_turns(report, rounds, {name: partial(ways.move, part) for name, part in proxies.items()})
    tell_moved(report, words, seen, size, goals)


def start_both(parts: Parts, origin: Part, rules: str) -> dict[str, Part]:
    """No proxy, streamproxy with `rules`, and streamproxy without any."""
    proxies = {STRAIGHT: origin, OURS: parts.streamproxy(rules=rules), WITHOUT: parts.streamproxy()}
    proxies[WITHOUT].name = WITHOUT
    return proxies


def absent(parts: Parts, report: Report) -> None:
    """A literal and a regex that aren't there: what is left of the rate, and what it costs in memory."""
    report.progress("writing the text")
    served = serve_text(parts, coded=False)
    proxies = start_both(parts, served.origin, ABSENT)
    for name, wanted in ((OURS, REDACTED), (WITHOUT, SECRETS)):
        body = get(Connection.to(proxies[name].port), served.origin.url("/secrets"))
        check(body == wanted, f"{name}: {body!r}")
    ways = TextWays(served, SIZE, coded=False)
    for name, part in proxies.items():
        # This is what warms it up as well.
        report.progress(f"checking the hash: {name}")
        ways.check_hash(part)
    for name in (OURS, WITHOUT):
        with Memory(proxies[name]) as memory:
            ways.move(proxies[name])
        after = proxies[name].memory() - memory.before
        report.figure(f"{name}: resident memory before", memory.before / MIB, "MiB")
        goal = GROWTH if name == OURS else None
        report.figure(f"{name}: growth of resident memory, at its most", memory.growth / MIB, "MiB", below=goal)
        report.figure(f"{name}: growth of resident memory, after it", after / MIB, "MiB", below=goal)
    compare(report, ways, proxies, SIZE, "1 GiB of text", {WITHOUT: RATE})


def coded_bulk(parts: Parts, report: Report) -> None:
    """gzip undone, one literal looked for that isn't there, and gzip put back."""
    report.progress("writing the text")
    served = serve_text(parts, coded=True)
    proxies = start_both(parts, served.origin, ABSENT_LITERAL)
    report.say(f"without {PLAIN}: what it hands to a stream function is what came, coded")
    connection = Connection.to(proxies[OURS].port)
    connection.ask("GET", served.origin.url("/coded-secrets"), "Accept-Encoding: gzip")
    head = connection.answer()
    body = zlib.decompress(b"".join(connection.body(head)), 31)
    check(body == SECRETS.replace(b"internal.example", b"***.example"), f"{OURS} doesn't replace: {body!r}")
    ways = TextWays(served, CODED_SIZE, coded=True)
    for name, part in proxies.items():
        report.progress(f"checking the hash: {name}")
        ways.check_hash(part)
    compare(report, ways, proxies, CODED_SIZE, f"{CODED_SIZE >> 20} MiB of text as gzip", {})


def is_replaced(part: Part, origin: Part) -> None:
    """The proxy replaces what it finds."""
    body = get(Connection.to(part.port), origin.url("/marked"))
    check(body == MARKED.replace(b"mark-to-replace", b"another-wording"), f"{part.name} doesn't replace: {body!r}")


def is_replaced_by_regex(part: Part, origin: Part) -> None:
    """The proxy replaces what the regex matches, and nothing else."""
    body = get(Connection.to(part.port), origin.url("/secrets"))
    check(body == SECRETS.replace(KEY, COVERED.encode()), f"{part.name} doesn't replace: {body!r}")


def replacing(
    rules: str, script: str, look: Callable[[Part, Part], None], goal: float | None, parts: Parts, report: Report
) -> None:
    """Beside mitmdump with a script, which needs a file for it; it says itself what streams."""
    file = parts.new_folder("script") / "replaces.py"
    file.write_text(script)
    told = {"rules": rules, "mitmdump": ("-s", str(file))}
    goals = None if goal is None else {PLAIN: goal}
    bulk = Bulk((STRAIGHT, OURS, PLAIN), goals, path="/text", in_chunks=True, told=told, look=look)
    report.progress("writing the text")
    served = serve_text(parts, coded=False)
    moves(bulk, parts, report, served.origin, served.sha256)


def replacing_small(parts: Parts, report: Report) -> None:
    """The same with small bodies: what each costs by itself counts here, and not its bytes."""
    file = parts.new_folder("script") / "replaces.py"
    file.write_text(REPLACES)
    small(32, False, {PLAIN: 3}, parts, report, names=(OURS, PLAIN), rules=REPLACE_RULE, mitmdump=("-s", str(file)))


Case = Callable[[Parts, Report], None]
COMPARED: dict[str, Case] = {
    "bulk-replace": partial(replacing, REPLACE_RULE, REPLACES, is_replaced, 3),
    "replace-32": replacing_small,
    "bulk-replace-regex": partial(replacing, REPLACE_REGEX_RULE, REPLACES_REGEX, is_replaced_by_regex, None),
}
ALONE: dict[str, Case] = {
    "absent": absent,
    "coded-bulk": coded_bulk,
}
