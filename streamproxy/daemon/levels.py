"""How things stand when somebody asks for metrics: what is under way, held and kept. Nothing is counted here."""

from __future__ import annotations

from streamproxy.counts import Levels
from streamproxy.daemon.descriptors import Descriptors
from streamproxy.proxy.http1 import Http1Layer
from streamproxy.proxy.proxy import Proxy
from streamproxy.proxy.tunnel import Tunnel
from streamproxy.proxy.websocket import WebSocketRelay


def levels(proxy: Proxy, descriptors: Descriptors) -> Levels:
    """How it is with `proxy`."""
    exchanges = tunnels = websockets = 0
    for connection in proxy.connections:
        layer = connection.innermost_layer
        if isinstance(layer, WebSocketRelay):
            websockets += 1
        elif isinstance(layer, Tunnel):
            tunnels += 1
        elif isinstance(layer, Http1Layer) and layer.unfinished:
            exchanges += 1
    authority = None if proxy.tls is None else proxy.tls.authority
    return Levels(
        clients=len(proxy.connections),
        exchanges=exchanges,
        tunnels=tunnels,
        websockets=websockets,
        idle_origins=len(proxy.pool),
        lookups=len(proxy.pool.lookups),
        accept_pauses=descriptors.pauses,
        accept_paused=descriptors.paused,
        held=proxy.memory.held,
        held_limit=proxy.memory.limit,
        holds_refused=proxy.memory.refused,
        certificates=0 if authority is None else authority.minted,
        leaves=0 if authority is None else authority.kept,
        authority_ends=None if authority is None else authority.ends,
        rules=len(proxy.settings.rules.rules),
        scripts_failed=proxy.calls.failures,
    )
