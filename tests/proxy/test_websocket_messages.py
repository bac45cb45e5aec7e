"""WebSockets whose messages are read: whole before they go on, unchanged as they came, compressed for each side."""

from __future__ import annotations

import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from streamproxy.filters.websocket import MOST_MESSAGES
from streamproxy.wire.websocket import BINARY, CONTINUATION, PING, PONG, RSV1, TEXT, frame
from tests.conversation import client, client_hears, origin, origin_hears
from tests.fakes import TCP, TLS
from tests.filters.cutting import pieces, singly
from tests.proxy.websocket_talk import (
    Heard,
    PressureTests,
    SocketConversationTestCase,
    SocketTestCase,
    asked,
    asking,
    deflating,
    down,
    down_close,
    frames_of,
    granted,
    granting,
    said_by,
    up,
    up_close,
)
from tests.wire.reading import property_of

MASKS = (b"\x01\x02\x03\x04", b"\0\0\0\0", b"\xff\xfe\xfd\xfc")


class MessageTests:
    def test_frames_go_on_as_they_came_at_every_split(self):
        first, second = "ü".encode()[:1], "ü".encode()[1:]
        hello = up(TEXT, first, final=False, mask=MASKS[0])
        hello += up(CONTINUATION, b"", final=False, mask=MASKS[1])
        end = up(CONTINUATION, second + b"b" * 130, mask=MASKS[2])
        told = down(BINARY, b"c", final=False) + down(CONTINUATION, b"") + down(TEXT, b"")
        self.play(
            client(asking()),
            origin_hears(asked()),
            origin(granting() + told),
            client_hears(granted() + told),
            client(hello),
            origin_hears(b""),
            client(up(PING, b"p", mask=MASKS[1])),
            origin_hears(up(PING, b"p", mask=MASKS[1])),
            origin(down(PONG, b"p")),
            client_hears(down(PONG, b"p")),
            client(end),
            origin_hears(hello + end),
            origin(down_close(3000, "so")),
            client_hears(down_close(3000, "so")),
            client(up_close(3000)),
            origin_hears(up_close(3000)),
        )

    def test_nothing_of_a_message_goes_before_its_last_byte(self):
        for from_client in (True, False):
            self.open()
            parts = [
                said_by(from_client, BINARY, b"x" * 5000, final=False),
                said_by(from_client, CONTINUATION, b"", final=False),
                said_by(from_client, CONTINUATION, b"y" * 70_000),
            ]
            source, reader = self.peer(from_client), self.peer(not from_client)
            reader.heard.clear()
            ping = said_by(from_client, PING, b"z")
            for data, heard in ((parts[0], b""), (ping, ping), (parts[1], b""), (ping, ping), (parts[2][:-1], b"")):
                source.say(data)
                self.assertEqual(reader.take(), heard)
            reader.heard.clear()
            reader.writes.clear()
            source.say(parts[2][-1:])
            reader.take()
            self.assertTrue(bytes(reader.heard) == b"".join(parts), len(reader.heard))
            self.assertLessEqual(max(reader.writes), 4096)

    def test_controls_go_at_once_and_in_order(self):
        self.open()
        said = [up(TEXT, b"a", final=False), up(PING, b"1"), up(PONG, b"2"), up(PING, b"3"), up(CONTINUATION, b"b")]
        self.client.say(b"".join(said))
        self.assertEqual(self.origin_heard(), said[1] + said[2] + said[3] + said[0] + said[4])
        self.assertEqual((self.data.from_client.pings, self.data.from_client.pongs), (2, 1))

    def test_the_proxy_makes_no_pong_of_its_own(self):
        self.open()
        self.client.say(up(PING, b"x") * 3)
        self.origin.say(down(PING, b"y"))
        self.assertEqual((self.heard(), self.origin_heard()), (down(PING, b"y"), up(PING, b"x") * 3))
        self.wait(3000, 100)
        self.assertEqual((self.heard(), self.origin_heard()), (b"", b""))


class TcpMessageTests(MessageTests, SocketConversationTestCase, SocketTestCase):
    manner = TCP

    def setUp(self):
        SocketTestCase.setUp(self)
        SocketConversationTestCase.setUp(self)


class TlsMessageTests(TcpMessageTests):
    manner = TLS


FRAMES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([TEXT, BINARY]),
        st.lists(st.text("aü€😀", max_size=20).map(str.encode), min_size=1, max_size=3),
        st.sampled_from(MASKS),
    ),
    max_size=6,
)


class AnyMessagesTests(SocketTestCase):
    @given(FRAMES, st.lists(st.integers(0, 400), max_size=6))
    @property_of(80)
    def test_any_cut_of_any_messages_gives_the_same_bytes(self, messages, cuts):
        for cut in (cuts, None):
            self.open()
            for from_client in (True, False):
                said = b""
                for by_client, opcode, parts, mask in messages:
                    if by_client is from_client:
                        last = len(parts) - 1
                        for at, part in enumerate(parts):
                            key = mask if from_client else b""
                            said += frame(CONTINUATION if at else opcode, part, key, at == last)
                self.peer(from_client).say(*(singly(said) if cut is None else pieces(said, cut)))
                self.assertEqual(self.origin_heard() if from_client else self.heard(), said)
            contents = [(by_client, b"".join(parts)) for by_client, _opcode, parts, _mask in messages]
            expected = sorted(contents, key=lambda each: not each[0])
            self.assertEqual([(each.from_client, each.content) for each in self.data.messages], expected)


class Peer:
    """Compresses what one side says and inflates what it hears, by zlib itself, as it agreed on."""

    def __init__(self, bits: int = 15, alone: bool = False, hears_bits: int = 15, hears_alone: bool = False) -> None:
        self._bits, self._alone, self._hears_bits, self._hears_alone = bits, alone, hears_bits, hears_alone
        self._coder = self._decoder = None

    def frames(self, from_client: bool, opcode: int, parts: list[bytes]) -> bytes:
        """A message in fragments."""
        if self._coder is None or self._alone:
            self._coder = zlib.compressobj(9, zlib.DEFLATED, -self._bits)
        made, last = b"", len(parts) - 1
        for at, part in enumerate(parts):
            data = self._coder.compress(part) + self._coder.flush(zlib.Z_SYNC_FLUSH)
            data = data.removesuffix(b"\0\0\xff\xff") if at == last else data
            made += said_by(from_client, CONTINUATION if at else opcode, data, at == last, 0 if at else RSV1)
        return made

    def read(self, frames: list[Heard]) -> list[tuple[int, list[bytes], bool]]:
        """Opcode, fragments, and whether it was compressed, of each message."""
        told: list[tuple[int, list[bytes], bool]] = []
        for each in frames:
            if each.opcode != CONTINUATION:
                compressed = each.reserved == RSV1
                told.append((each.opcode, [], compressed))
                if compressed and (self._decoder is None or self._hears_alone):
                    self._decoder = zlib.decompressobj(-self._hears_bits)
            data = each.payload
            if told[-1][2]:
                assert self._decoder is not None
                data = self._decoder.decompress(data + (b"\0\0\xff\xff" if each.final else b""))
            told[-1][1].append(data)
        return told


WORDS = b"".join(b"%d and " % number for number in range(3000))
TALK = [[b"hello"], [b"hello"], [b"foo " * 100, b"", b"bar"], [b""], [WORDS, WORDS[:5000]], [WORDS]]


class DeflateTests(SocketTestCase):
    def talk(self, with_client: Peer | None, with_origin: Peer | None) -> None:
        """Both say the same; a peer that doesn't compress is None."""
        peers = {True: with_client, False: with_origin}
        for from_client in (True, False):
            speaker, reader = peers[from_client], peers[not from_client]
            for parts in TALK:
                if speaker is None:
                    last = len(parts) - 1
                    said = b"".join(
                        said_by(from_client, CONTINUATION if at else TEXT, part, at == last)
                        for at, part in enumerate(parts)
                    )
                else:
                    said = speaker.frames(from_client, TEXT, parts)
                self.peer(from_client).say(*pieces(said, range(0, len(said), 1000)))
                heard = frames_of(self.origin_heard() if from_client else self.heard(), from_client)
                compressed = speaker is not None and reader is not None
                (found,) = (reader or Peer()).read(heard)
                self.assertTrue(found == (TEXT, parts, compressed), (from_client, found[0], len(found[1]), found[2]))

    def test_what_each_side_agreed_on_is_kept_to(self):
        window = b"client_max_window_bits"
        alone = b"server_no_context_takeover"
        client_alone = b"client_no_context_takeover"
        for offer, agree, with_client, with_origin in (
            ((), None, None, None),
            ((deflating(),), None, None, None),
            ((deflating(),), deflating(), Peer(), Peer()),
            ((deflating(window),), deflating(window + b"=9"), Peer(), Peer(hears_bits=9)),
            ((deflating(),), deflating(b"server_max_window_bits=8"), Peer(), Peer(bits=9)),
            ((deflating(),), deflating(alone, client_alone), Peer(), Peer(alone=True, hears_alone=True)),
            ((deflating(alone, client_alone),), deflating(), Peer(alone=True, hears_alone=True), Peer()),
            (
                (deflating(b"server_max_window_bits=9", window + b"=10"),),
                deflating(b"server_max_window_bits=10"),
                Peer(bits=10, hears_bits=9),
                Peer(bits=10),
            ),
        ):
            self.open("limits: {capture: 1m}", offers=offer, agrees=() if agree is None else (agree,))
            self.assertEqual(b"permessage-deflate" in self.granted, agree is not None)
            self.talk(with_client, with_origin)
            self.assertEqual([each.content for each in self.data.messages], [b"".join(parts) for parts in TALK] * 2)
            self.assertFalse(any(each.cut or each.compressed for each in self.data.messages))

    def test_what_came_plain_goes_on_plain(self):
        self.open(offers=(deflating(),), agrees=(deflating(),))
        self.client.say(up(TEXT, b"hello" * 100))
        self.assertEqual(self.origin_heard(), up(TEXT, b"hello" * 100))

    def test_a_context_is_used_where_it_may_be(self):
        for parameters, shorter in (((), True), ((b"server_no_context_takeover",), False)):
            self.open(offers=(deflating(*parameters),), agrees=(deflating(),))
            peer, sizes = Peer(), []
            for _ in range(2):
                self.origin.say(peer.frames(False, TEXT, [WORDS[:1000]]))
                sizes.append(len(self.heard()))
            self.assertEqual(sizes[1] < sizes[0] // 4, shorter, sizes)

    def test_a_side_that_declined_may_not_compress(self):
        self.open(offers=(deflating(),))
        self.client.say(Peer().frames(True, TEXT, [b"hello"]))
        self.origin.say(down_close(1001))
        (close,) = self.client_frames()
        self.assertEqual(close.payload[:2], (1002).to_bytes(2, "big"))

    def test_garbage_breaks_the_protocol(self):
        self.open(offers=(deflating(),), agrees=(deflating(),))
        self.origin.say(down(TEXT, b"\xff" * 20, reserved=RSV1))
        self.assertEqual(self.closed[0], 1002)
        self.assertIn("compressed data is broken", self.flow_error())

    def flow_error(self) -> str:
        self.wait(60)
        return self.flow.error


class RecordTests(SocketTestCase):
    def test_they_are_recorded_within_what_may_be(self):
        for size in (99, 100, 101, 70_000):
            self.open("limits: {capture: 100b}")
            content = bytes(number & 255 for number in range(size))
            self.client.say(up(BINARY, content))
            (message,) = self.data.messages
            self.assertEqual((message.content, message.size, message.cut), (content[:100], size, size > 100))
            self.assertFalse(message.streamed)
            self.assertEqual(self.origin_heard(), up(BINARY, content))

    def test_the_window_has_the_newest_ones_and_the_counters_all(self):
        self.open()
        for number in range(1000):
            self.client.say(up(TEXT, b"%d" % number))
            self.origin.say(down(PING, b""))
        kept = [int(message.content) for message in self.data.messages]
        self.assertEqual(kept, list(range(1000 - MOST_MESSAGES, 1000)))
        self.assertEqual((self.data.from_client.messages, self.data.from_client.bytes), (1000, 2890))
        self.assertEqual(self.data.from_origin.pings, 1000)

    def test_what_is_recorded_is_given_back_when_it_is_over(self):
        for text in ("", "stream_websockets: true"):
            self.open(text)
            budget = self.stage.proxy.recording
            before = budget.left
            self.client.say(up(TEXT, b"x" * 1000))
            self.assertEqual(budget.left, before - 1000)
            self.client.say(up_close(1000))
            self.origin.say(down_close(1000))
            self.end_both()
            self.assertEqual(budget.left, before)
            self.assertEqual(self.data.messages[0].content, b"x" * 1000)


class TcpPressureTests(PressureTests, SocketTestCase):
    manner = TCP


class TlsPressureTests(PressureTests, SocketTestCase):
    manner = TLS


class BoundTests(SocketTestCase):
    def peak(self, said: bytes) -> int:
        """What it takes that the origin says that, in bytes."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            self.origin.say(said)
            self.stage.turn()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    def test_bombs_are_inflated_one_by_one(self):
        # Each is a kilobyte that comes to a megabyte.
        self.open("limits: {websocket_message: 1m}", offers=(deflating(),), agrees=(deflating(),))
        peer = Peer(alone=True)
        said = b"".join(peer.frames(False, BINARY, [bytes(1 << 20)]) for _ in range(50))
        self.assertLess(len(said), 65536)
        self.assertLess(self.peak(said), 5 << 20)
        self.settle()
        self.assertEqual(self.data.from_origin.messages, 50)
        heard = Peer().read(self.client_frames())
        self.assertEqual([len(parts[0]) for _opcode, parts, _compressed in heard], [1 << 20] * 50)

    def test_what_comes_of_one_read_waits_in_the_read_where_nobody_takes_it(self):
        rule = f"rules: [{{response: {{replace: {{find: a, with: {'b' * 60000}}}}}}}]"
        self.open(rule)
        self.assertLess(self.peak(down(TEXT, b"a") * 20000), 3 << 20)
        self.assertLessEqual(self.relay._to_client.queued, 200_000)
        self.assertFalse(self.origin.reading)
        for _ in range(20):
            self.client.take(100_000)
        self.assertLessEqual(self.relay._to_client.queued, 200_000)
        self.assertIn(self.data.from_origin.messages, range(20, 60))
        self.assertTrue(bytes(self.client.heard).endswith(b"b" * 1000))

    def test_a_bomb_past_the_limit_is_none(self):
        self.open("limits: {websocket_message: 1m}", offers=(deflating(),), agrees=(deflating(),))
        said = Peer().frames(False, BINARY, [bytes(60 << 20)])
        self.assertLess(self.peak(said), 4 << 20)
        self.assertEqual(self.closed[0], 1009)
