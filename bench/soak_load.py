"""The clients of the soak, a process of its own: `python -m bench.soak_load PROXY PLAIN TLS PASSED REFUSING PROXY_CA
ORIGIN_CA CONNECTIONS SECONDS SEED`. Ports first, then the PEM files of who vouches for the proxy and for the origin.

So many clients at a time, each doing one thing after another as chance has it (`soak_kinds.py`), the same for the same
seed. When the time is over they end what they are at. The last line is what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from pathlib import Path

from bench.connection import WrongAnswer
from bench.parts import want_files
from bench.secure import trusting
from bench.soak_client import Client, Ports
from bench.soak_kinds import KINDS
from bench.soak_stream import WAIT

# What is told of what went wrong, at the most.
MOST_TOLD = 20


class Tally:
    """What the clients have done so far."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        self.failures: list[str] = []
        self.exchanges = 0
        self.longest_small = 0.0

    def take(self, client: Client) -> None:
        self.exchanges += client.exchanges
        for outcome, number in client.counts.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + number


async def use(client: Client, until: float, tally: Tally) -> None:
    """Do one thing after another until `until`."""
    kinds, weights = list(KINDS), list(KINDS.values())
    while time.monotonic() < until:
        (kind,) = client.pick.choices(kinds, weights)
        name = kind.__name__
        began = time.monotonic()
        try:
            await asyncio.wait_for(kind(client), WAIT)
        except (WrongAnswer, OSError, ssl.SSLError, TimeoutError, ValueError) as error:
            client.forget()
            tally.failures.append(f"{name}: {type(error).__name__}: {error}")
        if name == "small":
            tally.longest_small = max(tally.longest_small, time.monotonic() - began)
        tally.done[name] = tally.done.get(name, 0) + 1
    client.forget()
    tally.take(client)


async def main() -> None:
    want_files(65536)
    *ports, proxy_ca, origin_ca, connections, seconds, seed = sys.argv[1:]
    told = Ports(*map(int, ports))
    context, straight = trusting(Path(proxy_ca)), trusting(Path(origin_ca))
    tally = Tally()
    clients = [
        Client(told, context, straight, random.Random(int(seed) * 100_000 + number))
        for number in range(int(connections))
    ]
    until = time.monotonic() + float(seconds)
    await asyncio.gather(*(use(client, until, tally) for client in clients))
    tally.failures, failed = tally.failures[:MOST_TOLD], len(tally.failures)
    print(json.dumps({**vars(tally), "failed": failed}))


if __name__ == "__main__":
    asyncio.run(main())
