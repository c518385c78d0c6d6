"""
How long one match takes in tables of 10 to 10,000 rules: C{python bench/match.py}.

Each number is the best of several runs, in microseconds of one match.
"""

from __future__ import annotations

import sys
import time
import timeit

from proxyd.errors import NoRuleMatches
from proxyd.rules.model import OriginTemplate, Rule
from proxyd.rules.pattern import Pattern
from proxyd.rules.table import RuleTable

SIZES = (10, 100, 1000, 10_000)
KINDS = {
    "anchored": "^/service{}/users/([0-9]+)$",
    "unanchored": "/service{}/users/",
    "look-ahead": "^/service{}/(?!internal)(.*)$",
    "per host": "^/",
}


def table(kind: str, size: int) -> RuleTable:
    target = OriginTemplate("http://127.0.0.1:8080")
    rules = []
    for index in range(size):
        pattern = KINDS["anchored" if kind == "mix" else kind]
        if kind == "mix" and index % 10 == 5:
            pattern = KINDS["look-ahead"]
        if kind == "mix" and index in {size * part // 4 + 1 for part in range(4)}:
            # Four rules whatever the size, which contain nothing that RE2 could look for: they are always tried.
            pattern = r"^(.)(?!.*[0-9]{}).*\1[^/]$"
        hosts = (f"host{index}.example",) if kind == "per host" else ()
        rules.append(Rule(str(index), f"rule {index}", Pattern(pattern.format(index)), target, hosts=hosts))
    return RuleTable(rules)


def best(rules: RuleTable, path: str, host: str, expected: int | None) -> float:
    """Microseconds of one match."""

    def once() -> str | None:
        try:
            return rules.match(path, host, now=time.monotonic).rule.id
        except NoRuleMatches:
            return None

    assert once() == (None if expected is None else str(expected)), (path, once())
    return min(timeit.repeat(once, number=2000, repeat=7)) / 2000 * 1e6


def main() -> None:
    write = sys.stdout.write
    write(f"{'':12}{'rules':>7}{'first':>9}{'middle':>9}{'last':>9}{'none':>9}{'build ms':>10}\n")
    for kind in (*KINDS, "mix"):
        worst = {}
        for size in SIZES:
            started = time.perf_counter()
            rules = table(kind, size)
            build = (time.perf_counter() - started) * 1e3
            places = (0, size // 2, size - 1)
            numbers = [best(rules, f"/service{place}/users/12", f"host{place}.example", place) for place in places]
            numbers.append(best(rules, "/nothing/here", "none.example", None))
            worst[size] = max(numbers)
            write(f"{kind:12}{size:7}" + "".join(f"{number:9.2f}" for number in numbers) + f"{build:10.1f}\n")
        write(f"{'':12}10,000 : 10 = {worst[SIZES[-1]] / worst[SIZES[0]]:.2f}\n")


if __name__ == "__main__":
    main()
