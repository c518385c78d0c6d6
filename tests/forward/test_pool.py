"""L{proxyd.forward.pool}: who gets which connection, and when there are too many."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from proxyd.errors import ConnectFailed, OverCapacity
from proxyd.forward.origin import OriginConnection
from proxyd.forward.pool import IDLE_S, Upstream


class Transport(StringTransport):
    """A transport that remembers how it ended."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Whoever produces."""

    def unregisterProducer(self) -> None:
        """Nobody produces any more."""


@implementer(IStreamClientEndpoint)
class Endpoint:
    """An endpoint whose attempts the test decides."""

    def __init__(self) -> None:
        self.attempts: list[tuple[IProtocolFactory, Deferred[object]]] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[object]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        attempt: Deferred[object] = Deferred(cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def succeed(self) -> OriginConnection:
        """The oldest attempt succeeds."""
        factory, attempt = self.attempts.pop(0)
        connection = factory.buildProtocol(None)
        connection.makeConnection(Transport())
        attempt.callback(connection)
        return connection

    def fail(self) -> None:
        """The oldest attempt fails."""
        self.attempts.pop(0)[1].errback(ConnectFailed("no"))


def end(connection: OriginConnection) -> None:
    """The connection's transport says that it is gone."""
    connection.connectionLost(Failure(ConnectionDone()))


class UpstreamTests(SynchronousTestCase):
    """L{Upstream}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.upstream = Upstream("o.test:80", self.endpoint, self.clock, limit=2)

    def connect(self) -> OriginConnection:
        """A new connection."""
        connecting = self.upstream.connect(10)
        connection = self.endpoint.succeed()
        self.assertIs(self.successResultOf(connecting), connection)
        return connection

    def test_lastUsedFirst(self) -> None:
        """The connection that was used last is the least likely to be closed."""
        first, second = self.connect(), self.connect()
        self.upstream.give_back(first)
        self.upstream.give_back(second)
        self.assertIs(self.upstream.take(), second)
        self.assertIs(self.upstream.take(), first)
        self.assertIsNone(self.upstream.take())

    def test_closedWhileUnused(self) -> None:
        """A connection that the origin closes is not given to anybody."""
        connection = self.connect()
        self.upstream.give_back(connection)
        end(connection)
        self.assertIsNone(self.upstream.take())
        self.assertEqual(self.upstream.open, 0)

    def test_unusedForTooLong(self) -> None:
        """An unused connection is not kept for ever."""
        connection = self.connect()
        self.upstream.give_back(connection)
        self.clock.advance(IDLE_S)
        self.assertIsNone(self.upstream.take())
        self.assertTrue(connection.transport.disconnecting)
        end(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_octetsWhileUnused(self) -> None:
        """Octets that nobody asked for end the connection: they would be the next request's answer."""
        connection = self.connect()
        self.upstream.give_back(connection)
        connection.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsNone(self.upstream.take())
        self.assertTrue(connection.transport.disconnecting)

    def test_waitingInOrder(self) -> None:
        """Over the limit requests wait; who came first is served first."""
        first = self.connect()
        self.connect()
        waiting = [self.upstream.connect(10), self.upstream.connect(10)]
        self.assertEqual(self.endpoint.attempts, [])
        self.upstream.give_back(first)
        self.assertIs(self.successResultOf(waiting[0]), first)
        self.assertNoResult(waiting[1])
        end(first)
        another = self.endpoint.succeed()
        self.assertIs(self.successResultOf(waiting[1]), another)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waitingInVain(self) -> None:
        """Patience ends."""
        self.connect(), self.connect()
        waiting = self.upstream.connect(10)
        self.clock.advance(10)
        self.failureResultOf(waiting, OverCapacity)

    def test_waitingForEver(self) -> None:
        """Without a limit of patience there is no delayed call."""
        self.connect(), self.connect()
        waiting = self.upstream.connect(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(waiting)

    def test_givingUp(self) -> None:
        """Who has gone waits no longer, and is not served in another's place."""
        first = self.connect()
        self.connect()
        gone, waiting = self.upstream.connect(10), self.upstream.connect(10)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.upstream.give_back(first)
        self.assertIs(self.successResultOf(waiting), first)

    def test_givingUpWhileConnecting(self) -> None:
        """Cancelling aborts the attempt, also one that began after waiting, and its place is free again."""
        first = self.connect()
        self.connect()
        waiting = self.upstream.connect(10)
        end(first)
        waiting.cancel()
        self.assertEqual(self.endpoint.cancelled, 1)
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.upstream.open, 1)

    def test_failureMakesRoom(self) -> None:
        """An attempt that failed does not count."""
        failing, other = self.upstream.connect(10), self.upstream.connect(10)
        waiting = self.upstream.connect(10)
        self.endpoint.fail()
        self.failureResultOf(failing, ConnectFailed)
        self.endpoint.succeed()
        self.successResultOf(other)
        connection = self.endpoint.succeed()
        self.assertIs(self.successResultOf(waiting), connection)

    def test_apart(self) -> None:
        """A WebSocket's connection does not count, whatever the limit, and is never given to another."""
        self.connect(), self.connect()
        connecting = self.upstream.connect_apart()
        connection = self.endpoint.succeed()
        self.assertIs(self.successResultOf(connecting), connection)
        self.assertEqual(self.upstream.open, 2)
        end(connection)
        self.assertEqual(self.upstream.open, 2)

    def test_noLimit(self) -> None:
        """0 is no limit."""
        self.upstream.limit = 0
        for _ in range(10):
            self.connect()
        self.assertEqual(self.upstream.open, 10)

    def test_retired(self) -> None:
        """After a reload connections end: unused ones now, others after their exchange."""
        unused, used = self.connect(), self.connect()
        self.upstream.give_back(unused)
        self.upstream.retire()
        self.assertTrue(unused.transport.disconnecting)
        # Over TLS it takes a while to end; a request that began before the reload must not get it meanwhile.
        self.assertIsNone(self.upstream.take())
        self.assertFalse(used.transport.disconnecting)
        self.upstream.give_back(used)
        self.assertTrue(used.transport.disconnecting)
