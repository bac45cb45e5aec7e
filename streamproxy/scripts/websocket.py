"""What scripts import to speak of WebSockets: `from streamproxy.scripts import websocket`. Its names are mitmproxy's.

Nothing is defined here; see the module that the names come from. A flow's is `flow.websocket`.
"""

from __future__ import annotations

from streamproxy.filters.websocket import Opcode, WebSocketData, WebSocketMessage

__all__ = ["Opcode", "WebSocketData", "WebSocketMessage"]
