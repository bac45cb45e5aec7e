"""Which CONNECT opens a tunnel, to whom, and who looks into it: what is let through, what is blocked, what is none."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError, DNSLookupError, NoRouteError, TimeoutError

from tests.fakes import TLS
from tests.proxy.test_opening import (
    ESTABLISHED,
    GET,
    GOT,
    OpeningTestCase,
    alert_of,
    connect_to,
    say_hello,
)
from tests.secure import SecurePeer, client_context, origin_ca, proxy_authority

ACCESS_DENIED, NO_APPLICATION_PROTOCOL = 49, 120


class LetThroughTests(OpeningTestCase):
    def minted(self) -> list[str]:
        """The names for which a certificate is made from now on."""
        made: list[str] = []
        authority = self.stage.proxy.tls.authority
        leaf = authority.leaf
        self.patch(authority, "leaf", lambda name: made.append(name) or leaf(name))
        return made

    # What is written in the file, what the name resolves to, and why it is let through.
    KNOWN = [
        ("{passthrough: [a.example]}", [], "tls.passthrough: a.example"),
        ("{passthrough: ['*.example']}", [], "tls.passthrough: *.example"),
        ("{passthrough: ['a.example:443']}", [], "tls.passthrough: a.example:443"),
        ("{passthrough: [10.0.0.0/8]}", ["10.1.2.3"], "tls.passthrough: 10.0.0.0/8"),
        ("{passthrough: [10.0.0.0/8]}", ["192.0.2.1", "10.1.2.3"], "tls.passthrough: 10.0.0.0/8"),
        ("{passthrough: ['2001:db8::/32']}", ["2001:db8::1"], "tls.passthrough: 2001:db8::/32"),
        ("{only: [10.0.0.0/8]}", ["192.0.2.1"], "tls.only: not listed"),
        ("{only: [10.0.0.0/8]}", [], "tls.only: not listed"),
        ("{intercept: false}", [], "tls.intercept: false"),
    ]

    def test_a_target_that_nobody_looks_into_is_dialled_before_the_200(self):
        for rules, found, why in self.KNOWN:
            self.begin(f"tls: {rules}", {"a.example": found})
            made = self.minted()
            self.stage.pool.waits = True
            self.client.say(connect_to())
            self.assertEqual((self.heard(), self.dialled), (b"", [("a.example", 443)]), rules)
            self.stage.pool.let_connect()
            self.assertEqual(self.heard(), ESTABLISHED, rules)
            hello = say_hello()
            self.client.say(hello)
            self.assertEqual(self.origin_heard(), hello)
            self.origin.say(b"\x00\xff" * 5000)
            self.assertEqual(self.heard(), b"\x00\xff" * 5000)
            self.client.end()
            self.origin.end()
            self.assert_nothing_left()
            flow = self.flow
            self.assertEqual((flow.outcome, flow.status, flow.request.how), ("tunnelled", 200, "tunnelled"), rules)
            self.assertEqual((flow.request.why, made), (why, []))

    def test_its_origin_may_greet_at_once(self):
        self.begin("tls: {intercept: false}")
        self.client.say(connect_to())
        self.origin.say(b"220 hi\r\n")
        self.assertEqual(self.heard(), ESTABLISHED + b"220 hi\r\n")

    def test_bytes_behind_its_connect_are_not_read_before_they_can_go_on_and_go_first(self):
        for rules in ("{intercept: false}", "{passthrough: [10.0.0.0/8]}"):
            self.begin(f"tls: {rules}", {"a.example": ["10.1.2.3"]})
            self.stage.pool.waits = True
            self.client.say(connect_to() + GET)
            self.assertFalse(self.client.reading, rules)
            self.client.say(b"more")
            self.client.end()
            self.stage.pool.let_connect()
            self.assertEqual(self.origin_heard(), GET + b"more")
            self.assertTrue(self.has_ended(self.origin))

    def test_the_two_speak_real_tls_with_each_other(self):
        self.begin("tls: {passthrough: [a.example]}")
        self.client.say(connect_to())
        self.client.take()
        made = self.minted()
        peer = SecurePeer(self.client, client_context(origin_ca().certificate_pem), "a.example")
        origin = self.stage.secure_origin()
        self.stage.run(peer, origin)
        self.assertTrue(peer.shaken and origin.shaken, peer.error)
        peer.say(b"ping")
        origin.say(b"pong")
        self.stage.run(peer, origin)
        self.assertEqual((bytes(origin.heard), bytes(peer.heard), made), (b"ping", b"pong", []))

    # The tls settings, the CONNECT's host, the ClientHello's name, and why it is let through, None: it isn't.
    BY_SERVER_NAME = [
        ("{passthrough: [b.example]}", "a.example", "b.example", "tls.passthrough: b.example"),
        ("{passthrough: [b.example]}", "192.0.2.1", "B.EXAMPLE", "tls.passthrough: b.example"),
        ("{passthrough: [b.example]}", "a.example", "c.example", None),
        ("{passthrough: [b.example]}", "a.example", None, None),
        ("{only: [b.example]}", "a.example", "c.example", "tls.only: not listed"),
        ("{only: [b.example]}", "a.example", None, "tls.only: not listed"),
        ("{only: [b.example]}", "a.example", "b.example", None),
        ("{only: [a.example]}", "a.example", "b.example", None),
        ("{only: [10.0.0.0/8]}", "10.1.2.3", "b.example", None),
        ("{passthrough: [10.0.0.0/8]}", "a.example", "b.example", None),
    ]

    def test_the_server_name_decides_where_the_target_did_not(self):
        for rules, host, name, why in self.BY_SERVER_NAME:
            self.begin(f"tls: {rules}")
            made = self.minted()
            self.open(f"{host}:443")
            self.assertEqual(self.dialled, [])
            hello = say_hello(name)
            self.client.say(hello)
            if why is None:
                self.assertEqual((self.dialled, made), ([], [(name or host).lower()]), (rules, host, name))
                self.assertEqual(self.heard()[:1], b"\x16")
            else:
                self.assertEqual((self.dialled, made), ([(host, 443)], []), (rules, host, name))
                self.assertEqual((self.origin_heard(), self.heard()), (hello, b""))
                self.client.reset()
                self.assertEqual(self.flow.request.why, why)

    def test_http_in_a_tunnel_that_is_let_through_is_not_read(self):
        for rules in ("{only: [b.example]}", "{passthrough: [a.example]}"):
            self.begin(f"tls: {rules}\nrules: [{{match: {{path: /x}}, block: 403}}]")
            self.client.say(connect_to() + GET)
            self.stage.settle(self.client)
            self.assertEqual(self.origin_heard(), GET)

    def test_a_name_is_looked_up_once_and_only_where_a_range_could_decide(self):
        for rules, host, asked in (
            ("{}", "a.example", []),
            ("{passthrough: [a.example]}", "a.example", []),
            ("{passthrough: [10.0.0.0/8]}", "10.1.2.3", []),
            ("{passthrough: [10.0.0.0/8]}", "a.example", ["a.example"]),
            ("{passthrough: [a.example, 10.0.0.0/8]}", "a.example", []),
            ("{only: [10.0.0.0/8]}", "a.example", ["a.example"]),
            ("{passthrough: [10.0.0.0/8], intercept: false}", "a.example", []),
            ("{passthrough: [10.0.0.0/8]}", "streamproxy.test", []),
        ):
            self.begin(f"tls: {rules}")
            self.client.say(connect_to(f"{host}:443"))
            self.assertEqual(self.resolver.asked, asked, (rules, host))

    def test_while_it_is_looked_up_the_client_is_not_read(self):
        self.begin("tls: {passthrough: [10.0.0.0/8]}")
        self.resolver.waits = True
        self.client.say(connect_to())
        self.assertFalse(self.client.reading)
        self.client.say(GET)
        self.assertEqual(self.heard(), b"")
        self.resolver.answer()
        self.assertEqual(self.heard(), ESTABLISHED)
        self.assertEqual(self.origin_heard(), GOT)
        self.assertEqual(self.outcomes, [("CONNECT", "switched")])

    def test_one_that_cannot_be_reached_is_answered_in_words(self):
        for failure, status, why, outcome in (
            (ConnectionRefusedError(), "502 Bad Gateway", "a.example refused the connection", "origin-gone"),
            (DNSLookupError(), "502 Bad Gateway", "no address was found for a.example", "origin-gone"),
            (NoRouteError(), "502 Bad Gateway", "there is no route to a.example", "origin-gone"),
            (TimeoutError(), "504 Gateway Timeout", "connecting to a.example took too long", "timed-out"),
        ):
            self.begin("tls: {intercept: false}")
            self.stage.pool.refuses = failure
            self.client.say(connect_to() + b"more")
            self.assert_answered(status, why, outcome)

    def assert_answered(self, status: str, why: str, outcome: str) -> None:
        head, _, body = self.heard().decode().partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.assertEqual(lines[0], f"HTTP/1.1 {status}")
        self.assertEqual(body, f"{status}: {why}\n")
        self.assertIn(f"Content-Length: {len(body)}", lines)
        self.assertIn("Connection: close", lines)
        self.assertEqual((self.flow.outcome, self.flow.error), (outcome, why))
        self.assertEqual(self.flow.status, int(status[:3]))
        self.assertEqual(self.flow.client_out, len(head) + 4 + len(body))
        self.assert_nothing_left(13)

    def test_the_proxy_s_page_has_no_origin_to_tunnel_to(self):
        self.open("streamproxy.test:443")
        self.client.say(b"SSH-2.0-x\r\n")
        self.assert_nothing_left()
        self.assertEqual((self.dialled, self.flow.outcome), ([], "origin-gone"))

    def test_a_lookup_that_comes_to_nothing_is_a_504(self):
        self.begin("tls: {passthrough: [10.0.0.0/8]}\ntimeouts: {head: 7}")
        self.resolver.waits = True
        self.client.say(connect_to())
        self.wait(7)
        self.assert_answered("504 Gateway Timeout", "looking up a.example took too long", "timed-out")

    def test_a_dial_has_its_own_time(self):
        self.begin("tls: {intercept: false}\ntimeouts: {head: 7, connect: 20}")
        self.stage.pool.waits = True
        self.client.say(connect_to())
        self.wait(15)
        self.stage.pool.let_connect()
        self.assertEqual(self.heard(), ESTABLISHED)

    def test_of_what_a_client_says_meanwhile_no_more_is_held_than_one_read(self):
        self.begin("tls: {passthrough: [10.0.0.0/8]}", {"a.example": ["10.0.0.1"]})
        self.stage.pool.waits = True
        self.client.say(connect_to())
        sent = 0
        while self.client.reading and sent < 1 << 20:
            self.client.say(bytes(65536))
            sent += 65536
        self.assertLessEqual(sent, 65536)


class SecureLetThroughTests(LetThroughTests):
    """The same in a tunnel that is itself inside TLS."""

    manner = TLS


class BlockTests(OpeningTestCase):
    # The rules, the CONNECT's target, and whether that is blocked.
    ON_CONNECT = [
        ("{match: {host: a.example}, block: 403}", "a.example:443", True),
        ("{match: {host: '*.example'}, block: 403}", "a.example:22", True),
        ("{match: {host: 'a.example:443'}, block: 403}", "a.example:443", True),
        ("{match: {host: 'a.example:443'}, block: 403}", "a.example:80", False),
        ("{match: {url: 'https://a.example/*'}, block: 403}", "a.example:443", True),
        ("{match: {method: CONNECT}, block: 403}", "a.example:443", True),
        ("{match: {host: b.example}, block: 403}", "a.example:443", False),
        ("{match: {host: a.example, path: /x}, block: 403}", "a.example:443", False),
        ("{match: {host: a.example, method: GET}, block: 403}", "a.example:443", False),
        ("{match: {url: 'https://a.example/x'}, block: 403}", "a.example:443", False),
        ("{match: {host: a.example}, respond: {text: x}}", "a.example:443", False),
    ]

    def test_what_blocks_all_that_a_tunnel_is_for_blocks_its_connect(self):
        for rule, target, blocked in self.ON_CONNECT:
            self.begin(f"rules: [{rule}]")
            self.client.say(connect_to(target) + b"more")
            heard = self.heard()
            self.assertEqual(self.dialled, [], rule)
            if not blocked:
                self.assertEqual(heard, ESTABLISHED, rule)
                continue
            self.assertTrue(heard.startswith(b"HTTP/1.1 403 Forbidden\r\n"), rule)
            self.assertIn(b"\r\nConnection: close\r\n", heard)
            self.assertEqual((self.flow.outcome, self.flow.rules, self.flow.status), ("refused", ["rules[0]"], 403))
            self.assert_nothing_left(13)
            self.assertEqual(len(self.stage.journal.flows), 1)

    def test_it_does_so_where_nobody_looks_into_the_tunnel(self):
        for rule, target, blocked in self.ON_CONNECT:
            self.begin(f"rules: [{rule}]\ntls: {{intercept: false}}")
            self.client.say(connect_to(target))
            self.assertEqual(self.heard()[9:12], b"403" if blocked else b"200", rule)
            self.assertEqual(len(self.dialled), not blocked, rule)

    def test_a_block_of_the_server_name_is_an_alert(self):
        self.begin("rules: [{name: no b, match: {host: b.example}, block: 403}]")
        self.open()
        self.client.say(say_hello("b.example"))
        self.assertEqual(alert_of(self.heard()), ACCESS_DENIED)
        self.assertTrue(self.has_ended(self.client))
        self.client.end()
        self.assert_nothing_left(0.2)
        self.assertEqual((self.flow.outcome, self.flow.rules), ("refused", ["no b"]))
        self.assertEqual(self.flow.error, "rule 'no b' blocks b.example")
        self.assertEqual(self.dialled, [])

    def test_a_client_understands_that_alert(self):
        self.begin("rules: [{match: {host: b.example}, block: 403}]")
        self.open()
        peer = SecurePeer(self.client, client_context(proxy_authority().pem), "b.example")
        self.stage.run(peer)
        self.assertIn("ACCESS_DENIED", str(peer.error))

    def test_a_block_of_the_server_name_holds_in_a_tunnel_that_nobody_looks_into(self):
        self.begin("rules: [{match: {host: b.example}, block: 403}]\ntls: {only: [c.example]}")
        self.open()
        self.client.say(say_hello("b.example"))
        self.assertEqual((alert_of(self.heard()), self.dialled), (ACCESS_DENIED, []))
        self.assertEqual(self.flow.outcome, "refused")

    def test_a_block_behind_a_rule_for_some_of_it_is_left_to_the_requests_if_there_are_any(self):
        rules = (
            "rules: [{match: {host: a.example, path: /x}, respond: {text: x}}, {match: {host: a.example}, block: 403}]"
        )
        self.begin(rules)
        self.open()
        self.client.say(b"SSH-2.0-x\r\n")
        self.assertEqual((self.heard(), self.dialled, self.flow.outcome), (b"", [], "refused"))
        self.begin(rules)
        self.open()
        self.secure()
        self.begin(rules)
        self.open()
        self.client.say(GET + b"GET /y HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        heard = self.heard()
        self.assertIn(b"\r\n\r\nxHTTP/1.1 403 ", heard)

    def test_then_a_server_that_speaks_first_isn_t_heard_either(self):
        self.begin(
            "rules: [{match: {host: a.example, path: /x}, respond: {text: x}}, {match: {host: a.example}, block: 403}]"
        )
        self.open()
        self.fall_silent()
        for made in self.stage.pool.made:
            made.say(b"220 hi\r\n")
        self.assertEqual((self.heard(), self.flow.outcome), (b"", "refused"))
        self.assertTrue(self.origin.disconnected)
        self.assert_nothing_left(13)


class SecureBlockTests(BlockTests):
    manner = TLS


class AlpnTests(OpeningTestCase):
    def test_protocols_that_are_not_spoken_here_are_tunnelled_where_no_rule_could_apply(self):
        for protocols in (("h2",), ("h3", "imap"), ("acme-tls/1",)):
            self.begin("rules: [{match: {host: b.example}, block: 403}]")
            self.open()
            hello = say_hello("a.example", *protocols)
            self.client.say(hello)
            self.assertEqual((self.origin_heard(), self.heard()), (hello, b""), protocols)
            self.client.reset()
            self.assertEqual(self.flow.request.why, f"the client speaks only {', '.join(protocols)}")

    def test_they_are_refused_where_one_could(self):
        for rule in ("{host: a.example, path: /x}", "{host: '*.example'}", "{path: /x}", "{method: POST}"):
            self.begin(f"rules: [{{match: {rule}, respond: {{text: x}}}}]")
            self.open()
            self.client.say(say_hello("a.example", "h2"))
            self.assertEqual((alert_of(self.heard()), self.dialled), (NO_APPLICATION_PROTOCOL, []), rule)
            self.assertEqual(self.flow.outcome, "refused")
            self.assertIn("speaks only h2", self.flow.error)
            self.client.end()
            self.assert_nothing_left(0.2)

    def test_http_2_without_tls_is_held_to_the_same(self):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for rules, passes in (("{host: b.example}", True), ("{host: a.example, path: /x}", False)):
            self.begin(f"rules: [{{match: {rules}, block: 403}}]")
            self.open("a.example:80")
            self.client.say(preface)
            self.assertEqual(self.dialled, [("a.example", 80)] if passes else [])
            if passes:
                self.assertEqual(self.origin_heard(), preface)
            else:
                self.assertEqual((self.heard(), self.flow.outcome), (b"", "refused"))
                self.assertIn("speaks only HTTP/2", self.flow.error)

    def test_a_rule_for_the_server_name_counts_and_so_does_one_for_the_target(self):
        for host in ("a.example", "b.example"):
            self.begin(f"rules: [{{match: {{host: {host}, path: /x}}, respond: {{text: x}}}}]")
            self.open("a.example:443")
            self.client.say(say_hello("b.example", "h2"))
            heard = self.heard()
            self.assertEqual(alert_of(heard), NO_APPLICATION_PROTOCOL, host)

    def test_one_that_is_spoken_here_among_them_is_enough(self):
        self.begin("rules: [{match: {host: a.example}, respond: {text: x}}]")
        self.open()
        self.assertEqual(self.secure("a.example", None, "h2", "http/1.1").tls.selected_alpn_protocol(), "http/1.1")


class TargetTests(OpeningTestCase):
    # The CONNECT's target and the words of the 400 that it gets.
    FORM = "a CONNECT target is a host and a port, such as example.com:443"
    BAD = [
        ("a.example", FORM),
        ("a.example:", FORM),
        ("[::1]", FORM),
        ("[::1]:", FORM),
        ("/", FORM),
        ("*", FORM),
        (":443", "the target's host is malformed"),
        ("::1:443", "the target's host is malformed"),
        ("[::1:443", "the target's host is malformed"),
        ("[a.example]:443", "the target's host is malformed"),
        ("[::g]:443", "the target's host is malformed"),
        ("[1::2::3]:443", "the target's IPv6 address is malformed"),
        ("[fe80::1%25eth0]:443", "the target's host is malformed"),
        ("a.example:x", "the target's host is malformed"),
        ("a.example:443/", "the target's host is malformed"),
        ("http://a.example:443", "the target's host is malformed"),
        ("%61.example:443", "the target's host is malformed"),
        ("a.example:+443", "the target's host is malformed"),
        ("a.example:000443", "the target's host is malformed"),
        ("a.example:0", "the target's port is out of range"),
        ("a.example:65536", "the target's port is out of range"),
        ("u@a.example:443", "a target with a user name or password in it"),
        ("u:p@a.example:443", "a target with a user name or password in it"),
    ]

    def test_what_is_no_host_with_a_port_is_400(self):
        for target, why in self.BAD:
            self.begin("tls: {passthrough: [10.0.0.0/8]}")
            self.client.say(f"CONNECT {target} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode() + GET)
            heard = self.heard()
            self.assertTrue(heard.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (target, heard))
            self.assertTrue(heard.endswith(f"\r\n\r\n400 Bad Request: {why}\n".encode()), (target, heard))
            self.assertEqual((self.flow.method, self.flow.url), ("CONNECT", target))
            self.assertEqual((self.flow.outcome, self.flow.error, self.dialled), ("malformed", why, []))
            self.assert_nothing_left(13)

    def test_what_is_one_is_dialled_as_it_is_meant(self):
        for target, host, port in (
            ("A.Example:443", "a.example", 443),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
            ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1", 80),
            ("under_score:80", "under_score", 80),
            ("a.example.:00080", "a.example.", 80),
            ("localhost:80", "localhost", 80),
        ):
            self.begin()
            self.client.say(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-x\r\n".encode())
            self.assertEqual((self.heard(), self.dialled), (ESTABLISHED, [(host, port)]), target)

    # What is wrong with a head as a whole, and its status.
    HEADS = [
        (b"CONNECT  HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"400"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"CONNECT a.example:443 HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
        (b"CONNECT a.ex\xe4mple:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    ]

    def test_a_head_that_is_malformed_opens_nothing(self):
        for head, status in self.HEADS:
            self.begin()
            self.client.say(head)
            self.assertEqual(self.heard()[9:12], status, head)
            self.assertEqual((self.flow.outcome, self.dialled), ("malformed", []))
            self.assert_nothing_left(13)

    def test_one_that_has_been_here_before_is_a_loop(self):
        for via, status in (("1.1 proxy", b"508"), ("1.0 x, 1.1 proxy (y)", b"508"), ("1.1 another", b"200")):
            self.begin()
            self.client.say(connect_to("a.example:443", f"Via: {via}"))
            self.assertEqual(self.heard()[9:12], status, via)
            if status == b"508":
                self.assertEqual(self.flow.status, 508)
                self.assert_nothing_left(13)
