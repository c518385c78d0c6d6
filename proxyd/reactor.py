"""
Twisted's epoll reactor with sockets that send once a turn (L{proxyd.sockets}).

The poll loop leaves out the logging context of each event.  Together they
halve a request's cost (44 to 25 µs when they were measured).  What was begun
goes before what is new (L{proxyd.polling}).

All sockets of the reactor are of this kind, so every endpoint gets them:
C{HostnameEndpoint}, C{ssl:}, systemd's sockets.

Its time is the machine's monotonic one.  That of Twisted's own reactors is the
wall clock: when somebody sets it, all time-outs fire at once, or none does for
as long as it was set back.

Nothing in proxyd relies on any of this: every other reactor works, more
slowly, and as long as nobody sets the clock.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from twisted.internet.epollreactor import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPollReactor
from twisted.internet.interfaces import IConnector, IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.main import CONNECTION_DONE, installReactor
from twisted.internet.tcp import Connection
from twisted.logger import Logger

from proxyd.polling import Polling
from proxyd.ports import TCPConnector, TCPPort, UNIXConnector, UNIXPort, adopt_unix_port
from proxyd.sockets import DONE, Prompt, PromptTCP
from proxyd.splicing import Pipe

log = Logger()


class PromptReactor(EPollReactor):
    """
    The epoll reactor whose sockets send once a turn, and whose time nobody sets.

    @ivar pipe: what its sockets move octets through.
    @ivar unsent: the connections with something that was written within this turn.
    @ivar at_end: what is called when that has been sent.
    @ivar reading: the descriptors that are waited for to be readable.
    @ivar writing: those that are to be writable.
    """

    seconds = staticmethod(monotonic)
    _reads: set[int]
    _writes: set[int]
    _poller: Any

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.unsent: list[Prompt] = []
        self.at_end: list[Callable[[], None]] = []
        # Descriptors that began to be waited for within this turn.
        self._fresh: set[int] = set()
        super().__init__()
        self._poller = Polling(self._poller)
        self.reading = self._reads
        self.writing = self._writes

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        listening = TCPPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> IConnector:
        connector = TCPConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        listening = UNIXPort(address, factory, backlog, mode, self, wantPID)  # type: ignore[arg-type]
        listening.startListening()
        return cast(IListeningPort, listening)

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False) -> IConnector:
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory) -> IListeningPort:
        if addressFamily == socket.AF_UNIX:
            return adopt_unix_port(UNIXPort, self, fileDescriptor, factory)
        listening: Any = TCPPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return cast(IListeningPort, listening)

    def watch(self, connection: PromptTCP, writing: bool = False) -> None:
        """Wait for a connection that has only just begun to be readable, and to be writable, too."""
        fd = connection.fileno()
        self._fresh.add(fd)
        if connection.made:
            self._poller.prefer(fd)
        self._poller.register(fd, EPOLLIN | EPOLLOUT if writing else EPOLLIN)
        self._reads.add(fd)
        if writing:
            self._writes.add(fd)
        self._selectables[fd] = connection

    def _add(self, xer: Any, *others: Any) -> None:
        fd = xer.fileno()
        self._fresh.add(fd)
        if getattr(xer, "made", False):
            self._poller.prefer(fd)
        super()._add(xer, *others)

    def _doReadOrWrite(self, selectable: Any, fd: int, event: int) -> None:
        if event & (EPOLLERR | EPOLLHUP) and fd in self._reads and isinstance(selectable, Connection):
            # For a moment Linux tells of a reset without saying that it can be read; to Twisted this would be an end
            # in good order, and what came before it the whole.
            event |= EPOLLIN
        super()._doReadOrWrite(selectable, fd, event)

    def _disconnectSelectable(self, selectable: Any, why: Any, isRead: bool, *others: Any) -> None:
        if isRead and why is CONNECTION_DONE and isinstance(selectable, PromptTCP):
            # Mostly it is closed then, and need not be taken out of the poll first.
            selectable.readConnectionLost(DONE)
        else:
            super()._disconnectSelectable(selectable, why, isRead, *others)

    def forget(self, fd: int) -> None:
        """Wait no more for a descriptor, about to be closed: that is all that the kernel needs to be told."""
        if self._selectables.pop(fd, None) is not None:
            self._reads.discard(fd)
            self._writes.discard(fd)
            self._poller.forget(fd)

    def _settle(self) -> None:
        """Send what was written, and do what is to be done after it, until nothing is left of either."""
        while self.unsent or self.at_end:
            unsent, self.unsent = self.unsent, []
            for connection in unsent:
                try:
                    connection.send()
                except BaseException:
                    # As below: it costs nobody else anything.
                    log.failure("{connection} failed while sending", connection=connection)
            if self.unsent:
                continue
            at_end, self.at_end = self.at_end, []
            for call in at_end:
                try:
                    call()
                except BaseException:
                    log.failure("{call} failed at the end of a turn", call=call)

    def doPoll(self, timeout: float | None) -> None:
        if self.unsent or self.at_end:
            # By delayed calls.  What this may lead to does not wait for an event.
            self._settle()
            timeout = 0
        try:
            events = self._poller.poll(-1 if timeout is None else timeout)
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        selectables = self._selectables
        fresh = self._fresh
        fresh.clear()
        for fd, event in events:
            selectable = selectables.get(fd)
            # An event of a descriptor that was closed meanwhile is not for whoever has its number now.
            if selectable is None or fd in fresh:
                continue
            if event != EPOLLIN:
                self._doReadOrWrite(selectable, fd, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException:
                # As Twisted has it: a protocol's exception costs its own connection, never the reactor.
                log.failure("{selectable} failed while reading", selectable=selectable)
                why = sys.exc_info()[1]
            if why:
                self._disconnectSelectable(selectable, why, True)
        self._settle()

    doIteration = doPoll


def when_turn_ends(reactor: IReactorTime, call: Callable[[], None]) -> None:
    """Call something when all that was written within this turn of the reactor has been sent."""
    if isinstance(reactor, PromptReactor):
        reactor.at_end.append(call)
    else:
        reactor.callLater(0.0, call)


def install() -> None:
    """Make L{PromptReactor} the process's reactor."""
    installReactor(PromptReactor())
