"""Certificates as they are made: an authority's own, and leaves for names (RFC 5280).

Only X.509: no files, no clock of its own, nothing is kept. Who makes them when, and where they lie, is `authority`'s.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AuthorityKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ROOT_LIFE = datetime.timedelta(days=3652)
# In all, the day back included. Browsers take a leaf of 200 days at the most.
LEAF_LIFE = datetime.timedelta(days=199)
# How far a client's clock may be behind ours.
SKEW = datetime.timedelta(days=1)
# What a common name may have (RFC 5280 appendix A.1, ub-common-name).
LONGEST_COMMON_NAME = 64

_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_LONGEST_HOST = 253


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key, which is what every client knows and the quickest to sign with."""
    return ec.generate_private_key(ec.SECP256R1())


def make_root(key: AuthorityKey, now: float) -> x509.Certificate:
    """A self-signed CA certificate for `key`, valid from a day before `now` (seconds since the epoch) for ten years."""
    start = _moment(now)
    name = x509.Name(
        [
            # Each of its own name: clients that find two CAs of one name take the wrong one.
            x509.NameAttribute(NameOID.COMMON_NAME, f"streamproxy CA {secrets.token_hex(4)}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "streamproxy"),
        ]
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - SKEW)
        .not_valid_after(start + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def normal_name(name: str) -> str | Address:
    """A name as a certificate has it: an address, or a host name in lower case and A-labels (RFC 5890).

    Takes an address in brackets or with a zone, a final dot, and names in any script. Raises ValueError, in words,
    where `name` is none of these.
    """
    text = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        return ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        pass
    host = text.lower() if text.isascii() else _in_a_labels(text)
    host = host.removesuffix(".")
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        raise ValueError(f"{_short(name)} is not the name of a host")
    return host


def _in_a_labels(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError:
        # The older standard has names that the newer doesn't, such as those of emoji, and clients that send them.
        try:
            return name.encode("idna").decode("ascii").lower()
        except UnicodeError:
            raise ValueError(f"{_short(name)} is not the name of a host") from None


def _short(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


def make_leaf(
    name: str | Address,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: AuthorityKey,
    now: float,
) -> x509.Certificate:
    """A server's certificate for a `normal_name`, signed by `issuer` at `now` (seconds since the epoch).

    It is valid from a day back for 199 days, and never outside its issuer's own time.
    """
    start = _moment(now) - SKEW
    # Both ends count (RFC 5280 section 4.1.2.5): hence one second less.
    end = min(start + LEAF_LIFE - datetime.timedelta(seconds=1), issuer.not_valid_after_utc)
    text = str(name)
    common = [x509.NameAttribute(NameOID.COMMON_NAME, text)] if len(text) <= LONGEST_COMMON_NAME else []
    alternative = x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(common))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(start, issuer.not_valid_before_utc))
        .not_valid_after(end)
        # RFC 5280 section 4.2.1.6: critical where there is no other name.
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=not common)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key_identifier(issuer), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What the issuer calls its key (RFC 5280 section 4.2.1.1), or else the usual digest of it."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(now), datetime.UTC)
