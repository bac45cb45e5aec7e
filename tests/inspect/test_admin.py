"""The admin listener: its pages, what it refuses, and what it holds for whom."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from streamproxy import __version__, settings
from streamproxy.inspect.admin import LONGEST_BODY, MOST_CONNECTIONS, PATIENCE
from tests.inspect.asking import HOST, UNIX, AdminCase, answered, ip4, ip6

TOKEN = "a-token-of-some-length"


class PageTests(AdminCase):
    def test_the_first_page_leads_to_the_others_and_says_which_version_this_is(self) -> None:
        page = self.ask("/")
        self.assertEqual((page.status, page.fields["content-type"]), (200, "text/html; charset=utf-8"))
        for word in (__version__, 'href="healthz"', 'href="readyz"', 'href="metrics"'):
            self.assertIn(word.encode(), page.body)

    def test_it_is_well_as_long_as_the_reactor_turns(self) -> None:
        self.why_not = "stopping"
        self.assertEqual(self.ask("/healthz").status, 200)

    def test_it_is_ready_or_says_why_not(self) -> None:
        self.assertEqual(self.ask("/readyz").status, 200)
        self.why_not = "stopping"
        answer = self.ask("/readyz")
        self.assertEqual((answer.status, answer.body), (503, b"stopping\n"))

    def test_metrics_are_what_is_given(self) -> None:
        answer = self.ask("/metrics")
        self.assertEqual((answer.status, answer.body), (200, b"a_metric 1\n"))
        self.assertEqual(answer.fields["content-type"], "text/plain; version=0.0.4; charset=utf-8")

    def test_a_head_is_answered_as_a_get_without_a_body(self) -> None:
        for path in ("/", "/healthz", "/metrics", "/nothing"):
            got, head = self.ask(path), self.ask(path, method="HEAD")
            self.assertEqual((head.status, head.fields, head.body), (got.status, got.fields, b""))

    def test_there_is_nothing_elsewhere(self) -> None:
        for path in ("/nothing", "/metrics/", "/metrics/x", "//metrics", "/x/y", "http://evil.example/metrics"):
            self.assertEqual(self.ask(path).status, 404, path)

    def test_a_query_makes_no_difference(self) -> None:
        self.assertEqual(self.ask("/healthz?x=1").status, 200)

    def test_several_requests_are_answered_on_a_connection(self) -> None:
        channel, transport = self.connect()
        for _ in range(3):
            transport.clear()
            channel.dataReceived(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
            self.assertEqual(answered(transport.value()).status, 200)

    def test_no_response_says_what_serves_it_or_may_be_kept_or_read_by_another_site(self) -> None:
        answers = [self.ask(path) for path in ("/", "/metrics", "/nothing", "/reload")]
        answers.append(self.ask("/", host="Host: evil.example"))
        for answer in answers:
            self.assertNotIn("server", answer.fields)
            self.assertEqual(answer.fields["cache-control"], "no-store")
            self.assertEqual(answer.fields["x-content-type-options"], "nosniff")
            self.assertTrue(answer.fields["content-security-policy"].startswith("default-src 'none'"))
            self.assertEqual([name for name in answer.fields if name.startswith("access-control")], [])


class ReloadTests(AdminCase):
    def test_it_reloads_when_it_is_asked_to(self) -> None:
        answer = self.ask("/reload", method="POST")
        self.assertEqual((answer.status, answer.body, self.reloads), (200, b"reloaded\n", 1))

    def test_what_is_wrong_is_told_in_lines(self) -> None:
        self.problems = ["rules.yaml:1:1: this", "rules.yaml:2:1: that"]
        answer = self.ask("/reload", method="POST")
        self.assertEqual(answer.status, 422)
        self.assertEqual(answer.body.splitlines()[1:], [b"rules.yaml:1:1: this", b"rules.yaml:2:1: that"])

    def test_an_error_of_ours_is_told_as_one_and_logged(self) -> None:
        def fail() -> list[str]:
            raise ZeroDivisionError("secret words")

        self.reload = fail
        self.setUp()
        answer = self.ask("/reload", method="POST")
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_other_method_reloads(self) -> None:
        for method in ("GET", "HEAD", "PUT", "DELETE", "BREW"):
            answer = self.ask("/reload", method=method)
            self.assertEqual((answer.status, answer.fields["allow"]), (405, "POST"))
        self.assertEqual(self.reloads, 0)

    def test_what_is_only_read_is_not_posted_to(self) -> None:
        answer = self.ask("/metrics", method="POST")
        self.assertEqual((answer.status, answer.fields["allow"]), (405, "GET, HEAD"))

    def test_another_site_can_not_have_it_reload(self) -> None:
        for fields in (
            ("Sec-Fetch-Site: cross-site",),
            ("Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:8081"),
            ("Origin: http://evil.example",),
            ("Origin: null",),
            ("Origin: http://127.0.0.1:8081", "Origin: http://evil.example"),
            ("Origin: http://127.0.0.1",),
        ):
            self.assertEqual(self.ask("/reload", *fields, method="POST").status, 403, fields)
        self.assertEqual(self.reloads, 0)

    def test_its_own_pages_can(self) -> None:
        fields = ("Sec-Fetch-Site: same-origin", "Origin: http://127.0.0.1:8081")
        self.assertEqual(self.ask("/reload", *fields, method="POST").status, 200)

    def test_a_form_of_another_site_changes_nothing_though_it_is_asked_without_leave(self) -> None:
        answer = self.ask("/reload", "Origin: http://evil.example", method="OPTIONS")
        self.assertEqual((answer.status, self.reloads), (403, 0))


class NearTests(AdminCase):
    """Without a token."""

    def test_this_machine_is_served(self) -> None:
        for peer in (ip4("127.0.0.1"), ip4("127.9.9.9"), ip6("::1"), ip6("::ffff:127.0.0.1"), UNIX):
            self.assertEqual(self.ask("/metrics", peer=peer).status, 200, peer)

    def test_no_other_is(self) -> None:
        for peer in (ip4("192.0.2.1"), ip4("10.0.0.1"), ip6("2001:db8::1"), ip6("::ffff:192.0.2.1"), ip4("?")):
            for path in ("/metrics", "/healthz", "/"):
                self.assertEqual(self.ask(path, peer=peer).status, 403, peer)

    def test_nobody_is_who_came_by_another_proxy(self) -> None:
        for field in ("Via: 1.1 streamproxy-0", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1"):
            self.assertEqual(self.ask("/metrics", field).status, 403, field)


class HostTests(AdminCase):
    admin = settings.Admin(hosts=("Admin.example",))

    def test_addresses_localhost_and_what_is_listed_are_its_names(self) -> None:
        for host in (
            *("127.0.0.1", "127.0.0.1:8081", "[::1]", "[::1]:8081", "192.0.2.1:80", "localhost", "LOCALHOST:8081"),
            *("localhost.", "x.localhost:8081", "admin.example", "ADMIN.example:8081", "admin.example."),
        ):
            self.assertEqual(self.ask(host=f"Host: {host}").status, 200, host)

    def test_no_other_name_is(self) -> None:
        for host in (
            *("evil.example", "evil.example:8081", "localhost.evil.example", "xlocalhost", "127.0.0.1.evil.example"),
            *("127.0.0.1:", "127.0.0.1:x", "127.0.0.1@evil.example", "[::1", "::1", "[evil.example]", "", "127.1"),
            *("x.admin.example", "127.0.0.1 evil", "0x7f000001", "[127.0.0.1]x"),
        ):
            self.assertEqual(self.ask("/healthz", host=f"Host: {host}").status, 421, host)

    def test_a_request_without_one_or_with_two_is_refused(self) -> None:
        self.assertEqual(self.ask(host="").status, 421)
        self.assertEqual(self.ask("/", HOST).status, 421)


class TokenTests(AdminCase):
    admin = settings.Admin(token=TOKEN)

    def test_who_knows_it_is_served_from_anywhere(self) -> None:
        for peer in (ip4("127.0.0.1"), ip4("192.0.2.1")):
            answer = self.ask("/metrics", f"Authorization: Bearer {TOKEN}", peer=peer)
            self.assertEqual(answer.status, 200)
        self.assertEqual(self.ask("/reload", f"Authorization: bearer {TOKEN}", method="POST").status, 200)

    def test_who_does_not_is_not_from_anywhere(self) -> None:
        for fields in (
            (),
            ("Authorization: Bearer another-token",),
            (f"Authorization: Bearer {TOKEN}x",),
            (f"Authorization: Basic {TOKEN}",),
            (f"Authorization: {TOKEN}",),
            ("Authorization: Bearer \xfc",),
            (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer another"),
        ):
            for path, method in (("/", "GET"), ("/metrics", "GET"), ("/nothing", "GET"), ("/reload", "POST")):
                answer = self.ask(path, *fields, method=method)
                self.assertEqual((answer.status, answer.fields.get("www-authenticate", "")[:6]), (401, "Bearer"))
        self.assertEqual(self.reloads, 0)

    def test_whether_it_is_well_is_told_to_anybody(self) -> None:
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.ask(path, peer=ip4("192.0.2.1")).status, 200)

    def test_the_token_does_not_make_up_for_a_wrong_name_or_another_site(self) -> None:
        field = f"Authorization: Bearer {TOKEN}"
        self.assertEqual(self.ask("/metrics", field, host="Host: evil.example").status, 421)
        self.assertEqual(self.ask("/reload", field, "Sec-Fetch-Site: cross-site", method="POST").status, 403)

    def test_another_token_may_take_its_place(self) -> None:
        self.site.admin = settings.Admin(token="another-token-of-some-length")
        self.assertEqual(self.ask("/", f"Authorization: Bearer {TOKEN}").status, 401)


class BoundsTests(AdminCase):
    def test_a_body_up_to_the_limit_is_read(self) -> None:
        self.assertEqual(self.ask("/reload", method="POST", body=b"x" * LONGEST_BODY).status, 200)

    def test_a_longer_one_is_refused_by_its_length(self) -> None:
        channel, transport = self.connect()
        head = f"POST /reload HTTP/1.1\r\n{HOST}\r\nExpect: 100-continue\r\nContent-Length: {LONGEST_BODY + 1}\r\n\r\n"
        channel.dataReceived(head.encode())
        self.assertEqual(answered(transport.value()).status, 413)
        self.assertTrue(transport.disconnecting)
        channel.dataReceived(b"x" * (LONGEST_BODY + 1))
        self.assertEqual(self.reloads, 0)

    def test_a_longer_one_of_chunks_is_refused_when_it_is_longer(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(f"POST /reload HTTP/1.1\r\n{HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(LONGEST_BODY // 0x1000):
            channel.dataReceived(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        self.assertEqual(transport.value(), b"")
        channel.dataReceived(b"1\r\nx\r\n")
        self.assertEqual(answered(transport.value()).status, 413)
        channel.dataReceived(b"0\r\n\r\n")
        self.assertEqual((self.reloads, answered(transport.value()).status), (0, 413))

    def test_a_head_that_is_too_long_is_refused(self) -> None:
        for field in ("X: " + "x" * 17000, "\r\n".join(f"X-{number}: x" for number in range(200))):
            channel, transport = self.connect()
            channel.dataReceived(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n{field}\r\n\r\n".encode())
            self.assertNotIn(b"a_metric", transport.value())
            self.assertTrue(transport.disconnecting)

    def test_a_form_is_not_taken_apart(self) -> None:
        fields = ("Content-Type: multipart/form-data; boundary=x",)
        self.assertEqual(self.ask("/reload", *fields, method="POST", body=b"nonsense").status, 200)

    def test_an_idle_connection_is_closed_and_then_cut(self) -> None:
        _, transport = self.connect()
        self.clock.advance(PATIENCE - 0.1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(60)
        self.assertTrue(transport.aborted)

    def test_a_request_that_trickles_in_gets_no_more_time_than_another(self) -> None:
        channel, transport = self.connect()
        for byte in b"GET /healthz HTTP/1.1\r\nHost: 127":
            channel.dataReceived(bytes([byte]))
            self.clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_a_response_gives_its_connection_new_time(self) -> None:
        channel, transport = self.connect()
        for _ in range(3):
            self.clock.advance(PATIENCE - 1)
            channel.dataReceived(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        self.assertFalse(transport.disconnecting)

    def test_there_are_only_so_many_connections_and_one_more_ends_the_eldest(self) -> None:
        made = [self.connect() for _ in range(MOST_CONNECTIONS)]
        channel, transport = self.connect()
        self.assertEqual([each.aborted for _, each in made], [True] + [False] * (MOST_CONNECTIONS - 1))
        made[0][0].connectionLost(Failure(ConnectionDone()))
        channel.dataReceived(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "))
        for ending, _ in [*made[1:], (channel, transport)]:
            ending.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.channels, {})

    def test_nothing_is_left_when_all_is_over(self) -> None:
        for number in range(3):
            channel, _ = self.connect()
            channel.dataReceived(f"GET / HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
            if number == 1:
                self.clock.advance(PATIENCE)
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.clock.getDelayedCalls(), self.site.channels), ([], {}))
