"""Certificates for the origins of the measurements, made anew each time: an authority, and one that it vouches for."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What origins are called where it is spoken of TLS. Both names lead to this machine and stand in the certificate.
NAME, ADDRESS = "localhost", "127.0.0.1"


class Certificates(NamedTuple):
    """PEM files: the authority's certificate, and an origin's with its key."""

    authority: Path
    origin: Path


def make_authority(folder: Path, name: str) -> Path:
    """A PEM file in `folder` with an authority's certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = folder / "authority.pem"
    path.write_bytes(_authority(name, key).public_bytes(Encoding.PEM) + _private(key))
    return path


def make_certificates(folder: Path) -> Certificates:
    """An authority and an origin's certificate, all P-256, in `folder`."""
    found = Certificates(folder / "authority.pem", folder / "origin.pem")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _authority("Authority of the measurements", root_key)
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address(ADDRESS))]
    leaf = (
        _begun(_called(NAME), root.subject, key.public_key(), root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    found.authority.write_bytes(root.public_bytes(Encoding.PEM))
    found.origin.write_bytes(leaf.public_bytes(Encoding.PEM) + _private(key))
    return found


def _authority(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _begun(_called(name), _called(name), key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
