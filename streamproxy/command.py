"""The console script `streamproxy`: what a user types to trust the authority and to send a shell's programs here.

    streamproxy ca show                   who the CA is
    streamproxy ca export -o ca.pem       its certificate, to be installed (never its key)
    eval "$(streamproxy env)"             a shell whose programs use the proxy and trust the CA

The proxy itself is run by twistd; see `service`. An error is one line on stderr, and exit status 1.
"""

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
from typing import NoReturn

from cryptography import x509

from streamproxy import __version__
from streamproxy.rules.endpoint import listening
from streamproxy.settings import ConfigurationError, Settings, load
from streamproxy.tls.authority import (
    BUNDLE_FILE,
    CERTIFICATE_FILE,
    JAVA_FILE,
    Authority,
    AuthorityError,
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


class CommandError(Exception):
    """What can't be done, in lines for the user."""


class Arguments(argparse.ArgumentParser):
    """Answers what it doesn't understand with one line and exit status 1, like every other error here."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv's, if none is given); the exit status."""
    chosen = _arguments().parse_args(arguments)
    try:
        chosen.run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has had enough. Python would say so once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CommandError, AuthorityError, ConfigurationError) as error:
        print(*(f"streamproxy: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"streamproxy: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> Arguments:
    everywhere = Arguments(add_help=False)
    everywhere.add_argument("-c", "--config", metavar="FILE", help="the configuration that the proxy runs with")
    everywhere.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="set a key, whatever the file says"
    )
    parser = Arguments(prog="streamproxy", description="Trust streamproxy, and use it. twistd runs it.")
    parser.add_argument("--version", action="version", version=f"streamproxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ca = commands.add_parser("ca", help="the authority (CA) whose certificates clients are shown")
    ca_commands = ca.add_subparsers(required=True, metavar="COMMAND")
    show = ca_commands.add_parser("show", parents=[everywhere], help="its name, validity, fingerprints and path")
    show.set_defaults(run=_show)
    export = ca_commands.add_parser("export", parents=[everywhere], help="its certificate, never its key")
    export.add_argument("--format", choices=("pem", "der", "p12"), default="pem", help="pem, if nothing is said")
    export.add_argument("-o", "--output", metavar="FILE", help="where to write; stdout, if nothing is said")
    export.set_defaults(run=_export)

    env = commands.add_parser(
        "env", parents=[everywhere], help='shell variables that make programs use it: eval "$(streamproxy env)"'
    )
    env.set_defaults(run=_env)
    return parser


def _settings(chosen: argparse.Namespace) -> Settings:
    # An empty file stands for no file, so that --set is heard there too.
    return load(chosen.config or os.devnull, chosen.set)


def _authority(settings: Settings) -> Authority:
    own = settings.tls.authority_certificate is not None
    is_there = own or (state_folder(settings.state_dir, os.environ) / CERTIFICATE_FILE).exists()
    authority = authority_for(settings.state_dir, settings.tls.authority_certificate, settings.tls.authority_key)
    if not is_there:
        _warn(f"there was no CA yet, so one was made: {authority.path}")
    for warning in authority.warnings:
        _warn(warning)
    return authority


def _warn(text: str) -> None:
    print(f"streamproxy: warning: {text}", file=sys.stderr)


def _show(chosen: argparse.Namespace) -> None:
    authority = _authority(_settings(chosen))
    anchor = authority.anchor
    print(f"subject:      {anchor.subject.rfc4514_string()}")
    if anchor != authority.certificate:
        print(f"signs by:     {authority.certificate.subject.rfc4514_string()}")
    print(f"valid:        {anchor.not_valid_before_utc:%Y-%m-%d} to {anchor.not_valid_after_utc:%Y-%m-%d}")
    print(f"SHA-256:      {authority.fingerprint}")
    print(f"SHA-1:        {authority.fingerprint_sha1}")
    print(f"certificate:  {authority.path}")


def _export(chosen: argparse.Namespace) -> None:
    authority = _authority(_settings(chosen))
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


def _env(chosen: argparse.Namespace) -> None:
    settings = _settings(chosen)
    url = proxy_url(settings.listen)
    if url is None:
        raise CommandError("none of the listeners is a tcp endpoint with a port that is known, so no URL leads to it")
    authority = _authority(settings)
    folder = state_folder(settings.state_dir)
    make_folder(folder)
    others = system_bundle(os.environ)
    if others is None:
        _warn("no certificates of this system's were found: only the CA is trusted")
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


if __name__ == "__main__":
    sys.exit(main())
