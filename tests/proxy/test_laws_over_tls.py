"""The laws hold over TLS: on the client's side, on the origin's, on both, and in TLS inside TLS.

An exchange is written down once, as a conversation, and played in each of these ways; whole, in records of every cut
and of one byte, and with the records themselves cut into reads of a byte.
"""

from __future__ import annotations

import functools
import itertools
import ssl
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.tls.contexts import OriginFacing
from tests.fakes import BoundedTransport
from tests.secure import (
    SecurePeer,
    SecureStage,
    client_context,
    issued_for,
    proxy_authority,
    server_context,
)


class Way(NamedTuple):
    """Where TLS is. A client that isn't in a tunnel puts `base` before the path it asks for."""

    name: str
    base: bytes
    client: bool
    origin: bool
    nested: bool = False


CLIENT_SIDE = Way("TLS with the client", b"http://a.example", True, False)
ORIGIN_SIDE = Way("TLS with the origin", b"https://a.example", False, True)
BOTH = Way("TLS with both", b"", True, True)
NESTED = Way("TLS in TLS with the client, and with the origin", b"", True, True, True)
WAYS = (CLIENT_SIDE, ORIGIN_SIDE, BOTH, NESTED)
TO_SECURE_ORIGIN = (ORIGIN_SIDE, BOTH, NESTED)
FROM_SECURE_CLIENT = (CLIENT_SIDE, BOTH, NESTED)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
GOT = b"GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n"


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of the client and of the origin."""
    return client_context(proxy_authority().pem, "http/1.1"), server_context(issued_for("a.example"), "http/1.1")


@functools.cache
def origin_facing() -> OriginFacing:
    """What trusts the origin, made once: that is what takes time."""
    return SecureStage().pool._tls


class Cut:
    """What lies between a peer that speaks TLS and the transport: its bytes come in reads of `size`."""

    def __init__(self, transport: BoundedTransport, size: int) -> None:
        self._transport = transport
        self._size = size
        self.take = transport.take

    def say(self, data: bytes) -> None:
        for at in range(0, len(data), self._size):
            self._transport.say(data[at : at + self._size])


class Talk:
    """A client and the origins that the proxy has connected to, spoken with as `way` has it."""

    def __init__(self, way: Way, rules: str = "", reads: int = 1 << 30) -> None:
        self.way = way
        self.reads = reads
        self.stage = SecureStage(rules, tls=origin_facing())
        self.origins: list[SecurePeer | BoundedTransport] = []
        self.below: SecurePeer | None = None
        self.raw, self.client = self.new_client()

    def new_client(self) -> tuple[BoundedTransport, SecurePeer | BoundedTransport]:
        """The transport of one more client, and the client."""
        context, stage, way = contexts()[0], self.stage, self.way
        if not way.client:
            raw = stage.client()
            return raw, raw
        raw = stage.connect() if way is BOTH else stage.client()
        client = SecurePeer(Cut(raw, self.reads), context, "a.example" if way is BOTH else "127.0.0.1")
        stage.run(client)
        if way.nested:
            self.below = client
            client.say(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
            stage.run(client)
            assert client.take().startswith(b"HTTP/1.1 200 ")
            client = SecurePeer(client, context, "a.example")
            stage.run(client)
        assert client.shaken, client.error
        stage.journal.flows.clear()
        return raw, client

    @property
    def origin(self) -> SecurePeer | BoundedTransport:
        """The origin at the newest connection."""
        return self.origins[-1]

    @property
    def outcomes(self) -> list[str]:
        return [flow.outcome for flow in self.stage.journal.flows]

    def meet(self) -> None:
        """Be the origin at each connection that is new."""
        for made in self.stage.pool.made[len(self.origins) :]:
            if self.way.origin:
                self.origins.append(SecurePeer(Cut(made, self.reads), contexts()[1], server=True))
            else:
                self.origins.append(made)

    def settle(self, *others: SecurePeer | BoundedTransport) -> None:
        """Everybody reads what there is, until nothing moves."""
        met = -1
        while met != len(self.origins):
            self.meet()
            met = len(self.origins)
            self.stage.run(self.client, *others, *self.origins)
            self.meet()

    def ask(self, method: bytes = b"GET", rest: bytes = b"\r\n", client: SecurePeer | BoundedTransport | None = None):
        """The client asks for /x; `rest` stands behind the Host field."""
        asked = method + b" " + self.way.base + b"/x HTTP/1.1\r\nHost: a.example\r\n" + rest
        (client or self.client).say(asked)
        self.settle(*([client] if client else []))

    def goodbye(self, who: SecurePeer | BoundedTransport, raw: BoundedTransport) -> None:
        """A peer ends in order: by close_notify where it speaks TLS, and then its connection."""
        if isinstance(who, SecurePeer):
            who.say_goodbye()
        raw.end()
        self.settle()

    def client_sees(self) -> str:
        """How its connection ends for the client."""
        if self.raw.aborted:
            assert not (isinstance(self.client, SecurePeer) and self.client.ended), "an end was said before the reset"
            return "a reset"
        if isinstance(self.client, SecurePeer):
            return "an end" if self.client.ended else "a cut" if self.raw.disconnected else "nothing"
        return "an end" if self.raw.disconnected or self.raw.write_closed else "nothing"


class LawTestCase(SynchronousTestCase):
    def play(self, *steps: tuple[str, bytes], ways=WAYS, rules: str = "", splits: bool = False) -> None:
        """Play a conversation in each way and each cut.

        Steps are what "client" or "origin" says, or what it "client hears" or "origin hears". `@` in what the client
        says is where its way puts the origin. With `splits` each saying is also sent in two records, cut anywhere.
        """
        said = [number for number, (who, _) in enumerate(steps) if not who.endswith("hears")]
        every = {number: range(1, len(steps[number][1])) for number in said}
        cuts: list[tuple[str, dict, int]] = [
            ("whole", {}, 1 << 30),
            ("byte by byte", every, 1 << 30),
            ("in reads of a byte", {}, 1),
            ("byte by byte, in reads of 7", every, 7),
        ]
        if splits:
            cuts += [(f"step {number} cut at {at}", {number: [at]}, 1 << 30) for number in said for at in every[number]]
        for way in ways:
            for name, cut, reads in cuts:
                self.replay(Talk(way, rules, reads), steps, cut, f"{way.name}, {name}")

    def replay(self, talk: Talk, steps: tuple[tuple[str, bytes], ...], cuts: dict, name: str) -> None:
        heard: dict[object, int] = {}
        for number, (who, what) in enumerate(steps):
            where = f"{name}, step {number} ({who})"
            peer = talk.client if who.startswith("client") else talk.origin
            if who.endswith("hears"):
                new = bytes(peer.heard[heard.get(peer, 0) :])
                self.assertEqual(new, what, where)
                heard[peer] = len(peer.heard)
                continue
            places = [0, *cuts.get(number, ()), len(what)]
            for start, stop in itertools.pairwise(places):
                piece = what[start:stop]
                peer.say(piece.replace(b"@", talk.way.base) if who == "client" else piece)
                talk.settle()
        self.assertEqual(set(talk.outcomes), {"forwarded"}, name)


class BodyTests(LawTestCase):
    def test_bodies_with_a_length(self):
        self.play(
            ("client", b"POST @/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"),
            (
                "origin hears",
                b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nVia: 1.1 proxy\r\n\r\nhello",
            ),
            ("origin", OK),
            ("client hears", HEARD_OK),
            splits=True,
        )

    def test_chunks_and_trailers_arrive_as_they_left(self):
        head = b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
        self.play(
            ("client", b"POST @/x HTTP/1.1\r\nHost: a.example\r\n" + head + b"\r\n" + CHUNKS),
            ("origin hears", b"POST /x HTTP/1.1\r\nHost: a.example\r\n" + head + b"Via: 1.1 proxy\r\n\r\n" + CHUNKS),
            ("origin", b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + CHUNKS),
            ("client hears", b"HTTP/1.1 200 OK\r\n" + head + b"Via: 1.1 proxy\r\n\r\n" + CHUNKS),
        )

    def test_a_client_that_expects_to_be_asked_is_asked_by_the_origin(self):
        head = b"Expect: 100-continue\r\nContent-Length: 2\r\n"
        self.play(
            ("client", b"POST @/x HTTP/1.1\r\nHost: a.example\r\n" + head + b"\r\n"),
            ("origin hears", b"POST /x HTTP/1.1\r\nHost: a.example\r\n" + head + b"Via: 1.1 proxy\r\n\r\n"),
            ("origin", b"HTTP/1.1 100 Continue\r\n\r\n"),
            ("client hears", b"HTTP/1.1 100 Continue\r\nVia: 1.1 proxy\r\n\r\n"),
            ("client", b"hi"),
            ("origin hears", b"hi"),
            ("origin", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK),
            ("client hears", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 proxy\r\n\r\n" + HEARD_OK),
        )

    def test_both_directions_flow_at_once(self):
        head = b"Transfer-Encoding: chunked\r\n"
        self.play(
            ("client", b"POST @/x HTTP/1.1\r\nHost: a.example\r\n" + head + b"\r\n2\r\nhi\r\n"),
            ("origin hears", b"POST /x HTTP/1.1\r\nHost: a.example\r\n" + head + b"Via: 1.1 proxy\r\n\r\n2\r\nhi\r\n"),
            ("origin", b"HTTP/1.1 200 OK\r\n" + head + b"\r\n1\r\na\r\n"),
            ("client hears", b"HTTP/1.1 200 OK\r\n" + head + b"Via: 1.1 proxy\r\n\r\n1\r\na\r\n"),
            ("client", b"2\r\nho\r\n"),
            ("origin hears", b"2\r\nho\r\n"),
            ("origin", b"1\r\nb\r\n0\r\n\r\n"),
            ("client hears", b"1\r\nb\r\n0\r\n\r\n"),
            ("client", b"0\r\n\r\n"),
            ("origin hears", b"0\r\n\r\n"),
        )

    def test_requests_sent_ahead_are_answered_in_order_one_at_a_time(self):
        ask = b"GET @/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
        self.play(
            ("client", ask * 3),
            ("origin hears", GOT),
            ("origin", OK),
            ("client hears", HEARD_OK),
            ("origin hears", GOT),
            ("origin", OK),
            ("origin hears", GOT),
            ("origin", OK),
            ("client hears", HEARD_OK * 2),
        )

    def test_a_piece_that_arrives_leaves_at_once(self):
        for way in WAYS:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            talk.settle()
            for piece in (b"5", b"\r\n", b"h", b"ello", b"\r\n", b"ffff\r\nab", b"c"):
                before = len(talk.client.heard)
                talk.origin.say(piece)
                talk.settle()
                if piece not in (b"5", b"\r\n"):
                    self.assertTrue(talk.client.heard.endswith(piece), (way.name, piece))
                    self.assertGreater(len(talk.client.heard), before)


class RuleTests(LawTestCase):
    def test_a_find_is_found_however_the_records_cut_it(self):
        body = b"say secret, secretly"
        rules = "rules: [{response: {replace: [{find: secret, with: '*'}]}}]"
        for way in WAYS:
            talk = Talk(way, rules)
            for at in range(1, len(body)):
                talk.client.heard.clear()
                talk.ask()
                talk.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:at])
                talk.settle()
                talk.origin.say(body[at:])
                talk.settle()
                head, _, chunked = bytes(talk.client.heard).partition(b"\r\n\r\n")
                self.assertIn(b"Transfer-Encoding: chunked", head)
                chunks = chunked.split(b"\r\n")
                self.assertEqual(b"".join(chunks[1:-2:2]), b"say *, *ly", (way.name, at))
            self.assertEqual(len(talk.origins), 1)

    def test_a_find_is_found_in_what_the_client_sends(self):
        body = b"say secret, secretly"
        rules = "hold: always\nrules: [{request: {replace: [{find: secret, with: '*'}]}}]"
        for way in WAYS:
            talk = Talk(way, rules)
            for at in range(1, len(body)):
                talk.ask(b"POST", b"Content-Length: %d\r\n\r\n" % len(body) + body[:at])
                self.assertEqual([bytes(origin.heard) for origin in talk.origins], [b""] * len(talk.origins))
                talk.client.say(body[at:])
                talk.settle()
                self.assertTrue(talk.origin.heard.endswith(b"\r\n\r\nsay *, *ly"), (way.name, at))
                talk.origin.heard.clear()
                talk.origin.say(OK)
                talk.settle()
            self.assertEqual(len(talk.origins), 1)

    def test_a_body_that_is_held_goes_on_when_it_is_whole(self):
        for way in WAYS:
            talk = Talk(way, "hold: always")
            talk.ask(b"POST", b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[:-1])
            self.assertEqual(talk.origins, [], way.name)
            talk.client.say(CHUNKS[-1:])
            talk.settle()
            self.assertTrue(talk.origin.heard.endswith(b"\r\n\r\n" + CHUNKS))
            talk.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc")
            talk.settle()
            self.assertEqual(bytes(talk.client.heard), b"")
            talk.origin.say(b"d")
            talk.settle()
            self.assertTrue(talk.client.heard.endswith(b"\r\n\r\nabcd"))

    def test_what_a_rule_blocks_is_answered_and_no_origin_hears_of_it(self):
        for way in WAYS:
            talk = Talk(way, "rules: [{match: {path: /x}, block: 403}]")
            talk.ask(b"POST", b"Content-Length: 6\r\n\r\nabc")
            self.assertTrue(talk.client.heard.startswith(b"HTTP/1.1 403 "), way.name)
            self.assertEqual(talk.origins, [])
            self.assertEqual(talk.outcomes, ["refused"])


class PoolTests(LawTestCase):
    def test_a_connection_to_the_origin_serves_one_client_after_another(self):
        for way in WAYS:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(OK)
            talk.settle()
            _, other = talk.new_client()
            talk.ask(client=other)
            talk.origin.say(OK)
            talk.settle(other)
            self.assertEqual(bytes(other.heard), HEARD_OK)
            self.assertEqual((len(talk.origins), bytes(talk.origin.heard)), (1, GOT + GOT), way.name)

    def test_the_handshake_of_the_next_connection_is_a_short_one(self):
        for way in TO_SECURE_ORIGIN:
            talk = Talk(way)
            for reused in (None, True, True):
                talk.ask()
                talk.origin.say(OK)
                talk.settle()
                # The first may have been met by another test's connections.
                self.assertIn(reused, (None, talk.origin.tls.session_reused), way.name)
                talk.goodbye(talk.origin, talk.stage.origin)
            self.assertEqual(len(talk.origins), 3)

    def test_a_kept_connection_that_has_died_is_made_up_for_by_another(self):
        for way in WAYS:
            for end in (BoundedTransport.end, BoundedTransport.reset):
                talk = Talk(way)
                talk.ask()
                talk.origin.say(OK)
                talk.settle()
                talk.client.heard.clear()
                # The request and the end pass each other.
                talk.client.say(b"GET " + way.base + b"/x HTTP/1.1\r\nHost: a.example\r\n\r\n")
                talk.stage.turn()
                end(talk.stage.origin)
                talk.settle()
                self.assertEqual(len(talk.origins), 2, way.name)
                self.assertEqual(bytes(talk.origin.heard), GOT)
                talk.origin.say(OK)
                talk.settle()
                self.assertEqual(bytes(talk.client.heard), HEARD_OK)

    def test_a_kept_connection_that_ends_is_not_used_again(self):
        for way in WAYS:
            talk = Talk(way)
            talk.ask()
            talk.origin.say(OK)
            talk.settle()
            talk.goodbye(talk.origin, talk.stage.origin)
            self.assertEqual(len(talk.stage.pool), 0)
            self.assertTrue(talk.stage.origin.disconnected)
            talk.ask()
            self.assertEqual((len(talk.origins), bytes(talk.origin.heard)), (2, GOT), way.name)
