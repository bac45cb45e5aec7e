"""Writes on the log what WebSockets say: listed under `scripts:`.

The newest message is the last in `flow.websocket.messages`. Of one that streams only the first `limits.capture` bytes
are known; `size` tells how many there were.
"""

import logging

SHOWN = 200


def websocket_start(flow):
    logging.info("%s: a WebSocket", flow.request.pretty_url)


def websocket_message(flow):
    message = flow.websocket.messages[-1]
    who = "client" if message.from_client else "origin"
    kind = "text" if message.is_text else "binary"
    logging.info(
        "%s: %s says (%s, %d bytes): %r", flow.request.pretty_url, who, kind, message.size, message.content[:SHOWN]
    )


def websocket_end(flow):
    closed = flow.websocket
    logging.info("%s: closed, %s %s", flow.request.pretty_url, closed.close_code, closed.close_reason)
