"""
The least that a proxy costs on proxyd's reactor: C{bare_relay.py PORT ORIGIN}.

It hands a client's octets to the origin server and back, and looks at nothing
but whether the client wants its connection closed.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from proxyd.reactor import install

_CLOSE = b"Connection: close\r\n"


class _Origin(Protocol):
    """A connection to the origin server, and the client that it is for."""

    transport: Any

    def __init__(self, client: _Client) -> None:
        self.client: _Client | None = client

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        assert self.client is not None
        self.client.reached(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.client is not None
        self.client.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.client is not None:
            self.client.transport.loseConnection()


class _Client(Protocol):
    """A client's connection."""

    transport: Any

    def __init__(self, clients: _Clients) -> None:
        self._clients = clients

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._waiting = b""
        self._closes = False
        unused = self._clients.unused
        self._origin: _Origin | None = unused.pop() if unused else None
        if self._origin is None:
            self._clients.connect(self)
        else:
            self._origin.client = self

    def reached(self, origin: _Origin) -> None:
        self._origin = origin
        origin.transport.write(self._waiting)

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            kept = data.replace(_CLOSE, b"")
            self._closes = len(kept) < len(data)
            data = kept
        if self._origin is None:
            self._waiting += data
        else:
            self._origin.transport.write(data)

    def answered(self, data: bytes) -> None:
        self.transport.write(data)
        if self._closes and self._origin is not None:
            self._origin.client = None
            self._clients.unused.append(self._origin)
            self._origin = None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._origin is not None:
            self._origin.transport.loseConnection()


class _Clients(Factory):
    """Makes them; connections to the origin server are used again."""

    noisy = False

    def __init__(self, reactor: Any, origin: int) -> None:
        self.unused: list[_Origin] = []
        self._reactor = reactor
        self._port = origin

    def buildProtocol(self, addr: object) -> _Client:
        return _Client(self)

    def connect(self, client: _Client) -> None:
        """Connect to the origin server for a client."""
        self._reactor.connectTCP("127.0.0.1", self._port, _Attempt(client))


class _Attempt(ClientFactory):
    """Makes one connection to the origin server."""

    noisy = False

    def __init__(self, client: _Client) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> _Origin:
        return _Origin(self._client)


def main(port: str, origin: str) -> None:
    """Serve until the process is ended."""
    install()
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    TCP4ServerEndpoint(reactor, int(port), 4096, "127.0.0.1").listen(_Clients(reactor, int(origin)))
    reactor.run()


main(*sys.argv[1:])
