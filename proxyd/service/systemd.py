"""
What systemd is told: ready, reloading, stopping, and that the reactor still turns.

Nothing is said where nobody listens.

@see: sd_notify(3), systemd.service(5) (Type=notify, WatchdogSec)
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()


class Supervisor:
    """Whoever has started this process, and wants to know how it is."""

    def __init__(self, clock: IReactorTime, environment: Mapping[str, str]) -> None:
        self._clock = clock
        name = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._interval = 0.0
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._interval = int(environment.get("WATCHDOG_USEC", "0")) / 2e6
        self._pinging: IDelayedCall | None = None

    def ready(self, status: str) -> None:
        """The start, or a reload, is done."""
        self._tell("READY=1", f"STATUS={status}")
        if self._address and self._interval and self._pinging is None:
            self._ping()

    def reloading(self) -> None:
        """A reload begins; L{ready} ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def stopped(self) -> None:
        """Say no more."""
        if self._pinging is not None and self._pinging.active():
            self._pinging.cancel()

    def _ping(self) -> None:
        # While it drains, too: a drain may take longer than the watchdog waits.
        self._tell("WATCHDOG=1")
        self._pinging = self._clock.callLater(self._interval, self._ping)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                log.warn("systemd cannot be told {what}: {error}", what=lines[0], error=error)
