"""Redacts keys that a model's streamed answer has in several events, a few letters each.

Named by `events: scripts/redact_deltas.py:on_event` in a rule. In the bytes of such a stream there is no key: what
stands between its parts is JSON. So the text is put together here, for each choice by itself; what may be the beginning
of a key is kept back, and goes on with the next delta, or with the one that says that the choice is finished.
"""

import json
import re

KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")
MAYBE = re.compile(r"\b(?:s|sk|sk-[A-Za-z0-9_-]*)\Z")
# Of a key that is still being told: more than it takes to be one, and no more than that.
KEPT = 64


def on_event(event, flow):
    try:
        choices = event.json()
        found = [choice for choice in choices["choices"] if isinstance(choice["delta"], dict)]
    except (ValueError, KeyError, TypeError):
        return
    kept = flow.metadata.setdefault("kept", {})
    changed = False
    for choice in found:
        came = choice["delta"].get("content") or ""
        text = kept.pop(choice.get("index", 0), "") + came
        if not choice.get("finish_reason"):
            maybe = MAYBE.search(text)
            if maybe:
                kept[choice.get("index", 0)] = maybe[0][:KEPT]
                text = text[: maybe.start()]
        text = KEY.sub("sk-***", text)
        if text != came:
            choice["delta"]["content"] = text
            changed = True
    if changed:
        event.data = json.dumps(choices)
