"""How an exchange ends, in whatever way: its state, its two pumps, the proxy's own answers, faults and silence.

What flows between the beginning and the end is told in `exchange`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from streamproxy.filters.chain import FilterError
from streamproxy.filters.coding import Bomb
from streamproxy.filters.decoders import CodingError
from streamproxy.filters.fault import Struck
from streamproxy.flow import CLIENT_GONE, FAILED, FORWARDED, MALFORMED, ORIGIN_GONE, REFUSED, TIMED_OUT
from streamproxy.proxy import answers, heads
from streamproxy.proxy.faults import ON_FAULT, Action, Request, Response
from streamproxy.proxy.link import OriginLink
from streamproxy.proxy.reply import OwnReply
from streamproxy.proxy.stalls import Culprit, Upload, culprit, still_since
from streamproxy.rules.verdict import Answer
from streamproxy.stream.body import BodyPath, BodyTooLarge, NoRoom
from streamproxy.stream.pump import Pump
from streamproxy.stream.valve import Valve
from streamproxy.wire.headers import NO_HEADERS, Headers
from streamproxy.wire.message import NO_BODY, BodyEvent, End, RequestHead

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer

# A head is kept as it came, as it goes on, and as lines and names of their own.
HEAD_COPIES = 4
NOT_A_REQUEST = RequestHead(b"-", b"-", (1, 0), NO_HEADERS, NO_BODY)
log = Logger()


class Ends:
    """What an exchange knows of itself, and its ends. `NOT_A_REQUEST` is the head of one that can only `fail`."""

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer, head: RequestHead) -> None:
        self._connection = connection
        self.memory = connection.memory
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
        # It ends by a reset, whatever else would do.
        self._reset = False
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
        # What the heads come to, as far as they were counted.
        self._heads = 0
        self._count_head(head.headers)
        self._sent_before = connection.sink.sent
        self._progress = self._seconds()
        self._upload = Upload(self._progress, connection.received)
        self.flow = connection.new_flow(head.method.decode("ascii"), head.target.decode("ascii"))
        connection.deadline.set(self._settings.timeouts.idle, self._idle)

    def _count_head(self, headers: Headers) -> None:
        """Count a head for as long as this lasts; it has a bound of its own."""
        size = 0
        for line in headers.written:
            size += len(line)
        self._heads += HEAD_COPIES * size
        self.memory.add(HEAD_COPIES * size)

    def _forget_heads(self) -> None:
        self.memory.give_back(self._heads)
        self._heads = 0

    # The two pumps

    def _goes_on(self) -> None:
        """The client is told to go on with its body."""
        self._continued = True
        self._upload = Upload(self._seconds(), self._connection.received)

    def _make_request_pump(self, valve: Valve | None) -> Pump:
        self._request_flushed = False
        if self._request_pump is not None:
            self._request_pump.abandon()
        # What came before is no measure of its client: a hook or a look-up may have taken its time.
        self._upload = Upload(self._seconds(), self._connection.received)
        pump = Pump(valve, self._settings.write_size, self._seconds, self._request_was_flushed)
        pump.broken = self._request_broke
        pump.later = self._proxy.later
        pump.memory = self.memory
        return pump

    def _make_response_pump(self, valve: Valve | None) -> Pump:
        if self._response_pump is not None:
            self._response_pump.abandon()
        self._response_pump = pump = Pump(valve, self._settings.write_size, self._seconds, self._response_was_flushed)
        pump.broken = self._response_broke
        pump.later = self._proxy.later
        pump.memory = self.memory
        pump.attach(self._connection.sink)
        return pump

    def _request_was_flushed(self) -> None:
        self._request_flushed = True
        self._settle()

    def _response_was_flushed(self) -> None:
        self._response_flushed = True
        self._settle()

    # What a rule or a script makes go wrong. These are called where the exception is handled.

    def _request_broke(self) -> None:
        self._broke("request", MALFORMED, 400, 413)

    def _response_broke(self) -> None:
        if self._deaf:
            # It is being cut, behind what had come; that ends here then.
            if not self._over:
                self._cut_now()
            return
        if self._response is Response.RECEIVED and not self._response_flushed:
            # All of it has come; but not all of it will go.
            self._response = Response.SENDING
        self._broke("response", ORIGIN_GONE, 502, 502)

    def _broke(self, message: str, malformed: str, fault: int, too_large: int) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, BodyTooLarge):
            self.fail(REFUSED, f"the {message}'s body {error}", too_large)
        elif isinstance(error, NoRoom):
            self.fail(REFUSED, f"the {message}'s body {error}", 503)
        elif isinstance(error, Bomb):
            self.fail(REFUSED, f"the {message}'s body is refused: {error}", too_large)
        elif isinstance(error, CodingError):
            self.fail(malformed, f"the {message}'s body is malformed: {error}", fault)
        elif isinstance(error, Struck):
            self._reset = error.reset
            self.fail(FAILED, str(error))
        elif isinstance(error, FilterError):
            self.fail(FAILED, str(error))
        else:
            log.failure("exchange {id}: a rule failed on a body", id=self.flow.id)
            self.fail(FAILED, "a rule failed on a body")

    # The proxy's own responses

    def turn_away(self, events: list[BodyEvent], answer: Answer, outcome: str, why: str) -> None:
        """Answer a request that isn't looked at; `events` are what was read behind its head."""
        if events and type(events[-1]) is End:
            self._request = Request.RECEIVED
        # Behind a CONNECT may come what was meant for its tunnel (RFC 9931).
        self._close = self._close or self._head.method == b"CONNECT"
        self.flow.error = why
        self._answer(answer, outcome)

    def _answer(self, answer: Answer, outcome: str) -> None:
        """Respond without the origin."""
        self.flow.outcome = outcome
        self._deaf = True
        self._close = self._close or self._request is Request.RECEIVING or self._layer.last
        pump = self._response_pump if self._response_pump is not None else self._make_response_pump(None)
        pump.waited()
        pump.give_up_valve()
        prepared = answers.prepare(answer, self._head.method, self._close, self._seconds())
        self.flow.status = prepared.status
        self.flow.first_byte = self._seconds() - self.flow.started
        self._response = Response.SENDING
        self._forget_response()
        # What it waits for concerns the response that won't go.
        pump.waited()
        self._reply = OwnReply(prepared, pump, self._proxy.clock, self._moved, self._reply_ended)
        self.flow.response = self._reply.record
        self._reply.start()

    def _forget_response(self) -> None:
        path, self._response_path = self._response_path, None
        if path is not None:
            path.abandon("it was answered otherwise")
            self.flow.response.end_capture()

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

    def client_gone(self) -> None:
        """The client's connection is lost."""
        if self._over:
            return
        whole = self._response_flushed and (self._deaf or self._request_is_through)
        if not whole and not self.flow.error:
            self.flow.outcome = CLIENT_GONE
        self._over_and_out()

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
        path = self._response_path
        if self._response is Response.RECEIVED and path is not None and not path.begun:
            # All of it has come, but nothing has gone.
            self._response = Response.AWAITED
        action = ON_FAULT[self._request, self._response]
        self._deaf = True
        if action is not Action.NOTHING and not (action is Action.CLOSE and outcome == ORIGIN_GONE):
            self.flow.outcome, self.flow.error = outcome, why
        self._drop_link()
        if self._over:
            # A source that was resumed by that had its end waiting.
            return
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
        if self._response_path is not None:
            self._response_path.keep_back()
        pump.flushed = self._cut_now
        pump.give_up_waiting()
        pump.finish()

    def _cut_now(self) -> None:
        if self._over:
            return
        # Where only the connection's end tells the body's, an orderly end would be a lie.
        reset = self._close_framed or self._reset
        self._over_and_out(ending=self._connection.abort if reset else self._connection.close)

    def _idle(self) -> None:
        """See whether something has stood still for too long."""
        to_origin, to_client = self._request_pump, self._response_pump
        due = still_since(self._progress, to_origin, to_client) + self._settings.timeouts.idle
        if due > self._seconds():
            if self._uploads_too_slowly():
                self.fail(TIMED_OUT, "the client sent too slowly", 408)
            if not self._over:
                self._connection.deadline.set(due - self._seconds(), self._idle)
            return
        who = culprit(self._request, self._response, to_origin, to_client)
        if self._deaf or who is Culprit.CLIENT_READS:
            # It doesn't take what there is for it: no use in telling it anything.
            if not self.flow.error:
                self.flow.outcome, self.flow.error = TIMED_OUT, Culprit.CLIENT_READS.value
            self._over_and_out(ending=self._connection.abort)
            return
        waits_for = self._waits_for
        path = self._response_path
        begun = path is not None and path.begun and not self._response_flushed
        if waits_for is not None and begun and self._response is Response.RECEIVED:
            # All of it has come; but not all of it will go.
            self._response = Response.SENDING
        why = who.value if waits_for is None else f"{waits_for} took too long"
        self.fail(TIMED_OUT, why, 408 if waits_for is None and who is Culprit.CLIENT_SENDS else 504)
        if not self._over:
            self._progress = self._seconds()
            self._connection.deadline.set(self._settings.timeouts.idle, self._idle)

    def _uploads_too_slowly(self) -> bool:
        """Whether a body comes so slowly that its client is only keeping the proxy busy; never where it is answered by
        now, for the two may be a conversation."""
        if self._deaf or self._request is Request.RECEIVED or self._response is not Response.AWAITED:
            return False
        least, idle = self._settings.limits.upload_rate, self._settings.timeouts.idle
        received, pump = self._connection.received, self._request_pump
        return self._upload.is_slower(least, idle, self._seconds(), received, pump)

    @property
    def _waits_for(self) -> str | None:
        """What of a script or a rule keeps a message waiting."""
        for pump in (self._request_pump, self._response_pump):
            if pump is not None and pump.waits_for is not None:
                return pump.waits_for
        return None

    def _drop_link(self) -> None:
        """The origin is of no use any more, nor is what waits to be sent to it."""
        if self._request_pump is not None:
            self._request_pump.abandon()
        if self._request_path is not None:
            # Behind the pump: what a filter waited for is over with this, and nothing more may come of it.
            self._request_path.abandon(self.flow.error or self.flow.outcome)
        if self._response_pump is not None:
            self._response_pump.give_up_valve()
        if self._link is not None:
            self._link.drop(self._request_is_through or self._reset)

    def _over_and_out(self, keep: bool = False, ending: Callable[[], None] | None = None) -> None:
        """Record the flow and give the connection back: to be kept, or ended as the layer does, or by `ending`."""
        self._over = self._deaf = True
        self._forget_heads()
        flow = self.flow
        flow.outcome = flow.outcome or FORWARDED
        self._drop_link()
        if self._reply is not None:
            self._reply.stop()
        if self._response_pump is not None:
            self._response_pump.abandon()
        for path, record in ((self._request_path, flow.request), (self._response_path, flow.response)):
            if path is not None:
                record.went(path.received, path.let_go)
                path.abandon(flow.error or flow.outcome)
        flow.client_in = self._layer.unaccounted
        flow.client_out = self._connection.sink.sent - self._sent_before
        flow.duration = self._seconds() - flow.started
        self._ended()
        self._proxy.journal.record(flow)
        # These and this refer to each other; without that, what is over is freed at once.
        self._link = self._reply = self._request_path = self._response_path = None
        self._request_pump = self._response_pump = None
        if ending is not None:
            ending()
        self._layer.exchange_over(keep)

    def _ended(self) -> None:
        """It is over, and will be recorded."""
