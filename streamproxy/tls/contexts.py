"""OpenSSL contexts: made once and kept, and a connection made of them for each handshake.

Towards clients there is one for each of the last names, towards origins one for each way in which they are dealt with
(verified or not, with which certificate of ours). Who is told what of a handshake that fails is in `reasons`; how bytes
get in and out of a connection in `layer`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern

from streamproxy.tls.reasons import is_address, why_untrusted, wrong_name

if TYPE_CHECKING:
    from streamproxy.tls.authority import Authority, Leaf

# What is spoken inside TLS, best first. HTTP/2 will stand before it; `layer.Tls` tells what was agreed on.
PROTOCOLS = (b"http/1.1",)
# OpenSSL's own choice of ciphers; with its level 2 nothing is trusted below 112 bits of security: no RSA or DH of
# less than 2048 bits, no SHA-1 under a certificate.
CIPHERS = b"DEFAULT:@SECLEVEL=2"
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# Names whose context is kept, of about 20 KiB. To set a certificate on each connection instead costs a tenth of it.
MOST_CONTEXTS = 512
# Sessions kept, one for each origin, so that the next handshake with it needs no certificates.
MOST_SESSIONS = 1024


class TlsError(Exception):
    """What keeps TLS from being set up: one line in words."""


class KeyLog:
    """Appends the secrets of each handshake to the file at `path`, as SSLKEYLOGFILE asks for."""

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise TlsError(f"SSLKEYLOGFILE: {path} can't be written: {error.strerror}") from None

    def __call__(self, _connection: SSL.Connection, line: bytes) -> None:
        # A full disk is no reason to refuse a handshake.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line + b"\n")


def _context(method: int, minimum_version: str, keylog: KeyLog | None) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(VERSIONS[minimum_version])
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # An idle connection has no buffers of OpenSSL's.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if keylog is not None:
        context.set_keylog_callback(keylog)
    return context


def _choose(_connection: SSL.Connection, offered: Sequence[bytes]) -> object:
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS


class ClientFacing:
    """The server's side of TLS, towards clients, with leaves of `authority`.

    Sessions are resumed by tickets, so that nothing is kept for a client that has gone.
    """

    def __init__(self, authority: Authority, minimum_version: str = "1.2", keylog: KeyLog | None = None) -> None:
        self.authority = authority
        self._minimum_version = minimum_version
        self._keylog = keylog
        self._contexts: OrderedDict[str, tuple[Leaf, SSL.Context]] = OrderedDict()

    def same_as(self, other: ClientFacing) -> bool:
        """Whether a client couldn't tell this from `other`."""
        ours, theirs = self.authority, other.authority
        return (ours.certificate, ours.chain, ours.path, self._minimum_version) == (
            theirs.certificate,
            theirs.chain,
            theirs.path,
            other._minimum_version,
        )

    def connection(self, name: str) -> SSL.Connection:
        """A connection that shows a certificate for `name`, a host name or an IP address; raises `AuthorityError`."""
        leaf = self.authority.leaf(name)
        contexts = self._contexts
        kept = contexts.get(leaf.name)
        # A leaf is made anew when its time has come, and its context with it.
        if kept is None or kept[0] is not leaf:
            kept = contexts[leaf.name] = leaf, self._make(leaf)
            if len(contexts) > MOST_CONTEXTS:
                contexts.popitem(last=False)
        contexts.move_to_end(leaf.name)
        connection = SSL.Connection(kept[1], None)
        connection.set_accept_state()
        return connection

    def _make(self, leaf: Leaf) -> SSL.Context:
        context = _context(SSL.TLS_SERVER_METHOD, self._minimum_version, self._keylog)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"streamproxy")
        context.set_alpn_select_callback(_choose)  # type: ignore[arg-type]
        context.use_privatekey(self.authority.leaf_key)
        context.use_certificate(leaf.certificate)
        for certificate in self.authority.chain:
            context.add_extra_chain_cert(certificate)
        return context


class Judgement:
    """Whom a connection to an origin must prove to be with, and what was found wrong (in words) if it didn't.

    It is asked in the handshake, so that one that fails ends before the origin has heard anything but that. `until` is
    when (seconds since the epoch) what it proved is no longer true: the first of its certificates ends then. A session
    that is resumed is proof until the same moment, as OpenSSL asks for no certificate again.
    """

    __slots__ = ("_asked", "host", "problem", "until")

    def __init__(self, host: str) -> None:
        self.host = host
        self.problem = ""
        self.until = math.inf
        self._asked = False

    def __call__(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        """OpenSSL's word on one certificate of the chain; and on the last ours, whether its name is the host's."""
        try:
            self._judge(certificate.to_cryptography(), code, depth, ok)
        except Exception:
            # What a certificate is made of is for others to choose.
            self.problem = f"the certificate of {self.host}, or of an authority above it, can't be read"
        return not self.problem

    def _judge(self, certificate: x509.Certificate, code: int, depth: int, ok: int) -> None:
        if not self._asked:
            # The session that was offered isn't resumed.
            self._asked, self.until = True, math.inf
        self.until = min(self.until, certificate.not_valid_after_utc.timestamp())
        if not ok:
            self.problem = why_untrusted(code, depth, certificate, self.host)
        elif depth == 0:
            self.problem = _name_problem(certificate, self.host)


class OriginFacing:
    """The client's side of TLS, towards origins.

    `verifies` and `certificate_for` are asked with host and port: whether the origin must prove who it is, and which
    PEM file (certificate and key; `certificates` are all there are) is shown to it if it asks for one. `trusted_ca` are
    PEM files beside the system's trust.
    """

    def __init__(
        self,
        verifies: Callable[[str, int], bool] = lambda host, port: True,
        trusted_ca: Sequence[str] = (),
        certificate_for: Callable[[str, int], str | None] = lambda host, port: None,
        certificates: Sequence[str] = (),
        minimum_version: str = "1.2",
        keylog: KeyLog | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._verifies = verifies
        self._certificate_for = certificate_for
        self._trusted_ca = trusted_ca
        self._minimum_version = minimum_version
        self._keylog = keylog
        self._contexts: dict[tuple[bool, str | None], SSL.Context] = {}
        # Each with the context that it was made with, for it holds only as long as that is asked for; and until when.
        self._sessions: OrderedDict[tuple[str, int], tuple[SSL.Context, SSL.Session, float]] = OrderedDict()
        self._certificates = certificates

    def prepare(self) -> None:
        """Read all files now, so that a user hears at the start of those that can't be used: raises `TlsError`."""
        for certificate in (None, *self._certificates):
            for verified in (True, False):
                self._context_for(verified, certificate)

    def _context_for(self, verified: bool, certificate: str | None) -> SSL.Context:
        context = self._contexts.get((verified, certificate))
        if context is None:
            context = self._contexts[verified, certificate] = self._make(verified, certificate)
        return context

    def _make(self, verified: bool, certificate: str | None) -> SSL.Context:
        context = _context(SSL.TLS_CLIENT_METHOD, self._minimum_version, self._keylog)
        context.set_alpn_protos(list(PROTOCOLS))
        if certificate is not None:
            _check_readable(certificate)
            try:
                context.use_certificate_chain_file(certificate)
                context.use_privatekey_file(certificate)
                context.check_privatekey()
            except SSL.Error as error:
                raise TlsError(f"{certificate}: no certificate with its key: {_words(error)}") from None
        if verified:
            context.set_default_verify_paths()
            for path in self._trusted_ca:
                _check_readable(path)
                try:
                    context.load_verify_locations(path)
                except SSL.Error as error:
                    raise TlsError(f"{path}: no certificates: {_words(error)}") from None
            store = context.get_cert_store()
            assert store is not None
            # Who trusts one certificate of an origin, or of an authority below a root, means just that one.
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        return context

    def connection(self, host: str, port: int) -> tuple[SSL.Connection, Judgement]:
        """A connection that must prove to be with `host`, and what will be known of that."""
        verified = self._verifies(host, port)
        context = self._context_for(verified, self._certificate_for(host, port))
        connection = SSL.Connection(context, None)
        judgement = Judgement(host)
        made_with, session, until = self._sessions.get((host, port), (None, None, 0.0))
        if session is not None and made_with is context and self._now() < until:
            connection.set_session(session)
            judgement.until = until
        connection.set_verify(*((SSL.VERIFY_PEER, judgement) if verified else (SSL.VERIFY_NONE,)))
        if not is_address(host):
            connection.set_tlsext_host_name(host.removesuffix(".").encode("ascii"))
        connection.set_connect_state()
        return connection, judgement

    def remember(self, port: int, connection: SSL.Connection, judgement: Judgement) -> None:
        """Keep the session of `connection`, on which something has been received, for the next one."""
        session, host = connection.get_session(), judgement.host
        if session is not None:
            sessions = self._sessions
            sessions[host, port] = connection.get_context(), session, judgement.until
            sessions.move_to_end((host, port))
            if len(sessions) > MOST_SESSIONS:
                sessions.popitem(last=False)

    def forget(self, host: str, port: int) -> None:
        """The last handshake failed: begin anew with the next."""
        self._sessions.pop((host, port), None)


def _name_problem(certificate: x509.Certificate, host: str) -> str:
    """What is wrong with the names of `certificate` (RFC 9525), in words; empty if `host` is among them.

    Each name is judged by itself: one that can stand for nobody (`*.local`, an address as a host's name) is skipped.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        patterns = list(_patterns(extension.value))
    except x509.ExtensionNotFound:
        patterns = []
    except Exception:
        # What a certificate is made of is for others to choose.
        return f"the names in the certificate of {host} can't be read"
    return "" if _is_among(host, patterns) else wrong_name(certificate, host)


def _is_among(host: str, patterns: list[DNSPattern | IPAddressPattern]) -> bool:
    if is_address(host):
        return any(map(IPAddress_ID(host).verify, patterns))
    bare = host.removesuffix(".").lower()
    try:
        wanted = DNS_ID(bare)
    except ValueError:
        return False
    # service_identity takes no wildcard for an A-label; RFC 9525 section 6.3 does.
    wildcard = DNSPattern(b"*." + wanted.hostname.partition(b".")[2])
    return any(each == wildcard or wanted.verify(each) for each in patterns)


def _patterns(names: x509.SubjectAlternativeName) -> Iterator[DNSPattern | IPAddressPattern]:
    """What names of hosts and addresses stand for; other kinds of names don't concern us."""
    for address in names.get_values_for_type(x509.IPAddress):
        yield IPAddressPattern(address)  # type: ignore[arg-type]
    for name in names.get_values_for_type(x509.DNSName):
        with contextlib.suppress(CertificateError):
            yield DNSPattern.from_bytes(name.encode("utf-8"))


def _check_readable(path: str) -> None:
    """OpenSSL has no words for what the system says."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path}: can't be read: {error.strerror}") from None


def _words(error: SSL.Error) -> str:
    """The reason in an OpenSSL error: the first of several is what happened."""
    queue = error.args[0] if error.args else ()
    return str(queue[0][2] if queue and isinstance(queue[0], tuple) else error)
