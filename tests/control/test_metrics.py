"""What is counted, and that its size is bounded."""

from __future__ import annotations

import json
import re

from proxyd.control.counts import MAX_RULES, Counts
from proxyd.control.metrics import exposition
from proxyd.forward.record import Record
from proxyd.http.request import parse_request


def record(rule_id: str, duration: float = 0.0, status: int = 200, method: bytes = b"GET") -> Record:
    """An exchange that has ended."""
    one = Record(parse_request(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"), "127.0.0.1", 0.0)
    one.rule_id, one.status, one.duration, one.origin_s = rule_id, status, duration, duration / 2
    return one


def value(metrics: Counts, series: str) -> float | None:
    """The value of one time series."""
    text = exposition(metrics, [])[0].decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


def test_buckets() -> None:
    """A duration counts in every bucket that it is not over (Prometheus: le is inclusive)."""
    metrics = Counts()
    for duration in (0.0, 0.001, 0.0011, 59.0, 61.0):
        metrics.exchanges_ended([record("a", duration)])
    expected = {"0.001": 2, "0.0025": 3, "30.0": 3, "60.0": 4, "+Inf": 5}
    for bound, count in expected.items():
        assert value(metrics, f'proxyd_request_duration_seconds_bucket{{le="{bound}",rule="a"}}') == count
    assert value(metrics, 'proxyd_request_duration_seconds_sum{rule="a"}') == 0.001 + 0.0011 + 59 + 61
    assert value(metrics, 'proxyd_origin_head_seconds_count{rule="a"}') == 5
    assert sum(metrics.latency) == metrics.requests == 5


def test_rules_are_bounded() -> None:
    """Rules beyond the limit share one name; those that are gone make room, and stay in the totals."""
    metrics = Counts()
    for number in range(MAX_RULES + 5):
        metrics.exchanges_ended([record(f"r{number}")])
    assert value(metrics, 'proxyd_requests_total{method="GET",rule="other",status="2xx"}') == 5
    metrics.keep_rules({"r0", "new"})
    metrics.exchanges_ended([record("new")])
    assert value(metrics, 'proxyd_requests_total{method="GET",rule="new",status="2xx"}') == 1
    assert value(metrics, 'proxyd_requests_total{method="GET",rule="r0",status="2xx"}') == 1
    assert value(metrics, 'proxyd_requests_total{method="GET",rule="r1",status="2xx"}') is None
    assert metrics.requests == sum(metrics.latency) == MAX_RULES + 6


def test_methods_are_bounded() -> None:
    """Rare methods share one name, and what could not be read has no status."""
    metrics = Counts()
    for method in (b"PROPFIND", b"MKCOL", b"GET"):
        metrics.exchanges_ended([record("a", method=method)])
    metrics.exchanges_ended([Record(None, "127.0.0.1", 0.0)])
    assert value(metrics, 'proxyd_requests_total{method="other",rule="a",status="2xx"}') == 2
    assert value(metrics, 'proxyd_requests_total{method="other",rule="",status="none"}') == 1


def test_failures() -> None:
    """Whose fault it was, and at what; a client's own faults are no errors of ours."""
    metrics = Counts()
    for party, status in (("origin", 200), ("client", 200), ("proxyd", 404), ("operator", 200)):
        one = record("a", status=status)
        one.note(party, "connect", "went wrong")
        one.note("proxyd", "request", "comes too late to count")
        metrics.exchanges_ended([one])
    assert value(metrics, 'proxyd_failures_total{party="origin",stage="connect"}') == 1
    assert value(metrics, 'proxyd_failures_total{party="client",stage="connect"}') == 1
    metrics.exchanges_ended([record("a", status=503)])
    assert metrics.errors == 2


def test_several_processes() -> None:
    """What two processes have counted is added up, by way of JSON; of one that has ended nothing is so any more."""
    one, other = Counts(), Counts()
    for metrics in (one, other):
        metrics.exchanges_ended([record("a", 0.002)])
        metrics.exchanges_ended([record("a", method=b"PROPFIND", status=500)])
        metrics.connects["direct", "ok"] += 1
        metrics.gauges["connections"] += 2
        metrics.worst_lag = 0.5
    failed = record("b")
    failed.note("origin", "connect", "went wrong")
    other.exchanges_ended([failed])
    other.keep_rules({"b"})
    other.end()
    total = Counts()
    for metrics in (one, other):
        total.add(Counts.from_json(json.loads(json.dumps(metrics.as_json()))))
    assert (total.requests, total.errors, sum(total.latency)) == (5, 3, 5)
    assert value(total, 'proxyd_requests_total{method="other",rule="a",status="5xx"}') == 1
    assert value(total, 'proxyd_request_duration_seconds_sum{rule="a"}') == 0.002
    assert value(total, 'proxyd_failures_total{party="origin",stage="connect"}') == 1
    assert value(total, 'proxyd_outbound_connects_total{outcome="ok",proxy="direct"}') == 2
    assert (total.gauges["connections"], total.worst_lag) == (2, 0.5)
