"""The few lines by which twistd finds `streamproxy`."""

from twisted.application.service import ServiceMaker

streamproxy = ServiceMaker(
    "streamproxy",
    "streamproxy.service",
    "A streaming, intercepting proxy for HTTP, ruled by YAML.",
    "streamproxy",
)
