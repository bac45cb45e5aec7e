"""From a CONNECT to what is spoken in its tunnel (RFC 9110 section 9.3.6).

A target that no rule will ever look into is connected to at once, and the client is told what comes of it. For any
other the client is told to go on, and its first bytes decide: TLS is intercepted, relayed or refused as its server name
and protocols and the rules say; HTTP is read as HTTP; anything else is relayed. Where the client says nothing the
origin is given the chance to speak first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from streamproxy.flow import CLIENT_GONE, FAILED, MALFORMED, REFUSED, SWITCHED, TIMED_OUT
from streamproxy.proxy import answers
from streamproxy.proxy.intercept import Interception
from streamproxy.proxy.lookups import Address
from streamproxy.proxy.route import Route
from streamproxy.proxy.target import is_loop
from streamproxy.proxy.trust_page import is_trust_page
from streamproxy.proxy.tunnel import Tunnel
from streamproxy.proxy.tunnel_end import TunnelEnd
from streamproxy.rules.interception import Decision
from streamproxy.rules.verdict import Answer
from streamproxy.tls.contexts import PROTOCOLS
from streamproxy.wire.client_hello import ClientHello, read_client_hello
from streamproxy.wire.first_bytes import Speech, first_bytes
from streamproxy.wire.message import Origin, RequestHead, WireError
from streamproxy.wire.target import parse_authority

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# How long the origin waits for a client to say something before it may speak first, in seconds.
SILENCE = 0.3
# For how long (in seconds) a client that has just come may still say something when the proxy is to stop.
FRESH = 1.0
# A client that has said so much without it being known what it is isn't asked for more before it is.
MOST_SAID = 1 << 17
# TLS alerts, each a record of its own (RFC 8446 sections 5.1 and 6.2).
ACCESS_DENIED = bytes([21, 3, 3, 0, 2, 2, 49])
NO_APPLICATION_PROTOCOL = bytes([21, 3, 3, 0, 2, 2, 120])
# How HTTP/2 begins (RFC 9113 section 3.4).
HTTP2_BEGINS = b"PRI * HTTP/2.0\r\n"
DECIDING = "deciding"
log = Logger()


class Opening:
    """The layer of `connection` from the CONNECT `head` on; `said` are the bytes that came behind it."""

    unfinished = False

    def __init__(self, connection: DownstreamProtocol, head: RequestHead, said: bytes, accounted: int) -> None:
        self._connection = connection
        self._proxy = proxy = connection.proxy
        self._head = head
        self._said = said
        self._accounted = accounted
        # Bytes that wait, as far as they were counted.
        self._counted = 0
        self._count(len(said))
        self._sent_before = connection.sink.sent
        self.flow = connection.new_flow("CONNECT", head.target.decode("ascii"))
        self._established = False
        self._relaying = False
        self._recorded = False
        # The client has begun its ClientHello.
        self._in_hello = False
        # Why the origin couldn't be reached, where the client was still waited for.
        self._unreached: tuple[str, str] | None = None
        self._addresses: tuple[str, ...] = ()
        self._forget_lookup: Callable[[], None] | None = None
        self._dialling: Deferred[Protocol] | None = None
        self._end: TunnelEnd | None = None
        self._silence: IDelayedCall | None = None
        connection.switch(self)
        patience = FRESH if proxy.draining else proxy.settings.timeouts.head
        connection.deadline.set(patience, self._too_slow)
        try:
            self._target = self._decide_target()
        except WireError as error:
            self._refuse(answers.explain(error.status, error.reason), MALFORMED, error.reason)
            return
        host = self._target.host
        denied = proxy.pool.permission.denied_at_once(host, self._target.port)
        if denied is not None and not is_trust_page(host):
            self._refuse(answers.explain(denied.status, denied.why), REFUSED, denied.why)
            return
        if not is_trust_page(host) and proxy.settings.tls.interception.needs_addresses(host):
            connection.valve.close(DECIDING)
            self._forget_lookup = proxy.pool.lookups.ask(host, self._looked_up)
        else:
            self._open()

    def _decide_target(self) -> Origin:
        head = self._head
        authority = head.target.decode("ascii")
        if authority.endswith(":") or ":" not in authority.rpartition("]")[2]:
            raise WireError("a CONNECT target is a host and a port, such as example.com:443")
        target = parse_authority(authority, "https")
        if is_loop(head, self._proxy.via):
            raise WireError("a loop: this request has been through this proxy before", 508)
        return target

    def _looked_up(self, found: list[Address]) -> None:
        self._forget_lookup = None
        self._addresses = tuple(address.host for address in found)
        # First, for what is decided now may want it shut.
        self._connection.valve.open(DECIDING)
        self._open()

    def _decision(self, server_name: str | None) -> Decision:
        host, port = self._target.host, self._target.port
        if is_trust_page(host) and self._proxy.tls is not None:
            return Decision(True, "the proxy's own page", True)
        if self._proxy.tls is None:
            return Decision(False, "nothing is intercepted", True)
        return self._proxy.settings.tls.interception.decide(host, port, server_name, self._addresses)

    def _open(self) -> None:
        decision = self._decision(None)
        if decision.final and not decision.intercept:
            self._relay(decision.why)
        elif not self._is_blocked((self._target,), opaque=False):
            self._establish()
            self._look()

    def _is_blocked(self, origins: tuple[Origin, ...], opaque: bool) -> bool:
        """Whether a rule blocks all that this tunnel is for; it is ended then."""
        for origin in origins:
            denied = self._proxy.pool.permission.denied_name(origin.host, origin.port)
            if denied is not None:
                # The target's own name was asked about before.
                self._refuse_speech(ACCESS_DENIED, denied.why)
                return True
            blocked = self._proxy.settings.rules.on_connect(self._head, origin, opaque)
            if blocked is not None:
                self.flow.rules.append(blocked[0])
                if not self._established:
                    self._refuse(blocked[1], REFUSED)
                else:
                    self._refuse_speech(ACCESS_DENIED, f"rule {blocked[0]!r} blocks {origin.host}")
                return True
        return False

    def _establish(self) -> None:
        self._established = True
        if self._proxy.draining and not self._said:
            # It was looked up when that began.
            self._connection.deadline.set(FRESH, self._too_slow)
        self.flow.status = 200
        self._connection.sink.write(ESTABLISHED)

    # What the client says

    def data_received(self, data: bytes) -> None:
        begins = not self._said
        self._said += data
        self._count(len(self._said))
        if len(self._said) > MOST_SAID:
            self._connection.valve.close(DECIDING)
        if self._established and not self._relaying:
            if begins:
                # However long it was silent.
                self._connection.deadline.set(self._proxy.settings.timeouts.head, self._too_slow)
            self._stop_dialling()
            self._look()

    def _look(self) -> None:
        """See what the client has begun to say."""
        said = self._said
        if not said:
            if self._connection.half_closed:
                self._relay("the client says nothing")
            elif self._silence is None:
                self._silence = self._proxy.clock.callLater(SILENCE, self._let_origin_speak)
            return
        self._stop_silence()
        speech = first_bytes(said)
        if speech is Speech.TLS:
            self._look_at_hello(said)
        elif speech is Speech.HTTP:
            self._http()
        elif said.startswith(HTTP2_BEGINS):
            self._relay_unreadable("HTTP/2", self._target)
        elif speech is Speech.OTHER or self._connection.half_closed:
            self._relay("neither TLS nor HTTP")

    def _relay_unreadable(self, offered: str, identity: Origin) -> None:
        """The client speaks nothing that rules can be held against: that may pass where there is no rule for it."""
        rules, target = self._proxy.settings.rules, self._target
        if any(rules.has_rules_for(host, target.port) for host in (identity.host, target.host)):
            why = f"the client speaks only {offered}, which the rules for {identity.host} can't be held against"
            self._refuse_speech(NO_APPLICATION_PROTOCOL, why)
        else:
            self._relay(f"the client speaks only {offered}", identity)

    def _look_at_hello(self, said: bytes) -> None:
        hello: ClientHello | None
        try:
            hello = read_client_hello(said)
        except WireError:
            # The handshake will say in words what is wrong with it.
            hello = ClientHello(None, ())
        if hello is None:
            if self._connection.half_closed:
                self._end_here(CLIENT_GONE, "the client ended its side inside its ClientHello")
            elif not self._in_hello:
                self._in_hello = True
                self._connection.deadline.set(self._proxy.settings.timeouts.handshake, self._too_slow)
            return
        decision = self._decision(hello.server_name)
        target = self._target
        # Who asks for the proxy's own page gets no other host by it.
        name = None if is_trust_page(target.host) else hello.server_name
        identity = Origin("https", name or target.host, target.port)
        if not decision.intercept:
            self._relay(decision.why, identity)
        elif identity.host != target.host and self._is_blocked((identity,), opaque=False):
            pass
        elif hello.alpn and not set(PROTOCOLS).intersection(hello.alpn):
            self._relay_unreadable(b", ".join(hello.alpn)[:100].decode("ascii", "backslashreplace"), identity)
        else:
            said = self._hand_over()
            Interception(self._connection, identity.host, Route(identity, target.host), said, self.flow, self._record)

    def _http(self) -> None:
        target = self._target
        decision = self._decision(None)
        if not decision.intercept:
            self._relay(decision.why)
            return
        connection, said = self._connection, self._hand_over()
        self._accounted += len(said)
        self.flow.outcome = SWITCHED
        self._record()
        connection.route = Route(Origin("http", target.host, target.port), target.host)
        layer = connection.speak_http(connection.received - len(said))
        layer.data_received(said)
        if connection.half_closed:
            layer.read_ended()

    def read_ended(self) -> None:
        """The client has ended its side: what it has said by now is all there will be."""
        if self._established and not self._relaying:
            self._stop_dialling()
            self._look()

    # The origin

    def _let_origin_speak(self) -> None:
        self._silence = None
        self._dial(self._wait_for_either)

    def _wait_for_either(self) -> None:
        """Both are connected, and the client hasn't said anything."""
        end = self._end
        assert end is not None
        if not self._proxy.draining:
            self._connection.deadline.set(self._proxy.settings.timeouts.idle, self._too_slow)
        end.stirred = self._origin_stirred
        if end.said or end.ended or end.lost:
            self._origin_stirred()

    def _origin_stirred(self) -> None:
        # Once the client has begun, what it says decides.
        if not self._said:
            self._relay("the origin spoke first")

    def _relay(self, why: str, identity: Origin | None = None) -> None:
        """Nobody looks into this tunnel, for the reason `why`; `identity` is whom its client takes it to lead to."""
        self._stop_silence()
        target = self._target
        origins = (target,) if identity is None or identity.host == target.host else (target, identity)
        if self._is_blocked(origins, opaque=True):
            return
        self._relaying = True
        self.flow.request.how = self.flow.response.how = "tunnelled"
        self.flow.request.why = why
        if self._end is not None:
            self._tunnel()
        else:
            self._connection.valve.close(DECIDING)
            # A dial has its own.
            self._connection.deadline.clear()
            self._dial(self._tunnel)

    def _dial(self, connected: Callable[[], None]) -> None:
        target = self._target
        if is_trust_page(target.host):
            # That name doesn't leave the proxy.
            dialling: Deferred[Protocol] = fail(DNSLookupError())
        else:
            dialling = self._proxy.pool.tunnel(target.host, target.port, self._addresses)
        self._dialling = dialling
        dialling.addCallbacks(self._dialled, self._not_dialled, (connected,))
        dialling.addErrback(self._broken)

    def _dialled(self, end: Protocol, connected: Callable[[], None]) -> None:
        assert isinstance(end, TunnelEnd)
        self._dialling = None
        self._end = end
        connected()

    def _not_dialled(self, failure: Failure) -> None:
        self._dialling = None
        if failure.check(CancelledError):
            return
        outcome, status, why = answers.why_not_connected(failure, Route(self._target, self._target.host))
        if not self._relaying:
            # What the client may say yet may be answered here.
            self._unreached = outcome, why
        elif self._established:
            self._end_here(outcome, why)
        else:
            self._refuse(answers.explain(status, why), outcome, why)

    def _broken(self, failure: Failure) -> None:
        log.failure("exchange {id}", failure=failure, id=self.flow.id)
        self._end_here(FAILED, "an error inside the proxy")

    def _tunnel(self) -> None:
        if not self._established:
            self._establish()
        end, self._end = self._end, None
        assert end is not None
        self._stop_silence()
        said, self._said = self._said, b""
        self._count(0)
        Tunnel(self._connection, end, self.flow, self._record).start(said)
        # Not before, for more may come at once.
        self._connection.valve.open(DECIDING)

    def _hand_over(self) -> bytes:
        """The connection is another layer's from now on, and so is what the client has said."""
        self._stop_silence()
        self._drop_end()
        self._connection.valve.open(DECIDING)
        said, self._said = self._said, b""
        self._count(0)
        return said

    def _count(self, size: int) -> None:
        """So many bytes wait here; it has a bound of its own."""
        self._connection.memory.add(size - self._counted)
        self._counted = size

    # Ends

    def _too_slow(self) -> None:
        if self._forget_lookup is not None:
            why = f"looking up {self._target.host} took too long"
            self._refuse(answers.explain(504, why), TIMED_OUT, why)
        elif self._said:
            self._end_here(TIMED_OUT, "the client's first bytes took too long")
        else:
            self._end_here(*(self._unreached or (TIMED_OUT, "nothing was said in the tunnel")))

    def _refuse(self, answer: Answer, outcome: str, why: str = "") -> None:
        """Answer the CONNECT by something else than a tunnel."""
        prepared = answers.prepare(answer, b"CONNECT", True, self._proxy.clock.seconds())
        self.flow.status = prepared.status
        self._connection.sink.write(prepared.head + prepared.body)
        self._end_here(outcome, why, linger=True)

    def _refuse_speech(self, alert: bytes, why: str) -> None:
        """End a tunnel whose client has begun to speak; over TLS with `alert`."""
        if first_bytes(self._said) is Speech.TLS:
            self._connection.sink.write(alert)
        self._end_here(REFUSED, why, linger=True)

    def _end_here(self, outcome: str, why: str, linger: bool = False) -> None:
        self.flow.outcome, self.flow.error = outcome, why
        self._let_go()
        self._record()
        if linger:
            self._connection.linger()
        else:
            self._connection.close()

    def drain(self) -> None:
        """A tunnel in which nobody says anything isn't waited for."""
        if self._established and not self._said and not self._relaying:
            self._connection.deadline.set(FRESH, self._too_slow)

    def cut(self, why: str) -> None:
        self._end_here(FAILED, why)

    def connection_lost(self, reason: Failure) -> None:
        if not self._recorded:
            self.flow.outcome, self.flow.error = CLIENT_GONE, "the client left before its tunnel was in use"
            self._let_go()
            self._record()

    def _let_go(self) -> None:
        """Stop what is under way."""
        self._count(0)
        self._stop_silence()
        if self._forget_lookup is not None:
            self._forget_lookup()
        self._stop_dialling()
        self._drop_end()

    def _stop_dialling(self) -> None:
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()

    def _drop_end(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end.stirred = None
            end.abort()

    def _stop_silence(self) -> None:
        call, self._silence = self._silence, None
        if call is not None:
            call.cancel()

    def _record(self) -> None:
        """Put the flow on the log, once, when its outcome is known."""
        if self._recorded:
            return
        self._recorded = True
        flow, connection = self.flow, self._connection
        flow.client_in = connection.received - self._accounted
        flow.client_out = connection.sink.sent - self._sent_before
        flow.duration = self._proxy.clock.seconds() - flow.started
        self._proxy.journal.record(flow)
