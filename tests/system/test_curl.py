"""curl by way of the proxy: to nginx, and to origins that nginx would never be."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    WAIT,
    Asked,
    Client,
    Nginx,
    Origin,
    Program,
    Proxy,
    Ran,
    Wire,
    chunk,
    chunked,
    curl,
    curl_command,
    each_request,
    new_folder,
    read_request,
    response,
    until,
)

PARTIAL_FILE = 18
RECEIVE_ERROR = 56
BIG = 64 << 20


def write_random(path: Path, size: int) -> str:
    """Fill a file with bytes that don't repeat; their hash."""
    digest = hashlib.sha256()
    source = random.Random(size)
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            piece = source.randbytes(min(1 << 20, size - at))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class NginxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.nginx = Nginx(self)
        self.proxy = Proxy(self)
        (self.nginx.root / "page.txt").write_text("a page of text\n")

    def curl(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        return curl(self, self.proxy, *arguments, stdin=stdin)

    def test_get(self) -> None:
        ran = self.curl("-i", self.nginx.url("/page.txt"))
        self.assertEqual(ran.status, 0, ran.err)
        head, _, body = ran.out.partition(b"\r\n\r\n")
        self.assertEqual(body, b"a page of text\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\nServer: nginx"), head)
        self.assertIn(b"\r\nContent-Type: text/plain\r\n", head)
        self.assertRegex(head, rb"\r\nVia: 1\.1 streamproxy")

    def test_head(self) -> None:
        ran = self.curl("--head", self.nginx.url("/page.txt"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(ran.out.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"\r\nContent-Length: 15\r\n", ran.out)
        self.assertTrue(ran.out.endswith(b"\r\n\r\n"))

    def test_not_found(self) -> None:
        ran = self.curl("-w", "%{http_code}", self.nginx.url("/nothing"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn(b"404 Not Found", ran.out)
        self.assertTrue(ran.out.endswith(b"404"))

    def test_ranges(self) -> None:
        ran = self.curl("-i", "-r", "2-5", self.nginx.url("/page.txt"))
        self.assertTrue(ran.out.startswith(b"HTTP/1.1 206 "), ran.out)
        self.assertIn(b"\r\nContent-Range: bytes 2-5/15\r\n", ran.out)
        self.assertTrue(ran.out.endswith(b"\r\n\r\npage"))

    def test_a_download_that_is_resumed(self) -> None:
        path = new_folder(self) / "page"
        path.write_text("a page")
        ran = self.curl("-C", "-", "-o", path, self.nginx.url("/page.txt"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(path.read_text(), "a page of text\n")

    def test_a_condition_that_does_not_hold(self) -> None:
        etag = re.search(rb"\r\nETag: ([^\r]+)\r\n", self.curl("-I", self.nginx.url("/page.txt")).out)
        assert etag is not None
        ran = self.curl("-i", "-H", f"If-None-Match: {etag[1].decode()}", self.nginx.url("/page.txt"))
        self.assertTrue(ran.out.startswith(b"HTTP/1.1 304 Not Modified\r\n"), ran.out)
        self.assertTrue(ran.out.endswith(b"\r\n\r\n"))

    def test_many_urls_go_over_one_connection(self) -> None:
        for number in range(20):
            (self.nginx.root / f"{number}.txt").write_text(f"number {number}\n")
        ran = self.curl("-w", "%{stderr}%{num_connects} ", *[self.nginx.url(f"/{number}.txt") for number in range(20)])
        self.assertEqual(ran.out.decode(), "".join(f"number {number}\n" for number in range(20)))
        self.assertEqual(ran.err.split(), ["1"] + ["0"] * 19)

    def test_http_1_0(self) -> None:
        ran = self.curl("--http1.0", "-i", self.nginx.url("/page.txt"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(ran.out.endswith(b"\r\n\r\na page of text\n"), ran.out)
        self.assertNotIn(b"Transfer-Encoding", ran.out)

    def test_an_upload_of_known_length(self) -> None:
        body = new_folder(self) / "body"
        body.write_bytes(b"known")
        ran = self.curl("-i", "-H", "Expect:", "-T", body, self.nginx.url("/put/known"))
        self.assertTrue(ran.out.startswith(b"HTTP/1.1 201 Created\r\n"), (ran.out, ran.err))
        self.assertEqual((self.nginx.root / "put" / "known").read_bytes(), b"known")

    def test_an_upload_in_chunks(self) -> None:
        ran = self.curl("-sS", "-i", "-T", "-", self.nginx.url("/put/chunks"), stdin=b"chunks" * 50_000)
        self.assertIn(b"HTTP/1.1 201 Created\r\n", ran.out, ran.err)
        self.assertEqual((self.nginx.root / "put" / "chunks").read_bytes(), b"chunks" * 50_000)

    def test_an_upload_that_waits_to_be_asked_for(self) -> None:
        body = new_folder(self) / "body"
        body.write_bytes(b"waited for" * 200_000)
        ran = self.curl(
            "-v", "-T", body, "-H", "Expect: 100-continue", "--expect100-timeout", "30", self.nginx.url("/put/waited")
        )
        self.assertRegex(ran.err, r"(?m)^> Expect: 100-continue\r?$")
        self.assertRegex(ran.err, r"(?m)^< HTTP/1\.1 100 Continue\r?$")
        self.assertRegex(ran.err, r"(?m)^< HTTP/1\.1 201 Created\r?$")
        self.assertEqual((self.nginx.root / "put" / "waited").read_bytes(), b"waited for" * 200_000)

    def test_an_upload_that_is_refused_before_it_is_sent(self) -> None:
        body = new_folder(self) / "body"
        body.write_bytes(bytes(1 << 20))
        ran = self.curl(
            "-v",
            "-T",
            body,
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "30",
            "-w",
            "%{http_code} %{size_upload}",
            "-o",
            "/dev/null",
            self.nginx.url("/small/x"),
        )
        self.assertEqual(ran.out, b"413 0", ran.err)
        self.assertNotIn("100 Continue", ran.err)

    def test_a_large_download_arrives_as_it_was(self) -> None:
        digest = write_random(self.nginx.root / "large", BIG)
        got = new_folder(self) / "got"
        ran = self.curl("-o", got, self.nginx.url("/large"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(hash_of(got), digest)

    def test_a_large_upload_arrives_as_it_was(self) -> None:
        body = new_folder(self) / "body"
        digest = write_random(body, BIG)
        for name, arguments in (("length", ["-T", body]), ("chunks", ["-T", body, "-H", "Transfer-Encoding: chunked"])):
            ran = self.curl("-w", "%{http_code}", *arguments, self.nginx.url(f"/put/{name}"))
            self.assertEqual((ran.status, ran.out), (0, b"201"), ran.err)
            self.assertEqual(hash_of(self.nginx.root / "put" / name), digest)

    def test_a_download_that_is_limited(self) -> None:
        digest = write_random(self.nginx.root / "limited", 3 << 20)
        got = new_folder(self) / "got"
        ran = self.curl("--limit-rate", "1m", "-o", got, self.nginx.url("/limited"))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(hash_of(got), digest)


class OddOriginTests(SynchronousTestCase):
    """Origins that break off, answer early, or say more than others do."""

    def setUp(self) -> None:
        self.proxy = Proxy(self)

    def curl(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        return curl(self, self.proxy, *arguments, stdin=stdin)

    def test_nobody_listens(self) -> None:
        ran = self.curl("-w", "%{http_code}", "http://127.0.0.1:1/")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, b"502 Bad Gateway: 127.0.0.1:1 refused the connection\n502")

    def test_no_such_host(self) -> None:
        ran = self.curl("-w", "%{http_code}", "http://nobody.invalid/")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, b"502 Bad Gateway: no address was found for nobody.invalid\n502")

    def broken_off(self, *sent: bytes, reset: bool = False) -> Ran:
        """What curl makes of an origin that ends after what it `sent`."""

        def script(wire: Wire) -> None:
            read_request(wire)
            wire.send(*sent)
            if reset:
                wire.reset()

        return self.curl(Origin(self, script).url())

    def test_an_origin_that_ends_without_a_word(self) -> None:
        for reset in (False, True):
            ran = self.broken_off(reset=reset)
            self.assertEqual(ran.status, 0, ran.err)
            self.assertTrue(ran.out.startswith(b"502 Bad Gateway: "), ran.out)

    def test_an_origin_that_ends_inside_its_head(self) -> None:
        ran = self.broken_off(b"HTTP/1.1 200 OK\r\nContent-Le")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(ran.out.startswith(b"502 Bad Gateway: "), ran.out)

    def test_a_body_cut_short_of_its_length_looks_cut_short(self) -> None:
        ran = self.broken_off(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
        self.assertEqual((ran.status, ran.out), (PARTIAL_FILE, b"begun"))

    def test_a_body_without_its_last_chunk_looks_cut_short(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for cut in (chunk(b"begun"), chunk(b"begun") + b"10\r\n", chunk(b"begun") + b"0\r\n"):
            ran = self.broken_off(head, cut)
            self.assertIn(ran.status, (PARTIAL_FILE, RECEIVE_ERROR), ran)
            self.assertEqual(ran.out, b"begun")

    def test_a_body_that_is_reset_looks_cut_short(self) -> None:
        def script(wire: Wire) -> None:
            read_request(wire)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
            # What was sent has arrived before the reset, which would else overtake it.
            arrived.wait(WAIT)
            wire.reset()

        arrived = threading.Event()
        got = new_folder(self) / "got"
        program = Program(self, curl_command(self.proxy, "-N", "-o", got, Origin(self, script).url()), got.parent)
        until(lambda: got.exists() and got.stat().st_size > 0, "the beginning of the body")
        arrived.set()
        self.assertIn(program.wait(), (PARTIAL_FILE, RECEIVE_ERROR))
        self.assertEqual(got.read_bytes(), b"begun")

    def test_a_body_until_close_that_is_reset_does_not_look_whole(self) -> None:
        ran = self.broken_off(b"HTTP/1.1 200 OK\r\n\r\nbegun", reset=True)
        if ran.status == 0:
            # The reset overtook the body, and the head with it: then it's told in words.
            self.assertTrue(ran.out.startswith(b"502 "), ran.out)
        else:
            self.assertEqual(ran.status, RECEIVE_ERROR, ran.err)

    def test_a_body_until_close_is_whole_when_it_is_closed(self) -> None:
        ran = self.broken_off(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it" * 10_000)
        self.assertEqual((ran.status, ran.out), (0, b"all of it" * 10_000))

    def test_an_upload_that_is_answered_early(self) -> None:
        answered = threading.Event()

        def script(wire: Wire) -> None:
            wire.read_head()
            wire.send(response(b"too large\n", b"Connection: close", status=b"413 Content Too Large"))
            answered.set()
            wire.half_close()
            wire.read_to_end()

        body = new_folder(self) / "body"
        body.write_bytes(bytes(BIG))
        ran = self.curl("-H", "Expect:", "-T", body, "-w", "%{http_code}", Origin(self, script).url())
        # The client may have had the answer before the origin's thread comes to say so.
        self.assertTrue(answered.wait(WAIT))
        self.assertEqual(ran.out, b"too large\n413", ran.err)

    def test_trailers(self) -> None:
        sent = chunked(b"a body", fields=(b"Trailer: X-Sum",), trailers=b"X-Sum: 42\r\n")
        got = new_folder(self) / "got"
        # The fields of the head, and behind them those of the trailer section.
        ran = self.curl("-D", "-", "-o", got, Origin(self, each_request(lambda asked: sent)).url())
        self.assertEqual((ran.status, got.read_bytes()), (0, b"a body"))
        head, _, trailers = ran.out.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nTrailer: X-Sum\r\n", head)
        self.assertEqual(trailers, b"X-Sum: 42\r\n")

    def test_early_hints(self) -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        origin = Origin(self, each_request(lambda asked: hints + hints + response(b"a page")))
        ran = self.curl("-v", origin.url())
        self.assertEqual((ran.status, ran.out), (0, b"a page"))
        self.assertEqual(len(re.findall(r"(?m)^< HTTP/1\.1 103 Early Hints\r?$", ran.err)), 2)
        self.assertEqual(len(re.findall(r"(?m)^< Link: </style\.css>; rel=preload\r?$", ran.err)), 2)
        self.assertEqual(len(re.findall(r"(?m)^< HTTP/1\.1 200 OK\r?$", ran.err)), 1)

    def test_chunks_for_a_client_of_http_1_0_come_without_their_framing(self) -> None:
        sent = chunked(b"one ", b"two ", b"three")
        ran = self.curl("--http1.0", "-i", "--raw", Origin(self, each_request(lambda asked: sent)).url())
        self.assertEqual(ran.status, 0, ran.err)
        head, _, body = ran.out.partition(b"\r\n\r\n")
        self.assertEqual(body, b"one two three")
        self.assertNotIn(b"chunked", head.lower())

    def test_a_post_comes_as_it_was_sent(self) -> None:
        seen: list[Asked] = []

        def answer(asked: Asked) -> bytes:
            seen.append(asked)
            return response(b"thanks")

        origin = Origin(self, each_request(answer))
        fields = ["-H", "X-oDD-Case: kept", "-H", "A: 1", "-H", "a: 2", "-A", "tester"]
        ran = self.curl("-d", "x=1&y=2", *fields, origin.url("/form?q=%41"))
        self.assertEqual(ran.out, b"thanks")
        (asked,) = seen
        self.assertEqual(asked.line, b"POST /form?q=%41 HTTP/1.1")
        self.assertEqual(asked.body, b"x=1&y=2")
        names = [line.partition(b":")[0] for line in asked.head.split(b"\r\n")[1:-2]]
        self.assertEqual(
            names,
            [b"Host", b"User-Agent", b"Accept", b"X-oDD-Case", b"A", b"a", b"Content-Length", b"Content-Type", b"Via"],
        )


class ReuseTests(SynchronousTestCase):
    """A connection to an origin is used again, and it may be gone by then."""

    def setUp(self) -> None:
        self.proxy, self.origin = Proxy(self), Origin(self)
        self.client = Client(self, self.proxy)
        self.client.get(self.origin, "/first")
        self.wire = self.origin.accept()
        self.wire.read_head()
        self.wire.send(response(b"first"))
        self.assertEqual(self.client.read_body(self.client.read_head()), b"first")

    def test_another_client_is_served_on_the_same_connection(self) -> None:
        other = Client(self, self.proxy)
        other.get(self.origin, "/second")
        self.assertTrue(self.wire.read_head().startswith(b"GET /second "))

    def test_what_is_safe_to_ask_again_is_asked_again(self) -> None:
        self.client.get(self.origin, "/second")
        self.wire.read_head()
        self.wire.close()
        again = self.origin.accept()
        self.assertTrue(again.read_head().startswith(b"GET /second "))
        again.send(response(b"second"))
        self.assertEqual(self.client.read_body(self.client.read_head()), b"second")

    def test_what_is_not_safe_to_ask_again_is_not(self) -> None:
        self.client.ask(b"POST", self.origin, "/second", b"Content-Length: 0")
        self.wire.read_head()
        self.wire.close()
        self.assertTrue(self.client.read_head().startswith(b"HTTP/1.1 502 "))

    def test_a_host_of_several_addresses_is_reached_where_it_listens(self) -> None:
        # localhost is ::1 as well on most machines, and there nobody listens.
        self.client.send(b"GET http://localhost:%d/ HTTP/1.1\r\nHost: localhost\r\n\r\n" % self.origin.port)
        self.assertTrue(self.origin.accept().read_head().startswith(b"GET / HTTP/1.1\r\n"))
