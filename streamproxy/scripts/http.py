"""What scripts import to speak of HTTP: `from streamproxy.scripts import http`. The names are those of mitmproxy's API.

Nothing is defined here; see the modules that the names come from.
"""

from __future__ import annotations

from streamproxy.scripts.headers import Headers
from streamproxy.scripts.http_flow import Error, HTTPFlow
from streamproxy.scripts.message import Message
from streamproxy.scripts.request import Request
from streamproxy.scripts.response import Response

__all__ = ["Error", "HTTPFlow", "Headers", "Message", "Request", "Response"]
