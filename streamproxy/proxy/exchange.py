"""One request and all its responses: what flows between its beginning and its end (`ends`).

What should happen is decided by the rules on each head (`rules`), how bodies go by `stream.body`, how heads are
rewritten by `heads`, what a fault means by the table in `faults`. This joins them to two connections: the client's,
which is the layer's, and the origin's, which `link` gets. What scripts have a say in is in `scripted`.

When both messages are through, or given up, the flow is recorded and the connection is the layer's again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamproxy.filters.websocket import WebSocketData
from streamproxy.flow import ANSWERED, FAILED, MALFORMED, ORIGIN_GONE, REFUSED, SWITCHED
from streamproxy.proxy import answers, heads
from streamproxy.proxy.ends import Ends
from streamproxy.proxy.faults import Request, Response
from streamproxy.proxy.link import OriginLink
from streamproxy.proxy.route import Route, direct
from streamproxy.proxy.sides import Plan
from streamproxy.proxy.socket_hooks import SocketHooks
from streamproxy.proxy.target import decide_target
from streamproxy.proxy.trust_page import is_trust_page
from streamproxy.proxy.upgrading import Switched, Upgrade, upgrade_of
from streamproxy.rules.verdict import BodyWork, HeaderEdits, How, Pace, RequestVerdict, ResponseVerdict, Way
from streamproxy.stream.body import BodyPath, Stages
from streamproxy.stream.pace import PacedSink
from streamproxy.stream.pump import Pump
from streamproxy.stream.sink import Sink
from streamproxy.wire.chunked import BodyWriter
from streamproxy.wire.message import BodyEvent, End, Event, Kind, RequestHead, ResponseHead, Target, WireError

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer
    from streamproxy.proxy.upstream import UpstreamConnection


class Exchange(Ends):
    """The exchange that begins with `head`."""

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer, head: RequestHead) -> None:
        super().__init__(connection, layer, head)
        self._verdict: RequestVerdict | None = None
        self._route: Route | None = None
        self._host = b""
        # What is still to be done to the fields of either message.
        self._request_edits: tuple[HeaderEdits, ...] = ()
        self._response_edits: tuple[HeaderEdits, ...] = ()
        self._stages_of = self._proxy.stages
        # The request's head as it goes on, and where to.
        self._sent = head
        self._target: Target | None = None
        # A script changes the bodies.
        self._changed = False
        self._response_changed = False
        # The response's head as it came, and as it goes on.
        self._response_came: ResponseHead | None = None
        self._response_head: ResponseHead | None = None
        self._response_verdict: ResponseVerdict | None = None
        # What it asks its connection to become.
        self._upgrade: Upgrade | None = None

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
        if aliases and (why := self._proxy.pool.permission.denied_alias(aliases)) is not None:
            self.fail(REFUSED, why, 403)
            return
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
        self._host = verdict.target.origin.netloc.encode("ascii") if verdict.redirected else host
        self._route = direct(verdict.target.origin) if route is None or verdict.redirected else route
        self._target = verdict.target
        self._request_edits = verdict.edits
        self._decided(events)

    def _decided(self, events: list[BodyEvent]) -> None:
        """It is known what the rules want of the request, and where it goes."""
        if self._verdict is not None and self._verdict.way.refused:
            self.fail(REFUSED, "the request's body is too large", 413)
        else:
            self._send_request(events)

    def _send_request(self, events: list[BodyEvent]) -> None:
        """Forward the request; `events` are those of its body that have come."""
        verdict, sent = self._verdict, self._sent
        assert verdict is not None
        if b"upgrade" in sent.headers and not self._may_upgrade(verdict):
            return
        self.flow.request.goes(verdict.way)
        self._request_pump = pump = self._make_request_pump(self._connection.valve)
        stages = self._request_stages(verdict.work, verdict.way) if sent.framing.kind is not Kind.NONE else None
        path = BodyPath(pump, verdict, sent.framing, self._most, self._begin_request, stages)
        self._request_path = path
        path.broken = self._request_broke
        self._prepare_request_path(path)
        if verdict.way.how is How.HELD:
            route = self._route
            if route and (denied := self._proxy.pool.permission.denied_at_once(route.host, route.origin.port)):
                # Before the whole of a body is waited for.
                self.fail(REFUSED, denied.why, denied.status)
            elif self._request is Request.RECEIVING and self._expects:
                # The origin won't be asked before the body is here, and the client waits to be asked for it.
                self._goes_on()
                self._connection.sink.write(answers.CONTINUE)
        else:
            self._open_link()
        if not self._deaf:
            self._feed_request(path, events)

    def _may_upgrade(self, verdict: RequestVerdict) -> bool:
        """See what the request's Upgrade asks for; whether it may."""
        sent = self._sent
        if self._request_edits:
            sent = sent._replace(headers=heads.edited(sent.headers, self._request_edits))
        try:
            self._upgrade = upgrade_of(self._head, sent, verdict.websocket, self._is_ruled)
        except WireError as error:
            if error.status == 426:
                self._answer(answers.other_version(error.reason), REFUSED)
            else:
                self.fail(MALFORMED, error.reason, error.status)
            return False
        work = verdict.websocket
        if self._upgrade is None or work is None or (why := work.unreadable) is None:
            return True
        self.fail(REFUSED, why)
        return False

    @property
    def _is_ruled(self) -> bool:
        """Whether rules or scripts have a say on what is asked for."""
        return bool(self._settings.rules.rules)

    def _prepare_request_path(self, path: BodyPath) -> None:
        """Nothing has gone through `path` yet."""

    def _request_stages(self, work: BodyWork, way: Way) -> Stages | None:
        """What is done to the request's body."""
        goes = heads.edited(self._sent.headers, self._request_edits)
        return self._stages_of.make(work, self._head.headers, goes, self.flow, "request", None, None, way)

    def _response_stages(self, work: BodyWork, way: Way, head: ResponseHead) -> Stages | None:
        """What is done to the response's body; `head` is as it goes on."""
        assert self._response_came is not None
        goes = heads.edited(head.headers, self._response_edits)
        return self._stages_of.make(work, self._response_came.headers, goes, self.flow, "response", None, None, way)

    def request_events(self, events: list[BodyEvent]) -> None:
        """More of the request's body."""
        self._progress = self._seconds()
        if events and type(events[-1]) is End:
            self._request = Request.RECEIVED
        if self._request_path is not None and not self._deaf:
            self._feed_request(self._request_path, events)

    def _feed_request(self, path: BodyPath, events: list[BodyEvent]) -> None:
        try:
            path.feed(events)
        except BaseException:
            # A user's function may raise anything.
            self._request_broke()

    def _open_link(self) -> None:
        assert self._route is not None
        self._link = OriginLink(self, self._proxy.pool, self._route, self.flow)
        self._link.open()

    def _begin_request(self, length: int | None) -> tuple[bytes, BodyWriter]:
        head, verdict, target = self._sent, self._verdict, self._target
        assert verdict is not None and target is not None
        if self._link is None:
            self._open_link()
        upgrade, edits = self._upgrade, self._request_edits
        if upgrade is not None:
            edits = (*edits, *upgrade.request_edits())
        return heads.forward_request(
            head,
            target,
            host=self._host,
            edits=edits,
            changed=self._changed or (verdict.work.changes and head.framing.kind is not Kind.NONE),
            readable=self._reads_answers,
            whole=verdict.readable_answer_wanted,
            continued=self._continued,
            length=length,
            via=self._proxy.via,
            upgrade=None if upgrade is None else upgrade.asked,
        )

    @property
    def _reads_answers(self) -> bool:
        """Whether something here will read the response's body."""
        return self._verdict is not None and self._verdict.readable_answer_wanted

    # The connection to the origin

    def origin_connected(self, upstream: UpstreamConnection) -> None:
        """The link has a connection."""
        assert self._request_pump is not None
        self._progress = self._seconds()
        upstream.begin(self, self._sent.method)
        self._make_response_pump(upstream.valve)
        assert self._verdict is not None
        self._request_pump.attach(self._paced(upstream.sink, self._verdict.work.pace))

    def _paced(self, sink: Sink, pace: Pace | None) -> Sink:
        return sink if pace is None else PacedSink(sink, pace.rate, pace.delay, self._proxy.clock, self.memory)

    def _retry(self) -> bool:
        """Send the request once more, if that is safe and it is still at hand."""
        link, path = self._link, self._request_path
        if link is None or path is None or path.whole is None or not link.may_retry(self._sent.method):
            return False
        self._request_pump = self._make_request_pump(None)
        self._request_pump.pour(path.whole())
        self._request_pump.finish()
        link.open_again()
        return True

    def origin_gone(self, why: str) -> None:
        """The connection to the origin ended, and the response didn't."""
        if self._deaf or self._response is Response.RECEIVED or not self._retry():
            self.fail(ORIGIN_GONE, why)

    # The response

    def origin_events(self, events: list[Event]) -> None:
        """What the origin sends, in order."""
        self._progress = self._seconds()
        if self._deaf:
            return
        path = self._response_path
        if path is None:
            self._take_heads(events)
        else:
            body: list[BodyEvent] = events  # type: ignore[assignment]
            self._feed_response(path, body)

    def _feed_response(self, path: BodyPath, events: list[BodyEvent]) -> None:
        try:
            path.feed(events)
        except BaseException:
            self._response_broke()
            return
        if not self._deaf and events and type(events[-1]) is End:
            self._response = Response.RECEIVED
            self._response_ended(path)
            self._settle()

    def _response_ended(self, path: BodyPath) -> None:
        """The last byte of the response has come in."""

    def _take_heads(self, events: list[Event]) -> None:
        """Take interim heads, and a final one with what stands behind it."""
        head, pump = self._head, self._response_pump
        assert pump is not None
        for number, event in enumerate(events, 1):
            assert type(event) is ResponseHead
            if event.status == 101:
                self._switch_offered(event)
                return
            if event.status >= 200:
                body: list[BodyEvent] = events[number:]  # type: ignore[assignment]
                self._response_begins(event, body)
                return
            if event.status == 100:
                self._goes_on()
            if head.version >= (1, 1):
                pump.write(heads.forward_interim(event, self._proxy.via))

    def _switch_offered(self, head: ResponseHead) -> None:
        """The origin says 101."""
        upgrade = self._upgrade
        if upgrade is None:
            self.fail(MALFORMED, "the origin switched protocols unasked")
            return
        if not self._request_is_through:
            self.fail(MALFORMED, "the origin switched protocols before it was asked")
            return
        try:
            upgrade.check(head)
        except WireError as error:
            self.fail(MALFORMED, error.reason)
            return
        self._response_begins(head, [])

    def _response_begins(self, head: ResponseHead, events: list[BodyEvent]) -> None:
        """The final response's head has come; `events` are what was read behind it."""
        request, verdict, path = self._head, self._verdict, self._request_path
        assert verdict is not None and path is not None
        self._count_head(head.headers)
        # It has been answered, so it won't be sent again.
        path.whole = None
        if self._link is not None and self._link.upstream is not None and heads.wants_close(head.version, head.headers):
            self._link.upstream.reusable = False
        said = self._settings.rules.on_response(verdict, request, head)
        if said.rules:
            self.flow.rules.extend(name for name in said.rules if name not in verdict.rules)
        if not self._request_is_through and self._expects and not self._continued:
            # The client may never send the body that it wasn't asked for: nobody can tell what comes next.
            self._close = True
        self._response_came = self._response_head = head
        self._response_verdict, self._response_edits = said, said.edits
        self._response_decided(events)

    def _response_decided(self, events: list[BodyEvent]) -> None:
        """It is known what the rules want of the response."""
        self._send_response(events)

    def _send_response(self, events: list[BodyEvent]) -> None:
        """Forward the response; `events` are those of its body that have come."""
        head, said, pump = self._response_head, self._response_verdict, self._response_pump
        assert head is not None and said is not None and pump is not None
        if said.refused is not None:
            self.fail(FAILED, said.refused)
            return
        if said.way.refused:
            self.fail(REFUSED, "the response's body is too large")
            return
        if head.status == 101:
            self._switch(head, said, pump)
            return
        self.flow.response.goes(said.way)
        if said.work.pace is not None:
            pump.attach(self._paced(self._connection.sink, said.work.pace))
        stages = self._response_stages(said.work, said.way, head) if head.framing.kind is not Kind.NONE else None
        self._response_path = path = BodyPath(pump, said, head.framing, self._most, self._begin_response, stages)
        path.broken = self._response_broke
        self._prepare_response_path(path)
        self._feed_response(path, events)

    def _prepare_response_path(self, path: BodyPath) -> None:
        """Nothing has gone through `path` yet."""

    def _begin_response(self, length: int | None) -> tuple[bytes, BodyWriter]:
        request, head, said = self._head, self._response_head, self._response_verdict
        assert head is not None and said is not None
        if self._response is Response.AWAITED:
            self._response = Response.SENDING
        self.flow.status = head.status
        self.flow.first_byte = self._seconds() - self.flow.started
        self._close = self._close or self._layer.last
        data, kind, writer = heads.forward_response(
            head,
            edits=self._response_edits,
            changed=said.work.changes or self._response_changed,
            length=length,
            client_version=request.version,
            close=self._close,
            via=self._proxy.via,
        )
        self._close_framed = kind is Kind.CLOSE
        self._close = self._close or self._close_framed
        return data, writer

    # What it may switch to

    def _switch(self, head: ResponseHead, said: ResponseVerdict, pump: Pump) -> None:
        """Tell the client that what it asked for is granted; the connections are another protocol's behind that."""
        upgrade = self._upgrade
        assert upgrade is not None
        work = upgrade.work
        if work is not None:
            upgrade.work = work = work.adding(said.websocket)
            if (why := work.unreadable) is not None:
                self.fail(REFUSED, why)
                return
        self._response = Response.SENDING
        self.flow.status = head.status
        self.flow.first_byte = self._seconds() - self.flow.started
        headers = heads.edited(head.headers, self._response_edits)
        headers = upgrade.response_fields(headers, self._head.headers.get(b"sec-websocket-key"))
        pump.flushed = self._switched
        pump.finish(heads.forward_switch(head, headers, self._proxy.via))

    def _switched(self) -> None:
        """The 101 has gone: the relay takes over."""
        upgrade, link, said, verdict = self._upgrade, self._link, self._response_verdict, self._verdict
        assert upgrade is not None and link is not None and said is not None and verdict is not None
        self._over = self._deaf = True
        self._forget_heads()
        connection, flow, layer = self._connection, self.flow, self._layer
        end = link.hand_over()
        plan = None
        if upgrade.handshake is not None:
            plan = self._plan(upgrade, verdict.work, said.work)
        else:
            # Nobody looks into a tunnel.
            flow.outcome = SWITCHED
            self._ended()
        client = self._paced(connection.sink, said.work.pace)
        origin = self._paced(end.sink, verdict.work.pace)
        self._drop_link()
        if self._response_pump is not None:
            self._response_pump.abandon()
        self._link = self._request_path = self._request_pump = self._response_pump = None
        switched = Switched(connection, end, flow, self._sent_before, layer.taken)
        switched.start(plan, layer.give_up(), origin, client)
        layer.gave_up()

    def _plan(self, upgrade: Upgrade, to_origin: BodyWork, to_client: BodyWork) -> Plan:
        """How the WebSocket goes."""
        limits, work = self._settings.limits, upgrade.work
        data = WebSocketData(limits.capture, self._proxy.recording)
        data.streamed = upgrade.streams
        return Plan(
            upgrade.streams,
            data,
            self._socket_hooks(),
            () if work is None else work.rules,
            limits.websocket_message,
            limits.capture,
            self._settings.timeouts.regex,
            upgrade.extended,
            upgrade.agreed,
            upgrade.with_client,
            upgrade.with_origin,
            self._stages_of.alongside(to_origin, self.flow, "request"),
            self._stages_of.alongside(to_client, self.flow, "response"),
        )

    def _socket_hooks(self) -> SocketHooks | None:
        """What scripts want of a WebSocket."""
        return None
