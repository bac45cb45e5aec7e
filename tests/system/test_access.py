"""Who may use the proxy, and where it leads nobody: real clients, real threads, and a reload in between."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    Client,
    Origin,
    Proxy,
    Ran,
    Wire,
    curl,
    each_request,
    new_folder,
    response,
    run,
)
from tests.system.parts import needed as needed_program
from tests.system.secure import SecureOrigin, curl_trusting, trusting

HELLO = each_request(lambda asked: response(b"hello"))


def listening(proxy: Proxy, number: int) -> list[int]:
    """The ports of its listeners, once there are so many."""
    pattern = re.compile(r"\] listening on (?:127\.0\.0\.1|0\.0\.0\.0):([0-9]+)")
    proxy.wait_for(lambda lines: sum(bool(pattern.search(line)) for line in lines) == number, f"{number} listeners")
    return [int(port) for port in pattern.findall(proxy.output)]


class UsersTests(SynchronousTestCase):
    """ann's password is "secret"."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.users = self.folder / "users"
        self.write("secret")
        self.proxy = Proxy(self, f"access: {{htpasswd: {self.users}}}\n", trusting(self), folder=self.folder)
        self.origin = Origin(self, HELLO)

    def write(self, password: str) -> None:
        """That is ann's from the next time on that the file is read."""
        self.users.write_bytes(b"ann:%b\n" % bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)))

    def ask(self, url: str, *arguments: str | Path, password: str | None = "secret") -> Ran:
        user = [] if password is None else ["--proxy-user", f"ann:{password}"]
        return curl(self, self.proxy, "-w", "%{http_code} %{http_connect}", *user, *arguments, url)

    def assert_no_connection(self, origin: Origin) -> None:
        self.assertEqual(origin.wires, [])

    def test_http(self) -> None:
        self.assertEqual(self.ask(self.origin.url()).out, b"hello200 000")
        for password, why in ((None, b"asks for a user name"), ("guess", b"is wrong")):
            refused = self.ask(self.origin.url(), password=password)
            self.assertTrue(refused.out.endswith(b"407 000") and why in refused.out, refused)
        lines = [(line["status"], line.get("user")) for line in self.proxy.recorded(3)]
        self.assertEqual(lines, [(200, "ann"), (407, None), (407, None)])
        for word in ("secret", "guess", "Basic"):
            self.assertNotIn(word, self.proxy.output)

    def test_https_by_connect(self) -> None:
        origin = SecureOrigin(self, HELLO)
        trust = curl_trusting(self.proxy.ca)
        self.assertEqual(self.ask(origin.url(), *trust).out, b"hello200 200")
        for password in (None, "guess"):
            refused = self.ask(origin.url(), *trust, password=password)
            self.assertTrue(refused.out.endswith(b"000 407"), refused)
        self.assertEqual(len(origin.wires), 1)
        self.assertEqual([line.get("user") for line in self.proxy.recorded(4)], ["ann", "ann", None, None])

    def test_a_client_that_speaks_tls_to_the_proxy(self) -> None:
        self.proxy.url = self.proxy.url.replace("http:", "https:")
        trust = ("--proxy-cacert", self.proxy.ca, "--cacert", self.proxy.ca)
        self.assertEqual(self.ask(self.origin.url(), *trust).out, b"hello200 000")
        self.assertEqual(self.ask(SecureOrigin(self, HELLO).url(), *trust).out, b"hello200 200")
        self.assertTrue(self.ask(self.origin.url(), *trust, password=None).out.endswith(b"407 000"))

    def test_a_client_that_waits_to_be_asked(self) -> None:
        # curl asks without a password first, and then again on the same connection.
        self.assertEqual(self.ask(self.origin.url(), "--proxy-anyauth").out[-7:], b"200 000")
        clients = [line["client"] for line in self.proxy.recorded(2)]
        self.assertEqual(clients[0], clients[1])

    def test_a_large_upload_is_refused_before_a_byte_of_it_reaches_the_origin(self) -> None:
        body = self.folder / "body"
        with body.open("wb") as file:
            file.truncate(100 << 20)
        for expect in ("Expect:", "Expect: 100-continue"):
            for password in (None, "guess"):
                asked = self.ask(self.origin.url("/put"), "-T", body, "-H", expect, password=password)
                self.assertIn(b"407 000", asked.out)
        self.assert_no_connection(self.origin)
        for line in self.proxy.recorded(4):
            self.assertEqual((line["status"], line["outcome"]), (407, "refused"))
            self.assertLess(line["bytes"]["client_in"], 4 << 20)

    def test_many_at_once_with_the_same_password_are_checked_and_served(self) -> None:
        clients = [Client(self, self.proxy) for _ in range(100)]
        for client in clients:
            client.get(self.origin, "/", b"Proxy-Authorization: Basic YW5uOnNlY3JldA==")
        for client in clients:
            head = client.read_head()
            self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)

    def test_a_reload_takes_another_file_and_forgets_what_it_knew(self) -> None:
        self.assertEqual(self.ask(self.origin.url()).out, b"hello200 000")
        self.write("changed")
        self.reload("] reloaded: ")
        self.assertTrue(self.ask(self.origin.url()).out.endswith(b"407 000"))
        self.assertEqual(self.ask(self.origin.url(), password="changed").out, b"hello200 000")

    def test_one_that_can_not_be_read_leaves_the_old_one_in_force(self) -> None:
        self.assertEqual(self.ask(self.origin.url()).out, b"hello200 000")
        self.users.write_text("ann:secret\n")
        self.reload("not reloaded")
        self.assertIn(f"{self.users}:1: expected a bcrypt hash", self.proxy.output)
        self.assertEqual(self.ask(self.origin.url()).out, b"hello200 000")
        self.assertTrue(self.ask(self.origin.url(), password=None).out.endswith(b"407 000"))

    def reload(self, outcome: str) -> None:
        os.kill(self.proxy.pid, signal.SIGHUP)
        self.proxy.wait_for(lambda lines: any(outcome in line for line in lines), outcome)

    def test_what_htpasswd_writes_is_read(self) -> None:
        program = needed_program("htpasswd", "apache2-utils")
        for user, password in (("ann", "another"), ("bob", "x" * 100)):
            made = run(self, program, "-bB", self.users, user, password)
            self.assertEqual(made.status, 0, made.err)
        self.reload("] reloaded: ")
        self.assertEqual(self.ask(self.origin.url(), password="another").out, b"hello200 000")
        out = curl(self, self.proxy, "--proxy-user", f"bob:{'x' * 100}", self.origin.url()).out
        self.assertEqual(out, b"hello")


class AddressTests(SynchronousTestCase):
    def test_a_client_that_is_not_listed_is_told_so(self) -> None:
        proxy = Proxy(self, "access: {allow: [192.0.2.0/24]}")
        origin = Origin(self, HELLO)
        asked = curl(self, proxy, "-w", "%{http_code}", origin.url())
        self.assertTrue(asked.out.endswith(b"\n403"), asked)
        (line,) = proxy.recorded(1)
        self.assertEqual((line["status"], line["outcome"], origin.wires), (403, "refused", []))

    def test_one_by_a_unix_socket_is_a_matter_of_its_permissions(self) -> None:
        folder = new_folder(self)
        path = folder / "proxy"
        listen = f"listen=['tcp:0:interface=127.0.0.1', 'unix:{path}']"
        Proxy(self, "access: {allow: [192.0.2.0/24]}", listen, folder=folder)
        origin = Origin(self, HELLO)
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(str(path))
        sock.sendall(f"GET {origin.url()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        sock.settimeout(30)
        self.assertTrue(sock.recv(1000).startswith(b"HTTP/1.1 200 "))

    def test_behind_a_balancer_it_is_the_clients_own(self) -> None:
        listen = "listen=['haproxy:tcp:0:interface=127.0.0.1', 'tcp:0:interface=127.0.0.1']"
        proxy = Proxy(self, "access: {allow: [192.0.2.0/24, 127.0.0.1]}", listen)
        ports = listening(proxy, 2)
        origin = Origin(self, HELLO)
        for told, status in ((b"192.0.2.7", b"200"), (b"198.51.100.7", b"403")):
            answers = set()
            for port in ports:
                sock = socket.create_connection(("127.0.0.1", port), 30)
                self.addCleanup(sock.close)
                wire = Wire(sock)
                wire.send(b"PROXY TCP4 %b 127.0.0.1 50000 80\r\n" % told)
                wire.send(f"GET {origin.url()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                answers.add(wire.read_head()[9:12])
            self.assertEqual(answers, {status, b"400"})


class OriginsTests(SynchronousTestCase):
    def status(self, proxy: Proxy, url: str) -> bytes:
        return curl(self, proxy, "-o", "/dev/null", "-w", "%{http_code}", url).out

    def test_names_that_lead_to_this_machine_are_refused_in_any_form(self) -> None:
        proxy = Proxy(self, "access: {origins: {deny: [127.0.0.0/8, '::1']}}")
        origin = Origin(self, HELLO)
        hosts = (
            "127.0.0.1",
            "localhost",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0.0.0.0",
            "[::1]",
            "[::ffff:7f00:1]",
        )
        for host in hosts:
            client = Client(self, proxy)
            client.send(f"GET http://{host}:{origin.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertTrue(client.read_head().startswith(b"HTTP/1.1 403 "), host)
        self.assertEqual(origin.wires, [])
        for line in proxy.recorded(len(hosts)):
            self.assertIn("is refused by access.origins.deny: ", line["error"])

    def test_the_proxy_itself_is_no_origin_by_any_of_its_addresses(self) -> None:
        listen = "listen=['tcp:0:interface=127.0.0.1', 'tcp:0']"
        proxy = Proxy(self, "access: {allow: [127.0.0.0/8, '::1']}", listen)
        (everywhere,) = (port for port in listening(proxy, 2) if port != proxy.port)
        own = [("127.0.0.1", proxy.port), ("localhost", proxy.port), ("0.0.0.0", proxy.port)]
        own += [("127.0.0.1", everywhere), ("127.8.8.8", everywhere), ("0x7f.1", everywhere)]
        for host, port in own:
            client = Client(self, proxy)
            client.send(f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertTrue(client.read_head().startswith(b"HTTP/1.1 508 "), (host, port))
        # None of them came in a second time.
        self.assertEqual(len(proxy.recorded(len(own))), len(own))
        self.assertEqual(self.status(proxy, "http://streamproxy.test/"), b"200")

    def test_a_reload_denies_what_an_idle_connection_is_kept_for(self) -> None:
        proxy = Proxy(self, "")
        origin = Origin(self, HELLO)
        self.assertEqual(self.status(proxy, origin.url()), b"200")
        (proxy.folder / "rules.yaml").write_text("access: {origins: {deny: 127.0.0.1}}")
        os.kill(proxy.pid, signal.SIGHUP)
        proxy.wait_for(lambda lines: any("] reloaded: " in line for line in lines), "a reload")
        self.assertEqual(self.status(proxy, origin.url()), b"403")
