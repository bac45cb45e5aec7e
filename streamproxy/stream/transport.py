"""What a connection's transport must be able to do here. Twisted's TCP and TLS transports both are."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport


class IStreamTransport(ITCPTransport, IPushProducer, IConsumer):
    """A transport that can be paused as a source, has a producer as a sink, and can half-close and abort."""
