"""permessage-deflate: what is agreed on, and that messages come out as they went in, within bounds."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence

from autobahn.exception import PayloadCorruptError
from autobahn.websocket.compress_deflate import PerMessageDeflate
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.extensions.permessage_deflate import PerMessageDeflate as PeerDeflate
from websockets.frames import Frame, Opcode

from streamproxy.filters.chain import PIECE
from streamproxy.filters.message_deflate import (
    Deflate,
    Deflated,
    Inflate,
    MessageCodingError,
    Terms,
    TooLarge,
    agreed_with_origin,
    answer,
    offer,
)
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import WireError
from streamproxy.wire.upgrade import Extension, read_extensions
from tests.filters.cutting import pieces, singly

MOST = 1 << 24
# "Hello" as in RFC 7692 section 7.2.3: compressed, compressed again with what came before, stored, in a block that says
# it is the last, in two blocks.
HELLO = bytes.fromhex("f248cdc9c90700")
AGAIN = bytes.fromhex("f200110000")
STORED = bytes.fromhex("000500faff48656c6c6f00")
FINAL = bytes.fromhex("f348cdc9c9070000")
TWO_BLOCKS = bytes.fromhex("f24805000000ffffcac9c90700")

# Words that repeat at any distance, and noise that doesn't.
WORDS = [b"", b"a", b"foo bar", b'{"price": 12.5}', bytes(3000), b"ab" * 500, os.urandom(300)]
MESSAGES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), min_size=1, max_size=6)
TERMS = st.builds(Terms, st.integers(8, 15), st.booleans())


def extensions_of(line: bytes) -> tuple[Extension, ...]:
    return read_extensions(Headers([(b"Sec-WebSocket-Extensions", line)]))


def inflated(inflate: Inflate, parts: Iterable[bytes], most: int = MOST) -> bytes:
    """A message of these parts, inflated."""
    inflate.begin()
    out: list[bytes] = []
    for part in parts:
        for piece in inflate.feed(part, most):
            assert len(piece) <= PIECE
            out.append(piece)
    out += inflate.end()
    return b"".join(out)


class OfferTests(SynchronousTestCase):
    def test_the_origin_is_offered_what_the_client_offered(self) -> None:
        with_bits = b"permessage-deflate; client_max_window_bits"
        for line, expected in (
            (b"permessage-deflate", b"permessage-deflate"),
            (b"permessage-deflate; client_max_window_bits", with_bits),
            (b"permessage-deflate; client_max_window_bits=10", with_bits),
            (b"permessage-deflate; client_max_window_bits=8", with_bits),
            (b"x, Permessage-Deflate; Client_Max_Window_Bits, y", with_bits),
            (b"permessage-deflate; client_no_context_takeover", b"permessage-deflate"),
            (b"permessage-deflate; server_no_context_takeover; server_max_window_bits=9", b"permessage-deflate"),
            (b"permessage-deflate; what, permessage-deflate; client_max_window_bits", with_bits),
            (b"permessage-deflate, permessage-deflate; client_max_window_bits", b"permessage-deflate"),
        ):
            self.assertEqual(offer(extensions_of(line)), expected, line)

    def test_the_first_offer_that_can_be_is_accepted_as_it_was_made(self) -> None:
        name = b"permessage-deflate"
        largest = Terms()
        table: list[tuple[bytes, bytes, Terms, Terms]] = [
            (b"", b"", largest, largest),
            (b"; client_max_window_bits", b"", largest, largest),
            (b"; client_max_window_bits=10", b"; client_max_window_bits=10", Terms(10), largest),
            (b"; client_max_window_bits=8", b"", largest, largest),
            (b'; server_max_window_bits="9"', b"; server_max_window_bits=9", largest, Terms(9)),
            (b"; server_no_context_takeover", b"; server_no_context_takeover", largest, Terms(15, True)),
            (b"; client_no_context_takeover", b"; client_no_context_takeover", Terms(15, True), largest),
            (b"; server_max_window_bits=8, permessage-deflate", b"", largest, largest),
            (b"; server_max_window_bits=16, x, permessage-deflate", b"", largest, largest),
            (
                b"; client_no_context_takeover; server_max_window_bits=12, permessage-deflate",
                b"; server_max_window_bits=12; client_no_context_takeover",
                Terms(15, True),
                Terms(12),
            ),
        ]
        for parameters, answered, client, server in table:
            expected = (name + answered, Deflated(client, server))
            self.assertEqual(answer(extensions_of(name + parameters)), expected, parameters)

    def test_a_wrong_offer_is_declined_and_not_passed_on(self) -> None:
        for line in (
            b"",
            b"x-webkit-deflate-frame",
            b"permessage-deflate; what",
            b"permessage-deflate; server_max_window_bits",
            b"permessage-deflate; server_max_window_bits=8",
            b"permessage-deflate; server_max_window_bits=7",
            b"permessage-deflate; server_max_window_bits=16",
            b"permessage-deflate; server_max_window_bits=09",
            b"permessage-deflate; server_max_window_bits=+9",
            b"permessage-deflate; server_max_window_bits=1_0",
            b"permessage-deflate; client_max_window_bits=x",
            b"permessage-deflate; client_max_window_bits=010",
            b"permessage-deflate; client_max_window_bits=16",
            b"permessage-deflate; client_max_window_bits; client_max_window_bits",
            b"permessage-deflate; client_no_context_takeover=1",
            b"permessage-deflate; server_no_context_takeover=true",
            b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ):
            self.assertIsNone(answer(extensions_of(line)), line)
            self.assertIsNone(offer(extensions_of(line)), line)

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["client", "server"]),
                st.sampled_from(["_max_window_bits", "_no_context_takeover", "_no"]),
                st.sampled_from([None, "8", "9", "15", "16", "09"]),
            ),
            max_size=3,
        )
    )
    def test_what_is_accepted_is_what_another_server_accepts(self, chosen: list[tuple[str, str, str | None]]) -> None:
        parameters = [(side + name, value) for side, name, value in chosen]
        line = "; ".join(["permessage-deflate", *[name + (f"={value}" if value else "") for name, value in parameters]])
        ours = answer(extensions_of(line.encode()))
        try:
            ServerPerMessageDeflateFactory().process_request_params(parameters, [])
        except NegotiationError:
            self.assertIsNone(ours)
        else:
            self.assertTrue(ours or ("server_max_window_bits", "8") in parameters)

    @settings(max_examples=100, deadline=None)
    @given(st.booleans(), st.booleans(), st.sampled_from([None, 9, 12, 15]), st.sampled_from([None, True, 9, 12, 15]))
    def test_a_client_and_its_server_agree(
        self, server_alone: bool, client_alone: bool, server_bits: int | None, client_bits: int | bool | None
    ) -> None:
        factory = ClientPerMessageDeflateFactory(server_alone, client_alone, server_bits, client_bits)
        written = [name + (f"={value}" if value else "") for name, value in factory.get_request_params()]
        ours = answer(extensions_of("; ".join(["permessage-deflate", *written]).encode()))
        assert ours is not None
        parameters = [(name.decode(), value and value.decode()) for name, value in extensions_of(ours[0])[0].parameters]
        theirs = factory.process_response_params(parameters, [])
        assert isinstance(theirs, PeerDeflate)
        self.assertEqual(
            Deflated(
                Terms(theirs.local_max_window_bits, theirs.local_no_context_takeover),
                Terms(theirs.remote_max_window_bits, theirs.remote_no_context_takeover),
            ),
            ours[1],
        )


class AgreedTests(SynchronousTestCase):
    offered = b"permessage-deflate; client_max_window_bits"

    def test_an_answer_without_it_agrees_on_nothing(self) -> None:
        self.assertIsNone(agreed_with_origin((), self.offered))
        self.assertIsNone(agreed_with_origin(extensions_of(b"x; y"), self.offered))

    def test_an_answer_says_how_either_side_compresses(self) -> None:
        for parameters, client, server in (
            (b"", Terms(), Terms()),
            (b"; client_max_window_bits=11", Terms(11), Terms()),
            (b"; client_max_window_bits=8; server_max_window_bits=8", Terms(8), Terms(8)),
            (b"; server_max_window_bits=9; server_no_context_takeover", Terms(), Terms(9, True)),
            (b"; client_no_context_takeover", Terms(15, True), Terms()),
        ):
            extensions = extensions_of(b"x, permessage-deflate" + parameters)
            self.assertEqual(agreed_with_origin(extensions, self.offered), Deflated(client, server), parameters)

    def test_a_wrong_answer_is_refused_in_words(self) -> None:
        wrong = "the origin's permessage-deflate has parameters that may not stand there"
        twice = "the origin's Sec-WebSocket-Extensions names permessage-deflate twice"
        table = [
            (b"permessage-deflate; what", wrong),
            (b"permessage-deflate; client_max_window_bits", wrong),
            (b"permessage-deflate; server_max_window_bits", wrong),
            (b"permessage-deflate; client_max_window_bits=7", wrong),
            (b"permessage-deflate; server_max_window_bits=16", wrong),
            (b"permessage-deflate; server_max_window_bits=015", wrong),
            (b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", wrong),
            (b"permessage-deflate; server_no_context_takeover=1", wrong),
            (b"permessage-deflate; client_no_context_takeover; client_no_context_takeover", wrong),
            (b"permessage-deflate, permessage-deflate", twice),
            (b"permessage-deflate; client_max_window_bits=9, x, permessage-deflate", twice),
        ]
        for line, reason in table:
            error = self.assertRaises(WireError, agreed_with_origin, extensions_of(line), self.offered)
            self.assertEqual((error.status, error.reason), (502, reason), line)

    def test_a_window_of_the_clients_that_wasnt_offered_is_refused(self) -> None:
        extensions = extensions_of(b"permessage-deflate; client_max_window_bits=15")
        error = self.assertRaises(WireError, agreed_with_origin, extensions, b"permessage-deflate")
        self.assertEqual(error.status, 502)
        self.assertIn("wasn't offered", error.reason)


class InflateTests(SynchronousTestCase):
    def test_the_examples_of_the_rfc_are_read(self) -> None:
        inflate = Inflate(Terms())
        for payload in (HELLO, HELLO, AGAIN, STORED, TWO_BLOCKS, FINAL, HELLO, AGAIN):
            self.assertEqual(inflated(inflate, [payload]), b"Hello", payload)
            inflate_alone = Inflate(Terms(15, True))
            if payload != AGAIN:
                self.assertEqual(inflated(inflate_alone, [payload]), b"Hello", payload)

    def test_messages_that_refer_to_others_cant_be_read_alone(self) -> None:
        inflate = Inflate(Terms(15, True))
        self.assertEqual(inflated(inflate, [HELLO]), b"Hello")
        self.assertRaises(MessageCodingError, inflated, inflate, [AGAIN])

    def test_an_empty_message_is_empty_however_it_is_written(self) -> None:
        for terms in (Terms(), Terms(9, True)):
            inflate = Inflate(terms)
            for parts in (
                [b"\x00"],
                [b""],
                [],
                [b"", b"\x00", b""],
                [b"\x02\x00"],
                [b"\x03\x00"],
                [b"\x03"],
                [b"\x03\x00\x00"],
                [b"\x01"],
            ):
                self.assertEqual(inflated(inflate, parts), b"", parts)
                # And what comes after it isn't harmed.
                self.assertEqual(inflated(inflate, [HELLO]), b"Hello", parts)

    def test_a_block_that_says_it_is_the_last_isnt(self) -> None:
        bare = zlib.compressobj(9, zlib.DEFLATED, -15)
        final = bare.compress(b"one, ") + bare.flush()
        for end in (b"", b"\x00"):
            for number in (1, 2, 50):
                message = (final + b"\x00\x00\x00\xff\xff") * number + final + end
                inflate = Inflate(Terms())
                for parts in ([message], singly(message)):
                    self.assertEqual(inflated(inflate, parts), b"one, " * (number + 1))
                self.assertEqual(inflated(inflate, [HELLO]), b"Hello")

    @settings(max_examples=150, deadline=None)
    @given(MESSAGES, TERMS, st.lists(st.integers(0, 4000), max_size=12))
    def test_any_cut_of_a_message_inflates_to_the_same(
        self, messages: list[list[bytes]], terms: Terms, cuts: list[int]
    ) -> None:
        deflate, inflate, whole = Deflate(terms), Inflate(terms), Inflate(terms)
        for message in messages:
            payload = b"".join(deflate.compress(message))
            self.assertEqual(inflated(whole, [payload]), b"".join(message))
            self.assertEqual(inflated(inflate, pieces(payload, cuts)), b"".join(message))

    def test_a_message_cut_into_single_bytes_inflates_to_the_same(self) -> None:
        text = b"".join(random.Random(5).choices(WORDS, k=100))
        for terms in (Terms(), Terms(9, True)):
            payload = b"".join(Deflate(terms).compress([text]))
            self.assertEqual(inflated(Inflate(terms), singly(payload)), text)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5), st.booleans())
    def test_garbage_is_an_error_however_it_is_cut(self, garbage: bytes, cuts: list[int], alone: bool) -> None:
        results: list[bytes | type[Exception]] = []
        for parts in ([garbage], pieces(garbage, cuts), singly(garbage)):
            try:
                results.append(inflated(Inflate(Terms(15, alone)), parts, 1000))
            except (MessageCodingError, TooLarge) as error:
                results.append(type(error))
        self.assertEqual(results, results[:1] * 3)

    def test_what_another_reader_refuses_is_refused(self) -> None:
        for garbage in (b"\x07", b"\xff\xff", b"\x00\x01\x00\x00\x00", b"\x02\xff\xff\xff", HELLO + b"\x06"):
            peer = PerMessageDeflate(True, False, False, 0, 0, None)
            peer.start_decompress_message()
            self.assertRaises(PayloadCorruptError, peer.decompress_message_data, garbage + b"\x00\x00\xff\xff")
            self.assertRaises(MessageCodingError, inflated, Inflate(Terms()), [garbage])

    def test_a_message_cut_short_is_refused_where_its_end_would_be_read_as_more(self) -> None:
        bare = zlib.compressobj(9, zlib.DEFLATED, -15)
        message = bare.compress(b"The quick brown fox jumps over the lazy dog") + bare.flush(zlib.Z_SYNC_FLUSH)
        for cut in range(5, 30):
            self.assertRaises(MessageCodingError, inflated, Inflate(Terms()), [message[:cut]])


class BoundTests(SynchronousTestCase):
    def made_before_the_end(self, inflate: Inflate, parts: Iterable[bytes], most: int) -> int:
        """How many bytes came before it was too large."""
        made = 0
        inflate.begin()
        try:
            for part in parts:
                for piece in inflate.feed(part, most):
                    made += len(piece)
        except TooLarge:
            return made
        raise AssertionError("it wasn't too large")

    def test_a_message_may_have_most_bytes_and_not_one_more(self) -> None:
        for size in (0, 1, 5, PIECE - 1, PIECE, PIECE + 1, 200000):
            payload = Deflate(Terms()).compress([bytes(size + 1)])[0]
            self.assertEqual(len(inflated(Inflate(Terms()), [payload], size + 1)), size + 1)
            self.assertLessEqual(self.made_before_the_end(Inflate(Terms()), [payload], size), size)
            self.assertLessEqual(self.made_before_the_end(Inflate(Terms()), singly(payload), size), size)
        self.assertEqual(inflated(Inflate(Terms()), [b"\x00"], 0), b"")

    def test_each_message_has_the_limit_for_itself(self) -> None:
        deflate, inflate = Deflate(Terms()), Inflate(Terms())
        for _ in range(5):
            self.assertEqual(len(inflated(inflate, deflate.compress([bytes(900), bytes(100)]), 1000)), 1000)

    def test_a_bomb_stops_at_the_limit_in_flat_memory(self) -> None:
        bomb = Deflate(Terms()).compress([bytes(41 << 20)])[0]
        self.assertLess(len(bomb), 50000)
        for most in (1000, 1 << 20, 40 << 20):
            inflate = Inflate(Terms())
            tracemalloc.start()
            try:
                made = self.made_before_the_end(inflate, [bomb], most)
                held = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertGreater(made, most - PIECE)
            self.assertLessEqual(made, most)
            # Two pieces, a third as it is made, and what zlib has.
            self.assertLess(held, 300000)

    def test_many_streams_and_empty_blocks_cost_what_their_bytes_cost(self) -> None:
        for block in (b"\x03\x00", b"\x00\x00\x00\xff\xff", b"\x01\x00\x00\xff\xff"):
            inflate = Inflate(Terms())
            inflate.begin()
            tracemalloc.start()
            try:
                parts = list(inflate.feed(block * 20000, 0))
                held = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertEqual(b"".join(parts), b"")
            # A turn may end within it.
            self.assertGreater(len(parts), 4)
            self.assertLess(held, 20000 * len(block) + 100000)

    def test_nothing_is_held_before_a_message_and_after_one_no_more_than_its_window_needs(self) -> None:
        def held_by(count: int, messages: Sequence[bytes], terms: Terms) -> float:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            pairs = [(Deflate(terms), Inflate(terms)) for _ in range(count)]
            for deflate, inflate in pairs:
                for message in messages:
                    inflated(inflate, deflate.compress([message]))
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            return held / count

        noise = os.urandom(100000)
        self.assertLess(held_by(20, [], Terms()), 1000)
        self.assertLess(held_by(20, [b""], Terms(15, True)), 1000)
        self.assertLess(held_by(20, [noise], Terms(15, True)), 1000)
        self.assertLess(held_by(20, [noise] * 3, Terms()), 125000)
        self.assertLess(held_by(20, [noise], Terms(9)), 65000)


class DeflateTests(SynchronousTestCase):
    def test_an_empty_message_is_one_octet(self) -> None:
        deflate = Deflate(Terms())
        for before in ([], [b"some"], [b""]):
            deflate.compress(before)
            self.assertEqual(deflate.compress([b""]), [b"\x00"])

    def test_each_fragment_can_be_inflated_when_it_has_come(self) -> None:
        parts = [b"foo bar", b"", b"", b"foo bar baz" * 50, b"", b"q"]
        for ending in ([], [b""], [b"", b""]):
            for terms in (Terms(), Terms(8), Terms(9, True)):
                deflate, inflate = Deflate(terms), Inflate(terms)
                for _ in range(3):
                    message = parts + ending
                    payloads = deflate.compress(message)
                    self.assertEqual(len(payloads), len(message))
                    inflate.begin()
                    for part, payload in zip(message, payloads, strict=True):
                        self.assertEqual(b"".join(inflate.feed(payload, MOST)), part)
                    self.assertEqual(b"".join(inflate.end()), b"")

    def test_nothing_is_referred_to_beyond_the_window_that_was_agreed_on(self) -> None:
        words = random.Random(7).choices([os.urandom(40) for _ in range(300)], k=3000)
        text = b"".join(words)
        for bits in range(8, 16):
            payload = Deflate(Terms(bits)).compress([text])[0]
            # Given byte by byte, zlib has only its window to refer to.
            strict = zlib.decompressobj(-bits)
            self.assertEqual(b"".join([strict.decompress(byte) for byte in singly(payload)]), text)
        far = Deflate(Terms(13)).compress([text])[0]
        strict = zlib.decompressobj(-10)
        self.assertRaises(zlib.error, lambda: [strict.decompress(byte) for byte in singly(far)])

    def test_messages_compress_even_in_the_smallest_window(self) -> None:
        self.assertLess(len(Deflate(Terms(8)).compress([bytes(10000)])[0]), 100)

    def test_a_repeated_message_is_short_unless_each_stands_alone(self) -> None:
        message = os.urandom(500)
        deflate, alone = Deflate(Terms()), Deflate(Terms(15, True))
        sizes = [(len(deflate.compress([message])[0]), len(alone.compress([message])[0])) for _ in range(3)]
        self.assertGreater(sizes[0][0], 500)
        self.assertLess(sizes[1][0], 50)
        self.assertEqual({size for _, size in sizes}, {sizes[0][1]})

    @settings(max_examples=100, deadline=None)
    @given(MESSAGES, st.integers(9, 15), st.booleans())
    def test_autobahn_reads_what_is_written_and_the_other_way_round(
        self, messages: list[list[bytes]], bits: int, alone: bool
    ) -> None:
        deflate, inflate = Deflate(Terms(bits, alone)), Inflate(Terms(bits, alone))
        reader = PerMessageDeflate(True, False, alone, 0, bits, None)
        writer = PerMessageDeflate(False, False, alone, 0, bits, None)
        for message in messages:
            reader.start_decompress_message()
            read = b"".join([reader.decompress_message_data(payload) for payload in deflate.compress(message)])
            reader.end_decompress_message()
            self.assertEqual(read, b"".join(message))
            writer.start_compress_message()
            written = [writer.compress_message_data(part) for part in message]
            written.append(writer.end_compress_message())
            self.assertEqual(inflated(inflate, written), b"".join(message))

    @settings(max_examples=100, deadline=None)
    @given(MESSAGES, st.integers(9, 15), st.booleans())
    def test_websockets_reads_what_is_written_and_the_other_way_round(
        self, messages: list[list[bytes]], bits: int, alone: bool
    ) -> None:
        deflate, inflate = Deflate(Terms(bits, alone)), Inflate(Terms(bits, alone))
        peer = PeerDeflate(alone, alone, bits, bits)
        for message in messages:
            last = len(message) - 1
            read = []
            for at, payload in enumerate(deflate.compress(message)):
                opcode = Opcode.CONT if at else Opcode.BINARY
                read.append(bytes(peer.decode(Frame(opcode, payload, at == last, not at)).data))
            self.assertEqual(read, message)
            written = []
            for at, part in enumerate(message):
                opcode = Opcode.CONT if at else Opcode.BINARY
                written.append(bytes(peer.encode(Frame(opcode, part, at == last)).data))
            self.assertEqual(inflated(inflate, written), b"".join(message))
