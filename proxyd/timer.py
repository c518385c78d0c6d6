"""Deadlines that move with every request, and so must cost nothing to move."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


def _nobody() -> None:
    """Who is called by a timer that was cancelled: it is not started again."""


class Timer:
    """
    Calls back when a deadline passes.

    A connection's deadline moves several times a request, nearly always to
    later.  Moving it then is one assignment: the reactor's delayed call stays
    where it is, and looks again when its time has come.
    """

    __slots__ = ("_call", "_clock", "_deadline", "_due", "_expired", "_now")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        """
        @param expired: called when the deadline has passed; the timer is then stopped.
        """
        self._clock = clock
        self._now = clock.seconds
        self._expired = expired
        self._deadline: float | None = None
        self._call: IDelayedCall | None = None
        self._due = math.inf  # when that is

    def start(self, seconds: float) -> None:
        """Set the deadline, or none at all with 0."""
        if not seconds:
            self._deadline = None
            return
        # What is in a variable is called at once; as a method it would be looked up.
        now = self._now
        self._deadline = deadline = now() + seconds
        if self._due > deadline:
            if self._call is not None:
                # A new call instead of reset(): moving one to sooner searches the reactor's whole heap.
                self._call.cancel()
            self._wait(seconds, deadline)

    def _wait(self, seconds: float, due: float) -> None:
        self._due = due
        self._call = self._clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """Forget the deadline, for now."""
        self._deadline = None

    def cancel(self) -> None:
        """Forget the deadline for good, and let go of the reactor and of who was to be called."""
        self._deadline = None
        self._expired = _nobody
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._due = math.inf

    def _look(self) -> None:
        self._call = None
        self._due = math.inf
        if self._deadline is None:
            return
        remaining = self._deadline - self._now()
        if remaining > 0:
            self._wait(remaining, self._deadline)
        else:
            self._deadline = None
            self._expired()
