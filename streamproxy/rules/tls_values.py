"""The single values that `tls` is written in: destinations, choices by host, PEM files.

As in `values`, each reader takes what stood in the YAML and gives what the program uses, or raises an error that says
what was expected. A PEM file is looked at only so far that a mistaken path is told early; it is loaded elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import PlainValidator

from streamproxy.rules.interception import Destinations, Name, destination
from streamproxy.rules.match import HostPattern, Pattern, PatternError, host_pattern
from streamproxy.rules.trust import VERIFIED, Choice, HostChoices
from streamproxy.rules.values import each_pattern, expected, refused

T = TypeVar("T")

_CERTIFICATE = re.compile(rb"^-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----", re.MULTILINE)
_KEY = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----", re.MULTILINE)
# Asked for a passphrase, OpenSSL would wait for somebody at the terminal.
_ENCRYPTED_KEY = re.compile(rb"^(?:-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: *4, *ENCRYPTED)", re.MULTILINE)
_LARGEST_PEM = 16 << 20

VERSIONS = ("1.2", "1.3")
OLD_VERSIONS = frozenset(("1", "1.0", "1.1"))
NAMED_HOSTS_ONLY = "verification can be turned off for named hosts only: verify_upstream: {dev.example: false}"


def destinations(value: Any) -> Destinations:
    """Patterns of hosts and ranges of addresses; none of them, too."""
    if value == []:
        return Destinations()
    return Destinations(
        Name(f"{{regex: {member.text}}}", HostPattern(member)) if isinstance(member, Pattern) else member
        for member in each_pattern(value, destination, re.IGNORECASE)
    )


def verification(value: Any) -> HostChoices[bool]:
    """Of which origins the certificates are verified: of all, but for hosts that are named."""
    if value is True:
        return VERIFIED
    if value is False:
        raise refused(NAMED_HOSTS_ONLY)
    if not isinstance(value, dict):
        raise expected("true, or hosts with true or false such as {dev.example: false}")
    read = HostChoices(True, _choices(value, _boolean_below))
    for choice in read.choices:
        if not choice.value and _is_any_host(choice.pattern):
            raise refused(NAMED_HOSTS_ONLY, choice.text)
    return read


def client_certificates(value: Any) -> HostChoices[str | None]:
    """Which PEM file, with certificate and key, each origin is shown that asks for one."""
    if isinstance(value, dict):
        return HostChoices(None, _choices(value, certificate_and_key))
    return HostChoices(certificate_and_key(value))


def _choices(value: dict[str, Any], read: Callable[..., T]) -> tuple[Choice[T], ...]:
    """A mapping of host patterns, in the order in which it is written; `read` takes a value and the way to it."""
    choices: list[Choice[T]] = []
    for text, chosen in value.items():
        try:
            pattern = host_pattern(text)
        except PatternError as error:
            raise expected(str(error), text, "[key]") from None
        if choices and choices[-1].text == "*":
            raise refused("is never reached: '*' before it matches every host", text)
        choices.append(Choice(text, pattern, read(chosen, text)))
    return tuple(choices)


def _is_any_host(host: HostPattern) -> bool:
    """Whether there is nothing but wildcards in a pattern's host, so that it names none."""
    text = host.pattern.text
    name = text.rpartition(":")[0] if host.has_port else text
    return host.exact is None and not any(char.isalnum() for char in name)


def _boolean_below(value: Any, *below: str) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false", *below)
    return value


def _pem(value: Any, *below: str) -> tuple[str, bytes]:
    """The absolute path of a PEM file, and what is in it."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise expected("a PEM file", *below)
    path = os.path.abspath(value)
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise refused(f"{path} can't be read: it isn't a file", *below)
        with open(path, "rb") as file:
            content = file.read(_LARGEST_PEM + 1)
    except OSError as error:
        raise refused(f"{path} can't be read: {error.strerror}", *below) from None
    if len(content) > _LARGEST_PEM:
        raise refused(f"{path} is larger than {_LARGEST_PEM >> 20}m", *below)
    return path, content


def _check_certificate(path: str, content: bytes, *below: str) -> None:
    if not _CERTIFICATE.search(content):
        raise refused(f"{path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", *below)


def _check_key(path: str, content: bytes, *below: str) -> None:
    if _ENCRYPTED_KEY.search(content):
        raise refused(f"{path} holds a private key that is encrypted; it must be there without a passphrase", *below)
    if not _KEY.search(content):
        raise refused(f"{path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)", *below)


def certificate(value: Any, *below: str) -> str:
    """A PEM file with a certificate, or several."""
    path, content = _pem(value, *below)
    _check_certificate(path, content, *below)
    return path


def key(value: Any, *below: str) -> str:
    """A PEM file with a private key."""
    path, content = _pem(value, *below)
    _check_key(path, content, *below)
    return path


def certificate_and_key(value: Any, *below: str) -> str:
    """A PEM file with both."""
    path, content = _pem(value, *below)
    _check_certificate(path, content, *below)
    _check_key(path, content, *below)
    return path


def minimum_version(value: Any) -> str:
    """The least version of TLS that is spoken, to either side."""
    written = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if written in OLD_VERSIONS:
        raise refused("TLS 1.2 is the least")
    if written not in VERSIONS:
        raise expected('"1.2" or "1.3"')
    return written


DestinationList = Annotated[Destinations, PlainValidator(destinations)]
Verification = Annotated[HostChoices[bool], PlainValidator(verification)]
ClientCertificates = Annotated[HostChoices[str | None], PlainValidator(client_certificates)]
CertificateFile = Annotated[str, PlainValidator(certificate)]
KeyFile = Annotated[str, PlainValidator(key)]
MinimumVersion = Annotated[str, PlainValidator(minimum_version)]
