"""The admin listener of a running proxy: what it tells agrees with what was done, and it obeys only whom it should."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.inspect.admin import MOST_CONNECTIONS
from tests.system.parts import (
    WAIT,
    Client,
    Origin,
    Proxy,
    Ran,
    curl,
    each_request,
    new_folder,
    response,
    run,
    until,
)

LOCAL = "tcp:0:interface=127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\n"
TOKEN = "a-token-of-some-length"


class AdminCase(SynchronousTestCase):
    def start(self, rules: str = "", *overrides: str, admin: str = LOCAL, folder: Path | None = None) -> Proxy:
        self.proxy = proxy = Proxy(self, rules, f"admin={admin}", *overrides, folder=folder)
        listens = re.compile(r"admin: listening on (.+)$")
        proxy.wait_for(lambda lines: any(map(listens.search, lines)), "the admin listener")
        address = next(found[1] for found in map(listens.search, proxy.lines) if found)
        self.url = f"http://{address}"
        return proxy

    def ask(self, path: str, *arguments: str) -> Ran:
        """What curl gets from the admin listener; its output is the body, and the status in a line behind it."""
        status = ("--write-out", "%{stderr}%{http_code}")
        return run(self, "curl", "-q", "-sS", "--max-time", "30", *status, *arguments, self.url + path)

    def status(self, path: str, *arguments: str) -> int:
        return int(self.ask(path, *arguments).err)

    def samples(self) -> dict[str, float]:
        """All values, each by its name and labels as the text has them."""
        # What was told a moment ago may be told again.
        time.sleep(0.3)
        ran = self.ask("/metrics")
        self.assertEqual(ran.err, "200")
        return {
            sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(ran.out.decode())
            for sample in family.samples
        }

    def value(self, name: str) -> float:
        return self.samples()[f"streamproxy_{name}"]


class MetricsTests(AdminCase):
    def test_the_figures_agree_with_what_was_done_and_with_the_log(self) -> None:
        origin = Origin(self, each_request(lambda asked: response(b"x" * 1000)))
        proxy = self.start("rules: [{match: {path: /no}, block: 403}]")
        client = Client(self, proxy)
        for _ in range(3):
            client.get(origin)
            self.assertEqual(len(client.read_body(client.read_head())), 1000)
        self.assertEqual(curl(self, proxy, "-d", "four", origin.url("/")).status, 0)
        self.assertEqual(curl(self, proxy, origin.url("/no")).status, 0)
        lines = proxy.recorded(5)
        samples = self.samples()
        for name, expected in (
            ("exchanges_total outcome=forwarded status=2xx", 4),
            ("exchanges_total outcome=refused status=4xx", 1),
            ("exchanges_total outcome=failed status=5xx", 0),
            ("requests_total method=GET", 4),
            ("requests_total method=POST", 1),
            ("exchange_duration_seconds_count", 5),
            ("client_connections", 1),
            ("client_connections_accepted_total", 3),
            ("origin_connections_made_total", len(origin.wires)),
            ("origin_connections_reused_total", 4 - len(origin.wires)),
            ("origin_connections_idle", len(origin.wires)),
            ("bytes_total direction=in side=client", sum(line["bytes"]["client_in"] for line in lines)),
            ("bytes_total direction=out side=client", sum(line["bytes"]["client_out"] for line in lines)),
            ("bytes_total direction=in side=origin", sum(line["bytes"]["origin_in"] for line in lines)),
            ("bytes_total direction=out side=origin", sum(line["bytes"]["origin_out"] for line in lines)),
            ("under_way kind=exchange", 0),
            ("rules", 1),
        ):
            self.assertEqual(samples[f"streamproxy_{name}"], expected, name)
        self.assertGreater(samples["streamproxy_residence_seconds_count"], 7)

    def test_a_download_is_seen_while_it_runs_and_so_is_who_does_not_read_it(self) -> None:
        origin = Origin(self, buffer=65536)
        proxy = self.start()
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(OK + b"Content-Length: 100000000\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        wire.sock.setblocking(False)
        sent = 0
        piece = b"x" * 65536

        def stands_still() -> bool:
            nonlocal sent
            try:
                sent += wire.sock.send(piece)
            except BlockingIOError:
                return self.value("pauses_under_way cause=sink full") == 1
            return False

        until(stands_still, "a pause")
        samples = self.samples()
        self.assertEqual(samples["streamproxy_under_way kind=exchange"], 1)
        self.assertGreater(samples["streamproxy_bytes_total direction=in side=origin"], 65536)
        self.assertLessEqual(samples["streamproxy_bytes_total direction=in side=origin"], sent + 1000)
        self.assertEqual(samples["streamproxy_exchanges_total outcome=forwarded status=2xx"], 0)
        client.reset()
        until(lambda: self.value("pauses_under_way cause=sink full") == 0, "the end of the pause")
        self.assertEqual(self.value("exchanges_total outcome=client-gone status=2xx"), 1)

    def test_handshakes_certificates_and_tunnels_are_counted(self) -> None:
        origin = Origin(self, lambda wire: wire.send(b"hello"))
        proxy = self.start("tls: {passthrough: [127.0.0.1]}")
        self.assertNotEqual(curl(self, proxy, "https://intercepted.invalid/").status, 0)
        samples = self.samples()
        self.assertEqual(samples["streamproxy_tls_handshakes_total result=failed side=client"], 1)
        run(self, "curl", "-q", "-sk", "--max-time", "30", "--proxy", proxy.url, "https://intercepted.invalid/")
        samples = self.samples()
        self.assertEqual(samples["streamproxy_tls_handshakes_total result=ok side=client"], 1)
        self.assertEqual(samples["streamproxy_tls_handshake_seconds_count side=client"], 2)
        self.assertEqual(samples["streamproxy_certificates_minted_total"], 1)
        self.assertEqual(samples["streamproxy_certificates_kept"], 1)
        self.assertGreater(samples["streamproxy_authority_expiry_timestamp_seconds"], 1.7e9)
        self.assertGreaterEqual(samples["streamproxy_origin_connections_failed_total reason=name"], 1)
        # For either tunnel, as its address might be one to be let through; and to connect.
        self.assertEqual(samples["streamproxy_lookups_total result=none"], 3)
        client = Client(self, proxy)
        client.send(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (origin.netloc.encode(), origin.netloc.encode()))
        client.read_until(b"\r\n\r\nhello")
        # The origin has ended its side; the client hasn't.
        self.assertEqual(self.value("under_way kind=tunnel"), 1)
        client.half_close()
        proxy.recorded(4)
        self.assertEqual(self.value("exchanges_total outcome=tunnelled status=2xx"), 1)
        self.assertEqual(self.value("tunnel_duration_seconds_count"), self.value("requests_total method=CONNECT"))


class ReadyTests(AdminCase):
    def test_it_is_well_and_ready_and_not_ready_while_it_stops(self) -> None:
        origin = Origin(self)
        proxy = self.start("timeouts: {drain: 20}")
        self.assertEqual((self.status("/healthz"), self.status("/readyz")), (200, 200))
        client = Client(self, proxy)
        client.get(origin)
        wire = origin.accept()
        wire.read_head()
        wire.send(OK + b"Content-Length: 10\r\n\r\nabc")
        client.read_until(b"abc")
        os.kill(proxy.pid, signal.SIGTERM)
        until(lambda: self.status("/readyz") == 503, "that it isn't ready")
        self.assertEqual(self.ask("/readyz").out, b"the proxy is stopping\n")
        self.assertEqual(self.status("/healthz"), 200)
        wire.send(b"defghij")
        client.expect(b"defghij")
        self.assertEqual(proxy.wait(), 0)

    def test_no_admin_listener_is_opened_where_none_is_wanted(self) -> None:
        proxy = Proxy(self)
        self.assertEqual(curl(self, proxy, "http://127.0.0.1:1/").status, 0)
        self.assertNotIn("admin", proxy.output)


class ReloadTests(AdminCase):
    def test_rules_are_read_again_when_it_is_posted_to(self) -> None:
        proxy = self.start("rules: []")
        rules = proxy.folder / "rules.yaml"
        rules.write_text("rules: [{match: {host: hello.example}, respond: {text: hello}}]")
        ran = self.ask("/reload", "-X", "POST")
        self.assertEqual((ran.out, ran.err), (b"reloaded\n", "200"))
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")
        samples = self.samples()
        self.assertEqual(samples["streamproxy_reloads_total result=ok"], 1)
        self.assertEqual((samples["streamproxy_reload_last_worked"], samples["streamproxy_rules"]), (1, 1))

        rules.write_text("rules: [{match: {hots: x}}]\nhold: sometimes\n")
        ran = self.ask("/reload", "-X", "POST")
        self.assertEqual(ran.err, "422")
        self.assertIn(b"rules.yaml:1:18: rules[0].match: unknown key 'hots'; did you mean 'host'?\n", ran.out)
        self.assertIn(b"rules.yaml:2:7: hold: expected needed or always, got 'sometimes'\n", ran.out)
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")
        after = self.samples()
        self.assertEqual(after["streamproxy_reloads_total result=failed"], 1)
        self.assertEqual(after["streamproxy_reload_last_worked"], 0)
        last = "streamproxy_reload_last_success_timestamp_seconds"
        self.assertEqual(after[last], samples[last])

    def test_what_another_site_has_a_browser_send_reloads_nothing(self) -> None:
        self.start()
        for arguments in (
            ("-H", "Sec-Fetch-Site: cross-site"),
            ("-H", "Origin: http://evil.example"),
            ("-H", "Origin: null"),
            ("-H", "Host: evil.example"),
            ("--resolve", f"evil.example:{self.url.rpartition(':')[2]}:127.0.0.1", "-H", "Host: evil.example"),
        ):
            self.assertIn(self.status("/reload", "-X", "POST", *arguments), (403, 421), arguments)
        self.assertEqual(self.status("/reload"), 405)
        self.assertEqual(self.value("reloads_total result=ok") + self.value("reloads_total result=failed"), 0)

    def test_a_page_under_a_name_that_was_made_to_point_here_reads_nothing(self) -> None:
        self.start()
        port = self.url.rpartition(":")[2]
        rebound = ("--resolve", f"evil.example:{port}:127.0.0.1", f"http://evil.example:{port}/metrics")
        ran = run(self, "curl", "-q", "-sS", "--max-time", "30", *rebound)
        self.assertNotIn(b"streamproxy_", ran.out)

    def test_nobody_reaches_it_through_the_proxy(self) -> None:
        proxy = self.start()
        port = self.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "[::1]"):
            ran = curl(self, proxy, f"http://{host}:{port}/metrics")
            self.assertNotIn(b"streamproxy_rules", ran.out, host)
            ran = curl(self, proxy, "--proxytunnel", f"http://{host}:{port}/metrics")
            self.assertNotIn(b"streamproxy_rules", ran.out, host)


class TokenTests(AdminCase):
    def test_with_a_token_it_is_asked_for_and_may_be_changed_by_a_reload(self) -> None:
        folder = new_folder(self)
        file = folder / "token"
        file.write_text(f"{TOKEN}\n")
        self.start(admin=f"{{endpoint: '{LOCAL}', token_file: token}}", folder=folder)
        bearer = ("-H", f"Authorization: Bearer {TOKEN}")
        self.assertEqual((self.status("/metrics"), self.status("/metrics", *bearer)), (401, 200))
        self.assertEqual(self.status("/healthz"), 200)
        file.write_text("another-token-of-some-length\n")
        self.assertEqual(self.status("/reload", "-X", "POST", *bearer), 200)
        self.assertEqual(self.status("/metrics", *bearer), 401)
        self.assertEqual(self.status("/metrics", "-H", "Authorization: Bearer another-token-of-some-length"), 200)
        self.assertNotIn(TOKEN, self.proxy.output)

    def test_it_may_be_a_unix_socket(self) -> None:
        folder = new_folder(self)
        path = folder / "admin.sock"
        Proxy(self, "", f"admin=unix:{path}", folder=folder)
        until(path.exists, "the socket")
        ran = run(self, "curl", "-q", "-sS", "--max-time", "30", "--unix-socket", path, "http://localhost/healthz")
        self.assertEqual(ran.out, b"in order\n")


class BoundsTests(AdminCase):
    def test_many_idle_connections_leave_the_proxy_alone_and_requests_to_it_are_not_on_the_log(self) -> None:
        proxy = self.start("rules: [{match: {host: hello.example}, respond: {text: hello}}]")
        self.assertEqual(self.status("/healthz"), 200)
        address = ("127.0.0.1", int(self.url.rpartition(":")[2]))
        socks, cut = [], set()
        for _ in range(100):
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.settimeout(WAIT)
            socks.append(sock)
            try:
                sock.connect(address)
            except ConnectionResetError:
                cut.add(sock)
            sock.setblocking(False)

        def all_that_are_too_many_are_cut() -> bool:
            for sock in set(socks) - cut:
                try:
                    sock.recv(1)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    pass
                cut.add(sock)
            return len(cut) == 100 - MOST_CONNECTIONS

        until(all_that_are_too_many_are_cut, "an end of those that are too many")
        self.assertEqual(curl(self, proxy, "http://hello.example/").out, b"hello")
        for sock in socks:
            sock.close()
        until(lambda: self.ask("/healthz").out == b"in order\n", "room for another")
        self.assertNotIn("healthz", proxy.output)
        self.assertNotIn("Timing out", proxy.output)
