"""L{proxyd.control.auth.forward}: questions that are given up, and connections that come too late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from proxyd.control.auth.forward import ForwardAuthenticator
from proxyd.errors import AuthUnavailable, ConnectFailed
from proxyd.forward.pool import Upstream
from proxyd.http.request import parse_request
from proxyd.rules.auth import ForwardAuth
from tests.support.transports import BoundedTransport

TIMEOUTS = SimpleNamespace(connect=10.0, response=30.0, body=60.0)
HEAD = parse_request(b"GET /a?b HTTP/1.1\r\nHost: h\r\nCookie: c\r\nAuthorization: d\r\nConnection: cookie\r\n\r\n")


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects when the test says so."""

    def __init__(self) -> None:
        self.attempts: list[tuple[IProtocolFactory, Deferred[Any]]] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        attempt: Deferred[Any] = Deferred(cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt


class ForwardTests(SynchronousTestCase):
    """One question to an authentication server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        upstream = Upstream("sso.test:80", self.endpoint, self.clock)
        self.asked = ForwardAuthenticator(ForwardAuth("http://sso.test", ("X-User",)), upstream, TIMEOUTS)

    def connected(self) -> BoundedTransport:
        """Let the first attempt succeed."""
        factory, attempt = self.endpoint.attempts.pop(0)
        connection = factory.buildProtocol(None)  # type: ignore[arg-type]
        transport = BoundedTransport(connection, self.clock)
        connection.makeConnection(transport)  # type: ignore[union-attr]
        attempt.callback(connection)
        return transport

    def test_given_up_while_connecting(self) -> None:
        """The attempt is cancelled."""
        verdict = self.asked.check(HEAD, [])
        verdict.cancel()
        self.failureResultOf(verdict, CancelledError)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.assertEqual(self.asked.upstream.open, 0)

    def test_given_up_while_asking(self) -> None:
        """The connection is ended."""
        verdict = self.asked.check(HEAD, [])
        transport = self.connected()
        verdict.cancel()
        self.failureResultOf(verdict, CancelledError)
        self.assertTrue(transport.is_aborted)

    def test_not_connected(self) -> None:
        """Why is for the log."""
        verdict = self.asked.check(HEAD, [])
        self.endpoint.attempts[0][1].errback(ConnectFailed("nobody there"))
        error = self.failureResultOf(verdict, AuthUnavailable).value
        self.assertEqual(str(error), "the authentication server sso.test:80 cannot be asked: nobody there")
        self.assertIsInstance(error.__cause__, ConnectFailed)
        self.assertNotIn("sso", error.public)

    def test_question(self) -> None:
        """What Connection names is for proxyd alone; of what the origin server is told only the client is."""
        self.asked.check(HEAD, [(b"X-Real-IP", b"9.9.9.9"), (b"X-Forwarded-Port", b"1"), (b"Forwarded", b"x")])
        self.assertEqual(
            self.connected().take(),
            b"GET / HTTP/1.1\r\nHost: sso.test\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-Method: GET\r\n"
            b"X-Forwarded-Uri: /a?b\r\nAuthorization: d\r\n\r\n",
        )
