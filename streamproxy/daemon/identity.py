"""What clients are shown and what origins are dealt with by: made from the settings, whole, before anything uses it."""

from __future__ import annotations

import os
from typing import NamedTuple

from twisted.logger import Logger

from streamproxy.settings import ConfigurationError, Settings
from streamproxy.tls.authority import AuthorityError, authority_for
from streamproxy.tls.contexts import ClientFacing, KeyLog, OriginFacing, TlsError

log = Logger()


class Identity(NamedTuple):
    """`clients` is None where nothing is intercepted, and so no authority needed."""

    clients: ClientFacing | None
    origins: OriginFacing


def keylog() -> KeyLog | None:
    """Where the secrets of connections are written, if the environment says so."""
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return None
    log.warn("SSLKEYLOGFILE: the secrets of all TLS connections are written to {path}", path=path)
    return KeyLog(path)


def identity(settings: Settings, secrets: KeyLog | None, before: Identity | None = None) -> Identity:
    """All that `settings.tls` names, read from its files; raises ConfigurationError.

    Where the authority is the same as `before`, so are the certificates that were made by it.
    """
    try:
        origins = _origins(settings, secrets)
        clients = _clients(settings, secrets)
    except (AuthorityError, TlsError) as error:
        raise ConfigurationError([f"tls: {error}"]) from None
    if clients is not None and before is not None and before.clients is not None and clients.same_as(before.clients):
        clients = before.clients
    return Identity(clients, origins)


def check_identity(settings: Settings) -> None:
    """Raise ConfigurationError where a file that `settings.tls` names can't be used; makes no authority."""
    try:
        _origins(settings, None)
        if settings.tls.authority_certificate is not None:
            _clients(settings, None)
    except (AuthorityError, TlsError) as error:
        raise ConfigurationError([f"tls: {error}"]) from None


def _clients(settings: Settings, secrets: KeyLog | None) -> ClientFacing | None:
    tls = settings.tls
    if not tls.interception.intercept:
        return None
    authority = authority_for(settings.state_dir, tls.authority_certificate, tls.authority_key)
    return ClientFacing(authority, tls.minimum_version, secrets)


def _origins(settings: Settings, secrets: KeyLog | None) -> OriginFacing:
    tls = settings.tls
    facing = OriginFacing(
        verifies=tls.verifies,
        trusted_ca=tls.trusted_ca,
        certificate_for=tls.client_certificate_for,
        certificates=tls.client_certificates,
        minimum_version=tls.minimum_version,
        keylog=secrets,
    )
    facing.prepare()
    return facing
