"""L{proxyd.outbound.tls}: "connected" means that the handshake is done and the certificate is good."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from proxyd.outbound.tls import TLSEndpoint, client_tls
from tests.support.certificates import Authority
from tests.support.folders import folder_for


class Greets(Protocol):
    """Speaks first."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")


class Collects(Protocol):
    """Remembers what comes."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class TLSEndpointTests(SynchronousTestCase):
    """L{TLSEndpoint}: real TLS, no socket."""

    def setUp(self) -> None:
        self.authority = Authority(folder_for(self))
        self.endpoint, self.completer = iosim.connectableEndpoint()
        self.clock = self.completer._reactor

    def serve(self, *names: str) -> None:
        """A server with a certificate for these names."""
        certificate = PrivateCertificate.loadPEM(self.authority.sign(*names).read_bytes())
        factory = TLSMemoryBIOFactory(certificate.options(), False, Factory.forProtocol(Greets), self.clock)
        self.clock.tcpServers[:] = [(4321, factory, 50, "")]

    def connect(self, name: str = "a.test", **options: Any) -> Deferred[IProtocol]:
        """An attempt to connect."""
        options.setdefault("ca", str(self.authority.file))
        creator = client_tls(name, **options)
        return TLSEndpoint(self.endpoint, creator).connect(Factory.forProtocol(Collects))

    def test_connected(self) -> None:
        """The protocol is connected when TLS is, and gets what the server said at once."""
        self.serve("a.test")
        connecting = self.connect()
        pump = self.completer.succeedOnce()
        pump.flush()
        client = self.successResultOf(connecting)
        self.assertEqual(client.data, b"hello")
        self.assertIs(client.transport.wrappedProtocol, client)

    def test_trailingDot(self) -> None:
        """A name that ends in a dot is the same name; no certificate has the dot."""
        self.serve("a.test")
        connecting = self.connect("a.test.")
        self.completer.succeedOnce().flush()
        self.successResultOf(connecting)

    def test_anotherName(self) -> None:
        """A certificate for somebody else is no connection."""
        self.serve("b.test")
        connecting = self.connect()
        self.completer.succeedOnce().flush()
        self.failureResultOf(connecting, VerificationError)

    def test_unknownAuthority(self) -> None:
        """Nor is one from nobody we know."""
        self.serve("a.test")
        connecting = self.connect(ca=str(Authority(folder_for(self)).file))
        self.completer.succeedOnce().flush()
        self.failureResultOf(connecting, SSL.Error)

    def test_unverified(self) -> None:
        """Unless nobody is to be verified."""
        self.serve("b.test")
        connecting = self.connect(verify=False)
        self.completer.succeedOnce().flush()
        self.assertEqual(self.successResultOf(connecting).data, b"hello")

    def test_noTLS(self) -> None:
        """A server that speaks something else is a failure of TLS."""
        self.clock.tcpServers[:] = [(4321, Factory.forProtocol(Greets), 50, "")]
        connecting = self.connect()
        self.completer.succeedOnce().flush()
        self.failureResultOf(connecting, SSL.Error)

    def test_cancelledInHandshake(self) -> None:
        """Giving up while TLS is being made cuts the connection."""
        self.clock.tcpServers[:] = [(4321, Factory.forProtocol(Collects), 50, "")]
        connecting = self.connect()
        pump = self.completer.succeedOnce()
        pump.pump()
        connecting.cancel()
        pump.flush()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(pump.serverIO.disconnected)

    def test_ownCertificate(self) -> None:
        """A certificate of ours may come with its chain, and its key in a file of its own."""
        both = self.authority.sign("us.test")
        text = both.read_text()
        certificate, key = both.with_suffix(".crt"), both.with_suffix(".key")
        cut = text.index("-----BEGIN PRIVATE KEY")
        certificate.write_text(text[:cut] + self.authority.file.read_text())
        key.write_text(text[cut:])
        for verify in (True, False):
            client_tls("a.test", verify=verify, certificate=str(certificate), key=str(key))
            client_tls("192.0.2.1", verify=verify, certificate=str(both))
