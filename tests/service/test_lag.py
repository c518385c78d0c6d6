"""L{proxyd.service.lag}."""

from __future__ import annotations

from twisted.internet.task import Clock

from proxyd.service.lag import LOOK_S, Lag


def test_lag() -> None:
    """How late the reactor looks again is its lag; the worst is kept until somebody has read it."""
    clock = Clock()
    lag = Lag(clock)
    lag.start()
    clock.advance(LOOK_S)
    assert (lag.last, lag.worst) == (0, 0)
    clock.advance(LOOK_S + 0.25)
    assert (lag.last, lag.worst) == (0.25, 0.25)
    clock.advance(LOOK_S)
    assert (lag.last, lag.worst) == (0, 0.25)
    lag.stop()
    assert not clock.getDelayedCalls()
