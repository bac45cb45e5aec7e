"""WebSockets that stream: bytes pass as they came and when they came, and what they say is recorded beside that."""

from __future__ import annotations

import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from streamproxy.filters.websocket import MOST_MESSAGES
from streamproxy.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameReader,
    close_payload,
    frame_head,
)
from tests.conversation import client, client_hears, origin, origin_hears, settings_of
from tests.fakes import TCP, TLS
from tests.filters.cutting import pieces, singly
from tests.proxy.websocket_talk import (
    MASK,
    STREAMING,
    PressureTests,
    SocketConversationTestCase,
    SocketTestCase,
    asked,
    asking,
    deflating,
    down,
    down_close,
    granted,
    granting,
    said_by,
    up,
    up_close,
)
from tests.wire.reading import property_of

# What an origin may say that is wrong, and what is told of it.
WRONG = [
    (b"\x83\x00", "a frame with the reserved opcode 3"),
    (b"\xc1\x00", "a frame with a reserved bit that no extension uses"),
    (b"\x81\x81MASKx", "an origin's frame with a mask"),
    (b"\x80\x00", "a continuation of no message"),
    (b"\x01\x00\x81\x00", "a new message inside another one"),
    (b"\x09\x00", "a control frame in fragments"),
    (b"\x89\x7e\x00\x7e", "a control frame of more than 125 bytes"),
    (b"\x82\x7e\x00\x01x", "a frame's length in more bytes than it needs"),
    (b"\x88\x01x", "a close frame of one byte"),
    (b"\x88\x02\x03\xee", "a close frame with the code 1006, which can't be sent"),
    (b"\x88\x03\x03\xe8\xff", "a close frame whose reason isn't UTF-8"),
]


class StreamTests:
    def test_frames_pass_as_they_are_at_every_split(self):
        said = up(TEXT, b"a", final=False) + up(PING, b"p") + up(CONTINUATION, b"b" * 130) + up(BINARY, b"")
        told = down(BINARY, b"c", final=False) + down(CONTINUATION, b"", final=False) + down(CONTINUATION, b"d")
        flows = self.play(
            client(asking()),
            origin_hears(asked()),
            origin(granting() + told),
            client_hears(granted() + told),
            client(said),
            origin_hears(said),
            origin(down(PONG, b"p") + down_close(3000, "so")),
            client_hears(down(PONG, b"p") + down_close(3000, "so")),
            client(up_close(3000)),
            origin_hears(up_close(3000)),
            rules=STREAMING,
        )
        self.assertEqual(flows, [])

    def test_what_is_malformed_passes_too_and_is_told(self):
        for wrong, why in WRONG:
            for behind in (b"", b"\xff\xff any bytes", down(TEXT, b"x")):
                for size in (None, 3, 1):
                    self.open(STREAMING)
                    said = down(TEXT, b"right") + wrong + behind
                    self.origin.say(*(singly(said) if size else [said]))
                    self.assertEqual(self.heard(), said)
                    self.assertEqual([message.content for message in self.data.messages], [b"right"])
                    # The other way goes on as well.
                    self.client.say(up(TEXT, b"too"))
                    self.assertEqual(self.origin_heard(), up(TEXT, b"too"))
                    self.end_both()
                    self.check_ended(error=f"the origin broke the WebSocket protocol: {why}")
                    self.assertEqual(self.closed[0], 1006)

    def test_what_the_other_side_makes_of_it_passes(self):
        self.open(STREAMING)
        self.origin.say(b"\x83\x00")
        self.client.say(up_close(1002, "no"))
        self.assertEqual((self.heard(), self.origin_heard()), (b"\x83\x00", up_close(1002, "no")))
        self.end_both()
        self.check_ended(error="the origin broke the WebSocket protocol: a frame with the reserved opcode 3")
        self.assertEqual(self.closed, (1002, "no", True))

    def test_the_beginning_of_a_large_frame_passes_before_its_end(self):
        for from_client in (True, False):
            self.open(STREAMING)
            source, reader = self.peer(from_client), self.peer(not from_client)
            mask = MASK if from_client else b""
            reader.heard.clear()
            source.say(frame_head(BINARY, 1 << 40, mask)[:3])
            self.assertEqual(len(reader.take()), 3)
            source.say(frame_head(BINARY, 1 << 40, mask)[3:] + b"x")
            self.assertEqual(bytes(reader.take()), frame_head(BINARY, 1 << 40, mask)[3:] + b"x")
            for size in (1, 5000, 65536):
                reader.writes.clear()
                source.say(b"y" * size)
                self.assertEqual(len(reader.take()), size)
                self.assertLessEqual(max(reader.writes), 4096)
            # A ping of the other side isn't kept by it.
            reader.say(said_by(not from_client, PING, b"z"))
            self.assertTrue(source.take().endswith(said_by(not from_client, PING, b"z")))

    def test_the_extensions_are_theirs(self):
        # Bits that only an extension gives a meaning, at any place.
        said = up(TEXT, b"\xff\x00", reserved=4) + up(PING, b"", reserved=1)
        self.open(STREAMING, offers=(b"Sec-WebSocket-Extensions: x-any",), agrees=(b"Sec-WebSocket-Extensions: x-any",))
        self.client.say(said)
        self.assertEqual(self.origin_heard(), said)
        self.assertEqual((self.data.from_client.messages, self.data.from_client.pings), (1, 1))
        self.end_both()
        self.assertEqual(self.flow.error, "the connection ended without a close frame")


class TcpStreamTests(StreamTests, SocketConversationTestCase, SocketTestCase):
    manner = TCP

    def setUp(self):
        SocketTestCase.setUp(self)
        SocketConversationTestCase.setUp(self)


class TlsStreamTests(TcpStreamTests):
    manner = TLS


class AnyBytesTests(SocketTestCase):
    @given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=60)), max_size=8), st.integers(1, 9))
    @property_of(60)
    def test_any_bytes_pass(self, said: list[tuple[bool, bytes]], size: int):
        self.open(STREAMING)
        both = {True: b"", False: b""}
        heard = {True: b"", False: b""}
        for from_client, data in said:
            self.peer(from_client).say(*pieces(data, range(0, len(data), size)))
            both[from_client] += data
            heard[True] += self.origin_heard()
            heard[False] += self.heard()
        self.assertEqual(heard, both)
        readers = {from_client: FrameReader(from_client) for from_client in both}
        wrong = []
        for from_client, data in both.items():
            for part in readers[from_client].feed(data):
                if part.head.opcode == CLOSE:
                    break
            else:
                wrong += [readers[from_client].error] if readers[from_client].error else []
        self.end_both()
        words = [error.reason for error in wrong]
        self.assertTrue(not words or any(word in self.flow.error for word in words), (words, self.flow.error))


class RecordTests(SocketTestCase):
    def messages(self) -> list[tuple[bool, int, bytes, int, bool]]:
        return [(each.from_client, int(each.type), each.content, each.size, each.cut) for each in self.data.messages]

    def test_messages_are_recorded_unmasked_and_counted(self):
        for cut in (None, 1, 3):
            self.open(STREAMING)
            self.wait(3)
            said = up(TEXT, b"hel", final=False) + up(PING, b"") + up(CONTINUATION, b"lo") + up(BINARY, b"")
            told = down(BINARY, bytes(range(200))) + down(PONG, b"") * 2
            for peer, data in ((self.client, said), (self.origin, told)):
                peer.say(*(pieces(data, range(0, len(data), cut)) if cut else [data]))
            self.assertEqual(
                self.messages(),
                [
                    (True, TEXT, b"hello", 5, False),
                    (True, BINARY, b"", 0, False),
                    (False, BINARY, bytes(range(200)), 200, False),
                ],
            )
            self.assertEqual([(each.timestamp, each.streamed) for each in self.data.messages], [(3, True)] * 3)
            counts = [
                (each.messages, each.bytes, each.pings, each.pongs, each.dropped, each.injected)
                for each in (self.data.from_client, self.data.from_origin)
            ]
            self.assertEqual(counts, [(2, 5, 1, 0, 0, 0), (1, 200, 0, 2, 0, 0)])

    def test_only_their_beginning_is_kept(self):
        for size in (99, 100, 101, 70_000):
            for cut in (READ_AT_ONCE, 7, 1000):
                self.open(STREAMING + "limits: {capture: 100b}")
                content = bytes(number & 255 for number in range(size))
                half = size // 2
                data = up(BINARY, content[:half], final=False) + up(CONTINUATION, content[half:])
                for piece in pieces(data, range(0, len(data), cut)):
                    self.client.say(piece)
                    self.origin.take()
                self.assertEqual(self.messages(), [(True, BINARY, content[:100], size, size > 100)])

    def test_one_that_never_ends_is_in_no_record(self):
        self.open(STREAMING)
        self.client.say(up(TEXT, b"x" * 1000, final=False))
        self.assertEqual(self.messages(), [])

    def test_the_window_has_the_newest_ones_and_the_counters_all(self):
        self.open(STREAMING)
        for number in range(1000):
            self.client.say(up(TEXT, b"%d" % number))
            self.origin.say(down(PING, b""))
        kept = [int(message.content) for message in self.data.messages]
        self.assertEqual(kept, list(range(1000 - MOST_MESSAGES, 1000)))
        self.assertEqual((self.data.from_client.messages, self.data.from_client.bytes), (1000, 2890))
        self.assertEqual(self.data.from_origin.pings, 1000)

    def test_what_is_compressed_is_recorded_as_it_was_on_the_wire(self):
        self.open(STREAMING, offers=(deflating(),), agrees=(deflating(),))
        content = zlib.compress(b"hello" * 10, wbits=-15)
        self.client.say(up(TEXT, content, reserved=4) + up(TEXT, b"plain"))
        self.assertEqual(
            [(message.content, message.compressed) for message in self.data.messages],
            [(content, True), (b"plain", False)],
        )

    def test_a_large_message_takes_no_memory(self):
        self.open(STREAMING + "limits: {capture: 1k}")
        size = 64 << 20
        self.origin.say(frame_head(BINARY, size))
        chunk = bytes(65536)

        def some(times: int) -> None:
            for _ in range(times):
                self.origin.say(chunk)
                self.client.take()
                self.client.heard.clear()
                self.client.writes.clear()

        some(10)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            some(1000)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(grown, 200_000)
        some(size // 65536 - 1010)
        self.assertEqual(self.data.messages[0].size, size)

    def test_how_it_closed_is_told(self):
        for first in (True, False):
            for code, reason in ((1000, ""), (1001, "bye"), (4999, "grün")):
                self.open(STREAMING)
                for from_client, said in ((first, close_payload(code, reason)), (not first, close_payload(1000, ""))):
                    self.peer(from_client).say(said_by(from_client, CLOSE, said))
                self.end_both()
                self.check_ended()
                self.assertEqual(self.closed, (code, reason, first))

        self.open(STREAMING)
        self.client.say(up(CLOSE))
        self.origin.say(down(CLOSE))
        self.end_both()
        self.assertEqual(self.closed, (1005, "", True))


READ_AT_ONCE = 1 << 20


class TcpPressureTests(PressureTests, SocketTestCase):
    text = STREAMING
    manner = TCP


class TlsPressureTests(PressureTests, SocketTestCase):
    text = STREAMING
    manner = TLS


class PacedTests(SocketTestCase):
    def test_a_weak_network_is_one_for_frames_too(self):
        for text in ("", STREAMING):
            self.open(text + "rules: [{response: {pace: {rate: 10k}}}]")
            self.origin.say(down(BINARY, bytes(20480)))
            self.wait(0.2, 0.02)
            self.assertLess(len(self.heard()), 6000)
            self.wait(1, 0.02)
            self.assertGreater(len(self.heard()), 8000)
            self.wait(1, 0.02)
            self.assertTrue(self.client.heard.endswith(down(BINARY, bytes(20480))))

    def test_each_frame_is_as_late_as_the_network(self):
        for text in ("", STREAMING):
            self.begin(settings_of(text + "rules: [{request: {pace: {delay: 0.5}}}]"))
            self.client.say(asking())
            self.wait(0.5, 0.1)
            self.assertEqual(self.origin_heard(), asked())
            self.origin.say(granting())
            self.assertEqual(self.heard(), granted())
            self.client.say(up(TEXT, b"late"))
            self.wait(0.4, 0.1)
            self.assertEqual(self.origin_heard(), b"")
            self.wait(0.2, 0.1)
            self.assertEqual(self.origin_heard(), up(TEXT, b"late"))

    def test_the_last_of_it_goes_before_the_end(self):
        for text in ("", STREAMING):
            self.open(text + "rules: [{response: {pace: {rate: 10k}}}]")
            self.origin.say(down(BINARY, bytes(10240)) + down_close(1000))
            self.origin.end()
            self.wait(0.5, 0.02)
            self.assertFalse(self.has_ended(self.client))
            self.wait(1, 0.02)
            self.assertTrue(self.client.heard.endswith(down(BINARY, bytes(10240)) + down_close(1000)))
            self.assertTrue(self.has_ended(self.client))
