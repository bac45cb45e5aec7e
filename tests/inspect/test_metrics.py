"""The metrics: that they are what was counted, that a Prometheus reads them, and that they are all told of."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy import __version__
from streamproxy.counts import Counts, Levels, Passing
from streamproxy.filters.tap import Budget
from streamproxy.filters.websocket import WebSocketData
from streamproxy.flow import Flow
from streamproxy.inspect.lag import INTERVAL, Lag
from streamproxy.inspect.metrics import Metrics
from streamproxy.inspect.tally import Tally
from streamproxy.journal import Journal

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
OF_THE_LIBRARY = ("process_", "python_")


class MetricsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.counts = Counts(100.0)
        self.passing = Passing()
        self.levels = Levels(authority_ends=1.0)
        self.metrics = Metrics(self.counts, lambda: self.levels, self.passing)

    def families(self) -> dict:
        """What a Prometheus reads, by name."""
        found = list(text_string_to_metric_families(self.metrics.text().decode()))
        names = [family.name for family in found]
        self.assertEqual(len(names), len(set(names)), "a name twice")
        return dict(zip(names, found, strict=True))

    def value(self, name: str, **labels: str) -> float:
        """The one value of a series."""
        families = self.families()
        samples = [each for family in families.values() for each in family.samples if each.name == name]
        found = [each.value for each in samples if each.labels == labels]
        self.assertEqual(len(found), 1, f"{name} {labels}: {[each.labels for each in samples]}")
        return found[0]


class ValueTests(MetricsCase):
    def test_what_was_counted_is_there_under_its_labels(self) -> None:
        self.counts.exchange("forwarded", 204, "GET", 0.3, 0.2)
        self.counts.exchange("client-gone", None, "BREW", 0.3, None)
        self.counts.handshake(True, "timed-out", 2.0)
        self.counts.lookup(True)
        self.counts.reload(False, 7.0)
        self.passing.origins.received = 12
        self.passing.clients.sent = 13
        for name, labels, expected in (
            ("exchanges_total", {"outcome": "forwarded", "status": "2xx"}, 1),
            ("exchanges_total", {"outcome": "forwarded", "status": "none"}, 0),
            ("exchanges_total", {"outcome": "client-gone", "status": "none"}, 1),
            ("requests_total", {"method": "GET"}, 1),
            ("requests_total", {"method": "other"}, 1),
            ("exchange_duration_seconds_count", {}, 2),
            ("exchange_duration_seconds_sum", {}, 0.6),
            ("exchange_duration_seconds_bucket", {"le": "0.25"}, 0),
            ("exchange_duration_seconds_bucket", {"le": "0.5"}, 2),
            ("first_byte_seconds_count", {}, 1),
            ("tls_handshakes_total", {"side": "origin", "result": "timed-out"}, 1),
            ("tls_handshakes_total", {"side": "client", "result": "timed-out"}, 0),
            ("tls_handshake_seconds_count", {"side": "origin"}, 1),
            ("lookups_total", {"result": "found"}, 1),
            ("reloads_total", {"result": "failed"}, 1),
            ("reload_last_worked", {}, 0),
            ("reload_last_success_timestamp_seconds", {}, 100),
            ("bytes_total", {"side": "origin", "direction": "in"}, 12),
            ("bytes_total", {"side": "client", "direction": "out"}, 13),
            ("bytes_total", {"side": "client", "direction": "in"}, 0),
        ):
            self.assertAlmostEqual(self.value(f"streamproxy_{name}", **labels), expected, 6, f"{name} {labels}")

    def test_levels_are_asked_for_at_each_scrape(self) -> None:
        for number in (3, 5):
            self.levels = Levels(
                clients=number, exchanges=1, tunnels=number, held=7 * number, leaves=number, accept_paused=True
            )
            self.assertEqual(self.value("streamproxy_client_connections"), number)
            self.assertEqual(self.value("streamproxy_under_way", kind="tunnel"), number)
            self.assertEqual(self.value("streamproxy_held_bytes"), 7 * number)
            self.assertEqual(self.value("streamproxy_certificates_kept"), number)
            self.assertEqual(self.value("streamproxy_accept_paused"), 1)

    def test_a_pause_is_under_way_until_it_is_over(self) -> None:
        self.passing.paused["sink full"] = 5
        self.passing.resumed["sink full"] = 3
        self.assertEqual(self.value("streamproxy_pauses_total", cause="sink full"), 5)
        self.assertEqual(self.value("streamproxy_pauses_under_way", cause="sink full"), 2)

    def test_what_went_on_at_once_is_in_the_first_bucket_of_residence(self) -> None:
        self.passing.at_once = 100
        self.passing.waited.observe(3.0)
        self.assertEqual(self.value("streamproxy_residence_seconds_bucket", le="0.001"), 100)
        self.assertEqual(self.value("streamproxy_residence_seconds_bucket", le="5.0"), 101)
        self.assertEqual(self.value("streamproxy_residence_seconds_count"), 101)
        self.assertEqual(self.value("streamproxy_residence_seconds_sum"), 3.0)

    def test_without_a_ca_it_has_no_end(self) -> None:
        self.assertEqual(self.value("streamproxy_authority_expiry_timestamp_seconds"), 1.0)
        self.levels = Levels()
        self.assertNotIn("streamproxy_authority_expiry_timestamp_seconds", self.families())

    def test_it_is_told_what_runs_and_what_the_process_takes(self) -> None:
        (sample,) = self.families()["streamproxy_build_info"].samples
        self.assertEqual((sample.value, sample.labels["version"]), (1.0, __version__))
        self.assertGreater(self.value("process_resident_memory_bytes"), 1 << 20)
        self.assertGreater(self.value("process_open_fds"), 2)

    def test_two_proxies_of_a_process_do_not_get_in_each_others_way(self) -> None:
        other = Metrics(Counts(1.0), Levels, Passing())
        self.assertIn(b"streamproxy_start_time_seconds 1.0", other.text())
        self.assertEqual(self.value("streamproxy_start_time_seconds"), 100.0)

    def test_the_number_of_series_does_not_grow_with_traffic(self) -> None:
        before = sum(len(family.samples) for family in self.families().values())
        for number in range(1000):
            self.counts.exchange("forwarded", number, f"METHOD{number}", number / 10, number / 10)
        after = sum(len(family.samples) for family in self.families().values())
        self.assertEqual(after, before)


class DocumentTests(MetricsCase):
    def test_the_table_names_what_there_is_with_its_type_and_labels_and_nothing_else(self) -> None:
        there = {}
        for family in self.families().values():
            if not family.name.startswith(OF_THE_LIBRARY):
                name = family.name + ("_total" if family.type == "counter" else "")
                there[name] = family.type, {label for sample in family.samples for label in sample.labels} - {"le"}
        told = {}
        for line in DOCUMENT.read_text().splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 6 and cells[1].startswith("`"):
                told[cells[1].strip("`")] = cells[2], set(re.findall(r"`([a-z]+)`", cells[3]))
        self.assertEqual(told, there)

    def test_the_words_are_those_of_the_help(self) -> None:
        document = DOCUMENT.read_text()
        for family in self.families().values():
            if not family.name.startswith(OF_THE_LIBRARY):
                self.assertIn(f"| {family.documentation} |", document)

    def test_each_metric_of_the_library_is_named(self) -> None:
        document = DOCUMENT.read_text()
        for family in self.families().values():
            if family.name.startswith(OF_THE_LIBRARY):
                self.assertIn(family.name, document)


class LagTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counts = Counts()
        self.lag = Lag(self.clock, self.counts)
        self.lag.start()

    def test_a_reactor_in_time_is_not_late(self) -> None:
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual((self.counts.lag.count, self.counts.lag.total), (3, 0.0))

    def test_one_that_was_kept_is_late_by_so_much_and_then_in_time_again(self) -> None:
        self.clock.advance(INTERVAL + 2)
        self.assertEqual((self.counts.lag.count, self.counts.lag.total, self.counts.last_lag), (1, 2.0, 2.0))
        self.clock.advance(INTERVAL)
        self.assertEqual((self.counts.lag.count, self.counts.last_lag), (2, 0.0))

    def test_a_clock_that_is_set_back_as_it_is_called_makes_nothing_early(self) -> None:
        (call,) = self.clock.getDelayedCalls()
        called = call.func
        call.cancel()
        called()
        self.assertEqual((self.counts.lag.count, self.counts.lag.total), (1, 0.0))

    def test_it_ends(self) -> None:
        self.lag.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.lag.stop()
        self.lag.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TallyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counts = Counts()
        self.written: list[str] = []
        self.journal = Journal(self.written.append, Clock())
        self.tally = Tally(self.counts, self.journal)

    def flow(self, outcome: str, method: str = "GET") -> Flow:
        flow = Flow("1", 0.0, "-", method)
        flow.outcome, flow.status, flow.duration, flow.first_byte = outcome, 200, 2.0, 1.0
        return flow

    def test_a_flow_is_counted_and_goes_on(self) -> None:
        self.tally.record(self.flow("forwarded"))
        self.journal.flush()
        (line,) = self.written
        self.assertIn('"outcome": "forwarded"', line)
        self.assertEqual(self.counts.exchanges["forwarded"][2], 1)
        self.assertEqual((self.counts.durations.total, self.counts.first_bytes.total), (2.0, 1.0))

    def test_a_websocket_has_messages_and_a_duration_of_its_own(self) -> None:
        flow = self.flow("switched")
        flow.websocket = data = WebSocketData(1000, Budget(1000))
        data.from_client.messages, data.from_origin.messages = 3, 4
        self.tally.record(flow)
        self.assertEqual(self.counts.messages, [3, 4])
        self.assertEqual(self.counts.websocket_durations.total, 2.0)
        self.assertEqual((self.counts.durations.count, self.counts.tunnel_durations.count), (0, 0))
