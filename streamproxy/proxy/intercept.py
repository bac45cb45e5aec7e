"""The TLS handshake with a client, and what is put on its connection then.

That it is to be intercepted, and under which name, is decided before (`opening.py`). A handshake that fails has a
line on the log that says who, which name, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from streamproxy import counts
from streamproxy.flow import CLIENT_GONE, FAILED, SWITCHED, TIMED_OUT, Flow
from streamproxy.tls.authority import AuthorityError
from streamproxy.tls.layer import Tls
from streamproxy.tls.reasons import why_client_failed
from streamproxy.wire.client_hello import read_client_hello
from streamproxy.wire.message import WireError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.route import Route

# What is counted of a handshake, by the outcome of its flow; any other has failed.
_RESULTS = {SWITCHED: counts.DONE, TIMED_OUT: counts.TIMED_OUT}


def _count(connection: DownstreamProtocol, outcome: str, began: float) -> None:
    """Count a client's handshake that has ended, and began at the time `began`."""
    proxy = connection.proxy
    proxy.counts.handshake(False, _RESULTS.get(outcome, counts.FAILED), proxy.clock.seconds() - began)


class Interception:
    """Speaks TLS to the client of `connection`, whose layer this is, as the server called `name`.

    `said` is what the client has said already, a whole ClientHello or none at all. Inside, HTTP is spoken to the
    origin that `route` leads to, or to the proxy itself where that is None. `over` is called when the handshake has
    ended, with the outcome of `flow` set.
    """

    unfinished = False

    def __init__(
        self,
        connection: DownstreamProtocol,
        name: str,
        route: Route | None,
        said: bytes,
        flow: Flow,
        over: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._name = name
        self._route = route
        self._flow = flow
        self._report: Callable[[], None] | None = over
        self._tls: Tls | None = None
        # The connection inside of the TLS, once the handshake is done.
        self.inner: DownstreamProtocol | None = None
        proxy = connection.proxy
        self._began = proxy.clock.seconds()
        assert proxy.tls is not None
        connection.switch(self)
        try:
            server = proxy.tls.connection(name)
        except AuthorityError as error:
            self._end(FAILED, str(error))
            connection.close()
            return
        self._tls = tls = Tls(server, self._make_inner, self._done, self._failed, sink=connection.sink)
        connection.deadline.set(proxy.settings.timeouts.handshake, self._too_slow)
        tls.makeConnection(connection.transport)  # type: ignore[no-untyped-call]
        tls.dataReceived(said)
        if connection.half_closed:
            self.read_ended()

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.dataReceived(data)

    def read_ended(self) -> None:
        """The client has ended its side of the connection below; TLS has no use for half of one."""
        if self._tls is not None:
            self._tls.transport_ended()

    def connection_lost(self, reason: Failure) -> None:
        if self._tls is not None:
            self._tls.connectionLost(reason)

    def drain(self) -> None:
        if self.inner is not None:
            self.inner.drain()

    def cut(self, why: str) -> None:
        if self.inner is not None:
            self.inner.cut(why)
        else:
            self._end(FAILED, why)
            self._connection.close()

    def _make_inner(self, _protocol: bytes | None) -> Protocol:
        # Here HTTP/2 will stand beside HTTP/1, chosen by what was agreed on.
        self.inner = inner = self._connection.inside_tls(self._route)
        return inner

    def _done(self) -> None:
        self._connection.deadline.clear()
        self._end(SWITCHED)

    def _failed(self, failure: Failure) -> None:
        why, left = why_client_failed(failure)
        self._end(CLIENT_GONE if left else FAILED, why)

    def _too_slow(self) -> None:
        self._end(TIMED_OUT, "it took too long")
        self._connection.abort()

    def _end(self, outcome: str, why: str = "") -> None:
        report, self._report = self._report, None
        if report is not None:
            _count(self._connection, outcome, self._began)
            self._flow.outcome = outcome
            if why:
                self._flow.error = f"the client's TLS handshake for {self._name} failed: {why}"
            report()


class SecureListener:
    """The layer of a client that speaks TLS to the proxy itself, as to a proxy with an https:// URL.

    `said` is what it has said already.
    """

    unfinished = False

    def __init__(self, connection: DownstreamProtocol, said: bytes) -> None:
        self._connection = connection
        self._said = b""
        # By what it calls us, or where it found us.
        self._name: str = getattr(connection.transport.getHost(), "host", "localhost")
        self._flow = connection.proxy.new_flow(connection.client)
        connection.switch(self)
        connection.deadline.set(connection.proxy.settings.timeouts.handshake, self._too_slow)
        self.data_received(said)

    def data_received(self, data: bytes) -> None:
        self._said += data
        try:
            hello = read_client_hello(self._said)
            if hello is None:
                return
            self._name = hello.server_name or self._name
        except WireError:
            # The handshake will say in words what is wrong with it.
            pass
        Interception(self._connection, self._name, None, self._said, self._flow, self._over)

    def drain(self) -> None:
        """Who has begun is served."""

    def cut(self, why: str) -> None:
        self._fail(FAILED, why)
        self._connection.close()

    def _over(self) -> None:
        # One that came about has nothing to tell: what is said inside has.
        if self._flow.error:
            self._record()

    def read_ended(self) -> None:
        self._fail(CLIENT_GONE, "it ended its side inside its ClientHello")
        self._connection.close()

    def connection_lost(self, reason: Failure) -> None:
        self._fail(CLIENT_GONE, "it left inside its ClientHello")

    def _too_slow(self) -> None:
        self._fail(TIMED_OUT, "it took too long")
        self._connection.abort()

    def _fail(self, outcome: str, why: str) -> None:
        """It has come to nothing before there was a whole ClientHello."""
        if not self._flow.outcome:
            _count(self._connection, outcome, self._flow.started)
            self._flow.outcome = outcome
            self._flow.error = f"the client's TLS handshake for {self._name} failed: {why}"
            self._record()

    def _record(self) -> None:
        flow, proxy = self._flow, self._connection.proxy
        flow.client_in = self._connection.received
        flow.duration = proxy.clock.seconds() - flow.started
        proxy.journal.record(flow)
