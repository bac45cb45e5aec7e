"""The TLS handshake with an origin, from the connected socket to a connection that requests may be sent on."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from streamproxy.counts import DONE, FAILED, TIMED_OUT, Counts
from streamproxy.proxy.route import Route
from streamproxy.tls.contexts import OriginFacing
from streamproxy.tls.layer import Tls
from streamproxy.tls.reasons import HandshakeFailed, why_origin_failed


class OriginHandshake:
    """One handshake; `make` gives the protocol that is spoken inside. `protocol` is what a socket is connected to."""

    def __init__(
        self,
        tls: OriginFacing,
        route: Route,
        make: Callable[[OriginHandshake], Protocol],
        clock: IReactorTime,
        counts: Counts,
    ) -> None:
        self._tls = tls
        self._host, self._port = route.origin.host, route.origin.port
        self._make = make
        self._clock = clock
        self._counts = counts
        self._began = clock.seconds()
        self._connection, self._judgement = tls.connection(self._host, self._port)
        self._result: Protocol | HandshakeFailed | None = None
        self._outcome: Deferred[Protocol] | None = None
        self._too_slow: IDelayedCall | None = None
        self.protocol = Tls(self._connection, self._inner, self._tell, self._failed, is_client=True)

    def outcome(self, seconds: float) -> Deferred[Protocol]:
        """The protocol inside, when the handshake is done; fails with `HandshakeFailed`, after `seconds` at the
        latest."""
        outcome: Deferred[Protocol] = Deferred(lambda _: self._give_up())
        self._outcome = outcome
        if self._result is not None:
            self._tell()
        else:
            self._too_slow = self._clock.callLater(seconds, self._timed_out)
        return outcome

    def remember(self) -> None:
        """Keep the session for the next handshake; something has been received by now."""
        self._tls.remember(self._port, self._connection, self._judgement)

    def _inner(self, _protocol: bytes | None) -> Protocol:
        self._count(DONE)
        inner = self._make(self)
        self._result = inner
        return inner

    def _failed(self, failure: Failure) -> None:
        if not isinstance(self._result, HandshakeFailed):
            self._count(FAILED)
        self._tls.forget(self._host, self._port)
        if self._judgement.problem:
            self._result = HandshakeFailed(self._judgement.problem, untrusted=True)
        else:
            self._result = why_origin_failed(failure, self._host)
        self._tell()

    def _timed_out(self) -> None:
        self._too_slow = None
        self._count(TIMED_OUT)
        self._result = HandshakeFailed(f"the TLS handshake with {self._host} took too long", status=504)
        self._tell()
        self.protocol.abortConnection()

    def _give_up(self) -> None:
        self._outcome = None
        self._stop_waiting()
        self.protocol.abortConnection()

    def _count(self, result: str) -> None:
        self._counts.handshake(True, result, self._clock.seconds() - self._began)

    def _stop_waiting(self) -> None:
        call, self._too_slow = self._too_slow, None
        if call is not None:
            call.cancel()

    def _tell(self) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return
        self._stop_waiting()
        if isinstance(self._result, HandshakeFailed):
            outcome.errback(Failure(self._result))
        else:
            inner, self._result = self._result, None
            outcome.callback(inner)  # type: ignore[arg-type]
