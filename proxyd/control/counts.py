"""
What is counted: by one process, or by several that are added up.

Counting is a few additions for each exchange; everything else is worked out
when somebody asks.  The number of rules counted apart is bounded: beyond
L{MAX_RULES}, what came last counts as C{other}, and so do rare methods.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

from proxyd.forward.record import OPERATOR, Record

MAX_RULES: Final = 200
"""Rules with numbers of their own."""

OTHER: Final = "other"
"""Stands for what has no numbers of its own."""

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histograms, seconds."""

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class OfRule:
    """
    The numbers of one rule.

    @ivar statuses: exchanges of each method, by the first digit of the status.
    @ivar durations: exchanges, by which of L{BUCKETS_S} they took at most; the last one is for longer ones.
    @ivar duration: seconds in all.
    @ivar origins: the same of the time until the origin server's head.
    @ivar origin: seconds in all.
    """

    __slots__ = ("duration", "durations", "origin", "origins", "statuses")

    def __init__(self) -> None:
        self.statuses: defaultdict[bytes, list[int]] = defaultdict(_no_statuses)
        self.durations = [0] * (len(BUCKETS_S) + 1)
        self.duration = 0.0
        self.origins = [0] * (len(BUCKETS_S) + 1)
        self.origin = 0.0

    def add(self, other: OfRule) -> None:
        """Count what another one has counted."""
        for method, counts in other.statuses.items():
            self.statuses[method] = _sums(self.statuses[method], counts)
        self.durations = _sums(self.durations, other.durations)
        self.duration += other.duration
        self.origins = _sums(self.origins, other.origins)
        self.origin += other.origin

    def by_name(self) -> Counter[tuple[str, str]]:
        """Exchanges by method and class of status, such as C{2xx}, or C{none}."""
        counts: Counter[tuple[str, str]] = Counter()
        for method, by_digit in self._by_method().items():
            for digit, count in enumerate(by_digit):
                if count:
                    counts[method, f"{digit}xx" if digit else "none"] = count
        return counts

    def _by_method(self) -> dict[str, list[int]]:
        counts: dict[str, list[int]] = {}
        for method, by_digit in self.statuses.items():
            name = method.decode("ascii") if method in _METHODS else OTHER
            counts[name] = _sums(counts.get(name, _no_statuses()), by_digit)
        return counts

    def as_json(self) -> list[Any]:
        """All of it, for L{from_json}."""
        return [self._by_method(), self.durations, self.duration, self.origins, self.origin]

    @classmethod
    def from_json(cls, value: list[Any]) -> OfRule:
        """What L{as_json} has made."""
        made = cls()
        statuses, made.durations, made.duration, made.origins, made.origin = value
        made.statuses.update({method.encode("ascii"): counts for method, counts in statuses.items()})
        return made


class Counts:
    """
    Everything that is counted, and what is so at the moment.

    @ivar errors: exchanges answered 5xx, by whomever, and those broken off by no fault of their client's.
    @ivar rules: the numbers of each rule.
    @ivar gone: those of rules that there are no more.
    @ivar failures: exchanges that failed, by whose fault and at what.
    @ivar websockets_closed: WebSockets that have ended.
    @ivar relayed: frames and octets from clients, frames and octets from origin servers.
    @ivar connects: connections to origin servers, by proxy and outcome.
    @ivar lag: how late the reactor was at the last look, seconds.
    @ivar worst_lag: how late it was at most since that was last asked, seconds.
    @ivar gauges: numbers of the moment, by name; see L{proxyd.control.metrics}.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.rules: dict[str, OfRule] = {}
        self.gone = OfRule()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.websockets_closed = 0
        self.relayed = [0, 0, 0, 0]
        self.connects: Counter[tuple[str, str]] = Counter()
        self.lag = self.worst_lag = 0.0
        self.gauges: Counter[str] = Counter()

    def exchanges_ended(self, records: Iterable[Record]) -> None:
        """Count exchanges."""
        rules = self.rules
        for record in records:
            rule_id = record.rule_id
            of_rule = rules[rule_id] if rule_id in rules else self._of_new_rule(rule_id)
            status, duration, origin = record.status, record.duration, record.origin_s
            of_rule.statuses[b"" if record.head is None else record.head.method][status // 100] += 1
            if status == 101:
                self.websockets_closed += 1
                for index, amount in enumerate(record.relayed):
                    self.relayed[index] += amount
            else:
                # Written out: this runs for every request.
                of_rule.durations[bisect_left(BUCKETS_S, duration)] += 1
                of_rule.duration += duration
                if origin is not None:
                    of_rule.origins[bisect_left(BUCKETS_S, origin)] += 1
                    of_rule.origin += origin
            if status >= 500:
                self.errors += 1
            if record.failed:
                self.failures[record.failed_party, record.failed_stage] += 1
                # What is answered 4xx, no rule's paths among it, is what clients ask for.
                if status < 400 and record.failed_party not in ("client", OPERATOR):
                    self.errors += 1

    def keep_rules(self, rule_ids: Container[str]) -> None:
        """Show no more of rules that are none of these: their places are for others."""
        for rule_id in list(self.rules):
            if rule_id not in ("", OTHER) and rule_id not in rule_ids:
                self.gone.add(self.rules.pop(rule_id))

    @property
    def requests(self) -> int:
        """Exchanges that have ended."""
        return sum(sum(counts) for one in (self.gone, *self.rules.values()) for counts in one.statuses.values())

    @property
    def latency(self) -> list[int]:
        """Exchanges but WebSockets, by which of L{BUCKETS_S} they took at most; the last one is for longer ones."""
        return _sums(self.gone.durations, *(one.durations for one in self.rules.values()))

    def _of_new_rule(self, rule_id: str) -> OfRule:
        if len(self.rules) >= MAX_RULES:
            rule_id = OTHER
        return self.rules.setdefault(rule_id, OfRule())

    # Several processes

    def add(self, other: Counts) -> None:
        """Count what another process has counted."""
        self.errors += other.errors
        for rule_id, numbers in other.rules.items():
            of_rule = self.rules.get(rule_id)
            (self._of_new_rule(rule_id) if of_rule is None else of_rule).add(numbers)
        self.gone.add(other.gone)
        self.failures.update(other.failures)
        self.websockets_closed += other.websockets_closed
        self.relayed = _sums(self.relayed, other.relayed)
        self.connects.update(other.connects)
        self.lag = max(self.lag, other.lag)
        self.worst_lag = max(self.worst_lag, other.worst_lag)
        self.gauges.update(other.gauges)

    def end(self) -> None:
        """The process that counted is no more: nothing is so at the moment."""
        self.lag = self.worst_lag = 0.0
        self.gauges.clear()

    def as_json(self) -> dict[str, Any]:
        """All of it, for L{from_json}."""
        return {
            "errors": self.errors,
            "rules": {rule_id: numbers.as_json() for rule_id, numbers in self.rules.items()},
            "gone": self.gone.as_json(),
            "failures": _pairs(self.failures),
            "websockets_closed": self.websockets_closed,
            "relayed": self.relayed,
            "connects": _pairs(self.connects),
            "lag": [self.lag, self.worst_lag],
            "gauges": self.gauges,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """What L{as_json} has made."""
        made = cls()
        made.errors = value["errors"]
        made.rules = {rule_id: OfRule.from_json(numbers) for rule_id, numbers in value["rules"].items()}
        made.gone = OfRule.from_json(value["gone"])
        made.failures = _counter(value["failures"])
        made.websockets_closed = value["websockets_closed"]
        made.relayed = value["relayed"]
        made.connects = _counter(value["connects"])
        made.lag, made.worst_lag = value["lag"]
        made.gauges = Counter(value["gauges"])
        return made


def _no_statuses() -> list[int]:
    return [0] * 10


def _sums(*lists: Iterable[int]) -> list[int]:
    return [sum(numbers) for numbers in zip(*lists, strict=True)]


def _pairs(counter: Counter[tuple[str, str]]) -> list[list[Any]]:
    return [[*key, count] for key, count in counter.items()]


def _counter(pairs: list[list[Any]]) -> Counter[tuple[str, str]]:
    return Counter({(one, other): count for one, other, count in pairs})
