"""An exchange's link to its origin: a connection taken or made, tried again where that is safe, and given back.

What is said over it is the exchange's. Which connections are kept is the pool's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from streamproxy.flow import FAILED, Flow
from streamproxy.proxy import answers

if TYPE_CHECKING:
    from streamproxy.proxy.exchange import Exchange
    from streamproxy.proxy.pool import Pool
    from streamproxy.proxy.route import Route
    from streamproxy.proxy.tunnel_end import TunnelEnd
    from streamproxy.proxy.upstream import UpstreamConnection

IDEMPOTENT = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
log = Logger()


class OriginLink:
    """The connection to an origin by `route` that `exchange` uses: tells it by `origin_connected`, or by `fail`.

    Bytes of wire are counted into `flow`, over all the connections that it took.
    """

    def __init__(self, exchange: Exchange, pool: Pool, route: Route, flow: Flow) -> None:
        self._exchange = exchange
        self._pool = pool
        self._route = route
        self._flow = flow
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._retried = False
        self._sent_before = 0
        self._read_before = 0
        self.upstream: UpstreamConnection | None = None

    def open(self) -> None:
        """Get a connection: an idle one if there is one, else a new one."""
        # A second try isn't left to another connection that may have gone the way of the first.
        idle = None if self._retried else self._pool.take(self._route)
        if idle is not None:
            self._use(idle)
            return
        self._connecting = connecting = self._pool.connect(self._route)
        connecting.addCallbacks(self._use, self._failed)
        connecting.addErrback(self._broken)

    def _use(self, upstream: UpstreamConnection) -> None:
        self._connecting = None
        self.upstream = upstream
        self._sent_before += upstream.sink.sent
        self._read_before += upstream.reader.consumed
        self._exchange.origin_connected(upstream)

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            outcome, status, why = answers.why_not_connected(failure, self._route)
            self._exchange.fail(outcome, why, status)

    def _broken(self, failure: Failure) -> None:
        log.failure("exchange {id}", failure=failure, id=self._flow.id)
        self._exchange.fail(FAILED, "an error inside the proxy")

    def may_retry(self, method: bytes) -> bool:
        """Whether the lost connection may be made up for by another one (RFC 9110 section 9.2.2).

        Only if it had been used before (so that it may just have been closed for being idle), the origin hasn't
        said anything, and doing it twice does no more than doing it once.
        """
        upstream = self.upstream
        if self._retried or upstream is None or not upstream.used or upstream.heard:
            return False
        return method in IDEMPOTENT

    def open_again(self) -> None:
        """Try a second time, on a new connection."""
        self._retried = True
        self.leave()
        self.open()

    def leave(self) -> None:
        """The origin's part is over: its connection is the pool's."""
        upstream = self._count()
        if upstream is not None:
            upstream.end()

    def hand_over(self) -> TunnelEnd:
        """The origin has switched protocols: its connection is no exchange's any more."""
        upstream = self._count()
        assert upstream is not None
        # What waits there was no HTTP.
        self._flow.origin_in -= upstream.read_behind
        return upstream.hand_over()

    def drop(self, request_sent: bool) -> None:
        """The connection is of no use any more. `request_sent`: the origin has the whole of the request."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        upstream = self._count()
        if upstream is None:
            return
        if request_sent:
            upstream.abort()
        else:
            # It has part of a request: an end behind that shows that there is no more.
            upstream.close()

    def _count(self) -> UpstreamConnection | None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            self._flow.origin_out = upstream.sink.sent - self._sent_before
            self._flow.origin_in = upstream.reader.consumed - self._read_before
            self._sent_before = -self._flow.origin_out
            self._read_before = -self._flow.origin_in
        return upstream
