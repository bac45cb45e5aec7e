"""The clients of event streams: `python -m bench.event_load PORT ORIGIN STREAMS GAP COUNT APART [CODING [changed]]`.

PORT is the proxy's, or the origin's own, and ORIGIN that of `event_origin.py`. Each of STREAMS clients makes one
small request; then, APART seconds after each other, they ask on the same connections for COUNT events, GAP seconds
apart. All is one thread and epoll. The time of arrival is taken as soon as epoll returns; what came while it was
reading others gets a time of its own. With a CODING it is taken when the event has been decoded, and `changed` events
are what comes.

Every stream is checked to its end: its head, the framing, and each event's number and content; one that is lost,
doubled or out of order fails it all. Delays count from half a second after the last stream has its first event until
the first stream ends, so that all run beside each other. What came of it is the last line, as JSON, in milliseconds.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
import zlib
from typing import Any

import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
import zstandard

from bench.connection import Connection, WrongAnswer, check, get
from bench.event_origin import SIZE, read_event
from bench.figures import percentile
from bench.parts import want_files

READ = 65536
# How long nothing at all may happen, in seconds.
MOST_SILENCE = 30
WARM = 500_000_000


class Decoder:
    """Undoes a coding as it comes; "" changes nothing."""

    def __init__(self, coding: str) -> None:
        self._coder: Any = None
        if coding == "gzip":
            self._coder = zlib.decompressobj(wbits=31)
        elif coding == "br":
            self._coder = brotli.Decompressor()
        elif coding == "zstd":
            self._coder = zstandard.ZstdDecompressor().decompressobj()
        self.decode: Any = bytes
        if self._coder is not None:
            self.decode = self._coder.process if coding == "br" else self._coder.decompress

    @property
    def ended(self) -> bool:
        """Whether the coding's own end is there."""
        if self._coder is None:
            return True
        found: bool = self._coder.is_finished() if hasattr(self._coder, "is_finished") else self._coder.eof
        return found


class Stream:
    """One client. All times are in nanoseconds."""

    def __init__(self, port: int, origin: int, coding: str, changed: bool) -> None:
        self._connection = Connection.to(port)
        get(self._connection, f"http://127.0.0.1:{origin}/small", 600)
        self.sock = self._connection.sock
        self.asked_at = self.first_byte_at = 0
        self.sent: list[int] = []
        self.came: list[int] = []
        self.late: list[int] = []
        self.ended = False
        self._has_head = False
        # Wire that isn't understood yet; what is left of a chunk, with the end of its line; what there is of an event.
        self._wire = b""
        self._left = 0
        self._content = b""
        self._coding = coding
        self._decoder = Decoder(coding)
        self._changed = changed

    def ask(self, request: bytes) -> None:
        self.asked_at = time.monotonic_ns()
        check(self.sock.send(request) == len(request), "a request can't be sent")

    def read(self, now: int) -> None:
        """Read what is there, which came at `now`."""
        data = self.sock.recv(READ)
        check(bool(data), f"a stream was cut short after {len(self.came)} events")
        check(not self.ended, "there is more behind the end of a stream")
        self.first_byte_at = self.first_byte_at or now
        self._wire = self._wire + data if self._wire else data
        if not self._has_head:
            head, found, rest = self._wire.partition(b"\r\n\r\n")
            if not found:
                return
            check(head.startswith(b"HTTP/1.1 200 "), f"a wrong answer: {head!r}")
            check(b"\r\ntransfer-encoding: chunked" in head.lower(), f"it isn't in chunks: {head!r}")
            coded = f"\r\ncontent-encoding: {self._coding}".encode() in head.lower()
            check(coded or not self._coding, f"it isn't coded: {head!r}")
            self._has_head, self._wire = True, rest
        self._read_chunks()
        if self._coding:
            now = time.monotonic_ns()
        while len(self._content) >= SIZE:
            event, self._content = self._content[:SIZE], self._content[SIZE:]
            self._keep(event, now)

    def _read_chunks(self) -> None:
        wire, at = self._wire, 0
        while True:
            if not self._left:
                end = wire.find(b"\r\n", at)
                if end < 0:
                    break
                size = int(wire[at:end], 16)
                if not size:
                    # Its line is left where it is until all of the end is there.
                    self.ended = wire[end + 2 :] == b"\r\n"
                    check(self._decoder.ended or not self.ended, "the body ends in the middle of its coding")
                    check(self.ended or len(wire) - end < 4, f"trailers that nobody sent: {wire[at:]!r}")
                    break
                at, self._left = end + 2, size + 2
            part = wire[at : at + self._left]
            at += len(part)
            self._content += self._decoder.decode(part[: max(0, self._left - 2)])
            self._left -= len(part)
            if self._left:
                break
        self._wire = wire[at:]

    def _keep(self, data: bytes, now: int) -> None:
        event = read_event(data, self._changed)
        check(event is not None and event.number == len(self.sent), f"behind {len(self.sent)} events came {data!r}")
        assert event is not None
        self.sent.append(event.sent)
        # It was sent while we were reading others.
        self.came.append(now if now >= event.sent else time.monotonic_ns())
        self.late.append(event.late)


def run(streams: list[Stream], requests: list[bytes], apart: float) -> None:
    """Ask for all of them, and read them to their ends."""
    poll = select.epoll()
    by_file = {stream.sock.fileno(): stream for stream in streams}
    began, asked, open_streams = time.monotonic(), 0, len(streams)
    while open_streams:
        wait = began + asked * apart - time.monotonic() if asked < len(streams) else MOST_SILENCE
        ready = poll.poll(max(0.0, wait))
        now = time.monotonic_ns()
        check(bool(ready) or asked < len(streams), f"nothing came for {MOST_SILENCE} seconds")
        for file, _events in ready:
            stream = by_file[file]
            stream.read(now)
            if stream.ended:
                poll.unregister(file)
                open_streams -= 1
        if asked < len(streams) and time.monotonic() >= began + asked * apart:
            poll.register(streams[asked].sock.fileno(), select.EPOLLIN)
            streams[asked].ask(requests[asked])
            asked += 1


def tell(streams: list[Stream], busy: float) -> None:
    """Print what came of it. `busy` is the share of a core that this process used."""
    begin = max(stream.came[0] for stream in streams) + WARM
    end = min(stream.sent[-1] for stream in streams)
    counted = [
        (came - sent, late)
        for stream in streams
        for sent, came, late in zip(stream.sent, stream.came, stream.late, strict=True)
        if begin <= sent < end
    ]
    check(bool(counted), "no time in which all streams ran")
    told: dict[str, object] = {
        "events": sum(len(stream.came) for stream in streams),
        "counted": len(counted),
        "seconds": (end - begin) / 1e9,
        "busy": busy,
    }
    kinds = {
        "delay": [delay for delay, _late in counted],
        "late": [late for _delay, late in counted],
        "first_byte": [stream.first_byte_at - stream.asked_at for stream in streams],
        "first_event": [stream.came[0] - stream.asked_at for stream in streams],
    }
    for kind, values in kinds.items():
        in_ms = [value / 1e6 for value in values]
        told[kind] = {words: percentile(in_ms, share) for words, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
    print(json.dumps(told))


def main() -> None:
    port, origin, number, gap, count, apart, *more = sys.argv[1:]
    coding = more[0] if more else ""
    want_files(65536)
    try:
        streams = [Stream(int(port), int(origin), coding, "changed" in more) for _ in range(int(number))]
        host, beat = f"127.0.0.1:{origin}", f"of={number}&gap={round(float(gap) * 1e9)}&count={count}&coding={coding}"
        requests = [
            f"GET http://{host}/events?number={each}&{beat} HTTP/1.1\r\nHost: {host}\r\n"
            f"Accept: text/event-stream\r\nAccept-Encoding: {coding or 'identity'}\r\n\r\n".encode()
            for each in range(int(number))
        ]
        for stream in streams:
            stream.sock.setblocking(False)
            stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gc.freeze()
        gc.disable()
        used, began = time.process_time(), time.monotonic()
        run(streams, requests, float(apart))
        busy = (time.process_time() - used) / (time.monotonic() - began)
        for stream in streams:
            check(len(stream.came) == int(count), f"{len(stream.came)} of {count} events came")
        tell(streams, busy)
    except (WrongAnswer, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
