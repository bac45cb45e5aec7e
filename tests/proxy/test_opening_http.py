"""HTTP in a tunnel: requests that go where their CONNECT said, and tunnels in tunnels."""

from __future__ import annotations

from tests.fakes import TLS
from tests.proxy.test_faults import OK
from tests.proxy.test_opening import ESTABLISHED, GET, GOT, HEARD_OK, OpeningTestCase, connect_to, say_hello


class HttpInTunnelTests(OpeningTestCase):
    def test_requests_go_to_the_tunnel_s_origin_in_turn_over_one_connection(self):
        self.open("a.example:8080")
        for path in (b"/one", b"/two?q"):
            self.client.say(b"GET " + path + b" HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
            self.assertEqual(
                self.origin_heard(),
                b"GET " + path + b" HTTP/1.1\r\nHost: a.example:8080\r\nVia: 1.1 proxy\r\n\r\n",
            )
            self.origin.say(OK)
            self.assertEqual(self.heard(), HEARD_OK)
        self.assertEqual(self.dialled, [("a.example", 8080)])
        self.assertEqual(
            [(flow.method, flow.url, flow.outcome) for flow in self.stage.journal.flows],
            [
                ("CONNECT", "a.example:8080", "switched"),
                ("GET", "http://a.example:8080/one", "forwarded"),
                ("GET", "http://a.example:8080/two?q", "forwarded"),
            ],
        )

    def test_it_means_the_same_at_every_cut(self):
        said = connect_to() + GET
        for cuts in ([], *([at] for at in range(1, len(said))), list(range(1, len(said)))):
            self.client = self.stage.client()
            for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
                self.client.say(said[start:end])
            self.assertEqual(self.heard(), ESTABLISHED, cuts)
            self.assertEqual(self.origin.heard, GOT, cuts)
            self.client.reset()

    def test_rules_hold_there(self):
        self.begin("""rules:
          - {match: {url: "http://a.example:8080/no"}, block: 403}
          - {match: {host: a.example, path: /here}, respond: {text: here}}
          - {match: {host: a.example}, request: {headers: {set: {X-A: b}}}}""")
        self.open("a.example:8080")
        for path, there in ((b"no", b"403 Forbidden"), (b"here", b"\r\n\r\nhere")):
            self.client.say(b"GET /" + path + b" HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
            self.assertIn(there, self.heard())
        self.assertEqual(self.dialled, [])
        self.client.say(GET)
        self.assertIn(b"\r\nX-A: b\r\n", self.origin_heard())

    def test_host_goes_on_as_it_came(self):
        self.open()
        self.client.say(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.assertIn(b"\r\nHost: b.example\r\n", self.origin_heard())
        self.assertEqual(self.dialled, [("a.example", 443)])

    def test_a_rule_isn_t_got_past_by_asking_the_origin_for_another_host(self):
        for rule in ("a.example", "b.example"):
            self.begin(f"rules: [{{match: {{host: {rule}, path: /*}}, respond: {{text: mine}}}}]")
            self.open("a.example:80")
            self.client.say(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
            self.assertTrue(self.heard().endswith(b"mine"), rule)

    def test_an_absolute_target_may_name_the_tunnel_s_origin_and_no_other(self):
        for url, status in (
            (b"http://a.example:443/", None),
            (b"http://a.example/", b"421"),
            (b"https://a.example/", b"421"),
            (b"http://b.example:443/", b"421"),
        ):
            self.begin()
            self.open()
            self.client.say(b"GET " + url + b" HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
            heard = self.heard()
            self.assertEqual(heard[9:12] or None, status, url)
            self.assertEqual(len(self.dialled), status is None, url)

    def test_what_is_malformed_there_is_400(self):
        self.open()
        self.client.say(b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n")
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.outcomes, [("CONNECT", "switched"), ("-", "malformed")])
        self.assert_nothing_left()


class SecureHttpInTunnelTests(HttpInTunnelTests):
    """The same in a tunnel that is itself inside TLS."""

    manner = TLS


class ConnectWithinTests(OpeningTestCase):
    def test_a_connect_in_a_plain_tunnel_opens_another(self):
        self.open("proxy.example:3128")
        self.client.say(connect_to("b.example:22"))
        self.assertEqual(self.heard(), ESTABLISHED)
        self.client.say(b"SSH-2.0-x\r\n")
        self.assertEqual(self.origin_heard(), b"SSH-2.0-x\r\n")
        self.assertEqual(self.dialled, [("b.example", 22)])
        self.client.end()
        self.origin.end()
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("CONNECT", "switched"), ("CONNECT", "tunnelled")])
        sizes = [(flow.client_in, flow.client_out) for flow in self.stage.journal.flows]
        first, second = len(connect_to("proxy.example:3128")), len(connect_to("b.example:22")) + 11
        self.assertEqual(sizes, [(first, len(ESTABLISHED)), (second, len(ESTABLISHED))])

    def test_http_in_a_tunnel_in_a_tunnel_goes_to_the_inner_one_s_origin(self):
        self.client.say(connect_to("one.example:80") + connect_to("two.example:80") + GET)
        self.assertEqual(self.heard(), ESTABLISHED * 2)
        self.assertEqual(self.dialled, [("two.example", 80)])

    def test_tls_in_a_tunnel_in_a_plain_tunnel_is_intercepted(self):
        self.open("proxy.example:3128")
        self.open("b.example:443")
        peer = self.secure("b.example")
        peer.say(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.stage.run(peer)
        self.assertEqual(self.dialled, [("b.example", 443)])

    def test_tls_in_a_tunnel_in_tls_is_intercepted(self):
        self.open("proxy.example:443")
        outer = self.secure("proxy.example")
        outer.say(connect_to("b.example:443"))
        self.stage.run(outer)
        self.assertEqual(outer.take(), ESTABLISHED)
        inner = self.secure("b.example", outer)
        inner.say(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
        self.stage.run(inner)
        self.assertEqual(self.dialled, [("b.example", 443)])
        origin = self.stage.secure_origin("b.example")
        self.stage.run(origin, inner)
        self.assertEqual(bytes(origin.heard), b"GET / HTTP/1.1\r\nHost: b.example\r\nVia: 1.1 proxy\r\n\r\n")
        origin.say(OK)
        self.stage.run(origin, inner)
        self.assertEqual(bytes(inner.heard), HEARD_OK)
        for peer in (inner, outer):
            peer.say_goodbye()
            self.stage.run(peer, origin)
        self.assert_nothing_left()
        self.assertEqual(self.outcomes, [("CONNECT", "switched"), ("CONNECT", "switched"), ("GET", "forwarded")])

    def test_a_tunnel_in_tls_that_is_let_through_carries_the_bytes(self):
        self.begin("tls: {passthrough: [b.example]}")
        self.open("proxy.example:443")
        outer = self.secure("proxy.example")
        outer.say(connect_to("b.example:443"))
        self.stage.run(outer)
        self.assertEqual(outer.take(), ESTABLISHED)
        outer.say(say_hello("b.example"))
        self.assertEqual(self.origin_heard()[:1], b"\x16")
