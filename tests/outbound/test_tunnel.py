"""L{proxyd.outbound.tunnel}: through proxies, in memory, and out of every stage."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from proxyd.errors import ProxyAuthenticationRequired, ProxyConnectFailed, ProxyTunnelFailed
from proxyd.outbound.tunnel import GivenUp, SocksEndpoint, TunnelEndpoint
from tests.support.transports import BoundedTransport


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Reaches the proxy, which is the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport: BoundedTransport

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        protocol = protocolFactory.buildProtocol(None)
        self.transport = BoundedTransport(protocol, self.clock)
        protocol.makeConnection(self.transport)
        connecting: Deferred[Any] = Deferred()
        connecting.callback(protocol)
        return connecting


class Target(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class TunnelTests(SynchronousTestCase):
    """L{TunnelEndpoint} and L{SocksEndpoint}."""

    def setUp(self) -> None:
        self.proxy = Endpoint()

    def connect(self) -> Deferred[Any]:
        """An attempt through an HTTP proxy."""
        endpoint = TunnelEndpoint(self.proxy, "target.test", 443, [(b"Proxy-Authorization", b"hidden")])
        connecting = endpoint.connect(Factory.forProtocol(Target))
        self.assertTrue(self.proxy.transport.take().startswith(b"CONNECT target.test:443 HTTP/1.1\r\n"))
        return connecting

    def test_open(self) -> None:
        """The transport becomes the target's own, with what it said at once; nothing stays between."""
        connecting = self.connect()
        self.assertNoResult(connecting)
        self.proxy.transport.deliver(b"HTTP/1.1 200 OK\r\n\r\nhel")
        target = self.successResultOf(connecting)
        self.assertIs(self.proxy.transport.protocol, target)
        self.assertIs(target.transport, self.proxy.transport)
        self.proxy.transport.deliver(b"lo")
        self.assertEqual(target.data, b"hello")
        self.proxy.transport.reset()
        self.assertTrue(target.reason.check(ConnectionLost))

    def test_refused(self) -> None:
        """A refusal waits for as much of its body as it announces, and keeps it."""
        connecting = self.connect()
        self.proxy.transport.deliver(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nbec")
        self.assertNoResult(connecting)
        self.proxy.transport.deliver(b"aus")
        error = self.failureResultOf(connecting, ProxyConnectFailed).value
        self.assertEqual((error.code, error.name), (33, "proxy_connect_failed"))
        self.assertEqual((error.stage, error.hop), ("proxy_handshake", "proxy"))
        self.assertEqual((error.refusal.status, error.refusal.reason, error.refusal.body), (403, "No", b"becaus"))
        self.assertTrue(self.proxy.transport.is_aborted)
        self.assertNotIn("hidden", str(error) + repr(error))

    def test_challenged(self) -> None:
        """407 says how the proxy wants to be told who we are."""
        connecting = self.connect()
        self.proxy.transport.deliver(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=a\r\n\r\n")
        error = self.failureResultOf(connecting, ProxyAuthenticationRequired).value
        self.assertEqual((error.code, error.refusal.challenges), (34, ("Basic realm=a",)))

    def test_refusalBrokenOff(self) -> None:
        """A refusal counts, whether its body is complete or not."""
        connecting = self.connect()
        self.proxy.transport.deliver(b"HTTP/1.1 403 No\r\nContent-Length: 500\r\n\r\nhalf")
        self.proxy.transport.reset()
        self.failureResultOf(connecting, ProxyConnectFailed)

    def test_nonsense(self) -> None:
        """What is no reply fails the tunnel, and what still comes is nothing."""
        connecting = self.connect()
        self.proxy.transport.deliver(b"SSH-2.0-OpenSSH\r\n\r\n")
        error = self.failureResultOf(connecting, ProxyTunnelFailed).value
        self.assertEqual((error.code, error.stage), (36, "reading"))
        self.assertTrue(self.proxy.transport.is_aborted)

    def test_hangsUp(self) -> None:
        """A proxy that ends the connection without a word."""
        connecting = self.connect()
        self.proxy.transport.end()
        self.proxy.clock.advance(0)
        error = self.failureResultOf(connecting, ProxyTunnelFailed).value
        self.assertIsInstance(error.__cause__, ConnectionDone)

    def test_givenUp(self) -> None:
        """Cancelling cuts the connection, and says where the attempt was."""
        connecting = self.connect()
        connecting.cancel()
        self.assertEqual(self.failureResultOf(connecting, GivenUp).value.stage, "proxy_handshake")
        self.assertTrue(self.proxy.transport.is_aborted)
        self.proxy.clock.advance(0)
        self.assertEqual(self.proxy.clock.getDelayedCalls(), [])

    def test_givenUpAfterRefusal(self) -> None:
        """Who gives up waiting for a refusal's body has the refusal."""
        connecting = self.connect()
        self.proxy.transport.deliver(b"HTTP/1.1 403 No\r\nContent-Length: 500\r\n\r\nhalf")
        connecting.cancel()
        self.failureResultOf(connecting, ProxyConnectFailed)

    def test_nobodyWantsIt(self) -> None:
        """A factory that makes no protocol gives the connection up."""

        class Nobody(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        connecting = TunnelEndpoint(self.proxy, "target.test", 443).connect(Nobody())
        self.proxy.transport.deliver(b"HTTP/1.1 200 OK\r\n\r\n")
        self.failureResultOf(connecting, GivenUp)
        self.assertTrue(self.proxy.transport.is_aborted)

    def test_badFields(self) -> None:
        """A field that would begin another line is refused before anything is sent."""
        with self.assertRaises(ValueError):
            TunnelEndpoint(self.proxy, "target.test", 443, [(b"A", b"b\r\nC: d")])

    def test_socks5(self) -> None:
        """SOCKS5 with a password, as one conversation."""
        endpoint = SocksEndpoint(self.proxy, "target.test", 443, user=b"me", password=b"pw")
        connecting = endpoint.connect(Factory.forProtocol(Target))
        transport = self.proxy.transport
        self.assertEqual(transport.take(), b"\x05\x02\x00\x02")
        transport.deliver(b"\x05\x02")
        self.assertEqual(transport.take(), b"\x01\x02me\x02pw")
        transport.deliver(b"\x01\x00")
        self.assertEqual(transport.take(), b"\x05\x01\x00\x03\x0btarget.test\x01\xbb")
        transport.deliver(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello")
        self.assertEqual(self.successResultOf(connecting).data, b"hello")

    def test_socks4(self) -> None:
        """SOCKS4, and a host that it cannot ask for."""
        endpoint = SocksEndpoint(self.proxy, "192.0.2.1", 80, version=4)
        connecting = endpoint.connect(Factory.forProtocol(Target))
        self.assertEqual(self.proxy.transport.take(), b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
        self.proxy.transport.deliver(b"\x00\x5a" + bytes(6))
        self.successResultOf(connecting)
        with self.assertRaises(ValueError):
            SocksEndpoint(self.proxy, "2001:db8::1", 80, version=4)
