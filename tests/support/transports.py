"""A transport in memory that fills up, can be paused, half closed, reset: what iosim's is not."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

HIGH = 64 * 1024
"""Octets over which a producer is paused, as in Twisted's own transports."""


@implementer(ITCPTransport, IPushProducer)
class BoundedTransport:
    """
    One end of a connection; the test is the peer at the other.

    It behaves as Twisted's TCP transports do: what C{write} is given goes into
    a buffer, which pauses the producer when it is over L{HIGH} and resumes it
    when it is empty; losses are reported from the reactor's loop, never from
    within a call.

    @ivar protocol: who is told of what the peer does.
    @ivar is_paused: the protocol wants no octets for now.
    @ivar has_ended: C{loseWriteConnection} was called, and all is sent.
    @ivar is_aborted: the protocol cut the connection off.
    """

    def __init__(self, protocol: Any, clock: Clock, high: int = HIGH) -> None:
        self.protocol = protocol
        self.clock = clock
        self.is_paused = False
        self.is_connected = True
        self.is_disconnecting = False
        self.has_ended = False
        self.is_aborted = False
        self._high = high
        self._unsent = bytearray()
        self._unread: list[bytes] = []
        self._peer_ended = False
        self._is_ending = False
        self._producer: Any = None
        self._is_full = False

    # The peer

    def deliver(self, data: bytes) -> None:
        """The peer sends something; it waits while reading is paused."""
        assert self.is_connected and not self._peer_ended
        self._unread.append(data)
        self._read()

    def end(self) -> None:
        """The peer sends no more: that is seen when all has been read."""
        self._peer_ended = True
        self._read()

    def reset(self) -> None:
        """The peer resets the connection."""
        self._lose(ConnectionLost())

    def take(self, size: int | None = None) -> bytes:
        """
        The peer reads.

        @param size: at most so many octets.
        """
        taken = bytes(self._unsent if size is None else self._unsent[:size])
        del self._unsent[: len(taken)]
        if not self._unsent:
            if self._is_full:
                self._is_full = False
                if self._producer is not None:
                    self._producer.resumeProducing()
            if not self._unsent:
                self._sent()
        return taken

    @property
    def unsent(self) -> int:
        """How many octets the peer has not read."""
        return len(self._unsent)

    @property
    def is_waiting(self) -> bool:
        """Whether the peer has sent something that was not read."""
        return bool(self._unread)

    def _sent(self) -> None:
        self.has_ended = self.has_ended or self._is_ending
        if self.is_disconnecting:
            self.clock.callLater(0, self._lose, ConnectionDone())

    def _read(self) -> None:
        while self._unread and not self.is_paused and not self.is_disconnecting and self.is_connected:
            self.protocol.dataReceived(self._unread.pop(0))
        if self._peer_ended and not self._unread and not self.is_paused:
            self.clock.callLater(0, self._lose, ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        if self.is_connected:
            self.is_connected = False
            if self._producer is not None:
                self._producer.stopProducing()
                self._producer = None
            protocol, self.protocol = self.protocol, None
            protocol.connectionLost(Failure(reason))

    # ITCPTransport

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes) and data
        if self.is_connected and not self._is_ending and not self.is_aborted:
            self._unsent += data
            if self._producer is not None and not self._is_full and len(self._unsent) > self._high:
                self._is_full = True
                self._producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        assert self._producer is None, "TLS does not end while a producer is registered"
        if not self.is_disconnecting and self.is_connected:
            self.is_disconnecting = True
            if not self._unsent:
                self._sent()

    def loseWriteConnection(self) -> None:
        self._is_ending = True
        if not self._unsent:
            self._sent()

    def abortConnection(self) -> None:
        if not self.is_aborted and self.is_connected:
            self.is_aborted = self.is_paused = True
            self._unsent.clear()
            self.clock.callLater(0, self._lose, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 80)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is nothing to delay."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing is kept alive."""

    def getTcpKeepAlive(self) -> bool:
        return False

    # IPushProducer

    def pauseProducing(self) -> None:
        assert self.is_connected, "a lost transport was paused"
        self.is_paused = True

    def resumeProducing(self) -> None:
        assert self.is_connected, "a lost transport was resumed"
        if not self.is_aborted:
            self.is_paused = False
            self.clock.callLater(0, self._read)

    def stopProducing(self) -> None:
        self.loseConnection()
