"""What has been measured, for people: on the terminal, and in RESULTS.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.lab import NODE_MODULES, Lab
from bench.proxies import PROXYD
from bench.rows import Result, Row


@dataclass(frozen=True)
class Comparison:
    """
    One line of a row: proxyd itself, or proxyd with one peer.

    @ivar peer: whose figure it is; C{None} is proxyd.
    @ivar figure: C{None} if it could not be measured.
    @ivar ratio: proxyd's figure as a multiple of the peer's.
    @ivar at_most: what is demanded of the ratio, or of proxyd's figure itself.
    @ivar failed: something went wrong with proxyd, so that nothing holds.
    """

    peer: str | None
    figure: float | None
    ratio: float | None
    at_most: float | None
    failed: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether what is demanded holds; C{None} if nothing is."""
        if self.failed:
            return False
        if self.at_most is None:
            return None
        value = self.figure if self.peer is None else self.ratio
        return value is not None and value <= self.at_most

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {True: "holds", False: "NO", None: ""}[self.holds]


def comparisons(row: Row, result: Result) -> Iterator[Comparison]:
    """All lines of a row: proxyd itself, then the peers that something is demanded of, then the others."""
    ours = result.figures.get(PROXYD)
    yield Comparison(None, ours, None, row.limit, failed=ours is None or PROXYD in result.errors)
    for peer in {**row.at_most, **result.figures}:
        figure = result.figures.get(peer)
        if peer != PROXYD:
            ratio = ours / figure if ours is not None and figure else None
            yield Comparison(peer, figure, ratio, row.at_most.get(peer))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _factor(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _remarks(result: Result) -> Iterator[str]:
    for name, count in result.errors.items():
        yield f"{name}: {count:,} errors"
    yield from result.notes


def as_text(row: Row, result: Result) -> str:
    """A row for the terminal."""
    lines = [f"{row.name}: {row.what}; {row.unit}"]
    for one in comparisons(row, result):
        demanded = "" if one.at_most is None else f"at most {one.at_most:<5}"
        figures = f"{_number(one.figure):>10}{_factor(one.ratio):>8}"
        lines.append(f"    {one.peer or PROXYD:30}{figures}  {demanded} {one.verdict}".rstrip())
    lines.extend(f"    ({remark})" for remark in _remarks(result))
    return "\n".join(lines) + "\n"


def summary(results: list[tuple[Row, Result]]) -> str:
    """How much of what is demanded holds."""
    verdicts = [one.holds for row, result in results for one in comparisons(row, result) if one.holds is not None]
    return f"{sum(verdicts)} of {len(verdicts)} demands hold."


def _said(*command: str) -> str:
    """The version in what a program says of itself."""
    shown = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"\d+(?:\.\d+)+", shown.stdout + shown.stderr)
    return found[0] if found else "unknown"


def _versions() -> dict[str, str]:
    packages = ("proxyd", "Twisted", "aiohttp", "uvloop")
    http_proxy = json.loads((NODE_MODULES / "http-proxy" / "package.json").read_text())
    return {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "nginx": _said("nginx", "-v"),
        "HAProxy": _said("haproxy", "-v"),
        "Node": _said("node", "--version"),
        "http-proxy": http_proxy["version"],
        "Bun": _said(str(NODE_MODULES / ".bin" / "bun"), "--version"),
        "wrk": _said("wrk", "-v"),
    }


def _machine() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = found[1] if found else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


_HEAD = """\
# What proxyd costs

Made by `make bench`, which measures all of this again; what is measured and how is said in
[bench/\\_\\_init\\_\\_.py](__init__.py). Less is better. Figures of other machines differ, ratios do so less.

- {date}; {rounds} rounds of {seconds:g} s each, medians; {minutes:.1f} minutes in all
- {machine}
- {versions}
- {summary}

| row | proxyd | compared with | its figure | ratio | at most | |
|---|--:|---|--:|--:|--:|---|
"""


def as_markdown(lab: Lab, results: list[tuple[Row, Result]], seconds: float) -> str:
    """
    RESULTS.md.

    @param seconds: how long all of it has taken.
    """
    text = _HEAD.format(
        date=datetime.date.today(),
        rounds=lab.rounds,
        seconds=lab.seconds,
        minutes=seconds / 60,
        machine=_machine(),
        versions=", ".join(f"{name} {version}" for name, version in _versions().items()),
        summary=summary(results),
    )
    for row, result in results:
        first = [row.name, f"{_number(result.figures.get(PROXYD))} {row.unit}"]
        for one in comparisons(row, result):
            if one.peer is None and one.holds is None:
                continue
            cells = [*first, one.peer or "a limit", _number(one.figure) if one.peer else "", _factor(one.ratio)]
            cells += [f"{one.at_most:g}" if one.at_most is not None else "", one.verdict]
            text += f"| {' | '.join(cells)} |\n"
            first = ["", ""]
    text += "\n## The rows\n\n| row | what |\n|---|---|\n"
    for row, result in results:
        text += f"| {row.name} | {'; '.join([row.what, *_remarks(result)])} |\n"
    return text
