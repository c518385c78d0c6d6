"""L{proxyd.outbound.route}: one endpoint for each way, one deadline, and errors in our words."""

from __future__ import annotations

import errno

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectBindError,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from proxyd.errors import ConnectFailed, OutOfDescriptors, RuleUnusable, TLSFailed, UpstreamError, UpstreamTimeout
from proxyd.outbound.route import OriginEndpoint, Route, TLSSettings
from tests.support.certificates import Authority
from tests.support.folders import folder_for

FACTORY = Factory.forProtocol(Protocol)


class RouteTests(SynchronousTestCase):
    """L{Route} and L{OriginEndpoint}."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def test_names(self) -> None:
        """Logs call an origin by its authority, or its socket."""
        self.assertEqual(Route("a.test", 80).name, "a.test:80")
        self.assertEqual(Route("::1", 80).name, "[::1]:80")
        self.assertEqual(Route("localhost", 80, socket="/run/a.sock").name, "unix:/run/a.sock")

    def test_equalRoutes(self) -> None:
        """Equal ways are one, and anything that differs makes another."""
        tls = TLSSettings("a.test")
        self.assertEqual({Route("a", 1, tls=tls), Route("a", 1, tls=TLSSettings("a.test"))}, {Route("a", 1, tls=tls)})
        ways = {
            Route("a", 1),
            Route("a", 2),
            Route("a", 1, endpoint="tcp:b:1"),
            Route("a", 1, socket="/a"),
            Route("a", 1, tls=tls),
            Route("a", 1, tls=TLSSettings("a.test", verify=False)),
            Route("a", 1, tls=TLSSettings("a.test", ca="ca.pem")),
        }
        self.assertEqual(len(ways), 7)

    def test_ipv4(self) -> None:
        """An address is connected to without a look-up."""
        OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 5).connect(FACTORY)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("192.0.2.1", 81))

    def test_ipv6(self) -> None:
        """The same in IPv6."""
        OriginEndpoint(self.reactor, Route("2001:db8::1", 81), 5).connect(FACTORY)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("2001:db8::1", 81))

    def test_socket(self) -> None:
        """A UNIX socket in place of an address."""
        OriginEndpoint(self.reactor, Route("localhost", 80, socket="/run/a.sock"), 5).connect(FACTORY)
        self.assertEqual(self.reactor.unixClients[0][0], "/run/a.sock")

    def test_endpoint(self) -> None:
        """Any client endpoint string in place of all."""
        route = Route("a.test", 80, endpoint="tcp:192.0.2.7:82")
        OriginEndpoint(self.reactor, route, 5).connect(FACTORY)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("192.0.2.7", 82))

    def test_badEndpoint(self) -> None:
        """A string that is no endpoint makes the rule unusable, with the reason for the log."""
        with self.assertRaisesRegex(RuleUnusable, "nonsense:1"):
            OriginEndpoint(self.reactor, Route("a", 80, endpoint="nonsense:1"), 5)

    def test_badFiles(self) -> None:
        """So does a file for TLS that is not there or holds something else."""
        folder = folder_for(self)
        authority = Authority(folder)
        empty = folder / "empty.pem"
        empty.write_bytes(b"")
        only_certificate = authority.file
        broken = folder / "broken.pem"
        broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        for settings in (
            TLSSettings("a.test", ca=str(folder / "missing.pem")),
            TLSSettings("a.test", ca=str(empty)),
            TLSSettings("a.test", ca=str(broken)),
            TLSSettings("a.test", certificate=str(only_certificate)),
            TLSSettings("a_b.test"),
        ):
            with self.assertRaisesRegex(RuleUnusable, "TLS to a.test:443 cannot be set up"):
                OriginEndpoint(self.reactor, Route("a.test", 443, tls=settings), 5)

    def test_nameThatIsNotVerified(self) -> None:
        """A name that no certificate can have is fine where none is looked at."""
        OriginEndpoint(self.reactor, Route("a_b.test", 443, tls=TLSSettings("a_b.test", verify=False)), 5)

    def test_deadline(self) -> None:
        """TCP that does not come up in time is given up."""
        connecting = OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 5).connect(FACTORY)
        self.reactor.advance(5)
        error = self.failureResultOf(connecting, UpstreamTimeout).value
        self.assertEqual((error.status, error.error_type), (504, "connection_timeout"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_never(self) -> None:
        """Without a deadline nothing is scheduled."""
        connecting = OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 0).connect(FACTORY)
        self.reactor.advance(1000)
        self.assertNoResult(connecting)

    def test_outOfDescriptors(self) -> None:
        """A connection for which the system has no descriptor is not the origin server's failure."""
        for cause in (ConnectBindError(errno.EMFILE, "Too many open files"), OSError(errno.ENFILE, "Too many")):
            connecting = OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 5).connect(FACTORY)
            self.reactor.tcpClients[-1][2].clientConnectionFailed(self.reactor.connectors[-1], Failure(cause))
            error = self.failureResultOf(connecting, OutOfDescriptors).value
            self.assertEqual((error.status, error.party, error.stage), (503, "proxyd", "connect"))
            self.assertIn("Too many open files", str(error))

    def test_cancelled(self) -> None:
        """Who is no longer interested gets no error of ours."""
        connecting = OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 5).connect(FACTORY)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_errors(self) -> None:
        """Each failure has its status and its registered type (RFC 9209 section 2.3), and keeps its cause."""
        verify_failed = SSL.Error([("SSL routines", "", "certificate verify failed")])
        for cause, kind, error_type, text in [
            (DNSLookupError("x"), ConnectFailed, "dns_error", "DNS lookup failed"),
            (ConnectionRefusedError(), ConnectFailed, "connection_refused", "could not be reached"),
            (TimeoutError(), UpstreamTimeout, "connection_timeout", "in time"),
            (NoRouteError(), ConnectFailed, "destination_ip_unroutable", "could not be reached"),
            (ConnectBindError(), ConnectFailed, "destination_unavailable", "could not be reached"),
            (VerificationError([]), TLSFailed, "tls_certificate_error", "another name"),
            (verify_failed, TLSFailed, "tls_certificate_error", "certificate verify failed"),
            (SSL.Error(), TLSFailed, "tls_protocol_error", "ended during the handshake"),
            (ConnectionLost(), TLSFailed, "tls_protocol_error", "ended during the handshake"),
        ]:
            connecting = OriginEndpoint(self.reactor, Route("192.0.2.1", 81), 5).connect(FACTORY)
            client_factory = self.reactor.tcpClients[-1][2]
            client_factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(cause))
            error = self.failureResultOf(connecting, UpstreamError).value
            self.assertIsInstance(error, kind)
            self.assertEqual(error.error_type, error_type)
            self.assertIn(text, str(error))
            self.assertIn("192.0.2.1:81", str(error))
            self.assertIs(error.__cause__, cause)
