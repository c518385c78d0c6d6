"""Deadlines that move."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from proxyd.timer import GRAIN_S, Timer, Timers


class Watched:
    """A timer, and when it expired."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.timer = Timer(Timers(self.clock), lambda: self.expired.append(self.clock.seconds()))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a quarter of a second at a time."""
        self.clock.pump([0.25] * round(seconds * 4))


@pytest.fixture
def watched() -> Watched:
    """A timer that was not started."""
    return Watched()


def test_expires_once(watched: Watched) -> None:
    """At its deadline, and never again."""
    watched.timer.start(3)
    watched.pass_time(20)
    assert watched.expired == [3]
    assert watched.clock.getDelayedCalls() == []


def test_a_later_deadline_costs_no_delayed_call(watched: Watched) -> None:
    """The one that there is looks again when its time has come."""
    watched.timer.start(3)
    (call,) = watched.clock.getDelayedCalls()
    for _ in range(5):
        watched.pass_time(1)
        watched.timer.start(3)
    watched.timer.start(3)
    assert len(watched.clock.getDelayedCalls()) == 1
    watched.pass_time(20)
    assert watched.expired == [8]


def test_a_sooner_deadline(watched: Watched) -> None:
    """It is not missed for a call that waits for a later one."""
    watched.timer.start(30)
    watched.timer.start(2)
    assert len(watched.clock.getDelayedCalls()) == 1
    watched.pass_time(40)
    assert watched.expired == [2]


@pytest.mark.parametrize("stop", [lambda timer: timer.stop(), lambda timer: timer.start(0)])
def test_stop(watched: Watched, stop: object) -> None:
    """Without a deadline nothing expires; the next one does."""
    watched.timer.start(2)
    stop(watched.timer)  # type: ignore[operator]
    watched.pass_time(5)
    assert watched.expired == []
    watched.timer.start(2)
    watched.pass_time(5)
    assert watched.expired == [7]


def test_cancel(watched: Watched) -> None:
    """The reactor knows of nothing any more."""
    watched.timer.cancel()
    watched.timer.start(2)
    watched.timer.cancel()
    assert watched.clock.getDelayedCalls() == []
    watched.pass_time(5)
    assert watched.expired == []


def test_started_again_by_its_own_expiry() -> None:
    """Who is called may set the next deadline."""
    clock = Clock()
    expired: list[float] = []

    def tick() -> None:
        expired.append(clock.seconds())
        timer.start(5)

    timer = Timer(Timers(clock), tick)
    timer.start(5)
    clock.pump([1] * 16)
    assert expired == [5, 10, 15]


class Several:
    """Timers that share what timers share; each notes its name and when it expired."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.expired: list[tuple[str, float]] = []

    def timer(self, name: str, seconds: float) -> Timer:
        """A timer that was started."""
        timer = Timer(self.timers, lambda: self.expired.append((name, self.clock.seconds())))
        timer.start(seconds)
        return timer


def test_one_delayed_call_for_several() -> None:
    """Deadlines that are close together are met together, never too early, and in the order of their timers."""
    several = Several()
    several.timer("a", 3)
    several.timer("b", 2.95)
    several.timer("c", 2.9)
    several.timer("d", 3.01)
    assert len(several.clock.getDelayedCalls()) == 2
    several.clock.advance(2.99)
    assert several.expired == []
    several.clock.pump([0.01] * 20)
    assert [name for name, _ in several.expired] == ["a", "b", "c", "d"]
    assert all(3 <= when <= 3.01 + GRAIN_S + 0.01 for _, when in several.expired)
    assert several.clock.getDelayedCalls() == []


def test_cancelled_by_another() -> None:
    """Whom one timer calls may cancel others of the same moment."""
    several = Several()
    first = Timer(several.timers, lambda: other.cancel())
    first.start(1)
    other = several.timer("other", 1)
    last = several.timer("last", 1)
    several.clock.advance(1)
    assert several.expired == [("last", 1)]
    last.cancel()
    assert several.clock.getDelayedCalls() == []


def test_failure_of_another() -> None:
    """An error in what one timer leads to costs no other its deadline, and is logged."""
    several, logged = Several(), list[LogEvent]()
    bad = Timer(several.timers, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    bad.start(1)
    several.timer("good", 1)
    globalLogPublisher.addObserver(logged.append)
    try:
        several.clock.advance(1)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert several.expired == [("good", 1)]
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
