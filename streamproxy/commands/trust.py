"""`streamproxy ca` and `streamproxy env`: to trust the authority, and to send a shell's programs through the proxy."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import ssl
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from streamproxy.commands.arguments import Arguments, CommandError, settings_of, warn
from streamproxy.rules.endpoint import listening
from streamproxy.settings import Settings
from streamproxy.tls.authority import (
    BUNDLE_FILE,
    CERTIFICATE_FILE,
    JAVA_FILE,
    Authority,
    authority_for,
    make_folder,
    pem_certificates,
    replace_file,
    state_folder,
    trust_store,
)

# Where systems keep the certificates that they trust, in one PEM file.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, NixOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",  # its older path
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, OpenBSD
    "/usr/local/share/certs/ca-root-nss.crt",  # FreeBSD
)
# The first line of a bundle of ours: it is never taken for the system's, whatever variable points to it.
OURS = b"# Written by streamproxy: its CA, and the certificates that this system trusts.\n"
PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")
BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
)
# What these trust beside their own.
ADDED_VARIABLES = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
_JAVA_OURS = re.compile(r"['\"]?-D(?:javax\.net\.ssl\.trustStore(?:Type)?|https?\.proxy(?:Host|Port))=")
_JAVA_OPTION = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")


def add(commands: argparse._SubParsersAction[Arguments], configured: Arguments) -> None:
    """Put these commands among the others; `configured` has the options by which a configuration is found."""
    ca = commands.add_parser("ca", help="the authority (CA) whose certificates clients are shown")
    ca_commands = ca.add_subparsers(required=True, metavar="COMMAND")
    its_show = ca_commands.add_parser("show", parents=[configured], help="its name, validity, fingerprints and path")
    its_show.set_defaults(run=show)
    its_export = ca_commands.add_parser("export", parents=[configured], help="its certificate, never its key")
    its_export.add_argument("--format", choices=("pem", "der", "p12"), default="pem", help="pem, if nothing is said")
    its_export.add_argument("-o", "--output", metavar="FILE", help="where to write; stdout, if nothing is said")
    its_export.set_defaults(run=export)

    words = 'shell variables that make programs use it: eval "$(streamproxy env)"'
    its_env = commands.add_parser("env", parents=[configured], help=words)
    its_env.set_defaults(run=env)


def _authority(settings: Settings) -> Authority:
    own = settings.tls.authority_certificate is not None
    is_there = own or (state_folder(settings.state_dir, os.environ) / CERTIFICATE_FILE).exists()
    authority = authority_for(settings.state_dir, settings.tls.authority_certificate, settings.tls.authority_key)
    if not is_there:
        warn(f"there was no CA yet, so one was made: {authority.path}")
    for warning in authority.warnings:
        warn(warning)
    return authority


def show(chosen: argparse.Namespace) -> None:
    authority = _authority(settings_of(chosen))
    anchor = authority.anchor
    print(f"subject:      {anchor.subject.rfc4514_string()}")
    if anchor != authority.certificate:
        print(f"signs by:     {authority.certificate.subject.rfc4514_string()}")
    print(f"valid:        {anchor.not_valid_before_utc:%Y-%m-%d} to {anchor.not_valid_after_utc:%Y-%m-%d}")
    print(f"SHA-256:      {authority.fingerprint}")
    print(f"SHA-1:        {authority.fingerprint_sha1}")
    print(f"certificate:  {authority.path}")


def export(chosen: argparse.Namespace) -> None:
    authority = _authority(settings_of(chosen))
    content: bytes = getattr(authority, chosen.format)
    if chosen.output is None or chosen.output == "-":
        if chosen.format != "pem" and sys.stdout.isatty():
            raise CommandError(f"{chosen.format} is binary, and this is a terminal: use -o FILE")
        sys.stdout.buffer.write(content)
        return
    path = Path(chosen.output)
    try:
        if path.exists() and any(kept.exists() and path.samefile(kept) for kept in authority.files):
            raise CommandError(f"{path}: is where the CA itself is kept; choose another file")
        path.write_bytes(content)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: can't be written: {getattr(error, 'strerror', None) or error}") from None


def env(chosen: argparse.Namespace) -> None:
    settings = settings_of(chosen)
    url = proxy_url(settings.listen)
    if url is None:
        raise CommandError("none of the listeners is a tcp endpoint with a port that is known, so no URL leads to it")
    authority = _authority(settings)
    folder = state_folder(settings.state_dir)
    make_folder(folder)
    others = system_bundle(os.environ)
    if others is None:
        warn("no certificates of this system's were found: only the CA is trusted")
    pem = authority.bundle(others)
    bundle, java = folder / BUNDLE_FILE, folder / JAVA_FILE
    replace_file(bundle, OURS + pem)
    replace_file(java, trust_store(list(_parsed(pem))))
    # A user's own file may have more than what is to be trusted, such as the key.
    own = authority.path == folder / CERTIFICATE_FILE
    for line in exports(url, bundle, folder / CERTIFICATE_FILE if own else bundle, java, os.environ):
        print(line)


def exports(url: str, bundle: Path, added: Path, java: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """The lines for a POSIX shell: use the proxy at `url`, and trust `bundle` (`added`, where a program adds it)."""
    values = dict.fromkeys(PROXY_VARIABLES, url)
    values |= dict.fromkeys(BUNDLE_VARIABLES, str(bundle))
    values |= dict.fromkeys(ADDED_VARIABLES, str(added))
    # Node's fetch looks at the variables above only where this one says so.
    values["NODE_USE_ENV_PROXY"] = "1"
    options = java_options(url, java, environ.get("JAVA_TOOL_OPTIONS", ""))
    if options is not None:
        values["JAVA_TOOL_OPTIONS"] = options
    for name, value in values.items():
        yield f"export {name}={shlex.quote(value)}"
    if options is None:
        yield "# JAVA_TOOL_OPTIONS: left alone, for it can't hold a path with both kinds of quotes"


def java_options(url: str, store: Path, before: str) -> str | None:
    """What JAVA_TOOL_OPTIONS becomes: `before`, without what a run before this one added, and ours. None: no way.

    Java knows none of the other variables, so it is told of the proxy as well. `store` takes the place of its own
    certificates, hence it must have the system's. It divides at white space, outside quotes.
    """
    path = str(store)
    if any(each.isspace() or each in "\"'" for each in path):
        quote = '"' if '"' not in path else "'"
        if quote in path:
            return None
        path = f"{quote}{path}{quote}"
    host, _, port = url.removeprefix("http://").rpartition(":")
    kept = [option for option in _JAVA_OPTION.findall(before) if not _JAVA_OURS.match(option)]
    proxies = [f"-D{scheme}.proxyHost={host.strip('[]')} -D{scheme}.proxyPort={port}" for scheme in ("http", "https")]
    trust = [f"-Djavax.net.ssl.trustStore={path}", "-Djavax.net.ssl.trustStoreType=PKCS12"]
    return " ".join([*kept, *proxies, *trust])


def proxy_url(listen: Sequence[str]) -> str | None:
    """The URL of the first of these endpoints (Twisted's strings) that is tcp with a known port; None: there is none.

    One that listens everywhere is reached at the loopback address.
    """
    for description in listen:
        where = listening(description)
        if where is None or where.port == 0:
            continue
        interface = where.interface
        if interface in ("", "0.0.0.0", "::"):
            interface = "::1" if where.is_ipv6 else "127.0.0.1"
        return f"http://[{interface}]:{where.port}" if ":" in interface else f"http://{interface}:{where.port}"
    return None


def system_bundle(environ: Mapping[str, str]) -> bytes | None:
    """The PEM file of what this system trusts: what SSL_CERT_FILE says, unless that is one of ours. None: no file."""
    for path in (environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().openssl_cafile, *SYSTEM_BUNDLES):
        if not path:
            continue
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError):
            continue
        if not content.startswith(OURS) and pem_certificates(content):
            return content
    return None


def _parsed(pem: bytes) -> Iterator[x509.Certificate]:
    """The certificates of a bundle, without those that can't be read: systems keep some very old ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in pem_certificates(pem):
            try:
                yield x509.load_pem_x509_certificate(block)
            except ValueError:
                continue
