"""What a newcomer sees at http://streamproxy.test/ through the proxy: the CA's certificate, and how to trust it.

The certificate only: the authority has no form that holds its key. Which requests come here is decided where they are
read; the name never leaves the proxy.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import importlib.resources
import re
import string
from typing import NamedTuple

from streamproxy.proxy.answers import explain
from streamproxy.rules.verdict import Answer
from streamproxy.tls.authority import Authority
from streamproxy.wire.headers import Field

# A name that no DNS has (RFC 6761 section 6.2).
HOST = "streamproxy.test"
# Where the proxy is reached unless it is told otherwise.
PROXY = "http://127.0.0.1:8080"


def is_trust_page(host: str) -> bool:
    """Whether a host's name, in lower case, is that of the page."""
    return host.rstrip(".") == HOST


_ALWAYS: tuple[Field, ...] = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
)
_NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class _Download(NamedTuple):
    """A form of the certificate: the attribute of the authority that has it, and how it is labelled."""

    form: str
    media_type: bytes
    disposition: bytes


_DOWNLOADS = {
    # Inline, for Firefox and Safari offer to install this type when it is opened, and keep an attachment as a file.
    "/streamproxy-ca.crt": _Download("der", b"application/x-x509-ca-cert", b"inline"),
    "/streamproxy-ca.pem": _Download("pem", b"application/x-pem-file", b"attachment"),
    "/streamproxy-ca.p12": _Download("p12", b"application/x-pkcs12", b"attachment"),
}

_NO_AUTHORITY = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamproxy: HTTPS is left alone</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem; }
</style>
</head>
<body>
<h1>This goes through streamproxy</h1>
<p>HTTPS is not intercepted here (<code>tls.intercept</code> is <code>false</code>): it passes as it is, there is no
certificate to trust, and nothing to install.</p>
</body>
</html>
"""


class TrustPage:
    """Answers the requests for `HOST`. `authority` is None where nothing is intercepted."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority
        # A client comes by one of the few addresses that this machine has.
        self._shown = functools.lru_cache(maxsize=8)(self._show)

    def _show(self, proxy: str) -> Answer:
        page = _NO_AUTHORITY.encode() if self._authority is None else _page(self._authority, proxy)
        fields = (
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", _policy(page)),
            *_ALWAYS,
        )
        return Answer(200, fields, page)

    def answer(self, path: str, method: bytes, proxy: str = PROXY) -> Answer:
        """The answer to a `method` request for a path, with its query if there is one.

        `proxy` is the URL by which the client reached the proxy, as the commands on the page have it.
        """
        path = path.partition("?")[0]
        download = _DOWNLOADS.get(path) if self._authority is not None else None
        if path != "/" and download is None:
            return _explained(404, "there is only / here, and the files that it names")
        if method not in (b"GET", b"HEAD"):
            return _explained(405, "this can only be read", (b"Allow", b"GET, HEAD"))
        if download is None:
            return self._shown(proxy)
        name = path.removeprefix("/").encode()
        fields = (
            (b"Content-Type", download.media_type),
            (b"Content-Disposition", b'%s; filename="%s"' % (download.disposition, name)),
            *_ALWAYS,
        )
        return Answer(200, fields, getattr(self._authority, download.form))


def _explained(status: int, why: str, *more: Field) -> Answer:
    answer = explain(status, why)
    seen = {name.lower() for name, _ in answer.headers}
    return answer._replace(headers=(*answer.headers, *(each for each in _ALWAYS if each[0].lower() not in seen), *more))


def _page(authority: Authority, proxy: str) -> bytes:
    anchor = authority.anchor
    words = {
        "subject": anchor.subject.rfc4514_string(),
        "begins": f"{anchor.not_valid_before_utc:%Y-%m-%d}",
        "ends": f"{anchor.not_valid_after_utc:%Y-%m-%d}",
        "fingerprint": authority.fingerprint,
        "fingerprint_sha1": authority.fingerprint_sha1,
        "sha1_digits": authority.fingerprint_sha1.replace(":", ""),
        "proxy": proxy,
    }
    text = importlib.resources.files("streamproxy.proxy").joinpath("trust_page.html").read_text("utf-8")
    return string.Template(text).substitute({key: html.escape(word) for key, word in words.items()}).encode()


def _policy(page: bytes) -> bytes:
    """A policy (CSP level 3) that lets the page have its own style, by its digest, and nothing else."""
    style = re.search(rb"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    return f"{_NOTHING_ELSE}; style-src 'sha256-{digest}'".encode()
