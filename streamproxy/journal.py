"""One line for each exchange, for programs or for people; and the journal that gathers them.

For programs a line is a JSON object. It has no header field's value in it at all, so no Authorization or Cookie; and of
a URL's parameters, the values of those that are named like a secret are left out, and so is a user's name and password.
Of a WebSocket it has counts, and no payload. What a client may write as long as it likes is cut. For people it has the
same in short, and nothing that a terminal would obey. Where lines are written to is told in `logs`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import unquote

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from streamproxy.filters.tap import Recorded
from streamproxy.filters.websocket import Counted, WebSocketData
from streamproxy.flow import BodyRecord, Flow

# Names of parameters, in lower case, whose values are secrets: what they have in them, their words, themselves.
_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|passcode|signature|credential|api[_-]?key|access[_-]?key|private[_-]?key|sess(?:ion)?_?id"
    r"|(?<![a-z0-9])(?:auth|authorization|key|sig|pwd|pass|sid|jwt|otp|assertion)(?![a-z0-9])"
    r"|\A(?:code|session)\Z"
)
# What stands between parameters, and behind their names, in an URL that is a parameter itself: escaped once or more.
_ESCAPED_SEPARATOR = r"%(?:25)*+(?:2[36]|3[BbFf])"
_ESCAPED_EQUALS = r"%(?:25)*+3[Dd]"


def _up_to(separators: str) -> re.Pattern[str]:
    """A pattern of text (group 1) up to an equals sign (group 2) or a separator (group 3), or the end.

    It matches at any place, so that nothing is looked at again from another: a long text takes no more than its time.
    """
    plain = rf"[^=%{separators}]*+"
    text = rf"{plain}(?:(?!{_ESCAPED_SEPARATOR}|{_ESCAPED_EQUALS})%{plain})*+"
    return re.compile(rf"({text})(?:(=|{_ESCAPED_EQUALS})|([{separators}]|{_ESCAPED_SEPARATOR}|\Z))")


_IN_QUERY, _AFTER_QUERY_VALUE = _up_to("&;?#"), re.compile(r"[&;]")
_IN_PATH, _AFTER_PATH_VALUE = _up_to("&;?#/"), re.compile(r"[&;/]")
_USER = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.\-]*+:)?+//|)[^/?#]*@")
# A name with escapes in it that is longer isn't decoded, but taken for a secret's.
LONGEST_NAME = 100
LONGEST_METHOD = 64
LONGEST_URL = 2048
# What a close frame has room for, in bytes of UTF-8 (RFC 6455 section 5.5).
LONGEST_REASON = 123
_text = json.encoder.encode_basestring_ascii


def without_secrets(url: str) -> str:
    """`url` as it may be shown: the values of its secret-looking parameters, and what stands before an @, put as ***.

    The parameters of URLs within it count, too. What is longer than `LONGEST_URL` is cut, after that.
    """
    if "?" in url or ";" in url or "@" in url or "%" in url:
        path, mark, query = url.partition("?")
        if "@" in path:
            path = _USER.sub(r"\1***@", path)
        if "=" in path or "3D" in path or "3d" in path:
            path = _masked(path, _IN_PATH, _AFTER_PATH_VALUE, False)
        if query and len(path) <= LONGEST_URL:
            query = _masked(query, _IN_QUERY, _AFTER_QUERY_VALUE, True)
        url = path + mark + query
    return _cut(url, LONGEST_URL)


def _masked(text: str, up_to: re.Pattern[str], after_value: re.Pattern[str], is_parameter: bool) -> str:
    """`text` with secrets put as ***, as far as it will be shown: what is certain to be cut isn't looked at.

    `is_parameter`: what `text` begins with may be the name of a parameter.
    """
    shown: list[str] = []
    begin = at = hidden = 0
    size = len(text)
    while at < size and at - hidden <= LONGEST_URL:
        found = up_to.match(text, at)
        assert found is not None, "it matches at any place"
        at = found.end()
        name, equals, separator = found.groups()
        if equals is None:
            is_parameter = separator != "/"
        elif is_parameter and _is_secret(name):
            after = after_value.search(text, at)
            end = after.start() if after else size
            shown += (text[begin:at], "***")
            hidden += end - at - 3
            begin = at = end
    shown.append(text[begin:at])
    return "".join(shown)


def _is_secret(name: str) -> bool:
    if "%" in name:
        if len(name) > LONGEST_NAME:
            return True
        name = unquote(name)
    return _SECRET_NAME.search(name.lower()) is not None


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + "..."


def log_line(flow: Flow) -> str:
    """The log line of a finished exchange: one JSON object, without a line end.

    Durations are in milliseconds.
    """
    # Put together by hand, for it is done for every exchange: json.dumps of a dict takes three times as long.
    rules = ", ".join([_text(name) for name in flow.rules])
    text = (
        f'{{"time": "{timestamp(flow.started)}", "id": "{flow.id}", "client": "{flow.client}", '
        f"{'' if flow.user is None else _user(flow.user)}"
        f'"method": {_text(_cut(flow.method, LONGEST_METHOD))}, "url": {_text(without_secrets(flow.url))}, '
        f'"status": {"null" if flow.status is None else flow.status}, "outcome": "{flow.outcome}", '
        f'"rules": [{rules}], "request": {_body(flow.request)}, "response": {_body(flow.response)}, '
        f"{'' if flow.websocket is None else _websocket(flow.websocket)}"
        f'"bytes": {{"client_in": {flow.client_in}, "client_out": {flow.client_out}, '
        f'"origin_in": {flow.origin_in}, "origin_out": {flow.origin_out}}}, '
        f'"first_byte_ms": {_milliseconds(flow.first_byte)}, "duration_ms": {_milliseconds(flow.duration)}'
    )
    return f'{text}, "error": {_text(flow.error)}}}' if flow.error else text + "}"


def _user(name: str) -> str:
    return f'"user": {_text(name)}, '


def _body(record: BodyRecord) -> str:
    why = f', "why": {_text(record.why)}' if record.why else ""
    recorded = ""
    if record.recorded is not None:
        received, sent = record.recorded
        recorded = f', "received": {_recorded(received)}, "sent": {_recorded(sent)}'
    return f'{{"how": "{record.how}"{why}, "size": {record.size}{recorded}}}'


def _websocket(websocket: WebSocketData) -> str:
    """How a WebSocket went: how much each side sent, and how it closed; never a payload."""
    mode = "streamed" if websocket.streamed else "messages"
    return (
        f'"websocket": {{"mode": "{mode}", "client": {_counted(websocket.from_client)}, '
        f'"origin": {_counted(websocket.from_origin)}, "close": {_close(websocket)}}}, '
    )


def _counted(side: Counted) -> str:
    return (
        f'{{"messages": {side.messages}, "bytes": {side.bytes}, "pings": {side.pings}, "pongs": {side.pongs}, '
        f'"dropped": {side.dropped}, "injected": {side.injected}}}'
    )


def _close(websocket: WebSocketData) -> str:
    """How it closed: null if nobody told; it was the proxy if it was neither side."""
    code, by_client = websocket.close_code, websocket.closed_by_client
    if code is None and by_client is None:
        return "null"
    by = "proxy" if by_client is None else "client" if by_client else "origin"
    reason = (websocket.close_reason or "").encode(errors="backslashreplace")[:LONGEST_REASON].decode(errors="ignore")
    return f'{{"code": {"null" if code is None else code}, "reason": {_text(reason)}, "by": "{by}"}}'


def _recorded(body: Recorded) -> str:
    """What was captured of a body; never its bytes."""
    path = "" if body.path is None or not body.kept else f', "file": {_text(body.path)}'
    return (
        f'{{"size": {body.size}, "sha256": "{body.sha256}", "kept": {body.kept}, '
        f'"cut": {"true" if body.cut else "false"}{path}}}'
    )


def text_line(flow: Flow) -> str:
    """The line of a finished exchange for people, without a line end. Whoever is on the wire can't forge one by it."""
    request, response = flow.request, flow.response
    line = (
        f"{timestamp(flow.started)} {flow.client} {_word(_cut(flow.method, LONGEST_METHOD))} "
        f"{_word(without_secrets(flow.url))} {'-' if flow.status is None else flow.status} {flow.outcome} "
        f"{'-' if flow.duration is None else _milliseconds(flow.duration)}ms "
        f"request={_went(request)} response={_went(response)}"
    )
    if flow.user is not None:
        line += f" user={_word(flow.user)}"
    if flow.rules:
        line += f" rules=[{', '.join(flow.rules)}]"
    websocket = flow.websocket
    if websocket is not None:
        sent, received = websocket.from_client, websocket.from_origin
        code = "-" if websocket.close_code is None else str(websocket.close_code)
        line += (
            f" websocket={'streamed' if websocket.streamed else 'messages'}"
            f" sent={sent.messages}/{sent.bytes} received={received.messages}/{received.bytes} close={code}"
        )
    if flow.error:
        line += f" error={flow.error}"
    return printable(line)


def _went(body: BodyRecord) -> str:
    return f"{body.how.replace(' ', '-')}/{body.size}"


def _word(text: str) -> str:
    return text.replace(" ", "\\x20")


def printable(text: str, kept: str = "") -> str:
    """`text` without line ends and other characters that aren't printed, those in `kept` aside: as escapes."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char in kept else _escape(char) for char in text])


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# Digits at hand, for formatting numbers with leading zeros takes longer than all else of a line.
_TWO_DIGITS = [f"{number:02d}" for number in range(100)]
_THREE_DIGITS = [f"{number:03d}" for number in range(1000)]


def _milliseconds(seconds: float | None) -> str:
    """`seconds` in milliseconds, to two places."""
    if seconds is None:
        return "null"
    hundredths = int(seconds * 100000 + 0.5)
    if hundredths < 0:
        return f"{seconds * 1000:.2f}"
    return f"{hundredths // 100}.{_TWO_DIGITS[hundredths % 100]}"


_second = -1
_second_text = ""


def timestamp(seconds: float) -> str:
    """`seconds` since the epoch as RFC 3339 in UTC, to the millisecond."""
    global _second, _second_text
    whole = int(seconds)
    if whole != _second:
        _second = whole
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_second_text}.{_THREE_DIGITS[int((seconds - whole) * 1000)]}Z"


class Journal:
    """Collects the lines of finished flows and hands them to `write` together.

    `write` gets whole lines, each with its line end. They wait for `DELAY` seconds at the most, or until `MOST` of
    them are there: one write for each exchange would cost more than the exchange's line.
    """

    DELAY: ClassVar[float] = 0.1
    MOST: ClassVar[int] = 256

    def __init__(
        self, write: Callable[[str], None], clock: IReactorTime, worded: Callable[[Flow], str] = log_line
    ) -> None:
        self._write = write
        self._clock = clock
        self._worded = worded
        self._lines: list[str] = []
        self._call: IDelayedCall | None = None

    def record(self, flow: Flow) -> None:
        """Put a finished `flow` on the log."""
        self._lines.append(self._worded(flow))
        if len(self._lines) >= self.MOST:
            self.flush()
        elif self._call is None:
            self._call = self._clock.callLater(self.DELAY, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        lines, self._lines = self._lines, []
        if lines:
            self._write("\n".join(lines) + "\n")
