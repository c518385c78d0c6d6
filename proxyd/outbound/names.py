"""
Names, looked up by the system's resolver in threads that do nothing else.

Twisted looks names up in the reactor's pool of ten threads.  A name server that
is silent keeps a thread for ten seconds and more, so that ten requests would
stop the look-up of every other name, and all else that is done in that pool.
Here a look-up has a thread of its own, and all who ask for the same name at
the same time share it.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Final, Literal, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()

MAX_LOOK_UPS: Final = 100
"""Names that are looked up at once; others wait until one of these is found, or found not to be."""

_FAMILIES: Final[dict[type[IAddress], int]] = {IPv4Address: socket.AF_INET, IPv6Address: socket.AF_INET6}

_Kind = Literal["TCP", "UDP"]

_TYPES: Final[dict[_Kind, int]] = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}

_Question = tuple[str, int, int, _Kind]
"""What is asked for: host, port, family and transport."""


@implementer(IHostResolution)
class _LookUp:
    """What one who asks is waiting for."""

    def __init__(self, name: str, receiver: IResolutionReceiver, waiting: list[_LookUp]) -> None:
        self.name = name
        self.receiver = receiver
        self._waiting = waiting

    def cancel(self) -> None:
        """The thread cannot be stopped: it is not listened to any more."""
        self._waiting.remove(self)


@implementer(IHostnameResolver)
class Names:
    """Looks names up."""

    def __init__(self, reactor: Any, getaddrinfo: Callable[..., Any] | None = None) -> None:
        """
        @param getaddrinfo: asks the system, and may take its time.
        """
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo or socket.getaddrinfo
        self._waiting: dict[_Question, list[_LookUp]] = {}
        self._queue: deque[_Question] = deque()
        self._running = 0

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        family = _FAMILIES[addressTypes[0]] if addressTypes and len(set(addressTypes)) == 1 else socket.AF_UNSPEC
        question = hostName, portNumber, int(family), cast(_Kind, transportSemantics)
        waiting = self._waiting.get(question)
        if waiting is None:
            waiting = self._waiting[question] = []
            self._queue.append(question)
        look_up = _LookUp(hostName, resolutionReceiver, waiting)
        waiting.append(look_up)
        resolutionReceiver.resolutionBegan(look_up)
        self._start()
        return look_up

    def _start(self) -> None:
        while self._queue and self._running < MAX_LOOK_UPS:
            self._running += 1
            question = self._queue.popleft()
            try:
                # A daemon: whoever is still asking does not keep the process from ending.
                Thread(target=self._ask, args=(question,), name="looks up a name", daemon=True).start()
            except RuntimeError as error:
                log.error("{name} cannot be looked up: {error}", name=question[0], error=error)
                self._reactor.callFromThread(self._answered, question, [])

    def _ask(self, question: _Question) -> None:
        """In the thread: ask the system."""
        found: list[Any] = []
        try:
            host, port, family, kind = question
            found = self._getaddrinfo(host, port, family, _TYPES[kind])
        except (OSError, UnicodeError):
            pass  # there is no such name, or none to be asked for
        finally:
            self._reactor.callFromThread(self._answered, question, found)

    def _answered(self, question: _Question, found: list[Any]) -> None:
        self._running -= 1
        addresses = [
            (IPv6Address if family == socket.AF_INET6 else IPv4Address)(question[3], *address)
            for family, _, _, _, address in found
        ]
        # Who is told may make another one give up.
        waiting = self._waiting.pop(question)
        for look_up in list(waiting):
            if look_up in waiting:
                for address in addresses:
                    look_up.receiver.addressResolved(address)
                look_up.receiver.resolutionComplete()
        self._start()
