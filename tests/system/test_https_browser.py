"""Chromium by way of the proxy to pages over https://, and its user's way to trust the proxy's authority."""

from __future__ import annotations

import html
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Nginx, Proxy, chromium, curl, needed, new_folder, run
from tests.system.secure import secure_nginx, trusting
from tests.system.test_browser import pixel

PAGE = "http://streamproxy.test/"
# Chromium has errands of its own: none of them leaves this machine.
RULES = r"""
rules:
  - {name: nothing leaves, match: {host: {regex: '^(?!(127\.0\.0\.1|localhost|streamproxy\.test)$)'}}, block: 403}
  - {match: {path: '*.css'}, response: {replace: [{find: '12, 130', with: '99, 0'}]}}
"""


class BrowserCase(SynchronousTestCase):
    def setUp(self) -> None:
        needed("chromium", "chromium")
        self.home = new_folder(self)

    def chromium(self, *arguments: str | Path) -> str:
        return chromium(self, self.proxy, *arguments, home=self.home)

    def screenshot(self, url: str, *arguments: str) -> bytes:
        shot = self.home / "page.png"
        self.chromium(f"--screenshot={shot}", *arguments, url)
        png = shot.read_bytes()
        self.assertTrue(png.startswith(b"\x89PNG\r\n\x1a\n"))
        return png

    def errors(self) -> str:
        """What Chromium printed on its standard error the last time."""
        return (self.home / "errors").read_text(errors="replace")

    def trust(self) -> None:
        """Do what the proxy's own page says for Chromium, word for word."""
        needed("certutil", "libnss3-tools")
        page = curl(self, self.proxy, PAGE).out.decode()
        found = re.search(r'<details id="chrome">.*?<pre>(.*?)</pre>', page, re.DOTALL)
        assert found is not None, page
        self.assertEqual(
            curl(self, self.proxy, "-o", self.home / "streamproxy-ca.pem", f"{PAGE}streamproxy-ca.pem").status, 0
        )
        ran = run(self, "/bin/sh", "-e", folder=self.home, stdin=html.unescape(found[1]).encode())
        self.assertEqual(ran.status, 0, ran.err)


class PageTests(BrowserCase):
    """A page over https:// whose parts come from it and from another host, and which says what it got of them."""

    def setUp(self) -> None:
        super().setUp()
        self.nginx: Nginx = secure_nginx(self)
        root = self.nginx.root
        (root / "page.html").write_text(
            '<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="colour.css">'
            f'<body><img src="{self.nginx.url("/square.svg", "localhost")}"><script src="words.js"></script>'
        )
        (root / "colour.css").write_text("html { background: rgb(12, 130, 77) } img { display: none }\n")
        (root / "square.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="31" height="17"/>\n')
        (root / "words.js").write_text(
            "addEventListener('load', () => { document.body.append("
            "'secure ' + isSecureContext + ', image ' + document.images[0].naturalWidth + ', colour '"
            " + getComputedStyle(document.documentElement).backgroundColor) })\n"
        )
        self.proxy = Proxy(self, RULES, trusting(self))

    def test_a_page_comes_with_its_parts_once_the_authority_is_trusted(self) -> None:
        self.trust()
        dom = self.chromium("--dump-dom", self.nginx.url("/page.html"))
        self.assertIn("secure true, image 31, colour rgb(99, 0, 77)", dom)
        self.assertNotIn("ERR_CERT", self.errors())
        wanted = {self.nginx.url(f"/{name}") for name in ("page.html", "colour.css", "words.js")}
        wanted.add(self.nginx.url("/square.svg", "localhost"))
        self.proxy.wait_for(
            lambda lines: wanted <= {line["url"] for line in self.proxy.journal()}, "the exchanges of all parts"
        )
        lines = [line for line in self.proxy.journal() if line["url"] in wanted]
        self.assertEqual({line["status"] for line in lines}, {200})

    def test_the_page_is_shown(self) -> None:
        self.trust()
        png = self.screenshot(self.nginx.url("/page.html"))
        self.assertEqual(tuple(pixel(png, 200, 100)), (99, 0, 77))

    def test_without_trust_there_is_an_error_and_no_page(self) -> None:
        dom = self.chromium("--dump-dom", self.nginx.url("/page.html"))
        self.assertNotIn("secure", dom)
        self.assertIn("net::ERR_CERT_AUTHORITY_INVALID", self.errors())
        lines = [line for line in self.proxy.recorded(1) if line["url"] == self.nginx.netloc]
        self.assertTrue(lines)
        for line in lines:
            self.assertEqual(line["outcome"], "failed")
            self.assertIn("does not trust the proxy's CA", line["error"])


class TrustPageTests(BrowserCase):
    """http://streamproxy.test/ as a newcomer sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self, RULES)

    def test_it_is_shown_in_its_own_colours_on_wide_screens_and_on_narrow_ones(self) -> None:
        # The policy that comes with it would keep its style out if it were not named there. Looked at is the mark at
        # the left of the warning: on a wide screen the text is 736 pixels wide, and in the middle.
        for width, height, x in ((1200, 900, 250), (390, 844, 18)):
            png = self.screenshot(PAGE, f"--window-size={width},{height}", "--hide-scrollbars")
            self.assertEqual(tuple(pixel(png, x, 230)), (0xE8, 0xA2, 0x00), f"at {width} pixels")

    def test_it_names_the_authority_by_its_fingerprint(self) -> None:
        dom = self.chromium("--dump-dom", PAGE)
        found = re.search(r"the CA's fingerprint is ((?:[0-9A-F]{2}:){31}[0-9A-F]{2}) ", self.proxy.output)
        assert found is not None, self.proxy.output
        self.assertIn(found[1], dom)
