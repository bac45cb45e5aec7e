"""Puts bar for foo in every response that is text, as it streams: listed under `scripts:`.

The function is a generator over the pieces of a body, as they come. What may be the beginning of a foo is kept until
the next piece tells, and nothing else. A function of bytes, an async generator, or a class with feed and finish does as
well.
"""


def modify(chunks):
    kept = b""
    for chunk in chunks:
        data = (kept + chunk).replace(b"foo", b"bar")
        kept = next((part for part in (b"fo", b"f") if data.endswith(part)), b"")
        yield data[: len(data) - len(kept)]
    yield kept


def responseheaders(flow):
    if flow.response.headers.get("content-type", "").startswith("text/"):
        flow.response.stream = modify
