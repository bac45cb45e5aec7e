"""Chromium's WebSockets by way of the proxy, ws:// and wss://, to autobahn's server, which sends back what it gets."""

from __future__ import annotations

import html
import re
import sys
import threading

from tests.system.parts import PROJECT, WAIT, Asked, Origin, Program, Proxy, Wire, read_request, response
from tests.system.secure import SecureOrigin, certificate_for_us, file_of, trusting
from tests.system.test_browser import HTML, NO_ICON, pixel
from tests.system.test_https_browser import BrowserCase

# Chromium has errands of its own: none of them leaves this machine.
RULES = r"""
rules:
  - {name: nothing leaves, match: {host: {regex: '^(?!(127\.0\.0\.1|localhost|streamproxy\.test)$)'}}, block: 403}
  - {name: streams, match: {path: '/stream/*'}, websocket: {stream: true}}
  - name: changed
    match: {path: '/changed/*'}
    websocket: {messages: [{from: origin, find: foo, with: bar}]}
"""
# What the page says, and how it tells what came back: every message in its turn, and how the connection closed.
SCRIPT = """
const socket = new WebSocket('URL')
socket.binaryType = 'arraybuffer'
const told = [], send = ['a foo: größer 🙂', new Uint8Array([0, 255, 128]), 'x'.repeat(300000), new Uint8Array(70000)]
const end = word => { told.push(word); document.body.append(told.join('; ')); fetch('/told') }
const shown = data => typeof data == 'string' ? (data.length > 99 ? data.length + ' characters' : data)
    : data.byteLength > 99 ? data.byteLength + ' bytes' : 'bytes ' + new Uint8Array(data).join(' ')
const next = () => send.length ? socket.send(send.shift()) : socket.close(4001, 'enough')
socket.onopen = () => { told.push(socket.extensions); next() }
socket.onmessage = event => { told.push(shown(event.data)); document.body.style.background = colour(); next() }
socket.onclose = event => end('closed ' + event.code + ' ' + event.reason + ' ' + event.wasClean)
const colour = () => told.at(-1).includes('bar') ? 'rgb(99, 0, 77)' : document.body.style.background
"""


# autobahn answers a close with a code of its own.
CLOSED = "closed 1000  true"


class EchoServer(Program):
    """autobahn's server in a process of its own. With `pem`, a file with key and certificate, it speaks TLS."""

    def __init__(self, case: BrowserCase, pem: str = "") -> None:
        command = [sys.executable, "-m", "tests.autobahn.testee", "server", *([pem] if pem else [])]
        super().__init__(case, command, PROJECT)
        self.wait_for(lambda lines: any(line.startswith("listening on ") for line in lines), "the line of a listener")
        self.port = int(self.lines[-1].rpartition(" ")[2])


class WebSocketPageTests(BrowserCase):
    """A page that opens a WebSocket, says something, and shows what it got. It is loaded when it has."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self, RULES, trusting(self))
        self._told = threading.Event()

    def page(self, path: str, secure: bool, script: str = SCRIPT) -> str:
        """The URL of the page, whose WebSocket is at `path`; all of it over TLS, or nothing."""
        pem = str(file_of(self, certificate_for_us().pem)) if secure else ""
        self.port = EchoServer(self, pem).port
        script = script.replace("URL", f"{'wss' if secure else 'ws'}://127.0.0.1:{self.port}{path}")
        page = f'<!doctype html>{NO_ICON.decode()}<body><script>{script}</script><img src="/last">'.encode()
        self._told.clear()

        def answer(asked: Asked) -> bytes:
            target = asked.line.split()[1].decode()
            if target == "/page":
                return response(page, HTML)
            if target == "/told":
                self._told.set()
            elif target == "/last":
                self._told.wait(WAIT)
            return response(b"")

        def serve(wire: Wire) -> None:
            while (asked := read_request(wire)) is not None:
                wire.send(answer(asked))

        return (SecureOrigin if secure else Origin)(self, serve).url("/page")

    def shows(self, url: str) -> list[str]:
        """What the page shows at its end."""
        found = re.search(r"<body[^>]*>.*<img src=\"/last\">(.*)</body>", self.chromium("--dump-dom", url), re.DOTALL)
        assert found is not None and found[1], f"{self.errors()}\n{self.proxy.output}"
        return html.unescape(found[1]).split("; ")

    def assert_talks(self, path: str, secure: bool, text: str = "a foo: größer 🙂") -> dict:
        extensions, *rest = self.shows(self.page(path, secure))
        self.assertEqual(rest, [text, "bytes 0 255 128", "300000 characters", "70000 bytes", CLOSED])
        # What Chromium offers is compression, and what it gets.
        self.assertTrue(extensions.startswith("permessage-deflate"), extensions)
        self.proxy.wait_for(lambda lines: any('"websocket": ' in line for line in lines), "the WebSocket's line")
        (line,) = [each for each in self.proxy.journal() if "websocket" in each]
        scheme = "https" if secure else "http"
        self.assertEqual((line["url"], line["status"]), (f"{scheme}://127.0.0.1:{self.port}{path}", 101))
        self.assertEqual(line["websocket"]["close"], {"code": 4001, "reason": "enough", "by": "client"})
        self.assertEqual(line["websocket"]["client"]["messages"], 4)
        return line

    def test_ws_message_by_message(self) -> None:
        line = self.assert_talks("/messages/", secure=False)
        self.assertEqual(line["websocket"]["mode"], "messages")

    def test_ws_frame_by_frame(self) -> None:
        line = self.assert_talks("/stream/", secure=False)
        self.assertEqual(line["websocket"]["mode"], "streamed")

    def test_wss_message_by_message_once_the_authority_is_trusted(self) -> None:
        self.trust()
        line = self.assert_talks("/messages/", secure=True)
        self.assertEqual(line["websocket"]["mode"], "messages")

    def test_wss_frame_by_frame_once_the_authority_is_trusted(self) -> None:
        self.trust()
        line = self.assert_talks("/stream/", secure=True)
        self.assertEqual(line["websocket"]["mode"], "streamed")

    def test_a_rule_changes_what_the_page_gets(self) -> None:
        self.trust()
        for secure in (False, True):
            told = self.shows(self.page("/changed/", secure))
            self.assertEqual(told[1], "a bar: größer 🙂", secure)
            self.assertEqual(told[-1], CLOSED, secure)

    def test_a_rule_changes_what_the_browser_shows(self) -> None:
        png = self.screenshot(self.page("/changed/", secure=False))
        self.assertEqual(tuple(pixel(png, 400, 400)), (99, 0, 77))
