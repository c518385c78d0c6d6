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
from collections.abc import Container, Iterable, Iterator
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from proxyd.forward.record import OPERATOR, Record

MAX_RULES: Final = 200
"""Rules with time series of their own."""

OTHER: Final = "other"
"""Stands for what has no time series of its own."""

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histograms, seconds."""

LOOK_S: Final = 0.5
"""Seconds between two looks at how late the reactor is."""

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class _OfRule:
    """
    The numbers of one rule.

    @ivar statuses: exchanges, by method and the first digit of the status.
    @ivar durations: exchanges, by which of L{BUCKETS_S} they took at most; the last one is for longer ones.
    @ivar duration: seconds in all.
    @ivar origins: the same of the time until the origin server's head.
    @ivar origin: seconds in all.
    """

    __slots__ = ("duration", "durations", "origin", "origins", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[tuple[bytes, int]] = Counter()
        self.durations = [0] * (len(BUCKETS_S) + 1)
        self.duration = 0.0
        self.origins = [0] * (len(BUCKETS_S) + 1)
        self.origin = 0.0

    def add(self, other: _OfRule) -> None:
        """Count what another one has counted, as far as totals need it."""
        self.statuses.update(other.statuses)
        self.durations = [one + more for one, more in zip(self.durations, other.durations, strict=True)]


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """As Prometheus has it: how many took at most so long."""
    bounds = (*map(str, BUCKETS_S), "+Inf")
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]


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

    @ivar errors: exchanges answered 5xx, by whomever, and those broken off by no fault of their client's.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.errors = 0
        self._rules: dict[str, _OfRule] = {}
        self._gone = _OfRule()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._websockets = 0
        self._relayed = [0, 0, 0, 0]
        self._clock = clock
        self._lag = self._worst_lag = 0.0
        self._due = 0.0
        self._looking: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look at how late the reactor is."""
        self._due = self._clock.seconds() + LOOK_S
        self._looking = self._clock.callLater(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None and self._looking.active():
            self._looking.cancel()

    def _look(self) -> None:
        self._lag = max(0.0, self._clock.seconds() - self._due)
        self._worst_lag = max(self._worst_lag, self._lag)
        self.start()

    def exchange_ended(self, record: Record) -> None:
        """Count one exchange."""
        of_rule = self._rules.get(record.rule_id)
        if of_rule is None:
            of_rule = self._of_new_rule(record.rule_id)
        status, duration, origin = record.status, record.duration, record.origin_s
        of_rule.statuses[b"" if record.head is None else record.head.method, status // 100] += 1
        if status == 101:
            self._websockets += 1
            for index, amount in enumerate(record.relayed):
                self._relayed[index] += amount
        else:
            # Written out: this runs for every request.
            of_rule.durations[bisect_left(BUCKETS_S, duration)] += 1
            of_rule.duration += duration
            if origin is not None:
                of_rule.origins[bisect_left(BUCKETS_S, origin)] += 1
                of_rule.origin += origin
        if record.failed:
            self._failures[record.failed_party, record.failed_stage] += 1
        # What is answered 4xx, no rule's paths among it, is what clients ask for.
        if status >= 500 or (status < 400 and record.failed and record.failed_party not in ("client", OPERATOR)):
            self.errors += 1

    def keep_rules(self, rule_ids: Container[str]) -> None:
        """Show no more of rules that are none of these: their places are for others."""
        for rule_id in list(self._rules):
            if rule_id not in ("", OTHER) and rule_id not in rule_ids:
                self._gone.add(self._rules.pop(rule_id))

    @property
    def requests(self) -> int:
        """Exchanges that have ended."""
        return sum(sum(one.statuses.values()) for one in (self._gone, *self._rules.values()))

    @property
    def latency(self) -> list[int]:
        """Exchanges but WebSockets, by which of L{BUCKETS_S} they took at most; the last one is for longer ones."""
        of_rules = (one.durations for one in self._rules.values())
        return [sum(counts) for counts in zip(self._gone.durations, *of_rules, strict=True)]

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
            counts: Counter[tuple[str, str]] = Counter()
            for (method, status), count in numbers.statuses.items():
                name = method.decode("ascii") if method in _METHODS else OTHER
                counts[name, f"{status}xx" if status else "none"] += count
            for (name, of_class), count in counts.items():
                requests.add_metric([rule_id, name, of_class], count)
            duration.add_metric([rule_id], _cumulative(numbers.durations), numbers.duration)
            origin.add_metric([rule_id], _cumulative(numbers.origins), numbers.origin)
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
        self._worst_lag = 0.0
        yield worst


class _Collector:
    """What prometheus_client asks."""

    def __init__(self, metrics: Metrics, source: Source) -> None:
        self._metrics = metrics
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        return self._metrics.collect(self._source)
