"""Counts what goes on the log, so that what moves an exchange need know nothing of that."""

from __future__ import annotations

from streamproxy.counts import Counts
from streamproxy.flow import Flow
from streamproxy.journal import Journal


class Tally:
    """Takes finished flows, counts them in `counts` and hands them on to `journal`."""

    def __init__(self, counts: Counts, journal: Journal) -> None:
        self._counts = counts
        self._journal = journal

    def record(self, flow: Flow) -> None:
        """A flow is over."""
        counts, websocket = self._counts, flow.websocket
        if websocket is None:
            counts.exchange(flow.outcome, flow.status, flow.method, flow.duration, flow.first_byte)
        else:
            counts.exchange(flow.outcome, flow.status, flow.method, None, flow.first_byte)
            counts.websocket(websocket.from_client.messages, websocket.from_origin.messages, flow.duration)
        self._journal.record(flow)
