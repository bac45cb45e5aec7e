"""A thousand streams that run while the configuration is read again ten times: none of them is harmed."""

from __future__ import annotations

import os
import selectors
import signal
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import WAIT, Client, Origin, Proxy, Wire, chunk, new_folder, want_open_files

STREAMS = 1000
RELOADS = 10
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# Each way in which a stream may go: relayed, read by a rule, and through a script.
PATHS = ("/plain", "/replaced", "/scripted")
RULES = """
scripts: [script.py]
rules:
  - {{match: {{host: version.example}}, respond: {{text: "{version}"}}}}
  - {{match: {{path: "/replaced*"}}, response: {{replace: [{{find: internal.example, with: "{version}"}}]}}}}
"""
SCRIPT = """
def same(chunks):
    for chunk in chunks:
        yield chunk

def responseheaders(flow):
    if flow.request.path.startswith("/scripted"):
        flow.response.stream = same
"""


def event(stream: int, number: int) -> bytes:
    return b"id: %d\ndata: event %d of stream %d at internal.example\n\n" % (number, number, stream)


class Reader:
    """A client of one stream: what came of it so far, unchunked when it is asked for."""

    def __init__(self, client: Client) -> None:
        self.sock = client.sock
        self.wire = bytearray()
        self.ended = False

    def content(self) -> bytes:
        parts, at = [], 0
        while True:
            end = self.wire.index(b"\r\n", at)
            size = int(self.wire[at:end], 16)
            if size == 0:
                assert self.wire[end:] == b"\r\n\r\n", bytes(self.wire[end:])
                return b"".join(parts)
            parts.append(bytes(self.wire[end + 2 : end + 2 + size]))
            at = end + 2 + size + 2


class Readers:
    """Reads all of them, in one thread, to their ends."""

    def __init__(self, case: SynchronousTestCase, readers: list[Reader]) -> None:
        self._selector = selectors.DefaultSelector()
        for reader in readers:
            self._selector.register(reader.sock, selectors.EVENT_READ, reader)
        self._left = len(readers)
        self._stop = False
        self.failure = ""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        case.addCleanup(self._end)

    def _run(self) -> None:
        while self._left and not self._stop:
            for key, _ in self._selector.select(0.1):
                reader = key.data
                try:
                    data = reader.sock.recv(65536)
                except OSError as error:
                    self.failure = self.failure or f"a stream broke: {error}"
                    data = b""
                reader.wire += data
                if not data or reader.wire.endswith(b"\r\n0\r\n\r\n"):
                    reader.ended = True
                    self._selector.unregister(reader.sock)
                    self._left -= 1

    def _end(self) -> None:
        self._stop = True
        self.thread.join(WAIT)
        self._selector.close()


class ReloadedStreamsTests(SynchronousTestCase):
    def write(self, version: str) -> None:
        (self.folder / "rules.yaml").write_text(RULES.format(version=version))

    def reload(self, number: int) -> None:
        self.write(f"version-{number}")
        os.kill(self.proxy.pid, signal.SIGHUP)
        words = "] reloaded: "
        self.proxy.wait_for(lambda lines: "\n".join(lines).count(words) >= number, f"reload {number}")

    def version(self) -> bytes:
        client = Client(self, self.proxy)
        client.send(b"GET http://version.example/ HTTP/1.1\r\nHost: version.example\r\n\r\n")
        return client.read_body(client.read_head())

    def test_none_of_them_is_harmed_and_each_keeps_what_it_began_with(self) -> None:
        want_open_files(self, 3 * STREAMS + 200)
        self.folder = new_folder(self)
        (self.folder / "script.py").write_text(SCRIPT)
        self.proxy = Proxy(self, RULES.format(version="version-0"), folder=self.folder)
        origin = Origin(self)
        wires: list[Wire] = []
        readers: list[Reader] = []
        for number in range(STREAMS):
            client = Client(self, self.proxy)
            client.get(origin, f"{PATHS[number % 3]}/{number}")
            wire = origin.accept()
            self.assertIn(b"/%d " % number, wire.read_head())
            wire.send(HEAD)
            client.read_head()
            wires.append(wire)
            readers.append(Reader(client))
        reading = Readers(self, readers)
        sent = 0
        for reload in range(1, RELOADS + 1):
            for turn in range(2):
                for number, wire in enumerate(wires):
                    wire.send(chunk(event(number, sent)))
                    # It comes while the streams are under way, not between them.
                    if turn and number == STREAMS // 2:
                        self.reload(reload)
                sent += 1
            self.assertEqual(self.version(), b"version-%d" % reload)
        for wire in wires:
            wire.send(b"0\r\n\r\n")
        reading.thread.join(WAIT)
        self.assertEqual(reading.failure, "")
        for number, reader in enumerate(readers):
            wanted = b"".join(event(number, each) for each in range(sent))
            if PATHS[number % 3] == "/replaced":
                wanted = wanted.replace(b"internal.example", b"version-0")
            self.assertTrue(reader.ended, f"stream {number} didn't end")
            self.assertEqual(reader.content(), wanted, f"stream {number}")
        outcomes = {line["outcome"] for line in self.proxy.recorded(STREAMS + RELOADS)}
        self.assertEqual(outcomes, {"forwarded", "answered"})
