"""
TCP to an address.

Twisted's own endpoint, its factory and the connector know each other for ever:
each connection leaves a cycle of ten objects to the garbage collector.  And its
protocol stays between the transport and the one that was asked for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import IAddress, IConnector, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.transports import give_to


@implementer(IStreamClientEndpoint)
class AddressEndpoint:
    """Connects to an address of IPv4 or IPv6."""

    def __init__(self, reactor: Any, host: str, port: int, timeout: float | None) -> None:
        """
        @param timeout: seconds; L{None} where whoever connects keeps the time.
        """
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        attempt = _Attempt(protocolFactory)
        try:
            self._reactor.connectTCP(self._host, self._port, attempt, timeout=self._timeout)
        except Exception:
            return fail()
        return attempt.connected


class _Attempt(protocol.ClientFactory):
    """
    Makes one connection.

    @ivar connected: what it comes to.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._connector: IConnector | None = None
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        connector = self._connector
        assert connector is not None
        connected.errback(ConnectingCancelledError(connector.getDestination()))
        connector.stopConnecting()

    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol | None:
        self._connector = None
        try:
            made = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
            if made is None:
                raise NoProtocol
        except Exception:
            self.connected.errback(Failure())
            return None
        return _Connected(made, self.connected)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._connector = None
        # Else it was cancelled.
        if not self.connected.called:
            self.connected.errback(reason)


class _Connected(protocol.Protocol):
    """Gives the transport to its protocol; what a transport still tells of itself here, it hears, too."""

    transport: Any

    def __init__(self, made: IProtocol, connected: Deferred[IProtocol]) -> None:
        self._made = made
        self._connected = connected

    def connectionMade(self) -> None:
        give_to(self.transport, self._made)
        self._made.makeConnection(self.transport)
        self._connected.callback(self._made)

    def dataReceived(self, data: bytes) -> None:
        self._made.dataReceived(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._made.connectionLost(reason)
