"""What is spoken in a CONNECT tunnel when it is neither TLS that is intercepted nor HTTP."""

from __future__ import annotations

import smtplib
import socket
import ssl

from twisted.trial.unittest import SynchronousTestCase

from tests.secure import server_context
from tests.system.parts import WAIT, Origin, Proxy, Wire, each_request, read_request, response
from tests.system.secure import SecureOrigin, Tunnel, certificate_for_us, origin_ca_file, trusting

BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


class MailClient(smtplib.SMTP):
    """Python's SMTP client, on a socket that is there already."""

    def __init__(self, sock: socket.socket) -> None:
        self._given = sock
        super().__init__("127.0.0.1", local_hostname="client.example", timeout=WAIT)

    def _get_socket(self, host, port, timeout):
        return self._given


def serve_mail(wire: Wire) -> None:
    """A mail server that knows one message, and TLS."""
    wire.send(b"220 mail.example ESMTP\r\n")
    inside = False
    while line := wire.read_until(b"\r\n"):
        word = line.split()[0].upper()
        if word == b"EHLO":
            wire.send(b"250 mail.example\r\n" if inside else b"250-mail.example\r\n250 STARTTLS\r\n")
        elif word == b"STARTTLS":
            wire.send(b"220 Go ahead\r\n")
            wire.start_tls(server_context(certificate_for_us()), server=True)
            inside = True
        elif word == b"DATA":
            wire.send(b"354 Go on\r\n")
            message = wire.read_until(b"\r\n.\r\n")
            wire.send(b"250 " + b"%d bytes%b\r\n" % (len(message), b" over TLS" if inside else b""))
        elif word == b"QUIT":
            wire.send(b"221 Bye\r\n")
            return
        else:
            wire.send(b"250 OK\r\n")


class TunnelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxy = Proxy(self, "", trusting(self))

    def tunnel(self, origin: Origin) -> Tunnel:
        return Tunnel(self, self.proxy, origin.netloc)

    def assert_tunnelled(self, origin: Origin) -> None:
        """There is one exchange on the log: a tunnel to `origin` that ended in order."""
        (line,) = self.proxy.recorded(1)
        self.assertEqual((line["method"], line["url"], line["outcome"]), ("CONNECT", origin.netloc, "tunnelled"))


class ServerSpeaksFirstTests(TunnelCase):
    def test_mail(self) -> None:
        origin = Origin(self, serve_mail)
        with MailClient(self.tunnel(origin).sock) as client:
            self.assertEqual(client.sendmail("a@a.example", ["b@b.example"], "Subject: x\r\n\r\nhello"), {})
        self.assert_tunnelled(origin)

    def test_mail_that_goes_over_to_tls_is_between_the_two(self) -> None:
        origin = Origin(self, serve_mail)
        with MailClient(self.tunnel(origin).sock) as client:
            client.ehlo()
            client.starttls(context=ssl.create_default_context(cafile=str(origin_ca_file(self))))
            client.ehlo()
            client.mail("a@a.example")
            client.rcpt("b@b.example")
            self.assertEqual(client.data("hello"), (250, b"10 bytes over TLS"))
        self.assert_tunnelled(origin)

    def test_both_speak_at_once(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(BANNER)
            heard = wire.read_until(b"\r\n")
            wire.send(b"\x00" * 300 + heard)
            wire.send(wire.read_to_end())

        origin = Origin(self, script)
        tunnel = self.tunnel(origin)
        tunnel.send(b"SSH-2.0-client\r\n")
        tunnel.expect(BANNER + b"\x00" * 300 + b"SSH-2.0-client\r\n")
        # What comes after the client's own end still arrives.
        tunnel.send(b"\xff" * 70_000)
        tunnel.half_close()
        tunnel.expect(b"\xff" * 70_000)
        tunnel.expect_end()
        self.assert_tunnelled(origin)

    def test_a_banner_sent_long_before_its_answer(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(BANNER)
            wire.send(wire.read_until(b"\r\n"))

        origin = Origin(self, script)
        tunnel = self.tunnel(origin)
        tunnel.expect(BANNER)
        tunnel.send(b"SSH-2.0-client\r\n")
        tunnel.expect(b"SSH-2.0-client\r\n")
        tunnel.expect_end()
        tunnel.half_close()
        self.assert_tunnelled(origin)

    def test_where_there_is_no_server_the_tunnel_ends_and_the_log_tells_why(self) -> None:
        proxy = Proxy(self, "", "timeouts.head=1")
        # The client, too, waits to be spoken to.
        Tunnel(self, proxy, "127.0.0.1:1").expect_end()
        (line,) = proxy.recorded(1)
        self.assertIn("127.0.0.1:1 refused the connection", line["error"])


class OtherBytesTests(TunnelCase):
    def test_a_client_that_begins_with_no_http_is_relayed(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(wire.read_to_end())

        origin = Origin(self, script)
        for sent in (b"\x00\x01\x02", b"\x16\x02 no record of TLS", b"NICK somebody\r\n", b"\x04\x01\x00\x50"):
            tunnel = self.tunnel(origin)
            tunnel.send(sent)
            tunnel.half_close()
            self.assertEqual(tunnel.read_to_end(), sent)
        self.assertEqual([line["outcome"] for line in self.proxy.recorded(4)], ["tunnelled"] * 4)

    def test_a_broken_server_breaks_its_tunnel(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(BANNER)
            wire.read_until(b"\r\n")
            wire.reset()

        tunnel = self.tunnel(Origin(self, script))
        tunnel.expect(BANNER)
        tunnel.send(b"SSH-2.0-client\r\n")
        tunnel.expect_reset()
        (line,) = self.proxy.recorded(1)
        self.assertEqual(line["outcome"], "origin-gone")


class SwitchTests(TunnelCase):
    """Inside a tunnel, through real TLS (WebSockets that come about are in test_websocket_*)."""

    UPGRADE = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    def test_an_upgrade_that_is_answered_by_something_else_leaves_http(self) -> None:
        script = each_request(lambda asked: response(b"not here\n", status=b"403 Forbidden"))
        for origin in (SecureOrigin(self, script), Origin(self, script)):
            tunnel = self.tunnel(origin)
            if isinstance(origin, SecureOrigin):
                tunnel.shake(self.proxy.ca)
            for _ in range(2):
                tunnel.ask_for("/feed", *self.UPGRADE)
                head = tunnel.read_head()
                self.assertTrue(head.startswith(b"HTTP/1.1 403 "), head)
                self.assertEqual(tunnel.read_body(head), b"not here\n")

    def test_an_origin_that_switches_though_nobody_asked_is_a_502(self) -> None:
        def script(wire: Wire) -> None:
            read_request(wire)
            wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
            wire.read_to_end()

        for fields, why in (((), b"switched protocols unasked"), (self.UPGRADE, b"no Sec-WebSocket-Accept")):
            tunnel = self.tunnel(SecureOrigin(self, script))
            tunnel.shake(self.proxy.ca)
            tunnel.ask_for("/feed", *fields)
            head = tunnel.read_head()
            self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
            self.assertIn(why, tunnel.read_body(head))
