"""One request and all its responses: the machinery.

What should happen is decided by the rules on each head (`rules`), how bodies go by `stream.body`, how heads are
rewritten by `heads`, what a fault means by the table in `faults`. This joins them to two connections: the client's,
which is the layer's, and the origin's, which `link` gets.

When both messages are through, or given up, the flow is recorded and the connection is the layer's again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from streamproxy.flow import ANSWERED, CLIENT_GONE, FAILED, FORWARDED, MALFORMED, ORIGIN_GONE, REFUSED, TIMED_OUT
from streamproxy.proxy import answers, heads
from streamproxy.proxy.faults import ON_FAULT, Action, Request, Response
from streamproxy.proxy.link import OriginLink
from streamproxy.proxy.reply import OwnReply
from streamproxy.proxy.route import direct
from streamproxy.proxy.stalls import Culprit, culprit, still_since
from streamproxy.proxy.target import decide_target
from streamproxy.proxy.trust_page import is_trust_page
from streamproxy.rules.verdict import Answer, How, RequestVerdict, ResponseVerdict
from streamproxy.stream.body import BodyPath, BodyTooLarge
from streamproxy.stream.pump import Pump
from streamproxy.stream.valve import Valve
from streamproxy.wire.chunked import BodyWriter
from streamproxy.wire.headers import NO_HEADERS
from streamproxy.wire.message import NO_BODY, BodyEvent, End, Event, Kind, RequestHead, ResponseHead, WireError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer
    from streamproxy.proxy.upstream import UpstreamConnection

NOT_A_REQUEST = RequestHead(b"-", b"-", (1, 0), NO_HEADERS, NO_BODY)
log = Logger()


class Exchange:
    """The exchange that begins with `head`; `NOT_A_REQUEST` for what never became one, and can only `fail`."""

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer, head: RequestHead) -> None:
        self._connection = connection
        self._layer = layer
        self._proxy = proxy = connection.proxy
        self._settings = proxy.settings
        self._most = proxy.settings.limits.body
        self._seconds = proxy.clock.seconds
        self._head = head
        self._request, self._response = Request.RECEIVING, Response.AWAITED
        self._over = False
        # Nothing that comes any more changes what happens: it has failed, or is answered here.
        self._deaf = False
        self._close = head.version < (1, 1) or heads.wants_close(head.version, head.headers)
        self._close_framed = False
        self._verdict: RequestVerdict | None = None
        self._response_head: ResponseHead | None = None
        self._response_verdict: ResponseVerdict | None = None
        self._link: OriginLink | None = None
        self._reply: OwnReply | None = None
        # The client waits to be told to go on with its body; it has been.
        self._expects = answers.expects_continue(head)
        self._continued = False
        self._request_path: BodyPath | None = None
        self._request_pump: Pump | None = None
        self._request_flushed = False
        self._response_path: BodyPath | None = None
        self._response_pump: Pump | None = None
        self._response_flushed = False
        self._sent_before = connection.sink.sent
        self._progress = self._seconds()
        self.flow = proxy.new_flow(connection.client, head.method.decode("ascii"), head.target.decode("ascii"))
        connection.deadline.set(self._settings.timeouts.idle, self._idle)

    # The request

    def begin(self, events: list[BodyEvent]) -> None:
        """Decide what becomes of the request, and start on it; `events` are what was read behind its head."""
        head = self._head
        if events and type(events[-1]) is End:
            self._request = Request.RECEIVED
        route = self._connection.route
        try:
            target, host, aliases = decide_target(head, self._proxy.via, route)
        except WireError as error:
            self.fail(MALFORMED if error.status == 400 else REFUSED, error.reason, error.status)
            return
        self.flow.url = target.url
        if is_trust_page(target.origin.host):
            page = self._proxy.trust_page
            self._answer(page.answer(target.path, head.method, self._connection.reached_at), ANSWERED)
            return
        self._verdict = verdict = self._settings.rules.on_request(head, target, aliases)
        self.flow.rules.extend(verdict.rules)
        if verdict.answer is not None:
            self._answer(verdict.answer, REFUSED if verdict.answer.refusal else ANSWERED)
            return
        if (own := answers.to_last_hop(head)) is not None:
            self._answer(own, ANSWERED)
            return
        if verdict.way.refused:
            self.fail(REFUSED, "the request's body is too large", 413)
            return
        self._host = verdict.target.origin.netloc.encode("ascii") if verdict.redirected else host
        self._route = direct(verdict.target.origin) if route is None or verdict.redirected else route
        self.flow.request.goes(verdict.way)
        self._request_pump = self._new_pump(self._connection.valve, self._request_was_flushed)
        self._request_path = BodyPath(self._request_pump, verdict, head.framing, self._most, self._begin_request)
        if verdict.way.how is How.HELD:
            if self._request is Request.RECEIVING and self._expects:
                # The origin won't be asked before the body is here, and the client waits to be asked for it.
                self._continued = True
                self._connection.sink.write(answers.CONTINUE)
        else:
            self._open_link()
        if not self._deaf:
            self._feed_request(self._request_path, events)

    def request_events(self, events: list[BodyEvent]) -> None:
        """More of the request's body."""
        self._progress = self._seconds()
        if events and type(events[-1]) is End:
            self._request = Request.RECEIVED
        if self._request_path is not None and not self._deaf:
            self._feed_request(self._request_path, events)

    def _feed_request(self, path: BodyPath, events: list[BodyEvent]) -> None:
        if not self._guarded_feed(path, events, "request", 413):
            return
        if path.begun and self._link is None and not self._over:
            self._open_link()

    def _open_link(self) -> None:
        self._link = OriginLink(self, self._proxy.pool, self._route, self.flow)
        self._link.open()

    def _begin_request(self, length: int | None) -> tuple[bytes, BodyWriter]:
        head, verdict = self._head, self._verdict
        assert verdict is not None
        return heads.forward_request(
            head,
            verdict.target,
            host=self._host,
            edits=verdict.edits,
            changed=bool(verdict.replacements) and head.framing.kind is not Kind.NONE,
            plain_answer_wanted=verdict.plain_answer_wanted,
            continued=self._continued,
            length=length,
            via=self._proxy.via,
            size=self._settings.write_size,
        )

    def _request_was_flushed(self) -> None:
        self._request_flushed = True
        self._settle()

    def client_gone(self) -> None:
        """The client's connection is lost."""
        if self._over:
            return
        whole = self._response_flushed and (self._deaf or self._request_is_through)
        if not whole and not self.flow.error:
            self.flow.outcome = CLIENT_GONE
        self._over_and_out()

    # The connection to the origin

    def origin_connected(self, upstream: UpstreamConnection) -> None:
        """The link has a connection."""
        assert self._request_pump is not None
        self._progress = self._seconds()
        upstream.begin(self, self._head.method)
        self._make_response_pump(upstream.valve)
        self._request_pump.attach(upstream.sink)

    def _retry(self) -> bool:
        """Send the request once more, if that is safe and it is still at hand."""
        link, path, head = self._link, self._request_path, self._head
        if link is None or path is None or path.whole is None or not link.may_retry(head.method):
            return False
        self._request_flushed = False
        self._request_pump = self._new_pump(None, self._request_was_flushed)
        self._request_pump.pour(path.whole())
        self._request_pump.finish()
        link.open_again()
        return True

    def origin_gone(self, why: str) -> None:
        """The connection to the origin ended, and the response didn't."""
        if self._deaf or self._response is Response.RECEIVED or not self._retry():
            self.fail(ORIGIN_GONE, why)

    # The response

    def _make_response_pump(self, valve: Valve | None) -> Pump:
        if self._response_pump is not None:
            self._response_pump.abandon()
        self._response_pump = pump = self._new_pump(valve, self._response_was_flushed)
        pump.attach(self._connection.sink)
        return pump

    def origin_events(self, events: list[Event]) -> None:
        """What the origin sends, in order."""
        self._progress = self._seconds()
        if self._deaf:
            return
        path = self._response_path
        if path is None:
            path = self._take_heads(events)
            if path is None:
                return
        body: list[BodyEvent] = events  # type: ignore[assignment]
        fed = self._guarded_feed(path, body, "response", 502)
        if fed and not self._deaf and body and type(body[-1]) is End:
            self._response = Response.RECEIVED
            self._settle()

    def _take_heads(self, events: list[Event]) -> BodyPath | None:
        """Take interim and final heads out of `events`; the way of the body behind them, once it's known."""
        head, pump = self._head, self._response_pump
        assert pump is not None
        for number, event in enumerate(events, 1):
            assert type(event) is ResponseHead
            if event.status == 101:
                self.fail(MALFORMED, "the origin switched protocols unasked")
                return None
            if event.status >= 200:
                self._begin_response_body(event, pump)
                del events[:number]
                return self._response_path
            self._continued = self._continued or event.status == 100
            if head.version >= (1, 1):
                pump.write(heads.forward_interim(event, self._proxy.via))
        return None

    def _begin_response_body(self, head: ResponseHead, pump: Pump) -> None:
        request, verdict, path = self._head, self._verdict, self._request_path
        assert verdict is not None and path is not None
        self._response_head = head
        # It has been answered, so it won't be sent again.
        path.whole = None
        if self._link is not None and self._link.upstream is not None and heads.wants_close(head.version, head.headers):
            self._link.upstream.reusable = False
        self._response_verdict = said = self._settings.rules.on_response(verdict, request, head)
        if said.rules:
            self.flow.rules.extend(name for name in said.rules if name not in verdict.rules)
        if said.refused is not None:
            self.fail(FAILED, said.refused)
            return
        if said.way.refused:
            self.fail(REFUSED, "the response's body is too large")
            return
        if not self._request_is_through and self._expects and not self._continued:
            # The client may never send the body that it wasn't asked for: nobody can tell what comes next.
            self._close = True
        self.flow.response.goes(said.way)
        self._response_path = BodyPath(pump, said, head.framing, self._most, self._begin_response)

    def _begin_response(self, length: int | None) -> tuple[bytes, BodyWriter]:
        request, head, said = self._head, self._response_head, self._response_verdict
        assert head is not None and said is not None
        self._response = Response.SENDING
        self.flow.status = head.status
        self.flow.first_byte = self._seconds() - self.flow.started
        self._close = self._close or self._layer.last
        data, kind, writer = heads.forward_response(
            head,
            edits=said.edits,
            changed=bool(said.replacements),
            length=length,
            client_version=request.version,
            close=self._close,
            via=self._proxy.via,
            size=self._settings.write_size,
        )
        self._close_framed = kind is Kind.CLOSE
        self._close = self._close or self._close_framed
        return data, writer

    def _response_was_flushed(self) -> None:
        self._response_flushed = True
        self._settle()

    def _guarded_feed(self, path: BodyPath, events: list[BodyEvent], message: str, too_large: int) -> bool:
        """Feed `path`; what goes wrong in it is this exchange's fault and no other's."""
        try:
            path.feed(events)
        except BodyTooLarge as error:
            self.fail(REFUSED, f"the {message}'s body {error}", too_large)
            return False
        except Exception:
            self._rule_failed()
            return False
        return True

    def _new_pump(self, valve: Valve | None, flushed: Callable[[], None]) -> Pump:
        pump = Pump(valve, self._settings.write_size, self._seconds, flushed)
        pump.broken = self._rule_failed
        return pump

    def _rule_failed(self) -> None:
        """Called where the exception of a filter is handled."""
        log.failure("exchange {id}: a rule failed on a body", id=self.flow.id)
        if self._response is Response.RECEIVED and not self._response_flushed:
            # All of it has come; but not all of it will go.
            self._response = Response.SENDING
        self.fail(FAILED, "a rule failed on a body")

    # The proxy's own responses

    def _answer(self, answer: Answer, outcome: str) -> None:
        """Respond without the origin."""
        self.flow.outcome = outcome
        self._deaf = True
        self._close = self._close or self._request is Request.RECEIVING or self._layer.last
        pump = self._response_pump if self._response_pump is not None else self._make_response_pump(None)
        pump.give_up_valve()
        prepared = answers.prepare(answer, self._head.method, self._close, self._seconds())
        self.flow.status = prepared.status
        self.flow.first_byte = self._seconds() - self.flow.started
        self._response = Response.SENDING
        self._response_path = None
        self._reply = OwnReply(prepared, pump, self._proxy.clock, self._moved, self._reply_ended)
        self.flow.response = self._reply.record
        self._reply.start()

    def _moved(self) -> None:
        self._progress = self._seconds()

    def _reply_ended(self, whole: bool) -> None:
        assert self._response_pump is not None
        if whole:
            self._response = Response.RECEIVED
            self._response_pump.finish()
        else:
            self.flow.outcome, self.flow.error = FAILED, "the file became shorter while it was sent"
            self._cut()

    # Ends

    @property
    def _request_is_through(self) -> bool:
        return self._request is Request.RECEIVED and self._request_flushed

    def _settle(self) -> None:
        """See whether the origin's connection, or the whole exchange, is done with."""
        if self._over or self._response is not Response.RECEIVED:
            return
        link = self._link
        if link is not None and self._request_is_through:
            link.leave()
        if not self._response_flushed:
            return
        # A client that asked whether to send its body, and was answered instead, won't send it.
        path = self._request_path
        unasked = self._expects and not self._continued and path is not None and not path.received
        if link is None or link.upstream is None or unasked:
            keep = not self._close and self._request is Request.RECEIVED and not self._layer.last
            self._over_and_out(keep)

    def fail(self, outcome: str, why: str, status: int = 502) -> None:
        """Something went wrong, with either side or in the proxy. Only the first thing counts."""
        if self._deaf:
            return
        action = ON_FAULT[self._request, self._response]
        self._deaf = True
        if action is not Action.NOTHING and not (action is Action.CLOSE and outcome == ORIGIN_GONE):
            self.flow.outcome, self.flow.error = outcome, why
        self._drop_link()
        if action is Action.ANSWER:
            self._answer(answers.explain(status, why), outcome)
        elif action is Action.CUT:
            self._cut()
        else:
            self._close = self._close or action is Action.CLOSE
            self._settle()

    def _cut(self) -> None:
        """End the response visibly before its end, behind what has already come."""
        pump = self._response_pump
        assert pump is not None
        pump.flushed = self._cut_now
        pump.finish()

    def _cut_now(self) -> None:
        if self._over:
            return
        # Where only the connection's end tells the body's, an orderly end would be a lie.
        self._over_and_out(ending=self._connection.abort if self._close_framed else self._connection.close)

    def _idle(self) -> None:
        """See whether something has stood still for too long."""
        to_origin, to_client = self._request_pump, self._response_pump
        due = still_since(self._progress, to_origin, to_client) + self._settings.timeouts.idle
        if due > self._seconds():
            self._connection.deadline.set(due - self._seconds(), self._idle)
            return
        who = culprit(self._request, self._response, to_origin, to_client)
        if self._deaf or who is Culprit.CLIENT_READS:
            # It doesn't take what there is for it: no use in telling it anything.
            if not self.flow.error:
                self.flow.outcome, self.flow.error = TIMED_OUT, Culprit.CLIENT_READS.value
            self._over_and_out(ending=self._connection.abort)
            return
        self.fail(TIMED_OUT, who.value, 504 if who is Culprit.ORIGIN else 408)
        if not self._over:
            self._progress = self._seconds()
            self._connection.deadline.set(self._settings.timeouts.idle, self._idle)

    def _drop_link(self) -> None:
        """The origin is of no use any more, nor is what waits to be sent to it."""
        if self._request_pump is not None:
            self._request_pump.abandon()
        if self._response_pump is not None:
            self._response_pump.give_up_valve()
        if self._link is not None:
            self._link.drop(self._request_is_through)

    def _over_and_out(self, keep: bool = False, ending: Callable[[], None] | None = None) -> None:
        """Record the flow and give the connection back: to be kept, or ended as the layer does, or by `ending`."""
        self._over = self._deaf = True
        self._drop_link()
        if self._reply is not None:
            self._reply.stop()
        if self._response_pump is not None:
            self._response_pump.abandon()
        flow = self.flow
        for path, record in ((self._request_path, flow.request), (self._response_path, flow.response)):
            if path is not None:
                record.went(path.received, path.let_go)
        flow.outcome = flow.outcome or FORWARDED
        flow.client_in = self._layer.unaccounted
        flow.client_out = self._connection.sink.sent - self._sent_before
        flow.duration = self._seconds() - flow.started
        self._proxy.journal.record(flow)
        # These and this refer to each other; without that, what is over is freed at once.
        self._link = self._reply = self._request_path = self._response_path = None
        self._request_pump = self._response_pump = None
        if ending is not None:
            ending()
        self._layer.exchange_over(keep)
