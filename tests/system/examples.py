"""Runs a worked example of conf/ as it stands, with the hosts of its rules served by origins of the test's own."""

from __future__ import annotations

import shutil

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import PROJECT, Client, Origin, Proxy, new_folder

EXAMPLES = PROJECT / "conf"


class Example(Proxy):
    """A proxy on a copy of `conf/NAME.yaml` and its scripts, which is what its own `folder` has.

    Requests to any .example host go to `origin`: a rule that is added behind the example's own says so.
    """

    def __init__(self, case: SynchronousTestCase, name: str, origin: Origin, *overrides: str) -> None:
        folder = new_folder(case)
        shutil.copytree(EXAMPLES / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        text = (EXAMPLES / f"{name}.yaml").read_text()
        rules = text.count("\n  - name: ")
        ours = f"rules.{rules}={{name: ours, match: {{host: '*.example'}}, redirect_to: '{origin.url()}'}}"
        super().__init__(case, text, ours, *overrides, folder=folder)


class ExampleClient(Client):
    """A connection to the proxy, to ask it for what is at a host of an example."""

    def ask_for(self, method: bytes, url: str, *fields: bytes, body: bytes = b"") -> None:
        """Send a request for `url`, which is http."""
        netloc = url.split("/")[2].encode()
        lines = [b"%b %b HTTP/1.1" % (method, url.encode()), b"Host: " + netloc, *fields]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
