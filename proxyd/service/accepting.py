"""Ports that wait when the system has no descriptor left for another connection."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

log = Logger()

PAUSE_S: Final = 0.5
"""Seconds until accepting is tried again, as nginx does it (C{accept_mutex_delay})."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Patient:
    """
    A port's socket that accepts nobody for a while when there is nothing to accept them with.

    Twisted closes the connections of all who wait then, with two lines for
    each; or else it tries again at once, for as long as that lasts.  Here they
    wait until there is room.
    """

    def __init__(self, port: Port, clock: IReactorTime, may_accept: Callable[[], bool]) -> None:
        self._port = port
        self._socket = port.socket
        self._accept = port.socket.accept
        self._clock = clock
        self._may_accept = may_accept
        self._is_exhausted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> Any:
        """As a socket's."""
        try:
            return self._accept()
        except BlockingIOError:
            self._set_exhausted(None)
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:
                # The process that opened it has shut it down for all that share it: nobody comes any more.
                self._port.stopReading()
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
            if error.errno not in _EXHAUSTED:
                raise
            self._set_exhausted(error)
            self._port.stopReading()
            self._clock.callLater(PAUSE_S, self._try_again)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _try_again(self) -> None:
        # Else whoever keeps the port from accepting lets it when there is room.
        if self._port.connected and not self._port.disconnecting and self._may_accept():
            self._port.startReading()

    def _set_exhausted(self, error: OSError | None) -> None:
        """
        @param error: what was wrong, or L{None} when all who waited have been accepted.
        """
        before, self._is_exhausted = self._is_exhausted, error is not None
        if error is not None and not before:
            log.error(
                "{address} accepts nobody until there is room: {error} (ulimit -n)",
                address=self._port.getHost(),
                error=error.strerror,
            )
        elif before and error is None:
            log.info("{address} accepts connections again", address=self._port.getHost())


def patient(port: IListeningPort, clock: IReactorTime, may_accept: Callable[[], bool]) -> IListeningPort:
    """
    Make a port wait when there are no descriptors.

    @param may_accept: whether it is to accept connections for all that others know.
    """
    if isinstance(port, Port):
        port.socket = _Patient(port, clock, may_accept)
    return port
