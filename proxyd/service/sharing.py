"""
Several processes that listen on the same sockets, and share the connections evenly.

A connection that waits wakes all of them, and whoever is first takes it.  Left
alone, one process may take nearly all that come in one go; and as connections
live long, it would keep them.  So each knows how many connections the others
have, in memory that they share, and one that is ahead steps back for a moment.
Nothing stands between a client and the process that serves it.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from proxyd.forward.site import ProxySite
from proxyd.ports import adopt_unix_port
from proxyd.reactor import PromptReactor
from proxyd.tls import PromptTLSFactory

STEP_BACK_S: Final = 0.002
"""Seconds for which a process that is ahead leaves connections to the others."""

STEPS: Final = 5
"""How often it steps back; then it takes one all the same: the others may be stuck."""

ABSENT: Final = -1
"""The count of a process that accepts nobody."""


class Tally:
    """
    How many connections each process has, in memory that all share.

    Each has a place, where only it writes; a number is read and written whole.
    """

    def __init__(self, descriptor: int, places: int) -> None:
        """
        @param descriptor: of the memory (see L{shared_memory}).
        """
        memory = mmap.mmap(descriptor, places * 4)
        self._counts = memoryview(memory).cast("i")

    def set(self, place: int, count: int) -> None:
        """Say how many connections one has, or that it is L{ABSENT}."""
        self._counts[place] = count

    def is_ahead(self, place: int, count: int) -> bool:
        """Whether one with so many connections has clearly more than another one that accepts."""
        lead = 1 + count // 8
        return any(other != ABSENT and count - other >= lead and at != place for at, other in enumerate(self._counts))


def shared_memory(places: int) -> int:
    """
    @return: a descriptor of memory for a L{Tally}, in which all are L{ABSENT}.
    """
    descriptor = os.memfd_create("proxyd-tally")
    os.write(descriptor, b"\xff" * (places * 4))
    return descriptor


class Share:
    """One process's place among the others."""

    def __init__(self, reactor: Any, tally: Tally, place: int) -> None:
        self._reactor = reactor
        self._tally = tally
        self._place = place
        self._is_accepting = False

    def site(self, *arguments: Any) -> ProxySite:
        """A factory of clients' connections that says how many there are."""
        return _CountedSite(self, *arguments)

    def count(self, site: ProxySite, is_accepting: bool | None = None) -> None:
        """Say how many connections there are, and whether others are accepted."""
        if is_accepting is not None:
            self._is_accepting = is_accepting
        self._tally.set(self._place, site.open if self._is_accepting else ABSENT)

    def take_turns(self, port: Any, site: ProxySite) -> None:
        """Have a port accept one connection at a time, and step back when this process is ahead."""
        accept: Callable[[], Any] = port.doRead

        steps = 0

        def step_back() -> None:
            nonlocal steps
            steps += 1
            self._reactor.callLater(STEP_BACK_S, resume)

        def resume() -> None:
            nonlocal steps
            # There may be no more room by now: then whoever makes room has the port read again.
            if not (self._is_accepting and site.accepts and port.connected):
                steps = 0
            elif steps < STEPS and self._tally.is_ahead(self._place, site.open):
                step_back()
            else:
                steps = 0
                port.startReading()
                accept_one()

        def accept_one() -> None:
            # Twisted's ports take more and more in one go.
            port.numberAccepts = 1
            accept()

        def do_read() -> None:
            if self._tally.is_ahead(self._place, site.open):
                port.stopReading()
                step_back()
            else:
                accept_one()

        port.doRead = do_read


class _CountedSite(ProxySite):
    """A L{ProxySite} that tells the other processes how many connections it has."""

    def __init__(self, share: Share, *arguments: Any) -> None:
        self._share = share
        super().__init__(*arguments)

    def connection_made(self, channel: Any) -> bool:
        has_room = super().connection_made(channel)
        self._share.count(self)
        return has_room

    def connection_ended(self) -> None:
        super().connection_ended()
        self._share.count(self)


class SharedSocket:
    """
    A reactor for one endpoint: whatever that would listen on, it listens on a socket that is open already.

    So every endpoint whose listening ends at a stream socket can be shared,
    with all that its string says of TLS.
    """

    def __init__(self, reactor: Any, listening: socket.socket, opened: Callable[[Any], None]) -> None:
        """
        @param opened: called with the port.
        """
        self._reactor = reactor
        self._socket = listening
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt(factory)

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self._adopt(factory)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        return self._adopt(PromptTLSFactory(contextFactory, False, factory))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory) -> Any:
        return self._adopt(factory)

    def _adopt(self, factory: IProtocolFactory) -> IListeningPort:
        descriptor, family = self._socket.fileno(), self._socket.family
        port: Any
        if family == socket.AF_UNIX and not isinstance(self._reactor, PromptReactor):
            port = adopt_unix_port(unix.Port, self._reactor, descriptor, factory)
        else:
            port = self._reactor.adoptStreamPort(descriptor, family, factory)
        self._socket.close()
        self._opened(port)
        return port  # type: ignore[no-any-return]
