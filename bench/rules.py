"""How long one match takes, in tables of ten and of ten thousand rules."""

from __future__ import annotations

import itertools
import os
import time
import timeit
from collections.abc import Callable

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

_ASKED = "anchored"
_ITSELF = f"itself, {FEW} rules"
_RUNS, _MATCHES = 10, 2000

Match = Callable[[], str | None]
"""Matches once, and tells the id of the rule."""


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


def _matches(kind: str, size: int) -> list[Match]:
    """Matches of the first rule, of the middle one, of the last one, of none; of more paths than a table remembers."""
    rules = _table(kind, size)
    places = (0, size // 2, size - 1)
    hits = [_match(rules, f"/service{place}/users/12", f"host{place}.example", place) for place in places]
    return [*hits, _match(rules, "/nothing/here", "none.example", None)]


def _match(rules: RuleTable, path: str, host: str, expected: int | None) -> Match:
    paths = itertools.cycle([f"{path}{number}" for number in range(2 * KNOWN)])

    def match() -> str | None:
        try:
            return rules.match(next(paths), host, now=time.monotonic).rule.id
        except NoRuleMatches:
            return None

    assert match() == (None if expected is None else str(expected)), (path, match())
    return match


def _microseconds(match: Match) -> float:
    return min(timeit.repeat(match, number=_MATCHES, repeat=_RUNS)) / _MATCHES * MICRO


def _measure(lab: Lab) -> Result:
    """Of each match the best run; the runs are spread over the rounds, as a machine may be slow for a while."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROXY_CORE})
    try:
        matches = {(kind, size): _matches(kind, size) for kind in KINDS for size in (MANY, FEW)}
        rounds = [
            {which: [_microseconds(match) for match in each] for which, each in matches.items()}
            for _ in range(lab.rounds)
        ]
    finally:
        os.sched_setaffinity(0, cores)
    longest = {which: max(map(min, zip(*(one[which] for one in rounds), strict=True))) for which in matches}
    kinds = [kind for kind in KINDS if kind != _ASKED]
    notes = (f"{kind}: {longest[kind, MANY]:.2f} µs, of {FEW} {longest[kind, FEW]:.2f} µs" for kind in kinds)
    return Result({PROXYD: longest[_ASKED, MANY], _ITSELF: longest[_ASKED, FEW]}, notes=tuple(notes))


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
