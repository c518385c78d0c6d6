"""
Sockets that send once a turn.

Twisted's sockets put every write into a list and send it when the next poll
says that the socket is writable: two system calls and one turn of the loop
more than a proxy needs, since its sockets hardly ever are not.  Here what was
written within a turn of the loop is sent when the turn is over, by one system
call for each connection; only what the socket does not take waits for a poll.
The other ends are woken up one right after the other then, and find all that
there is, which makes the kernel's part cheaper, too.

To end a connection takes fewer system calls than Twisted's, and what is only
to be handed on goes from socket to socket within the kernel
(L{proxyd.splicing}).  What makes connections of them is in L{proxyd.ports}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final, TypeVar

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.splicing import ISplicing, Move

SMALL: Final = 64 * 1024
"""Octets that are received at once, as Twisted has it."""

LARGE: Final = 256 * 1024
"""Octets that are received at once from whoever has just sent more than L{SMALL}."""

DONE: Final = Failure(CONNECTION_DONE)


@implementer(ISplicing)
class Prompt:
    """
    A mix-in for C{twisted.internet.tcp.Connection}: it sends once a turn, ends without asking the kernel for more than
    that, and moves octets within the kernel.

    Errors of C{send} are left to the queue's own attempt, which reports the
    loss from the reactor's loop: nothing here calls the protocol back but to
    pause its producer.

    @cvar made: it was made here, and not accepted (L{proxyd.polling}).
    @ivar written: octets that were written within this turn.
    @ivar instead: what is done for now where octets would be received.
    @ivar is_reset: the kernel has said that the connection is broken, which it says once; then it tells of an end in
        good order.
    """

    reactor: Any
    socket: Any
    protocol: Any
    producer: Any
    _shouldShutdown = False
    fileno: Callable[[], int]
    _closeSocket: Callable[[bool], None]
    bufferSize: int
    connected: int
    disconnecting: int
    disconnected: int
    dataBuffer: bytes
    TLS: bool
    made = False
    _tempDataLen: int
    _writeDisconnecting: bool
    _writeDisconnected: bool
    _aborting: bool
    written = 0
    _pieces: list[bytes]
    _ends = False
    is_reset = False
    instead: Callable[[], Any] | None = None
    _room = SMALL
    _goes_straight = False  # is_free() as it was found last; what changes it for the worse says so

    def is_free(self) -> bool:
        """Whether octets may go straight to the socket: none wait that were written before."""
        return not (
            self._tempDataLen
            or self.dataBuffer
            or not self.connected
            or self.TLS
            or self._writeDisconnected
            or self._aborting
        )

    def write(self, data: bytes) -> None:
        """Take octets, to be sent when this turn is over."""
        if self.written:
            self._pieces.append(data)
        elif not data:
            return
        elif self._goes_straight or self._look():
            self._pieces = [data]
            self.reactor.unsent.append(self)
        else:
            self._queue(data)
            return
        self.written += len(data)
        if self.written > SMALL:
            # Whoever writes that much is to hear that the socket is full.
            self.send()

    def _look(self) -> bool:
        self._goes_straight = self.is_free()
        return self._goes_straight

    def _queue(self, data: bytes) -> None:
        """Have the reactor send this when the socket takes more."""
        self._goes_straight = False
        super().write(data)  # type: ignore[misc]

    def send(self) -> None:
        """Send what was written within this turn, as far as the socket takes it; the rest is queued."""
        if not self.written:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.written = 0
        if self._aborting:
            return
        try:
            if self._ends:
                # The last octets and the end go out in one segment; and by a shutdown, for if octets have come that
                # nobody reads, a mere close would drop what it finds unsent.
                sent = self.socket.send(data, socket.MSG_MORE)
                self._shouldShutdown = True
            else:
                sent = self.socket.send(data)
        except ConnectionResetError:
            self.is_reset = True
            sent = 0
        except OSError:
            sent = 0
        if sent < len(data):
            self._queue(data[sent:])

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def stopReading(self) -> None:
        # The end of a connection stops both again and again, mostly when there is nothing to stop.
        fd = self.fileno()
        if fd in self.reactor.reading or fd < 0:
            self.reactor.removeReader(self)

    def stopWriting(self) -> None:
        fd = self.fileno()
        if fd in self.reactor.writing or fd < 0:
            self.reactor.removeWriter(self)

    def loseConnection(self) -> None:
        if self.producer is None and not self.disconnecting and not self._writeDisconnecting and self.is_free():
            # Twisted waits until the socket is writable, to send what is not there.
            self.disconnecting = 1
            self._ends = True
            self.instead = do_nothing
            self.reactor.at_end.append(self._end)
        else:
            super().loseConnection()  # type: ignore[misc]

    def abortConnection(self) -> None:
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self._goes_straight = False
        self.stopReading()
        self.stopWriting()
        self.instead = do_nothing
        self.reactor.at_end.append(self._end)

    def _end(self) -> None:
        """This turn, in which the connection was to be ended, is over."""
        if self._aborting:
            self.connectionLost(Failure(ConnectionAborted()))
            return
        self._ends = False
        self.instead = None
        if not self.connected:
            return
        if self._tempDataLen or self.dataBuffer:
            # The socket did not take all: the queue's end is the connection's.
            self.stopReading()
        else:
            self.connectionLost(DONE)

    def startTLS(self, *arguments: Any, **options: Any) -> None:
        # TLS writes past us.
        self.send()
        self._goes_straight = False
        super().startTLS(*arguments, **options)  # type: ignore[misc]

    def splice(
        self,
        sink: Prompt,
        count: int,
        moved: Callable[[int], None],
        measure: Callable[[bytes], int] | None = None,
    ) -> None:
        """See L{ISplicing.splice}."""
        if self.instead is do_nothing:
            return  # about to end
        self.instead = Move(self, sink, count, moved, measure) if count else None
        # What comes after it is a head again, with as little behind it as may be: the rest is not to come through here.
        self._room = SMALL

    def doRead(self) -> Any:
        return super().doRead() if self.instead is None else self.instead()  # type: ignore[misc]

    def doWrite(self) -> Any:
        # An event may be for both, and what it was to be read for the end.
        return super().doWrite() if self.connected and not self._aborting else None  # type: ignore[misc]

    def connectionLost(self, reason: Failure) -> None:
        self.instead = None
        self._goes_straight = False
        if self.connected:
            self.send()
            # Nobody else has the socket: when it is closed, which it is at once, the kernel waits for it no more.
            self.reactor.forget(self.fileno())
        super().connectionLost(reason)  # type: ignore[misc]


_Kind = TypeVar("_Kind", bound="type[Prompt]")


def with_own_code(kind: _Kind) -> _Kind:
    """
    Give a class copies of the methods that each reading and writing calls.

    The interpreter learns where the attributes are that a piece of code asks
    for (PEP 659).  With two classes in turn it learns nothing.
    """
    for name in ("write", "send", "doRead"):
        method = getattr(kind, name)
        copy = FunctionType(
            method.__code__.replace(), method.__globals__, name, method.__defaults__, method.__closure__
        )
        setattr(kind, name, copy)
    return kind


class PromptTCP(Prompt):
    """The same, which receives more at once for as long as there is more."""

    def set_up(self, sock: Any, protocol: Any, reactor: Any) -> None:
        """
        What the constructor of Twisted's connections does.

        What is asked for with each reading and writing is kept in the object:
        in the class, where Twisted has it, it takes four times as long to be
        found.  And all is there from the beginning: what was not when the first
        connections were made, no later one finds as fast (PEP 412).
        """
        self.reactor = reactor
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol
        self.connected = self.disconnecting = self.disconnected = 0
        self.TLS = self._aborting = self._ends = self._shouldShutdown = self._goes_straight = False
        self._writeDisconnecting = self._writeDisconnected = False
        self.producer = None
        self.streamingProducer = False
        self.dataBuffer = b""
        self._pieces = []
        self._tempDataBuffer: list[bytes] = []
        self._tempDataLen = 0
        self.written = 0
        self.instead = None
        self._room = SMALL
        sock.setblocking(False)

    def doRead(self) -> Any:
        if self.instead is not None:
            return self.instead()
        room = self._room
        try:
            data = self.socket.recv(room)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_LOST if self.is_reset else CONNECTION_DONE
        if len(data) == room:
            self._room = LARGE
        elif room == LARGE:
            self._room = SMALL
        self.protocol.dataReceived(data)
        return None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is None and streaming and self.connected and not self.TLS:
            self.producer = producer
            self.streamingProducer = True
        else:
            super().registerProducer(producer, streaming)  # type: ignore[misc]

    def unregisterProducer(self) -> None:
        if self.disconnecting or self.TLS:
            super().unregisterProducer()  # type: ignore[misc]
        else:
            self.producer = None

    def readConnectionLost(self, reason: Failure) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            # It waits for no more octets, but goes on.
            self.stopReading()
            super().readConnectionLost(reason)  # type: ignore[misc]
        else:
            self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        # As Twisted's, in a third of the time.
        if self.disconnected:
            return
        self.instead = None
        self._goes_straight = False
        if self.written:
            self.send()
        # Nobody else has the socket: when it is closed, which it is at once, the kernel waits for it no more.
        self.reactor.forget(self.fileno())
        self.disconnected = 1
        self.connected = 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self._closeSocket(not self._aborting)
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)


def do_nothing() -> None:
    """What a connection that was not made, or that is about to end, does when it is told to read or write."""
