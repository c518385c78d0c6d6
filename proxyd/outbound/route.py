"""
The way to an origin server, as one endpoint.

A route says where a target is and how it is reached; equal routes share their
connections, different ones never do.  An endpoint made from it keeps one
deadline over everything (resolving, TCP, TLS) and reports what went wrong as
L{UpstreamError<proxyd.errors.UpstreamError>}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
    UnknownHostError,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import ConnectFailed, RuleUnusable, TLSFailed, UpstreamError, UpstreamTimeout
from proxyd.outbound.tls import TLSEndpoint, client_tls

FOREVER_S = 10 * 365 * 24 * 3600.0
"""Seconds, for Twisted's endpoints that know no "never"."""


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """
    How the target proves who it is, and we who we are.

    @ivar name: the name that is sent as SNI and must be in the certificate.
    @ivar verify: whether it must be.
    @ivar ca: a PEM file of the authorities to trust in place of the system's.
    @ivar certificate: a PEM file with our own certificate.
    @ivar key: a PEM file with its key.
    """

    name: str
    verify: bool = True
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """
    Where an origin server is, and the way to it.

    @ivar host: a host name or an IP address.
    @ivar socket: the name of a UNIX socket in place of both.
    @ivar endpoint: a client endpoint string in place of all three.
    @ivar tls: L{None} is plain text.
    """

    host: str
    port: int
    socket: str | None = None
    endpoint: str | None = None
    tls: TLSSettings | None = None

    @property
    def name(self) -> str:
        """How logs call the origin server."""
        if self.socket is not None:
            return f"unix:{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@implementer(IStreamClientEndpoint)
class OriginEndpoint:
    """The endpoint of a route, with a deadline and errors of our own."""

    def __init__(self, reactor: Any, route: Route, timeout: float) -> None:
        """
        @param timeout: seconds for everything; 0 is never.

        @raise RuleUnusable: the endpoint string, or a file for TLS, is bad.
        """
        self._reactor = reactor
        self._name = route.name
        self._timeout = timeout
        self._endpoint = _endpoint(reactor, route, timeout or FOREVER_S)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        if self._timeout:
            connecting.addTimeout(self._timeout, self._reactor, self._too_slow)
        return connecting.addErrback(self._failed)

    def _too_slow(self, result: object, timeout: float) -> NoReturn:
        raise UpstreamTimeout(
            f"{self._name} could not be reached in {timeout:g} s", stage="connect", error_type="connection_timeout"
        )

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(ConnectingCancelledError):
            return Failure(CancelledError())
        error = _translate(failure.value, self._name)
        if error is None:
            return failure
        error.__cause__ = failure.value
        return Failure(error)


def _endpoint(reactor: Any, route: Route, timeout: float) -> IStreamClientEndpoint:
    endpoint: IStreamClientEndpoint
    if route.endpoint is not None:
        try:
            endpoint = clientFromString(reactor, route.endpoint)
        except Exception as error:
            # Parsers of endpoint strings are plugins; each raises what it likes.
            raise RuleUnusable(f"the endpoint {route.endpoint!r} cannot be used: {error!r}") from error
    elif route.socket is not None:
        endpoint = UNIXClientEndpoint(reactor, route.socket, timeout=timeout)
    elif isIPAddress(route.host):
        # HostnameEndpoint would ask a thread to resolve the address: a third of a connection's cost.
        endpoint = TCP4ClientEndpoint(reactor, route.host, route.port, timeout=timeout)
    elif isIPv6Address(route.host):
        endpoint = TCP6ClientEndpoint(reactor, route.host, route.port, timeout=timeout)
    else:
        endpoint = HostnameEndpoint(reactor, route.host, route.port, timeout=timeout)
    tls = route.tls
    if tls is None:
        return endpoint
    try:
        creator = client_tls(tls.name, verify=tls.verify, ca=tls.ca, certificate=tls.certificate, key=tls.key)
    except (OSError, ValueError) as error:
        raise RuleUnusable(f"TLS to {route.name} cannot be set up: {error}") from error
    return TLSEndpoint(endpoint, creator, reactor)


def _translate(error: BaseException | None, name: str) -> UpstreamError | None:
    """
    @return: the error in our words, or L{None} for what is not a failure to connect.
    """
    if isinstance(error, CancelledError | UpstreamError):
        return None
    if isinstance(error, DNSLookupError | UnknownHostError):
        return ConnectFailed(f"the name of {name} could not be resolved: {error}", error_type="dns_error")
    if isinstance(error, ConnectionRefusedError):
        return ConnectFailed(f"{name} refused the connection", error_type="connection_refused")
    if isinstance(error, TimeoutError):
        return UpstreamTimeout(f"{name} could not be reached in time", stage="connect", error_type="connection_timeout")
    if isinstance(error, VerificationError):
        return TLSFailed(f"the certificate of {name} is for another name", error_type="tls_certificate_error")
    if isinstance(error, SSL.Error):
        reasons = ", ".join(str(reason[-1]) for reason in (error.args[0] if error.args else ()))
        verification = "certificate verify failed" in reasons
        return TLSFailed(
            f"TLS to {name} failed: {reasons or 'the connection ended during the handshake'}",
            error_type="tls_certificate_error" if verification else "tls_protocol_error",
        )
    kind = "destination_ip_unroutable" if isinstance(error, NoRouteError) else "destination_unavailable"
    return ConnectFailed(f"{name} could not be reached: {error}", error_type=kind)
