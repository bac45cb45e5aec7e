"""Peers that speak TLS over `tests.fakes`' transports, by Python's own ssl; and a stage for them.

The proxy's TLS is pyOpenSSL's, on Twisted: these peers have no code in common with it but OpenSSL itself.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from streamproxy.proxy.downstream import DownstreamFactory
from streamproxy.proxy.proxy import Proxy
from streamproxy.settings import Settings
from streamproxy.tls.authority import Authority
from streamproxy.tls.contexts import ClientFacing, OriginFacing
from tests.conversation import VIA, FakeJournal, FakePool, Stage, settings_of
from tests.fakes import TCP, BoundedTransport

_USAGES = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
_USAGES += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
DAY = datetime.timedelta(days=1)


class Issued:
    """A certificate with its key. `pem` has both, the key first, and the certificates of `above` behind them."""

    def __init__(self, certificate: x509.Certificate, key, above: tuple[Issued, ...] = ()) -> None:
        self.certificate = certificate
        self.key = key
        self.above = above
        self.pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.certificate_pem = certificate.public_bytes(Encoding.PEM)
        self.pem += self.certificate_pem + b"".join(each.certificate_pem for each in above)


def issue(
    *names: str,
    by: Issued | None = None,
    is_ca: bool = False,
    since: datetime.timedelta = -DAY,
    until: datetime.timedelta = 30 * DAY,
    key=None,
    digest: hashes.HashAlgorithm | None = None,
    common_name: str | None = None,
    purpose=ExtendedKeyUsageOID.SERVER_AUTH,
    above: tuple[Issued, ...] = (),
    may_sign: bool = True,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> Issued:
    """A certificate for `names` (hosts or IP addresses), issued by `by` or by itself.

    `may_sign`: what a CA's key usage says. `extensions` are critical, and stand in for those that would be there.
    """
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    now = datetime.datetime.now(datetime.UTC)
    common = common_name if common_name is not None else (names[0] if names else "an authority")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    given = {type(extension) for extension in extensions}
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if x509.BasicConstraints not in given:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if names and x509.SubjectAlternativeName not in given:
        general = [_general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if is_ca:
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": may_sign, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if by is not None:
        above_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
        builder = builder.add_extension(above_key, critical=False)
    signer = key if by is None else by.key
    return Issued(builder.sign(signer, digest or hashes.SHA256()), key, above)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@functools.cache
def origin_ca() -> Issued:
    """The authority of this run's origins, which the proxy is told to trust."""
    return issue(is_ca=True, common_name="the origins' authority")


@functools.cache
def issued_for(name: str) -> Issued:
    """A certificate in order for an origin, from `origin_ca`."""
    return issue(name, by=origin_ca())


def server_context(issued: Issued, *protocols: str) -> ssl.SSLContext:
    """The context of a server that shows `issued`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(issued.pem)
        context.load_cert_chain(path)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def client_context(trusted_pem: str | bytes | None, *protocols: str) -> ssl.SSLContext:
    """The context of a client that trusts what is in `trusted_pem`, strictly; None: anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusted_pem is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=trusted_pem.decode() if isinstance(trusted_pem, bytes) else trusted_pem)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class SecurePeer:
    """The peer at the other end of `transport` (or of another `SecurePeer`, for TLS in TLS), speaking TLS.

    `heard` is what it has read, `ended` whether the other side has said that it ends (close_notify).
    """

    def __init__(
        self,
        transport: BoundedTransport | SecurePeer,
        context: ssl.SSLContext,
        name: str | None = None,
        server: bool = False,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._transport = transport
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name, session=session)
        self.shaken = False
        self.ended = False
        self.heard = bytearray()
        self.error: ssl.SSLError | None = None

    def step(self) -> bool:
        """Read what there is and send what is due; whether anything moved."""
        raw = self._transport.take()
        if raw:
            self._in.write(raw)
        before = len(self.heard), self.shaken, self.ended
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while data := self.tls.read(65536):
                self.heard += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.error = error
        sent = self.flush()
        return sent or bool(raw) or before != (len(self.heard), self.shaken, self.ended)

    def flush(self) -> bool:
        """Send the records that are ready."""
        data = self._out.read()
        if data:
            self._transport.say(data)
        return bool(data)

    def say(self, data: bytes) -> None:
        """Send `data`."""
        self.tls.write(data)
        self.flush()

    def take(self) -> bytes:
        """What has been heard since the last time, for TLS in TLS."""
        self.step()
        data = bytes(self.heard)
        self.heard.clear()
        return data

    def say_goodbye(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()


@functools.cache
def proxy_authority() -> Authority:
    """The proxy's authority in this run's tests; its certificate in PEM is `.pem`."""
    ca = issue(is_ca=True, common_name="the proxy's authority")
    return Authority(ca.certificate, ca.key)


class SecureStage(Stage):
    """A proxy that intercepts TLS, between fake transports.

    It trusts `origin_ca`, and its own authority is `proxy_authority`.
    """

    def __init__(self, rules: str | Settings = "", manner: str = TCP, tls: OriginFacing | None = None) -> None:
        super().__init__(settings_of(rules) if isinstance(rules, str) else rules, manner)
        if tls is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "ca.pem")
                path.write_bytes(origin_ca().certificate_pem)
                tls = OriginFacing(
                    verifies=self.settings.tls.verifies,
                    trusted_ca=[str(path)],
                    minimum_version=self.settings.tls.minimum_version,
                )
                # While the file is there.
                tls.prepare()
        self.pool = FakePool(self.clock, self.settings, manner, tls)
        self.journal = FakeJournal()
        client_facing = ClientFacing(proxy_authority(), self.settings.tls.minimum_version)
        self.proxy = Proxy(self.settings, self.pool, self.journal, self.clock, VIA, client_facing)
        self.factory = DownstreamFactory(self.proxy)

    def connect(self, target: str = "a.example:443") -> BoundedTransport:
        """A client whose CONNECT to `target` has been answered with 200."""
        client = self.client()
        client.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        self.turn()
        heard = client.take()
        assert heard.startswith(b"HTTP/1.1 200 "), heard
        return client

    def secure_client(self, target: str = "a.example:443", *protocols: str, below=None) -> SecurePeer:
        """A client that trusts the proxy, with its TLS done, in a tunnel to `target`; on `below`, if that is given."""
        transport = self.connect(target) if below is None else below
        name = target.rpartition(":")[0].strip("[]")
        client = SecurePeer(transport, client_context(proxy_authority().pem, *protocols), name)
        self.run(client)
        assert client.shaken, client.error
        return client

    def secure_origin(self, name: str = "a.example", issued: Issued | None = None) -> SecurePeer:
        """The origin at the newest connection, with a certificate for `name` from the trusted authority."""
        return SecurePeer(self.origin, server_context(issued or issued_for(name), "http/1.1"), server=True)

    def run(self, *peers: SecurePeer | BoundedTransport) -> None:
        """Everybody reads what there is, until nothing moves."""
        still = 0
        while still < 3:
            self.turn()
            moved = False
            for peer in peers:
                moved = (bool(peer.take()) if isinstance(peer, BoundedTransport) else peer.step()) or moved
            still = 0 if moved else still + 1
