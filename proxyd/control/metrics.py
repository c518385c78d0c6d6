"""
Everything that is counted, in the text format of Prometheus.

@see: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from proxyd.control.counts import BUCKETS_S, Counts

Gauge = tuple[str, str, dict[str, str], float]
"""A name, what it means, labels and the value."""


def exposition(counts: Counts, gauges: Iterable[Gauge]) -> tuple[bytes, str]:
    """
    @param gauges: what is so at this moment; those of one name follow one another.

    @return: the text, and its media type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts, gauges))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Collector:
    """What prometheus_client asks."""

    def __init__(self, counts: Counts, gauges: Iterable[Gauge]) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Everything, family by family."""
        counts = self._counts
        yield from _of_rules(counts)
        failures = CounterMetricFamily(
            "proxyd_failures", "Exchanges that failed, by whose fault and at what", labels=["party", "stage"]
        )
        for (party, stage), count in counts.failures.items():
            failures.add_metric([party, stage], count)
        yield failures
        yield from _of_websockets(counts)
        connects = CounterMetricFamily(
            "proxyd_outbound_connects", "Connections to origin servers, by proxy", labels=["proxy", "outcome"]
        )
        for (proxy, outcome), count in counts.connects.items():
            connects.add_metric([proxy, outcome], count)
        yield connects
        yield from _of_reactor(counts)
        gauges: dict[str, GaugeMetricFamily] = {}
        for name, meaning, labels, value in self._gauges:
            if name not in gauges:
                gauges[name] = GaugeMetricFamily(name, meaning, labels=list(labels))
            gauges[name].add_metric(list(labels.values()), value)
        yield from gauges.values()


def _of_rules(counts: Counts) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "proxyd_requests", "Exchanges that have ended, by rule (empty: none)", labels=["rule", "method", "status"]
    )
    duration = HistogramMetricFamily(
        "proxyd_request_duration_seconds", "From a request's head to its answer's last octet", labels=["rule"]
    )
    origin = HistogramMetricFamily(
        "proxyd_origin_head_seconds", "From a request's head to the head of the origin's answer", labels=["rule"]
    )
    for rule_id, numbers in counts.rules.items():
        for (name, of_class), count in numbers.by_name().items():
            requests.add_metric([rule_id, name, of_class], count)
        duration.add_metric([rule_id], _cumulative(numbers.durations), numbers.duration)
        origin.add_metric([rule_id], _cumulative(numbers.origins), numbers.origin)
    yield requests
    yield duration
    yield origin


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """As Prometheus has it: how many took at most so long."""
    bounds = (*map(str, BUCKETS_S), "+Inf")
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]


def _of_websockets(counts: Counts) -> Iterator[Metric]:
    closed = CounterMetricFamily("proxyd_websockets_closed", "WebSockets that have ended")
    closed.add_metric([], counts.websockets_closed)
    yield closed
    frames = CounterMetricFamily("proxyd_websocket_frames", "Frames relayed, by sender", labels=["sender"])
    octets = CounterMetricFamily("proxyd_websocket_bytes", "Octets of frames relayed, by sender", labels=["sender"])
    for index, sender in ((0, "client"), (2, "origin")):
        frames.add_metric([sender], counts.relayed[index])
        octets.add_metric([sender], counts.relayed[index + 1])
    yield frames
    yield octets


def _of_reactor(counts: Counts) -> Iterator[Metric]:
    lag = GaugeMetricFamily("proxyd_reactor_lag_seconds", "How late the reactor was at the last look")
    lag.add_metric([], counts.lag)
    yield lag
    worst = GaugeMetricFamily("proxyd_reactor_worst_lag_seconds", "How late it was at most since the last scrape")
    worst.add_metric([], counts.worst_lag)
    yield worst
