"""How late the reactor is: what holds it up shows there."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LOOK_S: Final = 0.5
"""Seconds between two looks."""


class Lag:
    """
    Looks every L{LOOK_S} how late it is called.

    @ivar last: how late it was at the last look, seconds.
    @ivar worst: how late it was at most, until somebody sets it to 0 again.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.last = self.worst = 0.0
        self._clock = clock
        self._due = 0.0
        self._looking: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look."""
        self._due = self._clock.seconds() + LOOK_S
        self._looking = self._clock.callLater(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None and self._looking.active():
            self._looking.cancel()

    def _look(self) -> None:
        self.last = max(0.0, self._clock.seconds() - self._due)
        self.worst = max(self.worst, self.last)
        self.start()
