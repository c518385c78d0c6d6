"""What a row of the table is: measurements that interleave, and what is demanded of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.lab import Lab, Server
from bench.load import Done
from bench.proxies import PROXYD, started

MICRO = 1e6
WARM_UP_S = 1.0

STEADY = 1.5
"""By more than this factor the rounds of one proxy do not differ on a quiet machine."""

Load = Callable[[int, float], Done]
"""Puts a server, by its port, under load for some seconds."""


@dataclass(frozen=True)
class Sample:
    """
    One measurement.

    @ivar figure: in the row's unit.
    @ivar errors: what failed: requests, connections, messages that were not what was sent.
    """

    figure: float
    errors: int = 0


Trial = Callable[[float], Sample]
"""Measures once, for some seconds."""


@dataclass(frozen=True)
class Result:
    """
    What a row has found.

    @ivar figures: by proxy; the first one is proxyd's.
    @ivar errors: how much failed, by proxy; only those with any.
    @ivar notes: what else is to be said, in lines.
    """

    figures: dict[str, float]
    errors: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """
    A row of the table.

    @ivar what: what is measured.
    @ivar unit: of its figures; less is better.
    @ivar at_most: what proxyd's figure may be, as a multiple of each peer's.
    @ivar limit: what proxyd's figure may be itself.
    """

    name: str
    what: str
    unit: str
    measure: Callable[[Lab], Result]
    at_most: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None


def interleave(lab: Lab, trials: Mapping[str, Trial]) -> Result:
    """Run all trials in turn, once to warm up and then round by round; their medians."""
    samples: dict[str, list[Sample]] = {name: [] for name in trials}
    for trial in trials.values():
        trial(min(WARM_UP_S, lab.seconds))
    for _ in range(lab.rounds):
        for name, trial in trials.items():
            samples[name].append(trial(lab.seconds))
    errors = {name: sum(sample.errors for sample in each) for name, each in samples.items()}
    figures = {name: [sample.figure for sample in each] for name, each in samples.items()}
    apart = max(max(each) / min(each) for each in figures.values())
    return Result(
        {name: statistics.median(each) for name, each in figures.items()},
        {name: count for name, count in errors.items() if count},
        (f"not steady: rounds of the same differ by a factor of up to {apart:.1f}",) if apart > STEADY else (),
    )


def cpu_per_unit(server: Server, load: Load, scale: float = MICRO) -> Trial:
    """
    CPU time of a server for each unit of work that the load has done.

    @param scale: figures for each second: microseconds by default.
    """

    def trial(seconds: float) -> Sample:
        before = server.cpu()
        done = load(server.port, seconds)
        return Sample((server.cpu() - before) * scale / done.units, done.errors)

    return trial


def compare(peers: Iterable[str], origin: Callable[[Lab], int], load: Load) -> Callable[[Lab], Result]:
    """
    Measure CPU for each unit of work, of proxyd and of peers.

    @param origin: the port of the origin server that this is about.
    """

    def measure(lab: Lab) -> Result:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(started(lab, name, origin(lab))) for name in (PROXYD, *peers)}
            return interleave(lab, {name: cpu_per_unit(server, load) for name, server in servers.items()})

    return measure
