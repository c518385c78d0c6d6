"""
TLS over a transport, without the waits of Twisted's.

Twisted's own transport keeps what is written until the next turn of the loop,
in the hope of more, and gives each 16 KiB of it to the socket by itself; what
has come it gives to the protocol record by record.  What is written here is
whole already: it is encrypted at once, and goes out in one piece, and what has
come is received in one.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

RECORD: Final = 16 * 1024
"""The most octets of one record (RFC 8446 section 5.1)."""

_HEADER: Final = 5
_LENGTH_AT: Final = 3
"""Of a record's header: its octets, and where among them the length of what follows begins (the same section)."""

_PIECE: Final = 128 * 1024
"""The most octets that go to the socket at once."""


class _Records:
    """Follows the records that come by their headers."""

    def __init__(self) -> None:
        self._missing = 0  # octets of the last one that are still to come
        self._header = b""  # what is there of a header that is not whole

    def is_one(self, octets: bytes) -> bool:
        """
        Follow the next octets that have come.

        @return: whether they are one whole record, no more and no less.
        """
        if not (self._missing or self._header):
            if len(octets) == _HEADER + int.from_bytes(octets[_LENGTH_AT:_HEADER], "big"):
                return True
        octets = self._header + octets
        size = len(octets)
        end = self._missing
        while end + _HEADER <= size:
            end += _HEADER + int.from_bytes(octets[end + _LENGTH_AT : end + _HEADER], "big")
        self._missing = max(0, end - size)
        self._header = octets[end:]
        return False


class PromptTLS(TLSMemoryBIOProtocol):
    """One connection."""

    transport: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._records = _Records()
        self._has_one = False

    def dataReceived(self, bytes: bytes) -> None:
        self._has_one = self._records.is_one(bytes)
        if self._handshakeDone and not self._appSendBuffer:
            # What is left of Twisted's own then.
            self._tlsConnection.bio_write(bytes)
            self._flushReceiveBIO()
        else:
            super().dataReceived(bytes)

    def _write(self, bytes: bytes) -> None:
        if self._lostTLSConnection:
            return
        at = 0
        size = len(bytes)
        try:
            while at < size:
                # One record for each call, whatever it is given.
                at += self._tlsConnection.send(bytes[at : at + RECORD] if size > RECORD else bytes)
        except SSL.WantReadError:
            self._bufferedWrite(bytes[at:])
        except SSL.Error:
            self._tlsShutdownFinished(Failure())
            return
        if at:
            self._flushSendBIO()

    def _flushReceiveBIO(self) -> None:
        # All records that have come are given to the protocol together, and only then what ended them.  Most requests
        # and answers are one: behind it there is nothing, and no reading of it makes anything to be sent.  To ask
        # OpenSSL for both would cost as much again.
        pieces: list[bytes] = []
        ended = False
        failure: Failure | None = None
        try:
            while not self._lostTLSConnection:
                pieces.append(self._tlsConnection.recv(RECORD))
                if self._has_one:
                    break
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            ended = True
        except SSL.Error:
            ended, failure = True, Failure()
        if pieces and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if ended and not self._lostTLSConnection:
            if failure is None:
                self._shutdownTLS()
            self._tlsShutdownFinished(failure)
        if not (self._has_one and pieces):
            self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        try:
            while True:
                octets = self._tlsConnection.bio_read(_PIECE)
                self.transport.write(octets)
                if len(octets) < _PIECE:
                    return
        except SSL.WantReadError:
            pass


class PromptTLSFactory(TLSMemoryBIOFactory):
    """Makes them, as C{TLSMemoryBIOFactory} does."""

    protocol = PromptTLS

    def __init__(self, creator: Any, is_client: bool, factory: IProtocolFactory) -> None:
        # Nothing here waits for a clock; without one Twisted takes the process's reactor.
        super().__init__(creator, is_client, factory, Clock())
