"""What is counted, as metrics that Prometheus reads. docs/metrics.md lists them; nothing is counted here.

No label has a value that a client, an origin or a rule's author can choose: their number doesn't grow with traffic.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streamproxy import __version__, counts
from streamproxy.counts import METHODS, OTHER, PASSING, STATUSES, Counts, Histogram, Levels, Passing

# The text format 0.0.4, which every Prometheus reads.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "streamproxy_"
SIDES = ("client", "origin")
# They are made anew when so many times as long has passed as that takes, however often they are asked for.
REST = 5
Samples = Iterable[tuple[tuple[str, ...], float]]


class Metrics(Collector):
    """All metrics of a proxy that counts in `counts`; `look` tells how things stand at the moment.

    The registry is its own, for the library's is the whole process's, scripts and all.
    """

    def __init__(self, counts: Counts, look: Callable[[], Levels], passing: Passing = PASSING) -> None:
        self._counts = counts
        self._look = look
        self._passing = passing
        self._text = b""
        self._until = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def text(self) -> bytes:
        """All of them, in the text format."""
        return generate_latest(self.registry)

    def recent_text(self) -> bytes:
        """The same, or as it was a moment ago: whoever asks again and again doesn't keep the proxy busy by it."""
        now = time.perf_counter()
        if now >= self._until:
            self._text = self.text()
            self._until = now + (time.perf_counter() - now) * REST
        return self._text

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        levels = self._look()
        yield from self._exchanges()
        yield from self._bytes()
        yield from self._clients(levels)
        yield from self._origins(levels)
        yield from self._tls(levels)
        yield from self._configuration(levels)
        yield from self._process()

    def _exchanges(self) -> Iterator[Metric]:
        counted = self._counts
        yield _counter(
            "exchanges",
            "Exchanges, tunnels and WebSockets that are over, by outcome and by the status that the client saw.",
            ("outcome", "status"),
            (
                ((outcome, status), number)
                for outcome, numbers in counted.exchanges.items()
                for status, number in zip(STATUSES, numbers, strict=True)
            ),
        )
        requests = dict(zip((*METHODS, OTHER), counted.requests, strict=True))
        yield _counter("requests", "Requests that are over, by method.", ("method",), _each(requests))
        yield _histogram(
            "exchange_duration_seconds",
            "From when a request's head has come to the end of its exchange; tunnels and WebSockets aside.",
            counted.durations,
        )
        yield _histogram(
            "tunnel_duration_seconds",
            "From a CONNECT, or an upgrade to what is no WebSocket, to the end of what it came to.",
            counted.tunnel_durations,
        )
        yield _histogram(
            "websocket_duration_seconds", "From a WebSocket's request to its end.", counted.websocket_durations
        )
        yield _histogram(
            "first_byte_seconds",
            "From when a request's head has come to the first byte of its response to the client.",
            counted.first_bytes,
        )
        yield _counter(
            "websocket_messages",
            "Messages of WebSockets that are over, by who sent them.",
            ("side",),
            (((side,), number) for side, number in zip(SIDES, counted.messages, strict=True)),
        )

    def _bytes(self) -> Iterator[Metric]:
        passing = self._passing
        yield _counter(
            "bytes",
            "Bytes read from (in) and written to (out) the sockets of either side, with all that TLS makes of them.",
            ("side", "direction"),
            (
                ((side, direction), number)
                for side, traffic in zip(SIDES, (passing.clients, passing.origins), strict=True)
                for direction, number in (("in", traffic.received), ("out", traffic.sent))
            ),
        )
        waited = passing.waited
        # What went on at once waited for no time at all.
        buckets = [waited.buckets[0] + passing.at_once, *waited.buckets[1:]]
        residence = HistogramMetricFamily(
            f"{PREFIX}residence_seconds",
            "How long what was read stood in the proxy before the last of it was written on.",
        )
        residence.add_metric([], _cumulated(waited.bounds, buckets), waited.total)
        yield residence
        paused, resumed = passing.paused, passing.resumed
        yield _counter("pauses", "How often somebody's bytes weren't read, by cause.", ("cause",), _each(paused))
        yield _gauge(
            "pauses_under_way",
            "Causes for which somebody's bytes aren't read at the moment.",
            ("cause",),
            (((cause,), number - resumed.get(cause, 0)) for cause, number in paused.items()),
        )

    def _clients(self, levels: Levels) -> Iterator[Metric]:
        counted = self._counts
        yield _gauge("client_connections", "Connections of clients that are open.", value=levels.clients)
        yield _counter("client_connections_accepted", "Connections that clients made.", value=counted.accepted)
        yield _counter(
            "client_connections_refused",
            "Connections of clients that were refused: too many (limit), or not allowed to come (access).",
            ("reason",),
            _each(counted.turned_away),
        )
        yield _counter(
            "accept_pauses",
            "How often no clients were accepted for a while, for there were no file descriptors left.",
            value=levels.accept_pauses,
        )
        yield _gauge("accept_paused", "Whether that is so now (1).", value=levels.accept_paused)
        kinds = {"exchange": levels.exchanges, "tunnel": levels.tunnels, "websocket": levels.websockets}
        yield _gauge("under_way", "What is under way.", ("kind",), _each(kinds))
        yield _gauge("held_bytes", "Bytes that are held, for all that limits.memory bounds.", value=levels.held)
        yield _gauge("held_limit_bytes", "What limits.memory says.", value=levels.held_limit)
        yield _counter("holds_refused", "What wasn't held, for limits.memory was reached.", value=levels.holds_refused)

    def _origins(self, levels: Levels) -> Iterator[Metric]:
        counted = self._counts
        yield _counter("origin_connections_made", "Connections to origins that were made.", value=counted.connected)
        yield _counter("origin_connections_reused", "Requests that went on an idle connection.", value=counted.reused)
        yield _counter(
            "origin_connections_failed",
            "Connections to origins that could not be made: no address for the name (name), refused, timed-out,"
            " denied by access.origins, or other.",
            ("reason",),
            _each(counted.connecting_failed),
        )
        yield _gauge("origin_connections_idle", "Connections kept for the next request.", value=levels.idle_origins)
        results = {"none": counted.lookups[0], "found": counted.lookups[1]}
        yield _counter("lookups", "Names looked up, by whether they have an address.", ("result",), _each(results))
        yield _gauge("lookups_under_way", "Names that are being looked up, or wait for that.", value=levels.lookups)

    def _tls(self, levels: Levels) -> Iterator[Metric]:
        counted = self._counts
        yield _counter(
            "tls_handshakes",
            "TLS handshakes with either side that are over, by result.",
            ("side", "result"),
            (
                ((side, result), number)
                for side, results in zip(SIDES, counted.handshakes, strict=True)
                for result, number in results.items()
            ),
        )
        durations = HistogramMetricFamily(
            f"{PREFIX}tls_handshake_seconds", "How long TLS handshakes took, however they ended.", labels=("side",)
        )
        for side, histogram in zip(SIDES, counted.handshake_durations, strict=True):
            durations.add_metric([side], _cumulated(histogram.bounds, histogram.buckets), histogram.total)
        yield durations
        yield _counter("certificates_minted", "Certificates made for hosts.", value=levels.certificates)
        yield _gauge("certificates_kept", "Certificates that are ready for the next client.", value=levels.leaves)
        if levels.authority_ends is not None:
            yield _gauge(
                "authority_expiry_timestamp_seconds",
                "When the CA expires, in seconds since the epoch; not there where nothing is intercepted.",
                value=levels.authority_ends,
            )

    def _configuration(self, levels: Levels) -> Iterator[Metric]:
        counted = self._counts
        results = {"failed": counted.reloads[0], "ok": counted.reloads[1]}
        yield _counter("reloads", "How often the configuration was read again.", ("result",), _each(results))
        yield _gauge(
            "reload_last_worked", "Whether it could be read (1), or the old one stays (0).", value=counted.reload_worked
        )
        yield _gauge(
            "reload_last_success_timestamp_seconds",
            "Since when the configuration is obeyed, in seconds since the epoch.",
            value=counted.reloaded_at,
        )
        yield _gauge("rules", "Rules in force.", value=levels.rules)
        yield _counter("script_errors", "Calls of scripts' functions that failed.", value=levels.scripts_failed)

    def _process(self) -> Iterator[Metric]:
        counted = self._counts
        yield _histogram("reactor_lag_seconds", "By how much the reactor was late, asked once a second.", counted.lag)
        yield _gauge("reactor_lag_last_seconds", "By how much it was late the last time.", value=counted.last_lag)
        yield _gauge("start_time_seconds", "When it started, in seconds since the epoch.", value=counted.started)
        compiled = "no" if (counts.__file__ or "").endswith(".py") else "yes"
        build = ((__version__, importlib.metadata.version("twisted"), compiled), 1.0)
        yield _gauge("build_info", "What runs here; always 1.", ("version", "twisted", "compiled"), (build,))


def _each(numbers: Mapping[str, float]) -> Samples:
    return (((label,), number) for label, number in numbers.items())


def _counter(
    name: str, words: str, labels: tuple[str, ...] = (), samples: Samples = (), value: float | None = None
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=labels)
    for label_values, number in samples if value is None else (((), value),):
        family.add_metric(label_values, number)
    return family


def _gauge(
    name: str, words: str, labels: tuple[str, ...] = (), samples: Samples = (), value: float | None = None
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, words, labels=labels)
    for label_values, number in samples if value is None else (((), value),):
        family.add_metric(label_values, number)
    return family


def _histogram(name: str, words: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, words)
    family.add_metric([], _cumulated(histogram.bounds, histogram.buckets), histogram.total)
    return family


def _cumulated(bounds: Iterable[float], buckets: Iterable[int]) -> list[tuple[str, float]]:
    """What was up to each bound, and in all, as the text format has it."""
    so_far = 0
    cumulated = []
    for bound, number in zip((*bounds, math.inf), buckets, strict=True):
        so_far += number
        cumulated.append(("+Inf" if bound == math.inf else repr(bound), float(so_far)))
    return cumulated
