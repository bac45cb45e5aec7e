"""One structured line for each exchange, on the log.

A line is a JSON object. It has no header field's value in it at all, so no Authorization or Cookie; and of a URL's
query, the values of parameters that are named like a secret are left out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from streamproxy.flow import BodyRecord, Flow

_SECRET_PARAMETER = re.compile(
    r"([?&;](?:[\w.\-]*(?:token|secret|passw(?:or)?d|api[_-]?key|signature|credential)[\w.\-]*"
    r"|auth|authorization|key|sig|code|pwd|sid|session(?:_?id)?|jwt|assertion)=)[^&;]*",
    re.IGNORECASE,
)
_text = json.encoder.encode_basestring_ascii


def without_secrets(url: str) -> str:
    """`url` with the values of its secret-looking query parameters put as ***."""
    if "?" not in url:
        return url
    return _SECRET_PARAMETER.sub(r"\1***", url)


def line(flow: Flow) -> str:
    """The log line of a finished exchange: one JSON object, without a line end.

    Durations are in milliseconds.
    """
    # Put together by hand, for it is done for every exchange: json.dumps of a dict takes three times as long.
    rules = ", ".join([_text(name) for name in flow.rules])
    text = (
        f'{{"time": "{_timestamp(flow.started)}", "id": "{flow.id}", "client": "{flow.client}", '
        f'"method": {_text(flow.method)}, "url": {_text(without_secrets(flow.url))}, '
        f'"status": {"null" if flow.status is None else flow.status}, "outcome": "{flow.outcome}", '
        f'"rules": [{rules}], "request": {_body(flow.request)}, "response": {_body(flow.response)}, '
        f'"bytes": {{"client_in": {flow.client_in}, "client_out": {flow.client_out}, '
        f'"origin_in": {flow.origin_in}, "origin_out": {flow.origin_out}}}, '
        f'"first_byte_ms": {_milliseconds(flow.first_byte)}, "duration_ms": {_milliseconds(flow.duration)}'
    )
    return f'{text}, "error": {_text(flow.error)}}}' if flow.error else text + "}"


def _body(record: BodyRecord) -> str:
    if not record.why:
        return f'{{"how": "{record.how}", "size": {record.size}}}'
    return f'{{"how": "{record.how}", "why": {_text(record.why)}, "size": {record.size}}}'


def _milliseconds(seconds: float | None) -> str:
    return "null" if seconds is None else f"{seconds * 1000:.2f}"


_second = -1
_second_text = ""


def _timestamp(seconds: float) -> str:
    """`seconds` since the epoch as RFC 3339 in UTC, to the millisecond."""
    global _second, _second_text
    whole = int(seconds)
    if whole != _second:
        _second = whole
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_second_text}.{int((seconds - whole) * 1000):03d}Z"


class Journal:
    """Writes the lines: each finished flow goes to `write` as one line of text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def record(self, flow: Flow) -> None:
        """Put a finished `flow` on the log."""
        self._write(line(flow))
