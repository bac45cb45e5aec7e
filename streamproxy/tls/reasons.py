"""Why a handshake failed, in plain words, for the client that gets a 502 and for the log.

Only words: what is accepted is decided by OpenSSL and in `contexts`.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from OpenSSL import SSL
from twisted.python.failure import Failure

# OpenSSL's codes of what is wrong with a certificate (openssl/x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
_NO_ISSUER = frozenset((2, 20, 21))
_WEAK = {
    66: "its key is too small",
    67: "the key of an authority above it is too small",
    68: "it is signed with an algorithm that is no longer safe",
}
_OTHER = {
    7: "its signature is wrong",
    23: "it has been revoked",
    24: "it is signed by one that is no authority",
    25: "its chain is longer than an authority in it allows",
    26: "it isn't made for servers",
    32: "it is signed by one that may not sign certificates",
    34: "it has a critical extension that isn't understood",
    47: "an authority above it may not sign this name",
    48: "an authority above it may not sign this name",
    79: "it is signed by one that is no authority",
}
# Alerts by which a client says that it doesn't like the certificate (RFC 8446 section 6.2), as OpenSSL names them.
_DISTRUST = {
    "unknown ca": "it does not trust the proxy's CA",
    "certificate unknown": "it most likely does not trust the proxy's CA, or pins another certificate",
    "bad certificate": "it most likely does not trust the proxy's CA, or pins another certificate",
    "certificate expired": "it takes the certificate for expired: are its clock and the proxy's right?",
    "unsupported certificate": "it does not take this kind of certificate",
    "access denied": "it refused the certificate",
    "certificate revoked": "it takes the certificate for revoked",
}
_OLD = ("unsupported protocol", "version too low", "protocol version", "no protocols available", "wrong ssl version")
_NOT_TLS = ("wrong version number", "http request", "https proxy request", "packet length", "unknown protocol")
_NO_COMMON = ("no shared cipher", "handshake failure", "no suitable", "insufficient security", "no ciphers")


class HandshakeFailed(Exception):
    """A TLS handshake with an origin that came to nothing; its text says why.

    `untrusted`: the origin answered, but didn't prove who it is. `status` is what a client is told.
    """

    def __init__(self, why: str, untrusted: bool = False, status: int = 502) -> None:
        super().__init__(why)
        self.why = why
        self.untrusted = untrusted
        self.status = status


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def why_untrusted(code: int, depth: int, certificate: x509.Certificate, host: str) -> str:
    """What OpenSSL found wrong (`code`) with a certificate, `depth` steps above that of `host`."""
    whose = f"the certificate of {host}"
    if depth:
        whose += " isn't trusted: an authority's certificate above it"
    if code == _EXPIRED:
        return f"{whose} has expired (on {certificate.not_valid_after_utc:%Y-%m-%d})"
    if code == _NOT_YET_VALID:
        return f"{whose} is not yet valid (before {certificate.not_valid_before_utc:%Y-%m-%d})"
    if code == _SELF_SIGNED:
        return f"the certificate of {host} isn't trusted: it is self-signed"
    if code == _SELF_SIGNED_IN_CHAIN:
        root = _name(certificate.subject)
        return f"the certificate of {host} isn't trusted: its chain ends at {root}, which isn't trusted here"
    if code in _NO_ISSUER:
        return (
            f"the certificate of {host} isn't trusted: its issuer, {_name(certificate.issuer)}, is unknown here"
            " (or the origin didn't send what stands between)"
        )
    if code in _WEAK:
        return f"the certificate of {host} is too weak: {_WEAK[code]}"
    why = _OTHER.get(code, f"OpenSSL says error {code}")
    return f"the certificate of {host} isn't trusted: {why}"


def wrong_name(certificate: x509.Certificate, host: str) -> str:
    """That `host` isn't among the names of `certificate`, and which are."""
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = [str(each.value) for each in extension.value][:5]
    except Exception:
        # There is none, or it can't be read.
        pass
    shown = ", ".join(_printable(name) for name in names) or "no name at all"
    return f"the certificate of {host} has the wrong name: it is made for {shown}"


def why_client_failed(failure: Failure) -> tuple[str, bool]:
    """Why the handshake of a client that had sent its ClientHello failed, and whether it left of its own accord."""
    reason = _reason(failure)
    if reason is None:
        return "it closed the connection when it got the certificate: perhaps it does not trust the proxy's CA", True
    for alert, words in _DISTRUST.items():
        if alert in reason and "alert" in reason:
            return f"{words} (alert: {alert})", False
    if any(each in reason for each in _OLD):
        return f"it speaks none of the TLS versions that are spoken here ({reason})", False
    if any(each in reason for each in _NOT_TLS):
        return f"what it sent is not TLS ({reason})", False
    if any(each in reason for each in _NO_COMMON):
        return f"it has no cipher or key exchange in common with the proxy ({reason})", False
    return f"what it sent can't be understood ({reason})", False


def why_origin_failed(failure: Failure, host: str) -> HandshakeFailed:
    """What to tell a client of a handshake with an origin that failed for another reason than its certificate."""
    reason = _reason(failure)
    if reason is None:
        return HandshakeFailed(f"{host} closed the connection in the TLS handshake")
    if any(each in reason for each in _OLD):
        return HandshakeFailed(f"{host} speaks only versions of TLS that are too old", untrusted=True)
    if any(each in reason for each in _NOT_TLS):
        return HandshakeFailed(f"{host} doesn't speak TLS there")
    if "too small" in reason or "too weak" in reason:
        return HandshakeFailed(f"the TLS of {host} is too weak: {reason}", untrusted=True)
    if "handshake failure" in reason:
        # Before TLS 1.3 there is one alert for both.
        why = "it asks for a client certificate (tls.client_certificate), or has no cipher in common with the proxy"
        return HandshakeFailed(f"{host} refused the TLS handshake: {why}")
    if "unrecognized name" in reason:
        return HandshakeFailed(f"{host} refused the TLS handshake: it doesn't know itself by that name")
    if "alert" in reason:
        return HandshakeFailed(f"{host} refused the TLS handshake: {reason}")
    return HandshakeFailed(f"the TLS handshake with {host} failed: {reason}")


def why_origin_broke_off(failure: Failure, host: str) -> str | None:
    """Why the TLS with an origin ended behind its handshake; None where it is nothing of TLS.

    In TLS 1.3 that is also how an origin takes what it was shown in the handshake.
    """
    reason = _reason(failure)
    if reason is None:
        return None
    if "certificate required" in reason:
        return f"{host} asks for a client certificate (tls.client_certificate)"
    return f"the TLS with {host} broke off: {reason}"


def _reason(failure: Failure) -> str | None:
    """OpenSSL's words for what ended a handshake, in lower case; None where the connection just ended.

    Of several errors the first is what happened, and the others are what that was to those who called.
    """
    error = failure.value
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list) or not error.args[0]:
        return None
    return str(error.args[0][0][2]).lower()


def _name(name: x509.Name) -> str:
    for attribute in reversed(list(name)):
        if attribute.oid == x509.NameOID.COMMON_NAME:
            return repr(_printable(str(attribute.value)))
    return repr(_printable(name.rfc4514_string()) or "no name")


def _printable(text: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= 100 else shown[:97] + "..."
