"""Programs that know of the proxy only what `streamproxy env` says: Python's requests and httpx, Node's fetch."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import sysconfig
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Asked, Proxy, each_request, needed, response, run
from tests.system.secure import SecureOrigin, file_of, secure_nginx, trusting
from tests.system.test_curl import write_random

LARGE = 8 << 20
# Where Debian keeps what its packages have for Node.
NODE_PATH = "/usr/share/nodejs"
# Each program prints what became of it as JSON.
REQUESTS = """
import hashlib, json, sys, requests
url, posted = sys.argv[1:]
told = {}
try:
    told["page"] = requests.get(url + "/page.txt", timeout=30).text
    with requests.get(url + "/large", stream=True, timeout=30) as answer:
        digest, pieces = hashlib.sha256(), 0
        for piece in answer.iter_content(65536):
            digest.update(piece)
            pieces += 1
    told["large"], told["pieces"] = digest.hexdigest(), pieces
    told["posted"] = requests.post(posted, data={"x": "1"}, timeout=30).text
except requests.exceptions.RequestException as error:
    told["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""
HTTPX = """
import hashlib, json, sys, httpx
url, posted = sys.argv[1:]
told = {}
try:
    with httpx.Client(timeout=30) as client:
        told["page"] = client.get(url + "/page.txt").text
        with client.stream("GET", url + "/large") as answer:
            digest, pieces = hashlib.sha256(), 0
            for piece in answer.iter_bytes():
                digest.update(piece)
                pieces += 1
        told["large"], told["pieces"] = digest.hexdigest(), pieces
        told["posted"] = client.post(posted, data={"x": "1"}).text
except httpx.HTTPError as error:
    told["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""
# Node's own fetch takes NODE_USE_ENV_PROXY from version 24 (and 22.21) on. An older one is told of the proxy by the
# ProxyAgent of Debian's undici.
NODE = """
const {createHash} = require('crypto');
const [major, minor] = process.versions.node.split('.').map(Number);
if (!(major >= 24 || (major == 22 && minor >= 21))) {
    const {ProxyAgent, setGlobalDispatcher} = require('undici');
    if (process.env.HTTPS_PROXY) setGlobalDispatcher(new ProxyAgent(process.env.HTTPS_PROXY));
}
const [url, posted] = process.argv.slice(2);
(async () => {
    const told = {};
    try {
        told.page = await (await fetch(url + '/page.txt')).text();
        const digest = createHash('sha256');
        told.pieces = 0;
        for await (const piece of (await fetch(url + '/large')).body) {
            digest.update(piece);
            told.pieces += 1;
        }
        told.large = digest.digest('hex');
        told.posted = await (await fetch(posted, {method: 'POST', body: new URLSearchParams({x: '1'})})).text();
    } catch (error) {
        told.error = `${error.name}: ${error.cause ? error.cause.code : error.message}`;
    }
    console.log(JSON.stringify(told));
    process.exit(0);
})();
"""


def console_script() -> list[str | Path]:
    """How `streamproxy` is run: as it is installed, or by its module where that was before it had a script."""
    script = Path(sysconfig.get_path("scripts"), "streamproxy")
    return [script] if script.exists() else [sys.executable, "-m", "streamproxy.command"]


class ProgramCase(SynchronousTestCase):
    """A page and a large file at nginx, and an origin that tells what was posted to it."""

    def setUp(self) -> None:
        self.asked: list[Asked] = []
        self.nginx = secure_nginx(self)
        (self.nginx.root / "page.txt").write_text("a page of text\n")
        self.digest = write_random(self.nginx.root / "large", LARGE)
        self.origin = SecureOrigin(self, each_request(self.answer))
        self.proxy = Proxy(self, "", trusting(self))

    def answer(self, asked: Asked) -> bytes:
        self.asked.append(asked)
        return response(asked.body)

    def in_a_shell(self, *command: str | Path, without: str = "") -> dict:
        """What a program tells that is run in a shell which got its variables as the page of the proxy says.

        `without` are variables that the shell loses again.
        """
        words = shlex.join(str(word) for word in [*console_script(), "env", *self.configuration()])
        arguments = shlex.join([str(word) for word in command] + [self.nginx.url()[:-1], self.origin.url("/form")])
        lines = f'eval "$({words})"\n' + (f"unset {without}\n" if without else "") + f"exec {arguments}\n"
        ran = run(self, "/bin/sh", "-e", folder=self.proxy.folder, stdin=lines.encode())
        self.assertEqual((ran.status, ran.err), (0, ""))
        return json.loads(ran.out)

    def configuration(self) -> list[str | Path]:
        """The proxy's own, but for the port, which the system gave it."""
        listen = f"listen=tcp:{self.proxy.port}:interface=127.0.0.1"
        return ["-c", self.proxy.folder / "rules.yaml", "--set", listen]

    def assert_served(self, told: dict) -> None:
        """All came through the proxy, and as it was."""
        pieces = told.pop("pieces", 0)
        self.assertEqual(told, {"page": "a page of text\n", "large": self.digest, "posted": "x=1"})
        self.assertGreater(pieces, 16)
        (asked,) = self.asked
        self.assertEqual(asked.line, b"POST /form HTTP/1.1")
        self.assertIn(b"\r\nVia: ", asked.head)
        expected = [
            ("GET", self.nginx.url("/page.txt")),
            ("GET", self.nginx.url("/large")),
            ("POST", self.origin.url("/form")),
        ]
        self.proxy.wait_for(lambda lines: len(self.requests()) >= len(expected), "the exchanges")
        self.assertEqual(self.requests(), expected)

    def requests(self) -> list[tuple[str, str]]:
        """What was asked for in tunnels: these are as many as a program likes."""
        return [(line["method"], line["url"]) for line in self.proxy.journal() if line["method"] != "CONNECT"]

    def assert_refused(self, told: dict, *words: str) -> None:
        """It doesn't trust the proxy, says so, and got nothing."""
        self.assertEqual(set(told), {"error"})
        for word in words:
            self.assertIn(word, told["error"])
        (line,) = self.proxy.recorded(1)
        # Some say why, and some just leave.
        self.assertIn((line["method"], line["outcome"]), (("CONNECT", "failed"), ("CONNECT", "client-gone")))
        self.assertIn("does not trust the proxy's CA", line["error"])


class PythonCase(ProgramCase):
    module = ""
    source = ""

    def python(self, without: str = "") -> dict:
        if importlib.util.find_spec(self.module) is None:
            raise SkipTest(f"needs {self.module} (pip install -e '.[test]')")
        return self.in_a_shell(sys.executable, file_of(self, self.source.encode(), "program.py"), without=without)


class RequestsTests(PythonCase):
    module, source = "requests", REQUESTS

    def test_all_goes_through_the_proxy(self) -> None:
        self.assert_served(self.python())

    def test_without_the_authority_it_says_so(self) -> None:
        told = self.python(without="REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE")
        self.assert_refused(told, "SSLError", "CERTIFICATE_VERIFY_FAILED")


class HttpxTests(PythonCase):
    module, source = "httpx", HTTPX

    def test_all_goes_through_the_proxy(self) -> None:
        self.assert_served(self.python())

    def test_without_the_authority_it_says_so(self) -> None:
        self.assert_refused(self.python(without="SSL_CERT_FILE"), "ConnectError", "CERTIFICATE_VERIFY_FAILED")


class NodeTests(ProgramCase):
    def node(self, without: str = "") -> dict:
        program = needed("node", "nodejs")
        if not Path(NODE_PATH, "undici").is_dir():
            raise SkipTest("needs Debian's undici (apt-get install node-undici)")
        source = file_of(self, NODE.encode(), "program.js")
        return self.in_a_shell("/usr/bin/env", f"NODE_PATH={NODE_PATH}", program, source, without=without)

    def test_all_goes_through_the_proxy(self) -> None:
        self.assert_served(self.node())

    def test_without_the_authority_it_says_so(self) -> None:
        self.assert_refused(self.node(without="NODE_EXTRA_CA_CERTS SSL_CERT_FILE"), "UNABLE_TO_")
