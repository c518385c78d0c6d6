"""Deadlines that move with every request, and so must cost nothing to move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()

GRAIN_S: Final = 1 / 8
"""Seconds by which a deadline may be missed, so that those of many connections are looked at together."""


def _nobody() -> None:
    """Who is called by a timer that was cancelled: it is not started again."""


class Timers:
    """
    What timers share: one of the reactor's delayed calls for all whose deadlines lie within one L{GRAIN_S}.

    A delayed call of its own would cost a connection more than all the rest of its timer.

    @ivar now: the clock's time, seconds; found at once, where a method of the clock would be looked up.
    """

    __slots__ = ("_clock", "_ticks", "now")

    def __init__(self, clock: IReactorTime) -> None:
        self.now = clock.seconds
        self._clock = clock
        self._ticks: dict[int, _Tick] = {}

    def tick_after(self, deadline: float) -> _Tick:
        """The first one that is not before a deadline."""
        number = math.ceil(deadline / GRAIN_S)
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._ticks[number] = _Tick(self._clock, self._ticks, number)
        return tick


class _Tick:
    """
    A moment when some timers are looked at.

    @ivar since: the moment of the one before.
    @ivar waiting: those timers, in the order in which they came.
    """

    __slots__ = ("_call", "_number", "_ticks", "since", "waiting")

    def __init__(self, clock: IReactorTime, ticks: dict[int, _Tick], number: int) -> None:
        self._ticks = ticks
        self._number = number
        self.since = (number - 1) * GRAIN_S
        self.waiting: dict[Timer, None] = {}
        self._call = clock.callLater(max(number * GRAIN_S - clock.seconds(), 0.0), self._come)

    def leave(self, timer: Timer) -> None:
        """One timer waits no more."""
        del self.waiting[timer]
        if not self.waiting and self._call.active():
            self._call.cancel()
            del self._ticks[self._number]

    def _come(self) -> None:
        del self._ticks[self._number]
        for timer in list(self.waiting):
            # Not if whom an earlier one called has cancelled it.
            if timer in self.waiting:
                try:
                    timer.look()
                except Exception:
                    # It costs nobody else's deadline.
                    log.failure("what a deadline led to failed")


class Timer:
    """
    Calls back when a deadline passes.

    A connection's deadline moves several times a request, nearly always to
    later.  Moving it then is one assignment: the timer waits for the same tick
    as before, and then looks again.
    """

    __slots__ = ("_deadline", "_expired", "_now", "_since", "_tick", "_timers")

    def __init__(self, timers: Timers, expired: Callable[[], None]) -> None:
        """
        @param expired: called when the deadline has passed; the timer is then stopped.
        """
        self._timers = timers
        self._now = timers.now
        self._expired = expired
        self._deadline: float | None = None
        self._tick: _Tick | None = None
        self._since = math.inf  # a deadline until then needs another tick

    @property
    def is_running(self) -> bool:
        """Whether there is a deadline."""
        return self._deadline is not None

    def start(self, seconds: float) -> None:
        """Set the deadline, or none at all with 0."""
        if not seconds:
            self._deadline = None
            return
        # What is in a variable is called at once; as a method it would be looked up.
        now = self._now
        self._deadline = deadline = now() + seconds
        if self._since >= deadline:
            if self._tick is not None:
                self._leave()
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        tick = self._tick = self._timers.tick_after(deadline)
        tick.waiting[self] = None
        self._since = tick.since

    def _leave(self) -> None:
        tick, self._tick = self._tick, None
        self._since = math.inf
        if tick is not None:
            tick.leave(self)

    def stop(self) -> None:
        """Forget the deadline, for now."""
        self._deadline = None

    def cancel(self) -> None:
        """Forget the deadline for good, and let go of the reactor and of who was to be called."""
        self._deadline = None
        self._expired = _nobody
        self._leave()

    def look(self) -> None:
        """A tick has come."""
        self._leave()
        if self._deadline is None:
            return
        if self._deadline > self._now():
            self._wait(self._deadline)
        else:
            self._deadline = None
            self._expired()
