"""L{proxyd.outbound.address}: TCP to an address."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

from twisted.internet.error import ConnectingCancelledError, ConnectionDone, ConnectionRefusedError, NoProtocol
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from proxyd.outbound.address import AddressEndpoint
from proxyd.reactor import PromptReactor


class Recorder(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.told.append(reason.type)


FACTORY = Factory.forProtocol(Recorder)


class AddressTests(SynchronousTestCase):
    """L{AddressEndpoint} on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.endpoint = AddressEndpoint(self.reactor, "192.0.2.1", 81, None)

    def made(self) -> Any:
        """What the reactor gets for its transport."""
        return self.reactor.tcpClients[-1][2].buildProtocol(None)

    def test_interface(self) -> None:
        """It is an endpoint, and asks for what it was made with."""
        verifyObject(IStreamClientEndpoint, self.endpoint)
        self.endpoint.connect(FACTORY)
        host, port, _, timeout, address = self.reactor.tcpClients[-1]
        self.assertEqual((host, port, timeout, address), ("192.0.2.1", 81, None, None))

    def test_connected(self) -> None:
        """The protocol has its transport when the endpoint says that it is connected, and is the transport's."""
        connecting = self.endpoint.connect(FACTORY)
        transport: Any = StringTransport()
        self.made().makeConnection(transport)
        protocol = self.successResultOf(connecting)
        self.assertIs(protocol.transport, transport)
        self.assertIs(transport.protocol, protocol)

    def test_passedOn(self) -> None:
        """A transport that cannot be told of another protocol is heard all the same."""
        connecting = self.endpoint.connect(FACTORY)
        made = self.made()
        made.makeConnection(StringTransport())
        made.dataReceived(b"x")
        made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(connecting).told, [b"x", ConnectionDone])

    def test_refused(self) -> None:
        """Why there is no connection."""
        connecting = self.endpoint.connect(FACTORY)
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_cancelled(self) -> None:
        """Who cancels stops the attempt, and what comes of that is nobody's error."""
        connecting = self.endpoint.connect(FACTORY)
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def test_noProtocol(self) -> None:
        """A factory that makes none, or fails, is why there is no connection."""
        factory: Any = Factory()
        for error, make in ((NoProtocol, lambda addr: None), (ZeroDivisionError, lambda addr: 1 // 0)):
            factory.buildProtocol = make
            connecting = self.endpoint.connect(factory)
            self.assertIsNone(self.made())
            self.failureResultOf(connecting, error)

    def test_reactorThatCannot(self) -> None:
        """What the reactor raises is why there is no connection."""
        self.endpoint = AddressEndpoint(object(), "192.0.2.1", 81, None)
        self.failureResultOf(self.endpoint.connect(FACTORY), AttributeError)


def test_nothing_is_left() -> None:
    """A connection that has ended is gone, transport and all, without the garbage collector."""
    reactor = PromptReactor()
    made: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            host, port = listening.getsockname()
            AddressEndpoint(reactor, host, port, 10).connect(FACTORY).addCallback(made.append)
            while not made:
                reactor.iterate(0.01)
            listening.accept()[0].close()
        while not made[0].told:
            reactor.iterate(0.01)
        left = [weakref.ref(made[0]), weakref.ref(made[0].transport)]
        made.clear()
        assert [one() for one in left] == [None, None]
    finally:
        gc.enable()
        reactor.disconnectAll()
        reactor._poller.close()
        reactor.waker.connectionLost(Failure(RuntimeError("the test is over")))
