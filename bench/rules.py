"""How long one match takes, in tables of ten and of ten thousand rules."""

from __future__ import annotations

import itertools
import os
import time
import timeit

from bench.lab import PROXY_CORE, Lab
from bench.proxies import PROXYD
from bench.rows import MICRO, Result, Row
from proxyd.errors import NoRuleMatches
from proxyd.rules.model import OriginTemplate, Rule
from proxyd.rules.pattern import Pattern
from proxyd.rules.table import KNOWN, RuleTable

FEW, MANY = 10, 10_000

KINDS = {
    "anchored": "^/service{}/users/([0-9]+)$",
    "unanchored": "/service{}/users/",
    "look-ahead": "^/service{}/(?!internal)(.*)$",
    "by host": "^/",
    "mixed": "^/service{}/users/([0-9]+)$",
}
"""Patterns of rules, with the rule's number; C{mixed} has a tenth of C{look-ahead}, and four that are always tried."""

_NEEDS_BACKTRACKING = r"^(.)(?!.*[0-9]{}).*\1[^/]$"
"""It holds nothing that RE2 could look for: it is tried for every path."""

_ITSELF = f"itself, {FEW} rules"
_RUNS, _MATCHES = 40, 2000


def _table(kind: str, size: int) -> RuleTable:
    target = OriginTemplate("http://127.0.0.1:8080")
    rules = []
    for index in range(size):
        pattern = KINDS[kind]
        if kind == "mixed" and index % 10 == 5:
            pattern = KINDS["look-ahead"]
        if kind == "mixed" and index in {size * part // 4 + 1 for part in range(4)}:
            pattern = _NEEDS_BACKTRACKING
        hosts = (f"host{index}.example",) if kind == "by host" else ()
        rules.append(Rule(str(index), f"rule {index}", Pattern(pattern.format(index)), target, hosts=hosts))
    return RuleTable(rules)


def _best(rules: RuleTable, path: str, host: str, expected: int | None) -> float:
    """Microseconds of one match, in the best of some runs; of more paths than a table remembers."""
    paths = itertools.cycle([f"{path}{number}" for number in range(2 * KNOWN)])

    def once() -> str | None:
        try:
            return rules.match(next(paths), host, now=time.monotonic).rule.id
        except NoRuleMatches:
            return None

    assert once() == (None if expected is None else str(expected)), (path, once())
    return min(timeit.repeat(once, number=_MATCHES, repeat=_RUNS)) / _MATCHES * MICRO


def _worst(kind: str, size: int) -> float:
    """The longest match: of the first rule, the one in the middle, the last one, or none."""
    rules = _table(kind, size)
    places = (0, size // 2, size - 1)
    matches = [_best(rules, f"/service{place}/users/12", f"host{place}.example", place) for place in places]
    return max(*matches, _best(rules, "/nothing/here", "none.example", None))


def _measure(_: Lab) -> Result:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROXY_CORE})
    try:
        worst = {kind: (_worst(kind, MANY), _worst(kind, FEW)) for kind in KINDS}
    finally:
        os.sched_setaffinity(0, cores)
    many, few = worst.pop("anchored")
    notes = (f"{kind}: {of_many:.2f} µs, of {FEW} {of_few:.2f} µs" for kind, (of_many, of_few) in worst.items())
    return Result({PROXYD: many, _ITSELF: few}, notes=tuple(notes))


ROWS = [
    Row(
        "rules",
        f"the match that takes longest in a table of {MANY:,} anchored patterns",
        "µs",
        _measure,
        {_ITSELF: 1.5},
        limit=3.0,
    )
]
