"""The proxies that streamproxy is measured beside: each one process, on the same core as ours, and no cache.

All but haproxy are told where to go by each request, as ours is. haproxy is no forward proxy: it goes to the one origin
that it was told, and where it is spoken of TLS it ends the client's TLS itself, without a CONNECT.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.certificates import NAME, make_authority
from bench.figures import Report
from bench.parts import PROXY_CORE, CannotMeasure, NotInstalled, Part, Parts, free_port, program, want_files
from bench.programs import find_program

OURS, PLAIN, STREAMED, SQUID, HAPROXY, STRAIGHT = (
    "streamproxy",
    "mitmdump",
    "mitmdump streamed",
    "squid",
    "haproxy",
    "no proxy",
)
# haproxy with TLS on both its sides, which isn't what the others do.
TERMINATES = "haproxy (terminates)"
# How mitmdump is told not to hold bodies.
STREAM = ("--set", "stream_large_bodies=1")
# Debian's place for what squid's certificates come from.
MAKES_CERTIFICATES = "/usr/lib/squid/security_file_certgen"
SQUID_LINES = """
{listen}
http_access allow all
cache deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
hosts_file {folder}/hosts
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors {files}
{user}
{more}
"""
# One name is asked for, so that one certificate is made, before anything is measured.
SQUID_INTERCEPTS = """
sslcrtd_program {makes} -s {folder}/certificates -M 4MB
sslcrtd_children 1 startup=1 idle=1
ssl_bump bump all
tls_outgoing_options cafile={folder}/trusted.pem
"""
HAPROXY_LINES = """
global
    nbthread 1
    maxconn {connections}
    log stdout format raw daemon info
    ssl-server-verify required
defaults
    mode http
    log global
    option httplog
    timeout connect 10s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    timeout tunnel 3600s
frontend clients
    bind 127.0.0.1:{port}
    {more}
    default_backend origin
backend origin
    http-reuse always
    server origin 127.0.0.1:{origin.port}
"""
HAPROXY_TERMINATES = """
frontend secure
    bind 127.0.0.1:{secure_port} ssl crt {certificate} alpn http/1.1
    {more}
    default_backend secure_origin
backend secure_origin
    http-reuse always
    server origin 127.0.0.1:{origin.secure_port} ssl ca-file {authority} {verifies}
"""
HAPROXY_VERIFIES = "verify required verifyhost {name} sni str({name}) alpn http/1.1"


def start_proxies(
    parts: Parts,
    report: Report,
    names: Sequence[str],
    origin: Part,
    *,
    secure: bool = False,
    overrides: Sequence[str] = (),
    rules: str = "",
    mitmdump: Sequence[str] = (),
    squid: str = "",
    haproxy: str = "",
) -> dict[str, Part]:
    """Start those of `names` that are installed, by their names, and `origin` for no proxy.

    One that isn't installed is reported with the line that brings it, and left out; so is one that doesn't start, which
    fails the case. `secure`: squid intercepts what
    comes by CONNECT, as ours and mitmdump do anyway, and haproxy (then called `TERMINATES`) speaks TLS on its
    `secure_port`. `overrides` are --set options and `rules` lines of YAML for streamproxy, `mitmdump` more options for
    mitmdump, `squid` and `haproxy` lines of their configuration (haproxy's are of the frontend).
    """
    ways: dict[str, Callable[[], Part]] = {
        STRAIGHT: lambda: origin,
        OURS: lambda: parts.streamproxy(*overrides, rules=rules),
        PLAIN: lambda: parts.mitmdump(*mitmdump),
        STREAMED: lambda: parts.mitmdump(*STREAM, *mitmdump),
        SQUID: partial(start_squid, parts, secure, squid),
        HAPROXY: partial(start_haproxy, parts, origin, secure, haproxy),
    }
    proxies: dict[str, Part] = {}
    for name in names:
        report.progress(f"starting {name}")
        try:
            part = ways[name]()
        except NotInstalled as error:
            report.is_missing(name, str(error))
            continue
        except CannotMeasure as error:
            if name in (OURS, STRAIGHT):
                raise
            # What keeps another from starting is said, and is no reason not to measure the rest.
            report.failed(str(error))
            continue
        known_as = TERMINATES if name == HAPROXY and secure else name
        if name != STRAIGHT:
            part.name = known_as
        proxies[known_as] = part
    report.progress("")
    return proxies


def start_squid(parts: Parts, secure: bool = False, more: str = "") -> Part:
    """squid without workers; `secure`: it intercepts. `more` are lines of its configuration."""
    found = program("squid", "squid-openssl")
    folder, port = parts.new_folder("squid"), free_port()
    authority = make_authority(folder, "Authority of squid")
    shutil.copy(parts.certificates.authority, folder / "trusted.pem")
    # It would else try IPv6 first for what has both.
    (folder / "hosts").write_text(f"127.0.0.1 {NAME}\n")
    listen = f"http_port 127.0.0.1:{port}"
    if secure:
        makes = find_program(MAKES_CERTIFICATES)
        if makes is None:
            raise NotInstalled(f"needs {MAKES_CERTIFICATES} (apt-get install squid-openssl)")
        subprocess.run([makes, "-c", "-s", folder / "certificates", "-M", "4MB"], check=True, capture_output=True)
        listen += f" ssl-bump tls-cert={authority} generate-host-certificates=on dynamic_cert_mem_cache_size=4MB"
        more = SQUID_INTERCEPTS.format(makes=makes, folder=folder) + more
    user = ""
    if os.geteuid() == 0:
        # It doesn't run as root.
        user = f"cache_effective_user {give_away(folder)}"
    wanted = {"folder": folder, "files": want_files(65536), "user": user, "listen": listen, "more": more}
    (folder / "squid.conf").write_text(SQUID_LINES.format(**wanted))
    # The name that its shared memory goes by must be its own.
    part = parts.start("squid", found, "-N", "-n", f"bench{port}", "-f", folder / "squid.conf", cores=[PROXY_CORE])
    part.port, part.authority = port, authority
    part.listens()
    return part


def give_away(folder: Path) -> str:
    """Let a user without rights have `folder` and all that is in it; who that is."""
    for name in ("proxy", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, name)
        return name
    raise NotInstalled("needs a user `proxy` or `nobody`, for squid doesn't run as root")


def start_haproxy(parts: Parts, origin: Part, secure: bool = False, more: str = "") -> Part:
    """haproxy in one thread, to `origin` and nowhere else. `more` are lines for its frontend."""
    found = program("haproxy", "haproxy")
    folder = parts.new_folder("haproxy")
    # Each client may cost it a connection to the origin, which is a file too.
    connections = min(20_000, (want_files(65536) - 100) // 2)
    port, secure_port = free_port(), free_port() if secure else 0
    wanted = {"connections": connections, "port": port, "origin": origin, "more": more}
    lines = HAPROXY_LINES.format(**wanted)
    if secure:
        certificates = parts.certificates
        tls = {
            "certificate": certificates.origin,
            "authority": certificates.authority,
            "verifies": HAPROXY_VERIFIES.format(name=NAME),
        }
        lines += HAPROXY_TERMINATES.format(secure_port=secure_port, **wanted, **tls)
    (folder / "haproxy.cfg").write_text(lines)
    part = parts.start("haproxy", found, "-db", "-f", folder / "haproxy.cfg", cores=[PROXY_CORE])
    part.port, part.secure_port, part.authority = port, secure_port, parts.certificates.authority
    part.listens()
    return part
