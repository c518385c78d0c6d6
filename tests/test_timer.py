"""Deadlines that move."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from proxyd.timer import Timer


class Watched:
    """A timer, and when it expired."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.timer = Timer(self.clock, lambda: self.expired.append(self.clock.seconds()))

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

    timer = Timer(clock, tick)
    timer.start(5)
    clock.pump([1] * 16)
    assert expired == [5, 10, 15]
