"""What is written to a sink leaves at once where nothing waits, and in order in any case."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.sink import MOST_GATHERED, MOST_IN_A_TURN, Sink
from tests.fakes import BoundedTransport, SocketTransport


class Waiting:
    """Counts how often it is told that there is room."""

    told = 0

    def sink_has_room(self) -> None:
        self.told += 1


class SocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        for each in (ours, self.peer):
            each.setblocking(False)
            self.addCleanup(each.close)
        self.transport = SocketTransport(ours)
        self.sink = Sink(self.transport)
        self.sink.pump = self.waiting = Waiting()

    def fill(self) -> bytes:
        """Write until there is no room."""
        written = bytearray()
        while not self.sink.full:
            data = bytes([len(written) // 65536 % 256]) * 65536
            written += data
            self.sink.write(data)
        return bytes(written)

    def test_it_is_asked_for_more_when_nothing_waits(self) -> None:
        self.assertFalse(self.transport.streaming)

    def test_what_is_written_leaves_at_once(self) -> None:
        self.sink.write(b"at once")
        self.assertEqual(self.peer.recv(100), b"at once")
        self.assertEqual((self.transport.kept, self.sink.sent, self.sink.full), (b"", 7, False))

    def test_what_the_kernel_does_not_take_is_the_transports(self) -> None:
        written = self.fill()
        self.assertTrue(self.transport.kept)
        self.assertEqual(self.sink.sent, len(written))
        self.assertEqual(self.waiting.told, 0)
        self.assertEqual(self.transport.send_all(self.peer), written)
        self.assertEqual((self.waiting.told, self.sink.full), (1, False))

    def test_what_is_written_then_comes_behind_it(self) -> None:
        written = self.fill()
        self.peer.recv(65536 * 3)
        self.sink.write(b"the last")
        heard = self.transport.send_all(self.peer)
        self.assertTrue((written + b"the last").endswith(heard))
        self.assertTrue(heard.endswith(b"the last"))
        self.sink.write(b"at once again")
        self.assertEqual(self.peer.recv(100), b"at once again")

    def test_pieces_are_gathered_while_it_is_corked(self) -> None:
        self.sink.cork()
        self.sink.write(b"one ")
        self.sink.write(b"piece")
        self.assertRaises(BlockingIOError, self.peer.recv, 100)
        self.sink.uncork()
        self.assertEqual(self.peer.recv(100), b"one piece")

    def test_no_more_than_so_much_is_gathered(self) -> None:
        self.sink.cork()
        for _ in range(MOST_GATHERED // 4096):
            self.sink.write(b"x" * 4096)
        self.assertEqual(len(self.peer.recv(1 << 20)), MOST_GATHERED)
        while not self.sink.full:
            self.sink.write(b"x" * 4096)
        self.sink.uncork()
        self.assertTrue(self.sink.full)

    def test_a_peer_that_takes_all_there_is_keeps_no_turn(self) -> None:
        written, heard = 0, 0
        self.sink.cork()
        while not self.sink.full:
            self.sink.write(b"x" * MOST_GATHERED)
            written += MOST_GATHERED
            while True:
                try:
                    heard += len(self.peer.recv(1 << 20))
                except BlockingIOError:
                    break
        self.sink.uncork()
        self.assertEqual((written, heard), (MOST_IN_A_TURN + MOST_GATHERED, MOST_IN_A_TURN))
        self.assertEqual(len(self.transport.send_all(self.peer)), MOST_GATHERED)
        self.assertFalse(self.sink.full)
        self.assertEqual(self.waiting.told, 1)

    def test_turns_are_counted_one_by_one(self) -> None:
        for _ in range(3 * MOST_IN_A_TURN // MOST_GATHERED):
            self.sink.cork()
            self.sink.write(b"x" * MOST_GATHERED)
            self.sink.uncork()
            self.peer.recv(1 << 20)
        self.assertFalse(self.sink.full)

    def test_nothing_is_nothing_to_wait_for(self) -> None:
        self.sink.release()
        self.sink.write(b"")
        self.assertFalse(self.sink.full)

    def test_an_error_is_for_the_transport_to_find(self) -> None:
        self.transport.sock.close()
        self.sink.write(b"never")
        self.assertEqual(self.transport.kept, b"never")
        self.assertTrue(self.sink.full)

    def test_a_transport_that_was_given_up_has_all_that_is_still_written(self) -> None:
        self.sink.cork()
        self.sink.write(b"gathered, ")
        self.sink.release()
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.peer.recv(100), b"gathered, ")
        self.sink.uncork()
        self.sink.write(b"and more")
        self.assertEqual(self.transport.kept, b"and more")
        self.assertEqual(self.sink.sent, 18)
        # Nobody tells when that has left, so nothing more is to be made for it.
        self.assertTrue(self.sink.full)


class OtherTests(SynchronousTestCase):
    def test_a_transport_without_a_socket_pauses_it(self) -> None:
        transport = BoundedTransport(limit=10)
        sink = Sink(transport)
        sink.write(b"0123456789")
        self.assertFalse(sink.full)
        sink.write(b"x")
        self.assertTrue(sink.full)

    def test_a_handle_that_is_no_socket_is_left_alone(self) -> None:
        transport = SocketTransport(object())
        Sink(transport).write(b"by the transport")
        self.assertTrue(transport.streaming)
        self.assertEqual(transport.kept, b"by the transport")
