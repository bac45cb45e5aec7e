"""Counts the tokens of streamed model answers: named by `events: scripts/count_tokens.py:on_event` in a rule.

Each delta that brings text counts as a token, unless the stream says itself how many there were (`usage`). Nothing is
changed: the function gives None, so the events go on as they came.
"""

import logging


def on_event(event, flow):
    if event.data == "[DONE]":
        logging.info("%s: %d tokens", flow.request.pretty_url, flow.metadata.get("tokens", 0))
        return
    try:
        answer = event.json()
    except ValueError:
        return
    if not isinstance(answer, dict):
        return
    usage = answer.get("usage")
    if usage:
        flow.metadata["tokens"] = usage.get("completion_tokens", 0)
    elif any(choice.get("delta", {}).get("content") for choice in answer.get("choices", ())):
        flow.metadata["tokens"] = flow.metadata.get("tokens", 0) + 1
