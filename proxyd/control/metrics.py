"""
Numbers about the service, for Prometheus and for the page.

Counting is a few additions for each exchange; everything else is worked out
when somebody asks.  The number of time series is bounded: beyond L{MAX_RULES}
rules, what came last counts as C{other}, and so do rare methods.

@see: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from proxyd.forward.record import Record

MAX_RULES: Final = 200
"""Rules with time series of their own."""

OTHER: Final = "other"
"""Stands for what has no time series of its own."""

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histograms, seconds."""

LOOK_S: Final = 0.5
"""Seconds between two looks at how late the reactor is."""

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class Histogram:
    """
    How often something took how long.

    @ivar counts: for each of L{BUCKETS_S}, and for what took longer than the last.
    @ivar total: seconds in all.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus has it: how many took at most so long."""
        found, seen = [], 0
        for bound, count in zip((*BUCKETS_S, None), self.counts, strict=True):
            seen += count
            found.append(("+Inf" if bound is None else str(bound), float(seen)))
        return found


class _OfRule:
    """The numbers of one rule."""

    __slots__ = ("duration", "origin", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[tuple[bytes, int]] = Counter()
        self.duration = Histogram()
        self.origin = Histogram()


class Source(Protocol):
    """What is read off the service when somebody asks."""

    def gauges(self) -> Iterable[tuple[str, str, dict[str, str], float]]:
        """Names, what they mean, labels and values; those of one name follow one another."""

    def connects(self) -> Iterable[tuple[str, str, int]]:
        """Connections to origin servers: by which proxy, with which outcome, how many."""

    def relayed(self) -> tuple[int, int, int, int]:
        """Of WebSockets that are open: frames and octets from clients, frames and octets from origin servers."""


class Metrics:
    """
    Everything that is counted.

    @ivar requests: exchanges that have ended.
    @ivar errors: those that failed by no fault of their client's.
    @ivar latency: how long exchanges took, those of WebSockets excepted.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.requests = 0
        self.errors = 0
        self.latency = Histogram()
        self._rules: dict[str, _OfRule] = {}
        self._failures: Counter[tuple[str, str]] = Counter()
        self._websockets = 0
        self._relayed = [0, 0, 0, 0]
        self._now: Callable[[], float] = clock.seconds
        self._lag = self._worst_lag = 0.0
        self._due = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        """Begin to look at how late the reactor is."""
        self._due = self._now() + LOOK_S
        self._looking.start(LOOK_S, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        now = self._now()
        self._lag = max(0.0, now - self._due)
        self._worst_lag = max(self._worst_lag, self._lag)
        self._due = now + LOOK_S

    def exchange_ended(self, record: Record) -> None:
        """Count one exchange."""
        self.requests += 1
        rule_id = record.rule_id
        of_rule = self._rules.get(rule_id)
        if of_rule is None:
            of_rule = self._of_new_rule(rule_id)
        method = b"" if record.head is None else record.head.method
        of_rule.statuses[method if method in _METHODS else b"", record.status // 100] += 1
        if record.status == 101:
            self._websockets += 1
            for index, amount in enumerate(record.relayed):
                self._relayed[index] += amount
        else:
            self.latency.observe(record.duration)
            of_rule.duration.observe(record.duration)
            if record.origin_s is not None:
                of_rule.origin.observe(record.origin_s)
        if record.failed:
            self._failures[record.failed_party, record.failed_stage] += 1
            if record.failed_party != "client":
                self.errors += 1

    def _of_new_rule(self, rule_id: str) -> _OfRule:
        if len(self._rules) >= MAX_RULES:
            rule_id = OTHER
        return self._rules.setdefault(rule_id, _OfRule())

    def exposition(self, source: Source) -> tuple[bytes, str]:
        """
        Everything in the text format of Prometheus.

        @return: the text, and its media type.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self, source))
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self, source: Source) -> Iterator[Metric]:
        """Everything, family by family."""
        yield from self._of_rules()
        failures = CounterMetricFamily(
            "proxyd_failures", "Exchanges that failed, by whose fault and at what", labels=["party", "stage"]
        )
        for (party, stage), count in self._failures.items():
            failures.add_metric([party, stage], count)
        yield failures
        yield from self._of_websockets(source.relayed())
        connects = CounterMetricFamily(
            "proxyd_outbound_connects", "Connections to origin servers, by proxy", labels=["proxy", "outcome"]
        )
        for proxy, outcome, count in source.connects():
            connects.add_metric([proxy, outcome], count)
        yield connects
        yield from self._of_reactor()
        gauges: dict[str, GaugeMetricFamily] = {}
        for name, meaning, labels, value in source.gauges():
            if name not in gauges:
                gauges[name] = GaugeMetricFamily(name, meaning, labels=list(labels))
            gauges[name].add_metric(list(labels.values()), value)
        yield from gauges.values()

    def _of_rules(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "proxyd_requests", "Exchanges that have ended, by rule (empty: none)", labels=["rule", "method", "status"]
        )
        duration = HistogramMetricFamily(
            "proxyd_request_duration_seconds", "From a request's head to its answer's last octet", labels=["rule"]
        )
        origin = HistogramMetricFamily(
            "proxyd_origin_head_seconds", "From a request's head to the head of the origin's answer", labels=["rule"]
        )
        for rule_id, numbers in self._rules.items():
            for (method, status), count in numbers.statuses.items():
                name = method.decode("ascii") or OTHER
                requests.add_metric([rule_id, name, f"{status}xx" if status else "none"], count)
            duration.add_metric([rule_id], numbers.duration.cumulative(), numbers.duration.total)
            origin.add_metric([rule_id], numbers.origin.cumulative(), numbers.origin.total)
        yield requests
        yield duration
        yield origin

    def _of_websockets(self, live: tuple[int, int, int, int]) -> Iterator[Metric]:
        closed = CounterMetricFamily("proxyd_websockets_closed", "WebSockets that have ended")
        closed.add_metric([], self._websockets)
        yield closed
        counts = [before + now for before, now in zip(self._relayed, live, strict=True)]
        frames = CounterMetricFamily("proxyd_websocket_frames", "Frames relayed, by sender", labels=["sender"])
        octets = CounterMetricFamily("proxyd_websocket_bytes", "Octets of frames relayed, by sender", labels=["sender"])
        for index, sender in ((0, "client"), (2, "origin")):
            frames.add_metric([sender], counts[index])
            octets.add_metric([sender], counts[index + 1])
        yield frames
        yield octets

    def _of_reactor(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily("proxyd_reactor_lag_seconds", "How late the reactor was at the last look")
        lag.add_metric([], self._lag)
        yield lag
        worst = GaugeMetricFamily("proxyd_reactor_worst_lag_seconds", "How late it was at most since the last scrape")
        worst.add_metric([], self._worst_lag)
        self._worst_lag = self._lag
        yield worst


class _Collector:
    """What prometheus_client asks."""

    def __init__(self, metrics: Metrics, source: Source) -> None:
        self._metrics = metrics
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        return self._metrics.collect(self._source)
