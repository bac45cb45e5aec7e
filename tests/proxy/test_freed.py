"""What is over is freed at once: nothing of it refers to itself, and waits for the collector of garbage."""

import gc

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.exchange import Exchange
from streamproxy.proxy.secure import OriginHandshake
from streamproxy.proxy.upstream import UpstreamConnection
from streamproxy.stream.spool import Spool
from streamproxy.wire.http1 import RequestReader, ResponseReader
from tests.conversation import Stage, settings_of
from tests.secure import SecureStage

KINDS = (Exchange, OriginHandshake, RequestReader, ResponseReader, UpstreamConnection)
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def living() -> dict[type, int]:
    """How many there are of each."""
    count = dict.fromkeys(KINDS, 0)
    for each in gc.get_objects():
        if type(each) in count:
            count[type(each)] += 1
    return count


class FreedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = SecureStage()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = living()

    def check_freed(self) -> None:
        self.stage.pool.made.clear()
        self.stage.journal.flows.clear()
        self.assertEqual(living(), self.before)

    def test_the_readers_of_plain_connections(self) -> None:
        client = self.stage.client()
        client.say(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.stage.turn()
        self.assertEqual(living()[Exchange], self.before[Exchange] + 1)
        self.stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.stage.run(client)
        self.stage.origin.abortConnection()
        client.abortConnection()
        # Twisted's transports let go of their protocol when it is lost.
        client.protocol = self.stage.origin.protocol = None
        del client
        self.check_freed()

    def test_handshakes_and_readers_of_secure_ones(self) -> None:
        client = self.stage.secure_client()
        client.say(GET)
        self.stage.run(client)
        origin = self.stage.secure_origin()
        self.stage.run(client, origin)
        origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\npart of it")
        self.stage.run(client, origin)
        self.stage.origin.abortConnection()
        below = next(iter(self.stage.proxy.connections)).transport
        below.abortConnection()
        below.protocol = self.stage.origin.protocol = None
        del below, client, origin
        self.check_freed()

    def test_a_body_that_was_held(self) -> None:
        stage = Stage(settings_of("hold: always\n"))
        client = stage.client()
        client.say(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        stage.settle(client)
        stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        spools = [each for each in gc.get_objects() if type(each) is Spool]
        self.assertEqual(len(spools), 1)
        spools.clear()
        stage.origin.say(b"lo")
        stage.settle(client)
        self.assertTrue(bytes(client.heard).endswith(b"hello"))
        self.assertEqual([each for each in gc.get_objects() if type(each) is Spool], [])
