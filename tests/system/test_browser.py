"""Chromium by way of the proxy: pages with their parts, and streams that it sees as they come."""

from __future__ import annotations

import struct
import threading
import zlib

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import WAIT, Asked, Nginx, Origin, Proxy, Wire, chromium, new_folder, read_request, response

HTML = b"Content-Type: text/html; charset=utf-8"
NO_ICON = b'<link rel="icon" href="data:,">'
EVENTS = 4


def pixel(png: bytes, x: int, y: int) -> bytes:
    """Red, green and blue of one pixel of a PNG, 8 bits a sample, not interlaced."""
    at, data, width, samples = 8, b"", 0, 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IHDR":
            width, _height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", png[at + 8 : at + 8 + length])
            samples = {2: 3, 6: 4}[colour]
            assert (depth, interlaced) == (8, 0)
        elif kind == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    rows = zlib.decompress(data)
    stride = width * samples
    above = bytearray(stride)
    for number in range(y + 1):
        start = number * (stride + 1)
        way, row = rows[start], bytearray(rows[start + 1 : start + 1 + stride])
        for index in range(stride):
            left = row[index - samples] if index >= samples else 0
            up = above[index]
            corner = above[index - samples] if index >= samples else 0
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda each: abs(guess - each))
            row[index] = (row[index] + (0, left, up, (left + up) // 2, nearest)[way]) & 255
        above = row
    return bytes(above[x * samples : x * samples + 3])


class PageTests(SynchronousTestCase):
    """A page whose colour and words come from other files than itself."""

    def setUp(self) -> None:
        self.nginx = Nginx(self)
        root = self.nginx.root
        (root / "page.html").write_text(
            '<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="colour.css">'
            '<body><img src="square.svg"><script src="words.js"></script>'
        )
        (root / "colour.css").write_text("html { background: rgb(12, 130, 77) } img { display: none }\n")
        (root / "square.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="31" height="17"/>\n')
        (root / "words.js").write_text(
            "addEventListener('load', () => { document.body.append("
            "'image ' + document.images[0].naturalWidth + ', colour '"
            " + getComputedStyle(document.documentElement).backgroundColor) })\n"
        )

    def test_a_page_comes_with_its_parts(self) -> None:
        proxy = Proxy(self)
        dom = chromium(self, proxy, "--dump-dom", self.nginx.url("/page.html"))
        self.assertIn("image 31, colour rgb(12, 130, 77)", dom)
        wanted = {self.nginx.url(f"/{name}") for name in ("page.html", "colour.css", "square.svg", "words.js")}
        lines = [line for line in proxy.recorded(4) if line["url"] in wanted]
        self.assertEqual({line["url"] for line in lines}, wanted)
        self.assertEqual({line["status"] for line in lines}, {200})

    def test_a_rule_changes_what_the_browser_shows(self) -> None:
        proxy = Proxy(
            self, "rules: [{match: {path: '*.css'}, response: {replace: [{find: '12, 130', with: '99, 0'}]}}]"
        )
        shot = new_folder(self) / "page.png"
        chromium(self, proxy, f"--screenshot={shot}", self.nginx.url("/page.html"))
        png = shot.read_bytes()
        self.assertTrue(png.startswith(b"\x89PNG\r\n\x1a\n"))
        self.assertEqual(tuple(pixel(png, 200, 100)), (99, 0, 77))


class StreamTests(SynchronousTestCase):
    """The origin sends an event, and the next only when the page has told it, in a request, of the one before.

    The page isn't loaded before it has told of the last one, for it waits for an image that comes no earlier.
    """

    def setUp(self) -> None:
        self.told: list[str] = []
        self._news = threading.Condition()

    def tell(self, word: str) -> None:
        with self._news:
            self.told.append(word)
            self._news.notify_all()

    def wait_for(self, word: str) -> None:
        with self._news:
            if not self._news.wait_for(lambda: word in self.told, WAIT):
                raise AssertionError(f"the page never told of {word}, but of {self.told}")

    def play(self, script: str, head: bytes, event: bytes) -> str:
        """What Chromium shows of a page that runs `script`; /stream is `head`, then EVENTS times `event`."""
        page = b"<!doctype html>" + NO_ICON + b"<body><script>" + script.encode() + b'</script><img src="/last">'

        def serve(wire: Wire) -> None:
            while (asked := read_request(wire)) is not None:
                self.answer(wire, asked, page, head, event)

        origin = Origin(self, serve)
        dom = chromium(self, Proxy(self), "--dump-dom", origin.url("/page"))
        self.assertEqual(self.told, [f"/told/{number}" for number in range(EVENTS)])
        return dom

    def answer(self, wire: Wire, asked: Asked, page: bytes, head: bytes, event: bytes) -> None:
        path = asked.line.split()[1].decode()
        if path == "/page":
            wire.send(response(page, HTML))
        elif path == "/stream":
            wire.send(head)
            for number in range(EVENTS):
                wire.send(event % number)
                self.wait_for(f"/told/{number}")
            wire.read_to_end()
        elif path == "/last":
            self.wait_for(f"/told/{EVENTS - 1}")
            wire.send(response(b"", status=b"404 Not Found"))
        else:
            self.tell(path)
            wire.send(response(b""))

    def test_an_event_source_gets_each_event_as_it_comes(self) -> None:
        dom = self.play(
            "new EventSource('/stream').onmessage = event => {"
            " document.body.append('event ' + event.data + '; '); fetch('/told/' + event.data) }",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n",
            b"data: %d\n\n",
        )
        self.assertIn("event 0; event 1; event 2; event 3; ", dom)

    def test_a_fetched_stream_gets_each_chunk_as_it_comes(self) -> None:
        dom = self.play(
            "(async () => { const reader = (await fetch('/stream')).body.getReader(); for (;;) {"
            " const {value, done} = await reader.read(); if (done) break;"
            " const text = new TextDecoder().decode(value);"
            " document.body.append('chunk ' + text + '; '); fetch('/told/' + text) } })()",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n",
            b"1\r\n%d\r\n",
        )
        self.assertIn("chunk 0; chunk 1; chunk 2; chunk 3; ", dom)
