"""Who may use the proxy: clients by where they come from, and users by name and password.

A connection is looked at when it is there (`access.allow`), and a request outside of a tunnel when its head is
(`access.htpasswd`: RFC 9110 section 11.7, RFC 7617); those in a tunnel belong to its CONNECT. That comes before
anything else: no rule, script, look-up or origin knows of a request that is turned away. Whether a password is right is
for `passwords` to say; while it finds out, the client isn't read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure

from streamproxy.counts import NOT_ALLOWED
from streamproxy.flow import CLIENT_GONE, FAILED, REFUSED, TIMED_OUT
from streamproxy.proxy import answers
from streamproxy.proxy.passwords import Credentials, Passwords
from streamproxy.rules.verdict import Answer
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import BodyEvent, RequestHead

if TYPE_CHECKING:
    from streamproxy.proxy.downstream import DownstreamProtocol
    from streamproxy.proxy.http1 import Http1Layer

FIELD = b"proxy-authorization"
# Far more than anybody's name and password come to.
LONGEST = 4096
_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)
# What neither a name nor a password may have in it (RFC 7617 section 2).
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")
MISSING = "this proxy asks for a user name and a password"
UNREADABLE = "expected one Proxy-Authorization field: Basic, with a user name and a password in UTF-8"
WRONG = "the user name or the password is wrong"
TOO_MANY = "too many passwords are being checked; try again soon"
TOO_SLOW = "checking the password took too long"
# The reason by which a client isn't read meanwhile.
CHECKING = "password"


def meet(connection: DownstreamProtocol, layer: Http1Layer) -> None:
    """See who the client is that has connected; one that may not come from there is told so by `layer`."""
    peer = connection.transport.getPeer()
    host = getattr(peer, "host", None)
    connection.client = "-" if host is None else f"{host}:{peer.port}"
    if isinstance(peer, IPv4Address | IPv6Address):
        connection.take_share(peer.host)
    if not _is_admitted(connection):
        proxy = connection.proxy
        proxy.counts.turned_away[NOT_ALLOWED] += 1
        layer.refuse_client()
        if len(proxy.connections) * 2 > proxy.settings.limits.connections:
            # Words take time to be read, and those who may come need the room.
            connection.abort()


def meet_again(connection: DownstreamProtocol) -> None:
    """The settings have changed: a client that isn't admitted any more begins nothing new."""
    # Of one that hasn't been introduced it isn't known yet.
    if not isinstance(connection.innermost_layer, Introduction):
        connection.dismiss(not _is_admitted(connection))


def _is_admitted(connection: DownstreamProtocol) -> bool:
    allow, transport = connection.proxy.settings.access.allow, connection.transport
    peer = transport.getPeer()
    if isinstance(peer, IPv4Address | IPv6Address):
        try:
            return allow.admit(peer.host)
        except ValueError:
            # What a balancer says needn't be an address.
            return False
    # A client without an address came by a unix socket, whose permissions say who may; or to a balancer, by one of its.
    own = getattr(transport, "transport", None) if IProtocol.providedBy(transport) else transport
    return not allow or isinstance(own.getHost(), UNIXAddress)


def credentials_of(headers: Headers) -> Credentials | str:
    """The name and password in a request's fields, or in words what is wrong with them."""
    value = headers.get(FIELD)
    if value is None:
        return MISSING
    if headers.count(FIELD) > 1 or len(value) > LONGEST:
        return UNREADABLE
    basic = _BASIC.fullmatch(value)
    if basic is None:
        return UNREADABLE
    try:
        text = binascii.a2b_base64(basic[1], strict_mode=True)
        user, colon, password = text.partition(b":")
        name = user.decode()
        password.decode()
    except (binascii.Error, UnicodeDecodeError):
        return UNREADABLE
    if not colon or _CONTROL.search(text):
        return UNREADABLE
    return Credentials(name, password)


def admit(
    connection: DownstreamProtocol, layer: Http1Layer, passwords: Passwords, head: RequestHead, events: list[BodyEvent]
) -> None:
    """Have `layer` begin the request of `head`, or turn it away; at once, or when its password has been checked.

    `events` are the head and what was read behind it.
    """
    connection.user = None
    credentials = credentials_of(head.headers)
    if isinstance(credentials, str):
        _turn_away(layer, head, events, credentials)
        return
    right = passwords.known(credentials)
    if right is None:
        Checking(connection, layer, head, events, credentials.user).start(passwords, credentials)
    elif right:
        _begin(connection, layer, head, events, b"", credentials.user)
    else:
        _turn_away(layer, head, events, WRONG)


def _begin(
    connection: DownstreamProtocol,
    layer: Http1Layer,
    head: RequestHead,
    events: list[BodyEvent],
    said: bytes,
    user: str,
) -> None:
    connection.user = user
    # It was for the proxy, and is nobody else's.
    layer.begin(head._replace(headers=head.headers.without((FIELD,))), events, said)


def _turn_away(layer: Http1Layer, head: RequestHead, events: list[BodyEvent], why: str) -> None:
    layer.turn_away(head, events, answers.unauthorized(why), REFUSED, why)


class Checking:
    """The layer of `connection` while the password of a request is checked; `layer` has it before and after."""

    unfinished = True

    def __init__(
        self,
        connection: DownstreamProtocol,
        layer: Http1Layer,
        head: RequestHead,
        events: list[BodyEvent],
        user: str,
    ) -> None:
        self._connection = connection
        self._layer = layer
        self._head = head
        self._events = events
        self._user = user
        self._said = b""
        self._counted = 0
        self._since = connection.proxy.clock.seconds()
        self._forget: Callable[[], None] | None = None

    def start(self, passwords: Passwords, credentials: Credentials) -> None:
        """Have it checked, unless too many wait for that."""
        connection = self._connection
        if not self._ask(passwords, credentials):
            self._layer.turn_away(self._head, self._events, answers.explain(503, TOO_MANY), REFUSED, TOO_MANY)
            return
        self._count(self._layer.unaccounted)
        self._layer.step_aside()
        connection.switch(self)
        connection.valve.close(CHECKING)
        connection.deadline.set(connection.proxy.settings.timeouts.head, self._too_slow)

    def _ask(self, passwords: Passwords, credentials: Credentials) -> bool:
        """Have it checked; False where too many wait for that."""
        address = self._connection.owner or self._connection.client.rpartition(":")[0]
        told = partial(self._told, passwords, credentials)
        self._forget = passwords.check(credentials, address, told)
        return self._forget is not None

    def _count(self, size: int) -> None:
        """So many bytes are held here."""
        self._connection.memory.add(size - self._counted)
        self._counted = size

    def _told(self, passwords: Passwords, credentials: Credentials, right: bool) -> None:
        self._forget = None
        now = self._connection.proxy.passwords
        if now is not None and now is not passwords:
            # There are other users by now.
            if not self._ask(now, credentials):
                self._end(answers.explain(503, TOO_MANY), REFUSED, TOO_MANY)
            return
        layer, head, events = self._layer, self._head, self._events
        if right:
            self._give_back(partial(_begin, self._connection, layer, head, events, self._said, self._user))
        else:
            self._give_back(partial(_turn_away, layer, head, events, WRONG))

    def _too_slow(self) -> None:
        self._end(answers.explain(503, TOO_SLOW), TIMED_OUT, TOO_SLOW)

    def _end(self, answer: Answer, outcome: str, why: str) -> None:
        self._stop()
        self._give_back(partial(self._layer.turn_away, self._head, self._events, answer, outcome, why))

    def _give_back(self, begin: Callable[[], None]) -> None:
        connection = self._connection
        connection.waited = connection.proxy.clock.seconds() - self._since
        self._count(0)
        connection.switch(self._layer)
        self._layer.take_up(begin, self._said)
        # Not before, for more may come at once.
        connection.valve.open(CHECKING)

    def _stop(self) -> None:
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()

    def data_received(self, data: bytes) -> None:
        # Over TLS the rest of a read comes though the client isn't read any more. There is no more than that.
        self._said += data
        self._count(self._counted + len(data))

    def read_ended(self) -> None:
        """The client has ended its side; it still gets what it asked for, if it may."""

    def drain(self) -> None:
        """Who has begun is served."""

    def cut(self, why: str) -> None:
        self._end(answers.explain(503, why), FAILED, why)

    def connection_lost(self, reason: Failure) -> None:
        self._stop()
        self._count(0)
        connection, head = self._connection, self._head
        proxy = connection.proxy
        connection.waited = proxy.clock.seconds() - self._since
        flow = connection.new_flow(head.method.decode("ascii"), head.target.decode("ascii"))
        flow.outcome, flow.error = CLIENT_GONE, "the client left while its password was checked"
        flow.client_in = self._layer.unaccounted - len(self._said)
        flow.duration = proxy.clock.seconds() - flow.started
        proxy.journal.record(flow)
        self._layer.connection_lost(reason)


class Introduction:
    """The layer of `connection` until a balancer in front has said whose it is (PROXY protocol); `layer` follows."""

    unfinished = False

    def __init__(self, connection: DownstreamProtocol, layer: Http1Layer) -> None:
        self._connection = connection
        self._layer = layer

    def data_received(self, data: bytes) -> None:
        # These are the client's own first bytes: what the balancer said stood before them.
        connection = self._connection
        connection.switch(self._layer)
        meet(connection, self._layer)
        if not connection.closing:
            self._layer.data_received(data)

    def read_ended(self) -> None:
        self._layer.read_ended()

    def drain(self) -> None:
        self._layer.drain()

    def cut(self, why: str) -> None:
        self._layer.cut(why)

    def connection_lost(self, reason: Failure) -> None:
        self._layer.connection_lost(reason)
