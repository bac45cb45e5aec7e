"""Rewrites server-sent events: named by `events: scripts/rewrite_events.py:on_event` in a rule.

What the function gives decides what becomes of an event: None lets it go on, with what was changed in it; False drops
it; a list of events goes on in its place.
"""

import json

from streamproxy.filters.events import Event


def on_event(event):
    if event.event == "debug":
        return False
    if event.event == "price":
        price = event.json()
        price["currency"] = "EUR"
        event.data = json.dumps(price)
    if event.data == "[DONE]":
        return [Event("seen by streamproxy", event="notice"), event]
    return None
