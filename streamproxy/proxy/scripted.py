"""An exchange that scripts have a say in: it stops at their hooks, shows them a flow, and obeys what they made of it.

The hooks, in their order: `requestheaders` when the request's head has come, and rules have edited it; `request` when
its body is whole, or has gone by; `responseheaders` and `response` the same of the response; `error` when something
went wrong. A hook that is asynchronous keeps its own message waiting.

How an exchange asks is told in `asking`, what hooks see in `scripts.http`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from streamproxy.filters.chain import FilterError, Pause
from streamproxy.filters.coding import readable
from streamproxy.flow import ANSWERED, REFUSED
from streamproxy.proxy import answers
from streamproxy.proxy.asking import AskingExchange
from streamproxy.proxy.faults import Request
from streamproxy.proxy.heads import HOP_BY_HOP, edited, reframed
from streamproxy.proxy.route import direct
from streamproxy.proxy.shown import (
    check_coding,
    for_the_connection,
    has_gone_by,
    show_body,
    show_no_body,
    take_body,
    unchanging,
)
from streamproxy.proxy.stages import codings_of
from streamproxy.rules.verdict import Answer, BodyWork, How, Way
from streamproxy.scripts import http
from streamproxy.scripts.connection import Server
from streamproxy.stream.body import BodyPath, Stages
from streamproxy.stream.valve import Valve
from streamproxy.wire.framing import unvouched
from streamproxy.wire.headers import NO_HEADERS, Headers
from streamproxy.wire.message import CHUNKED, BodyEvent, End, Event, Framing, Kind, RequestHead, ResponseHead

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer
    from streamproxy.proxy.upstream import UpstreamConnection

A_SCRIPT = "a script"
# What of a script's own response belongs to the connection or its framing.
_NOT_A_SCRIPTS = HOP_BY_HOP | {b"content-length", b"trailer"}


class ScriptedExchange(AskingExchange):
    """The exchange that begins with `head`, where there are scripts."""

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer, head: RequestHead) -> None:
        super().__init__(connection, layer, head)
        # What came of either body while a hook was waited for that decides how it goes.
        self._early_request: list[BodyEvent] | None = None
        self._early_response: list[BodyEvent] | None = None
        self._own_request: tuple[object, str] | None = None
        self._own_response: tuple[object, str] | None = None
        # A script answers, and hooks may still be asked about that.
        self._answers_itself = False

    def _answer_instead(self, hooks: tuple[str, ...]) -> None:
        """A script has a response of its own: it is shown to those `hooks` that haven't seen one yet, and goes then."""
        path, link = self._request_path, self._link
        if not self._answers_itself:
            self._answers_itself = True
            if path is not None:
                path.abandon("a script answered")
            if (
                link is not None
                and link.upstream is not None
                and link.upstream.reader.ended
                and self._request_is_through
            ):
                link.leave()
            self._drop_link()
        if hooks:
            self._ask(hooks[0], lambda: self._answer_instead(hooks[1:]), self._sending_client)
            return
        response = None if self._seen is None else self._seen.response
        if response is None:
            raise ValueError("it answers by no response")
        head = response.to_head()
        if head.status < 200:
            raise ValueError(f"{head.status} is no status to answer by: the client would wait for another response")
        fields = tuple([field for field in head.headers.fields if field[0].lower() not in _NOT_A_SCRIPTS])
        self._answer(Answer(head.status, fields, response.raw_content or b"", reason=head.reason), ANSWERED)

    @property
    def _sending_client(self) -> Valve | None:
        """The valve of a client that may send more of its body. (Of one that can't, the end is to be noticed.)"""
        return self._connection.valve if self._request is Request.RECEIVING else None

    def _own_stages(self, message: http.Message, headers: Headers) -> tuple[object, str] | None:
        """The script's stream function for a body, and its name."""
        stream = message.asked_stream
        if stream is None or isinstance(stream, bool):
            return None
        name = self._settings.scripts.name_of(stream)
        coding = readable(codings_of(headers))
        if coding is not None:
            raise FilterError(f"{name} can't read Content-Encoding {coding.decode('latin-1')}")
        return stream, name

    def _way_with(self, message: http.Message, way: Way, framing: Framing) -> Way:
        """How a body goes, now that a script may have said so."""
        stream, length = message.asked_stream, framing.length
        if stream is None or way.how is How.NONE:
            return way
        too_large = length is not None and self._most is not None and length > self._most
        if stream is not False:
            return Way(How.STREAMED, A_SCRIPT, refused=too_large)
        limit = self._settings.limits.held_body
        return Way(How.HELD, A_SCRIPT, None, limit, too_large or (length is not None and length > limit))

    def _request_stages(self, work: BodyWork, way: Way) -> Stages | None:
        came, goes = self._head.headers, edited(self._sent.headers, self._request_edits)
        return self._stages_of.make(work, came, goes, self.flow, "request", self._seen, self._own_request, way)

    def _response_stages(self, work: BodyWork, way: Way, head: ResponseHead) -> Stages | None:
        assert self._response_came is not None
        came, goes = self._response_came.headers, edited(head.headers, self._response_edits)
        return self._stages_of.make(work, came, goes, self.flow, "response", self._seen, self._own_response, way)

    @property
    def _reads_answers(self) -> bool:
        return super()._reads_answers or bool(self._hooks["responseheaders"] or self._hooks["response"])

    # The request

    def _decided(self, events: list[BodyEvent]) -> None:
        verdict, target = self._verdict, self._target
        assert verdict is not None and target is not None
        head = self._head
        if verdict.edits:
            head = head._replace(headers=edited(head.headers, verdict.edits))
            self._request_edits = for_the_connection(verdict.edits)
        started = self.flow.started
        request = http.Request.of(head, target, started)
        request.streams = verdict.way.how is How.STREAMED
        seen = http.HTTPFlow(self._connection.seen_by_scripts(), Server(), True, started, self.flow.id)
        seen.server_conn.address = (target.origin.host, target.origin.port)
        seen.request = request
        self._seen = seen
        self._early_request = events
        self._ask("requestheaders", self._requestheaders_asked, self._sending_client)

    def request_events(self, events: list[BodyEvent]) -> None:
        early = self._early_request
        if self._deaf or (early is None and not self._answers_itself):
            super().request_events(events)
            return
        self._progress = self._seconds()
        if events and type(events[-1]) is End:
            self._request = Request.RECEIVED
        if early is not None and not self._answers_itself:
            early += events

    def _requestheaders_asked(self) -> None:
        seen, verdict = self._seen, self._verdict
        assert seen is not None and verdict is not None
        if seen.response is not None:
            self._answer_instead(("responseheaders", "response"))
            return
        self._take_request()
        request = seen.request
        way = self._way_with(request, verdict.way, self._sent.framing)
        self._verdict = verdict._replace(way=way)
        self._own_request = self._own_stages(request, self._head.headers)
        self._changed = self._own_request is not None
        if way.refused:
            self.fail(REFUSED, "the request's body is too large", 413)
        elif way.how is How.NONE:
            show_no_body(request, self._seconds())
            self._ask("request", self._bodyless_request_asked, self._sending_client)
        else:
            self._go_on_with_request()

    def _go_on_with_request(self) -> None:
        verdict = self._verdict
        assert verdict is not None
        waits = self._expects and self._request is Request.RECEIVING and verdict.way.how is How.STREAMED
        if waits and b"expect" not in self._sent.headers:
            # The origin isn't asked any more whether it wants the body.
            self._continued = True
            self._connection.sink.write(answers.CONTINUE)
        events, self._early_request = self._early_request, None
        self._send_request(events or [])

    def _bodyless_request_asked(self) -> None:
        seen, verdict = self._seen, self._verdict
        assert seen is not None and verdict is not None
        if seen.response is not None:
            self._answer_instead(("responseheaders", "response"))
            return
        self._take_request()
        content = seen.request.raw_content
        if content:
            framing = Framing(Kind.LENGTH, len(content))
            headers = reframed(unvouched(self._sent.headers), NO_HEADERS, framing)
            self._sent = self._sent._replace(framing=framing, headers=headers)
            self._early_request = [content, End()]
            self._verdict = verdict._replace(work=unchanging(verdict.work))
            self._own_request, self._changed = None, False
        self._go_on_with_request()

    def _take_request(self) -> None:
        """The request goes on as scripts have left it."""
        seen, target = self._seen, self._target
        assert seen is not None and target is not None
        head, self._target = seen.request.to_head()
        if (head.method == b"HEAD") is not (self._head.method == b"HEAD") or head.method == b"CONNECT":
            raise ValueError(f"its method can't become {head.method.decode()}: the response would be read otherwise")
        headers = reframed(head.headers, self._head.headers, self._head.framing)
        if headers.count(b"host") > 1:
            raise ValueError("it has several Host fields")
        self._sent = head._replace(headers=headers, framing=self._sent.framing)
        host, origin = headers.get(b"host"), self._target.origin
        if origin != target.origin:
            self._route = direct(origin)
            self._host = origin.netloc.encode("ascii") if host is None else host
            self.flow.url = self._target.url
            seen.server_conn.address = (origin.host, origin.port)
        elif host is not None and host != self._head.headers.get(b"host"):
            self._host = host

    def _prepare_request_path(self, path: BodyPath) -> None:
        assert self._seen is not None
        self._seen.request.captured = self.flow.request.captured
        if self._hooks["request"]:
            path.when_whole = self._request_whole

    def _request_whole(self) -> Pause | None:
        """The request's body is whole, and held."""
        seen, path = self._seen, self._request_path
        assert seen is not None and path is not None
        show_body(seen.request, path, self._seconds())
        return self._ask("request", self._held_request_asked)

    def _held_request_asked(self) -> None:
        seen, path = self._seen, self._request_path
        assert seen is not None and path is not None
        if seen.response is not None:
            self._answer_instead(("responseheaders", "response"))
            return
        before = codings_of(self._sent.headers)
        self._take_request()
        if self._verdict is not None:
            check_coding(before, self._sent.headers, seen.request, self._verdict.work)
        self._changed = take_body(seen.request, path) or self._changed
        if path.held.trailers and self._sent.framing.kind is Kind.LENGTH:
            self._changed = True
            self._sent = self._sent._replace(framing=CHUNKED)

    def _feed_request(self, path: BodyPath, events: list[BodyEvent]) -> None:
        super()._feed_request(path, events)
        if events and type(events[-1]) is End and path is self._request_path and not self._deaf:
            self._request_came(path)

    def _request_came(self, path: BodyPath) -> None:
        """The last byte of the request has come in."""
        seen, verdict = self._seen, self._verdict
        assert seen is not None and verdict is not None
        if has_gone_by(seen.request, verdict.way, path, self._seconds()):
            self._tell("request")

    # The response

    def origin_connected(self, upstream: UpstreamConnection) -> None:
        assert self._seen is not None
        server = self._seen.server_conn
        if not isinstance(server, Server):
            # A script has put something else in its place.
            self._seen.server_conn = server = Server()
        server.peername = upstream.peername
        server.timestamp_start = self._seconds()
        server.tls_established = ISSLTransport.providedBy(upstream.transport)
        super().origin_connected(upstream)

    def origin_events(self, events: list[Event]) -> None:
        early = self._early_response
        if early is None or self._deaf:
            super().origin_events(events)
        else:
            self._progress = self._seconds()
            early += events  # type: ignore[arg-type]

    def origin_gone(self, why: str) -> None:
        early = self._early_response
        if not early or type(early[-1]) is not End:
            super().origin_gone(why)

    def _response_decided(self, events: list[BodyEvent]) -> None:
        said, head, seen = self._response_verdict, self._response_head, self._seen
        assert said is not None and head is not None and seen is not None
        if said.edits:
            head = head._replace(headers=edited(head.headers, said.edits))
            self._response_edits = for_the_connection(said.edits)
        self._edited_response = self._response_head = head
        seen.response = response = http.Response.of(head, self._seconds())
        response.streams = said.way.how is How.STREAMED
        self._given = response
        self._early_response = events
        self._ask("responseheaders", self._responseheaders_asked, self._sending_origin)

    @property
    def _sending_origin(self) -> Valve | None:
        link = self._link
        return None if link is None or link.upstream is None else link.upstream.valve

    def _responseheaders_asked(self) -> None:
        said = self._response_verdict
        assert said is not None
        if self._is_replaced:
            self._answer_instead(("response",))
            return
        self._take_response()
        head, response = self._response_head, self._given
        assert head is not None
        way = self._way_with(response, said.way, head.framing)
        self._own_response = self._own_stages(response, self._edited_response.headers)
        self._response_changed = self._own_response is not None
        self._response_verdict = said._replace(way=way)
        if way.how is How.NONE and said.refused is None and not way.refused:
            show_no_body(response, self._seconds())
            self._ask("response", self._bodyless_response_asked, self._sending_origin)
        else:
            self._go_on_with_response()

    @property
    def _is_replaced(self) -> bool:
        """Whether a script has put another response in the place of the origin's."""
        response = None if self._seen is None else self._seen.response
        return response is not None and response is not self._given

    def _bodyless_response_asked(self) -> None:
        if self._is_replaced:
            self._answer_instead(())
            return
        self._take_response()
        head, said, content = self._response_head, self._response_verdict, self._given.raw_content
        assert head is not None and said is not None
        if content and head.framing.kind is not Kind.NONE:
            framing = Framing(Kind.LENGTH, len(content))
            headers = reframed(unvouched(head.headers), NO_HEADERS, framing)
            self._response_head = head._replace(framing=framing, headers=headers)
            self._early_response = [content, End()]
            self._response_verdict = said._replace(work=unchanging(said.work))
            self._own_response, self._response_changed = None, False
        self._go_on_with_response()

    def _go_on_with_response(self) -> None:
        events, self._early_response = self._early_response, None
        self._send_response(events or [])

    def _take_response(self) -> None:
        """The response goes on as scripts have left it."""
        came = self._edited_response
        head = self._given.to_head()
        current = self._response_head
        assert current is not None
        if came.status == 101 and head.status != 101:
            raise ValueError("its status can't change: a response of a script's own can take its place")
        if (head.status < 200 and came.status != 101) or (head.status in (204, 304)) is not (came.status in (204, 304)):
            raise ValueError(f"its status can't become {head.status}: its body would be read otherwise")
        self._response_head = head._replace(
            headers=reframed(head.headers, came.headers, came.framing), framing=current.framing
        )

    def _prepare_response_path(self, path: BodyPath) -> None:
        self._given.captured = self.flow.response.captured
        if self._hooks["response"]:
            path.when_whole = self._response_whole

    def _response_whole(self) -> Pause | None:
        path = self._response_path
        assert path is not None
        show_body(self._given, path, self._seconds())
        return self._ask("response", self._held_response_asked)

    def _held_response_asked(self) -> None:
        path = self._response_path
        if self._is_replaced:
            self._answer_instead(())
            return
        assert path is not None
        before = self._response_head
        self._take_response()
        head, said = self._response_head, self._response_verdict
        if before is not None and head is not None and said is not None:
            check_coding(codings_of(before.headers), head.headers, self._given, said.work)
        self._response_changed = take_body(self._given, path) or self._response_changed
        if path.held.trailers and head is not None and head.framing.kind is not Kind.CHUNKED:
            self._response_changed = True
            # With a length, that is where the coding is told instead.
            told = () if head.framing.kind is Kind.LENGTH else ((b"Transfer-Encoding", b"chunked"),)
            self._response_head = head._replace(framing=CHUNKED, headers=head.headers.adding(*told))

    def _response_ended(self, path: BodyPath) -> None:
        said = self._response_verdict
        if said is not None and has_gone_by(self._given, said.way, path, self._seconds()):
            self._tell("response")
